//! A packet as it entered, and what it stands for on the wire: of a super-packet, every segment.

use geneve::{Fragment, Inner, IpVersion, Transport, protocol};
use netio::offload::{MAX_HEADERS, Offload, PartialChecksum, Segmentation};

use super::wire::{checksum, put16};

/// A packet that a worker judges.
#[derive(Debug)]
pub(super) struct Seen {
    pub inner: Inner,
    /// Its bytes, as many as its IP header says.
    pub bytes: Vec<u8>,
    pub offload: Offload,
    /// How many packets it stands for.
    pub segments: u64,
    /// The largest of them, in bytes.
    pub largest: usize,
}

impl Seen {
    /// A packet, if it is one.
    pub(super) fn of(packet: &[u8], offload: &Offload) -> Option<Seen> {
        let inner = Inner::parse(packet).ok()?;
        let bytes = packet[..inner.total_len].to_vec();
        let mut seen = Seen { inner, bytes, offload: *offload, segments: 1, largest: 0 };
        seen.largest = inner.total_len;
        if let Some((headers, size)) = seen.cut() {
            seen.segments = (inner.total_len - headers).div_ceil(size).max(1) as u64;
            seen.largest = inner.total_len.min(headers + size);
        }
        Some(seen)
    }

    /// Bytes of all headers, and of the payload of every segment but the last, if its device has left
    /// the cutting to others, and with it lengths and checksums, even if one segment is all.
    fn cut(&self) -> Option<(usize, usize)> {
        let (size, header) = match (self.offload.segment, self.inner.transport) {
            (Segmentation::Tcp { size, .. }, Transport::Tcp { header_len, .. }) => {
                (usize::from(size), header_len)
            }
            (Segmentation::Udp { size }, Transport::Udp { .. }) => (usize::from(size), 8),
            _ => return None,
        };
        let headers = self.inner.header_len + header;
        (size > 0 && headers <= self.inner.total_len).then_some((headers, size))
    }

    /// Whether what its device says of it cannot be, so that nobody could send what it stands for:
    /// "a super-packet carries a partial checksum", of the transport that it is cut by.
    pub(super) fn is_contradictory(&self) -> bool {
        let Inner { header_len, total_len, transport, fragment, .. } = self.inner;
        let (size, transport_len, field) = match (self.offload.segment, transport) {
            (Segmentation::None, _) => {
                let end = |it: PartialChecksum| usize::from(it.start) + usize::from(it.offset) + 2;
                let end = self.offload.checksum.map_or(0, end);
                return end > total_len.min(MAX_HEADERS);
            }
            (Segmentation::Tcp { size, .. }, Transport::Tcp { header_len, .. }) => {
                (size, header_len, 16)
            }
            (Segmentation::Udp { size }, Transport::Udp { .. }) => (size, 8, 6),
            _ => return true,
        };
        let partial = PartialChecksum { start: header_len as u16, offset: field };
        size == 0
            || fragment != Fragment::Whole
            || header_len + transport_len > total_len.min(MAX_HEADERS)
            || self.offload.checksum != Some(partial)
    }

    /// The packets that it stands for, each as a host would have sent it by itself.
    pub(super) fn packets(&self) -> Vec<Vec<u8>> {
        let Some((headers, size)) = self.cut() else {
            let mut packet = self.bytes.clone();
            if let Some(partial) = self.offload.checksum {
                complete(&mut packet, partial.start.into(), partial.offset.into());
            }
            return vec![packet];
        };
        let mut pieces: Vec<&[u8]> = self.bytes[headers..].chunks(size).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let last = pieces.len() - 1;
        let segments = pieces.iter().enumerate();
        segments.map(|(at, piece)| self.segment(at, at == last, headers, piece)).collect()
    }

    fn segment(&self, at: usize, last: bool, headers: usize, payload: &[u8]) -> Vec<u8> {
        const CWR: u8 = 0x80;
        const PSH_FIN: u8 = 0x09;
        let ip = self.inner.header_len;
        let mut packet = [&self.bytes[..headers], payload].concat();
        let len = packet.len();
        match self.inner.version {
            IpVersion::V4 => {
                put16(&mut packet, 2, len as u16);
                let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(at as u16);
                put16(&mut packet, 4, id);
                put16(&mut packet, 10, 0);
                let sum = checksum(&[&packet[..ip]]);
                put16(&mut packet, 10, sum);
            }
            IpVersion::V6 => put16(&mut packet, 4, (len - 40) as u16),
        }
        if self.inner.protocol == protocol::TCP {
            let size = self.largest - headers;
            let first = &self.bytes[ip + 4..ip + 8];
            let seq = u32::from_be_bytes([first[0], first[1], first[2], first[3]]);
            let seq = seq.wrapping_add((at * size) as u32);
            packet[ip + 4..ip + 8].copy_from_slice(&seq.to_be_bytes());
            if at > 0 {
                packet[ip + 13] &= !CWR;
            }
            if !last {
                packet[ip + 13] &= !PSH_FIN;
            }
        } else {
            put16(&mut packet, ip + 4, (len - ip) as u16);
        }
        let (field, udp) = match self.inner.protocol {
            protocol::TCP => (ip + 16, false),
            _ => (ip + 6, true),
        };
        // "The partial checksum that a super-packet carries is completed": it is the sum over a
        // pseudo-header with the length of the whole. A wrong one stays wrong.
        let whole = (self.inner.total_len - ip) as u32;
        let carried = [packet[field], packet[field + 1]];
        let of_this = [(!whole).to_be_bytes(), ((len - ip) as u32).to_be_bytes()];
        let sum = !checksum(&[&carried, &of_this[0], &of_this[1]]);
        put16(&mut packet, field, sum);
        let sum = checksum(&[&packet[ip..]]);
        put16(&mut packet, field, if udp && sum == 0 { 0xffff } else { sum });
        packet
    }
}

/// Completes a checksum of which the field holds the sum over the pseudo-header.
fn complete(packet: &mut [u8], start: usize, offset: usize) {
    let field = start + offset;
    if packet.len() < field + 2 {
        return;
    }
    let sum = checksum(&[&packet[start..]]);
    let udp = offset == 6;
    put16(packet, field, if udp && sum == 0 { 0xffff } else { sum });
}
