//! The exec server as its clients find it: the dialect's order and errors, sessions, and what survives whom.
//!
//! Speaks lines over standard input and output, as a client that starts its server does, and over the unix socket where
//! several connections are needed.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use sandbar_testkit::need::Need;
use sandbar_testkit::{Home, need};
use serde_json::{Value, json};

/// A client of a server of its own, over the server's standard streams.
struct Client {
    server: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next_id: u64,
    /// Notifications that came while an answer was waited for.
    news: Vec<Value>,
}

impl Client {
    /// A server, and nothing said to it.
    fn start(home: &Home) -> Self {
        let mut server = home
            .sandbar(&["serve", "--listen", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = server.stdin.take();
        let output = BufReader::new(server.stdout.take().unwrap());
        Self { server, input, output, next_id: 1, news: Vec::new() }
    }

    /// A server that knows us.
    fn ready(home: &Home) -> Self {
        let mut client = Self::start(home);
        client.greet(&json!({"clientName": "test"}));
        client
    }

    fn greet(&mut self, params: &Value) -> String {
        let result = self.ask("initialize", params);
        self.tell(&json!({"method": "initialized", "params": {}}));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    fn tell(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the server hung up");
        serde_json::from_str(&line).unwrap()
    }

    fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.hear();
            if message["id"] == json!(id) {
                return message;
            }
            self.news.push(message);
        }
    }

    fn send(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.tell(&json!({"id": id, "method": method, "params": params}));
        id
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send(method, params);
        let answer = self.answer(id);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The code, the kind and the message of a refusal.
    fn refused(&mut self, method: &str, params: &Value) -> (i64, String, String) {
        let id = self.send(method, params);
        let answer = self.answer(id);
        let error = &answer["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (error["code"].as_i64().unwrap_or_default(), text(&error["data"]["kind"]), text(&error["message"]))
    }

    /// Waits for a notification about a process.
    fn news(&mut self, method: &str, process: &str) -> Value {
        loop {
            let found = self.news.iter().position(|news| {
                news["method"] == json!(method) && news["params"]["processId"] == json!(process)
            });
            if let Some(at) = found {
                return self.news.remove(at)["params"].clone();
            }
            let message = self.hear();
            self.news.push(message);
        }
    }

    /// What a process wrote, in the order of numbers, and how it ended.
    fn finish(&mut self, process: &str) -> (Vec<u64>, String, i64) {
        let closed = self.news("process/closed", process);
        let exited = self.news("process/exited", process);
        let mut seqs = vec![exited["seq"].as_u64().unwrap(), closed["seq"].as_u64().unwrap()];
        let mut output: Vec<(u64, String)> = Vec::new();
        self.news.retain(|news| {
            let params = &news["params"];
            let is_output =
                news["method"] == json!("process/output") && params["processId"] == json!(process);
            if is_output {
                output.push((params["seq"].as_u64().unwrap(), text(&params["chunk"])));
            }
            !is_output
        });
        output.sort();
        seqs.extend(output.iter().map(|(seq, _)| *seq));
        seqs.sort_unstable();
        let output = output.into_iter().map(|(_, text)| text).collect();
        (seqs, output, exited["exitCode"].as_i64().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input is the end of a server over standard streams.
        drop(self.input.take());
        let _ = self.server.wait();
    }
}

fn text(chunk: &Value) -> String {
    let bytes: sandbar_proto::exec::Base64 = serde_json::from_value(chunk.clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

fn shell(home: &Home, process: &str, script: &str) -> Value {
    json!({"processId": process, "argv": ["/bin/sh", "-c", script], "cwd": home.workspace(),
           "env": {"PATH": "/usr/bin:/bin"}, "tty": false, "arg0": null})
}

#[test]
fn a_command_runs_and_its_events_are_numbered_without_a_gap() {
    let home = home();
    let mut client = Client::ready(&home);
    let started = client.ask("process/start", &shell(&home, "p", "echo out; echo err >&2; exit 3"));
    assert_eq!(started, json!({"processId": "p", "sandboxType": "none"}));
    let (seqs, output, code) = client.finish("p");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert!(output.contains("out\n") && output.contains("err\n"));
    assert_eq!(code, 3);
    // The same again, from the log.
    let read = client.ask("process/read", &json!({"processId": "p"}));
    assert_eq!(
        (&read["exited"], &read["exitCode"], &read["closed"]),
        (&json!(true), &json!(3), &json!(true))
    );
    assert_eq!(read["nextSeq"].as_u64().unwrap(), seqs.len() as u64 + 1);
    let nothing = client.ask("process/read", &json!({"processId": "p", "afterSeq": seqs.len(), "waitMs": 0}));
    assert_eq!(nothing["chunks"], json!([]));
}

#[test]
fn the_first_messages_have_an_order() {
    let home = home();
    let mut client = Client::start(&home);
    let start = shell(&home, "p", "true");
    let (code, _, message) = client.refused("process/start", &start);
    assert_eq!((code, message.as_str()), (-32600, "client must call initialize before using exec methods"));
    let (_, _, message) = client.refused("fs/getMetadata", &json!({"path": "/"}));
    assert_eq!(message, "client must call initialize before using filesystem methods");
    // A failed one may be tried again.
    let (code, _, message) =
        client.refused("initialize", &json!({"clientName": "t", "resumeSessionId": "nope"}));
    assert_eq!((code, message.as_str()), (-32600, "unknown session id nope"));
    client.ask("initialize", &json!({"clientName": "t", "resumeSessionId": null}));
    let (_, _, message) = client.refused("process/start", &start);
    assert_eq!(message, "client must send initialized before using exec methods");
    let (_, _, message) = client.refused("initialize", &json!({"clientName": "t"}));
    assert_eq!(message, "initialize may only be sent once per connection");
    client.tell(&json!({"method": "initialized"}));
    client.tell(&json!({"method": "initialized"}));
    client.ask("process/start", &start);
    assert_eq!(client.ask("environment/status", &Value::Null), json!({"status": "ready"}));
}

#[test]
fn refusals_have_the_dialects_codes_and_kinds_of_ours() {
    let home = home();
    let mut client = Client::ready(&home);
    let start = |change: &dyn Fn(&mut Value)| {
        let mut params = shell(&home, "p", "true");
        change(&mut params);
        params
    };
    let table: [(Value, i64, &str); 9] = [
        (start(&|p| p["argv"] = json!([])), -32602, "invalid_params"),
        (start(&|p| p["cwd"] = json!("relative")), -32602, "invalid_params"),
        (start(&|p| p["cwd"] = json!("file:///no/such/place")), -32603, "cwd_not_found"),
        (start(&|p| p["argv"] = json!(["/no/such/program"])), -32603, "program_not_found"),
        (start(&|p| p["argv"] = json!(["/etc/passwd"])), -32603, "not_executable"),
        (start(&|p| p["metadata"] = json!({"threadId": "no uuid"})), -32602, "invalid_params"),
        (start(&|p| p["enforceManagedNetwork"] = json!(true)), -32602, "unsupported"),
        (start(&|p| p["managedNetwork"] = json!({"mode": "limited"})), -32602, "unsupported"),
        (start(&|p| p["envPolicy"] = json!({"inherit": "all"})), -32602, "invalid_params"),
    ];
    for (params, code, kind) in table {
        let (found, found_kind, message) = client.refused("process/start", &params);
        assert_eq!((found, found_kind.as_str()), (code, kind), "{params}: {message}");
    }
    // After a failed start the name is free; while it is remembered it is not.
    client.ask("process/start", &shell(&home, "p", "true"));
    client.finish("p");
    let (code, kind, message) = client.refused("process/start", &shell(&home, "p", "true"));
    assert_eq!(
        (code, kind.as_str(), message.as_str()),
        (-32600, "duplicate_process", "process p already exists")
    );
    let (code, _, message) = client.refused("process/read", &json!({"processId": "q"}));
    assert_eq!((code, message.as_str()), (-32600, "unknown process id q"));
    let write = json!({"processId": "q", "chunk": "", "writeId": "1"});
    assert_eq!(client.ask("process/write", &write), json!({"status": "unknownProcess"}));
    assert_eq!(client.ask("process/terminate", &json!({"processId": "q"})), json!({"running": false}));
    assert_eq!(client.refused("http/request", &json!({"method": "GET", "url": "http://a"})).1, "disabled");
    assert_eq!(client.refused("process/juggle", &json!({})).0, -32601);
    let (code, kind, _) = client.refused("fs/readFile", &json!({"path": "/no/such/file"}));
    assert_eq!((code, kind.as_str()), (-32004, "not_found"));
}

#[test]
fn what_cannot_be_read_is_answered_and_the_connection_goes_on() {
    let home = home();
    let mut client = Client::ready(&home);
    for broken in ["{", "[]", "{}", "{\"id\":null,\"method\":\"environment/status\"}"] {
        writeln!(client.input.as_mut().unwrap(), "{broken}").unwrap();
        let answer = client.hear();
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(-1), &json!(-32600)),
            "{broken}: {answer}"
        );
    }
    client.ask("environment/status", &json!({}));
}

#[test]
fn input_is_written_once_and_ends_when_it_is_closed() {
    let home = home();
    let mut client = Client::ready(&home);
    let mut params = shell(&home, "p", "cat; echo end");
    params["pipeStdin"] = json!(true);
    client.ask("process/start", &params);
    let write = json!({"processId": "p", "chunk": "b25jZQo=", "writeId": "w1"});
    assert_eq!(client.ask("process/write", &write), json!({"status": "accepted"}));
    assert_eq!(client.ask("process/write", &write), json!({"status": "accepted"}));
    client.ask("process/closeStdin", &json!({"processId": "p"}));
    let late = json!({"processId": "p", "chunk": "eA==", "writeId": "w2"});
    assert_eq!(client.ask("process/write", &late), json!({"status": "stdinClosed"}));
    assert_eq!(client.finish("p").1, "once\nend\n");
    let mut params = shell(&home, "q", "true");
    params["pipeStdin"] = json!(false);
    client.ask("process/start", &params);
    let write = json!({"processId": "q", "chunk": "eA==", "writeId": "w"});
    assert_eq!(client.ask("process/write", &write), json!({"status": "stdinClosed"}));
}

#[test]
fn a_terminal_has_a_size_and_signals_have_names() {
    let home = home();
    let mut client = Client::ready(&home);
    let mut params =
        shell(&home, "p", "stty size; trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.05; done");
    params["tty"] = json!(true);
    client.ask("process/start", &params);
    let mut seen = String::new();
    while !seen.contains("ready") {
        seen.push_str(&text(&client.news("process/output", "p")["chunk"]));
    }
    assert!(seen.contains("24 80"), "{seen}");
    client.ask("process/resize", &json!({"processId": "p", "size": {"rows": 30, "columns": 100}}));
    assert_eq!(client.ask("process/signal", &json!({"processId": "p", "signal": "interrupt"})), json!({}));
    assert_eq!(client.ask("process/wait", &json!({"processId": "p"})), json!({"exitCode": 7}));
    client.ask("process/start", &shell(&home, "q", "trap '' TERM; echo ready; sleep 100 & wait"));
    client.news("process/output", "q");
    assert_eq!(client.ask("process/terminate", &json!({"processId": "q"})), json!({"running": true}));
    let exited = client.news("process/exited", "q");
    assert_eq!((&exited["exitCode"], &exited["signal"]), (&json!(137), &json!("SIGKILL")));
    assert_eq!(client.refused("process/signal", &json!({"processId": "p", "signal": "SIGNOPE"})).0, -32602);
}

#[test]
fn a_long_poll_holds_up_nothing_else() {
    let home = home();
    let mut client = Client::ready(&home);
    client.ask("process/start", &shell(&home, "p", "sleep 100"));
    let poll = client.send("process/read", &json!({"processId": "p", "waitMs": 100_000}));
    client.ask("environment/status", &json!({}));
    assert_eq!(client.ask("process/terminate", &json!({"processId": "p"})), json!({"running": true}));
    let read = client.answer(poll)["result"].clone();
    assert_eq!((&read["exited"], &read["exitCode"]), (&json!(true), &json!(137)));
}

#[test]
fn a_managed_sandbox_holds_for_processes_and_for_files() -> Need<()> {
    need::user_namespaces()?;
    let home = home();
    let mut client = Client::ready(&home);
    let outside = home.outside().join("beside");
    std::fs::create_dir(&outside).unwrap();
    let sandbox = json!({
        "permissions": {"type": "managed", "network": "restricted", "file_system": {"type": "restricted", "entries": [
            {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"},
            {"path": {"type": "special", "value": {"kind": "project_roots"}}, "access": "write"},
            {"path": {"type": "special", "value": {"kind": "project_roots", "subpath": "kept"}}, "access": "read"}]}},
        "cwd": home.workspace(), "workspaceRoots": [home.workspace()],
    });
    std::fs::create_dir(home.workspace().join("kept")).unwrap();
    let script = format!("echo in > made; echo no > kept/x; echo no > {}/x; ls", outside.display());
    let mut params = shell(&home, "p", &script);
    params["sandbox"] = sandbox.clone();
    assert_eq!(client.ask("process/start", &params)["sandboxType"], json!("linuxSeccomp"));
    client.finish("p");
    assert_eq!(std::fs::read_to_string(home.workspace().join("made")).unwrap(), "in\n");
    assert!(!outside.join("x").exists() && !home.workspace().join("kept/x").exists());

    let write = |path: std::path::PathBuf| json!({"path": path, "dataBase64": "aGkK", "sandbox": sandbox});
    client.ask("fs/writeFile", &write(home.workspace().join("by-helper")));
    assert_eq!(std::fs::read_to_string(home.workspace().join("by-helper")).unwrap(), "hi\n");
    for path in [outside.join("y"), home.workspace().join("kept/y")] {
        let (code, kind, message) = client.refused("fs/writeFile", &write(path.clone()));
        assert_eq!((code, kind.as_str()), (-32600, "denied_by_sandbox"), "{message}");
        assert!(!path.exists());
    }
    // Without a sandbox the same is done with our own rights, as the dialect says.
    client.ask("fs/writeFile", &json!({"path": outside.join("y"), "dataBase64": "aGkK"}));
    let mut params = shell(&home, "q", "true");
    params["sandbox"] = sandbox.clone();
    params["sandbox"]["strictly"] = json!(true);
    assert_eq!(client.refused("process/start", &params).0, -32602, "what is not understood is not weakened");
    Ok(())
}

#[test]
fn where_only_named_places_are_seen_and_patterns_hide_files_are_touched_accordingly() -> Need<()> {
    need::user_namespaces()?;
    let home = home();
    let mut client = Client::ready(&home);
    let outside = home.outside().join("beside");
    std::fs::write(&outside, "seen").unwrap();
    home.write("a/x.env", "secret");
    home.write("a/plain", "hi\n");
    let entries = |minimal: bool| {
        let mut entries = vec![
            json!({"path": {"type": "special", "value": {"kind": "project_roots"}}, "access": "write"}),
            json!({"path": {"type": "glob_pattern", "pattern": "**/*.env"}, "access": "deny"}),
            json!({"path": {"type": "special", "value": {"kind": "tomorrow"}}, "access": "write"}),
        ];
        if minimal {
            entries
                .push(json!({"path": {"type": "special", "value": {"kind": "minimal"}}, "access": "read"}));
        }
        entries
    };
    let sandbox = |minimal| {
        json!({
            "permissions": {"type": "managed", "network": "restricted",
                            "file_system": {"type": "restricted", "entries": entries(minimal)}},
            "cwd": home.workspace(), "workspaceRoots": [home.workspace()],
        })
    };
    let mut params =
        shell(&home, "p", &format!("cat a/x.env; cat {}; cat a/plain > copy; exit 9", outside.display()));
    params["sandbox"] = sandbox(true);
    client.ask("process/start", &params);
    let (_, output, code) = client.finish("p");
    assert!(code == 9 && !output.contains("secret") && !output.contains("seen"), "{output}");
    assert_eq!(std::fs::read_to_string(home.workspace().join("copy")).unwrap(), "hi\n");
    // Also where nothing of the system is named: the helper brings what it needs.
    for minimal in [true, false] {
        let read = |path: std::path::PathBuf| json!({"path": path, "sandbox": sandbox(minimal)});
        let plain = client.ask("fs/readFile", &read(home.workspace().join("a/plain")));
        assert_eq!(plain["dataBase64"], json!("aGkK"));
        client.refused("fs/readFile", &read(home.workspace().join("a/x.env")));
        client.refused("fs/readFile", &read(outside.clone()));
    }
    Ok(())
}

#[test]
fn a_log_has_a_line_for_each_request_and_nothing_of_its_contents() {
    let home = home();
    let mut command = home.sandbar(&["serve", "--listen", "stdio", "--log"]);
    let mut server =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = server.stdin.take().unwrap();
    let traced = json!({"id": 1, "method": "initialize", "params": {"clientName": "t"}, "trace": {"traceparent": "00-1-2-03"}});
    let start = shell(&home, "p", "echo very-secret");
    for message in [traced, json!({"id": 2, "method": "process/start", "params": start})] {
        writeln!(input, "{message}").unwrap();
    }
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let mut entries: Vec<Value> =
        (0..2).map(|_| serde_json::from_str(&lines.next().unwrap()).unwrap()).collect();
    entries.sort_by_key(|entry| entry["method"].to_string());
    assert_eq!(
        (&entries[0]["method"], &entries[0]["traceparent"]),
        (&json!("initialize"), &json!("00-1-2-03"))
    );
    assert_eq!((&entries[1]["code"], &entries[1]["kind"]), (&json!(-32600), &json!("not_initialized")));
    assert!(entries[1]["took_us"].is_u64() && entries[1]["principal"] == json!("stdio"));
    drop(input);
    assert!(lines.all(|line| !line.contains("very-secret")));
    server.wait().unwrap();
}

#[test]
fn a_keeper_that_was_killed_ends_its_processes_and_the_server_gets_another() {
    let home = home();
    let mut client = Client::ready(&home);
    client.ask("process/start", &shell(&home, "p", "echo up; exec sleep 100"));
    client.news("process/output", "p");
    home.end_keepers();
    let exited = client.news("process/exited", "p");
    assert_eq!(exited["exitCode"], json!(-1), "nobody saw how");
    assert_eq!(client.news("process/closed", "p")["seq"].as_u64(), exited["seq"].as_u64().map(|seq| seq + 1));
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": 1}));
    assert_eq!((&read["exited"], &read["closed"]), (&json!(true), &json!(true)), "{read}");
    assert!(read["failure"].is_string());
    client.ask("process/start", &shell(&home, "q", "echo again; exit 4"));
    assert_eq!(client.finish("q").1, "again\n");
}
