//! A Seatbelt in memory: reads the text of a profile and says what it answers.
//!
//! Written against what the sandbox profile language means (sandbox-exec(1), Apple's own profiles in
//! `/System/Library/Sandbox/Profiles`), not against the code that makes profiles: of the rules for an operation whose
//! filters match, the last one decides; several filters of a rule are alternatives; `file-read*` stands for every
//! operation with that beginning. Understands the part of the language that the generator uses; everything else is an
//! error, so that nothing is skipped that would have meant something.

mod reader;
mod regex;

use sandbar_proto::AbsPath;

use reader::{Node, read};
use regex::Regex;

/// Operations that a rule may name.
const OPERATIONS: [&str; 33] = [
    "file-ioctl",
    "file-link",
    "file-map-executable",
    "file-read-data",
    "file-read-metadata",
    "file-read-xattr",
    "file-write-create",
    "file-write-data",
    "file-write-flags",
    "file-write-mode",
    "file-write-owner",
    "file-write-setugid",
    "file-write-times",
    "file-write-unlink",
    "file-write-xattr",
    "iokit-open",
    "ipc-posix-sem",
    "ipc-posix-shm-read-data",
    "ipc-posix-shm-write-create",
    "ipc-posix-shm-write-unlink",
    "mach-lookup",
    "network-bind",
    "network-inbound",
    "network-outbound",
    "process-exec",
    "process-fork",
    "process-info-pidinfo",
    "pseudo-tty",
    "signal",
    "sysctl-read",
    "sysctl-write",
    "system-socket",
    "user-preference-read",
];

/// Why a text is no profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

fn fault<T>(what: &str, of: &impl std::fmt::Debug) -> Result<T, Fault> {
    Err(Fault(format!("{what}: {of:?}")))
}

/// What an operation is done to. What does not apply is left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    /// A file, or a unix socket.
    pub(crate) path: Option<&'a AbsPath>,
    /// A service, a sysctl, a class, a name of POSIX IPC.
    pub(crate) name: Option<&'a str>,
    /// A process.
    pub(crate) target: Option<&'a str>,
    /// Host and port of an address: `localhost` or anything else.
    pub(crate) address: Option<(&'a str, u16)>,
    /// Protocol family of a socket.
    pub(crate) domain: Option<&'a str>,
    /// Protocol of a socket.
    pub(crate) protocol: Option<u16>,
    /// Extension that the process holds for the path.
    pub(crate) extension: Option<&'a str>,
}

#[derive(Debug, Clone)]
enum Filter {
    Literal(AbsPath),
    Subpath(AbsPath),
    Regex(Regex),
    Extension(String),
    Target(String),
    Name { prefix: bool, text: String },
    NameRegex(Regex),
    Address { host: String, port: Option<u16> },
    Socket(Box<Filter>),
    Domain(String),
    Protocol(u16),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
}

impl Filter {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let text = |path: &AbsPath| path.to_display();
        match self {
            Self::Literal(at) => subject.path == Some(at),
            Self::Subpath(at) => subject.path.is_some_and(|path| path.starts_with(at)),
            Self::Regex(regex) => subject.path.is_some_and(|path| regex.finds(&text(path))),
            Self::Extension(name) => subject.extension == Some(name),
            Self::Target(target) => subject.target == Some(target),
            Self::Name { prefix: false, text } => subject.name == Some(text),
            Self::Name { prefix: true, text } => subject.name.is_some_and(|name| name.starts_with(text)),
            Self::NameRegex(regex) => subject.name.is_some_and(|name| regex.finds(name)),
            Self::Address { host, port } => subject.address.is_some_and(|(named, asked)| {
                (host == "*" || host == named) && port.is_none_or(|port| port == asked)
            }),
            // An address of the internet is no file.
            Self::Socket(filter) => subject.address.is_none() && filter.matches(subject),
            Self::Domain(domain) => subject.domain == Some(domain),
            Self::Protocol(protocol) => subject.protocol == Some(*protocol),
            Self::All(filters) => filters.iter().all(|filter| filter.matches(subject)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(subject)),
            Self::Not(filter) => !filter.matches(subject),
        }
    }
}

#[derive(Debug, Clone)]
struct Rule {
    allows: bool,
    operations: Vec<String>,
    /// None means always.
    filters: Vec<Filter>,
}

impl Rule {
    fn decides(&self, operation: &str, subject: &Subject<'_>) -> bool {
        self.operations.iter().any(|named| covers(named, operation))
            && (self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(subject)))
    }
}

fn covers(named: &str, operation: &str) -> bool {
    match named.strip_suffix('*') {
        Some(beginning) => operation.starts_with(beginning),
        None => named == operation,
    }
}

/// A profile that was understood as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Evaluator {
    rules: Vec<Rule>,
}

impl Evaluator {
    /// Reads `text`, taking paths from `parameters`.
    ///
    /// # Errors
    /// [`Fault`] at the first thing that is not of the language, or not of the part that is understood.
    pub(crate) fn new(text: &str, parameters: &[(String, String)]) -> Result<Self, Fault> {
        let mut nodes = read(text)?.into_iter();
        let head = [nodes.next(), nodes.next()].map(|node| node.as_ref().and_then(Node::words));
        if head.each_ref().map(Option::as_deref) != [Some("version 1"), Some("deny default")] {
            return fault("it does not begin with its version and the denial of everything", &head);
        }
        let language = Language { parameters };
        let rules = nodes.map(|node| language.rule(&node)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Whether `operation` is allowed on `subject`.
    ///
    /// # Panics
    /// If there is no such operation: a question about one is a mistake of the test.
    pub(crate) fn allows(&self, operation: &str, subject: &Subject<'_>) -> bool {
        assert!(OPERATIONS.contains(&operation), "{operation}");
        let decisive = self.rules.iter().rev().find(|rule| rule.decides(operation, subject));
        decisive.is_some_and(|rule| rule.allows)
    }

    /// Whether `operation` is allowed on the file `path`.
    pub(crate) fn allows_at(&self, operation: &str, path: &AbsPath) -> bool {
        self.allows(operation, &Subject { path: Some(path), ..Subject::default() })
    }
}

/// What names mean while a profile is read.
struct Language<'a> {
    parameters: &'a [(String, String)],
}

impl Language<'_> {
    fn rule(&self, node: &Node) -> Result<Rule, Fault> {
        let Node::List(parts) = node else { return fault("no rule", node) };
        let allows = match parts.first().and_then(Node::word) {
            Some("allow") => true,
            Some("deny") => false,
            _ => return fault("no rule", node),
        };
        let operations: Vec<String> = parts[1..].iter().map_while(Node::word).map(str::to_owned).collect();
        if operations.is_empty() {
            return fault("a rule about nothing", node);
        }
        for named in &operations {
            if !OPERATIONS.iter().any(|operation| covers(named, operation)) || named == "*" {
                return fault("no operation", named);
            }
        }
        let filters = self.filters(&parts[1 + operations.len()..])?;
        Ok(Rule { allows, operations, filters })
    }

    fn filters(&self, nodes: &[Node]) -> Result<Vec<Filter>, Fault> {
        nodes.iter().map(|node| self.filter(node)).collect()
    }

    fn filter(&self, node: &Node) -> Result<Filter, Fault> {
        let Node::List(parts) = node else { return fault("no filter", node) };
        let Some((name, arguments)) = parts.split_first() else { return fault("no filter", node) };
        let Some(name) = name.word() else { return fault("no filter", node) };
        match (name, arguments) {
            ("require-all", [_, ..]) => Ok(Filter::All(self.filters(arguments)?)),
            ("require-any", [_, ..]) => Ok(Filter::Any(self.filters(arguments)?)),
            ("require-not", [filter]) => Ok(Filter::Not(Box::new(self.filter(filter)?))),
            ("literal", [at]) => Ok(Filter::Literal(self.path(at)?)),
            ("subpath", [at]) => Ok(Filter::Subpath(self.path(at)?)),
            ("regex", [Node::Regex(source)]) => Ok(Filter::Regex(Regex::new(source)?)),
            ("ipc-posix-name-regex", [Node::Regex(source)]) => Ok(Filter::NameRegex(Regex::new(source)?)),
            ("extension", [Node::Text(name)]) => Ok(Filter::Extension(name.clone())),
            ("target", [target]) => match target.word() {
                Some(word @ ("self" | "same-sandbox" | "children" | "others")) => {
                    Ok(Filter::Target(word.to_owned()))
                }
                _ => fault("no target", target),
            },
            ("sysctl-name" | "global-name" | "iokit-registry-entry-class", [Node::Text(text)]) => {
                Ok(Filter::Name { prefix: false, text: text.clone() })
            }
            ("sysctl-name-prefix", [Node::Text(text)]) => {
                Ok(Filter::Name { prefix: true, text: text.clone() })
            }
            ("socket-domain", [domain]) => match domain.word() {
                Some(word @ ("AF_UNIX" | "AF_INET" | "AF_INET6" | "AF_SYSTEM")) => {
                    Ok(Filter::Domain(word.to_owned()))
                }
                _ => fault("no protocol family", domain),
            },
            ("socket-protocol", [number]) => match number.word().and_then(|word| word.parse().ok()) {
                Some(number) => Ok(Filter::Protocol(number)),
                None => fault("no protocol", number),
            },
            ("local" | "remote", [kind, place]) => self.end(kind, place),
            _ => fault("no filter that is understood", node),
        }
    }

    /// An end of a connection.
    fn end(&self, kind: &Node, place: &Node) -> Result<Filter, Fault> {
        match (kind.word(), place) {
            (Some("unix-socket"), place) => {
                let filter = self.filter(place)?;
                if matches!(filter, Filter::Literal(_) | Filter::Subpath(_)) {
                    Ok(Filter::Socket(Box::new(filter)))
                } else {
                    fault("no socket", place)
                }
            }
            (Some("ip"), Node::Text(address)) => address_filter(address),
            _ => fault("no address", place),
        }
    }

    fn path(&self, node: &Node) -> Result<AbsPath, Fault> {
        let text = match node {
            Node::Text(text) => text,
            Node::List(parts) => match parts.as_slice() {
                [Node::Word(word), Node::Text(name)] if word == "param" => {
                    match self.parameters.iter().find(|(known, _)| known == name) {
                        Some((_, value)) => value,
                        None => return fault("no parameter", name),
                    }
                }
                _ => return fault("no path", node),
            },
            Node::Word(_) | Node::Regex(_) => return fault("no path", node),
        };
        match AbsPath::new(text.as_str()) {
            // A rule of another spelling would match nothing.
            Ok(path) if path.as_bytes() == text.as_bytes() => Ok(path),
            _ => fault("no real path", text),
        }
    }
}

/// Takes nothing but `*` and `localhost` for a host, as the language does.
fn address_filter(address: &String) -> Result<Filter, Fault> {
    let Some((host @ ("*" | "localhost"), port)) = address.rsplit_once(':') else {
        return fault("no address", address);
    };
    let port = match port {
        "*" => None,
        number => match number.parse() {
            Ok(port) => Some(port),
            Err(_) => return fault("no port", address),
        },
    };
    Ok(Filter::Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests;
