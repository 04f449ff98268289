//! The environment of a process: the executor's own through the client's policy, or exactly what the client says.

use sandbar_policy::{EnvPolicy, Glob, Inherit, Platform, env_policy};
use sandbar_proto::exec::{StartParams, WireEnvPolicy};
use sandbar_proto::rpc::RpcError;
use sandbar_proto::{ByteString, EnvVar, NetworkMode};

use super::refusal;

/// What surrounds a process, for the markers in its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether it is in a sandbox.
    pub(super) sandboxed: bool,
    /// Its network.
    pub(super) network: NetworkMode,
}

/// Resolves the environment of a start. Without a policy it is exactly what the client sent.
///
/// # Errors
/// The policy means nothing.
pub(super) fn resolve(
    base: &[EnvVar],
    params: &StartParams,
    surroundings: Surroundings,
) -> Result<Vec<EnvVar>, RpcError> {
    let overlay: Vec<EnvVar> = params.env.iter().map(|(name, value)| var(name, value)).collect();
    let unset = params.unset.iter().map(|name| ByteString::from(name.as_str())).collect();
    let resolved = match &params.env_policy {
        None => {
            let policy = EnvPolicy { inherit: Inherit::None, unset, ..EnvPolicy::default() };
            env_policy::resolve(&policy, Platform::Unix, &[], &overlay, &[])
        }
        Some(wire) => {
            let policy = EnvPolicy { unset, ..policy(wire)? };
            env_policy::resolve(&policy, Platform::Unix, base, &overlay, &markers(surroundings))
        }
    };
    Ok(resolved.vars)
}

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: value.into() }
}

fn policy(wire: &WireEnvPolicy) -> Result<EnvPolicy, RpcError> {
    let inherit = match wire.inherit.as_str() {
        "all" => Inherit::All,
        "core" => Inherit::Core,
        "none" => Inherit::None,
        other => {
            return Err(refusal::params(format!(
                "unknown variant `{other}`, expected `core`, `all` or `none`"
            )));
        }
    };
    let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern.as_str())).collect();
    Ok(EnvPolicy {
        inherit,
        ignore_default_excludes: wire.ignore_default_excludes,
        // The client decides, in its own words; what more we would drop it does not expect.
        only_peers_excludes: true,
        include: globs(&wire.include),
        exclude: globs(&wire.exclude),
        set: wire.set.iter().map(|(name, value)| var(name, value)).collect(),
        include_only: globs(&wire.include_only),
        unset: Vec::new(),
    })
}

/// What tells programs that they are in a sandbox, with the twins that programs made for Codex look for.
fn markers(surroundings: Surroundings) -> Vec<EnvVar> {
    let mut markers = Vec::new();
    if surroundings.sandboxed {
        markers.extend(["SANDBAR_SANDBOX", "CODEX_SANDBOX"].map(|name| var(name, "linux")));
        if surroundings.network == NetworkMode::Off {
            let names = ["SANDBAR_SANDBOX_NETWORK_DISABLED", "CODEX_SANDBOX_NETWORK_DISABLED"];
            markers.extend(names.map(|name| var(name, "1")));
        }
    }
    markers
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Surroundings = Surroundings { sandboxed: false, network: NetworkMode::On };

    fn base() -> Vec<EnvVar> {
        vec![var("HOME", "/h"), var("MY_TOKEN", "t"), var("OTHER", "o"), var("PATH", "/bin")]
    }

    fn names(params: &StartParams, surroundings: Surroundings) -> Vec<String> {
        let vars = resolve(&base(), params, surroundings).unwrap();
        vars.iter().map(|var| format!("{}={}", var.name.to_display(), var.value.to_display())).collect()
    }

    #[test]
    fn without_a_policy_the_environment_is_exact() {
        let mut params = StartParams::default();
        assert!(names(&params, Surroundings { sandboxed: true, ..FREE }).is_empty());
        params.env.insert("A".to_owned(), "1".to_owned());
        assert_eq!(names(&params, FREE), ["A=1"]);
    }

    #[test]
    fn a_policy_filters_the_executors_own_environment_and_the_overlay_wins() {
        let wire = |inherit: &str, ignore_default_excludes| WireEnvPolicy {
            inherit: inherit.to_owned(),
            ignore_default_excludes,
            ..WireEnvPolicy::default()
        };
        let with = |policy: WireEnvPolicy| StartParams { env_policy: Some(policy), ..StartParams::default() };
        assert_eq!(names(&with(wire("all", false)), FREE), ["HOME=/h", "OTHER=o", "PATH=/bin"]);
        assert_eq!(names(&with(wire("core", false)), FREE), ["HOME=/h", "PATH=/bin"]);
        assert_eq!(names(&with(wire("none", false)), FREE), [""; 0]);
        assert!(names(&with(wire("all", true)), FREE).contains(&"MY_TOKEN=t".to_owned()));
        // Measured at the peer: the overlay wins over include_only, exclude and set.
        let mut params = with(WireEnvPolicy {
            include_only: vec!["H*".to_owned(), "p?th".to_owned()],
            ..wire("all", false)
        });
        params.env.insert("OVER".to_owned(), "1".to_owned());
        assert_eq!(names(&params, FREE), ["HOME=/h", "OVER=1", "PATH=/bin"]);
        params.unset = vec!["HOME".to_owned()];
        assert_eq!(names(&params, FREE), ["OVER=1", "PATH=/bin"]);
        assert!(resolve(&base(), &with(wire("some", false)), FREE).is_err());
    }

    #[test]
    fn a_sandbox_shows() {
        let policy = WireEnvPolicy { inherit: "none".to_owned(), ..WireEnvPolicy::default() };
        let params = StartParams { env_policy: Some(policy), ..StartParams::default() };
        let sandboxed = Surroundings { sandboxed: true, network: NetworkMode::Off };
        assert_eq!(names(&params, sandboxed).len(), 4);
    }
}
