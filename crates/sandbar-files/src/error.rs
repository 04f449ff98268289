//! Why a file method failed.
//!
//! An error carries what a program needs: a stable word, the path, the error number. Which code of the exec server's
//! dialect it has is decided here and nowhere else.

use std::fmt;

use rustix::io::Errno;
use sandbar_proto::AbsPath;
use sandbar_proto::exec::WirePath;
use sandbar_proto::rpc::{RpcError, code};
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$meta:meta])* $variant:ident = $word:literal, $code:ident;)*) => {
        /// What went wrong, in one stable word: the `kind` of an error's `data`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$meta])* $variant,)*
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, which never changes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The code in the dialect.
            #[must_use]
            pub const fn code(self) -> i64 {
                match self { $(Self::$variant => code::$code,)* }
            }
        }
    };
}

kinds! {
    /// It isn't there, or something on the way to it isn't.
    NotFound = "not_found", NOT_FOUND;
    /// The file's owner and mode do not let us (EACCES, EPERM).
    Permission = "permission", INVALID_REQUEST;
    /// The kernel refused inside a sandbox (EACCES, EPERM, EROFS). It does not say whether the sandbox or the file's
    /// own mode did; whoever knows the policy can tell.
    DeniedBySandbox = "denied_by_sandbox", INVALID_REQUEST;
    /// The file system is mounted read-only.
    ReadOnly = "read_only", INTERNAL;
    /// Not a regular file.
    NotAFile = "not_a_file", INVALID_REQUEST;
    /// Not a directory, or something on the way isn't (ENOTDIR).
    NotADirectory = "not_a_directory", INTERNAL;
    /// A directory that was not to be copied with what is in it.
    IsADirectory = "is_a_directory", INVALID_REQUEST;
    /// A symbolic link that was not to be followed.
    IsASymlink = "is_a_symlink", INVALID_REQUEST;
    /// Neither file, directory nor symbolic link, and to be copied.
    SpecialFile = "special_file", INVALID_REQUEST;
    /// It is there already (EEXIST).
    AlreadyExists = "already_exists", INTERNAL;
    /// The directory has entries (ENOTEMPTY).
    NotEmpty = "not_empty", INTERNAL;
    /// More bytes or entries than the method takes.
    TooLarge = "too_large", INVALID_REQUEST;
    /// A number outside the method's bounds.
    OutOfRange = "out_of_range", INVALID_REQUEST;
    /// Not what was expected to be there, or replaced while we were at it.
    Changed = "changed", INVALID_REQUEST;
    /// It can't be replaced as a whole, which was asked for.
    NotAtomic = "not_atomic", INVALID_REQUEST;
    /// A directory was to be copied to itself or into itself.
    IntoItself = "into_itself", INVALID_REQUEST;
    /// Source and destination are one file.
    SameFile = "same_file", INVALID_REQUEST;
    /// Content that is no base64.
    InvalidData = "invalid_data", INVALID_REQUEST;
    /// An argument that the kernel does not take (EINVAL).
    InvalidInput = "invalid_input", INVALID_REQUEST;
    /// The method does not take these parameters.
    InvalidParams = "invalid_params", INVALID_PARAMS;
    /// No such method.
    UnknownMethod = "unknown_method", METHOD_NOT_FOUND;
    /// No handle of this name is open.
    UnknownHandle = "unknown_handle", NOT_FOUND;
    /// A handle or a watch of this name is there already.
    NameInUse = "name_in_use", INVALID_REQUEST;
    /// No more handles or watches on this connection.
    TooMany = "too_many", INVALID_REQUEST;
    /// Read from a handle for writing, or the other way round (EBADF).
    WrongMode = "wrong_mode", INTERNAL;
    /// The file system is full, or its owner's share (ENOSPC, EDQUOT).
    NoSpace = "no_space", INTERNAL;
    /// Symbolic links lead round in a circle (ELOOP).
    Loop = "loop", INTERNAL;
    /// In use (EBUSY, ETXTBSY, EAGAIN).
    Busy = "busy", INTERNAL;
    /// The file system can't do it.
    Unsupported = "unsupported", INTERNAL;
    /// Anything else; the error number says what.
    Io = "io", INTERNAL;
}

impl ErrorKind {
    /// The kind of what the kernel said.
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::ACCESS | Errno::PERM => Self::Permission,
            Errno::ROFS => Self::ReadOnly,
            Errno::NOTDIR => Self::NotADirectory,
            Errno::EXIST => Self::AlreadyExists,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::INVAL => Self::InvalidInput,
            Errno::BADF => Self::WrongMode,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::LOOP => Self::Loop,
            Errno::BUSY | Errno::TXTBSY | Errno::AGAIN => Self::Busy,
            Errno::TOOBIG | Errno::FBIG => Self::TooLarge,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::Unsupported,
            _ => Self::Io,
        }
    }
}

/// Where file methods are carried out, which decides what a refusal of the kernel means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Surroundings {
    /// Outside any sandbox of ours.
    #[default]
    Host,
    /// Inside one: refusals are [`ErrorKind::DeniedBySandbox`].
    Sandbox,
}

/// Why a file method failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// What, for programs.
    pub kind: ErrorKind,
    /// Where, if it concerns a path; below the request's own path where a part of a tree failed.
    pub path: Option<AbsPath>,
    /// What the kernel said, if it was the kernel.
    pub errno: Option<i32>,
    /// What, for people, in the dialect's words where it has some.
    pub message: String,
}

/// `data` of an error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// [`ErrorKind::as_str`].
    pub kind: String,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<WirePath>,
    /// `errno(3)` on the executor's platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl FileError {
    /// A refusal of ours.
    pub(crate) fn new(kind: ErrorKind, path: Option<&AbsPath>, message: impl Into<String>) -> Self {
        Self { kind, path: path.cloned(), errno: None, message: message.into() }
    }

    /// A refusal of the kernel's.
    pub(crate) fn at(path: &AbsPath, errno: Errno) -> Self {
        let number = errno.raw_os_error();
        Self {
            kind: ErrorKind::of(errno),
            path: Some(path.clone()),
            errno: Some(number),
            message: std::io::Error::from_raw_os_error(number).to_string(),
        }
    }

    /// A refusal of the kernel's, as the standard library tells it.
    pub(crate) fn io(path: &AbsPath, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::at(path, Errno::from_raw_os_error(number)),
            None => Self::new(ErrorKind::Io, Some(path), error.to_string()),
        }
    }

    /// The dialect's refusal of what is not a regular file.
    pub(crate) fn not_a_file(path: &AbsPath) -> Self {
        Self::new(ErrorKind::NotAFile, Some(path), format!("path `{}` is not a file", path.to_display()))
    }

    /// The same error as it is to be told where it happened.
    pub(crate) fn within(mut self, surroundings: Surroundings) -> Self {
        let refused = matches!(self.kind, ErrorKind::Permission | ErrorKind::ReadOnly);
        if surroundings == Surroundings::Sandbox && refused {
            self.kind = ErrorKind::DeniedBySandbox;
        }
        self
    }

    /// The code in the dialect.
    #[must_use]
    pub fn code(&self) -> i64 {
        self.kind.code()
    }

    /// The error as the dialect's answers carry it.
    #[must_use]
    pub fn to_rpc(&self) -> RpcError {
        let data = ErrorData {
            kind: self.kind.as_str().to_owned(),
            path: self.path.clone().map(WirePath),
            errno: self.errno,
        };
        RpcError {
            code: self.kind.code(),
            message: self.message.clone(),
            // A struct of texts and a number is always JSON.
            data: serde_json::to_value(data).ok(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.path {
            Some(path) if !self.message.contains('`') => write!(f, ": {}", path.to_display()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_one_that_the_dialect_has_for_files() {
        let with = |code| -> Vec<_> {
            ErrorKind::ALL.iter().filter(|kind| kind.code() == code).map(|kind| kind.as_str()).collect()
        };
        assert_eq!(with(-32004), ["not_found", "unknown_handle"]);
        assert_eq!(with(-32601), ["unknown_method"]);
        assert_eq!(with(-32602), ["invalid_params"]);
        let named: usize = [-32600, -32601, -32602, -32603, -32004].map(|code| with(code).len()).iter().sum();
        assert_eq!(named, ErrorKind::ALL.len());
    }

    #[test]
    fn words_are_told_apart() {
        let mut words: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn only_refusals_become_denials_and_only_in_a_sandbox() {
        let path = AbsPath::new("/a").unwrap();
        let kind = |errno, surroundings| FileError::at(&path, errno).within(surroundings).kind;
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
            assert_eq!(kind(errno, Surroundings::Sandbox), ErrorKind::DeniedBySandbox);
        }
        assert_eq!(kind(Errno::ACCESS, Surroundings::Host), ErrorKind::Permission);
        assert_eq!(kind(Errno::ROFS, Surroundings::Host), ErrorKind::ReadOnly);
        assert_eq!(kind(Errno::NOENT, Surroundings::Sandbox), ErrorKind::NotFound);
    }

    #[test]
    fn an_error_of_the_kernel_reads_as_the_peer_tells_it() {
        let error = FileError::at(&AbsPath::new("/a b").unwrap(), Errno::NOENT);
        assert_eq!(error.message, "No such file or directory (os error 2)");
        assert_eq!(error.to_string(), "No such file or directory (os error 2): /a b");
        let wire = serde_json::to_value(error.to_rpc()).unwrap();
        let data = serde_json::json!({"kind": "not_found", "path": "file:///a%20b", "errno": 2});
        assert_eq!(wire, serde_json::json!({"code": -32004, "message": error.message, "data": data}));
    }
}
