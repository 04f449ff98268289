//! Refusals in the dialect's codes, each with a kind that never changes its name.

use sandbar_keeper::protocol::{Refusal, StartFailure, StartStep};
use sandbar_policy::CompileError;
use sandbar_policy::managed::ManagedError;
use sandbar_proto::exec::SignalName;
use sandbar_proto::rpc::{RpcError, code};
use sandbar_sandbox::report::Step;

use crate::facts::PlanError;
use crate::{ProcessError, StartError, signals};

/// A request that can't be met as things are.
pub(super) fn invalid(kind: &str, message: impl Into<String>) -> RpcError {
    RpcError::with_kind(code::INVALID_REQUEST, kind, message)
}

/// Parameters that mean nothing.
pub(super) fn params(message: impl Into<String>) -> RpcError {
    RpcError::with_kind(code::INVALID_PARAMS, "invalid_params", message)
}

/// Something that the client asked for and that this server does not have; nothing weaker is done instead.
pub(super) fn unsupported(what: impl Into<String>) -> RpcError {
    RpcError::with_kind(code::INVALID_PARAMS, "unsupported", what)
}

/// The number of a signal that a client names.
///
/// # Errors
/// Nobody knows the name.
pub(super) fn signal(name: &SignalName) -> Result<i32, RpcError> {
    let SignalName(text) = name;
    signals::number(name).ok_or_else(|| params(format!("unknown signal {text:?}")))
}

pub(super) fn unknown_process(id: &str) -> RpcError {
    invalid("unknown_process", format!("unknown process id {id}"))
}

pub(super) fn starting(id: &str) -> RpcError {
    invalid("starting", format!("process id {id} is starting"))
}

pub(super) fn unknown_method(method: &str) -> RpcError {
    RpcError::with_kind(
        code::METHOD_NOT_FOUND,
        "unknown_method",
        format!("this exec server does not implement `{method}`"),
    )
}

pub(super) fn resumed_elsewhere() -> RpcError {
    invalid("resumed_elsewhere", "session has been resumed by another connection")
}

/// A sandbox that can't be had.
pub(super) fn sandbox(error: &ManagedError) -> RpcError {
    RpcError::with_kind(code::INVALID_PARAMS, "sandbox_unsupported", error.to_string())
}

/// A plan that can't be made.
pub(super) fn plan(error: &PlanError) -> RpcError {
    match error {
        PlanError::Policy(CompileError::Cwd { .. }) => {
            RpcError::with_kind(code::INTERNAL, "cwd_not_found", error.to_string())
        }
        PlanError::Policy(_) => invalid("sandbox_refused", error.to_string()),
        PlanError::Facts(_) | PlanError::Endless => {
            RpcError::with_kind(code::INTERNAL, "facts", error.to_string())
        }
    }
}

/// A start that failed.
pub(super) fn start(error: &StartError) -> RpcError {
    let (kind, message) = match error {
        StartError::Failed(failure) => (start_kind(failure), start_message(failure)),
        StartError::Handle(_) => ("handle", error.to_string()),
        StartError::Plan(_) => ("plan", error.to_string()),
        StartError::Refused(_) => ("keeper_refused", error.to_string()),
        StartError::Gone(_) => ("keeper_gone", error.to_string()),
    };
    RpcError::with_kind(code::INTERNAL, kind, message)
}

/// A start that failed because nobody may make namespaces, where nothing else holds what was asked for.
pub(super) fn no_executor(error: &StartError, landlock: &PlanError) -> RpcError {
    let reason = start(error);
    RpcError::with_kind(code::INTERNAL, "sandbox", format!("{}; {landlock}", reason.message))
}

/// What happens to a process that can't be reached.
pub(super) fn process(error: &ProcessError) -> RpcError {
    let kind = match error {
        ProcessError::Lost(_) => "keeper_gone",
        ProcessError::Output(_) => "output",
        ProcessError::Refused(Refusal::NoTerminal) => {
            return invalid("no_terminal", "the process has no terminal");
        }
        ProcessError::Refused(_) => "keeper_refused",
        ProcessError::Elsewhere(_) => "elsewhere",
        ProcessError::StdinClosed => "stdin_closed",
        ProcessError::TooOld { .. } => "keeper_too_old",
    };
    RpcError::with_kind(code::INTERNAL, kind, error.to_string())
}

fn start_kind(failure: &StartFailure) -> &'static str {
    match failure.step.in_sandbox() {
        Some(Step::Cwd | Step::CwdChanged) => "cwd_not_found",
        Some(Step::ProgramNotFound) => "program_not_found",
        Some(Step::Exec | Step::Interpreter) => "not_executable",
        Some(_in_sandbox) => "sandbox",
        None if failure.step == StartStep::NulByte => "nul_byte",
        None => "start",
    }
}

fn start_message(failure: &StartFailure) -> String {
    let step = failure.step.name();
    let path = failure.path.as_ref().map(|path| format!(" ({})", path.to_display())).unwrap_or_default();
    if failure.errno == 0 {
        return format!("step {step} failed{path}");
    }
    // The peer's clients know the system's own words.
    let error = std::io::Error::from_raw_os_error(failure.errno);
    format!("{error}: step {step}{path}")
}
