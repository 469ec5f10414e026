//! A pcapng file that comes in pieces, block by block.

use std::io;
use std::time::Duration;

use pcap_file::Endianness;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// Type and length in front of a block.
const HEAD: usize = 8;
/// Longer than any block that the gateway makes.
const MAX_BLOCK: usize = 1 << 20;

/// What has come of a file, and what was learnt from it.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The beginning of a block of which the rest is to come.
    rest: Vec<u8>,
    /// The blocks that describe what follows: section and interfaces.
    preamble: Vec<u8>,
    interfaces: Vec<String>,
    packets: u64,
    /// By interface: packets that found no room, and packets that nobody looked at.
    missed: Vec<(u64, u64)>,
}

/// A packet of a capture.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// Since 1970.
    pub time: Duration,
    pub point: &'a str,
    pub len: u32,
    pub bytes: &'a [u8],
    pub comment: &'a str,
}

/// The types of section headers and of interface descriptions.
const PREAMBLE: [u32; 2] = [0x0a0d_0d0a, 1];

impl Blocks {
    /// How many packets there were.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// How many more the gateway had no room for, as far as it has said.
    pub fn lost(&self) -> u64 {
        self.missed.iter().map(|(lost, _)| lost).sum()
    }

    /// How many packets the gateway had no time to look at, as far as it has said.
    pub fn passed_by(&self) -> u64 {
        self.missed.iter().map(|(_, passed_by)| passed_by).sum()
    }

    /// Takes what has come; gives what there is of whole blocks.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.rest.extend_from_slice(bytes);
        let mut whole = 0;
        while let Some(head) = self.rest[whole..].first_chunk::<HEAD>() {
            let [.., a, b, c, d] = *head;
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            if !(HEAD + 4..=MAX_BLOCK).contains(&len) {
                return Err(format!("a block of {len} bytes"));
            }
            if self.rest.len() < whole + len {
                break;
            }
            whole += len;
        }
        let rest = self.rest.split_off(whole);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    /// Looks at whole blocks.
    pub fn each(&mut self, whole: &[u8], mut see: impl FnMut(Packet<'_>)) -> io::Result<()> {
        // A reader begins with a section and its interfaces.
        let start = self.preamble.len();
        let mut all = std::mem::take(&mut self.preamble);
        all.extend_from_slice(whole);
        if all.is_empty() {
            return Ok(());
        }
        let mut reader = PcapNgReader::new(&all[..]).map_err(io::Error::other)?;
        if reader.section().endianness != Endianness::Big {
            return Err(io::Error::other("it is not in the order of bytes that gateways write"));
        }
        self.interfaces.clear();
        while let Some(block) = reader.next_block() {
            match block.map_err(io::Error::other)? {
                Block::InterfaceDescription(interface) => {
                    let name = interface.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.clone()),
                        _ => None,
                    });
                    self.interfaces.push(name.unwrap_or_default().into_owned());
                }
                Block::InterfaceStatistics(said) => {
                    self.missed.resize(self.interfaces.len().max(self.missed.len()), (0, 0));
                    if let Some(missed) = self.missed.get_mut(said.interface_id as usize) {
                        for option in &said.options {
                            match option {
                                InterfaceStatisticsOption::IsbOsDrop(lost) => missed.0 = *lost,
                                InterfaceStatisticsOption::IsbIfDrop(passed) => missed.1 = *passed,
                                _ => {}
                            }
                        }
                    }
                }
                Block::EnhancedPacket(packet) => {
                    self.packets += 1;
                    let comment = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Comment(comment) => Some(&**comment),
                        _ => None,
                    });
                    let point = self.interfaces.get(packet.interface_id as usize);
                    see(Packet {
                        time: packet.timestamp,
                        point: point.map_or("", String::as_str),
                        len: packet.original_len,
                        bytes: &packet.data,
                        comment: comment.unwrap_or_default(),
                    });
                }
                _ => {}
            }
        }
        let new = &all[start..];
        let mut preamble = all[..start].to_vec();
        let mut at = 0;
        while let Some(&[t, u, v, w, a, b, c, d]) = new[at..].first_chunk::<HEAD>() {
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            if PREAMBLE.contains(&u32::from_be_bytes([t, u, v, w])) {
                preamble.extend_from_slice(&new[at..at + len]);
            }
            at += len;
        }
        self.preamble = preamble;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of this type with these words in it.
    fn block(of_type: u32, words: &[u32]) -> Vec<u8> {
        let len = 12 + 4 * words.len() as u32;
        let all = [of_type, len].into_iter().chain(words.iter().copied()).chain([len]);
        all.flat_map(u32::to_be_bytes).collect()
    }

    fn section() -> Vec<u8> {
        block(PREAMBLE[0], &[0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX])
    }

    #[test]
    fn a_file_in_any_pieces_is_the_same_file() {
        let interface = block(PREAMBLE[1], &[101 << 16, 64]);
        let packet = block(6, &[0, 0, 5, 4, 60, 0x4500_0000]);
        // Options 5 and 7, of eight bytes each: not looked at, and lost.
        let lost = block(5, &[0, 0, 5, 5 << 16 | 8, 0, 4, 7 << 16 | 8, 0, 3, 0]);
        let file = [section(), interface, packet.clone(), packet, lost].concat();
        for size in [1, 3, 50, file.len()] {
            let (mut blocks, mut seen, mut whole) = (Blocks::default(), 0, Vec::new());
            for piece in file.chunks(size) {
                let taken = blocks.take(piece).unwrap();
                blocks
                    .each(&taken, |packet| {
                        assert_eq!((packet.len, packet.bytes), (60, &[0x45, 0, 0, 0][..]));
                        assert_eq!(packet.time, Duration::from_nanos(5));
                        seen += 1;
                    })
                    .unwrap();
                whole.extend(taken);
            }
            assert_eq!((seen, blocks.packets()), (2, 2), "pieces of {size}");
            assert_eq!((blocks.lost(), blocks.passed_by()), (3, 4), "pieces of {size}");
            assert_eq!(whole, file);
        }
    }

    #[test]
    fn what_is_no_capture_is_told() {
        assert!(Blocks::default().take(b"HTTP/1.1 200 OK").is_err());
        let mut blocks = Blocks::default();
        let noise = block(77, &[1, 2]);
        let taken = blocks.take(&noise).unwrap();
        assert!(blocks.each(&taken, |_| {}).is_err());
    }
}
