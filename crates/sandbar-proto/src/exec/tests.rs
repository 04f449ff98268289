//! The dialect's own messages, as they were seen on the wire, against the shapes here.

use sandbar_testkit::{Samples, Took, fuzz};
use serde_json::json;

use super::*;

#[test]
fn a_start_as_the_peer_sends_it_is_understood() {
    let sent = json!({
        "processId": "1-0b5e", "metadata": {"threadId": "01a1feb0-db63-7093-93ee-b836fb755a75", "toolCallId": "call_1"},
        "argv": ["/bin/bash", "-lc", "true"], "cwd": "file:///work",
        "envPolicy": {"inherit": "all", "ignoreDefaultExcludes": true, "exclude": ["CODEX_VERSION"], "set": {}, "includeOnly": []},
        "env": {"TERM": "dumb"}, "tty": false, "pipeStdin": false, "arg0": null,
        "sandbox": {
            "permissions": {"type": "managed", "file_system": {"type": "restricted", "entries": [
                {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"},
                {"path": {"type": "special", "value": {"kind": "project_roots"}}, "access": "write"},
                {"path": {"type": "special", "value": {"kind": "slash_tmp"}}, "access": "write"},
                {"path": {"type": "special", "value": {"kind": "tmpdir"}}, "access": "write"},
                {"path": {"type": "special", "value": {"kind": "project_roots", "subpath": ".git"}}, "access": "read",
                 "missing_path_behavior": "skip"}]}, "network": "restricted"},
            "cwd": "file:///work", "policyContext": {"cwd": "file:///work", "workspaceRoots": ["file:///work"]},
            "workspaceRoots": ["file:///work"], "userHomeDir": "file:///home/u", "windowsSandboxLevel": "disabled",
            "windowsSandboxProxySettingsMode": "reconcile", "useLegacyLandlock": false},
        "enforceManagedNetwork": false, "managedNetwork": null, "somethingNew": 1,
    });
    let params: StartParams = serde_json::from_value(sent).unwrap();
    let sandbox = params.sandbox.unwrap();
    let PermissionProfile::Managed { file_system: FileSystemPolicy::Restricted { entries, .. }, network } =
        sandbox.permissions
    else {
        panic!("a managed profile");
    };
    assert_eq!((entries.len(), network), (5, NetworkPolicy::Restricted));
    assert_eq!(
        entries[4].path,
        ManagedPath::Special { value: SpecialPath::ProjectRoots { subpath: Some(".git".to_owned()) } }
    );
    assert_eq!(params.cwd.unwrap().0.to_display(), "/work");
}

#[test]
fn a_sandbox_with_anything_unknown_is_refused_and_not_weakened() {
    let base = json!({"permissions": {"type": "disabled"}, "workspaceRoots": []});
    assert!(serde_json::from_value::<FileSystemSandbox>(base.clone()).is_ok());
    let mut with = base.clone();
    with["strictly"] = json!(true);
    assert!(serde_json::from_value::<FileSystemSandbox>(with).is_err());
    for permissions in [
        json!({"type": "novel"}),
        json!({"type": "managed", "file_system": {"type": "restricted", "entries": []}}),
        json!({"type": "managed", "file_system": {"type": "restricted", "entries": [], "more": 1}, "network": "restricted"}),
        json!({"type": "managed", "network": "restricted", "file_system": {"type": "restricted", "entries": [
            {"path": {"type": "path", "path": "/a"}, "access": "append"}]}}),
    ] {
        let mut with = base.clone();
        with["permissions"] = permissions.clone();
        assert!(serde_json::from_value::<FileSystemSandbox>(with).is_err(), "{permissions}");
    }
}

#[test]
fn a_place_that_a_newer_client_knows_is_read_as_one_that_nobody_knows() {
    let place = json!({"type": "special", "value": {"kind": "new_place", "subpath": "x"}});
    let read: ManagedPath = serde_json::from_value(place).unwrap();
    assert_eq!(read, ManagedPath::Special { value: SpecialPath::Unknown });
}

#[test]
fn results_have_the_peers_members() {
    let read = ReadResult { next_seq: 1, ..ReadResult::default() };
    assert_eq!(
        serde_json::to_value(read).unwrap(),
        json!({"chunks": [], "nextSeq": 1, "exited": false, "exitCode": null, "closed": false, "failure": null,
               "sandboxDenied": false})
    );
    let output = ProcessOutput {
        process_id: "p".to_owned(),
        seq: 3,
        stream: crate::Stream::Pty,
        chunk: Base64(b"hi\xff".to_vec()),
        offset: None,
        time: None,
    };
    assert_eq!(
        serde_json::to_value(output).unwrap(),
        json!({"processId": "p", "seq": 3, "stream": "pty", "chunk": "aGn/"})
    );
    assert_eq!(serde_json::to_value(EnvironmentStatus::Ready).unwrap(), json!({"status": "ready"}));
    let status = WriteResult { status: WriteStatus::UnknownProcess };
    assert_eq!(serde_json::to_value(status).unwrap(), json!({"status": "unknownProcess"}));
}

#[test]
fn what_we_cannot_honour_is_noticed_unless_it_asks_for_nothing() {
    let ask = |value| serde_json::from_value::<Unsupported>(value);
    assert!(ask(json!({})).unwrap().is_empty);
    assert!(ask(json!([])).unwrap().is_empty);
    assert!(!ask(json!({"a": {"b": [1]}})).unwrap().is_empty);
    assert!(!ask(json!([1])).unwrap().is_empty);
    assert!(ask(json!("x")).is_err());
}

#[test]
fn unusual_base64_is_refused() {
    assert_eq!(serde_json::from_value::<Base64>(json!("aGk=")).unwrap().0, b"hi");
    for text in ["aGk", "a", "aGk=\n", "aG k="] {
        assert!(serde_json::from_value::<Base64>(json!(text)).is_err(), "{text:?}");
    }
}

#[test]
fn fuzz_a_start_is_understood_as_it_would_be_sent_again_or_refused() {
    let plain = br#"{"processId":"p","argv":["sh","-c","true"],"cwd":"file:///work","env":{"A":"b"},"tty":true,"arg0":null}"#;
    let managed = br#"{"processId":"p","argv":["true"],"cwd":"/work","envPolicy":{"inherit":"core",
        "ignoreDefaultExcludes":false,"exclude":[],"set":{},"includeOnly":[]},"sandbox":{"permissions":{"type":"managed",
        "file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},
        {"path":{"type":"path","path":"file:///a"},"access":"write","missing_path_behavior":"skip"}]},
        "network":"restricted"},"cwd":"file:///work","workspaceRoots":["file:///work"]}}"#;
    let legacy = br#"{"processId":"p","argv":["true"],"cwd":null,"sandboxPolicy":{"type":"workspace-write",
        "writable_roots":["/a"],"network_access":true}}"#;
    let run = br#"{"processId":"p","argv":["true"],"cwd":"file:///","startId":"x","detached":true,
        "run":{"profile":"workspace","network":"off","allowWrite":["/a"]}}"#;
    let words: &[&[u8]] = &[
        br#""sandbox":"#,
        br#""sandboxPolicy":"#,
        br#""run":"#,
        br#""type":"disabled""#,
        br#""type":"external""#,
        br#""access":"none""#,
        br#""kind":"minimal""#,
        br#""somethingNew":1,"#,
        b"null",
        b"{}",
        b"[]",
        b"file:///%00",
        b"file://host/",
        b"%41",
    ];
    let whole: &[&[u8]] = &[plain, managed, legacy, run];
    fuzz("starts", Samples { whole, words }, |input| {
        let Ok(params) = serde_json::from_slice::<StartParams>(input) else { return Took::Refused };
        // What asks for security is never lost on the way to another executor.
        let text = serde_json::to_string(&params).unwrap();
        assert_eq!(serde_json::from_str::<StartParams>(&text).unwrap(), without_unsupported(params));
        Took::Understood
    });
}

/// What is not supported is refused when it asks for anything, and never sent on; see [`Unsupported`].
fn without_unsupported(params: StartParams) -> StartParams {
    let empty = |what: Option<Unsupported>| what.map(|_| Unsupported { is_empty: true });
    StartParams {
        shell_snapshot: empty(params.shell_snapshot),
        managed_network: empty(params.managed_network),
        network_proxy: empty(params.network_proxy),
        credential_providers: empty(params.credential_providers),
        ..params
    }
}
