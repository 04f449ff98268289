//! Two peers on a link that breaks: whatever is lost, nobody waits for ever and nothing is made up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use proptest::prelude::*;
use sandbar_proto::rpc::{RpcError, code};
use sandbar_rpc::{CloseReason, Closed, Connection, Frame, Limits, RequestError, Side, Violation, memory};
use support::{Peer, run};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn pair() -> (Peer, Peer, sandbar_rpc::Link) {
    let (client, server, link) = memory();
    (run(client, Limits::default()), run(server, Limits::default()), link)
}

/// What a client does.
#[derive(Debug, Clone)]
enum Step {
    Ask,
    AskAndForget,
    Note,
    AskBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![Just(Step::Ask), Just(Step::AskAndForget), Just(Step::Note), Just(Step::AskBack)];
    proptest::collection::vec(step, 1..20)
}

/// Takes the steps while the link breaks behind `frames` of `from`, and looks at what became of them.
async fn survive(steps: Vec<Step>, from: Side, frames: usize) {
    let (client, server, link) = pair();
    link.cut_after(from, frames);
    let mut asked = Vec::new();
    let mut notes = 0;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Ask | Step::AskBack => {
                let peer = if matches!(step, Step::Ask) { &client } else { &server };
                let sender = peer.sender.clone();
                asked.push(tokio::spawn(async move { (number, sender.request("echo", &number).await) }));
            }
            Step::AskAndForget => {
                let sender = client.sender.clone();
                let asking = tokio::spawn(async move { sender.request("echo", &number).await });
                tokio::task::yield_now().await;
                asking.abort();
            }
            Step::Note => notes += usize::from(client.sender.notify("note", &notes).is_ok()),
        }
    }
    for asked in asked {
        let (number, result) = asked.await.unwrap();
        match result {
            Ok(result) => assert_eq!(result.get(), number.to_string(), "the answer belongs to the request"),
            Err(RequestError::Closed(Closed(CloseReason::Lost { .. }))) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    link.cut();
    for peer in [client, server] {
        let reason = peer.end.await.unwrap();
        assert!(matches!(reason, CloseReason::Lost { .. }), "{reason}");
        assert_eq!(*peer.service.closed.lock().unwrap(), [reason], "told once");
        assert!(peer.sender.notify("late", &()).is_err());
        assert!(matches!(peer.sender.request("late", &()).await, Err(RequestError::Closed(_))));
        let kept = peer.service.notes.lock().unwrap().clone();
        let expected: Vec<_> = (0..kept.len()).map(|note| note.to_string()).collect();
        assert_eq!(kept, expected, "what arrived is in order, without holes");
        assert!(kept.len() <= notes);
    }
}

#[test]
fn a_link_that_breaks_at_any_message_leaves_nobody_waiting() {
    let steps = [Step::Ask, Step::Note, Step::AskBack, Step::AskAndForget, Step::Note, Step::Ask];
    for side in [Side::Client, Side::Server] {
        for frames in 0..=8 {
            runtime().block_on(survive(steps.to_vec(), side, frames));
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_is_answered_or_fails(steps in steps(), from_client: bool, frames in 0_usize..20) {
        let side = if from_client { Side::Client } else { Side::Server };
        runtime().block_on(survive(steps, side, frames));
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_is_cancelled_and_its_late_answer_thrown_away() {
    let (client, server, _link) = pair();
    let asking = client.sender.request("hold", &());
    tokio::select! {
        biased;
        _ = asking => panic!("it is held"),
        () = async {
            // Behind the request, and answered: the request has arrived.
            client.sender.request("echo", &()).await.unwrap();
        } => {}
    }
    assert_eq!(server.service.held.lock().unwrap().len(), 1);
    assert_eq!(client.sender.request("release", &()).await.unwrap().get(), "1");
    assert_eq!(client.sender.request("echo", &1).await.unwrap().get(), "1");
}

#[tokio::test]
async fn an_answer_that_comes_twice_is_a_violation() {
    let (client, server, _link) = pair();
    client.sender.request("echo", &()).await.unwrap();
    server.sender.data(Frame::Text(r#"{"id":1,"result":null}"#.into())).await.unwrap();
    let id = sandbar_proto::rpc::RequestId::Number(1);
    assert_eq!(client.end.await.unwrap(), CloseReason::Violation(Violation::UnsolicitedAnswer { id }));
}

#[tokio::test]
async fn a_client_hangs_up_on_what_it_cannot_read() {
    let (client, server, _link) = pair();
    server.sender.data(Frame::Text("nonsense".into())).await.unwrap();
    let reason = client.end.await.unwrap();
    assert!(matches!(reason, CloseReason::Violation(Violation::Unreadable { .. })), "{reason}");
}

#[tokio::test]
async fn a_client_whose_message_was_not_understood_does_not_wait_for_its_answer() {
    let (client, _server, _link) = pair();
    client.sender.data(Frame::Text("nonsense".into())).await.unwrap();
    let error = client.sender.request("hold", &()).await.unwrap_err();
    assert!(error.to_string().contains("the peer could not read a message"), "{error}");
}

#[tokio::test]
async fn a_request_that_no_server_would_read_is_not_sent() {
    let (client, _, _link) = memory();
    let client = run(client, Limits { max_request_frame: 100, ..Limits::default() });
    let error = client.sender.request("echo", &"x".repeat(100)).await.unwrap_err();
    assert_eq!(error.to_string(), "the request has 136 bytes, at most 100 are sent");
}

#[tokio::test]
async fn more_requests_than_may_be_outstanding_are_refused_here() {
    let (client, server, _link) = memory();
    let client = run(client, Limits { max_outstanding: 2, ..Limits::default() });
    let _server = run(server, Limits::default());
    for _ in 0..2 {
        let sender = client.sender.clone();
        // Cancelled or not: the peer owes an answer.
        let held = tokio::spawn(async move { sender.request("hold", &()).await });
        tokio::task::yield_now().await;
        held.abort();
    }
    assert!(matches!(client.sender.request("echo", &()).await, Err(RequestError::TooMany)));
}

#[tokio::test]
async fn params_that_have_no_json_form_are_refused_here() {
    let (client, _server, _link) = pair();
    let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
    let error = client.sender.request("echo", &odd).await.unwrap_err();
    assert!(matches!(error, RequestError::Params { .. }), "{error}");
    assert_eq!(client.sender.request("echo", &1).await.unwrap().get(), "1", "and only that request");
}

#[tokio::test]
async fn a_result_that_has_no_json_form_is_an_internal_error() {
    let (client, server, _link) = pair();
    let sender = client.sender.clone();
    let asked = tokio::spawn(async move { sender.request("hold", &()).await });
    client.sender.request("echo", &()).await.unwrap();
    let held = server.service.held.lock().unwrap().remove(0);
    held.ok(&std::collections::BTreeMap::from([((1, 2), 3)]));
    let Err(RequestError::Refused(RpcError { code, .. })) = asked.await.unwrap() else { panic!() };
    assert_eq!(code, code::INTERNAL);
}

#[tokio::test]
async fn large_results_come_by_the_data_lane() {
    let (client, _server, _link) = pair();
    let large = client.sender.request("large", &3_000_000).await.unwrap();
    assert_eq!(large.get().len(), 3_000_002);
}

#[tokio::test]
async fn senders_of_data_take_turns() {
    let (client, server, _link) = memory();
    // Room for one frame: each waits for the one before.
    let server = run(server, Limits { data_bytes: 1000, ..Limits::default() });
    let mut floods = Vec::new();
    for name in ["a", "b", "c"] {
        let sender = server.sender.clone();
        let text = format!("{name}{}", "x".repeat(1000));
        floods.push(tokio::spawn(async move {
            for _ in 0..50 {
                sender.data_notification("note", &text).await.unwrap();
            }
        }));
    }
    let client = run(client, Limits::default());
    client.service.noted(150).await;
    let notes = client.service.notes.lock().unwrap().clone();
    let order: String = notes.iter().map(|note| &note[1..2]).collect();
    // The first one finds room twice, before the others begin.
    for turn in order.as_bytes()[1..148].chunks(3) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert_eq!(turn, b"abc", "{order}");
    }
}

#[tokio::test]
async fn a_connection_whose_future_is_dropped_ends_like_any_other() {
    let (client, server, _link) = pair();
    let asking = client.sender.clone();
    let asked = tokio::spawn(async move { asking.request("hold", &()).await });
    client.sender.request("echo", &()).await.unwrap();
    server.end.abort();
    assert!(matches!(asked.await.unwrap(), Err(RequestError::Closed(_))));
    assert_eq!(server.sender.closed().await, CloseReason::Abandoned);
    assert_eq!(*server.service.closed.lock().unwrap(), [CloseReason::Abandoned]);
}

#[tokio::test]
async fn a_connection_that_is_never_run_ends() {
    let (client, _server, _link) = memory();
    let (sender, connection) = Connection::new(client, Limits::default());
    sender.notify("queued", &()).unwrap();
    drop(connection);
    assert_eq!(sender.notify("late", &()), Err(Closed(CloseReason::Abandoned)));
}

#[tokio::test]
async fn a_binary_frame_where_none_can_be_is_a_fault_of_ours_and_said() {
    let (near, _far) = tokio::io::duplex(1000);
    let (input, output) = tokio::io::split(near);
    let peer = run(sandbar_rpc::lines(input, output, Side::Server), Limits::default());
    let error = peer.sender.data(Frame::Binary(vec![1])).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the connection has ended: a binary frame was sent on a transport that has none"
    );
}

#[tokio::test]
async fn a_service_that_takes_no_binary_frames_drops_who_sends_them() {
    let (client, server, _link) = memory();
    let client = run(client, Limits::default());
    let plain = std::sync::Arc::new(support::Plain);
    let end = tokio::spawn(sandbar_rpc::serve(server, plain, |_| {}, Limits::default()));
    client.sender.data(Frame::Binary(vec![1, 2])).await.unwrap();
    let reason = end.await.unwrap();
    assert!(matches!(reason, CloseReason::Violation(Violation::Binary { .. })), "{reason}");
}
