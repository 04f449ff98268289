//! Programs of the host that tests and benches use, and the Debian packages that bring them.
//!
//! Installs nothing that is there already, and never anything but Debian's own packages.

use std::fmt;

use anyhow::Result;

use crate::command::{SYSTEM_PATH, check, on_system_path, quiet};

/// A program and the packages that bring it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Name of the program.
    pub(crate) program: &'static str,
    /// Debian packages.
    pub(crate) packages: &'static [&'static str],
}

/// What the tests start inside sandboxes, and what the run for an ordinary user needs.
pub(crate) const FOR_TESTS: &[Need] = &[
    Need { program: "git", packages: &["git"] },
    Need { program: "python3", packages: &["python3"] },
    Need { program: "ps", packages: &["procps"] },
    Need { program: "make", packages: &["make"] },
    Need { program: "cc", packages: &["gcc", "libc6-dev"] },
    Need { program: "setpriv", packages: &["util-linux"] },
    Need { program: "useradd", packages: &["passwd"] },
    Need { program: "bash", packages: &["bash"] },
    Need { program: "tmux", packages: &["tmux"] },
    Need { program: "vim.tiny", packages: &["vim-tiny"] },
    Need { program: "less", packages: &["less"] },
    Need { program: "top", packages: &["procps"] },
    Need { program: "ssh", packages: &["openssh-client"] },
    Need { program: "sshd", packages: &["openssh-server"] },
    Need { program: "bwrap", packages: &["bubblewrap"] },
    Need { program: "strace", packages: &["strace"] },
    Need { program: "gdb", packages: &["gdb"] },
];

/// What the peers of `bench --peers` need.
pub(crate) const FOR_PEERS: &[Need] = &[
    Need { program: "bwrap", packages: &["bubblewrap"] },
    Need { program: "socat", packages: &["socat"] },
    Need { program: "rg", packages: &["ripgrep"] },
];

/// Whether a task may change the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// It may install packages and make users.
    Allowed,
    /// It says what is missing.
    Forbidden,
}

/// What is missing, as packages to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Programs.
    pub(crate) programs: Vec<&'static str>,
    /// Debian packages that bring them.
    pub(crate) packages: Vec<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (programs, packages) = (self.programs.join(", "), self.packages.join(" "));
        write!(f, "{programs} not found; install with `apt-get install {packages}` as root")
    }
}

/// Sees to it that the programs are there, and returns what is still missing.
///
/// # Errors
/// When an installation was tried and failed.
pub(crate) fn ensure(needs: &[Need], install: Install) -> Result<Option<Missing>> {
    let Some(missing) = missing(needs, on_system_path) else { return Ok(None) };
    let may = install == Install::Allowed && is_root() && on_system_path("apt-get");
    if !may {
        return Ok(Some(missing));
    }
    println!("installing {}", missing.packages.join(" "));
    check(apt().args(["update", "-qq"]))?;
    check(apt().args(["install", "--yes", "-qq", "--no-install-recommends"]).args(&missing.packages))?;
    Ok(self::missing(needs, on_system_path))
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn missing(needs: &[Need], is_there: impl Fn(&str) -> bool) -> Option<Missing> {
    let absent: Vec<_> = needs.iter().filter(|need| !is_there(need.program)).collect();
    let missing = Missing {
        programs: absent.iter().map(|need| need.program).collect(),
        packages: absent.iter().flat_map(|need| need.packages).copied().collect(),
    };
    (!absent.is_empty()).then_some(missing)
}

fn apt() -> std::process::Command {
    let mut command = quiet("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", SYSTEM_PATH);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let found = missing(FOR_TESTS, |program| !["cc", "make"].contains(&program));
        assert_eq!(
            found.map(|missing| missing.to_string()),
            Some("make, cc not found; install with `apt-get install make gcc libc6-dev` as root".into())
        );
    }

    #[test]
    fn nothing_missing_means_nothing_to_do() {
        assert_eq!(missing(FOR_TESTS, |_| true), None);
    }
}
