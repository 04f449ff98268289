//! Bytes as standard base64 with padding (RFC 4648, 4), the way they travel in JSON.
//!
//! Large contents take the processor's wide instructions. Small ones don't: finding out which there are asks the
//! processor, which costs a guest of a virtual machine more than encoding a few KiB.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{GeneralPurposeConfig, Simd};
use serde::{Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Size from which the wide instructions are worth asking for.
const LARGE: usize = 16 * 1024;

static WIDE: LazyLock<Simd> = LazyLock::new(|| Simd::standard(GeneralPurposeConfig::new()));

pub use base64::DecodeError;

/// Bytes that text of `bytes` has.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Appends the text of `bytes`, which is ASCII, to `into`.
pub fn append(bytes: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    into.resize(start + encoded_len(bytes.len()), 0);
    let target = &mut into[start..];
    let written = if bytes.len() < LARGE {
        STANDARD.encode_slice(bytes, target)
    } else {
        WIDE.encode_slice(bytes, target)
    };
    // There is room for all of it; were there less, what was not written would be no text.
    into.truncate(start + written.unwrap_or(0));
}

/// The text of `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    if bytes.len() < LARGE { STANDARD.encode(bytes) } else { WIDE.encode(bytes) }
}

/// The bytes of a text.
///
/// # Errors
/// It is none: another character, a length that no bytes have, padding that is missing or too much.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, DecodeError> {
    let text = text.as_ref();
    if text.len() < LARGE { STANDARD.decode(text) } else { WIDE.decode(text) }
}

/// Appends the bytes of a text to `into`.
///
/// # Errors
/// As [`decode`]; then `into` has what it had.
pub fn append_decoded(text: impl AsRef<[u8]>, into: &mut Vec<u8>) -> Result<(), DecodeError> {
    let text = text.as_ref();
    let start = into.len();
    let decoded =
        if text.len() < LARGE { STANDARD.decode_vec(text, into) } else { WIDE.decode_vec(text, into) };
    if decoded.is_err() {
        into.truncate(start);
    }
    decoded
}

/// Writes bytes as a JSON string of their text. There is nothing in it to be escaped, so nothing is looked for.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.len() < LARGE {
        return serializer.serialize_str(&encode(bytes));
    }
    let mut text = Vec::with_capacity(encoded_len(bytes.len()) + 2);
    text.push(b'"');
    append(bytes, &mut text);
    text.push(b'"');
    let text = String::from_utf8(text).map_err(serde::ser::Error::custom)?;
    RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// Reads bytes from a string of their text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Text;

    impl de::Visitor<'_> for Text {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            decode(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_small_contents_have_the_same_text() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * LARGE).collect();
        for len in [0, 1, 2, 3, LARGE - 1, LARGE, LARGE + 1, LARGE + 2, bytes.len()] {
            let bytes = &bytes[..len];
            let text = STANDARD.encode(bytes);
            assert_eq!((encode(bytes), encoded_len(len)), (text.clone(), text.len()), "{len}");
            assert_eq!(decode(&text).unwrap(), bytes, "{len}");
            let mut appended = b"before ".to_vec();
            append(bytes, &mut appended);
            assert_eq!(appended, format!("before {text}").into_bytes(), "{len}");
            let mut decoded = b"before ".to_vec();
            append_decoded(&text, &mut decoded).unwrap();
            assert_eq!(decoded, [b"before ", bytes].concat(), "{len}");
            let json = serde_json::to_string(&crate::exec::Base64(bytes.to_vec())).unwrap();
            assert_eq!(json, format!("\"{text}\""), "{len}");
            let read: crate::exec::Base64 = serde_json::from_str(&json).unwrap();
            assert_eq!(read.0, bytes, "{len}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused_at_every_size() {
        for len in [8, 4 * LARGE] {
            let text = "A".repeat(len);
            for broken in [
                format!("{text}A"),
                format!("{text}="),
                text.replacen('A', "-", 1),
                format!("{text}AA==AA=="),
            ] {
                let mut bytes = b"before".to_vec();
                assert!(append_decoded(&broken, &mut bytes).is_err());
                assert_eq!(bytes, b"before");
                assert!(decode(&broken).is_err(), "{} {len}", &broken[broken.len() - 8..]);
            }
        }
    }
}
