//! What becomes of the record of a run when nobody who started it is there any more.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sandbar_proto::{
    ExitStatus, GapReason, RecordedBy, RolloutEvent, RolloutItem, RolloutLine, RunEnded, TakeoverReason,
};
use sandbar_testkit::need::Need;
use sandbar_testkit::processes::Process;
use sandbar_testkit::{DEADLINE, Home, Running, eventually, need};

const MEBIBYTE: u64 = 1024 * 1024;

const ATTENDANT: &[u8] = b"--sandbar-run-as-attendant";

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// The only rollout of a home.
fn rollout(home: &Home) -> PathBuf {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let found = entries.flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            Ok(_) | Err(_) => vec![entry.path()],
        });
        found.filter(|path| path.as_os_str().as_bytes().ends_with(b".jsonl")).collect()
    }
    let [found] = <[PathBuf; 1]>::try_from(files(&home.sandbar_home().join("state"))).unwrap();
    found
}

/// The events of the only record, once it is complete.
fn complete_record(home: &Home) -> Vec<RolloutEvent> {
    eventually(DEADLINE, "the end of a record", || {
        let text = fs::read_to_string(rollout(home)).ok()?;
        // A line that is being written is not there yet.
        text.rsplit_terminator('\n').next().filter(|last| last.contains("task_complete"))?;
        text.ends_with('\n').then_some(())?;
        let lines: Vec<RolloutLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ordinals: Vec<u64> = lines.iter().map(|line| line.ordinal).collect();
        assert_eq!(ordinals, (0..lines.len() as u64).collect::<Vec<_>>());
        let events: Vec<RolloutEvent> = lines
            .into_iter()
            .filter_map(|line| match line.item {
                RolloutItem::EventMsg(event) => Some(event),
                RolloutItem::SessionMeta(_) | RolloutItem::TurnContext(_) => None,
            })
            .collect();
        matches!(events.last(), Some(RolloutEvent::TaskComplete(_))).then_some(events)
    })
}

/// Everything that is recorded, bytes of gaps as `_`; panics where lines do not join or something was lost.
fn transcript(events: &[RolloutEvent]) -> Vec<u8> {
    let mut text = Vec::new();
    for event in events {
        if let RolloutEvent::RunOutput(output) = event {
            assert_eq!(output.offset_bytes, text.len() as u64);
            text.extend_from_slice(output.data.as_bytes());
        }
        if let RolloutEvent::RunOutputGap(gap) = event {
            assert_eq!((gap.offset_bytes, gap.reason), (text.len() as u64, GapReason::Bounded), "{gap:?}");
            text.resize(text.len() + usize::try_from(gap.bytes).unwrap(), b'_');
        }
    }
    text
}

fn end(events: &[RolloutEvent]) -> &RunEnded {
    let ends = events
        .iter()
        .filter_map(|event| if let RolloutEvent::RunEnded(end) = event { Some(end) } else { None });
    let [end] = ends.collect::<Vec<_>>()[..] else { panic!("not one end") };
    end
}

fn takeovers(events: &[RolloutEvent]) -> Vec<TakeoverReason> {
    let taken = events.iter().filter_map(|event| {
        if let RolloutEvent::RunTakenOver(taken) = event { Some(taken.reason) } else { None }
    });
    taken.collect()
}

/// The attendants of a home's keeper.
fn attendants(home: &Home) -> Vec<Process> {
    let is_attendant = |process: &Process| {
        process.is_alive() && process.command_line().windows(ATTENDANT.len()).any(|part| part == ATTENDANT)
    };
    home.keeper().descendants().into_iter().filter(is_attendant).collect()
}

#[test]
fn a_detached_run_is_told_by_its_id_and_recorded_to_its_end() {
    let home = need!(sandbox());
    let mut command =
        home.shell(&["--detach"], "echo begun; until test -e go; do sleep 0.01; done; echo last; exit 3");
    let told = sandbar_testkit::finish(&mut command);
    let id = told.ok().trim_end().to_owned();
    assert!(rollout(&home).to_string_lossy().contains(&id), "{told:?}");
    home.write("go", "");
    let events = complete_record(&home);
    assert_eq!(takeovers(&events), [TakeoverReason::Detached]);
    assert_eq!(transcript(&events), b"begun\nlast\n");
    let end = end(&events);
    assert_eq!((end.status, end.recorded_by), (ExitStatus::Exited { code: 3 }, RecordedBy::Attend));
}

#[test]
fn a_detached_run_is_told_as_json_and_has_no_input() {
    let home = need!(sandbox());
    let told = home.finish(&["run", "-q", "--detach", "--json", "--", "cat"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["type"], &told["command"][0]), (&"started".into(), &"cat".into()));
    assert_eq!(end(&complete_record(&home)).status, ExitStatus::Exited { code: 0 });
}

#[test]
fn a_run_that_ends_under_its_own_recorder_needs_nobody_else() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "echo done").ok(), "done\n");
    let events = complete_record(&home);
    assert_eq!((takeovers(&events), end(&events).recorded_by), (Vec::new(), RecordedBy::Run));
    // The keeper was told before the program ended, so whoever comes now comes after.
    assert_eq!(home.run(&["--no-record"], "true").code, Some(0));
    assert!(attendants(&home).is_empty());
}

#[test]
fn the_record_of_a_killed_recorder_is_completed_without_a_lost_byte() {
    let home = need!(sandbox());
    let script = "echo before; until test -e go; do sleep 0.01; done; echo after; exit 4";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "before");
    running.signal(Signal::KILL);
    assert_eq!(running.finish().signal, Some(9));
    home.write("go", "");
    let events = complete_record(&home);
    assert_eq!(takeovers(&events), [TakeoverReason::RecorderDied]);
    assert_eq!(transcript(&events), b"before\nafter\n");
    let end = end(&events);
    assert_eq!((end.status, end.recorded_by), (ExitStatus::Exited { code: 4 }, RecordedBy::Attend));
}

#[test]
fn a_flood_whose_recorder_is_killed_in_the_middle_is_recorded_from_its_head_to_its_tail() {
    let home = need!(sandbox());
    // More than the log retains, and an end that can be told from what comes before it.
    let script = "echo begin; head -c 40000000 /dev/zero | tr '\\0' x; until test -e go; do sleep 0.01; done; echo end";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "begin");
    running.signal(Signal::KILL);
    let _ = running.finish();
    home.write("go", "");
    let events = complete_record(&home);
    let text = transcript(&events);
    assert_eq!(text.len(), 40_000_000 + "begin\nend\n".len());
    assert!(text.starts_with(b"begin\nxxx") && text.ends_with(b"xxxend\n"));
    let recorded = end(&events).recorded;
    assert!(recorded.bytes >= 2 * MEBIBYTE - 64 && recorded.bytes <= 2 * MEBIBYTE, "{recorded:?}");
    assert_eq!(recorded.bytes + recorded.missing_bytes, text.len() as u64);
    assert_eq!(text.iter().filter(|&&byte| byte == b'_').count() as u64, recorded.missing_bytes);
}

#[test]
fn an_attendant_that_is_killed_is_replaced() {
    let home = need!(sandbox());
    let script = "echo one; until test -e go; do sleep 0.01; done; echo two";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "one");
    running.signal(Signal::KILL);
    let _ = running.finish();
    let first = eventually(DEADLINE, "an attendant", || {
        let text = fs::read_to_string(rollout(&home)).ok()?;
        text.contains("run_taken_over").then(|| attendants(&home).pop())?
    });
    first.signal(Signal::KILL);
    home.write("go", "");
    let events = complete_record(&home);
    assert_eq!(takeovers(&events), [TakeoverReason::RecorderDied; 2]);
    assert_eq!(transcript(&events), b"one\ntwo\n");
}

#[test]
fn what_a_killed_keeper_held_is_recorded_as_lost_by_the_next_one() {
    let home = need!(sandbox());
    let mut running = Running::start(&mut home.shell(&[], "echo shown; sleep 1000"));
    assert_eq!(running.line(), "shown");
    home.end_keepers();
    assert_eq!(running.finish().code, Some(125));
    assert_eq!(home.run(&["--no-record"], "true").code, Some(0));
    let events = complete_record(&home);
    assert_eq!(takeovers(&events), [TakeoverReason::KeeperDied]);
    assert_eq!(transcript(&events), b"shown\n");
    assert_eq!((end(&events).status, end(&events).recorded_by), (ExitStatus::Lost, RecordedBy::Attend));
}

#[test]
fn an_attendant_whose_keeper_is_killed_completes_its_record_and_ends() {
    let home = need!(sandbox());
    let told = home.run(&["--detach"], "echo shown; sleep 1000");
    assert_eq!(told.code, Some(0), "{told:?}");
    eventually(DEADLINE, "the output in the record", || {
        fs::read_to_string(rollout(&home)).ok()?.contains("shown\\n").then_some(())
    });
    // Waits for the end of everything below the keeper, the attendant included.
    home.end_keepers();
    let events = complete_record(&home);
    assert_eq!((transcript(&events).as_slice(), end(&events).status), (&b"shown\n"[..], ExitStatus::Lost));
}

#[test]
fn a_rollout_that_is_gone_is_no_reason_to_try_for_ever() {
    let home = need!(sandbox());
    let mut running = Running::start(&mut home.shell(&[], "echo one; until test -e go; do sleep 0.01; done"));
    assert_eq!(running.line(), "one");
    fs::remove_file(rollout(&home)).unwrap();
    running.signal(Signal::KILL);
    let _ = running.finish();
    home.write("go", "");
    eventually(DEADLINE, "the end of the run", || {
        (home.finish(&["ps", "--json"]).ok() == "[]\n").then_some(())
    });
    eventually(DEADLINE, "the end of the attendant", || attendants(&home).is_empty().then_some(()));
}

#[test]
fn runs_that_are_attended_do_not_keep_their_keeper_from_stopping() {
    let home = need!(sandbox());
    let told = home.run(&["--detach"], "true");
    assert_eq!(told.code, Some(0), "{told:?}");
    let _ = complete_record(&home);
    eventually(DEADLINE, "a keeper that stops", || {
        (home.finish(&["keeper", "stop"]).code == Some(0)).then_some(())
    });
}
