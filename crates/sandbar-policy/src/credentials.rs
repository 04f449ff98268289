//! What looks like a credential: the name of a variable, a value.
//!
//! Guesses, made so that ordinary development goes on: `GIT_AUTHOR_NAME`, `SSH_AUTH_SOCK`, `OLDPWD`, `COMPASS` and
//! `GOPRIVATE` are no credentials, so short words count as whole words only, and where the value tells that it is
//! none (`ALWAYS_AUTH=true`, `BUILD_PWD=/src/x`) it is believed. Works on bytes and allocates nothing, since every
//! variable of every run comes through here. The peers' three globs are not here: `env_policy` has them.

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) mod settings;

/// What a value is that looks like a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A URL whose authority has a password.
    UrlWithPassword,
    /// A URL that is itself the key: a chat's webhook, a signed link.
    SecretUrl,
    /// Something with the prefix of a well-known issuer, or a JSON web token.
    Token,
    /// A private key in PEM.
    PrivateKey,
    /// An `Authorization` header.
    Authorization,
    /// A password among other settings, as in a connection string.
    Password,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UrlWithPassword => "a URL with a password",
            Self::SecretUrl => "a URL that is secret itself",
            Self::Token => "a token",
            Self::PrivateKey => "a private key",
            Self::Authorization => "an authorization header",
            Self::Password => "settings with a password",
        })
    }
}

/// Where a word has to stand in a name. Words are what other bytes than letters and digits part; a number at the
/// end does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Also within a word.
    Anywhere,
    /// As a word.
    Word,
    /// As the last word.
    End,
    /// The name begins with it.
    Start,
    /// It is the name.
    Whole,
}

/// A word of names.
struct Word {
    /// In upper case; names match in either case.
    text: &'static str,
    at: At,
    letters: Letters,
}

const fn word(text: &'static str, at: At) -> Word {
    Word { text, at, letters: Letters::of(text.as_bytes()) }
}

/// Which letters occur in a text, in either case. Nearly every name lacks one that a word needs, which costs less
/// to see than a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Letters(u32);

impl Letters {
    const fn of(text: &[u8]) -> Self {
        let (mut letters, mut index) = (0, 0);
        while index < text.len() {
            let letter = text[index].to_ascii_lowercase();
            if letter.is_ascii_lowercase() {
                letters |= 1 << (letter - b'a');
            }
            index += 1;
        }
        Self(letters)
    }

    fn hold(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

const NAMES: [Word; 41] = [
    word("PASSWORD", At::Anywhere),
    word("PASSWD", At::Anywhere),
    word("PASSPHRASE", At::Anywhere),
    word("CREDENTIAL", At::Anywhere),
    word("CONNECTION_STRING", At::Anywhere),
    word("CONNECTIONSTRING", At::Anywhere),
    word("BEARER", At::Anywhere),
    word("PRIVATE", At::Word),
    word("COOKIE", At::Word),
    word("COOKIES", At::Word),
    word("JWT", At::Word),
    word("CRED", At::Word),
    word("CREDS", At::Word),
    word("AUTHORIZATION", At::Word),
    word("AUTH", At::End),
    word("OAUTH", At::End),
    word("AUTH_CONFIG", At::End),
    word("PW", At::End),
    // Personal access tokens.
    word("PAT", At::End),
    word("PASS", At::End),
    word("PASSCODE", At::End),
    // Written together they are words of their own; `*PASS` would take COMPASS and BYPASS.
    word("SSHPASS", At::End),
    word("DBPASS", At::End),
    word("PGPASS", At::End),
    word("MYSQLPASS", At::End),
    word("REDISPASS", At::End),
    word("MAILPASS", At::End),
    word("SMTPPASS", At::End),
    word("FTPPASS", At::End),
    word("LDAPPASS", At::End),
    word("HTTPPASS", At::End),
    word("PROXYPASS", At::End),
    word("USERPASS", At::End),
    word("ROOTPASS", At::End),
    word("ADMINPASS", At::End),
    // Git's configuration by variables: any value may be a header or a URL with a password. Without their number
    // git takes the rest for none, and does not stop at a missing one.
    word("GIT_CONFIG_VALUE_", At::Start),
    word("GIT_CONFIG_COUNT", At::Whole),
    // Sessions of password managers.
    word("BW_SESSION", At::Whole),
    word("OP_SESSION_", At::Start),
    // The packed environment of before and after a directory's own variables.
    word("DIRENV_DIFF", At::Whole),
    word("__MISE_DIFF", At::Whole),
];

/// Returns the word by which the variable `name` looks like a credential.
pub(crate) fn word_in_name(name: &[u8], value: &[u8]) -> Option<&'static str> {
    let (letters, numberless) = (Letters::of(name), without_number(name));
    let plain = NAMES.iter().find(|word| letters.hold(word.letters) && word.stands_in(name, numberless));
    match plain {
        // These hold more than a word.
        Some(Word { text, at: At::Start | At::Whole, .. }) => Some(text),
        Some(Word { text, at: At::Anywhere | At::Word | At::End, .. }) => {
            (!says_nothing(value)).then_some(text)
        }
        None => word_by_value(numberless, letters, value).filter(|_| !says_nothing(value)),
    }
}

impl Word {
    fn stands_in(&self, name: &[u8], numberless: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match self.at {
            At::Anywhere => find(name, text).is_some(),
            At::Word => words(numberless).any(|part| part.eq_ignore_ascii_case(text)),
            At::End => ends_with_word(numberless, text),
            At::Start => starts_with(name, text),
            At::Whole => name.eq_ignore_ascii_case(text),
        }
    }
}

/// Words that need a look at the value.
fn word_by_value(name: &[u8], letters: Letters, value: &[u8]) -> Option<&'static str> {
    // PWD itself and OLDPWD are directories, and so is whatever else a build notes under such a name.
    let is_path = value.first() == Some(&b'/') && value.get(1..).is_some_and(|rest| rest.contains(&b'/'));
    if name.len() > 3 && ends_with_word(name, b"PWD") && !is_path {
        return Some("PWD");
    }
    // `ENABLE_WEBHOOKS=false` and `WEBHOOK_PORT=9443` are settings.
    const WEBHOOK: Letters = Letters::of(b"WEBHOOK");
    if letters.hold(WEBHOOK) && find(name, b"WEBHOOK").is_some() && find(value, b"://").is_some() {
        return Some("WEBHOOK");
    }
    // `host=/run/postgresql dbname=test` opens nothing.
    let holds_access =
        || value.contains(&b'@') || find(value, b"pass").is_some() || find(value, b"pwd").is_some();
    (ends_with_word(name, b"DSN") && holds_access()).then_some("DSN")
}

fn without_number(name: &[u8]) -> &[u8] {
    let end =
        name.iter().rposition(|byte| !byte.is_ascii_digit() && *byte != b'_').map_or(0, |last| last + 1);
    &name[..end]
}

fn words(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| !byte.is_ascii_alphanumeric())
}

fn ends_with_word(name: &[u8], word: &[u8]) -> bool {
    let Some(cut) = name.len().checked_sub(word.len()) else { return false };
    name[cut..].eq_ignore_ascii_case(word) && (cut == 0 || !name[cut - 1].is_ascii_alphanumeric())
}

/// Whether a value is empty or a switch, which no credential is.
fn says_nothing(value: &[u8]) -> bool {
    const SWITCHES: [&str; 11] = ["", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null"];
    value.len() <= 5 && SWITCHES.iter().any(|switch| value.eq_ignore_ascii_case(switch.as_bytes()))
}

/// Returns what the value of the variable `name` is when it looks like a credential by itself.
pub(crate) fn shape_of_value(name: &[u8], value: &[u8]) -> Option<Shape> {
    if let Some(shape) = shape(value) {
        return Some(shape);
    }
    if is_authorization(value) {
        return Some(Shape::Authorization);
    }
    // A proxy or a data source may be written without a scheme.
    let is_place = [&b"PROXY"[..], b"URL", b"URI", b"DSN"].into_iter().any(|word| ends_with_word(name, word));
    (is_place && has_password(value)).then_some(Shape::UrlWithPassword)
}

/// Returns what `text` is when it looks like a credential, or holds one.
pub(crate) fn shape(text: &[u8]) -> Option<Shape> {
    let mut start = 0;
    for (index, &byte) in text.iter().enumerate() {
        if !parts(byte) {
            continue;
        }
        let found = shape_of_segment(&text[start..index], &text[start..])
            .or_else(|| shape_at(byte, &text[..index], &text[index + 1..]));
        if found.is_some() {
            return found;
        }
        start = index + 1;
    }
    shape_of_segment(&text[start..], &text[start..])
}

/// Bytes that end a token. A slash does not: what follows one is a part of a path.
fn parts(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'"' | b'\''
                | b'`'
                | b'='
                | b':'
                | b','
                | b';'
                | b'@'
                | b'('
                | b')'
                | b'['
                | b']'
                | b'{'
                | b'}'
                | b'<'
                | b'>'
                | b'|'
                | b'&'
                | b'?'
                | b'\\'
        )
}

/// How a token goes on behind its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// By at least as many letters, digits, `-`, `_` and `.`.
    Long(usize),
    /// By these, with a run of at least sixteen letters and digits: the prefix alone may begin ordinary words.
    Random,
}

/// Prefixes that issuers gave their tokens so that they can be found.
const TOKENS: [(&str, Tail); 58] = [
    ("ghp_", Tail::Long(16)),
    ("gho_", Tail::Long(16)),
    ("ghu_", Tail::Long(16)),
    ("ghs_", Tail::Long(16)),
    ("ghr_", Tail::Long(16)),
    ("github_pat_", Tail::Long(16)),
    ("glpat-", Tail::Long(16)),
    ("gldt-", Tail::Long(16)),
    ("glrt-", Tail::Long(16)),
    ("glptt-", Tail::Long(16)),
    ("glcbt-", Tail::Long(16)),
    ("sk-", Tail::Random),
    ("sk_live_", Tail::Long(10)),
    ("sk_test_", Tail::Long(10)),
    ("rk_live_", Tail::Long(10)),
    ("rk_test_", Tail::Long(10)),
    ("whsec_", Tail::Random),
    ("xoxa-", Tail::Long(10)),
    ("xoxb-", Tail::Long(10)),
    ("xoxc-", Tail::Long(10)),
    ("xoxd-", Tail::Long(10)),
    ("xoxe-", Tail::Long(10)),
    ("xoxe.", Tail::Long(10)),
    ("xoxp-", Tail::Long(10)),
    ("xoxr-", Tail::Long(10)),
    ("xoxs-", Tail::Long(10)),
    ("xapp-", Tail::Long(16)),
    ("npm_", Tail::Random),
    ("pypi-AgE", Tail::Long(16)),
    ("rubygems_", Tail::Random),
    ("dckr_pat_", Tail::Long(10)),
    ("dop_v1_", Tail::Random),
    ("doo_v1_", Tail::Random),
    ("hf_", Tail::Random),
    ("hvs.", Tail::Random),
    ("hvb.", Tail::Random),
    ("AIza", Tail::Long(35)),
    ("ya29.", Tail::Random),
    ("GOCSPX-", Tail::Long(16)),
    ("SG.", Tail::Random),
    ("shpat_", Tail::Random),
    ("shpss_", Tail::Random),
    ("glsa_", Tail::Random),
    ("sntrys_", Tail::Long(16)),
    ("sntryu_", Tail::Long(16)),
    ("lin_api_", Tail::Random),
    ("tskey-", Tail::Long(16)),
    ("gsk_", Tail::Random),
    ("pul-", Tail::Random),
    ("sbp_", Tail::Random),
    ("ATATT3", Tail::Long(30)),
    ("AGE-SECRET-KEY-1", Tail::Long(16)),
    ("ops_eyJ", Tail::Long(30)),
    // A private key in PEM, in base64 once more: `-----BEGIN ` with RSA, EC, PRIVATE and OPENSSH.
    ("LS0tLS1CRUdJTiBSU0Eg", Tail::Long(16)),
    ("LS0tLS1CRUdJTiBFQyBQ", Tail::Long(16)),
    ("LS0tLS1CRUdJTiBQUklW", Tail::Long(16)),
    ("LS0tLS1CRUdJTiBPUEVO", Tail::Long(16)),
    ("fm2_", Tail::Random),
];

/// The shortest text that can be a token: `xoxb-` and ten more.
const SHORTEST_TOKEN: usize = 15;

const PEM: &[u8] = b"-----BEGIN";

fn shape_of_segment(segment: &[u8], rest: &[u8]) -> Option<Shape> {
    if segment == PEM {
        // The label is short; a certificate's says CERTIFICATE.
        let label = &rest[..rest.len().min(64)];
        return find(label, b"PRIVATE KEY").map(|_| Shape::PrivateKey);
    }
    // Paths and numbers are most of what is long.
    if segment.len() < SHORTEST_TOKEN || !segment[0].is_ascii_alphabetic() {
        return None;
    }
    let is_token = TOKENS.iter().any(|(prefix, tail)| {
        segment.strip_prefix(prefix.as_bytes()).is_some_and(|behind| tail.fits(behind))
    });
    (is_token || is_access_key(segment) || is_web_token(segment)).then_some(Shape::Token)
}

impl Tail {
    fn fits(self, behind: &[u8]) -> bool {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let length = behind.iter().position(|byte| !is_part(byte)).unwrap_or(behind.len());
        match self {
            Self::Long(least) => length >= least,
            Self::Random => words(&behind[..length]).any(|run| run.len() >= 16),
        }
    }
}

/// `AKIA` or `ASIA` and sixteen capitals and digits: the id of an AWS access key.
fn is_access_key(segment: &[u8]) -> bool {
    let behind = segment.strip_prefix(b"AKIA").or_else(|| segment.strip_prefix(b"ASIA"));
    let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    behind.is_some_and(|behind| behind.len() == 16 && behind.iter().all(is_part))
}

/// `eyJ….….…`, JSON in base64 with a signature (RFC 7519).
fn is_web_token(segment: &[u8]) -> bool {
    let mut dotted = segment.split(|&byte| byte == b'.');
    let (Some(head), Some(claims), Some(_)) = (dotted.next(), dotted.next(), dotted.next()) else {
        return false;
    };
    head.starts_with(b"eyJ") && head.len() >= 10 && claims.len() >= 8
}

/// Hosts whose URLs let everybody in who knows them.
const SECRET_URLS: [&str; 4] = [
    "hooks.slack.com/services/",
    "discord.com/api/webhooks/",
    "discordapp.com/api/webhooks/",
    "hooks.zapier.com/hooks/",
];

/// What stands around a byte that parts: a URL behind `:`, an assignment behind `=`.
fn shape_at(byte: u8, before: &[u8], after: &[u8]) -> Option<Shape> {
    match byte {
        b':' => match after.strip_prefix(b"//") {
            Some(authority) => shape_of_url(before, authority),
            None if is_bot_token(before, after) => Some(Shape::Token),
            None => assigned(before, after, Assigns::Header),
        },
        b'=' => assigned(before, after, Assigns::Setting),
        _ => None,
    }
}

/// `123456789:AA…`, a bot of Telegram: its number, and 35 letters of which the first are the same for all.
fn is_bot_token(before: &[u8], after: &[u8]) -> bool {
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let length = after.iter().position(|byte| !is_part(byte)).unwrap_or(after.len());
    (8..=12).contains(&digits) && after.starts_with(b"AA") && length == 35
}

/// `Basic dXNlcjpwYXNz` or `Bearer …` alone: what stands behind `Authorization:`, RFC 7617 and RFC 6750.
fn is_authorization(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let Some(space) = value.iter().position(|&byte| byte == b' ') else { return false };
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii_start());
    let is_scheme = scheme.eq_ignore_ascii_case(b"basic") || scheme.eq_ignore_ascii_case(b"bearer");
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-._~".contains(byte);
    // Others are words: `Basic usage`, `Basic Authentication`.
    let is_mixed = rest.iter().skip(1).any(|byte| !byte.is_ascii_lowercase());
    is_scheme && rest.len() >= 8 && rest.iter().all(is_part) && is_mixed
}

fn shape_of_url(before: &[u8], behind: &[u8]) -> Option<Shape> {
    if SECRET_URLS.iter().any(|url| starts_with(behind, url.as_bytes())) {
        return Some(Shape::SecretUrl);
    }
    let is_web = ends_with(before, b"https") || ends_with(before, b"http");
    // A user without a password is a name, except that web services take a token there.
    let is_token =
        || is_web && userinfo(behind).is_some_and(|user| user.len() >= 20 && !user.contains(&b':'));
    (has_password(behind) || is_token()).then_some(Shape::UrlWithPassword)
}

/// The part of an authority that precedes the host (RFC 3986, 3.2).
fn userinfo(authority: &[u8]) -> Option<&[u8]> {
    let is_end =
        |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<');
    let end = authority.iter().position(is_end).unwrap_or(authority.len());
    let at = authority[..end].iter().rposition(|&byte| byte == b'@')?;
    Some(&authority[..at])
}

fn has_password(authority: &[u8]) -> bool {
    let Some(userinfo) = userinfo(authority) else { return false };
    let colon = userinfo.iter().position(|&byte| byte == b':');
    colon.is_some_and(|colon| !is_placeholder(&userinfo[colon + 1..]))
}

/// What stands for a credential without being one: nothing, a variable, a template, asterisks. The last is what
/// every Java has.
fn is_placeholder(secret: &[u8]) -> bool {
    let templates = [b'$', b'{', b'<', b'*'];
    secret.first().is_none_or(|first| templates.contains(first))
        || secret.starts_with(b"%s")
        || (secret.len() > 2 && secret.starts_with(b"%") && secret.ends_with(b"%"))
        || secret == b"changeit"
}

/// Which byte assigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assigns {
    /// `name: value`, of a header or of JSON.
    Header,
    /// `name=value`.
    Setting,
}

/// Keys of connection strings, queries and npm's settings, in lower case.
const SETTINGS: [(&str, Shape); 14] = [
    ("password", Shape::Password),
    ("passwd", Shape::Password),
    ("passphrase", Shape::Password),
    (";pwd", Shape::Password),
    ("accountkey", Shape::Password),
    ("sharedaccesskey", Shape::Password),
    ("_authtoken", Shape::Password),
    (":_auth", Shape::Password),
    ("x-amz-signature", Shape::SecretUrl),
    ("x-goog-signature", Shape::SecretUrl),
    ("&sig", Shape::SecretUrl),
    ("?sig", Shape::SecretUrl),
    ("?access_token", Shape::SecretUrl),
    ("&access_token", Shape::SecretUrl),
];

/// Keys of JSON, in lower case, behind any prefix.
const JSON_KEYS: [&str; 8] =
    ["password", "passwd", "passphrase", "token", "secret", "\"auth", "api_key", "apikey"];

fn assigned(before: &[u8], after: &[u8], how: Assigns) -> Option<Shape> {
    // How the keys below end; most of what assigns ends otherwise.
    if !matches!(before.last()?.to_ascii_lowercase(), b'd' | b'e' | b'g' | b'h' | b'n' | b'y' | b'"' | b'\'')
    {
        return None;
    }
    let unquoted = before.strip_suffix(b"\"").or_else(|| before.strip_suffix(b"'"));
    if ends_with(unquoted.unwrap_or(before), b"authorization") {
        // The scheme comes first, a reference to a variable may follow.
        let near = &after[..after.len().min(LONGEST_LOOK)];
        let line = near.split(|byte| matches!(byte, b'\n' | b'"' | b'\'')).find(|part| !part.is_empty());
        let is_reference = line.is_none_or(|line| line.trim_ascii().is_empty() || line.contains(&b'$'));
        return (!is_reference).then_some(Shape::Authorization);
    }
    let shape = match (how, unquoted) {
        (Assigns::Setting, _) => {
            SETTINGS.iter().find(|(key, _)| ends_with(before, key.as_bytes())).map(|(_, shape)| *shape)
        }
        (Assigns::Header, Some(key)) => {
            JSON_KEYS.iter().any(|known| ends_with(key, known.as_bytes())).then_some(Shape::Password)
        }
        (Assigns::Header, None) => None,
    };
    shape.filter(|_| is_secret(value_at(after)))
}

/// How far a value is looked at: its beginning tells what it is. Without a bound, assignments that do not end
/// would each be followed to the end of the text.
const LONGEST_LOOK: usize = 512;

/// The value that begins here, without its quotes; of a long one the beginning.
fn value_at(after: &[u8]) -> &[u8] {
    let after = after.trim_ascii_start();
    let after = after.strip_prefix(b"\"").or_else(|| after.strip_prefix(b"'")).unwrap_or(after);
    let is_end =
        |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b';' | b'&' | b',');
    let after = &after[..after.len().min(LONGEST_LOOK)];
    &after[..after.iter().position(is_end).unwrap_or(after.len())]
}

fn is_secret(value: &[u8]) -> bool {
    !says_nothing(value) && !is_placeholder(value)
}

/// Where `needle` first stands, in either case.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle))
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text.len().checked_sub(end.len()).is_some_and(|cut| text[cut..].eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests;
