//! What a command must not read although everything else is readable: credentials, keys, browser profiles.
//!
//! The lists are data. Directories are covered whole. A file is covered by an empty file that nobody may open,
//! except where its tool gives up on EACCES but is content with an empty file. Settings that builds need are covered
//! only while they hold a credential. What does not exist is not covered: it cannot be read, and cannot be made
//! outside a writable root. A link is covered where it leads to, since a mount follows it.
//!
//! Missing files are to cost nothing: a directory where many of them may lie is listed once, and only what it holds
//! is looked up.

use sandbar_proto::{AbsPath, ByteString, FileKind};

use crate::credentials::settings;
use crate::grants::{Draft, GrantKind};
use crate::paths::{below, entry};
use crate::reader::{Content, Found, Names};
use crate::{Note, Origin};

pub(crate) const ORIGIN: Origin = Origin::Default("secrets");

/// What becomes of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// Unreadable.
    Closed,
    /// Readable as empty: its tool stops at EACCES but takes an empty file for no configuration.
    Empty,
    /// Unreadable if it holds a credential. Its tool takes neither, and EACCES says best what is wrong.
    ClosedIfSecret,
    /// Readable as empty if it holds a credential.
    EmptyIfSecret,
}

impl Cover {
    fn is_readable(self) -> bool {
        match self {
            Self::Closed | Self::ClosedIfSecret => false,
            Self::Empty | Self::EmptyIfSecret => true,
        }
    }

    fn depends_on_content(self) -> bool {
        match self {
            Self::Closed | Self::Empty => false,
            Self::ClosedIfSecret | Self::EmptyIfSecret => true,
        }
    }
}

/// Secrets below one directory of a home, which is listed.
struct Shelf {
    directory: &'static str,
    when: When,
    secrets: [(Cover, &'static [&'static str]); 4],
}

/// When the names in a directory are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Along with those of the home: it mostly exists, and that saves a round.
    AtOnce,
    /// When the home holds something of that name: it mostly does not exist.
    Later,
}

const SHELVES: [Shelf; 5] = [HOME, CONFIG, SHARE, STATE, HUGGING_FACE];

const HOME: Shelf = Shelf {
    directory: "",
    when: When::AtOnce,
    secrets: [
        (
            Cover::Closed,
            &[
                // Keys, agents, password managers.
                ".ssh",
                ".gnupg",
                ".password-store",
                ".1password",
                ".lastpass",
                ".lpass",
                ".gnome2/keyrings",
                ".vault-token",
                ".vault_pass",
                ".vault_pass.txt",
                ".putty",
                ".step",
                ".tsh",
                ".Xauthority",
                ".ICEauthority",
                // Clouds and services; their tools do nothing without these.
                ".aws",
                ".azure",
                ".kube",
                ".oci",
                ".fly",
                ".s3cfg",
                ".passwd-s3fs",
                ".rclone.conf",
                ".cloudflared",
                ".wrangler/config",
                ".netlify",
                ".railway",
                ".supabase",
                ".expo",
                ".ngrok2",
                ".snowflake",
                ".snowsql",
                ".databrickscfg",
                ".kaggle",
                ".terraform.d/credentials.tfrc.json",
                ".pulumi/credentials.json",
                ".huggingface/token",
                ".aliyun/config.json",
                ".mc/config.json",
                ".modal.toml",
                ".minikube",
                ".tarsnap.key",
                // Agents.
                ".codex/auth.json",
                ".claude.json",
                ".claude/.credentials.json",
                ".gemini/oauth_creds.json",
                // Repositories and registries; read for pushing only.
                ".git-credentials",
                ".gem/credentials",
                ".hex/hex.config",
                ".m2/settings-security.xml",
                ".subversion/auth",
                // Databases, mail, shares. libpq passes an unreadable file over and warns of one that others may read.
                ".pgpass",
                ".mylogin.cnf",
                ".msmtprc",
                ".mbsyncrc",
                ".offlineimaprc",
                ".fetchmailrc",
                ".muttrc",
                ".mutt",
                ".authinfo",
                ".smbcredentials",
                ".filezilla",
                ".vnc/passwd",
                ".purple/accounts.xml",
                ".weechat/sec.conf",
                // Browsers and mail programs, also where flatpak and snap put them.
                ".mozilla",
                ".librewolf",
                ".waterfox",
                ".zen",
                ".thunderbird",
                ".var/app",
                "snap/firefox",
                "snap/chromium",
                "snap/brave",
                "snap/thunderbird",
                "snap/slack",
                // Wallets.
                ".bitcoin",
                ".litecoin",
                ".dogecoin",
                ".zcash",
                ".electrum",
                ".ethereum",
                ".foundry/keystores",
                ".near-credentials",
                // Histories hold passwords that were typed on a command line. Others are found by their names.
                ".bash_history",
                ".zsh_history",
                ".zhistory",
                ".history",
                ".histfile",
                ".python_history",
                ".node_repl_history",
                ".psql_history",
                ".mysql_history",
                ".sqlite_history",
                ".rediscli_history",
                ".lesshst",
                ".dbshell",
                ".mongosh/mongosh_repl_history",
                ".ipython/profile_default/history.sqlite",
            ],
        ),
        (
            Cover::Empty,
            &[
                ".npmrc",
                ".pypirc",
                ".netrc",
                ".docker/config.json",
                ".cargo/credentials",
                ".cargo/credentials.toml",
                ".boto",
                ".sentryclirc",
                ".ivy2/.credentials",
                ".sbt/.credentials",
                ".gradle/develocity/keys.properties",
                ".gradle/enterprise/keys.properties",
                // Editors keep what was yanked and typed.
                ".viminfo",
            ],
        ),
        (
            Cover::ClosedIfSecret,
            &[".m2/settings.xml", ".nuget/NuGet/NuGet.Config", ".composer/auth.json", ".dbt/profiles.yml"],
        ),
        (
            Cover::EmptyIfSecret,
            &[
                ".gradle/gradle.properties",
                ".cargo/config",
                ".cargo/config.toml",
                ".bundle/config",
                ".yarnrc",
                ".yarnrc.yml",
                ".bunfig.toml",
                ".pip/pip.conf",
                ".condarc",
                ".terraformrc",
                ".my.cnf",
                ".curlrc",
                ".wgetrc",
                ".hgrc",
                ".aider.conf.yml",
            ],
        ),
    ],
};

const CONFIG: Shelf = Shelf {
    directory: ".config",
    when: When::AtOnce,
    secrets: [
        (
            Cover::Closed,
            &[
                // Keys and password managers.
                "age",
                "sops",
                "op",
                "1Password",
                "Bitwarden",
                "Bitwarden CLI",
                "lpass",
                // Clouds, services, agents.
                "gcloud",
                "doctl",
                "hcloud",
                "linode-cli",
                "scw",
                "stripe",
                "heroku",
                "netlify",
                "ngrok",
                "planetscale",
                "turso",
                "railway",
                "argocd",
                "snowflake",
                "rclone",
                ".wrangler/config",
                "configstore",
                "syncthing/key.pem",
                "borg/keys",
                "goose/secrets.yaml",
                "containers/auth.json",
                "helm/registry/config.json",
                "github-copilot",
                "anthropic",
                "openai",
                "Claude",
                "cursor/auth.json",
                // Forges.
                "gh",
                "hub",
                "glab-cli",
                "tea",
                "git/credentials",
                // Browsers, chats, mail, remote desktops.
                "google-chrome",
                "google-chrome-beta",
                "google-chrome-unstable",
                "chromium",
                "BraveSoftware",
                "microsoft-edge",
                "vivaldi",
                "opera",
                "mozilla",
                "librewolf",
                "Slack",
                "discord",
                "Signal",
                "Element",
                "teams-for-linux",
                "msmtp",
                "mutt",
                "neomutt",
                "goa-1.0",
                "filezilla",
                "remmina",
                // Where editors keep what extensions call secret.
                "Code/User/globalStorage",
                "Code - Insiders/User/globalStorage",
                "VSCodium/User/globalStorage",
                "Cursor/User/globalStorage",
                "Windsurf/User/globalStorage",
                // Wallets.
                "solana/id.json",
                "Exodus",
                "Ledger Live",
                // Histories.
                "nushell/history.txt",
                "nushell/history.sqlite3",
                "pgcli/history",
                "litecli/history",
            ],
        ),
        (
            Cover::Empty,
            &["pypoetry/auth.toml", "pnpm/auth.ini", "dart/pub-tokens.json", "dart/pub-credentials.json"],
        ),
        (Cover::ClosedIfSecret, &["composer/auth.json", "NuGet/NuGet.Config"]),
        (
            Cover::EmptyIfSecret,
            &[
                "pip/pip.conf",
                "uv/uv.toml",
                "pdm/config.toml",
                "pypoetry/config.toml",
                "pnpm/rc",
                "conda/.condarc",
                ".bunfig.toml",
                "helm/repositories.yaml",
            ],
        ),
    ],
};

const SHARE: Shelf = Shelf {
    directory: ".local/share",
    when: When::AtOnce,
    secrets: [
        (
            Cover::Closed,
            &[
                "keyrings",
                "kwalletd",
                "gopass",
                "mkcert/rootCA-key.pem",
                "uv/credentials",
                "gem/credentials",
                "com.vercel.cli",
                "opencode/auth.json",
                "signal-cli",
                "TelegramDesktop",
                "evolution",
                "remmina",
                "lftp",
                "DBeaverData",
                "atuin",
                "fish/fish_history",
            ],
        ),
        (Cover::Empty, &["nvim/shada/main.shada"]),
        (Cover::ClosedIfSecret, &[]),
        (Cover::EmptyIfSecret, &[]),
    ],
};

const STATE: Shelf = Shelf {
    directory: ".local/state",
    when: When::AtOnce,
    secrets: [
        (Cover::Closed, &["bash/history", "zsh/history", "syncthing/key.pem"]),
        (Cover::Empty, &["nvim/shada/main.shada"]),
        (Cover::ClosedIfSecret, &[]),
        (Cover::EmptyIfSecret, &[]),
    ],
};

const HUGGING_FACE: Shelf = Shelf {
    directory: ".cache/huggingface",
    when: When::Later,
    secrets: [
        (Cover::Closed, &["token", "stored_tokens"]),
        (Cover::Empty, &[]),
        (Cover::ClosedIfSecret, &[]),
        (Cover::EmptyIfSecret, &[]),
    ],
};

/// What only uid 0 could read in the first place.
const HIDDEN_FROM_ROOT: [&str; 4] = ["/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-"];

const SSH_HOST_KEYS: &str = "/etc/ssh";

/// Hides the secrets below each of `homes`, and the system's when the caller is uid 0.
pub(crate) fn hide(draft: &mut Draft<'_>, homes: &[AbsPath]) {
    for home in homes {
        let present = Present::below(draft, home);
        for shelf in &SHELVES {
            hide_shelf(draft, home, &present, shelf);
        }
        hide_histories(draft, home, &present);
    }
    if draft.reader.host().uid == 0 {
        hide_from_root(draft);
    }
}

fn hide_shelf(draft: &mut Draft<'_>, home: &AbsPath, at_home: &Present<'_>, shelf: &Shelf) {
    let may_exist = match (at_home, shelf.when) {
        (Present::Unknown, When::AtOnce) => true,
        _ => at_home.may_hold(shelf.directory),
    };
    if !may_exist && !shelf.directory.is_empty() {
        return;
    }
    let directory = below(home, shelf.directory);
    let present = Present::below(draft, &directory);
    for (cover, names) in shelf.secrets {
        for name in names.iter().filter(|name| present.may_hold(name)) {
            hide_one(draft, &below(&directory, name), cover);
        }
    }
}

/// Hides what shells and interpreters call their histories, with the copies that are left beside them.
fn hide_histories(draft: &mut Draft<'_>, home: &AbsPath, present: &Present<'_>) {
    let Present::Only(names, _) = present else { return };
    let histories =
        names.iter().filter(|(name, kind)| *kind != FileKind::Directory && is_history(name.as_bytes()));
    for path in histories.filter_map(|(name, _)| entry(home, name.as_bytes())) {
        hide_one(draft, &path, Cover::Closed);
    }
}

fn is_history(name: &[u8]) -> bool {
    const WORD: &[u8] = b"history";
    name.starts_with(b".") && name.windows(WORD.len()).any(|part| part == WORD)
}

fn hide_from_root(draft: &mut Draft<'_>) {
    for path in HIDDEN_FROM_ROOT {
        hide_one(draft, &below(&AbsPath::root(), path), Cover::Closed);
    }
    let directory = below(&AbsPath::root(), SSH_HOST_KEYS);
    match draft.reader.list(&directory) {
        Names::Unknown | Names::Missing => {}
        Names::Known(names) => {
            let keys = names.iter().map(|(name, _)| name.as_bytes()).filter(|name| is_host_key(name));
            for path in keys.filter_map(|name| entry(&directory, name)) {
                hide_one(draft, &path, Cover::Closed);
            }
        }
        Names::TooLong | Names::Unreadable(_) => hide_one(draft, &directory, Cover::Closed),
    }
}

fn is_host_key(name: &[u8]) -> bool {
    name.starts_with(b"ssh_host_") && name.ends_with(b"_key")
}

fn hide_one(draft: &mut Draft<'_>, secret: &AbsPath, cover: Cover) {
    // Most settings are harmless, and then nothing else is asked.
    if cover.depends_on_content() && !may_hold_credential(draft, secret) {
        return;
    }
    // What cannot be looked up by the caller cannot be opened by its child.
    let Found::File(fact) = draft.reader.resolve(secret) else { return };
    let target = &fact.pinned;
    let is_link = target.path != *secret;
    if cover.depends_on_content() && is_link && !may_hold_credential(draft, &target.path) {
        return;
    }
    if draft.is_too_broad_to_hide(&target.path) {
        draft.notes.push(Note::SecretNotHidden { secret: secret.clone(), target: target.path.clone() });
        return;
    }
    let readable_empty = cover.is_readable() && target.identity.kind == FileKind::File;
    draft.grant(target, GrantKind::Hide { readable_empty }, ORIGIN);
}

/// What is too long, can't be read, or is a link, which is not read through, may hold anything.
fn may_hold_credential(draft: &Draft<'_>, path: &AbsPath) -> bool {
    match draft.reader.content(path) {
        Content::Known(content) => settings::hold_credential(content),
        Content::TooLong | Content::Unreadable(_) => true,
        Content::Unknown | Content::Missing => false,
    }
}

/// Which names a directory holds, so that one listing saves most of the look-ups below it.
pub(crate) enum Present<'a> {
    /// The listing is on its way: nothing is worth a question yet.
    Unknown,
    /// Exactly these, sorted.
    Only(&'a [(ByteString, FileKind)], Filter),
    /// It is too long or unreadable: everything has to be asked.
    Any,
}

impl<'a> Present<'a> {
    pub(crate) fn below(draft: &Draft<'a>, directory: &AbsPath) -> Self {
        match draft.reader.list(directory) {
            Names::Unknown => Self::Unknown,
            Names::Known(names) => Self::Only(names, Filter::of(names)),
            Names::Missing => Self::Only(&[], Filter::of(&[])),
            Names::TooLong | Names::Unreadable(_) => Self::Any,
        }
    }

    /// Whether the first component of `relative` may exist.
    pub(crate) fn may_hold(&self, relative: &str) -> bool {
        let relative = relative.as_bytes();
        let end = relative.iter().position(|&byte| byte == b'/').unwrap_or(relative.len());
        let first = &relative[..end];
        match self {
            Self::Unknown => false,
            Self::Only(names, filter) => {
                filter.may_hold(first)
                    && names.binary_search_by(|(name, _)| name.as_bytes().cmp(first)).is_ok()
            }
            Self::Any => true,
        }
    }
}

/// Tells most names that a directory does not hold without a search: there are hundreds of them.
#[derive(Default)]
pub(crate) struct Filter([u64; 16]);

impl Filter {
    fn of(names: &[(ByteString, FileKind)]) -> Self {
        let mut filter = Self::default();
        for (name, _) in names {
            let (word, bit) = Self::place(name.as_bytes());
            filter.0[word] |= bit;
        }
        filter
    }

    fn may_hold(&self, name: &[u8]) -> bool {
        let (word, bit) = Self::place(name);
        self.0[word] & bit != 0
    }

    /// Names mostly begin with a dot; what follows it, the last byte and the length tell them apart.
    fn place(name: &[u8]) -> (usize, u64) {
        let at = |index: usize| name.get(index).map_or(0, |&byte| usize::from(byte));
        let mixed = at(1) * 31 + at(name.len().saturating_sub(1)) * 7 + at(2) * 3 + name.len();
        (mixed / 64 % 16, 1 << (mixed % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{FakeHost, path, request};
    use crate::{Access, Profile};
    use sandbar_proto::FactQuery;

    const CREDENTIAL: &str = "password = hunter2";

    fn places() -> impl Iterator<Item = (Cover, String)> {
        SHELVES.iter().flat_map(|shelf| {
            let home = below(&path("/home/u"), shelf.directory);
            shelf.secrets.into_iter().flat_map(move |(cover, names)| {
                let home = home.clone();
                names.iter().map(move |name| (cover, below(&home, name).to_display()))
            })
        })
    }

    #[test]
    fn every_place_is_hidden_as_its_list_says() {
        for profile in [Profile::Workspace, Profile::ReadOnly] {
            let empty = FakeHost::with_home().dir("/home/u/proj");
            let host = places().fold(empty, |host, (_, place)| host.text(&place, CREDENTIAL));
            let mut asked = request("/home/u/proj");
            asked.profile = profile;
            let compiled = host.compile(&asked);
            let mut expected: Vec<(String, bool)> =
                places().map(|(cover, place)| (place, cover.is_readable())).collect();
            expected.sort();
            assert_eq!(host.masks(&compiled), expected);
            assert_eq!(compiled.notes, []);
        }
    }

    #[test]
    fn no_place_lies_in_another_or_is_named_twice() {
        let all: Vec<AbsPath> = places().map(|(_, place)| path(&place)).collect();
        for (index, place) in all.iter().enumerate() {
            let above = all.iter().enumerate().find(|(other, at)| *other != index && place.starts_with(at));
            assert_eq!(above, None, "{place:?}");
        }
    }

    #[test]
    fn settings_are_hidden_only_while_they_hold_a_credential() {
        let conditional = || places().filter(|(cover, _)| cover.depends_on_content()).map(|(_, place)| place);
        assert!(conditional().count() > 20);
        let empty = || FakeHost::with_home().dir("/home/u/proj");
        let host =
            conditional().fold(empty(), |host, place| host.text(&place, "parallel = true\n# password = x"));
        let (compiled, rounds, _) = host.count(&request("/home/u/proj"));
        let compiled = compiled.unwrap();
        assert_eq!(host.masks(&compiled), []);
        for place in conditional() {
            assert_ne!(host.access(&compiled, &place), Access::None, "{place}");
        }
        assert!(rounds <= 3, "{rounds} rounds");
    }

    #[test]
    fn settings_behind_a_link_or_too_long_to_look_at_are_no_way_around() {
        let long = "# nothing\n".repeat(FactQuery::MAX_BYTES / 10 + 1);
        let host = FakeHost::with_home()
            .dir("/home/u/proj")
            .text("/dotfiles/pip.conf", CREDENTIAL)
            .link("/home/u/.config/pip/pip.conf", "/dotfiles/pip.conf")
            .text("/dotfiles/yarnrc", "nodeLinker: pnp")
            .link("/home/u/.yarnrc.yml", "/dotfiles/yarnrc")
            .text("/home/u/.gradle/gradle.properties", &long);
        let compiled = host.compile(&request("/home/u/proj"));
        let masks =
            ["/dotfiles/pip.conf", "/home/u/.gradle/gradle.properties"].map(|at| (at.to_owned(), true));
        assert_eq!(host.masks(&compiled), masks);
    }

    #[test]
    fn histories_are_found_by_their_names() {
        let host = FakeHost::with_home()
            .dir("/home/u/proj")
            .file("/home/u/.irb-history")
            .file("/home/u/.bash_history-123.tmp")
            .link("/home/u/.duckdb_history", "/data/duckdb")
            .file("/data/duckdb")
            .dir("/home/u/.history-tool")
            .file("/home/u/history.md");
        let masks = ["/data/duckdb", "/home/u/.bash_history-123.tmp", "/home/u/.irb-history"];
        let compiled = host.compile(&request("/home/u/proj"));
        assert_eq!(host.masks(&compiled), masks.map(|at| (at.to_owned(), false)));
    }

    #[test]
    fn a_home_without_secrets_is_asked_for_its_names_and_little_more() {
        let host = FakeHost::with_home().dir("/home/u/proj").dir("/home/u/.config/htop").dir("/home/u/.vim");
        let (compiled, rounds, asked) = host.count(&request("/home/u/proj"));
        assert_eq!(host.masks(&compiled.unwrap()), []);
        let about_secrets = |query: &&FactQuery| match query {
            FactQuery::Resolve(at) => places().any(|(_, place)| path(&place) == *at),
            FactQuery::List(at) => at.starts_with(&path("/home/u")) && !at.starts_with(&path("/home/u/proj")),
            FactQuery::Read(_)
            | FactQuery::Lookup(_)
            | FactQuery::Link(_)
            | FactQuery::GitLinks(_)
            | FactQuery::Glob(_)
            | FactQuery::User(_)
            | FactQuery::UserNamed(_) => false,
        };
        let asked: Vec<&FactQuery> = asked.iter().filter(about_secrets).collect();
        assert!(asked.len() <= 8, "{asked:#?}");
        assert!(rounds <= 3, "{rounds} rounds");
    }

    #[test]
    fn a_home_with_more_names_than_are_listed_is_asked_for_every_place() {
        let host = (0..=FactQuery::MAX_NAMES)
            .fold(FakeHost::with_home().dir("/home/u/proj"), |host, index| {
                host.file(&format!("/home/u/f{index}"))
            })
            .file("/home/u/.ssh/id")
            .file("/home/u/.config/gh/hosts.yml");
        let masks = ["/home/u/.config/gh", "/home/u/.ssh"].map(|at| (at.to_owned(), false));
        assert_eq!(host.masks(&host.compile(&request("/home/u/proj"))), masks);
    }

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
        asked.allow_read = vec![path("/home/u/.ssh/config"), path("/home/u/.aws")];
        let compiled = host.compile(&asked);
        let accesses = ["/home/u/.ssh/config", "/home/u/.ssh/id", "/home/u/.ssh", "/home/u/.aws/credentials"]
            .map(|path| host.access(&compiled, path));
        assert_eq!(accesses, [Access::Read, Access::None, Access::None, Access::Read]);
        let decided = compiled.permissions.access(&path("/home/u/.ssh/config")).1.unwrap();
        assert_eq!(decided.origin, Origin::Flag("--allow-read"));
    }
}
