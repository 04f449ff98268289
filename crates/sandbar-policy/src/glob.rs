//! Globs over the names of environment variables.
//!
//! `*` is any run of bytes, `?` any one byte, everything else itself; a glob covers the whole name and ASCII
//! letters match in either case, as the peers' `shell_environment_policy` does (facts/exec-server.md §3). No
//! classes and no escapes: a variable's name needs none.

use std::fmt;

use sandbar_proto::ByteString;
use serde::{Deserialize, Serialize};

/// A pattern for the whole name of a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(ByteString);

/// Why what somebody wrote is no glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadGlob {
    /// It covers nothing.
    #[error("the glob is empty")]
    Empty,
    /// It has a character that means something in other globs, or that no name has.
    #[error("a glob has no {:?}", char::from(*.0))]
    Character(u8),
}

impl Glob {
    /// A glob as a person writes one.
    ///
    /// # Errors
    /// [`BadGlob`]: what means a class, a choice or an escape elsewhere would cover nothing here, in silence.
    pub fn parse(pattern: impl Into<ByteString>) -> Result<Self, BadGlob> {
        let pattern = pattern.into();
        if pattern.as_bytes().is_empty() {
            return Err(BadGlob::Empty);
        }
        match pattern.as_bytes().iter().find(|byte| b"[]{}\\=".contains(byte)) {
            Some(&byte) => Err(BadGlob::Character(byte)),
            None => Ok(Self(pattern)),
        }
    }

    /// A glob; every text is one.
    #[must_use]
    pub fn new(pattern: impl Into<ByteString>) -> Self {
        Self(pattern.into())
    }

    /// Whether the glob covers all of `name`. Takes time proportional to the product of the lengths at worst.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        covers(self.0.as_bytes(), name)
    }
}

/// What [`Glob::matches`] says of the glob `pattern`, which stays borrowed.
pub(crate) fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how far the name had come: on a mismatch the star takes one byte more.
    // Only the last star is ever retried, which keeps this quadratic instead of exponential.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte.eq_ignore_ascii_case(&name[n]) => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn a_glob_covers_the_whole_name_in_either_case() {
        let cases = [
            ("PATH", "path", true),
            ("PATH", "PATHS", false),
            ("*KEY*", "ssh_key_file", true),
            ("*KEY*", "KEY", true),
            ("H*", "HOME", true),
            ("p?th", "PATH", true),
            ("p?th", "PTH", false),
            ("*", "", true),
            ("", "", true),
            ("", "A", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
        ];
        for (glob, name, expected) in cases {
            assert_eq!(Glob::new(glob).matches(name.as_bytes()), expected, "{glob} on {name}");
        }
    }

    #[test]
    fn what_would_cover_nothing_is_no_glob() {
        for glob in ["*", "A?B*", "NAME", "a.b-c%%"] {
            assert_eq!(Glob::parse(glob), Ok(Glob::new(glob)));
        }
        assert_eq!(Glob::parse(""), Err(BadGlob::Empty));
        for (glob, byte) in [("[", b'['), ("A]", b']'), ("{A,B}", b'{'), ("A\\*", b'\\'), ("A=B", b'=')] {
            assert_eq!(Glob::parse(glob), Err(BadGlob::Character(byte)));
        }
    }

    /// The definition, exponential and obviously right.
    fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                by_definition(rest, name)
                    || name.split_first().is_some_and(|(_, n)| by_definition(pattern, n))
            }
            (Some((b'?', rest)), Some((_, n))) => by_definition(rest, n),
            (Some((p, rest)), Some((c, n))) => p.eq_ignore_ascii_case(c) && by_definition(rest, n),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[aB*?]{0,8}", name in "[abAB]{0,10}") {
            let fast = Glob::new(pattern.as_str()).matches(name.as_bytes());
            prop_assert_eq!(fast, by_definition(pattern.as_bytes(), name.as_bytes()));
        }
    }

    /// The definition by a table: whether the pattern so far covers each beginning of the name.
    fn by_table(pattern: &[u8], name: &[u8]) -> bool {
        let mut covered = vec![false; name.len() + 1];
        covered[0] = true;
        for &byte in pattern {
            let mut next = vec![false; name.len() + 1];
            for at in 0..=name.len() {
                next[at] = match byte {
                    b'*' => covered[at] || (at > 0 && next[at - 1]),
                    _ if at == 0 => false,
                    b'?' => covered[at - 1],
                    byte => covered[at - 1] && byte.eq_ignore_ascii_case(&name[at - 1]),
                };
            }
            covered = next;
        }
        covered[name.len()]
    }

    #[test]
    fn fuzz_a_glob_covers_what_its_definition_says() {
        // The time is a product of the lengths, both of which a person writes.
        const MOST: usize = 300;
        let samples = Samples {
            whole: &[b"*KEY*\nSSH_KEY_FILE", b"a?c*\nabcabc", b"*a*b*a\nxxaxxbxxa", b"H*\nHOME"],
            words: &[b"*", b"?", b"a", b"A", b"ab", b"**", b"\n"],
        };
        fuzz("glob", samples, |input| {
            let cut = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len() / 2);
            let (pattern, name) = input.split_at(cut);
            let name = name.strip_prefix(b"\n").unwrap_or(name);
            let (pattern, name) = (&pattern[..cut.min(MOST)], &name[..name.len().min(MOST)]);
            let covers = covers(pattern, name);
            assert_eq!(covers, by_table(pattern, name));
            if let Ok(glob) = Glob::parse(pattern) {
                assert_eq!(glob.matches(name), covers);
            }
            Took::if_understood(covers)
        });
    }
}
