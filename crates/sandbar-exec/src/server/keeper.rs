//! A server's connections to the keeper, made again when the keeper is gone.
//!
//! A keeper that dies takes what it held along; the next start gets another keeper, in the same server and the same
//! sessions.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::local::LocalProcesses;
use crate::{BoxFuture, ProcessError};

/// Connections to one keeper.
#[derive(Debug, Clone)]
pub struct Connections {
    /// Starts what sessions own and follows it for them, so that it waits for their clients.
    pub processes: LocalProcesses,
    /// Looks at it besides. A keeper knows one watch of each connection: a second one would take the place of the first.
    pub readers: LocalProcesses,
}

/// Connects to this user's keeper, starting one if none runs. The error is for people.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Connections, String>> + Send + Sync>;

/// Connections that stand, as far as is known.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Which keeper they lead to, from 1 on.
    pub(super) generation: u64,
    pub(super) to: Connections,
}

/// The keeper of a server.
pub(super) struct Keeper {
    connect: Connect,
    held: Mutex<Held>,
    making: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("generation", &self.held().generation).finish_non_exhaustive()
    }
}

impl Keeper {
    pub(super) fn new(first: Connections, connect: Connect) -> Self {
        let held = Mutex::new(Held { generation: 1, to: first });
        Self { connect, held, making: tokio::sync::Mutex::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // It is replaced as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections as they are, which may be lost.
    pub(super) fn held(&self) -> Held {
        self.lock().clone()
    }

    /// Connections that stand: made anew if the keeper is gone.
    ///
    /// # Errors
    /// There is no keeper, and none can be started.
    pub(super) async fn alive(&self) -> Result<Held, ProcessError> {
        let stands = |held: &Held| !held.to.processes.is_lost() && !held.to.readers.is_lost();
        let held = self.held();
        if stands(&held) {
            return Ok(held);
        }
        // One makes them, the others wait for that.
        let _making = self.making.lock().await;
        let held = self.held();
        if stands(&held) {
            return Ok(held);
        }
        let to = (self.connect)().await.map_err(ProcessError::Lost)?;
        let held = Held { generation: held.generation + 1, to };
        *self.lock() = held.clone();
        Ok(held)
    }
}
