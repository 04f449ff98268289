//! Servers that are killed, sessions that run out, and what is left then.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use sandbar_testkit::need::Need;
use sandbar_testkit::soak::{self, Random};
use sandbar_testkit::{DEADLINE, eventually, need, patience, processes};
use serde_json::{Value, json};

use super::client::{Client, Story, base64, bytes};
use super::server::{Over, Server};

/// Processes that write while their server is killed.
const WRITERS: usize = 20;

/// Lines of each, before and after it was told to go on.
const LINES: usize = 2000;

/// What is known of one process, wherever it was learned.
#[derive(Default)]
struct Known {
    chunks: BTreeMap<u64, Vec<u8>>,
    code: Option<i64>,
}

impl Known {
    /// Takes what a notification or an answer says; the same number never says two things.
    fn note(&mut self, chunk: &Value) {
        let (seq, bytes) = (chunk["seq"].as_u64().unwrap(), bytes(&chunk["chunk"]));
        let known = self.chunks.insert(seq, bytes.clone());
        assert!(known.is_none_or(|known| known == bytes), "{seq} came with other bytes");
    }

    /// The last number before which nothing is missing.
    fn last(&self) -> u64 {
        self.chunks.keys().zip(1..).take_while(|(seq, expected)| **seq == *expected).count() as u64
    }

    fn output(self) -> String {
        String::from_utf8(self.chunks.into_values().flatten().collect()).unwrap()
    }
}

fn name(number: usize) -> String {
    format!("p{number}")
}

/// Takes a message about a process, if it is one.
fn note(known: &mut BTreeMap<String, Known>, message: &Value) {
    let params = &message["params"];
    let Some(known) = params["processId"].as_str().and_then(|process| known.get_mut(process)) else { return };
    match message["method"].as_str() {
        Some("process/output") => known.note(params),
        Some("process/exited") => known.code = params["exitCode"].as_i64(),
        _ => {}
    }
}

fn go_on(client: &mut Client, number: usize) {
    let write = json!({"processId": name(number), "chunk": base64("go\n"), "writeId": "go"});
    assert_eq!(client.ask("process/write", &write), json!({"status": "accepted"}));
}

/// One life of a server that ends in the middle, and the next one.
fn round(server: &mut Server, random: &mut Random) {
    let (mut client, session) = server.ready_with_session();
    let mut known: BTreeMap<String, Known> =
        (0..WRITERS).map(|number| (name(number), Known::default())).collect();
    for number in 0..WRITERS {
        let lines = format!("i=0; while [ $i -lt {LINES} ]; do echo {number} $i; i=$((i+1)); done");
        let script = format!("{lines}; read word; echo $word; {lines}; exit {number}");
        client.ask("process/start", &server.shell_with(&name(number), &script, &json!({"pipeStdin": true})));
    }
    // Some go on before the end of the server, some while it ends, the others only on the next one.
    let early = random.below_size(WRITERS);
    for number in 0..early {
        go_on(&mut client, number);
    }
    // Each writes something before it waits for its word.
    for _ in 0..random.below_size(WRITERS) {
        let message = client.wait_for(|message| message["method"] == json!("process/output"));
        note(&mut known, &message);
    }
    server.kill();
    // What the dead server sent is still on its way.
    client.each_left(|message| note(&mut known, message));
    server.begin(&[]);
    let mut client = server.resume(&session);
    for number in early..WRITERS {
        go_on(&mut client, number);
    }
    for number in 0..WRITERS {
        let process = name(number);
        let mut found = known.remove(&process).unwrap();
        let mut after = found.last();
        let code = loop {
            let read = client
                .ask("process/read", &json!({"processId": process, "afterSeq": after, "waitMs": 10_000}));
            assert!(read.get("gap").is_none(), "{read}");
            read["chunks"].as_array().unwrap().iter().for_each(|chunk| found.note(chunk));
            after = read["nextSeq"].as_u64().unwrap() - 1;
            if read["closed"] == json!(true) {
                break read["exitCode"].as_i64();
            }
        };
        assert_eq!(code, Some(i64::try_from(number).unwrap()), "{process}");
        assert!(found.code.is_none_or(|told| Some(told) == code), "{process}");
        // Every number but two, which are the end and the close, is output.
        assert_eq!(found.chunks.len() as u64, after - 2, "{process}");
        let lines = || (0..LINES).map(|line| format!("{number} {line}\n"));
        let expected: String = lines().chain(["go\n".to_owned()]).chain(lines()).collect();
        assert_eq!(found.output(), expected, "{process}");
    }
}

#[test]
fn every_byte_and_exit_code_outlives_a_killed_server() {
    let mut server = Server::start(Over::Unix).unwrap();
    for number in 0..soak::number_of(2, 50) {
        let mut random = Random::of(soak::seed(), "killed_server", number as u64);
        round(&mut server, &mut random);
    }
}

#[test]
fn a_write_whose_answer_was_lost_with_its_server_is_not_carried_out_again() {
    let mut server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let write = |text: &str, id: &str| json!({"processId": "p", "chunk": base64(text), "writeId": id});
    client.send("process/write", &write("one\n", "1"));
    // It was carried out, and nobody has taken the answer.
    assert_eq!(client.output_with("p", "one\n"), "one\n");
    server.kill();
    server.begin(&[]);
    let mut client = server.resume(&session);
    client.ask("process/closeStdin", &json!({"processId": "p"}));
    let accepted = json!({"status": "accepted"});
    assert_eq!(client.ask("process/write", &write("one\n", "1")), accepted, "also behind the close");
    assert_eq!(client.ask("process/write", &write("two\n", "2")), json!({"status": "stdinClosed"}));
    assert_eq!(client.read_to_end("p", 0), (b"one\n".to_vec(), 0));
}

#[test]
fn a_write_that_was_accepted_stays_so_behind_the_end_of_its_process() {
    let mut server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    let script = "read one; read two; echo $one $two";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    let write = |text: &str, id: &str| json!({"processId": "p", "chunk": base64(text), "writeId": id});
    let accepted = json!({"status": "accepted"});
    assert_eq!(client.ask("process/write", &write("one\n", "1")), accepted);
    client.send("process/write", &write("two\n", "2"));
    assert_eq!(client.story("p").stdout, "one two\n");
    server.kill();
    server.begin(&[]);
    let mut client = server.resume(&session);
    let closed = json!({"status": "stdinClosed"});
    assert_eq!(client.ask("process/write", &write("more than two\n", "2")), closed);
    assert_eq!(client.ask("process/write", &write("three\n", "3")), closed);
    assert_eq!(client.ask("process/write", &write("two\n", "2")), accepted);
    assert_eq!(client.ask("process/write", &write("one\n", "1")), accepted);
}

#[test]
fn a_write_that_its_server_did_not_finish_goes_on_where_it_was_cut() {
    let mut server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    // More than waits for a process, which first takes so much that the beginning has been accepted.
    let text: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    let script = "head -c 500000 > first; echo half; until test -e go; do sleep 0.01; done; cat > rest";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    let write = json!({"processId": "p", "chunk": base64(&text), "writeId": "long"});
    client.send("process/write", &write);
    client.output_with("p", "half\n");
    server.kill();
    server.begin(&[]);
    let mut client = server.resume(&session);
    server.home.write("go", "");
    assert_eq!(client.ask("process/write", &write), json!({"status": "accepted"}));
    client.ask("process/closeStdin", &json!({"processId": "p"}));
    assert_eq!(client.read_to_end("p", 0).1, 0);
    let read = |name: &str| std::fs::read_to_string(server.home.workspace().join(name)).unwrap();
    assert!(read("first") + &read("rest") == text, "every byte once");
}

/// A process whose leader has ended behind output that its client has no room for yet, and whose keeper is gone then, as
/// that client hears of it. `has_log` is whether its log is still there.
fn end_that_was_known(has_log: bool) -> Story {
    const BYTES: usize = 3_000_000;
    let server = Server::start(Over::Unix).unwrap();
    let mut client = server.connect();
    let extensions = json!({"credit": true, "gaps": true});
    client.ask("initialize", &json!({"clientName": "test", "extensions": extensions}));
    client.tell("initialized", &json!({}));
    let marker = processes::unique_sleep();
    // Its output stays open behind it, so that it is not over.
    let script = format!("sleep {marker} & head -c {BYTES} /dev/zero | tr '\\0' x; exit 3");
    client.ask("process/start", &server.shell("p", &script));
    assert_eq!(client.ask("process/wait", &json!({"processId": "p"})), json!({"exitCode": 3}));
    assert!(!client.has_heard(|message| message.get("method").is_some()), "its place has not come");
    server.home.end_keepers();
    if !has_log {
        for keeper in std::fs::read_dir(server.home.sandbar_home().join("run")).unwrap() {
            let _ = std::fs::remove_dir_all(keeper.unwrap().path().join("processes"));
        }
    }
    client.tell("process/credit", &json!({"processId": "p", "bytes": 2 * BYTES}));
    let story = client.story("p");
    assert_eq!((story.code, story.stdout.len() == BYTES), (3, has_log), "{} bytes", story.stdout.len());
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": story.seqs.len()}));
    assert_eq!(read["exitCode"], json!(3), "{read}");
    story
}

#[test]
fn an_end_that_was_known_before_its_place_came_outlives_the_keeper() {
    let story = end_that_was_known(true);
    assert_eq!(story.seqs, (1..=story.seqs.len() as u64).collect::<Vec<_>>(), "everything in its place");
}

#[test]
fn an_end_that_was_known_before_its_place_came_outlives_the_log() {
    let story = end_that_was_known(false);
    let [.., exited, closed] = story.seqs[..] else { panic!("{:?}", story.seqs) };
    assert_eq!(closed, exited + 1);
}

#[test]
fn a_killed_server_over_standard_streams_leaves_its_sessions_to_the_next() {
    let server = Server::start(Over::Stdio).unwrap();
    let (mut client, session) = server.ready_with_session();
    client.ask(
        "process/start",
        &server.shell_with("p", "read a; echo $a; exit 5", &json!({"pipeStdin": true})),
    );
    client.kill();
    let mut client = server.resume(&session);
    client.ask("process/write", &json!({"processId": "p", "chunk": base64("hi\n"), "writeId": "w"}));
    assert_eq!(client.read_to_end("p", 0), (b"hi\n".to_vec(), 5));
}

#[test]
fn a_session_whose_client_stays_away_ends_with_what_runs_in_it() {
    let server = Server::start_with(Over::Unix, &["--session-ttl", "1s"]).unwrap();
    let (mut client, session) = server.ready_with_session();
    let marker = processes::unique_sleep();
    client.ask("process/start", &server.shell("p", &format!("setsid sleep {marker} & sleep {marker}")));
    let runs = || !processes::with_argument(&marker).is_empty();
    eventually(DEADLINE, "it", || runs().then_some(()));
    // Back in time, for longer than it would have waited.
    client.cut();
    let mut client = server.resume(&session);
    client.ask("process/wait", &json!({"processId": "p", "waitMs": 1500}));
    assert!(runs());
    client.cut();
    eventually(DEADLINE, "the end of what runs", || (!runs()).then_some(()));
    let mut client = server.connect();
    let refused = client.refused("initialize", &json!({"clientName": "test", "resumeSessionId": session}));
    assert_eq!((refused.code, refused.message), (-32600, format!("unknown session id {session}")));
}

#[test]
fn a_session_of_a_killed_server_ends_when_nobody_comes_back() {
    let mut server = Server::start_with(Over::Unix, &["--session-ttl", "1s"]).unwrap();
    let (mut client, session) = server.ready_with_session();
    let marker = processes::unique_sleep();
    client.ask("process/start", &server.shell("p", &format!("sleep {marker}")));
    let runs = || !processes::with_argument(&marker).is_empty();
    eventually(DEADLINE, "it", || runs().then_some(()));
    server.kill();
    eventually(DEADLINE, "the end of what runs", || (!runs()).then_some(()));
    server.begin(&[]);
    let refused =
        server.connect().refused("initialize", &json!({"clientName": "test", "resumeSessionId": session}));
    assert_eq!(refused.kind, "unknown_session");
}

#[test]
fn detached_processes_outlive_their_session() {
    let server = Server::start_with(Over::Unix, &["--session-ttl", "1s"]).unwrap();
    let mut client = server.ready();
    let (kept, ended) = (processes::unique_sleep(), processes::unique_sleep());
    let start = |process: &str, marker: &str, is_detached: bool| {
        server.shell_with(process, &format!("sleep {marker}"), &json!({"detached": is_detached}))
    };
    client.ask("process/start", &start("kept", &kept, true));
    client.ask("process/start", &start("ended", &ended, false));
    let runs = |marker: &str| !processes::with_argument(marker).is_empty();
    eventually(DEADLINE, "both", || (runs(&kept) && runs(&ended)).then_some(()));
    client.cut();
    eventually(DEADLINE, "the end of the session", || (!runs(&ended)).then_some(()));
    assert!(runs(&kept));
}

#[test]
fn a_server_that_is_told_to_end_takes_its_sessions_with_it() {
    let mut server = Server::start(Over::Unix).unwrap();
    let mut client = server.ready();
    let marker = processes::unique_sleep();
    client.ask("process/start", &server.shell("p", &format!("setsid sleep {marker} & sleep {marker}")));
    eventually(DEADLINE, "it", || (!processes::with_argument(&marker).is_empty()).then_some(()));
    let finished = server.end();
    assert_eq!((finished.code, finished.signal), (Some(0), None), "{finished:?}");
    assert!(client.is_dropped());
    eventually(DEADLINE, "the end of what ran", || {
        processes::with_argument(&marker).is_empty().then_some(())
    });
}

#[test]
fn a_peer_without_a_sign_of_life_loses_its_connection_and_not_its_session() {
    // Two intervals of ten seconds must pass without an answer.
    let long: Need<()> = need::that(soak::is_soak(), "half a minute of silence is for `cargo xtask soak`");
    need!(long);
    let server = Server::start(Over::Open).unwrap();
    let (silent, session) = server.ready_with_session();
    eventually(patience(), "the end of a silent connection", || {
        let id = json!({"clientName": "test", "resumeSessionId": session});
        let mut client = server.connect();
        let sent = client.send("initialize", &id);
        client.answer(sent).get("result").map(|_| ())
    });
    drop(silent);
}

#[test]
fn connections_that_never_become_anything_hold_up_nobody() {
    let server = Server::start(Over::Open).unwrap();
    let mut idle: Vec<_> = (0..50).map(|_| server.stream()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    server.ready().ask("environment/status", &json!({}));
}

#[test]
fn a_resumed_client_that_reads_nothing_hears_the_news_all_the_same() {
    let server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    client.ask("process/start", &server.shell_with("p", "read a; echo $a", &json!({"pipeStdin": true})));
    client.cut();
    let mut client = server.resume(&session);
    client.ask("process/write", &json!({"processId": "p", "chunk": base64("hi\n"), "writeId": "w"}));
    assert_eq!(client.story("p").stdout, "hi\n");
    // What it starts itself it hears at once.
    client.ask("process/start", &server.shell("q", "echo hi"));
    assert_eq!(client.story("q").stdout, "hi\n");
}

#[test]
fn a_resumed_client_that_goes_through_what_it_missed_is_sent_no_more_than_it_has_room_for() {
    let server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    client.ask("process/start", &server.shell("p", "while :; do echo x; done"));
    client.news("process/output", "p");
    client.cut();
    let mut client = server.resume(&session);
    let asked = Instant::now();
    let read = client.ask("process/read", &json!({"processId": "p", "afterSeq": 0, "waitMs": 0}));
    let (next, chunks) = (read["nextSeq"].as_u64().unwrap(), read["chunks"].as_array().unwrap().len());
    assert!((1..=4096).contains(&chunks), "{chunks} chunks");
    // Codex's client has room for 256 events that come before it has put the answer in its place.
    for seq in next..next + 128 {
        assert_eq!(client.news("process/output", "p")["seq"], json!(seq));
    }
    assert_eq!(client.news("process/output", "p")["seq"], json!(next + 128));
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[test]
fn news_go_on_where_the_first_answer_stopped_whatever_is_read_later_and_however_little_it_was() {
    let server = Server::start(Over::Unix).unwrap();
    let (mut client, session) = server.ready_with_session();
    // More than several times what comes in one piece.
    let script = "echo begun; until test -e go; do :; done; head -c 400000 /dev/zero | tr '\\0' x; touch done; read a; exit 4";
    client.ask("process/start", &server.shell_with("p", script, &json!({"pipeStdin": true})));
    assert_eq!(client.output_with("p", "begun\n"), "begun\n");
    client.cut();
    server.home.write("go", "");
    eventually(DEADLINE, "all of it", || server.home.workspace().join("done").exists().then_some(()));
    let mut client = server.resume(&session);
    let read = |client: &mut Client, after: u64, most: Option<u64>| {
        let asked = json!({"processId": "p", "afterSeq": after, "waitMs": 0, "maxBytes": most});
        client.ask("process/read", &asked)["nextSeq"].as_u64().unwrap()
    };
    let next = read(&mut client, 1, Some(100));
    // Somebody behind the client reads on, to the end.
    let mut last = next - 1;
    loop {
        match read(&mut client, last, None) - 1 {
            same if same == last => break,
            further => last = further,
        }
    }
    client.ask("process/write", &json!({"processId": "p", "chunk": base64("go\n"), "writeId": "w"}));
    let story = client.story("p");
    assert_eq!(story.code, 4);
    assert_eq!(story.seqs, (next..next + story.seqs.len() as u64).collect::<Vec<_>>());
    assert!(story.seqs.len() > 5 && story.stdout.bytes().all(|byte| byte == b'x'), "{:?}", story.seqs);
}
