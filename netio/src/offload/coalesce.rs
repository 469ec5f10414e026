//! Joins packets of one flow into super-packets, for fewer and bigger writes.
//!
//! Only what cutting restores byte for byte is joined (but for PSH, with [`Limits::across_push`]): a
//! packet has to be the one that [`super::Segmenter`] (or the kernel's own segmentation) would make
//! next. Everything else passes alone and unchanged, and never overtakes packets of its own flow.
//! Nothing is waited for: the caller flushes at the end of every batch. Payload is not copied; what
//! comes out refers to the buffers that the packets lie in.
//!
//! Most packets find none to be joined with, and cost little: nothing of them is copied, and their
//! checksums are not summed up before there is a second packet that would continue the first.

use geneve::checksum::{self, Sum};
use geneve::flow::FlowKey;
use geneve::inner::{Inner, IpVersion, Plain, TcpFlags, protocol};

use super::{
    Offload, PartialChecksum, Segmentation, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, UDP_CHECKSUM,
    UDP_HEADER, be16, be32, put16,
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
    /// Whether TCP over IPv4 is joined across a PSH, which cutting then puts on the last segment only,
    /// and not where it was. Off by default, and then cutting restores each packet as it came. Linux
    /// sets PSH on the last segment of every super-packet that it sends, so this is what joins such;
    /// over IPv6, which stays at 65,535 bytes, there would be nothing to gain.
    pub across_push: bool,
}

impl Limits {
    /// The limits of a device that takes no super-packets: every packet passes as it came.
    pub const PLAIN: Limits =
        Limits { max_bytes: MAX_IP, tcp: false, udp: false, across_push: false };

    /// The limits of a device that takes BIG TCP: as many bytes as fit [`MAX_PIECES`] segments of an
    /// MTU of 1500, whichever of them have PSH.
    pub const BIG_TCP: Limits =
        Limits { max_bytes: MAX_PIECES * 1448 + 52, tcp: true, udp: true, across_push: true };
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: MAX_IP, tcp: true, udp: true, across_push: false }
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
    /// The ports of each one's flow, which tell most flows apart.
    ports: [u32; TABLE],
    /// When each was extended last, [`TABLE`] to a push, and its number: below [`TABLE`] if vacant.
    touched: [usize; TABLE],
    /// Counts pushes.
    clock: usize,
}

impl<T: Copy + PartialEq> Coalescer<T> {
    /// A coalescer within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            own_limits: Vec::new(),
            open: Vec::with_capacity(TABLE),
            ports: [0; TABLE],
            touched: std::array::from_fn(|index| index),
            clock: 0,
        }
    }

    /// Gives packets with this tag limits of their own, from the next push on. Every packet then
    /// pays for a look through all tags that have some, so leave out those that need none.
    pub fn set_limits(&mut self, tag: T, limits: Limits) {
        self.own_limits.retain(|(other, _)| *other != tag);
        self.own_limits.push((tag, limits));
    }

    #[inline]
    fn limits_of(&self, tag: T) -> Limits {
        let own = self.own_limits.iter().find(|(other, _)| *other == tag);
        own.map_or(self.limits, |(_, limits)| *limits)
    }

    /// Takes the next packet, which lies at `place`, and gives to `emit` what it completes, pushes
    /// out, or is itself, if it is to pass alone. `plain` is what [`Plain::read`] says of the packet,
    /// which has to be a valid one, and `buffers` has the bytes of the buffers that earlier packets
    /// lie in.
    ///
    /// # Panics
    /// If `buffers` has not the bytes of a packet that was pushed since the last flush.
    #[inline]
    pub fn push<'b>(
        &mut self,
        packet: &[u8],
        plain: Option<&Plain>,
        place: Place,
        tag: T,
        buffers: impl Fn(u32) -> &'b [u8],
        mut emit: impl FnMut(Run<'_, T>),
    ) {
        let whole = Piece { buffer: place.buffer, start: place.start, len: packet.len() as u32 };
        let Some(plain) = plain else {
            self.close_before(packet, &mut emit);
            return pass(whole, tag, &mut emit);
        };
        let key = plain.flow_key();
        let limits = self.limits_of(tag);
        let part = Part::of(packet, plain, limits);
        if let Some(index) = self.find(&key) {
            let entry = &mut self.open[index];
            if let Some(part) = &part
                && entry.tag == tag
                && entry.takes(packet, part, limits, buffers)
            {
                let is_last = part.ends_run(limits) || part.payload < entry.size;
                entry.append(part, place);
                self.touch(index);
                if is_last {
                    self.close(index, &mut emit);
                }
                return;
            }
            self.close(index, &mut emit);
        }
        match part {
            Some(part) if !part.ends_run(limits) => {
                let index = self.vacate(&mut emit);
                match self.open.get_mut(index) {
                    Some(vacant) => vacant.begin(key, &part, whole, tag),
                    None => self.open.push(Entry::new(key, &part, whole, tag)),
                }
                self.ports[index] = ports(&key);
                self.touch(index);
            }
            _ => pass(whole, tag, &mut emit),
        }
    }

    /// Gives out all that is left, the least recently extended run first.
    pub fn flush(&mut self, mut emit: impl FnMut(Run<'_, T>)) {
        let mut order = self.touched;
        order.sort_unstable();
        for taken in order.into_iter().filter(|touched| *touched >= TABLE) {
            self.close(taken % TABLE, &mut emit);
        }
    }

    /// The run of this flow.
    #[inline]
    fn find(&self, key: &FlowKey) -> Option<usize> {
        let ports = ports(key);
        (0..TABLE).find(|&index| {
            self.ports[index] == ports
                && self.touched[index] >= TABLE
                && self.open[index].key == *key
        })
    }

    #[inline]
    fn touch(&mut self, index: usize) {
        self.clock += TABLE;
        self.touched[index] = self.clock + index;
    }

    /// The number of a vacant place in the table, perhaps the next behind its end, made by giving
    /// out the least recently extended run if need be.
    #[inline]
    fn vacate(&mut self, emit: &mut impl FnMut(Run<'_, T>)) -> usize {
        let least = self.touched.iter().fold(usize::MAX, |least, touched| least.min(*touched));
        let index = least % TABLE;
        if least >= TABLE {
            self.close(index, emit);
        }
        index
    }

    /// Gives a run out and leaves its place vacant.
    #[inline]
    fn close(&mut self, index: usize, emit: &mut impl FnMut(Run<'_, T>)) {
        self.touched[index] = index;
        self.open[index].give(emit);
    }

    /// Gives out what a packet must not overtake that is no ordinary one.
    #[inline(never)]
    fn close_before(&mut self, packet: &[u8], emit: &mut impl FnMut(Run<'_, T>)) {
        let Ok(inner) = Inner::parse(packet) else { return };
        if let Some(key) = inner.ported_key() {
            if let Some(index) = self.find(&key) {
                self.close(index, emit);
            }
            return;
        }
        // Without ports it may belong to any flow between its two addresses.
        for index in 0..self.open.len() {
            let key = &self.open[index].key;
            if self.touched[index] >= TABLE && (key.src(), key.dst()) == (inner.src, inner.dst) {
                self.close(index, emit);
            }
        }
    }
}

/// Both ports of a flow.
#[inline]
fn ports(key: &FlowKey) -> u32 {
    u32::from(key.src_port()) << 16 | u32::from(key.dst_port())
}

/// Gives out a packet as it came.
#[inline]
fn pass<T>(whole: Piece, tag: T, emit: &mut impl FnMut(Run<'_, T>)) {
    emit(Run { tag, offload: Offload::NONE, headers: &[], pieces: &[whole] });
}

/// What a packet would be as part of a super-packet.
#[derive(Debug, Clone, Copy)]
struct Part {
    version: IpVersion,
    tcp: bool,
    /// Length of all headers in bytes, of which the IP header has neither options nor extensions.
    header: usize,
    /// Length of the payload in bytes, never 0.
    payload: usize,
    /// PSH is set, which cutting puts on the last segment only.
    push: bool,
}

impl Part {
    /// `None` for a packet that cutting would never make as it is, but for its checksums, which
    /// [`is_sound`](Self::is_sound) looks at.
    #[inline]
    fn of(packet: &[u8], plain: &Plain, limits: Limits) -> Option<Self> {
        let (version, tcp, header) = (plain.version(), plain.is_tcp(), plain.header_len());
        // Bytes behind the packet's end stay out.
        if plain.total_len() != packet.len() || header >= packet.len() {
            return None;
        }
        if version == IpVersion::V4 && be16(packet, 10) == 0xffff {
            return None;
        }
        let upper = packet.get(version.header_len()..)?;
        if tcp {
            let tcp = upper.first_chunk::<TCP_HEADER>()?;
            let others = plain.flags().0 & !TcpFlags::PSH.0;
            // The four bits behind the data offset are flags, too (RFC 9293 §3.1).
            if !limits.tcp || others != TcpFlags::ACK.0 || tcp[12] & 0x0f != 0 {
                return None;
            }
            // Cutting makes a checksum of 0 where -0 would be right as well.
            if be16(tcp, TCP_CHECKSUM) == 0xffff {
                return None;
            }
        } else {
            let udp = upper.first_chunk::<UDP_HEADER>()?;
            // Without a checksum it stays alone: cutting would make one.
            if !limits.udp
                || usize::from(be16(udp, 4)) != upper.len()
                || be16(udp, UDP_CHECKSUM) == 0
            {
                return None;
            }
        }
        let push = plain.flags().contains(TcpFlags::PSH);
        Some(Self { version, tcp, header, payload: packet.len() - header, push })
    }

    /// Whether nothing may follow in the same super-packet, whatever it is.
    #[inline]
    fn ends_run(&self, limits: Limits) -> bool {
        self.push && !(limits.across_push && self.version == IpVersion::V4)
    }

    /// Whether the checksums are right, so that cutting makes the same.
    #[inline(never)]
    fn is_sound(&self, packet: &[u8]) -> bool {
        let protocol = if self.tcp { protocol::TCP } else { protocol::UDP };
        checksum::plain_is_valid(self.version, protocol, packet)
    }
}

/// A place in the table: a packet, a super-packet in the making, or vacant.
#[derive(Debug)]
struct Entry<T> {
    tag: T,
    key: FlowKey,
    /// The first packet.
    first: Part,
    /// Payload bytes of the first packet, and so of all but the last.
    size: usize,
    /// Payload bytes of all packets.
    bytes: usize,
    /// PSH is set in a packet behind the first; the first one's is in its headers.
    push: bool,
    /// Of which `count` are in use. A packet that is alone has its headers in its piece.
    pieces: [Piece; MAX_PIECES],
    count: usize,
    /// The first packet's headers, as soon as there is a second one.
    headers: [u8; MAX_HEADER],
}

impl<T: Copy> Entry<T> {
    fn new(key: FlowKey, part: &Part, whole: Piece, tag: T) -> Self {
        let mut entry = Self {
            tag,
            key,
            first: *part,
            size: 0,
            bytes: 0,
            push: false,
            pieces: [Piece::default(); MAX_PIECES],
            count: 0,
            headers: [0; MAX_HEADER],
        };
        entry.begin(key, part, whole, tag);
        entry
    }

    /// Takes the first packet. What is left of another run stays as it is.
    #[inline]
    fn begin(&mut self, key: FlowKey, part: &Part, whole: Piece, tag: T) {
        (self.tag, self.key, self.first) = (tag, key, *part);
        (self.size, self.bytes, self.push) = (part.payload, part.payload, false);
        self.pieces[0] = whole;
        self.count = 1;
    }

    /// Whether cutting would make exactly this packet next, and has made the first as it is; whatever
    /// PSH says, which was looked at before.
    #[inline]
    fn takes<'b>(
        &mut self,
        packet: &[u8],
        part: &Part,
        limits: Limits,
        buffers: impl Fn(u32) -> &'b [u8],
    ) -> bool {
        if self.count > 1 {
            let headers = self.headers.get(..self.first.header).unwrap_or_default();
            return self.has_room(part, limits)
                && self.continues(headers, packet)
                && part.is_sound(packet);
        }
        let first = self.pieces[0].of(buffers(self.pieces[0].buffer));
        let header = self.first.header;
        let joined = self.has_room(part, limits)
            && self.continues(&first[..header], packet)
            && part.is_sound(packet)
            && self.first.is_sound(first);
        if joined {
            self.headers[..header].copy_from_slice(&first[..header]);
            self.pieces[0].start += header as u32;
            self.pieces[0].len -= header as u32;
        }
        joined
    }

    #[inline]
    fn has_room(&self, part: &Part, limits: Limits) -> bool {
        let max_count = if self.first.tcp { MAX_PIECES } else { MAX_DATAGRAMS };
        let max_bytes = match self.first.version {
            IpVersion::V4 if self.first.tcp => limits.max_bytes,
            _ => limits.max_bytes.min(MAX_IP),
        };
        part.header == self.first.header
            && part.payload <= self.size
            && self.count < max_count
            && self.first.header + self.bytes + part.payload <= max_bytes
    }

    /// Whether the headers of a packet, which are as long as those of the first one, follow upon
    /// all that are there.
    #[inline]
    fn continues(&self, first: &[u8], packet: &[u8]) -> bool {
        let ip = self.first.version.header_len();
        let (Some((first_ip, first)), Some((packet_ip, packet))) = (
            first.split_at_checked(ip),
            packet.get(..first.len()).and_then(|it| it.split_at_checked(ip)),
        ) else {
            return false;
        };
        // All of the IP header but length, identification and checksum; the key has the addresses.
        let ip = match (self.first.version, first_ip.first_chunk(), packet_ip.first_chunk()) {
            (IpVersion::V4, Some(first), Some(packet)) => follows_ipv4(first, packet, self.count),
            (IpVersion::V6, Some(first), Some(packet)) => {
                be32(first, 0) == be32(packet, 0) && be16(first, 6) == be16(packet, 6)
            }
            _ => false,
        };
        ip && (!self.first.tcp || follows_tcp(first, packet, self.bytes))
    }

    #[inline]
    fn append(&mut self, part: &Part, place: Place) {
        self.pieces[self.count] = Piece {
            buffer: place.buffer,
            start: place.start + part.header as u32,
            len: part.payload as u32,
        };
        self.count += 1;
        self.bytes += part.payload;
        self.push |= part.push;
    }

    /// Gives out what is there.
    #[inline]
    fn give(&mut self, emit: &mut impl FnMut(Run<'_, T>)) {
        if self.count == 1 {
            return pass(self.pieces[0], self.tag, emit);
        }
        let offload = self.finish();
        let headers = &self.headers[..self.first.header];
        emit(Run { tag: self.tag, offload, headers, pieces: &self.pieces[..self.count] });
    }

    /// Makes the first packet's headers those of the super-packet.
    #[inline(never)]
    fn finish(&mut self) -> Offload {
        let Part { version, tcp, header, .. } = self.first;
        let ip_len = version.header_len();
        let (ip, transport) = self.headers[..header].split_at_mut(ip_len);
        let transport_len = transport.len() + self.bytes;
        match version {
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
        let (segment, protocol, field) = if tcp {
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
            checksum: Some(PartialChecksum { start: ip_len as u16, offset: field as u16 }),
            hdr_len: header as u16,
        }
    }
}

/// Whether an IPv4 header is that of the packet that comes `count` after the first.
#[inline]
fn follows_ipv4(first: &[u8; 10], packet: &[u8; 10], count: usize) -> bool {
    be16(first, 0) == be16(packet, 0)
        && be16(first, 4).wrapping_add(count as u16) == be16(packet, 4)
        && be32(first, 6) == be32(packet, 6)
}

/// Whether a TCP header is that of the segment that comes so many `bytes` after the first: all of it
/// but the sequence number, flags (which a part has none of, but PSH) and checksum is the same.
#[inline]
fn follows_tcp(first: &[u8], packet: &[u8], bytes: usize) -> bool {
    let (Some((first, first_options)), Some((packet, options))) =
        (first.split_first_chunk::<TCP_HEADER>(), packet.split_first_chunk::<TCP_HEADER>())
    else {
        return false;
    };
    be32(first, 4).wrapping_add(bytes as u32) == be32(packet, 4)
        && be32(first, 8) == be32(packet, 8)
        && be16(first, 14) == be16(packet, 14)
        && be16(first, 18) == be16(packet, 18)
        && first_options
            .as_chunks()
            .0
            .iter()
            .zip(options.as_chunks().0)
            .all(|(first, option)| u32::from_ne_bytes(*first) == u32::from_ne_bytes(*option))
}
