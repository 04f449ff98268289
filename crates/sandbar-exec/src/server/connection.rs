//! One connection: the order of its first messages, and which method means what.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandbar_proto::exec::{
    CloseOutputParams, CloseStdinParams, ConfigRead, ConfigReadParams, Credit, DiscoverParams, Discovered,
    EnvironmentStatus, Extensions, InitializeParams, InitializeResult, ListParams, ProcessParams, ReadParams,
    ResizeParams, SignalParams, StartParams, TerminateParams, TerminateResult, WaitParams, WriteParams,
    WriteResult, WriteStatus, method,
};
use sandbar_proto::rpc::RpcError;
use sandbar_rpc::auth::Principal;
use sandbar_rpc::{Call, CloseReason, Responder, Sender, Service, Violation};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::files::ConnectionFiles;
use super::http::ConnectionHttp;
use super::process::Live;
use super::reading::Reading;
use super::session::{Attachment, Entry, Session};
use super::{Shared, attach, config, discovery, launch, refusal};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How long a tree gets to end by itself when the client says nothing about it and names a signal.
const GRACE: Duration = Duration::from_secs(2);

/// Longest grace that a client may give.
const MAX_GRACE: Duration = Duration::from_secs(3600);

/// Largest result that passes data which waits.
const SMALL_BYTES: usize = 16 * 1024;

/// An answer that a result without members makes.
#[derive(Serialize)]
struct Nothing {}

/// What the reader of one transport calls.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    principal: Principal,
    sender: Sender,
    number: u64,
    files: ConnectionFiles,
    http: ConnectionHttp,
    phase: Mutex<Phase>,
    /// See [`Attachment::answering`].
    answering: Arc<watch::Sender<()>>,
}

/// How far the first exchange is.
#[derive(Debug, Clone)]
enum Phase {
    /// Nothing was said, or what was said failed.
    New,
    /// `initialize` is being answered.
    Greeting,
    /// It was answered.
    Greeted(Arc<Session>),
    /// `initialized` came.
    Ready(Arc<Session>),
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, principal: Principal, sender: Sender) -> Arc<Self> {
        let number = shared.sessions.number();
        let files = ConnectionFiles::new(number, sender.clone());
        let http = ConnectionHttp::new(sender.clone());
        let phase = Mutex::new(Phase::New);
        Arc::new(Self { shared, principal, sender, number, files, http, phase, answering: Arc::default() })
    }

    fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The session, for methods of a kind.
    fn ready(&self, kind: &str) -> Result<Arc<Session>, RpcError> {
        match self.phase() {
            Phase::New | Phase::Greeting => Err(refusal::invalid(
                "not_initialized",
                format!("client must call initialize before using {kind} methods"),
            )),
            Phase::Greeted(_) => Err(refusal::invalid(
                "not_initialized",
                format!("client must send initialized before using {kind} methods"),
            )),
            Phase::Ready(session) if session.is_attached_to(self.number) => Ok(session),
            // It hears so in a moment.
            Phase::Ready(_) => Err(refusal::resumed_elsewhere()),
        }
    }

    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult, RpcError> {
        let wanted = params.extensions.unwrap_or_default();
        // What of the wishes is had here.
        let binary_output = wanted.binary_output && self.sender.has_binary();
        let zstd = wanted.zstd && self.sender.has_binary();
        let extensions = Extensions { binary_output, zstd, ..wanted };
        if zstd {
            self.sender.take_packed();
            self.sender.send_packed();
        }
        let attachment = Attachment {
            connection: self.number,
            sender: self.sender.clone(),
            extensions,
            answering: Arc::clone(&self.answering),
            resumed: None,
        };
        let sessions = &self.shared.sessions;
        let session = match params.resume_session_id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => sessions.resume(id, &self.principal, attachment, params.takeover).await?,
            None => sessions.begin(self.principal.clone(), attachment)?,
        };
        let result = InitializeResult {
            session_id: session.id.as_str().to_owned(),
            environment_info: Some(self.shared.host.info()),
            extensions: params.extensions.map(|_| extensions),
        };
        self.set_phase(Phase::Greeted(Arc::clone(&session)));
        if self.sender.close_reason().is_some() {
            // It ended before that, and nobody told the session.
            session.detach(self.number);
        }
        Ok(result)
    }

    fn greet(self: &Arc<Self>, call: &Call, responder: Responder) {
        {
            let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(*phase, Phase::New) {
                drop(phase);
                responder.err(refusal::invalid(
                    "initialized_twice",
                    "initialize may only be sent once per connection",
                ));
                return;
            }
            *phase = Phase::Greeting;
        }
        let params = call.params::<InitializeParams>();
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            let result = match params {
                Ok(params) => connection.initialize(params).await,
                Err(error) => Err(error),
            };
            if result.is_err() {
                // It may be tried again.
                connection.set_phase(Phase::New);
            }
            responder.answer(result);
        });
    }

    fn process(self: &Arc<Self>, call: Call, responder: Responder) {
        let session = match self.ready("exec") {
            Ok(session) => session,
            Err(error) => return responder.err(error),
        };
        let connection = Arc::clone(self);
        let in_hand = self.answering.subscribe();
        tokio::spawn(async move {
            connection.carry_out(&session, &call, responder).await;
            drop(in_hand);
        });
    }

    fn file(self: &Arc<Self>, call: Call, responder: Responder) {
        if let Err(error) = self.ready("filesystem") {
            return responder.err(error);
        }
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            match connection.files.call(&connection.shared, call).await {
                // A connection that ended needs no answer.
                Ok(result) if result.get().len() > SMALL_BYTES => drop(responder.data_json(result).await),
                Ok(result) => responder.ok(&result),
                Err(error) => responder.err(error),
            }
        });
    }

    fn http(self: &Arc<Self>, call: Call, responder: Responder) {
        // Whoever may connect could reach whatever this machine reaches.
        if !self.shared.http.is_on() {
            return responder.err(refusal::invalid(
                "disabled",
                "http/request is off on this exec server: it would let every client use its network",
            ));
        }
        if let Err(error) = self.ready("http") {
            return responder.err(error);
        }
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            let Shared { http, host, .. } = &*connection.shared;
            connection.http.request(http, &host.env, call.params(), responder).await;
        });
    }

    /// Tells of this machine what lies in its files.
    fn describe(self: &Arc<Self>, kind: &str, call: Call, responder: Responder) {
        if let Err(error) = self.ready(kind) {
            return responder.err(error);
        }
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            // A connection that ended needs no answer.
            let answered = if call.method == method::CAPABILITIES_DISCOVER_V2 {
                match connection.discover(&call).await {
                    Ok(found) => responder.data_ok(&found).await,
                    Err(error) => return responder.err(error),
                }
            } else {
                match connection.read_config(&call).await {
                    Ok(read) => responder.data_ok(&read).await,
                    Err(error) => return responder.err(error),
                }
            };
            drop(answered);
        });
    }

    async fn read_config(&self, call: &Call) -> Result<ConfigRead, RpcError> {
        let params: ConfigReadParams = call.params()?;
        let (sandbox, legacy) = (params.sandbox.as_ref(), params.sandbox_policy.as_ref());
        let reading = Reading::new(&self.files, &self.shared, sandbox, legacy)?;
        config::read(&self.shared.host, &reading, &params).await
    }

    async fn discover(&self, call: &Call) -> Result<Discovered, RpcError> {
        let params: DiscoverParams = call.params()?;
        let (sandbox, legacy) = (params.sandbox.as_ref(), params.sandbox_policy.as_ref());
        let reading = Reading::new(&self.files, &self.shared, sandbox, legacy)?;
        discovery::discover(&self.shared.host, &reading).await
    }

    async fn carry_out(&self, session: &Arc<Session>, call: &Call, responder: Responder) {
        match call.method.as_str() {
            method::PROCESS_START => match self.start(session, call).await {
                Ok((result, begin)) => {
                    responder.ok(&result);
                    if let Some(begin) = begin {
                        begin.now();
                    }
                }
                Err(error) => responder.err(error),
            },
            method::PROCESS_READ => match self.read(session, call, &responder).await {
                // What is large takes its place behind other data, and news of the process behind it. A connection that
                // ended needs no answer.
                Some(Ok((live, result))) => {
                    drop(responder.data_ok(&result).await);
                    live.note_read(self.number, result.next_seq);
                }
                Some(Err(error)) => responder.err(error),
                None => drop(responder),
            },
            method::PROCESS_WAIT => {
                let ended = self.wait(session, call, &responder).await;
                responder.answer(ended);
            }
            method::PROCESS_WRITE => responder.answer(self.write(session, call).await),
            method::PROCESS_SIGNAL => responder.answer(self.signal(session, call).await),
            method::PROCESS_TERMINATE => responder.answer(self.terminate(session, call).await),
            method::PROCESS_RESIZE => responder.answer(self.resize(session, call).await),
            method::PROCESS_CLOSE_STDIN => responder.answer(self.close_stdin(session, call).await),
            method::PROCESS_LIST => responder.answer(list(session, call)),
            method::PROCESS_CLOSE_OUTPUT => responder.answer(self.close_output(session, call).await),
            method::PROCESS_RECORDS => match self.records(call).await {
                Ok(page) => drop(responder.data_ok(&page).await),
                Err(error) => responder.err(error),
            },
            method::PROCESS_ATTACH => match self.attach(session, call).await {
                Ok((started, begin)) => {
                    responder.ok(&started);
                    begin.now();
                }
                Err(error) => responder.err(error),
            },
            other => responder.err(refusal::unknown_method(other)),
        }
    }

    async fn start(
        &self,
        session: &Arc<Session>,
        call: &Call,
    ) -> Result<(sandbar_proto::exec::StartResult, Option<launch::Begin>), RpcError> {
        let params: StartParams = call.params()?;
        launch::start(&self.shared, session, params).await
    }

    /// `None` if the connection ended, and with it the wish for an answer.
    async fn read(
        &self,
        session: &Arc<Session>,
        call: &Call,
        responder: &Responder,
    ) -> Option<Result<(Arc<Live>, sandbar_proto::exec::ReadResult), RpcError>> {
        let read = async {
            let params: ReadParams = call.params()?;
            let live = session.live(&params.process_id)?;
            let asked = params.after_seq.unwrap_or(0).saturating_add(1);
            live.note_asked(self.number, asked);
            let attachment = session.attachment();
            let records = attachment.is_some_and(|attachment| attachment.extensions.records);
            let result = live.read(&params, records).await?;
            Ok((live, result))
        };
        tokio::select! {
            biased;
            result = read => Some(result),
            () = session.lost(self.number) => Some(Err(refusal::resumed_elsewhere())),
            () = responder.closed() => None,
        }
    }

    async fn wait(
        &self,
        session: &Arc<Session>,
        call: &Call,
        responder: &Responder,
    ) -> Result<sandbar_proto::exec::ExitCode, RpcError> {
        let params: WaitParams = call.params()?;
        let live = session.live(&params.process_id)?;
        let limit = async {
            match params.wait_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                // As long as the process runs: that is what was asked for.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = live.wait() => ended,
            () = limit => Ok(sandbar_proto::exec::ExitCode::default()),
            () = session.lost(self.number) => Err(refusal::resumed_elsewhere()),
            () = responder.closed() => Err(refusal::resumed_elsewhere()),
        }
    }

    async fn write(&self, session: &Arc<Session>, call: &Call) -> Result<WriteResult, RpcError> {
        let params: WriteParams = call.params()?;
        if params.write_id.as_deref() == Some("") {
            return Err(refusal::params("writeId must not be empty"));
        }
        let status = match session.entry(&params.process_id) {
            None => WriteStatus::UnknownProcess,
            Some(Entry::Starting(_)) => WriteStatus::Starting,
            Some(Entry::Live(live)) => {
                let mut stdin = live.stdin.lock().await;
                let name = (&session.id, live.id(), params.write_id.as_deref());
                let written = stdin.write(&*live.control, name, &params.chunk.0).await;
                match written {
                    Ok(status) => status,
                    // Whoever has ended reads nothing.
                    Err(_) if live.progress.borrow().exit.is_some() => WriteStatus::StdinClosed,
                    Err(error) => return Err(refusal::process(&error)),
                }
            }
        };
        Ok(WriteResult { status })
    }

    async fn signal(&self, session: &Arc<Session>, call: &Call) -> Result<impl Serialize + use<>, RpcError> {
        let params: SignalParams = call.params()?;
        let number = refusal::signal(&params.signal)?;
        if let Some(Entry::Live(live)) = session.entry(&params.process_id)
            && live.progress.borrow().exit.is_none()
        {
            live.unless_over(live.control.signal(number).await)?;
        }
        Ok(Nothing {})
    }

    async fn terminate(&self, session: &Arc<Session>, call: &Call) -> Result<TerminateResult, RpcError> {
        let params: TerminateParams = call.params()?;
        let signal = params.signal.as_ref().map(refusal::signal).transpose()?;
        let grace = params.grace_ms.map(Duration::from_millis);
        let (signal, grace) = match (signal, grace) {
            // The dialect's own: at once.
            (None, None) => (SIGKILL, Duration::ZERO),
            (signal, grace) => (signal.unwrap_or(SIGTERM), grace.unwrap_or(GRACE).min(MAX_GRACE)),
        };
        // One whose start is under way ends as soon as it has begun, also when whoever asked is gone by then.
        let Some(live) = session.settled(&params.process_id).await else {
            return Ok(TerminateResult { running: false });
        };
        let (running, is_over) = {
            let progress = live.progress.borrow();
            (progress.exit.is_none(), progress.is_over())
        };
        if is_over {
            return Ok(TerminateResult { running: false });
        }
        // Also where only the leader has ended: what it left behind is what is meant.
        live.unless_over(live.control.terminate(signal, grace).await)?;
        Ok(TerminateResult { running })
    }

    async fn resize(&self, session: &Arc<Session>, call: &Call) -> Result<impl Serialize + use<>, RpcError> {
        let params: ResizeParams = call.params()?;
        let live = session.live(&params.process_id)?;
        live.unless_over(live.control.resize(params.size).await)?;
        Ok(Nothing {})
    }

    async fn attach(
        &self,
        session: &Arc<Session>,
        call: &Call,
    ) -> Result<(sandbar_proto::exec::Started, launch::Begin), RpcError> {
        attach::attach(&self.shared, session, call.params()?).await
    }

    async fn records(&self, call: &Call) -> Result<sandbar_proto::exec::RecordsPage, RpcError> {
        attach::records(&self.shared, call.params()?).await
    }

    async fn close_output(
        &self,
        session: &Arc<Session>,
        call: &Call,
    ) -> Result<impl Serialize + use<>, RpcError> {
        let params: CloseOutputParams = call.params()?;
        let live = session.live(&params.process_id)?;
        live.unless_over(live.control.close_output(params.stream).await)?;
        Ok(Nothing {})
    }

    async fn close_stdin(
        &self,
        session: &Arc<Session>,
        call: &Call,
    ) -> Result<impl Serialize + use<>, RpcError> {
        let params: CloseStdinParams = call.params::<ProcessParams>()?;
        let live = session.live(&params.process_id)?;
        let mut stdin = live.stdin.lock().await;
        live.unless_over(stdin.close(&*live.control).await)?;
        Ok(Nothing {})
    }
}

fn list(session: &Session, call: &Call) -> Result<sandbar_proto::exec::Page, RpcError> {
    let params: ListParams = call.params()?;
    Ok(session.page(params.after.as_deref()))
}

impl Service for Connection {
    fn request(self: &Arc<Self>, call: Call, mut responder: Responder) {
        if let Some(log) = &self.shared.log {
            let session = match self.phase() {
                Phase::Greeted(session) | Phase::Ready(session) => Some(session),
                Phase::New | Phase::Greeting => None,
            };
            log.watch(&mut responder, &call, (self.number, &self.principal), session.as_deref());
        }
        match call.method.as_str() {
            method::INITIALIZE => self.greet(&call, responder),
            method::ENVIRONMENT_INFO => responder.answer(self.ready("exec").map(|_| self.shared.host.info())),
            method::ENVIRONMENT_STATUS => {
                responder.answer(self.ready("exec").map(|_| EnvironmentStatus::Ready));
            }
            method::HTTP_REQUEST => self.http(call, responder),
            method::ENVIRONMENT_CONFIG_READ => self.describe("environment config", call, responder),
            method::CAPABILITIES_DISCOVER_V2 => self.describe("capability discovery", call, responder),
            name if name.starts_with("fs/") => self.file(call, responder),
            name if name.starts_with("process/") => self.process(call, responder),
            name => responder.err(refusal::unknown_method(name)),
        }
    }

    fn notification(self: &Arc<Self>, method: &str, params: Option<&RawValue>) -> Result<(), Violation> {
        if method == method::PROCESS_CREDIT
            && let (Phase::Ready(session), Some(params)) = (self.phase(), params)
        {
            let credit = serde_json::from_str::<Credit>(params.get());
            // For one that is not known here any more it means nothing.
            if let Ok(Credit { process_id, bytes }) = credit
                && session.is_attached_to(self.number)
                && let Some(Entry::Live(live)) = session.entry(&process_id)
            {
                live.grant(self.number, bytes);
            }
            return Ok(());
        }
        if method != method::INITIALIZED {
            return Err(Violation::UnknownNotification { method: method.to_owned() });
        }
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        match &*phase {
            Phase::New | Phase::Greeting => {
                Err(Violation::OutOfOrder { what: "`initialized` before `initialize`".into() })
            }
            Phase::Greeted(session) => {
                *phase = Phase::Ready(Arc::clone(session));
                Ok(())
            }
            // A second one is harmless.
            Phase::Ready(_) => Ok(()),
        }
    }

    fn is_long_poll(&self, method: &str, params: Option<&RawValue>) -> bool {
        match method {
            method::PROCESS_WAIT => true,
            method::PROCESS_READ => params.is_some_and(|params| {
                serde_json::from_str::<ReadParams>(params.get())
                    .is_ok_and(|read| read.wait_ms.unwrap_or(0) > 0)
            }),
            _ => false,
        }
    }

    fn closed(self: &Arc<Self>, _reason: &CloseReason) {
        if let Phase::Greeted(session) | Phase::Ready(session) = self.phase() {
            session.detach(self.number);
        }
    }
}
