//! The output log of a process: what it wrote, in order, bounded, readable by others while it grows.
//!
//! A log is a row of segment files, each a row of records. The keeper appends with pwrite(2), never through a
//! mapping (a full tmpfs would be a SIGBUS); readers read the same files at their own pace and learn of growth
//! from the keeper. When the bound is reached the oldest segment goes; sequence numbers and offsets tell every
//! reader exactly what it missed.

mod reader;
mod record;
mod segment;
mod writer;

pub(crate) use reader::last_record;
pub use reader::{LogItem, LogReader, ReadError, before_tail};
pub use record::{RecordError, RecordHeader};
pub(crate) use writer::{AppendError, Keep, LogWriter, SavedLog};
