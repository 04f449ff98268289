//! JSON Web Tokens (RFC 7519) signed with HS256 (RFC 7518, 3.2).
//!
//! The algorithm is ours, not the token's: a header that names another one is refused, so neither `none` nor a public
//! key as a secret gets in. Nothing of a token is believed before its signature is right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AuthError, Principal, SignedBearer, token};

/// A key as long as the hash (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;

/// What a token is verified with.
pub(crate) struct Key {
    key: hmac::Key,
    issuer: Option<String>,
    audience: Option<String>,
    skew: Duration,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11); we understand none.
    #[serde(default)]
    crit: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970; may have a fraction (RFC 7519, 2: NumericDate).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    sub: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Key {
    pub(super) fn read(settings: &SignedBearer) -> Result<Self, AuthError> {
        let SignedBearer { secret_file, issuer, audience, max_clock_skew } = settings;
        let secret = token::read_secret(secret_file, LEAST_SECRET)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            issuer: issuer.clone(),
            audience: audience.clone(),
            skew: *max_clock_skew,
        })
    }

    /// Whom the token names, or `None` if it is not to be believed.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Option<Principal> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        hmac::verify(&self.key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let header: Header = json(header)?;
        if header.alg != "HS256" || header.crit.is_some() {
            return None;
        }
        let claims: Claims = json(payload)?;
        self.accepts(&claims, now).then(|| name(&claims))
    }

    fn accepts(&self, claims: &Claims, now: SystemTime) -> bool {
        // A clock before 1970 believes nobody.
        let Ok(now) = now.duration_since(UNIX_EPOCH) else { return false };
        let (now, skew) = (now.as_secs_f64(), self.skew.as_secs_f64());
        let is_expired = now >= claims.exp + skew;
        let is_early = claims.nbf.is_some_and(|begin| now + skew < begin);
        let issuer = self.issuer.as_ref().is_none_or(|issuer| claims.iss.as_ref() == Some(issuer));
        let audience = self.audience.as_ref().is_none_or(|audience| match &claims.aud {
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Several(several)) => several.contains(audience),
            None => false,
        });
        !is_expired && !is_early && issuer && audience
    }
}

/// Tokens of one issuer for one subject name the same principal, so that a session outlives the token that began it. As
/// JSON, so that no two pairs have one name.
fn name(claims: &Claims) -> Principal {
    Principal::new(format!("bearer:{}", serde_json::json!([claims.iss, claims.sub])))
}

/// The JSON in a part of a token. All of it has to be text: what is read over is not checked by the decoder.
fn json<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    serde_json::from_str(&text).ok()
}
