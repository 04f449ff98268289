//! Frames of RFC 6455: headers, masks, and a decoder that takes bytes as they come.
//!
//! Pure: no socket, no clock, no randomness. A message larger than the limit is counted and skipped, not kept, so the
//! connection goes on behind it. Extensions are never agreed on, so their bits are errors. That text is UTF-8 is
//! left to whoever parses it.

use crate::transport::FRONT;

/// Largest header: two bytes, eight of length, four of mask.
const HEADER: usize = 14;

/// Largest payload of a ping, pong or close (5.5).
const CONTROL: u64 = 125;

/// Size from which the memory of a message is kept for the next one: taking a MiB from the system and giving it back costs
/// more than reading it.
const SPARE: usize = 256 * 1024;

/// What is kept at most: a block of a file, as text.
const MAX_SPARE: usize = 2 * 1024 * 1024;

/// Kind of a frame (5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// Appends the header of an unfragmented frame.
#[expect(clippy::cast_possible_truncation, reason = "each length was just compared with its type's bound")]
pub(crate) fn put_header(out: &mut Vec<u8>, opcode: Opcode, length: usize, mask: Option<[u8; 4]>) {
    out.push(0x80 | opcode.bits());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    if length < 126 {
        out.push(masked | length as u8);
    } else if length <= usize::from(u16::MAX) {
        out.push(masked | 126);
        out.extend((length as u16).to_be_bytes());
    } else {
        out.push(masked | 127);
        out.extend((length as u64).to_be_bytes());
    }
    out.extend(mask.into_iter().flatten());
}

/// Masks or unmasks bytes that stand at `offset` in their payload (5.3).
pub(crate) fn apply_mask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A message beyond the limit: its first bytes.
    TooLarge(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// What breaks the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("bits of an extension that nobody agreed on")]
    Reserved,
    #[error("unknown opcode {0}")]
    Opcode(u8),
    #[error("a frame from a client that isn't masked")]
    Unmasked,
    #[error("a frame from a server that is masked")]
    Masked,
    #[error("a control frame in pieces")]
    FragmentedControl,
    #[error("a control frame of more than 125 bytes")]
    LargeControl,
    #[error("a length that isn't written in the shortest form")]
    Length,
    #[error("a piece of a message that never began")]
    Continuation,
    #[error("a message inside another")]
    Interleaved,
}

/// Who writes the frames that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// Takes bytes as they come and gives messages.
#[derive(Debug)]
pub(crate) struct Decoder {
    from: From,
    header: [u8; HEADER],
    header_length: usize,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    message: Option<Message>,
    control: Vec<u8>,
    /// Memory of a large message that was read, for the next large one.
    spare: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    is_final: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    /// Payload read so far.
    read: u64,
    length: u64,
}

#[derive(Debug)]
struct Message {
    is_text: bool,
    payload: Vec<u8>,
    is_too_large: bool,
}

impl Decoder {
    pub(crate) fn new(from: From) -> Self {
        Self {
            from,
            header: [0; HEADER],
            header_length: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` until it is empty or something is complete.
    pub(crate) fn decode(&mut self, input: &mut &[u8], limit: usize) -> Result<Option<Event>, FrameError> {
        loop {
            let Some(mut frame) = self.frame else {
                match self.take_header(input)? {
                    Some(frame) => {
                        self.begin(frame)?;
                        self.frame = Some(frame);
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            let left = usize::try_from(frame.length - frame.read).unwrap_or(usize::MAX);
            let (bytes, rest) = input.split_at(left.min(input.len()));
            *input = rest;
            self.take_payload(&frame, bytes, limit);
            frame.read += bytes.len() as u64;
            if frame.read < frame.length {
                self.frame = Some(frame);
                return Ok(None);
            }
            self.frame = None;
            if let Some(event) = self.complete(&frame) {
                return Ok(Some(event));
            }
        }
    }

    /// Takes back the memory of a message that was read.
    pub(crate) fn recycle(&mut self, payload: Vec<u8>) {
        if (SPARE..=MAX_SPARE).contains(&payload.capacity()) {
            self.spare = payload;
        }
    }

    /// Where the rest of a large payload may be read to directly, and how many bytes that are; what was read is said with
    /// [`Self::filled`]. `None` where it has to come through [`Self::decode`].
    pub(crate) fn rest(&mut self) -> Option<(&mut Vec<u8>, u64)> {
        let frame = self.frame.as_ref().filter(|frame| !frame.opcode.is_control())?;
        let message = self.message.as_mut().filter(|message| !message.is_too_large)?;
        // Before the first byte nobody has compared the length with the limit.
        (frame.read > 0).then_some((&mut message.payload, frame.length - frame.read))
    }

    /// Takes `count` bytes, at least one, that were read behind the payload that [`Self::rest`] gave.
    pub(crate) fn filled(&mut self, count: usize) -> Option<Event> {
        let mut frame = self.frame?;
        let message = self.message.as_mut()?;
        let start = message.payload.len().saturating_sub(count);
        unmask(&mut message.payload[start..], &frame);
        frame.read += count as u64;
        self.frame = (frame.read < frame.length).then_some(frame);
        if self.frame.is_some() { None } else { self.complete(&frame) }
    }

    /// Collects and reads a header.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        while let Some((first, rest)) = input.split_first() {
            *input = rest;
            self.header[self.header_length] = *first;
            self.header_length += 1;
            if let Some(frame) = parse_header(&self.header[..self.header_length])? {
                self.header_length = 0;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Looks whether a frame may stand here.
    fn begin(&mut self, frame: Frame) -> Result<(), FrameError> {
        match (self.from, frame.mask) {
            (From::Client, None) => return Err(FrameError::Unmasked),
            (From::Server, Some(_)) => return Err(FrameError::Masked),
            (From::Client, Some(_)) | (From::Server, None) => {}
        }
        match frame.opcode {
            Opcode::Continuation if self.message.is_none() => return Err(FrameError::Continuation),
            Opcode::Continuation => {}
            Opcode::Text | Opcode::Binary if self.message.is_some() => return Err(FrameError::Interleaved),
            Opcode::Text | Opcode::Binary => {
                let is_text = frame.opcode == Opcode::Text;
                let mut payload = std::mem::take(&mut self.spare);
                payload.clear();
                if frame.length < SPARE as u64 {
                    // Whoever sends small messages now pays for no large one.
                    payload = Vec::new();
                }
                self.message = Some(Message { is_text, payload, is_too_large: false });
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control.clear(),
        }
        Ok(())
    }

    fn take_payload(&mut self, frame: &Frame, bytes: &[u8], limit: usize) {
        if frame.opcode.is_control() {
            return append(&mut self.control, bytes, frame);
        }
        // `begin` saw to it that there is one.
        let Some(message) = &mut self.message else { return };
        let left = frame.length - frame.read;
        let expected = message.payload.len() as u64 + left;
        if !message.is_too_large && expected > limit as u64 {
            message.is_too_large = true;
            message.payload.truncate(FRONT);
            message.payload.shrink_to_fit();
        }
        if frame.read == 0 && !message.is_too_large {
            // Once and exactly, instead of doubling through copies. A peer that announces much and sends little makes us
            // set aside addresses, not memory: nothing is touched before it comes.
            message.payload.reserve_exact(usize::try_from(left).unwrap_or(0));
        }
        let room = if message.is_too_large { FRONT - message.payload.len() } else { bytes.len() };
        append(&mut message.payload, &bytes[..room.min(bytes.len())], frame);
    }

    /// What a whole frame completes.
    fn complete(&mut self, frame: &Frame) -> Option<Event> {
        match frame.opcode {
            Opcode::Close => Some(Event::Close),
            Opcode::Ping => Some(Event::Ping(std::mem::take(&mut self.control))),
            Opcode::Pong => Some(Event::Pong),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if frame.is_final => {
                let Message { is_text, payload, is_too_large } = self.message.take()?;
                Some(match (is_too_large, is_text) {
                    (true, _) => Event::TooLarge(payload),
                    (false, true) => Event::Text(payload),
                    (false, false) => Event::Binary(payload),
                })
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
        }
    }
}

fn append(target: &mut Vec<u8>, bytes: &[u8], frame: &Frame) {
    let start = target.len();
    target.extend_from_slice(bytes);
    unmask(&mut target[start..], frame);
}

/// Unmasks what comes next of a frame's payload.
fn unmask(bytes: &mut [u8], frame: &Frame) {
    if let Some(mask) = frame.mask {
        // Only the offset's last two bits count.
        apply_mask(bytes, mask, (frame.read % 4) as usize);
    }
}

/// Reads a header from its bytes so far; `None` when some are missing.
fn parse_header(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::Opcode(first & 0x0f))?;
    let is_final = first & 0x80 != 0;
    let short = u64::from(second & 0x7f);
    let (length, rest) = match short {
        126 => {
            let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (shortest(u64::from(u16::from_be_bytes(*bytes)), 126)?, rest)
        }
        127 => {
            let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (shortest(u64::from_be_bytes(*bytes), 1 << 16)?, rest)
        }
        short => (short, rest),
    };
    if length > i64::MAX as u64 {
        return Err(FrameError::Length);
    }
    if opcode.is_control() && !is_final {
        return Err(FrameError::FragmentedControl);
    }
    if opcode.is_control() && length > CONTROL {
        return Err(FrameError::LargeControl);
    }
    let mask = if second & 0x80 == 0 {
        None
    } else {
        let Some(mask) = rest.first_chunk() else { return Ok(None) };
        Some(*mask)
    };
    Ok(Some(Frame { is_final, opcode, mask, read: 0, length }))
}

fn shortest(length: u64, least: u64) -> Result<u64, FrameError> {
    if length < least { Err(FrameError::Length) } else { Ok(length) }
}

#[cfg(test)]
mod tests;
