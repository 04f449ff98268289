//! Looks up the facts that a policy asks for.
//!
//! Every path that is answered has no symlinks in it and led to the answered file when it was looked up; an
//! answer that raced with a change of the tree is [`FactAnswer::Failed`], never a wrong pair. The executor opens
//! the path again without symlinks and refuses another file, so a change after the look-up is its concern.
//! Decides nothing, caches nothing, asks no name service.

use std::io;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use sandbar_proto::{FactAnswer, FactQuery, Facts, HostFacts, IdRange};

mod git_index;
mod passwd;
mod path;
mod placeholder;
pub mod search;
mod wsl;

pub use path::identity;
pub use placeholder::{is_empty_directory, is_marked};
pub use wsl::is_wsl1;
#[cfg(test)]
mod tests;

/// Why the facts of the host could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file of procfs could not be read.
    #[error("read {file}: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of procfs is not what proc(5) says.
    #[error("understand the line `{line}` of {file}")]
    Malformed {
        /// The file.
        file: &'static str,
        /// The line.
        line: String,
    },
    /// The capabilities of this process could not be asked for.
    #[error("ask for the own capabilities: {0}")]
    Capabilities(#[source] io::Error),
    /// This is WSL 1, where nothing that a sandbox is made of exists.
    #[error("find a kernel that can make a sandbox: this is WSL 1")]
    Wsl1,
    /// The kernel's release does not start with two numbers.
    #[error("understand the kernel release `{0}`")]
    Release(String),
}

/// Returns the facts that hold for every plan of this process.
///
/// # Errors
/// See [`FactsError`]; in practice only without procfs, and on WSL 1.
pub fn host_facts() -> Result<HostFacts, FactsError> {
    let read = |source| FactsError::Read { file: wsl::FILE, source };
    if is_wsl1(&std::fs::read_to_string(wsl::FILE).map_err(read)?) {
        return Err(FactsError::Wsl1);
    }
    let capabilities =
        rustix::thread::capabilities(None).map_err(|errno| FactsError::Capabilities(errno.into()))?;
    let (users, outer_root) = user_map("/proc/self/uid_map")?;
    Ok(HostFacts {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        may_map_ids: capabilities.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID),
        users,
        groups: id_map("/proc/self/gid_map")?,
        landlock_abi: landlock_abi(),
        kernel: release(&rustix::system::uname().release().to_string_lossy())?,
        outer_root,
    })
}

/// Adds the answers to `queries`. What is known already stays, so that one plan sees one state of the host.
pub fn gather(facts: &mut Facts, queries: Vec<FactQuery>) {
    for query in queries {
        facts.answers.entry(query).or_insert_with_key(answer);
    }
}

/// Returns the answer to `query`; what could not be found out is an answer, too.
#[must_use]
pub fn answer(query: &FactQuery) -> FactAnswer {
    let answer = match query {
        FactQuery::Lookup(path) => path::look_up(path, path::Final::Kept).map(FactAnswer::File),
        FactQuery::Resolve(path) => path::look_up(path, path::Final::Followed).map(FactAnswer::File),
        FactQuery::List(path) => path::list(path).map(FactAnswer::Names),
        FactQuery::Read(path) => path::read(path).map(FactAnswer::Content),
        FactQuery::Link(path) => path::link(path).map(FactAnswer::Content),
        FactQuery::GitLinks(path) => git_index::links(path).map(FactAnswer::GitLinks),
        FactQuery::Glob(glob) => search::search(glob).map(FactAnswer::Matches),
        FactQuery::User(uid) => passwd::user(passwd::By::Uid(*uid)),
        FactQuery::UserNamed(name) => passwd::user(passwd::By::Name(name.as_bytes())),
    };
    answer.unwrap_or_else(Failure::into_answer)
}

/// Why a question has no positive answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing has that name.
    Missing,
    /// More than the query's bound.
    TooLong,
    /// It could not be looked up.
    Errno(Errno),
}

impl Failure {
    fn into_answer(self) -> FactAnswer {
        match self {
            Self::Missing => FactAnswer::Missing,
            Self::TooLong => FactAnswer::TooLong,
            Self::Errno(errno) => FactAnswer::Failed { errno: errno.raw_os_error() },
        }
    }
}

impl From<Errno> for Failure {
    /// For calls that take the path of a query; ENOENT from anything else does not mean that the path is missing.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            other => Self::Errno(other),
        }
    }
}

/// The users that exist in the caller's user namespace, and which of them its parent calls 0.
fn user_map(file: &'static str) -> Result<(Vec<IdRange>, Option<u32>), FactsError> {
    let text = std::fs::read_to_string(file).map_err(|source| FactsError::Read { file, source })?;
    let malformed = |line: &str| FactsError::Malformed { file, line: line.to_owned() };
    let users: Result<_, _> =
        text.lines().map(|line| id_range(line).ok_or_else(|| malformed(line))).collect();
    Ok((users?, outer_root(&text)))
}

/// The id whose counterpart outside is 0: the first of the line that begins there, since no counterpart is smaller.
fn outer_root(map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let inside = columns.next()?.parse().ok()?;
        (columns.next()? == "0").then_some(inside)
    })
}

/// Reads the ids that exist in the caller's user namespace: the first column of a map, user_namespaces(7).
fn id_map(file: &'static str) -> Result<Vec<IdRange>, FactsError> {
    let text = std::fs::read_to_string(file).map_err(|source| FactsError::Read { file, source })?;
    let malformed = |line: &str| FactsError::Malformed { file, line: line.to_owned() };
    text.lines().map(|line| id_range(line).ok_or_else(|| malformed(line))).collect()
}

/// Parses `inside outside count`.
fn id_range(line: &str) -> Option<IdRange> {
    let mut columns = line.split_ascii_whitespace().map(|column| column.parse::<u32>().ok());
    let (first, _outside, count) = (columns.next()??, columns.next()??, columns.next()??);
    columns.next().is_none().then_some(IdRange { first, count })
}

/// Parses the major and minor number of a release such as `6.18.44-fc`.
fn release(text: &str) -> Result<(u32, u32), FactsError> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(FactsError::Release(text.to_owned())),
    }
}

/// Returns the version of Landlock, or 0 when it cannot be used.
#[must_use]
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let attributes = std::ptr::null::<u8>();
    // SAFETY: with this flag the kernel demands a null pointer and a size of 0 and touches no memory of ours.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    // Every error means the same: ENOSYS when it is not built in, EOPNOTSUPP when it was not enabled at boot,
    // EPERM under an outer filter that does not know the call.
    u32::try_from(version).unwrap_or(0)
}
