//! Who may connect, and as whom: peer credentials, capability tokens, signed bearer tokens.
//!
//! Nobody is let in whom nothing names: each way ends in a [`Principal`] or in a refusal. Secrets are compared without
//! telling by the time it takes how much of them was right. A token is taken from the `Authorization` header and
//! nowhere else, least of all from the URL.

mod bearer;
mod token;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// Who is at the other end: two that are equal are the same to us. What is bound to one, such as a session, is for
/// nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal(String);

impl Principal {
    /// A principal by a name that nobody else can get. The name is no secret.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name, to be kept beside what is bound to it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says who is at the other end of an accepted socket, or why it is refused. Must not block: nobody else is accepted
/// meanwhile.
pub type PeerCheck = Box<dyn FnMut(BorrowedFd<'_>) -> Result<Principal, String> + Send>;

/// How a listener knows who connects.
pub enum Auth {
    /// Whoever can connect may; for unix sockets, whose mode guards them, and for loopback.
    None,
    /// What the kernel says about the peer of a unix socket.
    PeerCredentials(PeerCheck),
    /// Whoever has the token.
    CapabilityToken(TokenSource),
    /// Whoever has a JWT that a holder of the shared secret signed.
    SignedBearer(SignedBearer),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::PeerCredentials(_) => "PeerCredentials",
            Self::CapabilityToken(_) => "CapabilityToken",
            Self::SignedBearer(_) => "SignedBearer",
        })
    }
}

/// Where a capability token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// Only its SHA-256 is known here.
    Sha256([u8; 32]),
    /// A file that only its owner can read; made with 256 random bits when it isn't there. White space at its end
    /// doesn't count.
    File(PathBuf),
}

impl TokenSource {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// The text is something else.
    pub fn from_sha256_hex(text: &str) -> Result<Self, AuthError> {
        token::parse_hex(text).map(Self::Sha256).ok_or(AuthError::Sha256)
    }
}

/// A JSON Web Token (RFC 7519), signed with HS256 and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBearer {
    /// File with the shared secret, at least 32 bytes, that only its owner can read. White space at its end doesn't
    /// count.
    pub secret_file: PathBuf,
    /// The only issuer, `iss`, if one is named.
    pub issuer: Option<String>,
    /// What must be among the audiences, `aud`, if one is named.
    pub audience: Option<String>,
    /// How far the clocks may differ.
    pub max_clock_skew: Duration,
}

/// Why authentication can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The text is no SHA-256.
    #[error("a SHA-256 has 64 hexadecimal digits")]
    Sha256,
    /// The file can't be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others could read the secret.
    #[error("{} can be read by others: its mode is {mode:03o}, at most 600 is safe", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change the secret.
    #[error("{} belongs to user {owner}, not to this one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file is no regular file, or larger than any secret.
    #[error("{} is no file of at most {most} bytes", path.display())]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// Most bytes.
        most: u64,
    },
    /// The secret is shorter than the strength of the signature.
    #[error("{} has {length} bytes, a secret has at least {least}", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        length: usize,
        /// Least bytes.
        least: usize,
    },
}

/// Why a request was not let in; the words are those of Codex 0.169.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("missing websocket bearer token")]
    Missing,
    #[error("invalid websocket bearer token")]
    Invalid,
    #[error("invalid authorization header")]
    Header,
}

/// Looks at the headers of a request.
pub(crate) enum Verifier {
    /// Lets everybody in as the same principal.
    Open,
    Token([u8; 32]),
    Bearer(Box<bearer::Key>),
}

impl Verifier {
    /// Reads what `auth` needs; what the kernel says about a peer is asked for elsewhere.
    pub(crate) fn new(auth: &Auth) -> Result<Self, AuthError> {
        Ok(match auth {
            Auth::None | Auth::PeerCredentials(_) => Self::Open,
            Auth::CapabilityToken(TokenSource::Sha256(hash)) => Self::Token(*hash),
            Auth::CapabilityToken(TokenSource::File(path)) => {
                Self::Token(sha256(&token::read_or_make(path)?))
            }
            Auth::SignedBearer(settings) => Self::Bearer(Box::new(bearer::Key::read(settings)?)),
        })
    }

    pub(crate) fn verify(&self, headers: &HeaderMap, now: SystemTime) -> Result<Principal, Denied> {
        match self {
            Self::Open => Ok(Principal::new("anyone")),
            Self::Token(expected) => {
                let given = sha256(bearer_token(headers)?.as_bytes());
                if !bool::from(given.ct_eq(expected)) {
                    return Err(Denied::Invalid);
                }
                // Of the hash, so that the principal's name tells nothing about a token that could be guessed.
                Ok(Principal::new(format!("token:{}", token::hex(&sha256(expected)[..16]))))
            }
            Self::Bearer(key) => key.verify(bearer_token(headers)?, now).ok_or(Denied::Invalid),
        }
    }
}

/// What stands behind `Bearer` (RFC 6750, 2.1).
fn bearer_token(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denied::Missing)?;
    if values.next().is_some() {
        return Err(Denied::Header);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Denied::Header)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Denied::Header);
    }
    Ok(token)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests;
