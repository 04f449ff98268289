//! The keeper replaces itself: what goes on, what is carried over, and what leaves everything as it was.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod talk;

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;
use rustix::process::Signal;
use sandbar_exec::local::LocalProcesses;
use sandbar_exec::{Processes as _, Watching};
use sandbar_keeper::protocol::{
    self, Event, MINOR, ProcessState, Refusal, Reply, Request, UpgradeRefusal, Watch,
};
use sandbar_keeper::{Incoming, Patience};
use sandbar_proto::{
    AbsPath, AfterLeader, EndRecord, ExitStatus, Lifetime, OutputMode, Owner, ProcessEvent, RunId, SessionId,
    StdinMode, Stdio, Terminal, TerminalSize,
};
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Running, eventually, need, processes};

use talk::{MEBIBYTE, Talk, home, memfd, script, sealed};

/// A copy of the program under another name, that only its owner may write: what an installation of a newer one is.
fn newer(home: &Home) -> PathBuf {
    let path = home.outside().join("newer-sandbar");
    if !path.exists() {
        fs::copy(home.program(), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}

/// An executable script that is taken for a newer program.
fn fake(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.outside().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

impl Talk {
    fn upgrade_to(&mut self, path: &Path) -> Reply {
        self.ask_with(Request::Upgrade, &[], vec![open(path)])
    }

    fn upgrade(&mut self, home: &Home) {
        let expected = Reply::Upgraded { minor: MINOR, version: env!("CARGO_PKG_VERSION").to_owned() };
        assert_eq!(self.upgrade_to(&newer(home)), expected);
    }

    fn state(&mut self, id: RunId) -> ProcessState {
        let reply = self.ask(Request::Watch { id, watch: Watch::End, record: false, ended: true });
        let Reply::Process { state } = reply else { panic!("{reply:?}") };
        *state
    }

    fn end_of(&mut self, id: RunId) -> EndRecord {
        loop {
            if let Event::Exited { id: of, end } = self.next_event()
                && of == id
            {
                return end;
            }
        }
    }
}

fn refusal(reply: Reply) -> UpgradeRefusal {
    let Reply::Refused { error: Refusal::Upgrade { reason } } = reply else { panic!("{reply:?}") };
    reason
}

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(home())
}

fn local(talk: Talk) -> LocalProcesses {
    let patience = Patience::new(talk.keeper.clone(), DEADLINE, |_| {});
    LocalProcesses::new(talk.client, talk.keeper.processes(), patience).unwrap()
}

/// Reads a process to its end in a thread of its own, as a recorder does: what it wrote, and how it ended.
fn follow(home: &Home, id: RunId) -> thread::JoinHandle<(Vec<u8>, ExitStatus)> {
    let talk = Talk::with(home);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut process = local(talk).follow(id, Watching::Lossless).await.unwrap();
            let (mut bytes, mut status, mut last) = (Vec::new(), None, 0);
            while let Some(event) = process.next_event().await.unwrap() {
                let seq = match event {
                    ProcessEvent::Output { seq, bytes: chunk, .. } => {
                        bytes.extend_from_slice(&chunk);
                        seq
                    }
                    ProcessEvent::Exited(end) => {
                        status = Some(end.status);
                        end.seq().unwrap()
                    }
                    ProcessEvent::Closed { seq } => seq,
                    ProcessEvent::Gap(_) | ProcessEvent::Stopped { .. } => panic!("{event:?}"),
                };
                assert_eq!(seq.0, last + 1);
                last = seq.0;
            }
            (bytes, status.unwrap())
        })
    })
}

fn lines(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

// --- what goes on ---

#[test]
fn a_keeper_is_replaced_and_is_the_same_process() {
    let home = home();
    let mut talk = Talk::with(&home);
    let keeper = home.keeper();
    let id = RunId::generate();
    talk.start(id, Watch::End, &script(&home, "until test -e go; do sleep 0.01; done; exit 9"));
    talk.upgrade(&home);
    assert_eq!(home.keeper(), keeper);
    home.write("go", "");
    assert_eq!(talk.end_of(id).status, ExitStatus::Exited { code: 9 });
    assert!(
        !keeper.command_line().windows(4).any(|part| part == b"/tmp"),
        "no path of the host is in its arguments"
    );
    need!(need::that(need::is_root(), "a keeper is not dumpable: only root may look at it"));
    let proc = format!("/proc/{}", keeper.pid);
    assert_eq!(fs::read_link(format!("{proc}/exe")).unwrap(), newer(&home));
    assert_eq!(fs::read(format!("{proc}/environ")).unwrap(), b"");
    assert_eq!(fs::read_to_string(format!("{proc}/comm")).unwrap(), "sandbar-keeper\n");
}

/// Numbers and flags of everything that a keeper has open.
fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let proc = format!("/proc/{pid}");
    let mut found: Vec<(i32, String)> = fs::read_dir(format!("{proc}/fdinfo"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
            (number, flags)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn no_descriptor_is_left_open_and_none_is_passed_on() {
    need!(need::that(need::is_root(), "a keeper is not dumpable: only root may look at it"));
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "until test -e go; do sleep 0.01; done");
    spec.stdio.stdin = StdinMode::Piped;
    talk.start(id, Watch::End, &spec);
    let pid = home.keeper().pid;
    talk.upgrade(&home);
    let first = descriptors(pid);
    for _ in 0..5 {
        talk.upgrade(&home);
        refusal(talk.upgrade_to(Path::new("/bin/false")));
    }
    let count = first.len();
    assert_eq!(descriptors(pid).len(), count);
    for (number, flags) in descriptors(pid).into_iter().filter(|(number, _)| *number > 2) {
        let flags = u32::from_str_radix(&flags, 8).unwrap();
        assert_ne!(flags & 0o2_000_000, 0, "descriptor {number} stays open across execve");
    }
}

#[test]
fn under_load_every_byte_every_end_and_every_answer_is_right() {
    const WRITERS: u8 = 20;
    const LINES: u32 = 150_000;
    const UPGRADES: usize = 12;
    let home = home();
    newer(&home);
    let mut talk = Talk::with(&home);
    let wait = "until test -e go; do sleep 0.01; done";
    // Writers at full speed, each with a reader that makes it wait.
    let mut readers = Vec::new();
    for writer in 0..WRITERS {
        let id = RunId::generate();
        talk.start(id, Watch::End, &script(&home, &format!("{wait}; seq {LINES}; exit {writer}")));
        readers.push((follow(&home, id), lines(LINES), writer));
    }
    // A terminal.
    let mut terminal = script(&home, &format!("stty -onlcr; {wait}; seq {LINES}; exit 40"));
    terminal.stdio =
        Stdio { stdin: StdinMode::Terminal, stdout: OutputMode::Terminal, stderr: OutputMode::Terminal };
    terminal.terminal = Some(Terminal { size: TerminalSize::USUAL, modes: None });
    let id = RunId::generate();
    talk.start(id, Watch::End, &terminal);
    readers.push((follow(&home, id), lines(LINES), 40));
    // One whose output is the caller's own pipe.
    let mut direct = script(&home, &format!("{wait}; seq {LINES}; exit 41"));
    direct.stdio.stdout = OutputMode::Direct;
    direct.stdio.stderr = OutputMode::Direct;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let direct_id = RunId::generate();
    let null = OwnedFd::from(fs::File::options().write(true).open("/dev/null").unwrap());
    let request = Request::Start { id: direct_id, watch: Watch::End, rollout: None, owner: None };
    let started = talk.ask_with(request, &[], vec![sealed(&direct), write, null]);
    assert!(matches!(started, Reply::Process { .. }), "{started:?}");
    let piped = thread::spawn(move || {
        let mut bytes = Vec::new();
        fs::File::from(read).read_to_end(&mut bytes).unwrap();
        bytes
    });
    // One that reads what a client writes.
    let mut reading = script(&home, &format!("{wait}; cksum; exit 42"));
    reading.stdio.stdin = StdinMode::Piped;
    let reading_id = RunId::generate();
    talk.start(reading_id, Watch::End, &reading);
    // A client that asks all the time, and starts something each time.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut talk = Talk::with(&home);
            let mut started = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let id = RunId::generate();
                talk.start(id, Watch::End, &script(&home, &format!("exit {}", started % 200)));
                let end = talk.end_of(id);
                assert_eq!(end.status, ExitStatus::Exited { code: u8::try_from(started % 200).unwrap() });
                talk.live();
                started += 1;
            }
            started
        });
        let writing = scope.spawn(|| {
            let mut talk = Talk::with(&home);
            let block = vec![b'x'; protocol::MAX_WRITE_BYTES];
            talk.ask(Request::Watch { id: reading_id, watch: Watch::End, record: false, ended: false });
            let (mut accepted, total) = (0, 8 * MEBIBYTE);
            while accepted < total {
                let rest = usize::try_from(total - accepted).unwrap().min(block.len());
                let Reply::Written { accepted_bytes } = talk.write(reading_id, accepted, &block[..rest])
                else {
                    panic!("not written")
                };
                if accepted_bytes < accepted + rest as u64 {
                    while talk.next_event() != (Event::StdinReady { id: reading_id }) {}
                }
                accepted = accepted_bytes;
            }
            assert_eq!(talk.ask(Request::CloseStdin { id: reading_id }), Reply::Done);
        });
        home.write("go", "");
        for _ in 0..UPGRADES {
            talk.upgrade(&home);
        }
        for (reader, expected, code) in readers {
            let (bytes, status) = reader.join().unwrap();
            assert_eq!(status, ExitStatus::Exited { code });
            assert!(bytes == expected, "{} bytes of {} in process {code}", bytes.len(), expected.len());
        }
        assert!(piped.join().unwrap() == lines(LINES));
        writing.join().unwrap();
        let end = eventually(DEADLINE, "the end of the last", || talk.state(reading_id).end);
        assert_eq!(end.status, ExitStatus::Exited { code: 42 });
        assert_eq!(talk.end_of(direct_id).status, ExitStatus::Exited { code: 41 });
        done.store(true, Ordering::Relaxed);
        assert!(busy.join().unwrap() > 0);
    });
    let Some(sandbar_keeper::LogItem::Record(_, told)) = talk.log(reading_id).next_item().unwrap() else {
        panic!("no output")
    };
    assert!(String::from_utf8(told).unwrap().contains(&format!(" {}", 8 * MEBIBYTE)));
    // An end is told before the tree behind it is gone.
    eventually(DEADLINE, "a keeper that holds nothing", || talk.live().is_empty().then_some(()));
}

#[test]
fn what_waits_in_a_full_stdin_is_carried_over() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "until test -e go; do sleep 0.01; done; wc -c");
    spec.stdio.stdin = StdinMode::Piped;
    talk.start(id, Watch::End, &spec);
    let block = vec![b'x'; protocol::MAX_WRITE_BYTES];
    let mut accepted = 0;
    loop {
        let Reply::Written { accepted_bytes } = talk.write(id, accepted, &block) else {
            panic!("not written")
        };
        let is_full = accepted_bytes < accepted + block.len() as u64;
        accepted = accepted_bytes;
        if is_full {
            break;
        }
    }
    talk.upgrade(&home);
    assert_eq!(talk.ask(Request::CloseStdin { id }), Reply::Done);
    talk.upgrade(&home);
    home.write("go", "");
    talk.wait_closed(id);
    let Some(sandbar_keeper::LogItem::Record(_, told)) = talk.log(id).next_item().unwrap() else {
        panic!("no output")
    };
    assert_eq!(String::from_utf8(told).unwrap().trim(), accepted.to_string());
}

// --- what is carried over ---

#[test]
fn leases_go_on_with_the_time_that_they_had() {
    let home = home();
    let mut talk = Talk::with(&home);
    let session = |text: &str| SessionId::new(text).unwrap();
    let renew = |talk: &mut Talk, name: &str, ttl_ms| {
        talk.ask(Request::Session { session: session(name), blob: name.as_bytes().into(), ttl_ms })
    };
    assert_eq!(renew(&mut talk, "over", 0), Reply::Done);
    let begun = Instant::now();
    assert_eq!(renew(&mut talk, "short", 5000), Reply::Done);
    assert_eq!(renew(&mut talk, "long", 3_600_000), Reply::Done);
    let id = RunId::generate();
    let mut spec = script(&home, "exec sleep 86400");
    spec.lifetime = Lifetime::Session;
    let owner = Some(Owner { session: Some(session("short")), blob: b"blob"[..].into() });
    let request = Request::Start { id, watch: Watch::End, rollout: None, owner: owner.clone() };
    let started = talk.ask_with(request, &[], vec![sealed(&spec)]);
    assert!(matches!(started, Reply::Process { .. }), "{started:?}");
    for _ in 0..3 {
        talk.upgrade(&home);
    }
    let expired = Reply::Refused { error: Refusal::SessionExpired { session: session("over") } };
    assert_eq!(renew(&mut talk, "over", 1000), expired, "an end is not forgotten");
    let Reply::Sessions { sessions, .. } = talk.ask(Request::Sessions { after: None }) else {
        panic!("none")
    };
    let names: Vec<&str> = sessions.iter().map(|state| state.session.as_str()).collect();
    assert_eq!(names, ["long", "short"]);
    assert_eq!(sessions[1].blob.as_bytes(), b"short");
    assert_eq!(talk.live()[0].start.owner, owner);
    let end = talk.end_of(id);
    assert_eq!(end.status, ExitStatus::Signaled { signal: 15 });
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn limits_and_graces_go_on_with_the_time_that_they_had() {
    let home = home();
    let mut talk = Talk::with(&home);
    let (limited, graced) = (RunId::generate(), RunId::generate());
    let mut spec = script(&home, "exec sleep 86400");
    spec.limits.wall = Some(Duration::from_millis(1200));
    talk.start(limited, Watch::End, &spec);
    let stubborn = "trap '' TERM; touch up; while :; do sleep 0.01; done";
    talk.start(graced, Watch::End, &script(&home, stubborn));
    eventually(DEADLINE, "it to run", || home.workspace().join("up").exists().then_some(()));
    assert_eq!(talk.ask(Request::Terminate { id: graced, signal: 15, grace_ms: 700 }), Reply::Done);
    talk.upgrade(&home);
    assert_eq!(talk.end_of(graced).status, ExitStatus::Signaled { signal: 9 });
    let end = talk.end_of(limited);
    assert_eq!((end.status, end.timed_out), (ExitStatus::Signaled { signal: 15 }, true));
}

/// Whether the end of a run says that this limit held it back.
fn held(finished: &Finished, limit: &str) -> bool {
    let out = finished.out();
    let mut events = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let end = events.find(|event| event["type"] == "exited").unwrap_or_else(|| panic!("{finished:?}"));
    let reports = end["limits"].as_array().cloned().unwrap_or_default();
    reports.iter().any(|report| report["limit"] == limit && report["held"] == true)
}

/// Starts runs with limits, has the keeper replaced, and lets them reach their limits then.
fn limits_hold_afterwards(home: &Home, table: &[(&str, &str, &str, i32)]) {
    let gate = |name: &str| home.workspace().join(format!("gate-{name}"));
    let start = |(name, limit, script, _): &(&str, &str, &str, i32)| {
        let text = format!("mkfifo gate-{name}; read go < gate-{name}; {script}");
        Running::start(&mut home.shell(&["--json", "--limit", limit], &text))
    };
    let runs: Vec<Running> = table.iter().map(start).collect();
    for (name, ..) in table {
        eventually(DEADLINE, "the run to wait", || gate(name).exists().then_some(()));
    }
    let mut talk = Talk::with(home);
    // Where the host has any for them.
    let cgroups: Vec<AbsPath> = talk.live().into_iter().filter_map(|state| state.start.cgroup).collect();
    for _ in 0..3 {
        talk.upgrade(home);
    }
    for ((name, limit, _, code), run) in table.iter().zip(runs) {
        fs::write(gate(name), "go\n").unwrap();
        let finished = run.finish();
        assert_eq!((finished.code, held(&finished, name)), (Some(*code), true), "{limit}: {finished:?}");
    }
    for cgroup in cgroups {
        let path = cgroup.as_path();
        eventually(DEADLINE, "the removal of a cgroup", || (!path.exists()).then_some(()));
    }
}

#[test]
fn a_limited_process_keeps_its_limits() {
    let home = need!(sandbox());
    limits_hold_afterwards(
        &home,
        &[
            ("cpu", "cpu=1", "while :; do :; done", 152),
            ("memory", "memory=64M", "exec tail /dev/zero", 137),
            ("file_size", "file-size=1M", "exec head -c 2M /dev/zero > file", 153),
        ],
    );
}

#[test]
fn a_process_keeps_its_limit_on_processes() {
    let home = need!(sandbox());
    let tried = home.run(&["--limit", "procs=9"], "true");
    need!(need::that(tried.code == Some(0), "this host limits no processes"));
    let script = "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done; wait; exit 0";
    let gate = home.workspace().join("gate");
    let run = Running::start(
        &mut home.shell(&["--limit", "procs=6"], &format!("mkfifo gate; read go < gate; {script}")),
    );
    eventually(DEADLINE, "the run to wait", || gate.exists().then_some(()));
    Talk::with(&home).upgrade(&home);
    fs::write(gate, "go\n").unwrap();
    let finished = run.finish();
    assert!(finished.err().contains("ork"), "{finished:?}");
}

#[test]
fn what_belongs_to_a_connection_ends_with_it_also_afterwards() {
    let home = home();
    let (mut one, mut other) = (Talk::with(&home), Talk::with(&home));
    let marker = processes::unique_sleep();
    let mut spec = script(&home, &format!("exec sleep {marker}"));
    spec.lifetime = Lifetime::Connection;
    let id = RunId::generate();
    one.start(id, Watch::End, &spec);
    other.upgrade(&home);
    assert_eq!(one.live().len(), 1, "the other connection noticed nothing");
    drop(one);
    eventually(DEADLINE, "its end", || processes::with_argument(&marker).is_empty().then_some(()));
}

#[test]
fn a_tree_behind_its_leader_is_still_held() {
    let home = home();
    let mut talk = Talk::with(&home);
    let marker = processes::unique_sleep();
    let id = RunId::generate();
    let mut spec = script(&home, &format!("sleep {marker} & exit 3"));
    spec.after_leader = AfterLeader::Wait;
    talk.start(id, Watch::End, &spec);
    let before = talk.end_of(id);
    talk.upgrade(&home);
    assert_eq!(talk.state(id).end, Some(before));
    assert_eq!(talk.ask(Request::Terminate { id, signal: 15, grace_ms: 5000 }), Reply::Done);
    talk.wait_closed(id);
    assert!(processes::with_argument(&marker).is_empty());
}

/// Texts of all records.
fn rollouts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = entries.flat_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => rollouts(&entry.path()),
        Ok(_) | Err(_) => fs::read_to_string(entry.path()).into_iter().collect(),
    });
    texts.collect()
}

#[test]
fn sandboxed_runs_with_reserved_names_and_records_go_on() {
    let home = need!(sandbox());
    let script = "echo begun; until test -e go; do sleep 0.01; done; mkdir .claude; echo done; exit 5";
    let mut attached = Running::start(&mut home.shell(&[], script));
    assert_eq!(attached.line(), "begun");
    let detached = sandbar_testkit::finish(&mut home.shell(&["--detach"], script));
    let id = detached.ok().trim_end().to_owned();
    let keeper = home.keeper();
    let upgraded = home.finish(&["keeper", "upgrade"]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        upgraded,
        Finished::with(0, format!("keeper {}: sandbar {version} -> {version}\n", keeper.pid), "")
    );
    assert!(home.workspace().join(".claude").exists(), "the name is reserved still");
    home.write("go", "");
    let finished = attached.finish();
    assert_eq!((finished.code, finished.out().as_str()), (Some(5), "done\n"), "{finished:?}");
    eventually(DEADLINE, "the end of the detached run", || {
        (home.finish(&["ps", "--json"]).ok() == "[]\n").then_some(())
    });
    assert_eq!(home.finish(&["logs", &id]).ok(), "begun\ndone\n");
    eventually(DEADLINE, "the record of the detached run", || {
        let records = rollouts(&home.sandbar_home().join("state"));
        records
            .iter()
            .any(|text| text.contains("run_taken_over") && text.contains("task_complete"))
            .then_some(())
    });
    eventually(DEADLINE, "the names to be given back", || {
        (!home.workspace().join(".claude").exists()).then_some(())
    });
    assert_eq!(home.run(&[], "echo again").ok(), "again\n");
    assert_eq!(home.keeper(), keeper);
    assert_eq!(home.finish(&["keeper", "stop"]).code, Some(0));
    eventually(DEADLINE, "the end of the keeper", || (!keeper.is_alive()).then_some(()));
}

#[test]
fn starts_in_sandboxes_wait_for_the_next_program_and_lose_nothing() {
    const RUNS: usize = 25;
    let home = need!(sandbox());
    newer(&home);
    let mut talk = Talk::with(&home);
    let done = AtomicBool::new(false);
    let upgrades = thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|turn| {
                let home = &home;
                scope.spawn(move || {
                    for number in 0..RUNS {
                        let text = format!("echo {turn}.{number}; exit {number}");
                        let finished = home.run(&["--no-record"], &text);
                        let code = i32::try_from(number).unwrap();
                        assert_eq!(finished, Finished::with(code, format!("{turn}.{number}\n"), ""));
                    }
                })
            })
            .collect();
        let upgrading = scope.spawn(|| {
            let mut upgrades = 0;
            while !done.load(Ordering::Relaxed) {
                talk.upgrade(&home);
                upgrades += 1;
            }
            upgrades
        });
        let results: Vec<_> = runs.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
        upgrading.join().unwrap()
    });
    assert!(upgrades > 3, "{upgrades}");
    // What is left is the one spare at most, and that for a short while.
    let keeper = home.keeper();
    eventually(DEADLINE, "a keeper without children", || keeper.descendants().is_empty().then_some(()));
    assert_eq!(fs::read_dir(home.workspace()).unwrap().count(), 0, "reserved names are given back");
}

// --- what leaves everything as it was ---

#[test]
fn a_program_that_can_not_take_over_leaves_everything_as_it_was() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    talk.start(id, Watch::End, &script(&home, "until test -e go; do sleep 0.01; done; exit 6"));
    let keeper = home.keeper();
    let ready = |minor: u32, version: &str| {
        format!(r#"echo '{{"ready":{{"major":{},"minor":{minor},"version":"{version}"}}}}'"#, protocol::MAJOR)
    };
    let other =
        format!(r#"echo '{{"ready":{{"major":{},"minor":99,"version":"9.9.9"}}}}'"#, protocol::MAJOR + 1);
    let unready = fake(
        &home,
        "vanishing",
        &format!("chmod 644 '{}'; {}", home.outside().join("vanishing").display(), ready(99, "9.9.9")),
    );
    let older = |minor, version: &str| UpgradeRefusal::Older { minor, version: version.to_owned() };
    let failed = |message: &str| UpgradeRefusal::Failed { message: message.to_owned() };
    // This very program, with something else than the state.
    let deaf = format!("exec '{}' \"$1\" \"$2\" 9 9</dev/null", home.program().display());
    let writable = fake(&home, "writable", "exit 0");
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o757)).unwrap();
    let table = [
        (PathBuf::from("/"), UpgradeRefusal::NoProgram),
        (writable, UpgradeRefusal::Writable { mode: 0o757 }),
        (PathBuf::from("/bin/false"), UpgradeRefusal::NotAKeeper),
        (fake(&home, "mute", "exit 0"), UpgradeRefusal::NotAKeeper),
        (fake(&home, "talkative", "while :; do echo talk; done"), UpgradeRefusal::NotAKeeper),
        (fake(&home, "older-minor", &ready(MINOR - 1, "9.9.9")), older(MINOR - 1, "9.9.9")),
        (fake(&home, "older", &ready(MINOR, "0.0.1")), older(MINOR, "0.0.1")),
        (fake(&home, "other", &other), older(99, "9.9.9")),
        (fake(&home, "refusing", r#"echo '{"refused":{"message":"no room"}}'"#), failed("no room")),
        (fake(&home, "deaf", &deaf), failed("read the state: Invalid argument (os error 22)")),
        (fake(&home, "hanging", "exec sleep 86400"), UpgradeRefusal::Silent { seconds: 5 }),
    ];
    for (path, expected) in table {
        assert_eq!(refusal(talk.upgrade_to(&path)), expected, "{}", path.display());
    }
    // It rehearses, and can't be executed any more then.
    let vanished = refusal(talk.upgrade_to(&unready));
    let UpgradeRefusal::Failed { message } = &vanished else { panic!("{vanished:?}") };
    assert!(message.starts_with("execute the program: "), "{message}");
    assert_eq!(refusal(talk.ask(Request::Upgrade)), UpgradeRefusal::NoProgram);
    assert_eq!(home.keeper(), keeper);
    let left = || {
        keeper
            .descendants()
            .iter()
            .any(|process| process.command_line().windows(8).any(|part| part == b"rehearse"))
    };
    eventually(DEADLINE, "the end of all rehearsals", || (!left()).then_some(()));
    assert_eq!(talk.live().len(), 1);
    home.write("go", "");
    assert_eq!(talk.end_of(id).status, ExitStatus::Exited { code: 6 });
    // And it still can.
    talk.upgrade(&home);
}

#[test]
fn a_keeper_that_is_killed_in_the_middle_takes_everything_along() {
    let home = home();
    let mut talk = Talk::with(&home);
    let (marker, hanging) = (processes::unique_sleep(), processes::unique_sleep());
    let id = RunId::generate();
    talk.start(
        id,
        Watch::End,
        &script(&home, &format!("echo last; setsid sleep {marker} & exec sleep {marker}")),
    );
    eventually(DEADLINE, "its output", || (talk.live()[0].output.bytes == 5).then_some(()));
    let keeper = home.keeper();
    // The rehearsal holds everything that the keeper holds, and would for ever.
    let fake = fake(&home, "hanging", &format!("exec sleep {hanging}"));
    talk.client.request(Request::Upgrade, &[], vec![open(&fake)]).unwrap();
    talk.client.flush().unwrap();
    eventually(DEADLINE, "the rehearsal", || (!processes::with_argument(&hanging).is_empty()).then_some(()));
    keeper.signal(Signal::KILL);
    eventually(DEADLINE, "the end of everything", || {
        let gone = |text: &str| processes::with_argument(text).is_empty();
        (!keeper.is_alive() && gone(&marker) && gone(&hanging)).then_some(())
    });
    let mut next = Talk::with(&home);
    let end = next.state(id).end.unwrap();
    assert_eq!((end.status, end.output.bytes), (ExitStatus::Lost, 5));
    assert_ne!(home.keeper(), keeper);
}

#[test]
fn a_rehearsal_that_is_killed_leaves_everything_as_it_was() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let script = script(&home, "until test -e go; do sleep 0.01; done; echo last; exit 7");
    talk.start(id, Watch::End, &script);
    let keeper = home.keeper();
    let hanging = processes::unique_sleep();
    let fake = fake(&home, "hanging", &format!("exec sleep {hanging}"));
    talk.client.request(Request::Upgrade, &[], vec![open(&fake)]).unwrap();
    talk.client.flush().unwrap();
    let rehearsal = eventually(DEADLINE, "the rehearsal", || processes::with_argument(&hanging).pop());
    rehearsal.signal(Signal::KILL);
    let Incoming::Reply(_, reply) = talk.hear() else { panic!("news") };
    assert_eq!(refusal(reply), UpgradeRefusal::NotAKeeper);
    assert_eq!((home.keeper(), talk.live().len()), (keeper, 1));
    talk.upgrade(&home);
    home.write("go", "");
    assert_eq!(talk.end_of(id).status, ExitStatus::Exited { code: 7 });
    assert_eq!(talk.wait_closed(id).bytes, 5);
}

/// A state as an earlier keeper wrote it. Its descriptors are none of this test's.
const STATE: &str = include_str!("../../sandbar-keeper/fixtures/keeper-state-1.json");

#[test]
fn a_state_that_can_not_be_taken_over_is_refused_by_the_rehearsal_and_ends_a_successor() {
    const SEALS: SealFlags =
        SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);
    let home = home();
    let table = [
        (memfd(b"", SEALS), "read the state: EOF"),
        (memfd(b"\0\xff garbage", SEALS), "read the state: expected value"),
        (memfd(&STATE.as_bytes()[..STATE.len() / 2], SEALS), "read the state: EOF"),
        (memfd(STATE.as_bytes(), SealFlags::WRITE), "read the state: Operation not permitted"),
        (open(Path::new("/dev/null")), "read the state: Invalid argument"),
        (
            memfd(STATE.replace("\"minor\":3", "\"minor\":99").as_bytes(), SEALS),
            "the state is of protocol minor 99",
        ),
        (memfd(STATE.replace("\"format\":1", "\"format\":9").as_bytes(), SEALS), "the state has format 9"),
        (memfd(STATE.replace("\"lock\":4", "\"lock\":-4").as_bytes(), SEALS), "descriptor "),
        (memfd(STATE.as_bytes(), SEALS), "descriptor "),
    ];
    for (state, expected) in table {
        rustix::io::fcntl_setfd(&state, rustix::io::FdFlags::empty()).unwrap();
        let number = state.as_raw_fd().to_string();
        let run = |how| {
            let arguments = [sandbar_keeper::KEEPER_ARGUMENT, how, &number];
            sandbar_testkit::finish(home.command(home.program()).args(arguments))
        };
        let said = run("rehearse");
        let refused: serde_json::Value = serde_json::from_str(&said.ok()).unwrap();
        let message = refused["refused"]["message"].as_str().unwrap();
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(run("take-over"), Finished::with(1, "", ""), "{expected}");
    }
}
