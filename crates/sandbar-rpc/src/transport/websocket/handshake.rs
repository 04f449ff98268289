//! The opening handshake of RFC 6455, as far as it is the same for both sides.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The only version there is (RFC 6455, 4.1).
pub(crate) const VERSION: &str = "13";

/// What the key is hashed with (RFC 6455, 1.3), to show that the answer is not a cached one. It protects nothing, so
/// SHA-1 does.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a server answers to a key; `None` when it is no key.
pub(crate) fn accept(key: &[u8]) -> Option<String> {
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    Some(STANDARD.encode(context.finish()))
}

/// A new key.
pub(crate) fn key() -> io::Result<String> {
    let mut bytes = [0; 16];
    crate::random::fill(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// Whether the headers ask for, or agree to, an upgrade to a websocket.
pub(crate) fn upgrades(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        // RFC 6455, 1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(accept(b"dGhlIHNhbXBsZQ=="), None);
        assert_eq!(accept(b"not base64"), None);
    }

    #[test]
    fn words_are_found_in_lists_in_any_case() {
        let headers = |connection: &str, upgrade: &str| {
            HeaderMap::from_iter(
                [(CONNECTION, connection), (UPGRADE, upgrade)].map(|(n, v)| (n, v.parse().unwrap())),
            )
        };
        assert!(upgrades(&headers("keep-alive, Upgrade", "WebSocket")));
        assert!(!upgrades(&headers("keep-alive", "websocket")));
        assert!(!upgrades(&headers("upgrade", "websockets")));
        assert!(!upgrades(&HeaderMap::new()));
    }
}
