//! The connection of a client: made, greeted, lost, and made again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use sandbar_proto::exec::{EnvironmentInfo, Extensions, InitializeParams, InitializeResult, method};
use sandbar_proto::rpc::code;
use sandbar_rpc::{CloseReason, Connection, Limits, RequestError, Sender};
use tokio::sync::watch;
use tokio::time::Instant;

use super::service::Notices;
use super::{DialError, Dialed, Shared};

/// What of our extensions is asked of every server; others ignore it.
const WANTED: Extensions =
    Extensions { binary_output: true, credit: true, records: true, gaps: true, zstd: false, tail: true };

/// How it stands with the connection.
#[derive(Clone)]
pub(super) enum Link {
    /// One is being made.
    Connecting,
    /// It stands.
    Up(Arc<Up>),
    /// There will be none any more.
    Down(Arc<str>),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("Connecting"),
            Self::Up(up) => write!(f, "Up({})", up.epoch),
            Self::Down(why) => write!(f, "Down({why})"),
        }
    }
}

/// A connection that stands.
pub(super) struct Up {
    /// Which one it is, from 1 on.
    pub(super) epoch: u64,
    pub(super) sender: Sender,
    pub(super) extensions: Extensions,
    pub(super) info: Option<EnvironmentInfo>,
}

/// Why a connection came to nothing.
enum Failed {
    /// It may come to something yet.
    Now(String),
    /// Not with the session that was to be resumed.
    Session(String),
    /// Never.
    ForGood(String),
}

/// Ends when nobody has the client any more.
pub(super) type Users = watch::Receiver<Link>;

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        if error.is_final { Self::ForGood(error.message) } else { Self::Now(error.message) }
    }
}

/// Keeps a connection for as long as somebody has the client.
pub(super) async fn drive(client: Weak<Shared>, mut users: Users) {
    let mut session: Option<String> = None;
    let mut epoch = 0;
    let mut lost: Option<Instant> = None;
    let mut attempt: u32 = 0;
    let mut stood = false;
    loop {
        let Some(shared) = client.upgrade() else { return };
        let settings = shared.settings;
        let failed = match shared.dial.dial().await {
            Ok(dialed) => {
                epoch += 1;
                let known = session.clone();
                // Not held while it stands: its users are what keeps it.
                let weak = Arc::downgrade(&shared);
                drop(shared);
                match converse(weak, &mut users, dialed, epoch, known).await {
                    Ended::Lost { session: was, why, was_useful } => {
                        session = Some(was);
                        stood = true;
                        // A server that greets and hangs up is not there, however often it does so.
                        if was_useful {
                            (lost, attempt) = (None, 0);
                        }
                        Failed::Now(why)
                    }
                    Ended::Failed(failed) => failed,
                    Ended::Abandoned => return,
                }
            }
            Err(error) => error.into(),
        };
        let failed = match failed {
            // It waited too long for us, or its server forgot it. What is detached runs on and is attached to again.
            Failed::Session(why) if session.take().is_some() => Failed::Now(why),
            Failed::Session(why) => Failed::ForGood(why),
            Failed::Now(_) | Failed::ForGood(_) => failed,
        };
        let Some(shared) = client.upgrade() else { return };
        let since = *lost.get_or_insert_with(Instant::now);
        let why = match failed {
            Failed::ForGood(why) => Some(why),
            // Nothing is lost before the first connection, and who typed an address wrong wants to know at once.
            Failed::Now(why) if !stood => Some(why),
            Failed::Now(why) if since.elapsed() >= settings.resume_for => Some(why),
            Failed::Now(_) | Failed::Session(_) => None,
        };
        if let Some(why) = why {
            shared.link.send_replace(Link::Down(why.into()));
            shared.inboxes().values().for_each(|inbox| inbox.wake());
            return;
        }
        shared.link.send_replace(Link::Connecting);
        drop(shared);
        let pause = settings.first_pause.saturating_mul(1 << attempt.min(16)).min(settings.longest_pause);
        // The first attempt comes at once: most connections that break can be had again.
        if attempt > 0 {
            tokio::time::sleep(pause).await;
        }
        attempt += 1;
    }
}

/// How a connection ended.
enum Ended {
    /// It stood, and was lost.
    Lost { session: String, why: String, was_useful: bool },
    /// It never stood.
    Failed(Failed),
    /// Nobody has the client any more.
    Abandoned,
}

async fn converse(
    client: Weak<Shared>,
    users: &mut Users,
    dialed: Dialed,
    epoch: u64,
    known: Option<String>,
) -> Ended {
    let Dialed { transport, patience, is_far, guard: _guard } = dialed;
    let Some(shared) = client.upgrade() else { return Ended::Abandoned };
    let (sender, connection) = Connection::new(transport, Limits::default());
    let params = InitializeParams {
        client_name: shared.client_name.clone(),
        resume_session_id: known.clone(),
        // The old connection may not have been missed yet.
        takeover: known.is_some(),
        extensions: Some(Extensions { zstd: is_far, ..WANTED }),
    };
    drop(shared);
    // The first packed message may come right behind the answer.
    sender.take_packed();
    let has_told = Arc::new(AtomicBool::new(false));
    let running = connection.run(Notices::new(client.clone(), Arc::clone(&has_told)));
    tokio::pin!(running);
    let greeted = tokio::select! {
        greeted = greet(&sender, &params) => greeted,
        () = tokio::time::sleep(patience) => {
            Err(Failed::Now(format!("the server has not greeted for {patience:?}")))
        }
        reason = &mut running => Err(Failed::Now(reason.to_string())),
    };
    let result = match greeted {
        Ok(result) => result,
        Err(failed) => {
            sender.close(CloseReason::local("the server did not agree"));
            return Ended::Failed(failed);
        }
    };
    let session = result.session_id;
    if result.extensions.is_some_and(|extensions| extensions.zstd) {
        sender.send_packed();
    }
    let up = Up {
        epoch,
        sender: sender.clone(),
        extensions: result.extensions.unwrap_or_default(),
        info: result.environment_info,
    };
    let Some(shared) = client.upgrade() else { return Ended::Abandoned };
    shared.link.send_replace(Link::Up(Arc::new(up)));
    shared.inboxes().values().for_each(|inbox| inbox.wake());
    drop(shared);
    let reason = tokio::select! {
        reason = &mut running => reason,
        () = gone(users) => {
            sender.close(CloseReason::local("the client has ended"));
            let _ = running.await;
            return Ended::Abandoned;
        }
    };
    // The greeting is a result as well. Counted here, since whoever asked last may not have looked at the answer yet.
    let was_useful = has_told.load(Ordering::Relaxed) || sender.results() > 1;
    Ended::Lost { session, why: reason.to_string(), was_useful }
}

/// Waits until nobody has the client any more, and with it the sending side.
async fn gone(users: &mut Users) {
    while users.changed().await.is_ok() {}
}

async fn greet(sender: &Sender, params: &InitializeParams) -> Result<InitializeResult, Failed> {
    let answer = match sender.request(method::INITIALIZE, params).await {
        Ok(answer) => answer,
        Err(RequestError::Refused(error)) if error.code == code::SESSION_ATTACHED => {
            return Err(Failed::Now(error.message));
        }
        Err(RequestError::Refused(error)) if params.resume_session_id.is_some() => {
            return Err(Failed::Session(error.message));
        }
        Err(RequestError::Refused(error)) => return Err(Failed::ForGood(error.message)),
        Err(error) => return Err(Failed::Now(error.to_string())),
    };
    let result: InitializeResult = serde_json::from_str(answer.get())
        .map_err(|error| Failed::ForGood(format!("the server's greeting makes no sense: {error}")))?;
    sender
        .notify(method::INITIALIZED, &serde_json::json!({}))
        .map_err(|closed| Failed::Now(closed.to_string()))?;
    Ok(result)
}
