//! Joins packets of one flow into super-packets, for fewer and bigger writes.
//!
//! Only what cutting restores byte for byte is joined: a packet has to be the one that
//! [`super::Segmenter`] (or the kernel's own segmentation) would make next. Everything else passes
//! alone and unchanged, and never overtakes packets of its own flow. Nothing is waited for: the
//! caller flushes at the end of every batch. Payload is not copied; what comes out refers to the
//! buffers that the packets lie in.

use std::ops::Range;

use geneve::checksum::{self, Integrity, Sum};
use geneve::flow::FlowKey;
use geneve::inner::{Inner, IpVersion, TcpFlags, Transport, protocol};

use super::{
    Offload, PartialChecksum, Segmentation, TCP_CHECKSUM, TCP_FLAGS, UDP_CHECKSUM, UDP_HEADER,
    be16, be32, put16,
};

/// How many flows are joined at the same time, so that interleaved flows do not cut each other's
/// runs short. Measured: 8 is where a few bulk flows stop interfering.
pub const TABLE: usize = 8;

/// How many packets are joined at most.
pub const MAX_PIECES: usize = 128;

/// The kernel refuses more datagrams in one super-packet (`UDP_MAX_SEGMENTS` up to Linux 6.8).
const MAX_DATAGRAMS: usize = 64;

/// The longest packet whose length an IP header can give.
const MAX_IP: usize = 65_535;

/// The longest headers that are joined: IPv6 and a full TCP header.
const MAX_HEADER: usize = 40 + 60;

/// What the receiver of super-packets takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest super-packet, headers included, in bytes. Beyond 65,535 it applies to TCP over
    /// IPv4 only, whose length field is then 0 (BIG TCP, Linux 6.3); everything else stays at
    /// 65,535, the default.
    pub max_bytes: usize,
    /// Whether TCP is joined. On by default.
    pub tcp: bool,
    /// Whether UDP is joined, too (USO, Linux 6.2; see
    /// [`Tun::udp_segmentation`](crate::tun::Tun::udp_segmentation)). On by default.
    pub udp: bool,
}

impl Limits {
    /// The limits of a device that takes no super-packets: every packet passes as it came.
    pub const PLAIN: Limits = Limits { max_bytes: MAX_IP, tcp: false, udp: false };

    /// As many bytes as fit [`MAX_PIECES`] segments of an MTU of 1500 (BIG TCP).
    pub const BIG_TCP: usize = MAX_PIECES * 1448 + 52;
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: MAX_IP, tcp: true, udp: true }
    }
}

/// Where a packet starts: in which of the caller's buffers, and how many bytes into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The caller's number for the buffer.
    pub buffer: u32,
    /// Offset of the packet's first byte.
    pub start: u32,
}

/// A stretch of bytes in one of the caller's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Piece {
    /// The caller's number for the buffer.
    pub buffer: u32,
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Piece {
    /// The piece's bytes, given the bytes of its buffer.
    ///
    /// # Panics
    /// If the buffer is shorter than the one that the packet was pushed from.
    #[inline]
    pub fn of<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// What comes out: a super-packet, or a single packet as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a, T> {
    /// What the caller gave along with the packets.
    pub tag: T,
    /// What is to be done to the super-packet; nothing for a single packet.
    pub offload: Offload,
    /// The super-packet's headers; empty for a single packet, whose headers are in its piece.
    pub headers: &'a [u8],
    /// What follows the headers, in order: one piece for each packet that was joined.
    pub pieces: &'a [Piece],
}

/// Joins packets of up to [`TABLE`] flows at a time. `T` is what has to be the same for all packets
/// of a super-packet, such as the device that it leaves by.
#[derive(Debug)]
pub struct Coalescer<T> {
    limits: Limits,
    /// Tags with limits of their own: none of them, mostly.
    own_limits: Vec<(T, Limits)>,
    /// At most [`TABLE`]; those without packets are vacant.
    open: Vec<Entry<T>>,
    /// Counts pushes, to know which run was extended last.
    clock: u64,
}

impl<T: Copy + PartialEq> Coalescer<T> {
    /// A coalescer within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { limits, own_limits: Vec::new(), open: Vec::with_capacity(TABLE), clock: 0 }
    }

    /// Gives packets with this tag limits of their own, from the next push on. Every packet then
    /// pays for a look through all tags that have some, so leave out those that need none.
    pub fn set_limits(&mut self, tag: T, limits: Limits) {
        self.own_limits.retain(|(other, _)| *other != tag);
        self.own_limits.push((tag, limits));
    }

    fn limits_of(&self, tag: T) -> Limits {
        let own = self.own_limits.iter().find(|(other, _)| *other == tag);
        own.map_or(self.limits, |(_, limits)| *limits)
    }

    /// Takes the next packet, which lies at `place`, and gives to `emit` what it completes, pushes
    /// out, or is itself, if it is to pass alone. `inner` is the packet's parsed form.
    pub fn push(
        &mut self,
        packet: &[u8],
        inner: &Inner,
        place: Place,
        tag: T,
        mut emit: impl FnMut(Run<'_, T>),
    ) {
        self.clock += 1;
        let Some(key) = inner.ported_key() else {
            // Without ports it may belong to any flow between its two addresses.
            let ends = (inner.src, inner.dst);
            for entry in &mut self.open {
                if (entry.run.key.src(), entry.run.key.dst()) == ends {
                    entry.close(&mut emit);
                }
            }
            return pass(packet, place, tag, &mut emit);
        };
        let limits = self.limits_of(tag);
        let known = self.open.iter_mut().find(|entry| entry.count > 0 && entry.run.key == key);
        let Some(part) = Part::of(packet, inner, limits) else {
            if let Some(entry) = known {
                entry.close(&mut emit);
            }
            return pass(packet, place, tag, &mut emit);
        };
        if let Some(entry) = known {
            if entry.run.tag == tag && entry.continues(packet, &part, limits) {
                entry.append(&part, place, self.clock);
                if part.push || part.payload < entry.run.size {
                    entry.close(&mut emit);
                }
                return;
            }
            entry.close(&mut emit);
        }
        if part.push {
            return pass(packet, place, tag, &mut emit);
        }
        let index = self.vacate(&mut emit);
        let run = Open::new(packet, key, &part, tag);
        match self.open.get_mut(index) {
            Some(vacant) => vacant.run = run,
            None => self.open.push(Entry { run, pieces: [Piece::default(); MAX_PIECES], count: 0 }),
        }
        self.open[index].append(&part, place, self.clock);
    }

    /// Gives out all that is left, the least recently extended run first.
    pub fn flush(&mut self, mut emit: impl FnMut(Run<'_, T>)) {
        while let Some(index) = self.least_recent() {
            self.open[index].close(&mut emit);
        }
    }

    /// The index of a vacant place in the table, perhaps the next behind its end, made by giving
    /// out the least recently extended run if need be.
    fn vacate(&mut self, emit: &mut impl FnMut(Run<'_, T>)) -> usize {
        match self.open.iter().position(|entry| entry.count == 0) {
            Some(vacant) => vacant,
            None if self.open.len() < TABLE => self.open.len(),
            None => {
                let index = self.least_recent().unwrap_or(0);
                self.open[index].close(emit);
                index
            }
        }
    }

    fn least_recent(&self) -> Option<usize> {
        let taken = self.open.iter().enumerate().filter(|(_, entry)| entry.count > 0);
        taken.min_by_key(|(_, entry)| entry.run.touched).map(|(index, _)| index)
    }
}

/// Gives out a packet as it came.
fn pass<T>(packet: &[u8], place: Place, tag: T, emit: &mut impl FnMut(Run<'_, T>)) {
    let piece = Piece { buffer: place.buffer, start: place.start, len: packet.len() as u32 };
    emit(Run { tag, offload: Offload::NONE, headers: &[], pieces: &[piece] });
}

/// What a packet would be as part of a super-packet.
struct Part {
    tcp: bool,
    /// Length of the IP header in bytes.
    ip: usize,
    /// Length of all headers in bytes.
    header: usize,
    /// Length of the payload in bytes, never 0.
    payload: usize,
    /// PSH is set, which cutting puts on the last segment only.
    push: bool,
}

impl Part {
    /// `None` for a packet that cutting would never make as it is.
    fn of(packet: &[u8], inner: &Inner, limits: Limits) -> Option<Self> {
        let ip = inner.version.header_len();
        // Options and extension headers stay out, and so do bytes behind the packet's end.
        if inner.header_len != ip || inner.total_len != packet.len() {
            return None;
        }
        let transport = &packet[ip..];
        let (tcp, header, push) = match inner.transport {
            Transport::Tcp { flags, header_len, .. } => {
                if !limits.tcp {
                    return None;
                }
                let others = flags.0 & !TcpFlags::PSH.0;
                // The four bits behind the data offset are flags, too (RFC 9293 §3.1).
                if others != TcpFlags::ACK.0 || transport[12] & 0x0f != 0 {
                    return None;
                }
                // Cutting makes a checksum of 0 where -0 would be right as well.
                if transport[TCP_CHECKSUM..][..2] == [0xff, 0xff] {
                    return None;
                }
                (true, ip + header_len, flags.contains(TcpFlags::PSH))
            }
            Transport::Udp { .. } => {
                if !limits.udp || usize::from(be16(transport, 4)) != transport.len() {
                    return None;
                }
                (false, ip + UDP_HEADER, false)
            }
            _ => return None,
        };
        if inner.version == IpVersion::V4 && packet[10..12] == [0xff, 0xff] {
            return None;
        }
        let payload = packet.len().checked_sub(header).filter(|&len| len > 0)?;
        // This also keeps out UDP without a checksum.
        let valid = checksum::verify(inner, packet) == Integrity::Valid;
        valid.then_some(Self { tcp, ip, header, payload, push })
    }
}

/// A place in the table: a super-packet in the making, or vacant.
#[derive(Debug)]
struct Entry<T> {
    run: Open<T>,
    /// Of which `count` are in use. It stays as it is when the place is given to another run.
    pieces: [Piece; MAX_PIECES],
    count: usize,
}

#[derive(Debug)]
struct Open<T> {
    tag: T,
    key: FlowKey,
    tcp: bool,
    /// The first packet's headers.
    headers: [u8; MAX_HEADER],
    /// Length of the IP header in bytes.
    ip: usize,
    /// Length of all headers in bytes.
    header: usize,
    /// Payload bytes of the first packet, and so of all but the last.
    size: usize,
    /// Payload bytes of all packets.
    bytes: usize,
    /// PSH is set in the last packet.
    push: bool,
    touched: u64,
}

impl<T: Copy> Entry<T> {
    /// Whether cutting would make exactly this packet next.
    fn continues(&self, packet: &[u8], part: &Part, limits: Limits) -> bool {
        let run = &self.run;
        let max_count = if run.tcp { MAX_PIECES } else { MAX_DATAGRAMS };
        if part.header != run.header
            || part.payload > run.size
            || self.count == max_count
            || run.header + run.bytes + part.payload > run.max_bytes(limits)
        {
            return false;
        }
        let first = &run.headers[..run.header];
        let same = |range: Range<usize>| first[range.clone()] == packet[range];
        // All of the IP header but length, identification and checksum; the key has the addresses.
        let ip = match run.key.version() {
            IpVersion::V4 => {
                let id = be16(first, 4).wrapping_add(self.count as u16);
                same(0..2) && be16(packet, 4) == id && same(6..10)
            }
            IpVersion::V6 => same(0..4) && same(6..8),
        };
        // All of the TCP header but sequence number, flags (checked before) and checksum.
        let t = run.ip;
        let tcp = || {
            be32(packet, t + 4) == be32(first, t + 4).wrapping_add(run.bytes as u32)
                && same(t + 8..t + TCP_FLAGS)
                && same(t + 14..t + TCP_CHECKSUM)
                && same(t + 18..run.header)
        };
        ip && (!run.tcp || tcp())
    }

    fn append(&mut self, part: &Part, place: Place, clock: u64) {
        self.pieces[self.count] = Piece {
            buffer: place.buffer,
            start: place.start + part.header as u32,
            len: part.payload as u32,
        };
        self.count += 1;
        self.run.bytes += part.payload;
        self.run.push = part.push;
        self.run.touched = clock;
    }

    /// Gives the run out, if there is one, and leaves its place vacant.
    fn close(&mut self, emit: &mut impl FnMut(Run<'_, T>)) {
        let tag = self.run.tag;
        match std::mem::take(&mut self.count) {
            0 => {}
            1 => {
                let Piece { buffer, start, len } = self.pieces[0];
                let header = self.run.header as u32;
                let piece = Piece { buffer, start: start - header, len: len + header };
                emit(Run { tag, offload: Offload::NONE, headers: &[], pieces: &[piece] });
            }
            count => {
                let offload = self.run.finish();
                let headers = &self.run.headers[..self.run.header];
                emit(Run { tag, offload, headers, pieces: &self.pieces[..count] });
            }
        }
    }
}

impl<T: Copy> Open<T> {
    /// A run that the packet will begin.
    fn new(packet: &[u8], key: FlowKey, part: &Part, tag: T) -> Self {
        let &Part { tcp, ip, header, payload: size, .. } = part;
        let mut headers = [0; MAX_HEADER];
        headers[..header].copy_from_slice(&packet[..header]);
        Self { tag, key, tcp, headers, ip, header, size, bytes: 0, push: false, touched: 0 }
    }

    fn max_bytes(&self, limits: Limits) -> usize {
        match self.key.version() {
            IpVersion::V4 if self.tcp => limits.max_bytes,
            _ => limits.max_bytes.min(MAX_IP),
        }
    }

    /// Makes the first packet's headers those of the super-packet.
    fn finish(&mut self) -> Offload {
        let (ip, transport) = self.headers[..self.header].split_at_mut(self.ip);
        let transport_len = transport.len() + self.bytes;
        match self.key.version() {
            IpVersion::V4 => {
                // Too long for the field: 0 (Linux reads the length of the buffer instead).
                let total = u16::try_from(ip.len() + transport_len).unwrap_or(0);
                put16(ip, 2, total);
                put16(ip, 10, 0);
                put16(ip, 10, checksum::of(ip));
            }
            IpVersion::V6 => put16(ip, 4, transport_len as u16),
        }
        let size = self.size as u16;
        let (segment, protocol, field) = if self.tcp {
            if self.push {
                transport[TCP_FLAGS] |= TcpFlags::PSH.0;
            }
            (Segmentation::Tcp { size, ecn: false }, protocol::TCP, TCP_CHECKSUM)
        } else {
            put16(transport, 4, transport_len as u16);
            (Segmentation::Udp { size }, protocol::UDP, UDP_CHECKSUM)
        };
        let (src, dst) = (self.key.src(), self.key.dst());
        let pseudo_header = Sum::pseudo_header(src, dst, protocol, transport_len as u32);
        put16(transport, field, !pseudo_header.finish());
        Offload {
            segment,
            checksum: Some(PartialChecksum { start: self.ip as u16, offset: field as u16 }),
            hdr_len: self.header as u16,
        }
    }
}
