//! `sandbar policy`: what a run here may touch, which line says so, and which variables it gets.
//!
//! Everything is taken from the plan that `sandbar run` would start with the same flags, never computed a second
//! way. Nothing is started.

use std::collections::BTreeMap;
use std::path::Path;

use sandbar_policy::{
    Access, Compiled, Decision, EntryPath, Explanation, Note, Origin, Permissions, ResolvedEnv, Rule,
};
use sandbar_proto::{AbsPath, ByteString, EnvVar, LimitFacts, NetworkMode, RunId};
use serde::Serialize;

use crate::cli::{EnvArgs, PolicyCommand, PolicyEnvArgs, PolicyExplainArgs, PolicyShowArgs, SandboxArgs};
use crate::dirs::Directories;
use crate::escape::{self, Layout};
use crate::render::Problem;
use crate::resolve::{self, Place};
use crate::table::Table;
use crate::{environment, output, plan, profile};

/// Carries a command out.
///
/// # Errors
/// There is no plan, or the answer can't be written.
pub(super) fn execute(command: &PolicyCommand) -> Result<u8, Problem> {
    match command {
        PolicyCommand::Show(args) => show(args),
        PolicyCommand::Explain(args) => explain(args),
        PolicyCommand::Env(args) => env(args),
    }
}

/// A plan that is only looked at.
struct Looked {
    cwd: AbsPath,
    env: ResolvedEnv,
    compiled: Compiled,
}

fn look(sandbox: &SandboxArgs, env: &EnvArgs) -> Result<Looked, Problem> {
    let directories = Directories::find()?;
    let wanted = profile::wanted(sandbox, &directories)?;
    // Some id, since a run has one; values are not shown.
    let env = environment::resolve(env, wanted.profile, wanted.network, Some(RunId::generate()));
    let mut request = plan::request(sandbox, &directories, wanted)?;
    request.env.clone_from(&env.vars);
    let compiled = plan::compile(&request, &LimitFacts::default())?;
    Ok(Looked { cwd: request.cwd, env, compiled })
}

// --- show ---

fn show(args: &PolicyShowArgs) -> Result<u8, Problem> {
    let looked = look(&args.sandbox, &EnvArgs::default())?;
    let shown = Shown::of(&looked);
    if args.json { output::print_json(&shown) } else { output::print(shown.text()) }
}

/// A policy as JSON. docs/json.md describes it.
#[derive(Serialize)]
struct Shown<'a> {
    profile: &'a str,
    cwd: &'a AbsPath,
    network: NetworkMode,
    entries: Vec<Line<'a>>,
    notes: Vec<Remark<'a>>,
}

/// One line of it.
#[derive(Serialize)]
struct Line<'a> {
    /// Of a pattern the directory that it begins at.
    path: &'a AbsPath,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    access: Access,
    decided_by: &'a Origin,
}

/// Something that a person should know about it.
#[derive(Serialize)]
struct Remark<'a> {
    text: String,
    #[serde(flatten)]
    note: &'a Note,
}

impl<'a> Shown<'a> {
    fn of(looked: &'a Looked) -> Self {
        let compiled = &looked.compiled;
        Self {
            profile: &compiled.plan.spec().profile,
            cwd: &looked.cwd,
            network: compiled.network,
            entries: lines(&compiled.permissions),
            notes: compiled.notes.iter().map(|note| Remark { text: note.to_string(), note }).collect(),
        }
    }

    fn text(&self) -> String {
        let network = match self.network {
            NetworkMode::Off => "off",
            NetworkMode::On => "on",
        };
        let mut head = Table::plain();
        head.row(["profile".to_owned(), self.profile.to_owned()]);
        head.row(["directory".to_owned(), shown(self.cwd.as_bytes())]);
        head.row(["network".to_owned(), network.to_owned()]);
        let mut table = Table::with_header(&["PATH", "ACCESS", "DECIDED BY"]);
        for line in &self.entries {
            let place = line.pattern.as_deref().map_or(line.path.as_bytes(), str::as_bytes);
            table.row([shown(place), line.access.to_string(), shown(line.decided_by.to_string().as_bytes())]);
        }
        let mut text = format!("{}\n{}", head.text(None), table.text(output::terminal_width()));
        for (index, note) in self.notes.iter().enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            text.push_str(&format!("{gap}note: {}\n", shown(note.text.as_bytes())));
        }
        text
    }
}

/// The lines of a policy, sorted by path, so that each stands behind those that it is an exception of.
fn lines(permissions: &Permissions) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = permissions
        .entries()
        .iter()
        .map(|entry| {
            let pattern = match &entry.pattern {
                EntryPath::Glob(glob) => Some(glob.to_display()),
                EntryPath::Path(_) => None,
            };
            Line { path: entry.pattern.base(), pattern, access: entry.access, decided_by: &entry.origin }
        })
        .collect();
    lines.sort_by(|a, b| a.path.components().cmp(b.path.components()).then(a.access.cmp(&b.access)));
    lines
}

fn shown(text: &[u8]) -> String {
    escape::escape(text, Layout::OneLine)
}

// --- explain ---

fn explain(args: &PolicyExplainArgs) -> Result<u8, Problem> {
    let looked = look(&args.sandbox, &EnvArgs::default())?;
    let explained = args
        .paths
        .iter()
        .map(|asked| {
            let place = resolve::place(Path::new(asked), looked.cwd.as_path())?;
            Ok(Explained::of(asked.clone().into(), &place, &looked.compiled.permissions))
        })
        .collect::<Result<Vec<_>, Problem>>()?;
    if args.json {
        return output::print_json(&explained);
    }
    let mut table = Table::plain();
    for one in &explained {
        table.row([shown(one.asked.as_bytes()), one.explanation.access.to_string(), one.because()]);
    }
    output::print(table.text(None))
}

/// What decides one path, as JSON. docs/json.md describes it.
#[derive(Serialize)]
struct Explained {
    asked: ByteString,
    exists: bool,
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip)]
    moved: bool,
}

impl Explained {
    fn of(asked: ByteString, place: &Place, permissions: &Permissions) -> Self {
        let explanation = sandbar_policy::explain(permissions, &place.path);
        Self { asked, exists: place.exists, explanation, moved: place.through_links }
    }

    fn because(&self) -> String {
        let under = self.explanation.pattern.as_deref();
        let under = shown(under.map_or(self.explanation.under.as_bytes(), str::as_bytes));
        let mut because = format!("because {} (under {under})", self.explanation.decided_by);
        if self.moved {
            because.push_str(&format!("; leads to {}", shown(self.explanation.path.as_bytes())));
        }
        if !self.exists {
            because.push_str("; does not exist");
        }
        because
    }
}

// --- env ---

fn env(args: &PolicyEnvArgs) -> Result<u8, Problem> {
    let looked = look(&args.sandbox, &args.env)?;
    let variables = variables(&looked.env, &looked.compiled.plan.spec().env);
    if args.json {
        return output::print_json(&variables);
    }
    let mut table = Table::plain();
    for variable in &variables {
        let verdict = if variable.kept { "kept" } else { "dropped" };
        table.row([shown(variable.name.as_bytes()), verdict.to_owned(), variable.because.words()]);
    }
    output::print(table.text(None))
}

/// What became of one variable, as JSON. docs/json.md describes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Variable {
    name: ByteString,
    kept: bool,
    #[serde(flatten)]
    because: Because,
}

/// What decided it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Because {
    /// A rule for environments.
    Rule(Rule),
    /// The sandbox gave it its value: another user's home, a cache that is private.
    Sandbox(SetBySandbox),
}

/// In the form of a rule without argument.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
enum SetBySandbox {
    Sandbox,
}

impl Because {
    fn words(&self) -> String {
        match self {
            Self::Rule(rule) => shown(rule.to_string().as_bytes()),
            Self::Sandbox(SetBySandbox::Sandbox) => "set by the sandbox".to_owned(),
        }
    }
}

/// The decisions, and what the plan changed after them.
fn variables(env: &ResolvedEnv, planned: &[EnvVar]) -> Vec<Variable> {
    let resolved: BTreeMap<_, _> = env.vars.iter().map(|var| (&var.name, &var.value)).collect();
    let changed: Vec<&ByteString> = planned
        .iter()
        .filter(|var| resolved.get(&var.name) != Some(&&var.value))
        .map(|var| &var.name)
        .collect();
    let decided = |decision: &Decision| Variable {
        name: decision.name.clone(),
        kept: decision.kept,
        because: Because::Rule(decision.rule.clone()),
    };
    let unchanged = env.decisions.iter().filter(|decision| !changed.contains(&&decision.name));
    let mut variables: Vec<Variable> = unchanged.map(decided).collect();
    variables.extend(changed.iter().map(|name| Variable {
        name: (*name).clone(),
        kept: true,
        because: Because::Sandbox(SetBySandbox::Sandbox),
    }));
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

#[cfg(test)]
mod tests;
