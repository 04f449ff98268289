//! Round trips over what carries messages in earnest: TCP, unix sockets, standard streams of a program, threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;

use sandbar_proto::rpc::code;
use sandbar_rpc::auth::{Auth, Principal};
use sandbar_rpc::connect::{self, ConnectUrl, Program, connect, spawn};
use sandbar_rpc::listen::{ListenError, ListenUrl, Listener, Settings};
use sandbar_rpc::{CloseReason, Frame, Limits, Side, blocking_lines};
use serde_json::json;
use support::{Peer, run};

async fn listen(url: &str, auth: Auth) -> (Listener, ConnectUrl) {
    let listener = Listener::bind(&url.parse().unwrap(), Settings::new("test", auth)).await.unwrap();
    let url = listener.url().to_string().parse().unwrap();
    (listener, url)
}

/// Two peers joined by a real socket.
async fn joined(url: &str, limits: Limits) -> (Peer, Peer) {
    let (mut listener, url) = listen(url, Auth::None).await;
    let settings = connect::Settings::default();
    let (incoming, transport) = tokio::join!(listener.accept(), connect(&url, &settings));
    (run(transport.unwrap(), Limits::default()), run(incoming.transport, limits))
}

async fn converse(client: &Peer, server: &Peer) {
    let sent = json!({"text": "x".repeat(300_000), "none": null});
    let echoed = client.sender.request("echo", &sent).await.unwrap();
    assert_eq!(echoed.get(), sent.to_string(), "up and down, in several frames' worth of buffers");
    assert_eq!(server.sender.request("echo", &[1]).await.unwrap().get(), "[1]");
    client.sender.notify("note", &"kept").unwrap();
    if client.sender.has_binary() {
        for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
            let frame = [vec![1], vec![0xa5; size]].concat();
            client.sender.data(Frame::Binary(frame)).await.unwrap();
        }
    }
    let echoed = client.sender.data_request("echo", &"behind the data").await.unwrap();
    assert_eq!(echoed.get(), r#""behind the data""#);
    assert_eq!(*server.service.notes.lock().unwrap(), [r#""kept""#]);
    if client.sender.has_binary() {
        let sizes: Vec<_> = server.service.binary.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 2, 126, 127, 65_536, 65_537, 1_000_001]);
        assert!(
            server.service.binary.lock().unwrap().iter().all(|f| f[1..].iter().all(|byte| *byte == 0xa5))
        );
    }
}

/// The client ends; the server hears of an end in order.
async fn part(client: Peer, server: Peer) {
    client.sender.close(CloseReason::local("done"));
    assert_eq!(client.end.await.unwrap(), CloseReason::local("done"));
    assert_eq!(server.end.await.unwrap(), CloseReason::Peer);
}

#[tokio::test]
async fn a_websocket_over_tcp_carries_all_there_is() {
    let (client, server) = joined("ws://127.0.0.1:0", Limits::default()).await;
    converse(&client, &server).await;
    part(client, server).await;
}

#[tokio::test]
async fn a_websocket_over_a_unix_socket_carries_all_there_is() {
    let home = tempfile::tempdir().unwrap();
    // Longer than an address of a unix socket may be.
    let folder = home.path().join("long".repeat(40));
    std::fs::create_dir(&folder).unwrap();
    let (client, server) = joined(&format!("unix:{}/s", folder.display()), Limits::default()).await;
    converse(&client, &server).await;
    part(client, server).await;
}

#[tokio::test]
async fn the_last_words_arrive_although_the_other_side_was_speaking() {
    let (client, server) = joined("ws://127.0.0.1:0", Limits::default()).await;
    for _ in 0..100 {
        client.sender.notify("note", &"x".repeat(10_000)).unwrap();
    }
    server.sender.notify("note", &"last words").unwrap();
    server.sender.close(CloseReason::local("stopping"));
    assert_eq!(server.end.await.unwrap(), CloseReason::local("stopping"));
    assert_eq!(client.end.await.unwrap(), CloseReason::Peer);
    assert_eq!(*client.service.notes.lock().unwrap(), [r#""last words""#]);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_answered_and_skipped() {
    let limits = Limits { max_inbound_frame: 100_000, ..Limits::default() };
    let (client, _server) = joined("ws://127.0.0.1:0", limits).await;
    let large = "x".repeat(5_000_000);
    let error = client.sender.data_request("echo", &large).await.unwrap_err();
    let sandbar_rpc::RequestError::Refused(error) = error else { panic!("{error}") };
    assert_eq!((error.code, error.kind()), (code::FRAME_TOO_LARGE, Some("frame_too_large")));
    assert_eq!(error.message, "the message is larger than 100000 bytes, which is all that is read");
    assert_eq!(client.sender.request("echo", &1).await.unwrap().get(), "1", "and the connection goes on");
}

#[tokio::test]
async fn files_that_block_are_spoken_over_by_threads() {
    let (mut near_in, far_out) = std::io::pipe().unwrap();
    let (far_in, mut near_out) = std::io::pipe().unwrap();
    let server = run(blocking_lines(far_in, far_out, Side::Server).unwrap(), Limits::default());
    // The last line has no line break, and another has them within.
    near_out
        .write_all(b"{\"id\":1,\"method\":\"echo\",\"params\":[1,2]}\r\n\n{\"id\":2,\"method\":\"echo\"}")
        .unwrap();
    drop(near_out);
    assert_eq!(server.end.await.unwrap(), CloseReason::Peer);
    let mut answers = String::new();
    near_in.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "{\"id\":1,\"result\":[1,2]}\n{\"id\":2,\"result\":null}\n");
}

#[tokio::test]
async fn params_with_line_breaks_stay_on_one_line() {
    let (mut near_in, far_out) = std::io::pipe().unwrap();
    let (far_in, near_out) = std::io::pipe().unwrap();
    let peer = run(blocking_lines(far_in, far_out, Side::Server).unwrap(), Limits::default());
    let pretty: Box<serde_json::value::RawValue> = serde_json::from_str("[1,\n 2]").unwrap();
    peer.sender.notify("pretty", &pretty).unwrap();
    drop(near_out);
    peer.end.await.unwrap();
    let mut written = String::new();
    near_in.read_to_string(&mut written).unwrap();
    assert_eq!(written, "{\"method\":\"pretty\",\"params\":[1,  2]}\n");
}

fn shell(script: &str) -> Program {
    Program {
        program: OsString::from("/bin/sh"),
        args: ["-c", script].map(OsString::from).to_vec(),
        env: vec![("ONLY".into(), "this".into())],
        cwd: None,
        stderr: Stdio::inherit(),
    }
}

#[tokio::test]
async fn a_program_speaks_over_its_standard_streams_with_its_exact_environment() {
    let script = r#"read line; printf '{"id":1,"result":"%s"}\n' "$ONLY$HOME"; read line"#;
    let (transport, running) = spawn(shell(script)).unwrap();
    let client = run(transport, Limits::default());
    assert_eq!(client.sender.request("anything", &()).await.unwrap().get(), r#""this""#);
    client.sender.close(CloseReason::local("done"));
    client.end.await.unwrap();
    assert_eq!(running.wait().await.unwrap().code(), Some(1), "read fails at the end of its input");
}

#[tokio::test]
async fn a_program_that_ignores_term_is_killed_with_its_group() {
    let script = r#"trap '' TERM; /bin/sleep 1000 & printf '{"method":"note","params":%s}\n' $!; wait; wait"#;
    let (transport, running) = spawn(shell(script)).unwrap();
    let client = run(transport, Limits::default());
    client.service.noted(1).await;
    let child: i32 = client.service.notes.lock().unwrap()[0].parse().unwrap();
    let status = running.end().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    // The grandchild was in the group: its number is free, or it waits for init as a corpse.
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert!(matches!(client.end.await.unwrap(), CloseReason::Peer));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut program = shell("");
    program.program = "/nowhere/program".into();
    let error = spawn(program).unwrap_err();
    assert_eq!(
        error.to_string(),
        "could not start `/nowhere/program`: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_goes_with_its_listener() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s");
    let url = ListenUrl::Unix(path.clone());
    let listener = Listener::bind(&url, Settings::new("test", Auth::None)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Listener::bind(&url, Settings::new("test", Auth::None)).await;
    assert!(matches!(second, Err(ListenError::InUse { .. })), "a living listener keeps its path");
    drop(listener);
    assert!(!path.exists());
    // What a killed server leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Listener::bind(&url, Settings::new("test", Auth::None)).await.unwrap());
    std::fs::write(&path, "a file").unwrap();
    let over_a_file = Listener::bind(&url, Settings::new("test", Auth::None)).await;
    assert!(matches!(over_a_file, Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    std::fs::remove_file(&path).unwrap();
    // A server that knows nothing of our lock.
    let stranger = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let beside = Listener::bind(&url, Settings::new("test", Auth::None)).await;
    assert!(matches!(beside, Err(ListenError::InUse { .. })));
    drop(stranger);
}

#[tokio::test]
async fn a_peer_that_the_kernel_does_not_vouch_for_hears_nothing() {
    let home = tempfile::tempdir().unwrap();
    let url = ListenUrl::Unix(home.path().join("s"));
    let mut answers = vec![Ok(Principal::new("uid:7")), Err("it runs in a sandbox".to_owned())];
    let check = Box::new(move |_: std::os::fd::BorrowedFd<'_>| answers.pop().unwrap());
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let refusals = Arc::clone(&heard);
    let mut settings = Settings::new("test", Auth::PeerCredentials(check));
    settings.refusals = Some(Arc::new(move |_, why| refusals.lock().unwrap().push(why.to_owned())));
    let mut listener = Listener::bind(&url, settings).await.unwrap();
    let url: ConnectUrl = url.to_string().parse().unwrap();
    let clients = async {
        let settings = connect::Settings::default();
        let refused = connect(&url, &settings).await;
        (refused.is_err(), connect(&url, &settings).await)
    };
    let (incoming, (first_is_refused, second)) = tokio::join!(listener.accept(), clients);
    assert!(first_is_refused);
    assert_eq!(incoming.principal, Principal::new("uid:7"));
    assert!(second.is_ok());
    assert_eq!(*heard.lock().unwrap(), ["it runs in a sandbox"]);
}
