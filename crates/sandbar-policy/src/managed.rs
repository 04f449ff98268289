//! The sandbox that a client of the exec server asks for, in this crate's words.
//!
//! Understands what the peers' clients send: everything readable, some roots writable, some places below them not.
//! What it can't express is a refusal that names the line; nothing is ignored, and nothing weaker is made of it. Where
//! our own rules are stricter (protected names, secrets, our own files) they hold besides.

use sandbar_proto::exec::{
    FileSystemPolicy, FileSystemSandbox, LegacyPolicy, ManagedEntry, ManagedPath, MissingPath, NetworkPolicy,
    PermissionProfile, SpecialPath, WireAccess,
};
use sandbar_proto::{AbsPath, NetworkMode};

use crate::paths::below;
use crate::{CarveOut, GitMode, Left, Profile};

/// What such a sandbox is called where a profile's name is shown.
pub const NAME: &str = "managed";

/// What a client wants, for a [`crate::RunRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The base.
    pub profile: Profile,
    /// The network.
    pub network: NetworkMode,
    /// Writable roots that must be there.
    pub allow_write: Vec<AbsPath>,
    /// Writable roots that may be missing.
    pub may_write: Vec<AbsPath>,
    /// What is less than its surroundings.
    pub carve_outs: Vec<CarveOut>,
    /// How much of git may change.
    pub git: GitMode,
}

/// Why a client can't have the sandbox it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    /// Somebody else's sandbox is relied on.
    #[error("the profile `external` is not supported: this executor relies on no sandbox but its own")]
    External,
    /// All files with a restricted network, or the other way round.
    #[error("a sandbox of the network without one of the files is not supported")]
    NetworkOnly,
    /// The root is not readable, or is writable.
    #[error("only profiles in which `root` may be read are supported")]
    Root,
    /// A glob.
    #[error("the pattern {pattern:?} is not supported: name paths")]
    Glob {
        /// It.
        pattern: String,
    },
    /// A named place that is not supported.
    #[error("the place `{name}` is not supported")]
    Place {
        /// Its name.
        name: &'static str,
    },
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

/// Reads the shape of 0.169.
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
    match &sandbox.permissions {
        PermissionProfile::Disabled => Ok(everything()),
        PermissionProfile::External { .. } => Err(ManagedError::External),
        PermissionProfile::Managed { file_system: FileSystemPolicy::Unrestricted, network } => {
            match network {
                NetworkPolicy::Enabled => Ok(everything()),
                NetworkPolicy::Restricted => Err(ManagedError::NetworkOnly),
            }
        }
        PermissionProfile::Managed { file_system: FileSystemPolicy::Restricted { entries, .. }, network } => {
            let context = sandbox.policy_context.as_ref();
            let named = context.and_then(|context| context.cwd.as_ref()).or(sandbox.cwd.as_ref());
            let cwd = named.map_or(places.cwd, |cwd| &cwd.0);
            let roots = context.map_or(&sandbox.workspace_roots, |context| &context.workspace_roots);
            let mut roots: Vec<&AbsPath> = roots.iter().map(|root| &root.0).collect();
            if roots.is_empty() {
                roots.push(cwd);
            }
            restricted(entries, mode(*network), &Named { cwd, roots, tmpdir: places.tmpdir })
        }
    }
}

/// Reads the legacy shape.
#[must_use]
pub fn read_legacy(policy: &LegacyPolicy, places: Places<'_>) -> Wanted {
    let network = |has_network: bool| if has_network { NetworkMode::On } else { NetworkMode::Off };
    match policy {
        LegacyPolicy::DangerFullAccess => everything(),
        LegacyPolicy::ReadOnly { network_access } => nothing_but_reading(network(*network_access)),
        LegacyPolicy::WorkspaceWrite {
            writable_roots,
            network_access,
            exclude_tmpdir_env_var,
            exclude_slash_tmp,
        } => {
            let mut wanted = nothing_but_reading(network(*network_access));
            wanted.allow_write.push(places.cwd.clone());
            wanted.allow_write.extend(writable_roots.iter().map(|root| root.0.clone()));
            wanted.may_write.extend(places.tmpdir.filter(|_| !exclude_tmpdir_env_var).cloned());
            wanted.may_write.extend((!exclude_slash_tmp).then(slash_tmp));
            wanted.git = GitMode::Protect;
            wanted
        }
    }
}

fn everything() -> Wanted {
    Wanted { profile: Profile::DangerFullAccess, ..nothing_but_reading(NetworkMode::On) }
}

fn nothing_but_reading(network: NetworkMode) -> Wanted {
    Wanted {
        profile: Profile::ReadOnly,
        network,
        allow_write: Vec::new(),
        may_write: Vec::new(),
        carve_outs: Vec::new(),
        git: GitMode::Commit,
    }
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

impl Named<'_> {
    fn paths(&self, path: &ManagedPath) -> Result<Vec<AbsPath>, ManagedError> {
        match path {
            ManagedPath::Path { path } => Ok(vec![path.0.clone()]),
            ManagedPath::GlobPattern { pattern } => Err(ManagedError::Glob { pattern: pattern.clone() }),
            ManagedPath::Special { value } => match value {
                SpecialPath::Root => Ok(vec![AbsPath::root()]),
                SpecialPath::Minimal => Err(ManagedError::Place { name: "minimal" }),
                SpecialPath::CurrentWorkingDirectory => Ok(vec![self.cwd.clone()]),
                SpecialPath::ProjectRoots { subpath: None } => {
                    Ok(self.roots.iter().map(|root| (*root).clone()).collect())
                }
                SpecialPath::ProjectRoots { subpath: Some(subpath) } => {
                    let wrong = || ManagedError::Subpath { subpath: subpath.clone() };
                    if subpath.starts_with('/') || subpath.is_empty() {
                        return Err(wrong());
                    }
                    let joined = self.roots.iter().map(|root| root.join(subpath).map_err(|_| wrong()));
                    joined.collect()
                }
                SpecialPath::Tmpdir => Ok(self.tmpdir.into_iter().cloned().collect()),
                SpecialPath::SlashTmp => Ok(vec![slash_tmp()]),
            },
        }
    }
}

fn restricted(
    entries: &[ManagedEntry],
    network: NetworkMode,
    named: &Named<'_>,
) -> Result<Wanted, ManagedError> {
    let mut wanted = nothing_but_reading(network);
    let mut root_is_readable = false;
    for entry in entries {
        for path in named.paths(&entry.path)? {
            if path == AbsPath::root() {
                if entry.access != WireAccess::Read {
                    return Err(ManagedError::Root);
                }
                root_is_readable = true;
                continue;
            }
            add(&mut wanted, entry, path);
        }
    }
    if !root_is_readable {
        return Err(ManagedError::Root);
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
    use sandbar_proto::exec::{PolicyContext, WirePath};

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
        assert_eq!(refused(vec![]), ManagedError::Root);
        assert_eq!(refused(vec![line(SpecialPath::Root, WireAccess::Write)]), ManagedError::Root);
        assert_eq!(
            refused(vec![root(), line(SpecialPath::Minimal, WireAccess::Read)]),
            ManagedError::Place { name: "minimal" }
        );
        let glob = ManagedPath::GlobPattern { pattern: "**/*.env".to_owned() };
        let glob = ManagedEntry { path: glob, access: WireAccess::None, missing_path_behavior: None };
        assert_eq!(refused(vec![root(), glob]), ManagedError::Glob { pattern: "**/*.env".to_owned() });
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
        assert_eq!(profile(external), Err(ManagedError::External));
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
            network_access: false,
            exclude_tmpdir_env_var: true,
            exclude_slash_tmp: false,
        };
        let wanted = read_legacy(&policy, places);
        assert_eq!(wanted.allow_write, ["/w", "/x"].map(path));
        assert_eq!(wanted.may_write, [path("/tmp")]);
        assert_eq!(read_legacy(&LegacyPolicy::DangerFullAccess, places).profile, Profile::DangerFullAccess);
        let read_only = read_legacy(&LegacyPolicy::ReadOnly { network_access: true }, places);
        assert!(read_only.allow_write.is_empty() && read_only.network == NetworkMode::On);
    }
}
