//! Addresses to listen on, as people write them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenUrl {
    /// `unix:///absolute/path` or `unix:path`.
    Unix(PathBuf),
    /// `ws://IP:PORT`; port 0 lets the system choose.
    Ws(SocketAddr),
    /// `wss://IP:PORT`.
    Wss(SocketAddr),
    /// `stdio` or `stdio://`: not listened on, but spoken over at once.
    Stdio,
}

/// The text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsupported --listen URL `{text}`; expected `unix:///PATH`, `ws://IP:PORT`, `wss://IP:PORT` or `stdio`"
)]
pub struct ListenUrlError {
    /// What was given.
    pub text: String,
}

impl FromStr for ListenUrl {
    type Err = ListenUrlError;

    /// Only literal addresses: which one a name means may change, and with it who can connect.
    fn from_str(text: &str) -> Result<Self, ListenUrlError> {
        parse(text).ok_or_else(|| ListenUrlError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<ListenUrl> {
    if matches!(text, "stdio" | "stdio://") {
        return Some(ListenUrl::Stdio);
    }
    let (scheme, rest) = text.split_once(':')?;
    match scheme {
        "unix" => unix_path(rest).map(ListenUrl::Unix),
        "ws" => address(rest).map(ListenUrl::Ws),
        "wss" => address(rest).map(ListenUrl::Wss),
        _ => None,
    }
}

/// `///path` or a path; `//host/path` names a host, which a socket has none of.
pub(crate) fn unix_path(rest: &str) -> Option<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return None,
        None => rest,
    };
    let names_a_file = !path.is_empty() && !path.ends_with('/') && !path.contains('\0');
    names_a_file.then(|| PathBuf::from(path))
}

fn address(rest: &str) -> Option<SocketAddr> {
    let rest = rest.strip_prefix("//")?;
    rest.strip_suffix('/').unwrap_or(rest).parse().ok()
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) if path.is_absolute() => write!(f, "unix://{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Ws(address) => write!(f, "ws://{address}"),
            Self::Wss(address) => write!(f, "wss://{address}"),
            Self::Stdio => f.write_str("stdio"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let url = |text: &str| text.parse::<ListenUrl>().map(|url| url.to_string()).ok();
        let table = [
            ("unix:///run/x.sock", Some("unix:///run/x.sock")),
            ("unix:/run/x.sock", Some("unix:///run/x.sock")),
            ("unix:x.sock", Some("unix:x.sock")),
            ("unix:", None),
            ("unix://", None),
            ("unix:///", None),
            ("unix://host/x.sock", None),
            ("ws://127.0.0.1:0", Some("ws://127.0.0.1:0")),
            ("ws://127.0.0.1:80/", Some("ws://127.0.0.1:80")),
            ("ws://[::1]:80", Some("ws://[::1]:80")),
            ("ws://localhost:80", None),
            ("ws://127.0.0.1", None),
            ("ws://127.0.0.1:80/path", None),
            ("ws:127.0.0.1:80", None),
            ("wss://0.0.0.0:443", Some("wss://0.0.0.0:443")),
            ("stdio", Some("stdio")),
            ("stdio://", Some("stdio")),
            ("tcp://127.0.0.1:80", None),
            ("http://127.0.0.1:80", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(url(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_what_is_expected() {
        let error = "tcp://[::1]:1".parse::<ListenUrl>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported --listen URL `tcp://[::1]:1`; expected `unix:///PATH`, `ws://IP:PORT`, `wss://IP:PORT` or \
             `stdio`"
        );
    }

    #[test]
    fn fuzz_an_address_to_listen_on_is_shown_as_what_it_is() {
        use sandbar_testkit::{Samples, Took, fuzz};

        let whole: &[&[u8]] =
            &[b"unix:///run/x.sock", b"unix:x.sock", b"ws://127.0.0.1:0", b"wss://[::1]:443/", b"stdio"];
        let words: &[&[u8]] =
            &[b"unix:", b"ws://", b"wss://", b"stdio", b"//", b"[::1]", b":80", b"%2f", b"\0", b"/"];
        fuzz("addresses to listen on", Samples { whole, words }, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return Took::Refused };
            let Ok(url) = text.parse::<ListenUrl>() else { return Took::Refused };
            assert_eq!(url.to_string().parse(), Ok(url));
            Took::Understood
        });
    }
}
