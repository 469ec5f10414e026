//! Replies through a raw socket, for ports that another program has.
//!
//! One datagram a call, without segmentation offload: ten times slower than a socket of one's own
//! port, and allowed to privileged processes only (`CAP_NET_RAW`).

use std::io;

use geneve::buffer::PacketBuf;
use geneve::outer::{self, OuterHeader, UdpChecksum};
use socket2::{Domain, Protocol, Socket, Type};

use crate::route::Route;

/// Hosts start with this (IANA, "IP option numbers: default TTL").
const HOP_LIMIT: u8 = 64;

/// Linux's `IPPROTO_RAW`: the caller writes the IP header, of either version.
const HEADER_INCLUDED: i32 = 255;

/// A raw socket per IP version, opened when the first is needed or before.
#[derive(Default)]
pub(super) struct RawSender {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl RawSender {
    /// Opens both sockets now.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.socket(Domain::IPV4)?;
        self.socket(Domain::IPV6).map(drop)
    }

    /// Sends one datagram.
    pub(super) fn send(&mut self, route: &Route, datagram: &[u8]) -> io::Result<()> {
        let mut packet = PacketBuf::from_slice(datagram);
        let header = OuterHeader {
            src: route.source,
            dst: route.destination,
            ttl: HOP_LIMIT,
            tos: route.tos,
            dont_fragment: false,
            id: 0, // The kernel fills in a 0.
            checksum: UdpChecksum::On,
        };
        outer::encapsulate(&header, &mut packet)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let domain = Domain::for_address(route.destination);
        let mut destination = route.destination;
        // Of a raw socket's address the port means a protocol on IPv6, and nothing on IPv4.
        destination.set_port(0);
        self.socket(domain)?.send_to(packet.bytes(), &destination.into())?;
        Ok(())
    }

    fn socket(&mut self, domain: Domain) -> io::Result<&Socket> {
        let place = if domain == Domain::IPV4 { &mut self.v4 } else { &mut self.v6 };
        if let Some(socket) = place {
            return Ok(socket);
        }
        let kind = Type::RAW.nonblocking();
        Ok(place.insert(Socket::new(domain, kind, Some(Protocol::from(HEADER_INCLUDED)))?))
    }
}
