//! Streams of bytes under the transports that have one, and how they are written.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::Activity;

pub(crate) type Input = Pin<Box<dyn AsyncRead + Send>>;
pub(crate) type Output = Pin<Box<dyn AsyncWrite + Send>>;

/// Most slices that one system call takes; more would be taken in a second one.
const SLICES: usize = 64;

/// Size from which a chunk is written from where it lies instead of being copied behind others.
const LARGE: usize = 16 * 1024;

/// Bytes to be written at once, some of them where they lie.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Vec<Vec<u8>>);

impl Chunks {
    /// The chunk that small things are appended to.
    pub(crate) fn last(&mut self) -> &mut Vec<u8> {
        if self.0.is_empty() {
            self.0.push(Vec::new());
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Adds a chunk: as it is when it is large, and begins another one for small things then.
    pub(crate) fn put(&mut self, chunk: Vec<u8>) {
        if chunk.len() < LARGE {
            return self.last().extend(chunk);
        }
        self.0.push(chunk);
        self.0.push(Vec::new());
    }

    /// Writes them all; how long that takes is the peer's affair. An output that was full and took some is a sign of
    /// life.
    pub(crate) async fn write(self, output: &mut Output, activity: &Activity) -> io::Result<()> {
        let mut slices: Vec<_> =
            self.0.iter().filter(|chunk| !chunk.is_empty()).map(|c| IoSlice::new(c)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let mut was_full = false;
            let written = poll_fn(|context| {
                let some = &left[..left.len().min(SLICES)];
                let written = output.as_mut().poll_write_vectored(context, some);
                was_full |= written.is_pending();
                written
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            if was_full {
                activity.note();
            }
            IoSlice::advance_slices(&mut left, written);
        }
        output.flush().await
    }
}

/// An error of this side's threads or system that has no better name.
pub(crate) fn broken_pipe<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}
