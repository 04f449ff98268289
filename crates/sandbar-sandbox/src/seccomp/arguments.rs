//! Code that looks at a call's arguments.

use sandbar_proto::{ArgTest, SyscallRule};

use super::assembler::{AND, ARGUMENT_OFFSET, ARGUMENT_SIZE, Assembler, JUMP_ANY_BIT, JUMP_EQUAL, Target};

/// Writes the code that answers a call as `rule` says, and returns where it starts.
///
/// Clauses are asked in order; a clause matches when all of its tests hold.
pub(super) fn emit(assembler: &mut Assembler, rule: &SyscallRule) -> Target {
    let mut loads = loads(rule).into_iter().rev();
    let mut next = Target::Return(rule.otherwise);
    for (tests, verdict) in rule.when.iter().rev() {
        let no = next;
        next = Target::Return(*verdict);
        for &test in tests.iter().rev() {
            next = emit_test(assembler, test, next, no);
            if loads.next() != Some(Load::Skip) {
                next = assembler.load(ARGUMENT_OFFSET + ARGUMENT_SIZE * u32::from(test.arg), next);
            }
        }
    }
    next
}

/// Whether a test has to load its argument first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Needed,
    /// On every way to the test the accumulator already holds the argument.
    Skip,
}

/// Returns for each test of `rule`, in order, whether it loads its argument.
fn loads(rule: &SyscallRule) -> Vec<Load> {
    let mut loads = Vec::new();
    let mut held = None;
    for (tests, _) in &rule.when {
        // The next clause is entered from any failed test of this one, so it may count on nothing but what all
        // of them leave behind.
        let mut after_failure = tests.first().and_then(|test| left_behind(*test));
        for &test in tests {
            loads.push(if held == Some(test.arg) { Load::Skip } else { Load::Needed });
            held = left_behind(test);
            if held != after_failure {
                after_failure = None;
            }
        }
        held = after_failure;
    }
    loads
}

/// How one test becomes code.
enum Shape {
    /// Compares the whole word.
    Equal,
    /// Matches when one bit is set.
    BitSet,
    /// Matches when no bit of the mask is set.
    BitsClear,
    /// Masks, which overwrites the accumulator, then compares.
    Masked,
}

fn shape(test: ArgTest) -> Shape {
    match test {
        ArgTest { mask: u32::MAX, .. } => Shape::Equal,
        ArgTest { value: 0, .. } => Shape::BitsClear,
        ArgTest { mask, value, .. } if mask == value && mask.is_power_of_two() => Shape::BitSet,
        ArgTest { .. } => Shape::Masked,
    }
}

/// The argument that the accumulator holds after `test`, if any.
fn left_behind(test: ArgTest) -> Option<u8> {
    match shape(test) {
        Shape::Equal | Shape::BitSet | Shape::BitsClear => Some(test.arg),
        Shape::Masked => None,
    }
}

/// Writes the comparison of a loaded argument, and returns where it starts.
fn emit_test(assembler: &mut Assembler, test: ArgTest, yes: Target, no: Target) -> Target {
    match shape(test) {
        Shape::Equal => assembler.jump(JUMP_EQUAL, test.value, yes, no),
        Shape::BitSet => assembler.jump(JUMP_ANY_BIT, test.mask, yes, no),
        Shape::BitsClear => assembler.jump(JUMP_ANY_BIT, test.mask, no, yes),
        Shape::Masked => {
            let compare = assembler.jump(JUMP_EQUAL, test.value, yes, no);
            assembler.step(AND, test.mask, compare)
        }
    }
}
