//! The regular expressions of a profile: as in POSIX's extended ones, without counts, alternatives and back references.
//!
//! An expression is matched by the set of all places where it can end, so the time is bounded by the product of the
//! lengths and nothing backtracks.

use std::collections::BTreeSet;

use super::{Fault, fault};

/// An expression; finds what it describes anywhere in a text unless it is anchored.
#[derive(Debug, Clone)]
pub(super) struct Regex {
    anchored: bool,
    parts: Vec<(Atom, Times)>,
    to_the_end: bool,
}

#[derive(Debug, Clone)]
enum Atom {
    One(char),
    Any,
    Class { negated: bool, ranges: Vec<(char, char)> },
    Group(Vec<(Atom, Times)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Maybe,
    Any,
    Many,
}

/// Deeper groups than any profile has.
const DEEPEST: usize = 4;

impl Regex {
    /// # Errors
    /// [`Fault`] for whatever is not understood.
    pub(super) fn new(source: &str) -> Result<Self, Fault> {
        let (anchored, body) = source.strip_prefix('^').map_or((false, source), |body| (true, body));
        let (to_the_end, body) = match body.strip_suffix('$') {
            Some(body) if !body.ends_with('\\') => (true, body),
            _ => (false, body),
        };
        let mut rest = body.chars().collect::<Vec<_>>().into_iter().peekable();
        let parts = parts(&mut rest, 0)?;
        match rest.next() {
            None => Ok(Self { anchored, parts, to_the_end }),
            Some(_) => fault("a group ends that did not begin", &source),
        }
    }

    pub(super) fn finds(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let starts = if self.anchored { [0].into() } else { (0..=text.len()).collect() };
        let ends = run(&self.parts, &text, starts);
        if self.to_the_end { ends.contains(&text.len()) } else { !ends.is_empty() }
    }
}

type Source = std::iter::Peekable<std::vec::IntoIter<char>>;

fn parts(rest: &mut Source, depth: usize) -> Result<Vec<(Atom, Times)>, Fault> {
    let mut parts = Vec::new();
    while let Some(&next) = rest.peek() {
        if next == ')' {
            break;
        }
        rest.next();
        let atom = atom(next, rest, depth)?;
        let times = match rest.peek() {
            Some('?') => Times::Maybe,
            Some('*') => Times::Any,
            Some('+') => Times::Many,
            _ => Times::Once,
        };
        if times != Times::Once {
            rest.next();
        }
        parts.push((atom, times));
    }
    Ok(parts)
}

fn atom(first: char, rest: &mut Source, depth: usize) -> Result<Atom, Fault> {
    match first {
        '.' => Ok(Atom::Any),
        '[' => class(rest),
        '(' if depth < DEEPEST => {
            let inner = parts(rest, depth + 1)?;
            match rest.next() {
                Some(')') => Ok(Atom::Group(inner)),
                _ => fault("a group does not end", &first),
            }
        }
        '\\' => match rest.next() {
            Some(escaped) if escaped.is_ascii_punctuation() => Ok(Atom::One(escaped)),
            escaped => fault("no escape", &escaped),
        },
        '(' | ')' | '*' | '+' | '?' | '{' | '}' | '|' | '^' | '$' | ']' => fault("not understood", &first),
        plain => Ok(Atom::One(plain)),
    }
}

fn class(rest: &mut Source) -> Result<Atom, Fault> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match rest.next() {
            None => return fault("a class does not end", &ranges),
            Some(']') if !ranges.is_empty() => return Ok(Atom::Class { negated, ranges }),
            Some(first) if first.is_ascii_alphanumeric() || "/._".contains(first) => {
                let last = if rest.next_if_eq(&'-').is_some() { rest.next() } else { Some(first) };
                match last {
                    Some(last) if last.is_ascii_alphanumeric() && first <= last => ranges.push((first, last)),
                    Some(last) if last == first => ranges.push((first, last)),
                    last => return fault("no range", &(first, last)),
                }
            }
            Some(other) => return fault("not understood in a class", &other),
        }
    }
}

fn run(parts: &[(Atom, Times)], text: &[char], starts: BTreeSet<usize>) -> BTreeSet<usize> {
    parts.iter().fold(starts, |at, (atom, times)| match times {
        Times::Once => step(atom, text, &at),
        Times::Maybe => step(atom, text, &at).into_iter().chain(at).collect(),
        Times::Any => closure(atom, text, at),
        Times::Many => closure(atom, text, step(atom, text, &at)),
    })
}

/// Everywhere that any number of repetitions leads to.
fn closure(atom: &Atom, text: &[char], mut found: BTreeSet<usize>) -> BTreeSet<usize> {
    let mut new = found.clone();
    while !new.is_empty() {
        new = step(atom, text, &new).difference(&found).copied().collect();
        found.extend(&new);
    }
    found
}

fn step(atom: &Atom, text: &[char], at: &BTreeSet<usize>) -> BTreeSet<usize> {
    let takes = |c: char| match atom {
        Atom::One(one) => c == *one,
        Atom::Any => true,
        Atom::Class { negated, ranges } => {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
        }
        Atom::Group(_) => false,
    };
    match atom {
        Atom::Group(parts) => run(parts, text, at.clone()),
        Atom::One(_) | Atom::Any | Atom::Class { .. } => at
            .iter()
            .filter(|&&place| text.get(place).is_some_and(|&c| takes(c)))
            .map(|place| place + 1)
            .collect(),
    }
}
