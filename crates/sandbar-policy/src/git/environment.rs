//! What the environment says to the git of whoever starts a run, and will use git afterwards: git(1), git-config(1).
//!
//! Another shell may lack these variables, so what they replace counts as well.

use sandbar_proto::AbsPath;

use super::config::Setting;
use crate::grants::Draft;
use crate::paths::{below, lexical};

/// Most settings that are read from the environment; git has no bound.
const MAX_SETTINGS: usize = 4096;

fn variable<'a>(draft: &Draft<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let vars = &draft.request.git_env;
    let found = vars.iter().rev().find(|var| var.name.as_bytes() == name);
    found.map(|var| var.value.as_bytes()).filter(|value| !value.is_empty())
}

/// The path that a variable names; relative ones start at the working directory, as for the caller's own git.
pub(super) fn path(draft: &Draft<'_>, name: &str) -> Option<AbsPath> {
    lexical(&draft.request.cwd, variable(draft, name.as_bytes())?).ok()
}

/// The configuration files of the users whose git counts.
pub(super) fn configuration_files(draft: &Draft<'_>) -> Vec<AbsPath> {
    let mut files = Vec::new();
    for home in &draft.git_homes {
        files.push(below(home, ".gitconfig"));
        files.push(below(home, ".config/git/config"));
    }
    files.extend(path(draft, "XDG_CONFIG_HOME").map(|base| below(&base, "git/config")));
    files.extend(path(draft, "GIT_CONFIG_GLOBAL"));
    files.extend(path(draft, "GIT_CONFIG_SYSTEM"));
    files
}

/// The configuration of the machine: where a git of the distribution looks, and one that was built here.
pub(super) fn configuration_of_machine() -> [AbsPath; 2] {
    ["etc/gitconfig", "usr/local/etc/gitconfig"].map(|file| below(&AbsPath::root(), file))
}

/// The settings in the environment: numbered ones, and those that `git -c` passes on.
pub(super) fn settings(draft: &Draft<'_>) -> Vec<Setting> {
    let count = variable(draft, b"GIT_CONFIG_COUNT").and_then(|count| std::str::from_utf8(count).ok());
    let count = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0_usize).min(MAX_SETTINGS);
    let numbered = (0..count).filter_map(|number| {
        let key = variable(draft, format!("GIT_CONFIG_KEY_{number}").as_bytes())?;
        let value = variable(draft, format!("GIT_CONFIG_VALUE_{number}").as_bytes())?;
        Setting::named(key, Some(value))
    });
    let passed_on = variable(draft, b"GIT_CONFIG_PARAMETERS").map(parameters).unwrap_or_default();
    numbered.chain(passed_on).collect()
}

/// Reads `GIT_CONFIG_PARAMETERS`: words in single quotes, `'key=value'` or `'key'='value'`.
fn parameters(text: &[u8]) -> Vec<Setting> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = quoted(rest) {
        let assigned = after.strip_prefix(b"=").map(|after| quoted(after).unwrap_or((Vec::new(), after)));
        let (setting, after) = match assigned {
            Some((value, after)) => (Setting::named(&key, Some(&value)), after),
            None => {
                let equals = key.iter().position(|&byte| byte == b'=');
                let (name, value) =
                    equals.map_or((key.as_slice(), None), |at| (&key[..at], Some(&key[at + 1..])));
                (Setting::named(name, value), after)
            }
        };
        found.extend(setting);
        rest = after;
    }
    found
}

/// The word in single quotes at the beginning, and what follows it. Outside the quotes a backslash takes the next byte
/// as it is.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.trim_ascii_start().strip_prefix(b"'")?;
    let mut word = Vec::new();
    loop {
        let end = rest.iter().position(|&byte| byte == b'\'')?;
        word.extend(&rest[..end]);
        rest = &rest[end + 1..];
        match rest {
            [b'\\', byte, b'\'', after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            _ => return Some((word, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_git_passes_on_are_read_in_both_its_forms() {
        let setting = |name: &str, value: Option<&str>| {
            Setting::named(name.as_bytes(), value.map(str::as_bytes)).unwrap()
        };
        let text = br"'core.hooksPath=a=b' 'includeIf.gitdir:~/x.y/.path'='it'\''s' 'core.bare'";
        let expected = [
            setting("core.hookspath", Some("a=b")),
            setting("includeif.gitdir:~/x.y/.path", Some("it's")),
            setting("core.bare", None),
        ];
        assert_eq!(parameters(text), expected);
        assert_eq!(parameters(b"'cut"), []);
        assert_eq!(parameters(b"noise"), []);
    }
}
