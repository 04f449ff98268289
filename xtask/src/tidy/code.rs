//! Rules on the text of single files: unsafe code, openings, environment, printing.

use super::Finding;
use super::source::{Source, words};

/// Crates that talk to the kernel where no safe wrapper exists.
const UNSAFE_ROOMS: &[&str] = &["sandbar-sandbox", "sandbar-keeper", PROBE, KILLER];

/// Makes the system calls that a sandbox has to refuse, which no library wraps. It is never shipped.
const PROBE: &str = "escape-probe";

/// Follows programs by ptrace(2), which no library wraps. It is never shipped.
const KILLER: &str = "kill-probe";

/// The counters of a soak: reading what the compiler counts can't be said safely. No crate has it, and it is never
/// shipped.
const COUNTERS: &str = "fuzz/coverage.rs";

/// Crates at the edge: they read the environment and talk on the standard streams.
const EDGE_ROOMS: &[&str] = &["sandbar", "sandbar-testkit", "xtask", PROBE];

/// Functions of `std::env` that read or change the process's environment; `temp_dir` and `home_dir` read it too.
const ENVIRONMENT: &[&str] =
    &["var", "var_os", "vars", "vars_os", "set_var", "remove_var", "temp_dir", "home_dir"];

const PRINTING: &[&str] = &["print!", "println!", "eprint!", "eprintln!", "dbg!"];

/// Finds `unsafe` outside the rooms that may have it, and crate roots that do not forbid it.
pub(super) fn unsafe_code(source: &Source) -> Vec<Finding> {
    if UNSAFE_ROOMS.contains(&source.package()) || source.path == COUNTERS {
        return Vec::new();
    }
    let fix = "move it behind a safe function of sandbar-sandbox, or use a safe wrapper such as rustix";
    let mut findings: Vec<_> = words(&source.code, "unsafe")
        .map(|at| Finding::new(&source.path, source.line(at), "unsafe code in a room that has none", fix))
        .collect();
    if source.is_crate_root() && !source.code.contains("#![forbid(unsafe_code)]") {
        let what = "this crate does not forbid unsafe code";
        findings.push(Finding::new(&source.path, 1, what, "add `#![forbid(unsafe_code)]` below its opening"));
    }
    findings
}

/// Finds files that do not open with `//!`. A module `tests` needs none: its parent says what it tests.
pub(super) fn opening(source: &Source) -> Vec<Finding> {
    if source.path.ends_with("/tests.rs") && !source.is_crate_root() {
        return Vec::new();
    }
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if first.starts_with("//! ") {
        return Vec::new();
    }
    let fix = "open it with `//!`: what it is, the invariant it keeps, what it deliberately does not do";
    vec![Finding::new(&source.path, 1, "the file does not say what it is", fix)]
}

/// Finds reads of the process's environment outside the edge, in code that is shipped.
pub(super) fn environment(source: &Source) -> Vec<Finding> {
    if EDGE_ROOMS.contains(&source.package()) {
        return Vec::new();
    }
    let code = &source.product;
    let through_env =
        words(code, "env::").filter(|at| names_after(&code[at + "env::".len()..]).any(is_environment));
    // `std::env::home_dir` is found above; this is any crate's.
    let homes = words(code, "home_dir").filter(|&at| !code[..at].ends_with("env::"));
    through_env
        .chain(homes)
        .map(|at| {
            let fix = "take it as an argument or a setting; the binary reads environment and home once";
            Finding::new(&source.path, source.line(at), "the environment is read inside a library", fix)
        })
        .collect()
}

/// Finds writes to the standard streams outside the edge, in code that is shipped.
pub(super) fn printing(source: &Source) -> Vec<Finding> {
    if EDGE_ROOMS.contains(&source.package()) {
        return Vec::new();
    }
    PRINTING
        .iter()
        .flat_map(|name| words(&source.product, name))
        .map(|at| {
            let fix = "return the fact or send an event; the binary decides what a person reads";
            Finding::new(&source.path, source.line(at), "a library writes to a standard stream", fix)
        })
        .collect()
}

/// The names that follow `env::`: one, or those of a `{…}` list.
fn names_after(rest: &str) -> impl Iterator<Item = &str> {
    let list = rest.strip_prefix('{').map_or_else(
        || rest.split(|c: char| !super::source::is_identifier(c)).next().unwrap_or_default(),
        |list| list.split('}').next().unwrap_or_default(),
    );
    list.split(',').filter_map(|item| item.split_whitespace().next())
}

fn is_environment(name: &str) -> bool {
    ENVIRONMENT.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(check: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        check(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    const LIBRARY: &str = "crates/sandbar-store/src/append.rs";

    #[test]
    fn unsafe_code_is_found_outside_sandbox_and_keeper() {
        let text = "fn a() {\n    unsafe { b() }\n}\n#[unsafe(no_mangle)]\nfn c() {} // unsafe";
        assert_eq!(lines(unsafe_code, LIBRARY, text), [2, 4]);
        assert_eq!(lines(unsafe_code, "crates/sandbar-store/tests/it.rs", "unsafe fn a() {}"), [1]);
        assert_eq!(lines(unsafe_code, "crates/sandbar-keeper/src/clone.rs", text), [0_usize; 0]);
        assert_eq!(lines(unsafe_code, COUNTERS, text), [0_usize; 0]);
    }

    #[test]
    fn a_crate_root_forbids_unsafe_code() {
        let root = "crates/sandbar-store/src/lib.rs";
        assert_eq!(lines(unsafe_code, root, "//! Store.\n// #![forbid(unsafe_code)]"), [1]);
        assert_eq!(lines(unsafe_code, root, "//! Store.\n#![forbid(unsafe_code)]"), [0_usize; 0]);
        assert_eq!(lines(unsafe_code, "crates/sandbar-sandbox/src/lib.rs", "//! Sandbox."), [0_usize; 0]);
    }

    #[test]
    fn a_file_opens_with_what_it_is() {
        assert_eq!(lines(opening, LIBRARY, "use std::fs;\n//! Late."), [1]);
        assert_eq!(lines(opening, LIBRARY, ""), [1]);
        assert_eq!(lines(opening, LIBRARY, "//! Appends.\nuse std::fs;"), [0_usize; 0]);
        assert_eq!(lines(opening, "crates/sandbar-store/src/append/tests.rs", "use super::*;"), [0_usize; 0]);
    }

    #[test]
    fn the_environment_is_found_in_every_spelling() {
        let text = "use std::env::{args, var_os};\nlet a = std::env::var(\"A\");\nlet b = env::vars();\nlet c = dirs::home_dir();\nlet d = std::env::home_dir();";
        assert_eq!(lines(environment, LIBRARY, text), [1, 2, 3, 5, 4]);
    }

    #[test]
    fn what_is_not_the_environment_passes() {
        let text = "use std::env::{args, current_exe};\nlet a = env!(\"X\");\n// std::env::var\nlet b = env::consts::OS;\n#[cfg(test)]\nmod tests { fn a() { std::env::var(\"A\"); } }";
        assert_eq!(lines(environment, LIBRARY, text), [0_usize; 0]);
        assert_eq!(lines(environment, "crates/sandbar/src/main.rs", "std::env::var(\"A\");"), [0_usize; 0]);
    }

    #[test]
    fn libraries_that_print_are_found() {
        let text = "fn a() {\n    println!(\"a\");\n    eprintln!();\n    write!(f, \"println!\");\n}";
        assert_eq!(lines(printing, LIBRARY, text), [2, 3]);
        assert_eq!(lines(printing, "crates/sandbar/src/ps.rs", text), [0_usize; 0]);
        assert_eq!(lines(printing, "crates/sandbar-store/tests/it.rs", text), [0_usize; 0]);
    }
}
