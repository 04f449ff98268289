//! The file methods, without a sandbox.

use serde_json::{Value, json};

use crate::client::{Client, base64, bytes};
use crate::server::Server;

const NOT_FOUND: i64 = -32004;
const INVALID_REQUEST: i64 = -32600;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;

fn write(client: &mut Client, path: &str, text: &str) {
    client.ask("fs/writeFile", &json!({"path": path, "dataBase64": base64(text)}));
}

fn read(client: &mut Client, path: &str) -> String {
    let read = client.ask("fs/readFile", &json!({"path": path}));
    String::from_utf8(bytes(&read["dataBase64"])).unwrap()
}

pub(crate) fn a_file_is_written_and_read_back(server: &Server) {
    let mut client = server.ready();
    let path = server.file("f");
    let written = client.ask("fs/writeFile", &json!({"path": path, "dataBase64": base64("one\n")}));
    assert_eq!(written, json!({}));
    assert_eq!(read(&mut client, &path), "one\n");
    write(&mut client, &path, "");
    assert_eq!(client.ask("fs/readFile", &json!({"path": path})), json!({"dataBase64": ""}));
    // Large enough for many frames of a pipe, small enough for one message.
    let large = "0123456789abcdef".repeat(64 * 1024);
    write(&mut client, &path, &large);
    assert_eq!(read(&mut client, &path), large);
    std::os::unix::fs::symlink("f", server.home.workspace().join("link")).unwrap();
    write(&mut client, &server.file("link"), "through");
    assert_eq!(read(&mut client, &path), "through");
}

pub(crate) fn what_is_missing_has_a_code_of_its_own(server: &Server) {
    let mut client = server.ready();
    let missing = server.file("no/such");
    for method in ["fs/readFile", "fs/getMetadata", "fs/canonicalize", "fs/readDirectory"] {
        assert_eq!(client.refused_with(method, &json!({"path": missing})), NOT_FOUND, "{method}");
    }
    let requests = [
        ("fs/writeFile", json!({"path": missing, "dataBase64": ""})),
        ("fs/createDirectory", json!({"path": missing, "recursive": false})),
        ("fs/remove", json!({"path": missing, "force": false})),
        ("fs/copy", json!({"sourcePath": missing, "destinationPath": server.file("c"), "recursive": true})),
        ("fs/open", json!({"handleId": "h", "path": missing})),
    ];
    for (method, params) in requests {
        assert_eq!(client.refused_with(method, &params), NOT_FOUND, "{method}");
    }
    assert_eq!(client.ask("fs/remove", &json!({"path": missing})), json!({}), "which is forced by default");
    assert_eq!(client.refused_with("fs/readFile", &json!({})), INVALID_PARAMS);
}

pub(crate) fn metadata_tells_links_from_what_they_lead_to(server: &Server) {
    let mut client = server.ready();
    write(&mut client, &server.file("f"), "12345");
    std::os::unix::fs::symlink("f", server.home.workspace().join("link")).unwrap();
    let mut found = |name: &str| {
        let mut found = client.ask("fs/getMetadata", &json!({"path": server.file(name)}));
        for time in ["createdAtMs", "modifiedAtMs"] {
            assert!(found[time].is_i64(), "{found}");
            found.as_object_mut().unwrap().remove(time);
        }
        found
    };
    let file = json!({"isDirectory": false, "isFile": true, "isSymlink": false, "size": 5});
    assert_eq!(found("f"), file);
    assert_eq!(found("link"), json!({"isDirectory": false, "isFile": true, "isSymlink": true, "size": 5}));
    let mut folder = found("");
    folder.as_object_mut().unwrap().remove("size");
    assert_eq!(folder, json!({"isDirectory": true, "isFile": false, "isSymlink": false}));
}

pub(crate) fn directories_are_made_listed_and_removed(server: &Server) {
    let mut client = server.ready();
    let (deep, top) = (server.file("d/e"), server.file("d"));
    for _ in 0..2 {
        assert_eq!(client.ask("fs/createDirectory", &json!({"path": deep})), json!({}), "again is as good");
    }
    assert_eq!(
        client.refused_with("fs/createDirectory", &json!({"path": deep, "recursive": false})),
        INTERNAL
    );
    write(&mut client, &server.file("d/f"), "");
    let listed = client.ask("fs/readDirectory", &json!({"path": top}));
    let mut entries: Vec<Value> = listed["entries"].as_array().unwrap().clone();
    // The peer does not sort.
    entries.sort_by_key(|entry| entry["fileName"].as_str().map(str::to_owned));
    let expected = json!([{"fileName": "e", "isDirectory": true, "isFile": false},
                          {"fileName": "f", "isDirectory": false, "isFile": true}]);
    assert_eq!(Value::from(entries), expected);
    let shallow = json!({"path": top, "recursive": false});
    assert_eq!(client.refused_with("fs/remove", &shallow), INTERNAL);
    assert_eq!(client.ask("fs/remove", &json!({"path": top})), json!({}));
    assert_eq!(client.refused_with("fs/getMetadata", &json!({"path": top})), NOT_FOUND);
}

pub(crate) fn copies_take_trees_and_leave_links_links(server: &Server) {
    let mut client = server.ready();
    server.home.write("d/f", "content");
    std::os::unix::fs::symlink("f", server.home.workspace().join("d/link")).unwrap();
    let copy = |from: &str, to: &str, recursive: bool| json!({"sourcePath": server.file(from), "destinationPath": server.file(to), "recursive": recursive});
    assert_eq!(client.refused_with("fs/copy", &copy("d", "c", false)), INVALID_REQUEST);
    assert_eq!(client.refused_with("fs/copy", &copy("d", "d/below", true)), INVALID_REQUEST);
    assert_eq!(client.ask("fs/copy", &copy("d", "c", true)), json!({}));
    assert_eq!(read(&mut client, &server.file("c/f")), "content");
    let link = std::fs::read_link(server.home.workspace().join("c/link")).unwrap();
    assert_eq!(link, std::path::Path::new("f"));
    client.ask("fs/copy", &copy("d/f", "g", false));
    assert_eq!(read(&mut client, &server.file("g")), "content");
}

pub(crate) fn handles_read_and_write_blocks(server: &Server) {
    let mut client = server.ready();
    let open = json!({"handleId": "w", "path": server.file("f"), "mode": "replace"});
    assert_eq!(client.ask("fs/open", &open), json!({"handleId": "w"}));
    let block = |offset: u64, text: &str| json!({"handleId": "w", "offset": offset, "chunk": base64(text)});
    assert_eq!(client.ask("fs/writeBlock", &block(6, "world")), json!({}));
    assert_eq!(client.ask("fs/writeBlock", &block(0, "hello ")), json!({}));
    let read =
        |handle: &str, offset: u64, len: u64| json!({"handleId": handle, "offset": offset, "len": len});
    assert_eq!(client.refused_with("fs/readBlock", &read("w", 0, 1)), INTERNAL, "it is for writing");
    for _ in 0..2 {
        assert_eq!(client.ask("fs/close", &json!({"handleId": "w"})), json!({}), "again is as good");
    }
    client.ask("fs/open", &json!({"handleId": "r", "path": server.file("f")}));
    let blocks = [(0, 5, "hello", false), (5, 100, " world", true), (11, 1, "", true)];
    for (offset, len, text, eof) in blocks {
        let expected = json!({"chunk": base64(text), "eof": eof});
        assert_eq!(client.ask("fs/readBlock", &read("r", offset, len)), expected);
    }
    for len in [0, 1_048_577] {
        assert_eq!(client.refused_with("fs/readBlock", &read("r", 0, len)), INVALID_REQUEST, "{len}");
    }
    client.ask("fs/readBlock", &read("r", 0, 1_048_576));
}

pub(crate) fn handles_are_bounded_and_their_names_unique(server: &Server) {
    let mut client = server.ready();
    server.home.write("f", "x");
    let open = |handle: &str| json!({"handleId": handle, "path": server.file("f")});
    client.ask("fs/open", &open(""));
    assert_eq!(client.refused_with("fs/open", &open("")), INVALID_REQUEST);
    for number in 1..128 {
        client.ask("fs/open", &open(&number.to_string()));
    }
    assert_eq!(client.refused_with("fs/open", &open("one more")), INVALID_REQUEST);
    client.ask("fs/close", &json!({"handleId": ""}));
    client.ask("fs/open", &open("one more"));
}

pub(crate) fn a_walk_has_bounds_and_leaves_links_out(server: &Server) {
    let mut client = server.ready();
    server.home.write("d/a/b", "");
    server.home.write("d/c", "");
    std::os::unix::fs::symlink("c", server.home.workspace().join("d/link")).unwrap();
    let options = |changes: &Value| {
        let mut options = json!({"maxDepth": 64, "maxDirectories": 10_000, "maxEntries": 50_000,
                                 "followDirectorySymlinks": false});
        for (name, value) in changes.as_object().unwrap() {
            options[name] = value.clone();
        }
        json!({"path": server.file("d"), "options": options})
    };
    let walked = client.ask("fs/walk", &options(&json!({})));
    let mut entries: Vec<(String, String)> = walked["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry["kind"].as_str().unwrap().to_owned()))
        .collect();
    entries.sort();
    let entry = |name: &str, kind: &str| (server.file(name), kind.to_owned());
    assert_eq!(entries, [entry("d/a", "directory"), entry("d/a/b", "file"), entry("d/c", "file")]);
    assert_eq!((&walked["errors"], &walked["truncated"]), (&json!([]), &json!(false)));
    let cut = client.ask("fs/walk", &options(&json!({"maxEntries": 1})));
    assert_eq!((cut["entries"].as_array().unwrap().len(), &cut["truncated"]), (1, &json!(true)));
    for bound in [json!({"maxDepth": 65}), json!({"maxDirectories": 10_001}), json!({"maxEntries": 50_001})] {
        assert_eq!(client.refused_with("fs/walk", &options(&bound)), INVALID_REQUEST, "{bound}");
    }
}

pub(crate) fn a_watch_tells_once_that_what_was_missing_is_there(server: &Server) {
    let mut client = server.ready();
    let watch = json!({"watchId": 7, "missing": [server.file("d/e/f")], "present": null});
    assert_eq!(client.ask("fs/watchMissing", &watch), json!({"watching": true}));
    // The first ancestor that appears is news.
    std::fs::create_dir(server.home.workspace().join("d")).unwrap();
    let told = client.wait_for(|message| message["method"] == json!("fs/missingChanged"));
    assert_eq!(told["params"], json!({"watchId": 7}));
    std::fs::create_dir(server.home.workspace().join("d/e")).unwrap();
    server.home.write("p", "");
    let watch = json!({"watchId": 8, "missing": [server.file("q")], "present": server.file("p")});
    client.ask("fs/watchMissing", &watch);
    std::fs::remove_file(server.home.workspace().join("p")).unwrap();
    let told = client.wait_for(|message| message["method"] == json!("fs/missingChanged"));
    assert_eq!(told["params"], json!({"watchId": 8}));
}

pub(crate) fn only_regular_files_are_read(server: &Server) {
    let mut client = server.ready();
    for path in [server.cwd(), "file:///dev/zero".to_owned()] {
        let refused = client.refused("fs/readFile", &json!({"path": path}));
        let named = path.strip_prefix("file://").unwrap();
        assert_eq!(refused.code, INVALID_REQUEST, "{refused:?}");
        assert_eq!(refused.message, format!("path `{named}` is not a file"));
    }
    // Whose size is told as zero.
    assert!(read(&mut client, "file:///proc/self/status").contains("Pid:"));
}

pub(crate) fn paths_become_canonical(server: &Server) {
    let mut client = server.ready();
    server.home.write("f", "");
    std::os::unix::fs::symlink("f", server.home.workspace().join("link")).unwrap();
    let real = std::fs::canonicalize(server.home.workspace()).unwrap();
    let canonical = client.ask("fs/canonicalize", &json!({"path": server.file("link")}));
    assert_eq!(canonical, json!({"path": crate::server::uri(&real.join("f"))}));
}
