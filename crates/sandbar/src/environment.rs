//! The environment of a command: this process's own, through the policy.

use sandbar_policy::{EnvPolicy, Glob, Inherit, Platform, Profile, ResolvedEnv, env_policy};
use sandbar_proto::{ByteString, EnvVar, NetworkMode, RunId};

use crate::cli::EnvArgs;
use crate::render::Problem;

/// Resolves what a command gets.
///
/// # Errors
/// An `--env` that is no `NAME=VALUE`.
pub(crate) fn resolve(
    args: &EnvArgs,
    profile: Profile,
    network: NetworkMode,
    id: Option<RunId>,
) -> Result<ResolvedEnv, Problem> {
    let policy = EnvPolicy {
        inherit: Inherit::All,
        ignore_default_excludes: false,
        only_peers_excludes: false,
        include: args.env_keep.iter().map(|glob| Glob::new(glob.clone())).collect(),
        exclude: Vec::new(),
        set: Vec::new(),
        include_only: Vec::new(),
        unset: args.env_unset.iter().map(|name| ByteString::from(name.clone())).collect(),
    };
    let base: Vec<EnvVar> =
        std::env::vars_os().map(|(name, value)| EnvVar { name: name.into(), value: value.into() }).collect();
    let overlay = args.env.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok(env_policy::resolve(&policy, Platform::Unix, &base, &overlay, &additions(profile, network, id)))
}

fn parse(pair: &std::ffi::OsString) -> Result<EnvVar, Problem> {
    let bytes = ByteString::from(pair.clone());
    let cut = bytes.as_bytes().iter().position(|&byte| byte == b'=').filter(|&at| at > 0);
    let cut = cut.ok_or_else(|| {
        Problem::new("could not understand --env: it has no name and `=`")
            .at(format!("--env {}", pair.display()))
            .advise("write --env NAME=VALUE; to keep one of your own variables write --env-keep NAME")
            .status(crate::exit::USAGE)
    })?;
    Ok(EnvVar { name: bytes.as_bytes()[..cut].into(), value: bytes.as_bytes()[cut + 1..].into() })
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
    if profile != Profile::DangerFullAccess {
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
    fn a_pair_may_have_more_equal_signs_but_needs_a_name() {
        let pair = parse(&"A=b=c".into()).unwrap();
        assert_eq!((pair.name, pair.value), ("A".into(), "b=c".into()));
        assert_eq!(parse(&"=x".into()).unwrap_err().status, crate::exit::USAGE);
        assert!(parse(&"A".into()).is_err());
    }

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
