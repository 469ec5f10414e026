//! A packet with another payload: headers kept, lengths and checksums put right.

use geneve::checksum;
use geneve::inner::{Inner, IpVersion, Transport};

use crate::packet::ReplaceError;

/// The packet that `headers`, everything in front of the payload of a whole TCP or UDP packet,
/// make with another payload.
pub(crate) fn with_payload(
    headers: &[u8],
    inner: &Inner,
    payload: &[u8],
) -> Result<Vec<u8>, ReplaceError> {
    let mut packet = [headers, payload].concat();
    let too_long = |_| ReplaceError::TooLong(headers.len() + payload.len());
    // IPv4 counts the whole packet (RFC 791 §3.1), IPv6 what follows its first header (RFC 8200 §3).
    let (field, length) = match inner.version {
        IpVersion::V4 => (2, packet.len()),
        IpVersion::V6 => (4, packet.len() - inner.version.header_len()),
    };
    put(&mut packet, field, u16::try_from(length).map_err(too_long)?);
    if let Transport::Udp { .. } = inner.transport {
        let length = u16::try_from(packet.len() - inner.header_len).map_err(too_long)?;
        put(&mut packet, inner.header_len + 4, length);
    }
    let mut rebuilt = *inner;
    rebuilt.total_len = packet.len();
    checksum::complete(&rebuilt, &mut packet);
    Ok(packet)
}

/// Writes a big-endian field of a header that was validated.
fn put(packet: &mut [u8], at: usize, value: u16) {
    if let Some(field) = packet.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use geneve::checksum::Integrity;

    use crate::testing::{self, FakeGateway, Segment};
    use crate::{Action, Appliance, Packet};

    use super::*;

    struct Shout;

    impl Appliance for Shout {
        type Flow = ();

        fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
            let loud = [&packet.payload().to_ascii_uppercase(), &b"!"[..]].concat();
            match packet.replace_payload(&loud) {
                Ok(()) => Action::Forward,
                Err(_) => Action::Drop,
            }
        }
    }

    #[test]
    fn lengths_and_checksums_fit_the_new_payload() {
        let ends = [("10.0.0.1:4000", "10.0.1.1:80"), ("[2001:db8::1]:4000", "[2001:db8::2]:80")];
        for (from, to) in ends {
            let at = Segment::data(1, 1);
            let cases = [
                (testing::tcp(from, to, at, b"hello"), testing::tcp(from, to, at, b"HELLO!")),
                (testing::udp(from, to, b"hello"), testing::udp(from, to, b"HELLO!")),
            ];
            for (packet, expected) in cases {
                let mut gateway = FakeGateway::new(Shout);
                let returned = gateway.send(&packet);
                assert_eq!(returned, [expected]);
                let inner = Inner::parse(&returned[0]).unwrap();
                assert_eq!(checksum::verify(&inner, &returned[0]), Integrity::Valid);
                assert_eq!(gateway.stats().rewritten.packets, 1);
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_not_rewritten() {
        let ping = testing::icmp_echo("10.0.0.1", "10.0.0.2", 1, 1, b"hello");
        assert!(FakeGateway::new(Shout).send(&ping).is_empty());
    }

    #[test]
    fn a_packet_that_ip_cannot_carry_is_refused() {
        let packet = testing::udp("10.0.0.1:1", "10.0.0.2:2", b"");
        let inner = Inner::parse(&packet).unwrap();
        assert!(with_payload(&packet, &inner, &vec![0; 65_535 - 28]).is_ok());
        let refused = with_payload(&packet, &inner, &vec![0; 65_536 - 28]);
        assert_eq!(refused, Err(ReplaceError::TooLong(65_536)));
    }
}
