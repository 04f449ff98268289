//! E4: a large file, read and written through a server, every byte compared.
//!
//! Whole means in one message, which carries any size to the client and 16 MiB to the server; in blocks means one after
//! another, each answered before the next.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::client::{Client, decode, encode, text_of, url};
use super::server::{OURS, PEER};
use super::{Servers, pattern, sorted};
use crate::bench::race::{Contender, Pace, race};
use crate::bench::row::{Role, Row, Target};
use crate::bench::world::World;

const BYTES: usize = 50_000_000;

/// The largest that fits into one message to a server, base64 and all.
const MESSAGE_BYTES: usize = 12_000_000;

/// The largest block of the dialect.
const BLOCK_BYTES: usize = 1 << 20;

const ROUNDS: u32 = 10;

/// The peer takes at least so many times as long.
const TARGET: Target = Target::slower(PEER, 5.0);

const READ: &str = "read(2)";
const WRITE: &str = "write(2)";

/// Measures the rows of E4.
///
/// # Errors
/// A file comes other than it is.
pub(super) fn rows(world: &World, servers: &Servers, runs: u32) -> Result<Vec<Row>> {
    let rounds = runs.min(ROUNDS);
    eprintln!("measuring E4: a file of {} MB, {rounds} rounds each", BYTES / 1_000_000);
    let content = pattern(BYTES);
    let file = world.workspace.join("large");
    std::fs::write(&file, &content)?;
    let target = |name: &str| world.workspace.join(name.replace(' ', "-"));
    let (file, content) = (&file, content.as_slice());
    let part = &content[..MESSAGE_BYTES];

    let floor = |name, work: fn(&Path, &[u8]) -> Result<Duration>, path: PathBuf, bytes| Contender {
        name: String::from(name),
        work: Box::new(move || work(&path, bytes)),
    };
    let race_of = |name, bytes: usize, floor, work: Work| -> Result<Row> {
        let mut contenders = vec![work.contender(OURS, servers.ours.client()?, target(OURS)), floor];
        if let Some(peer) = &servers.peer {
            contenders.push(work.contender(PEER, peer.client()?, target(PEER)));
        }
        let times = race(contenders, rounds, Pace::EveryRound)?;
        let (ours, others) = sorted(times, &[Role::Floor, Role::Peer])?;
        Ok(Row { id: "E4", name, ours, others, targets: vec![TARGET], bytes: Some(bytes as u64) })
    };
    let read = || floor(READ, read_file, file.clone(), content);
    let write = |bytes| floor(WRITE, write_file, target(WRITE), bytes);
    let rows = vec![
        race_of("read 50 MB, whole", BYTES, read(), Work { how: read_whole, file, content })?,
        race_of("read 50 MB, in blocks", BYTES, read(), Work { how: read_blocks, file, content })?,
        race_of("write 50 MB, in blocks", BYTES, write(content), Work { how: write_blocks, file, content })?,
        race_of(
            "write 12 MB, whole",
            MESSAGE_BYTES,
            write(part),
            Work { how: write_whole, file, content: part },
        )?,
    ];
    Ok(rows)
}

/// What is done with a file: the source and the content, and where what is written goes.
#[derive(Clone, Copy)]
struct Work<'a> {
    how: fn(&mut Client, &Path, &Path, &[u8]) -> Result<Duration>,
    file: &'a Path,
    content: &'a [u8],
}

impl<'a> Work<'a> {
    fn contender(self, name: &str, mut client: Client, target: PathBuf) -> Contender<'a> {
        let work = move || (self.how)(&mut client, self.file, &target, self.content);
        Contender { name: name.to_owned(), work: Box::new(work) }
    }
}

fn read_whole(client: &mut Client, file: &Path, _: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    let id = client.send("fs/readFile", &json!({"path": url(file)}))?;
    let same = client.answer(id, |result| {
        let text = text_of(result, "dataBase64").context("no data")?;
        Ok(decode(text, &mut Vec::new())? == content)
    })?;
    ensure!(same, "what was read is not what is there");
    Ok(started.elapsed())
}

fn read_blocks(client: &mut Client, file: &Path, _: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    client.call("fs/open", &json!({"handleId": "r", "path": url(file), "mode": "read"}))?;
    let mut decoded = Vec::new();
    let mut read = 0;
    while read < content.len() {
        let params = json!({"handleId": "r", "offset": read, "len": BLOCK_BYTES});
        let id = client.send("fs/readBlock", &params)?;
        read += client.answer(id, |result| {
            let block = decode(text_of(result, "chunk").context("no data")?, &mut decoded)?;
            ensure!(!block.is_empty(), "the file ends behind {read} bytes");
            ensure!(content.get(read..read + block.len()) == Some(block), "a block is not what is there");
            Ok(block.len())
        })?;
    }
    client.call("fs/close", &json!({"handleId": "r"}))?;
    Ok(started.elapsed())
}

fn write_blocks(client: &mut Client, _: &Path, target: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    client.call("fs/open", &json!({"handleId": "w", "path": url(target), "mode": "replace"}))?;
    for (number, block) in content.chunks(BLOCK_BYTES).enumerate() {
        let (offset, chunk) = (number * BLOCK_BYTES, encode(block));
        let params = format!(r#"{{"handleId":"w","offset":{offset},"chunk":"{chunk}"}}"#);
        let id = client.send_raw("fs/writeBlock", &params)?;
        client.answer(id, |_| Ok(()))?;
    }
    client.call("fs/close", &json!({"handleId": "w"}))?;
    written(target, content, started)
}

fn write_whole(client: &mut Client, _: &Path, target: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    let data = encode(content);
    let params = format!(r#"{{"path":{},"dataBase64":"{data}"}}"#, json!(url(target)));
    let id = client.send_raw("fs/writeFile", &params)?;
    client.answer(id, |_| Ok(()))?;
    written(target, content, started)
}

/// The time since `started`, once a file is what it should be.
fn written(target: &Path, content: &[u8], started: Instant) -> Result<Duration> {
    let took = started.elapsed();
    ensure!(std::fs::read(target)? == content, "what was written is not what is there");
    Ok(took)
}

fn read_file(file: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    ensure!(std::fs::read(file)? == content, "what was read is not what is there");
    Ok(started.elapsed())
}

fn write_file(file: &Path, content: &[u8]) -> Result<Duration> {
    let started = Instant::now();
    std::fs::write(file, content)?;
    Ok(started.elapsed())
}
