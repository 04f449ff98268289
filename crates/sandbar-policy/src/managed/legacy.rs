//! The legacy policies, as profiles: every one of them is one, and some profiles are such a policy.

use sandbar_proto::exec::{
    FileSystemPolicy, LegacyPolicy, ManagedEntry, ManagedPath, MissingPath, NetworkPolicy, PermissionProfile,
    ReadOnlyAccess, SpecialPath, WireAccess, WirePath,
};
use sandbar_proto::{AbsPath, NetworkMode};

use super::{Places, read_profile, slash_tmp};
use crate::{Access, EntryPath, Left, Profile, Reads, Wanted, minimal};

/// The profile that means the same in the working directory `cwd` (facts/sandbox.md §1.1). A readable root below a writable one
/// takes nothing away there, as it would in a profile, and is left out.
#[must_use]
pub fn of_legacy(policy: &LegacyPolicy, cwd: &AbsPath) -> PermissionProfile {
    match policy {
        LegacyPolicy::DangerFullAccess => PermissionProfile::Disabled,
        LegacyPolicy::ExternalSandbox { network_access } => {
            PermissionProfile::External { network: *network_access }
        }
        LegacyPolicy::ReadOnly { access, network_access } => managed(readable(access, &[]), *network_access),
        LegacyPolicy::WorkspaceWrite {
            writable_roots,
            read_only_access,
            network_access,
            exclude_tmpdir_env_var,
            exclude_slash_tmp,
        } => {
            let roots: Vec<&AbsPath> = writable_roots.iter().map(|root| &root.0).chain([cwd]).collect();
            let mut entries = readable(read_only_access, &roots);
            entries.push(special(SpecialPath::CurrentWorkingDirectory, WireAccess::Write));
            entries.extend(writable_roots.iter().map(|root| at(root, WireAccess::Write)));
            if !exclude_tmpdir_env_var {
                entries.push(special(SpecialPath::Tmpdir, WireAccess::Write));
            }
            if !exclude_slash_tmp {
                entries.push(special(SpecialPath::SlashTmp, WireAccess::Write));
            }
            // A policy of this shape means that commits stay blocked.
            let git = SpecialPath::ProjectRoots { subpath: Some(".git".to_owned()) };
            let missing_path_behavior = Some(MissingPath::Skip);
            entries.push(ManagedEntry { missing_path_behavior, ..special(git, WireAccess::Read) });
            managed(entries, *network_access)
        }
    }
}

fn managed(entries: Vec<ManagedEntry>, has_network: bool) -> PermissionProfile {
    PermissionProfile::Managed {
        file_system: FileSystemPolicy::Restricted { entries, glob_scan_max_depth: None },
        network: if has_network { NetworkPolicy::Enabled } else { NetworkPolicy::Restricted },
    }
}

fn readable(access: &ReadOnlyAccess, writable: &[&AbsPath]) -> Vec<ManagedEntry> {
    match access {
        ReadOnlyAccess::FullAccess => vec![special(SpecialPath::Root, WireAccess::Read)],
        ReadOnlyAccess::Restricted { include_platform_defaults, readable_roots } => {
            let minimal = include_platform_defaults.then(|| special(SpecialPath::Minimal, WireAccess::Read));
            let cwd = special(SpecialPath::CurrentWorkingDirectory, WireAccess::Read);
            let is_written = |path: &AbsPath| writable.iter().any(|root| path.starts_with(root));
            let roots = readable_roots.iter().filter(|root| !is_written(&root.0));
            let roots = roots.map(|root| at(root, WireAccess::Read));
            minimal.into_iter().chain([cwd]).chain(roots).collect()
        }
    }
}

fn special(value: SpecialPath, access: WireAccess) -> ManagedEntry {
    ManagedEntry { path: ManagedPath::Special { value }, access, missing_path_behavior: None }
}

fn at(path: &WirePath, access: WireAccess) -> ManagedEntry {
    let path = ManagedPath::Path { path: path.clone() };
    ManagedEntry { path, access, missing_path_behavior: None }
}

/// The legacy policy that means the same as `profile` here, if there is one: what the policy's own profile means is compared.
#[must_use]
pub fn to_legacy(
    profile: &PermissionProfile,
    roots: &[&AbsPath],
    places: Places<'_>,
) -> Option<LegacyPolicy> {
    let wanted = read_profile(profile, roots, places).ok()?;
    let candidate = candidate(&wanted, places)?;
    let again = read_profile(&of_legacy(&candidate, places.cwd), &[], places).ok()?;
    (meaning(again) == meaning(wanted)).then_some(candidate)
}

/// What a legacy policy would have to say to mean this, as far as it can.
fn candidate(wanted: &Wanted, places: Places<'_>) -> Option<LegacyPolicy> {
    let has_network = wanted.network == NetworkMode::On;
    match wanted.profile {
        Profile::DangerFullAccess => return Some(LegacyPolicy::DangerFullAccess),
        Profile::External => {
            let network_access = if has_network { NetworkPolicy::Enabled } else { NetworkPolicy::Restricted };
            return Some(LegacyPolicy::ExternalSandbox { network_access });
        }
        Profile::ReadOnly | Profile::Workspace => {}
    }
    let access = reads(wanted, places);
    if wanted.allow_write.is_empty() && wanted.may_write.is_empty() {
        return Some(LegacyPolicy::ReadOnly { access, network_access: has_network });
    }
    // Nothing of this shape writes elsewhere without writing there.
    if !wanted.allow_write.contains(places.cwd) {
        return None;
    }
    let roots = wanted.allow_write.iter().filter(|root| *root != places.cwd);
    Some(LegacyPolicy::WorkspaceWrite {
        writable_roots: roots.map(|root| WirePath(root.clone())).collect(),
        read_only_access: access,
        network_access: has_network,
        exclude_tmpdir_env_var: !places.tmpdir.is_some_and(|tmpdir| wanted.may_write.contains(tmpdir)),
        exclude_slash_tmp: !wanted.may_write.contains(&slash_tmp()),
    })
}

fn reads(wanted: &Wanted, places: Places<'_>) -> ReadOnlyAccess {
    let Reads::Named { origin } = &wanted.reads else { return ReadOnlyAccess::FullAccess };
    let has = |path: &EntryPath| {
        wanted.entries.iter().any(|entry| entry.pattern == *path && entry.access == Access::Read)
    };
    let include_platform_defaults = minimal::entries(origin).all(|entry| has(&entry.pattern));
    let named = wanted.carve_outs.iter().filter(|line| line.left == Left::Read && line.path != *places.cwd);
    let is_written = |path: &AbsPath| wanted.allow_write.iter().any(|root| path.starts_with(root));
    let readable_roots =
        named.filter(|line| !is_written(&line.path)).map(|line| WirePath(line.path.clone())).collect();
    ReadOnlyAccess::Restricted { include_platform_defaults, readable_roots }
}

/// What is wanted, so that the same is equal.
fn meaning(mut wanted: Wanted) -> Wanted {
    for paths in [&mut wanted.allow_write, &mut wanted.may_write] {
        paths.sort();
        paths.dedup();
    }
    // What must be there says more than what may.
    let Wanted { allow_write, may_write, .. } = &mut wanted;
    may_write.retain(|path| !allow_write.contains(path));
    wanted.carve_outs.sort_by(|a, b| (&a.path, a.left as u8).cmp(&(&b.path, b.left as u8)));
    wanted.carve_outs.dedup();
    wanted.entries.sort_by(|a, b| (&a.pattern, a.access).cmp(&(&b.pattern, b.access)));
    wanted.entries.dedup();
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::path;
    use proptest::prelude::*;

    fn any_path() -> impl Strategy<Value = WirePath> {
        prop_oneof![
            Just("/w"),
            Just("/w/x"),
            Just("/x"),
            Just("/t"),
            Just("/tmp"),
            Just("/w/.git"),
            Just("/usr")
        ]
        .prop_map(|at| WirePath(path(at)))
    }

    fn any_reads() -> impl Strategy<Value = ReadOnlyAccess> {
        let restricted = (any::<bool>(), proptest::collection::vec(any_path(), 0..3)).prop_map(
            |(include_platform_defaults, readable_roots)| ReadOnlyAccess::Restricted {
                include_platform_defaults,
                readable_roots,
            },
        );
        prop_oneof![Just(ReadOnlyAccess::FullAccess), restricted]
    }

    fn any_legacy() -> impl Strategy<Value = LegacyPolicy> {
        let workspace = (proptest::collection::vec(any_path(), 0..3), any_reads(), any::<[bool; 3]>())
            .prop_map(
                |(
                    writable_roots,
                    read_only_access,
                    [network_access, exclude_tmpdir_env_var, exclude_slash_tmp],
                )| {
                    LegacyPolicy::WorkspaceWrite {
                        writable_roots,
                        read_only_access,
                        network_access,
                        exclude_tmpdir_env_var,
                        exclude_slash_tmp,
                    }
                },
            );
        let read_only = (any_reads(), any::<bool>())
            .prop_map(|(access, network_access)| LegacyPolicy::ReadOnly { access, network_access });
        let external = any::<bool>().prop_map(|on| LegacyPolicy::ExternalSandbox {
            network_access: if on { NetworkPolicy::Enabled } else { NetworkPolicy::Restricted },
        });
        prop_oneof![Just(LegacyPolicy::DangerFullAccess), external, read_only, workspace]
    }

    fn any_entry() -> impl Strategy<Value = ManagedEntry> {
        let value = prop_oneof![
            Just(SpecialPath::Root),
            Just(SpecialPath::Minimal),
            Just(SpecialPath::CurrentWorkingDirectory),
            Just(SpecialPath::ProjectRoots { subpath: None }),
            Just(SpecialPath::ProjectRoots { subpath: Some(".git".to_owned()) }),
            Just(SpecialPath::Tmpdir),
            Just(SpecialPath::SlashTmp),
        ];
        let place = prop_oneof![
            value.prop_map(|value| ManagedPath::Special { value }),
            any_path().prop_map(|path| ManagedPath::Path { path }),
        ];
        let access = prop_oneof![Just(WireAccess::Read), Just(WireAccess::Write), Just(WireAccess::None)];
        let missing = prop_oneof![Just(None), Just(Some(MissingPath::Skip))];
        (place, access, missing).prop_map(|(path, access, missing_path_behavior)| ManagedEntry {
            path,
            access,
            missing_path_behavior,
        })
    }

    fn meant(profile: &PermissionProfile) -> Option<Wanted> {
        let (cwd, tmpdir) = (path("/w"), path("/t"));
        read_profile(profile, &[], Places { cwd: &cwd, tmpdir: Some(&tmpdir) }).ok().map(meaning)
    }

    fn back(profile: &PermissionProfile) -> Option<LegacyPolicy> {
        let (cwd, tmpdir) = (path("/w"), path("/t"));
        to_legacy(profile, &[], Places { cwd: &cwd, tmpdir: Some(&tmpdir) })
    }

    proptest! {
        #[test]
        fn every_legacy_policy_is_a_profile_and_comes_back_as_what_it_means(policy in any_legacy()) {
            let profile = of_legacy(&policy, &path("/w"));
            prop_assert!(meant(&profile).is_some(), "{policy:?}");
            let returned = back(&profile);
            prop_assert!(returned.is_some(), "{policy:?} is {profile:?}");
            prop_assert_eq!(meant(&of_legacy(&returned.unwrap(), &path("/w"))), meant(&profile));
        }

        #[test]
        fn a_profile_is_legacy_only_if_the_way_back_means_the_same(
            entries in proptest::collection::vec(any_entry(), 0..5),
            has_network in any::<bool>(),
        ) {
            let profile = managed(entries, has_network);
            if let Some(policy) = back(&profile) {
                prop_assert_eq!(meant(&of_legacy(&policy, &path("/w"))), meant(&profile), "{:?}", policy);
            }
        }
    }

    #[test]
    fn what_a_legacy_policy_cannot_say_is_none() {
        let root = || special(SpecialPath::Root, WireAccess::Read);
        let cwd = || special(SpecialPath::CurrentWorkingDirectory, WireAccess::Write);
        let outside = at(&WirePath(path("/x")), WireAccess::Write);
        let hidden = at(&WirePath(path("/w/keys")), WireAccess::None);
        assert_eq!(back(&managed(vec![root(), outside], false)), None, "writes without a writable directory");
        assert_eq!(back(&managed(vec![root(), cwd(), hidden], false)), None, "hides something");
        assert_eq!(back(&managed(vec![root(), cwd()], false)), None, "lets commits through");
        assert!(back(&managed(vec![root()], false)).is_some());
    }
}
