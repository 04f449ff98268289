//! What a command's output has switched on in a terminal, and how to switch it off.
//!
//! Looks only at the few sequences that outlive a program and disturb the next one: the alternate screen, mouse and
//! paste reports, the hidden cursor, colours, character sets, keyboard modes (ECMA-48, XTerm control sequences,
//! Kitty's keyboard protocol). Takes bytes in any portions; never changes or delays them. What it does not know it
//! leaves alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

const ESCAPE: u8 = 0x1b;

/// Longest list of parameters that is looked at. The sequences in question are shorter; a longer one is skipped.
const MAX_PARAMETERS: usize = 64;

/// DEC private modes that disturb the next program, with what they are in a fresh terminal.
const PRIVATE: [(u16, bool); 18] = [
    (1, false),
    (6, false),
    (7, true),
    (9, false),
    (25, true),
    (47, false),
    (1000, false),
    (1001, false),
    (1002, false),
    (1003, false),
    (1004, false),
    (1005, false),
    (1006, false),
    (1015, false),
    (1016, false),
    (1047, false),
    (1049, false),
    (2004, false),
];

/// Modes that are the alternate screen, in one of its forms.
const ALTERNATE_SCREEN: [u16; 3] = [47, 1047, 1049];

/// Follows the modes of a terminal.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    parser: Parser,
    parameters: Vec<u8>,
    /// Private modes that are not as in a fresh terminal.
    private: BTreeSet<u16>,
    /// Application keypad (DECKPAM).
    keypad: bool,
    /// Levels of Kitty's keyboard protocol that were pushed and not popped.
    keyboard_levels: u32,
    /// XTerm's modifyOtherKeys.
    other_keys: bool,
    /// Colours or another rendition.
    rendition: bool,
    /// Scrolling margins.
    margins: bool,
    /// Another character set than ASCII.
    character_set: bool,
    /// Another shape of the cursor.
    cursor_shape: bool,
}

/// Where in a sequence the last byte stood.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Parser {
    #[default]
    Text,
    Escape,
    /// Behind the intermediate byte of a two-byte escape, which says what it sets.
    Intermediate(u8),
    Control,
    /// In the text of an operating-system command and the like, which ends with BEL or ESC `\`.
    String,
    StringEscape,
}

impl Modes {
    /// Takes what was written to the terminal.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if self.parser == Parser::Text {
                // Nearly everything is text; only these begin anything.
                match rest.iter().position(|&byte| matches!(byte, ESCAPE | 0x0e | 0x0f)) {
                    Some(at) if at > 0 => {
                        rest = &rest[at..];
                        continue;
                    }
                    Some(_) => {}
                    None => return,
                }
            }
            self.byte(byte);
            rest = behind;
        }
    }

    fn byte(&mut self, byte: u8) {
        // CAN and SUB end any sequence; a new ESC begins another, except as the end of a text.
        if matches!(byte, 0x18 | 0x1a) {
            self.parser = Parser::Text;
            return;
        }
        if byte == ESCAPE {
            self.parser = match self.parser {
                Parser::String | Parser::StringEscape => Parser::StringEscape,
                Parser::Text | Parser::Escape | Parser::Intermediate(_) | Parser::Control => Parser::Escape,
            };
            return;
        }
        self.parser = match self.parser {
            Parser::Text => {
                match byte {
                    0x0e => self.character_set = true,
                    0x0f => self.character_set = false,
                    _ => {}
                }
                Parser::Text
            }
            Parser::Escape => self.escape(byte),
            Parser::Intermediate(kind) => {
                if kind == b'(' {
                    self.character_set = byte != b'B';
                }
                Parser::Text
            }
            Parser::Control => self.control(byte),
            Parser::String if byte == 0x07 => Parser::Text,
            Parser::String => Parser::String,
            // ESC `\` ends the text; any other ESC ended it as well and began something.
            Parser::StringEscape if byte == b'\\' => Parser::Text,
            Parser::StringEscape => self.escape(byte),
        };
    }

    fn escape(&mut self, byte: u8) -> Parser {
        match byte {
            b'[' => {
                self.parameters.clear();
                return Parser::Control;
            }
            b']' | b'P' | b'_' | b'^' | b'X' => return Parser::String,
            b' '..=b'/' => return Parser::Intermediate(byte),
            b'=' => self.keypad = true,
            b'>' => self.keypad = false,
            b'c' => *self = Self::default(),
            _ => {}
        }
        Parser::Text
    }

    fn control(&mut self, byte: u8) -> Parser {
        match byte {
            0x20..=0x3f => {
                if self.parameters.len() <= MAX_PARAMETERS {
                    self.parameters.push(byte);
                }
                Parser::Control
            }
            0x40..=0x7e => {
                if self.parameters.len() <= MAX_PARAMETERS {
                    let parameters = std::mem::take(&mut self.parameters);
                    self.function(byte, &parameters);
                    self.parameters = parameters;
                }
                Parser::Text
            }
            // A control character is carried out in the middle of a sequence.
            _ => Parser::Control,
        }
    }

    fn function(&mut self, function: u8, parameters: &[u8]) {
        match (function, parameters) {
            (b'h' | b'l', [b'?', modes @ ..]) => {
                for mode in modes.split(|&byte| byte == b';') {
                    self.set_private(mode, function == b'h');
                }
            }
            (b'm', [b'>', rest @ ..]) => {
                // Resource 4 with a value above 0; without one it is reset.
                self.other_keys = matches!(rest, [b'4', b';', value, ..] if *value != b'0');
            }
            (b'm', []) => self.rendition = false,
            (b'm', [first, ..]) if first.is_ascii_digit() || *first == b';' => {
                let last = parameters.rsplit(|&byte| byte == b';').next().unwrap_or_default();
                self.rendition = !last.iter().all(|&byte| byte == b'0');
            }
            (b'r', []) => self.margins = false,
            (b'r', [first, ..]) if first.is_ascii_digit() || *first == b';' => self.margins = true,
            (b'u', [b'>', ..]) => self.keyboard_levels = self.keyboard_levels.saturating_add(1),
            (b'u', [b'<', count @ ..]) => {
                self.keyboard_levels = self.keyboard_levels.saturating_sub(number(count).unwrap_or(1).into());
            }
            (b'q', [value @ .., b' ']) => self.cursor_shape = !value.iter().all(|&byte| byte == b'0'),
            (b'p', [b'!']) => {
                // A soft reset keeps the screen, the mouse and the paste reports.
                for mode in [1, 6, 7, 25] {
                    self.private.remove(&mode);
                }
                (self.keypad, self.rendition, self.margins) = (false, false, false);
                self.character_set = false;
            }
            _ => {}
        }
    }

    fn set_private(&mut self, mode: &[u8], on: bool) {
        let Some(&(mode, fresh)) =
            number(mode).and_then(|mode| PRIVATE.iter().find(|(known, _)| *known == mode))
        else {
            return;
        };
        if ALTERNATE_SCREEN.contains(&mode) {
            // They switch one and the same screen.
            ALTERNATE_SCREEN.iter().for_each(|form| {
                self.private.remove(form);
            });
        }
        if on == fresh {
            self.private.remove(&mode);
        } else {
            self.private.insert(mode);
        }
    }

    /// What to write so that the terminal is as a fresh one, as far as modes go. Empty where nothing was left.
    pub(crate) fn reset(&self) -> String {
        let mut text = String::new();
        if self.keyboard_levels > 0 {
            let _ = write!(text, "\x1b[<{}u", self.keyboard_levels);
        }
        if self.other_keys {
            text.push_str("\x1b[>4m");
        }
        if self.keypad {
            text.push_str("\x1b>");
        }
        if self.margins {
            // Setting margins moves the cursor.
            text.push_str("\x1b7\x1b[r\x1b8");
        }
        if self.rendition {
            text.push_str("\x1b[m");
        }
        if self.character_set {
            text.push_str("\x0f\x1b(B");
        }
        if self.cursor_shape {
            text.push_str("\x1b[0 q");
        }
        // The alternate screen comes last: other modes may be kept per screen.
        let (screens, others): (Vec<u16>, Vec<u16>) =
            self.private.iter().partition(|mode| ALTERNATE_SCREEN.contains(mode));
        for mode in others.into_iter().chain(screens) {
            let _ = write!(text, "\x1b[?{mode}{}", if is_on_in_a_fresh_one(mode) { 'h' } else { 'l' });
        }
        text
    }

    /// What to write to a fresh terminal so that it sends and takes what this one does: modes that show on no screen.
    pub(crate) fn restore_input(&self) -> String {
        let mut text = String::new();
        for mode in self.private.iter().filter(|mode| **mode == 1 || **mode >= 1000) {
            if !ALTERNATE_SCREEN.contains(mode) {
                let _ = write!(text, "\x1b[?{mode}h");
            }
        }
        if self.keypad {
            text.push_str("\x1b=");
        }
        text
    }
}

fn is_on_in_a_fresh_one(mode: u16) -> bool {
    PRIVATE.iter().any(|(known, fresh)| *known == mode && *fresh)
}

fn number(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reset(written: &str) -> String {
        let mut modes = Modes::default();
        modes.take(written.as_bytes());
        modes.reset()
    }

    #[test]
    fn what_was_left_is_switched_off_and_nothing_else() {
        let table = [
            ("plain text\r\n", ""),
            ("\x1b[1;31mred\x1b[0m", ""),
            ("\x1b[1;31mred", "\x1b[m"),
            ("\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"),
            ("\x1b[?1049h\x1b[?1049l", ""),
            ("\x1b[?47h\x1b[?1049l", ""),
            ("\x1b[?1000;1006;2004h", "\x1b[?1000l\x1b[?1006l\x1b[?2004l"),
            ("\x1b[?2004h\x1bc", ""),
            ("\x1b=\x1b[>1u\x1b[>4;2m", "\x1b[<1u\x1b[>4m\x1b>"),
            ("\x1b[>1u\x1b[<u", ""),
            ("\x1b[2;10r", "\x1b7\x1b[r\x1b8"),
            ("\x1b(0lqk\x1b(B", ""),
            ("\x1b(0lqk", "\x0f\x1b(B"),
            ("\x1b[6 q", "\x1b[0 q"),
            ("\x1b]0;title [?25l\x07", ""),
            ("\x1b]0;title\x1b\\\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?9999h\x1b[?12h", ""),
        ];
        for (written, expected) in table {
            assert_eq!(reset(written), expected, "{written:?}");
        }
    }

    #[test]
    fn what_a_reset_writes_leaves_nothing() {
        let everything =
            "\x1b[?1049h\x1b[?1003h\x1b[?25l\x1b[?7l\x1b=\x1b[>1u\x1b[>4;1m\x1b[5;9r\x1b[7m\x1b(0\x1b[4 q";
        assert_eq!(reset(&(everything.to_owned() + &reset(everything))), "");
    }

    #[test]
    fn reports_and_keys_are_restored_and_what_a_screen_shows_is_not() {
        let mut modes = Modes::default();
        modes.take(b"\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[?25l");
        assert_eq!(modes.restore_input(), "\x1b[?1h\x1b[?2004h\x1b=");
    }

    /// What programs write, for this module and for the screen.
    pub(in crate::terminal) const SEQUENCES: sandbar_testkit::Samples<'_> = sandbar_testkit::Samples {
        whole: &[
            b"\x1b[?1049h\x1b[?25l\x1b[2J\x1b[Hfull \x1b[1;31mscreen\x1b[m\r\n\x1b[?1049l\x1b[?25h",
            b"\x1b]0;title\x1b\\\x1b[?2004h$ ls\r\n\x1b(0lqk\x1b(B\x0e\x0f",
            b"\x1b[>1u\x1b[>4;2m\x1b=\x1b[5;9r\x1b[6 q\x1b[?1000;1006h\x1bP+q\x1b\\",
            "\u{1f600}\u{200d}e\u{301}\x1b[10000000C\x1b[99999L\x1b[38;2;1;2;3mx\x1b[65535S".as_bytes(),
        ],
        words: &[
            b"\x1b",
            b"[",
            b"\x1b[?",
            b";",
            b"h",
            b"l",
            b"m",
            b"\x1b[",
            b"65535",
            b"4294967296",
            b"0",
            b"A",
            b"C",
            b"H",
            b"J",
            b"K",
            b"L",
            b"M",
            b"P",
            b"@",
            b"X",
            b"S",
            b"T",
            b"r",
            b"u",
            b"p",
            b"!",
            b" q",
            b"\x1b]",
            b"\x07",
            b"\x1b\\",
            b"\x18",
            b"\r",
            b"\n",
            b"\t",
            b"\x08",
            b"\x1bc",
            b"\x1b7",
            b"\x1b8",
            b"\x1bM",
            b"\x1bD",
            b"\x1bH",
            b"\x1b[?1049h",
            b"\x1b[?6h",
            b"\x1b[?7l",
            b"\xf0\x9f\x98\x80",
            b"\xcc\x81",
            b"\xff",
            b"xxxxxxxxxxxxxxxx",
        ],
    };

    #[test]
    fn fuzz_whatever_was_written_its_reset_leaves_nothing() {
        use sandbar_testkit::{Took, fuzz};
        fuzz("terminal modes", SEQUENCES, |input| {
            let mut modes = Modes::default();
            modes.take(input);
            let left = modes.reset();
            let mut slow = Modes::default();
            input.chunks(1).for_each(|byte| slow.take(byte));
            assert_eq!(slow.reset(), left);
            // CAN ends what the output left open; a text in it is not read as a sequence.
            modes.take(b"\x18");
            modes.take(left.as_bytes());
            assert_eq!(modes.reset(), "");
            Took::if_understood(!left.is_empty() || !modes.restore_input().is_empty())
        });
    }

    proptest! {
        #[test]
        fn portions_of_any_size_come_to_the_same(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("\x1b[?1049h"), Just("\x1b[?25l"), Just("\x1b[m"), Just("\x1b[3m"), Just("\x1b]2;x"),
                    Just("\x1b\\"), Just("\x07"), Just("text ä"), Just("\x1b("), Just("0"), Just("\x1bc"),
                ],
                0..12,
            ),
            cut in 1..7_usize,
        ) {
            let written = parts.concat();
            let mut modes = Modes::default();
            for portion in written.as_bytes().chunks(cut) {
                modes.take(portion);
            }
            prop_assert_eq!(modes.reset(), reset(&written));
        }
    }
}
