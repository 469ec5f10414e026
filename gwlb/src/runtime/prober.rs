//! Makes the probes that the control plane asks for: connects to a target's health port, speaks
//! what its health check says, and tells how that ended.
//!
//! When to probe, and what an outcome means for the target, is the control plane's business.

pub(super) mod http;
mod opener;
mod tls;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netio::netns::Resident;
use nix::errno::Errno;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub(super) use tls::client_config;

use super::clock;
use crate::config::{HealthCheck, HealthProtocol};
use crate::control::ProbeOutcome;
use crate::logging::throttled;
use http::HttpError;

/// How many probes are under way at most. 300 targets (semantics 1a) that all keep silent are
/// three probes each with this; each takes one file descriptor.
const AT_ONCE: usize = 1024;

/// Makes probes in the namespaces of all underlays.
#[derive(Debug)]
pub(super) struct Prober {
    /// One in each namespace, by the position that [`ProbeJob::netns`] names.
    residents: Vec<Resident>,
    under_way: Semaphore,
}

/// One probe to be made.
#[derive(Debug, Clone)]
pub(super) struct ProbeJob {
    /// The underlay's namespace, by its position in the list that [`Prober::new`] was given.
    pub netns: usize,
    /// The node's address, which the probe comes from.
    pub source: IpAddr,
    /// The target's address and health port.
    pub address: SocketAddr,
    /// What to speak.
    pub health: Arc<HealthCheck>,
    /// What [`client_config`] made of `health`: HTTPS needs it, nothing else does.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long the whole probe may take, from the call to the end of the answer's head.
    pub timeout: Duration,
}

impl Prober {
    /// A prober for the underlays where these live.
    pub fn new(residents: Vec<Resident>) -> Self {
        Self { residents, under_way: Semaphore::new(AT_ONCE) }
    }

    /// Makes one probe. When this returns, nothing of it is left: the connection is closed.
    ///
    /// Waiting for its turn, when [`AT_ONCE`] others are under way, is part of its time.
    pub async fn probe(&self, job: ProbeJob) -> Probed {
        let over = tokio::time::sleep(job.timeout);
        tokio::pin!(over);
        // What is there counts, even if the time is over by now: this thread may have been late.
        let (_turn, begun, stream) = tokio::select! {
            biased;
            connecting = self.connecting(&job) => match connecting {
                Ok(connecting) => connecting,
                Err(error) => return at_once(&job, &error).into(),
            },
            // Nothing has been sent yet, so the target cannot be blamed.
            () = &mut over => return local(&job, &"it did not come to its turn").into(),
        };
        let result = tokio::select! {
            biased;
            result = exchange(&job, stream) => result,
            () = &mut over => Err(ProbeError::TimedOut),
        };
        let Err(error) = result else {
            let took = clock::now().saturating_duration_since(begun);
            return Probed { outcome: ProbeOutcome::Passed, took: Some(took) };
        };
        throttled!(DEBUG, address = %job.address, %error, "a probe failed");
        error.outcome().into()
    }

    /// Waits for the probe's turn, and begins to connect; tells when.
    async fn connecting(
        &self,
        job: &ProbeJob,
    ) -> io::Result<(tokio::sync::SemaphorePermit<'_>, Instant, TcpStream)> {
        let turn = self.under_way.acquire().await.map_err(io::Error::other)?;
        let resident = self.residents.get(job.netns).ok_or_else(|| {
            let message = format!("the prober has no namespace number {}", job.netns);
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let begun = clock::now();
        let stream = opener::connect(resident, job.source, job.address).await?;
        Ok((turn, begun, TcpStream::from_std(stream)?))
    }
}

/// How a probe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probed {
    /// What it says of the target.
    pub outcome: ProbeOutcome,
    /// How long it took, if it was passed: from the connection's beginning to the end of the answer's
    /// head, without the wait for its turn.
    pub took: Option<Duration>,
}

impl From<ProbeOutcome> for Probed {
    fn from(outcome: ProbeOutcome) -> Self {
        Self { outcome, took: None }
    }
}

/// Why a probe was not passed.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no answer within the time")]
    TimedOut,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What the health check has no business to ask for.
    #[error("{0}")]
    Local(&'static str),
}

impl ProbeError {
    fn outcome(&self) -> ProbeOutcome {
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                ProbeOutcome::Refused
            }
            // The kernel may give up before our own time is over.
            Self::Connect(error) if error.kind() == io::ErrorKind::TimedOut => {
                ProbeOutcome::TimedOut
            }
            Self::TimedOut => ProbeOutcome::TimedOut,
            Self::Http(HttpError::Status(status)) => ProbeOutcome::Mismatch(status.as_u16()),
            Self::Local(_) | Self::Http(HttpError::Request(_)) => ProbeOutcome::Local,
            Self::Connect(_) | Self::Tls(_) | Self::Http(HttpError::Exchange(_)) => {
                ProbeOutcome::Failed
            }
        }
    }
}

/// What `connect` says before anything came back is about this host: its addresses, its firewall,
/// its limits. Over loopback the target itself may have answered already; and a target to which no
/// way leads cannot be reached, whoever took the way away.
fn at_once(job: &ProbeJob, error: &io::Error) -> ProbeOutcome {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => ProbeOutcome::Refused,
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN) => ProbeOutcome::Failed,
        _ => local(job, error),
    }
}

fn local(job: &ProbeJob, error: &dyn std::fmt::Display) -> ProbeOutcome {
    let ProbeJob { source, address, .. } = job;
    throttled!(DEBUG, %source, %address, %error, "a probe could not be made");
    ProbeOutcome::Local
}

/// Whether the kernel says so of a connection that was made (`tcp_reset`): refused ones have an error
/// of their own.
fn has_been_open(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Goes on with a connection that is being made. Dropping this closes it.
async fn exchange(job: &ProbeJob, stream: TcpStream) -> Result<(), ProbeError> {
    stream.writable().await.map_err(ProbeError::Connect)?;
    match stream.take_error().map_err(ProbeError::Connect)? {
        // It was open before it was reset; what the target said in between is there to be read.
        Some(error) if has_been_open(&error) => {}
        Some(error) => return Err(ProbeError::Connect(error)),
        None => {}
    }
    let ProbeJob { health, address, .. } = job;
    match health.protocol {
        HealthProtocol::Tcp => Ok(()),
        HealthProtocol::Http => Ok(http::exchange(stream, health, *address).await?),
        HealthProtocol::Https => {
            let config = job.tls.clone().ok_or(ProbeError::Local("an HTTPS probe without TLS"))?;
            let name = tls::server_name(health, *address)
                .ok_or(ProbeError::Local("the configured host is no name for TLS"))?;
            let stream = tls::connect(stream, config, name).await.map_err(ProbeError::Tls)?;
            Ok(http::exchange(stream, health, *address).await?)
        }
    }
}
