use std::collections::VecDeque;
use std::io::{self, Read, Write};

use proptest::prelude::*;
use sandbar_testkit::{Samples, Took, fuzz};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Theirs};

use super::*;

/// Decodes bytes that come in pieces of these sizes, over and over. A piece of even size is read to where it is to be, if
/// the decoder has a place for it.
fn decode_in_pieces(
    from: From,
    bytes: &[u8],
    pieces: &[usize],
    limit: usize,
) -> (Vec<Event>, Option<FrameError>) {
    let mut decoder = Decoder::new(from);
    let mut events = Vec::new();
    let mut sizes = pieces.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        if size % 2 == 0
            && let Some((payload, left)) = decoder.rest()
        {
            let count = size.min(usize::try_from(left).unwrap_or(usize::MAX));
            payload.extend(&rest[..count]);
            rest = &rest[count..];
            events.extend(decoder.filled(count));
            continue;
        }
        let (mut piece, behind) = rest.split_at(size);
        rest = behind;
        loop {
            match decoder.decode(&mut piece, limit) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fn decode(from: From, bytes: &[u8]) -> (Vec<Event>, Option<FrameError>) {
    decode_in_pieces(from, bytes, &[usize::MAX], 1 << 20)
}

fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_header(&mut bytes, Opcode::Text, payload.len(), mask);
    bytes[0] = first;
    let start = bytes.len();
    bytes.extend(payload);
    if let Some(mask) = mask {
        apply_mask(&mut bytes[start..], mask, 0);
    }
    bytes
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 6455, 5.7.
    let hello = || vec![Event::Text(b"Hello".to_vec())];
    let table: &[(From, &[u8], Vec<Event>)] = &[
        (From::Server, b"\x81\x05Hello", hello()),
        (From::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", hello()),
        (From::Server, b"\x01\x03Hel\x80\x02lo", hello()),
        (From::Server, b"\x89\x05Hello", vec![Event::Ping(b"Hello".to_vec())]),
        (From::Client, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![Event::Pong]),
        (
            From::Server,
            b"\x01\x03Hel\x89\x01p\x80\x02lo",
            [vec![Event::Ping(b"p".to_vec())], hello()].concat(),
        ),
        (From::Server, b"\x88\x02\x03\xe8", vec![Event::Close]),
        (From::Server, b"\x81\x00\x82\x00", vec![Event::Text(Vec::new()), Event::Binary(Vec::new())]),
    ];
    for (from, bytes, events) in table {
        assert_eq!(decode(*from, bytes), (events.clone(), None), "{bytes:x?}");
    }
}

#[test]
fn what_breaks_the_framing_is_named() {
    let client = |first, payload: &[u8]| frame(first, Some([1, 2, 3, 4]), payload);
    let table = [
        (From::Client, frame(0x81, None, b"x"), FrameError::Unmasked),
        (From::Server, client(0x81, b"x"), FrameError::Masked),
        (From::Client, client(0xc1, b"x"), FrameError::Reserved),
        (From::Client, client(0xa1, b"x"), FrameError::Reserved),
        (From::Client, client(0x83, b"x"), FrameError::Opcode(3)),
        (From::Client, client(0x8f, b"x"), FrameError::Opcode(15)),
        (From::Client, client(0x09, b"x"), FrameError::FragmentedControl),
        (From::Client, client(0x89, &[0; 126]), FrameError::LargeControl),
        (From::Client, client(0x80, b"x"), FrameError::Continuation),
        (From::Client, [client(0x01, b"x"), client(0x81, b"y")].concat(), FrameError::Interleaved),
        (From::Server, b"\x81\x7e\x00\x7d".to_vec(), FrameError::Length),
        (From::Server, b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff".to_vec(), FrameError::Length),
        (From::Server, b"\x81\x7f\x80\x00\x00\x00\x00\x01\x00\x00".to_vec(), FrameError::Length),
    ];
    for (from, bytes, error) in table {
        assert_eq!(decode(from, &bytes), (Vec::new(), Some(error)), "{bytes:x?}");
    }
}

#[test]
fn a_message_beyond_the_limit_is_skipped_however_it_comes() {
    let begin = |payload: &[u8]| frame(0x01, None, payload);
    let last = |payload: &[u8]| frame(0x80, None, payload);
    let after = frame(0x81, None, b"after");
    let whole = frame(0x81, None, &[b'x'; 5000]);
    let pieces = [begin(&[b'x'; 1500]), frame(0x00, None, &[b'x'; 10]), last(&[b'x'; 3490])].concat();
    let late = [begin(&[b'x'; 2000]), last(b"x")].concat();
    for message in [whole, pieces, late] {
        let bytes = [message, after.clone()].concat();
        let expected = vec![Event::TooLarge(vec![b'x'; FRONT]), Event::Text(b"after".to_vec())];
        for size in [1, 7, 1000, usize::MAX] {
            assert_eq!(decode_in_pieces(From::Server, &bytes, &[size], 2000), (expected.clone(), None));
        }
    }
    let fits = [begin(&[b'x'; 1999]), last(b"x")].concat();
    assert_eq!(
        decode_in_pieces(From::Server, &fits, &[99], 2000),
        (vec![Event::Text(vec![b'x'; 2000])], None)
    );
}

#[test]
fn a_huge_length_takes_no_memory() {
    let mut header = Vec::new();
    put_header(&mut header, Opcode::Binary, usize::try_from(i64::MAX).unwrap(), None);
    let mut decoder = Decoder::new(From::Server);
    assert_eq!(decoder.decode(&mut [&header[..], &[0; 9999]].concat().as_slice(), 1 << 24), Ok(None));
    assert!(decoder.message.is_some_and(|message| message.payload.capacity() <= 2 * FRONT));
}

/// The bytes that a side of the library that Codex uses writes.
#[derive(Default)]
struct Tape {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Read for Tape {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Tape {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.output.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(role: Role, input: Vec<u8>) -> WebSocket<Tape> {
    let tape = Tape { input: input.into(), output: Vec::new() };
    WebSocket::from_raw_socket(tape, role, Some(WebSocketConfig::default()))
}

#[derive(Debug, Clone)]
enum Sent {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
}

fn messages() -> impl Strategy<Value = Vec<Sent>> {
    let bytes = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            (65_530_usize..65_545).prop_map(|length| vec![7; length]),
        ]
    };
    let message = prop_oneof![
        any::<String>().prop_map(Sent::Text),
        bytes().prop_map(Sent::Binary),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
    ];
    proptest::collection::vec(message, 0..6)
}

proptest! {
    #[test]
    fn what_the_library_of_codex_writes_is_read_in_any_pieces(
        messages in messages(),
        pieces in proptest::collection::vec(1_usize..5000, 1..5),
        as_client: bool,
    ) {
        let (role, from) = if as_client { (Role::Client, From::Client) } else { (Role::Server, From::Server) };
        let mut writer = theirs(role, Vec::new());
        let mut expected = Vec::new();
        for message in messages {
            let (message, event) = match message {
                Sent::Text(text) => (Theirs::text(text.clone()), Event::Text(text.into_bytes())),
                Sent::Binary(bytes) => (Theirs::binary(bytes.clone()), Event::Binary(bytes)),
                Sent::Ping(bytes) => (Theirs::Ping(bytes.clone().into()), Event::Ping(bytes)),
            };
            writer.send(message).unwrap();
            expected.push(event);
        }
        let bytes = std::mem::take(&mut writer.get_mut().output);
        prop_assert_eq!(decode_in_pieces(from, &bytes, &pieces, 1 << 20), (expected, None));
    }

    #[test]
    fn what_we_write_is_read_by_the_library_of_codex(messages in messages(), mask: Option<[u8; 4]>) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for message in messages {
            let (opcode, payload, message) = match message {
                Sent::Text(text) => (Opcode::Text, text.clone().into_bytes(), Theirs::text(text)),
                Sent::Binary(sent) => (Opcode::Binary, sent.clone(), Theirs::binary(sent)),
                Sent::Ping(sent) => (Opcode::Ping, sent.clone(), Theirs::Ping(sent.into())),
            };
            put_header(&mut bytes, opcode, payload.len(), mask);
            let start = bytes.len();
            bytes.extend(payload);
            if let Some(mask) = mask {
                apply_mask(&mut bytes[start..], mask, 0);
            }
            expected.push(message);
        }
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let mut reader = theirs(role, bytes);
        let mut read = Vec::new();
        loop {
            match reader.read() {
                Ok(message) => read.push(message),
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_make_it_panic_or_depend_on_their_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in proptest::collection::vec(1_usize..50, 1..5),
    ) {
        for from in [From::Client, From::Server] {
            let whole = decode_in_pieces(from, &bytes, &[usize::MAX], 64);
            prop_assert_eq!(decode_in_pieces(from, &bytes, &pieces, 64), whole);
        }
    }

    #[test]
    fn a_mask_in_pieces_is_the_mask_in_one(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        mask: [u8; 4],
        cut in 0_usize..100,
    ) {
        let expected: Vec<_> = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let cut = cut.min(bytes.len());
        let mut masked = bytes;
        let (front, back) = masked.split_at_mut(cut);
        apply_mask(front, mask, 0);
        apply_mask(back, mask, cut);
        prop_assert_eq!(masked, expected);
    }
}

#[test]
fn fuzz_frames_mean_the_same_in_whatever_pieces_and_stay_within_the_limit() {
    const LIMIT: usize = 64;
    let masked = frame(0x82, Some([1, 2, 3, 4]), &[7; 60]);
    let large = frame(0x81, None, &[b'x'; 300]);
    let fragments = b"\x01\x03Hel\x89\x01p\x80\x02lo\x88\x02\x03\xe8";
    let whole: &[&[u8]] = &[&masked, &large, fragments];
    let words: &[&[u8]] =
        &[b"\x81", b"\x82\x7e", b"\x01\x7f", b"\x80\x00", b"\x89\x00", b"\x88\x00", &[0; 8], &[0xff; 8]];
    fuzz("frames", Samples { whole, words }, |input| {
        let mut understood = false;
        for from in [From::Client, From::Server] {
            let (events, error) = decode_in_pieces(from, input, &[usize::MAX], LIMIT);
            for event in &events {
                match event {
                    Event::Text(payload) | Event::Binary(payload) => assert!(payload.len() <= LIMIT),
                    Event::TooLarge(front) => assert!(front.len() <= FRONT),
                    Event::Ping(payload) => assert!(payload.len() as u64 <= CONTROL),
                    Event::Pong | Event::Close => {}
                }
            }
            understood |= !events.is_empty();
            assert_eq!(decode_in_pieces(from, input, &[1], LIMIT), (events.clone(), error));
            assert_eq!(decode_in_pieces(from, input, &[3, 7], LIMIT), (events, error));
        }
        Took::if_understood(understood)
    });
}
