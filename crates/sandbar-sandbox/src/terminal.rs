//! Settings of terminals: read from a caller's, written to a command's.
//!
//! Speeds and frame formats mean nothing for a pseudoterminal and do not travel.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Winsize, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use sandbar_proto::{TerminalModes, TerminalSize};

/// Keys of a line discipline, in the order in which they travel.
const SPECIAL: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];

/// The settings of the terminal at `fd`.
///
/// # Errors
/// ENOTTY: it is none.
pub fn modes(fd: impl AsFd) -> Result<TerminalModes, Errno> {
    let termios = tcgetattr(fd)?;
    Ok(TerminalModes {
        input: termios.input_modes.bits(),
        output: termios.output_modes.bits(),
        local: termios.local_modes.bits(),
        special: SPECIAL.iter().map(|&key| termios.special_codes[key]).collect(),
    })
}

/// Gives the terminal at `fd` these settings. Allocates nothing.
///
/// # Errors
/// ENOTTY: it is none.
pub fn set_modes(fd: impl AsFd, modes: &TerminalModes) -> Result<(), Errno> {
    let mut termios = tcgetattr(&fd)?;
    termios.input_modes = InputModes::from_bits_retain(modes.input);
    termios.output_modes = OutputModes::from_bits_retain(modes.output);
    termios.local_modes = LocalModes::from_bits_retain(modes.local);
    for (key, value) in SPECIAL.into_iter().zip(&modes.special) {
        termios.special_codes[key] = *value;
    }
    tcsetattr(&fd, OptionalActions::Now, &termios)
}

/// The size of the terminal at `fd`, or `None` where it does not know.
///
/// # Errors
/// ENOTTY: it is none.
pub fn size(fd: impl AsFd) -> Result<Option<TerminalSize>, Errno> {
    let Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel } = tcgetwinsize(fd)?;
    let size = TerminalSize { rows: ws_row, columns: ws_col, x_pixels: ws_xpixel, y_pixels: ws_ypixel };
    Ok((ws_row > 0 && ws_col > 0).then_some(size))
}

/// Gives the terminal at `fd` a size. The kernel tells its foreground group (SIGWINCH) if it is another one.
///
/// # Errors
/// ENOTTY: it is none.
pub fn set_size(fd: impl AsFd, size: TerminalSize) -> Result<(), Errno> {
    let TerminalSize { rows, columns, x_pixels, y_pixels } = size;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: x_pixels, ws_ypixel: y_pixels };
    rustix::termios::tcsetwinsize(fd, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};

    fn terminal() -> rustix::fd::OwnedFd {
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn settings_are_carried_over_from_one_terminal_to_another() {
        let (one, other) = (terminal(), terminal());
        let mut modes = modes(&one).unwrap();
        modes.local &= !LocalModes::ECHO.bits();
        modes.special[2] = 8;
        set_modes(&other, &modes).unwrap();
        assert_eq!(super::modes(&other).unwrap(), modes);
    }

    #[test]
    fn settings_with_keys_that_are_not_known_here_are_taken_as_far_as_they_go() {
        let terminal = terminal();
        let before = modes(&terminal).unwrap();
        let longer =
            TerminalModes { special: [before.special.clone(), vec![7; 9]].concat(), ..before.clone() };
        set_modes(&terminal, &longer).unwrap();
        assert_eq!(modes(&terminal).unwrap(), before);
    }

    #[test]
    fn a_size_is_unknown_until_it_is_set() {
        let terminal = terminal();
        assert_eq!(size(&terminal).unwrap(), None);
        let size = TerminalSize { rows: 43, columns: 132, x_pixels: 5, y_pixels: 6 };
        set_size(&terminal, size).unwrap();
        assert_eq!(super::size(&terminal).unwrap(), Some(size));
    }
}
