use sandbar_proto::EnvVar;

use super::*;
use crate::fake_host::{FakeHost, linux, path, request};
use crate::{Access, Compiled};

const PROJECT: &str = "/home/u/proj";

fn host() -> FakeHost {
    FakeHost::with_home().repository("/home/u/proj/.git")
}

/// The paths of `table` below `base` and what the plan allows there.
fn assert_accesses(host: &FakeHost, compiled: &Compiled, base: &str, table: &[(&str, Access)]) {
    for (at, expected) in table {
        assert_eq!(host.access(compiled, &format!("{base}/{at}")), *expected, "{at}");
    }
    host.assert_agreement(compiled);
}

/// What must hold in every git directory that is opened.
const OPENED: [(&str, Access); 9] = [
    ("objects/ab/cd", Access::Write),
    ("refs/heads/main", Access::Write),
    ("index.lock", Access::Write),
    ("logs/HEAD", Access::Write),
    ("hooks/pre-commit", Access::Read),
    ("config", Access::Read),
    ("config.worktree", Access::Read),
    ("info/attributes", Access::Read),
    ("commondir", Access::Read),
];

#[test]
fn commits_work_and_what_runs_programs_is_read_only() {
    let compiled = host().compile(&request(PROJECT));
    assert_accesses(&host(), &compiled, "/home/u/proj/.git", &OPENED);
    assert_eq!(host().access(&compiled, "/home/u/proj/.git/info/exclude"), Access::Write);
}

#[test]
fn a_missing_commondir_is_reserved_by_one_that_names_the_directory_itself() {
    let compiled = host().compile(&request(PROJECT));
    let reserved: Vec<(String, PlaceholderKind)> = linux(&compiled)
        .placeholders
        .iter()
        .filter(|placeholder| placeholder.parent.path.file_name() != Some(b"proj"))
        .map(|placeholder| (placeholder.name.to_display(), placeholder.what.clone()))
        .collect();
    let file = |content: &str| PlaceholderKind::File { content: content.into() };
    assert_eq!(
        reserved,
        [
            ("branches".to_owned(), PlaceholderKind::Directory),
            ("commondir".to_owned(), file(".\n")),
            ("config.worktree".to_owned(), file("")),
            ("attributes".to_owned(), file("")),
            ("modules".to_owned(), PlaceholderKind::Directory),
            ("remotes".to_owned(), PlaceholderKind::Directory),
        ]
    );
}

#[test]
fn layouts_that_do_not_bear_a_commondir_keep_it_open_and_say_so() {
    let configs =
        ["[core]\n\tbare = true\n", "[core]\n\tworktree = /x\n", "[extensions]\n\trefStorage = reftable\n"];
    for config in configs {
        let host = host().text("/home/u/proj/.git/config", config);
        let compiled = host.compile(&request(PROJECT));
        assert_eq!(compiled.notes, [Note::CommondirOpen { git: path("/home/u/proj/.git") }], "{config}");
        assert_eq!(host.access(&compiled, "/home/u/proj/.git/hooks"), Access::Read);
    }
    for config in ["[extensions]\n\tworktreeConfig = true\n", "[core]\n\tbare = false\n", ""] {
        assert!(bears_commondir(config.as_bytes(), Layout::Main), "{config}");
    }
}

#[test]
fn a_missing_repository_may_be_made() {
    let host = FakeHost::with_home().dir(PROJECT);
    let compiled = host.compile(&request(PROJECT));
    assert_accesses(&host, &compiled, PROJECT, &[(".git", Access::Write), (".git/hooks", Access::Write)]);
}

#[test]
fn a_linked_git_directory_is_refused() {
    let host =
        FakeHost::with_home().dir(PROJECT).repository("/srv/git").link("/home/u/proj/.git", "/srv/git");
    let refused = CompileError::ProtectedSymlink { path: path("/home/u/proj/.git") };
    assert_eq!(host.try_compile(&request(PROJECT)).unwrap_err(), refused);
}

#[test]
fn a_linked_hooks_directory_closes_the_whole_git_directory() {
    let host = FakeHost::with_home()
        .dir("/home/u/proj/scripts")
        .text("/home/u/proj/.git/HEAD", "ref: refs/heads/main\n")
        .link("/home/u/proj/.git/hooks", "/home/u/proj/scripts");
    let compiled = host.compile(&request(PROJECT));
    assert_eq!(host.access(&compiled, "/home/u/proj/.git/index"), Access::Read);
    let link = path("/home/u/proj/.git/hooks");
    let note = Note::GitReadOnly { git: path("/home/u/proj/.git"), because: GitDoubt::Symlink(link) };
    assert_eq!(compiled.notes, [note]);
    let hook = "/home/u/proj/scripts/pre-commit";
    assert_eq!(host.access(&compiled, hook), Access::Read, "what the link leads to");
}

#[test]
fn submodules_are_guarded_down_to_the_third_level() {
    let modules = "/home/u/proj/.git/modules";
    let host = host()
        .repository(&format!("{modules}/a"))
        .repository(&format!("{modules}/libs/b"))
        .repository(&format!("{modules}/a/modules/c"))
        .repository(&format!("{modules}/a/modules/c/modules/d"))
        .repository(&format!("{modules}/a/modules/c/modules/d/modules/e"));
    let (compiled, rounds, _) = host.count(&request(PROJECT));
    let compiled = compiled.unwrap();
    for module in ["a", "libs/b", "a/modules/c", "a/modules/c/modules/d"] {
        assert_accesses(&host, &compiled, &format!("{modules}/{module}"), &OPENED);
    }
    let deepest = format!("{modules}/a/modules/c/modules/d/modules/e/index");
    assert_eq!(host.access(&compiled, &deepest), Access::Read);
    assert!(rounds <= 8, "{rounds} rounds");
}

#[test]
fn nothing_can_be_planted_where_git_looks_for_a_submodules_repository() {
    let modules = ".git/modules";
    let none = host();
    let main = linked_worktree();
    let bare = FakeHost::with_home().repository("/home/u/x.git");
    let filled = with_submodule().repository(&format!("{PROJECT}/{modules}/libs/b"));
    type Row<'a> = (&'a FakeHost, &'a str, &'a str, &'a [&'a str]);
    let table: [Row<'_>; 4] = [
        (&none, PROJECT, "/home/u/proj/.git", &["modules", "modules/zz/config"]),
        (
            &filled,
            PROJECT,
            "/home/u/proj/.git/modules",
            &["zz", "libs/zz", "lib/modules", "libs/b/modules/zz"],
        ),
        (&main, PROJECT, "/home/u/main/.git", &["modules/zz", "worktrees/proj/modules/zz"]),
        (&bare, "/home/u/x.git", "/home/u/x.git", &["modules/zz"]),
    ];
    for (host, cwd, base, closed) in table {
        let closed: Vec<_> = closed.iter().map(|&at| (at, Access::Read)).collect();
        assert_accesses(host, &host.compile(&request(cwd)), base, &closed);
    }
    let compiled = filled.compile(&request(PROJECT));
    assert_accesses(&filled, &compiled, &format!("{PROJECT}/{modules}/libs/b"), &OPENED);
}

#[test]
fn worktrees_of_a_bare_repository_stay_as_they_are() {
    let host = FakeHost::with_home()
        .repository("/home/u/x.git")
        .text("/home/u/x.git/worktrees/w/commondir", "../..\n");
    let closed = [("worktrees/w/commondir", Access::Read), ("worktrees/w/HEAD", Access::Read)];
    assert_accesses(&host, &host.compile(&request("/home/u/x.git")), "/home/u/x.git", &closed);
}

fn linked_worktree() -> FakeHost {
    let git = "/home/u/main/.git/worktrees";
    FakeHost::with_home()
        .repository("/home/u/main/.git")
        .text("/home/u/proj/.git", &format!("gitdir: {git}/proj\n"))
        .text(&format!("{git}/proj/HEAD"), "ref: refs/heads/x\n")
        .text(&format!("{git}/proj/commondir"), "../..\n")
        .text(&format!("{git}/proj/gitdir"), "/home/u/proj/.git\n")
        .text(&format!("{git}/other/HEAD"), "ref: refs/heads/y\n")
        .text(&format!("{git}/other/commondir"), "../..\n")
}

#[test]
fn commits_work_in_a_linked_worktree_whose_git_directory_lies_elsewhere() {
    let host = linked_worktree();
    let (compiled, rounds, _) = host.count(&request(PROJECT));
    let compiled = compiled.unwrap();
    assert_eq!(compiled.notes, []);
    assert_accesses(&host, &compiled, "/home/u/main/.git", &OPENED);
    let table = [
        ("proj/index.lock", Access::Write),
        ("proj/HEAD", Access::Write),
        ("proj/commondir", Access::Read),
        ("proj/gitdir", Access::Read),
        ("proj/config.worktree", Access::Read),
        ("other/HEAD", Access::Read),
        ("other/commondir", Access::Read),
    ];
    assert_accesses(&host, &compiled, "/home/u/main/.git/worktrees", &table);
    assert_eq!(host.access(&compiled, "/home/u/proj/.git"), Access::Read);
    assert_eq!(host.access(&compiled, "/home/u/main/src"), Access::Read);
    assert!(rounds <= 8, "{rounds} rounds");
}

#[test]
fn a_pointer_is_believed_only_if_it_is_mutual() {
    let git = "/home/u/main/.git/worktrees/proj";
    let elsewhere =
        linked_worktree().text(&format!("{git}/gitdir"), "/home/u/else/.git\n").file("/home/u/else/.git");
    let forged =
        linked_worktree().text(&format!("{git}/commondir"), "/home/u/proj/evil\n").dir("/home/u/proj/evil");
    let dangling = linked_worktree().text("/home/u/proj/.git", "gitdir: /nowhere\n");
    let nonsense = linked_worktree().text("/home/u/proj/.git", "hello");
    let any_repository = linked_worktree().text("/home/u/proj/.git", "gitdir: /home/u/main/.git\n");
    let cases = [
        (elsewhere, GitDoubt::NotMutual),
        (forged, GitDoubt::NotMutual),
        (dangling, GitDoubt::Dangling),
        (nonsense, GitDoubt::Dangling),
        (any_repository, GitDoubt::NotMutual),
    ];
    for (host, because) in cases {
        let compiled = host.compile(&request(PROJECT));
        assert_eq!(compiled.notes, [Note::GitReadOnly { git: path("/home/u/proj/.git"), because }]);
        assert_eq!(host.access(&compiled, "/home/u/main/.git/index"), Access::Read);
        host.assert_agreement(&compiled);
    }
}

#[test]
fn a_submodule_as_workspace_opens_its_directory_in_the_superproject() {
    let git = "/home/u/super/.git/modules/proj";
    let host = FakeHost::with_home()
        .repository("/home/u/super/.git")
        .repository(git)
        .text(&format!("{git}/config"), "[core]\n\tworktree = ../../../proj\n")
        .text("/home/u/super/proj/.git", "gitdir: ../.git/modules/proj\n");
    let compiled = host.compile(&request("/home/u/super/proj"));
    assert_eq!(compiled.notes, []);
    assert_accesses(&host, &compiled, git, &OPENED);
    assert_eq!(host.access(&compiled, "/home/u/super/.git/index"), Access::Read);
}

#[test]
fn a_subdirectory_of_a_repository_commits_without_opening_the_rest() {
    let host = host().dir("/home/u/proj/sub/deep").dir("/home/u/proj/src");
    let compiled = host.compile(&request("/home/u/proj/sub/deep"));
    assert_accesses(&host, &compiled, "/home/u/proj/.git", &OPENED);
    assert_eq!(host.access(&compiled, "/home/u/proj/src"), Access::Read);
    let in_worktree = linked_worktree().dir("/home/u/proj/sub");
    let compiled = in_worktree.compile(&request("/home/u/proj/sub"));
    assert_accesses(&in_worktree, &compiled, "/home/u/main/.git", &OPENED);
}

#[test]
fn a_repository_in_home_is_not_opened() {
    let host = FakeHost::with_home().repository("/home/u/.git").dir(PROJECT);
    assert_eq!(host.access(&host.compile(&request(PROJECT)), "/home/u/.git/index"), Access::Read);
}

#[test]
fn a_bare_repository_as_workspace_is_guarded() {
    let host = FakeHost::with_home().repository("/home/u/x.git").text("/home/u/x.git/config", "");
    assert_accesses(&host, &host.compile(&request("/home/u/x.git")), "/home/u/x.git", &OPENED);
}

#[test]
fn protecting_covers_the_target_of_a_pointer() {
    let host = linked_worktree();
    let mut asked = request(PROJECT);
    asked.git = GitMode::Protect;
    asked.allow_write = vec![path("/home/u/main")];
    let compiled = host.compile(&asked);
    let table =
        [(".git/worktrees/proj/index", Access::Read), (".git/objects", Access::Read), ("src", Access::Write)];
    assert_accesses(&host, &compiled, "/home/u/main", &table);
    assert_eq!(host.access(&compiled, "/home/u/proj/.git"), Access::Read);
}

#[test]
fn a_repository_in_tmp_is_rebuilt_around_a_subdirectory() {
    let host = FakeHost::with_home().repository("/tmp/r/.git").dir("/tmp/r/sub");
    assert_accesses(&host, &host.compile(&request("/tmp/r/sub")), "/tmp/r/.git", &OPENED);
}

fn with_submodule() -> FakeHost {
    let module = "/home/u/proj/.git/modules/lib";
    host()
        .text("/home/u/proj/.git/index", "deps/lib\n")
        .repository(module)
        .text(&format!("{module}/config"), "[core]\n\tworktree = ../../../deps/lib\n")
        .text("/home/u/proj/deps/lib/.git", "gitdir: ../../.git/modules/lib\n")
}

#[test]
fn the_pointer_of_a_submodule_can_neither_be_written_nor_moved_away() {
    let host = with_submodule();
    for git in [GitMode::Commit, GitMode::Protect] {
        let mut asked = request(PROJECT);
        asked.git = git;
        let compiled = host.compile(&asked);
        let table = [
            ("deps/lib/.git", Access::Read),
            ("deps/lib/src", Access::Write),
            (".git/modules/lib/config", Access::Read),
            (".git/modules/lib/hooks/x", Access::Read),
        ];
        assert_accesses(&host, &compiled, PROJECT, &table);
        assert_eq!(compiled.notes, []);
    }
}

#[test]
fn a_submodule_with_a_repository_of_its_own_is_guarded_like_any_git_directory() {
    let host = host().text("/home/u/proj/.git/index", "lib\n").repository("/home/u/proj/lib/.git");
    assert_accesses(&host, &host.compile(&request(PROJECT)), "/home/u/proj/lib/.git", &OPENED);
    let mut asked = request(PROJECT);
    asked.git = GitMode::Protect;
    let closed = [("lib/.git/index", Access::Read), ("lib/file", Access::Write)];
    assert_accesses(&host, &host.compile(&asked), PROJECT, &closed);
}

#[test]
fn a_submodule_that_is_not_checked_out_cannot_be_planted() {
    let empty = host().text("/home/u/proj/.git/index", "lib\n").dir("/home/u/proj/lib");
    assert_accesses(&empty, &empty.compile(&request(PROJECT)), PROJECT, &[("lib/.git", Access::Read)]);
    let missing = host().text("/home/u/proj/.git/index", "deps/lib\n");
    let compiled = missing.compile(&request(PROJECT));
    assert_accesses(&missing, &compiled, PROJECT, &[("deps/lib/.git", Access::Read)]);
    assert!(missing.placeholders(&compiled).contains(&"/home/u/proj/deps".to_owned()));
    let linked = host().text("/home/u/proj/.git/index", "lib\n").link("/home/u/proj/lib/.git", "/home/u/x");
    assert_accesses(&linked, &linked.compile(&request(PROJECT)), PROJECT, &[("lib/file", Access::Read)]);
}

#[test]
fn submodules_of_submodules_are_found_in_their_own_indexes() {
    let inner = "/home/u/proj/.git/modules/lib/modules/inner";
    let host = with_submodule()
        .text("/home/u/proj/.git/modules/lib/index", "inner\n")
        .repository(inner)
        .text(&format!("{inner}/config"), "[core]\n\thooksPath = tools\n")
        .dir("/home/u/proj/deps/lib/inner/tools")
        .text("/home/u/proj/deps/lib/inner/.git", "gitdir: ../../../.git/modules/lib/modules/inner\n");
    let (compiled, rounds, _) = host.count(&request(PROJECT));
    let compiled = compiled.unwrap();
    let table = [("inner/.git", Access::Read), ("inner/x", Access::Write), ("inner/tools/x", Access::Read)];
    assert_accesses(&host, &compiled, "/home/u/proj/deps/lib", &table);
    assert!(rounds <= 12, "{rounds} rounds");
}

#[test]
fn what_cannot_be_protected_is_said() {
    let damaged = host().text("/home/u/proj/.git/index", "damaged");
    let index = path("/home/u/proj/.git/index");
    assert_eq!(damaged.compile(&request(PROJECT)).notes, [Note::SubmodulesUnknown { index }]);
    let linked = host()
        .text("/home/u/proj/.git/index", "deps/lib\n")
        .dir("/home/u/proj/real/lib")
        .link("/home/u/proj/deps", "/home/u/proj/real");
    let note = Note::SubmoduleOpen { path: path("/home/u/proj/deps/lib") };
    assert_eq!(linked.compile(&request(PROJECT)).notes, [note]);
    let forged = host().text("/home/u/proj/.git/index", "../x\n/etc\n.\n");
    assert_eq!(forged.compile(&request(PROJECT)).notes, []);
}

#[test]
fn what_a_configuration_names_is_protected_like_the_configuration() {
    let config = "[core]\n\thooksPath = .githooks\n[include]\n\tpath = ../.gitconfig\n";
    let host = host()
        .text("/home/u/proj/.git/config", config)
        .dir("/home/u/proj/.githooks")
        .text("/home/u/proj/.gitconfig", "[includeIf \"gitdir:~/\"]\npath = ~/proj/ci/more\n")
        .dir("/home/u/proj/ci");
    let compiled = host.compile(&request(PROJECT));
    let table = [
        (".githooks/pre-commit", Access::Read),
        (".gitconfig", Access::Read),
        ("ci/more", Access::Read),
        ("ci/other", Access::Write),
    ];
    assert_accesses(&host, &compiled, PROJECT, &table);
    assert!(host.placeholders(&compiled).contains(&"/home/u/proj/ci/more".to_owned()));
    assert_eq!(compiled.notes, []);
}

#[test]
fn what_a_repository_names_is_protected_but_never_shown_or_opened() {
    let config = "[core]\n\thooksPath = /tmp\n[include]\n\tpath = /home/u/.ssh/id\n\tpath = /run/x.sock\n";
    let host = host()
        .text("/home/u/proj/.git/config", config)
        .text("/home/u/.ssh/id", "secret")
        .file("/run/x.sock")
        .file("/tmp/hosts")
        .text("/home/u/proj/.git/index", "lib\nssh\n")
        .text("/home/u/proj/ssh/.git", "gitdir: /home/u/.ssh\n")
        .text("/home/u/.ssh/config", "secret")
        .text("/home/u/proj/lib/.git", "gitdir: /home/u/other/.git\n")
        .repository("/home/u/other/.git")
        .repository("/home/u/other/.git/modules/x");
    let compiled = host.compile(&request(PROJECT));
    for (at, expected) in [
        ("/home/u/.ssh/id", Access::None),
        ("/home/u/.ssh/config", Access::None),
        ("/run/x.sock", Access::None),
        ("/home/u/other/.git/modules/x/refs/x", Access::Read),
    ] {
        assert_eq!(host.access(&compiled, at), expected, "{at}");
    }
    let private = host.access(&compiled, "/tmp/hosts");
    assert_eq!(private, host.access(&compiled, "/tmp"), "the run's own");
    assert_eq!(private, Access::Write);
    host.assert_agreement(&compiled);
}

#[test]
fn the_users_configuration_counts_in_every_repository() {
    let host = host()
        .text("/home/u/.gitconfig", "[include]\npath = .more\n[core]\nhooksPath = ci/hooks\n")
        .text("/home/u/.more", "[include]\npath = .gitconfig\n");
    let compiled = host.compile(&request(PROJECT));
    let table = [("ci", Access::Read), ("src", Access::Write)];
    assert_accesses(&host, &compiled, PROJECT, &table);
    let linked = host.dir("/home/u/proj/real/hooks").link("/home/u/proj/ci", "/home/u/proj/real");
    let note = Note::ConfiguredOpen { key: "core.hooksPath", path: path("/home/u/proj/ci/hooks") };
    assert_eq!(linked.compile(&request(PROJECT)).notes, [note]);
}

#[test]
fn a_linked_worktree_does_not_write_what_belongs_to_the_main_one() {
    let git = "/home/u/main/.git";
    let host = linked_worktree()
        .file(&format!("{git}/index"))
        .text(&format!("{git}/rebase-merge/git-rebase-todo"), "exec true\n");
    let table = [
        ("HEAD", Access::Read),
        ("index", Access::Read),
        ("rebase-merge/git-rebase-todo", Access::Read),
        ("packed-refs.lock", Access::Write),
    ];
    assert_accesses(&host, &host.compile(&request(PROJECT)), git, &table);
}

#[test]
fn a_submodule_that_a_run_adds_is_seen_afterwards() {
    let host = with_submodule();
    let compiled = host.compile(&request(PROJECT));
    let [inner, watched] = compiled.watched.as_slice() else { panic!("{:?}", compiled.watched) };
    assert_eq!(watched.query(), sandbar_proto::FactQuery::GitLinks(path("/home/u/proj/.git/index")));
    assert_eq!(
        inner.query(),
        sandbar_proto::FactQuery::GitLinks(path("/home/u/proj/.git/modules/lib/index"))
    );
    assert_eq!(inner.worktree(), &path("/home/u/proj/deps/lib"));
    let links = |paths: &[&str]| {
        let paths = paths.iter().map(|&path| path.into()).collect();
        sandbar_proto::FactAnswer::GitLinks(sandbar_proto::GitLinks { paths })
    };
    assert_eq!(watched.added(&links(&["deps/lib"])), Some(vec![]));
    assert_eq!(watched.added(&links(&[])), Some(vec![]));
    assert_eq!(watched.added(&links(&["deps/lib", "evil"])), Some(vec![path("/home/u/proj/evil")]));
    assert_eq!(watched.added(&sandbar_proto::FactAnswer::Failed { errno: 22 }), None);
    let mut asked = request(PROJECT);
    asked.git = GitMode::Protect;
    assert_eq!(host.compile(&asked).watched, []);
}

fn with_hooks_path(value: &str) -> String {
    format!("[core]\n\thooksPath = {value}\n")
}

#[test]
fn the_users_configuration_is_found_wherever_git_finds_it() {
    let named = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
    let text = with_hooks_path("ci");
    let at = |file: &str| host().dir("/home/u/proj/ci").text(file, &text);
    let linked = at("/dot/gc").link("/home/u/.gitconfig", "/dot/gc");
    let included = at("/dot/more")
        .text("/dot/gc", "[include]\n\tpath = more\n")
        .link("/home/u/.gitconfig", "/dot/gc")
        .link("/home/u/more", "/dot/more");
    let by_user = host().dir("/home/u/proj/ci").text("/etc/gitconfig", &with_hooks_path("~u/proj/ci"));
    let of_owner = at("/home/u/.gitconfig").called_by_root().owned_by("/home/u/proj", 1000);
    let none = || host().dir("/home/u/proj/ci");
    let counted = [("COUNT", "1"), ("KEY_0", "core.hookspath"), ("VALUE_0", "ci")];
    let table: [(FakeHost, Vec<EnvVar>); 9] = [
        (linked, vec![]),
        (included, vec![]),
        (by_user, vec![]),
        (of_owner, vec![]),
        (at("/x/git/config"), vec![named("XDG_CONFIG_HOME", "/x")]),
        (at("/x/gc"), vec![named("GIT_CONFIG_GLOBAL", "/x/gc")]),
        (at("/x/gc"), vec![named("GIT_CONFIG_SYSTEM", "/x/gc")]),
        (none(), counted.map(|(name, value)| named(&format!("GIT_CONFIG_{name}"), value)).to_vec()),
        (none(), vec![named("GIT_CONFIG_PARAMETERS", "'core.hooksPath'='ci'")]),
    ];
    for (row, (host, git_env)) in table.into_iter().enumerate() {
        let mut asked = request(PROJECT);
        asked.git_env = git_env;
        if row == 3 {
            asked.home = Some(path("/root"));
        }
        let compiled = host.compile(&asked);
        assert_eq!(host.access(&compiled, "/home/u/proj/ci/pre-commit"), Access::Read, "row {row}");
        assert_eq!(host.access(&compiled, "/home/u/proj/src"), Access::Write, "row {row}");
        host.assert_agreement(&compiled);
    }
}

#[test]
fn the_users_configuration_itself_is_protected_where_it_lies_in_the_workspace() {
    let mut asked = request(PROJECT);
    asked.git_env = vec![EnvVar { name: "GIT_CONFIG_GLOBAL".into(), value: "gc".into() }];
    let host = host()
        .text("/home/u/proj/gitconfig", "")
        .link("/home/u/.gitconfig", "/home/u/proj/gitconfig")
        .link("/home/u/.config/git", "/home/u/proj/missing");
    let compiled = host.compile(&asked);
    let table = [("gitconfig", Access::Read), ("gc", Access::Read), ("missing", Access::Read)];
    assert_accesses(&host, &compiled, PROJECT, &table);
    assert_eq!(compiled.notes, []);
}

#[test]
fn what_cannot_be_read_is_not_taken_for_nothing() {
    let long = "# nothing\n".repeat(sandbar_proto::FactQuery::MAX_BYTES / 10 + 1);
    for file in ["/home/u/proj/.git/config", "/home/u/proj/.git/config.worktree", "/home/u/.gitconfig"] {
        let refused = CompileError::ConfigurationTooLong { path: path(file) };
        assert_eq!(host().text(file, &long).try_compile(&request(PROJECT)).unwrap_err(), refused);
    }
    let unreadable = host().text("/home/u/.gitconfig", "[include]\n\tpath = d\n").dir("/home/u/d");
    let note = Note::ConfigurationUnreadable { path: path("/home/u/d"), errno: 2 };
    assert_eq!(unreadable.compile(&request(PROJECT)).notes, [note]);
    for value in ["~nobody/x", "%(prefix)/x"] {
        let unknown = host().text("/home/u/proj/.git/config", &with_hooks_path(value));
        let note = Note::ConfiguredUnknown { key: "core.hooksPath", value: value.into() };
        assert_eq!(unknown.compile(&request(PROJECT)).notes, [note]);
    }
    let long_pointer = FakeHost::with_home().text("/home/u/proj/.git", &long);
    let because = GitDoubt::Dangling;
    let note = Note::GitReadOnly { git: path("/home/u/proj/.git"), because };
    assert_eq!(long_pointer.compile(&request(PROJECT)).notes, [note]);
}

#[test]
fn what_a_hook_leads_to_is_protected_and_a_link_that_can_be_replaced_is_said() {
    let host = host()
        .file("/home/u/proj/scripts/check")
        .link("/home/u/proj/.git/hooks/pre-commit", "/home/u/proj/scripts/check")
        .link("/home/u/proj/.git/hooks/pre-push", "/home/u/proj/scripts/missing")
        .dir("/home/u/proj/lib")
        .link("/home/u/proj/.git/hooks/lib", "/home/u/proj/lib");
    let compiled = host.compile(&request(PROJECT));
    let table = [
        ("scripts/check", Access::Read),
        ("scripts/missing", Access::Read),
        ("scripts/other", Access::Write),
        ("lib/x", Access::Write),
    ];
    assert_accesses(&host, &compiled, PROJECT, &table);
    assert_eq!(compiled.notes, []);
    let twice = host
        .link("/home/u/proj/bin", "/home/u/proj/scripts")
        .link("/home/u/proj/.git/hooks/pre-merge", "/home/u/proj/bin/check");
    let link = path("/home/u/proj/.git/hooks/pre-merge");
    assert_eq!(twice.compile(&request(PROJECT)).notes, [Note::ConfiguredOpen { key: "hook", path: link }]);
    let husky = FakeHost::with_home()
        .repository("/home/u/proj/.git")
        .text("/home/u/proj/.git/config", &with_hooks_path(".husky/_"))
        .file("/home/u/proj/tools/x")
        .link("/home/u/proj/.husky/_/pre-commit", "/home/u/proj/tools/x");
    let table =
        [(".husky/_/h", Access::Read), (".husky/pre-commit", Access::Write), ("tools/x", Access::Read)];
    assert_accesses(&husky, &husky.compile(&request(PROJECT)), PROJECT, &table);
    let all = FakeHost::with_home()
        .repository("/home/u/proj/.git")
        .text("/home/u/proj/.git/config", &with_hooks_path("."));
    let note = Note::ConfiguredOpen { key: "core.hooksPath", path: path(PROJECT) };
    assert_eq!(all.compile(&request(PROJECT)).notes, [note]);
}

#[test]
fn a_git_directory_in_the_workspace_is_guarded_whatever_leads_to_it() {
    let bare = "/home/u/proj/.bare";
    let pointed = FakeHost::with_home().repository(bare).text("/home/u/proj/.git", "gitdir: ./.bare\n");
    let named = FakeHost::with_home().repository(bare);
    let env = |name: &str, value: &str| vec![EnvVar { name: name.into(), value: value.into() }];
    let split = FakeHost::with_home()
        .repository(bare)
        .text("/home/u/proj/.git", "gitdir: e\n")
        .text("/home/u/proj/e/HEAD", "x")
        .text("/home/u/proj/e/commondir", "../.bare\n");
    let table = [
        (&pointed, vec![]),
        (&named, env("GIT_DIR", ".bare")),
        (&named, env("GIT_COMMON_DIR", "/home/u/proj/.bare")),
        (&split, vec![]),
    ];
    for (row, (host, git_env)) in table.into_iter().enumerate() {
        let mut asked = request(PROJECT);
        asked.git_env = git_env;
        let compiled = host.compile(&asked);
        assert_accesses(host, &compiled, bare, &OPENED);
        assert_eq!(compiled.notes, [], "row {row}");
        asked.git = GitMode::Protect;
        assert_accesses(host, &host.compile(&asked), bare, &[("refs/x", Access::Read)]);
    }
    let dangling = FakeHost::with_home().text("/home/u/proj/.git", "gitdir: later\n");
    assert_accesses(&dangling, &dangling.compile(&request(PROJECT)), PROJECT, &[("later", Access::Read)]);
    let submodule =
        host().text("/home/u/proj/.git/index", "lib\n").text("/home/u/proj/lib/.git", "gitdir: ../gone\n");
    assert_accesses(&submodule, &submodule.compile(&request(PROJECT)), PROJECT, &[("gone", Access::Read)]);
}

#[test]
fn repositories_to_push_to_cannot_be_planted() {
    let host = host().file("/home/u/proj/.git/branches/x");
    let table = [("remotes/origin", Access::Read), ("branches/x", Access::Read)];
    assert_accesses(&host, &host.compile(&request(PROJECT)), "/home/u/proj/.git", &table);
}

#[test]
fn repositories_in_the_directories_of_a_root_are_guarded_like_its_own() {
    let host = FakeHost::with_home()
        .repository("/home/u/proj/one/.git")
        .repository("/home/u/proj/two/.git")
        .dir("/home/u/proj/plain")
        .repository("/home/u/proj/a/deep/.git")
        .dir("/home/u/proj/linked")
        .link("/home/u/proj/linked/.git", "/home/u/proj/two/.git");
    let compiled = host.compile(&request(PROJECT));
    for name in ["one", "two"] {
        assert_accesses(&host, &compiled, &format!("/home/u/proj/{name}/.git"), &OPENED);
        assert_eq!(host.access(&compiled, &format!("/home/u/proj/{name}/src")), Access::Write);
    }
    // A missing one can be made, a link can be replaced, and deeper ones are not looked for: the threat model says so.
    assert_eq!(host.access(&compiled, "/home/u/proj/plain/.git/hooks/x"), Access::Write);
    assert_eq!(host.access(&compiled, "/home/u/proj/a/deep/.git/hooks/x"), Access::Write);
    assert!(compiled.notes.contains(&Note::SubmoduleOpen { path: path("/home/u/proj/linked") }));
    let mut asked = request(PROJECT);
    asked.git = GitMode::Protect;
    assert_eq!(host.access(&host.compile(&asked), "/home/u/proj/one/.git/objects/x"), Access::Read);
}

#[test]
fn a_root_of_many_directories_is_looked_at_within_bounds() {
    let crowded = |count: usize| {
        (0..count).fold(FakeHost::with_home(), |host, number| host.dir(&format!("/home/u/proj/d{number:04}")))
    };
    let asked = |host: &FakeHost| host.count(&request(PROJECT)).2.len();
    let (few, many, more) =
        (asked(&crowded(10)), asked(&crowded(MOST_NESTED)), asked(&crowded(MOST_NESTED + 300)));
    assert_eq!(many - few, MOST_NESTED - 10);
    assert_eq!(more, many);
}
