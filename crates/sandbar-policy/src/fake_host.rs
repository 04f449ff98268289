//! A host that exists only in a test: a tree of names that answers queries as `sandbar-sandbox` would.

use std::collections::BTreeMap;

use sandbar_proto::{
    AbsPath, ByteString, FactAnswer, FactQuery, Facts, FileFact, FileIdentity, FileKind, GitLinks, HostFacts,
    IdRange, LimitFacts, LinuxSandbox, MountOp, PathGlob, PinnedPath, Sandbox,
};

use crate::views::Views;
use crate::{Access, CompileError, Compiled, OwnDirectories, RunRequest, Step, compile};

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 36;
const ELOOP: i32 = 40;

pub(crate) fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

/// A request of the user `u` to run `true` in `cwd`.
pub(crate) fn request(cwd: &str) -> RunRequest {
    let own = OwnDirectories {
        runtime: path("/run/user/1000/sandbar"),
        state: path("/home/u/.local/state/sandbar"),
        config: path("/home/u/.config/sandbar"),
        cache: path("/home/u/.cache/sandbar"),
        home: None,
        elsewhere: vec![],
    };
    RunRequest {
        home: Some(path("/home/u")),
        runtime_roots: vec![path("/run/user/1000")],
        ..RunRequest::new(path(cwd), own)
    }
}

#[derive(Debug, Clone)]
enum Node {
    Directory,
    File(Vec<u8>),
    Link(AbsPath),
}

#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    nodes: BTreeMap<AbsPath, Node>,
    owners: BTreeMap<AbsPath, u32>,
    modes: BTreeMap<AbsPath, u32>,
    host: HostFacts,
    limits: LimitFacts,
}

impl FakeHost {
    /// The directories of every Linux, the home of `u` and our own directories.
    pub(crate) fn with_home() -> Self {
        let only = |first| vec![IdRange { first, count: 1 }];
        let host = HostFacts {
            uid: 1000,
            gid: 1000,
            may_map_ids: false,
            users: only(1000),
            groups: only(1000),
            landlock_abi: 7,
            kernel: (6, 18),
            outer_root: None,
        };
        let mut made = Self {
            nodes: BTreeMap::new(),
            owners: BTreeMap::new(),
            modes: BTreeMap::new(),
            host,
            limits: LimitFacts::default(),
        };
        made.nodes.insert(AbsPath::root(), Node::Directory);
        for directory in ["/tmp", "/var/tmp", "/run/user/1000/sandbar", "/proc", "/dev/shm", "/etc"] {
            made = made.dir(directory);
        }
        for directory in [".local/state/sandbar", ".config/sandbar", ".cache/sandbar"] {
            made = made.dir(&format!("/home/u/{directory}"));
        }
        made.link("/var/run", "/run")
    }

    pub(crate) fn called_by_root(mut self) -> Self {
        let all = vec![IdRange { first: 0, count: 65_536 }];
        self.host = HostFacts {
            uid: 0,
            gid: 0,
            may_map_ids: true,
            users: all.clone(),
            groups: all,
            outer_root: Some(0),
            ..self.host
        };
        self
    }

    pub(crate) fn facts_of_host(&self) -> HostFacts {
        self.host.clone()
    }

    pub(crate) fn without_landlock(self) -> Self {
        self.with_landlock(0)
    }

    pub(crate) fn with_landlock(mut self, abi: u32) -> Self {
        self.host.landlock_abi = abi;
        self
    }

    /// Every path that leads through no link.
    pub(crate) fn real_paths(&self) -> impl Iterator<Item = AbsPath> {
        self.nodes.keys().filter(|at| self.exists(at)).cloned()
    }

    pub(crate) fn owned_by(mut self, at: &str, uid: u32) -> Self {
        self.owners.insert(path(at), uid);
        self
    }

    pub(crate) fn mode(mut self, at: &str, mode: u32) -> Self {
        self.modes.insert(path(at), mode);
        self
    }

    pub(crate) fn dir(self, at: &str) -> Self {
        self.node(at, Node::Directory)
    }

    pub(crate) fn file(self, at: &str) -> Self {
        self.node(at, Node::File(vec![]))
    }

    pub(crate) fn text(self, at: &str, content: &str) -> Self {
        self.node(at, Node::File(content.as_bytes().to_vec()))
    }

    pub(crate) fn link(self, at: &str, to: &str) -> Self {
        self.node(at, Node::Link(path(to)))
    }

    fn node(mut self, at: &str, node: Node) -> Self {
        let mut above = path(at).parent();
        while let Some(here) = above {
            above = here.parent();
            self.nodes.entry(here).or_insert(Node::Directory);
        }
        self.nodes.insert(path(at), node);
        self
    }

    /// A repository with what `git init` makes.
    pub(crate) fn repository(self, git: &str) -> Self {
        let made = ["hooks", "objects", "refs", "info"]
            .iter()
            .fold(self, |host, name| host.dir(&format!("{git}/{name}")));
        made.text(&format!("{git}/HEAD"), "ref: refs/heads/main\n")
            .text(&format!("{git}/config"), "[core]\n\tbare = false\n")
    }

    fn real(&self, at: &AbsPath, follow_last: bool) -> Option<AbsPath> {
        let mut here = AbsPath::root();
        let mut rest: Vec<Vec<u8>> = at.components().rev().map(<[u8]>::to_vec).collect();
        for _ in 0..1000 {
            let Some(name) = rest.pop() else { return Some(here) };
            let next = here.join(&name).unwrap();
            match self.nodes.get(&next)? {
                Node::Link(to) if follow_last || !rest.is_empty() => {
                    rest.extend(to.components().rev().map(<[u8]>::to_vec));
                    here = AbsPath::root();
                }
                Node::Directory | Node::File(_) | Node::Link(_) => here = next,
            }
        }
        None
    }

    pub(crate) fn exists(&self, at: &AbsPath) -> bool {
        self.real(at, true).as_ref() == Some(at)
    }

    pub(crate) fn pinned(&self, at: &AbsPath) -> PinnedPath {
        let index = self.nodes.keys().position(|key| key == at).unwrap();
        let kind = match self.nodes[at] {
            Node::Directory => FileKind::Directory,
            Node::File(_) => FileKind::File,
            Node::Link(_) => FileKind::Symlink,
        };
        let identity = FileIdentity { dev: 1, ino: u64::try_from(index).unwrap(), kind };
        PinnedPath { path: at.clone(), identity }
    }

    fn fact(&self, real: &AbsPath, shown: &AbsPath) -> FactAnswer {
        let owner = |at: &AbsPath| self.owners.iter().rfind(|(above, _)| at.starts_with(above));
        let uid = owner(real).map_or(self.host.uid, |(_, uid)| *uid);
        let pinned = PinnedPath { path: shown.clone(), ..self.pinned(real) };
        FactAnswer::File(FileFact {
            pinned,
            uid,
            gid: uid,
            mode: self.modes.get(real).copied().unwrap_or(0o755),
        })
    }

    fn names(&self, at: &AbsPath) -> FactAnswer {
        let Some(real) = self.real(at, true) else { return FactAnswer::Missing };
        let below = self.nodes.keys().filter(|node| node.parent().as_ref() == Some(&real));
        let names: Vec<(ByteString, FileKind)> = below
            .map(|node| (ByteString::from(node.file_name().unwrap()), self.pinned(node).identity.kind))
            .collect();
        if names.len() > FactQuery::MAX_NAMES { FactAnswer::TooLong } else { FactAnswer::Names(names) }
    }

    fn answer(&self, query: &FactQuery) -> FactAnswer {
        match query {
            FactQuery::Lookup(at) if at.as_bytes().len() > 4095 => FactAnswer::Failed { errno: ENAMETOOLONG },
            FactQuery::Lookup(at) => {
                self.real(at, false).map_or(FactAnswer::Missing, |real| self.fact(&real, at))
            }
            FactQuery::Resolve(at) => {
                self.real(at, true).map_or(FactAnswer::Missing, |real| self.fact(&real, &real))
            }
            FactQuery::List(at) => self.names(at),
            FactQuery::Read(at) => match self.real(at, true).map(|real| self.nodes[&real].clone()) {
                // Not through a link, and not more than the bound.
                Some(_) if self.real(at, true) != self.real(at, false) => FactAnswer::Failed { errno: ELOOP },
                Some(Node::File(content)) if content.len() > FactQuery::MAX_BYTES => FactAnswer::TooLong,
                Some(Node::File(content)) => FactAnswer::Content(content.into()),
                Some(Node::Directory | Node::Link(_)) => FactAnswer::Failed { errno: ENOENT },
                None => FactAnswer::Missing,
            },
            FactQuery::GitLinks(at) => match self.real(at, true).map(|real| self.nodes[&real].clone()) {
                Some(Node::File(content)) => Self::git_links(&content),
                Some(Node::Directory | Node::Link(_)) => FactAnswer::Failed { errno: EINVAL },
                None => FactAnswer::Missing,
            },
            FactQuery::Link(at) => match self.real(at, false).map(|real| self.nodes[&real].clone()) {
                Some(Node::Link(to)) => FactAnswer::Content(to.as_bytes().into()),
                Some(Node::Directory | Node::File(_)) => FactAnswer::Failed { errno: EINVAL },
                None => FactAnswer::Missing,
            },
            FactQuery::Glob(glob) => self.matches(glob),
            FactQuery::User(0) => FactAnswer::User { name: "root".into(), home: "/root".into(), gid: 0 },
            FactQuery::User(1000) => FactAnswer::User { name: "u".into(), home: "/home/u".into(), gid: 1000 },
            FactQuery::UserNamed(name) if name.as_bytes() == b"u" => self.answer(&FactQuery::User(1000)),
            FactQuery::User(_) | FactQuery::UserNamed(_) => FactAnswer::Missing,
        }
    }

    /// An index of this host has a submodule a line.
    fn matches(&self, glob: &PathGlob) -> FactAnswer {
        if !self.exists(glob.base()) {
            return FactAnswer::Missing;
        }
        let covered = self.nodes.keys().filter(|node| glob.matches(node));
        let outermost = covered.filter(|node| {
            !std::iter::successors(node.parent(), AbsPath::parent).any(|above| glob.matches(&above))
        });
        FactAnswer::Matches(outermost.map(|node| self.pinned(node)).collect())
    }

    fn git_links(content: &[u8]) -> FactAnswer {
        if content == b"damaged" {
            return FactAnswer::Failed { errno: EINVAL };
        }
        let lines = content.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let paths = lines.map(ByteString::from).collect();
        FactAnswer::GitLinks(GitLinks { paths })
    }

    /// Compiles, and returns the calls that took and the questions that were asked.
    pub(crate) fn count(
        &self,
        asked: &RunRequest,
    ) -> (Result<Compiled, CompileError>, usize, Vec<FactQuery>) {
        let mut facts =
            Facts { host: self.host.clone(), answers: BTreeMap::new(), limits: self.limits.clone() };
        for round in 1..=Step::MAX_ROUNDS {
            match compile(asked, &facts) {
                Err(error) => return (Err(error), round, facts.answers.into_keys().collect()),
                Ok(Step::Ready(compiled)) => {
                    return (Ok(*compiled), round, facts.answers.into_keys().collect());
                }
                Ok(Step::Need(queries)) => {
                    assert!(!queries.is_empty());
                    for query in queries {
                        let answer = self.answer(&query);
                        assert!(facts.answers.insert(query, answer).is_none(), "asked twice");
                    }
                }
            }
        }
        panic!("no plan after {} rounds", Step::MAX_ROUNDS);
    }

    pub(crate) fn try_compile(&self, asked: &RunRequest) -> Result<Compiled, CompileError> {
        self.count(asked).0
    }

    pub(crate) fn compile(&self, asked: &RunRequest) -> Compiled {
        self.try_compile(asked).unwrap()
    }

    /// What the permissions say of `at`, after checking that all views do the same.
    pub(crate) fn access(&self, compiled: &Compiled, at: &str) -> Access {
        Views::new(compiled).access(&path(at))
    }

    /// Asserts for every path of the host that all views agree, and that no carve-out can be moved away.
    pub(crate) fn assert_agreement(&self, compiled: &Compiled) {
        let views = Views::new(compiled);
        views.assert_nothing_can_be_moved_away();
        for node in self.nodes.iter().filter(|(_, node)| !matches!(node, Node::Link(_))).map(|(at, _)| at) {
            views.access(node);
            views.access(&node.join("new").unwrap());
        }
    }

    pub(crate) fn masks(&self, compiled: &Compiled) -> Vec<(String, bool)> {
        let mut masks = Vec::new();
        for operation in &linux(compiled).mounts {
            if let MountOp::Mask { target, readable_empty } = operation {
                let is_own = target.path.components().any(|part| part == b"sandbar");
                if !is_own {
                    masks.push((target.path.to_display(), *readable_empty));
                }
            }
        }
        masks.sort();
        masks
    }

    pub(crate) fn placeholders(&self, compiled: &Compiled) -> Vec<String> {
        let mut names: Vec<String> = linux(compiled)
            .placeholders
            .iter()
            .map(|placeholder| {
                placeholder.parent.path.join(placeholder.name.as_bytes()).unwrap().to_display()
            })
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn linux(compiled: &Compiled) -> &LinuxSandbox {
    match &compiled.plan.spec().sandbox {
        Sandbox::Linux(sandbox) => sandbox,
        Sandbox::None => panic!("there is no sandbox"),
    }
}
