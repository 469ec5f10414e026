//! Datagrams that come back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::world::{Family, Host, LIMIT, unspecified};

/// Sends every datagram back to where it came from, until it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often an idle server looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);

impl EchoServer {
    /// Starts a server on a free port of a host.
    pub fn start(on: &Host, family: Family) -> Self {
        let address = SocketAddr::new(on.address(family), 0);
        let socket = on.run(|| UdpSocket::bind(address)).expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        socket.set_read_timeout(Some(GLANCE)).expect("a socket");
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !end.load(Ordering::Acquire) {
                // An error is the end of the glance, or an ICMP message about an earlier echo.
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        Self { address, ending, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket of a host that exchanges datagrams with `server`.
pub fn datagrams(from: &Host, server: SocketAddr) -> UdpSocket {
    let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = from
        .run(|| UdpSocket::bind((unspecified(family), 0)))
        .and_then(|socket| socket.connect(server).map(|()| socket))
        .expect("a socket with a route to the server");
    socket.set_read_timeout(Some(LIMIT)).expect("a socket");
    socket
}

/// Sends a datagram and waits for it to come back.
///
/// # Errors
/// What the kernel says, a timeout included.
///
/// # Panics
/// If something else comes back.
pub fn exchange(socket: &UdpSocket, payload: &[u8]) -> io::Result<()> {
    socket.send(payload)?;
    let mut back = vec![0; payload.len() + 1];
    let len = socket.recv(&mut back)?;
    assert!(&back[..len] == payload, "{len} other bytes came back instead of {}", payload.len());
    Ok(())
}
