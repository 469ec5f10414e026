//! Cuts IPv4 packets into fragments before they are encapsulated, as RFC 791 section 3.2 has a
//! router do: what its sender lets be cut (no DF) still reaches an appliance behind a shorter MTU.
//!
//! Payload stays where it lies: a fragment is its headers, written out, and a range of the packet.
//! Nothing is ever put together again here, and IPv6 and packets with DF are never cut: those are
//! answered with the size that fits.

use geneve::checksum;
use geneve::inner::{Inner, IpVersion};
use netio::offload::{MAX_HEADERS, OffloadError, Segment, Segmenter};

use super::fragments::reaches_too_far;
use super::frame::Frame;
use crate::fault::{self, Fault};

/// No link's MTU is below (RFC 791 section 3.2): the longest header and eight bytes.
pub const MIN_MTU: u16 = 68;

/// Where flags and offset stand in an IPv4 header.
const FLAGS_AND_OFFSET: usize = 6;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Of the option types of RFC 791 section 3.1.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// Options whose type has this bit go into every fragment.
const COPIED: u8 = 0x80;

/// Whether a packet may be cut. One that reaches past what IP can say may not: there are no offsets
/// for its end.
pub fn may_fragment(inner: &Inner) -> bool {
    let allowed = !inner.dont_fragment || fault::on(Fault::DontFragmentIgnored);
    inner.version == IpVersion::V4 && allowed && !reaches_too_far(inner)
}

/// A packet or super-packet on its way into pieces that fit.
///
/// A super-packet is cut into its segments first, and each segment that is too long into fragments,
/// with the checksum of the whole segment.
#[derive(Debug)]
pub(super) struct Fragmenter<'a> {
    packet: &'a [u8],
    segmenter: Segmenter<'a>,
    /// Which segment comes next.
    next: usize,
    ip_len: usize,
    mtu: usize,
    /// Flags and offset of the packet, which may itself be a fragment.
    place: u16,
    /// Of the segment under way.
    headers: [u8; MAX_HEADERS],
    cut: Option<Cut>,
}

/// How far a segment is cut. All numbers are bytes behind the IP header.
#[derive(Debug)]
struct Cut {
    /// The next fragment starts here.
    at: usize,
    end: usize,
    /// How much goes into each fragment but the last.
    size: usize,
    /// Up to here the bytes are in `Fragmenter::headers`, from there on in the packet …
    split: usize,
    /// … from this position.
    payload: usize,
}

impl<'a> Fragmenter<'a> {
    /// Plans the cutting of a packet that [`may_fragment`] into pieces of at most `mtu` bytes, or
    /// [`MIN_MTU`] if that is more.
    ///
    /// # Errors
    /// If the packet is not what its offload says.
    pub fn new(frame: &Frame<'a>, mtu: u16) -> Result<Self, OffloadError> {
        let packet = frame.packet;
        Ok(Self {
            packet,
            segmenter: Segmenter::new(packet, &frame.inner, frame.offload)?,
            next: 0,
            ip_len: frame.inner.header_len,
            mtu: mtu.max(MIN_MTU).into(),
            place: be16(packet, FLAGS_AND_OFFSET),
            headers: [0; MAX_HEADERS],
            cut: None,
        })
    }

    /// How many bytes of headers [`next`](Self::next) writes at most.
    pub fn header_len(&self) -> usize {
        self.segmenter.header_len().max(self.ip_len)
    }

    /// Writes the headers of the next piece into the beginning of `out` and says where in the packet
    /// lies what follows them. `None` after the last.
    ///
    /// # Panics
    /// If `out` is shorter than [`header_len`](Self::header_len).
    pub fn next(&mut self, out: &mut [u8]) -> Option<Segment> {
        let cut = match self.cut.take() {
            Some(cut) => cut,
            None => self.begin()?,
        };
        let Cut { at, end, size, split, payload } = cut;
        let until = end.min(at + size);
        // What of the piece the written headers hold, for example the transport header.
        let copied = at.min(split)..until.min(split);
        let header_len = self.ip_len + copied.len();
        let (ip, rest) = out[..header_len].split_at_mut(self.ip_len);
        ip.copy_from_slice(&self.headers[..self.ip_len]);
        rest.copy_from_slice(&self.headers[self.ip_len..][copied]);
        if (at, until) != (0, end) {
            self.write_fragment(ip, &cut, until);
        }
        self.cut = (until < end).then_some(Cut { at: until, ..cut });
        let follows = payload + at.max(split) - split..payload + until.max(split) - split;
        Some(Segment { header_len, payload: follows })
    }

    /// Begins the next segment, if there is one.
    fn begin(&mut self) -> Option<Cut> {
        if self.next == self.segmenter.count() {
            return None;
        }
        let segment = self.segmenter.segment(self.next, &mut self.headers);
        self.next += 1;
        // The IP header is always written: where nothing is to be done, the segment has no headers
        // of its own.
        let missing = self.ip_len.saturating_sub(segment.header_len);
        let payload = segment.payload.start + missing;
        self.headers[segment.header_len..][..missing]
            .copy_from_slice(&self.packet[segment.payload.start..payload]);
        let split = segment.header_len + missing - self.ip_len;
        let end = split + segment.payload.end - payload;
        let size = piece(end, self.mtu - self.ip_len);
        Some(Cut { at: 0, end, size, split, payload })
    }

    fn write_fragment(&self, ip: &mut [u8], &Cut { at, end, .. }: &Cut, until: usize) {
        if at > 0 {
            drop_uncopied(&mut ip[IpVersion::V4.header_len()..]);
        }
        let more = if until < end { MORE_FRAGMENTS } else { 0 };
        let total_len = ip.len() + until - at;
        put16(ip, 2, total_len as u16);
        put16(ip, FLAGS_AND_OFFSET, (self.place + (at / 8) as u16) | more);
        put16(ip, 10, 0);
        put16(ip, 10, checksum::of(ip));
    }
}

/// How much of `len` bytes goes into each piece, if at most `most` do: as few pieces as possible,
/// and all about equally long. Cut to the brim, a packet that is a little too long would leave a
/// tiny last fragment, which many filters refuse, and the full ones would be cut again where the
/// next link is a little shorter; and equally long ones go out together in one send.
fn piece(len: usize, most: usize) -> usize {
    if len <= most {
        return len;
    }
    // Offsets count in units of eight bytes.
    let most = most / 8 * 8;
    len.div_ceil(len.div_ceil(most)).next_multiple_of(8)
}

/// Replaces the options that belong into the first fragment only by padding, as Linux does: so the
/// header keeps its length. Nothing can be told of what follows an option without a valid length.
fn drop_uncopied(mut options: &mut [u8]) {
    loop {
        let len = match *options {
            [] | [END_OF_OPTIONS, ..] => return,
            [NO_OPERATION, ..] => 1,
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return,
        };
        let Some((option, rest)) = options.split_at_mut_checked(len) else { return };
        if option[0] & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        options = rest;
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
