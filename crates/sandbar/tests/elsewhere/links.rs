//! Links that break, servers and clients that are killed: nothing is lost, and nothing comes twice.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbar_testkit::{Running, eventually, need, patience};
use serde_json::Value;

use super::machines::{Machines, serve};

#[test]
fn a_link_that_breaks_costs_no_byte() {
    let (machines, link) = need!(Machines::linked());
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; echo e$i >&2; [ $i -eq 150 ] && read x; done; exit 3";
    let mut command = machines.command(&["run", "-q", "--", "sh", "-c", script]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut lines = vec![running.line()];
    for _ in 0..5 {
        eventually(patience(), "a connection to cut", || (link.cut() > 0).then_some(()));
        lines.push(running.line());
    }
    running.child().stdin.take();
    let finished = running.finish();
    let all = lines.join("\n") + "\n" + &finished.out();
    let expected: String = (1..=300).map(|number| format!("{number}\n")).collect();
    let differs = all.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(all == expected, "{differs:?}, {} of {} bytes: {}", all.len(), expected.len(), finished.err());
    assert_eq!(finished.code, Some(3));
}

#[test]
fn a_flood_over_a_link_that_breaks_is_whole() {
    let (machines, link) = need!(Machines::linked());
    let mut command = machines.command(&["run", "-q", "--no-record", "--", "seq", "2000000"]);
    let mut running = Running::start(&mut command);
    let first = running.line();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let cutter = std::thread::spawn(move || {
        let (mut cuts, mut next) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            // Somewhere in a frame, again and again.
            if link.passed_bytes() > next {
                cuts += link.cut().min(1);
                next = link.passed_bytes() + 700_001;
            }
            std::thread::yield_now();
        }
        cuts
    });
    let finished = running.finish();
    is_done.store(true, Ordering::Relaxed);
    let all = first + "\n" + &finished.out();
    let expected: String = (1..=2_000_000).map(|number| format!("{number}\n")).collect();
    assert!(all == expected, "{} of {} bytes; {}", all.len(), expected.len(), finished.err());
    assert!(cutter.join().unwrap() > 5, "it broke in the middle");
}

#[test]
fn a_server_that_was_killed_is_found_again_with_everything() {
    let mut machines = need!(Machines::new());
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; [ $i -eq 50 ] && read x; done; exit 4";
    let mut command = machines.command(&["run", "-q", "--", "sh", "-c", script]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let first = running.line();
    machines.server.kill().unwrap();
    let ended = machines.server.wait().unwrap();
    assert_eq!(ended.signal(), Some(9));
    (machines.server, _) = serve(&machines.there, &["serve"]);
    running.child().stdin.take();
    let finished = running.finish();
    let expected: String = (1..=100).map(|number| format!("{number}\n")).collect();
    assert_eq!((first + "\n" + &finished.out(), finished.code), (expected, Some(4)), "{}", finished.err());
}

#[test]
fn a_client_that_is_killed_leaves_its_run_alone() {
    let machines = need!(Machines::new());
    let mut command = machines.command(&["run", "-q", "--", "sh", "-c", "echo up; exec sleep 100"]);
    let mut running = Running::start(&mut command);
    running.line();
    running.child().kill().unwrap();
    let listed: Value = serde_json::from_str(&machines.sandbar(&["ps", "--json"]).ok()).unwrap();
    assert_eq!(listed[0]["status"]["how"], "running");
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(machines.sandbar(&["kill", "-s", "KILL", id]).code, Some(0));
}

#[test]
fn a_break_with_much_unread_costs_neither_bytes_nor_speed() {
    let (machines, link) = need!(Machines::linked());
    let mut command = machines.command(&["run", "-q", "--no-record", "--", "seq", "3000000"]);
    let mut running = Running::start(&mut command);
    let first = running.line();
    // The server's side fills up while nobody takes anything: the process waits with as much as it may be ahead, which is
    // a quarter of what it writes.
    running.signal(rustix::process::Signal::STOP);
    let listed = || -> Value { serde_json::from_str(&machines.sandbar(&["ps", "--json"]).ok()).unwrap() };
    assert_eq!(listed()[0]["status"]["how"], "running");
    assert!(link.cut() > 0);
    running.signal(rustix::process::Signal::CONT);
    let finished = running.finish();
    let expected: String = (1..=3_000_000).map(|number| format!("{number}\n")).collect();
    let all = first + "\n" + &finished.out();
    assert!(all == expected, "{} of {} bytes; {}", all.len(), expected.len(), finished.err());
}
