//! What a `SKILL.md` and the `agents/openai.yaml` beside it say. Pure.

use sandbar_proto::exec::{SkillDependencies, SkillPolicy, SkillTool};

use super::yaml::{NotYaml, Yaml};

/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Products that a policy may name.
const PRODUCTS: [&str; 3] = ["chatgpt", "codex", "atlas"];

/// What stands at the beginning of a `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) name: Option<String>,
    pub(super) description: String,
    pub(super) short_description: Option<String>,
}

/// What an `agents/openai.yaml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Agents {
    pub(super) dependencies: Option<SkillDependencies>,
    pub(super) policy: Option<SkillPolicy>,
}

/// Reads the front of a `SKILL.md`; nothing if it has none that makes a skill.
pub(super) fn front(file: &str) -> Option<Front> {
    let text = between_lines(file)?;
    let yaml = Yaml::parse(&text).or_else(|NotYaml| Yaml::parse(&quoted(&text))).ok()?;
    let name = one_line(text_of(yaml.get("name"))?);
    if name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME_CHARS) {
        return None;
    }
    let metadata = yaml.get("metadata");
    if !matches!(metadata, Yaml::Mapping(_) | Yaml::Null) {
        return None;
    }
    Some(Front {
        name,
        description: one_line(text_of(yaml.get("description"))?)?,
        short_description: one_line(text_of(metadata.get("short-description"))?),
    })
}

/// The lines between the first two that say `---`.
fn between_lines(file: &str) -> Option<String> {
    let mut lines = file.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut text = String::new();
    for line in lines {
        if line.trim_end() == "---" {
            return Some(text);
        }
        text.push_str(line);
        text.push('\n');
    }
    None
}

/// The same with values in quotes that people write without them, such as a description that has a colon.
fn quoted(text: &str) -> String {
    let quote = |line: &str| -> Option<String> {
        let (name, value) = line.split_once(": ")?;
        let is_name = name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
        let value = value.trim();
        let is_bare = !value.is_empty() && !value.starts_with(['\'', '"', '|', '>']);
        (is_name && is_bare).then(|| format!("{name}: '{}'", value.replace('\'', "''")))
    };
    let line = |line: &str| quote(line).unwrap_or_else(|| line.to_owned()) + "\n";
    text.lines().map(line).collect()
}

/// The text of a value, of nothing nothing. What is neither makes the whole wrong, which is the outer nothing.
#[expect(clippy::option_option, reason = "the outer one ends the reader, the inner one is what it reads")]
fn text_of(value: &Yaml) -> Option<Option<&str>> {
    match value {
        Yaml::Null => Some(None),
        Yaml::Text { text, .. } => Some(Some(text)),
        Yaml::Sequence(_) | Yaml::Mapping(_) => None,
    }
}

/// A text in one line; nothing if nothing is left.
fn one_line(text: Option<&str>) -> Option<String> {
    let words: Vec<&str> = text?.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Reads an `agents/openai.yaml`. One that can't be read says nothing.
pub(super) fn agents(file: &str) -> Agents {
    let Ok(yaml) = Yaml::parse(file) else { return Agents::default() };
    let Ok(policy) = policy(yaml.get("policy")) else { return Agents::default() };
    let tools = match yaml.get("dependencies").get("tools") {
        Yaml::Sequence(tools) => tools.iter().filter_map(tool).collect(),
        Yaml::Null | Yaml::Text { .. } | Yaml::Mapping(_) => Vec::new(),
    };
    let dependencies = (!tools.is_empty()).then_some(SkillDependencies { tools });
    Agents { dependencies, policy }
}

fn tool(value: &Yaml) -> Option<SkillTool> {
    let member = |name: &str| one_line(value.get(name).text());
    Some(SkillTool {
        kind: member("type")?,
        value: member("value")?,
        description: member("description"),
        transport: member("transport"),
        command: member("command"),
        url: member("url"),
        oauth_callback_port: None,
    })
}

fn policy(value: &Yaml) -> Result<Option<SkillPolicy>, NotYaml> {
    let Yaml::Mapping(_) = value else {
        return if *value == Yaml::Null { Ok(None) } else { Err(NotYaml) };
    };
    let implicit = value.get("allow_implicit_invocation");
    let allow_implicit_invocation = implicit.truth();
    if allow_implicit_invocation.is_none() && *implicit != Yaml::Null {
        return Err(NotYaml);
    }
    let products = match value.get("products") {
        Yaml::Null => Vec::new(),
        Yaml::Sequence(names) => names.iter().map(product).collect::<Result<_, _>>()?,
        Yaml::Text { .. } | Yaml::Mapping(_) => return Err(NotYaml),
    };
    Ok(Some(SkillPolicy { allow_implicit_invocation, products }))
}

fn product(value: &Yaml) -> Result<String, NotYaml> {
    let name = value.text().ok_or(NotYaml)?.to_ascii_lowercase();
    if PRODUCTS.contains(&name.as_str()) { Ok(name) } else { Err(NotYaml) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(front_matter: &str) -> Option<(String, String, String)> {
        let read = front(&format!("---\n{front_matter}\n---\nThe body: [is not read\n"))?;
        Some((read.name.unwrap_or_default(), read.description, read.short_description.unwrap_or_default()))
    }

    fn found(name: &str, description: &str, short: &str) -> Option<(String, String, String)> {
        Some((name.to_owned(), description.to_owned(), short.to_owned()))
    }

    // Each line was measured at the peer.
    #[test]
    fn a_skill_has_a_description_and_mostly_a_name() {
        assert_eq!(read("name: s\ndescription: d"), found("s", "d", ""));
        assert_eq!(read("description: d"), found("", "d", ""));
        assert_eq!(read("name: ''\ndescription: d"), found("", "d", ""));
        assert_eq!(read("name: s"), None);
        assert_eq!(read("name: s\ndescription: ''"), None);
        assert_eq!(read("name: s\ndescription: null"), None);
        assert_eq!(read("name: s\ndescription: [a]"), None);
        assert_eq!(read("name: 12\ndescription: true"), found("12", "true", ""));
        assert_eq!(read("name: s # c\ndescription: a #b: c"), found("s", "a", ""));
        assert_eq!(
            read(&format!("name: {}\ndescription: d", "é".repeat(64))),
            found(&"é".repeat(64), "d", "")
        );
        assert_eq!(read(&format!("name: {}\ndescription: d", "n".repeat(65))), None);
    }

    #[test]
    fn texts_become_one_line() {
        assert_eq!(
            read("name: ' sp  aced\n  name '\ndescription: >\n  a\n  b"),
            found("sp aced name", "a b", "")
        );
        assert_eq!(read("name: s\ndescription: \"esc \\u00e9 \\n x\""), found("s", "esc é x", ""));
        assert_eq!(
            read("name: s\ndescription: d\nmetadata: {short-description: ' a  b '}"),
            found("s", "d", "a b")
        );
        assert_eq!(read("name: s\ndescription: d\nmetadata: x"), None);
    }

    #[test]
    fn values_that_lack_quotes_are_read_as_they_are_meant() {
        assert_eq!(read("name: s\ndescription: Use when: this"), found("s", "Use when: this", ""));
        assert_eq!(read("name: s\ndescription: it's: x"), found("s", "it's: x", ""));
        assert_eq!(read("name: s\ndescription: @at"), found("s", "@at", ""));
        assert_eq!(read("argument-hint: [a] [b]\nname: s\ndescription: d"), found("s", "d", ""));
        assert_eq!(read("name: s\ndescription: x\n  cont: y"), None);
        assert_eq!(read("name: [x\ndescription: d"), found("[x", "d", ""));
        assert_eq!(read("name: s\ndescription: d\nname: t"), None);
    }

    #[test]
    fn the_front_begins_the_file_and_ends() {
        assert!(front("---  \r\nname: s\r\ndescription: d\r\n---\r\n").is_some());
        for file in ["", "text", "\n---\nname: s\ndescription: d\n---\n", "---\nname: s\ndescription: d\n"] {
            assert_eq!(front(file), None, "{file:?}");
        }
    }

    #[test]
    fn what_a_skill_needs_and_allows_is_read() {
        let tools =
            "dependencies: {tools: [{value: x}, {type: mcp, value: y, command: c}, {type: a, value: '  '}]}";
        let Agents { dependencies, policy } = agents(tools);
        let tool = SkillTool {
            kind: "mcp".to_owned(),
            value: "y".to_owned(),
            command: Some("c".to_owned()),
            ..SkillTool::default()
        };
        assert_eq!((dependencies, policy), (Some(SkillDependencies { tools: vec![tool] }), None));
        let policy = |text: &str| agents(text).policy;
        assert_eq!(policy("policy: {}"), Some(SkillPolicy::default()));
        assert_eq!(
            policy("policy: {allow_implicit_invocation: false, products: [CHATGPT, codex]}"),
            Some(SkillPolicy {
                allow_implicit_invocation: Some(false),
                products: vec!["chatgpt".to_owned(), "codex".to_owned()],
            })
        );
        for wrong in
            ["policy: null", "policy: {products: [zzz]}", "policy: {allow_implicit_invocation: 'x'}", "["]
        {
            assert_eq!(policy(wrong), None, "{wrong}");
        }
    }
}
