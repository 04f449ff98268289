//! The helper and its caller over a pair of sockets: every method, large content, misuse, and whatever bytes may come.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes fails the test")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{Surroundings, WatchKey};

/// A helper in a thread, and the caller's end.
struct Caller {
    folder: TempDir,
    stream: UnixStream,
    decoder: AnswerDecoder,
    last_id: u64,
    helper: Option<JoinHandle<std::io::Result<()>>>,
}

impl Caller {
    fn new() -> Self {
        let (stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(sandbar_testkit::DEADLINE)).unwrap();
        let output = theirs.try_clone().unwrap();
        let helper = std::thread::spawn(move || serve(theirs, output, Surroundings::Sandbox));
        let folder = tempfile::tempdir().unwrap();
        Self { folder, stream, decoder: AnswerDecoder::default(), last_id: 0, helper: Some(helper) }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn send(&mut self, line: &[u8]) {
        self.stream.write_all(line).unwrap();
    }

    fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.decoder.next() {
                return answer.unwrap();
            }
            let mut bytes = vec![0; 256 * 1024];
            let got = self.stream.read(&mut bytes).expect("an answer by the deadline");
            assert_ne!(got, 0, "the helper is gone");
            self.decoder.push(&bytes[..got]);
        }
    }

    /// The whole answer to a request, as the server would hand it on.
    fn wait(&mut self, id: u64) -> Result<Value, Value> {
        let mut assembly = Assembly::default();
        loop {
            match self.answer() {
                Answer::Part { id: part_of, part } if part_of == id => assembly.add(&part).unwrap(),
                Answer::Done { id: done, result } if done == id => {
                    return Ok(serde_json::from_str(assembly.finish(result).unwrap().get()).unwrap());
                }
                Answer::Failed { id: failed, error } if failed == id => {
                    return Err(serde_json::to_value(error).unwrap());
                }
                other => panic!("{other:?} instead of an answer to {id}"),
            }
        }
    }

    fn call_on(&mut self, connection: u64, method: &str, params: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let line = encode_request(self.last_id, connection, method, &raw(&params), false);
        self.send(&line);
        self.wait(self.last_id)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.call_on(0, method, params)
    }

    /// The code and the kind of a refusal.
    fn refusal(&mut self, method: &str, params: Value) -> (i64, String) {
        let error = self.call(method, params).unwrap_err();
        (error["code"].as_i64().unwrap(), error["data"]["kind"].as_str().unwrap().to_owned())
    }

    /// Closes the caller's end and returns how the helper ended.
    fn end(&mut self) -> std::io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        self.helper.take().unwrap().join().unwrap()
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

#[test]
fn every_method_is_answered_in_the_dialects_shape() {
    let mut caller = Caller::new();
    let folder = caller.path("d");
    let file = caller.path("d/a b");
    let uri = format!("file://{}", file.replace(' ', "%20"));
    let done = Ok(json!({}));
    assert_eq!(caller.call("fs/createDirectory", json!({"path": folder})), done);
    assert_eq!(caller.call("fs/writeFile", json!({"path": uri, "dataBase64": "aGk="})), done);
    assert_eq!(caller.call("fs/readFile", json!({"path": file})), Ok(json!({"dataBase64": "aGk="})));
    let told = caller.call("fs/getMetadata", json!({"path": uri, "unknown": 1})).unwrap();
    assert_eq!(
        (&told["isFile"], &told["isSymlink"], &told["size"]),
        (&json!(true), &json!(false), &json!(2))
    );
    assert!(told["modifiedAtMs"].as_i64().unwrap() > 1_500_000_000_000);
    assert_eq!(caller.call("fs/canonicalize", json!({"path": file})), Ok(json!({"path": uri})));
    let entry = json!({"fileName": "a b", "isDirectory": false, "isFile": true});
    assert_eq!(caller.call("fs/readDirectory", json!({"path": folder})), Ok(json!({"entries": [entry]})));
    let options = json!({"maxDepth": 3, "maxDirectories": 5, "maxEntries": 5});
    let walked = caller.call("fs/walk", json!({"path": folder, "options": options}));
    let expected = json!({"entries": [{"path": uri, "kind": "file"}], "errors": [], "truncated": false});
    assert_eq!(walked, Ok(expected));
    let copy = json!({"sourcePath": folder, "destinationPath": caller.path("e"), "recursive": true});
    assert_eq!(caller.call("fs/copy", copy), done);
    assert_eq!(std::fs::read(caller.path("e/a b")).unwrap(), b"hi");
    assert_eq!(caller.call("fs/remove", json!({"path": caller.path("e")})), done);
    assert!(!std::path::Path::new(&caller.path("e")).exists());
    let opened = caller.call("fs/open", json!({"handleId": "h", "path": file}));
    assert_eq!(opened, Ok(json!({"handleId": "h"})));
    let block = caller.call("fs/readBlock", json!({"handleId": "h", "offset": 1, "len": 9}));
    assert_eq!(block, Ok(json!({"chunk": "aQ==", "eof": true})));
    let replace = json!({"handleId": "w", "path": file, "mode": "replace"});
    assert_eq!(caller.call("fs/open", replace), Ok(json!({"handleId": "w"})));
    let chunk = json!({"handleId": "w", "offset": 0, "chunk": "YWxs"});
    assert_eq!(caller.call("fs/writeBlock", chunk), done);
    assert_eq!(caller.call("fs/close", json!({"handleId": "w"})), done);
    assert_eq!(caller.call("fs/close", json!({"handleId": "w"})), done);
    assert_eq!(std::fs::read(&file).unwrap(), b"all");
    let watch = json!({"watchId": 5, "missing": [caller.path("none")], "present": file});
    assert_eq!(caller.call("fs/watchMissing", watch), Ok(json!({"watching": true})));
    std::fs::remove_file(&file).unwrap();
    let Answer::MissingChanged(key) = caller.answer() else { panic!("no news") };
    assert_eq!(key, WatchKey { connection: 0, id: 5 });
    assert!(caller.end().is_ok());
}

#[test]
fn every_refusal_has_the_dialects_code_and_a_kind() {
    let mut caller = Caller::new();
    std::fs::create_dir(caller.path("full")).unwrap();
    std::fs::write(caller.path("full/file"), "content").unwrap();
    let (full, file, none) = (caller.path("full"), caller.path("full/file"), caller.path("none"));
    let options = |depth: u64| json!({"maxDepth": depth, "maxDirectories": 1, "maxEntries": 1});
    caller.call("fs/open", json!({"handleId": "h", "path": file})).unwrap();
    let other = WHOLE_HASH;
    #[rustfmt::skip]
    let table = [
        ("fs/readFile", json!({"path": full}), -32600, "not_a_file"),
        ("fs/readFile", json!({"path": "/dev/zero"}), -32600, "not_a_file"),
        ("fs/readFile", json!({"path": none}), -32004, "not_found"),
        ("fs/readFile", json!({}), -32602, "invalid_params"),
        ("fs/readFile", json!({"path": "relative"}), -32602, "invalid_params"),
        ("fs/readFile", json!({"path": "file://elsewhere/x"}), -32602, "invalid_params"),
        ("fs/readFile", json!(null), -32602, "invalid_params"),
        ("fs/writeFile", json!({"path": caller.path("none/x"), "dataBase64": ""}), -32004, "not_found"),
        ("fs/writeFile", json!({"path": file, "dataBase64": "%"}), -32600, "invalid_data"),
        ("fs/writeFile", json!({"path": file, "dataBase64": "", "expectedHash": other}), -32600, "changed"),
        ("fs/writeFile", json!({"path": file, "dataBase64": "", "expectedHash": "x"}), -32602, "invalid_params"),
        ("fs/writeFile", json!({"path": file, "dataBase64": "", "mode": 0o1777}), -32602, "invalid_params"),
        ("fs/createDirectory", json!({"path": full, "recursive": false}), -32603, "already_exists"),
        ("fs/getMetadata", json!({"path": none}), -32004, "not_found"),
        ("fs/canonicalize", json!({"path": none}), -32004, "not_found"),
        ("fs/readDirectory", json!({"path": file}), -32603, "not_a_directory"),
        ("fs/walk", json!({"path": full, "options": options(65)}), -32600, "out_of_range"),
        ("fs/walk", json!({"path": full}), -32602, "invalid_params"),
        ("fs/remove", json!({"path": full, "recursive": false}), -32603, "not_empty"),
        ("fs/remove", json!({"path": none, "force": false}), -32004, "not_found"),
        ("fs/copy", json!({"sourcePath": full, "destinationPath": none}), -32600, "is_a_directory"),
        ("fs/copy", json!({"sourcePath": full, "destinationPath": caller.path("full/x"), "recursive": true}), -32600, "into_itself"),
        ("fs/open", json!({"handleId": "h", "path": file}), -32600, "name_in_use"),
        ("fs/open", json!({"handleId": "x", "path": file, "mode": "append"}), -32602, "invalid_params"),
        ("fs/readBlock", json!({"handleId": "none", "offset": 0, "len": 1}), -32004, "unknown_handle"),
        ("fs/readBlock", json!({"handleId": "h", "offset": 0, "len": 1_048_577}), -32600, "out_of_range"),
        ("fs/writeBlock", json!({"handleId": "h", "offset": 0, "chunk": "aGk="}), -32603, "wrong_mode"),
        ("fs/writeBlock", json!({"handleId": "h", "offset": 0, "chunk": "aGk"}), -32602, "invalid_params"),
        ("fs/unheard", json!({}), -32601, "unknown_method"),
        ("process/start", json!({}), -32601, "unknown_method"),
    ];
    for (method, params, code, kind) in table {
        assert_eq!(caller.refusal(method, params.clone()), (code, kind.to_owned()), "{method} {params}");
    }
    let error = caller.call("fs/readFile", json!({"path": full})).unwrap_err();
    assert_eq!(error["message"], format!("path `{full}` is not a file"));
    assert_eq!(error["data"]["path"], format!("file://{full}"));
    let error = caller.call("fs/writeFile", json!({"path": file, "dataBase64": "a"})).unwrap_err();
    let message = error["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("fs/writeFile requires valid base64 dataBase64: "), "{message}");
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
}

/// A hash that no file here has.
const WHOLE_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_request_that_asks_for_a_sandbox_is_refused() {
    let mut caller = Caller::new();
    let path = caller.path("x");
    let sandbox = json!({"permissions": {"type": "disabled"}, "workspaceRoots": []});
    let legacy = json!({"type": "read-only"});
    for (method, mut params) in [
        ("fs/readFile", json!({"path": path})),
        ("fs/writeFile", json!({"path": path, "dataBase64": ""})),
        ("fs/createDirectory", json!({"path": path})),
        ("fs/getMetadata", json!({"path": path})),
        ("fs/canonicalize", json!({"path": path})),
        ("fs/readDirectory", json!({"path": path})),
        ("fs/walk", json!({"path": path, "options": {"maxDepth": 1, "maxDirectories": 1, "maxEntries": 1}})),
        ("fs/remove", json!({"path": path})),
        ("fs/copy", json!({"sourcePath": path, "destinationPath": path})),
        ("fs/open", json!({"handleId": "h", "path": path})),
        ("fs/watchMissing", json!({"watchId": 1, "missing": [path]})),
    ] {
        for (member, asked) in [("sandbox", &sandbox), ("sandboxPolicy", &legacy)] {
            params[member] = asked.clone();
            assert_eq!(
                caller.refusal(method, params.clone()),
                (-32600, "invalid_input".to_owned()),
                "{method}"
            );
            params.as_object_mut().unwrap().remove(member);
        }
    }
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn what_the_kernel_refuses_in_a_sandbox_is_said_to_be_denied_there() {
    let mut caller = Caller::new();
    // Not even root may write there.
    let path = "/proc/sys/kernel/osrelease";
    let error = caller.call("fs/writeFile", json!({"path": path, "dataBase64": "eA=="})).unwrap_err();
    let data = json!({"kind": "denied_by_sandbox", "path": format!("file://{path}"), "errno": 13});
    assert_eq!((&error["code"], &error["data"]), (&json!(-32600), &data));
}

#[test]
fn large_content_comes_in_bounded_lines_and_whole() {
    let mut caller = Caller::new();
    for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 2 * PIECE_BYTES + 5] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251).to_le_bytes()[0]).collect();
        std::fs::write(caller.path("file"), &content).unwrap();
        let read = caller.call("fs/readFile", json!({"path": caller.path("file")})).unwrap();
        assert_eq!(STANDARD.decode(read["dataBase64"].as_str().unwrap()).unwrap(), content, "{size}");
    }
    // One of /proc with more than the first piece.
    let environment = caller.call("fs/readFile", json!({"path": "/proc/kallsyms"})).unwrap();
    let read = STANDARD.decode(environment["dataBase64"].as_str().unwrap()).unwrap();
    assert_eq!(read.len(), std::fs::read("/proc/kallsyms").unwrap().len());
}

#[test]
fn long_lists_come_in_bounded_lines_and_whole() {
    let mut caller = Caller::new();
    let name = |number: usize| format!("{number:05}-{}", "ü".repeat(60));
    for number in 0..6000 {
        std::fs::write(caller.path(&name(number)), "").unwrap();
    }
    let listing = caller.call("fs/readDirectory", json!({"path": caller.path("")})).unwrap();
    assert_eq!(listing["entries"].as_array().unwrap().len(), 6000);
    assert_eq!(listing["entries"][5999]["fileName"], name(5999));
    let options = json!({"maxDepth": 1, "maxDirectories": 1, "maxEntries": 50_000});
    let walked = caller.call("fs/walk", json!({"path": caller.path(""), "options": options})).unwrap();
    assert_eq!(walked["entries"].as_array().unwrap().len(), 6000);
    assert_eq!((&walked["errors"], &walked["truncated"]), (&json!([]), &json!(false)));
}

/// The lines that write `content` in pieces of `step` bytes.
fn upload(id: u64, connection: u64, mut params: Value, content: &[u8], step: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<String> = content.chunks(step).map(|piece| STANDARD.encode(piece)).collect();
    params["dataBase64"] = json!(pieces[0]);
    let mut lines = vec![encode_request(id, connection, "fs/writeFile", &raw(&params), pieces.len() > 1)];
    for (at, piece) in pieces.iter().enumerate().skip(1) {
        lines.push(encode_piece(id, piece, at + 1 < pieces.len()));
    }
    lines
}

#[test]
fn large_content_goes_in_pieces_beside_other_requests() {
    let mut caller = Caller::new();
    let path = caller.path("file");
    std::fs::write(&path, "old").unwrap();
    let content: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|at| (at % 253).to_le_bytes()[0]).collect();
    let hash = blake3::hash(b"old").to_hex().to_string();
    let lines = upload(1000, 0, json!({"path": path, "expectedHash": hash}), &content, PIECE_BYTES);
    for (at, line) in lines.iter().enumerate() {
        caller.send(line);
        if at + 1 < lines.len() {
            let read = caller.call("fs/readFile", json!({"path": path}));
            assert_eq!(read, Ok(json!({"dataBase64": STANDARD.encode("old")})));
        }
    }
    assert_eq!(caller.wait(1000), Ok(json!({"hash": blake3::hash(&content).to_hex().to_string()})));
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[test]
fn content_that_fails_is_answered_once_and_its_rest_is_passed_over() {
    let mut caller = Caller::new();
    for (path, broken) in [(caller.path("none/file"), false), (caller.path("file"), true)] {
        let mut lines = upload(1000, 0, json!({"path": path}), &[b'x'; 60], 6);
        if broken {
            lines[3] = encode_piece(1000, "%", true);
        }
        for line in &lines {
            caller.send(line);
        }
        let error = caller.wait(1000).unwrap_err();
        let expected = if broken { "invalid_data" } else { "not_found" };
        assert_eq!(error["data"]["kind"], expected);
        assert_eq!(caller.call("fs/getMetadata", json!({"path": path})).unwrap_err()["code"], -32004);
    }
}

#[test]
fn connections_have_handles_and_watches_of_their_own() {
    let mut caller = Caller::new();
    let path = caller.path("file");
    std::fs::write(&path, "content").unwrap();
    let open = json!({"handleId": "h", "path": path});
    let watch = json!({"watchId": 1, "missing": [caller.path("none")]});
    for connection in [1, 2] {
        assert!(caller.call_on(connection, "fs/open", open.clone()).is_ok());
        assert!(caller.call_on(connection, "fs/watchMissing", watch.clone()).is_ok());
    }
    for line in &upload(500, 1, json!({"path": path}), &[b'x'; 60], 6)[..3] {
        caller.send(line);
    }
    caller.send(&close_connection(501, 1));
    assert_eq!(caller.wait(501), Ok(json!({})));
    let block = json!({"handleId": "h", "offset": 0, "len": 1});
    assert_eq!(caller.call_on(1, "fs/readBlock", block.clone()).unwrap_err()["code"], -32004);
    assert!(caller.call_on(2, "fs/readBlock", block).is_ok());
    std::fs::write(caller.path("none"), "").unwrap();
    let Answer::MissingChanged(key) = caller.answer() else { panic!("no news") };
    assert_eq!(key, WatchKey { connection: 2, id: 1 });
    // The rest of the content has nowhere to go.
    caller.send(&encode_piece(500, "eHh4", false));
    assert_eq!(caller.call("fs/readFile", json!({"path": path})).unwrap()["dataBase64"], "Y29udGVudA==");
}

#[test]
fn old_news_comes_right_after_the_answer() {
    let mut caller = Caller::new();
    let watch = json!({"watchId": 9, "missing": [caller.path("")]});
    assert_eq!(caller.call("fs/watchMissing", watch), Ok(json!({"watching": true})));
    let Answer::MissingChanged(key) = caller.answer() else { panic!("no news") };
    assert_eq!(key.id, 9);
}

#[test]
fn a_line_that_is_no_request_is_told_and_the_next_one_is_answered() {
    let mut caller = Caller::new();
    let too_long = [vec![b'x'; MAX_LINE_BYTES + 10], b"\n".to_vec()].concat();
    for line in [
        b"nonsense\n".as_slice(),
        b"[]\n",
        b"{}\n",
        b"{\"id\":1}\n",
        b"{\"id\":-1,\"method\":\"fs/close\"}\n",
        b"{\"id\":1,\"method\":\"x\",\"strictly\":true}\n",
        b"{\"id\":1,\"method\":\"x\",\"part\":{\"dataBase64\":\"\"}}\n",
        b"\xff\xfe\n",
        &too_long,
    ] {
        caller.send(line);
        let Answer::Misunderstood(error) = caller.answer() else { panic!("{}", line.escape_ascii()) };
        assert_eq!((error.code, error.kind()), (-32600, Some("invalid_input")));
        assert_eq!(caller.call("fs/close", json!({"handleId": "x"})), Ok(json!({})));
    }
    // White space that a client put into its parameters ends no line.
    let params = RawValue::from_string("{\n\"handleId\":\n\"x\"}".to_owned()).unwrap();
    caller.send(&encode_request(77, 0, "fs/close", &params, false));
    assert_eq!(caller.wait(77), Ok(json!({})));
}

#[test]
fn the_helper_ends_with_its_input_and_what_was_on_its_way_is_gone() {
    let mut caller = Caller::new();
    let path = caller.path("file");
    std::fs::write(&path, "old").unwrap();
    let lines = upload(1, 0, json!({"path": path}), &[b'x'; 60], 6);
    caller.send(&lines[..4].concat());
    caller.send(b"{\"id\":2,\"met");
    assert!(caller.end().is_ok());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(caller.path("")).unwrap().count(), 1);
}

#[test]
fn pieces_that_do_not_fit_are_no_result() {
    let assembly = |parts: &[Value], end: Value| {
        let mut assembly = Assembly::default();
        parts.iter().try_for_each(|part| assembly.add(&raw(part)))?;
        assembly.finish(raw(&end)).map(|whole| whole.get().to_owned())
    };
    let data = |text: &str| json!({"dataBase64": text});
    assert_eq!(assembly(&[data("YWJj")], data("ZGVm")).unwrap(), r#"{"dataBase64":"YWJjZGVm"}"#);
    assert!(assembly(&[data("YW\"Jj")], data("")).is_err());
    assert!(assembly(&[json!({"entries": 1})], json!({"entries": []})).is_err());
    assert!(assembly(&[data("YWJj")], json!({})).is_err());
    let parts = [json!({"entries": []}), json!({"entries": [1, 2]}), json!({"entries": [3]})];
    assert_eq!(assembly(&parts, json!({"entries": []})).unwrap(), r#"{"entries":[1,2,3]}"#);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_bytes_come_no_decoder_breaks(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..400_usize) {
        // Noise alone, and good lines with noise in them.
        let mut lines = br#"{"id":1,"part":{"dataBase64":"aGk="}}
{"id":1,"result":{"entries":[{"fileName":"a","isDirectory":false,"isFile":true}]}}
{"id":2,"error":{"code":-32004,"message":"x","data":{"kind":"not_found"}}}
{"connection":3,"method":"fs/missingChanged","params":{"watchId":4}}
"#.to_vec();
        let at = at.min(lines.len());
        let end = (at + bytes.len() / 8).min(lines.len());
        lines.splice(at..end, bytes.iter().copied());
        for input in [bytes, lines] {
            let mut decoder = AnswerDecoder::default();
            decoder.push(&input);
            let mut assembly = Assembly::default();
            while let Some(answer) = decoder.next() {
                if let Ok(Answer::Part { part, .. } | Answer::Done { result: part, .. }) = answer {
                    let _ = assembly.add(&part);
                }
            }
            if let Ok(whole) = assembly.finish(raw(&json!({"entries": []}))) {
                prop_assert!(serde_json::from_str::<Value>(whole.get()).is_ok());
            }
        }
    }

    #[test]
    fn whatever_lines_come_the_helper_answers_the_next_request(
        mut noise in prop::collection::vec(any::<u8>(), 0..200),
        pick in prop::sample::select(vec!["", "{\"id\":1,\"method\":\"fs/readFile\",\"params\":", "{\"id\":1,\"part\":{\"dataBase64\":\""]),
    ) {
        let mut caller = Caller::new();
        let mut line = pick.as_bytes().to_vec();
        line.append(&mut noise);
        line.push(b'\n');
        caller.send(&line);
        caller.send(&encode_request(u64::MAX, 7, "fs/close", &raw(&json!({"handleId": "x"})), false));
        loop {
            match caller.answer() {
                Answer::Done { id: u64::MAX, .. } => break,
                Answer::Misunderstood(_) | Answer::Failed { .. } | Answer::Done { .. } | Answer::Part { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        prop_assert!(caller.end().is_ok());
    }
}
