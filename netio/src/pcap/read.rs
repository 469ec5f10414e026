//! Reading pcap and pcapng, with whatever resolution and byte order they have.

use std::{borrow::Cow, fmt, io::Read, time::Duration};

use pcap_file::{
    PcapError, TsResolution,
    pcap::{PcapParser, RawPcapPacket},
    pcapng::{
        Block, PcapNgParser,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};

use super::{CaptureError, LinkType};

/// The block type that every pcapng file begins with, the same in both byte orders.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A capture, in memory as a whole.
#[derive(Debug, Clone)]
pub struct Capture {
    bytes: Vec<u8>,
}

/// One captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured, since 1970.
    pub timestamp: Duration,
    /// What it begins with.
    pub link: LinkType,
    /// What was captured of it.
    pub bytes: Cow<'a, [u8]>,
    /// How long it was on the wire, in bytes.
    pub original_len: u32,
}

impl Capture {
    /// Reads a whole capture.
    pub fn read(mut source: impl Read) -> Result<Self, CaptureError> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let capture = Self { bytes };
        match capture.frames().format {
            Format::Broken(Some(error)) => Err(error),
            _ => Ok(capture),
        }
    }

    /// The frames in the order of the file. Behind one that cannot be read there is none.
    pub fn frames(&self) -> Frames<'_> {
        let opened = if self.bytes.starts_with(&PCAPNG) {
            PcapNgParser::new(&self.bytes)
                .map(|(rest, parser)| (rest, Format::PcapNg(Box::new(parser))))
        } else {
            PcapParser::new(&self.bytes).map(|(rest, parser)| (rest, Format::Pcap(parser)))
        };
        let (rest, format) = opened
            .unwrap_or_else(|error| (&self.bytes[..], Format::Broken(Some(problem(0, &error)))));
        Frames { all: self.bytes.len(), rest, format }
    }
}

/// The frames of a capture.
pub struct Frames<'a> {
    all: usize,
    rest: &'a [u8],
    format: Format,
}

impl fmt::Debug for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("bytes", &self.all)
            .field("left", &self.rest.len())
            .finish_non_exhaustive()
    }
}

enum Format {
    Pcap(PcapParser),
    PcapNg(Box<PcapNgParser>),
    Broken(Option<CaptureError>),
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = loop {
            if let Format::Broken(error) = &mut self.format {
                return error.take().map(Err);
            }
            if self.rest.is_empty() {
                return None;
            }
            match self.step() {
                Ok(None) => {}
                Ok(Some(frame)) => break Ok(frame),
                Err(error) => break Err(problem(self.all - self.rest.len(), &error)),
            }
        };
        if result.is_err() {
            self.format = Format::Broken(None);
        }
        Some(result)
    }
}

impl<'a> Frames<'a> {
    /// Reads on by one packet or block; `None` if it was no packet.
    fn step(&mut self) -> Result<Option<Frame<'a>>, PcapError> {
        let (rest, frame) = match &mut self.format {
            Format::Broken(_) => return Ok(None),
            Format::Pcap(parser) => {
                // The raw form: the cooked one refuses packets longer than the header's limit.
                let (rest, packet) = parser.next_raw_packet(self.rest)?;
                let header = parser.header();
                (rest, Some(pcap(packet, header.ts_resolution, u32::from(header.datalink))?))
            }
            Format::PcapNg(parser) => {
                let (rest, block) = parser.next_block(self.rest)?;
                (rest, pcapng(parser, block)?)
            }
        };
        self.rest = rest;
        Ok(frame)
    }
}

fn pcap(
    packet: RawPcapPacket<'_>,
    resolution: TsResolution,
    link: u32,
) -> Result<Frame<'_>, PcapError> {
    let per_second = match resolution {
        TsResolution::MicroSecond => 1_000_000,
        TsResolution::NanoSecond => 1_000_000_000,
    };
    if packet.ts_frac >= per_second {
        return Err(PcapError::InvalidField("fraction of a second in a timestamp"));
    }
    let nanoseconds = packet.ts_frac * (1_000_000_000 / per_second);
    Ok(Frame {
        timestamp: Duration::new(packet.ts_sec.into(), nanoseconds),
        link: link_type(link),
        bytes: packet.data,
        original_len: packet.orig_len,
    })
}

fn pcapng<'a>(parser: &PcapNgParser, block: Block<'a>) -> Result<Option<Frame<'a>>, PcapError> {
    let interface =
        |id: u32| parser.interfaces().get(id as usize).ok_or(PcapError::InvalidInterfaceId(id));
    let (interface, units, bytes, original_len) = match block {
        Block::EnhancedPacket(packet) => {
            // The parser takes every unit for a nanosecond.
            let units = packet.timestamp.as_nanos() as u64;
            (interface(packet.interface_id)?, units, packet.data, packet.original_len)
        }
        Block::Packet(packet) => {
            let id = u32::from(packet.interface_id);
            (interface(id)?, packet.timestamp, packet.data, packet.original_len)
        }
        Block::SimplePacket(packet) => (interface(0)?, 0, packet.data, packet.original_len),
        _ => return Ok(None),
    };
    Ok(Some(Frame {
        timestamp: timestamp(interface, units),
        link: link_type(interface.linktype.into()),
        bytes,
        original_len,
    }))
}

/// The time that `units` of the interface's resolution make (draft-ietf-opsawg-pcapng §4.2,
/// `if_tsresol` and `if_tsoffset`).
fn timestamp(interface: &InterfaceDescriptionBlock<'_>, units: u64) -> Duration {
    let (mut resolution, mut offset) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(value) => offset = *value,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    // Finer than any clock: everything happened in the same moment.
    let Some(per_second) = base.checked_pow(exponent) else {
        return Duration::from_secs(offset);
    };
    let units = u128::from(units);
    let (seconds, fraction) = (units / per_second, units % per_second);
    let nanoseconds = fraction.saturating_mul(1_000_000_000) / per_second;
    Duration::new((seconds as u64).saturating_add(offset), nanoseconds as u32)
}

/// The bits above may hold the length of a frame check sequence.
fn link_type(value: u32) -> LinkType {
    LinkType(value as u16)
}

fn problem(after: usize, error: &PcapError) -> CaptureError {
    let problem = match error {
        PcapError::IncompleteBuffer => "the file ends in the middle of a packet".to_owned(),
        other => other.to_string(),
    };
    CaptureError::Format { after, problem }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The tags of 802.1Q and 802.1ad, and what came before the latter.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// What PPP puts in front of IPv4 and IPv6 (RFC 1332 §2, RFC 5072 §3.1).
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

impl Frame<'_> {
    /// Whether all of the frame was captured.
    pub fn is_complete(&self) -> bool {
        self.bytes.len() >= self.original_len as usize
    }

    /// The IP packet in the frame, with whatever follows it (padding of Ethernet, for example);
    /// `None` for anything else, and for link types not named in [`LinkType`].
    pub fn ip(&self) -> Option<&[u8]> {
        let bytes = &self.bytes[..];
        let packet = match self.link {
            LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => bytes,
            LinkType::NULL | LinkType::LOOP => bytes.get(4..)?,
            LinkType::ETHERNET => ethernet(bytes.get(12..)?)?,
            LinkType::LINUX_SLL => ethernet(bytes.get(14..)?)?,
            LinkType::LINUX_SLL2 => {
                is_ip(ether_type(bytes)?).then_some(())?;
                bytes.get(20..)?
            }
            LinkType::PPP => ppp(bytes)?,
            _ => return None,
        };
        matches!(packet.first()? >> 4, 4 | 6).then_some(packet)
    }
}

/// What follows an `EtherType` at the start of `bytes`, tags skipped, if it is IP.
fn ethernet(mut bytes: &[u8]) -> Option<&[u8]> {
    while VLAN_TAGS.contains(&ether_type(bytes)?) {
        bytes = bytes.get(4..)?;
    }
    is_ip(ether_type(bytes)?).then_some(())?;
    bytes.get(2..)
}

/// What PPP carries, if it is IP.
fn ppp(bytes: &[u8]) -> Option<&[u8]> {
    // Address and control may have been left out (RFC 1661 §6.6), and so may the first byte of the
    // protocol (§6.5), whose last byte is odd.
    let bytes = bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes);
    let (protocol, packet) = match bytes {
        [low, packet @ ..] if low & 1 == 1 => (u16::from(*low), packet),
        [high, low, packet @ ..] => (u16::from_be_bytes([*high, *low]), packet),
        _ => return None,
    };
    matches!(protocol, PPP_IPV4 | PPP_IPV6).then_some(packet)
}

fn is_ip(ether_type: u16) -> bool {
    matches!(ether_type, ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
}

fn ether_type(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}
