//! What an appliance author tests with: a gateway that needs no network.
//!
//! [`FakeGateway`] runs the code that the [`Runtime`](crate::Runtime) runs, without sockets,
//! threads or a clock. [`tcp`], [`udp`] and [`icmp_echo`] make packets to send through it. For an
//! appliance as it runs, as a process with sockets, there is [`wire::WireGateway`].
//!
//! ```
//! use appliance_sdk::testing::{self, FakeGateway};
//! use appliance_sdk::{Action, Appliance, Packet};
//!
//! struct NoDns;
//!
//! impl Appliance for NoDns {
//!     type Flow = ();
//!
//!     fn packet(&mut self, packet: &mut Packet<'_>, _flow: &mut ()) -> Action {
//!         if packet.initiator().dst_port() == 53 { Action::Drop } else { Action::Forward }
//!     }
//! }
//!
//! let mut gateway = FakeGateway::new(NoDns);
//! let ntp = testing::udp("10.0.1.11:4000", "198.51.100.1:123", b"what time is it?");
//! let dns = testing::udp("10.0.1.11:4000", "198.51.100.1:53", b"who is it?");
//! assert_eq!(gateway.send(&ntp), [ntp.clone()]);
//! assert!(gateway.send(&dns).is_empty());
//! ```

#![expect(clippy::panic, reason = "a test fails by panicking, and this module is for tests")]

pub mod wire;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};
use geneve::dialect::{Dialect, Tags};
use geneve::header::Header;
use geneve::inner::{Inner, IpVersion};

use crate::appliance::Appliance;
use crate::route::Arrival;
use crate::runtime::{Emission, Emissions, Worker};
use crate::session::{Content, Replies, Session, SessionConfig};
use crate::stats::Stats;

/// A gateway and an appliance in one thread, in virtual time.
///
/// Like a real gateway it insists on getting back the header that it sent, from where it sent it
/// to: a reply that breaks the contract panics with what is wrong.
pub struct FakeGateway<A: Appliance> {
    session: Session<A>,
    dialect: &'static Dialect,
    tags: Tags,
    arrival: Arrival,
    now: Instant,
    replies: Replies,
    emissions: Option<Emissions>,
}

impl<A: Appliance> FakeGateway<A> {
    /// A gateway that speaks the AWS dialect to `appliance`, for an endpoint with an id.
    pub fn new(appliance: A) -> Self {
        Self::with_config(appliance, &SessionConfig::default())
    }

    /// As [`new`](Self::new), with other settings for the appliance.
    pub fn with_config(appliance: A, config: &SessionConfig) -> Self {
        Self {
            session: Session::new(appliance, config),
            dialect: &Dialect::AWS,
            tags: Tags { endpoint: 0x0123_4567_89ab_cdef, attachment: 0, cookie: 0xc00c_1e00 },
            arrival: Arrival {
                gateway: SocketAddr::from(([192, 0, 2, 1], 51_000)),
                local: SocketAddr::from(([192, 0, 2, 11], geneve::PORT)),
                tos: 0,
            },
            now: start_of_virtual_time(),
            replies: Replies::new(),
            emissions: None,
        }
    }

    /// As [`new`](Self::new), for an appliance that wants to know its worker: `make` is what
    /// [`Builder::build`](crate::Builder::build) takes.
    ///
    /// # Panics
    /// If the system has no file descriptor left.
    pub fn with_worker(make: impl FnOnce(&Worker) -> A) -> Self {
        match Worker::for_test() {
            Ok((worker, emissions)) => {
                let mut gateway = Self::new(make(&worker));
                gateway.emissions = Some(emissions);
                gateway
            }
            Err(error) => panic!("cannot make a worker: {error}"),
        }
    }

    /// Sends on behalf of another endpoint, or with another cookie, from now on.
    pub fn set_tags(&mut self, tags: Tags) {
        self.tags = tags;
    }

    /// Speaks another dialect from now on.
    pub fn set_dialect(&mut self, dialect: &'static Dialect) {
        self.dialect = dialect;
    }

    /// Sends from and to other addresses from now on.
    pub fn set_arrival(&mut self, arrival: Arrival) {
        self.arrival = arrival;
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
    }

    /// Sends one inner packet to the appliance and returns the inner packets that come back.
    ///
    /// # Panics
    /// If what comes back breaks the contract between gateway and appliance.
    pub fn send(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.send_run(&[packet])
    }

    /// Sends inner packets as the run of equal-sized datagrams that receive offload makes of them.
    /// The last may be shorter, the others are of equal size.
    ///
    /// # Panics
    /// If the sizes are not such, or what comes back breaks the contract between gateway and
    /// appliance.
    pub fn send_run(&mut self, packets: &[&[u8]]) -> Vec<Vec<u8>> {
        let segments: Vec<Vec<u8>> = packets.iter().map(|p| self.encapsulate(p)).collect();
        let size = segments.first().map_or(0, Vec::len);
        let even = segments.iter().rev().skip(1).all(|s| s.len() == size);
        let last = segments.last().map_or(0, Vec::len);
        assert!(even && last <= size, "a run has packets of equal size, the last may be shorter");
        self.send_datagrams(&segments.concat(), if segments.len() > 1 { size } else { 0 })
    }

    /// Sends raw bytes, as a network would that means no good: one datagram, or with a
    /// `segment_size` other than 0 a run.
    ///
    /// # Panics
    /// If what comes back breaks the contract between gateway and appliance.
    pub fn send_datagrams(&mut self, buffer: &[u8], segment_size: usize) -> Vec<Vec<u8>> {
        self.replies.clear();
        self.session.handle(&self.arrival, buffer, segment_size, self.now, &mut self.replies);
        self.collect(buffer)
    }

    /// Emits a packet of the gateway's endpoint, as an [`Emitter`](crate::Emitter) of the appliance
    /// would, and returns what comes back.
    ///
    /// # Panics
    /// If what comes back breaks the contract between gateway and appliance.
    pub fn emit(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.replies.clear();
        self.session.emit(self.tags.endpoint, packet, self.now, &mut self.replies);
        self.collect(&[])
    }

    /// Sends what the appliance's own [`Emitter`](crate::Emitter)s were given meanwhile, and returns
    /// what comes back. They have an effect in a gateway made [with a worker](Self::with_worker).
    ///
    /// # Panics
    /// If what comes back breaks the contract between gateway and appliance.
    pub fn emitted(&mut self) -> Vec<Vec<u8>> {
        self.replies.clear();
        let waiting = self.emissions.iter().flat_map(|queue| std::iter::from_fn(|| queue.pop()));
        for Emission { endpoint, packet } in waiting {
            self.session.emit(endpoint, &packet, self.now, &mut self.replies);
        }
        self.collect(&[])
    }

    /// The datagram in which [`send`](Self::send) would carry `packet`.
    ///
    /// # Panics
    /// If the packet's version nibble is neither 4 nor 6; use
    /// [`send_datagrams`](Self::send_datagrams) for that.
    pub fn encapsulate(&self, packet: &[u8]) -> Vec<u8> {
        let version = match packet.first().map(|byte| byte >> 4) {
            Some(4) => IpVersion::V4,
            Some(6) => IpVersion::V6,
            other => panic!("not an IP packet: version nibble {other:?}"),
        };
        let mut datagram = vec![0; self.dialect.header_len()];
        let written = self.dialect.write(&self.tags, version.into(), &mut datagram);
        assert_eq!(written, Ok(datagram.len()), "the dialect's header has the dialect's length");
        datagram.extend_from_slice(packet);
        datagram
    }

    /// What the appliance wants to have sent for the last packets, as the runtime gets it.
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        self.session.stats()
    }

    /// The appliance.
    pub fn appliance(&self) -> &A {
        self.session.appliance()
    }

    /// The appliance, to change it.
    pub fn appliance_mut(&mut self) -> &mut A {
        self.session.appliance_mut()
    }

    fn collect(&self, buffer: &[u8]) -> Vec<Vec<u8>> {
        let stats = self.session.stats();
        assert_eq!(stats.unaccounted(), 0, "a packet got lost or was counted twice: {stats:?}");
        let mut packets = Vec::new();
        for reply in &self.replies {
            assert_eq!(reply.route, self.arrival.back(), "the reply goes elsewhere");
            let (bytes, size) = match &reply.content {
                Content::Unchanged { range, segment_size } => {
                    (&buffer[range.clone()], *segment_size)
                }
                Content::Written(bytes) => (&bytes[..], bytes.len()),
            };
            let before = packets.len();
            packets.extend(bytes.chunks(size).map(|datagram| self.decapsulate(datagram)));
            let count = (packets.len() - before) as u64;
            assert_eq!(count, reply.count.packets, "the reply is counted wrongly");
        }
        packets
    }

    fn decapsulate(&self, datagram: &[u8]) -> Vec<u8> {
        match Header::parse(datagram) {
            Ok((header, packet)) => {
                let tags = self.dialect.read(&header);
                assert_eq!(tags, Ok(self.tags), "the reply's options are not those that were sent");
                let inner = Inner::parse(packet);
                assert!(inner.is_ok(), "the reply holds no valid IP packet: {inner:?}");
                packet.to_vec()
            }
            Err(error) => panic!("the reply has no valid Geneve header: {error}"),
        }
    }
}

/// Where in a TCP stream a segment stands, for [`tcp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgment number; `None` leaves the ACK flag clear.
    pub acknowledge: Option<u32>,
    /// The SYN flag.
    pub syn: bool,
    /// The FIN flag.
    pub fin: bool,
    /// The RST flag.
    pub rst: bool,
}

impl Segment {
    /// A SYN, which opens a connection.
    pub fn syn(sequence: u32) -> Self {
        Self { sequence, syn: true, ..Self::default() }
    }

    /// A SYN+ACK, which answers one.
    pub fn syn_ack(sequence: u32, acknowledge: u32) -> Self {
        Self { sequence, acknowledge: Some(acknowledge), syn: true, ..Self::default() }
    }

    /// A segment of an open connection.
    pub fn data(sequence: u32, acknowledge: u32) -> Self {
        Self { sequence, acknowledge: Some(acknowledge), ..Self::default() }
    }
}

/// A TCP packet with valid checksums; addresses as in `10.0.0.1:80` or `[2001:db8::1]:80`.
///
/// # Panics
/// If an address is none, or one is IPv4 and the other IPv6.
pub fn tcp(from: &str, to: &str, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let (from, to) = addresses(from, to);
    let mut header = TcpHeader::new(from.port(), to.port(), segment.sequence, 65_535);
    header.ack = segment.acknowledge.is_some();
    header.acknowledgment_number = segment.acknowledge.unwrap_or(0);
    (header.syn, header.fin, header.rst) = (segment.syn, segment.fin, segment.rst);
    header.psh = !payload.is_empty();
    let builder = ip(from.ip(), to.ip()).tcp_header(header);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    written(builder.write(&mut packet, payload));
    packet
}

/// A UDP packet with valid checksums; addresses as in `10.0.0.1:53` or `[2001:db8::1]:53`.
///
/// # Panics
/// If an address is none, or one is IPv4 and the other IPv6.
pub fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = addresses(from, to);
    let builder = ip(from.ip(), to.ip()).udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    written(builder.write(&mut packet, payload));
    packet
}

/// A ping; addresses as in `10.0.0.1` or `2001:db8::1`.
///
/// # Panics
/// If an address is none, or one is IPv4 and the other IPv6.
pub fn icmp_echo(from: &str, to: &str, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (address::<IpAddr>(from), address::<IpAddr>(to));
    let builder = ip(from, to);
    let mut packet = Vec::new();
    written(match from {
        IpAddr::V4(_) => builder.icmpv4_echo_request(id, sequence).write(&mut packet, payload),
        IpAddr::V6(_) => builder.icmpv6_echo_request(id, sequence).write(&mut packet, payload),
    });
    packet
}

/// A packet of any other protocol, with these bytes behind its IP header; addresses as in
/// `10.0.0.1` or `2001:db8::1`.
///
/// # Panics
/// If an address is none, or one is IPv4 and the other IPv6.
pub fn other(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let builder = ip(address(from), address(to));
    let mut packet = Vec::new();
    written(builder.write(&mut packet, IpNumber(protocol), payload));
    packet
}

const HOP_LIMIT: u8 = 64;

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ipv4(from.octets(), to.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ipv6(from.octets(), to.octets(), HOP_LIMIT)
        }
        _ => panic!("{from} and {to} are of different IP versions"),
    }
}

fn addresses(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
    (address(from), address(to))
}

fn address<T: std::str::FromStr<Err = std::net::AddrParseError>>(text: &str) -> T {
    match text.parse() {
        Ok(address) => address,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[track_caller]
fn written<E: std::fmt::Debug>(result: Result<(), E>) {
    if let Err(error) = result {
        panic!("the packet cannot be built: {error:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary point from which virtual time runs")]
fn start_of_virtual_time() -> Instant {
    Instant::now()
}
