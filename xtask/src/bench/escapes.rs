//! The attempts of `escape-probe` under ours and the peers: how many each stops, and which not.
//!
//! Every contender has a stage of its own, made and taken down by the probe, and gets the workspace in its ordinary
//! way: what it is by default is what is compared. Attempts at Sandbar's own files are left out, since only ours has
//! them. Nothing is timed, so programs are built as for tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::contender::Line;
use super::run::srt_settings;
use crate::cargo::{self, cargo};
use crate::command::{check, on_system_path};
use crate::peers::Peers;

/// Attempts that are about Sandbar itself.
const OWN: &str = "own";

/// What all contenders told.
pub(super) struct Comparison {
    contenders: Vec<(&'static str, Result<Vec<Told>>)>,
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    attempt: String,
    area: String,
    result: String,
    detail: String,
}

/// Programs, and a folder that is not in /tmp, of which every sandbox has its own.
struct Programs {
    folder: TempDir,
    sandbar: PathBuf,
    probe: PathBuf,
}

/// Makes all attempts without a sandbox, under ours and under the peers that there are.
///
/// # Errors
/// The programs can't be built, or the stage can't be made.
pub(super) fn compare(root: &Path, peers: &Peers) -> Result<Comparison> {
    check(cargo(root).args(["build", "--package", "sandbar", "--package", "escape-probe"]))?;
    let built = cargo::target_directory(root)?.join("debug");
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
    let folder =
        tempfile::Builder::new().prefix(".escapes-").tempdir_in(home.context("there is no home")?)?;
    let programs = Programs { folder, sandbar: built.join("sandbar"), probe: built.join("escape-probe") };

    let mut contenders: Vec<(&'static str, Result<Vec<Told>>)> = Vec::new();
    let mut enter = |name, prefix: &dyn Fn(&Stage) -> Result<Vec<OsString>>| {
        eprintln!("making attempts: {name}");
        contenders.push((name, programs.told(name, prefix)));
    };
    let sandbar = programs.sandbar.as_os_str();
    enter("none", &|_| Ok(Vec::new()));
    enter("sandbar", &|_| Ok(words(sandbar, &["run", "--quiet", "--"])));
    if on_system_path("bwrap") {
        enter("sandbar by bwrap", &|_| Ok(words(sandbar, &["run", "--quiet", "--sandbox", "bwrap", "--"])));
    }
    enter("sandbar by landlock", &|_| {
        let options = ["run", "--quiet", "--sandbox", "landlock", "--give-up", "protected-names", "--"];
        Ok(words(sandbar, &options))
    });
    if let Some(bwrap) = &peers.bwrap {
        enter("bwrap", &|stage| {
            let mut line = words(bwrap.as_os_str(), &["--ro-bind", "/", "/", "--bind"]);
            line.extend([stage.workspace().into(), stage.workspace().into()]);
            let rest = ["--dev", "/dev", "--proc", "/proc", "--unshare-all", "--"];
            line.extend(rest.map(OsString::from));
            Ok(line)
        });
    }
    if let Some(codex) = &peers.codex {
        enter("codex sandbox", &|_| Ok(words(codex.as_os_str(), &["sandbox", "-P", ":workspace", "--"])));
    }
    if let Some(srt) = &peers.srt {
        enter("srt", &|stage| {
            let settings = stage.folder.join("srt.json");
            std::fs::write(&settings, srt_settings(&stage.workspace()).to_string())?;
            let mut line = words(srt.as_os_str(), &["--settings"]);
            line.push(settings.into());
            Ok(line)
        });
    }
    Ok(Comparison { contenders })
}

fn words(program: &std::ffi::OsStr, arguments: &[&str]) -> Vec<OsString> {
    std::iter::once(program.to_owned()).chain(arguments.iter().map(OsString::from)).collect()
}

/// The folders of one contender.
struct Stage {
    folder: PathBuf,
}

impl Stage {
    fn new(folder: PathBuf) -> Result<Self> {
        for name in ["workspace", "outside", "home", "runtime", "codex", "sandbar"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        std::fs::set_permissions(folder.join("runtime"), PermissionsExt::from_mode(0o700))?;
        Ok(Self { folder })
    }

    fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }
}

impl Programs {
    /// What the probe tells behind the command line that `prefix` makes.
    fn told(&self, name: &str, prefix: &dyn Fn(&Stage) -> Result<Vec<OsString>>) -> Result<Vec<Told>> {
        let stage = Stage::new(self.folder.path().join(name.replace(' ', "-")))?;
        // In the workspace, because a sandbox need not show anything else.
        let probe = stage.workspace().join("escape-probe");
        std::fs::copy(&self.probe, &probe)?;
        let places = ["workspace", "outside", "home", "runtime"].map(|name| stage.folder.join(name));
        let line = |line: Line| {
            line.env("CODEX_HOME", Some(stage.folder.join("codex").into()))
                .env("SANDBAR_HOME", Some(stage.folder.join("sandbar").into()))
        };
        let attempt = [probe.into_os_string(), "attempt".into(), "stage.json".into()];
        let mut command = line(Line::new(&self.probe, &stage.workspace()))
            .args(["stage"])
            .args(places)
            .args(["-", "-", "--"])
            .args(prefix(&stage)?)
            .args(attempt)
            .command();
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        // Its keeper would stay for minutes; with the others there is none to stop.
        let _ = line(Line::new(&self.sandbar, &stage.workspace())).args(["keeper", "stop"]).time();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "it ended with {}: {}", output.status, said.trim());
        read(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Reads the probe's lines; a contender may have said something of its own between them.
fn read(lines: &str) -> Result<Vec<Told>> {
    let told: Vec<Told> = lines.lines().filter_map(told).filter(|told| told.area != OWN).collect();
    ensure!(!told.is_empty(), "no attempt was told of");
    Ok(told)
}

fn told(line: &str) -> Option<Told> {
    let value: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| Some(value[name].as_str()?.to_owned());
    Some(Told {
        attempt: field("attempt")?,
        area: field("area")?,
        result: field("result")?,
        detail: field("detail")?,
    })
}

impl Told {
    fn is_stopped(&self) -> bool {
        matches!(self.result.as_str(), "denied" | "absent")
    }
}

/// Stopped and all attempts of each area.
fn counts(told: &[Told]) -> BTreeMap<&str, (usize, usize)> {
    let mut counts = BTreeMap::new();
    for told in told {
        let (stopped, all): &mut (usize, usize) = counts.entry(told.area.as_str()).or_default();
        *stopped += usize::from(told.is_stopped());
        *all += 1;
    }
    counts
}

impl Comparison {
    /// As data: each contender's results.
    pub(super) fn to_json(&self) -> Value {
        let contender = |(name, told): &(&str, Result<Vec<Told>>)| match told {
            Ok(told) => json!({
                "contender": name,
                "stopped": told.iter().filter(|told| told.is_stopped()).count(),
                "attempts": told.len(),
                "not_stopped": told.iter().filter(|told| !told.is_stopped()).map(|told| json!({
                    "attempt": told.attempt, "area": told.area, "result": told.result, "detail": told.detail,
                })).collect::<Vec<_>>(),
            }),
            Err(error) => json!({"contender": name, "error": format!("{error:#}")}),
        };
        json!({"id": "X1", "name": "attempts to escape", "contenders":
            self.contenders.iter().map(contender).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "X1 attempts to escape, stopped of all")?;
        let measured: Vec<_> = self
            .contenders
            .iter()
            .filter_map(|(name, told)| Some((*name, counts(told.as_ref().ok()?), told.as_ref().ok()?)))
            .collect();
        write!(f, "  {:<12}", "")?;
        measured.iter().try_for_each(|(name, ..)| write!(f, " {name:>16}"))?;
        writeln!(f)?;
        let areas: Vec<&str> =
            measured.first().map_or_else(Vec::new, |first| first.1.keys().copied().collect());
        for area in areas {
            write!(f, "  {area:<12}")?;
            for (_, counts, _) in &measured {
                let (stopped, all) = counts.get(area).copied().unwrap_or_default();
                write!(f, " {:>16}", format!("{stopped}/{all}"))?;
            }
            writeln!(f)?;
        }
        write!(f, "  {:<12}", "all")?;
        for (_, _, told) in &measured {
            let stopped = told.iter().filter(|told| told.is_stopped()).count();
            write!(f, " {:>16}", format!("{stopped}/{}", told.len()))?;
        }
        writeln!(f)?;
        for (name, _, told) in measured.iter().filter(|(name, ..)| *name != "none") {
            let open: Vec<&str> =
                told.iter().filter(|told| !told.is_stopped()).map(|told| told.attempt.as_str()).collect();
            writeln!(f, "  not stopped by {name}: {}", open.join(", "))?;
        }
        for (name, told) in &self.contenders {
            if let Err(error) = told {
                writeln!(f, "  {name} could not be measured: {error:#}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"attempt":"a","area":"x","result":"denied","detail":"EPERM"}
a word of the contender's
{"attempt":"b","area":"x","result":"allowed","detail":"done"}
{"attempt":"c","area":"y","result":"absent","detail":"ENOENT"}
{"attempt":"d","area":"own","result":"allowed","detail":"done"}
"#;

    #[test]
    fn attempts_are_counted_by_area_without_those_at_our_own_files() {
        let told = read(LINES).unwrap();
        assert_eq!(counts(&told), BTreeMap::from([("x", (1, 2)), ("y", (1, 1))]));
        assert!(read("nothing\n").is_err());
    }

    #[test]
    fn the_table_names_what_was_not_stopped_and_who_could_not_be_measured() {
        let contenders =
            vec![("sandbar", read(LINES)), ("srt", Err(anyhow::anyhow!("it ended with exit status: 1")))];
        let comparison = Comparison { contenders };
        let table = comparison.to_string();
        assert!(table.contains("not stopped by sandbar: b\n"), "{table}");
        assert!(table.contains("srt could not be measured: it ended"), "{table}");
        assert_eq!(comparison.to_json()["contenders"][0]["stopped"], 2);
    }
}
