//! The cgroups of runs, below the keeper's own.
//!
//! ```text
//! <the keeper's cgroup>/
//!   sandbar-keeper-<pid>/    the keeper and runs without a cgroup, once controllers are passed down
//!   sandbar-run-<run id>/    one run; its holder stays outside
//! ```
//!
//! Nothing is looked at before a run is limited. A cgroup with processes in it passes no controllers down (cgroups(7),
//! "no internal processes"), so the keeper moves itself and its children into a leaf first, and only if nobody else is
//! there; it can go back, since it may write the cgroup that it leaves, and does so when it ends. What a dead keeper
//! left is removed by the next one: the record of each run names its cgroup.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, ByteString, CgroupObstacle, EnforcedLimit, Limit, LimitFacts, LimitMechanism, RunId,
};
use sandbar_sandbox::cgroup::{Bounds, Cgroup, Controllers};
use serde::{Deserialize, Serialize};

use crate::handover::{Adopted, Fd, HandoverError, Kept, failed};

const RUN: &str = "sandbar-run-";
const KEEPER: &str = "sandbar-keeper-";

/// How often processes are moved out of the way: some may fork meanwhile.
const MOVES: usize = 50;

/// What there is of cgroups.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    base: Option<Base>,
    /// Cgroups of runs that could not be removed at once.
    stale: Vec<String>,
    /// Those of runs that were lost with a keeper before this one.
    lost: Vec<AbsPath>,
}

/// A cgroup that runs' cgroups are made in.
#[derive(Debug)]
struct Base {
    cgroup: Cgroup,
    controllers: Controllers,
    /// What we pass down that it did not before, and the name of the leaf that we moved to for it.
    moved: Option<(Controllers, String)>,
    obstacle: Option<CgroupObstacle>,
}

/// The cgroup of a run.
#[derive(Debug)]
pub(super) struct RunCgroup {
    pub(super) cgroup: Cgroup,
    name: String,
}

impl Cgroups {
    /// What can be done with them. Prepares it, the first time and again while not everything can be.
    pub(super) fn facts(&mut self) -> LimitFacts {
        let prepared = match self.base.take() {
            Some(base) if base.obstacle.is_none() => Ok(base),
            Some(base) => base.improve(),
            None => Base::find().and_then(Base::improve),
        };
        match prepared {
            Ok(base) => {
                let facts = LimitFacts {
                    cgroup: AbsPath::new(base.cgroup.path().as_os_str().to_owned()).ok(),
                    pids: base.controllers.pids,
                    memory: base.controllers.memory,
                    obstacle: base.obstacle,
                };
                self.base = Some(base);
                facts
            }
            Err(obstacle) => LimitFacts { obstacle: Some(obstacle), ..LimitFacts::default() },
        }
    }

    /// Where the cgroup is to be that the plan of a run asks for, if it does. It goes on record before it is made: nobody
    /// would remove it behind a keeper that is killed in between.
    ///
    /// # Errors
    /// ENOENT where there can be none.
    pub(super) fn place(&mut self, id: RunId, enforced: &[EnforcedLimit]) -> Result<Option<AbsPath>, Errno> {
        if by_cgroup(enforced).next().is_none() {
            return Ok(None);
        }
        if self.base.is_none() {
            // The plan was made with the facts of a keeper before this one.
            self.facts();
        }
        let base = self.base.as_ref().ok_or(Errno::NOENT)?;
        let path = base.cgroup.path().join(name_of(id)).into_os_string();
        AbsPath::new(path).map(Some).map_err(|_| Errno::NOENT)
    }

    /// Makes the cgroup that the plan of a run asks for, if it does.
    ///
    /// # Errors
    /// The kernel's; ENOENT where there is no cgroup, or not that controller.
    pub(super) fn make(&mut self, id: RunId, enforced: &[EnforcedLimit]) -> Result<Option<RunCgroup>, Errno> {
        if by_cgroup(enforced).next().is_none() {
            return Ok(None);
        }
        self.sweep();
        let base = self.base.as_ref().ok_or(Errno::NOENT)?;
        let name = name_of(id);
        let run = RunCgroup { cgroup: base.cgroup.make(&name)?, name };
        let value = |limit| by_cgroup(enforced).find(|found| found.limit == limit).map(|found| found.value);
        let bounds = Bounds { pids: value(Limit::Procs), memory_bytes: value(Limit::Memory) };
        if let Err(errno) = run.cgroup.bound(bounds) {
            self.remove(run);
            return Err(errno);
        }
        Ok(Some(run))
    }

    /// Kills what is left in the cgroup of a run, and removes it.
    pub(super) fn remove(&mut self, run: RunCgroup) {
        // Nothing is, unless it left the tree; then the kill is what ends it.
        let _ = run.cgroup.kill();
        self.stale.push(run.name);
        self.sweep();
    }

    /// Removes what a run may have left that was lost with its keeper.
    pub(super) fn reclaim(&mut self, path: AbsPath) {
        if !reclaim(&path) {
            self.lost.push(path);
        }
    }

    /// Removes what could not be removed before: the kernel may take a moment to let go of what ended.
    pub(super) fn sweep(&mut self) {
        self.lost.retain(|path| !reclaim(path));
        let Some(base) = &self.base else { return };
        self.stale.retain(|name| matches!(base.cgroup.remove(name), Err(Errno::BUSY)));
    }

    /// Goes back to where the keeper was, and leaves nothing.
    pub(super) fn leave(&mut self) {
        self.sweep();
        let Some(base) = self.base.take() else { return };
        if let Some((controllers, leaf)) = &base.moved {
            base.undo(*controllers, leaf);
        }
    }
}

impl Base {
    /// The keeper's own cgroup, if it may make others in it.
    fn find() -> Result<Self, CgroupObstacle> {
        let cgroup = Cgroup::own()?;
        if !cgroup.is_delegated() {
            return Err(CgroupObstacle::NotDelegated);
        }
        remove_empty(&cgroup, KEEPER);
        Ok(Self { cgroup, controllers: Controllers::default(), moved: None, obstacle: None })
    }

    /// Has every controller passed down that can be.
    fn improve(mut self) -> Result<Self, CgroupObstacle> {
        let failed = |errno: Errno| CgroupObstacle::Failed { errno: errno.raw_os_error() };
        let (available, enabled) =
            (self.cgroup.available().map_err(failed)?, self.cgroup.enabled().map_err(failed)?);
        let missing = available.without(enabled);
        self.obstacle = None;
        if !missing.is_empty()
            && let Err(obstacle) = self.pass_down(missing)
        {
            self.obstacle = Some(obstacle);
        }
        self.controllers = self.cgroup.enabled().map_err(failed)?;
        let all = Controllers { pids: true, memory: true };
        if self.obstacle.is_none() && !all.without(self.controllers).is_empty() {
            self.obstacle = Some(CgroupObstacle::NoControllers);
        }
        Ok(self)
    }

    fn pass_down(&mut self, missing: Controllers) -> Result<(), CgroupObstacle> {
        let failed = |errno: Errno| CgroupObstacle::Failed { errno: errno.raw_os_error() };
        if self.cgroup.is_root() {
            return self.cgroup.enable(missing).map_err(failed);
        }
        let own = std::process::id();
        let others = strangers(&self.cgroup.processes().map_err(failed)?, own);
        if others > 0 {
            return Err(CgroupObstacle::Shared { processes: others });
        }
        let name = format!("{KEEPER}{own}");
        let leaf = self.cgroup.make(&name).map_err(failed)?;
        let passed = self.move_to(&leaf).and_then(|()| self.cgroup.enable(missing));
        match passed {
            Ok(()) => {
                self.moved = Some((missing, name));
                Ok(())
            }
            Err(errno) => {
                self.undo(Controllers::default(), &name);
                // EBUSY: somebody came in since.
                let others = strangers(&self.cgroup.processes().map_err(failed)?, own);
                Err(if errno == Errno::BUSY {
                    CgroupObstacle::Shared { processes: others }
                } else {
                    failed(errno)
                })
            }
        }
    }

    /// Moves all that is here into `leaf`.
    fn move_to(&self, leaf: &Cgroup) -> Result<(), Errno> {
        for _ in 0..MOVES {
            let here = self.cgroup.processes()?;
            if here.is_empty() {
                return Ok(());
            }
            if strangers(&here, std::process::id()) > 0 {
                return Err(Errno::BUSY);
            }
            for pid in here {
                match leaf.take(pid) {
                    // It has ended.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Err(Errno::BUSY)
    }

    /// Takes back what [`Base::pass_down`] did, as far as it goes: what can't be taken back now goes with the cgroup.
    fn undo(&self, controllers: Controllers, leaf: &str) {
        if !controllers.is_empty() {
            let _ = self.cgroup.disable(controllers);
        }
        if let Ok(cgroup) = self.cgroup.child(leaf) {
            for pid in cgroup.processes().unwrap_or_default() {
                let _ = self.cgroup.take(pid);
            }
        }
        let _ = self.cgroup.remove(leaf);
    }
}

fn by_cgroup(enforced: &[EnforcedLimit]) -> impl Iterator<Item = &EnforcedLimit> {
    enforced.iter().filter(|limit| limit.by == LimitMechanism::Cgroup)
}

fn name_of(id: RunId) -> String {
    format!("{RUN}{id}")
}

/// [`Cgroups`] on their way to the next program.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SavedCgroups {
    base: Option<SavedBase>,
    stale: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<AbsPath>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedBase {
    cgroup: SavedCgroup,
    controllers: Controllers,
    moved: Option<(Controllers, String)>,
    obstacle: Option<CgroupObstacle>,
}

/// [`RunCgroup`] on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedRunCgroup {
    cgroup: SavedCgroup,
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedCgroup {
    directory: Fd,
    path: ByteString,
}

impl SavedCgroup {
    fn save(cgroup: &Cgroup, kept: &mut Kept) -> Self {
        Self { directory: kept.keep(cgroup), path: cgroup.path().as_os_str().into() }
    }

    fn restore(self, adopted: &mut Adopted) -> Result<Cgroup, HandoverError> {
        let directory = adopted.give(self.directory)?;
        Cgroup::from_directory(directory, self.path.to_os_string().into())
            .map_err(failed("take a cgroup over"))
    }
}

impl Cgroups {
    /// Hands everything over.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedCgroups {
        let Self { base, stale, lost } = self;
        let base = base.as_ref().map(|Base { cgroup, controllers, moved, obstacle }| SavedBase {
            cgroup: SavedCgroup::save(cgroup, kept),
            controllers: *controllers,
            moved: moved.clone(),
            obstacle: *obstacle,
        });
        SavedCgroups { base, stale: stale.clone(), lost: lost.clone() }
    }

    /// Takes everything over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedCgroups, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedCgroups { base, stale, lost } = saved;
        let base = match base {
            Some(SavedBase { cgroup, controllers, moved, obstacle }) => {
                Some(Base { cgroup: cgroup.restore(adopted)?, controllers, moved, obstacle })
            }
            None => None,
        };
        Ok(Self { base, stale, lost })
    }
}

impl RunCgroup {
    /// Hands the cgroup over.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedRunCgroup {
        let Self { cgroup, name } = self;
        SavedRunCgroup { cgroup: SavedCgroup::save(cgroup, kept), name: name.clone() }
    }

    /// Takes a cgroup over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedRunCgroup, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedRunCgroup { cgroup, name } = saved;
        Ok(Self { cgroup: cgroup.restore(adopted)?, name })
    }
}

/// Removes the cgroup of a run whose keeper died, and that keeper's leaf. The run itself ended with its keeper; what is
/// left of it all the same is killed. `false` if something in it has not quite ended yet.
fn reclaim(path: &AbsPath) -> bool {
    let path = PathBuf::from(path.as_path());
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with(RUN));
    let (Some(name), Some(parent)) = (name, path.parent().map(Path::to_owned)) else { return true };
    // A cgroup that is gone needs nothing; a path that leads to something else by now is left alone.
    let Ok(parent) = Cgroup::open(parent) else { return true };
    let is_gone = match parent.child(name) {
        Ok(run) => {
            let _ = run.kill();
            parent.remove(name) != Err(Errno::BUSY)
        }
        Err(_) => true,
    };
    remove_empty(&parent, KEEPER);
    is_gone
}

/// Removes the cgroups in `parent` that nobody is in and whose name begins with `prefix`.
fn remove_empty(parent: &Cgroup, prefix: &str) {
    for name in parent.children().unwrap_or_default() {
        if name.starts_with(prefix) {
            // EBUSY: somebody is in it.
            let _ = parent.remove(&name);
        }
    }
}

/// How many of `pids` are neither the process `own` nor its descendants. One of another pid namespace is 0, and
/// nobody's descendant.
fn strangers(pids: &[i32], own: u32) -> u32 {
    let own = i32::try_from(own).unwrap_or_default();
    let mut ours = HashSet::from([own]);
    let is_stranger = |pid: &&i32| !descends(**pid, &mut ours);
    u32::try_from(pids.iter().filter(is_stranger).count()).unwrap_or(u32::MAX)
}

fn descends(pid: i32, ours: &mut HashSet<i32>) -> bool {
    /// More generations than any tree has; the chain may change while it is followed.
    const MAX_ANCESTORS: usize = 1024;
    let (mut chain, mut next) = (Vec::new(), pid);
    for _ in 0..MAX_ANCESTORS {
        if ours.contains(&next) {
            ours.extend(chain);
            return true;
        }
        chain.push(next);
        match sandbar_sandbox::caller::parent(next) {
            Some(parent) if parent > 0 => next = parent,
            // What has ended is nobody's concern.
            None if chain.len() == 1 && next > 0 => return true,
            Some(_) | None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_no_strangers_and_parents_are() {
        let own = std::process::id();
        let pid = i32::try_from(own).unwrap();
        let parent = sandbar_sandbox::caller::parent(pid).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = strangers(&[pid, i32::try_from(child.id()).unwrap()], own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, 0);
        assert_eq!(strangers(&[parent, 1, 0, pid], own), 3);
    }

    #[test]
    fn a_path_that_is_no_cgroup_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join(format!("{RUN}x"));
        std::fs::create_dir(&inside).unwrap();
        assert!(reclaim(&AbsPath::new(inside.clone().into_os_string()).unwrap()));
        assert!(inside.exists());
    }
}
