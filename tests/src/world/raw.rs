//! Packets past the kernels' own sockets: sent as somebody else, and heard whatever port they go
//! to.
//!
//! IPv4 only, in which the underlay of most tests is; what is spoofed is no different in IPv6. All
//! of it stays in namespaces that a test has made: whoever sends names the one it sends in.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::Site;

/// Packets that go out with one system call.
pub const BATCH: usize = 256;

/// Linux's `IPPROTO_RAW`: the caller writes the IP header.
const HEADER_INCLUDED: i32 = 255;

/// Room for packets that a listener has not looked at yet, in bytes of kernel memory.
const ROOM: usize = 32 << 20;

/// The longest packet that a listener hears the whole of, in bytes: super-packets are heard as such.
const LONGEST: usize = 256 << 10;

/// How often an idle listener looks whether it should end.
const GLANCE: Duration = Duration::from_millis(50);

/// Sends complete IPv4 packets, from any address to any other.
#[derive(Debug)]
pub struct RawSender(Socket);

impl RawSender {
    /// A sender in a namespace; the routes there say where its packets go.
    ///
    /// # Panics
    /// If raw sockets are not allowed.
    pub fn new(site: &Site) -> Self {
        let protocol = Some(Protocol::from(HEADER_INCLUDED));
        let socket = site.run(|| Socket::new(Domain::IPV4, Type::RAW, protocol));
        Self(socket.expect("a raw socket in our own namespace"))
    }

    /// Sends all of `packets`, [`BATCH`] with each call. The kernel fills in the checksums of their
    /// IP headers.
    ///
    /// # Errors
    /// What the kernel says, of a device that is down for example; some may have been sent then.
    pub fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> io::Result<()> {
        for batch in packets.chunks(BATCH) {
            let pieces: Vec<_> =
                batch.iter().map(|packet| [IoSlice::new(packet.as_ref())]).collect();
            let to: Vec<_> = batch.iter().map(|packet| destination(packet.as_ref())).collect();
            let mut sent = 0;
            while sent < batch.len() {
                let mut headers = MultiHeaders::preallocate(batch.len() - sent, None);
                let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::empty());
                match sendmmsg(fd, &mut headers, &pieces[sent..], &to[sent..], [], flags) {
                    Ok(results) => sent += results.count(),
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

fn destination(packet: &[u8]) -> Option<SockaddrIn> {
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(SocketAddr::from((Ipv4Addr::from(octets), 0))).and_then(|address| match address {
        SocketAddr::V4(address) => Some(address.into()),
        SocketAddr::V6(_) => None,
    })
}

/// Hears every packet of a protocol that reaches a namespace's own addresses, whatever its port, and
/// collects what it is told to collect.
#[derive(Debug)]
pub struct Listener<T> {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Listener<T> {
    /// Listens from now on. `hear` gets each IPv4 packet whole; of IPv6, the kernel gives what
    /// comes after the headers.
    ///
    /// # Panics
    /// If raw sockets are not allowed.
    pub fn start(
        site: &Site,
        domain: Domain,
        protocol: Protocol,
        mut collected: T,
        hear: impl Fn(&mut T, &[u8]) + Send + 'static,
    ) -> Self {
        let socket = site.run(|| Socket::new(domain, Type::RAW, Some(protocol)));
        let socket = socket.expect("a raw socket in our own namespace");
        // As much as the system allows, which may be less.
        let _ = socket.set_recv_buffer_size(ROOM);
        // To receive packets is all that is asked of it.
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(GLANCE)).expect("a socket");
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; LONGEST];
            while !end.load(Ordering::Acquire) {
                if let Ok(len) = socket.recv(&mut buffer) {
                    hear(&mut collected, &buffer[..len]);
                }
            }
            // What came before the end was asked for is heard, too.
            socket.set_nonblocking(true).expect("a socket");
            while let Ok(len) = socket.recv(&mut buffer) {
                hear(&mut collected, &buffer[..len]);
            }
            collected
        });
        Self { ending, thread }
    }

    /// Gives what was collected of all that has arrived until now.
    ///
    /// # Panics
    /// If the listener has.
    pub fn take(self) -> T {
        self.ending.store(true, Ordering::Release);
        self.thread.join().expect("a thread that only listens")
    }
}
