//! How the events of a run are shown: as text made safe, as raw bytes, or as JSON lines.
//!
//! Neighbouring output of one stream is written together. What goes to the other stream, or was asked for by
//! [`Screen::flush`], waits for nothing.

use sandbar_proto::{Gap, ProcessEvent, StartRecord, Stream};

use crate::escape::Joiner;
use crate::json::Line;
use crate::output::{self, Reader};
use crate::render::Problem;

/// Bytes that are collected before they are written; one pipe's worth (pipe(7)).
const BUFFER_BYTES: usize = 64 * 1024;

/// What a reader gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Text in which nothing drives a terminal.
    Escaped,
    /// The bytes as they are.
    Raw,
    /// Events.
    Json,
}

/// Takes what is shown.
type Sink = Box<dyn FnMut(Stream, &[u8]) -> Result<Reader, Problem> + Send>;

/// Where events are shown.
pub(super) struct Screen {
    sink: Sink,
    format: Format,
    stdout: Joiner,
    stderr: Joiner,
    buffer: Vec<u8>,
    buffered: Stream,
    stderr_left: bool,
}

impl Screen {
    /// A screen on our standard streams.
    pub(super) fn new(format: Format) -> Self {
        Self::on(Box::new(output::write), format)
    }

    fn on(sink: Sink, format: Format) -> Self {
        Self {
            sink,
            format,
            stdout: Joiner::default(),
            stderr: Joiner::default(),
            buffer: Vec::new(),
            buffered: Stream::Stdout,
            stderr_left: false,
        }
    }

    /// Shows that the run was started.
    pub(super) fn started(&mut self, record: &StartRecord) -> Result<(), Problem> {
        if self.format == Format::Json {
            // A reader that left shows at the next event.
            let _ = self.put(Stream::Stdout, &Line::started(record).bytes())?;
        }
        Ok(())
    }

    /// Shows an event.
    ///
    /// # Errors
    /// Our stream can't be written.
    pub(super) fn event(&mut self, event: &ProcessEvent) -> Result<Reader, Problem> {
        if self.format == Format::Json {
            return self.put(Stream::Stdout, &Line::event(event).bytes());
        }
        match event {
            ProcessEvent::Output { stream, bytes, .. } if self.format == Format::Raw => {
                self.put(*stream, bytes)
            }
            ProcessEvent::Output { stream, bytes, .. } => {
                let text = self.joiner(*stream).push(bytes);
                self.put(*stream, text.as_bytes())
            }
            ProcessEvent::Gap(gap) => self.gap(*gap),
            ProcessEvent::Stopped { .. } | ProcessEvent::Exited(_) | ProcessEvent::Closed { .. } => {
                Ok(Reader::Listens)
            }
        }
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> Result<Reader, Problem> {
        let bytes = std::mem::take(&mut self.buffer);
        if bytes.is_empty() {
            return Ok(Reader::Listens);
        }
        match (self.buffered, self.stderr_left) {
            (Stream::Stdout | Stream::Pty, _) => (self.sink)(Stream::Stdout, &bytes),
            // Who reads only standard output still gets all of that.
            (Stream::Stderr, false) => {
                self.stderr_left = (self.sink)(Stream::Stderr, &bytes)? == Reader::Left;
                Ok(Reader::Listens)
            }
            (Stream::Stderr, true) => Ok(Reader::Listens),
        }
    }

    /// Writes what is left when nothing more comes.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        match self.put_unfinished()? {
            Reader::Listens => match self.flush()? {
                Reader::Listens | Reader::Left => Ok(()),
            },
            Reader::Left => Ok(()),
        }
    }

    fn joiner(&mut self, stream: Stream) -> &mut Joiner {
        match stream {
            Stream::Stdout | Stream::Pty => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Says what is missing behind everything that came before.
    fn gap(&mut self, gap: Gap) -> Result<Reader, Problem> {
        if self.put_unfinished()? == Reader::Left {
            return Ok(Reader::Left);
        }
        let text = format!("sandbar: {} bytes of output are missing here.\n", gap.bytes);
        self.put(Stream::Stderr, text.as_bytes())
    }

    /// Characters that no more bytes will complete.
    fn put_unfinished(&mut self) -> Result<Reader, Problem> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let text = self.joiner(stream).finish();
            if !text.is_empty() && self.put(stream, text.as_bytes())? == Reader::Left {
                return Ok(Reader::Left);
            }
        }
        Ok(Reader::Listens)
    }

    fn put(&mut self, stream: Stream, bytes: &[u8]) -> Result<Reader, Problem> {
        if stream != self.buffered {
            let reader = self.flush()?;
            self.buffered = stream;
            if reader == Reader::Left {
                return Ok(Reader::Left);
            }
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(Reader::Listens) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_proto::{Seq, Timestamp};
    use std::sync::{Arc, Mutex};

    type Shown = Vec<(Stream, String)>;

    fn output(stream: Stream, bytes: &[u8]) -> ProcessEvent {
        ProcessEvent::Output {
            seq: Seq(1),
            stream,
            offset_bytes: 0,
            time: Timestamp(1),
            bytes: bytes.to_vec(),
        }
    }

    fn gap(bytes: u64) -> ProcessEvent {
        ProcessEvent::Gap(Gap { from_seq: Seq(1), to_seq: Seq(2), bytes })
    }

    /// What a screen writes, with the streams of which nobody reads.
    fn shown(format: Format, left: &[Stream], events: &[ProcessEvent]) -> Shown {
        let written: Arc<Mutex<Shown>> = Arc::default();
        let (into, left) = (Arc::clone(&written), left.to_vec());
        let sink = move |stream, bytes: &[u8]| {
            if left.contains(&stream) {
                return Ok(Reader::Left);
            }
            into.lock().unwrap().push((stream, String::from_utf8_lossy(bytes).into_owned()));
            Ok(Reader::Listens)
        };
        let mut screen = Screen::on(Box::new(sink), format);
        for event in events {
            if screen.event(event).unwrap() == Reader::Left {
                break;
            }
        }
        screen.finish().unwrap();
        written.lock().unwrap().clone()
    }

    fn of(stream: Stream, text: &str) -> (Stream, String) {
        (stream, text.to_owned())
    }

    #[test]
    fn characters_that_two_records_share_are_joined_across_the_other_stream() {
        let events = [
            output(Stream::Stdout, b"a\xc3"),
            output(Stream::Stderr, b"\x1b[0m\n"),
            output(Stream::Stdout, b"\xbc\n"),
            output(Stream::Stdout, b"b\xe2"),
        ];
        let expected = [
            of(Stream::Stdout, "a"),
            of(Stream::Stderr, "\\u{1b}[0m\n"),
            of(Stream::Stdout, "\u{fc}\nb\\xe2"),
        ];
        assert_eq!(shown(Format::Escaped, &[], &events), expected);
    }

    #[test]
    fn a_gap_is_said_where_it_is_and_completes_no_character() {
        let events = [output(Stream::Stdout, b"a\xc3"), gap(70), output(Stream::Stdout, b"\xbcb")];
        let expected = [
            of(Stream::Stdout, "a\\xc3"),
            of(Stream::Stderr, "sandbar: 70 bytes of output are missing here.\n"),
            of(Stream::Stdout, "\\xbcb"),
        ];
        assert_eq!(shown(Format::Escaped, &[], &events), expected);
    }

    #[test]
    fn raw_bytes_are_left_alone() {
        let events = [output(Stream::Stdout, b"\x1b[2J")];
        assert_eq!(shown(Format::Raw, &[], &events), [of(Stream::Stdout, "\u{1b}[2J")]);
    }

    #[test]
    fn who_reads_only_standard_output_gets_all_of_it() {
        let events =
            [output(Stream::Stderr, b"e"), output(Stream::Stdout, b"o"), output(Stream::Stderr, b"e")];
        assert_eq!(shown(Format::Raw, &[Stream::Stderr], &events), [of(Stream::Stdout, "o")]);
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        let events =
            [output(Stream::Stdout, b"o"), output(Stream::Stderr, b"e"), output(Stream::Stderr, b"f")];
        assert_eq!(shown(Format::Raw, &[Stream::Stdout], &events), []);
    }
}
