//! Cutting and joining, case by case: what is joined and what is not, and what each makes of it.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod packets;

use geneve::inner::{Inner, Plain};
use netio::offload::{
    Coalescer, Limits, Offload, OffloadError, PartialChecksum, Place, Segmentation, Segmenter,
    TABLE,
};
use packets::joining::{built, chain, counts, join, join_tagged, restore};
use packets::{Flow, Packet, assert_sound, cut};

const FLOWS: [Flow; 4] = [Flow::TCP4, Flow::TCP6, Flow::UDP4, Flow::UDP6];

#[test]
fn a_run_becomes_one_super_packet_and_is_restored() {
    for flow in FLOWS {
        let packets = chain(&flow.packet(&[]), &[1400, 1400, 1400, 300]);
        let bytes = built(&packets);
        let joined = join(Limits::default(), &bytes);
        assert_eq!(counts(&joined), [4], "{flow:?}");

        let whole = Packet {
            payload: packets.iter().flat_map(|packet| packet.payload.clone()).collect(),
            ..packets[0].clone()
        };
        assert_eq!(joined[0].bytes, whole.build_partial(), "{flow:?}");
        let (start, offset) = (packets[0].ip_len() as u16, if flow.tcp { 16 } else { 6 });
        let segment = if flow.tcp {
            Segmentation::Tcp { size: 1400, ecn: false }
        } else {
            Segmentation::Udp { size: 1400 }
        };
        let checksum = Some(PartialChecksum { start, offset });
        let hdr_len = packets[0].header_len() as u16;
        assert_eq!(joined[0].offload, Offload { segment, checksum, hdr_len });
        assert_eq!(restore(&joined), bytes, "{flow:?}");
    }
}

/// Changes the second of two packets that would be joined, before and after it is built.
struct Apart {
    name: &'static str,
    flow: Flow,
    part: fn(&mut Packet),
    raw: fn(&mut Vec<u8>),
}

const fn part(name: &'static str, flow: Flow, part: fn(&mut Packet)) -> Apart {
    Apart { name, flow, part, raw: |_| {} }
}

const fn raw(name: &'static str, flow: Flow, raw: fn(&mut Vec<u8>)) -> Apart {
    Apart { name, flow, part: |_| {}, raw }
}

const APART: &[Apart] = &[
    part("TOS differs", Flow::TCP4, |p| p.v4().dscp = 10.try_into().unwrap()),
    part("ECN differs", Flow::TCP4, |p| p.v4().ecn = 3.try_into().unwrap()),
    part("TTL differs", Flow::TCP4, |p| p.v4().time_to_live -= 1),
    part("DF differs", Flow::TCP4, |p| p.v4().dont_fragment = false),
    part("identification skips", Flow::TCP4, |p| p.v4().identification = 0),
    part("identification repeats", Flow::TCP4, |p| p.v4().identification -= 1),
    part("IPv4 options", Flow::TCP4, |p| p.v4().options = [1, 1, 1, 0].into()),
    part("more fragments", Flow::UDP4, |p| p.v4().more_fragments = true),
    part("identification skips, UDP", Flow::UDP4, |p| p.v4().identification = 0),
    part("traffic class differs", Flow::TCP6, |p| p.v6().traffic_class = 1),
    part("flow label differs", Flow::TCP6, |p| p.v6().flow_label = 1.try_into().unwrap()),
    part("hop limit differs", Flow::UDP6, |p| p.v6().hop_limit -= 1),
    part("sequence gap", Flow::TCP4, |p| p.tcp().sequence_number += 1),
    part("sequence overlap", Flow::TCP6, |p| p.tcp().sequence_number -= 1),
    part("ack differs", Flow::TCP4, |p| p.tcp().acknowledgment_number += 1),
    part("window differs", Flow::TCP4, |p| p.tcp().window_size -= 1),
    part("urgent pointer differs", Flow::TCP4, |p| p.tcp().urgent_pointer = 1),
    part("timestamps differ", Flow::TCP4, |p| {
        p.tcp().set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 10, 0, 0, 0, 8]).unwrap();
    }),
    part("no options", Flow::TCP6, |p| p.tcp().set_options_raw(&[]).unwrap()),
    part("FIN", Flow::TCP4, |p| p.tcp().fin = true),
    part("SYN", Flow::TCP4, |p| p.tcp().syn = true),
    part("RST", Flow::TCP4, |p| p.tcp().rst = true),
    part("URG", Flow::TCP4, |p| p.tcp().urg = true),
    part("ECE", Flow::TCP4, |p| p.tcp().ece = true),
    part("CWR", Flow::TCP4, |p| p.tcp().cwr = true),
    part("NS", Flow::TCP4, |p| p.tcp().ns = true),
    part("no ACK", Flow::TCP4, |p| p.tcp().ack = false),
    part("longer payload", Flow::TCP4, |p| p.payload.push(0)),
    part("longer datagram", Flow::UDP6, |p| p.payload.push(0)),
    part("pure acknowledgement", Flow::TCP4, |p| p.payload.clear()),
    part("empty datagram", Flow::UDP4, |p| p.payload.clear()),
    raw("reserved TCP bits", Flow::TCP6, |p| change(p, 40 + 12, 0x84, 40 + 16)),
    raw("TCP payload damaged", Flow::TCP4, |p| p[60] ^= 1),
    raw("UDP payload damaged", Flow::UDP6, |p| p[60] ^= 1),
    raw("IPv4 header damaged", Flow::TCP4, |p| p[10] ^= 1),
    raw("UDP without a checksum", Flow::UDP4, |p| p[26..28].fill(0)),
    Apart {
        name: "UDP ends before IP",
        flow: Flow::UDP4,
        part: |p| p.payload[99] = 0,
        raw: |p| change(p, 25, 107, 26),
    },
    raw("surplus bytes", Flow::TCP4, |p| p.push(0)),
];

/// What is never joined, however much alike two packets are: done to both.
const NEVER: &[Apart] = &[
    part("IPv4 options", Flow::TCP4, |p| p.v4().options = [1, 1, 1, 0].into()),
    part("more fragments, UDP", Flow::UDP4, |p| p.v4().more_fragments = true),
    part("more fragments, TCP", Flow::TCP4, |p| p.v4().more_fragments = true),
    part("SYN", Flow::TCP6, |p| p.tcp().syn = true),
    part("RST", Flow::TCP6, |p| p.tcp().rst = true),
    part("FIN", Flow::TCP6, |p| p.tcp().fin = true),
    part("URG", Flow::TCP6, |p| p.tcp().urg = true),
    part("ECE", Flow::TCP6, |p| p.tcp().ece = true),
    part("CWR", Flow::TCP6, |p| p.tcp().cwr = true),
    part("NS", Flow::TCP6, |p| p.tcp().ns = true),
    part("no ACK", Flow::TCP6, |p| p.tcp().ack = false),
    part("PSH", Flow::TCP6, |p| p.tcp().psh = true),
    part("no payload", Flow::TCP6, |p| p.payload.clear()),
    raw("reserved TCP bits", Flow::TCP6, |p| change(p, 40 + 12, 0x84, 40 + 16)),
    raw("UDP without a checksum", Flow::UDP4, |p| p[26..28].fill(0)),
    raw("TCP payload damaged", Flow::TCP4, |p| p[60] ^= 1),
    raw("surplus bytes", Flow::UDP6, |p| p.push(0)),
];

#[test]
fn some_kinds_are_never_joined() {
    for Apart { name, flow, part, raw } in NEVER {
        let mut first = flow.packet(&[1; 100]);
        part(&mut first);
        let second = first.next(&first.payload);
        let mut bytes = built(&[first, second]);
        bytes.iter_mut().for_each(raw);
        let passed: Vec<_> = join(Limits::default(), &bytes);
        assert_eq!(counts(&passed), [1, 1], "{name}");
        assert!(passed.into_iter().map(|run| run.bytes).eq(bytes), "{name}");
    }
}

/// Nothing is summed up before there is a second packet: then the first turns out to be damaged.
#[test]
fn a_damaged_packet_begins_no_run() {
    for flow in FLOWS {
        for (damaged, expected) in [(0, &[1, 3][..]), (1, &[1, 1, 2]), (2, &[2, 1, 1])] {
            let mut bytes = built(&chain(&flow.packet(&[]), &[1000; 4]));
            *bytes[damaged].last_mut().unwrap() ^= 1;
            let joined = join(Limits::default(), &bytes);
            assert_eq!(counts(&joined), expected, "{flow:?}, packet {damaged}");
            assert_eq!(restore(&joined), bytes, "{flow:?}, packet {damaged}");
        }
    }
}

/// Sets a byte, and adapts the checksum at `field` as RFC 1624 has it, word by word.
fn change(packet: &mut [u8], at: usize, value: u8, field: usize) {
    let word = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at & !1], packet[at | 1]]);
    let old = word(packet, at);
    packet[at] = value;
    // A UDP length counts twice: in the header and in the pseudo-header.
    let times = if field == 26 { 2 } else { 1 };
    let mut sum = u32::from(!word(packet, field));
    for _ in 0..times {
        sum += u32::from(!old) + u32::from(word(packet, at));
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    packet[field..field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn what_must_not_be_joined_passes_alone_in_order() {
    for Apart { name, flow, part, raw } in APART {
        let mut packets = chain(&flow.packet(&[]), &[100, 100]);
        assert_eq!(counts(&join(Limits::default(), &built(&packets))), [2], "{name}: no change");
        part(&mut packets[1]);
        let mut bytes = built(&packets);
        raw(&mut bytes[1]);
        let joined = join(Limits::default(), &bytes);
        assert_eq!(counts(&joined), [1, 1], "{name}");
        let passed: Vec<_> = joined.into_iter().map(|run| run.bytes).collect();
        assert_eq!(passed, bytes, "{name}");
    }
}

#[test]
fn a_checksum_of_minus_zero_is_not_what_cutting_makes() {
    // Only TCP and IPv4 headers have one: the sum is the same, the bytes would not be.
    let mut packets = chain(&Flow::TCP4.packet(&[]), &[100, 100]);
    let sum = u16::from_be_bytes(packets[1].build()[36..38].try_into().unwrap());
    // Adding the checksum to the data makes the checksum 0.
    packets[1].payload[0..2].fill(0);
    let without = u16::from_be_bytes(packets[1].build()[36..38].try_into().unwrap());
    assert_ne!(sum, without);
    packets[1].payload[0..2].copy_from_slice(&without.to_be_bytes());
    let mut bytes = built(&packets);
    assert_eq!(bytes[1][36..38], [0, 0]);
    assert_eq!(counts(&join(Limits::default(), &bytes)), [2]);
    bytes[1][36..38].fill(0xff);
    assert_eq!(counts(&join(Limits::default(), &bytes)), [1, 1]);
}

#[test]
fn an_ip_checksum_of_minus_zero_is_not_what_cutting_makes() {
    let mut packets = chain(&Flow::TCP4.packet(&[]), &[100, 100]);
    let numbered = |identification: u16| {
        packets[0].v4().identification = identification.wrapping_sub(1);
        packets[1].v4().identification = identification;
        built(&packets)
    };
    let zero = |bytes: &Vec<Vec<u8>>| bytes[1][10..12] == [0, 0];
    let mut bytes = (0..=u16::MAX).map(numbered).find(zero).unwrap();
    assert_eq!(counts(&join(Limits::default(), &bytes)), [2]);
    bytes[1][10..12].fill(0xff);
    assert_eq!(counts(&join(Limits::default(), &bytes)), [1, 1]);
}

#[test]
fn a_udp_checksum_of_all_ones_is_restored() {
    let mut packets = chain(&Flow::UDP6.packet(&[]), &[100, 100]);
    packets[1].payload[0..2].fill(0);
    let without = u16::from_be_bytes(packets[1].build()[46..48].try_into().unwrap());
    packets[1].payload[0..2].copy_from_slice(&without.to_be_bytes());
    let bytes = built(&packets);
    assert_eq!(bytes[1][46..48], [0xff, 0xff]);
    let joined = join(Limits::default(), &bytes);
    assert_eq!(counts(&joined), [2]);
    assert_eq!(restore(&joined), bytes);
}

#[test]
fn extension_headers_pass_alone() {
    // A destination options header, and an atomic fragment header, of 8 bytes each.
    for (kind, extension) in [(60, [17, 0, 1, 4, 0, 0, 0, 0]), (44, [17, 0, 0, 0, 0, 0, 0, 9])] {
        let packets = chain(&Flow::UDP6.packet(&[]), &[100, 100]);
        let extended = |packet: &Packet| {
            let plain = packet.build();
            let mut bytes = [&plain[..40], &extension, &plain[40..]].concat();
            bytes[5] += 8;
            bytes[6] = kind;
            bytes
        };
        let bytes: Vec<_> = packets.iter().map(extended).collect();
        assert_eq!(counts(&join(Limits::default(), &bytes)), [1, 1]);
    }
}

#[test]
fn a_push_or_a_shorter_payload_ends_a_run() {
    let mut packets = chain(&Flow::TCP4.packet(&[]), &[100, 100, 100, 100, 50, 100, 100]);
    packets[1].tcp().psh = true;
    let bytes = built(&packets);
    let joined = join(Limits::default(), &bytes);
    assert_eq!(counts(&joined), [2, 3, 2]);
    assert_eq!(joined[0].bytes[33] & 0x08, 0x08, "PSH is the last one's, so the super-packet's");
    assert_eq!(restore(&joined), bytes);

    // And it cannot begin one, since cutting would move it to the end.
    packets[2].tcp().psh = true;
    let bytes = built(&packets);
    assert_eq!(counts(&join(Limits::default(), &bytes)), [2, 1, 2, 2]);
}

#[test]
fn interleaved_flows_do_not_cut_each_other_short() {
    let flows: Vec<_> = (0..TABLE as u16)
        .map(|port| chain(&Flow { port, ..FLOWS[usize::from(port) % 4] }.packet(&[]), &[200; 5]))
        .collect();
    let bytes: Vec<_> =
        (0..5).flat_map(|round| flows.iter().map(move |flow| flow[round].build())).collect();
    assert_eq!(counts(&join(Limits::default(), &bytes)), [5; TABLE]);

    // One flow more than there is room for: the one that waited longest goes.
    let more = Flow { port: 99, ..Flow::TCP4 }.packet(b"more").build();
    let bytes = [&bytes[..TABLE], &[more], &bytes[1..2]].concat();
    assert_eq!(counts(&join(Limits::default(), &bytes)).len(), TABLE + 2);
}

#[test]
fn packets_without_ports_overtake_none_between_the_same_addresses() {
    let packets = built(&chain(&Flow::UDP4.packet(&[]), &[100, 100, 100]));
    let mut fragment = Flow::UDP4.packet(b"first fragment");
    fragment.v4().more_fragments = true;
    let other = Flow::UDP6.packet(b"elsewhere").build();
    let bytes =
        [packets[0].clone(), other, packets[1].clone(), fragment.build(), packets[2].clone()];
    let joined = join(Limits::default(), &bytes);
    let order: Vec<_> = joined.iter().map(|run| (run.count, run.bytes[0] >> 4)).collect();
    assert_eq!(order, [(2, 4), (1, 4), (1, 6), (1, 4)]);
    assert_eq!(joined[1].bytes, bytes[3]);
}

#[test]
fn packets_for_different_devices_stay_apart() {
    let packets = built(&chain(&Flow::TCP4.packet(&[]), &[100, 100, 100]));
    let tagged: Vec<_> = [1, 1, 2].into_iter().zip(packets).collect();
    assert_eq!(counts(&join_tagged(Limits::default(), &tagged)), [2, 1]);
}

#[test]
fn limits_are_kept() {
    let tcp = built(&chain(&Flow::TCP4.packet(&[]), &[1400; 100]));
    // 46 × 1400 + 52 = 64,452 bytes; with 47 it would be 65,852.
    assert_eq!(counts(&join(Limits::default(), &tcp)), [46, 46, 8]);
    let big = Limits { max_bytes: 180_000, ..Limits::default() };
    let joined = join(big, &tcp);
    assert_eq!(counts(&joined), [100]);
    assert_eq!(restore(&joined), tcp);
    assert_eq!(counts(&join(big, &built(&chain(&Flow::TCP4.packet(&[]), &[100; 200])))), [128, 72]);

    let udp = built(&chain(&Flow::UDP4.packet(&[]), &[100; 100]));
    assert_eq!(counts(&join(Limits::default(), &udp)), [64, 36]);
    let off = Limits { udp: false, ..Limits::default() };
    assert_eq!(counts(&join(off, &udp)), [1; 100]);
    for flow in [Flow::TCP6, Flow::UDP6, Flow::UDP4] {
        let joined = join(big, &built(&chain(&flow.packet(&[]), &[1400; 60])));
        assert!(joined.iter().all(|run| run.bytes.len() <= 65_535), "{flow:?}");
    }
}

/// As Linux sends much data: each super-packet has PSH, and so its last segment.
#[test]
fn a_push_ends_a_run_but_where_it_need_not() {
    let pushed = |packets: &[Packet], with: fn(usize) -> bool| {
        let mut packets = packets.to_vec();
        (packets.iter_mut().enumerate()).for_each(|(at, packet)| packet.tcp().psh = with(at));
        built(&packets)
    };
    let [four, six] = [Flow::TCP4, Flow::TCP6].map(|flow| chain(&flow.packet(&[]), &[1000; 60]));
    // IPv6 stays below 64 KiB, where there is nothing to gain.
    for (packets, limits) in
        [(&four, Limits::default()), (&six, Limits::default()), (&six, Limits::BIG_TCP)]
    {
        let bytes = pushed(packets, |at| at % 20 == 19);
        let joined = join(limits, &bytes);
        assert_eq!(counts(&joined), [20, 20, 20]);
        assert_eq!(restore(&joined), bytes);
    }
    let joined = join(Limits::BIG_TCP, &pushed(&four, |at| at % 20 == 19));
    assert_eq!(counts(&joined), [60]);
    assert_eq!(restore(&joined), pushed(&four, |at| at == 59));
    // One that is pushed at its beginning is at its end, too; one that is not is not.
    let joined = join(Limits::BIG_TCP, &pushed(&four, |at| at == 0));
    assert_eq!(restore(&joined), pushed(&four, |at| at == 59));
    let bytes = pushed(&four, |_| false);
    assert_eq!(restore(&join(Limits::BIG_TCP, &bytes)), bytes);
    let tcp = chain(&Flow::TCP4.packet(&[]), &[1448; 300]);
    let joined = join(Limits::BIG_TCP, &pushed(&tcp, |at| at % 42 == 41));
    assert_eq!(counts(&joined), [128, 128, 44]);
    let last = |at: usize| matches!(at, 127 | 255 | 299);
    assert_eq!(restore(&joined), pushed(&tcp, last));
}

#[test]
fn a_tag_can_have_limits_of_its_own() {
    let tcp = built(&chain(&Flow::TCP4.packet(&[]), &[1400; 100]));
    let bytes = |buffer: u32| &tcp[buffer as usize][..];
    let count = |coalescer: &mut Coalescer<u8>, tag| {
        let mut counts = Vec::new();
        for (index, packet) in tcp.iter().enumerate() {
            let plain = Plain::read(packet);
            let place = Place { buffer: index as u32, start: 0 };
            coalescer.push(packet, plain.as_ref(), place, tag, bytes, |run| {
                counts.push(run.pieces.len());
            });
        }
        coalescer.flush(|run| counts.push(run.pieces.len()));
        counts
    };
    let mut coalescer = Coalescer::new(Limits::default());
    coalescer.set_limits(1, Limits::PLAIN);
    coalescer.set_limits(2, Limits::BIG_TCP);
    assert_eq!(count(&mut coalescer, 0), [46, 46, 8]);
    assert_eq!(count(&mut coalescer, 1), [1; 100]);
    assert_eq!(count(&mut coalescer, 2), [100]);
    coalescer.set_limits(1, Limits::default());
    assert_eq!(count(&mut coalescer, 1), [46, 46, 8]);

    // What a plain device is given is what came, whether its checksum is right or not.
    coalescer.set_limits(1, Limits::PLAIN);
    let mut wrong = tcp[0].clone();
    *wrong.last_mut().unwrap() ^= 1;
    let mut out = Vec::new();
    for packet in [&tcp[0], &wrong, &tcp[1]] {
        let plain = Plain::read(packet);
        coalescer.push(packet, plain.as_ref(), Place::default(), 1, bytes, |run| {
            assert_eq!((run.offload, run.headers), (Offload::NONE, &[][..]));
            out.push(run.pieces[0].of(packet).to_vec());
        });
    }
    assert_eq!(out, [&tcp[0], &wrong, &tcp[1]].map(Clone::clone));
}

#[test]
fn flags_of_a_super_packet_are_distributed() {
    let mut whole = Flow::TCP4.packet(&[7; 250]);
    (whole.tcp().psh, whole.tcp().fin, whole.tcp().cwr, whole.tcp().ece) = (true, true, true, true);
    let segment = Segmentation::Tcp { size: 100, ecn: true };
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    let bytes = whole.build_partial();
    let offload = Offload { segment, checksum, hdr_len: 0 };
    let segments = cut(&bytes, &Inner::parse(&bytes).unwrap(), &offload);
    for segment in &segments {
        assert_sound(segment);
    }
    let flags: Vec<_> = segments.iter().map(|segment| segment[33]).collect();
    // ACK and ECE on all; CWR on the first; PSH and FIN on the last.
    assert_eq!(flags, [0xd0, 0x50, 0x59]);
}

#[test]
fn a_single_checksum_is_completed_and_nothing_else_touched() {
    for flow in FLOWS {
        let packet = flow.packet(b"an odd number of bytes.");
        let bytes = packet.build_partial();
        let inner = Inner::parse(&bytes).unwrap();
        let (start, offset) = (packet.ip_len() as u16, if flow.tcp { 16 } else { 6 });
        let checksum = Some(PartialChecksum { start, offset });
        let offload = Offload { checksum, ..Offload::NONE };
        assert_eq!(cut(&bytes, &inner, &offload), [packet.build()], "{flow:?}");
        let padded = [&bytes[..], &[9; 5]].concat();
        assert_eq!(cut(&padded, &inner, &offload), [packet.build()], "{flow:?}: surplus bytes");
        assert_eq!(cut(&bytes, &inner, &Offload::NONE), [&bytes[..]], "{flow:?}");
    }
}

#[test]
fn a_checksum_inside_a_tunnelled_packet_is_completed() {
    // IPv4 in IPv4: the kernel leaves the inner transport's checksum to the device.
    let within = Flow::TCP4.packet(b"tunnelled");
    let outer = |payload: &[u8]| {
        let mut packet = Flow::UDP4.packet(&[]);
        packet.v4().protocol = etherparse::IpNumber::IPV4;
        packet.v4().set_payload_len(payload.len()).unwrap();
        packet.v4().header_checksum = packet.v4().calc_header_checksum();
        [&packet.v4().to_bytes()[..], payload].concat()
    };
    let bytes = outer(&within.build_partial());
    let checksum = Some(PartialChecksum { start: 40, offset: 16 });
    let offload = Offload { checksum, ..Offload::NONE };
    assert_eq!(cut(&bytes, &Inner::parse(&bytes).unwrap(), &offload), [outer(&within.build())]);
}

#[test]
fn contradictions_are_named() {
    let bytes = Flow::TCP4.packet(&[0; 100]).build_partial();
    let inner = Inner::parse(&bytes).unwrap();
    let checksum = Some(PartialChecksum { start: 20, offset: 16 });
    let tcp = Segmentation::Tcp { size: 10, ecn: false };
    let refused = |segment, checksum| {
        Segmenter::new(&bytes, &inner, &Offload { segment, checksum, hdr_len: 0 }).unwrap_err()
    };
    assert!(matches!(
        refused(Segmentation::Udp { size: 10 }, checksum),
        OffloadError::Mismatch { protocol: 6, .. }
    ));
    assert_eq!(refused(Segmentation::Tcp { size: 0, ecn: false }, checksum), OffloadError::NoSize);
    assert!(matches!(refused(tcp, None), OffloadError::ChecksumMissing { actual: None, .. }));
    let outside = Some(PartialChecksum { start: 150, offset: 1 });
    assert_eq!(
        refused(Segmentation::None, outside),
        OffloadError::ChecksumOutside { start: 150, offset: 1, len: 152 }
    );
    assert!(matches!(
        Segmenter::new(&bytes[..100], &inner, &Offload::NONE),
        Err(OffloadError::Truncated { needed: 152, actual: 100 })
    ));

    let mut fragment = Flow::TCP4.packet(&[0; 100]);
    fragment.v4().more_fragments = true;
    let bytes = fragment.build();
    let inner = Inner::parse(&bytes).unwrap();
    let offload = Offload { segment: tcp, checksum, hdr_len: 0 };
    assert!(matches!(Segmenter::new(&bytes, &inner, &offload), Err(OffloadError::Mismatch { .. })));
}

#[test]
fn long_headers_are_refused() {
    // A destination options header of 224 bytes, all of it padding.
    let plain = Flow::UDP6.packet(b"payload").build_partial();
    let mut extension = vec![0; 224];
    (extension[0], extension[1], extension[2], extension[3]) = (17, 27, 1, 220);
    let mut bytes = [&plain[..40], &extension, &plain[40..]].concat();
    bytes[4..6].copy_from_slice(&(224_u16 + 15).to_be_bytes());
    bytes[6] = 60;
    let inner = Inner::parse(&bytes).unwrap();
    let checksum = Some(PartialChecksum { start: 264, offset: 6 });
    for segment in [Segmentation::None, Segmentation::Udp { size: 3 }] {
        let offload = Offload { segment, checksum, hdr_len: 0 };
        let error = Segmenter::new(&bytes, &inner, &offload).unwrap_err();
        assert!(matches!(error, OffloadError::HeadersTooLong { actual: 272 }), "{error}");
    }
}
