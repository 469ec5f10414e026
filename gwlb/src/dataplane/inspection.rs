//! The balancer as the router asks for it when somebody traces a packet: which target a flow would
//! get that begins now. It decides as the workers do, by the same keys and the same candidates, and
//! looks at no flow that there is.

use std::net::SocketAddr;

use geneve::flow::{CanonicalKey, FlowKey, Stickiness};
use geneve::inner::protocol;
use router::trace::{Chosen, Inspection, Packet};
use router::{Choose, EndpointId, GroupId, TransitAttachmentId};

use super::select::choose;
use super::snapshot::{NoCandidate, Snapshot};
use crate::config::TrafficMode;

/// The balancer of one moment, and the packet that is traced.
#[derive(Debug)]
pub struct Balancer<'a> {
    view: &'a Snapshot,
    packet: &'a Packet,
}

impl<'a> Balancer<'a> {
    /// What this view says of this packet and of its answer.
    pub fn new(view: &'a Snapshot, packet: &'a Packet) -> Self {
        Self { view, packet }
    }
}

/// Both directions of a flow have one key, so both get the same answers.
impl Choose for Balancer<'_> {
    fn zone(&self, _: TransitAttachmentId, _: usize) -> usize {
        // The gateway carries no transit gateway: any rule is as good that both directions share.
        key(self.packet, Stickiness::FiveTuple)
            .map_or(0, |key| self.view.keys.placement.hash(&key.to_bytes()) as usize)
    }

    /// Of a weighted group, the member of a packet that has the addresses and ports as they are
    /// behind the internet gateway.
    fn member(&self, group: GroupId, _: usize) -> usize {
        let group = self.view.group(group);
        let known = group.members.first().and_then(|first| {
            let pool = self.view.pool(self.view.endpoint(*first).pool);
            let key = key(self.packet, pool.stickiness)?;
            choose(&self.view.keys.placement, &key, &group.chosen)
        });
        let chosen = known.or_else(|| group.chosen.first().map(|it| it.target));
        group.members.iter().position(|member| Some(*member) == chosen).unwrap_or_default()
    }
}

impl Inspection for Balancer<'_> {
    fn choose(&self, endpoint: EndpointId, packet: &Packet) -> Option<Chosen> {
        let pool = self.view.pool(self.view.endpoint(endpoint).pool);
        let said = |target: Option<String>, why: String| {
            Some(Chosen { load_balancer: pool.load_balancer.clone(), target, why })
        };
        if pool.traffic_mode == TrafficMode::Bypass {
            return said(None, "it is in bypass: packets go on uninspected".to_owned());
        }
        let count = pool.candidates.len();
        if count == 0 {
            let becomes = match pool.none {
                NoCandidate::Drop => "packets are dropped",
                NoCandidate::Bypass => "packets go on uninspected",
            };
            return said(None, format!("it has no target in zone {}: {becomes}", pool.zone));
        }
        let (noun, tuple) = (plural(count), pool.stickiness.name());
        let Some(key) = key(packet, pool.stickiness) else {
            let why =
                format!("one of {count} {noun}, by the {tuple}, of which more has to be known");
            return said(None, why);
        };
        let chosen = choose(&self.view.keys.placement, &key, &pool.candidates);
        let target = chosen.map(|slot| self.view.target(slot).address.to_string());
        said(target, format!("by rendezvous hashing of the {tuple} among {count} {noun}"))
    }
}

/// What of a packet decides about its target; `None` if that is not known.
fn key(packet: &Packet, stickiness: Stickiness) -> Option<CanonicalKey> {
    let protocol = match (packet.protocol, stickiness) {
        (Some(protocol), _) => protocol.0,
        (None, Stickiness::TwoTuple) => protocol::UDP,
        (None, _) => return None,
    };
    let with_ports =
        stickiness == Stickiness::FiveTuple && [protocol::TCP, protocol::UDP].contains(&protocol);
    let ports = match (packet.source_port, packet.destination_port) {
        (Some(source), Some(destination)) => (source, destination),
        _ if with_ports => return None,
        _ => (0, 0),
    };
    let source = SocketAddr::new(packet.source?, ports.0);
    let destination = SocketAddr::new(packet.destination, ports.1);
    Some(FlowKey::new(source, destination, protocol).ok()?.sticky(stickiness))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "target" } else { "targets" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::testing::Plane;

    fn packet(source: &str, destination: &str) -> Packet {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        Packet {
            source: Some(source.ip()),
            destination: destination.ip(),
            protocol: Some(router::trace::Protocol(protocol::TCP)),
            source_port: Some(source.port()),
            destination_port: Some(destination.port()),
        }
    }

    #[test]
    fn both_directions_get_the_target_that_a_worker_would_choose() {
        let plane = Plane::new("drop");
        let view = &*plane.snapshot;
        let endpoint = EndpointId::from_index(0);
        let pool = view.pool(view.endpoint(endpoint).pool);
        let mut seen = std::collections::BTreeSet::new();
        for port in 1024..1124 {
            let there = packet(&format!("203.0.113.7:{port}"), "10.0.1.11:443");
            let back = there.reversed();
            let (there, back) = (
                Balancer::new(view, &there).choose(endpoint, &there).unwrap(),
                Balancer::new(view, &back).choose(endpoint, &back).unwrap(),
            );
            assert_eq!(there, back);
            let flow = FlowKey::new(
                format!("203.0.113.7:{port}").parse().unwrap(),
                "10.0.1.11:443".parse().unwrap(),
                protocol::TCP,
            );
            let key = flow.unwrap().sticky(pool.stickiness);
            let slot = choose(&view.keys.placement, &key, &pool.candidates).unwrap();
            assert_eq!(there.target, Some(view.target(slot).address.to_string()));
            seen.insert(there.target);
        }
        assert_eq!(seen.len(), pool.candidates.len());
    }

    #[test]
    fn of_a_flow_that_is_not_known_it_says_so() {
        let plane = Plane::new("drop");
        let endpoint = EndpointId::from_index(0);
        let mut packet = packet("203.0.113.7:1", "10.0.1.11:443");
        packet.source_port = None;
        let chosen = Balancer::new(&plane.snapshot, &packet).choose(endpoint, &packet).unwrap();
        assert_eq!(chosen.target, None);
        assert!(chosen.why.contains("more has to be known"), "{}", chosen.why);
        // Without ports there are none to be known.
        packet.protocol = Some(router::trace::Protocol(1));
        let chosen = Balancer::new(&plane.snapshot, &packet).choose(endpoint, &packet).unwrap();
        assert!(chosen.target.is_some());
    }
}
