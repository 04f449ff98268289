//! `sandbar env`: the places where commands run.

use std::time::{Duration, Instant};

use sandbar_proto::exec::EnvironmentInfo;
use serde::Serialize;

use crate::cli::{EnvAddArgs, EnvCheckArgs, EnvCommand, EnvListArgs, EnvRemoveArgs};
use crate::dirs::Directories;
use crate::escape::{Layout, escape};
use crate::places::{self, File, LOCAL, Place, Reach, Said, Where};
use crate::render::{Problem, note};
use crate::table::Table;
use crate::{event_loop, exit, output};

/// How long a place may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries a command out.
///
/// # Errors
/// The file can't be read or written, a place can't be reached.
pub(super) fn execute(command: &EnvCommand) -> Result<u8, Problem> {
    let directories = Directories::find()?;
    match command {
        EnvCommand::List(args) => list(args, &directories),
        EnvCommand::Add(args) => add(args, &directories),
        EnvCommand::Check(args) => check(args, &directories),
        EnvCommand::Remove(args) => remove(args, &directories),
    }
}

/// One place. docs/json.md describes it.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(rename = "where")]
    place: Option<String>,
    used: bool,
}

fn list(args: &EnvListArgs, directories: &Directories) -> Result<u8, Problem> {
    let file = File::read(directories)?;
    let chosen = places::choose(None, &|name| std::env::var_os(name), directories);
    let used = chosen.as_ref().ok().map(|(place, _)| match place {
        Where::Local => LOCAL.to_owned(),
        Where::Elsewhere(place) => place.name.clone(),
    });
    let is_used = |name: &str| used.as_deref() == Some(name);
    let mut entries = vec![Entry { name: LOCAL.to_owned(), place: None, used: is_used(LOCAL) }];
    for name in file.names() {
        let place = file.place(&name)?.map(|place| place.reach.to_string());
        entries.push(Entry { used: is_used(&name), name, place });
    }
    if let Ok((Where::Elsewhere(place), Said::Variable(variable))) = &chosen {
        let place = Some(place.reach.to_string());
        entries.push(Entry { name: variable.to_string(), place, used: true });
    }
    if args.json {
        return output::print_json(&entries);
    }
    let mut table = Table::with_header(&["USED", "NAME", "WHERE"]);
    for entry in entries {
        let place = entry.place.unwrap_or_else(|| "this machine".to_owned());
        table.row(vec![if entry.used { "*" } else { "" }.to_owned(), entry.name, place]);
    }
    output::print(table.text(output::terminal_width()))?;
    // Last, so that what is wrong with the choice does not hide the places.
    chosen.map(|_| exit::OK)
}

fn add(args: &EnvAddArgs, directories: &Directories) -> Result<u8, Problem> {
    let reach = match (&args.program, args.url.strip_prefix("ssh://")) {
        (Some(program), Some(rest)) => Reach::ssh(rest, program)
            .ok_or_else(|| Problem::new(format!("unsupported URL `{}`", args.url)).status(exit::USAGE))?,
        (Some(_), None) => {
            return Err(Problem::new("only a place that ssh leads to has a program to name")
                .at("--program")
                .status(exit::USAGE));
        }
        (None, _) => Reach::parse(&args.url)?,
    };
    let is_ssh = matches!(reach, Reach::Program { .. });
    if is_ssh && (args.token_file.is_some() || args.ca_file.is_some()) {
        return Err(Problem::new("ssh knows who you are by itself: there is no token or authority to name")
            .at("--token-file, --ca-file")
            .status(exit::USAGE));
    }
    let absolute = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map(std::path::absolute)
            .transpose()
            .map_err(|error| Problem::new(format!("could not find the working directory: {error}")))
    };
    let place = Place {
        token_file: absolute(&args.token_file)?,
        ca_file: absolute(&args.ca_file)?,
        ..Place::new(&args.name, reach)
    };
    File::read(directories)?.add(&place, args.default)?;
    note(format_args!("added {}; `sandbar env check {}` connects to it.", place.name, place.name));
    Ok(exit::OK)
}

fn remove(args: &EnvRemoveArgs, directories: &Directories) -> Result<u8, Problem> {
    File::read(directories)?.remove(&args.name)?;
    Ok(exit::OK)
}

/// What a connection came to. docs/json.md describes it.
#[derive(Serialize)]
struct Checked {
    name: String,
    #[serde(rename = "where")]
    place: String,
    connected_ms: u128,
    answered_us: u128,
    extensions: bool,
    info: Option<EnvironmentInfo>,
}

fn check(args: &EnvCheckArgs, directories: &Directories) -> Result<u8, Problem> {
    let variable = |name: &str| std::env::var_os(name);
    let place = match places::choose(args.name.as_deref(), &variable, directories)?.0 {
        Where::Elsewhere(place) => place,
        Where::Local => {
            note("this machine needs no connection; `sandbar doctor` checks it.");
            return Ok(exit::OK);
        }
    };
    let late = || {
        Problem::new(format!("{} has not answered for {} s", place.name, PATIENCE.as_secs())).at(&place.reach)
    };
    let checked = event_loop::block_on(async {
        let asked = tokio::time::timeout(PATIENCE, ask(&place)).await;
        asked.unwrap_or_else(|_| Err(late()))
    })?;
    if args.json {
        return output::print_json(&checked);
    }
    let info = checked.info.as_ref();
    let version = info.and_then(|info| info.executor_version.as_deref()).unwrap_or("of an unknown version");
    let system = info.and_then(|info| info.platform_os.as_deref()).unwrap_or("an unknown system");
    let cwd = info.and_then(|info| info.cwd.as_ref()).map_or_else(String::new, |cwd| cwd.0.to_display());
    let kind = if checked.extensions { "sandbar" } else { "an exec server" };
    let text = format!(
        "{}: {kind} {version} on {system}\n  where:     {}\n  connected: {} ms\n  answers:   {} µs\n  begins in: {cwd}\n",
        checked.name, checked.place, checked.connected_ms, checked.answered_us
    );
    // Most of it is in the server's words.
    output::print(escape(text.as_bytes(), Layout::Lines))
}

async fn ask(place: &Place) -> Result<Checked, Problem> {
    let failed = |error| places::problem("connect", place, &error);
    let remote = places::remote(place);
    let begun = Instant::now();
    let info = remote.info().await.map_err(failed)?;
    let connected_ms = begun.elapsed().as_millis();
    let begun = Instant::now();
    let _status: serde::de::IgnoredAny =
        remote.call("environment/status", &serde_json::json!({})).await.map_err(failed)?;
    Ok(Checked {
        name: place.name.clone(),
        place: place.reach.to_string(),
        connected_ms,
        answered_us: begun.elapsed().as_micros(),
        extensions: remote.extensions().await.map_err(failed)?.records,
        info,
    })
}
