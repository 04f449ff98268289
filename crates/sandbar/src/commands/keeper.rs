//! `sandbar keeper start` and `stop`: has what holds the runs run, wherever it is called, and ends it if it holds none.

use sandbar_exec::ProcessError;
use sandbar_keeper::KeeperDir;
use sandbar_keeper::protocol::Refusal;

use crate::cli::KeeperCommand;
use crate::dirs::Directories;
use crate::render::{self, Problem};
use crate::{event_loop, exit, keepers};

/// Carries a command out.
///
/// # Errors
/// A keeper can't be reached, or holds something.
pub(super) fn execute(command: &KeeperCommand) -> Result<u8, Problem> {
    match command {
        KeeperCommand::Start => start(),
        KeeperCommand::Stop => stop_all(),
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
