//! Races: directories that are swapped for links while trees are removed and copied, and files that are replaced while
//! they are read.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Folder, files};
use crate::{Atomicity, Directories, Links, RemoveOptions, WriteOptions};

/// Exchanges a directory for a link to `outside`, and back, until it is told to stop.
fn swap(folder: &Folder, directory: &str, stop: &AtomicBool) -> u64 {
    let (directory, link) = (folder.os(directory), folder.os("link-to-outside"));
    symlink(folder.os("outside"), &link).unwrap();
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        // It fails once the directory is gone, which is when the other thread is done.
        if renameat_with(CWD, &directory, CWD, &link, RenameFlags::EXCHANGE).is_ok() {
            swaps += 1;
        }
    }
    swaps
}

#[test]
fn nothing_outside_is_removed_when_a_directory_is_swapped_for_a_link() {
    let mut swaps = 0;
    for _ in 0..40 {
        let folder = Folder::new();
        for number in 0..20 {
            folder.write(&format!("outside/{number}"), "kept");
            folder.write(&format!("tree/middle/inner/{number}"), "");
            folder.write(&format!("tree/middle/more/{number}"), "");
        }
        let stop = AtomicBool::new(false);
        swaps += std::thread::scope(|scope| {
            let swapping = scope.spawn(|| swap(&folder, "tree/middle", &stop));
            // It fails when it meets the swap; what counts is what is left outside.
            let _ = files().remove(&folder.path("tree"), RemoveOptions::default());
            stop.store(true, Ordering::Relaxed);
            swapping.join().unwrap()
        });
        assert_eq!(std::fs::read_dir(folder.os("outside")).unwrap().count(), 20);
    }
    assert!(swaps > 0, "nothing was swapped meanwhile");
}

#[test]
fn nothing_outside_is_copied_or_written_when_a_directory_is_swapped_for_a_link() {
    let mut swaps = 0;
    for round in 0..40 {
        let folder = Folder::new();
        // In half of the rounds the source is swapped, in the others the copy.
        let swapped = if round % 2 == 0 { "tree/middle" } else { "copy/middle" };
        for number in 0..20 {
            folder.write(&format!("outside/secret-{number}"), "secret");
            folder.write(&format!("tree/middle/inner/{number}"), "new");
            folder.write(&format!("tree/middle/more/{number}"), "new");
        }
        folder.write("copy/middle/inner/0", "old");
        let stop = AtomicBool::new(false);
        swaps += std::thread::scope(|scope| {
            let swapping = scope.spawn(|| swap(&folder, swapped, &stop));
            let _ = files().copy(&folder.path("tree"), &folder.path("copy"), Directories::Recurse);
            stop.store(true, Ordering::Relaxed);
            swapping.join().unwrap()
        });
        assert_eq!(std::fs::read_dir(folder.os("outside")).unwrap().count(), 20, "written outside");
        let copied = std::process::Command::new("find").arg(folder.os("copy")).output().unwrap();
        // `find` follows no link, so that what it lists was copied.
        assert!(!String::from_utf8_lossy(&copied.stdout).contains("secret"), "copied from outside");
    }
    assert!(swaps > 0, "nothing was swapped meanwhile");
}

#[test]
fn a_reader_finds_the_old_content_or_the_new_and_nothing_between() {
    let folder = Folder::new();
    let contents = [vec![b'a'; 100_000], vec![b'b'; 300_000]];
    let path = folder.write("file", &contents[0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = [0; 2];
            while !stop.load(Ordering::Relaxed) {
                let content = files().read_file(&path, Links::Follow).unwrap();
                let which = contents.iter().position(|whole| *whole == content).expect("a torn file");
                seen[which] += 1;
            }
            seen
        });
        for round in 0..60 {
            let options = WriteOptions { atomicity: Atomicity::Required, ..WriteOptions::default() };
            files().write_file(&path, &contents[round % 2], options).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reading.join().unwrap().iter().sum::<u32>() > 0);
    });
    assert_eq!(folder.names(), ["file"]);
}
