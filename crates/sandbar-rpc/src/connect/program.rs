//! A program whose standard streams are the link, such as `ssh HOST sandbar serve --listen stdio`.
//!
//! It is started with exactly the environment it is given, in a process group of its own, and ended with its group: by
//! the end of its input and TERM, then by KILL. One that may have to ask a person something stays in ours, since a terminal
//! stops whoever reads it from another group; then it is ended alone. It is a person's choice, from their own configuration: what a model or a
//! project chooses is started by the keeper.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::transport::{Side, Transport, lines};

/// How long a program has between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// A program and what it is started with.
#[derive(Debug)]
pub struct Program {
    /// Its path, or a name that is looked up in this process's own `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory, or else ours.
    pub cwd: Option<PathBuf>,
    /// Where its standard error goes.
    pub stderr: Stdio,
    /// Whether it may ask a person something, on our terminal.
    pub may_ask: bool,
}

/// The program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("could not start `{}`: {source}", program.display())]
pub struct SpawnError {
    /// Its name.
    pub program: OsString,
    /// What the system says.
    pub source: io::Error,
}

/// Starts a program and makes a transport of its standard input and output.
///
/// # Errors
/// The system can't start it.
pub fn spawn(program: Program) -> Result<(Transport, Running), SpawnError> {
    let name = program.program.clone();
    start(program).map_err(|source| SpawnError { program: name, source })
}

fn start(program: Program) -> io::Result<(Transport, Running)> {
    let Program { program, args, env, cwd, stderr, may_ask } = program;
    let peer = format!("the program {}", program.display());
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env);
    if !may_ask {
        command.process_group(0);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn()?;
    let streams = child.stdin.take().zip(child.stdout.take());
    // From here on dropping it ends the program.
    let running = Running::watch(child, !may_ask)?;
    let (stdin, stdout) = streams.ok_or(io::ErrorKind::BrokenPipe)?;
    let output = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
    let input = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    Ok((lines(input, output, Side::Client).with_peer(peer), running))
}

/// A program that was started. Dropping it ends the program as [`Self::end`] does, in the background; without a runtime
/// it is killed at once.
#[derive(Debug)]
pub struct Running {
    group: Option<Group>,
}

/// A process that was not waited for, so that its number, and its group's, is nobody else's.
#[derive(Debug)]
struct Group {
    child: Child,
    pid: Pid,
    /// Whether it leads a group; otherwise it is alone.
    leads_group: bool,
    /// Until it was heard.
    ended: Option<oneshot::Receiver<()>>,
    is_reaped: bool,
}

impl Running {
    fn watch(mut child: Child, leads_group: bool) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let (sender, ended) = oneshot::channel();
        let watching = thread::Builder::new().name("rpc-program".into()).spawn(move || {
            // Leaves it unreaped; see `Group`.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
            // Whoever wanted to know may have gone.
            let _ = sender.send(());
        });
        if let Err(error) = watching {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        Ok(Self { group: Some(Group { child, pid, leads_group, ended: Some(ended), is_reaped: false }) })
    }

    /// The process id of the program, which leads a group of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.child.id())
    }

    /// Waits until the program ends by itself, which may be never, and ends what is left of its group.
    ///
    /// # Errors
    /// The system doesn't say how it ended.
    pub async fn wait(mut self) -> io::Result<ExitStatus> {
        let group = self.group.as_mut().ok_or(io::ErrorKind::NotFound)?;
        group.ended().await;
        group.reap().await
    }

    /// Ends the program: TERM to its group, two seconds, KILL.
    ///
    /// # Errors
    /// The system doesn't say how it ended.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        let group = self.group.as_mut().ok_or(io::ErrorKind::NotFound)?;
        group.terminate().await;
        group.reap().await
    }
}

impl Group {
    /// Waits for the end of the leader.
    async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            // An error would mean that the watching thread is gone, which happens only after it told.
            let _ = ended.await;
            self.ended = None;
        }
    }

    async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        // Whoever doesn't go in time is killed.
        let _ = timeout(GRACE, self.ended()).await;
    }

    /// Kills what is left of the group, and waits for the leader, which a KILL ends.
    async fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.ended().await;
        self.is_reaped = true;
        self.child.wait()
    }

    fn signal(&self, signal: Signal) {
        // A group without processes can't be signalled, and needn't.
        let _ = if self.leads_group {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut group) = self.group.take().filter(|group| !group.is_reaped) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            group.terminate().await;
            // Nobody is left to be told how it ended.
            drop(group.reap().await);
        });
    }
}

impl Drop for Group {
    /// Kills a group that was not ended in order: there is no runtime, or it ends.
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
            // A killed process ends; waiting for it is short.
            let _ = self.child.wait();
        }
    }
}
