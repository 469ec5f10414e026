//! Threads, sockets and the clock around the sans-IO [`session`](crate::session).
//!
//! Each worker thread has a UDP socket of its own on the Geneve port, in one `SO_REUSEPORT` group;
//! the gateway's source port says which worker a flow is for. What goes back unchanged is sent
//! from the buffer it was received into. One more thread answers health checks, takes signals and
//! conducts the drain.

mod builder;
mod control;
mod emitter;
mod handle;
mod health;
mod outbox;
mod raw;
mod sender;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use netio::poll::Waker;
use netio::process::privileges;
use netio::udp::{UdpConfig, UdpSocket};

pub use self::builder::Builder;
use self::builder::Settings;
use self::control::Control;
pub(crate) use self::emitter::{Emission, Emissions};
pub use self::emitter::{EmitError, Emitter};
pub use self::handle::{Handle, Running};
use self::handle::{Shared, WorkerShare};
use self::worker::WorkerThread;
use crate::appliance::Appliance;
use crate::stats::Stats;

/// An appliance that is set up and can be started. [`builder`](Runtime::builder) makes one.
pub struct Runtime<A> {
    settings: Settings,
    make: Box<dyn FnMut(&Worker) -> A + Send>,
}

/// The worker that an appliance is made for.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    emitter: Emitter,
}

impl Worker {
    /// A worker that no thread stands behind, and what its emitters are given.
    pub(crate) fn for_test() -> std::io::Result<(Self, Emissions)> {
        let (emitter, emissions) = emitter::channel(Waker::new()?);
        Ok((Self { index: 0, emitter }, emissions))
    }

    /// Which worker, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// A way to send packets of this worker's flows at any time, from any thread.
    pub fn emitter(&self) -> Emitter {
        self.emitter.clone()
    }
}

/// Why an appliance did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The Geneve port could not be opened.
    #[error("cannot listen on UDP {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The health port could not be opened.
    #[error("cannot answer health checks on TCP {address}: {error}")]
    Health {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The system refused a thread, a poller or a signal handler.
    #[error("cannot set up a {what}: {error}")]
    Setup {
        /// What was refused.
        what: &'static str,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// A socket failed again and again.
    #[error("worker {worker} cannot receive any more: {error}")]
    Receive {
        /// Which worker, counted from 0.
        worker: usize,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The appliance panicked.
    #[error("the appliance of worker {worker} panicked")]
    Panicked {
        /// Which worker, counted from 0.
        worker: usize,
    },
}

impl<A: Appliance> Runtime<A> {
    /// Runs until SIGTERM or SIGINT, drains, and returns what was counted. A second signal ends the
    /// drain.
    pub fn run(mut self) -> Result<Stats, RunError> {
        self.settings.signals = true;
        self.start()?.join()
    }

    /// Starts the threads and returns. When it does, datagrams are taken and health checks are
    /// answered; it fails with nothing left behind if that cannot be had, but for privileges that
    /// the calling thread may have given up ([`Builder::give_up_privileges`]).
    pub fn start(mut self) -> Result<Running, RunError> {
        let workers = self.settings.threads();
        let mut sockets = open_sockets(&self.settings, workers)?;
        let listening = sockets.first().map(|of_worker| addresses(of_worker)).unwrap_or_default();
        let health = self.settings.health.map(open_health_port).transpose()?;
        let health_address = health.as_ref().and_then(|listener| listener.local_addr().ok());

        let mut of_workers = Vec::with_capacity(workers);
        let mut ready = Vec::with_capacity(workers);
        for (index, sockets) in sockets.drain(..).enumerate() {
            let waker = Waker::new().map_err(|error| RunError::Setup { what: "waker", error })?;
            let (emitter, queue) = emitter::channel(waker.clone());
            let appliance = (self.make)(&Worker { index, emitter });
            let share = Arc::new(WorkerShare::new(waker));
            of_workers.push(Arc::clone(&share));
            ready.push(WorkerThread::new(index, appliance, &self.settings, sockets, queue, share)?);
        }

        if self.settings.give_up_privileges {
            // All threads of the appliance are started after this, and none of them has any.
            privileges::give_up()
                .map_err(|error| RunError::Setup { what: "process without privileges", error })?;
        }
        let shared = Arc::new(Shared::new(of_workers, listening, health_address));
        let control = Control::new(&mut self.settings, Arc::clone(&shared), health)?;
        let mut running = Running::new(Arc::clone(&shared));
        running.spawn_control(control)?;
        for worker in ready {
            // Should a thread be refused, dropping `running` stops the others.
            running.spawn_worker(worker)?;
        }
        Ok(running)
    }
}

/// One socket per worker and address: `result[worker][address]`.
fn open_sockets(settings: &Settings, workers: usize) -> Result<Vec<Vec<UdpSocket>>, RunError> {
    let mut of_workers: Vec<Vec<UdpSocket>> = (0..workers).map(|_| Vec::new()).collect();
    for &address in &settings.listen {
        let group = open_group(settings, address, workers)
            .map_err(|error| RunError::Listen { address, error })?;
        for (of_worker, socket) in of_workers.iter_mut().zip(group) {
            of_worker.push(socket);
        }
    }
    Ok(of_workers)
}

/// The sockets of one address, which the kernel spreads the datagrams over.
fn open_group(
    settings: &Settings,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<UdpSocket>> {
    let mut config = UdpConfig {
        bind: address,
        reuse_port: false,
        gro: true,
        dont_fragment: false,
        recv_buffer: settings.socket_buffer,
        send_buffer: settings.socket_buffer,
    };
    if workers == 1 {
        return Ok(vec![UdpSocket::bind(&config)?]);
    }
    // With SO_REUSEPORT the kernel would let a second appliance of the same user share the port,
    // and each would see half of the traffic: a socket without it shows that nobody is there.
    config.bind = UdpSocket::bind(&config)?.local_addr();
    config.reuse_port = true;
    let mut group = Vec::with_capacity(workers);
    for _ in 0..workers {
        group.push(UdpSocket::bind(&config)?);
    }
    if let Some(first) = group.first()
        && let Err(error) = first.steer_by_source_port(workers as u32)
    {
        // The kernel's own choice is a hash of the outer addresses and ports, which suits every
        // gateway that sends both directions of a flow from one address and port.
        tracing::warn!(%error, "cannot choose the worker by source port, the kernel chooses");
    }
    Ok(group)
}

fn open_health_port(address: SocketAddr) -> Result<TcpListener, RunError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|error| RunError::Health { address, error })
}

fn addresses(sockets: &[UdpSocket]) -> Vec<SocketAddr> {
    sockets.iter().map(UdpSocket::local_addr).collect()
}

/// As many as there are processors for this process.
fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
