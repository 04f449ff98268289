//! Users of passwd(5), from the file alone.
//!
//! No name service: it would load libraries into this process, which may talk to the network.

use std::io::{self, Read as _};

use rustix::io::Errno;
use sandbar_proto::FactAnswer;

use super::Failure;

const FILE: &str = "/etc/passwd";

/// Longest file that is searched: some 100,000 users.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Which user is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'name> {
    /// The one with this id.
    Uid(u32),
    /// The one with this login name.
    Name(&'name [u8]),
}

/// Returns the first entry of a user.
pub(super) fn user(by: By<'_>) -> Result<FactAnswer, Failure> {
    let text = read().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Failure::TooLong);
    }
    find(&text, by).ok_or(Failure::Missing)
}

fn read() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(FILE)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Finds the first entry of a user in the text of a passwd(5) file; lines of another form are skipped.
pub(super) fn find(text: &[u8], by: By<'_>) -> Option<FactAnswer> {
    text.split(|&byte| byte == b'\n')
        .filter_map(entry)
        .find(|entry| match by {
            By::Uid(uid) => entry.uid == uid,
            By::Name(name) => entry.name == name,
        })
        .map(|entry| FactAnswer::User { name: entry.name.into(), home: entry.home.into(), gid: entry.gid })
}

struct Entry<'text> {
    name: &'text [u8],
    uid: u32,
    gid: u32,
    home: &'text [u8],
}

/// Parses `name:password:uid:gid:comment:home:shell`.
fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.split(|&byte| byte == b':');
    // `+` and `-` are includes of the network's users (nsswitch.conf(5), mode compat), `#` some systems' comment.
    let name = fields.next().filter(|name| !matches!(name.first(), None | Some(b'+' | b'-' | b'#')))?;
    let _password = fields.next()?;
    let uid = number(fields.next()?)?;
    let gid = number(fields.next()?)?;
    let _comment = fields.next()?;
    let home = fields.next()?;
    Some(Entry { name, uid, gid, home })
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
