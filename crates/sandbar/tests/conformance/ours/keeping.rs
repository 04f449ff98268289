//! What happens once, however often it is asked for.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use sandbar_testkit::{DEADLINE, eventually};
use serde_json::{Value, json};

use crate::client::bytes;
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

pub(crate) fn a_start_that_is_asked_for_again_while_it_is_under_way_is_one(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell("first", "true"));
    client.story("first");
    // It starts nothing for now.
    let keeper = server.home.keeper();
    keeper.signal(Signal::STOP);
    let start_id = json!({"startId": "0199a213-81a4-7000-8000-000000000003"});
    let params = server.shell_with("p", "echo x >> made; cat made", &start_id);
    let asked = [(); 2].map(|()| client.send("process/start", &params));
    // Answered behind them, where they could be.
    client.ask("environment/status", &json!({}));
    assert!(!client.has_heard(|message| message.get("id").is_some()), "nothing has begun");
    keeper.signal(Signal::CONT);
    let answers = asked.map(|id| client.answer(id));
    assert_eq!(answers[0]["result"]["processId"], json!("p"), "{answers:?}");
    assert_eq!(answers[0]["result"], answers[1]["result"]);
    let story = client.story("p");
    assert_eq!((story.stdout.as_str(), story.code), ("x\n", 0));
}

pub(crate) fn a_process_that_is_to_end_before_it_has_begun_ends_when_it_has(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell("first", "true"));
    client.story("first");
    let keeper = server.home.keeper();
    keeper.signal(Signal::STOP);
    let start = client.send("process/start", &server.shell("p", "exec sleep 86400"));
    // Answered behind it, so that it is under way.
    client.ask("environment/status", &json!({}));
    eventually(DEADLINE, "the start under way", || {
        let write = json!({"processId": "p", "chunk": "", "writeId": "w"});
        (client.ask("process/write", &write) == json!({"status": "starting"})).then_some(())
    });
    let end = client.send("process/terminate", &json!({"processId": "p"}));
    keeper.signal(Signal::CONT);
    assert_eq!(client.answer(start)["result"]["processId"], json!("p"));
    assert_eq!(client.answer(end)["result"], json!({"running": true}));
    assert_eq!(client.story("p").code, 137);
}

pub(crate) fn what_a_resumed_client_missed_comes_once(server: &Server) {
    let (mut client, session) = server.ready_with_session();
    // Writes without a pause, in pieces as small as it can.
    let script = "i=0; while ! test -e stop; do echo line $i; i=$((i+1)); done; echo last $i; exit 8";
    client.ask("process/start", &server.shell("p", script));
    let mut chunks: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let note = |chunks: &mut BTreeMap<u64, Vec<u8>>, chunk: &Value| {
        let seq = chunk["seq"].as_u64().unwrap();
        assert!(chunks.insert(seq, bytes(&chunk["chunk"])).is_none(), "{seq} came twice");
    };
    for _ in 0..5 {
        note(&mut chunks, &client.news("process/output", "p"));
    }
    let last = *chunks.keys().next_back().unwrap();
    client.cut();
    let mut client = server.resume(&session);
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": last, "waitMs": 0}));
    assert!(!client.has_heard(|message| message["method"] == json!("process/output")), "news come behind it");
    read["chunks"].as_array().unwrap().iter().for_each(|chunk| note(&mut chunks, chunk));
    assert_eq!(read["nextSeq"], json!(chunks.keys().next_back().unwrap() + 1));
    // And go on where it stopped.
    let next = client.news("process/output", "p");
    assert_eq!(next["seq"], read["nextSeq"]);
    note(&mut chunks, &next);
    server.home.write("stop", "");
    let closed = client.news("process/closed", "p")["seq"].as_u64().unwrap();
    let exited = client.news("process/exited", "p");
    while client.has_heard(|message| message["method"] == json!("process/output")) {
        note(&mut chunks, &client.news("process/output", "p"));
    }
    let seqs: BTreeSet<u64> =
        chunks.keys().copied().chain([exited["seq"].as_u64().unwrap(), closed]).collect();
    assert_eq!(seqs, (1..=closed).collect());
    let output = String::from_utf8(chunks.into_values().flatten().collect()).unwrap();
    let count = output.lines().count() - 1;
    let expected: String =
        (0..count).map(|line| format!("line {line}\n")).chain([format!("last {count}\n")]).collect();
    assert_eq!(output, expected);
    assert_eq!(exited["exitCode"], json!(8));
}
