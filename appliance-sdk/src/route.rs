//! Where datagrams come from, and where the answers go.

use std::net::SocketAddr;

/// The outer addresses of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The gateway's address, and the source port that it chose for the flow.
    pub gateway: SocketAddr,
    /// The address that the datagram was sent to, with the port that the appliance listens on.
    pub local: SocketAddr,
    /// The outer type-of-service byte or traffic class: DSCP and ECN.
    pub tos: u8,
}

impl Arrival {
    /// The way back: the outer addresses are swapped, the UDP ports are not. The source port stays
    /// the one that the gateway chose, the destination port stays the Geneve port.
    ///
    /// The type of service goes back too, so that a congestion mark reaches the gateway, which
    /// alone may carry it over to the inner packet (RFC 6040 §4.2).
    pub fn back(&self) -> Route {
        let (mut source, mut destination) = (self.local, self.gateway);
        source.set_port(self.gateway.port());
        destination.set_port(self.local.port());
        if let (SocketAddr::V6(source), SocketAddr::V6(gateway)) = (&mut source, self.gateway) {
            // A link-local address means nothing without its link.
            source.set_scope_id(gateway.scope_id());
        }
        Route { source, destination, tos: self.tos }
    }
}

/// The outer addresses of a datagram to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The local address and port to send from.
    pub source: SocketAddr,
    /// Where to send to.
    pub destination: SocketAddr,
    /// The outer type-of-service byte or traffic class.
    pub tos: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_swapped_and_ports_are_kept() {
        let cases = [
            ("192.0.2.1:51000", "192.0.2.11:6081", "192.0.2.11:51000", "192.0.2.1:6081"),
            (
                "[2001:db8::1]:51000",
                "[2001:db8::b]:6081",
                "[2001:db8::b]:51000",
                "[2001:db8::1]:6081",
            ),
        ];
        for (gateway, local, source, destination) in cases {
            let arrival = Arrival {
                gateway: gateway.parse().unwrap(),
                local: local.parse().unwrap(),
                tos: 0xb9,
            };
            let expected = Route {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                tos: 0xb9,
            };
            assert_eq!(arrival.back(), expected);
        }
    }

    #[test]
    fn a_link_local_answer_leaves_by_the_link_it_came_from() {
        let arrival = Arrival {
            gateway: "[fe80::1%7]:51000".parse().unwrap(),
            local: "[fe80::2]:6081".parse().unwrap(),
            tos: 0,
        };
        let back = arrival.back();
        assert_eq!(back.source, "[fe80::2%7]:51000".parse().unwrap());
        assert_eq!(back.destination, "[fe80::1%7]:6081".parse().unwrap());
    }
}
