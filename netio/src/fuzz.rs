//! Doors for fuzz harnesses to readers of bytes that are nobody else's business.
//!
//! Only there with the feature `fuzz`, and no part of the crate's interface.

use std::net::IpAddr;

use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::address::AddressMessage;

use crate::offload::Offload;
use crate::tun::virtio;
use crate::udp::SocketError;
use crate::udp::{control::Incoming, error};

/// Length of the virtio-net header, in bytes.
pub const VIRTIO_HEADER: usize = virtio::HEADER;

/// What a TUN's virtio-net header says; `None` if that was never offered to the kernel.
pub fn decode_virtio(header: [u8; VIRTIO_HEADER]) -> Option<Offload> {
    virtio::decode(header)
}

/// The virtio-net header that says it of a packet of this IP version.
pub fn encode_virtio(offload: &Offload, version: u8) -> [u8; VIRTIO_HEADER] {
    virtio::encode(offload, version)
}

/// What the control messages of a received datagram say, one behind the other in `buffer`: segment
/// size, local address, TOS.
pub fn control_messages(buffer: &[u8]) -> (u16, Option<IpAddr>, u8) {
    let Incoming { segment_size, local, tos } = Incoming::read_from(buffer);
    (segment_size, local, tos)
}

/// What the data of a control message of the error queue says.
pub fn socket_error(data: &[u8]) -> Option<SocketError> {
    error::read(data)
}

/// Why the kernel refused.
pub fn link_refusal(message: &ErrorMessage) -> std::io::Error {
    crate::link::refusal(message)
}

/// The address that a message is about, with its prefix length.
pub fn link_address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    crate::link::address(message)
}
