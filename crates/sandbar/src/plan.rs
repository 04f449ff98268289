//! From what was typed to a plan.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use sandbar_exec::facts::PlanError;
use sandbar_policy::{CompileError, Compiled, Origin, PathProblem, PatternProblem, RunRequest, Wanted};
use sandbar_proto::{AbsPath, CgroupObstacle, LimitFacts};
use sandbar_sandbox::facts::FactsError;

use crate::cli::SandboxArgs;
use crate::dirs::Directories;
use crate::render::Problem;
use crate::{environment, exit};

/// A request for what `args` say and want, with everything that is not about the sandbox at its default.
///
/// # Errors
/// A path that is none.
pub(crate) fn request(
    args: &SandboxArgs,
    directories: &Directories,
    wanted: Wanted,
) -> Result<RunRequest, Problem> {
    let cwd = working_directory(args.cwd.as_deref())?;
    let paths = |flag: &str, given: &[std::ffi::OsString]| {
        given.iter().map(|path| absolute(flag, Path::new(path), &cwd)).collect::<Result<Vec<_>, _>>()
    };
    let request = RunRequest {
        executor: args.executor(),
        give_up: args.give_up(),
        search: search_path(),
        git_env: environment::of_git(std::env::vars_os()),
        home: directories.home.clone(),
        runtime_roots: directories.runtime_roots.clone(),
        ..RunRequest::new(abs_path("--cwd", &cwd)?, directories.own.clone())
    };
    let mut request = wanted.of_request(request);
    request.allow_write.extend(paths("--allow-write", &args.allow_write)?);
    request.allow_read = paths("--allow-read", &args.allow_read)?;
    Ok(request)
}

/// Where the command runs.
///
/// # Errors
/// The working directory is gone, or is named by what is no path.
pub(crate) fn cwd(args: &SandboxArgs) -> Result<AbsPath, Problem> {
    abs_path("--cwd", &working_directory(args.cwd.as_deref())?)
}

/// The directories of `PATH`, where programs that make sandboxes are looked for. Relative ones mean whatever directory
/// somebody stands in, and are left out.
pub(crate) fn search_path() -> Vec<AbsPath> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|directory| AbsPath::new(directory.into_os_string()).ok())
        .collect()
}

/// Compiles a request on this machine. `limits` is what its keeper can enforce; the default where nothing is limited.
///
/// # Errors
/// The policy refuses it.
pub(crate) fn compile(request: &RunRequest, limits: &LimitFacts) -> Result<Compiled, Problem> {
    sandbar_exec::facts::plan(request, limits).map_err(|error| problem(&error, request.profile_name()))
}

fn working_directory(given: Option<&OsStr>) -> Result<PathBuf, Problem> {
    let current = std::env::current_dir();
    match (given, current) {
        (Some(given), _) if Path::new(given).is_absolute() => Ok(PathBuf::from(given)),
        (Some(given), Ok(current)) => Ok(current.join(given)),
        (None, Ok(current)) => Ok(current),
        (_, Err(error)) => Err(Problem::new(format!("could not find the working directory: {error}"))
            .at("getcwd(2)")
            .advise("it was removed or you may not enter it; change to a folder that exists")
            .status(exit::CANNOT_RUN)),
    }
}

/// A path relative to the working directory as an absolute one; `..` is taken from the file system, since what
/// it means depends on symlinks.
fn absolute(flag: &str, path: &Path, cwd: &Path) -> Result<AbsPath, Problem> {
    let shell = path.strip_prefix("~").ok().filter(|_| path.starts_with("~"));
    match shell {
        Some(_) => {
            Err(Problem::new(format!("{flag} {} begins with a ~ that no shell replaced", path.display()))
                .at(format!("{flag} {}", path.display()))
                .advise("write it without quotes, or with $HOME")
                .status(exit::USAGE))
        }
        None => abs_path(flag, &cwd.join(path)),
    }
}

fn abs_path(flag: &str, path: &Path) -> Result<AbsPath, Problem> {
    let resolved = if path.components().any(|part| part == std::path::Component::ParentDir) {
        std::fs::canonicalize(path).map_err(|error| {
            Problem::new(format!("could not find {}: {error}", path.display()))
                .at(flag)
                .advise("name a path that exists")
                .status(exit::CANNOT_RUN)
        })?
    } else {
        path.to_owned()
    };
    AbsPath::new(resolved.into_os_string()).map_err(|error| {
        Problem::new(format!("could not use the path: {error}")).at(flag).status(exit::CANNOT_RUN)
    })
}

/// What to do on WSL 1.
pub(crate) const WSL2: &str = "change to WSL 2 (`wsl --set-version <distribution> 2`)";

/// A plan that can't be made, for people.
pub(crate) fn problem(error: &PlanError, profile: &str) -> Problem {
    let problem = Problem::new(format!("could not plan the run: {error}"))
        .at(format!("profile {profile}"))
        .status(exit::CANNOT_RUN);
    match error {
        PlanError::Facts(FactsError::Wsl1) => problem.at("/proc/version").advise(WSL2),
        PlanError::Facts(_) | PlanError::Endless => problem,
        PlanError::Policy(error) => match policy_advice(error) {
            Some(advice) => problem.advise(advice),
            None => problem,
        },
    }
}

fn policy_advice(error: &CompileError) -> Option<&'static str> {
    match error {
        CompileError::EmptyCommand => Some("name a program behind `--`"),
        CompileError::Cwd { problem: PathProblem::Missing, .. } => {
            Some("change to a folder that exists, or name one with --cwd")
        }
        CompileError::Cwd { .. } => Some("name another folder with --cwd"),
        CompileError::CwdHidden { .. } => {
            Some("change to another folder, or reopen this one with --allow-read")
        }
        CompileError::NestingAsRoot => Some("run it as another user, or leave --nested out"),
        CompileError::NoBwrap { .. } => Some("install bubblewrap, or leave --sandbox bwrap out"),
        CompileError::Pattern { because: PatternProblem::NoBase, .. } => {
            Some("create the directory first, or correct the pattern")
        }
        CompileError::Pattern { because: PatternProblem::TooBroad | PatternProblem::TooMany, .. } => {
            Some("begin the pattern at a deeper directory, or bound it with glob_scan_max_depth")
        }
        CompileError::PlantedLink { .. } => {
            Some("replace the link by what it leads to, or name that in the line")
        }
        CompileError::Pattern { because: PatternProblem::Nesting, .. } => {
            Some("leave --nested or the pattern out")
        }
        CompileError::Pattern { because: PatternProblem::Landlock, .. } | CompileError::NestingByLandlock => {
            Some("allow namespaces: `sandbar doctor` says what forbids them")
        }
        CompileError::LandlockAbi { .. } => {
            Some("use a kernel from 6.12 on, or allow namespaces: `sandbar doctor` says what forbids them")
        }
        CompileError::LandlockCannot { by: Origin::Protected(_), .. } => Some(
            "run with -p read-only, or give that protection up by its name: --give-up protected-names; where \
             namespaces are allowed nothing has to be given up",
        ),
        CompileError::LandlockCannot { .. } => Some(
            "run with -p read-only, make the folders beside it writable instead, or open it with --allow-write or \
             --allow-read; where namespaces are allowed nothing has to be given up",
        ),
        CompileError::LandlockTooMany { .. } => {
            Some("move what is secret out of it, or the rest into folders")
        }
        CompileError::Allowed { problem: PathProblem::Missing, .. } => {
            Some("create it first, or correct the path")
        }
        CompileError::Allowed { .. } => Some("name another path"),
        CompileError::AllowedTooBroad { .. } => Some("name the folders below it that are really needed"),
        CompileError::OwnFiles { .. } => {
            Some("sandbar's own files are hidden from every run, whatever is allowed")
        }
        CompileError::KernelDirectory { .. } => {
            Some("change to another folder, or leave out the flag that names it")
        }
        CompileError::KernelFiles { .. } => Some("leave it out"),
        CompileError::Limit { obstacle, .. } => Some(limit_advice(obstacle.cgroup)),
        CompileError::ProtectedSymlink { .. } => {
            Some("replace the link by what it leads to, or name exactly the link with --allow-write")
        }
        CompileError::HiddenTooBroad { .. } => Some("hide the folders below it that need it"),
        CompileError::CannotReserve { .. } => Some("create the folder above it first"),
        CompileError::ConfigurationTooLong { .. } => Some(
            "shorten it, or run elsewhere; what git obeys must be known before a command may write next to it",
        ),
        CompileError::Fact { .. } => Some("look at the path with ls -ld"),
    }
}

/// How a keeper gets a cgroup that it can make others in.
pub(crate) fn limit_advice(obstacle: CgroupObstacle) -> &'static str {
    match obstacle {
        CgroupObstacle::NotDelegated | CgroupObstacle::Shared { .. } => {
            "start the keeper in a cgroup of its own: `sandbar keeper stop`, then `systemd-run --user --scope -p \
             Delegate=yes sandbar keeper start` (without --user for root)"
        }
        CgroupObstacle::NoControllers => {
            "boot with cgroups of version 2 alone (`systemd.unified_cgroup_hierarchy=1`), and delegate pids and memory \
             to where the keeper is started"
        }
        CgroupObstacle::NotMounted => {
            "mount cgroups of version 2 on /sys/fs/cgroup, in a container writable and with a cgroup namespace of its own"
        }
        CgroupObstacle::Unknown | CgroupObstacle::Failed { .. } => {
            "leave the limit out, or run as an ordinary user in a sandbox; `sandbar doctor` shows what enforces limits here"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_taken_from_the_working_directory() {
        let cwd = Path::new("/work/here");
        assert_eq!(absolute("--allow-read", Path::new("a/b"), cwd).unwrap().to_display(), "/work/here/a/b");
        assert_eq!(absolute("--allow-read", Path::new("/a/./b"), cwd).unwrap().to_display(), "/a/b");
    }

    #[test]
    fn a_quoted_tilde_is_explained_instead_of_taken_as_a_name() {
        let problem = absolute("--allow-write", Path::new("~/x"), Path::new("/w")).unwrap_err();
        assert_eq!(problem.status, exit::USAGE);
    }

    #[test]
    fn parents_are_resolved_where_they_are() {
        let found = absolute("--allow-read", Path::new("/usr/bin/.."), Path::new("/")).unwrap();
        assert_eq!(found.to_display(), "/usr");
    }
}
