//! Facts as policy reads them: an unknown one is asked for, and thinking goes on with a guess.
//!
//! Going on collects many questions in one round. The invariant: as soon as one fact was unknown the outcome of
//! the whole computation is thrown away and only the questions are used, so a guess never reaches a plan.

use std::cell::RefCell;
use std::collections::BTreeSet;

use sandbar_proto::{
    AbsPath, ByteString, FactAnswer, FactQuery, Facts, FileFact, FileIdentity, FileKind, GitLinks, HostFacts,
    LimitFacts, PinnedPath,
};

use crate::PathProblem;

/// The answer about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// Not known yet.
    Unknown,
    /// It is there.
    File(&'a FileFact),
    /// Nothing has that name.
    Missing,
    /// It could not be looked up.
    Failed(i32),
}

/// The answer about the names in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names<'a> {
    /// Not known yet.
    Unknown,
    /// These.
    Known(&'a [(ByteString, FileKind)]),
    /// There is no such directory.
    Missing,
    /// It could not be listed.
    Failed,
}

/// The answer about the submodules of a git index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Links<'a> {
    /// Not known yet.
    Unknown,
    /// These.
    Known(&'a GitLinks),
    /// There is no index.
    Missing,
    /// It is none, or too long.
    Failed,
}

/// The answer about the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// Not known yet.
    Unknown,
    /// These bytes.
    Known(&'a [u8]),
    /// There is no such file.
    Missing,
    /// It could not be read, or not as a small regular file.
    Failed,
}

/// The answer about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User<'a> {
    /// Login name.
    pub(crate) name: &'a ByteString,
    /// Home directory as written.
    pub(crate) home: &'a ByteString,
    /// Primary group.
    pub(crate) gid: u32,
}

pub(crate) struct Reader<'a> {
    facts: &'a Facts,
    missing: RefCell<BTreeSet<FactQuery>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(facts: &'a Facts) -> Self {
        Self { facts, missing: RefCell::new(BTreeSet::new()) }
    }

    /// What enforces limits.
    pub(crate) fn limits(&self) -> &'a LimitFacts {
        &self.facts.limits
    }

    pub(crate) fn host(&self) -> &'a HostFacts {
        &self.facts.host
    }

    /// The questions that came up without an answer.
    pub(crate) fn into_missing(self) -> Vec<FactQuery> {
        self.missing.into_inner().into_iter().collect()
    }

    fn ask(&self, query: FactQuery) -> Option<&'a FactAnswer> {
        let answer = self.facts.answers.get(&query);
        if answer.is_none() {
            self.missing.borrow_mut().insert(query);
        }
        answer
    }

    fn file(&self, query: FactQuery) -> Found<'a> {
        match self.ask(query) {
            None => Found::Unknown,
            Some(FactAnswer::File(fact)) => Found::File(fact),
            Some(FactAnswer::Missing) => Found::Missing,
            Some(FactAnswer::Failed { errno }) => Found::Failed(*errno),
            Some(
                FactAnswer::Names(_)
                | FactAnswer::Content(_)
                | FactAnswer::GitLinks(_)
                | FactAnswer::User { .. },
            ) => Found::Failed(0),
        }
    }

    /// What `path` itself is. Ask only below a real path, since the answer repeats the path as asked.
    pub(crate) fn lookup(&self, path: &AbsPath) -> Found<'a> {
        self.file(FactQuery::Lookup(path.clone()))
    }

    /// What `path` leads to.
    pub(crate) fn resolve(&self, path: &AbsPath) -> Found<'a> {
        self.file(FactQuery::Resolve(path.clone()))
    }

    /// The real path of what exists, else the path as it is.
    pub(crate) fn real(&self, path: &AbsPath) -> AbsPath {
        match self.resolve(path) {
            Found::File(fact) => fact.pinned.path.clone(),
            Found::Unknown | Found::Missing | Found::Failed(_) => path.clone(),
        }
    }

    /// The directory or file that `path` leads to; while that is unknown, a directory of that very path.
    ///
    /// # Errors
    /// [`PathProblem`] when nothing is there.
    pub(crate) fn resolve_or_guess(&self, path: &AbsPath) -> Result<FileFact, PathProblem> {
        match self.resolve(path) {
            Found::Unknown => Ok(guess(path)),
            Found::File(fact) => Ok(fact.clone()),
            Found::Missing => Err(PathProblem::Missing),
            Found::Failed(errno) => Err(PathProblem::Errno(errno)),
        }
    }

    /// The names in a directory.
    pub(crate) fn list(&self, path: &AbsPath) -> Names<'a> {
        match self.ask(FactQuery::List(path.clone())) {
            None => Names::Unknown,
            Some(FactAnswer::Names(names)) => Names::Known(names),
            Some(FactAnswer::Missing) => Names::Missing,
            Some(
                FactAnswer::Failed { .. }
                | FactAnswer::File(_)
                | FactAnswer::Content(_)
                | FactAnswer::GitLinks(_)
                | FactAnswer::User { .. },
            ) => Names::Failed,
        }
    }

    /// The content of a small file, `None` when it is unknown, missing or unreadable.
    pub(crate) fn read(&self, path: &AbsPath) -> Option<&'a [u8]> {
        match self.content(path) {
            Content::Known(content) => Some(content),
            Content::Unknown | Content::Missing | Content::Failed => None,
        }
    }

    /// The content of a small file.
    pub(crate) fn content(&self, path: &AbsPath) -> Content<'a> {
        match self.ask(FactQuery::Read(path.clone())) {
            None => Content::Unknown,
            Some(FactAnswer::Content(content)) => Content::Known(content.as_bytes()),
            Some(FactAnswer::Missing) => Content::Missing,
            Some(
                FactAnswer::Failed { .. }
                | FactAnswer::File(_)
                | FactAnswer::Names(_)
                | FactAnswer::GitLinks(_)
                | FactAnswer::User { .. },
            ) => Content::Failed,
        }
    }

    /// The submodules that a git index lists.
    pub(crate) fn git_links(&self, index: &AbsPath) -> Links<'a> {
        match self.ask(FactQuery::GitLinks(index.clone())) {
            None => Links::Unknown,
            Some(FactAnswer::GitLinks(links)) => Links::Known(links),
            Some(FactAnswer::Missing) => Links::Missing,
            Some(
                FactAnswer::Failed { .. }
                | FactAnswer::File(_)
                | FactAnswer::Names(_)
                | FactAnswer::Content(_)
                | FactAnswer::User { .. },
            ) => Links::Failed,
        }
    }

    /// The same as an answer to compare a later one with; while it is unknown, that nothing is there.
    pub(crate) fn answer_of_git_links(&self, index: &AbsPath) -> FactAnswer {
        self.ask(FactQuery::GitLinks(index.clone())).cloned().unwrap_or(FactAnswer::Missing)
    }

    /// A user, `None` when unknown or not in passwd(5).
    pub(crate) fn user(&self, uid: u32) -> Option<User<'a>> {
        match self.ask(FactQuery::User(uid))? {
            FactAnswer::User { name, home, gid } => Some(User { name, home, gid: *gid }),
            FactAnswer::Missing
            | FactAnswer::Failed { .. }
            | FactAnswer::File(_)
            | FactAnswer::Names(_)
            | FactAnswer::GitLinks(_)
            | FactAnswer::Content(_) => None,
        }
    }
}

fn guess(path: &AbsPath) -> FileFact {
    let identity = FileIdentity { dev: 0, ino: 0, kind: FileKind::Directory };
    FileFact { pinned: PinnedPath { path: path.clone(), identity }, uid: 0, gid: 0, mode: 0 }
}
