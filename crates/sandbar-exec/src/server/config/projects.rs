//! Which directories are projects that the user trusts: the only ones whose configuration counts.
//!
//! From the project's root down to the working directory, each is asked for by its own entry in `projects` of the
//! user's file, then by that of the root, then by that of the repository (for a worktree the main one's). A file in a
//! directory that the user never trusted is not even opened.

use sandbar_proto::AbsPath;
use toml_edit::{DocumentMut, Item, Table};

use crate::server::reading::Reading;

/// Most directories between the root of a project and the working directory.
const MAX_LEVELS: usize = 64;

/// Most bytes of the `.git` of a worktree.
const MAX_LINK_BYTES: usize = 4096;

/// Directories whose `.codex` counts, the outermost first.
pub(super) async fn folders(
    reading: &Reading<'_>,
    weakest_first: [&DocumentMut; 2],
    cwd: &AbsPath,
) -> Vec<AbsPath> {
    let trust = Trust(weakest_first.iter().rev().filter_map(|file| table(file, "projects")).collect());
    if trust.0.is_empty() {
        return Vec::new();
    }
    let markers = markers(weakest_first);
    let ancestors: Vec<AbsPath> =
        std::iter::successors(Some(cwd.clone()), AbsPath::parent).take(MAX_LEVELS).collect();
    let mut root = cwd.clone();
    'search: for folder in &ancestors {
        for marker in &markers {
            if is_marked(reading, folder, marker).await {
                root = folder.clone();
                break 'search;
            }
        }
    }
    let of_root = match trust.of(reading, &root).await {
        None => match repository(reading, &ancestors).await {
            Some(repository) => trust.of(reading, &repository).await,
            None => None,
        },
        said => said,
    };
    let mut trusted = Vec::new();
    for folder in ancestors.iter().rev().filter(|folder| folder.starts_with(&root)) {
        if trust.of(reading, folder).await.or(of_root) == Some(true) {
            trusted.push(folder.clone());
        }
    }
    trusted
}

fn table<'a>(file: &'a DocumentMut, key: &str) -> Option<&'a Table> {
    file.get(key).and_then(Item::as_table)
}

/// Names that mark the root of a project.
fn markers(weakest_first: [&DocumentMut; 2]) -> Vec<String> {
    let said = weakest_first.iter().rev().find_map(|file| file.get("project_root_markers")?.as_array());
    said.map_or_else(
        || vec![".git".to_owned()],
        |names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    )
}

/// Whether a folder has a marker; a `.git` that is no repository marks nothing.
async fn is_marked(reading: &Reading<'_>, folder: &AbsPath, marker: &str) -> bool {
    let Ok(at) = folder.join(marker) else { return false };
    match reading.metadata(&at).await {
        Ok(Some(found)) if marker == ".git" && found.is_directory => is_there(reading, &at, "HEAD").await,
        Ok(found) => found.is_some(),
        Err(_) => false,
    }
}

async fn is_there(reading: &Reading<'_>, folder: &AbsPath, name: &str) -> bool {
    let Ok(at) = folder.join(name) else { return false };
    matches!(reading.metadata(&at).await, Ok(Some(_)))
}

/// The innermost repository, for a worktree the main one.
async fn repository(reading: &Reading<'_>, innermost_first: &[AbsPath]) -> Option<AbsPath> {
    for folder in innermost_first {
        if is_marked(reading, folder, ".git").await {
            let at = folder.join(".git").ok()?;
            let Ok(Some(link)) = reading.text(&at, MAX_LINK_BYTES).await else { return Some(folder.clone()) };
            return Some(main_of(&link).unwrap_or_else(|| folder.clone()));
        }
    }
    None
}

/// The repository whose worktree a `.git` file belongs to (gitrepository-layout(5)).
fn main_of(link: &str) -> Option<AbsPath> {
    let git_dir = AbsPath::new(link.trim_end().strip_prefix("gitdir: ")?).ok()?;
    let worktrees = git_dir.parent()?;
    let common = worktrees.parent()?;
    let is_usual = worktrees.file_name() == Some(b"worktrees") && common.file_name() == Some(b".git");
    is_usual.then(|| common.parent()).flatten()
}

/// What files say about projects, the strongest first.
struct Trust<'a>(Vec<&'a Table>);

impl Trust<'_> {
    /// Whether a folder is trusted; nothing if nobody said.
    async fn of(&self, reading: &Reading<'_>, folder: &AbsPath) -> Option<bool> {
        match self.says(folder) {
            None => self.says(&reading.canonical(folder).await),
            said => said,
        }
    }

    fn says(&self, folder: &AbsPath) -> Option<bool> {
        let name = std::str::from_utf8(folder.as_bytes()).ok()?;
        let level = |table: &&Table| table.get(name)?.get("trust_level")?.as_str().map(str::to_owned);
        self.0.iter().find_map(level).map(|level| level == "trusted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worktree_belongs_to_its_main_repository() {
        let main = |link: &str| main_of(link).map(|path| path.to_display());
        assert_eq!(main("gitdir: /src/main/.git/worktrees/wt\n").as_deref(), Some("/src/main"));
        // Submodules are repositories of their own.
        assert_eq!(main("gitdir: ../.git/modules/sub\n"), None);
        assert_eq!(main("gitdir: /src/main/.git/modules/sub\n"), None);
        assert_eq!(main("nothing"), None);
    }

    #[test]
    fn the_strongest_file_that_says_something_about_a_project_is_right() {
        let file = |level: &str| {
            format!("[projects.\"/p\"]\ntrust_level = \"{level}\"\n").parse::<DocumentMut>().unwrap()
        };
        let (strong, weak) = (file("untrusted"), file("trusted"));
        let trust = Trust([&strong, &weak].iter().filter_map(|file| table(file, "projects")).collect());
        assert_eq!(trust.says(&AbsPath::new("/p").unwrap()), Some(false));
        assert_eq!(trust.says(&AbsPath::new("/q").unwrap()), None);
    }
}
