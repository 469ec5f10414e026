//! Real traffic through the kernels' stacks: what the machines at the ends serve and ask for.
//!
//! Services and clients are plain programs on plain sockets. They know nothing of the gateway, and
//! what they find out is judged elsewhere (`super::trial`).

pub(super) mod bulk;
pub(crate) mod http;
pub(super) mod ping;
pub(super) mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use netio::netns::Netns;
use tokio::sync::oneshot;

use super::error::LabError;
use super::plan::{DENIED_PORT, Host};

/// How long anything may take that does not carry much: two repetitions of a TCP SYN, and more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A machine with its services running: HTTP on 80, bulk data on 5001, UDP echo on 7, and one that
/// nobody should reach.
#[derive(Debug)]
pub(super) struct Station {
    netns: Netns,
    denied_port_reached: Arc<AtomicU64>,
}

impl Station {
    /// Starts the services inside `netns`. They listen when this returns, and end with the process.
    pub(super) fn start(host: &Host, netns: &Netns) -> Result<Self, LabError> {
        let denied_port_reached = Arc::new(AtomicU64::new(0));
        let reached = Arc::clone(&denied_port_reached);
        let name = host.name;
        let started = netns.run(move || -> io::Result<()> {
            let any = |port| SocketAddr::from(([0_u16; 8], port));
            http::serve(TcpListener::bind(any(http::PORT))?, name)?;
            bulk::serve(TcpListener::bind(any(bulk::PORT))?);
            udp::serve(UdpSocket::bind(any(udp::PORT))?);
            let denied = TcpListener::bind(any(DENIED_PORT))?;
            // Threads inherit the namespace of the thread that starts them.
            thread::spawn(move || {
                for _ in denied.incoming() {
                    reached.fetch_add(1, Ordering::Relaxed);
                }
            });
            Ok(())
        })?;
        started.map_err(LabError::io(format!("start the services of {name}")))?;
        Ok(Self { netns: netns.clone(), denied_port_reached })
    }

    /// How many connections reached the port that the firewall denies.
    pub(super) fn denied_port_reached(&self) -> u64 {
        self.denied_port_reached.load(Ordering::Relaxed)
    }

    /// Does `work` on this machine, without blocking the caller's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LabError> {
        inside(&self.netns, work).await
    }
}

/// Does `work` inside a namespace, without blocking the caller's thread.
pub(crate) async fn inside<T: Send + 'static>(
    netns: &Netns,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LabError> {
    let (done, wait) = oneshot::channel();
    netns.spawn(move || {
        // Nobody waits any more when the lab was interrupted.
        let _ = done.send(work());
    })?;
    wait.await.map_err(|_| LabError::Io {
        what: "finish a client's work".to_owned(),
        source: io::Error::other("its thread panicked"),
    })
}

/// A connection with limits on how long it may stand still.
pub(super) fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
