//! Compiler from a [`SeccompSpec`] to the classic BPF program that seccomp(2) installs.
//!
//! Pure, and the same on every host, so that the filter of one architecture is tested on another. A program
//! first refuses foreign system-call tables (another architecture, x32), then finds the number by binary search
//! over ranges of equal verdict, and looks at arguments only for the calls that ask for it. That order is what
//! lets the kernel (5.11 and later, `seccomp_is_const_allow`) prove that a plain allowed call needs no filter
//! run at all; a test of an argument in front of the search would lose it. Does not know what any call means:
//! which are allowed is the policy's concern.

use std::collections::BTreeSet;

use sandbar_proto::{ArgTest, SeccompSpec, SyscallRule, Verdict};

mod arguments;
mod assembler;
#[cfg(test)]
mod interpret;
mod search;
mod table;
mod table_aarch64;
mod table_x86_64;
#[cfg(test)]
mod tests;

pub use table::Arch;

use assembler::{Assembler, Target};
use search::Span;

/// Longest program that the kernel takes: BPF_MAXINSNS of linux/bpf_common.h.
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Largest error number that a filter can answer: MAX_ERRNO of the kernel, which lowers greater ones to it.
const MAX_ERRNO: u16 = 4095;

/// Bit that marks a system call of the x32 table (`__X32_SYSCALL_BIT`), whose numbers no rule speaks about.
const X32_SYSCALL_BIT: u32 = 0x4000_0000;

/// One classic BPF instruction, with the memory layout of `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a condition holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A compiled filter, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    /// Length in instructions, which [`compile`] has checked to fit.
    len: u16,
}

impl Program {
    /// The instructions in order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Returns the two fields of `struct sock_fprog`: the first instruction, and how many there are.
    ///
    /// The pointer is valid as long as the program lives, also in a child after fork(2) or clone(2), which so
    /// needs no allocation to install it.
    #[must_use]
    pub fn as_sock_fprog_parts(&self) -> (*const Instruction, u16) {
        (self.instructions.as_ptr(), self.len)
    }
}

/// Why a [`SeccompSpec`] is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// A call is named twice in `allow` and `rules` together, so that its verdict is unclear.
    #[error("decide about the system call `{name}`, which is named twice")]
    Duplicate {
        /// The call.
        name: String,
    },
    /// A test looks at an argument that no system call has.
    #[error("test argument {arg} of the system call `{name}`; arguments are 0 to 5")]
    NoSuchArgument {
        /// The call.
        name: String,
        /// The argument.
        arg: u8,
    },
    /// A test that can never hold, because it expects a bit that its mask removes.
    #[error("test the system call `{name}`: no value under the mask {:#x} is {:#x}", test.mask, test.value)]
    NeverTrue {
        /// The call.
        name: String,
        /// The test.
        test: ArgTest,
    },
    /// The kernel cannot return this error number.
    #[error("answer a system call with error number {errno}; the largest is {MAX_ERRNO}")]
    NoSuchErrno {
        /// The number.
        errno: u16,
    },
    /// The program is longer than [`MAX_INSTRUCTIONS`].
    #[error("fit the system-call filter into {MAX_INSTRUCTIONS} instructions; it has {instructions}")]
    TooLong {
        /// Its length.
        instructions: usize,
    },
}

/// What the filter does with a system call once its number is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The arguments do not matter.
    Return(Verdict),
    /// Asks the rule with this index in [`SeccompSpec::rules`].
    Inspect(usize),
}

/// Returns the program that answers every system call of `arch` as `spec` says.
///
/// Kills the process on a call of another architecture's table, and on x86-64 of the x32 table, whatever the
/// default is: rules speak about names, and a name's number there is another.
///
/// # Errors
/// See [`SeccompError`]. Names that `arch` does not have are skipped, yet checked like all others, so that a spec
/// is right or wrong on every architecture alike.
pub fn compile(spec: &SeccompSpec, arch: Arch) -> Result<Program, SeccompError> {
    check_errno(spec.default)?;
    let spans = spans(&decisions(spec, arch)?, spec.default, arch);
    let mut assembler = Assembler::default();
    let mut rules = vec![None; spec.rules.len()];
    let tree = search::emit(&mut assembler, &spans, &mut |assembler, decision| match decision {
        Decision::Return(verdict) => Target::Return(verdict),
        Decision::Inspect(index) => {
            *rules[index].get_or_insert_with(|| arguments::emit(assembler, &spec.rules[index]))
        }
    });
    let number = assembler.load(assembler::NUMBER_OFFSET, tree);
    let check =
        assembler.jump(assembler::JUMP_EQUAL, arch.audit_number(), number, Target::Return(Verdict::Kill));
    assembler.load(assembler::ARCH_OFFSET, check);
    finish(assembler.into_instructions())
}

/// The number of the call `name`, or `None` if `arch` does not have it.
#[cfg(target_os = "linux")]
pub(crate) fn number(name: &str, arch: Arch) -> Option<u32> {
    table::number(name, arch)
}

/// Checks the length of a program.
fn finish(instructions: Vec<Instruction>) -> Result<Program, SeccompError> {
    match u16::try_from(instructions.len()) {
        Ok(len) if instructions.len() <= MAX_INSTRUCTIONS => Ok(Program { instructions, len }),
        _ => Err(SeccompError::TooLong { instructions: instructions.len() }),
    }
}

/// Returns what happens to each numbered call that `spec` names, indexed by number.
fn decisions(spec: &SeccompSpec, arch: Arch) -> Result<Vec<Option<Decision>>, SeccompError> {
    let mut known = vec![None; table::LIMIT];
    let mut unknown = BTreeSet::new();
    let mut decide = |name: &str, decision| {
        let fresh = match table::number(name, arch) {
            Some(number) => known[number as usize].replace(decision).is_none(),
            None => unknown.insert(name.to_owned()),
        };
        if fresh { Ok(()) } else { Err(SeccompError::Duplicate { name: name.to_owned() }) }
    };
    for name in &spec.allow {
        decide(name, Decision::Return(Verdict::Allow))?;
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        check_rule(rule)?;
        decide(&rule.name, rule_decision(spec, index))?;
    }
    Ok(known)
}

/// Returns the decision of the rule at `index`; rules of the same meaning share one, so that their code is shared.
fn rule_decision(spec: &SeccompSpec, index: usize) -> Decision {
    let rule = &spec.rules[index];
    if rule.when.is_empty() {
        return Decision::Return(rule.otherwise);
    }
    let same = |other: &SyscallRule| other.otherwise == rule.otherwise && other.when == rule.when;
    Decision::Inspect(spec.rules[..index].iter().position(same).unwrap_or(index))
}

fn check_rule(rule: &SyscallRule) -> Result<(), SeccompError> {
    check_errno(rule.otherwise)?;
    for (tests, verdict) in &rule.when {
        check_errno(*verdict)?;
        for &test in tests {
            check_test(&rule.name, test)?;
        }
    }
    Ok(())
}

fn check_test(name: &str, test: ArgTest) -> Result<(), SeccompError> {
    if test.arg > 5 {
        return Err(SeccompError::NoSuchArgument { name: name.to_owned(), arg: test.arg });
    }
    if test.value & !test.mask != 0 {
        return Err(SeccompError::NeverTrue { name: name.to_owned(), test });
    }
    Ok(())
}

fn check_errno(verdict: Verdict) -> Result<(), SeccompError> {
    match verdict {
        Verdict::Errno(errno) if errno > MAX_ERRNO => Err(SeccompError::NoSuchErrno { errno }),
        Verdict::Errno(_) | Verdict::Allow | Verdict::Kill | Verdict::Ask => Ok(()),
    }
}

/// Returns the whole number space as spans of equal decision, the first at 0.
fn spans(known: &[Option<Decision>], default: Verdict, arch: Arch) -> Vec<Span> {
    let default = Decision::Return(default);
    let mut spans: Vec<Span> = Vec::with_capacity(known.len());
    let mut push = |first, decision| {
        if spans.last().is_none_or(|last| last.decision != decision) {
            spans.push(Span { first, decision });
        }
    };
    let mut first = 0;
    for decision in known {
        push(first, decision.unwrap_or(default));
        first += 1;
    }
    push(first, default);
    if arch == Arch::X86_64 {
        push(X32_SYSCALL_BIT, Decision::Return(Verdict::Kill));
    }
    spans
}
