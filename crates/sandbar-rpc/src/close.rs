//! Why a connection ended, and what a peer did that ends one.

use std::borrow::Cow;
use std::time::Duration;

use sandbar_proto::rpc::RequestId;

/// Something a peer did that is answered by dropping the connection, without a word, as Codex 0.169 does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A notification that this side doesn't know.
    #[error("unknown notification `{method}`")]
    UnknownNotification {
        /// Its method.
        method: String,
    },
    /// A notification whose parameters don't fit it.
    #[error("notification `{method}` with parameters that don't fit: {why}")]
    NotificationParams {
        /// Its method.
        method: String,
        /// What doesn't fit.
        why: String,
    },
    /// An answer to a request that was never made, or a second one.
    #[error("an answer to request {id}, which is not in flight")]
    UnsolicitedAnswer {
        /// The id it named.
        id: RequestId,
    },
    /// A binary frame where none was agreed on, or one that can't be read.
    #[error("an unexpected binary frame: {why}")]
    Binary {
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that are no frame of the transport.
    #[error("broken framing: {why}")]
    Framing {
        /// What is wrong with them.
        why: String,
    },
    /// A server sent something that is no message.
    #[error("a message that can't be read: {why}")]
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// Something at the wrong time, such as `initialized` before `initialize`.
    #[error("{what}")]
    OutOfOrder {
        /// What came when.
        what: Cow<'static, str>,
    },
}

/// Why a connection ended. The first reason stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it in order.
    #[error("the peer closed the connection")]
    Peer,
    /// The link broke.
    #[error("the connection was lost: {why}")]
    Lost {
        /// The system's word for it.
        why: String,
    },
    /// The peer gave no sign of life.
    #[error("the peer gave no sign of life for {silence:?}")]
    Silent {
        /// For how long, at least.
        silence: Duration,
    },
    /// The peer broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The peer says that it could not read a message of ours, so some request will never be answered.
    #[error("the peer could not read a message: {message}")]
    NotUnderstood {
        /// Its words.
        message: String,
    },
    /// The peer reads too slowly for what must not wait.
    #[error("the peer doesn't read: {frames} messages of {bytes} bytes wait on the control lane")]
    ControlOverflow {
        /// Messages that waited.
        frames: usize,
        /// Their size.
        bytes: usize,
    },
    /// This side closed it.
    #[error("{0}")]
    Local(Cow<'static, str>),
    /// Whoever ran the connection stopped to.
    #[error("the connection is no longer served")]
    Abandoned,
}

impl CloseReason {
    /// This side closed it, and why.
    pub fn local(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Local(why.into())
    }

    /// Whether the peer can be told: the link stands, and silence is not the answer.
    pub(crate) fn has_last_words(&self) -> bool {
        self.flushes() || matches!(self, Self::ControlOverflow { .. } | Self::NotUnderstood { .. })
    }

    /// Whether what is queued is still worth writing.
    pub(crate) fn flushes(&self) -> bool {
        match self {
            Self::Peer | Self::Local(_) => true,
            Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Violation(_)
            | Self::NotUnderstood { .. }
            | Self::ControlOverflow { .. }
            | Self::Abandoned => false,
        }
    }
}

/// Nothing more can be sent: the connection has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended: {0}")]
pub struct Closed(pub CloseReason);
