//! Where ours says more than the peer, or takes more.

use serde_json::{Value, json};

use crate::client::{Refusal, base64};
use crate::server::Server;

pub(crate) fn every_refusal_has_a_kind(server: &Server) {
    let mut client = server.ready();
    let start = |changes: Value| server.shell_with("p", "true", &changes);
    let table = [
        ("process/start", start(json!({"argv": []})), -32602, "invalid_params"),
        ("process/start", start(json!({"cwd": "file:///no/such/place"})), -32603, "cwd_not_found"),
        ("process/start", start(json!({"argv": ["/no/such/program"]})), -32603, "program_not_found"),
        ("process/start", start(json!({"argv": ["/etc/passwd"]})), -32603, "not_executable"),
        ("process/start", start(json!({"argv": ["/bin/sh", "a\u{0}b"]})), -32603, "nul_byte"),
        ("process/start", start(json!({"enforceManagedNetwork": true})), -32602, "unsupported"),
        (
            "process/start",
            start(json!({"shellSnapshot": {"scopeId": "s", "shell": "sh"}})),
            -32602,
            "unsupported",
        ),
        ("process/start", start(json!({"startId": "no uuid"})), -32602, "invalid_params"),
        ("process/start", start(json!({"size": {"rows": 1, "columns": 1}})), -32602, "invalid_params"),
        ("process/read", json!({"processId": "q"}), -32600, "unknown_process"),
        ("process/wait", json!({"processId": "q"}), -32600, "unknown_process"),
        (
            "process/resize",
            json!({"processId": "q", "size": {"rows": 1, "columns": 1}}),
            -32600,
            "unknown_process",
        ),
        ("process/closeStdin", json!({"processId": "q"}), -32600, "unknown_process"),
        ("process/signal", json!({"processId": "q", "signal": "SIGNOPE"}), -32602, "invalid_params"),
        ("process/juggle", json!({}), -32601, "unknown_method"),
        ("http/request", json!({"method": "GET", "url": "http://127.0.0.1:1/"}), -32600, "disabled"),
        ("fs/readFile", json!({"path": "/no/such/file"}), -32004, "not_found"),
        ("fs/readBlock", json!({"handleId": "h", "offset": 0, "len": 1}), -32004, "unknown_handle"),
        ("initialize", json!({"clientName": "again"}), -32600, "initialized_twice"),
    ];
    for (method, params, code, kind) in table {
        let Refusal { code: found, kind: found_kind, message } = client.refused(method, &params);
        assert_eq!((found, found_kind.as_str()), (code, kind), "{method} {params}: {message}");
    }
    client.ask("process/start", &server.shell("p", "true"));
    assert_eq!(client.refused("process/start", &server.shell("p", "true")).kind, "duplicate_process");
}

pub(crate) fn plain_paths_are_taken_as_well(server: &Server) {
    let mut client = server.ready();
    let cwd = server.home.workspace();
    client.ask("process/start", &server.shell_with("p", "pwd", &json!({"cwd": cwd})));
    assert_eq!(client.story("p").stdout, format!("{}\n", cwd.display()));
    client.ask("fs/writeFile", &json!({"path": cwd.join("f"), "dataBase64": base64("x")}));
    assert_eq!(client.ask("fs/readFile", &json!({"path": server.file("f")}))["dataBase64"], json!("eA=="));
}

pub(crate) fn a_write_needs_no_name(server: &Server) {
    let mut client = server.ready();
    client.ask(
        "process/start",
        &server.shell_with("p", "read a; read b; echo $a$b", &json!({"pipeStdin": true})),
    );
    // As of a client of an older dialect; nothing tells that the two are one.
    let write = json!({"processId": "p", "chunk": base64("a\n")});
    for _ in 0..2 {
        assert_eq!(client.ask("process/write", &write), json!({"status": "accepted"}));
    }
    assert_eq!(client.story("p").stdout, "aa\n");
}

pub(crate) fn only_what_there_is_is_announced(server: &Server) {
    let mut client = server.connect();
    let described = client.ask("initialize", &json!({"clientName": "test"}))["environmentInfo"].clone();
    let capabilities = described["capabilities"].as_object().unwrap();
    let announced: Vec<&String> =
        capabilities.iter().filter(|(_, is_there)| **is_there == json!(true)).map(|(name, _)| name).collect();
    assert_eq!(
        announced,
        [
            "capabilityDiscoveryV2",
            "environmentConfigRead",
            "fileWriteStreaming",
            "fsWatchMissing",
            "sandboxedFileStreaming"
        ]
    );
}

pub(crate) fn directories_are_sorted(server: &Server) {
    let mut client = server.ready();
    let names: Vec<String> = (0..50).map(|number| format!("{:02}", number * 37 % 50)).collect();
    for name in &names {
        server.home.write(&format!("d/{name}"), "");
    }
    let listed = client.ask("fs/readDirectory", &json!({"path": server.file("d")}));
    let found: Vec<&str> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["fileName"].as_str().unwrap())
        .collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(found, sorted);
}
