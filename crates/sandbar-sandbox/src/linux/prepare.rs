//! A launch in the form that the child needs: C strings, pointer arrays, a compiled filter.
//!
//! Made by the keeper before it forks, so that the child allocates nothing.

use std::ffi::CString;

use sandbar_proto::{
    AbsPath, AfterLeader, Executor, FileIdentity, LandlockRule, LaunchSpec, LimitMechanism, LinuxSandbox,
    MountOp, NetworkMode, RunAs, Sandbox, SeccompSpec,
};

use super::exec::{Command, NulByte};
use super::watch::Watch;
use super::{landlock, mounts, terminal};
use crate::seccomp::{self, Program, SeccompError};
use crate::{CacheAbove, CacheLayer, SpawnError};

/// Stack of the leader until it executes: a few calls deep, no buffers.
const LEADER_STACK_BYTES: usize = 32 * 1024;

/// Who writes the id maps of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapWriter {
    /// The process in it, which may map only its own ids (user_namespaces(7)).
    Itself,
    /// The keeper, which has the right to map others.
    Keeper,
}

/// Who made the namespaces and mounts around a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    /// They are made by the holder itself.
    Itself,
    /// Bubblewrap did, before the holder was executed.
    Bwrap,
    /// There are none: Landlock and the filter hold alone.
    Nobody,
}

/// Id maps as text of /proc/PID/uid_map and gid_map.
pub(super) struct Maps {
    pub(super) writer: MapWriter,
    pub(super) users: String,
    pub(super) groups: String,
}

/// The sandbox of a launch.
pub(super) struct Walls {
    pub(super) maker: Maker,
    pub(super) maps: Maps,
    pub(super) run_as: Option<RunAs>,
    pub(super) network: NetworkMode,
    pub(super) mounts: mounts::Plan,
    pub(super) landlock: Option<landlock::Prepared>,
    pub(super) filter: Program,
    /// The run's own temporary directory, where there are no mounts.
    pub(super) temporary: Option<CString>,
}

/// A whole launch.
pub(super) struct Launch {
    pub(super) command: Command,
    pub(super) cwd: (CString, FileIdentity),
    pub(super) after_leader: AfterLeader,
    pub(super) walls: Option<Walls>,
    pub(super) terminal: Option<terminal::Wanted>,
    pub(super) watch: Option<Watch>,
    /// Whether the leader moves itself into a cgroup.
    pub(super) joins_cgroup: bool,
    pub(super) stack: Vec<u8>,
}

/// Whether a cgroup enforces a limit of `spec`.
pub(super) fn joins_cgroup(spec: &LaunchSpec) -> bool {
    spec.enforced.iter().any(|limit| limit.by == LimitMechanism::Cgroup)
}

impl Launch {
    /// Prepares `spec`. `caches` says, for each cache of the spec that is to be mounted, which layers it has.
    ///
    /// # Errors
    /// [`SpawnError::NulByte`], [`SpawnError::Filter`], [`SpawnError::Landlock`].
    pub(super) fn new(
        spec: &LaunchSpec,
        caches: &[CacheLayer],
        filters: &mut FilterCache,
    ) -> Result<Self, SpawnError> {
        let walls = match &spec.sandbox {
            Sandbox::None => None,
            Sandbox::Linux(sandbox) => Some(Walls::new(sandbox, caches, filters)?),
        };
        Ok(Self {
            command: Command::new(spec)?,
            cwd: (path(&spec.cwd.path)?, spec.cwd.identity),
            after_leader: spec.after_leader,
            walls,
            terminal: terminal::Wanted::of(spec),
            watch: Watch::of(spec)?,
            joins_cgroup: joins_cgroup(spec),
            stack: vec![0; LEADER_STACK_BYTES],
        })
    }

    /// Adds mounts behind those of the spec, and caches; to a launch without a sandbox nothing.
    ///
    /// # Errors
    /// [`SpawnError::NulByte`].
    pub(super) fn add(&mut self, further: &[MountOp], caches: &[CacheLayer]) -> Result<(), SpawnError> {
        if let Some(walls) = &mut self.walls {
            for op in further {
                walls.mounts.ops.push(prepare_op(op)?);
            }
            for cache in caches {
                walls.mounts.caches.push(prepare_cache(cache)?);
            }
        }
        Ok(())
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, NulByte> {
    CString::new(bytes).map_err(|_| NulByte)
}

fn path(path: &AbsPath) -> Result<CString, NulByte> {
    c_string(path.as_bytes())
}

impl Walls {
    fn new(
        sandbox: &LinuxSandbox,
        caches: &[CacheLayer],
        filters: &mut FilterCache,
    ) -> Result<Self, SpawnError> {
        let (maker, temporary) = match &sandbox.executor {
            Executor::Native => (Maker::Itself, None),
            Executor::Bwrap { .. } => (Maker::Bwrap, None),
            Executor::Landlock { temporary } => (Maker::Nobody, Some(path(temporary)?)),
        };
        let landlock = sandbox.landlock.as_ref().map(|spec| {
            let abi = crate::facts::landlock_abi();
            if abi < spec.min_abi.max(1) {
                return Err(SpawnError::Landlock { needed: spec.min_abi.max(1), found: abi });
            }
            let rule = |rule: &LandlockRule| {
                Ok(landlock::Rule { path: path(&rule.path)?, identity: rule.identity, access: rule.access })
            };
            let rules: Result<_, NulByte> = spec.rules.iter().map(rule).collect();
            // What no namespace keeps from the host's network, this does.
            let denies_tcp = maker == Maker::Nobody && sandbox.network == NetworkMode::Off;
            let scopes_only = spec.scopes_only;
            Ok(landlock::Prepared { abi, rules: rules?, scopes_only, denies_tcp })
        });
        Ok(Self {
            maker,
            maps: Maps::new(sandbox),
            run_as: sandbox.identity.run_as,
            network: sandbox.network,
            mounts: mounts::Plan {
                caches: caches.iter().map(prepare_cache).collect::<Result<_, _>>()?,
                ops: sandbox.mounts.iter().map(prepare_op).collect::<Result<_, _>>()?,
            },
            landlock: landlock.transpose()?,
            filter: filters.program(&sandbox.seccomp)?,
            temporary,
        })
    }

    /// The flags of clone(2) for the namespaces that the holder is forked into.
    pub(super) fn namespaces(&self) -> i32 {
        match self.maker {
            Maker::Itself | Maker::Bwrap => super::namespaces(self.network),
            Maker::Nobody => 0,
        }
    }

    /// Whether the holder is pid 1 of a namespace, which ends with it and shows nothing else.
    pub(super) fn has_pid_namespace(&self) -> bool {
        match self.maker {
            Maker::Itself | Maker::Bwrap => true,
            Maker::Nobody => false,
        }
    }
}

/// The last filter that was compiled. Nearly every launch asks for the same one, and comparing a specification is
/// a tenth of compiling it.
#[derive(Debug, Default)]
pub(super) struct FilterCache {
    last: Option<(SeccompSpec, Program)>,
}

impl FilterCache {
    fn program(&mut self, spec: &SeccompSpec) -> Result<Program, SeccompError> {
        if let Some((known, program)) = &self.last
            && known == spec
        {
            return Ok(program.clone());
        }
        let program = seccomp::compile(spec, seccomp::Arch::native())?;
        self.last = Some((spec.clone(), program.clone()));
        Ok(program)
    }
}

impl Maps {
    pub(super) fn new(sandbox: &LinuxSandbox) -> Self {
        let identity = &sandbox.identity;
        let text = |ranges: &[sandbar_proto::IdRange]| {
            ranges.iter().map(|range| format!("{0} {0} {1}\n", range.first, range.count)).collect::<String>()
        };
        let single = |ranges: &[sandbar_proto::IdRange]| matches!(ranges, [range] if range.count == 1);
        let writer = if single(&identity.users) && single(&identity.groups) {
            MapWriter::Itself
        } else {
            MapWriter::Keeper
        };
        Self { writer, users: text(&identity.users), groups: text(&identity.groups) }
    }
}

fn prepare_cache(layer: &CacheLayer) -> Result<mounts::Cache, NulByte> {
    Ok(mounts::Cache {
        target: path(&layer.target.path)?,
        identity: layer.target.identity,
        layers: match &layer.above {
            CacheAbove::Kept { upper, work } => {
                mounts::CacheLayers::Kept { upper: path(upper)?, work: path(work)? }
            }
            CacheAbove::Forgotten { kept } => {
                mounts::CacheLayers::Forgotten { kept: kept.as_ref().map(path).transpose()? }
            }
            CacheAbove::Separate { directory } => {
                mounts::CacheLayers::Separate { directory: path(directory)? }
            }
        },
        mount: None,
    })
}

fn prepare_op(op: &MountOp) -> Result<mounts::Op, NulByte> {
    Ok(match op {
        MountOp::Bind { source, target, access } => mounts::Op::Bind {
            source: path(&source.path)?,
            identity: source.identity,
            target: path(target)?,
            access: *access,
            tree: None,
        },
        MountOp::Mask { target, readable_empty } => mounts::Op::Mask {
            target: path(&target.path)?,
            identity: target.identity,
            how: mounts::MaskKind::of(target.identity.kind, *readable_empty),
            tree: None,
        },
        MountOp::Tmpfs { target, mode, access, size_bytes } => mounts::Op::Tmpfs {
            target: path(target)?,
            mode: c_string(format!("{mode:o}").as_bytes())?,
            size: size_bytes.map(|size| c_string(size.to_string().as_bytes())).transpose()?,
            access: *access,
            mount: None,
        },
        MountOp::MakeDir { path: target, mode } => {
            mounts::Op::MakeDir { prefixes: prefixes(target)?, mode: *mode }
        }
        MountOp::MakeFile { path: target, mode } => mounts::Op::MakeFile { path: path(target)?, mode: *mode },
        MountOp::Symlink { path: target, to } => {
            mounts::Op::Symlink { path: path(target)?, to: c_string(to.as_bytes())? }
        }
        MountOp::Proc => mounts::Op::Proc,
        MountOp::Dev => mounts::Op::Dev { nodes: [const { None }; 6] },
    })
}

/// Every directory on the way to `target`, outermost first, `target` last, without `/`.
fn prefixes(target: &AbsPath) -> Result<Vec<CString>, NulByte> {
    let mut all = Vec::new();
    let mut next = Some(target.clone());
    while let Some(current) = next {
        next = current.parent();
        if next.is_some() {
            all.push(path(&current)?);
        }
    }
    all.reverse();
    Ok(all)
}
