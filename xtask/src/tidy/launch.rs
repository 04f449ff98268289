//! Only `sandbar-policy` makes a `LaunchSpec`; everybody else gets one from it or decodes one.
//!
//! Looks for the ways a value comes into being: a struct literal, `Self { … }` in its own `impl`, a `Default`. Code
//! that is not shipped may build one: `sandbar-testkit`, files under `tests/` and `benches/`, and items under
//! `#[cfg(test)]`. Decoding (serde's derive, in proto) is the other allowed way in, and only the keeper decodes.

use super::Finding;
use super::source::{Source, closing, is_identifier, words};

const NAME: &str = "LaunchSpec";
const MAKERS: &[&str] = &["sandbar-policy", "sandbar-testkit", "xtask"];

/// Finds code that makes a `LaunchSpec` and is neither policy's nor a test's.
pub(super) fn literals(source: &Source) -> Vec<Finding> {
    if MAKERS.contains(&source.package()) {
        return Vec::new();
    }
    let code = &source.product;
    let direct = words(code, NAME).filter(|&at| is_literal(code, at) || is_renamed(code, at));
    let own = words(code, "impl").flat_map(|at| own_literals(code, at));
    direct
        .chain(own)
        .chain(derived_default(code))
        .map(|at| {
            let fix = "ask sandbar-policy for a LaunchPlan; a test may use sandbar-testkit's";
            Finding::new(&source.path, source.line(at), "a LaunchSpec is made outside sandbar-policy", fix)
        })
        .collect()
}

/// Whether the name at `at` begins `LaunchSpec { field: … }` as an expression.
fn is_literal(code: &str, at: usize) -> bool {
    let Some(open) = opening_brace(code, at + NAME.len()) else { return false };
    let path = path_start(code, at);
    let before = code[..path].trim_end();
    let is_declaration = ["struct", "impl", "for", "let"].iter().any(|word| ends_with_word(before, word));
    !is_declaration && !is_return_type(before) && !is_pattern(code, open)
}

/// `use … LaunchSpec as Other`: behind another name a literal would go unseen.
fn is_renamed(code: &str, at: usize) -> bool {
    let mut after = code[at + NAME.len()..].split_whitespace();
    let aliased = || {
        code[..path_start(code, at)].trim_end().strip_suffix('=').is_some_and(|head| {
            head.rsplit([';', '}', '{']).next().is_some_and(|item| words(item, "type").next().is_some())
        })
    };
    after.next() == Some("as") || aliased()
}

/// `Self { … }` inside `impl LaunchSpec { … }` or `impl Trait for LaunchSpec { … }`.
fn own_literals(code: &str, implementation: usize) -> Vec<usize> {
    let Some(open) = code[implementation..].find('{').map(|length| implementation + length) else {
        return Vec::new();
    };
    if !ends_with_word(code[implementation..open].trim_end(), NAME) {
        return Vec::new();
    }
    let body = &code[open..closing(code, open)];
    words(body, "Self")
        .filter(|at| opening_brace(body, at + "Self".len()).is_some_and(|brace| !is_pattern(body, brace)))
        .filter(|&at| !ends_with_word(body[..at].trim_end(), "let") && !is_return_type(body[..at].trim_end()))
        .map(|at| open + at)
        .collect()
}

/// `#[derive(…, Default, …)] struct LaunchSpec`.
fn derived_default(code: &str) -> Option<usize> {
    let at = words(code, NAME).find(|&at| ends_with_word(code[..at].trim_end(), "struct"))?;
    let item = code[..at].rfind(['}', ';']).map_or(0, |end| end + 1);
    words(&code[item..at], "Default").next().map(|offset| item + offset)
}

fn opening_brace(code: &str, end: usize) -> Option<usize> {
    let rest = &code[end..];
    rest.trim_start().starts_with('{').then(|| end + rest.len() - rest.trim_start().len())
}

/// Where the path that ends in the name at `at` begins: `sandbar_proto::LaunchSpec`.
fn path_start(code: &str, at: usize) -> usize {
    code[..at].trim_end_matches(|c: char| is_identifier(c) || c == ':').len()
}

fn is_return_type(before: &str) -> bool {
    let mut before = before.trim_end();
    loop {
        let stripped = before.strip_suffix("mut").or_else(|| before.strip_suffix('&')).or_else(|| {
            before.rsplit_once('\'').filter(|(_, name)| name.chars().all(is_identifier)).map(|(head, _)| head)
        });
        match stripped {
            Some(head) => before = head.trim_end(),
            None => return before.ends_with("->"),
        }
    }
}

/// A pattern is followed by `=>` or by one `=`.
fn is_pattern(code: &str, open: usize) -> bool {
    let after = code[closing(code, open)..].trim_start();
    after.starts_with('=') && !after.starts_with("==")
}

fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|head| !head.ends_with(is_identifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        literals(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    const EXEC: &str = "crates/sandbar-exec/src/start.rs";
    const NOTHING: [usize; 0] = [];

    #[test]
    fn a_literal_is_found_in_every_spelling() {
        assert_eq!(found(EXEC, "let a = LaunchSpec { argv };"), [1]);
        assert_eq!(found(EXEC, "fn f() {\n  start(&sandbar_proto::LaunchSpec{argv, ..old})\n}"), [2]);
        assert_eq!(found(EXEC, "if spec == (LaunchSpec { argv }) {}"), [1]);
        assert_eq!(found(EXEC, "use sandbar_proto::LaunchSpec as Spec;"), [1]);
        assert_eq!(found(EXEC, "type Spec = sandbar_proto::LaunchSpec;"), [1]);
    }

    #[test]
    fn a_constructor_or_default_of_its_own_is_found() {
        let proto = "crates/sandbar-proto/src/launch.rs";
        assert_eq!(found(proto, "impl LaunchSpec {\n fn new() -> Self {\n  Self { argv }\n }\n}"), [3]);
        assert_eq!(found(proto, "#[derive(Clone, Default)]\npub struct LaunchSpec { a: u8 }"), [1]);
        assert_eq!(
            found(
                proto,
                "#[derive(Default)]\nstruct A {}\n#[derive(Clone)]\npub struct LaunchSpec { a: u8 }"
            ),
            NOTHING
        );
    }

    #[test]
    fn declarations_return_types_and_patterns_pass() {
        assert_eq!(
            found(EXEC, "pub struct LaunchSpec { a: u8 }\nimpl Plan for LaunchSpec { fn a(&self) {} }"),
            NOTHING
        );
        assert_eq!(found(EXEC, "fn spec(&self) -> &'a LaunchSpec { &self.0 }"), NOTHING);
        assert_eq!(
            found(EXEC, "let LaunchSpec { argv, .. } = spec;\nmatch x { LaunchSpec { argv, .. } => 1 }"),
            NOTHING
        );
        assert_eq!(found(EXEC, "// LaunchSpec { }\nlet a: LaunchSpec = decode(bytes)?;"), NOTHING);
    }

    #[test]
    fn policy_and_tests_may_make_one() {
        let literal = "fn f() { LaunchSpec { argv } }";
        assert_eq!(found("crates/sandbar-policy/src/plan.rs", literal), NOTHING);
        assert_eq!(found("crates/sandbar-keeper/tests/start.rs", literal), NOTHING);
        assert_eq!(found(EXEC, &format!("#[cfg(test)]\nmod tests {{ {literal} }}")), NOTHING);
        assert_eq!(found("crates/sandbar-keeper/src/start.rs", literal), [1]);
    }
}
