//! `process/start`.

use serde_json::{Value, json};

use crate::client::Story;
use crate::server::Server;

pub(crate) fn a_command_runs_and_its_events_are_numbered_without_a_gap(server: &Server) {
    let mut client = server.ready();
    let started = client.ask("process/start", &server.shell("p", "echo out; echo err >&2; exit 3"));
    assert_eq!(started, json!({"processId": "p", "sandboxType": "none"}));
    let story = client.story("p");
    assert_eq!(
        Story { seqs: Vec::new(), ..story },
        Story { stdout: "out\n".into(), stderr: "err\n".into(), code: 3, ..Story::default() }
    );
    assert_eq!(story.seqs, (1..=story.seqs.len() as u64).collect::<Vec<_>>());
}

pub(crate) fn starts_that_fail_have_codes_and_leave_the_name_free(server: &Server) {
    let mut client = server.ready();
    let table: [(Value, i64); 9] = [
        (json!({"argv": []}), -32602),
        (json!({"argv": null}), -32602),
        (json!({"cwd": "relative"}), -32602),
        (json!({"cwd": "file:///no/such/place"}), -32603),
        (json!({"argv": ["/no/such/program"]}), -32603),
        (json!({"argv": ["no-such-program"]}), -32603),
        (json!({"argv": ["/etc/passwd"]}), -32603),
        (json!({"argv": ["/bin/sh", "a\u{0}b"]}), -32603),
        (json!({"metadata": {"threadId": "no uuid", "toolCallId": "c"}}), -32602),
    ];
    for (changes, code) in table {
        let refused = client.refused("process/start", &server.shell_with("p", "true", &changes));
        assert_eq!(refused.code, code, "{changes}: {}", refused.message);
    }
    let metadata = json!({"threadId": "0199a213-81a4-7000-8000-000000000001", "toolCallId": "call_1"});
    client.ask("process/start", &server.shell_with("p", "exit 4", &json!({"metadata": metadata})));
    assert_eq!(client.story("p").code, 4);
}

pub(crate) fn a_name_is_taken_as_long_as_it_is_remembered(server: &Server) {
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "cat", &json!({"pipeStdin": true})));
    let again = client.refused("process/start", &server.shell("p", "true"));
    assert_eq!((again.code, again.message.as_str()), (-32600, "process p already exists"));
    client.ask("process/terminate", &json!({"processId": "p"}));
    client.story("p");
    let again = client.refused("process/start", &server.shell("p", "true"));
    assert_eq!((again.code, again.message.as_str()), (-32600, "process p already exists"));
}

pub(crate) fn names_may_be_empty_and_long(server: &Server) {
    let mut client = server.ready();
    for name in [String::new(), "n".repeat(5000)] {
        client.ask("process/start", &server.shell(&name, "echo $0"));
        assert_eq!(client.story(&name).code, 0);
    }
}

pub(crate) fn a_program_is_found_on_the_path_of_its_own_environment(server: &Server) {
    server.home.write("bin/own-program", "#!/bin/sh\necho found");
    let program = server.home.workspace().join("bin/own-program");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = server.home.workspace().join("bin");
    let mut client = server.ready();
    let changes = json!({"argv": ["own-program"], "env": {"PATH": path}});
    client.ask("process/start", &server.shell_with("p", "", &changes));
    assert_eq!(client.story("p").stdout, "found\n");
    // A default path where the environment has none.
    let changes = json!({"argv": ["true"], "env": {}});
    client.ask("process/start", &server.shell_with("q", "", &changes));
    assert_eq!(client.story("q").code, 0);
}

pub(crate) fn without_a_policy_the_environment_is_exact(server: &Server) {
    let mut client = server.ready();
    let changes = json!({"argv": ["/usr/bin/env"], "env": {}});
    client.ask("process/start", &server.shell_with("p", "", &changes));
    assert_eq!(client.story("p").stdout, "");
    let changes = json!({"argv": ["/usr/bin/env"], "env": {"A": "1", "MY_TOKEN": "t"}, "envPolicy": null});
    client.ask("process/start", &server.shell_with("q", "", &changes));
    assert_eq!(client.story("q").stdout, "A=1\nMY_TOKEN=t\n");
}

pub(crate) fn with_a_policy_the_overlay_wins_over_everything(server: &Server) {
    let mut client = server.ready();
    let policy = |changes: &Value| {
        let mut policy = json!({"inherit": "all", "ignoreDefaultExcludes": false, "exclude": [], "set": {},
                                "includeOnly": []});
        for (name, value) in changes.as_object().unwrap() {
            policy[name] = value.clone();
        }
        policy
    };
    let home = server.home.user_home().display().to_string();
    let table = [
        (json!({"inherit": "none"}), json!({}), String::new()),
        (json!({"inherit": "none", "set": {"S": "1"}}), json!({}), "S=1\n".to_owned()),
        (
            json!({"includeOnly": ["H*", "l?ng"], "set": {"S": "1"}}),
            json!({"OVER": "1"}),
            format!("HOME={home}\nLANG=C.UTF-8\nOVER=1\n"),
        ),
        (
            json!({"inherit": "core", "exclude": ["lang"], "set": {"LANG": "x", "A_KEY": "k"}}),
            json!({"PATH": "/p", "B_KEY": "k"}),
            format!("A_KEY=k\nB_KEY=k\nHOME={home}\nLANG=x\nPATH=/p\n"),
        ),
    ];
    for (at, (changes, overlay, expected)) in table.into_iter().enumerate() {
        let process = format!("p{at}");
        let changes = json!({"argv": ["/usr/bin/env"], "env": overlay, "envPolicy": policy(&changes)});
        client.ask("process/start", &server.shell_with(&process, "", &changes));
        let story = client.story(&process);
        let mut lines: Vec<&str> = story.stdout.lines().collect();
        lines.sort_unstable();
        let found: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(found, expected, "{changes}");
    }
}

pub(crate) fn a_policy_has_all_five_fields(server: &Server) {
    let mut client = server.ready();
    for policy in [
        json!({"inherit": "all"}),
        json!({"inherit": "some", "ignoreDefaultExcludes": true,
        "exclude": [], "set": {}, "includeOnly": []}),
    ] {
        let start = server.shell_with("p", "true", &json!({"envPolicy": policy}));
        assert_eq!(client.refused_with("process/start", &start), -32602, "{policy}");
    }
}

pub(crate) fn a_process_has_a_session_of_its_own_and_nothing_of_the_server(server: &Server) {
    let mut client = server.ready();
    // Fields of proc_pid_stat(5): the process, its group and its session.
    let script = "cut -d' ' -f1,5,6 /proc/$$/stat; umask; readlink /proc/$$/fd/0; ls /proc/$$/fd";
    for process in ["p", "q"] {
        client.ask("process/start", &server.shell(process, script));
    }
    let sessions = ["p", "q"].map(|process| {
        let story = client.story(process);
        let lines: Vec<&str> = story.stdout.lines().collect();
        let fields: Vec<i32> = lines[0].split(' ').map(|field| field.parse().unwrap()).collect();
        assert_eq!(fields[0], fields[1], "it leads its process group");
        assert_eq!(lines[1..], ["0022", "/dev/null", "0", "1", "2"]);
        fields[2]
    });
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own: i32 = own.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert!(sessions[0] != sessions[1] && !sessions.contains(&own), "{sessions:?}, ours is {own}");
}

pub(crate) fn a_process_sees_the_name_that_the_client_gave_it(server: &Server) {
    let mut client = server.ready();
    let changes = json!({"arg0": "another name"});
    client.ask(
        "process/start",
        &server.shell_with("p", "tr '\\0' '\\n' < /proc/$$/cmdline | head -n 1", &changes),
    );
    assert_eq!(client.story("p").stdout, "another name\n");
}

pub(crate) fn a_terminal_has_24_rows_and_80_columns(server: &Server) {
    let mut client = server.ready();
    let start =
        server.shell_with("p", "stty size; test -t 0 && test -t 1 && test -t 2", &json!({"tty": true}));
    client.ask("process/start", &start);
    let story = client.story("p");
    assert_eq!((story.pty.as_str(), story.stdout.as_str(), story.code), ("24 80\r\n", "", 0));
}

pub(crate) fn paths_are_uris(server: &Server) {
    std::fs::create_dir(server.home.workspace().join("a b")).unwrap();
    let mut client = server.ready();
    client.ask("process/start", &server.shell_with("p", "pwd", &json!({"cwd": server.file("a%20b")})));
    assert!(client.story("p").stdout.ends_with("/ws/a b\n"));
    for broken in ["file://elsewhere/tmp", "file:///tmp?a", "file:///tmp#a", "http://tmp/", "tmp"] {
        let start = server.shell_with("q", "true", &json!({"cwd": broken}));
        assert_eq!(client.refused_with("process/start", &start), -32602, "{broken}");
    }
    // Relative to the root, where a URI has nothing else to be relative to.
    let found = client.ask("fs/getMetadata", &json!({"path": "file:etc"}));
    assert_eq!(found["isDirectory"], json!(true));
}
