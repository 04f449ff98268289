//! A link between a client and a server that can be cut, as a network does.

use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes on what comes, both ways. Serves as long as the test runs.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cutter: Cutter,
}

/// Cuts what is connected.
#[derive(Clone, Default)]
pub(crate) struct Cutter(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: Vec<TcpStream>,
    connections: usize,
    cuts: usize,
}

impl Proxy {
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), cutter: Cutter::default() };
        let (cutter, server) = (proxy.cutter.clone(), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone is a connection that is dropped.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                cutter.pass(&client, &server);
            }
        });
        proxy
    }

    /// Something that cuts from anywhere.
    pub(crate) fn cutter(&self) -> Cutter {
        self.cutter.clone()
    }

    /// How often something was cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cutter.0.lock().unwrap().cuts
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.cutter.0.lock().unwrap().connections
    }
}

impl Cutter {
    /// Cuts every connection there is now, in both directions at once.
    pub(crate) fn cut(&self) {
        let mut state = self.0.lock().unwrap();
        state.cuts += usize::from(!state.live.is_empty());
        for stream in state.live.drain(..) {
            // One that has ended is cut already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn pass(&self, client: &TcpStream, server: &TcpStream) {
        let mut state = self.0.lock().unwrap();
        state.connections += 1;
        for (from, to) in [(client, server), (server, client)] {
            to.set_nodelay(true).unwrap();
            state.live.push(from.try_clone().unwrap());
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            std::thread::spawn(move || {
                // However it ends, it has ended for both.
                let _ = copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}
