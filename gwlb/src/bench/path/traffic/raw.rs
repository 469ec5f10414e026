//! UDP packets with a header of one's own choice, for senders of many flows.

use std::io;
use std::net::Ipv4Addr;

use pnet_packet::Packet as _;
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::MutableIpv4Packet;
use pnet_packet::udp::{MutableUdpPacket, UdpPacket, ipv4_checksum};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::super::network::SERVER;
use super::{GLANCE, server};

/// `IPPROTO_RAW`: what is sent begins with an IP header.
const RAW: i32 = 255;
/// Headers of IPv4 and UDP.
const IP: usize = 20;
const UDP: usize = 8;
/// The byte that payloads are made of.
const FILLING: u8 = 0x5a;

/// A socket, in the namespace of the calling thread, that sends packets with headers to the server.
/// It waits a while for room, and then gives up.
pub(super) fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
    socket.connect(&SockAddr::from(server(0)))?;
    socket.set_write_timeout(Some(GLANCE))?;
    Ok(socket)
}

/// A packet to the server. The kernel completes length and checksum of its IP header.
#[derive(Clone, Debug)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// A datagram of so many bytes to a port of the server, from nobody yet, without a checksum.
    pub(super) fn new(port: u16, payload: usize) -> Self {
        let mut packet = Self(vec![FILLING; IP + UDP + payload]);
        packet.0[..IP + UDP].fill(0);
        if let Some(mut ip) = MutableIpv4Packet::new(&mut packet.0) {
            ip.set_version(4);
            ip.set_header_length((IP / 4) as u8);
            ip.set_ttl(64);
            ip.set_next_level_protocol(IpNextHeaderProtocols::Udp);
            ip.set_destination(SERVER.0);
        }
        if let Some(mut udp) = packet.udp() {
            udp.set_destination(port);
            udp.set_length((UDP + payload) as u16);
        }
        packet
    }

    /// Makes it one from this address and port.
    pub(super) fn set_source(&mut self, address: Ipv4Addr, port: u16) {
        self.0[12..16].copy_from_slice(&address.octets());
        self.0[IP..IP + 2].copy_from_slice(&port.to_be_bytes());
    }

    /// Gives it the UDP checksum that belongs to it now.
    pub(super) fn set_checksum(&mut self) {
        let source = [self.0[12], self.0[13], self.0[14], self.0[15]].into();
        if let Some(mut udp) = self.udp() {
            udp.set_checksum(0);
            let checksum = UdpPacket::new(udp.packet())
                .map_or(0, |udp| ipv4_checksum(&udp, &source, &SERVER.0));
            udp.set_checksum(checksum);
        }
    }

    /// Everything from the IP header on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn udp(&mut self) -> Option<MutableUdpPacket<'_>> {
        MutableUdpPacket::new(&mut self.0[IP..])
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn packets_are_what_they_should_be() {
        let mut packet = Packet::new(5002, 64);
        packet.set_source(Ipv4Addr::new(203, 0, 113, 10), 20_001);
        packet.set_checksum();
        // What the kernel does.
        let length = packet.bytes().len() as u16;
        packet.0[2..4].copy_from_slice(&length.to_be_bytes());
        let sliced = SlicedPacket::from_ip(packet.bytes()).unwrap();
        let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.destination), ([203, 0, 113, 10], SERVER.0.octets()));
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port()), (20_001, 5002));
        assert_eq!(udp.payload(), [FILLING; 64]);
        let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
        assert_eq!(udp.checksum(), right);
    }
}
