//! The order of the first messages, and what breaks a connection or does not.

use serde_json::{Value, json};

use crate::server::{Over, Server};

const INVALID_REQUEST: i64 = -32600;

pub(crate) fn the_first_messages_have_an_order(server: &Server) {
    let mut client = server.connect();
    let start = server.shell("p", "true");
    let refused = client.refused("process/start", &start);
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (INVALID_REQUEST, "client must call initialize before using exec methods")
    );
    let refused = client.refused("fs/getMetadata", &json!({"path": "file:///"}));
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (INVALID_REQUEST, "client must call initialize before using filesystem methods")
    );
    client.ask("initialize", &json!({"clientName": "test", "resumeSessionId": null}));
    let refused = client.refused("process/start", &start);
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (INVALID_REQUEST, "client must send initialized before using exec methods")
    );
    let refused = client.refused("initialize", &json!({"clientName": "test"}));
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (INVALID_REQUEST, "initialize may only be sent once per connection")
    );
    client.tell("initialized", &json!({}));
    // A second one is harmless.
    client.tell("initialized", &json!({}));
    client.ask("process/start", &start);
    assert_eq!(client.story("p").code, 0);
}

pub(crate) fn a_failed_initialize_may_be_tried_again(server: &Server) {
    let mut client = server.connect();
    let refused = client.refused("initialize", &json!({"clientName": "test", "resumeSessionId": "nope"}));
    assert_eq!((refused.code, refused.message.as_str()), (INVALID_REQUEST, "unknown session id nope"));
    assert_eq!(client.refused_with("initialize", &json!({"resumeSessionId": null})), -32602);
    client.greet(&json!({"clientName": "test"}));
    client.ask("environment/status", &Value::Null);
}

pub(crate) fn initialized_before_initialize_is_answered_by_hanging_up(server: &Server) {
    let mut client = server.connect();
    client.tell("initialized", &json!({}));
    assert!(client.is_dropped());
}

pub(crate) fn an_unknown_notification_is_answered_by_hanging_up(server: &Server) {
    let mut client = server.ready();
    client.tell("process/juggled", &json!({}));
    assert!(client.is_dropped());
}

pub(crate) fn an_answer_to_nothing_is_answered_by_hanging_up(server: &Server) {
    for answer in [json!({"id": 7, "result": {}}), json!({"id": 7, "error": {"code": 1, "message": ""}})] {
        let mut client = server.ready();
        client.say(&answer.to_string());
        assert!(client.is_dropped(), "{answer}");
    }
}

pub(crate) fn what_cannot_be_read_is_refused_and_the_connection_goes_on(server: &Server) {
    let mut client = server.ready();
    let broken = [
        "{",
        "[]",
        "{}",
        "7",
        r#"{"id":null,"method":"environment/status"}"#,
        r#"{"id":1.5,"method":"environment/status"}"#,
        r#"[{"id":1,"method":"environment/status"}]"#,
    ];
    for broken in broken {
        client.say(broken);
        let answer = client.hear();
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(-1), &json!(-32600)), "{broken}");
        assert!(message.starts_with("failed to parse "), "{broken}: {message}");
        if server.has_connections() {
            let words = "failed to parse websocket JSON-RPC message from exec-server websocket ";
            assert!(message.starts_with(words), "{broken}: {message}");
        }
    }
    client.ask("environment/status", &json!({}));
}

pub(crate) fn ids_may_be_texts_and_members_that_nobody_knows_are_ignored(server: &Server) {
    let mut client = server.ready();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = json!({"jsonrpc": "2.0", "id": "a text", "method": "environment/status", "more": [1],
                         "trace": {"traceparent": trace}});
    client.say(&request.to_string());
    assert_eq!(client.hear(), json!({"id": "a text", "result": {"status": "ready"}}));
    client.say_in_binary(&json!({"id": 70, "method": "environment/status"}).to_string());
    assert_eq!(client.hear()["id"], json!(70));
    let known = server.shell_with("p", "true", &json!({"somethingNew": {"a": 1}}));
    client.ask("process/start", &known);
}

pub(crate) fn nothing_says_jsonrpc_and_errors_come_before_their_ids(server: &Server) {
    let mut client = server.ready();
    client.send("environment/status", &Value::Null);
    let result = client.hear_text().unwrap();
    assert!(result.starts_with(r#"{"id":"#) && !result.contains("jsonrpc"), "{result}");
    client.send("process/read", &json!({"processId": "p"}));
    let error = client.hear_text().unwrap();
    assert!(error.starts_with(r#"{"error":"#) && !error.contains("jsonrpc"), "{error}");
}

pub(crate) fn an_unknown_method_has_a_code(server: &Server) {
    let mut client = server.ready();
    for method in ["process/juggle", "fs/juggle", "juggle", "network/policyRequest"] {
        assert_eq!(client.refused_with(method, &json!({})), -32601, "{method}");
    }
}

pub(crate) fn the_environment_is_described(server: &Server) {
    let mut client = server.connect();
    let result = client.ask("initialize", &json!({"clientName": "test"}));
    client.tell("initialized", &json!({}));
    let described = &result["environmentInfo"];
    for name in ["cwd", "userHomeDir", "tempDir"] {
        assert!(described[name].as_str().unwrap().starts_with("file://"), "{name}: {described}");
    }
    assert!(described["shell"]["path"].as_str().unwrap().starts_with('/'), "{described}");
    assert_eq!(described["platformOs"], json!("linux"));
    assert!(described["capabilities"]["fsWatchMissing"].is_boolean());
    for params in [Value::Null, json!({})] {
        assert_eq!(&client.ask("environment/info", &params), described);
    }
    assert_eq!(client.ask("environment/status", &Value::Null), json!({"status": "ready"}));
    let version = described["executorVersion"].as_str().unwrap();
    let is_codex = matches!(server.over, Over::Codex | Over::CodexStdio);
    assert_eq!(version == "0.169.0", is_codex, "{version}");
}
