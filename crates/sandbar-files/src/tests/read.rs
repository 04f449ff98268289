//! Reading: what is read, what is refused, by which kind and code.

use super::{Folder, abs, files, seen};
use crate::{ErrorKind, Links, MAX_READ_BYTES};

#[test]
fn a_file_is_read_whole() {
    let folder = Folder::new();
    for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 300_000] {
        let content: Vec<u8> = (0..size).map(|at: u32| at.to_le_bytes()[at as usize % 4]).collect();
        let path = folder.write("file", &content);
        assert_eq!(files().read_file(&path, Links::Follow).unwrap(), content, "{size}");
    }
}

#[test]
fn a_file_of_proc_is_read_although_its_size_is_said_to_be_none() {
    let path = abs("/proc/self/status".as_ref());
    let content = String::from_utf8(files().read_file(&path, Links::Follow).unwrap()).unwrap();
    assert!(content.lines().any(|line| line.starts_with("Umask:")), "{content}");
}

#[test]
fn what_is_no_file_is_refused_without_being_opened() {
    let folder = Folder::new();
    let fifo = folder.fifo("fifo");
    for path in [folder.path(""), fifo, abs("/dev/zero".as_ref()), abs("/dev/tty".as_ref())] {
        let error = files().read_file(&path, Links::Follow).unwrap_err();
        assert_eq!((error.kind, error.code()), (ErrorKind::NotAFile, -32600));
        assert_eq!(error.message, format!("path `{}` is not a file", path.to_display()));
    }
}

#[test]
fn links_are_followed_unless_that_was_not_wanted() {
    let folder = Folder::new();
    folder.write("file", "content");
    let link = folder.link("link", "file");
    assert_eq!(files().read_file(&link, Links::Follow).unwrap(), b"content");
    assert_eq!(seen(files().read_file(&link, Links::NoFollow)), (ErrorKind::IsASymlink, -32600));
    let dangling = folder.link("dangling", "nowhere");
    assert_eq!(seen(files().read_file(&dangling, Links::Follow)), (ErrorKind::NotFound, -32004));
    let round = folder.link("round", "round");
    assert_eq!(seen(files().read_file(&round, Links::Follow)), (ErrorKind::Loop, -32603));
}

#[test]
fn a_file_above_the_limit_is_refused_by_its_size() {
    let folder = Folder::new();
    let path = folder.write("large", "");
    let file = std::fs::OpenOptions::new().write(true).open(path.as_path()).unwrap();
    file.set_len(MAX_READ_BYTES + 1).unwrap();
    let error = files().read_file(&path, Links::Follow).unwrap_err();
    assert_eq!((error.kind, error.code()), (ErrorKind::TooLarge, -32600));
    assert_eq!(error.message, "file is too large to read");
}

#[test]
fn what_is_missing_or_below_a_file_is_told_apart() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    assert_eq!(seen(files().read_file(&folder.path("none"), Links::Follow)), (ErrorKind::NotFound, -32004));
    let below = file.join("below").unwrap();
    assert_eq!(seen(files().read_file(&below, Links::Follow)), (ErrorKind::NotADirectory, -32603));
}
