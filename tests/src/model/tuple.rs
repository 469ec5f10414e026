//! What makes packets one flow: addresses, protocol, ports. Which end is named first makes no
//! difference to a flow, and does to a packet.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use geneve::{FlowKey, Fragment, Inner, Stickiness, Transport};

/// The tuple of a packet, in its direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub protocol: u8,
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
}

/// A flow: both directions of a tuple. The lower end stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    protocol: u8,
    ends: [(IpAddr, u16); 2],
}

impl Tuple {
    /// A packet's own: with ports "of an unfragmented TCP/UDP packet; for everything else (ICMP,
    /// other protocols, every fragment, the first included) addresses and protocol".
    pub(super) fn of(inner: &Inner) -> Tuple {
        let ports = match (inner.fragment, inner.transport) {
            (Fragment::Whole, Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst }) => {
                (src, dst)
            }
            _ => (0, 0),
        };
        // What all fragments of a packet state alike.
        let protocol = inner.flow_key().protocol();
        Tuple { protocol, from: (inner.src, ports.0), to: (inner.dst, ports.1) }
    }

    /// With ports, wherever they can be read: in a first fragment, too.
    pub(super) fn with_ports(inner: &Inner) -> Option<Tuple> {
        let (Transport::Tcp { src, dst, .. }
        | Transport::Udp { src, dst }
        | Transport::PortsOnly { src, dst }) = inner.transport
        else {
            return None;
        };
        Some(Tuple { protocol: inner.protocol, from: (inner.src, src), to: (inner.dst, dst) })
    }

    /// Of the packet that an ICMP error is about.
    pub(super) fn about(inner: &Inner) -> Option<Tuple> {
        let Transport::IcmpError { about, .. } = inner.transport else { return None };
        Some(Tuple::from(about))
    }

    pub(super) fn without_ports(self) -> Tuple {
        Tuple { from: (self.from.0, 0), to: (self.to.0, 0), ..self }
    }

    /// The flow that both directions are.
    pub(super) fn flow(self) -> Flow {
        let mut ends = [self.from, self.to];
        ends.sort_unstable();
        Flow { protocol: self.protocol, ends }
    }

    /// The flow, as far as the stickiness looks.
    pub(super) fn sticky(self, stickiness: Stickiness) -> Flow {
        match stickiness {
            Stickiness::FiveTuple => self.flow(),
            Stickiness::ThreeTuple => self.without_ports().flow(),
            Stickiness::TwoTuple => Tuple { protocol: 0, ..self.without_ports() }.flow(),
        }
    }

    /// Which end of its flow has sent it.
    pub(super) fn end(self) -> usize {
        usize::from(self.from > self.to)
    }
}

impl From<FlowKey> for Tuple {
    fn from(key: FlowKey) -> Tuple {
        let (from, to) = ((key.src(), key.src_port()), (key.dst(), key.dst_port()));
        Tuple { protocol: key.protocol(), from, to }
    }
}

impl Flow {
    /// Nothing is less.
    pub(super) fn least() -> Flow {
        Flow { protocol: 0, ends: [(IpAddr::from([0; 4]), 0); 2] }
    }

    /// What all flows of a protocol between two hosts have in common.
    pub(super) fn without_ports(self) -> Flow {
        Flow { ends: self.ends.map(|(host, _)| (host, 0)), ..self }
    }

    pub(super) fn protocol(&self) -> u8 {
        self.protocol
    }

    pub(super) fn ends(&self) -> [SocketAddr; 2] {
        self.ends.map(SocketAddr::from)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.ends();
        write!(f, "protocol {} {low} <> {high}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(from: &str, to: &str) -> Tuple {
        let [from, to]: [SocketAddr; 2] = [from, to].map(|end| end.parse().expect("an address"));
        Tuple { protocol: 6, from: (from.ip(), from.port()), to: (to.ip(), to.port()) }
    }

    #[test]
    fn both_directions_are_one_flow_of_two_ends() {
        for (one, other) in [("10.0.0.1:80", "10.0.0.2:1000"), ("10.0.0.1:80", "10.0.0.1:81")] {
            let (there, back) = (tuple(one, other), tuple(other, one));
            assert_ne!(there, back);
            for stickiness in [Stickiness::FiveTuple, Stickiness::ThreeTuple, Stickiness::TwoTuple]
            {
                assert_eq!(there.sticky(stickiness), back.sticky(stickiness));
            }
            assert_eq!((there.end(), back.end()), (0, 1));
            assert_eq!(there.flow().ends().map(|end| end.to_string()), [one, other]);
        }
    }

    #[test]
    fn stickiness_decides_what_is_looked_at() {
        let (one, port) =
            (tuple("[fd00::1]:1", "[fd00::2]:2"), tuple("[fd00::1]:3", "[fd00::2]:2"));
        let protocol = Tuple { protocol: 17, ..one };
        let same = |other: Tuple| {
            [Stickiness::FiveTuple, Stickiness::ThreeTuple, Stickiness::TwoTuple]
                .map(|stickiness| one.sticky(stickiness) == other.sticky(stickiness))
        };
        assert_eq!(same(port), [false, true, true]);
        assert_eq!(same(protocol), [false, false, true]);
        assert_eq!(same(tuple("[fd00::1]:1", "[fd00::3]:2")), [false; 3]);
    }
}
