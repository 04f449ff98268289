//! Real programs doing real work in the default profile.
//!
//! Each one stands for a kind of program that people complain about under other sandboxes. What is not installed
//! is skipped by name.

use std::path::PathBuf;
use std::process::Stdio;

use sandbar_testkit::need::Need;
use sandbar_testkit::{Finished, Home, Running, finish, need};

fn with(programs: &[&str]) -> Need<Home> {
    need::user_namespaces()?;
    for program in programs {
        need::program(program)?;
    }
    Ok(Home::new(env!("CARGO_BIN_EXE_sandbar")))
}

/// Bytes of a flood: what a run of all tests can bear, or a gigabyte when asked for.
fn flood_bytes() -> u64 {
    let mebibytes = if std::env::var_os("SANDBAR_SOAK").is_some() { 1024 } else { 256 };
    mebibytes * 1024 * 1024
}

#[test]
fn git_makes_a_repository_and_commits() {
    let home = need!(with(&["git"]));
    let script = "git init -q -b main . && git config user.name t && git config user.email t@example.org && \
                  mkdir -p a/b && echo one > a/b/c && git add . && git commit -q -m one && \
                  git checkout -q -b side && echo two > a/b/c && git commit -q -a -m two && \
                  git checkout -q main && git merge -q side && git log --format=%s && git status --short";
    assert_eq!(home.run(&[], script), Finished::with(0, "two\none\n", ""));
    let mut command = home.command("git");
    assert_eq!(finish(command.args(["fsck", "--strict"])).code, Some(0));
}

#[test]
fn a_web_server_serves_its_client_without_a_network() {
    let home = need!(with(&["python3"]));
    home.write("page", "hello");
    let code = "\
import subprocess, sys, re, urllib.request
server = subprocess.Popen([sys.executable, '-u', '-m', 'http.server', '0', '--bind', '127.0.0.1'],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
port = re.search(r'port (\\d+)', server.stdout.readline()).group(1)
print(urllib.request.urlopen(f'http://127.0.0.1:{port}/page').read().decode())
print(urllib.request.urlopen(f'http://localhost:{port}/page').status)
server.terminate()
";
    let finished = home.finish(&["run", "-q", "--", "python3", "-c", code]);
    assert_eq!(finished, Finished::with(0, "hello\n200\n", ""));
}

#[test]
fn make_builds_with_many_jobs() {
    let home = need!(with(&["make"]));
    let makefile = "\
objects := $(shell seq 1 40)
all: $(addprefix out/,$(objects)) sub
\tcat out/* | sort -n | tail -1
out/%: | out
\techo $* > $@
out:
\tmkdir -p out
sub: | out
\t+$(MAKE) -s -f sub.mk
.PHONY: all sub
";
    home.write("Makefile", makefile);
    home.write("sub.mk", "all: a b c\na b c: ; echo $@ > out/0$@\n.PHONY: all a b c\n");
    assert_eq!(home.run(&[], "make -s -j 8"), Finished::with(0, "40\n", ""));
}

#[test]
fn python_runs_event_loops_threads_and_processes() {
    let home = need!(with(&["python3"]));
    let code = "\
import asyncio, multiprocessing, concurrent.futures, sqlite3, tempfile, os

async def serve(reader, writer):
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b'tcp\\n')
    print((await reader.readline()).decode().strip())
    path = tempfile.mkdtemp() + '/sock'
    await asyncio.start_unix_server(serve, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'unix\\n')
    print((await reader.readline()).decode().strip())
    process = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)
    print((await process.communicate(b'child'))[0].decode())
    print(await asyncio.to_thread(sum, range(10)))

if __name__ == '__main__':
    asyncio.run(main())
    for method in ['fork', 'spawn', 'forkserver']:
        with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            print(method, list(pool.map(abs, [-1, -2, -3])))
    with multiprocessing.Manager() as manager:
        print(manager.list([1, 2]))
    base = sqlite3.connect('base.db')
    base.execute('pragma journal_mode=wal')
    base.execute('create table t (x)')
    base.execute('insert into t values (7)')
    base.commit()
    print(base.execute('select x from t').fetchall())
";
    home.write("main.py", code);
    let expected =
        "TCP\nUNIX\nchild\n45\nfork [1, 2, 3]\nspawn [1, 2, 3]\nforkserver [1, 2, 3]\n[1, 2]\n[(7,)]\n";
    assert_eq!(home.run(&[], "python3 main.py"), Finished::with(0, expected, ""));
}

#[test]
fn python_tests_and_virtual_environments_work() {
    let home = need!(with(&["python3"]));
    home.write(
        "test_it.py",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(1, 1)\n",
    );
    let script = "python3 -m unittest -q 2>&1 | grep -c OK; python3 -m venv --without-pip v && v/bin/python -c 'print(6 * 7)'";
    assert_eq!(home.run(&[], script).ok(), "1\n42\n");
}

#[test]
fn node_serves_forks_and_works_in_threads() {
    let home = need!(with(&["node"]));
    let code = "\
const http = require('http'), { fork, execFileSync } = require('child_process'), { Worker } = require('worker_threads');
if (process.send) { process.send('from child'); process.disconnect(); } else {
  const server = http.createServer((_, answer) => answer.end('hello')).listen(0, '127.0.0.1', () =>
    http.get({ port: server.address().port, host: '127.0.0.1' }, answer => answer.on('data', data => {
      console.log(String(data)); server.close();
      fork(__filename).on('message', message => {
        console.log(message);
        new Worker(\"require('worker_threads').parentPort.postMessage(7)\", { eval: true }).on('message', n => {
          console.log(n, String(execFileSync('echo', ['out'])).trim());
        });
      });
    })));
}
";
    home.write("main.js", code);
    assert_eq!(home.run(&[], "node main.js"), Finished::with(0, "hello\nfrom child\n7 out\n", ""));
}

#[test]
fn npm_installs_a_local_package() {
    let home = need!(with(&["node", "npm"]));
    home.write("dep/package.json", r#"{"name": "dep", "version": "1.0.0", "main": "index.js"}"#);
    home.write("dep/index.js", "module.exports = 'from the package'");
    home.write("app/package.json", r#"{"name": "app", "version": "1.0.0"}"#);
    let script = "(cd dep && npm pack --silent) && cd app && \
                  npm install --offline --no-audit --no-fund --silent ../dep/dep-1.0.0.tgz >&2 && \
                  node -p \"require('dep')\"";
    let finished = home.run(&[], script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.out().ends_with("from the package\n"), "{finished:?}");
}

#[test]
fn a_compiler_builds_a_program_that_runs() {
    let home = need!(with(&["gcc"]));
    home.write("main.c", "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 3; }\n");
    assert_eq!(home.run(&[], "gcc -O2 -pipe -o main main.c && ./main"), Finished::with(3, "compiled\n", ""));
}

/// The toolchain that builds this test, and its downloads.
fn cargo() -> Need<(PathBuf, PathBuf)> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).ok_or("cargo did not start this test")?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.ok_or("there is no home of cargo")?;
    let caches =
        std::fs::read_dir(home.join("registry/cache")).map_err(|_| "cargo has downloaded nothing")?;
    let has_itoa = caches.flatten().flat_map(|cache| std::fs::read_dir(cache.path()).into_iter().flatten());
    let found = has_itoa.flatten().any(|file| file.file_name().to_string_lossy().starts_with("itoa-1."));
    found.then_some((cargo, home)).ok_or_else(|| "cargo has not downloaded itoa".to_owned())
}

#[test]
fn cargo_builds_offline_from_what_was_fetched_before() {
    let home = need!(with(&["gcc"]));
    let (cargo, downloads) = need!(cargo());
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"1\"\n[workspace]\n";
    home.write("Cargo.toml", manifest);
    home.write("src/main.rs", "fn main() { println!(\"{}\", itoa::Buffer::new().format(42)); }");
    home.write(
        "tests/it.rs",
        "#[test] fn it() { std::fs::write(std::env::temp_dir().join(\"x\"), \"y\").unwrap(); }",
    );
    let tools = cargo.parent().unwrap().to_owned();
    let path = format!("{}:{}", tools.display(), sandbar_testkit::PATH);
    let script = "cargo build -q --offline && target/debug/app && cargo test -q --offline 2>&1 | grep -c 'test result: ok. 1 passed'";
    let mut command = home.shell(&[], script);
    command.env("PATH", path).env("CARGO_HOME", &downloads).env("RUSTC", tools.join("rustc"));
    let finished = finish(&mut command);
    assert_eq!((finished.code, finished.out().as_str()), (Some(0), "42\n1\n"), "{finished:?}");
    // A second run finds what the first one made.
    let mut command = home.shell(&[], "cargo build --offline 2>&1 | grep -c Compiling");
    command.env("CARGO_HOME", &downloads).env("RUSTC", tools.join("rustc"));
    command.env("PATH", format!("{}:{}", tools.display(), sandbar_testkit::PATH));
    assert_eq!(finish(&mut command).out(), "0\n");
}

#[test]
fn shells_have_job_control_here_documents_and_process_substitution() {
    let home = need!(with(&["bash"]));
    let script = "\
set -e
cat <<EOF
here
EOF
diff <(seq 3) <(seq 3) && echo same
mkfifo f; (echo through > f &); cat f
seq 100 | xargs -P 4 -n 10 echo | wc -l
(flock 9; echo locked) 9> lock
trap 'echo trapped' USR1; kill -USR1 $$
coproc cat; echo co >&${COPROC[1]}; read -r line <&${COPROC[0]}; echo $line
seq 300000 | sort -R --buffer-size=1M -T /tmp | sort -n | tail -1
timeout 5 true && echo in time
nice -n 5 nice
";
    let finished = home.finish(&["run", "-q", "--", "bash", "-c", script]);
    // Whoever runs the tests may be nice already.
    let nice = finish(&mut home.host_shell("nice -n 5 nice")).ok();
    let expected = format!("here\nsame\nthrough\n10\nlocked\ntrapped\nco\n300000\nin time\n{nice}");
    assert_eq!(finished, Finished::with(0, expected, ""));
}

#[test]
fn archives_are_packed_and_unpacked() {
    let home = need!(with(&["tar", "gzip"]));
    let script = "mkdir -p a/b && seq 1000 > a/b/c && ln -s b a/l && ln a/b/c a/d && chmod 750 a/b && \
                  tar czf a.tgz a && rm -r a && tar xzf a.tgz && cmp a/b/c a/d && readlink a/l && stat -c %a a/b && \
                  touch -d 2001-02-03 a/d && find a -newermt 2002-01-01 -type f | wc -l";
    assert_eq!(home.run(&[], script), Finished::with(0, "b\n750\n0\n", ""));
}

#[test]
fn a_flood_passes_through_pipes_inside() {
    let home = need!(with(&[]));
    let bytes = flood_bytes();
    let script = format!("head -c {bytes} /dev/zero | wc -c");
    assert_eq!(home.run(&[], &script), Finished::with(0, format!("{bytes}\n"), ""));
}

#[test]
fn a_flood_passes_in_and_out() {
    let home = need!(with(&[]));
    let bytes = flood_bytes();
    for options in ["", "--no-record"] {
        let script = format!(
            r#"head -c {bytes} /dev/zero | "$0" run -q {options} -- cat | wc -c; head -c {bytes} /dev/zero | "$0" run -q {options} -- wc -c"#
        );
        let finished = finish(&mut home.host_shell(&script));
        assert_eq!(finished, Finished::with(0, format!("{bytes}\n{bytes}\n"), ""), "{options}");
    }
}

#[test]
fn a_program_that_asks_for_a_terminal_is_told_that_there_is_none() {
    let home = need!(with(&[]));
    let script = "test -t 0 || echo none; test -t 1 || echo none";
    let mut running = Running::start(home.shell(&[], script).stdin(Stdio::piped()));
    drop(running.child().stdin.take());
    assert_eq!(running.finish(), Finished::with(0, "none\nnone\n", ""));
}

#[test]
fn debuggers_trace_the_runs_own_processes_where_that_is_allowed_and_pid_1_never() {
    let home = need!(with(&["strace"]));
    let traced = home.run(
        &["--debug"],
        "strace -f -o trace sh -c 'cat /dev/null; true' && grep -q execve trace && echo traced",
    );
    assert_eq!(traced.ok(), "traced\n");
    let attached = home.run(&["--debug"], "strace -p 1 -o trace");
    assert!(attached.code != Some(0) && attached.err().contains("not permitted"), "{}", attached.err());
    let refused = home.run(&[], "strace -o trace true");
    assert!(refused.code != Some(0) && refused.err().contains("not permitted"), "{}", refused.err());
}

#[test]
fn gdb_stops_at_a_function_where_that_is_allowed() {
    let home = need!(with(&["gdb", "cc"]));
    home.write("a.c", "int add(int a, int b) { return a + b; } int main(void) { return add(20, 22) != 42; }");
    let script = "cc -g -O0 -o a a.c && gdb -q -nx -batch -ex 'break add' -ex run -ex 'print a + b' -ex continue ./a 2>&1";
    let said = home.run(&["--debug"], script).ok();
    assert!(said.contains("$1 = 42") && said.contains("exited normally"), "{said}");
}

#[test]
fn sandboxes_are_made_inside_where_that_is_allowed_and_lead_no_further() {
    if need::is_root() {
        let home = need!(with(&[]));
        let refused = home.run(&["--nested"], "true");
        assert!(refused.code == Some(125) && refused.err().contains("root can't make sandboxes inside"));
        return;
    }
    let home = need!(with(&["unshare", "bwrap"]));
    home.write_home(".ssh/id", "secret");
    let refused = home.run(&[], "unshare -Ur true");
    assert!(refused.code != Some(0), "{}", refused.err());
    assert_eq!(home.run(&["--nested"], "unshare -Ur id -u").ok(), "0\n");
    let bwrap =
        "bwrap --unshare-all --ro-bind / / --dev /dev --tmpfs /tmp sh -c 'echo x > /tmp/t && cat /tmp/t'";
    assert_eq!(home.run(&["--nested"], bwrap).ok(), "x\n");
    // All of it is done with every capability that a namespace inside gives.
    let attempts = [
        "mount -o remount,bind,rw /",
        "umount \"$HOME/.ssh\"",
        "umount -l \"$HOME/.ssh\"",
        "mount --bind \"$HOME\" /tmp && cat /tmp/.ssh/id",
        "mount --rbind \"$HOME\" /tmp && cat /tmp/.ssh/id",
        "mount --bind . /tmp && echo x > /tmp/.codex/x",
        "mount -t proc proc /tmp && echo x > /tmp/sys/kernel/core_pattern",
        "mkdir /tmp/r && mount --bind / /tmp/r && chroot /tmp/r sh -c 'echo x > /etc/sandbar-was-here'",
        "nsenter -t 1 -m cat \"$HOME/.ssh/id\"",
        "echo x > /etc/sandbar-was-here",
    ];
    for attempt in attempts {
        let script = format!(
            "unshare -Urm sh -c '{}' 2>/dev/null && echo escaped; true",
            attempt.replace('\'', "'\\''")
        );
        assert_eq!(home.run(&["--nested"], &script).ok(), "", "{attempt}");
    }
}
