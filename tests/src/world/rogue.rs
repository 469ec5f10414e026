//! A host on the underlay that means harm: it sends the gateway whatever it likes, from whatever
//! address, and knows what appliances are sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use geneve::outer::{self, OuterHeader, UdpChecksum};
use geneve::{Header, Inner, PORT, PacketBuf};
use socket2::{Domain, Protocol};

use super::canary::MARK;
use super::raw::{Listener, RawSender};
use super::{World, now};
use crate::packets::Ip;

/// Where the flow cookie is in a header of the AWS dialect: the last four of its forty bytes.
const COOKIE: Range<usize> = 36..40;

/// Sends from the namespace of an appliance.
#[derive(Debug)]
pub struct Rogue {
    sender: RawSender,
    gateway: SocketAddr,
}

/// A datagram that the gateway has sent to an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genuine {
    /// The gateway's source port, from which an answer comes back.
    pub port: u16,
    /// The Geneve header with its options.
    pub header: Vec<u8>,
    /// The packet in it.
    pub inner: Vec<u8>,
}

impl Rogue {
    /// A rogue beside the appliance with that number, whose cable it uses. The gateway's kernel is
    /// told to believe every source address, so that all that is spoofed gets as far as it can.
    ///
    /// # Panics
    /// If raw sockets are not allowed.
    pub fn new(world: &World, number: usize) -> Self {
        let cable = super::site::cable(number);
        for device in ["all", &cable] {
            let key = format!("net/ipv4/conf/{device}/rp_filter");
            world.gateway.netns().set_sysctl(&key, "0").expect("a setting of every kernel");
        }
        let sender = RawSender::new(&world.appliances[number]);
        Self { sender, gateway: SocketAddr::new(world.plan.node(0), PORT) }
    }

    /// A packet from anybody to the gateway's Geneve port, with this in its datagram.
    ///
    /// # Panics
    /// If it is too long.
    pub fn packet(&self, from: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        envelope(from, self.gateway, datagram)
    }

    /// Sends packets as fast as the kernel takes them, and says how long that took.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> io::Result<Duration> {
        let begun = now();
        self.sender.send(packets)?;
        Ok(now().saturating_duration_since(begun))
    }
}

/// An IPv4 packet with UDP and this datagram in it.
pub(super) fn envelope(src: SocketAddr, dst: SocketAddr, datagram: &[u8]) -> Vec<u8> {
    let mut packet = PacketBuf::from_slice(datagram);
    let checksum = UdpChecksum::On;
    let header = OuterHeader { src, dst, ttl: 64, tos: 0, dont_fragment: false, id: 0, checksum };
    outer::encapsulate(&header, &mut packet).expect("a datagram that fits");
    packet.bytes().to_vec()
}

impl Genuine {
    /// Reads the payload of a datagram that came from the gateway; of one that was joined out of
    /// several, the first. `None`: it is no Geneve with an IP packet in it.
    pub fn read(port: u16, datagram: &[u8]) -> Option<Self> {
        let (header, payload) = Header::parse(datagram).ok()?;
        let inner = Inner::parse(payload).ok()?;
        let inner = payload.get(..inner.total_len)?.to_vec();
        Some(Self { port, header: header.as_bytes().to_vec(), inner })
    }

    /// The datagram as it was.
    pub fn datagram(&self) -> Vec<u8> {
        [&self.header[..], &self.inner].concat()
    }

    /// The same header around another packet.
    pub fn around(&self, inner: &[u8]) -> Vec<u8> {
        [&self.header[..], inner].concat()
    }

    /// The same with another cookie, in the AWS dialect.
    pub fn with_cookie(&self, change: impl Fn(u32) -> u32) -> Vec<u8> {
        let mut datagram = self.datagram();
        let bytes = &mut datagram[COOKIE];
        let cookie = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.copy_from_slice(&change(cookie).to_be_bytes());
        datagram
    }
}

/// Records what the gateway sends to an appliance while that works as ever, as far as it is a
/// datagram by itself.
pub fn tap(world: &World, number: usize) -> Listener<Vec<Genuine>> {
    let site = &world.appliances[number];
    Listener::start(site, Domain::IPV4, Protocol::UDP, Vec::new(), |recorded, packet| {
        let genuine = outer::parse(packet).ok().and_then(|(outer, payload)| {
            (outer.dst.port() == PORT)
                .then(|| Genuine::read(outer.src.port(), &packet[payload]))
                .flatten()
        });
        recorded.extend(genuine);
    })
}

/// A UDP packet that nobody has sent, and that must not arrive.
pub fn made_up(from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    Ip::new(&from.0.to_string(), &to.0.to_string()).udp((from.1, to.1), MARK)
}

/// Datagrams that are wrong in every way that a header can be, with the reason that each is dropped
/// for if it comes from a target's address. `inner` is the packet in them.
pub fn malformed(inner: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let as_is = |_: &mut Vec<u8>| {};
    let put = |at: usize, value: u8| move |bytes: &mut Vec<u8>| bytes[at] = value;
    vec![
        ("malformed_geneve", Vec::new()),
        ("malformed_geneve", vec![0]),
        ("malformed_geneve", vec![0; 7]),
        ("malformed_geneve", header(put(0, 0x3f), inner)),
        ("malformed_geneve", header(put(11, 0x1f), inner)),
        ("geneve_version", header(put(0, 0x48), inner)),
        ("geneve_version", vec![0xff; 1400]),
        ("geneve_control", header(put(1, 0x80), inner)),
        ("protocol_type", header(put(2, 0x65), inner)),
        ("malformed_packet", header(as_is, &[])),
        ("malformed_packet", header(as_is, &inner[..19])),
        ("malformed_packet", header(as_is, &[0; 1000])),
        ("dialect_options", header(put(10, 0x07), inner)),
        ("unknown_endpoint", header(as_is, inner)),
    ]
}

/// A Geneve header of the AWS dialect by hand: options with any endpoint, attachment and cookie.
fn header(change: impl Fn(&mut Vec<u8>), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0x08, 0x00, 0, 0, 0, 0];
    for (kind, length) in [(1_u8, 2_u8), (2, 2), (3, 1)] {
        bytes.extend([0x01, 0x08, kind, length]);
        bytes.extend(vec![kind; usize::from(length) * 4]);
    }
    change(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}
