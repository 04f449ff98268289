//! What outlives what, through the program: a client that is killed, a keeper that is killed, many at once.
//!
//! The keeper's own protocol is tested in `client.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;

use rustix::process::Signal;
use sandbar_keeper::{Record, RuntimeDir};
use sandbar_proto::ExitStatus;
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Running, eventually, finish, need, processes};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A run that says its id, waits for the file `go`, and keeps a daemon with `marker` beside it.
fn start_waiting(home: &Home, profile: &str, marker: &str) -> (Running, String) {
    let script = format!(
        "setsid sh -c 'touch up; exec sleep {marker}' >/dev/null 2>&1 & \
         until test -e up; do sleep 0.01; done; rm up; \
         echo $SANDBAR_THREAD_ID; until test -e go; do sleep 0.01; done; echo went on; touch went_on; \
         exec sleep {marker}"
    );
    let mut running = Running::start(&mut home.shell(&["-p", profile], &script));
    let id = running.line();
    assert_eq!(id.len(), 36, "{id}");
    (running, id)
}

fn records(home: &Home) -> Vec<Record> {
    let runtime = RuntimeDir::open(&home.sandbar_home().join("run")).unwrap();
    let (keepers, _) = runtime.keepers().unwrap();
    keepers.iter().flat_map(|keeper| sandbar_keeper::read_all(keeper).unwrap()).collect()
}

fn nothing_left_of(marker: &str) {
    eventually(DEADLINE, "the end of the tree", || processes::with_argument(marker).is_empty().then_some(()));
}

const PROTECTED: [&str; 4] = [".agents", ".claude", ".codex", ".sandbar"];

fn protected_names(home: &Home) -> Vec<&'static str> {
    PROTECTED.into_iter().filter(|name| home.workspace().join(name).exists()).collect()
}

#[test]
fn a_run_goes_on_when_its_client_is_killed_and_is_ended_by_its_id() {
    let home = need!(sandbox());
    for profile in ["workspace", "danger-full-access"] {
        let marker = processes::unique_sleep();
        let (running, id) = start_waiting(&home, profile, &marker);
        running.signal(Signal::KILL);
        assert_eq!(running.finish().signal, Some(9));
        home.write("go", "");
        eventually(DEADLINE, "the run to go on", || home.workspace().join("went_on").exists().then_some(()));
        let listed = home.finish(&["ps", "--json"]);
        assert!(listed.ok().contains(&id), "{listed:?}");
        let logged = home.finish(&["logs", &id]);
        assert_eq!(logged.ok(), format!("{id}\nwent on\n"));
        let killed = home.finish(&["kill", "--grace", "100ms", &id]);
        assert_eq!(killed.code, Some(0), "{killed:?}");
        nothing_left_of(&marker);
        let listed = home.finish(&["ps", "--json"]);
        assert!(!listed.ok().contains(&id), "{listed:?}");
        let listed = home.finish(&["ps", "--all", "--json"]);
        assert!(listed.ok().contains(&id), "{listed:?}");
        fs::remove_file(home.workspace().join("go")).unwrap();
        fs::remove_file(home.workspace().join("went_on")).unwrap();
    }
    assert_eq!(protected_names(&home), Vec::<&str>::new());
}

#[test]
fn the_log_of_a_run_is_followed_to_its_end_by_any_beginning_of_its_id() {
    let home = need!(sandbox());
    let script = "echo $SANDBAR_THREAD_ID; until test -e go; do sleep 0.01; done; echo last";
    let mut running = Running::start(&mut home.shell(&[], script));
    let id = running.line();
    let mut follower = Running::start(&mut home.sandbar(&["logs", "--follow", &id[..23]]));
    assert_eq!(follower.line(), id);
    home.write("go", "");
    assert_eq!(follower.line(), "last");
    assert_eq!(follower.finish().code, Some(0));
    assert_eq!(running.finish(), Finished::with(0, "last\n", ""));
}

#[test]
fn what_a_run_wrote_is_shown_without_power_over_the_terminal() {
    let home = need!(sandbox());
    let id = home.run(&[], r"printf '%s\n\033[2Jred\033[0m\n' $SANDBAR_THREAD_ID").out();
    let id = id.lines().next().unwrap().to_owned();
    let shown = home.finish(&["logs", &id]).ok();
    assert!(!shown.contains('\u{1b}') && shown.contains("red"), "{shown:?}");
    let raw = home.finish(&["logs", "--raw", &id]).ok();
    assert_eq!(raw, format!("{id}\n\u{1b}[2Jred\u{1b}[0m\n"));
}

#[test]
fn an_id_that_no_run_has_is_said_to_be_unknown() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "true").code, Some(0));
    for arguments in [&["logs", "ffffffff"][..], &["kill", "ffffffff"]] {
        let finished = home.finish(arguments);
        assert!(finished.code != Some(0) && finished.err().contains("ffffffff"), "{finished:?}");
        assert!(finished.err().starts_with("error: "), "{finished:?}");
    }
}

#[test]
fn an_id_that_is_empty_names_no_run() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (running, id) = start_waiting(&home, "workspace", &marker);
    for arguments in [&["logs", ""][..], &["kill", ""], &["kill", &id, ""], &["kill", "--signal", "KILL", ""]]
    {
        let finished = home.finish(arguments);
        assert_eq!((finished.code, finished.out().as_str()), (Some(2), ""), "{finished:?}");
        assert!(finished.err().starts_with("error: an id is needed"), "{finished:?}");
    }
    assert!(!processes::with_argument(&marker).is_empty(), "nothing was ended");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
}

/// What is said about a keeper that was stopped.
fn stopped(pid: i32) -> String {
    format!(
        "sandbar: the keeper (pid {pid}) has not answered for 3 s: it is stopped. `kill -CONT {pid}` lets it go on; \
         `kill -9 {pid}` ends it and all that it holds."
    )
}

/// Stops the keeper of `home`, and waits until it has stopped.
fn stop(home: &Home) -> processes::Process {
    let keeper = home.keeper();
    keeper.signal(Signal::STOP);
    eventually(DEADLINE, "the keeper to be stopped", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", keeper.pid)).unwrap();
        stat.contains(") T ").then_some(())
    });
    keeper
}

#[test]
fn a_stopped_keeper_is_named_and_waited_for() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (mut running, id) = start_waiting(&home, "workspace", &marker);
    let mut follower = Running::start(&mut home.sandbar(&["logs", "--follow", &id]));
    assert_eq!(follower.line(), id);
    let keeper = stop(&home);
    // Everything that greets a keeper, begun together so that their waits pass together.
    let mut clients = [
        Running::start(&mut home.shell(&[], "echo ran")),
        Running::start(&mut home.sandbar(&["kill", "--signal", "CONT", &id])),
        Running::start(&mut home.sandbar(&["logs", "--follow", &id])),
        Running::start(&mut home.sandbar(&["keeper", "stop"])),
        Running::start(&mut home.sandbar(&["doctor"])),
    ];
    for client in &mut clients {
        assert_eq!(client.error_line(), stopped(keeper.pid));
    }
    keeper.signal(Signal::CONT);
    let [run, kill, mut logs, keeper_stop, doctor] = clients;
    assert_eq!(run.finish(), Finished::with(0, "ran\n", ""));
    assert_eq!(kill.finish(), Finished::with(0, format!("{id}\n"), ""));
    assert_eq!(logs.line(), id);
    assert_eq!(keeper_stop.finish().code, Some(1), "it holds a run");
    assert_eq!(doctor.finish().code, Some(0));
    // Those that had nothing to ask have been silent all that time.
    home.write("go", "");
    assert_eq!(running.line(), "went on");
    assert_eq!(home.finish(&["kill", "--grace", "100ms", &id]).code, Some(0));
    let ended = running.finish();
    assert_eq!((ended.code, ended.err().as_str()), (Some(143), ""), "{ended:?}");
    assert_eq!(follower.finish(), Finished::with(0, "went on\n", ""));
    assert_eq!(logs.finish(), Finished::with(0, "went on\n", ""));
}

#[test]
fn a_run_whose_keeper_heeds_no_signal_can_be_left() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (mut running, id) = start_waiting(&home, "workspace", &marker);
    let keeper = stop(&home);
    running.signal(Signal::INT);
    assert_eq!(running.error_line(), stopped(keeper.pid));
    running.signal(Signal::INT);
    let left = running.finish();
    assert_eq!((left.code, left.out().as_str()), (Some(130), ""), "{left:?}");
    assert!(left.err().starts_with("error: interrupted by signal 2: the keeper has not heeded"), "{left:?}");
    assert!(left.err().contains(&format!("`sandbar kill {id}`")), "{left:?}");
    // The first signal is on its way, and does what it would have done.
    keeper.signal(Signal::CONT);
    nothing_left_of(&marker);
}

#[test]
fn a_client_that_waits_for_a_stopped_keeper_can_be_interrupted() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "true").code, Some(0));
    let keeper = stop(&home);
    let mut running = Running::start(&mut home.shell(&[], "touch ran"));
    assert_eq!(running.error_line(), stopped(keeper.pid));
    running.signal(Signal::INT);
    assert_eq!(running.finish().signal, Some(2));
    keeper.signal(Signal::CONT);
    assert_eq!(home.run(&[], "test -e ran").code, Some(1));
}

#[test]
fn one_signal_goes_to_the_command_and_not_to_its_tree() {
    let home = need!(sandbox());
    let script = "trap 'echo got it; exit 6' USR1; echo $SANDBAR_THREAD_ID; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut home.shell(&[], script));
    let id = running.line();
    let killed = home.finish(&["kill", "--signal", "USR1", &id]);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    let finished = running.finish();
    assert_eq!((finished.code, finished.out().as_str()), (Some(6), "got it\n"), "{finished:?}");
}

#[test]
fn a_keeper_that_is_killed_takes_everything_with_it_and_the_next_one_says_so() {
    let home = need!(sandbox());
    let (first, second) = (processes::unique_sleep(), processes::unique_sleep());
    let (confined, confined_id) = start_waiting(&home, "workspace", &first);
    let (free, free_id) = start_waiting(&home, "danger-full-access", &second);
    assert_eq!(protected_names(&home), PROTECTED);
    home.keeper().signal(Signal::KILL);
    for running in [confined, free] {
        let finished = running.finish();
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(finished.err().contains("lost the run"), "{finished:?}");
    }
    nothing_left_of(&first);
    nothing_left_of(&second);
    assert_eq!(home.finish(&["logs", &free_id]).ok(), format!("{free_id}\n"), "what it wrote until then");
    assert_eq!(home.run(&[], "echo next").ok(), "next\n");
    let lost: Vec<String> = records(&home)
        .iter()
        .filter(|record| record.end.as_ref().is_some_and(|end| end.status == ExitStatus::Lost))
        .map(|record| record.start.id.to_string())
        .collect();
    assert_eq!(lost, [confined_id, free_id]);
    assert_eq!(protected_names(&home), Vec::<&str>::new(), "placeholders of the lost run");
}

#[test]
fn a_holder_that_is_killed_ends_its_run_and_no_other() {
    let home = need!(sandbox());
    let (first, second) = (processes::unique_sleep(), processes::unique_sleep());
    let (killed, _) = start_waiting(&home, "workspace", &first);
    let keeper = home.keeper();
    let mut holders = keeper.descendants();
    holders.retain(|process| process.parent == keeper.pid);
    let (other, _) = start_waiting(&home, "workspace", &second);
    holders[0].signal(Signal::KILL);
    assert_eq!(killed.finish().code, Some(137));
    nothing_left_of(&first);
    assert!(keeper.is_alive() && !processes::with_argument(&second).is_empty());
    other.signal(Signal::TERM);
    assert_eq!(other.finish().code, Some(143));
}

#[test]
fn what_runs_without_a_sandbox_cannot_use_the_keeper_that_holds_it() {
    let home = need!(sandbox());
    let script = format!("'{}' run -- touch ran", home.program().display());
    let finished = home.run(&["-p", "danger-full-access"], &script);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("the caller was started by a run of this keeper"), "{finished:?}");
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn protected_names_are_reserved_while_any_run_needs_them_and_no_longer() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (running, _) = start_waiting(&home, "workspace", &marker);
    assert_eq!(home.run(&[], "echo beside").ok(), "beside\n");
    assert_eq!(protected_names(&home), PROTECTED, "the first run still needs them");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
    assert_eq!(protected_names(&home), Vec::<&str>::new());
}

#[test]
fn protected_names_stay_reserved_for_a_later_run_when_the_first_one_ends() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (first, _) = start_waiting(&home, "workspace", &marker);
    let script = "echo ready; until test -e second; do sleep 0.01; done; mkdir .claude && touch .claude/made";
    let mut second = Running::start(&mut home.shell(&[], script));
    assert_eq!(second.line(), "ready");
    first.signal(Signal::TERM);
    assert_eq!(first.finish().code, Some(143));
    home.write("second", "");
    let second = second.finish();
    assert_ne!(second.code, Some(0), "the second run made .claude: {second:?}");
    assert_eq!(protected_names(&home), Vec::<&str>::new());
}

#[test]
fn what_makes_git_run_programs_stays_reserved_for_a_later_run_when_the_first_one_ends() {
    need!(need::program("git"));
    let home = need!(sandbox());
    let mut command = home.command("git");
    assert_eq!(finish(command.args(["init", "-q"])).code, Some(0));
    let marker = processes::unique_sleep();
    let (first, _) = start_waiting(&home, "workspace", &marker);
    let script = "echo ready; until test -e second; do sleep 0.01; done; \
                  echo ../evil > .git/commondir; echo x > .git/config.worktree; true";
    let mut second = Running::start(&mut home.shell(&[], script));
    assert_eq!(second.line(), "ready");
    first.signal(Signal::TERM);
    assert_eq!(first.finish().code, Some(143));
    home.write("second", "");
    let second = second.finish();
    for name in ["commondir", "config.worktree"] {
        assert!(
            !home.workspace().join(".git").join(name).exists(),
            "the second run wrote {name}: {second:?}"
        );
    }
}

#[test]
fn a_run_that_starts_while_another_ends_is_not_disturbed() {
    let home = need!(sandbox());
    // Both halves of each pair meet at another moment of the other's life.
    for turn in 0..20 {
        let first = Running::start(&mut home.shell(&[], "true"));
        let second = Running::start(&mut home.shell(&[], "mkdir .codex 2>/dev/null && echo made; true"));
        assert_eq!(first.finish(), Finished::with(0, "", ""), "turn {turn}");
        assert_eq!(second.finish(), Finished::with(0, "", ""), "turn {turn}");
    }
    assert_eq!(protected_names(&home), Vec::<&str>::new());
}

#[test]
fn what_a_person_put_into_a_reserved_name_stays() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (running, _) = start_waiting(&home, "workspace", &marker);
    let placeholder = home.workspace().join(".claude");
    let mut open = fs::metadata(&placeholder).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
    fs::set_permissions(&placeholder, open).unwrap();
    home.write(".claude/settings.json", "{}");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
    assert_eq!(protected_names(&home), [".claude"]);
    assert_eq!(fs::read_to_string(placeholder.join("settings.json")).unwrap(), "{}");
}

#[test]
fn twenty_clients_at_once_start_one_keeper() {
    let home = need!(sandbox());
    let running: Vec<Running> = (0..20)
        .map(|number| Running::start(&mut home.shell(&[], &format!("echo {number}; touch made.{number}"))))
        .collect();
    for (number, running) in running.into_iter().enumerate() {
        assert_eq!(running.finish(), Finished::with(0, format!("{number}\n"), ""));
        assert!(home.workspace().join(format!("made.{number}")).exists());
    }
    assert_eq!(home.keepers().len(), 1);
    assert_eq!(records(&home).len(), 20);
}

#[test]
fn the_keeper_stops_when_asked_unless_it_holds_something() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let (running, _) = start_waiting(&home, "workspace", &marker);
    let keeper = home.keeper();
    let refused = home.finish(&["keeper", "stop"]);
    assert!(refused.code != Some(0) && keeper.is_alive(), "{refused:?}");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
    let stopped = home.finish(&["keeper", "stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    eventually(DEADLINE, "the end of the keeper", || (!keeper.is_alive()).then_some(()));
    assert_eq!(home.run(&[], "echo again").ok(), "again\n");
    assert_ne!(home.keeper(), keeper);
}

#[test]
fn the_keeper_has_nothing_of_the_client_that_started_it() {
    let home = need!(sandbox());
    let file = home.outside().join("open");
    fs::write(&file, "").unwrap();
    let script = r#"exec 9<>../open; umask 0; cd / && exec "$0" run -q -C "$1" -- true"#;
    let mut command = home.host_shell(script);
    command.arg(home.workspace()).env("OPENAI_API_KEY", "hunter2");
    assert_eq!(finish(&mut command).code, Some(0));
    let proc = format!("/proc/{}", home.keeper().pid);
    need!(need::that(need::is_root(), "a keeper is not dumpable: only root may look at it"));
    assert_eq!(fs::read(format!("{proc}/environ")).unwrap(), b"");
    assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap().to_str(), Some("/"));
    for entry in fs::read_dir(format!("{proc}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        assert_ne!(target, file, "descriptor {:?}", entry.file_name());
    }
    for entry in 0..3 {
        assert_eq!(fs::read_link(format!("{proc}/fd/{entry}")).unwrap().to_str(), Some("/dev/null"));
    }
}

#[test]
fn soft_limits_of_the_first_client_are_not_the_keepers() {
    let home = need!(sandbox());
    let script = r#"ulimit -S -t 100; ulimit -S -f 1000; exec "$0" run -q --no-record -- true"#;
    assert_eq!(finish(&mut home.host_shell(script)), Finished::with(0, "", ""));
    let limits = fs::read_to_string(format!("/proc/{}/limits", home.keeper().pid)).unwrap();
    let soft_and_hard = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["Max cpu time", "Max file size"] {
        let [soft, hard] = &soft_and_hard(name)[..] else { panic!("{limits}") };
        assert_eq!(soft, hard, "{name}: it would end the keeper, and with it everything");
    }
}

#[test]
fn a_keeper_that_was_started_with_few_descriptors_starts_runs() {
    let home = need!(sandbox());
    let script = r#"ulimit -S -n 24; exec "$0" run -q -- echo out"#;
    assert_eq!(finish(&mut home.host_shell(script)), Finished::with(0, "out\n", ""));
    let running: Vec<Running> =
        (0..8).map(|_| Running::start(&mut home.shell(&["-p", "read-only"], "echo beside"))).collect();
    for running in running {
        assert_eq!(running.finish(), Finished::with(0, "beside\n", ""));
    }
}

#[test]
fn too_few_descriptors_are_said_before_anything_is_begun() {
    let home = need!(sandbox());
    let starved = [
        ("ulimit -n 6", "is 6\n"),
        ("ulimit -S -n 9", "is 9\n"),
        ("ulimit -n 40", "is 40\n"),
        // What the caller holds open takes room as well.
        ("ulimit -S -n 24; exec 5<. 6<. 7<. 8<. 9<.", "is 24\n"),
    ];
    for (limit, place) in starved {
        for (command, code) in [("run -- touch ran", 125), ("ps", 1), ("kill 0", 1), ("doctor", 1)] {
            let finished = finish(&mut home.host_shell(&format!("{limit}; exec \"$0\" {command}")));
            assert_eq!((finished.code, finished.out().as_str()), (Some(code), ""), "{limit}: {finished:?}");
            let said = finished.err();
            assert!(said.starts_with("error: too few files may be opened here\n  where: "), "{said}");
            assert!(said.contains(place) && said.contains("\n  do:    raise it"), "{said}");
        }
    }
    assert!(!home.workspace().join("ran").exists());
    assert!(home.keepers().is_empty(), "none was started that would lack them");
}

#[test]
fn a_runtime_directory_that_others_may_enter_is_refused() {
    let home = need!(sandbox());
    let runtime = home.sandbar_home().join("run");
    fs::create_dir(&runtime).unwrap();
    fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let finished = home.run(&[], "touch ran");
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("others may enter it (mode 0755)"), "{finished:?}");
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_full_runtime_directory_refuses_a_start_clearly_and_loses_nothing() {
    let home = need!(sandbox());
    let finished = need!(home.in_small_runtime(
        "1m",
        r#"
        "$0" run -q -- echo before || exit 98
        head -c 4000000 /dev/zero > $run/fill 2>/dev/null
        "$0" run -q -- touch ran; echo $?
        before=$(find $run -name end.json -size +0)
        rm $run/fill
        "$0" run -q -- echo after
        test "$before" && grep -q '"code":0' $before && echo kept"#
    ));
    assert_eq!(finished.out(), "before\n125\nafter\nkept\n", "{finished:?}");
    assert!(finished.err().contains("the runtime directory is full"), "{finished:?}");
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_runtime_directory_that_fills_up_makes_a_command_wait_and_loses_nothing() {
    // The second command is silent for so long that nothing is looked at any more when it finds no room at once.
    for pause in ["0", "0.3"] {
        let home = need!(sandbox());
        let script = format!(
            r#"
            "$0" run -- sh -c 'touch ready; until test -e go; do sleep 0.01; done; sleep {pause}; seq 500000; exit 7' \
                >out 2>err &
            until test -e ready; do sleep 0.01; done
            head -c 4000000 /dev/zero > $run/fill 2>/dev/null
            touch go
            until grep -q 'runtime directory is full' err; do sleep 0.01; done
            rm $run/fill
            wait $!; echo $?
            seq 500000 | cmp - out && echo complete"#
        );
        let finished = need!(home.in_small_runtime("1m", &script));
        assert_eq!(finished, Finished::with(0, "7\ncomplete\n", ""), "after a silence of {pause} s");
    }
}
