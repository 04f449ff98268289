//! What a client gets that asks for more than the dialect.

use serde_json::{Value, json};

use crate::client::{Client, bytes, decoded};
use crate::server::Server;

/// A connection that asked for extensions, and which of them are on.
fn with(server: &Server, extensions: &Value) -> (Client, Value) {
    let mut client = server.connect();
    let params = json!({"clientName": "test", "extensions": extensions});
    let result = client.ask("initialize", &params);
    client.tell("initialized", &json!({}));
    (client, result["extensions"].clone())
}

pub(crate) fn what_nobody_asked_for_is_off(server: &Server) {
    let mut client = server.connect();
    let result = client.ask("initialize", &json!({"clientName": "test"}));
    assert!(result.get("extensions").is_none());
    client.tell("initialized", &json!({}));
    let started = client.ask("process/start", &server.shell("p", "echo x"));
    assert_eq!(started, json!({"processId": "p", "sandboxType": "none"}));
    let output = client.news("process/output", "p");
    assert!(output.get("offset").is_none() && output.get("time").is_none(), "{output}");
    let exited = client.news("process/exited", "p");
    assert!(exited.get("end").is_none(), "{exited}");
}

pub(crate) fn records_come_with_starts_and_ends(server: &Server) {
    let (mut client, on) = with(server, &json!({"records": true}));
    assert_eq!(on["records"], json!(true));
    let id = "0199a213-81a4-7000-8000-0000000000aa";
    let script = "printf ab; sleep 0.05; printf c >&2; exit 3";
    let start = server.shell_with("p", script, &json!({"startId": id}));
    let started = client.ask("process/start", &start)["started"].clone();
    assert_eq!((&started["record"]["id"], &started["plan"]["network"]), (&json!(id), &json!("on")));
    let exited = client.news("process/exited", "p");
    assert_eq!(
        (&exited["end"]["status"], &exited["end"]["id"]),
        (&json!({"how": "exited", "code": 3}), &json!(id))
    );
    assert_eq!(exited["end"]["output"]["bytes"], json!(3));
    let mut at = 0;
    while at < 3 {
        let output = client.news("process/output", "p");
        assert_eq!(output["offset"], json!(at));
        assert!(output["time"].as_u64().unwrap() > 0);
        at += bytes(&output["chunk"]).len() as u64;
    }
    let read = client.ask("process/read", &json!({"processId": "p"}));
    assert_eq!((&read["chunks"][0]["offset"], &read["end"]), (&json!(0), &exited["end"]));
    // The same start again has the same answer.
    assert_eq!(client.ask("process/start", &start)["started"], started);
    let stopped = server.shell("q", "kill -STOP $$; exit 4");
    client.ask("process/start", &stopped);
    assert_eq!(client.news("process/stopped", "q"), json!({"processId": "q", "signal": 19}));
    client.ask("process/signal", &json!({"processId": "q", "signal": "CONT"}));
    assert_eq!(client.news("process/exited", "q")["exitCode"], json!(4));
}

pub(crate) fn output_comes_within_credit_and_waits_for_no_other_process(server: &Server) {
    let (mut client, _) = with(server, &json!({"credit": true}));
    client.ask("process/start", &server.shell("held", "yes"));
    client.ask("process/start", &server.shell("p", "echo one; read x; echo two; exit 5"));
    let start = server.shell_with("q", "echo one; read x; echo two; exit 5", &json!({"pipeStdin": true}));
    client.ask("process/start", &start);
    client.tell("process/credit", &json!({"processId": "q", "bytes": 1}));
    assert_eq!(bytes(&client.news("process/output", "q")["chunk"]), b"one\n", "the last portion is whole");
    client.ask("process/write", &json!({"processId": "q", "chunk": "Cg==", "writeId": "1"}));
    client.ask("process/wait", &json!({"processId": "p"}));
    let heard = |message: &Value| message["method"] == json!("process/output");
    assert!(!client.has_heard(heard), "nothing was granted for the others, and no more for this one");
    client.tell("process/credit", &json!({"processId": "q", "bytes": 100}));
    assert_eq!(bytes(&client.news("process/output", "q")["chunk"]), b"two\n");
    assert_eq!(client.news("process/exited", "q")["exitCode"], json!(5));
    // Without credit it can be read all the same.
    let read = client.ask("process/read", &json!({"processId": "p"}));
    assert_eq!((&read["exitCode"], &read["closed"]), (&json!(5), &json!(true)));
    client.ask("process/terminate", &json!({"processId": "held"}));
    client.ask("process/wait", &json!({"processId": "held"}));
}

pub(crate) fn a_run_in_a_persons_words_has_their_rules(server: &Server) {
    if sandbar_testkit::need::user_namespaces().is_err() {
        return;
    }
    let (mut client, _) = with(server, &json!({"records": true}));
    let run =
        |process: &str, script: &str, run: Value| server.shell_with(process, script, &json!({"run": run}));
    let params =
        run("p", "echo in > made; echo out > ../made 2>/dev/null || exit 6", json!({"profile": "workspace"}));
    let started = client.ask("process/start", &params);
    assert_eq!(
        (&started["sandboxType"], &started["started"]["plan"]["network"]),
        (&json!("linuxSeccomp"), &json!("off"))
    );
    assert_eq!(client.story("p").code, 6);
    assert!(server.home.workspace().join("made").exists());
    let limited = run(
        "q",
        "sleep 100",
        json!({"profile": "read-only", "limits": {"wall": {"secs": 0, "nanos": 200_000_000}}}),
    );
    client.ask("process/start", &limited);
    assert_eq!(client.news("process/exited", "q")["end"]["timed_out"], json!(true));
    for (params, kind) in [
        (run("r", "true", json!({"profile": "nope"})), "unknown_profile"),
        (run("r", "true", json!({"profile": "workspace", "strictly": true})), "invalid_params"),
        (
            server.shell_with(
                "r",
                "true",
                &json!({"run": {"profile": "workspace"}, "sandboxPolicy": {"type": "read-only"}}),
            ),
            "invalid_params",
        ),
    ] {
        assert_eq!(client.refused("process/start", &params).kind, kind, "{params}");
    }
}

pub(crate) fn names_that_are_reserved_for_a_sandbox_are_no_news(server: &Server) {
    if sandbar_testkit::need::user_namespaces().is_err() {
        return;
    }
    let mut client = server.ready();
    for (id, missing) in [(1, ".agents"), (2, ".agents/skills"), (3, ".codex/config.toml")] {
        let watch = json!({"watchId": id, "missing": [server.file(missing)], "present": null});
        assert_eq!(client.ask("fs/watchMissing", &watch), json!({"watching": true}));
    }
    let is_news = |message: &Value| message["method"] == json!("fs/missingChanged");
    for process in ["p", "q"] {
        let run = json!({"run": {"profile": "workspace"}});
        client.ask("process/start", &server.shell_with(process, "test -d .agents && echo reserved", &run));
        assert_eq!(client.story(process).stdout, "reserved\n");
        assert!(!client.has_heard(is_news));
    }
    server.home.write(".agents/skills/s/SKILL.md", "");
    let mut told = || client.wait_for(is_news)["params"]["watchId"].take();
    assert_eq!((told(), told()), (json!(1), json!(2)));
    assert!(!client.has_heard(is_news), "nobody made the third");
}

pub(crate) fn output_comes_in_binary_frames(server: &Server) {
    let (mut client, on) = with(server, &json!({"binaryOutput": true}));
    assert_eq!(on["binaryOutput"], json!(true));
    client.ask("process/start", &server.shell("p", "printf 'a\\377'; sleep 0.05; printf b >&2"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    client.news("process/closed", "p");
    while client.has_heard(|message| message["method"] == json!("process/output")) {
        let output = client.news("process/output", "p");
        let stream = if output["stream"] == json!("stdout") { &mut out } else { &mut err };
        stream.extend(bytes(&output["chunk"]));
    }
    assert_eq!((out.as_slice(), err.as_slice()), (&b"a\xff"[..], &b"b"[..]));
    assert!(client.frames >= 2, "{} frames", client.frames);
}

pub(crate) fn large_messages_come_packed(server: &Server) {
    let (mut client, on) = with(server, &json!({"zstd": true, "binaryOutput": true}));
    assert_eq!(on["zstd"], json!(true));
    server.home.write("large", "line after line\n".repeat(100_000));
    let read = client.ask("fs/readFile", &json!({"path": server.file("large")}));
    assert_eq!(bytes(&read["dataBase64"]).len(), 1_600_000);
    assert!(client.frames == 1 && client.frame_bytes < 100_000, "{} bytes", client.frame_bytes);
    client.ask("process/start", &server.shell("p", "cat large"));
    let mut whole = 0;
    client.news("process/closed", "p");
    while client.has_heard(|message| message["method"] == json!("process/output")) {
        whole += bytes(&client.news("process/output", "p")["chunk"]).len();
    }
    assert_eq!(whole, 1_600_000);
    assert!(client.frame_bytes < 400_000, "{} bytes", client.frame_bytes);
}

pub(crate) fn a_run_is_attached_to_by_its_tail(server: &Server) {
    let mut starter = server.ready();
    let id = "0199a213-81a4-7000-8000-0000000000dd";
    let script = "seq 100000; read x; echo got $x; exit 7";
    let params = server.shell_with("p", script, &json!({"startId": id, "pipeStdin": true, "detached": true}));
    starter.ask("process/start", &params);
    starter.output_with("p", "\n100000\n");
    let (mut client, on) = with(server, &json!({"records": true, "tail": true}));
    assert_eq!(on["tail"], json!(true));
    let tail = json!({"processId": "theirs", "runId": id, "tailBytes": 1000});
    let started = client.ask("process/attach", &tail);
    let after = started["afterSeq"].as_u64().unwrap();
    let first = client.news("process/output", "theirs");
    assert_eq!((after > 0, &first["seq"]), (true, &json!(after + 1)));
    let whole = started["written"]["bytes"].as_u64().unwrap();
    let missing = whole - first["offset"].as_u64().unwrap();
    assert!((1000..1000 + 64 * 1024).contains(&missing), "{missing} of {whole} bytes");
    client.ask("process/write", &json!({"processId": "theirs", "chunk": "eAo=", "writeId": "1"}));
    let story = client.story("theirs");
    assert_eq!(story.code, 7);
    let shown = decoded(&first["chunk"]) + &story.stdout;
    assert!(shown.ends_with("\n99999\n100000\ngot x\n"), "{shown:?}");
    let seqs: Vec<u64> = (after + 2..).take(story.seqs.len()).collect();
    assert_eq!(story.seqs, seqs, "nothing is missing behind it");
    // More than there is.
    let (mut late, _) = with(server, &json!({"records": true, "tail": true}));
    let all = json!({"processId": "all", "runId": id, "tailBytes": 10_000_000});
    assert_eq!(late.ask("process/attach", &all)["afterSeq"], json!(0));
    assert!(late.story("all").stdout.starts_with("1\n2\n"));
}

pub(crate) fn runs_of_others_are_listed_and_attached_to(server: &Server) {
    let mut starter = server.ready();
    let id = "0199a213-81a4-7000-8000-0000000000bb";
    let script = "echo one; read x; echo got $x; exit 7";
    let params = server.shell_with("p", script, &json!({"startId": id, "pipeStdin": true, "detached": true}));
    starter.ask("process/start", &params);
    starter.news("process/output", "p");
    let (mut client, _) = with(server, &json!({"records": true}));
    let page = client.ask("process/records", &json!({}));
    let found = page["runs"].as_array().unwrap().iter().find(|run| run["start"]["id"] == json!(id));
    assert_eq!(found.unwrap()["keeperAlive"], json!(true), "{page}");
    let attach = |process: &str, run: &str| json!({"processId": process, "runId": run, "afterSeq": 0});
    let started = client.ask("process/attach", &attach("theirs", id));
    assert_eq!((&started["record"]["id"], &started["written"]["bytes"]), (&json!(id), &json!(4)));
    assert_eq!(bytes(&client.news("process/output", "theirs")["chunk"]), b"one\n", "from its beginning");
    assert_eq!(client.refused("process/attach", &attach("theirs", id)).kind, "duplicate_process");
    let unknown = "0199a213-81a4-7000-8000-0000000000cc";
    assert_eq!(client.refused("process/attach", &attach("other", unknown)).kind, "unknown_run");
    client.ask("process/write", &json!({"processId": "theirs", "chunk": "eAo=", "writeId": "1"}));
    assert_eq!(client.news("process/exited", "theirs")["exitCode"], json!(7));
    assert_eq!(starter.news("process/exited", "p")["exitCode"], json!(7), "its starter sees the same");
    // Also when it has ended, as long as it is on record.
    let (mut late, _) = with(server, &json!({"records": true}));
    late.ask("process/attach", &attach("again", id));
    assert_eq!(late.story("again").stdout, "one\ngot x\n");
}
