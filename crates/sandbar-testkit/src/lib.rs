//! Development only: what integration tests share.
//!
//! A [`Home`] is a Sandbar of its own: directories, environment and keeper, ended with the test whatever
//! happens. A [`Running`] is a process that a test watches and that does not outlive it. [`eventually`] waits for
//! a fact. What a host lacks is a [`need`], and the test says so by name. [`fuzz()`] feeds parsers, [`soak`] says for
//! how long. Decides nothing about what is right: that is the tests' concern.

#![forbid(unsafe_code)]

mod certificate;
mod fuzz;
mod home;
mod link;
pub mod need;
pub mod processes;
mod running;
pub mod soak;
mod terminal;
mod tmux;
mod wait;

pub use certificate::{Certificate, certificate};
pub use fuzz::{Samples, Took, fuzz};
pub use home::{Home, PATH};
pub use link::Link;
pub use running::{Finished, Running, finish};
pub use terminal::Terminal;
pub use tmux::Tmux;
pub use wait::{DEADLINE, eventually, patience};

/// Takes what a test needs, or says by name that the test is skipped and returns from it.
#[macro_export]
macro_rules! need {
    ($needed:expr) => {
        match $needed {
            Ok(found) => found,
            Err(missing) => {
                fn here() {}
                let path = std::any::type_name_of_val(&here);
                let name = path.strip_suffix("::here").unwrap_or(path);
                let name = name.rsplit("::").next().unwrap_or(name);
                println!("SKIP: {name}: {missing}");
                return;
            }
        }
    };
}
