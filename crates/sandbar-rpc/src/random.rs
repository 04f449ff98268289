//! Random bytes of the system.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};

/// Fills a buffer with bytes that nobody can guess.
///
/// # Errors
/// The system has none.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("the system gives no random bytes"))
}
