//! Text that a command or a model wrote, made safe to show on a terminal.
//!
//! Control characters, escape sequences, bidirectional overrides and bytes that are no UTF-8 become visible
//! escapes; nothing else changes. Raw bytes go out only where somebody asked for them.

/// Which control characters keep their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// None: the text is to stay on its line.
    OneLine,
    /// Line feeds and tabs.
    Lines,
}

/// `bytes` with everything escaped that could do more than be read.
pub(crate) fn escape(bytes: &[u8], layout: Layout) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut text, character, layout);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn push(text: &mut String, character: char, layout: Layout) {
    match character {
        '\n' | '\t' if layout == Layout::Lines => text.push(character),
        _ if character.is_control() || is_invisible(character) => text.extend(character.escape_default()),
        _ => text.push(character),
    }
}

/// Characters that reorder or hide text around them (Unicode Bidi_Control and default ignorables).
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes text that comes in pieces, where a piece may end within a character.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// The beginning of a character whose end has not come yet.
    pending: Vec<u8>,
}

impl Joiner {
    /// The next piece, escaped. The beginning of a character at its end waits for the next one.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - unfinished_bytes(&self.pending);
        let text = escape(&self.pending[..whole], Layout::Lines);
        self.pending.drain(..whole);
        text
    }

    /// What still waits: its end does not come any more.
    pub(crate) fn finish(&mut self) -> String {
        escape(&std::mem::take(&mut self.pending), Layout::Lines)
    }
}

/// How many bytes at the end of `bytes` begin a character that more bytes could complete; at most three.
fn unfinished_bytes(bytes: &[u8]) -> usize {
    const LONGEST: usize = 3;
    (1..=LONGEST.min(bytes.len()))
        .find(|&count| {
            let tail = &bytes[bytes.len() - count..];
            std::str::from_utf8(tail)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

/// A command as a person would type it: arguments quoted where they need it, everything escaped.
pub(crate) fn command(argv: &[sandbar_proto::ByteString]) -> String {
    let words: Vec<String> =
        argv.iter().map(|argument| quote(&escape(argument.as_bytes(), Layout::OneLine))).collect();
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./=:,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A word that a shell reads as exactly `bytes`. What is not to be shown as it is stands in `$'…'`, which bash, zsh and
/// POSIX.1-2024 know.
pub(crate) fn shell_word(bytes: &[u8]) -> String {
    let shown = escape(bytes, Layout::OneLine);
    if shown.as_bytes() == bytes {
        return quote(&shown);
    }
    let mut word = String::from("$'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => word.extend(['\\', char::from(byte)]),
            b' '..=b'~' => word.push(char::from(byte)),
            // Always three octal digits: `\x` takes as many as follow in some shells.
            _ => word.push_str(&format!("\\{byte:03o}")),
        }
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_becomes_visible() {
        let cases: [(&[u8], &str); 5] = [
            (b"plain \xc3\xbc", "plain ü"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"a\xffb", "a\\xffb"),
            ("x\u{202e}y".as_bytes(), "x\\u{202e}y"),
            (b"one\ntwo", "one\\ntwo"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escape(bytes, Layout::OneLine), expected);
        }
        assert_eq!(escape(b"one\ntwo\r", Layout::Lines), "one\ntwo\\r");
    }

    #[test]
    fn a_character_that_is_cut_between_two_pieces_is_joined() {
        let text = "aü€😀z".as_bytes();
        for cut in 0..=text.len() {
            let mut joiner = Joiner::default();
            let joined = joiner.push(&text[..cut]) + &joiner.push(&text[cut..]);
            assert_eq!((joined.as_str(), joiner.finish().as_str()), ("aü€😀z", ""), "cut at {cut}");
        }
    }

    #[test]
    fn only_what_could_become_a_character_waits() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.push(b"a\xff"), "a\\xff");
        assert_eq!(joiner.push(b"b\xe2\x82"), "b");
        assert_eq!(joiner.push(b"c"), "\\xe2\\x82c");
        assert_eq!(joiner.push(b"\xf0\x9f"), "");
        assert_eq!(joiner.finish(), "\\xf0\\x9f");
        assert_eq!(joiner.finish(), "");
    }

    #[test]
    fn fuzz_nothing_that_is_shown_drives_a_terminal() {
        use sandbar_testkit::{Samples, Took, fuzz};
        let samples = Samples {
            whole: &[
                b"plain \xc3\xbc",
                b"\x1b[2J\x1b]0;t\x07",
                "a\u{202e}b\u{200b}\u{e0041}c".as_bytes(),
                b"one\ntwo\r\n\t",
            ],
            words: &[
                b"\x1b[",
                b"\x9b",
                b"\xc2\x9b",
                b"\xe2\x80\xae",
                b"\xf0\x9f\x98\x80",
                b"\xed\xa0\x80",
                b"\xf4\x90\x80\x80",
                b"\xe2",
                b"\x80",
                b"\n",
                b"\t",
                b"\r",
                b"\0",
                b"'",
                b" ",
                b"\x7f",
            ],
        };
        fuzz("text for a terminal", samples, |input| {
            let is_harmless = |character: char| !character.is_control() && !is_invisible(character);
            let line = escape(input, Layout::OneLine);
            assert!(line.chars().all(is_harmless));
            let text = escape(input, Layout::Lines);
            assert!(text.chars().all(|character| is_harmless(character) || matches!(character, '\n' | '\t')));
            let mut joiner = Joiner::default();
            let portion = input.first().map_or(1, |&byte| usize::from(byte % 7) + 1);
            let mut joined: String = input.chunks(portion).map(|part| joiner.push(part)).collect();
            joined.push_str(&joiner.finish());
            assert_eq!(joined, text, "portions of {portion} bytes");
            assert!(command(&[input.into()]).chars().all(is_harmless));
            Took::if_understood(line != text || line.len() == input.len())
        });
    }

    #[test]
    fn commands_are_quoted_like_a_person_would() {
        let argv = ["sh", "-c", "echo 'hi'", ""].map(sandbar_proto::ByteString::from);
        assert_eq!(command(&argv), r"sh -c 'echo '\''hi'\''' ''");
    }

    #[test]
    fn a_shell_reads_a_word_as_what_it_stands_for() {
        let words: [&[u8]; 6] =
            [b"lib", b"a b;$(x)'`", b"-n", b"line\n1\x1b[2J", b"\xff'\\7", "x\u{202e}y~".as_bytes()];
        for word in words {
            let quoted = shell_word(word);
            assert!(!quoted.contains(char::is_control), "{quoted}");
            let mut bash = std::process::Command::new("bash");
            let read = bash.arg("-c").arg(format!("printf %s {quoted}")).output().unwrap().stdout;
            assert_eq!(read, word, "{quoted}");
        }
    }
}
