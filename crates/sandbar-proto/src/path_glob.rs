//! Patterns over absolute paths.
//!
//! A pattern is read component by component: `**` is any number of components, in any other component `*` is any run of bytes,
//! `?` any one byte and `[a-z]`, `[!a-z]` one byte of a class or outside of it; nothing else is special and case counts. Names
//! that begin with a dot are like others, since what patterns are for is mostly called `.env`. What would mean something in other
//! tools' patterns and nothing here is no pattern, so that nothing is covered less than its writer believed.
//!
//! Matching walks a path once with a set of positions ([`GlobProgress`]), so a search of a directory tree goes on from where the
//! directory above left off, and no pattern takes more than its length for each byte of a name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AbsPath, ByteString};

/// A pattern that covers absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PathGlob {
    written: ByteString,
    base: AbsPath,
    parts: Vec<Part>,
    max_depth: Option<u32>,
}

/// How one travels.
#[derive(Serialize, Deserialize)]
struct Written {
    pattern: ByteString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_depth: Option<u32>,
}

/// One component of a pattern below its base.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    /// Any number of components.
    Any,
    /// One component.
    One(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyRun,
    Class { is_negated: bool, ranges: Vec<(u8, u8)> },
}

/// Why what somebody wrote is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPathGlob {
    /// It does not begin with `/`.
    Relative,
    /// It has a component `..`.
    Parent,
    /// It has a NUL byte.
    Nul,
    /// `**` stands beside something else between two slashes.
    StarsWithin,
    /// A class begins and does not end, or holds nothing.
    Class,
    /// It has a character that means something in other patterns.
    Character(u8),
    /// It has more components than [`PathGlob::MAX_PARTS`].
    TooLong,
    /// It covers `/`.
    Everything,
}

impl fmt::Display for BadPathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative => f.write_str("it does not begin with /"),
            Self::Parent => f.write_str("it has a component `..`"),
            Self::Nul => f.write_str("it has a NUL byte"),
            Self::StarsWithin => f.write_str("`**` must stand alone between two slashes"),
            Self::Class => f.write_str("a `[` needs its `]`, with something between them"),
            Self::Character(byte) => write!(f, "`{}` has no meaning in it", char::from(*byte)),
            Self::TooLong => write!(f, "it has more than {} components", PathGlob::MAX_PARTS),
            Self::Everything => f.write_str("it covers everything"),
        }
    }
}

impl std::error::Error for BadPathGlob {}

/// How far a path came along a pattern. Begin with [`PathGlob::start`], which stands for the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobProgress(u64);

impl GlobProgress {
    /// Whether nothing below can match any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.0 == 0
    }
}

impl PathGlob {
    /// Most components with and behind the first special one.
    pub const MAX_PARTS: usize = 63;

    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`BadPathGlob`].
    pub fn new(written: impl Into<ByteString>) -> Result<Self, BadPathGlob> {
        let written = written.into();
        let raw = written.as_bytes();
        if raw.first() != Some(&b'/') {
            return Err(BadPathGlob::Relative);
        }
        if raw.contains(&0) {
            return Err(BadPathGlob::Nul);
        }
        let mut base = AbsPath::root();
        let mut parts: Vec<Part> = Vec::new();
        let mut components =
            raw.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).peekable();
        while let Some(component) = components.next() {
            let part = read_part(component)?;
            match literal(&part) {
                // The last component is part of the pattern in any case: the base is a directory.
                Some(name) if parts.is_empty() && components.peek().is_some() => {
                    base = base.join(name).map_err(|_| BadPathGlob::Parent)?;
                }
                // Two of them are one.
                _ if part == Part::Any && parts.last() == Some(&Part::Any) => {}
                _ => parts.push(part),
            }
        }
        if parts.len() > Self::MAX_PARTS {
            return Err(BadPathGlob::TooLong);
        }
        let all_any = parts.iter().all(|part| *part == Part::Any);
        if all_any && base == AbsPath::root() {
            return Err(BadPathGlob::Everything);
        }
        Ok(Self { written, base, parts, max_depth: None })
    }

    /// The pattern that covers `path` and nothing else.
    #[must_use]
    pub fn literal(path: &AbsPath) -> Option<Self> {
        let (base, name) = path.parent().zip(path.file_name())?;
        let tokens = name.iter().map(|&byte| Token::Byte(byte)).collect();
        let written = ByteString::from(escaped(path.as_bytes()));
        Some(Self { written, base, parts: vec![Part::One(tokens)], max_depth: None })
    }

    /// The pattern with `base` put before everything that is special in it: for one that is written relative to a directory whose
    /// name may have any character.
    ///
    /// # Errors
    /// See [`BadPathGlob`]; a `relative` that begins with a slash is taken as relative to `base`.
    pub fn below(base: &AbsPath, relative: impl AsRef<[u8]>) -> Result<Self, BadPathGlob> {
        let mut written = escaped(base.as_bytes());
        written.push(b'/');
        written.extend_from_slice(relative.as_ref());
        Self::new(written)
    }

    /// The same for another base, which a link may have led to.
    #[must_use]
    pub fn rebased(&self, base: AbsPath) -> Self {
        let mut written = escaped(base.as_bytes());
        let special =
            self.written.as_bytes().split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        for part in special.skip(self.base.depth()) {
            if written.last() != Some(&b'/') {
                written.push(b'/');
            }
            written.extend_from_slice(part);
        }
        Self { written: written.into(), base, parts: self.parts.clone(), max_depth: self.max_depth }
    }

    /// The same, covering nothing that lies more than `max_depth` directories below the base.
    #[must_use]
    pub fn within_depth(self, max_depth: Option<u32>) -> Self {
        Self { max_depth, ..self }
    }

    /// How many directories below the base it covers anything, if that is bounded. What lies in the base itself has depth 1.
    #[must_use]
    pub fn max_depth(&self) -> Option<u32> {
        self.max_depth
    }

    /// Whether it says anything about what lies this deep (`AbsPath::depth`).
    #[must_use]
    pub fn reaches(&self, depth: usize) -> bool {
        self.max_depth
            .is_none_or(|most| depth <= self.base.depth() + usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// The pattern as text from which it can be read again.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.written.as_bytes()
    }

    /// The pattern for a person.
    #[must_use]
    pub fn to_display(&self) -> String {
        self.written.to_display()
    }

    /// The directory below which everything lies that it covers.
    #[must_use]
    pub fn base(&self) -> &AbsPath {
        &self.base
    }

    /// The path that it covers, if it covers no other.
    #[must_use]
    pub fn only_path(&self) -> Option<AbsPath> {
        match self.parts.as_slice() {
            [part] => self.base.join(literal(part)?).ok(),
            _ => None,
        }
    }

    /// The way so far of the base.
    #[must_use]
    pub fn start(&self) -> GlobProgress {
        GlobProgress(self.through_any(1))
    }

    /// The way so far of `name` in a directory that came as far as `progress`.
    #[must_use]
    pub fn step(&self, progress: GlobProgress, name: &[u8]) -> GlobProgress {
        let mut next = 0;
        for (at, part) in self.parts.iter().enumerate() {
            if progress.0 & (1 << at) == 0 {
                continue;
            }
            match part {
                Part::Any => next |= 1 << at,
                Part::One(tokens) if is_covered(tokens, name) => next |= 1 << (at + 1),
                Part::One(_) => {}
            }
        }
        GlobProgress(self.through_any(next))
    }

    /// Whether what came as far as `progress` is covered.
    #[must_use]
    pub fn is_match(&self, progress: GlobProgress) -> bool {
        progress.0 & (1 << self.parts.len()) != 0
    }

    /// Whether it covers exactly `path`, not counting what lies below something that it covers.
    #[must_use]
    pub fn matches(&self, path: &AbsPath) -> bool {
        self.deepest(path) == Some(path.depth())
    }

    /// The depth of the deepest among `path` and the directories above it that is covered: the length of this pattern among the
    /// entries that decide about `path`.
    #[must_use]
    pub fn deepest(&self, path: &AbsPath) -> Option<usize> {
        if !path.starts_with(&self.base) {
            return None;
        }
        let mut depth = self.base.depth();
        let mut progress = self.start();
        let mut deepest = self.is_match(progress).then_some(depth);
        for name in path.components().skip(depth) {
            progress = self.step(progress, name);
            depth += 1;
            if !self.reaches(depth) {
                break;
            }
            if self.is_match(progress) {
                deepest = Some(depth);
            }
        }
        deepest
    }

    /// The pattern as an anchored regular expression of POSIX (regex(7)) without its base, for what understands nothing else:
    /// covers what follows the base and its slash, and everything below what is covered.
    #[must_use]
    pub fn regex_below_base(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut needs_slash = false;
        for (at, part) in self.parts.iter().enumerate() {
            let is_last = at + 1 == self.parts.len();
            match part {
                Part::Any if is_last => {
                    text.extend_from_slice(if needs_slash { b"(/.*)?" } else { b".*" });
                    needs_slash = false;
                }
                Part::Any => {
                    text.extend_from_slice(if needs_slash { b"/(.*/)?" } else { b"(.*/)?" });
                    needs_slash = false;
                }
                Part::One(tokens) => {
                    if needs_slash {
                        text.push(b'/');
                    }
                    tokens.iter().for_each(|token| token.to_regex(&mut text));
                    needs_slash = true;
                }
            }
        }
        if needs_slash {
            text.extend_from_slice(b"(/.*)?");
        }
        text
    }

    /// With every position behind a `**` that may be empty.
    fn through_any(&self, mut positions: u64) -> u64 {
        for (at, part) in self.parts.iter().enumerate() {
            if *part == Part::Any && positions & (1 << at) != 0 {
                positions |= 1 << (at + 1);
            }
        }
        positions
    }
}

/// A special character stands for itself within a class of its own.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for &byte in path {
        if SPECIAL.contains(&byte) {
            text.extend_from_slice(&[b'[', byte, b']']);
        } else {
            text.push(byte);
        }
    }
    text
}

/// What has to be written within a class to stand for itself.
const SPECIAL: &[u8] = b"*?[]{}\\";

fn read_part(component: &[u8]) -> Result<Part, BadPathGlob> {
    if component == b"**" {
        return Ok(Part::Any);
    }
    if component == b".." {
        return Err(BadPathGlob::Parent);
    }
    let mut tokens = Vec::new();
    let mut rest = component;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        tokens.push(match byte {
            b'*' if rest.first() == Some(&b'*') => return Err(BadPathGlob::StarsWithin),
            b'*' => Token::AnyRun,
            b'?' => Token::AnyByte,
            b'[' => {
                let (class, after) = read_class(rest)?;
                rest = after;
                class
            }
            b']' | b'{' | b'}' | b'\\' => return Err(BadPathGlob::Character(byte)),
            byte => Token::Byte(byte),
        });
    }
    Ok(Part::One(tokens))
}

/// A class behind its `[`. As in glob(7), a `]` that comes first stands for itself, and so does a `-` at either end.
fn read_class(text: &[u8]) -> Result<(Token, &[u8]), BadPathGlob> {
    let (is_negated, text) = match text.split_first() {
        Some((b'!', rest)) => (true, rest),
        _ => (false, text),
    };
    let end = text.iter().skip(1).position(|&byte| byte == b']').ok_or(BadPathGlob::Class)? + 1;
    let (mut members, rest) = (&text[..end], &text[end + 1..]);
    let mut ranges = Vec::new();
    loop {
        members = match members {
            [] => break,
            [low, b'-', high, rest @ ..] => {
                if low > high {
                    return Err(BadPathGlob::Class);
                }
                ranges.push((*low, *high));
                rest
            }
            [byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
        };
    }
    let token = match ranges.as_slice() {
        [(low, high)] if low == high && !is_negated => Token::Byte(*low),
        _ => Token::Class { is_negated, ranges },
    };
    Ok((token, rest))
}

/// The only name that a component covers, if there is one.
fn literal(part: &Part) -> Option<Vec<u8>> {
    let Part::One(tokens) = part else { return None };
    tokens
        .iter()
        .map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::AnyByte | Token::AnyRun | Token::Class { .. } => None,
        })
        .collect()
}

impl Token {
    /// Whether it covers one byte.
    fn covers(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::AnyByte => true,
            Self::AnyRun => false,
            Self::Class { is_negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *is_negated
            }
        }
    }

    fn to_regex(&self, text: &mut Vec<u8>) {
        match self {
            Self::Byte(byte) if b"\\^$.|?*+()[]{}".contains(byte) => text.extend_from_slice(&[b'\\', *byte]),
            Self::Byte(byte) => text.push(*byte),
            Self::AnyByte => text.extend_from_slice(b"[^/]"),
            Self::AnyRun => text.extend_from_slice(b"[^/]*"),
            Self::Class { is_negated, ranges } => {
                text.extend_from_slice(if *is_negated { b"[^/" } else { b"[" });
                // A `]` counts as itself only at the beginning, a `-` only at the end (regex(7)).
                let is_single = |range: &&(u8, u8), byte| **range == (byte, byte);
                let mut ranges: Vec<&(u8, u8)> = ranges.iter().collect();
                ranges.sort_by_key(|range| {
                    (is_single(range, b'-'), is_single(range, b'^'), !is_single(range, b']'))
                });
                for (low, high) in ranges {
                    text.push(*low);
                    if low != high {
                        text.extend_from_slice(&[b'-', *high]);
                    }
                }
                text.push(b']');
            }
        }
    }
}

/// Whether the tokens cover all of `name`. Only the last run is ever tried again, which keeps this quadratic.
fn is_covered(tokens: &[Token], name: &[u8]) -> bool {
    let (mut t, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match tokens.get(t) {
            Some(Token::AnyRun) => {
                retry = Some((t, n));
                t += 1;
            }
            Some(token) if token.covers(name[n]) => {
                t += 1;
                n += 1;
            }
            Some(_) | None => match retry {
                Some((run, taken)) => {
                    retry = Some((run, taken + 1));
                    t = run + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    tokens[t..].iter().all(|token| *token == Token::AnyRun)
}

impl TryFrom<Written> for PathGlob {
    type Error = BadPathGlob;

    fn try_from(written: Written) -> Result<Self, BadPathGlob> {
        Ok(Self::new(written.pattern)?.within_depth(written.max_depth))
    }
}

impl From<PathGlob> for Written {
    fn from(glob: PathGlob) -> Self {
        Self { pattern: glob.written, max_depth: glob.max_depth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn glob(text: &str) -> PathGlob {
        PathGlob::new(text).unwrap()
    }

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    #[test]
    fn a_pattern_covers_these_paths_and_not_those() {
        let table = [
            ("/w/*.env", "/w/.env", true),
            ("/w/*.env", "/w/a/.env", false),
            ("/w/**/*.env", "/w/.env", true),
            ("/w/**/*.env", "/w/a/b/prod.env", true),
            ("/w/**/*.env", "/w/a/b/prod.env/x", false),
            ("/w/**/*.env", "/v/.env", false),
            ("/w/**/.env*", "/w/x/.env.local", true),
            ("/w/a?c", "/w/abc", true),
            ("/w/a?c", "/w/a/c", false),
            ("/w/[a-c]x", "/w/bx", true),
            ("/w/[!a-c]x", "/w/bx", false),
            ("/w/[!a-c]x", "/w/dx", true),
            ("/w/[]-]", "/w/]", true),
            ("/w/[]-]", "/w/-", true),
            ("/w/secrets/**", "/w/secrets", true),
            ("/w/secrets/**", "/w/secrets/a/b", true),
            ("/w/**/keys/*.pem", "/w/keys/a.pem", true),
            ("/w/**/keys/*.pem", "/w/a/keys/b/a.pem", false),
            ("/w/**/**/x", "/w/x", true),
            ("/**/*.pem", "/etc/ssl/a.pem", true),
            ("/w/x", "/w/x", true),
            ("/w/X", "/w/x", false),
        ];
        for (pattern, at, expected) in table {
            assert_eq!(glob(pattern).matches(&path(at)), expected, "{pattern} on {at}");
        }
    }

    #[test]
    fn what_lies_below_something_covered_is_covered_by_it() {
        let keys = glob("/w/**/keys");
        assert_eq!(keys.deepest(&path("/w/a/keys/b/c")), Some(3));
        assert_eq!(keys.deepest(&path("/w/keys/keys/c")), Some(3));
        assert_eq!(keys.deepest(&path("/w/a")), None);
    }

    #[test]
    fn a_depth_bounds_what_is_covered() {
        let shallow = glob("/w/**/.env").within_depth(Some(2));
        let covered = ["/w/.env", "/w/a/.env", "/w/a/b/.env"].map(|at| shallow.matches(&path(at)));
        assert_eq!(covered, [true, true, false]);
        let json = serde_json::to_string(&shallow).unwrap();
        assert_eq!(json, r#"{"pattern":"/w/**/.env","max_depth":2}"#);
        assert_eq!(serde_json::from_str::<PathGlob>(&json).unwrap(), shallow);
    }

    #[test]
    fn another_base_keeps_what_is_special() {
        let moved = glob("/link/x/*.env").rebased(path("/real[1]"));
        assert_eq!((moved.base(), moved.matches(&path("/real[1]/a.env"))), (&path("/real[1]"), true));
        assert_eq!(PathGlob::new(moved.as_bytes()).unwrap(), moved);
        assert_eq!(glob("/w/**/x").rebased(AbsPath::root()).as_bytes(), b"/**/x");
    }

    #[test]
    fn the_base_is_what_comes_before_the_first_special_component() {
        for (pattern, base) in [("/w/a/*.x", "/w/a"), ("/**/x", "/"), ("/w/x", "/w"), ("/w/[*]/a*", "/w/*")] {
            assert_eq!(*glob(pattern).base(), path(base), "{pattern}");
        }
    }

    #[test]
    fn what_means_something_elsewhere_is_refused() {
        let table = [
            ("w/*", BadPathGlob::Relative),
            ("/w/../x*", BadPathGlob::Parent),
            ("/w/a\0*", BadPathGlob::Nul),
            ("/w/a**", BadPathGlob::StarsWithin),
            ("/w/[ab", BadPathGlob::Class),
            ("/w/[]", BadPathGlob::Class),
            ("/w/[z-a]", BadPathGlob::Class),
            ("/w/{a,b}", BadPathGlob::Character(b'{')),
            ("/w/\\*", BadPathGlob::Character(b'\\')),
            ("/**", BadPathGlob::Everything),
            ("/", BadPathGlob::Everything),
        ];
        for (pattern, error) in table {
            assert_eq!(PathGlob::new(pattern), Err(error), "{pattern}");
        }
        let long = format!("/{}", "*/".repeat(64));
        assert_eq!(PathGlob::new(long.as_str()), Err(BadPathGlob::TooLong));
    }

    #[test]
    fn a_name_with_special_characters_stands_for_itself() {
        let odd = path("/w/a[*]{b}?");
        let exact = PathGlob::literal(&odd).unwrap();
        assert!(
            exact.only_path() == Some(odd.clone()) && exact.matches(&odd) && !exact.matches(&path("/w/a*"))
        );
        assert_eq!(PathGlob::new(exact.as_bytes()).unwrap(), exact);
        let within = PathGlob::below(&odd, "**/*.env").unwrap();
        assert_eq!(*within.base(), odd);
        assert!(within.matches(&path("/w/a[*]{b}?/x/.env")));
    }

    #[test]
    fn a_regular_expression_says_the_same() {
        let table = [
            ("/w/*.env", r"[^/]*\.env(/.*)?"),
            ("/w/**/*.env", r"(.*/)?[^/]*\.env(/.*)?"),
            ("/w/a*/**/x", r"a[^/]*/(.*/)?x(/.*)?"),
            ("/w/a*/**", r"a[^/]*(/.*)?"),
            ("/w/[!a-c]?", r"[^/a-c][^/](/.*)?"),
        ];
        for (pattern, regex) in table {
            assert_eq!(String::from_utf8(glob(pattern).regex_below_base()).unwrap(), regex, "{pattern}");
        }
    }

    /// The definition, exponential and obviously right.
    fn by_definition(pattern: &[&str], names: &[&str]) -> bool {
        match (pattern.split_first(), names.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                by_definition(rest, names)
                    || names.split_first().is_some_and(|(_, names)| by_definition(pattern, names))
            }
            (Some((part, rest)), Some((name, names))) => {
                of_component(part.as_bytes(), name.as_bytes()) && by_definition(rest, names)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    fn of_component(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                of_component(rest, name)
                    || name.split_first().is_some_and(|(_, name)| of_component(pattern, name))
            }
            (Some((b'?', rest)), Some((_, name))) => of_component(rest, name),
            (Some((p, rest)), Some((n, name))) => p == n && of_component(rest, name),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in proptest::collection::vec("[ab?]{1,2}|\\*|a\\*b?|\\*\\*", 1..6),
            names in proptest::collection::vec("[ab]{1,3}", 1..6),
        ) {
            let (pattern, names): (Vec<&str>, Vec<&str>) =
                (pattern.iter().map(String::as_str).collect(), names.iter().map(String::as_str).collect());
            let made = PathGlob::new(format!("/w/{}", pattern.join("/")).as_str()).unwrap();
            let at = path(&format!("/w/{}", names.join("/")));
            prop_assert_eq!(made.matches(&at), by_definition(&pattern, &names));
            // The base leads to everything that is covered.
            if made.matches(&at) {
                prop_assert!(at.starts_with(made.base()));
            }
        }

        #[test]
        fn a_pattern_is_read_again_from_its_text(pattern in "/w/[ab*?\\[\\]!/-]{0,12}") {
            if let Ok(made) = PathGlob::new(pattern.as_str()) {
                prop_assert_eq!(PathGlob::new(made.as_bytes()).unwrap(), made);
            }
        }
    }
}
