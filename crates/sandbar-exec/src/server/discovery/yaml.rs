//! YAML as far as skills are written in it: texts, sequences, mappings. Pure.
//!
//! Anchors are read and never followed, so that a small file can't become a large value. Numbers and truths stay the
//! text they were written as, which is what names and descriptions mean by them.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 16;

/// Most values that are read.
const MAX_VALUES: usize = 4096;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    /// Nothing, or something that isn't followed.
    Null,
    /// A text; `is_plain` if it was written without quotes.
    Text { text: String, is_plain: bool },
    /// Values.
    Sequence(Vec<Yaml>),
    /// Names with values, each name once.
    Mapping(Vec<(String, Yaml)>),
}

/// The text is no YAML, or more of it than is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotYaml;

impl From<ScanError> for NotYaml {
    fn from(_: ScanError) -> Self {
        Self
    }
}

impl Yaml {
    /// Reads a text's first document.
    ///
    /// # Errors
    /// [`NotYaml`].
    pub(super) fn parse(text: &str) -> Result<Self, NotYaml> {
        let mut reader = Reader { events: Parser::new_from_str(text), left: MAX_VALUES };
        loop {
            match reader.next()? {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd | Event::DocumentEnd => return Ok(Self::Null),
                begin @ (Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd) => {
                    let value = reader.value(begin, 0)?;
                    // What follows belongs to it, or it was none.
                    return if reader.next()? == Event::DocumentEnd { Ok(value) } else { Err(NotYaml) };
                }
            }
        }
    }

    /// The value of a name; [`Yaml::Null`] if there is none or this is no mapping.
    pub(super) fn get(&self, name: &str) -> &Self {
        let Self::Mapping(members) = self else { return &Self::Null };
        members.iter().find(|(known, _)| known == name).map_or(&Self::Null, |(_, value)| value)
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Null | Self::Sequence(_) | Self::Mapping(_) => None,
        }
    }

    /// The truth, if it is one.
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::Text { text, is_plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            Self::Text { .. } | Self::Null | Self::Sequence(_) | Self::Mapping(_) => None,
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    left: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, NotYaml> {
        let (event, _) = self.events.next_event().ok_or(NotYaml)??;
        Ok(event)
    }

    fn value(&mut self, begin: Event<'_>, depth: usize) -> Result<Yaml, NotYaml> {
        self.left = self.left.checked_sub(1).ok_or(NotYaml)?;
        if depth > MAX_DEPTH {
            return Err(NotYaml);
        }
        match begin {
            Event::Alias(_) => Ok(Yaml::Null),
            Event::Scalar(text, style, _, _) => Ok(scalar(text.into_owned(), style)),
            Event::SequenceStart(..) => {
                let mut values = Vec::new();
                loop {
                    let begin = self.next()?;
                    if begin == Event::SequenceEnd {
                        return Ok(Yaml::Sequence(values));
                    }
                    values.push(self.value(begin, depth + 1)?);
                }
            }
            Event::MappingStart(..) => self.mapping(depth),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Err(NotYaml),
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Yaml, NotYaml> {
        let mut members: Vec<(String, Yaml)> = Vec::new();
        loop {
            let name = self.next()?;
            if name == Event::MappingEnd {
                return Ok(Yaml::Mapping(members));
            }
            let Event::Scalar(name, ..) = name else { return Err(NotYaml) };
            let name = name.into_owned();
            if members.iter().any(|(known, _)| *known == name) {
                return Err(NotYaml);
            }
            let begin = self.next()?;
            let value = self.value(begin, depth + 1)?;
            members.push((name, value));
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Yaml {
    let is_plain = style == ScalarStyle::Plain;
    if is_plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Yaml::Null;
    }
    Yaml::Text { text, is_plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sequences_and_mappings_are_read() {
        let yaml =
            Yaml::parse("a: one # remark\nb:\n  - 'x: y'\n  - {c: true, d: ~}\ne: |\n  two\n  lines\n")
                .unwrap();
        assert_eq!(yaml.get("a").text(), Some("one"));
        let Yaml::Sequence(values) = yaml.get("b") else { panic!("{yaml:?}") };
        assert_eq!(values[0].text(), Some("x: y"));
        assert_eq!((values[1].get("c").truth(), values[1].get("d")), (Some(true), &Yaml::Null));
        assert_eq!(yaml.get("e").text(), Some("two\nlines\n"));
        assert_eq!(Yaml::parse("a: 'true'").unwrap().get("a").truth(), None);
        assert_eq!(Yaml::parse(""), Ok(Yaml::Null));
    }

    #[test]
    fn what_would_grow_or_is_no_yaml_is_refused() {
        assert_eq!(
            Yaml::parse("a: &x [1]\nb: *x").unwrap().get("b"),
            &Yaml::Null,
            "anchors are not followed"
        );
        let deep = format!("{}1{}", "[".repeat(MAX_DEPTH + 2), "]".repeat(MAX_DEPTH + 2));
        let many = format!("[{}]", "1,".repeat(MAX_VALUES));
        for text in ["a: [", "a: b: c", "a: 1\na: 2", deep.as_str(), many.as_str()] {
            assert_eq!(Yaml::parse(text), Err(NotYaml), "{}", &text[..text.len().min(20)]);
        }
    }
}
