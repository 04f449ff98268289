//! What a command's own words say it was refused.
//!
//! Programs tell their errors in lines, with the path and the kernel's words for the error number (strerror(3)), in one of
//! a few forms that most of them share. This reads such lines and says which paths they may be about. That is a guess:
//! whether the policy refuses such a path is asked of the policy, and what it allows was refused by somebody else.
//!
//! Pure, and bounded whatever the text is.

use sandbar_proto::AbsPath;

use crate::workspace;
use crate::{Origin, Permissions};

/// Most paths that are looked at.
const MOST: usize = 16;

/// Longest line that is read; longer ones are no error messages.
const LINE_BYTES: usize = 4096;

/// What a line may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The path as it was written, relative or absolute.
    pub path: Vec<u8>,
    /// What the kernel said.
    pub error: Refusal,
}

/// Errors that a sandbox makes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// EROFS: something was to be written.
    ReadOnly,
    /// EACCES or EPERM: something was to be read or written.
    Denied,
}

/// Ends of error messages, in small letters, and what each means. First what contains another.
const SIGNS: [(&[u8], Refusal); 9] = [
    (b"read-only file system", Refusal::ReadOnly),
    (b"os error 30", Refusal::ReadOnly),
    (b"errno 30", Refusal::ReadOnly),
    (b"erofs", Refusal::ReadOnly),
    (b"permission denied", Refusal::Denied),
    (b"os error 13", Refusal::Denied),
    (b"errno 13", Refusal::Denied),
    (b"eacces", Refusal::Denied),
    (b"operation not permitted", Refusal::Denied),
];

/// Messages of a network that is not there, in small letters.
const NETWORK_SIGNS: [&[u8]; 6] = [
    b"could not resolve host",
    b"temporary failure in name resolution",
    b"network is unreachable",
    b"eai_again",
    b"enetunreach",
    b"name or service not known",
];

/// Pairs of quotation marks around paths: of the C locale, of shells, and of GNU in UTF-8.
const QUOTES: [(&[u8], &[u8]); 5] = [
    (b"'", b"'"),
    (b"\"", b"\""),
    (b"`", b"'"),
    (b"`", b"`"),
    ("\u{2018}".as_bytes(), "\u{2019}".as_bytes()),
];

/// The paths that a command's last words may be about, in the order of the lines, each once.
#[must_use]
pub fn suspects(text: &[u8]) -> Vec<Suspect> {
    let mut found: Vec<Suspect> = Vec::new();
    for line in lines(text) {
        let small = line.to_ascii_lowercase();
        let Some((at, error)) = SIGNS.iter().find_map(|(sign, error)| Some((find(&small, sign)?, *error)))
        else {
            continue;
        };
        for path in paths(line, at) {
            let suspect = Suspect { path: path.to_vec(), error };
            if found.len() < MOST && !found.contains(&suspect) {
                found.push(suspect);
            }
        }
    }
    found
}

/// Whether a command's last words say that there was no network.
#[must_use]
pub fn misses_network(text: &[u8]) -> bool {
    lines(text).any(|line| {
        let small = line.to_ascii_lowercase();
        NETWORK_SIGNS.iter().any(|sign| find(&small, sign).is_some())
    })
}

/// Whether an option that names the directory `folder` would open much more than something new in it, or be refused: it
/// is the system's, or holds the home directory or Sandbar's own files.
#[must_use]
pub fn is_too_broad(folder: &AbsPath, home: Option<&AbsPath>, permissions: &Permissions) -> bool {
    let holds_own = || {
        let own = permissions.entries().iter().filter(|entry| entry.origin == Origin::OwnFiles);
        own.map(|entry| entry.pattern.base()).any(|own| own.starts_with(folder))
    };
    *folder == AbsPath::root()
        || home.is_some_and(|home| home.starts_with(folder))
        || workspace::is_of_system(folder)
        || holds_own()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| line.len() <= LINE_BYTES)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What in a line may be a path: what is quoted, else the words with a slash, else what stands right before the sign, which is
/// `at`.
fn paths(line: &[u8], at: usize) -> Vec<&[u8]> {
    let quoted = quoted(line);
    if !quoted.is_empty() {
        return quoted;
    }
    let with_slash: Vec<&[u8]> = line
        .split(u8::is_ascii_whitespace)
        .map(trimmed)
        .filter(|word| word.contains(&b'/') && find(word, b"://").is_none())
        .collect();
    if !with_slash.is_empty() {
        return with_slash;
    }
    // `program: name: Permission denied`
    let before = line[..at].trim_ascii_end();
    let before = before.strip_suffix(b":").unwrap_or_default();
    let Some(colon) = before.iter().rposition(|byte| *byte == b':') else { return Vec::new() };
    let last = before[colon + 1..].trim_ascii();
    if last.is_empty() || last.iter().any(u8::is_ascii_whitespace) { Vec::new() } else { vec![last] }
}

fn quoted(line: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = line;
    while !rest.is_empty() && found.len() < MOST {
        let possible =
            QUOTES.iter().filter(|(open, _)| rest.starts_with(open)).filter_map(|(open, close)| {
                let behind = &rest[open.len()..];
                let end = find(behind, close)?;
                Some((&behind[..end], &behind[end + close.len()..]))
            });
        let inside = possible.min_by_key(|(inside, _)| inside.len());
        match inside {
            Some((inside, behind)) => {
                if !inside.is_empty() {
                    found.push(inside);
                }
                rest = behind;
            }
            None => rest = &rest[1..],
        }
    }
    found
}

/// A word without what stands around it in a sentence.
fn trimmed(word: &[u8]) -> &[u8] {
    let around = |byte: &u8| matches!(byte, b':' | b',' | b';' | b'(' | b')' | b'[' | b']' | b'<' | b'>');
    let start = word.iter().position(|byte| !around(byte)).unwrap_or(word.len());
    let end = word.iter().rposition(|byte| !around(byte)).map_or(start, |last| last + 1);
    &word[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    fn found(line: &str) -> Vec<(String, Refusal)> {
        let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
        suspects(line.as_bytes()).into_iter().map(|suspect| (text(&suspect.path), suspect.error)).collect()
    }

    #[test]
    fn the_words_of_many_programs_name_their_path() {
        use Refusal::{Denied, ReadOnly};
        let table = [
            ("touch: cannot touch '/etc/x': Read-only file system", "/etc/x", ReadOnly),
            (
                "mkdir: cannot create directory \u{2018}/usr/a b\u{2019}: Permission denied",
                "/usr/a b",
                Denied,
            ),
            ("sh: 1: cannot create /etc/x: Read-only file system", "/etc/x", ReadOnly),
            ("bash: line 1: notes: Permission denied", "notes", Denied),
            ("bash: ./x.sh: Permission denied", "./x.sh", Denied),
            ("cat: /home/u/.ssh/id_rsa: Permission denied", "/home/u/.ssh/id_rsa", Denied),
            ("PermissionError: [Errno 13] Permission denied: '/srv/x'", "/srv/x", Denied),
            ("OSError: [Errno 30] Read-only file system: 'build'", "build", ReadOnly),
            ("Error: EACCES: permission denied, open '/srv/x'", "/srv/x", Denied),
            ("npm ERR! Error: EROFS: read-only file system, mkdir '/usr/lib/x'", "/usr/lib/x", ReadOnly),
            ("open /srv/x: permission denied", "/srv/x", Denied),
            ("error: could not write to `/srv/x`: Permission denied (os error 13)", "/srv/x", Denied),
            ("chown: changing ownership of 'f': Operation not permitted", "f", Denied),
        ];
        for (line, path, error) in table {
            assert_eq!(found(line), [(path.to_owned(), error)], "{line}");
        }
    }

    #[test]
    fn other_lines_name_none() {
        for line in [
            "",
            "/etc/x: No such file or directory",
            "error: Permission denied",
            "fatal: unable to access 'https://example.org/': Could not resolve host",
            "Permission denied (publickey).",
        ] {
            assert_eq!(found(line), [], "{line}");
        }
    }

    #[test]
    fn a_path_is_named_once_and_many_are_bounded() {
        assert_eq!(found("x: /a: Permission denied\nx: /a: Permission denied").len(), 1);
        let many: String = (0..100).map(|number| format!("x: /{number}: Permission denied\n")).collect();
        assert_eq!(found(&many).len(), MOST);
    }

    #[test]
    fn a_network_that_is_not_there_is_heard() {
        for line in [
            "curl: (6) Could not resolve host: example.org",
            "socket.gaierror: [Errno -3] Temporary failure in name resolution",
            "npm ERR! request to https://example.org failed, reason: getaddrinfo EAI_AGAIN example.org",
        ] {
            assert!(misses_network(line.as_bytes()), "{line}");
        }
        assert!(!misses_network(b"connection refused"));
    }

    #[test]
    fn fuzz_what_is_suspected_is_part_of_what_was_said() {
        let whole: &[&[u8]] = &[
            b"touch: cannot touch '/etc/x': Read-only file system\n",
            "mkdir: \u{2018}/usr/a\u{2019}: Permission denied\r\n".as_bytes(),
            b"sh: 1: notes: Permission denied",
        ];
        let words: &[&[u8]] = &[b"'", b"\"", b"`", b": ", b"EROFS", b"/", b"\n", b"permission denied"];
        fuzz("denials", Samples { whole, words }, |input| {
            let found = suspects(input);
            for suspect in &found {
                assert!(!suspect.path.is_empty() && find(input, &suspect.path).is_some());
            }
            let _ = misses_network(input);
            Took::if_understood(!found.is_empty())
        });
    }
}
