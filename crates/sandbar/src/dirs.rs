//! Where Sandbar's files lie: XDG base directories, or everything below `SANDBAR_HOME`.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sandbar_policy::OwnDirectories;
use sandbar_proto::{AbsPath, FactAnswer, FactQuery};

use crate::render::Problem;

/// The directories of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directories {
    /// Home directory of the user, if there is one.
    pub(crate) home: Option<AbsPath>,
    /// Sandbar's own.
    pub(crate) own: OwnDirectories,
    /// Other places where this user's programs put sockets.
    pub(crate) runtime_roots: Vec<AbsPath>,
}

/// What the directories depend on.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    uid: u32,
    passwd_home: Option<AbsPath>,
    is_directory: &'a dyn Fn(&Path) -> bool,
}

impl Directories {
    /// Those of the calling process.
    ///
    /// # Errors
    /// No home directory and nothing that replaces it.
    pub(crate) fn find() -> Result<Self, Problem> {
        let uid = rustix::process::geteuid().as_raw();
        if is_within_sandbox() {
            return within_sandbox(uid);
        }
        let surroundings = Surroundings {
            variable: &|name| std::env::var_os(name).filter(|value| !value.is_empty()),
            uid,
            passwd_home: std::env::var_os("HOME").is_none().then(|| passwd_home(uid)).flatten(),
            is_directory: &Path::is_dir,
        };
        let mut found = surroundings.directories()?;
        // Wherever a link of that name leads, what it says decides what commands may do.
        let settings = join(&found.own.config, sandbar_config::NAME);
        if std::fs::symlink_metadata(settings.as_path()).is_ok_and(|settings| settings.is_symlink()) {
            found.own.elsewhere.push(settings);
        }
        Ok(found)
    }

    /// Everything below one folder.
    #[cfg(test)]
    pub(crate) fn below(folder: &Path) -> Self {
        let own = below_home(folder.as_os_str().to_owned()).expect("a folder of a test");
        Self { home: None, own, runtime_roots: Vec::new() }
    }

    /// Where rollouts are.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.own.state.as_path().join("sessions")
    }
}

/// Whether this program runs in a sandbox of ours: the environment says so, and the kernel says that something like it holds us.
/// The environment alone could be anybody's.
pub(crate) fn is_within_sandbox() -> bool {
    let is_marked = std::env::var_os("SANDBAR_SANDBOX").is_some_and(|marker| !marker.is_empty());
    is_marked && is_confined(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Whether a filter holds a process, and holds all that it starts; proc_pid_status(5).
fn is_confined(status: &str) -> bool {
    let has = |field: &str, value: &str| {
        status.lines().any(|line| line.strip_prefix(field).is_some_and(|rest| rest.trim() == value))
    };
    has("Seccomp:", "2") && has("NoNewPrivs:", "1")
}

/// In a sandbox the person's own directories can't be seen, and nothing of this run may reach them: what it makes is its own.
fn within_sandbox(uid: u32) -> Result<Directories, Problem> {
    let temporary = std::env::temp_dir().join(format!("sandbar-within-{uid}"));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&temporary);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Problem::new(format!("could not make a directory for a run within a sandbox: {error}"))
            .at(temporary.display())
            .advise("see that TMPDIR can be written")
            .status(crate::exit::CANNOT_RUN));
    }
    let metadata = std::fs::symlink_metadata(&temporary);
    let is_ours = metadata.is_ok_and(|it| it.is_dir() && it.uid() == uid && it.mode() & 0o077 == 0);
    if !is_ours {
        return Err(Problem::new(
            "could not use the directory for runs within a sandbox: it is somebody else's",
        )
        .at(temporary.display())
        .advise("set TMPDIR to a directory of your own")
        .status(crate::exit::CANNOT_RUN));
    }
    let home = std::env::var_os("HOME").and_then(|home| AbsPath::new(home).ok());
    Ok(Directories { home, own: below_home(temporary.into_os_string())?, runtime_roots: Vec::new() })
}

fn passwd_home(uid: u32) -> Option<AbsPath> {
    match sandbar_sandbox::facts::answer(&FactQuery::User(uid)) {
        FactAnswer::User { home, .. } => AbsPath::new(home).ok(),
        FactAnswer::File(_)
        | FactAnswer::Missing
        | FactAnswer::Names(_)
        | FactAnswer::Matches(_)
        | FactAnswer::GitLinks(_)
        | FactAnswer::Content(_)
        | FactAnswer::TooLong
        | FactAnswer::Failed { .. } => None,
    }
}

impl Surroundings<'_> {
    /// An absolute path from a variable; the XDG specification has relative ones ignored.
    fn path(&self, name: &str) -> Option<AbsPath> {
        AbsPath::new((self.variable)(name)?).ok()
    }

    fn directories(&self) -> Result<Directories, Problem> {
        let home = self.path("HOME").or_else(|| self.passwd_home.clone());
        let mut own = match (self.variable)("SANDBAR_HOME") {
            Some(value) => below_home(value)?,
            None => self.xdg(home.as_ref())?,
        };
        own.elsewhere = self.elsewhere(&own);
        let runtime_roots = self.path("XDG_RUNTIME_DIR").into_iter().collect();
        Ok(Directories { home, own, runtime_roots })
    }

    fn xdg(&self, home: Option<&AbsPath>) -> Result<OwnDirectories, Problem> {
        let base = |variable: &str, default: &str| {
            self.path(variable).or_else(|| home.and_then(|home| home.join(default).ok())).ok_or_else(|| {
                Problem::new("could not tell where sandbar keeps its files: there is no home directory")
                    .at("HOME is not set and the user has no entry in /etc/passwd")
                    .advise("set HOME, or SANDBAR_HOME to a folder for everything of sandbar's")
                    .status(crate::exit::CANNOT_RUN)
            })
        };
        let own = |base: AbsPath| join(&base, "sandbar");
        Ok(OwnDirectories {
            runtime: self.runtime(),
            state: own(base("XDG_STATE_HOME", ".local/state")?),
            config: own(base("XDG_CONFIG_HOME", ".config")?),
            cache: own(base("XDG_CACHE_HOME", ".cache")?),
            home: None,
            elsewhere: Vec::new(),
        })
    }

    /// Where this user's runs keep their files that were started without `SANDBAR_HOME`. Policy itself knows the
    /// default places below home. A runtime directory in /tmp is not named: anybody could put a link there that
    /// hides something else, and every run has a /tmp of its own.
    fn elsewhere(&self, own: &OwnDirectories) -> Vec<AbsPath> {
        let here = [&own.runtime, &own.state, &own.config, &own.cache];
        ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"]
            .into_iter()
            .filter_map(|name| self.path(name))
            .map(|base| join(&base, "sandbar"))
            .filter(|path| !here.contains(&path))
            .collect()
    }

    /// The runtime directory: a session's, the user's, root's, and at last one in /tmp whose owner is checked.
    fn runtime(&self) -> AbsPath {
        let users = join(&AbsPath::root(), &format!("run/user/{}", self.uid));
        let root = || join(&AbsPath::root(), "run/sandbar");
        let candidates = [self.path("XDG_RUNTIME_DIR"), Some(users)];
        let session = candidates.into_iter().flatten().find(|path| (self.is_directory)(path.as_path()));
        match session {
            Some(session) => join(&session, "sandbar"),
            None if self.uid == 0 && (self.is_directory)(Path::new("/run")) => root(),
            None => join(&AbsPath::root(), &format!("tmp/sandbar-{}", self.uid)),
        }
    }
}

fn below_home(value: OsString) -> Result<OwnDirectories, Problem> {
    let shown = value.display().to_string();
    let home = AbsPath::new(value).map_err(|error| {
        Problem::new(format!("could not use SANDBAR_HOME: {error}"))
            .at(format!("SANDBAR_HOME={shown}"))
            .advise("set it to an absolute path")
            .status(crate::exit::CANNOT_RUN)
    })?;
    Ok(OwnDirectories {
        runtime: join(&home, "run"),
        state: join(&home, "state"),
        config: join(&home, "config"),
        cache: join(&home, "cache"),
        home: Some(home),
        elsewhere: Vec::new(),
    })
}

/// `name` below `base`; both are clean, so the whole is.
fn join(base: &AbsPath, name: &str) -> AbsPath {
    base.join(name).unwrap_or_else(|_| base.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(variables: &[(&str, &str)], uid: u32, existing: &[&str]) -> Result<Directories, Problem> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let is_directory = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
        Surroundings { variable: &variable, uid, passwd_home: None, is_directory: &is_directory }
            .directories()
    }

    #[test]
    fn a_process_is_confined_if_a_filter_holds_it_and_all_that_it_starts() {
        let table = [
            ("NoNewPrivs:\t1\nSeccomp:\t2\n", true),
            ("NoNewPrivs:\t0\nSeccomp:\t2\n", false),
            ("NoNewPrivs:\t1\nSeccomp:\t0\n", false),
            ("NoNewPrivs:\t1\nSeccomp_filters:\t2\n", false),
            ("", false),
        ];
        for (status, expected) in table {
            assert_eq!(is_confined(status), expected, "{status:?}");
        }
    }

    #[test]
    fn the_runtime_directory_follows_its_ladder() {
        let home = ("HOME", "/home/a");
        type Row<'a> = (&'a [(&'a str, &'a str)], u32, &'a [&'a str], &'a str);
        let table: [Row<'_>; 5] = [
            (&[home, ("XDG_RUNTIME_DIR", "/run/user/7")], 7, &["/run/user/7"], "/run/user/7/sandbar"),
            (&[home, ("XDG_RUNTIME_DIR", "/gone")], 7, &["/run/user/7"], "/run/user/7/sandbar"),
            (&[home], 0, &["/run"], "/run/sandbar"),
            (&[home], 7, &["/run"], "/tmp/sandbar-7"),
            (&[home, ("SANDBAR_HOME", "/s")], 7, &["/run/user/7"], "/s/run"),
        ];
        for (variables, uid, existing, expected) in table {
            let found = directories(variables, uid, existing).unwrap().own.runtime;
            assert_eq!(found.to_display(), expected);
        }
    }

    #[test]
    fn places_of_runs_without_sandbar_home_are_those_that_the_variables_name() {
        let all = [
            ("HOME", "/h"),
            ("XDG_STATE_HOME", "/x/state"),
            ("XDG_CONFIG_HOME", "/x/config"),
            ("XDG_CACHE_HOME", "relative"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("SANDBAR_HOME", "/s"),
        ];
        let elsewhere = |variables: &[(&str, &str)]| {
            let found = directories(variables, 7, &["/run/user/7"]).unwrap().own.elsewhere;
            found.iter().map(AbsPath::to_display).collect::<Vec<_>>()
        };
        assert_eq!(elsewhere(&all), ["/x/state/sandbar", "/x/config/sandbar", "/run/user/7/sandbar"]);
        assert!(elsewhere(&all[..5]).is_empty());
    }

    #[test]
    fn relative_xdg_variables_are_ignored() {
        let found = directories(&[("HOME", "/h"), ("XDG_STATE_HOME", "state")], 7, &[]).unwrap();
        assert_eq!(found.own.state.to_display(), "/h/.local/state/sandbar");
    }

    #[test]
    fn without_any_home_it_is_said_what_to_set() {
        let problem = directories(&[], 7, &[]).unwrap_err();
        assert!(problem.advice.unwrap().contains("SANDBAR_HOME"));
    }
}
