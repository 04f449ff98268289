//! Speed, in terms of what the kernel takes for the same.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::{Folder, files};
use crate::{Atomicity, Links, WriteOptions};

const CONTENT_BYTES: usize = 50 * 1024 * 1024;

/// The fastest of some runs: what else the machine does only ever adds.
fn fastest(mut run: impl FnMut()) -> Duration {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..7).map(|_| time(&mut run)).min().unwrap()
}

#[test]
fn fifty_megabytes_take_little_more_than_the_kernel_takes() {
    let folder = Folder::new();
    let content = vec![b'x'; CONTENT_BYTES];
    let path = folder.write("file", &content);
    let plain = fastest(|| assert_eq!(std::fs::read(path.as_path()).unwrap().len(), CONTENT_BYTES));
    let ours = fastest(|| assert_eq!(files().read_file(&path, Links::Follow).unwrap().len(), CONTENT_BYTES));
    println!("read: read(2) {plain:?}, ours {ours:?}");
    assert!(ours < plain * 3, "read(2) {plain:?}, ours {ours:?}");
    let options = WriteOptions { atomicity: Atomicity::Required, ..WriteOptions::default() };
    let plain = fastest(|| {
        let mut file = std::fs::File::create(folder.os("plain")).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
    });
    let ours = fastest(|| assert_eq!(files().write_file(&path, &content, options), Ok(None)));
    println!("write: write(2) and fsync(2) {plain:?}, ours {ours:?}");
    assert!(ours < plain * 3, "write(2) and fsync(2) {plain:?}, ours {ours:?}");
}
