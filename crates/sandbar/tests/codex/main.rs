//! An unmodified Codex CLI that has Sandbar as its executor.
//!
//! The model is scripted: an endpoint on loopback that answers with the next call whatever it is asked. Everything else
//! is Codex's own, from the configuration to the sandbox that it asks for. Without `cargo xtask peers` there is no Codex
//! here, and the tests say so.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

mod mcp;
mod model;

use std::path::{Path, PathBuf};

use sandbar_testkit::need::Need;
use sandbar_testkit::{DEADLINE, Finished, Home, Link, Running, eventually, finish, need};
use serde_json::json;

use mcp::Mcp;
use model::{Model, Step, call, call_of, message, patch, session};

/// A name of a model that is offered `apply_patch`.
const MODEL: &str = "gpt-6-sol";

/// Codex, a home for both, and a server.
struct World {
    codex: PathBuf,
    _server: Running,
    url: String,
    home: Home,
}

impl World {
    fn new() -> Need<Self> {
        Self::with(&[], &[])
    }

    /// With further options and variables of the server.
    fn with(options: &[&str], variables: &[(&str, &str)]) -> Need<Self> {
        need::user_namespaces()?;
        need::program("bash")?;
        let codex = need::codex(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        let home = Home::new(env!("CARGO_BIN_EXE_sandbar"));
        // Codex has no home in a folder that it takes for a temporary one.
        need::that(
            !home.outside().starts_with(std::env::temp_dir()),
            "HOME is below the folder for temporary files",
        )?;
        let arguments = ["serve", "--listen", "ws://127.0.0.1:0", "--ws-auth", "none"];
        let mut command = home.sandbar(&arguments);
        // The executor is set up apart from the client, as it is on another machine.
        let set_up = home.user_home().join("executor");
        command.args(options).envs(variables.iter().copied()).env("CODEX_HOME", set_up);
        let mut server = Running::start(&mut command);
        let url = server.line();
        Ok(Self { codex, _server: server, url, home })
    }

    /// `codex exec` with the server at `url` as its executor, to the end of the turn.
    fn turn(&self, model: &Model, url: &str) -> Finished {
        let config = format!(
            "model = \"{MODEL}\"\nmodel_provider = \"scripted\"\napproval_policy = \"never\"\n\
             check_for_update_on_startup = false\n\n[analytics]\nenabled = false\n\n\
             [model_providers.scripted]\nname = \"scripted\"\nbase_url = \"{}\"\nwire_api = \"responses\"\n\n\
             [features]\nunified_exec = true\n",
            model.url
        );
        let file = self.home.write_home(".codex/config.toml", config);
        let mut command = self.home.command(&self.codex);
        command.args(["exec", "--skip-git-repo-check", "--sandbox", "workspace-write", "do it"]);
        command.env("CODEX_HOME", file.parent().unwrap()).env("CODEX_EXEC_SERVER_URL", url);
        finish(&mut command)
    }
}

#[test]
fn a_turn_runs_a_command_types_into_one_patches_a_file_and_reads_it_back() {
    let world = need!(World::new());
    let model = Model::start(vec![
        // What marks our sandbox says who ran it.
        Step::always(call("exec_command", &json!({"cmd": "echo hello; pwd; echo $SANDBAR_SANDBOX"}))),
        Step::always(call(
            "exec_command",
            &json!({"cmd": "echo ready; cat; echo ended", "tty": true, "yield_time_ms": 500}),
        )),
        Step::after(|output| {
            let typed =
                json!({"session_id": session(output), "chars": "typed\n\u{4}", "yield_time_ms": 5000});
            call("write_stdin", &typed)
        }),
        Step::always(patch("*** Begin Patch\n*** Add File: made.txt\n+one\n+two\n*** End Patch\n")),
        Step::always(patch(
            "*** Begin Patch\n*** Update File: made.txt\n@@\n one\n-two\n+three\n*** End Patch\n",
        )),
        Step::always(call("exec_command", &json!({"cmd": "cat made.txt; echo no > /usr/made; exit 3"}))),
        Step::always(message("all done")),
    ]);
    let finished = world.turn(&model, &world.url);
    assert_eq!((finished.code, finished.out().trim()), (Some(0), "all done"), "{finished:?}");
    let heard = model.heard();
    let workspace = world.home.workspace().display().to_string();
    assert_eq!(output_of(&heard[0]), format!("hello\n{workspace}\nlinux\n"));
    assert_eq!(output_of(&heard[1]), "ready\r\n");
    assert_eq!(output_of(&heard[2]), "typed\r\ntyped\r\nended\r\n");
    assert!(heard[3].contains("A made.txt") && heard[4].contains("M made.txt"), "{heard:?}");
    let last = &heard[5];
    assert!(output_of(last).starts_with("one\nthree\n") && last.contains("exited with code 3"), "{last}");
    assert_eq!(std::fs::read_to_string(world.home.workspace().join("made.txt")).unwrap(), "one\nthree\n");
    assert!(!Path::new("/usr/made").exists(), "what the sandbox denies stays denied");
}

#[test]
fn a_turn_whose_connection_is_cut_again_and_again_misses_nothing() {
    let world = need!(World::new());
    let link = Link::to(world.url.strip_prefix("ws://").unwrap().parse().unwrap());
    let url = format!("ws://{}", link.address());
    let (cutter, marker) = (link.clone(), world.home.workspace().join("marker"));
    let (cut_after, cut_before) = (link.clone(), link.clone());
    // Writes until it is told a word, so that some is written while nobody is connected. It looks whether there is a word
    // before it reads: a read that is out of time forgets what it has of one.
    let ticks = "bash -c 'i=0; while ! read -t 0; do echo tick $i; i=$((i+1)); \
                 if [ $i = 5 ]; then echo > marker; fi; sleep 0.02; done; read word; echo last $i $word'";
    let model = Model::start(vec![
        Step::after(move |_| {
            // In the middle of the command, while Codex waits for what it writes.
            std::thread::spawn(move || {
                eventually(DEADLINE, "the fifth tick", || marker.exists().then_some(()));
                cutter.cut();
            });
            call("exec_command", &json!({"cmd": ticks, "tty": true, "yield_time_ms": 1000}))
        }),
        Step::after(move |output| {
            // And while the model thinks.
            cut_after.cut();
            let typed = json!({"session_id": session(output), "chars": "word\n", "yield_time_ms": 5000});
            call("write_stdin", &typed)
        }),
        Step::after(move |_| {
            cut_before.cut();
            patch("*** Begin Patch\n*** Add File: made.txt\n+one\n*** End Patch\n")
        }),
        Step::always(call("exec_command", &json!({"cmd": "cat made.txt"}))),
        Step::always(message("all done")),
    ]);
    let finished = world.turn(&model, &url);
    assert_eq!((finished.code, finished.out().trim()), (Some(0), "all done"), "{finished:?}");
    let heard = model.heard();
    let both = [output_of(&heard[0]), output_of(&heard[1])].concat();
    let lines: Vec<&str> = both.lines().filter(|line| !line.starts_with("word")).collect();
    let count = lines.len() - 1;
    let expected: Vec<String> =
        (0..count).map(|tick| format!("tick {tick}")).chain([format!("last {count} word")]).collect();
    assert_eq!(lines, expected);
    assert!(heard[2].contains("A made.txt"), "{}", heard[2]);
    assert_eq!(output_of(&heard[3]), "one\n");
    assert_eq!(link.cuts(), 3);
    assert!(link.connections() > 3, "{} connections", link.connections());
}

#[test]
fn a_command_that_writes_without_a_pause_outlives_its_connection() {
    let world = need!(World::new());
    let link = Link::to(world.url.strip_prefix("ws://").unwrap().parse().unwrap());
    let url = format!("ws://{}", link.address());
    let cutter = link.clone();
    let flood = "i=0; while ! test -e stop; do echo tick $i; i=$((i+1)); done; echo last; exit 7";
    let model = Model::start(vec![
        Step::always(call("exec_command", &json!({"cmd": flood, "yield_time_ms": 500}))),
        Step::after(move |output| {
            cutter.cut();
            call("write_stdin", &json!({"session_id": session(output), "chars": "", "yield_time_ms": 5000}))
        }),
        Step::always(call("exec_command", &json!({"cmd": "touch stop"}))),
        Step::always(message("all done")),
    ]);
    let finished = world.turn(&model, &url);
    assert_eq!((finished.code, finished.out().trim()), (Some(0), "all done"), "{finished:?}");
    let heard = model.heard();
    assert!(!heard[1].contains("failed"), "{}", heard[1]);
    assert_eq!(link.cuts(), 1);
}

#[test]
fn a_turn_uses_an_mcp_server_that_is_set_up_at_the_executor() {
    let mcp = Mcp::start();
    let allowed = format!("127.0.0.1:{}", mcp.port);
    let world = need!(World::with(&["--http-allow", &allowed], &[("MCP_KEY", "sesame")]));
    let config =
        format!("[mcp_servers.theirs]\nurl = \"http://{allowed}/mcp\"\nbearer_token_env_var = \"MCP_KEY\"\n");
    world.home.write_home("executor/config.toml", config);
    let model = Model::start(vec![Step::always(call_of("theirs", "hi")), Step::always(message("all done"))]);
    let finished = world.turn(&model, &world.url);
    assert_eq!((finished.code, finished.out().trim()), (Some(0), "all done"), "{finished:?}");
    assert!(model.heard()[0].ends_with("hi from the executor"), "{:?}", model.heard());
    let expected = ["initialize", "notifications/initialized", "tools/list", "tools/call"];
    assert_eq!(mcp.heard(), expected.map(|method| (method.to_owned(), "Bearer sesame".to_owned())));
}

/// What a command wrote, without what Codex says about it.
fn output_of(heard: &str) -> &str {
    heard.split_once("Output:\n").map_or_else(|| panic!("{heard}"), |(_, output)| output)
}
