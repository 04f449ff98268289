use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::HeaderValue;
use ring::hmac;
use sandbar_testkit::{Samples, Took, fuzz};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a shared secret of at least 32 bytes";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn with_authorization(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
}

fn file(folder: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_token_is_taken_from_the_header_and_named_when_it_is_wrong() {
    let verifier = Verifier::new(&Auth::CapabilityToken(TokenSource::Sha256(sha256(b"the token")))).unwrap();
    let table: &[(&[&str], Result<(), Denied>)] = &[
        (&["Bearer the token"], Ok(())),
        (&["bearer the token"], Ok(())),
        (&["Bearer  the token "], Ok(())),
        (&[], Err(Denied::Missing)),
        (&["Bearer the tokem"], Err(Denied::Invalid)),
        (&["Bearer the token2"], Err(Denied::Invalid)),
        (&["Bearer the"], Err(Denied::Invalid)),
        (&["Bearer "], Err(Denied::Header)),
        (&["Bearer"], Err(Denied::Header)),
        (&["Basic the token"], Err(Denied::Header)),
        (&["the token"], Err(Denied::Header)),
        (&[""], Err(Denied::Header)),
        (&["Bearer t\u{e4}st"], Err(Denied::Header)),
        (&["Bearer the token", "Bearer the token"], Err(Denied::Header)),
    ];
    for (values, expected) in table {
        let found = verifier.verify(&with_authorization(values), now()).map(drop);
        assert_eq!(&found, expected, "{values:?}");
    }
}

#[test]
fn the_words_of_a_refusal_are_those_of_the_dialect() {
    let words = [Denied::Missing, Denied::Invalid, Denied::Header].map(|denied| denied.to_string());
    let expected =
        ["missing websocket bearer token", "invalid websocket bearer token", "invalid authorization header"];
    assert_eq!(words, expected);
}

#[test]
fn a_hash_has_sixty_four_digits() {
    let hex = "9F86D081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_eq!(TokenSource::from_sha256_hex(hex).unwrap(), TokenSource::Sha256(sha256(b"test")));
    for wrong in ["", "9f", &hex[1..], &format!("{hex}0"), &hex.replace('9', "g"), &hex.replace("9F", "+9")] {
        assert!(TokenSource::from_sha256_hex(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_token_file_is_made_once_for_its_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("token");
    let auth = || Auth::CapabilityToken(TokenSource::File(path.clone()));
    let verifier = Verifier::new(&auth()).unwrap();
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(URL_SAFE_NO_PAD.decode(token.trim_end()).unwrap().len(), 32, "256 bits");
    let bearer = with_authorization(&[&format!("Bearer {}", token.trim_end())]);
    let principal = verifier.verify(&bearer, now()).unwrap();
    let again = Verifier::new(&auth()).unwrap().verify(&bearer, now()).unwrap();
    assert_eq!(principal, again, "the same token is the same principal, also after a restart");
    assert!(!principal.as_str().contains(token.trim_end()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
    let left: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["token"]);

    let other = Verifier::new(&Auth::CapabilityToken(TokenSource::File(home.path().join("other")))).unwrap();
    assert_eq!(other.verify(&bearer, now()), Err(Denied::Invalid));
}

#[test]
fn a_secret_that_others_could_read_or_that_is_none_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| {
        Verifier::new(&Auth::CapabilityToken(TokenSource::File(path))).err().map(|error| error.to_string())
    };
    let folder = home.path();
    for mode in [0o640, 0o604, 0o620, 0o644, 0o610] {
        let error = refused(file(folder, "exposed", b"token", mode)).unwrap();
        assert!(error.contains("can be read by others"), "{mode:o}: {error}");
        std::fs::remove_file(folder.join("exposed")).unwrap();
    }
    assert_eq!(refused(file(folder, "good", b"token\n", 0o400)), None);
    assert!(refused(file(folder, "empty", b" \n", 0o600)).unwrap().contains("at least 1"));
    assert!(refused(folder.to_owned()).unwrap().contains("is no file"));
    assert!(refused(file(folder, "large", &[b'x'; 70_000], 0o600)).unwrap().contains("is no file"));
    let pipe = folder.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refused(pipe).unwrap().contains("is no file"), "and nobody waits for its writer");
    assert!(refused(folder.join("no/such/folder")).unwrap().contains("No such file"));
}

fn key(folder: &Path, issuer: Option<&str>, audience: Option<&str>, skew: u64) -> Verifier {
    let settings = SignedBearer {
        secret_file: file(folder, "secret", SECRET, 0o600),
        issuer: issuer.map(str::to_owned),
        audience: audience.map(str::to_owned),
        max_clock_skew: Duration::from_secs(skew),
    };
    Verifier::new(&Auth::SignedBearer(settings)).unwrap()
}

fn signed(secret: &[u8], header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn verified(verifier: &Verifier, token: &str) -> Option<Principal> {
    verifier.verify(&with_authorization(&[&format!("Bearer {token}")]), now()).ok()
}

#[test]
fn a_signed_token_counts_within_its_time_for_its_issuer_and_audience() {
    let home = tempfile::tempdir().unwrap();
    let verifier = key(home.path(), Some("us"), Some("exec"), 60);
    let good = json!({"exp": NOW + 1, "iss": "us", "aud": "exec"});
    let with = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let table = [
        (good.clone(), true),
        (with(json!({"exp": NOW - 59})), true),
        (with(json!({"exp": NOW - 60})), false),
        (with(json!({"exp": NOW as f64 + 0.5})), true),
        (with(json!({"exp": null})), false),
        (with(json!({"exp": "9999999999"})), false),
        (with(json!({"exp": -1})), false),
        (with(json!({"nbf": NOW + 60})), true),
        (with(json!({"nbf": NOW + 61})), false),
        (with(json!({"iss": "them"})), false),
        (with(json!({"iss": null})), false),
        (with(json!({"iss": ["us"]})), false),
        (with(json!({"aud": ["other", "exec"]})), true),
        (with(json!({"aud": ["other"]})), false),
        (with(json!({"aud": []})), false),
        (with(json!({"aud": null})), false),
        (with(json!({"more": {"a": 1}})), true),
        (json!({"iss": "us", "aud": "exec"}), false),
        (json!([]), false),
    ];
    for (claims, expected) in table {
        let token = signed(SECRET, &json!({"alg": "HS256"}), &claims);
        assert_eq!(verified(&verifier, &token).is_some(), expected, "{claims}");
    }
    let any = key(home.path(), None, None, 0);
    let token = signed(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), &json!({"exp": NOW + 1}));
    assert!(verified(&any, &token).is_some(), "what isn't configured isn't asked for");
    let token = signed(SECRET, &json!({"alg": "HS256"}), &json!({"exp": NOW}));
    assert!(verified(&any, &token).is_none(), "the current time must be before it (RFC 7519, 4.1.4)");
}

#[test]
fn a_token_that_is_not_signed_by_our_algorithm_and_secret_is_nothing() {
    let home = tempfile::tempdir().unwrap();
    let verifier = key(home.path(), None, None, 0);
    let claims = json!({"exp": NOW + 1000});
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS512"}),
        json!({"alg": "hs256"}),
        json!({"alg": "RS256"}),
        json!({"typ": "JWT"}),
        json!({"alg": ["HS256"]}),
        json!({"alg": "HS256", "crit": ["x"]}),
    ] {
        assert_eq!(verified(&verifier, &signed(SECRET, &header, &claims)), None, "{header}");
    }
    let good = signed(SECRET, &json!({"alg": "HS256"}), &claims);
    assert!(verified(&verifier, &good).is_some());
    let (text, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = text.split_once('.').unwrap();
    let forged = URL_SAFE_NO_PAD.encode(json!({"exp": NOW + 9999}).to_string());
    for wrong in [
        format!("{header}.{forged}.{signature}"),
        format!("{text}."),
        format!("{text}.{}", &signature[1..]),
        format!("{good}="),
        format!("{good}.x"),
        text.to_owned(),
        "..".to_owned(),
        "x".to_owned(),
        signed(b"another secret of at least 32 bytes!", &json!({"alg": "HS256"}), &claims),
    ] {
        assert_eq!(verified(&verifier, &wrong), None, "{wrong}");
    }
}

#[test]
fn principals_of_signed_tokens_are_their_issuer_and_subject() {
    let home = tempfile::tempdir().unwrap();
    let verifier = key(home.path(), None, None, 0);
    let principal = |iss: Value, sub: Value, exp: u64| {
        let claims = json!({"exp": exp, "iss": iss, "sub": sub});
        verified(&verifier, &signed(SECRET, &json!({"alg": "HS256"}), &claims)).unwrap()
    };
    let one = principal(json!("a"), json!("b"), NOW + 1);
    assert_eq!(one, principal(json!("a"), json!("b"), NOW + 2), "a renewed token");
    for other in [
        principal(json!("a"), json!("c"), NOW + 1),
        principal(json!("b"), json!("b"), NOW + 1),
        principal(json!("a"), Value::Null, NOW + 1),
        principal(json!(r#"a","b"#), Value::Null, NOW + 1),
    ] {
        assert_ne!(one, other);
    }
}

#[test]
fn a_shared_secret_is_as_long_as_the_hash() {
    let home = tempfile::tempdir().unwrap();
    let settings = SignedBearer {
        secret_file: file(home.path(), "short", &[b's'; 31], 0o600),
        issuer: None,
        audience: None,
        max_clock_skew: Duration::ZERO,
    };
    let error = Verifier::new(&Auth::SignedBearer(settings)).err().unwrap();
    assert!(matches!(error, AuthError::TooShort { length: 31, least: 32, .. }), "{error}");
}

#[test]
fn fuzz_a_signed_token_is_believed_only_as_far_as_its_claims_go() {
    const SKEW: u64 = 30;
    let home = tempfile::tempdir().unwrap();
    let verifier = key(home.path(), Some("me"), None, SKEW);
    // Header and claims, between which the target puts what belongs there.
    let claims = |rest: &str| format!("{{\"alg\":\"HS256\"}}\n{{\"exp\":{},\"iss\":\"me\"{rest}}}", NOW + 60);
    let [plain, several, early] =
        [r#","sub":"u""#, r#","aud":["a","b"]"#, r#","nbf":1.8e9"#].map(|rest| claims(rest).into_bytes());
    let words: &[&[u8]] = &[
        br#""alg":"none""#,
        br#","crit":["b64"]"#,
        br#""iss":"you""#,
        br#""nbf":1800000031"#,
        b"1800000000",
        b"1e999",
        b",\"other\":\"\xe5\"",
        b"-1",
        b"null",
        b"\n",
    ];
    fuzz("signed tokens", Samples { whole: &[&plain, &several, &early], words }, |input| {
        let Some(at) = input.iter().position(|&byte| byte == b'\n') else { return Took::Refused };
        let (header, claims) = (&input[..at], &input[at + 1..]);
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signed_with = |secret: &[u8]| {
            let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        assert_eq!(verified(&verifier, &signed_with(b"another secret of at least 32 bytes")), None);
        if verified(&verifier, &signed_with(SECRET)).is_none() {
            return Took::Refused;
        }
        let [header, claims] = [header, claims].map(|part| serde_json::from_slice::<Value>(part).unwrap());
        assert_eq!((&header["alg"], header["crit"].is_null()), (&json!("HS256"), true));
        assert_eq!(claims["iss"], "me");
        #[expect(clippy::cast_precision_loss, reason = "seconds, far below 2^52")]
        let (now, skew) = (NOW as f64, SKEW as f64);
        assert!(claims["exp"].as_f64().unwrap() + skew > now);
        assert!(claims["nbf"].as_f64().is_none_or(|begin| begin <= now + skew));
        Took::Understood
    });
}
