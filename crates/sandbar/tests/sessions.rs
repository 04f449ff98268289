//! Sessions: what a server that was killed finds again, and when what it left ends.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod talk;

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sandbar_exec::local::LocalProcesses;
use sandbar_exec::{ProcessError, Processes as _, Sessions as _, Watching};
use sandbar_keeper::Patience;
use sandbar_keeper::protocol::{
    Event, LIST_PAGE, MAX_SESSION_IDS, ProcessState, Refusal, Reply, Request, SessionState, Watch,
};
use sandbar_proto::{
    AfterLeader, Blob, ExitStatus, LaunchSpec, Lifetime, OutputMode, Owner, ProcessEvent, RunId, Seq,
    SessionId,
};
use sandbar_testkit::{DEADLINE, Home, eventually, processes};

use talk::{Talk, home, script, sealed};

/// A lease that no test sees the end of.
const LONG: u64 = 3_600_000;

fn name(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn owner(session: &str, blob: &[u8]) -> Option<Owner> {
    Some(Owner { session: Some(name(session)), blob: blob.into() })
}

fn refused(error: Refusal) -> Reply {
    Reply::Refused { error }
}

impl Talk {
    fn renew(&mut self, session: &str, blob: &[u8], ttl_ms: u64) -> Reply {
        self.ask(Request::Session { session: name(session), blob: blob.into(), ttl_ms })
    }

    fn end(&mut self, session: &str) -> Reply {
        self.ask(Request::EndSession { session: name(session) })
    }

    fn try_start(&mut self, id: RunId, owner: Option<Owner>, spec: &LaunchSpec) -> Reply {
        let plan: Vec<OwnedFd> = vec![sealed(spec)];
        self.ask_with(Request::Start { id, watch: Watch::End, rollout: None, owner }, &[], plan)
    }

    fn start_owned(&mut self, owner: Option<Owner>, spec: &LaunchSpec) -> RunId {
        let id = RunId::generate();
        let reply = self.try_start(id, owner, spec);
        assert!(matches!(reply, Reply::Process { .. }), "{reply:?}");
        id
    }

    fn sessions(&mut self) -> Vec<SessionState> {
        let reply = self.ask(Request::Sessions { after: None });
        let Reply::Sessions { sessions, more: false } = reply else { panic!("{reply:?}") };
        sessions
    }

    fn processes_of(&mut self, session: &str) -> Vec<ProcessState> {
        let (mut all, mut after) = (Vec::<ProcessState>::new(), None);
        loop {
            let reply = self.ask(Request::SessionProcesses { session: name(session), after });
            let Reply::Listed { processes, more } = reply else { panic!("{reply:?}") };
            all.extend(processes);
            after = all.last().map(|state| state.start.id);
            if !more {
                return all;
            }
        }
    }
}

/// A process that lives as long as its session.
fn bound(home: &Home, text: &str) -> LaunchSpec {
    LaunchSpec { lifetime: Lifetime::Session, ..script(home, text) }
}

fn local(talk: Talk) -> LocalProcesses {
    let patience = Patience::new(talk.keeper.clone(), DEADLINE, |late| panic!("{late:?}"));
    LocalProcesses::new(talk.client, talk.keeper.processes(), patience).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Everything that is told of a process behind `after`: number and text of each event.
async fn told(processes: &LocalProcesses, id: RunId, after: u64) -> Vec<(u64, String)> {
    let mut process = processes.follow_from(id, Watching::Output, Seq(after)).await.unwrap();
    let mut all = Vec::new();
    while let Some(event) = process.next_event().await.unwrap() {
        all.push(match event {
            ProcessEvent::Output { seq, bytes, .. } => (seq.0, String::from_utf8(bytes).unwrap()),
            ProcessEvent::Gap(gap) => (gap.from_seq.0, format!("{} bytes to {}", gap.bytes, gap.to_seq)),
            ProcessEvent::Exited(end) => (end.seq().unwrap().0, end.status.to_string()),
            ProcessEvent::Closed { seq } => (seq.0, "closed".to_owned()),
            ProcessEvent::Stopped { .. } => panic!("nobody stopped it"),
        });
    }
    all
}

// --- leases ---

#[test]
fn a_session_is_listed_with_its_blob_its_processes_and_its_time() {
    let home = home();
    let mut talk = Talk::with(&home);
    assert_eq!(talk.renew("a", b"first", LONG), Reply::Done);
    let id = talk.start_owned(owner("a", b"mine"), &script(&home, "exec sleep 86400"));
    assert_eq!(talk.renew("a", b"second", LONG), Reply::Done);
    assert_eq!(talk.renew("b", b"", LONG), Reply::Done);
    let [a, b] = &talk.sessions()[..] else { panic!("not two") };
    assert_eq!((&a.session, a.blob.as_bytes(), &a.processes), (&name("a"), &b"second"[..], &vec![id]));
    assert_eq!((&b.session, &b.processes), (&name("b"), &vec![]));
    assert!((1..=LONG).contains(&a.remaining_ms), "{}", a.remaining_ms);
    assert_eq!(talk.live()[0].start.owner, owner("a", b"mine"));
    assert_eq!(talk.processes_of("a")[0].start.owner, owner("a", b"mine"));
}

#[test]
fn a_lease_that_is_not_renewed_ends_what_lives_as_long_as_it_and_nothing_else() {
    let home = home();
    let mut talk = Talk::with(&home);
    let (of_session, detached, of_other) =
        (processes::unique_sleep(), processes::unique_sleep(), processes::unique_sleep());
    assert_eq!(talk.renew("a", b"", 4000), Reply::Done);
    assert_eq!(talk.renew("b", b"", LONG), Reply::Done);
    // Its daemon has left the session of the terminal's kind, and goes with it all the same.
    let text = format!("setsid sleep {of_session} & exec sleep {of_session}");
    let id = talk.start_owned(owner("a", b""), &bound(&home, &text));
    talk.start_owned(owner("a", b""), &script(&home, &format!("exec sleep {detached}")));
    talk.start_owned(owner("b", b""), &bound(&home, &format!("exec sleep {of_other}")));
    let begun = Instant::now();
    let closed = talk.wait_closed(id);
    assert!(begun.elapsed() < Duration::from_secs(10), "SIGTERM is enough");
    assert_eq!(closed.bytes, 0);
    assert!(processes::with_argument(&of_session).is_empty());
    assert!(
        !processes::with_argument(&detached).is_empty() && !processes::with_argument(&of_other).is_empty()
    );
    assert_eq!(talk.sessions().len(), 1);
    let late = talk.renew("a", b"", LONG);
    assert_eq!(late, refused(Refusal::SessionExpired { session: name("a") }), "never half revived");
    let start = talk.try_start(RunId::generate(), owner("a", b""), &script(&home, "touch ran"));
    assert_eq!(start, refused(Refusal::SessionExpired { session: name("a") }));
    assert_eq!(talk.processes_of("a").len(), 2, "still found by the name of the session");
    assert!(!home.workspace().join("ran").exists());
}

#[test]
fn a_renewal_that_comes_too_late_loses_against_the_end() {
    let home = home();
    let mut talk = Talk::with(&home);
    for turn in 0..200 {
        let session = format!("{turn}");
        // No time at all: the end and the renewal meet in the same turn of the keeper's loop.
        assert_eq!(talk.renew(&session, b"", 0), Reply::Done);
        let expected = refused(Refusal::SessionExpired { session: name(&session) });
        assert_eq!(talk.renew(&session, b"", LONG), expected);
    }
    assert_eq!(talk.sessions(), []);
}

#[test]
fn a_process_that_heeds_no_signal_is_killed_behind_the_end_of_its_session() {
    let home = home();
    let mut talk = Talk::with(&home);
    assert_eq!(talk.renew("a", b"", LONG), Reply::Done);
    let id = talk
        .start_owned(owner("a", b""), &bound(&home, "trap '' TERM; touch up; while :; do sleep 0.01; done"));
    eventually(DEADLINE, "it to run", || home.workspace().join("up").exists().then_some(()));
    assert_eq!(talk.end("a"), Reply::Done);
    talk.wait_closed(id);
    let state = talk.processes_of("a").remove(0);
    assert_eq!(state.end.map(|end| end.status), Some(ExitStatus::Signaled { signal: 9 }));
    assert_eq!(talk.end("a"), refused(Refusal::SessionExpired { session: name("a") }));
    assert_eq!(talk.end("b"), refused(Refusal::UnknownSession { session: name("b") }));
}

#[test]
fn what_a_keeper_does_not_take_is_refused_by_name() {
    let home = home();
    let mut talk = Talk::with(&home);
    let most = vec![7; Blob::MAX_BYTES];
    let more = vec![7; Blob::MAX_BYTES + 1];
    let too_large =
        || refused(Refusal::BlobTooLarge { bytes: Blob::MAX_BYTES + 1, limit_bytes: Blob::MAX_BYTES });
    assert_eq!(talk.renew("a", &most, LONG), Reply::Done);
    assert_eq!(talk.renew("a", &more, LONG), too_large());
    let touch = script(&home, "touch ran");
    assert_eq!(talk.try_start(RunId::generate(), owner("a", &more), &touch), too_large());
    let unknown = refused(Refusal::UnknownSession { session: name("b") });
    assert_eq!(talk.try_start(RunId::generate(), owner("b", b""), &touch), unknown);
    let unbound = talk.try_start(RunId::generate(), None, &bound(&home, "touch ran"));
    assert_eq!(unbound, refused(Refusal::NoSession));
    assert_eq!(talk.live(), []);
    assert!(!home.workspace().join("ran").exists());
    assert_eq!(talk.ask(Request::Stop), refused(Refusal::SessionsHeld { sessions: 1 }));
}

#[test]
fn sessions_with_the_largest_blobs_come_in_pages() {
    let home = home();
    let mut talk = Talk::with(&home);
    let blob = vec![0xff; Blob::MAX_BYTES];
    let names: Vec<String> = (0..20).map(|turn| format!("{turn:064}")).collect();
    for session in &names {
        assert_eq!(talk.renew(session, &blob, LONG), Reply::Done);
    }
    for _ in 0..6 {
        talk.start_owned(owner(&names[0], &blob), &script(&home, "exec sleep 86400"));
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let reply = talk.ask(Request::Sessions { after });
        let Reply::Sessions { sessions, more } = reply else { panic!("{reply:?}") };
        listed.extend(sessions.iter().map(|state| state.session.to_string()));
        after = sessions.last().map(|state| state.session.clone());
        if !more {
            break;
        }
    }
    assert_eq!(listed, names);
    assert_eq!(talk.processes_of(&names[0]).len(), 6);
    let (mut live, mut after) = (0, None);
    loop {
        let Reply::Listed { processes, more } = talk.ask(Request::List { after }) else { panic!("no list") };
        live += processes.len();
        after = processes.last().map(|state| state.start.id);
        if !more {
            break;
        }
    }
    assert_eq!(live, 6);
}

#[test]
fn a_session_of_many_processes_names_the_oldest_and_lists_them_all() {
    let home = home();
    let mut talk = Talk::with(&home);
    assert_eq!(talk.renew("a", b"", LONG), Reply::Done);
    let count = MAX_SESSION_IDS + LIST_PAGE;
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = talk.start_owned(owner("a", b""), &script(&home, "exit 0"));
        talk.wait_closed(id);
        ids.push(id);
    }
    ids.sort();
    let session = talk.sessions().remove(0);
    assert!(session.more_processes);
    assert_eq!(session.processes, ids[..MAX_SESSION_IDS]);
    let listed: Vec<RunId> = talk.processes_of("a").iter().map(|state| state.start.id).collect();
    assert_eq!(listed, ids);
}

// --- servers that die ---

#[test]
fn a_server_that_was_killed_finds_what_ended_while_none_was_there_and_every_byte() {
    let home = home();
    let mut first = Talk::with(&home);
    assert_eq!(first.renew("a", b"server", LONG), Reply::Done);
    let quick = first.start_owned(
        owner("a", b"quick"),
        &bound(&home, "echo one; until test -e go; do sleep 0.01; done; echo two >&2; exit 3"),
    );
    let slow = first.start_owned(
        owner("a", b"slow"),
        &bound(&home, "echo begun; until test -e end; do sleep 0.01; done; echo done"),
    );
    // Its connection ends as that of a killed one does: without a word.
    drop(first);
    home.write("go", "");
    let mut second = Talk::with(&home);
    eventually(DEADLINE, "the end of one", || {
        second.processes_of("a").iter().any(|state| state.end.is_some()).then_some(())
    });
    let session = second.sessions().remove(0);
    assert_eq!((session.blob.as_bytes(), session.processes), (&b"server"[..], vec![quick, slow]));
    let [ended, running] = &second.processes_of("a")[..] else { panic!("not two") };
    assert_eq!(ended.start.owner, owner("a", b"quick"));
    assert_eq!(ended.end.as_ref().map(|end| end.status), Some(ExitStatus::Exited { code: 3 }));
    assert!(ended.closed && running.end.is_none());
    local_in_runtime(second, |processes| async move {
        let all = [
            (1, "one\n".to_owned()),
            (2, "two\n".to_owned()),
            (3, "exited with 3".to_owned()),
            (4, "closed".to_owned()),
        ];
        for after in 0..=4_usize {
            assert_eq!(told(&processes, quick, after as u64).await, all[after..]);
        }
        processes.end_session(name("a")).await.unwrap();
        let rest = told(&processes, slow, 1).await;
        assert_eq!(rest, [(2, "ended by signal 15".to_owned()), (3, "closed".to_owned())]);
        let again = told(&processes, slow, 0).await;
        assert_eq!(again[0], (1, "begun\n".to_owned()));
        assert_eq!(again[1..], rest, "the same numbers in every life");
    });
}

/// Runs `work` with the processes behind a conversation.
fn local_in_runtime<T, F: Future<Output = T>>(talk: Talk, work: impl FnOnce(LocalProcesses) -> F) -> T {
    block_on(async { work(local(talk)).await })
}

#[test]
fn output_behind_the_end_has_higher_numbers_for_every_reader() {
    let home = home();
    let mut talk = Talk::with(&home);
    let other = Talk::with(&home);
    let text = "echo before; (until test -e go; do sleep 0.01; done; echo behind) & exit 7";
    let mut spec = script(&home, text);
    spec.after_leader = AfterLeader::Wait;
    let id = talk.start_owned(Some(Owner::default()), &spec);
    while !matches!(talk.next_event(), Event::Exited { .. }) {}
    home.write("go", "");
    talk.wait_closed(id);
    let expected = [(1, "before\n"), (2, "exited with 7"), (3, "behind\n"), (4, "closed")];
    let expected = expected.map(|(seq, text)| (seq, text.to_owned()));
    local_in_runtime(other, |processes| async move {
        assert_eq!(told(&processes, id, 0).await, expected);
        assert_eq!(told(&processes, id, 1).await, expected[1..]);
        assert_eq!(told(&processes, id, 2).await, expected[2..]);
        assert_eq!(told(&processes, id, 4).await, []);
    });
}

#[test]
fn what_nobody_logs_is_numbered_like_everything_else() {
    let home = home();
    let mut talk = Talk::with(&home);
    let mut spec = script(&home, "exit 5");
    spec.stdio.stdout = OutputMode::Direct;
    spec.stdio.stderr = OutputMode::Direct;
    let id = RunId::generate();
    let null = || OwnedFd::from(fs::File::options().write(true).open("/dev/null").unwrap());
    let request = Request::Start { id, watch: Watch::End, rollout: None, owner: None };
    let started = talk.ask_with(request, &[], vec![sealed(&spec), null(), null()]);
    assert!(matches!(started, Reply::Process { .. }), "{started:?}");
    talk.wait_closed(id);
    local_in_runtime(talk, |processes| async move {
        let expected = [(1, "exited with 5".to_owned()), (2, "closed".to_owned())];
        assert_eq!(told(&processes, id, 0).await, expected);
        assert_eq!(told(&processes, id, 1).await, expected[1..]);
    });
}

#[test]
fn what_a_keeper_took_with_it_is_found_by_its_session_with_its_last_bytes() {
    let home = home();
    let mut talk = Talk::with(&home);
    assert_eq!(talk.renew("a", b"", LONG), Reply::Done);
    let id = talk.start_owned(owner("a", b"kept"), &bound(&home, "echo last; exec sleep 86400"));
    eventually(DEADLINE, "its output", || (talk.live()[0].output.bytes == 5).then_some(()));
    let keeper = home.keeper();
    keeper.signal(Signal::KILL);
    eventually(DEADLINE, "the end of the keeper", || (!keeper.is_alive()).then_some(()));
    let mut next = Talk::with(&home);
    assert_eq!(next.sessions(), [], "a lease is the keeper's");
    let state = next.processes_of("a").remove(0);
    assert_eq!((state.start.owner, state.output.bytes), (owner("a", b"kept"), 5));
    local_in_runtime(next, |processes| async move {
        let expected = [(1, "last\n"), (2, "lost with its keeper"), (3, "closed")];
        let expected = expected.map(|(seq, text)| (seq, text.to_owned()));
        assert_eq!(told(&processes, id, 0).await, expected);
        assert_eq!(told(&processes, id, 2).await, expected[2..]);
        let unknown = processes.follow(id, Watching::End).await.err();
        assert!(matches!(unknown, Some(ProcessError::Refused(Refusal::Unknown { .. }))), "{unknown:?}");
    });
}

/// What the readers of one process have seen in all their lives.
#[derive(Default)]
struct Seen {
    after: u64,
    text: String,
    end: Option<ExitStatus>,
    closed: bool,
}

impl Seen {
    fn note(&mut self, event: ProcessEvent) {
        let seq = match event {
            ProcessEvent::Output { seq, bytes, .. } => {
                self.text += std::str::from_utf8(&bytes).unwrap();
                seq
            }
            ProcessEvent::Exited(end) => {
                self.end = Some(end.status);
                end.seq().unwrap()
            }
            ProcessEvent::Closed { seq } => {
                self.closed = true;
                seq
            }
            ProcessEvent::Gap(_) | ProcessEvent::Stopped { .. } => panic!("{event:?}"),
        };
        assert_eq!(seq.0, self.after + 1, "each number once, in its order");
        self.after = seq.0;
    }
}

#[test]
fn servers_that_die_one_after_the_other_lose_no_byte_and_no_end() {
    const WRITERS: u8 = 10;
    /// Events that a server reads of each process in its life.
    const LIFE: usize = 5;
    let home = home();
    let mut talk = Talk::with(&home);
    assert_eq!(talk.renew("a", b"", LONG), Reply::Done);
    for writer in 0..WRITERS {
        let text = format!("for i in $(seq 100); do echo {writer}.$i; sleep 0.01; done; exit {writer}");
        talk.start_owned(owner("a", &[writer]), &bound(&home, &text));
    }
    drop(talk);
    let mut seen: Vec<Seen> = (0..WRITERS).map(|_| Seen::default()).collect();
    let mut lives = 0;
    while seen.iter().any(|seen| !seen.closed) {
        lives += 1;
        let open = &mut seen;
        local_in_runtime(Talk::with(&home), |processes| async move {
            processes.session(name("a"), Blob::default(), Duration::from_millis(LONG)).await.unwrap();
            for state in processes.session_processes(name("a")).await.unwrap() {
                let writer = usize::from(state.start.owner.unwrap().blob.as_bytes()[0]);
                let seen = &mut open[writer];
                let id = state.start.id;
                let mut process = processes.follow_from(id, Watching::Output, Seq(seen.after)).await.unwrap();
                for _ in 0..LIFE {
                    let Some(event) = process.next_event().await.unwrap() else { break };
                    seen.note(event);
                }
            }
        });
    }
    assert!(lives > 2, "{lives}");
    for (writer, seen) in (0..WRITERS).zip(seen) {
        let expected: String = (1..=100).map(|line| format!("{writer}.{line}\n")).collect();
        assert_eq!(seen.text, expected);
        assert_eq!(seen.end, Some(ExitStatus::Exited { code: writer }));
    }
}
