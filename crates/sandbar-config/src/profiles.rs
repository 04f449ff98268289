//! `[permissions.NAME]`: profiles, as text. What places and patterns mean is `sandbar_policy`'s concern.

use std::ops::Range;

use sandbar_policy::syscalls::Within;
use sandbar_policy::{Access, GitMode, Profile, ProfileTable, TableLine};
use sandbar_proto::NetworkMode;
use toml_edit::{Item, TableLike};

use super::{ConfigError, Source};

const KEYS: [&str; 6] = ["debug", "extends", "filesystem", "git", "nested", "network"];
const DEPTH: &str = "glob_scan_max_depth";
const ACCESS: &str = "\"read\", \"write\" or \"none\"";

/// Reads all of `[permissions]`.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn read(source: &Source, item: &Item) -> Result<Vec<ProfileTable>, ConfigError> {
    let tables =
        item.as_table_like().ok_or_else(|| source.wrong("permissions", item, "a table of profiles"))?;
    tables.iter().map(|(name, item)| profile(source, name, item)).collect()
}

fn profile(source: &Source, name: &str, item: &Item) -> Result<ProfileTable, ConfigError> {
    let table = item.as_table_like().ok_or_else(|| source.wrong(name, item, "a table"))?;
    if name.parse::<Profile>().is_ok() {
        return Err(ConfigError::BuiltIn { at: source.place(item.span()), name: name.to_owned() });
    }
    let mut profile = ProfileTable {
        name: name.to_owned(),
        origin: source.origin(item.span().or_else(|| first_span(table))),
        extends: None,
        network: None,
        git: None,
        within: Within::default(),
        glob_depth: None,
        lines: Vec::new(),
    };
    for (key, item) in table.iter() {
        match key {
            "extends" => {
                let base = item
                    .as_str()
                    .and_then(|name| name.parse().ok())
                    .filter(|base: &Profile| base.has_sandbox());
                let wanted = "\"read-only\" or \"workspace\"";
                profile.extends = Some(base.ok_or_else(|| source.wrong(key, item, wanted))?);
            }
            "git" => {
                profile.git = Some(match item.as_str() {
                    Some("commit") => GitMode::Commit,
                    Some("protect") => GitMode::Protect,
                    _ => return Err(source.wrong(key, item, "\"commit\" or \"protect\"")),
                });
            }
            "debug" => profile.within.debugging = yes_or_no(source, key, item)?,
            "nested" => profile.within.nesting = yes_or_no(source, key, item)?,
            "network" => profile.network = Some(network(source, key, item)?),
            "filesystem" => files(source, item, &mut profile)?,
            _ => return Err(source.unknown(key, item, &KEYS)),
        }
    }
    Ok(profile)
}

fn yes_or_no(source: &Source, key: &str, item: &Item) -> Result<bool, ConfigError> {
    item.as_bool().ok_or_else(|| source.wrong(key, item, "true or false"))
}

/// A table that is only named within others has no place of its own.
fn first_span(table: &dyn TableLike) -> Option<Range<usize>> {
    table.iter().find_map(|(_, item)| item.span().or_else(|| item.as_table_like().and_then(first_span)))
}

fn network(source: &Source, key: &str, item: &Item) -> Result<NetworkMode, ConfigError> {
    let of = |is_on| if is_on { NetworkMode::On } else { NetworkMode::Off };
    if let Some(table) = item.as_table_like() {
        let mut mode = NetworkMode::Off;
        for (key, item) in table.iter() {
            mode = match (key, item.as_bool()) {
                ("enabled", Some(is_on)) => of(is_on),
                ("enabled", None) => return Err(source.wrong(key, item, "true or false")),
                _ => return Err(source.unknown(key, item, &["enabled"])),
            };
        }
        return Ok(mode);
    }
    match item.as_str() {
        Some("off") => Ok(NetworkMode::Off),
        Some("on") => Ok(NetworkMode::On),
        _ => Err(source.wrong(key, item, "\"off\", \"on\" or a table")),
    }
}

fn files(source: &Source, item: &Item, profile: &mut ProfileTable) -> Result<(), ConfigError> {
    let table = item.as_table_like().ok_or_else(|| source.wrong("filesystem", item, "a table"))?;
    for (place, item) in table.iter() {
        if place == DEPTH {
            let depth =
                item.as_integer().and_then(|depth| u32::try_from(depth).ok()).filter(|depth| *depth > 0);
            profile.glob_depth = Some(depth.ok_or_else(|| source.wrong(place, item, "a number from 1"))?);
            continue;
        }
        if let Some(access) = access(item) {
            profile.lines.push(line(source, place, None, access, item));
            continue;
        }
        let Some(below) = item.as_table_like() else { return Err(source.wrong(place, item, ACCESS)) };
        for (name, item) in below.iter() {
            let access = access(item).ok_or_else(|| source.wrong(name, item, ACCESS))?;
            profile.lines.push(line(source, place, Some(name), access, item));
        }
    }
    Ok(())
}

fn line(source: &Source, place: &str, below: Option<&str>, access: Access, item: &Item) -> TableLine {
    TableLine {
        place: place.to_owned(),
        below: below.map(str::to_owned),
        access,
        origin: source.origin(item.span()),
    }
}

fn access(item: &Item) -> Option<Access> {
    match item.as_str()? {
        "read" => Some(Access::Read),
        "write" => Some(Access::Write),
        "none" | "deny" => Some(Access::None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Settings, parse};
    use sandbar_policy::Origin;

    fn settings(text: &str) -> Result<Settings, String> {
        parse(Path::new("/c/config.toml"), text.to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_is_read_with_the_line_of_each_part() {
        let text = r#"
[permissions.review]
extends = "read-only"
git = "protect"
network = "on"

[permissions.review.filesystem]
glob_scan_max_depth = 5
"~/notes" = "write"
"**/*.pem" = "deny"

[permissions.review.filesystem.":workspace_roots"]
"." = "write"
"docs" = "read"
"#;
        let settings = settings(text).unwrap();
        let profile = settings.profile("review").unwrap();
        assert_eq!(
            (profile.extends, profile.git, profile.network, profile.glob_depth),
            (Some(Profile::ReadOnly), Some(GitMode::Protect), Some(NetworkMode::On), Some(5))
        );
        let lines: Vec<String> = profile
            .lines
            .iter()
            .map(|line| format!("{} {} {:?} {}", line.origin, line.place, line.below, line.access))
            .collect();
        assert_eq!(
            lines,
            [
                "/c/config.toml:9 ~/notes None write",
                "/c/config.toml:10 **/*.pem None none",
                "/c/config.toml:13 :workspace_roots Some(\".\") write",
                "/c/config.toml:14 :workspace_roots Some(\"docs\") read",
            ]
        );
        assert_eq!(profile.origin, Origin::Line { file: "/c/config.toml".into(), line: 2 });
    }

    #[test]
    fn the_peers_own_tables_are_understood() {
        let text = "[permissions.p.filesystem]\n':minimal' = 'read'\n':project_roots' = { '.' = 'write', '.env' = 'none' }\n[permissions.p.network]\nenabled = true\n";
        let settings = settings(text).unwrap();
        let profile = settings.profile("p").unwrap();
        assert_eq!((profile.lines.len(), profile.network), (3, Some(NetworkMode::On)));
        assert_eq!(profile.origin, Origin::Line { file: "/c/config.toml".into(), line: 1 });
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let table = [
            ("permissions = 1", "c/config.toml:1: `permissions` must be a table of profiles"),
            ("[permissions.workspace]", ":1: `workspace` is built in, and can't be another profile"),
            (
                "[permissions.a]\nfilesytem = {}",
                ":2: nothing is called `filesytem` here; known are debug, extends, filesystem, git, nested, network",
            ),
            ("[permissions.a.filesystem]\n'/x' = 'rw'", ":2: `/x` must be \"read\", \"write\" or \"none\""),
            ("[permissions.a.filesystem.':cwd']\nx = {}", ":2: `x` must be \"read\", \"write\" or \"none\""),
            (
                "[permissions.a.filesystem]\nglob_scan_max_depth = 0",
                ":2: `glob_scan_max_depth` must be a number from 1",
            ),
            (
                "[permissions.a]\nextends = 'danger-full-access'",
                ":2: `extends` must be \"read-only\" or \"workspace\"",
            ),
            ("[permissions.a]\nnetwork = true", ":2: `network` must be \"off\", \"on\" or a table"),
            (
                "[permissions.a.network]\nenable = true",
                ":2: nothing is called `enable` here; known are enabled",
            ),
            ("[permissions.a]\ngit = 'all'", ":2: `git` must be \"commit\" or \"protect\""),
        ];
        for (text, expected) in table {
            let error = settings(text).unwrap_err();
            assert!(error.ends_with(expected), "{text}: {error}");
        }
    }
}
