//! An exec server within a test's own process.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail like the test itself")]

use std::time::Duration;

use sandbar_exec::local::LocalProcesses;
use sandbar_exec::server::{self, Connect, Connections, Host, Server};
use sandbar_keeper::{Patience, RuntimeDir};
use sandbar_policy::OwnDirectories;
use sandbar_proto::AbsPath;
use sandbar_testkit::Home;

pub(crate) fn path(path: std::path::PathBuf) -> AbsPath {
    AbsPath::new(path.into_os_string()).unwrap()
}

/// A server within this process, with a keeper of its own.
pub(crate) fn within(home: &Home, settings: server::Settings) -> Server {
    let own = |name: &str| path(home.sandbar_home().join(name));
    let runtime = RuntimeDir::open(&home.sandbar_home().join("run")).unwrap();
    let attributes = sandbar_sandbox::caller::attributes();
    let keeper = runtime.keeper(&attributes).unwrap();
    let patience = || Patience::new(keeper.clone(), Duration::from_secs(60), |_| {});
    let mut limits = None;
    let mut connect = || {
        let knock = sandbar_keeper::knock(&keeper).unwrap();
        let mut client = knock.enter(&keeper, home.program(), &patience()).unwrap();
        limits = Some(sandbar_keeper::limits(&keeper, &mut client, &patience()).unwrap());
        LocalProcesses::new(client, keeper.processes(), patience()).unwrap()
    };
    let connections = Connections { processes: connect(), readers: connect() };
    let connect: Connect = std::sync::Arc::new(|| {
        Box::pin(std::future::ready(Err("its keeper does not end before it".to_owned())))
    });
    let servers = home.sandbar_home().join("run/servers");
    std::fs::create_dir_all(&servers).unwrap();
    let host = Host {
        version: "test".to_owned(),
        program: path(home.program().to_owned()),
        env: vec![],
        cwd: path(home.workspace()),
        home: Some(path(home.user_home())),
        own: OwnDirectories {
            runtime: own("run"),
            state: own("state"),
            config: own("config"),
            cache: own("cache"),
            home: Some(path(home.sandbar_home())),
            elsewhere: vec![],
        },
        runtime_roots: vec![],
        attributes,
        shell: path("/bin/sh".into()),
        limits: limits.unwrap(),
        runtime,
        servers,
        libraries: Vec::new(),
        profiles: Vec::new(),
        http_allow: Vec::new(),
    };
    Server::new(host, connections, connect, settings, None).unwrap()
}
