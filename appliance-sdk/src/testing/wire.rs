//! A gateway with real sockets, for tests of a whole appliance as it runs.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use geneve::dialect::{Dialect, Tags};
use geneve::header::ProtocolType;
use netio::poll::Poller;
use netio::udp::{Datagram, UdpConfig, UdpSocket};
use netio::{Device, Slot};

/// A gateway at an address of this machine (or network namespace): it sends from ports of its
/// choosing, and receives on the port that the appliance listens on.
///
/// It has to have another address than the appliance: `127.0.0.1` and `127.0.0.2` will do.
pub struct WireGateway {
    address: IpAddr,
    appliance: SocketAddr,
    listener: UdpSocket,
    poller: Poller,
    slots: Vec<Slot<Datagram>>,
    /// What was received in excess of what was asked for.
    waiting: VecDeque<Returned>,
    arrivals: usize,
}

/// A port that a [`WireGateway`] sends from.
pub struct GatewayPort {
    socket: UdpSocket,
    appliance: SocketAddr,
}

/// A datagram that came back, with its outer addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The sender.
    pub from: SocketAddr,
    /// The address that it came to.
    pub to: IpAddr,
    /// The outer type of service.
    pub tos: u8,
    /// The datagram: Geneve header and inner packet.
    pub bytes: Vec<u8>,
}

impl WireGateway {
    /// A gateway at `address` with an appliance.
    pub fn new(address: IpAddr, appliance: SocketAddr) -> io::Result<Self> {
        let listener = open(SocketAddr::new(address, appliance.port()))?;
        let poller = Poller::new()?;
        poller.add(&listener, 0)?;
        Ok(Self {
            address,
            appliance,
            listener,
            poller,
            slots: (0..4).map(|_| Slot::with_capacity(65_535)).collect(),
            waiting: VecDeque::new(),
            arrivals: 0,
        })
    }

    /// A port to send from that is free at the gateway's address.
    pub fn port(&self) -> io::Result<GatewayPort> {
        let socket = open(SocketAddr::new(self.address, 0))?;
        Ok(GatewayPort { socket, appliance: self.appliance })
    }

    /// Sends from the port that the gateway itself listens on.
    pub fn send_from_geneve_port(&mut self, datagram: &[u8]) -> io::Result<()> {
        let meta = Datagram { peer: self.appliance, ..Datagram::default() };
        self.listener.send(&meta, &[IoSlice::new(datagram)])
    }

    /// Waits until so many datagrams have come back, or for `patience`; returns at most so many.
    pub fn receive(&mut self, datagrams: usize, patience: Duration) -> io::Result<Vec<Returned>> {
        let deadline = now() + patience;
        let mut ready = Vec::new();
        while self.waiting.len() < datagrams {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            self.poller.wait(&mut ready, Some(left))?;
            let filled = self.listener.recv(&mut self.slots)?;
            self.arrivals += filled;
            for slot in self.slots.iter().take(filled) {
                let Datagram { peer, local, segment_size, tos } = slot.meta;
                let size = if segment_size == 0 { slot.packet.len() } else { segment_size.into() };
                self.waiting.extend(slot.packet.bytes().chunks(size.max(1)).map(|bytes| {
                    Returned {
                        from: peer,
                        to: local.unwrap_or(self.address),
                        tos,
                        bytes: bytes.to_vec(),
                    }
                }));
            }
        }
        let count = self.waiting.len().min(datagrams);
        Ok(self.waiting.drain(..count).collect())
    }

    /// How many times something was received: less than the datagrams if they came in runs.
    pub fn arrivals(&self) -> usize {
        self.arrivals
    }
}

impl GatewayPort {
    /// The port's number.
    pub fn number(&self) -> u16 {
        self.socket.local_addr().port()
    }

    /// Sends a datagram.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.send_with(datagram, 0, 0)
    }

    /// Sends datagrams of equal size in one run; the last may be shorter.
    pub fn send_run(&mut self, datagrams: &[Vec<u8>]) -> io::Result<()> {
        let size = datagrams.first().map_or(0, Vec::len);
        self.send_with(&datagrams.concat(), size as u16, 0)
    }

    /// Sends a datagram, or with a `segment_size` other than 0 a run, with a type of service.
    pub fn send_with(&mut self, bytes: &[u8], segment_size: u16, tos: u8) -> io::Result<()> {
        let meta = Datagram { peer: self.appliance, local: None, segment_size, tos };
        self.socket.send(&meta, &[IoSlice::new(bytes)])
    }
}

/// A Geneve datagram that carries an inner packet in the AWS dialect.
pub fn aws(tags: &Tags, packet: &[u8]) -> Vec<u8> {
    let version_6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let protocol = if version_6 { ProtocolType::IPV6 } else { ProtocolType::IPV4 };
    let mut datagram = vec![0; Dialect::AWS.header_len()];
    let written = Dialect::AWS.write(tags, protocol, &mut datagram);
    debug_assert_eq!(written, Ok(datagram.len()));
    datagram.extend_from_slice(packet);
    datagram
}

fn open(bind: SocketAddr) -> io::Result<UdpSocket> {
    let buffer = 4 << 20;
    UdpSocket::bind(&UdpConfig {
        bind,
        reuse_port: false,
        gro: true,
        dont_fragment: false,
        recv_buffer: buffer,
        send_buffer: buffer,
    })
}

#[expect(clippy::disallowed_methods, reason = "real sockets are waited for in real time")]
fn now() -> Instant {
    Instant::now()
}
