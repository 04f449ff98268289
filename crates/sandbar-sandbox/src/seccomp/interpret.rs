//! A BPF interpreter for tests, as strict as the kernel's own checker (`seccomp_check_filter`): it panics on a
//! program that the kernel would refuse.

use super::Instruction;
use super::assembler::{
    AND, ARCH_OFFSET, ARGUMENT_OFFSET, JUMP, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NUMBER_OFFSET,
    RETURN,
};

/// What a filter sees of one call: the parts of `struct seccomp_data` that our programs may load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The value of the return instruction.
    pub(crate) value: u32,
    /// Instructions executed, that one included.
    pub(crate) steps: usize,
}

/// Runs `program` on `call`.
pub(crate) fn run(program: &[Instruction], call: &Call) -> Outcome {
    let (mut accumulator, mut counter, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[counter];
        let branch = |condition: bool| usize::from(if condition { jt } else { jf });
        steps += 1;
        counter += 1;
        match code {
            LOAD => accumulator = word(call, k),
            AND => accumulator &= k,
            JUMP => counter += k as usize,
            JUMP_EQUAL => counter += branch(accumulator == k),
            JUMP_AT_LEAST => counter += branch(accumulator >= k),
            JUMP_ANY_BIT => counter += branch(accumulator & k != 0),
            RETURN => return Outcome { value: k, steps },
            other => panic!("instruction {} has code {other:#x}", counter - 1),
        }
    }
}

/// Panics unless every instruction is known and every jump stays inside.
pub(crate) fn check(program: &[Instruction]) {
    for (index, &Instruction { code, jt, jf, k }) in program.iter().enumerate() {
        let furthest = match code {
            LOAD => {
                assert!(k < 64 && k.is_multiple_of(4), "instruction {index} loads at {k}");
                1
            }
            AND => 1,
            JUMP => 1 + k as usize,
            JUMP_EQUAL | JUMP_AT_LEAST | JUMP_ANY_BIT => 1 + usize::from(jt.max(jf)),
            RETURN => 0,
            other => panic!("instruction {index} has code {other:#x}"),
        };
        assert!(index + furthest < program.len(), "instruction {index} leaves the program");
    }
}

fn word(call: &Call, offset: u32) -> u32 {
    match offset {
        NUMBER_OFFSET => call.number,
        ARCH_OFFSET => call.arch,
        _ => {
            let offset = (offset - ARGUMENT_OFFSET) as usize;
            let bytes = call.arguments[offset / 8].to_le_bytes();
            let half = &bytes[offset % 8..][..4];
            u32::from_le_bytes(half.try_into().unwrap())
        }
    }
}
