//! A sandbox as plain data: ordered mount operations, Landlock rules, a system-call filter, an identity.
//!
//! Operations are declarative, so that a simulator and the kernel can be asked the same question. The order of
//! a plan's work is fixed (see `sandbar-sandbox`): every source is opened before anything is changed, then the
//! whole tree becomes read-only, then the operations run in order, Landlock is built last.
//!
//! Enumerations here are tagged from outside: serde reads an inner tag by keeping everything around it twice, which
//! made decoding a plan four times as slow as it is (measured on the keeper's start path).

use serde::{Deserialize, Serialize};

use crate::{AbsPath, ByteString, FileIdentity, PathGlob, PinnedPath};

/// What surrounds the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Nothing. Only the profile `danger-full-access` asks for it.
    None,
    /// Namespaces, mounts, Landlock and seccomp of Linux.
    Linux(Box<LinuxSandbox>),
}

/// Who makes the namespaces and mounts of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// Sandbar itself.
    #[default]
    Native,
    /// The system's bubblewrap, which inside starts Sandbar's own holder.
    Bwrap {
        /// The program, executed only as long as it is this file.
        program: PinnedPath,
    },
    /// Landlock and the system-call filter alone, without any namespace. Such a plan has no mounts, caches and
    /// placeholders, and its rules are all that is granted.
    Landlock {
        /// Below it each run gets a temporary directory of its own, made by the keeper and removed at the end.
        temporary: AbsPath,
    },
}

impl Executor {
    /// Whether it is Sandbar itself.
    #[must_use]
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// The Linux sandbox of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxSandbox {
    /// Who makes it.
    #[serde(default, skip_serializing_if = "Executor::is_native")]
    pub executor: Executor,
    /// Users inside.
    pub identity: Identity,
    /// Network.
    pub network: NetworkMode,
    /// Changes to the mount tree, in order, after `/` became recursively read-only, nosuid and nodev.
    pub mounts: Vec<MountOp>,
    /// Download caches that are mounted copy-on-write, before `mounts`.
    #[serde(default)]
    pub caches: Vec<CacheMount>,
    /// Names to reserve on the host while the run lives.
    #[serde(default)]
    pub placeholders: Vec<Placeholder>,
    /// Private directory where placeholders wait for their next use, made by the keeper, 0700. Moving one in and
    /// out is a twentieth of making and removing it, where both are on one file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder_pool: Option<AbsPath>,
    /// Patterns whose matches are covered also where they come to be while the run lives. What matched before is among
    /// `mounts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<PathGlob>,
    /// Landlock on top; absent where the kernel has none and the plan does not need it.
    pub landlock: Option<LandlockSpec>,
    /// System-call filter.
    pub seccomp: SeccompSpec,
}

/// A range of user or group ids that means the same inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Another user than the caller, for a privileged caller in somebody else's workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id; supplementary groups are cleared.
    pub gid: u32,
}

/// Who the command is inside the user namespace. Ids are mapped to themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Mapped users. More than the caller's own id needs CAP_SETUID outside (user_namespaces(7)).
    pub users: Vec<IdRange>,
    /// Mapped groups.
    pub groups: Vec<IdRange>,
    /// Who runs the command when it is not the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,
}

/// Reach of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// An own network namespace with nothing but its loopback.
    Off,
    /// The caller's network.
    On,
}

/// What a bind mount allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindAccess {
    /// Read and execute.
    Read,
    /// Everything but set-user-id and device files.
    Write,
}

/// What a fresh tmpfs allows once the plan is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TmpfsAccess {
    /// Sealed read-only after the last operation.
    Read,
    /// Stays writable.
    Write,
}

/// One change to the mount tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountOp {
    /// Mounts the host's tree at `source` onto `target`, with what is mounted below it.
    Bind {
        /// Opened before anything changes; refused when it is not this file any more.
        source: PinnedPath,
        /// Where; differs from the source only for what a plan rebuilds inside a fresh tmpfs.
        target: AbsPath,
        /// What it allows.
        access: BindAccess,
    },
    /// Covers a directory or file with an empty one that nobody may open.
    Mask {
        /// What is hidden.
        target: PinnedPath,
        /// The cover of a file may be read, as empty: for configuration whose tool gives up on EACCES but not on
        /// an empty file. Means nothing for a directory.
        #[serde(default, skip_serializing_if = "is_false")]
        readable_empty: bool,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Where.
        target: AbsPath,
        /// Permission bits of its root.
        mode: u32,
        /// What it allows once the plan is in place.
        access: TmpfsAccess,
        /// Upper bound in bytes; the kernel's default is half of the memory (tmpfs(5)).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    /// Makes a directory, and the missing ones above it, inside a tmpfs of this plan.
    MakeDir {
        /// Where.
        path: AbsPath,
        /// Permission bits.
        mode: u32,
    },
    /// Makes an empty file inside a tmpfs of this plan.
    MakeFile {
        /// Where.
        path: AbsPath,
        /// Permission bits.
        mode: u32,
    },
    /// Makes a symbolic link inside a tmpfs of this plan.
    Symlink {
        /// Where.
        path: AbsPath,
        /// What it says.
        to: ByteString,
    },
    /// A fresh procfs of the own pid namespace on `/proc`, with `/proc/sys` and friends read-only.
    Proc,
    /// A minimal `/dev`: null, zero, full, random, urandom, tty, an own devpts, the fd links.
    Dev,
}

/// What becomes of what a run writes into a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheWrites {
    /// It is kept in the store, above the host's cache, and seen by the next run.
    Kept,
    /// It is forgotten at the end of the run. The run sees the host's cache and what earlier ones kept.
    Forgotten,
    /// It is kept in the store, which stands in for the host's cache; nothing of the host's is seen.
    Separate,
}

/// A host cache that a run may write to without changing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Name within the trust domain; a folder name.
    pub name: String,
    /// The host's cache: lower layer and mount point.
    pub target: PinnedPath,
    /// Folder of the trust domain that keeps what is written inside; made by the keeper, 0700.
    pub store: AbsPath,
    /// What becomes of what is written.
    pub writes: CacheWrites,
}

/// What kind of file reserves a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceholderKind {
    /// An empty directory.
    Directory,
    /// A file with this content.
    File {
        /// Its whole content.
        content: ByteString,
    },
}

/// A missing name that must not come into being while the run lives: the keeper makes it, mounts it read-only,
/// and removes it at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placeholder {
    /// The directory that gets the name.
    pub parent: PinnedPath,
    /// The name.
    pub name: ByteString,
    /// What is made.
    pub what: PlaceholderKind,
}

impl Placeholder {
    /// The mode of a directory, by which it is known. Sticky and otherwise ordinary: on a directory of one owner the bit does
    /// nothing. The owner may write, because a directory moves between parents only if it can be written (rename(2)).
    pub const DIRECTORY_MODE: u32 = 0o1755;

    /// The mode of a file, by which it is known: nobody sets the sticky bit of a file.
    pub const FILE_MODE: u32 = 0o1444;

    /// All that a file may have as its content.
    pub const CONTENTS: [&'static str; 2] = ["", ".\n"];
}

/// Rights granted beneath a path; everything else the kernel can restrict is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LandlockAccess {
    /// Read files and directories, execute.
    Read,
    /// Every right except making device nodes.
    Write,
    /// Read and write existing files, ioctl on devices; make nothing.
    Device,
}

/// One Landlock rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockRule {
    /// Hierarchy, opened inside the sandbox after the last mount.
    pub path: AbsPath,
    /// Which file that was when the plan was made, where the rule holds for no other. One that is gone grants nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileIdentity>,
    /// What it grants.
    pub access: LandlockAccess,
}

/// The Landlock layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockSpec {
    /// The least ABI version (landlock(7)) that the plan was made for; older kernels refuse the plan.
    pub min_abi: u32,
    /// Grants.
    pub rules: Vec<LandlockRule>,
    /// Files are left alone, and only what the kernel can scope is: it refuses every mount to whoever is restricted in files
    /// (landlock(7)).
    #[serde(default, skip_serializing_if = "is_false")]
    pub scopes_only: bool,
}

/// A test of one system-call argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArgTest {
    /// Which argument, 0 to 5.
    pub arg: u8,
    /// Bits of the argument's low 32 bits to look at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// What the filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call runs.
    Allow,
    /// The call fails with this error number.
    Errno(u16),
    /// The process dies by SIGSYS.
    Kill,
    /// The holder looks at it and carries it out, or fails it: for changes to a file's mode, times and owner, and
    /// watches, where no mount forbids them. Without a holder that listens the call fails with ENOSYS.
    Ask,
}

/// What happens to one system call: the verdict of the first clause whose tests all match, else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyscallRule {
    /// Kernel name, as in syscalls(2).
    pub name: std::borrow::Cow<'static, str>,
    /// Clauses in order; the tests of one are a conjunction, and an empty one always matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<(Vec<ArgTest>, Verdict)>,
    /// Without a match.
    pub otherwise: Verdict,
}

/// A system-call filter as data. Names that the platform does not have are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeccompSpec {
    /// Calls that simply run. One string on the wire, names between spaces: there are hundreds.
    #[serde(with = "names")]
    pub allow: Vec<std::borrow::Cow<'static, str>>,
    /// Calls that need a look at their arguments, or another answer than the default.
    pub rules: Vec<SyscallRule>,
    /// Every other call.
    pub default: Verdict,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// A list of names as one string.
mod names {
    use std::borrow::Cow;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        names: &[Cow<'static, str>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&names.join(" "))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Cow<'static, str>>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Ok(text.split_ascii_whitespace().map(|name| Cow::Owned(name.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_json() {
        let rule = SyscallRule {
            name: "socket".into(),
            when: vec![(vec![ArgTest { arg: 0, mask: 0xff, value: 1 }], Verdict::Errno(1))],
            otherwise: Verdict::Allow,
        };
        let spec = SeccompSpec {
            allow: vec!["read".into(), "write".into()],
            rules: vec![rule],
            default: Verdict::Kill,
        };
        let text = serde_json::to_string(&spec).unwrap();
        assert!(text.contains("\"read write\""), "{text}");
        assert_eq!(serde_json::from_str::<SeccompSpec>(&text).unwrap(), spec);
    }
}
