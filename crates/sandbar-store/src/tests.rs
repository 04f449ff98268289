//! What a recorded run looks like, on a disk and over a file that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use rustix::io::Errno;
use sandbar_proto::{
    AbsPath, ByteString, EndRecord, ExitStatus, Gap, GapReason, NetworkMode, OutputTotals, ProcessEvent,
    RecordedBy, RecordedOutput, ResourceUse, RolloutEvent, RolloutItem, RolloutLine, RunEnded, RunNotStarted,
    Seq, Stream, TaskComplete, Timestamp,
};

use crate::output::{BoundedOutput, Progress};
use crate::recorder::Subject;
use crate::rollout::{Position, Rollout};
use crate::testing::{Fault, MemoryFile, RUN, lines_of, run_id};
use crate::{Durability, Locking, OutputBounds, Recorder, RunMeta, StartFailure, Step, Store, StoreError};

// 2026-11-21T02:40:07Z, when it is 21:40 of the day before in New York.
const STARTED: Timestamp = Timestamp(1_795_228_807_000_000_000);

fn after_ms(millis: u64) -> Timestamp {
    Timestamp(STARTED.0 + millis * 1_000_000)
}

fn store(home: &Path) -> Store {
    Store::open_in_zone(&home.join("sessions"), TimeZone::fixed(jiff::tz::offset(-5))).unwrap()
}

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

fn meta() -> RunMeta {
    RunMeta {
        id: run_id(),
        argv: vec!["printf".into(), "grün\\n".into(), ByteString::from(vec![0xff])],
        cwd: path("/repo"),
        profile: "workspace".to_owned(),
        network: NetworkMode::Off,
        writable_roots: vec![path("/repo"), path("/tmp")],
        notes: vec!["landlock is not available".to_owned()],
        withheld_env: 3,
        started: STARTED,
        holder_pid: None,
    }
}

fn record(home: &Path, bounds: OutputBounds) -> Recorder {
    store(home).record(meta(), Durability::Turn, bounds).unwrap()
}

fn output(seq: u64, offset_bytes: u64, millis: u64, stream: Stream, bytes: &[u8]) -> ProcessEvent {
    let (seq, time) = (Seq(seq), after_ms(millis));
    ProcessEvent::Output { seq, stream, offset_bytes, time, bytes: bytes.to_vec() }
}

fn stdout(seq: u64, offset_bytes: u64, bytes: &[u8]) -> ProcessEvent {
    output(seq, offset_bytes, seq, Stream::Stdout, bytes)
}

fn exited(status: ExitStatus, millis: u64) -> ProcessEvent {
    ProcessEvent::Exited(EndRecord {
        id: run_id(),
        status,
        ended: after_ms(millis),
        usage: ResourceUse { user_us: 1200, system_us: 800, max_rss_kib: 2048 },
        output: OutputTotals { bytes: 2328, dropped_bytes: 2000, last_seq: Seq(7) },
        timed_out: false,
        limits: Vec::new(),
        out_of_memory: None,
        unprotected: None,
    })
}

fn lines(path: &Path) -> Vec<RolloutLine> {
    let content = fs::read(path).unwrap();
    let content = String::from_utf8_lossy(&content);
    let lines = lines_of(&content);
    let ordinals: Vec<_> = lines.iter().map(|line| line.ordinal).collect();
    assert_eq!(ordinals, (0..lines.len() as u64).collect::<Vec<_>>(), "{content}");
    lines
}

fn events(lines: Vec<RolloutLine>) -> Vec<RolloutEvent> {
    let event = |line: RolloutLine| match line.item {
        RolloutItem::EventMsg(event) => Some(event),
        RolloutItem::SessionMeta(_) | RolloutItem::TurnContext(_) => None,
    };
    lines.into_iter().filter_map(event).collect()
}

/// The output as the lines have it, with the bytes of gaps as `_`; panics where they do not join.
fn transcript(events: &[RolloutEvent]) -> Vec<u8> {
    let mut text = Vec::new();
    for event in events {
        match event {
            RolloutEvent::RunOutput(output) => {
                assert_eq!(output.offset_bytes, text.len() as u64);
                text.extend_from_slice(output.data.as_bytes());
            }
            RolloutEvent::RunOutputGap(gap) => {
                assert_eq!(gap.offset_bytes, text.len() as u64);
                text.extend(std::iter::repeat_n(b'_', usize::try_from(gap.bytes).unwrap()));
            }
            RolloutEvent::TaskStarted(_)
            | RolloutEvent::RunStarted(_)
            | RolloutEvent::RunNotStarted(_)
            | RolloutEvent::RunTakenOver(_)
            | RolloutEvent::RunEnded(_)
            | RolloutEvent::TaskComplete(_) => {}
        }
    }
    text
}

fn ended(events: &[RolloutEvent]) -> &RunEnded {
    let found = events
        .iter()
        .find_map(|event| if let RolloutEvent::RunEnded(end) = event { Some(end) } else { None });
    found.expect("a run_ended line")
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_run_is_recorded_as_the_example_in_the_documentation() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = record(home.path(), OutputBounds { head_bytes: 320, tail_bytes: 128 });
    for event in [
        output(1, 0, 5, Stream::Stdout, "grün\n".as_bytes()),
        output(2, 6, 6, Stream::Stderr, b"\xff\xfe"),
        ProcessEvent::Gap(Gap { from_seq: Seq(3), to_seq: Seq(4), bytes: 2000 }),
        output(5, 2008, 900, Stream::Stdout, "first ".repeat(20).as_bytes()),
        output(6, 2128, 901, Stream::Stdout, "then ".repeat(20).as_bytes()),
        output(7, 2228, 902, Stream::Stdout, "last ".repeat(20).as_bytes()),
        exited(ExitStatus::Exited { code: 0 }, 950),
        output(9, 2328, 990, Stream::Stdout, b"and a child\n"),
        ProcessEvent::Closed { seq: Seq(10) },
    ] {
        recorder.event(&event).unwrap();
    }
    let written = fs::read_to_string(recorder.finish().unwrap()).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/run.jsonl");
    let example = fs::read_to_string(&example).unwrap();
    // The example must not change with every release.
    let written = written.replace(concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "\"0.1.0\"");
    assert_eq!(written, example, "\n{written}");
}

#[test]
fn a_rollout_is_named_by_local_time_and_is_private() {
    let home = tempfile::tempdir().unwrap();
    let recorder = record(home.path(), OutputBounds::default());
    let day = home.path().join("sessions/2026/11/20");
    assert_eq!(recorder.path(), day.join(format!("rollout-2026-11-20T21-40-07-{RUN}.jsonl")));
    assert_eq!(recorder.locking(), Locking::Shared);
    assert_eq!(mode(recorder.path()), 0o600);
    let directories: Vec<_> = day.ancestors().take(4).map(mode).collect();
    assert_eq!(directories, [0o700; 4]);
}

#[test]
fn directories_that_exist_keep_their_mode() {
    let home = tempfile::tempdir().unwrap();
    let year = home.path().join("sessions/2026");
    fs::create_dir_all(&year).unwrap();
    fs::set_permissions(&year, fs::Permissions::from_mode(0o755)).unwrap();
    record(home.path(), OutputBounds::default());
    assert_eq!((mode(&year), mode(&year.join("11"))), (0o755, 0o700));
}

#[test]
fn one_run_is_never_recorded_into_the_file_of_another() {
    let home = tempfile::tempdir().unwrap();
    let first = record(home.path(), OutputBounds::default());
    let error = store(home.path()).record(meta(), Durability::Turn, OutputBounds::default()).unwrap_err();
    assert_eq!(error, StoreError::new(Step::Create, first.path(), Errno::EXIST));
    assert_eq!(lines(first.path()).len(), 4);
}

#[test]
fn a_store_that_cannot_be_made_says_where_and_why() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let sessions = file.join("sessions");
    let error = Store::open(&sessions).unwrap_err();
    assert_eq!(error, StoreError::new(Step::CreateDirectory, &sessions, Errno::NOTDIR));
    if rustix::process::geteuid().is_root() {
        println!("skipped for root, who may write anywhere: a directory without permission");
        return;
    }
    let locked = home.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    let error = Store::open(&locked.join("sessions")).unwrap_err();
    assert!(matches!(error, StoreError::Denied { step: Step::CreateDirectory, .. }), "{error}");
}

#[test]
fn the_command_is_in_the_rollout_before_it_is_started() {
    let home = tempfile::tempdir().unwrap();
    let recorder = record(home.path(), OutputBounds::default());
    let events = events(lines(recorder.path()));
    assert!(matches!(&events[1], RolloutEvent::RunStarted(run) if run.command == meta().argv), "{events:?}");
}

#[test]
fn a_command_that_could_not_be_started_says_at_which_step() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = record(home.path(), OutputBounds::default());
    let (step, errno, reason) = ("execve".to_owned(), Some(2), "no such program".to_owned());
    recorder.failed_to_start(after_ms(3), StartFailure { step: step.clone(), errno, reason: reason.clone() });
    let events = events(lines(recorder.finish().unwrap().as_path()));
    let expected = [
        RolloutEvent::RunNotStarted(RunNotStarted { run_id: run_id(), step, errno, reason }),
        RolloutEvent::TaskComplete(TaskComplete {
            turn_id: run_id(),
            completed_at: 1_795_228_807,
            duration_ms: 3,
        }),
    ];
    assert_eq!(events[2..], expected);
}

#[test]
fn the_end_stands_after_the_output_of_children_that_outlived_the_leader() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = record(home.path(), OutputBounds::default());
    recorder.event(&stdout(1, 0, b"leader ")).unwrap();
    recorder.event(&exited(ExitStatus::Signaled { signal: 9 }, 50)).unwrap();
    recorder.event(&output(3, 7, 80, Stream::Stdout, b"child")).unwrap();
    let events = events(lines(recorder.finish().unwrap().as_path()));
    assert_eq!(transcript(&events[..events.len() - 2]), b"leader child");
    let end = ended(&events);
    assert_eq!((end.signal_name.as_deref(), end.duration), (Some("SIGKILL"), Duration::from_millis(50)));
    assert_eq!(end.recorded, RecordedOutput { bytes: 12, missing_bytes: 0 });
    assert!(matches!(events.last(), Some(RolloutEvent::TaskComplete(done)) if done.duration_ms == 80));
}

#[test]
fn a_prompt_without_a_newline_is_there_after_a_flush() {
    let home = tempfile::tempdir().unwrap();
    let mut recorder = record(home.path(), OutputBounds::default());
    recorder.event(&stdout(1, 0, b"Password: ")).unwrap();
    assert_eq!(transcript(&events(lines(recorder.path()))), b"");
    recorder.flush().unwrap();
    assert_eq!(transcript(&events(lines(recorder.path()))), b"Password: ");
}

#[test]
fn a_run_without_an_end_stays_open_and_another_process_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let mut first = record(home.path(), OutputBounds::default());
    first.event(&stdout(1, 0, b"one ")).unwrap();
    first.event(&stdout(2, 4, b"two ")).unwrap();
    let rollout = first.finish().unwrap();
    let before = fs::read(&rollout).unwrap();

    let resume = || store(home.path()).resume(rollout.as_path(), Durability::Turn, OutputBounds::default());
    let mut second = resume().unwrap();
    assert_eq!(second.settled_seq(), Seq(1));
    for event in [stdout(2, 4, b"two "), stdout(3, 8, b"three"), exited(ExitStatus::Exited { code: 7 }, 90)] {
        second.event(&event).unwrap();
    }
    second.finish().unwrap();

    assert!(fs::read(&rollout).unwrap().starts_with(&before));
    let events = events(lines(rollout.as_path()));
    assert_eq!(transcript(&events), b"one two three");
    let end = ended(&events);
    assert_eq!((end.recorded_by, end.recorded.bytes), (RecordedBy::Attend, 13));
    assert_eq!(resume().unwrap_err(), StoreError::Complete { path: rollout.as_path().to_owned() });
}

#[test]
fn wherever_a_rollout_is_torn_its_whole_lines_stay_and_the_record_becomes_complete() {
    let home = tempfile::tempdir().unwrap();
    let bounds = OutputBounds { head_bytes: 150, tail_bytes: 100 };
    let all = [
        stdout(1, 0, "grün ".repeat(15).as_bytes()),
        output(2, 90, 3, Stream::Stderr, &b"err ".repeat(20)),
        stdout(3, 170, &b"x".repeat(200)),
        exited(ExitStatus::Exited { code: 1 }, 40),
    ];
    let mut recorder = record(home.path(), bounds);
    for event in &all {
        recorder.event(event).unwrap();
    }
    let rollout = recorder.finish().unwrap();
    let whole = fs::read(&rollout).unwrap();
    let mut resumed = 0;
    for cut in 0..whole.len() {
        fs::write(&rollout, &whole[..cut]).unwrap();
        let kept = whole[..cut].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        match store(home.path()).resume(rollout.as_path(), Durability::Turn, bounds) {
            Ok(mut recorder) => {
                let settled = recorder.settled_seq();
                for event in &all {
                    let known = matches!(event, ProcessEvent::Output { seq, .. } if *seq <= settled);
                    if !known {
                        recorder.event(event).unwrap();
                    }
                }
                recorder.finish().unwrap();
                resumed += 1;
            }
            Err(StoreError::NotARun { .. }) => assert_eq!(resumed, 0, "cut at {cut}"),
            Err(StoreError::Complete { .. }) => assert_eq!(cut, whole.len() - 1),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
        let now = fs::read(&rollout).unwrap();
        assert!(now.starts_with(&whole[..kept]), "cut at {cut}");
        if resumed > 0 {
            let events = events(lines(rollout.as_path()));
            assert_eq!(transcript(&events).len(), 370, "cut at {cut}");
            assert!(matches!(events.last(), Some(RolloutEvent::TaskComplete(_))), "cut at {cut}");
            let ends = events.iter().filter(|event| matches!(event, RolloutEvent::RunEnded(_))).count();
            assert_eq!(ends, 1, "cut at {cut}");
        }
    }
    assert!(resumed > 1000, "{resumed}");
}

#[test]
fn lines_of_others_and_of_later_versions_stay_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    let recorder = record(home.path(), OutputBounds::default());
    let rollout = recorder.path().to_owned();
    drop(recorder);
    let mut content = fs::read(&rollout).unwrap();
    content.extend_from_slice(b"\xff\xfe garbage\n");
    content.extend_from_slice(
        b"{\"timestamp\":\"t\",\"ordinal\":4,\"type\":\"world_state\",\"payload\":{\"full\":true}}\n",
    );
    content.extend_from_slice(
        b"{\"timestamp\":\"t\",\"ordinal\":5,\"type\":\"event_msg\",\"payload\":{\"type\":\"run_paused\"},\"later\":1}\n",
    );
    let own = format!(
        r#"{{"timestamp":"t","ordinal":6,"metadata":{{}},"type":"event_msg","payload":{{"type":"run_output","run_id":"{RUN}","from_seq":1,"to_seq":1,"stream":"stdout","offset_bytes":0,"time":0,"data":"new","later":1}}}}"#
    );
    content.extend_from_slice(own.as_bytes());
    fs::write(&rollout, &content).unwrap();

    let mut second = store(home.path()).resume(&rollout, Durability::Turn, OutputBounds::default()).unwrap();
    for event in [stdout(1, 0, b"new"), stdout(2, 3, b" end"), exited(ExitStatus::Lost, 9)] {
        second.event(&event).unwrap();
    }
    second.finish().unwrap();

    let now = fs::read(&rollout).unwrap();
    assert!(now.starts_with(&content));
    assert_eq!(now[content.len()], b'\n', "the torn line is ended first");
    let added: Vec<RolloutLine> =
        lines_of(std::str::from_utf8(&now[content.len()..]).unwrap()).into_iter().collect();
    assert_eq!(added.iter().map(|line| line.ordinal).collect::<Vec<_>>(), [7, 8, 9]);
    assert!(matches!(&added[0].item, RolloutItem::EventMsg(RolloutEvent::RunOutput(output))
        if output.data == " end".into()));
}

#[test]
fn what_records_no_run_is_not_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    let store = store(home.path());
    let file = home.path().join("r.jsonl");
    for content in ["", "\n", "garbage", "{\"ordinal\":18446744073709551615}\n"] {
        fs::write(&file, content).unwrap();
        let error = store.resume(&file, Durability::Turn, OutputBounds::default()).unwrap_err();
        assert_eq!(error, StoreError::NotARun { path: file.clone() }, "{content}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
}

/// A recorder whose file is in memory and may fail.
fn over(file: &MemoryFile, durability: Durability, bounds: OutputBounds) -> Recorder {
    let rollout =
        Rollout::new(Box::new(file.clone()), PathBuf::from("/s/r.jsonl"), Position::START, durability);
    let subject = Subject { run: run_id(), turn: run_id(), started: STARTED, recorded_by: RecordedBy::Run };
    let output = BoundedOutput::new(bounds, Progress::default());
    Recorder::new(rollout, Locking::Shared, subject, output, RecordedOutput::default())
}

/// Six outputs of ten bytes, each on a line of its own; returns whether each was acknowledged.
fn write_six(recorder: &mut Recorder) -> Vec<bool> {
    let write = |n: u64| {
        let bytes = [b'a' + u8::try_from(n).unwrap(); 10];
        let taken = recorder.event(&stdout(n + 1, n * 10, &bytes));
        taken.and(recorder.flush()).is_ok()
    };
    (0..6).map(write).collect()
}

#[test]
fn whatever_fails_and_for_how_long_every_byte_is_in_a_line_or_in_a_stated_gap() {
    for (head_bytes, tail_bytes) in [(1024, 1024), (200, 20), (0, 30)] {
        let bounds = OutputBounds { head_bytes, tail_bytes };
        for step in 0..10 {
            for fault in [Fault::Fail(Errno::NOSPC), Fault::Short(50, Errno::NOSPC), Fault::TakeNothing] {
                for (persistent, truncate_works) in
                    [(false, true), (false, false), (true, true), (true, false)]
                {
                    let file = MemoryFile::failing(step, fault, truncate_works);
                    if persistent {
                        file.keep_failing();
                    }
                    let case = format!("{bounds:?} {step} {fault:?} {persistent} {truncate_works}");
                    let mut recorder = over(&file, Durability::Turn, bounds);
                    let acknowledged = write_six(&mut recorder);
                    file.heal();
                    recorder.event(&exited(ExitStatus::Exited { code: 0 }, 99)).unwrap();
                    recorder.finish().unwrap();
                    let events = events(lines_of(&file.content()));
                    let text = transcript(&events);
                    assert_eq!(text.len(), 60, "{case}");
                    if head_bytes > 60 * 64 / 10 {
                        for (n, _) in acknowledged.iter().enumerate().filter(|(_, ok)| **ok) {
                            let expected = [b'a' + u8::try_from(n).unwrap(); 10];
                            assert_eq!(text[n * 10..n * 10 + 10], expected, "{case}");
                        }
                    }
                    let recorded = ended(&events).recorded;
                    assert_eq!(recorded.bytes + recorded.missing_bytes, 60, "{case}");
                    let gaps = text.iter().filter(|&&byte| byte == b'_').count();
                    assert_eq!(recorded.missing_bytes, gaps as u64, "{case}");
                }
            }
        }
    }
}

#[test]
fn output_that_could_not_be_written_is_a_gap_with_that_reason() {
    let file = MemoryFile::failing(1, Fault::Fail(Errno::NOSPC), true);
    let mut recorder = over(&file, Durability::Turn, OutputBounds::default());
    assert_eq!(write_six(&mut recorder), [true, false, true, true, true, true]);
    let reasons: Vec<_> = events(lines_of(&file.content()))
        .into_iter()
        .filter_map(|event| if let RolloutEvent::RunOutputGap(gap) = event { Some(gap) } else { None })
        .map(|gap| (gap.from_seq, gap.to_seq, gap.offset_bytes, gap.bytes, gap.reason))
        .collect();
    assert_eq!(reasons, [(Seq(2), Seq(2), 10, 10, GapReason::WriteFailed)]);
}

#[test]
fn a_disk_that_loses_its_sync_says_so_at_the_end_and_every_line_is_there() {
    for (durability, first_sync) in [(Durability::Line, 1), (Durability::Turn, 8)] {
        let file = MemoryFile::failing(first_sync, Fault::Fail(Errno::IO), true);
        let mut recorder = over(&file, durability, OutputBounds::default());
        write_six(&mut recorder);
        recorder.event(&exited(ExitStatus::Exited { code: 0 }, 99)).unwrap();
        let error = recorder.finish().unwrap_err();
        assert!(matches!(error, StoreError::NotDurable { .. }), "{durability:?}: {error}");
        let events = events(lines_of(&file.content()));
        assert_eq!(transcript(&events).len(), 60);
        assert!(matches!(events.last(), Some(RolloutEvent::TaskComplete(_))));
    }
}

#[test]
fn durability_decides_how_often_the_disk_is_waited_for() {
    let syncs = [(Durability::Never, 0), (Durability::Turn, 1), (Durability::Line, 8 + 1)];
    for (durability, expected) in syncs {
        let file = MemoryFile::default();
        let mut recorder = over(&file, durability, OutputBounds::default());
        write_six(&mut recorder);
        recorder.event(&exited(ExitStatus::Exited { code: 0 }, 99)).unwrap();
        recorder.finish().unwrap();
        assert_eq!(file.syncs(), expected, "{durability:?}");
    }
}

/// A reader of the envelope that has never heard of Sandbar, built after facts/sessions.md §1.2 and §1.3.
mod unaware {
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", content = "payload", rename_all = "snake_case")]
    pub(super) enum Item {
        SessionMeta {
            id: String,
            timestamp: String,
            cwd: String,
            originator: String,
            cli_version: String,
            source: Source,
        },
        TurnContext {
            turn_id: String,
            cwd: String,
            approval_policy: String,
            model: String,
        },
        EventMsg(Event),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Source {
        Cli,
        Exec,
        #[serde(other)]
        Unknown,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    pub(super) enum Event {
        TaskStarted { turn_id: String, started_at: Option<i64> },
        TaskComplete { turn_id: String, last_agent_message: Option<String>, completed_at: Option<i64> },
        AgentMessage { message: String },
    }

    #[derive(Debug, Deserialize)]
    pub(super) struct Line {
        pub(super) ordinal: Option<u64>,
        #[serde(flatten)]
        pub(super) item: Item,
    }
}

#[test]
fn a_reader_that_knows_nothing_of_runs_reads_the_thread_and_skips_the_rest() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/run.jsonl");
    let content = fs::read_to_string(example).unwrap();
    let understood: Vec<unaware::Line> =
        content.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = content.lines().count() as u64 - 1;
    assert_eq!(
        understood.iter().map(|line| line.ordinal).collect::<Vec<_>>(),
        [Some(0), Some(2), Some(last)]
    );
    assert!(
        matches!(&understood[0].item, unaware::Item::SessionMeta { id, source: unaware::Source::Unknown, .. } if id == RUN)
    );
    assert!(matches!(&understood[1].item, unaware::Item::EventMsg(unaware::Event::TaskStarted { .. })));
    assert!(matches!(&understood[2].item, unaware::Item::EventMsg(unaware::Event::TaskComplete { .. })));
}

#[test]
fn every_line_of_the_example_is_read_and_written_back_byte_for_byte() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/run.jsonl");
    for text in fs::read_to_string(example).unwrap().lines() {
        let line: RolloutLine = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    }
}

#[test]
fn keys_that_are_not_known_yet_do_not_hide_a_line() {
    let text = format!(
        r#"{{"timestamp":"t","ordinal":3,"metadata":{{"a":[1]}},"type":"event_msg","payload":{{"type":"task_started","turn_id":"{RUN}","started_at":1,"later":{{}}}},"later":2}}"#
    );
    let line: RolloutLine = serde_json::from_str(&text).unwrap();
    assert_eq!((line.ordinal, line.item), (3, crate::testing::task_started(1)));
}
