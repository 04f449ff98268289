//! What a run on another machine is for the person who started it, and for those who look at it.

use std::fs;

use sandbar_testkit::{Finished, Running, Tmux, eventually, finish, need, patience};
use serde_json::{Value, json};

use super::machines::Machines;

#[test]
fn a_command_elsewhere_is_like_one_here() {
    let machines = need!(Machines::new());
    let finished = machines.shell("echo out; echo err >&2; pwd; exit 7");
    let expected = format!("out\n{}\n", machines.there.workspace().display());
    assert_eq!(finished, Finished::with(7, expected, "err\n"));
    let record = machines.record();
    assert!(record.contains("ran on unix:") && record.contains("out\\n"), "{record}");
    assert_eq!(machines.shell("kill -TERM $$").code, Some(128 + 15));
    assert_eq!(machines.sandbar(&["run", "-q", "--", "/no/such/program"]).code, Some(127));
    assert_eq!(machines.sandbar(&["run", "-q", "--", "/etc/passwd"]).code, Some(126));
    assert_eq!(machines.sandbar(&["run", "-q", "-C", "/no/such", "--", "true"]).code, Some(125));
    assert_eq!(machines.sandbar(&["run", "-q", "-p", "nope", "--", "true"]).code, Some(125));
    let timed_out = machines.sandbar(&["run", "-q", "--timeout", "0.2", "--", "sleep", "100"]);
    assert_eq!(timed_out.code, Some(124), "{timed_out:?}");
}

#[test]
fn input_goes_over_and_ends() {
    let machines = need!(Machines::new());
    let folder = tempfile::tempdir().unwrap();
    let input: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    fs::write(folder.path().join("in"), &input).unwrap();
    let mut command = machines.command(&["run", "-q", "--", "sh", "-c", "cat; echo end"]);
    let finished = finish(command.stdin(fs::File::open(folder.path().join("in")).unwrap()));
    assert!(finished.ok() == input + "end\n", "every byte, and the end");
}

#[test]
fn the_other_machines_environment_and_rules_count() {
    let machines = need!(Machines::new());
    let mut command = machines.command(&["run", "--env", "GIVEN=1", "--", "env"]);
    let finished = finish(command.env("MINE", "no").env("SECRET_OF_MINE", "no"));
    let lines: Vec<&str> = std::str::from_utf8(&finished.stdout).unwrap().lines().collect();
    assert!(lines.contains(&"THEIRS=yes") && lines.contains(&"GIVEN=1"), "{lines:?}");
    assert!(lines.iter().all(|line| !line.starts_with("MINE") && !line.contains("MY_TOKEN")), "{lines:?}");
    assert!(finished.err().contains("withheld 1 environment variable"), "{}", finished.err());
    // Their workspace is writable, what lies beside it is not.
    let beside = machines.there.outside().join("beside");
    let script = format!("echo in > made; echo out > {}", beside.display());
    assert_ne!(machines.shell(&script).code, Some(0));
    assert!(machines.there.workspace().join("made").exists() && !beside.exists());
    assert!(!machines.here.workspace().join("made").exists());
    let opened = format!("echo out > {}/x", beside.display());
    let outside = beside.display().to_string();
    fs::create_dir(&beside).unwrap();
    let allowed = machines.sandbar(&["run", "-q", "--allow-write", &outside, "--", "sh", "-c", &opened]);
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
}

#[test]
fn a_run_that_is_left_is_listed_shown_joined_and_ended_from_here() {
    let machines = need!(Machines::new());
    let script = "echo first; read line; echo got $line; exec sleep 100";
    let id = machines.sandbar(&["run", "-q", "-d", "--", "sh", "-c", script]).ok();
    let id = id.trim();
    let listed: Value = serde_json::from_str(&machines.sandbar(&["ps", "--json"]).ok()).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!(id), &json!({"how": "running"})));
    let mine: Value = serde_json::from_str(&machines.here.finish(&["ps", "--json"]).ok()).unwrap();
    assert_eq!(mine, json!([]), "nothing runs here");
    eventually(patience(), "the first line", || {
        (machines.sandbar(&["logs", &id[..13]]).ok() == "first\n").then_some(())
    });
    assert_eq!(machines.sandbar(&["kill", id]).ok(), format!("{id}\n"));
    let all: Value = serde_json::from_str(&machines.sandbar(&["ps", "-a", "--json"]).ok()).unwrap();
    assert_eq!(all[0]["status"]["how"], "signaled");
    assert_eq!(machines.sandbar(&["logs", "-f", id]).ok(), "first\n");
    let again = machines.sandbar(&["kill", id]);
    assert!(again.code == Some(0) && again.err().contains("already ended"), "{again:?}");
    let gone = machines.sandbar(&["attach", id]);
    assert!(gone.code == Some(1) && gone.err().contains("has ended"), "{gone:?}");
    assert!(machines.sandbar(&["logs", "ffff"]).err().contains("no run has an id"));
}

#[test]
fn a_run_whose_keeper_was_killed_is_lost_and_has_no_exit_code() {
    let machines = need!(Machines::new());
    let script = "echo up; exec sleep 86400";
    let start = |options: &[&str]| {
        let words = [&["run"], options, &["--", "sh", "-c", script]].concat();
        let mut running = Running::start(&mut machines.command(&words));
        let first = running.line();
        (running, first)
    };
    let (plain, first) = start(&["-q"]);
    assert_eq!(first, "up");
    let (mut lines, _) = start(&["-q", "--json"]);
    while !lines.line().contains("up") {}
    machines.there.end_keepers();
    let finished = plain.finish();
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("lost the run: nobody saw how the command ended"), "{finished:?}");
    let finished = lines.finish();
    assert_eq!(finished.code, Some(125), "{finished:?}");
    let told = finished.out();
    let mut told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let exited = told.find(|line| line["type"] == "exited").unwrap();
    assert_eq!((&exited["how"], &exited["exit_code"]), (&json!("lost"), &Value::Null), "{exited}");
    let listed: Value = serde_json::from_str(&machines.sandbar(&["ps", "-a", "--json"]).ok()).unwrap();
    let statuses: Vec<&Value> = listed.as_array().unwrap().iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, [&json!({"how": "lost"}), &json!({"how": "lost"})]);
}

#[test]
fn who_joins_a_run_late_gets_its_tail_and_not_its_whole_log() {
    let (machines, link) = need!(Machines::linked());
    let script = "seq 1 1500000; echo written; until test -e go; do sleep 0.01; done; echo end; exit 3";
    let id = machines.sandbar(&["run", "-q", "-d", "--", "sh", "-c", script]).ok();
    let there = |words: &[&str]| machines.there.finish(words);
    eventually(patience(), "its output", || {
        there(&["logs", id.trim()]).out().ends_with("written\n").then_some(())
    });
    let before = link.passed_bytes();
    let mut running = Running::start(&mut machines.command(&["attach", "-q", id.trim()]));
    let mut seen = vec![running.line()];
    while seen.last().is_none_or(|line| line != "written") {
        seen.push(running.line());
    }
    let expected: Vec<String> =
        (1_500_000 - 22..=1_500_000).map(|number| number.to_string()).chain(["written".to_owned()]).collect();
    assert_eq!(seen, expected, "the last lines, as many as a screen has");
    let passed = link.passed_bytes() - before;
    assert!(passed < 3_000_000, "{passed} bytes of 11 million came over");
    machines.there.write("go", "");
    let finished = running.finish();
    assert_eq!((finished.code, finished.out().as_str()), (Some(3), "end\n"), "{finished:?}");
}

#[test]
fn a_terminal_elsewhere_has_our_size_and_our_keys() {
    let machines = need!(Machines::new());
    let tmux = need!(Tmux::start(&machines.here));
    tmux.line(&format!(
        "sandbar run --on {} --detach-keys ctrl-p,ctrl-q -- env PS1='there$ ' bash --norc --noprofile",
        machines.url
    ));
    tmux.expect("there$");
    tmux.line("stty size; pwd");
    tmux.wait_for("the size", |screen| screen.lines().any(|line| line == "24 80"));
    tmux.line("sleep 100");
    tmux.keys(&["C-c"]);
    tmux.line("echo alive");
    tmux.wait_for("the answer", |screen| screen.lines().any(|line| line == "alive"));
    tmux.keys(&["C-p", "C-q"]);
    tmux.expect("detached");
    tmux.expect_prompt();
    let listed: Value = serde_json::from_str(&machines.sandbar(&["ps", "--json"]).ok()).unwrap();
    tmux.line(&format!(
        "clear; sandbar attach -q --on {} {}",
        machines.url,
        listed[0]["id"].as_str().unwrap()
    ));
    tmux.expect("there$");
    tmux.line("echo again; exit 5");
    tmux.expect_prompt();
    tmux.line("echo status $?");
    tmux.expect("status 5");
}
