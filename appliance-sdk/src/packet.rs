//! One inner packet, as an appliance sees it.
//!
//! Reading it costs nothing: it lies in the receive buffer. Only replacing or injecting allocates.

use std::time::Instant;

use geneve::dialect::{Dialect, Tags};
use geneve::flow::FlowKey;
use geneve::inner::{Fragment, Inner, Transport};

use crate::appliance::Direction;

/// An inner packet with its flow and endpoint context, and the means to change what is sent back.
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    inner: &'a Inner,
    context: Context,
    effects: &'a mut Effects,
}

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) tags: Tags,
    pub(crate) dialect: &'static Dialect,
    pub(crate) key: FlowKey,
    pub(crate) initiator: FlowKey,
    pub(crate) direction: Direction,
    pub(crate) now: Instant,
}

/// What an appliance did to a packet besides deciding on it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) replacement: Option<Vec<u8>>,
    pub(crate) injected: Vec<Vec<u8>>,
}

/// Why a payload could not be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// Lengths and checksums of a fragment's transport header cover the other fragments too.
    #[error("the packet is a fragment: its payload cannot be replaced by itself")]
    Fragment,
    /// Only for TCP and UDP it is known where the payload begins.
    #[error(
        "the packet is neither TCP nor UDP (IP protocol {0}): replace the whole packet instead"
    )]
    Protocol(u8),
    /// An IP packet has at most 65,535 bytes (IPv6: behind its first header).
    #[error("the packet would have {0} bytes, more than IP can carry")]
    TooLong(usize),
}

impl<'a> Packet<'a> {
    pub(crate) fn new(
        bytes: &'a [u8],
        inner: &'a Inner,
        context: Context,
        effects: &'a mut Effects,
    ) -> Self {
        Self { bytes, inner, context, effects }
    }

    /// The validated headers: addresses, protocol, ports, flags.
    pub fn inner(&self) -> &Inner {
        self.inner
    }

    /// The inner packet as it arrived, from its IP header on.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the transport protocol carries: the bytes behind the TCP or UDP header, and for every
    /// other protocol, and later fragments, the bytes behind the IP headers.
    pub fn payload(&self) -> &'a [u8] {
        let start = self.payload_start();
        let end = match self.inner.transport {
            // The UDP length may be less than what IP carries (RFC 9868 puts options there).
            Transport::Udp { .. } if self.inner.fragment == Fragment::Whole => {
                udp_end(self.bytes, self.inner.header_len)
            }
            _ => self.bytes.len(),
        };
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The packet's flow key, in the direction in which the packet goes. It has ports for whole
    /// TCP and UDP packets only.
    pub fn flow_key(&self) -> FlowKey {
        self.context.key
    }

    /// The flow's key in the direction of its initiator.
    pub fn initiator(&self) -> FlowKey {
        self.context.initiator
    }

    /// Which way the packet goes within its flow.
    pub fn direction(&self) -> Direction {
        self.context.direction
    }

    /// The endpoint that the packet belongs to, its attachment, and the flow cookie.
    pub fn tags(&self) -> &Tags {
        &self.context.tags
    }

    /// The option dialect that the gateway speaks.
    pub fn dialect(&self) -> &'static Dialect {
        self.context.dialect
    }

    /// When the batch with this packet was received.
    pub fn received_at(&self) -> Instant {
        self.context.now
    }

    /// Replaces the whole inner packet by another one of the same flow.
    ///
    /// Lengths and checksums are the caller's. A gateway refuses what is not of the same flow, and
    /// so does the runtime, by name ([`RewriteForeign`](crate::DropReason::RewriteForeign)). It
    /// has no effect when the packet is not forwarded.
    pub fn replace(&mut self, packet: impl Into<Vec<u8>>) {
        self.effects.replacement = Some(packet.into());
    }

    /// Replaces the TCP or UDP payload; lengths and checksums are put right.
    ///
    /// A TCP payload of another length would shift the stream's sequence numbers: keeping both
    /// ends in agreement is then up to the caller.
    pub fn replace_payload(&mut self, payload: &[u8]) -> Result<(), ReplaceError> {
        if self.inner.fragment != Fragment::Whole {
            return Err(ReplaceError::Fragment);
        }
        if !matches!(self.inner.transport, Transport::Tcp { .. } | Transport::Udp { .. }) {
            return Err(ReplaceError::Protocol(self.inner.protocol));
        }
        let headers = self.bytes.get(..self.payload_start()).unwrap_or_default();
        let packet = crate::rebuild::with_payload(headers, self.inner, payload)?;
        self.replace(packet);
        Ok(())
    }

    /// Sends another packet of this flow, or an ICMP error about it, to the gateway after this
    /// one, with the flow's latest Geneve header. It is sent whatever is decided on this packet.
    ///
    /// The gateway delivers it by its destination address, so a packet with the addresses swapped
    /// answers the sender. What is neither of the flow nor about it is not sent, and counted
    /// ([`InjectForeign`](crate::DropReason::InjectForeign)).
    pub fn inject(&mut self, packet: impl Into<Vec<u8>>) {
        self.effects.injected.push(packet.into());
    }

    fn payload_start(&self) -> usize {
        let transport = match self.inner.transport {
            Transport::Tcp { header_len, .. } => header_len,
            Transport::Udp { .. } => UDP_HEADER_LEN,
            _ => 0,
        };
        self.inner.header_len + transport
    }
}

pub(crate) const UDP_HEADER_LEN: usize = 8;

/// Where the UDP datagram behind the IP headers ends, by its own length field, which
/// [`Inner::parse`] checked.
fn udp_end(packet: &[u8], ip_headers: usize) -> usize {
    packet
        .get(ip_headers + 4..ip_headers + 6)
        .and_then(|field| field.try_into().ok())
        .map_or(packet.len(), |field| ip_headers + usize::from(u16::from_be_bytes(field)))
}
