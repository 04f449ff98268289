//! The JSON-RPC envelope: what every message between two of our programs is wrapped in.
//!
//! It is JSON-RPC 2.0 without its `jsonrpc` member, as Codex 0.169's exec server speaks it: a message is one object; an
//! `id` is an integer or a string, nothing else; `params`, `result` and the error's `data` are passed on unread. A
//! member that nobody knows is ignored, a batch is refused. Which method exists and what an answer means is not said
//! here.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Error codes. Those up to -32600 are JSON-RPC's own; the rest lies in its range for servers.
pub mod code {
    /// Not a request we can take: malformed, out of order, or refused by what it names.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The method doesn't take these parameters.
    pub const INVALID_PARAMS: i64 = -32602;
    /// It went wrong on this side.
    pub const INTERNAL: i64 = -32603;
    /// A file isn't there. Codex's client depends on this one.
    pub const NOT_FOUND: i64 = -32004;
    /// The session has a living connection. Codex's client tries again on it.
    pub const SESSION_ATTACHED: i64 = -32010;
    /// More requests are in flight than the connection allows; ours.
    pub const TOO_MANY_REQUESTS: i64 = -32020;
    /// The message is larger than this side reads; ours.
    pub const FRAME_TOO_LARGE: i64 = -32021;
}

/// The id in an answer to a message whose own id could not be read.
pub const UNREADABLE_ID: RequestId = RequestId::Number(-1);

/// What pairs an answer with its request. Chosen by whoever asks, unique among its requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// An integer.
    Number(i64),
    /// A text.
    String(String),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = RequestId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id that is an integer or a string")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RequestId, E> {
                Ok(RequestId::Number(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RequestId, E> {
                let unexpected = de::Unexpected::Unsigned(number);
                i64::try_from(number).map(RequestId::Number).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RequestId, E> {
                Ok(RequestId::String(text.to_owned()))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcError {
    /// One of [`code`], or another side's own.
    pub code: i64,
    /// For people.
    pub message: String,
    /// For programs: `kind` is our stable word for the reason, what else there is depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl RpcError {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// An error whose `data` is `{"kind": kind}`.
    #[must_use]
    pub fn with_kind(code: i64, kind: &str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Some(serde_json::json!({ "kind": kind })) }
    }

    /// The stable word for the reason, when the other side gave one.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.data.as_ref()?.get("kind")?.as_str()
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

/// Which trace a request belongs to, as the W3C's "Trace Context" names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trace {
    /// `version-traceid-parentid-flags`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What vendors add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

/// One message. Written with the members in the order that 0.169 writes them.
#[derive(Debug, Clone)]
pub enum Message {
    /// Asks for something, and is answered once.
    Request {
        /// Pairs the answer with it.
        id: RequestId,
        /// What is asked for.
        method: String,
        /// Absent and `null` are the same.
        params: Option<Box<RawValue>>,
        /// Which trace it belongs to.
        trace: Option<Trace>,
    },
    /// Says something, and is never answered.
    Notification {
        /// What is said.
        method: String,
        /// Absent and `null` are the same.
        params: Option<Box<RawValue>>,
    },
    /// Answers a request.
    Response {
        /// The request's.
        id: RequestId,
        /// What it led to; may be `null`.
        result: Box<RawValue>,
    },
    /// Refuses a request.
    Error {
        /// The request's.
        id: RequestId,
        /// Why.
        error: RpcError,
    },
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Message", 4)?;
        match self {
            Self::Request { id, method, params, trace } => {
                object.serialize_field("id", id)?;
                object.serialize_field("method", method)?;
                optional(&mut object, "params", params.as_ref())?;
                optional(&mut object, "trace", trace.as_ref())?;
            }
            Self::Notification { method, params } => {
                object.serialize_field("method", method)?;
                optional(&mut object, "params", params.as_ref())?;
            }
            Self::Response { id, result } => {
                object.serialize_field("id", id)?;
                object.serialize_field("result", result)?;
            }
            Self::Error { id, error } => {
                object.serialize_field("error", error)?;
                object.serialize_field("id", id)?;
            }
        }
        object.end()
    }
}

fn optional<S: SerializeStruct>(
    object: &mut S,
    name: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), S::Error> {
    match value {
        Some(value) => object.serialize_field(name, value),
        None => object.skip_field(name),
    }
}

impl<'de> Deserialize<'de> for Message {
    /// Reads one message; only `serde_json`'s own deserializers can, for the parameters are kept as text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        // A derived visitor would take a sequence for a struct, and a batch is none of our messages.
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Members, A::Error> {
                read_members(map)
            }
        }

        deserializer.deserialize_map(ObjectVisitor)?.message().map_err(de::Error::custom)
    }
}

/// The members of an object that may be a message.
#[derive(Default)]
struct Members {
    id: Option<RequestId>,
    method: Option<String>,
    params: Option<Option<Box<RawValue>>>,
    result: Option<Box<RawValue>>,
    error: Option<RpcError>,
    trace: Option<Option<Trace>>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Id,
    Method,
    Params,
    Result,
    Error,
    Trace,
    #[serde(other)]
    Other,
}

fn read_members<'de, A: MapAccess<'de>>(mut map: A) -> Result<Members, A::Error> {
    let mut members = Members::default();
    while let Some(member) = map.next_key()? {
        match member {
            Member::Id => once(&mut members.id, "id", map.next_value()?)?,
            Member::Method => once(&mut members.method, "method", map.next_value()?)?,
            Member::Params => once(&mut members.params, "params", map.next_value()?)?,
            Member::Result => once(&mut members.result, "result", map.next_value()?)?,
            Member::Error => once(&mut members.error, "error", map.next_value::<Strict>()?.0)?,
            Member::Trace => once(&mut members.trace, "trace", map.next_value()?)?,
            Member::Other => {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    Ok(members)
}

/// An error that is an object: derived code would take a sequence as well.
struct Strict(RpcError);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ErrorVisitor;

        impl<'de> Visitor<'de> for ErrorVisitor {
            type Value = RpcError;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RpcError, A::Error> {
                RpcError::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(ErrorVisitor).map(Strict)
    }
}

fn once<T, E: de::Error>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::duplicate_field(name));
    }
    Ok(())
}

impl Members {
    /// What the members make, or what is missing or too much.
    fn message(self) -> Result<Message, &'static str> {
        let Self { id, method, params, result, error, trace } = self;
        let (params, trace) = (params.flatten(), trace.flatten());
        match (id, method, result, error) {
            (Some(id), Some(method), None, None) => Ok(Message::Request { id, method, params, trace }),
            (None, Some(method), None, None) => Ok(Message::Notification { method, params }),
            (Some(id), None, Some(result), None) => Ok(Message::Response { id, result }),
            (Some(id), None, None, Some(error)) => Ok(Message::Error { id, error }),
            (_, None, None, None) => Err("a message has a method, a result or an error"),
            (None, None, _, _) => Err("an answer has an id"),
            (_, Some(_), _, _) => Err("a message with a method has neither result nor error"),
            (_, None, Some(_), Some(_)) => Err("an answer has a result or an error, not both"),
        }
    }
}
