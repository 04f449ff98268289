//! Who makes the sandbox: Sandbar itself, or a bubblewrap that nobody planted.
//!
//! A program that makes the walls must not lie where what it walls in could have written: it is taken from the first
//! directory of the search path that belongs to root, like every directory above it, and that nobody else may write to,
//! and never from below a writable root. None such is an error; the plan is not made for another executor than was wished.

use sandbar_proto::{AbsPath, Executor, FileFact, FileKind, PinnedPath};

use crate::CompileError;
use crate::compile::is_writable;
use crate::grants::Grant;
use crate::reader::{Found, Reader};

/// Which executor is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExecutorWish {
    /// Sandbar itself; whoever starts the plan may wish for another where that can't make namespaces.
    #[default]
    Any,
    /// Sandbar itself and nothing else.
    Native,
    /// The system's bubblewrap.
    Bwrap,
    /// Landlock and the system-call filter alone, without a namespace.
    Landlock,
}

impl ExecutorWish {
    pub(crate) fn is_landlock(self) -> bool {
        self == Self::Landlock
    }

    /// Whether it maps no ids but the caller's, and mounts nothing copy-on-write.
    pub(crate) fn is_stand_in(self) -> bool {
        match self {
            Self::Any | Self::Native => false,
            Self::Bwrap | Self::Landlock => true,
        }
    }
}

/// The program's name.
const NAME: &str = "bwrap";

const OTHERS_MAY_WRITE: u32 = 0o022;
const ANYBODY_MAY_EXECUTE: u32 = 0o001;

/// The executor of a plan with these grants. Without mounts a run's temporary directory is made below `temporary`.
pub(crate) fn choose(
    wish: ExecutorWish,
    search: &[AbsPath],
    reader: &Reader<'_>,
    settled: &[Grant],
    temporary: &AbsPath,
) -> Result<Executor, CompileError> {
    match wish {
        ExecutorWish::Any | ExecutorWish::Native => return Ok(Executor::Native),
        ExecutorWish::Landlock => return Ok(Executor::Landlock { temporary: temporary.clone() }),
        ExecutorWish::Bwrap => {}
    }
    let mut passed_over = None;
    for directory in search {
        let Ok(name) = directory.join(NAME.as_bytes()) else { continue };
        let Found::File(fact) = reader.resolve(&name) else { continue };
        let program = &fact.pinned;
        if is_trusted_program(fact)
            && !is_writable(settled, &program.path)
            && is_above_trusted(program, reader)
        {
            return Ok(Executor::Bwrap { program: program.clone() });
        }
        passed_over.get_or_insert_with(|| program.path.clone());
    }
    Err(CompileError::NoBwrap { passed_over })
}

fn is_trusted_program(fact: &FileFact) -> bool {
    is_roots(fact) && fact.pinned.identity.kind == FileKind::File && fact.mode & ANYBODY_MAY_EXECUTE != 0
}

fn is_roots(fact: &FileFact) -> bool {
    fact.uid == 0 && fact.mode & OTHERS_MAY_WRITE == 0
}

/// Whether nobody but root may exchange the program, or a directory above it.
fn is_above_trusted(program: &PinnedPath, reader: &Reader<'_>) -> bool {
    let above = std::iter::successors(program.path.parent(), AbsPath::parent);
    // All of them are asked for at once.
    let trusted: Vec<bool> =
        above.map(|path| matches!(reader.lookup(&path), Found::File(fact) if is_roots(fact))).collect();
    trusted.into_iter().all(|trusted| trusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunRequest;
    use crate::fake_host::{FakeHost, linux, path, request};

    const WORK: &str = "/home/u/work";

    fn wish(search: &[&str]) -> RunRequest {
        let search = search.iter().map(|directory| path(directory)).collect();
        RunRequest { executor: ExecutorWish::Bwrap, search, ..request(WORK) }
    }

    /// A host of root with a bwrap in these directories, in a home and a workspace of somebody else.
    fn host(directories: &[&str]) -> FakeHost {
        let host = FakeHost::with_home().dir(WORK).owned_by("/", 0).owned_by("/home/u", 1000);
        directories.iter().fold(host, |host, directory| host.file(&format!("{directory}/bwrap")))
    }

    fn chosen(host: &FakeHost, request: &RunRequest) -> Result<String, CompileError> {
        host.try_compile(request).map(|compiled| match &linux(&compiled).executor {
            Executor::Native => "native".to_owned(),
            Executor::Bwrap { program } => program.path.to_display(),
            Executor::Landlock { .. } => "landlock".to_owned(),
        })
    }

    #[test]
    fn the_first_bwrap_that_only_root_can_exchange_is_taken() {
        let search = ["/home/u/bin", "/opt/open", "/usr/bin"];
        let request = wish(&search);
        assert_eq!(chosen(&host(&search), &request).unwrap(), "/opt/open/bwrap");
    }

    #[test]
    fn one_that_somebody_else_could_exchange_is_passed_over() {
        let usual = || host(&["/opt/bin", "/usr/bin"]);
        let table = [
            ("the program is writable for others", usual().mode("/opt/bin/bwrap", 0o757)),
            ("the program is another user's", usual().owned_by("/opt/bin/bwrap", 1000)),
            ("the directory is writable for a group", usual().mode("/opt/bin", 0o775)),
            (
                "a directory above it is another user's",
                usual().owned_by("/opt", 1000).owned_by("/opt/bin", 0),
            ),
            ("it can't be executed", usual().mode("/opt/bin/bwrap", 0o644)),
        ];
        for (why, host) in table {
            assert_eq!(chosen(&host, &wish(&["/opt/bin", "/usr/bin"])).unwrap(), "/usr/bin/bwrap", "{why}");
        }
    }

    #[test]
    fn one_below_a_writable_root_is_passed_over() {
        let host = host(&["/opt/tools", "/usr/bin"]);
        let request = RunRequest { allow_write: vec![path("/opt")], ..wish(&["/opt/tools", "/usr/bin"]) };
        assert_eq!(chosen(&host, &request).unwrap(), "/usr/bin/bwrap");
    }

    #[test]
    fn without_one_there_is_no_plan_and_it_says_what_was_passed_over() {
        let none = CompileError::NoBwrap { passed_over: None };
        assert_eq!(chosen(&host(&[]), &wish(&["/usr/bin"])).unwrap_err(), none);
        let planted = CompileError::NoBwrap { passed_over: Some(path("/home/u/bin/bwrap")) };
        assert_eq!(
            chosen(&host(&["/home/u/bin"]), &wish(&["/home/u/bin", "/usr/bin"])).unwrap_err(),
            planted
        );
    }

    #[test]
    fn whoever_wishes_for_none_in_particular_gets_the_native_one() {
        for executor in [ExecutorWish::Any, ExecutorWish::Native] {
            let request = RunRequest { executor, ..wish(&["/usr/bin"]) };
            assert_eq!(chosen(&host(&["/usr/bin"]), &request).unwrap(), "native");
        }
    }

    #[test]
    fn under_bubblewrap_there_are_no_ids_but_the_callers_and_no_cache_is_written() {
        let host = host(&["/usr/bin"]).dir("/home/u/.cargo/registry").called_by_root();
        let compiled = host.compile(&wish(&["/usr/bin"]));
        let sandbox = linux(&compiled);
        assert_eq!((sandbox.identity.users.len(), sandbox.identity.users[0].count), (1, 1));
        assert_eq!(sandbox.identity.run_as, None);
        assert_eq!(sandbox.caches, []);
        assert!(compiled.notes.iter().any(|note| matches!(note, crate::Note::OwnerNotMapped { .. })));
    }
}
