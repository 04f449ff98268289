//! Large messages as Zstandard frames (RFC 8878), where both sides agreed on it.
//!
//! A packed message travels as a binary frame that begins with Zstandard's magic number, which neither JSON text nor a
//! binary frame of ours begins with. What is in it is read as if it had come by itself. Whether to pack is agreed on above;
//! this room knows how, and bounds what comes out.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::transport::Frame;

/// RFC 8878, 3.1.1.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Messages below this are sent as they are: the time is not worth the bytes.
const LEAST_BYTES: usize = 8 * 1024;

/// Fast enough that a link of a gigabit is not waited for.
const LEVEL: i32 = 1;

/// Memory that a peer can make its reader use, as a power of two: that of the largest message.
const WINDOW_LOG: u32 = 24;

/// What a connection does.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    sends: AtomicBool,
    takes: AtomicBool,
}

/// Why a packed message is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// It is not packed, or nothing was agreed on.
    Plain,
    /// What was in it.
    Message(Vec<u8>),
    /// More is in it than is read; its first bytes.
    TooLarge(Vec<u8>),
    /// It is damaged.
    Damaged(String),
}

impl Packing {
    pub(crate) fn send(&self) {
        self.sends.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) {
        self.takes.store(true, Ordering::Relaxed);
    }

    /// The frame to send instead: packed where that was agreed on and makes it smaller.
    pub(crate) fn pack(&self, frame: Frame) -> Frame {
        if !self.sends.load(Ordering::Relaxed) || frame.len() < LEAST_BYTES {
            return frame;
        }
        let frame = match frame {
            Frame::Pieces(pieces) => Frame::Text(pieces.concat()),
            frame @ (Frame::Text(_) | Frame::Binary(_)) => frame,
        };
        let bytes = match &frame {
            Frame::Text(text) => text.as_bytes(),
            Frame::Binary(bytes) => bytes,
            Frame::Pieces(_) => return frame,
        };
        match zstd::bulk::compress(bytes, LEVEL) {
            Ok(packed) if packed.len() < bytes.len() => Frame::Binary(packed),
            // What can't be packed goes as it is.
            Ok(_) | Err(_) => frame,
        }
    }

    /// What is in a binary frame, up to `most` bytes.
    pub(crate) fn unpack(&self, bytes: &[u8], most: usize, front: usize) -> Unpacked {
        if !self.takes.load(Ordering::Relaxed) || !bytes.starts_with(&MAGIC) {
            return Unpacked::Plain;
        }
        match read(bytes, most) {
            Ok(message) if message.len() > most => Unpacked::TooLarge(message[..front.min(most)].to_vec()),
            Ok(message) => Unpacked::Message(message),
            Err(error) => Unpacked::Damaged(error.to_string()),
        }
    }
}

/// At most one byte more than `most`.
fn read(bytes: &[u8], most: usize) -> std::io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    let mut message = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut message)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbar_testkit::{Samples, Took, fuzz};

    fn agreed() -> Packing {
        let packing = Packing::default();
        packing.send();
        packing.take();
        packing
    }

    fn large() -> String {
        format!("{{\"a\":\"{}\"}}", "x".repeat(100_000))
    }

    #[test]
    fn what_is_large_is_packed_and_comes_out_as_it_was() {
        let Frame::Binary(packed) = agreed().pack(Frame::Text(large())) else { panic!("not packed") };
        assert!(packed.len() < 1000 && packed.starts_with(&MAGIC));
        assert_eq!(agreed().unpack(&packed, 1 << 20, 10), Unpacked::Message(large().into_bytes()));
        assert_eq!(Packing::default().unpack(&packed, 1 << 20, 10), Unpacked::Plain, "nothing was agreed on");
    }

    #[test]
    fn what_is_small_or_does_not_shrink_goes_as_it_is() {
        assert_eq!(agreed().pack(Frame::Text("{}".into())), Frame::Text("{}".into()));
        assert_eq!(Packing::default().pack(Frame::Text(large())), Frame::Text(large()));
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .take(20_000)
        .collect();
        assert_eq!(agreed().pack(Frame::Binary(noise.clone())), Frame::Binary(noise));
    }

    #[test]
    fn what_is_too_large_or_damaged_is_said() {
        let bomb = zstd::bulk::compress(&vec![b'{'; 32 << 20], 1).unwrap();
        assert!(bomb.len() < 64 * 1024);
        assert_eq!(agreed().unpack(&bomb, 1 << 20, 4), Unpacked::TooLarge(b"{{{{".to_vec()));
        let packed = zstd::bulk::compress(large().as_bytes(), 1).unwrap();
        for broken in [&packed[..packed.len() - 1], &MAGIC[..], &[0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff]] {
            assert!(matches!(agreed().unpack(broken, 1 << 20, 4), Unpacked::Damaged(_)), "{broken:?}");
        }
    }

    #[test]
    fn fuzz_no_packed_message_becomes_larger_than_what_is_read() {
        let packed = zstd::bulk::compress(large().as_bytes(), 1).unwrap();
        let bomb = zstd::bulk::compress(&vec![0; 1 << 22], 1).unwrap();
        let small = zstd::bulk::compress(b"{\"id\":1}", 1).unwrap();
        let samples = Samples { whole: &[&packed, &bomb, &small], words: &[&MAGIC, &small[4..], &[0xff; 4]] };
        let packing = agreed();
        fuzz("packed message", samples, |input| {
            const MOST: usize = 1 << 16;
            let unpacked = packing.unpack(input, MOST, 64);
            if let Unpacked::Message(message) | Unpacked::TooLarge(message) = &unpacked {
                assert!(message.len() <= MOST);
            }
            Took::if_understood(matches!(unpacked, Unpacked::Message(_)))
        });
    }
}
