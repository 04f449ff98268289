//! Which directories are plugins, and what their manifests say. Pure.

use std::cmp::Ordering;

use sandbar_proto::AbsPath;
use serde::Deserialize;
use serde_json::Value;

/// Where a manifest is, below a plugin's root; the first one that is there counts.
pub(super) const MANIFESTS: [[&str; 2]; 2] =
    [[".codex-plugin", "plugin.json"], [".claude-plugin", "plugin.json"]];

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) name: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) mcp: Part,
    pub(super) apps: Part,
    /// Whether it leads out of the plugin's directory for skills, which is not followed.
    pub(super) has_skills_elsewhere: bool,
}

/// Where a part of a plugin is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// In the usual file, if there is one.
    Usual,
    /// In this file, relative to the root.
    File(String),
    /// In the manifest itself.
    Inline(String),
    /// In a file outside, which is not read; the usual one then counts.
    Outside,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    interface: Option<Interface>,
    #[serde(default)]
    mcp_servers: Value,
    #[serde(default)]
    apps: Value,
    #[serde(default)]
    skills: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Interface {
    #[serde(default)]
    display_name: Option<String>,
}

/// Reads a manifest; nothing if it is none.
pub(super) fn manifest(text: &str) -> Option<Manifest> {
    // A sequence would pass for the members in their order.
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let wire: Wire = serde_json::from_str(text).ok()?;
    let display_name = wire.interface.and_then(|interface| interface.display_name);
    let has_skills_elsewhere = match &wire.skills {
        Value::Null | Value::Object(_) => false,
        Value::String(path) => inside(path).is_none(),
        Value::Array(paths) => paths.iter().filter_map(Value::as_str).any(|path| inside(path).is_none()),
        Value::Bool(_) | Value::Number(_) => return None,
    };
    Some(Manifest {
        name: wire.name.filter(|name| !name.trim().is_empty()),
        display_name: display_name.filter(|name| !name.trim().is_empty()),
        mcp: part(&wire.mcp_servers)?,
        apps: part(&wire.apps)?,
        has_skills_elsewhere,
    })
}

fn part(value: &Value) -> Option<Part> {
    match value {
        Value::Null | Value::Array(_) => Some(Part::Usual),
        Value::String(path) => Some(inside(path).map_or(Part::Outside, |path| Part::File(path.to_owned()))),
        Value::Object(_) => Some(Part::Inline(value.to_string())),
        Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A path that begins with `./` and stays below.
fn inside(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("./")?;
    let is_inside = rest.split('/').all(|name| !matches!(name, ".." | ".")) && !rest.contains('\0');
    (is_inside && !rest.is_empty()).then_some(rest)
}

/// Whether a marketplace or a plugin may be called this.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether a version may be called this.
pub(super) fn is_version(name: &[u8]) -> bool {
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    name.first().is_some_and(|first| *first != b'.') && name.iter().all(is_usual)
}

/// The version that is used of those that are installed: the one in development, else the newest.
pub(super) fn newest(mut versions: Vec<AbsPath>) -> Option<AbsPath> {
    // In one order always, since texts and numbers together have none.
    versions.sort();
    let name = |path: &AbsPath| String::from_utf8_lossy(path.file_name().unwrap_or_default()).into_owned();
    if let Some(local) = versions.iter().find(|path| name(path) == "local") {
        return Some(local.clone());
    }
    versions.into_iter().reduce(|best, next| {
        if compare(&name(&next), &name(&best)) == Ordering::Greater { next } else { best }
    })
}

/// By their numbers where both have three, else as texts.
fn compare(one: &str, other: &str) -> Ordering {
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

/// Major, minor, patch, and what makes a release more than what comes before it (semver.org).
fn numbers(version: &str) -> Option<([u64; 3], bool, &str)> {
    let version = version.split('+').next()?;
    let (release, before) = version.split_once('-').map_or((version, None), |(one, two)| (one, Some(two)));
    let mut parts = release.split('.').map(str::parse::<u64>);
    let numbers = [parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?];
    parts.next().is_none().then_some((numbers, before.is_none(), before.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each line was measured at the peer.
    #[test]
    fn the_newest_version_is_used() {
        let newest = |names: &[&str]| {
            let paths = names.iter().map(|name| AbsPath::root().join(name).unwrap()).collect();
            newest(paths).unwrap().to_display()
        };
        assert_eq!(newest(&["1", "1.10.0", "1.9.0"]), "/1.10.0");
        assert_eq!(newest(&["zzz", "local", "2.0.0"]), "/local");
        assert_eq!(newest(&["zzz", "2.0.0", "abcd1234"]), "/zzz");
        assert_eq!(newest(&["2.0.0", "2.0.0-beta"]), "/2.0.0");
    }

    #[test]
    fn a_manifest_leads_nowhere_outside_its_plugin() {
        let read = |text: &str| manifest(text).unwrap();
        let plain = read("{}");
        assert_eq!((plain.mcp, plain.apps, plain.name), (Part::Usual, Part::Usual, None));
        let file = read(r#"{"name": " B ", "mcpServers": "./m.json", "apps": {"a": 1}, "skills": ["./s"]}"#);
        assert_eq!(file.name.as_deref(), Some(" B "));
        assert_eq!((file.mcp, file.apps), (Part::File("m.json".into()), Part::Inline(r#"{"a":1}"#.into())));
        assert!(!file.has_skills_elsewhere);
        for outside in ["../m.json", "/etc/passwd", "m.json", "./a/../../b", "./"] {
            let text = serde_json::json!({"mcpServers": outside, "skills": outside}).to_string();
            assert_eq!(
                (read(&text).mcp, read(&text).has_skills_elsewhere),
                (Part::Outside, true),
                "{outside}"
            );
        }
        for wrong in ["{", "[]", r#"{"name": 7}"#, r#"{"mcpServers": 7}"#] {
            assert_eq!(manifest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name(b"my-plugin_2") && is_version(b"1.0.0+x-y"));
        for name in [b"".as_slice(), b"a b", b".hidden", b"a.b"] {
            assert!(!is_name(name));
        }
        assert!(!is_version(b".staging") && !is_version(b"a b"));
    }
}
