//! Names of other machines, and ways to them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sandbar_testkit::need::Need;
use sandbar_testkit::{Home, Tmux, eventually, finish, need, patience};
use serde_json::{Value, json};

use super::machines::{Machines, home};

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
fn an_address_has_the_time_that_its_place_gives_it_whatever_its_server_does_with_it() {
    let here = home();
    // It takes connections, and says nothing on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    places(
        &here,
        &format!("[[environments]]\nid = \"box\"\nurl = {url:?}\nconnect_timeout_sec = 0.2\n"),
        0o600,
    );
    let finished = here.finish(&["run", "--on", "box", "--", "true"]);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err().contains("did not answer within 200ms, before it greeted"), "{finished:?}");
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
