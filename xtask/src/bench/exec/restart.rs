//! E7: the server is killed while commands write, another one is started, and the session goes on.
//!
//! Each writer writes its own lines at a pace and ends with its own exit code. What came before the kill and what is read
//! behind it has to be every byte of it, once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::client::{Client, Received, command, decode_text};
use super::server::{OURS, PEER, Server};
use crate::bench::amount::{Amount, Unit};
use crate::bench::world::World;

const ID: &str = "E7";

/// How long after the last start the server is killed: about the middle of what is written.
const WRITES: Duration = Duration::from_millis(500);

/// Portions that a writer writes, with a pause behind each. Few, because each costs two forks: it is the server that is
/// measured, not how a hundred shells share the processors.
const PORTIONS: u32 = 5;

/// Lines of a portion: all portions are some 700 kB, the log of a writer holds them.
const LINES: u32 = 4000;

/// The most that the way back may take.
const BACK_MS: f64 = 100.0;

/// How much is read at once.
const READ_BYTES: u64 = 1 << 20;

/// What one writer has told so far.
#[derive(Debug)]
struct Writer {
    process: String,
    number: u32,
    output: Vec<u8>,
    /// Number of the last event that was seen.
    last: u64,
}

/// What is missing in the end.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Loss {
    bytes: usize,
    exit_codes: u32,
    back: Option<Duration>,
}

/// Measures the amounts of E7.
///
/// # Errors
/// Ours can't be started again, or does not know the session.
pub(super) fn amounts(world: &World, codex: Option<&Path>, writers: u32) -> Result<Vec<Amount>> {
    eprintln!("measuring {ID}: SIGKILL of the server under {writers} writers");
    let ours = lose(world, writers, || Server::ours(world))?;
    ensure!(ours.back.is_some(), "{OURS} does not know the session after its restart");
    let mut found = told(OURS, writers, &ours, [Some(0.0), Some(0.0), Some(BACK_MS)]);
    if let Some(codex) = codex {
        let peer = lose(world, writers, || Server::peer(world, codex))?;
        found.extend(told(PEER, writers, &peer, [None; 3]));
    }
    Ok(found)
}

fn told(name: &str, writers: u32, loss: &Loss, [bytes, codes, back]: [Option<f64>; 3]) -> Vec<Amount> {
    let amount = |what: &str, value, unit, at_most| Amount {
        id: ID,
        name: format!("{name}: {writers} writers, {what}"),
        value,
        unit,
        at_most,
    };
    #[allow(clippy::cast_precision_loss, reason = "a byte count far below 2^52")]
    let lost = loss.bytes as f64;
    let mut told = vec![
        amount("bytes lost or wrong", lost, Unit::Count, bytes),
        amount("exit codes lost or wrong", f64::from(loss.exit_codes), Unit::Count, codes),
    ];
    told.extend(
        loss.back.map(|took| amount("from SIGKILL to the session", ms(took), Unit::Milliseconds, back)),
    );
    told
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Starts writers, kills the server, starts it again and reads on.
fn lose(world: &World, writers: u32, start: impl Fn() -> Result<Server>) -> Result<Loss> {
    let mut server = start()?;
    let mut client = server.client()?;
    let start_writer = |number| {
        let (_, process) = client.send_start(&writer(number, &world.workspace))?;
        Ok(Writer { process, number, output: Vec::new(), last: 0 })
    };
    let mut all = (0..writers).map(start_writer).collect::<Result<Vec<_>>>()?;
    listen(&mut client, &mut all)?;
    let killed = server.kill()?;
    let server = start()?;
    let resumed = Client::resume(&server.url, &client.session);
    let mut loss = Loss { back: resumed.is_ok().then(|| killed.elapsed()), ..Loss::default() };
    let mut resumed = resumed.ok();
    for writer in &mut all {
        let code = resumed.as_mut().map(|client| writer.read_on(client)).transpose()?.flatten();
        loss.bytes += missing(&writer.output, &lines(writer.number));
        loss.exit_codes += u32::from(code != Some(exit_code(writer.number)));
    }
    Ok(loss)
}

/// Takes what comes, until some time after the last start was answered.
fn listen(client: &mut Client, writers: &mut [Writer]) -> Result<()> {
    let mut decoded = Vec::new();
    let mut starts = 0;
    let mut until = Instant::now() + super::ANSWER;
    while let Some(received) = client.receive(until)? {
        match received {
            Received::Output(output) => {
                let writer = writers.iter_mut().find(|writer| writer.process == output.process);
                let writer = writer.context("output of nobody")?;
                ensure!(output.seq > writer.last, "output {} behind {}", output.seq, writer.last);
                writer.output.extend(output.bytes(&mut decoded)?);
                writer.last = output.seq;
            }
            Received::Answer(..) => {
                starts += 1;
                if starts == writers.len() {
                    until = Instant::now() + WRITES;
                }
            }
            Received::Refusal(_, error) => bail!("a start was refused: {error}"),
            Received::Event(_) => {}
        }
        if Instant::now() >= until {
            return Ok(());
        }
    }
    ensure!(starts == writers.len(), "{starts} starts were answered instead of {}", writers.len());
    Ok(())
}

impl Writer {
    /// Reads behind what was seen, up to the end; the exit code.
    fn read_on(&mut self, client: &mut Client) -> Result<Option<i64>> {
        loop {
            let params = json!({
                "processId": self.process, "afterSeq": self.last, "maxBytes": READ_BYTES, "waitMs": 1000,
            });
            let read = client.call("process/read", &params)?;
            for chunk in read["chunks"].as_array().context("no chunks")? {
                self.output.extend(decode_text(chunk["chunk"].as_str().context("a chunk without data")?)?);
            }
            self.last = read["nextSeq"].as_u64().context("no next number")?.saturating_sub(1);
            if read["closed"] == true && read["chunks"].as_array().is_some_and(Vec::is_empty) {
                return Ok(read["exitCode"].as_i64());
            }
        }
    }
}

/// A start of a writer.
fn writer(number: u32, folder: &Path) -> Value {
    let script = format!(
        "p=0; while [ $p -lt {PORTIONS} ]; do seq -f 'writer {number} portion '$p' line %.0f' {LINES}; \
         sleep 0.2; p=$((p+1)); done; exit {}",
        exit_code(number)
    );
    command(&["sh", "-c", &script], folder)
}

fn exit_code(number: u32) -> i64 {
    i64::from(number % 100 + 1)
}

/// What a writer writes.
fn lines(number: u32) -> Vec<u8> {
    let portions = 0..PORTIONS;
    let lines = portions.flat_map(|portion| (1..=LINES).map(move |line| (portion, line)));
    lines
        .flat_map(|(portion, line)| format!("writer {number} portion {portion} line {line}\n").into_bytes())
        .collect()
}

/// Bytes behind the first one that is not what was written.
fn missing(output: &[u8], written: &[u8]) -> usize {
    let same = output.iter().zip(written).take_while(|(is, was)| is == was).count();
    written.len().max(output.len()) - same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_writer_writes_is_what_is_expected_of_it() {
        let start = writer(7, Path::new("/"));
        let script = start["argv"][2].as_str().unwrap().replace("sleep 0.2", ":");
        let ran = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(ran.stdout == lines(7));
        assert_eq!(ran.status.code().map(i64::from), Some(exit_code(7)));
    }

    #[test]
    fn lost_doubled_and_moved_bytes_are_missing() {
        let missing = |output: &str| missing(output.as_bytes(), b"abcd");
        assert_eq!(["abcd", "abc", "abcdd", "", "abdc"].map(missing), [0, 1, 1, 4, 2]);
    }
}
