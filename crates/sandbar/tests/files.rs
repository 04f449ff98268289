//! The files helper: inside a real sandbox, killed in the middle, on full disks, over mounts.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use sandbar_files::{
    Answer, AnswerDecoder, Assembly, HELPER_ARGUMENT, PIECE_TEXT_BYTES, encode_piece, encode_request,
};
use sandbar_testkit::need::Need;
use sandbar_testkit::{Home, need};
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn home() -> Home {
    Home::new(env!("CARGO_BIN_EXE_sandbar"))
}

fn sandbox() -> Need<Home> {
    need::user_namespaces()?;
    Ok(home())
}

/// A helper and the caller's end of it. Killed when dropped.
struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    decoder: AnswerDecoder,
    last_id: u64,
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Helper {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output, decoder: AnswerDecoder::default(), last_id: 0 }
    }

    /// In the sandbox of `sandbar run OPTIONS`.
    fn sandboxed(home: &Home, options: &[&str]) -> Self {
        let mut command = home.sandbar(&["run", "--quiet", "--no-record"]);
        // It may lie below /tmp, where a sandbox sees nothing of the host.
        command.args(options).arg("--allow-read").arg(home.program());
        command.arg("--").arg(home.program()).arg(HELPER_ARGUMENT);
        Self::start(&mut command)
    }

    /// In no sandbox.
    fn plain(home: &Home) -> Self {
        Self::start(&mut home.sandbar(&[HELPER_ARGUMENT]))
    }

    /// In a mount namespace of its own, which `script` fills first. `$1` is the workspace.
    fn mounted(home: &Home, prefix: &[&str], script: &str) -> Self {
        let mut command = home.command(prefix[0]);
        let script = format!("set -e; {script}; exec \"$0\" {HELPER_ARGUMENT}");
        command.args(&prefix[1..]).args(["sh", "-c", &script]).arg(home.program()).arg(home.workspace());
        Self::start(&mut command)
    }

    fn send(&mut self, line: &[u8]) {
        self.input.as_mut().unwrap().write_all(line).unwrap();
    }

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
                Answer::Part { .. }
                | Answer::Done { .. }
                | Answer::Failed { .. }
                | Answer::MissingChanged(_)
                | Answer::Misunderstood(_) => panic!("no answer to {id}"),
            }
        }
    }

    fn answer(&mut self) -> Answer {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            if let Some(answer) = self.decoder.next() {
                return answer.unwrap();
            }
            let got = self.output.read(&mut bytes).unwrap();
            assert_ne!(got, 0, "the helper ended");
            self.decoder.push(&bytes[..got]);
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.last_id += 1;
        self.send(&encode_request(self.last_id, 0, method, &raw(&params), false));
        self.wait(self.last_id)
    }

    /// Writes content in pieces.
    fn write(&mut self, path: &Path, content: &[u8], options: Value) -> Result<Value, Value> {
        self.last_id += 1;
        for line in upload(self.last_id, path, content, options) {
            self.send(&line);
        }
        self.wait(self.last_id)
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn upload(id: u64, path: &Path, content: &[u8], mut params: Value) -> Vec<Vec<u8>> {
    // Bytes whose base64 text is known without a library: `x` and `yyy` in groups of three.
    let text: String =
        content.chunks(3).map(|group| if group[0] == b'x' { "eHh4" } else { "eXl5" }).collect();
    assert_eq!(content.len() % 3, 0);
    let pieces: Vec<&str> =
        text.as_bytes().chunks(PIECE_TEXT_BYTES).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    params["path"] = json!(path);
    params["dataBase64"] = json!(pieces[0]);
    let mut lines = vec![encode_request(id, 0, "fs/writeFile", &raw(&params), pieces.len() > 1)];
    for (at, piece) in pieces.iter().enumerate().skip(1) {
        lines.push(encode_piece(id, piece, at + 1 < pieces.len()));
    }
    lines
}

/// The kind and the code of a refusal.
fn refused(answer: Result<Value, Value>) -> (String, i64) {
    let error = answer.unwrap_err();
    (error["data"]["kind"].as_str().unwrap().to_owned(), error["code"].as_i64().unwrap())
}

fn denied() -> (String, i64) {
    ("denied_by_sandbox".to_owned(), -32600)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn below(home: &Home, name: &str) -> PathBuf {
    home.workspace().join(name)
}

#[test]
fn the_workspace_is_written_whole_and_the_rest_is_denied() {
    let home = need!(sandbox());
    home.write("file", "old");
    home.write("run", "").parent().unwrap();
    fs::write(home.outside().join("outside"), "kept").unwrap();
    let mut helper = Helper::sandboxed(&home, &[]);
    let large = vec![b'x'; 3_000_000];
    let atomic = json!({"atomic": true});
    assert_eq!(helper.write(&below(&home, "file"), &large, atomic.clone()), Ok(json!({})));
    assert_eq!(fs::read(below(&home, "file")).unwrap(), large);
    assert_eq!(helper.write(&below(&home, "new"), b"yyy", atomic), Ok(json!({})));
    let read = helper.call("fs/readFile", json!({"path": below(&home, "new")}));
    assert_eq!(read, Ok(json!({"dataBase64": "eXl5"})));
    for path in [home.outside().join("outside"), home.outside().join("none"), "/etc/hosts".into()] {
        assert_eq!(refused(helper.write(&path, b"xxx", json!({}))), denied(), "{}", path.display());
        let error = helper.write(&path, b"xxx", json!({})).unwrap_err();
        assert_eq!(error["data"]["path"], format!("file://{}", path.display()));
    }
    let outside = json!({"path": home.outside().join("outside")});
    assert_eq!(refused(helper.call("fs/remove", outside)), denied());
    assert_eq!(fs::read(home.outside().join("outside")).unwrap(), b"kept");
    // Sandbar's own placeholders lie beside them while something runs.
    let left: Vec<_> = names(&home.workspace()).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(left, ["file", "new", "run"]);
    assert!(!names(&home.workspace()).iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn every_method_works_in_a_sandbox() {
    let home = need!(sandbox());
    home.write("tree/a/file", "content");
    std::os::unix::fs::symlink("a", below(&home, "tree/link")).unwrap();
    let mut helper = Helper::sandboxed(&home, &[]);
    let path = |name: &str| json!(below(&home, name));
    let done = Ok(json!({}));
    assert_eq!(helper.call("fs/createDirectory", json!({"path": path("made/below")})), done);
    let copy = json!({"sourcePath": path("tree"), "destinationPath": path("copy"), "recursive": true});
    assert_eq!(helper.call("fs/copy", copy), done);
    assert_eq!(fs::read(below(&home, "copy/link/file")).unwrap(), b"content");
    let options = json!({"maxDepth": 9, "maxDirectories": 9, "maxEntries": 99});
    let walked = helper.call("fs/walk", json!({"path": path("copy"), "options": options})).unwrap();
    assert_eq!((walked["entries"].as_array().unwrap().len(), &walked["errors"]), (2, &json!([])));
    let open = json!({"handleId": "w", "path": path("copy/a/file"), "mode": "replace"});
    assert_eq!(helper.call("fs/open", open), Ok(json!({"handleId": "w"})));
    let block = json!({"handleId": "w", "offset": 0, "chunk": "eXl5"});
    assert_eq!(helper.call("fs/writeBlock", block), done);
    assert_eq!(helper.call("fs/close", json!({"handleId": "w"})), done);
    assert_eq!(fs::read(below(&home, "copy/a/file")).unwrap(), b"yyy");
    let told = helper.call("fs/getMetadata", json!({"path": path("copy/link")})).unwrap();
    assert_eq!((&told["isDirectory"], &told["isSymlink"]), (&json!(true), &json!(true)));
    let canonical = helper.call("fs/canonicalize", json!({"path": path("copy/link/file")}));
    let real = below(&home, "copy/a/file");
    assert_eq!(canonical, Ok(json!({"path": format!("file://{}", real.display())})));
    let watch = json!({"watchId": 1, "missing": [path("later")], "present": path("copy/a")});
    assert_eq!(helper.call("fs/watchMissing", watch), Ok(json!({"watching": true})));
    assert_eq!(helper.call("fs/remove", json!({"path": path("copy")})), done);
    assert!(matches!(helper.answer(), Answer::MissingChanged(key) if key.id == 1));
    let listing = helper.call("fs/readDirectory", json!({"path": path("made")})).unwrap();
    assert_eq!(listing["entries"][0]["fileName"], "below");
}

#[test]
fn what_a_profile_hides_or_protects_is_denied() {
    let home = need!(sandbox());
    home.write_home(".ssh/id_ed25519", "secret");
    home.write("file", "old");
    let key = home.user_home().join(".ssh/id_ed25519");
    let mut helper = Helper::sandboxed(&home, &[]);
    let read = refused(helper.call("fs/readFile", json!({"path": key})));
    assert!(read == denied() || read == ("not_found".to_owned(), -32004), "{read:?}");
    let mut helper = Helper::sandboxed(&home, &["--profile", "read-only"]);
    assert_eq!(refused(helper.write(&below(&home, "file"), b"xxx", json!({}))), denied());
    let remove = json!({"path": below(&home, "file")});
    assert_eq!(refused(helper.call("fs/remove", remove)), denied());
    assert_eq!(fs::read(below(&home, "file")).unwrap(), b"old");
}

#[test]
fn a_full_disk_leaves_the_old_content_and_nothing_else() {
    let home = home();
    let mounts = need!(need::private_mounts());
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\"; printf old > \"$1/file\"";
    let mut helper = Helper::mounted(&home, mounts, script);
    let path = below(&home, "file");
    let full = ("no_space".to_owned(), -32603);
    assert_eq!(refused(helper.write(&path, &vec![b'x'; 3_000_000], json!({}))), full);
    assert_eq!(helper.call("fs/readFile", json!({"path": path})), Ok(json!({"dataBase64": "b2xk"})));
    let listing = helper.call("fs/readDirectory", json!({"path": home.workspace()})).unwrap();
    assert_eq!(listing["entries"].as_array().unwrap().len(), 1, "{listing}");
    // What was staged is given back.
    assert_eq!(helper.write(&path, &vec![b'x'; 600_000], json!({})), Ok(json!({})));
    assert_eq!(helper.call("fs/getMetadata", json!({"path": path})).unwrap()["size"], 600_000);
}

#[test]
fn a_mounted_file_is_written_in_place_unless_it_must_be_replaced_whole() {
    let home = home();
    let mounts = need!(need::private_mounts());
    home.write("folder/file", "old");
    home.write("folder/closed/file", "old");
    // One file mounted in a directory that takes new files, one in a directory that does not.
    let script = "cd \"$1/folder\"; touch ../other; mount --bind file file; \
                  mount --bind closed closed; mount --bind closed/file closed/file; \
                  mount -o remount,bind,ro closed";
    let mut helper = Helper::mounted(&home, mounts, script);
    for name in ["folder/file", "folder/closed/file"] {
        let path = below(&home, name);
        let whole = helper.write(&path, b"xxx", json!({"atomic": true}));
        assert_eq!(refused(whole), ("not_atomic".to_owned(), -32600), "{name}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(helper.write(&path, b"yyyyyy", json!({})), Ok(json!({})), "{name}");
        assert_eq!(fs::read(&path).unwrap(), b"yyyyyy");
        assert_eq!(helper.write(&path, b"xxx", json!({})), Ok(json!({})), "{name}");
        assert_eq!(fs::read(&path).unwrap(), b"xxx");
    }
    assert_eq!(names(&below(&home, "folder")), ["closed", "file"]);
    assert_eq!(names(&below(&home, "folder/closed")), ["file"]);
    let mounted = json!({"path": below(&home, "folder")});
    // Removing goes into mounts as rm(1) does, and ends at the first that the kernel keeps.
    assert!(matches!(refused(helper.call("fs/remove", mounted)).0.as_str(), "denied_by_sandbox" | "busy"));
}

#[test]
fn a_helper_that_is_killed_leaves_the_old_content_or_the_new() {
    let home = home();
    let path = home.write("file", "");
    let contents = [vec![b'x'; 1_200_000], vec![b'y'; 2_400_000]];
    let whole = |which: usize| contents[which].clone();
    fs::write(&path, whole(0)).unwrap();
    let mut seen = [0, 0];
    for round in 0..40 {
        let new = (round + 1) % 2;
        fs::write(&path, whole(1 - new)).unwrap();
        let mut helper = Helper::plain(&home);
        let lines = upload(1, &path, &contents[new], json!({}));
        // Killed after so many bytes were sent: at any place in the content, or behind its end.
        let bytes: Vec<u8> = lines.concat();
        let cut = bytes.len() * round / 32;
        helper.send(&bytes[..cut.min(bytes.len())]);
        if round >= 36 {
            helper.wait(1).unwrap();
        }
        helper.child.kill().unwrap();
        helper.child.wait().unwrap();
        let found = fs::read(&path).unwrap();
        let which = contents.iter().position(|content| *content == found);
        let which = which.unwrap_or_else(|| panic!("torn in round {round}: {} bytes", found.len()));
        seen[usize::from(which == new)] += 1;
    }
    assert!(seen[0] >= 31 && seen[1] >= 4, "old {}, new {}", seen[0], seen[1]);
    assert_eq!(names(&home.workspace()), ["file"]);
}

/// Whether every child of ours has this descriptor: a standard stream, or one that whoever started us left open.
fn is_inherited(descriptor: &str) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    ["0", "1", "2"].contains(&descriptor) || flags & O_CLOEXEC == 0
}

#[test]
fn a_helper_starts_without_anything_of_its_own() {
    let home = home();
    let mut helper = Helper::plain(&home);
    assert_eq!(helper.call("fs/close", json!({"handleId": ""})), Ok(json!({})));
    let pid = helper.child.id();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads, 1);
    if need::is_root() {
        let descriptors = names(Path::new(&format!("/proc/{pid}/fd")));
        let own = descriptors.iter().filter(|descriptor| !is_inherited(descriptor));
        // The copy of standard output that it writes to without a buffer.
        assert_eq!(own.count(), 1, "{descriptors:?}");
    } else {
        // Not dumpable: its entries belong to root (proc(5)).
        assert!(fs::read_dir(format!("/proc/{pid}/fd")).is_err());
    }
    // It keeps nothing in Sandbar's directories, and needs no keeper.
    assert_eq!(names(&home.sandbar_home()), Vec::<String>::new());
    drop(helper.input.take());
    assert!(helper.child.wait().unwrap().success());
}
