//! Facts as policy reads them: an unknown one is asked for, and thinking goes on with a guess.
//!
//! Going on collects many questions in one round. The invariant: as soon as one fact was unknown the outcome of
//! the whole computation is thrown away and only the questions are used, so a guess never reaches a plan.

use std::cell::RefCell;
use std::collections::BTreeSet;

use sandbar_proto::{
    AbsPath, ByteString, FactAnswer, FactQuery, Facts, FileFact, FileIdentity, FileKind, GitLinks, HostFacts,
    LimitFacts, PathGlob, PinnedPath,
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

/// The answer about what is in a file or directory. What there is and cannot be had is never the same as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// Not known yet.
    Unknown,
    /// This.
    Known(T),
    /// There is no such file.
    Missing,
    /// It is more than the bound of the question.
    TooLong,
    /// It is there, or may be, and could not be read: errno(3), 0 for an answer of another kind.
    Unreadable(i32),
}

/// The names in a directory.
pub(crate) type Names<'a> = Answer<&'a [(ByteString, FileKind)]>;

/// The submodules of a git index.
pub(crate) type Links<'a> = Answer<&'a GitLinks>;

/// The content of a file.
pub(crate) type Content<'a> = Answer<&'a [u8]>;

impl<'a, T> Answer<T> {
    /// What `pick` makes of the answer to a question.
    fn of(answer: Option<&'a FactAnswer>, pick: impl Fn(&'a FactAnswer) -> Option<T>) -> Self {
        match answer {
            None => Self::Unknown,
            Some(FactAnswer::Missing) => Self::Missing,
            Some(FactAnswer::TooLong) => Self::TooLong,
            Some(FactAnswer::Failed { errno }) => Self::Unreadable(*errno),
            Some(answer) => pick(answer).map_or(Self::Unreadable(0), Self::Known),
        }
    }
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
                | FactAnswer::Matches(_)
                | FactAnswer::TooLong
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
        Answer::of(self.ask(FactQuery::List(path.clone())), |answer| {
            let FactAnswer::Names(names) = answer else { return None };
            Some(names.as_slice())
        })
    }

    /// The content of a small file that is no symbolic link.
    pub(crate) fn content(&self, path: &AbsPath) -> Content<'a> {
        Answer::of(self.ask(FactQuery::Read(path.clone())), |answer| {
            let FactAnswer::Content(content) = answer else { return None };
            Some(content.as_bytes())
        })
    }

    /// What a symbolic link says.
    pub(crate) fn link(&self, path: &AbsPath) -> Content<'a> {
        Answer::of(self.ask(FactQuery::Link(path.clone())), |answer| {
            let FactAnswer::Content(target) = answer else { return None };
            Some(target.as_bytes())
        })
    }

    /// What a pattern covers.
    pub(crate) fn matches(&self, glob: &PathGlob) -> Answer<&'a [PinnedPath]> {
        Answer::of(self.ask(FactQuery::Glob(glob.clone())), |answer| {
            let FactAnswer::Matches(matches) = answer else { return None };
            Some(matches.as_slice())
        })
    }

    /// The submodules that a git index lists.
    pub(crate) fn git_links(&self, index: &AbsPath) -> Links<'a> {
        Answer::of(self.ask(FactQuery::GitLinks(index.clone())), |answer| {
            let FactAnswer::GitLinks(links) = answer else { return None };
            Some(links)
        })
    }

    /// The same as an answer to compare a later one with; while it is unknown, that nothing is there.
    pub(crate) fn answer_of_git_links(&self, index: &AbsPath) -> FactAnswer {
        self.ask(FactQuery::GitLinks(index.clone())).cloned().unwrap_or(FactAnswer::Missing)
    }

    /// A user, `None` when unknown or not in passwd(5).
    pub(crate) fn user(&self, uid: u32) -> Option<User<'a>> {
        user(self.ask(FactQuery::User(uid))?)
    }

    /// The user of a login name; the outer `None` while that is unknown.
    pub(crate) fn user_named(&self, name: &[u8]) -> Option<Option<User<'a>>> {
        self.ask(FactQuery::UserNamed(name.into())).map(user)
    }
}

fn user(answer: &FactAnswer) -> Option<User<'_>> {
    let FactAnswer::User { name, home, gid } = answer else { return None };
    Some(User { name, home, gid: *gid })
}

fn guess(path: &AbsPath) -> FileFact {
    let identity = FileIdentity { dev: 0, ino: 0, kind: FileKind::Directory };
    FileFact { pinned: PinnedPath { path: path.clone(), identity }, uid: 0, gid: 0, mode: 0 }
}
