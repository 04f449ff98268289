//! Messages between the keeper and its clients.
//!
//! One message is one packet of a SOCK_SEQPACKET socket: a JSON header that describes itself, so that a newer
//! side can add fields, and an uninterpreted body behind it, so that stdin bytes are never encoded. Descriptors
//! travel beside it. What is larger than a packet travels in a sealed memfd. An incompatible change gets a new
//! [`MAJOR`], and with it another socket name, so that two keepers live side by side.

mod refusal;

use sandbar_proto::{
    AbsPath, Blob, EndRecord, InputId, LimitFacts, OutputTotals, Owner, RunId, Seq, SessionId, StartRecord,
    Stream, TakeoverReason, TerminalSize,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use refusal::{PeerRefusal, Refusal, StartFailure, StartStep, UpgradeRefusal};

/// Version that peers must share; part of the keeper's directory name.
pub const MAJOR: u32 = 1;
/// Version that says which messages a peer understands; grows with every addition.
pub const MINOR: u32 = 4;
/// First [`MINOR`] with sessions, owners, and processes that can be watched after their end.
pub const SESSIONS_MINOR: u32 = 2;
/// First [`MINOR`] of keepers that can replace themselves.
pub const UPGRADE_MINOR: u32 = 3;
/// Largest packet, header and body together. The default socket buffer (net.core.wmem_default, 208 KiB) holds
/// one of them with its bookkeeping.
pub const MAX_PACKET_BYTES: usize = 128 * 1024;
/// Most stdin bytes in one [`Request::Write`].
pub const MAX_WRITE_BYTES: usize = 64 * 1024;
/// Most descriptors in one packet: the plan and three streams.
pub const MAX_FDS: usize = 4;
/// Most entries in one [`Reply::Listed`].
pub const LIST_PAGE: usize = 64;
/// Most sessions that a keeper holds at a time: their blobs are its memory.
pub const MAX_SESSIONS: usize = 1024;
/// Most process ids in one [`SessionState`].
pub const MAX_SESSION_IDS: usize = 256;

/// From a client to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// First message of a connection.
    Hello {
        /// The client's [`MINOR`].
        minor: u32,
        /// The client's release, for messages to people.
        version: String,
    },
    /// Starts a process. Descriptors: the plan in a sealed memfd, then the direct streams in order. Starting the
    /// same id again answers as the first start did and starts nothing.
    Start {
        /// The run.
        id: RunId,
        /// What the client wants to hear of it.
        watch: Watch,
        /// The rollout that this client records it in. If it goes before [`Request::Recorded`], somebody else goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollout: Option<AbsPath>,
        /// Who it belongs to. A session that it names must live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
    /// Asks to hear of a running process from now on.
    Watch {
        /// The run.
        id: RunId,
        /// What to hear.
        watch: Watch,
        /// Whether this client records it from now on.
        #[serde(default)]
        record: bool,
        /// Whether one that has ended and is on record is answered like one that runs: its state has its end and is
        /// closed, and nothing more is told of it. Otherwise it is unknown.
        #[serde(default)]
        ended: bool,
    },
    /// Makes a session, or renews its lease and replaces its blob. A session whose lease was not renewed in time has
    /// ended, and stays so.
    Session {
        /// The session.
        session: SessionId,
        /// What the client wants to know of it later, at most [`Blob::MAX_BYTES`].
        blob: Blob,
        /// Milliseconds from now on until it ends by itself. Time in which the machine sleeps does not count.
        ttl_ms: u64,
    },
    /// Ends a session, and with it its processes whose lifetime that is.
    EndSession {
        /// The session.
        session: SessionId,
    },
    /// Lists sessions that live, by name.
    Sessions {
        /// Last name of the page before.
        after: Option<SessionId>,
    },
    /// Lists the processes of a session, oldest first: those that run and those on record, also when the session itself
    /// has ended.
    SessionProcesses {
        /// The session.
        session: SessionId,
        /// Last id of the page before.
        after: Option<RunId>,
    },
    /// Says that this client records a run no more, and that somebody else is to go on.
    Release {
        /// The run.
        id: RunId,
    },
    /// Says that the record of a run needs nobody any more. Not answered if it has no number.
    Recorded {
        /// The run.
        id: RunId,
        /// Whether the record is complete; if not, it can't be completed now.
        complete: bool,
    },
    /// Says that this client is the attendant: it hears [`Event::Unattended`].
    Attend,
    /// Says how far a [`Watch::Lossless`] reader has come. Not answered.
    Ack {
        /// The run.
        id: RunId,
        /// Bytes of all streams together that it has read.
        offset_bytes: u64,
        /// Where what it, or whoever goes on in its place, may have to read again begins; behind what it has read
        /// where it does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        needed_from: Option<u64>,
    },
    /// Appends the body to a piped stdin.
    Write {
        /// The run.
        id: RunId,
        /// Where in the whole of stdin the body starts; what was accepted before is not written twice.
        offset_bytes: u64,
    },
    /// Appends the body to a piped stdin or a terminal's input, behind whatever anybody else wrote: it is what a person
    /// types, and several may type. The answer says how many bytes of the body were accepted.
    Input {
        /// The run.
        id: RunId,
        /// What makes it known when it is repeated, which it can't be without. Since minor 4; a keeper before appends it
        /// again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        once: Option<Once>,
    },
    /// Closes a piped stdin behind everything accepted so far. A terminal has no end: it is given its end-of-file key
    /// instead, if it reads by lines.
    CloseStdin {
        /// The run.
        id: RunId,
    },
    /// Gives a terminal another size. The last one that anybody asked for holds.
    Resize {
        /// The run.
        id: RunId,
        /// The size.
        size: TerminalSize,
    },
    /// Says that nobody wants a stream any more: its writer gets SIGPIPE, or SIGHUP from a terminal.
    CloseOutput {
        /// The run.
        id: RunId,
        /// Which.
        stream: Stream,
    },
    /// Sends a signal to the leader's process group.
    Signal {
        /// The run.
        id: RunId,
        /// Number of the signal.
        signal: i32,
    },
    /// Sends a signal to the whole tree, and SIGKILL to what is left of it once its leader has ended, or after a while.
    Terminate {
        /// The run.
        id: RunId,
        /// Number of the first signal.
        signal: i32,
        /// Milliseconds until SIGKILL.
        grace_ms: u64,
    },
    /// Asks what the keeper can enforce limits with, and has it prepared. Since minor 2.
    Limits,
    /// Lists live processes, oldest first.
    List {
        /// Last id of the page before.
        after: Option<RunId>,
    },
    /// Ends the keeper if it holds nothing.
    Stop,
    /// Has the keeper replace itself by another program, whose descriptor comes along, and go on with everything that it
    /// holds. It must be this user's or root's, and nobody else's to write; of the same [`MAJOR`], and not older. The new
    /// program answers. A keeper that can't be replaced goes on as it is and says why.
    Upgrade,
}

/// Where the body of a [`Request::Input`] belongs in an input that has a name. What was accepted under that name before
/// counts as accepted, and is not appended again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The name, unique among the inputs of one process.
    pub name: InputId,
    /// Where in that input the body begins.
    pub offset_bytes: u64,
}

impl Once {
    /// How many bytes of `body` are among the first `accepted_bytes` of the whole input.
    pub(crate) fn accepted_before(&self, accepted_bytes: u64, body: &[u8]) -> u64 {
        accepted_bytes.saturating_sub(self.offset_bytes).min(body.len() as u64)
    }
}

/// What a client hears of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// Its end only.
    End,
    /// Its end and the growth of its log.
    Output,
    /// The same, and the process waits when the client falls behind: nothing is dropped that it has not read.
    Lossless,
}

/// The keeper's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "done")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// The keeper's [`MINOR`].
        minor: u32,
        /// The keeper's release.
        version: String,
        /// The keeper's process id.
        pid: u32,
    },
    /// To [`Request::Start`] and [`Request::Watch`].
    Process {
        /// Its state now.
        state: Box<ProcessState>,
    },
    /// To [`Request::Write`]: how many bytes of stdin are accepted in total. To [`Request::Input`]: how many of its
    /// own. Fewer than were sent means that the queue is full; [`Event::StdinReady`] says when to go on.
    Written {
        /// Accepted bytes.
        accepted_bytes: u64,
    },
    /// To [`Request::List`] and [`Request::SessionProcesses`].
    Listed {
        /// The processes.
        processes: Vec<ProcessState>,
        /// Whether more follow.
        more: bool,
    },
    /// To [`Request::Sessions`].
    Sessions {
        /// Live sessions.
        sessions: Vec<SessionState>,
        /// Whether more follow.
        more: bool,
    },
    /// To [`Request::Upgrade`], from the new program.
    Upgraded {
        /// Its [`MINOR`].
        minor: u32,
        /// Its release.
        version: String,
    },
    /// To [`Request::Limits`].
    Limits {
        /// What there is.
        facts: LimitFacts,
    },
    /// To everything else.
    Done,
    /// The request was refused.
    Refused {
        /// Why.
        error: Refusal,
    },
}

/// A process that the keeper holds, or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// How it was started.
    pub start: StartRecord,
    /// What it wrote so far.
    pub output: OutputTotals,
    /// How it ended, if it did.
    pub end: Option<EndRecord>,
    /// Whether every stream is at its end.
    pub closed: bool,
    /// The size of its terminal now, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// How many clients follow its output, those that record it left out.
    #[serde(default)]
    pub viewers: usize,
    /// Resource limits of the plan that the keeper could not give, by the number of the resource, and what it gave
    /// instead: its own hard limits were lower.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<(u32, u64)>,
    /// Whether its leader is stopped and was not continued by anybody who asked the keeper.
    #[serde(default)]
    pub stopped: bool,
}

/// A session that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Its name.
    pub session: SessionId,
    /// What was left with it last.
    pub blob: Blob,
    /// Milliseconds until it ends unless it is renewed.
    pub remaining_ms: u64,
    /// Its processes, oldest first: those that run and those on record. At most [`MAX_SESSION_IDS`];
    /// [`Request::SessionProcesses`] has them all.
    pub processes: Vec<RunId>,
    /// Whether it has more of them.
    #[serde(default)]
    pub more_processes: bool,
}

/// What the keeper says without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The log of a process has grown; several growths may be told at once.
    Output {
        /// The run.
        id: RunId,
        /// Totals now.
        output: OutputTotals,
    },
    /// Stdin has room again.
    StdinReady {
        /// The run.
        id: RunId,
    },
    /// The runtime directory is full: the process waits until there is room for its output.
    Stalled {
        /// The run.
        id: RunId,
    },
    /// Nobody records this run. Told to the attendant.
    Unattended {
        /// The run.
        id: RunId,
        /// Why.
        reason: TakeoverReason,
    },
    /// The leader was stopped. Told to who wrote to its input last, or to all where that client is gone.
    Stopped {
        /// The run.
        id: RunId,
        /// Number of the signal.
        signal: i32,
    },
    /// The leader ended.
    Exited {
        /// The run.
        id: RunId,
        /// Its record.
        end: EndRecord,
    },
    /// Every stream is at its end; the last event of a process.
    Closed {
        /// The run.
        id: RunId,
        /// Its sequence number, the highest of the process.
        seq: Seq,
        /// Final totals.
        output: OutputTotals,
    },
}

/// The JSON part of a packet from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHeader {
    /// Number that the reply repeats; 0 for requests that get none.
    pub req: u64,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
}

/// The JSON part of a packet from the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// An answer.
    Reply {
        /// The request's number.
        req: u64,
        /// The answer.
        reply: Reply,
    },
    /// News.
    Event(Event),
}

/// Why a packet is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its own header.
    #[error("packet of {bytes} bytes is cut off")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// Longer than [`MAX_PACKET_BYTES`].
    #[error("message of {bytes} bytes exceeds the packet limit of {MAX_PACKET_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The header is not the expected JSON.
    #[error("packet header: {0}")]
    Header(#[from] serde_json::Error),
}

/// Puts header and body into one packet: the header's length as four little-endian bytes, header, body.
///
/// # Errors
/// [`PacketError::TooLong`].
pub fn encode(header: &impl Serialize, body: &[u8]) -> Result<Vec<u8>, PacketError> {
    let mut packet = vec![0; 4];
    serde_json::to_writer(&mut packet, header)?;
    let header_bytes = packet.len() - 4;
    packet.extend_from_slice(body);
    let too_long = PacketError::TooLong { bytes: packet.len() };
    match u32::try_from(header_bytes) {
        Ok(length) if packet.len() <= MAX_PACKET_BYTES => {
            packet[..4].copy_from_slice(&length.to_le_bytes());
            Ok(packet)
        }
        Ok(_) | Err(_) => Err(too_long),
    }
}

/// Takes a packet apart.
///
/// # Errors
/// [`PacketError::Truncated`] or [`PacketError::Header`].
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<(T, &[u8]), PacketError> {
    let truncated = || PacketError::Truncated { bytes: packet.len() };
    let (length, rest) = packet.split_first_chunk::<4>().ok_or_else(truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| truncated())?;
    let (header, body) = rest.split_at_checked(length).ok_or_else(truncated)?;
    Ok((serde_json::from_slice(header)?, body))
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    #[test]
    fn a_packet_carries_header_and_body_apart() {
        let header = RequestHeader {
            req: 7,
            request: Request::Write { id: RunId::from_uuid_bytes([7; 16]), offset_bytes: 3 },
        };
        let packet = encode(&header, b"\xff\0body").unwrap();
        let (decoded, body) = decode::<RequestHeader>(&packet).unwrap();
        assert_eq!((decoded, body), (header, &b"\xff\0body"[..]));
    }

    #[test]
    fn unknown_fields_of_a_newer_peer_are_ignored() {
        let text = r#"{"req":1,"do":"stop","politely":true}"#;
        let mut packet = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        packet.extend_from_slice(text.as_bytes());
        assert_eq!(decode::<RequestHeader>(&packet).unwrap().0.request, Request::Stop);
    }

    #[test]
    fn input_of_an_older_client_has_no_name() {
        let id = RunId::from_uuid_bytes([7; 16]);
        let text = format!(r#"{{"req":1,"do":"input","id":"{id}"}}"#);
        let (header, _) = decode::<RequestHeader>(&packet(&text, "")).unwrap();
        assert_eq!(header.request, Request::Input { id, once: None });
        assert_eq!(encode(&header, b"").unwrap(), packet(&text, ""), "and an older keeper is told none");
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_sent() {
        let error = encode(&Request::Stop, &vec![0; MAX_PACKET_BYTES]).unwrap_err();
        assert!(matches!(error, PacketError::TooLong { .. }), "{error}");
    }

    /// A packet as a peer would send it.
    fn packet(header: &str, body: &str) -> Vec<u8> {
        let length = u32::try_from(header.len()).unwrap().to_le_bytes();
        [&length, header.as_bytes(), body.as_bytes()].concat()
    }

    /// Whether `input` is a `T`; then it is the same one after a journey.
    fn survives<T: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(input: &[u8]) -> bool {
        let Ok((header, body)) = decode::<T>(input) else { return false };
        match encode(&header, body) {
            Ok(again) => assert_eq!(decode::<T>(&again).unwrap(), (header, body)),
            // Numbers and escapes may be written shorter than we write them.
            Err(error) => assert!(matches!(error, PacketError::TooLong { .. }) && input.len() > 8 * 1024),
        }
        true
    }

    #[test]
    fn fuzz_a_message_that_is_understood_survives_being_sent() {
        const ID: &str = "0190b6e0-0000-7000-8000-000000000001";
        let requests = [
            r#"{"req":1,"do":"hello","minor":1,"version":"0.1.0"}"#,
            &format!(r#"{{"req":2,"do":"start","id":"{ID}","watch":"lossless","rollout":"/r"}}"#),
            &format!(r#"{{"req":3,"do":"write","id":"{ID}","offset_bytes":7}}"#),
            &format!(r#"{{"req":3,"do":"input","id":"{ID}","once":{{"name":"{ID}","offset_bytes":7}}}}"#),
            &format!(r#"{{"req":0,"do":"ack","id":"{ID}","offset_bytes":7,"needed_from":6}}"#),
            &format!(
                r#"{{"req":4,"do":"resize","id":"{ID}","size":{{"rows":1,"columns":2,"x_pixels":0,"y_pixels":0}}}}"#
            ),
            &format!(r#"{{"req":5,"do":"terminate","id":"{ID}","signal":15,"grace_ms":2000}}"#),
            r#"{"req":6,"do":"list","after":null}"#,
            r#"{"req":7,"do":"upgrade"}"#,
        ];
        let usage = r#"{"user_us":1,"system_us":2,"max_rss_kib":3}"#;
        let totals = r#"{"bytes":1,"dropped_bytes":0,"last_seq":1}"#;
        let answers = [
            r#"{"reply":{"req":1,"reply":{"done":"hello","minor":1,"version":"0.1.0","pid":7}}}"#,
            r#"{"reply":{"req":2,"reply":{"done":"refused","error":{"refused":"start","failure":{"step":"record","errno":2,"path":"/a"}}}}}"#,
            r#"{"reply":{"req":2,"reply":{"done":"refused","error":{"refused":"peer","reason":"confined"}}}}"#,
            r#"{"reply":{"req":7,"reply":{"done":"refused","error":{"refused":"upgrade","reason":{"because":"older","minor":1,"version":"0.1.0"}}}}}"#,
            r#"{"reply":{"req":7,"reply":{"done":"upgraded","minor":3,"version":"0.1.0"}}}"#,
            &format!(r#"{{"event":{{"event":"output","id":"{ID}","output":{totals}}}}}"#),
            &format!(
                r#"{{"event":{{"event":"exited","id":"{ID}","end":{{"id":"{ID}","status":{{"how":"exited","code":3}},"ended":2,"usage":{usage},"output":{totals}}}}}}}"#
            ),
            &format!(
                r#"{{"reply":{{"req":6,"reply":{{"done":"listed","more":false,"processes":[{{"start":{{"id":"{ID}","argv":["a",{{"bytes":"/w=="}}],"cwd":"/","started":1,"profile":"p","lifetime":"detached"}},"output":{totals},"end":null,"closed":false}}]}}}}}}"#
            ),
        ];
        let whole: Vec<Vec<u8>> =
            requests.iter().chain(&answers).map(|header| packet(header, "body")).collect();
        let whole: Vec<&[u8]> = whole.iter().map(Vec::as_slice).collect();
        let samples = Samples {
            whole: &whole,
            words: &[
                b"{",
                b"}",
                b"[",
                b"]",
                b"\"",
                b":",
                b",",
                b"null",
                b"true",
                b"\"req\":",
                b"\"do\":",
                b"\"stop\"",
                b"\"done\":",
                b"\"event\":",
                b"\\u0000",
                b"{\"bytes\":\"",
                b"-1",
                b"1e9",
                b"\x10\0\0\0",
                ID.as_bytes(),
            ],
        };
        fuzz("keeper messages", samples, |input| {
            let understood = [survives::<RequestHeader>(input), survives::<Message>(input)];
            // A changed length hides a header that is right; so it is looked at with the length it has.
            if let (Some(text), false) = (input.get(4..), understood.contains(&true)) {
                let end = text.windows(4).rposition(|part| part == b"body").unwrap_or(text.len());
                let length = u32::try_from(end).unwrap_or(0).to_le_bytes();
                let repaired = [&length, text].concat();
                return Took::if_understood(
                    survives::<RequestHeader>(&repaired) | survives::<Message>(&repaired),
                );
            }
            Took::if_understood(understood.contains(&true))
        });
    }
}
