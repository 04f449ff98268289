//! Built-in profiles: the base that flags and configuration add to.
//!
//! A profile is a name with a meaning that never depends on the host. `danger-full-access` is chosen only by
//! that name; nothing falls back to it.

use std::fmt;
use std::str::FromStr;

use sandbar_proto::NetworkMode;
use serde::Serialize;

/// What a run may touch before anything is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Everything readable but secrets; nothing writable but private temporary directories.
    ReadOnly,
    /// As read-only, and the working directory is writable.
    #[default]
    Workspace,
    /// No sandbox of our own, because somebody else has made one around us already.
    External,
    /// No sandbox at all.
    DangerFullAccess,
}

impl Profile {
    /// All built-in profiles.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Workspace, Self::External, Self::DangerFullAccess];

    /// The name that selects it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Workspace => "workspace",
            Self::External => "external",
            Self::DangerFullAccess => "danger-full-access",
        }
    }

    /// The network when nobody chose one.
    #[must_use]
    pub fn network(self) -> NetworkMode {
        match self {
            Self::ReadOnly | Self::Workspace => NetworkMode::Off,
            Self::External | Self::DangerFullAccess => NetworkMode::On,
        }
    }

    /// Whether the working directory is a writable root.
    #[must_use]
    pub fn writes_cwd(self) -> bool {
        match self {
            Self::ReadOnly => false,
            Self::Workspace | Self::External | Self::DangerFullAccess => true,
        }
    }

    /// Whether a sandbox is made.
    #[must_use]
    pub fn has_sandbox(self) -> bool {
        match self {
            Self::ReadOnly | Self::Workspace => true,
            Self::External | Self::DangerFullAccess => false,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No built-in profile has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no profile is named {name:?}; known are {}", known.join(", "))]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub known: Vec<&'static str>,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownProfile { name: name.to_owned(), known: Self::ALL.map(Self::name).to_vec() };
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_exact_name_only() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("Workspace".parse::<Profile>().is_err());
        assert!("".parse::<Profile>().is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(
            "full".parse::<Profile>().unwrap_err().to_string(),
            "no profile is named \"full\"; known are read-only, workspace, external, danger-full-access"
        );
    }

    #[test]
    fn sandboxed_profiles_have_no_network_by_default() {
        let networks = Profile::ALL.map(Profile::network);
        assert_eq!(networks, [NetworkMode::Off, NetworkMode::Off, NetworkMode::On, NetworkMode::On]);
    }
}
