//! Runs on another machine: `--on`, over every kind of link, and over links that break.
//!
//! The other machine is a Sandbar of its own, with its own directories, keeper and environment.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbar_testkit::need::Need;
use sandbar_testkit::{Finished, Home, Link, Running, Tmux, eventually, finish, need, patience};
use serde_json::{Value, json};

fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

/// A machine with an exec server, and one that uses it.
struct Machines {
    here: Home,
    there: Home,
    server: Child,
    url: String,
}

impl Machines {
    /// With a server over a unix socket.
    fn new() -> Need<Self> {
        Self::with(&["serve"])
    }

    fn with(arguments: &[&str]) -> Need<Self> {
        need::user_namespaces()?;
        let (here, there) = (home(), home());
        let (server, url) = serve(&there, arguments);
        Ok(Self { here, there, server, url })
    }

    /// Over TCP, through a link that can be cut.
    fn linked() -> Need<(Self, Link)> {
        let mut machines = Self::with(&["serve", "--listen", "ws://127.0.0.1:0", "--auth", "none"])?;
        let link = Link::to(machines.url.strip_prefix("ws://").unwrap().parse().unwrap());
        machines.url = format!("ws://{}", link.address());
        Ok((machines, link))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.here.sandbar(&words[..1]);
        command.args(["--on", &self.url]).args(&words[1..]);
        command
    }

    fn sandbar(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    fn shell(&self, script: &str) -> Finished {
        self.sandbar(&["run", "-q", "--", "sh", "-c", script])
    }

    /// The only run that is on record here.
    fn record(&self) -> String {
        let files = files_below(&self.here.sandbar_home().join("state/sessions"));
        assert_eq!(files.len(), 1, "{files:?}");
        fs::read_to_string(&files[0]).unwrap()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // Ended by the test itself, or here.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A server, and its address.
fn serve(there: &Home, arguments: &[&str]) -> (Child, String) {
    use std::io::{BufRead as _, BufReader};
    let mut command = there.sandbar(arguments);
    let mut server =
        command.env("THEIRS", "yes").env("MY_TOKEN", "secret").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the server does not listen");
    (server, line.trim().to_owned())
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

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
fn a_place_has_a_name_and_a_token() {
    let mut machines = need!(Machines::with(&["serve", "--listen", "ws://127.0.0.1:0"]));
    let token = machines.there.sandbar_home().join("state/exec-server.token");
    let here = |words: &[&str]| machines.here.finish(words);
    let url = machines.url.clone();
    let without = here(&["run", "--on", &url, "--", "true"]);
    assert!(without.code == Some(125) && without.err().contains("401"), "{without:?}");
    let added = here(&["env", "add", "box", &url, "--token-file", token.to_str().unwrap(), "--default"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(here(&["env", "add", "box", &url]).code, Some(1), "the name is taken");
    let listed: Value = serde_json::from_str(&here(&["env", "list", "--json"]).ok()).unwrap();
    assert_eq!(
        listed,
        json!([{"name": "local", "where": null, "used": false}, {"name": "box", "where": url, "used": true}])
    );
    let checked: Value = serde_json::from_str(&here(&["env", "check", "box", "--json"]).ok()).unwrap();
    assert_eq!((&checked["extensions"], &checked["info"]["platformOs"]), (&json!(true), &json!("linux")));
    let pwd = |on: &[&str]| here(&[&["run", "-q"], on, &["--", "pwd"]].concat()).ok();
    let there = format!("{}\n", machines.there.workspace().display());
    assert_eq!((pwd(&[]), pwd(&["--on", "box"])), (there.clone(), there));
    assert_eq!(pwd(&["--on", "local"]), format!("{}\n", machines.here.workspace().display()));
    assert_eq!(here(&["env", "remove", "box"]).code, Some(0));
    assert_eq!(pwd(&[]), format!("{}\n", machines.here.workspace().display()), "the default went with it");
    machines.server.kill().unwrap();
}

/// Writes `environments.toml`, with a mode.
fn places(here: &Home, text: &str, mode: u32) -> std::path::PathBuf {
    let config = here.sandbar_home().join("config");
    fs::create_dir_all(&config).unwrap();
    let file = config.join("environments.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn a_token_that_others_may_read_is_said_and_one_that_they_may_write_is_not_used() {
    let here = home();
    let nobody = format!("unix:{}/nobody.sock", here.outside().display());
    let plain = format!("[[environments]]\nid = \"box\"\nurl = {nobody:?}\n");
    let with_token = format!("{plain}auth_bearer_token = \"secret\"\n");
    let list = |text: &str, mode| {
        let file = places(&here, text, mode);
        (here.finish(&["env", "list"]), file.display().to_string())
    };
    for (text, mode) in [(&with_token, 0o600), (&plain, 0o644), (&plain, 0o666)] {
        let (finished, _) = list(text, mode);
        assert_eq!((finished.code, finished.err().as_str()), (Some(0), ""), "{mode:o}");
    }
    let (finished, file) = list(&with_token, 0o644);
    let said =
        format!("sandbar: others may read {file}, which holds a token; `chmod 600 {file}` keeps it yours.\n");
    assert_eq!((finished.code, finished.err()), (Some(0), said.clone()));
    let run = here.finish(&["run", "--on", "box", "--", "true"]);
    assert!(run.code == Some(125) && run.err().starts_with(&said), "{run:?}");
    assert!(!run.err().contains("secret"), "{run:?}");
    for mode in [0o620, 0o602] {
        let (finished, file) = list(&with_token, mode);
        let err = finished.err();
        assert!(finished.code == Some(1) && err.contains("others may write the file"), "{finished:?}");
        assert!(err.contains(&format!("`chmod 600 {file}`")), "{err}");
        let run = here.finish(&["run", "--on", "box", "--", "true"]);
        assert_eq!((run.code, run.err()), (Some(125), err));
    }
}

#[test]
fn a_program_on_the_way_has_the_time_that_its_place_gives_it() {
    let here = home();
    let text = "[[environments]]\nid = \"box\"\nprogram = \"sleep\"\nargs = [\"86400\"]\nconnect_timeout_sec = 0.2\n";
    places(&here, text, 0o600);
    let finished = here.finish(&["run", "--on", "box", "--", "true"]);
    assert!(finished.code == Some(125), "{finished:?}");
    assert!(finished.err().contains("the server has not greeted for 200ms"), "{finished:?}");
}

#[test]
fn commands_that_are_switched_off_do_not_run_here_instead() {
    let here = home();
    for variable in ["SANDBAR_EXEC_SERVER_URL", "CODEX_EXEC_SERVER_URL"] {
        let finished = finish(here.sandbar(&["run", "--", "touch", "made"]).env(variable, "none"));
        assert!(finished.code == Some(125) && finished.err().contains("switched off"), "{finished:?}");
    }
    let nobody = format!("unix:{}/nobody.sock", here.outside().display());
    let finished =
        finish(here.sandbar(&["run", "--", "touch", "made"]).env("SANDBAR_EXEC_SERVER_URL", nobody));
    assert!(finished.code == Some(125) && finished.err().contains("could not connect"), "{finished:?}");
    assert!(!here.workspace().join("made").exists());
}

/// A machine that is reached by a real ssh and a real sshd, which speak over pipes.
fn over_ssh() -> Need<(Home, Home)> {
    need::user_namespaces()?;
    need::that(need::is_root(), "only root can log in as itself on every host")?;
    let (ssh, sshd) = (need::program("ssh")?, need::program("sshd")?);
    let (here, there) = (home(), home());
    let folder = here.user_home();
    for key in ["host", "user"] {
        let file = folder.join(key);
        let made =
            finish(here.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file));
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    // Privilege separation (sshd(8)).
    let _ = fs::create_dir("/run/sshd");
    let of = |name: &str| folder.join(name).display().to_string();
    let server = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n",
        of("host"),
        of("user.pub")
    );
    fs::write(folder.join("sshd_config"), server).unwrap();
    let client = format!(
        "Host box\n  HostName localhost\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  ProxyCommand {} -i -f {} -E {}\n",
        of("user"),
        sshd.display(),
        of("sshd_config"),
        of("sshd.log")
    );
    fs::write(folder.join("ssh_config"), client).unwrap();
    let program = format!(
        "cd {}; SANDBAR_HOME={} {} serve --listen stdio",
        there.workspace().display(),
        there.sandbar_home().display(),
        there.program().display()
    );
    let config = here.sandbar_home().join("config");
    fs::create_dir_all(&config).unwrap();
    let text = format!(
        "[[environments]]\nid = \"box\"\nprogram = {:?}\nargs = [\"-F\", {:?}, \"-T\", \"box\", {program:?}]\n",
        ssh.display().to_string(),
        of("ssh_config")
    );
    fs::write(config.join("environments.toml"), text).unwrap();
    Ok((here, there))
}

#[test]
fn ssh_is_a_way_to_another_machine() {
    let (here, there) = need!(over_ssh());
    let on = |words: &[&str]| here.finish(&[&words[..1], &["--on", "box"], &words[1..]].concat());
    let finished = on(&["run", "-q", "--", "sh", "-c", "pwd; seq 100000; echo err >&2; exit 6"]);
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert_eq!((finished.code, finished.err().as_str()), (Some(6), "err\n"));
    assert!(finished.out() == format!("{}\n{numbers}", there.workspace().display()));
    let id = on(&["run", "-q", "-d", "--", "sh", "-c", "echo up; exec sleep 100"]).ok();
    eventually(patience(), "its output", || (on(&["logs", id.trim()]).ok() == "up\n").then_some(()));
    assert_eq!(on(&["kill", id.trim()]).ok(), id, "it outlived the connection it was started over");
    let checked = on(&["env", "check", "box"]);
    assert_eq!(checked.code, Some(2), "check takes the place as its argument");
    assert!(here.finish(&["env", "check", "box"]).ok().contains("sandbar"));
}

#[test]
fn a_program_on_the_way_may_ask_at_our_terminal_and_does_not_hear_our_interrupts() {
    let here = need!(need::user_namespaces().map(|()| (home(), home())));
    let (here, there) = here;
    let tmux = need!(Tmux::start(&here));
    let config = here.sandbar_home().join("config");
    fs::create_dir_all(&config).unwrap();
    let script = format!(
        "printf 'password: ' > /dev/tty; read secret < /dev/tty; SANDBAR_HOME={} exec {} serve --listen stdio",
        there.sandbar_home().display(),
        there.program().display()
    );
    let text = format!("[[environments]]\nid = \"box\"\nprogram = \"sh\"\nargs = [\"-c\", {script:?}]\n");
    fs::write(config.join("environments.toml"), text).unwrap();
    tmux.line("sandbar run -q --on box -- sh -c 'trap \"echo heard; exit 3\" INT; echo up; while :; do sleep 0.1; done' < /dev/null");
    tmux.expect("password:");
    tmux.line("open sesame");
    tmux.wait_for("the command", |screen| screen.lines().any(|line| line == "up"));
    tmux.keys(&["C-c"]);
    tmux.wait_for("its answer", |screen| screen.lines().any(|line| line.ends_with("heard")));
}

#[test]
fn a_break_with_much_unread_costs_neither_bytes_nor_speed() {
    let (machines, link) = need!(Machines::linked());
    let mut command = machines.command(&["run", "-q", "--no-record", "--", "seq", "8000000"]);
    let mut running = Running::start(&mut command);
    let first = running.line();
    // The server's side fills up while nobody takes anything: the process waits with as much as it may be ahead.
    running.signal(rustix::process::Signal::STOP);
    let listed = || -> Value { serde_json::from_str(&machines.sandbar(&["ps", "--json"]).ok()).unwrap() };
    assert_eq!(listed()[0]["status"]["how"], "running");
    assert!(link.cut() > 0);
    running.signal(rustix::process::Signal::CONT);
    let finished = running.finish();
    let expected: String = (1..=8_000_000).map(|number| format!("{number}\n")).collect();
    let all = first + "\n" + &finished.out();
    assert!(all == expected, "{} of {} bytes; {}", all.len(), expected.len(), finished.err());
}
