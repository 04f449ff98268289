//! Copying: what a copy has, what is left out, what is refused.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::{Folder, abs, deep_tree, files, seen};
use crate::{Directories, ErrorKind, Links};

fn mode(folder: &Folder, name: &str) -> u32 {
    folder.os(name).symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(folder: &Folder, name: &str, mode: u32) {
    std::fs::set_permissions(folder.os(name), std::fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(folder: &Folder, from: &str, to: &str) -> Result<(), crate::FileError> {
    files().copy(&folder.path(from), &folder.path(to), Directories::Recurse)
}

#[test]
fn a_copy_has_the_content_and_the_permissions() {
    let folder = Folder::new();
    folder.write("file", "content");
    set_mode(&folder, "file", 0o4751);
    copy(&folder, "file", "copy").unwrap();
    assert_eq!(folder.read("copy"), b"content");
    assert_eq!(mode(&folder, "copy"), 0o751);
    folder.write("there", "something longer");
    set_mode(&folder, "there", 0o640);
    copy(&folder, "file", "there").unwrap();
    assert_eq!(folder.read("there"), b"content");
    assert_eq!(mode(&folder, "there"), 0o640);
}

#[test]
fn a_link_is_copied_as_one() {
    let folder = Folder::new();
    folder.write("file", "content");
    folder.link("link", "file");
    folder.link("dangling", "none");
    copy(&folder, "link", "link2").unwrap();
    copy(&folder, "dangling", "dangling2").unwrap();
    assert_eq!(std::fs::read_link(folder.os("link2")).unwrap().to_str(), Some("file"));
    assert_eq!(std::fs::read_link(folder.os("dangling2")).unwrap().to_str(), Some("none"));
    assert_eq!(seen(copy(&folder, "link", "file")), (ErrorKind::AlreadyExists, -32603));
}

#[test]
fn a_tree_is_copied_and_special_files_are_left_out() {
    let folder = Folder::new();
    folder.write("tree/a/file", "1");
    folder.write("tree/b/read-only/file", "2");
    folder.link("tree/a/link", "../b");
    folder.fifo("tree/a/fifo");
    set_mode(&folder, "tree/b/read-only", 0o555);
    set_mode(&folder, "tree/a", 0o701);
    copy(&folder, "tree", "new/above/copy").unwrap();
    set_mode(&folder, "tree/b/read-only", 0o755);
    assert_eq!(folder.read("new/above/copy/a/file"), b"1");
    assert_eq!(folder.read("new/above/copy/b/read-only/file"), b"2");
    assert_eq!(mode(&folder, "new/above/copy/a"), 0o701);
    assert_eq!(mode(&folder, "new/above/copy/b/read-only"), 0o555);
    set_mode(&folder, "new/above/copy/b/read-only", 0o755);
    assert_eq!(std::fs::read_link(folder.os("new/above/copy/a/link")).unwrap().to_str(), Some("../b"));
    assert!(!folder.os("new/above/copy/a/fifo").exists());
}

#[test]
fn a_directory_that_is_there_is_filled_up() {
    let folder = Folder::new();
    folder.write("tree/a/new", "1");
    folder.write("tree/a/both", "2");
    folder.write("copy/a/old", "3");
    folder.write("copy/a/both", "4");
    set_mode(&folder, "copy/a", 0o750);
    copy(&folder, "tree", "copy").unwrap();
    let contents = ["new", "both", "old"].map(|name| folder.read(&format!("copy/a/{name}")));
    assert_eq!(contents, [b"1", b"2", b"3"]);
    assert_eq!(mode(&folder, "copy/a"), 0o750);
}

#[test]
fn nothing_is_written_through_a_link_in_the_copy() {
    let folder = Folder::new();
    folder.write("tree/a/file", "new");
    folder.write("outside/file", "old");
    std::fs::create_dir(folder.os("copy")).unwrap();
    folder.link("copy/a", "../outside");
    assert_eq!(seen(copy(&folder, "tree", "copy")), (ErrorKind::AlreadyExists, -32603));
    std::fs::remove_file(folder.os("copy/a")).unwrap();
    std::fs::create_dir(folder.os("copy/a")).unwrap();
    folder.link("copy/a/file", "../../outside/file");
    assert_eq!(seen(copy(&folder, "tree", "copy")), (ErrorKind::IsASymlink, -32600));
    assert_eq!(folder.read("outside/file"), b"old");
}

#[test]
fn each_refusal_has_its_kind_and_code() {
    let folder = Folder::new();
    folder.write("tree/file", "content");
    let refused = |directories| seen(files().copy(&folder.path("tree"), &folder.path("copy"), directories));
    assert_eq!(refused(Directories::Refuse), (ErrorKind::IsADirectory, -32600));
    folder.link("alias", "tree");
    for to in ["tree", "tree/below", "tree/below/and/below", "alias/below"] {
        assert_eq!(seen(copy(&folder, "tree", to)), (ErrorKind::IntoItself, -32600), "{to}");
    }
    assert_eq!(folder.names(), ["alias", "tree"]);
    copy(&folder, "tree", "tree2").unwrap();
    folder.fifo("fifo");
    assert_eq!(seen(copy(&folder, "fifo", "copy")), (ErrorKind::SpecialFile, -32600));
    assert_eq!(seen(copy(&folder, "none", "copy")), (ErrorKind::NotFound, -32004));
    assert_eq!(seen(copy(&folder, "tree/file", "none/copy")), (ErrorKind::NotFound, -32004));
    assert_eq!(seen(copy(&folder, "tree/file", "tree")), (ErrorKind::NotAFile, -32600));
    assert_eq!(seen(copy(&folder, "tree", "tree/file")), (ErrorKind::NotADirectory, -32603));
    assert_eq!(seen(copy(&folder, "tree/file", "fifo")), (ErrorKind::NotAFile, -32600));
}

#[test]
fn a_file_is_not_copied_to_itself_under_any_name() {
    let folder = Folder::new();
    folder.write("file", "content");
    folder.link("link", "file");
    std::fs::hard_link(folder.os("file"), folder.os("other")).unwrap();
    for to in ["file", "link", "other"] {
        assert_eq!(seen(copy(&folder, "file", to)), (ErrorKind::SameFile, -32600), "{to}");
        assert_eq!(folder.read("file"), b"content");
    }
}

#[test]
fn a_file_of_proc_is_copied_with_its_content() {
    let folder = Folder::new();
    let version = abs("/proc/version".as_ref());
    files().copy(&version, &folder.path("copy"), Directories::Refuse).unwrap();
    assert_eq!(folder.read("copy"), files().read_file(&version, Links::Follow).unwrap());
}

#[test]
fn depth_needs_no_descriptors() {
    let folder = Folder::new();
    deep_tree(&folder, "deep", 1500);
    // The copy's path grows with its source's; what is above PATH_MAX is reached all the same.
    copy(&folder, "deep", "copy").unwrap();
    for name in ["deep", "copy"] {
        files().remove(&folder.path(name), crate::RemoveOptions::default()).unwrap();
    }
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn a_large_file_with_holes_is_copied() {
    let folder = Folder::new();
    let path = folder.write("sparse", "begin");
    let file = std::fs::File::options().write(true).open(path.as_path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 3_000_000).unwrap();
    copy(&folder, "sparse", "copy").unwrap();
    assert_eq!(folder.read("copy"), folder.read("sparse"));
    assert_ne!(folder.os("copy").metadata().unwrap().ino(), folder.os("sparse").metadata().unwrap().ino());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_and_copied(
        content in prop::collection::vec(any::<u8>(), 0..70_000),
        atomicity in prop::sample::select(vec![
            crate::Atomicity::Preferred, crate::Atomicity::Required, crate::Atomicity::InPlace,
        ]),
        old in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
    ) {
        let folder = Folder::new();
        if let Some(old) = old {
            folder.write("file", old);
        }
        let path = folder.path("file");
        let options = crate::WriteOptions { atomicity, ..crate::WriteOptions::default() };
        files().write_file(&path, &content, options).unwrap();
        prop_assert_eq!(&files().read_file(&path, Links::Follow).unwrap(), &content);
        copy(&folder, "file", "copy").unwrap();
        prop_assert_eq!(&folder.read("copy"), &content);
        prop_assert_eq!(folder.names(), ["copy", "file"]);
    }
}
