//! The keeper through its client: what a request does once, what it refuses, and who makes whom wait.
//!
//! Plans are made by hand and have no sandbox: what walls do is tested in `sandbox.rs`. Lies with the binary,
//! because a keeper is the program itself in another role.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod talk;

use std::collections::VecDeque;
use std::fs;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::fs::SealFlags;
use rustix::io::Errno;
use sandbar_keeper::protocol::{
    self, Event, LIST_PAGE, PeerRefusal, Refusal, Reply, Request, RequestHeader, StartStep, Watch,
};
use sandbar_keeper::{Client, Incoming, LogItem, LogReader};
use sandbar_proto::{
    AfterLeader, BindAccess, ExitStatus, IdRange, Identity, LaunchSpec, Lifetime, Limits, LinuxSandbox,
    MountOp, NetworkMode, RunId, Sandbox, SeccompSpec, StdinMode, Stream, Verdict,
};
use sandbar_testkit::{DEADLINE, Home, eventually, finish, need, processes};

use talk::{MEBIBYTE, Talk, home, memfd, pinned, script, sealed};

/// What a log holds: bytes that are there, and bytes of gaps.
fn read_to_end(reader: &mut LogReader) -> (u64, u64) {
    let (mut bytes, mut missing) = (0, 0);
    while let Some(item) = reader.next_item().unwrap() {
        match item {
            LogItem::Record(_, payload) => bytes += payload.len() as u64,
            LogItem::Gap(gap) => missing += gap.bytes,
        }
    }
    (bytes, missing)
}

// --- starting ---

#[test]
fn a_start_that_is_repeated_runs_once_and_answers_as_the_first() {
    let home = home();
    let (mut one, mut other) = (Talk::with(&home), Talk::with(&home));
    let id = RunId::generate();
    let spec = script(&home, "echo ran >> runs; until test -e go; do sleep 0.01; done; exit 4");
    let first = one.start(id, Watch::End, &spec);
    assert_eq!(one.start(id, Watch::End, &spec).start, first.start);
    assert_eq!(other.start(id, Watch::End, &spec).start, first.start);
    home.write("go", "");
    one.wait_closed(id);
    other.wait_closed(id);
    let after = one.start(id, Watch::End, &spec);
    assert_eq!(after.end.map(|end| end.status), Some(ExitStatus::Exited { code: 4 }));
    assert_eq!(fs::read_to_string(home.workspace().join("runs")).unwrap(), "ran\n");
}

#[test]
fn a_start_without_a_plan_or_with_one_that_may_still_change_is_refused() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let request = || Request::Start { id, watch: Watch::End, rollout: None, owner: None };
    let none = talk.ask(request());
    assert!(matches!(none, Reply::Refused { error: Refusal::Malformed { .. } }), "{none:?}");
    let text = serde_json::to_vec(&script(&home, "touch ran")).unwrap();
    let cases = [
        (memfd(&text, SealFlags::SHRINK | SealFlags::GROW), Errno::PERM),
        (memfd(b"{\"argv\":[]}", SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW), Errno::INVAL),
        (fs::File::open("/etc/passwd").unwrap().into(), Errno::INVAL),
    ];
    for (plan, errno) in cases {
        let reply = talk.ask_with(request(), &[], vec![plan]);
        let Reply::Refused { error: Refusal::Start { failure } } = reply else { panic!("{reply:?}") };
        assert_eq!((failure.step, failure.errno), (StartStep::Plan, errno.raw_os_error()));
    }
    assert!(!home.workspace().join("ran").exists());
    assert_eq!(talk.live(), []);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let home = home();
    let mut talk = Talk::with(&home);
    let mut spec = script(&home, "true");
    spec.argv = vec!["no-such-program".into()];
    let request = Request::Start { id: RunId::generate(), watch: Watch::End, rollout: None, owner: None };
    let reply = talk.ask_with(request, &[], vec![sealed(&spec)]);
    let Reply::Refused { error: Refusal::Start { failure } } = reply else { panic!("{reply:?}") };
    assert_eq!(failure.step, StartStep::Sandbox("program_not_found".to_owned()));
    assert_eq!(fs::read_dir(talk.keeper.processes()).unwrap().count(), 0);
    let keeper = home.keeper();
    eventually(DEADLINE, "a keeper without children", || keeper.descendants().is_empty().then_some(()));
}

/// A sandbox whose start fails in its own namespaces: it wants the workspace as a file of another inode.
fn changed(home: &Home) -> Sandbox {
    let mut source = pinned(&home.workspace());
    source.identity.ino += 1;
    let own = |id: u32| vec![IdRange { first: id, count: 1 }];
    let (users, groups) =
        (own(rustix::process::geteuid().as_raw()), own(rustix::process::getegid().as_raw()));
    Sandbox::Linux(Box::new(LinuxSandbox {
        executor: sandbar_proto::Executor::Native,
        identity: Identity { users, groups, run_as: None },
        network: NetworkMode::Off,
        mounts: vec![MountOp::Bind { target: source.path.clone(), source, access: BindAccess::Read }],
        caches: Vec::new(),
        placeholders: Vec::new(),
        placeholder_pool: None,
        globs: Vec::new(),
        landlock: None,
        seccomp: SeccompSpec { allow: Vec::new(), rules: Vec::new(), default: Verdict::Allow },
    }))
}

#[test]
fn an_id_whose_start_fails_again_and_again_and_then_succeeds_leaves_no_zombie() {
    need!(need::user_namespaces());
    let home = home();
    let mut talk = Talk::with(&home);
    let failing = LaunchSpec { sandbox: changed(&home), ..script(&home, "true") };
    for _ in 0..20 {
        // As a client does that plans again because the host changed: the next start comes while the holder of the
        // one before is still on its way out.
        let id = RunId::generate();
        for _ in 0..5 {
            let request = Request::Start { id, watch: Watch::End, rollout: None, owner: None };
            let reply = talk.ask_with(request, &[], vec![sealed(&failing)]);
            let Reply::Refused { error: Refusal::Start { failure } } = reply else { panic!("{reply:?}") };
            assert_eq!(failure.step, StartStep::Sandbox("changed".to_owned()));
        }
        talk.start(id, Watch::End, &script(&home, "true"));
        talk.wait_closed(id);
    }
    let keeper = home.keeper();
    eventually(DEADLINE, "a keeper without children", || keeper.descendants().is_empty().then_some(()));
}

#[test]
fn an_id_that_fails_to_start_again_and_again_leaves_no_process_behind() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "exit 3");
    spec.argv = vec!["no-such-program".into()];
    // The holder of one start is still leaving when the next one fails.
    for _ in 0..50 {
        let request = Request::Start { id, watch: Watch::End, rollout: None, owner: None };
        let reply = talk.ask_with(request, &[], vec![sealed(&spec)]);
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    talk.start(id, Watch::End, &script(&home, "exit 3"));
    talk.wait_closed(id);
    let keeper = home.keeper();
    eventually(DEADLINE, "a keeper without children", || keeper.descendants().is_empty().then_some(()));
}

#[test]
fn a_process_of_a_connection_ends_with_it() {
    let home = home();
    let mut talk = Talk::with(&home);
    let (bound, detached) = (processes::unique_sleep(), processes::unique_sleep());
    let mut spec = script(&home, &format!("setsid sleep {bound} & exec sleep {bound}"));
    spec.lifetime = Lifetime::Connection;
    talk.start(RunId::generate(), Watch::End, &spec);
    talk.start(RunId::generate(), Watch::End, &script(&home, &format!("exec sleep {detached}")));
    eventually(DEADLINE, "both to run", || {
        let runs = |marker: &str, count| processes::with_argument(marker).len() >= count;
        (runs(&bound, 2) && runs(&detached, 1)).then_some(())
    });
    drop(talk);
    eventually(DEADLINE, "the end of what was bound", || {
        processes::with_argument(&bound).is_empty().then_some(())
    });
    assert!(!processes::with_argument(&detached).is_empty());
}

#[test]
fn after_its_leader_a_tree_goes_on_if_the_plan_says_so() {
    let home = home();
    let mut talk = Talk::with(&home);
    let marker = processes::unique_sleep();
    let id = RunId::generate();
    let mut spec = script(&home, &format!("sleep {marker} & exit 3"));
    spec.after_leader = AfterLeader::Wait;
    talk.start(id, Watch::End, &spec);
    let Event::Exited { end, .. } = talk.next_event() else { panic!("not told of the exit first") };
    assert_eq!(end.status, ExitStatus::Exited { code: 3 });
    assert_eq!(talk.live().len(), 1, "it is held still");
    assert!(!processes::with_argument(&marker).is_empty());
    assert_eq!(talk.ask(Request::Terminate { id, signal: 15, grace_ms: 5000 }), Reply::Done);
    talk.wait_closed(id);
    assert!(processes::with_argument(&marker).is_empty());
}

// --- stdin ---

#[test]
fn input_that_is_repeated_by_offset_is_delivered_once() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "cat > got; until test -e go; do sleep 0.01; done");
    spec.stdio.stdin = StdinMode::Piped;
    talk.start(id, Watch::End, &spec);
    let up_to = |accepted_bytes| Reply::Written { accepted_bytes };
    assert_eq!(talk.write(id, 0, b"hello"), up_to(5));
    assert_eq!(talk.write(id, 0, b"hello"), up_to(5));
    assert_eq!(talk.write(id, 3, b"lo world"), up_to(11));
    assert_eq!(talk.write(id, 99, b"!"), Reply::Refused { error: Refusal::StdinGap { accepted_bytes: 11 } });
    assert_eq!(talk.ask(Request::CloseStdin { id }), Reply::Done);
    assert_eq!(talk.write(id, 11, b"late"), Reply::Refused { error: Refusal::StdinClosed });
    home.write("go", "");
    talk.wait_closed(id);
    assert_eq!(fs::read_to_string(home.workspace().join("got")).unwrap(), "hello world");
}

#[test]
fn input_beyond_the_bound_is_accepted_in_part_and_room_is_told() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "until test -e go; do sleep 0.01; done; cksum");
    spec.stdio.stdin = StdinMode::Piped;
    talk.start(id, Watch::Output, &spec);
    let block = vec![b'x'; protocol::MAX_WRITE_BYTES];
    let total = 4 * MEBIBYTE;
    let mut accepted = 0;
    let mut refused = 0;
    while accepted < total {
        let Reply::Written { accepted_bytes } = talk.write(id, accepted, &block) else {
            panic!("not written")
        };
        let part = accepted_bytes - accepted < block.len() as u64;
        accepted = accepted_bytes;
        if part {
            refused += 1;
            // The bound, and what the pipe itself holds.
            assert!(refused > 1 || accepted <= 2 * MEBIBYTE, "{accepted}");
            home.write("go", "");
            while talk.next_event() != (Event::StdinReady { id }) {}
        }
    }
    assert!(refused > 0);
    assert_eq!(talk.ask(Request::CloseStdin { id }), Reply::Done);
    talk.wait_closed(id);
    let Some(LogItem::Record(_, told)) = talk.log(id).next_item().unwrap() else { panic!("no output") };
    let told = String::from_utf8(told).unwrap();
    assert!(told.trim_end().ends_with(&format!(" {accepted}")), "{told}");
}

// --- listing and signals ---

#[test]
fn a_list_longer_than_a_page_comes_in_pages() {
    let home = home();
    let mut talk = Talk::with(&home);
    let marker = processes::unique_sleep();
    let spec = script(&home, &format!("exec sleep {marker}"));
    let mut ids: Vec<RunId> = (0..LIST_PAGE + 6).map(|_| RunId::generate()).collect();
    for id in &ids {
        talk.start(*id, Watch::End, &spec);
    }
    ids.sort();
    let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Reply::Listed { processes, more } = talk.ask(Request::List { after }) else { panic!("no list") };
        assert!(processes.len() <= LIST_PAGE);
        listed.extend(processes.iter().map(|process| process.start.id));
        after = listed.last().copied();
        pages += 1;
        if !more {
            break;
        }
    }
    assert!(pages >= 2);
    assert_eq!(listed, ids);
}

#[test]
fn long_commands_are_cut_so_that_every_page_fits_into_a_packet() {
    let home = home();
    let mut talk = Talk::with(&home);
    let mut spec = script(&home, "read never");
    spec.stdio.stdin = StdinMode::Piped;
    spec.argv.extend((0..5000).map(|_| "\u{1}\u{2}\u{3}\"\\".into()));
    for _ in 0..8 {
        talk.start(RunId::generate(), Watch::End, &spec);
    }
    let (mut seen, mut after) = (0, None);
    loop {
        let Reply::Listed { processes, more } = talk.ask(Request::List { after }) else { panic!("no list") };
        seen += processes.len();
        after = processes.last().map(|process| process.start.id);
        if !more {
            break;
        }
    }
    assert_eq!(seen, 8);
}

#[test]
fn what_is_no_signal_and_what_is_no_process_is_refused() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    talk.start(id, Watch::End, &script(&home, "exec sleep 86400"));
    for signal in [0, -1, 65, i32::MAX] {
        let expected = Reply::Refused { error: Refusal::BadSignal { signal } };
        assert_eq!(talk.ask(Request::Signal { id, signal }), expected);
        assert_eq!(talk.ask(Request::Terminate { id, signal, grace_ms: 0 }), expected);
    }
    let id = RunId::generate();
    let unknown = Reply::Refused { error: Refusal::Unknown { id } };
    assert_eq!(talk.ask(Request::Signal { id, signal: 15 }), unknown);
    assert_eq!(talk.ask(Request::CloseStdin { id }), unknown);
    assert_eq!(talk.ask(Request::Stop), Reply::Refused { error: Refusal::Busy { processes: 1 } });
}

#[test]
fn the_time_limit_of_a_plan_ends_the_tree_and_is_written_down() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let mut spec = script(&home, "exec sleep 86400");
    spec.limits = Limits { wall: Some(Duration::from_millis(100)), ..Limits::default() };
    talk.start(id, Watch::End, &spec);
    let Event::Exited { end, .. } = talk.next_event() else { panic!("not told of the exit") };
    assert_eq!((end.status, end.timed_out), (ExitStatus::Signaled { signal: 15 }, true));
    let record = sandbar_keeper::read(&talk.keeper.processes().join(id.to_string())).unwrap();
    assert_eq!(record.end, Some(end), "the record is there before anybody is told");
}

#[test]
fn times_beyond_all_clocks_harm_no_keeper() {
    let home = home();
    let mut talk = Talk::with(&home);
    let keeper = home.keeper();
    let id = RunId::generate();
    let mut spec = script(&home, "exec sleep 86400");
    spec.limits = Limits { wall: Some(Duration::MAX), ..Limits::default() };
    talk.start(id, Watch::End, &spec);
    assert_eq!(talk.ask(Request::Terminate { id, signal: 15, grace_ms: u64::MAX }), Reply::Done);
    talk.wait_closed(id);
    assert!(keeper.is_alive());
}

// --- output ---

#[test]
fn a_lossless_reader_makes_the_process_wait_and_then_gets_every_byte() {
    let home = home();
    let mut talk = Talk::with(&home);
    let total = 64 * MEBIBYTE;
    let id = RunId::generate();
    let spec = script(&home, &format!("head -c {total} /dev/zero; echo end >&2"));
    talk.start(id, Watch::Lossless, &spec);
    let written = |talk: &mut Talk| talk.live()[0].output.bytes;
    eventually(DEADLINE, "the bound to be reached", || (written(&mut talk) > 4 * MEBIBYTE).then_some(()));
    // Each question is answered by the loop that would also read more, if it still read.
    let waits_at = written(&mut talk);
    for _ in 0..100 {
        assert_eq!(written(&mut talk), waits_at);
    }
    assert!(waits_at < 6 * MEBIBYTE, "{waits_at}");
    let (mut reader, mut is_closed, mut read) = (talk.log(id), false, 0);
    while !is_closed {
        is_closed = matches!(talk.next_event(), Event::Closed { .. });
        let (bytes, missing) = read_to_end(&mut reader);
        assert_eq!(missing, 0);
        read += bytes;
        talk.client
            .notify(Request::Ack { id, offset_bytes: reader.offset_bytes(), needed_from: None })
            .unwrap();
        eventually(DEADLINE, "the acknowledgement to be sent", || talk.client.flush().unwrap().then_some(()));
    }
    assert_eq!(read, total + 4);
}

#[test]
fn a_lossless_reader_that_goes_away_lets_the_process_go_on() {
    let home = home();
    let (mut reader, mut other) = (Talk::with(&home), Talk::with(&home));
    let id = RunId::generate();
    let total = 32 * MEBIBYTE;
    reader.start(id, Watch::Lossless, &script(&home, &format!("head -c {total} /dev/zero")));
    let state = other.ask(Request::Watch { id, watch: Watch::End, record: false, ended: false });
    assert!(matches!(state, Reply::Process { .. }), "{state:?}");
    eventually(DEADLINE, "the bound", || (other.live()[0].output.bytes > 4 * MEBIBYTE).then_some(()));
    drop(reader);
    assert_eq!(other.wait_closed(id).bytes, total);
}

#[test]
fn without_a_lossless_reader_the_newest_sixteen_mebibytes_stay_and_the_gap_is_stated() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    let total = 40 * MEBIBYTE;
    talk.start(id, Watch::End, &script(&home, &format!("head -c {total} /dev/zero")));
    let output = talk.wait_closed(id);
    assert_eq!(output.bytes, total);
    let mut reader = talk.log(id);
    let Some(LogItem::Gap(gap)) = reader.next_item().unwrap() else { panic!("the gap does not come first") };
    assert_eq!((gap.from_seq.0, gap.bytes), (1, output.dropped_bytes));
    let (kept, missing) = read_to_end(&mut reader);
    assert_eq!((kept + gap.bytes, missing), (total, 0));
    // What is dropped is a whole segment, a little more than a mebibyte.
    assert!((14 * MEBIBYTE..=17 * MEBIBYTE).contains(&kept), "{kept}");
}

#[test]
fn news_come_in_order_and_once() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    talk.start(id, Watch::Output, &script(&home, "echo one; echo two >&2; exit 5"));
    let mut told = Vec::new();
    loop {
        let event = talk.next_event();
        match &event {
            Event::Output { output, .. } => told.push(format!("output {}", output.bytes)),
            Event::Exited { end, .. } => told.push(format!("{} after {}", end.status, end.output.bytes)),
            Event::Closed { seq, output, .. } => {
                assert_eq!(seq.0, output.last_seq.0.max(seq.0));
                told.push(format!("closed at {}", output.bytes));
                break;
            }
            Event::StdinReady { .. }
            | Event::Unattended { .. }
            | Event::Stopped { .. }
            | Event::Stalled { .. } => panic!("{event:?}"),
        }
    }
    told.retain(|line| line != "output 4");
    assert_eq!(told, ["output 8", "exited with 5 after 8", "closed at 8"]);
}

#[test]
fn a_stream_that_nobody_wants_ends_its_writer_by_sigpipe() {
    let home = home();
    let mut talk = Talk::with(&home);
    let id = RunId::generate();
    talk.start(id, Watch::End, &script(&home, "exec yes"));
    assert_eq!(talk.ask(Request::CloseOutput { id, stream: Stream::Stdout }), Reply::Done);
    let Event::Exited { end, .. } = talk.next_event() else { panic!("not told of the exit") };
    assert_eq!(end.status, ExitStatus::Signaled { signal: 13 });
}

// --- the protocol, and who may speak it ---

#[test]
fn a_malformed_packet_is_answered_and_the_connection_goes_on() {
    let home = home();
    let mut talk = Talk::with(&home);
    let header =
        |text: &str| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
    let packets = [
        b"x".to_vec(),
        b"\xff\xff\xff\xff".to_vec(),
        header("not json"),
        header(r#"{"req":5,"do":"no_such_request"}"#),
        header(r#"{"req":6,"do":"watch"}"#),
    ];
    // Who asked for something that is understood only later than now is to hear that it is not.
    for (packet, number) in packets.into_iter().zip([u64::MAX, u64::MAX, u64::MAX, 5, 6]) {
        let sent = rustix::net::send(talk.client.as_fd(), &packet, rustix::net::SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(packet.len()));
        let answer = talk.hear();
        assert!(
            matches!(answer, Incoming::Reply(of, Reply::Refused { error: Refusal::Malformed { .. } }) if of == number),
            "{packet:?}: {answer:?}"
        );
    }
    assert_eq!(talk.live(), []);
}

#[test]
fn a_packet_with_too_many_descriptors_harms_nobody_else() {
    let home = home();
    let (mut one, mut other) = (Talk::with(&home), Talk::with(&home));
    let fds = (0..4).map(|_| fs::File::open("/dev/null").unwrap().into()).collect();
    let reply = one.ask_with(Request::List { after: None }, &[], fds);
    assert!(matches!(reply, Reply::Listed { .. }), "{reply:?}");
    assert_eq!(other.live(), []);
}

/// Connects to the keeper of `$1` and prints what it says, without a hello.
const CONNECT: &str = "\
import os, socket, sys
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    s.connect('sock')
    print(s.recv(65536)[4:].decode())
except OSError as error:
    print(error)
";

fn refused(reason: PeerRefusal) -> String {
    let error = Refusal::Peer { reason };
    let message = protocol::Message::Reply { req: u64::MAX, reply: Reply::Refused { error } };
    serde_json::to_string(&message).unwrap() + "\n"
}

#[test]
fn callers_behind_other_walls_are_refused() {
    need!(need::program("python3"));
    need!(need::program("setpriv"));
    need!(need::user_namespaces());
    let home = home();
    let talk = Talk::with(&home);
    let table: [(&[&str], PeerRefusal); 2] = [
        (&["unshare", "--user", "--map-root-user", "--pid", "--fork"], PeerRefusal::PidNamespace),
        (&["setpriv", "--no-new-privs"], PeerRefusal::Confined),
    ];
    for (wrapper, reason) in table {
        let mut command = home.command(wrapper[0]);
        command.args(&wrapper[1..]).args(["python3", "-c", CONNECT]).arg(talk.keeper.path());
        assert_eq!(finish(&mut command).ok(), refused(reason), "{wrapper:?}");
    }
}

#[test]
fn what_a_keeper_runs_without_a_sandbox_cannot_command_it() {
    need!(need::program("python3"));
    let home = home();
    let mut talk = Talk::with(&home);
    home.write("connect.py", CONNECT);
    let id = RunId::generate();
    let path = talk.keeper.path().display().to_string();
    // The second one has left session and parent.
    let text = format!(
        "python3 connect.py {path}; setsid -f python3 connect.py {path} > far; until test -s far; do sleep 0.01; done"
    );
    talk.start(id, Watch::End, &script(&home, &text));
    talk.wait_closed(id);
    let Some(LogItem::Record(_, near)) = talk.log(id).next_item().unwrap() else { panic!("no output") };
    assert_eq!(String::from_utf8(near).unwrap(), refused(PeerRefusal::Descendant));
    let far = fs::read_to_string(home.workspace().join("far")).unwrap();
    assert_eq!(far, refused(PeerRefusal::Descendant));
}

#[test]
fn a_sandboxed_command_that_finds_another_keepers_socket_is_refused() {
    need!(need::program("python3"));
    need!(need::user_namespaces());
    // The sandbox hides the files of its own Sandbar; another one's lie open to reading.
    let (own, other) = (home(), home());
    let talk = Talk::with(&other);
    let mut command = own.sandbar(&["run", "-q", "--", "python3", "-c", CONNECT]);
    let finished = finish(command.arg(talk.keeper.path()));
    let said = finished.ok();
    let refusals = [refused(PeerRefusal::PidNamespace), "[Errno 13] Permission denied\n".to_owned()];
    assert!(refusals.contains(&said), "{finished:?}");
}

#[test]
fn a_connection_that_does_not_introduce_itself_gets_nothing() {
    let home = home();
    let talk = Talk::with(&home);
    let directory = fs::File::open(talk.keeper.path()).unwrap();
    let address = format!("/proc/self/fd/{}/sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, None)
            .unwrap();
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(address).unwrap()).unwrap();
    let header = RequestHeader { req: 1, request: Request::List { after: None } };
    let packet = protocol::encode(&header, &[]).unwrap();
    rustix::net::send(&socket, &packet, rustix::net::SendFlags::NOSIGNAL).unwrap();
    let mut silent = Talk { client: Client::new(socket), news: VecDeque::new(), keeper: talk.keeper.clone() };
    let expected = Incoming::Reply(1, Reply::Refused { error: Refusal::NoHello });
    assert_eq!(silent.hear(), expected);
}
