//! The one trait behind which all packet devices stand: batch in, batch out, never blocking.
//!
//! What accompanies a packet differs between kinds of device (offloads on a TUN, addresses on a
//! socket), so it is an associated type; how packets move does not.

use std::io::{self, IoSlice};

use geneve::buffer::PacketBuf;

/// A device that takes packets in and gives packets out.
pub trait Device {
    /// What comes along with a packet: [`crate::offload::Offload`] on a TUN,
    /// [`crate::udp::Datagram`] on a UDP socket.
    type Meta: Copy + Default;

    /// Receives what is waiting into `slots`, without blocking.
    ///
    /// Returns how many slots were filled, from the first on; 0 means that nothing is waiting.
    fn recv(&mut self, slots: &mut [Slot<Self::Meta>]) -> io::Result<usize>;

    /// Sends what `pieces` hold, one after the other: one packet (on a TUN perhaps a
    /// super-packet), or on UDP a batch of datagrams of equal size.
    ///
    /// [`io::ErrorKind::WouldBlock`] is returned, never waited for.
    fn send(&mut self, meta: &Self::Meta, pieces: &[IoSlice<'_>]) -> io::Result<()>;
}

/// Room for one received packet and what came along with it.
#[derive(Debug)]
pub struct Slot<M> {
    /// The packet's bytes.
    pub packet: PacketBuf,
    /// What accompanies them.
    pub meta: M,
}

impl<M: Default> Slot<M> {
    /// An empty slot for packets of up to `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { packet: PacketBuf::with_capacity(capacity), meta: M::default() }
    }
}
