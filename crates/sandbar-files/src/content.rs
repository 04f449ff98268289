//! Contents as JSON results, written once into the memory that is sent.

use sandbar_proto::base64;
use serde_json::value::RawValue;

use crate::{Block, ErrorKind, FileError, FileReader};

/// What is read of a file at a time: little enough that it is still in the processor's cache when it is encoded.
const PIECE_BYTES: usize = 3 * 64 * 1024;

/// The first piece of a file whose size is said to be smaller, as that of files in /proc is.
pub(crate) const LEAST_PIECE_BYTES: usize = 16 * 1024 / 3 * 3;

/// The result of `fs/readFile`.
pub(crate) fn whole(mut reader: FileReader) -> Result<Box<RawValue>, FileError> {
    const FRONT: &[u8] = br#"{"dataBase64":""#;
    const BACK: &[u8] = br#""}"#;
    let expected = usize::try_from(reader.size_bytes()).unwrap_or(0);
    // One byte more than the file has, so that its last piece is seen to be the last.
    let wanted = expected.saturating_add(1).clamp(LEAST_PIECE_BYTES, PIECE_BYTES).next_multiple_of(3);
    let mut piece = vec![0; wanted];
    let mut json = Vec::with_capacity(FRONT.len() + base64::encoded_len(expected) + BACK.len());
    json.extend(FRONT);
    loop {
        let got = reader.read(&mut piece)?;
        base64::append(&piece[..got], &mut json);
        if got < piece.len() {
            break;
        }
        piece.resize(PIECE_BYTES, 0);
    }
    json.extend(BACK);
    raw(json)
}

/// The result of `fs/readBlock`.
pub(crate) fn block(block: &Block) -> Result<Box<RawValue>, FileError> {
    const FRONT: &[u8] = br#"{"chunk":""#;
    let back: &[u8] = if block.is_end { br#"","eof":true}"# } else { br#"","eof":false}"# };
    let len = FRONT.len() + base64::encoded_len(block.bytes.len()) + back.len();
    let mut json = Vec::with_capacity(len);
    json.extend(FRONT);
    base64::append(&block.bytes, &mut json);
    json.extend(back);
    raw(json)
}

fn raw(json: Vec<u8>) -> Result<Box<RawValue>, FileError> {
    let odd = |error: String| FileError::new(ErrorKind::Io, None, error);
    let json = String::from_utf8(json).map_err(|error| odd(error.to_string()))?;
    RawValue::from_string(json).map_err(|error| odd(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Links;
    use sandbar_proto::AbsPath;
    use sandbar_proto::exec::{Base64, BlockChunk, FileContent};

    #[test]
    fn a_whole_file_of_any_size_is_the_result_that_its_shape_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0, 1, 2, 3, LEAST_PIECE_BYTES, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 700_001] {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            std::fs::write(&path, &content).unwrap();
            let at = AbsPath::new(path.as_os_str().as_encoded_bytes().to_vec()).unwrap();
            let json = whole(FileReader::open(&at, Links::Follow).unwrap()).unwrap();
            let shape = FileContent { data_base64: Base64(content) };
            assert!(json.get() == serde_json::to_string(&shape).unwrap(), "{size}");
        }
    }

    #[test]
    fn a_block_is_the_result_that_its_shape_says() {
        for (size, is_end) in [(0, true), (1, false), (40_000, false), (1 << 20, true)] {
            let json = block(&Block { bytes: vec![7; size], is_end }).unwrap();
            let shape = BlockChunk { chunk: Base64(vec![7; size]), eof: is_end };
            assert!(json.get() == serde_json::to_string(&shape).unwrap(), "{size}");
        }
    }
}
