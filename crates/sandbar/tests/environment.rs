//! One surface for every place: the same code on this machine, within the program, and on another one, over a socket.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod within;

use std::process::{Child, Command, Stdio};

use sandbar_exec::environment::Environment;
use sandbar_exec::remote::dial::AtUrl;
use sandbar_exec::remote::{Remote, RemoteError, Settings};
use sandbar_exec::server;
use sandbar_proto::exec::{Base64, PathParams, ReadFileParams, RunIntent, StartParams, WirePath};
use sandbar_proto::{ExitStatus, ProcessEvent, Stream};
use sandbar_rpc::connect;
use sandbar_testkit::{Home, need};

use within::{path, within};

/// A server of its own process.
struct Apart(Child, String);

impl Apart {
    fn start(home: &Home) -> Self {
        Self::of(&mut home.sandbar(&["serve"]))
    }

    fn of(command: &mut Command) -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self(child, url.trim().to_owned())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The way to it.
fn at(apart: &Apart) -> AtUrl {
    let settings = connect::Settings::default();
    AtUrl { url: apart.1.parse().unwrap(), settings, token: None, deadline: None }
}

/// What holds wherever it is.
async fn holds(environment: &Environment, home: &Home) {
    let remote = environment.processes().unwrap();
    let cwd = path(home.workspace());
    let params = StartParams {
        process_id: "p".to_owned(),
        argv: ["sh", "-c", "read line; echo got $line; echo out > ../beside; exit 3"]
            .map(Into::into)
            .to_vec(),
        cwd: Some(WirePath(cwd.clone())),
        env: [("PATH".to_owned(), "/usr/bin:/bin".into())].into(),
        pipe_stdin: true,
        run: Some(RunIntent { profile: "workspace".to_owned(), ..RunIntent::default() }),
        ..StartParams::default()
    };
    let (mut process, started) = remote.start(params.clone()).await.unwrap();
    assert_eq!(started.unwrap().record.profile, "workspace");
    process.control().write_stdin(0, b"it\n").await.unwrap();
    let (mut out, mut status, mut last) = (Vec::new(), None, 0);
    while let Some(event) = process.next_event().await.unwrap() {
        match event {
            ProcessEvent::Output { seq, stream: Stream::Stdout, bytes, .. } => {
                assert!(seq.0 > last);
                (last, out) = (seq.0, [out, bytes].concat());
            }
            ProcessEvent::Exited(end) => status = Some(end.status),
            ProcessEvent::Output { .. } | ProcessEvent::Gap(_) | ProcessEvent::Stopped { .. } => {}
            ProcessEvent::Closed { seq } => assert!(seq.0 > last),
        }
    }
    assert_eq!((out.as_slice(), status), (&b"got it\n"[..], Some(ExitStatus::Exited { code: 3 })));
    assert!(!home.outside().join("beside").exists(), "its sandbox held");
    let missing = StartParams { process_id: "q".to_owned(), argv: vec!["/no/such".into()], ..params };
    let refused = remote.start(missing).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), Some("program_not_found"));

    let files = environment.files().unwrap();
    let file = WirePath(path(home.workspace().join("made")));
    let content = serde_json::to_value(Base64(b"content".to_vec())).unwrap();
    let write = serde_json::from_value(serde_json::json!({"path": file, "dataBase64": content})).unwrap();
    files.write(&write).await.unwrap();
    let read =
        ReadFileParams { path: file.clone(), follow_symlinks: None, sandbox: None, sandbox_policy: None };
    assert_eq!(files.read(&read).await.unwrap(), b"content");
    let none = ReadFileParams { path: WirePath(path(home.workspace().join("none"))), ..read };
    assert_eq!(files.read(&none).await.unwrap_err().kind(), Some("not_found"));
    let folder =
        PathParams { path: WirePath(cwd), follow_symlinks: None, sandbox: None, sandbox_policy: None };
    let entries = files.list(&folder).await.unwrap().entries;
    assert!(entries.iter().any(|entry| entry.file_name == "made"), "{entries:?}");
}

fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

#[tokio::test]
async fn this_machine_within_the_program() {
    need!(need::user_namespaces());
    let home = home();
    let server = within(&home, server::Settings::default());
    holds(&Environment::local("local", &server), &home).await;
    server.shut_down().await;
}

#[tokio::test]
async fn another_machine_over_a_socket() {
    need!(need::user_namespaces());
    let home = home();
    let apart = Apart::start(&home);
    let dial = at(&apart);
    let remote = Remote::new(dial, "test", Settings::default());
    holds(&Environment::elsewhere("box", remote), &home).await;
}

#[tokio::test]
async fn a_server_that_is_not_ours_has_the_dialect_and_says_so_of_the_rest() {
    let codex = need!(need::codex(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))));
    let home = home();
    let codex_home = home.user_home().join("codex");
    std::fs::create_dir(&codex_home).unwrap();
    let apart = Apart::of(home.command(codex).arg("exec-server").env("CODEX_HOME", codex_home));
    let dial = at(&apart);
    let remote = Remote::new(dial, "test", Settings::default());
    assert_eq!(remote.records().await.unwrap_err(), RemoteError::NotOurs);
    let params = StartParams {
        process_id: "p".to_owned(),
        argv: ["/bin/sh", "-c", "seq 20000; echo err >&2; exit 3"].map(Into::into).to_vec(),
        cwd: Some(WirePath(path(home.workspace()))),
        env: [("PATH".to_owned(), "/usr/bin:/bin".into())].into(),
        ..StartParams::default()
    };
    let run = StartParams { run: Some(RunIntent::default()), ..params.clone() };
    assert_eq!(remote.start(run).await.map(|_| ()).unwrap_err(), RemoteError::NotOurs);
    let (mut process, started) = remote.start(params).await.unwrap();
    assert!(started.is_none());
    let (mut out, mut err, mut seqs, mut status) = (Vec::new(), Vec::new(), Vec::new(), None);
    while let Some(event) = process.next_event().await.unwrap() {
        match event {
            ProcessEvent::Output { seq, stream, bytes, .. } => {
                seqs.push(seq.0);
                if stream == Stream::Stdout { &mut out } else { &mut err }.extend(bytes);
            }
            ProcessEvent::Exited(end) => {
                seqs.extend(end.seq().map(|seq| seq.0));
                status = Some(end.status);
            }
            ProcessEvent::Closed { seq } => seqs.push(seq.0),
            ProcessEvent::Gap(gap) => panic!("{gap:?}"),
            ProcessEvent::Stopped { .. } => {}
        }
    }
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(out == expected.as_bytes() && err == b"err\n");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(status, Some(ExitStatus::Exited { code: 3 }));
    let files = environment_files(remote);
    let made = WirePath(path(home.workspace().join("made")));
    std::fs::write(made.0.as_path(), "x").unwrap();
    let read = ReadFileParams { path: made, follow_symlinks: None, sandbox: None, sandbox_policy: None };
    assert_eq!(files.files().unwrap().read(&read).await.unwrap(), b"x");
}

fn environment_files(remote: Remote) -> Environment {
    Environment::elsewhere("codex", remote).without_processes()
}
