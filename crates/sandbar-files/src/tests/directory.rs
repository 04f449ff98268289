//! Directories and metadata: what is told of each kind of file, and by which code it is refused.

use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use sandbar_proto::exec::{DirectoryEntry, Metadata};

use super::{Folder, abs, files, seen};
use crate::{Ancestors, ErrorKind, Links};

#[test]
fn directories_are_made_with_those_above_unless_that_was_not_wanted() {
    let folder = Folder::new();
    let deep = folder.path("a/b/c");
    assert_eq!(seen(files().create_directory(&deep, Ancestors::Require)), (ErrorKind::NotFound, -32004));
    files().create_directory(&deep, Ancestors::Make).unwrap();
    files().create_directory(&deep, Ancestors::Make).unwrap();
    assert!(folder.os("a/b/c").is_dir());
    let exists = (ErrorKind::AlreadyExists, -32603);
    assert_eq!(seen(files().create_directory(&deep, Ancestors::Require)), exists);
    let file = folder.write("file", "");
    assert_eq!(seen(files().create_directory(&file, Ancestors::Make)), exists);
    let below = file.join("below").unwrap();
    assert_eq!(seen(files().create_directory(&below, Ancestors::Make)), (ErrorKind::NotADirectory, -32603));
}

#[test]
fn entries_are_told_by_name_and_by_what_they_lead_to() {
    let folder = Folder::new();
    folder.write("sub/inner", "");
    folder.write("file", "");
    folder.write(".hidden", "");
    folder.fifo("fifo");
    folder.link("to-file", "file");
    folder.link("to-sub", "sub");
    folder.link("to-nothing", "nothing");
    std::fs::write(folder.os("").join(std::ffi::OsStr::from_bytes(b"not\xffutf8")), "").unwrap();
    let entry = |name: &str, is_directory, is_file| DirectoryEntry {
        file_name: name.to_owned(),
        is_directory,
        is_file,
    };
    assert_eq!(
        files().read_directory(&folder.path(""), Links::Follow).unwrap().entries,
        [
            entry(".hidden", false, true),
            entry("fifo", false, false),
            entry("file", false, true),
            entry("not\u{fffd}utf8", false, true),
            entry("sub", true, false),
            entry("to-file", false, true),
            entry("to-nothing", false, false),
            entry("to-sub", true, false),
        ]
    );
    let through = files().read_directory(&folder.path("to-sub"), Links::Follow).unwrap();
    assert_eq!(through.entries, [entry("inner", false, true)]);
}

#[test]
fn only_directories_have_entries() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    assert_eq!(seen(files().read_directory(&file, Links::Follow)), (ErrorKind::NotADirectory, -32603));
    assert_eq!(
        seen(files().read_directory(&folder.path("none"), Links::Follow)),
        (ErrorKind::NotFound, -32004)
    );
    assert_eq!(
        seen(files().read_directory(&folder.fifo("fifo"), Links::Follow)),
        (ErrorKind::NotADirectory, -32603)
    );
}

#[test]
fn metadata_is_of_what_a_link_leads_to_and_says_that_it_is_one() {
    let folder = Folder::new();
    let path = folder.write("file", "12345");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    std::fs::File::options().write(true).open(path.as_path()).unwrap().set_modified(modified).unwrap();
    let link = folder.link("link", "file");
    for (path, is_symlink) in [(&path, false), (&link, true)] {
        let found = files().metadata(path, Links::Follow).unwrap();
        let created_at_ms = found.created_at_ms;
        let expected = Metadata {
            is_directory: false,
            is_file: true,
            is_symlink,
            size: 5,
            created_at_ms,
            modified_at_ms: 1_234_567_890_123,
        };
        assert_eq!(found, expected);
        assert!(created_at_ms == 0 || created_at_ms > 1_234_567_890_123);
    }
    let old = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    std::fs::File::options().write(true).open(path.as_path()).unwrap().set_modified(old).unwrap();
    assert_eq!(files().metadata(&path, Links::Follow).unwrap().modified_at_ms, -1500);
    let told = files().metadata(&folder.path(""), Links::Follow).unwrap();
    assert_eq!((told.is_directory, told.is_file, told.is_symlink), (true, false, false));
    let device = files().metadata(&abs("/dev/null".as_ref()), Links::Follow).unwrap();
    assert_eq!((device.is_directory, device.is_file, device.is_symlink), (false, false, false));
}

#[test]
fn a_link_that_is_not_followed_is_told_as_itself() {
    let folder = Folder::new();
    let link = folder.link("link", "nowhere");
    let told = files().metadata(&link, Links::NoFollow).unwrap();
    assert_eq!((told.is_directory, told.is_file, told.is_symlink, told.size), (false, false, true, 7));
    folder.link("to-folder", ".");
    let entries = files().read_directory(&folder.path("to-folder"), Links::NoFollow);
    assert_eq!(seen(entries), (ErrorKind::NotADirectory, -32603));
}

#[test]
fn what_has_no_birth_time_was_made_in_1970() {
    let proc = files().metadata(&abs("/proc/self/status".as_ref()), Links::Follow).unwrap();
    assert_eq!((proc.created_at_ms, proc.size, proc.is_file), (0, 0, true));
}

#[test]
fn missing_paths_have_no_metadata() {
    let folder = Folder::new();
    let missing = (ErrorKind::NotFound, -32004);
    assert_eq!(seen(files().metadata(&folder.path("none"), Links::Follow)), missing);
    assert_eq!(seen(files().metadata(&folder.link("dangling", "none"), Links::Follow)), missing);
    let below = folder.write("file", "").join("below").unwrap();
    assert_eq!(seen(files().metadata(&below, Links::Follow)), (ErrorKind::NotADirectory, -32603));
}

#[test]
fn a_canonical_path_has_no_links() {
    let folder = Folder::new();
    folder.write("real/file", "");
    folder.link("link", "real/../real");
    let real = abs(&std::fs::canonicalize(folder.os("real/file")).unwrap());
    assert_eq!(files().canonicalize(&folder.path("link/file")).unwrap().path.0, real);
    assert_eq!(seen(files().canonicalize(&folder.path("link/none"))), (ErrorKind::NotFound, -32004));
    folder.link("round", "round");
    assert_eq!(seen(files().canonicalize(&folder.path("round"))), (ErrorKind::Loop, -32603));
}
