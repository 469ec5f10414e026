//! Cutting and joining against each other and against an independent implementation: whatever is
//! joined is restored byte for byte by cutting, and the other way round.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod packets;

use geneve::checksum;
use geneve::inner::{Inner, Plain, TcpFlags};
use netio::offload::{Limits, Offload, PartialChecksum, Segmentation, Segmenter};
use packets::joining::{Joined, built, join, restore};
use packets::{Flow, Packet, assert_sound, cut};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

fn flows() -> impl Strategy<Value = Flow> {
    (any::<bool>(), any::<bool>(), 0..12_u16).prop_map(|(v6, tcp, port)| Flow { v6, tcp, port })
}

/// One packet of a hostile stream: which flow, how long, and what is done to it.
fn events() -> impl Strategy<Value = (Flow, usize, Mutation)> {
    let size = prop_oneof![6 => Just(700_usize), 2 => 0..1400_usize, 1 => Just(1_usize)];
    (flows(), size, mutations())
}

#[derive(Debug, Clone)]
enum Mutation {
    None,
    Push,
    /// Any flags byte.
    Flags(u8),
    Skip(u16),
    Gap(i32),
    Ttl(u8),
    Window(u16),
    Repeat,
    /// After building: an XOR at some place.
    Damage(prop::sample::Index, u8),
    /// After building: bytes behind the end.
    Surplus(u8),
}

fn mutations() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        30 => Just(Mutation::None),
        3 => Just(Mutation::Push),
        2 => any::<u8>().prop_map(Mutation::Flags),
        1 => any::<u16>().prop_map(Mutation::Skip),
        1 => any::<i32>().prop_map(Mutation::Gap),
        1 => any::<u8>().prop_map(Mutation::Ttl),
        1 => any::<u16>().prop_map(Mutation::Window),
        2 => Just(Mutation::Repeat),
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, x)| Mutation::Damage(i, x)),
        1 => any::<u8>().prop_map(Mutation::Surplus),
    ]
}

/// The stream that the events describe: each flow goes on where it was left.
fn stream(events: &[(Flow, usize, Mutation)]) -> Vec<Vec<u8>> {
    let mut last = std::collections::HashMap::new();
    let mut bytes = Vec::new();
    for (flow, size, mutation) in events {
        let payload: Vec<u8> = (0..*size).map(|byte| (byte ^ bytes.len()) as u8).collect();
        let key = (flow.v6, flow.tcp, flow.port);
        let mut packet =
            last.get(&key).map_or_else(|| flow.packet(&payload), |p: &Packet| p.next(&payload));
        let continued = packet.clone();
        match mutation {
            Mutation::Push if flow.tcp => packet.tcp().psh = true,
            Mutation::Flags(flags) if flow.tcp => {
                let tcp = packet.tcp();
                (tcp.fin, tcp.syn, tcp.rst, tcp.psh) =
                    (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0, flags & 8 > 0);
                (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) =
                    (flags & 16 > 0, flags & 32 > 0, flags & 64 > 0, flags & 128 > 0);
            }
            Mutation::Skip(by) if !flow.v6 => {
                packet.v4().identification = packet.v4().identification.wrapping_add(*by);
            }
            Mutation::Gap(by) if flow.tcp => {
                let sequence = packet.tcp().sequence_number;
                packet.tcp().sequence_number = sequence.wrapping_add_signed(*by);
            }
            Mutation::Ttl(ttl) if !flow.v6 => packet.v4().time_to_live = *ttl,
            Mutation::Window(window) if flow.tcp => packet.tcp().window_size = *window,
            _ => {}
        }
        let mut built = packet.build();
        match mutation {
            Mutation::Damage(index, xor) => {
                let at = index.index(built.len());
                built[at] ^= xor;
            }
            Mutation::Surplus(byte) => built.push(*byte),
            Mutation::Repeat => bytes.push(built.clone()),
            _ => {}
        }
        bytes.push(built);
        last.insert(key, continued);
    }
    bytes
}

/// Whether it is a TCP segment with PSH whose checksum is right.
fn is_pushed(packet: &[u8]) -> bool {
    let plain = Plain::read(packet).filter(Plain::is_tcp);
    plain.is_some_and(|plain| plain.flags().contains(TcpFlags::PSH)) && is_sound(packet)
}

fn is_sound(packet: &[u8]) -> bool {
    checksum::verify(&Inner::parse(packet).unwrap(), packet) == checksum::Integrity::Valid
}

/// The same packet without PSH, if it is sound.
fn unpushed(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    if is_pushed(packet) {
        let inner = Inner::parse(packet).unwrap();
        bytes[inner.header_len + 13] &= !TcpFlags::PSH.0;
        assert!(checksum::complete(&inner, &mut bytes));
    }
    bytes
}

/// The packets between each pair of addresses, in order: nothing may be overtaken there.
fn by_addresses(packets: &[Vec<u8>]) -> std::collections::BTreeMap<String, Vec<&[u8]>> {
    let mut all = std::collections::BTreeMap::<_, Vec<&[u8]>>::new();
    for packet in packets {
        let inner = Inner::parse(packet).unwrap();
        // Between fragments or other protocols and what has ports, the order is kept, too, but
        // between different ports it need not be.
        let key = inner.ported_key().filter(|_| inner.fragment == geneve::inner::Fragment::Whole);
        let key = key.map_or_else(|| format!("{} {}", inner.src, inner.dst), |k| format!("{k:?}"));
        all.entry(key).or_default().push(packet);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn joining_and_cutting_restores_any_stream(
        events in prop::collection::vec(events(), 1..120),
        big in any::<bool>(),
    ) {
        let packets: Vec<_> = stream(&events)
            .into_iter()
            .filter(|packet| Inner::parse(packet).is_ok())
            .collect();
        let limits = Limits { max_bytes: if big { 180_000 } else { 65_535 }, ..Limits::default() };
        let joined = join(limits, &packets);
        let restored = restore(&joined);
        prop_assert_eq!(by_addresses(&restored), by_addresses(&packets));
    }

    /// All but PSH, where that does not end a run.
    #[test]
    fn joining_across_pushes_and_cutting_restores_all_else(
        events in prop::collection::vec(events(), 1..120),
    ) {
        let packets: Vec<_> = stream(&events)
            .into_iter()
            .filter(|packet| Inner::parse(packet).is_ok())
            .collect();
        let restored = restore(&join(Limits::BIG_TCP, &packets));
        let pushes = |packets: &[Vec<u8>]| packets.iter().filter(|it| is_pushed(it)).count();
        prop_assert!(pushes(&restored) <= pushes(&packets));
        let [restored, packets] = [restored, packets]
            .map(|all| all.iter().map(|packet| unpushed(packet)).collect::<Vec<_>>());
        prop_assert_eq!(by_addresses(&restored), by_addresses(&packets));
    }

    #[test]
    fn cutting_and_joining_restores_any_super_packet(
        flow in flows(),
        size in 1_u16..1500,
        segments in 2_usize..64,
        last in any::<prop::sample::Index>(),
        sequence in any::<u32>(),
        identification in any::<u16>(),
        push in any::<bool>(),
        options in 0_usize..=10,
        addresses in any::<[[u8; 4]; 2]>(),
        seed in any::<u8>(),
    ) {
        // What IP can say, and IPv6 does not count its own header.
        let segments = segments.min(65_000 / usize::from(size));
        let last = 1 + last.index(usize::from(size));
        let length = (segments - 1) * usize::from(size) + last;
        let payload: Vec<u8> = (0..length).map(|at| (at * 31 + at / 251) as u8 ^ seed).collect();
        let mut whole = flow.packet(&payload);
        if flow.tcp {
            whole.tcp().sequence_number = sequence;
            whole.tcp().psh = push;
            whole.tcp().set_options_raw(&[[1, 1, 1, 0]; 10].concat()[..options * 4]).unwrap();
        }
        if flow.v6 {
            whole.v6().source[4..8].copy_from_slice(&addresses[0]);
            whole.v6().destination[4..8].copy_from_slice(&addresses[1]);
        } else {
            whole.v4().identification = identification;
            [whole.v4().source, whole.v4().destination] = addresses;
        }
        let bytes = whole.build_partial();
        let inner = Inner::parse(&bytes).unwrap();
        let offload = Offload {
            segment: if flow.tcp {
                Segmentation::Tcp { size, ecn: false }
            } else {
                Segmentation::Udp { size }
            },
            checksum: Some(PartialChecksum {
                start: whole.ip_len() as u16,
                offset: if flow.tcp { 16 } else { 6 },
            }),
            hdr_len: whole.header_len() as u16,
        };
        let cut = cut(&bytes, &inner, &offload);
        prop_assert_eq!(cut.len(), segments);
        for segment in &cut {
            assert_sound(segment);
        }

        // What the sender would have sent without offload, by the other implementation.
        let sizes = [vec![usize::from(size); segments - 1], vec![last]].concat();
        let mut expected: Vec<Packet> = Vec::new();
        let mut at = 0;
        for size in sizes {
            let payload = &payload[at..at + size];
            at += size;
            let first = || Packet { payload: payload.to_vec(), ..whole.clone() };
            let mut next = expected.last().map_or_else(first, |p| p.next(payload));
            if flow.tcp {
                next.tcp().psh = push && at == length;
            }
            expected.push(next);
        }
        prop_assert_eq!(&cut, &built(&expected));

        let joined = join(Limits::default(), &cut);
        prop_assert_eq!(joined, [Joined { bytes, offload, count: segments }]);
    }

    #[test]
    fn no_offload_makes_cutting_panic(
        flow in flows(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kind in 0..3,
        size in 0_u16..400,
        checksum in prop::option::of((0_u16..400, 0_u16..400)),
    ) {
        let mut bytes = flow.packet(&payload).build_partial();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let segment = match kind {
            0 => Segmentation::None,
            1 => Segmentation::Tcp { size, ecn: false },
            _ => Segmentation::Udp { size },
        };
        let checksum = checksum.map(|(start, offset)| PartialChecksum { start, offset });
        let offload = Offload { segment, checksum, hdr_len: size };
        if let Ok(inner) = Inner::parse(&bytes)
            && let Ok(segmenter) = Segmenter::new(&bytes, &inner, &offload)
        {
            let mut headers = vec![0; segmenter.header_len()];
            let mut payload = 0;
            for index in 0..segmenter.count() {
                payload += segmenter.segment(index, &mut headers).payload.len();
            }
            prop_assert!(payload <= bytes.len());
        }
    }
}
