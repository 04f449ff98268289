//! One line of the results: what was measured, ours, what it is compared with, and whether its targets are met.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::race::Times;

/// What a contender is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The least the machine can do for this work.
    Floor,
    /// Somebody else's program for the same work.
    Peer,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Id of the target.
    pub(super) id: &'static str,
    /// What was measured.
    pub(super) name: &'static str,
    /// Our times.
    pub(super) ours: Times,
    /// Times of the others.
    pub(super) others: Vec<(Role, Times)>,
    /// What ours has to reach.
    pub(super) targets: Vec<Target>,
    /// Bytes that each run moved, for throughput.
    pub(super) bytes: Option<u64>,
}

/// What our median, or another statistic of ours, has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// Another's median is at least so many times ours.
    Slower { other: &'static str, times: f64 },
    /// Our median is at most so many times another's.
    Near { other: &'static str, times: f64 },
    /// Our median is at most this.
    Within(Duration),
    /// So are 99 of 100 of our times.
    P99Within(Duration),
}

/// What came out of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    target: Target,
    /// `None` when the other was not measured.
    reached: Option<f64>,
}

impl Target {
    /// Another takes at least `times` as long as ours.
    pub(super) const fn slower(other: &'static str, times: f64) -> Self {
        Self::Slower { other, times }
    }

    /// Ours takes at most `times` as long as another.
    pub(super) const fn near(other: &'static str, times: f64) -> Self {
        Self::Near { other, times }
    }
}

impl Verdict {
    fn is_met(self) -> Option<bool> {
        self.reached.map(|reached| match self.target {
            Target::Slower { times, .. } => reached >= times,
            Target::Near { times, .. } => reached <= times,
            Target::Within(most) | Target::P99Within(most) => reached <= milliseconds(most),
        })
    }

    fn to_json(self) -> Value {
        let (reached, met) = (self.reached.map(rounded), self.is_met());
        match self.target {
            Target::Slower { other, times } => {
                json!({"peer": other, "at_least": times, "reached": reached, "met": met})
            }
            Target::Near { other, times } => {
                json!({"floor": other, "at_most": times, "reached": reached, "met": met})
            }
            Target::Within(most) => {
                json!({"median_ms_at_most": milliseconds(most), "reached": reached, "met": met})
            }
            Target::P99Within(most) => {
                json!({"p99_ms_at_most": milliseconds(most), "reached": reached, "met": met})
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slower { other, times } => write!(f, "{other} takes at least {times} × ours"),
            Self::Near { other, times } => write!(f, "ours takes at most {times} × {other}"),
            Self::Within(most) => write!(f, "median at most {} ms", milliseconds(*most)),
            Self::P99Within(most) => write!(f, "p99 at most {} ms", milliseconds(*most)),
        }
    }
}

impl Row {
    /// The row for programs.
    pub(super) fn to_json(&self) -> Value {
        let others: Vec<_> = self
            .others
            .iter()
            .map(|(role, times)| {
                let role = match role {
                    Role::Floor => "floor",
                    Role::Peer => "peer",
                };
                let mut other = self.times_json(times);
                other["role"] = json!(role);
                other["times_ours"] = json!(rounded(ratio(times.median, self.ours.median)));
                other
            })
            .collect();
        let targets: Vec<_> = self.verdicts().into_iter().map(Verdict::to_json).collect();
        json!({
            "id": self.id,
            "name": self.name,
            "ours": self.times_json(&self.ours),
            "others": others,
            "targets": targets,
        })
    }

    fn times_json(&self, times: &Times) -> Value {
        let mut json = json!({
            "name": times.name,
            "runs": times.runs,
            "min_ms": milliseconds(times.min),
            "median_ms": milliseconds(times.median),
            "p99_ms": milliseconds(times.p99),
        });
        if let Some(bytes) = self.bytes {
            json["median_mb_per_s"] = json!(rounded(megabytes_per_second(bytes, times.median)));
        }
        json
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let median_of = |name| {
            let mut others = self.others.iter().map(|(_, times)| times);
            others.find(|times| times.name == name).map(|times| times.median)
        };
        let reached = |target| match target {
            Target::Slower { other, .. } => median_of(other).map(|median| ratio(median, self.ours.median)),
            Target::Near { other, .. } => median_of(other).map(|median| ratio(self.ours.median, median)),
            Target::Within(_) => Some(milliseconds(self.ours.median)),
            Target::P99Within(_) => Some(milliseconds(self.ours.p99)),
        };
        self.targets.iter().map(|&target| Verdict { target, reached: reached(target) }).collect()
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>, times: &Times, note: &str) -> fmt::Result {
        let [min, median, p99] = [times.min, times.median, times.p99].map(milliseconds);
        let speed =
            self.bytes.map(|bytes| format!("  {:.0} MB/s", megabytes_per_second(bytes, times.median)));
        let speed = speed.unwrap_or_default();
        write!(f, "  {:<22} {min:>9.2} {median:>9.2} {p99:>9.2} {:>6}", times.name, times.runs)?;
        writeln!(f, "{speed}{}{note}", if note.is_empty() { "" } else { "  " })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.id, self.name)?;
        writeln!(f, "  {:<22} {:>9} {:>9} {:>9} {:>6}", "", "min ms", "median", "p99", "runs")?;
        self.write_times(f, &self.ours, "")?;
        for (role, times) in &self.others {
            let (ours, theirs) = (self.ours.median, times.median);
            let note = match role {
                Role::Floor => format!("ours takes {:.2} × this", ratio(ours, theirs)),
                Role::Peer => format!("this takes {:.2} × ours", ratio(theirs, ours)),
            };
            self.write_times(f, times, &note)?;
        }
        for verdict in self.verdicts() {
            let word = match verdict.is_met() {
                None => "not measured",
                Some(true) => "met",
                Some(false) => "missed",
            };
            writeln!(f, "  target: {}: {word}", verdict.target)?;
        }
        Ok(())
    }
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

#[allow(clippy::cast_precision_loss, reason = "a byte count far below 2^52")]
fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// Three digits behind the point: a microsecond, below which a process start has no meaning.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(name: &str, median: u64) -> Times {
        let [min, median, p99] = [median - 1, median, 2 * median].map(Duration::from_millis);
        Times { name: name.into(), runs: 200, min, median, p99 }
    }

    fn row() -> Row {
        Row {
            id: "S1",
            name: "warm keeper",
            ours: times("sandbar run", 4),
            others: vec![(Role::Floor, times("/bin/true", 2)), (Role::Peer, times("bwrap", 6))],
            targets: vec![Target::slower("bwrap", 1.0), Target::slower("codex", 9.0)],
            bytes: None,
        }
    }

    #[test]
    fn a_row_says_its_ratios_and_whether_targets_are_met() {
        assert_eq!(
            row().to_string(),
            "\
S1  warm keeper
                            min ms    median       p99   runs
  sandbar run                 3.00      4.00      8.00    200
  /bin/true                   1.00      2.00      4.00    200  ours takes 2.00 × this
  bwrap                       5.00      6.00     12.00    200  this takes 1.50 × ours
  target: bwrap takes at least 1 × ours: met
  target: codex takes at least 9 × ours: not measured
"
        );
    }

    #[test]
    fn a_target_that_is_not_reached_is_missed() {
        let slow = Row { ours: times("sandbar run", 8), ..row() };
        assert!(slow.to_string().contains("bwrap takes at least 1 × ours: missed"), "{slow}");
        assert_eq!(
            slow.to_json()["targets"][0],
            json!({"peer": "bwrap", "at_least": 1.0, "reached": 0.75, "met": false})
        );
    }

    #[test]
    fn a_target_is_a_ratio_or_a_time() {
        let targets = vec![
            Target::near("/bin/true", 3.0),
            Target::near("nobody", 3.0),
            Target::Within(Duration::from_millis(4)),
            Target::P99Within(Duration::from_millis(7)),
        ];
        let row = Row { targets, ..row() };
        let text = row.to_string();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("target")).collect();
        assert_eq!(
            lines,
            [
                "  target: ours takes at most 3 × /bin/true: met",
                "  target: ours takes at most 3 × nobody: not measured",
                "  target: median at most 4 ms: met",
                "  target: p99 at most 7 ms: missed",
            ]
        );
        assert_eq!(
            row.to_json()["targets"],
            json!([
                {"floor": "/bin/true", "at_most": 3.0, "reached": 2.0, "met": true},
                {"floor": "nobody", "at_most": 3.0, "reached": null, "met": null},
                {"median_ms_at_most": 4.0, "reached": 4.0, "met": true},
                {"p99_ms_at_most": 7.0, "reached": 8.0, "met": false},
            ])
        );
    }

    #[test]
    fn programs_get_the_same_numbers() {
        let json = Row { bytes: Some(8_000_000), ..row() }.to_json();
        assert_eq!(
            json["ours"],
            json!({
                "name": "sandbar run", "runs": 200, "min_ms": 3.0, "median_ms": 4.0, "p99_ms": 8.0,
                "median_mb_per_s": 2000.0,
            })
        );
        assert_eq!(
            (json["others"][1]["role"].as_str(), json["others"][1]["times_ours"].as_f64()),
            (Some("peer"), Some(1.5))
        );
    }
}
