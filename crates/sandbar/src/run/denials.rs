//! Why a command may have failed: what it says it was refused, and the line of the policy that refuses it.
//!
//! Looks at the end of what the command wrote as errors, once it has failed. What it says may mean something else, so each
//! sentence says "probably"; what the policy allows is never mentioned, for then somebody else refused it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sandbar_policy::denials::{Refusal, Suspect, is_too_broad, misses_network, suspects};
use sandbar_policy::{Access, Explanation, Origin, Permissions, explain};
use sandbar_proto::{AbsPath, NetworkMode, Stream};
use serde::Serialize;

use crate::escape::{self, Layout};
use crate::resolve;

/// How much of the end is looked at: what fits on some screens.
const TAIL_BYTES: usize = 16 * 1024;

/// Most denials that are told.
const MOST: usize = 3;

/// What a run may touch, and the end of what it complained about.
#[derive(Debug)]
pub(super) struct Denials {
    permissions: Permissions,
    network: NetworkMode,
    cwd: AbsPath,
    home: Option<AbsPath>,
    tail: Vec<u8>,
}

/// Something that was probably refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub(crate) enum Denial {
    /// A path.
    Path {
        /// What decides about it.
        #[serde(flatten)]
        explanation: Explanation,
        /// The option that would allow it, if one does.
        allowed_by: Option<String>,
    },
    /// The network.
    Network {
        /// The option that would allow it.
        allowed_by: String,
    },
}

impl Denials {
    /// Of a run with these permissions.
    pub(super) fn new(
        permissions: Permissions,
        network: NetworkMode,
        cwd: AbsPath,
        home: Option<AbsPath>,
    ) -> Self {
        Self { permissions, network, cwd, home, tail: Vec::new() }
    }

    /// Notes what a command wrote.
    pub(super) fn feed(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stdout {
            return;
        }
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let keep = TAIL_BYTES - bytes.len();
        let surplus = self.tail.len().saturating_sub(keep);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(bytes);
    }

    /// What was probably refused, most of it first said.
    pub(super) fn found(&self) -> Vec<Denial> {
        let mut found: Vec<Denial> = Vec::new();
        for suspect in suspects(&self.tail) {
            if let Some(denial) = self.judge(&suspect)
                && !found.contains(&denial)
                && found.len() < MOST
            {
                found.push(denial);
            }
        }
        if self.network == NetworkMode::Off && misses_network(&self.tail) {
            found.push(Denial::Network { allowed_by: "--net on".to_owned() });
        }
        found
    }

    /// Whether the policy refuses what a line is about.
    fn judge(&self, suspect: &Suspect) -> Option<Denial> {
        // What can't be looked up from here is nothing that anything could be said about.
        let place = resolve::place(Path::new(OsStr::from_bytes(&suspect.path)), self.cwd.as_path()).ok()?;
        let explanation = explain(&self.permissions, &place.path);
        let is_refused = match (suspect.error, explanation.access) {
            (_, Access::Write) => false,
            (_, Access::None) | (Refusal::ReadOnly, Access::Read) => true,
            // Mostly the file's own permissions; where they would have let it, the kernel says that it is read-only. Only
            // Landlock refuses in these words, and stands behind mounts that refuse first.
            (Refusal::Denied, Access::Read) => false,
        };
        is_refused
            .then(|| Denial::Path { allowed_by: self.allowed_by(&explanation, place.exists), explanation })
    }

    /// The option that would allow what an explanation refuses.
    fn allowed_by(&self, explanation: &Explanation, exists: bool) -> Option<String> {
        let option = match explanation.access {
            Access::Read => "--allow-write",
            Access::None => "--allow-read",
            Access::Write => return None,
        };
        let is_too_broad = |folder: &AbsPath| is_too_broad(folder, self.home.as_ref(), &self.permissions);
        let named = match explanation.decided_by {
            Origin::OwnFiles => None,
            // No option is an exception of a pattern.
            Origin::Line { .. } | Origin::Profile(_) if explanation.pattern.is_some() => None,
            Origin::Default(_)
            | Origin::Profile(_)
            | Origin::Line { .. }
            | Origin::Flag(_)
            | Origin::Protected(_) => {
                // An option names what is there. Of what is not that is a directory, and whoever follows opens all of it;
                // what it is was the command's choice.
                let path = &explanation.path;
                if exists {
                    Some(path.clone())
                } else {
                    path.parent().filter(|folder| folder.as_path().exists())
                }
            }
        };
        let named = named.filter(|named| !named.as_path().is_dir() || !is_too_broad(named))?;
        Some(format!("{option} {}", escape::shell_word(named.as_bytes())))
    }
}

impl Denial {
    /// The denial for a person.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Path { explanation, allowed_by } => {
                let path = escape::escape(explanation.path.as_bytes(), Layout::OneLine);
                let what = match explanation.access {
                    Access::Read => "may only be read",
                    Access::None | Access::Write => "is hidden",
                };
                let advice = match allowed_by {
                    Some(option) => format!("`{option}` would allow it"),
                    None => "no option allows it".to_owned(),
                };
                format!("that probably failed because {path} {what} ({}); {advice}.", explanation.decided_by)
            }
            Self::Network { allowed_by } => {
                format!(
                    "that probably failed because this run has no network; `{allowed_by}` would allow it."
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_policy::{Entry, EntryPath};

    fn denials(folder: &Path) -> Denials {
        let abs = |path: &Path| AbsPath::new(path.as_os_str().to_owned()).unwrap();
        let line = |path: AbsPath, access, origin| Entry { pattern: EntryPath::Path(path), access, origin };
        let permissions = Permissions::new(vec![
            line(AbsPath::root(), Access::Read, Origin::profile("workspace")),
            line(abs(&folder.join("work")), Access::Write, Origin::profile("workspace")),
            line(abs(&folder.join("work/.git/hooks")), Access::Read, Origin::Protected("hooks")),
            line(abs(&folder.join("secret")), Access::None, Origin::Default("secrets")),
            line(abs(&folder.join("own")), Access::None, Origin::OwnFiles),
        ]);
        Denials::new(
            permissions,
            NetworkMode::Off,
            abs(&folder.join("work")),
            Some(abs(&folder.join("home/u"))),
        )
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["work/.git/hooks", "own", "else", "home/u/$(x)"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("secret"), "").unwrap();
        folder
    }

    /// What is said of a line in which `@` stands for the folder, with the folder as `@` again.
    fn said(line: &str) -> Vec<String> {
        let folder = folder();
        let real = std::fs::canonicalize(folder.path()).unwrap();
        let name = real.display().to_string();
        let mut denials = denials(&real);
        denials.feed(Stream::Stderr, line.replace('@', &name).as_bytes());
        denials.found().iter().map(|denial| denial.sentence().replace(&name, "@")).collect()
    }

    #[test]
    fn what_the_policy_refuses_is_named_with_what_would_allow_it() {
        let table = [
            (
                "touch: cannot touch '@/else/new': Read-only file system",
                "that probably failed because @/else/new may only be read (profile workspace); `--allow-write @/else` would allow it.",
            ),
            (
                "sh: 1: cannot create .git/hooks/x: Read-only file system",
                "that probably failed because @/work/.git/hooks/x may only be read (protected name hooks); `--allow-write @/work/.git/hooks` would allow it.",
            ),
            (
                "cat: @/secret: Permission denied",
                "that probably failed because @/secret is hidden (default: secrets); `--allow-read @/secret` would allow it.",
            ),
            (
                "ls: cannot open directory '@/own': Permission denied",
                "that probably failed because @/own is hidden (sandbar's own files); no option allows it.",
            ),
            (
                "curl: (6) Could not resolve host: example.org",
                "that probably failed because this run has no network; `--net on` would allow it.",
            ),
        ];
        for (line, sentence) in table {
            assert_eq!(said(line), [sentence], "{line}");
        }
    }

    #[test]
    fn nothing_is_advised_that_opens_much_more_or_that_a_shell_reads_otherwise() {
        let table = [
            ("@/home/u/new", "@/home/u/new may only be read (profile workspace); no option allows it."),
            ("@/home/new", "@/home/new may only be read (profile workspace); no option allows it."),
            ("@/new", "@/new may only be read (profile workspace); no option allows it."),
            ("/usr/bin/new", "/usr/bin/new may only be read (profile workspace); no option allows it."),
            ("/usr/bin", "/usr/bin may only be read (profile workspace); no option allows it."),
            (
                "@/home/u/$(x)/new",
                "@/home/u/$(x)/new may only be read (profile workspace); `--allow-write '@/home/u/$(x)'` would allow it.",
            ),
        ];
        for (path, sentence) in table {
            let line = format!("touch: cannot touch \"{path}\": Read-only file system");
            assert_eq!(said(&line), [format!("that probably failed because {sentence}")], "{path}");
        }
    }

    #[test]
    fn what_the_policy_allows_was_refused_by_somebody_else() {
        for line in [
            "cat: @/work/locked: Permission denied",
            "cat: /etc/shadow: Permission denied",
            "mount: @/work: Operation not permitted",
            "cat: @/nothing: No such file or directory",
        ] {
            assert_eq!(said(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn only_the_end_of_what_was_complained_about_counts() {
        let folder = folder();
        let mut denials = denials(folder.path());
        let line = format!("cat: {}: Permission denied\n", folder.path().join("secret").display());
        denials.feed(Stream::Stdout, line.as_bytes());
        assert_eq!(denials.found(), []);
        denials.feed(Stream::Stderr, line.as_bytes());
        assert_eq!(denials.found().len(), 1);
        for _ in 0..3 {
            denials.feed(Stream::Stderr, &[b'x'; TAIL_BYTES / 2]);
        }
        assert_eq!((denials.found(), denials.tail.len()), (Vec::new(), TAIL_BYTES));
    }
}
