//! Profiles that a person wrote, and policies in other programs' words: what `sandbar policy` says of them and what a command
//! in them meets.
//!
//! A command that waits for something to be hidden asks until it is: between a file's beginning and its cover there is a moment.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Home, Running, eventually, need};

fn home() -> Need<Home> {
    need::user_namespaces()?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

fn configure(home: &Home, text: &str) {
    let config = home.sandbar_home().join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), text).unwrap();
}

const PATTERNS: &str = r#"
[permissions.quiet]
extends = "workspace"

[permissions.quiet.filesystem.":workspace_roots"]
"**/*.env" = "none"
"docs" = "read"
"notes/secret" = "none"
"#;

#[test]
fn what_a_line_decides_is_said_with_file_and_number() {
    let home = need!(home());
    configure(&home, PATTERNS);
    home.write("a/prod.env", "secret\n");
    let said = home.finish(&["policy", "explain", "-p", "quiet", "a/prod.env", "later.env", "docs/x"]).ok();
    let file = home.sandbar_home().join("config/config.toml");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("none") && lines[0].contains(&format!("{}:6", file.display())), "{said}");
    assert!(lines[1].contains("none") && lines[1].contains("/**/*.env"), "{said}");
    assert!(lines[2].contains("read") && lines[2].contains(":7"), "{said}");
    let shown = home.finish(&["policy", "show", "-p", "quiet", "--json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["profile"], "quiet");
    let has_pattern =
        |line: &serde_json::Value| line["pattern"].as_str().is_some_and(|it| it.ends_with("*.env"));
    assert!(shown["entries"].as_array().unwrap().iter().any(has_pattern), "{shown}");
}

#[test]
fn what_a_pattern_covers_is_hidden_now_and_whenever_somebody_makes_it() {
    let home = need!(home());
    configure(&home, PATTERNS);
    home.write("a/prod.env", "secret\n");
    home.write("plain", "seen\n");
    let script = "echo ready; while read -r path; do cat \"$path\" 2>/dev/null || echo hidden; done";
    let mut command = home.shell(&["-p", "quiet"], script);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "ready");
    let mut ask = |path: &str| {
        writeln!(running.child().stdin.as_mut().unwrap(), "{path}").unwrap();
        running.line()
    };
    assert_eq!(ask("a/prod.env"), "hidden");
    assert_eq!(ask("plain"), "seen");
    // Each way for a file to come to be: made, moved, moved with its directory, in a directory made for it, made again.
    home.write("later.env", "secret\n");
    fs::write(home.outside().join("x"), "secret\n").unwrap();
    fs::rename(home.outside().join("x"), home.workspace().join("a/moved.env")).unwrap();
    fs::create_dir_all(home.outside().join("tree/deep")).unwrap();
    fs::write(home.outside().join("tree/deep/t.env"), "secret\n").unwrap();
    fs::rename(home.outside().join("tree"), home.workspace().join("tree")).unwrap();
    home.write("new/deeper/still/n.env", "secret\n");
    fs::remove_file(home.workspace().join("a/prod.env")).unwrap();
    home.write("a/prod.env", "again\n");
    home.write("notes/other", "seen\n");
    home.write("notes/secret", "secret\n");
    for path in ["later.env", "a/moved.env", "tree/deep/t.env", "new/deeper/still/n.env", "a/prod.env"] {
        eventually(DEADLINE, path, || (ask(path) == "hidden").then_some(()));
        assert_eq!(ask(path), "hidden", "{path}");
    }
    assert_eq!(ask("plain"), "seen");
    drop(running.child().stdin.take());
    let _ = running.finish().ok();
    assert_eq!(fs::read_to_string(home.workspace().join("later.env")).unwrap(), "secret\n");
}

#[test]
fn a_single_name_that_is_missing_is_hidden_when_it_comes() {
    let home = need!(home());
    configure(
        &home,
        "[permissions.one]\nextends = 'workspace'\n[permissions.one.filesystem.':cwd']\n'.env' = 'none'\n",
    );
    let script = "while ! [ -e .env ]; do :; done; while cat .env 2>/dev/null; do :; done; echo hidden";
    let mut command = home.shell(&["-p", "one"], script);
    let running = Running::start(&mut command);
    eventually(DEADLINE, "the run", || {
        home.finish(&["ps", "--json"]).ok().contains("\"running\"").then_some(())
    });
    assert!(!home.workspace().join(".env").exists(), "nothing is made for it");
    home.write(".env", "");
    let _ = running.finish().ok();
}

#[test]
fn where_nothing_is_readable_by_itself_only_what_is_named_is_there() {
    let home = need!(home());
    configure(
        &home,
        "[permissions.tight.filesystem]\n':minimal' = 'read'\n':cwd' = 'write'\n':cwd/x' = 'read'\n",
    );
    let told = home.finish(&["run", "-p", "tight", "--", "true"]);
    // A place with a colon that nobody knows is a newer program's; the rest of the profile holds.
    assert!(told.err().contains("`:cwd/x` is not known"), "{}", told.err());
    let outside = home.outside().join("other");
    fs::write(&outside, "seen\n").unwrap();
    let script = format!(
        "cat {} 2>/dev/null && exit 1; ls {} 2>/dev/null | grep other && exit 2; echo made > file; [ -e /boot ] && exit 3; \
         cat /etc/passwd > /dev/null; echo x > /tmp/t; ls -d /proc/self /dev/null",
        outside.display(),
        home.outside().display(),
    );
    let said = home.run(&["-p", "tight"], &script).ok();
    assert_eq!(said, "/dev/null\n/proc/self\n");
    assert_eq!(fs::read_to_string(home.workspace().join("file")).unwrap(), "made\n");
}

#[test]
fn mistakes_are_said_with_their_line_and_nothing_runs() {
    let home = need!(home());
    let refused = |text: &str| {
        configure(&home, text);
        let said = home.run(&["-p", "mine"], "true");
        assert_eq!(said.code, Some(125));
        said.err()
    };
    assert!(
        refused("[permissions.mine]\nfiles = 1\n").contains("config.toml:2: nothing is called `files` here")
    );
    assert!(refused("[permissions.other]\n").contains("no profile is named \"mine\""));
    assert!(
        refused("[permissions.mine.filesystem]\n'x' = 'read'\n")
            .contains("config.toml:2: \"x\" is no absolute")
    );
    let broad = refused("[permissions.mine.filesystem]\n':root' = 'read'\n'/**/*.pem' = 'none'\n");
    assert!(broad.contains("the pattern /**/*.pem is refused"), "{broad}");
    configure(&home, "[permissions.mine]\nextends = 'workspace'\n");
    let file = home.sandbar_home().join("config/config.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let writable = home.run(&["-p", "mine"], "true");
    assert!(writable.code == Some(125) && writable.err().contains("may be written by others"));
}

#[test]
fn every_shape_of_permissions_is_understood() {
    let home = need!(home());
    home.write("a.env", "secret\n");
    let outside = home.outside().join("out");
    let shapes = [
        (r#"{"type":"read-only"}"#, "ro"),
        (r#"{"type":"workspace-write"}"#, "rw"),
        (
            r#"{"file_system":{"kind":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"}]},"network":"restricted"}"#,
            "ro",
        ),
        (
            r#"{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},{"path":{"type":"special","value":{"kind":"project_roots"}},"access":"write"},{"path":{"type":"special","value":{"kind":"tomorrow"}},"access":"write"}]},"network":"restricted"}"#,
            "rw",
        ),
        (r#"{"type":"disabled"}"#, "all"),
    ];
    for (shape, expected) in shapes {
        let script = format!(
            "if echo > {} 2>/dev/null; then echo all; elif echo > made 2>/dev/null; then echo rw; else echo ro; fi",
            outside.display()
        );
        assert_eq!(home.run(&["--permissions", shape], &script).ok().trim(), expected, "{shape}");
    }
    let file = home.write("permissions.json", r#"{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},{"path":{"type":"glob_pattern","pattern":"**/*.env"},"access":"deny"}]},"network":"restricted"}"#);
    let hidden = home.run(&["--permissions", file.to_str().unwrap()], "cat a.env");
    assert!(hidden.code != Some(0) && !hidden.out().contains("secret"));
    let wrong = home.run(&["--permissions", "{\"type\":\"moon\"}"], "true");
    assert!(wrong.code == Some(125) && wrong.err().contains("moon"), "{}", wrong.err());
}

#[test]
fn the_profile_external_makes_no_sandbox_and_says_so() {
    let home = need!(home());
    let script = "echo \"${SANDBAR_SANDBOX-none}\"; echo > ../beside";
    let said = home.finish(&["run", "-p", "external", "--", "sh", "-c", script]);
    assert!(said.err().contains("relies on the one around it"), "{}", said.err());
    assert_eq!(said.ok(), "none\n");
}

#[test]
fn within_a_sandbox_sandbar_relies_on_it_and_keeps_everything_to_itself() {
    let home = need!(home());
    let program = home.program().display().to_string();
    // It lies where the run sees nothing of the host unless that is named.
    let options = ["--allow-read", program.as_str()];
    let script = format!(
        "{program} run -- sh -c 'echo within; exit 7'; echo $?; {program} ps --all --json | head -c 1"
    );
    let said = home.run(&options, &script);
    assert!(said.err().contains("relies on the one around it"), "{}", said.err());
    assert_eq!(said.out(), "within\n7\n[");
    // The environment alone makes no sandbox of nothing.
    let mut command = home.shell(&[], "echo > ../outside");
    let outside = sandbar_testkit::finish(command.env("SANDBAR_SANDBOX", "linux"));
    assert!(outside.code != Some(0) && !outside.err().contains("relies on"), "{}", outside.err());
    // Who asks for a sandbox within one gets it, or nothing runs.
    let refused = home.run(&options, &format!("{program} run -p workspace -- true"));
    assert!(refused.code == Some(125), "{}", refused.err());
}

#[test]
fn settings_that_a_link_leads_to_are_out_of_reach() {
    let home = need!(home());
    let settings = home.write("mine.toml", PATTERNS);
    let config = home.sandbar_home().join("config");
    fs::create_dir_all(&config).unwrap();
    std::os::unix::fs::symlink(&settings, config.join("config.toml")).unwrap();
    for options in [&[][..], &["-p", "quiet"]] {
        let said = home.run(options, "cat mine.toml || echo x >> mine.toml || echo closed");
        assert_eq!(said.out(), "closed\n", "{options:?}");
    }
    assert_eq!(fs::read_to_string(&settings).unwrap(), PATTERNS);
}
