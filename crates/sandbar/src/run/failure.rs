//! Why a command did not start, for people.

use sandbar_exec::{ProcessError, StartError};
use sandbar_keeper::protocol::{Refusal, StartFailure, StartStep};
use sandbar_proto::LaunchSpec;
use sandbar_sandbox::report::Step;

use crate::escape::{self, Layout};
use crate::exit;
use crate::render::Problem;

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EISDIR: i32 = 21;
const E2BIG: i32 = 7;

/// What of a plan is named when it fails.
pub(crate) struct About {
    command: String,
    path: Option<String>,
}

impl About {
    /// The program of `spec`, and where it was looked for.
    pub(crate) fn of(spec: &LaunchSpec) -> Self {
        let program = spec.argv.first().map(|program| escape::escape(program.as_bytes(), Layout::OneLine));
        let path = spec.env.iter().find(|var| var.name.as_bytes() == b"PATH");
        Self {
            command: program.unwrap_or_default(),
            path: path.map(|var| escape::escape(var.value.as_bytes(), Layout::OneLine)),
        }
    }
}

/// Why caches can't be mounted here.
pub(super) fn cache_obstacle(failure: &StartFailure) -> String {
    let path = failure.path.as_ref().map(|path| path.to_display()).unwrap_or_default();
    format!("could not offer the cache {path} copy-on-write ({})", errno_text(failure.errno))
}

/// The problem, and for the record the step's name and the error number.
pub(crate) fn problem(error: &StartError, about: &About) -> (Problem, String, i32) {
    let command = about.command.as_str();
    let start = |reason: String| {
        Problem::new(format!("could not start `{command}`: {reason}")).status(exit::CANNOT_RUN)
    };
    match error {
        StartError::Failed(failure) => {
            let problem = match failure.step.in_sandbox() {
                Some(step) => in_sandbox(step, failure, about),
                None => before_sandbox(failure, command),
            };
            (problem, failure.step.name().to_owned(), failure.errno)
        }
        StartError::Refused(Refusal::Malformed { message }) => {
            let problem = start(format!("the keeper did not understand the request: {message}")).advise(
                "the keeper may be of another version; `sandbar keeper stop` ends it when nothing runs",
            );
            (problem, "request".to_owned(), 0)
        }
        StartError::Gone(ProcessError::Lost(reason)) => {
            let problem =
                start(format!("the keeper is gone ({reason})")).advise("run it again; a new keeper starts");
            (problem, "keeper".to_owned(), 0)
        }
        StartError::Handle(_) | StartError::Plan(_) | StartError::Refused(_) | StartError::Gone(_) => {
            (start(error.to_string()), "request".to_owned(), 0)
        }
    }
}

/// Neither are there namespaces, nor is Landlock enough alone.
pub(super) fn without_executor(error: &StartError, about: &About, landlock: &Problem) -> Problem {
    let (mut namespaces, _, _) = problem(error, about);
    let reason = landlock.what.strip_prefix("could not plan the run: ").unwrap_or(&landlock.what);
    namespaces.what.push_str("; and without them, ");
    namespaces.what.push_str(reason);
    let advice: Vec<&str> =
        [&landlock.advice, &namespaces.advice].into_iter().flatten().map(String::as_str).collect();
    namespaces.advice = Some(advice.join("; or "));
    namespaces
}

fn errno_text(errno: i32) -> String {
    if errno == 0 {
        "no system call failed".to_owned()
    } else {
        std::io::Error::from_raw_os_error(errno).to_string()
    }
}

fn before_sandbox(failure: &StartFailure, command: &str) -> Problem {
    let text = errno_text(failure.errno);
    let start = |reason: &str| {
        let problem =
            Problem::new(format!("could not start `{command}`: {reason}: {text}")).status(exit::CANNOT_RUN);
        match &failure.path {
            Some(path) => problem.at(path.to_display()),
            None => problem,
        }
    };
    match failure.step {
        // What reserves a name is noted in the runtime directory first: a failure there is about no path of the run's.
        StartStep::Record | StartStep::Log | StartStep::Placeholder
            if matches!(failure.errno, ENOSPC | EDQUOT)
                && failure.path.as_ref().is_none_or(|path| *path == sandbar_proto::AbsPath::root()) =>
        {
            start("the runtime directory is full")
                .at("the keeper's records and logs (`sandbar doctor` says where)")
                .advise("free some space there, or set SANDBAR_HOME to a folder that has some")
        }
        StartStep::Record | StartStep::Log => start("the keeper could not write its records"),
        StartStep::Placeholder => start("a protected name could not be reserved")
            .advise("if it is a symbolic link, replace it by what it leads to"),
        StartStep::CacheStore => start("the store of a cache could not be made")
            .advise("make the folder writable, or set XDG_CACHE_HOME to another place"),
        StartStep::Cgroup => start("a cgroup for its limits could not be made")
            .at("cgroups(7), below the keeper's own")
            .advise("`sandbar doctor` shows what enforces limits here"),
        StartStep::NulByte => Problem::new(format!(
            "could not start `{command}`: an argument, a variable or a path contains a NUL byte"
        ))
        .status(exit::CANNOT_RUN),
        StartStep::LandlockAbi => start(&failure.detail),
        StartStep::Stream => start("a standard stream can't be handed over")
            .advise("redirect it to a pipe or a file, or from /dev/null"),
        StartStep::Plan | StartStep::Sandbox(_) => {
            start(&format!("the keeper refused the plan ({})", failure.detail))
        }
    }
}

fn in_sandbox(step: Step, failure: &StartFailure, about: &About) -> Problem {
    let command = about.command.as_str();
    let text = errno_text(failure.errno);
    let path = failure.path.as_ref().map(|path| path.to_display());
    let start = |reason: String| {
        Problem::new(format!("could not start `{command}`: {reason}")).status(exit::CANNOT_RUN)
    };
    match step {
        Step::ProgramNotFound => not_found(about),
        Step::Exec => not_executable(failure.errno, command),
        Step::Interpreter => start("the interpreter in its first line does not exist".to_owned())
            .at(command)
            .advise("correct the line that begins with #!, or install the interpreter")
            .status(exit::NOT_EXECUTABLE),
        Step::Cwd => start(format!("the working directory can't be entered: {text}"))
            .at(path.unwrap_or_default())
            .advise("change to a folder that exists and that you may enter"),
        Step::CwdChanged => {
            start("the working directory was replaced while the sandbox was built".to_owned())
                .at(path.unwrap_or_default())
                .advise("run it again")
        }
        Step::Changed | Step::Source => {
            start(format!("a path of the plan changed while the sandbox was built ({text})"))
                .at(path.unwrap_or_default())
                .advise("run it again")
        }
        Step::Namespaces | Step::IdMap => namespaces(step, failure.errno, command),
        Step::Cache => {
            start(format!("a cache can't be mounted copy-on-write: {text}")).at(path.unwrap_or_default())
        }
        Step::Proc => start(format!("a fresh /proc can't be mounted: {text}"))
            .at("mount of procfs in a new pid namespace")
            .advise("this container hides parts of /proc; start it with an unmasked /proc, or run with --sandbox landlock"),
        Step::Bwrap => start(format!(
            "bubblewrap made no sandbox: {}",
            escape::escape(failure.detail.as_bytes(), Layout::OneLine)
        ))
        .at("the bwrap that is first on PATH")
        .advise("`sandbar doctor` shows which executors work here; `--sandbox native` needs no bubblewrap"),
        Step::Temporary => {
            let problem = start(format!("a temporary directory of its own can't be made: {text}"));
            problem
                .at(path.unwrap_or_default())
                .advise("make the folder writable, or set XDG_CACHE_HOME to another place")
        }
        Step::RunAs => start(format!("the command can't run as the owner of its workspace: {text}")),
        Step::Cgroup => start(format!("it could not be moved into the cgroup of its limits: {text}"))
            .at("cgroups(7), below the keeper's own")
            .advise("`sandbar doctor` shows what enforces limits here"),
        Step::Terminal => start(format!("a terminal can't be opened: {text}"))
            .at("a pseudoterminal of its own devpts; without a sandbox, of the host's")
            .advise(
                "see that there are terminals left (sysctl kernel.pty.max), or pipe the output: `… | cat`",
            ),
        Step::ReadOnlyRoot
        | Step::Mount
        | Step::Dev
        | Step::Loopback
        | Step::Landlock
        | Step::Keyring
        | Step::Privileges
        | Step::Seccomp
        | Step::Descriptors
        | Step::Attributes
        | Step::Holder
        | Step::Plan => {
            let problem = start(format!("the sandbox can't be built: {} failed: {text}", words(step)));
            let problem = match path {
                Some(path) => problem.at(path),
                None => problem,
            };
            problem.advise("`sandbar doctor` shows what this machine allows")
        }
    }
}

/// The step in words.
fn words(step: Step) -> &'static str {
    match step {
        Step::ReadOnlyRoot => "making the file system read-only",
        Step::Mount => "a mount",
        Step::Dev => "building /dev",
        Step::Loopback => "bringing the loopback interface up",
        Step::Landlock => "entering Landlock",
        Step::Keyring => "a new session keyring",
        Step::Privileges => "dropping privileges",
        Step::Seccomp => "installing the system-call filter",
        Step::Descriptors => "setting up descriptors",
        Step::Attributes => "setting umask, priority or limits",
        Step::Holder => "the process that holds the sandbox",
        Step::Namespaces => "making namespaces",
        Step::IdMap => "mapping users",
        Step::Source => "opening a path",
        Step::Changed => "comparing a path",
        Step::Cache => "mounting a cache",
        Step::Proc => "mounting /proc",
        Step::Cwd => "entering the working directory",
        Step::CwdChanged => "comparing the working directory",
        Step::RunAs => "changing the user",
        Step::ProgramNotFound => "finding the program",
        Step::Exec => "executing the program",
        Step::Interpreter => "finding the interpreter",
        Step::Plan => "reading the plan",
        Step::Terminal => "opening a terminal",
        Step::Bwrap => "bubblewrap",
        Step::Temporary => "making a temporary directory",
        Step::Cgroup => "entering the cgroup of the run's limits",
    }
}

fn not_found(about: &About) -> Problem {
    let command = about.command.as_str();
    let problem =
        Problem::new(format!("could not start `{command}`: no such program")).status(exit::NOT_FOUND);
    if command.contains('/') {
        return problem.at(command).advise("correct the path; it is looked up from the working directory");
    }
    let path =
        about.path.as_deref().map_or_else(|| "/bin:/usr/bin (PATH is not set)".to_owned(), str::to_owned);
    problem.at(format!("PATH={path}")).advise("install it, or name it with its path")
}

fn not_executable(errno: i32, command: &str) -> Problem {
    let (reason, advice) = match errno {
        EACCES => {
            ("it may not be executed", "make it executable (chmod +x), and the folders above it searchable")
        }
        ENOEXEC => (
            "it is no program of this machine: broken, made for another one, or a script that can't be read",
            "look at it with `file`",
        ),
        EISDIR => {
            return Problem::new(format!("could not start `{command}`: it is a directory"))
                .at(command)
                .advise("name a program in it")
                .status(exit::NOT_EXECUTABLE);
        }
        E2BIG => ("arguments and environment are too long", "pass less, or pass it in a file"),
        ENOENT => ("a part of it is missing", "look at it with `ldd`"),
        _ => {
            return Problem::new(format!("could not start `{command}`: {}", errno_text(errno)))
                .status(exit::NOT_EXECUTABLE);
        }
    };
    Problem::new(format!("could not start `{command}`: {reason}"))
        .at(format!("execve(2): {}", errno_text(errno)))
        .advise(advice)
        .status(exit::NOT_EXECUTABLE)
}

/// Why the kernel makes no namespaces, as far as this machine says.
fn namespaces(step: Step, errno: i32, command: &str) -> Problem {
    let what = if step == Step::IdMap {
        "the sandbox cannot map users into its namespace"
    } else {
        "the sandbox cannot make its namespaces"
    };
    let problem = Problem::new(format!("could not start `{command}`: {what}: {}", errno_text(errno)))
        .status(exit::CANNOT_RUN);
    match crate::host::namespace_obstacle(errno == EPERM || errno == EACCES) {
        Some(obstacle) => problem.at(obstacle.place).advise(obstacle.advice),
        None => problem
            .at("clone(2) with CLONE_NEWUSER")
            .advise("`sandbar doctor` shows what this machine allows"),
    }
}
