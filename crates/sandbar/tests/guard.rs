//! What is protected stays protected when somebody outside replaces it while a command runs.
//!
//! Each command reads what it should try from its input, so that a test decides when. Between a replacement and the new
//! wall there is a moment, so a test asks until the answer is the one that then stays.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, RenameFlags};
use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Home, Running, eventually, finish, need};

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// A command in a sandbox that carries out a line at a time, and says how each ended.
struct Obedient(Running);

impl Obedient {
    fn start(home: &Home) -> Self {
        Self::start_at_home(home, &home.user_home())
    }

    /// For a user whose home directory this is.
    fn start_at_home(home: &Home, user_home: &Path) -> Self {
        let script = "echo ready; while read -r line; do eval \"$line\" >/dev/null 2>&1 && echo done || echo failed; done";
        let mut running =
            Running::start(home.shell(&[], script).env("HOME", user_home).stdin(Stdio::piped()));
        assert_eq!(running.line(), "ready");
        Self(running)
    }

    /// Whether a line of shell succeeds in there.
    fn can(&mut self, line: &str) -> bool {
        writeln!(self.0.child().stdin.as_mut().unwrap(), "{line}").unwrap();
        match self.0.line().as_str() {
            "done" => true,
            "failed" => false,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Waits until a line fails, and sees that it goes on failing.
    fn soon_cannot(&mut self, line: &str) {
        eventually(DEADLINE, &format!("that `{line}` fails"), || (!self.can(line)).then_some(()));
        for _ in 0..5 {
            assert!(!self.can(line), "{line}");
        }
    }

    fn end(mut self) {
        drop(self.0.child().stdin.take());
        let _ = self.0.finish().ok();
    }
}

fn repository(home: &Home) -> Need<()> {
    need::program("git")?;
    let script = "git init -q . && git config user.name t && git config user.email t@example.org";
    let mut command = home.command("sh");
    let _ = finish(command.args(["-c", script])).ok();
    Ok(())
}

#[test]
fn a_secret_that_is_replaced_as_a_whole_stays_hidden() {
    let home = need!(sandbox());
    let secret = home.write_home(".netrc", "machine example.org password old");
    let mut command = Obedient::start(&home);
    let read = "grep -q password ~/.netrc";
    assert!(!command.can(read));
    for round in 0..3 {
        let new = home.write_home("new", format!("machine example.org password new{round}"));
        fs::rename(&new, &secret).unwrap();
        command.soon_cannot(read);
    }
    command.end();
}

#[test]
fn a_directory_of_secrets_that_is_exchanged_stays_hidden() {
    let home = need!(sandbox());
    home.write_home(".ssh/id_ed25519", "a key");
    let mut command = Obedient::start(&home);
    let read = "cat ~/.ssh/id_ed25519";
    assert!(!command.can(read));
    let place = home.user_home().join(".ssh");
    fs::rename(&place, home.user_home().join(".ssh.old")).unwrap();
    home.write_home(".ssh/id_ed25519", "another key");
    command.soon_cannot(read);
    command.end();
}

#[test]
fn a_secret_below_a_directory_that_is_exchanged_stays_hidden() {
    let home = need!(sandbox());
    home.write_home(".config/gh/hosts.yml", "oauth_token: old");
    let mut command = Obedient::start(&home);
    let read = "cat ~/.config/gh/hosts.yml";
    assert!(!command.can(read));
    fs::rename(home.user_home().join(".config"), home.user_home().join(".config.old")).unwrap();
    home.write_home(".config/gh/hosts.yml", "oauth_token: new");
    command.soon_cannot(read);
    command.end();
}

#[test]
fn a_secret_that_is_written_after_its_name_was_made_anew_stays_hidden() {
    let home = need!(sandbox());
    // Its cover may be read, as empty.
    let settings = home.write_home(".gradle/gradle.properties", "password=old");
    let other = home.write_home(".netrc", "machine example.org password old");
    let mut command = Obedient::start(&home);
    let [read, read_other] =
        ["~/.gradle/gradle.properties", "~/.netrc"].map(|name| format!("grep -q password {name}"));
    assert!(!command.can(&read) && command.can("cat ~/.gradle/gradle.properties"));
    fs::remove_file(&settings).unwrap();
    fs::write(&settings, "").unwrap();
    // What happens to names is looked at in its order.
    fs::rename(home.write_home("new", "machine example.org password new"), &other).unwrap();
    command.soon_cannot(&read_other);
    fs::write(&settings, "password=new").unwrap();
    assert!(!command.can(&read));
    command.end();
}

#[test]
fn a_directory_that_runs_know_by_different_paths_is_guarded_for_each() {
    let home = need!(sandbox());
    let [first, second] = ["first", "second"].map(|name| home.outside().join(name));
    fs::create_dir(&first).unwrap();
    fs::write(first.join(".netrc"), "machine example.org password old").unwrap();
    let one = Obedient::start_at_home(&home, &first);
    fs::rename(&first, &second).unwrap();
    let mut other = Obedient::start_at_home(&home, &second);
    let read = "grep -q password ~/.netrc";
    assert!(!other.can(read));
    fs::write(second.join("new"), "machine example.org password new").unwrap();
    fs::rename(second.join("new"), second.join(".netrc")).unwrap();
    other.soon_cannot(read);
    other.end();
    one.end();
}

#[test]
fn a_file_that_is_replaced_all_the_time_ends_no_run() {
    let home = need!(sandbox());
    need!(repository(&home));
    let mut command = Obedient::start(&home);
    let config = home.workspace().join(".git/config");
    let content = fs::read(&config).unwrap();
    for _ in 0..5000 {
        let new = home.workspace().join(".git/config.new");
        fs::write(&new, &content).unwrap();
        fs::rename(&new, &config).unwrap();
    }
    command.soon_cannot("echo >> .git/config");
    command.end();
}

#[test]
fn gits_configuration_stays_read_only_when_git_itself_changes_it() {
    let home = need!(sandbox());
    need!(repository(&home));
    let mut command = Obedient::start(&home);
    let write = "echo >> .git/config";
    assert!(!command.can(write));
    let mut git = home.command("git");
    let _ = finish(git.args(["config", "user.email", "other@example.org"])).ok();
    command.soon_cannot(write);
    assert!(command.can("grep -q other@example.org .git/config"), "what is there now is seen");
    assert!(command.can("echo work > file && git add file && git commit -qm work"), "and commits go on");
    command.end();
}

#[test]
fn a_git_directory_that_is_exchanged_is_protected_like_the_one_before() {
    let home = need!(sandbox());
    need!(repository(&home));
    let mut command = Obedient::start(&home);
    let plant = "echo true > .git/hooks/pre-commit";
    assert!(!command.can(plant));
    let _ = finish(home.command("cp").args(["-r", ".git", "other"])).ok();
    let [git, other] = [".git", "other"].map(|name| home.workspace().join(name));
    rustix::fs::renameat_with(CWD, &git, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    command.soon_cannot(plant);
    command.soon_cannot("echo >> .git/config");
    command.soon_cannot("mv .git gone");
    command.end();
}

#[test]
fn a_run_ends_when_what_it_must_not_make_is_taken_away() {
    let home = need!(sandbox());
    need!(repository(&home));
    let mut command = Obedient::start(&home);
    // As long as it is open the command does not end by itself.
    let _input = command.0.child().stdin.take();
    fs::remove_file(home.workspace().join(".git/config")).unwrap();
    let finished = command.0.finish();
    assert_eq!(finished.code, Some(137));
    let path = home.workspace().join(".git/config");
    let said = finished.err();
    assert!(said.contains(&format!("{} could not be protected", path.display())), "{said}");
}

#[test]
fn what_a_new_keeper_takes_over_is_guarded_by_it() {
    let home = need!(sandbox());
    let secret = home.write_home(".netrc", "machine example.org password old");
    let mut command = Obedient::start(&home);
    let _ = home.finish(&["keeper", "upgrade"]).ok();
    let new = home.write_home("new", "machine example.org password new");
    fs::rename(&new, &secret).unwrap();
    command.soon_cannot("grep -q password ~/.netrc");
    command.end();
}

#[test]
fn what_was_replaced_before_anybody_watched_is_hidden_all_the_same() {
    let home = need!(sandbox());
    let secret = home.write_home(".netrc", "machine example.org password old");
    // The keeper stands still while the sandbox is built and the file exchanged.
    let first = home.run(&[], "true");
    assert_eq!(first.code, Some(0));
    for round in 0..20 {
        let new = home.write_home("new", format!("machine example.org password new{round}"));
        let mut command = home.shell(&[], "while grep -q password ~/.netrc; do :; done; echo hidden");
        let running = Running::start(&mut command);
        fs::rename(&new, &secret).unwrap();
        assert_eq!(running.finish().ok(), "hidden\n");
    }
}
