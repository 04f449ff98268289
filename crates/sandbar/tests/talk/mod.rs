//! A conversation with a keeper, for tests that speak its protocol, and plans for it without a sandbox.

#![allow(dead_code, reason = "each test program uses another part")]
#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, memfd_create};
use sandbar_keeper::protocol::{Event, ProcessState, Reply, Request, Watch};
use sandbar_keeper::{Client, Incoming, KeeperDir, LogReader, Patience, RuntimeDir};
use sandbar_proto::{
    AbsPath, AfterLeader, EnvVar, FileIdentity, FileKind, LaunchSpec, Lifetime, Limits, OutputMode,
    OutputTotals, PinnedPath, ProcessAttributes, RunId, Sandbox, StdinMode, Stdio,
};
use sandbar_testkit::{DEADLINE, Home, PATH, eventually};

pub(crate) const MEBIBYTE: u64 = 1024 * 1024;

/// A conversation with a keeper that waits for every answer.
pub(crate) struct Talk {
    pub(crate) client: Client,
    pub(crate) news: VecDeque<Event>,
    pub(crate) keeper: KeeperDir,
}

impl Talk {
    pub(crate) fn with(home: &Home) -> Self {
        let runtime = RuntimeDir::open(&home.sandbar_home().join("run")).unwrap();
        let keeper = runtime.keeper(&sandbar_sandbox::caller::attributes()).unwrap();
        let patience = Patience::new(keeper.clone(), DEADLINE, |late| panic!("{late:?}"));
        let client = sandbar_keeper::connect_or_start(&keeper, home.program(), &patience).unwrap();
        Self { client, news: VecDeque::new(), keeper }
    }

    /// The next thing that the keeper says.
    pub(crate) fn hear(&mut self) -> Incoming {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(incoming) = self.client.receive().unwrap() {
                return incoming;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the keeper says nothing");
            let timeout = rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap(),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let _ = poll(&mut [PollFd::new(&self.client, PollFlags::IN)], Some(&timeout)).unwrap();
        }
    }

    /// The answer to a request; news that come before it wait.
    pub(crate) fn ask_with(&mut self, request: Request, body: &[u8], fds: Vec<OwnedFd>) -> Reply {
        let number = self.client.request(request, body, fds).unwrap();
        eventually(DEADLINE, "the request to be sent", || self.client.flush().unwrap().then_some(()));
        loop {
            match self.hear() {
                Incoming::Reply(of, reply) => {
                    assert_eq!(of, number);
                    return reply;
                }
                Incoming::Event(event) => self.news.push_back(event),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        self.ask_with(request, &[], Vec::new())
    }

    pub(crate) fn start(&mut self, id: RunId, watch: Watch, spec: &LaunchSpec) -> ProcessState {
        let reply =
            self.ask_with(Request::Start { id, watch, rollout: None, owner: None }, &[], vec![sealed(spec)]);
        let Reply::Process { state } = reply else { panic!("{reply:?}") };
        *state
    }

    pub(crate) fn write(&mut self, id: RunId, offset_bytes: u64, bytes: &[u8]) -> Reply {
        self.ask_with(Request::Write { id, offset_bytes }, bytes, Vec::new())
    }

    pub(crate) fn live(&mut self) -> Vec<ProcessState> {
        let reply = self.ask(Request::List { after: None });
        let Reply::Listed { processes, .. } = reply else { panic!("{reply:?}") };
        processes
    }

    pub(crate) fn next_event(&mut self) -> Event {
        self.news.pop_front().unwrap_or_else(|| match self.hear() {
            Incoming::Event(event) => event,
            Incoming::Reply(number, reply) => panic!("an answer to nothing: {number} {reply:?}"),
        })
    }

    /// Waits until everything of a process is over.
    pub(crate) fn wait_closed(&mut self, id: RunId) -> OutputTotals {
        loop {
            if let Event::Closed { id: of, output, .. } = self.next_event()
                && of == id
            {
                return output;
            }
        }
    }

    pub(crate) fn log(&self, id: RunId) -> LogReader {
        LogReader::open(&self.keeper.processes().join(id.to_string())).unwrap()
    }
}

pub(crate) fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

pub(crate) fn pinned(path: &Path) -> PinnedPath {
    let stat = rustix::fs::stat(path).unwrap();
    let identity = FileIdentity { dev: stat.st_dev, ino: stat.st_ino, kind: FileKind::Directory };
    PinnedPath { path: AbsPath::new(path.as_os_str().to_owned()).unwrap(), identity }
}

/// A shell script in the workspace, without a sandbox.
pub(crate) fn script(home: &Home, text: &str) -> LaunchSpec {
    LaunchSpec {
        argv: ["sh", "-c", text].map(Into::into).to_vec(),
        arg0: None,
        cwd: pinned(&home.workspace()),
        env: vec![EnvVar { name: "PATH".into(), value: PATH.into() }],
        stdio: Stdio { stdin: StdinMode::Null, stdout: OutputMode::Logged, stderr: OutputMode::Logged },
        terminal: None,
        attributes: ProcessAttributes::default(),
        limits: Limits::default(),
        enforced: Vec::new(),
        lifetime: Lifetime::Detached,
        after_leader: AfterLeader::Kill,
        retention_bytes: 16 * MEBIBYTE,
        profile: "test".to_owned(),
        sandbox: Sandbox::None,
    }
}

pub(crate) fn memfd(text: &[u8], seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::write(&fd, text), Ok(text.len()));
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

pub(crate) fn sealed(spec: &LaunchSpec) -> OwnedFd {
    memfd(&serde_json::to_vec(spec).unwrap(), SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW)
}
