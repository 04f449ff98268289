//! Bytes into lines, with a bound.

use std::io::BufRead as _;

/// Takes bytes as they come and gives whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no line ends.
    searched: usize,
    /// The rest of the current line is thrown away.
    is_skipping: bool,
    max_bytes: usize,
}

/// The line is longer than the bound; it was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, is_skipping: false, max_bytes }
    }

    /// Where the next bytes go; what is before the first line is gone.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        &mut self.buffer
    }

    /// The next line without its end; none before more bytes come.
    pub(super) fn next(&mut self) -> Option<Result<&[u8], TooLong>> {
        let mut rest = &self.buffer[self.searched..];
        // Of a slice, which cannot fail.
        let passed = rest.skip_until(b'\n').unwrap_or(0);
        let end = self.searched + passed;
        self.searched = end;
        let is_whole = passed > 0 && self.buffer[end - 1] == b'\n';
        let start = self.start;
        if !is_whole {
            if end - start > self.max_bytes {
                self.start = end;
                if !std::mem::replace(&mut self.is_skipping, true) {
                    return Some(Err(TooLong));
                }
            }
            return None;
        }
        self.start = end;
        if std::mem::take(&mut self.is_skipping) {
            return self.next();
        }
        if end - 1 - start > self.max_bytes {
            return Some(Err(TooLong));
        }
        Some(Ok(&self.buffer[start..end - 1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(max_bytes: usize, pieces: &[&[u8]]) -> Vec<Result<String, TooLong>> {
        let mut lines = Lines::new(max_bytes);
        let mut found = Vec::new();
        for piece in pieces {
            lines.buffer().extend_from_slice(piece);
            while let Some(line) = lines.next() {
                found.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            }
        }
        found
    }

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(lines(9, &[b"one\ntwo\n\nthr", b"ee\nrest"]), [ok("one"), ok("two"), ok(""), ok("three")]);
    }

    #[test]
    fn a_line_above_the_bound_is_told_once_and_the_next_one_is_good() {
        let ok = |text: &str| Ok(text.to_owned());
        for pieces in [&[b"12345\n1234\nx\n".as_slice()][..], &[b"123", b"45", b"678", b"9\n1234\n", b"x\n"]]
        {
            assert_eq!(lines(4, pieces), [Err(TooLong), ok("1234"), ok("x")], "{pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in "[a\n]{0,60}", cuts in prop::collection::vec(0..60_usize, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|&cut| {
                let piece = &text.as_bytes()[from..cut];
                from = cut;
                piece
            }).collect();
            let expected: Vec<_> = text.rsplit_once('\n').map(|(whole, _)| whole.split('\n')
                .map(|line| if line.len() > 7 { Err(TooLong) } else { Ok(line.to_owned()) }).collect()).unwrap_or_default();
            let mut found = lines(7, &pieces);
            // What is too long may be told before its end comes.
            if found.len() > expected.len() {
                prop_assert_eq!(found.pop(), Some(Err(TooLong)));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
