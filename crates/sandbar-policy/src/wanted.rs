//! What somebody wants to be confined to, whoever says it and in whichever shape, for a [`RunRequest`].

use sandbar_proto::{AbsPath, NetworkMode};

use crate::syscalls::Within;
use crate::{CarveOut, Entry, GitMode, Note, Profile, Reads, RunRequest};

/// What is wanted of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The base.
    pub profile: Profile,
    /// What it is called, if not as the base.
    pub called: Option<String>,
    /// What may be read without a word about it.
    pub reads: Reads,
    /// Lines besides.
    pub entries: Vec<Entry>,
    /// What is to be said of how it was read.
    pub notes: Vec<Note>,
    /// The network.
    pub network: NetworkMode,
    /// Writable roots that must be there.
    pub allow_write: Vec<AbsPath>,
    /// Writable roots that may be missing.
    pub may_write: Vec<AbsPath>,
    /// What is less than its surroundings.
    pub carve_outs: Vec<CarveOut>,
    /// How much of git may change.
    pub git: GitMode,
    /// What it may do within its sandbox.
    pub within: Within,
}

impl Wanted {
    /// What a built-in profile means.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        Self {
            profile,
            called: None,
            reads: Reads::Everything,
            entries: Vec::new(),
            notes: Vec::new(),
            network: profile.network(),
            allow_write: Vec::new(),
            may_write: Vec::new(),
            carve_outs: Vec::new(),
            git: GitMode::Commit,
            within: Within::default(),
        }
    }

    /// `request` with everything that is wanted instead of what it said of that.
    #[must_use]
    pub fn of_request(self, request: RunRequest) -> RunRequest {
        RunRequest {
            profile: self.profile,
            called: self.called,
            reads: self.reads,
            entries: self.entries,
            notes: self.notes,
            network: Some(self.network),
            allow_write: self.allow_write,
            may_write: self.may_write,
            carve_outs: self.carve_outs,
            git: self.git,
            within: self.within,
            ..request
        }
    }
}
