//! S1: `sandbar run` as a whole process, from spawn to wait, against the floor and the peers.

use std::path::Path;

use anyhow::{Context, Result};

use super::contender::Line;
use super::race::{Contender, Pace, Times, race};
use super::row::{Role, Row, Target};
use super::world::{World, runtime_directory};
use crate::peers::Peers;

const ID: &str = "S1";
const TRUE: &str = "/bin/true";

/// A command line, split at blanks, that starts the rest of its line in the least sandbox there can be; measured
/// as a second floor. For prototypes that are not part of this repository.
const FLOOR: &str = "SANDBAR_BENCH_FLOOR";

/// Long enough that starting is noise, short enough for a few rounds.
const THROUGHPUT_BYTES: u64 = 1_000_000_000;
const THROUGHPUT_ROUNDS: u32 = 5;

/// A cold keeper costs a process start, a handshake and its end: fewer rounds give the same median.
const COLD_ROUNDS: u32 = 50;

/// Measures the rows of S1.
///
/// # Errors
/// When a measured command fails.
pub(super) fn rows(world: &World, peers: &Peers, runs: u32) -> Result<Vec<Row>> {
    let runtime = world.runtime.path();
    let not_recorded = || world.run(runtime).args(["--no-record", "--", TRUE]);
    let recorded = || world.run(runtime).args(["--", TRUE]);
    let floors = || world.floors();

    eprintln!("measuring {ID}: warm keeper, {runs} rounds");
    let warm = compare(
        not_recorded().starts("sandbar run"),
        floors(),
        world.peers(peers)?,
        runs,
        Pace::SlowOnesLess,
    )?;
    eprintln!("measuring {ID}: recorded, {runs} rounds");
    let with_record =
        compare(recorded().starts("sandbar run"), floors(), Vec::new(), runs, Pace::EveryRound)?;
    eprintln!("measuring {ID}: cold keeper, {} rounds", runs.min(COLD_ROUNDS));
    let cold = compare(world.cold(), floors(), Vec::new(), runs.min(COLD_ROUNDS), Pace::EveryRound)?;
    eprintln!("measuring {ID}: throughput, {THROUGHPUT_ROUNDS} rounds");
    let throughput = world.throughput(peers, runs.min(THROUGHPUT_ROUNDS))?;

    let row = |name, (ours, others), targets| Row { id: ID, name, ours, others, targets, bytes: None };
    Ok(vec![
        row(
            "start, warm keeper, not recorded",
            warm,
            vec![Target::slower("bwrap", 1.0), Target::slower("codex sandbox", 9.0)],
        ),
        row("start, warm keeper, recorded", with_record, Vec::new()),
        row("start, cold keeper, not recorded", cold, Vec::new()),
        Row { bytes: Some(THROUGHPUT_BYTES), ..row("1 GB to a pipe, not recorded", throughput, Vec::new()) },
    ])
}

type Others = Vec<(Role, Times)>;

/// Races ours against the others and sorts the times by what each is to us.
fn compare(
    ours: Contender<'_>,
    floors: Vec<Contender<'_>>,
    peers: Vec<Contender<'_>>,
    rounds: u32,
    pace: Pace,
) -> Result<(Times, Others)> {
    let mut roles: Vec<_> = std::iter::repeat_n(Role::Floor, floors.len()).collect();
    roles.extend(std::iter::repeat_n(Role::Peer, peers.len()));
    let contenders = std::iter::once(ours).chain(floors).chain(peers).collect();
    let mut times = race(contenders, rounds, pace)?.into_iter();
    let ours = times.next().context("a race without times")?;
    Ok((ours, roles.into_iter().zip(times).collect()))
}

impl World {
    fn floors(&self) -> Vec<Contender<'static>> {
        let mut floors = vec![Line::new(TRUE, &self.workspace).starts(TRUE)];
        if let Some(prototype) = std::env::var_os(FLOOR) {
            let prototype = prototype.to_string_lossy().into_owned();
            let mut words = prototype.split_whitespace();
            if let Some(program) = words.next() {
                floors.push(Line::new(program, &self.workspace).args(words).args([TRUE]).starts("prototype"));
            }
        }
        floors
    }

    fn peers(&self, peers: &Peers) -> Result<Vec<Contender<'static>>> {
        let mut contenders = Vec::new();
        if let Some(bwrap) = &peers.bwrap {
            contenders.push(self.bwrap(bwrap).args([TRUE]).starts("bwrap"));
        }
        if let Some(codex) = &peers.codex {
            // `:workspace` is its profile with a writable workspace and no network. Its home must not lie in /tmp.
            let home = self.folder.path().join("codex");
            let line = Line::new(codex, &self.workspace).env("CODEX_HOME", Some(home.into()));
            contenders.push(line.args(["sandbox", "-P", ":workspace", "--", TRUE]).starts("codex sandbox"));
        }
        if let Some(srt) = &peers.srt {
            let settings = self.folder.path().join("srt.json");
            std::fs::write(&settings, srt_settings(&self.workspace).to_string())?;
            let line = Line::new(srt, &self.workspace).args(["--settings".as_ref(), settings.as_os_str()]);
            contenders.push(line.args([TRUE]).starts("srt"));
        }
        Ok(contenders)
    }

    /// What the `workspace` profile asks for, as far as bubblewrap can say it; more may be said behind it.
    pub(super) fn bwrap(&self, bwrap: &Path) -> Line {
        let workspace = self.workspace.as_os_str();
        Line::new(bwrap, &self.workspace)
            .args(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"])
            .args(["--bind".as_ref(), workspace, workspace])
            .args(["--unshare-all", "--cap-drop", "ALL", "--die-with-parent"])
    }

    /// Ours with a new runtime directory each time: the keeper's start is measured, its end is not.
    fn cold(&self) -> Contender<'_> {
        let work = move || {
            let runtime = runtime_directory()?;
            let took = self.run(runtime.path()).args(["--no-record", "--", TRUE]).time();
            self.stop_keeper(runtime.path())?;
            took
        };
        Contender { name: "sandbar run".into(), work: Box::new(work) }
    }

    fn throughput(&self, peers: &Peers, rounds: u32) -> Result<(Times, Others)> {
        let head = ["head".to_owned(), "-c".to_owned(), THROUGHPUT_BYTES.to_string(), "/dev/zero".to_owned()];
        let ours = self.run(self.runtime.path()).args(["--no-record", "--"]).args(&head);
        let floor = Line::new(&head[0], &self.workspace).args(&head[1..]);
        let bwrap = peers.bwrap.as_deref().map(|bwrap| self.bwrap(bwrap).args(&head));
        compare(
            ours.writes("sandbar run", THROUGHPUT_BYTES),
            vec![floor.writes("head", THROUGHPUT_BYTES)],
            bwrap.map(|line| line.writes("bwrap", THROUGHPUT_BYTES)).into_iter().collect(),
            rounds,
            Pace::EveryRound,
        )
    }
}

/// Sandbox-runtime's settings for a writable workspace without network.
pub(super) fn srt_settings(workspace: &Path) -> serde_json::Value {
    serde_json::json!({
        "network": {"allowedDomains": [], "deniedDomains": []},
        "filesystem": {"denyRead": [], "allowWrite": [workspace.to_string_lossy()], "denyWrite": []},
    })
}
