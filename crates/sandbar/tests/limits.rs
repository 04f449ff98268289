//! `sandbar run --limit`: what is bounded, what happens at the bound, and who hears of it.
//!
//! Which mechanism enforces a limit depends on the host, and what a person sees does not: most tests hold for all of
//! them. Those that are about one say so in their need.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Running, Terminal, eventually, finish, need, processes};
use serde_json::{Value, json};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A sandbox on a host that limits processes: root needs a delegated cgroup for that.
fn counting_sandbox() -> Need<Home> {
    let home = sandbox()?;
    let tried = home.run(&["--limit", "procs=9"], "true");
    if tried.code == Some(0) {
        Ok(home)
    } else {
        Err(format!("this host limits no processes: {}", tried.err()))
    }
}

/// A sandbox on a host where `limit` is enforced by a cgroup.
fn cgroup_sandbox(limit: &str) -> Need<Home> {
    let home = sandbox()?;
    let started = events(&home.finish(&["run", "--json", "--limit", limit, "--", "true"]));
    let by = started.first().map(|started| started["limits"][0]["by"].clone());
    need::that(by == Some(json!("cgroup")), "the keeper has no cgroup for that here")?;
    Ok(home)
}

fn events(finished: &Finished) -> Vec<Value> {
    finished.out().lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
}

/// The `exited` event of `sandbar run --json OPTIONS -- sh -c SCRIPT`.
fn end(home: &Home, options: &[&str], script: &str) -> Value {
    let finished = home.run(&[&["--json"], options].concat(), script);
    let end = events(&finished).into_iter().find(|event| event["type"] == "exited");
    end.unwrap_or_else(|| panic!("no end: {finished:?}"))
}

/// Whether a limit held, by any of its mechanisms.
fn held(end: &Value, limit: &str) -> bool {
    let reports = end["limits"].as_array().cloned().unwrap_or_default();
    reports.iter().any(|report| report["limit"] == limit && report["held"] == json!(true))
}

/// `sandbar run OPTIONS -- sh -c SCRIPT`, which is not quiet.
fn run(home: &Home, options: &[&str], script: &str) -> Finished {
    home.finish(&[&["run"], options, &["--", "sh", "-c", script]].concat())
}

// --- memory ---

/// Remembers all of a line that never ends.
const HOG: &str = "exec tail /dev/zero";

#[test]
fn a_command_that_eats_memory_is_ended_and_told_why() {
    let home = need!(sandbox());
    let said = "sandbar: the command was ended because it reached its memory limit of 64 MiB.\n";
    assert_eq!(run(&home, &["--limit", "memory=64M"], HOG), Finished::with(137, "", said));
    let listed = home.finish(&["ps", "--all"]).ok();
    assert!(listed.contains("memory limit"), "{listed}");
}

#[test]
fn what_ran_out_of_memory_is_in_the_events_and_the_rollout() {
    let home = need!(sandbox());
    let end = end(&home, &["--limit", "memory=64M"], HOG);
    assert!(held(&end, "memory"), "{end}");
    assert_eq!((&end["signal"], &end["out_of_memory"]), (&json!(9), &json!("run")));
    let rollout = rollouts(&home).remove(0);
    let recorded = rollout.lines().find(|line| line.contains("run_ended")).expect("an end on record");
    let recorded: Value = serde_json::from_str(recorded).expect("a line");
    assert_eq!(recorded["payload"]["limits"], end["limits"]);
    assert_eq!(recorded["payload"]["out_of_memory"], end["out_of_memory"]);
}

fn rollouts(home: &Home) -> Vec<String> {
    let mut folders = vec![home.sandbar_home().join("state/sessions")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.extension() {
                Some(extension) if extension == "jsonl" => {
                    found.push(fs::read_to_string(path).unwrap_or_default())
                }
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_memory_of_a_whole_tree_counts_together() {
    let home = need!(sandbox());
    // Each holds 40 MiB, in sessions of their own, and none ends by itself.
    let one = "(head -c 40M /dev/zero; sleep 86400) | tail -c 40M";
    let script = format!("for i in 1 2 3; do setsid sh -c '{one}' & done; wait");
    assert!(held(&end(&home, &["--limit", "memory=90M"], &script), "memory"));
}

#[test]
fn files_in_memory_count_as_memory() {
    let home = need!(sandbox());
    for file in ["/tmp/big", "/dev/shm/big"] {
        let script = format!("head -c 200M /dev/zero > {file}; sleep 86400");
        let end = end(&home, &["--limit", "memory=64M"], &script);
        assert!(held(&end, "memory"), "{file}: {end}");
    }
}

#[test]
fn a_command_below_its_memory_limit_is_left_alone() {
    let home = need!(sandbox());
    let end = end(&home, &["--limit", "memory=256M"], "head -c 50M /dev/zero | tail -c 50M > /dev/null");
    assert_eq!((&end["code"], held(&end, "memory"), end.get("out_of_memory")), (&json!(0), false, None));
}

#[test]
fn memory_is_limited_without_a_sandbox_too() {
    let home = need!(sandbox());
    let end = end(&home, &["-p", "danger-full-access", "--limit", "memory=64M"], &format!("({HOG})"));
    assert!(held(&end, "memory"), "{end}");
}

// --- CPU time ---

const SPIN: &str = "while :; do :; done";

#[test]
fn a_command_that_spins_is_ended_by_sigxcpu_and_told_why() {
    let home = need!(sandbox());
    let said = "sandbar: the command was ended because it reached its limit of 1s of CPU time.\n";
    for profile in ["workspace", "danger-full-access"] {
        let finished = run(&home, &["-p", profile, "--limit", "cpu=1"], &format!("exec sh -c '{SPIN}'"));
        assert_eq!(finished, Finished::with(152, "", said), "{profile}");
    }
    assert!(home.finish(&["ps", "-a"]).ok().contains("CPU limit"));
}

#[test]
fn the_cpu_time_of_a_whole_tree_counts_together() {
    let home = need!(sandbox());
    // Four in sessions of their own: none of them uses a second.
    let script = format!("for i in 1 2 3 4; do setsid sh -c '{SPIN}' & done; wait");
    let end = end(&home, &["--limit", "cpu=1"], &script);
    assert!(held(&end, "cpu"), "{end}");
    assert_eq!(end["exit_code"], json!(152));
}

#[test]
fn the_cpu_time_of_short_processes_counts() {
    let home = need!(sandbox());
    let short = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    let end = end(&home, &["--limit", "cpu=1"], &format!("while :; do sh -c '{short}'; done"));
    assert!(held(&end, "cpu"), "{end}");
}

#[test]
fn a_command_that_does_not_heed_the_end_of_its_cpu_time_is_killed() {
    let home = need!(sandbox());
    let end = end(&home, &["--limit", "cpu=1"], &format!("trap '' XCPU; {SPIN}"));
    assert_eq!((&end["signal"], held(&end, "cpu")), (&json!(9), true));
}

#[test]
fn a_command_that_sleeps_uses_no_cpu_time() {
    let home = need!(sandbox());
    let end = end(&home, &["--limit", "cpu=1"], "sleep 1.5");
    assert_eq!((&end["code"], held(&end, "cpu")), (&json!(0), false));
}

// --- processes ---

#[test]
fn a_fork_bomb_is_held_and_reported_and_nothing_is_left_of_it() {
    need!(need::program("python3"));
    let home = need!(counting_sandbox());
    let marker = processes::unique_sleep();
    // Every process makes more, whatever happens to it, and says so when one is refused.
    let code = format!(
        "\
import os, time
end = time.monotonic() + 9
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        os.write(1, b\"refused\\n\")
        time.sleep(0.01)
os.execlp(\"sleep\", \"sleep\", \"{marker}\")
"
    );
    // A fork is refused as well while another one is tried, so it takes some until there are as many as there may be.
    let listen = "i=0; while [ $i -lt 300 ]; do read word; i=$((i+1)); done < said; echo $word";
    let bomb = format!("mkfifo said; setsid python3 -I -S -c '{code}' > said & {listen}");
    let finished = run(&home, &["--limit", "procs=24", "--timeout", "60s"], &bomb);
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "refused\n"), "{finished:?}");
    assert!(finished.err().contains("limit of 24 processes"), "{finished:?}");
    let left = || processes::with_argument(&marker).is_empty().then_some(());
    eventually(DEADLINE, "the end of the bomb", left);
}

#[test]
fn as_many_processes_as_the_limit_says_can_run_and_no_more() {
    let home = need!(counting_sandbox());
    // The shell is one of them.
    let script =
        |sleepers: usize| format!("for i in $(seq {sleepers}); do sleep 86400 & done; echo started; kill 0");
    let fits = run(&home, &["--limit", "procs=6"], &format!("trap '' TERM; {}", script(4)));
    assert!(fits.out().contains("started") && !fits.err().contains("ork"), "{fits:?}");
    let refused = run(&home, &["--limit", "procs=6"], &script(6));
    assert!(!refused.out().contains("started"), "{refused:?}");
    assert!(refused.err().contains("limit of 6 processes"), "{refused:?}");
}

#[test]
fn threads_and_processes_in_other_sessions_count_as_processes() {
    need!(need::program("python3"));
    let home = need!(counting_sandbox());
    let code = "\
import os, threading
event = threading.Event()
started = 0
try:
    for _ in range(50):
        threading.Thread(target=event.wait, daemon=True).start()
        started += 1
except RuntimeError:
    pass
print(started, flush=True)
os._exit(0)
";
    let script = format!("setsid sleep 86400 & setsid sleep 86400 & python3 -I -S -c '{code}'");
    let finished = run(&home, &["--limit", "procs=10"], &script);
    // The shell, two sleepers and the main thread leave six.
    assert_eq!(finished.out(), "6\n", "{finished:?}");
}

#[test]
fn runs_are_counted_apart() {
    let home = need!(counting_sandbox());
    let script = "sleep 86400 & sleep 86400 & echo ready; wait";
    let mut first = Running::start(&mut home.shell(&["--limit", "procs=3"], script));
    assert_eq!(first.line(), "ready");
    let beside = home.run(&["--limit", "procs=3"], "sleep 0 & sleep 0 & wait; echo fine");
    assert_eq!(beside.ok(), "fine\n");
    first.signal(Signal::TERM);
    assert_eq!(first.finish().code, Some(143));
}

#[test]
fn a_limit_that_nothing_enforces_is_refused_with_the_reason() {
    let home = need!(sandbox());
    let finished = run(&home, &["-p", "danger-full-access", "--limit", "procs=9"], "echo ran");
    need!(need::that(finished.code != Some(0), "a cgroup enforces it here"));
    assert_eq!((finished.code, finished.out().as_str()), (Some(125), ""), "{finished:?}");
    let said = finished.err();
    assert!(said.contains("the limit on processes cannot be enforced here: without a sandbox"), "{said}");
    assert!(said.contains("cgroup") && said.contains("\n  do:    "), "{said}");
}

// --- files ---

#[test]
fn a_file_that_grows_beyond_its_limit_ends_who_writes_it() {
    let home = need!(sandbox());
    let finished = run(&home, &["--limit", "file-size=1M"], "exec head -c 2M /dev/zero > file");
    let said = "sandbar: a file of the command reached the limit of 1 MiB; who wrote it was ended.\n";
    assert_eq!(finished, Finished::with(153, "", said));
    assert_eq!(fs::metadata(home.workspace().join("file")).map(|file| file.len()).ok(), Some(1 << 20));
}

#[test]
fn a_process_opens_as_many_files_as_the_limit_says() {
    let home = need!(sandbox());
    let open = "ulimit -n; for fd in 3 4 5 6 7 8 9; do eval \"exec $fd</dev/null\" || exit; echo $fd; done";
    let finished = home.run(&["--limit", "files=6"], open);
    assert_eq!(finished.out(), "6\n3\n4\n5\n", "{finished:?}");
    let end = end(&home, &["--limit", "files=6"], "true");
    let report = json!({"limit": "files", "value": 6, "by": "rlimit", "per": "process", "held": null});
    assert_eq!(end["limits"], json!([report]));
}

#[test]
fn a_lower_limit_of_the_caller_stays() {
    let home = need!(sandbox());
    let script = r#"ulimit -n 80; exec "$0" run -q --limit files=100,file-size=1G -- sh -c 'ulimit -n'"#;
    assert_eq!(finish(&mut home.host_shell(script)).ok(), "80\n");
}

// --- everywhere ---

#[test]
fn a_limit_holds_on_a_terminal() {
    let home = need!(sandbox());
    let script = format!(r#"exec "$0" run --limit cpu=1,memory=64M -- sh -c '{SPIN}'"#);
    let mut terminal = Terminal::start(&home.host_shell(&script));
    terminal.expect("reached its limit of 1s of CPU time.");
    assert_eq!(terminal.finish(), Some(152));
}

#[test]
fn a_limit_holds_when_nobody_looks() {
    let home = need!(sandbox());
    let id = home.finish(&["run", "--detach", "--limit", "memory=64M", "--", "sh", "-c", HOG]).ok();
    eventually(DEADLINE, "the end of the run", || {
        let listed = home.finish(&["ps", "--all", "--json"]).ok();
        let listed: Value = serde_json::from_str(&listed).ok()?;
        let run = listed.as_array()?.iter().find(|run| run["id"] == json!(id.trim()))?.clone();
        (run["out_of_memory"] == json!("run")).then_some(())
    });
    let logged = events(&home.finish(&["logs", "--json", id.trim()]));
    assert!(logged.iter().any(|event| event["out_of_memory"] == "run"), "{logged:?}");
}

#[test]
fn a_run_that_was_prepared_ahead_is_limited_as_well() {
    let home = need!(sandbox());
    // The keeper has a spare holder behind these.
    for _ in 0..3 {
        assert_eq!(home.run(&[], "echo fine").ok(), "fine\n");
        assert!(held(&end(&home, &["--limit", "memory=64M"], HOG), "memory"));
    }
}

#[test]
fn what_enforces_each_limit_is_told_before_anything_runs() {
    let home = need!(sandbox());
    let limits = "memory=1G,cpu=60,files=64,file-size=1G";
    let events = events(&home.finish(&["run", "--json", "--limit", limits, "--timeout", "60", "--", "true"]));
    let started = &events[0]["limits"];
    let named = |limit: &str, value: u64| {
        let found = started.as_array().into_iter().flatten();
        let mut found = found.filter(|found| found["limit"] == limit && found["value"] == json!(value));
        found.any(|found| found["by"].is_string() && found["per"].is_string())
    };
    assert!(named("memory", 1 << 30) && named("cpu", 60_000_000) && named("files", 64), "{started}");
    assert!(named("file_size", 1 << 30) && named("wall", 60_000_000), "{started}");
}

#[test]
fn a_run_without_limits_has_none() {
    let home = need!(sandbox());
    let events = events(&home.finish(&["run", "--json", "--", "true"]));
    assert!(events.iter().all(|event| event.get("limits").is_none()), "{events:?}");
}

#[test]
fn a_limit_that_is_none_is_a_mistake_on_the_command_line() {
    let home = need!(sandbox());
    for (limit, said) in [("memory=5", "from 4M"), ("disk=5G", "is no limit"), ("procs=1,procs=2", "twice")] {
        let finished = run(&home, &["--limit", limit], "touch ran");
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.err().contains(said), "{finished:?}");
    }
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn doctor_says_what_enforces_limits() {
    let home = need!(sandbox());
    let checks = home.finish(&["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_slice(&checks.stdout).unwrap_or_default();
    let check = checks.iter().find(|check| check["name"] == "limits").expect("a row about limits");
    let detail = check["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("memory by ") && detail.contains("open files by rlimit"), "{check}");
    assert!(check["status"] == "ok" || check["advice"].is_string(), "{check}");
}

// --- the keeper's own limits ---

#[test]
fn hard_limits_that_would_harm_the_keeper_are_their_callers_alone() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "true").ok(), "");
    let usual = home.keeper();
    let script = r#"ulimit -t 600; exec "$0" run -q -- sh -c 'ulimit -t'"#;
    assert_eq!(finish(&mut home.host_shell(script)).ok(), "600\n");
    let keepers = home.keepers();
    assert_eq!((keepers.len(), keepers.contains(&usual)), (2, true));
    assert_eq!(home.run(&[], "ulimit -t").ok(), "unlimited\n");
}

#[test]
fn a_limit_that_the_keeper_cannot_give_is_said() {
    let home = need!(sandbox());
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    need!(need::that(hard.is_none_or(|most| most >= 6000), "no 6000 files may be opened here"));
    let low = r#"ulimit -n 5000; exec "$0" run -q -- sh -c 'ulimit -n'"#;
    assert_eq!(finish(&mut home.host_shell(low)).ok(), "5000\n");
    let finished = finish(&mut home.host_shell(r#"ulimit -S -n 6000; exec "$0" run -- sh -c 'ulimit -n'"#));
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "5000\n"), "{finished:?}");
    let said = finished.err();
    assert!(said.starts_with("sandbar: the limit on open files is 5000 in this run"), "{said}");
    assert_eq!(home.keepers().len(), 1);
}

// --- cgroups ---

/// Where cgroups of version 2 are mounted.
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = mounts.lines().rev().find(|line| line.contains(" - cgroup2 "));
    point.and_then(|line| line.split(' ').nth(4)).map(PathBuf::from).expect("cgroup2 is mounted")
}

/// The directory of the cgroup that a line of /proc/PID/cgroup names.
fn directory(line: &str) -> PathBuf {
    cgroups().join(line.trim().strip_prefix("0::/").expect("a line of version 2"))
}

const OWN: &str = "grep ^0:: /proc/self/cgroup";

#[test]
fn the_cgroup_of_a_run_is_its_own_and_goes_with_it() {
    let home = need!(cgroup_sandbox("cpu=60"));
    let line = home.run(&["--limit", "cpu=60"], OWN).ok();
    assert!(line.contains("/sandbar-run-"), "{line}");
    eventually(DEADLINE, "the removal of the cgroup", || (!directory(&line).exists()).then_some(()));
    let other = home.run(&[], OWN).ok();
    assert!(!other.contains("sandbar-run-"), "a run without limits has none: {other}");
}

#[test]
fn a_command_cannot_write_to_its_cgroup() {
    let home = need!(cgroup_sandbox("cpu=60"));
    let script = format!(
        "own={}$({OWN} | cut -c4-)\n\
         for file in $own/cgroup.procs $own/../cgroup.procs $own/cgroup.kill $own/cgroup.max.depth; do\n\
         (echo 0 > $file) 2>/dev/null && echo wrote $file; done\n\
         mkdir $own/mine 2>/dev/null && echo made; rmdir $own 2>/dev/null; test -d $own && echo there",
        cgroups().display()
    );
    assert_eq!(home.run(&["--limit", "cpu=60"], &script).out(), "there\n");
}

#[test]
fn no_run_can_be_given_the_kernels_own_files_to_write() {
    let home = need!(sandbox());
    for path in ["/sys/fs/cgroup", "/sys"] {
        let finished = home.run(&["--allow-write", path], "echo ran");
        assert_eq!((finished.code, finished.out().as_str()), (Some(125), ""), "{finished:?}");
        assert!(finished.err().contains("kernel's own files"), "{finished:?}");
    }
}

#[test]
fn what_a_killed_keeper_left_of_cgroups_is_removed_by_the_next() {
    let home = need!(cgroup_sandbox("cpu=60"));
    let script = format!("{OWN}; exec sleep 86400");
    let mut running = Running::start(&mut home.shell(&["--limit", "cpu=60"], &script));
    let left = directory(&running.line());
    assert!(left.exists());
    home.end_keepers();
    assert_eq!(running.finish().code, Some(125));
    assert_eq!(home.run(&[], "true").ok(), "");
    assert!(!left.exists(), "{}", left.display());
}

#[test]
fn everything_in_a_cgroup_is_killed_with_its_run() {
    let home = need!(cgroup_sandbox("cpu=60"));
    let marker = processes::unique_sleep();
    for profile in ["workspace", "danger-full-access"] {
        let script = format!("setsid sleep {marker} & echo ready; exec sleep {marker}");
        let options = ["-p", profile, "--limit", "cpu=60"];
        let mut running = Running::start(&mut home.shell(&options, &script));
        assert_eq!(running.line(), "ready");
        let ids = home.finish(&["ps", "--json"]).ok();
        let ids: Value = serde_json::from_str(&ids).unwrap_or_default();
        let id = ids[0]["id"].as_str().unwrap_or_default();
        assert_eq!(home.finish(&["kill", "--grace", "10ms", id]).code, Some(0));
        assert!(running.finish().code.is_some());
        eventually(DEADLINE, "the end of the tree", || {
            processes::with_argument(&marker).is_empty().then_some(())
        });
    }
}

#[test]
fn a_cgroup_with_controllers_enforces_processes_and_memory_without_a_sandbox() {
    let home = need!(cgroup_sandbox("procs=99"));
    let options = ["-p", "danger-full-access", "--limit", "procs=5,memory=64M"];
    let end = end(&home, &options, "for i in 1 2 3 4 5 6 7 8; do sleep 86400 & done");
    assert!(held(&end, "procs") && !held(&end, "memory"), "{end}");
    let by = end["limits"].as_array().into_iter().flatten().map(|limit| limit["by"].clone());
    assert_eq!(by.collect::<Vec<_>>(), ["cgroup", "cgroup"]);
}
