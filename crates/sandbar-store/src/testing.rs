//! Fakes and fixed values for this crate's tests.

use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use sandbar_proto::{RolloutEvent, RolloutItem, RolloutLine, RunId, TaskStarted};

use crate::log_file::LogFile;

/// The id of the run in tests.
pub(crate) const RUN: &str = "019aa4c5-7a38-7b31-a5bb-5f6ad2f3c001";

pub(crate) fn run_id() -> RunId {
    RUN.parse().unwrap()
}

/// A line that tells its number.
pub(crate) fn task_started(number: i64) -> RolloutItem {
    RolloutItem::EventMsg(RolloutEvent::TaskStarted(TaskStarted { turn_id: run_id(), started_at: number }))
}

/// The lines that a reader understands, as it would: the others are skipped.
pub(crate) fn lines_of(content: &str) -> Vec<RolloutLine> {
    content.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What goes wrong at one write or sync.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The call fails and does nothing.
    Fail(Errno),
    /// A signal came before anything was done.
    Interrupt,
    /// A write takes 0 bytes.
    TakeNothing,
    /// A write takes this many bytes; the next goes on as if nothing had been.
    ShortThenGoOn(usize),
    /// A write takes this many bytes, the next fails.
    Short(usize, Errno),
}

#[derive(Debug, Default)]
struct State {
    content: Vec<u8>,
    step: usize,
    syncs: usize,
    fault: Option<(usize, Fault)>,
    persistent: bool,
    truncate_fails: bool,
    pending_error: Option<Errno>,
    foreign: Option<(usize, Vec<u8>)>,
}

/// A file in memory whose n-th write or sync fails. Clones are the same file.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryFile(Arc<Mutex<State>>);

impl MemoryFile {
    pub(crate) fn failing(step: usize, fault: Fault, truncate_works: bool) -> Self {
        let state = State { fault: Some((step, fault)), truncate_fails: !truncate_works, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// The fault happens at its step and at every later one.
    pub(crate) fn keep_failing(&self) {
        self.with(|state| state.persistent = true);
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.with(|state| {
            state.fault = None;
            state.pending_error = None;
        });
    }

    /// Somebody else appends right after this step.
    pub(crate) fn append_foreign_after_step(&self, step: usize, text: &str) {
        self.with(|state| state.foreign = Some((step, text.as_bytes().to_vec())));
    }

    pub(crate) fn steps(&self) -> usize {
        self.with(|state| state.step)
    }

    pub(crate) fn syncs(&self) -> usize {
        self.with(|state| state.syncs)
    }

    pub(crate) fn content(&self) -> String {
        self.with(|state| String::from_utf8(state.content.clone()).unwrap())
    }

    pub(crate) fn has_garbage(&self) -> bool {
        let content = self.content();
        lines_of(&content).len() != content.lines().count()
            || !(content.is_empty() || content.ends_with('\n'))
    }
}

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        let step = self.step;
        self.step += 1;
        if let Some(errno) = self.pending_error.take() {
            return Some(Fault::Fail(errno));
        }
        let (at, fault) = self.fault?;
        (step == at || (self.persistent && step > at)).then_some(fault)
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        self.content.extend_from_slice(bytes);
        if let Some((_, text)) = self.foreign.take_if(|(step, _)| *step + 1 == self.step) {
            self.content.extend(text);
        }
        bytes.len()
    }
}

impl LogFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.with(|state| match state.next_fault() {
            None => Ok(state.take(bytes)),
            Some(Fault::Fail(errno)) => Err(errno),
            Some(Fault::Interrupt) => Err(Errno::INTR),
            Some(Fault::TakeNothing) => Ok(0),
            Some(Fault::ShortThenGoOn(taken)) => Ok(state.take(&bytes[..taken.min(bytes.len())])),
            Some(Fault::Short(0, errno)) => Err(errno),
            Some(Fault::Short(taken, errno)) => {
                state.pending_error = Some(errno);
                Ok(state.take(&bytes[..taken.min(bytes.len())]))
            }
        })
    }

    fn sync(&mut self) -> Result<(), Errno> {
        self.with(|state| {
            state.syncs += 1;
            match state.next_fault() {
                Some(Fault::Fail(errno) | Fault::Short(_, errno)) => Err(errno),
                Some(Fault::Interrupt | Fault::TakeNothing | Fault::ShortThenGoOn(_)) | None => Ok(()),
            }
        })
    }

    fn truncate(&mut self, len_bytes: u64) -> Result<(), Errno> {
        self.with(|state| {
            if state.truncate_fails {
                return Err(Errno::IO);
            }
            state.content.truncate(usize::try_from(len_bytes).unwrap());
            Ok(())
        })
    }

    fn len(&mut self) -> Result<u64, Errno> {
        self.with(|state| Ok(state.content.len() as u64))
    }
}
