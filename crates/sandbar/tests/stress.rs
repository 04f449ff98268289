//! The keeper under stress: many runs, many at once, floods, a full runtime directory, and deaths of everybody.
//!
//! Among the tests in small numbers, which find what breaks at once; `cargo xtask soak --only stress` takes the full
//! ones. What a limit holds back (a fork bomb under a limit of processes) has its place in the last section.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sandbar_keeper::{Record, RuntimeDir};
use sandbar_proto::ExitStatus;
use sandbar_testkit::need::Need;
use sandbar_testkit::processes::Process;
use sandbar_testkit::soak::{self, Random, number_of};
use sandbar_testkit::{Finished, Home, Running, eventually, finish, need, patience, processes};

/// How many clients run at the same time: enough that they meet at everything, few enough for a machine with two
/// processors to answer each in time.
const BATCH: usize = 20;

const ATTENDANT: &[u8] = b"--sandbar-run-as-attendant";

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

fn records(home: &Home) -> Vec<Record> {
    let runtime = RuntimeDir::open(&home.sandbar_home().join("run")).unwrap();
    let (keepers, _) = runtime.keepers().unwrap();
    keepers.iter().flat_map(|keeper| sandbar_keeper::read_all(keeper).unwrap()).collect()
}

/// How a run ended and how much it wrote, by records that have an end.
fn ends(home: &Home) -> Vec<(ExitStatus, u64)> {
    records(home)
        .iter()
        .filter_map(|record| record.end.as_ref())
        .map(|end| (end.status, end.output.bytes))
        .collect()
}

fn nothing_left_of(marker: &str) {
    eventually(patience(), "the end of the tree", || {
        processes::with_argument(marker).is_empty().then_some(())
    });
}

/// Waits until the keeper holds nothing any more: no holder, no zombie. For a while after a start it has a spare
/// holder for the next one, and after a client's death an attendant.
fn keeper_is_alone(keeper: &Process) {
    let is_attendant =
        |process: &Process| process.command_line().windows(ATTENDANT.len()).any(|part| part == ATTENDANT);
    eventually(patience(), "a keeper without children", || {
        let mut children = keeper.descendants();
        children.retain(|child| !is_attendant(child));
        (children.len() <= 1 && children.iter().all(Process::is_alive)).then_some(())
    });
}

/// How many descriptors the keeper has open; only root may look.
fn descriptors(keeper: &Process) -> Option<usize> {
    fs::read_dir(format!("/proc/{}/fd", keeper.pid)).map(Iterator::count).ok()
}

/// Anonymous memory of a process in KiB, which nobody shares with it (proc_pid_status(5)).
fn anonymous_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Ids of what `ps` lists.
fn listed(home: &Home) -> BTreeSet<String> {
    let listed: serde_json::Value = serde_json::from_str(&home.finish(&["ps", "--json"]).ok()).unwrap();
    listed.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

/// What a command with an own number writes to standard output, as cksum(1) sees it.
fn checksum(home: &Home, lines: &str) -> String {
    finish(home.command("sh").args(["-c", &format!("{lines} | cksum")])).ok()
}

// --- many runs ---

#[test]
fn short_runs_in_parallel_batches_each_have_their_own_exit_status_and_output() {
    let home = need!(sandbox());
    let runs = number_of(200, 1000);
    let options: [&[&str]; 4] = [&[], &["--no-record"], &["-p", "danger-full-access"], &["-p", "read-only"]];
    let all: Vec<usize> = (0..runs).collect();
    for batch in all.chunks(BATCH) {
        let started = batch.iter().map(|run| {
            let script = format!("echo out {run}; echo err {run} >&2; exit {}", run % 120);
            (run, Running::start(&mut home.shell(options[run % options.len()], &script)))
        });
        for (run, running) in started.collect::<Vec<_>>() {
            let expected = Finished::with(
                i32::try_from(run % 120).unwrap(),
                format!("out {run}\n"),
                format!("err {run}\n"),
            );
            assert_eq!(running.finish(), expected, "run {run}");
        }
    }
    let keeper = home.keeper();
    assert_eq!(ends(&home).len(), runs, "the newest thousand stay on record");
    assert_eq!(listed(&home), BTreeSet::new());
    keeper_is_alone(&keeper);
}

#[test]
fn runs_one_after_another_leave_no_zombie_and_no_descriptor_with_the_keeper() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "echo first").ok(), "first\n");
    let keeper = home.keeper();
    // Before and after it has the spare that the last start left behind.
    let has_a_spare =
        || eventually(patience(), "a spare", || (keeper.descendants().len() == 1).then_some(()));
    has_a_spare();
    let before = descriptors(&keeper);
    for turn in 0..number_of(16, 500) {
        let options = if turn % 2 == 0 { &[][..] } else { &["--no-record"] };
        assert_eq!(home.run(options, "true").code, Some(0));
    }
    assert_eq!(home.keeper(), keeper, "one keeper served all runs");
    has_a_spare();
    keeper_is_alone(&keeper);
    // The keeper is not dumpable: only root may count its descriptors.
    need!(need::that(before.is_some(), "the keeper's descriptors can be seen by root only"));
    eventually(patience(), "as many descriptors as before", || {
        (descriptors(&keeper) == before).then_some(())
    });
}

// --- many at once ---

#[test]
fn sleepers_are_all_listed_and_all_killed_and_take_little_memory_of_the_keeper() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let sleep = |home: &Home| {
        Running::start(&mut home.sandbar(&["run", "-q", "--detach", "--no-record", "--", "sleep", &marker]))
    };
    let first = sleep(&home).finish().ok();
    let keeper = home.keeper();
    let before = anonymous_kib(&keeper);
    let sleepers = number_of(100, 500);
    let mut ids = BTreeSet::from([first.trim().to_owned()]);
    while ids.len() < sleepers + 1 {
        let count = BATCH.min(sleepers + 1 - ids.len());
        let started: Vec<Running> = (0..count).map(|_| sleep(&home)).collect();
        ids.extend(started.into_iter().map(|running| running.finish().ok().trim().to_owned()));
    }
    let grown = anonymous_kib(&keeper).saturating_sub(before);
    let held = descriptors(&keeper);
    println!(
        "SOAK: {sleepers} sleepers: the keeper has grown by {grown} KiB and has {held:?} descriptors open"
    );
    assert!(grown <= 24 * sleepers as u64 + 256, "{grown} KiB for {sleepers} sleepers");
    assert_eq!(listed(&home), ids);
    assert_eq!(processes::with_argument(&marker).len(), ids.len());
    let mut kill = home.sandbar(&["kill"]);
    assert_eq!(finish(kill.args(&ids)).code, Some(0));
    nothing_left_of(&marker);
    assert_eq!(listed(&home), BTreeSet::new());
    assert_eq!(home.keeper(), keeper);
    keeper_is_alone(&keeper);
    if held.is_some() {
        let is_back = || descriptors(&keeper).filter(|now| now + sleepers < held.unwrap_or_default());
        eventually(patience(), "the end of the sleepers' descriptors", is_back);
    }
}

#[test]
fn writers_at_full_speed_lose_no_byte() {
    let home = need!(sandbox());
    let (writers, lines) = (number_of(8, 100), number_of(60_000, 1_000_000));
    // Everybody writes something else: what is mixed up would show.
    let output = |writer: usize| format!("seq {} {}", writer * lines, (writer + 1) * lines);
    let options = ["", "--no-record", "-p danger-full-access"];
    let running: Vec<Running> = (0..writers)
        .map(|writer| {
            let (options, code) = (options[writer % options.len()], writer % 100);
            let command = format!("\"$0\" run -q {options} -- sh -c '{}; exit {code}'", output(writer));
            Running::start(&mut home.host_shell(&format!("{{ {command}; echo $? >&2; }} | cksum")))
        })
        .collect();
    for (writer, running) in running.into_iter().enumerate() {
        let expected = Finished::with(0, checksum(&home, &output(writer)), format!("{}\n", writer % 100));
        assert_eq!(running.finish(), expected, "writer {writer}");
    }
    keeper_is_alone(&home.keeper());
}

// --- a full runtime directory ---

#[test]
fn a_runtime_directory_that_is_full_again_and_again_refuses_clearly_and_loses_nothing() {
    let home = need!(sandbox());
    let script = format!(
        r#"
        for round in $(seq {rounds}); do
            rm -f go ready.*
            for writer in 1 2 3 4; do
                "$0" run -- sh -c "touch ready.$writer; until test -e go; do sleep 0.01; done; seq ${{writer}}00000; exit $writer" \
                    >out.$writer 2>err.$writer &
                eval "pid$writer=$!"
            done
            for writer in 1 2 3 4; do until test -e ready.$writer; do sleep 0.01; done; done
            # A start makes room by dropping logs of ended runs, so it is full when that does not help any more.
            for attempt in 1 2 3 4 5; do
                head -c 9000000 /dev/zero 2>/dev/null >>$run/fill
                "$0" run -q -- true 2>refused
                code=$?
                test $code = 0 || break
            done
            test $code = 125 || exit 90
            grep -q 'the runtime directory is full' refused || {{ cat refused; exit 91; }}
            touch go
            until grep -q 'runtime directory is full' err.1 err.2 err.3 err.4; do sleep 0.01; done
            rm $run/fill
            for writer in 1 2 3 4; do
                eval "wait \$pid$writer"; test $? = $writer || {{ cat err.$writer; exit 92; }}
                seq ${{writer}}00000 | cmp - out.$writer || exit 93
            done
            "$0" run -q -- echo round $round
        done"#,
        rounds = number_of(1, 20)
    );
    let finished = need!(home.in_small_runtime("4m", &script));
    let rounds: String = (1..=number_of(1, 20)).map(|round| format!("round {round}\n")).collect();
    assert_eq!(finished, Finished::with(0, rounds, ""));
}

// --- deaths ---

#[test]
fn a_keeper_that_is_killed_under_load_leaves_no_orphan_and_every_lost_run_is_reported() {
    let home = need!(sandbox());
    let runs = number_of(12, 100);
    for round in 0..number_of(1, 10) {
        let marker = processes::unique_sleep();
        let before = records(&home).len();
        let mut running: Vec<Running> = (0..runs)
            .map(|run| {
                let options = if run % 2 == 0 { &[][..] } else { &["-p", "danger-full-access"] };
                // One in three floods, all have a daemon that left session, group and parent.
                let then = if run % 3 == 0 { "yes" } else { "exec sleep" };
                let script = format!(
                    "setsid sh -c 'echo up; exec sleep {marker} >/dev/null 2>&1'& \
                     {then} {marker}"
                );
                Running::start(&mut home.shell(options, &script))
            })
            .collect();
        for running in &mut running {
            while running.line() != "up" {}
        }
        home.keeper().signal(Signal::KILL);
        for running in running {
            let finished = running.finish();
            assert_eq!(finished.code, Some(125), "round {round}: {finished:?}");
            assert!(finished.err().contains("lost the run"), "round {round}: {finished:?}");
        }
        nothing_left_of(&marker);
        // The next keeper writes down what it finds, before it starts anything.
        assert_eq!(home.run(&["--no-record"], "echo next").ok(), "next\n");
        let lost = ends(&home).iter().filter(|(status, _)| *status == ExitStatus::Lost).count();
        assert_eq!(lost, (round + 1) * runs);
        assert_eq!(records(&home).len(), before + runs + 1);
        assert_eq!(listed(&home), BTreeSet::new());
    }
}

#[test]
fn a_keeper_that_is_killed_while_runs_start_and_end_leaves_nothing_behind() {
    let home = need!(sandbox());
    let mut random = Random::of(soak::seed(), "keeper killed at random", 0);
    for round in 0..number_of(8, 200) {
        let marker = processes::unique_sleep();
        let running: Vec<Running> = (0..6)
            .map(|run| {
                let script =
                    if run % 2 == 0 { format!("exec sleep {marker}") } else { "seq 20000".to_owned() };
                Running::start(&mut home.shell(&[], &script))
            })
            .collect();
        // Some of them have not been started when it dies, some are just being, some have ended.
        eventually(patience(), "a keeper", || home.keepers().pop());
        std::thread::sleep(Duration::from_millis(random.below(80)));
        let clients: Vec<_> = running.iter().map(Running::pid).collect();
        for keeper in home.keepers() {
            keeper.signal(Signal::KILL);
        }
        for (run, (running, client)) in running.into_iter().zip(clients).enumerate() {
            // Whoever came to the dead keeper is told; whoever came later found another one, which starts a sleep.
            if run % 2 == 0 {
                eventually(patience(), "the end of a client or its sleeper", || {
                    let has_ended = Process::find(client).is_none_or(|client| !client.is_alive());
                    (has_ended || !processes::with_argument(&marker).is_empty()).then_some(())
                });
                end_sleepers(&home, &running, &marker);
            }
            let finished = running.finish();
            assert!(is_told_well(run, &finished), "round {round}, run {run}: {finished:?}");
        }
        nothing_left_of(&marker);
        assert_eq!(home.run(&[], "echo next").ok(), "next\n");
        assert_eq!(listed(&home), BTreeSet::new());
        let left: Vec<_> =
            fs::read_dir(home.workspace()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "placeholders of lost runs: {left:?}");
    }
}

/// Ends what sleeps until a client that waits for it has ended.
fn end_sleepers(home: &Home, running: &Running, marker: &str) {
    eventually(patience(), "the end of a client", || {
        let is_alive = Process::find(running.pid()).is_some_and(|client| client.is_alive());
        for sleeper in processes::with_argument(marker) {
            if !sleeper.command_line().starts_with(home.program().as_os_str().as_encoded_bytes()) {
                sleeper.signal(Signal::TERM);
            }
        }
        (!is_alive).then_some(())
    });
}

/// Whether a client of a dead keeper said so, or its run ended as it should.
fn is_told_well(run: usize, finished: &Finished) -> bool {
    let was_told = finished.code == Some(125) && finished.err().starts_with("error: ");
    let lines: String = (1..=20_000).map(|line| format!("{line}\n")).collect();
    let went_well = match run % 2 {
        0 => finished.code == Some(143),
        _ => finished.code == Some(0) && finished.out() == lines,
    };
    was_told || went_well
}

#[test]
fn clients_that_are_killed_under_load_disturb_nobody_and_lose_nothing_of_their_runs() {
    let home = need!(sandbox());
    let mut random = Random::of(soak::seed(), "clients killed", 0);
    let (rounds, lines) = (number_of(4, 50), 40_000);
    let expected = checksum(&home, &format!("seq {lines}"));
    let bytes: u64 = expected.split(' ').nth(1).unwrap().trim().parse().unwrap();
    for round in 0..rounds {
        let start =
            |options: &[&str]| Running::start(&mut home.shell(options, &format!("seq {lines}; exit 7")));
        let doomed: Vec<Running> =
            (0..4).map(|run| start(if run % 2 == 0 { &[] } else { &["-p", "read-only"] })).collect();
        let spared: Vec<Running> = (0..4).map(|_| start(&[])).collect();
        for running in doomed {
            std::thread::sleep(Duration::from_millis(random.below(30)));
            running.signal(Signal::KILL);
            let finished = running.finish();
            assert!(finished.signal == Some(9) || finished.code == Some(7), "round {round}: {finished:?}");
        }
        for running in spared {
            let finished = running.finish();
            let mut sum = Command::new("cksum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut sum.stdin.take().unwrap(), &finished.stdout).unwrap();
            let sum = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
            assert_eq!(
                (finished.code, sum.as_str(), finished.err().as_str()),
                (Some(7), expected.as_str(), "")
            );
        }
    }
    // What had been started went on without its client, and the keeper has all of what it wrote.
    let keeper = home.keeper();
    eventually(patience(), "the end of every run", || listed(&home).is_empty().then_some(()));
    let ends = ends(&home);
    assert!(ends.iter().all(|end| *end == (ExitStatus::Exited { code: 7 }, bytes)), "{ends:?}");
    assert!(ends.len() >= 4 * rounds && ends.len() == records(&home).len(), "{}", ends.len());
    keeper_is_alone(&keeper);
}

// --- limits ---
//
// A fork bomb under a limit of processes belongs here: it is held back, the keeper and everybody else's runs are not
// disturbed, and nothing of it is left.
