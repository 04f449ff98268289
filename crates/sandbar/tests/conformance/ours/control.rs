//! What a client can do to its processes beyond the dialect.

use sandbar_testkit::{DEADLINE, eventually, processes};
use serde_json::json;

use crate::client::base64;
use crate::server::Server;

pub(crate) fn a_process_is_waited_for_listed_and_its_input_closed(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat; exit 3", &json!({"pipeStdin": true})));
    client.ask("process/start", &server.shell("a", "true"));
    assert_eq!(
        client.ask("process/wait", &json!({"processId": "p", "waitMs": 50})),
        json!({"exitCode": null})
    );
    client.story("a");
    let phases = |page: &serde_json::Value| -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let processes = page["processes"].as_array().unwrap();
        processes.iter().map(|one| (text(&one["processId"]), text(&one["phase"]))).collect()
    };
    let pair = |id: &str, phase: &str| (id.to_owned(), phase.to_owned());
    let page = client.ask("process/list", &json!({}));
    assert_eq!(phases(&page), [pair("a", "closed"), pair("p", "running")]);
    client.ask("process/write", &json!({"processId": "p", "chunk": base64("bye\n"), "writeId": "w"}));
    client.ask("process/closeStdin", &json!({"processId": "p"}));
    let late = json!({"processId": "p", "chunk": base64("x"), "writeId": "w2"});
    assert_eq!(client.ask("process/write", &late), json!({"status": "stdinClosed"}));
    assert_eq!(client.ask("process/wait", &json!({"processId": "p"})), json!({"exitCode": 3}));
    assert_eq!(client.story("p").stdout, "bye\n");
    let page = client.ask("process/list", &json!({}));
    assert_eq!(phases(&page), [pair("a", "closed"), pair("p", "closed")]);
    assert_eq!(page["processes"][1]["outputBytes"], json!(4));
}

pub(crate) fn a_terminal_is_resized_and_its_end_is_told_truly(server: &Server) {
    let mut client = server.ready();
    let script = "trap 'stty size' WINCH; stty size; mkfifo hold; while :; do read x < hold; done";
    let changes = json!({"tty": true, "size": {"rows": 10, "columns": 20}});
    client.ask("process/start", &server.shell_with("p", script, &changes));
    client.output_with("p", "10 20\r\n");
    client.ask("process/resize", &json!({"processId": "p", "size": {"rows": 30, "columns": 100}}));
    client.output_with("p", "30 100\r\n");
    client.ask("process/terminate", &json!({"processId": "p"}));
    let exited = client.news("process/exited", "p");
    assert_eq!((&exited["exitCode"], &exited["signal"]), (&json!(137), &json!("SIGKILL")));
}

pub(crate) fn any_signal_is_sent_by_its_name(server: &Server) {
    let mut client = server.ready();
    for (process, signal, name, code) in
        [("a", "SIGUSR1", "SIGUSR1", 138), ("b", "term", "SIGTERM", 143), ("c", "SEGV", "SIGSEGV", 139)]
    {
        client.ask(
            "process/start",
            &server.shell_with(process, "echo ready; exec cat", &json!({"pipeStdin": true})),
        );
        client.output_with(process, "ready\n");
        client.ask("process/signal", &json!({"processId": process, "signal": signal}));
        let exited = client.news("process/exited", process);
        assert_eq!((&exited["exitCode"], &exited["signal"]), (&json!(code), &json!(name)), "{signal}");
    }
}

pub(crate) fn terminate_asks_first_when_it_is_told_to(server: &Server) {
    let mut client = server.ready();
    // The trap runs when the wait is interrupted, whatever else runs.
    let script = "trap 'echo bye; exit 4' TERM; mkfifo hold; cat hold & echo ready; wait";
    client.ask("process/start", &server.shell("p", script));
    client.output_with("p", "ready\n");
    let polite =
        |process: &str, grace: u64| json!({"processId": process, "signal": "TERM", "graceMs": grace});
    assert_eq!(client.ask("process/terminate", &polite("p", 60_000)), json!({"running": true}));
    client.output_with("p", "bye\n");
    assert_eq!(client.news("process/exited", "p")["exitCode"], json!(4));
    client.ask(
        "process/start",
        &server.shell("q", "trap '' TERM; echo ready; exec cat < /dev/zero > /dev/null"),
    );
    client.output_with("q", "ready\n");
    client.ask("process/terminate", &polite("q", 50));
    assert_eq!(client.news("process/exited", "q")["signal"], json!("SIGKILL"));
}

pub(crate) fn terminate_takes_along_what_its_leader_forks_and_leaves(server: &Server) {
    let mut client = server.ready();
    let (late, deaf) = (processes::unique_sleep(), processes::unique_sleep());
    // One that heeds no TERM, and one that is forked when it has gone around.
    let script = format!(
        "(trap '' TERM; exec setsid sleep {deaf}) & trap 'setsid sleep {late} & exit 4' TERM; mkfifo hold; echo ready; \
         while :; do read x < hold; done"
    );
    client.ask("process/start", &server.shell("p", &script));
    client.output_with("p", "ready\n");
    eventually(DEADLINE, "the one that heeds nothing", || {
        (!processes::with_argument(&deaf).is_empty()).then_some(())
    });
    let asked = json!({"processId": "p", "signal": "TERM", "graceMs": 600_000});
    assert_eq!(client.ask("process/terminate", &asked), json!({"running": true}));
    // The close says that nothing has the output open any more.
    assert_eq!(client.story("p").code, 4);
    assert_eq!((processes::with_argument(&late), processes::with_argument(&deaf)), (vec![], vec![]));
}

pub(crate) fn terminate_reaches_grandchildren_with_sessions_of_their_own(server: &Server) {
    let mut client = server.ready();
    let marker = processes::unique_sleep();
    let script = format!("setsid sleep {marker} & echo ready; wait");
    client.ask("process/start", &server.shell("p", &script));
    client.output_with("p", "ready\n");
    eventually(DEADLINE, "the grandchild", || (!processes::with_argument(&marker).is_empty()).then_some(()));
    client.ask("process/terminate", &json!({"processId": "p"}));
    // The close says that nothing has the output open any more.
    assert_eq!(client.story("p").code, 137);
    assert_eq!(processes::with_argument(&marker), []);
}
