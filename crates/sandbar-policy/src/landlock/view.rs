//! What the rules of a plan by Landlock alone allow, and where they are known to allow less than the permissions say.
//!
//! Written against landlock(7): a rule holds for everything below its path, and several add up.

use sandbar_proto::{AbsPath, LandlockAccess, LandlockRule};

use crate::fake_host::{FakeHost, linux};
use crate::{Access, Compiled, Confinement, Nature};

/// What the rules allow at `at`.
pub(crate) fn access(compiled: &Compiled, at: &AbsPath) -> Access {
    let rules = &linux(compiled).landlock.as_ref().expect("rules").rules;
    let covering = || rules.iter().filter(|rule| at.starts_with(&rule.path));
    let has = |access| covering().any(|rule: &LandlockRule| rule.access == access);
    if has(LandlockAccess::Write) || has(LandlockAccess::Device) {
        Access::Write
    } else if has(LandlockAccess::Read) {
        Access::Read
    } else {
        Access::None
    }
}

/// Asserts for every path of the host that the rules allow what the permissions say, or less where that is known.
pub(crate) fn assert_agreement(host: &FakeHost, compiled: &Compiled) {
    for at in host.real_paths() {
        let new = at.join("new").unwrap();
        for (asked, is_there) in [(&at, true), (&new, host.exists(&new))] {
            let (stated, entry) = compiled.permissions.access(asked);
            let allowed = access(compiled, asked);
            let is_known = || is_stricter(compiled, asked, is_there) && allowed == Access::None;
            assert!(
                allowed == stated || is_known(),
                "{asked:?}: {allowed} instead of {stated}, by {entry:?}"
            );
        }
    }
}

/// The three ways in which Landlock alone is stricter.
fn is_stricter(compiled: &Compiled, at: &AbsPath, is_there: bool) -> bool {
    let confinement = compiled.confinement.as_ref().expect("a sandboxed run");
    let nature = confinement.place_of(at).map(|place| place.nature);
    // Of devices those are granted that are there and that every program expects.
    let is_device = nature == Some(Nature::Devices);
    // What has a neighbour to hide can't be listed,
    let is_passed_through = is_above_less(confinement, at);
    // and gets no new names.
    let is_new = !is_there && at.parent().is_some_and(|parent| is_above_less(confinement, &parent));
    is_device || nature == Some(Nature::Read) && (is_passed_through || is_new)
}

fn is_above_less(confinement: &Confinement, at: &AbsPath) -> bool {
    let below = confinement.places().iter().filter(|place| place.path != *at && place.path.starts_with(at));
    below.into_iter().any(|place| place.nature.access() == Access::None || place.nature == Nature::Devices)
}
