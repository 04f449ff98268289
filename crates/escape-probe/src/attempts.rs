//! What each attempt does. None decides whether that was right; `table` says what they are and what is expected.

pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod kernel;
pub(crate) mod proc;
pub(crate) mod processes;
pub(crate) mod protected;
pub(crate) mod secrets;
pub(crate) mod sockets;
