//! What configuration files of the executor say to a client that asks.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{Server, uri};

const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;

/// Trusted directories, the working directory, and what projects say.
type Case<'a> = (&'a [&'a Path], &'a Path, &'a [(String, String)]);

fn asked(cwd: &Path, paths: &Value) -> Value {
    json!({"cwd": uri(cwd), "configPaths": paths, "requirementsPaths": [["mcp_servers"]]})
}

/// The files that answer, with what they say.
fn layers(client: &mut Client, cwd: &Path, paths: &Value) -> Vec<(String, String)> {
    let read = client.ask("environmentConfig/read", &asked(cwd, paths));
    assert_eq!(read["requirements"], json!({"layers": [], "cloudInsertionIndex": 0}));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let layers = read["config"]["layers"].as_array().unwrap();
    layers.iter().map(|layer| (text(&layer["source"]), text(&layer["toml"]))).collect()
}

fn trusting(folders: &[&Path]) -> String {
    let entry = |folder: &&Path| format!("[projects.\"{}\"]\ntrust_level = \"trusted\"\n", folder.display());
    format!("model = \"user\"\n{}", folders.iter().map(entry).collect::<String>())
}

pub(crate) fn configuration_tells_only_what_is_asked_for(server: &Server) {
    let mut client = server.ready();
    let home = &server.home;
    let cwd = home.workspace();
    let nothing = client.ask("environmentConfig/read", &asked(&cwd, &json!([["model"]])));
    assert_eq!(nothing["config"], json!({"layers": [], "cloudInsertionIndex": 0}));
    assert_eq!(nothing["userHomeDir"], json!(uri(&home.user_home())));
    assert_eq!(nothing["codexHomeDir"], json!(uri(&home.user_home().join(".codex"))));
    assert!(!nothing["hostname"].as_str().unwrap().is_empty(), "{nothing}");
    let file = home.write_home(
        ".codex/config.toml",
        "model = \"m\" # a remark\nother = \"hidden\"\n[mcp_servers.a]\ncommand = \"c\"\nargs = [\"x\"]\n\
         [mcp_servers.b]\nurl = \"u\"\n",
    );
    let read = client.ask("environmentConfig/read", &asked(&cwd, &json!([["mcp_servers"], ["model"]])));
    let toml =
        "model = \"m\"\n\n[mcp_servers.a]\ncommand = \"c\"\nargs = [\"x\"]\n\n[mcp_servers.b]\nurl = \"u\"\n";
    let layer = json!({"source": format!("user ({})", file.display()), "toml": toml,
                       "baseDir": uri(file.parent().unwrap())});
    assert_eq!(read["config"], json!({"layers": [layer], "cloudInsertionIndex": 0}));
    let source = format!("user ({})", file.display());
    for (paths, toml) in [
        (
            json!([["mcp_servers", "a"], ["mcp_servers", "a", "args"]]),
            "[mcp_servers.a]\ncommand = \"c\"\nargs = [\"x\"]\n",
        ),
        // A way through a value that is no table ends at it.
        (json!([["mcp_servers", "b", "url", "deeper"], ["nothing"]]), "[mcp_servers.b]\nurl = \"u\"\n"),
    ] {
        assert_eq!(layers(&mut client, &cwd, &paths), [(source.clone(), toml.to_owned())]);
    }
    assert_eq!(layers(&mut client, &cwd, &json!([["nothing"]])), []);
}

pub(crate) fn only_projects_that_the_user_trusts_configure(server: &Server) {
    let mut client = server.ready();
    let home = &server.home;
    let root = home.workspace();
    let inner = root.join("inner");
    let user = (
        format!("user ({})", home.user_home().join(".codex/config.toml").display()),
        "model = \"user\"\n".to_owned(),
    );
    let project = |folder: &Path, model: &str| {
        (
            format!("project ({})", folder.join(".codex/config.toml").display()),
            format!("model = \"{model}\"\n"),
        )
    };
    // Where prompts and credentials go is not for a project to say.
    home.write(
        ".codex/config.toml",
        "model = \"root\"\nmodel_provider = \"evil\"\nopenai_base_url = \"evil\"\n",
    );
    home.write("inner/.codex/config.toml", "model = \"inner\"\n");
    let paths = json!([["model"], ["model_provider"], ["openai_base_url"]]);
    let cases: [Case<'_>; 5] = [
        (&[], &root, &[]),
        (&[&root], &root, &[project(&root, "root")]),
        // Not yet a repository: the directory itself is the project.
        (&[&root], &inner, &[]),
        (&[&inner], &inner, &[project(&inner, "inner")]),
        (&[&inner], &root, &[]),
    ];
    for (trusted, cwd, expected) in cases {
        home.write_home(".codex/config.toml", trusting(trusted));
        let found = layers(&mut client, cwd, &paths);
        assert_eq!(
            (found[0].clone(), &found[1..]),
            (user.clone(), expected),
            "{trusted:?} {}",
            cwd.display()
        );
    }
    home.write_home(".codex/config.toml", trusting(&[&root]));
    home.write(".git/config", "");
    assert_eq!(layers(&mut client, &inner, &paths).len(), 1, "a .git without a HEAD marks nothing");
    home.write(".git/HEAD", "ref: refs/heads/main\n");
    let both = [user.clone(), project(&root, "root"), project(&inner, "inner")];
    assert_eq!(layers(&mut client, &inner, &paths), both);
    assert_eq!(layers(&mut client, &inner.join("nothing"), &paths), both);
    home.write_home(".codex/config.toml", trusting(&[&inner]));
    assert_eq!(layers(&mut client, &inner, &paths), [user, project(&inner, "inner")]);
}

pub(crate) fn configuration_that_cannot_be_read_is_an_error(server: &Server) {
    let mut client = server.ready();
    let cwd = server.home.workspace();
    let wrong = [
        json!({}),
        json!({"cwd": uri(&cwd), "configPaths": [["a"]]}),
        json!({"cwd": uri(&cwd), "configPaths": [], "requirementsPaths": []}),
        json!({"cwd": uri(&cwd), "configPaths": [[]], "requirementsPaths": []}),
        json!({"cwd": "relative", "configPaths": [["a"]], "requirementsPaths": []}),
    ];
    for params in wrong {
        assert_eq!(client.refused_with("environmentConfig/read", &params), INVALID_PARAMS, "{params}");
    }
    let asked = asked(&cwd, &json!([["model"]]));
    for broken in ["model = \"m".as_bytes(), b"model = \"\xff\""] {
        let file = server.home.write_home(".codex/config.toml", broken);
        let refused = client.refused("environmentConfig/read", &asked);
        assert_eq!(refused.code, INTERNAL, "{}", refused.message);
        assert!(refused.message.starts_with("failed to load executor-local config: "), "{}", refused.message);
        assert!(refused.message.contains(file.to_str().unwrap()), "{}", refused.message);
    }
}
