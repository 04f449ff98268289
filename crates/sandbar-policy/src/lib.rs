//! What a run may touch, decided without touching anything.
//!
//! Takes a [`RunRequest`] and [`Facts`](sandbar_proto::Facts) about the host, and gives a [`LaunchPlan`]: exact
//! environment, ordered mount operations, Landlock rules, a system-call filter. Pure: no file system, no
//! environment, no clock; paths are bytes, so it compiles and is tested on every operating system for every
//! other. What it needs to know it asks for as [`FactQuery`](sandbar_proto::FactQuery), and the caller calls
//! [`compile`] again with the answers.
//!
//! The order of thought: [`profile`] names a base, `workspace` and `git` find what lies under a writable root
//! and must not be written, `secrets` what must not be read, `caches` what is seen copy-on-write. All of them
//! only add grants (a path, what it becomes, who says so). `mounts` settles the grants into one access per path,
//! from which both the mount operations and the [`Confinement`] are made, and from that the [`Permissions`] which
//! [`explain()`] reads, so they cannot disagree.
//!
//! Deliberately not here: looking anything up (`sandbar-sandbox`), starting anything (`sandbar-keeper`), asking a
//! person (`sandbar-approvals`), advice on errors (the binary).

#![forbid(unsafe_code)]

mod caches;
mod carve;
mod compile;
mod confinement;
mod credentials;
pub mod denials;
pub mod env_policy;
mod executor;
mod explain;
mod git;
mod glob;
mod grants;
mod identity;
mod landlock;
mod limits;
mod lines;
pub mod managed;
mod minimal;
mod mounts;
mod notes;
mod own;
mod paths;
mod permissions;
mod profile;
mod reader;
mod request;
pub mod seatbelt;
mod secrets;
pub mod syscalls;
mod table;
mod wanted;
pub mod windows;
mod workspace;

#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod views;

pub use compile::{Compiled, LaunchPlan, Step, compile};
pub use confinement::{Confinement, Nature, Openings, Place, Reach};
pub use credentials::Shape;
pub use env_policy::{Decision, EnvPolicy, Inherit, Platform, ResolvedEnv, Rule};
pub use executor::ExecutorWish;
pub use explain::{Explanation, explain};
pub use git::WatchedIndex;
pub use glob::{BadGlob, Glob};
pub use limits::{LimitObstacle, ProcessCount, mechanisms};
pub use notes::{CompileError, GitDoubt, Note, PathProblem, PatternProblem, StricterBecause};
pub use permissions::{Access, Entry, EntryPath, Origin, Permissions};
pub use profile::{Profile, UnknownProfile};
pub use request::{CacheMode, CarveOut, GitMode, GiveUp, Left, OwnDirectories, Reads, RunRequest};
pub use table::{ProfileTable, TableError, TableLine, TablePlaces, TableProblem};
pub use wanted::Wanted;
