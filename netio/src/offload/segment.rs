//! Cuts a super-packet into the segments it stands for, and completes checksums, without touching
//! or copying payload: a segment is its headers, written out, and a range of the original packet.
//!
//! It does what the kernel's own software segmentation does (`tcp_gso_segment`,
//! `__udp_gso_segment`, `inet_gso_segment`), so that a host cannot tell where it was done. It
//! never decides whether a segment fits a link.

use std::ops::Range;

use geneve::checksum::Sum;
use geneve::inner::{Fragment, Inner, IpVersion, TcpFlags, Transport};
use thiserror::Error;

use super::{
    Offload, PartialChecksum, Segmentation, TCP_CHECKSUM, TCP_FLAGS, UDP_CHECKSUM, UDP_HEADER,
    be16, be32, put16,
};

/// The longest headers (IP, extension headers, transport) that [`Segmenter`] takes: a full TCP
/// header behind IPv6 with 156 bytes of extension headers.
pub const MAX_HEADERS: usize = 256;

/// A packet, ready to be cut into the segments that it stands for.
#[derive(Debug, Clone)]
pub struct Segmenter<'a> {
    /// The packet as long as its IP header says.
    packet: &'a [u8],
    plan: Plan,
    count: usize,
}

/// One segment of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// How many bytes of headers were written.
    pub header_len: usize,
    /// Where in the original packet lies what follows the headers.
    pub payload: Range<usize>,
}

/// Why a packet cannot be cut up as its offload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OffloadError {
    /// The offload is for another transport protocol than the packet's, or the packet is a
    /// fragment.
    #[error("{segment:?} does not fit a packet of protocol {protocol} ({fragment:?})")]
    Mismatch {
        /// What the offload says.
        segment: Segmentation,
        /// The packet's upper-layer protocol.
        protocol: u8,
        /// Which fragment the packet is.
        fragment: Fragment,
    },
    /// The offload cuts into segments without payload.
    #[error("segment size is 0")]
    NoSize,
    /// The headers are longer than [`MAX_HEADERS`].
    #[error("headers of {actual} bytes, at most {MAX_HEADERS} are supported")]
    HeadersTooLong {
        /// Their length in bytes.
        actual: usize,
    },
    /// The checksum to be completed does not lie within the packet.
    #[error("checksum at {start} + {offset} lies outside a packet of {len} bytes")]
    ChecksumOutside {
        /// Where summing is to start.
        start: u16,
        /// Where the field lies from there.
        offset: u16,
        /// The packet's length in bytes.
        len: usize,
    },
    /// A super-packet whose partial checksum is missing or not that of its transport header.
    #[error("a super-packet needs a partial checksum at {expected:?}, its offload has {actual:?}")]
    ChecksumMissing {
        /// Where it has to be.
        expected: PartialChecksum,
        /// Where it is.
        actual: Option<PartialChecksum>,
    },
    /// The packet is shorter than its headers say.
    #[error("packet of {actual} bytes, its headers need {needed}")]
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        actual: usize,
    },
}

#[derive(Debug, Clone)]
enum Plan {
    /// Nothing to do: the packet as it is.
    Untouched,
    /// One packet whose checksum is completed.
    Complete { checksum: Range<usize>, start: usize, udp: bool },
    /// TCP segments or UDP datagrams.
    Cut(Cut),
}

#[derive(Debug, Clone)]
struct Cut {
    version: IpVersion,
    tcp: bool,
    size: usize,
    /// Where the transport header starts.
    transport: usize,
    /// Where the payload starts.
    payload: usize,
    /// Over the IP header, but for what each segment has of its own. See [`ip_sum`].
    ip_sum: Sum,
    /// Over the pseudo-header and the transport header, but for what each segment has of its own.
    transport_sum: Sum,
    identification: u16,
    sequence: u32,
    /// The TCP header's length, as it stands in front of the flags.
    data_offset: u8,
    flags: TcpFlags,
}

impl<'a> Segmenter<'a> {
    /// Looks at `packet`, of which `inner` is the parsed form, and plans what `offload` asks for.
    ///
    /// Bytes behind the end that the IP header gives are no part of any segment, except where
    /// nothing is to be done.
    pub fn new(packet: &'a [u8], inner: &Inner, offload: &Offload) -> Result<Self, OffloadError> {
        let truncated = OffloadError::Truncated { needed: inner.total_len, actual: packet.len() };
        let whole = packet.get(..inner.total_len).ok_or(truncated)?;
        let (plan, count, packet) = match (offload.segment, offload.checksum) {
            (Segmentation::None, None) => (Plan::Untouched, 1, packet),
            (Segmentation::None, Some(partial)) => (complete(whole, partial)?, 1, whole),
            (Segmentation::Tcp { size, .. } | Segmentation::Udp { size }, _) => {
                let cut = Cut::new(whole, inner, offload, usize::from(size))?;
                let count = (whole.len() - cut.payload).div_ceil(cut.size).max(1);
                (Plan::Cut(cut), count, whole)
            }
        };
        let segmenter = Self { packet, plan, count };
        match segmenter.header_len() {
            actual if actual > MAX_HEADERS => Err(OffloadError::HeadersTooLong { actual }),
            _ => Ok(segmenter),
        }
    }

    /// How many segments the packet stands for; at least 1.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes of headers [`segment`](Self::segment) writes, the same for each; at most
    /// [`MAX_HEADERS`], and 0 for a packet to which nothing is to be done.
    #[inline]
    pub fn header_len(&self) -> usize {
        match &self.plan {
            Plan::Untouched => 0,
            Plan::Complete { checksum, .. } => checksum.end,
            Plan::Cut(cut) => cut.payload,
        }
    }

    /// Length of the first segment in bytes, which every other has too except the last, which may
    /// be shorter.
    #[inline]
    pub fn segment_len(&self) -> usize {
        match &self.plan {
            Plan::Untouched | Plan::Complete { .. } => self.packet.len(),
            Plan::Cut(cut) => self.packet.len().min(cut.payload + cut.size),
        }
    }

    /// Writes the headers of segment `index` into the beginning of `headers_out` and says where
    /// its payload lies: lengths, IPv4 identification, sequence number, flags and checksums are
    /// those of the segment.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Self::count), or `headers_out` is shorter than
    /// [`header_len`](Self::header_len).
    #[inline]
    pub fn segment(&self, index: usize, headers_out: &mut [u8]) -> Segment {
        assert!(index < self.count, "segment {index} of {}", self.count);
        let header_len = self.header_len();
        let headers = &mut headers_out[..header_len];
        headers.copy_from_slice(&self.packet[..header_len]);
        let payload = match &self.plan {
            Plan::Untouched => 0..self.packet.len(),
            Plan::Complete { checksum, start, udp } => {
                let mut sum = Sum::new();
                sum.add(&self.packet[*start..]);
                put16(headers, checksum.start, if *udp { sum.finish_udp() } else { sum.finish() });
                header_len..self.packet.len()
            }
            Plan::Cut(cut) => {
                let start = cut.payload + index * cut.size;
                let payload = start..self.packet.len().min(start + cut.size);
                cut.write(index, index + 1 == self.count, headers, &self.packet[payload.clone()]);
                payload
            }
        };
        Segment { header_len, payload }
    }
}

fn complete(
    packet: &[u8],
    PartialChecksum { start, offset }: PartialChecksum,
) -> Result<Plan, OffloadError> {
    let field = usize::from(start) + usize::from(offset);
    if field + 2 > packet.len() {
        return Err(OffloadError::ChecksumOutside { start, offset, len: packet.len() });
    }
    // The checksum may belong to a packet inside this one (the kernel tunnels, too), of which only
    // the offset is known.
    let udp = usize::from(offset) == UDP_CHECKSUM;
    Ok(Plan::Complete { checksum: field..field + 2, start: start.into(), udp })
}

impl Cut {
    fn new(
        packet: &[u8],
        inner: &Inner,
        offload: &Offload,
        size: usize,
    ) -> Result<Self, OffloadError> {
        let transport = inner.header_len;
        let (tcp, field, transport_len) = match (offload.segment, &inner.transport) {
            (Segmentation::Tcp { .. }, Transport::Tcp { header_len, .. }) => {
                (true, TCP_CHECKSUM, *header_len)
            }
            (Segmentation::Udp { .. }, Transport::Udp { .. }) => (false, UDP_CHECKSUM, UDP_HEADER),
            _ => return Err(mismatch(inner, offload)),
        };
        if inner.fragment != Fragment::Whole {
            return Err(mismatch(inner, offload));
        }
        if size == 0 {
            return Err(OffloadError::NoSize);
        }
        let payload = transport + transport_len;
        if payload > packet.len() {
            return Err(OffloadError::Truncated { needed: payload, actual: packet.len() });
        }
        if payload > MAX_HEADERS {
            return Err(OffloadError::HeadersTooLong { actual: payload });
        }
        let expected = PartialChecksum { start: transport as u16, offset: field as u16 };
        if offload.checksum != Some(expected) {
            return Err(OffloadError::ChecksumMissing { expected, actual: offload.checksum });
        }

        let (ip, rest) = packet.split_at(transport);
        let header = &rest[..transport_len];
        let (data_offset, flags) =
            if tcp { (header[12], TcpFlags(header[TCP_FLAGS])) } else { (0, TcpFlags(0)) };
        Ok(Self {
            version: inner.version,
            tcp,
            size,
            transport,
            payload,
            ip_sum: ip_sum(ip),
            transport_sum: transport_sum(header, tcp, rest.len()),
            identification: be16(packet, 4),
            sequence: be32(header, 4),
            data_offset,
            flags,
        })
    }

    /// Changes the super-packet's `headers` into those of one segment.
    #[inline]
    fn write(&self, index: usize, last: bool, headers: &mut [u8], payload: &[u8]) {
        let (ip, transport) = headers.split_at_mut(self.transport);
        let transport_len = (transport.len() + payload.len()) as u16;
        match self.version {
            IpVersion::V4 => {
                let len = (ip.len() as u16).wrapping_add(transport_len);
                let id = self.identification.wrapping_add(index as u16);
                let mut sum = self.ip_sum;
                sum.add(&len.to_be_bytes());
                sum.add(&id.to_be_bytes());
                put16(ip, 2, len);
                put16(ip, 4, id);
                put16(ip, 10, sum.finish());
            }
            IpVersion::V6 => {
                let extensions = (ip.len() - IpVersion::V6.header_len()) as u16;
                put16(ip, 4, extensions.wrapping_add(transport_len));
            }
        }
        let mut sum = self.transport_sum;
        sum.add(&transport_len.to_be_bytes());
        if self.tcp {
            let sequence = self.sequence.wrapping_add((index * self.size) as u32).to_be_bytes();
            let mut flags = self.flags.0;
            if index > 0 {
                flags &= !TcpFlags::CWR.0;
            }
            if !last {
                flags &= !(TcpFlags::PSH | TcpFlags::FIN).0;
            }
            sum.add(&sequence);
            sum.add(&[self.data_offset, flags]);
            transport[4..8].copy_from_slice(&sequence);
            transport[TCP_FLAGS] = flags;
            sum.add(payload);
            put16(transport, TCP_CHECKSUM, sum.finish());
        } else {
            // The length counts twice: it stands in the header, too.
            sum.add(&transport_len.to_be_bytes());
            put16(transport, 4, transport_len);
            sum.add(payload);
            put16(transport, UDP_CHECKSUM, sum.finish_udp());
        }
    }
}

/// The sum over an IPv4 header but for length, identification and checksum. IPv6 has no use for it.
fn ip_sum(header: &[u8]) -> Sum {
    let mut sum = Sum::new();
    sum.add(&header[..2]);
    sum.add(&header[6..10]);
    sum.add(&header[12..]);
    sum
}

/// The sum over the transport header of a super-packet and its pseudo-header, but for all lengths,
/// and for TCP's sequence number and flags. The length of header and payload is `len`.
fn transport_sum(header: &[u8], tcp: bool, len: usize) -> Sum {
    let field = if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM };
    let mut sum = Sum::new();
    // The partial checksum is the sum over the pseudo-header. Its length is taken out again; it
    // counts as a 32-bit number: TCP beyond 64 KiB has one.
    sum.add(&header[field..field + 2]);
    sum.add(&(!(len as u32)).to_be_bytes());
    sum.add(&header[..4]);
    if tcp {
        sum.add(&header[8..12]);
        sum.add(&header[14..TCP_CHECKSUM]);
        sum.add(&header[18..]);
    }
    sum
}

fn mismatch(inner: &Inner, offload: &Offload) -> OffloadError {
    let Inner { protocol, fragment, .. } = *inner;
    OffloadError::Mismatch { segment: offload.segment, protocol, fragment }
}
