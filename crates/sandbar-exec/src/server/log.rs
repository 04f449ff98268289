//! What a server did, for whoever keeps watch: one entry for each request, with what it came to.
//!
//! Says nothing of contents: no arguments, no paths, no output. A session is named by its beginning, since all of its name is
//! what resumes it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbar_proto::rpc::RpcError;
use sandbar_rpc::auth::Principal;
use sandbar_rpc::{Call, Responder};

use super::session::Session;

/// Characters of a session's name that are told.
const SESSION: usize = 8;

/// One request that was answered.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The connection, by a number of this server's.
    pub connection: u64,
    /// Whose it is.
    pub principal: &'a str,
    /// The beginning of its session's name, once it has one.
    pub session: Option<&'a str>,
    /// What was asked for.
    pub method: &'a str,
    /// The trace that its client says it belongs to (W3C Trace Context).
    pub traceparent: Option<&'a str>,
    /// How long it took, waiting included.
    pub took: Duration,
    /// The refusal's code and kind.
    pub error: Option<(i64, Option<&'a str>)>,
}

/// Where entries go. Called wherever an answer is given; must not block.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&Entry<'_>) + Send + Sync>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// A log that is written by `write`.
    pub fn new(write: impl Fn(&Entry<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Writes an entry when the request is answered.
    pub(super) fn watch(
        &self,
        responder: &mut Responder,
        call: &Call,
        (connection, principal): (u64, &Principal),
        session: Option<&Session>,
    ) {
        let (log, begun) = (self.clone(), Instant::now());
        let (method, principal) = (call.method.clone(), principal.clone());
        let session = session.map(|session| session.id.as_str().chars().take(SESSION).collect::<String>());
        let traceparent = call.trace.as_ref().and_then(|trace| trace.traceparent.clone());
        responder.when_answered(move |error: Option<&RpcError>| {
            (log.0)(&Entry {
                connection,
                principal: principal.as_str(),
                session: session.as_deref(),
                method: &method,
                traceparent: traceparent.as_deref(),
                took: begun.elapsed(),
                error: error.map(|error| (error.code, error.kind())),
            });
        });
    }
}
