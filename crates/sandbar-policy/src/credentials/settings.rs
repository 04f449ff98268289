//! Whether the content of a settings file, of whatever format, holds a credential.
//!
//! Such files are needed for builds and mostly say where mirrors are; only one with a credential is a secret. Knows
//! lines of keys and values (INI, properties, YAML, TOML, HCL), elements and attributes of XML, and the habits of
//! bundler, curl and conda. Leaves comments out, and what only stands for a credential: variables, what Maven
//! encrypted. A guess like the rest of [`super`].

use super::{Letters, find, is_placeholder, is_secret, shape, value_at};

/// Whether settings with this content hold a credential.
pub(crate) fn hold_credential(content: &[u8]) -> bool {
    let mut rest = content;
    loop {
        let Some(comment) = find(rest, b"<!--") else { return lines_hold_any(rest) };
        if lines_hold_any(&rest[..comment]) {
            return true;
        }
        let Some(end) = find(&rest[comment..], b"-->") else { return false };
        rest = &rest[comment + end + 3..];
    }
}

fn lines_hold_any(content: &[u8]) -> bool {
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !matches!(line.first(), None | Some(b'#' | b';' | b'!'))).any(|line| {
        let letters = Letters::of(line);
        let is_in = |key: &Key| letters.hold(key.letters) && is_assigned(line, key.text.as_bytes());
        shape(line).is_some()
            || KEYS.iter().any(is_in)
            || is_bundler_host(line)
            || is_curl_user(line)
            || has_channel_token(line)
    })
}

/// What keys of settings are called that hold credentials, in lower case, with anything around.
const KEYS: [Key; 12] = [
    key("password"),
    key("passwd"),
    key("passphrase"),
    key("token"),
    key("secret"),
    key("_auth"),
    key("authident"),
    key("apikey"),
    key("api_key"),
    key("api-key"),
    key("access_key"),
    key("accesskey"),
];

struct Key {
    text: &'static str,
    letters: Letters,
}

const fn key(text: &'static str) -> Key {
    Key { text, letters: Letters::of(text.as_bytes()) }
}

/// What a key goes on with that only says where or how.
const SAYS_HOW: [&str; 10] =
    ["file", "path", "command", "cmd", "eval", "provider", "url", "type", "izer", "encryption"];

/// Longest rest of a key behind its word. Without a bound, a word that repeats itself through a whole file would be
/// followed to the end each time.
const LONGEST_KEY: usize = 128;

/// Whether `line` gives a key with `word` in it a value: `a.word = v`, `word: v`, `<word>v<`, `key="word" value="v"`.
fn is_assigned(line: &[u8], word: &[u8]) -> bool {
    let mut rest = line;
    while let Some(at) = find(rest, word) {
        rest = &rest[at + word.len()..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let near = &rest[..rest.len().min(LONGEST_KEY)];
        let cut = near.iter().position(|byte| !is_part(byte)).unwrap_or(near.len());
        let (key, behind) = rest.split_at(cut);
        let gap = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'"' | b'\'');
        let behind = &behind[behind.iter().take_while(gap).count()..];
        let behind = behind.strip_prefix(b"value").unwrap_or(behind).trim_ascii_start();
        let value = match behind.first() {
            Some(b'=' | b':' | b'>') => value_at(&behind[1..]),
            Some(_) | None => continue,
        };
        let says_how = SAYS_HOW.iter().any(|how| find(key, how.as_bytes()).is_some());
        if !says_how && is_secret(value) {
            return true;
        }
    }
    false
}

/// `BUNDLE_GEMS__EXAMPLE__COM: "user:password"`: the key is a host, whose dots are written as two underscores.
fn is_bundler_host(line: &[u8]) -> bool {
    let Some(key) = line.strip_prefix(b"BUNDLE_") else { return false };
    let Some(colon) = find(key, b": ") else { return false };
    let (key, value) = (&key[..colon], value_at(&key[colon + 2..]));
    let is_other = ["BUILD__", "LOCAL__", "MIRROR__"].iter().any(|other| key.starts_with(other.as_bytes()));
    !is_other && find(key, b"__").is_some() && is_secret(value)
}

/// `user = "name:password"` of curl.
fn is_curl_user(line: &[u8]) -> bool {
    let dashless = line.iter().position(|&byte| byte != b'-').unwrap_or(line.len());
    let line = &line[dashless..];
    let end = line.iter().position(|byte| b"=: \t".contains(byte)).unwrap_or(line.len());
    let (key, behind) = line.split_at(end);
    let behind = behind.iter().position(|byte| !b"=: \t".contains(byte)).map_or(&[][..], |at| &behind[at..]);
    let value = value_at(behind);
    let password = value.iter().position(|&byte| byte == b':').map(|colon| &value[colon + 1..]);
    matches!(key, b"user" | b"proxy-user" | b"u" | b"U") && password.is_some_and(is_secret)
}

/// `https://conda.example.com/t/TOKEN/channel` of conda.
fn has_channel_token(line: &[u8]) -> bool {
    let token = find(line, b"/t/").map(|at| &line[at + 3..]);
    let token = token.and_then(|rest| rest.iter().position(|&byte| byte == b'/').map(|end| &rest[..end]));
    token.is_some_and(|token| token.len() >= 8 && !is_placeholder(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn settings_with_a_credential_are_told_from_settings_without() {
        let with = [
            "[global]\nindex-url = https://ci:hunter2@pypi.example.com/simple\n",
            "org.gradle.jvmargs=-Xmx2g\nnexusPassword=hunter2\n",
            "systemProp.http.proxyPassword = hunter2",
            "<settings><servers><server><id>r</id><password>hunter2</password></server></servers></settings>",
            "<!-- a --><server>\n<password>\thunter2</password>",
            "<add key=\"ClearTextPassword\" value=\"hunter2\" />",
            "---\nBUNDLE_PATH: \"vendor\"\nBUNDLE_GEMS__EXAMPLE__COM: \"u:hunter2\"\n",
            "npmAuthToken: \"hunter2\"",
            "npmAuthIdent: u:hunter2",
            "\"//registry.example.com/:_authToken\" hunter2".replace("\" h", "=h").as_str(),
            "channel_alias: https://conda.example.com/t/hunter2-long/channel",
            "credentials \"app.example.com\" {\n  token = \"hunter2\"\n}",
            "[client]\nuser=u\npassword=hunter2\n",
            "[registries.x]\ntoken = \"hunter2\"",
            "user = \"u:hunter2\"",
            "-u u:hunter2",
            "{\"http-basic\":{\"h\":{\"username\":\"u\",\"password\":\"hunter2\"}}}",
            "{\"github-oauth\": {\"github.com\": \"TOKEN\"}}"
                .replace("TOKEN", &["ghp_", "a1B2c3D4e5F6g7H8i9J0"].concat())
                .as_str(),
        ]
        .map(str::to_owned);
        for content in with {
            assert!(hold_credential(content.as_bytes()), "{content}");
        }
        let without = [
            "",
            "[global]\nindex-url = https://pypi.example.com/simple\n# password = hunter2\n",
            "org.gradle.parallel=true\nsigning.secretKeyRingFile=/home/u/ring\n#token=hunter2\n! token=hunter2\n",
            "<settings>\n<!-- <password>hunter2</password> -->\n<localRepository>/r</localRepository></settings>",
            "<password>${env.PASSWORD}</password><password>{COQLCE6DU6GtcS5P=}</password><password></password>",
            "<add key=\"ClearTextPassword\" value=\"%TOKEN%\" />",
            "---\nBUNDLE_PATH: \"vendor\"\nBUNDLE_BUILD__NOKOGIRI: \"--use-system-libraries\"\nBUNDLE_GITHUB__HTTPS: \"true\"\n",
            "npmAuthToken: \"${NPM_TOKEN}\"\nnodeLinker: node-modules\nenableTelemetry: false",
            "channels:\n  - https://conda.example.com/channel\nauto_activate_base: false",
            "provider_installation {\n  filesystem_mirror {\n    path = \"/usr/share/terraform\"\n  }\n}",
            "[client]\nuser=u\npassword\nport=3306\n",
            "[registry]\nglobal-credential-providers = [\"cargo:token\"]\n[build]\nrustc-wrapper = \"sccache\"",
            "[net]\ngit-fetch-with-cli = true",
            "user-agent = x:y\nlocation",
            "tokenizer: fast\ntoken_file: /run/x",
            "{\"http-basic\":{},\"github-oauth\":{}}",
        ];
        for content in without {
            assert!(!hold_credential(content.as_bytes()), "{content}");
        }
    }

    proptest! {
        #[test]
        fn text_of_the_alphabet_of_settings_is_looked_at_without_a_panic(
            content in "([:=@/\"'<>#-]|password|token|user|BUNDLE_A__B|: |[$]|/t/|<!--|-->|value|x| |\n){0,24}",
        ) {
            let _ = hold_credential(content.as_bytes());
        }
    }

    #[test]
    fn a_word_that_repeats_itself_does_not_make_a_key_endless() {
        assert!(hold_credential(b"password.of.the.passphrase.of.the.secret=hunter2"));
        assert!(!hold_credential("password".repeat(1000).as_bytes()));
        assert!(
            hold_credential(("password".repeat(1000) + "=hunter2").as_bytes()),
            "the last one has a value"
        );
        assert!(hold_credential(("password=*".repeat(1000) + " token=hunter2").as_bytes()));
    }

    #[test]
    fn fuzz_no_content_hides_the_credential_of_a_later_line() {
        let samples = Samples {
            whole: &[
                b"[global]\nindex-url = https://pypi.example.com/simple\n# password = hunter2\n",
                b"<server><id>r</id><password>hunter2</password></server><!-- a -->",
                b"---\nBUNDLE_GEMS__EXAMPLE__COM: \"u:hunter2\"\nnpmAuthToken: \"${NPM_TOKEN}\"\n",
                b"user = \"u:hunter2\"\nchannel_alias: https://conda.example.com/t/hunter2-long/channel",
                b"{\"http-basic\":{\"h\":{\"username\":\"u\",\"password\":\"hunter2\"}}}",
            ],
            words: &[
                b"password",
                b"token",
                b"secret",
                b"_auth",
                b"=",
                b":",
                b"> ",
                b"<",
                b"\"",
                b"\n",
                b"#",
                b"<!--",
                b"-->",
                b"value",
                b"$",
                b"{",
                b"*",
                b"%",
                b" ",
                b"://",
                b"@",
                b"/t/",
                b"user",
                b"BUNDLE_A__B: ",
                b"authorization",
                b"-----BEGIN",
                b"PRIVATE KEY",
                b"path",
                b"'",
                b"ghp_",
                b"a1B2c3D4e5F6g7H8i9J0",
            ],
        };
        fuzz("settings with credentials", samples, |input| {
            let held = hold_credential(input);
            if find(input, b"<!--").is_none() {
                assert!(hold_credential(&[input, b"\npassword = hunter2\n"].concat()));
                assert_eq!(hold_credential(&[input, b"\n# password = hunter2\n"].concat()), held);
            }
            Took::if_understood(held)
        });
    }
}
