//! Why a path may or may not be touched, for `sandbar policy explain`.

use sandbar_proto::AbsPath;
use serde::Serialize;

use crate::{Access, EntryPath, Origin, Permissions};

/// What decides one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path that was asked about, as given.
    pub path: AbsPath,
    /// What may be done with it.
    pub access: Access,
    /// Who decided.
    pub decided_by: Origin,
    /// The path of the deciding line; of a pattern the directory that it begins at.
    pub under: AbsPath,
    /// The pattern of the deciding line, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// Says what may be done with `path` and which line of `permissions` decided it.
///
/// Compares paths as written: a caller with a file system resolves symlinks first, else a link into a hidden
/// directory would be explained by where the link lies.
#[must_use]
pub fn explain(permissions: &Permissions, path: &AbsPath) -> Explanation {
    let (access, entry) = permissions.access(path);
    let (decided_by, under) = match entry {
        Some(entry) => (entry.origin.clone(), entry.pattern.base().clone()),
        None => (Origin::Default("nothing is granted"), AbsPath::root()),
    };
    let pattern = entry.and_then(|entry| match &entry.pattern {
        EntryPath::Glob(glob) => Some(glob.to_display()),
        EntryPath::Path(_) => None,
    });
    Explanation { path: path.clone(), access, decided_by, under, pattern }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    #[test]
    fn the_deciding_line_is_named() {
        let entry = |at, access, origin| Entry { pattern: EntryPath::Path(path(at)), access, origin };
        let permissions = Permissions::new(vec![
            entry("/", Access::Read, Origin::profile("workspace")),
            entry("/home/u/.ssh", Access::None, Origin::Default("secrets")),
        ]);
        assert_eq!(
            explain(&permissions, &path("/home/u/.ssh/id_ed25519")),
            Explanation {
                path: path("/home/u/.ssh/id_ed25519"),
                access: Access::None,
                decided_by: Origin::Default("secrets"),
                under: path("/home/u/.ssh"),
                pattern: None,
            }
        );
    }

    #[test]
    fn a_policy_without_lines_grants_nothing() {
        let explanation = explain(&Permissions::default(), &path("/etc"));
        assert_eq!((explanation.access, explanation.under), (Access::None, AbsPath::root()));
    }

    #[test]
    fn an_explanation_is_readable_json() {
        let explanation = explain(&Permissions::default(), &path("/etc"));
        assert_eq!(
            serde_json::to_string(&explanation).unwrap(),
            r#"{"path":"/etc","access":"none","decided_by":{"by":"default","name":"nothing is granted"},"under":"/"}"#
        );
    }
}
