//! A packet made from what somebody says of it.

use std::net::{IpAddr, SocketAddr};

use geneve::checksum::{self, Sum};
use geneve::flow::{FlowKey, MixedVersions};
use geneve::inner::{Fragment, Inner, IpVersion, TcpFlags, Transport, protocol};
use netio::offload::{Offload, PartialChecksum, Segmentation};
use thiserror::Error;

/// What is said of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Source address, and port where the protocol has ports.
    pub source: SocketAddr,
    /// The same of the destination.
    pub destination: SocketAddr,
    /// The IP protocol's number.
    pub protocol: u8,
    /// The flags of a TCP segment.
    pub flags: TcpFlags,
    /// The length of the whole packet in bytes; `None`: as short as can be.
    pub length: Option<u16>,
    /// IPv4: whether no router may cut it.
    pub dont_fragment: bool,
}

/// Why there is no such packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotMade {
    /// The addresses are of two families.
    #[error("{0}")]
    Mixed(#[from] MixedVersions),
    /// It has to have room for its headers.
    #[error("such a packet has at least {0} bytes")]
    Short(usize),
}

const TTL: u8 = 64;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ECHO_HEADER: usize = 8;

impl Made {
    /// The packet: payload is zeros, ICMP is an echo request, sequence numbers are 1.
    ///
    /// # Errors
    /// [`NotMade`]
    pub fn bytes(&self) -> Result<Vec<u8>, NotMade> {
        FlowKey::new(self.source, self.destination, self.protocol)?;
        let (from, to) = (self.source.ip(), self.destination.ip());
        let ip_len = IpVersion::of(from).header_len();
        let upper_len = match self.protocol {
            protocol::TCP => TCP_HEADER,
            protocol::UDP => UDP_HEADER,
            protocol::ICMP | protocol::ICMPV6 => ECHO_HEADER,
            _ => 0,
        };
        let shortest = ip_len + upper_len;
        let length = self.length.map_or(shortest, usize::from);
        if length < shortest {
            return Err(NotMade::Short(shortest));
        }
        let mut upper = vec![0; length - ip_len];
        let pseudo = || Sum::pseudo_header(from, to, self.protocol, (length - ip_len) as u32);
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()];
        match self.protocol {
            protocol::TCP => {
                upper[..4].copy_from_slice(&ports.concat());
                upper[7] = 1;
                upper[11] = u8::from(self.flags.contains(TcpFlags::ACK));
                upper[12] = (TCP_HEADER as u8 / 4) << 4;
                upper[13] = self.flags.0;
                upper[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
                let mut sum = pseudo();
                sum.add(&upper);
                upper[16..18].copy_from_slice(&sum.finish().to_be_bytes());
            }
            protocol::UDP => {
                upper[..4].copy_from_slice(&ports.concat());
                upper[4..6].copy_from_slice(&((length - ip_len) as u16).to_be_bytes());
                let mut sum = pseudo();
                sum.add(&upper);
                upper[6..8].copy_from_slice(&sum.finish_udp().to_be_bytes());
            }
            protocol::ICMP => {
                upper[0] = 8;
                let sum = checksum::of(&upper);
                upper[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            protocol::ICMPV6 => {
                upper[0] = 128;
                let mut sum = pseudo();
                sum.add(&upper);
                upper[2..4].copy_from_slice(&sum.finish().to_be_bytes());
            }
            _ => {}
        }
        Ok([self.ip_header(length as u16), upper].concat())
    }

    fn ip_header(&self, length: u16) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, 0];
                header.extend(length.to_be_bytes());
                header.extend([0, 1, if self.dont_fragment { 0x40 } else { 0 }, 0]);
                header.extend([TTL, self.protocol, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = checksum::of(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (from, to) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V6(ip) => ip.octets(),
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                };
                let mut header = vec![0x60, 0, 0, 0];
                let payload = usize::from(length) - IpVersion::V6.header_len();
                header.extend((payload as u16).to_be_bytes());
                header.extend([self.protocol, TTL]);
                header.extend(octets(from));
                header.extend(octets(to));
                header
            }
        }
    }
}

/// TCP flags as people list them: `syn`, `syn,ack`.
///
/// # Errors
/// The first word that is no flag.
pub fn flags(text: &str) -> Result<TcpFlags, &str> {
    let words = text.split([',', '+', ' ']).filter(|word| !word.is_empty());
    words.map(flag).try_fold(TcpFlags::default(), |all, flag| Ok(all | flag?))
}

fn flag(word: &str) -> Result<TcpFlags, &str> {
    let names = [
        ("fin", TcpFlags::FIN),
        ("syn", TcpFlags::SYN),
        ("rst", TcpFlags::RST),
        ("psh", TcpFlags::PSH),
        ("ack", TcpFlags::ACK),
        ("urg", TcpFlags::URG),
        ("ece", TcpFlags::ECE),
        ("cwr", TcpFlags::CWR),
    ];
    let found = names.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, flag)| flag).ok_or(word)
}

/// What is left to be done to a packet that a device with an MTU of so many bytes gives: a TCP or UDP
/// packet that is longer is a super-packet (GSO), which the kernel leaves to whoever takes it to cut
/// up, into packets as long as the MTU. For all others nothing is.
pub fn as_the_kernel_gives(packet: &[u8], mtu: u32) -> Offload {
    let Ok(inner) = Inner::parse(packet) else { return Offload::NONE };
    if inner.total_len <= mtu as usize || inner.fragment != Fragment::Whole {
        return Offload::NONE;
    }
    let (header_len, field) = match inner.transport {
        Transport::Tcp { header_len, .. } => (header_len, TCP_CHECKSUM),
        Transport::Udp { .. } => (UDP_HEADER, UDP_CHECKSUM),
        _ => return Offload::NONE,
    };
    let headers = inner.header_len + header_len;
    let size = (mtu as usize).checked_sub(headers).and_then(|size| u16::try_from(size).ok());
    let Some(size @ 1..) = size else { return Offload::NONE };
    let segment = match inner.transport {
        Transport::Tcp { flags, .. } => {
            Segmentation::Tcp { size, ecn: flags.contains(TcpFlags::CWR) }
        }
        _ => Segmentation::Udp { size },
    };
    let checksum = PartialChecksum { start: inner.header_len as u16, offset: field };
    Offload { segment, checksum: Some(checksum), hdr_len: headers as u16 }
}

/// Where the checksums lie, in bytes from the start of TCP's and UDP's headers (RFC 9293, RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

#[cfg(test)]
mod tests {
    use geneve::checksum::Integrity;
    use geneve::inner::Inner;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_made_is_a_sound_packet(
            six: bool, protocol: u8, ports: (u16, u16), flags: u8, length in 0..3000_u16, df: bool,
        ) {
            let addresses: [IpAddr; 2] = if six {
                ["2001:db8::7", "fd00::1"].map(|it| it.parse().unwrap())
            } else {
                ["203.0.113.7", "10.0.1.11"].map(|it| it.parse().unwrap())
            };
            // Headers that say how the packet goes on are not made.
            prop_assume!(![0, 43, 44, 51, 60, 135, 139, 140, 253, 254].contains(&protocol));
            let made = Made {
                source: SocketAddr::new(addresses[0], ports.0),
                destination: SocketAddr::new(addresses[1], ports.1),
                protocol,
                flags: TcpFlags(flags),
                length: Some(length),
                dont_fragment: df,
            };
            match made.bytes() {
                Err(error) => prop_assert!(matches!(error, NotMade::Short(at) if at > length.into())),
                Ok(packet) => {
                    prop_assert_eq!(packet.len(), usize::from(length));
                    let inner = Inner::parse(&packet).unwrap();
                    prop_assert_eq!((inner.src, inner.dst), (addresses[0], addresses[1]));
                    prop_assert_eq!(inner.dont_fragment, df || six);
                    if [6, 17].contains(&protocol) {
                        prop_assert_eq!(inner.ports(), Some(ports));
                        prop_assert_eq!(checksum::verify(&inner, &packet), Integrity::Valid);
                    }
                }
            }
        }
    }

    #[test]
    fn flags_are_listed() {
        assert_eq!(flags("syn,ACK"), Ok(TcpFlags::SYN | TcpFlags::ACK));
        assert_eq!(flags(""), Ok(TcpFlags::default()));
        assert_eq!(flags("syn,sin"), Err("sin"));
    }
}
