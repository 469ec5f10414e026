//! IP packets out of capture files, pcap and pcapng.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

/// A captured frame.
struct Captured {
    link: DataLink,
    bytes: Vec<u8>,
    /// Its length before the capture cut it.
    length: u32,
}

/// The IP packet in the n-th captured frame, counted from 1.
pub(super) fn packet(path: &Path, number: u64) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(|error| wrong(&error))?);
    let mut magic = [0; 4];
    file.read_exact(&mut magic)
        .and_then(|()| file.rewind())
        .map_err(|_| wrong(&"it is too short to be a capture"))?;
    // The block type of a section header is a palindrome, so that byte order does not matter.
    let found = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        of_pcapng(file, number)
    } else {
        of_pcap(file, number)
    };
    let Captured { link, bytes: frame, length } = found.map_err(|error| wrong(&error))?;
    if u64::from(length) > frame.len() as u64 {
        let cut = format!("{} of its {length} bytes were captured", frame.len());
        let whole = "capture it as a whole to have it explained (gwlb capture without --snaplen)";
        return Err(wrong(&format_args!("packet {number}: only {cut}; {whole}")));
    }
    let (at, length) = (ip_at(link, &frame), frame.len());
    let at = at.map_err(|error| wrong(&format_args!("packet {number}: {error}")))?;
    Ok(frame[at.min(length)..].to_vec())
}

fn none(number: u64, has: u64) -> String {
    format!("there is no packet {number}; the capture has {has}")
}

fn of_pcap(file: impl Read, number: u64) -> Result<Captured, String> {
    let mut reader = PcapReader::new(file).map_err(|error| described(&error))?;
    let link = reader.header().datalink;
    let mut count = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(|error| described(&error))?;
        count += 1;
        if count == number {
            return Ok(Captured { link, length: packet.orig_len, bytes: packet.data.into_owned() });
        }
    }
    Err(none(number, count))
}

fn of_pcapng(file: impl Read, number: u64) -> Result<Captured, String> {
    let mut reader = PcapNgReader::new(file).map_err(|error| described(&error))?;
    let mut count = 0;
    loop {
        let (interface, length, data) = match reader.next_block() {
            None => return Err(none(number, count)),
            Some(Err(error)) => return Err(described(&error)),
            Some(Ok(Block::EnhancedPacket(packet))) => {
                (packet.interface_id, packet.original_len, owned(packet.data))
            }
            Some(Ok(Block::SimplePacket(packet))) => (0, packet.original_len, owned(packet.data)),
            Some(Ok(Block::Packet(packet))) => {
                (packet.interface_id.into(), packet.original_len, owned(packet.data))
            }
            Some(Ok(_)) => continue,
        };
        count += 1;
        if count == number {
            let link = reader.interfaces().get(interface as usize).map(|it| it.linktype);
            let link = link.ok_or("its interface is not described")?;
            return Ok(Captured { link, length, bytes: data });
        }
    }
}

fn owned(data: Cow<'_, [u8]>) -> Vec<u8> {
    data.into_owned()
}

fn described(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "it ends within a packet".to_owned(),
        error => format!("it is no capture that can be read: {error}"),
    }
}

const ETHERNET_HEADER: usize = 14;
/// IEEE 802.1Q and 802.1ad: four bytes each, in front of the type.
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const SLL_HEADER: usize = 16;
const SLL2_HEADER: usize = 20;
/// libpcap's number of `LINKTYPE_LINUX_SLL2`.
const SLL2: u32 = 276;

/// Where in a frame of this link type the IP packet begins.
fn ip_at(link: DataLink, frame: &[u8]) -> Result<usize, String> {
    let ether_type = |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk::<2>).copied();
    let (ether_type, at) = match link {
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => return Ok(0),
        DataLink::ETHERNET => {
            let mut at = ETHERNET_HEADER;
            while ether_type(at - 2).is_some_and(|found| TAGS.contains(&found)) {
                at += 4;
            }
            (ether_type(at - 2), at)
        }
        DataLink::LINUX_SLL => (ether_type(SLL_HEADER - 2), SLL_HEADER),
        other if u32::from(other) == SLL2 => (ether_type(0), SLL2_HEADER),
        other => return Err(format!("link type {} is not known here", u32::from(other))),
    };
    match ether_type {
        Some(IPV4 | IPV6) => Ok(at),
        Some([high, low]) => Err(format!("type 0x{high:02x}{low:02x} is no IP")),
        None => Err("it is too short to be a frame".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use rstest::rstest;

    use super::*;

    const IP: &[u8] = &[0x45, 0, 0, 20, 1, 2, 3, 4];

    fn framed(front: &[u8]) -> Vec<u8> {
        [front, IP].concat()
    }

    #[rstest]
    #[case::raw(DataLink::RAW, framed(&[]))]
    #[case::ethernet(DataLink::ETHERNET, framed(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0]))]
    #[case::tagged(
        DataLink::ETHERNET,
        framed(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x81, 0, 0, 7, 8, 0])
    )]
    #[case::cooked(DataLink::LINUX_SLL, framed(&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0]))]
    #[case::cooked_2(
        DataLink::from(SLL2),
        framed(&[8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 1, 2, 3, 4, 5, 6, 0, 0])
    )]
    fn the_packet_is_found_behind_its_link_header(#[case] link: DataLink, #[case] frame: Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let (pcap, pcapng) = (directory.path().join("it.pcap"), directory.path().join("it.pcapng"));
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(File::create(&pcap).unwrap(), header).unwrap();
        for data in [&[0xff; 60][..], &frame] {
            let packet = PcapPacket::new(Duration::ZERO, data.len() as u32, data);
            writer.write_packet(&packet).unwrap();
        }
        let mut writer = PcapNgWriter::new(File::create(&pcapng).unwrap()).unwrap();
        let interface =
            InterfaceDescriptionBlock { linktype: link, snaplen: 0, options: Vec::new() };
        writer.write_pcapng_block(interface).unwrap();
        for data in [&[0xff; 60][..], &frame] {
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::ZERO,
                original_len: data.len() as u32,
                data: data.into(),
                options: Vec::new(),
            };
            writer.write_pcapng_block(block).unwrap();
        }
        for file in [&pcap, &pcapng] {
            assert_eq!(packet(file, 2), Ok(IP.to_vec()), "{}", file.display());
            assert!(packet(file, 3).unwrap_err().contains("no packet 3; the capture has 2"));
            let first = packet(file, 1);
            assert!(first.is_err() || link == DataLink::RAW, "{first:?}");
        }
    }

    #[test]
    fn a_packet_that_was_cut_is_not_taken_for_a_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let (pcap, pcapng) = (directory.path().join("it.pcap"), directory.path().join("it.pcapng"));
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(File::create(&pcap).unwrap(), header).unwrap();
        writer.write_packet(&PcapPacket::new(Duration::ZERO, 1500, IP)).unwrap();
        let mut writer = PcapNgWriter::new(File::create(&pcapng).unwrap()).unwrap();
        let (linktype, snaplen, options) = (DataLink::RAW, 8, Vec::new());
        let interface = InterfaceDescriptionBlock { linktype, snaplen, options };
        writer.write_pcapng_block(interface).unwrap();
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: 1500,
            data: IP.into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
        for file in [&pcap, &pcapng] {
            let said = packet(file, 1).unwrap_err();
            assert!(said.contains("packet 1: only 8 of its 1500 bytes were captured"), "{said}");
        }
    }

    #[test]
    fn what_is_no_capture_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("notes.txt");
        let said = |text: &[u8]| {
            std::fs::write(&file, text).unwrap();
            packet(&file, 1).unwrap_err()
        };
        assert!(said(b"").contains("too short"));
        assert!(said(b"Dear diary, today I saw a packet").contains("no capture"));
        assert!(said(&[0x0a, 0x0d, 0x0d, 0x0a, 1, 2, 3, 4, 5, 6]).contains("notes.txt"));
        let frame = [0; 20];
        assert!(ip_at(DataLink::ETHERNET, &frame).unwrap_err().contains("type 0x0000"));
        assert!(ip_at(DataLink::ETHERNET, &frame[..9]).unwrap_err().contains("too short"));
        assert!(ip_at(DataLink::NULL, &frame).unwrap_err().contains("link type 0"));
    }
}
