//! How long and how often a test goes on, and its randomness: short among the tests, long in `cargo xtask soak`.
//!
//! Everything comes from the environment, because `soak` knows the tests from outside only. Without it a test is
//! the same at every run.

use std::time::Duration;

/// What random choices begin with.
const SEED: &str = "SANDBAR_SOAK_SEED";
/// Seconds that a test goes on.
const SECONDS: &str = "SANDBAR_SOAK_SECONDS";
/// How much of its full number a test takes, in percent. Without it, it takes the few that fit among the tests.
const PERCENT: &str = "SANDBAR_SOAK_PERCENT";
/// What proptest itself reads.
const CASES: &str = "PROPTEST_CASES";

/// The seed of this run.
#[must_use]
pub fn seed() -> u64 {
    number(SEED).unwrap_or(1)
}

/// How long this run goes on, if that was said.
#[must_use]
pub fn time() -> Option<Duration> {
    number(SECONDS).map(Duration::from_secs)
}

/// How many of something a test takes: `few` among the tests, in a soak as much of `full` as was asked for.
#[must_use]
pub fn number_of(few: usize, full: usize) -> usize {
    let percent = number(PERCENT).and_then(|percent| usize::try_from(percent).ok());
    percent.map_or(few, |percent| full.saturating_mul(percent).div_ceil(100).max(1))
}

/// Whether this is a soak, which waits longer for what is larger.
#[must_use]
pub fn is_soak() -> bool {
    number(PERCENT).is_some()
}

/// Cases of a property whose cases are so dear that it has only `usually` of them: as many more as others get.
#[must_use]
pub fn cases(usually: u32) -> u32 {
    // proptest's own default.
    const DEFAULT: u64 = 256;
    let wanted = number(CASES).unwrap_or(DEFAULT).saturating_mul(u64::from(usually)) / DEFAULT;
    u32::try_from(wanted.max(1)).unwrap_or(u32::MAX)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A number for a text, the same at every run (FNV-1a).
pub(crate) fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Random numbers that a seed repeats (SplitMix64: Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of step `number` of the test `name`.
    #[must_use]
    pub fn of(seed: u64, name: &str, number: u64) -> Self {
        let name = hash(name.as_bytes());
        // One step of the generator tells neighbouring numbers apart.
        let mut mixed = Self(seed);
        let mut mixed = Self(mixed.next() ^ name);
        Self(mixed.next() ^ number)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// The same for sizes.
    pub fn below_size(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// Whether one in `many` came.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Fewer than `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below_size(most);
        (0..length).map(|_| self.byte()).collect()
    }

    /// One of `all`, unless there is none.
    pub fn choose<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below_size(all.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_one_does_not() {
        let numbers = |seed, name, step| {
            let mut random = Random::of(seed, name, step);
            [random.below(u64::MAX), random.below(u64::MAX)]
        };
        assert_eq!(numbers(1, "a", 0), numbers(1, "a", 0));
        for other in [numbers(2, "a", 0), numbers(1, "b", 0), numbers(1, "a", 1)] {
            assert_ne!(other, numbers(1, "a", 0));
        }
    }

    #[test]
    fn every_number_below_a_bound_comes() {
        let mut random = Random::of(1, "", 0);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below_size(7)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 700), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }
}
