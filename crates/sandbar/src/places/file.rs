//! `environments.toml`: the places that a person gave names.
//!
//! Has the members of the file of Codex 0.169 that mean something here, and refuses all others. What a person wrote
//! beside it, comments and order, stays when a command changes it.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbar_rpc::connect::{ConnectUrl, ConnectUrlError};
use serde::Deserialize;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{LOCAL, NONE};
use crate::dirs::Directories;
use crate::exit;
use crate::render::{Problem, note};

/// Its name in the configuration folder.
pub(super) const NAME: &str = "environments.toml";

/// Longest name of a place.
const MAX_NAME: usize = 64;

/// How a place is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// At an address.
    Url(ConnectUrl),
    /// By a program whose standard streams lead there.
    Program {
        /// Its name or path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// Variables besides our own.
        env: Vec<(String, String)>,
    },
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Program { program, args, .. } => {
                f.write_str(program)?;
                args.iter().try_for_each(|argument| write!(f, " {argument}"))
            }
        }
    }
}

impl Reach {
    /// Reads an address. `ssh://[USER@]HOST[:PORT]` is the person's own ssh, with `sandbar serve` at the other end.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        match text.strip_prefix("ssh://") {
            Some(rest) => Self::ssh(rest, "sandbar").ok_or_else(|| {
                Problem::new(format!("unsupported URL `{text}`; expected `ssh://[USER@]HOST[:PORT]`"))
                    .status(exit::USAGE)
            }),
            None => text
                .parse()
                .map(Self::Url)
                .map_err(|error: ConnectUrlError| Problem::new(error).status(exit::USAGE)),
        }
    }

    /// ssh to a machine whose program is called `program`.
    pub(crate) fn ssh(rest: &str, program: &str) -> Option<Self> {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(']') || port.parse::<u16>().is_ok() => {
                (host, Some(port.parse::<u16>().ok()?))
            }
            _ => (rest, None),
        };
        // ssh would take a leading dash for an option.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/'\"\\$`;&|<>()*?~#!{}".contains(&byte);
        if host.is_empty() || host.starts_with('-') || !host.bytes().all(is_plain) {
            return None;
        }
        let mut args = vec!["-T".to_owned()];
        if let Some(port) = port {
            args.extend(["-p".to_owned(), port.to_string()]);
        }
        // The other machine's shell reads this; whoever names a program there knows how it wants to be quoted.
        args.extend([host, program, "serve", "--listen", "stdio"].map(str::to_owned));
        Some(Self::Program { program: "ssh".to_owned(), args, env: Vec::new() })
    }
}

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name, or its address where it has none.
    pub(crate) name: String,
    /// How it is reached.
    pub(crate) reach: Reach,
    /// The token itself.
    pub(crate) token: Option<String>,
    /// Where its token is.
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// How long it may take until the server has greeted.
    pub(crate) connect_timeout: Option<Duration>,
}

impl Place {
    /// One with nothing but a way to it.
    pub(crate) fn new(name: &str, reach: Reach) -> Self {
        let name = name.to_owned();
        Self { name, reach, token: None, token_file: None, ca_file: None, connect_timeout: None }
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    default: Option<String>,
    #[serde(default)]
    environments: Vec<WrittenPlace>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlace {
    id: String,
    url: Option<String>,
    auth_bearer_token: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    program: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: std::collections::BTreeMap<String, String>,
    connect_timeout_sec: Option<f64>,
}

/// What others than its owner may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exposure {
    /// Nothing.
    None,
    /// Read it.
    Readable,
    /// Write it.
    Writable,
}

impl Exposure {
    /// That of a mode. With an access control list its bits for the group say the most that the list gives (acl(5)).
    fn of(mode: u32) -> Self {
        match mode & 0o077 {
            0 => Self::None,
            bits if bits & 0o022 != 0 => Self::Writable,
            _ => Self::Readable,
        }
    }
}

/// Reads a file, and the mode of what was read.
fn read_with_mode(path: &Path) -> std::io::Result<(String, u32)> {
    let mut file = std::fs::File::open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, file.metadata()?.mode()))
}

/// The file. One that is not there is empty.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    text: String,
    written: Written,
}

impl File {
    /// Reads it.
    ///
    /// # Errors
    /// It can't be read, or says something that means nothing.
    pub(crate) fn read(directories: &Directories) -> Result<Self, Problem> {
        let path = directories.own.config.as_path().join(NAME);
        let (text, mode) = match read_with_mode(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (String::new(), 0),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let file = Self::parse(path, text)?;
        if file.holds_token() {
            file.check(Exposure::of(mode))?;
        }
        Ok(file)
    }

    fn holds_token(&self) -> bool {
        self.written.environments.iter().any(|place| place.auth_bearer_token.is_some())
    }

    /// Refuses a token that somebody else may have put there, and tells of one that somebody else may know.
    fn check(&self, exposure: Exposure) -> Result<(), Problem> {
        // One command may read the file several times.
        static TOLD: std::sync::Once = std::sync::Once::new();
        let path = self.path.display();
        match exposure {
            Exposure::None => Ok(()),
            Exposure::Readable => {
                TOLD.call_once(|| {
                    note(format_args!(
                        "others may read {path}, which holds a token; `chmod 600 {path}` keeps it yours."
                    ));
                });
                Ok(())
            }
            Exposure::Writable => {
                Err(Problem::new("could not use the places: others may write the file, which holds a token")
                    .at(&path)
                    .advise(format!("see that what it says is yours, then `chmod 600 {path}`"))
                    .status(exit::CANNOT_RUN))
            }
        }
    }

    fn parse(path: PathBuf, text: String) -> Result<Self, Problem> {
        let written: Written =
            toml_edit::de::from_str(&text).map_err(|error| unreadable(&path, &error.to_string().trim()))?;
        let file = Self { path, text, written };
        for (at, place) in file.written.environments.iter().enumerate() {
            check_name(&place.id).map_err(|problem| problem.at(file.path.display()))?;
            if file.written.environments[..at].iter().any(|other| other.id == place.id) {
                return Err(unreadable(&file.path, &format!("{:?} is there twice", place.id)));
            }
        }
        Ok(file)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is used where nothing else is said.
    pub(crate) fn default(&self) -> Option<String> {
        self.written.default.clone()
    }

    /// Every name, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.written.environments.iter().map(|place| place.id.clone()).collect()
    }

    /// The place of that name.
    ///
    /// # Errors
    /// What is written of it makes no sense.
    pub(crate) fn place(&self, name: &str) -> Result<Option<Place>, Problem> {
        let Some(written) = self.written.environments.iter().find(|place| place.id == name) else {
            return Ok(None);
        };
        let wrong = |why: &str| unreadable(&self.path, &format!("{name}: {why}"));
        let reach = match (&written.url, &written.program) {
            (Some(url), None) if written.args.is_empty() && written.env.is_empty() => {
                Reach::parse(url).map_err(|problem| problem.at(self.path.display()))?
            }
            (None, Some(program)) => Reach::Program {
                program: program.clone(),
                args: written.args.clone(),
                env: written.env.clone().into_iter().collect(),
            },
            (Some(_), None) => return Err(wrong("`args` and `env` belong to a `program`")),
            (Some(_), Some(_)) | (None, None) => {
                return Err(wrong("it needs either `url` or `program`, and not both"));
            }
        };
        let seconds = written.connect_timeout_sec.map(Duration::try_from_secs_f64).transpose();
        Ok(Some(Place {
            name: name.to_owned(),
            reach,
            token: written.auth_bearer_token.clone(),
            token_file: written.token_file.clone(),
            ca_file: written.ca_file.clone(),
            connect_timeout: seconds.map_err(|_| wrong("`connect_timeout_sec` is no time"))?,
        }))
    }

    /// Adds a place, and makes it the default if that is wished.
    ///
    /// # Errors
    /// The name is taken or none; the file can't be written.
    pub(crate) fn add(&self, place: &Place, is_default: bool) -> Result<(), Problem> {
        check_name(&place.name)?;
        if self.names().contains(&place.name) {
            return Err(Problem::new(format!("a place is named {:?} already", place.name))
                .at(self.path.display())
                .advise(format!("choose another name, or `sandbar env remove {}` first", place.name)));
        }
        let mut document = self.document()?;
        let mut table = Table::new();
        table["id"] = value(&place.name);
        match &place.reach {
            Reach::Url(url) => table["url"] = value(url.to_string()),
            Reach::Program { program, args, env } => {
                table["program"] = value(program);
                table["args"] = value(args.iter().map(String::as_str).collect::<toml_edit::Array>());
                if !env.is_empty() {
                    let pairs = env.iter().map(|(name, text)| (name.as_str(), text.as_str()));
                    table["env"] = value(pairs.collect::<toml_edit::InlineTable>());
                }
            }
        }
        for (name, path) in [("token_file", &place.token_file), ("ca_file", &place.ca_file)] {
            if let Some(path) = path {
                let text = path.to_str().ok_or_else(|| {
                    Problem::new("could not write a path that is not UTF-8").at(path.display())
                })?;
                table[name] = value(text);
            }
        }
        let places = document.entry("environments").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let places = places.as_array_of_tables_mut().ok_or_else(|| {
            unreadable(&self.path, &"`environments` is written in one line; write `[[environments]]`")
        })?;
        places.push(table);
        if is_default {
            document["default"] = value(&place.name);
        }
        self.write(&document.to_string())
    }

    /// Removes a place; it is the default no more if it was.
    ///
    /// # Errors
    /// There is none of that name, or the file can't be written.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Problem> {
        let mut document = self.document()?;
        let Some(places) = document.get_mut("environments").and_then(Item::as_array_of_tables_mut) else {
            return Err(no_place(name, &self.path));
        };
        let before = places.len();
        places.retain(|table| table.get("id").and_then(Item::as_str) != Some(name));
        if places.len() == before {
            return Err(no_place(name, &self.path));
        }
        let mut above = String::new();
        if self.written.default.as_deref() == Some(name) {
            // What stands above it is mostly about the whole file.
            let prefix = document.key("default").and_then(|key| key.leaf_decor().prefix()?.as_str());
            above = prefix.unwrap_or_default().to_owned();
            document.remove("default");
        }
        self.write(&format!("{above}{document}"))
    }

    fn document(&self) -> Result<DocumentMut, Problem> {
        self.text.parse().map_err(|error: toml_edit::TomlError| unreadable(&self.path, &error))
    }

    /// Writes it, whole or not at all, for its owner alone: there may be a token in it.
    fn write(&self, text: &str) -> Result<(), Problem> {
        let failed = |error: &dyn fmt::Display| {
            Problem::new(format!("could not write the file: {error}")).at(self.path.display())
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        // Somebody may have written meanwhile; what they wrote is not thrown away.
        let now = std::fs::read_to_string(&self.path).unwrap_or_default();
        if now != self.text {
            return Err(failed(&"somebody else changed it in this moment").advise("try again"));
        }
        let mut new = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        let written = new.write_all(text.as_bytes()).and_then(|()| new.as_file().sync_all());
        written.map_err(|error| failed(&error))?;
        new.persist(&self.path).map_err(|error| failed(&error.error))?;
        Ok(())
    }
}

fn unreadable(path: &Path, why: &dyn fmt::Display) -> Problem {
    Problem::new(format!("could not read the places: {why}"))
        .at(path.display())
        .advise("mend the file, or remove it")
        .status(exit::CANNOT_RUN)
}

fn no_place(name: &str, path: &Path) -> Problem {
    Problem::new(format!("no place is named {name:?}"))
        .at(path.display())
        .advise("`sandbar env list` lists them")
}

fn check_name(name: &str) -> Result<(), Problem> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_taken = [LOCAL, NONE].iter().any(|taken| name.eq_ignore_ascii_case(taken));
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) || is_taken {
        return Err(Problem::new(format!("no place can be named {name:?}"))
            .advise(format!("use up to {MAX_NAME} letters, digits, - and _; `local` and `none` are taken"))
            .status(exit::USAGE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<File, String> {
        File::parse("/x".into(), text.to_owned()).map_err(|problem| problem.what)
    }

    #[test]
    fn an_address_of_ssh_is_its_command() {
        let command = |text: &str| Reach::parse(text).map(|reach| reach.to_string()).map_err(|_| ());
        let serve = "sandbar serve --listen stdio";
        assert_eq!(command("ssh://box"), Ok(format!("ssh -T box {serve}")));
        assert_eq!(command("ssh://ada@box:2222/"), Ok(format!("ssh -T -p 2222 ada@box {serve}")));
        for bad in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a b",
            "ssh://h:x",
            "ssh://h/path",
            "ssh://$(x)",
            "http://a",
        ] {
            assert_eq!(command(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let place = |text: &str| {
            let file = file(&format!("[[environments]]\nid = \"a\"\n{text}"))?;
            file.place("a").map(|place| place.unwrap().reach.to_string()).map_err(|problem| problem.what)
        };
        assert_eq!(place("url = \"ws://h:1\""), Ok("ws://h:1".to_owned()));
        assert_eq!(place("program = \"x\"\nargs = [\"y\"]"), Ok("x y".to_owned()));
        for bad in [
            "",
            "url = \"http://h\"",
            "url = \"ws://h:1\"\nprogram = \"x\"",
            "url = \"ws://h:1\"\nargs = [\"y\"]",
            "url = \"ws://h:1\"\nconnect_timeout_sec = -1.0",
            "url = \"ws://h:1\"\nskills = []",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
        for bad in
            ["[[environments]]\nid = \"local\"\n", "[[environments]]\nid = \"a b\"\n", "x = 1", "default ="]
        {
            assert!(file(bad).is_err(), "{bad}");
        }
        assert!(file("[[environments]]\nid = \"a\"\n[[environments]]\nid = \"a\"").is_err(), "twice");
    }

    #[test]
    fn others_may_neither_write_nor_read_a_token() {
        let exposure = [0o600, 0o400, 0o644, 0o640, 0o604, 0o601, 0o620, 0o602, 0o666].map(Exposure::of);
        use Exposure::{None, Readable, Writable};
        let expected = [None, None, Readable, Readable, Readable, Readable, Writable, Writable, Writable];
        assert_eq!(exposure, expected);
    }

    #[test]
    fn what_a_person_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::below(folder.path());
        let read = || File::read(&directories).unwrap();
        let place = |name: &str| Place::new(name, Reach::parse("ssh://box").unwrap());
        read().add(&place("one"), true).unwrap();
        let path = read().path().to_owned();
        let text = format!("# mine\n{}", std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, text).unwrap();
        read().add(&place("two"), false).unwrap();
        assert_eq!(read().names(), ["one", "two"]);
        assert_eq!(read().place("two").unwrap(), Some(place("two")));
        assert!(read().add(&place("two"), false).is_err());
        read().remove("one").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("# mine") && read().default().is_none() && read().names() == ["two"], "{text}");
        assert!(read().remove("one").is_err());
    }
}
