//! `sandbar keeper start`, `stop` and `upgrade`: has what holds the runs run, wherever it is called, ends it if it holds none,
//! or replaces it by this program.

use sandbar_exec::ProcessError;
use sandbar_keeper::KeeperDir;
use sandbar_keeper::protocol::{Refusal, UPGRADE_MINOR};

use crate::cli::KeeperCommand;
use crate::dirs::Directories;
use crate::render::{self, Problem};
use crate::{event_loop, exit, keepers, output};

/// Carries a command out.
///
/// # Errors
/// A keeper can't be reached, or holds something.
pub(super) fn execute(command: &KeeperCommand) -> Result<u8, Problem> {
    match command {
        KeeperCommand::Start => start(),
        KeeperCommand::Stop => stop_all(),
        KeeperCommand::Upgrade => upgrade_all(),
    }
}

/// Starts this caller's keeper where the caller is: in its cgroup above all.
fn start() -> Result<u8, Problem> {
    let runtime = keepers::runtime(&Directories::find()?)?;
    keepers::connect_or_start(&runtime)?;
    Ok(exit::OK)
}

/// Stops every keeper that can be stopped; those that can't are told one by one.
fn stop_all() -> Result<u8, Problem> {
    let runtime = keepers::runtime(&Directories::find()?)?;
    let mut status = exit::OK;
    for keeper in keepers::living(&runtime)? {
        if let Err(problem) = event_loop::block_on(stop(&keeper)) {
            // It may have left by itself in the meantime.
            if sandbar_keeper::keeper_is_alive(&keeper) {
                render::print(&problem);
                status = exit::FAILED;
            }
        }
    }
    Ok(status)
}

async fn stop(keeper: &KeeperDir) -> Result<(), Problem> {
    match event_loop::answer(keepers::connect(keeper)?.stop_keeper()).await? {
        Ok(()) => Ok(()),
        Err(ProcessError::Refused(Refusal::Busy { processes })) => Err(busy(keeper, processes)),
        Err(ProcessError::Refused(Refusal::SessionsHeld { sessions })) => Err(leased(keeper, sessions)),
        Err(error) => {
            Err(Problem::new(format!("could not stop the keeper: {error}")).at(keeper.path().display()))
        }
    }
}

/// Has every keeper replace itself by this program; those that can't are told one by one.
fn upgrade_all() -> Result<u8, Problem> {
    let runtime = keepers::runtime(&Directories::find()?)?;
    let mut status = exit::OK;
    let mut done = String::new();
    for keeper in keepers::living(&runtime)? {
        match upgrade(&keeper) {
            Ok(line) => done.push_str(&line),
            // It may have left by itself in the meantime.
            Err(problem) if sandbar_keeper::keeper_is_alive(&keeper) => {
                render::print(&problem);
                status = exit::FAILED;
            }
            Err(_) => {}
        }
    }
    output::print(&done)?;
    Ok(status)
}

/// Has one keeper replace itself, and says by what it was replaced.
fn upgrade(keeper: &KeeperDir) -> Result<String, Problem> {
    let failed = |reason: &dyn std::fmt::Display| {
        Problem::new(format!("could not upgrade the keeper: {reason}")).at(keeper.path().display())
    };
    let program = std::fs::File::open("/proc/self/exe").map_err(|error| failed(&error))?;
    let mut client = keepers::greet(keeper)?;
    let Some(before) = client.peer().cloned() else { return Err(failed(&"it did not introduce itself")) };
    if before.minor < UPGRADE_MINOR {
        let reason = format!("sandbar {} can't replace itself", before.version);
        return Err(failed(&reason).advise("it ends by itself when nothing has run for ten minutes"));
    }
    match keepers::upgrade(keeper, &mut client, program.into())? {
        Ok((_, after)) => Ok(format!("keeper {}: sandbar {} -> {after}\n", before.pid, before.version)),
        Err(reason) => Err(failed(&reason).advise("it goes on as it was, with everything that it holds")),
    }
}

fn busy(keeper: &KeeperDir, processes: usize) -> Problem {
    let runs = if processes == 1 { "run" } else { "runs" };
    Problem::new(format!("could not stop the keeper: it holds {processes} {runs}"))
        .at(keeper.path().display())
        .advise("end them with `sandbar kill`; `sandbar ps` lists them")
}

fn leased(keeper: &KeeperDir, sessions: usize) -> Problem {
    let names = if sessions == 1 { "session" } else { "sessions" };
    Problem::new(format!("could not stop the keeper: it holds {sessions} {names} of a server"))
        .at(keeper.path().display())
        .advise("end the server; its sessions end when their time is over")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_keeper_says_what_it_holds() {
        let problem = busy(&KeeperDir::at("/run/k".into()), 1);
        let expected = Problem::new("could not stop the keeper: it holds 1 run")
            .at("/run/k")
            .advise("end them with `sandbar kill`; `sandbar ps` lists them");
        assert_eq!(problem, expected);
    }
}
