//! Requests over the executor's network.

use serde::{Deserialize, Serialize};

use super::Base64;

/// Parameters of `http/request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HttpRequestParams {
    /// `GET`, `POST` and the like.
    pub method: String,
    /// An `http` or `https` URL.
    pub url: String,
    /// In order; a name may come again.
    #[serde(default)]
    pub headers: Vec<HttpHeader>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<Base64>,
    /// Milliseconds until the answer has to be there: all of it, or its head when it is streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What to do about redirects; they are followed unless this says otherwise.
    #[serde(default)]
    pub redirect_policy: RedirectPolicy,
    /// The client's name for the request, which the pieces of a streamed body carry.
    pub request_id: String,
    /// Whether the body comes in pieces behind the answer.
    #[serde(default)]
    pub stream_response: bool,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value, or what comes before that of the variable.
    pub value: String,
    /// A variable of the executor's environment whose value is put behind `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_env_var: Option<String>,
}

/// What to do about redirects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RedirectPolicy {
    /// Go where they lead.
    #[default]
    Follow,
    /// Give them to the client.
    Stop,
}

/// Result of `http/request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    /// Such as 200.
    pub status: u16,
    /// In order.
    pub headers: Vec<HttpHeader>,
    /// The body; nothing when it is streamed.
    pub body_base64: Base64,
}

/// Notification: a piece of a streamed body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HttpBodyDelta {
    /// Of which request.
    pub request_id: String,
    /// From 1.
    pub seq: u64,
    /// The piece.
    pub delta_base64: Base64,
    /// Whether it is the last one, which is empty.
    pub done: bool,
    /// Why it ends early.
    pub error: Option<String>,
}
