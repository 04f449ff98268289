//! Reads git-config(1) files: sections, keys, values with quotes, escapes, continuations and comments.
//!
//! Git stops at the first line it does not understand; this reader skips it and goes on. What is read decides
//! what gets protected, so a setting too many is the safe mistake. Includes are settings like any other here.

use std::rc::Rc;

/// One setting. Those of one section share its name: a section as long as half its file may have thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Section, in lower case.
    pub(super) section: Rc<[u8]>,
    /// What stands in quotes behind the section.
    pub(super) subsection: Option<Rc<[u8]>>,
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
        *self.section == *section.as_bytes() && self.key == key.as_bytes()
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
    let mut section: (Rc<[u8]>, Option<Rc<[u8]>>) = (Rc::from([]), None);
    let mut found = Vec::new();
    while let Some(byte) = cursor.peek() {
        match byte {
            b'#' | b';' => cursor.skip_line(),
            b'[' => match cursor.header() {
                Some((name, subsection)) => section = (name.into(), subsection.map(Rc::from)),
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

    /// The next byte of this line; its end stays where it is, for [`Cursor::skip_line`].
    fn next_in_line(&mut self) -> Option<u8> {
        let is_end = self.rest.starts_with(b"\n") || self.rest.starts_with(b"\r\n");
        if is_end { None } else { self.next() }
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
        let subsection = match self.next_in_line()? {
            b']' => {
                let mut parts = name.splitn(2, |&byte| byte == b'.');
                let section = parts.next()?.to_vec();
                return Some((section, parts.next().map(<[u8]>::to_vec)));
            }
            b'"' => self.subsection()?,
            _ => return None,
        };
        self.skip_blanks();
        (self.next_in_line()? == b']').then_some((name, Some(subsection)))
    }

    fn subsection(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        loop {
            match self.next_in_line()? {
                b'"' => return Some(name),
                b'\\' => name.push(self.next_in_line()?),
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

    use sandbar_testkit::{Samples, Took, fuzz};

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
        for refused in
            ["[x", "[x ", "[x \"", "[x \"y", "[x \"y\"", "[x \"\\", "[x\r", "[x \"\\\r", "x y", "="]
        {
            let text = format!("{refused}\n[core]\nhooksPath = h\n");
            assert_eq!(listed(&text).last().map(String::as_str), Some("core.hookspath\nh"), "{refused:?}");
        }
    }

    #[test]
    fn truth_is_what_git_takes_for_it() {
        for (text, expected) in
            [("[a]b", true), ("[a]b=", false), ("[a]b=No", false), ("[a]b=0", false), ("[a]b=2", true)]
        {
            assert_eq!(settings(text.as_bytes())[0].is_true(), expected, "{text}");
        }
    }

    /// `setting` as git itself writes one, with everything quoted that may be.
    fn written(setting: &Setting) -> Vec<u8> {
        let escaped = |text: &[u8], is_value: bool| -> Vec<u8> {
            let escape = |&byte: &u8| match byte {
                b'"' | b'\\' => vec![b'\\', byte],
                b'\n' if is_value => b"\\n".to_vec(),
                _ => vec![byte],
            };
            text.iter().flat_map(escape).collect()
        };
        let mut text = [b"[", &*setting.section].concat();
        if let Some(name) = &setting.subsection {
            text.extend([b" \"", &*escaped(name, false), b"\""].concat());
        }
        text.extend([b"]\n", &*setting.key].concat());
        if let Some(value) = &setting.value {
            text.extend([b" = \"", &*escaped(value, true), b"\"\n"].concat());
        }
        text
    }

    #[test]
    fn fuzz_settings_are_those_that_git_would_write_and_no_larger_than_their_file() {
        let samples = Samples {
            whole: &[
                b"[core]\n\tbare = false\n\thooksPath = .githooks\n",
                b"[include]\npath = \"a b\" # c\npath=a\\\\b\\\"c\n",
                b"[includeIf \"gitdir:~/x/\"]\n\tpath = \"x \" y  \n",
                b"\xef\xbb\xbf[a \"B \\\" c\"]\r\nk = one \\\n  two\n[a.B]\nk=v\n[x]k2 = \"#;\"\r\n; c\n",
            ],
            words: &[
                b"[",
                b"]",
                b"\"",
                b"\\",
                b"=",
                b"#",
                b";",
                b"\n",
                b"\r\n",
                b"\r",
                b" ",
                b".",
                b"a",
                b"[core]",
                b"hooksPath",
                b"[include]",
                b"path",
                b"\\\n",
                b"[s \"t\"]",
                b"k=v\n",
                b"k\n",
                b"\0",
            ],
        };
        fuzz("git config", samples, |input| {
            let found = settings(input);
            let own = |setting: &Setting| setting.key.len() + setting.value.as_ref().map_or(0, Vec::len);
            assert!(found.iter().map(own).sum::<usize>() <= input.len());
            for setting in &found {
                assert!(setting.key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'));
                let is_lower = |text: &[u8]| *text.to_ascii_lowercase() == *text;
                assert!(is_lower(&setting.key) && is_lower(&setting.section));
                // Before any section git allows no setting, and so it writes none. The old form of a subsection
                // can't be told from a section with a dot.
                let is_plain = !setting.section.is_empty() && !setting.section.contains(&b'.');
                let is_line = |text: Option<&[u8]>| !text.is_some_and(has_line_end);
                if is_plain && is_line(setting.subsection.as_deref()) && is_line(setting.value.as_deref()) {
                    assert_eq!(settings(&written(setting)), std::slice::from_ref(setting));
                }
            }
            // A backslash continues its line, whatever that is.
            let is_open = input.trim_ascii_end().ends_with(b"\\");
            let behind = if is_open { &b"\n\n"[..] } else { b"\n" };
            let last = settings(&[input, behind, b"[core]\nhooksPath = h\n"].concat()).pop();
            assert!(
                last.is_some_and(|last| last.is("core", "hookspath") && last.value.as_deref() == Some(b"h"))
            );
            Took::if_understood(!found.is_empty())
        });
    }

    /// A line's end within quotes is read as one, whatever git would have written.
    fn has_line_end(text: &[u8]) -> bool {
        text.contains(&b'\r')
    }

    #[test]
    fn a_long_section_with_many_keys_takes_no_more_memory_than_its_file() {
        let text =
            [b"[a \"", b"x".repeat(32 * 1024).as_slice(), b"\"]\n", &b"k\n".repeat(16 * 1024)].concat();
        let found = settings(&text);
        assert_eq!(found.len(), 16 * 1024);
        let shared = found.iter().all(|setting| Rc::ptr_eq(&setting.section, &found[0].section));
        let names: Vec<_> = found.iter().filter_map(|setting| setting.subsection.as_ref()).collect();
        assert!(shared && names.iter().all(|name| Rc::ptr_eq(name, names[0])) && names.len() == found.len());
    }
}
