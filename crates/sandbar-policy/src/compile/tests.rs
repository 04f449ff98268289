use sandbar_proto::{
    BindAccess, ByteString, EnvVar, IdRange, LandlockAccess, MountOp, NetworkMode, RunAs, Sandbox,
};

use super::*;
use crate::fake_host::{FakeHost, linux, path, request};
use crate::{GitMode, PathProblem};

const PROJECT: &str = "/home/u/proj";

fn workspace_host() -> FakeHost {
    FakeHost::with_home().repository("/home/u/proj/.git").file("/home/u/proj/src/main.rs")
}

fn kinds(compiled: &Compiled) -> Vec<String> {
    let name = |operation: &MountOp| match operation {
        MountOp::Bind { target, access: BindAccess::Read, .. } => format!("read {}", target.to_display()),
        MountOp::Bind { target, access: BindAccess::Write, .. } => format!("write {}", target.to_display()),
        MountOp::Mask { target, .. } => format!("mask {}", target.path.to_display()),
        MountOp::Tmpfs { target, mode, .. } => format!("tmpfs {} {mode:o}", target.to_display()),
        MountOp::MakeDir { path, .. } => format!("mkdir {}", path.to_display()),
        MountOp::MakeFile { path, .. } => format!("mkfile {}", path.to_display()),
        MountOp::Symlink { path, to } => format!("symlink {} {}", path.to_display(), to.to_display()),
        MountOp::Proc => "proc".to_owned(),
        MountOp::Dev => "dev".to_owned(),
    };
    linux(compiled).mounts.iter().map(name).collect()
}

fn value<'c>(compiled: &'c Compiled, name: &str) -> Option<&'c ByteString> {
    let is_it = |var: &&EnvVar| var.name.as_bytes() == name.as_bytes();
    compiled.plan.spec().env.iter().find(is_it).map(|var| &var.value)
}

#[test]
fn a_plain_workspace_becomes_these_operations() {
    let compiled = workspace_host().compile(&request(PROJECT));
    assert_eq!(
        kinds(&compiled),
        [
            "proc",
            "dev",
            "tmpfs /run 755",
            "tmpfs /tmp 1777",
            "tmpfs /var/tmp 1777",
            "write /home/u/proj",
            "mask /home/u/.cache/sandbar",
            "mask /home/u/.config/sandbar",
            "mkdir /var/tmp/sandbar-cache/cargo",
            "mkdir /var/tmp/sandbar-cache/npm",
            "mkdir /var/tmp/sandbar-cache/go-pkg",
            "mkdir /var/tmp/sandbar-cache/go-build",
            "mkdir /var/tmp/sandbar-cache/pip",
            "write /home/u/proj/.git",
            "mask /home/u/.local/state/sandbar",
            "read /home/u/proj/.git/config",
            "read /home/u/proj/.git/hooks",
            "write /home/u/proj/.git/info",
        ]
    );
    workspace_host().assert_agreement(&compiled);
    assert_eq!(compiled.notes, []);
    assert_eq!(compiled.network, NetworkMode::Off);
}

#[test]
fn a_plain_workspace_takes_three_rounds_and_few_questions() {
    let (compiled, rounds, asked) = workspace_host().count(&request(PROJECT));
    assert!(compiled.is_ok());
    assert!(rounds <= 3, "{rounds} rounds");
    assert!(asked.len() <= 61, "{} questions: {asked:#?}", asked.len());
}

#[test]
fn read_only_writes_nothing_but_temporary_files() {
    let host = workspace_host();
    let mut asked = request(PROJECT);
    asked.profile = Profile::ReadOnly;
    let compiled = host.compile(&asked);
    host.assert_agreement(&compiled);
    assert_eq!(host.access(&compiled, "/home/u/proj/src"), Access::Read);
    assert_eq!(host.access(&compiled, "/tmp/x"), Access::Write);
    assert_eq!(linux(&compiled).placeholders, []);
}

#[test]
fn full_access_is_the_named_absence_of_a_sandbox() {
    let mut asked = request(PROJECT);
    asked.profile = Profile::DangerFullAccess;
    let compiled = workspace_host().compile(&asked);
    assert_eq!(compiled.plan.spec().sandbox, Sandbox::None);
    assert_eq!(compiled.plan.spec().profile, "danger-full-access");
    assert_eq!(compiled.permissions.access(&path("/etc/shadow")).0, Access::Write);
    assert_eq!(compiled.network, NetworkMode::On);
}

#[test]
fn the_network_is_on_only_by_request() {
    let mut asked = request(PROJECT);
    asked.network = Some(NetworkMode::On);
    let compiled = workspace_host().compile(&asked);
    assert_eq!((compiled.network, linux(&compiled).network), (NetworkMode::On, NetworkMode::On));
}

#[test]
fn a_working_directory_that_is_no_directory_is_an_error() {
    let host = workspace_host();
    let error = |cwd: &str| host.try_compile(&request(cwd)).unwrap_err();
    let cwd = |at, problem| CompileError::Cwd { path: path(at), problem };
    assert_eq!(error("/home/u/gone"), cwd("/home/u/gone", PathProblem::Missing));
    assert_eq!(
        error("/home/u/proj/src/main.rs"),
        cwd("/home/u/proj/src/main.rs", PathProblem::NotADirectory)
    );
    assert_eq!(error("/proc"), CompileError::KernelDirectory { path: path("/proc"), remade: "/proc" });
}

#[test]
fn an_empty_command_is_an_error() {
    for argv in [vec![], vec!["".into()], vec!["".into(), "argument".into()]] {
        for profile in Profile::ALL {
            let mut asked = request(PROJECT);
            (asked.argv, asked.profile) = (argv.clone(), profile);
            assert_eq!(workspace_host().try_compile(&asked), Err(CompileError::EmptyCommand), "{argv:?}");
        }
    }
}

#[test]
fn the_working_directory_is_the_real_one() {
    let host = workspace_host().link("/home/u/link", PROJECT);
    let compiled = host.compile(&request("/home/u/link"));
    assert_eq!(compiled.plan.spec().cwd, host.pinned(&path(PROJECT)));
    assert_eq!(host.access(&compiled, PROJECT), Access::Write);
}

#[test]
fn a_working_directory_that_is_too_broad_stays_read_only_and_says_so() {
    let host = workspace_host().dir("/home/u/proj/.git/sub");
    let cases = [
        ("/", StricterBecause::IsRoot),
        ("/home/u", StricterBecause::HoldsHome),
        ("/home", StricterBecause::HoldsHome),
        ("/home/u/.config", StricterBecause::HoldsOwnFiles(path("/home/u/.config/sandbar"))),
        ("/home/u/proj/.git/sub", StricterBecause::IsProtected),
    ];
    for (cwd, because) in cases {
        let compiled = host.compile(&request(cwd));
        assert_eq!(compiled.notes, [Note::CwdNotWritable { cwd: path(cwd), because }]);
        assert_eq!(host.access(&compiled, cwd), Access::Read);
        host.assert_agreement(&compiled);
    }
}

#[test]
fn a_working_directory_of_the_system_is_opened_only_by_its_name() {
    let host = FakeHost::with_home().called_by_root().dir("/usr/lib/x").link("/lib", "/usr/lib");
    for (cwd, real) in [("/etc", "/etc"), ("/lib/x", "/usr/lib/x")] {
        let mut asked = request(cwd);
        let compiled = host.compile(&asked);
        let told = Note::CwdNotWritable { cwd: path(real), because: StricterBecause::IsSystem };
        assert_eq!(compiled.notes, [told]);
        assert_eq!(
            compiled.notes[0].to_string(),
            format!(
                "{real} is read-only here because it belongs to the system; --allow-write {real} opens it"
            )
        );
        assert_eq!(host.access(&compiled, real), Access::Read);
        host.assert_agreement(&compiled);
        asked.allow_write = vec![path(cwd)];
        let compiled = host.compile(&asked);
        assert_eq!(compiled.notes, []);
        assert_eq!(host.access(&compiled, real), Access::Write);
        host.assert_agreement(&compiled);
    }
    let host = host.dir("/opt/app");
    let compiled = host.compile(&request("/opt/app"));
    assert_eq!((&compiled.notes[..], host.access(&compiled, "/opt/app/x")), (&[][..], Access::Write));
}

#[test]
fn naming_what_is_too_broad_is_refused() {
    let host = workspace_host();
    for named in ["/", "/home/u", "/home/u/.config"] {
        let mut asked = request(named);
        asked.allow_write = vec![path(named)];
        let error = host.try_compile(&asked).unwrap_err();
        assert!(matches!(error, CompileError::AllowedTooBroad { .. }), "{error}");
    }
}

#[test]
fn no_rule_reopens_our_own_files() {
    let host = workspace_host().dir("/home/u/.cache/sandbar/x");
    let own = path("/home/u/.cache/sandbar");
    for inside in ["/home/u/.cache/sandbar", "/home/u/.cache/sandbar/x"] {
        let refused = CompileError::OwnFiles { path: path(inside), own: own.clone() };
        let (mut read, mut write) = (request(PROJECT), request(PROJECT));
        read.allow_read = vec![path(inside)];
        write.allow_write = vec![path(inside)];
        for asked in [read, write, request(inside)] {
            assert_eq!(host.try_compile(&asked).unwrap_err(), refused);
        }
    }
}

#[test]
fn a_named_path_has_to_exist() {
    let mut asked = request(PROJECT);
    asked.allow_read = vec![path("/nowhere")];
    assert_eq!(
        workspace_host().try_compile(&asked).unwrap_err().to_string(),
        "--allow-read /nowhere does not exist"
    );
}

#[test]
fn a_working_directory_among_secrets_has_to_be_named() {
    let host = FakeHost::with_home().dir("/home/u/.aws/x/y");
    let mut asked = request("/home/u/.aws/x");
    let hidden =
        CompileError::CwdHidden { path: path("/home/u/.aws/x"), hidden_by: Origin::Default("secrets") };
    assert_eq!(host.try_compile(&asked).unwrap_err(), hidden);
    asked.allow_write = vec![path("/home/u/.aws/x")];
    let compiled = host.compile(&asked);
    assert_eq!(host.access(&compiled, "/home/u/.aws/x/y"), Access::Write);
    assert_eq!(host.access(&compiled, "/home/u/.aws"), Access::None);
}

#[test]
fn a_workspace_in_tmp_is_rebuilt_in_the_private_one() {
    let host = FakeHost::with_home().dir("/tmp/a/proj").file("/tmp/other").file("/tmp/b/shared");
    let mut asked = request("/tmp/a/proj");
    asked.allow_read = vec![path("/tmp/b/shared")];
    let compiled = host.compile(&asked);
    let below_tmp: Vec<String> = kinds(&compiled).into_iter().filter(|kind| kind.contains("/tmp/")).collect();
    let below_tmp: Vec<&str> =
        below_tmp.iter().map(String::as_str).filter(|kind| !kind.contains("/var/")).collect();
    assert_eq!(
        below_tmp,
        [
            "mkdir /tmp/b",
            "mkdir /tmp/a/proj",
            "write /tmp/a/proj",
            "mkfile /tmp/b/shared",
            "read /tmp/b/shared",
        ]
    );
    assert_eq!(host.access(&compiled, "/tmp/b/shared"), Access::Read);
    host.assert_agreement(&compiled);
}

#[test]
fn running_in_tmp_itself_shows_the_hosts_and_says_so() {
    let host = FakeHost::with_home();
    for at in ["/tmp", "/var/tmp"] {
        let compiled = host.compile(&request(at));
        assert_eq!(compiled.notes, [Note::HostTemporaryVisible { path: path(at) }]);
        host.assert_agreement(&compiled);
    }
}

#[test]
fn running_among_host_sockets_is_refused() {
    let error = FakeHost::with_home().try_compile(&request("/run")).unwrap_err();
    // It also holds our own sockets, but what hides it decides.
    let hidden =
        CompileError::CwdHidden { path: path("/run"), hidden_by: Origin::Default("sockets of the host") };
    assert_eq!(error, hidden);
}

#[test]
fn name_resolution_survives_the_hidden_run() {
    let host = workspace_host()
        .file("/run/systemd/resolve/stub-resolv.conf")
        .file("/run/systemd/resolve/io.systemd.Resolve")
        .link("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf");
    let compiled = host.compile(&request(PROJECT));
    assert_eq!(host.access(&compiled, "/run/systemd/resolve/stub-resolv.conf"), Access::Read);
    assert_eq!(host.access(&compiled, "/run/systemd/resolve/io.systemd.Resolve"), Access::None);
    host.assert_agreement(&compiled);
}

#[test]
fn nixos_finds_its_programs() {
    let host = workspace_host().dir("/nix/store/system").link("/run/current-system", "/nix/store/system");
    let compiled = host.compile(&request(PROJECT));
    assert!(kinds(&compiled).contains(&"symlink /run/current-system /nix/store/system".to_owned()));
}

#[test]
fn every_directory_above_what_is_taken_away_is_pinned() {
    let host = FakeHost::with_home()
        .dir("/home/u/proj")
        .file("/home/u/.local/share/keyrings/login")
        .dir("/home/u/.local/share/other");
    let mut asked = request(PROJECT);
    asked.own.state = path("/var/lib/sandbar");
    let host = host.dir("/var/lib/sandbar");
    asked.allow_write = vec![path("/home/u/.local/share")];
    let compiled = host.compile(&asked);
    host.assert_agreement(&compiled);
    asked.own.config = path("/var/lib/sandbar/config");
    asked.own.cache = path("/var/lib/sandbar/cache");
    asked.home = Some(path("/home/u/a"));
    let host = host.dir("/home/u/a/.config/git/sub").file("/home/u/a/.config/git/credentials");
    asked.allow_write = vec![path("/home/u/a/.config")];
    let compiled = host.compile(&asked);
    assert!(kinds(&compiled).contains(&"write /home/u/a/.config/git".to_owned()));
    host.assert_agreement(&compiled);
}

#[test]
fn landlock_repeats_what_is_writable() {
    let compiled = workspace_host().compile(&request(PROJECT));
    let landlock = linux(&compiled).landlock.as_ref().unwrap();
    let mut rules: Vec<(String, LandlockAccess)> =
        landlock.rules.iter().map(|rule| (rule.path.to_display(), rule.access)).collect();
    rules.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("/", LandlockAccess::Read),
        ("/dev", LandlockAccess::Device),
        ("/dev/shm", LandlockAccess::Write),
        ("/home/u/proj", LandlockAccess::Write),
        ("/proc", LandlockAccess::Device),
        ("/tmp", LandlockAccess::Write),
        ("/var/tmp", LandlockAccess::Write),
    ];
    assert_eq!(rules, expected.map(|(at, access)| (at.to_owned(), access)));
    assert_eq!(landlock.min_abi, 1);
}

#[test]
fn nesting_leaves_landlock_to_what_it_can_scope_and_is_refused_to_the_hosts_root() {
    let mut asked = request("/home/u/proj");
    asked.within.nesting = true;
    let host = FakeHost::with_home().dir("/home/u/proj");
    let compiled = host.compile(&asked);
    let landlock = linux(&compiled).landlock.as_ref().unwrap();
    assert!(landlock.scopes_only && landlock.rules.is_empty() && compiled.notes.contains(&Note::Nesting));
    assert_eq!(host.called_by_root().try_compile(&asked).unwrap_err(), CompileError::NestingAsRoot);
}

#[test]
fn a_kernel_without_landlock_is_told() {
    let compiled = workspace_host().without_landlock().compile(&request(PROJECT));
    assert_eq!(linux(&compiled).landlock, None);
    assert_eq!(compiled.notes, [Note::NoLandlock]);
}

#[test]
fn an_unprivileged_caller_is_itself() {
    let compiled = workspace_host().owned_by(PROJECT, 2000).compile(&request(PROJECT));
    let only = vec![IdRange { first: 1000, count: 1 }];
    let identity = &linux(&compiled).identity;
    assert_eq!((&identity.users, &identity.groups, identity.run_as), (&only, &only, None));
}

#[test]
fn root_runs_as_the_owner_of_the_workspace() {
    let host = workspace_host().file("/root/.ssh/id").called_by_root().owned_by("/home/u", 1000);
    let host = host.file("/home/u/.ssh/id");
    let mut asked = request(PROJECT);
    asked.home = Some(path("/root"));
    asked.env = vec![
        EnvVar { name: "HOME".into(), value: "/root".into() },
        EnvVar { name: "USER".into(), value: "chosen".into() },
    ];
    let compiled = host.compile(&asked);
    assert_eq!(linux(&compiled).identity.run_as, Some(RunAs { uid: 1000, gid: 1000 }));
    let env = ["HOME", "USER", "LOGNAME"].map(|name| value(&compiled, name).map(ByteString::to_display));
    assert_eq!(env, ["/home/u", "chosen", "u"].map(|text| Some(text.to_owned())));
    let texts: Vec<String> = compiled.notes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["runs as u (uid 1000), who owns /home/u/proj"]);
    for secret in ["/root/.ssh/id", "/home/u/.ssh/id"] {
        assert_eq!(host.access(&compiled, secret), Access::None, "{secret}");
    }
}

#[test]
fn an_owner_that_cannot_be_mapped_is_told() {
    let host = workspace_host().called_by_root().owned_by("/home/u", 100_000);
    let compiled = host.compile(&request(PROJECT));
    assert_eq!(linux(&compiled).identity.run_as, None);
    assert_eq!(compiled.notes, [Note::OwnerNotMapped { uid: 100_000, owner_of: path(PROJECT) }]);
}

#[test]
fn caches_are_seen_copy_on_write_and_missing_ones_are_redirected() {
    let host = workspace_host().dir("/home/u/.cargo/registry").file("/home/u/.cargo/credentials.toml");
    let mut asked = request(PROJECT);
    asked.env = vec![EnvVar { name: "PIP_CACHE_DIR".into(), value: "/chosen".into() }];
    let compiled = host.compile(&asked);
    let cache = &linux(&compiled).caches[0];
    assert_eq!(cache.target, host.pinned(&path("/home/u/.cargo")));
    assert_eq!(cache.store, path("/home/u/.cache/sandbar/sandboxed/cargo"));
    assert_eq!(host.masks(&compiled), [("/home/u/.cargo/credentials.toml".to_owned(), true)]);
    let env = ["CARGO_HOME", "npm_config_cache", "PIP_CACHE_DIR"]
        .map(|name| value(&compiled, name).map(ByteString::to_display));
    let expected = [None, Some("/var/tmp/sandbar-cache/npm".to_owned()), Some("/chosen".to_owned())];
    assert_eq!(env, expected);
    host.assert_agreement(&compiled);
}

#[test]
fn a_cache_inside_the_workspace_is_just_part_of_it() {
    let host = workspace_host().dir("/home/u/proj/.cargo");
    let mut asked = request(PROJECT);
    asked.env = vec![EnvVar { name: "CARGO_HOME".into(), value: "/home/u/proj/.cargo".into() }];
    let compiled = host.compile(&asked);
    assert_eq!(linux(&compiled).caches, []);
    host.assert_agreement(&compiled);
}

#[test]
fn a_program_in_tmp_is_not_there_and_that_is_told() {
    let host = workspace_host().file("/tmp/tool");
    let mut asked = request(PROJECT);
    asked.argv = vec!["/tmp/tool".into()];
    let note = Note::ProgramHidden { program: path("/tmp/tool"), under: path("/tmp") };
    assert_eq!(host.compile(&asked).notes, [note]);
    asked.allow_read = vec![path("/tmp/tool")];
    assert_eq!(host.compile(&asked).notes, []);
}

#[test]
fn reading_takes_nothing_away() {
    let mut asked = request(PROJECT);
    asked.allow_read = vec![path("/home/u/proj/src"), path(PROJECT)];
    let host = workspace_host();
    assert_eq!(host.access(&host.compile(&asked), "/home/u/proj/src/main.rs"), Access::Write);
}

#[test]
fn protecting_git_blocks_commits() {
    let host = workspace_host();
    let mut asked = request(PROJECT);
    asked.git = GitMode::Protect;
    let compiled = host.compile(&asked);
    assert_eq!(host.access(&compiled, "/home/u/proj/.git/objects"), Access::Read);
    host.assert_agreement(&compiled);
}

mod random_trees {
    use proptest::prelude::*;

    use super::*;

    /// Places that rules fight over.
    const PLACES: [&str; 16] = [
        "/home/u/proj",
        "/home/u/proj/a/b",
        "/home/u/proj/.claude",
        "/home/u/.ssh",
        "/home/u/.ssh/a",
        "/home/u/.aws",
        "/home/u/.config/gh",
        "/home/u/.config/git/credentials",
        "/home/u/.cargo",
        "/home/u/.cargo/credentials",
        "/tmp/a",
        "/tmp/a/b",
        "/var/tmp/a",
        "/run/user/1000/a",
        "/dev/shm/a",
        "/srv/a",
    ];

    fn any_place() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(&PLACES[..])
    }

    fn any_places(most: usize) -> impl Strategy<Value = Vec<&'static str>> {
        proptest::collection::vec(any_place(), 0..=most)
    }

    fn host(directories: &[&str], links: &[(&str, &str)], repository: Option<&str>) -> FakeHost {
        let mut host = directories.iter().fold(FakeHost::with_home(), |host, at| host.dir(at));
        if let Some(at) = repository {
            host = host.repository(&format!("{at}/.git"));
        }
        // A link replaces nothing that is there.
        for (at, to) in links {
            let is_free = !directories.iter().any(|other| path(other).starts_with(&path(at)))
                && !repository.is_some_and(|other| path(other).starts_with(&path(at)));
            if is_free {
                host = host.link(at, to);
            }
        }
        host
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(sandbar_testkit::soak::cases(600)))]

        #[test]
        fn all_views_of_a_random_tree_agree(
            directories in any_places(8),
            links in proptest::collection::vec((any_place(), any_place()), 0..3),
            repository in proptest::option::of(any_place()),
            cwd in any_place(),
            allow_write in any_places(2),
            allow_read in any_places(2),
            profile in prop_oneof![Just(Profile::ReadOnly), Just(Profile::Workspace)],
            own in proptest::option::of(any_place()),
            runtime_root in any_place(),
            protect in any::<bool>(),
        ) {
            let mut all = directories;
            all.extend(&allow_write);
            all.extend(&allow_read);
            all.push(cwd);
            let host = host(&all, &links, repository);
            let mut asked = request(cwd);
            asked.profile = profile;
            asked.allow_write = allow_write.into_iter().map(path).collect();
            asked.allow_read = allow_read.into_iter().map(path).collect();
            asked.own.home = own.map(path);
            asked.runtime_roots = vec![path(runtime_root)];
            asked.git = if protect { GitMode::Protect } else { GitMode::Commit };
            if let Ok(compiled) = host.try_compile(&asked) {
                host.assert_agreement(&compiled);
                for own in asked.own.all() {
                    let below_tmp = ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|at| own.starts_with(&path(at)));
                    let shown = host.access(&compiled, &own.to_display());
                    prop_assert!(shown == Access::None || below_tmp || !host.exists(own), "{own:?}: {shown}");
                }
            }
            asked.executor = crate::ExecutorWish::Landlock;
            asked.give_up = vec![crate::GiveUp::ProtectedNames];
            if let Ok(compiled) = host.try_compile(&asked) {
                landlock::view::assert_agreement(&host, &compiled);
            }
        }
    }
}
