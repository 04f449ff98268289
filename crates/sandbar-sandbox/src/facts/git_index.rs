//! The submodules of a git index, gitformat-index(5): versions 2 to 4, SHA-1 and SHA-256, split indexes.
//!
//! The file was perhaps written by a command, so nothing in it is believed: an index is parsed to its last byte
//! or not at all, and takes time and memory in proportion to its length, which is bounded.

use std::io::Read as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, ByteString, FactQuery, GitLinks};

use super::Failure;

/// `DIRC`, version, number of entries.
const HEADER: usize = 12;
/// Bytes of an entry before its hash: times, device, inode, mode, owner, size.
const STAT: usize = 40;
/// Where in them the mode is.
const MODE: usize = 24;
/// The mode's bits for the type, and what they are for a submodule.
const TYPE_MASK: u32 = 0o170_000;
const GITLINK: u32 = 0o160_000;
/// Directory (of a sparse index), file, symbolic link, submodule.
const TYPES: [u32; 4] = [0o040_000, 0o100_000, 0o120_000, GITLINK];
/// Flag of an entry with two more bytes of flags, from version 3 on.
const EXTENDED: u16 = 0x4000;
/// Bytes of a hash: SHA-1 and SHA-256. The index itself does not say which.
const HASHES: [usize; 2] = [20, 32];

/// Returns the submodules in the index at `path`.
pub(super) fn links(path: &AbsPath) -> Result<GitLinks, Failure> {
    let content = read(path)?;
    let malformed = Failure::Errno(Errno::INVAL);
    let mut index = HASHES.iter().find_map(|&hash| parse(&content, hash)).ok_or(malformed)?;
    if let Some(name) = index.shared.take() {
        let shared = path.parent().and_then(|parent| parent.join(name).ok()).ok_or(malformed)?;
        let content = read(&shared)?;
        let below = HASHES.iter().find_map(|&hash| parse(&content, hash)).ok_or(malformed)?;
        index.links.extend(below.links);
    }
    Ok(GitLinks { paths: index.links })
}

fn read(path: &AbsPath) -> Result<Vec<u8>, Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path.as_bytes(), flags, Mode::empty())?);
    let failed = |error: std::io::Error| Failure::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::Errno(Errno::INVAL));
    }
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if size > FactQuery::MAX_INDEX_BYTES {
        return Err(Failure::TooLong);
    }
    let mut content = Vec::with_capacity(size + 1);
    let limit = FactQuery::MAX_INDEX_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut content).map_err(failed)?;
    if content.len() > FactQuery::MAX_INDEX_BYTES {
        return Err(Failure::TooLong);
    }
    Ok(content)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    links: Vec<ByteString>,
    /// Name of the file with the rest of a split index.
    shared: Option<String>,
}

/// Parses a whole index whose hashes have `hash` bytes.
fn parse(content: &[u8], hash: usize) -> Option<Index> {
    let (header, rest) = content.split_at_checked(HEADER)?;
    let (signature, header) = header.split_at(4);
    let version = number(header, 0)?;
    if signature != b"DIRC" || !(2..=4).contains(&version) {
        return None;
    }
    let mut index = Index::default();
    let mut rest = rest;
    let mut name: Vec<u8> = Vec::new();
    for _ in 0..number(header, 4)? {
        rest = entry(rest, hash, version, &mut name, &mut index.links)?;
    }
    while rest.len() > hash {
        let (signature, after) = rest.split_at_checked(4)?;
        let (data, after) = after.get(4..)?.split_at_checked(usize::try_from(number(after, 0)?).ok()?)?;
        if signature == b"link" {
            let base = data.get(..hash)?;
            // All zero: nothing is shared yet.
            if base.iter().any(|&byte| byte != 0) {
                let hex: String = base.iter().map(|byte| format!("{byte:02x}")).collect();
                index.shared = Some(format!("sharedindex.{hex}"));
            }
        }
        rest = after;
    }
    (rest.len() == hash).then_some(index)
}

/// Parses one entry, whose name goes into `name`, and returns what follows it.
fn entry<'a>(
    content: &'a [u8],
    hash: usize,
    version: u32,
    name: &mut Vec<u8>,
    links: &mut Vec<ByteString>,
) -> Option<&'a [u8]> {
    let mode = number(content, MODE)?;
    if !TYPES.contains(&(mode & TYPE_MASK)) {
        return None;
    }
    let flags = content.get(STAT + hash..STAT + hash + 2)?;
    let is_extended = u16::from_be_bytes([flags[0], flags[1]]) & EXTENDED != 0;
    let fixed = STAT + hash + if is_extended && version >= 3 { 4 } else { 2 };
    let after = content.get(fixed..)?;
    let end = if version == 4 {
        let (strip, suffix) = variable_number(after)?;
        name.truncate(name.len().checked_sub(strip)?);
        let length = suffix.iter().position(|&byte| byte == 0)?;
        name.extend(&suffix[..length]);
        content.len() - suffix.len() + length + 1
    } else {
        let length = after.iter().position(|&byte| byte == 0)?;
        name.clear();
        name.extend(&after[..length]);
        // One to eight NULs, up to a multiple of eight.
        (fixed + length + 8) & !7
    };
    if mode & TYPE_MASK == GITLINK && !name.is_empty() {
        links.push(ByteString::from(name.as_slice()));
    }
    content.get(end..)
}

fn number(content: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = content.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// Reads a number of seven bits a byte, each but the last one more than it says (as in pack offsets).
fn variable_number(content: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: usize = 0;
    for (index, &byte) in content.iter().enumerate().take(9) {
        value = (value << 7) | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &content[index + 1..]));
        }
        value += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A repository by the real git with the submodules `lib` and `deep/er`, and a file.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new(format: &str) -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            made.git(&["init", "-q", "--object-format", format]);
            std::fs::write(made.0.path().join("file"), "x").unwrap();
            made.git(&["add", "file"]);
            let id = made.git(&["hash-object", "file"]);
            for name in ["lib", "deep/er"] {
                let link = format!("160000,{},{name}", id.trim());
                made.git(&["update-index", "--add", "--cacheinfo", &link]);
            }
            made
        }

        fn git(&self, arguments: &[&str]) -> String {
            let out = Command::new("git").current_dir(self.0.path()).args(arguments).output().unwrap();
            assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        }

        fn index(&self) -> AbsPath {
            let real = std::fs::canonicalize(self.0.path()).unwrap();
            AbsPath::new(real.join(".git/index").into_os_string()).unwrap()
        }

        fn links(&self) -> Result<Vec<String>, Failure> {
            let mut paths: Vec<String> =
                links(&self.index())?.paths.iter().map(ByteString::to_display).collect();
            paths.sort();
            Ok(paths)
        }
    }

    #[test]
    fn every_kind_of_index_that_git_writes_is_read() {
        let kinds: [&[&str]; 6] = [
            &["update-index", "--index-version", "2"],
            &["update-index", "--index-version", "4"],
            &["update-index", "--index-version", "2", "--skip-worktree", "file"],
            &["update-index", "--untracked-cache"],
            &["update-index", "--split-index"],
            &["update-index", "--no-split-index"],
        ];
        for format in ["sha1", "sha256"] {
            let repository = Repository::new(format);
            for kind in kinds {
                repository.git(kind);
                assert_eq!(repository.links().unwrap(), ["deep/er", "lib"], "{format} {kind:?}");
            }
        }
    }

    #[test]
    fn what_is_removed_from_a_split_index_is_listed_until_git_shares_anew() {
        let repository = Repository::new("sha1");
        repository.git(&["update-index", "--split-index"]);
        repository.git(&["update-index", "--force-remove", "lib"]);
        assert_eq!(repository.links().unwrap(), ["deep/er", "lib"], "one too many is protected");
    }

    #[test]
    fn what_is_no_index_fails() {
        let repository = Repository::new("sha1");
        let index = repository.index();
        let good = std::fs::read(index.as_path()).unwrap();
        for length in [0, 11, 12, 80, good.len() - 1] {
            std::fs::write(index.as_path(), &good[..length]).unwrap();
            assert_eq!(repository.links(), Err(Failure::Errno(Errno::INVAL)), "{length} bytes");
        }
        std::fs::remove_file(index.as_path()).unwrap();
        assert_eq!(repository.links(), Err(Failure::Missing));
        std::fs::create_dir(index.as_path()).unwrap();
        assert_eq!(repository.links(), Err(Failure::Errno(Errno::INVAL)));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..400, byte: u8, version in 2_u32..=4) {
            let mut content = b"DIRC".to_vec();
            content.extend(version.to_be_bytes());
            content.extend(2_u32.to_be_bytes());
            content.extend([0; 24]);
            content.extend(GITLINK.to_be_bytes());
            content.extend([7; 400]);
            content[at] = byte;
            for hash in HASHES {
                parse(&content, hash);
            }
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            for hash in HASHES {
                parse(&noise, hash);
                parse(&[b"DIRC\0\0\0\x04\0\0\0\x09", noise.as_slice()].concat(), hash);
            }
        }
    }
}
