//! Client and server together, and a link between them that breaks at every message there is: whatever is lost on the way,
//! the conversation comes to the same.
//!
//! The processes are real and the keeper is; only the link is made up, so that it breaks behind an exact message. Two
//! breaks in a row, every one with every other, are for `cargo xtask soak`.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod within;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbar_exec::remote::{Dial, DialError, Dialed, Remote, Settings};
use sandbar_exec::server::{self, Server};
use sandbar_exec::{BoxFuture, Process};
use sandbar_proto::exec::{ReadParams, ReadResult, StartParams, WirePath, method};
use sandbar_proto::{ExitStatus, ProcessEvent, RunId, TerminalSize};
use sandbar_rpc::auth::Principal;
use sandbar_rpc::{Connection, Limits, Side, memory};
use sandbar_testkit::{Home, patience, soak};

use within::{path, within};

/// Where a connection breaks: behind so many messages of one side. They arrive; what comes the other way is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Break {
    behind: Side,
    messages: usize,
}

/// The way to the server, which breaks as it is told to, one connection after the other. What is left over was not needed.
#[derive(Clone)]
struct Lossy {
    server: Server,
    breaks: Arc<Mutex<VecDeque<Break>>>,
    dials: Arc<Mutex<usize>>,
}

impl Dial for Lossy {
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
        *self.dials.lock().unwrap() += 1;
        let (client, server, link) = memory();
        if let Some(Break { behind, messages }) = self.breaks.lock().unwrap().pop_front() {
            link.cut_after(behind, messages);
        }
        let (sender, connection) = Connection::new(server, Limits::default());
        let service = self.server.connection(Principal::new("test"), sender);
        tokio::spawn(connection.run(service));
        let dialed = Dialed { transport: client, patience: patience(), is_far: false, guard: None };
        Box::pin(std::future::ready(Ok(dialed)))
    }
}

/// What a conversation came to.
#[derive(Debug, PartialEq, Eq)]
struct Transcript {
    /// What the process with pipes wrote, and how it ended.
    piped: (String, ExitStatus),
    /// The same of the one with a terminal.
    terminal: (String, ExitStatus),
    /// What a read tells of the first one at last.
    read: (String, Option<i32>, bool),
}

fn expected() -> Transcript {
    let piped = "one\ntwo\nend\n";
    Transcript {
        piped: (piped.to_owned(), ExitStatus::Exited { code: 7 }),
        terminal: ("24 80\r\ngot go\r\n30 100\r\n".to_owned(), ExitStatus::Signaled { signal: 15 }),
        read: (piped.to_owned(), Some(7), true),
    }
}

/// A process and what it told so far, each number once and in its order.
struct Told {
    process: Box<dyn Process>,
    output: String,
    last: u64,
}

impl Told {
    async fn start(remote: &Remote, home: &Home, name: &str, script: &str, tty: bool) -> Self {
        let params = StartParams {
            process_id: name.to_owned(),
            argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            cwd: Some(WirePath(path(home.workspace()))),
            env: [("PATH".to_owned(), "/usr/bin:/bin".into())].into(),
            tty,
            pipe_stdin: !tty,
            start_id: Some(RunId::generate().to_string()),
            ..StartParams::default()
        };
        let (process, _) = remote.start(params).await.unwrap();
        Self { process, output: String::new(), last: 0 }
    }

    /// Takes the next event, and the end if it is that.
    async fn next(&mut self) -> Option<ProcessEvent> {
        let event = self.process.next_event().await.unwrap()?;
        let seq = match &event {
            ProcessEvent::Output { seq, bytes, .. } => {
                self.output.push_str(std::str::from_utf8(bytes).unwrap());
                seq.0
            }
            ProcessEvent::Exited(end) => end.seq().unwrap().0,
            ProcessEvent::Closed { seq } => seq.0,
            ProcessEvent::Gap(_) | ProcessEvent::Stopped { .. } => panic!("{event:?}"),
        };
        assert_eq!(seq, self.last + 1, "{event:?}");
        self.last = seq;
        Some(event)
    }

    /// Waits until it has written this.
    async fn expect(&mut self, text: &str) {
        while !self.output.ends_with(text) {
            self.next().await.unwrap();
        }
    }

    /// Waits for its close.
    async fn finish(mut self) -> (String, ExitStatus) {
        let mut status = None;
        while let Some(event) = self.next().await {
            if let ProcessEvent::Exited(end) = event {
                assert_eq!(status.replace(end.status), None, "it ends once");
            }
        }
        (self.output, status.unwrap())
    }
}

async fn conversation(remote: &Remote, home: &Home) -> Transcript {
    let mut piped = Told::start(remote, home, "piped", "cat; echo end; exit 7", false).await;
    let control = piped.process.control();
    control.write_stdin(0, b"one\n").await.unwrap();
    piped.expect("one\n").await;
    control.write_stdin(4, b"two\n").await.unwrap();
    control.close_stdin().await.unwrap();
    let script = "stty -echo; stty size; read word; echo got $word; stty size; read never";
    let mut terminal = Told::start(remote, home, "terminal", script, true).await;
    let control = terminal.process.control();
    terminal.expect("24 80\r\n").await;
    control.resize(TerminalSize { rows: 30, columns: 100, ..TerminalSize::USUAL }).await.unwrap();
    control.type_input(b"go\n").await.unwrap();
    terminal.expect("30 100\r\n").await;
    control.terminate(15, patience()).await.unwrap();
    let (piped, terminal) = (piped.finish().await, terminal.finish().await);
    let read = ReadParams { process_id: "piped".to_owned(), ..ReadParams::default() };
    let read: ReadResult = remote.call(method::PROCESS_READ, &read).await.unwrap();
    let text: Vec<u8> = read.chunks.into_iter().flat_map(|chunk| chunk.chunk.0).collect();
    Transcript { piped, terminal, read: (String::from_utf8(text).unwrap(), read.exit_code, read.closed) }
}

/// A conversation over connections that break so. How many there were.
async fn converse(server: &Server, home: &Home, breaks: &[Break]) -> usize {
    let way = Lossy {
        server: server.clone(),
        breaks: Arc::new(Mutex::new(breaks.iter().copied().collect())),
        dials: Arc::default(),
    };
    let dials = Arc::clone(&way.dials);
    // Nobody has to be spared here.
    let settings = Settings { first_pause: Duration::from_millis(1), ..Settings::default() };
    let remote = Remote::new(way, "test", settings);
    let transcript = tokio::time::timeout(patience(), conversation(&remote, home)).await;
    assert_eq!(transcript.expect("it comes to an end"), expected(), "{breaks:?}");
    *dials.lock().unwrap()
}

/// The server's sessions end soon, since there are more of them than a keeper holds.
fn machine() -> (Home, Server) {
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    let settings = server::Settings { session_ttl: Duration::from_secs(10), ..server::Settings::default() };
    let server = within(&home, settings);
    (home, server)
}

/// Breaks behind every message of one side, until a conversation is over before. A first connection that breaks while it is
/// greeted is an address that leads nowhere, which is another matter.
async fn every_break(behind: Side, then: &[Break]) -> usize {
    let (home, server) = machine();
    // `initialize` and `initialized`, and what is asked or answered first.
    let greeting = 2;
    let mut messages = greeting;
    loop {
        let breaks: Vec<Break> = [Break { behind, messages }].iter().chain(then).copied().collect();
        if converse(&server, &home, &breaks).await == 1 {
            break;
        }
        messages += 1;
    }
    server.shut_down().await;
    messages - greeting
}

#[tokio::test]
async fn a_conversation_over_a_link_that_holds_is_what_is_expected() {
    let (home, server) = machine();
    assert_eq!(converse(&server, &home, &[]).await, 1);
    server.shut_down().await;
}

#[tokio::test]
async fn whatever_the_client_said_last_the_conversation_comes_to_the_same() {
    let breaks = every_break(Side::Client, &[]).await;
    assert!(breaks > 10, "{breaks} messages");
}

#[tokio::test]
async fn whatever_the_server_said_last_the_conversation_comes_to_the_same() {
    let breaks = every_break(Side::Server, &[]).await;
    assert!(breaks > 10, "{breaks} messages");
}

#[tokio::test]
async fn a_link_that_breaks_again_at_once_changes_nothing() {
    // While it is greeted again; in a soak wherever else. Before the first message both sides are the same.
    let sides = [Side::Client, Side::Server];
    let behind =
        |messages| sides[..if messages == 0 { 1 } else { 2 }].iter().map(move |side| (*side, messages));
    for (behind, messages) in (0..soak::number_of(2, 30)).flat_map(behind) {
        for first in sides {
            every_break(first, &[Break { behind, messages }]).await;
        }
    }
}
