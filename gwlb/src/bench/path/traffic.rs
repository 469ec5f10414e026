//! The traffic generator and its sink: what clients send and servers take, by threads of this
//! program on sockets in the namespaces of the two ends.
//!
//! Each kind runs from its start until it is dropped, and counts. Whoever measures looks at the
//! counts twice. The ends know nothing of what lies between them.

mod bulk;
mod churn;
mod datagrams;
mod echo;
mod flood;
mod raw;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netio::netns::Netns;
use socket2::{Domain, SockAddr, Socket, Type};

use super::network::SERVER;
use crate::lab::error::LabError;

pub(super) use bulk::{Bulk, Hands};
pub(super) use churn::Churn;
pub(super) use datagrams::{Datagrams, Pattern};
pub(super) use echo::Echo;
pub(super) use flood::Flood;

/// How long a thread that waits for packets may not notice that it is over.
const GLANCE: Duration = Duration::from_millis(20);
/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The congestion control of all connections: numbers can be compared only under one, and bbr, which
/// may be the machine's default, paces.
const CONGESTION_CONTROL: &str = "cubic";

/// Where on the server each kind of traffic goes.
const fn server(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(SERVER.0), port)
}

/// A count that one thread makes and others look at.
#[derive(Clone, Debug, Default)]
struct Count(Arc<AtomicU64>);

impl Count {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Threads inside namespaces that work until this is dropped.
#[derive(Debug, Default)]
struct Crew {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Says when it is over.
#[derive(Clone, Debug)]
struct Shift(Arc<AtomicBool>);

impl Shift {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Crew {
    /// Starts a thread inside `netns`, which must look at its shift every [`GLANCE`] or so.
    fn start(
        &mut self,
        netns: &Netns,
        work: impl FnOnce(&Shift) + Send + 'static,
    ) -> Result<(), LabError> {
        let shift = Shift(Arc::clone(&self.over));
        self.threads.push(netns.spawn(move || work(&shift))?);
        Ok(())
    }

    /// Tells all that it is over, without waiting for them.
    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Opens something inside a namespace, where it stays whoever uses it.
fn open<T: Send>(
    netns: &Netns,
    what: &str,
    open: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, LabError> {
    netns.run(open)?.map_err(LabError::io(what))
}

/// A socket for TCP that is not connected yet, in the namespace of the calling thread. What a
/// listener accepts is like the listener.
///
/// The socket is told its congestion control, since a namespace may have only such for a default as
/// the machine allows everybody.
fn tcp_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_congestion(CONGESTION_CONTROL.as_bytes()).map_err(|error| {
        let why = format!("the kernel does not give {CONGESTION_CONTROL}: {error}");
        io::Error::new(error.kind(), why)
    })?;
    Ok(socket)
}

/// A socket for TCP that listens at this port of the server.
fn listen(port: u16) -> io::Result<Socket> {
    let socket = tcp_socket()?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(server(port)))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
