//! The file methods: carried out here, or by a helper inside the sandbox that a request carries.
//!
//! No path is compared with any policy here. A request without a sandbox is carried out with this program's own rights, as
//! the dialect says; one with a sandbox is handed to a process that the keeper started in exactly that sandbox, so that
//! the kernel refuses what the sandbox does. A sandbox is never passed over: what it asks for and can't be had is an
//! error.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbar_files::{FileError, Files, Handles, Part, Surroundings, Watch, Watches, part_for};
use sandbar_policy::Wanted;
use sandbar_proto::AbsPath;
use sandbar_proto::exec::{FileSystemSandbox, LegacyPolicy, MissingChanged, method};
use sandbar_proto::rpc::RpcError;
use sandbar_rpc::{Call, Sender};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex as AsyncMutex;

use super::helper::Helper;
use super::{Shared, launch, refusal};

/// Helpers of one connection, each for another sandbox; the least recently used one is ended for a further one.
const MAX_HELPERS: usize = 8;

/// The file methods of one connection: what it has open ends with it.
pub(super) struct ConnectionFiles {
    connection: u64,
    sender: Sender,
    handles: Arc<Mutex<Handles>>,
    watches: Arc<Mutex<Watches>>,
    is_watching: Mutex<bool>,
    /// Where the handles are that were opened under a sandbox.
    routes: Mutex<HashMap<String, Arc<Helper>>>,
    /// Most recently used last.
    helpers: AsyncMutex<Vec<(Key, Arc<Helper>)>>,
}

/// What makes two sandboxes the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    wanted: Wanted,
    cwd: AbsPath,
}

/// The part of any request that says where it is carried out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Front {
    #[serde(default)]
    sandbox: Option<FileSystemSandbox>,
    #[serde(default)]
    sandbox_policy: Option<LegacyPolicy>,
    /// Of whatever shape: who carries it out says what is wrong with it.
    #[serde(default)]
    handle_id: Option<Box<RawValue>>,
}

impl Front {
    fn handle_id(&self) -> Option<String> {
        serde_json::from_str(self.handle_id.as_ref()?.get()).ok()
    }

    /// The parameters without what has been decided. A member that is `null` asks for nothing and may stay.
    fn without_sandbox(&self, params: Box<RawValue>) -> Result<Box<RawValue>, RpcError> {
        if self.sandbox.is_none() && self.sandbox_policy.is_none() {
            return Ok(params);
        }
        let wrong = |error: serde_json::Error| refusal::params(error.to_string());
        let mut members: HashMap<&str, &RawValue> = serde_json::from_str(params.get()).map_err(wrong)?;
        members.remove("sandbox");
        members.remove("sandboxPolicy");
        to_raw_value(&members).map_err(wrong)
    }
}

impl std::fmt::Debug for ConnectionFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionFiles").field("connection", &self.connection).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread may have left half done is a handle or a watch of this connection alone.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionFiles {
    pub(super) fn new(connection: u64, sender: Sender) -> Self {
        Self {
            connection,
            sender,
            handles: Arc::new(Mutex::new(Handles::new(Surroundings::Host))),
            watches: Arc::new(Mutex::new(Watches::new(Surroundings::Host))),
            is_watching: Mutex::new(false),
            routes: Mutex::default(),
            helpers: AsyncMutex::default(),
        }
    }

    /// Carries out a file method.
    ///
    /// # Errors
    /// Those of the method, and of the sandbox.
    pub(super) async fn call(&self, shared: &Arc<Shared>, call: Call) -> Result<Box<RawValue>, RpcError> {
        let Call { method, params, .. } = call;
        let part = part_for(&method).ok_or_else(|| refusal::unknown_method(&method))?;
        let Some(params) = params else { return Err(refusal::params("missing parameters")) };
        if part == Part::Handles && method != method::FS_OPEN && lock(&self.routes).is_empty() {
            // A handle has the sandbox that it was opened with, and none was: nothing more is to be found out.
            return self.here(part, &method, params).await;
        }
        // Contents are in there too: they are gone through once, not for each question.
        let front: Front =
            serde_json::from_str(params.get()).map_err(|error| refusal::params(error.to_string()))?;
        if let Some(helper) = self.helper_of_handle(part, &method, &front) {
            let answer = helper.call(self.connection, &method, params).await;
            if method == method::FS_CLOSE
                && answer.is_ok()
                && let Some(handle_id) = front.handle_id()
            {
                lock(&self.routes).remove(&handle_id);
            }
            return answer;
        }
        match Self::key(shared, front.sandbox.as_ref(), front.sandbox_policy.as_ref())? {
            None => self.here(part, &method, front.without_sandbox(params)?).await,
            Some(key) => {
                let helper = self.helper(shared, key).await?;
                let handle_id = (method == method::FS_OPEN).then(|| front.handle_id()).flatten();
                let params = front.without_sandbox(params)?;
                let answer = helper.call(self.connection, &method, params).await?;
                if let Some(handle_id) = handle_id {
                    lock(&self.routes).insert(handle_id, helper);
                }
                Ok(answer)
            }
        }
    }

    /// Carries out a method that needs no memory, for a request that is no file method itself.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) async fn carry_out(
        &self,
        shared: &Arc<Shared>,
        sandbox: Option<Key>,
        method: &str,
        params: Box<RawValue>,
    ) -> Result<Box<RawValue>, RpcError> {
        match sandbox {
            None => self.here(Part::Files, method, params).await,
            Some(key) => self.helper(shared, key).await?.call(self.connection, method, params).await,
        }
    }

    /// Where a handle is that was opened under a sandbox; also for another `fs/open` of its name, which is refused there.
    fn helper_of_handle(&self, part: Part, method: &str, front: &Front) -> Option<Arc<Helper>> {
        if part != Part::Handles {
            return None;
        }
        let helper = lock(&self.routes).get(&front.handle_id()?).cloned()?;
        // A handle that is open in one place is taken in every other.
        (method != method::FS_OPEN || helper.is_alive()).then_some(helper)
    }

    /// The sandbox that a request asks for, if it asks for one.
    ///
    /// # Errors
    /// It can't be had.
    pub(super) fn key(
        shared: &Shared,
        sandbox: Option<&FileSystemSandbox>,
        legacy: Option<&LegacyPolicy>,
    ) -> Result<Option<Key>, RpcError> {
        if sandbox.is_none() && legacy.is_none() {
            return Ok(None);
        }
        let named = sandbox.and_then(|sandbox| sandbox.cwd.as_ref().or(sandbox.workspace_roots.first()));
        let cwd = named.map_or_else(|| shared.host.cwd.clone(), |path| path.0.clone());
        let wanted = launch::read_sandbox(&shared.host, &cwd, sandbox, legacy)?;
        // Asking for none is as good as not asking.
        Ok(wanted.profile.has_sandbox().then_some(Key { wanted, cwd }))
    }

    async fn helper(&self, shared: &Arc<Shared>, key: Key) -> Result<Arc<Helper>, RpcError> {
        let mut helpers = self.helpers.lock().await;
        helpers.retain(|(_, helper)| helper.is_alive());
        if let Some(at) = helpers.iter().position(|(known, _)| *known == key) {
            let found = helpers.remove(at);
            let helper = Arc::clone(&found.1);
            helpers.push(found);
            return Ok(helper);
        }
        let helper =
            Arc::new(Helper::start(shared, key.wanted.clone(), key.cwd.clone(), self.sender.clone()).await?);
        if helpers.len() >= MAX_HELPERS {
            // Handles that it has open keep it alive until they are closed.
            helpers.remove(0);
        }
        helpers.push((key, Arc::clone(&helper)));
        Ok(helper)
    }

    /// Carries out a method with this program's own rights.
    async fn here(&self, part: Part, method: &str, params: Box<RawValue>) -> Result<Box<RawValue>, RpcError> {
        let name = method.to_owned();
        match part {
            Part::Files => blocking(move || Files::new(Surroundings::Host).call(&name, &params)).await,
            Part::Handles => {
                let handles = Arc::clone(&self.handles);
                blocking(move || lock(&handles).call(&name, &params)).await
            }
            Part::Watches => {
                let (watches, connection) = (Arc::clone(&self.watches), self.connection);
                let (result, key, watch) =
                    blocking(move || lock(&watches).call(connection, &name, &params)).await?;
                match watch {
                    // Behind the answer: what is sent on the control lane keeps its order.
                    Watch::Changed => {
                        let sender = self.sender.clone();
                        tokio::spawn(async move {
                            let told = MissingChanged { watch_id: key.id };
                            // A connection that has ended wants no news.
                            let _ = sender.data_notification(method::FS_MISSING_CHANGED, &told).await;
                        });
                    }
                    Watch::Waiting => self.watch()?,
                }
                Ok(result)
            }
        }
    }

    /// Begins to look for changes, with the first watch.
    fn watch(&self) -> Result<(), RpcError> {
        let mut is_watching = lock(&self.is_watching);
        if *is_watching {
            return Ok(());
        }
        let fd = lock(&self.watches).fd().map(|fd| fd.try_clone_to_owned());
        let Some(fd) = fd else { return Ok(()) };
        let io = |error: std::io::Error| refusal::invalid("watch", error.to_string());
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for owners that could exchange their descriptor; this one can't"
        )]
        let fd = AsyncFd::with_interest(fd.map_err(io)?, Interest::READABLE).map_err(io)?;
        *is_watching = true;
        tokio::spawn(tell_changes(fd, Arc::downgrade(&self.watches), self.sender.clone()));
        Ok(())
    }
}

/// Tells of watches that saw something, as long as the connection lives.
async fn tell_changes(fd: AsyncFd<OwnedFd>, watches: std::sync::Weak<Mutex<Watches>>, sender: Sender) {
    loop {
        tokio::select! {
            ready = fd.readable() => {
                let Ok(mut ready) = ready else { return };
                let Some(watches) = watches.upgrade() else { return };
                let Ok(changed) = lock(&watches).changed() else { return };
                ready.clear_ready();
                for key in changed {
                    let told = MissingChanged { watch_id: key.id };
                    if sender.notify(method::FS_MISSING_CHANGED, &told).is_err() {
                        return;
                    }
                }
            }
            _ = sender.closed() => return,
        }
    }
}

/// Runs what may wait for a file system on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, RpcError> {
    let done = tokio::task::spawn_blocking(work).await;
    let result = done.map_err(|error| refusal::invalid("interrupted", error.to_string()))?;
    result.map_err(|error| error.to_rpc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_taken_out_and_nothing_else() {
        let without = |text: &str| {
            let front: Front = serde_json::from_str(text).unwrap();
            front.without_sandbox(RawValue::from_string(text.to_owned()).unwrap()).unwrap().get().to_owned()
        };
        for untouched in [
            r#"{"path":"/a","followSymlinks":false}"#,
            r#"{"path":"/a","sandbox":null,"sandboxPolicy":null}"#,
        ] {
            assert_eq!(without(untouched), untouched);
        }
        let policy = r#"{"type":"danger-full-access"}"#;
        assert_eq!(
            without(&format!(r#"{{"sandbox":null,"path":"/a","sandboxPolicy":{policy}}}"#)),
            r#"{"path":"/a"}"#
        );
    }
}
