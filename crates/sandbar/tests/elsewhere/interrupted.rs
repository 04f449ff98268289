//! Who interrupts before anything has been answered.

use rustix::process::Signal;
use sandbar_testkit::{DEADLINE, Running, eventually, need, processes};
use serde_json::Value;

use super::machines::{Machines, files_below};

/// The signals that interrupt, and the status of whoever left because of them.
const INTERRUPTS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

#[test]
fn a_run_whose_start_is_not_answered_yet_is_not_left_behind() {
    let machines = need!(Machines::new());
    assert_eq!(machines.shell("true").code, Some(0));
    // From now on it starts nothing, and its server waits for it.
    let keeper = machines.there.keeper();
    keeper.signal(Signal::STOP);
    let records = machines.here.sandbar_home().join("state/sessions");
    let marker = processes::unique_sleep();
    let mut runs = Vec::new();
    for (signal, status) in INTERRUPTS {
        let known = files_below(&records).len();
        let run = Running::start(&mut machines.command(&["run", "-q", "--", "sleep", &marker]));
        // The last that it does before it asks.
        eventually(DEADLINE, "its record", || (files_below(&records).len() > known).then_some(()));
        run.signal(signal);
        runs.push((run, signal, status));
    }
    for (run, signal, status) in runs {
        let finished = run.finish();
        assert_eq!(finished.code, Some(status), "{finished:?}");
        let said = format!("interrupted by signal {} before the command was started", signal.as_raw());
        assert!(finished.err().contains(&said), "{finished:?}");
        // Nobody knows yet.
        assert!(finished.err().contains("may have been started there"), "{finished:?}");
    }
    keeper.signal(Signal::CONT);
    let ended = eventually(DEADLINE, "the end of both", || {
        let listed = machines.there.finish(&["ps", "-a", "--json"]).ok();
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
        let ours: Vec<Value> = listed.into_iter().filter(|run| run.to_string().contains(&marker)).collect();
        let is_over = ours.iter().all(|run| run["status"]["how"] != "running");
        (ours.len() == INTERRUPTS.len() && is_over).then_some(ours)
    });
    assert!(ended.iter().all(|run| run["status"]["how"] == "signaled"), "{ended:?}");
    assert_eq!(processes::with_argument(&marker), []);
}

#[test]
fn a_run_whose_server_does_not_greet_is_not_started_when_it_does() {
    let (machines, link) = need!(Machines::linked());
    let stopped = processes::Process::find(i32::try_from(machines.server.id()).unwrap()).unwrap();
    stopped.signal(Signal::STOP);
    for (signal, status) in INTERRUPTS {
        let known = link.connections();
        let run = Running::start(&mut machines.command(&["run", "-q", "--", "touch", "made"]));
        interrupt(&run, signal, || link.connections() > known);
        let finished = run.finish();
        assert_eq!(finished.code, Some(status), "{finished:?}");
    }
    stopped.signal(Signal::CONT);
    // It greets again, and has nothing to do but this.
    assert_eq!(machines.sandbar(&["run", "-q", "--", "ls"]).ok(), "");
}

#[test]
fn who_leaves_before_a_run_is_followed_leaves_it_alone() {
    let (machines, link) = need!(Machines::linked());
    let marker = processes::unique_sleep();
    let id = machines.sandbar(&["run", "-q", "-d", "--", "sleep", &marker]).ok();
    let stopped = processes::Process::find(i32::try_from(machines.server.id()).unwrap()).unwrap();
    stopped.signal(Signal::STOP);
    for (signal, status) in INTERRUPTS {
        let known = link.connections();
        let attached = Running::start(&mut machines.command(&["attach", "-q", id.trim()]));
        interrupt(&attached, signal, || link.connections() > known);
        let finished = attached.finish();
        assert_eq!(finished.code, Some(status), "{finished:?}");
        let said = format!("interrupted by signal {} before it was attached to", signal.as_raw());
        assert!(finished.err().contains(&said), "{finished:?}");
    }
    stopped.signal(Signal::CONT);
    assert_eq!(processes::with_argument(&marker).len(), 1);
    assert_eq!(machines.sandbar(&["kill", id.trim()]).ok(), id);
}

/// Sends a signal once `is_under_way`: from then on the program listens to signals.
fn interrupt(running: &Running, signal: Signal, is_under_way: impl Fn() -> bool) {
    eventually(DEADLINE, "a connection", || is_under_way().then_some(()));
    running.signal(signal);
}
