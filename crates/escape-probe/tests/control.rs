//! The probe without a sandbox: it can succeed, it tells every attempt once, and it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output};

use escape_probe::run::Told;
use escape_probe::{Control, Verdict, attempts};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_escape-probe");

/// A stage below a new folder, with nothing between it and the command.
fn perform(command: &[&str]) -> (TempDir, Output) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let places = ["ws", "outside", "home", "run"].map(|name| folder.path().join(name));
    places.iter().for_each(|place| fs::create_dir(place).unwrap());
    let mut stage = Command::new(PROGRAM);
    let output = stage.arg("stage").args(places).args(["-", "-", "--"]).args(command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (folder, output)
}

/// Names and contents of all files below a folder, without sockets, the stage's own and the host's program.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(contents(&path));
        } else if kind.is_file() {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn without_a_sandbox_attempts_succeed_and_leave_everything_as_it_was() {
    let (folder, output) = perform(&[PROGRAM, "attempt", "stage.json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Told> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = told.iter().map(|told| told.attempt.as_str()).collect();
    assert_eq!(names, attempts().map(|attempt| attempt.name).collect::<Vec<_>>());
    let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
    let odd: Vec<_> = attempts()
        .zip(&told)
        .filter(|(attempt, told)| match attempt.control {
            Control::Allowed | Control::Direct => told.result != Verdict::Allowed,
            Control::Root => is_root && told.result != Verdict::Allowed,
            Control::Open(_) => false,
        })
        .map(|(_, told)| format!("{}: {:?}, {}", told.attempt, told.result, told.detail))
        .collect();
    assert_eq!(odd, Vec::<String>::new());

    // A second stage, on which nobody attempts anything, is what the first still has to look like.
    let (untouched, _) = perform(&["true"]);
    let relative = |folder: &Path| -> BTreeMap<String, Vec<u8>> {
        let prefix = folder.display().to_string();
        let all = contents(folder).into_iter();
        all.filter(|(name, _)| !name.ends_with("stage.json"))
            .map(|(name, content)| (name.replace(&prefix, ""), content))
            .collect()
    };
    assert_eq!(relative(folder.path()), relative(untouched.path()));
}
