//! Sessions that outlive their connections.

use serde_json::json;

use crate::client::base64;
use crate::server::Server;

pub(crate) fn an_unknown_session_is_refused(server: &Server) {
    let mut client = server.connect();
    for session in ["nope", "0199a213-81a4-7000-8000-000000000001"] {
        let params = json!({"clientName": "test", "resumeSessionId": session});
        let refused = client.refused("initialize", &params);
        assert_eq!((refused.code, refused.message), (-32600, format!("unknown session id {session}")));
    }
}

pub(crate) fn an_attached_session_is_not_given_to_another_connection(server: &Server) {
    let (mut owner, session) = server.ready_with_session();
    let mut other = server.connect();
    let refused = other.refused("initialize", &json!({"clientName": "test", "resumeSessionId": session}));
    let message = format!("session {session} is already attached to another connection");
    assert_eq!((refused.code, refused.message), (-32010, message));
    // Neither of them is worse off.
    owner.ask("environment/status", &json!({}));
    other.greet(&json!({"clientName": "test"}));
}

pub(crate) fn a_resumed_session_goes_on_where_it_was(server: &Server) {
    let (mut client, session) = server.ready_with_session();
    let script = "echo one; read a; echo $a; read a; echo $a; exit 9";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    client.output_with("p", "one\n");
    let write = |text: &str, id: &str| json!({"processId": "p", "chunk": base64(text), "writeId": id});
    // Asked and never heard: the answer and what follows from it are lost with the connection.
    client.send("process/write", &write("two\n", "w1"));
    sandbar_testkit::eventually(sandbar_testkit::DEADLINE, "the second word", || {
        let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": 1, "waitMs": 100}));
        (read["nextSeq"] == json!(3)).then_some(())
    });
    client.cut();
    let mut client = server.resume(&session);
    // The same write again is none, and what was missed is read from where the client stopped.
    assert_eq!(client.ask("process/write", &write("two\n", "w1")), json!({"status": "accepted"}));
    client.ask("process/write", &write("three\n", "w2"));
    assert_eq!(client.read_to_end("p", 1), (b"two\nthree\n".to_vec(), 9));
    let again = client.refused("process/start", &server.shell("p", "true"));
    assert_eq!(again.message, "process p already exists");
}

pub(crate) fn handles_end_with_their_connection(server: &Server) {
    server.home.write("f", "x");
    let (mut client, session) = server.ready_with_session();
    client.ask("fs/open", &json!({"handleId": "h", "path": server.file("f")}));
    client.cut();
    let mut client = server.resume(&session);
    client.refused("fs/readBlock", &json!({"handleId": "h", "offset": 0, "len": 1}));
    client.ask("fs/open", &json!({"handleId": "h", "path": server.file("f")}));
}
