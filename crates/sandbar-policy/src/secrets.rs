//! What a command must not read although everything else is readable: credentials, keys, browser profiles.
//!
//! The lists are data. Directories are covered whole. A file is covered by an empty file that nobody may open,
//! except where its tool gives up on EACCES but is content with an empty file. What does not exist is not
//! covered: it cannot be read, and cannot be made outside a writable root. A link is covered where it leads to,
//! since a mount follows it.

use sandbar_proto::{AbsPath, FileKind};

use crate::grants::{Draft, GrantKind};
use crate::paths::{below, entry};
use crate::reader::{Found, Names};
use crate::{Note, Origin};

pub(crate) const ORIGIN: Origin = Origin::Default("secrets");

/// Below home, unreadable.
const HIDDEN: [&str; 32] = [
    ".ssh",
    ".aws",
    ".gnupg",
    ".azure",
    ".kube",
    ".config/gcloud",
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/hub",
    ".vault-token",
    ".terraform.d/credentials.tfrc.json",
    ".password-store",
    ".local/share/keyrings",
    ".mozilla",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".thunderbird",
    ".codex/auth.json",
    ".claude/.credentials.json",
    // Shell and database histories hold passwords that were typed on a command line.
    ".bash_history",
    ".zsh_history",
    ".zhistory",
    ".history",
    ".local/share/fish/fish_history",
    ".python_history",
    ".node_repl_history",
    ".psql_history",
    ".mysql_history",
    ".sqlite_history",
    ".rediscli_history",
];

/// Below home, readable as empty: npm, pip, curl, docker and cargo stop at EACCES but take an empty file for no
/// configuration.
const EMPTY: [&str; 6] =
    [".npmrc", ".pypirc", ".netrc", ".docker/config.json", ".cargo/credentials", ".cargo/credentials.toml"];

/// What only uid 0 could read in the first place.
const HIDDEN_FROM_ROOT: [&str; 4] = ["/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-"];

const SSH_HOST_KEYS: &str = "/etc/ssh";

/// Hides the secrets below each of `homes`, and the system's when the caller is uid 0.
pub(crate) fn hide(draft: &mut Draft<'_>, homes: &[AbsPath]) {
    for home in homes {
        let present = Present::below(draft, home);
        for name in HIDDEN.into_iter().filter(|name| present.may_hold(name)) {
            hide_one(draft, &below(home, name), false);
        }
        for name in EMPTY.into_iter().filter(|name| present.may_hold(name)) {
            hide_one(draft, &below(home, name), true);
        }
    }
    if draft.reader.host().uid == 0 {
        hide_from_root(draft);
    }
}

fn hide_from_root(draft: &mut Draft<'_>) {
    for path in HIDDEN_FROM_ROOT {
        hide_one(draft, &below(&AbsPath::root(), path), false);
    }
    let directory = below(&AbsPath::root(), SSH_HOST_KEYS);
    if let Names::Known(names) = draft.reader.list(&directory) {
        let keys = names.iter().map(|(name, _)| name.as_bytes()).filter(|name| is_host_key(name));
        for path in keys.filter_map(|name| entry(&directory, name)) {
            hide_one(draft, &path, false);
        }
    }
}

fn is_host_key(name: &[u8]) -> bool {
    name.starts_with(b"ssh_host_") && name.ends_with(b"_key")
}

fn hide_one(draft: &mut Draft<'_>, secret: &AbsPath, readable_empty: bool) {
    // What cannot be looked up by the caller cannot be opened by its child.
    let Found::File(fact) = draft.reader.resolve(secret) else { return };
    let target = &fact.pinned;
    if draft.is_too_broad_to_hide(&target.path) {
        draft.notes.push(Note::SecretNotHidden { secret: secret.clone(), target: target.path.clone() });
        return;
    }
    let readable_empty = readable_empty && target.identity.kind == FileKind::File;
    draft.grant(target, GrantKind::Hide { readable_empty }, ORIGIN);
}

/// Which names a directory holds, so that one listing saves most of the look-ups below it.
pub(crate) enum Present<'a> {
    /// The listing is on its way: nothing is worth a question yet.
    Unknown,
    /// Exactly these, sorted.
    Only(&'a [(sandbar_proto::ByteString, FileKind)]),
    /// It is too long or unreadable: everything has to be asked.
    Any,
}

impl<'a> Present<'a> {
    pub(crate) fn below(draft: &Draft<'a>, directory: &AbsPath) -> Self {
        match draft.reader.list(directory) {
            Names::Unknown => Self::Unknown,
            Names::Known(names) => Self::Only(names),
            Names::Missing => Self::Only(&[]),
            Names::Failed => Self::Any,
        }
    }

    /// Whether the first component of `relative` may exist.
    pub(crate) fn may_hold(&self, relative: &str) -> bool {
        let first = relative.split('/').next().unwrap_or(relative).as_bytes();
        match self {
            Self::Unknown => false,
            Self::Only(names) => names.iter().any(|(name, _)| name.as_bytes() == first),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fake_host::{FakeHost, request};
    use crate::{Access, Note, Origin};

    #[test]
    fn existing_secrets_are_hidden_and_missing_ones_cost_nothing() {
        let host = FakeHost::with_home().file("/home/u/.ssh/id").file("/home/u/.npmrc").dir("/home/u/proj");
        let compiled = host.compile(&request("/home/u/proj"));
        assert_eq!(host.access(&compiled, "/home/u/.ssh/id"), Access::None);
        assert_eq!(
            host.masks(&compiled),
            [("/home/u/.npmrc".to_owned(), true), ("/home/u/.ssh".to_owned(), false)]
        );
    }

    #[test]
    fn a_linked_secret_is_hidden_where_it_leads_to() {
        let host =
            FakeHost::with_home().dir("/home/u/proj").dir("/vault/keys").link("/home/u/.ssh", "/vault/keys");
        let compiled = host.compile(&request("/home/u/proj"));
        assert_eq!(host.masks(&compiled), [("/vault/keys".to_owned(), false)]);
    }

    #[test]
    fn a_secret_that_leads_to_the_home_itself_is_not_hidden_but_told() {
        let host = FakeHost::with_home().dir("/home/u/proj").link("/home/u/.ssh", "/home/u");
        let compiled = host.compile(&request("/home/u/proj"));
        assert_eq!(host.masks(&compiled), []);
        assert!(compiled.notes.iter().any(|note| matches!(note, Note::SecretNotHidden { .. })));
    }

    #[test]
    fn only_root_needs_the_system_secrets_hidden() {
        let tree = || {
            FakeHost::with_home()
                .dir("/home/u/proj")
                .file("/etc/shadow")
                .file("/etc/ssh/ssh_host_rsa_key")
                .file("/etc/ssh/ssh_host_rsa_key.pub")
        };
        assert_eq!(tree().masks(&tree().compile(&request("/home/u/proj"))), []);
        let masks = {
            let host = tree().called_by_root();
            host.masks(&host.compile(&request("/home/u/proj")))
        };
        let expected = ["/etc/shadow", "/etc/ssh/ssh_host_rsa_key"].map(|path| (path.to_owned(), false));
        assert_eq!(masks, expected);
    }

    #[test]
    fn a_person_reopens_a_secret_or_a_part_of_it() {
        let host = FakeHost::with_home()
            .dir("/home/u/proj")
            .file("/home/u/.ssh/config")
            .file("/home/u/.aws/credentials");
        let mut asked = request("/home/u/proj");
        asked.allow_read =
            vec![crate::fake_host::path("/home/u/.ssh/config"), crate::fake_host::path("/home/u/.aws")];
        let compiled = host.compile(&asked);
        let accesses = ["/home/u/.ssh/config", "/home/u/.ssh/id", "/home/u/.ssh", "/home/u/.aws/credentials"]
            .map(|path| host.access(&compiled, path));
        assert_eq!(accesses, [Access::Read, Access::None, Access::None, Access::Read]);
        let decided = compiled.permissions.access(&crate::fake_host::path("/home/u/.ssh/config")).1.unwrap();
        assert_eq!(decided.origin, Origin::Flag("--allow-read"));
    }
}
