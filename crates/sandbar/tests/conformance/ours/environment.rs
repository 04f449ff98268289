//! What a client is told of this machine, where we are stricter than the peer.

use serde_json::{Value, json};

use crate::server::{Server, uri};

/// A sandbox that shows everything but the user's configuration.
fn without_codex_home(server: &Server) -> Value {
    let hidden = uri(&server.home.user_home().join(".codex"));
    let entry = |path: Value, access: &str| json!({"path": path, "access": access});
    let entries = [
        entry(json!({"type": "special", "value": {"kind": "root"}}), "read"),
        entry(json!({"type": "path", "path": hidden}), "none"),
    ];
    let system = json!({"type": "restricted", "entries": entries});
    json!({"permissions": {"type": "managed", "network": "restricted", "file_system": system},
           "cwd": server.cwd(), "workspaceRoots": [server.cwd()]})
}

pub(crate) fn configuration_is_read_under_the_sandbox_that_a_request_carries(server: &Server) {
    let mut client = server.ready();
    server.home.write_home(".codex/config.toml", "model = \"m\"\n");
    let ask = |sandbox: Value| json!({"cwd": server.cwd(), "configPaths": [["model"]], "requirementsPaths": [], "sandbox": sandbox});
    let read = client.ask("environmentConfig/read", &ask(Value::Null));
    assert_eq!(read["config"]["layers"][0]["toml"], json!("model = \"m\"\n"));
    let id = client.send("environmentConfig/read", &ask(without_codex_home(server)));
    let answer = client.answer(id).to_string();
    assert!(!answer.contains("model"), "{answer}");
    // One that can't be had is no reason to do without.
    let mut unknown = without_codex_home(server);
    unknown["noSuchProtection"] = json!(true);
    assert_eq!(client.refused("environmentConfig/read", &ask(unknown)).code, -32602);
}

pub(crate) fn configuration_has_bounds(server: &Server) {
    let mut client = server.ready();
    let ask = |paths: Value| json!({"cwd": server.cwd(), "configPaths": paths, "requirementsPaths": []});
    let many = json!(vec![["a"]; 1001]);
    assert_eq!(client.refused("environmentConfig/read", &ask(many)).kind, "invalid_params");
    server.home.write_home(".codex/config.toml", "#".repeat(1024 * 1024 + 1));
    let refused = client.refused("environmentConfig/read", &ask(json!([["a"]])));
    assert!(refused.message.ends_with("it has more than 1048576 bytes"), "{}", refused.message);
}

pub(crate) fn skills_are_looked_for_under_the_sandbox_that_a_request_carries(server: &Server) {
    let mut client = server.ready();
    server.home.write_home(".codex/skills/one/SKILL.md", "---\nname: one\ndescription: d\n---\n");
    server.home.write_home(".agents/skills/two/SKILL.md", "---\nname: two\ndescription: d\n---\n");
    let mut names = |sandbox: Value| {
        let found = client.ask("capabilities/discoverV2", &json!({"cwd": server.cwd(), "sandbox": sandbox}));
        let skills = found["skills"].as_array().unwrap();
        skills.iter().map(|skill| skill["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Value::Null), ["one", "two"]);
    assert_eq!(names(without_codex_home(server)), ["two"]);
}

pub(crate) fn what_is_discovered_has_bounds(server: &Server) {
    let front = format!("---\nname: a\ndescription: {}\n---\n", "d".repeat(1000 * 1024));
    for number in 0..8 {
        server.home.write_home(&format!(".codex/skills/{number}/SKILL.md"), &front);
    }
    let found = server.ready().ask("capabilities/discoverV2", &json!({"cwd": server.cwd()}));
    assert_eq!(found["skills"].as_array().unwrap().len(), 4);
    assert_eq!(found["warnings"], json!(["capability discovery size limit reached"]));
}
