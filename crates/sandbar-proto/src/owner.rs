//! Who a process belongs to: what a server leaves with it, to find it again after its own end.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that a server wrote and nobody else reads: base64 in JSON, whatever they are, so that their size on the wire
/// is known.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Most bytes that a keeper takes.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes up.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Blob {
    // What is in it is nobody's business, in logs either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::base64::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::base64::deserialize(deserializer).map(Self)
    }
}

/// The name of a session: 1 to [`SessionId::MAX_BYTES`] bytes of text, chosen by the server and never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// The name `text`.
    ///
    /// # Errors
    /// [`SessionIdError`] if it is empty or too long.
    pub fn new(text: impl Into<String>) -> Result<Self, SessionIdError> {
        let text = text.into();
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(SessionIdError { bytes: text.len() })
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SessionId {
    type Error = SessionIdError;

    fn try_from(text: String) -> Result<Self, SessionIdError> {
        Self::new(text)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    // Whoever knows it may resume it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.chars().take(4).collect::<String>();
        write!(f, "SessionId({shown:?}…)")
    }
}

/// A text that names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionIdError {
    /// Its length.
    pub bytes: usize,
}

impl fmt::Display for SessionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a session id has 1 to {} bytes, this one {}", SessionId::MAX_BYTES, self.bytes)
    }
}

impl std::error::Error for SessionIdError {}

/// Who a process belongs to, as its starter said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Owner {
    /// The session that it was started in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What the starter wants to know of it later.
    #[serde(default)]
    pub blob: Blob,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_base64_whatever_its_bytes_are() {
        for (bytes, json) in [(&b"text"[..], r#""dGV4dA==""#), (&[0xff, 0][..], r#""/wA=""#)] {
            let blob = Blob::from(bytes);
            assert_eq!(serde_json::to_string(&blob).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), blob);
        }
    }

    #[test]
    fn a_session_id_has_a_length() {
        for text in [String::new(), "x".repeat(65)] {
            assert_eq!(SessionId::new(text.clone()).unwrap_err().bytes, text.len());
            assert!(serde_json::from_str::<SessionId>(&format!("{text:?}")).is_err());
        }
        assert_eq!(SessionId::new("x".repeat(64)).unwrap().as_str().len(), 64);
    }

    #[test]
    fn neither_is_shown_in_a_log() {
        let owner = Owner { session: SessionId::new("secret-id").ok(), blob: b"secret"[..].into() };
        assert_eq!(
            format!("{owner:?}"),
            r#"Owner { session: Some(SessionId("secr"…)), blob: Blob(6 bytes) }"#
        );
    }
}
