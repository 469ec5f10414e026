//! A gateway with real sockets, and an appliance that does what a closure says.

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use appliance_sdk::geneve::dialect::{Dialect, Tags};
use appliance_sdk::geneve::header::ProtocolType;
use appliance_sdk::{Action, Appliance, Builder, Packet, Running, Runtime};
use netio::poll::Poller;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use netio::{Device, Slot};

/// How long anything in a test may take before it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Does what a closure says.
pub(crate) struct Closure<F>(pub(crate) F);

impl<F: FnMut(&mut Packet<'_>) -> Action + Send + 'static> Appliance for Closure<F> {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        (self.0)(packet)
    }
}

/// Starts an appliance that forwards everything, on a free port of `address`.
pub(crate) fn forward_all(builder: Builder, address: &str) -> (Running, SocketAddr) {
    start(builder, address, |_| Action::Forward)
}

/// Starts an appliance on a free port of `address`, with health checks there too.
pub(crate) fn start<F>(builder: Builder, address: &str, decide: F) -> (Running, SocketAddr)
where
    F: FnMut(&mut Packet<'_>) -> Action + Clone + Send + 'static,
{
    let any_port = SocketAddr::new(address.parse().unwrap(), 0);
    let runtime: Runtime<_> =
        builder.listen(any_port).health(any_port).build(move |_| Closure(decide.clone()));
    let running = runtime.start().unwrap();
    let listening = running.handle().listening()[0];
    (running, listening)
}

/// Stops an appliance and checks that it lost nothing without saying so.
pub(crate) fn stop(running: Running) -> appliance_sdk::Stats {
    running.handle().stop();
    let stats = running.join().unwrap();
    assert_eq!(stats.unaccounted(), 0, "{stats:?}");
    stats
}

/// A datagram that came back, with its outer addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) from: SocketAddr,
    pub(crate) to: IpAddr,
    pub(crate) tos: u8,
    pub(crate) bytes: Vec<u8>,
}

/// A gateway: sends from ports of its choosing, receives on the port that the appliance listens on.
pub(crate) struct WireGateway {
    address: IpAddr,
    appliance: SocketAddr,
    listener: UdpSocket,
    poller: Poller,
    slots: Vec<Slot<Datagram>>,
    /// What was received in excess of what was asked for.
    waiting: std::collections::VecDeque<Returned>,
    /// How many receive slots were filled: less than the datagrams if they came in runs.
    pub(crate) arrivals: usize,
}

impl WireGateway {
    pub(crate) fn new(address: &str, appliance: SocketAddr) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let listener = open(SocketAddr::new(address, appliance.port()));
        let poller = Poller::new().unwrap();
        poller.add(&listener, 0).unwrap();
        Self {
            address,
            appliance,
            listener,
            poller,
            slots: (0..4).map(|_| Slot::with_capacity(65_535)).collect(),
            waiting: std::collections::VecDeque::new(),
            arrivals: 0,
        }
    }

    /// A socket to send from, on a port that is free here.
    pub(crate) fn port(&self) -> GatewayPort {
        GatewayPort { socket: open(SocketAddr::new(self.address, 0)), appliance: self.appliance }
    }

    /// Sends from the port that the gateway itself listens on.
    pub(crate) fn send_from_geneve_port(&mut self, datagram: &[u8]) {
        let meta = Datagram { peer: self.appliance, ..Datagram::default() };
        self.listener.send(&meta, &[IoSlice::new(datagram)]).unwrap();
    }

    /// Waits until so many datagrams have come back.
    pub(crate) fn receive(&mut self, datagrams: usize) -> Vec<Returned> {
        let deadline = Instant::now() + PATIENCE;
        let mut ready = Vec::new();
        while self.waiting.len() < datagrams {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {datagrams} came back", self.waiting.len());
            self.poller.wait(&mut ready, Some(left)).unwrap();
            let filled = self.listener.recv(&mut self.slots).unwrap();
            self.arrivals += filled;
            for slot in &self.slots[..filled] {
                let meta = slot.meta;
                let size = match usize::from(meta.segment_size) {
                    0 => slot.packet.len(),
                    size => size,
                };
                self.waiting.extend(slot.packet.bytes().chunks(size).map(|bytes| Returned {
                    from: meta.peer,
                    to: meta.local.unwrap(),
                    tos: meta.tos,
                    bytes: bytes.to_vec(),
                }));
            }
        }
        self.waiting.drain(..datagrams).collect()
    }
}

/// A port that the gateway sends from.
pub(crate) struct GatewayPort {
    socket: UdpSocket,
    appliance: SocketAddr,
}

impl GatewayPort {
    pub(crate) fn number(&self) -> u16 {
        self.socket.local_addr().port()
    }

    pub(crate) fn send(&mut self, datagram: &[u8]) {
        self.send_with(datagram, 0, 0);
    }

    /// Sends datagrams of equal size in one go.
    pub(crate) fn send_run(&mut self, datagrams: &[Vec<u8>]) {
        let size = datagrams[0].len() as u16;
        self.send_with(&datagrams.concat(), size, 0);
    }

    pub(crate) fn send_with(&mut self, bytes: &[u8], segment_size: u16, tos: u8) {
        let meta = Datagram { peer: self.appliance, local: None, segment_size, tos };
        self.socket.send(&meta, &[IoSlice::new(bytes)]).unwrap();
    }
}

fn open(bind: SocketAddr) -> UdpSocket {
    let config = UdpConfig {
        bind,
        reuse_port: false,
        gro: true,
        recv_buffer: 4 << 20,
        send_buffer: 4 << 20,
    };
    UdpSocket::bind(&config).unwrap()
}

/// A Geneve datagram in the AWS dialect.
pub(crate) fn aws(cookie: u32, packet: &[u8]) -> Vec<u8> {
    let tags = Tags { endpoint: 1, attachment: 2, cookie };
    let protocol = if packet[0] >> 4 == 6 { ProtocolType::IPV6 } else { ProtocolType::IPV4 };
    let mut datagram = vec![0; Dialect::AWS.header_len()];
    Dialect::AWS.write(&tags, protocol, &mut datagram).unwrap();
    datagram.extend_from_slice(packet);
    datagram
}

/// The status line that an HTTP check gets; `None` if the port is closed.
pub(crate) fn http_status(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: appliance\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}
