//! One files helper: a process inside a sandbox that carries out file methods for one connection.
//!
//! Started by the keeper like any other command, with pipes of its own, so that what it reads and writes passes
//! through nobody. Ends when its input does: when nobody holds it any more, or when this program ends.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::pipe::PipeFlags;
use sandbar_files::{
    Answer, AnswerDecoder, Assembly, HELPER_ARGUMENT, PIECE_TEXT_BYTES, ProtocolError, encode_piece,
    encode_request,
};
use sandbar_policy::{Reads, Wanted};
use sandbar_proto::exec::{MissingChanged, WriteFileParams, method};
use sandbar_proto::rpc::{RpcError, code};
use sandbar_proto::{
    AbsPath, AfterLeader, ByteString, EnvVar, Lifetime, LimitFacts, OutputMode, RunId, StdinMode, Stdio,
};
use sandbar_rpc::Sender;
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::{Shared, launch, refusal};
use crate::start::{self, NotStarted};
use crate::{Handles, StartOptions, Watching};

/// Requests that wait to be written; the next one waits.
const QUEUE: usize = 16;

/// What is read from a helper at a time.
const READ_BYTES: usize = 64 * 1024;

type Reply = oneshot::Sender<Result<Box<RawValue>, RpcError>>;

/// A request on its way.
struct Job {
    lines: Vec<Vec<u8>>,
    id: u64,
    reply: Reply,
}

/// A helper.
pub(super) struct Helper {
    jobs: mpsc::Sender<Job>,
    next_id: AtomicU64,
    is_alive: Arc<AtomicBool>,
}

impl Helper {
    /// Starts a helper in the sandbox that `wanted` describes.
    ///
    /// # Errors
    /// The sandbox can't be had.
    pub(super) async fn start(
        shared: &Arc<Shared>,
        wanted: Wanted,
        cwd: AbsPath,
        sender: Sender,
    ) -> Result<Self, RpcError> {
        let io = |error: std::io::Error| RpcError::with_kind(code::INTERNAL, "helper", error.to_string());
        let (input, their_input) = pipe_to().map_err(io)?;
        let (output, their_output) = pipe_from().map_err(io)?;
        let mut request = launch::request(&shared.host, cwd, wanted);
        let program = &shared.host.program;
        // It may lie where the sandbox sees nothing of the host, such as below /tmp.
        request.allow_read = vec![program.clone()];
        if request.reads != Reads::Everything {
            request.allow_read.extend(shared.host.libraries.iter().cloned());
        }
        request.argv = vec![ByteString::from(program.as_bytes().to_vec()), ByteString::from(HELPER_ARGUMENT)];
        request.env = vec![EnvVar { name: "PATH".into(), value: "/usr/bin:/bin".into() }];
        request.stdio =
            Stdio { stdin: StdinMode::Direct, stdout: OutputMode::Direct, stderr: OutputMode::Logged };
        // It is this program's tool: nobody takes it over.
        request.lifetime = Lifetime::Connection;
        request.after_leader = AfterLeader::Kill;
        let (request, compiled) = launch::plan(request, LimitFacts::default()).await?;
        let mut handles = Some((their_input, their_output));
        let id = RunId::generate();
        let options = || {
            // A second attempt has new descriptors of the same pipes.
            let (stdin, stdout) = handles.take().ok_or(std::io::ErrorKind::NotConnected)?;
            handles = Some((stdin.try_clone()?, stdout.try_clone()?));
            Ok::<_, std::io::Error>(StartOptions {
                id,
                watching: Watching::End,
                handles: Handles { stdin: Some(stdin), stdout: Some(stdout), stderr: None },
                rollout: None,
                owner: None,
            })
        };
        let limits = LimitFacts::default();
        let held = shared.keeper.alive().await.map_err(|error| refusal::process(&error))?;
        let started = start::start(&held.to.processes, (request, &limits), compiled, options, |_| {}).await;
        let process = started.map_err(|error| match error {
            NotStarted::Options(error) => io(error),
            NotStarted::Plan(error) => refusal::plan(&error),
            NotStarted::Start(error) => refusal::start(&error),
            NotStarted::NoExecutor { error, landlock } => refusal::no_executor(&error, &landlock),
        })?;
        drop(handles);
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let is_alive = Arc::new(AtomicBool::new(true));
        let conversation = converse(input, output, inbox, sender);
        let flag = Arc::clone(&is_alive);
        tokio::spawn(async move {
            conversation.await;
            flag.store(false, Ordering::Release);
            // Its end was its input's; the handle only kept the connection's claim on it.
            drop(process);
        });
        Ok(Self { jobs, next_id: AtomicU64::new(1), is_alive })
    }

    /// Whether it takes requests.
    pub(super) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    /// Carries out a method there.
    ///
    /// # Errors
    /// Those of the method; the helper is gone.
    pub(super) async fn call(
        &self,
        connection: u64,
        method: &str,
        params: Box<RawValue>,
    ) -> Result<Box<RawValue>, RpcError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let lines = lines(id, connection, method, &params)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { lines, id, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> RpcError {
    RpcError::with_kind(code::INTERNAL, "helper_gone", "the files helper in the sandbox has ended")
}

/// A pipe to a helper: our end and its.
fn pipe_to() -> std::io::Result<(pipe::Sender, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Sender::from_owned_fd(nonblocking(write)?)?, read))
}

/// A pipe from a helper: our end and its.
fn pipe_from() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(nonblocking(read)?)?, write))
}

fn nonblocking(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

/// The lines of a request: one, or several where the content of a file is too large for it.
fn lines(id: u64, connection: u64, method: &str, params: &RawValue) -> Result<Vec<Vec<u8>>, RpcError> {
    if method != method::FS_WRITE_FILE || params.get().len() <= PIECE_TEXT_BYTES {
        return Ok(vec![encode_request(id, connection, method, params, false)]);
    }
    let wrong = |error: serde_json::Error| refusal::params(error.to_string());
    let mut write: WriteFileParams = serde_json::from_str(params.get()).map_err(wrong)?;
    // Cut where a group of four characters ends; what is no base64 fails at the other end, in the dialect's words.
    let data = std::mem::take(&mut write.data_base64);
    if !data.is_ascii() {
        return Err(refusal::invalid("invalid_data", "fs/writeFile requires valid base64 dataBase64"));
    }
    let mut pieces =
        data.as_bytes().chunks(PIECE_TEXT_BYTES).map(|piece| std::str::from_utf8(piece).unwrap_or(""));
    write.data_base64 = pieces.next().unwrap_or("").to_owned();
    let rest: Vec<&str> = pieces.collect();
    let first = to_raw_value(&write).map_err(wrong)?;
    let mut lines = vec![encode_request(id, connection, method, &first, !rest.is_empty())];
    for (at, piece) in rest.iter().enumerate() {
        lines.push(encode_piece(id, piece, at + 1 < rest.len()));
    }
    Ok(lines)
}

/// Passes requests on and answers back until either side ends.
async fn converse(
    mut input: pipe::Sender,
    mut output: pipe::Receiver,
    mut jobs: mpsc::Receiver<Job>,
    sender: Sender,
) {
    let (lines, mut to_write) = mpsc::channel::<Vec<u8>>(QUEUE);
    // Written apart from what is read: a helper that waits for its answers to be read reads nothing either.
    let writing = tokio::spawn(async move {
        while let Some(line) = to_write.recv().await {
            if input.write_all(&line).await.is_err() {
                return;
            }
        }
    });
    let mut waiting = Waiting { replies: HashMap::new(), sender };
    let mut decoder = AnswerDecoder::default();
    let mut outgoing: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::new();
    let mut is_open = true;
    loop {
        while let Some(answer) = decoder.next() {
            let Ok(()) = answer.and_then(|answer| waiting.take(answer)) else { return };
        }
        if !is_open && waiting.replies.is_empty() {
            break;
        }
        let buffer = decoder.buffer();
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = output.read_buf(buffer) => {
                if !matches!(read, Ok(count) if count > 0) {
                    break;
                }
            }
            permit = lines.reserve(), if !outgoing.is_empty() => {
                let Ok(permit) = permit else { break };
                if let Some(line) = outgoing.pop_front() {
                    permit.send(line);
                }
            }
            job = jobs.recv(), if is_open && outgoing.is_empty() => match job {
                Some(Job { lines, id, reply }) => {
                    waiting.replies.insert(id, (Assembly::default(), reply));
                    outgoing.extend(lines);
                }
                None => is_open = false,
            },
        }
    }
    // The end of its input is what ends a helper.
    drop(lines);
    writing.abort();
}

/// Requests that are not answered. Dropping it answers them: their helper is gone.
struct Waiting {
    replies: HashMap<u64, (Assembly, Reply)>,
    sender: Sender,
}

impl Waiting {
    /// Takes an answer.
    ///
    /// # Errors
    /// The helper does not keep to the lines.
    fn take(&mut self, answer: Answer) -> Result<(), ProtocolError> {
        match answer {
            Answer::Part { id, part } => match self.replies.get_mut(&id) {
                Some((assembly, _)) => assembly.add(&part),
                None => Ok(()),
            },
            Answer::Done { id, result } => {
                if let Some((assembly, reply)) = self.replies.remove(&id) {
                    let whole = assembly.finish(result)?;
                    // Whoever asked may have gone.
                    let _ = reply.send(Ok(whole));
                }
                Ok(())
            }
            Answer::Failed { id, error } => {
                if let Some((_, reply)) = self.replies.remove(&id) {
                    let _ = reply.send(Err(error));
                }
                Ok(())
            }
            Answer::MissingChanged(key) => {
                let told = MissingChanged { watch_id: key.id };
                // A connection that has ended wants no news.
                let _ = self.sender.notify(method::FS_MISSING_CHANGED, &told);
                Ok(())
            }
            Answer::Misunderstood(error) => Err(ProtocolError::Malformed { reason: error.message }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_content_goes_in_pieces_and_small_in_one_line() {
        let params =
            |data: &str| to_raw_value(&serde_json::json!({"path": "/a", "dataBase64": data})).unwrap();
        assert_eq!(lines(1, 2, method::FS_WRITE_FILE, &params("aGk=")).unwrap().len(), 1);
        let large = "A".repeat(PIECE_TEXT_BYTES * 2 + 4);
        let cut = lines(1, 2, method::FS_WRITE_FILE, &params(&large)).unwrap();
        assert_eq!(cut.len(), 3);
        let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
        assert!(text(&cut[0]).contains("\"more\":true") && text(&cut[1]).contains("\"more\":true"));
        assert!(!text(&cut[2]).contains("more") && text(&cut[2]).contains("AAAA"));
        assert!(lines(1, 2, method::FS_WRITE_FILE, &params(&"ü".repeat(PIECE_TEXT_BYTES))).is_err());
    }
}
