//! The packets that the judges are asked about: generated, captured by others, and what scenarios
//! expect of the gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use geneve::outer::{OuterHeader, UdpChecksum, encapsulate};
use geneve::{HeaderBuilder, PORT, PacketBuf, ProtocolType, arbitrary};
use gwlb_tests::capture::{self, Captured};
use gwlb_tests::{corpus, scenario};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// How many packets are generated.
pub const GENERATED: usize = 3000;

/// Packets of every kind that the generators know, the same in every run.
pub fn generated() -> Vec<Captured> {
    let mut runner = TestRunner::deterministic();
    (0..GENERATED)
        .map(|number| {
            let packet = packet().new_tree(&mut runner).unwrap().current();
            Captured { time: Duration::from_millis(number as u64), packet }
        })
        .collect()
}

/// A Geneve packet: tags of a dialect or any options, any packet or anything inside, and now and
/// then a wrong checksum.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    (outer(), datagram(), damage()).prop_map(|(outer, datagram, damage)| {
        let mut packet = PacketBuf::from_slice(&datagram);
        encapsulate(&outer, &mut packet).unwrap();
        let mut bytes = packet.bytes().to_vec();
        // At the very end, where no length and no next header stands.
        if let Some((from_end, change)) = damage {
            let at = bytes.len() - from_end;
            bytes[at] ^= change;
        }
        bytes
    })
}

fn damage() -> impl Strategy<Value = Option<(usize, u8)>> {
    prop::option::weighted(0.2, (1..=2_usize, 1..=255_u8))
}

fn outer() -> impl Strategy<Value = OuterHeader> {
    let checksum = prop_oneof![3 => Just(UdpChecksum::On), 1 => Just(UdpChecksum::Zero)];
    let fields = (any::<[u8; 2]>(), any::<bool>(), any::<u16>());
    // RFC 8926 section 3.3 has the source port in this range. `tshark` goes by the lower port
    // first, so that a lower one would have it read something else.
    let source_port = 49_152..=u16::MAX;
    (arbitrary::socket_pair(), source_port, fields, checksum).prop_map(
        |((src, dst), port, ([ttl, tos], dont_fragment, id), checksum)| OuterHeader {
            src: SocketAddr::new(src.ip(), port),
            dst: SocketAddr::new(dst.ip(), PORT),
            ttl,
            tos,
            dont_fragment,
            id,
            checksum,
        },
    )
}

/// What UDP carries: a Geneve header and what it announces.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let inner = arbitrary::packet()
        .prop_map(|packet| (ProtocolType::from(packet.inner.version), packet.bytes));
    let other = (arbitrary::protocol_type(), prop::collection::vec(any::<u8>(), 0..60))
        .prop_filter("nothing that is parsed further", |(kind, _)| {
            kind.ip_version().is_none() && *kind != ProtocolType::ETHERNET
        });
    let payload = prop_oneof![9 => inner, 1 => other];
    // The protocol type is put in at the end.
    let none = ProtocolType::new(0);
    let dialect = (arbitrary::dialect(), arbitrary::tags()).prop_map(move |(dialect, tags)| {
        let mut header = vec![0; dialect.header_len()];
        dialect.write(&tags, none, &mut header).unwrap();
        header
    });
    let any = (arbitrary::vni(), any::<bool>(), arbitrary::options(), any::<u8>()).prop_map(
        move |(vni, control, options, reserved)| {
            let options: Vec<_> = options.iter().map(arbitrary::OwnedOption::view).collect();
            let mut header = vec![0; geneve::header::MAX_LEN];
            let builder = HeaderBuilder::new(none).vni(vni).control(control);
            let len = builder.options(&options).write(&mut header).unwrap();
            header.truncate(len);
            // Sent as 0 and ignored, whatever is there.
            header[1] |= reserved & 0x3f;
            header[7] = reserved;
            header
        },
    );
    (prop_oneof![dialect, any], payload).prop_map(|(header, (kind, payload))| {
        let mut datagram = [header, payload].concat();
        datagram[2..4].copy_from_slice(&kind.get().to_be_bytes());
        datagram
    })
}

/// Every IP packet of the captures that others made, with where it is from; `None`, and a notice,
/// if they are not there.
pub fn captured() -> Option<Vec<(String, Captured)>> {
    let mut packets = Vec::new();
    for folder in ["geneve", "inner"] {
        for file in corpus::captures(folder)? {
            for (number, packet) in file.packets().into_iter().enumerate() {
                let time = Duration::from_millis(packets.len() as u64);
                packets.push((format!("{} {}", file.name, number + 1), Captured { time, packet }));
            }
        }
    }
    Some(packets)
}

/// What all scenarios send and deliver.
pub fn expected() -> Vec<(String, Captured)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut packets = Vec::new();
    for scenario in scenario::folders(&folder).unwrap() {
        let mut captures: Vec<_> = std::fs::read_dir(scenario.join("expected"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "pcap"))
            .collect();
        captures.sort();
        for path in captures {
            let name = path.strip_prefix(&folder).unwrap().display().to_string();
            let read = capture::read(&path).unwrap();
            packets.extend(read.into_iter().map(|packet| (name.clone(), packet)));
        }
    }
    packets
}
