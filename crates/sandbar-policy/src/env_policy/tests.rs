use super::*;
use proptest::prelude::*;
use sandbar_testkit::{Samples, Took, fuzz};

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: value.into() }
}

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(*pattern)).collect()
}

fn names(resolved: &ResolvedEnv) -> Vec<String> {
    resolved.vars.iter().map(|var| var.name.to_display()).collect()
}

fn rule_of(resolved: &ResolvedEnv, name: &str) -> String {
    let decision = resolved.decisions.iter().find(|decision| decision.name == name.into()).unwrap();
    format!("{}{}", if decision.kept { "" } else { "dropped: " }, decision.rule)
}

fn base() -> Vec<EnvVar> {
    vec![
        var("PATH", "/bin"),
        var("HOME", "/root"),
        var("FOO", "1"),
        var("API_KEY", "k"),
        var("MY_token_x", "t"),
        var("path", "lower"),
    ]
}

#[test]
fn each_step_of_the_order_has_its_row() {
    let all = EnvPolicy::default();
    let keep_credentials = EnvPolicy { ignore_default_excludes: true, ..all.clone() };
    let core = EnvPolicy { inherit: Inherit::Core, ..all.clone() };
    let none = EnvPolicy { inherit: Inherit::None, ..all.clone() };
    let core_and_foo = EnvPolicy { include: globs(&["foo", "*_KEY"]), ..core.clone() };
    let excluded_wins = EnvPolicy { include: globs(&["FOO"]), exclude: globs(&["F*"]), ..core.clone() };
    let set = EnvPolicy { set: vec![var("NEW_KEY", "s")], ..none.clone() };
    let only_h = EnvPolicy { include_only: globs(&["H*", "p?th"]), ..set_on(&all) };
    let rows: [(&str, EnvPolicy, &[&str]); 8] = [
        ("inherit all, default excludes", all, &["FOO", "HOME", "PATH", "path"]),
        (
            "default excludes ignored",
            keep_credentials,
            &["API_KEY", "FOO", "HOME", "MY_token_x", "PATH", "path"],
        ),
        ("core is case-sensitive on Unix", core, &["HOME", "PATH"]),
        ("none", none, &[]),
        ("include is additive", core_and_foo, &["API_KEY", "FOO", "HOME", "PATH"]),
        ("exclude beats include", excluded_wins, &["HOME", "PATH"]),
        ("set comes after the excludes", set, &["NEW_KEY"]),
        ("include_only drops what set made", only_h, &["HOME", "PATH", "path"]),
    ];
    for (what, policy, expected) in rows {
        assert_eq!(names(&resolve(&policy, Platform::Unix, &base(), &[], &[])), expected, "{what}");
    }
}

fn set_on(policy: &EnvPolicy) -> EnvPolicy {
    EnvPolicy { set: vec![var("SET", "1")], ..policy.clone() }
}

#[test]
fn additions_escape_include_only_and_the_overlay_beats_everything_but_unset() {
    let policy = EnvPolicy {
        inherit: Inherit::None,
        set: vec![var("A", "set")],
        exclude: globs(&["OVER"]),
        include_only: globs(&["A"]),
        unset: vec!["GONE".into()],
        ..EnvPolicy::default()
    };
    let additions = [var("SANDBAR_THREAD_ID", "t"), var("A", "addition")];
    let overlay = [var("OVER", "1"), var("A", "overlay"), var("GONE", "1")];
    let resolved = resolve(&policy, Platform::Unix, &[], &overlay, &additions);
    assert_eq!(resolved.vars, [var("A", "overlay"), var("OVER", "1"), var("SANDBAR_THREAD_ID", "t")]);
    assert_eq!(rule_of(&resolved, "GONE"), "dropped: unset");
}

#[test]
fn every_decision_names_its_rule() {
    let policy = EnvPolicy {
        include: globs(&["MY*"]),
        exclude: globs(&["FOO"]),
        set: vec![var("S", "1")],
        ..EnvPolicy::default()
    };
    let resolved = resolve(&policy, Platform::Unix, &base(), &[var("O", "1")], &[var("T", "1")]);
    let rules = ["PATH", "API_KEY", "MY_token_x", "FOO", "S", "O", "T"].map(|name| rule_of(&resolved, name));
    assert_eq!(
        rules,
        [
            "inherit = all",
            "dropped: default exclude *KEY*",
            "--env-keep MY*",
            "dropped: exclude FOO",
            "set",
            "overlay",
            "added by sandbar"
        ]
    );
    assert_eq!(resolved.withheld_count(), 2);
}

#[test]
fn our_excludes_know_more_names_and_values_and_never_say_a_value() {
    let base = [
        var("PGPASSWORD", "hunter2"),
        var("DATABASE_URL", "postgres://u:hunter2@h/db"),
        var("GIT_AUTHOR_NAME", "Ada"),
        var("HOME", "https://u:hunter2@h"),
    ];
    let ours = resolve(&EnvPolicy::default(), Platform::Unix, &base, &[], &[]);
    assert_eq!(names(&ours), ["GIT_AUTHOR_NAME", "HOME"], "what a shell needs stays");
    assert_eq!(ours.withheld_count(), 2);
    assert_eq!(rule_of(&ours, "PGPASSWORD"), "dropped: looks like a credential by its name: PASSWORD");
    let by_value = "dropped: looks like a credential by its value: a URL with a password";
    assert_eq!(rule_of(&ours, "DATABASE_URL"), by_value);
    let json = serde_json::to_string(&ours.decisions).unwrap();
    assert!(!json.contains("hunter2"), "{json}");
    assert!(json.contains(r#""rule":{"rule":"credential_value","with":"url_with_password"}"#), "{json}");
    assert!(json.contains(r#""rule":{"rule":"credential_name","with":"PASSWORD"}"#), "{json}");
    let all = ["DATABASE_URL", "GIT_AUTHOR_NAME", "HOME", "PGPASSWORD"];
    for policy in [
        EnvPolicy { only_peers_excludes: true, ..EnvPolicy::default() },
        EnvPolicy { ignore_default_excludes: true, ..EnvPolicy::default() },
        EnvPolicy { include: globs(&["PG*", "*_URL"]), ..EnvPolicy::default() },
    ] {
        assert_eq!(names(&resolve(&policy, Platform::Unix, &base, &[], &[])), all, "{policy:?}");
    }
}

#[test]
fn what_is_said_explicitly_may_look_like_a_credential() {
    let policy = EnvPolicy { set: vec![var("DB_PASS", "hunter2")], ..EnvPolicy::default() };
    let overlay = [var("PGPASSWORD", "hunter2")];
    let resolved = resolve(&policy, Platform::Unix, &[var("PGPASSWORD", "other")], &overlay, &[]);
    assert_eq!(resolved.vars, [var("DB_PASS", "hunter2"), var("PGPASSWORD", "hunter2")]);
}

#[test]
fn of_two_variables_with_one_name_the_last_one_wins() {
    let twice = [var("A", "1"), var("A", "2")];
    let resolved = resolve(&EnvPolicy::default(), Platform::Unix, &twice, &[], &[]);
    assert_eq!(resolved.vars, [var("A", "2")]);
    assert_eq!(resolved.decisions.len(), 1);
}

#[test]
fn an_entry_that_is_no_variable_is_dropped_and_its_value_is_not_shown() {
    let odd = [var("", "x"), var("A=hunter2", "x"), var("N\0", "x"), var("V", "\0")];
    let resolved = resolve(&EnvPolicy::default(), Platform::Unix, &odd, &[], &[]);
    assert_eq!(resolved.vars, []);
    let shown: Vec<String> = resolved
        .decisions
        .iter()
        .map(|decision| format!("{}: {}", decision.name.to_display(), decision.rule))
        .collect();
    assert_eq!(shown, [": not a variable", "A: not a variable", "N: not a variable", "V: not a variable"]);
    assert_eq!(resolved.withheld_count(), 0);
}

#[test]
fn windows_has_its_own_core_and_needs_pathext() {
    let policy = EnvPolicy { inherit: Inherit::Core, ..EnvPolicy::default() };
    let base = [var("Path", "C:\\"), var("UserName", "u"), var("HOME", "x")];
    let resolved = resolve(&policy, Platform::Windows, &base, &[var("PATH", "D:\\")], &[]);
    assert_eq!(resolved.vars, [var("PATH", "D:\\"), var("PATHEXT", DEFAULT_PATHEXT), var("UserName", "u")]);
    let with = resolve(&policy, Platform::Windows, &[var("PathExt", ".EXE")], &[], &[]);
    assert_eq!(with.vars, [var("PathExt", ".EXE")]);
}

#[test]
fn bytes_that_are_not_utf8_survive() {
    let raw = EnvVar { name: vec![0xff, b'N'].into(), value: vec![0xfe].into() };
    let resolved = resolve(&EnvPolicy::default(), Platform::Unix, std::slice::from_ref(&raw), &[], &[]);
    assert_eq!(resolved.vars, [raw]);
}

#[test]
fn a_policy_reads_from_partial_json() {
    let policy: EnvPolicy = serde_json::from_str(r#"{"inherit":"core","exclude":["A*"]}"#).unwrap();
    let expected = EnvPolicy { inherit: Inherit::Core, exclude: globs(&["A*"]), ..EnvPolicy::default() };
    assert_eq!(policy, expected);
}

#[test]
fn fuzz_an_environment_is_explained_name_by_name_and_shows_no_value() {
    let samples = Samples {
        whole: &[
            b"PATH=/usr/bin\0HOME=/home/u\0LANG=C.UTF-8\0EDITOR=vi\0",
            b"GITHUB_TOKEN=hunter2\0AWS_SECRET_ACCESS_KEY=hunter2\0SSH_AUTH_SOCK=/run/x/y\0TERM=xterm\0",
            b"DATABASE_URL=postgres://u:hunter2@db/x\0MY_PWD=hunter2\0OLDPWD=/a/b\0A=1\0A=2\0",
            b"=odd\0NAME\0\xff=\xfe\0Path=x\0",
        ],
        words: &[
            b"=",
            b"\0",
            b"PATH",
            b"A",
            b"a",
            b"_TOKEN",
            b"_PASSWORD",
            b"://u:p@h/",
            b"AUTH",
            b"PWD",
            b"1",
        ],
    };
    let policies = [
        EnvPolicy::default(),
        EnvPolicy { inherit: Inherit::Core, include: globs(&["*A*"]), ..EnvPolicy::default() },
        EnvPolicy { exclude: globs(&["P*"]), include_only: globs(&["?*A*"]), ..EnvPolicy::default() },
        EnvPolicy { ignore_default_excludes: true, unset: vec!["A".into()], ..EnvPolicy::default() },
    ];
    fuzz("environment", samples, |input| {
        let entries = input.split(|&byte| byte == 0).filter(|entry| !entry.is_empty());
        let base: Vec<EnvVar> = entries
            .map(|entry| {
                let cut = entry.iter().position(|&byte| byte == b'=').unwrap_or(entry.len());
                let (name, value) = entry.split_at(cut);
                EnvVar { name: name.into(), value: value.get(1..).unwrap_or_default().into() }
            })
            .collect();
        let mut kept = 0;
        for policy in &policies {
            for platform in [Platform::Unix, Platform::Windows] {
                let resolved = resolve(policy, platform, &base, &[], &[]);
                kept += resolved.vars.len();
                assert!(resolved.vars.windows(2).all(|pair| pair[0].name < pair[1].name));
                assert!(resolved.vars.iter().all(is_well_formed));
                let from_us = |var: &EnvVar| var.name.as_bytes() == b"PATHEXT";
                assert!(resolved.vars.iter().all(|var| base.contains(var) || from_us(var)));
                let count = resolved.decisions.iter().filter(|decision| decision.kept).count();
                assert_eq!(count, resolved.vars.len());
                assert!(resolved.withheld_count() <= resolved.decisions.len() - count);
                let is_name = |decision: &Decision| base.iter().any(|var| var.name == decision.name);
                assert!(resolved.decisions.iter().all(|d| is_name(d) || d.name.as_bytes() == b"PATHEXT"));
            }
        }
        Took::if_understood(kept > 0)
    });
}

fn any_vars() -> impl Strategy<Value = Vec<EnvVar>> {
    let name = proptest::collection::vec(prop_oneof![Just(b'A'), Just(b'b'), Just(b'='), Just(0xff)], 0..3);
    let one = (name, any::<u8>())
        .prop_map(|(name, value)| EnvVar { name: name.into(), value: vec![value.max(1)].into() });
    proptest::collection::vec(one, 0..6)
}

fn any_globs() -> impl Strategy<Value = Vec<Glob>> {
    proptest::collection::vec("[Ab*?]{0,3}".prop_map(Glob::new), 0..3)
}

fn any_policy() -> impl Strategy<Value = EnvPolicy> {
    let inherit = prop_oneof![Just(Inherit::All), Just(Inherit::Core), Just(Inherit::None)];
    (inherit, any::<bool>(), any_globs(), any_globs(), any_vars(), any_globs()).prop_map(
        |(inherit, ignore_default_excludes, include, exclude, set, include_only)| EnvPolicy {
            inherit,
            ignore_default_excludes,
            only_peers_excludes: false,
            include,
            exclude,
            set,
            include_only,
            unset: vec![],
        },
    )
}

proptest! {
    #[test]
    fn the_result_is_sorted_unique_and_explained(
        policy in any_policy(), base in any_vars(), overlay in any_vars(), additions in any_vars(),
    ) {
        let resolved = resolve(&policy, Platform::Unix, &base, &overlay, &additions);
        prop_assert!(resolved.vars.windows(2).all(|pair| pair[0].name < pair[1].name));
        for var in &resolved.vars {
            let kept = resolved.decisions.iter().filter(|d| d.kept && d.name == var.name).count();
            prop_assert_eq!(kept, 1);
        }
        prop_assert_eq!(resolved.decisions.iter().filter(|d| d.kept).count(), resolved.vars.len());
    }

    #[test]
    fn every_well_formed_overlay_variable_arrives(policy in any_policy(), base in any_vars(), overlay in any_vars()) {
        let resolved = resolve(&policy, Platform::Unix, &base, &overlay, &[]);
        for (index, var) in overlay.iter().enumerate().filter(|(_, var)| is_well_formed(var)) {
            let is_last = !overlay[index + 1..].iter().any(|later| later.name == var.name);
            prop_assert!(!is_last || resolved.vars.contains(var));
        }
    }

    #[test]
    fn nothing_comes_from_the_base_that_an_exclude_names(policy in any_policy(), base in any_vars()) {
        let policy = EnvPolicy { set: vec![], ..policy };
        let resolved = resolve(&policy, Platform::Unix, &base, &[], &[]);
        for var in &resolved.vars {
            prop_assert!(first_match(&policy.exclude, var.name.as_bytes()).is_none());
        }
    }

    #[test]
    fn resolving_never_invents_a_variable(policy in any_policy(), base in any_vars()) {
        let resolved = resolve(&policy, Platform::Unix, &base, &[], &[]);
        for var in &resolved.vars {
            prop_assert!(base.contains(var) || policy.set.contains(var));
        }
    }
}
