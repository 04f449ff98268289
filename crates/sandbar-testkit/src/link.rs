//! A link between a client and a server on loopback that a test can break.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Passes connections on to a server, until it is cut. Clones are the same link.
#[derive(Debug, Clone)]
pub struct Link {
    address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    passed_bytes: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

impl Link {
    /// A link to the server at `server`.
    ///
    /// # Panics
    /// There is no loopback.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("the address of a listener");
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let passed_bytes: Arc<AtomicU64> = Arc::default();
        let connections: Arc<AtomicU64> = Arc::default();
        let (all, passed, count) =
            (Arc::clone(&streams), Arc::clone(&passed_bytes), Arc::clone(&connections));
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let both = client.try_clone().and_then(|client| Ok((client, server.try_clone()?)));
                let Ok((client_end, server_end)) = both else { continue };
                let mut kept = all.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend([client.try_clone(), server.try_clone()].into_iter().flatten());
                drop(kept);
                count.fetch_add(1, Ordering::Relaxed);
                for (from, to) in [(client, server_end), (server, client_end)] {
                    let passed = Arc::clone(&passed);
                    thread::spawn(move || pass(from, to, &passed));
                }
            }
        });
        Self { address, streams, passed_bytes, connections, cuts: Arc::default() }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that were passed on, both ways.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }

    /// How many connections there were.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often some were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Breaks every connection, with what is on its way. How many there were; new ones are passed on.
    pub fn cut(&self) -> usize {
        let streams = std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner));
        // The first end that is shut may take the other one along.
        let was_open = |pair: &&[TcpStream]| {
            pair.iter()
                .map(|stream| stream.shutdown(Shutdown::Both).is_ok())
                .fold(false, |all, one| all | one)
        };
        let cut = streams.chunks(2).filter(was_open).count();
        self.cuts.fetch_add(u64::from(cut > 0), Ordering::Relaxed);
        cut
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, passed_bytes: &AtomicU64) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
        passed_bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
    // The other end may have gone first.
    let _ = to.shutdown(Shutdown::Write);
}
