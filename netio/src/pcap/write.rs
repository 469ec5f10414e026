//! Writing pcap: nanoseconds, little-endian on every machine, so that the same packets make the
//! same file.

use std::{io::Write, time::Duration};

use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};

use super::{CaptureError, LinkType};

/// The longest packet that tools read from a capture (libpcap's `MAXIMUM_SNAPLEN`).
const MAX_PACKET: u32 = 262_144;

/// Addresses for captures as Ethernet, which nobody else has: locally administered.
const MAC_HEADER: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// Writes IP packets to a capture.
#[derive(Debug)]
pub struct CaptureWriter<W: Write> {
    writer: PcapWriter<W>,
    ethernet: bool,
    frame: Vec<u8>,
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture of [`LinkType::RAW`] or [`LinkType::ETHERNET`].
    pub fn new(target: W, link: LinkType) -> Result<Self, CaptureError> {
        let datalink = match link {
            LinkType::RAW => DataLink::RAW,
            LinkType::ETHERNET => DataLink::ETHERNET,
            other => return Err(CaptureError::LinkType(other)),
        };
        let header = PcapHeader {
            snaplen: MAX_PACKET,
            datalink,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(target, header).map_err(failed)?;
        Ok(Self { writer, ethernet: link == LinkType::ETHERNET, frame: Vec::new() })
    }

    /// Writes the IP packet that `parts` make one after the other, captured at `time` (since 1970,
    /// up to 2106). On Ethernet it gets made-up addresses.
    pub fn write(&mut self, time: Duration, parts: &[&[u8]]) -> Result<(), CaptureError> {
        self.frame.clear();
        if self.ethernet {
            let v6 = parts.iter().find_map(|part| part.first()).is_some_and(|byte| byte >> 4 == 6);
            self.frame.extend_from_slice(&MAC_HEADER);
            self.frame.extend_from_slice(if v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
        }
        for part in parts {
            self.frame.extend_from_slice(part);
        }
        let packet = PcapPacket::new(time, self.frame.len() as u32, &self.frame);
        self.writer.write_packet(&packet).map(drop).map_err(failed)
    }

    /// Ends the capture and returns what it was written to.
    pub fn into_inner(self) -> W {
        self.writer.into_writer()
    }
}

fn failed(error: PcapError) -> CaptureError {
    match error {
        PcapError::IoError(error) => CaptureError::Io(error),
        other => CaptureError::Io(std::io::Error::other(other)),
    }
}
