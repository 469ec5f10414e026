//! What can be read of a datagram to or from an appliance, for people: nothing here decides about
//! packets.

use std::fmt;

use geneve::inner::protocol;
use geneve::{Dialect, FlowKey, Header, Tags};

use crate::dataplane::snapshot::Snapshot;

/// The tags of a datagram by whichever dialect it is, and what lies behind its Geneve header. Of a
/// datagram with no header that can be read there is neither.
pub(super) fn opened(datagram: &[u8]) -> (Option<Tags>, &[u8]) {
    match Header::parse(datagram) {
        Ok((header, inner)) => {
            let tags = Dialect::ALL.iter().find_map(|dialect| dialect.read(&header).ok());
            (tags, inner)
        }
        Err(_) => (None, &[]),
    }
}

/// An endpoint by its name, or by its id on the wire if none has it.
pub(super) fn endpoint_name(wire_id: u64, view: Option<&Snapshot>) -> String {
    let known = view.and_then(|view| {
        let id = view.wire_ids.get(&wire_id)?;
        Some(view.topology.endpoint(*id).name.clone())
    });
    known.unwrap_or_else(|| format!("{wire_id:#018x}"))
}

/// A flow in its direction, as people write it: `tcp 10.0.1.11:43512 > 203.0.113.7:443`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a>(pub &'a FlowKey);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(flow) = self;
        match flow.protocol() {
            protocol::TCP => f.write_str("tcp")?,
            protocol::UDP => f.write_str("udp")?,
            protocol::ICMP => f.write_str("icmp")?,
            protocol::ICMPV6 => f.write_str("icmpv6")?,
            other => write!(f, "protocol {other}")?,
        }
        if (flow.src_port(), flow.dst_port()) == (0, 0) {
            return write!(f, " {} > {}", flow.src(), flow.dst());
        }
        let src = std::net::SocketAddr::new(flow.src(), flow.src_port());
        let dst = std::net::SocketAddr::new(flow.dst(), flow.dst_port());
        write!(f, " {src} > {dst}")
    }
}

#[cfg(test)]
mod tests {
    use geneve::ProtocolType;
    use geneve::dialect::Template;

    use super::*;

    #[test]
    fn flows_are_written_as_people_do() {
        let flow = |src: &str, dst: &str, protocol| {
            let key = FlowKey::new(src.parse().unwrap(), dst.parse().unwrap(), protocol).unwrap();
            Shown(&key).to_string()
        };
        for (src, dst, protocol, text) in [
            ("10.0.1.11:5", "203.0.113.7:443", 6, "tcp 10.0.1.11:5 > 203.0.113.7:443"),
            ("[2001:db8::1]:5", "[2001:db8::2]:53", 17, "udp [2001:db8::1]:5 > [2001:db8::2]:53"),
            ("10.0.1.11:0", "203.0.113.7:0", 1, "icmp 10.0.1.11 > 203.0.113.7"),
            ("[::1]:0", "[::2]:0", 58, "icmpv6 ::1 > ::2"),
            ("10.0.1.11:0", "203.0.113.7:0", 47, "protocol 47 10.0.1.11 > 203.0.113.7"),
        ] {
            assert_eq!(flow(src, dst, protocol), text);
        }
    }

    #[test]
    fn every_dialect_is_read_and_noise_is_not() {
        for dialect in Dialect::ALL {
            let tags = Tags { endpoint: 7, attachment: 0, cookie: 9 };
            let template = dialect.template(ProtocolType::IPV4);
            let mut header = [0; Template::MAX];
            template.stamp(&tags, &mut header);
            let datagram = [&header[..template.len()], b"inner"].concat();
            let (read, inner) = opened(&datagram);
            assert_eq!(
                (read.map(|it| (it.endpoint, it.cookie)), inner),
                (Some((7, 9)), &b"inner"[..])
            );
        }
        assert!(opened(b"noise").0.is_none());
        assert_eq!(endpoint_name(0x17, None), "0x0000000000000017");
    }
}
