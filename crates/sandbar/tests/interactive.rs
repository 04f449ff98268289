//! Programs that people use at a terminal, run in a sandbox and driven through tmux.

use std::fs;

use sandbar_testkit::need::Need;
use sandbar_testkit::{Home, Tmux, need};

fn at_a_terminal() -> Need<(Home, Tmux)> {
    need::user_namespaces()?;
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let tmux = Tmux::start(&home)?;
    Ok((home, tmux))
}

/// The lines that show.
fn lines(screen: &str) -> Vec<&str> {
    screen.lines().collect()
}

#[test]
fn bash_has_job_control_and_survives_an_interrupt() {
    let (_home, tmux) = need!(at_a_terminal());
    tmux.line("sandbar run -q -- env PS1='inner$ ' bash --norc --noprofile");
    tmux.expect("inner$");
    // It says itself that it runs: a key that comes before would be the shell's. It forks nothing after that: a stop
    // that meets a shell within vfork(2) stops the child and leaves the shell waiting for it, not stopped.
    tmux.line(r#"sh -c 'trap "echo back" CONT; sleep 1000 & echo up; while :; do wait; done'"#);
    tmux.wait_for("the job", |screen| lines(screen).contains(&"up"));
    tmux.keys(&["C-z"]);
    tmux.expect("Stopped");
    tmux.line("jobs; fg");
    tmux.wait_for("the job in the foreground", |screen| lines(screen).contains(&"back"));
    tmux.keys(&["C-c"]);
    tmux.wait_for("the prompt after a job", |screen| lines(screen).last() == Some(&"inner$"));
    tmux.text("half a line");
    tmux.keys(&["C-c"]);
    tmux.wait_for("the prompt after a line that was given up", |screen| {
        lines(screen).last() == Some(&"inner$") && screen.contains("half a line^C")
    });
    tmux.line("exit 9");
    tmux.expect_prompt();
    tmux.line("echo status $?");
    tmux.expect("status 9");
}

#[test]
fn a_command_that_is_stopped_gives_the_prompt_back_and_goes_on_in_the_foreground() {
    let (_home, tmux) = need!(at_a_terminal());
    tmux.line("sandbar run -q -- sh -c 'echo ready; exec cat'");
    tmux.wait_for("the command", |screen| lines(screen).contains(&"ready"));
    tmux.line("one");
    tmux.wait_for("the answer", |screen| screen.matches("\none").count() == 2);
    tmux.keys(&["C-z"]);
    tmux.expect("Stopped");
    tmux.line("clear; jobs; echo mine | tr a-z A-Z");
    tmux.expect("MINE");
    tmux.line("clear; fg");
    tmux.line("two");
    tmux.wait_for("the answer after fg", |screen| screen.matches("\ntwo").count() == 2);
    tmux.keys(&["C-d"]);
    tmux.expect_prompt();
    tmux.line("echo status $?");
    tmux.expect("status 0");
}

#[test]
fn a_command_goes_on_in_the_background_when_it_is_told_to() {
    let (home, tmux) = need!(at_a_terminal());
    // Forks nothing, see above.
    let inside = "echo begun; until test -e go; do :; done; echo done";
    tmux.line(&format!("sandbar run -q -- sh -c '{inside}'"));
    tmux.wait_for("the beginning", |screen| lines(screen).contains(&"begun"));
    tmux.keys(&["C-z"]);
    tmux.expect("Stopped");
    tmux.line("clear; bg");
    home.write("go", "");
    tmux.wait_for("the end", |screen| lines(screen).iter().any(|line| line.ends_with("done")));
    // The shell tells before its next prompt, if it knows by then.
    tmux.line("while test -n \"$(jobs -r)\"; do sleep 0.01; done");
    tmux.expect("Done");
}

#[test]
fn a_window_that_changes_its_size_while_a_command_is_stopped_has_it_when_that_goes_on() {
    let (_home, tmux) = need!(at_a_terminal());
    tmux.line("sandbar run -q -- sh -c 'echo ready; read line; stty size'");
    tmux.wait_for("the command", |screen| lines(screen).contains(&"ready"));
    tmux.keys(&["C-z"]);
    tmux.expect("Stopped");
    tmux.resize(30, 100);
    tmux.line("clear; fg");
    tmux.keys(&["Enter"]);
    tmux.expect("30 100");
}

#[test]
fn vim_edits_and_saves_a_file() {
    let (home, tmux) = need!(at_a_terminal());
    let vim = need!(need::program("vim").or_else(|_| need::program("vim.tiny")));
    home.write("file", "old\n");
    tmux.line(&format!("sandbar run -q -- {} -u NONE file", vim.display()));
    tmux.wait_for("the file", |screen| screen.starts_with("old\n~"));
    tmux.text("ggdGinew line");
    tmux.keys(&["Escape"]);
    tmux.line(":wq");
    tmux.expect_prompt();
    assert_eq!(fs::read_to_string(home.workspace().join("file")).unwrap(), "new line\n");
}

#[test]
fn less_scrolls_and_leaves_the_screen_as_it_was() {
    let (home, tmux) = need!(at_a_terminal());
    need!(need::program("less"));
    let text: String = (1..=200).map(|number| format!("line {number}\n")).collect();
    home.write("text", text);
    tmux.line("echo before");
    tmux.line("sandbar run -q -- less text");
    tmux.wait_for("the first page", |screen| screen.starts_with("line 1\n") && screen.contains("line 23"));
    tmux.text(" ");
    tmux.wait_for("the second page", |screen| screen.starts_with("line 24\n"));
    tmux.text("G");
    tmux.expect("line 200");
    tmux.text("q");
    let screen = tmux.expect_prompt();
    assert!(screen.contains("before") && !screen.contains("line 200"), "{screen}");
}

#[test]
fn top_refreshes_and_quits() {
    let (_home, tmux) = need!(at_a_terminal());
    need!(need::program("top"));
    tmux.line("sandbar run -q -- top -d 0.2");
    tmux.wait_for("the head of the table", |screen| screen.contains("PID") && screen.contains("top -"));
    tmux.text("q");
    tmux.expect_prompt();
}

#[test]
fn the_python_prompt_edits_its_line() {
    let (_home, tmux) = need!(at_a_terminal());
    let python = need!(need::program("python3"));
    tmux.line(&format!("sandbar run -q -- {} -q", python.display()));
    tmux.expect(">>>");
    tmux.text("print(6*8)");
    tmux.keys(&["Left", "BSpace"]);
    tmux.text("7");
    tmux.keys(&["Enter"]);
    tmux.wait_for("the answer", |screen| lines(screen).contains(&"42"));
    tmux.keys(&["C-c"]);
    tmux.expect("KeyboardInterrupt");
    tmux.keys(&["C-d"]);
    tmux.expect_prompt();
}

#[test]
fn a_shell_that_was_left_is_as_it_was_for_who_comes_back() {
    let (home, tmux) = need!(at_a_terminal());
    tmux.line("sandbar run -q --detach -- env PS1='inner$ ' bash --norc --noprofile");
    tmux.expect_prompt();
    let listed = home.finish(&["ps"]).ok();
    let id = listed.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap();
    assert!(listed.contains("detached") && listed.contains("pty"), "{listed}");
    tmux.line(&format!("clear; sandbar attach {id}"));
    tmux.wait_for("the inner prompt", |screen| screen == "inner$");
    tmux.line("echo first; stty size");
    tmux.expect("24 80");
    tmux.keys(&["C-p", "C-q"]);
    tmux.expect("detached");
    tmux.resize(30, 90);
    tmux.line(&format!("clear; sandbar attach {id}"));
    let screen = tmux.wait_for("the screen as it was", |screen| screen.starts_with("inner$ echo first"));
    assert_eq!(lines(&screen), ["inner$ echo first; stty size", "first", "24 80", "inner$"]);
    tmux.line("stty size; exit 7");
    tmux.expect_prompt();
    tmux.line("echo status $?");
    tmux.expect("status 7");
    tmux.expect("30 90");
}

#[test]
fn an_editor_that_was_left_shows_its_screen_to_who_comes_back_and_leaves_nothing_behind() {
    let (home, tmux) = need!(at_a_terminal());
    let vim = need!(need::program("vim").or_else(|_| need::program("vim.tiny")));
    home.write("file", "content of the file\n");
    tmux.line(&format!("sandbar run --detach-keys ctrl-a,d -- {} -u NONE file", vim.display()));
    tmux.expect("content of the file");
    tmux.keys(&["C-a", "d"]);
    let screen = tmux.expect("detached");
    assert!(!screen.contains("content of the file"), "{screen}");
    let listed = home.finish(&["ps"]).ok();
    let id = listed.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap();
    tmux.line(&format!("clear; sandbar attach {id}"));
    tmux.wait_for("the editor", |screen| screen.starts_with("content of the file\n~"));
    tmux.line(":q");
    tmux.expect_prompt();
}
