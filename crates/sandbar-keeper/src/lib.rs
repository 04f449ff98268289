//! The keeper: the small process that starts, holds and records every command, and the client that speaks to it.
//!
//! Keeps what runs alive while its clients come and go, and every byte that it wrote readable until nobody is
//! owed it. Decides nothing: plans come from `sandbar-policy`, walls from `sandbar-sandbox`. Has no runtime and
//! no network; the client is a state machine over a descriptor that any event loop can drive.

mod client;
mod daemon;
mod handover;
mod launcher;
mod log;
mod patience;
pub mod protocol;
mod records;
mod runtime_dir;
mod transport;

pub use client::{Client, ClientError, Incoming, Peer};
pub use daemon::{Gate, KeeperError, serve};
pub use launcher::{
    ATTENDANT_ARGUMENT, ConnectError, KEEPER_ARGUMENT, Knock, connect, connect_or_start, keeper_main, knock,
    limits, upgrade,
};
pub use log::{LogItem, LogReader, ReadError, RecordError, RecordHeader, before_tail};
pub use patience::{Patience, Unanswered};
pub use records::{Record, RecordsError, keeper_is_alive, read, read_all};
pub use runtime_dir::{Distrust, KeeperDir, RuntimeDir, RuntimeDirError};
