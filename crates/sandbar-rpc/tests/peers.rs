//! Two peers on a link in memory: what each may count on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use sandbar_proto::rpc::{RpcError, code};
use sandbar_rpc::{CloseReason, Closed, Limits, RequestError, memory};
use serde_json::json;
use support::{Peer, run};

fn pair() -> (Peer, Peer, sandbar_rpc::Link) {
    let (client, server, link) = memory();
    (run(client, Limits::default()), run(server, Limits::default()), link)
}

#[tokio::test]
async fn a_request_is_answered_with_its_result() {
    let (client, _server, _link) = pair();
    let result = client.sender.request("echo", &json!({"a": [1, null]})).await.unwrap();
    assert_eq!(result.get(), r#"{"a":[1,null]}"#);
}

#[tokio::test]
async fn both_sides_may_ask() {
    let (client, server, _link) = pair();
    let (up, down) = tokio::join!(client.sender.request("echo", &1), server.sender.request("echo", &2));
    assert_eq!((up.unwrap().get(), down.unwrap().get()), ("1", "2"));
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let (client, _server, _link) = pair();
    let Err(RequestError::Refused(error)) = client.sender.request("nothing", &()).await else { panic!() };
    assert_eq!(error, RpcError::new(code::METHOD_NOT_FOUND, "no `nothing`"));
}

#[tokio::test]
async fn all_requests_in_flight_fail_when_the_link_goes() {
    let (client, server, link) = pair();
    let one = client.sender.clone();
    let held = tokio::spawn(async move { one.request("hold", &()).await });
    client.sender.request("echo", &()).await.unwrap();
    link.cut();
    let lost = CloseReason::Lost { why: "the link was cut".into() };
    let Err(RequestError::Closed(Closed(reason))) = held.await.unwrap() else { panic!() };
    assert_eq!(reason, lost);
    assert_eq!(client.sender.closed().await, lost);
    assert_eq!(server.end.await.unwrap(), lost);
    assert_eq!(*server.service.closed.lock().unwrap(), [lost]);
}
