use proptest::prelude::*;
use sandbar_proto::rpc::code;
use sandbar_testkit::{Samples, Took, fuzz};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

#[test]
fn each_message_is_written_in_the_order_of_the_dialect() {
    let trace = Trace { traceparent: Some("00-1-2-01".into()), tracestate: None };
    assert_eq!(
        request(3, "fs/readFile", &json!({"path": "/x"}), Some(&trace)).unwrap(),
        r#"{"id":3,"method":"fs/readFile","params":{"path":"/x"},"trace":{"traceparent":"00-1-2-01"}}"#
    );
    assert_eq!(notification("initialized", &json!({})).unwrap(), r#"{"method":"initialized","params":{}}"#);
    assert_eq!(response(&RequestId::Number(1), &json!({})).unwrap(), r#"{"id":1,"result":{}}"#);
    assert_eq!(
        refusal(&RequestId::String("a".into()), &RpcError::with_kind(code::NOT_FOUND, "not_found", "gone")),
        r#"{"error":{"code":-32004,"message":"gone","data":{"kind":"not_found"}},"id":"a"}"#
    );
}

fn ids() -> impl Strategy<Value = RequestId> {
    prop_oneof![any::<i64>().prop_map(RequestId::Number), any::<String>().prop_map(RequestId::String)]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let params = || proptest::option::of(values()).prop_map(|params| params.map(|params| raw(&params)));
    let trace = proptest::option::of(any::<(Option<String>, Option<String>)>())
        .prop_map(|trace| trace.map(|(traceparent, tracestate)| Trace { traceparent, tracestate }));
    let error = (any::<i64>(), any::<String>(), proptest::option::of(values()))
        // Absent and null are the same.
        .prop_map(|(code, message, data)| RpcError {
            code,
            message,
            data: data.filter(|data| !data.is_null()),
        });
    prop_oneof![
        (ids(), any::<String>(), params(), trace).prop_map(|(id, method, params, trace)| Message::Request {
            id,
            method,
            params,
            trace
        }),
        (any::<String>(), params()).prop_map(|(method, params)| Message::Notification { method, params }),
        (ids(), values()).prop_map(|(id, result)| Message::Response { id, result: raw(&result) }),
        (ids(), error).prop_map(|(id, error)| Message::Error { id, error }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(message in messages()) {
        let text = serde_json::to_string(&message).unwrap();
        let read = serde_json::to_value(decode(text.as_bytes()).unwrap()).unwrap();
        let mut written = serde_json::to_value(&message).unwrap();
        // Parameters that are null are none.
        if let Some(object) = written.as_object_mut().filter(|object| object.get("params") == Some(&Value::Null)) {
            object.remove("params");
        }
        prop_assert_eq!(read, written);
    }

    #[test]
    fn no_text_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = id_in_front(&bytes);
    }

    #[test]
    fn no_json_is_read_as_what_it_is_not(value in values()) {
        let text = value.to_string();
        if let Ok(message) = decode(text.as_bytes()) {
            prop_assert!(value.is_object());
            let is_answer = matches!(message, Message::Response { .. } | Message::Error { .. });
            prop_assert_eq!(value.get("method").is_none(), is_answer);
        }
    }

    #[test]
    fn the_id_of_a_message_that_is_cut_off_is_its_own_or_none(message in messages(), cut in 0_usize..200) {
        let text = serde_json::to_string(&message).unwrap();
        let id = match &message {
            Message::Request { id, .. } | Message::Response { id, .. } | Message::Error { id, .. } => Some(id),
            Message::Notification { .. } => None,
        };
        let found = id_in_front(&text.as_bytes()[..cut.min(text.len())]);
        prop_assert!(found.is_none() || found.as_ref() == id, "{:?}", found);
        let whole = id_in_front(text.as_bytes());
        prop_assert_eq!(whole.as_ref(), id);
    }
}

#[test]
fn fuzz_a_message_is_read_as_it_is_written_again_or_refused() {
    let whole: &[&[u8]] = &[
        br#"{"id":3,"method":"process/start","params":{"processId":"p"},"trace":{"traceparent":"00-1-2-01"}}"#,
        br#"{"method":"process/credit","params":{"processId":"p","bytes":9}}"#,
        br#"{"id":"a","result":{"running":true}}"#,
        br#"{"error":{"code":-32004,"message":"gone","data":{"kind":"not_found"}},"id":-1}"#,
    ];
    let words: &[&[u8]] = &[
        br#""id":"#,
        br#""method":"#,
        br#""params":"#,
        br#""result":"#,
        br#""error":"#,
        br#""jsonrpc":"2.0","#,
        b"null",
        b"[",
        b"{",
        b"\\u0069d",
        b"1e400",
        b"-9223372036854775808",
    ];
    fuzz("messages", Samples { whole, words }, |input| {
        let in_front = id_in_front(input);
        let Ok(message) = decode(input) else { return Took::Refused };
        let id = match &message {
            Message::Request { id, .. } | Message::Response { id, .. } | Message::Error { id, .. } => {
                Some(id)
            }
            Message::Notification { .. } => None,
        };
        assert_eq!(in_front.as_ref(), id, "the front of a whole message has its id");
        let text = serde_json::to_string(&message).unwrap();
        let again = serde_json::to_string(&decode(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(again, text);
        Took::Understood
    });
}
