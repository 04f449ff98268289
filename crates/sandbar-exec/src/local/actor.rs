//! The task that owns the connection to the keeper.
//!
//! Takes requests from handles through a bounded queue (a full one makes the handle wait), pairs answers with
//! their requests, and keeps the newest state of every registered process. Ends when the connection does, or
//! when the last handle is dropped; whoever still waits is told why. A request that waits for too long is told as well,
//! and goes on waiting: what it asked for may have been done.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use sandbar_keeper::protocol::{Event, Reply, Request};
use sandbar_keeper::{Client, ClientError, Incoming, Patience};
use sandbar_proto::{EndRecord, OutputTotals, RunId, Seq, TakeoverReason};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::processes::ProcessError;

/// Requests that wait for the task; each handle has at most one or two under way.
const QUEUE: usize = 64;

/// A request on its way to the keeper.
pub(crate) struct Outgoing {
    pub(crate) request: Request,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Outgoing {
    pub(crate) fn plain(request: Request) -> Self {
        Self { request, body: Vec::new(), fds: Vec::new() }
    }
}

/// The newest that is known of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    pub(crate) output: OutputTotals,
    pub(crate) end: Option<EndRecord>,
    pub(crate) closed: Option<Seq>,
    pub(crate) stalled: bool,
    /// Counts how often stdin got room again.
    pub(crate) stdin_room: u64,
    /// Counts how often the leader was stopped.
    pub(crate) stops: u64,
    /// The signal that stopped it last.
    pub(crate) stop_signal: i32,
    /// Why nothing more will come.
    pub(crate) lost: Option<String>,
}

/// Runs that nobody records, as the keeper tells them to its attendant.
#[derive(Debug)]
pub struct Unattended {
    waiting: watch::Sender<Waiting>,
    news: watch::Receiver<Waiting>,
}

/// Those that were not given out yet.
#[derive(Debug, Default)]
struct Waiting {
    runs: BTreeMap<RunId, TakeoverReason>,
    is_lost: bool,
}

impl Unattended {
    /// Waits until there are some, and gives each out once; `None` when the keeper is gone.
    pub async fn next(&mut self) -> Option<BTreeMap<RunId, TakeoverReason>> {
        let found = self.news.wait_for(|waiting| !waiting.runs.is_empty() || waiting.is_lost).await;
        drop(found.ok()?);
        let mut runs = BTreeMap::new();
        self.waiting.send_if_modified(|waiting| {
            runs = std::mem::take(&mut waiting.runs);
            false
        });
        (!runs.is_empty()).then_some(runs)
    }
}

enum Message {
    Request(Outgoing, oneshot::Sender<Result<Reply, ProcessError>>),
    Notify(Request),
    Register(RunId, oneshot::Sender<watch::Receiver<News>>),
    Unregister(RunId),
    Unattended(oneshot::Sender<Unattended>),
}

/// The way to the task.
#[derive(Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<Message>,
}

fn gone() -> ProcessError {
    ProcessError::Lost("the connection has ended".to_owned())
}

impl Handle {
    /// Whether the task has ended, and the connection with it.
    pub(crate) fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    /// Sends a request and waits for its answer. A refusal is an answer.
    pub(crate) async fn request(&self, outgoing: Outgoing) -> Result<Reply, ProcessError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Request(outgoing, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Sends a request that has no answer, if there is room; the next one makes up for a lost one.
    pub(crate) fn notify(&self, request: Request) -> bool {
        self.messages.try_send(Message::Notify(request)).is_ok()
    }

    /// Starts to keep the state of a process; before its start, so that nothing is missed.
    pub(crate) async fn register(&self, id: RunId) -> Result<watch::Receiver<News>, ProcessError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Register(id, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Begins to keep what nobody records.
    pub(crate) async fn unattended(&self) -> Result<Unattended, ProcessError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Unattended(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Forgets a process whose start failed, or that has ended before it was followed. Whoever asks holds one receiver
    /// of its news; while there is another one, they are kept.
    pub(crate) async fn unregister(&self, id: RunId) {
        // A task that has ended remembers nothing.
        let _ = self.messages.send(Message::Unregister(id)).await;
    }

    /// Notes how often stdin had room again, before a write that may find it full.
    pub(crate) async fn stdin_room(&self, id: RunId) -> StdinRoom {
        let news = self.register(id).await.ok();
        let seen = news.as_ref().map_or(0, |news| news.borrow().stdin_room);
        StdinRoom { news, seen }
    }
}

/// Waits until a full stdin has room.
pub(crate) struct StdinRoom {
    news: Option<watch::Receiver<News>>,
    seen: u64,
}

impl StdinRoom {
    pub(crate) async fn wait(self) -> Result<(), ProcessError> {
        let Some(mut news) = self.news else { return Err(gone()) };
        let seen = self.seen;
        // Waits as long as the process does not read its input: that is what a full pipe means.
        let found =
            news.wait_for(|news| news.stdin_room != seen || news.lost.is_some() || news.end.is_some()).await;
        match found {
            Ok(news) if news.lost.is_some() => Err(gone()),
            Ok(_) => Ok(()),
            Err(_) => Err(gone()),
        }
    }
}

/// Starts the task.
///
/// # Errors
/// The runtime can't watch the socket.
pub(crate) fn spawn(client: Client, patience: Patience) -> std::io::Result<Handle> {
    let (messages, inbox) = mpsc::channel(QUEUE);
    #[expect(
        deprecated,
        reason = "its replacement is unsafe for owners that could exchange their descriptor; Client never does"
    )]
    let connection = AsyncFd::with_interest(client, Interest::READABLE | Interest::WRITABLE)?;
    let actor = Actor {
        connection,
        inbox,
        waiting: Pending { answers: BTreeMap::new(), patience, is_told: false },
        processes: HashMap::new(),
        unattended: watch::channel(Waiting::default()).0,
    };
    tokio::spawn(actor.run());
    Ok(Handle { messages })
}

type Answer = oneshot::Sender<Result<Reply, ProcessError>>;

struct Actor {
    connection: AsyncFd<Client>,
    inbox: mpsc::Receiver<Message>,
    waiting: Pending,
    processes: HashMap<RunId, watch::Sender<News>>,
    unattended: watch::Sender<Waiting>,
}

/// Requests that the keeper has not answered, and since when. News are not among them: a process may be silent for as
/// long as it likes.
struct Pending {
    /// By number, so the first is the oldest.
    answers: BTreeMap<u64, (Instant, Answer)>,
    patience: Patience,
    /// Whether this silence was told; one that follows an answer is another.
    is_told: bool,
}

impl Pending {
    fn add(&mut self, req: u64, answer: Answer) {
        self.answers.insert(req, (Instant::now(), answer));
    }

    fn remove(&mut self, req: u64) -> Option<Answer> {
        self.is_told = false;
        self.answers.remove(&req).map(|(_, answer)| answer)
    }

    /// When the oldest will have waited for too long.
    fn due(&self) -> Option<Instant> {
        let (since, _) = self.answers.values().next().filter(|_| !self.is_told)?;
        Some(*since + self.patience.silence())
    }

    fn run_out(&mut self) {
        self.is_told = true;
        self.patience.run_out();
    }
}

/// Waits until `due`, or for ever.
async fn passed(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Actor {
    async fn run(mut self) {
        let reason = loop {
            let interest = if self.connection.get_ref().has_queued() {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let due = self.waiting.due();
            let result = tokio::select! {
                () = passed(due) => {
                    self.waiting.run_out();
                    Ok(())
                }
                message = self.inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                ready = self.connection.ready_mut(interest) => match ready {
                    Ok(mut guard) => {
                        let readiness = guard.ready();
                        let result = converse(guard.get_inner_mut(), readiness);
                        match result {
                            Ok(Spoken { incoming, emptied, filled }) => {
                                if emptied {
                                    guard.clear_ready_matching(Ready::READABLE);
                                }
                                if filled {
                                    guard.clear_ready_matching(Ready::WRITABLE);
                                }
                                incoming.into_iter().for_each(|incoming| self.hear(incoming));
                                Ok(())
                            }
                            Err(error) => Err(error),
                        }
                    }
                    Err(_) => break "it can't be watched".to_owned(),
                },
            };
            if let Err(error) = result {
                break error.to_string();
            }
        };
        self.end(&reason);
    }

    fn take(&mut self, message: Message) -> Result<(), ClientError> {
        let client = self.connection.get_mut();
        match message {
            Message::Request(outgoing, answer) => {
                let req = client.request(outgoing.request, &outgoing.body, outgoing.fds)?;
                self.waiting.add(req, answer);
            }
            Message::Notify(request) => client.notify(request)?,
            Message::Register(id, answer) => {
                let news = self.processes.entry(id).or_insert_with(|| watch::channel(News::default()).0);
                // Whoever asked may have gone.
                let _ = answer.send(news.subscribe());
                return Ok(());
            }
            Message::Unattended(answer) => {
                // Whoever asked may have gone.
                let (waiting, news) = (self.unattended.clone(), self.unattended.subscribe());
                let _ = answer.send(Unattended { waiting, news });
                return Ok(());
            }
            Message::Unregister(id) => {
                // Somebody else may follow it through this connection.
                if self.processes.get(&id).is_some_and(|news| news.receiver_count() <= 1) {
                    self.processes.remove(&id);
                }
                return Ok(());
            }
        }
        // Most requests fit at once; the rest goes when the socket says so.
        client.flush().map(drop)
    }

    fn hear(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Reply(req, reply) => {
                if let Some(answer) = self.waiting.remove(req) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(reply));
                }
            }
            Incoming::Event(event) => self.note(event),
        }
    }

    fn note(&mut self, event: Event) {
        if let Event::Unattended { id, reason } = event {
            self.unattended.send_modify(|waiting| {
                waiting.runs.insert(id, reason);
            });
            return;
        }
        let (id, closes) = match &event {
            Event::Closed { id, .. } => (*id, true),
            Event::Output { id, .. }
            | Event::StdinReady { id }
            | Event::Stalled { id }
            | Event::Stopped { id, .. }
            | Event::Unattended { id, .. }
            | Event::Exited { id, .. } => (*id, false),
        };
        if let Some(news) = self.processes.get(&id) {
            news.send_modify(|news| news.update(event));
        }
        if closes {
            self.processes.remove(&id);
        }
    }

    fn end(self, reason: &str) {
        self.unattended.send_modify(|waiting| waiting.is_lost = true);
        for (_, answer) in self.waiting.answers.into_values() {
            let _ = answer.send(Err(ProcessError::Lost(reason.to_owned())));
        }
        for (_, news) in self.processes {
            news.send_modify(|news| news.lost = Some(reason.to_owned()));
        }
    }
}

/// What one wake-up of the socket led to.
struct Spoken {
    incoming: Vec<Incoming>,
    /// There was nothing more to read.
    emptied: bool,
    /// There was no more room to write.
    filled: bool,
}

/// Reads and writes what the socket is ready for.
fn converse(client: &mut Client, readiness: Ready) -> Result<Spoken, ClientError> {
    // Enough to empty an ordinary burst in one wake-up, few enough to let requests in between.
    const MOST: usize = 32;
    let mut spoken = Spoken { incoming: Vec::new(), emptied: false, filled: false };
    if readiness.is_readable() || readiness.is_read_closed() {
        while spoken.incoming.len() < MOST {
            match client.receive() {
                Ok(Some(incoming)) => spoken.incoming.push(incoming),
                Ok(None) => {
                    spoken.emptied = true;
                    break;
                }
                // What came before the end counts; the end comes again.
                Err(_) if !spoken.incoming.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
    }
    if readiness.is_writable() && client.has_queued() {
        spoken.filled = !client.flush()?;
    }
    Ok(spoken)
}

impl News {
    fn update(&mut self, event: Event) {
        match event {
            Event::Output { output, .. } => {
                self.output = output;
                self.stalled = false;
            }
            Event::Unattended { .. } => {}
            Event::StdinReady { .. } => self.stdin_room += 1,
            Event::Stalled { .. } => self.stalled = true,
            Event::Stopped { signal, .. } => {
                self.stops += 1;
                self.stop_signal = signal;
            }
            Event::Exited { end, .. } => self.end = Some(end),
            Event::Closed { seq, output, .. } => {
                self.output = output;
                self.closed = Some(seq);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
    use sandbar_keeper::protocol::{self, Message};
    use sandbar_keeper::{KeeperDir, Unanswered};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    const SILENCE: Duration = Duration::from_millis(20);

    /// A handle, the keeper's end of its connection, and what is told.
    fn pair() -> (Handle, OwnedFd, UnboundedReceiver<Unanswered>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, keeper) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (sender, told) = unbounded_channel();
        let nowhere = KeeperDir::at("/nowhere".into());
        let patience = Patience::new(nowhere, SILENCE, move |fact| sender.send(fact).unwrap());
        (spawn(Client::new(own), patience).unwrap(), keeper, told)
    }

    fn answer(keeper: &OwnedFd, req: u64) {
        let packet = protocol::encode(&Message::Reply { req, reply: Reply::Done }, &[]).unwrap();
        rustix::net::send(keeper, &packet, SendFlags::empty()).unwrap();
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_silent_keeper_is_told_once_and_still_waited_for() {
        runtime().block_on(async {
            let (handle, keeper, mut told) = pair();
            for req in 1..=2 {
                let asker = handle.clone();
                let asked = tokio::spawn(async move { asker.request(Outgoing::plain(Request::Stop)).await });
                let expected = Unanswered { pid: None, waited: SILENCE, is_stopped: false };
                assert_eq!(told.recv().await, Some(expected), "each silence is told");
                answer(&keeper, req);
                assert_eq!(asked.await.unwrap().unwrap(), Reply::Done);
            }
            drop(handle);
            assert_eq!(told.recv().await, None, "and told once");
        });
    }

    #[test]
    fn only_requests_that_wait_for_an_answer_are_waited_for() {
        runtime().block_on(async {
            let silence = Patience::new(KeeperDir::at("/nowhere".into()), SILENCE, |_| {});
            let mut waiting = Pending { answers: BTreeMap::new(), patience: silence, is_told: false };
            assert_eq!(waiting.due(), None, "a process that is followed may be silent");
            let (answer, _answered) = oneshot::channel();
            let before = Instant::now();
            waiting.add(1, answer);
            assert!(waiting.due().is_some_and(|due| due >= before + SILENCE));
            waiting.run_out();
            assert_eq!(waiting.due(), None, "told");
            let (answer, _answered) = oneshot::channel();
            waiting.add(2, answer);
            assert_eq!(waiting.due(), None, "the same silence");
            waiting.remove(1);
            assert!(waiting.due().is_some());
            waiting.remove(2);
            assert_eq!(waiting.due(), None);
        });
    }
}
