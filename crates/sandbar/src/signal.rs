//! Names of signals, as signal(7) has them, with and without `SIG`.

use rustix::process::Signal;

use crate::exit;
use crate::render::Problem;

/// Numbers of the signals that are asked for and listened to.
pub(crate) const SIGHUP: i32 = Signal::HUP.as_raw();
pub(crate) const SIGINT: i32 = Signal::INT.as_raw();
pub(crate) const SIGQUIT: i32 = Signal::QUIT.as_raw();
pub(crate) const SIGKILL: i32 = Signal::KILL.as_raw();
pub(crate) const SIGTERM: i32 = Signal::TERM.as_raw();
pub(crate) const SIGCONT: i32 = Signal::CONT.as_raw();

const NAMES: [(&str, Signal); 31] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
    ("SYS", Signal::SYS),
];

/// Highest number of a signal on Linux, SIGRTMAX.
const LAST: i32 = 64;

/// The name of a signal without `SIG`, or its number where it has none.
pub(crate) fn name(signal: i32) -> String {
    let known = NAMES.iter().find(|(_, known)| known.as_raw() == signal);
    known.map_or_else(|| signal.to_string(), |(name, _)| (*name).to_owned())
}

/// The number of the signal that somebody typed: a name in either case, or a number.
///
/// # Errors
/// There is no such signal.
pub(crate) fn parse(text: &str) -> Result<i32, Problem> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(name, _)| *name == bare).map(|(_, signal)| signal.as_raw());
    let number = text.parse().ok().filter(|number| (1..=LAST).contains(number));
    named.or(number).ok_or_else(|| {
        Problem::new(format!("no signal is named {text:?}"))
            .at(format!("--signal {}", text.escape_debug()))
            .advise("use HUP, INT, QUIT, KILL, USR1, USR2, TERM, CONT, STOP or another of signal(7), or a number up to 64")
            .status(exit::USAGE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_typed_with_or_without_sig_or_as_a_number() {
        for text in ["TERM", "SIGTERM", "term", "sigterm", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert_eq!(parse("40"), Ok(40));
    }

    #[test]
    fn what_is_no_signal_is_a_usage_error() {
        for text in ["", "SIG", "NOPE", "0", "65", "-9"] {
            assert_eq!(parse(text).unwrap_err().status, exit::USAGE, "{text}");
        }
    }

    #[test]
    fn signals_without_a_name_are_numbers() {
        assert_eq!((name(9), name(40)), ("KILL".to_owned(), "40".to_owned()));
    }
}
