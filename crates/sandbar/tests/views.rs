//! The sandbox that really runs, compared with what `sandbar policy explain` says of it: random trees, random options,
//! every path of each tree tried from inside.
//!
//! The other views of a run (the mounts' simulator, the profile for macOS) are compared with the same permissions in
//! `sandbar-policy`, where a thousand trees cost as much as one does here.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sandbar_testkit::need::Need;
use sandbar_testkit::soak::{self, Random};
use sandbar_testkit::{Home, finish, need};

/// Trees among the tests, in each of the two parts; and in a soak.
const TREES: (usize, usize) = (60, 3000);

/// Directories that trees are made of and rules fight over, below the folder of the test.
const PLACES: [&str; 18] = [
    "ws",
    "ws/a",
    "ws/a/b",
    "ws/a/b/c",
    "ws/a-b",
    "ws/.claude",
    "ws/a/.codex",
    "ws/a/.agents/x",
    "home",
    "home/p",
    "home/.ssh",
    "home/.ssh/a",
    "home/.aws/x",
    "home/.config/gh",
    "home/.config/p",
    "home/.gnupg/a/b",
    "data",
    "data/a/b",
];

/// Tries each path: looks for the file that every directory of the host has or reads the file, makes something in it or opens it for writing, moves it away and back.
const PROBE: &str = r#"
import os, sys

def can(act):
    try:
        act()
        return 'y'
    except OSError:
        return 'n'

def make(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)

def read(path):
    with open(path) as file:
        if file.read() != 'content':
            raise OSError('another file')

# What a plan makes to lead to something below can be listed, and has nothing of the host.
def find(path):
    if 'file' not in os.listdir(path):
        raise OSError('another directory')

def move(path):
    os.rename(path, path + '.moved')
    os.rename(path + '.moved', path)

for asked in sys.argv[1:]:
    kind, path = asked[0], asked[1:]
    if kind == 'd':
        said = can(lambda: find(path)) + can(lambda: make(path + '/.probe')) + can(lambda: move(path))
    elif kind == 'f':
        said = can(lambda: read(path)) + can(lambda: os.close(os.open(path, os.O_WRONLY))) + can(lambda: move(path))
    else:
        said = '-' + can(lambda: make(path)) + '-'
    print(said)
"#;

/// Of the file in every directory.
const CONTENT: &str = "content";

/// What a path of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Directory,
    File,
    Missing,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::Directory => 'd',
            Self::File => 'f',
            Self::Missing => 'm',
        }
    }
}

/// A tree on the disk and the options of a run in it.
struct Tree {
    options: Vec<String>,
    cwd: PathBuf,
    paths: BTreeSet<(PathBuf, Kind)>,
}

impl Tree {
    /// Empties the directories of `home` and grows what `random` says.
    fn grow(home: &Home, random: &mut Random) -> Self {
        for name in ["ws", "home", "data"] {
            let folder = home.outside().join(name);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
        }
        let mut tree = Self { options: Vec::new(), cwd: home.workspace(), paths: BTreeSet::new() };
        for _ in 0..2 + random.below_size(8) {
            tree.place(home, random);
        }
        if random.one_in(2) {
            repository(&tree.place(home, random));
        }
        if random.one_in(2) {
            tree.cwd = tree.place(home, random);
        }
        for (option, most) in [("--allow-write", 3), ("--allow-read", 3)] {
            for _ in 0..random.below_size(most) {
                let place = tree.place(home, random).display().to_string();
                tree.options.extend([option.to_owned(), place]);
            }
        }
        if random.one_in(2) {
            tree.write_profile(home, random);
        } else if random.one_in(4) {
            tree.options.extend(["--profile", "read-only"].map(str::to_owned));
        }
        if is_by_landlock() {
            tree.options.extend(["--give-up", "protected-names"].map(str::to_owned));
        }
        for name in ["ws", "home", "data"] {
            tree.collect(&home.outside().join(name));
        }
        tree
    }

    /// A profile with lines of its own, some of which are patterns.
    fn write_profile(&mut self, home: &Home, random: &mut Random) {
        let mut text = "[permissions.random]\n".to_owned();
        let is_exact = random.one_in(2);
        if !is_exact {
            text.push_str(&format!("extends = {:?}\n", random.choose(&["workspace", "read-only"]).unwrap()));
        }
        text.push_str("[permissions.random.filesystem]\n");
        if is_exact {
            // What the probe itself needs.
            text.push_str("':minimal' = 'read'\n':cwd' = 'write'\n");
        }
        let mut lines = BTreeMap::new();
        for _ in 0..random.below_size(6) {
            let place = self.place(home, random).display().to_string();
            lines.insert(place, *random.choose(&["read", "write", "none"]).unwrap());
        }
        for _ in 0..random.below_size(3) {
            let tree = random.choose(&["ws", "data", "home/p"]).unwrap();
            // None of them covers what the probe makes: that is seen until somebody hides it.
            let pattern = random.choose(&["**/b", "**/x", "**/a/file", "*/b/c", "**/[a-c]/.codex"]).unwrap();
            fs::create_dir_all(home.outside().join(tree)).unwrap();
            lines.insert(home.outside().join(tree).join(pattern).display().to_string(), "none");
        }
        for (place, access) in lines {
            text.push_str(&format!("{place:?} = {access:?}\n"));
        }
        let config = home.sandbar_home().join("config");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.toml"), text).unwrap();
        self.options.extend(["--profile", "random"].map(str::to_owned));
    }

    fn place(&self, home: &Home, random: &mut Random) -> PathBuf {
        let place = home.outside().join(random.choose(&PLACES).unwrap());
        fs::create_dir_all(&place).unwrap();
        place
    }

    fn collect(&mut self, directory: &Path) {
        fs::write(directory.join("file"), CONTENT).unwrap();
        self.paths.insert((directory.to_owned(), Kind::Directory));
        for name in ["new", ".claude", ".git"] {
            if !directory.join(name).exists() {
                self.paths.insert((directory.join(name), Kind::Missing));
            }
        }
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.collect(&entry.path());
            } else {
                self.paths.insert((entry.path(), Kind::File));
            }
        }
    }

    /// What `policy explain` says of each path, or nothing where there is no plan.
    fn stated(&self, home: &Home) -> Option<Vec<String>> {
        let mut command = home.sandbar(&["policy", "explain", "--json"]);
        command.current_dir(&self.cwd).args(&self.options);
        if is_by_landlock() {
            command.args(["--sandbox", "landlock"]);
        }
        command.arg("--").args(self.paths.iter().map(|(path, _)| path));
        let said = finish(&mut command);
        if said.code != Some(0) {
            return None;
        }
        let lines: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout).unwrap();
        Some(lines.iter().map(|line| line["access"].as_str().unwrap().to_owned()).collect())
    }

    /// What each path answers from inside.
    fn tried(&self, home: &Home) -> Vec<String> {
        let mut command = home.sandbar(&["run", "--quiet", "--no-record"]);
        command.current_dir(&self.cwd).args(&self.options);
        command.args(["--", "python3", "-I", "-S", "-c", PROBE]);
        command.args(self.paths.iter().map(|(path, kind)| format!("{}{}", kind.letter(), path.display())));
        finish(&mut command).ok().lines().map(str::to_owned).collect()
    }
}

/// Whether Landlock alone holds the runs of this suite, where a directory with something hidden below can't be listed.
fn is_by_landlock() -> bool {
    std::env::var_os("SANDBAR_TEST_EXECUTOR").is_some_and(|executor| executor == "landlock")
}

fn repository(at: &Path) {
    let git = at.join(".git");
    for name in ["hooks", "objects", "refs", "info"] {
        fs::create_dir_all(git.join(name)).unwrap();
    }
    fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(git.join("config"), "[core]\n\tbare = false\n").unwrap();
}

/// Whether it has the content that the probe looks for.
fn is_plain(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "file")
}

fn home() -> Need<Home> {
    need::user_namespaces()?;
    need::program("python3")?;
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// Compares the trees of one part, and says what it compared.
fn compare(home: &Home, part: u64) -> String {
    let (seed, trees) = (soak::seed(), soak::number_of(TREES.0, TREES.1));
    let (mut planned, mut seen) = (0, BTreeSet::new());
    for number in 0..trees {
        let number = part * 1_000_000 + number as u64;
        let mut random = Random::of(seed, "views", number);
        let tree = Tree::grow(home, &mut random);
        let Some(stated) = tree.stated(home) else { continue };
        planned += 1;
        let tried = tree.tried(home);
        assert_eq!(tried.len(), tree.paths.len(), "seed {seed}, tree {number}");
        let all: Vec<_> = tree.paths.iter().zip(stated).zip(tried).collect();
        for (((path, kind), stated), tried) in &all {
            let told = || {
                format!(
                    "seed {seed}, tree {number}: {} in {:?} with {:?} and {:?}",
                    path.display(),
                    tree.cwd,
                    tree.options,
                    fs::read_to_string(home.sandbar_home().join("config/config.toml")).ok(),
                )
            };
            let tried: Vec<char> = tried.chars().collect();
            seen.insert(stated.clone());
            let hides =
                || all.iter().any(|(((below, _), access), _)| below.starts_with(path) && access == "none");
            let is_stricter = is_by_landlock() && stated == "read" && tried[0] == 'n' && hides();
            if (*kind == Kind::Directory || is_plain(path)) && !is_stricter {
                assert_eq!(tried[0] == 'y', stated != "none", "read: {}", told());
            }
            assert_eq!(tried[1] == 'y', stated == "write", "write: {}", told());
            let holds_less =
                || all.iter().any(|(((below, _), access), _)| below.starts_with(path) && access != "write");
            assert!(tried[2] != 'y' || !holds_less(), "moved: {}", told());
        }
    }
    assert!(planned * 2 >= trees, "{planned} of {trees} trees had a plan");
    assert_eq!(seen, ["none", "read", "write"].map(str::to_owned).into());
    format!("SOAK: views: seed {seed}, part {part}, {planned} of {trees} trees had a plan")
}

#[test]
fn random_trees_are_what_the_permissions_say() {
    println!("{}", compare(&need!(home()), 0));
}

#[test]
fn more_random_trees_are_what_the_permissions_say() {
    println!("{}", compare(&need!(home()), 1));
}
