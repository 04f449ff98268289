//! `sandbar doctor`: whether this machine can run a sandbox, and if not, why.
//!
//! What can be tried is tried: a command is run like `sandbar run` would run it, without a record. The other
//! checks say what newer kernels would add, and where to look when the trial failed.

mod limits;
mod places;
mod system;
mod trial;

use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::dirs::Directories;
use crate::escape::{self, Layout};
use crate::render::Problem;
use crate::table::Table;
use crate::{exit, output};

/// One thing that was looked at. docs/json.md describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Verdict,
    detail: String,
    advice: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// All is well.
    Ok,
    /// Commands run, with less than there could be.
    Warn,
    /// Sandboxed commands can't run.
    Fail,
    /// It could not be tried here.
    Skip,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

impl Check {
    fn new(name: &'static str, status: Verdict, detail: impl Into<String>) -> Self {
        Self { name, status, detail: detail.into(), advice: None }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// A problem as a failed check.
    fn failed(name: &'static str, problem: &Problem) -> Self {
        let place = problem.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        let check = Self::new(name, Verdict::Fail, format!("{}{place}", problem.what));
        Self { advice: problem.advice.clone(), ..check }
    }

    /// Without the advice of `run` to ask for what is just being shown.
    fn without_itself(mut self) -> Self {
        self.advice = self.advice.filter(|advice| !advice.contains("sandbar doctor"));
        self
    }
}

/// Looks at everything.
///
/// # Errors
/// There is no place for Sandbar's files at all, or the answer can't be written.
pub(super) fn execute(args: &DoctorArgs) -> Result<u8, Problem> {
    let checks = checks(&Directories::find()?);
    let printed = if args.json { output::print_json(&checks)? } else { output::print(text(&checks))? };
    let failed = checks.iter().any(|check| check.status == Verdict::Fail);
    Ok(if failed { exit::FAILED } else { printed })
}

fn checks(directories: &Directories) -> Vec<Check> {
    let runtime = places::runtime(directories);
    let trial = trial::run(directories);
    let works = matches!(trial.sandbox.status, Verdict::Ok | Verdict::Warn);
    let mut checks = system::checks(works);
    checks.push(trial.overlay);
    checks.push(runtime);
    checks.push(places::state(directories));
    checks.push(trial.keeper);
    checks.push(trial.sandbox);
    checks.extend(trial.others);
    checks.push(trial.limits);
    checks
}

fn text(checks: &[Check]) -> String {
    let mut table = Table::plain();
    for check in checks {
        let shown = |text: &str| escape::escape(text.as_bytes(), Layout::OneLine);
        table.row([check.status.word().to_owned(), check.name.to_owned(), shown(&check.detail)]);
        if let Some(advice) = &check.advice {
            table.row([String::new(), String::new(), format!("do: {}", shown(advice))]);
        }
    }
    table.text(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> [Check; 2] {
        [
            Check::new("kernel", Verdict::Ok, "Linux 6.18"),
            Check::failed("sandbox", &Problem::new("could not").at("clone(2)").advise("ask")),
        ]
    }

    #[test]
    fn advice_stands_below_what_it_is_about() {
        assert_eq!(
            text(&checks()),
            concat!(
                "ok    kernel   Linux 6.18\n",
                "fail  sandbox  could not (clone(2))\n",
                "               do: ask\n",
            )
        );
    }

    #[test]
    fn checks_are_objects_in_json() {
        assert_eq!(
            serde_json::to_string(&checks()).unwrap(),
            r#"[{"name":"kernel","status":"ok","detail":"Linux 6.18","advice":null},{"name":"sandbox","status":"fail","detail":"could not (clone(2))","advice":"ask"}]"#
        );
    }
}
