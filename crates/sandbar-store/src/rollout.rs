//! One rollout, open for appending: whole lines with contiguous ordinals.
//!
//! A line is acknowledged when [`Rollout::append`] returns; from then on nothing here touches it. A line that
//! could not be written is taken back to the end of the line before. Where that fails too, or where somebody
//! else appended meanwhile, the torn rest stays and the next line starts on a line of its own, so that readers
//! skip one line of garbage and nothing else. Does not know what the lines mean.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sandbar_proto::{RolloutItem, RolloutLine, Timestamp};

use crate::log_file::LogFile;
use crate::time::rfc3339_ms;
use crate::{Step, StoreError};

/// When lines are made to survive a crash of the machine. A crash of ours loses nothing either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Whenever the kernel gets to it.
    Never,
    /// fdatasync(2) when a turn ends.
    #[default]
    Turn,
    /// fdatasync(2) after every line.
    Line,
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLine {
    /// With a newline, or it is empty.
    Whole,
    /// Without one.
    Torn,
}

/// Where to go on in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) next_ordinal: u64,
    pub(crate) len_bytes: u64,
    pub(crate) last_line: LastLine,
}

impl Position {
    /// Of an empty file.
    pub(crate) const START: Self = Self { next_ordinal: 0, len_bytes: 0, last_line: LastLine::Whole };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rollout {
    file: Box<dyn LogFile>,
    path: PathBuf,
    position: Position,
    durability: Durability,
    sync_failure: Option<Errno>,
}

impl Rollout {
    pub(crate) fn new(
        file: Box<dyn LogFile>,
        path: PathBuf,
        position: Position,
        durability: Durability,
    ) -> Self {
        Self { file, path, position, durability, sync_failure: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line, with one write(2) unless the kernel takes less.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] when the line is there but could not be synced; any other error when it is
    /// not there.
    pub(crate) fn append(&mut self, at: Timestamp, item: RolloutItem) -> Result<(), StoreError> {
        let ordinal = self.position.next_ordinal;
        let line = RolloutLine { timestamp: rfc3339_ms(at), ordinal, item };
        self.write_line(&line).map_err(|errno| StoreError::new(Step::Append, &self.path, errno))?;
        self.position.next_ordinal = ordinal + 1;
        if self.durability == Durability::Line { self.sync() } else { Ok(()) }
    }

    /// Makes the turn's lines durable, unless nobody asked for that.
    pub(crate) fn end_turn(&mut self) -> Result<(), StoreError> {
        if self.durability == Durability::Never { Ok(()) } else { self.sync() }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.sync_failure.is_none() {
            self.sync_failure = self.file.sync().err();
        }
        match self.sync_failure {
            None => Ok(()),
            Some(errno) => {
                Err(StoreError::NotDurable { path: self.path.clone(), errno: errno.raw_os_error() })
            }
        }
    }

    fn write_line(&mut self, line: &RolloutLine) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        if self.position.last_line == LastLine::Torn {
            bytes.push(b'\n');
        }
        // Only a shape whose map keys are no strings could fail here; rollout lines have none.
        serde_json::to_writer(&mut bytes, line).map_err(|_| Errno::INVAL)?;
        bytes.push(b'\n');
        self.write_all(&bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                // write(2) gives 0 for a regular file only when something is badly wrong; asking again could
                // ask forever.
                Ok(0) => return self.undo(bytes, written, Errno::IO),
                Ok(taken) => written += taken,
                Err(Errno::INTR) => {}
                Err(errno) => return self.undo(bytes, written, errno),
            }
        }
        self.position.len_bytes += bytes.len() as u64;
        self.position.last_line = LastLine::Whole;
        Ok(())
    }

    /// Takes back the first `written` bytes of a line that failed with `errno`.
    ///
    /// Returns `Ok` in the one case where the line is whole all the same: only its newline is missing and
    /// nothing can be taken back; then the next append brings the newline.
    fn undo(&mut self, bytes: &[u8], written: usize, errno: Errno) -> Result<(), Errno> {
        if written == 0 {
            return Err(errno);
        }
        let reached = self.position.len_bytes + written as u64;
        // Somebody else's bytes behind ours must not be cut off.
        let is_last = self.file.len() == Ok(reached);
        if is_last && self.file.truncate(self.position.len_bytes).is_ok() {
            return Err(errno);
        }
        self.position.len_bytes = reached;
        let ends_whole = bytes[..written].ends_with(b"\n");
        self.position.last_line = if ends_whole { LastLine::Whole } else { LastLine::Torn };
        if written + 1 == bytes.len() { Ok(()) } else { Err(errno) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fault, MemoryFile, RUN, lines_of, task_started};

    fn rollout(file: &MemoryFile, durability: Durability) -> Rollout {
        Rollout::new(Box::new(file.clone()), PathBuf::from("/s/r.jsonl"), Position::START, durability)
    }

    /// Appends five lines over a file that fails as told; returns the numbers of the acknowledged ones.
    fn append_five(file: &MemoryFile, durability: Durability) -> Vec<i64> {
        let mut rollout = rollout(file, durability);
        (0..5).filter(|n| rollout.append(Timestamp(0), task_started(*n)).is_ok()).collect()
    }

    fn numbers(lines: &[RolloutLine]) -> Vec<i64> {
        lines
            .iter()
            .map(|line| (0..5).find(|n| task_started(*n) == line.item).expect("a line nobody wrote"))
            .collect()
    }

    fn steps_of_a_faultless_run(durability: Durability) -> usize {
        let file = MemoryFile::default();
        append_five(&file, durability);
        file.steps()
    }

    #[test]
    fn a_line_is_one_write_and_has_the_next_ordinal() {
        let file = MemoryFile::default();
        append_five(&file, Durability::Turn);
        let lines = lines_of(&file.content());
        assert_eq!(lines.iter().map(|line| line.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(file.steps(), 5);
        assert_eq!(
            file.content().lines().next().unwrap(),
            format!(
                r#"{{"timestamp":"1970-01-01T00:00:00.000Z","ordinal":0,"type":"event_msg","payload":{{"type":"task_started","turn_id":"{RUN}","started_at":0}}}}"#
            )
        );
    }

    #[test]
    fn every_step_times_every_fault_keeps_every_acknowledged_line() {
        let line_bytes = {
            let file = MemoryFile::default();
            append_five(&file, Durability::Never);
            file.content().find('\n').unwrap() + 1
        };
        let mut faults = vec![Fault::Interrupt, Fault::TakeNothing];
        for errno in [Errno::NOSPC, Errno::IO, Errno::ACCESS, Errno::ROFS] {
            faults.push(Fault::Fail(errno));
        }
        for taken in 1..line_bytes {
            faults.extend([Fault::ShortThenGoOn(taken), Fault::Short(taken, Errno::NOSPC)]);
        }
        let mut cases = 0;
        for durability in [Durability::Never, Durability::Turn, Durability::Line] {
            for step in 0..steps_of_a_faultless_run(durability) {
                for &fault in &faults {
                    for truncate_works in [true, false] {
                        let file = MemoryFile::failing(step, fault, truncate_works);
                        let acknowledged = append_five(&file, durability);
                        let case = format!("{durability:?}, step {step}, {fault:?}, {truncate_works}");
                        let lines = lines_of(&file.content());
                        let ordinals: Vec<_> = lines.iter().map(|line| line.ordinal).collect();
                        assert_eq!(ordinals, (0..lines.len() as u64).collect::<Vec<_>>(), "{case}");
                        let present = numbers(&lines);
                        assert!(acknowledged.iter().all(|n| present.contains(n)), "{case}: {present:?}");
                        if durability != Durability::Line {
                            assert_eq!(acknowledged, present, "{case}");
                            assert!(acknowledged.len() >= 4, "{case}: one fault stops one line");
                        }
                        if truncate_works {
                            assert!(!file.has_garbage(), "{case}: {}", file.content());
                        }
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 5_000, "{cases}");
    }

    #[test]
    fn a_persistent_fault_at_any_step_keeps_what_was_acknowledged_before_and_goes_on_after() {
        for step in 0..5 {
            for taken in [0, 1, 40] {
                for truncate_works in [true, false] {
                    let file = MemoryFile::failing(step, Fault::Short(taken, Errno::NOSPC), truncate_works);
                    file.keep_failing();
                    let mut rollout = rollout(&file, Durability::Turn);
                    let acknowledged: Vec<i64> =
                        (0..4).filter(|n| rollout.append(Timestamp(0), task_started(*n)).is_ok()).collect();
                    file.heal();
                    rollout.append(Timestamp(0), task_started(4)).unwrap();
                    let expected: Vec<i64> = acknowledged.into_iter().chain([4]).collect();
                    assert_eq!(
                        numbers(&lines_of(&file.content())),
                        expected,
                        "{step} {taken} {truncate_works}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_control_without_healing_would_lose_lines() {
        // What a writer without `undo` leaves: the next line is glued to the torn one, and both are lost.
        let torn = r#"{"timestamp":"t","ordinal":0,"#;
        let glued = format!("{torn}{}\n", serde_json::json!({"timestamp": "t", "ordinal": 1}));
        assert_eq!(lines_of(&glued), []);
    }

    #[test]
    fn bytes_of_another_writer_are_never_cut_off() {
        let file = MemoryFile::failing(1, Fault::Short(9, Errno::NOSPC), true);
        let mut rollout = rollout(&file, Durability::Turn);
        rollout.append(Timestamp(0), task_started(0)).unwrap();
        file.append_foreign_after_step(1, "\n{\"foreign\":1}\n");
        rollout.append(Timestamp(0), task_started(1)).unwrap_err();
        rollout.append(Timestamp(0), task_started(2)).unwrap();
        assert!(file.content().contains("{\"foreign\":1}\n"), "{}", file.content());
        assert_eq!(numbers(&lines_of(&file.content())), [0, 2]);
    }

    #[test]
    fn a_failed_sync_is_never_forgotten() {
        let file = MemoryFile::failing(1, Fault::Fail(Errno::IO), true);
        let mut rollout = rollout(&file, Durability::Line);
        let not_durable =
            StoreError::NotDurable { path: "/s/r.jsonl".into(), errno: Errno::IO.raw_os_error() };
        assert_eq!(rollout.append(Timestamp(0), task_started(0)), Err(not_durable.clone()));
        assert_eq!(rollout.append(Timestamp(0), task_started(1)), Err(not_durable.clone()));
        assert_eq!(rollout.end_turn(), Err(not_durable));
        assert_eq!(numbers(&lines_of(&file.content())), [0, 1]);
    }

    #[test]
    fn errors_that_fail_a_write_are_typed() {
        for (errno, fault) in [(Errno::NOSPC, Fault::Fail(Errno::NOSPC)), (Errno::IO, Fault::TakeNothing)] {
            let file = MemoryFile::failing(0, fault, true);
            let error = rollout(&file, Durability::Turn).append(Timestamp(0), task_started(0)).unwrap_err();
            assert_eq!(error, StoreError::new(Step::Append, Path::new("/s/r.jsonl"), errno));
        }
    }
}
