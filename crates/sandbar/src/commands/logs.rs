//! `sandbar logs`: what a run wrote, and with `--follow` what it goes on to write.
//!
//! A run that has ended is read from its log alone; one that runs is followed through its keeper, which says when
//! there is more. Either way what is missing is said where it is missing.

mod screen;

use sandbar_exec::remote::Beginning;
use sandbar_exec::{Process, ProcessError, Processes as _, Watching};
use sandbar_keeper::protocol::Refusal;
use sandbar_keeper::{LogItem, LogReader, ReadError, Record};
use sandbar_proto::{ExitStatus, ProcessEvent, Seq};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::LogsArgs;
use crate::dirs::Directories;
use crate::elsewhere::Elsewhere;
use crate::keepers::{self, Known};
use crate::output::Reader;
use crate::places::{self, Place, Where};
use crate::render::Problem;
use crate::{event_loop, exit};
use screen::{Format, Screen};

const SIGINT: i32 = 2;

/// Shows the output of a run.
///
/// # Errors
/// There is no such run, it has no log, or the log can't be read.
pub(super) fn execute(args: &LogsArgs) -> Result<u8, Problem> {
    let format = match (args.json, args.raw) {
        (true, _) => Format::Json,
        (false, true) => Format::Raw,
        (false, false) => Format::Escaped,
    };
    let directories = Directories::find()?;
    if let Where::Elsewhere(place) = places::find(&args.on, &directories)? {
        let (id, follows) = (args.id.clone(), args.follow);
        return interruptible(move || event_loop::block_on(show_elsewhere(place, id, follows, format)));
    }
    let runtime = keepers::runtime(&directories)?;
    let known = keepers::find(&runtime, &args.id)?;
    if !is_logged(&known.record) {
        return Err(Problem::new(
            "could not show the output: this run handed its streams over; nothing was logged",
        )
        .at(format!("run {}", known.id()))
        .advise(
            "its output went where that of `sandbar run` went; a run that is recorded is logged as well",
        ));
    }
    let mut screen = Screen::new(format);
    if args.follow && known.keeper_alive {
        return interruptible(move || event_loop::block_on(follow(known, screen)));
    }
    // Asked before the log is read: what is over by now has everything in its log.
    let over = format == Format::Json && event_loop::block_on(is_over(&known))?;
    show(&known.record, &mut screen, if over { Rest::Over } else { Rest::Unknown })?;
    Ok(exit::OK)
}

/// Shows the output of a run elsewhere, which comes from the log there, as far as it goes by now or to its end.
async fn show_elsewhere(place: Place, id: String, follows: bool, format: Format) -> Result<u8, Problem> {
    let elsewhere = Elsewhere::new(place);
    let known = elsewhere.find(&id).await?;
    let mut process = elsewhere.attach(&known, Beginning::Behind(Seq(0))).await?;
    let mut screen = Screen::new(format);
    if follows || !known.is_running() {
        return elsewhere.while_telling(relay(process, &mut screen)).await;
    }
    screen.started(process.record())?;
    let (mut seen, written) = (0, process.written().bytes);
    while seen < written {
        let event = process.next_event().await.map_err(|error| {
            Problem::new(format!("lost the run: {error}")).at(format!("run {}", known.id()))
        })?;
        let Some(event) = event else { break };
        match &event {
            ProcessEvent::Output { offset_bytes, bytes, .. } => seen = offset_bytes + bytes.len() as u64,
            ProcessEvent::Gap(gap) => seen += gap.bytes,
            ProcessEvent::Stopped { .. } | ProcessEvent::Exited(_) | ProcessEvent::Closed { .. } => {}
        }
        if screen.event(&event)? == Reader::Left {
            return Ok(exit::OK);
        }
    }
    screen.finish()?;
    Ok(exit::OK)
}

/// Whether the keeper logged any stream of the run. It makes the first segment of a log (`log.` and a number)
/// before the command starts and may give it up later, but never for output that nobody counted.
fn is_logged(record: &Record) -> bool {
    let counted = record.end.as_ref().is_some_and(|end| end.output.last_seq > Seq(0));
    counted
        || std::fs::read_dir(&record.path).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"log."))
        })
}

/// Does `work` on a thread of its own, so that a reader of ours that stalls can't keep an interrupt from ending
/// us.
fn interruptible(work: impl FnOnce() -> Result<u8, Problem> + Send + 'static) -> Result<u8, Problem> {
    let cannot_listen = |error| Problem::new(format!("could not listen to signals: {error}"));
    let gone = || Problem::new("the thread that follows the run is gone");
    event_loop::block_on(async {
        let heeded = !sandbar_sandbox::caller::ignores(SIGINT);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
        let (done, finished) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // Nobody listens any more after an interrupt.
            let _ = done.send(work());
        });
        tokio::select! {
            result = finished => result.unwrap_or_else(|_| Err(gone())),
            Some(()) = interrupt.recv(), if heeded => Ok(exit::INTERRUPTED),
        }
    })
}

/// Follows a run that its keeper may still hold.
async fn follow(known: Known, mut screen: Screen) -> Result<u8, Problem> {
    match held(&known, Watching::Output).await {
        Ok(Some(process)) => relay(process, &mut screen).await,
        Ok(None) => show_again(&known, &mut screen),
        // It left, or took the run with it; what it wrote down is all there is.
        Err(_) if !sandbar_keeper::keeper_is_alive(&known.keeper) => show_again(&known, &mut screen),
        Err(problem) => Err(problem),
    }
}

/// The process as its keeper holds it, or `None` if it holds it no more.
async fn held(known: &Known, watching: Watching) -> Result<Option<Box<dyn Process>>, Problem> {
    let processes = keepers::connect(&known.keeper)?;
    match event_loop::answer(processes.follow(known.id(), watching)).await? {
        Ok(process) => Ok(Some(process)),
        Err(ProcessError::Refused(Refusal::Unknown { .. })) => Ok(None),
        Err(error) => Err(failed(&known.record, &error)),
    }
}

/// Whether nothing can come any more. What can't be found out is not said.
async fn is_over(known: &Known) -> Result<bool, Problem> {
    if known.record.end.is_none() || !known.keeper_alive {
        return Ok(!known.keeper_alive);
    }
    Ok(matches!(held(known, Watching::End).await, Ok(None)))
}

async fn relay(mut process: Box<dyn Process>, screen: &mut Screen) -> Result<u8, Problem> {
    let record = process.record().clone();
    screen.started(&record)?;
    loop {
        let event = process.next_event().await.map_err(|error| {
            Problem::new(format!("lost the run: {error}")).at(format!("run {}", record.id))
        })?;
        let Some(event) = event else { break };
        if screen.event(&event)? == Reader::Left || screen.flush()? == Reader::Left {
            return Ok(exit::OK);
        }
    }
    screen.finish()?;
    Ok(exit::OK)
}

/// Shows a run whose end came between two looks at it.
fn show_again(known: &Known, screen: &mut Screen) -> Result<u8, Problem> {
    let record = sandbar_keeper::read(&known.record.path);
    show(record.as_ref().unwrap_or(&known.record), screen, Rest::Over)?;
    Ok(exit::OK)
}

/// What is known of output that may still come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// None comes.
    Over,
    /// Some may.
    Unknown,
}

/// Shows what is in a log.
fn show(record: &Record, screen: &mut Screen, rest: Rest) -> Result<(), Problem> {
    let fail = |error: ReadError| failed(record, &ProcessError::Output(error));
    let mut log = LogReader::open(&record.path).map_err(fail)?;
    screen.started(&record.start)?;
    let mut end = End::of(record);
    let mut last = Seq(0);
    while let Some(item) = log.next_item().map_err(fail)? {
        let (event, first, seq) = event(item);
        if let Some(exited) = end.due(first)
            && screen.event(&exited)? == Reader::Left
        {
            return Ok(());
        }
        last = seq;
        if screen.event(&event)? == Reader::Left {
            return Ok(());
        }
    }
    let missing = record.end.as_ref().and_then(|end| {
        // Its own number is the last that the end counts.
        log.missing_until(Seq(end.output.last_seq.0.saturating_sub(1)), end.output.bytes)
    });
    let seq = last.max(end.seq.unwrap_or(last)).next();
    let closed = (rest == Rest::Over).then_some(ProcessEvent::Closed { seq });
    let remaining = [missing.map(ProcessEvent::Gap), end.event.take(), closed];
    for event in remaining.into_iter().flatten() {
        if screen.event(&event)? == Reader::Left {
            return Ok(());
        }
    }
    screen.finish()
}

/// The end of a run, and its place among the other events.
struct End {
    event: Option<ProcessEvent>,
    /// Absent where nobody saw the end come: then it stands behind everything.
    seq: Option<Seq>,
}

impl End {
    fn of(record: &Record) -> Self {
        let end = record.end.as_ref();
        let seen = end.filter(|end| end.status != ExitStatus::Lost);
        Self { event: end.cloned().map(ProcessEvent::Exited), seq: seen.map(|end| end.output.last_seq) }
    }

    /// The end, if it belongs before what begins at `next`.
    fn due(&mut self, next: Seq) -> Option<ProcessEvent> {
        self.seq.filter(|seq| *seq < next).and_then(|_| self.event.take())
    }
}

/// An item of a log as the event that it was, with the first and the last number that it has.
fn event(item: LogItem) -> (ProcessEvent, Seq, Seq) {
    match item {
        LogItem::Record(header, bytes) => {
            let event = ProcessEvent::Output {
                seq: header.seq,
                stream: header.stream,
                offset_bytes: header.offset_bytes,
                time: header.time,
                bytes,
            };
            (event, header.seq, header.seq)
        }
        LogItem::Gap(gap) => (ProcessEvent::Gap(gap), gap.from_seq, gap.to_seq),
    }
}

fn failed(record: &Record, error: &ProcessError) -> Problem {
    Problem::new(format!("could not show the output: {error}")).at(format!("run {}", record.start.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::record;

    #[test]
    fn a_run_without_log_is_told_from_one_whose_log_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut found = record(Some(ExitStatus::Exited { code: 0 }));
        found.path = directory.path().to_owned();
        assert!(!is_logged(&found));
        std::fs::write(directory.path().join("log.00000000"), "").unwrap();
        assert!(is_logged(&found));
        std::fs::remove_file(directory.path().join("log.00000000")).unwrap();
        if let Some(end) = &mut found.end {
            end.output.last_seq = Seq(9);
        }
        assert!(is_logged(&found));
    }

    #[test]
    fn the_end_stands_before_what_came_after_it() {
        let mut found = record(Some(ExitStatus::Exited { code: 0 }));
        if let Some(end) = &mut found.end {
            end.output.last_seq = Seq(3);
        }
        let mut end = End::of(&found);
        assert_eq!(end.due(Seq(2)), None);
        assert!(matches!(end.due(Seq(4)), Some(ProcessEvent::Exited(_))));
        assert_eq!(end.due(Seq(5)), None, "told once");
    }

    #[test]
    fn an_end_that_nobody_saw_stands_behind_everything() {
        let mut end = End::of(&record(Some(ExitStatus::Lost)));
        assert_eq!(end.due(Seq(1)), None);
        assert!(end.event.is_some());
    }
}
