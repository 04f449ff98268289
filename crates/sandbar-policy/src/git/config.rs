//! Reads git-config(1) files: sections, keys, values with quotes, escapes, continuations and comments.
//!
//! Git stops at the first line it does not understand; this reader skips it and goes on. What is read decides
//! what gets protected, so a setting too many is the safe mistake. Includes are settings like any other here.

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Section, in lower case.
    pub(super) section: Vec<u8>,
    /// What stands in quotes behind the section.
    pub(super) subsection: Option<Vec<u8>>,
    /// Key, in lower case.
    pub(super) key: Vec<u8>,
    /// Value; `None` without `=`, which means true.
    pub(super) value: Option<Vec<u8>>,
}

impl Setting {
    /// The setting `name`, as git writes it outside of files: `section.key` or `section.subsection.key`.
    pub(super) fn named(name: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let first = name.iter().position(|&byte| byte == b'.')?;
        let last = name.iter().rposition(|&byte| byte == b'.')?;
        Some(Self {
            section: name[..first].to_ascii_lowercase(),
            subsection: (first < last).then(|| name[first + 1..last].to_vec()),
            key: name[last + 1..].to_ascii_lowercase(),
            value: value.map(<[u8]>::to_vec),
        })
    }

    /// Whether this is `section.key`, whatever the subsection.
    pub(super) fn is(&self, section: &str, key: &str) -> bool {
        self.section == section.as_bytes() && self.key == key.as_bytes()
    }

    /// Whether the value means true; what git would refuse does, too.
    pub(super) fn is_true(&self) -> bool {
        let Some(value) = &self.value else { return true };
        !matches!(value.to_ascii_lowercase().as_slice(), b"" | b"false" | b"no" | b"off" | b"0")
    }
}

/// Reads every setting of `text`, in order.
pub(super) fn settings(text: &[u8]) -> Vec<Setting> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut cursor = Cursor { rest: text };
    let mut section = (Vec::new(), None);
    let mut found = Vec::new();
    while let Some(byte) = cursor.peek() {
        match byte {
            b'#' | b';' => cursor.skip_line(),
            b'[' => match cursor.header() {
                Some(header) => section = header,
                None => cursor.skip_line(),
            },
            b if b.is_ascii_alphanumeric() => {
                let (key, value) = cursor.variable();
                let (section, subsection) = section.clone();
                found.push(Setting { section, subsection, key, value });
            }
            b if b.is_ascii_whitespace() => cursor.rest = &cursor.rest[1..],
            _ => cursor.skip_line(),
        }
    }
    found
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        // A line may end as on Windows.
        if first == b'\r' && self.peek() == Some(b'\n') {
            return self.next();
        }
        Some(first)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|byte| byte != b'\n') {}
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    }

    /// `[section]`, `[section "subsection"]`, or the old `[section.subsection]`.
    fn header(&mut self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        self.next();
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        let name = name.to_ascii_lowercase();
        self.skip_blanks();
        let subsection = match self.next()? {
            b']' => {
                let mut parts = name.splitn(2, |&byte| byte == b'.');
                let section = parts.next()?.to_vec();
                return Some((section, parts.next().map(<[u8]>::to_vec)));
            }
            b'"' => self.subsection()?,
            _ => return None,
        };
        self.skip_blanks();
        (self.next()? == b']').then_some((name, Some(subsection)))
    }

    fn subsection(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(name),
                b'\\' => name.push(self.next()?),
                b'\n' => return None,
                byte => name.push(byte),
            }
        }
    }

    fn variable(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'-').to_ascii_lowercase();
        self.skip_blanks();
        if self.peek() == Some(b'=') {
            self.next();
            self.skip_blanks();
            (key, Some(self.value()))
        } else {
            self.skip_line();
            (key, None)
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        // Blanks at the end do not count, unless they are quoted.
        let mut counted = 0;
        let mut is_quoted = false;
        while let Some(byte) = self.next() {
            match byte {
                b'\n' => break,
                b'"' => {
                    is_quoted = !is_quoted;
                    counted = value.len();
                    continue;
                }
                b'#' | b';' if !is_quoted => {
                    self.skip_line();
                    break;
                }
                b'\\' => match self.next() {
                    None => break,
                    Some(b'\n') => continue,
                    Some(b'n') => value.push(b'\n'),
                    Some(b't') => value.push(b'\t'),
                    Some(b'b') => value.push(8),
                    Some(other) => value.push(other),
                },
                b' ' | b'\t' | b'\r' if !is_quoted => {
                    value.push(byte);
                    continue;
                }
                other => value.push(other),
            }
            counted = value.len();
        }
        value.truncate(counted);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// `section[.subsection].key=value` for each setting, as `git config --list` names them.
    fn listed(text: &str) -> Vec<String> {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        settings(text.as_bytes())
            .iter()
            .map(|setting| {
                let subsection = setting.subsection.as_deref().map(|name| format!("{}.", show(name)));
                let value = setting.value.as_deref().map(|value| format!("\n{}", show(value)));
                format!(
                    "{}.{}{}{}",
                    show(&setting.section),
                    subsection.unwrap_or_default(),
                    show(&setting.key),
                    value.unwrap_or_default()
                )
            })
            .collect()
    }

    /// What the real git reads in `text`.
    fn git_config_list(text: &str) -> String {
        let mut git = Command::new("git")
            .args(["config", "--list", "-z", "--no-includes", "--file", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        git.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let out = git.wait_with_output().unwrap();
        assert!(out.status.success(), "{text}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn files_are_read_as_git_reads_them() {
        let texts = [
            "[core]\n\tbare = false\n\thooksPath = .githooks\n",
            "[Core] HooksPath=a ; comment\n[core]\nbare\n",
            "[include]\npath = \"a b\" # c\npath=a\\\\b\\\"c\n",
            "[includeIf \"gitdir:~/x/\"]\n\tpath = \"x \" y  \n",
            "[a \"B \\\" c\"]\nk = one \\\n  two\n",
            "[a.B]\nk=v\n[x]k2 = \"#;\"\r\n",
            "# nothing\n; nothing\n\n[s]\n\tlong-key = \t spaced\tout \t\n\te =\n",
        ];
        for text in texts {
            let expected = git_config_list(text);
            let expected: Vec<&str> = expected.split_terminator('\0').collect();
            assert_eq!(listed(text), expected, "{text}");
        }
    }

    #[test]
    fn a_line_that_git_would_refuse_hides_no_later_one() {
        assert_eq!(listed("[core\n=x\n[core]\n%%\nhooksPath = h\n"), ["core.hookspath\nh"]);
    }

    #[test]
    fn truth_is_what_git_takes_for_it() {
        for (text, expected) in
            [("[a]b", true), ("[a]b=", false), ("[a]b=No", false), ("[a]b=0", false), ("[a]b=2", true)]
        {
            assert_eq!(settings(text.as_bytes())[0].is_true(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(text: Vec<u8>) {
            settings(&text);
        }

        #[test]
        fn any_line_noise_ends(text in "[\\[\\]\"\\\\a=#; \n\r.]{0,60}") {
            settings(text.as_bytes());
        }
    }
}
