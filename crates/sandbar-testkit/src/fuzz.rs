//! Foreign bytes for parsers: samples, changed samples and noise.
//!
//! Input number `n` of a target is a function of the seed, the target's name and `n`, and of nothing else: whoever
//! knows the two numbers has the input, also when the process died of it. Needs no instrumentation and no other
//! toolchain, so the same targets run among the tests, with a few thousand inputs, and for as long as somebody wants
//! in `cargo xtask soak`. That builds them with counters of what ran, too (`cfg(sandbar_coverage)`): then an input
//! that ran something new becomes a sample itself, and failing inputs are kept as files, since no number repeats them.

#![allow(clippy::print_stdout, reason = "what a target tried is told as test output")]

use std::borrow::Cow;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::soak::{self, Random};

/// Runs one input alone: by its number, or from a file.
const ONLY: &str = "SANDBAR_FUZZ_INPUT";

/// A directory for samples that were found, and for inputs that failed.
const CORPUS: &str = "SANDBAR_FUZZ_CORPUS";

/// Most samples of a target; more would be a sign that it runs differently each time.
const MOST_SAMPLES: usize = 4096;

/// Inputs of a target among the tests. All targets together stay below ten seconds on two processors.
const INPUTS: u64 = 4000;

/// Longest input that a change makes, except from a longer sample.
const MOST_BYTES: usize = 64 * 1024;

/// Longest input by default: most faults need few bytes, and long inputs take the time of many short ones.
const USUAL_BYTES: usize = 1024;

/// One input in this many may grow to [`MOST_BYTES`].
const LONG_ONES: u64 = 64;

/// Most processor time for one input, in a build without optimisation: a hundred times what a parser needs that
/// takes time in proportion to its input.
const MOST_TIME: Duration = Duration::from_secs(1);

/// Of so many inputs at least one must be understood without being a sample. What runs something new is mostly
/// another way to refuse, so guided inputs are understood less often.
const LEAST_UNDERSTOOD: u64 = if cfg!(sandbar_coverage) { 1000 } else { 100 };

/// How long one input may take by the clock before the process says so and ends itself: a parser that never
/// returns can't be stopped otherwise.
const STALL: Duration = Duration::from_secs(30);

/// Inputs that are tried to find a shorter one that fails, too.
const MINIMISING: usize = 2000;

/// What a parser made of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// It understood at least a part.
    Understood,
    /// It refused.
    Refused,
}

impl Took {
    /// [`Took::Understood`], if it was.
    #[must_use]
    pub fn if_understood(understood: bool) -> Self {
        if understood { Self::Understood } else { Self::Refused }
    }
}

/// Where inputs come from.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// Whole inputs, most of them good.
    pub whole: &'a [&'a [u8]],
    /// Parts that mean something to the parser.
    pub words: &'a [&'a [u8]],
}

/// Gives `target` the samples and then what is made of them, and looks at four things: it returns, it does not panic
/// (which is also how it says that a property does not hold), its time is bounded, and it does not refuse
/// everything, which would mean that nothing behind its first line was tested.
///
/// # Panics
/// When one of them is not so. The message has the number of the input and the input.
#[track_caller]
pub fn fuzz(name: &str, samples: Samples<'_>, target: impl Fn(&[u8]) -> Took) {
    let seed = soak::seed();
    let mut pool = Pool::new(name, samples);
    if let Ok(only) = std::env::var(ONLY) {
        let input = match only.parse() {
            Ok(number) => pool.input(seed, name, number),
            Err(_) => std::fs::read(&only).expect("an input by its number or its file"),
        };
        println!("input {only} of seed {seed}, {} bytes: {}", input.len(), input.escape_ascii());
        target(&input);
        return;
    }
    let current = Arc::new(AtomicU64::new(0));
    watch(name, seed, Arc::clone(&current));
    let end = soak::time().map(|time| Instant::now() + time);
    let (mut number, mut understood, mut slowest) = (0, 0_u64, Duration::ZERO);
    take_news();
    while end.map_or(number < INPUTS, |end| Instant::now() < end) || number < samples.whole.len() as u64 {
        current.store(number, Ordering::Relaxed);
        let input = pool.input(seed, name, number);
        let (took, time) = run(&pool, seed, number, &input, &target);
        let is_sample = samples.whole.contains(&input.as_slice());
        understood += u64::from(took == Took::Understood && !is_sample);
        slowest = slowest.max(time);
        number += 1;
        if take_news() > 0 && !is_sample {
            pool.keep(input);
        }
    }
    current.store(u64::MAX, Ordering::Relaxed);
    let (slowest, guided) = (slowest.as_millis(), pool.told());
    println!(
        "SOAK: {name}: seed {seed}, {number} inputs, {understood} understood, slowest {slowest} ms{guided}"
    );
    assert!(understood * LEAST_UNDERSTOOD >= number, "{name}: nearly nothing but samples was understood");
}

#[cfg(sandbar_coverage)]
use sandbar_coverage::take_news;

/// Nothing counts what runs.
#[cfg(not(sandbar_coverage))]
fn take_news() -> usize {
    0
}

/// What inputs are made of: the samples, and what was found to run something new.
struct Pool<'a> {
    name: &'a str,
    whole: Vec<Cow<'a, [u8]>>,
    /// How many of them were given.
    given: usize,
    words: &'a [&'a [u8]],
    /// Where found samples are kept.
    folder: Option<PathBuf>,
}

impl<'a> Pool<'a> {
    fn new(name: &'a str, samples: Samples<'a>) -> Self {
        let mut whole: Vec<Cow<'a, [u8]>> =
            samples.whole.iter().map(|sample| Cow::Borrowed(*sample)).collect();
        let folder =
            std::env::var_os(CORPUS).map(|folder| PathBuf::from(folder).join(name.replace(' ', "-")));
        if cfg!(sandbar_coverage)
            && let Some(folder) = &folder
        {
            std::fs::create_dir_all(folder).expect("a folder for samples");
            let mut files: Vec<_> =
                std::fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path()).collect();
            files.sort();
            whole.extend(
                files
                    .iter()
                    .take(MOST_SAMPLES)
                    .map(|file| Cow::Owned(std::fs::read(file).expect("a sample"))),
            );
        }
        Self { name, whole, given: samples.whole.len(), words: samples.words, folder }
    }

    /// Makes an input that ran something new a sample.
    fn keep(&mut self, input: Vec<u8>) {
        if self.whole.len() >= MOST_SAMPLES {
            return;
        }
        if let Some(folder) = &self.folder {
            let file = folder.join(format!("{:016x}", soak::hash(&input)));
            std::fs::write(file, &input).expect("a sample that was found");
        }
        self.whole.push(Cow::Owned(input));
    }

    /// Keeps an input that failed, and says where.
    fn keep_failed(&self, input: &[u8]) -> String {
        let Some(folder) = self.folder.as_deref().and_then(|folder| folder.parent()) else {
            return String::new();
        };
        let file = folder.join(format!("failed-{}-{:016x}", self.name.replace(' ', "-"), soak::hash(input)));
        match std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, input)) {
            Ok(()) => format!("\nkept: {ONLY}={}", file.display()),
            Err(error) => format!("\nnot kept: {}: {error}", file.display()),
        }
    }

    #[cfg(sandbar_coverage)]
    fn told(&self) -> String {
        let (ran, all) = sandbar_coverage::edges();
        format!(", {} samples, {ran} of {all} edges", self.whole.len())
    }

    #[cfg(not(sandbar_coverage))]
    fn told(&self) -> String {
        String::new()
    }
}

/// Runs one input; a failure is told with the shortest input that has it.
fn run(
    pool: &Pool<'_>,
    seed: u64,
    number: u64,
    input: &[u8],
    target: &impl Fn(&[u8]) -> Took,
) -> (Took, Duration) {
    let before = processor_time();
    let took = match catch_unwind(AssertUnwindSafe(|| target(input))) {
        Ok(took) => took,
        Err(panic) => {
            // Each attempt would print its panic.
            let hook = take_hook();
            set_hook(Box::new(|_| {}));
            let shortest =
                minimise(input.to_vec(), |input| catch_unwind(AssertUnwindSafe(|| target(input))).is_err());
            set_hook(hook);
            tell(pool.name, seed, number, &format!("fails{}", pool.keep_failed(&shortest)), &shortest);
            resume_unwind(panic);
        }
    };
    let time = processor_time().saturating_sub(before);
    if time > MOST_TIME {
        let kept = pool.keep_failed(input);
        tell(
            pool.name,
            seed,
            number,
            &format!("takes {} ms of processor time{kept}", time.as_millis()),
            input,
        );
        let name = pool.name;
        panic!("{name} takes too long for {} bytes", input.len());
    }
    (took, time)
}

/// Written past the test harness, which keeps what tests print: a process that ends itself would lose it.
fn tell(name: &str, seed: u64, number: u64, what: &str, input: &[u8]) {
    let shown = match input.len() {
        0 => String::new(),
        length @ 1..=USUAL_BYTES => format!(" ({length} bytes): b\"{}\"", input.escape_ascii()),
        length => format!(" ({length} bytes)"),
    };
    let _ = writeln!(
        std::io::stderr(),
        "\n{name}: input {number} of seed {seed} {what}{shown}\n\
         again: SANDBAR_SOAK_SEED={seed} {ONLY}={number} and this test"
    );
}

/// Ends the process when one input takes for ever.
fn watch(name: &str, seed: u64, current: Arc<AtomicU64>) {
    let name = name.to_owned();
    std::thread::spawn(move || {
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = current.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > STALL {
                tell(&name, seed, now, "does not end", &[]);
                std::process::abort();
            }
        }
    });
}

/// What this thread used; the clock on the wall counts everybody else's work, too.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Takes away what a failure does not need, in ever smaller pieces.
fn minimise(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut piece, mut tries) = (input.len() / 2, 0);
    while piece > 0 && tries < MINIMISING {
        let mut at = 0;
        while at < input.len() && tries < MINIMISING {
            let mut shorter = input.clone();
            shorter.drain(at..input.len().min(at + piece));
            tries += 1;
            if fails(&shorter) { input = shorter } else { at += piece }
        }
        piece /= 2;
    }
    input
}

impl Pool<'_> {
    /// Input `number`: first the samples themselves, then changed ones and noise.
    fn input(&self, seed: u64, name: &str, number: u64) -> Vec<u8> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(sample) = self.whole.get(index) {
            return sample.to_vec();
        }
        let mut random = Random::of(seed, name, number);
        let most = if random.one_in(LONG_ONES) { MOST_BYTES } else { USUAL_BYTES };
        let mut input = match random.below(8) {
            // What takes more than its share of time or memory shows in repetitions.
            _ if most == MOST_BYTES && random.one_in(2) => litany(&mut random, self.words, most),
            0 => random.bytes(most.min(256)),
            1 => soup(&mut random, self.words, most),
            // Samples that were given and those that were found in equal parts: most of the latter are refused.
            2..5 => random.choose(&self.whole[..self.given]).map_or_else(Vec::new, |sample| sample.to_vec()),
            _ => random.choose(&self.whole).map_or_else(Vec::new, |sample| sample.to_vec()),
        };
        let most = most.max(input.len());
        // One change mostly, so that what follows it is still understood; sometimes a heap of them.
        for _ in 0..1 + random.below(2) * random.below(12) {
            change(&mut random, &mut input, self);
            input.truncate(most);
        }
        input
    }
}

/// Words of the format in any order.
fn soup(random: &mut Random, words: &[&[u8]], most: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let length = random.below_size(most) + 1;
    while text.len() < length {
        match random.choose(words) {
            Some(word) if !random.one_in(8) => text.extend_from_slice(word),
            Some(_) | None => text.push(random.byte()),
        }
    }
    text
}

/// One to three words again and again, behind a few others.
fn litany(random: &mut Random, words: &[&[u8]], most: usize) -> Vec<u8> {
    let mut text = soup(random, words, 64);
    let mut verse = Vec::new();
    for _ in 0..1 + random.below(3) {
        verse.extend_from_slice(random.choose(words).copied().unwrap_or(b"x"));
    }
    text.extend(verse.repeat(most.saturating_sub(text.len()) / verse.len().max(1)));
    text
}

/// Numbers at the edges of what programs count with.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Makes one change to `input`.
fn change(random: &mut Random, input: &mut Vec<u8>, samples: &Pool<'_>) {
    let at = random.below_size(input.len() + 1);
    let part = at..(at + 1 + random.below_size(32)).min(input.len());
    match random.below(11) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => drop(input.drain(part)),
        3 => {
            let word = random.choose(samples.words).map_or_else(|| random.bytes(8), |word| word.to_vec());
            input.splice(at..at, word);
        }
        4 => {
            let word = random.choose(samples.words).map_or_else(|| random.bytes(8), |word| word.to_vec());
            input.splice(part, word);
        }
        5 => input.truncate(at),
        6 => number_at(random, input, at),
        7 => digits_at(random, input, at),
        8 => {
            let copy = input[part].to_vec();
            let most = if random.one_in(4) { 8 * 1024 } else { 8 };
            let times = 1 + random.below_size(most);
            let room = MOST_BYTES.saturating_sub(input.len()) / copy.len().max(1);
            input.splice(at..at, copy.repeat(times.min(room)));
        }
        9 => {
            let to = random.below_size(input.len() + 1);
            let copy = input[part].to_vec();
            input.splice(to..to, copy);
        }
        _ => {
            if let Some(other) = random.choose(&samples.whole) {
                let from = random.below_size(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// Writes a binary number over what is there.
fn number_at(random: &mut Random, input: &mut [u8], at: usize) {
    let edge = EDGES[random.below_size(EDGES.len())].wrapping_add(random.below(3)).wrapping_sub(1);
    let width = 1 << random.below_size(4);
    let mut bytes = edge.to_le_bytes()[..width].to_vec();
    if random.one_in(2) {
        bytes.reverse();
    }
    for (slot, byte) in input.iter_mut().skip(at).zip(bytes) {
        *slot = byte;
    }
}

/// Replaces the next digits by another decimal number.
fn digits_at(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) else { return };
    let end =
        input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |l| start + l);
    let edge = EDGES[random.below_size(EDGES.len())].wrapping_add(random.below(3)).wrapping_sub(1);
    input.splice(start..end, edge.to_string().into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const SAMPLES: Samples<'_> = Samples { whole: &[b"key=12"], words: &[b"key", b"="] };

    #[test]
    fn an_input_is_known_by_its_numbers() {
        let input = |seed, name, number, samples| Pool::new("t", samples).input(seed, name, number);
        for number in 0..200 {
            assert_eq!(input(7, "t", number, SAMPLES), input(7, "t", number, SAMPLES));
        }
        let differ = (1..200).filter(|&n| input(7, "t", n, SAMPLES) != input(8, "t", n, SAMPLES)).count();
        assert!(differ > 150, "{differ}");
        assert_eq!(input(7, "t", 0, SAMPLES), b"key=12");
    }

    #[test]
    fn inputs_are_of_many_kinds_and_bounded() {
        let inputs: Vec<Vec<u8>> =
            (0..5000).map(|number| Pool::new("t", SAMPLES).input(1, "t", number)).collect();
        assert!(inputs.iter().all(|input| input.len() <= MOST_BYTES));
        let has = |what: &dyn Fn(&[u8]) -> bool| inputs.iter().any(|input| what(input));
        assert!(has(&|input| input.len() > MOST_BYTES / 2));
        assert!(has(&|input| input.is_empty()));
        assert!(has(&|input| input == b"key=18446744073709551615"));
        assert!(has(&|input| input.starts_with(b"keykey=")));
        assert!(has(&|input| input.contains(&0xff)));
    }

    #[test]
    fn a_target_that_fails_is_told_with_little_around_the_fault() {
        let fails = |input: &[u8]| input.windows(2).any(|pair| pair == b"=1");
        assert_eq!(minimise([b"x".repeat(500).as_slice(), b"a=1", &b"y".repeat(70)].concat(), fails), b"=1");
        let found = catch_unwind(|| {
            fuzz("t", SAMPLES, |input| {
                assert!(!input.starts_with(b"key=12k"), "found");
                Took::Understood
            });
        });
        assert_eq!(found.unwrap_err().downcast_ref::<&str>(), Some(&"found"));
    }

    #[test]
    fn a_target_that_refuses_everything_is_no_test() {
        let found = catch_unwind(|| fuzz("t", SAMPLES, |input| Took::if_understood(input == b"key=12")));
        assert!(found.is_err());
    }

    #[test]
    fn a_target_that_takes_long_is_found() {
        let slow = Cell::new(true);
        let found = catch_unwind(AssertUnwindSafe(|| {
            fuzz("t", SAMPLES, |_| {
                let before = processor_time();
                while slow.get() && processor_time() < before + MOST_TIME {}
                Took::Understood
            });
        }));
        let message = found.unwrap_err();
        assert_eq!(
            message.downcast_ref::<String>().map(String::as_str),
            Some("t takes too long for 6 bytes")
        );
    }
}
