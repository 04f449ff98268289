//! Addresses to connect to, as people write them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use hyper::Uri;

use crate::listen::unix_path;

/// Where to connect: `ws://HOST[:PORT][/PATH]`, `wss://…`, `unix:///PATH` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectUrl(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: String,
    target: Target,
    /// What is asked for, path and query.
    path: String,
    /// What the `Host` header says.
    authority: String,
}

impl ConnectUrl {
    /// Whether connections leave this machine, as far as the address tells.
    #[must_use]
    pub fn leaves_this_machine(&self) -> bool {
        match &self.0.target {
            Target::Unix(_) => false,
            Target::Host { host, .. } => {
                let address = host.parse::<IpAddr>();
                !host.eq_ignore_ascii_case("localhost")
                    && address.map_or(true, |address| !address.is_loopback())
            }
        }
    }

    pub(super) fn target(&self) -> &Target {
        &self.0.target
    }

    pub(super) fn path(&self) -> &str {
        &self.0.path
    }

    pub(super) fn authority(&self) -> &str {
        &self.0.authority
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Unix(PathBuf),
    Host { host: String, port: u16, is_tls: bool },
}

/// The text is no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported URL `{text}`; expected `ws://HOST:PORT`, `wss://HOST:PORT` or `unix:///PATH`")]
pub struct ConnectUrlError {
    /// What was given.
    pub text: String,
}

impl FromStr for ConnectUrl {
    type Err = ConnectUrlError;

    fn from_str(text: &str) -> Result<Self, ConnectUrlError> {
        parse(text)
            .map(|parts| Self(Arc::new(parts)))
            .ok_or_else(|| ConnectUrlError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Parts> {
    if let Some(path) = text.strip_prefix("unix:") {
        let target = Target::Unix(unix_path(path)?);
        return Some(Parts {
            text: text.to_owned(),
            target,
            path: "/".to_owned(),
            authority: "localhost".to_owned(),
        });
    }
    let uri: Uri = text.parse().ok()?;
    let (is_tls, default) = match uri.scheme_str()? {
        "ws" => (false, 80),
        "wss" => (true, 443),
        _ => return None,
    };
    let authority = uri.authority()?;
    // Credentials belong into a header: a URL is printed and logged.
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = match authority.as_str().rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => port.parse().ok()?,
        _ => default,
    };
    let target = Target::Host { host: host.to_owned(), port, is_tls };
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let is_named = !host.is_empty();
    is_named.then(|| Parts { text: text.to_owned(), target, path, authority: authority.to_string() })
}

impl fmt::Display for ConnectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<(String, u16, bool, String)> {
        let url: ConnectUrl = text.parse().ok()?;
        let asked = url.path().to_owned();
        match url.target() {
            Target::Unix(path) => Some((path.display().to_string(), 0, false, asked)),
            Target::Host { host, port, is_tls } => Some((host.clone(), *port, *is_tls, asked)),
        }
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let at =
            |host: &str, port, is_tls, path: &str| Some((host.to_owned(), port, is_tls, path.to_owned()));
        let table = [
            ("ws://127.0.0.1:4000", at("127.0.0.1", 4000, false, "/")),
            ("ws://[::1]:4000/", at("::1", 4000, false, "/")),
            ("ws://[::1]", at("::1", 80, false, "/")),
            ("wss://host.example", at("host.example", 443, true, "/")),
            ("wss://host.example:1/a?b=c", at("host.example", 1, true, "/a?b=c")),
            ("unix:///run/x.sock", at("/run/x.sock", 0, false, "/")),
            ("unix:x.sock", at("x.sock", 0, false, "/")),
            ("unix://host/x.sock", None),
            ("ws://user:secret@host:1", None),
            ("ws://host:70000", None),
            ("ws://host:", None),
            ("ws://:1", None),
            ("http://host", None),
            ("host:1", None),
            ("none", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(target(text), expected, "{text}");
        }
    }

    #[test]
    fn fuzz_an_address_to_connect_to_names_a_host_and_no_credentials() {
        use sandbar_testkit::{Samples, Took, fuzz};

        let whole: &[&[u8]] = &[
            b"ws://127.0.0.1:4000",
            b"ws://[::1]:4000/",
            b"wss://host.example:1/a?b=c",
            b"unix:///run/x.sock",
        ];
        let words: &[&[u8]] =
            &[b"ws://", b"wss://", b"unix:", b"user:pw@", b"[::1]", b":80", b"/a", b"?b", b"#c", b"\r\n"];
        fuzz("addresses to connect to", Samples { whole, words }, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return Took::Refused };
            let Ok(url) = text.parse::<ConnectUrl>() else { return Took::Refused };
            assert_eq!(url.to_string(), text);
            // Both go into the head of a request as they are.
            for written in [url.path(), url.authority()] {
                assert!(
                    !written.contains(|letter: char| letter.is_ascii_control() || letter == ' '),
                    "{written:?}"
                );
            }
            assert!(!url.authority().contains('@'));
            match url.target() {
                Target::Unix(path) => assert!(!path.as_os_str().is_empty()),
                Target::Host { host, .. } => assert!(!host.is_empty()),
            }
            Took::Understood
        });
    }
}
