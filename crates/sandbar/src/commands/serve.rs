//! `sandbar serve`: the exec server.
//!
//! Puts the parts together: a listener of `sandbar-rpc` that knows who connects, the server of `sandbar-exec` that knows
//! what is asked, this user's keeper that holds what runs. The bound address is the first line on standard output;
//! everything else goes to standard error.

use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sandbar_exec::server::{Connect, Connections, Figures, Host, Log, Server, Settings};
use sandbar_keeper::{Gate, RuntimeDir};
use sandbar_proto::{AbsPath, EnvVar, LimitFacts, Timestamp};
use sandbar_rpc::auth::{Auth, Principal, SignedBearer, TokenSource};
use sandbar_rpc::listen::{self, Incoming, ListenError, ListenUrl, Listener};
use sandbar_rpc::tls::TlsFiles;
use sandbar_rpc::{Connection, Limits, Side, Transport, blocking_lines};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{ServeArgs, WsAuth};
use crate::dirs::Directories;
use crate::render::{Problem, note};
use crate::{event_loop, exit, keepers, profile};

/// Runs until a signal ends it, or the other end of standard input.
///
/// # Errors
/// It can't listen, or there is no keeper.
pub(crate) fn execute(args: &ServeArgs) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    let runtime = keepers::runtime(&directories)?;
    event_loop::block_on(serve(args, &directories, &runtime))
}

async fn serve(args: &ServeArgs, directories: &Directories, runtime: &RuntimeDir) -> Result<u8, Problem> {
    let mut keeper = keepers::connect_or_start(runtime)?;
    let limits = keeper.limits()?;
    let processes = keeper.converse()?;
    let connections = Connections { processes, readers: keepers::connect_or_start(runtime)?.converse()? };
    let host = Host { http_allow: args.http_allow.clone(), ..host(directories, runtime, limits)? };
    let settings = Settings { session_ttl: args.session_ttl, ..Settings::default() };
    let server =
        Server::new(host, connections, connect(runtime), settings, args.log.then(log)).map_err(|error| {
            Problem::new(format!("could not leave a sign of life: {error}")).at(runtime.path().display())
        })?;
    let url = match &args.listen {
        Some(text) => text.parse().map_err(|error: listen::ListenUrlError| {
            Problem::new(error.to_string()).at(format!("--listen {text}")).status(exit::USAGE)
        })?,
        None => ListenUrl::Unix(runtime.path().join("exec.sock")),
    };
    match url {
        ListenUrl::Stdio => stdio(&server).await?,
        url @ (ListenUrl::Unix(_) | ListenUrl::Ws(_) | ListenUrl::Wss(_)) => {
            listen_on(&server, args, directories, &url).await?;
        }
    }
    server.shut_down().await;
    Ok(exit::OK)
}

/// Connects to the keeper that comes after one that is gone.
fn connect(runtime: &RuntimeDir) -> Connect {
    let runtime = runtime.clone();
    Arc::new(move || {
        let runtime = runtime.clone();
        Box::pin(async move {
            let entered = tokio::task::spawn_blocking(move || {
                let enter = || keepers::connect_or_start(&runtime);
                Ok::<_, Problem>((enter()?, enter()?))
            });
            let (one, other) =
                entered.await.map_err(|error| error.to_string())?.map_err(|problem| problem.what)?;
            let converse = |entered: keepers::Entered| entered.converse().map_err(|problem| problem.what);
            note("the keeper was gone with everything that it held; another one runs now.");
            Ok(Connections { processes: converse(one)?, readers: converse(other)? })
        })
    })
}

/// Serves one client over standard input and output, until it hangs up.
async fn stdio(server: &Server) -> Result<(), Problem> {
    let transport = blocking_lines(std::io::stdin(), std::io::stdout(), Side::Server)
        .map_err(|error| Problem::new(format!("could not speak over standard input and output: {error}")))?;
    let mut end = Ends::new()?;
    tokio::select! {
        () = converse(server, transport.with_peer("exec-server stdio"), Principal::new("stdio")) => {}
        () = end.wait() => {}
    }
    Ok(())
}

async fn listen_on(
    server: &Server,
    args: &ServeArgs,
    directories: &Directories,
    url: &ListenUrl,
) -> Result<(), Problem> {
    let mut settings = listen::Settings::new("exec-server", auth(args, directories, url)?);
    settings.origins.clone_from(&args.allow_origin);
    settings.tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { cert: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let figures = server.clone();
    settings.metrics = Some(Arc::new(move || metrics(figures.figures())));
    settings.refusals = Some(Arc::new(|who, why| note(format_args!("refused {who}: {why}"))));
    let mut listener = Listener::bind(url, settings).await.map_err(|error| listen_problem(&error, args))?;
    announce(&listener.url())?;
    // Whoever comes back first is served before: a resume takes over its own session. A server over standard streams takes
    // over nothing else at all, since it ends with its client.
    let adopting = server.clone();
    tokio::spawn(async move {
        if let Err(error) = adopting.adopt().await {
            note(format_args!("could not take over sessions of servers that are gone: {error}."));
        }
    });
    let mut end = Ends::new()?;
    loop {
        tokio::select! {
            Incoming { transport, principal, .. } = listener.accept() => {
                let server = server.clone();
                tokio::spawn(async move { converse(&server, transport, principal).await });
            }
            () = end.wait() => return Ok(()),
        }
    }
}

/// The first line on standard output, which clients that start a server read.
fn announce(url: &ListenUrl) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{url}").and_then(|()| out.flush()).map_err(|error| {
        Problem::new(format!("could not say where it listens: {error}")).at("standard output")
    })
}

async fn converse(server: &Server, transport: Transport, principal: Principal) {
    let (sender, connection) = Connection::new(transport, Limits::default());
    let service = server.connection(principal, sender);
    connection.run(service).await;
}

/// Who may connect. Unix sockets ask the kernel, TCP asks for a token.
fn auth(args: &ServeArgs, directories: &Directories, url: &ListenUrl) -> Result<Auth, Problem> {
    match args.ws_auth {
        Some(WsAuth::None) => return Ok(Auth::None),
        Some(WsAuth::SignedBearerToken) => {
            let secret_file = args.ws_shared_secret_file.clone().ok_or_else(|| {
                Problem::new("signed tokens need the secret that they are signed with")
                    .at("--ws-auth signed-bearer-token")
                    .advise("name its file with --ws-shared-secret-file")
                    .status(exit::USAGE)
            })?;
            return Ok(Auth::SignedBearer(SignedBearer {
                secret_file,
                issuer: args.ws_issuer.clone(),
                audience: args.ws_audience.clone(),
                max_clock_skew: args.ws_max_clock_skew,
            }));
        }
        Some(WsAuth::CapabilityToken) => {}
        None if matches!(url, ListenUrl::Unix(_)) => return peer_credentials(),
        None => {}
    }
    let source = match (&args.ws_token_sha256, &args.ws_token_file) {
        (Some(text), _) => TokenSource::from_sha256_hex(text)
            .map_err(|error| Problem::new(error.to_string()).at("--ws-token-sha256").status(exit::USAGE))?,
        (None, Some(file)) => TokenSource::File(file.clone()),
        (None, None) => TokenSource::File(default_token(directories)?),
    };
    Ok(Auth::CapabilityToken(source))
}

/// The token of this user's servers; made by the first one.
fn default_token(directories: &Directories) -> Result<PathBuf, Problem> {
    let folder = directories.own.state.as_path();
    std::fs::create_dir_all(folder).map_err(|error| {
        Problem::new(format!("could not make the folder for the token: {error}"))
            .at(folder.display())
            .advise("name another file with --ws-token-file")
    })?;
    let file = folder.join("exec-server.token");
    note(format_args!("clients need the token in {} as `Authorization: Bearer`.", file.display()));
    Ok(file)
}

fn peer_credentials() -> Result<Auth, Problem> {
    let gate = Gate::new().ok_or_else(|| {
        Problem::new("could not read this process' state, by which others are let in").at("/proc/self/status")
    })?;
    let user = rustix::process::geteuid().as_raw();
    Ok(Auth::PeerCredentials(Box::new(move |socket: BorrowedFd<'_>| {
        gate.check(socket).map(|()| Principal::new(format!("uid {user}"))).map_err(|why| why.to_string())
    })))
}

fn listen_problem(error: &ListenError, args: &ServeArgs) -> Problem {
    let at = args.listen.as_deref().unwrap_or("the default socket").to_owned();
    let problem = Problem::new(format!("could not listen: {error}")).at(at);
    match error {
        ListenError::NeedsToken { .. } => problem.advise("leave --ws-auth none out, or listen on 127.0.0.1"),
        ListenError::InUse { .. } => {
            problem.advise("connect to the server that listens there, or choose another --listen")
        }
        ListenError::NotASocket { .. } => problem.advise("choose another path"),
        ListenError::Tls { .. } => {
            problem.advise("give --tls-cert and --tls-key with wss://, and only there")
        }
        ListenError::Auth(_) => problem.advise("give the file to you alone (chmod 600), or name another one"),
        ListenError::Stdio
        | ListenError::NoCredentials { .. }
        | ListenError::Certificate(_)
        | ListenError::Io { .. } => problem,
    }
}

fn host(directories: &Directories, runtime: &RuntimeDir, limits: LimitFacts) -> Result<Host, Problem> {
    let servers = runtime.path().join("servers");
    let made = std::fs::DirBuilder::new();
    make_private(made, &servers)?;
    // Asked now: a file that is replaced later has no name any more.
    let program = std::env::current_exe().ok().and_then(|path| AbsPath::new(path.into_os_string()).ok());
    let program =
        program.ok_or_else(|| Problem::new("could not find this program's own file").at("/proc/self/exe"))?;
    let cwd = std::env::current_dir().ok().and_then(|cwd| AbsPath::new(cwd.into_os_string()).ok());
    let env: Vec<EnvVar> =
        std::env::vars_os().map(|(name, value)| EnvVar { name: name.into(), value: value.into() }).collect();
    let shell = env.iter().find(|var| var.name.as_bytes() == b"SHELL").map(|var| var.value.clone());
    let shell = shell.and_then(|shell| AbsPath::new(shell).ok());
    let usual = AbsPath::new("/bin/sh").map_err(|error| Problem::new(error.to_string()))?;
    Ok(Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program,
        env,
        cwd: cwd.or_else(|| directories.home.clone()).unwrap_or_else(AbsPath::root),
        home: directories.home.clone(),
        own: directories.own.clone(),
        runtime_roots: directories.runtime_roots.clone(),
        attributes: sandbar_sandbox::caller::attributes(),
        shell: shell.unwrap_or(usual),
        limits,
        runtime: runtime.clone(),
        servers,
        libraries: libraries(),
        profiles: profile::settings(directories)?.profiles,
        http_allow: Vec::new(),
    })
}

/// The files that are mapped into this program besides itself: its libraries, and what loads them.
fn libraries() -> Vec<AbsPath> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // The sixth column, proc_pid_maps(5); files without a name there have no slash.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    let mut paths: Vec<AbsPath> = paths
        .filter(|path| path.contains(".so"))
        .filter_map(|path| AbsPath::new(path.to_owned()).ok())
        .collect();
    if paths.is_empty() {
        // Linked statically, which is the usual case.
        return paths;
    }
    // By this name the kernel finds what loads them.
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    paths.extend(
        loaders
            .into_iter()
            .filter(|path| Path::new(path).exists())
            .filter_map(|path| AbsPath::new(path).ok()),
    );
    paths.sort();
    paths.dedup();
    paths
}

fn make_private(mut builder: std::fs::DirBuilder, path: &Path) -> Result<(), Problem> {
    use std::os::unix::fs::DirBuilderExt as _;
    match builder.mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Problem::new(format!("could not make a folder: {error}")).at(path.display()))
        }
        _ => Ok(()),
    }
}

/// Lines of JSON on standard error. docs/protocol.md describes them.
fn log() -> Log {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        time: u64,
        connection: u64,
        principal: &'a str,
        session: Option<&'a str>,
        method: &'a str,
        took_us: u128,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        traceparent: Option<&'a str>,
    }
    Log::new(|entry| {
        let line = Line {
            time: Timestamp::now().0,
            connection: entry.connection,
            principal: entry.principal,
            session: entry.session,
            method: entry.method,
            took_us: entry.took.as_micros(),
            code: entry.error.map(|(code, _)| code),
            kind: entry.error.and_then(|(_, kind)| kind),
            traceparent: entry.traceparent,
        };
        // A log that nobody takes any more is no reason to stop serving.
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            let _ = std::io::stderr().write_all(&text);
        }
    })
}

/// In Prometheus' text format.
fn metrics(figures: Figures) -> String {
    let Figures { sessions, attached, running, remembered } = figures;
    let gauges = [
        ("sandbar_sessions", "Sessions, attached or not", sessions),
        ("sandbar_sessions_attached", "Sessions with a connection", attached),
        ("sandbar_processes_running", "Processes whose leaders run", running),
        ("sandbar_processes_remembered", "Processes that sessions remember", remembered),
    ];
    let lines = gauges
        .map(|(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    lines.concat()
}

/// Waits for a signal; one that is not heeded never comes.
async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that end a server.
struct Ends {
    terminate: Option<tokio::signal::unix::Signal>,
    interrupt: Option<tokio::signal::unix::Signal>,
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Ends {
    fn new() -> Result<Self, Problem> {
        // One that was ignored when we were started stays ignored, as with nohup(1).
        let watch = |kind: SignalKind| {
            let is_heeded = !sandbar_sandbox::caller::ignores(kind.as_raw_value());
            let watched = is_heeded.then(|| signal(kind)).transpose();
            watched.map_err(|error| Problem::new(format!("could not watch for signals: {error}")))
        };
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hang_up: watch(SignalKind::hangup())?,
        })
    }

    /// Waits for one: as long as the server serves.
    async fn wait(&mut self) {
        tokio::select! {
            () = heard(&mut self.terminate) => {}
            () = heard(&mut self.interrupt) => {}
            () = heard(&mut self.hang_up) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_prometheus_words() {
        let text = metrics(Figures { sessions: 2, attached: 1, running: 3, remembered: 4 });
        assert!(text.contains("# TYPE sandbar_sessions gauge\nsandbar_sessions 2\n"));
        assert_eq!(text.lines().count(), 12);
    }
}
