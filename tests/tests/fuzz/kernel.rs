//! What the kernel says: netlink messages, control messages of received datagrams, the error
//! queue, and the virtio-net header of a TUN.
//!
//! It is trusted; but its answers quote what others sent (link names, ICMP errors), and lengths
//! that are followed blindly would make of any mistake something worse.

use netio::fuzz::{self, VIRTIO_HEADER};
use netio::link::Link;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;

use crate::engine::fuzz;
use crate::input::Input;

#[test]
fn netlink_replies() {
    fuzz!(5_000, |bytes: &[u8]| {
        // Several come in one datagram, as rtnetlink's own codec takes them apart.
        let mut rest = bytes;
        while let Some((message, behind)) = next_message(rest) {
            rest = behind;
            let Ok(message) = NetlinkMessage::<Message>::deserialize(message) else { continue };
            match message.payload {
                NetlinkPayload::InnerMessage(Message::NewLink(link)) => {
                    let read = Link::from(&link);
                    assert_eq!(read.index, link.header.index);
                    assert_same_again(Message::NewLink(link), |again| match again {
                        Message::NewLink(again) => Link::from(&again) == read,
                        _ => false,
                    });
                }
                NetlinkPayload::InnerMessage(Message::NewAddress(address)) => {
                    let read = fuzz::link_address(&address);
                    assert!(read.is_none_or(|(_, prefix)| prefix == address.header.prefix_len));
                }
                NetlinkPayload::Error(error) => {
                    let code = error.raw_code();
                    let found = fuzz::link_refusal(&error).raw_os_error();
                    assert_eq!(found, Some(code.checked_neg().unwrap_or(i32::MIN)));
                }
                _ => {}
            }
        }
    });
}

/// The next message of a datagram, by the length that it begins with.
fn next_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let message = bytes.get(..len).filter(|_| len >= 16)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((message, rest))
}

/// Written out and read anew it says the same.
fn assert_same_again(message: Message, same: impl FnOnce(Message) -> bool) {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let Ok(again) = NetlinkMessage::<Message>::deserialize(&bytes) else { return };
    if let NetlinkPayload::InnerMessage(again) = again.payload {
        assert!(same(again));
    }
}

#[test]
fn control_messages() {
    fuzz!(50_000, |bytes: &[u8]| {
        // What one finds who goes by hand from one message to the next.
        let (mut size, mut local, mut tos) = (0, None, 0);
        let mut at = 0;
        while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            let number = |from: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|i| head[from + i]));
            let len = usize::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| head[i]));
            let Some(data) = bytes.get(at + 16..at.saturating_add(len)) else { break };
            match (number(8), number(12)) {
                // SOL_UDP, UDP_GRO: an int.
                (17, 104) => {
                    let value = data.first_chunk().map(|value| i32::from_ne_bytes(*value));
                    size = value.and_then(|value| u16::try_from(value).ok()).unwrap_or(0);
                }
                // IP_PKTINFO: the destination is the last of three words.
                (0, 8) => {
                    local = data.get(8..12).map(|a| [a[0], a[1], a[2], a[3]].into());
                }
                // IPV6_PKTINFO: the address is in front, and the interface behind.
                (41, 50) => {
                    let address = data.get(..20).and_then(|data| data.first_chunk::<16>());
                    local = address.map(|address| (*address).into());
                }
                (0, 1) => tos = data.first().copied().unwrap_or(0),
                (41, 67) => tos = data.get(..4).map_or(0, |class| class[0]),
                _ => {}
            }
            at += len.next_multiple_of(8);
        }
        assert_eq!(fuzz::control_messages(bytes), (size, local, tos));
    });
}

#[test]
fn socket_errors() {
    fuzz!(50_000, |bytes: &[u8]| {
        match fuzz::socket_error(bytes) {
            None => assert!(bytes.len() < 16, "sixteen bytes are enough"),
            Some(error) => {
                assert_eq!((error.kind, error.code), (bytes[5], bytes[6]));
                assert_eq!(error.errno, i32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[i])));
                // EMSGSIZE is what carries an MTU.
                assert_eq!(error.mtu.is_some(), error.errno == 90);
                let six = error.offender.is_some_and(|offender| offender.is_ipv6());
                assert!(error.offender.is_none() || bytes.len() >= if six { 44 } else { 32 });
            }
        }
    });
}

#[test]
fn virtio_headers() {
    fuzz!(50_000, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let header: [u8; VIRTIO_HEADER] = input.array();
        let version = if input.flag() { 6 } else { 4 };
        // NONE, TCPV4, TCPV6 and UDP_L4 were offered, ECN with any of them.
        let offered = matches!(header[1] & 0x7f, 0 | 1 | 4 | 5);
        let offload = fuzz::decode_virtio(header);
        assert_eq!(offload.is_some(), offered);
        if let Some(offload) = offload {
            let again = fuzz::encode_virtio(&offload, version);
            assert_eq!(fuzz::decode_virtio(again), Some(offload));
        }
    });
}
