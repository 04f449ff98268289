//! Messages as text: what is written is encoded once, what is read keeps its parameters unread.

use std::fmt;

use sandbar_proto::rpc::{Message, RequestId, RpcError, Trace};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Request<'a, P: ?Sized> {
    id: i64,
    method: &'a str,
    params: &'a P,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a Trace>,
}

#[derive(Serialize)]
struct Notification<'a, P: ?Sized> {
    method: &'a str,
    params: &'a P,
}

#[derive(Serialize)]
struct Response<'a, R: ?Sized> {
    id: &'a RequestId,
    result: &'a R,
}

// The order of members is 0.169's: errors name the error first.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a RpcError,
    id: &'a RequestId,
}

pub(crate) fn request(
    id: i64,
    method: &str,
    params: &(impl Serialize + ?Sized),
    trace: Option<&Trace>,
) -> serde_json::Result<String> {
    serde_json::to_string(&Request { id, method, params, trace })
}

pub(crate) fn notification(method: &str, params: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string(&Notification { method, params })
}

pub(crate) fn response(id: &RequestId, result: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string(&Response { id, result })
}

/// A result that is JSON already, with what stands before and behind it.
pub(crate) fn response_around(id: &RequestId, result: Box<RawValue>) -> serde_json::Result<Vec<String>> {
    let head = format!(r#"{{"id":{},"result":"#, serde_json::to_string(id)?);
    Ok(vec![head, String::from(Box::<str>::from(result)), "}".to_owned()])
}

pub(crate) fn refusal(id: &RequestId, error: &RpcError) -> String {
    serde_json::to_string(&Refusal { error, id }).unwrap_or_else(|_| {
        // Texts, numbers and values always have a JSON form; this is what a bug here would look like.
        format!(r#"{{"error":{{"code":{},"message":"the error has no JSON form"}},"id":-1}}"#, error.code)
    })
}

/// Reads one message.
pub(crate) fn decode(text: &[u8]) -> serde_json::Result<Message> {
    serde_json::from_slice(text)
}

/// The id of a message of which only the front was read; `None` when it did not stand there.
pub(crate) fn id_in_front(front: &[u8]) -> Option<RequestId> {
    let mut id = None;
    // The text is cut off, so this fails; what was seen before it did counts.
    let _ = IdSeed(&mut id).deserialize(&mut serde_json::Deserializer::from_slice(front));
    id
}

struct IdSeed<'a>(&'a mut Option<RequestId>);

impl<'de> DeserializeSeed<'de> for IdSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IdSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = None;
        while let Some(member) = map.next_key::<String>()? {
            // Something stands behind it, so it was not cut off: a number that is, is another number.
            *self.0 = found.clone();
            if member == "id" {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        *self.0 = found;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
