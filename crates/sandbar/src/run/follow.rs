//! The loop that follows a run until nothing of it is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sandbar_exec::{Process, ProcessControl, ProcessError};
use sandbar_proto::{EndRecord, ExitStatus, ProcessEvent, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::record::Record;
use super::relay::{self, Output, Report, Written};
use super::signals::{Signals, Wish};
use super::streams::Streams;
use crate::cli::RunArgs;
use crate::exit;
use crate::json::Line;
use crate::render::{Problem, note};

/// How long a tree that is asked to end gets before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Silence after which what was collected is written to the record.
const SILENCE: Duration = Duration::from_millis(100);

/// How long a keeper may take over a signal before the next one makes us leave. It answers within milliseconds; two
/// signals of one cause (a terminal's, and a parent's that passes it on) come closer together than this.
const UNHEEDED: Duration = Duration::from_secs(1);

const SIGKILL: i32 = 9;

/// A run that is followed.
pub(super) struct Follower {
    process: Box<dyn Process>,
    control: Arc<dyn ProcessControl>,
    /// What was asked of the keeper on behalf of signals, oldest first.
    asked: Vec<(Instant, JoinHandle<()>)>,
    record: Record,
    json: bool,
    quiet: bool,
    signals: Signals,
    output: Output,
    input: Option<mpsc::Receiver<Result<Vec<u8>, Errno>>>,
    end: Option<EndRecord>,
    interrupts: u32,
    /// The signal that made us leave, since the keeper does not heed any.
    leaving: Option<i32>,
    timeout: Option<Duration>,
    told_stall: bool,
}

/// What the loop woke up for.
enum Wake {
    Event(Result<Option<ProcessEvent>, ProcessError>),
    Wish(Wish),
    Report(Report),
    Silence,
}

impl Follower {
    /// Follows `process`, which was just started.
    pub(super) fn new(
        args: &RunArgs,
        process: Box<dyn Process>,
        record: Record,
        streams: Streams,
        signals: Signals,
    ) -> Self {
        Self {
            control: Arc::from(process.control()),
            asked: Vec::new(),
            process,
            record,
            json: args.json,
            quiet: args.quiet,
            signals,
            output: Output::default(),
            input: streams.relayed_stdin().map(relay::read_input),
            end: None,
            interrupts: 0,
            leaving: None,
            timeout: args.timeout,
            told_stall: false,
        }
    }

    /// Follows to the end and returns the status to exit with.
    ///
    /// # Errors
    /// What held the process is gone, or heeds no signal.
    pub(super) async fn follow(mut self) -> Result<u8, Problem> {
        if let Some(input) = self.input.take() {
            tokio::spawn(feed(input, self.process.control()));
        }
        if self.json {
            let line = Line::started(self.process.record()).bytes();
            self.write(Written::Line(line)).await;
        }
        let mut quiet_since_output = false;
        loop {
            let wake = tokio::select! {
                biased;
                wish = self.signals.next() => Wake::Wish(wish),
                report = self.output.report() => Wake::Report(report),
                event = self.process.next_event() => Wake::Event(event),
                () = tokio::time::sleep(SILENCE), if !quiet_since_output => Wake::Silence,
            };
            quiet_since_output = matches!(wake, Wake::Silence);
            match wake {
                Wake::Wish(wish) => self.obey(wish),
                Wake::Report(report) => self.hear(report),
                Wake::Silence => self.use_silence(),
                Wake::Event(Ok(Some(event))) => self.take(event).await,
                Wake::Event(Ok(None)) => break,
                Wake::Event(Err(error)) => return Err(self.lost(&error)),
            }
            if let Some(signal) = self.leaving {
                return Err(self.leave(signal));
            }
        }
        self.finish().await
    }

    async fn take(&mut self, event: ProcessEvent) {
        self.record.event(&event);
        let written = if self.json { Some(Written::Line(Line::event(&event).bytes())) } else { None };
        match (written, event) {
            (Some(line), ProcessEvent::Exited(end)) => {
                self.write(line).await;
                self.end = Some(end);
            }
            (
                Some(line),
                ProcessEvent::Output { .. } | ProcessEvent::Gap(_) | ProcessEvent::Closed { .. },
            ) => {
                self.write(line).await;
            }
            (None, ProcessEvent::Output { stream, bytes, .. }) => {
                self.write(Written::Chunk(stream, bytes)).await
            }
            (None, ProcessEvent::Exited(end)) => self.end = Some(end),
            (None, ProcessEvent::Gap(gap)) => {
                note(format_args!("{} bytes of output are missing here.", gap.bytes));
            }
            (None, ProcessEvent::Closed { .. }) => {}
        }
    }

    /// Hands something to the writing thread. While its reader stalls, only signals are heard.
    async fn write(&mut self, written: Written) {
        let Some(chunks) = self.output.chunks() else { return };
        let mut room = std::pin::pin!(chunks.reserve());
        loop {
            let wake = tokio::select! {
                biased;
                wish = self.signals.next() => Wake::Wish(wish),
                report = self.output.report() => Wake::Report(report),
                permit = &mut room => {
                    // Without the thread there is nobody to write for.
                    if let Ok(permit) = permit {
                        permit.send(written);
                    }
                    return;
                }
            };
            match wake {
                Wake::Wish(wish) => self.obey(wish),
                Wake::Report(report) => self.hear(report),
                Wake::Event(_) | Wake::Silence => {}
            }
            if self.leaving.is_some() {
                return;
            }
        }
    }

    /// Passes a signal on. When the keeper has left an earlier one unanswered we leave instead: nothing that is asked
    /// of it would end the run, and we must not be what can't be interrupted.
    fn obey(&mut self, wish: Wish) {
        let (Wish::Forward(signal) | Wish::Terminate(signal)) = wish;
        self.asked.retain(|(_, asked)| !asked.is_finished());
        if self.asked.first().is_some_and(|(since, _)| since.elapsed() > UNHEEDED) {
            self.leaving = Some(signal);
            return;
        }
        let control = Arc::clone(&self.control);
        // A command that does not listen to the first Ctrl-C is ended by the second.
        let is_repeated = matches!(wish, Wish::Forward(_)) && self.interrupts > 0;
        self.interrupts += u32::from(matches!(wish, Wish::Forward(_)));
        let asked = tokio::spawn(async move {
            // A process that is gone by now needs no signal; whatever happened to it is about to be told.
            let _ = match wish {
                Wish::Forward(_) if is_repeated => control.terminate(SIGKILL, Duration::ZERO).await,
                Wish::Forward(signal) => control.signal(signal).await,
                Wish::Terminate(signal) => control.terminate(signal, GRACE).await,
            };
        });
        self.asked.push((Instant::now(), asked));
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Closed(stream) => {
                // The command learns it as it would without us: by SIGPIPE.
                self.close_output(stream);
                if self.json && stream == Stream::Stdout {
                    self.close_output(Stream::Stderr);
                }
            }
            Report::Failed(stream, error) => {
                let name = match stream {
                    Stream::Stdout => "standard output",
                    Stream::Stderr => "standard error",
                };
                note(format_args!("could not write to {name}: {error}."));
                self.close_output(stream);
            }
            Report::Finished => {}
        }
    }

    /// Says that nobody reads a stream any more. Not waited for: signals are heard while a keeper is slow.
    fn close_output(&self, stream: Stream) {
        let control = Arc::clone(&self.control);
        tokio::spawn(async move {
            let _ = control.close_output(stream).await;
        });
    }

    fn use_silence(&mut self) {
        self.record.flush();
        if self.process.is_stalled() && !self.told_stall {
            self.told_stall = true;
            note("the runtime directory is full; the command waits until there is space for its output.");
        }
    }

    fn lost(self, error: &ProcessError) -> Problem {
        let id = self.process.record().id;
        self.record.finish();
        Problem::new(format!("lost the run: {error}"))
            .at(format!("run {id}"))
            .advise(
                "the keeper ended, and with it the command; `sandbar logs` shows what it wrote until then",
            )
            .status(exit::CANNOT_RUN)
    }

    fn leave(self, signal: i32) -> Problem {
        let id = self.process.record().id;
        self.record.finish();
        Problem::new(format!("interrupted by signal {signal}: the keeper has not heeded the one before"))
            .at(format!("run {id}"))
            .advise(format!("the run may go on; `sandbar kill {id}` ends it once the keeper answers again"))
            .status(u8::try_from(128 + signal).unwrap_or(exit::CANNOT_RUN))
    }

    async fn finish(mut self) -> Result<u8, Problem> {
        self.record.finish();
        // Nothing more is handed over; the thread reports when the last byte is written.
        let mut writing = self.output.close();
        while writing {
            tokio::select! {
                report = self.output.report() => writing = report != Report::Finished,
                // The command is over; whoever interrupts now does not want to wait for a stalled reader.
                _ = self.signals.next() => writing = false,
            }
        }
        let Some(end) = self.end else {
            return Err(Problem::new("the run ended without saying how").status(exit::CANNOT_RUN));
        };
        if end.timed_out {
            if let (Some(timeout), false) = (self.timeout, self.quiet) {
                note(format_args!("ended after its time limit of {timeout:?}."));
            }
            return Ok(exit::TIMED_OUT);
        }
        Ok(status(&end))
    }
}

/// The status to exit with for how the command ended.
fn status(end: &EndRecord) -> u8 {
    match end.status {
        ExitStatus::Exited { code } => code,
        ExitStatus::Signaled { .. } => end.status.shell_code().unwrap_or(exit::CANNOT_RUN),
        ExitStatus::Lost => exit::CANNOT_RUN,
    }
}

/// Passes input on until either end closes. An error ends it as well: a command can't be given one, so the person is.
async fn feed(mut input: mpsc::Receiver<Result<Vec<u8>, Errno>>, control: Box<dyn ProcessControl>) {
    let mut offset = 0;
    while let Some(read) = input.recv().await {
        let chunk = match read {
            Ok(chunk) => chunk,
            Err(errno) => {
                note(format_args!("reading standard input failed: {errno}; the command sees the end of it."));
                break;
            }
        };
        if control.write_stdin(offset, &chunk).await.is_err() {
            return;
        }
        offset += chunk.len() as u64;
    }
    // A process that is gone has no input to close.
    let _ = control.close_stdin().await;
}
