//! Capture files: read them, write them, and use them in place of a TUN device.
//!
//! [`Capture`] reads pcap and pcapng of the common link types; [`CaptureWriter`] writes pcap with
//! nanoseconds, as raw IP or Ethernet. [`Replay`] and [`Record`] are devices over the two. Nothing
//! here reads a clock or waits: time is what the file says, or what the caller says.

mod read;
mod write;

use std::io::{self, IoSlice, Write};

use geneve::inner::Inner;
use thiserror::Error;

use crate::{
    device::{Device, Slot},
    offload::{MAX_HEADERS, Offload, Segmenter},
};
use std::time::Duration;

pub use read::{Capture, Frame, Frames};
pub use write::CaptureWriter;

/// What the frames of a capture begin with, by the number of `tcpdump.org/linktypes.html`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: the address family in the byte order of the capturing machine.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// PPP.
    pub const PPP: LinkType = LinkType(9);
    /// IPv4 or IPv6 without anything in front.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: the address family in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux "cooked", as from the device `any`.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// IPv4 without anything in front.
    pub const IPV4: LinkType = LinkType(228);
    /// IPv6 without anything in front.
    pub const IPV6: LinkType = LinkType(229);
    /// Linux "cooked", version 2.
    pub const LINUX_SLL2: LinkType = LinkType(276);
}

/// Why a capture cannot be read or written.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Reading or writing failed.
    #[error("capture: {0}")]
    Io(#[from] io::Error),
    /// The file is no capture, ends in the middle of a packet, or contradicts itself.
    #[error("capture, after {after} bytes: {problem}")]
    Format {
        /// How many bytes of the file were in order.
        after: usize,
        /// What is wrong then.
        problem: String,
    },
    /// Captures can only be written as [`LinkType::RAW`] or [`LinkType::ETHERNET`].
    #[error("link type {} cannot be written, only {} and {}", .0.0, LinkType::RAW.0, LinkType::ETHERNET.0)]
    LinkType(LinkType),
}

/// Plays the IP packets of a capture, in order, as fast as they are asked for.
#[derive(Debug)]
pub struct Replay<'a> {
    frames: std::iter::Peekable<Frames<'a>>,
    until: Option<Duration>,
    skipped: u64,
}

impl<'a> Replay<'a> {
    /// Plays `capture` from its beginning.
    pub fn new(capture: &'a Capture) -> Self {
        Self { frames: capture.frames().peekable(), until: None, skipped: 0 }
    }

    /// Holds back what was captured later than `time` (since 1970), until the next call.
    pub fn play_until(&mut self, time: Duration) {
        self.until = Some(time);
    }

    /// When the next frame was captured (since 1970); `None` at the end of the capture or where it
    /// cannot be read on.
    pub fn next_time(&mut self) -> Option<Duration> {
        match self.frames.peek() {
            Some(Ok(frame)) => Some(frame.timestamp),
            Some(Err(_)) | None => None,
        }
    }

    /// How many frames were left out: they held no IP packet, not all of it, or one longer than
    /// its slot.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl Device for Replay<'_> {
    type Meta = Offload;

    fn recv(&mut self, slots: &mut [Slot<Offload>]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(slot) = slots.get_mut(filled) {
            let until = self.until;
            let due = |frame: &Result<Frame<'_>, _>| match (frame, until) {
                (Ok(frame), Some(until)) => frame.timestamp <= until,
                _ => true,
            };
            // What was played before must not be lost: an error waits for the next call.
            let Some(frame) =
                self.frames.next_if(|frame| due(frame) && (frame.is_ok() || filled == 0))
            else {
                break;
            };
            let frame = frame.map_err(io::Error::other)?;
            slot.packet.clear();
            match frame.ip().filter(|_| frame.is_complete()) {
                Some(packet) if slot.packet.extend_from_slice(packet).is_ok() => {
                    slot.meta = Offload::NONE;
                    filled += 1;
                }
                _ => self.skipped += 1,
            }
        }
        Ok(filled)
    }

    /// A capture takes nothing: always [`io::ErrorKind::Unsupported`].
    fn send(&mut self, _meta: &Offload, _pieces: &[IoSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes the packets that are sent into it to a capture, super-packets cut into what would be on
/// the wire.
#[derive(Debug)]
pub struct Record<W: Write> {
    writer: CaptureWriter<W>,
    time: Duration,
    packet: Vec<u8>,
}

impl<W: Write> Record<W> {
    /// Records to `writer`, at time 0 until told otherwise.
    pub fn new(writer: CaptureWriter<W>) -> Self {
        Self { writer, time: Duration::ZERO, packet: Vec::new() }
    }

    /// Sets the time (since 1970) of what is recorded from now on.
    pub fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// Ends recording and returns the writer.
    pub fn into_writer(self) -> CaptureWriter<W> {
        self.writer
    }
}

impl<W: Write> Device for Record<W> {
    type Meta = Offload;

    /// A recording has nothing to give: always 0.
    fn recv(&mut self, _slots: &mut [Slot<Offload>]) -> io::Result<usize> {
        Ok(0)
    }

    /// # Errors
    /// Besides those of writing, [`io::ErrorKind::InvalidInput`] for a packet that cannot be cut as
    /// `meta` says.
    fn send(&mut self, meta: &Offload, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.packet.clear();
        for piece in pieces {
            self.packet.extend_from_slice(piece);
        }
        if *meta == Offload::NONE {
            return self.writer.write(self.time, &[&self.packet]).map_err(io::Error::other);
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let inner = Inner::parse(&self.packet).map_err(|error| invalid(error.to_string()))?;
        let segmenter = Segmenter::new(&self.packet, &inner, meta);
        let segmenter = segmenter.map_err(|error| invalid(error.to_string()))?;
        let mut headers = [0; MAX_HEADERS];
        for index in 0..segmenter.count() {
            let segment = segmenter.segment(index, &mut headers);
            let parts = [&headers[..segment.header_len], &self.packet[segment.payload]];
            self.writer.write(self.time, &parts).map_err(io::Error::other)?;
        }
        Ok(())
    }
}
