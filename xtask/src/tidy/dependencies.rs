//! What we depend on: how much, under which licences, and what members inherit from the workspace.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Document, Finding, licence};
use crate::cargo::cargo;
use crate::command::output;

/// Rooms that run next to hostile programs, and how many packages each may reach; a reader must be able to look
/// at all of a sandbox's code.
const SMALL_ROOMS: &[(&str, Option<usize>)] =
    &[("sandbar-sandbox", Some(30)), ("sandbar-keeper", None), ("sandbar-files", None)];

/// Most packages in the lock file: what two cores build in minutes.
const LOCK_LIMIT: usize = 420;

/// What a member takes from the workspace: its name, the table it stands in, the line that says so.
const INHERITED: &[(&str, &str, &str)] = &[
    ("its licence", "package", "license.workspace = true"),
    ("rust-version", "package", "rust-version.workspace = true"),
    ("edition", "package", "edition.workspace = true"),
    ("publish", "package", "publish.workspace = true"),
    ("lints", "lints", "workspace = true"),
];

/// Looks at what the small rooms reach through normal dependencies on this platform.
///
/// # Errors
/// When `cargo tree` fails.
pub(super) fn weights(root: &Path, members: &Value) -> Result<Vec<Finding>> {
    let there = |name: &str| {
        members["packages"].as_array().into_iter().flatten().any(|package| package["name"] == *name)
    };
    let mut findings = Vec::new();
    for (name, limit) in SMALL_ROOMS.iter().filter(|(name, _)| there(name)) {
        let tree =
            output(cargo(root).args(["tree", "--edges", "normal", "--prefix", "none", "--package", name]))
                .with_context(|| format!("could not list what {name} reaches"))?;
        findings.extend(weight(name, *limit, &tree));
    }
    Ok(findings)
}

/// Looks at one room's `cargo tree --prefix none`.
fn weight(name: &str, limit: Option<usize>, tree: &str) -> Vec<Finding> {
    let reached: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(package, rest)| (package, rest.split_whitespace().next().unwrap_or_default()))
        .filter(|(package, _)| *package != name)
        .collect();
    let path = format!("crates/{name}/Cargo.toml");
    let mut findings = Vec::new();
    if let Some(limit) = limit.filter(|limit| reached.len() > *limit) {
        let what = format!("{name} reaches {} packages, at most {limit} are allowed", reached.len());
        let fix = format!("look at `cargo tree -e normal -p {name}` and drop a feature or a dependency");
        findings.push(Finding::new(&path, 1, what, fix));
    }
    if reached.iter().any(|(package, _)| *package == "tokio") {
        let fix = format!("find the way with `cargo tree -e normal -p {name} -i tokio` and cut it");
        findings.push(Finding::new(&path, 1, format!("{name} reaches tokio"), fix));
    }
    findings
}

/// Counts the packages of a lock file.
pub(super) fn lock_size(lock: &str) -> Vec<Finding> {
    let count = lock.lines().filter(|line| *line == "[[package]]").count();
    if count <= LOCK_LIMIT {
        return Vec::new();
    }
    let what = format!("{count} packages are locked, at most {LOCK_LIMIT} are allowed");
    vec![Finding::new(
        "Cargo.lock",
        1,
        what,
        "drop a dependency, or features of one; `cargo tree -d` shows doubles",
    )]
}

/// Looks at the licence of every package in `cargo metadata`.
pub(super) fn licences(metadata: &Value, lock: &str) -> Vec<Finding> {
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| !package["license"].as_str().is_some_and(licence::is_allowed))
        .map(|package| {
            let name = package["name"].as_str().unwrap_or_default();
            let licence = package["license"].as_str().unwrap_or("no licence expression");
            let line =
                lock.lines().position(|line| line == format!("name = \"{name}\"")).map_or(1, |at| at + 1);
            let fix =
                "choose another package; a new licence goes into xtask/src/tidy/licence.rs with its reason";
            Finding::new("Cargo.lock", line, format!("{name} comes under {licence}"), fix)
        })
        .collect()
}

/// Looks for what every member's manifest inherits.
pub(super) fn inheritance(manifests: &[Document]) -> Vec<Finding> {
    manifests
        .iter()
        .filter(|manifest| section(&manifest.text, "workspace").is_none())
        .flat_map(|manifest| {
            INHERITED
                .iter()
                .filter(|(_, table, line)| {
                    !section(&manifest.text, table).is_some_and(|mut lines| lines.any(|found| found == *line))
                })
                .map(|(name, table, line)| {
                    let what = format!("the member does not inherit {name}");
                    Finding::new(&manifest.path, 1, what, format!("write `{line}` under [{table}]"))
                })
        })
        .collect()
}

/// Lines of a TOML table, or `None` when it is not there.
fn section<'a>(manifest: &'a str, name: &str) -> Option<impl Iterator<Item = &'a str>> {
    let mut lines = manifest.lines().map(str::trim);
    lines.find(|line| *line == format!("[{name}]"))?;
    Some(lines.take_while(|line| !line.starts_with('[')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_room_that_grew_is_found() {
        let tree: String = (0..31).map(|n| format!("dep{n} v1.0.0\n")).collect();
        let tree = format!("sandbar-sandbox v0.1.0 (/w)\n{tree}dep0 v1.0.0 (*)\n");
        let found = weight("sandbar-sandbox", Some(30), &tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "sandbar-sandbox reaches 31 packages, at most 30 are allowed");
        assert_eq!(weight("sandbar-sandbox", Some(31), &tree), []);
    }

    #[test]
    fn tokio_in_a_small_room_is_found_and_a_name_that_begins_like_it_is_not() {
        assert_eq!(weight("sandbar-keeper", None, "sandbar-keeper v0.1.0\ntokio v1.54.1\n").len(), 1);
        assert_eq!(weight("sandbar-keeper", None, "sandbar-keeper v0.1.0\ntokio-free v1.0.0\n"), []);
    }

    #[test]
    fn a_lock_file_that_grew_is_found() {
        assert_eq!(lock_size(&"[[package]]\nname = \"a\"\n".repeat(421)).len(), 1);
        assert_eq!(lock_size(&"[[package]]\nname = \"a\"\n".repeat(420)), []);
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found_at_its_line_in_the_lock_file() {
        let metadata = json!({"packages": [
            {"name": "good", "license": "MIT OR Apache-2.0"},
            {"name": "bad", "license": "GPL-3.0"},
            {"name": "unknown", "license": null},
        ]});
        let found = licences(&metadata, "[[package]]\nname = \"good\"\n[[package]]\nname = \"bad\"\n");
        let found: Vec<_> = found.iter().map(|finding| (finding.line, finding.what.as_str())).collect();
        assert_eq!(found, [(4, "bad comes under GPL-3.0"), (1, "unknown comes under no licence expression")]);
    }

    #[test]
    fn a_member_that_goes_its_own_way_is_found() {
        let good = "[package]\nname = \"a\"\nlicense.workspace = true\nrust-version.workspace = true\n\
                    edition.workspace = true\npublish.workspace = true\n\n[lints]\nworkspace = true\n";
        let document = |text: &str| [Document { path: "crates/a/Cargo.toml".into(), text: text.into() }];
        assert_eq!(inheritance(&document(good)), []);
        let own_licence = good.replace("license.workspace = true", "license = \"MIT\"");
        assert_eq!(inheritance(&document(&own_licence))[0].what, "the member does not inherit its licence");
        let own_lints = good.replace("[lints]\nworkspace = true", "[lints.rust]\nunsafe_code = \"allow\"");
        assert_eq!(inheritance(&document(&own_lints))[0].what, "the member does not inherit lints");
        assert_eq!(inheritance(&document("[workspace]\nmembers = []\n")), []);
    }
}
