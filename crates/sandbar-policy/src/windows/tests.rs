use std::time::Duration;

use proptest::prelude::*;
use sandbar_proto::{Limits, NetworkMode};

use super::*;
use crate::fake_host::{FakeHost, path, request};
use crate::{Openings, Origin};

const HOME: &str = "/C:/Users/u";
const WORK: &str = "/C:/Users/u/w";

fn host() -> WindowsHost {
    WindowsHost { profile: path(HOME), temporary: path("/C:/Sandbar/1") }
}

fn confinement(places: &[(&str, Nature)], network: NetworkMode) -> Confinement {
    let place = |(at, nature): &(&str, Nature)| Place {
        path: path(at),
        nature: *nature,
        origin: Origin::Flag("--test"),
    };
    let all = places.iter().map(place).collect();
    Confinement::new(all, network, path(WORK), Limits::default())
}

/// A workspace without anything hidden.
fn workspace(network: NetworkMode) -> Confinement {
    let places = [
        ("/", Nature::Read),
        ("/proc", Nature::Processes),
        ("/dev", Nature::Devices),
        (WORK, Nature::Write),
        ("/C:/Users/u/w/a/.git/hooks", Nature::Read),
        ("/C:/Users/u/w/.codex", Nature::Reserved),
    ];
    confinement(&places, network)
}

fn windows(at: &str) -> WindowsPath {
    WindowsPath::new(&path(at)).unwrap()
}

#[test]
fn the_support_matrix() {
    // Feature, at level restricted token, at level elevated.
    let table = [
        (Feature::ReadEverywhere, true, true),
        (Feature::ExactReads, false, true),
        (Feature::WritableRoots, true, true),
        (Feature::RootsWithoutCwd, false, true),
        (Feature::ReadOnlyCarveOut, true, true),
        (Feature::Reserved, true, true),
        (Feature::Hidden, false, false),
        (Feature::Pattern, false, false),
        (Feature::ReopenedWrite, false, false),
        (Feature::RemadeDirectory, false, false),
        (Feature::Cache, true, true),
        (Feature::OtherProcesses, true, true),
        (Feature::Devices, true, true),
        (Feature::NetworkOff, false, true),
        (Feature::LoopbackPorts, false, true),
        (Feature::LocalBinding, false, true),
        (Feature::UnixSockets, false, false),
        (Feature::NetworkAll, true, true),
        (Feature::Limit(Limit::Wall), true, true),
        (Feature::Limit(Limit::Cpu), true, true),
        (Feature::Limit(Limit::Procs), false, false),
        (Feature::Limit(Limit::Memory), true, true),
        (Feature::Limit(Limit::Files), false, false),
        (Feature::Limit(Limit::FileSize), false, false),
    ];
    assert_eq!(table.map(|(feature, ..)| feature), Feature::ALL);
    for (feature, token, account) in table {
        let enforced = Level::ALL.map(|level| matches!(decide(feature, level), Decision::Enforce { .. }));
        assert_eq!(enforced, [false, token, account], "{feature:?}");
    }
}

#[test]
fn every_decision_says_by_what_or_why_not() {
    for (feature, level) in
        Feature::ALL.into_iter().flat_map(|feature| Level::ALL.map(|level| (feature, level)))
    {
        let said = match decide(feature, level) {
            Decision::Enforce { by, .. } => by,
            Decision::Refuse { because } => because,
        };
        assert!(said.len() > 10 && said != "nobody has said how", "{feature:?} at {level}: {said}");
    }
}

/// Features that keep `confinement` from a plan.
fn refused(confinement: &Confinement, level: Level) -> Vec<Feature> {
    let refusals = plan(confinement, level, &host()).err().unwrap_or_default();
    let feature = |refusal: Refusal| match refusal {
        Refusal::Feature { need, .. } => need.feature,
        refusal @ (Refusal::Path { .. } | Refusal::TemporaryTooBroad { .. }) => panic!("{refusal}"),
    };
    refusals.into_iter().map(feature).collect()
}

/// What it is, its places, its network; the level; what the level can't enforce.
type Row = (&'static str, Vec<(&'static str, Nature)>, NetworkMode, Level, &'static [Feature]);

#[test]
fn what_a_confinement_needs_decides_whether_there_is_a_plan() {
    let read = ("/", Nature::Read);
    let work = (WORK, Nature::Write);
    let inside = "/C:/Users/u/w/x";
    let (token, account) = (Level::RestrictedToken, Level::Elevated);
    let table: [Row; 15] = [
        ("reads all, network on", vec![read], NetworkMode::On, token, &[]),
        ("reads all, network off", vec![read], NetworkMode::Off, token, &[Feature::NetworkOff]),
        ("reads all, network off", vec![read], NetworkMode::Off, account, &[]),
        ("writes the workspace", vec![read, work], NetworkMode::On, token, &[]),
        (
            "writes elsewhere",
            vec![read, ("/D:/x", Nature::Write)],
            NetworkMode::On,
            token,
            &[Feature::RootsWithoutCwd],
        ),
        ("writes elsewhere", vec![read, ("/D:/x", Nature::Write)], NetworkMode::On, account, &[]),
        ("a carve-out", vec![read, work, (inside, Nature::Read)], NetworkMode::On, token, &[]),
        (
            "a hidden place",
            vec![read, work, (inside, Nature::Hidden)],
            NetworkMode::On,
            token,
            &[Feature::Hidden],
        ),
        (
            "a hidden place",
            vec![read, work, (inside, Nature::Hidden)],
            NetworkMode::On,
            account,
            &[Feature::Hidden],
        ),
        (
            "a sealed place",
            vec![read, ("/C:/run", Nature::Sealed)],
            NetworkMode::On,
            account,
            &[Feature::Hidden],
        ),
        (
            "a remade place",
            vec![read, ("/C:/tmp", Nature::Private)],
            NetworkMode::On,
            account,
            &[Feature::RemadeDirectory],
        ),
        (
            "a reopened place",
            vec![read, work, (inside, Nature::Read), ("/C:/Users/u/w/x/y", Nature::Write)],
            NetworkMode::On,
            account,
            &[Feature::ReopenedWrite],
        ),
        ("a cache", vec![read, ("/C:/Users/u/c", Nature::Cache)], NetworkMode::On, token, &[]),
        ("named reads", vec![("/C:/x", Nature::Read)], NetworkMode::On, token, &[Feature::ExactReads]),
        ("named reads", vec![("/C:/x", Nature::Read)], NetworkMode::On, account, &[]),
    ];
    for (what, places, network, level, expected) in table {
        assert_eq!(refused(&confinement(&places, network), level), expected, "{what} at {level}");
    }
}

#[test]
fn everything_that_is_refused_is_named_at_once() {
    let places = [("/", Nature::Read), (WORK, Nature::Write), ("/C:/Users/u/.ssh", Nature::Hidden)];
    let limits = Limits { procs: Some(9), memory_bytes: Some(1 << 30), files: Some(64), ..Limits::default() };
    let places = confinement(&places, NetworkMode::Off).places().to_vec();
    let confinement = Confinement::new(places, NetworkMode::Off, path(WORK), limits);
    let expected =
        [Feature::Hidden, Feature::NetworkOff, Feature::Limit(Limit::Procs), Feature::Limit(Limit::Files)];
    assert_eq!(refused(&confinement, Level::RestrictedToken), expected);
    let refusals = plan(&confinement, Level::RestrictedToken, &host()).unwrap_err();
    assert_eq!(
        refusals[0].to_string(),
        "Hidden at /C:/Users/u/.ssh can't be enforced at level `restricted token`: \
         a write-restricted token reads whatever the person may"
    );
}

#[test]
fn without_a_sandbox_nothing_has_a_plan() {
    let least = confinement(&[("/", Nature::Read)], NetworkMode::On);
    assert_eq!(refused(&least, Level::Disabled), [Feature::ReadEverywhere, Feature::NetworkAll]);
}

#[test]
fn the_usual_workspace_is_refused_because_of_its_secrets_and_temporary_directories() {
    let host = FakeHost::with_home().dir("/home/u/w").dir("/home/u/.ssh");
    let compiled = host.compile(&request("/home/u/w"));
    for level in [Level::RestrictedToken, Level::Elevated] {
        let refusals = plan(compiled.confinement.as_ref().unwrap(), level, &self::host()).unwrap_err();
        let has = |feature, at: &str| {
            refusals.iter().any(|refusal| {
                matches!(refusal, Refusal::Feature { need, .. } if need.feature == feature && need.path == path(at))
            })
        };
        assert!(
            has(Feature::Hidden, "/home/u/.ssh") && has(Feature::RemadeDirectory, "/tmp"),
            "{refusals:?}"
        );
    }
}

#[test]
fn a_workspace_by_token_is_this_plan() {
    let made = plan(&workspace(NetworkMode::On), Level::RestrictedToken, &host()).unwrap();
    let entry = |at: &str, effect, rights, scope| AclEntry {
        path: windows(at),
        sid: Sid::Capability,
        effect,
        rights,
        scope,
    };
    let label = |at: &str, integrity| Label { path: windows(at), integrity };
    let (hooks, codex) = ("/C:/Users/u/w/a/.git/hooks", "/C:/Users/u/w/.codex");
    let expected = WindowsPlan {
        token: Token {
            account: None,
            flags: [Flag::DisableMaxPrivilege, Flag::LuaToken, Flag::WriteRestricted],
            restricting: [Sid::Capability, Sid::Logon],
            integrity: Integrity::Low,
        },
        entries: vec![
            entry(WORK, Effect::Allow, rights::FILL, Scope::This),
            entry(WORK, Effect::Allow, rights::CHANGE, Scope::Below),
            entry("/C:/Sandbar/1", Effect::Allow, rights::FILL, Scope::This),
            entry("/C:/Sandbar/1", Effect::Allow, rights::CHANGE, Scope::Below),
            entry(codex, Effect::Deny, rights::ANY_CHANGE, Scope::Both),
            entry(hooks, Effect::Deny, rights::ANY_CHANGE, Scope::Both),
            entry(WORK, Effect::Deny, rights::DELETE, Scope::This),
            entry("/C:/Users/u/w/a", Effect::Deny, rights::DELETE, Scope::This),
            entry("/C:/Users/u/w/a/.git", Effect::Deny, rights::DELETE, Scope::This),
        ],
        labels: vec![
            label(WORK, Integrity::Low),
            label("/C:/Sandbar/1", Integrity::Low),
            label(codex, Integrity::Medium),
            label(hooks, Integrity::Medium),
        ],
        job: Job { kill_on_close: true, may_leave: false, ui: UiLimit::ALL, memory_bytes: None },
        firewall: vec![],
        exceptions: vec![
            "a file that a program of the person replaces while the run lives is like its directory from then on",
        ],
    };
    assert_eq!(made, expected);
}

#[test]
fn an_account_apart_gets_its_own_entries_and_reads_the_profile() {
    let made = plan(&workspace(NetworkMode::Off), Level::Elevated, &host()).unwrap();
    assert_eq!((made.token.account, made.token.integrity), (Some(Account::Offline), Integrity::Medium));
    assert_eq!(made.labels, []);
    let of = |sid| made.entries.iter().filter(move |entry| entry.sid == sid && entry.rights != rights::READ);
    let without_sid = |entry: &AclEntry| (entry.path.clone(), entry.effect, entry.rights, entry.scope);
    let (capability, accounts): (Vec<_>, Vec<_>) =
        (of(Sid::Capability).map(without_sid).collect(), of(Sid::SandboxAccounts).map(without_sid).collect());
    assert_eq!((capability.len(), capability), (9, accounts));
    let reads: Vec<&AclEntry> = made.entries.iter().filter(|entry| entry.rights == rights::READ).collect();
    assert!(
        matches!(reads[..], [AclEntry { path, sid: Sid::SandboxAccounts, .. }] if *path == windows(HOME))
    );
    let resolver = "the system's resolver asks for names on behalf of every account";
    assert!(made.exceptions.contains(&resolver));
    let online = plan(&workspace(NetworkMode::On), Level::Elevated, &host()).unwrap();
    assert_eq!((online.token.account, online.firewall), (Some(Account::Online), vec![]));
}

#[test]
fn bounds_go_to_the_job_object_or_the_keeper() {
    let limits = Limits {
        memory_bytes: Some(1 << 30),
        wall: Some(Duration::from_secs(9)),
        cpu: Some(Duration::from_secs(3)),
        ..Limits::default()
    };
    let places = workspace(NetworkMode::On).places().to_vec();
    let bounded = Confinement::new(places, NetworkMode::On, path(WORK), limits);
    for level in [Level::RestrictedToken, Level::Elevated] {
        assert_eq!(plan(&bounded, level, &host()).unwrap().job.memory_bytes, Some(1 << 30));
    }
}

/// What a filter engine says of a connection by TCP.
fn passes(rules: &[FirewallRule], direction: Direction, to_loopback: bool, port: u16) -> bool {
    let matches = |rule: &&FirewallRule| {
        rule.direction == direction
            && match rule.remote {
                Remote::Any => true,
                Remote::Loopback => to_loopback,
                Remote::LoopbackPort(own) => to_loopback && own == port,
            }
    };
    let decisive = rules.iter().filter(matches).max_by_key(|rule| (rule.weight, rule.action));
    decisive.is_none_or(|rule| rule.action == Action::Permit)
}

#[test]
fn the_account_that_goes_offline_reaches_what_was_opened() {
    let reached = |openings: Openings| {
        let opened = workspace(NetworkMode::Off).with_openings(openings);
        let rules = plan(&opened, Level::Elevated, &host()).unwrap().firewall;
        assert!(rules.iter().all(|rule| rule.account == Account::Offline));
        [
            passes(&rules, Direction::Outbound, true, 3128),
            passes(&rules, Direction::Outbound, true, 80),
            passes(&rules, Direction::Outbound, false, 3128),
            passes(&rules, Direction::Inbound, true, 80),
            passes(&rules, Direction::Inbound, false, 80),
        ]
    };
    let nothing = Openings::default();
    assert_eq!(reached(nothing.clone()), [false; 5]);
    let proxy = Openings { loopback_ports: [3128].into(), ..nothing.clone() };
    assert_eq!(reached(proxy), [true, false, false, false, false]);
    let local = Openings { local_binding: true, ..nothing.clone() };
    assert_eq!(reached(local), [true, true, false, true, false]);
    let socket = Openings { sockets: [path("/C:/Users/u/w/s")].into(), ..nothing };
    let opened = workspace(NetworkMode::Off).with_openings(socket);
    assert_eq!(refused(&opened, Level::Elevated), [Feature::UnixSockets]);
}

#[test]
fn paths_that_are_not_what_they_seem_have_no_plan() {
    let refused = |places: &[(&str, Nature)]| {
        plan(&confinement(places, NetworkMode::On), Level::Elevated, &host()).unwrap_err()
    };
    let read = ("/", Nature::Read);
    let refusal = |at: &str, because| Refusal::Path { path: path(at), because };
    assert_eq!(refused(&[read, ("/home/u", Nature::Write)]), [refusal("/home/u", BadPath::NoDrive)]);
    assert_eq!(refused(&[read, ("/C:/x/nul", Nature::Write)]), [refusal("/C:/x/nul", BadPath::Device)]);
    let twice = refused(&[read, ("/C:/x/Y", Nature::Write), ("/C:/x/y", Nature::Write)]);
    assert_eq!(twice, [refusal("/C:/x/y", BadPath::SameName)]);
    let broad = WindowsHost { temporary: path("/C:/Users"), ..host() };
    let expected = Refusal::TemporaryTooBroad { path: path("/C:/Users"), holds: path(WORK) };
    assert_eq!(plan(&workspace(NetworkMode::On), Level::Elevated, &broad), Err(vec![expected]));
}

/// Windows in memory: what the entries and labels of a plan let the run do.
struct Lists<'a>(&'a WindowsPlan);

impl Lists<'_> {
    /// Whether a list grants `sid` all of `rights`: on the file itself before what is inherited, from near before from
    /// far, denials before grants ("Order of ACEs in a DACL").
    fn grants(&self, sid: Sid, at: &AbsPath, rights: Rights) -> bool {
        (0..32).map(|bit| 1 << bit).filter(|bit| rights.0 & bit != 0).all(|bit| {
            let lists = std::iter::successors(Some(at.clone()), AbsPath::parent);
            lists
                .filter(|list| *list != AbsPath::root())
                .find_map(|list| self.entry(sid, &list, list == *at, bit))
                == Some(Effect::Allow)
        })
    }

    fn entry(&self, sid: Sid, list: &AbsPath, is_own: bool, bit: u32) -> Option<Effect> {
        let list = WindowsPath::new(list).unwrap();
        let counts = |entry: &&AclEntry| {
            let scope = if is_own { Scope::This } else { Scope::Below };
            let in_scope = entry.scope == scope || entry.scope == Scope::Both;
            entry.path == list && entry.sid == sid && in_scope && entry.rights.0 & bit != 0
        };
        self.0.entries.iter().filter(counts).map(|entry| entry.effect).max()
    }

    fn is_low(&self, at: &AbsPath) -> bool {
        let at = WindowsPath::new(at).unwrap();
        let labels = self.0.labels.iter().filter(|label| at.starts_with(&label.path));
        let nearest = labels.max_by_key(|label| label.path.to_string().len());
        nearest.is_some_and(|label| label.integrity == Integrity::Low)
    }

    fn may(&self, at: &AbsPath, rights: Rights) -> bool {
        let by_label = self.0.token.integrity != Integrity::Low || self.is_low(at);
        // What belongs to the person is granted to the person's own account.
        let by_account = self.0.token.account.is_none() || self.grants(Sid::SandboxAccounts, at, rights);
        by_label && by_account && self.grants(Sid::Capability, at, rights)
    }
}

/// What is written without being read.
const FILLS: Rights = Rights(rights::FILL.0 & !rights::READ.0);

/// What the resolver says, with a cache as what surrounds it.
fn is_stated_writable(confinement: &Confinement, at: &AbsPath) -> bool {
    match confinement.place_of(at) {
        Some(Place { nature: Nature::Cache, path, .. }) => {
            path.parent().is_some_and(|around| is_stated_writable(confinement, &around))
        }
        place => place.is_some_and(|place| place.nature == Nature::Write),
    }
}

fn any_place() -> impl Strategy<Value = (String, Nature)> {
    let at = proptest::collection::vec("[ab]", 0..4)
        .prop_map(|parts| [vec![WORK.to_owned()], parts].concat().join("/"));
    let natures = [Nature::Read, Nature::Write, Nature::Write, Nature::Reserved, Nature::Cache];
    (at, proptest::sample::select(natures.to_vec()))
}

proptest! {
    #[test]
    fn the_lists_of_a_plan_say_what_the_resolver_says(
        places in proptest::collection::vec(any_place(), 0..5),
        asked in proptest::collection::vec(any_place(), 1..12),
        elevated in any::<bool>(),
    ) {
        let mut all: Vec<(&str, Nature)> = places.iter().map(|(at, nature)| (at.as_str(), *nature)).collect();
        all.extend([("/", Nature::Read), (WORK, Nature::Write)]);
        let confinement = confinement(&all, NetworkMode::On);
        let level = if elevated { Level::Elevated } else { Level::RestrictedToken };
        let Ok(made) = plan(&confinement, level, &host()) else {
            prop_assert!(!refused(&confinement, level).is_empty());
            return Ok(());
        };
        let lists = Lists(&made);
        let stated = |at: &AbsPath| is_stated_writable(&confinement, at);
        for (at, _) in asked.iter().chain(&places) {
            let at = path(at);
            prop_assert_eq!(lists.may(&at, FILLS), stated(&at), "{:?}: {:#?}", at, made);
            // What may be moved is writable as a whole, and lies in something writable.
            let holds_less = confinement.places().iter().any(|place| {
                place.path.starts_with(&at) && !stated(&place.path)
            });
            let is_free = stated(&at) && !holds_less && at.parent().is_some_and(|parent| stated(&parent));
            prop_assert_eq!(lists.may(&at, rights::DELETE), is_free, "{:?}", at);
            for never in [0x40, 0x4_0000, 0x8_0000] {
                prop_assert!(!lists.may(&at, Rights(never)), "{at:?}: {never:#x}");
            }
        }
    }
}
