//! Removing: what goes, what stays, what is refused.

use super::{Folder, abs, deep_tree, files, seen};
use crate::{ErrorKind, RemoveOptions};

fn options(recursive: bool, force: bool) -> RemoveOptions {
    RemoveOptions { recursive, force }
}

#[test]
fn files_links_and_special_files_go_and_what_a_link_leads_to_stays() {
    let folder = Folder::new();
    folder.write("kept/file", "");
    for path in [
        folder.write("file", ""),
        folder.fifo("fifo"),
        folder.link("to-directory", "kept"),
        folder.link("dangling", "none"),
    ] {
        files().remove(&path, options(false, false)).unwrap();
    }
    assert_eq!(folder.names(), ["kept"]);
    assert_eq!(folder.read("kept/file"), b"");
}

#[test]
fn a_tree_goes_with_everything_in_it_but_not_through_links() {
    let folder = Folder::new();
    folder.write("outside/file", "kept");
    folder.write("tree/a/b/file", "");
    folder.write("tree/.hidden/file", "");
    folder.link("tree/link", "../outside");
    folder.link("tree/a/dangling", "none");
    folder.fifo("tree/a/fifo");
    files().remove(&folder.path("tree"), RemoveOptions::default()).unwrap();
    assert_eq!(folder.names(), ["outside"]);
    assert_eq!(folder.read("outside/file"), b"kept");
}

#[test]
fn a_directory_with_more_entries_than_are_listed_at_a_time_goes() {
    let folder = Folder::new();
    std::fs::create_dir(folder.os("many")).unwrap();
    for number in 0..9000 {
        std::fs::write(folder.os(&format!("many/{number}")), "").unwrap();
    }
    files().remove(&folder.path("many"), RemoveOptions::default()).unwrap();
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn depth_needs_no_descriptors() {
    let folder = Folder::new();
    deep_tree(&folder, "deep", 3000);
    files().remove(&folder.path("deep"), RemoveOptions::default()).unwrap();
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn each_refusal_has_its_kind_and_code() {
    let folder = Folder::new();
    folder.write("full/file", "");
    let full = folder.path("full");
    assert_eq!(seen(files().remove(&full, options(false, true))), (ErrorKind::NotEmpty, -32603));
    std::fs::create_dir(folder.os("empty")).unwrap();
    files().remove(&folder.path("empty"), options(false, false)).unwrap();
    let none = folder.path("none/below");
    files().remove(&none, RemoveOptions::default()).unwrap();
    assert_eq!(seen(files().remove(&none, options(true, false))), (ErrorKind::NotFound, -32004));
    let below_file = folder.path("full/file/below");
    assert_eq!(
        seen(files().remove(&below_file, RemoveOptions::default())),
        (ErrorKind::NotADirectory, -32603)
    );
    let root = abs("/".as_ref());
    assert_eq!(seen(files().remove(&root, RemoveOptions::default())), (ErrorKind::Busy, -32603));
}
