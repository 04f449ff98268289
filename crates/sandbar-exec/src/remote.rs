//! Processes of a machine elsewhere, through its exec server.
//!
//! A [`Remote`] connects when it is first used and stays connected: a lost connection is made again, and the session is
//! resumed, within a time. Requests wait meanwhile; processes go on, and what they wrote is read behind what was seen.
//! Every event of a process comes once, in its order, or is said to be missing.
//!
//! Speaks the dialect of Codex 0.169 and uses what a server of ours has on top. Checks no path and no program: what
//! exists there is for the server to know.

pub mod dial;
mod inbox;
mod link;
mod process;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbar_proto::exec::{
    AttachParams, EnvironmentInfo, Extensions, RecordsPage, RecordsParams, RunRecord, StartParams,
    StartResult, Started, method,
};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{RunId, Seq};
use sandbar_rpc::{RequestError, Transport};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, watch};

use crate::{BoxFuture, Process};
use inbox::Inbox;
use link::{Link, Up};
pub use process::RemoteControl;
use process::RemoteProcess;

/// A connection that was made, and whatever has to live as long as it does.
pub struct Dialed {
    /// The connection.
    pub transport: Transport,
    /// How long its server may take to greet; a person may have to type something first.
    pub patience: Duration,
    /// Whether bytes on it cost more than the time to pack them: it leaves this machine.
    pub is_far: bool,
    /// Such as the program whose standard streams it is.
    pub guard: Option<Box<dyn Send>>,
}

/// Why no connection was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// In words.
    pub message: String,
    /// Whether trying again makes no sense: a refused token, an address that is none.
    pub is_final: bool,
}

/// Makes connections to one server, as often as it takes.
pub trait Dial: Send + Sync {
    /// Makes one.
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>>;
}

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a lost connection is made again: a server's session waits as long.
    pub resume_for: Duration,
    /// First pause between two attempts; it doubles.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// Output of one process that may be under way or wait here, in bytes.
    pub window_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resume_for: Duration::from_secs(80),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
            window_bytes: 1024 * 1024,
        }
    }
}

/// Why something was not done elsewhere.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RemoteError {
    /// There is no connection, and none will be.
    #[error("{0}")]
    Gone(Arc<str>),
    /// The connection was lost before the answer came; it may have been done.
    #[error("the connection was lost before the answer came, so it may have been done: {0}")]
    Unanswered(String),
    /// The server refused.
    #[error("{}", .0.message)]
    Refused(RpcError),
    /// It can't be sent: it is too large, or has no form.
    #[error("{0}")]
    Unsendable(String),
    /// The server's answer means nothing here.
    #[error("the server's answer to {method} makes no sense: {why}")]
    Answer {
        /// What was asked.
        method: String,
        /// What the decoder says.
        why: String,
    },
    /// The server has none of our extensions.
    #[error("the exec server can't do this: it is not one of Sandbar's")]
    NotOurs,
}

impl RemoteError {
    /// The server's stable name for its refusal.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => error.kind(),
            Self::Gone(_)
            | Self::Unanswered(_)
            | Self::Unsendable(_)
            | Self::Answer { .. }
            | Self::NotOurs => None,
        }
    }
}

/// A machine elsewhere. Clones share the connection; it ends with the last of them and of their processes.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("link", &*self.shared.link.borrow()).finish_non_exhaustive()
    }
}

struct Shared {
    dial: Box<dyn Dial>,
    settings: Settings,
    client_name: String,
    link: watch::Sender<Link>,
    driver: OnceCell<()>,
    inboxes: Mutex<HashMap<String, Arc<Inbox>>>,
}

impl Shared {
    fn inbox(&self, process: &str) -> Option<Arc<Inbox>> {
        self.inboxes().get(process).cloned()
    }

    fn inboxes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Inbox>>> {
        // Nothing below panics while it holds the lock.
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for the events of a process, made before its start and given up with it.
struct Registered {
    shared: Arc<Shared>,
    id: String,
    inbox: Arc<Inbox>,
}

impl Registered {
    fn new(shared: &Arc<Shared>, id: &str, after: u64) -> Self {
        let inbox = Arc::new(Inbox::new(after, shared.settings.window_bytes));
        shared.inboxes().insert(id.to_owned(), Arc::clone(&inbox));
        Self { shared: Arc::clone(shared), id: id.to_owned(), inbox }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.inboxes().remove(&self.id);
    }
}

/// Runs of a list; no machine keeps so many on record.
const MOST_RECORDS: usize = 1_000_000;

/// Where somebody who comes later begins with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Behind the event with this number; `Seq(0)` is the beginning.
    Behind(Seq),
    /// With so many bytes of its last output, or some more; a server that can't begin there begins with all of it.
    Tail(u64),
}

/// Whether a request may be made again on another connection when its answer got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// The second time changes nothing.
    Harmless,
    /// It could be done twice.
    Twice,
}

impl Remote {
    /// A client called `client_name` of the server that `dial` reaches. Connects to nothing yet.
    #[must_use]
    pub fn new(dial: impl Dial + 'static, client_name: &str, settings: Settings) -> Self {
        let shared = Shared {
            dial: Box::new(dial),
            settings,
            client_name: client_name.to_owned(),
            link: watch::channel(Link::Connecting).0,
            driver: OnceCell::new(),
            inboxes: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The connection that stands, made if need be.
    async fn up(&self) -> Result<Arc<Up>, RemoteError> {
        let driver = async {
            tokio::spawn(link::drive(Arc::downgrade(&self.shared), self.shared.link.subscribe()));
        };
        self.shared.driver.get_or_init(|| driver).await;
        let mut link = self.shared.link.subscribe();
        let stands = link.wait_for(|link| !matches!(link, Link::Connecting)).await;
        // The sender lives in `shared`, which we hold.
        let link = stands.map_err(|_| RemoteError::Gone("the client has ended".into()))?;
        match &*link {
            Link::Up(up) => Ok(Arc::clone(up)),
            Link::Down(why) => Err(RemoteError::Gone(Arc::clone(why))),
            Link::Connecting => Err(RemoteError::Gone("the client has ended".into())),
        }
    }

    /// As [`Self::up`], with a server of ours at the other end.
    async fn up_with_ours(&self) -> Result<Arc<Up>, RemoteError> {
        let up = self.up().await?;
        if up.extensions.records { Ok(up) } else { Err(RemoteError::NotOurs) }
    }

    /// Waits until the connection that stands is lost.
    pub async fn until_lost(&self) {
        let mut link = self.shared.link.subscribe();
        // The sender lives in `shared`.
        let _ = link.wait_for(|link| matches!(link, Link::Up(_))).await;
        let _ = link.wait_for(|link| !matches!(link, Link::Up(_))).await;
    }

    /// Waits until a connection stands again; `false` when none will.
    pub async fn until_back(&self) -> bool {
        self.up().await.is_ok()
    }

    /// What the executor is, if it says so. Connects if need be.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn info(&self) -> Result<Option<EnvironmentInfo>, RemoteError> {
        Ok(self.up().await?.info.clone())
    }

    /// What of our extensions the server has.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn extensions(&self) -> Result<Extensions, RemoteError> {
        Ok(self.up().await?.extensions)
    }

    /// Asks for something whose repetition changes nothing, such as the methods of files that read.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<R, RemoteError> {
        self.request(method, params, Again::Harmless).await
    }

    /// Asks for something that is not to be done twice: it is not repeated when its answer got lost.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn call_once<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<R, RemoteError> {
        self.request(method, params, Again::Twice).await
    }

    async fn request<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &(impl Serialize + Sync),
        again: Again,
    ) -> Result<R, RemoteError> {
        loop {
            let up = self.up().await?;
            let asked = up.sender.data_request(method, params).await;
            match asked {
                Ok(result) => {
                    return serde_json::from_str(result.get()).map_err(|error| RemoteError::Answer {
                        method: method.to_owned(),
                        why: error.to_string(),
                    });
                }
                Err(RequestError::Closed(closed)) => {
                    self.left(&up).await;
                    if again == Again::Twice {
                        return Err(RemoteError::Unanswered(closed.to_string()));
                    }
                }
                Err(RequestError::Refused(error)) => return Err(RemoteError::Refused(error)),
                Err(
                    error @ (RequestError::TooLarge { .. }
                    | RequestError::TooMany
                    | RequestError::Params { .. }),
                ) => return Err(RemoteError::Unsendable(error.to_string())),
            }
        }
    }

    /// Waits until `up` is no longer what stands.
    async fn left(&self, up: &Arc<Up>) {
        let mut link = self.shared.link.subscribe();
        let is_it = |link: &Link| matches!(link, Link::Up(now) if now.epoch == up.epoch);
        // The sender lives in `shared`.
        let _ = link.wait_for(|link| !is_it(link)).await;
    }

    /// Starts a process. `params` names it; with `start_id` the start is asked for again when its answer got lost.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing was started unless it is [`RemoteError::Unanswered`].
    pub async fn start(
        &self,
        params: StartParams,
    ) -> Result<(Box<dyn Process>, Option<Started>), RemoteError> {
        let registered = Registered::new(&self.shared, &params.process_id, 0);
        let again = if params.start_id.is_some() { Again::Harmless } else { Again::Twice };
        let up = self.up().await?;
        if params.run.is_some() && !up.extensions.records {
            return Err(RemoteError::NotOurs);
        }
        let result: StartResult = self.request(method::PROCESS_START, &params, again).await?;
        self.begin_in_sync(&registered, &up);
        let started = result.started.map(|started| *started);
        let process = RemoteProcess::new(self.clone(), registered, started.clone(), &params, None);
        Ok((Box::new(process), started))
    }

    /// What was started or attached to over a connection that still stands is told from its beginning.
    fn begin_in_sync(&self, registered: &Registered, up: &Up) {
        if matches!(&*self.shared.link.borrow(), Link::Up(now) if now.epoch == up.epoch) {
            registered.inbox.with(|order| order.sync(up.epoch, 0));
        }
    }

    /// Follows a run from there on.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn attach(&self, run: RunId, from: Beginning) -> Result<Box<dyn Process>, RemoteError> {
        let up = self.up_with_ours().await?;
        // One run may be looked at several times.
        let id = format!("{run}/{}", uuid::Uuid::new_v4());
        let (after_seq, tail_bytes) = match from {
            Beginning::Behind(seq) => (seq.0, None),
            Beginning::Tail(bytes) => (0, Some(bytes).filter(|_| up.extensions.tail)),
        };
        let registered = Registered::new(&self.shared, &id, after_seq);
        let params = AttachParams { process_id: id, run_id: run, after_seq, tail_bytes };
        let started: Started = self.request(method::PROCESS_ATTACH, &params, Again::Twice).await?;
        registered.inbox.with(|order| order.begin_behind(started.after_seq.unwrap_or(after_seq)));
        self.begin_in_sync(&registered, &up);
        let named = StartParams { process_id: params.process_id, ..StartParams::default() };
        Ok(Box::new(RemoteProcess::new(self.clone(), registered, Some(started), &named, Some(run))))
    }

    /// A hand on the process that was started under the name `process_id`, or whose start is under way.
    #[must_use]
    pub fn control(&self, process_id: &str) -> RemoteControl {
        RemoteControl::new(self.clone(), process_id.to_owned())
    }

    /// Everything on record there, oldest first, and how many keepers of another protocol there are.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn records(&self) -> Result<(Vec<RunRecord>, usize), RemoteError> {
        self.up_with_ours().await?;
        let mut all: Vec<RunRecord> = Vec::new();
        loop {
            let params = RecordsParams { after: all.last().map(|run| run.start.id) };
            let page: RecordsPage = self.call(method::PROCESS_RECORDS, &params).await?;
            let rises = page.runs.iter().all(|run| params.after.is_none_or(|after| run.start.id > after));
            if !rises || all.len() > MOST_RECORDS {
                let (method, why) = (method::PROCESS_RECORDS.to_owned(), "the list has no end".to_owned());
                return Err(RemoteError::Answer { method, why });
            }
            let is_last = !page.more || page.runs.is_empty();
            all.extend(page.runs);
            if is_last {
                return Ok((all, page.foreign_keepers));
            }
        }
    }
}
