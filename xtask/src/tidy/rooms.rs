//! Which room may know which: the table of ARCHITECTURE.md, "Allowed edges".
//!
//! Dependencies of the product (normal and build) follow the table. What tests depend on is free, because no
//! test is shipped; only `sandbar-testkit`, `escape-probe` and `kill-probe` themselves must stay out of the product.

use serde_json::Value;

use super::source::{Source, words};
use super::{Document, Finding};

/// Rooms without the prefix `sandbar-`, and what each may know. A new room is entered here and in ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("policy", &["proto"]),
    ("sandbox", &["proto"]),
    ("keeper", &["sandbox", "proto"]),
    ("rpc", &["proto"]),
    ("netproxy", &["policy", "proto"]),
    ("store", &["proto"]),
    ("patch", &["proto"]),
    ("config", &["policy", "proto"]),
    ("model", &["proto"]),
    ("approvals", &["policy", "proto"]),
    ("files", &["patch", "proto"]),
    ("artifacts", &["policy", "proto"]),
    ("exec", &["keeper", "sandbox", "netproxy", "rpc", "artifacts", "approvals", "files", "policy", "proto"]),
    (
        "agent",
        &["exec", "model", "store", "config", "patch", "artifacts", "approvals", "rpc", "policy", "proto"],
    ),
    ("server", &["agent", "exec", "store", "config", "approvals", "patch", "rpc", "policy", "proto"]),
    ("tui", &["rpc", "proto"]),
];

/// Rooms that only tests may know.
const NOT_SHIPPED: &[&str] = &["sandbar-testkit", "escape-probe", "kill-probe"];

/// What `sandbar-proto` may use from outside: shapes need a serializer and value types, nothing else. `serde_json` is
/// there for JSON that is passed on unread (`RawValue`, `Value`).
const PROTO_OUTSIDE: &[&str] = &["base64", "serde", "serde_json", "uuid"];

/// Compares the workspace's dependencies, as `cargo metadata --no-deps` tells them, with the table.
pub(super) fn edges(metadata: &Value, manifests: &[Document]) -> Vec<Finding> {
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let members: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    packages
        .iter()
        .flat_map(|package| {
            let name = package["name"].as_str().unwrap_or_default();
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            dependencies
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(|dependency| dependency["name"].as_str())
                .filter_map(|dependency| broken_edge(name, dependency, members.contains(&dependency)))
                .collect::<Vec<_>>()
        })
        .map(|(name, dependency, fix)| {
            let (path, line) = declaration(manifests, &name, &dependency);
            Finding::new(&path, line, format!("{name} depends on {dependency}"), fix)
        })
        .collect()
}

/// Finds `pub use` of another room's items.
pub(super) fn reexports(source: &Source) -> Vec<Finding> {
    words(&source.product, "pub")
        .filter(|&at| {
            let mut words = source.product[at..].split_whitespace().skip(1);
            let what = words.next();
            let first = if what == Some("extern") { words.nth(1) } else { words.next() };
            matches!(what, Some("use" | "extern"))
                && first.is_some_and(|path| path.trim_start_matches("::").starts_with("sandbar_"))
        })
        .map(|at| {
            let fix = "let the reader name the room the item lives in: `use sandbar_…` where it is used";
            Finding::new(&source.path, source.line(at), "another room's items are passed on", fix)
        })
        .collect()
}

/// The edge and what to do about it, when it is not in the table.
fn broken_edge(name: &str, dependency: &str, is_member: bool) -> Option<(String, String, String)> {
    let broken = |fix: &str| Some((name.to_owned(), dependency.to_owned(), fix.to_owned()));
    if name == "sandbar-proto" && !is_member {
        let fix = "keep shapes free of libraries; meaning and work belong to another room";
        return if PROTO_OUTSIDE.contains(&dependency) { None } else { broken(fix) };
    }
    if !is_member {
        return None;
    }
    if NOT_SHIPPED.contains(&dependency) {
        return broken("make it a dev-dependency: what tests share is not shipped");
    }
    match (name, dependency) {
        ("xtask", _) => return broken("tasks look at the workspace from outside"),
        // The binary joins all rooms; testkit is not shipped and may fake any of them.
        ("sandbar" | "sandbar-testkit", _) => return None,
        _ => {}
    }
    let Some((_, allowed)) = EDGES.iter().find(|(room, _)| Some(*room) == name.strip_prefix("sandbar-"))
    else {
        return broken("enter the new room in xtask/src/tidy/rooms.rs and in ARCHITECTURE.md");
    };
    if dependency.strip_prefix("sandbar-").is_some_and(|room| allowed.contains(&room)) {
        return None;
    }
    broken("remove it; if the room must know this, change ARCHITECTURE.md's allowed edges first, with an ADR")
}

fn declaration(manifests: &[Document], package: &str, dependency: &str) -> (String, usize) {
    let declares =
        |manifest: &&Document| manifest.text.lines().any(|line| line == format!("name = \"{package}\""));
    let Some(manifest) = manifests.iter().find(declares) else { return ("Cargo.toml".into(), 1) };
    let line = manifest
        .text
        .lines()
        .position(|line| line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '='])));
    (manifest.path.clone(), line.map_or(1, |line| line + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(package: &str, dependency: &str) -> Document {
        Document {
            path: format!("crates/{package}/Cargo.toml"),
            text: format!(
                "[package]\nname = \"{package}\"\n\n[dependencies]\n{dependency}.workspace = true\n"
            ),
        }
    }

    fn one_edge(from: &str, to: &str, kind: Value) -> Vec<Finding> {
        let metadata = json!({"packages": [
            {"name": from, "dependencies": [{"name": to, "kind": kind}]},
            {"name": "sandbar-store", "dependencies": []},
            {"name": "sandbar-proto", "dependencies": []},
            {"name": "sandbar-testkit", "dependencies": []},
            {"name": "escape-probe", "dependencies": []},
            {"name": "kill-probe", "dependencies": []},
        ]});
        edges(&metadata, &[manifest(from, to)])
    }

    #[test]
    fn a_room_that_knows_too_much_is_found_at_its_line() {
        let found = one_edge("sandbar-policy", "sandbar-store", Value::Null);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("crates/sandbar-policy/Cargo.toml", 5));
        assert_eq!(found[0].what, "sandbar-policy depends on sandbar-store");
        assert_eq!(one_edge("sandbar-policy", "sandbar-store", json!("build")).len(), 1);
    }

    #[test]
    fn allowed_edges_and_test_dependencies_pass() {
        assert_eq!(one_edge("sandbar-policy", "sandbar-proto", Value::Null), []);
        assert_eq!(one_edge("sandbar-policy", "sandbar-store", json!("dev")), []);
        assert_eq!(one_edge("sandbar", "sandbar-store", Value::Null), []);
        assert_eq!(one_edge("sandbar-policy", "serde", Value::Null), []);
    }

    #[test]
    fn testkit_and_probes_are_never_shipped() {
        for room in NOT_SHIPPED {
            assert_eq!(one_edge("sandbar", room, Value::Null).len(), 1);
            assert_eq!(one_edge("sandbar", room, json!("dev")), []);
        }
    }

    #[test]
    fn a_room_that_nobody_entered_in_the_table_is_found() {
        assert_eq!(one_edge("sandbar-weather", "sandbar-proto", Value::Null).len(), 1);
        assert_eq!(one_edge("xtask", "sandbar-proto", Value::Null).len(), 1);
    }

    #[test]
    fn shapes_use_no_library_but_their_serializer() {
        assert_eq!(one_edge("sandbar-proto", "tokio", Value::Null).len(), 1);
        assert_eq!(one_edge("sandbar-proto", "serde", Value::Null), []);
    }

    #[test]
    fn passed_on_items_are_found_in_code_and_nowhere_else() {
        let found = |text| reexports(&Source::new("crates/sandbar-exec/src/lib.rs", text)).len();
        assert_eq!(found("pub use sandbar_proto::RunId;"), 1);
        assert_eq!(found("pub use ::sandbar_proto::{RunId, Seq};"), 1);
        assert_eq!(found("pub extern crate sandbar_proto;"), 1);
        assert_eq!(found("use sandbar_proto::RunId;\n// pub use sandbar_proto::Seq;\npub use log::Log;"), 0);
    }
}
