//! Values of flags: parsed where they are typed, so that what means nothing is refused before anything starts.
//!
//! Each error is the end of clap's "invalid value … for …", and says what to write instead.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use sandbar_policy::{BadGlob, Glob};
use sandbar_proto::{ByteString, EnvVar, Limit};

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

/// A limit and its value: bytes, microseconds, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitValue {
    pub(crate) limit: Limit,
    pub(crate) value: u64,
}

/// More processes than any kernel has (PID_MAX_LIMIT, proc_sys_kernel(5)).
const MOST_PROCESSES: u64 = 1 << 22;
/// A program needs its three streams, and one file more to load a library.
const FEWEST_FILES: u64 = 4;
/// More files than any kernel lets a process open (fs.nr_open, proc_sys_fs(5)).
const MOST_FILES: u64 = 1 << 30;
/// Less starts no program.
const LEAST_MEMORY: u64 = 4 << 20;
/// More than any machine has, and far from where numbers overflow.
const MOST_BYTES: u64 = 1 << 50;

/// `NAME=VALUE` of a limit.
///
/// # Errors
/// There is no such limit, or it can't have this value.
pub(crate) fn limit(text: &str) -> Result<LimitValue, String> {
    const NAMES: &str = "write procs=NUMBER, memory=SIZE, cpu=TIME, files=NUMBER or file-size=SIZE";
    let (name, value) = text.split_once('=').ok_or_else(|| format!("it is no NAME=VALUE; {NAMES}"))?;
    let limit = match name {
        "procs" => Limit::Procs,
        "memory" => Limit::Memory,
        "cpu" => Limit::Cpu,
        "files" => Limit::Files,
        "file-size" => Limit::FileSize,
        "time" | "wall" | "timeout" => {
            return Err(format!("the time it takes is limited by --timeout {value}"));
        }
        _ => return Err(format!("{name:?} is no limit; {NAMES}")),
    };
    let value = match limit {
        Limit::Procs => number(value, 1..=MOST_PROCESSES)?,
        Limit::Files => number(value, FEWEST_FILES..=MOST_FILES)?,
        Limit::Memory => size(value, LEAST_MEMORY, "4M")?,
        Limit::FileSize => size(value, 1, "1")?,
        Limit::Cpu | Limit::Wall => u64::try_from(duration(value)?.as_micros()).unwrap_or(u64::MAX),
    };
    Ok(LimitValue { limit, value })
}

fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let form = || format!("write a whole number from {} to {}", range.start(), range.end());
    let number: u64 = text.parse().map_err(|_| format!("{text:?} is no number; {}", form()))?;
    if range.contains(&number) { Ok(number) } else { Err(format!("it is out of range; {}", form())) }
}

/// A size as people write it: bytes, or a number with K, M, G or T. Units are binary: 1K is 1024 bytes.
fn size(text: &str, least: u64, least_written: &str) -> Result<u64, String> {
    let form = || {
        format!(
            "write bytes, or a number with K, M, G or T (512M, 1.5G; 1K is 1024 bytes), from {least_written} to 1024T"
        )
    };
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(format!("{unit:?} is no unit of size; {}", form())),
    };
    let bytes = scaled(number, shift).ok_or_else(|| format!("{number:?} is no number; {}", form()))?;
    if (least..=MOST_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("it is out of range; {}", form()))
    }
}

/// A decimal number times two to the power of `shift`, rounded down, exactly; far too large ones as the largest.
fn scaled(number: &str, shift: u32) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') || fraction.len() > 9
    {
        return None;
    }
    let whole: u128 = whole.parse().unwrap_or(u128::from(u64::MAX)).min(u128::from(u64::MAX));
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(u64::try_from(((whole * parts + fraction) << shift) / parts).unwrap_or(u64::MAX))
}

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
    fn limits_are_read_with_the_units_that_people_use() {
        let table = [
            ("procs=64", Limit::Procs, 64),
            ("files=4", Limit::Files, 4),
            ("memory=512M", Limit::Memory, 512 << 20),
            ("memory=2g", Limit::Memory, 2 << 30),
            ("memory=1.5GiB", Limit::Memory, 3 << 29),
            ("memory=4194304", Limit::Memory, 4 << 20),
            ("memory=1024T", Limit::Memory, 1 << 50),
            ("file-size=1", Limit::FileSize, 1),
            ("file-size=0.5K", Limit::FileSize, 512),
            ("cpu=90", Limit::Cpu, 90_000_000),
            ("cpu=1.5m", Limit::Cpu, 90_000_000),
        ];
        for (text, name, value) in table {
            assert_eq!(limit(text), Ok(LimitValue { limit: name, value }), "{text}");
        }
    }

    #[test]
    fn what_is_no_limit_is_answered_with_what_to_write() {
        let table = [
            ("", "no NAME=VALUE; write procs=NUMBER"),
            ("memory", "no NAME=VALUE"),
            ("disk=5", "\"disk\" is no limit; write procs=NUMBER"),
            ("time=5m", "limited by --timeout 5m"),
            ("procs=0", "out of range; write a whole number from 1 to 4194304"),
            ("procs=-1", "is no number"),
            ("procs=1.5", "is no number"),
            ("procs=2K", "is no number"),
            ("files=3", "from 4 to"),
            ("memory=", "\"\" is no number"),
            ("memory=512", "out of range; write bytes, or a number with K, M, G or T"),
            ("memory=1MB", "\"MB\" is no unit of size"),
            ("memory=1.", "\"1.\" is no number"),
            ("memory=-5M", "\"-5\" is no number"),
            ("memory=1e9", "\"e9\" is no unit"),
            ("memory=99999999999999999999999T", "out of range"),
            ("memory=1025T", "out of range"),
            ("file-size=0", "from 1 to 1024T"),
            ("cpu=0", "from 1ms to 8760h"),
            ("cpu=5d", "no unit of time"),
        ];
        for (text, reason) in table {
            let error = limit(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
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
