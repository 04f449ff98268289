//! Handles: blocks, names, bounds.

use sandbar_proto::exec::OpenMode;

use super::{Folder, seen};
use serde_json::json;

use crate::{Block, ErrorKind, Handles, MAX_BLOCK_BYTES, MAX_HANDLES};

#[test]
fn blocks_are_read_anywhere_and_the_end_is_told() {
    let folder = Folder::new();
    let path = folder.write("file", "0123456789");
    let mut handles = Handles::default();
    handles.open("a", &path, OpenMode::Read).unwrap();
    let mut read = |offset, len| handles.read_block("a", offset, len).unwrap();
    let block = |bytes: &str, is_end| Block { bytes: bytes.as_bytes().to_vec(), is_end };
    assert_eq!(read(0, 4), block("0123", false));
    assert_eq!(read(6, 4), block("6789", true));
    assert_eq!(read(8, 4), block("89", true));
    assert_eq!(read(10, 1), block("", true));
    assert_eq!(read(1 << 40, MAX_BLOCK_BYTES), block("", true));
}

#[test]
fn what_is_written_is_seen_when_the_handle_is_closed() {
    let folder = Folder::new();
    let path = folder.write("file", "old content");
    let mut handles = Handles::default();
    handles.open("", &path, OpenMode::Replace).unwrap();
    handles.write_block("", 4, b"late").unwrap();
    handles.write_block("", 0, b"s").unwrap();
    assert_eq!(folder.read("file"), b"old content");
    handles.close("").unwrap();
    assert_eq!(folder.read("file"), b"s\0\0\0late");
    handles.close("").unwrap();
    assert!(handles.is_empty());
}

#[test]
fn what_is_written_to_a_handle_that_is_dropped_is_not_seen() {
    let folder = Folder::new();
    let path = folder.write("file", "old");
    let mut handles = Handles::default();
    handles.open("a", &path, OpenMode::Replace).unwrap();
    handles.write_block("a", 0, b"new").unwrap();
    drop(handles);
    assert_eq!(folder.read("file"), b"old");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn a_target_with_other_names_is_emptied_and_written_at_once() {
    let folder = Folder::new();
    let path = folder.write("one", "old content");
    std::fs::hard_link(path.as_path(), folder.os("other")).unwrap();
    let mut handles = Handles::default();
    handles.open("a", &path, OpenMode::Replace).unwrap();
    handles.write_block("a", 2, b"x").unwrap();
    assert_eq!(folder.read("other"), b"\0\0x");
}

#[test]
fn each_misuse_has_its_kind_and_code() {
    let folder = Folder::new();
    let path = folder.write("file", "content");
    let mut handles = Handles::default();
    handles.open("r", &path, OpenMode::Read).unwrap();
    handles.open("w", &path, OpenMode::Replace).unwrap();
    let out_of_range = (ErrorKind::OutOfRange, -32600);
    let wrong_mode = (ErrorKind::WrongMode, -32603);
    assert_eq!(seen(handles.open("r", &path, OpenMode::Read)), (ErrorKind::NameInUse, -32600));
    assert_eq!(seen(handles.read_block("none", 0, 1)), (ErrorKind::UnknownHandle, -32004));
    assert_eq!(seen(handles.write_block("none", 0, b"x")), (ErrorKind::UnknownHandle, -32004));
    assert_eq!(seen(handles.read_block("w", 0, 1)), wrong_mode);
    assert_eq!(seen(handles.write_block("r", 0, b"x")), wrong_mode);
    for len in [0, MAX_BLOCK_BYTES + 1, u64::MAX] {
        assert_eq!(seen(handles.read_block("r", 0, len)), out_of_range, "{len}");
    }
    for offset in [i64::MAX as u64, u64::MAX] {
        assert_eq!(seen(handles.read_block("r", offset, 1)), out_of_range);
        assert_eq!(seen(handles.write_block("w", offset, b"x")), out_of_range);
    }
    assert_eq!(seen(handles.write_block("w", 0, b"")), out_of_range);
    let too_long = vec![0; usize::try_from(MAX_BLOCK_BYTES).unwrap() + 1];
    assert_eq!(seen(handles.write_block("w", 0, &too_long)), out_of_range);
    assert!(handles.write_block("w", 0, &too_long[1..]).is_ok());
    assert_eq!(seen(handles.open("d", &folder.path(""), OpenMode::Read)), (ErrorKind::NotAFile, -32600));
    assert_eq!(seen(handles.open("d", &folder.path("none"), OpenMode::Read)), (ErrorKind::NotFound, -32004));
}

#[test]
fn a_connection_has_a_bounded_number_of_handles() {
    let folder = Folder::new();
    let path = folder.write("file", "content");
    let mut handles = Handles::default();
    for number in 0..MAX_HANDLES {
        handles.open(&number.to_string(), &path, OpenMode::Read).unwrap();
    }
    assert_eq!(seen(handles.open("one more", &path, OpenMode::Read)), (ErrorKind::TooMany, -32600));
    handles.close("7").unwrap();
    handles.open("one more", &path, OpenMode::Read).unwrap();
    assert_eq!(handles.len(), MAX_HANDLES);
}

#[test]
fn a_handle_keeps_the_sandbox_that_it_was_opened_with() {
    let folder = Folder::new();
    let path = folder.write("file", "content");
    let mut handles = Handles::default();
    handles.open("r", &path, OpenMode::Read).unwrap();
    let mut call = |method, params: serde_json::Value| {
        handles.call(method, &serde_json::value::to_raw_value(&params).unwrap())
    };
    let plain = [
        ("fs/readBlock", json!({"handleId": "r", "offset": 0, "len": 3, "sandbox": null})),
        ("fs/writeBlock", json!({"handleId": "r", "offset": 0, "chunk": "eA=="})),
        ("fs/close", json!({"handleId": "r"})),
    ];
    for (method, mut params) in plain.clone() {
        for member in ["sandbox", "sandboxPolicy"] {
            params[member] = json!({"type": "read-only"});
            assert_eq!(seen(call(method, params.clone())).0, ErrorKind::InvalidInput, "{method} {member}");
            params.as_object_mut().unwrap().remove(member);
        }
    }
    let [read, write, close] = plain.map(|(method, params)| call(method, params));
    assert_eq!(read.unwrap().get(), r#"{"chunk":"Y29u","eof":false}"#);
    assert_eq!(seen(write).0, ErrorKind::WrongMode, "it was open for reading");
    assert_eq!(close.unwrap().get(), "{}");
}
