//! `process/start`: from what a client asks to a process of its session.

use std::sync::Arc;

use sandbar_policy::managed::{self, Places, Wanted};
use sandbar_policy::{CacheMode, Compiled, GitMode, Profile, RunRequest};
use sandbar_proto::exec::{FileSystemSandbox, LegacyPolicy, StartParams, StartResult};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{
    AbsPath, AfterLeader, Blob, ByteString, Lifetime, LimitFacts, Limits, NetworkMode, OutputMode, Owner,
    RunId, StdinMode, Stdio, Terminal, TerminalSize,
};

use super::environment::{self, Surroundings};
use super::process::{Live, Memo};
use super::session::Session;
use super::{Host, Shared, follower, refusal};
use crate::start::{self, NotStarted};
use crate::{Handles, Process, StartOptions, Watching, facts};

/// Bytes of output that are kept of a process for clients that come later.
const RETENTION_BYTES: u64 = 16 * 1024 * 1024;

const SIGKILL: i32 = 9;

/// The peer's name for what confines a process on Linux.
const CONFINED: &str = "linuxSeccomp";
const UNCONFINED: &str = "none";

/// Starts a process, whose follower begins when `begin` is called: after the answer was sent.
///
/// # Errors
/// What is asked for can't be had, or failed. Nothing is left behind, and the name is free again.
pub(super) async fn start(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    params: StartParams,
) -> Result<(StartResult, Begin), RpcError> {
    let asked = Asked::check(&params)?;
    session.reserve(&params.process_id)?;
    let reserved = Reserved { session, id: &params.process_id, is_settled: false };
    let started = carry_out(shared, session, &params, asked).await?;
    Ok(reserved.settle(started))
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
struct Reserved<'a> {
    session: &'a Arc<Session>,
    id: &'a str,
    is_settled: bool,
}

impl Reserved<'_> {
    fn settle(mut self, (memo, process): (Memo, Box<dyn Process>)) -> (StartResult, Begin) {
        self.is_settled = true;
        let result = StartResult {
            process_id: memo.process_id.clone(),
            sandbox_type: Some(memo.sandbox_type.clone()),
        };
        let live = Live::new(memo, process.record(), process.control());
        if !self.session.settle(&live) {
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
        if params.argv.first().is_none_or(String::is_empty) {
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
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    params: &StartParams,
    asked: Asked,
) -> Result<(Memo, Box<dyn Process>), RpcError> {
    let wanted = wanted(&shared.host, &asked.cwd, params)?;
    let sandboxed = wanted.profile != Profile::DangerFullAccess;
    if params.enforce_managed_network && (!sandboxed || wanted.network != NetworkMode::Off) {
        return Err(refusal::unsupported(
            "`enforceManagedNetwork` needs a sandbox whose network is restricted: there is no proxy here yet",
        ));
    }
    let surroundings = Surroundings { sandboxed, network: wanted.network };
    let env = environment::resolve(&shared.host.env, params, surroundings)?;
    let memo = Memo {
        process_id: params.process_id.clone(),
        sandbox_type: if sandboxed { CONFINED } else { UNCONFINED }.to_owned(),
        has_input: params.tty || params.pipe_stdin,
    };
    let blob = serde_json::to_vec(&memo).map_err(|error| refusal::params(error.to_string()))?;
    if blob.len() > Blob::MAX_BYTES {
        return Err(refusal::params(format!("`processId` is longer than {} bytes", Blob::MAX_BYTES / 2)));
    }
    shared.sessions.ensure_lease(session).await.map_err(|error| refusal::process(&error))?;
    let mut request = request(&shared.host, asked.cwd, wanted);
    request.argv = params.argv.iter().map(|argument| ByteString::from(argument.as_str())).collect();
    request.arg0 = params.arg0.as_deref().map(ByteString::from);
    request.env = env;
    (request.stdio, request.terminal) = streams(params);
    request.lifetime = if params.detached { Lifetime::Detached } else { Lifetime::Session };
    let options = || {
        Ok::<_, std::convert::Infallible>(StartOptions {
            id: asked.run,
            watching: Watching::Lossless,
            handles: Handles::default(),
            rollout: None,
            owner: Some(Owner { session: Some(session.id.clone()), blob: Blob::from(blob.clone()) }),
        })
    };
    let (request, compiled) = plan(request).await?;
    let started =
        start::start(&shared.processes, (request, &LimitFacts::default()), compiled, options, |_| {}).await;
    let process = started.map_err(|error| match error {
        NotStarted::Options(never) => match never {},
        NotStarted::Plan(error) => refusal::plan(&error),
        NotStarted::Start(error) => refusal::start(&error),
    })?;
    Ok((memo, process))
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
        (None, Some(legacy)) => Ok(managed::read_legacy(legacy, places)),
        (None, None) => Ok(managed::read_legacy(&LegacyPolicy::DangerFullAccess, places)),
    }
}

/// A request for `wanted`, with everything that is not about the sandbox at its default.
pub(super) fn request(host: &Host, cwd: AbsPath, wanted: Wanted) -> RunRequest {
    RunRequest {
        argv: Vec::new(),
        arg0: None,
        cwd,
        profile: wanted.profile,
        network: Some(wanted.network),
        allow_write: wanted.allow_write,
        may_write: wanted.may_write,
        allow_read: Vec::new(),
        carve_outs: wanted.carve_outs,
        git: match wanted.git {
            GitMode::Commit => GitMode::Commit,
            GitMode::Protect => GitMode::Protect,
        },
        caches: CacheMode::CopyOnWrite,
        env: Vec::new(),
        stdio: Stdio { stdin: StdinMode::Null, stdout: OutputMode::Logged, stderr: OutputMode::Logged },
        terminal: None,
        attributes: host.attributes.clone(),
        limits: Limits::default(),
        lifetime: Lifetime::Session,
        // A grandchild may go on writing, as the dialect has it.
        after_leader: AfterLeader::Wait,
        retention_bytes: RETENTION_BYTES,
        home: host.home.clone(),
        own: host.own.clone(),
        runtime_roots: host.runtime_roots.clone(),
    }
}

/// Plans on a thread that may wait for a file system.
///
/// # Errors
/// The policy refuses the request.
pub(super) async fn plan(request: RunRequest) -> Result<(RunRequest, Compiled), RpcError> {
    let planned = tokio::task::spawn_blocking(move || {
        let compiled = facts::plan(&request, &LimitFacts::default());
        (request, compiled)
    });
    let (request, compiled) = planned.await.map_err(|error| refusal::invalid("plan", error.to_string()))?;
    Ok((request, compiled.map_err(|error| refusal::plan(&error))?))
}

fn streams(params: &StartParams) -> (Stdio, Option<Terminal>) {
    if params.tty {
        let size = params.size.unwrap_or(TerminalSize::USUAL);
        let stdio =
            Stdio { stdin: StdinMode::Terminal, stdout: OutputMode::Terminal, stderr: OutputMode::Terminal };
        return (stdio, Some(Terminal { size, modes: None }));
    }
    let stdin = if params.pipe_stdin { StdinMode::Piped } else { StdinMode::Null };
    (Stdio { stdin, stdout: OutputMode::Logged, stderr: OutputMode::Logged }, None)
}
