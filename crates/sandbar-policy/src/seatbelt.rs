//! The profile of a run for Seatbelt, the sandbox of macOS, and the parameters that go with it.
//!
//! A confinement becomes text in the sandbox profile language, for `/usr/bin/sandbox-exec` (sandbox-exec(1)). Everything is denied
//! at first, of the rules that match the last one decides, so places stand in the order shallow to deep and a deeper one
//! reopens or takes away what a shallower one said. Paths are never written into the text: a [`Parameter`] is the only
//! thing that a rule can be given, and the value of one travels beside the text, so no name of a file can change a rule. Patterns
//! are the exception: they are regular expressions there, made of nothing but what they may have.
//!
//! What is taken away is named as `literal` and as `subpath`, and whatever leads there through a writable directory
//! can't be moved, else a command moves it aside and makes another (facts/sandbox.md §3.1). Where macOS has nothing that
//! does what Linux does, [`on_macos`] says what it is instead; that is never more.
//!
//! Deliberately not here: finding real paths (facts have them), making the temporary directory and what reserves missing names
//! (the keeper), carrying it out (`sandbar-sandbox`; nothing does yet). No profile made here has met a macOS so far.

mod system;

use sandbar_proto::{AbsPath, PathGlob};

use crate::{Access, Confinement, Nature, Openings, Place, Reach};

/// The only program that is trusted with a profile.
pub const PROGRAM: &str = "/usr/bin/sandbox-exec";

/// What reading comes to: also to be started, and mapped as a library.
const READ: &str = "file-read* file-map-executable process-exec*";
const WRITE: &str = "file-write*";

/// What a place is on macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMacos {
    /// As on Linux.
    Same,
    /// Something stricter.
    Stricter {
        /// What is left.
        left: Left,
        /// Why.
        because: &'static str,
    },
}

/// What is left of a place where macOS can't do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// What is left of the place around it.
    AsAround,
    /// Nothing but the devices that programs expect.
    NamedDevices,
}

/// What a place of this nature is on macOS: every difference from Linux, with its reason.
#[must_use]
pub fn on_macos(nature: Nature) -> OnMacos {
    let stricter = |left, because| OnMacos::Stricter { left, because };
    match nature {
        Nature::Read | Nature::Write | Nature::Reserved | Nature::Hidden | Nature::Sealed => OnMacos::Same,
        Nature::Private => {
            let because = "nothing can stand in the place of the host's directory; the run has a directory of its own elsewhere";
            stricter(Left::Nothing, because)
        }
        Nature::Cache => {
            stricter(Left::AsAround, "there are no layers: what is written would reach the host's cache")
        }
        // There is no such directory; what a file system might have there is a file like others.
        Nature::Processes => OnMacos::Same,
        Nature::Devices => {
            stricter(Left::NamedDevices, "the devices are the host's, and only some are everybody's")
        }
    }
}

/// Why there is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatbeltError {
    /// A parameter is text, and so are the names of the file systems of macOS.
    #[error("the name of {} is no UTF-8, which macOS can't have", path.to_display())]
    NotText {
        /// The path.
        path: AbsPath,
    },
    /// The run's own temporary directory would open something that was decided otherwise.
    #[error("{} can't be the run's temporary directory: {} lies in it", path.to_display(), holds.to_display())]
    TemporaryTooBroad {
        /// The directory.
        path: AbsPath,
        /// What lies in it.
        holds: AbsPath,
    },
    /// A pattern can't be said in the language of profiles.
    #[error("the pattern {pattern} has characters that no profile can have")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A socket that is to be reached lies where nothing may be.
    #[error("the socket {} lies in what is hidden", path.to_display())]
    SocketHidden {
        /// The socket.
        path: AbsPath,
    },
}

/// A profile and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatbeltProfile {
    text: String,
    parameters: Vec<(String, String)>,
}

impl SeatbeltProfile {
    /// The rules. Holds nothing of the host.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names and values of the parameters.
    #[must_use]
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The arguments of [`PROGRAM`] that stand before the command (sandbox-exec(1)). A value may have any character:
    /// the first `=` ends the name, and no name has one.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-p".to_owned(), self.text.clone()];
        arguments.extend(self.parameters.iter().map(|(name, value)| format!("-D{name}={value}")));
        arguments.push("--".to_owned());
        arguments
    }
}

/// Makes the profile of a run whose own temporary directory is `temporary`, a real path.
///
/// # Errors
/// [`SeatbeltError`]; there is no profile that leaves something out.
pub fn profile(confinement: &Confinement, temporary: &AbsPath) -> Result<SeatbeltProfile, SeatbeltError> {
    refuse_broad(confinement, temporary)?;
    let mut writer = Writer::default();
    writer.rules(system::BASE);
    let places = effective(confinement);
    for place in &places {
        writer.place(place)?;
    }
    writer.globs(confinement, &places)?;
    writer.temporary(temporary)?;
    writer.passages(&places, temporary)?;
    writer.pins(&places, temporary)?;
    // A program that changes its user leaves what the rules say of it; the system calls are refused on Linux, too.
    writer.rules("(deny file-write-setugid)\n");
    writer.network(confinement)?;
    Ok(SeatbeltProfile { text: writer.text, parameters: writer.parameters })
}

fn refuse_broad(confinement: &Confinement, temporary: &AbsPath) -> Result<(), SeatbeltError> {
    match confinement.places().iter().find(|place| place.path.starts_with(temporary)) {
        Some(place) => {
            let (path, holds) = (temporary.clone(), place.path.clone());
            Err(SeatbeltError::TemporaryTooBroad { path, holds })
        }
        None => Ok(()),
    }
}

/// A place that changes something, and what it leaves.
struct Effective<'a> {
    path: &'a AbsPath,
    access: Access,
    /// What is left around it.
    around: Access,
    has_devices: bool,
}

/// What the places come to on macOS, without those that change nothing; in the same order.
fn effective(confinement: &Confinement) -> Vec<Effective<'_>> {
    let mut kept: Vec<Effective<'_>> = Vec::new();
    let mut stack: Vec<(&AbsPath, Access)> = Vec::new();
    for (index, Place { path, nature, .. }) in confinement.places().iter().enumerate() {
        // Of equal paths only the last one counts.
        if confinement.places().get(index + 1).is_some_and(|next| next.path == *path) {
            continue;
        }
        while stack.last().is_some_and(|(above, _)| !path.starts_with(above)) {
            stack.pop();
        }
        let around = stack.last().map_or(Access::None, |(_, access)| *access);
        let (access, has_devices) = match on_macos(*nature) {
            OnMacos::Same => (nature.access(), false),
            OnMacos::Stricter { left: Left::Nothing, .. } => (Access::None, false),
            OnMacos::Stricter { left: Left::AsAround, .. } => (around, false),
            OnMacos::Stricter { left: Left::NamedDevices, .. } => (Access::None, true),
        };
        stack.push((path, access));
        if access != around || has_devices {
            kept.push(Effective { path, access, around, has_devices });
        }
    }
    kept
}

/// The name of a parameter. Only [`Writer::parameter`] makes one, from a word of this module and a number.
struct Parameter(String);

impl Parameter {
    fn literal(&self) -> String {
        format!("(literal (param \"{}\"))", self.0)
    }

    fn subpath(&self) -> String {
        format!("(subpath (param \"{}\"))", self.0)
    }

    /// The path and everything below it. `subpath` alone is said to let the directory itself be made.
    fn whole(&self) -> String {
        format!("{} {}", self.literal(), self.subpath())
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    parameters: Vec<(String, String)>,
}

impl Writer {
    /// Adds rules of this module, which have nothing of the host.
    fn rules(&mut self, rules: &'static str) {
        self.text.push_str(rules);
    }

    fn rule(&mut self, verdict: &'static str, operations: &'static str, filters: &str) {
        self.text.push_str(&format!("({verdict} {operations} {filters})\n"));
    }

    fn parameter(&mut self, word: &'static str, path: &AbsPath) -> Result<Parameter, SeatbeltError> {
        let Ok(value) = std::str::from_utf8(path.as_bytes()) else {
            return Err(SeatbeltError::NotText { path: path.clone() });
        };
        let name = format!("{word}_{}", self.parameters.len());
        self.parameters.push((name.clone(), value.to_owned()));
        Ok(Parameter(name))
    }

    fn place(&mut self, place: &Effective<'_>) -> Result<(), SeatbeltError> {
        let filters = self.parameter("PLACE", place.path)?.whole();
        match place.access {
            Access::None => {
                self.rule("deny", WRITE, &filters);
                self.rule("deny", READ, &filters);
            }
            Access::Read => {
                self.rule("deny", WRITE, &filters);
                self.rule("allow", READ, &filters);
            }
            Access::Write => {
                self.rule("allow", READ, &filters);
                self.rule("allow", WRITE, &filters);
            }
        }
        if place.has_devices {
            self.rules(system::DEVICES);
        }
        Ok(())
    }

    /// Hides what patterns cover, whenever it comes to be. A directory above a match is not kept in its place: who moves it out of
    /// what the pattern covers can read what was hidden.
    fn globs(&mut self, confinement: &Confinement, places: &[Effective<'_>]) -> Result<(), SeatbeltError> {
        for (glob, _) in confinement.globs() {
            let filter = format!("(regex #\"{}\")", regex_of(glob)?);
            self.rule("deny", WRITE, &filter);
            self.rule("deny", READ, &filter);
        }
        for place in places {
            let is_exception =
                |glob: &PathGlob| glob.deepest(place.path).is_some_and(|depth| depth < place.path.depth());
            if confinement.globs().iter().any(|(glob, _)| is_exception(glob)) {
                self.place(place)?;
            }
        }
        Ok(())
    }

    fn temporary(&mut self, temporary: &AbsPath) -> Result<(), SeatbeltError> {
        let parameter = self.parameter("TEMPORARY", temporary)?;
        self.rule("allow", READ, &parameter.whole());
        self.rule("allow", WRITE, &parameter.whole());
        // Only the run can have put a socket there.
        self.rules("(allow system-socket (socket-domain AF_UNIX))\n");
        let within = parameter.subpath();
        self.rule("allow", "network-bind network-inbound", &format!("(local unix-socket {within})"));
        self.rule("allow", "network-outbound", &format!("(remote unix-socket {within})"));
        Ok(())
    }

    /// Lets programs pass through hidden directories to what is reopened below them, and see nothing else of them.
    fn passages(&mut self, places: &[Effective<'_>], temporary: &AbsPath) -> Result<(), SeatbeltError> {
        let reopened =
            places.iter().filter(|place| place.around == Access::None && place.access != Access::None);
        let mut above: Vec<AbsPath> = reopened
            .map(|place| place.path)
            .chain([temporary])
            .flat_map(ancestors)
            .filter(|path| access_of(places, path) == Access::None)
            .collect();
        above.sort();
        above.dedup();
        for path in above {
            let filter = self.parameter("PASSAGE", &path)?.literal();
            self.rule("allow", "file-read-metadata", &filter);
        }
        Ok(())
    }

    /// Keeps every directory where it is through which something is reached that is less than writable. That includes
    /// the writable directory itself: what decides here is the name, and its parent is no mount that could refuse.
    fn pins(&mut self, places: &[Effective<'_>], temporary: &AbsPath) -> Result<(), SeatbeltError> {
        let less = places.iter().filter(|place| place.access != Access::Write);
        let roots =
            places.iter().filter(|place| place.access == Access::Write).map(|place| place.path.clone());
        let mut pinned: Vec<AbsPath> = less
            .flat_map(|place| ancestors(place.path))
            .filter(|path| access_of(places, path) == Access::Write)
            .chain(roots)
            .chain([temporary.clone()])
            .collect();
        pinned.sort();
        pinned.dedup();
        for path in pinned {
            let filter = self.parameter("PINNED", &path)?.literal();
            self.rule("deny", "file-write-unlink file-write-create", &filter);
        }
        Ok(())
    }

    fn network(&mut self, confinement: &Confinement) -> Result<(), SeatbeltError> {
        match confinement.reach() {
            Reach::All => {
                self.rules(system::WHOLE_NETWORK);
                Ok(())
            }
            Reach::Only(openings) => self.openings(confinement, openings),
        }
    }

    fn openings(&mut self, confinement: &Confinement, openings: &Openings) -> Result<(), SeatbeltError> {
        for socket in &openings.sockets {
            if confinement.place_of(socket).is_none_or(|place| place.nature.access() == Access::None) {
                return Err(SeatbeltError::SocketHidden { path: socket.clone() });
            }
            let filter = format!("(remote unix-socket {})", self.parameter("SOCKET", socket)?.literal());
            self.rule("allow", "network-outbound", &filter);
        }
        if !openings.loopback_ports.is_empty() || openings.local_binding {
            self.rules(system::INTERNET_SOCKETS);
        }
        for port in &openings.loopback_ports {
            self.rule("allow", "network-outbound", &format!("(remote ip \"localhost:{port}\")"));
        }
        if openings.local_binding {
            self.rules(system::OWN_LOOPBACK);
        }
        Ok(())
    }
}

/// The expression that finds what a pattern covers, and everything below.
fn regex_of(glob: &PathGlob) -> Result<String, SeatbeltError> {
    let refused = || SeatbeltError::Pattern { pattern: glob.to_display() };
    let mut text = b"^".to_vec();
    for component in glob.base().components() {
        text.push(b'/');
        for &byte in component {
            if b"\\^$.|?*+()[]{}".contains(&byte) {
                text.push(b'\\');
            }
            text.push(byte);
        }
    }
    if glob.is_match(glob.start()) {
        text.extend_from_slice(b"(/.*)?");
    } else {
        text.push(b'/');
        text.extend_from_slice(&glob.regex_below_base());
    }
    text.push(b'$');
    let text = String::from_utf8(text).map_err(|_| refused())?;
    // It stands between quotation marks in the text of the profile.
    if text.contains('"') || text.chars().any(char::is_control) { Err(refused()) } else { Ok(text) }
}

fn ancestors(path: &AbsPath) -> impl Iterator<Item = AbsPath> {
    std::iter::successors(path.parent(), AbsPath::parent)
}

/// What is left of `path`.
fn access_of(places: &[Effective<'_>], path: &AbsPath) -> Access {
    let covering = places.iter().filter(|place| path.starts_with(place.path));
    covering.max_by_key(|place| place.path.depth()).map_or(Access::None, |place| place.access)
}

#[cfg(test)]
pub(crate) mod evaluator;
#[cfg(test)]
mod tests;
