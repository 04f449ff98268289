//! S-expressions of a sandbox profile: words, texts, regular expressions, lists, and comments up to the line's end.

use super::Fault;

/// Deeper than any filter; what is nested deeper is refused before it takes the stack.
const DEEPEST: usize = 16;

/// A part of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A name or a number.
    Word(String),
    /// Between quotation marks.
    Text(String),
    /// Between quotation marks behind a `#`: a backslash stays.
    Regex(String),
    /// Between parentheses.
    List(Vec<Node>),
}

impl Node {
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Text(_) | Self::Regex(_) | Self::List(_) => None,
        }
    }

    /// The words of a list of nothing else, between spaces.
    pub(super) fn words(&self) -> Option<String> {
        match self {
            Self::List(parts) => {
                let words: Option<Vec<&str>> = parts.iter().map(Self::word).collect();
                words.map(|words| words.join(" "))
            }
            Self::Word(_) | Self::Text(_) | Self::Regex(_) => None,
        }
    }
}

/// Reads all of `text`.
///
/// # Errors
/// [`Fault`] for whatever is not closed, not opened, or of no known form.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Fault> {
    let mut reader = Reader { rest: text };
    let nodes = reader.nodes(0)?;
    match reader.rest {
        "" => Ok(nodes),
        _ => Err(Fault("a list ends that did not begin".to_owned())),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Everything up to the end of the list or of the text.
    fn nodes(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut nodes = Vec::new();
        loop {
            self.skip();
            match self.rest.chars().next() {
                None | Some(')') => return Ok(nodes),
                Some(_) => nodes.push(self.node(depth)?),
            }
        }
    }

    /// Spaces and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\n', '\t']);
            match self.rest.strip_prefix(';') {
                Some(comment) => self.rest = comment.find('\n').map_or("", |end| &comment[end..]),
                None => return,
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Fault> {
        if depth > DEEPEST {
            return Err(Fault("lists lie too deep".to_owned()));
        }
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let nodes = self.nodes(depth + 1)?;
            let Some(rest) = self.rest.strip_prefix(')') else {
                return Err(Fault("a list does not end".to_owned()));
            };
            self.rest = rest;
            return Ok(Node::List(nodes));
        }
        if let Some(rest) = self.rest.strip_prefix("#\"") {
            return self.quoted(rest).map(Node::Regex);
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            let text = self.quoted(rest)?;
            // An escape would have to be understood; a generator that needs none uses none.
            return if text.contains('\\') {
                Err(Fault(format!("an escape: {text}")))
            } else {
                Ok(Node::Text(text))
            };
        }
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || "-_*.".contains(c);
        let end = self.rest.find(|c| !is_of_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.is_empty() || rest.starts_with(['"', '#', '(']) {
            return Err(Fault(format!("no word: {:?}", rest.chars().next())));
        }
        Ok(Node::Word(word.to_owned()))
    }

    fn quoted(&mut self, rest: &str) -> Result<String, Fault> {
        let Some((text, _)) = rest.split_once('"') else {
            return Err(Fault("a text does not end".to_owned()));
        };
        let end = self.rest.len() - rest.len() + text.len() + 1;
        self.rest = &self.rest[end..];
        Ok(text.to_owned())
    }
}
