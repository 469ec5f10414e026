//! What a packet still wants done to it on its way out of a host: cutting into segments and
//! completing a checksum. This is what the virtio-net header of a TUN device says, in our terms.
//!
//! [`Segmenter`] does the cutting in user space, [`Coalescer`] the reverse; each restores what the
//! other made, byte for byte (but for PSH, with [`Limits::across_push`]). How the header is laid out in bytes is the TUN's business.

mod coalesce;
mod segment;

pub use coalesce::{Coalescer, Limits, MAX_PIECES, Piece, Place, Run, TABLE};
pub use segment::{MAX_HEADERS, OffloadError, Segment, Segmenter};

/// What is left to be done to one packet. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// How to cut the packet up.
    pub segment: Segmentation,
    /// The checksum that is not complete yet.
    pub checksum: Option<PartialChecksum>,
    /// Length of all headers, the transport's included, in bytes. A hint, as virtio-net has it:
    /// 0 if not known, never to be relied on.
    pub hdr_len: u16,
}

impl Offload {
    /// Nothing is left to be done.
    pub const NONE: Offload = Offload { segment: Segmentation::None, checksum: None, hdr_len: 0 };

    /// Whether the packet stands for several.
    pub fn is_super_packet(&self) -> bool {
        self.segment != Segmentation::None
    }
}

/// How to cut a packet up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// Not at all.
    #[default]
    None,
    /// Into TCP segments (TSO).
    Tcp {
        /// Payload bytes in every segment but the last, which may have fewer.
        size: u16,
        /// CWR is set, and only the first segment may carry it (RFC 3168 §6.1.2).
        ecn: bool,
    },
    /// Into UDP datagrams (USO).
    Udp {
        /// Payload bytes in every datagram but the last, which may have fewer.
        size: u16,
    },
}

/// A checksum whose field holds only the sum over the pseudo-header, not complemented. To complete
/// it, sum up everything from `start` to the end of the packet, the field included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where summing starts (the transport header), in bytes from the start of the packet.
    pub start: u16,
    /// Where the field lies, in bytes from `start`.
    pub offset: u16,
}

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Where the flags lie in a TCP header.
const TCP_FLAGS: usize = 13;
/// Where the checksum lies in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Where the checksum lies in a UDP header.
pub(crate) const UDP_CHECKSUM: usize = 6;
/// Length of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;

#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
