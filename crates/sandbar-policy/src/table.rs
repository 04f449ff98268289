//! Profiles that a person wrote: the tables `[permissions.NAME]`, and what they mean in one place on one machine.
//!
//! The shape is that of the peers (facts/sandbox.md §1.3): a place or pattern on the left, what may be done on the right, special
//! places with a colon before them. Without `extends` nothing is granted that is not written. Everything that would grant less or
//! more than its writer may have meant is an error with its line; only a special place that is not known is passed over, with a
//! word, since it is a newer program's.
//!
//! Pure: paths come as they are written, and what they lead to is found when a run is planned.

use sandbar_proto::{AbsPath, BadPathGlob, NetworkMode, PathGlob};

use crate::syscalls::Within;
use crate::{Access, Entry, EntryPath, GitMode, Note, Origin, Profile, Reads, Wanted, minimal};

/// A profile as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileTable {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub origin: Origin,
    /// The built-in profile that it adds to.
    pub extends: Option<Profile>,
    /// The network, if it says something.
    pub network: Option<NetworkMode>,
    /// How much of git may change, if it says something.
    pub git: Option<GitMode>,
    /// What it may do within its sandbox.
    pub within: Within,
    /// How many directories deep patterns are looked for.
    pub glob_depth: Option<u32>,
    /// Its lines.
    pub lines: Vec<TableLine>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLine {
    /// The place or pattern.
    pub place: String,
    /// What lies below it, where the place is a table of its own.
    pub below: Option<String>,
    /// What may be done.
    pub access: Access,
    /// Where it stands.
    pub origin: Origin,
}

/// What places relate to.
#[derive(Debug, Clone, Copy)]
pub struct TablePlaces<'a> {
    /// Where the command runs.
    pub cwd: &'a AbsPath,
    /// The home of whoever runs it.
    pub home: Option<&'a AbsPath>,
    /// Their `TMPDIR`.
    pub tmpdir: Option<&'a AbsPath>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {place:?} {problem}")]
pub struct TableError {
    /// Where it stands.
    pub origin: Origin,
    /// The place as written.
    pub place: String,
    /// What is wrong.
    pub problem: TableProblem,
}

/// See [`TableError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableProblem {
    /// It is neither absolute nor below the home, nor special.
    #[error("is no absolute path, none below ~, and no special place")]
    Relative,
    /// It is below the home of somebody without one.
    #[error("lies below ~, and there is no home directory")]
    NoHome,
    /// Somebody else's home.
    #[error("names another user's home, which is not looked up; write the path")]
    OtherHome,
    /// It has a `..` or a NUL.
    #[error("is no path: {0}")]
    Path(String),
    /// What is to lie below a place does not.
    #[error("leads out of its place")]
    LeadsOut,
    /// It is no pattern.
    #[error("is no pattern: {0}")]
    Pattern(BadPathGlob),
    /// A pattern that grants something.
    #[error("is a pattern, and patterns can only be `none`; `/**` at the end stands for everything below")]
    PatternGrants,
    /// A special place that is not known is to be hidden.
    #[error("is a place that is not known here, and so can't be hidden")]
    UnknownHidden,
    /// A special place that has nothing below it, or can't be used like this.
    #[error("can't be used like this: only read or none, and nothing below it")]
    Special,
}

impl ProfileTable {
    /// What the profile means there.
    ///
    /// # Errors
    /// The first line that means nothing.
    pub fn wanted(&self, places: TablePlaces<'_>) -> Result<Wanted, TableError> {
        let base = self.extends.unwrap_or(Profile::ReadOnly);
        let mut wanted = Wanted { called: Some(self.name.clone()), ..Wanted::of(base) };
        wanted.network = self.network.unwrap_or(wanted.network);
        wanted.git = self.git.unwrap_or(wanted.git);
        wanted.within = self.within;
        if self.extends.is_none() {
            wanted.reads = Reads::Named { origin: self.origin.clone() };
        }
        for line in &self.lines {
            self.add(&mut wanted, line, places)?;
        }
        // At equal length none wins.
        let hides_root = wanted
            .entries
            .iter()
            .any(|entry| entry.pattern == EntryPath::Path(AbsPath::root()) && entry.access == Access::None);
        if hides_root {
            let origin = self.origin.clone();
            wanted.reads = Reads::Named { origin };
        }
        Ok(wanted)
    }

    fn add(&self, wanted: &mut Wanted, line: &TableLine, places: TablePlaces<'_>) -> Result<(), TableError> {
        let wrong = |problem| TableError {
            origin: line.origin.clone(),
            place: line.below.clone().unwrap_or_else(|| line.place.clone()),
            problem,
        };
        let place = match line.place.strip_prefix(':') {
            None => {
                let path = written_path(&line.place, places.home).map_err(wrong)?;
                Some(path)
            }
            Some("root") => Some("/".into()),
            Some("minimal") => {
                if line.access == Access::Write || line.below.is_some() {
                    return Err(wrong(TableProblem::Special));
                }
                if line.access == Access::Read {
                    wanted.entries.extend(minimal::entries(&line.origin));
                }
                return Ok(());
            }
            Some("project_roots" | "workspace_roots" | "cwd") => Some(escaped(places.cwd)),
            // Every run has its own.
            Some("slash_tmp") if line.access == Access::Write && line.below.is_none() => return Ok(()),
            Some("slash_tmp") => Some("/tmp".into()),
            Some("tmpdir") => match places.tmpdir {
                Some(tmpdir) if is_temporary(tmpdir) && line.access == Access::Write => return Ok(()),
                Some(tmpdir) => Some(escaped(tmpdir)),
                None => return Ok(()),
            },
            Some(_) => None,
        };
        if place.is_none() && line.access == Access::None {
            // Whatever it is, it can't be kept from anybody.
            return Err(wrong(TableProblem::UnknownHidden));
        }
        let Some(place) = place else {
            wanted.notes.push(Note::UnknownPlace { place: line.place.clone() });
            return Ok(());
        };
        let text = match line.below.as_deref() {
            None | Some(".") => place,
            Some(below) => {
                let leads_out = below.starts_with('/') || below.split('/').any(|part| part == "..");
                if leads_out || below.is_empty() {
                    return Err(wrong(TableProblem::LeadsOut));
                }
                [place.as_slice(), b"/", below.as_bytes()].concat()
            }
        };
        let pattern = self.pattern(&text, line.access).map_err(wrong)?;
        if pattern == EntryPath::Path(AbsPath::root()) && line.access == Access::Read {
            wanted.reads = Reads::Everything;
        }
        wanted.entries.push(Entry { pattern, access: line.access, origin: line.origin.clone() });
        Ok(())
    }

    /// What a whole text covers: a path, or a pattern that denies.
    fn pattern(&self, text: &[u8], access: Access) -> Result<EntryPath, TableProblem> {
        // A place and everything below it is what every path means.
        let text = text.strip_suffix(b"/**").filter(|rest| !rest.is_empty()).unwrap_or(text);
        let glob = match PathGlob::new(text) {
            Ok(glob) => glob,
            Err(BadPathGlob::Everything) => return Ok(EntryPath::Path(AbsPath::root())),
            Err(BadPathGlob::Relative) => return Err(TableProblem::Relative),
            Err(error @ (BadPathGlob::Parent | BadPathGlob::Nul)) => {
                return Err(TableProblem::Path(error.to_string()));
            }
            Err(error) => return Err(TableProblem::Pattern(error)),
        };
        if let Some(path) = glob.only_path() {
            return Ok(EntryPath::Path(path));
        }
        match access {
            Access::None => Ok(EntryPath::Glob(glob.within_depth(self.glob_depth))),
            Access::Read | Access::Write => Err(TableProblem::PatternGrants),
        }
    }
}

/// Whether a temporary directory is one that every run has of its own.
fn is_temporary(path: &AbsPath) -> bool {
    matches!(path.as_bytes(), b"/tmp" | b"/var/tmp")
}

/// A path as text of a pattern that covers exactly it.
fn escaped(path: &AbsPath) -> Vec<u8> {
    PathGlob::literal(path).map_or_else(|| b"/".to_vec(), |glob| glob.as_bytes().to_vec())
}

fn written_path(text: &str, home: Option<&AbsPath>) -> Result<Vec<u8>, TableProblem> {
    let Some(rest) = text.strip_prefix('~') else {
        return if text.starts_with('/') { Ok(text.into()) } else { Err(TableProblem::Relative) };
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(TableProblem::OtherHome);
    }
    let home = home.ok_or(TableProblem::NoHome)?;
    Ok([escaped(home).as_slice(), rest.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::path;

    fn at(line: u32) -> Origin {
        Origin::Line { file: "c.toml".into(), line }
    }

    fn table(lines: &[(&str, Option<&str>, Access)]) -> ProfileTable {
        let lines = lines.iter().zip(2..).map(|((place, below, access), number)| TableLine {
            place: (*place).to_owned(),
            below: below.map(str::to_owned),
            access: *access,
            origin: at(number),
        });
        ProfileTable {
            name: "mine".to_owned(),
            origin: at(1),
            extends: None,
            network: None,
            git: None,
            within: Within::default(),
            glob_depth: None,
            lines: lines.collect(),
        }
    }

    fn wanted(table: &ProfileTable) -> Result<Wanted, TableProblem> {
        let (cwd, home, tmpdir) = (path("/w/a[1]"), path("/home/u"), path("/t"));
        let places = TablePlaces { cwd: &cwd, home: Some(&home), tmpdir: Some(&tmpdir) };
        table.wanted(places).map_err(|error| error.problem)
    }

    fn entries(lines: &[(&str, Option<&str>, Access)]) -> Vec<(String, Access)> {
        let wanted = wanted(&table(lines)).unwrap();
        wanted.entries.iter().map(|entry| (entry.pattern.to_string(), entry.access)).collect()
    }

    const NONE: Access = Access::None;
    const READ: Access = Access::Read;
    const WRITE: Access = Access::Write;

    #[test]
    fn places_are_paths_homes_and_special_names() {
        let table: [(&str, Option<&str>, Access, &str); 13] = [
            ("/data", None, WRITE, "/data"),
            ("/data/**", None, WRITE, "/data"),
            ("~", None, READ, "/home/u"),
            ("~/x", None, READ, "/home/u/x"),
            (":root", None, READ, "/"),
            (":project_roots", None, WRITE, "/w/a[1]"),
            (":workspace_roots", Some("."), WRITE, "/w/a[1]"),
            (":cwd", Some("docs/x"), READ, "/w/a[1]/docs/x"),
            (":cwd", Some("**/*.env"), NONE, "/w/a[[]1[]]/**/*.env"),
            (":tmpdir", None, WRITE, "/t"),
            (":slash_tmp", Some("x"), READ, "/tmp/x"),
            ("~/**/*.pem", None, NONE, "/home/u/**/*.pem"),
            ("/a[b]", None, READ, "/ab"),
        ];
        for (place, below, access, expected) in table {
            assert_eq!(
                entries(&[(place, below, access)]),
                [(expected.to_owned(), access)],
                "{place} {below:?}"
            );
        }
        assert_eq!(entries(&[(":slash_tmp", None, WRITE)]), [], "every run has its own");
        assert!(entries(&[(":minimal", None, READ)]).contains(&("/usr".to_owned(), READ)));
    }

    #[test]
    fn what_means_nothing_is_an_error_with_its_line() {
        let refused = |place, below, access| wanted(&table(&[(place, below, access)])).unwrap_err();
        assert_eq!(refused("data", None, READ), TableProblem::Relative);
        assert_eq!(refused("~v/x", None, READ), TableProblem::OtherHome);
        assert_eq!(refused(":moon", None, NONE), TableProblem::UnknownHidden);
        assert!(matches!(refused("/a/../b", None, READ), TableProblem::Path(_)));
        assert_eq!(refused(":cwd", Some("../x"), READ), TableProblem::LeadsOut);
        assert_eq!(refused(":cwd", Some("/x"), READ), TableProblem::LeadsOut);
        assert_eq!(refused("/data/*.x", None, READ), TableProblem::PatternGrants);
        assert_eq!(refused(":minimal", None, WRITE), TableProblem::Special);
        assert_eq!(refused("/a/{b,c}", None, NONE), TableProblem::Pattern(BadPathGlob::Character(b'{')));
        let (cwd, bad) = (path("/w"), table(&[("/ok", None, READ), ("bad", None, READ)]));
        let error = bad.wanted(TablePlaces { cwd: &cwd, home: None, tmpdir: None }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "c.toml:3: \"bad\" is no absolute path, none below ~, and no special place"
        );
    }

    #[test]
    fn nothing_is_granted_that_is_not_written() {
        let empty = wanted(&table(&[])).unwrap();
        assert_eq!((empty.profile, &empty.reads), (Profile::ReadOnly, &Reads::Named { origin: at(1) }));
        assert_eq!((empty.network, empty.called.as_deref()), (NetworkMode::Off, Some("mine")));
        assert_eq!(wanted(&table(&[(":root", None, READ)])).unwrap().reads, Reads::Everything);
        let both = wanted(&table(&[(":root", None, READ), ("/", None, NONE)])).unwrap();
        assert_ne!(both.reads, Reads::Everything);
    }

    #[test]
    fn a_profile_adds_to_the_one_that_it_extends() {
        let mut mine = table(&[("/data", None, WRITE)]);
        mine.extends = Some(Profile::Workspace);
        mine.network = Some(NetworkMode::On);
        mine.git = Some(GitMode::Protect);
        let wanted = wanted(&mine).unwrap();
        assert_eq!((wanted.profile, wanted.reads), (Profile::Workspace, Reads::Everything));
        assert_eq!((wanted.network, wanted.git), (NetworkMode::On, GitMode::Protect));
    }

    #[test]
    fn an_unknown_special_place_grants_nothing_and_is_said() {
        let wanted = wanted(&table(&[(":moon", None, WRITE)])).unwrap();
        assert!(wanted.entries.is_empty());
        assert_eq!(wanted.notes, [Note::UnknownPlace { place: ":moon".to_owned() }]);
    }

    #[test]
    fn patterns_are_looked_for_as_deep_as_it_says() {
        let mut mine = table(&[("/w/**/x", None, NONE)]);
        mine.glob_depth = Some(4);
        let EntryPath::Glob(glob) = &wanted(&mine).unwrap().entries[0].pattern else { panic!("a path") };
        assert_eq!(glob.max_depth(), Some(4));
    }
}
