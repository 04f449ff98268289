//! Path arithmetic that [`AbsPath`] leaves out because its answer depends on trust in the input.

use sandbar_proto::{AbsPath, AbsPathError};

/// `base` with a relative path of this crate appended.
///
/// # Panics
/// If `relative` has a `..` component or a NUL; it is a literal of this crate, never input.
pub(crate) fn below(base: &AbsPath, relative: &str) -> AbsPath {
    base.join(relative).expect("a literal relative path is clean")
}

/// `base` with a name of a directory listing appended, or `None` for a name no file system can have.
pub(crate) fn entry(base: &AbsPath, name: &[u8]) -> Option<AbsPath> {
    if name.is_empty() || name == b"." || name.contains(&b'/') {
        return None;
    }
    base.join(name).ok()
}

/// Reads `written` relative to `base` and takes `..` lexically.
///
/// The kernel follows symlinks before `..`, so the answer is a guess that the caller verifies by looking at what
/// it leads to; git writes such paths from real ones.
///
/// # Errors
/// See [`AbsPathError`].
pub(crate) fn lexical(base: &AbsPath, written: &[u8]) -> Result<AbsPath, AbsPathError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if written.first() != Some(&b'/') {
        parts.extend(base.components());
    }
    for part in written.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    let mut bytes = vec![b'/'];
    bytes.extend(parts.join(&b'/'));
    AbsPath::new(bytes)
}

/// The directories strictly between `above` and `path`, shallowest first.
pub(crate) fn between(above: &AbsPath, path: &AbsPath) -> Vec<AbsPath> {
    let mut found = Vec::new();
    let mut at = path.parent();
    while let Some(here) = at {
        if !here.starts_with(above) || here == *above {
            break;
        }
        at = here.parent();
        found.push(here);
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    #[test]
    fn relative_pointers_are_read_from_their_directory() {
        let cases = [
            ("../.git/modules/sub", "/r/.git/modules/sub"),
            ("/abs/x", "/abs/x"),
            (".", "/r/sub"),
            ("../../../..", "/"),
        ];
        for (written, expected) in cases {
            assert_eq!(lexical(&path("/r/sub"), written.as_bytes()), Ok(path(expected)));
        }
        assert!(lexical(&path("/r"), b"a\0b").is_err());
    }

    #[test]
    fn between_names_every_directory_that_could_be_renamed() {
        assert_eq!(between(&path("/r"), &path("/r/a/b/c")), [path("/r/a"), path("/r/a/b")]);
        assert_eq!(between(&path("/r"), &path("/r/a")), []);
        assert_eq!(between(&path("/"), &path("/a/b")), [path("/a")]);
    }

    #[test]
    fn a_name_that_is_a_path_is_no_entry() {
        assert_eq!(entry(&path("/r"), b"a"), Some(path("/r/a")));
        assert_eq!(
            [&b".."[..], b".", b"", b"a/b"].map(|name| entry(&path("/r"), name)),
            [None, None, None, None]
        );
    }

    #[test]
    fn fuzz_written_paths_become_clean_ones() {
        let samples = Samples {
            whole: &[b"../../../.git/modules/lib", b"/abs/olute", b"a/./b//c/", b"../../../../../..", b"."],
            words: &[b"/", b"..", b".", b"a", b"\0", b"../", b"//", b"..."],
        };
        let base = path("/home/u/proj");
        fuzz("written paths", samples, |input| {
            let found = lexical(&base, input);
            if let Ok(path) = &found {
                assert!(path.components().all(|part| !matches!(part, b"." | b"..")));
                assert_eq!(AbsPath::new(path.as_bytes()).as_ref(), Ok(path));
                assert_eq!(lexical(&AbsPath::root(), path.as_bytes()).as_ref(), Ok(path));
                assert!(path.as_bytes().len() <= base.as_bytes().len() + 1 + input.len());
            }
            assert_eq!(found.is_err(), input.contains(&0) && !is_dropped(input));
            if let Some(path) = entry(&base, input) {
                assert_eq!(path.parent().as_ref(), Some(&base));
            }
            Took::if_understood(found.is_ok())
        });
    }

    /// Whether a name with a NUL is taken back by a later `..`.
    fn is_dropped(written: &[u8]) -> bool {
        let marked: Vec<u8> = written.iter().map(|&byte| if byte < 2 { byte + 1 } else { byte }).collect();
        lexical(&AbsPath::root(), &marked).is_ok_and(|path| !path.as_bytes().contains(&1))
    }
}
