//! Links in Markdown that lead to files of the repository, and the index of decision records.

use std::path::Path;

use super::source::line_of;
use super::{Document, Finding};

/// Folder of the decision records.
const DECISIONS: &str = "docs/adr/";

/// Finds links to files that are not there, or that lie outside the repository. Addresses with a scheme and
/// anchors within a page are not looked at.
pub(super) fn links(root: &Path, documents: &[Document]) -> Vec<Finding> {
    documents
        .iter()
        .flat_map(|document| {
            targets(&document.text).into_iter().map(move |(line, target)| (document, line, target))
        })
        .filter_map(|(document, line, target)| {
            let leads = resolve(&document.path, &target).is_some_and(|path| root.join(path).exists());
            (!leads).then(|| {
                let what = format!("the link to {target} leads nowhere");
                Finding::new(
                    &document.path,
                    line,
                    what,
                    "write the path from this file's folder, or remove the link",
                )
            })
        })
        .collect()
}

/// Finds decision records that the index does not list, and numbers that were given twice.
pub(super) fn decisions(documents: &[Document]) -> Vec<Finding> {
    let index = documents.iter().find(|document| document.path == format!("{DECISIONS}README.md"));
    let listed: Vec<_> =
        index.into_iter().flat_map(|index| targets(&index.text)).map(|(_, target)| target).collect();
    let records: Vec<_> = documents.iter().filter_map(|document| record(&document.path)).collect();
    let missing = records.iter().filter(|record| !listed.contains(&(*record).to_string())).map(|record| {
        let fix = format!("add a line with a link to {record} to {DECISIONS}README.md");
        Finding::new(
            &format!("{DECISIONS}{record}"),
            1,
            "the index of decisions does not list this record",
            fix,
        )
    });
    let doubles = records.windows(2).filter(|pair| pair[0][..4] == pair[1][..4]).map(|pair| {
        let what = format!("{} has the same number", pair[0]);
        Finding::new(&format!("{DECISIONS}{}", pair[1]), 1, what, "give the later one the next free number")
    });
    missing.chain(doubles).collect()
}

/// The file name of a decision record, `NNNN-title.md`.
fn record(path: &str) -> Option<&str> {
    let name = path.strip_prefix(DECISIONS)?;
    let (number, _) = name.split_once('-')?;
    (number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Targets of links and link definitions, with their lines, code left out.
fn targets(text: &str) -> Vec<(usize, String)> {
    let prose = without_code(text);
    let inline = prose.match_indices("](").filter_map(|(at, _)| {
        let target = prose[at + 2..].split([')', '\n']).next()?;
        Some((at, target))
    });
    let definitions = prose.match_indices("]: ").filter_map(|(at, _)| {
        let line = prose[..at].rsplit('\n').next()?;
        line.trim_start().starts_with('[').then(|| (at, prose[at + 3..].lines().next().unwrap_or_default()))
    });
    inline
        .chain(definitions)
        .filter_map(|(at, target)| Some((line_of(&prose, at), local(target)?.to_owned())))
        .collect()
}

/// The path in a link's target, unless it leads out of the repository or stays on its page.
fn local(target: &str) -> Option<&str> {
    let path = target.split_whitespace().next()?.trim_start_matches('<').trim_end_matches('>');
    let path = path.split('#').next()?;
    (!path.is_empty() && !path.contains("://") && !path.starts_with("mailto:")).then_some(path)
}

/// Blanks fenced blocks and inline code, keeping lines.
fn without_code(text: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut prose = String::with_capacity(text.len());
    for line in text.lines() {
        let marker = ["```", "~~~"].into_iter().find(|marker| line.trim_start().starts_with(marker));
        match (fence, marker) {
            (None, None) => prose.push_str(&without_spans(line)),
            (None, Some(_)) => fence = marker,
            (Some(open), Some(found)) if open == found => fence = None,
            (Some(_), _) => {}
        }
        prose.push('\n');
    }
    prose
}

fn without_spans(line: &str) -> String {
    let parts: Vec<_> = line.split('`').collect();
    // An odd number of backticks leaves the last one literal.
    let closed = if parts.len() % 2 == 0 { parts.len() - 1 } else { parts.len() };
    parts.iter().enumerate().filter(|(at, _)| at % 2 == 0 || *at >= closed).map(|(_, part)| *part).collect()
}

/// The path that a link in `document` leads to, from the root; `None` when it leaves the repository.
fn resolve(document: &str, target: &str) -> Option<String> {
    let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = target.strip_prefix('/').map_or_else(|| format!("{folder}/{target}"), str::to_owned);
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document { path: path.into(), text: text.into() }
    }

    fn broken(text: &str) -> Vec<(usize, String)> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("docs/adr")).unwrap();
        std::fs::write(root.path().join("README.md"), "").unwrap();
        links(root.path(), &[document("docs/platforms.md", text)])
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn links_that_lead_nowhere_are_found_with_their_line() {
        let found = broken("See [a](../README.md) and\n[b](missing.md#part).\n\n[c]: ../gone.md \"title\"\n");
        let says = |path| format!("the link to {path} leads nowhere");
        assert_eq!(found, [(2, says("missing.md")), (4, says("../gone.md"))]);
    }

    #[test]
    fn a_link_out_of_the_repository_leads_nowhere_for_its_readers() {
        assert_eq!(broken("[a](../../README.md)").len(), 1);
    }

    #[test]
    fn pages_anchors_folders_and_code_are_not_broken_links() {
        let text = "[a](https://example.org/x) [b](#part) [c](adr/) [d](/README.md) `[e](gone.md)`\n```\n[f](gone.md)\n```\n";
        assert_eq!(broken(text), []);
    }

    #[test]
    fn a_record_that_the_index_forgot_is_found() {
        let index = document("docs/adr/README.md", "- [0001](0001-first.md)\n");
        let records = ["docs/adr/0001-first.md", "docs/adr/0002-second.md"].map(|path| document(path, ""));
        let found = decisions(&[index, records[0].clone(), records[1].clone()]);
        assert_eq!(
            found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(),
            [records[1].path.as_str()]
        );
    }

    #[test]
    fn a_number_that_was_given_twice_is_found() {
        let index = document("docs/adr/README.md", "[a](0001-a.md) [b](0001-b.md)");
        let found =
            decisions(&[index, document("docs/adr/0001-a.md", ""), document("docs/adr/0001-b.md", "")]);
        assert_eq!(
            found.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(),
            ["0001-a.md has the same number"]
        );
    }
}
