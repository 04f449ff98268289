//! Places where commands run and files lie, behind one surface: this machine, another one, or none.
//!
//! This machine is the exec server within the same program, over a link in memory, so that a plan, a refusal, a gap or a
//! path means the same wherever it is. What an environment does not have is refused by name; nothing falls back to
//! another place.

use std::sync::Arc;
use std::time::Duration;

use sandbar_proto::exec::{
    CanonicalPath, CopyParams, CreateDirectoryParams, DirectoryEntries, FileContent, Metadata, PathParams,
    ReadFileParams, RemoveParams, WalkParams, Walked, WriteFileParams, Written, method,
};
use sandbar_rpc::auth::Principal;
use sandbar_rpc::{Connection, Limits, memory};
use serde::de::IgnoredAny;

use crate::BoxFuture;
use crate::remote::{Dial, DialError, Dialed, Remote, RemoteError, Settings};
use crate::server::Server;

/// A place.
#[derive(Debug, Clone)]
pub struct Environment {
    id: Arc<str>,
    at: Option<Remote>,
    has_processes: bool,
    has_files: bool,
}

/// Something that an environment does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment {environment} has no {what}")]
pub struct Disabled {
    /// Its id.
    pub environment: String,
    /// What it lacks: `commands` or `files`.
    pub what: &'static str,
}

impl Environment {
    /// This machine, through a server within this program.
    #[must_use]
    pub fn local(id: &str, server: &Server) -> Self {
        let dial = Within { server: server.clone(), principal: Principal::new(format!("in process: {id}")) };
        Self::elsewhere(id, Remote::new(dial, "sandbar", Settings::default()))
    }

    /// Wherever `remote` leads.
    #[must_use]
    pub fn elsewhere(id: &str, remote: Remote) -> Self {
        Self { id: id.into(), at: Some(remote), has_processes: true, has_files: true }
    }

    /// Nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self { id: "none".into(), at: None, has_processes: false, has_files: false }
    }

    /// The same without commands.
    #[must_use]
    pub fn without_processes(self) -> Self {
        Self { has_processes: false, ..self }
    }

    /// The same without files.
    #[must_use]
    pub fn without_files(self) -> Self {
        Self { has_files: false, ..self }
    }

    /// What it is called.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether commands run there. A tool that needs that is not offered otherwise.
    #[must_use]
    pub fn exec_enabled(&self) -> bool {
        self.has_processes && self.at.is_some()
    }

    /// Whether there are files. A tool that needs them is not offered otherwise.
    #[must_use]
    pub fn filesystem_enabled(&self) -> bool {
        self.has_files && self.at.is_some()
    }

    /// Its processes.
    ///
    /// # Errors
    /// It has none.
    pub fn processes(&self) -> Result<&Remote, Disabled> {
        self.at.as_ref().filter(|_| self.has_processes).ok_or_else(|| self.lacks("commands"))
    }

    /// Its files.
    ///
    /// # Errors
    /// It has none.
    pub fn files(&self) -> Result<Files<'_>, Disabled> {
        let remote = self.at.as_ref().filter(|_| self.has_files).ok_or_else(|| self.lacks("files"))?;
        Ok(Files { remote })
    }

    fn lacks(&self, what: &'static str) -> Disabled {
        Disabled { environment: self.id.to_string(), what }
    }
}

/// How long a server within this program may take to greet, on a machine that is very busy.
const GREETING: Duration = Duration::from_secs(60);

/// A server within this program.
struct Within {
    server: Server,
    principal: Principal,
}

impl Dial for Within {
    fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
        Box::pin(async move {
            let (client, server, _link) = memory();
            let (sender, connection) = Connection::new(server, Limits::default());
            let service = self.server.connection(self.principal.clone(), sender);
            tokio::spawn(connection.run(service));
            Ok(Dialed { transport: client, patience: GREETING, is_far: false, guard: None })
        })
    }
}

/// The files of an environment. Each request may carry the sandbox that it is carried out under.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    remote: &'a Remote,
}

impl Files<'_> {
    /// A whole file.
    ///
    /// # Errors
    /// [`RemoteError`]; its kind is `not_found` where there is none.
    pub async fn read(&self, params: &ReadFileParams) -> Result<Vec<u8>, RemoteError> {
        let content: FileContent = self.remote.call(method::FS_READ_FILE, params).await?;
        Ok(content.data_base64.0)
    }

    /// Writes a whole file. Not repeated when its answer got lost, unless an expected content makes that harmless.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn write(&self, params: &WriteFileParams) -> Result<Written, RemoteError> {
        self.remote.call_once(method::FS_WRITE_FILE, params).await
    }

    /// What a path is.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn metadata(&self, params: &PathParams) -> Result<Metadata, RemoteError> {
        self.remote.call(method::FS_GET_METADATA, params).await
    }

    /// Its real path.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn canonicalize(&self, params: &PathParams) -> Result<CanonicalPath, RemoteError> {
        self.remote.call(method::FS_CANONICALIZE, params).await
    }

    /// Entries of a directory, sorted.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn list(&self, params: &PathParams) -> Result<DirectoryEntries, RemoteError> {
        self.remote.call(method::FS_READ_DIRECTORY, params).await
    }

    /// Entries of a tree, within limits.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn walk(&self, params: &WalkParams) -> Result<Walked, RemoteError> {
        self.remote.call(method::FS_WALK, params).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn create_directory(&self, params: &CreateDirectoryParams) -> Result<(), RemoteError> {
        self.remote.call_once::<IgnoredAny>(method::FS_CREATE_DIRECTORY, params).await.map(drop)
    }

    /// Removes.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn remove(&self, params: &RemoveParams) -> Result<(), RemoteError> {
        self.remote.call_once::<IgnoredAny>(method::FS_REMOVE, params).await.map(drop)
    }

    /// Copies.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn copy(&self, params: &CopyParams) -> Result<(), RemoteError> {
        self.remote.call_once::<IgnoredAny>(method::FS_COPY, params).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Dial for Nowhere {
        fn dial(&self) -> BoxFuture<'_, Result<Dialed, DialError>> {
            let error = DialError { message: "there is nothing there".to_owned(), is_final: true };
            Box::pin(std::future::ready(Err(error)))
        }
    }

    #[tokio::test]
    async fn what_an_environment_lacks_is_refused_by_name() {
        let none = Environment::none();
        assert!(!none.exec_enabled() && !none.filesystem_enabled());
        assert_eq!(none.processes().unwrap_err().to_string(), "the environment none has no commands");
        let remote = Remote::new(Nowhere, "test", Settings::default());
        let there = Environment::elsewhere("box", remote.clone()).without_processes();
        assert!(!there.exec_enabled() && there.filesystem_enabled());
        assert!(there.processes().is_err() && there.files().is_ok());
        let there = Environment::elsewhere("box", remote).without_files();
        assert_eq!(there.files().unwrap_err().to_string(), "the environment box has no files");
        let gone = there.processes().unwrap().info().await.unwrap_err();
        assert_eq!(
            gone,
            RemoteError::Gone("there is nothing there".into()),
            "and nothing happens here instead"
        );
    }
}
