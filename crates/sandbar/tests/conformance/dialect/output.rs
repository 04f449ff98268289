//! `process/read`, and the order of what a process does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Story, decoded};
use crate::server::Server;

fn chunks(read: &Value) -> Vec<(u64, String)> {
    let chunks = read["chunks"].as_array().unwrap();
    chunks.iter().map(|chunk| (chunk["seq"].as_u64().unwrap(), decoded(&chunk["chunk"]))).collect()
}

pub(crate) fn a_read_tells_the_same_as_the_notifications(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell("p", "echo one; echo two >&2; exit 5"));
    let story = client.story("p");
    let last = *story.seqs.last().unwrap();
    let read = client.ask("process/read", &json!({"processId": "p"}));
    let both: String = chunks(&read).into_iter().map(|(_, text)| text).collect();
    assert!(both.contains("one\n") && both.contains("two\n") && both.len() == 8, "{both}");
    let mut rest = read.clone();
    rest["chunks"] = Value::Null;
    let expected = json!({"chunks": null, "nextSeq": last + 1, "exited": true, "exitCode": 5, "closed": true,
                          "failure": null, "sandboxDenied": false});
    assert_eq!(rest, expected);
    // The next cursor leads to nothing more.
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": last, "waitMs": 60_000}));
    assert_eq!(
        (&read["chunks"], &read["nextSeq"], &read["closed"]),
        (&json!([]), &json!(last + 1), &json!(true))
    );
}

pub(crate) fn a_read_gives_at_least_one_chunk_and_tells_where_it_stopped(server: &Server) {
    let mut client = server.ready();
    let script = "for word in one two three; do echo $word; read answer; done";
    client.ask("process/start", &server.shell_with("p", script, &json!({"tty": false, "pipeStdin": true})));
    for (at, word) in ["one", "two", "three"].iter().enumerate() {
        client.output_with("p", word);
        let write = json!({"processId": "p", "chunk": "Cg==", "writeId": format!("w{at}")});
        client.ask("process/write", &write);
    }
    client.story("p");
    let mut after = 0;
    for word in ["one\n", "two\n", "three\n"] {
        let read = json!({"processId": "p", "afterSeq": after, "maxBytes": 1});
        let read = client.ask("process/read", &read);
        assert_eq!(chunks(&read), [(after + 1, word.to_owned())]);
        after = read["nextSeq"].as_u64().unwrap() - 1;
    }
    let read = client.ask("process/read", &json!({"processId": "p", "maxBytes": 8}));
    assert_eq!(chunks(&read), [(1, "one\n".to_owned()), (2, "two\n".to_owned())]);
    assert_eq!(read["nextSeq"], json!(3));
}

pub(crate) fn a_long_poll_returns_when_something_happens(server: &Server) {
    let mut client = server.ready();
    client.ask(
        "process/start",
        &server.shell_with("p", "read a; echo $a; read b", &json!({"pipeStdin": true})),
    );
    // Written first: the peer carries requests out one after the other.
    client.ask("process/write", &json!({"processId": "p", "chunk": "aGkK", "writeId": "w"}));
    let read = client.ask("process/read", &json!({"processId": "p", "waitMs": 60_000}));
    assert_eq!(chunks(&read), [(1, "hi\n".to_owned())]);
}

pub(crate) fn a_long_poll_returns_at_its_deadline(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let begun = Instant::now();
    let read = client.ask("process/read", &json!({"processId": "p", "waitMs": 150}));
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    let expected = json!({"chunks": [], "nextSeq": 1, "exited": false, "exitCode": null, "closed": false,
                          "failure": null, "sandboxDenied": false});
    assert_eq!(read, expected);
    let read = client.ask("process/read", &json!({"processId": "p", "waitMs": 0}));
    assert_eq!(read, expected);
}

pub(crate) fn a_poll_between_exit_and_close_waits(server: &Server) {
    let mut client = server.ready();
    // What holds the output open ends when its input does, which is the test's.
    let hold = server.home.workspace().join("hold");
    let script = "mkfifo hold; (cat hold) & exit 6";
    client.ask("process/start", &server.shell("p", script));
    let exited = client.news("process/exited", "p");
    let after = exited["seq"].as_u64().unwrap();
    let begun = Instant::now();
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": after, "waitMs": 150}));
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    assert_eq!(
        (&read["exited"], &read["exitCode"], &read["closed"]),
        (&json!(true), &json!(6), &json!(false))
    );
    std::fs::write(hold, "late\n").unwrap();
    let story = client.story_after("p", &exited);
    assert_eq!(story.stdout, "late\n");
    assert_eq!(story.seqs, [after, after + 1, after + 2]);
}

pub(crate) fn an_exit_does_not_wait_for_grandchildren_and_a_close_does(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell("p", "mkfifo hold; cat hold & echo hi; exit 0"));
    let exited = client.news("process/exited", "p");
    assert_eq!(exited["exitCode"], json!(0));
    assert!(!client.has_heard(|message| message["method"] == json!("process/closed")));
    std::fs::write(server.home.workspace().join("hold"), "").unwrap();
    let story = client.story_after("p", &exited);
    assert_eq!(story, Story { seqs: vec![1, 2, 3], stdout: "hi\n".into(), ..Story::default() });
}

pub(crate) fn reads_of_unknown_processes_are_refused(server: &Server) {
    let mut client = server.ready();
    let refused = client.refused("process/read", &json!({"processId": "q", "waitMs": 60_000}));
    assert_eq!((refused.code, refused.message.as_str()), (-32600, "unknown process id q"));
    assert_eq!(client.refused_with("process/read", &json!({})), -32602);
}

pub(crate) fn output_of_many_processes_stays_apart(server: &Server) {
    let mut client = server.ready();
    let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    for name in &names {
        let script = format!("i=0; while [ $i -lt 200 ]; do echo {name} $i; i=$((i+1)); done");
        client.ask("process/start", &server.shell(name, &script));
    }
    for name in &names {
        let story = client.story(name);
        let expected: String = (0..200).map(|number| format!("{name} {number}\n")).collect();
        assert_eq!(story.stdout, expected);
        assert_eq!(story.seqs, (1..=story.seqs.len() as u64).collect::<Vec<_>>());
    }
}
