//! Reading files for a request that names none: with this program's own rights, or under the sandbox it carries.
//!
//! Everything goes through the file methods, so that a sandbox is obeyed where they obey it: by the kernel. What is
//! there and too large, no text or out of reach is told apart from what is missing, since only the latter is nothing
//! to speak of.

use std::sync::Arc;

use sandbar_proto::AbsPath;
use sandbar_proto::exec::{
    CanonicalPath, FileContent, FileSystemSandbox, LegacyPolicy, Metadata, WalkOptions, Walked, WirePath,
    method,
};
use sandbar_proto::rpc::{RpcError, code};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::files::{ConnectionFiles, Key};
use super::{Shared, refusal};

/// Reads files for one request.
pub(super) struct Reading<'a> {
    files: &'a ConnectionFiles,
    shared: &'a Arc<Shared>,
    sandbox: Option<Key>,
}

/// Why a file that is there was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// It has more bytes than are read.
    TooLarge { limit: usize },
    /// It is no UTF-8.
    NoText,
    /// Anything else.
    Failed { why: String },
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "it has more than {limit} bytes"),
            Self::NoText => f.write_str("it is no UTF-8"),
            Self::Failed { why } => f.write_str(why),
        }
    }
}

impl<'a> Reading<'a> {
    /// Reads under `sandbox` or `legacy`, or freely if there is neither.
    ///
    /// # Errors
    /// The sandbox can't be had.
    pub(super) fn new(
        files: &'a ConnectionFiles,
        shared: &'a Arc<Shared>,
        sandbox: Option<&FileSystemSandbox>,
        legacy: Option<&LegacyPolicy>,
    ) -> Result<Self, RpcError> {
        Ok(Self { files, shared, sandbox: ConnectionFiles::key(shared, sandbox, legacy)? })
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, params: &impl Serialize) -> Result<T, RpcError> {
        let broken = |error: serde_json::Error| refusal::invalid("files", error.to_string());
        let params = to_raw_value(params).map_err(broken)?;
        let answer = self.files.carry_out(self.shared, self.sandbox.clone(), method, params).await?;
        serde_json::from_str(answer.get()).map_err(broken)
    }

    /// What is at a path; nothing if that is missing, or if something on the way is no directory.
    ///
    /// # Errors
    /// It can't be said.
    pub(super) async fn metadata(&self, path: &AbsPath) -> Result<Option<Metadata>, Unread> {
        present(self.ask(method::FS_GET_METADATA, &json!({"path": WirePath(path.clone())})).await)
    }

    /// The text of a file of at most `limit` bytes; nothing if it is missing.
    ///
    /// # Errors
    /// [`Unread`].
    pub(super) async fn text(&self, path: &AbsPath, limit: usize) -> Result<Option<String>, Unread> {
        let Some(metadata) = self.metadata(path).await? else { return Ok(None) };
        // Asked before, so that nothing large is read; and once more of what was read, since it may have grown.
        if metadata.size > limit as u64 {
            return Err(Unread::TooLarge { limit });
        }
        let read = self.ask(method::FS_READ_FILE, &json!({"path": WirePath(path.clone())})).await;
        let Some(FileContent { data_base64 }) = present(read)? else { return Ok(None) };
        if data_base64.0.len() > limit {
            return Err(Unread::TooLarge { limit });
        }
        String::from_utf8(data_base64.0).map(Some).map_err(|_| Unread::NoText)
    }

    /// Everything below a directory; nothing if it is missing or no directory.
    ///
    /// # Errors
    /// It can't be entered.
    pub(super) async fn walk(&self, path: &AbsPath, options: WalkOptions) -> Result<Option<Walked>, Unread> {
        present(self.ask(method::FS_WALK, &json!({"path": WirePath(path.clone()), "options": options})).await)
    }

    /// The path without symbolic links; itself if it can't be had.
    pub(super) async fn canonical(&self, path: &AbsPath) -> AbsPath {
        let params = json!({"path": WirePath(path.clone())});
        let found = self.ask::<CanonicalPath>(method::FS_CANONICALIZE, &params).await;
        found.map_or_else(|_| path.clone(), |found| found.path.0)
    }
}

/// Takes what is missing for nothing.
fn present<T>(answer: Result<T, RpcError>) -> Result<Option<T>, Unread> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == code::NOT_FOUND || error.kind() == Some("not_a_directory") => Ok(None),
        Err(error) => Err(Unread::Failed { why: error.message }),
    }
}
