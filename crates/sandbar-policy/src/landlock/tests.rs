use sandbar_proto::{FactQuery, LandlockAccess, MountOp};

use super::*;
use crate::fake_host::{FakeHost, linux, path, request};
use crate::landlock::view::{self, assert_agreement};
use crate::{Access, ExecutorWish, Profile, RunRequest};

const WORK: &str = "/home/u/work";

fn by_landlock(profile: Profile) -> RunRequest {
    RunRequest { executor: ExecutorWish::Landlock, profile, ..request(WORK) }
}

fn giving_up() -> RunRequest {
    RunRequest { give_up: vec![GiveUp::ProtectedNames], ..by_landlock(Profile::Workspace) }
}

fn host() -> FakeHost {
    FakeHost::with_home().dir(WORK).dir("/usr/bin").file("/etc/hosts")
}

fn granted(compiled: &crate::Compiled, wanted: LandlockAccess) -> Vec<String> {
    let rules = &linux(compiled).landlock.as_ref().unwrap().rules;
    let found = rules.iter().filter(|rule| rule.access == wanted);
    let mut found: Vec<String> = found.map(|rule| rule.path.to_display()).collect();
    found.sort();
    found
}

#[test]
fn the_neighbours_of_what_is_hidden_are_granted_at_every_level() {
    let host = host().file("/home/u/.ssh/id").file("/home/u/notes").file("/home/u/.config/gh/hosts.yml");
    let host = host.file("/home/u/.config/app/rc").link("/home/u/link", "/home/u/.ssh");
    let compiled = host.compile(&by_landlock(Profile::ReadOnly));
    let expected =
        ["/etc", "/home/u/.config/app", "/home/u/notes", "/home/u/work", "/proc", "/usr"].map(str::to_owned);
    assert_eq!(granted(&compiled, LandlockAccess::Read), expected);
    assert_eq!(granted(&compiled, LandlockAccess::Write), Vec::<String>::new());
    let at = |text: &str| view::access(&compiled, &path(text));
    assert_eq!((at("/home/u/.ssh/id"), at("/home/u"), at("/")), (Access::None, Access::None, Access::None));
    assert_agreement(&host, &compiled);
}

#[test]
fn every_rule_is_for_one_file_and_there_is_nothing_to_mount() {
    let compiled = host().compile(&by_landlock(Profile::ReadOnly));
    let sandbox = linux(&compiled);
    assert!(sandbox.landlock.as_ref().unwrap().rules.iter().all(|rule| rule.identity.is_some()));
    assert_eq!(sandbox.mounts, Vec::<MountOp>::new());
    assert!(sandbox.caches.is_empty() && sandbox.placeholders.is_empty());
}

#[test]
fn a_secret_that_a_person_names_is_granted_and_its_neighbours_are_not() {
    let host = host().file("/home/u/.ssh/id").file("/home/u/.ssh/known_hosts");
    let asked =
        RunRequest { allow_read: vec![path("/home/u/.ssh/known_hosts")], ..by_landlock(Profile::ReadOnly) };
    let compiled = host.compile(&asked);
    let at = |text: &str| view::access(&compiled, &path(text));
    assert_eq!((at("/home/u/.ssh/known_hosts"), at("/home/u/.ssh/id")), (Access::Read, Access::None));
    assert_agreement(&host, &compiled);
}

#[test]
fn what_has_to_stay_as_it_is_in_a_writable_folder_is_refused_by_its_name() {
    let refused = |host: &FakeHost, asked: &RunRequest| {
        let error = host.try_compile(asked).unwrap_err();
        let CompileError::LandlockCannot { path, wanted, writable, .. } = error else { panic!("{error}") };
        (path.to_display(), wanted, writable.to_display())
    };
    let workspace = by_landlock(Profile::Workspace);
    let at = |name: &str| format!("{WORK}/{name}");
    assert_eq!(refused(&host(), &workspace), (at(".agents"), Nature::Reserved, WORK.to_owned()));
    let named = host().dir(&at(".agents"));
    assert_eq!(refused(&named, &workspace), (at(".agents"), Nature::Read, WORK.to_owned()));
    // That is no protected name, and nobody gave it up.
    let hidden = crate::CarveOut { path: path(&at("keys")), left: crate::Left::Nothing, reserve: false };
    let asked = RunRequest { carve_outs: vec![hidden], ..giving_up() };
    let keys = host().dir(&at("keys"));
    assert_eq!(refused(&keys, &asked), (at("keys"), Nature::Hidden, WORK.to_owned()));
}

#[test]
fn protected_names_that_are_given_up_are_writable_and_said_aloud() {
    let host = host().repository("/home/u/work/.git").dir("/home/u/work/.claude");
    let compiled = host.compile(&giving_up());
    assert_eq!(granted(&compiled, LandlockAccess::Write), [WORK]);
    for name in [".git/config", ".git/hooks/pre-commit", ".claude/settings.json", ".agents"] {
        let at = path(WORK).join(name).unwrap();
        assert_eq!(compiled.permissions.access(&at).0, Access::Write, "{name}");
    }
    let said = compiled.notes.iter().find(|note| matches!(note, Note::GivenUp { .. })).unwrap();
    assert!(said.is_warning());
    for name in [".git/config", ".git/hooks", ".claude", ".agents", "protected-names given up"] {
        assert!(said.to_string().contains(name), "{said}");
    }
    assert_agreement(&host, &compiled);
}

#[test]
fn nothing_is_given_up_where_mounts_hold_it() {
    let asked = RunRequest { executor: ExecutorWish::Native, ..giving_up() };
    let compiled = host().compile(&asked);
    assert!(!compiled.notes.iter().any(|note| matches!(note, Note::GivenUp { .. })));
    assert_eq!(compiled.permissions.access(&path("/home/u/work/.agents")).0, Access::Read);
}

#[test]
fn temporary_directories_and_shared_memory_of_the_host_are_nobodys() {
    let compiled = host().compile(&giving_up());
    for at in ["/tmp/x", "/var/tmp/x", "/dev/shm/x", "/run/user/1000/bus"] {
        assert_eq!(compiled.permissions.access(&path(at)).0, Access::None, "{at}");
        assert_eq!(view::access(&compiled, &path(at)), Access::None, "{at}");
    }
    // A folder there that is named is the host's.
    let asked = RunRequest { allow_write: vec![path("/tmp/named")], ..giving_up() };
    let compiled = host().dir("/tmp/named").compile(&asked);
    assert_eq!(view::access(&compiled, &path("/tmp/named/x")), Access::Write);
}

#[test]
fn an_older_landlock_is_no_sandbox_alone() {
    for found in 0..MIN_ABI {
        let host = host().with_landlock(found);
        let error = host.try_compile(&by_landlock(Profile::ReadOnly)).unwrap_err();
        assert_eq!(error, CompileError::LandlockAbi { found, needed: MIN_ABI });
    }
    assert!(host().with_landlock(MIN_ABI).try_compile(&by_landlock(Profile::ReadOnly)).is_ok());
}

#[test]
fn a_folder_with_too_many_names_hides_nothing() {
    let many = (0..=FactQuery::MAX_NAMES).fold(host(), |host, n| host.file(&format!("/home/u/many/{n}")));
    // Only where something in it has to be hidden.
    assert!(many.try_compile(&by_landlock(Profile::ReadOnly)).is_ok());
    let many = (0..=FactQuery::MAX_NAMES).fold(host(), |host, n| host.file(&format!("/home/u/.config/{n}")));
    let error = many.file("/home/u/.config/gh/hosts.yml").try_compile(&by_landlock(Profile::ReadOnly));
    assert_eq!(error.unwrap_err(), CompileError::LandlockTooMany { path: path("/home/u/.config") });
}

#[test]
fn the_number_of_processes_is_the_users() {
    let mut asked = by_landlock(Profile::ReadOnly);
    asked.limits.procs = Some(10);
    assert!(matches!(host().try_compile(&asked), Err(CompileError::Limit { .. })));
}
