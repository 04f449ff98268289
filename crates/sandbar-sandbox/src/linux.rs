//! The native Linux executor: namespaces, mounts, Landlock, seccomp, without any helper program.
//!
//! [`Spawner`] prepares everything in the calling process, forks the holder into its namespaces and returns at
//! once; what happens next arrives as packets on the control channel (`crate::report`).

mod alone;
mod ask;
mod bwrap;
mod exec;
pub mod guard;
mod holder;
mod landlock;
mod memory;
mod mounts;
mod orphans;
mod prepare;
mod spare;
mod sys;
mod terminal;
mod tree;
mod watch;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use sandbar_proto::{Executor, FileIdentity, LaunchSpec, MountOp, NetworkMode, Sandbox};

use crate::report::Order;
use crate::{CacheLayer, Holder, SpawnError};
pub use bwrap::{HOLDER_ARGUMENT, main as holder_main};
pub use orphans::end_bwrap_orphans;
use prepare::{FilterCache, Launch, MapWriter, Maps, Walls};

impl From<exec::NulByte> for SpawnError {
    fn from(_: exec::NulByte) -> Self {
        Self::NulByte
    }
}

/// A path and the file it must lead to.
type Place = (CString, FileIdentity);

/// Starts launches, and keeps what one can take over from the one before.
#[derive(Debug, Default)]
pub struct Spawner {
    filters: FilterCache,
}

impl Spawner {
    /// Starts `spec` with the given standard streams. `caches` says which layers the caches of the spec have; one
    /// that is not listed is not mounted. `cgroup` is the door to the run's cgroup, for a spec with a limit that one
    /// enforces.
    ///
    /// # Errors
    /// [`SpawnError`]; whatever goes wrong after the fork is reported on the holder's channel instead.
    ///
    /// # Safety
    /// The calling process must have one thread: the child goes on with a copy of its memory.
    pub unsafe fn spawn(
        &mut self,
        spec: &LaunchSpec,
        stdio: [BorrowedFd<'_>; 3],
        caches: &[CacheLayer],
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<Holder, SpawnError> {
        if let Sandbox::Linux(sandbox) = &spec.sandbox
            && let Executor::Bwrap { program } = &sandbox.executor
        {
            if prepare::joins_cgroup(spec) != cgroup.is_some() {
                return Err(SpawnError::Cgroup);
            }
            // SAFETY: the caller has one thread.
            return unsafe { bwrap::spawn(program, spec, sandbox, stdio, caches, cgroup) };
        }
        let mut launch = Launch::new(spec, caches, &mut self.filters)?;
        if launch.joins_cgroup != cgroup.is_some() {
            return Err(SpawnError::Cgroup);
        }
        let (ours, theirs) = channel()?;
        let namespaces = launch.walls.as_ref().map_or(0, Walls::namespaces);
        // SAFETY: the caller has one thread, so the child may go on with everything in memory as it is.
        match unsafe { sys::fork(namespaces) }.map_err(SpawnError::Namespaces)? {
            sys::Fork::Child => {
                let inherited = holder::Inherited { stdio, control: theirs.as_fd(), cgroup };
                holder::main(&mut launch, &inherited)
            }
            sys::Fork::Parent { pid, pidfd } => {
                let holder = Holder { pid, pidfd, control: ours, complaint: None };
                if let Some(walls) = &launch.walls
                    && walls.maps.writer == MapWriter::Keeper
                {
                    write_maps(&holder, &walls.maps)?;
                }
                Ok(holder)
            }
        }
    }
}

/// A holder that waits for a launch in namespaces of its own.
#[derive(Debug)]
pub struct Spare {
    holder: Holder,
    network: NetworkMode,
}

impl Spare {
    /// Gives it a plan to read, in a memfd; the same that [`Spawner::launch`] is called with. A spare that has a plan
    /// can be used for no other.
    ///
    /// # Errors
    /// [`SpawnError::Channel`]: it is gone.
    pub fn feed(&self, plan: BorrowedFd<'_>) -> Result<(), SpawnError> {
        spare::send(self.holder.control.as_fd(), Order::Plan, &[plan]).map_err(SpawnError::Channel)
    }

    /// Whether it stands in the namespaces that `spec` asks for, and needs no door to a cgroup.
    #[must_use]
    pub fn fits(&self, spec: &LaunchSpec) -> bool {
        !prepare::joins_cgroup(spec)
            && matches!(&spec.sandbox, Sandbox::Linux(sandbox)
                if sandbox.executor.is_native() && sandbox.network == self.network)
    }

    /// The holder, to wait for its end; it ends when its channel is closed.
    #[must_use]
    pub fn into_holder(self) -> Holder {
        self.holder
    }
}

impl Spawner {
    /// Makes a spare for sandboxes with this network.
    ///
    /// # Errors
    /// [`SpawnError`].
    ///
    /// # Safety
    /// The calling process must have one thread: the child goes on with a copy of its memory.
    pub unsafe fn spare(&mut self, network: NetworkMode) -> Result<Spare, SpawnError> {
        let (ours, theirs) = channel()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(SpawnError::Channel)?;
        // SAFETY: the caller has one thread, so the child may go on with everything in memory as it is.
        match unsafe { sys::fork(namespaces(network)) }.map_err(SpawnError::Namespaces)? {
            sys::Fork::Child => {
                let inherited =
                    holder::Inherited { stdio: [null.as_fd(); 3], control: theirs.as_fd(), cgroup: None };
                spare::main(network, &mut self.filters, &inherited)
            }
            sys::Fork::Parent { pid, pidfd } => {
                memory::populate();
                Ok(Spare { holder: Holder { pid, pidfd, control: ours, complaint: None }, network })
            }
        }
    }

    /// Gives back the memory that [`Spawner::spare`] had at hand for the next start, when none is expected.
    pub fn rest(&self) {
        memory::release();
    }

    /// Launches `spec` in a spare that fits it and was fed with it. `mounts` come behind those of the plan that it was
    /// fed with. From then on [`Spare::into_holder`] is the holder of the launch.
    ///
    /// # Errors
    /// [`SpawnError`]; the spare is of no use then.
    pub fn launch(
        &self,
        spare: &Spare,
        spec: &LaunchSpec,
        mounts: Vec<MountOp>,
        stdio: [BorrowedFd<'_>; 3],
        caches: &[CacheLayer],
    ) -> Result<(), SpawnError> {
        let Sandbox::Linux(sandbox) = &spec.sandbox else {
            return Err(SpawnError::Channel(rustix::io::Errno::INVAL));
        };
        let additions = spare::Additions { mounts, caches: caches.to_vec() };
        let additions = spare::memfd_of(c"sandbar-additions", &additions).map_err(SpawnError::Channel)?;
        let [stdin, stdout, stderr] = stdio;
        let fds = [additions.as_fd(), stdin, stdout, stderr];
        spare::send(spare.holder.control.as_fd(), Order::Launch, &fds).map_err(SpawnError::Channel)?;
        let maps = Maps::new(sandbox);
        if maps.writer == MapWriter::Keeper {
            write_maps(&spare.holder, &maps)?;
        }
        Ok(())
    }
}

/// The channel between keeper and holder. Only the keeper's end does not block: a holder waits on its end for its
/// id maps.
fn channel() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(SpawnError::Channel)?;
    rustix::fs::fcntl_setfl(&theirs, OFlags::empty()).map_err(SpawnError::Channel)?;
    Ok((ours, theirs))
}

fn namespaces(network: NetworkMode) -> i32 {
    let always = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    match network {
        NetworkMode::Off => always | libc::CLONE_NEWNET,
        NetworkMode::On => always,
    }
}

/// Maps ids that the holder may not map itself, and lets it go on. A failure ends the holder.
fn write_maps(holder: &Holder, maps: &Maps) -> Result<(), SpawnError> {
    let result = write_map_files(holder.pid, maps);
    if let Err(error) = result {
        // Its channel closes with `holder`, which it takes for the keeper's end.
        return Err(SpawnError::IdMap(error));
    }
    rustix::net::send(&holder.control, &Order::Go.encode(), SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| SpawnError::IdMap(errno.into()))
}

fn write_map_files(pid: i32, maps: &Maps) -> io::Result<()> {
    std::fs::write(format!("/proc/{pid}/uid_map"), &maps.users)?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &maps.groups)
}

/// The parent of a process, if there is one.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    tree::parent(pid)
}

/// Makes the calling process opaque to others of its user: not dumpable, no core files. For the keeper, first
/// thing.
///
/// # Errors
/// The kernel's.
pub fn harden_self() -> io::Result<()> {
    sys::set_dumpable(sys::Dumpable::No)?;
    // The hard limit stays: it is the most that a plan can give a command.
    sys::set_rlimit(libc::RLIMIT_CORE, Some(0), None)?;
    // Soft limits are the first client's, and none of the keeper's business: each plan brings its own.
    for resource in [
        libc::RLIMIT_CPU,
        libc::RLIMIT_FSIZE,
        libc::RLIMIT_NOFILE,
        libc::RLIMIT_NPROC,
        libc::RLIMIT_AS,
        libc::RLIMIT_DATA,
    ] {
        sys::raise_rlimit(resource)?;
    }
    Ok(())
}
