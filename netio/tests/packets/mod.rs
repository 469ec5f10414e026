//! Packets for tests, built and checked by `etherparse`, which shares no code with what is tested.

#![allow(dead_code, reason = "each test file uses a part")]
#![expect(clippy::panic, reason = "in the helpers of tests, as in tests")]

pub(crate) mod joining;

use etherparse::{
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket, TcpHeader,
    TransportSlice, UdpHeader,
};
use geneve::inner::Inner;
use netio::offload::{MAX_HEADERS, Offload, Segmentation, Segmenter};

#[derive(Debug, Clone)]
pub(crate) enum Ip {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

#[derive(Debug, Clone)]
pub(crate) enum Transport {
    Tcp(TcpHeader),
    Udp(UdpHeader),
}

/// A packet in parts, each of which a test may change before it is put together.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) ip: Ip,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

/// Parts that may differ between packets of the same kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) port: u16,
}

impl Flow {
    pub(crate) const TCP4: Flow = Flow { v6: false, tcp: true, port: 443 };
    pub(crate) const TCP6: Flow = Flow { v6: true, tcp: true, port: 443 };
    pub(crate) const UDP4: Flow = Flow { v6: false, tcp: false, port: 443 };
    pub(crate) const UDP6: Flow = Flow { v6: true, tcp: false, port: 443 };

    /// A packet of the flow: an ordinary data segment with timestamps, or a datagram.
    pub(crate) fn packet(self, payload: &[u8]) -> Packet {
        let protocol = if self.tcp { IpNumber::TCP } else { IpNumber::UDP };
        let ip = if self.v6 {
            let address = |last| {
                let mut address = [0; 16];
                (address[0], address[1], address[15]) = (0x20, 0x01, last);
                address
            };
            Ip::V6(Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::try_new(0x1_2345).unwrap(),
                payload_length: 0,
                next_header: protocol,
                hop_limit: 64,
                source: address(1),
                destination: address(2),
            })
        } else {
            let mut ip = Ipv4Header::new(0, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
            ip.dont_fragment = true;
            ip.identification = 0xfffe;
            Ip::V4(ip)
        };
        let transport = if self.tcp {
            let mut tcp = TcpHeader::new(50_000, self.port, 0xffff_f000, 65_535);
            tcp.ack = true;
            tcp.acknowledgment_number = 77;
            // NOP, NOP, timestamps.
            tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]).unwrap();
            Transport::Tcp(tcp)
        } else {
            Transport::Udp(UdpHeader {
                source_port: 50_000,
                destination_port: self.port,
                length: 0,
                checksum: 0,
            })
        };
        Packet { ip, transport, payload: payload.to_vec() }
    }
}

impl Packet {
    pub(crate) fn v4(&mut self) -> &mut Ipv4Header {
        match &mut self.ip {
            Ip::V4(ip) => ip,
            Ip::V6(_) => panic!("not IPv4"),
        }
    }

    pub(crate) fn v6(&mut self) -> &mut Ipv6Header {
        match &mut self.ip {
            Ip::V6(ip) => ip,
            Ip::V4(_) => panic!("not IPv6"),
        }
    }

    pub(crate) fn tcp(&mut self) -> &mut TcpHeader {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp,
            Transport::Udp(_) => panic!("not TCP"),
        }
    }

    pub(crate) fn ip_len(&self) -> usize {
        match &self.ip {
            Ip::V4(ip) => ip.header_len(),
            Ip::V6(_) => Ipv6Header::LEN,
        }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.ip_len()
            + match &self.transport {
                Transport::Tcp(tcp) => tcp.header_len(),
                Transport::Udp(_) => UdpHeader::LEN,
            }
    }

    /// What the sender would send next: the same with this payload.
    pub(crate) fn next(&self, payload: &[u8]) -> Packet {
        let mut next = self.clone();
        if let Ip::V4(ip) = &mut next.ip {
            ip.identification = ip.identification.wrapping_add(1);
        }
        if let Transport::Tcp(tcp) = &mut next.transport {
            tcp.sequence_number = tcp.sequence_number.wrapping_add(self.payload.len() as u32);
        }
        next.payload = payload.to_vec();
        next
    }

    /// The packet with lengths and checksums filled in.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with(|checksum, _| checksum)
    }

    /// The packet as a host with offload leaves it: the transport checksum is only the sum over
    /// the pseudo-header.
    pub(crate) fn build_partial(&self) -> Vec<u8> {
        self.build_with(|_, pseudo| pseudo)
    }

    fn build_with(&self, choose: impl Fn(u16, u16) -> u16) -> Vec<u8> {
        let length = self.header_len() - self.ip_len() + self.payload.len();
        let mut bytes = Vec::new();
        match &self.ip {
            Ip::V4(ip) => {
                let mut ip = ip.clone();
                ip.set_payload_len(length).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                bytes.extend_from_slice(&ip.to_bytes());
            }
            Ip::V6(ip) => {
                let mut ip = ip.clone();
                ip.set_payload_length(length).unwrap();
                bytes.extend_from_slice(&ip.to_bytes());
            }
        }
        match &self.transport {
            Transport::Tcp(tcp) => {
                let mut tcp = tcp.clone();
                let checksum = match &self.ip {
                    Ip::V4(ip) => tcp.calc_checksum_ipv4(ip, &self.payload),
                    Ip::V6(ip) => tcp.calc_checksum_ipv6(ip, &self.payload),
                };
                tcp.checksum = choose(checksum.unwrap(), self.pseudo_sum(6, length));
                bytes.extend_from_slice(&tcp.to_bytes());
            }
            Transport::Udp(udp) => {
                let mut udp = udp.clone();
                udp.length = length as u16;
                let checksum = match &self.ip {
                    Ip::V4(ip) => udp.calc_checksum_ipv4(ip, &self.payload),
                    Ip::V6(ip) => udp.calc_checksum_ipv6(ip, &self.payload),
                };
                udp.checksum = choose(checksum.unwrap(), self.pseudo_sum(17, length));
                bytes.extend_from_slice(&udp.to_bytes());
            }
        }
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// RFC 1071 word by word.
    fn pseudo_sum(&self, protocol: u16, length: usize) -> u16 {
        let addresses = match &self.ip {
            Ip::V4(ip) => [&ip.source[..], &ip.destination].concat(),
            Ip::V6(ip) => [&ip.source[..], &ip.destination].concat(),
        };
        let words = addresses.as_chunks::<2>().0;
        let words = words.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
        let mut sum = words.sum::<u32>() + u32::from(protocol) + length as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// Fails unless `packet` is exactly one packet whose lengths and checksums are right.
pub(crate) fn assert_sound(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let transport = sliced.transport.unwrap();
    match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header");
            assert_eq!(usize::from(header.total_len), packet.len(), "IPv4 length");
            let (source, destination) = (header.source, header.destination);
            match transport {
                TransportSlice::Tcp(tcp) => assert_eq!(
                    tcp.checksum(),
                    tcp.calc_checksum_ipv4(source, destination).unwrap(),
                    "TCP over IPv4"
                ),
                TransportSlice::Udp(udp) => {
                    let expected =
                        udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), expected, "UDP over IPv4");
                    assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length) + 40, packet.len(), "IPv6 length");
            let (source, destination) = (header.source, header.destination);
            match transport {
                TransportSlice::Tcp(tcp) => assert_eq!(
                    tcp.checksum(),
                    tcp.calc_checksum_ipv6(source, destination).unwrap(),
                    "TCP over IPv6"
                ),
                TransportSlice::Udp(udp) => {
                    let expected =
                        udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), expected, "UDP over IPv6");
                    assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

/// The segments that a packet stands for, each in one piece.
pub(crate) fn cut(packet: &[u8], inner: &Inner, offload: &Offload) -> Vec<Vec<u8>> {
    let segmenter = Segmenter::new(packet, inner, offload).unwrap();
    assert!(offload.segment != Segmentation::None || segmenter.count() == 1);
    let mut headers = [0; MAX_HEADERS];
    (0..segmenter.count())
        .map(|index| {
            let segment = segmenter.segment(index, &mut headers);
            let bytes = [&headers[..segment.header_len], &packet[segment.payload]].concat();
            assert!(bytes.len() <= segmenter.segment_len());
            bytes
        })
        .collect()
}
