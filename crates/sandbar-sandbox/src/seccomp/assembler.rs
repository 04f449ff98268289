//! Assembler of forward-only BPF, written from the last instruction to the first.
//!
//! Classic BPF jumps forward only, and a conditional jump reaches 255 instructions. Writing backwards means that
//! every target already has its place when a jump to it is made, so its distance is known and a target out of
//! reach gets a stepping stone right there: programs of any size are correct without a relaxation pass.

use sandbar_proto::Verdict;

use super::Instruction;

/// Offset of the call's number in `struct seccomp_data`.
pub(super) const NUMBER_OFFSET: u32 = 0;
/// Offset of the architecture in `struct seccomp_data`.
pub(super) const ARCH_OFFSET: u32 = 4;
/// Offset of the low half of argument 0; both architectures are little-endian.
pub(super) const ARGUMENT_OFFSET: u32 = 16;
/// Bytes from one argument to the next.
pub(super) const ARGUMENT_SIZE: u32 = 8;

// Codes are sums of the classes and modes of linux/bpf_common.h.
/// `BPF_LD | BPF_W | BPF_ABS`: the accumulator becomes the word at offset `k`.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`: the accumulator keeps the bits of `k`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`: skips `k` instructions.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`: whether the accumulator is `k`.
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`: whether the accumulator is `k` or more, unsigned.
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`: whether the accumulator has any bit of `k`.
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
/// `BPF_RET | BPF_K`: ends the program.
pub(super) const RETURN: u16 = 0x06;

/// Where control goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To any instruction that returns this verdict; one is written when none is near.
    Return(Verdict),
    /// To an instruction, counted from the end of the program.
    At(usize),
}

/// A program that grows at its front.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<Instruction>,
    /// The frontmost return of each verdict.
    returns: Vec<(Verdict, usize)>,
}

impl Assembler {
    /// Writes a load of the word at `offset` that goes on at `next`, and returns its place.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.step(LOAD, offset, next)
    }

    /// Writes an instruction that goes on at `next`, and returns its place.
    pub(super) fn step(&mut self, code: u16, k: u32, next: Target) -> Target {
        if self.distance(next) != Some(0) {
            self.bring_near(next);
        }
        self.push(Instruction { code, jt: 0, jf: 0, k })
    }

    /// Writes a conditional jump, and returns its place.
    pub(super) fn jump(&mut self, code: u16, k: u32, mut yes: Target, mut no: Target) -> Target {
        // A stepping stone for one side moves the other one away by one, hence the repetition; it ends because a
        // target that was brought near can be pushed away by at most the other's single stone.
        let (jt, jf) = loop {
            match (self.short_distance(yes), self.short_distance(no)) {
                (Some(jt), Some(jf)) => break (jt, jf),
                (None, _) => yes = self.bring_near(yes),
                (Some(_), None) => no = self.bring_near(no),
            }
        };
        self.push(Instruction { code, jt, jf, k })
    }

    /// The program in the order of execution.
    pub(super) fn into_instructions(self) -> Vec<Instruction> {
        let mut instructions = self.reversed;
        instructions.reverse();
        instructions
    }

    /// Instructions between the front and `target`, or `None` for a return that was never written.
    fn distance(&self, target: Target) -> Option<usize> {
        let place = match target {
            Target::At(place) => place,
            Target::Return(verdict) => self.returns.iter().find(|(known, _)| *known == verdict)?.1,
        };
        Some(self.reversed.len() - 1 - place)
    }

    /// [`Assembler::distance`] if a conditional jump reaches that far.
    fn short_distance(&self, target: Target) -> Option<u8> {
        self.distance(target).and_then(|distance| u8::try_from(distance).ok())
    }

    /// Writes a stand-in for `target` at the front, and returns its place.
    fn bring_near(&mut self, target: Target) -> Target {
        match target {
            Target::Return(verdict) => {
                let stone = self.push(Instruction { code: RETURN, jt: 0, jf: 0, k: return_value(verdict) });
                self.returns.retain(|(known, _)| *known != verdict);
                self.returns.push((verdict, self.reversed.len() - 1));
                stone
            }
            Target::At(place) => {
                // A program near the bound of 4096 is refused later, so this cannot saturate in a used one.
                let distance = self.reversed.len() - 1 - place;
                let k = u32::try_from(distance).unwrap_or(u32::MAX);
                self.push(Instruction { code: JUMP, jt: 0, jf: 0, k })
            }
        }
    }

    fn push(&mut self, instruction: Instruction) -> Target {
        self.reversed.push(instruction);
        Target::At(self.reversed.len() - 1)
    }
}

/// The value of a return instruction; the constants are those of linux/seccomp.h.
pub(super) fn return_value(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Allow => 0x7fff_0000,
        Verdict::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Verdict::Kill => 0x8000_0000,
        Verdict::Ask => 0x7fc0_0000,
    }
}
