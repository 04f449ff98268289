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

/// Longest name: no path is longer (PATH_MAX of limits.h), so git enters nothing behind one that is.
const MAX_NAME: usize = 4096;
/// Most bytes of submodules' names for each byte of the index. Version 4 writes a name by what it has more than the
/// one before, at 63 bytes an entry, so a long name could be repeated until it fills the memory.
const MAX_NAMES_PER_BYTE: usize = 4;

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
    let (mut name, mut names_bytes) = (Vec::new(), 0);
    for _ in 0..number(header, 4)? {
        let known = index.links.len();
        rest = entry(rest, hash, version, &mut name, &mut index.links)?;
        if index.links.len() > known {
            names_bytes += name.len();
        }
        if name.len() > MAX_NAME || names_bytes > MAX_NAMES_PER_BYTE * content.len() {
            return None;
        }
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
    use sandbar_testkit::{Samples, Took, fuzz};

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

    /// What an index of a test lists.
    #[derive(Debug, Clone)]
    struct Listed {
        mode: u32,
        name: Vec<u8>,
        is_extended: bool,
    }

    fn listed(mode: u32, name: &[u8]) -> Listed {
        Listed { mode, name: name.to_vec(), is_extended: false }
    }

    /// An index as gitformat-index(5) describes it, with an extension behind its entries.
    fn written(version: u32, hash: usize, entries: &[Listed], extension: &[u8]) -> Vec<u8> {
        let mut content = [b"DIRC".as_slice(), &version.to_be_bytes()].concat();
        content.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
        let mut before: &[u8] = b"";
        for entry in entries {
            let start = content.len();
            content.extend([7; MODE]);
            content.extend(entry.mode.to_be_bytes());
            content.extend(vec![7; STAT - MODE - 4 + hash]);
            let is_extended = entry.is_extended && version > 2;
            content.extend(if is_extended { EXTENDED } else { 0 }.to_be_bytes());
            content.extend(if is_extended { &[0x20, 0][..] } else { &[] });
            if version == 4 {
                let common = before.iter().zip(&entry.name).take_while(|(one, other)| one == other).count();
                content.extend(variable(before.len() - common));
                content.extend([&entry.name[common..], b"\0"].concat());
            } else {
                content.extend(&entry.name);
                let padding = 8 - (content.len() - start) % 8;
                content.extend(vec![0; padding]);
            }
            before = &entry.name;
        }
        content.extend(extension);
        content.extend(vec![9; hash]);
        content
    }

    /// A number as pack offsets are written.
    fn variable(mut value: usize) -> Vec<u8> {
        let low = |value: usize| u8::try_from(value & 0x7f).unwrap();
        let mut bytes = vec![low(value)];
        while value >= 0x80 {
            value = (value >> 7) - 1;
            bytes.insert(0, low(value) | 0x80);
        }
        bytes
    }

    fn extension(signature: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [&signature[..], &u32::try_from(data.len()).unwrap().to_be_bytes(), data].concat()
    }

    #[test]
    fn a_name_that_no_path_has_is_no_submodule() {
        let index = |length: usize| written(4, 20, &[listed(GITLINK, &b"x".repeat(length))], b"");
        assert_eq!(parse(&index(MAX_NAME), 20).map(|index| index.links.len()), Some(1));
        assert_eq!(parse(&index(MAX_NAME + 1), 20), None);
    }

    #[test]
    fn names_that_repeat_a_long_one_do_not_add_up() {
        let entries = vec![listed(GITLINK, &b"x".repeat(MAX_NAME)); 1000];
        let content = written(4, 20, &entries, b"");
        assert!(content.len() < 100_000, "version 4 writes a repeated name as two bytes");
        assert_eq!(parse(&content, 20), None);
    }

    fn any_entries() -> impl Strategy<Value = Vec<Listed>> {
        let mode = proptest::sample::select(vec![0o100_644, 0o120_000, 0o040_000, GITLINK, GITLINK | 0o777]);
        let entry = (mode, "[ab/]{1,200}", any::<bool>()).prop_map(|(mode, name, is_extended)| Listed {
            mode,
            name: name.into_bytes(),
            is_extended,
        });
        proptest::collection::vec(entry, 0..12)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            entries in any_entries(), version in 2_u32..=4, is_sha256: bool, data in proptest::collection::vec(1_u8.., 32..80),
        ) {
            let hash = HASHES[usize::from(is_sha256)];
            let behind = [extension(b"TREE", b"abc"), extension(b"link", &data)].concat();
            let found = parse(&written(version, hash, &entries, &behind), hash).unwrap();
            let gitlinks = entries.iter().filter(|entry| entry.mode & TYPE_MASK == GITLINK);
            let expected: Vec<ByteString> = gitlinks.map(|entry| entry.name.as_slice().into()).collect();
            prop_assert_eq!(found.links, expected);
            let shared = found.shared.unwrap();
            prop_assert_eq!(shared.len(), "sharedindex.".len() + 2 * hash);
        }
    }

    #[test]
    fn fuzz_an_index_takes_no_more_than_its_length_and_names_files_beside_it_only() {
        let entries = [listed(GITLINK, b"deep/er"), listed(0o100_644, b"file"), listed(GITLINK, b"lib")];
        let behind = [extension(b"TREE", b"abc"), extension(b"link", &[7; 40])].concat();
        let good: Vec<Vec<u8>> = HASHES
            .iter()
            .flat_map(|&hash| (2..=4).map(move |version| (version, hash)))
            .map(|(version, hash)| written(version, hash, &entries, &behind))
            .collect();
        let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
        let gitlink = written(4, 20, &[listed(GITLINK, b"lib")], b"");
        let again = &gitlink[HEADER..gitlink.len() - 20 - 4];
        let samples = Samples {
            whole: &good,
            words: &[
                b"DIRC",
                b"\0",
                b"\0\0\0\x04",
                b"link",
                b"TREE",
                b"\xe0\0",
                b"\x80",
                b"\0\0\0\x01",
                again,
                b"\0\0",
            ],
        };
        fuzz("git index", samples, |input| {
            let mut understood = false;
            for hash in HASHES {
                let Some(index) = parse(input, hash) else { continue };
                understood = true;
                let bytes: usize = index.links.iter().map(|link| link.as_bytes().len()).sum();
                assert!(bytes <= MAX_NAMES_PER_BYTE * input.len());
                assert!(
                    index
                        .links
                        .iter()
                        .all(|link| !link.as_bytes().is_empty() && !link.as_bytes().contains(&0))
                );
                assert!(index.shared.is_none_or(|name| name.len() == "sharedindex.".len() + 2 * hash));
            }
            Took::if_understood(understood)
        });
    }
}
