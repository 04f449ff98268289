//! Round trips over what carries messages in earnest: TCP, unix sockets, standard streams of a program, threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sandbar_proto::rpc::code;
use sandbar_rpc::auth::{Auth, Principal, TokenSource};
use sandbar_rpc::connect::{self, ConnectUrl, Program, connect, spawn};
use sandbar_rpc::listen::{ListenError, ListenUrl, Listener, Settings};
use sandbar_rpc::tls::TlsFiles;
use sandbar_rpc::{CloseReason, Frame, Limits, Side, blocking_lines};
use sandbar_testkit::{Certificate, certificate};
use serde_json::json;
use support::{Peer, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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
        may_ask: false,
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
    // It was killed before, and dies as soon as it is scheduled.
    sandbar_testkit::eventually(sandbar_testkit::DEADLINE, "the end of the grandchild", || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
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

/// What a server answers to raw text.
async fn http(url: &ListenUrl, text: &str) -> String {
    let ListenUrl::Ws(address) = url else { panic!("{url}") };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    // The date is another one each time.
    answer.lines().filter(|line| !line.starts_with("date:")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn http_answers_what_is_no_websocket() {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    let mut settings = Settings::new("test", Auth::CapabilityToken(TokenSource::File(token.clone())));
    settings.metrics = Some(Arc::new(|| "sandbar_connections 3\n".to_owned()));
    let mut listener = Listener::bind(&"ws://127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let url = listener.url();
    let token = std::fs::read_to_string(token).unwrap();
    tokio::spawn(async move { listener.accept().await });
    let get =
        |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    assert_eq!(
        http(&url, &get("/readyz", "")).await,
        "HTTP/1.1 200 OK\nconnection: close\ncontent-length: 0\n\n"
    );
    assert_eq!(
        http(&url, &get("/metrics", "")).await,
        "HTTP/1.1 401 Unauthorized\ncontent-type: text/plain; charset=utf-8\nwww-authenticate: Bearer\n\
         connection: close\ncontent-length: 30\n\nmissing websocket bearer token\n"
    );
    assert_eq!(
        http(&url, &get("/metrics", &format!("authorization: Bearer {}\r\n", token.trim()))).await,
        "HTTP/1.1 200 OK\ncontent-type: text/plain; version=0.0.4; charset=utf-8\nconnection: close\n\
         content-length: 22\n\nsandbar_connections 3\n"
    );
}

#[tokio::test]
async fn a_client_is_let_in_with_its_token_and_told_why_not_without() {
    let hash =
        TokenSource::from_sha256_hex("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    let (mut listener, url) = listen("ws://127.0.0.1:0", Auth::CapabilityToken(hash.unwrap())).await;
    let accepting = tokio::spawn(async move { listener.accept().await });
    let with = |bearer: Option<&str>| connect::Settings {
        bearer: bearer.map(str::to_owned),
        ..connect::Settings::default()
    };
    let error = connect(&url, &with(None)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{url} refuses: 401 missing websocket bearer token"));
    let error = connect(&url, &with(Some("wrong"))).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{url} refuses: 401 invalid websocket bearer token"));
    let error = connect(&url, &with(Some("a\nb"))).await.unwrap_err();
    assert_eq!(error.to_string(), "the bearer token has characters that no header can have");
    assert!(connect(&url, &with(Some("test"))).await.is_ok());
    assert!(accepting.await.unwrap().principal.as_str().starts_with("token:"));
}

#[tokio::test]
async fn connections_that_come_to_nothing_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let fast =
        connect::Settings { handshake_timeout: Duration::from_millis(50), ..connect::Settings::default() };
    let error = |url: String| {
        let fast = fast.clone();
        async move { connect(&url.parse().unwrap(), &fast).await.unwrap_err().to_string() }
    };
    let refused = error(format!("ws://{address}")).await;
    assert_eq!(refused, format!("could not connect to ws://{address}: Connection refused (os error 111)"));
    assert!(
        error("unix:/nowhere/s".into()).await.starts_with("could not connect to unix:/nowhere/s: No such")
    );
    let unresolved = error("ws://host.example:1".into()).await;
    assert_eq!(unresolved, "the host `host.example` has no known address: nothing resolves names here");

    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", silent.local_addr().unwrap());
    let late = error(url.clone()).await;
    assert_eq!(late, format!("{url} did not answer within 50ms, to agree to a websocket"));

    // Answers with what is no handshake.
    for answer in [
        "SSH-2.0-x\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let asking = error(url.clone());
        let answering = async {
            // The silent one's connection may be before ours.
            loop {
                let (mut stream, _) = silent.accept().await.unwrap();
                if stream.write_all(answer.as_bytes()).await.is_ok() {
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                }
            }
        };
        tokio::select! {
            error = asking => assert!(error.contains("does not speak WebSocket"), "{error}"),
            () = answering => {}
        }
    }
}

#[tokio::test]
async fn names_are_resolved_by_whoever_is_given_for_it() {
    let (mut listener, url) =
        listen("ws://127.0.0.1:0", Auth::CapabilityToken(TokenSource::Sha256([0; 32]))).await;
    let port = url.to_string().rsplit_once(':').unwrap().1.to_owned();
    tokio::spawn(async move { listener.accept().await });
    let resolver: connect::Resolver = Arc::new(|host, port| {
        Box::pin(async move {
            if host == "known.example" { Ok(vec![([127, 0, 0, 1], port).into()]) } else { Ok(vec![]) }
        })
    });
    let settings = connect::Settings { resolver: Some(resolver), ..connect::Settings::default() };
    let error = |host: &str| {
        let (url, settings) = (format!("ws://{host}:{port}").parse().unwrap(), settings.clone());
        async move { connect(&url, &settings).await.unwrap_err().to_string() }
    };
    assert!(error("known.example").await.contains("401"), "it was reached");
    assert!(error("localhost").await.contains("401"), "without asking anybody");
    assert!(error("unknown.example").await.contains("there is none"));
}

/// A new certificate, as a server is given it.
fn tls_files(folder: &Path, name: &str) -> TlsFiles {
    let Certificate { cert, key } = certificate(folder, name);
    TlsFiles { cert, key }
}

#[tokio::test]
async fn wss_and_certificates_belong_together() {
    let bind = |url: &str, tls| {
        let mut settings = Settings::new("test", Auth::None);
        settings.tls = tls;
        let url: ListenUrl = url.parse().unwrap();
        async move { Listener::bind(&url, settings).await.err().map(|error| error.to_string()) }
    };
    let home = tempfile::tempdir().unwrap();
    let files = TlsFiles { cert: home.path().join("cert"), key: home.path().join("key") };
    let needs = "`wss` takes a certificate and a key, others take none";
    assert!(bind("wss://127.0.0.1:0", None).await.unwrap().contains(needs));
    assert!(bind("ws://127.0.0.1:0", Some(files.clone())).await.unwrap().contains(needs));
    assert!(bind("wss://127.0.0.1:0", Some(files.clone())).await.unwrap().contains("cert"));
    std::fs::write(&files.cert, "nothing").unwrap();
    assert!(bind("wss://127.0.0.1:0", Some(files)).await.unwrap().contains("no certificate in it"));
}

#[tokio::test]
async fn a_websocket_over_tls_carries_all_there_is_to_whoever_trusts_it() {
    let home = tempfile::tempdir().unwrap();
    let files = tls_files(home.path(), "localhost");
    let mut settings = Settings::new("test", Auth::None);
    settings.tls = Some(files.clone());
    let mut listener = Listener::bind(&"wss://127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let url = listener.url().to_string();
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let accepting = tokio::spawn(async move { listener.accept().await });
    let trusting = connect::Settings { authorities: Some(files.cert), ..connect::Settings::default() };
    let other = tls_files(&home.path().join("other"), "localhost");
    let doubting = connect::Settings { authorities: Some(other.cert), ..connect::Settings::default() };

    let by_name: ConnectUrl = format!("wss://localhost:{port}").parse().unwrap();
    let error = connect(&by_name, &doubting).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let error = connect(&url.parse().unwrap(), &trusting).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "it is for another name: {error}");
    let client = run(connect(&by_name, &trusting).await.unwrap(), Limits::default());
    let server = run(accepting.await.unwrap().transport, Limits::default());
    converse(&client, &server).await;
    part(client, server).await;
}
