//! The sandbox that a client of the exec server asks for, in this crate's words.
//!
//! Understands what the peers' clients send: the profile of 0.169, the pair before it, and the legacy policies before that. What
//! it can't express is a refusal that names the line; nothing is ignored, and nothing weaker is made of it. Where our own
//! rules are stricter (protected names, secrets, our own files) they hold besides.

mod legacy;

use sandbar_proto::exec::{
    FileSystemPolicy, FileSystemSandbox, LegacyPolicy, ManagedEntry, ManagedPath, MissingPath, NetworkPolicy,
    PermissionProfile, SpecialPath, SplitFileSystem, SplitKind, WireAccess,
};
use sandbar_proto::{AbsPath, BadPathGlob, NetworkMode, PathGlob};

use crate::paths::below;
use crate::{
    Access, CarveOut, Entry, EntryPath, GitMode, Left, Note, Origin, Profile, Reads, Wanted, minimal,
};

pub use legacy::{of_legacy, to_legacy};

/// What such a sandbox is called where a profile's name is shown.
pub const NAME: &str = "managed";

/// Why a client can't have the sandbox it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    /// All files with a restricted network, or the other way round.
    #[error("a sandbox of the network without one of the files is not supported")]
    NetworkOnly,
    /// The root is writable.
    #[error("a profile in which `root` may be written is no sandbox: ask for none")]
    Root,
    /// A glob that grants something.
    #[error("the pattern {pattern:?} can only deny")]
    GlobGrants {
        /// It.
        pattern: String,
    },
    /// A glob that is none.
    #[error("the pattern {pattern:?} can't be read: {because}")]
    Glob {
        /// It.
        pattern: String,
        /// Why not.
        because: BadPathGlob,
    },
    /// A place that can only be read.
    #[error("the place `{name}` can only be read")]
    Place {
        /// Its name.
        name: &'static str,
    },
    /// Patterns are to be looked for nowhere.
    #[error("`glob_scan_max_depth` must be a number from 1: patterns would cover nothing")]
    Depth,
    /// A place that is not known is to be hidden.
    #[error("a place that is not known here can't be hidden")]
    UnknownPlace,
    /// A path below the roots that leads elsewhere.
    #[error("{subpath:?} is no path below a root")]
    Subpath {
        /// It.
        subpath: String,
    },
    /// An older mechanism is asked for.
    #[error("`useLegacyLandlock` is not supported")]
    LegacyLandlock,
    /// More temporary directories than this executor says that it has.
    #[error("`temporaryDirectories` is not supported: this executor announces none")]
    TemporaryDirectories,
}

/// What the special places of a client stand for on this executor.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Where the command runs.
    pub cwd: &'a AbsPath,
    /// The executor's `TMPDIR`, if it has one.
    pub tmpdir: Option<&'a AbsPath>,
}

/// Reads what a client of 0.169 sends.
///
/// # Errors
/// [`ManagedError`].
pub fn read(sandbox: &FileSystemSandbox, places: Places<'_>) -> Result<Wanted, ManagedError> {
    if sandbox.use_legacy_landlock {
        return Err(ManagedError::LegacyLandlock);
    }
    if !sandbox.temporary_directories.is_empty() {
        return Err(ManagedError::TemporaryDirectories);
    }
    let context = sandbox.policy_context.as_ref();
    let named = context.and_then(|context| context.cwd.as_ref()).or(sandbox.cwd.as_ref());
    let cwd = named.map_or(places.cwd, |cwd| &cwd.0);
    let roots = context.map_or(&sandbox.workspace_roots, |context| &context.workspace_roots);
    let roots: Vec<&AbsPath> = roots.iter().map(|root| &root.0).collect();
    read_profile(&sandbox.permissions, &roots, Places { cwd, ..places })
}

/// Reads a profile whose workspace roots are `roots`, or the working directory where there are none.
///
/// # Errors
/// [`ManagedError`].
pub fn read_profile(
    profile: &PermissionProfile,
    roots: &[&AbsPath],
    places: Places<'_>,
) -> Result<Wanted, ManagedError> {
    match profile {
        PermissionProfile::Disabled => Ok(Wanted::of(Profile::DangerFullAccess)),
        PermissionProfile::External { network } => {
            Ok(Wanted { network: mode(*network), ..Wanted::of(Profile::External) })
        }
        PermissionProfile::Managed { file_system: FileSystemPolicy::Unrestricted, network } => {
            match network {
                NetworkPolicy::Enabled => Ok(Wanted::of(Profile::DangerFullAccess)),
                NetworkPolicy::Restricted => Err(ManagedError::NetworkOnly),
            }
        }
        PermissionProfile::Managed {
            file_system: FileSystemPolicy::Restricted { entries, glob_scan_max_depth },
            network,
        } => {
            let roots = if roots.is_empty() { vec![places.cwd] } else { roots.to_vec() };
            let named = Named { cwd: places.cwd, roots, tmpdir: places.tmpdir };
            restricted(entries, *glob_scan_max_depth, mode(*network), &named)
        }
    }
}

/// The profile that a pair of policies means.
#[must_use]
pub fn of_split(files: SplitFileSystem, network: NetworkPolicy) -> PermissionProfile {
    let file_system = match files.kind {
        SplitKind::ExternalSandbox => return PermissionProfile::External { network },
        SplitKind::Unrestricted => FileSystemPolicy::Unrestricted,
        SplitKind::Restricted => FileSystemPolicy::Restricted {
            entries: files.entries,
            glob_scan_max_depth: files.glob_scan_max_depth,
        },
    };
    PermissionProfile::Managed { file_system, network }
}

/// Reads the legacy shape. Every one of them means something here.
///
/// # Errors
/// [`ManagedError`]: none of those that there are.
pub fn read_legacy(policy: &LegacyPolicy, places: Places<'_>) -> Result<Wanted, ManagedError> {
    read_profile(&of_legacy(policy, places.cwd), &[], places)
}

fn mode(network: NetworkPolicy) -> NetworkMode {
    match network {
        NetworkPolicy::Restricted => NetworkMode::Off,
        NetworkPolicy::Enabled => NetworkMode::On,
    }
}

fn slash_tmp() -> AbsPath {
    below(&AbsPath::root(), "tmp")
}

/// The special places with their paths.
struct Named<'a> {
    cwd: &'a AbsPath,
    roots: Vec<&'a AbsPath>,
    tmpdir: Option<&'a AbsPath>,
}

/// What a line is about.
enum Meant {
    Paths(Vec<AbsPath>),
    Pattern(PathGlob),
    Minimal,
    /// Nothing that is known.
    Unknown,
}

impl Named<'_> {
    fn meant(&self, path: &ManagedPath) -> Result<Meant, ManagedError> {
        Ok(match path {
            ManagedPath::Path { path } => Meant::Paths(vec![path.0.clone()]),
            ManagedPath::GlobPattern { pattern } => self.pattern(pattern)?,
            ManagedPath::Special { value } => match value {
                SpecialPath::Root => Meant::Paths(vec![AbsPath::root()]),
                SpecialPath::Minimal => Meant::Minimal,
                SpecialPath::CurrentWorkingDirectory => Meant::Paths(vec![self.cwd.clone()]),
                SpecialPath::ProjectRoots { subpath: None } => {
                    Meant::Paths(self.roots.iter().map(|root| (*root).clone()).collect())
                }
                SpecialPath::ProjectRoots { subpath: Some(subpath) } => {
                    let wrong = || ManagedError::Subpath { subpath: subpath.clone() };
                    if subpath.starts_with('/') || subpath.is_empty() {
                        return Err(wrong());
                    }
                    let joined = self.roots.iter().map(|root| root.join(subpath).map_err(|_| wrong()));
                    Meant::Paths(joined.collect::<Result<_, _>>()?)
                }
                SpecialPath::Tmpdir => Meant::Paths(self.tmpdir.into_iter().cloned().collect()),
                SpecialPath::SlashTmp => Meant::Paths(vec![slash_tmp()]),
                SpecialPath::Unknown => Meant::Unknown,
            },
        })
    }

    /// A relative pattern is taken from the working directory.
    fn pattern(&self, pattern: &str) -> Result<Meant, ManagedError> {
        let glob = if pattern.starts_with('/') {
            PathGlob::new(pattern)
        } else {
            PathGlob::below(self.cwd, pattern)
        };
        let glob = glob.map_err(|because| ManagedError::Glob { pattern: pattern.to_owned(), because })?;
        Ok(Meant::Pattern(glob))
    }
}

fn restricted(
    entries: &[ManagedEntry],
    glob_depth: Option<u32>,
    network: NetworkMode,
    named: &Named<'_>,
) -> Result<Wanted, ManagedError> {
    if glob_depth == Some(0) {
        return Err(ManagedError::Depth);
    }
    let mut wanted = Wanted { network, ..Wanted::of(Profile::ReadOnly) };
    let mut root_is_readable = false;
    let mut reads_minimum = false;
    for entry in entries {
        match named.meant(&entry.path)? {
            Meant::Paths(paths) => {
                for path in paths {
                    match (path == AbsPath::root(), entry.access) {
                        (false, _) => add(&mut wanted, entry, path),
                        (true, WireAccess::Read) => root_is_readable = true,
                        // What nobody reopens is not granted anyway.
                        (true, WireAccess::None) => {}
                        (true, WireAccess::Write) => return Err(ManagedError::Root),
                    }
                }
            }
            Meant::Pattern(glob) if entry.access == WireAccess::None => wanted.entries.push(Entry {
                pattern: EntryPath::Glob(glob.within_depth(glob_depth)),
                access: Access::None,
                origin: Origin::profile(NAME),
            }),
            Meant::Pattern(glob) => {
                return Err(ManagedError::GlobGrants { pattern: glob.to_display() });
            }
            Meant::Minimal if entry.access == WireAccess::Read => reads_minimum = true,
            Meant::Minimal if entry.access == WireAccess::None => {}
            Meant::Minimal => return Err(ManagedError::Place { name: "minimal" }),
            // Whatever it is, it can't be kept from anybody.
            Meant::Unknown if entry.access == WireAccess::None => return Err(ManagedError::UnknownPlace),
            Meant::Unknown => wanted.notes.push(Note::UnknownPlace { place: "unknown".to_owned() }),
        }
    }
    let denies_root = entries.iter().any(|entry| {
        entry.access == WireAccess::None
            && matches!(&entry.path, ManagedPath::Special { value: SpecialPath::Root })
    });
    if !root_is_readable || denies_root {
        wanted.reads = Reads::Named { origin: Origin::profile(NAME) };
        if reads_minimum {
            wanted.entries.extend(minimal::entries(&Origin::profile(NAME)));
        }
    }
    // Between lines of one path the strictest counts: none beats write beats read.
    let is_written = |path: &AbsPath, wanted: &Wanted| {
        wanted.allow_write.contains(path) || wanted.may_write.contains(path)
    };
    let carve_outs = std::mem::take(&mut wanted.carve_outs);
    wanted.carve_outs = carve_outs
        .into_iter()
        .filter(|line| line.left == Left::Nothing || !is_written(&line.path, &wanted))
        .collect();
    let hidden: Vec<AbsPath> = wanted
        .carve_outs
        .iter()
        .filter(|line| line.left == Left::Nothing)
        .map(|line| line.path.clone())
        .collect();
    wanted.allow_write.retain(|path| !hidden.contains(path));
    wanted.may_write.retain(|path| !hidden.contains(path));
    Ok(wanted)
}

fn add(wanted: &mut Wanted, entry: &ManagedEntry, path: AbsPath) {
    let may_be_missing = entry.missing_path_behavior == Some(MissingPath::Skip)
        || matches!(&entry.path, ManagedPath::Special { value: SpecialPath::Tmpdir | SpecialPath::SlashTmp });
    match entry.access {
        WireAccess::Write if may_be_missing => wanted.may_write.push(path),
        WireAccess::Write => wanted.allow_write.push(path),
        WireAccess::Read | WireAccess::None => {
            if path.file_name() == Some(b".git") {
                wanted.git = GitMode::Protect;
            }
            wanted.carve_outs.push(CarveOut {
                path,
                left: if entry.access == WireAccess::Read { Left::Read } else { Left::Nothing },
                reserve: entry.missing_path_behavior == Some(MissingPath::Protect),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::path;
    use sandbar_proto::exec::{PolicyContext, ReadOnlyAccess, WirePath};

    fn line(value: SpecialPath, access: WireAccess) -> ManagedEntry {
        ManagedEntry { path: ManagedPath::Special { value }, access, missing_path_behavior: None }
    }

    fn at(text: &str, access: WireAccess) -> ManagedEntry {
        let place = ManagedPath::Path { path: WirePath(path(text)) };
        ManagedEntry { path: place, access, missing_path_behavior: None }
    }

    fn roots(subpath: Option<&str>) -> SpecialPath {
        SpecialPath::ProjectRoots { subpath: subpath.map(str::to_owned) }
    }

    fn asked(entries: Vec<ManagedEntry>, network: NetworkPolicy) -> Result<Wanted, ManagedError> {
        let sandbox = FileSystemSandbox {
            permissions: PermissionProfile::Managed {
                file_system: FileSystemPolicy::Restricted { entries, glob_scan_max_depth: None },
                network,
            },
            cwd: None,
            policy_context: None,
            user_home_dir: None,
            workspace_roots: vec![WirePath(path("/w/a")), WirePath(path("/w/b"))],
            windows_sandbox_level: None,
            windows_sandbox_proxy_settings_mode: None,
            temporary_directories: Vec::new(),
            use_legacy_landlock: false,
        };
        read(&sandbox, Places { cwd: &path("/w/a/src"), tmpdir: Some(&path("/var/t")) })
    }

    #[test]
    fn what_the_peer_sends_for_workspace_write_becomes_roots_and_carve_outs() {
        let wanted = asked(
            vec![
                line(SpecialPath::Root, WireAccess::Read),
                line(roots(None), WireAccess::Write),
                line(SpecialPath::SlashTmp, WireAccess::Write),
                line(SpecialPath::Tmpdir, WireAccess::Write),
                line(roots(Some(".git")), WireAccess::Read),
            ],
            NetworkPolicy::Restricted,
        )
        .unwrap();
        assert_eq!((wanted.profile, wanted.network), (Profile::ReadOnly, NetworkMode::Off));
        assert_eq!(wanted.allow_write, ["/w/a", "/w/b"].map(path));
        assert_eq!(wanted.may_write, ["/tmp", "/var/t"].map(path));
        let carved: Vec<_> =
            wanted.carve_outs.iter().map(|line| (line.path.to_display(), line.left)).collect();
        assert_eq!(carved, [("/w/a/.git".to_owned(), Left::Read), ("/w/b/.git".to_owned(), Left::Read)]);
        assert_eq!(wanted.git, GitMode::Protect);
    }

    #[test]
    fn places_relate_to_what_the_permissions_were_written_for() {
        let sandbox = FileSystemSandbox {
            permissions: PermissionProfile::Managed {
                file_system: FileSystemPolicy::Restricted {
                    entries: vec![
                        line(SpecialPath::Root, WireAccess::Read),
                        line(roots(None), WireAccess::Write),
                    ],
                    glob_scan_max_depth: None,
                },
                network: NetworkPolicy::Restricted,
            },
            cwd: Some(WirePath(path("/elsewhere"))),
            policy_context: Some(PolicyContext { cwd: None, workspace_roots: vec![WirePath(path("/w"))] }),
            user_home_dir: None,
            workspace_roots: vec![WirePath(path("/elsewhere"))],
            windows_sandbox_level: None,
            windows_sandbox_proxy_settings_mode: None,
            temporary_directories: Vec::new(),
            use_legacy_landlock: false,
        };
        let wanted = read(&sandbox, Places { cwd: &path("/c"), tmpdir: None }).unwrap();
        assert_eq!(wanted.allow_write, [path("/w")]);
    }

    #[test]
    fn between_lines_of_one_path_none_beats_write_beats_read() {
        let root = line(SpecialPath::Root, WireAccess::Read);
        let wanted = |lines: [ManagedEntry; 2]| {
            asked([vec![root.clone()], lines.to_vec()].concat(), NetworkPolicy::Enabled).unwrap()
        };
        let both = wanted([at("/x", WireAccess::Read), at("/x", WireAccess::Write)]);
        assert!(both.allow_write == [path("/x")] && both.carve_outs.is_empty());
        let denied = wanted([at("/x", WireAccess::Write), at("/x", WireAccess::None)]);
        assert!(denied.allow_write.is_empty() && denied.carve_outs[0].left == Left::Nothing);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused_by_its_line() {
        let root = || line(SpecialPath::Root, WireAccess::Read);
        let refused = |entries| asked(entries, NetworkPolicy::Restricted).unwrap_err();
        assert_eq!(refused(vec![line(SpecialPath::Root, WireAccess::Write)]), ManagedError::Root);
        assert_eq!(
            refused(vec![root(), line(SpecialPath::Minimal, WireAccess::Write)]),
            ManagedError::Place { name: "minimal" }
        );
        let glob = |pattern: &str, access| ManagedEntry {
            path: ManagedPath::GlobPattern { pattern: pattern.to_owned() },
            access,
            missing_path_behavior: None,
        };
        assert_eq!(
            refused(vec![root(), glob("**/*.env", WireAccess::Read)]),
            ManagedError::GlobGrants { pattern: "/w/a/src/**/*.env".to_owned() }
        );
        let because = BadPathGlob::StarsWithin;
        let pattern = "/a**".to_owned();
        assert_eq!(
            refused(vec![root(), glob(&pattern, WireAccess::None)]),
            ManagedError::Glob { pattern, because }
        );
        for subpath in ["../x", "/etc", "", "a/../../b"] {
            let refused = refused(vec![root(), line(roots(Some(subpath)), WireAccess::Write)]);
            assert_eq!(refused, ManagedError::Subpath { subpath: subpath.to_owned() });
        }
    }

    #[test]
    fn no_sandbox_comes_only_of_asking_for_none() {
        let plain = |permissions| FileSystemSandbox {
            permissions,
            cwd: None,
            policy_context: None,
            user_home_dir: None,
            workspace_roots: vec![],
            windows_sandbox_level: None,
            windows_sandbox_proxy_settings_mode: None,
            temporary_directories: Vec::new(),
            use_legacy_landlock: false,
        };
        let cwd = path("/w");
        let places = Places { cwd: &cwd, tmpdir: None };
        let unrestricted =
            |network| PermissionProfile::Managed { file_system: FileSystemPolicy::Unrestricted, network };
        let profile = |permissions| read(&plain(permissions), places).map(|wanted| wanted.profile);
        assert_eq!(profile(PermissionProfile::Disabled), Ok(Profile::DangerFullAccess));
        assert_eq!(profile(unrestricted(NetworkPolicy::Enabled)), Ok(Profile::DangerFullAccess));
        assert_eq!(profile(unrestricted(NetworkPolicy::Restricted)), Err(ManagedError::NetworkOnly));
        let external = PermissionProfile::External { network: NetworkPolicy::Enabled };
        assert_eq!(profile(external), Ok(Profile::External));
        let old = FileSystemSandbox { use_legacy_landlock: true, ..plain(PermissionProfile::Disabled) };
        assert_eq!(read(&old, places), Err(ManagedError::LegacyLandlock));
        let more = FileSystemSandbox {
            temporary_directories: vec![WirePath(path("/t"))],
            ..plain(PermissionProfile::Disabled)
        };
        assert_eq!(read(&more, places), Err(ManagedError::TemporaryDirectories));
    }

    #[test]
    fn the_legacy_shape_means_the_same() {
        let cwd = path("/w");
        let tmpdir = path("/t");
        let places = Places { cwd: &cwd, tmpdir: Some(&tmpdir) };
        let policy = LegacyPolicy::WorkspaceWrite {
            writable_roots: vec![WirePath(path("/x"))],
            read_only_access: ReadOnlyAccess::FullAccess,
            network_access: false,
            exclude_tmpdir_env_var: true,
            exclude_slash_tmp: false,
        };
        let wanted = read_legacy(&policy, places).unwrap();
        assert_eq!(wanted.allow_write, ["/w", "/x"].map(path));
        assert_eq!(wanted.may_write, [path("/tmp")]);
        assert_eq!(
            read_legacy(&LegacyPolicy::DangerFullAccess, places).unwrap().profile,
            Profile::DangerFullAccess
        );
        let read_only = read_legacy(
            &LegacyPolicy::ReadOnly { access: ReadOnlyAccess::FullAccess, network_access: true },
            places,
        )
        .unwrap();
        assert!(read_only.allow_write.is_empty() && read_only.network == NetworkMode::On);
    }

    #[test]
    fn without_a_readable_root_only_what_is_named_is_seen() {
        let wanted = asked(
            vec![line(SpecialPath::Minimal, WireAccess::Read), at("/x", WireAccess::Read)],
            NetworkPolicy::Restricted,
        )
        .unwrap();
        assert_ne!(wanted.reads, Reads::Everything);
        assert!(wanted.entries.iter().any(|entry| *entry.pattern.base() == path("/usr")));
        assert_eq!(wanted.carve_outs[0].path, path("/x"));
        // What nobody may do with the root takes the word for it away again.
        let both = vec![line(SpecialPath::Root, WireAccess::Read), line(SpecialPath::Root, WireAccess::None)];
        assert_ne!(asked(both, NetworkPolicy::Restricted).unwrap().reads, Reads::Everything);
    }

    #[test]
    fn a_pattern_denies_as_deep_as_it_is_looked_for() {
        let entry = ManagedEntry {
            path: ManagedPath::GlobPattern { pattern: "**/*.env".to_owned() },
            access: WireAccess::None,
            missing_path_behavior: None,
        };
        let cwd = path("/w");
        let profile = PermissionProfile::Managed {
            file_system: FileSystemPolicy::Restricted {
                entries: vec![line(SpecialPath::Root, WireAccess::Read), entry],
                glob_scan_max_depth: Some(3),
            },
            network: NetworkPolicy::Restricted,
        };
        let wanted = read_profile(&profile, &[], Places { cwd: &cwd, tmpdir: None }).unwrap();
        let glob = PathGlob::new("/w/**/*.env").unwrap().within_depth(Some(3));
        assert_eq!(wanted.entries[0].pattern, EntryPath::Glob(glob));
    }

    #[test]
    fn a_place_that_a_newer_client_knows_grants_nothing_and_is_said() {
        let json = r#"{"path":{"type":"special","value":{"kind":"moon","path":"/x"}},"access":"write"}"#;
        let unknown: ManagedEntry = serde_json::from_str(json).unwrap();
        let lines = vec![line(SpecialPath::Root, WireAccess::Read), unknown.clone()];
        let wanted = asked(lines, NetworkPolicy::Restricted).unwrap();
        assert!(wanted.allow_write.is_empty() && wanted.entries.is_empty());
        assert!(matches!(wanted.notes.as_slice(), [Note::UnknownPlace { .. }]));
        let hidden = ManagedEntry { access: WireAccess::None, ..unknown };
        let lines = vec![line(SpecialPath::Root, WireAccess::Read), hidden];
        assert_eq!(asked(lines, NetworkPolicy::Restricted).unwrap_err(), ManagedError::UnknownPlace);
    }
}
