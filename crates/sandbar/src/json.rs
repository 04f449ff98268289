//! Events of `run --json` and `logs --json`, one JSON object per line. docs/json.md describes them.

use sandbar_proto::{
    AbsPath, ByteString, EndRecord, EnforcedLimit, ExitStatus, Gap, LimitReport, OutOfMemory, OutputTotals,
    ProcessEvent, ResourceUse, RunId, Seq, StartRecord, Stream, Timestamp,
};
use serde::Serialize;

use crate::run::denials::Denial;

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub(crate) enum Line<'a> {
    /// The command runs.
    Started {
        id: RunId,
        command: &'a [ByteString],
        cwd: &'a AbsPath,
        profile: &'a str,
        started: Timestamp,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        limits: &'a [EnforcedLimit],
    },
    /// It wrote.
    Output { seq: Seq, stream: Stream, offset_bytes: u64, time: Timestamp, data: ByteString },
    /// Output is missing.
    Gap(Gap),
    /// It was stopped by a signal.
    Stopped { signal: i32 },
    /// It ended.
    Exited {
        id: RunId,
        #[serde(flatten)]
        status: ExitStatus,
        exit_code: Option<u8>,
        ended: Timestamp,
        usage: ResourceUse,
        output: OutputTotals,
        timed_out: bool,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        limits: &'a [LimitReport],
        #[serde(skip_serializing_if = "Option::is_none")]
        out_of_memory: Option<OutOfMemory>,
        #[serde(skip_serializing_if = "Option::is_none")]
        unprotected: Option<&'a AbsPath>,
    },
    /// What it probably was refused, once it has failed.
    Denied(&'a Denial),
    /// Nothing comes any more.
    Closed { seq: Seq },
}

impl<'a> Line<'a> {
    /// The line for a start.
    pub(crate) fn started(record: &'a StartRecord) -> Self {
        Self::Started {
            id: record.id,
            command: &record.argv,
            cwd: &record.cwd,
            profile: &record.profile,
            started: record.started,
            limits: &record.limits,
        }
    }

    /// The line for an event.
    pub(crate) fn event(event: &'a ProcessEvent) -> Self {
        match event {
            ProcessEvent::Output { seq, stream, offset_bytes, time, bytes } => Self::Output {
                seq: *seq,
                stream: *stream,
                offset_bytes: *offset_bytes,
                time: *time,
                data: ByteString::from(bytes.as_slice()),
            },
            ProcessEvent::Gap(gap) => Self::Gap(*gap),
            ProcessEvent::Stopped { signal } => Self::Stopped { signal: *signal },
            ProcessEvent::Exited(end) => Self::exited(end),
            ProcessEvent::Closed { seq } => Self::Closed { seq: *seq },
        }
    }

    fn exited(end: &'a EndRecord) -> Self {
        Self::Exited {
            id: end.id,
            status: end.status,
            exit_code: end.status.shell_code(),
            ended: end.ended,
            usage: end.usage,
            output: end.output,
            timed_out: end.timed_out,
            limits: &end.limits,
            out_of_memory: end.out_of_memory,
            unprotected: end.unprotected.as_ref(),
        }
    }

    /// The line as bytes, its end included.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_is_no_text_is_kept_as_bytes() {
        let event = ProcessEvent::Output {
            seq: Seq(1),
            stream: Stream::Stderr,
            offset_bytes: 0,
            time: Timestamp(5),
            bytes: vec![0xff],
        };
        let line = String::from_utf8(Line::event(&event).bytes()).unwrap();
        let expected = r#"{"type":"output","seq":1,"stream":"stderr","offset_bytes":0,"time":5,"data":{"bytes":"/w=="}}"#;
        assert_eq!(line.trim_end(), expected);
    }
}
