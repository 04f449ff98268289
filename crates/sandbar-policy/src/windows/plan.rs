//! A plan for Windows as data: token, entries of access control lists, integrity labels, job object, filters.
//!
//! Entries and labels stand while the run lives; the keeper removes what it added. Writing needs two things of a
//! write-restricted token: what the account may, and an entry for one of its restricting SIDs. That SID is made for the
//! run, so entries of another run grant it nothing.

use sandbar_proto::Limit;

use super::{Level, Paths, WindowsPath};
use crate::{Confinement, Openings, Reach};

/// Everything that has to be made before the command starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsPlan {
    /// What the command runs with.
    pub token: Token,
    /// Entries to add, in no order: Windows sorts them, denials before grants and a file's own before inherited ones.
    pub entries: Vec<AclEntry>,
    /// Labels to set.
    pub labels: Vec<Label>,
    /// What holds the tree.
    pub job: Job,
    /// Filters of the firewall, the one with the highest weight decides.
    pub firewall: Vec<FirewallRule>,
    /// What is not as on Linux, to be told.
    pub exceptions: Vec<&'static str>,
}

/// Whose access control entries are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sid {
    /// Made for the run, and nobody's.
    Capability,
    /// The session in which the person is logged on, for the desktop and pipes.
    Logon,
    /// The accounts of sandboxes.
    SandboxAccounts,
}

/// A local account of the elevated level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// The one whose connections are filtered.
    Offline,
    /// The one whose are not.
    Online,
}

/// Flags of `CreateRestrictedToken`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// `DISABLE_MAX_PRIVILEGE`: no privilege but to pass through directories.
    DisableMaxPrivilege,
    /// `LUA_TOKEN`: administrators are only asked for denials.
    LuaToken,
    /// `WRITE_RESTRICTED`: restricting SIDs count for writing.
    WriteRestricted,
}

/// How much a token is trusted, whatever lists say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// `S-1-16-4096`.
    Low,
    /// `S-1-16-8192`, what a person's programs have.
    Medium,
}

/// What the command runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Another account than the person's.
    pub account: Option<Account>,
    /// How it is restricted.
    pub flags: [Flag; 3],
    /// SIDs of which one needs an entry for what is written. Not `Everyone`: what anybody may write is not the run's.
    pub restricting: [Sid; 2],
    /// How much it is trusted.
    pub integrity: Integrity,
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It grants.
    Allow,
    /// It denies, before anything on the same file grants.
    Deny,
}

/// What an entry is about, besides its own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Its own file only.
    This,
    /// What lies below it only (`INHERIT_ONLY`).
    Below,
    /// Both.
    Both,
}

/// An access mask of files (winnt.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(pub u32);

/// The rights that entries are made of (winnt.h).
pub mod rights {
    use super::Rights;

    const READ_DATA: u32 = 0x1;
    const WRITE_DATA: u32 = 0x2;
    const APPEND_DATA: u32 = 0x4;
    const READ_EA: u32 = 0x8;
    const WRITE_EA: u32 = 0x10;
    const EXECUTE: u32 = 0x20;
    const DELETE_CHILD: u32 = 0x40;
    const READ_ATTRIBUTES: u32 = 0x80;
    const WRITE_ATTRIBUTES: u32 = 0x100;
    const DELETE_SELF: u32 = 0x1_0000;
    const READ_CONTROL: u32 = 0x2_0000;
    const WRITE_DAC: u32 = 0x4_0000;
    const WRITE_OWNER: u32 = 0x8_0000;
    const SYNCHRONIZE: u32 = 0x10_0000;

    /// Reading, listing, executing.
    pub const READ: Rights =
        Rights(READ_DATA | READ_EA | EXECUTE | READ_ATTRIBUTES | READ_CONTROL | SYNCHRONIZE);
    /// Reading, and changing what is in a file or a directory; not removing it. Not removing what lies in a directory by the
    /// directory's right either: that would reach around the entries there.
    pub const FILL: Rights = Rights(READ.0 | WRITE_DATA | APPEND_DATA | WRITE_EA | WRITE_ATTRIBUTES);
    /// The same, and removing or renaming it.
    pub const CHANGE: Rights = Rights(FILL.0 | DELETE_SELF);
    /// Removing or renaming.
    pub const DELETE: Rights = Rights(DELETE_SELF);
    /// Every change, also of the list itself.
    pub const ANY_CHANGE: Rights = Rights(
        WRITE_DATA
            | APPEND_DATA
            | WRITE_EA
            | WRITE_ATTRIBUTES
            | DELETE_SELF
            | DELETE_CHILD
            | WRITE_DAC
            | WRITE_OWNER,
    );
}

/// An entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclEntry {
    /// Whose list.
    pub path: WindowsPath,
    /// About whom.
    pub sid: Sid,
    /// What it does.
    pub effect: Effect,
    /// With which rights.
    pub rights: Rights,
    /// For what.
    pub scope: Scope,
}

/// A mandatory label of a file and what lies below: nothing of a lower integrity writes there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Where.
    pub path: WindowsPath,
    /// Which.
    pub integrity: Integrity,
}

/// What a job object keeps its processes from (`JOB_OBJECT_UILIMIT_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UiLimit {
    /// Other desktops.
    Desktop,
    /// Changing the display.
    DisplaySettings,
    /// Logging off and shutting down.
    ExitWindows,
    /// Atoms of others.
    GlobalAtoms,
    /// Windows of others.
    Handles,
    /// Reading the clipboard.
    ReadClipboard,
    /// Writing it.
    WriteClipboard,
    /// Changing parameters of the system.
    SystemParameters,
}

impl UiLimit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Desktop,
        Self::DisplaySettings,
        Self::ExitWindows,
        Self::GlobalAtoms,
        Self::Handles,
        Self::ReadClipboard,
        Self::WriteClipboard,
        Self::SystemParameters,
    ];
}

/// What holds the tree: every process of it, none leaves, all end with the keeper's handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whether closing it ends the tree (`JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`).
    pub kill_on_close: bool,
    /// Whether a process may leave it (`JOB_OBJECT_LIMIT_BREAKAWAY_OK`).
    pub may_leave: bool,
    /// What it keeps its processes from.
    pub ui: [UiLimit; 8],
    /// Memory that the tree may commit, in bytes (`JobMemoryLimit`).
    pub memory_bytes: Option<u64>,
}

/// Whether a filter lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It does.
    Permit,
    /// It does not.
    Block,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connecting and sending.
    Outbound,
    /// Accepting and receiving.
    Inbound,
}

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Every one.
    Any,
    /// TCP.
    Tcp,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Anybody, this machine too.
    Any,
    /// This machine.
    Loopback,
    /// A port of this machine.
    LoopbackPort(u16),
}

/// A filter of the Windows Filtering Platform, for the connections of one account in both versions of IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// Whose.
    pub account: Account,
    /// What it does.
    pub action: Action,
    /// Which way.
    pub direction: Direction,
    /// Which protocol.
    pub protocol: Protocol,
    /// Who is at the other end.
    pub remote: Remote,
    /// Of the filters that match, the one with the highest decides.
    pub weight: u8,
}

const FALLBACK: u8 = 0;
const OPENING: u8 = 8;

/// Makes the plan of what was found to be enforceable.
pub(super) fn assemble(
    confinement: &Confinement,
    level: Level,
    paths: &Paths,
    exceptions: Vec<&'static str>,
) -> WindowsPlan {
    let account = match (level, confinement.reach()) {
        (Level::Disabled | Level::RestrictedToken, _) => None,
        (Level::Elevated, Reach::All) => Some(Account::Online),
        (Level::Elevated, Reach::Only(_)) => Some(Account::Offline),
    };
    let memory_bytes = confinement.limits().get(Limit::Memory);
    WindowsPlan {
        token: token(account),
        entries: entries(paths, account.is_some()),
        labels: labels(paths, account.is_some()),
        job: Job { kill_on_close: true, may_leave: false, ui: UiLimit::ALL, memory_bytes },
        firewall: firewall(confinement.reach(), account),
        exceptions,
    }
}

fn token(account: Option<Account>) -> Token {
    Token {
        account,
        flags: [Flag::DisableMaxPrivilege, Flag::LuaToken, Flag::WriteRestricted],
        restricting: [Sid::Capability, Sid::Logon],
        // Another account's processes and files are out of reach anyway, and one's own are not to be labelled.
        integrity: if account.is_some() { Integrity::Medium } else { Integrity::Low },
    }
}

fn entries(paths: &Paths, has_account: bool) -> Vec<AclEntry> {
    let entry = |path: &WindowsPath, sid, effect, rights, scope| AclEntry {
        path: path.clone(),
        sid,
        effect,
        rights,
        scope,
    };
    let mut entries = Vec::new();
    let accounts: &[Sid] =
        if has_account { &[Sid::Capability, Sid::SandboxAccounts] } else { &[Sid::Capability] };
    for path in paths.writable.iter().chain(&paths.temporary) {
        for &sid in accounts {
            // The root of what is writable stays where it is.
            entries.push(entry(path, sid, Effect::Allow, rights::FILL, Scope::This));
            entries.push(entry(path, sid, Effect::Allow, rights::CHANGE, Scope::Below));
        }
    }
    // For the account, too: which rights count as writing for a restricted token is not documented to the last one.
    for &sid in accounts {
        let deny = |path, rights, scope| entry(path, sid, Effect::Deny, rights, scope);
        entries.extend(paths.read_only.iter().map(|path| deny(path, rights::ANY_CHANGE, Scope::Both)));
        entries.extend(paths.leading.iter().map(|path| deny(path, rights::DELETE, Scope::This)));
    }
    if has_account {
        let everywhere = paths.readable.is_empty().then_some(paths.profile.as_ref()).flatten();
        for path in paths.readable.iter().chain(everywhere) {
            entries.push(entry(path, Sid::SandboxAccounts, Effect::Allow, rights::READ, Scope::Both));
        }
    }
    entries
}

/// A token of low integrity writes only where a label lets it.
fn labels(paths: &Paths, has_account: bool) -> Vec<Label> {
    if has_account {
        return Vec::new();
    }
    let label = |integrity| move |path: &WindowsPath| Label { path: path.clone(), integrity };
    let low = paths.writable.iter().chain(&paths.temporary).map(label(Integrity::Low));
    low.chain(paths.read_only.iter().map(label(Integrity::Medium))).collect()
}

fn firewall(reach: &Reach, account: Option<Account>) -> Vec<FirewallRule> {
    let (Reach::Only(openings), Some(account)) = (reach, account) else { return Vec::new() };
    let rule = |action, direction, protocol, remote, weight| FirewallRule {
        account,
        action,
        direction,
        protocol,
        remote,
        weight,
    };
    let blocked = [Direction::Outbound, Direction::Inbound]
        .map(|direction| rule(Action::Block, direction, Protocol::Any, Remote::Any, FALLBACK));
    let Openings { loopback_ports, local_binding, sockets: _ } = openings;
    let ports = loopback_ports.iter().map(|port| {
        rule(Action::Permit, Direction::Outbound, Protocol::Tcp, Remote::LoopbackPort(*port), OPENING)
    });
    let loopback = [Direction::Outbound, Direction::Inbound]
        .map(|direction| rule(Action::Permit, direction, Protocol::Any, Remote::Loopback, OPENING));
    blocked.into_iter().chain(ports).chain(loopback.into_iter().filter(|_| *local_binding)).collect()
}
