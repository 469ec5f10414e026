//! What is on the wire: the Geneve header and its options, the outer headers, the packet inside,
//! and what an ICMP error quotes.
//!
//! Each has a second reader beside it, written from the RFC and for obviousness, which must come to
//! the same.

use geneve::checksum::{self, Integrity};
use geneve::outer::{OuterHeader, UdpChecksum};
use geneve::{
    Dialect, Fragment, GeneveOption, Header, HeaderBuilder, Inner, IpVersion, PacketBuf,
    ProtocolType, Tags, Transport, outer,
};

use crate::engine::fuzz;
use crate::input::Input;

/// An option as the naive reader finds it: class, type, data.
type NaiveOption<'a> = (u16, u8, &'a [u8]);

/// RFC 8926 §3.4 and §3.5, in so many words. Header length, options, payload.
fn naive(datagram: &[u8]) -> Option<(usize, Vec<NaiveOption<'_>>, &[u8])> {
    let first = *datagram.first()?;
    let len = 8 + usize::from(first % 64) * 4;
    if datagram.len() < len || first / 64 != 0 {
        return None;
    }
    let (mut rest, payload) = (&datagram[8..len], &datagram[len..]);
    let mut options = Vec::new();
    while !rest.is_empty() {
        let end = 4 + usize::from(rest[3] % 32) * 4;
        if rest.len() < end {
            return None;
        }
        options.push((u16::from(rest[0]) * 256 + u16::from(rest[1]), rest[2], &rest[4..end]));
        rest = &rest[end..];
    }
    Some((len, options, payload))
}

#[test]
fn header() {
    fuzz!(20_000, |bytes: &[u8]| {
        let expected = naive(bytes);
        let (header, payload) = match Header::parse(bytes) {
            Ok(read) => read,
            Err(error) => {
                assert!(expected.is_none(), "{error}");
                return;
            }
        };
        let (len, options, rest) = expected.expect("a header that the RFC takes as well");
        assert_eq!((header.len(), header.as_bytes(), payload), (len, &bytes[..len], rest));
        let found = header.options();
        let found = found.map(|option| (option.class.get(), option.kind.get(), option.data));
        assert!(found.eq(options.iter().copied()));
        let critical = options.iter().any(|(_, kind, _)| *kind >= 0x80);
        assert_eq!(header.flags_agree(), critical == (bytes[1] & 0x40 > 0));

        // Written anew it is the same, but for reserved bits and a wrong C bit.
        let list: Vec<GeneveOption<'_>> = header.options().collect();
        let builder = HeaderBuilder::new(header.protocol());
        let builder = builder.vni(header.vni()).control(header.is_control()).options(&list);
        let mut again = [0; geneve::header::MAX_LEN];
        assert_eq!(builder.write(&mut again), Ok(len));
        let (second, _) = Header::parse(&again[..len]).expect("what was written");
        assert!(second.options().eq(header.options()) && second.flags_agree());
        let fields = |header: &Header<'_>| (header.protocol(), header.vni(), header.is_control());
        assert_eq!(fields(&second), fields(&header));
    });
}

/// What the clouds document: class, and number and length of the options that carry endpoint,
/// attachment and cookie.
const DOCUMENTED: [Documented; 3] = [
    ("aws", 0x0108, [(1, 8), (2, 8), (3, 4)]),
    ("tencent", 0x0167, [(1, 8), (2, 8), (3, 4)]),
    ("google", 0x0132, [(2, 16), (3, 8), (1, 4)]),
];

/// Name, class, and number and length of each option.
type Documented = (&'static str, u16, [(u8, usize); 3]);

fn naive_tags(name: &str, options: &[NaiveOption<'_>]) -> Option<Tags> {
    let (_, class, fields) = DOCUMENTED.iter().find(|(known, ..)| *known == name)?;
    let own = |(kind, len): (u8, usize)| {
        let mut found = options.iter().filter(|(c, k, _)| (*c, *k) == (*class, kind));
        let (_, _, data) = found.next()?;
        (found.next().is_none() && data.len() == len)
            .then(|| data.iter().fold(0_u128, |value, &byte| value << 8 | u128::from(byte)) as u64)
    };
    let known = |class_of: u16, kind: u8| {
        class_of == *class && fields.iter().any(|(field, _)| *field == kind)
    };
    let strange = options.iter().any(|(class, kind, _)| *kind >= 0x80 && !known(*class, *kind));
    let [endpoint, attachment, cookie] = fields.map(own);
    let tags = Tags { endpoint: endpoint?, attachment: attachment?, cookie: cookie? as u32 };
    (!strange).then_some(tags)
}

#[test]
fn dialects() {
    fuzz!(20_000, |bytes: &[u8]| {
        let Ok((header, _)) = Header::parse(bytes) else { return };
        let Some((_, options, _)) = naive(bytes) else { panic!("a header is a header") };
        for dialect in Dialect::ALL {
            let read = dialect.read(&header);
            assert_eq!(read.ok(), naive_tags(dialect.name(), &options), "{read:?}");
            let Ok(tags) = read else { continue };
            let mut again = vec![0xaa; dialect.header_len()];
            assert_eq!(dialect.write(&tags, header.protocol(), &mut again), Ok(again.len()));
            let (written, _) = Header::parse(&again).expect("what was written");
            assert_eq!((dialect.read(&written), written.protocol()), (Ok(tags), header.protocol()));
        }
    });
}

#[test]
fn outer_headers() {
    fuzz!(20_000, |bytes: &[u8]| {
        let Ok((found, range)) = outer::parse(bytes) else { return };
        let payload = &bytes[range];
        let header = OuterHeader {
            src: found.src,
            dst: found.dst,
            ttl: found.ttl,
            tos: found.tos,
            dont_fragment: found.dont_fragment,
            id: found.id,
            checksum: match found.checksum {
                Integrity::Absent => UdpChecksum::Zero,
                _ => UdpChecksum::On,
            },
        };
        let mut packet = PacketBuf::from_slice(payload);
        outer::encapsulate(&header, &mut packet).expect("what fitted once");
        let (again, range) = outer::parse(packet.bytes()).expect("what was written");
        let checksum = match found.checksum {
            Integrity::Absent => Integrity::Absent,
            _ => Integrity::Valid,
        };
        assert_eq!(again, outer::Outer { checksum, ..found });
        assert_eq!(&packet.bytes()[range], payload);
    });
}

#[test]
fn inner_packets() {
    fuzz!(20_000, |bytes: &[u8]| {
        let Ok(inner) = Inner::parse(bytes) else { return };
        assert!(inner.header_len <= inner.total_len && inner.total_len <= bytes.len());
        assert!(inner.header_len >= inner.version.header_len());
        // What follows the packet says nothing, and without its end it is none.
        let whole = &bytes[..inner.total_len];
        assert_eq!(Inner::parse(whole), Ok(inner));
        assert!(Inner::parse(&whole[..inner.total_len - 1]).is_err());
        assert_keys(&inner);
        assert_like_etherparse(&inner, whole);

        let mut complete = whole.to_vec();
        if checksum::complete(&inner, &mut complete) {
            assert_eq!(checksum::verify(&inner, &complete), Integrity::Valid);
            assert_eq!(Inner::parse(&complete), Ok(inner), "a checksum says nothing else");
            // One that was right stays as it is, but for the two ways to write zero.
            if checksum::verify(&inner, whole) == Integrity::Valid {
                let differ = complete.iter().zip(whole).filter(|(a, b)| a != b).count();
                assert!(differ <= 4, "{differ} bytes differ");
            }
        } else {
            // Of a fragment only the IP header can be summed up.
            let field = if inner.version == IpVersion::V4 { 10..12 } else { 0..0 };
            complete[field.clone()].copy_from_slice(&whole[field]);
            assert_eq!(complete, whole);
        }
    });
}

fn assert_keys(inner: &Inner) {
    let key = inner.flow_key();
    assert_eq!((key.src(), key.dst()), (inner.src, inner.dst));
    assert_eq!(key.reversed().canonical(), key.canonical());
    assert_eq!(key.reversed().reversed(), key);
    if inner.fragment != Fragment::Whole {
        assert_eq!(key, key.portless(), "no fragment shows ports to the cookie");
    }
}

/// `etherparse` reads the same ports where it reads any, of packets that are no fragments.
fn assert_like_etherparse(inner: &Inner, packet: &[u8]) {
    use etherparse::{SlicedPacket, TransportSlice};

    let Ok(sliced) = SlicedPacket::from_ip(packet) else { return };
    if inner.fragment != Fragment::Whole {
        return;
    }
    let ports = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => return,
    };
    assert_eq!(inner.ports(), Some(ports));
}

#[test]
fn icmp_errors() {
    fuzz!(20_000, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let six = input.flag();
        let (kind, code) = (input.byte(), input.byte());
        let quoted = input.rest();
        let quoted = &quoted[..quoted.len().min(1400)];
        let packet = error_about(six, kind, code, quoted);
        let Ok(inner) = Inner::parse(&packet) else { return };
        let Transport::IcmpError { about, .. } = inner.transport else { return };
        // RFC 4443 §2.1: below 128 it is an error; RFC 1122 §3.2.2 lists those of ICMP.
        assert!(if six { kind < 128 } else { [3, 4, 5, 11, 12].contains(&kind) }, "type {kind}");
        // It is about what is quoted, where that is a packet by itself.
        if let Ok(original) = Inner::parse(quoted) {
            assert_eq!(about, original.ported_key().unwrap_or_else(|| original.flow_key()));
        }
        assert_keys(&inner);
    });
}

/// An ICMP message of this type that quotes something.
fn error_about(six: bool, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let len = 8 + quoted.len();
    let mut packet = if six {
        let mut ip = vec![0x60, 0, 0, 0, (len / 256) as u8, (len % 256) as u8, 58, 64];
        ip.extend([0xfd; 32]);
        ip
    } else {
        let total = 20 + len;
        let mut ip = vec![0x45, 0, (total / 256) as u8, (total % 256) as u8, 0, 0, 0, 0, 64, 1];
        ip.extend([0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        ip
    };
    packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(quoted);
    packet
}

#[test]
fn datagrams_hold_what_is_read_from_them() {
    // Not fuzzed: that the naive reader is awake.
    let mut datagram = vec![0; Dialect::AWS.header_len()];
    let tags = Tags { endpoint: 1, attachment: 2, cookie: 3 };
    Dialect::AWS.write(&tags, ProtocolType::from(IpVersion::V4), &mut datagram).unwrap();
    let (len, options, payload) = naive(&datagram).unwrap();
    assert_eq!((len, options.len(), payload.len()), (40, 3, 0));
    assert_eq!(naive_tags("aws", &options), Some(tags));
    assert_eq!(naive_tags("google", &options), None);
}
