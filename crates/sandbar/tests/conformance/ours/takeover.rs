//! Sessions that change hands while somebody has them.

use serde_json::json;

use crate::client::refusal;
use crate::server::Server;

pub(crate) fn a_session_that_is_taken_over_tells_its_old_owner(server: &Server) {
    let (mut old, session) = server.ready_with_session();
    old.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let mut new = server.connect();
    let takeover = json!({"clientName": "test", "resumeSessionId": session, "takeover": true});
    assert_eq!(new.greet(&takeover), session);
    let told = old.wait_for(|message| message["method"] == json!("session/evicted"));
    assert_eq!(told["params"], json!({"sessionId": session}));
    assert!(old.is_dropped());
    // Which news wait for.
    new.ask("process/read", &json!({"processId": "p"}));
    new.ask("process/write", &json!({"processId": "p", "chunk": "aGkK", "writeId": "w"}));
    assert_eq!(new.output_with("p", "hi\n"), "hi\n");
    // A takeover of what nobody has is a resume.
    new.cut();
    assert_eq!(server.connect().greet(&takeover), session);
}

pub(crate) fn polls_of_an_owner_that_lost_its_session_are_refused(server: &Server) {
    let (mut old, session) = server.ready_with_session();
    old.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let polls = [
        ("process/read", json!({"processId": "p", "waitMs": 100_000})),
        ("process/wait", json!({"processId": "p"})),
    ];
    let polls = polls.map(|(method, params)| old.send(method, &params));
    // Taken, since it is answered behind them.
    old.ask("environment/status", &json!({}));
    server.connect().greet(&json!({"clientName": "test", "resumeSessionId": session, "takeover": true}));
    for poll in polls {
        let refused = refusal(&old.answer(poll));
        assert_eq!(
            (refused.code, refused.kind.as_str(), refused.message.as_str()),
            (-32600, "resumed_elsewhere", "session has been resumed by another connection")
        );
    }
}

pub(crate) fn a_peer_that_says_nothing_does_not_keep_its_session(server: &Server) {
    // Half open: it neither reads nor writes nor ends.
    let (silent, session) = server.ready_with_session();
    let mut new = server.connect();
    let resume = json!({"clientName": "test", "resumeSessionId": session});
    assert_eq!(new.refused("initialize", &resume).kind, "session_attached");
    new.greet(&json!({"clientName": "test", "resumeSessionId": session, "takeover": true}));
    new.ask("environment/status", &json!({}));
    drop(silent);
}
