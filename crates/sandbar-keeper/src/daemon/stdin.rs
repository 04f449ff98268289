//! Standard input of a process as clients see it: what was accepted, what waits for the process, and what was accepted
//! under which name.
//!
//! "Accepted" is a promise: it goes into the pipe in its order, whatever becomes of who sent it. Bounded: a full queue
//! takes a part and says so.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::termios::{LocalModes, SpecialCodeIndex};
use sandbar_proto::{Blob, InputId, RunId};
use serde::{Deserialize, Serialize};

use super::{Keeper, Target};
use crate::handover::{Adopted, Fd, HandoverError, Kept};
use crate::protocol::{Event, Once, Refusal, Reply};
use crate::records;

/// Stdin bytes that wait for the process to read them.
const STDIN_BOUND_BYTES: usize = 1024 * 1024;

/// Names of input that are remembered for each process: as many as one connection of an exec server can have under way
/// (`max_in_flight`), since those are the ones whose answer may be lost with it. What is older is forgotten.
const REMEMBERED: usize = 4096;

/// Names that stay on record when a process has ended, the newest: a record is to take no more than some kilobytes, and of
/// what a process took last seldom more than one answer is lost.
const KEPT: usize = 256;

/// Standard input as clients see it.
#[derive(Debug, Default)]
pub(super) struct Stdin {
    pub(super) pipe: Option<OwnedFd>,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    accepted_bytes: u64,
    close_after: bool,
    /// Whether the pipe is a terminal, and what its end is then.
    terminal: Option<LineState>,
    /// Whether a client was told that the queue is full and waits for room.
    refused: bool,
    named: Named,
}

/// What was accepted under a name.
#[derive(Debug, Default)]
struct Named {
    /// Bytes of each that were accepted.
    accepted: HashMap<InputId, u64>,
    /// The same names, the oldest first.
    order: VecDeque<InputId>,
}

impl Named {
    fn note(&mut self, name: InputId, accepted_bytes: u64) {
        if self.accepted.insert(name, accepted_bytes).is_some() {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.accepted.remove(&oldest);
        }
    }

    fn save(&self) -> Vec<(InputId, u64)> {
        self.order.iter().filter_map(|name| Some((*name, *self.accepted.get(name)?))).collect()
    }

    fn restore(saved: Vec<(InputId, u64)>) -> Self {
        let mut named = Self::default();
        saved.into_iter().for_each(|(name, accepted_bytes)| named.note(name, accepted_bytes));
        named
    }
}

/// Where a terminal's input stands.
#[derive(Debug, Default)]
struct LineState {
    /// Whether something was typed behind the last end of a line.
    is_open: bool,
}

/// What became of a write to stdin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// This many bytes are accepted in total.
    UpTo(u64),
    /// Nothing takes them any more.
    Closed,
    /// The write starts behind what was accepted.
    Gap(u64),
}

impl Stdin {
    pub(super) fn piped(pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), ..Self::default() }
    }

    /// The input of the terminal whose other end this is.
    pub(super) fn terminal(master: OwnedFd) -> Self {
        Self { pipe: Some(master), terminal: Some(LineState::default()), ..Self::default() }
    }

    /// Accepts what there is room for of `bytes`, behind everything else; returns how many, or `None` when nothing
    /// takes them any more.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Option<u64> {
        if self.pipe.is_none() || self.close_after {
            return None;
        }
        let taken = self.enqueue(bytes);
        self.refused |= taken < bytes.len();
        Some(taken as u64)
    }

    /// The same for `bytes` of an input that has a name, which begin at `once.offset_bytes` of it: what was accepted under
    /// that name before counts and is not written again, also when nothing takes any more.
    pub(super) fn append_once(&mut self, once: Once, bytes: &[u8]) -> Option<u64> {
        let known = self.named.accepted.get(&once.name).copied();
        let before = once.accepted_before(known.unwrap_or(0), bytes);
        let new = &bytes[usize::try_from(before).unwrap_or(bytes.len())..];
        if known.is_some() && new.is_empty() {
            return Some(before);
        }
        let accepted = before + self.append(new)?;
        self.named.note(once.name, once.offset_bytes.saturating_add(accepted));
        Some(accepted)
    }

    /// What was accepted under the names that stay on record, the oldest first.
    pub(super) fn last_named(&self) -> Vec<(InputId, u64)> {
        let mut named = self.named.save();
        named.split_off(named.len().saturating_sub(KEPT))
    }

    /// Accepts what is new of `bytes`, which start at `offset` of the whole.
    pub(super) fn accept(&mut self, offset: u64, bytes: &[u8]) -> Accepted {
        if self.pipe.is_none() || self.close_after {
            return Accepted::Closed;
        }
        if offset > self.accepted_bytes {
            return Accepted::Gap(self.accepted_bytes);
        }
        let known = usize::try_from(self.accepted_bytes - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let taken = self.enqueue(new);
        self.accepted_bytes += taken as u64;
        self.refused |= taken < new.len();
        Accepted::UpTo(self.accepted_bytes)
    }

    fn enqueue(&mut self, bytes: &[u8]) -> usize {
        // What was taken over may be more than this program's bound.
        let room = STDIN_BOUND_BYTES.saturating_sub(self.queued_bytes);
        let taken = &bytes[..bytes.len().min(room)];
        if let (Some(last), Some(line)) = (taken.last(), &mut self.terminal) {
            line.is_open = !matches!(last, b'\n' | b'\r');
        }
        if !taken.is_empty() {
            self.queue.push_back(taken.to_vec());
            self.queued_bytes += taken.len();
        }
        taken.len()
    }

    /// Closes the pipe once everything accepted is in it.
    pub(super) fn close(&mut self) {
        self.close_after = true;
    }

    /// Writes what the pipe takes; `true` if more waits for it.
    pub(super) fn pump(&mut self) -> bool {
        let waits = self.pump_queue();
        if waits || !self.close_after {
            return waits;
        }
        let keys = self.end_keys();
        self.terminal = None;
        if !keys.is_empty() {
            self.queued_bytes += keys.len();
            self.queue.push_back(keys);
            if self.pump_queue() {
                return true;
            }
        }
        self.pipe = None;
        false
    }

    /// The keys that end a terminal's input: its end-of-file key, which ends a line that is open first and the input
    /// then (termios(3)). A terminal that does not read by lines has no such key.
    fn end_keys(&self) -> Vec<u8> {
        let (Some(pipe), Some(line)) = (&self.pipe, &self.terminal) else { return Vec::new() };
        match rustix::termios::tcgetattr(pipe) {
            Ok(termios) if termios.local_modes.contains(LocalModes::ICANON) => {
                vec![termios.special_codes[SpecialCodeIndex::VEOF]; if line.is_open { 2 } else { 1 }]
            }
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    fn pump_queue(&mut self) -> bool {
        while let (Some(pipe), Some(chunk)) = (&self.pipe, self.queue.front_mut()) {
            match rustix::io::write(pipe, chunk) {
                Ok(count) => {
                    self.queued_bytes -= count;
                    chunk.drain(..count);
                    if chunk.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                // EPIPE: nobody reads it any more, and nobody will.
                Err(_) => self.abandon(),
            }
        }
        false
    }

    /// Whether half of the queue is free again for a client that waits for it.
    pub(super) fn has_room_again(&mut self) -> bool {
        let room = self.refused && self.queued_bytes <= STDIN_BOUND_BYTES / 2;
        if room {
            self.refused = false;
        }
        room
    }

    /// Lets go of the pipe and of what waits for it.
    pub(super) fn abandon(&mut self) {
        self.pipe = None;
        self.queue.clear();
        self.queued_bytes = 0;
    }
}

/// An input on its way to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedStdin {
    pipe: Option<Fd>,
    queue: VecDeque<Blob>,
    accepted_bytes: u64,
    close_after: bool,
    /// Whether the pipe is a terminal, and whether its line is open then.
    terminal: Option<bool>,
    refused: bool,
    /// What was accepted under names, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    named: Vec<(InputId, u64)>,
}

impl Stdin {
    /// Hands the input over.
    pub(super) fn save(&self, kept: &mut Kept) -> SavedStdin {
        let Self { pipe, queue, queued_bytes: _, accepted_bytes, close_after, terminal, refused, named } =
            self;
        SavedStdin {
            pipe: pipe.as_ref().map(|pipe| kept.keep(pipe)),
            queue: queue.iter().map(|chunk| chunk.as_slice().into()).collect(),
            accepted_bytes: *accepted_bytes,
            close_after: *close_after,
            terminal: terminal.as_ref().map(|LineState { is_open }| *is_open),
            refused: *refused,
            named: named.save(),
        }
    }

    /// Takes an input over.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub(super) fn restore(saved: SavedStdin, adopted: &mut Adopted) -> Result<Self, HandoverError> {
        let SavedStdin { pipe, queue, accepted_bytes, close_after, terminal, refused, named } = saved;
        let queue: VecDeque<Vec<u8>> = queue.into_iter().map(Blob::into_bytes).collect();
        Ok(Self {
            pipe: pipe.map(|pipe| adopted.give(pipe)).transpose()?,
            queued_bytes: queue.iter().map(Vec::len).sum(),
            queue,
            accepted_bytes,
            close_after,
            terminal: terminal.map(|is_open| LineState { is_open }),
            refused,
            named: Named::restore(named),
        })
    }
}

impl Keeper {
    /// Appends what belongs at an offset of the whole.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::StdinClosed`] or [`Refusal::StdinGap`].
    pub(super) fn write(&mut self, id: RunId, offset: u64, bytes: &[u8]) -> Result<Reply, Refusal> {
        match self.process(id)?.stdin.accept(offset, bytes) {
            Accepted::UpTo(accepted_bytes) => {
                self.pump_stdin(id);
                Ok(Reply::Written { accepted_bytes })
            }
            Accepted::Closed => Err(Refusal::StdinClosed),
            Accepted::Gap(accepted_bytes) => Err(Refusal::StdinGap { accepted_bytes }),
        }
    }

    /// Appends what somebody typed.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::StdinClosed`].
    pub(super) fn input(
        &mut self,
        client: u64,
        id: RunId,
        once: Option<Once>,
        bytes: &[u8],
    ) -> Result<Reply, Refusal> {
        if let (Some(once), false) = (once, self.processes.contains_key(&id)) {
            return self.input_before(id, once, bytes);
        }
        let process = self.process(id)?;
        process.typist = Some(client);
        let accepted = match once {
            Some(once) => process.stdin.append_once(once, bytes),
            None => process.stdin.append(bytes),
        };
        let accepted_bytes = accepted.ok_or(Refusal::StdinClosed)?;
        self.pump_stdin(id);
        Ok(Reply::Written { accepted_bytes })
    }

    /// What a process that has ended accepted of an input with a name, all of which was accepted before: whoever asks again
    /// did not hear of it.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], where it accepted less.
    fn input_before(&self, id: RunId, once: Once, bytes: &[u8]) -> Result<Reply, Refusal> {
        let directory = self.home.processes().join(id.to_string());
        let known = records::accepted_input(&directory, once.name).ok_or(Refusal::Unknown { id })?;
        let accepted_bytes = once.accepted_before(known, bytes);
        if accepted_bytes < bytes.len() as u64 {
            return Err(Refusal::Unknown { id });
        }
        Ok(Reply::Written { accepted_bytes })
    }

    /// Writes what the process takes, and waits for it with the rest.
    pub(super) fn pump_stdin(&mut self, id: RunId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let waits = process.stdin.pump();
        let room = process.stdin.has_room_again();
        if waits && !self.targets.values().any(|target| *target == Target::Stdin(id)) {
            let token = self.token(Target::Stdin(id));
            if let Some(pipe) = self.processes.get(&id).and_then(|process| process.stdin.pipe.as_ref()) {
                let flags = EventFlags::OUT | EventFlags::ONESHOT;
                let data = EventData::new_u64(token);
                if epoll::add(&self.epoll, pipe, data, flags) == Err(Errno::EXIST) {
                    let _ = epoll::modify(&self.epoll, pipe, data, flags);
                }
            }
        }
        if room {
            self.tell(id, &Event::StdinReady { id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdin() -> (Stdin, OwnedFd) {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
                .unwrap();
        (Stdin::piped(write), read)
    }

    fn read_all(fd: &OwnedFd) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let count = rustix::io::read(fd, &mut buffer).unwrap_or(0);
        buffer.truncate(count);
        buffer
    }

    #[test]
    fn a_repeated_write_is_delivered_once() {
        let (mut stdin, read) = stdin();
        assert_eq!(stdin.accept(0, b"hello"), Accepted::UpTo(5));
        assert_eq!(stdin.accept(0, b"hello"), Accepted::UpTo(5));
        assert_eq!(stdin.accept(3, b"lo world"), Accepted::UpTo(11));
        stdin.pump();
        assert_eq!(read_all(&read), b"hello world");
    }

    #[test]
    fn a_write_that_would_leave_a_hole_is_refused() {
        let (mut stdin, _read) = stdin();
        assert_eq!(stdin.accept(1, b"x"), Accepted::Gap(0));
    }

    #[test]
    fn a_full_queue_accepts_a_part_and_says_when_there_is_room() {
        let (mut stdin, read) = stdin();
        let flood = vec![7; STDIN_BOUND_BYTES + 10];
        assert_eq!(stdin.accept(0, &flood), Accepted::UpTo(STDIN_BOUND_BYTES as u64));
        assert!(!stdin.has_room_again());
        while stdin.queued_bytes > STDIN_BOUND_BYTES / 2 {
            assert!(stdin.pump(), "the pipe is smaller than the queue");
            while !read_all(&read).is_empty() {}
        }
        assert!(stdin.has_room_again() && !stdin.has_room_again(), "told once");
    }

    #[test]
    fn close_comes_behind_what_was_accepted() {
        let (mut stdin, read) = stdin();
        stdin.accept(0, b"last");
        stdin.close();
        assert_eq!(stdin.accept(4, b"late"), Accepted::Closed);
        stdin.pump();
        assert_eq!(read_all(&read), b"last");
        assert_eq!(rustix::io::read(&read, &mut [0; 8]), Ok(0));
    }

    #[test]
    fn a_reader_that_went_away_ends_stdin() {
        let (mut stdin, read) = stdin();
        drop(read);
        stdin.accept(0, b"x");
        stdin.pump();
        assert_eq!(stdin.accept(1, b"y"), Accepted::Closed);
    }

    fn name(number: u16) -> InputId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        InputId::from_bytes(bytes)
    }

    fn once(number: u16, offset_bytes: u64) -> Once {
        Once { name: name(number), offset_bytes }
    }

    #[test]
    fn input_with_a_name_is_delivered_once_whatever_comes_between() {
        let (mut stdin, read) = stdin();
        assert_eq!(stdin.append_once(once(1, 0), b"one "), Some(4));
        assert_eq!(stdin.append_once(once(2, 0), b"two "), Some(4));
        assert_eq!(stdin.append(b"typed "), Some(6));
        assert_eq!(stdin.append_once(once(1, 0), b"one "), Some(4));
        assert_eq!(stdin.append_once(once(2, 0), b"two "), Some(4));
        stdin.pump();
        assert_eq!(read_all(&read), b"one two typed ");
    }

    #[test]
    fn input_with_a_name_goes_on_where_it_was_cut() {
        let (mut stdin, _read) = stdin();
        let flood = vec![7; STDIN_BOUND_BYTES + 10];
        assert_eq!(stdin.append_once(once(1, 0), &flood), Some(STDIN_BOUND_BYTES as u64));
        stdin.queue.clear();
        stdin.queued_bytes = 0;
        // From its beginning, by somebody who does not know how far it came.
        assert_eq!(stdin.append_once(once(1, 0), &flood[..100]), Some(100));
        assert_eq!(stdin.queued_bytes, 0);
        let at = STDIN_BOUND_BYTES - 5;
        assert_eq!(stdin.append_once(once(1, at as u64), &flood[at..]), Some(15));
        assert_eq!(stdin.queued_bytes, 10);
    }

    #[test]
    fn input_that_was_accepted_stays_so_behind_the_close() {
        let (mut stdin, _read) = stdin();
        assert_eq!(stdin.append_once(once(1, 0), b"last"), Some(4));
        stdin.close();
        assert_eq!(stdin.append_once(once(1, 0), b"last"), Some(4));
        assert_eq!(stdin.append_once(once(1, 0), b"last and more"), None);
        assert_eq!(stdin.append_once(once(2, 0), b"late"), None);
    }

    #[test]
    fn the_newest_names_are_remembered_and_not_more() {
        let (mut stdin, _read) = stdin();
        let newest = u16::try_from(REMEMBERED).unwrap();
        for number in 0..=newest {
            assert_eq!(stdin.append_once(once(number, 0), b"x"), Some(1));
        }
        let queued = stdin.queued_bytes;
        assert_eq!(stdin.append_once(once(1, 0), b"x"), Some(1));
        assert_eq!(stdin.queued_bytes, queued);
        assert_eq!(stdin.append_once(once(0, 0), b"x"), Some(1));
        assert_eq!((stdin.queued_bytes, stdin.named.order.len()), (queued + 1, REMEMBERED));
        assert_eq!(stdin.named.accepted.len(), REMEMBERED);
    }
}
