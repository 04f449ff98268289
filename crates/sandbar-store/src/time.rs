//! Times as rollouts write them: UTC in lines, local in file names.

use jiff::tz::TimeZone;
use sandbar_proto::Timestamp;

fn instant(time: Timestamp) -> jiff::Timestamp {
    // u64 nanoseconds end in the year 2554, long before jiff's range does.
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or(jiff::Timestamp::MAX)
}

/// RFC 3339 in UTC with milliseconds, cut off, not rounded.
pub(crate) fn rfc3339_ms(time: Timestamp) -> String {
    format!("{:.3}", instant(time))
}

/// Whole seconds since 1970-01-01T00:00:00Z.
pub(crate) fn unix_seconds(time: Timestamp) -> i64 {
    instant(time).as_second()
}

/// The directory (`YYYY/MM/DD`) and the time (`YYYY-MM-DDThh-mm-ss`) in the name of a rollout that begins at
/// `time`, in `zone`.
pub(crate) fn name_parts(time: Timestamp, zone: &TimeZone) -> (String, String) {
    let local = zone.to_datetime(instant(time));
    let (year, month, day) = (local.year(), local.month(), local.day());
    let (hour, minute, second) = (local.hour(), local.minute(), local.second());
    (
        format!("{year:04}/{month:02}/{day:02}"),
        format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2026-11-21T02:40:07.999999999Z
    const TIME: Timestamp = Timestamp(1_795_228_807_999_999_999);

    #[test]
    fn lines_have_milliseconds_in_utc() {
        assert_eq!(rfc3339_ms(TIME), "2026-11-21T02:40:07.999Z");
        assert_eq!(rfc3339_ms(Timestamp(0)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn file_names_have_the_local_date_and_time() {
        let new_york = TimeZone::fixed(jiff::tz::offset(-5));
        let expected = ("2026/11/20".to_owned(), "2026-11-20T21-40-07".to_owned());
        assert_eq!(name_parts(TIME, &new_york), expected);
    }
}
