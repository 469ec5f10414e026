//! The settings of an appliance's runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use geneve::dialect::Dialect;

use super::{Runtime, Worker, available_threads};
use crate::appliance::Appliance;
use crate::session::SessionConfig;

/// Sets up a [`Runtime`].
#[must_use]
pub struct Builder {
    settings: Settings,
}

/// What [`Builder`] collects.
pub(super) struct Settings {
    pub(super) listen: Vec<SocketAddr>,
    threads: usize,
    pub(super) health: Option<SocketAddr>,
    pub(super) session: SessionConfig,
    pub(super) drain: Duration,
    pub(super) send_sockets: usize,
    pub(super) socket_buffer: usize,
    pub(super) give_up_privileges: bool,
    pub(super) signals: bool,
    pub(super) on_hangup: Option<Box<dyn FnMut() + Send>>,
}

impl Runtime<()> {
    /// Starts with the defaults; [`Builder::build`] names the appliance.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            settings: Settings {
                listen: Vec::new(),
                threads: 0,
                health: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80))),
                session: SessionConfig::default(),
                drain: Duration::from_secs(30),
                send_sockets: 256,
                socket_buffer: 4 << 20,
                give_up_privileges: false,
                signals: false,
                on_hangup: None,
            },
        }
    }
}

impl Builder {
    /// Takes Geneve datagrams at this address, IPv4 or IPv6; may be called several times. Default:
    /// port 6081 of every IPv4 address, as the clouds' gateways use IPv4 alone.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.settings.listen.push(address);
        self
    }

    /// The number of worker threads. Default, and meaning of 0: one per processor.
    ///
    /// A flow stays with one worker if the gateway sends both of its directions from one port, as
    /// the `gwlb` of this workspace does. Behind a gateway that does not, an appliance that needs
    /// to see both directions has to run with one thread.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.threads = threads;
        self
    }

    /// Where health checks are answered, HTTP and plain TCP alike. Default: port 80 of every IPv4
    /// address, the port that the clouds check by default.
    pub fn health(mut self, address: SocketAddr) -> Self {
        self.settings.health = Some(address);
        self
    }

    /// Answers no health checks.
    pub fn without_health(mut self) -> Self {
        self.settings.health = None;
        self
    }

    /// How long a flow is remembered without a packet. Default: 350 s
    /// ([`SessionConfig::flow_idle_timeout`]).
    pub fn flow_idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.session.flow_idle_timeout = timeout;
        self
    }

    /// How many flows each worker remembers at most. Default: 1,048,576
    /// ([`SessionConfig::max_flows`]).
    pub fn max_flows(mut self, flows: usize) -> Self {
        self.settings.session.max_flows = flows;
        self
    }

    /// The option dialects to accept. Default: all.
    pub fn dialects(mut self, dialects: &[&'static Dialect]) -> Self {
        self.settings.session.dialects = dialects.to_vec();
        self
    }

    /// How long to go on forwarding after the end was asked for, so that the gateway notices and
    /// sends new flows elsewhere. Default: 30 s, enough for the clouds' default check (two
    /// failures, 10 s apart, of up to 5 s each).
    ///
    /// For the first third an HTTP check is answered with 503; then the port is closed, because
    /// that is all that a TCP check can see.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// How many sockets each worker keeps for replies: one per source port that gateways use.
    /// Default: 256. When there are more ports, those in use for the last second keep their
    /// sockets, and the others' replies go through a raw socket, which is slower and takes
    /// `CAP_NET_RAW`.
    pub fn send_sockets(mut self, sockets: usize) -> Self {
        self.settings.send_sockets = sockets.max(1);
        self
    }

    /// Bytes of kernel buffer that each socket asks for, for each direction. Default: 4 MiB. The
    /// kernel gives less where it must.
    pub fn socket_buffer(mut self, bytes: usize) -> Self {
        self.settings.socket_buffer = bytes;
        self
    }

    /// Gives up every capability once the ports are open: those of the thread that starts the
    /// appliance, and so of all threads that it starts from then on, the appliance's among them
    /// ([`netio::process::privileges::give_up`]). Threads that it had started before keep theirs.
    /// They stay given up even if the start fails after that. Default: not, because the appliance may need some.
    ///
    /// Sockets for replies are opened later. They then have at most the send buffer that
    /// `net.core.wmem_max` allows, and a gateway that sends from a port below 1024 is answered
    /// through a raw socket, which is opened beforehand where `CAP_NET_RAW` allows it.
    pub fn give_up_privileges(mut self) -> Self {
        self.settings.give_up_privileges = true;
        self
    }

    /// Has SIGTERM and SIGINT begin the drain, as [`Handle::drain`](super::Handle::drain) does.
    /// [`Runtime::run`] implies it; for [`Runtime::start`] the default is to leave signals alone.
    pub fn end_on_signals(mut self) -> Self {
        self.settings.signals = true;
        self
    }

    /// What to do on SIGHUP, for example read rules anew. It is called on the thread that answers
    /// health checks. Default: SIGHUP is left alone, which ends the process.
    pub fn on_hangup(mut self, action: impl FnMut() + Send + 'static) -> Self {
        self.settings.on_hangup = Some(Box::new(action));
        self
    }

    /// Names the appliance: `make` is called once per worker.
    pub fn build<A: Appliance>(
        mut self,
        make: impl FnMut(&Worker) -> A + Send + 'static,
    ) -> Runtime<A> {
        if self.settings.listen.is_empty() {
            self.settings.listen.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, geneve::PORT)));
        }
        Runtime { settings: self.settings, make: Box::new(make) }
    }
}

impl Settings {
    pub(super) fn threads(&self) -> usize {
        match self.threads {
            0 => available_threads(),
            threads => threads,
        }
    }
}
