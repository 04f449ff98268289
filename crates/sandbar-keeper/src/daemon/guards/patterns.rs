//! Patterns whose matches are hidden, whenever they come to be.
//!
//! What matched when the plan was made is hidden by the plan. Every directory in which something may come to match is watched, and
//! what appears there is looked at: a match is hidden by name, a directory is watched and looked through. What the run's own
//! command makes is hidden like anything else. Whatever can't be watched or looked through ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbar_proto::{AbsPath, FactAnswer, FactQuery, FileKind, GlobProgress, PathGlob, PinnedPath, RunId};
use sandbar_sandbox::facts;
use sandbar_sandbox::facts::search::{self, Found, NotSearched};
use sandbar_sandbox::guard::Guarded;

use super::{Guards, Keeper, Since, Unwatched};

/// Something to look for in one directory.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// For whom.
    pub(super) run: RunId,
    glob: Arc<PathGlob>,
    directory: AbsPath,
    progress: GlobProgress,
}

/// How long the keeper looked through what one run's directories became. It has one thread, which everybody's runs need.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    spent: Duration,
}

impl Pace {
    /// Time over which is counted, and the most of it that one run gets.
    const WINDOW: Duration = Duration::from_secs(4);
    const MOST: Duration = Duration::from_secs(1);

    /// Whether a run has had more than its share with what it took at `began`.
    fn is_exceeded_by(&mut self, began: Instant, took: Duration) -> bool {
        if self.since.is_none_or(|since| began.saturating_duration_since(since) > Self::WINDOW) {
            (self.since, self.spent) = (Some(began), Duration::ZERO);
        }
        self.spent += took;
        self.spent > Self::MOST
    }
}

/// A name that a pattern has something to do with.
#[derive(Debug)]
pub(super) struct Appeared {
    run: RunId,
    glob: Arc<PathGlob>,
    path: AbsPath,
    progress: GlobProgress,
}

impl Pattern {
    /// What `name` in the directory is to the pattern, if anything.
    pub(super) fn appeared(&self, name: &[u8], is_directory: bool) -> Option<Appeared> {
        let progress = self.glob.step(self.progress, name);
        let path = self.directory.join(name).ok().filter(|path| self.glob.reaches(path.depth()))?;
        let may_hold = is_directory && !progress.is_over();
        (may_hold || self.glob.is_match(progress)).then(|| Appeared {
            run: self.run,
            glob: Arc::clone(&self.glob),
            path,
            progress,
        })
    }
}

impl Guards {
    /// Watches `directory` for what may come to match in it.
    fn watch_for(&mut self, pattern: Pattern) -> Result<(), Unwatched> {
        let Some(watch) = self.add_watch(&pattern.directory)? else { return Ok(()) };
        let known = &mut self.directories.entry(watch).or_default().patterns;
        // A directory that was renamed keeps its watch and has another path.
        known.retain(|other| other.run != pattern.run || !Arc::ptr_eq(&other.glob, &pattern.glob));
        known.push(pattern);
        Ok(())
    }
}

impl Keeper {
    /// Watches for everything that the patterns of a run may come to cover, and hides what they cover by now.
    pub(super) fn look_for_all(&mut self, id: RunId) {
        let guard = self.processes.get(&id).and_then(|process| process.guard.as_ref());
        let globs = guard.map(|guard| guard.globs.clone()).unwrap_or_default();
        for glob in globs {
            let (base, progress) = (glob.base().clone(), glob.start());
            self.look_through(Appeared { run: id, glob, path: base, progress });
        }
    }

    /// Something appeared where patterns may cover it, or something below it.
    pub(super) fn look_at_appeared(&mut self, appeared: Vec<Appeared>) {
        let mut covered: BTreeMap<RunId, Vec<PinnedPath>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut others = Vec::new();
        for one in appeared {
            // Of a name that came and went many times only what is there now counts.
            if !seen.insert((one.run, Arc::as_ptr(&one.glob) as usize, one.path.clone())) {
                continue;
            }
            if one.glob.is_match(one.progress) {
                // Which file that is does not matter: whatever has the name is hidden. A link is not: what it leads to has a
                // name of its own.
                if let FactAnswer::File(fact) = facts::answer(&FactQuery::Lookup(one.path.clone()))
                    && fact.pinned.identity.kind != FileKind::Symlink
                {
                    covered.entry(one.run).or_default().push(fact.pinned);
                }
            } else {
                others.push(one);
            }
        }
        for (run, found) in covered {
            self.hide(run, found);
        }
        for one in others {
            let (run, path, began) = (one.run, one.path.clone(), Instant::now());
            self.look_through(one);
            let process = self.processes.get_mut(&run);
            let pace = process.and_then(|process| process.guard.as_mut()).map(|guard| &mut guard.pace);
            if pace.is_some_and(|pace| pace.is_exceeded_by(began, began.elapsed())) {
                self.give_up_guarding(run, Some(path));
            }
        }
    }

    /// Watches a directory and all below, and looks what is there: until every directory that is found was watched before it was
    /// looked into, so that nothing which appears in between is missed.
    fn look_through(&mut self, Appeared { run, glob, path, progress }: Appeared) {
        let is_guarded = self.processes.get(&run).is_some_and(|process| {
            !process.tree_ended && process.unprotected.is_none() && process.guard.is_some()
        });
        if !is_guarded {
            return;
        }
        let mut watched = BTreeSet::new();
        loop {
            let found = match search::below(&glob, &path, progress) {
                Ok(found) => found,
                // Gone again, and with it everything that could have been found.
                Err(NotSearched::Missing) => return,
                Err(NotSearched::TooMany | NotSearched::Errno(_)) => {
                    return self.give_up_guarding(run, Some(path));
                }
            };
            let Found { mut directories, matches } = found;
            directories.retain(|(directory, _)| watched.insert(directory.clone()));
            if directories.is_empty() {
                return self.hide(run, matches);
            }
            for (directory, progress) in directories {
                let pattern = Pattern { run, glob: Arc::clone(&glob), directory, progress };
                if let Err(Unwatched(path)) = self.guards.watch_for(pattern) {
                    return self.give_up_guarding(run, Some(path));
                }
            }
        }
    }

    /// Hides what was found, but for what the plan has a word of its own for: that is looked after by its name.
    fn hide(&mut self, run: RunId, found: Vec<PinnedPath>) {
        let Some(process) = self.processes.get(&run) else { return };
        if process.tree_ended || process.unprotected.is_some() {
            return;
        }
        let Some(guard) = &process.guard else { return };
        let is_new = |found: &PinnedPath| {
            let is_link = found.identity.kind == FileKind::Symlink;
            !is_link && guard.names.iter().all(|name| name.path != found.path)
        };
        let names: Vec<Guarded> = found.into_iter().filter(is_new).map(Guarded::found).collect();
        if !names.is_empty() {
            self.put_up(run, &names, Since::Watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_its_share_of_the_keepers_time_and_no_more() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        let third = Duration::from_millis(400);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!pace.is_exceeded_by(at(0), third));
        assert!(!pace.is_exceeded_by(at(1), third));
        assert!(pace.is_exceeded_by(at(2), third));
        // What was long ago is forgotten.
        assert!(!pace.is_exceeded_by(at(9), third));
    }
}
