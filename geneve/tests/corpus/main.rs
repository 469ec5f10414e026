//! Captures that others made, real and hostile, read with this crate. The README of the corpus says
//! what its folders `geneve` and `inner` hold; the facts asserted here are from there and from
//! what tcpdump prints of the same files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, and nothing else")]

mod capture;

use std::collections::{BTreeMap, BTreeSet};

use etherparse::IpSlice;
use geneve::checksum::{self, Integrity};
use geneve::outer::{self, Outer, OuterError, OuterHeader, UdpChecksum};
use geneve::{
    CanonicalKey, Dialect, DialectError, Fragment, Header, Inner, InnerError, IpVersion, PORT,
    PacketBuf, ProtocolType, Tags, Transport, Vni, protocol,
};

/// An outer packet that carries a datagram to the port of Geneve.
struct Datagram {
    /// From the IP header to the end of the packet.
    packet: Vec<u8>,
    outer: Outer,
    payload: Vec<u8>,
}

/// What is in an IP packet of a capture: a Geneve datagram, something else, or nothing valid.
fn datagram(ip: &[u8]) -> Result<Option<Datagram>, OuterError> {
    let (outer, payload) = outer::parse(ip)?;
    let is_geneve = outer.dst.port() == PORT;
    Ok(is_geneve.then(|| Datagram {
        packet: ip[..payload.end].to_vec(),
        outer,
        payload: ip[payload].to_vec(),
    }))
}

/// What can be told of the Geneve headers in a capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    headers: usize,
    critical: usize,
    vnis: BTreeSet<u32>,
    protocols: BTreeSet<u16>,
    /// Class, type, bytes of data.
    options: BTreeSet<(u16, u8, usize)>,
    /// Valid IP packets inside, bare or in Ethernet frames.
    inner: usize,
}

impl Summary {
    fn add(&mut self, payload: &[u8]) {
        let (header, payload) = Header::parse(payload).unwrap();
        assert!(header.flags_agree() && !header.is_control());
        self.headers += 1;
        self.critical += usize::from(header.is_critical());
        self.vnis.insert(header.vni().get());
        self.protocols.insert(header.protocol().get());
        self.options
            .extend(header.options().map(|it| (it.class.get(), it.kind.get(), it.data.len())));
        let inner = match header.protocol() {
            ProtocolType::ETHERNET => capture::ip_in_ethernet(payload),
            _ => Some(payload),
        };
        self.inner += usize::from(inner.is_some_and(|inner| Inner::parse(inner).is_ok()));
    }
}

/// What the corpus's own files hold.
fn known(name: &str) -> Option<Summary> {
    let ethernet = ProtocolType::ETHERNET.get();
    let ipv6 = ProtocolType::IPV6.get();
    let (headers, critical, vnis, protocol, options, inner): (_, _, _, _, &[_], _) = match name {
        "mercury-aws_geneve" => {
            (224, 0, &[0][..], 0x0800, &[(0x0108, 1, 8), (0x0108, 2, 8), (0x0108, 3, 4)], 224)
        }
        // Two of the inner frames are ARP.
        "suricata-verify-geneve-decoder" => (10, 0, &[123], ethernet, &[], 8),
        "tcpdump-geneve" => (39, 19, &[0xa, 0xb], ethernet, &[(0, 0x80, 4)], 39),
        "zeek-geneve-ipv6" => (2, 0, &[0x12_3456], ipv6, &[], 2),
        "zeek-geneve-tagged-udp-packet" => (4, 0, &[100], ethernet, &[(0xff72, 0x7f, 56)], 4),
        "zeek-geneve" => (6, 0, &[0], ethernet, &[(0, 0, 4)], 6),
        name if name.starts_with("tcpdump-gso-") => (1, 0, &[5001], ethernet, &[], 1),
        // Longer than IP can say, and so with length fields of 0.
        name if name.starts_with("tcpdump-bigtcp-") => return Some(Summary::default()),
        _ => return None,
    };
    Some(Summary {
        headers,
        critical,
        vnis: vnis.iter().copied().collect(),
        protocols: [protocol].into(),
        options: options.iter().copied().collect(),
        inner,
    })
}

#[test]
fn every_geneve_header_is_read() {
    let Some(folder) = capture::folder("geneve") else { return };
    for path in capture::files(&folder) {
        let mut found = Summary::default();
        for ip in capture::frames(&path).iter().filter_map(capture::Frame::ip) {
            if let Ok(Some(datagram)) = datagram(ip) {
                found.add(&datagram.payload);
            }
        }
        let name = path.file_stem().unwrap().display().to_string();
        if let Some(expected) = known(&name) {
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn unknown_critical_options_are_named() {
    let Some(path) = capture::file("geneve/tcpdump-geneve.pcap") else { return };
    let mut named = 0;
    for ip in capture::frames(&path).iter().filter_map(capture::Frame::ip) {
        let datagram = datagram(ip).unwrap().unwrap();
        let (header, _) = Header::parse(&datagram.payload).unwrap();
        for dialect in Dialect::ALL {
            match dialect.read(&header).unwrap_err() {
                DialectError::UnknownCritical { class, kind } => {
                    assert_eq!((class.get(), kind.get()), (0, 0x80));
                    assert_eq!(header.vni(), Vni::new(0xa).unwrap());
                    named += 1;
                }
                DialectError::Missing { .. } => {
                    assert_eq!(header.vni(), Vni::new(0xb).unwrap());
                }
                error => panic!("{error}"),
            }
        }
    }
    assert_eq!(named, 19 * Dialect::ALL.len());
}

/// One packet that a real GWLB sent to an appliance.
struct Real {
    datagram: Datagram,
    tags: Tags,
    inner: Inner,
    inner_bytes: Vec<u8>,
}

/// The real traffic of a GWLB in the corpus, and the packets beside it.
fn real_traffic() -> Option<(Vec<Real>, usize)> {
    let path = capture::file("geneve/mercury-aws_geneve.pcap")?;
    let (mut packets, mut others) = (Vec::new(), 0);
    for frame in capture::frames(&path) {
        match datagram(frame.ip().unwrap()) {
            Ok(Some(datagram)) => {
                let (header, payload) = Header::parse(&datagram.payload).unwrap();
                let tags = Dialect::AWS.read(&header).unwrap();
                let inner = Inner::parse(payload).unwrap();
                let inner_bytes = payload.to_vec();
                packets.push(Real { datagram, tags, inner, inner_bytes });
            }
            Ok(None) | Err(OuterError::NotUdp(_)) => others += 1,
            Err(error) => panic!("{error}"),
        }
    }
    Some((packets, others))
}

#[test]
fn a_real_gwlb_sends_what_we_expect() {
    let Some((packets, others)) = real_traffic() else { return };
    assert_eq!((packets.len(), others), (224, 178));
    let mut flows: BTreeMap<CanonicalKey, BTreeSet<(u16, u32)>> = BTreeMap::new();
    let mut cookies = BTreeSet::new();
    for Real { datagram: Datagram { outer, payload, .. }, tags, inner, inner_bytes } in &packets {
        assert_eq!((outer.ttl, outer.id, outer.tos), (255, 0, 0));
        assert!(!outer.dont_fragment);
        assert_eq!(outer.checksum, Integrity::Valid);
        assert!((60061..=64042).contains(&outer.src.port()));
        assert_eq!(tags.attachment, 0);
        assert_eq!(payload.len(), Dialect::AWS.header_len() + inner_bytes.len());

        assert_eq!(inner.total_len, inner_bytes.len());
        assert_eq!(inner.fragment, Fragment::Whole);
        assert!(inner.ported_key().is_some());
        assert_eq!(checksum::verify(inner, inner_bytes), Integrity::Valid);
        let flow = inner.flow_key().canonical();
        flows.entry(flow).or_default().insert((outer.src.port(), tags.cookie));
        cookies.insert(tags.cookie);
    }
    assert_eq!((flows.len(), cookies.len()), (64, 64));
    assert!(flows.values().all(|marks| marks.len() == 1), "one port and cookie per flow");
}

/// Written anew with the same values, every byte is the one that AWS sent.
#[test]
fn we_send_what_a_real_gwlb_sends() {
    let Some((packets, _)) = real_traffic() else { return };
    for Real { datagram: Datagram { packet, outer, .. }, tags, inner, inner_bytes } in &packets {
        let mut ours = PacketBuf::from_slice(inner_bytes);
        let header = ours.prepend(Dialect::AWS.header_len()).unwrap();
        Dialect::AWS.write(tags, inner.version.into(), header).unwrap();
        let outer = OuterHeader {
            src: outer.src,
            dst: outer.dst,
            ttl: outer.ttl,
            tos: outer.tos,
            dont_fragment: outer.dont_fragment,
            id: outer.id,
            checksum: UdpChecksum::On,
        };
        outer::encapsulate(&outer, &mut ours).unwrap();
        assert_eq!(ours.bytes(), &packet[..]);
        assert_eq!(ours.len() - inner_bytes.len(), Dialect::AWS.overhead(IpVersion::V4));
    }
}

/// Ordinary and hostile packets: each is read or refused, so is each of its beginnings, and what is
/// read is what `etherparse` reads, and comes out of a tunnel as it went in.
#[test]
fn every_inner_packet_is_read_or_refused() {
    let Some(folder) = capture::folder("inner") else { return };
    let mut kinds = BTreeMap::<String, usize>::new();
    for path in capture::files(&folder) {
        for ip in capture::frames(&path).iter().filter_map(capture::Frame::ip) {
            for len in 0..ip.len().min(200) {
                let _ = Inner::parse(&ip[..len]);
            }
            let result = Inner::parse(ip);
            *kinds.entry(kind(result)).or_default() += 1;
            agrees_with_etherparse(ip, result);
            if let Ok(inner) = result {
                comes_through_a_tunnel(&inner, &ip[..inner.total_len]);
            }
        }
    }
    println!("{kinds:#?}");
}

fn kind(result: Result<Inner, InnerError>) -> String {
    let inner = match result {
        Ok(inner) => inner,
        Err(error) => {
            let error = format!("{error:?}");
            return format!("refused: {}", error.split([' ', '(']).next().unwrap_or_default());
        }
    };
    let kind = match (inner.fragment, inner.transport) {
        (Fragment::First { .. }, _) => "first fragment",
        (Fragment::Later { .. }, _) => "later fragment",
        (_, Transport::Tcp { .. }) => "TCP",
        (_, Transport::Udp { .. }) => "UDP",
        (_, Transport::IcmpError { .. }) => "ICMP error",
        _ if matches!(inner.protocol, protocol::ICMP | protocol::ICMPV6) => "ICMP",
        _ => "other",
    };
    format!("{} {kind}", inner.version)
}

/// `etherparse` looks at the IP layer alone here, takes a jumbogram to reach up to the end, and has
/// no limits on extension headers.
fn agrees_with_etherparse(ip: &[u8], ours: Result<Inner, InnerError>) {
    let theirs = IpSlice::from_slice(ip);
    match (ours, theirs) {
        (Ok(inner), Ok(theirs)) => {
            let fragmented = inner.fragment != Fragment::Whole;
            let ours = (inner.src, inner.dst, fragmented);
            let theirs =
                (theirs.source_addr(), theirs.destination_addr(), theirs.is_fragmenting_payload());
            assert_eq!(ours, theirs);
        }
        (
            Err(
                InnerError::TransportTruncated { .. }
                | InnerError::TcpDataOffset(_)
                | InnerError::UdpLength { .. }
                | InnerError::Jumbogram
                | InnerError::RepeatedFragment { .. }
                | InnerError::TooManyExtensions,
            ),
            _,
        )
        | (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?}, but to etherparse {theirs:?}"),
    }
}

fn comes_through_a_tunnel(inner: &Inner, packet: &[u8]) {
    let tags = Tags { endpoint: 1, attachment: 2, cookie: 3 };
    let ends = [("192.0.2.1:60000", "192.0.2.9:6081"), ("[fd00::1]:60000", "[fd00::9]:6081")];
    for (dialect, (src, dst)) in Dialect::ALL.iter().flat_map(|it| ends.map(|ends| (it, ends))) {
        let mut buffer = PacketBuf::from_slice(packet);
        let header = buffer.prepend(dialect.header_len()).unwrap();
        dialect.write(&tags, inner.version.into(), header).unwrap();
        let outer = OuterHeader {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            ttl: 64,
            tos: 0,
            dont_fragment: true,
            id: 0,
            checksum: UdpChecksum::On,
        };
        match outer::encapsulate(&outer, &mut buffer) {
            Ok(()) => {}
            Err(OuterError::TooLong { len }) => {
                assert_eq!(len, packet.len() + dialect.overhead(IpVersion::of(outer.src.ip())));
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let Datagram { outer, payload, .. } = datagram(&buffer).unwrap().unwrap();
        assert_eq!(outer.checksum, Integrity::Valid);
        let (header, payload) = Header::parse(&payload).unwrap();
        assert_eq!(dialect.read(&header), Ok(tags));
        assert_eq!(header.protocol().ip_version(), Some(inner.version));
        assert_eq!(payload, packet);
        assert_eq!(Inner::parse(payload).as_ref(), Ok(inner));
    }
}
