//! What is left when somebody is killed: nothing, as soon as the next run came and went, at whatever call it happened.
//!
//! A survey says who belongs to a run, from the client to the leader, and which system calls each makes between the start
//! and the end of its keeper. Then each is killed before one of its calls, another run follows, and everything has to be as
//! it was before the first: workspace, home, temporary directories, cgroups, mounts, processes. What Sandbar keeps on
//! purpose is told by name. Among the tests some calls are chosen, those that change files above all; in a soak all are.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a soak says what it did, and a failure at what"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kill_probe::{Deeds, Milestone, Place, Task, Tracing};
use rustix::process::{Pid, WaitOptions};
use sandbar_sandbox::cgroup::Cgroup;
use sandbar_testkit::need::Need;
use sandbar_testkit::processes::Process;
use sandbar_testkit::soak::number_of;
use sandbar_testkit::{Home, Running, eventually, finish, need, patience};

/// Names that are reserved in a workspace.
const PROTECTED: [&str; 4] = [".agents", ".claude", ".codex", ".sandbar"];

/// Says that this is a test within mounts of its own.
const PRIVATE: &str = "SANDBAR_TEST_PRIVATE";

const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// What runs: something on its streams, something in the workspace, and a daemon that outlives its leader.
const SCRIPT: &str = "echo out; echo err >&2; : > made; rm made; sleep 0.01 &";

/// What runs until it is told to end.
const WAITING: &str = ": > ready; until test -e go; do sleep 0.01; done; rm ready go";

/// How often is asked who is left before that is told.
const MANY: usize = 400;

/// Everything that a test starts and nobody waits for any more comes to it, so two can't do so in one process.
static ALONE: Mutex<()> = Mutex::new(());

/// What there is: each file with its kind, mode, owner, inode and content.
type Listing = BTreeMap<PathBuf, String>;

/// A Sandbar and a workspace where names are missing, and what there was before.
struct Scene {
    home: Home,
    before: Listing,
    _alone: MutexGuard<'static, ()>,
}

/// The scene of a test, or `None` where the test ran already with mounts of its own. There nobody else has anything in the
/// temporary directories; only root can have them without another user namespace.
fn scene() -> Need<Option<Scene>> {
    need::user_namespaces()?;
    need::program("git")?;
    if need::is_root() && !is_private() {
        let prefix = need::private_mounts()?;
        run_privately(prefix);
        return Ok(None);
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::process::set_child_subreaper(Pid::from_raw(1)).unwrap();
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    prepare(&home, &home.workspace());
    home.write_home(".netrc", "machine example.org password x");
    Ok(Some(Scene { home, before: Listing::new(), _alone: alone }.settled()))
}

fn is_private() -> bool {
    std::env::var_os(PRIVATE).is_some()
}

/// Runs this test again in a mount namespace of its own, with empty temporary directories.
fn run_privately(prefix: &[&str]) {
    let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
    // Both may lie in one of those directories.
    let copy = |program: &Path, name: &str| {
        let place = home.outside().join(name);
        fs::copy(program, &place).unwrap();
        place
    };
    let sandbar = copy(home.program(), "sandbar");
    let test = copy(&std::env::current_exe().unwrap(), "test");
    let mounts = TEMPORARY.map(|folder| format!("mount -t tmpfs -o mode=1777 tmpfs {folder}")).join(" && ");
    let name = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).args(["sh", "-c", &format!("{mounts} && exec \"$@\""), "sh"]);
    command.arg(test).args(["--exact", &name, "--nocapture"]).env(PRIVATE, "1").env("SANDBAR_BIN", sandbar);
    command.current_dir(home.outside());
    let status = in_own_cgroup(|| command.status().unwrap());
    assert!(status.success(), "the test failed within mounts of its own");
}

/// Does something in a cgroup of its own, where there can be one.
fn in_own_cgroup<T>(act: impl FnOnce() -> T) -> T {
    let Ok(own) = Cgroup::own() else { return act() };
    let pid = i32::try_from(std::process::id()).unwrap();
    let name = format!("sandbar-test-{pid}");
    let Ok(inside) = own.make(&name) else { return act() };
    inside.take(pid).unwrap();
    let done = act();
    own.take(pid).unwrap();
    // What should not be there is told by now.
    for left in inside.children().unwrap() {
        let _ = inside.remove(&left);
    }
    let _ = own.remove(&name);
    done
}

/// A repository with a file, and one of the protected names.
fn prepare(home: &Home, workspace: &Path) {
    fs::create_dir_all(workspace.join(".claude")).unwrap();
    fs::write(workspace.join(".claude/settings"), "mine").unwrap();
    fs::write(workspace.join("file"), "mine").unwrap();
    let _ = finish(home.command("git").args(["init", "-q", "."]).current_dir(workspace)).ok();
}

impl Scene {
    /// With everything that a first run makes and nobody takes away again.
    fn settled(mut self) -> Self {
        self.next_run();
        self.before = self.everything();
        self.forget_records();
        self
    }

    /// Follows a run to the end of its keeper, meanwhile doing something.
    fn survey(&self, command: &Command, meanwhile: impl Fn(&Tracing)) -> BTreeMap<Place, Deeds> {
        let tracing = Tracing::start(command, Task::Survey);
        meanwhile(&tracing);
        assert!(tracing.wait(patience()).is_some(), "a run that is followed does not end");
        self.stop_keepers();
        let traced = tracing.finish().unwrap();
        assert_eq!(traced.status, Some(0), "a run that is followed fails");
        traced.seen
    }

    /// Kills a process of a run before one of its calls, meanwhile doing something; whether it came that far.
    fn kill(&self, command: &Command, place: &Place, step: usize, meanwhile: impl Fn(&Tracing)) -> bool {
        let tracing = Tracing::start(command, Task::Kill { place: place.clone(), step });
        meanwhile(&tracing);
        match tracing.wait(patience()) {
            Some(Milestone::Over) => {}
            // It may be killed behind the end of the run.
            Some(Milestone::ProgramEnded) => self.stop_keepers(),
            None => panic!("{place:?} before call {step}: the run hangs"),
        }
        let mut traced = tracing.finish().unwrap();
        eventually(patience(), "the end of the client", || traced.has_ended().then_some(()));
        // Of a run that was ended before it did so itself.
        for name in ["ready", "go", "made"] {
            let _ = fs::remove_file(self.home.workspace().join(name));
        }
        traced.killed
    }

    /// Kills whoever is at one of the places that are meant, before one call after another.
    fn kill_at_every_step(
        &mut self,
        few: usize,
        command: &Command,
        is_meant: impl Fn(&Place) -> bool,
        meanwhile: impl Fn(&Tracing),
    ) {
        let mut seen = self.survey(command, &meanwhile);
        self.next_run();
        self.is_as_before("nobody was killed");
        seen.retain(|place, _| is_meant(place));
        let (mut reached, mut failures) = (0, String::new());
        for (place, deeds) in &seen {
            for step in chosen(deeds, few.div_ceil(seen.len())) {
                // Shown where what follows fails.
                eprintln!("{place:?} is killed before call {step}, {:?}", deeds.steps[step]);
                reached += usize::from(self.kill(command, place, step, &meanwhile));
                self.next_run();
                let changes = self.changes();
                if !changes.is_empty() {
                    let call = &deeds.steps[step];
                    failures += &format!("{place:?} was killed before call {step}, {call:?}:\n{changes}\n");
                    self.before = self.everything();
                }
                self.forget_records();
            }
        }
        println!("SOAK: {reached} kills of {:?}", seen.keys().collect::<Vec<_>>());
        assert!(failures.is_empty(), "{failures}");
        assert!(reached > 0, "nobody is at such a place");
    }

    /// A run that succeeds, and the end of its keeper and of all before it.
    fn next_run(&self) {
        self.next_run_in(&self.home.workspace());
    }

    fn next_run_in(&self, workspace: &Path) {
        let next = finish(self.home.shell(&[], "echo next").current_dir(workspace));
        assert_eq!((next.code, next.out().as_str()), (Some(0), "next\n"), "{next:?}");
        self.stop_keepers();
        self.nobody_is_left();
    }

    /// Stops the keepers as soon as they hold nothing any more.
    fn stop_keepers(&self) {
        eventually(patience(), "the end of the keepers", || {
            let _ = self.home.finish(&["keeper", "stop"]);
            self.home.keepers().is_empty().then_some(())
        });
    }

    fn nobody_is_left(&self) {
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut asked = 0;
        eventually(patience(), "the end of everybody", || {
            let left = || own.descendants().into_iter().filter(Process::is_alive);
            asked += 1;
            if asked == MANY {
                let words = |process: &Process| String::from_utf8_lossy(&process.command_line()).into_owned();
                eprintln!("left: {:?}", left().map(|process| (words(&process), process)).collect::<Vec<_>>());
            }
            left().next().is_none().then_some(())
        });
        // Those who came to this process are to be waited for by it.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }

    /// Starts a run that goes on.
    fn start_in(&self, workspace: &Path) -> Running {
        let mut command = self.home.shell(&[], "echo ready; exec sleep 86400");
        let mut running = Running::start(command.current_dir(workspace));
        assert_eq!(running.line(), "ready");
        running
    }

    /// Leaves what runs leave whose keeper is killed while they live.
    fn kill_the_keeper_of(&self, workspaces: &[&Path]) {
        let running: Vec<Running> = workspaces.iter().map(|workspace| self.start_in(workspace)).collect();
        self.home.end_keepers();
        for run in running {
            let finished = run.finish();
            assert!(finished.code != Some(0), "{finished:?}");
        }
    }

    fn kill_a_keeper(&self) {
        self.kill_the_keeper_of(&[&self.home.workspace()]);
    }

    /// Everything that could be changed, but for what is kept on purpose.
    fn everything(&self) -> Listing {
        let mut found = Listing::new();
        list(self.home.outside(), &mut found, &|path| {
            if self.is_kept(path) { Look::Inside } else { Look::Both }
        });
        for folder in TEMPORARY {
            list(Path::new(folder), &mut found, &|path| {
                if is_others(path) { Look::Away } else { Look::Both }
            });
        }
        // Others have theirs beside ours; only within one of its own a test knows whose they are.
        if is_private()
            && let Ok(own) = Cgroup::own()
        {
            list(own.path(), &mut found, &|path| if path.is_dir() { Look::Both } else { Look::Away });
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let ours = self.home.outside().to_str().unwrap();
        let mounts = mounts.lines().filter(|line| is_private() || line.contains(ours));
        found.extend(mounts.map(|line| (PathBuf::from(line), "a mount".to_owned())));
        found
    }

    /// Whether a file is documented: the state that outlives a run, by its whole name.
    fn is_kept(&self, path: &Path) -> bool {
        // Tests replace it.
        if path == self.home.user_home().join(".netrc") {
            return true;
        }
        let Ok(path) = path.strip_prefix(self.home.sandbar_home()) else { return false };
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        match parts.as_slice() {
            ["state", "sessions", .., name] if name.starts_with("rollout-") => name.ends_with(".jsonl"),
            ["run", keeper] => keeper.starts_with("k1-"),
            ["run", _, "lock" | "start.lock" | "processes"] => true,
            // One without a start is known to nobody, and one without an end ended all the same.
            ["run", _, "processes", id] => {
                let place = self.home.sandbar_home().join(path);
                id.len() == 36 && place.join("start.json").exists() && place.join("end.json").exists()
            }
            ["run", _, "processes", _, name] => {
                matches!(*name, "start.json" | "end.json" | "closed.json" | "inputs.json" | "recorded")
                    || name.starts_with("log.")
            }
            _ => false,
        }
    }

    /// Asserts that nothing has changed.
    fn is_as_before(&self, what: &str) {
        let changes = self.changes();
        assert!(changes.is_empty(), "{what}:\n{changes}");
        self.forget_records();
    }

    /// What has changed, a line each.
    fn changes(&self) -> String {
        let now = self.everything();
        let differs = |one: &Listing, other: &Listing, sign: char| -> Vec<String> {
            let changed = one.iter().filter(|(path, what)| other.get(*path) != Some(what));
            changed.map(|(path, what)| format!("{sign} {} {what}", path.display())).collect()
        };
        [differs(&self.before, &now, '-'), differs(&now, &self.before, '+')].concat().join("\n")
    }

    /// Removes the records of all runs, which a keeper reads at its start: each has the same steps to go as the first.
    fn forget_records(&self) {
        for keeper in fs::read_dir(self.home.sandbar_home().join("run")).unwrap() {
            let records = keeper.unwrap().path().join("processes");
            fs::remove_dir_all(&records).unwrap();
            fs::create_dir(&records).unwrap();
            fs::set_permissions(&records, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    /// Protected names that are in a workspace and have been made for nobody.
    fn placeholders_in(&self, workspace: &Path) -> Vec<&'static str> {
        let is_marked = |name: &&str| {
            workspace.join(name).symlink_metadata().is_ok_and(|stat| stat.permissions().mode() & 0o1000 != 0)
        };
        PROTECTED.into_iter().filter(is_marked).collect()
    }
}

/// What to look at of a file and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Both,
    Inside,
    Away,
}

/// What lies below `folder`.
fn list(folder: &Path, found: &mut Listing, look: &dyn Fn(&Path) -> Look) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // It may be gone by now.
        let (look_at, Ok(stat)) = (look(&path), path.symlink_metadata()) else { continue };
        if look_at == Look::Both {
            let content = if stat.is_file() { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            let content = String::from_utf8_lossy(&content);
            let what = format!("{:o} {} {} {content:?}", stat.mode(), stat.uid(), stat.ino());
            found.insert(path.clone(), what);
        }
        if stat.is_dir() && look_at != Look::Away {
            list(&path, found, look);
        }
    }
}

/// Whether something in a directory that everybody writes to is somebody else's: other users', and what other tests and
/// benches of ours have there at the same time.
fn is_others(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let own = rustix::process::geteuid().as_raw();
    let is_mine = path.symlink_metadata().is_ok_and(|stat| stat.uid() == own);
    let may_be_ours =
        PROTECTED.contains(&name.as_str()) || name.starts_with("sandbar") || name.starts_with("bwrap");
    let is_known = ["sandbar-test-", "sandbar-bench-"].iter().any(|known| name.starts_with(known));
    !is_private() && (!is_mine || !may_be_ours || is_known)
}

/// The steps of `deeds` before which somebody is killed: all in a soak; else `few`, most of them those that change files.
fn chosen(deeds: &Deeds, few: usize) -> Vec<usize> {
    // Bubblewrap executes us by a descriptor, by whose number we are called then. A command is none of ours.
    let is_ours = |program: &str| ["sandbar", "exe", "bwrap", "5"].contains(&program);
    let ours = deeds.steps.iter().enumerate().filter(|(_, (_, program))| is_ours(program));
    let all: Vec<usize> = ours.map(|(step, _)| step).collect();
    let count = number_of(few, all.len());
    if count >= all.len() {
        return all;
    }
    let (changing, others): (Vec<usize>, Vec<usize>) =
        all.iter().partition(|step| deeds.steps[**step].0.changes_files());
    let most = (count * 3 / 4).min(changing.len());
    [spread(&changing, most), spread(&others, count - most)].concat()
}

/// `count` of `all`, at equal distances.
fn spread(all: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(all.len());
    (0..count).map(|number| all[(2 * number + 1) * all.len() / (2 * count)]).collect()
}

macro_rules! scene {
    () => {
        match need!(scene()) {
            Some(scene) => scene,
            None => return,
        }
    };
}

// --- at every step ---

fn nothing(_: &Tracing) {}

#[test]
fn a_client_that_is_killed_leaves_nothing() {
    let mut scene = scene!();
    let command = scene.home.shell(&[], SCRIPT);
    scene.kill_at_every_step(16, &command, |place| place.is_empty(), nothing);
}

#[test]
fn a_keeper_that_is_killed_on_its_way_to_be_one_leaves_nothing() {
    let mut scene = scene!();
    let command = scene.home.shell(&[], SCRIPT);
    scene.kill_at_every_step(8, &command, |place| *place == [0], nothing);
}

#[test]
fn a_keeper_that_is_killed_leaves_nothing() {
    let mut scene = scene!();
    let command = scene.home.shell(&[], SCRIPT);
    scene.kill_at_every_step(40, &command, |place| *place == [0, 0], nothing);
}

#[test]
fn a_keeper_that_is_killed_leaves_no_cgroup() {
    let mut scene = scene!();
    need!(need::that(
        is_private() && Cgroup::own().is_ok_and(|own| own.is_delegated()),
        "a cgroup to limit runs in"
    ));
    let command = scene.home.shell(&["--limit", "cpu=1h"], SCRIPT);
    scene.kill_at_every_step(30, &command, |place| *place == [0, 0], nothing);
}

#[test]
fn whoever_the_keeper_started_and_is_killed_leaves_nothing() {
    let mut scene = scene!();
    let command = scene.home.shell(&[], SCRIPT);
    scene.kill_at_every_step(40, &command, |place| place.len() > 2, nothing);
}

#[test]
fn who_puts_a_wall_up_again_and_is_killed_leaves_nothing() {
    let mut scene = scene!();
    let (workspace, user_home) = (scene.home.workspace(), scene.home.user_home());
    let replace = |tracing: &Tracing| {
        let (ready, go) = (workspace.join("ready"), workspace.join("go"));
        eventually(patience(), "a run that is ready", || (ready.exists() || tracing.is_over()).then_some(()));
        let new = user_home.join("new");
        fs::write(&new, "machine example.org password y").unwrap();
        fs::rename(new, user_home.join(".netrc")).unwrap();
        fs::write(&go, "").unwrap();
        eventually(patience(), "the end of a run", || (!ready.exists() || tracing.is_over()).then_some(()));
    };
    let command = scene.home.shell(&[], WAITING);
    scene.kill_at_every_step(12, &command, |place| *place == [0, 0, 1], replace);
}

#[test]
fn a_keeper_that_is_killed_while_it_clears_up_leaves_nothing() {
    let scene = scene!();
    scene.kill_a_keeper();
    assert_eq!(scene.placeholders_in(&scene.home.workspace()), [".agents", ".codex", ".sandbar"]);
    let command = scene.home.shell(&[], "true");
    let keeper = vec![0, 0];
    let seen = scene.survey(&command, nothing);
    scene.is_as_before("nobody was killed");
    let mut deeds = seen[&keeper].clone();
    // It listens when it has cleared up.
    let listens = deeds.steps.iter().position(|(call, _)| call.binds()).unwrap();
    deeds.steps.truncate(listens);
    for step in chosen(&deeds, 16) {
        scene.kill_a_keeper();
        assert!(scene.kill(&command, &keeper, step, nothing));
        scene.next_run();
        scene.is_as_before(&format!("the keeper was killed before call {step}, {:?}", deeds.steps[step]));
    }
}

// --- where and what it was left in ---

#[test]
fn a_run_elsewhere_clears_up_as_well() {
    let scene = scene!();
    let elsewhere = scene.home.outside().join("home/elsewhere");
    prepare(&scene.home, &elsewhere);
    let scene = scene.settled();
    scene.kill_a_keeper();
    scene.next_run_in(&elsewhere);
    scene.is_as_before("the next run was elsewhere");
}

#[test]
fn what_somebody_puts_where_a_name_was_reserved_is_theirs() {
    let scene = scene!();
    scene.kill_a_keeper();
    let mine = scene.home.write(".codex/mine", "mine");
    scene.next_run();
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    assert_eq!(scene.placeholders_in(&scene.home.workspace()), [".codex"]);
    fs::remove_dir_all(scene.home.workspace().join(".codex")).unwrap();
    scene.is_as_before("somebody used a placeholder");
}

#[test]
fn a_workspace_that_is_gone_keeps_nobody_from_clearing_up_elsewhere() {
    let scene = scene!();
    let (gone, kept) = (scene.home.outside().join("home/gone"), scene.home.workspace());
    prepare(&scene.home, &gone);
    scene.kill_the_keeper_of(&[&gone, &kept]);
    assert_eq!(scene.placeholders_in(&gone), scene.placeholders_in(&kept));
    fs::remove_dir_all(&gone).unwrap();
    scene.next_run();
    scene.is_as_before("a workspace was removed");
}

#[test]
fn a_workspace_that_was_moved_is_cleared_up_by_the_next_run_in_it() {
    let scene = scene!();
    let (old, new) = (scene.home.outside().join("home/old"), scene.home.outside().join("home/new"));
    prepare(&scene.home, &old);
    scene.kill_the_keeper_of(&[&old]);
    fs::rename(&old, &new).unwrap();
    scene.next_run();
    assert_eq!(scene.placeholders_in(&new), [".agents", ".codex", ".sandbar"]);
    scene.next_run_in(&new);
    assert_eq!(scene.placeholders_in(&new), [""; 0]);
    let status = finish(scene.home.command("git").args(["status", "--porcelain"]).current_dir(&new)).ok();
    assert_eq!(status, "?? .claude/\n?? file\n");
    fs::remove_dir_all(new).unwrap();
    scene.is_as_before("a workspace was moved");
}

#[test]
fn what_a_keeper_left_is_cleared_up_when_its_journal_is_lost_too() {
    let scene = scene!();
    scene.kill_a_keeper();
    // As at the end of a login, where the runtime directory lies in memory.
    for keeper in fs::read_dir(scene.home.sandbar_home().join("run")).unwrap() {
        fs::remove_dir_all(keeper.unwrap().path()).unwrap();
    }
    scene.next_run();
    scene.is_as_before("the runtime directory was lost");
}

#[test]
fn names_that_are_reserved_on_another_file_system_than_ours_are_given_back_too() {
    let scene = scene!();
    let other = Path::new("/dev/shm");
    let dev = |path: &Path| path.metadata().unwrap().dev();
    need!(need::that(
        dev(other) != dev(scene.home.outside()),
        "two file systems that everybody may write to"
    ));
    // So a placeholder can't be moved from the pool into the workspace, and is made there.
    let cache = tempfile::Builder::new().prefix("sandbar-test-").tempdir_in(other).unwrap();
    fs::remove_dir_all(scene.home.sandbar_home().join("cache")).unwrap();
    std::os::unix::fs::symlink(cache.path(), scene.home.sandbar_home().join("cache")).unwrap();
    let mut scene = scene.settled();
    let command = scene.home.shell(&[], "true");
    scene.kill_at_every_step(40, &command, |place| *place == [0, 0], nothing);
}
