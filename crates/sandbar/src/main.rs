//! The `sandbar` program: arguments in, exit status out.
//!
//! Everything that a person sees is decided here: what the command line means, where Sandbar's files lie, how an
//! error reads and what to do about it. The crates below it know facts and print nothing.

#![forbid(unsafe_code)]

mod attend;
mod cli;
mod commands;
mod descriptors;
mod dirs;
mod dispatch;
mod elsewhere;
mod environment;
mod escape;
mod event_loop;
mod exit;
mod host;
mod ids;
mod json;
mod keepers;
mod limits;
mod output;
mod places;
mod plan;
mod profile;
mod render;
mod resolve;
mod run;
mod signal;
mod status;
mod stdio;
mod table;
mod terminal;
mod time;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Whoever writes records must outlive a limit on their size.
    sandbar_sandbox::caller::survive_file_size_limit();
    // Before anything else: a helper role has no use for arguments, threads or files of this program.
    if let Some(code) = dispatch::helper() {
        return code;
    }
    on_enough_stack(|| exit::code(cli::parse().and_then(commands::execute)))
}

/// Stack that is enough for everything: what a thread of Linux mostly has.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// The least limit under which the first thread's stack is trusted: twice what the command line was seen to need
/// without optimisation.
const LEAST_STACK_BYTES: u64 = 1024 * 1024;

/// Runs `main`, on a thread of its own where the caller's limit leaves too little stack. The limit itself stays: it
/// is the command's, too.
fn on_enough_stack(main: fn() -> ExitCode) -> ExitCode {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    if limit.is_none_or(|limit| limit >= LEAST_STACK_BYTES) {
        return main();
    }
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(main);
    // A panic has been told by its hook.
    thread.map_or_else(|_| main(), |thread| thread.join().unwrap_or(ExitCode::from(exit::CANNOT_RUN)))
}
