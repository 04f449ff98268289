//! `sandbar attach`: several look at one run, type into it and leave it.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Home, Running, Terminal, eventually, finish, need};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// Starts a detached run from a terminal, and returns its id.
fn detached_on_a_terminal(home: &Home, inside: &str) -> String {
    let script = format!("\"$0\" run -q --detach -- sh -c '{inside}'; echo status $?");
    let mut terminal = Terminal::start(&home.host_shell(&script));
    let told = terminal.expect("status 0");
    told.trim().to_owned()
}

/// Starts a detached run without a terminal, and returns its id.
fn detached(home: &Home, inside: &str) -> String {
    home.run(&["--detach"], inside).ok().trim().to_owned()
}

fn attach(home: &Home, options: &str, id: &str) -> Terminal {
    Terminal::start(&home.host_shell(&format!("\"$0\" attach {options} {id}; echo status $?; read rest")))
}

#[test]
fn everybody_sees_the_output_and_everybody_types() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "while read line; do echo \"<$line>\"; done; exit 5");
    let (mut one, mut other) = (attach(&home, "", &id), attach(&home, "", &id));
    one.wait_until_raw();
    other.wait_until_raw();
    one.type_keys("from one\r");
    one.expect("<from one>");
    other.expect("<from one>");
    other.type_keys("from the other\r");
    one.expect("<from the other>");
    let mut logs = Running::start(&mut home.sandbar(&["logs", "-f", "--raw", &id]));
    assert_eq!(logs.line(), "from one\r");
    other.type_keys("\x04");
    one.expect("status 5");
    other.expect("status 5");
    assert!(logs.finish().out().ends_with("<from the other>\r\n"));
}

#[test]
fn the_last_one_who_comes_or_changes_decides_about_the_size() {
    let home = need!(sandbox());
    let inside = "trap \"stty size\" WINCH; echo ready; while :; do sleep 0.01; done";
    let id = detached_on_a_terminal(&home, inside);
    let mut one = attach(&home, "", &id);
    one.expect("ready");
    one.resize(30, 90);
    one.expect("30 90");
    let mut other = attach(&home, "", &id);
    one.expect("24 80");
    other.expect("24 80");
    one.resize(31, 91);
    other.expect("31 91");
}

#[test]
fn the_keys_that_detach_are_a_matter_of_choice() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "cat; exit 6");
    let mut usual = attach(&home, "", &id);
    usual.wait_until_raw();
    usual.type_keys("a\x10");
    usual.type_keys("\x11");
    usual.expect("detached; `sandbar attach");
    usual.expect("status 0");
    let mut chosen = attach(&home, "--detach-keys ctrl-x,q", &id);
    chosen.wait_until_raw();
    chosen.type_keys("\x18q");
    chosen.expect("status 0");
    let mut none = attach(&home, "--detach-keys \"\"", &id);
    none.wait_until_raw();
    // What was typed before, and keys that mean nothing here; the second one the line discipline takes for itself.
    none.type_keys("\x10\x11\r");
    none.expect("^P\r\na\x10\r\n");
    none.type_keys("\x04");
    none.expect("status 6");
}

#[test]
fn a_viewer_that_is_ended_leaves_the_run_alone_and_its_terminal_as_it_was() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "printf \"\\033[?1049hshown\"; read line; exit 7");
    // Begins when it is told to: the viewer might have changed the terminal before it was looked at.
    let script =
        format!("read go; sh -c 'echo $$ > pid; exec \"$0\" attach {id}' \"$0\"; echo status $?; read rest");
    let mut terminal = Terminal::start(&home.host_shell(&script));
    let before = terminal.settings().local_modes;
    terminal.type_keys("\r");
    terminal.expect("shown");
    let pid = std::fs::read_to_string(home.workspace().join("pid")).unwrap();
    let viewer = sandbar_testkit::processes::Process::find(pid.trim().parse().unwrap()).unwrap();
    viewer.signal(Signal::TERM);
    let left = terminal.expect("status 143");
    assert!(left.contains("\x1b[?1049l"), "{left:?}");
    assert_eq!(terminal.settings().local_modes, before);
    let mut again = attach(&home, "", &id);
    again.expect("shown");
    again.type_keys("\r");
    again.expect("status 7");
}

#[test]
fn a_stopped_command_goes_on_when_somebody_attaches() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "kill -STOP $$; echo went on; read line");
    eventually(DEADLINE, "the stop", || {
        let state = home.finish(&["logs", &id]).ok();
        state.is_empty().then_some(())
    });
    attach(&home, "", &id).expect("went on");
}

#[test]
fn who_attaches_in_the_background_gets_keys_and_raw_mode_with_the_foreground() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "stty -echo; echo ready; read line; echo \"<$line>\"; read line");
    let script = format!("set -m; \"$0\" attach {id} & read go; fg; echo status $?; read rest");
    let mut terminal = Terminal::start(&home.host_shell(&script));
    terminal.expect("ready");
    let before = format!("{:?}", terminal.settings().local_modes);
    terminal.type_keys("go\r");
    terminal.wait_until_raw();
    terminal.type_keys("typed\r");
    terminal.expect("<typed>");
    terminal.type_keys("\x10\x11");
    terminal.expect("status 0");
    assert_eq!(format!("{:?}", terminal.settings().local_modes), before);
}

#[test]
fn a_run_without_a_terminal_shows_its_last_lines_and_goes_on() {
    let home = need!(sandbox());
    let id = detached(&home, "seq 100; until test -e go; do sleep 0.01; done; echo end; exit 8");
    let mut viewer = Running::start(&mut home.sandbar(&["attach", &id]));
    let shown: Vec<String> = (0..24).map(|_| viewer.line()).collect();
    assert_eq!(shown, (77..=100).map(|number| number.to_string()).collect::<Vec<_>>());
    home.write("go", "");
    let finished = viewer.finish();
    assert_eq!((finished.code, finished.out().as_str()), (Some(8), "end\n"), "{finished:?}");
}

#[test]
fn what_comes_from_a_pipe_is_typed_and_its_end_is_not_the_end() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "read one; read other; echo \"<$one $other>\"; exit 9");
    let mut first = Running::start(home.sandbar(&["attach", &id]).stdin(Stdio::piped()));
    first.child().stdin.as_mut().unwrap().write_all(b"from a pipe\n").unwrap();
    assert_eq!(first.line(), "from a pipe\r");
    drop(first.child().stdin.take());
    let mut second = Running::start(home.sandbar(&["attach", &id]).stdin(Stdio::piped()));
    second.child().stdin.as_mut().unwrap().write_all(b"and another\n").unwrap();
    let finished = second.finish();
    assert_eq!(finished.code, Some(9), "{finished:?}");
    assert!(finished.out().contains("<from a pipe and another>"), "{finished:?}");
    assert_eq!(first.finish().code, Some(9));
}

#[test]
fn a_viewer_whose_reader_left_leaves_as_well_and_the_run_goes_on() {
    let home = need!(sandbox());
    let id = detached(&home, "until test -e go; do echo tick; sleep 0.01; done; echo end");
    let shown = finish(&mut home.host_shell(&format!("\"$0\" attach -q {id} | head -n 1")));
    assert_eq!(shown.ok(), "tick\n");
    home.write("go", "");
    let logs = home.finish(&["logs", "-f", &id]);
    assert!(logs.ok().ends_with("end\n"));
}

#[test]
fn there_is_nothing_to_attach_to_when_a_run_has_ended() {
    let home = need!(sandbox());
    let id = detached(&home, "true");
    eventually(DEADLINE, "the end of the run", || {
        (home.finish(&["ps", "--json"]).ok() == "[]\n").then_some(())
    });
    let refused = home.finish(&["attach", &id]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err().contains("the run has ended") && refused.err().contains("sandbar logs"),
        "{refused:?}"
    );
    assert_eq!(home.finish(&["attach", "--detach-keys", "ctrl-1", &id]).code, Some(2));
}

#[test]
fn killing_a_detached_run_ends_it_for_everybody_who_looks() {
    let home = need!(sandbox());
    let id = detached_on_a_terminal(&home, "echo ready; sleep 1000");
    let mut viewer = attach(&home, "", &id);
    viewer.expect("ready");
    assert_eq!(home.finish(&["kill", "--grace", "100ms", &id]).code, Some(0));
    viewer.expect("status 143");
}
