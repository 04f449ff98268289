//! Caches of the host's tools, which a run may fill without changing them.
//!
//! What was fetched before works offline inside; what is written inside goes to the trust domain `sandboxed`,
//! which no build outside ever reads. A run without network fetches nothing worth keeping, so its download caches
//! are forgotten with it, which makes their mounts ten times as cheap (docs/adr/0003-caches.md); caches of builds
//! are kept, and start empty, since nothing in them was fetched. A tool whose cache does not exist on the host would die on the read-only
//! home: it is pointed to a directory in the private temporary directory instead, unless somebody chose a place
//! already.

use sandbar_proto::{AbsPath, ByteString, CacheWrites, EnvVar, FileKind, NetworkMode};

use crate::grants::{Draft, GrantKind};
use crate::paths::below;
use crate::reader::Found;
use crate::secrets::Present;
use crate::{CacheMode, Origin};

pub(crate) const ORIGIN: Origin = Origin::Default("download caches, copy-on-write");

/// Where the caches of tools that have none are made, below a private temporary directory.
const REDIRECTED: &str = "sandbar-cache";

/// One tool's cache.
struct Cache {
    /// Name within the trust domain.
    name: &'static str,
    /// Variable that moves it, and what follows there.
    moved_by: Option<(&'static str, &'static str)>,
    /// Where it is otherwise, below home.
    place: &'static str,
    /// Variable that redirects a missing one.
    redirect: Option<&'static str>,
    /// What it holds.
    holds: Holds,
}

/// What a cache holds.
#[derive(Clone, Copy)]
enum Holds {
    /// Things fetched from somewhere.
    Downloads,
    /// Results of builds.
    Results,
}

impl Holds {
    fn writes(self, network: NetworkMode) -> CacheWrites {
        match (self, network) {
            (Self::Downloads, NetworkMode::On) => CacheWrites::Kept,
            (Self::Downloads, NetworkMode::Off) => CacheWrites::Forgotten,
            (Self::Results, _) => CacheWrites::Separate,
        }
    }
}

const fn fixed(name: &'static str, place: &'static str) -> Cache {
    Cache { name, moved_by: None, place, redirect: None, holds: Holds::Downloads }
}

const CACHES: [Cache; 14] = [
    Cache {
        name: "cargo",
        moved_by: Some(("CARGO_HOME", "")),
        place: ".cargo",
        redirect: Some("CARGO_HOME"),
        holds: Holds::Downloads,
    },
    Cache {
        name: "npm",
        moved_by: Some(("npm_config_cache", "")),
        place: ".npm",
        redirect: Some("npm_config_cache"),
        holds: Holds::Downloads,
    },
    Cache {
        name: "go-pkg",
        moved_by: Some(("GOPATH", "pkg")),
        place: "go/pkg",
        redirect: Some("GOMODCACHE"),
        holds: Holds::Downloads,
    },
    Cache {
        name: "go-build",
        moved_by: Some(("GOCACHE", "")),
        place: ".cache/go-build",
        redirect: Some("GOCACHE"),
        holds: Holds::Results,
    },
    Cache {
        name: "pip",
        moved_by: Some(("PIP_CACHE_DIR", "")),
        place: ".cache/pip",
        redirect: Some("PIP_CACHE_DIR"),
        holds: Holds::Downloads,
    },
    fixed("uv", ".cache/uv"),
    fixed("yarn", ".cache/yarn"),
    Cache { holds: Holds::Results, ..fixed("ccache", ".cache/ccache") },
    fixed("pre-commit", ".cache/pre-commit"),
    fixed("node-gyp", ".cache/node-gyp"),
    fixed("maven", ".m2/repository"),
    fixed("gradle", ".gradle/caches"),
    fixed("bun", ".bun/install/cache"),
    fixed("pnpm", ".local/share/pnpm"),
];

/// Whether nothing of the host is shown where redirected caches would go below the private directory `private`.
pub(crate) fn may_redirect_to(draft: &Draft<'_>, private: &AbsPath) -> bool {
    let place = below(private, REDIRECTED);
    !draft.grants.iter().any(|grant| {
        let shows_host = matches!(grant.kind, GrantKind::Write | GrantKind::Read);
        shows_host && (grant.path == *private || grant.path.starts_with(&place))
    })
}

/// Adds the caches of the user whose home is `home`. `private` is a writable directory of the run's own.
pub(crate) fn add(draft: &mut Draft<'_>, home: &AbsPath, env: &[EnvVar], private: Option<&AbsPath>) {
    if draft.request.caches == CacheMode::Off {
        return;
    }
    let network = draft.request.network.unwrap_or(draft.request.profile.network());
    let present = Present::below(draft, home);
    for cache in &CACHES {
        let moved = cache.moved_by.and_then(|(variable, rest)| moved_place(env, variable, rest));
        let is_moved = moved.is_some();
        let place = moved.unwrap_or_else(|| below(home, cache.place));
        let found = if is_moved || present.may_hold(cache.place) {
            draft.reader.resolve(&place)
        } else {
            Found::Missing
        };
        match found {
            // Bubblewrap mounts nothing copy-on-write: an empty cache is one that tools work with.
            Found::File(_) if draft.request.executor.is_stand_in() => {
                if let (Some(variable), Some(private), false) = (cache.redirect, private, is_moved) {
                    redirect(draft, env, variable, &below(&below(private, REDIRECTED), cache.name));
                }
            }
            Found::File(fact) if fact.pinned.identity.kind == FileKind::Directory => {
                if !home.starts_with(&fact.pinned.path) {
                    draft.grant(
                        &fact.pinned,
                        GrantKind::Cache { name: cache.name, writes: cache.holds.writes(network) },
                        ORIGIN,
                    );
                }
            }
            Found::Missing => {
                if let (Some(variable), Some(private)) = (cache.redirect, private) {
                    redirect(draft, env, variable, &below(&below(private, REDIRECTED), cache.name));
                }
            }
            Found::File(_) | Found::Unknown | Found::Failed(_) => {}
        }
    }
}

fn moved_place(env: &[EnvVar], variable: &str, rest: &str) -> Option<AbsPath> {
    let value = find(env, variable)?;
    // GOPATH is a list whose first entry takes what is downloaded.
    let first = value.as_bytes().split(|&byte| byte == b':').next().unwrap_or_default();
    AbsPath::new(first).ok().map(|base| below(&base, rest))
}

fn redirect(draft: &mut Draft<'_>, env: &[EnvVar], variable: &'static str, place: &AbsPath) {
    if find(env, variable).is_some() {
        return;
    }
    draft.made.push(place.clone());
    draft.redirects.push(EnvVar { name: variable.into(), value: ByteString::from(place.as_bytes()) });
}

// npm reads its variables in either case; of the others nobody has a twin that differs in case only.
fn find<'e>(env: &'e [EnvVar], variable: &str) -> Option<&'e ByteString> {
    let is_it = |var: &&EnvVar| var.name.as_bytes().eq_ignore_ascii_case(variable.as_bytes());
    env.iter().find(is_it).map(|var| &var.value).filter(|value| !value.as_bytes().is_empty())
}
