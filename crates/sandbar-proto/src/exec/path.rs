//! Paths on the wire.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{AbsPath, AbsPathError};

/// An absolute path: a `file://` URI (RFC 8089) on the way out, that or a plain path on the way in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WirePath(pub AbsPath);

/// Why a text names no path of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WirePathError {
    /// Neither a URI nor absolute.
    Relative {
        /// The text.
        text: String,
    },
    /// A URI of another scheme.
    Scheme {
        /// The text.
        text: String,
    },
    /// A `file://` URI of another host.
    Host {
        /// The host.
        host: String,
    },
    /// A query or a fragment, which files do not have.
    Suffix {
        /// The text.
        text: String,
    },
    /// A `%` without two hexadecimal digits.
    Escape {
        /// The text.
        text: String,
    },
    /// The path itself can't be one.
    Path(AbsPathError),
}

impl fmt::Display for WirePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative { .. } => f.write_str("relative URL without a base"),
            Self::Scheme { text } => write!(f, "{text:?} is no file URI"),
            Self::Host { host } => write!(f, "the file URI names another host, {host:?}"),
            Self::Suffix { text } => write!(f, "{text:?} has a query or a fragment"),
            Self::Escape { text } => write!(f, "{text:?} has a broken % escape"),
            Self::Path(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WirePathError {}

impl WirePath {
    /// Reads a URI or a plain absolute path.
    ///
    /// # Errors
    /// [`WirePathError`].
    pub fn parse(text: &str) -> Result<Self, WirePathError> {
        let path = match text.get(..5) {
            Some(scheme) if scheme.eq_ignore_ascii_case("file:") => decode(text, &text[5..])?,
            _ if text.starts_with('/') => text.as_bytes().to_vec(),
            _ if text.contains("://") => return Err(WirePathError::Scheme { text: text.to_owned() }),
            _ => return Err(WirePathError::Relative { text: text.to_owned() }),
        };
        AbsPath::new(path).map(Self).map_err(WirePathError::Path)
    }
}

/// What follows `file:`: `///path`, `//localhost/path`, `/path`, and `path`, which means `/path`.
fn decode(text: &str, rest: &str) -> Result<Vec<u8>, WirePathError> {
    if rest.contains(['?', '#']) {
        return Err(WirePathError::Suffix { text: text.to_owned() });
    }
    let path = match rest.strip_prefix("//") {
        Some(authority) => {
            let (host, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                return Err(WirePathError::Host { host: host.to_owned() });
            }
            path
        }
        None => rest,
    };
    let mut bytes = if path.starts_with('/') { Vec::new() } else { vec![b'/'] };
    let mut left = path.as_bytes();
    while let Some((&byte, after)) = left.split_first() {
        left = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let escaped = after.split_at_checked(2).and_then(|(digits, after)| Some((hex(digits)?, after)));
        let (value, after) = escaped.ok_or_else(|| WirePathError::Escape { text: text.to_owned() })?;
        bytes.push(value);
        left = after;
    }
    Ok(bytes)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digits.iter().try_fold(0, |value, &byte| Some(value * 16 + digit(byte)?))?;
    u8::try_from(value).ok()
}

/// As the peer writes them: unreserved characters, `/` and the sub-delimiters that paths have as they are.
impl fmt::Display for WirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("file://")?;
        for &byte in self.0.as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(f, "{}", char::from(byte))?,
                b'/' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
                | b',' | b';' | b'=' | b':' | b'@' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for WirePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WirePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uris_and_plain_paths_mean_the_same() {
        let table = [
            ("/etc", "/etc"),
            ("file:///etc", "/etc"),
            ("FILE:///etc", "/etc"),
            ("file:/etc", "/etc"),
            ("file:etc", "/etc"),
            ("file://localhost/etc", "/etc"),
            ("file:///a%20b/%C3%BC", "/a b/ü"),
            ("/a%20b", "/a%20b"),
            ("/a?b#c", "/a?b#c"),
        ];
        for (text, path) in table {
            assert_eq!(WirePath::parse(text).unwrap().0.to_display(), path, "{text}");
        }
    }

    #[test]
    fn what_names_no_file_here_is_refused_by_its_reason() {
        let reason = |text: &str| WirePath::parse(text).unwrap_err();
        let text = |text: &str| text.to_owned();
        assert_eq!(reason("etc"), WirePathError::Relative { text: text("etc") });
        assert_eq!(reason("http://a/b"), WirePathError::Scheme { text: text("http://a/b") });
        assert_eq!(reason("file://other/etc"), WirePathError::Host { host: text("other") });
        assert_eq!(reason("file:///a?b"), WirePathError::Suffix { text: text("file:///a?b") });
        assert_eq!(reason("file:///a#b"), WirePathError::Suffix { text: text("file:///a#b") });
        for broken in ["file:///a%", "file:///a%2", "file:///a%zz", "file:///a%+1"] {
            assert_eq!(reason(broken), WirePathError::Escape { text: text(broken) });
        }
        assert!(matches!(reason("file:///a%00b"), WirePathError::Path(_)));
    }

    proptest! {
        #[test]
        fn every_path_survives_the_wire(parts in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..12), 0..5)) {
            let joined: Vec<u8> = parts.iter().flat_map(|part| [b"/".as_slice(), part].concat()).collect();
            let Ok(path) = AbsPath::new(if joined.is_empty() { b"/".to_vec() } else { joined }) else { return Ok(()) };
            let text = WirePath(path.clone()).to_string();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(WirePath::parse(&text).unwrap().0, path);
        }
    }
}
