//! Names of segment files.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

/// File name of segment `index`.
pub(super) fn name(index: u32) -> String {
    format!("log.{index:08}")
}

/// The segment that a file name belongs to.
fn parse(name: &CStr) -> Option<u32> {
    let digits = name.to_str().ok()?.strip_prefix("log.")?;
    if digits.len() != 8 { None } else { digits.parse().ok() }
}

/// Lowest index, not below `from`, of the segments in `directory`.
pub(super) fn first_from(directory: impl AsFd, from: u32) -> Result<Option<u32>, Errno> {
    let mut lowest = None;
    for entry in rustix::fs::Dir::read_from(directory)? {
        if let Some(index) = parse(entry?.file_name())
            && index >= from
            && lowest.is_none_or(|low| index < low)
        {
            lowest = Some(index);
        }
    }
    Ok(lowest)
}

/// Indices of all segments in `directory`, in no order.
pub(super) fn all(directory: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        found.extend(parse(entry?.file_name()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(parse(c"log.00000007"), Some(7));
        for other in [c"log.7", c"log.0000000x", c"start.json", c"log.000000077"] {
            assert_eq!(parse(other), None);
        }
    }
}
