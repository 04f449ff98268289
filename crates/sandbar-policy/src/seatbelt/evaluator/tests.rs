use super::*;
use crate::fake_host::path;
use sandbar_testkit::{Samples, Took, fuzz};

const HEAD: &str = "(version 1)\n(deny default)\n";

fn evaluator(rules: &str) -> Result<Evaluator, Fault> {
    let parameters = [("A".to_owned(), "/a".to_owned()), ("B".to_owned(), "/a/b\") (x".to_owned())];
    Evaluator::new(&format!("{HEAD}{rules}"), &parameters)
}

#[track_caller]
fn reads(rules: &str, at: &str) -> bool {
    evaluator(rules).unwrap().allows_at("file-read-data", &path(at))
}

#[test]
fn what_no_rule_is_about_is_denied_and_of_several_the_last_decides() {
    assert!(!reads("", "/a"));
    assert!(reads("(allow file-read*)", "/a"));
    assert!(!reads("(allow file-read*) (deny file-read-data (literal \"/a\"))", "/a"));
    assert!(reads("(deny file-read-data (literal \"/a\")) (allow file-read*)", "/a"));
    assert!(!reads("(allow file-write* file-read-metadata)", "/a"));
}

#[test]
fn filters_mean_what_they_say() {
    let cases = [
        ("(literal \"/a\")", "/a", true),
        ("(literal \"/a\")", "/a/b", false),
        ("(subpath \"/a\")", "/a/b", true),
        ("(subpath \"/a\")", "/ab", false),
        ("(subpath (param \"A\"))", "/a/b", true),
        ("(literal (param \"B\"))", "/a/b\") (x", true),
        ("(literal \"/a\") (literal \"/b\")", "/b", true),
        ("(require-any (literal \"/a\") (literal \"/b\"))", "/b", true),
        ("(require-all (subpath \"/a\") (require-not (literal \"/a/b\")))", "/a/b", false),
        ("(require-all (subpath \"/a\") (require-not (literal \"/a/b\")))", "/a/c", true),
        ("(regex #\"^/dev/ttys[0-9]+$\")", "/dev/ttys012", true),
        ("(regex #\"^/dev/ttys[0-9]+$\")", "/dev/ttys", false),
        ("(regex #\"^/dev/ttys[0-9]+$\")", "/x/dev/ttys1", false),
        ("(regex #\"/(.*/)?[^/]*\\.pem$\")", "/a/b/c.pem", true),
        ("(regex #\"/(.*/)?[^/]*\\.pem$\")", "/a/b/cxpem", false),
        ("(regex #\"b.?d*\")", "/abcddd/x", true),
        ("(extension \"e\")", "/a", false),
    ];
    for (filter, at, expected) in cases {
        assert_eq!(reads(&format!("(allow file-read* {filter})"), at), expected, "{filter} on {at}");
    }
}

#[test]
fn what_is_no_file_is_told_apart_by_its_own_filters() {
    let rules = evaluator(
        "(allow sysctl-read (sysctl-name \"kern.version\") (sysctl-name-prefix \"hw.\"))
         (allow signal (target same-sandbox))
         (allow network-outbound (remote ip \"localhost:80\"))
         (allow network-outbound (remote unix-socket (subpath \"/a\")))
         (allow system-socket (require-all (socket-domain AF_SYSTEM) (socket-protocol 2)))
         (allow file-ioctl (extension \"e\"))",
    )
    .unwrap();
    let named = |name| rules.allows("sysctl-read", &Subject { name: Some(name), ..Subject::default() });
    assert_eq!(["kern.version", "kern.versions", "hw.ncpu"].map(named), [true, false, true]);
    let target = |target| rules.allows("signal", &Subject { target: Some(target), ..Subject::default() });
    assert_eq!(["same-sandbox", "others"].map(target), [true, false]);
    let to = |to| rules.allows("network-outbound", &Subject { address: Some(to), ..Subject::default() });
    assert_eq!([("localhost", 80), ("localhost", 81), ("example.org", 80)].map(to), [true, false, false]);
    assert!(rules.allows_at("network-outbound", &path("/a/s")));
    assert!(!rules.allows_at("network-outbound", &path("/b/s")));
    let socket = |domain, protocol| {
        let subject = Subject { domain: Some(domain), protocol: Some(protocol), ..Subject::default() };
        rules.allows("system-socket", &subject)
    };
    assert_eq!([socket("AF_SYSTEM", 2), socket("AF_SYSTEM", 1), socket("AF_UNIX", 2)], [true, false, false]);
    let extension = Subject { extension: Some("e"), ..Subject::default() };
    assert!(rules.allows("file-ioctl", &extension) && !rules.allows("file-ioctl", &Subject::default()));
}

#[test]
fn whatever_is_not_understood_is_an_error() {
    let faults = [
        "(allow)",
        "(allow default)",
        "(allow file-reed*)",
        "(allow *)",
        "(allow file-read* (vnode-type DIRECTORY))",
        "(allow file-read* (literal \"a\"))",
        "(allow file-read* (literal \"/a/\"))",
        "(allow file-read* (literal (param \"C\")))",
        "(allow file-read* (literal \"/a\\\"b\"))",
        "(allow file-read* (require-not (literal \"/a\") (literal \"/b\")))",
        "(allow file-read* (require-all))",
        "(allow file-read* (regex \"a\"))",
        "(allow file-read* (regex #\"a|b\"))",
        "(allow file-read* (regex #\"(a\"))",
        "(allow file-read* (regex #\"a)\"))",
        "(allow file-read* (regex #\"a{2}\"))",
        "(allow file-read* (regex #\"[z-a]\"))",
        "(allow network-outbound (remote ip \"example.org:80\"))",
        "(allow network-outbound (remote ip \"localhost:65536\"))",
        "(allow network-outbound (remote tcp \"*:1\"))",
        "(allow signal (target everybody))",
        "(import \"system.sb\")",
        "(allow file-read*",
        ")",
        "file-read*",
        "(allow file-read* \"open)",
    ];
    for text in faults {
        assert!(evaluator(text).is_err(), "{text}");
    }
    for text in [
        "",
        "(version 1)",
        "(version 3)(deny default)",
        "(deny default)(version 1)",
        "(version 1)(allow default)",
    ] {
        assert!(Evaluator::new(text, &[]).is_err(), "{text}");
    }
}

#[test]
fn fuzz_a_profile_is_understood_as_a_whole_and_its_last_rule_decides() {
    let samples = Samples {
        whole: &[
            b"(allow file-read* (subpath (param \"A\")) (literal \"/x\"))\n(deny file-write*)",
            b"; a comment\n(allow file-read* (require-all (subpath \"/a\") (require-not (literal \"/a/b\"))))",
            b"(allow file-read* (regex #\"^/dev/ttys[0-9]+$\") (regex #\"(.*/)?[^/]*\\.pem$\"))",
            b"(allow network-outbound (remote ip \"localhost:80\") (remote unix-socket (literal \"/s\")))",
            b"(allow sysctl-read (sysctl-name-prefix \"hw.\")) (allow signal (target self))",
        ],
        words: &[
            b"(", b")", b"\"", b"#\"", b" ", b";", b"\n", b"allow", b"deny", b"file-read*", b"(literal \"/a\")",
            b"(subpath \"/\")", b"(require-not ", b"(require-any ", b"(regex #\"", b"(.*)*", b"[^/]", b"\\.", b"(param \"A\")",
        ],
    };
    let asked = [
        path("/"),
        path("/a/b"),
        path("/dev/ttys1"),
        path("/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b.pem"),
    ];
    fuzz("sandbox profiles", samples, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Took::Refused };
        let Ok(read) = evaluator(text) else { return Took::Refused };
        for at in &asked {
            for operation in ["file-read-data", "file-write-unlink"] {
                let said = read.allows_at(operation, at);
                // A comment changes nothing, and what comes last wins.
                let same = evaluator(&format!("{text}\n; ) \" (allow file-read*)")).unwrap();
                assert_eq!(same.allows_at(operation, at), said);
                let denied = evaluator(&format!("{text}\n(deny {operation} (subpath \"/\"))")).unwrap();
                assert!(!denied.allows_at(operation, at));
                let allowed =
                    evaluator(&format!("{text}\n(allow {operation} (literal \"{}\"))", at.to_display()));
                assert!(allowed.unwrap().allows_at(operation, at));
            }
        }
        Took::if_understood(!read.rules.is_empty())
    });
}
