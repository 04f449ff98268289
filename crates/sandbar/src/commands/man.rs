//! `sandbar man`: manual pages, made from the definition of the commands.

use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::cli::{Cli, ManArgs};
use crate::render::Problem;
use crate::{exit, output};

/// Prints one page, or writes all of them.
///
/// # Errors
/// There is no such command, or a page can't be written.
pub(super) fn execute(args: &ManArgs) -> Result<u8, Problem> {
    let pages = pages();
    if let Some(directory) = &args.dir {
        return write_all(directory, &pages);
    }
    let name = ["sandbar"].into_iter().chain(args.path.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join("-");
    let page = pages.iter().find(|page| page.name == name).ok_or_else(|| {
        Problem::new(format!("there is no command `sandbar {}`", args.path.join(" ")))
            .advise("`sandbar --help` lists them")
            .status(exit::USAGE)
    })?;
    output::print(render(page).map_err(|error| Problem::new(format!("could not make the page: {error}")))?)
}

fn write_all(directory: &Path, pages: &[Page]) -> Result<u8, Problem> {
    let failed = |path: &Path, error: std::io::Error| {
        Problem::new(format!("could not write a manual page: {error}"))
            .at(path.display())
            .advise("name a directory that may be written")
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        let written = render(page).and_then(|text| std::fs::write(&path, text));
        written.map_err(|error| failed(&path, error))?;
    }
    Ok(exit::OK)
}

/// A command that has a page.
struct Page {
    /// `sandbar-policy-show`
    name: String,
    command: Command,
}

fn pages() -> Vec<Page> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    collect(&root, "", &mut pages);
    pages
}

fn collect(command: &Command, above: &str, pages: &mut Vec<Page>) {
    let name = match above {
        "" => command.get_name().to_owned(),
        above => format!("{above}-{}", command.get_name()),
    };
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, &name, pages);
    }
    pages.push(Page { name, command: command.clone() });
}

fn render(page: &Page) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let source = concat!("sandbar ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(page.command.clone()).title(page.name.clone()).source(source).render(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_nothing_hidden_has() {
        let names: Vec<String> = pages().into_iter().map(|page| page.name).collect();
        for name in ["sandbar", "sandbar-run", "sandbar-policy-explain", "sandbar-doctor"] {
            assert!(names.contains(&name.to_owned()), "{name} is missing in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("keeper")), "{names:?}");
    }

    #[test]
    fn a_page_names_its_options_and_how_it_is_called() {
        let page = pages().into_iter().find(|page| page.name == "sandbar-run").unwrap();
        let text = String::from_utf8(render(&page).unwrap()).unwrap();
        for part in [".TH sandbar-run 1", "allow\\-write", "Exit status"] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}
