//! Rules of the workspace that the compiler does not know.
//!
//! Each check is a function from plain data (source text, manifests, cargo's answers) to findings, so that a test
//! can hand it a bad sample. Looks at the work tree as it is, committed or not.

mod code;
mod dependencies;
mod documents;
mod launch;
mod licence;
mod rooms;
mod source;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cargo::{self, Dependencies};
use source::Source;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the workspace's root.
    path: String,
    /// Line, from 1.
    line: usize,
    /// What is so.
    what: String,
    /// What to do.
    fix: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), fix: fix.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    do: {}", self.path, self.line, self.what, self.fix)
    }
}

/// A text file that is not Rust.
#[derive(Debug, Clone)]
struct Document {
    /// Path from the workspace's root.
    path: String,
    /// Its text.
    text: String,
}

/// Runs every check, prints what it found, and returns whether that was nothing.
///
/// # Errors
/// When the workspace cannot be read or cargo fails.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let checks = checks(root)?;
    let findings: Vec<_> = checks.iter().flat_map(|(_, findings)| findings).collect();
    for (rule, findings) in &checks {
        for finding in findings {
            println!("{finding}\n    rule: {rule}");
        }
    }
    println!("tidy: {} rules, {} findings", checks.len(), findings.len());
    Ok(findings.is_empty())
}

fn checks(root: &Path) -> Result<Vec<(&'static str, Vec<Finding>)>> {
    let sources = sources(root)?;
    let documents = documents(root, |path| path.ends_with(".md"))?;
    let manifests = documents_named(root, "Cargo.toml")?;
    let members = cargo::metadata(root, Dependencies::Excluded)?;
    let packages = cargo::metadata(root, Dependencies::Included)?;
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("could not read Cargo.lock")?;
    let each = |check: fn(&Source) -> Vec<Finding>| sources.iter().flat_map(check).collect::<Vec<_>>();
    Ok(vec![
        ("a room knows only the rooms it may know", rooms::edges(&members, &manifests)),
        ("no room passes on another room's items", each(rooms::reexports)),
        ("unsafe code lives in sandbox and keeper only", each(code::unsafe_code)),
        ("only policy makes a LaunchSpec", each(launch::literals)),
        ("sandbox, keeper and files stay small and without tokio", dependencies::weights(root, &members)?),
        ("the lock file stays small", dependencies::lock_size(&lock)),
        ("every dependency has an allowed licence", dependencies::licences(&packages, &lock)),
        ("every file says what it is", each(code::opening)),
        ("the environment is read at the edge", each(code::environment)),
        ("libraries do not print", each(code::printing)),
        ("members inherit lints, licence and rust-version", dependencies::inheritance(&manifests)),
        ("links in documents lead somewhere", documents::links(root, &documents)),
        ("the index of decisions is complete", documents::decisions(&documents)),
    ])
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources: Vec<_> = documents(root, |path| path.ends_with(".rs") && !path.contains("/fixtures/"))?
        .into_iter()
        .map(|file| Source::new(file.path, file.text))
        .collect();
    mark_test_modules(&mut sources);
    Ok(sources)
}

/// Marks files whose module is declared for tests only, and the files those declare in turn.
fn mark_test_modules(sources: &mut [Source]) {
    let mut marked = 0;
    loop {
        let for_tests: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
        if for_tests.len() == marked {
            return;
        }
        marked = for_tests.len();
        sources.iter_mut().filter(|source| for_tests.contains(&source.path)).for_each(Source::only_for_tests);
    }
}

fn documents_named(root: &Path, name: &str) -> Result<Vec<Document>> {
    documents(root, |path| path.rsplit('/').next() == Some(name))
}

/// Every text file of the work tree whose path is wanted, sorted; built, hidden and foreign folders left out.
fn documents(root: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Document>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(root.join(&folder)).with_context(|| format!("could not list {folder}"))?
        {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if kind.is_file() && wanted(&path) {
                let text = std::fs::read_to_string(root.join(&path))
                    .with_context(|| format!("could not read {path}"))?;
                found.push(Document { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_the_place_and_what_to_do() {
        let finding = Finding::new("crates/x/src/lib.rs", 7, "this is so", "make it otherwise");
        assert_eq!(finding.to_string(), "crates/x/src/lib.rs:7: this is so\n    do: make it otherwise");
    }

    #[test]
    fn modules_of_a_test_module_are_for_tests_too() {
        let mut sources = [
            Source::new("crates/x/src/lib.rs", "mod a;\n#[cfg(test)]\nmod tests;"),
            Source::new("crates/x/src/tests.rs", "mod kernel;"),
            Source::new("crates/x/src/tests/kernel.rs", "fn a() {}"),
            Source::new("crates/x/src/a.rs", "fn a() {}"),
        ];
        mark_test_modules(&mut sources);
        let product: Vec<_> = sources.iter().map(|source| source.product.trim()).collect();
        assert_eq!(product, ["mod a;", "", "", "fn a() {}"]);
    }

    #[test]
    fn built_and_hidden_folders_are_not_looked_at() {
        let root = tempfile::tempdir().unwrap();
        for path in ["crates/x/src/lib.rs", "target/debug/a.rs", ".git/b.rs", "docs/c.md"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found: Vec<_> = sources(root.path()).unwrap().into_iter().map(|source| source.path).collect();
        assert_eq!(found, ["crates/x/src/lib.rs"]);
    }
}
