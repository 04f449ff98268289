//! `sandbar run` through the program: streams, statuses, environment, records, signals.
//!
//! What a sandbox allows is tested in `sandbox.rs`, what outlives a client in `keeper.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use sandbar_proto::{ByteString, ExitStatus, RolloutEvent, RolloutItem, RolloutLine};
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Running, eventually, finish, need, processes};
use serde_json::Value;

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// Files below `folder` whose name ends with `suffix`.
fn files(folder: PathBuf, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(entry.path(), suffix)),
            Ok(_) if entry.file_name().as_bytes().ends_with(suffix.as_bytes()) => found.push(entry.path()),
            Ok(_) | Err(_) => {}
        }
    }
    found
}

fn rollouts(home: &Home) -> Vec<PathBuf> {
    files(home.sandbar_home().join("state"), ".jsonl")
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// --- streams and statuses ---

#[test]
fn output_and_exit_status_pass_through_and_the_streams_stay_apart() {
    let home = need!(sandbox());
    let finished = home.run(&[], "echo out; echo err >&2; exit 3");
    assert_eq!(finished, Finished::with(3, "out\n", "err\n"));
}

#[test]
fn output_is_bytes_and_not_text() {
    let home = need!(sandbox());
    let finished = home.run(&[], r"printf '\377\000\033[2J'; printf '\300' >&2");
    assert_eq!(finished, Finished::with(0, b"\xff\0\x1b[2J", b"\xc0"));
}

#[test]
fn without_a_record_the_streams_are_handed_over_and_look_the_same() {
    let home = need!(sandbox());
    let finished = home.run(&["--no-record"], "cat >&2; echo out; exit 4");
    assert_eq!(finished, Finished::with(4, "out\n", ""));
}

#[test]
fn standard_input_comes_from_a_pipe() {
    let home = need!(sandbox());
    for options in [&[][..], &["--no-record"]] {
        let mut running = Running::start(home.shell(options, "cat; echo end").stdin(Stdio::piped()));
        running.child().stdin.as_mut().unwrap().write_all(b"typed\xff").unwrap();
        assert_eq!(running.finish(), Finished::with(0, b"typed\xffend\n", ""));
    }
}

#[test]
fn standard_input_comes_from_a_file_which_the_command_reads_itself() {
    let home = need!(sandbox());
    let file = home.outside().join("input");
    fs::write(&file, "one\ntwo\n").unwrap();
    let input = fs::File::open(&file).unwrap();
    let finished = finish(home.shell(&[], "head -c 4").stdin(input));
    assert_eq!(finished, Finished::with(0, "one\n", ""));
}

#[test]
fn standard_input_may_be_nothing_or_closed() {
    let home = need!(sandbox());
    assert_eq!(home.run(&[], "cat; echo end"), Finished::with(0, "end\n", ""));
    let closed = finish(&mut home.host_shell(r#"exec "$0" run -q -- sh -c 'cat; echo end' <&-"#));
    assert_eq!(closed, Finished::with(0, "end\n", ""));
}

#[test]
fn standard_input_that_cannot_be_read_is_said_and_ends() {
    let home = need!(sandbox());
    let cases = [
        ("exec <.", "Is a directory (os error 21)"),
        // A device, so that it is relayed, and open for writing only.
        ("exec 0>/dev/zero", "Bad file descriptor (os error 9)"),
    ];
    for (redirection, error) in cases {
        let script = format!("{redirection}; exec \"$0\" run -q -- sh -c 'cat; echo end; exit 3'");
        let said =
            format!("sandbar: reading standard input failed: {error}; the command sees the end of it.\n");
        assert_eq!(finish(&mut home.host_shell(&script)), Finished::with(3, "end\n", said));
    }
}

#[test]
fn standard_input_that_somebody_made_non_blocking_is_waited_for() {
    need!(need::program("python3"));
    let home = need!(sandbox());
    // A terminal is relayed; nothing is typed before the command waits for it.
    let code = "\
import os, pty, subprocess, sys
master, slave = pty.openpty()
os.set_blocking(slave, False)
run = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=subprocess.PIPE)
run.stdout.read(6)
os.write(master, b'typed\\n')
print(run.stdout.readline())
";
    let mut command = home.command("python3");
    command.args(["-c", code]).arg(home.program());
    command.args(["run", "-q", "--", "sh", "-c", "echo ready; head -n 1"]);
    assert_eq!(finish(&mut command), Finished::with(0, "b'typed\\n'\n", ""));
}

#[test]
fn closed_outputs_are_no_reason_to_fail() {
    let home = need!(sandbox());
    let finished = finish(&mut home.host_shell(r#""$0" run -q -- sh -c 'touch ran; exit 5' >&- 2>&-"#));
    assert_eq!(finished.code, Some(5), "{finished:?}");
    assert!(home.workspace().join("ran").exists());
}

#[test]
fn the_exit_status_is_the_commands_own_or_128_plus_its_signal() {
    let home = need!(sandbox());
    let table = [
        ("exit 0", 0),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -1 $$", 129),
    ];
    for (script, expected) in table {
        assert_eq!(home.run(&[], script), Finished::with(expected, "", ""), "{script}");
    }
}

#[test]
fn a_program_that_is_nowhere_is_127() {
    let home = need!(sandbox());
    for program in ["no-such-program-anywhere", "./missing", "/missing/program"] {
        let finished = home.finish(&["run", "-q", "--", program]);
        assert_eq!((finished.code, finished.out().as_str()), (Some(127), ""), "{finished:?}");
        assert!(
            finished.err().contains(&format!("could not start `{program}`: no such program")),
            "{finished:?}"
        );
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let home = need!(sandbox());
    home.write("data", "text");
    let script = home.write("script", "#!/missing/interpreter\n");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.workspace().join("folder")).unwrap();
    let table = [
        ("./data", "may not be executed"),
        ("./folder", "is a directory"),
        ("/", "is a directory"),
        ("./script", "interpreter"),
    ];
    for (program, reason) in table {
        let finished = home.finish(&["run", "-q", "--", program]);
        assert_eq!(finished.code, Some(126), "{finished:?}");
        assert!(finished.err().contains(reason), "{finished:?}");
    }
}

#[test]
fn a_text_without_an_interpreter_line_is_a_script_of_the_shell() {
    let home = need!(sandbox());
    let script = home.write("script", "echo \"$0 $1\"\n");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    let finished = home.finish(&["run", "-q", "--", "./script", "argument"]);
    assert_eq!(finished, Finished::with(0, "./script argument\n", ""));
}

#[test]
fn a_binary_that_the_kernel_does_not_know_is_126_and_never_a_script() {
    let home = need!(sandbox());
    // Each would leave a file if a shell took it for a script.
    let foreign = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\x7f\ntouch ran\n".to_vec();
    let table = [
        ("foreign", foreign),
        ("truncated", b"\x7fELF\ntouch ran\n".to_vec()),
        ("windows", b"touch ran; MZ\0\n".to_vec()),
    ];
    for (name, content) in table {
        let program = home.write(name, content);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        for profile in ["workspace", "danger-full-access"] {
            let finished = home.finish(&["run", "-q", "-p", profile, "--", &format!("./{name}")]);
            assert_eq!((finished.code, finished.out().as_str()), (Some(126), ""), "{name}: {finished:?}");
            assert!(finished.err().contains("it is no program of this machine"), "{finished:?}");
        }
    }
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn an_empty_command_is_said_to_be_empty() {
    let home = need!(sandbox());
    let finished = home.finish(&["run", "--", "", "argument"]);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("the command is empty\n"), "{finished:?}");
}

#[test]
fn what_sandbar_itself_cannot_do_is_125_and_says_what_to_do() {
    let home = need!(sandbox());
    let table: [(&[&str], &str); 4] = [
        (&["-p", "no-such-profile"], "read-only, workspace, external, danger-full-access"),
        (&["-C", "/missing/folder"], "the working directory /missing/folder does not exist"),
        (&["-C", "/etc/passwd"], "is not a directory"),
        (&["--allow-write", "/missing/folder"], "--allow-write /missing/folder does not exist"),
    ];
    for (options, reason) in table {
        let finished = home.run(options, "touch ran");
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(
            finished.err().starts_with("error: ") && finished.err().contains("\n  do:    "),
            "{finished:?}"
        );
        assert!(finished.err().contains(reason), "{reason}: {finished:?}");
    }
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_working_directory_that_was_removed_is_said_to_be_gone() {
    let home = need!(sandbox());
    let finished =
        finish(&mut home.host_shell(r#"mkdir gone && cd gone && rmdir ../gone && exec "$0" run -- true"#));
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("could not find the working directory"), "{finished:?}");
}

#[test]
fn the_working_directory_can_be_named() {
    let home = need!(sandbox());
    fs::create_dir(home.workspace().join("sub")).unwrap();
    let finished = home.run(&["-C", "sub"], "pwd; echo $PWD; touch made");
    let sub = home.workspace().join("sub").display().to_string();
    assert_eq!(finished, Finished::with(0, format!("{sub}\n{sub}\n"), ""));
    assert!(home.workspace().join("sub/made").exists());
}

#[test]
fn a_command_line_that_is_none_is_2_and_help_is_0() {
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    assert_eq!(home.finish(&["run"]).code, Some(2));
    assert_eq!(home.finish(&["no-such-command"]).code, Some(2));
    let help = home.finish(&["run", "--help"]);
    assert!(help.ok().contains("Usage: sandbar run"), "{help:?}");
}

#[test]
fn a_command_that_takes_too_long_is_124() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let finished = home.finish(&["run", "--timeout", "300ms", "--", "sleep", &marker]);
    assert_eq!(finished.code, Some(124), "{finished:?}");
    assert!(finished.err().contains("time limit of 300ms"), "{finished:?}");
    assert!(processes::with_argument(&marker).is_empty());
}

#[test]
fn a_command_that_ignores_the_end_of_its_time_is_killed() {
    let home = need!(sandbox());
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let finished = home.run(&["--timeout", "300ms"], script);
    assert_eq!(finished, Finished::with(124, "ready\n", ""));
}

// --- arguments and environment ---

#[test]
fn arguments_that_are_no_text_arrive_byte_for_byte() {
    let home = need!(sandbox());
    let mut command = home.sandbar(&["run", "-q", "--", "printf", "%s|"]);
    command.arg(OsStr::from_bytes(b"\xff\xfe")).arg("").arg("a b\n'\"").arg("--json");
    assert_eq!(finish(&mut command), Finished::with(0, b"\xff\xfe||a b\n'\"|--json|", ""));
}

#[test]
fn a_megabyte_of_arguments_arrives() {
    let home = need!(sandbox());
    let mut command = home.sandbar(&["run", "-q", "--", "sh", "-c", "echo $#; echo ${#1}", "sh"]);
    command.args(std::iter::repeat_n("x".repeat(1024), 1000));
    assert_eq!(finish(&mut command), Finished::with(0, "1000\n1024\n", ""));
}

#[test]
fn names_and_values_of_the_environment_that_are_no_text_arrive_byte_for_byte() {
    let home = need!(sandbox());
    let mut command = home.sandbar(&["run", "-q", "--", "env"]);
    command.env(OsStr::from_bytes(b"NAM\xc3"), OsStr::from_bytes(b"v\xe9=\x01"));
    let finished = finish(&mut command);
    let lines: Vec<&[u8]> = finished.stdout.split(|&byte| byte == b'\n').collect();
    assert!(lines.contains(&&b"NAM\xc3=v\xe9=\x01"[..]), "{finished:?}");
}

#[test]
fn variables_are_set_kept_and_removed() {
    let home = need!(sandbox());
    let options = ["--env", "ADDED=a=b", "--env-keep", "MY_*", "--env-unset", "PLAIN"];
    let script = r#"echo "${ADDED-} ${MY_TOKEN-withheld} ${PLAIN-removed} ${OTHER_TOKEN-withheld}""#;
    let mut command = home.shell(&options, script);
    command.env("MY_TOKEN", "kept").env("OTHER_TOKEN", "secret").env("PLAIN", "plain");
    assert_eq!(finish(&mut command), Finished::with(0, "a=b kept removed withheld\n", ""));
}

#[test]
fn secrets_in_the_environment_are_withheld_and_counted_but_never_shown() {
    let home = need!(sandbox());
    let mut command = home.sandbar(&["run", "--", "env"]);
    command.env("OPENAI_API_KEY", "hunter2").env("A_SECRET_B", "hunter2").env("GITHUB_TOKEN", "hunter2");
    let finished = finish(&mut command);
    assert!(!finished.ok().contains("hunter2"), "{finished:?}");
    assert!(finished.err().contains("withheld 3 environment variables"), "{finished:?}");
    let recorded = fs::read_to_string(&rollouts(&home)[0]).unwrap();
    assert!(!recorded.contains("hunter2") && !recorded.contains("OPENAI_API_KEY"), "{recorded}");
}

#[test]
fn credentials_under_other_names_are_withheld_until_they_are_kept_or_set() {
    let home = need!(sandbox());
    let script = r#"echo "${PGPASSWORD-none} ${DATABASE_URL-none} ${NOTES-none} $GIT_AUTHOR_NAME""#;
    let shell = |options: &[&str]| {
        let mut command = home.shell(options, script);
        command.env("PGPASSWORD", "hunter2").env("DATABASE_URL", "postgres://u:hunter2@h/db");
        command.env("NOTES", OsStr::from_bytes(b"\xff https://u:hunter2@h")).env("GIT_AUTHOR_NAME", "Ada");
        finish(&mut command).ok()
    };
    assert_eq!(shell(&[]), "none none none Ada\n");
    let kept = shell(&["--env-keep", "*_URL", "--env", "PGPASSWORD=chosen"]);
    assert_eq!(kept, "chosen postgres://u:hunter2@h/db none Ada\n");
}

#[test]
fn the_environment_says_what_surrounds_the_command() {
    let home = need!(sandbox());
    let script =
        "echo $SANDBAR_SANDBOX $SANDBAR_SANDBOX_NETWORK_DISABLED $CODEX_SANDBOX; echo $SANDBAR_THREAD_ID";
    let inside = home.run(&[], script).ok();
    let (markers, id) = inside.trim_end().split_once('\n').unwrap();
    assert_eq!(markers, "linux 1 linux");
    assert!(rollouts(&home)[0].to_string_lossy().contains(id), "{id}");
    assert!(home.run(&["-p", "danger-full-access"], script).ok().starts_with('\n'));
}

#[test]
fn umask_and_limits_are_the_callers() {
    let home = need!(sandbox());
    let inside = "umask; ulimit -n; ulimit -c; touch made; stat -c %a made";
    let script = format!("umask 027; ulimit -n 123; ulimit -c 0; exec \"$0\" run -q -- sh -c '{inside}'");
    // A keeper that was started under other limits must not hand its own on.
    assert_ne!(home.run(&[], "ulimit -n").ok(), "123\n");
    assert_eq!(finish(&mut home.host_shell(&script)), Finished::with(0, "0027\n123\n0\n640\n", ""));
}

#[test]
fn a_command_starts_with_default_signal_actions_and_nothing_blocked() {
    let home = need!(sandbox());
    // The C library keeps signals 32 and 33 to itself and lets nobody reset them (nptl(7)).
    const RESERVED: u64 = 0x1_8000_0000;
    for profile in ["workspace", "danger-full-access"] {
        let finished = home.run(&["-p", profile], "grep -E '^Sig(Blk|Ign):' /proc/self/status | cut -f 2");
        let masks = finished.ok();
        let masks = masks.lines().map(|mask| u64::from_str_radix(mask, 16).unwrap() & !RESERVED);
        assert_eq!(masks.collect::<Vec<_>>(), [0, 0], "{profile}");
    }
}

// --- records ---

#[test]
fn a_recorded_run_has_a_rollout_with_its_command_its_output_and_its_end() {
    let home = need!(sandbox());
    let finished = home.run(&[], r"echo out; printf '\377' >&2; exit 6");
    assert_eq!(finished.code, Some(6));
    let [path] = &rollouts(&home)[..] else { panic!("{:?}", rollouts(&home)) };
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<RolloutLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ordinals: Vec<u64> = lines.iter().map(|line| line.ordinal).collect();
    assert_eq!(ordinals, (0..lines.len() as u64).collect::<Vec<_>>());
    let mut told = Vec::new();
    for line in lines {
        match line.item {
            RolloutItem::EventMsg(RolloutEvent::RunStarted(run)) => {
                assert_eq!(run.command[2], ByteString::from(r"echo out; printf '\377' >&2; exit 6"));
                assert_eq!((run.profile.as_str(), run.cwd.as_path()), ("workspace", &*home.workspace()));
                told.push("started".to_owned());
            }
            RolloutItem::EventMsg(RolloutEvent::RunOutput(output)) => {
                told.push(format!("{:?} {:?}", output.stream, output.data));
            }
            RolloutItem::EventMsg(RolloutEvent::RunEnded(run)) => {
                assert_eq!(
                    (run.status, run.output.bytes, run.recorded.bytes),
                    (ExitStatus::Exited { code: 6 }, 5, 5)
                );
                told.push("ended".to_owned());
            }
            RolloutItem::SessionMeta(_)
            | RolloutItem::TurnContext(_)
            | RolloutItem::EventMsg(
                RolloutEvent::TaskStarted(_)
                | RolloutEvent::RunTakenOver(_)
                | RolloutEvent::TaskComplete(_)
                | RolloutEvent::RunNotStarted(_)
                | RolloutEvent::RunOutputGap(_),
            ) => {}
        }
    }
    told[1..3].sort();
    assert_eq!(told, ["started", "Stderr b\"\\xff\"", "Stdout b\"out\\n\"", "ended"]);
}

#[test]
fn a_run_that_could_not_start_is_on_record_with_the_reason() {
    let home = need!(sandbox());
    assert_eq!(home.finish(&["run", "--", "no-such-program"]).code, Some(127));
    let text = fs::read_to_string(&rollouts(&home)[0]).unwrap();
    let found = json_lines(&text).into_iter().any(|line| line["payload"]["type"] == "run_not_started");
    assert!(found, "{text}");
}

#[test]
fn without_a_record_there_is_no_rollout() {
    let home = need!(sandbox());
    assert_eq!(home.run(&["--no-record"], "echo hi").ok(), "hi\n");
    assert_eq!(rollouts(&home), Vec::<PathBuf>::new());
}

#[test]
fn what_sandbar_keeps_is_nobody_elses_to_read() {
    let home = need!(sandbox());
    let script = "umask 0; exec \"$0\" run -q -- sh -c 'echo out; exit 0'";
    assert_eq!(finish(&mut home.host_shell(script)), Finished::with(0, "out\n", ""));
    let kept = files(home.sandbar_home(), "");
    let all = kept.iter().flat_map(|file| file.ancestors().take_while(|at| **at != home.sandbar_home()));
    let open: Vec<_> = all
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0))
        .map(|path| path.strip_prefix(home.sandbar_home()).unwrap().display().to_string())
        .collect();
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn a_record_that_cannot_be_made_stops_the_run_before_it_starts() {
    let home = need!(sandbox());
    fs::write(home.sandbar_home().join("state"), "a file where a folder belongs").unwrap();
    let finished = home.run(&[], "touch ran");
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("could not record the run") && finished.err().contains("--no-record"));
    assert!(!home.workspace().join("ran").exists());
    assert_eq!(home.run(&["--no-record"], "touch ran").code, Some(0));
}

#[test]
fn a_full_disk_for_records_stops_a_run_before_it_starts() {
    let mounts = need!(need::private_mounts());
    let home = need!(sandbox());
    let script = r#"
        mkdir "$SANDBAR_HOME/state" && mount -t tmpfs -o mode=700,size=8k tmpfs "$SANDBAR_HOME/state" || exit 99
        head -c 100000 /dev/zero > "$SANDBAR_HOME/state/fill" 2> fill.err
        "$0" run -q -- touch ran"#;
    let mut command = home.command(mounts[0]);
    command.args(&mounts[1..]).args(["sh", "-c", script]).arg(home.program());
    let finished = finish(&mut command);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("could not record the run"), "{finished:?}");
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_disk_that_fills_up_costs_the_record_and_not_the_output() {
    let mounts = need!(need::private_mounts());
    let home = need!(sandbox());
    let script = r#"
        mkdir "$SANDBAR_HOME/state" && mount -t tmpfs -o mode=700,size=64k tmpfs "$SANDBAR_HOME/state" || exit 99
        exec "$0" run -- sh -c 'seq 200000; exit 7'"#;
    let mut command = home.command(mounts[0]);
    command.args(&mounts[1..]).args(["sh", "-c", script]).arg(home.program());
    let finished = finish(&mut command);
    assert_eq!(finished.code, Some(7), "{}", finished.err());
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(finished.out() == expected, "{} of {} bytes", finished.stdout.len(), expected.len());
    assert!(finished.err().contains("could not record everything of this run"), "{}", finished.err());
}

#[test]
fn events_replace_the_streams_with_json() {
    let home = need!(sandbox());
    let finished = home.run(&["--json"], r"echo out; printf '\377' >&2; exit 9");
    assert_eq!((finished.code, finished.err().as_str()), (Some(9), ""), "{finished:?}");
    let events = json_lines(&finished.out());
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["started", "output", "output", "exited", "closed"]);
    assert_eq!(events[0]["command"][2], r"echo out; printf '\377' >&2; exit 9");
    let data = |stream: &str| {
        let event = events.iter().find(|event| event["stream"] == stream).unwrap();
        event["data"].clone()
    };
    assert_eq!(data("stdout"), "out\n");
    assert_eq!(data("stderr"), serde_json::json!({"bytes": "/w=="}));
    assert_eq!((&events[3]["how"], &events[3]["exit_code"]), (&"exited".into(), &9.into()));
    assert_eq!(events[0]["id"], events[3]["id"]);
    let seqs: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert!(seqs.is_sorted() && seqs.len() == 3, "{seqs:?}");
}

// --- floods, readers, leftovers ---

#[test]
fn a_limit_on_the_size_of_files_costs_the_record_and_not_the_run() {
    let home = need!(sandbox());
    // Smaller than the largest portion of output; the keeper of such a caller has the limit as well.
    let script = "ulimit -f 100; \"$0\" run -- sh -c 'seq 100000; kill -XFSZ $$'";
    let finished = finish(&mut home.host_shell(script));
    assert_eq!(finished.code, Some(128 + 25), "the command has the default action: {}", finished.err());
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(finished.out(), expected);
    assert!(finished.err().contains("record"), "{}", finished.err());
}

#[test]
fn what_sandbar_makes_is_its_users_whatever_the_umask() {
    let home = need!(sandbox());
    let mask = finish(&mut home.host_shell("umask 0777; \"$0\" run -q -- sh -c umask")).ok();
    assert_eq!(mask.trim(), "0777");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for name in ["run", "state", "state/sessions"] {
        assert_eq!(mode(&home.sandbar_home().join(name)), 0o700, "{name}");
    }
    let rollouts = rollouts(&home);
    assert_eq!(rollouts.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600]);
}

#[test]
fn a_small_stack_is_enough() {
    let home = need!(sandbox());
    let script = "ulimit -s 256; \"$0\" run -q -- sh -c 'ulimit -s; exit 3'";
    assert_eq!(finish(&mut home.host_shell(script)), Finished::with(3, "256\n", ""));
}

#[test]
fn help_that_cannot_be_written_is_said() {
    let home = need!(sandbox());
    let finished = finish(&mut home.host_shell("\"$0\" run --help > /dev/full"));
    assert!(finished.code == Some(1) && finished.err().contains("standard output"), "{finished:?}");
}

#[test]
fn output_that_cannot_be_written_is_said_and_is_125_whatever_the_command_came_to() {
    let home = need!(sandbox());
    for (inside, options) in
        [("echo ok", ""), ("echo ok; exit 3", ""), ("seq 100000", ""), ("echo ok", "--json")]
    {
        // More than once: the command may be over before the failure is known.
        for _ in 0..5 {
            let script = format!("\"$0\" run -q {options} -- sh -c '{inside}' > /dev/full");
            let finished = finish(&mut home.host_shell(&script));
            assert_eq!(finished.code, Some(125), "{inside}: {finished:?}");
            assert_eq!(
                finished.err().matches("could not write to standard output: No space").count(),
                1,
                "{inside}"
            );
        }
    }
    let finished =
        finish(&mut home.host_shell("\"$0\" run -q -- sh -c 'echo out; echo err >&2' 2> /dev/full"));
    assert_eq!(finished, Finished::with(125, "out\n", ""));
}

#[test]
fn a_run_that_is_asked_to_end_ends_although_nobody_reads_what_it_wrote() {
    let home = need!(sandbox());
    // What the pipes and queues between the command and a reader that never reads take.
    for inside in ["yes", "trap '' TERM; yes", "head -c 300000 /dev/zero; sleep 1000"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = home.shell(&[], &format!("echo > started; {inside}"));
        let mut child = command.stdout(writer).spawn().unwrap();
        drop(command);
        eventually(DEADLINE, "the start", || home.workspace().join("started").exists().then_some(()));
        fs::remove_file(home.workspace().join("started")).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        processes::Process::find(pid).unwrap().signal(Signal::TERM);
        let status = eventually(DEADLINE, "the end of a run that nobody reads", || child.try_wait().unwrap());
        assert!(!status.success(), "{inside}: {status}");
        drop(reader);
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_by_sigpipe() {
    let home = need!(sandbox());
    for options in [&["run", "-q", "--", "yes"][..], &["run", "-q", "--no-record", "--", "yes"]] {
        let mut child = home.sandbar(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 2];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"y\n");
        let status = eventually(DEADLINE, "the end by SIGPIPE", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(141), "{options:?}");
    }
}

#[test]
fn seventy_megabytes_arrive_complete_at_a_slow_reader() {
    let home = need!(sandbox());
    const NUMBERS: u32 = 9_000_000;
    let mut command = home.sandbar(&["run", "-q", "--", "seq", &NUMBERS.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // Small reads through an unbuffered pipe are what makes the reader slow.
    let mut pipe = child.stdout.take().unwrap();
    let (mut buffer, mut line, mut expected) = ([0; 4096], Vec::new(), 1_u32);
    loop {
        let count = pipe.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        for &byte in &buffer[..count] {
            if byte == b'\n' {
                let number: u32 = std::str::from_utf8(&line).unwrap().parse().unwrap();
                assert_eq!(number, expected);
                expected += 1;
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    assert_eq!((expected - 1, line.len()), (NUMBERS, 0));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn sixty_four_megabytes_of_input_arrive_complete() {
    let home = need!(sandbox());
    let mut running = Running::start(home.sandbar(&["run", "-q", "--", "cksum"]).stdin(Stdio::piped()));
    let block: Vec<u8> = (0..65_536_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut input = running.child().stdin.take().unwrap();
    for _ in 0..1024 {
        input.write_all(&block).unwrap();
    }
    drop(input);
    let mut host = Running::start(home.command("cksum").stdin(Stdio::piped()));
    let mut input = host.child().stdin.take().unwrap();
    for _ in 0..1024 {
        input.write_all(&block).unwrap();
    }
    drop(input);
    assert_eq!(running.finish().ok(), host.finish().ok());
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hide_the_exit() {
    let home = need!(sandbox());
    for profile in ["workspace", "danger-full-access"] {
        for options in [&["-p", profile][..], &["-p", profile, "--no-record"]] {
            let marker = processes::unique_sleep();
            let finished = home.run(options, &format!("sleep {marker} & echo out; exit 2"));
            assert_eq!(finished, Finished::with(2, "out\n", ""), "{options:?}");
        }
    }
}

#[test]
fn a_daemonised_grandchild_is_dead_after_the_run() {
    let home = need!(sandbox());
    for profile in ["workspace", "danger-full-access"] {
        let marker = processes::unique_sleep();
        // The daemon has left session, group and parent by the time the command ends.
        let script = format!(
            "rm -f up; setsid sh -c 'trap \"\" HUP TERM INT; touch up; exec sleep {marker}' >/dev/null 2>&1 & \
             until test -e up; do sleep 0.01; done; echo up"
        );
        assert_eq!(home.run(&["-p", profile], &script).ok(), "up\n");
        eventually(DEADLINE, "the end of the daemon", || {
            processes::with_argument(&marker).is_empty().then_some(())
        });
    }
}

// --- signals ---

#[test]
fn an_interrupt_reaches_the_command_which_decides() {
    let home = need!(sandbox());
    let script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::INT);
    assert_eq!(running.finish(), Finished::with(7, "interrupted\n", ""));
}

#[test]
fn an_interrupt_ends_a_command_that_does_nothing_about_it() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let mut running = Running::start(&mut home.shell(&[], &format!("echo ready; exec sleep {marker}")));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::INT);
    assert_eq!(running.finish(), Finished::with(130, "", ""));
}

#[test]
fn a_second_interrupt_kills_a_command_that_ignores_the_first() {
    let home = need!(sandbox());
    let script = "trap 'echo ignored' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::INT);
    assert_eq!(running.line(), "ignored");
    running.signal(Signal::INT);
    assert_eq!(running.finish().code, Some(137));
}

/// Runs the rest of its arguments on a terminal of its own, types Ctrl-C after the line `ready`, and ends with the
/// status of what it ran.
const TERMINAL: &str = "\
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b''
while True:
    try:
        chunk = os.read(master, 4096)
    except OSError:
        break
    if not chunk:
        break
    seen += chunk
    if b'ready' in seen and b'typed' not in seen:
        seen += b'typed'
        os.write(master, b'\\x03')
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn ctrl_c_on_a_terminal_reaches_the_command() {
    need!(need::program("python3"));
    let home = need!(sandbox());
    for profile in ["workspace", "danger-full-access"] {
        let script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.05; done";
        let mut command = home.command("python3");
        command.args(["-c", TERMINAL]).arg(home.program());
        command.args(["run", "-q", "-p", profile, "--", "sh", "-c", script]);
        let finished = finish(&mut command);
        assert_eq!(finished.code, Some(7), "{profile}: {finished:?}");
        assert!(finished.out().contains("interrupted"), "{profile}: {finished:?}");
    }
}

#[test]
fn a_request_to_end_goes_to_the_whole_tree() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let script = format!("setsid sleep {marker} & echo ready; wait");
    let mut running = Running::start(&mut home.shell(&[], &script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
    eventually(DEADLINE, "the end of the tree", || {
        processes::with_argument(&marker).is_empty().then_some(())
    });
}

#[test]
fn a_command_that_ignores_the_request_to_end_is_killed_after_a_while() {
    let home = need!(sandbox());
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(137));
}

#[test]
fn a_hangup_ends_the_command() {
    let home = need!(sandbox());
    let script = "trap 'echo hung up; exit 3' HUP; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut home.shell(&[], script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::HUP);
    let finished = running.finish();
    assert_eq!((finished.code, finished.out().as_str()), (Some(3), "hung up\n"), "{finished:?}");
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_stays_ignored() {
    let home = need!(sandbox());
    let inside = "echo ready; until test -e go; do sleep 0.01; done; echo went on";
    let script = format!("trap '' HUP; exec \"$0\" run -q -- sh -c '{inside}'");
    let mut running = Running::start(&mut home.host_shell(&script));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::HUP);
    home.write("go", "");
    assert_eq!(running.finish(), Finished::with(0, "went on\n", ""));
}

#[test]
fn a_command_that_fails_for_what_it_may_not_touch_is_explained() {
    let home = need!(sandbox());
    let run = |script: &str| finish(&mut home.sandbar(&["run", "--", "sh", "-c", script]));
    let refused = run("touch /etc/sandbar-test");
    assert_eq!(refused.code, Some(1));
    let sentence = "probably failed because /etc/sandbar-test may only be read (profile workspace)";
    assert!(refused.err().contains(sentence), "{}", refused.err());
    // Who gets over it needs no explanation, and neither does who asked for none.
    assert!(!run("touch /etc/sandbar-test; true").err().contains("probably"));
    assert!(!home.run(&[], "touch /etc/sandbar-test").err().contains("probably"));
    let json = finish(&mut home.sandbar(&["run", "--json", "--", "touch", "/etc/sandbar-test"])).out();
    let denied: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["type"] == "denied")
        .collect();
    assert_eq!(denied.len(), 1, "{json}");
    assert_eq!((&denied[0]["path"], &denied[0]["access"]), (&"/etc/sandbar-test".into(), &"read".into()));
}
