//! Walks: what is told, what bounds cut off, and that they agree with a naive walk.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sandbar_proto::exec::{EntryKind, WalkOptions, Walked};

use super::{Folder, files, seen};
use crate::{ErrorKind, MAX_WALK_DEPTH, MAX_WALK_DIRECTORIES, MAX_WALK_ENTRIES};

fn unbounded() -> WalkOptions {
    WalkOptions {
        max_depth: MAX_WALK_DEPTH,
        max_directories: MAX_WALK_DIRECTORIES,
        max_entries: MAX_WALK_ENTRIES,
        follow_directory_symlinks: false,
        prune_hidden: false,
    }
}

/// The told paths below the folder, directories with a slash behind.
fn told(folder: &Folder, walked: &Walked) -> Vec<String> {
    let root = folder.path("").to_display();
    let name = |entry: &sandbar_proto::exec::WalkEntry| {
        let path = entry.path.0.to_display();
        let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
        format!("{}{slash}", &path[root.len() + 1..])
    };
    walked.entries.iter().map(name).collect()
}

fn walk(folder: &Folder, options: WalkOptions) -> (Vec<String>, bool) {
    let walked = files().walk(&folder.path(""), &options).unwrap();
    assert_eq!(walked.errors, []);
    (told(folder, &walked), walked.truncated)
}

#[test]
fn files_and_directories_are_told_by_path_and_nothing_else_is() {
    let folder = Folder::new();
    folder.write("b/inner/file", "");
    folder.write("a", "");
    folder.fifo("fifo");
    folder.link("to-file", "a");
    folder.link("to-directory", "b");
    assert_eq!(walk(&folder, unbounded()).0, ["a", "b/", "b/inner/", "b/inner/file"]);
}

#[test]
fn links_to_directories_are_entered_when_asked_for_and_each_directory_once() {
    let folder = Folder::new();
    folder.write("b/file", "");
    folder.link("a", "b");
    folder.link("b/round", "..");
    folder.link("c", "b/file");
    let options = WalkOptions { follow_directory_symlinks: true, ..unbounded() };
    // `a` comes before `b`, and `round` leads to where the walk began.
    assert_eq!(
        walk(&folder, options),
        (vec!["a/".into(), "a/file".into(), "a/round/".into(), "b/".into()], false)
    );
}

#[test]
fn hidden_directories_are_told_and_not_entered_when_asked_for() {
    let folder = Folder::new();
    folder.write(".git/config", "");
    folder.write(".env", "");
    folder.write("a/.b/c", "");
    let options = WalkOptions { prune_hidden: true, ..unbounded() };
    assert_eq!(walk(&folder, options).0, [".env", ".git/", "a/", "a/.b/"]);
}

#[test]
fn bounds_cut_off_what_lies_deepest_and_say_so() {
    let folder = Folder::new();
    folder.write("a/b/c", "");
    folder.write("z", "");
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let depth = |max_depth| walk(&folder, WalkOptions { max_depth, ..unbounded() });
    assert_eq!(depth(0), (names(&[]), false));
    assert_eq!(depth(1), (names(&["a/", "z"]), false));
    assert_eq!(depth(3), (names(&["a/", "a/b/", "a/b/c", "z"]), false));
    let directories = |max_directories| walk(&folder, WalkOptions { max_directories, ..unbounded() });
    assert_eq!(directories(0), (names(&[]), true));
    assert_eq!(directories(2), (names(&["a/", "a/b/", "z"]), true));
    assert_eq!(directories(3), (names(&["a/", "a/b/", "a/b/c", "z"]), false));
    let entries = |max_entries| walk(&folder, WalkOptions { max_entries, ..unbounded() });
    assert_eq!(entries(0), (names(&[]), true));
    assert_eq!(entries(3), (names(&["a/", "a/b/", "z"]), true));
    assert_eq!(entries(4), (names(&["a/", "a/b/", "a/b/c", "z"]), false));
}

#[test]
fn bounds_above_the_maxima_are_refused() {
    let folder = Folder::new();
    let refused = (ErrorKind::OutOfRange, -32600);
    for options in [
        WalkOptions { max_depth: MAX_WALK_DEPTH + 1, ..unbounded() },
        WalkOptions { max_directories: MAX_WALK_DIRECTORIES + 1, ..unbounded() },
        WalkOptions { max_entries: MAX_WALK_ENTRIES + 1, ..unbounded() },
        WalkOptions { max_depth: u64::MAX, ..unbounded() },
    ] {
        assert_eq!(seen(files().walk(&folder.path(""), &options)), refused, "{options:?}");
    }
    assert!(files().walk(&folder.path(""), &unbounded()).is_ok());
}

#[test]
fn what_is_no_directory_is_not_walked() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    assert_eq!(seen(files().walk(&file, &unbounded())), (ErrorKind::NotADirectory, -32603));
    assert_eq!(seen(files().walk(&folder.path("none"), &unbounded())), (ErrorKind::NotFound, -32004));
}

#[test]
fn what_cannot_be_entered_is_told_beside_the_entries() {
    if sandbar_testkit::need::is_root() {
        println!("SKIP: what_cannot_be_entered_is_told_beside_the_entries: root enters every directory");
        return;
    }
    let folder = Folder::new();
    folder.write("closed/file", "");
    folder.write("open/file", "");
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.os("closed"), permissions).unwrap();
    };
    mode(0o000);
    let walked = files().walk(&folder.path(""), &unbounded()).unwrap();
    mode(0o700);
    assert_eq!(told(&folder, &walked), ["closed/", "open/", "open/file"]);
    let errors: Vec<_> = walked.errors.iter().map(|e| (e.path.0.clone(), e.message.as_str())).collect();
    assert_eq!(errors, [(folder.path("closed"), "Permission denied (os error 13)")]);
}

/// A tree as a list of relative paths; those that end in a slash are directories, `->` makes a link.
fn trees() -> impl Strategy<Value = Vec<(Vec<&'static str>, u8)>> {
    let name = prop::sample::select(vec!["a", "b", ".c", "d e", "ü", "z"]);
    prop::collection::vec((prop::collection::vec(name, 1..5), 0..4_u8), 0..24)
}

fn grow(folder: &Folder, tree: &[(Vec<&'static str>, u8)]) {
    for (names, kind) in tree {
        let path = folder.os(&names.join("/"));
        // What is in the way of another decides; the model looks at what became of it.
        let _ = std::fs::create_dir_all(path.parent().unwrap());
        let _ = match kind {
            0 => std::fs::create_dir_all(&path),
            1 => std::os::unix::fs::symlink("..", &path),
            _ => std::fs::write(&path, ""),
        };
    }
}

/// All that is below, by the standard library and without any bound.
fn naive(below: &Path, into: &mut Vec<(PathBuf, bool)>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() || kind.is_file() {
            into.push((entry.path(), kind.is_dir()));
        }
        if kind.is_dir() {
            naive(&entry.path(), into);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_walk_tells_what_a_naive_one_finds(tree in trees(), max_entries in 0..30_u64, max_depth in 0..6_u64) {
        let folder = Folder::new();
        grow(&folder, &tree);
        let mut found = Vec::new();
        naive(&folder.os(""), &mut found);
        let depth = |path: &Path| path.strip_prefix(folder.os("")).unwrap().components().count() as u64;
        found.retain(|(path, _)| depth(path) <= max_depth);
        found.sort_by_key(|found| super::abs(&found.0));
        let options = WalkOptions { max_depth, max_entries, ..unbounded() };
        let walked = files().walk(&folder.path(""), &options).unwrap();
        let told: Vec<_> = walked.entries.iter()
            .map(|entry| (entry.path.0.as_path().to_owned(), entry.kind == EntryKind::Directory)).collect();
        if found.len() as u64 <= max_entries {
            prop_assert_eq!(told, found);
            prop_assert!(!walked.truncated);
        } else {
            prop_assert_eq!(told.len() as u64, max_entries);
            prop_assert!(told.iter().all(|entry| found.contains(entry)));
            prop_assert!(walked.truncated);
            // Nothing is told whose level is below one that was left out.
            let left_out = found.iter().filter(|entry| !told.contains(entry)).map(|(path, _)| depth(path)).min();
            let deepest = told.iter().map(|(path, _)| depth(path)).max().unwrap_or(0);
            prop_assert!(Some(deepest) <= left_out);
        }
        prop_assert!(walked.errors.is_empty());
    }
}
