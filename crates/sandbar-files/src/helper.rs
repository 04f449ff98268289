//! The helper: the file methods over two descriptors, for a process that somebody put into a sandbox.
//!
//! A request is a line of JSON and so is an answer; what is large comes in several lines, so that neither side holds
//! more than a piece of it (docs/files-helper.md has the lines). Requests are carried out in the order they come, one
//! at a time; a helper that waits for a disk lets all its callers wait, so that whoever wants more at a time starts more
//! helpers. It ends when its input does.
//!
//! The helper enforces nothing: what it must not touch, the kernel refuses.

mod codec;
mod lines;
mod pieces;
mod serve;

pub use codec::{
    Answer, AnswerDecoder, Assembly, MAX_LINE_BYTES, PIECE_BYTES, PIECE_TEXT_BYTES, ProtocolError,
    close_connection, encode_piece, encode_request,
};
pub use serve::{HELPER_ARGUMENT, helper_main, serve};

#[cfg(test)]
mod tests;
