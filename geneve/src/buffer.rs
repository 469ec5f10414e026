//! A packet in owned memory with room in front of it and behind it.
//!
//! Encapsulation writes its headers into the room in front ([`PacketBuf::prepend`]) and
//! decapsulation gives them back ([`PacketBuf::strip`]), so the payload never moves. A buffer keeps
//! its size for life: it is made once, cleared and filled again. It is no growing vector.

use std::fmt;
use std::ops::{Deref, DerefMut};

use thiserror::Error;

/// Room in front of a fresh or cleared buffer, in bytes.
///
/// The longest thing that is put there is an outer IPv6 header, UDP, and Geneve in the largest
/// dialect: 40 + 8 + 48 bytes. The rest is for a link or virtio-net header, and keeps the payload
/// aligned to cache lines where the allocation is.
pub const HEADROOM: usize = 128;

/// Bytes did not fit into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("buffer too short: {needed} bytes needed, {available} available")]
pub struct ShortBuffer {
    /// Bytes that were to be written.
    pub needed: usize,
    /// Bytes that there was room for.
    pub available: usize,
}

/// One packet, with headroom and tail room. Dereferences to the packet's bytes.
#[derive(Clone)]
pub struct PacketBuf {
    storage: Box<[u8]>,
    head: usize,
    len: usize,
}

impl PacketBuf {
    /// An empty buffer with [`HEADROOM`] in front and room for `payload` bytes.
    #[must_use]
    pub fn with_capacity(payload: usize) -> PacketBuf {
        PacketBuf {
            storage: vec![0; HEADROOM.saturating_add(payload)].into_boxed_slice(),
            head: HEADROOM,
            len: 0,
        }
    }

    /// A buffer that holds a copy of `bytes`, with [`HEADROOM`] in front and no room behind.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> PacketBuf {
        let mut buffer = PacketBuf::with_capacity(bytes.len());
        buffer.storage[HEADROOM..].copy_from_slice(bytes);
        buffer.len = bytes.len();
        buffer
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.head..self.head + self.len]
    }

    /// The packet, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.head..self.head + self.len]
    }

    /// Bytes in the packet.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no packet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that [`prepend`](PacketBuf::prepend) can still put in front.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.head
    }

    /// The longest packet that fits without moving its first byte.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.storage.len() - self.head
    }

    /// Grows the packet by `n` bytes toward the head and returns these bytes, to be written; they
    /// hold whatever was there. `None`, and no change, if the headroom is shorter.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.head = self.head.checked_sub(n)?;
        self.len += n;
        Some(&mut self.storage[self.head..self.head + n])
    }

    /// Drops `n` bytes in front (all of them, if there are fewer); they become headroom.
    #[inline]
    pub fn strip(&mut self, n: usize) {
        let n = n.min(self.len);
        self.head += n;
        self.len -= n;
    }

    /// Shortens the packet to `len` bytes; no change if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Empties the buffer and gives it its [`HEADROOM`] back.
    #[inline]
    pub fn clear(&mut self) {
        self.head = HEADROOM;
        self.len = 0;
    }

    /// The initialised room behind the packet: receive into it, then call
    /// [`set_len`](PacketBuf::set_len).
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.head + self.len..]
    }

    /// Sets the packet's length, counted from its first byte.
    ///
    /// # Errors
    /// [`ShortBuffer`], and no change, if `len` is more than [`capacity`](PacketBuf::capacity).
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Result<(), ShortBuffer> {
        let available = self.capacity();
        if len > available {
            return Err(ShortBuffer { needed: len, available });
        }
        self.len = len;
        Ok(())
    }

    /// Appends `bytes` to the packet.
    ///
    /// # Errors
    /// [`ShortBuffer`], and no change, if the room behind the packet is shorter.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), ShortBuffer> {
        let spare = self.spare_mut();
        let available = spare.len();
        let Some(target) = spare.get_mut(..bytes.len()) else {
            return Err(ShortBuffer { needed: bytes.len(), available });
        };
        target.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl DerefMut for PacketBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

impl AsRef<[u8]> for PacketBuf {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Buffers are equal if their packets are; the room around them does not matter.
impl PartialEq for PacketBuf {
    fn eq(&self, other: &PacketBuf) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for PacketBuf {}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBuf")
            .field("len", &self.len)
            .field("headroom", &self.headroom())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Prepend(Vec<u8>),
        Strip(usize),
        Truncate(usize),
        Extend(Vec<u8>),
        Receive(Vec<u8>),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..80);
        prop_oneof![
            bytes().prop_map(Step::Prepend),
            (0..100_usize).prop_map(Step::Strip),
            (0..100_usize).prop_map(Step::Truncate),
            bytes().prop_map(Step::Extend),
            bytes().prop_map(Step::Receive),
            Just(Step::Clear),
        ]
    }

    proptest! {
        /// A vector and a count of headroom behave alike.
        #[test]
        fn does_what_a_vector_does(steps in prop::collection::vec(step(), 0..40)) {
            let mut buffer = PacketBuf::with_capacity(200);
            let (mut model, mut headroom) = (Vec::new(), HEADROOM);
            let room = HEADROOM + 200;
            for step in steps {
                match step {
                    Step::Prepend(bytes) => match buffer.prepend(bytes.len()) {
                        Some(front) => {
                            front.copy_from_slice(&bytes);
                            headroom -= bytes.len();
                            model.splice(..0, bytes);
                        }
                        None => prop_assert!(bytes.len() > headroom),
                    },
                    Step::Strip(n) => {
                        buffer.strip(n);
                        headroom += n.min(model.len());
                        model.drain(..n.min(model.len()));
                    }
                    Step::Truncate(len) => {
                        buffer.truncate(len);
                        model.truncate(len);
                    }
                    Step::Extend(bytes) => {
                        let available = room - headroom - model.len();
                        let expected = if bytes.len() <= available {
                            model.extend(&bytes);
                            Ok(())
                        } else {
                            Err(ShortBuffer { needed: bytes.len(), available })
                        };
                        prop_assert_eq!(buffer.extend_from_slice(&bytes), expected);
                    }
                    Step::Receive(bytes) => {
                        let spare = buffer.spare_mut();
                        let received = bytes.len().min(spare.len());
                        spare[..received].copy_from_slice(&bytes[..received]);
                        model.extend(&bytes[..received]);
                        prop_assert_eq!(buffer.set_len(model.len()), Ok(()));
                    }
                    Step::Clear => {
                        buffer.clear();
                        model.clear();
                        headroom = HEADROOM;
                    }
                }
                prop_assert_eq!(buffer.bytes(), &model[..]);
                prop_assert_eq!(buffer.is_empty(), model.is_empty());
                prop_assert_eq!(buffer.headroom(), headroom);
                prop_assert_eq!(buffer.capacity(), room - headroom);
            }
        }
    }

    #[test]
    fn holds_no_more_than_its_capacity() {
        let mut buffer = PacketBuf::from_slice(&[1, 2, 3]);
        let error = ShortBuffer { needed: 4, available: 3 };
        assert_eq!(buffer.set_len(4), Err(error));
        assert_eq!(error.to_string(), "buffer too short: 4 bytes needed, 3 available");
        assert_eq!(buffer.bytes(), [1, 2, 3]);
        assert!(buffer.prepend(HEADROOM + 1).is_none());
        assert!(buffer.prepend(usize::MAX).is_none());
        assert_eq!(buffer.bytes(), [1, 2, 3]);
    }

    #[test]
    fn is_equal_by_its_packet() {
        let mut stripped = PacketBuf::from_slice(&[0, 1, 2]);
        stripped.strip(1);
        assert_eq!(stripped, PacketBuf::from_slice(&[1, 2]));
        assert_ne!(stripped, PacketBuf::from_slice(&[1, 3]));
    }
}
