//! Finding the keeper, or starting it: on demand, once, detached from whoever needed it first.
//!
//! A client connects; if nobody listens it takes the directory's start lock, looks again, starts this very
//! program as the keeper and waits until it says that it listens. The keeper keeps nothing of the client's: an
//! empty environment, `/` as working directory, no descriptor, its own session.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sandbar_proto::LimitFacts;
use serde::{Deserialize, Serialize};

use crate::client::{Client, ClientError, Incoming};
use crate::daemon;
use crate::patience::Patience;
use crate::protocol::{MINOR, PeerRefusal, Refusal, Reply, Request, UPGRADE_MINOR, UpgradeRefusal};
use crate::runtime_dir::{KeeperDir, RuntimeDirError};

/// First argument of this program when it is to be the keeper. Its directory is the one that it is started in: its
/// arguments are those of every pid 1 that it forks, and name no path of the host.
pub const KEEPER_ARGUMENT: &str = "--sandbar-run-as-keeper";

/// Second argument of a keeper that takes over from the one that it replaces; the third is the number of the descriptor
/// that the state is in.
pub(crate) const TAKE_OVER_ARGUMENT: &str = "take-over";

/// Second argument of a program that is asked whether it could; the third is the same.
pub(crate) const REHEARSE_ARGUMENT: &str = "rehearse";

/// First argument of this program when it is to record what nobody else records, for the keeper whose directory it is
/// started in.
pub const ATTENDANT_ARGUMENT: &str = "--sandbar-run-as-attendant";

/// How long a keeper may take until it listens. It reads the records of earlier runs first, a thousand of them at
/// most; a machine that swaps is why this is not one second.
const START_DEADLINE: Duration = Duration::from_secs(15);

/// How long a keeper may take to answer the first message: as long as a person who is told that it does not needs to
/// let it go on.
const HELLO_DEADLINE: Duration = Duration::from_secs(30);

/// How often another client's start of the keeper is looked at; flock(2) has no deadline of its own.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Why there is no connection to a keeper.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The runtime directory can't be used.
    #[error(transparent)]
    Directory(#[from] RuntimeDirError),
    /// No keeper runs, and none was to be started.
    #[error("reach a keeper in {}: none runs", path.display())]
    NotRunning {
        /// Its directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{step} in {}: {errno}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// The keeper's directory.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
    /// The keeper was started and could not serve.
    #[error("start the keeper in {}: {message}", path.display())]
    Start {
        /// Its directory.
        path: PathBuf,
        /// What it said.
        message: String,
        /// The kernel's error, where there was one.
        errno: Option<i32>,
    },
    /// The keeper did not answer in time.
    #[error("hear from the keeper in {} within {} s", path.display(), deadline.as_secs())]
    Silent {
        /// Its directory.
        path: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The keeper does not serve this caller.
    #[error("use the keeper in {}: {reason}", path.display())]
    Refused {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        reason: PeerRefusal,
    },
    /// The keeper is too old for this program.
    #[error("use the keeper of sandbar {version} (protocol minor {minor}) in {}", path.display())]
    TooOld {
        /// Its directory.
        path: PathBuf,
        /// Its release.
        version: String,
        /// Its minor.
        minor: u32,
    },
    /// The keeper is too old to limit anything but time.
    #[error("limit anything with the keeper in {}: it is older than this program", path.display())]
    NoLimits {
        /// Its directory.
        path: PathBuf,
    },
    /// The keeper broke the protocol.
    #[error("talk to the keeper in {}: {error}", path.display())]
    Protocol {
        /// Its directory.
        path: PathBuf,
        /// How.
        error: ClientError,
    },
}

/// Minors of keepers that this program can use: from the one that has every message it needs, and every newer one.
const NEEDED_MINORS: std::ops::RangeFrom<u32> = 0..;

/// What a starting keeper says on the pipe to its client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ready {
    /// It listens.
    Listening,
    /// Another one serves the directory.
    AlreadyServed,
    /// It gave up.
    Failed { message: String, errno: Option<i32> },
}

/// Connects to the keeper of `home`, which must run.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(home: &KeeperDir, patience: &Patience) -> Result<Client, ConnectError> {
    try_connect(home, patience)?.ok_or_else(|| ConnectError::NotRunning { path: home.path().to_owned() })
}

/// Connects to the keeper of `home`; starts `program` as one when none runs.
///
/// # Errors
/// [`ConnectError`].
pub fn connect_or_start(
    home: &KeeperDir,
    program: &Path,
    patience: &Patience,
) -> Result<Client, ConnectError> {
    knock(home)?.enter(home, program, patience)
}

/// A keeper that was greeted and has not answered yet, if one listens at all. What the caller does until
/// [`Knock::enter`] the keeper's look at the caller costs no time.
#[must_use]
pub struct Knock(Option<Client>);

/// Greets the keeper of `home` without waiting for its answer.
///
/// # Errors
/// [`ConnectError`].
pub fn knock(home: &KeeperDir) -> Result<Knock, ConnectError> {
    Ok(Knock(open_connection(home)?))
}

impl Knock {
    /// Whether a keeper listens.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the answer; starts `program` as a keeper when none runs.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn enter(
        self,
        home: &KeeperDir,
        program: &Path,
        patience: &Patience,
    ) -> Result<Client, ConnectError> {
        if let Some(client) = self.0
            && let Some(client) = await_greeting(home, client, patience)?
        {
            return renew(home, client, program, patience, MINOR);
        }
        home.ensure()?;
        let _lock = start_lock(home)?;
        if let Some(client) = try_connect(home, patience)? {
            return renew(home, client, program, patience, MINOR);
        }
        start(home, program)?;
        connect(home, patience)
    }
}

/// Asks a keeper that greeted what it can enforce limits with.
///
/// # Errors
/// [`ConnectError`]: it is gone, does not answer, or is older than the question.
pub fn limits(
    home: &KeeperDir,
    client: &mut Client,
    patience: &Patience,
) -> Result<LimitFacts, ConnectError> {
    let path = || home.path().to_owned();
    let protocol = |error| ConnectError::Protocol { path: path(), error };
    let number = client.request(Request::Limits, &[], Vec::new()).map_err(protocol)?;
    client.flush().map_err(protocol)?;
    let begun = Instant::now();
    let deadline = begun + HELLO_DEADLINE;
    let mut silent_until = Some(begun + patience.silence());
    loop {
        match client.receive().map_err(protocol)? {
            Some(Incoming::Reply(answered, Reply::Limits { facts })) if answered == number => {
                return Ok(facts);
            }
            Some(Incoming::Reply(_, Reply::Refused { .. })) => {
                return Err(ConnectError::NoLimits { path: path() });
            }
            Some(_) => {}
            None => {
                let until = silent_until.unwrap_or(deadline).min(deadline);
                if wait_readable(&*client, until).map_err(io_error(home, "wait for the keeper"))? {
                    continue;
                }
                if silent_until.take().is_some() {
                    patience.run_out();
                } else {
                    return Err(ConnectError::Silent { path: path(), deadline: HELLO_DEADLINE });
                }
            }
        }
    }
}

fn io_error(home: &KeeperDir, step: &'static str) -> impl Fn(Errno) -> ConnectError {
    let path = home.path().to_owned();
    move |errno| ConnectError::Io { step, path: path.clone(), errno }
}

/// `None` if no keeper listens, or one leaves this very moment.
fn try_connect(home: &KeeperDir, patience: &Patience) -> Result<Option<Client>, ConnectError> {
    match open_connection(home)? {
        Some(client) => await_greeting(home, client, patience),
        None => Ok(None),
    }
}

/// Connects and sends the first message. `None` if no keeper listens.
fn open_connection(home: &KeeperDir) -> Result<Option<Client>, ConnectError> {
    let fail = io_error(home, "connect to the keeper");
    let (_directory, address) = match home.socket_address(KeeperDir::SOCKET) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(&fail)?;
    let address = SocketAddrUnix::new(&address).map_err(&fail)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    }
    let flags = rustix::fs::fcntl_getfl(&socket).map_err(&fail)?;
    rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK).map_err(&fail)?;
    let mut client = Client::new(socket);
    let protocol = |error| ConnectError::Protocol { path: home.path().to_owned(), error };
    let hello = Request::Hello { minor: MINOR, version: env!("CARGO_PKG_VERSION").to_owned() };
    client.request(hello, &[], Vec::new()).map_err(protocol)?;
    // A peer that refuses us has already closed; what it said is still there to read.
    match client.flush() {
        Ok(_) | Err(ClientError::Closed) => Ok(Some(client)),
        Err(error) => Err(protocol(error)),
    }
}

/// Whether a program asks a keeper to replace itself by it: the keeper can, and lacks something that the program has.
fn is_outdated(keeper: u32, own: u32) -> bool {
    (UPGRADE_MINOR..own).contains(&keeper)
}

/// Has a keeper that is outdated for a program of minor `own` replace itself by `program`. One that can't goes on as it
/// is, and serves as it always did; [`Client::upgrade_refusal`] says why.
fn renew(
    home: &KeeperDir,
    mut client: Client,
    program: &Path,
    patience: &Patience,
    own: u32,
) -> Result<Client, ConnectError> {
    if !client.peer().is_some_and(|peer| is_outdated(peer.minor, own)) {
        return Ok(client);
    }
    let program = match File::open(program) {
        Ok(program) => program,
        Err(error) => {
            let message = format!("{}: {error}", program.display());
            client.note_upgrade(Err(UpgradeRefusal::Failed { message }));
            return Ok(client);
        }
    };
    let result = upgrade(home, &mut client, program.into(), patience)?;
    client.note_upgrade(result);
    Ok(client)
}

/// Has the keeper at the other end of `client` replace itself by `program`, and waits for what becomes of that. Nothing
/// else may wait for an answer on this connection. Returns the minor and the release of the keeper from then on, or why
/// it goes on as it is.
///
/// # Errors
/// [`ConnectError`]: the keeper is gone or silent.
pub fn upgrade(
    home: &KeeperDir,
    client: &mut Client,
    program: OwnedFd,
    patience: &Patience,
) -> Result<Result<(u32, String), UpgradeRefusal>, ConnectError> {
    let protocol = |error| ConnectError::Protocol { path: home.path().to_owned(), error };
    client.request(Request::Upgrade, &[], vec![program]).map_err(protocol)?;
    client.flush().map_err(protocol)?;
    match await_reply(home, client, patience)? {
        Reply::Upgraded { minor, version } => Ok(Ok((minor, version))),
        Reply::Refused { error: Refusal::Upgrade { reason } } => Ok(Err(reason)),
        Reply::Refused { error } => Ok(Err(UpgradeRefusal::Failed { message: format!("{error:?}") })),
        Reply::Hello { .. }
        | Reply::Process { .. }
        | Reply::Written { .. }
        | Reply::Listed { .. }
        | Reply::Sessions { .. }
        | Reply::Limits { .. }
        | Reply::Done => {
            let message = "it answered something else than was asked".to_owned();
            Ok(Err(UpgradeRefusal::Failed { message }))
        }
    }
}

/// The next answer of the keeper; news are passed over.
fn await_reply(home: &KeeperDir, client: &mut Client, patience: &Patience) -> Result<Reply, ConnectError> {
    let path = || home.path().to_owned();
    let begun = Instant::now();
    let deadline = begun + HELLO_DEADLINE;
    let mut silent_until = Some(begun + patience.silence());
    loop {
        match client.receive().map_err(|error| ConnectError::Protocol { path: path(), error })? {
            Some(Incoming::Reply(_, reply)) => return Ok(reply),
            Some(Incoming::Event(_)) => continue,
            None => {}
        }
        let until = silent_until.unwrap_or(deadline).min(deadline);
        if wait_readable(&*client, until).map_err(io_error(home, "wait for the keeper"))? {
            continue;
        }
        match silent_until.take() {
            Some(_) => patience.run_out(),
            None => return Err(ConnectError::Silent { path: path(), deadline: HELLO_DEADLINE }),
        }
    }
}

fn await_greeting(
    home: &KeeperDir,
    mut client: Client,
    patience: &Patience,
) -> Result<Option<Client>, ConnectError> {
    let path = || home.path().to_owned();
    let protocol = |error| ConnectError::Protocol { path: path(), error };
    let begun = Instant::now();
    let deadline = begun + HELLO_DEADLINE;
    let mut silent_until = Some(begun + patience.silence());
    loop {
        match client.receive() {
            Ok(Some(Incoming::Reply(_, Reply::Hello { minor, version, .. }))) => {
                return if NEEDED_MINORS.contains(&minor) {
                    Ok(Some(client))
                } else {
                    Err(ConnectError::TooOld { path: path(), version, minor })
                };
            }
            Ok(Some(Incoming::Reply(_, Reply::Refused { error: Refusal::Peer { reason } }))) => {
                return Err(ConnectError::Refused { path: path(), reason });
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                let until = silent_until.unwrap_or(deadline).min(deadline);
                if wait_readable(&client, until).map_err(io_error(home, "wait for the keeper"))? {
                    continue;
                }
                if silent_until.take().is_some() {
                    patience.run_out();
                } else {
                    return Err(ConnectError::Silent { path: path(), deadline: HELLO_DEADLINE });
                }
            }
            // It left between our connect and its answer; the next one serves us.
            Err(ClientError::Closed) => return Ok(None),
            Err(error) => return Err(protocol(error)),
        }
    }
}

/// Waits until `fd` is readable; `false` at the deadline.
fn wait_readable(fd: impl std::os::fd::AsFd, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}

fn start_lock(home: &KeeperDir) -> Result<OwnedFd, ConnectError> {
    let fail = io_error(home, "take the start lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = rustix::fs::open(home.start_lock(), flags, mode).map_err(&fail)?;
    // The caller's umask may have taken our own rights away, and those of whoever comes next.
    rustix::fs::fchmod(&lock, mode).map_err(&fail)?;
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(LOCK_INTERVAL),
            Err(Errno::AGAIN) => {
                return Err(ConnectError::Silent { path: home.path().to_owned(), deadline: START_DEADLINE });
            }
            Err(errno) => return Err(fail(errno)),
        }
    }
}

/// Starts `program` as the keeper of `home` and waits until it listens.
fn start(home: &KeeperDir, program: &Path) -> Result<(), ConnectError> {
    let failed = |error: &io::Error| ConnectError::Start {
        path: home.path().to_owned(),
        message: format!("{}: {error}", program.display()),
        errno: error.raw_os_error(),
    };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(io_error(home, "make a pipe to the keeper"))?;
    let mut command = Command::new(program);
    command
        .arg0("sandbar-keeper")
        .arg(KEEPER_ARGUMENT)
        .env_clear()
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(write)
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    // Ours must be closed for the end of the keeper's to be seen.
    drop(command);
    let mut answer = Vec::new();
    let deadline = Instant::now() + START_DEADLINE;
    let mut pipe = File::from(read);
    loop {
        if !wait_readable(pipe.as_fd(), deadline).map_err(io_error(home, "wait for the keeper"))? {
            return Err(ConnectError::Silent { path: home.path().to_owned(), deadline: START_DEADLINE });
        }
        let mut chunk = [0; 4096];
        let count = pipe.read(&mut chunk).map_err(|error| failed(&error))?;
        answer.extend_from_slice(&chunk[..count]);
        if count == 0 || answer.ends_with(b"\n") {
            break;
        }
    }
    // The process that we started left as soon as its child, the keeper, was on its own.
    child.wait().map_err(|error| failed(&error))?;
    match serde_json::from_slice(&answer) {
        // Another keeper serves it: that one is as good.
        Ok(Ready::Listening | Ready::AlreadyServed) => Ok(()),
        Ok(Ready::Failed { message, errno }) => {
            Err(ConnectError::Start { path: home.path().to_owned(), message, errno })
        }
        Err(_) => Err(ConnectError::Start {
            path: home.path().to_owned(),
            message: "it ended without a word".to_owned(),
            errno: None,
        }),
    }
}

/// The keeper's main function: what [`KEEPER_ARGUMENT`] leads to.
///
/// Standard output is the pipe to the client that started it, the working directory the keeper's.
#[must_use]
pub fn keeper_main() -> i32 {
    let mut arguments = std::env::args().skip(2);
    let state = |number: String| number.parse().ok().filter(|number: &RawFd| *number > 2);
    match (arguments.next().as_deref(), arguments.next().and_then(state)) {
        (None, _) => {}
        (Some(TAKE_OVER_ARGUMENT), Some(state)) => return successor_main(state),
        (Some(REHEARSE_ARGUMENT), Some(state)) => return rehearsal_main(state),
        (Some(_), _) => return 2,
    }
    let Ok(home) = std::env::current_dir().map(KeeperDir::at) else { return 2 };
    let ready = match detach() {
        Ok(Detached::Keeper(ready)) => ready,
        Ok(Detached::Forerunner) => return 0,
        Err(_) => return 1,
    };
    let mut ready = Some(File::from(ready));
    let mut say = |word: &Ready| {
        if let Some(mut pipe) = ready.take() {
            let mut line = serde_json::to_vec(word).unwrap_or_default();
            line.push(b'\n');
            // A client that is gone by now needs no answer.
            let _ = pipe.write_all(&line);
        }
    };
    match daemon::serve(home, || say(&Ready::Listening)) {
        Ok(()) => 0,
        Err(daemon::KeeperError::AlreadyServed { .. }) => {
            say(&Ready::AlreadyServed);
            1
        }
        Err(error) => {
            let errno = match &error {
                daemon::KeeperError::SetUp { errno, .. } => Some(errno.raw_os_error()),
                daemon::KeeperError::Directory(RuntimeDirError::Io { errno, .. }) => {
                    Some(errno.raw_os_error())
                }
                daemon::KeeperError::Directory(RuntimeDirError::Untrusted { .. })
                | daemon::KeeperError::State(_)
                | daemon::KeeperError::AlreadyServed { .. } => None,
            };
            say(&Ready::Failed { message: error.to_string(), errno });
            1
        }
    }
}

/// Goes on in the place of the keeper that this process has been until now.
fn successor_main(state: RawFd) -> i32 {
    // It is named after the descriptor that it was executed through (execve(2)). A name is for people who look.
    let _ = rustix::thread::set_name(c"sandbar-keeper");
    // Whoever executes a program may be looked at again (prctl(2), PR_SET_DUMPABLE).
    if sandbar_sandbox::harden_self().is_err() {
        return 1;
    }
    // SAFETY: the keeper left this descriptor open for this program, which has not opened anything yet.
    let memfd = unsafe { OwnedFd::from_raw_fd(state) };
    // SAFETY: nothing else in this process owns a descriptor.
    match unsafe { daemon::take_over(memfd) } {
        Ok(()) => 0,
        // Nobody is left to be told: what the keeper held ends with its descriptors, and the next one says so.
        Err(_) => 1,
    }
}

/// Says on standard output whether this program could go on in the place of its parent.
fn rehearsal_main(state: RawFd) -> i32 {
    if sandbar_sandbox::harden_self().is_err() {
        return 1;
    }
    // SAFETY: the keeper left this descriptor open for this program, which has not opened anything yet.
    let memfd = unsafe { OwnedFd::from_raw_fd(state) };
    // SAFETY: nothing else in this process owns a descriptor.
    let word = unsafe { daemon::rehearsal(memfd) };
    let mut line = serde_json::to_vec(&word).unwrap_or_default();
    line.push(b'\n');
    // The descriptors close with the process; nothing of what they stand for is ours.
    let mut stdout = io::stdout();
    if stdout.write_all(&line).and_then(|()| stdout.flush()).is_ok() { 0 } else { 1 }
}

enum Detached {
    Keeper(OwnedFd),
    Forerunner,
}

/// Leaves the client's session, descriptors and reach. Returns the pipe to the client.
fn detach() -> Result<Detached, Errno> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    // A session leader could get a controlling terminal by opening one; its child can't, and its parent needs
    // to wait for nothing.
    // SAFETY: this program has one thread at this point, so its copy may do anything.
    match unsafe { libc::fork() } {
        -1 => return Err(Errno::AGAIN),
        0 => {}
        _ => return Ok(Detached::Forerunner),
    }
    let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    close_others(&pipe)?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    sandbar_sandbox::harden_self().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Detached::Keeper(pipe))
}

/// Closes every descriptor but the standard streams and `kept`.
fn close_others(kept: &OwnedFd) -> Result<(), Errno> {
    let kept = kept.as_raw_fd();
    for (first, last) in [(3, kept - 1), (kept + 1, i32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: nothing in this process owns a descriptor other than the standard streams and `kept`.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(Errno::NOSYS);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{self, Message, RequestHeader};
    use crate::transport::{self, Received};

    #[test]
    fn a_keeper_is_replaced_if_it_lacks_something_and_can_be() {
        assert!(!is_outdated(MINOR, MINOR), "of the same minor");
        assert!(!is_outdated(MINOR + 1, MINOR), "newer");
        assert!(!is_outdated(UPGRADE_MINOR - 1, UPGRADE_MINOR + 1), "it does not know how");
        assert!(is_outdated(UPGRADE_MINOR, UPGRADE_MINOR + 1));
    }

    /// What becomes of a client of minor `own` whose keeper introduces itself, and then answers like this.
    fn renewed(own: u32, answer: Option<Reply>) -> Client {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, keeper) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let say = |req, reply| {
            let packet = protocol::encode(&Message::Reply { req, reply }, &[]).unwrap();
            assert_eq!(transport::send(&keeper, &packet, &[]), Ok(true));
        };
        let home = KeeperDir::at("/nowhere".into());
        let patience = Patience::new(home.clone(), START_DEADLINE, |late| panic!("{late:?}"));
        let mut client = Client::new(ours);
        say(1, Reply::Hello { minor: UPGRADE_MINOR, version: "0.0.7".to_owned(), pid: 7 });
        assert!(matches!(client.receive(), Ok(Some(Incoming::Reply(1, _)))));
        let expects_request = answer.is_some();
        answer.into_iter().for_each(|answer| say(1, answer));
        let program = tempfile::NamedTempFile::new().unwrap();
        let client = renew(&home, client, program.path(), &patience, own).unwrap();
        let mut buffer = vec![0; protocol::MAX_PACKET_BYTES];
        match transport::receive(&keeper, &mut buffer).unwrap() {
            Received::Packet(length, fds) => {
                let (header, _) = protocol::decode::<RequestHeader>(&buffer[..length]).unwrap();
                assert_eq!((header.request, fds.len()), (Request::Upgrade, 1));
                assert!(expects_request);
            }
            Received::Nothing => assert!(!expects_request),
            Received::End => panic!("it left"),
        }
        client
    }

    #[test]
    fn a_client_of_a_newer_minor_gets_a_newer_keeper() {
        let answer = Reply::Upgraded { minor: UPGRADE_MINOR + 1, version: "0.0.8".to_owned() };
        let client = renewed(UPGRADE_MINOR + 1, Some(answer));
        let peer = client.peer().unwrap();
        assert_eq!((peer.minor, peer.version.as_str(), peer.pid), (UPGRADE_MINOR + 1, "0.0.8", 7));
        assert_eq!(client.upgrade_refusal(), None);
    }

    #[test]
    fn a_client_goes_on_with_a_keeper_that_can_not_be_replaced_and_knows_why() {
        let reason = UpgradeRefusal::Starting { starts: 2 };
        let client = renewed(
            UPGRADE_MINOR + 1,
            Some(Reply::Refused { error: Refusal::Upgrade { reason: reason.clone() } }),
        );
        assert_eq!(client.peer().map(|peer| peer.minor), Some(UPGRADE_MINOR));
        assert_eq!(client.upgrade_refusal(), Some(&reason));
    }

    #[test]
    fn a_client_of_the_same_minor_asks_for_nothing() {
        assert_eq!(renewed(UPGRADE_MINOR, None).upgrade_refusal(), None);
    }
}
