//! Takes page faults ahead of time, and gives back what was taken.
//!
//! A fork leaves every page to be copied at the next write, by parent and child, and a child without the pages of
//! the program's file. Each costs about as much as a system call, and a start takes a hundred of them. A keeper and
//! its spare have nothing to do behind the fork, so they take them then. A keeper that waits for nothing gives the
//! pages of its program back, which are most of what it has: they stay in the page cache as long as there is room.

use std::ffi::c_void;

use rustix::mm::Advice;

/// Most bytes of one mapping that are taken ahead; what lies beyond is not touched in every start.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Has this process' memory at hand. Only makes things faster, so what fails is left as it is.
pub(super) fn populate() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for mapping in maps.lines().filter_map(Mapping::parse) {
        let advice = if mapping.is_writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
        let length = (mapping.end - mapping.start).min(MAX_BYTES);
        // SAFETY: populating faults pages in as an access would and changes no content (madvise(2)); a range that
        // is not mapped any more is an error.
        let _ = unsafe { rustix::mm::madvise(start, length, advice) };
    }
}

/// Gives back the pages of this process' program. They come again one by one as it runs.
pub(super) fn release() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for mapping in maps.lines().filter_map(Mapping::parse).filter(|mapping| mapping.is_program) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
        // SAFETY: the mapping is private, of a file, and can't be written, so what it has is what the file has, and an
        // access brings it again (madvise(2)). Relocations are in other mappings: those that were writable once.
        let _ = unsafe { rustix::mm::madvise(start, mapping.end - mapping.start, Advice::LinuxDontNeed) };
    }
}

/// A private mapping of this process that may be read.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    is_writable: bool,
    /// Instructions from a file.
    is_program: bool,
}

impl Mapping {
    /// Parses a line of proc_pid_maps(5).
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.as_bytes();
        let [b'r', write, execute, b'p'] = permissions else { return None };
        let number = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        // Offset, device and inode come before the name of the file.
        let is_file = fields.nth(3).is_some_and(|name| name.starts_with('/'));
        let is_writable = *write == b'w';
        let is_program = is_file && !is_writable && *execute == b'x';
        (start < end).then_some(Self { start, end, is_writable, is_program })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn private_mappings_are_found() {
        let table = [
            ("7f00-8f00 rw-p 00000000 00:00 0   [heap]", Some((0x7f00, 0x8f00, true, false))),
            ("1000-2000 r-xp 00000000 fe:00 1 /bin/x", Some((0x1000, 0x2000, false, true))),
            ("1000-2000 r--p 00000000 fe:00 1 /bin/x", Some((0x1000, 0x2000, false, false))),
            ("1000-2000 rwxp 00000000 fe:00 1 /bin/x", Some((0x1000, 0x2000, true, false))),
            ("1000-2000 r-xp 00000000 00:00 0 [vdso]", Some((0x1000, 0x2000, false, false))),
            ("1000-2000 r-xp 00000000 00:00 0", Some((0x1000, 0x2000, false, false))),
            ("1000-2000 rw-s 00000000 00:01 2 /memfd:x", None),
            ("1000-2000 ---p 00000000 00:00 0", None),
            ("nonsense", None),
        ];
        for (line, expected) in table {
            let expected = expected.map(|(start, end, is_writable, is_program)| Mapping {
                start,
                end,
                is_writable,
                is_program,
            });
            assert_eq!(Mapping::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn fuzz_a_mapping_is_private_and_readable() {
        let samples = Samples {
            whole: &[b"7f00-8f00 rw-p 00000000 00:00 0   [heap]", b"1000-2000 r-xp 00000000 fe:00 1 /bin/x"],
            words: &[b"-", b" ", b"rw-p", b"r--p", b"r--s", b"ffffffffffffffff", b"0", b"\n", b"+"],
        };
        fuzz("process maps", samples, |input| {
            let text = String::from_utf8_lossy(input);
            let found = Mapping::parse(&text);
            if let Some(mapping) = &found {
                assert!(mapping.start < mapping.end);
                assert!(text.contains(if mapping.is_writable { "rw" } else { "r" }));
            }
            Took::if_understood(found.is_some())
        });
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut lines =
                maps.lines().skip_while(|line| !Mapping::parse(line).is_some_and(|found| found.is_program));
            let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        populate();
        let before = resident();
        release();
        let after = resident();
        assert!(after < before, "{before} KiB, then {after}: what runs came again, the rest did not");
    }

    #[test]
    fn populating_changes_nothing() {
        let before = vec![7_u8; 100_000];
        populate();
        assert_eq!(before, vec![7; 100_000]);
    }
}
