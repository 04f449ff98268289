//! The attempts by area, with what is accepted of each and why.
//!
//! Reasons repeat what `docs/threat-model.md` accepts, in a few words. An attempt without any is stopped everywhere.

mod files;
mod system;

use crate::expect::{Attempt, Control};
use crate::outcome::Outcome;
use crate::stage::Stage;

/// Every attempt, in the order they are made.
pub fn attempts() -> impl Iterator<Item = &'static Attempt> {
    let files = [files::OUTSIDE, files::PROTECTED, files::SECRETS, files::RIGHTS];
    let system = [
        system::DESCRIPTORS,
        system::PROC,
        system::SOCKETS,
        system::PROCESSES,
        system::NAMESPACES,
        system::KERNEL_CALLS,
    ];
    files.into_iter().chain(system).flatten()
}

/// An attempt that is stopped in every sandbox and succeeds without one.
const fn attempt(
    area: &'static str,
    name: &'static str,
    tries: &'static str,
    act: fn(&Stage) -> Outcome,
) -> Attempt {
    Attempt { name, area, tries, accepted: &[], control: Control::Allowed, act }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attempt_has_a_name_of_its_own() {
        let names: Vec<&str> = attempts().map(|attempt| attempt.name).collect();
        let different: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), different.len());
        let is_plain =
            |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let odd: Vec<_> = names.iter().filter(|name| !is_plain(name)).collect();
        assert_eq!(odd, Vec::<&&str>::new());
    }

    #[test]
    fn ninety_attempts_and_more_show_that_they_can_succeed() {
        let shown = attempts().filter(|attempt| !matches!(attempt.control, Control::Open(_))).count();
        assert!(shown >= 90, "{shown}");
    }
}
