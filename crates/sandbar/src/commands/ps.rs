//! `sandbar ps`: what runs here, and what has ended and is still on record.
//!
//! Everything is read from records. Only who looks at a run its keeper alone knows; one that does not answer at once is
//! not waited for.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use sandbar_exec::Processes as _;
use sandbar_keeper::KeeperDir;
use sandbar_proto::{
    AbsPath, ByteString, EnforcedLimit, LimitReport, OutOfMemory, OutputTotals, ResourceUse, RunId, Timestamp,
};
use serde::Serialize;

use crate::cli::PsArgs;
use crate::dirs::Directories;
use crate::elsewhere::Elsewhere;
use crate::escape::{self, Layout};
use crate::keepers::{self, Known};
use crate::places::{self, Where};
use crate::render::{Problem, note};
use crate::status::{self, Status};
use crate::table::Table;
use crate::{event_loop, exit, ids, output, time};

/// Columns from which on a terminal has room for the working directory.
const WIDE: usize = 140;

/// How long keepers may take to say who looks at what.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// How many look at each run, as far as that is known.
pub(crate) type Viewers = HashMap<RunId, usize>;

/// Lists the runs.
///
/// # Errors
/// The records can't be read, or the answer can't be written.
pub(super) fn execute(args: &PsArgs) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    let (all, foreign, viewers) = match places::find(&args.on, &directories)? {
        Where::Local => {
            let (all, foreign) = keepers::known(&keepers::runtime(&directories)?)?;
            let viewers = viewers(&all);
            (all, foreign, viewers)
        }
        Where::Elsewhere(place) => event_loop::block_on(async { Elsewhere::new(place).known().await })?,
    };
    if foreign > 0 {
        note(others(foreign));
    }
    let is_listed = |known: &Known| args.all || known.is_running();
    if args.json {
        let listed = all.iter().filter(|known| is_listed(known));
        let entries: Vec<Entry<'_>> = listed.map(|known| Entry::of(known, &viewers)).collect();
        return output::print_json(&entries);
    }
    let width = output::terminal_width();
    let columns = if args.all || width.is_some_and(|width| width >= WIDE) {
        Columns::WithDirectory
    } else {
        Columns::Usual
    };
    let text = table(&all, is_listed, columns, &viewers, Timestamp::now()).text(width);
    if text.is_empty() {
        if width.is_some() {
            note(if args.all { NOTHING } else { NOTHING_RUNS });
        }
        return Ok(exit::OK);
    }
    output::print(text)
}

/// Asks the keepers that hold something.
fn viewers(all: &[Known]) -> Viewers {
    let mut keepers: Vec<KeeperDir> = Vec::new();
    for known in all.iter().filter(|known| known.is_running()) {
        if keepers.iter().all(|keeper| keeper.path() != known.keeper.path()) {
            keepers.push(known.keeper.clone());
        }
    }
    if keepers.is_empty() {
        return Viewers::new();
    }
    let (answer, answered) = mpsc::channel();
    // A keeper that is stopped keeps its thread waiting, and nobody else.
    std::thread::spawn(move || {
        for keeper in keepers {
            let listed = event_loop::block_on(async {
                let processes = keepers::connect(&keeper)?;
                event_loop::answer(processes.list()).await
            });
            if let Ok(Ok(listed)) = listed {
                // Nobody listens any more after the deadline.
                let _ = answer.send(listed);
            }
        }
    });
    let deadline = std::time::Instant::now() + ANSWER_DEADLINE;
    let mut viewers = Viewers::new();
    while let Ok(listed) =
        answered.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
    {
        viewers.extend(listed.into_iter().map(|state| (state.start.id, state.viewers)));
    }
    viewers
}

const NOTHING_RUNS: &str = "nothing runs (`sandbar ps --all` lists what has ended).";
const NOTHING: &str = "nothing is on record.";

fn others(foreign: usize) -> String {
    let keepers = if foreign == 1 { "keeper" } else { "keepers" };
    format!("{foreign} {keepers} of another version of sandbar may hold more; that version lists it.")
}

/// Which columns are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    Usual,
    WithDirectory,
}

/// The rows of those that are listed. Ids are told apart from all on record, so that what is copied from here
/// names one run whether it is listed or not.
fn table(
    all: &[Known],
    is_listed: impl Fn(&Known) -> bool,
    columns: Columns,
    viewers: &Viewers,
    now: Timestamp,
) -> Table {
    let mut table = Table::with_header(match columns {
        Columns::Usual => &["ID", "STATUS", "TTY", "STARTED", "PROFILE", "COMMAND"],
        Columns::WithDirectory => &["ID", "STATUS", "TTY", "STARTED", "PROFILE", "CWD", "COMMAND"],
    });
    let sorted: Vec<RunId> = all.iter().map(Known::id).collect();
    let listed = ids::prefixes(&sorted).into_iter().zip(all).filter(|(_, known)| is_listed(known));
    for (id, known) in listed {
        let start = &known.record.start;
        let mut row = vec![
            id,
            words(known, viewers, now),
            if start.terminal { "pty" } else { "-" }.to_owned(),
            format!("{} ago", time::short(now.since(start.started))),
            escape::escape(start.profile.as_bytes(), Layout::OneLine),
        ];
        if columns == Columns::WithDirectory {
            row.push(escape::escape(start.cwd.as_bytes(), Layout::OneLine));
        }
        row.push(escape::command(&start.argv));
        table.row(row);
    }
    table
}

/// How a run stands, and whether nobody looks at it.
fn words(known: &Known, viewers: &Viewers, now: Timestamp) -> String {
    let words = status::words(&known.record, known.keeper_alive, now);
    let is_detached = known.is_running() && viewers.get(&known.id()) == Some(&0);
    if is_detached { format!("{words}, detached") } else { words }
}

/// One run as JSON. docs/json.md describes it.
#[derive(Serialize)]
struct Entry<'a> {
    id: RunId,
    status: Status,
    exit_code: Option<u8>,
    timed_out: bool,
    terminal: bool,
    viewers: Option<usize>,
    profile: &'a str,
    command: &'a [ByteString],
    cwd: &'a AbsPath,
    started: Timestamp,
    ended: Option<Timestamp>,
    usage: Option<ResourceUse>,
    output: Option<OutputTotals>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out_of_memory: Option<OutOfMemory>,
}

/// A limit as it stands: with what became of it once the run has ended.
#[derive(Serialize)]
#[serde(untagged)]
enum LimitEntry {
    Running(EnforcedLimit),
    Ended(LimitReport),
}

impl<'a> Entry<'a> {
    fn of(known: &'a Known, viewers: &Viewers) -> Self {
        let (start, end) = (&known.record.start, known.record.end.as_ref());
        Self {
            id: start.id,
            status: Status::of(&known.record, known.keeper_alive),
            exit_code: end.and_then(|end| end.status.shell_code()),
            timed_out: end.is_some_and(|end| end.timed_out),
            terminal: start.terminal,
            viewers: viewers.get(&start.id).copied(),
            profile: &start.profile,
            command: &start.argv,
            cwd: &start.cwd,
            started: start.started,
            ended: end.map(|end| end.ended),
            usage: end.map(|end| end.usage),
            output: end.map(|end| end.output),
            limits: match end {
                Some(end) => end.limits.iter().copied().map(LimitEntry::Ended).collect(),
                None => start.limits.iter().copied().map(LimitEntry::Running).collect(),
            },
            out_of_memory: end.and_then(|end| end.out_of_memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::record;
    use sandbar_proto::ExitStatus;

    fn known(end: Option<ExitStatus>) -> Known {
        Known { record: record(end), keeper: KeeperDir::at("/nowhere".into()), keeper_alive: true }
    }

    #[test]
    fn a_run_is_one_line_whatever_its_command_is() {
        let now = Timestamp(61_000_000_000);
        let text = table(&[known(None)], |_| true, Columns::Usual, &Viewers::new(), now).text(None);
        assert_eq!(
            text,
            "ID             STATUS      TTY  STARTED  PROFILE    COMMAND\n\
             07070707-0707  running 1m  -    1m ago   workspace  make 'a\\nb'\n"
        );
    }

    #[test]
    fn the_working_directory_stands_before_the_command() {
        let now = Timestamp(61_000_000_000);
        let ended = known(Some(ExitStatus::Exited { code: 2 }));
        let columns = Columns::WithDirectory;
        let text = table(&[ended], |_| true, columns, &Viewers::new(), now).text(None);
        assert_eq!(
            text,
            "ID             STATUS    TTY  STARTED  PROFILE    CWD  COMMAND\n\
             07070707-0707  exited 2  -    1m ago   workspace  /    make 'a\\nb'\n"
        );
    }

    #[test]
    fn a_run_that_nobody_looks_at_is_detached() {
        let (mut running, now) = (known(None), Timestamp(61_000_000_000));
        running.record.start.terminal = true;
        let looked_at = |viewers| words(&running, &Viewers::from([(running.id(), viewers)]), now);
        assert_eq!((looked_at(0), looked_at(1)), ("running 1m, detached".into(), "running 1m".into()));
        assert_eq!(words(&running, &Viewers::new(), now), "running 1m");
        let ended = known(Some(ExitStatus::Exited { code: 0 }));
        assert_eq!(words(&ended, &Viewers::from([(ended.id(), 0)]), now), "exited 0");
    }

    #[test]
    fn what_runs_has_no_end_in_json() {
        let json = serde_json::to_string(&Entry::of(&known(None), &Viewers::new())).unwrap();
        assert_eq!(
            json,
            r#"{"id":"07070707-0707-0707-0707-070707070707","status":{"how":"running"},"exit_code":null,"timed_out":false,"terminal":false,"viewers":null,"profile":"workspace","command":["make","a\nb"],"cwd":"/","started":1000000000,"ended":null,"usage":null,"output":null}"#
        );
    }

    #[test]
    fn what_ended_says_how_and_when_in_json() {
        let known = known(Some(ExitStatus::Signaled { signal: 9 }));
        let entry = Entry::of(&known, &Viewers::new());
        let found = (entry.status, entry.exit_code, entry.ended);
        assert_eq!(found, (Status::Signaled { signal: 9 }, Some(137), Some(Timestamp(2_000_000_000))));
    }
}
