//! `sandbar run` on a terminal: what the command gets, and what becomes of ours.
//!
//! Real programs, as a person would use them, are in `interactive.rs`.

use std::fs;

use rustix::process::Signal;
use rustix::termios::Termios;
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Home, Terminal, eventually, need, processes};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A script of the host's shell on a terminal, with the program under test in `$0`.
fn on_terminal(home: &Home, script: &str) -> Terminal {
    Terminal::start(&home.host_shell(script))
}

/// The settings that a person would notice.
fn told(settings: &Termios) -> String {
    format!("{:?} {:?} {:?}", settings.input_modes, settings.output_modes, settings.local_modes)
}

/// Runs `script`, which ends with `left` on a line of its own, and looks whether it left the terminal as it was.
fn comes_back(home: &Home, script: &str, meanwhile: impl FnOnce(&mut Terminal)) {
    // Begins when it is told to: it might have changed the terminal before that was looked at.
    let mut terminal = on_terminal(home, &format!("read go\n{script}\necho left; read rest"));
    let before = told(&terminal.settings());
    terminal.type_keys("\r");
    terminal.wait_until_raw();
    meanwhile(&mut terminal);
    terminal.expect("left");
    assert_eq!(told(&terminal.settings()), before);
}

// --- what the command gets ---

#[test]
fn a_command_on_a_terminal_gets_one_of_the_sandboxs_own() {
    let home = need!(sandbox());
    let inside = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && ls /dev/pts; exit 3";
    let mut terminal = on_terminal(&home, &format!("\"$0\" run -q -- sh -c '{inside}'; echo status $?"));
    terminal.expect("/dev/pts/0\r\n24 80\r\n");
    let listed = terminal.expect("status 3");
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "ptmx"]);
}

#[test]
fn without_a_sandbox_the_terminal_is_one_of_the_hosts() {
    let home = need!(sandbox());
    let script = r#""$0" run -q -p danger-full-access -- sh -c 'tty; exit 4'; echo status $?"#;
    let mut terminal = on_terminal(&home, script);
    terminal.expect("/dev/pts/");
    terminal.expect("status 4");
}

#[test]
fn the_command_leads_the_foreground_of_its_terminal_and_pid_1_its_session() {
    let home = need!(sandbox());
    // pid, process group, session, foreground group of the terminal (proc(5)).
    let inside = "set -- $(cut -d\\  -f1,5,6,8 /proc/self/stat); echo $(($2 == $4)) $3 $(($$ == $2))";
    let mut terminal = on_terminal(&home, &format!("\"$0\" run -q -- sh -c '{inside}'"));
    terminal.expect("1 1 1\r\n");
}

#[test]
fn keys_that_the_caller_set_have_their_meaning_inside() {
    let home = need!(sandbox());
    let script = r#"stty erase ^H intr ^K -ixon; "$0" run -q -- stty -a"#;
    let mut terminal = on_terminal(&home, script);
    let told = terminal.expect("-ixon");
    assert!(told.contains("erase = ^H") && told.contains("intr = ^K"), "{told}");
}

#[test]
fn a_new_size_of_our_terminal_is_one_of_the_commands() {
    let home = need!(sandbox());
    let inside = r#"trap "stty size" WINCH; echo ready; while :; do sleep 0.01; done"#;
    let mut terminal = on_terminal(&home, &format!("\"$0\" run -q -- sh -c '{inside}'"));
    terminal.expect("ready");
    terminal.resize(40, 100);
    terminal.expect("40 100");
}

#[test]
fn what_is_typed_is_echoed_by_the_commands_terminal_and_a_password_is_not() {
    let home = need!(sandbox());
    let inside = r#"read line; stty -echo; echo secret:; read word; stty echo; echo "<$line-$word>""#;
    let mut terminal = on_terminal(&home, &format!("\"$0\" run -q -- sh -c '{inside}'"));
    terminal.wait_until_raw();
    terminal.type_keys("visible\r");
    terminal.expect("visible\r\n");
    terminal.expect("secret:");
    terminal.type_keys("hunter2\r");
    let before = terminal.expect("<visible-hunter2>");
    assert!(!before.contains("hunter2"), "{before:?}");
}

#[test]
fn the_end_of_file_key_ends_the_input() {
    let home = need!(sandbox());
    let mut terminal = on_terminal(&home, r#""$0" run -q -- cat; echo status $?"#);
    terminal.wait_until_raw();
    terminal.type_keys("line\r\x04");
    terminal.expect("line\r\nline\r\n");
    terminal.expect("status 0");
}

#[test]
fn an_interrupt_is_a_key_like_any_other_however_often_it_is_pressed() {
    let home = need!(sandbox());
    let inside =
        r#"trap "echo interrupted" INT; echo ready; while ! test -e go; do sleep 0.01; done; exit 5"#;
    let mut terminal = on_terminal(&home, &format!("\"$0\" run -q -- sh -c '{inside}'; echo status $?"));
    terminal.expect("ready");
    for _ in 0..3 {
        terminal.type_keys("\x03");
        terminal.expect("interrupted");
    }
    home.write("go", "");
    terminal.expect("status 5");
}

#[test]
fn a_command_that_does_not_heed_it_is_ended_by_an_interrupt() {
    let home = need!(sandbox());
    // No shell: between two commands it may swallow the signal.
    let mut terminal = on_terminal(&home, r#""$0" run -q -- cat; echo status $?"#);
    terminal.type_keys("ready\r");
    terminal.expect("ready\r\nready");
    terminal.type_keys("\x03");
    terminal.expect("status 130");
}

#[test]
fn everything_that_a_flood_shows_comes_out_and_is_recorded_as_a_terminals() {
    let home = need!(sandbox());
    let mut terminal = on_terminal(&home, r#""$0" run -q -- seq 20000; echo end"#);
    let shown = terminal.expect("end");
    let expected: String = (1..=20000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(shown, expected);
    let listed = home.finish(&["ps", "--all", "--json"]).ok();
    let runs: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let events = home.finish(&["logs", "--json", runs[0]["id"].as_str().unwrap()]).ok();
    assert!(events.contains(r#""stream":"pty""#) && !events.contains(r#""stream":"stdout""#), "{events}");
    assert_eq!(runs[0]["terminal"], true);
}

#[test]
fn keys_cannot_be_put_into_a_terminal_by_the_command() {
    let home = need!(sandbox());
    let python = need!(need::program("python3"));
    home.write(
        "inject.py",
        "import fcntl\nfor request, data in ((0x5412, b'x'), (0x541c, bytes([2]))):\n    try:\n        \
         fcntl.ioctl(0, request, data)\n        print('injected')\n    except OSError as error:\n        \
         print('errno', error.errno)\n",
    );
    let mut terminal =
        on_terminal(&home, &format!("\"$0\" run -q -- {} inject.py; echo end", python.display()));
    assert_eq!(terminal.expect("end"), "errno 1\r\nerrno 1\r\n");
}

// --- when there is none ---

#[test]
fn a_stream_that_is_no_terminal_stays_what_it_is() {
    let home = need!(sandbox());
    let inside = "r=; for n in 0 1 2; do test -t $n && r=${r}y || r=${r}n; done; printf $r >&2";
    let table = [
        ("2>err; cat err", "yyn"),
        ("2>&1 | cat", "nnn"),
        ("</dev/null 2>&1", "nnn"),
        ("--json 2>&1 | grep -o '\"data\":\"[yn]*'", "\"data\":\"nnn"),
    ];
    for (how, expected) in table {
        let (options, how) = how.strip_prefix("--json").map_or(("", how), |how| ("--json", how));
        let script = format!("\"$0\" run -q {options} -- sh -c '{inside}' {how}; echo .");
        let mut terminal = on_terminal(&home, &script);
        let shown = terminal.expect(".");
        assert_eq!(shown.trim_end(), expected, "{how}");
    }
}

#[test]
fn in_the_background_a_command_gets_no_terminal_and_ours_is_left_alone() {
    let home = need!(sandbox());
    let script =
        "set -m; \"$0\" run -q -- sh -c 'test -t 1 || echo none; exit 6' & wait $!; echo status $?; read x";
    let mut terminal = on_terminal(&home, script);
    let before = told(&terminal.settings());
    terminal.expect("none");
    terminal.expect("status 6");
    assert_eq!(told(&terminal.settings()), before);
}

// --- how our terminal is left ---

#[test]
fn the_terminal_is_as_before_after_a_command_that_ended_or_was_ended() {
    let home = need!(sandbox());
    comes_back(&home, r#""$0" run -q -- sh -c 'read x'"#, |terminal| terminal.type_keys("\r"));
    comes_back(&home, r#""$0" run -q -- sh -c 'stty raw -echo; read x; kill -9 $$'"#, |terminal| {
        terminal.type_keys("\n");
    });
    comes_back(&home, r#""$0" run -q --timeout 300ms -- sleep 100"#, |_| {});
}

#[test]
fn the_terminal_is_as_before_when_we_are_asked_to_end() {
    let home = need!(sandbox());
    for signal in [Signal::TERM, Signal::HUP] {
        let script = r#"sh -c 'echo $$ > pid; exec "$0" run -q -- sleep 100' "$0""#;
        comes_back(&home, script, |_| {
            let pid = fs::read_to_string(home.workspace().join("pid")).unwrap();
            processes::Process::find(pid.trim().parse().unwrap()).unwrap().signal(signal);
        });
    }
}

#[test]
fn the_terminal_is_as_before_when_the_keeper_is_killed() {
    let home = need!(sandbox());
    comes_back(&home, r#""$0" run -q -- sleep 100; echo status $?"#, |terminal| {
        home.keeper().signal(Signal::KILL);
        terminal.expect("status 125");
    });
}

#[test]
fn what_a_killed_command_had_switched_on_is_switched_off_and_what_one_left_on_purpose_is_not() {
    let home = need!(sandbox());
    let inside = r"printf '\033[?1049h\033[?25l\033[?2004hshown'";
    let script = format!(
        "\"$0\" run -q -- sh -c \"{inside}; kill -9 \\$\\$\"; echo end; \"$0\" run -q -- sh -c \"{inside}\"; echo end"
    );
    let mut terminal = on_terminal(&home, &script);
    terminal.expect("shown");
    assert_eq!(terminal.expect("end"), "\x1b[?25h\x1b[?2004l\x1b[?1049l");
    terminal.expect("shown");
    assert_eq!(terminal.expect("end"), "");
}

#[test]
fn a_terminal_that_is_gone_takes_its_command_along() {
    let home = need!(sandbox());
    let marker = processes::unique_sleep();
    let mut terminal =
        on_terminal(&home, &format!("exec \"$0\" run -q -- sh -c 'echo ready; sleep {marker}'"));
    terminal.expect("ready");
    terminal.hang_up();
    eventually(DEADLINE, "the end of a command without its terminal", || {
        processes::with_argument(&marker).is_empty().then_some(())
    });
    assert!(fs::read_dir(home.workspace()).unwrap().next().is_none());
}
