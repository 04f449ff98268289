//! Which environment variables a child gets, and which rule decided each.
//!
//! The order is that of the peers' `shell_environment_policy` (facts/exec-server.md §3): inherit, default
//! excludes, `exclude`, `set`, `include_only`, our own additions, and then the overlay, which wins over all of
//! them. Ours are `include`, which takes back what the first two steps dropped, `unset`, which comes last, and
//! further default excludes: names and values that look like credentials (`credentials.rs`).
//! Works on bytes: a name or value that is not UTF-8 survives. Decisions carry names, never values.

use std::collections::BTreeMap;
use std::fmt;

use sandbar_proto::{ByteString, EnvVar};
use serde::{Deserialize, Serialize};

use crate::credentials::{self, Shape};
use crate::{Glob, glob};

/// Names that look like credentials to the peers, too.
const DEFAULT_EXCLUDES: [&str; 3] = ["*KEY*", "*SECRET*", "*TOKEN*"];

const CORE_UNIX: [&str; 11] =
    ["PATH", "SHELL", "TMPDIR", "TEMP", "TMP", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "USER"];
const CORE_WINDOWS: [&str; 8] =
    ["PATH", "SHELL", "TMPDIR", "TEMP", "TMP", "PATHEXT", "USERNAME", "USERPROFILE"];

/// Without it Windows finds no program by a name without extension.
const DEFAULT_PATHEXT: &str = ".COM;.EXE;.BAT;.CMD";

/// Whose rules for names apply: the executor's, never the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Names are case-sensitive.
    Unix,
    /// Names are not, and `PATHEXT` is needed.
    Windows,
}

/// What of the base environment is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inherit {
    /// Everything.
    #[default]
    All,
    /// What a shell needs: `PATH`, `HOME` and the like.
    Core,
    /// Nothing.
    None,
}

/// Rules for an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvPolicy {
    /// What of the base is taken.
    pub inherit: Inherit,
    /// Keep what looks like a credential: `*KEY*`, `*SECRET*`, `*TOKEN*`, and what ours find.
    pub ignore_default_excludes: bool,
    /// Let the default excludes be those three alone, as in the peers' dialect; ours know more names, and values.
    pub only_peers_excludes: bool,
    /// Takes back what `inherit = core` left out or the default excludes dropped.
    pub include: Vec<Glob>,
    /// Drops, whatever admitted.
    pub exclude: Vec<Glob>,
    /// Sets.
    pub set: Vec<EnvVar>,
    /// If not empty, everything that came so far and matches none of these goes, `set` too.
    pub include_only: Vec<Glob>,
    /// Removes, after everything else.
    pub unset: Vec<ByteString>,
}

/// What decided a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule", content = "with")]
pub enum Rule {
    /// `inherit` took it or left it out.
    Inherit(Inherit),
    /// A default exclude dropped it.
    DefaultExclude(Glob),
    /// It looks like a credential by this word of its name.
    CredentialName(String),
    /// It looks like a credential by its value.
    CredentialValue(Shape),
    /// An `include` took it back.
    Include(Glob),
    /// An `exclude` dropped it.
    Exclude(Glob),
    /// `set` made it.
    Set,
    /// `include_only` does not name it.
    IncludeOnly,
    /// Sandbar added it.
    Addition,
    /// Windows needs it.
    PlatformDefault,
    /// The request's own variable.
    Overlay,
    /// `unset` removed it.
    Unset,
    /// Its name is empty or has a `=`, or it has a NUL: no process can be given it.
    Malformed,
}

impl fmt::Display for Inherit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Core => "core",
            Self::None => "none",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit(inherit) => write!(f, "inherit = {inherit}"),
            Self::DefaultExclude(glob) => write!(f, "default exclude {glob}"),
            Self::CredentialName(word) => write!(f, "looks like a credential by its name: {word}"),
            Self::CredentialValue(shape) => write!(f, "looks like a credential by its value: {shape}"),
            Self::Include(glob) => write!(f, "--env-keep {glob}"),
            Self::Exclude(glob) => write!(f, "exclude {glob}"),
            Self::Set => f.write_str("set"),
            Self::IncludeOnly => f.write_str("not in include_only"),
            Self::Addition => f.write_str("added by sandbar"),
            Self::PlatformDefault => f.write_str("default of the platform"),
            Self::Overlay => f.write_str("overlay"),
            Self::Unset => f.write_str("unset"),
            Self::Malformed => f.write_str("not a variable"),
        }
    }
}

/// What became of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The name; of a malformed one only what precedes its `=`, since the rest may be a value.
    pub name: ByteString,
    /// Whether the child gets it.
    pub kept: bool,
    /// The rule that decided last.
    pub rule: Rule,
}

/// An exact environment and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedEnv {
    /// The variables, sorted by name, each name once.
    pub vars: Vec<EnvVar>,
    /// One decision per name that came up, sorted by name; malformed entries last.
    pub decisions: Vec<Decision>,
}

impl ResolvedEnv {
    /// How many variables the policy kept from the child; not those a person removed by name with `unset`.
    #[must_use]
    pub fn withheld_count(&self) -> usize {
        self.decisions.iter().filter(|decision| !decision.kept && withholds(&decision.rule)).count()
    }
}

fn withholds(rule: &Rule) -> bool {
    match rule {
        Rule::Inherit(_)
        | Rule::DefaultExclude(_)
        | Rule::CredentialName(_)
        | Rule::CredentialValue(_)
        | Rule::Exclude(_)
        | Rule::IncludeOnly => true,
        Rule::Include(_)
        | Rule::Set
        | Rule::Addition
        | Rule::PlatformDefault
        | Rule::Overlay
        | Rule::Unset
        | Rule::Malformed => false,
    }
}

/// Resolves `base` through `policy`, then adds `additions` and `overlay`.
///
/// Of a name that comes twice in one list the last one counts.
#[must_use]
pub fn resolve(
    policy: &EnvPolicy,
    platform: Platform,
    base: &[EnvVar],
    overlay: &[EnvVar],
    additions: &[EnvVar],
) -> ResolvedEnv {
    let mut draft = Draft { platform, slots: BTreeMap::new(), malformed: Vec::new() };
    for var in base {
        draft.admit(policy, var);
    }
    for var in &policy.set {
        draft.put(var, Rule::Set);
    }
    draft.keep_only(&policy.include_only);
    for var in additions {
        draft.put(var, Rule::Addition);
    }
    draft.platform_defaults();
    for var in overlay {
        draft.put(var, Rule::Overlay);
    }
    for name in &policy.unset {
        draft.unset(name);
    }
    draft.finish()
}

struct Slot {
    name: ByteString,
    value: Option<ByteString>,
    rule: Rule,
}

struct Draft {
    platform: Platform,
    slots: BTreeMap<Vec<u8>, Slot>,
    malformed: Vec<Decision>,
}

impl Draft {
    fn key(&self, name: &[u8]) -> Vec<u8> {
        match self.platform {
            Platform::Unix => name.to_vec(),
            Platform::Windows => name.to_ascii_uppercase(),
        }
    }

    fn write(&mut self, var: &EnvVar, kept: bool, rule: Rule) {
        if !is_well_formed(var) {
            let visible = var.name.as_bytes().split(|&b| b == b'=' || b == 0).next().unwrap_or_default();
            self.malformed.push(Decision {
                name: ByteString::from(visible),
                kept: false,
                rule: Rule::Malformed,
            });
            return;
        }
        let value = kept.then(|| var.value.clone());
        self.slots.insert(self.key(var.name.as_bytes()), Slot { name: var.name.clone(), value, rule });
    }

    fn put(&mut self, var: &EnvVar, rule: Rule) {
        self.write(var, true, rule);
    }

    fn admit(&mut self, policy: &EnvPolicy, var: &EnvVar) {
        let (kept, rule) = verdict_on_inherited(policy, self.platform, var);
        self.write(var, kept, rule);
    }

    fn keep_only(&mut self, globs: &[Glob]) {
        if globs.is_empty() {
            return;
        }
        for slot in self.slots.values_mut().filter(|slot| slot.value.is_some()) {
            if first_match(globs, slot.name.as_bytes()).is_none() {
                slot.value = None;
                slot.rule = Rule::IncludeOnly;
            }
        }
    }

    fn platform_defaults(&mut self) {
        let has_pathext = self.slots.get(&b"PATHEXT"[..]).is_some_and(|slot| slot.value.is_some());
        if self.platform == Platform::Windows && !has_pathext {
            let var = EnvVar { name: "PATHEXT".into(), value: DEFAULT_PATHEXT.into() };
            self.put(&var, Rule::PlatformDefault);
        }
    }

    fn unset(&mut self, name: &ByteString) {
        let key = self.key(name.as_bytes());
        if let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.value.is_some()) {
            slot.value = None;
            slot.rule = Rule::Unset;
        }
    }

    fn finish(self) -> ResolvedEnv {
        let (mut vars, mut decisions) = (Vec::new(), Vec::new());
        for slot in self.slots.into_values() {
            decisions.push(Decision { name: slot.name.clone(), kept: slot.value.is_some(), rule: slot.rule });
            if let Some(value) = slot.value {
                vars.push(EnvVar { name: slot.name, value });
            }
        }
        // On Windows the slots are in the order of the upper-cased names.
        vars.sort();
        decisions.sort_by(|a, b| a.name.cmp(&b.name));
        decisions.extend(self.malformed);
        ResolvedEnv { vars, decisions }
    }
}

fn verdict_on_inherited(policy: &EnvPolicy, platform: Platform, var: &EnvVar) -> (bool, Rule) {
    let name = var.name.as_bytes();
    let inherited = match policy.inherit {
        Inherit::All => true,
        Inherit::Core => is_core(platform, name),
        Inherit::None => return (false, Rule::Inherit(Inherit::None)),
    };
    let excluded = default_exclude(policy, platform, var);
    let included = first_match(&policy.include, name);
    let (kept, rule) = match (inherited, excluded, included) {
        (true, None, _) => (true, Rule::Inherit(policy.inherit)),
        (_, _, Some(glob)) => (true, Rule::Include(glob.clone())),
        (false, _, None) => (false, Rule::Inherit(policy.inherit)),
        (true, Some(rule), None) => (false, rule),
    };
    match first_match(&policy.exclude, name) {
        Some(glob) if kept => (false, Rule::Exclude(glob.clone())),
        Some(_) | None => (kept, rule),
    }
}

fn is_core(platform: Platform, name: &[u8]) -> bool {
    match platform {
        Platform::Unix => CORE_UNIX.iter().any(|core| core.as_bytes() == name),
        Platform::Windows => CORE_WINDOWS.iter().any(|core| core.as_bytes().eq_ignore_ascii_case(name)),
    }
}

fn default_exclude(policy: &EnvPolicy, platform: Platform, var: &EnvVar) -> Option<Rule> {
    if policy.ignore_default_excludes {
        return None;
    }
    let (name, value) = (var.name.as_bytes(), var.value.as_bytes());
    let peers = DEFAULT_EXCLUDES.into_iter().find(|pattern| glob::covers(pattern.as_bytes(), name));
    if let Some(pattern) = peers {
        return Some(Rule::DefaultExclude(Glob::new(pattern)));
    }
    // A guess takes away nothing that a shell needs.
    if policy.only_peers_excludes || is_core(platform, name) {
        return None;
    }
    let by_name = credentials::word_in_name(name, value).map(|word| Rule::CredentialName(word.to_owned()));
    by_name.or_else(|| credentials::shape_of_value(name, value).map(Rule::CredentialValue))
}

fn first_match<'a>(globs: &'a [Glob], name: &[u8]) -> Option<&'a Glob> {
    globs.iter().find(|glob| glob.matches(name))
}

fn is_well_formed(var: &EnvVar) -> bool {
    let name = var.name.as_bytes();
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !var.value.as_bytes().contains(&0)
}

#[cfg(test)]
mod tests;
