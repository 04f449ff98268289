//! The skills and plugins that an executor finds on its machine.

use sandbar_testkit::{DEADLINE, eventually};
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{Server, uri};

const INVALID_PARAMS: i64 = -32602;

fn discover(client: &mut Client, server: &Server) -> Value {
    client.ask("capabilities/discoverV2", &json!({"cwd": server.cwd()}))
}

/// What is found once as much is found as there should be: the peer looks when it starts, and again when it hears of a
/// change.
fn found(client: &mut Client, server: &Server, plugins: usize, skills: usize) -> Value {
    eventually(DEADLINE, "everything that was installed", || {
        let found = discover(client, server);
        let count = |what: &str| found[what].as_array().unwrap().len();
        ((count("plugins"), count("skills")) == (plugins, skills)).then_some(found)
    })
}

fn skill(server: &Server, folder: &str, front: &str) -> String {
    uri(&server.home.write_home(&format!("{folder}/SKILL.md"), format!("---\n{front}\n---\nThe body.\n")))
}

pub(crate) fn skills_are_found_where_they_are_installed(server: &Server) {
    let mut client = server.ready();
    assert_eq!(discover(&mut client, server), json!({"plugins": [], "skills": [], "warnings": []}));
    server.home.write_home(
        ".codex/skills/one/agents/openai.yaml",
        "policy: {allow_implicit_invocation: false}\ndependencies: {tools: [{type: mcp, value: m, url: 'http://u'}]}\n",
    );
    let one = skill(server, ".codex/skills/one", "name: one\ndescription: does one");
    let two = skill(
        server,
        ".agents/skills/a/two",
        "description: >\n  does\n  two\nmetadata:\n  short-description: 2",
    );
    // A project's skills are the client's to find, as it finds its instructions.
    server.home.write(".agents/skills/three/SKILL.md", "---\nname: three\ndescription: does three\n---\n");
    let root = |id: &str, folder: &str| json!({"id": id, "path": uri(&server.home.user_home().join(folder))});
    let tool = json!({"type": "mcp", "value": "m", "description": null, "transport": null, "command": null,
                      "url": "http://u", "oauthCallbackPort": null});
    let expected = json!([
        {"name": "one", "description": "does one", "shortDescription": null, "path": one,
         "discoveryRoot": root("codex-home-skills", ".codex/skills"), "dependencies": {"tools": [tool]},
         "policy": {"allowImplicitInvocation": false, "products": []}},
        {"name": "two", "description": "does two", "shortDescription": "2", "path": two,
         "discoveryRoot": root("user-agent-skills", ".agents/skills"), "dependencies": null, "policy": null},
    ]);
    let found = found(&mut client, server, 0, 2);
    assert_eq!(found, json!({"plugins": [], "skills": expected, "warnings": []}));
    for wrong in [json!({}), json!({"cwd": "relative"}), json!({"cwd": server.cwd(), "sandbox": {}})] {
        assert_eq!(client.refused_with("capabilities/discoverV2", &wrong), INVALID_PARAMS, "{wrong}");
    }
}

pub(crate) fn a_skill_that_cannot_be_read_hides_no_other(server: &Server) {
    let good = ".codex/skills";
    for (folder, front) in [
        ("good", "name: good\ndescription: Use when: something"),
        ("no-description", "name: a"),
        ("no-text", "name: a\ndescription: [b]"),
        ("long-name", &format!("name: {}\ndescription: d", "n".repeat(65))),
        ("a/b/c/d/e/deep", "description: d"),
        ("a/b/c/d/e/f/too-deep", "description: d"),
    ] {
        skill(server, &format!("{good}/{folder}"), front);
    }
    server.home.write_home(".codex/skills/not-text/SKILL.md", b"---\nname: a\ndescription: d\n---\n\xff");
    server.home.write_home(
        ".codex/skills/large/SKILL.md",
        "---\nname: a\ndescription: d\n---\n".to_owned() + &"x".repeat(1024 * 1024),
    );
    server.home.write_home(".codex/skills/bare/SKILL.md", "no front\n");
    let linked = server.home.write_home("elsewhere/SKILL.md", "---\nname: linked\ndescription: d\n---\n");
    let skills = server.home.user_home().join(".codex/skills");
    std::os::unix::fs::symlink(linked.parent().unwrap(), skills.join("linked")).unwrap();
    let found = found(&mut server.ready(), server, 0, 3);
    let names: Vec<&str> =
        found["skills"].as_array().unwrap().iter().map(|skill| skill["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["deep", "good", "linked"]);
    assert_eq!(
        found["warnings"],
        json!(["some capability metadata could not be loaded; discovery may be incomplete"])
    );
}

pub(crate) fn plugins_are_found_in_their_newest_version(server: &Server) {
    let write =
        |name: &str, text: &str| server.home.write_home(&format!(".codex/plugins/cache/m/{name}"), text);
    write("old/1.9.0/.codex-plugin/plugin.json", r#"{"name": "old"}"#);
    let manifest =
        r#"{"name": "p", "interface": {"displayName": "P"}, "mcpServers": {"s": {"command": "c"}}}"#;
    let manifest_file = write("old/1.10.0/.codex-plugin/plugin.json", manifest);
    let apps = write("old/1.10.0/.app.json", r#"{"apps": {}}"#);
    let skill = write("old/1.10.0/skills/s/SKILL.md", "---\nname: s\ndescription: d\n---\n");
    write("plain/local/.claude-plugin/plugin.json", "{}");
    write("plain/2.0.0/.codex-plugin/plugin.json", r#"{"name": "not this one"}"#);
    write("a name/1/.codex-plugin/plugin.json", r#"{"name": "no name"}"#);
    let found = found(&mut server.ready(), server, 2, 0);
    let plugins = found["plugins"].as_array().unwrap();
    let root = manifest_file.parent().unwrap().parent().unwrap();
    assert_eq!(
        plugins[0],
        json!({
            "id": "old@m", "displayName": "P", "remotePluginId": null, "version": "1.10.0", "root": uri(root),
            "files": {
                "manifest": {"path": uri(&manifest_file), "contents": manifest},
                "mcpConfig": {"path": uri(&manifest_file), "contents": r#"{"s":{"command":"c"}}"#},
                "appsConfig": {"path": uri(&apps), "contents": r#"{"apps": {}}"#},
            },
            "skills": [{"name": "p:s", "description": "d", "shortDescription": null, "path": uri(&skill),
                        "dependencies": null, "policy": null}],
        })
    );
    assert_eq!((&plugins[1]["id"], &plugins[1]["version"]), (&json!("plain@m"), &json!("local")));
    assert_eq!((plugins.len(), &found["skills"], &found["warnings"]), (2, &json!([]), &json!([])), "{found}");
}

pub(crate) fn a_plugin_leads_nowhere_outside_of_itself(server: &Server) {
    let write =
        |name: &str, text: &str| server.home.write_home(&format!(".codex/plugins/cache/m/{name}"), text);
    write(
        "out/1/.codex-plugin/plugin.json",
        r#"{"name": "out", "mcpServers": "../../x.json", "skills": "../../s"}"#,
    );
    write("x.json", "{}");
    write("s/k/SKILL.md", "---\nname: k\ndescription: d\n---\n");
    write("broken/1/.codex-plugin/plugin.json", "{");
    let found = found(&mut server.ready(), server, 1, 0);
    let plugins = found["plugins"].as_array().unwrap();
    assert_eq!((&plugins[0]["files"]["mcpConfig"], &plugins[0]["skills"]), (&Value::Null, &json!([])));
    assert!(!found["warnings"].as_array().unwrap().is_empty(), "{found}");
}
