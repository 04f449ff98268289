//! Files that can only be read and written by blocking, as streams: each has a thread of its own.
//!
//! Standard input and output may be pipes, terminals or files that other programs share, so they are not made
//! non-blocking. A thread that waits in a read keeps no runtime from ending, unlike a runtime's own blocking tasks; it
//! ends with the process, or when its file does.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use super::stream::broken_pipe;
use super::{Side, Transport, lines};

/// What one read takes: the default size of a Linux pipe (pipe(7)).
const BUFFER: usize = 64 * 1024;

/// Makes a transport of lines of two files, which two new threads read and write.
///
/// # Errors
/// The system gives no thread.
pub fn blocking_lines<R, W>(input: R, output: W, side: Side) -> io::Result<Transport>
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    Ok(lines(read_in_thread(input)?, write_in_thread(output)?, side))
}

fn read_in_thread(mut input: impl Read + Send + 'static) -> io::Result<ThreadReader> {
    // One chunk waits while the next is read: then the thread stops reading.
    let (sender, chunks) = mpsc::channel(1);
    thread::Builder::new().name("rpc-input".into()).spawn(move || {
        loop {
            let mut chunk = vec![0; BUFFER];
            let read = match input.read(&mut chunk) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(length) => {
                    chunk.truncate(length);
                    Ok(chunk)
                }
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            // Nobody reads any more: what comes is nobody's.
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(ThreadReader { chunks, chunk: Vec::new(), start: 0 })
}

struct ThreadReader {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    start: usize,
}

impl AsyncRead for ThreadReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.chunk.len() {
            match ready!(this.chunks.poll_recv(context)) {
                Some(chunk) => (this.chunk, this.start) = (chunk?, 0),
                None => return Poll::Ready(Ok(())),
            }
        }
        let rest = &this.chunk[this.start..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.start += length;
        Poll::Ready(Ok(()))
    }
}

/// What a thread writes, and where it says that it has.
type Job = (Vec<u8>, oneshot::Sender<io::Result<()>>);

fn write_in_thread(mut output: impl Write + Send + 'static) -> io::Result<ThreadWriter> {
    // At most one job is under way: the writer waits for each.
    let (jobs, queue) = std::sync::mpsc::channel::<Job>();
    thread::Builder::new().name("rpc-output".into()).spawn(move || {
        for (bytes, done) in queue {
            let written = output.write_all(&bytes).and_then(|()| output.flush());
            // Whoever waited may have gone.
            let _ = done.send(written);
        }
    })?;
    Ok(ThreadWriter { jobs: Some(jobs), under_way: None })
}

struct ThreadWriter {
    jobs: Option<std::sync::mpsc::Sender<Job>>,
    under_way: Option<oneshot::Receiver<io::Result<()>>>,
}

impl ThreadWriter {
    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(done) = &mut self.under_way else { return Poll::Ready(Ok(())) };
        let result = ready!(Pin::new(done).poll(context));
        self.under_way = None;
        result.map_or_else(|_| broken_pipe(), Poll::Ready)
    }
}

impl AsyncWrite for ThreadWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_done(context))?;
        let Some(jobs) = &this.jobs else { return broken_pipe() };
        let (done, under_way) = oneshot::channel();
        if jobs.send((bytes.to_vec(), done)).is_err() {
            return broken_pipe();
        }
        this.under_way = Some(under_way);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_done(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_done(context))?;
        // The thread ends and closes its file.
        this.jobs = None;
        Poll::Ready(Ok(()))
    }
}
