//! `process/write`, `process/signal` and `process/terminate`.

use serde_json::{Value, json};

use crate::client::base64;
use crate::server::Server;

fn write(process: &str, text: &str, id: &str) -> Value {
    json!({"processId": process, "chunk": base64(text), "writeId": id})
}

pub(crate) fn input_arrives_once_for_each_write_id(server: &Server) {
    let mut client = server.ready();
    let script = "read a; read b; echo $a $b";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    for (text, id) in [("once\n", "w1"), ("once\n", "w1"), ("twice\n", "w2")] {
        assert_eq!(client.ask("process/write", &write("p", text, id)), json!({"status": "accepted"}));
    }
    assert_eq!(client.story("p").stdout, "once twice\n");
}

pub(crate) fn writes_say_what_became_of_them(server: &Server) {
    let mut client = server.ready();
    let status = |answer: Value| answer["status"].as_str().unwrap().to_owned();
    assert_eq!(status(client.ask("process/write", &write("q", "x", "w"))), "unknownProcess");
    client.ask("process/start", &server.shell("p", "mkfifo hold; cat hold"));
    assert_eq!(status(client.ask("process/write", &write("p", "x", "w"))), "stdinClosed");
    client.ask("process/terminate", &json!({"processId": "p"}));
    client.ask("process/start", &server.shell_with("r", "cat", &json!({"pipeStdin": true})));
    // No bytes are no end of file.
    assert_eq!(status(client.ask("process/write", &write("r", "", "w1"))), "accepted");
    assert_eq!(status(client.ask("process/write", &write("r", "hi\n", "w2"))), "accepted");
    client.output_with("r", "hi\n");
    assert_eq!(client.refused_with("process/write", &write("r", "x", "")), -32602);
}

pub(crate) fn what_is_no_base64_is_refused(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let broken = json!({"processId": "p", "chunk": "!", "writeId": "w"});
    assert_eq!(client.refused_with("process/write", &broken), -32602);
    let broken = client.refused("fs/writeFile", &json!({"path": server.file("f"), "dataBase64": "!"}));
    assert_eq!(broken.code, -32600);
    assert!(broken.message.starts_with("fs/writeFile requires valid base64 dataBase64: "), "{broken:?}");
}

pub(crate) fn an_interrupt_reaches_a_process_that_handles_it(server: &Server) {
    let mut client = server.ready();
    let script = "trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    client.ask("process/start", &server.shell("p", script));
    client.output_with("p", "ready\n");
    let interrupt = |process: &str| json!({"processId": process, "signal": "interrupt"});
    assert_eq!(client.ask("process/signal", &interrupt("p")), json!({}));
    let story = client.story("p");
    assert_eq!((story.stdout.as_str(), story.code), ("got\n", 7));
    // Neither one that has ended nor one that never was is an error.
    for process in ["p", "q"] {
        assert_eq!(client.ask("process/signal", &interrupt(process)), json!({}));
    }
    assert_eq!(
        client.refused_with("process/signal", &json!({"processId": "p", "signal": "SIGNOPE"})),
        -32602
    );
}

pub(crate) fn terminate_kills_at_once_and_says_whether_anything_ran(server: &Server) {
    let mut client = server.ready();
    client
        .ask("process/start", &server.shell("p", "trap 'echo got' TERM; echo ready; mkfifo hold; cat hold"));
    client.output_with("p", "ready\n");
    let terminate = |process: &str| json!({"processId": process});
    assert_eq!(client.ask("process/terminate", &terminate("p")), json!({"running": true}));
    let story = client.story("p");
    assert_eq!((story.stdout.as_str(), story.code), ("", 137));
    for process in ["p", "q"] {
        assert_eq!(client.ask("process/terminate", &terminate(process)), json!({"running": false}));
    }
}

pub(crate) fn a_terminal_echoes_and_takes_an_end_of_file(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "echo ready; cat; echo end", &json!({"tty": true})));
    client.output_with("p", "ready\r\n");
    client.ask("process/write", &write("p", "typed\n", "w1"));
    client.ask("process/write", &write("p", "\u{4}", "w2"));
    let story = client.story("p");
    assert_eq!((story.pty.as_str(), story.code), ("typed\r\ntyped\r\nend\r\n", 0));
}
