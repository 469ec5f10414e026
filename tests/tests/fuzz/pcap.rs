//! Capture files: whatever the bytes, their frames come to an end, lie within them, and survive
//! being written and read again.

use netio::offload::Offload;
use netio::pcap::{Capture, CaptureWriter, Frame, LinkType, Replay};
use netio::{Device, Slot};

use crate::engine::fuzz;

#[test]
fn captures() {
    fuzz!(3_000, |bytes: &[u8]| {
        let Ok(capture) = Capture::read(bytes) else { return };
        let frames: Vec<_> = capture.frames().collect();
        let (sound, end) = match frames.split_last() {
            Some((Err(error), sound)) => (sound, Some(error)),
            _ => (&frames[..], None),
        };
        let sound: Vec<&Frame<'_>> =
            sound.iter().map(|frame| frame.as_ref().expect("an error is the end")).collect();
        if let Some(error) = end {
            assert!(!error.to_string().is_empty());
        }
        let total: usize = sound.iter().map(|frame| frame.bytes.len()).sum();
        // A simple block of pcapng may be cut by the interface's limit, but nothing is made up.
        assert!(total + 8 * sound.len() <= bytes.len(), "{total} bytes of {}", bytes.len());
        for frame in &sound {
            if let Some(packet) = frame.ip() {
                assert!(packet.len() <= frame.bytes.len());
                assert!(matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6) | None));
            }
        }
        assert_replayed(&capture, &sound, end.is_some());
        assert_written(&sound);
    });
}

/// As a device it gives the same packets, and counts those that it leaves out.
fn assert_replayed(capture: &Capture, frames: &[&Frame<'_>], ends_early: bool) {
    let mut replay = Replay::new(capture);
    let mut slots = [Slot::with_capacity(65_535), Slot::with_capacity(65_535)];
    let mut packets = Vec::new();
    let error = loop {
        match replay.recv(&mut slots) {
            Ok(0) => break false,
            Ok(count) => packets.extend(slots[..count].iter().map(|slot| {
                assert_eq!(slot.meta, Offload::NONE);
                slot.packet.bytes().to_vec()
            })),
            Err(_) => break true,
        }
    };
    assert_eq!(error, ends_early);
    assert_eq!(packets.len() as u64 + replay.skipped(), frames.len() as u64);
    let whole = frames.iter().filter(|frame| frame.is_complete());
    let expected = whole.filter_map(|frame| frame.ip()).filter(|packet| packet.len() <= 65_535);
    assert!(packets.iter().map(Vec::as_slice).eq(expected));
}

/// What can be written is read as it was.
fn assert_written(frames: &[&Frame<'_>]) {
    let packets: Vec<_> = frames
        .iter()
        .filter(|frame| u32::try_from(frame.timestamp.as_secs()).is_ok())
        .filter_map(|frame| Some((frame.timestamp, frame.ip()?)))
        .filter(|(_, packet)| !packet.is_empty() && packet.len() <= 65_535)
        .collect();
    let mut writer = CaptureWriter::new(Vec::new(), LinkType::RAW).unwrap();
    for (time, packet) in &packets {
        let (head, tail) = packet.split_at(packet.len() / 2);
        writer.write(*time, &[head, tail]).unwrap();
    }
    let written = writer.into_inner();
    let again = Capture::read(&written[..]).unwrap();
    let again: Vec<_> = again.frames().map(Result::unwrap).collect();
    let found = again.iter().map(|frame| (frame.timestamp, &*frame.bytes));
    assert!(found.eq(packets.iter().map(|(time, packet)| (*time, *packet))));
}
