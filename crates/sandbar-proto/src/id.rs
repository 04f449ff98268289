//! Identifiers: one id per run on every surface, one sequence number per event of a process.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a run: the same in `ps`, `logs`, the rollout's thread and the keeper's start request.
///
/// A version 7 UUID (RFC 9562), so ids sort by their time of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A new id, unique on every host.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Wraps the bytes of an existing UUID of any version, as foreign threads have them.
    #[must_use]
    pub fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

/// The name of something written to a process's standard input, unique among what is written to it: whoever repeats it
/// under the same name does not write it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputId(Uuid);

impl InputId {
    /// A name of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The name that follows from what somebody else calls it. The same parts give the same name in every release, and
    /// parts that are told apart otherwise another one.
    ///
    /// FNV-1a of 128 bits (draft-eastlake-fnv): nobody gains from two names that collide, since both are of one client.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mix = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        let hash = parts.iter().fold(BASIS, |hash, part| {
            // The length first: what is in one part is not in its neighbour.
            let length = (part.len() as u64).to_le_bytes();
            length.into_iter().chain(part.bytes()).fold(hash, mix)
        });
        Self::from_bytes(hash.to_le_bytes())
    }
}

impl fmt::Display for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRunIdError {
    /// What was given.
    pub text: String,
}

impl fmt::Display for ParseRunIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a run id", self.text)
    }
}

impl std::error::Error for ParseRunIdError {}

impl FromStr for RunId {
    type Err = ParseRunIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseRunIdError { text: text.to_owned() })
    }
}

/// Sequence number of an event of one process: output, exit and close share one counter that starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_input_follow_from_their_parts_and_tell_them_apart() {
        let of = |parts: &[&str]| InputId::of(parts);
        assert_eq!(of(&["s", "p", "1"]), of(&["s", "p", "1"]));
        let all =
            [of(&["s", "p", "1"]), of(&["s", "p1", ""]), of(&["sp", "", "1"]), of(&["s", "p", "2"]), of(&[])];
        assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)), "{all:?}");
        // A promise to servers of other releases: they find what this one wrote.
        assert_eq!(of(&["a", "bc"]).to_string(), "221abbb5-d813-2fed-6c02-773b7f18dfef");
    }
}
