//! The capture file: pcapng with nanoseconds, raw IP packets, and a comment on each.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use appliance_sdk::geneve::Tags;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, PcapError};

/// A packet to be written.
#[derive(Debug)]
pub struct Copied {
    /// When it came, since 1970-01-01 00:00 UTC.
    pub time: Duration,
    /// Its bytes, or the first of them.
    pub bytes: Vec<u8>,
    /// How many bytes it had.
    pub original_len: usize,
    /// What the gateway said about it.
    pub tags: Tags,
}

/// Writes packets to a capture.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<Counted<W>>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture of packets of which up to `snaplen` bytes are kept.
    pub fn begin(to: W, snaplen: usize) -> io::Result<Self> {
        let mut writer = PcapNgWriter::new(Counted { inner: to, bytes: 0 }).map_err(into_io)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: snaplen as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("geneve")),
                // Times are in 10⁻⁹ seconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        writer.write_block(&interface.into_block()).map_err(into_io)?;
        Ok(Self { writer })
    }

    /// Writes a packet, with the endpoint and the cookie in a comment.
    pub fn write(&mut self, packet: &Copied) -> io::Result<()> {
        let Tags { endpoint, attachment, cookie } = packet.tags;
        let comment =
            format!("endpoint={endpoint:#018x} attachment={attachment:#x} cookie={cookie:#010x}");
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: packet.time,
            original_len: packet.original_len as u32,
            data: Cow::Borrowed(&packet.bytes),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment))],
        };
        self.writer.write_block(&block.into_block()).map(drop).map_err(into_io)
    }

    /// Has everything that was written reach its destination.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.writer.get_ref().bytes
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

/// Counts what it passes on.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
