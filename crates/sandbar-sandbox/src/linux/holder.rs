//! The holder: the process between the keeper and a command's tree.
//!
//! In a sandbox it is pid 1 of the pid namespace, so its end is the end of everything in there. Without
//! namespaces it is a subreaper that walks its descendants. Either way it builds the walls, starts the leader,
//! reports how the leader ends, passes signals on, and ends the tree when the keeper's end of the control
//! channel closes: a dead keeper leaves no orphans.
//!
//! A holder is forked for one launch, or ahead of time as a spare that waits for one (`spare.rs`); from the plan on
//! both go the same way. It never executes anything itself, and cannot be looked into by the command: not dumpable,
//! arguments and environment wiped.

use std::ffi::c_int;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use sandbar_proto::{AfterLeader, ExitStatus, Limit, NetworkMode, ResourceUse, Timestamp};

use super::alone::{self, Temporary};
use super::ask::Answerer;
use super::prepare::{Launch, Maker, MapWriter, Walls};
use super::sys::{self, Dumpable, Waited};
use super::terminal::Wanted;
use super::watch::Watch;
use super::{landlock, mounts, spare, tree};
use crate::report::{Order, PACKET_BYTES, Report, SetupFailure, Step};

/// The descriptor of the control channel in the holder: the first one behind the standard streams.
const CONTROL: RawFd = 3;

/// The descriptor of the door to the run's cgroup, while there is one: the next one.
const CGROUP: RawFd = 4;

/// Device number of /dev/null, which is the same on every Linux (devices.txt of the kernel). Streams of no other device
/// are handed over, and files that are no device have none.
const NULL_DEVICE: u64 = libc::makedev(1, 3);

/// How long a tree that is being killed gets between two looks at what is left of it.
const KILL_ROUND: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Descriptors that the holder keeps of those it inherited from the keeper.
pub(super) struct Inherited<'a> {
    /// The command's standard streams.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// The channel to the keeper.
    pub(super) control: BorrowedFd<'a>,
    /// The door to the run's cgroup, if it has one ([`crate::cgroup::Cgroup::door`]).
    pub(super) cgroup: Option<BorrowedFd<'a>>,
}

pub(super) fn fail(step: Step) -> impl Fn(Errno) -> SetupFailure {
    move |errno| SetupFailure { step, index: Step::NO_INDEX, errno: errno.raw_os_error() }
}

/// Runs the holder of a launch; never returns. Must be called in a freshly forked process.
pub(super) fn main(launch: &mut Launch, inherited: &Inherited<'_>) -> ! {
    if take_descriptors(inherited).is_err() {
        // Without the channel in its place there is nobody to tell; its end tells the keeper.
        exit(1);
    }
    let with_namespaces = launch.walls.as_ref().filter(|walls| walls.has_pid_namespace());
    match settle(with_namespaces.map(|walls| walls.network)) {
        Ok(()) => run(launch),
        Err(failure) => give_up(failure),
    }
}

/// Builds the walls of a settled holder, starts the command and holds it.
pub(super) fn run(launch: &mut Launch) -> ! {
    match set_up(launch) {
        Ok(Started { leader, children, terminal, answerer, temporary }) => {
            report(Report::Running);
            launch.command.wipe();
            close_stdio();
            let watch = launch.watch.take();
            let holder = Holder { leader, leader_waited: false, children, terminal, answerer, watch, launch };
            let code = holder.hold();
            if let Some(temporary) = temporary {
                temporary.remove();
            }
            exit(code)
        }
        Err(failure) => give_up(failure),
    }
}

/// Reports why there will be no command, and ends.
pub(super) fn give_up(failure: SetupFailure) -> ! {
    report(Report::Failed(failure));
    exit(1)
}

pub(super) fn exit(code: c_int) -> ! {
    // SAFETY: ends this process without running anything of the keeper's that was inherited.
    unsafe { libc::_exit(code) }
}

pub(super) fn control() -> BorrowedFd<'static> {
    // SAFETY: `take_descriptors` put the channel there before anything else, and nothing closes it.
    unsafe { BorrowedFd::borrow_raw(CONTROL) }
}

fn cgroup_door() -> BorrowedFd<'static> {
    // SAFETY: `take_descriptors` put it there, and it is closed only behind its one use.
    unsafe { BorrowedFd::borrow_raw(CGROUP) }
}

fn report(report: Report) {
    // The keeper reads this socket or is dead; a dead keeper is noticed by the loop, so an error says nothing new.
    let _ = rustix::net::send(control(), &report.encode(), SendFlags::NOSIGNAL);
}

/// What every holder does before it needs to know its plan. `network` is that of the namespaces it is in, if it is in
/// some. In no pid namespace it may not die with its keeper: it has a tree to end.
pub(super) fn settle(network: Option<NetworkMode>) -> Result<(), SetupFailure> {
    sys::block_all_signals();
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::setsid().map_err(fail(Step::Descriptors))?;
    let Some(network) = network else { return Ok(()) };
    // So that a keeper that dies before the loop below runs takes us with it.
    sys::set_parent_death_signal(libc::SIGKILL).map_err(fail(Step::Holder))?;
    if network == NetworkMode::Off {
        sys::loopback_up().map_err(fail(Step::Loopback))?;
    }
    sys::join_new_session_keyring().map_err(fail(Step::Keyring))
}

/// A running command.
struct Started {
    leader: i32,
    children: OwnedFd,
    terminal: Option<OwnedFd>,
    answerer: Option<Answerer>,
    temporary: Option<Temporary>,
}

/// Everything between a settled holder and the running command.
fn set_up(launch: &mut Launch) -> Result<Started, SetupFailure> {
    let wanted = launch.terminal.as_ref();
    let mut alone = None;
    let terminal = match &mut launch.walls {
        Some(walls) if walls.maker == Maker::Nobody => {
            let alone::Prepared { domain, terminal, temporary } = alone::prepare(walls, &launch.cwd, wanted)?;
            alone = Some((domain, temporary));
            terminal
        }
        Some(walls) => build_walls(walls, &launch.cwd, wanted)?,
        None => {
            sys::set_child_subreaper().map_err(fail(Step::Holder))?;
            sys::set_dumpable(Dumpable::No).map_err(fail(Step::Holder))?;
            mounts::enter_directory(&launch.cwd.0, launch.cwd.1)?;
            wanted.map(Wanted::open).transpose()?
        }
    };
    let children = sys::child_signal_fd().map_err(fail(Step::Holder))?;
    let cgroup = launch.joins_cgroup.then(cgroup_door);
    let (domain, temporary) = alone.unzip();
    let started = start_leader(launch, terminal.as_ref(), cgroup, domain);
    let (leader, answerer) = match started {
        Ok(started) => started,
        Err(failure) => {
            if let Some(temporary) = temporary {
                temporary.remove();
            }
            return Err(failure);
        }
    };
    if launch.joins_cgroup {
        // SAFETY: nothing in this process owns the door, and nothing goes through it any more.
        unsafe { libc::close(CGROUP) };
    }
    Ok(Started { leader, children, terminal, answerer, temporary })
}

/// Starts the leader, and gets hold of what its filter asks.
fn start_leader(
    launch: &mut Launch,
    terminal: Option<&OwnedFd>,
    cgroup: Option<BorrowedFd<'_>>,
    mut domain: Option<alone::Domain>,
) -> Result<(i32, Option<Answerer>), SetupFailure> {
    let terminal = terminal.map(OwnedFd::as_fd);
    let leader = launch.command.start(&mut launch.stack, terminal, cgroup, domain.as_mut())?;
    let listener = domain.map(alone::Domain::into_listener).transpose()?;
    let landlock = launch.walls.as_ref().and_then(|walls| walls.landlock.as_ref());
    let granted = || landlock.map(landlock::Prepared::granted).unwrap_or_default();
    Ok((leader, listener.map(|listener| Answerer::new(listener, granted()))))
}

/// Puts the streams on 0, 1, 2 and the channel on 3, and closes everything else that the keeper had open.
pub(super) fn take_descriptors(inherited: &Inherited<'_>) -> Result<(), Errno> {
    // The sources may lie on each other's targets; moved above all of them first, they can't be overwritten.
    let lift = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, CONTROL + 1);
    let [stdin, stdout, stderr] = inherited.stdio;
    let lifted = [lift(stdin)?, lift(stdout)?, lift(stderr)?];
    let control = lift(inherited.control)?;
    let cgroup = inherited.cgroup.map(lift).transpose()?;
    for (source, target) in lifted.iter().zip(0..) {
        duplicate(source.as_raw_fd(), target, 0)?;
    }
    duplicate(control.as_raw_fd(), CONTROL, libc::O_CLOEXEC)?;
    let mut last = CONTROL;
    if let Some(cgroup) = &cgroup {
        if cgroup.as_raw_fd() != CGROUP {
            duplicate(cgroup.as_raw_fd(), CGROUP, libc::O_CLOEXEC)?;
        }
        last = CGROUP;
    }
    // From here on the descriptors are gone; their owners must not close them again.
    std::mem::forget((lifted, control, cgroup));
    sys::close_from(last + 1)
}

pub(super) fn duplicate(source: RawFd, target: RawFd, flags: c_int) -> Result<(), Errno> {
    // SAFETY: passes integers; whatever `target` was belongs to the keeper's copy of memory that we never use.
    let result = unsafe { libc::dup3(source, target, flags) };
    if result == target { Ok(()) } else { Err(Errno::BADF) }
}

/// Puts the sandbox's /dev/null where a stream is that of the host: through the host's mount its owner, uid 0, could change
/// its mode for everybody.
fn take_own_null() -> Result<(), Errno> {
    for fd in 0..CONTROL {
        // SAFETY: `take_descriptors` put a stream there, and nothing closes it before the command runs.
        let stream = unsafe { BorrowedFd::borrow_raw(fd) };
        let device = rustix::fs::fstat(stream)?.st_rdev;
        if device == NULL_DEVICE {
            let null = mounts::open_null(rustix::fs::fcntl_getfl(stream)?)?;
            duplicate(null.as_raw_fd(), fd, 0)?;
        }
    }
    Ok(())
}

/// The streams are the command's alone from now on, so that their end is seen when the tree closes them.
fn close_stdio() {
    for fd in 0..CONTROL {
        // SAFETY: nothing in this process owns or uses the standard streams.
        unsafe { libc::close(fd) };
    }
}

/// Builds the walls and opens the terminal, as the user that the command runs as and before Landlock and the filter
/// forbid it.
fn build_walls(
    walls: &mut Walls,
    cwd: &super::Place,
    terminal: Option<&Wanted>,
) -> Result<Option<OwnedFd>, SetupFailure> {
    match walls.maker {
        Maker::Itself => {
            map_ids(walls)?;
            walls.mounts.build()?;
        }
        Maker::Bwrap => walls.mounts.verify()?,
        // Not this way: see `alone`.
        Maker::Nobody => return Err(fail(Step::Plan)(Errno::INVAL)),
    }
    // Opened with the rights that are left of the caller's; another user may not reach every path.
    let ruleset = walls.landlock.as_ref().map(landlock::Prepared::build).transpose()?;
    match walls.maker {
        Maker::Itself | Maker::Nobody => sys::forbid_capabilities().map_err(fail(Step::Privileges))?,
        // It has none, and could not get one: that bubblewrap left none is not believed but looked at.
        Maker::Bwrap => sys::refuse_capabilities().map_err(fail(Step::Privileges))?,
    }
    if let Some(user) = walls.run_as {
        sys::become_user(user.uid, user.gid).map_err(fail(Step::RunAs))?;
        // Changing ids clears it (prctl(2)).
        sys::set_parent_death_signal(libc::SIGKILL).map_err(fail(Step::Holder))?;
    }
    sys::clear_capabilities().map_err(fail(Step::Privileges))?;
    mounts::enter_directory(&cwd.0, cwd.1)?;
    take_own_null().map_err(fail(Step::Descriptors))?;
    let terminal = terminal.map(Wanted::open).transpose()?;
    sys::set_dumpable(Dumpable::No).map_err(fail(Step::Privileges))?;
    sys::set_no_new_privs().map_err(fail(Step::Privileges))?;
    if let Some(ruleset) = ruleset {
        landlock::enter(&ruleset)?;
    }
    let (filter, length) = walls.filter.as_sock_fprog_parts();
    // SAFETY: the compiled program is live and laid out as the kernel's instructions.
    unsafe { sys::install_filter(filter.cast(), length) }.map_err(fail(Step::Seccomp))?;
    Ok(terminal)
}

/// Gives the keeper the mount namespace, which it can't open itself: nobody looks into this process. Without it the word
/// goes alone, which the keeper takes for what it is.
fn hand_over_walls() {
    use rustix::fs::{Mode, OFlags};
    let mounts = rustix::fs::open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let sent = mounts.and_then(|fd| spare::send_packet(control(), &Report::Walls.encode(), &[fd.as_fd()]));
    if sent.is_err() {
        report(Report::Walls);
    }
}

/// Waits for or writes the id maps of the own user namespace.
fn map_ids(walls: &Walls) -> Result<(), SetupFailure> {
    match walls.maps.writer {
        MapWriter::Keeper => match receive(RecvFlags::empty()) {
            Received::Order(Order::Go) => Ok(()),
            Received::Order(_) | Received::Nothing | Received::KeeperGone => {
                Err(fail(Step::IdMap)(Errno::PIPE))
            }
        },
        MapWriter::Itself => {
            // The files belong to root while the keeper's undumpable memory is ours (proc(5)).
            sys::set_dumpable(Dumpable::Yes).map_err(fail(Step::IdMap))?;
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", walls.maps.users.as_bytes())?;
            write_file(c"/proc/self/gid_map", walls.maps.groups.as_bytes())
        }
    }
}

fn write_file(path: &std::ffi::CStr, text: &[u8]) -> Result<(), SetupFailure> {
    use rustix::fs::{Mode, OFlags};
    let fd =
        rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail(Step::IdMap))?;
    rustix::io::write(&fd, text).map(drop).map_err(fail(Step::IdMap))
}

enum Received {
    Order(Order),
    Nothing,
    KeeperGone,
}

fn receive(flags: RecvFlags) -> Received {
    let mut packet = [0; PACKET_BYTES];
    loop {
        return match rustix::net::recv(control(), &mut packet, flags) {
            Ok((PACKET_BYTES, _)) => Order::decode(&packet).map_or(Received::Nothing, Received::Order),
            Ok((0, _)) => Received::KeeperGone,
            Ok(_) | Err(Errno::AGAIN) => Received::Nothing,
            Err(Errno::INTR) => continue,
            Err(_) => Received::KeeperGone,
        };
    }
}

struct Holder<'a> {
    leader: i32,
    leader_waited: bool,
    children: OwnedFd,
    /// Keeps the terminal open as long as there is a tree.
    terminal: Option<OwnedFd>,
    /// Answers what the filter asks, where it does.
    answerer: Option<Answerer>,
    watch: Option<Watch>,
    launch: &'a Launch,
}

/// What a step of the loop decided.
enum Next {
    Hold,
    /// The tree has ended or must end.
    End,
}

impl Holder<'_> {
    /// Holds the tree until it ends or must end; returns the exit code of the holder.
    fn hold(mut self) -> c_int {
        loop {
            // Without one, one that is never readable: a descriptor twice is asked about twice.
            let asked = self.answerer.as_ref().map_or(control(), Answerer::fd);
            let mut fds = [
                PollFd::from_borrowed_fd(control(), PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
                PollFd::from_borrowed_fd(asked, PollFlags::IN),
            ];
            let pause = self.watch.as_mut().map(|watch| timespec(watch.pause()));
            match poll(&mut fds, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            let asked = fds[2].revents();
            if let Some(answerer) = &self.answerer {
                if asked.contains(PollFlags::IN) {
                    answerer.serve();
                } else if !asked.is_empty() {
                    // Nobody is left whom the filter confines.
                    self.answerer = None;
                }
            }
            if matches!(self.reap(), Next::End)
                || matches!(self.obey(), Next::End)
                || matches!(self.look(), Next::End)
            {
                break;
            }
        }
        self.end_tree();
        0
    }

    /// Looks at what the tree uses, and says which limits it reached. Of memory there may be nothing left in a moment, so
    /// that ends the tree here; about the rest the keeper decides.
    fn look(&mut self) -> Next {
        let sandboxed = self.has_pid_namespace();
        let Some(watch) = &mut self.watch else { return Next::Hold };
        tell(watch.look(sandboxed))
    }

    fn has_pid_namespace(&self) -> bool {
        self.launch.walls.as_ref().is_some_and(Walls::has_pid_namespace)
    }

    /// Reaps everything that ended.
    fn reap(&mut self) -> Next {
        // The signal only wakes; which children ended is asked below, so its content is of no interest.
        let mut ignored = [0_u8; 512];
        let _ = rustix::io::read(&self.children, &mut ignored);
        loop {
            match sys::wait_any() {
                Ok(Waited::Ended { pid, status, usage }) if pid == self.leader && !self.leader_waited => {
                    self.leader_waited = true;
                    let sandboxed = self.has_pid_namespace();
                    if let Some(watch) = &mut self.watch {
                        // What it left behind is still there; the leader itself no more.
                        tell(watch.look_now(sandboxed, 1));
                    }
                    report(leader_exited(status, &usage));
                    if self.launch.after_leader == AfterLeader::Kill {
                        return Next::End;
                    }
                }
                Ok(Waited::Stopped { pid, signal }) if pid == self.leader => {
                    report(Report::LeaderStopped(signal));
                }
                Ok(Waited::Ended { .. } | Waited::Stopped { .. }) => {}
                Ok(Waited::None) => return Next::Hold,
                Ok(Waited::NoChild) | Err(_) => return Next::End,
            }
        }
    }

    /// Carries out what the keeper asks.
    fn obey(&mut self) -> Next {
        loop {
            match receive(RecvFlags::DONTWAIT) {
                Received::Order(Order::SignalLeader(signal)) => {
                    // Until it is waited for, the id is the leader's and no other's.
                    if !self.leader_waited {
                        let _ = sys::kill(-self.leader, signal);
                    }
                }
                Received::Order(Order::SignalTree(signal)) => self.signal_tree(signal),
                Received::Order(Order::Walls) => hand_over_walls(),
                Received::Order(Order::KillTree) | Received::KeeperGone => return Next::End,
                Received::Order(Order::Go | Order::Plan | Order::Launch) => {}
                Received::Nothing => return Next::Hold,
            }
        }
    }

    fn signal_tree(&self, signal: i32) {
        if self.has_pid_namespace() {
            // Everything in the pid namespace but this process (kill(2)).
            let _ = sys::kill(-1, signal);
        } else {
            tree::signal_descendants(signal);
        }
    }

    /// Ends what is left, and says so. The end of pid 1 would end it as well (pid_namespaces(7)), but nobody would
    /// hear of that before the kernel has taken the namespaces apart, which takes longer than all the rest.
    fn end_tree(&mut self) {
        while matches!(self.drain(), Next::Hold) {
            if self.has_pid_namespace() {
                // Reaches everything at once, what is forking right now included (kill(2)).
                let _ = sys::kill(-1, libc::SIGKILL);
            } else {
                tree::signal_descendants(libc::SIGKILL);
            }
            let mut fds = [PollFd::new(&self.children, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&KILL_ROUND));
        }
        self.terminal = None;
        report(Report::TreeEnded);
    }

    /// Reaps during the end of the tree: every orphan becomes our child, so no child means no tree.
    fn drain(&mut self) -> Next {
        let mut ignored = [0_u8; 512];
        let _ = rustix::io::read(&self.children, &mut ignored);
        loop {
            match sys::wait_any() {
                Ok(Waited::Ended { pid, status, usage }) => {
                    if pid == self.leader && !self.leader_waited {
                        self.leader_waited = true;
                        report(leader_exited(status, &usage));
                    }
                }
                Ok(Waited::Stopped { .. }) => {}
                Ok(Waited::None) => return Next::Hold,
                Ok(Waited::NoChild) | Err(_) => return Next::End,
            }
        }
    }
}

/// Says which limits were reached.
fn tell(held: Vec<Limit>) -> Next {
    let mut next = Next::Hold;
    for limit in held {
        report(Report::LimitHeld(limit));
        if limit == Limit::Memory {
            next = Next::End;
        }
    }
    next
}

fn timespec(duration: std::time::Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn leader_exited(status: c_int, usage: &libc::rusage) -> Report {
    let status = if libc::WIFSIGNALED(status) {
        ExitStatus::Signaled { signal: libc::WTERMSIG(status) }
    } else {
        // An exit status is eight bits wide (wait(2)).
        ExitStatus::Exited { code: u8::try_from(libc::WEXITSTATUS(status) & 0xff).unwrap_or(u8::MAX) }
    };
    let usage = ResourceUse {
        user_us: sys::micros(usage.ru_utime),
        system_us: sys::micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or_default(),
    };
    Report::LeaderExited { status, usage, ended: Timestamp::now() }
}
