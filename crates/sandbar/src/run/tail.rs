//! The end of a run's output, as somebody who comes later is shown it.

use std::collections::VecDeque;

use sandbar_proto::Stream;

use crate::terminal::TAIL_BYTES;

/// The last bytes of all streams, at least [`TAIL_BYTES`] where there are as many.
#[derive(Debug, Default)]
pub(super) struct Tail {
    chunks: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
    /// Offset behind what was taken.
    pub(super) end_offset: u64,
}

impl Tail {
    /// Takes what comes next.
    pub(super) fn push(&mut self, stream: Stream, offset_bytes: u64, bytes: Vec<u8>) {
        self.end_offset = offset_bytes + bytes.len() as u64;
        self.bytes += bytes.len();
        self.chunks.push_back((stream, bytes));
        while let Some((_, first)) = self.chunks.front()
            && self.bytes - first.len() >= TAIL_BYTES
        {
            self.bytes -= first.len();
            self.chunks.pop_front();
        }
    }

    /// What one stream has of it.
    pub(super) fn of(&self, stream: Stream) -> Vec<u8> {
        let of = self.chunks.iter().filter(|(from, _)| *from == stream);
        of.flat_map(|(_, bytes)| bytes).copied().collect()
    }

    /// The last lines of all streams together, as far as they are here.
    pub(super) fn last_lines(self, lines: usize) -> VecDeque<(Stream, Vec<u8>)> {
        let mut kept = VecDeque::new();
        // A newline at the very end ends the last line and begins none.
        let mut left = lines + usize::from(self.chunks.back().is_some_and(|(_, last)| last.ends_with(b"\n")));
        for (stream, bytes) in self.chunks.into_iter().rev() {
            let newlines: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
            if newlines.len() >= left {
                let start = newlines[newlines.len() - left] + 1;
                kept.push_front((stream, bytes[start..].to_vec()));
                break;
            }
            left -= newlines.len();
            kept.push_front((stream, bytes));
        }
        kept.retain(|(_, bytes)| !bytes.is_empty());
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(chunks: &[(Stream, &str)]) -> Tail {
        let mut tail = Tail::default();
        for (stream, text) in chunks {
            tail.push(*stream, tail.end_offset, text.as_bytes().to_vec());
        }
        tail
    }

    fn last_lines(chunks: &[(Stream, &str)], lines: usize) -> Vec<(Stream, String)> {
        let kept = tail(chunks).last_lines(lines);
        kept.into_iter().map(|(stream, bytes)| (stream, String::from_utf8(bytes).unwrap())).collect()
    }

    #[test]
    fn the_last_lines_are_counted_over_all_streams() {
        use Stream::{Stderr, Stdout};
        let chunks = [(Stdout, "1\n2\n"), (Stderr, "3\n"), (Stdout, "4\n5")];
        let of = |stream, text: &str| (stream, text.to_owned());
        assert_eq!(last_lines(&chunks, 1), [of(Stdout, "5")]);
        assert_eq!(last_lines(&chunks, 4), [of(Stdout, "2\n"), of(Stderr, "3\n"), of(Stdout, "4\n5")]);
        assert_eq!(last_lines(&chunks, 9).len(), 3);
        assert_eq!(last_lines(&[(Stdout, "1\n2\n")], 1), [of(Stdout, "2\n")]);
        assert_eq!(last_lines(&[], 3), []);
    }

    #[test]
    fn a_tail_is_bounded_and_knows_how_far_it_came() {
        let mut tail = Tail::default();
        for _ in 0..40 {
            tail.push(Stream::Pty, tail.end_offset, vec![b'x'; TAIL_BYTES / 16]);
        }
        assert_eq!(tail.of(Stream::Pty).len(), TAIL_BYTES);
        assert_eq!(tail.end_offset, 40 * TAIL_BYTES as u64 / 16);
    }
}
