//! What happens once, however often it is asked for.

use std::collections::BTreeMap;

use sandbar_testkit::{DEADLINE, eventually};
use serde_json::{Value, json};

use crate::client::{base64, bytes};
use crate::server::Server;

pub(crate) fn a_start_with_the_same_start_id_is_no_second_one(server: &Server) {
    let mut client = server.ready();
    let start_id = json!({"startId": "0199a213-81a4-7000-8000-000000000002"});
    client.ask("process/start", &server.shell_with("p", "echo x >> made", &start_id));
    assert_eq!(client.story("p").code, 0);
    for process in ["p", "q"] {
        let id = client.send("process/start", &server.shell_with(process, "echo x >> made", &start_id));
        client.answer(id);
    }
    client.ask("process/start", &server.shell("r", "cat made"));
    assert_eq!(client.story("r").stdout, "x\n");
}

pub(crate) fn what_a_resumed_client_missed_comes_once(server: &Server) {
    let (mut client, session) = server.ready_with_session();
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; read a; echo $a; exit 8";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    let mut chunks: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut note = |chunk: &Value| {
        let (seq, bytes) = (chunk["seq"].as_u64().unwrap(), bytes(&chunk["chunk"]));
        let known = chunks.insert(seq, bytes.clone());
        assert!(known.is_none_or(|known| known == bytes), "{seq} came with other bytes");
    };
    let first = client.news("process/output", "p");
    let last = first["seq"].as_u64().unwrap();
    note(&first);
    client.cut();
    let mut client = server.resume(&session);
    client.ask("process/write", &json!({"processId": "p", "chunk": base64("go\n"), "writeId": "w"}));
    let closed = client.news("process/closed", "p")["seq"].as_u64().unwrap();
    let exited = client.news("process/exited", "p");
    while client.has_heard(|message| message["method"] == json!("process/output")) {
        note(&client.news("process/output", "p"));
    }
    // What was sent to nobody is in the log, and what was sent is there as well, under the same numbers.
    let read = eventually(DEADLINE, "the whole log", || {
        let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": last}));
        (read["closed"] == json!(true)).then_some(read)
    });
    read["chunks"].as_array().unwrap().iter().for_each(&mut note);
    let mut seqs: Vec<u64> = chunks.keys().copied().collect();
    seqs.extend([exited["seq"].as_u64().unwrap(), closed]);
    assert_eq!(seqs, (1..=closed).collect::<Vec<_>>());
    let expected: String = (0..300).map(|line| format!("line {line}\n")).chain(["go\n".to_owned()]).collect();
    assert_eq!(String::from_utf8(chunks.into_values().flatten().collect()).unwrap(), expected);
    assert_eq!(exited["exitCode"], json!(8));
}
