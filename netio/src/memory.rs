//! Devices in memory that stand in for real ones: what is sent into one end of a pair is received
//! at the other. For tests, simulations and benchmarks; there is nothing to wait for, so a
//! [`Poller`](crate::poll::Poller) does not know them.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use crossbeam::queue::ArrayQueue;
use geneve::buffer::PacketBuf;

use crate::device::{Device, Slot};

/// One end of a pair. The ends may live in different threads.
#[derive(Debug)]
pub struct MemoryDevice<M> {
    incoming: Arc<ArrayQueue<Slot<M>>>,
    outgoing: Arc<ArrayQueue<Slot<M>>>,
    discarded: u64,
}

/// Two devices that are connected. On the way to each end there is room for `capacity` packets (at
/// least 1); a send beyond that is [`io::ErrorKind::WouldBlock`].
pub fn pair<M>(capacity: usize) -> (MemoryDevice<M>, MemoryDevice<M>) {
    let queue = || Arc::new(ArrayQueue::new(capacity.max(1)));
    let (there, back) = (queue(), queue());
    let end = |incoming: &Arc<_>, outgoing: &Arc<_>| MemoryDevice {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        discarded: 0,
    };
    (end(&back, &there), end(&there, &back))
}

impl<M> MemoryDevice<M> {
    /// Takes the next packet as it was sent, however long it is.
    pub fn take(&mut self) -> Option<Slot<M>> {
        self.incoming.pop()
    }

    /// How many packets were discarded because they were longer than their slot.
    pub fn discarded(&self) -> u64 {
        self.discarded
    }
}

impl<M: Copy + Default> Device for MemoryDevice<M> {
    type Meta = M;

    fn recv(&mut self, slots: &mut [Slot<M>]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(slot) = slots.get_mut(filled) {
            let Some(sent) = self.incoming.pop() else { break };
            slot.packet.clear();
            if slot.packet.extend_from_slice(&sent.packet).is_err() {
                self.discarded += 1;
                continue;
            }
            slot.meta = sent.meta;
            filled += 1;
        }
        Ok(filled)
    }

    fn send(&mut self, meta: &M, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let mut packet = PacketBuf::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            packet.extend_from_slice(piece).map_err(io::Error::other)?;
        }
        let slot = Slot { packet, meta: *meta };
        self.outgoing.push(slot).map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_in_order_with_what_accompanies_them() {
        let (mut left, mut right) = pair::<u8>(4);
        for (meta, text) in [(1, &b"one"[..]), (2, b"two"), (3, b"three")] {
            let (head, tail) = text.split_at(1);
            left.send(&meta, &[IoSlice::new(head), IoSlice::new(tail)]).unwrap();
        }
        let mut slots = [Slot::with_capacity(16), Slot::with_capacity(16)];
        assert_eq!(right.recv(&mut slots).unwrap(), 2);
        assert_eq!((&slots[0].packet[..], slots[0].meta), (&b"one"[..], 1));
        assert_eq!((&slots[1].packet[..], slots[1].meta), (&b"two"[..], 2));
        assert_eq!(right.take().unwrap().packet[..], *b"three");
        assert_eq!(right.recv(&mut slots).unwrap(), 0);
        assert_eq!(left.recv(&mut slots).unwrap(), 0);
    }

    #[test]
    fn a_full_queue_would_block() {
        let (mut left, mut right) = pair::<()>(1);
        left.send(&(), &[]).unwrap();
        let error = left.send(&(), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        right.take().unwrap();
        left.send(&(), &[]).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_discarded_and_counted() {
        let (mut left, mut right) = pair::<()>(2);
        left.send(&(), &[IoSlice::new(b"too long")]).unwrap();
        left.send(&(), &[IoSlice::new(b"fits")]).unwrap();
        let mut slots = [Slot::with_capacity(4)];
        assert_eq!(right.recv(&mut slots).unwrap(), 1);
        assert_eq!(slots[0].packet[..], *b"fits");
        assert_eq!(right.discarded(), 1);
    }
}
