//! Where a path leads, for a policy that compares real paths.
//!
//! A path that does not exist is taken as far as it does: the symlinks of what exists count, also a last one that
//! leads to nothing, because whoever creates the path goes through them.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use sandbar_proto::AbsPath;

use crate::render::Problem;

/// Symlinks to nothing that are followed one after the other, as many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The real path.
    pub(crate) path: AbsPath,
    /// Whether something is there.
    pub(crate) exists: bool,
    /// Whether symlinks led elsewhere than the path as written says.
    pub(crate) through_links: bool,
}

/// Finds out where `asked` leads, from `cwd` on.
///
/// # Errors
/// It can't be looked up, or is no path.
pub(crate) fn place(asked: &Path, cwd: &Path) -> Result<Place, Problem> {
    let written = cwd.join(asked);
    let (real, exists) = follow(&written, MOST_LINKS).map_err(|what| {
        Problem::new(format!("could not find out where the path leads: {what}"))
            .at(asked.display().to_string().escape_debug())
            .advise("look at it with ls -ld; a symlink on the way may lead in a circle or be closed to you")
    })?;
    let path = absolute(&real)?;
    let through_links = AbsPath::new(written.into_os_string()).is_ok_and(|written| written != path);
    Ok(Place { path, exists, through_links })
}

fn absolute(real: &Path) -> Result<AbsPath, Problem> {
    AbsPath::new(real.as_os_str().to_owned())
        .map_err(|error| Problem::new(format!("could not use the path: {error}")))
}

/// The real path, and whether something is there.
fn follow(path: &Path, links: usize) -> Result<(PathBuf, bool), String> {
    match std::fs::canonicalize(path) {
        Ok(real) => return Ok((real, true)),
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(error.to_string());
        }
        Err(_) => {}
    }
    if let Ok(target) = std::fs::read_link(path) {
        // A link that leads to nothing.
        let links = links.checked_sub(1).ok_or("too many symlinks")?;
        let folder = path.parent().unwrap_or(path);
        return Ok((follow(&folder.join(target), links)?.0, false));
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok((follow(parent, links)?.0.join(name), false)),
        // What `..` means behind something that does not exist nobody can say.
        (_, _) => Err("it has a .. behind something that does not exist".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(directory.path()).unwrap();
        std::fs::create_dir(real.join("secret")).unwrap();
        std::fs::write(real.join("file"), "").unwrap();
        symlink("secret", real.join("link")).unwrap();
        symlink("secret/missing", real.join("dangling")).unwrap();
        symlink("round", real.join("round")).unwrap();
        (directory, real)
    }

    fn found(asked: &str, real: &Path) -> (String, bool, bool) {
        let place = place(Path::new(asked), real).unwrap();
        let shown = place.path.to_display();
        let below = shown.strip_prefix(&format!("{}/", real.display())).unwrap_or(&shown);
        (below.to_owned(), place.exists, place.through_links)
    }

    #[test]
    fn links_are_followed_as_far_as_there_is_something() {
        let (_directory, real) = folder();
        let table = [
            ("file", ("file", true, false)),
            ("./file", ("file", true, false)),
            ("link", ("secret", true, true)),
            ("link/new/deep", ("secret/new/deep", false, true)),
            ("new", ("new", false, false)),
            ("dangling", ("secret/missing", false, true)),
            ("dangling/below", ("secret/missing/below", false, true)),
            ("file/below", ("file/below", false, false)),
            ("/etc/../usr", ("/usr", true, false)),
        ];
        for (asked, (path, exists, through_links)) in table {
            assert_eq!(found(asked, &real), (path.to_owned(), exists, through_links), "{asked}");
        }
    }

    #[test]
    fn a_circle_and_a_parent_of_nothing_lead_nowhere() {
        let (_directory, real) = folder();
        for asked in ["round", "missing/../file"] {
            assert!(place(Path::new(asked), &real).is_err(), "{asked}");
        }
    }
}
