//! The permission model: entries, and which of them decides a path.
//!
//! The entry with the longest path that is a prefix of the asked one, by components, decides; at equal length
//! none beats write beats read; without a match there is no access (facts/sandbox.md §1.2). Paths are compared as
//! written: resolving symlinks is the caller's concern, since only a file system can. A pattern counts as long as the
//! deepest directory or file on the way to the path that it covers, so a longer path below a match is an exception of it.

use std::borrow::Cow;
use std::fmt;

use sandbar_proto::{AbsPath, ByteString, PathGlob};
use serde::Serialize;

/// What may be done with a path.
///
/// Ordered by which wins between entries of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read and execute.
    Read,
    /// Everything.
    Write,
    /// Nothing.
    None,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::None => "none",
        })
    }
}

/// Who decided an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "name")]
pub enum Origin {
    /// A built-in default, by its name.
    Default(&'static str),
    /// A profile, by its name.
    Profile(Cow<'static, str>),
    /// A line of a file that a person wrote.
    Line {
        /// The file, as it was opened.
        file: ByteString,
        /// Its number, from 1.
        line: u32,
    },
    /// A flag of the command line, as written there.
    Flag(&'static str),
    /// A protected name under a writable root.
    Protected(&'static str),
    /// Sandbar's own directories, which no rule reopens.
    OwnFiles,
}

impl Origin {
    /// A built-in profile.
    #[must_use]
    pub const fn profile(name: &'static str) -> Self {
        Self::Profile(Cow::Borrowed(name))
    }

    /// Whether a person named exactly this path, which counts more than what is meant by default.
    pub(crate) fn is_of_person(&self) -> bool {
        match self {
            Self::Flag(_) | Self::Line { .. } => true,
            Self::Default(_) | Self::Profile(_) | Self::Protected(_) | Self::OwnFiles => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(what) => write!(f, "default: {what}"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Line { file, line } => write!(f, "{}:{line}", file.to_display()),
            Self::Flag(flag) => f.write_str(flag),
            Self::Protected(name) => write!(f, "protected name {name}"),
            Self::OwnFiles => f.write_str("sandbar's own files"),
        }
    }
}

/// What an entry covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryPath {
    /// A path and everything below it.
    Path(AbsPath),
    /// Whatever a pattern covers, and everything below that.
    Glob(PathGlob),
}

impl EntryPath {
    /// The path above which the entry covers nothing.
    #[must_use]
    pub fn base(&self) -> &AbsPath {
        match self {
            Self::Path(path) => path,
            Self::Glob(glob) => glob.base(),
        }
    }

    /// How long it is among those that cover `path`, in components; `None` if it does not cover it.
    fn length(&self, path: &AbsPath) -> Option<usize> {
        match self {
            Self::Path(base) => path.starts_with(base).then(|| base.depth()),
            Self::Glob(glob) => glob.deepest(path),
        }
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&path.to_display()),
            Self::Glob(glob) => f.write_str(&glob.to_display()),
        }
    }
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Entry {
    /// What it covers.
    pub pattern: EntryPath,
    /// What it grants.
    pub access: Access,
    /// Who said so.
    pub origin: Origin,
}

/// All lines of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Permissions {
    entries: Vec<Entry>,
}

impl Permissions {
    /// A policy of `entries`, in any order.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The lines, in the order they were given.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What may be done with `path`, and the entry that decided; no entry means that none covers it.
    #[must_use]
    pub fn access(&self, path: &AbsPath) -> (Access, Option<&Entry>) {
        let covering = self.entries.iter().filter_map(|entry| Some((entry.pattern.length(path)?, entry)));
        let decisive = covering.max_by_key(|(length, entry)| (*length, entry.access)).map(|(_, entry)| entry);
        (decisive.map_or(Access::None, |entry| entry.access), decisive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    fn policy(lines: &[(&str, Access)]) -> Permissions {
        let entry = |(at, access): &(&str, Access)| Entry {
            pattern: EntryPath::Path(path(at)),
            access: *access,
            origin: Origin::Flag("--test"),
        };
        Permissions::new(lines.iter().map(entry).collect())
    }

    #[test]
    fn a_denied_child_of_a_writable_root_stays_denied_and_can_be_reopened_below() {
        let policy = policy(&[
            ("/repo", Access::Write),
            ("/repo/secrets", Access::None),
            ("/repo/secrets/pub", Access::Write),
        ]);
        assert_eq!(policy.access(&path("/repo/secrets/key")).0, Access::None);
        assert_eq!(policy.access(&path("/repo/secrets/pub/x")).0, Access::Write);
        assert_eq!(policy.access(&path("/repo/secretsX")).0, Access::Write);
    }

    #[test]
    fn a_pattern_denies_what_it_covers_unless_something_deeper_is_named() {
        let glob = |text: &str| Entry {
            pattern: EntryPath::Glob(PathGlob::new(text).unwrap()),
            access: Access::None,
            origin: Origin::Flag("--test"),
        };
        let mut entries =
            policy(&[("/w", Access::Write), ("/w/a/keys/pub", Access::Read), ("/w/a/x.env", Access::Write)])
                .entries()
                .to_vec();
        entries.extend([glob("/w/**/keys"), glob("/w/**/*.env")]);
        let policy = Permissions::new(entries);
        let table = [
            ("/w/a/.env", Access::None),
            ("/w/a/keys/id", Access::None),
            ("/w/a/keys/pub/x", Access::Read),
            // Of equal length none wins.
            ("/w/a/x.env", Access::None),
            ("/w/a/b", Access::Write),
        ];
        for (at, access) in table {
            assert_eq!(policy.access(&path(at)).0, access, "{at}");
        }
    }

    #[test]
    fn what_no_entry_covers_is_not_accessible() {
        assert_eq!(policy(&[("/a", Access::Write)]).access(&path("/b")), (Access::None, None));
    }

    #[test]
    fn at_equal_length_none_beats_write_beats_read() {
        let lines = [("/a", Access::Write), ("/a", Access::None), ("/a", Access::Read)];
        assert_eq!(policy(&lines).access(&path("/a")).0, Access::None);
        assert_eq!(policy(&[lines[2], lines[0]]).access(&path("/a")).0, Access::Write);
    }

    #[test]
    fn origins_read_like_sentences() {
        let texts = [
            Origin::Default("secrets"),
            Origin::profile("workspace"),
            Origin::Line { file: "/c/config.toml".into(), line: 7 },
            Origin::Flag("--allow-write"),
            Origin::Protected(".git/hooks"),
            Origin::OwnFiles,
        ]
        .map(|origin| origin.to_string());
        assert_eq!(
            texts,
            [
                "default: secrets",
                "profile workspace",
                "/c/config.toml:7",
                "--allow-write",
                "protected name .git/hooks",
                "sandbar's own files"
            ]
        );
    }

    fn any_path() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{1,2}", 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
    }

    fn any_access() -> impl Strategy<Value = Access> {
        prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::None)]
    }

    /// Walks up from the path; at each step the strictest-ranked entry of exactly that path decides.
    fn brute_force(lines: &[(String, Access)], asked: &AbsPath) -> Access {
        let mut at = Some(asked.clone());
        while let Some(here) = at {
            let same = lines.iter().filter(|(line, _)| path(line) == here).map(|(_, access)| *access);
            let found: Vec<Access> = same.collect();
            for access in [Access::None, Access::Write, Access::Read] {
                if found.contains(&access) {
                    return access;
                }
            }
            at = here.parent();
        }
        Access::None
    }

    proptest! {
        #[test]
        fn the_resolver_equals_brute_force(
            lines in proptest::collection::vec((any_path(), any_access()), 0..8),
            asked in any_path(),
        ) {
            let asked = path(&asked);
            let borrowed: Vec<(&str, Access)> = lines.iter().map(|(p, a)| (p.as_str(), *a)).collect();
            prop_assert_eq!(policy(&borrowed).access(&asked).0, brute_force(&lines, &asked));
        }

        #[test]
        fn the_order_of_entries_does_not_matter(
            lines in proptest::collection::vec((any_path(), any_access()), 0..8),
            asked in any_path(),
        ) {
            let asked = path(&asked);
            let forward: Vec<(&str, Access)> = lines.iter().map(|(p, a)| (p.as_str(), *a)).collect();
            let backward: Vec<(&str, Access)> = forward.iter().rev().copied().collect();
            prop_assert_eq!(policy(&forward).access(&asked).0, policy(&backward).access(&asked).0);
        }
    }
}
