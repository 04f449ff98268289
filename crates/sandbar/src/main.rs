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
mod plan;
mod render;
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
    // Before anything else: a helper role has no use for arguments, threads or files of this program.
    if let Some(code) = dispatch::helper() {
        return code;
    }
    exit::code(cli::parse().and_then(commands::execute))
}
