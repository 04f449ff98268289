//! Rust source with its comments and literals blanked out, so that rules look at code only.
//!
//! A lexer, not a parser: it knows comments, strings, characters and lifetimes, and where items that are compiled
//! only for tests begin and end. Blanking keeps every byte offset, so a find in the code is a place in the file.

use std::ops::Range;

/// One Rust file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path from the workspace's root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// `text` with comments and literals blanked.
    pub(crate) code: String,
    /// `code` with everything that is compiled only for tests blanked as well.
    pub(crate) product: String,
}

impl Source {
    /// Lexes one file. `path` decides whether all of it is for tests.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = without_literals(&text);
        let product = if in_test_folder(&path) {
            blank(&code, std::iter::once(0..code.len()))
        } else {
            without_tests(&code)
        };
        Self { path, text, code, product }
    }

    /// Marks the whole file as compiled only for tests.
    pub(crate) fn only_for_tests(&mut self) {
        self.product = blank(&self.code, std::iter::once(0..self.code.len()));
    }

    /// The package: the folder under `crates`, or `xtask`.
    pub(crate) fn package(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or_default()
    }

    /// Whether cargo starts a crate here.
    pub(crate) fn is_crate_root(&self) -> bool {
        let inside = self.path.split_once('/').map_or("", |(_, rest)| rest);
        let inside = if self.path.starts_with("crates/") {
            inside.split_once('/').map_or("", |(_, rest)| rest)
        } else {
            inside
        };
        matches!(inside, "src/lib.rs" | "src/main.rs")
            || inside
                .strip_prefix("src/bin/")
                .is_some_and(|rest| !rest.contains('/') || rest.ends_with("/main.rs"))
    }

    /// Line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }

    /// Files of the modules that are declared here and compiled only for tests.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let folder = module_folder(&self.path);
        words(&self.code, "mod")
            .filter(|&at| self.product[at..].starts_with(' '))
            .filter_map(|at| declared_module(&self.code[at..]))
            .flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")])
            .collect()
    }
}

/// Line of a byte offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Byte offsets at which `word` stands with no identifier character on either side.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let joins_before = word.starts_with(is_identifier) && before.is_some_and(is_identifier);
        let joins_after = word.ends_with(is_identifier) && after.is_some_and(is_identifier);
        !joins_before && !joins_after
    })
}

/// Offset just behind the bracket that closes the one at `open`, or the end of an unfinished file.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Whether a character may stand in an identifier.
pub(crate) fn is_identifier(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn in_test_folder(path: &str) -> bool {
    let mut parts = path.split('/');
    if parts.next() == Some("crates") {
        parts.next();
    }
    matches!(parts.next(), Some("tests" | "benches" | "examples"))
}

fn module_folder(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    }
}

/// The name in `mod NAME;`, when the module's body is another file.
fn declared_module(declaration: &str) -> Option<&str> {
    let name = declaration.strip_prefix("mod")?.split(';').next()?.trim();
    name.chars().all(is_identifier).then_some(name)
}

fn without_tests(code: &str) -> String {
    blank(code, test_regions(code))
}

/// Ranges of items under an attribute that needs `test`; the whole file for an inner attribute.
fn test_regions(code: &str) -> Vec<Range<usize>> {
    let outer = code.match_indices("#[cfg(").map(|(at, _)| (at, at + 1));
    let inner = code.match_indices("#![cfg(").map(|(at, _)| (at, at + 2));
    let mut regions = Vec::new();
    for (at, bracket) in outer.chain(inner) {
        let end = closing(code, bracket);
        let condition = &code[at..end];
        if words(condition, "test").next().is_none() || words(condition, "not").next().is_some() {
            continue;
        }
        regions.push(if bracket == at + 2 { 0..code.len() } else { at..item_end(code, end) });
    }
    regions
}

/// Where the item behind an attribute ends: at its `;`, or at the `}` of its body.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b';' => return at + 1,
            b'{' => return closing(code, at),
            b'(' | b'[' => at = closing(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

fn without_literals(text: &str) -> String {
    let mut literals = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match literal_end(text, at) {
            Some(end) => {
                literals.push(at..end);
                at = end;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    blank(text, literals)
}

/// End of the comment, string or character that begins at `at`, if one does.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return Some(at + rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(at + block_comment(rest));
    }
    if text[..at].chars().next_back().is_some_and(is_identifier) {
        return quoted(rest).map(|length| at + length);
    }
    let prefix = ["br", "cr", "r", "b", "c"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|rest| {
            rest.trim_start_matches('#').starts_with('"') || (*prefix == "b" && rest.starts_with('\''))
        })
    });
    match prefix {
        Some(prefix) if prefix.ends_with('r') => {
            raw_string(&rest[prefix.len()..]).map(|length| at + prefix.len() + length)
        }
        Some(prefix) => quoted(&rest[prefix.len()..]).map(|length| at + prefix.len() + length),
        None => quoted(rest).map(|length| at + length),
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 1;
    text.get(start..)?.find(&end).map(|length| start + length + end.len()).or(Some(text.len()))
}

/// Length of the `"…"` or `'…'` at the start; `None` for a lifetime and for anything else.
fn quoted(text: &str) -> Option<usize> {
    match text.chars().next()? {
        '"' => Some(escaped(text, '"')),
        '\'' => {
            let mut inside = text[1..].chars();
            let first = inside.next()?;
            (first == '\\' || inside.next() == Some('\'')).then(|| escaped(text, '\''))
        }
        _ => None,
    }
}

fn escaped(text: &str, quote: char) -> usize {
    let mut skip = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if skip => skip = false,
            '\\' => skip = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Replaces every byte of the ranges but line ends by a blank, so that offsets and lines stay.
fn blank(text: &str, ranges: impl IntoIterator<Item = Range<usize>>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in ranges {
        bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("crates/x/src/lib.rs", text).code
    }

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* /* b */ */ c"), "a               c");
        assert_eq!(code(r#"f("un\"safe", x)"#), "f(          , x)");
        assert_eq!(code("f(r#\"a\"b\"#, x)"), "f(        , x)");
        assert_eq!(code("f(b\"a\", b'a', 'é', '\\'', x)"), "f(    ,     ,     ,     , x)");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(code("r#type = 1; 'outer: loop {}"), "r#type = 1; 'outer: loop {}");
    }

    #[test]
    fn blanking_keeps_offsets_and_lines() {
        let source = Source::new("crates/x/src/lib.rs", "/* é\n*/\nunsafe");
        let at = words(&source.code, "unsafe").next().unwrap();
        assert_eq!(source.line(at), 3);
    }

    #[test]
    fn items_for_tests_are_not_product_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { if x {} } }\nfn c() {}";
        let product = Source::new("crates/x/src/lib.rs", text).product;
        assert_eq!(product.split_whitespace().collect::<String>(), "fna(){}fnc(){}");
        let other = "#[cfg(not(test))]\nfn a() {}\n#[cfg(feature = \"test\")]\nfn b() {}";
        let product = Source::new("crates/x/src/lib.rs", other).product;
        assert!(product.contains("fn a") && product.contains("fn b"), "{product}");
    }

    #[test]
    fn test_folders_and_declared_test_modules_are_not_product_code() {
        assert_eq!(Source::new("crates/x/tests/it.rs", "fn a() {}").product.trim(), "");
        assert_eq!(Source::new("crates/x/src/tests/it.rs", "fn a() {}").product, "fn a() {}");
        let parent = Source::new("crates/x/src/log.rs", "#[cfg(test)]\nmod tests;\n#[cfg(test)] mod two { }");
        assert_eq!(parent.test_modules(), ["crates/x/src/log/tests.rs", "crates/x/src/log/tests/mod.rs"]);
        let mut child = Source::new("crates/x/src/log/tests.rs", "mod kernel;");
        assert_eq!(child.test_modules(), [""; 0]);
        child.only_for_tests();
        assert_eq!(child.test_modules()[0], "crates/x/src/log/tests/kernel.rs");
    }

    #[test]
    fn a_word_has_no_identifier_around_it() {
        assert_eq!(words("unsafe unsafe_code not_unsafe (unsafe)", "unsafe").collect::<Vec<_>>(), [0, 31]);
    }

    #[test]
    fn packages_and_crate_roots_are_told_from_the_path() {
        let roots = ["crates/x/src/lib.rs", "crates/x/src/bin/probe.rs", "xtask/src/main.rs"];
        let others = ["crates/x/src/a/lib.rs", "crates/x/src/bin/probe/help.rs", "xtask/src/tidy/mod.rs"];
        assert!(roots.iter().all(|path| Source::new(*path, "").is_crate_root()));
        assert!(!others.iter().any(|path| Source::new(*path, "").is_crate_root()));
        assert_eq!(Source::new(roots[0], "").package(), "x");
        assert_eq!(Source::new(roots[2], "").package(), "xtask");
    }
}
