//! Which parts of a program ran: the counters that LLVM's SanitizerCoverage puts behind every edge.
//!
//! `cargo xtask soak` compiles this file by itself and gives it to fuzz targets that it builds with these counters
//! (`-C passes=sancov-module`, which needs no other toolchain). It is no part of the workspace, so that nothing else
//! pays for it and the crates go on forbidding unsafe code. Looks at counts of the whole process; who runs several
//! targets in one process can't tell them apart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// The counters of each part of the program that was linked or loaded, and what was seen of them.
static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

struct Region {
    counters: &'static [AtomicU8],
    /// For each counter one bit for each magnitude that it ever had.
    seen: Vec<u8>,
}

/// Called by the start-up code of every instrumented module (SanitizerCoverage, `inline-8bit-counters`).
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const AtomicU8, stop: *const AtomicU8) {
    let length = (stop as usize).saturating_sub(start as usize);
    let Ok(mut regions) = REGIONS.lock() else { return };
    // Every module calls with the same region: that of the whole program.
    if length == 0 || regions.iter().any(|region| std::ptr::eq(region.counters.as_ptr(), start)) {
        return;
    }
    // SAFETY: the linker laid the counters out between the two, they live as long as the program, and an atomic byte
    // has the layout of a byte. The instrumentation changes them without synchronisation; a lost count is a count.
    let counters = unsafe { std::slice::from_raw_parts(start, length) };
    regions.push(Region { counters, seen: vec![0; length] });
}

/// Returns how many edges ran a new order of magnitude of times since the last call, and sets all counters back.
pub fn take_news() -> usize {
    let Ok(mut regions) = REGIONS.lock() else { return 0 };
    let mut news = 0;
    for Region { counters, seen } in regions.iter_mut() {
        for (counter, seen) in counters.iter().zip(seen) {
            let count = counter.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            counter.store(0, Ordering::Relaxed);
            let magnitude = 1 << count.ilog2();
            if *seen & magnitude == 0 {
                *seen |= magnitude;
                news += 1;
            }
        }
    }
    news
}

/// How many edges ran so far, of how many.
pub fn edges() -> (usize, usize) {
    let Ok(regions) = REGIONS.lock() else { return (0, 0) };
    let ran = regions.iter().map(|region| region.seen.iter().filter(|&&seen| seen != 0).count()).sum();
    (ran, regions.iter().map(|region| region.seen.len()).sum())
}
