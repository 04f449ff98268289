//! The environment of a command: this process's own, through the policy.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use sandbar_policy::{EnvPolicy, Inherit, Platform, Profile, ResolvedEnv, env_policy};
use sandbar_proto::{EnvVar, NetworkMode, RunId};

use crate::cli::EnvArgs;

/// Resolves what a command gets.
pub(crate) fn resolve(
    args: &EnvArgs,
    profile: Profile,
    network: NetworkMode,
    id: Option<RunId>,
) -> ResolvedEnv {
    let policy = EnvPolicy {
        inherit: Inherit::All,
        ignore_default_excludes: false,
        only_peers_excludes: false,
        include: args.env_keep.clone(),
        exclude: Vec::new(),
        set: Vec::new(),
        include_only: Vec::new(),
        unset: args.env_unset.clone(),
    };
    let base: Vec<EnvVar> =
        std::env::vars_os().map(|(name, value)| EnvVar { name: name.into(), value: value.into() }).collect();
    env_policy::resolve(&policy, Platform::Unix, &base, &args.env, &additions(profile, network, id))
}

/// What the caller's environment says to git.
pub(crate) fn of_git(vars: impl Iterator<Item = (OsString, OsString)>) -> Vec<EnvVar> {
    let is_of_git = |name: &OsString| name.as_bytes().starts_with(b"GIT_") || name == "XDG_CONFIG_HOME";
    vars.filter(|(name, _)| is_of_git(name))
        .map(|(name, value)| EnvVar { name: name.into(), value: value.into() })
        .collect()
}

/// What Sandbar adds itself: the thread's id and the markers, each with the twin that programs made for Codex
/// look for.
fn additions(profile: Profile, network: NetworkMode, id: Option<RunId>) -> Vec<EnvVar> {
    let mut added = Vec::new();
    let mut add = |names: [&str; 2], value: &str| {
        added.extend(names.map(|name| EnvVar { name: name.into(), value: value.into() }));
    };
    if let Some(id) = id {
        add(["SANDBAR_THREAD_ID", "CODEX_THREAD_ID"], &id.to_string());
    }
    if profile.has_sandbox() {
        add(["SANDBAR_SANDBOX", "CODEX_SANDBOX"], "linux");
        if network == NetworkMode::Off {
            add(["SANDBAR_SANDBOX_NETWORK_DISABLED", "CODEX_SANDBOX_NETWORK_DISABLED"], "1");
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_say_what_surrounds_the_command() {
        let names = |profile, network| {
            additions(profile, network, None).into_iter().map(|var| var.name.to_display()).collect::<Vec<_>>()
        };
        assert!(names(Profile::DangerFullAccess, NetworkMode::Off).is_empty());
        assert_eq!(names(Profile::Workspace, NetworkMode::On), ["SANDBAR_SANDBOX", "CODEX_SANDBOX"]);
        assert_eq!(names(Profile::Workspace, NetworkMode::Off).len(), 4);
    }
}
