//! Terminals as plain data: how large one is, how its line discipline is set.
//!
//! Numbers are those of this platform (termios(3)): a caller and the keeper that carries its plan out share one
//! kernel. Decides nothing about when a command gets a terminal.

use serde::{Deserialize, Serialize};

/// Size of a terminal, as TIOCGWINSZ tells it (ioctl_tty(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TerminalSize {
    /// Lines of text.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
    /// Width in pixels, 0 where nobody knows.
    #[serde(default)]
    pub x_pixels: u16,
    /// Height in pixels, 0 where nobody knows.
    #[serde(default)]
    pub y_pixels: u16,
}

impl TerminalSize {
    /// What programs assume of a terminal that does not tell (the VT100's).
    pub const USUAL: Self = Self { rows: 24, columns: 80, x_pixels: 0, y_pixels: 0 };
}

/// Settings of a terminal's line discipline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TerminalModes {
    /// `c_iflag`.
    pub input: u32,
    /// `c_oflag`.
    pub output: u32,
    /// `c_lflag`.
    pub local: u32,
    /// `c_cc`: which keys erase, interrupt, end the input. Fewer or more than this platform has are ignored.
    pub special: Vec<u8>,
}

/// The terminal that a command is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Terminal {
    /// Its size at the start.
    pub size: TerminalSize,
    /// Its settings at the start; those of a fresh terminal where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<TerminalModes>,
}
