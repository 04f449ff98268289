//! The programs under the running kernel.
//!
//! A filter cannot be taken off again, so each test starts this test binary anew and installs it there.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use super::*;

/// Says to the child what to do; its absence makes the child's part an empty test.
const SCENE: &str = "SANDBAR_SECCOMP_TEST";

/// Runs [`filtered_child`] in a process of its own.
fn play(scene: &str) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "seccomp::tests::kernel::filtered_child"]).env(SCENE, scene);
    child.output().unwrap().status
}

/// Puts `spec` on the calling thread.
fn install(spec: &SeccompSpec) {
    let program = compile(spec, Arch::native()).unwrap();
    let (filter, len) = program.as_sock_fprog_parts();
    let fprog = libc::sock_fprog { len, filter: filter.cast_mut().cast() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `fprog` points to `len` instructions of `program`, which outlives the call; the kernel copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Result or error number of getpriority(2), called raw.
fn getpriority(which: i32) -> Result<i64, i32> {
    // SAFETY: getpriority takes plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_getpriority, which, 0) };
    if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(result) }
}

#[test]
fn filtered_child() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let deny = |when, otherwise| spec(&[], vec![rule("getpriority", when, otherwise)], Verdict::Allow);
    match scene.as_str() {
        "errno" => {
            install(&deny(vec![], Verdict::Errno(123)));
            assert_eq!(getpriority(0), Err(123));
            assert_eq!(std::fs::read("/dev/null").unwrap(), b"");
        }
        "arguments" => {
            install(&deny(vec![(vec![is(0, 1), is(1, 0)], Verdict::Errno(123))], Verdict::Allow));
            assert_eq!(getpriority(1), Err(123));
            assert!(getpriority(0).is_ok());
        }
        "kill" => {
            install(&deny(vec![], Verdict::Kill));
            let _ = getpriority(0);
        }
        "typical" => {
            install(&typical());
            assert!(getpriority(0).is_ok());
            assert_eq!(std::fs::read("/dev/null").unwrap(), b"");
            // SAFETY: unshare(0) asks for nothing.
            assert_eq!(unsafe { libc::unshare(0) }, 0);
            // SAFETY: unshare takes plain numbers.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWUTS) }, -1);
        }
        "x32" => {
            install(&deny(vec![], Verdict::Allow));
            // SAFETY: the call with this number is getpid of the x32 table, which takes nothing.
            unsafe { libc::syscall(0x4000_0000 + libc::SYS_getpid) };
        }
        other => panic!("unknown scene {other}"),
    }
}

#[test]
fn a_denied_call_fails_with_its_errno_and_others_work() {
    assert!(play("errno").success());
}

#[test]
fn arguments_decide_in_the_kernel_too() {
    assert!(play("arguments").success());
}

#[test]
fn a_killed_call_ends_the_process_by_sigsys() {
    assert_eq!(play("kill").signal(), Some(libc::SIGSYS));
}

#[test]
fn the_kernel_takes_a_typical_filter() {
    if Arch::native() != Arch::X86_64 {
        return eprintln!("skipped: the typical filter is made of x86-64's names");
    }
    assert!(play("typical").success());
}

#[test]
fn a_call_of_the_x32_table_ends_the_process() {
    if Arch::native() != Arch::X86_64 {
        return eprintln!("skipped: x32 belongs to x86-64");
    }
    assert_eq!(play("x32").signal(), Some(libc::SIGSYS));
}

#[test]
fn instructions_are_laid_out_like_sock_filter() {
    assert_eq!(size_of::<Instruction>(), size_of::<libc::sock_filter>());
    assert_eq!(align_of::<Instruction>(), align_of::<libc::sock_filter>());
    assert_eq!(std::mem::offset_of!(Instruction, jt), std::mem::offset_of!(libc::sock_filter, jt));
    assert_eq!(std::mem::offset_of!(Instruction, jf), std::mem::offset_of!(libc::sock_filter, jf));
    assert_eq!(std::mem::offset_of!(Instruction, k), std::mem::offset_of!(libc::sock_filter, k));
}
