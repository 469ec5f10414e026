//! The capture as a file: pcapng with one interface for each point, raw IP packets, nanoseconds, and
//! a comment on each packet.

use std::borrow::Cow;
use std::fmt::Write as _;

use geneve::buffer::PacketBuf;
use geneve::outer::{self, OuterHeader, UdpChecksum};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

use super::flows_seen::SeenWay;
use super::tap::Record;
use super::{Counts, Point, Points};
use crate::dataplane::encap::HOP_LIMIT;
use crate::dataplane::snapshot::Snapshot;
use crate::runtime::datagrams::{Shown, endpoint_name};
use crate::runtime::witness::Whereabouts;

/// Time to live of datagrams from appliances, which nobody has kept: what most hosts send with.
const USUAL_TTL: u8 = 64;

/// A capture in the making.
pub(super) struct CaptureFile {
    writer: PcapNgWriter<Vec<u8>>,
    points: Points,
    /// What was taken out of the writer.
    taken: u64,
}

impl CaptureFile {
    /// Begins a capture of packets at these points, of which up to `snaplen` bytes are kept.
    /// `filter` says in words what is meant.
    pub fn begin(points: Points, snaplen: usize, filter: &str) -> Result<Self, PcapError> {
        let version = concat!("gwlb ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            // In the other order `pcap-file` has the halves of times in interface statistics the
            // wrong way round.
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(version))],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        for point in points.each() {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(point.name())),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(point.description())),
                // Times are in 10⁻⁹ seconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            if !filter.is_empty() {
                options.push(InterfaceDescriptionOption::Comment(Cow::Borrowed(filter)));
            }
            let linktype = DataLink::RAW;
            let interface =
                InterfaceDescriptionBlock { linktype, snaplen: snaplen as u32, options };
            writer.write_block(&interface.into_block())?;
        }
        Ok(Self { writer, points, taken: 0 })
    }

    fn interface(&self, point: Point) -> u32 {
        self.points.each().take_while(|other| *other < point).count() as u32
    }

    /// Writes a packet; `bytes` are those that were kept of it.
    pub fn packet(
        &mut self,
        worker: usize,
        record: &Record,
        bytes: &[u8],
        view: Option<&Snapshot>,
        way: Option<&SeenWay>,
    ) -> Result<(), PcapError> {
        let (data, len) = match enveloped(record, bytes) {
            Some(whole) => (Cow::Owned(whole.0), whole.1),
            None => (Cow::Borrowed(bytes), record.len),
        };
        let block = EnhancedPacketBlock {
            interface_id: self.interface(record.seen.point),
            timestamp: record.time,
            original_len: len as u32,
            data,
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(
                worker, record, view, way,
            )))],
        };
        self.writer.write_block(&block.into_block()).map(drop)
    }

    /// Writes how many packets nobody looked at, how many were looked at and meant, and both together;
    /// and of those that were meant, how many found no room, and how many are in the capture.
    pub fn statistics(
        &mut self,
        point: Point,
        time: std::time::Duration,
        Counts { meant, lost, passed_by }: Counts,
        written: u64,
    ) -> Result<(), PcapError> {
        let block = InterfaceStatisticsBlock {
            interface_id: self.interface(point),
            timestamp: time.as_nanos() as u64,
            options: vec![
                InterfaceStatisticsOption::IsbIfRecv(meant + passed_by),
                InterfaceStatisticsOption::IsbIfDrop(passed_by),
                InterfaceStatisticsOption::IsbFilterAccept(meant),
                InterfaceStatisticsOption::IsbOsDrop(lost),
                InterfaceStatisticsOption::IsbUsrDeliv(written),
            ],
        };
        self.writer.write_block(&block.into_block()).map(drop)
    }

    /// How long it is so far.
    pub fn len(&self) -> u64 {
        self.taken + self.writer.get_ref().len() as u64
    }

    /// Whether all that was written is taken.
    pub fn is_taken(&self) -> bool {
        self.writer.get_ref().is_empty()
    }

    /// What was written and not taken yet: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(self.writer.get_mut());
        self.taken += bytes.len() as u64;
        bytes
    }
}

/// A datagram in its outer headers, as far as its bytes were kept, and how long it was with them.
/// `None` for what is no datagram. Of one that was cut, the UDP checksum is left out.
fn enveloped(record: &Record, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let ((src, dst), ttl) = match record.seen.whereabouts {
        Whereabouts::To { peer, local, .. } => ((local, peer), HOP_LIMIT),
        Whereabouts::From { peer, local } => ((peer, local), USUAL_TTL),
        Whereabouts::At(_) | Whereabouts::Leaving { .. } | Whereabouts::Gone(_) => return None,
    };
    let whole = bytes.len() == record.len;
    let header = OuterHeader {
        src,
        dst,
        ttl,
        tos: 0,
        dont_fragment: false,
        id: 0,
        checksum: if whole { UdpChecksum::On } else { UdpChecksum::Zero },
    };
    // In its full length, for that is what the headers say.
    let mut packet = PacketBuf::with_capacity(record.len);
    packet.extend_from_slice(bytes).ok()?;
    packet.extend_from_slice(&vec![0; record.len - bytes.len()]).ok()?;
    outer::encapsulate(&header, &mut packet).ok()?;
    let kept = packet.len() - record.len + bytes.len();
    Some((packet.bytes()[..kept].to_vec(), packet.len()))
}

/// What is said of a packet, as `name=value` with commas in between.
fn comment(
    worker: usize,
    record: &Record,
    view: Option<&Snapshot>,
    way: Option<&SeenWay>,
) -> String {
    let seen = &record.seen;
    let mut comment = format!("point={}, worker={worker}", seen.point.name());
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        // A string takes anything.
        let _ = write!(comment, ", {name}={value}");
    };
    if let Some(reason) = seen.reason {
        say("reason", &reason);
    }
    if let Some(view) = view {
        match seen.whereabouts {
            Whereabouts::At(origin) => say("at", &view.topology.entry_name(origin.at)),
            Whereabouts::Leaving { to, .. } => say("at", &view.topology.entry_name(to.into())),
            Whereabouts::From { .. } | Whereabouts::To { .. } | Whereabouts::Gone(_) => {}
        }
    }
    if let Some(way) = way {
        say("endpoint", &endpoint_name(way.endpoint, view));
        say("target", &way.target);
        say("cookie", &format_args!("{:#010x}", way.cookie));
    }
    if let Some(flow) = &seen.flow {
        say("flow", &Shown(flow));
    }
    if seen.segments > 1 {
        let _ = write!(comment, ", super-packet of {} segments", seen.segments);
    }
    if seen.unfinished {
        comment += ", checksum left to the device";
    }
    comment
}
