//! The loop that follows a run until nothing of it is left, or until it is left to itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sandbar_exec::{BoxFuture, Process, ProcessControl, ProcessError};
use sandbar_proto::{EndRecord, ExitStatus, ProcessEvent, RunId, Stream, TerminalSize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::denials::{Denial, Denials};
use super::record::Record;
use super::relay::{self, Output, Report, Written};
use super::signals::{Signals, Wish};
use super::streams::Input;
use super::tail::Tail;
use crate::json::Line;
use crate::render::{Problem, note};
use crate::signal::{SIGCONT, SIGKILL};
use crate::terminal::{DetachKeys, Left, Occurrence, Session};
use crate::{exit, limits};

/// How long a tree that is asked to end gets before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long our output may take what is left of it when somebody wanted us to end and the command has ended: longer
/// than a busy reader needs, shorter than a person, or a supervisor before it kills us, waits. The record has it all.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// Silence after which what was collected is written to the record.
const SILENCE: Duration = Duration::from_millis(100);

/// How long a keeper may take over a signal before the next one makes us leave. It answers within milliseconds; two
/// signals of one cause (a terminal's, and a parent's that passes it on) come closer together than this.
const UNHEEDED: Duration = Duration::from_secs(1);

/// Portions of what is typed that may wait for the keeper to take them.
const TYPED: usize = 4;

/// How long what was typed before the detach keys may take to reach the keeper.
const TYPED_PATIENCE: Duration = Duration::from_millis(500);

/// In whose place we follow a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// That of who started it: what reaches us is meant for the command.
    Starter,
    /// That of one of several who look: what reaches us is meant for us.
    Viewer,
}

/// How a run is followed.
pub(super) struct Manner {
    /// In whose place.
    pub(super) role: Role,
    /// With events as JSON lines instead of the output.
    pub(super) json: bool,
    /// Without notes.
    pub(super) quiet: bool,
    /// The time limit that it was given.
    pub(super) timeout: Option<Duration>,
    /// What detaches; nothing may.
    pub(super) keys: DetachKeys,
}

/// A run that is followed.
pub(super) struct Follower {
    manner: Manner,
    /// The status to leave with, once it is clear that we leave before the command does.
    leaving: Option<u8>,
    process: Box<dyn Process>,
    control: Arc<dyn ProcessControl>,
    /// What was asked of the keeper on behalf of signals, oldest first.
    asked: Vec<(Instant, JoinHandle<()>)>,
    record: Record,
    signals: Signals,
    output: Output,
    input: Option<mpsc::Receiver<Result<Vec<u8>, Errno>>>,
    terminal: Option<Session>,
    typing: mpsc::Sender<Typed>,
    end: Option<EndRecord>,
    interrupts: u32,
    /// How long our output may take what is left of it, once we were asked to end.
    output_deadline: Option<tokio::time::Instant>,
    /// Whether some of the output could not be written.
    lost_output: bool,
    /// The signal that makes us leave, since the keeper does not heed any.
    unheeded: Option<i32>,
    told_stall: bool,
    /// What may have been refused, where the rules are known here.
    denials: Option<Denials>,
}

/// What the loop woke up for.
enum Wake {
    Event(Result<Option<ProcessEvent>, ProcessError>),
    Wish(Wish),
    Report(Report),
    Terminal(Occurrence),
    Stall,
    Silence,
}

/// Waits for a stall that nobody knows of yet.
async fn next_stall(stall: &mut Option<BoxFuture<'static, ()>>) {
    match stall {
        Some(stall) => stall.await,
        None => std::future::pending().await,
    }
}

/// Something for the one who passes on what is typed.
enum Typed {
    /// This was typed.
    Keys(Vec<u8>),
    /// Nothing: the other end is told when the keeper has everything before it.
    Mark(oneshot::Sender<()>),
}

impl Follower {
    /// Follows `process`. `input` is what of our standard input has to be read for it; with [`Input::Terminal`] our
    /// terminal stands for the command's.
    ///
    /// # Errors
    /// The terminal can't be used.
    pub(super) fn new(
        manner: Manner,
        process: Box<dyn Process>,
        record: Record,
        input: Input,
        signals: Signals,
    ) -> Result<Self, Problem> {
        let terminal = (input == Input::Terminal).then(|| Session::begin(&manner.keys)).transpose();
        let terminal = terminal.map_err(|error| {
            Problem::new(format!("could not use the terminal: {error}")).status(exit::CANNOT_RUN)
        })?;
        Ok(Self {
            control: Arc::from(process.control()),
            asked: Vec::new(),
            typing: typist(process.control()),
            process,
            record,
            signals,
            output: Output::default(),
            input: match input {
                Input::Relayed(kind) => Some(relay::read_input(kind)),
                Input::Terminal | Input::None => None,
            },
            terminal,
            end: None,
            interrupts: 0,
            output_deadline: None,
            lost_output: false,
            unheeded: None,
            told_stall: false,
            denials: None,
            leaving: None,
            manner,
        })
    }

    /// Follows to the end and returns the status to exit with.
    ///
    /// # Errors
    /// What held the process is gone, or heeds no signal.
    pub(super) async fn follow(mut self) -> Result<u8, Problem> {
        if let Some(input) = self.input.take() {
            match self.manner.role {
                Role::Starter => drop(tokio::spawn(feed(input, self.process.control()))),
                // Its end is not the end of what others type.
                Role::Viewer => drop(tokio::spawn(pass(input, self.typing.clone()))),
            }
        }
        if self.manner.json {
            let line = Line::started(self.process.record()).bytes();
            self.write(Written::Line(line)).await;
        }
        if let (Role::Starter, Some(terminal)) = (self.manner.role, &self.terminal)
            && self.process.terminal() != Some(terminal.size())
        {
            // It has changed since the plan was made.
            let _ = self.control.resize(terminal.size()).await;
        }
        if self.manner.role == Role::Viewer {
            self.catch_up().await.map_err(|error| lost(self.process.record().id, &error))?;
        }
        let mut quiet_since_output = false;
        // Does not show as an event, and may come when nothing has been written for long.
        let mut stall = Some(self.process.stalled());
        while self.leaving.is_none() {
            let wake = tokio::select! {
                biased;
                wish = self.signals.next() => Wake::Wish(wish),
                report = self.output.report() => Wake::Report(report),
                event = self.process.next_event() => Wake::Event(event),
                occurrence = next_of(&mut self.terminal, &self.typing) => Wake::Terminal(occurrence),
                () = next_stall(&mut stall) => Wake::Stall,
                () = tokio::time::sleep(SILENCE), if !quiet_since_output => Wake::Silence,
            };
            quiet_since_output = matches!(wake, Wake::Silence);
            match wake {
                Wake::Wish(wish) => self.obey(wish),
                Wake::Report(report) => self.hear(report),
                // What is over within the silence behind it is not worth a word.
                Wake::Stall => stall = None,
                Wake::Silence => {
                    self.use_silence();
                    if stall.is_none() && !self.told_stall {
                        stall = Some(self.process.stalled());
                    }
                }
                Wake::Terminal(occurrence) => self.see(occurrence).await,
                Wake::Event(Ok(Some(event))) => self.take(event).await,
                Wake::Event(Ok(None)) => return self.finish().await,
                Wake::Event(Err(error)) => return Err(self.lose(&error)),
            }
            if let Some(signal) = self.unheeded {
                return Err(self.give_up(signal));
            }
        }
        self.leave().await
    }

    /// Shows where the command stands to somebody who comes later: the screen of a terminal, or the last lines.
    async fn catch_up(&mut self) -> Result<(), ProcessError> {
        let mut tail = Tail::default();
        while tail.end_offset < self.process.written().bytes {
            match self.process.next_event().await? {
                Some(ProcessEvent::Output { stream, offset_bytes, bytes, .. }) => {
                    tail.push(stream, offset_bytes, bytes);
                }
                Some(ProcessEvent::Gap(gap)) => tail.end_offset += gap.bytes,
                Some(ProcessEvent::Exited(end)) => {
                    self.end = Some(end);
                    break;
                }
                Some(ProcessEvent::Stopped { .. } | ProcessEvent::Closed { .. }) => {}
                None => break,
            }
        }
        let rows = match &self.terminal {
            Some(terminal) => terminal.size().rows,
            None => TerminalSize::USUAL.rows,
        };
        match (&mut self.terminal, self.process.terminal()) {
            (Some(terminal), Some(made_for)) => {
                let screen = terminal.redraw(&tail.of(Stream::Pty), made_for);
                let size = terminal.size();
                self.write(Written::Chunk(Stream::Pty, screen)).await;
                // The last one who comes decides about the size.
                let _ = self.control.resize(size).await;
                if self.process.was_stopped() {
                    let _ = self.control.signal(SIGCONT).await;
                }
            }
            _ => {
                for (stream, bytes) in tail.last_lines(rows.into()) {
                    self.write(Written::Chunk(stream, bytes)).await;
                }
            }
        }
        Ok(())
    }

    /// What was probably refused to a command that failed.
    fn denied(&self) -> Vec<Denial> {
        let failed =
            self.end.as_ref().is_some_and(|end| end.status.shell_code() != Some(0) && !end.timed_out);
        self.denials.as_ref().filter(|_| failed).map(Denials::found).unwrap_or_default()
    }

    /// Leaves the command to itself, and its record to others.
    async fn leave(mut self) -> Result<u8, Problem> {
        let status = self.leaving.unwrap_or(exit::OK);
        let id = self.process.record().id;
        let (reached, passed_on) = oneshot::channel();
        if self.typing.try_send(Typed::Mark(reached)).is_ok() {
            // A command that reads nothing must not keep us.
            let _ = tokio::time::timeout(TYPED_PATIENCE, passed_on).await;
        }
        if self.record.leave() {
            // A keeper that is gone has nothing more to record.
            let _ = self.control.release().await;
        }
        self.close_output().await;
        if self.manner.quiet {
            self.leave_terminal(Left::Behind);
        } else {
            self.interrupt_terminal();
            note(format_args!("detached; `sandbar attach {id}` comes back to it."));
        }
        Ok(status)
    }

    /// Says at the end what the command was probably refused.
    pub(super) fn explaining(self, denials: Denials) -> Self {
        Self { denials: Some(denials), ..self }
    }

    async fn take(&mut self, event: ProcessEvent) {
        self.record.event(&event);
        if let (Some(denials), ProcessEvent::Output { stream, bytes, .. }) = (&mut self.denials, &event) {
            denials.feed(*stream, bytes);
        }
        if self.manner.json && matches!(event, ProcessEvent::Closed { .. }) {
            for denial in self.denied() {
                self.write(Written::Line(Line::Denied(&denial).bytes())).await;
            }
        }
        if let Some(offset_bytes) = self.record.needed_from() {
            self.process.needs_from(offset_bytes);
        }
        let written = if self.manner.json { Some(Written::Line(Line::event(&event).bytes())) } else { None };
        match (written, event) {
            (Some(line), ProcessEvent::Exited(end)) => {
                self.write(line).await;
                self.end = Some(end);
            }
            (
                Some(line),
                ProcessEvent::Output { .. }
                | ProcessEvent::Gap(_)
                | ProcessEvent::Stopped { .. }
                | ProcessEvent::Closed { .. },
            ) => {
                self.write(line).await;
            }
            (None, ProcessEvent::Output { stream, bytes, .. }) => {
                if let (Some(terminal), Stream::Pty) = (&mut self.terminal, stream) {
                    terminal.note_output(&bytes);
                }
                self.write(Written::Chunk(stream, bytes)).await
            }
            (None, ProcessEvent::Stopped { .. }) => self.suspend().await,
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
                // Dropped, so that the end of the command is seen.
                () = passed(self.output_deadline) => return,
            };
            match wake {
                Wake::Wish(wish) => self.obey(wish),
                Wake::Report(report) => self.hear(report),
                Wake::Event(_) | Wake::Stall | Wake::Silence | Wake::Terminal(_) => {}
            }
            if self.leaving.is_some() || self.unheeded.is_some() {
                return;
            }
        }
    }

    /// Passes a signal on. When the keeper has left an earlier one unanswered we leave instead: nothing that is asked
    /// of it would end the run, and we must not be what can't be interrupted.
    fn obey(&mut self, wish: Wish) {
        let (Wish::Forward(signal) | Wish::Terminate(signal)) = wish;
        if matches!(wish, Wish::Terminate(_)) {
            let deadline = tokio::time::Instant::now() + GRACE + OUTPUT_PATIENCE;
            self.output_deadline.get_or_insert(deadline);
        }
        if self.manner.role == Role::Viewer {
            self.leaving = Some(u8::try_from(128 + signal).unwrap_or(exit::FAILED));
            return;
        }
        self.asked.retain(|(_, asked)| !asked.is_finished());
        if self.asked.first().is_some_and(|(since, _)| since.elapsed() > UNHEEDED) {
            self.unheeded = Some(signal);
            return;
        }
        let control = Arc::clone(&self.control);
        // A command that does not listen to the first Ctrl-C is ended by the second. On a terminal of its own it gets
        // the key itself, and what it makes of it is its own affair.
        let is_repeated = matches!(wish, Wish::Forward(_)) && self.interrupts > 0 && self.terminal.is_none();
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

    /// Does what our side of the terminal asks for.
    async fn see(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Typed(bytes) => {
                // There is room: it was asked for before the terminal was.
                let _ = self.typing.try_send(Typed::Keys(bytes));
            }
            Occurrence::Resized(size) => {
                let _ = self.control.resize(size).await;
            }
            Occurrence::Detach(bytes) => {
                if !bytes.is_empty() {
                    let _ = self.typing.try_send(Typed::Keys(bytes));
                }
                self.leaving = Some(exit::OK);
            }
            // Whoever hangs a terminal up says so by a signal as well.
            Occurrence::Ended => {}
        }
    }

    /// The command was stopped: so are we, until somebody continues us, and the command with us. Without a terminal
    /// of its own it was stopped by somebody who knows what they do.
    async fn suspend(&mut self) {
        let (reached, written) = oneshot::channel();
        if self.terminal.is_none() {
            return;
        }
        self.write(Written::Mark(reached)).await;
        // A terminal that takes nothing any more has no use for what is not written yet.
        let _ = tokio::time::timeout(GRACE, written).await;
        let size = self.terminal.as_mut().and_then(Session::suspend);
        if let Some(size) = size {
            let _ = self.control.resize(size).await;
        }
        let _ = self.control.signal(SIGCONT).await;
    }

    fn hear(&mut self, report: Report) {
        match report {
            // Others may read on.
            Report::Closed(_) if self.manner.role == Role::Viewer => self.leaving = Some(exit::OK),
            Report::Closed(stream) => {
                // The command learns it as it would without us: by SIGPIPE.
                self.tell_closed(stream);
                if self.manner.json && stream == Stream::Stdout {
                    self.tell_closed(Stream::Stderr);
                }
            }
            Report::Failed(stream, error) => {
                let name = match stream {
                    Stream::Stdout | Stream::Pty => "standard output",
                    Stream::Stderr => "standard error",
                };
                note(format_args!("could not write to {name}: {error}."));
                self.lost_output = true;
                match self.manner.role {
                    Role::Starter => self.tell_closed(stream),
                    Role::Viewer => self.leaving = Some(exit::FAILED),
                }
            }
            Report::Finished => {}
        }
    }

    /// Says that nobody reads a stream any more. Not waited for: signals are heard while a keeper is slow.
    fn tell_closed(&self, stream: Stream) {
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

    fn lose(mut self, error: &ProcessError) -> Problem {
        self.interrupt_terminal();
        self.record.finish();
        lost(self.process.record().id, error)
    }

    fn give_up(mut self, signal: i32) -> Problem {
        let id = self.process.record().id;
        self.interrupt_terminal();
        self.record.finish();
        Problem::new(format!("interrupted by signal {signal}: the keeper has not heeded the one before"))
            .at(format!("run {id}"))
            .advise(format!("the run may go on; `sandbar kill {id}` ends it once the keeper answers again"))
            .status(u8::try_from(128 + signal).unwrap_or(exit::CANNOT_RUN))
    }

    /// Writes what was handed over, to the last byte.
    async fn close_output(&mut self) {
        // Nothing more is handed over; the thread reports when the last byte is written.
        let mut writing = self.output.close();
        while writing {
            tokio::select! {
                report = self.output.report() => {
                    writing = report != Report::Finished;
                    self.hear(report);
                }
                // The command is over; whoever interrupts now does not want to wait for a stalled reader.
                _ = self.signals.next() => writing = false,
                () = passed(self.output_deadline) => writing = false,
            }
        }
    }

    /// Leaves the terminal in the middle of things. What we say next begins a line of its own, wherever the cursor was.
    fn interrupt_terminal(&mut self) {
        let had_terminal = self.terminal.is_some();
        self.leave_terminal(Left::Behind);
        if had_terminal {
            // What can't be written can't be said either.
            let _ = crate::output::write(Stream::Stderr, b"\r\n");
        }
    }

    fn leave_terminal(&mut self, left: Left) {
        if let Some(terminal) = self.terminal.take() {
            terminal.end(left);
        }
    }

    async fn finish(mut self) -> Result<u8, Problem> {
        if self.record.finish() {
            // A keeper that is gone asks for no record; the next one sees that this one is complete.
            let _ = self.control.recorded().await;
        }
        self.close_output().await;
        let left = match &self.end {
            Some(EndRecord { status: ExitStatus::Exited { .. }, timed_out: false, .. }) => Left::Willingly,
            Some(_) | None => Left::Behind,
        };
        self.leave_terminal(left);
        if self.lost_output {
            // Whatever the command came to: who reads only the status must not take the output for whole.
            return Ok(match self.manner.role {
                Role::Starter => exit::CANNOT_RUN,
                Role::Viewer => exit::FAILED,
            });
        }
        if !self.manner.quiet && !self.manner.json {
            self.denied().iter().for_each(|denial| note(denial.sentence()));
        }
        let Some(end) = self.end else {
            return Err(Problem::new("the run ended without saying how").status(exit::CANNOT_RUN));
        };
        limits::lost_protection(&end).into_iter().for_each(note);
        if !self.manner.quiet {
            limits::sentences(&end).into_iter().for_each(note);
        }
        if end.timed_out {
            if let (Some(timeout), false) = (self.manner.timeout, self.manner.quiet) {
                note(format_args!("ended after its time limit of {timeout:?}."));
            }
            return Ok(exit::TIMED_OUT);
        }
        status(&end)
    }
}

/// The run went with its keeper.
fn lost(id: RunId, error: &ProcessError) -> Problem {
    let problem = Problem::new(format!("lost the run: {error}")).at(format!("run {id}"));
    let problem = match error {
        ProcessError::Elsewhere(_) => problem
            .advise("it may go on there; `sandbar ps --on` shows whether it does, once it can be reached"),
        ProcessError::Lost(_)
        | ProcessError::Output(_)
        | ProcessError::Refused(_)
        | ProcessError::StdinClosed
        | ProcessError::TooOld { .. } => problem.advise(
            "the keeper ended, and with it the command; `sandbar logs` shows what it wrote until then",
        ),
    };
    problem.status(exit::CANNOT_RUN)
}

/// The status to exit with for how the command ended.
///
/// # Errors
/// Nobody saw how: that is no status of the command's.
fn status(end: &EndRecord) -> Result<u8, Problem> {
    match end.status {
        ExitStatus::Exited { code } => Ok(code),
        ExitStatus::Signaled { .. } => Ok(end.status.shell_code().unwrap_or(exit::CANNOT_RUN)),
        ExitStatus::Lost => Err(Problem::new("lost the run: nobody saw how the command ended")
            .at(format!("run {}", end.id))
            .advise("what held it has ended, and with it the command; `sandbar logs` shows what it wrote until then")
            .status(exit::CANNOT_RUN)),
    }
}

/// Waits for a deadline; for ever without one.
async fn passed(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The next occurrence on our terminal, once there is room for what it may bring. Waits for ever without a terminal.
async fn next_of(terminal: &mut Option<Session>, typing: &mpsc::Sender<Typed>) -> Occurrence {
    let Some(terminal) = terminal else { return std::future::pending().await };
    // Who types faster than the command reads is heard later; the permit is given back and taken again at once.
    drop(typing.reserve().await);
    terminal.next().await
}

/// Passes on what is typed, in its order, without making the loop wait.
fn typist(control: Box<dyn ProcessControl>) -> mpsc::Sender<Typed> {
    let (typing, mut typed) = mpsc::channel::<Typed>(TYPED);
    tokio::spawn(async move {
        while let Some(typed) = typed.recv().await {
            match typed {
                // A command that is gone reads nothing any more.
                Typed::Keys(bytes) if control.type_input(&bytes).await.is_err() => return,
                Typed::Keys(_) => {}
                // Who asked may have given up.
                Typed::Mark(reached) => drop(reached.send(())),
            }
        }
    });
    typing
}

/// Passes input on as if it were typed, until it ends.
async fn pass(mut input: mpsc::Receiver<Result<Vec<u8>, Errno>>, typing: mpsc::Sender<Typed>) {
    while let Some(Ok(bytes)) = input.recv().await {
        if typing.send(Typed::Keys(bytes)).await.is_err() {
            return;
        }
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
