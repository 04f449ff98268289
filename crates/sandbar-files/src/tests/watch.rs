//! Watches: what is news, what is none, and that news comes by the descriptor.

use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbar_proto::{AbsPath, Placeholder};

use super::{Folder, abs, seen};
use crate::{ErrorKind, MAX_WATCH_PATHS, MAX_WATCHES, Watch, WatchKey, Watches};

fn key(id: u64) -> WatchKey {
    WatchKey { connection: 1, id }
}

/// Waits for the descriptor and tells what changed.
fn wait(watches: &mut Watches) -> Vec<u64> {
    let fd = watches.fd().expect("a descriptor");
    let deadline = Timespec::try_from(sandbar_testkit::DEADLINE).unwrap();
    let count = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&deadline)).unwrap();
    assert_eq!(count, 1, "no news by the deadline");
    watches.changed().unwrap().iter().map(|key| key.id).collect()
}

/// A set with one watch that waits.
fn watching(missing: &[AbsPath], present: Option<&AbsPath>) -> Watches {
    let mut watches = Watches::default();
    assert_eq!(watches.watch(key(7), missing, present), Ok(Watch::Waiting));
    assert_eq!(watches.changed(), Ok(Vec::new()));
    watches
}

/// Runs `change`, which is no news, and then sees that the watch still notices what is.
fn survives(folder: &Folder, missing: &str, change: impl FnOnce()) {
    let path = folder.path(missing);
    let mut watches = watching(std::slice::from_ref(&path), None);
    change();
    assert_eq!(watches.changed(), Ok(Vec::new()));
    assert_eq!(watches.len(), 1);
    folder.write(missing, "");
    assert_eq!(wait(&mut watches), [7]);
    assert!(watches.is_empty());
}

#[test]
fn making_the_path_or_anything_above_it_is_news_once() {
    let folder = Folder::new();
    let missing = [folder.path("a/b/c")];
    for step in ["a", "a/b", "a/b/c"] {
        let mut watches = watching(&missing, None);
        fs::create_dir(folder.os(step)).unwrap();
        assert_eq!(wait(&mut watches), [7], "{step}");
        assert!(watches.is_empty());
        fs::write(folder.os("more"), "").unwrap();
        assert_eq!(watches.changed(), Ok(Vec::new()));
        fs::remove_file(folder.os("more")).unwrap();
    }
}

#[test]
fn what_is_moved_to_the_path_is_news_and_what_went_again_is_none() {
    let folder = Folder::new();
    folder.write("other", "");
    let mut watches = watching(&[folder.path("a")], None);
    fs::rename(folder.os("other"), folder.os("a")).unwrap();
    assert_eq!(wait(&mut watches), [7]);
    fs::remove_file(folder.os("a")).unwrap();
    survives(&folder, "a/b", || {
        fs::create_dir(folder.os("a")).unwrap();
        fs::remove_dir(folder.os("a")).unwrap();
    });
}

/// Makes what a keeper reserves a name with.
fn reserve(folder: &Folder, name: &str) {
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::create_dir(folder.os("pool")).unwrap();
    fs::set_permissions(folder.os("pool"), mode(Placeholder::DIRECTORY_MODE)).unwrap();
    fs::rename(folder.os("pool"), folder.os(name)).unwrap();
}

#[test]
fn a_name_that_a_keeper_reserves_is_missing_until_somebody_uses_it() {
    let folder = Folder::new();
    for missing in ["a", "a/b", "a/b/c"] {
        let path = [folder.path(missing)];
        let mut watches = watching(&path, None);
        // Comes and goes with each sandbox.
        for _ in 0..2 {
            reserve(&folder, "a");
            assert_eq!(watches.changed(), Ok(Vec::new()), "{missing}");
            let mut late = Watches::default();
            assert_eq!(late.watch(key(8), &path, None), Ok(Watch::Waiting), "{missing}");
            fs::rename(folder.os("a"), folder.os("back")).unwrap();
            assert_eq!(watches.changed(), Ok(Vec::new()), "{missing}");
            fs::remove_dir(folder.os("back")).unwrap();
        }
        reserve(&folder, "a");
        assert_eq!(watches.changed(), Ok(Vec::new()), "{missing}");
        fs::create_dir(folder.os("a/b")).unwrap();
        if missing == "a" {
            // Nobody looks into it; the keeper finds it used, and puts it back.
            fs::rename(folder.os("a"), folder.os("back")).unwrap();
            fs::rename(folder.os("back"), folder.os("a")).unwrap();
        }
        assert_eq!(wait(&mut watches), [7], "{missing}");
        fs::remove_dir_all(folder.os("a")).unwrap();
    }
}

#[test]
fn a_file_that_reserves_a_name_is_missing_and_its_loss_is_news_to_who_saw_it() {
    let folder = Folder::new();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(Placeholder::FILE_MODE);
    let path = folder.write("a", "");
    fs::set_permissions(folder.os("a"), mode).unwrap();
    let mut watches = watching(&[path.clone(), folder.path("a/b")], None);
    fs::remove_file(folder.os("a")).unwrap();
    assert_eq!(watches.changed(), Ok(Vec::new()));
    reserve(&folder, "a");
    let mut watches = watching(&[], Some(&path));
    fs::remove_dir(folder.os("a")).unwrap();
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn other_names_are_no_news() {
    let folder = Folder::new();
    fs::create_dir(folder.os("a")).unwrap();
    survives(&folder, "a/b/c", || {
        folder.write("x", "");
        folder.write("a/x", "");
        fs::remove_file(folder.os("a/x")).unwrap();
    });
}

#[test]
fn a_directory_on_the_way_may_go_and_come_back() {
    let folder = Folder::new();
    fs::create_dir_all(folder.os("a/b")).unwrap();
    survives(&folder, "a/b/c", || fs::remove_dir(folder.os("a/b")).unwrap());
    fs::remove_dir_all(folder.os("a")).unwrap();
    fs::create_dir_all(folder.os("a/b")).unwrap();
    survives(&folder, "a/b/c", || fs::rename(folder.os("a"), folder.os("elsewhere")).unwrap());
    fs::remove_dir_all(folder.os("a")).unwrap();
    // Renamed twice in one go: whatever is called `a` in the end counts.
    fs::create_dir_all(folder.os("a/b")).unwrap();
    survives(&folder, "a/b/c", || {
        fs::rename(folder.os("a"), folder.os("moved")).unwrap();
        fs::rename(folder.os("moved"), folder.os("a")).unwrap();
    });
}

#[test]
fn a_directory_that_takes_the_place_of_another_with_the_path_in_it_is_news() {
    let folder = Folder::new();
    fs::create_dir(folder.os("a")).unwrap();
    folder.write("other/b", "");
    let mut watches = watching(&[folder.path("a/b")], None);
    let (a, other) = (folder.os("a"), folder.os("other"));
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, other, exchange).unwrap();
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn links_are_followed_also_to_what_is_missing() {
    let folder = Folder::new();
    fs::create_dir_all(folder.os("real/deep")).unwrap();
    folder.link("link", "real/../real");
    folder.link("dangling", "real/deep/none");
    let mut watches = watching(&[folder.path("link/deep/a")], None);
    folder.write("real/deep/a", "");
    assert_eq!(wait(&mut watches), [7]);
    let mut watches = watching(&[folder.path("dangling")], None);
    folder.write("real/deep/none", "");
    assert_eq!(wait(&mut watches), [7]);
    let mut watches = watching(&[folder.path("link/gone")], None);
    folder.write("elsewhere/gone", "");
    fs::remove_file(folder.os("link")).unwrap();
    folder.link("link", "elsewhere");
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn the_loss_of_what_is_present_is_news_and_its_replacement_is_none() {
    let folder = Folder::new();
    let present = folder.write("a/b/file", "");
    let mut watches = watching(&[], Some(&present));
    fs::write(folder.os("a/b/new"), "").unwrap();
    fs::rename(folder.os("a/b/new"), folder.os("a/b/file")).unwrap();
    fs::write(folder.os("a/b/file"), "other content").unwrap();
    assert_eq!(watches.changed(), Ok(Vec::new()));
    fs::remove_file(folder.os("a/b/file")).unwrap();
    assert_eq!(wait(&mut watches), [7]);
    folder.write("a/b/file", "");
    let mut watches = watching(&[], Some(&present));
    fs::rename(folder.os("a"), folder.os("z")).unwrap();
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn old_news_is_told_at_once() {
    let folder = Folder::new();
    let there = folder.write("there", "");
    let missing = folder.path("missing");
    let mut watches = Watches::default();
    let mut ask = |paths: &[AbsPath], present: Option<&AbsPath>| watches.watch(key(1), paths, present);
    assert_eq!(ask(&[missing.clone(), there.clone()], None), Ok(Watch::Changed));
    assert_eq!(ask(&[], Some(&missing)), Ok(Watch::Changed));
    assert_eq!(ask(&[abs("/".as_ref())], None), Ok(Watch::Changed));
    assert_eq!(ask(&[missing], Some(&there)), Ok(Watch::Waiting));
    assert_eq!(watches.len(), 1);
}

#[test]
fn something_in_the_way_is_watched_until_it_makes_way() {
    let folder = Folder::new();
    folder.write("a", "a file");
    folder.link("round", "round");
    let mut watches = watching(&[folder.path("a/b"), folder.path("round/x")], None);
    fs::remove_file(folder.os("a")).unwrap();
    assert_eq!(watches.changed(), Ok(Vec::new()));
    fs::create_dir(folder.os("a")).unwrap();
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn each_watch_has_its_own_news_and_a_connection_may_go() {
    let folder = Folder::new();
    let mut watches = Watches::default();
    assert_eq!(watches.fd().map(|_| ()), None);
    for (connection, id, name) in [(1, 1, "a"), (1, 2, "b"), (2, 1, "a"), (3, 1, "a")] {
        let key = WatchKey { connection, id };
        assert_eq!(watches.watch(key, &[folder.path(name)], None), Ok(Watch::Waiting));
    }
    watches.forget(3);
    folder.write("a", "");
    let expected = [WatchKey { connection: 1, id: 1 }, WatchKey { connection: 2, id: 1 }];
    assert_eq!(watches.changed().unwrap(), expected);
    assert_eq!(watches.len(), 1);
}

#[test]
fn an_overflowing_queue_loses_no_news() {
    let folder = Folder::new();
    let mut watches = watching(&[folder.path("a")], None);
    // More events than a queue holds (16,384 by default): renames of a name on no way give two each.
    folder.write("x", "");
    for _ in 0..10_000 {
        fs::rename(folder.os("x"), folder.os("y")).unwrap();
        fs::rename(folder.os("y"), folder.os("x")).unwrap();
    }
    folder.write("a", "");
    assert_eq!(wait(&mut watches), [7]);
}

#[test]
fn each_refusal_has_its_kind_and_code() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let one = std::slice::from_ref(&missing);
    let mut watches = watching(one, None);
    assert_eq!(seen(watches.watch(key(7), one, None)), (ErrorKind::NameInUse, -32600));
    let many = vec![missing.clone(); MAX_WATCH_PATHS + 1];
    assert_eq!(seen(watches.watch(key(8), &many, None)), (ErrorKind::OutOfRange, -32600));
    for id in 1000..1000 + (MAX_WATCHES - 1) as u64 {
        assert_eq!(watches.watch(key(id), one, None), Ok(Watch::Waiting));
    }
    assert_eq!(seen(watches.watch(key(9), one, None)), (ErrorKind::TooMany, -32600));
    let other = WatchKey { connection: 2, id: 9 };
    assert_eq!(watches.watch(other, one, None), Ok(Watch::Waiting));
}

#[test]
fn a_watch_asks_nothing_of_the_kernel_that_it_does_not_need() {
    let folder = Folder::new();
    let mut watches = watching(&[folder.path("a/b")], None);
    for _ in 0..50 {
        fs::create_dir(folder.os("a")).unwrap();
        assert_eq!(wait(&mut watches), [7]);
        fs::remove_dir(folder.os("a")).unwrap();
        assert_eq!(watches.watch(key(7), &[folder.path("a/b")], None), Ok(Watch::Waiting));
    }
    let fd = rustix::fd::AsRawFd::as_raw_fd(&watches.fd().unwrap());
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let watched = info.lines().filter(|line| line.starts_with("inotify")).count();
    // The directories on the way, one each: /, /tmp, the folder.
    assert_eq!(watched, folder.path("").depth() + 1, "{info}");
}
