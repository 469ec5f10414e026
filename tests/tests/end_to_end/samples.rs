//! The other samples behind the gateway: each does what it is for, and lets through what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use geneve::{Inner, TcpFlags, Transport};
use gwlb_tests::world::site::UNDERLAY;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, LIMIT, Plan};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

use super::{FAMILIES, directions, world};

#[test]
fn the_ids_tells_of_a_pattern_across_segments_and_blocks_only_where_it_should() {
    let Some(world) = world("the_ids", Plan::default()) else { return };
    let patterns = "[[pattern]]\nname = \"noted\"\ntext = \"attack at dawn\"\naction = \"alert\"\n\
                    [[pattern]]\nname = \"banned\"\ntext = \"attack at once\"\naction = \"block\"\n";
    let file = world.write("patterns.toml", patterns);
    let mut ids = world.start_appliance(0, &["ids", "--patterns", file.to_str().unwrap()]);
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        let listener = traffic::listen(&world.servers[0], family, 0);
        let to = listener.local_addr().unwrap();
        let connect = || {
            let stream = traffic::connect(&world.client, to, LIMIT).unwrap();
            stream.set_nodelay(true).unwrap();
            (stream, listener.accept().unwrap().0)
        };
        let (mut client, mut server) = connect();
        let mut hear = |client: &mut std::net::TcpStream, text: &str| {
            client.write_all(text.as_bytes()).unwrap();
            let mut heard = vec![0; text.len()];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(heard, text.as_bytes());
        };
        // Heard in between, so that the pattern lies in two segments.
        hear(&mut client, "we attack ");
        hear(&mut client, "at dawn.");
        let alert = ids.process.wait_for_line(&to.to_string());
        let alert: Value = serde_json::from_str(&alert).unwrap();
        assert_eq!((&alert["pattern"], &alert["blocked"]), (&"noted".into(), &false.into()));
        assert_eq!(alert["source"], client.local_addr().unwrap().to_string());
        hear(&mut client, "All is well.");

        let (mut client, mut server) = connect();
        client.write_all(b"we attack at once!").unwrap();
        let source = client.local_addr().unwrap().to_string();
        let alert = ids.process.wait_for_line(&source);
        let alert: Value = serde_json::from_str(&alert).unwrap();
        assert_eq!((&alert["pattern"], &alert["blocked"]), (&"banned".into(), &true.into()));
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let nothing = server.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{nothing}");
    }
    gateway.stop();
}

#[test]
fn the_mirror_copies_exactly_what_goes_through() {
    let Some(world) = world("the_mirror", Plan::default()) else { return };
    let file = world.folder().join("copy.pcapng");
    let mut mirror = world.start_appliance(0, &["mirror", "--out", file.to_str().unwrap()]);
    let mut gateway = world.start_gateway();
    let mut expected = BTreeMap::new();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            for number in 0..8 {
                let payload = format!("{family:?} datagram {number} to {}", server.address());
                traffic::exchange(&socket, payload.as_bytes()).unwrap();
                // There and back.
                expected.insert(payload.into_bytes(), 2);
            }
        }
    }
    let transfer = traffic::transfer(&world.client, &world.servers[0], Family::V4, 1 << 20);
    let status = gateway.settled();
    status.assert_lossless();
    mirror.process.terminate();
    assert_eq!(mirror.process.finish().code, Some(0));

    let copies = read_capture(&file);
    let target = &status.targets[0];
    assert_eq!(copies.len() as u64, target.sent_packets);
    assert_eq!(copies.iter().map(|copy| copy.bytes.len() as u64).sum::<u64>(), target.sent_bytes);
    let (mut datagrams, mut segments, mut first) = (BTreeMap::new(), BTreeSet::new(), None);
    let mut cookies: BTreeMap<_, &str> = BTreeMap::new();
    for copy in &copies {
        let inner = Inner::parse(&copy.bytes).unwrap();
        let payload = &copy.bytes[inner.header_len..inner.total_len];
        match inner.transport {
            Transport::Udp { .. } => *datagrams.entry(payload[8..].to_vec()).or_default() += 1,
            Transport::Tcp { header_len, flags, .. } => {
                let sequence = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                if flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK) {
                    first = Some(sequence.wrapping_add(1));
                }
                if let (Some(first), length @ 1..) = (first, payload.len() - header_len) {
                    segments.insert((sequence.wrapping_sub(first), length));
                }
            }
            other => panic!("{other:?}"),
        }
        assert!(copy.comment.contains("endpoint"), "{}", copy.comment);
        // Both directions of a flow say the same of it, the cookie included.
        let comment = cookies.entry(inner.flow_key().canonical()).or_insert(&copy.comment);
        assert_eq!(*comment, copy.comment);
    }
    assert_eq!(datagrams, expected);
    // Some segments may have been sent twice; but there is no hole.
    let end = segments.into_iter().fold(0, |end, (start, length)| {
        assert!(start <= end, "the copy lacks bytes {end} to {start} of the stream");
        end.max(start + length as u32)
    });
    assert_eq!(u64::from(end), transfer.bytes);
    assert_eq!(cookies.len(), 5);
    gateway.stop();
}

/// A packet of a capture file.
struct Copy {
    bytes: Vec<u8>,
    comment: String,
}

fn read_capture(file: &Path) -> Vec<Copy> {
    let mut reader = PcapNgReader::new(File::open(file).unwrap()).unwrap();
    let mut copies = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
        assert_eq!(packet.data.len(), packet.original_len as usize);
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
            _ => None,
        });
        copies.push(Copy { bytes: packet.data.to_vec(), comment: comment.unwrap() });
    }
    copies
}

#[test]
fn the_hand_off_gives_packets_to_the_kernel_and_takes_them_back() {
    let Some(world) = world("the_hand_off", Plan::default()) else { return };
    let arguments = ["handoff", "--device", "kernel", "--hairpin"];
    let mut handoff = world.start_appliance(0, &arguments);
    let mut gateway = world.start_gateway();
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            traffic::transfer(from, to, family, 2 << 20);
            traffic::ping(from, to.address(family), 1000).unwrap();
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            traffic::exchange(&socket, b"through the kernel").unwrap();
        }
    }
    let status = gateway.settled();
    assert!(status.is_balanced() && status.drops().is_empty(), "{status:#?}");
    // The kernel forwarded all of it: out of the device and into it again.
    let device = world.appliances[0].links().statistics("kernel").unwrap();
    assert!(device.rx_packets >= status.targets[0].sent_packets, "{device:?}");
    assert!(device.tx_packets >= status.targets[0].returned_packets, "{device:?}");
    handoff.process.terminate();
    assert_eq!(handoff.process.finish().code, Some(0));
    assert_eq!(world.appliances[0].devices(), ["lo", UNDERLAY]);
    gateway.stop();
}
