//! The screen of a command that runs already: what a viewer who comes later has to see before it goes on.
//!
//! The end of its output goes through a model of a terminal, and what that shows is drawn. So it does not matter
//! where in a sequence the end begins, and the screen is right also where the viewer's terminal has another size.
//! What no screen shows (mouse and paste reports) is added by [`Modes`].

use avt::Terminal;
use sandbar_proto::TerminalSize;

use super::modes::Modes;

/// Bytes at the end of the output that the screen is made of: what a full-screen program draws in many minutes, and
/// a model reads in a few milliseconds.
pub(crate) const TAIL_BYTES: usize = 1024 * 1024;

/// Rows and columns of the largest terminal that is modelled; a command may ask for 65,535 of each, which would fill
/// the memory.
const LARGEST: u16 = 1000;

/// What to write to a terminal of size `shown_on` so that it shows what a terminal of size `made_for` shows after
/// `tail`. `modes` are those after the same output.
pub(crate) fn redraw(tail: &[u8], modes: &Modes, made_for: TerminalSize, shown_on: TerminalSize) -> String {
    let side = |length: u16| usize::from(length.clamp(1, LARGEST));
    let mut text = String::new();
    // What the viewer's terminal shows now is scrolled out of sight, not lost.
    text.push_str(&"\n".repeat(side(shown_on.rows)));
    text.push_str("\x1b[m\x1b[H\x1b[J");
    // Both sides are at least one.
    if let Ok(mut terminal) = Terminal::new(side(made_for.columns), side(made_for.rows)) {
        terminal.feed(&*String::from_utf8_lossy(whole_part(tail)));
        terminal.resize(side(shown_on.columns), side(shown_on.rows));
        text.push_str(&terminal.dump());
    }
    text.push_str(&modes.restore_input());
    text
}

/// The part of a cut output that begins with a line or a sequence of its own; all of it where nothing does.
fn whole_part(tail: &[u8]) -> &[u8] {
    if tail.len() < TAIL_BYTES {
        return tail;
    }
    let start = tail.iter().position(|byte| matches!(byte, b'\n' | 0x1b)).unwrap_or(0);
    &tail[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: TerminalSize = TerminalSize { rows: 5, columns: 20, x_pixels: 0, y_pixels: 0 };

    /// What a terminal of `SIZE` shows after a redraw for it.
    fn shown(tail: &[u8], made_for: TerminalSize) -> Vec<String> {
        let mut modes = Modes::default();
        modes.take(tail);
        let mut terminal = Terminal::new(20, 5).unwrap();
        terminal.feed("before\r\n$ ");
        terminal.feed(&*redraw(tail, &modes, made_for, SIZE));
        terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_screen_is_drawn_as_it_is_and_nothing_of_what_was_there_before() {
        assert_eq!(shown(b"one\r\ntwo\x1b[5;3Hend", SIZE), ["one", "two", "", "", "  end"]);
    }

    #[test]
    fn the_alternate_screen_is_the_one_that_is_shown() {
        assert_eq!(shown(b"shell\r\n\x1b[?1049h\x1b[2;1Heditor", SIZE)[..2], ["", "editor"]);
        assert_eq!(shown(b"shell\r\n\x1b[?1049h\x1b[2;1Heditor\x1b[?1049l", SIZE)[0], "shell");
    }

    #[test]
    fn a_tail_that_begins_within_a_sequence_shows_only_what_is_whole() {
        let mut tail = b"38;5;9mgarbage\n".to_vec();
        tail.resize(TAIL_BYTES, b'x');
        tail.extend_from_slice(b"\x1b[2J\x1b[Hwhole");
        assert_eq!(shown(&tail, SIZE), ["whole", "", "", "", ""]);
    }

    #[test]
    fn bytes_that_are_no_text_are_drawn_as_that() {
        assert_eq!(shown(b"a\xffb", SIZE)[0], "a\u{fffd}b");
    }

    #[test]
    fn fuzz_any_output_can_be_redrawn_on_any_terminal() {
        use sandbar_testkit::{Took, fuzz};
        fuzz("screen", super::super::modes::tests::SEQUENCES, |input| {
            let side = |at: usize| u16::from(*input.get(at).unwrap_or(&5)) % 50;
            let made_for = TerminalSize { rows: side(0), columns: side(1), ..SIZE };
            let shown_on = TerminalSize { rows: side(2), columns: side(3), ..SIZE };
            let mut modes = Modes::default();
            modes.take(input);
            let drawn = redraw(input, &modes, made_for, shown_on);
            // A redraw is for a terminal whose state nobody knows.
            let mut terminal =
                Terminal::new(usize::from(shown_on.columns.max(1)), usize::from(shown_on.rows.max(1)))
                    .unwrap();
            terminal.feed(&*drawn);
            Took::if_understood(
                terminal.screen().visible_lines().any(|line| !line.text().trim_end().is_empty()),
            )
        });
    }

    #[test]
    fn a_terminal_of_absurd_size_is_no_reason_to_fail() {
        let huge = TerminalSize { rows: u16::MAX, columns: 0, ..SIZE };
        assert_eq!(shown(b"", huge), ["", "", "", "", ""]);
    }
}
