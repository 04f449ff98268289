//! Byte strings of the operating system, kept exactly.
//!
//! Arguments, environment and paths are bytes on Unix. On the wire and on disk they are a JSON string when
//! they are UTF-8 and `{"bytes": base64}` when they are not, so that nothing is replaced by U+FFFD.

#[cfg(unix)]
use std::ffi::{OsStr, OsString};
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are usually, but not always, UTF-8 text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// The bytes, without a terminating NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes up.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text, if the bytes are UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text for a person: invalid sequences become U+FFFD. Never use it to open or compare anything.
    #[must_use]
    pub fn to_display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The value as the standard library's operating-system string.
    #[cfg(unix)]
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        use std::os::unix::ffi::OsStringExt as _;
        OsString::from_vec(self.0.clone())
    }
}

#[cfg(unix)]
impl From<&OsStr> for ByteString {
    fn from(value: &OsStr) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        Self(value.as_bytes().to_vec())
    }
}

#[cfg(unix)]
impl From<OsString> for ByteString {
    fn from(value: OsString) -> Self {
        use std::os::unix::ffi::OsStringExt as _;
        Self(value.into_vec())
    }
}

impl From<&str> for ByteString {
    fn from(value: &str) -> Self {
        Self(value.as_bytes().to_vec())
    }
}

impl From<String> for ByteString {
    fn from(value: String) -> Self {
        Self(value.into_bytes())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(value: Vec<u8>) -> Self {
        Self(value)
    }
}

impl From<&[u8]> for ByteString {
    fn from(value: &[u8]) -> Self {
        Self(value.to_vec())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("bytes", &crate::base64::encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteStringVisitor)
    }
}

struct ByteStringVisitor;

impl<'de> Visitor<'de> for ByteStringVisitor {
    type Value = ByteString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"bytes\": base64}")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteString, E> {
        Ok(ByteString::from(value))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<ByteString, E> {
        Ok(ByteString::from(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByteString, A::Error> {
        let mut bytes = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "bytes" && bytes.is_none() {
                let encoded: String = map.next_value()?;
                bytes = Some(crate::base64::decode(encoded).map_err(de::Error::custom)?);
            } else {
                return Err(de::Error::unknown_field(&key, &["bytes"]));
            }
        }
        bytes.map(ByteString).ok_or_else(|| de::Error::missing_field("bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_a_json_string_and_other_bytes_are_base64() {
        let text = serde_json::to_string(&ByteString::from("grün")).unwrap();
        let raw = serde_json::to_string(&ByteString::from(vec![0xff, 0x00])).unwrap();
        assert_eq!((text.as_str(), raw.as_str()), ("\"grün\"", "{\"bytes\":\"/wA=\"}"));
    }

    #[test]
    fn a_map_with_another_key_is_refused() {
        let error = serde_json::from_str::<ByteString>("{\"byts\":\"\"}").unwrap_err();
        assert!(error.to_string().contains("unknown field `byts`"), "{error}");
    }

    #[test]
    fn fuzz_a_byte_string_or_path_that_is_understood_survives_json() {
        use sandbar_testkit::{Samples, Took, fuzz};
        let samples = Samples {
            whole: &[b"\"/gr\xc3\xbcn/./x\"", b"{\"bytes\":\"L/8=\"}", b"\"/a\\u0000b\"", b"\"/a/../b\""],
            words: &[
                b"\"",
                b"/",
                b"..",
                b".",
                b"\\u0000",
                b"\\ud800",
                b"{\"bytes\":",
                b"\"}",
                b"=",
                b"L/8=",
                b"null",
                b"\xff",
            ],
        };
        fuzz("byte strings", samples, |input| {
            let text = serde_json::from_slice::<ByteString>(input);
            if let Ok(text) = &text {
                let again = serde_json::to_vec(text).unwrap();
                assert_eq!(serde_json::from_slice::<ByteString>(&again).unwrap(), *text);
                assert!(text.as_bytes().len() <= input.len());
            }
            let path = serde_json::from_slice::<crate::AbsPath>(input);
            if let Ok(path) = &path {
                assert!(path.as_bytes().starts_with(b"/") && !path.as_bytes().contains(&0));
                assert!(path.components().all(|part| !matches!(part, b"." | b"..")));
                assert_eq!(crate::AbsPath::new(path.as_bytes()).as_ref(), Ok(path), "it is clean already");
            }
            assert!(text.is_ok() || path.is_err());
            Took::if_understood(text.is_ok())
        });
    }

    proptest! {
        #[test]
        fn every_byte_string_survives_json(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let value = ByteString::from(bytes);
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<ByteString>(&json).unwrap(), value);
        }
    }
}
