//! `process/start`: from what a client asks to a process of its session.

use std::sync::Arc;

use sandbar_policy::managed::{self, Places};
use sandbar_policy::{
    Access, Compiled, EntryPath, GitMode, Note, Profile, RunRequest, TablePlaces, UnknownProfile, Wanted,
};
use sandbar_proto::exec::{
    FileSystemSandbox, LegacyPolicy, PlanNote, PlanSummary, RunIntent, StartParams, StartResult, Started,
    WirePath,
};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{
    AbsPath, AfterLeader, Blob, ByteString, Lifetime, LimitFacts, NetworkMode, OutputMode, Owner, RunId,
    StdinMode, Stdio, Terminal, TerminalSize,
};

use super::environment::{self, Surroundings};
use super::process::{Live, Memo};
use super::session::Session;
use super::{Host, Shared, attach, follower, refusal};
use crate::local::LocalProcesses;
use crate::start::{self, NotStarted, Told};
use crate::{Handles, Process, StartOptions, Watching, facts};

const SIGKILL: i32 = 9;

/// The peer's name for what confines a process on Linux.
const CONFINED: &str = "linuxSeccomp";
const UNCONFINED: &str = "none";

/// Starts a process, whose follower begins when `begin` is called: after the answer was sent. There is none to begin
/// where the same start was carried out before, for a client that did not hear of it.
///
/// # Errors
/// What is asked for can't be had, or failed. Nothing is left behind, and the name is free again.
pub(super) async fn start(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    params: StartParams,
) -> Result<(StartResult, Option<Begin>), RpcError> {
    let asked = Asked::check(&params)?;
    let wants_records = session.attachment().is_some_and(|attachment| attachment.extensions.records);
    if params.start_id.is_some()
        && let Some(live) = session.started_before(&params.process_id, asked.run).await
    {
        let mut result = live.start_result();
        result.started = result.started.filter(|_| wants_records);
        return Ok((result, None));
    }
    session.reserve(&params.process_id, asked.run)?;
    let reserved = Reserved::new(session, &params.process_id);
    let held = shared.keeper.alive().await.map_err(|error| refusal::process(&error))?;
    let (memo, process, plan) = carry_out((shared, &held.to.processes), session, &params, asked).await?;
    let (mut result, begin) = reserved.settle(memo, (process, held.to.readers), Some(plan));
    result.started = result.started.filter(|_| wants_records);
    Ok((result, Some(begin)))
}

/// Begins to follow a process that was started.
pub(super) struct Begin {
    session: Arc<Session>,
    live: Arc<Live>,
    process: Box<dyn Process>,
}

impl Begin {
    /// From here on its client hears of it.
    pub(super) fn now(self) {
        tokio::spawn(follower::follow(Arc::downgrade(&self.session), self.live, self.process));
    }
}

/// The name of a process whose start is under way.
pub(super) struct Reserved<'a> {
    session: &'a Arc<Session>,
    id: &'a str,
    is_settled: bool,
}

impl<'a> Reserved<'a> {
    /// A name that was reserved.
    pub(super) fn new(session: &'a Arc<Session>, id: &'a str) -> Self {
        Self { session, id, is_settled: false }
    }

    /// Gives the name to a process.
    pub(super) fn settle(
        mut self,
        memo: Memo,
        (process, processes): (Box<dyn Process>, LocalProcesses),
        plan: Option<PlanSummary>,
    ) -> (StartResult, Begin) {
        self.is_settled = true;
        let started = Started { plan, ..attach::started(&*process) };
        let live = Live::new(memo, started, process.control(), processes);
        let result = live.start_result();
        if !self.session.settle(&live) && !live.is_detached {
            // The session ended while the process began.
            let control = process.control();
            tokio::spawn(async move {
                // One that is gone needs no end.
                let _ = control.terminate(SIGKILL, std::time::Duration::ZERO).await;
            });
        }
        (result, Begin { session: Arc::clone(self.session), live, process })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.session.release(self.id);
        }
    }
}

/// What was checked before anything is done.
struct Asked {
    cwd: AbsPath,
    run: RunId,
}

impl Asked {
    fn check(params: &StartParams) -> Result<Self, RpcError> {
        if params.argv.first().is_none_or(|program| program.as_bytes().is_empty()) {
            return Err(refusal::params("argv must name a program"));
        }
        let Some(cwd) = &params.cwd else { return Err(refusal::params("missing field `cwd`")) };
        let unsupported = [
            (params.shell_snapshot, "shellSnapshot"),
            (params.managed_network, "managedNetwork"),
            (params.network_proxy, "networkProxy"),
            (params.credential_providers, "credentialProviders"),
        ];
        for (value, name) in unsupported {
            if value.is_some_and(|value| !value.is_empty) {
                return Err(refusal::unsupported(format!("`{name}` is no capability of this exec server")));
            }
        }
        let has_sandbox = params.sandbox.is_some() || params.sandbox_policy.is_some();
        if params.run.is_some() && (has_sandbox || params.enforce_managed_network) {
            return Err(refusal::params("`run` and a sandbox in other words exclude each other"));
        }
        if params.enforce_managed_network && !has_sandbox {
            return Err(refusal::unsupported("`enforceManagedNetwork` needs a sandbox, and none was sent"));
        }
        if params.size.is_some() && !params.tty {
            return Err(refusal::params("`size` is that of a terminal, and `tty` is false"));
        }
        let run = match &params.start_id {
            Some(text) => text.parse().map_err(|_| refusal::params("`startId` must be a UUID"))?,
            None => RunId::generate(),
        };
        Ok(Self { cwd: cwd.0.clone(), run })
    }
}

async fn carry_out(
    (shared, processes): (&Arc<Shared>, &LocalProcesses),
    session: &Arc<Session>,
    params: &StartParams,
    asked: Asked,
) -> Result<(Memo, Box<dyn Process>, PlanSummary), RpcError> {
    let wanted = match &params.run {
        Some(run) => intended(&shared.host, &asked.cwd, run)?,
        None => wanted(&shared.host, &asked.cwd, params)?,
    };
    let sandboxed = wanted.profile.has_sandbox();
    if params.enforce_managed_network && (!sandboxed || wanted.network != NetworkMode::Off) {
        return Err(refusal::unsupported(
            "`enforceManagedNetwork` needs a sandbox whose network is restricted: there is no proxy here yet",
        ));
    }
    let thread = params.run.is_some().then_some(asked.run);
    let surroundings = Surroundings { sandboxed, network: wanted.network, thread };
    let network = wanted.network;
    let env = environment::resolve(&shared.host.env, params, surroundings)?;
    let memo = Memo {
        process_id: params.process_id.clone(),
        sandbox_type: if sandboxed { CONFINED } else { UNCONFINED }.to_owned(),
        has_input: params.tty || params.pipe_stdin,
        is_viewed: false,
    };
    let blob = serde_json::to_vec(&memo).map_err(|error| refusal::params(error.to_string()))?;
    if blob.len() > Blob::MAX_BYTES {
        return Err(refusal::params(format!("`processId` is longer than {} bytes", Blob::MAX_BYTES / 2)));
    }
    shared.sessions.ensure_lease(session).await.map_err(|error| refusal::process(&error))?;
    let mut request = request(&shared.host, asked.cwd, wanted);
    request.argv.clone_from(&params.argv);
    request.arg0 = params.arg0.as_deref().map(ByteString::from);
    let withheld_env = u32::try_from(env.withheld_count()).unwrap_or(u32::MAX);
    request.env = env.vars;
    (request.stdio, request.terminal) = streams(params);
    request.lifetime = if params.detached { Lifetime::Detached } else { Lifetime::Session };
    if let Some(run) = &params.run {
        request.allow_read = run.allow_read.iter().map(|path| path.0.clone()).collect();
        request.limits = run.limits;
        // As `sandbar run`: what the command leaves behind ends with it.
        request.after_leader = AfterLeader::Kill;
    }
    let options = || {
        Ok::<_, std::convert::Infallible>(StartOptions {
            id: asked.run,
            watching: Watching::Lossless,
            handles: Handles::default(),
            rollout: None,
            owner: Some(Owner { session: Some(session.id.clone()), blob: Blob::from(blob.clone()) }),
        })
    };
    let (request, compiled) = plan(request, shared.host.limits.clone()).await?;
    let mut summary = summary(&compiled, network, withheld_env);
    let told = |told: Told<'_>| match told {
        // That bubblewrap makes the sandbox is nothing that a client misses, except for the caches.
        Told::WithoutCaches(_) | Told::ByBwrap => summary.notes.push(without_caches()),
        Told::ByLandlock(notes) => summary.notes.extend(notes.iter().map(plan_note)),
    };
    let started = start::start(processes, (request, &shared.host.limits), compiled, options, told).await;
    let process = started.map_err(|error| match error {
        NotStarted::Options(never) => match never {},
        NotStarted::Plan(error) => refusal::plan(&error),
        NotStarted::Start(error) => refusal::start(&error),
        NotStarted::NoExecutor { error, landlock } => refusal::no_executor(&error, &landlock),
    })?;
    Ok((memo, process, summary))
}

/// What a plan comes to, for a client's person.
fn summary(compiled: &Compiled, network: NetworkMode, withheld_env: u32) -> PlanSummary {
    let entries = compiled.permissions.entries().iter();
    let writable = entries.filter(|entry| {
        // A pattern grants nothing.
        entry.access == Access::Write && matches!(entry.pattern, EntryPath::Path(_))
    });
    PlanSummary {
        network,
        writable_roots: writable.map(|entry| WirePath(entry.pattern.base().clone())).collect(),
        notes: compiled.notes.iter().map(plan_note).collect(),
        withheld_env,
    }
}

fn plan_note(note: &Note) -> PlanNote {
    PlanNote { text: note.to_string(), is_warning: note.is_warning() }
}

fn without_caches() -> PlanNote {
    let text = "caches can't be mounted copy-on-write there; they are read-only in this run.".to_owned();
    PlanNote { text, is_warning: false }
}

/// What a client wants in the words of `sandbar run`.
///
/// # Errors
/// No profile has that name, or it says what means nothing here.
fn intended(host: &Host, cwd: &AbsPath, run: &RunIntent) -> Result<Wanted, RpcError> {
    let mut wanted = match run.profile.parse::<Profile>() {
        Ok(profile) => Wanted::of(profile),
        Err(UnknownProfile { name, .. }) => {
            let unknown = || refusal::invalid("unknown_profile", format!("no profile is named {name:?}"));
            let table = host.profiles.iter().find(|table| table.name == name).ok_or_else(unknown)?;
            let tmpdir = host.tmpdir();
            let places = TablePlaces { cwd, home: host.home.as_ref(), tmpdir: tmpdir.as_ref() };
            table.wanted(places).map_err(|error| refusal::invalid("bad_profile", error.to_string()))?
        }
    };
    wanted.network = run.network.unwrap_or(wanted.network);
    wanted.allow_write.extend(run.allow_write.iter().map(|path| path.0.clone()));
    if run.protect_git {
        wanted.git = GitMode::Protect;
    }
    Ok(wanted)
}

/// What a client wants of a sandbox; without a word about it there is none, as the dialect says.
///
/// # Errors
/// It can't be had.
pub(super) fn wanted(host: &Host, cwd: &AbsPath, params: &StartParams) -> Result<Wanted, RpcError> {
    read_sandbox(host, cwd, params.sandbox.as_ref(), params.sandbox_policy.as_ref())
}

/// As [`wanted`], of any request that may carry a sandbox.
///
/// # Errors
/// It can't be had, or both shapes were sent.
pub(super) fn read_sandbox(
    host: &Host,
    cwd: &AbsPath,
    sandbox: Option<&FileSystemSandbox>,
    legacy: Option<&LegacyPolicy>,
) -> Result<Wanted, RpcError> {
    let tmpdir = host.tmpdir();
    let places = Places { cwd, tmpdir: tmpdir.as_ref() };
    match (sandbox, legacy) {
        (Some(_), Some(_)) => Err(refusal::params("`sandbox` and `sandboxPolicy` exclude each other")),
        (Some(sandbox), None) => managed::read(sandbox, places).map_err(|error| refusal::sandbox(&error)),
        (None, Some(legacy)) => {
            managed::read_legacy(legacy, places).map_err(|error| refusal::sandbox(&error))
        }
        (None, None) => Ok(Wanted::of(Profile::DangerFullAccess)),
    }
}

/// A request for `wanted`, with everything that is not about the sandbox at its default.
pub(super) fn request(host: &Host, cwd: AbsPath, wanted: Wanted) -> RunRequest {
    let request = RunRequest {
        argv: Vec::new(),
        search: host.search_path(),
        git_env: host.git_env(),
        attributes: host.attributes.clone(),
        lifetime: Lifetime::Session,
        // A grandchild may go on writing, as the dialect has it.
        after_leader: AfterLeader::Wait,
        home: host.home.clone(),
        runtime_roots: host.runtime_roots.clone(),
        ..RunRequest::new(cwd, host.own.clone())
    };
    wanted.of_request(request)
}

/// Plans on a thread that may wait for a file system.
///
/// # Errors
/// The policy refuses the request.
pub(super) async fn plan(
    request: RunRequest,
    limits: LimitFacts,
) -> Result<(RunRequest, Compiled), RpcError> {
    let planned = tokio::task::spawn_blocking(move || {
        let compiled = facts::plan(&request, &limits);
        (request, compiled)
    });
    let (request, compiled) = planned.await.map_err(|error| refusal::invalid("plan", error.to_string()))?;
    Ok((request, compiled.map_err(|error| refusal::plan(&error))?))
}

fn streams(params: &StartParams) -> (Stdio, Option<Terminal>) {
    if params.tty {
        let size = params.size.unwrap_or(TerminalSize::USUAL);
        let is_separate = params.run.as_ref().is_some_and(|run| run.separate_stderr);
        let stderr = if is_separate { OutputMode::Logged } else { OutputMode::Terminal };
        let stdio = Stdio { stdin: StdinMode::Terminal, stdout: OutputMode::Terminal, stderr };
        return (stdio, Some(Terminal { size, modes: None }));
    }
    let stdin = if params.pipe_stdin { StdinMode::Piped } else { StdinMode::Null };
    (Stdio { stdin, stdout: OutputMode::Logged, stderr: OutputMode::Logged }, None)
}
