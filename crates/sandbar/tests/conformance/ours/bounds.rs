//! Bounds, each with an answer that states it, and none that holds up anything else.

use std::collections::{BTreeMap, BTreeSet};

use sandbar_testkit::{DEADLINE, eventually, processes};
use serde_json::{Value, json};

use crate::client::{Client, bytes, refusal};
use crate::server::Server;

const MIB: usize = 1024 * 1024;

/// Requests at once: more than a connection allows.
const MANY: u64 = 10_000;

pub(crate) fn a_long_poll_holds_up_nothing_else(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let polls = [
        ("process/read", json!({"processId": "p", "waitMs": 100_000})),
        ("process/wait", json!({"processId": "p"})),
    ];
    let polls = polls.map(|(method, params)| client.send(method, &params));
    client.ask("environment/status", &json!({}));
    client.ask("fs/getMetadata", &json!({"path": server.cwd()}));
    assert_eq!(client.ask("process/terminate", &json!({"processId": "p"})), json!({"running": true}));
    let [read, wait] = polls.map(|id| client.answer(id)["result"].clone());
    assert_eq!(
        (&read["exited"], &read["exitCode"], &read["signal"]),
        (&json!(true), &json!(137), &json!("SIGKILL"))
    );
    assert_eq!(wait, json!({"exitCode": 137, "signal": "SIGKILL"}));
}

/// How many of the answers to those requests are results, and how many refusals of each kind.
fn answers(client: &mut Client, mut ids: BTreeSet<u64>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    while !ids.is_empty() {
        let answer = client.hear();
        if answer["id"].as_u64().is_some_and(|id| ids.remove(&id)) {
            let is_error = answer.get("error").is_some();
            let kind = if is_error { refusal(&answer).kind } else { "result".to_owned() };
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

pub(crate) fn ten_thousand_requests_in_flight_are_all_answered(server: &Server) {
    let mut client = server.ready();
    let path = server.cwd();
    // Nothing is read until all are written.
    let ids: BTreeSet<u64> =
        (0..MANY).map(|_| client.send("fs/getMetadata", &json!({"path": path}))).collect();
    let counts = answers(&mut client, ids);
    assert_eq!(counts.values().sum::<u64>(), MANY);
    assert!(counts.keys().all(|kind| kind == "result" || kind == "too_many_requests"), "{counts:?}");
    client.ask("environment/status", &json!({}));
}

pub(crate) fn ten_thousand_long_polls_are_all_answered(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let wait = json!({"processId": "p"});
    let ids: BTreeSet<u64> = (0..MANY).map(|_| client.send("process/wait", &wait)).collect();
    // They don't count as requests in flight, so everything else goes on.
    client.send("process/terminate", &json!({"processId": "p"}));
    let counts = answers(&mut client, ids);
    let expected = [("result".to_owned(), 4096), ("too_many_requests".to_owned(), MANY - 4096)];
    assert_eq!(counts, BTreeMap::from(expected));
}

pub(crate) fn a_message_above_the_limit_is_refused_under_its_id(server: &Server) {
    let mut client = server.ready();
    let write = |len: usize| json!({"path": server.file("f"), "dataBase64": "A".repeat(len)});
    let id = client.send("fs/writeFile", &write(17 * MIB));
    let answer = client.answer(id);
    assert_eq!(answer["error"]["code"], json!(-32021), "{answer}");
    assert_eq!(answer["error"]["data"], json!({"kind": "frame_too_large", "limit": 16 * MIB}));
    assert!(!server.home.workspace().join("f").exists());
    client.ask("fs/writeFile", &write(15 * MIB));
    assert_eq!(std::fs::metadata(server.home.workspace().join("f")).unwrap().len(), 15 * MIB as u64 * 3 / 4);
}

pub(crate) fn a_client_that_does_not_read_can_still_end_its_processes(server: &Server) {
    let mut client = server.ready();
    let marker = processes::unique_sleep();
    let script = format!("sleep {marker} & cat /dev/zero");
    client.ask("process/start", &server.shell("p", &script));
    eventually(DEADLINE, "the process", || (!processes::with_argument(&marker).is_empty()).then_some(()));
    // Far more than the link holds is written meanwhile; from here on nothing is read.
    client.send("process/terminate", &json!({"processId": "p"}));
    eventually(DEADLINE, "the end of the process", || {
        processes::with_argument(&marker).is_empty().then_some(())
    });
}

pub(crate) fn a_gap_is_told_and_what_follows_it_is_there(server: &Server) {
    const WRITTEN: usize = 24 * MIB;
    let mut client = server.ready();
    client.ask("process/start", &server.shell("p", &format!("head -c {WRITTEN} /dev/zero; echo end")));
    // Heard to its end, so that all of it was there once.
    let closed = client.news("process/closed", "p")["seq"].as_u64().unwrap();
    // It may come before output that was read later.
    let exited = client.news("process/exited", "p")["seq"].as_u64().unwrap();
    let (mut after, mut missing, mut there, mut tail) = (0, 0, 0, Vec::new());
    loop {
        let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": after}));
        let next = |value: &Value| value.as_u64().unwrap();
        if let Some(gap) = read.get("gap") {
            assert_eq!((next(&gap["fromSeq"]), missing), (after + 1, 0), "it comes first, and once: {gap}");
            missing = next(&gap["bytes"]);
            after = next(&gap["toSeq"]);
        }
        for chunk in read["chunks"].as_array().unwrap() {
            let seq = next(&chunk["seq"]);
            assert!(seq == after + 1 || (seq == after + 2 && exited == after + 1), "{seq} after {after}");
            after = seq;
            let chunk = bytes(&chunk["chunk"]);
            there += chunk.len() as u64;
            tail = chunk;
        }
        after = after.max(next(&read["nextSeq"]) - 1);
        if read["closed"] == json!(true) {
            break;
        }
    }
    assert_eq!((after, missing + there), (closed, WRITTEN as u64 + 4));
    assert!(missing > 0 && there > 8 * MIB as u64, "{there} of {WRITTEN} bytes are there");
    assert!(tail.ends_with(b"end\n"));
}

pub(crate) fn a_page_of_a_list_has_a_bound(server: &Server) {
    let mut client = server.ready();
    let names: Vec<String> = (0..70).map(|number| format!("p{number:02}")).collect();
    for name in &names {
        client.ask("process/start", &server.shell(name, "true"));
    }
    let mut found: Vec<String> = Vec::new();
    loop {
        let page = client.ask("process/list", &json!({"after": found.last()}));
        let listed = page["processes"].as_array().unwrap();
        found.extend(listed.iter().map(|process| process["processId"].as_str().unwrap().to_owned()));
        if page["more"] == json!(false) {
            break;
        }
        assert_eq!(listed.len(), 64);
    }
    assert_eq!(found, names);
}
