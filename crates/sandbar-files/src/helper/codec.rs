//! The caller's side of the lines: requests into bytes, bytes into answers.
//!
//! Does no input or output and knows no clock, so that it fits any runtime.

use std::borrow::Cow;
use std::fmt;

use sandbar_proto::exec::{MissingChanged, method};
use sandbar_proto::rpc::RpcError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::lines::Lines;
use crate::{FileError, MAX_READ_BYTES, WatchKey};

/// Longest line either way: a block of 1 MiB as base64, and paths of requests with room to spare.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of content in a piece. A multiple of three, so that the base64 texts of pieces are one when put together.
pub const PIECE_BYTES: usize = 768 * 1024;

/// The same as base64 text.
pub const PIECE_TEXT_BYTES: usize = PIECE_BYTES / 3 * 4;

/// What ends everything that a connection has open in a helper.
pub(super) const CLOSE_CONNECTION: &str = "connection/close";

/// A line to the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Incoming<'a> {
    pub(super) id: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) connection: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<DataPart<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) more: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A piece of content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DataPart<'a> {
    #[serde(borrow)]
    pub(super) data_base64: Cow<'a, str>,
}

/// A line from the helper.
#[derive(Debug, Default, Deserialize)]
struct Outgoing<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    connection: u64,
    #[serde(borrow, default)]
    part: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(default)]
    params: Option<MissingChanged>,
}

/// The line of a request.
///
/// `id` is unique among the requests in flight of all connections; `connection` tells whose handles and watches are
/// meant. `params` are the dialect's, without a sandbox. With `more`, which only `fs/writeFile` takes, `params` has
/// the beginning of the content and [`encode_piece`] the rest.
#[must_use]
pub fn encode_request(id: u64, connection: u64, method: &str, params: &RawValue, more: bool) -> Vec<u8> {
    line(&Incoming { id, connection, method: Some(method.into()), params: Some(params), part: None, more })
}

/// The line of a further piece of content: base64 text, at most [`PIECE_TEXT_BYTES`] of it. All texts but the last,
/// including the one in the request, hold a multiple of four characters and no padding.
#[must_use]
pub fn encode_piece(id: u64, data_base64: &str, more: bool) -> Vec<u8> {
    let part = Some(DataPart { data_base64: data_base64.into() });
    line(&Incoming { id, connection: 0, method: None, params: None, part, more })
}

/// The line that ends everything a connection has open: handles, watches, content on its way. Answered like a request.
#[must_use]
pub fn close_connection(id: u64, connection: u64) -> Vec<u8> {
    let method = Some(CLOSE_CONNECTION.into());
    line(&Incoming { id, connection, method, params: None, part: None, more: false })
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // Numbers, texts and JSON that is passed on: writing them to memory can't fail. JSON has no line ends but in
    // white space, which a RawValue may have.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    for byte in &mut line {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line
}

/// What the helper said.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A piece of a result, before the rest of it comes in [`Answer::Done`]; for [`Assembly::add`].
    Part {
        /// The request.
        id: u64,
        /// The piece.
        part: Box<RawValue>,
    },
    /// The result, or its end; for [`Assembly::finish`].
    Done {
        /// The request.
        id: u64,
        /// The result in the dialect's shape.
        result: Box<RawValue>,
    },
    /// A failure; pieces that came before are void.
    Failed {
        /// The request.
        id: u64,
        /// As the dialect's answer carries it.
        error: RpcError,
    },
    /// The news of a watch.
    MissingChanged(WatchKey),
    /// The helper could not read a line.
    Misunderstood(RpcError),
}

/// The other side does not keep to the lines. Nothing it says can be relied on any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line above [`MAX_LINE_BYTES`].
    LineTooLong,
    /// A line that is no answer.
    Malformed {
        /// Why.
        reason: String,
    },
    /// A result of more bytes than a method gives.
    ResultTooLarge,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong => {
                write!(f, "a line of the files helper is longer than {MAX_LINE_BYTES} bytes")
            }
            Self::Malformed { reason } => write!(f, "a line of the files helper is no answer: {reason}"),
            Self::ResultTooLarge => {
                f.write_str("a result of the files helper is larger than any method gives")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Takes bytes as they come from the helper and gives answers.
#[derive(Debug)]
pub struct AnswerDecoder {
    lines: Lines,
}

impl Default for AnswerDecoder {
    fn default() -> Self {
        Self { lines: Lines::new(MAX_LINE_BYTES) }
    }
}

impl AnswerDecoder {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.buffer().extend_from_slice(bytes);
    }

    /// The buffer that reads may append to, instead of [`AnswerDecoder::push`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.lines.buffer()
    }

    /// The next answer; none before more bytes come.
    ///
    /// # Errors
    /// [`ProtocolError`], after which the helper is to be ended.
    #[expect(clippy::should_implement_trait, reason = "an iterator that ends is over, and this one goes on")]
    pub fn next(&mut self) -> Option<Result<Answer, ProtocolError>> {
        let line = match self.lines.next()? {
            Ok(line) => line,
            Err(_) => return Some(Err(ProtocolError::LineTooLong)),
        };
        Some(read_answer(line).map_err(|reason| ProtocolError::Malformed { reason }))
    }
}

fn read_answer(line: &[u8]) -> Result<Answer, String> {
    let message: Outgoing<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Outgoing { id, connection, part, result, error, method, params } = message;
    match (id, part, result, error, method, params) {
        (Some(id), Some(part), None, None, None, None) => Ok(Answer::Part { id, part: part.to_owned() }),
        (Some(id), None, Some(result), None, None, None) => {
            Ok(Answer::Done { id, result: result.to_owned() })
        }
        (Some(id), None, None, Some(error), None, None) => Ok(Answer::Failed { id, error }),
        (None, None, None, Some(error), None, None) => Ok(Answer::Misunderstood(error)),
        (None, None, None, None, Some(name), Some(changed)) if name == method::FS_MISSING_CHANGED => {
            Ok(Answer::MissingChanged(WatchKey { connection, id: changed.watch_id }))
        }
        _ => Err("it is neither part, result, error nor news".to_owned()),
    }
}

/// Largest result: `fs/readFile` at its bound, as base64, and what is around it.
const MAX_RESULT_BYTES: u64 = MAX_READ_BYTES.div_ceil(3) * 4 + 64 * 1024;

/// Puts the pieces of one result together, into the dialect's shape.
#[derive(Debug, Default)]
pub struct Assembly {
    data_base64: String,
    /// Items of lists as JSON, with commas between.
    entries: String,
    errors: String,
    has_parts: bool,
}

/// What pieces and ends of results have.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow, default)]
    data_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    entries: Option<&'a RawValue>,
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
    #[serde(default)]
    truncated: Option<bool>,
}

impl Assembly {
    /// Takes a piece.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn add(&mut self, part: &RawValue) -> Result<(), ProtocolError> {
        self.take(part).map(|_| ())
    }

    /// Takes the end and gives the whole result.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn finish(mut self, end: Box<RawValue>) -> Result<Box<RawValue>, ProtocolError> {
        if !self.has_parts {
            return Ok(end);
        }
        let Piece { data_base64, entries, errors, truncated } = self.take(&end)?;
        let mut whole = String::new();
        if data_base64.is_some() {
            // Base64 has nothing that JSON escapes.
            whole = ["{\"dataBase64\":\"", &self.data_base64, "\"}"].concat();
        } else if let (Some(_), Some(_), Some(truncated)) = (entries, errors, truncated) {
            let truncated = if truncated { "true}" } else { "false}" };
            let (entries, errors) = (self.entries.as_str(), self.errors.as_str());
            whole =
                ["{\"entries\":[", entries, "],\"errors\":[", errors, "],\"truncated\":", truncated].concat();
        } else if entries.is_some() {
            whole = ["{\"entries\":[", &self.entries, "]}"].concat();
        }
        RawValue::from_string(whole).map_err(malformed)
    }

    fn take<'a>(&mut self, part: &'a RawValue) -> Result<Piece<'a>, ProtocolError> {
        self.has_parts = true;
        let piece: Piece<'a> = serde_json::from_str(part.get()).map_err(malformed)?;
        if let Some(data) = &piece.data_base64 {
            if data.contains(|c: char| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' | '=')) {
                return Err(ProtocolError::Malformed { reason: "content is no base64".to_owned() });
            }
            self.data_base64.push_str(data);
        }
        append_items(&mut self.entries, piece.entries)?;
        append_items(&mut self.errors, piece.errors)?;
        let taken = self.data_base64.len() + self.entries.len() + self.errors.len();
        if taken as u64 > MAX_RESULT_BYTES {
            return Err(ProtocolError::ResultTooLarge);
        }
        Ok(piece)
    }
}

fn append_items(list: &mut String, items: Option<&RawValue>) -> Result<(), ProtocolError> {
    let Some(items) = items else { return Ok(()) };
    let inner = items.get().trim().strip_prefix('[').and_then(|items| items.strip_suffix(']'));
    let inner = inner.ok_or_else(|| ProtocolError::Malformed { reason: "a list is none".to_owned() })?.trim();
    if !list.is_empty() && !inner.is_empty() {
        list.push(',');
    }
    list.push_str(inner);
    Ok(())
}

fn malformed(error: serde_json::Error) -> ProtocolError {
    ProtocolError::Malformed { reason: error.to_string() }
}

/// The line of an answer that failed.
pub(super) fn failed(id: Option<u64>, error: &FileError) -> Vec<u8> {
    #[derive(Serialize)]
    struct Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        error: RpcError,
    }
    line(&Failed { id, error: error.to_rpc() })
}

/// The line of a result.
pub(super) fn done(id: u64, result: &RawValue) -> Vec<u8> {
    #[derive(Serialize)]
    struct Done<'a> {
        id: u64,
        result: &'a RawValue,
    }
    line(&Done { id, result })
}

/// The line of a watch's news.
pub(super) fn missing_changed(key: WatchKey) -> Vec<u8> {
    #[derive(Serialize)]
    struct Changed {
        #[serde(skip_serializing_if = "is_zero")]
        connection: u64,
        method: &'static str,
        params: MissingChanged,
    }
    line(&Changed {
        connection: key.connection,
        method: method::FS_MISSING_CHANGED,
        params: MissingChanged { watch_id: key.id },
    })
}
