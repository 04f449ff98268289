//! Signals by name, as kill(1) and signal(7) know them.

use sandbar_proto::exec::SignalName;

/// Names without `SIG`, with their numbers on Linux where these are the same on every architecture we build for.
const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Numbers of real-time signals (signal(7)).
const REAL_TIME: std::ops::RangeInclusive<i32> = 32..=64;

/// The number of a signal; `None` if nobody knows the name.
pub(crate) fn number(signal: &SignalName) -> Option<i32> {
    let SignalName(name) = signal;
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The dialect's only one.
    let short = if short == "INTERRUPT" { "INT" } else { short };
    let named = NAMES.into_iter().find(|(known, _)| *known == short).map(|(_, number)| number);
    // The real-time ones have no names that everybody knows; `name` calls them so.
    let numbered = || upper.strip_prefix("SIG")?.parse().ok().filter(|number| REAL_TIME.contains(number));
    named.or_else(numbered)
}

/// The name of a signal, with `SIG`.
pub(crate) fn name(number: i32) -> String {
    let found = NAMES.into_iter().find(|(_, known)| *known == number);
    found.map_or_else(|| format!("SIG{number}"), |(name, _)| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_every_usual_spelling() {
        for (text, expected) in
            [("interrupt", 2), ("INT", 2), ("SIGINT", 2), ("sigterm", 15), ("Kill", 9), ("SIG34", 34)]
        {
            assert_eq!(number(&SignalName(text.to_owned())), Some(expected), "{text}");
        }
        for text in ["", "SIG", "9", "SIG9", "SIG65", "SIGNOPE", "SIGSIGINT"] {
            assert!(number(&SignalName(text.to_owned())).is_none(), "{text}");
        }
    }

    #[test]
    fn every_name_comes_back() {
        for (short, value) in NAMES {
            assert_eq!(name(value), format!("SIG{short}"));
        }
        assert_eq!(name(40), "SIG40");
    }
}
