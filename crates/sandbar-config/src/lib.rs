//! Settings that a person wrote, with the line that each stands on.
//!
//! One file, `config.toml` in Sandbar's configuration directory, is read as a whole: what means nothing is an error with file and
//! line, never passed over, since a misspelt restriction would restrict nothing. A file that others may write is refused. What a
//! setting means is said elsewhere: profiles by `sandbar-policy`.
//!
//! Deliberately not here: looking for the file, telling errors to people, and, so far, further layers.

#![forbid(unsafe_code)]

mod profiles;

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sandbar_policy::ProfileTable;
use sandbar_proto::ByteString;
use toml_edit::{Document, Item};

/// The name of the file in the configuration directory.
pub const NAME: &str = "config.toml";

/// open(2), the same on every Linux that is supported.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// A longer file is none that a person wrote.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What a person set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[permissions.NAME]`, in the order of the file.
    pub profiles: Vec<ProfileTable>,
}

impl Settings {
    /// The profile of that name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&ProfileTable> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("could not read {}: {source}", file.display())]
    Read {
        /// It.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else may have written it.
    #[error("{} may be written by others, so what it allows is not believed", file.display())]
    WritableByOthers {
        /// It.
        file: PathBuf,
    },
    /// It is no TOML.
    #[error("{at}: {what}")]
    Syntax {
        /// Where.
        at: Place,
        /// What the parser says.
        what: String,
    },
    /// It has a key that means nothing.
    #[error("{at}: nothing is called `{key}` here; known are {}", known.join(", "))]
    UnknownKey {
        /// Where.
        at: Place,
        /// The key.
        key: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A value is not what it has to be.
    #[error("{at}: `{key}` must be {wanted}")]
    Value {
        /// Where.
        at: Place,
        /// Of which key.
        key: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A profile has the name of a built-in one.
    #[error("{at}: `{name}` is built in, and can't be another profile")]
    BuiltIn {
        /// Where.
        at: Place,
        /// The name.
        name: String,
    },
}

/// Reads the file at `path`; without one nothing is set.
///
/// # Errors
/// [`ConfigError`].
pub fn read(path: &Path) -> Result<Settings, ConfigError> {
    let failed = |source| ConfigError::Read { file: path.to_owned(), source };
    // Opened without waiting: a FIFO of that name has nothing to say.
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    // Whoever owns the file, or may exchange it, may say anything in it.
    let owners = [0, rustix::process::geteuid().as_raw()];
    let directory = path.parent().map(std::fs::metadata).transpose().map_err(failed)?;
    let is_others = |metadata: &std::fs::Metadata| {
        metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 || !owners.contains(&metadata.uid())
    };
    if is_others(&metadata) || directory.as_ref().is_some_and(is_others) {
        return Err(ConfigError::WritableByOthers { file: path.to_owned() });
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    parse(path, text)
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// [`ConfigError`].
pub fn parse(path: &Path, text: String) -> Result<Settings, ConfigError> {
    let source = Source { file: path.to_owned(), breaks: line_breaks(&text) };
    let document = Document::parse(text).map_err(|error| ConfigError::Syntax {
        at: source.place(error.span()),
        what: error.message().trim().to_owned(),
    })?;
    let mut settings = Settings::default();
    for (key, item) in document.as_table() {
        match key {
            "permissions" => settings.profiles = profiles::read(&source, item)?,
            _ => return Err(source.unknown(key, item, &["permissions"])),
        }
    }
    Ok(settings)
}

fn line_breaks(text: &str) -> Vec<usize> {
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

/// A file, to say where something stands in it.
struct Source {
    file: PathBuf,
    breaks: Vec<usize>,
}

impl Source {
    fn line(&self, span: Option<std::ops::Range<usize>>) -> u32 {
        let before = span.map(|span| self.breaks.partition_point(|at| *at < span.start));
        before.map_or(0, |before| u32::try_from(before + 1).unwrap_or(u32::MAX))
    }

    fn place(&self, span: Option<std::ops::Range<usize>>) -> Place {
        Place { file: self.file.clone(), line: self.line(span) }
    }

    fn origin(&self, span: Option<std::ops::Range<usize>>) -> sandbar_policy::Origin {
        use std::os::unix::ffi::OsStrExt as _;
        let file = ByteString::from(self.file.as_os_str().as_bytes());
        sandbar_policy::Origin::Line { file, line: self.line(span) }
    }

    fn unknown(&self, key: &str, item: &Item, known: &[&'static str]) -> ConfigError {
        ConfigError::UnknownKey { at: self.place(item.span()), key: key.to_owned(), known: known.to_vec() }
    }

    fn wrong(&self, key: &str, item: &Item, wanted: &'static str) -> ConfigError {
        ConfigError::Value { at: self.place(item.span()), key: key.to_owned(), wanted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn without_a_file_nothing_is_set() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join(NAME)).unwrap(), Settings::default());
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, "[permissions.x.filesystem]\n").unwrap();
        for (mode, is_refused) in [(0o600, false), (0o644, false), (0o664, true), (0o646, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = matches!(read(&path), Err(ConfigError::WritableByOthers { .. }));
            assert_eq!(refused, is_refused, "{mode:o}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = |text: &str| parse(Path::new("c.toml"), text.to_owned()).unwrap_err().to_string();
        assert!(error("\n\nx = [").starts_with("c.toml:3: "), "{}", error("\n\nx = ["));
        assert_eq!(
            error("\npermisions = 1\n"),
            "c.toml:2: nothing is called `permisions` here; known are permissions"
        );
    }

    #[test]
    fn fuzz_settings_are_read_or_refused() {
        let samples = Samples {
            whole: &[
                b"[permissions.a]\nextends = \"workspace\"\n[permissions.a.filesystem]\n\"/x\" = \"read\"\n",
                b"permissions.a.filesystem.':cwd' = { '.' = 'write', '**/*.env' = 'none' }\n",
                b"[permissions.b.network]\nenabled = true\n",
            ],
            words: &[
                b"permissions",
                b"filesystem",
                b"=",
                b"\"read\"",
                b".",
                b"[",
                b"]",
                b"{",
                b"}",
                b"\n",
                b"/**",
            ],
        };
        fuzz("config", samples, |input| {
            let Ok(text) = std::str::from_utf8(input) else { return Took::Refused };
            Took::if_understood(parse(Path::new("c.toml"), text.to_owned()).is_ok())
        });
    }
}
