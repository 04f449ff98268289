//! What programs need of the system where nothing is readable that is not named: programs, libraries, configuration.

use sandbar_proto::AbsPath;

use crate::paths::below;
use crate::{Access, Entry, EntryPath, Origin};

/// As hier(7) has it, and where NixOS keeps programs (facts/sandbox.md §2.2). What is missing grants nothing.
const PLACES: [&str; 10] =
    ["bin", "sbin", "usr", "etc", "lib", "lib32", "lib64", "libx32", "nix/store", "run/current-system/sw"];

/// The lines that make them readable.
pub(crate) fn entries(origin: &Origin) -> impl Iterator<Item = Entry> {
    PLACES.iter().map(|place| Entry {
        pattern: EntryPath::Path(below(&AbsPath::root(), place)),
        access: Access::Read,
        origin: origin.clone(),
    })
}
