//! Values of flags: parsed where they are typed, so that what means nothing is refused before anything starts.
//!
//! Each error is the end of clap's "invalid value … for …", and says what to write instead.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use sandbar_policy::{BadGlob, Glob};
use sandbar_proto::{ByteString, EnvVar};

/// The longest time. A year is more than anybody waits, and far from where clocks overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest time: what the keeper's timers can tell apart.
const SHORTEST: Duration = Duration::from_millis(1);

/// A path that is not empty. An empty one is what a shell makes of "$UNSET", and would mean the working directory.
pub(crate) fn path() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|path| {
        if path.is_empty() { Err("the path is empty; write . for the working directory") } else { Ok(path) }
    })
}

/// `NAME=VALUE`.
pub(crate) fn variable() -> impl TypedValueParser<Value = EnvVar> {
    OsStringValueParser::new().try_map(|pair| {
        let pair = ByteString::from(pair);
        let cut = pair.as_bytes().iter().position(|&byte| byte == b'=').filter(|&at| at > 0);
        let cut = cut.ok_or(
            "it is no NAME=VALUE; to keep one of your own variables that looks like a secret write --env-keep NAME",
        )?;
        Ok::<_, &str>(EnvVar { name: pair.as_bytes()[..cut].into(), value: pair.as_bytes()[cut + 1..].into() })
    })
}

/// The name of a variable.
pub(crate) fn name() -> impl TypedValueParser<Value = ByteString> {
    OsStringValueParser::new().try_map(|name| {
        let name = ByteString::from(name);
        match name.as_bytes() {
            [] => Err("the name is empty"),
            bytes if bytes.contains(&b'=') => Err("a name has no =; write the name alone"),
            _ => Ok(name),
        }
    })
}

/// A glob over names of variables.
pub(crate) fn glob() -> impl TypedValueParser<Value = Glob> {
    OsStringValueParser::new().try_map(|pattern| {
        Glob::parse(pattern).map_err(|error| match error {
            BadGlob::Empty => "the glob is empty; * is every name".to_owned(),
            BadGlob::Character(b'=') => {
                "a name has no =; to set a variable write --env NAME=VALUE".to_owned()
            }
            BadGlob::Character(byte) => format!(
                "a glob has * for any characters and ? for one, and no {}",
                char::from(byte).escape_default()
            ),
        })
    })
}

/// A time as people write it: seconds, or a number with ms, s, m or h.
///
/// # Errors
/// It is written otherwise, or out of range.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time; {FORMS}")),
    };
    let seconds: f64 = number.parse().map_err(|_| format!("{number:?} is no number; {FORMS}"))?;
    let range = SHORTEST.as_secs_f64()..=LONGEST.as_secs_f64();
    if !range.contains(&(seconds * factor)) {
        return Err(format!("it is out of range; {FORMS}"));
    }
    Duration::try_from_secs_f64(seconds * factor).map_err(|error| format!("{error}; {FORMS}"))
}

const FORMS: &str = "write seconds (90), or a number with ms, s, m or h (250ms, 5m, 1.5h), from 1ms to 8760h";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let table = [
            ("90", 90_000),
            ("90s", 90_000),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
            ("250ms", 250),
            ("1ms", 1),
            ("8760h", 31_536_000_000),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_answered_with_the_forms_and_the_range() {
        let table = [
            ("", "\"\" is no number"),
            ("x", "\"x\" is no unit"),
            ("5d", "\"d\" is no unit"),
            ("1e30", "\"e30\" is no unit"),
            ("inf", "\"inf\" is no unit"),
            ("-1", "out of range"),
            ("0", "out of range"),
            ("0.5ms", "out of range"),
            ("8761h", "out of range"),
            ("99999999999999h", "out of range"),
        ];
        for (text, reason) in table {
            let error = duration(text).unwrap_err();
            assert!(error.contains(reason) && error.ends_with(FORMS), "{text}: {error}");
        }
    }
}
