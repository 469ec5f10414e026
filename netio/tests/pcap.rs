//! Capture files: what is written is read, what others write is read, and both serve as devices.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod packets;

use std::{
    borrow::Cow,
    io::{ErrorKind, IoSlice},
    time::Duration,
};

use netio::{
    Device, Slot,
    offload::{Offload, PartialChecksum, Segmentation},
    pcap::{Capture, CaptureError, CaptureWriter, Frame, LinkType, Record, Replay},
};
use packets::{Flow, assert_sound};
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use proptest::prelude::*;
use rstest::rstest;

const SECOND: Duration = Duration::from_secs(1_700_000_000);

fn nanoseconds(nanoseconds: u64) -> Duration {
    SECOND + Duration::from_nanos(nanoseconds)
}

fn written(link: LinkType, packets: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), link).unwrap();
    for (time, packet) in packets {
        let (head, tail) = packet.split_at(packet.len() / 2);
        writer.write(*time, &[head, tail]).unwrap();
    }
    writer.into_inner()
}

#[rstest]
#[case(LinkType::RAW)]
#[case(LinkType::ETHERNET)]
fn what_is_written_is_read(#[case] link: LinkType) {
    let packets = [
        (nanoseconds(1), Flow::TCP4.packet(b"one").build()),
        (nanoseconds(999_999_999), Flow::UDP6.packet(b"two").build()),
    ];
    let capture = Capture::read(&written(link, &packets)[..]).unwrap();
    let frames: Vec<_> = capture.frames().map(Result::unwrap).collect();
    assert_eq!(frames.len(), 2);
    for (frame, (time, packet)) in frames.iter().zip(&packets) {
        assert!(frame.is_complete());
        assert_eq!((frame.link, frame.timestamp, frame.ip()), (link, *time, Some(&packet[..])));
    }
}

#[test]
fn the_same_packets_make_the_same_file() {
    let file = written(LinkType::RAW, &[(nanoseconds(5), vec![0x45, 1, 2])]);
    let header =
        [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
    let seconds = 1_700_000_000_u32.to_le_bytes();
    let record = [&seconds[..], &[5, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0x45, 1, 2]].concat();
    assert_eq!(file, [&header[..], &record].concat());
}

#[test]
fn other_link_types_are_not_written() {
    let error = CaptureWriter::new(Vec::new(), LinkType::PPP).unwrap_err();
    assert_eq!(error.to_string(), "link type 9 cannot be written, only 101 and 1");
}

#[rstest]
#[case::raw(LinkType::RAW, &[], true)]
#[case::ipv4(LinkType::IPV4, &[], true)]
#[case::null(LinkType::NULL, &[2, 0, 0, 0], true)]
#[case::open_bsd_loopback(LinkType::LOOP, &[0, 0, 0, 2], true)]
#[case::ethernet(LinkType::ETHERNET, &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 0], true)]
#[case::vlan(
    LinkType::ETHERNET,
    &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 0],
    true
)]
#[case::arp(LinkType::ETHERNET, &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 8, 6], false)]
#[case::cooked(LinkType::LINUX_SLL, &[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0], true)]
#[case::cooked_2(
    LinkType::LINUX_SLL2,
    &[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0],
    true
)]
#[case::ppp(LinkType::PPP, &[0xff, 3, 0, 0x21], true)]
#[case::ppp_without_address(LinkType::PPP, &[0, 0x21], true)]
#[case::ppp_compressed(LinkType::PPP, &[0x21], true)]
#[case::ppp_control(LinkType::PPP, &[0xff, 3, 0xc0, 0x21], false)]
#[case::unknown(LinkType(147), &[], false)]
fn the_packet_is_found_behind(#[case] link: LinkType, #[case] front: &[u8], #[case] found: bool) {
    let packet = Flow::UDP4.packet(b"payload").build();
    let bytes = [front, &packet].concat();
    let frame = |bytes: Vec<u8>| Frame {
        timestamp: SECOND,
        link,
        original_len: bytes.len() as u32,
        bytes: Cow::Owned(bytes),
    };
    assert_eq!(frame(bytes.clone()).ip(), found.then_some(&packet[..]));
    // However little there is, nothing is read that is not there.
    for len in 0..=front.len() {
        assert_eq!(frame(bytes[..len].to_vec()).ip(), None);
    }
}

#[rstest]
#[case::default(None, 1_500_000, 1_500_000_000)]
#[case::microseconds(Some(6), 1_500_000, 1_500_000_000)]
#[case::nanoseconds(Some(9), 1_500_000_001, 1_500_000_001)]
#[case::seconds(Some(0), 3, 3_000_000_000)]
#[case::binary(Some(0x8a), 1024 + 512, 1_500_000_000)]
#[case::absurd(Some(0x7f), 12, 0)]
fn pcapng_has_any_resolution(
    #[case] resolution: Option<u8>,
    #[case] units: u64,
    #[case] nanoseconds: u64,
) {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    let mut interface = InterfaceDescriptionBlock::new(DataLink::RAW, 0);
    interface.options.extend(resolution.map(InterfaceDescriptionOption::IfTsResol));
    writer.write_pcapng_block(interface).unwrap();
    let packet = Flow::TCP6.packet(b"payload").build();
    let block = EnhancedPacketBlock {
        interface_id: 0,
        timestamp: Duration::from_nanos(units),
        original_len: packet.len() as u32,
        data: Cow::Borrowed(&packet),
        options: Vec::new(),
    };
    writer.write_pcapng_block(block).unwrap();

    let capture = Capture::read(&writer.into_inner()[..]).unwrap();
    let frame = capture.frames().next().unwrap().unwrap();
    assert_eq!(frame.timestamp, Duration::from_nanos(nanoseconds));
    assert_eq!((frame.ip(), frame.link), (Some(&packet[..]), LinkType::RAW));
}

#[test]
fn a_file_that_is_cut_off_or_none_says_where() {
    let packets: Vec<_> = (0..3).map(|time| (nanoseconds(time), vec![0x45; 10])).collect();
    let file = written(LinkType::RAW, &packets);
    let record = 16 + 10;
    for len in 0..file.len() {
        let Ok(capture) = Capture::read(&file[..len]) else {
            assert!(len < 24, "the header is there");
            continue;
        };
        let (whole, rest) = ((len - 24) / record, (len - 24) % record);
        let mut frames = capture.frames();
        assert_eq!(frames.by_ref().take(whole).flatten().count(), whole);
        match frames.next() {
            None => assert_eq!(rest, 0),
            Some(error) => assert_eq!(
                error.unwrap_err().to_string(),
                format!(
                    "capture, after {} bytes: the file ends in the middle of a packet",
                    24 + whole * record
                )
            ),
        }
        assert!(frames.next().is_none());
    }
    let none = Capture::read(&[7; 100][..]).unwrap_err();
    assert!(matches!(none, CaptureError::Format { after: 0, .. }), "{none}");
}

#[test]
fn a_capture_is_played_in_order_and_in_time() {
    let other = [0; 60];
    let mut writer = CaptureWriter::new(Vec::new(), LinkType::RAW).unwrap();
    let packets: Vec<_> = (0..4_u8).map(|at| Flow::TCP4.packet(&[at]).build()).collect();
    for (at, packet) in packets.iter().enumerate() {
        writer.write(nanoseconds(at as u64), &[packet]).unwrap();
        writer.write(nanoseconds(at as u64), &[&other]).unwrap();
    }
    let capture = Capture::read(&writer.into_inner()[..]).unwrap();
    let mut replay = Replay::new(&capture);
    let mut slots: Vec<_> = (0..3).map(|_| Slot::with_capacity(1500)).collect();

    assert_eq!(replay.next_time(), Some(SECOND));
    replay.play_until(nanoseconds(1));
    assert_eq!(replay.recv(&mut slots).unwrap(), 2);
    assert_eq!((&slots[0].packet[..], &slots[1].packet[..]), (&packets[0][..], &packets[1][..]));
    assert_eq!(replay.recv(&mut slots).unwrap(), 0);
    assert_eq!(replay.next_time(), Some(nanoseconds(2)));
    replay.play_until(Duration::MAX);
    assert_eq!(replay.recv(&mut slots).unwrap(), 2);
    assert_eq!(slots[1].packet[..], packets[3]);
    assert_eq!((replay.recv(&mut slots).unwrap(), replay.next_time()), (0, None));
    assert_eq!(replay.skipped(), 4);

    let error = replay.send(&Offload::NONE, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_unreadable_capture_fails_after_what_could_be_read() {
    let packets: Vec<_> = (0..2).map(|at| (SECOND, Flow::TCP4.packet(&[at]).build())).collect();
    let file = written(LinkType::RAW, &packets);
    let capture = Capture::read(&file[..file.len() - 1]).unwrap();
    let mut replay = Replay::new(&capture);
    let mut slots = [Slot::with_capacity(1500), Slot::with_capacity(1500)];
    assert_eq!(replay.recv(&mut slots).unwrap(), 1);
    assert!(replay.recv(&mut slots).is_err());
    assert_eq!(replay.recv(&mut slots).unwrap(), 0);
}

#[test]
fn a_recording_shows_what_would_be_on_the_wire() {
    let mut record = Record::new(CaptureWriter::new(Vec::new(), LinkType::RAW).unwrap());
    let plain = Flow::UDP6.packet(b"plain").build();
    record.set_time(nanoseconds(7));
    record.send(&Offload::NONE, &[IoSlice::new(&plain)]).unwrap();
    let whole = Flow::TCP4.packet(&[1; 2500]).build_partial();
    let offload = Offload {
        segment: Segmentation::Tcp { size: 1000, ecn: false },
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        hdr_len: 52,
    };
    let (headers, payload) = whole.split_at(52);
    record.send(&offload, &[IoSlice::new(headers), IoSlice::new(payload)]).unwrap();
    let refused = record.send(&offload, &[IoSlice::new(&plain)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(record.recv(&mut [Slot::with_capacity(10)]).unwrap(), 0);

    let capture = Capture::read(&record.into_writer().into_inner()[..]).unwrap();
    let frames: Vec<_> = capture.frames().map(Result::unwrap).collect();
    assert_eq!(frames[0].ip(), Some(&plain[..]));
    let lengths: Vec<_> = frames.iter().map(|frame| frame.bytes.len()).collect();
    assert_eq!(lengths, [plain.len(), 1052, 1052, 552]);
    for frame in &frames {
        assert_sound(&frame.bytes);
        assert_eq!(frame.timestamp, nanoseconds(7));
    }
}

/// A pcapng file with two packets.
fn pcapng() -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    interface.options.push(InterfaceDescriptionOption::IfTsResol(9));
    interface.options.push(InterfaceDescriptionOption::IfTsOffset(1));
    writer.write_pcapng_block(interface).unwrap();
    for at in 0..2 {
        let packet = [&[0; 12][..], &[8, 0], &Flow::TCP4.packet(&[at]).build()].concat();
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: SECOND,
            original_len: packet.len() as u32,
            data: Cow::Owned(packet),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    writer.into_inner()
}

fn read_all(file: &[u8]) {
    if let Ok(capture) = Capture::read(file) {
        for frame in capture.frames() {
            match frame {
                Ok(frame) => assert!(frame.ip().is_none_or(|packet| packet.len() <= file.len())),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        let mut replay = Replay::new(&capture);
        let mut slots = [Slot::with_capacity(100), Slot::with_capacity(100)];
        while replay.recv(&mut slots).is_ok_and(|count| count > 0) {}
    }
}

proptest! {
    #[test]
    fn noise_and_damage_never_panic(
        kind in 0..3,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let packets = [(SECOND, Flow::TCP4.packet(b"one").build()), (SECOND, vec![0x60; 50])];
        let mut file = match kind {
            0 => written(LinkType::ETHERNET, &packets),
            1 => pcapng(),
            _ => noise,
        };
        for (at, value) in damages {
            if !file.is_empty() {
                let at = at.index(file.len());
                file[at] = value;
            }
        }
        read_all(&file);
        read_all(&file[..cut.index(file.len() + 1)]);
    }
}
