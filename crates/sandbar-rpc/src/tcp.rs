//! How our TCP sockets are set.

use std::io;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes that the kernel may keep for us beyond what it has sent. Its own default is megabytes, which an answer on the
/// control lane could not pass any more; less costs more system calls than it gains.
const UNSENT: u32 = 128 * 1024;

/// Sends small messages at once, and keeps what waits on our side, where the control lane passes it.
///
/// # Errors
/// The socket is none any more.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_sends_at_once_and_keeps_little() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
