//! Search for a call's number.
//!
//! Filters are long stretches of one verdict with single numbers cut out. Cutting one number out of a stretch
//! costs a binary search two comparisons but an equality test only one, so a leaf of the tree is a stretch with
//! at most one exception. (Of a typical filter this saves a sixth of the instructions; a second exception would
//! save two more and cost every call in such a leaf one.)

use super::Decision;
use super::assembler::{Assembler, JUMP_AT_LEAST, JUMP_EQUAL, Target};

/// Numbers from `first` to the next span, all with one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First number.
    pub(super) first: u32,
    /// What happens to them.
    pub(super) decision: Decision,
}

/// Numbers from `first` to the next leaf.
struct Leaf {
    first: u32,
    /// What happens to all but the exception.
    decision: Decision,
    /// One number and what happens to it.
    exception: Option<(u32, Decision)>,
}

/// Writes a search over `spans`, which start at 0, and returns where it starts.
///
/// `place` writes what happens once the number is found and returns where that starts.
pub(super) fn emit(
    assembler: &mut Assembler,
    spans: &[Span],
    place: &mut impl FnMut(&mut Assembler, Decision) -> Target,
) -> Target {
    emit_tree(assembler, &leaves(spans), place)
}

fn leaves(spans: &[Span]) -> Vec<Leaf> {
    let mut leaves = Vec::with_capacity(spans.len());
    let mut spans = spans;
    while let [head, tail @ ..] = spans {
        let (exception, next) = match tail {
            [single, back, next @ ..] if back.decision == head.decision && back.first - single.first == 1 => {
                (Some((single.first, single.decision)), next)
            }
            _ => (None, tail),
        };
        leaves.push(Leaf { first: head.first, decision: head.decision, exception });
        spans = next;
    }
    leaves
}

/// Halves `leaves`, of which there is at least one, until one is left.
fn emit_tree(
    assembler: &mut Assembler,
    leaves: &[Leaf],
    place: &mut impl FnMut(&mut Assembler, Decision) -> Target,
) -> Target {
    if let [leaf] = leaves {
        return emit_leaf(assembler, leaf, place);
    }
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let boundary = high[0].first;
    let high = emit_tree(assembler, high, place);
    let low = emit_tree(assembler, low, place);
    assembler.jump(JUMP_AT_LEAST, boundary, high, low)
}

fn emit_leaf(
    assembler: &mut Assembler,
    leaf: &Leaf,
    place: &mut impl FnMut(&mut Assembler, Decision) -> Target,
) -> Target {
    let others = place(assembler, leaf.decision);
    match leaf.exception {
        None => others,
        Some((number, decision)) => {
            let exception = place(assembler, decision);
            assembler.jump(JUMP_EQUAL, number, exception, others)
        }
    }
}
