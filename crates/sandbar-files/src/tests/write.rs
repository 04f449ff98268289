//! Writing whole files: what is kept, what is refused, what is left behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::{Folder, abs, files, seen};
use crate::{Atomicity, ErrorKind, Expected, Links, WriteOptions};

fn options() -> WriteOptions {
    WriteOptions::default()
}

fn atomic(atomicity: Atomicity) -> WriteOptions {
    WriteOptions { atomicity, ..options() }
}

fn expecting(expected: Expected) -> WriteOptions {
    WriteOptions { expected: Some(expected), ..options() }
}

fn mode(folder: &Folder, name: &str) -> u32 {
    folder.os(name).metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_is_made_or_replaced_and_nothing_else_is_left() {
    let folder = Folder::new();
    let path = folder.path("file");
    for atomicity in [Atomicity::Preferred, Atomicity::Required, Atomicity::InPlace] {
        for content in ["", "something longer", "short"] {
            assert_eq!(files().write_file(&path, content.as_bytes(), atomic(atomicity)), Ok(None));
            assert_eq!(folder.read("file"), content.as_bytes(), "{atomicity:?}");
            assert_eq!(folder.names(), ["file"]);
        }
        std::fs::remove_file(path.as_path()).unwrap();
    }
}

#[test]
fn a_file_is_replaced_by_another_one_unless_that_is_not_wanted() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let inode = || path.as_path().metadata().unwrap().ino();
    let before = inode();
    files().write_file(&path, b"in place", atomic(Atomicity::InPlace)).unwrap();
    assert_eq!(inode(), before);
    let mut old = std::fs::File::open(path.as_path()).unwrap();
    files().write_file(&path, b"new", options()).unwrap();
    assert_ne!(inode(), before);
    let mut content = String::new();
    std::io::Read::read_to_string(&mut old, &mut content).unwrap();
    assert_eq!(content, "in place", "who has the old file open goes on reading it");
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_new_one_gets_what_was_asked_for() {
    let folder = Folder::new();
    let path = folder.write("kept", "old");
    for bits in [0o640, 0o755, 0o600] {
        std::fs::set_permissions(path.as_path(), std::fs::Permissions::from_mode(bits)).unwrap();
        files().write_file(&path, b"new", WriteOptions { mode: Some(0o777), ..options() }).unwrap();
        assert_eq!(mode(&folder, "kept"), bits);
    }
    files().write_file(&folder.path("asked"), b"", WriteOptions { mode: Some(0o741), ..options() }).unwrap();
    assert_eq!(mode(&folder, "asked"), 0o741);
    std::fs::write(folder.os("usual"), "").unwrap();
    files().write_file(&folder.path("default"), b"", options()).unwrap();
    assert_eq!(mode(&folder, "default"), mode(&folder, "usual"));
    let special = WriteOptions { mode: Some(0o4755), ..options() };
    assert_eq!(seen(files().write_file(&path, b"", special)), (ErrorKind::InvalidParams, -32602));
}

#[test]
fn set_id_bits_go_with_the_old_content() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    std::fs::set_permissions(path.as_path(), std::fs::Permissions::from_mode(0o6755)).unwrap();
    files().write_file(&path, b"new", options()).unwrap();
    assert_eq!(mode(&folder, "file"), 0o755);
}

#[test]
fn a_link_is_followed_to_its_target_or_refused() {
    let folder = Folder::new();
    folder.write("real/file", "old");
    let link = folder.link("link", "second");
    folder.link("second", "real/../real/file");
    files().write_file(&link, b"new", atomic(Atomicity::Required)).unwrap();
    assert_eq!(folder.read("real/file"), b"new");
    assert!(folder.os("link").symlink_metadata().unwrap().is_symlink());
    let refuse = WriteOptions { links: Links::NoFollow, ..options() };
    assert_eq!(seen(files().write_file(&link, b"", refuse)), (ErrorKind::IsASymlink, -32600));
    let dangling = folder.link("dangling", folder.os("made"));
    files().write_file(&dangling, b"through", options()).unwrap();
    assert_eq!(folder.read("made"), b"through");
    let round = folder.link("round", "round");
    assert_eq!(seen(files().write_file(&round, b"", options())), (ErrorKind::Loop, -32603));
    let to_folder = folder.link("to-folder", "real/.");
    assert_eq!(seen(files().write_file(&to_folder, b"", options())), (ErrorKind::NotAFile, -32600));
}

#[test]
fn other_names_of_a_file_keep_naming_it() {
    let folder = Folder::new();
    let path = folder.write("one", "old");
    std::fs::hard_link(path.as_path(), folder.os("other")).unwrap();
    let refused = files().write_file(&path, b"new", atomic(Atomicity::Required));
    assert_eq!(seen(refused), (ErrorKind::NotAtomic, -32600));
    assert_eq!(folder.read("one"), b"old");
    files().write_file(&path, b"new", options()).unwrap();
    assert_eq!(folder.read("other"), b"new");
}

#[test]
fn extended_attributes_stay() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let set =
        |name: &str| rustix::fs::setxattr(path.as_path(), name, b"value", rustix::fs::XattrFlags::empty());
    if set("user.one").is_err() {
        println!("SKIP: extended_attributes_stay: the file system of the temporary folder has none");
        return;
    }
    files().write_file(&path, b"new", atomic(Atomicity::Required)).unwrap();
    let mut value = [0; 16];
    let len = rustix::fs::getxattr(path.as_path(), "user.one", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"value");
}

#[test]
fn a_precondition_decides() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let hash = |content: &str| Expected::Hash(blake3::hash(content.as_bytes()));
    let changed = (ErrorKind::Changed, -32600);
    assert_eq!(seen(files().write_file(&path, b"new", expecting(Expected::Missing))), changed);
    assert_eq!(seen(files().write_file(&path, b"new", expecting(hash("other")))), changed);
    assert_eq!(folder.read("file"), b"old");
    let written = files().write_file(&path, b"new", expecting(hash("old"))).unwrap();
    assert_eq!(written.as_deref(), Some(blake3::hash(b"new").to_hex().as_str()));
    let none = folder.path("none");
    assert_eq!(seen(files().write_file(&none, b"new", expecting(hash("old")))), changed);
    assert!(files().write_file(&none, b"new", expecting(Expected::Missing)).is_ok());
    assert_eq!(folder.names(), ["file", "none"]);
}

#[test]
fn a_precondition_is_looked_at_again_before_the_content_takes_its_place() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let hash = Expected::Hash(blake3::hash(b"old"));
    let mut replacement = files().replace_file(&path, expecting(hash)).unwrap();
    replacement.write(b"new").unwrap();
    std::fs::write(path.as_path(), "meanwhile").unwrap();
    assert_eq!(seen(replacement.commit()), (ErrorKind::Changed, -32600));
    assert_eq!(folder.read("file"), b"meanwhile");

    let none = folder.path("none");
    let mut replacement = files().replace_file(&none, expecting(Expected::Missing)).unwrap();
    replacement.write(b"new").unwrap();
    folder.write("none", "meanwhile");
    assert_eq!(seen(replacement.commit()), (ErrorKind::Changed, -32600));
    assert_eq!(folder.read("none"), b"meanwhile");
    assert_eq!(folder.names(), ["file", "none"]);
}

#[test]
fn hashes_are_read_strictly() {
    let hash = blake3::hash(b"");
    assert_eq!(Expected::parse(&hash.to_hex()), Ok(Expected::Hash(hash)));
    assert_eq!(Expected::parse(&hash.to_hex().to_uppercase()), Ok(Expected::Hash(hash)));
    assert_eq!(Expected::parse(""), Ok(Expected::Missing));
    for text in ["0", "zz", &format!("{}0", hash.to_hex())] {
        assert_eq!(seen(Expected::parse(text)), (ErrorKind::InvalidParams, -32602), "{text}");
    }
}

#[test]
fn what_was_given_up_leaves_no_trace() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let mut replacement = files().replace_file(&path, options()).unwrap();
    replacement.write(b"new").unwrap();
    drop(replacement);
    assert_eq!(folder.read("file"), b"old");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn what_is_no_file_and_what_has_no_folder_is_refused() {
    let folder = Folder::new();
    let fifo = folder.fifo("fifo");
    for path in [folder.path(""), fifo, abs("/dev/null".as_ref()), abs("/".as_ref())] {
        assert_eq!(seen(files().write_file(&path, b"x", options())), (ErrorKind::NotAFile, -32600));
    }
    let no_folder = folder.path("none/file");
    assert_eq!(seen(files().write_file(&no_folder, b"x", options())), (ErrorKind::NotFound, -32004));
    let below_file = folder.write("file", "").join("below").unwrap();
    assert_eq!(seen(files().write_file(&below_file, b"x", options())), (ErrorKind::NotADirectory, -32603));
}

#[test]
fn a_program_that_runs_is_replaced() {
    let folder = Folder::new();
    std::fs::copy("/bin/sleep", folder.os("program")).unwrap();
    let mut running = std::process::Command::new(folder.os("program")).arg("60").spawn().unwrap();
    let path = folder.path("program");
    let in_place = files().write_file(&path, b"new", atomic(Atomicity::InPlace));
    let replaced = files().write_file(&path, b"new", options());
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(seen(in_place), (ErrorKind::Busy, -32603));
    assert_eq!(replaced, Ok(None));
    assert_eq!(folder.read("program"), b"new");
}
