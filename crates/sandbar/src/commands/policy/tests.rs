use super::*;
use sandbar_policy::{Entry, EntryPath, Glob, Inherit};

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

fn permissions() -> Permissions {
    let entry = |at, access, origin| Entry { pattern: EntryPath::Path(path(at)), access, origin };
    Permissions::new(vec![
        entry("/repo", Access::Write, Origin::profile("workspace")),
        entry("/", Access::Read, Origin::profile("workspace")),
        entry("/repo-b", Access::None, Origin::Flag("--x")),
        entry("/repo/.git", Access::Read, Origin::Protected(".git")),
    ])
}

#[test]
fn an_exception_stands_behind_what_it_is_an_exception_of() {
    let permissions = permissions();
    let paths: Vec<String> = lines(&permissions).iter().map(|line| line.path.to_display()).collect();
    assert_eq!(paths, ["/", "/repo", "/repo/.git", "/repo-b"]);
}

#[test]
fn a_policy_is_shown_as_head_lines_and_notes() {
    let permissions = permissions();
    let shown = Shown {
        profile: "workspace",
        cwd: &path("/repo"),
        network: NetworkMode::Off,
        entries: lines(&permissions),
        notes: vec![Remark { text: Note::NoLandlock.to_string(), note: &Note::NoLandlock }],
    };
    assert_eq!(
        shown.text(),
        "profile    workspace\n\
         directory  /repo\n\
         network    off\n\
         \n\
         PATH        ACCESS  DECIDED BY\n\
         /           read    profile workspace\n\
         /repo       write   profile workspace\n\
         /repo/.git  read    protected name .git\n\
         /repo-b     none    --x\n\
         \n\
         note: this kernel has no Landlock; mounts and seccomp hold alone\n"
    );
    assert_eq!(
        serde_json::to_string(&shown.notes).unwrap(),
        r#"[{"text":"this kernel has no Landlock; mounts and seccomp hold alone","note":"no_landlock"}]"#
    );
}

#[test]
fn an_explanation_says_who_decided_and_what_the_path_is() {
    let place = Place { path: path("/repo/.git/new"), exists: false, through_links: true };
    let explained = Explained::of("link/new".into(), &place, &permissions());
    assert_eq!(
        explained.because(),
        "because protected name .git (under /repo/.git); leads to /repo/.git/new; does not exist"
    );
    assert_eq!(
        serde_json::to_string(&explained).unwrap(),
        r#"{"asked":"link/new","exists":false,"path":"/repo/.git/new","access":"read","decided_by":{"by":"protected","name":".git"},"under":"/repo/.git"}"#
    );
}

#[test]
fn variables_that_the_sandbox_sets_say_so_and_values_are_never_shown() {
    let var = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
    let kept = |name: &str| Decision { name: name.into(), kept: true, rule: Rule::Inherit(Inherit::All) };
    let token =
        Decision { name: "API_TOKEN".into(), kept: false, rule: Rule::DefaultExclude(Glob::new("*TOKEN*")) };
    let env = ResolvedEnv {
        vars: vec![var("HOME", "/root"), var("PATH", "/bin")],
        decisions: vec![token, kept("HOME"), kept("PATH")],
    };
    let planned = [var("GOCACHE", "/tmp/c"), var("HOME", "/home/u"), var("PATH", "/bin")];
    let json = serde_json::to_string(&variables(&env, &planned)).unwrap();
    assert_eq!(
        json,
        r#"[{"name":"API_TOKEN","kept":false,"rule":"default_exclude","with":"*TOKEN*"},{"name":"GOCACHE","kept":true,"rule":"sandbox"},{"name":"HOME","kept":true,"rule":"sandbox"},{"name":"PATH","kept":true,"rule":"inherit","with":"all"}]"#
    );
}
