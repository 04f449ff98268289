//! What a filter must do, by interpretation for both architectures and by the kernel for this one.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sandbar_proto::{ArgTest, SeccompSpec, SyscallRule, Verdict};

use super::interpret::{self, Call, Outcome};
use super::{Arch, Instruction, Program, SeccompError, assembler, compile, table};

#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod libc_numbers;

const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const ENOSYS: Verdict = Verdict::Errno(38);

/// Looks at the whole of argument `arg`.
fn is(arg: u8, value: u32) -> ArgTest {
    ArgTest { arg, mask: u32::MAX, value }
}

fn rule(name: &'static str, when: Vec<(Vec<ArgTest>, Verdict)>, otherwise: Verdict) -> SyscallRule {
    SyscallRule { name: name.into(), when, otherwise }
}

fn spec(allow: &[&'static str], rules: Vec<SyscallRule>, default: Verdict) -> SeccompSpec {
    SeccompSpec { allow: allow.iter().map(|&name| name.into()).collect(), rules, default }
}

fn call(arch: Arch, number: u32, arguments: [u64; 6]) -> Call {
    Call { arch: arch.audit_number(), number, arguments }
}

/// Runs the call `name` of x86-64 through `program`.
fn run_named(program: &Program, name: &str, arguments: [u64; 6]) -> Outcome {
    let number = table::number(name, Arch::X86_64).unwrap();
    interpret::run(program.instructions(), &call(Arch::X86_64, number, arguments))
}

/// A filter of the size and shape that a `workspace` policy has: nearly everything, without administration.
fn typical() -> SeccompSpec {
    const DENIED: [&str; 44] = [
        "_sysctl",
        "acct",
        "add_key",
        "adjtimex",
        "afs_syscall",
        "bpf",
        "chroot",
        "clock_adjtime",
        "clock_settime",
        "clone3",
        "create_module",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "get_kernel_syms",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ioperm",
        "iopl",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mount",
        "nfsservctl",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "query_module",
        "quotactl",
        "reboot",
        "request_key",
        "setdomainname",
        "sethostname",
        "settimeofday",
        "swapoff",
        "swapon",
        "syslog",
        "umount2",
        "userfaultfd",
    ];
    let eperm = Verdict::Errno(1);
    let no_namespaces = |name, arg| {
        let namespaces = 0x7e02_0000_u32;
        let bits = (0..32).map(|bit| 1 << bit).filter(|bit| namespaces & bit != 0);
        rule(
            name,
            bits.map(|bit| (vec![ArgTest { arg, mask: bit, value: bit }], eperm)).collect(),
            Verdict::Allow,
        )
    };
    let kind = |value| ArgTest { arg: 1, mask: 0xf, value };
    let stream_only = |name| {
        let unix = [(vec![is(0, 1), kind(1)], Verdict::Allow), (vec![is(0, 1), kind(5)], Verdict::Allow)];
        let inet = [2, 10].map(|family| (vec![is(0, family)], Verdict::Allow));
        let netlink = [(vec![is(0, 16), is(2, 0)], Verdict::Allow)];
        rule(name, unix.into_iter().chain(inet).chain(netlink).collect(), Verdict::Errno(97))
    };
    let rules = vec![
        no_namespaces("clone", 0),
        no_namespaces("unshare", 0),
        stream_only("socket"),
        stream_only("socketpair"),
        rule("ioctl", [0x5412, 0x541c].map(|request| (vec![is(1, request)], eperm)).into(), Verdict::Allow),
        rule("personality", [0, 8, u32::MAX].map(|p| (vec![is(0, p)], Verdict::Allow)).into(), eperm),
        rule("setns", vec![], eperm),
    ];
    let special = |name: &&str| DENIED.contains(name) || rules.iter().any(|rule| rule.name == *name);
    let names = Arch::X86_64.table().iter().map(|&(name, _)| name);
    let allow: Vec<_> = names.filter(|name| !special(name)).collect();
    spec(&allow, rules, ENOSYS)
}

#[test]
fn foreign_system_call_tables_are_killed_whatever_the_default_is() {
    let everything = compile(&spec(&[], vec![], Verdict::Allow), Arch::X86_64).unwrap();
    let value = |call: &Call| interpret::run(everything.instructions(), call).value;
    let kill = assembler::return_value(Verdict::Kill);
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    assert_eq!(value(&Call { arch: AUDIT_ARCH_I386, number: 1, arguments: [0; 6] }), kill);
    assert_eq!(value(&call(Arch::X86_64, 0x4000_0000, [0; 6])), kill);
    assert_eq!(value(&call(Arch::X86_64, 0x4000_0001, [0; 6])), kill);
    assert_eq!(value(&call(Arch::X86_64, 0x3fff_ffff, [0; 6])), assembler::return_value(Verdict::Allow));
}

#[test]
fn only_the_low_half_of_an_argument_counts() {
    let rules = vec![rule("socket", vec![(vec![is(0, 2)], Verdict::Errno(97))], Verdict::Allow)];
    let program = compile(&spec(&[], rules, ENOSYS), Arch::X86_64).unwrap();
    let value = |argument| run_named(&program, "socket", [argument, 0, 0, 0, 0, 0]).value;
    assert_eq!(value(0xffff_ffff_0000_0002), assembler::return_value(Verdict::Errno(97)));
    assert_eq!(value(0x0000_0002_0000_0000), assembler::return_value(Verdict::Allow));
}

#[test]
fn a_small_filter_is_exactly_these_instructions() {
    let rules = vec![rule("socket", vec![(vec![is(0, 1), is(1, 1)], Verdict::Allow)], Verdict::Errno(97))];
    let program = compile(&spec(&["read", "write"], rules, ENOSYS), Arch::X86_64).unwrap();
    let expected = [
        (0x20, 0, 0, 4),           // load the architecture
        (0x15, 0, 3, 0xc000_003e), // not x86-64: kill
        (0x20, 0, 0, 0),           // load the number
        (0x35, 0, 9, 2),           // 0 and 1: allow
        (0x35, 0, 1, 0x4000_0000), // x32:
        (0x06, 0, 0, 0x8000_0000), // kill
        (0x15, 1, 0, 41),          // neither is it socket:
        (0x06, 0, 0, 0x0005_0026), // ENOSYS
        (0x20, 0, 0, 16),          // load the family
        (0x15, 0, 2, 1),           // not AF_UNIX: EAFNOSUPPORT
        (0x20, 0, 0, 24),          // load the type
        (0x15, 1, 0, 1),           // SOCK_STREAM: allow
        (0x06, 0, 0, 0x0005_0061), // EAFNOSUPPORT
        (0x06, 0, 0, 0x7fff_0000), // allow
    ];
    let expected = expected.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k });
    assert_eq!(program.instructions(), expected);
}

/// How many instructions of the filter for `rules` load an argument.
fn argument_loads(rules: Vec<SyscallRule>) -> usize {
    let program = compile(&spec(&[], rules, ENOSYS), Arch::X86_64).unwrap();
    let is_load = |i: &&Instruction| i.code == assembler::LOAD && i.k >= assembler::ARGUMENT_OFFSET;
    program.instructions().iter().filter(is_load).count()
}

#[test]
fn tests_of_one_argument_load_it_once() {
    let families = (1..9).map(|family| (vec![is(0, family)], Verdict::Allow)).collect();
    assert_eq!(argument_loads(vec![rule("socket", families, ENOSYS)]), 1);
}

#[test]
fn rules_of_the_same_meaning_share_their_code() {
    let when = || (0..20).map(|value| (vec![is(0, value), is(1, value)], Verdict::Allow)).collect();
    let (socket, socketpair) = (rule("socket", when(), ENOSYS), rule("socketpair", when(), ENOSYS));
    assert_eq!(argument_loads(vec![socket.clone(), socketpair]), argument_loads(vec![socket]));
}

#[test]
fn names_of_other_architectures_are_skipped() {
    let program = compile(&spec(&["read", "open", "no_such_call"], vec![], ENOSYS), Arch::Aarch64).unwrap();
    assert_eq!(program, compile(&spec(&["read"], vec![], ENOSYS), Arch::Aarch64).unwrap());
}

#[test]
fn a_spec_that_contradicts_itself_is_refused_on_every_architecture() {
    let duplicate = |name: &str| SeccompError::Duplicate { name: name.to_owned() };
    let never = ArgTest { arg: 0, mask: 1, value: 2 };
    let cases = [
        (spec(&["read", "read"], vec![], ENOSYS), duplicate("read")),
        (spec(&["read"], vec![rule("read", vec![], ENOSYS)], ENOSYS), duplicate("read")),
        (spec(&["open"], vec![rule("open", vec![], ENOSYS)], ENOSYS), duplicate("open")),
        (
            spec(&[], vec![rule("open", vec![(vec![is(6, 0)], ENOSYS)], ENOSYS)], ENOSYS),
            SeccompError::NoSuchArgument { name: "open".to_owned(), arg: 6 },
        ),
        (
            spec(&[], vec![rule("open", vec![(vec![never], ENOSYS)], ENOSYS)], ENOSYS),
            SeccompError::NeverTrue { name: "open".to_owned(), test: never },
        ),
        (spec(&[], vec![], Verdict::Errno(4096)), SeccompError::NoSuchErrno { errno: 4096 }),
    ];
    for (spec, error) in cases {
        for arch in ARCHES {
            assert_eq!(compile(&spec, arch), Err(error.clone()));
        }
    }
}

#[test]
fn a_program_longer_than_the_kernel_takes_is_refused() {
    let with_clauses = |count| {
        let when = (0..count).map(|value| (vec![is(0, value)], Verdict::Allow)).collect();
        compile(&spec(&[], vec![rule("ioctl", when, ENOSYS)], ENOSYS), Arch::X86_64)
    };
    let longest = with_clauses(4000).unwrap();
    assert!(longest.instructions().len() <= super::MAX_INSTRUCTIONS);
    interpret::check(longest.instructions());
    for (argument, verdict) in [(0, Verdict::Allow), (3999, Verdict::Allow), (4000, ENOSYS)] {
        let outcome = run_named(&longest, "ioctl", [argument, 0, 0, 0, 0, 0]);
        assert_eq!(outcome.value, assembler::return_value(verdict));
    }
    assert!(matches!(with_clauses(4096), Err(SeccompError::TooLong { instructions: 4097.. })));
}

#[test]
fn common_calls_are_answered_in_ten_instructions() {
    let program = compile(&typical(), Arch::X86_64).unwrap();
    const COMMON: [&str; 19] = [
        "brk",
        "close",
        "epoll_wait",
        "execve",
        "exit_group",
        "fstat",
        "futex",
        "getdents64",
        "lseek",
        "mmap",
        "mprotect",
        "munmap",
        "newfstatat",
        "openat",
        "poll",
        "read",
        "rt_sigaction",
        "statx",
        "write",
    ];
    for name in COMMON {
        let outcome = run_named(&program, name, [0; 6]);
        assert_eq!(outcome.value, assembler::return_value(Verdict::Allow), "{name}");
        assert!(outcome.steps <= 10, "{name} takes {} instructions", outcome.steps);
    }
}

#[test]
fn the_tables_are_sorted_and_no_number_has_two_names() {
    for arch in ARCHES {
        let table = arch.table();
        assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        let mut numbers: Vec<u32> = table.iter().map(|&(_, number)| number).collect();
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert_eq!(numbers.last().map(|&last| last as usize), Some(table::LIMIT - 1));
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -p sandbar-sandbox measure -- --ignored --nocapture"]
fn measure_compilation() {
    const ROUNDS: u32 = 2000;
    let spec = typical();
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(compile(std::hint::black_box(&spec), Arch::X86_64)).unwrap();
    }
    let each = start.elapsed() / ROUNDS;
    let length = compile(&spec, Arch::X86_64).unwrap().instructions().len();
    println!("{} names, {} rules: {each:?}, {length} instructions", spec.allow.len(), spec.rules.len());
}

/// What `spec` says about a call, read off without any cleverness.
fn evaluate(spec: &SeccompSpec, arch: Arch, number: u32, arguments: [u64; 6]) -> Verdict {
    if arch == Arch::X86_64 && number >= 0x4000_0000 {
        return Verdict::Kill;
    }
    let Some(&(name, _)) = arch.table().iter().find(|(_, known)| *known == number) else {
        return spec.default;
    };
    if spec.allow.iter().any(|allowed| allowed == name) {
        return Verdict::Allow;
    }
    let Some(rule) = spec.rules.iter().find(|rule| rule.name == name) else {
        return spec.default;
    };
    let holds =
        |test: &ArgTest| arguments[usize::from(test.arg)] & u64::from(test.mask) == u64::from(test.value);
    let clause = rule.when.iter().find(|(tests, _)| tests.iter().all(holds));
    clause.map_or(rule.otherwise, |&(_, verdict)| verdict)
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Allow), Just(Verdict::Kill), (1_u16..5).prop_map(Verdict::Errno)]
}

/// Tests of few bits of few arguments, so that random arguments often pass them.
fn any_test() -> impl Strategy<Value = ArgTest> {
    let mask = prop_oneof![Just(u32::MAX), Just(0), Just(2), 0_u32..8, any::<u32>()];
    (0_u8..3, mask, 0_u32..4).prop_map(|(arg, mask, value)| ArgTest {
        arg: arg * 2,
        mask,
        value: value & mask,
    })
}

fn any_when() -> impl Strategy<Value = Vec<(Vec<ArgTest>, Verdict)>> {
    let clause = (proptest::collection::vec(any_test(), 0..4), any_verdict());
    proptest::collection::vec(clause, 0..5)
}

/// For each call of `arch`: left to the default, allowed, or under a rule.
fn any_spec(arch: Arch) -> impl Strategy<Value = SeccompSpec> {
    #[derive(Debug, Clone)]
    enum Treatment {
        Default,
        Allow,
        Rule(Vec<(Vec<ArgTest>, Verdict)>, Verdict),
    }
    let treatment = |weights: (u32, u32, u32)| {
        prop_oneof![
            weights.0 => Just(Treatment::Default),
            weights.1 => Just(Treatment::Allow),
            weights.2 => (any_when(), any_verdict()).prop_map(|(when, otherwise)| Treatment::Rule(when, otherwise)),
        ]
    };
    // Mostly allowed, mostly denied, and mostly rules, whose code is long enough to put jumps out of reach.
    select(vec![(1, 12, 1), (12, 2, 1), (1, 1, 2)]).prop_flat_map(move |weights| {
        let treatments = proptest::collection::vec(treatment(weights), arch.table().len());
        (treatments, any_verdict()).prop_map(move |(treatments, default)| {
            let mut spec = spec(&["no_such_call"], vec![], default);
            for (&(name, _), treatment) in arch.table().iter().zip(treatments) {
                match treatment {
                    Treatment::Default => {}
                    Treatment::Allow => spec.allow.push(name.into()),
                    Treatment::Rule(when, otherwise) => spec.rules.push(rule(name, when, otherwise)),
                }
            }
            spec
        })
    })
}

fn any_arguments() -> impl Strategy<Value = [u64; 6]> {
    prop::array::uniform6(prop_oneof![0_u64..4, any::<u64>(), (0_u64..4).prop_map(|low| low | 0xf_0000_0000)])
}

/// A spec and calls to try on it: every number of the table and the edges of the number space.
fn any_case() -> impl Strategy<Value = (Arch, SeccompSpec, Vec<[u64; 6]>, Vec<u32>, Index)> {
    select(ARCHES.to_vec()).prop_flat_map(|arch| {
        let arguments = proptest::collection::vec(any_arguments(), 8);
        let numbers = proptest::collection::vec(any::<u32>(), 8);
        (Just(arch), any_spec(arch), arguments, numbers, any::<Index>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 64 } else { 2000 }))]

    #[test]
    fn every_program_answers_as_its_spec_says((arch, spec, arguments, numbers, rotation) in any_case()) {
        let program = match compile(&spec, arch) {
            Err(SeccompError::TooLong { .. }) => return Err(TestCaseError::reject("too long")),
            other => other.unwrap(),
        };
        interpret::check(program.instructions());
        const EDGES: [u32; 5] = [0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x7fff_ffff, u32::MAX];
        let numbers = (0..480).chain(EDGES).chain(numbers);
        for (index, number) in numbers.enumerate() {
            let arguments = arguments[(index + rotation.index(arguments.len())) % arguments.len()];
            let outcome = interpret::run(program.instructions(), &call(arch, number, arguments));
            let expected = assembler::return_value(evaluate(&spec, arch, number, arguments));
            prop_assert_eq!(outcome.value, expected, "{} {:x?}", number, arguments);
        }
    }
}
