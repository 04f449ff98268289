use proptest::prelude::*;
use sandbar_proto::{Limits, NetworkMode};

use super::evaluator::{Evaluator, Subject};
use super::*;
use crate::Origin;
use crate::fake_host::{FakeHost, path, request};

const TEMPORARY: &str = "/private/var/sandbar/1";

fn confinement(places: &[(&str, Nature)]) -> Confinement {
    let place = |(at, nature): &(&str, Nature)| Place {
        path: path(at),
        nature: *nature,
        origin: Origin::Flag("--test"),
    };
    let limits = Limits::default();
    Confinement::new(places.iter().map(place).collect(), NetworkMode::Off, path("/w"), limits)
}

fn evaluate(confinement: &Confinement) -> Evaluator {
    let made = profile(confinement, &path(TEMPORARY)).unwrap();
    Evaluator::new(made.text(), made.parameters()).unwrap()
}

fn workspace() -> Confinement {
    confinement(&[
        ("/", Nature::Read),
        ("/dev", Nature::Devices),
        ("/w", Nature::Write),
        ("/w/a/.git/hooks", Nature::Read),
        ("/w/.codex", Nature::Reserved),
        ("/h/.ssh", Nature::Hidden),
        ("/h/.ssh/known_hosts", Nature::Read),
    ])
}

#[test]
fn a_plain_workspace_becomes_these_rules() {
    let made = profile(&workspace(), &path(TEMPORARY)).unwrap();
    let rules = made.text().strip_prefix(system::BASE).unwrap();
    let read = "file-read* file-map-executable process-exec*";
    let whole = |name: &str| format!("(literal (param \"{name}\")) (subpath (param \"{name}\"))");
    let at = |word: &str, number: usize| whole(&format!("{word}_{number}"));
    let expected = [
        format!("(deny file-write* {})\n(allow {read} {})\n", at("PLACE", 0), at("PLACE", 0)),
        format!("(deny file-write* {})\n(deny {read} {})\n", at("PLACE", 1), at("PLACE", 1)),
        system::DEVICES.to_owned(),
        format!("(deny file-write* {})\n(deny {read} {})\n", at("PLACE", 2), at("PLACE", 2)),
        format!("(deny file-write* {})\n(allow {read} {})\n", at("PLACE", 3), at("PLACE", 3)),
        format!("(allow {read} {})\n(allow file-write* {})\n", at("PLACE", 4), at("PLACE", 4)),
        format!("(deny file-write* {})\n(allow {read} {})\n", at("PLACE", 5), at("PLACE", 5)),
        format!("(deny file-write* {})\n(allow {read} {})\n", at("PLACE", 6), at("PLACE", 6)),
        format!("(allow {read} {})\n(allow file-write* {})\n", at("TEMPORARY", 7), at("TEMPORARY", 7)),
        "(allow system-socket (socket-domain AF_UNIX))\n".to_owned(),
        "(allow network-bind network-inbound (local unix-socket (subpath (param \"TEMPORARY_7\"))))\n"
            .to_owned(),
        "(allow network-outbound (remote unix-socket (subpath (param \"TEMPORARY_7\"))))\n".to_owned(),
        "(allow file-read-metadata (literal (param \"PASSAGE_8\")))\n".to_owned(),
        "(deny file-write-unlink file-write-create (literal (param \"PINNED_9\")))\n".to_owned(),
        "(deny file-write-unlink file-write-create (literal (param \"PINNED_10\")))\n".to_owned(),
        "(deny file-write-unlink file-write-create (literal (param \"PINNED_11\")))\n".to_owned(),
        "(deny file-write-unlink file-write-create (literal (param \"PINNED_12\")))\n".to_owned(),
        "(deny file-write-setugid)\n".to_owned(),
    ];
    assert_eq!(rules, expected.concat());
    let values: Vec<&str> = made.parameters().iter().map(|(_, value)| value.as_str()).collect();
    let expected = [
        "/",
        "/dev",
        "/h/.ssh",
        "/h/.ssh/known_hosts",
        "/w",
        "/w/.codex",
        "/w/a/.git/hooks",
        TEMPORARY,
        "/h/.ssh",
        TEMPORARY,
        "/w",
        "/w/a",
        "/w/a/.git",
    ];
    assert_eq!(values, expected);
}

#[test]
fn paths_travel_beside_the_text_whatever_their_names_are() {
    let odd = "/w/\") (allow default) ; #\"\\ \n=ü";
    let made =
        profile(&confinement(&[("/", Nature::Read), (odd, Nature::Hidden)]), &path(TEMPORARY)).unwrap();
    let plain =
        profile(&confinement(&[("/", Nature::Read), ("/w", Nature::Hidden)]), &path(TEMPORARY)).unwrap();
    assert_eq!(made.text(), plain.text());
    assert!(made.arguments().contains(&format!("-DPLACE_1={odd}")));
    let rules = Evaluator::new(made.text(), made.parameters()).unwrap();
    assert!(
        !rules.allows_at("file-read-data", &path(odd)) && rules.allows_at("file-read-data", &path("/w/x"))
    );
    let no_text = AbsPath::new(&b"/w/\xff"[..]).unwrap();
    let place = Place { path: no_text.clone(), nature: Nature::Read, origin: Origin::OwnFiles };
    let odd = Confinement::new(vec![place], NetworkMode::Off, path("/"), Limits::default());
    assert_eq!(profile(&odd, &path(TEMPORARY)), Err(SeatbeltError::NotText { path: no_text }));
}

#[test]
fn the_arguments_are_the_rules_the_parameters_and_the_end_of_options() {
    let made = profile(&confinement(&[("/", Nature::Read)]), &path(TEMPORARY)).unwrap();
    let arguments = made.arguments();
    assert_eq!((arguments[0].as_str(), arguments[1].as_str()), ("-p", made.text()));
    assert_eq!(arguments[2], "-DPLACE_0=/");
    assert_eq!(arguments.last().map(String::as_str), Some("--"));
}

#[test]
fn what_leads_to_a_carve_out_can_be_filled_and_not_moved() {
    let rules = evaluate(&workspace());
    for at in ["/w", "/w/a", "/w/a/.git", TEMPORARY] {
        assert!(rules.allows_at("file-write-data", &path(at)), "{at}");
        for operation in ["file-write-unlink", "file-write-create"] {
            assert!(!rules.allows_at(operation, &path(at)), "{operation} {at}");
            assert!(rules.allows_at(operation, &path(at).join("new").unwrap()), "{operation} {at}/new");
        }
    }
    for at in ["/w/a/.git/hooks", "/w/a/.git/hooks/pre-commit", "/w/.codex", "/w/.codex/config"] {
        for operation in ["file-write-unlink", "file-write-create", "file-write-data"] {
            assert!(!rules.allows_at(operation, &path(at)), "{operation} {at}");
        }
    }
}

#[test]
fn a_hidden_directory_with_something_reopened_is_passed_through_and_not_listed() {
    let rules = evaluate(&workspace());
    let ssh = path("/h/.ssh");
    assert!(rules.allows_at("file-read-metadata", &ssh) && !rules.allows_at("file-read-data", &ssh));
    assert!(!rules.allows_at("file-read-metadata", &path("/h/.ssh/id")));
    assert!(rules.allows_at("file-read-data", &path("/h/.ssh/known_hosts")));
    assert!(!rules.allows_at("process-exec", &path("/h/.ssh/id")));
}

#[test]
fn nobody_gets_a_set_user_id_bit_or_a_second_name_for_a_file() {
    let rules = evaluate(&workspace());
    for operation in ["file-write-setugid", "file-link"] {
        assert!(!rules.allows_at(operation, &path("/w/x")), "{operation}");
    }
}

#[test]
fn devices_are_those_that_programs_expect() {
    let rules = evaluate(&workspace());
    let access = |at: &str| {
        ["file-read-data", "file-write-data", "file-ioctl"]
            .map(|operation| rules.allows_at(operation, &path(at)))
    };
    let table = [
        ("/dev/null", [true, true, false]),
        ("/dev/urandom", [true, false, false]),
        ("/dev/tty", [true, true, true]),
        ("/dev/fd/1", [true, true, false]),
        // Of a terminal that the run did not make: the settings.
        ("/dev/ttys004", [false, false, true]),
        ("/dev/disk0", [false, false, false]),
        ("/dev/bpf0", [false, false, false]),
        ("/dev", [false, false, false]),
    ];
    for (at, expected) in table {
        assert_eq!(access(at), expected, "{at}");
    }
    let at = path("/dev/ttys004");
    let own = Subject { path: Some(&at), extension: Some("com.apple.sandbox.pty"), ..Subject::default() };
    assert!(rules.allows("file-write-data", &own));
}

#[test]
fn a_run_deals_with_its_own_processes_and_named_services() {
    let rules = evaluate(&workspace());
    let target =
        |operation, target| rules.allows(operation, &Subject { target: Some(target), ..Subject::default() });
    assert!(target("signal", "self") && target("signal", "same-sandbox") && !target("signal", "others"));
    assert!(target("process-info-pidinfo", "same-sandbox") && !target("process-info-pidinfo", "others"));
    let named =
        |operation, name| rules.allows(operation, &Subject { name: Some(name), ..Subject::default() });
    let services = [
        "com.apple.cfprefsd.agent",
        "com.apple.SecurityServer",
        "com.apple.pasteboard.1",
        "com.apple.coreservices.appleevents",
        "com.apple.trustd",
    ];
    assert_eq!(services.map(|name| named("mach-lookup", name)), [true, false, false, false, false]);
    let facts = ["hw.ncpu", "kern.osrelease", "kern.procargs2", "kern.proc.all"];
    assert_eq!(facts.map(|name| named("sysctl-read", name)), [true, true, false, false]);
    let memory = ["/__KMP_REGISTERED_LIB_12", "/__KMP_REGISTERED_LIB_12x", "/other"];
    assert_eq!(memory.map(|name| named("ipc-posix-shm-write-create", name)), [true, false, false]);
    assert!(rules.allows("user-preference-read", &Subject::default()));
    assert!(rules.allows("process-fork", &Subject::default()));
}

/// Whether a run reaches these, in this order: a proxy's port, another one, another machine, a named socket, another
/// one, the resolver's, and one of its own.
fn reached(confinement: &Confinement) -> [bool; 7] {
    let rules = evaluate(confinement);
    let address = |host, port| {
        rules.allows("network-outbound", &Subject { address: Some((host, port)), ..Subject::default() })
    };
    let socket = |at: &str| rules.allows_at("network-outbound", &path(at));
    [
        address("localhost", 3128),
        address("localhost", 5432),
        address("example.org", 443),
        socket("/w/agent.sock"),
        socket("/w/docker.sock"),
        socket("/private/var/run/mDNSResponder"),
        socket(&format!("{TEMPORARY}/own.sock")),
    ]
}

#[test]
fn the_network_is_opened_by_port_and_by_socket() {
    let open = |openings| reached(&workspace().with_openings(openings));
    let nothing = Openings::default();
    assert_eq!(open(nothing.clone()), [false, false, false, false, false, false, true]);
    let proxy = Openings { loopback_ports: [3128].into(), ..nothing.clone() };
    assert_eq!(open(proxy), [true, false, false, false, false, false, true]);
    let agent = Openings { sockets: [path("/w/agent.sock")].into(), ..nothing.clone() };
    assert_eq!(open(agent), [false, false, false, true, false, false, true]);
    let servers = Openings { local_binding: true, ..nothing };
    assert_eq!(open(servers), [true, true, false, false, false, false, true]);
    let places = workspace().places().to_vec();
    let on = Confinement::new(places, NetworkMode::On, path("/w"), Limits::default());
    assert_eq!(reached(&on), [true, true, true, false, false, true, true]);
}

#[test]
fn only_a_run_that_may_serve_binds_ports() {
    let binds = |openings| {
        let rules = evaluate(&workspace().with_openings(openings));
        let at = |host| Subject { address: Some((host, 8080)), ..Subject::default() };
        ["localhost", "0.0.0.0"].map(|host| rules.allows("network-bind", &at(host)))
    };
    assert_eq!(binds(Openings { loopback_ports: [8080].into(), ..Openings::default() }), [false, false]);
    assert_eq!(binds(Openings { local_binding: true, ..Openings::default() }), [true, false]);
}

#[test]
fn what_would_open_more_than_was_decided_is_refused() {
    let refused = |temporary: &str| profile(&workspace(), &path(temporary)).unwrap_err();
    for (temporary, holds) in [("/", "/"), ("/h", "/h/.ssh"), ("/w", "/w")] {
        let expected = SeatbeltError::TemporaryTooBroad { path: path(temporary), holds: path(holds) };
        assert_eq!(refused(temporary), expected);
    }
    let hidden = path("/h/.ssh/agent");
    let openings = Openings { sockets: [hidden.clone()].into(), ..Openings::default() };
    let made = profile(&workspace().with_openings(openings), &path(TEMPORARY));
    assert_eq!(made, Err(SeatbeltError::SocketHidden { path: hidden }));
}

#[test]
fn paths_are_the_real_ones_behind_the_links_of_macos() {
    let host = FakeHost::with_home()
        .link("/tmp", "/private/tmp")
        .dir("/private/tmp")
        .link("/etc", "/private/etc")
        .dir("/private/etc")
        .dir("/private/tmp/w/.git");
    let compiled = host.compile(&request("/tmp/w"));
    let rules = evaluate(compiled.confinement.as_ref().unwrap());
    assert!(rules.allows_at("file-write-create", &path("/private/tmp/w/x")));
    for at in ["/tmp/w/x", "/private/tmp/x", "/private/etc/x", "/private/tmp/w/.codex/x"] {
        assert!(!rules.allows_at("file-write-create", &path(at)), "{at}");
    }
}

fn any_place() -> impl Strategy<Value = (String, Nature)> {
    let at = proptest::collection::vec("[ab]", 0..5).prop_map(|parts| format!("/{}", parts.join("/")));
    (at, proptest::sample::select(&Nature::ALL[..]))
}

proptest! {
    #[test]
    fn any_places_in_any_order_mean_what_the_resolver_says(
        places in proptest::collection::vec(any_place(), 0..12),
        asked in proptest::collection::vec(any_place(), 1..20),
    ) {
        let mut all: Vec<(&str, Nature)> = places.iter().map(|(at, nature)| (at.as_str(), *nature)).collect();
        all.push(("/", Nature::Read));
        let confinement = confinement(&all);
        let view = crate::views::Macos::new(&confinement);
        for at in asked.iter().chain(&places) {
            view.assert_agreement(&confinement, &path(&at.0));
        }
        view.assert_nothing_can_be_moved_away(&confinement);
    }
}
