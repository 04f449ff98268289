//! What a person should know about a plan, and why there is none.

use std::fmt;

use sandbar_proto::{AbsPath, ByteString, Limit};
use serde::Serialize;

use crate::{GiveUp, LimitObstacle, Nature, Origin};

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathProblem {
    /// Nothing has that name.
    Missing,
    /// It is no directory.
    NotADirectory,
    /// Looking it up failed with this error number, 0 when a bound was exceeded.
    Errno(i32),
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist"),
            Self::NotADirectory => f.write_str("is not a directory"),
            Self::Errno(errno) => write!(f, "cannot be looked up (errno {errno})"),
        }
    }
}

/// Why a pattern can't be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternProblem {
    /// It begins at `/`: nobody can look through everything.
    TooBroad,
    /// The directory that it begins at is missing.
    NoBase,
    /// It covers more files, or there are more directories to look through, than can be watched over.
    TooMany,
    /// Landlock alone can't hide what comes to be.
    Landlock,
    /// What is put up while a run lives does not reach namespaces that it made.
    Nesting,
}

impl fmt::Display for PatternProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooBroad => "it begins at /, and nobody can watch over everything",
            Self::NoBase => "the directory that it begins at does not exist, so it would cover nothing",
            Self::TooMany => "there is more below the directory that it begins at than can be watched over",
            Self::Nesting => {
                "what comes to be could not be hidden in namespaces that the command makes (`nested`)"
            }
            Self::Landlock => "landlock alone can't hide what comes to be while a run lives",
        })
    }
}

/// Why a request has no plan. Each fits after "could not plan the run: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The command has no program.
    #[error("the command is empty")]
    EmptyCommand,
    /// The working directory cannot be used.
    #[error("the working directory {} {problem}", path.to_display())]
    Cwd {
        /// As asked.
        path: AbsPath,
        /// Why not.
        problem: PathProblem,
    },
    /// The working directory would be invisible to the command.
    #[error("the working directory {} is hidden by {hidden_by}", path.to_display())]
    CwdHidden {
        /// The real path.
        path: AbsPath,
        /// What hides it.
        hidden_by: Origin,
    },
    /// No bubblewrap can be trusted to make the sandbox.
    #[error("no bubblewrap on PATH that only root could have put there{}", passed_over_words(passed_over.as_ref()))]
    NoBwrap {
        /// The first one that was found and passed over.
        passed_over: Option<AbsPath>,
    },
    /// The host's uid 0 wants to nest. All of its /proc is read-only, and a namespace's ids are mapped by writing there.
    #[error("the host's root can't make sandboxes inside: /proc is read-only to it there")]
    NestingAsRoot,
    /// A run by Landlock alone wants to nest; nobody may make namespaces where that is the executor.
    #[error("landlock alone makes no namespaces, and lets nobody make any")]
    NestingByLandlock,
    /// A place that a line names is reached through a link that a command could have made.
    #[error("{by}: {} leads through the link {}, which a command could have made", path.to_display(), link.to_display())]
    PlantedLink {
        /// The place as named.
        path: AbsPath,
        /// The link.
        link: AbsPath,
        /// Who names it.
        by: Origin,
    },
    /// A pattern cannot be enforced.
    #[error("the pattern {pattern} is refused: {because}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// Why.
        because: PatternProblem,
    },
    /// The kernel's Landlock is too old to be a sandbox alone.
    #[error(
        "this kernel's Landlock is of ABI {found}; alone it is a sandbox from {needed} on, which keeps signals in"
    )]
    LandlockAbi {
        /// What the kernel has; 0 for none.
        found: u32,
        /// What is needed.
        needed: u32,
    },
    /// Landlock alone can't take away what it grants around it.
    #[error("landlock alone cannot keep {} {} below the writable {} ({by})", path.to_display(), kept_words(*wanted), writable.to_display())]
    LandlockCannot {
        /// The place.
        path: AbsPath,
        /// What it is to be.
        wanted: Nature,
        /// The writable place around it.
        writable: AbsPath,
        /// Who wants it.
        by: Origin,
    },
    /// Landlock alone names everything beside what it hides, and here that is too much.
    #[error("landlock alone cannot hide anything in {}: it holds too many names", path.to_display())]
    LandlockTooMany {
        /// The directory.
        path: AbsPath,
    },
    /// A path of a flag cannot be used.
    #[error("{flag} {} {problem}", path.to_display())]
    Allowed {
        /// Which flag.
        flag: &'static str,
        /// As asked.
        path: AbsPath,
        /// Why not.
        problem: PathProblem,
    },
    /// A path that somebody named reaches too far to be granted.
    #[error("{by} {} is refused: it {because}", path.to_display())]
    AllowedTooBroad {
        /// Who named it.
        by: Origin,
        /// The real path.
        path: AbsPath,
        /// What it would open.
        because: StricterBecause,
    },
    /// Sandbar's own files stay hidden.
    #[error("{} is among sandbar's own files in {}", path.to_display(), own.to_display())]
    OwnFiles {
        /// The real path that was asked for.
        path: AbsPath,
        /// The own directory it lies in.
        own: AbsPath,
    },
    /// Kernel file systems are remade inside and cannot be granted.
    #[error("{} lies in {remade}, which every sandbox has of its own", path.to_display())]
    KernelDirectory {
        /// The real path.
        path: AbsPath,
        /// `/proc` or `/dev`.
        remade: &'static str,
    },
    /// Cgroups are how runs are limited; a run that could write there would choose its own limits.
    #[error("{} lies among the kernel's own files, where a run could change its limits and this machine", path.to_display())]
    KernelFiles {
        /// The real path.
        path: AbsPath,
    },
    /// Nothing on this machine enforces a limit.
    #[error("the limit on {limit} cannot be enforced here: {obstacle}")]
    Limit {
        /// Which.
        limit: Limit,
        /// Why not.
        obstacle: LimitObstacle,
    },
    /// A protected name is a symbolic link in a writable directory, where it could be replaced.
    #[error("the protected name {} is a symbolic link, which cannot be protected", path.to_display())]
    ProtectedSymlink {
        /// The link.
        path: AbsPath,
    },
    /// A place that is to be hidden holds the home directory, or everything.
    #[error("{} cannot be hidden: too much lies in it", path.to_display())]
    HiddenTooBroad {
        /// The place.
        path: AbsPath,
    },
    /// A place that is to stay missing has no directory yet that could be watched over.
    #[error("{} cannot be kept missing: the directory above it is missing too", path.to_display())]
    CannotReserve {
        /// The place.
        path: AbsPath,
    },
    /// A configuration of git, or its directory of hooks, is longer than what is read, so nobody knows what it names.
    #[error("{} is too long to be read, and so nobody can tell what has to be protected", path.to_display())]
    ConfigurationTooLong {
        /// The file or directory.
        path: AbsPath,
    },
    /// Something that has to be known to plan safely could not be found out.
    #[error("{} cannot be looked up (errno {errno})", path.to_display())]
    Fact {
        /// What.
        path: AbsPath,
        /// errno(3), 0 when it is not what it has to be.
        errno: i32,
    },
}

fn passed_over_words(path: Option<&AbsPath>) -> String {
    path.map(|path| format!("; {} is writable by others, or lies where others may write", path.to_display()))
        .unwrap_or_default()
}

fn kept_words(wanted: Nature) -> &'static str {
    match wanted {
        Nature::Reserved => "missing",
        Nature::Read | Nature::Write | Nature::Cache | Nature::Processes | Nature::Devices => "read-only",
        Nature::Hidden | Nature::Private | Nature::Sealed => "hidden",
    }
}

/// What would be opened by making a directory writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StricterBecause {
    /// It is `/`.
    IsRoot,
    /// It is the home directory or holds it.
    HoldsHome,
    /// It holds Sandbar's own files.
    HoldsOwnFiles(AbsPath),
    /// It is a protected directory, or lies inside a git directory.
    IsProtected,
    /// It belongs to the system. Naming exactly it opens it.
    IsSystem,
}

impl fmt::Display for StricterBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsRoot => f.write_str("is the whole file system"),
            Self::HoldsHome => f.write_str("is or holds the home directory"),
            Self::HoldsOwnFiles(own) => write!(f, "holds sandbar's own files in {}", own.to_display()),
            Self::IsProtected => f.write_str("is a protected directory"),
            Self::IsSystem => f.write_str("belongs to the system"),
        }
    }
}

/// Why a git directory was not opened for commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GitDoubt {
    /// The `.git` file is no `gitdir:` pointer, or leads nowhere.
    Dangling,
    /// The directory it names does not point back.
    NotMutual,
    /// This must stay unchangeable, but is a symbolic link.
    Symlink(AbsPath),
}

impl fmt::Display for GitDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dangling => f.write_str("it leads to no git directory"),
            Self::NotMutual => f.write_str("the directory it names does not point back"),
            Self::Symlink(link) => write!(f, "{} is a symbolic link", link.to_display()),
        }
    }
}

/// Something a person should know about a plan that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum Note {
    /// The working directory is read-only although the profile would make it writable.
    CwdNotWritable {
        /// The directory.
        cwd: AbsPath,
        /// Why.
        because: StricterBecause,
    },
    /// A place is not writable although it was wished for: it is missing, or holds too much.
    LeftOut {
        /// The place.
        path: AbsPath,
    },
    /// A line about a place that is not known here. It grants nothing.
    UnknownPlace {
        /// The place as written.
        place: String,
    },
    /// Landlock does not watch over files, so that the command can make sandboxes of its own.
    Nesting,
    /// There is no sandbox of our own: whoever made what surrounds us is relied on.
    ReliesOnOthers,
    /// The command runs as another user.
    RunsAs {
        /// Login name, if the user has one.
        name: Option<ByteString>,
        /// User id.
        uid: u32,
        /// Which directory belongs to that user.
        owner_of: AbsPath,
    },
    /// The workspace belongs to a user that cannot be mapped, so the command runs as the caller.
    OwnerNotMapped {
        /// User id.
        uid: u32,
        /// Which directory belongs to that user.
        owner_of: AbsPath,
    },
    /// The kernel has no Landlock.
    NoLandlock,
    /// There is no namespace around the run.
    ByLandlockAlone {
        /// Whether it has the host's network.
        network: bool,
    },
    /// Something that the profile would hold was given up by its name, for these paths.
    GivenUp {
        /// What.
        what: GiveUp,
        /// What a command can change now.
        paths: Vec<AbsPath>,
    },
    /// Commits will not work here.
    GitReadOnly {
        /// The `.git`.
        git: AbsPath,
        /// Why.
        because: GitDoubt,
    },
    /// `commondir` could not be reserved in this git directory: its layout would not bear the file.
    CommondirOpen {
        /// The git directory.
        git: AbsPath,
    },
    /// The index is none that can be read, so its submodules are not protected.
    SubmodulesUnknown {
        /// The index.
        index: AbsPath,
    },
    /// A submodule's directory lies behind a symbolic link, where it can be replaced.
    SubmoduleOpen {
        /// The directory.
        path: AbsPath,
    },
    /// What git obeys lies behind a symbolic link that can be replaced, or is writable as a whole.
    ConfiguredOpen {
        /// What names it.
        key: &'static str,
        /// The file as named.
        path: AbsPath,
    },
    /// A file that git's configuration names in a way that leads to no path.
    ConfiguredUnknown {
        /// What names it.
        key: &'static str,
        /// As it is written.
        value: ByteString,
    },
    /// A configuration of git, or its directory of hooks, can't be read, so what it names is not protected.
    ConfigurationUnreadable {
        /// The file or directory.
        path: AbsPath,
        /// errno(3).
        errno: i32,
    },
    /// A secret's link leads to something too broad to be hidden.
    SecretNotHidden {
        /// The name of the secret.
        secret: AbsPath,
        /// Where it leads.
        target: AbsPath,
    },
    /// The host's directory is visible because the command runs in it, or because it was named.
    HostTemporaryVisible {
        /// Which one.
        path: AbsPath,
    },
    /// The program lies where the sandbox has a directory of its own.
    ProgramHidden {
        /// The program.
        program: AbsPath,
        /// The directory that hides it.
        under: AbsPath,
    },
}

impl Note {
    /// Whether something is protected less than it should be because of what lies in the workspace or the home. That
    /// is said even to those who want no notes.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::GivenUp { .. }
            | Self::CommondirOpen { .. }
            | Self::SubmodulesUnknown { .. }
            | Self::SubmoduleOpen { .. }
            | Self::ConfiguredOpen { .. }
            | Self::ConfiguredUnknown { .. }
            | Self::ConfigurationUnreadable { .. }
            | Self::ReliesOnOthers
            | Self::SecretNotHidden { .. } => true,
            Self::CwdNotWritable { .. }
            | Self::LeftOut { .. }
            | Self::UnknownPlace { .. }
            | Self::Nesting
            | Self::RunsAs { .. }
            | Self::OwnerNotMapped { .. }
            | Self::NoLandlock
            | Self::ByLandlockAlone { .. }
            | Self::GitReadOnly { .. }
            | Self::HostTemporaryVisible { .. }
            | Self::ProgramHidden { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CwdNotWritable { cwd, because: because @ StricterBecause::IsSystem } => write!(
                f,
                "{0} is read-only here because it {because}; --allow-write {0} opens it",
                cwd.to_display()
            ),
            Self::CwdNotWritable { cwd, because } => write!(
                f,
                "{} is read-only here because it {because}; name a folder with --allow-write",
                cwd.to_display()
            ),
            Self::LeftOut { path } => {
                write!(f, "{} is not made writable: it is missing, or holds too much", path.to_display())
            }
            Self::UnknownPlace { place } => {
                write!(f, "the place `{place}` is not known; the line grants nothing")
            }
            Self::Nesting => f.write_str(
                "Landlock leaves files alone, so that other sandboxes can be made inside; mounts and the filter hold",
            ),
            Self::ReliesOnOthers => {
                f.write_str("no sandbox is made: the profile `external` relies on the one around it")
            }
            Self::RunsAs { name: Some(name), uid, owner_of } => {
                write!(f, "runs as {} (uid {uid}), who owns {}", name.to_display(), owner_of.to_display())
            }
            Self::RunsAs { name: None, uid, owner_of } => {
                write!(f, "runs as uid {uid}, who owns {}", owner_of.to_display())
            }
            Self::OwnerNotMapped { uid, owner_of } => write!(
                f,
                "uid {uid}, who owns {}, does not exist in this user namespace; runs as the caller",
                owner_of.to_display()
            ),
            Self::NoLandlock => f.write_str("this kernel has no Landlock; mounts and seccomp hold alone"),
            Self::ByLandlockAlone { network } => write!(
                f,
                "made by Landlock and seccomp alone: temporary files go to $TMPDIR, since /tmp and /dev/shm are the \
                 host's, and there are no unix sockets{}; caches are read-only",
                if *network { "" } else { ", no loopback" }
            ),
            Self::GivenUp { what, paths } => write!(
                f,
                "{} given up: a command can change {}; look at them before you use git or an agent there",
                what.name(),
                paths.iter().map(|path| path.to_display()).collect::<Vec<_>>().join(", ")
            ),
            Self::GitReadOnly { git, because } => {
                write!(f, "commits are blocked: {} was not opened because {because}", git.to_display())
            }
            Self::CommondirOpen { git } => write!(
                f,
                "{}/commondir is not reserved: this repository is bare, has core.worktree or uses reftable",
                git.to_display()
            ),
            Self::SubmodulesUnknown { index } => write!(
                f,
                "submodules are not protected: {} is no index that can be read; look at `git status` with care",
                index.to_display()
            ),
            Self::SubmoduleOpen { path } => {
                write!(f, "the submodule {} is not protected: a symbolic link leads there", path.to_display())
            }
            Self::ConfiguredOpen { key, path } => write!(
                f,
                "{} can be replaced although git obeys it ({key}): a symbolic link leads there, or all of it is writable",
                path.to_display()
            ),
            Self::ConfiguredUnknown { key, value } => write!(
                f,
                "what git's {key} names is not protected: nobody can tell where `{}` is",
                value.to_display()
            ),
            Self::ConfigurationUnreadable { path, errno } => write!(
                f,
                "what git finds in {} is not protected: it cannot be read (errno {errno})",
                path.to_display()
            ),
            Self::SecretNotHidden { secret, target } => write!(
                f,
                "{} is not hidden: it leads to {}, which is too broad",
                secret.to_display(),
                target.to_display()
            ),
            Self::HostTemporaryVisible { path } => {
                write!(f, "the host's {} is visible to this run", path.to_display())
            }
            Self::ProgramHidden { program, under } => write!(
                f,
                "{} is not visible: the run has a {} of its own; share it with --allow-read",
                program.to_display(),
                under.to_display()
            ),
        }
    }
}
