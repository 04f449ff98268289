//! Another machine's runs, as the commands that list, show, join and end runs need them.

use std::future::Future;
use std::path::PathBuf;

use sandbar_exec::Process;
use sandbar_exec::remote::{Beginning, Remote};
use sandbar_keeper::{KeeperDir, Record};
use sandbar_proto::exec::RunRecord;

use crate::commands::Viewers;
use crate::keepers::{self, Known};
use crate::places::{self, Place};
use crate::render::Problem;

/// A place and the connection to it.
pub(crate) struct Elsewhere {
    place: Place,
    remote: Remote,
}

impl Elsewhere {
    /// Connects when it is first used; must be called within a runtime.
    pub(crate) fn new(place: Place) -> Self {
        Self { remote: places::remote(&place), place }
    }

    /// The connection.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The place.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Everything on record there, keepers of another protocol, and who looks at what.
    ///
    /// # Errors
    /// It can't be reached.
    pub(crate) async fn known(&self) -> Result<(Vec<Known>, usize, Viewers), Problem> {
        let records = self.remote.records().await;
        let (runs, foreign) =
            records.map_err(|error| places::problem("list the runs", &self.place, &error))?;
        let viewers = runs.iter().filter_map(|run| Some((run.start.id, run.viewers?))).collect();
        Ok((runs.into_iter().map(known).collect(), foreign, viewers))
    }

    /// The one run there whose id begins with `prefix`.
    ///
    /// # Errors
    /// There is none, or more than one; it can't be reached.
    pub(crate) async fn find(&self, prefix: &str) -> Result<Known, Problem> {
        let (all, _, _) = self.known().await?;
        self.pick(all, prefix)
    }

    /// The one run of `all` whose id begins with `prefix`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn pick(&self, all: Vec<Known>, prefix: &str) -> Result<Known, Problem> {
        keepers::pick(|| Ok(all), prefix, format!("{} ({})", self.place.name, self.place.reach))
    }

    /// Follows a run from its beginning, or from its last output on.
    ///
    /// # Errors
    /// It is not held there any more.
    pub(crate) async fn attach(&self, known: &Known, from: Beginning) -> Result<Box<dyn Process>, Problem> {
        let attached = self.remote.attach(known.id(), from).await;
        attached.map_err(|error| places::problem("follow the run", &self.place, &error))
    }

    /// Does something, and says meanwhile when the connection is lost and when it is back.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn while_telling<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let telling = async {
            places::tell_breaks(&self.remote, &self.place.name).await;
            // Whoever waits for the connection hears of its end, and says what that means.
            std::future::pending().await
        };
        tokio::select! {
            biased;
            result = work => result,
            never = telling => never,
        }
    }
}

/// A record of another machine; its directories are there.
fn known(run: RunRecord) -> Known {
    Known {
        record: Record { start: run.start, end: run.end, path: PathBuf::new() },
        keeper: KeeperDir::at(PathBuf::new()),
        keeper_alive: run.keeper_alive,
    }
}
