//! Licence expressions (SPDX) and whether our list satisfies them.

/// Licences whose terms go with an Apache-2.0 program. MPL-2.0 asks for changed files of its own only, and is
/// allowed because we change none.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether one choice that the expression offers uses allowed licences only. An expression that cannot be read is
/// not allowed.
pub(super) fn is_allowed(expression: &str) -> bool {
    // `MIT/Apache-2.0` is how cargo wrote `OR` before SPDX.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest).is_some_and(|allowed| allowed && rest.is_empty())
}

fn any_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all_of(rest)?;
    while take(rest, "OR") {
        allowed |= all_of(rest)?;
    }
    Some(allowed)
}

fn all_of(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while take(rest, "AND") {
        allowed &= one(rest)?;
    }
    Some(allowed)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let allowed = any_of(rest)?;
        return take(rest, ")").then_some(allowed);
    }
    let (licence, others) = rest.split_first()?;
    *rest = others;
    if !take(rest, "WITH") {
        return Some(ALLOWED.contains(licence));
    }
    let (exception, others) = rest.split_first()?;
    *rest = others;
    Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let found = rest.first() == Some(&word);
    if found {
        *rest = &rest[1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_choice_is_enough_and_every_part_of_it_is_needed() {
        for allowed in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "GPL-3.0 AND MIT OR ISC",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND AGPL-3.0", "GPL-2.0 WITH LLVM-exception"]
        {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_allowed() {
        for unreadable in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "MIT)", "Apache-2.0 WITH"] {
            assert!(!is_allowed(unreadable), "{unreadable}");
        }
    }
}
