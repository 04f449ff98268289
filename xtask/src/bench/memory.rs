//! E6: what a keeper and an exec server need of the memory, idle and for each process that sleeps.
//!
//! Read from smaps_rollup, which divides pages that several processes share (PSS) and also counts them whole (RSS).
//! Targets are for RSS, the larger one. Of a keeper only root may read it: it is not dumpable.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::amount::{Amount, Unit};
use super::exec::{Client, OURS, PEER, Server, command};
use super::world::World;
use crate::peers::Peers;

const ID: &str = "E6";

/// So many that what one takes shows behind what is taken in steps.
const SLEEPERS: u32 = 200;

/// Longer than a keeper keeps a spare holder, which it has for a while behind each start.
const SPARE_LEAVES: Duration = Duration::from_secs(15);

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Memory of a process in kilobytes of 1,000 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    shared_out: f64,
    whole: f64,
    private: f64,
}

/// Measures the amounts of E6. Empty, with a word why, for whoever may not look.
///
/// # Errors
/// When a run can't be started.
pub(super) fn amounts(world: &World) -> Result<Vec<Amount>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("{ID} is not measured: only root may read the memory of a keeper");
        return Ok(Vec::new());
    }
    eprintln!("measuring {ID}: a keeper without runs, then with {SLEEPERS} that sleep");
    let sleep =
        || world.run(world.runtime.path()).args(["-q", "--no-record", "--detach", "--", "sleep", "86400"]);
    world.run(world.runtime.path()).args(["-q", "--no-record", "--", "/bin/true"]).time()?;
    let keeper = world.keeper()?;
    wait_until(SPARE_LEAVES, || children(keeper).is_empty())?;
    let idle = memory(keeper)?;
    for _ in 0..SLEEPERS {
        sleep().time()?;
    }
    // One more than sleep: the spare.
    wait_until(SPARE_LEAVES, || children(keeper).len() == SLEEPERS as usize)?;
    let busy = memory(keeper)?;
    let holders = children(keeper);
    let holder = memory(*holders.first().context("a sleeper has no holder")?)?;
    let each = |of: fn(Memory) -> f64| (of(busy) - of(idle)) / f64::from(SLEEPERS);
    let amount = |name: &str, value, at_most| Amount {
        id: ID,
        name: name.to_owned(),
        value,
        unit: Unit::Kilobytes,
        at_most,
    };
    Ok(vec![
        amount("idle keeper, RSS", idle.whole, Some(4000.0)),
        amount("idle keeper, PSS", idle.shared_out, None),
        amount("idle keeper, private", idle.private, None),
        amount("growth of the keeper per sleeping process, RSS", each(|memory| memory.whole), Some(24.0)),
        amount("growth of the keeper per sleeping process, PSS", each(|memory| memory.shared_out), None),
        amount("holder of a sleeping process, private", holder.private, None),
    ])
}

/// Measures the amounts of E6 that are about servers: ours with its keeper, and the peer's.
///
/// # Errors
/// A server can't be started, or starts nothing.
pub(super) fn of_servers(world: &World, peers: &Peers) -> Result<Vec<Amount>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("{ID} of servers is not measured: only root may read the memory of a keeper");
        return Ok(Vec::new());
    }
    eprintln!("measuring {ID}: a server without processes, then with {SLEEPERS} that sleep");
    let (ours, mut client) = used(Server::ours(world)?, world)?;
    let keeper = world.keeper()?;
    wait_until(SPARE_LEAVES, || children(keeper).is_empty())?;
    let both = || anyhow::Ok((memory(ours.pid())?, memory(keeper)?));
    let idle = both()?;
    start_sleepers(&mut client, world)?;
    wait_until(SPARE_LEAVES, || children(keeper).len() == SLEEPERS as usize)?;
    let busy = both()?;
    let of_server = (busy.0.whole - idle.0.whole) / f64::from(SLEEPERS);
    let of_keeper = (busy.1.whole - idle.1.whole) / f64::from(SLEEPERS);
    let amount =
        |name: String, value, at_most| Amount { id: ID, name, value, unit: Unit::Kilobytes, at_most };
    let mut found = vec![
        amount(format!("idle {OURS}, RSS"), idle.0.whole, Some(15_000.0)),
        amount(format!("idle {OURS}, private"), idle.0.private, None),
        amount(format!("growth of {OURS} per sleeping process, RSS"), of_server, None),
        amount(
            "growth of keeper and server per sleeping process, RSS".into(),
            of_server + of_keeper,
            Some(24.0),
        ),
    ];
    if let Some(codex) = &peers.codex {
        let (peer, mut client) = used(Server::peer(world, codex)?, world)?;
        let idle = memory(peer.pid())?;
        start_sleepers(&mut client, world)?;
        let each = (memory(peer.pid())?.whole - idle.whole) / f64::from(SLEEPERS);
        found.extend([
            amount(format!("idle {PEER}, RSS"), idle.whole, None),
            amount(format!("idle {PEER}, private"), idle.private, None),
            amount(format!("growth of {PEER} per sleeping process, RSS"), each, None),
        ]);
    }
    Ok(found)
}

/// A server that has done everything once, and its client.
fn used(server: Server, world: &World) -> Result<(Server, Client)> {
    let mut client = server.client()?;
    client.run(&command(&["/bin/true"], &world.workspace))?;
    Ok((server, client))
}

fn start_sleepers(client: &mut Client, world: &World) -> Result<()> {
    let sleep = command(&["sleep", "86400"], &world.workspace);
    (0..SLEEPERS).try_for_each(|_| client.start(&sleep).map(drop))
}

fn wait_until(deadline: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + deadline;
    while !is_so() {
        if Instant::now() > end {
            bail!("the keeper has not come to rest within {} s", deadline.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

fn children(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn memory(pid: Pid) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    parse(&text).with_context(|| format!("{path} has not what proc_pid_smaps(5) says"))
}

fn parse(text: &str) -> Option<Memory> {
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1.024)
    };
    let private = kilobytes("Private_Clean")? + kilobytes("Private_Dirty")?;
    Some(Memory { shared_out: kilobytes("Pss")?, whole: kilobytes("Rss")?, private })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_smaps_rollup() {
        let text = "55-7f ---p 00000000 00:00 0    [rollup]\nRss:    1000 kB\nPss:    500 kB\nPss_Dirty:  9 kB\n\
                    Private_Clean:  100 kB\nPrivate_Dirty:  25 kB\n";
        assert_eq!(parse(text), Some(Memory { shared_out: 512.0, whole: 1024.0, private: 128.0 }));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let memory = memory(rustix::process::getpid()).unwrap();
        assert!(
            memory.whole >= memory.shared_out && memory.shared_out >= memory.private && memory.private > 0.0
        );
    }
}
