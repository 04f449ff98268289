//! The harness: contenders take turns, and each gets the order statistics of its own times.
//!
//! Load of the machine drifts over seconds; contenders that take turns every few milliseconds share it, and the
//! one that goes first changes every round. Measures wall time only.

use std::time::Duration;

use anyhow::{Context, Result};

/// Rounds that are run and forgotten: page cache, keeper start, lazy set-up of a peer.
const WARM_UP: u32 = 3;

/// A contender slower than this does not run in every round, or one slow peer decides how long a bench takes.
const EVERY_ROUND: Duration = Duration::from_millis(60);

/// How often slow contenders run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// In every round, however long it takes.
    EveryRound,
    /// In fewer rounds, the slower they are.
    SlowOnesLess,
}

/// Something that is measured.
pub(super) struct Contender<'a> {
    /// Name in the results.
    pub(super) name: String,
    /// Does the work once and returns how long it took; what it prepares and cleans up is not in there.
    pub(super) work: Box<dyn FnMut() -> Result<Duration> + 'a>,
}

/// Order statistics of a contender's times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) name: String,
    pub(super) runs: usize,
    pub(super) min: Duration,
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

/// Lets the contenders take turns and returns their times in the same order.
///
/// # Errors
/// When a contender's work fails once.
pub(super) fn race(mut contenders: Vec<Contender<'_>>, rounds: u32, pace: Pace) -> Result<Vec<Times>> {
    let mut strides = Vec::new();
    for contender in &mut contenders {
        let warm: Vec<_> = (0..WARM_UP).map(|_| once(contender)).collect::<Result<_>>()?;
        strides.push(match pace {
            Pace::EveryRound => 1,
            Pace::SlowOnesLess => stride(warm.iter().min().copied().unwrap_or_default()),
        });
    }
    let mut taken: Vec<Vec<Duration>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            if round % strides[at] == 0 {
                taken[at].push(once(&mut contenders[at])?);
            }
        }
    }
    Ok(contenders.iter().zip(taken).map(|(contender, taken)| times(&contender.name, taken)).collect())
}

fn once(contender: &mut Contender<'_>) -> Result<Duration> {
    (contender.work)().with_context(|| format!("could not measure {}", contender.name))
}

/// In every how many rounds a contender of this speed runs.
fn stride(takes: Duration) -> usize {
    usize::try_from(takes.as_micros() / EVERY_ROUND.as_micros()).unwrap_or(usize::MAX).saturating_add(1)
}

fn times(name: &str, mut taken: Vec<Duration>) -> Times {
    taken.sort_unstable();
    Times {
        name: name.to_owned(),
        runs: taken.len(),
        min: percentile(&taken, 0),
        median: percentile(&taken, 50),
        p99: percentile(&taken, 99),
    }
}

/// Nearest rank; zero of an empty list.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<_> = (1..=100).map(ms).collect();
        assert_eq!(
            [0, 50, 99, 100].map(|percent| percentile(&hundred, percent)),
            [ms(1), ms(50), ms(99), ms(100)]
        );
        assert_eq!(percentile(&[ms(3), ms(5), ms(9)], 50), ms(5));
        assert_eq!(percentile(&[ms(3), ms(5), ms(9)], 99), ms(9));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn contenders_take_turns_and_the_first_of_a_round_changes() {
        let order = RefCell::new(String::new());
        let order = &order;
        let contender = |name: &'static str, takes| Contender {
            name: name.into(),
            work: Box::new(move || {
                order.borrow_mut().push_str(name);
                Ok(takes)
            }),
        };
        let contenders = vec![contender("a", ms(1)), contender("b", ms(2)), contender("c", ms(3))];
        let times = race(contenders, 4, Pace::SlowOnesLess).unwrap();
        assert_eq!(order.borrow().as_str(), "aaabbbcccabcbcacababc");
        assert_eq!(
            times.iter().map(|times| (times.median, times.runs)).collect::<Vec<_>>(),
            [(ms(1), 4), (ms(2), 4), (ms(3), 4)]
        );
    }

    #[test]
    fn a_slow_contender_runs_in_fewer_rounds() {
        assert_eq!([0, 59, 60, 284].map(|takes| stride(ms(takes))), [1, 1, 2, 5]);
    }

    #[test]
    fn one_failure_ends_the_race_by_name() {
        let work = Box::new(|| Err(anyhow::anyhow!("exit status: 1")));
        let error = race(vec![Contender { name: "srt".into(), work }], 1, Pace::EveryRound)
            .expect_err("the contender fails");
        assert_eq!(format!("{error:#}"), "could not measure srt: exit status: 1");
    }
}
