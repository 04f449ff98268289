//! JSON Schema of the protocol, made from the shapes themselves and kept in docs/protocol.schema.json.
//!
//! `SANDBAR_BLESS=1 cargo test -p sandbar-proto schema` writes the file anew.

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::*;
use crate::{AbsPath, Blob, ByteString, SessionId};

/// A shape whose form on the wire is not that of its members.
macro_rules! written_as {
    ($($type:ty, $name:literal, $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

written_as! {
    WirePath, "Path", {"type": "string", "description": "A `file://` URI; a plain absolute path is taken too."};
    Base64, "Base64", {"type": "string", "contentEncoding": "base64"};
    Blob, "Blob", {"type": "string", "contentEncoding": "base64"};
    SessionId, "SessionId", {"type": "string"};
    AbsPath, "HostPath", {
        "description": "An absolute path of the executor.",
        "anyOf": [{"type": "string"}, {"type": "object", "properties": {"bytes": {"type": "string", "contentEncoding": "base64"}}, "required": ["bytes"]}]
    };
    ByteString, "ByteString", {
        "description": "Text, or bytes that are not UTF-8.",
        "anyOf": [{"type": "string"}, {"type": "object", "properties": {"bytes": {"type": "string", "contentEncoding": "base64"}}, "required": ["bytes"]}]
    };
    Unsupported, "Unsupported", {"description": "No capability of this executor: refused unless empty.", "type": ["object", "array"]};
}

/// Parameters and result of each method; a notification has no result.
struct Methods {
    generator: SchemaGenerator,
    requests: Map<String, Value>,
    notifications: Map<String, Value>,
}

/// A result without members.
#[derive(JsonSchema)]
struct Nothing {}

impl Methods {
    fn request<P: JsonSchema, R: JsonSchema>(&mut self, method: &str) {
        let params = self.generator.subschema_for::<P>();
        let result = self.generator.subschema_for::<R>();
        self.requests.insert(method.to_owned(), json!({"params": params, "result": result}));
    }

    fn notification<P: JsonSchema>(&mut self, method: &str) {
        let params = self.generator.subschema_for::<P>();
        self.notifications.insert(method.to_owned(), json!({"params": params}));
    }
}

fn schema() -> Value {
    let mut methods =
        Methods { generator: SchemaGenerator::default(), requests: Map::new(), notifications: Map::new() };
    let m = &mut methods;
    m.request::<InitializeParams, InitializeResult>(method::INITIALIZE);
    m.request::<Nothing, EnvironmentInfo>(method::ENVIRONMENT_INFO);
    m.request::<Nothing, EnvironmentStatus>(method::ENVIRONMENT_STATUS);
    m.request::<StartParams, StartResult>(method::PROCESS_START);
    m.request::<ReadParams, ReadResult>(method::PROCESS_READ);
    m.request::<WriteParams, WriteResult>(method::PROCESS_WRITE);
    m.request::<SignalParams, Nothing>(method::PROCESS_SIGNAL);
    m.request::<TerminateParams, TerminateResult>(method::PROCESS_TERMINATE);
    m.request::<ListParams, Page>(method::PROCESS_LIST);
    m.request::<ResizeParams, Nothing>(method::PROCESS_RESIZE);
    m.request::<CloseStdinParams, Nothing>(method::PROCESS_CLOSE_STDIN);
    m.request::<CloseOutputParams, Nothing>(method::PROCESS_CLOSE_OUTPUT);
    m.request::<WaitParams, ExitCode>(method::PROCESS_WAIT);
    m.request::<AttachParams, Started>(method::PROCESS_ATTACH);
    m.request::<RecordsParams, RecordsPage>(method::PROCESS_RECORDS);
    m.request::<ReadFileParams, FileContent>(method::FS_READ_FILE);
    m.request::<WriteFileParams, Written>(method::FS_WRITE_FILE);
    m.request::<CreateDirectoryParams, Nothing>(method::FS_CREATE_DIRECTORY);
    m.request::<PathParams, Metadata>(method::FS_GET_METADATA);
    m.request::<PathParams, CanonicalPath>(method::FS_CANONICALIZE);
    m.request::<PathParams, DirectoryEntries>(method::FS_READ_DIRECTORY);
    m.request::<WalkParams, Walked>(method::FS_WALK);
    m.request::<RemoveParams, Nothing>(method::FS_REMOVE);
    m.request::<CopyParams, Nothing>(method::FS_COPY);
    m.request::<OpenParams, FileHandle>(method::FS_OPEN);
    m.request::<ReadBlockParams, BlockChunk>(method::FS_READ_BLOCK);
    m.request::<WriteBlockParams, Nothing>(method::FS_WRITE_BLOCK);
    m.request::<HandleParams, Nothing>(method::FS_CLOSE);
    m.request::<WatchMissingParams, Watching>(method::FS_WATCH_MISSING);
    m.request::<ConfigReadParams, ConfigRead>(method::ENVIRONMENT_CONFIG_READ);
    m.request::<DiscoverParams, Discovered>(method::CAPABILITIES_DISCOVER_V2);
    m.request::<HttpRequestParams, HttpResponse>(method::HTTP_REQUEST);
    m.notification::<HttpBodyDelta>(method::HTTP_BODY_DELTA);
    m.notification::<Nothing>(method::INITIALIZED);
    m.notification::<Credit>(method::PROCESS_CREDIT);
    m.notification::<ProcessOutput>(method::PROCESS_OUTPUT);
    m.notification::<OutputGap>(method::PROCESS_GAP);
    m.notification::<ProcessStopped>(method::PROCESS_STOPPED);
    m.notification::<ProcessExited>(method::PROCESS_EXITED);
    m.notification::<ProcessClosed>(method::PROCESS_CLOSED);
    m.notification::<SessionEvicted>(method::SESSION_EVICTED);
    m.notification::<MissingChanged>(method::FS_MISSING_CHANGED);
    let definitions = methods.generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Exec server",
        "description": "Requests and notifications of `sandbar serve`; docs/protocol.md says what they mean. Made from the source.",
        "requests": methods.requests,
        "notifications": methods.notifications,
        "$defs": definitions,
    })
}

#[test]
fn the_schema_in_docs_is_that_of_the_shapes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.schema.json");
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("SANDBAR_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).find(|(found, made)| found != made);
    assert!(
        found == text,
        "{} is not current at {differs:?}; SANDBAR_BLESS=1 cargo test -p sandbar-proto schema writes it",
        path.display()
    );
}

#[test]
fn every_method_that_both_sides_know_has_a_schema() {
    let schema = schema();
    let source = include_str!("../exec.rs");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1));
    for name in names {
        let is_known = ["requests", "notifications"].iter().any(|kind| schema[kind].get(name).is_some());
        assert!(is_known, "{name}");
    }
}
