//! What `-p` and `--permissions` want: a built-in profile, one that the person wrote, or a policy in another program's words.

use std::io::Read as _;
use std::path::Path;

use sandbar_config::Settings;
use sandbar_policy::managed::{self, Places};
use sandbar_policy::{GitMode, Profile, TablePlaces, Wanted};
use sandbar_proto::AbsPath;
use sandbar_proto::exec::{LegacyPolicy, NetworkPolicy, PermissionProfile, SplitFileSystem};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{Git, SandboxArgs};
use crate::dirs::Directories;
use crate::render::Problem;
use crate::{exit, plan};

/// Most bytes of a policy that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What `args` want.
///
/// # Errors
/// Nothing is called so, or what was written means nothing.
pub(crate) fn wanted(args: &SandboxArgs, directories: &Directories) -> Result<Wanted, Problem> {
    let mut wanted = match &args.permissions {
        Some(source) => in_other_words(source, args)?,
        None => named(args, directories)?,
    };
    wanted.network = args.network().unwrap_or(wanted.network);
    wanted.within.debugging |= args.debug;
    wanted.within.nesting |= args.nested;
    match args.git {
        None => {}
        Some(Git::Commit) => wanted.git = GitMode::Commit,
        Some(Git::Protect) => wanted.git = GitMode::Protect,
    }
    Ok(wanted)
}

/// The settings of this user.
///
/// # Errors
/// They can't be read, or say what means nothing.
pub(crate) fn settings(directories: &Directories) -> Result<Settings, Problem> {
    let path = directories.own.config.as_path().join(sandbar_config::NAME);
    sandbar_config::read(&path).map_err(|error| {
        let advice = match &error {
            sandbar_config::ConfigError::WritableByOthers { file } => {
                format!("see that what it says is yours, then `chmod go-w {}`", file.display())
            }
            sandbar_config::ConfigError::Read { .. }
            | sandbar_config::ConfigError::Syntax { .. }
            | sandbar_config::ConfigError::UnknownKey { .. }
            | sandbar_config::ConfigError::Value { .. }
            | sandbar_config::ConfigError::BuiltIn { .. } => {
                "correct it, or move it out of the way".to_owned()
            }
        };
        Problem::new(error).advise(advice).status(exit::CANNOT_RUN)
    })
}

fn named(args: &SandboxArgs, directories: &Directories) -> Result<Wanted, Problem> {
    let name = args.profile_name();
    if let Ok(profile) = name.parse::<Profile>() {
        return Ok(Wanted::of(profile));
    }
    let settings = settings(directories)?;
    let Some(table) = settings.profile(name) else {
        let built_in = Profile::ALL.into_iter().map(Profile::name);
        let written = settings.profiles.iter().map(|profile| profile.name.clone());
        let known: Vec<String> = built_in.map(str::to_owned).chain(written).collect();
        return Err(Problem::new(format!("no profile is named {name:?}"))
            .at(format!("--profile {name}"))
            .advise(format!("use one of {}", known.join(", ")))
            .status(exit::CANNOT_RUN));
    };
    let (cwd, tmpdir) = (plan::cwd(args)?, tmpdir());
    let places = TablePlaces { cwd: &cwd, home: directories.home.as_ref(), tmpdir: tmpdir.as_ref() };
    table.wanted(places).map_err(|error| {
        Problem::new(format!("could not use the profile {}: {}", table.name, error))
            .advise("correct the line; docs/profiles.md says what it may be")
            .status(exit::CANNOT_RUN)
    })
}

fn tmpdir() -> Option<AbsPath> {
    AbsPath::new(std::env::var_os("TMPDIR")?).ok()
}

fn in_other_words(source: &std::ffi::OsStr, args: &SandboxArgs) -> Result<Wanted, Problem> {
    let wrong = |what: String| {
        Problem::new(what)
            .at(format!("--permissions {}", Path::new(source).display()))
            .advise("docs/profiles.md has the shapes that are understood")
            .status(exit::CANNOT_RUN)
    };
    let text = match source.as_encoded_bytes() {
        b"-" => read(std::io::stdin()),
        text if text.trim_ascii_start().starts_with(b"{") => {
            let text = std::str::from_utf8(text).map(str::to_owned);
            text.map_err(|_| std::io::ErrorKind::InvalidData.into())
        }
        _path => std::fs::File::open(source).and_then(read),
    };
    let text = text.map_err(|error| wrong(format!("could not read the permissions: {error}")))?;
    let cwd = plan::cwd(args)?;
    let profile = any_shape(&text, &cwd).map_err(|error| wrong(format!("no permissions: {error}")))?;
    let tmpdir = tmpdir();
    let wanted = managed::read_profile(&profile, &[], Places { cwd: &cwd, tmpdir: tmpdir.as_ref() });
    let wanted = wanted.map_err(|error| wrong(format!("could not use the permissions: {error}")))?;
    let called = wanted.profile.has_sandbox().then(|| managed::NAME.to_owned());
    Ok(Wanted { called, ..wanted })
}

fn read(source: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The pair between the legacy policies and the profile of 0.169.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    #[serde(alias = "fileSystem")]
    file_system: SplitFileSystem,
    #[serde(default)]
    network: NetworkPolicy,
}

/// Reads any of the shapes: they tell themselves apart by what they have.
fn any_shape(text: &str, cwd: &AbsPath) -> Result<PermissionProfile, serde_json::Error> {
    let value: Value = serde_json::from_str(text)?;
    // These have nothing but their name; whoever says more means more.
    let is_bare = value.as_object().is_some_and(|members| members.len() == 1);
    match value.get("type").and_then(Value::as_str) {
        Some("disabled" | "danger-full-access") if !is_bare => {
            Err(serde::de::Error::custom("no sandbox is asked for, and something else besides"))
        }
        None => serde_json::from_value::<Split>(value)
            .map(|split| managed::of_split(split.file_system, split.network)),
        Some("managed" | "disabled" | "external") => serde_json::from_value(value),
        Some(_) => {
            serde_json::from_value::<LegacyPolicy>(value).map(|policy| managed::of_legacy(&policy, cwd))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Result<PermissionProfile, String> {
        any_shape(text, &AbsPath::new("/w").unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_shape_is_told_by_what_it_has() {
        let restricted = r#"{"file_system":{"kind":"restricted","entries":[]},"network":"restricted"}"#;
        let managed =
            r#"{"type":"managed","file_system":{"type":"restricted","entries":[]},"network":"restricted"}"#;
        assert_eq!(shape(restricted).unwrap(), shape(managed).unwrap());
        assert_eq!(shape(r#"{"type":"danger-full-access"}"#).unwrap(), PermissionProfile::Disabled);
        assert_eq!(shape(r#"{"type":"disabled"}"#).unwrap(), PermissionProfile::Disabled);
        let external = shape(r#"{"type":"external-sandbox","network_access":"enabled"}"#).unwrap();
        assert_eq!(external, shape(r#"{"type":"external","network":"enabled"}"#).unwrap());
        assert_eq!(
            shape(r#"{"file_system":{"kind":"external-sandbox"},"network":"enabled"}"#).unwrap(),
            external
        );
        let workspace = shape(r#"{"type":"workspace-write","writable_roots":["/x"]}"#).unwrap();
        assert!(matches!(workspace, PermissionProfile::Managed { .. }));
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":"moon"}"#,
            r#"{"type":"read-only","writes":true}"#,
            r#"{"type":"disabled","network":"restricted"}"#,
        ] {
            assert!(shape(text).is_err(), "{text}");
        }
    }
}
