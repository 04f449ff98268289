//! The helper's side of the lines.

use std::collections::HashMap;
use std::io::{self, Write};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use sandbar_proto::exec::{WalkParams, method};
use serde_json::value::RawValue;

use super::codec::{CLOSE_CONNECTION, Incoming, MAX_LINE_BYTES, done, failed, missing_changed};
use super::lines::Lines;
use super::pieces::{self, Failure};
use crate::methods::{Part, decided, decode, from_json, part_for, path_params, read_file_params};
use crate::methods::{to_json, unknown_method, write_file_params};
use crate::read::retry;
use crate::{ErrorKind, FileError, Files, Handles, Replacement, Surroundings, Watch, WatchKey, Watches};

/// The argument of this program that makes it a files helper.
pub const HELPER_ARGUMENT: &str = "--sandbar-run-as-files-helper";

/// Most contents on their way at a time; one more is refused. Each holds a descriptor.
const MAX_UPLOADS: usize = 64;

/// Most connections that have something open; one more is refused. Each may hold 128 descriptors, and a process has
/// 1024 by default: whoever has more connections than that starts more helpers.
const MAX_CONNECTIONS: usize = 64;

/// What is read at a time: all that a pipe holds (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// Runs as the helper over standard input and output, and returns the exit status.
///
/// Before anything else it makes itself undumpable, so that nothing in the sandbox that has our uid reads its memory.
#[must_use]
pub fn helper_main() -> i32 {
    let undumpable = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    if undumpable.is_err() {
        return 1;
    }
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned() else { return 1 };
    match serve(io::stdin(), std::fs::File::from(output), Surroundings::Sandbox) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// Answers requests until the input ends.
///
/// # Errors
/// The input can't be read or the output can't be written, which mostly means that the caller is gone.
pub fn serve(input: impl AsFd, output: impl Write, surroundings: Surroundings) -> io::Result<()> {
    let mut helper = Helper {
        output,
        surroundings,
        files: Files::new(surroundings),
        handles: HashMap::new(),
        uploads: HashMap::new(),
        watches: Watches::new(surroundings),
    };
    let mut lines = Lines::new(MAX_LINE_BYTES);
    loop {
        while let Some(line) = lines.next() {
            match line {
                Ok(line) => helper.take(line)?,
                Err(_) => helper.misunderstood(&format!("a line is longer than {MAX_LINE_BYTES} bytes"))?,
            }
        }
        helper.output.flush()?;
        if wait(input.as_fd(), helper.watches.fd())? {
            helper.tell_news()?;
            continue;
        }
        let buffer = lines.buffer();
        buffer.reserve(READ_BYTES);
        match rustix::io::read(&input, spare_capacity(buffer)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits, without end, for requests or news; says whether there is news.
fn wait(input: BorrowedFd<'_>, news: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    // A read that waits by itself is one system call less for each request.
    let Some(news) = news else { return Ok(false) };
    let mut fds = [PollFd::new(&input, PollFlags::IN), PollFd::new(&news, PollFlags::IN)];
    retry(|| poll(&mut fds, None))?;
    Ok(!fds[1].revents().is_empty())
}

struct Helper<W> {
    output: W,
    surroundings: Surroundings,
    files: Files,
    /// By connection.
    handles: HashMap<u64, Handles>,
    /// By request.
    uploads: HashMap<u64, Upload>,
    watches: Watches,
}

/// Content of `fs/writeFile` on its way.
struct Upload {
    connection: u64,
    replacement: Replacement,
}

impl<W: Write> Helper<W> {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        let message: Incoming<'_> = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => return self.misunderstood(&format!("a line is no request: {error}")),
        };
        let Incoming { id, connection, method, params, part, more } = message;
        let carried_out = match (method, part) {
            (Some(method), None) => {
                let params = params.map_or_else(|| to_json(&()), |params| Ok(params.to_owned()));
                params
                    .map_err(Failure::from)
                    .and_then(|params| self.call(id, connection, &method, &params, more))
            }
            (None, Some(part)) if params.is_none() => self.go_on(id, &part.data_base64, more),
            _ => return self.misunderstood("a line is neither request nor piece"),
        };
        match carried_out {
            Ok(()) => Ok(()),
            Err(Failure::Method(error)) => {
                self.output.write_all(&failed(Some(id), &error.within(self.surroundings)))
            }
            Err(Failure::Output(error)) => Err(error),
        }
    }

    fn misunderstood(&mut self, why: &str) -> io::Result<()> {
        self.output.write_all(&failed(None, &FileError::new(ErrorKind::InvalidInput, None, why)))
    }

    fn call(
        &mut self,
        id: u64,
        connection: u64,
        name: &str,
        params: &RawValue,
        more: bool,
    ) -> Result<(), Failure> {
        if more && name != method::FS_WRITE_FILE {
            let message = format!("`{name}` takes no content in pieces");
            return Err(FileError::new(ErrorKind::InvalidInput, None, message).into());
        }
        match name {
            method::FS_READ_FILE => {
                let (path, links) = read_file_params(params)?;
                pieces::content(&mut self.output, id, self.files.open_file(&path, links)?)
            }
            method::FS_READ_DIRECTORY => {
                let (path, links) = path_params(params)?;
                let listing = self.files.read_directory(&path, links)?;
                Ok(pieces::entries(&mut self.output, id, &listing)?)
            }
            method::FS_WALK => {
                let WalkParams { path, options, sandbox, sandbox_policy } = from_json(params)?;
                decided(&sandbox, &sandbox_policy)?;
                let walked = self.files.walk(&path.0, &options)?;
                Ok(pieces::walked(&mut self.output, id, &walked)?)
            }
            method::FS_WRITE_FILE if more => self.begin(id, connection, params),
            method::FS_WATCH_MISSING => {
                let (result, key, watch) = self.watches.call(connection, name, params)?;
                self.output.write_all(&done(id, &result))?;
                if watch == Watch::Changed {
                    Ok(self.output.write_all(&missing_changed(key))?)
                } else {
                    Ok(())
                }
            }
            CLOSE_CONNECTION => {
                self.handles.remove(&connection);
                self.uploads.retain(|_, upload| upload.connection != connection);
                self.watches.forget(connection);
                Ok(self.output.write_all(&done(id, &to_json(&serde_json::Map::new())?))?)
            }
            _ => {
                let result = match part_for(name) {
                    Some(Part::Files) => self.files.call(name, params)?,
                    Some(Part::Handles) => self.handles(connection)?.call(name, params)?,
                    Some(Part::Watches) | None => return Err(unknown_method(name).into()),
                };
                Ok(self.output.write_all(&done(id, &result))?)
            }
        }
    }

    /// The handles of a connection.
    fn handles(&mut self, connection: u64) -> Result<&mut Handles, FileError> {
        if !self.handles.contains_key(&connection) && self.handles.len() >= MAX_CONNECTIONS {
            // Those of connections that closed their handles one by one.
            self.handles.retain(|_, handles| !handles.is_empty());
            if self.handles.len() >= MAX_CONNECTIONS {
                let message = format!("at most {MAX_CONNECTIONS} connections have handles at a time");
                return Err(FileError::new(ErrorKind::TooMany, None, message));
            }
        }
        let surroundings = self.surroundings;
        Ok(self.handles.entry(connection).or_insert_with(|| Handles::new(surroundings)))
    }

    /// Takes the beginning of content that comes in pieces.
    fn begin(&mut self, id: u64, connection: u64, params: &RawValue) -> Result<(), Failure> {
        if self.uploads.contains_key(&id) {
            let message = format!("content of request {id} is on its way already");
            return Err(FileError::new(ErrorKind::NameInUse, None, message).into());
        }
        if self.uploads.len() >= MAX_UPLOADS {
            let message = format!("at most {MAX_UPLOADS} contents are on their way at a time");
            return Err(FileError::new(ErrorKind::TooMany, None, message).into());
        }
        let (path, options, content) = write_file_params(params)?;
        let mut replacement = self.files.replace_file(&path, options)?;
        replacement.write(&content)?;
        self.uploads.insert(id, Upload { connection, replacement });
        Ok(())
    }

    /// Takes a further piece. Those of a request that has failed are on their way still when its answer comes.
    fn go_on(&mut self, id: u64, data_base64: &str, more: bool) -> Result<(), Failure> {
        let Some(mut upload) = self.uploads.remove(&id) else { return Ok(()) };
        upload.replacement.write(&decode(data_base64)?)?;
        if more {
            self.uploads.insert(id, upload);
            return Ok(());
        }
        let hash = upload.replacement.commit()?;
        let written = to_json(&sandbar_proto::exec::Written { hash })?;
        Ok(self.output.write_all(&done(id, &written))?)
    }

    fn tell_news(&mut self) -> io::Result<()> {
        let changed: Vec<WatchKey> = match self.watches.changed() {
            Ok(changed) => changed,
            Err(error) => return Err(io::Error::other(error)),
        };
        for key in changed {
            self.output.write_all(&missing_changed(key))?;
        }
        Ok(())
    }
}
