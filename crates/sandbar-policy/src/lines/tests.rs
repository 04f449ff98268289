use super::*;
use crate::fake_host::{FakeHost, linux, path, request};
use crate::{Compiled, Note, RunRequest, StricterBecause};
use sandbar_proto::MountOp;

const WORK: &str = "/home/u/proj";

fn written(line: u32) -> Origin {
    Origin::Line { file: "/home/u/.config/sandbar/config.toml".into(), line }
}

/// A request whose profile has these lines.
fn asked(lines: &[(&str, Access)]) -> RunRequest {
    let entry = |(index, (at, access)): (usize, &(&str, Access))| {
        let is_pattern = at.contains(['*', '?', '[']);
        let pattern =
            if is_pattern { EntryPath::Glob(PathGlob::new(*at).unwrap()) } else { EntryPath::Path(path(at)) };
        Entry { pattern, access: *access, origin: written(u32::try_from(index + 1).unwrap()) }
    };
    RunRequest {
        called: Some("mine".to_owned()),
        entries: lines.iter().enumerate().map(entry).collect(),
        ..request(WORK)
    }
}

/// The same, with nothing readable that is not named.
fn named(lines: &[(&str, Access)]) -> RunRequest {
    RunRequest { reads: Reads::Named { origin: Origin::Profile("mine".into()) }, ..asked(lines) }
}

fn host() -> FakeHost {
    FakeHost::with_home()
        .dir(WORK)
        .dir("/usr/lib")
        .dir("/data")
        .file("/data/x")
        .link("/bin", "/usr/bin")
        .dir("/usr/bin")
        .dir("/sys")
}

fn accesses(host: &FakeHost, compiled: &Compiled, table: &[(&str, Access)]) {
    for (at, access) in table {
        assert_eq!(host.access(compiled, at), *access, "{at}");
    }
    host.assert_agreement(compiled);
}

const NONE: Access = Access::None;
const READ: Access = Access::Read;
const WRITE: Access = Access::Write;

#[test]
fn lines_nest_and_the_longest_decides() {
    let host = host().dir("/data/a/b").dir(&format!("{WORK}/docs/out")).dir(&format!("{WORK}/keys/pub"));
    let (docs, out) = (format!("{WORK}/docs"), format!("{WORK}/docs/out"));
    let (keys, public) = (format!("{WORK}/keys"), format!("{WORK}/keys/pub"));
    let compiled = host.compile(&asked(&[
        ("/data", WRITE),
        ("/data/a", NONE),
        ("/data/a/b", WRITE),
        (docs.as_str(), READ),
        (out.as_str(), WRITE),
        (keys.as_str(), NONE),
        (public.as_str(), READ),
    ]));
    accesses(
        &host,
        &compiled,
        &[
            ("/data/x", WRITE),
            ("/data/a/y", NONE),
            ("/data/a/b/z", WRITE),
            (&format!("{docs}/x"), READ),
            (&format!("{out}/x"), WRITE),
            (&format!("{keys}/id"), NONE),
            (&format!("{public}/x"), READ),
            (&format!("{WORK}/src"), WRITE),
        ],
    );
}

#[test]
fn between_lines_of_one_place_none_beats_write_beats_read_also_through_links() {
    let host = host().link("/link", "/data");
    let compiled = host.compile(&asked(&[("/data", READ), ("/link", WRITE)]));
    assert_eq!(host.access(&compiled, "/data/x"), WRITE);
    let compiled = host.compile(&asked(&[("/link", WRITE), ("/data", NONE)]));
    assert_eq!(host.access(&compiled, "/data/x"), NONE);
}

#[test]
fn what_a_person_names_exactly_counts_more_than_defaults_and_less_than_a_flag() {
    let host = host().dir("/home/u/.ssh").file("/home/u/.ssh/id").dir(&format!("{WORK}/.claude"));
    let claude = format!("{WORK}/.claude");
    let mut request = asked(&[("/home/u/.ssh", READ), (&claude, WRITE), ("/data", NONE)]);
    let compiled = host.compile(&request);
    accesses(
        &host,
        &compiled,
        &[("/home/u/.ssh/id", READ), (&format!("{claude}/x"), WRITE), ("/data/x", NONE)],
    );
    request.allow_write = vec![path("/data")];
    assert_eq!(host.access(&host.compile(&request), "/data/x"), WRITE);
}

#[test]
fn a_client_reopens_nothing_where_only_named_places_are_seen() {
    let host = host().dir("/home/u/.ssh").file("/home/u/.ssh/config");
    let mut request = named(&[("/home/u", READ), ("/home/u/.ssh/config", READ)]);
    for entry in &mut request.entries {
        entry.origin = Origin::profile("managed");
    }
    let compiled = host.compile(&request);
    accesses(&host, &compiled, &[("/home/u/x", READ), ("/home/u/.ssh/config", NONE)]);
}

#[test]
fn a_writable_line_that_is_missing_is_left_out_and_said() {
    let compiled = host().compile(&asked(&[("/mnt/other", WRITE)]));
    assert!(compiled.notes.contains(&Note::LeftOut { path: path("/mnt/other") }));
}

#[test]
fn what_is_never_opened_is_refused_with_the_line() {
    let refused = |at: &str, access| host().try_compile(&asked(&[(at, access)])).unwrap_err();
    let own = "/home/u/.config/sandbar";
    assert!(matches!(refused(own, WRITE), CompileError::OwnFiles { .. }));
    assert!(matches!(refused(own, READ), CompileError::OwnFiles { .. }));
    assert_eq!(
        refused("/", WRITE),
        CompileError::AllowedTooBroad {
            by: written(1),
            path: AbsPath::root(),
            because: StricterBecause::IsRoot
        }
    );
    assert!(matches!(refused("/sys", WRITE), CompileError::KernelFiles { .. }));
    assert!(matches!(refused("/home", NONE), CompileError::HiddenTooBroad { .. }));
}

#[test]
fn a_missing_place_is_reserved_to_stay_readable_and_watched_for_to_stay_hidden() {
    let (vscode, env) = (format!("{WORK}/.vscode"), format!("{WORK}/.env"));
    let host = host();
    let compiled = host.compile(&asked(&[(&vscode, READ), (&env, NONE)]));
    assert!(host.placeholders(&compiled).contains(&vscode));
    assert!(!host.placeholders(&compiled).contains(&env), "an empty `.env` would be in everybody's way");
    let watched: Vec<String> = linux(&compiled).globs.iter().map(PathGlob::to_display).collect();
    assert_eq!(watched, [env.as_str()]);
    assert_eq!(host.access(&compiled, &env), NONE);
}

#[test]
fn a_pattern_hides_what_it_covers_now_and_later() {
    let at = |name: &str| format!("{WORK}/{name}");
    let host = host()
        .file(&at(".env"))
        .file(&at("a/prod.env"))
        .file(&at("a/x"))
        .dir(&at("b/secrets/deep"))
        .link(&at("c.env"), "/data/x");
    let (env, secrets) = (at("**/*.env"), at("**/secrets"));
    let compiled = host.compile(&asked(&[(&env, NONE), (&secrets, NONE)]));
    accesses(
        &host,
        &compiled,
        &[
            (&at(".env"), NONE),
            (&at("a/prod.env"), NONE),
            (&at("a/x"), WRITE),
            (&at("b/secrets/deep/x"), NONE),
            // Not there yet.
            (&at("new/later.env"), NONE),
            // What a link leads to has a name of its own.
            ("/data/x", READ),
            ("/data/y", READ),
        ],
    );
    let masks = linux(&compiled).mounts.iter().filter(|op| matches!(op, MountOp::Mask { .. })).count();
    assert!(masks >= 4);
    assert_eq!(linux(&compiled).globs.len(), 2);
}

#[test]
fn a_longer_line_is_an_exception_of_a_pattern() {
    let at = |name: &str| format!("{WORK}/{name}");
    let host = host().dir(&at("a/secrets/public")).file(&at("example.env"));
    let (secrets, public) = (at("**/secrets"), at("a/secrets/public"));
    let mut request = asked(&[(&secrets, NONE), (&public, READ), (&at("*.env"), NONE)]);
    // Of equal length none wins, whoever says otherwise.
    request.allow_write = vec![path(&at("example.env"))];
    let compiled = host.compile(&request);
    let exception = format!("{public}/x");
    accesses(&host, &compiled, &[(&at("a/secrets/x"), NONE), (&exception, READ), (&at("example.env"), NONE)]);
}

#[test]
fn a_pattern_that_could_not_be_enforced_is_refused() {
    let refused = |pattern: &str| {
        let error = host().try_compile(&asked(&[(pattern, NONE)])).unwrap_err();
        let CompileError::Pattern { because, .. } = error else { panic!("{error}") };
        because
    };
    assert_eq!(refused("/**/*.pem"), PatternProblem::TooBroad);
    assert_eq!(refused("/*.pem"), PatternProblem::TooBroad);
    assert_eq!(refused("/nowhere/*.pem"), PatternProblem::NoBase);
}

#[test]
fn a_pattern_below_a_link_is_about_where_it_leads() {
    let host = host().link("/link", "/data").file("/data/k/a.pem");
    let compiled = host.compile(&asked(&[("/link/**/*.pem", NONE)]));
    assert_eq!(host.access(&compiled, "/data/k/a.pem"), NONE);
    assert_eq!(*linux(&compiled).globs[0].base(), path("/data"));
}

#[test]
fn nothing_is_watched_for_where_nothing_of_the_host_is_seen() {
    let host = host().file("/tmp/a.env").dir("/home/u/.ssh");
    let compiled = host.compile(&asked(&[("/tmp/*.env", NONE), ("/home/u/.ssh/*.key", NONE)]));
    assert_eq!(linux(&compiled).globs, []);
}

#[test]
fn only_what_is_named_is_seen_where_nothing_is_readable_by_itself() {
    let host = host().file("/etc/hosts").dir("/home/u/.ssh").file("/home/u/other");
    let lines = [("/usr", READ), ("/bin", READ), ("/etc", READ), (WORK, WRITE), ("/home/u/.ssh", NONE)];
    let compiled = host.compile(&named(&lines));
    accesses(
        &host,
        &compiled,
        &[
            ("/", NONE),
            ("/usr/lib/x", READ),
            ("/etc/hosts", READ),
            ("/data/x", NONE),
            ("/home/u/other", NONE),
            ("/home/u/proj/x", WRITE),
            ("/home/u/proj/.codex", READ),
            ("/tmp/x", WRITE),
            ("/run/user/1000/bus", NONE),
            ("/proc/self", READ),
        ],
    );
    let links: Vec<String> = linux(&compiled)
        .mounts
        .iter()
        .filter_map(|op| {
            let MountOp::Symlink { path, to } = op else { return None };
            Some(format!("{} -> {}", path.to_display(), to.to_display()))
        })
        .collect();
    assert_eq!(links, ["/bin -> /usr/bin"]);
    assert_eq!(linux(&compiled).caches, []);
}

#[test]
fn the_profile_is_called_as_its_writer_called_it() {
    let host = host();
    let compiled = host.compile(&asked(&[]));
    assert_eq!(compiled.plan.spec().profile, "mine");
    let (_, entry) = compiled.permissions.access(&path("/data"));
    assert_eq!(entry.unwrap().origin, Origin::Profile("mine".into()));
    let compiled = host.compile(&asked(&[("/data", WRITE)]));
    let (_, entry) = compiled.permissions.access(&path("/data/x"));
    assert_eq!(entry.unwrap().origin, written(1));
}

#[test]
fn a_link_that_a_command_could_have_made_decides_nothing() {
    let at = |name: &str| format!("{WORK}/{name}");
    let host = host()
        .dir("/home/u/.ssh")
        .link(&at("docs"), "/home/u/.ssh")
        .link(&at("out"), "/data")
        .dir(&at("r"))
        .link(&at("l"), &at("r"));
    let docs = at("docs");
    let refused = |line: &str, access| host.try_compile(&asked(&[(line, access)])).unwrap_err();
    let planted = |name: &str| CompileError::PlantedLink {
        path: path(&at(name)),
        link: path(&at(name)),
        by: written(1),
    };
    assert_eq!(refused(&docs, READ), planted("docs"));
    assert_eq!(refused(&at("out"), WRITE), planted("out"));
    assert_eq!(refused(&docs, NONE), planted("docs"));
    assert!(matches!(refused(&at("l/*.key"), NONE), CompileError::PlantedLink { .. }));
    // Also where the working directory is not writable in this run: an earlier one may have made it.
    assert!(matches!(
        host.try_compile(&named(&[(&docs, READ)])).unwrap_err(),
        CompileError::PlantedLink { .. }
    ));
    // Links of the system and of the person's own home are theirs.
    let host = host.clone().link("/link", "/data");
    assert_eq!(host.access(&host.compile(&asked(&[("/link", WRITE)])), "/data/x"), WRITE);
}

#[test]
fn patterns_and_nesting_exclude_each_other() {
    let mut request = asked(&[("/home/u/proj/*.env", NONE)]);
    request.within.nesting = true;
    let error = host().try_compile(&request).unwrap_err();
    assert!(matches!(error, CompileError::Pattern { because: PatternProblem::Nesting, .. }), "{error}");
}
