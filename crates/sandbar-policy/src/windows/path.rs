//! Paths as Windows writes them, from the form in which they travel: `/C:/Users/u`, as in a `file` URI (RFC 8089 §E.2).
//!
//! Only what Windows takes as it is written becomes one: a name that it would change or read as a device, a stream or a
//! pattern is none (Microsoft, "Naming Files, Paths, and Namespaces").

use std::fmt;

use sandbar_proto::AbsPath;

/// An absolute path on a drive. Written with the prefix that keeps Windows from changing it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowsPath(String);

/// Why a path is none of Windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a drive.
    #[error("it does not begin with the capital letter of a drive")]
    NoDrive,
    /// It is no text.
    #[error("it is no UTF-8")]
    NotText,
    /// It has a character that separates, is a pattern, or is none.
    #[error("no name has {0:?}")]
    Character(char),
    /// It ends with what Windows drops.
    #[error("a name ends with a space or a full stop")]
    Ending,
    /// It is the name of a device.
    #[error("a name is that of a device")]
    Device,
    /// Another place of the plan has the same name in other letters.
    #[error("another place has the same name in small or capital letters")]
    SameName,
}

/// Names of devices in every directory, with any extension.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
/// The same with a digit behind them, which may be raised.
const NUMBERED: [&str; 2] = ["COM", "LPT"];
const DIGITS: &str = "0123456789¹²³";

impl WindowsPath {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn new(path: &AbsPath) -> Result<Self, BadPath> {
        let mut parts = path.components();
        let drive = match parts.next() {
            Some(&[letter, b':']) if letter.is_ascii_uppercase() => char::from(letter),
            _ => return Err(BadPath::NoDrive),
        };
        let mut written = format!("{drive}:");
        for part in parts {
            let name = std::str::from_utf8(part).map_err(|_| BadPath::NotText)?;
            check(name)?;
            written.push('\\');
            written.push_str(name);
        }
        if written.ends_with(':') {
            written.push('\\');
        }
        Ok(Self(written))
    }

    /// Whether this is `ancestor` or lies below it.
    #[must_use]
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(ancestor.0.trim_end_matches('\\')) {
            Some(rest) => rest.is_empty() || rest.starts_with('\\'),
            None => false,
        }
    }
}

impl fmt::Display for WindowsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r"\\?\{}", self.0)
    }
}

fn check(name: &str) -> Result<(), BadPath> {
    if let Some(bad) = name.chars().find(|&c| c < ' ' || "<>:\"/\\|?*".contains(c)) {
        return Err(BadPath::Character(bad));
    }
    if name.ends_with([' ', '.']) {
        return Err(BadPath::Ending);
    }
    // Spaces before the extension are dropped, too.
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let is_numbered = NUMBERED.iter().any(|device| {
        let digit = stem.strip_prefix(device).map(|rest| rest.chars().collect::<Vec<_>>());
        matches!(digit.as_deref(), Some(&[digit]) if DIGITS.contains(digit))
    });
    if is_numbered || DEVICES.contains(&stem.as_str()) { Err(BadPath::Device) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::path;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn a_path_on_a_drive_is_written_so_that_nothing_changes_it() {
        let cases =
            [("/C:", r"\\?\C:\"), ("/C:/Users/u/ü b", r"\\?\C:\Users\u\ü b"), ("/D:/.git", r"\\?\D:\.git")];
        for (at, written) in cases {
            assert_eq!(WindowsPath::new(&path(at)).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_windows_would_read_as_something_else_is_none() {
        let cases = [
            ("/", BadPath::NoDrive),
            ("/home/u", BadPath::NoDrive),
            ("/c:/x", BadPath::NoDrive),
            ("/CC:/x", BadPath::NoDrive),
            ("/?/C:/x", BadPath::NoDrive),
            ("/C:/a\\..\\b", BadPath::Character('\\')),
            ("/C:/a:stream", BadPath::Character(':')),
            ("/C:/a*", BadPath::Character('*')),
            ("/C:/a\n", BadPath::Character('\n')),
            ("/C:/a.", BadPath::Ending),
            ("/C:/a /b", BadPath::Ending),
            ("/C:/.../b", BadPath::Ending),
            ("/C:/nul", BadPath::Device),
            ("/C:/x/Con.txt", BadPath::Device),
            ("/C:/aux .c", BadPath::Device),
            ("/C:/com7", BadPath::Device),
            ("/C:/LPT².log", BadPath::Device),
        ];
        for (at, because) in cases {
            assert_eq!(WindowsPath::new(&path(at)), Err(because), "{at}");
        }
        assert_eq!(WindowsPath::new(&AbsPath::new(&b"/C:/\xff"[..]).unwrap()), Err(BadPath::NotText));
        for fine in ["/C:/console", "/C:/com", "/C:/com10", "/C:/nul-x", "/C:/.nul"] {
            assert!(WindowsPath::new(&path(fine)).is_ok(), "{fine}");
        }
    }

    #[test]
    fn below_is_by_names() {
        let windows = |at: &str| WindowsPath::new(&path(at)).unwrap();
        assert!(windows("/C:/a/b").starts_with(&windows("/C:/a")));
        assert!(windows("/C:/a").starts_with(&windows("/C:")));
        assert!(!windows("/C:/ab").starts_with(&windows("/C:/a")));
    }

    #[test]
    fn fuzz_a_windows_path_has_the_parts_that_were_written() {
        let samples = Samples {
            whole: &[b"C:/Users/u/proj", b"D:/a b/.git/hooks", b"C:/com1.txt", b"C:/x\\y", b"C:/\xc3\xbc"],
            words: &[b"C:", b"/", b"\\", b".", b" ", b"nul", b"COM", b"1", b"a", b":", b"*", b"\xc2\xb2"],
        };
        fuzz("windows paths", samples, |input| {
            let Ok(at) = AbsPath::new([b"/", input].concat()) else { return Took::Refused };
            let Ok(read) = WindowsPath::new(&at) else { return Took::Refused };
            let written = read.to_string();
            let parts: Vec<&str> = written[4..].split('\\').filter(|part| !part.is_empty()).collect();
            let given: Vec<&[u8]> = at.components().collect();
            assert_eq!(parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>(), given);
            assert!(
                parts[1..]
                    .iter()
                    .all(|part| !part.contains([':', '/', '?', '*']) && !part.ends_with(['.', ' ']))
            );
            Took::Understood
        });
    }
}
