//! Keys that detach: how they are written, and how they are recognised in what a person types.
//!
//! Written as Docker and Podman do: keys between commas, each a letter or `ctrl-` and one of `a`-`z`, `@`, `[`, `\`,
//! `]`, `^`, `_`. Every byte that is typed is passed on in its order, except those of the whole sequence; a beginning
//! of it waits for the key that decides. Does not know terminals that send keys as something else than bytes
//! (the Kitty keyboard protocol, once a command has switched it on).

use std::str::FromStr;

/// A sequence of keys. Without any, nothing detaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// Why something is no sequence of keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoKey(String);

impl std::fmt::Display for NoKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is no key; write a letter, or ctrl- and a letter or one of @[\\]^_, with commas between keys",
            self.0
        )
    }
}

impl std::error::Error for NoKey {}

impl FromStr for DetachKeys {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',')
            .map(|name| key(name).ok_or_else(|| NoKey(name.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn key(name: &str) -> Option<u8> {
    let single = |text: &str| <[u8; 1]>::try_from(text.as_bytes()).ok().map(|[byte]| byte);
    match name.strip_prefix("ctrl-") {
        Some(rest) => match single(rest)? {
            letter @ (b'a'..=b'z' | b'A'..=b'Z') => Some(letter.to_ascii_uppercase() - b'@'),
            sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_') => Some(sign - b'@'),
            _ => None,
        },
        None => single(name).filter(u8::is_ascii_graphic),
    }
}

impl std::fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match byte {
                0..=0x1f => write!(f, "{comma}ctrl-{}", char::from(byte + b'@').to_ascii_lowercase())?,
                _ => write!(f, "{comma}{}", char::from(*byte))?,
            }
        }
        Ok(())
    }
}

impl DetachKeys {
    /// Docker's and Podman's.
    pub(crate) const USUAL: &str = "ctrl-p,ctrl-q";

    /// None: nothing detaches.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }
}

/// Finds the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Recogniser {
    keys: Vec<u8>,
    /// How many of the last bytes are a beginning of the keys, and held back.
    held: usize,
}

/// What became of something typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// This is to be passed on.
    Pass(Vec<u8>),
    /// The keys were typed behind this; what came after them is dropped.
    Detach(Vec<u8>),
}

impl Recogniser {
    /// For these keys.
    pub(crate) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), held: 0 }
    }

    /// Takes what was typed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut pass = Vec::with_capacity(bytes.len() + self.held);
        if self.keys.is_empty() {
            pass.extend_from_slice(bytes);
            return Typed::Pass(pass);
        }
        for &byte in bytes {
            while self.held > 0 && self.keys[self.held] != byte {
                let shorter = self.longest_beginning();
                pass.extend_from_slice(&self.keys[..self.held - shorter]);
                self.held = shorter;
            }
            if self.keys[self.held] == byte {
                self.held += 1;
            } else {
                pass.push(byte);
            }
            if self.held == self.keys.len() {
                self.held = 0;
                return Typed::Detach(pass);
            }
        }
        Typed::Pass(pass)
    }

    /// How many of the held bytes, fewer than all of them, are a beginning of the keys again.
    fn longest_beginning(&self) -> usize {
        let held = &self.keys[..self.held];
        (0..self.held).rev().find(|&length| held.ends_with(&self.keys[..length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(text: &str) -> DetachKeys {
        text.parse().unwrap()
    }

    #[test]
    fn keys_are_written_as_docker_does() {
        let table = [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("ctrl-\\", &[28]),
            ("ctrl-],q", &[29, b'q']),
            ("ctrl-@", &[0]),
            ("a,b", b"ab"),
            ("", &[]),
        ];
        for (text, bytes) in table {
            assert_eq!(keys(text), DetachKeys(bytes.to_vec()), "{text}");
            assert_eq!(keys(text).to_string(), text);
        }
        for wrong in ["ctrl-", "ctrl-pq", "ctrl-1", "ä", "a,,b", " "] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sequence_is_found_across_reads_and_what_comes_before_it_is_passed_on() {
        let mut recogniser = Recogniser::new(&keys(DetachKeys::USUAL));
        assert_eq!(recogniser.take(b"ls\x10"), Typed::Pass(b"ls".to_vec()));
        assert_eq!(recogniser.take(b"\x11rest"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn a_beginning_that_was_none_is_passed_on_with_the_next_key() {
        let mut recogniser = Recogniser::new(&keys(DetachKeys::USUAL));
        assert_eq!(recogniser.take(b"\x10"), Typed::Pass(Vec::new()));
        assert_eq!(recogniser.take(b"\x10"), Typed::Pass(vec![0x10]));
        assert_eq!(recogniser.take(b"x"), Typed::Pass(b"\x10x".to_vec()));
    }

    #[test]
    fn a_sequence_that_repeats_itself_is_found_at_its_first_place() {
        let mut recogniser = Recogniser::new(&keys("a,a,b"));
        assert_eq!(recogniser.take(b"aaab"), Typed::Detach(b"a".to_vec()));
    }

    /// Where the sequence ends first, in a plain search over everything.
    fn expected(sequence: &[u8], typed: &[u8]) -> Option<usize> {
        (!sequence.is_empty())
            .then(|| typed.windows(sequence.len()).position(|part| part == sequence))
            .flatten()
    }

    proptest! {
        #[test]
        fn however_it_is_cut_every_key_is_passed_on_or_held_and_the_first_sequence_detaches(
            sequence in proptest::collection::vec(0..3_u8, 0..4),
            chunks in proptest::collection::vec(proptest::collection::vec(0..3_u8, 0..6), 0..8),
        ) {
            let typed = chunks.concat();
            let mut recogniser = Recogniser::new(&DetachKeys(sequence.clone()));
            let mut passed = Vec::new();
            let mut detached = false;
            for chunk in &chunks {
                match recogniser.take(chunk) {
                    Typed::Pass(bytes) => passed.extend(bytes),
                    Typed::Detach(bytes) => {
                        passed.extend(bytes);
                        detached = true;
                        break;
                    }
                }
            }
            match expected(&sequence, &typed) {
                Some(at) => prop_assert!(detached && passed == typed[..at]),
                None => {
                    passed.extend_from_slice(&sequence[..recogniser.held]);
                    prop_assert!(!detached && passed == typed);
                }
            }
        }
    }
}
