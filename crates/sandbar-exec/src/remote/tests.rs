//! A client and servers that do not behave, on links in memory and by a clock that nobody waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

use sandbar_proto::exec::InitializeResult;
use sandbar_rpc::{Call, CloseReason, Connection, Limits, Responder, Sender, Service, Violation, memory};
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::*;

/// How a server disappoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// It takes the connection, and says nothing.
    Silent,
    /// It greets, and hangs up.
    HangsUp,
    /// It greets, answers one request, and hangs up.
    AnswersOne,
}

/// The way to such a server. Counts how often it was gone.
struct Way {
    manners: Manners,
    dials: Arc<AtomicUsize>,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Dial for Way {
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::Relaxed);
            let (client, server, link) = memory();
            let guard: Box<dyn Send> = match self.manners {
                Manners::Silent => Box::new((server, link)),
                Manners::HangsUp | Manners::AnswersOne => {
                    let (sender, connection) = Connection::new(server, Limits::default());
                    tokio::spawn(connection.run(Arc::new(Greeter { manners: self.manners, sender })));
                    Box::new(link)
                }
            };
            Ok(Dialed { transport: client, patience: PATIENCE, is_far: false, guard: Some(guard) })
        })
    }
}

/// A server that greets.
struct Greeter {
    manners: Manners,
    sender: Sender,
}

impl Greeter {
    fn hang_up(&self) {
        self.sender.close(CloseReason::local("that is all"));
    }
}

impl Service for Greeter {
    fn request(self: &Arc<Self>, call: Call, responder: Responder) {
        if call.method == method::INITIALIZE {
            let session_id = "s".to_owned();
            responder.ok(&InitializeResult { session_id, environment_info: None, extensions: None });
            return;
        }
        responder.ok(&json!({}));
        self.hang_up();
    }

    fn notification(self: &Arc<Self>, _: &str, _: Option<&RawValue>) -> Result<(), Violation> {
        if self.manners == Manners::HangsUp {
            self.hang_up();
        }
        Ok(())
    }

    fn closed(self: &Arc<Self>, _: &CloseReason) {}
}

/// A client of such a server, and how often it has connected.
fn client_of(manners: Manners) -> (Remote, Arc<AtomicUsize>) {
    let dials = Arc::new(AtomicUsize::new(0));
    let way = Way { manners, dials: Arc::clone(&dials) };
    (Remote::new(way, "test", Settings::default()), dials)
}

async fn ask(remote: &Remote) -> Result<(), RemoteError> {
    remote.call::<IgnoredAny>(method::ENVIRONMENT_STATUS, &json!({})).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_a_connection_and_never_greets_is_given_up_in_time() {
    let (remote, dials) = client_of(Manners::Silent);
    let begun = Instant::now();
    let gone = RemoteError::Gone("the server has not greeted for 10s".into());
    assert_eq!(ask(&remote).await, Err(gone.clone()));
    assert_eq!((begun.elapsed().as_secs(), dials.load(Ordering::Relaxed)), (PATIENCE.as_secs(), 1));
    assert_eq!(ask(&remote).await, Err(gone), "nobody waits a second time");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_greets_and_hangs_up_for_ever_is_given_up_like_one_that_is_gone() {
    let (remote, dials) = client_of(Manners::HangsUp);
    let settings = Settings::default();
    let begun = Instant::now();
    let refused = ask(&remote).await.unwrap_err();
    assert!(matches!(&refused, RemoteError::Gone(why) if !why.is_empty()), "{refused:?}");
    let (took, least) = (begun.elapsed(), settings.resume_for);
    assert!((least..least + 2 * settings.longest_pause).contains(&took), "{took:?}");
    // With a pause between two that grows to its longest.
    let most = 10 + usize::try_from(least.as_secs() / settings.longest_pause.as_secs()).unwrap();
    assert!(dials.load(Ordering::Relaxed) <= most, "{dials:?} of {most}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_before_it_hangs_up_is_there_however_often_it_does() {
    let (remote, dials) = client_of(Manners::AnswersOne);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&remote).await, Ok(()));
        tokio::time::sleep(Settings::default().longest_pause).await;
    }
    assert!(begun.elapsed() > Settings::default().resume_for, "longer than one that is gone would be sought");
    assert!(dials.load(Ordering::Relaxed) >= 50);
}
