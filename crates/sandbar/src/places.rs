//! Places where commands run, as a person names them: `--on`, two environment variables, `environments.toml`.
//!
//! The first of these that says something decides: `--on`; `SANDBAR_EXEC_SERVER_URL`, or `CODEX_EXEC_SERVER_URL` when
//! that one is unset; the file's `default`; this machine. A place that was named and can't be had is an error: nothing
//! falls back to this machine.

mod file;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use sandbar_exec::remote::dial::{AtUrl, ByProgram, Token};
use sandbar_exec::remote::{Remote, RemoteError, Settings};
use sandbar_rpc::connect;

use crate::cli::OnArgs;
use crate::dirs::Directories;
use crate::exit;
use crate::render::{Problem, note};
pub(crate) use file::{File, Place, Reach};

/// Names of the variables, ours first.
const VARIABLES: [&str; 2] = ["SANDBAR_EXEC_SERVER_URL", "CODEX_EXEC_SERVER_URL"];

/// File with the token for the server that a variable names.
const TOKEN_FILE: &str = "SANDBAR_EXEC_SERVER_TOKEN_FILE";

/// This machine.
pub(crate) const LOCAL: &str = "local";

/// Nowhere.
pub(crate) const NONE: &str = "none";

/// Where something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// Here.
    Local,
    /// There.
    Elsewhere(Place),
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// `--on`, or a name that was typed.
    Flag,
    /// A variable.
    Variable(&'static str),
    /// The file.
    File,
    /// Nothing.
    Nothing,
}

/// Finds where something happens.
///
/// # Errors
/// The name is none, or commands are switched off.
pub(crate) fn find(on: &OnArgs, directories: &Directories) -> Result<Where, Problem> {
    choose(on.on.as_deref(), &|name| std::env::var_os(name), directories).map(|(place, _)| place)
}

/// As [`find`], with what decided it.
///
/// # Errors
/// As [`find`].
pub(crate) fn choose(
    on: Option<&str>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    directories: &Directories,
) -> Result<(Where, Said), Problem> {
    if let Some(name) = on {
        return named(name, None, directories).map(|place| (place, Said::Flag));
    }
    let value_of = |name| variable(name).filter(|value| !value.is_empty());
    if let Some((name, value)) = VARIABLES.into_iter().find_map(|name| Some((name, value_of(name)?))) {
        let value = value.into_string().map_err(|value| {
            Problem::new(format!("could not read the address {}", value.display())).at(name)
        })?;
        if value.eq_ignore_ascii_case(NONE) {
            return Err(switched_off(name));
        }
        let token = variable(TOKEN_FILE).map(PathBuf::from);
        // An address: a name would change its meaning with the file.
        let reach = Reach::parse(&value).map_err(|problem| problem.at(name))?;
        let place = Place { token_file: token, ..Place::new(&value, reach) };
        return Ok((Where::Elsewhere(place), Said::Variable(name)));
    }
    let file = File::read(directories)?;
    match file.default() {
        None => Ok((Where::Local, Said::Nothing)),
        Some(name) if name.eq_ignore_ascii_case(NONE) => Err(switched_off(file.path().display())),
        Some(name) => named(&name, Some(file), directories).map(|place| (place, Said::File)),
    }
}

fn switched_off(place: impl std::fmt::Display) -> Problem {
    Problem::new("no commands run here: they are switched off")
        .at(place)
        .advise("choose a place with --on; `--on local` is this machine")
        .status(exit::CANNOT_RUN)
}

fn named(name: &str, file: Option<File>, directories: &Directories) -> Result<Where, Problem> {
    if name == LOCAL {
        return Ok(Where::Local);
    }
    if name.contains(':') {
        return Ok(Where::Elsewhere(Place::new(name, Reach::parse(name)?)));
    }
    let file = match file {
        Some(file) => file,
        None => File::read(directories)?,
    };
    match file.place(name)? {
        Some(place) => Ok(Where::Elsewhere(place)),
        None => Err(Problem::new(format!("no place is named {name:?}"))
            .at(file.path().display())
            .advise("`sandbar env list` lists them; `sandbar env add` adds one")
            .status(exit::CANNOT_RUN)),
    }
}

/// A client of the place. Connects when it is first used.
pub(crate) fn remote(place: &Place) -> Remote {
    let settings = Settings::default();
    match &place.reach {
        Reach::Url(url) => {
            let timeout = place.connect_timeout.unwrap_or(connect::Settings::default().connect_timeout);
            let settings_of_link = connect::Settings {
                connect_timeout: timeout,
                authorities: place.ca_file.clone(),
                resolver: Some(resolver()),
                ..connect::Settings::default()
            };
            let token = match (&place.token, &place.token_file) {
                (Some(token), _) => Some(Token::Value(token.clone())),
                (None, Some(file)) => Some(Token::File(file.clone())),
                (None, None) => None,
            };
            let dial = AtUrl {
                url: url.clone(),
                settings: settings_of_link,
                token,
                deadline: place.connect_timeout,
            };
            Remote::new(dial, CLIENT, settings)
        }
        Reach::Program { program, args, env } => {
            let mut all: Vec<(OsString, OsString)> = std::env::vars_os().collect();
            all.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
            let args = args.iter().map(OsString::from).collect();
            let dial = ByProgram { program: program.into(), args, env: all, deadline: place.connect_timeout };
            Remote::new(dial, CLIENT, settings)
        }
    }
}

const CLIENT: &str = "sandbar";

/// The system's own resolver, on a thread that may wait.
fn resolver() -> connect::Resolver {
    use std::net::ToSocketAddrs as _;
    std::sync::Arc::new(|host, port| {
        Box::pin(async move {
            let looked_up = tokio::task::spawn_blocking(move || {
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
            });
            looked_up.await.map_err(std::io::Error::other)?
        })
    })
}

/// Says when a connection is lost and when it is back, for as long as it is polled.
pub(crate) async fn tell_breaks(remote: &Remote, name: &str) {
    loop {
        remote.until_lost().await;
        // What is back at once is not worth a word.
        if tokio::time::timeout(QUIET, remote.until_back()).await.is_ok() {
            continue;
        }
        note(format_args!("lost the connection to {name}; trying again. What runs there goes on."));
        if !remote.until_back().await {
            return;
        }
        note(format_args!("connected to {name} again."));
    }
}

const QUIET: Duration = Duration::from_secs(1);

/// What went wrong elsewhere, for people.
pub(crate) fn problem(what: &str, place: &Place, error: &RemoteError) -> Problem {
    let problem = Problem::new(format!("could not {what}: {error}"))
        .at(format!("{} ({})", place.name, place.reach))
        .status(exit::CANNOT_RUN);
    match error {
        RemoteError::Gone(_) => problem.advise(
            "see that `sandbar serve` runs there; `sandbar env check` says what a connection comes to",
        ),
        RemoteError::NotOurs => problem.advise("start `sandbar serve` there"),
        RemoteError::Unanswered(_)
        | RemoteError::Refused(_)
        | RemoteError::Unsendable(_)
        | RemoteError::Answer { .. } => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(on: Option<&str>, variables: &[(&str, &str)], text: &str) -> Result<(String, Said), String> {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories::below(folder.path());
        let config = directories.own.config.as_path();
        std::fs::create_dir_all(config).unwrap();
        std::fs::write(config.join(file::NAME), text).unwrap();
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        match choose(on, &variable, &directories) {
            Ok((Where::Local, said)) => Ok((LOCAL.to_owned(), said)),
            Ok((Where::Elsewhere(place), said)) => Ok((place.reach.to_string(), said)),
            Err(problem) => Err(problem.what),
        }
    }

    const FILE: &str = "default = \"box\"\n[[environments]]\nid = \"box\"\nurl = \"ws://b:1\"\n";

    #[test]
    fn the_first_that_says_something_decides() {
        let ours = ("SANDBAR_EXEC_SERVER_URL", "unix:/s");
        let theirs = ("CODEX_EXEC_SERVER_URL", "ws://c:2");
        type Row<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a str, &'a str, Said);
        let table: [Row<'_>; 7] = [
            (None, &[], "", "local", Said::Nothing),
            (None, &[], FILE, "ws://b:1", Said::File),
            (None, &[theirs], FILE, "ws://c:2", Said::Variable("CODEX_EXEC_SERVER_URL")),
            (None, &[theirs, ours], FILE, "unix:/s", Said::Variable("SANDBAR_EXEC_SERVER_URL")),
            (Some("box"), &[ours], FILE, "ws://b:1", Said::Flag),
            (Some("local"), &[ours], FILE, "local", Said::Flag),
            (Some("ssh://h"), &[ours], "", "ssh -T h sandbar serve --listen stdio", Said::Flag),
        ];
        for (on, variables, text, place, said) in table {
            assert_eq!(chosen(on, variables, text), Ok((place.to_owned(), said)), "{on:?} {variables:?}");
        }
    }

    #[test]
    fn what_is_switched_off_or_unknown_does_not_happen_here_instead() {
        let off = "no commands run here: they are switched off";
        assert_eq!(chosen(None, &[("SANDBAR_EXEC_SERVER_URL", "none")], FILE), Err(off.to_owned()));
        assert_eq!(chosen(None, &[("CODEX_EXEC_SERVER_URL", "None")], ""), Err(off.to_owned()));
        let empty = [("SANDBAR_EXEC_SERVER_URL", ""), ("CODEX_EXEC_SERVER_URL", "none")];
        assert_eq!(chosen(None, &empty, ""), Err(off.to_owned()), "an empty one is unset");
        assert_eq!(chosen(None, &[], "default = \"none\""), Err(off.to_owned()));
        assert_eq!(chosen(Some("nowhere"), &[], FILE), Err("no place is named \"nowhere\"".to_owned()));
        assert!(chosen(None, &[("SANDBAR_EXEC_SERVER_URL", "box")], FILE).is_err(), "no address");
        assert!(chosen(None, &[], "default = \"gone\"").is_err());
    }
}
