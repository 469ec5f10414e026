//! The way back: a datagram from an appliance is verified and its inner packet routed on.
//!
//! No flow state is needed: the source must be a target, and the cookie must have been made for
//! this inner flow, this endpoint and this target. So any worker, another gateway with the same
//! secret, and a gateway that was restarted can take a return.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use geneve::dialect::DialectError;
use geneve::flow::{CanonicalKey, FlowKey};
use geneve::header::{Header, ProtocolType};
use geneve::inner::{Inner, IpVersion, Transport};
use router::{Entry, NextHop};

use super::ingress::no_way;
use super::snapshot::{Snapshot, TargetSlot};
use super::stats::WorkerStats;
use super::verdict::{DropReason, GeneveHeader, ReturnVerdict, Returned, Way};
use crate::fault::{self, Fault};

/// The half of the data plane that takes packets back; one per worker, without flow state.
#[derive(Debug)]
pub struct Return {
    snapshot: Arc<Snapshot>,
    stats: Arc<WorkerStats>,
    /// The last datagram that was verified: the segments of a run repeat it.
    last: Option<Verified>,
}

/// All that the verdict depends on besides the snapshot, and what was found.
#[derive(Debug)]
struct Verified {
    from: SocketAddr,
    local: IpAddr,
    header: GeneveHeader,
    flow: InnerFlow,
    way: Way,
    target: TargetSlot,
}

/// What of an inner packet its cookie can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InnerFlow {
    own: FlowKey,
    /// The flow with ports, which a first fragment has besides its own.
    ported: Option<FlowKey>,
    /// The flow that an ICMP error is about.
    about: Option<FlowKey>,
}

impl InnerFlow {
    fn of(inner: &Inner) -> Self {
        let about = match inner.transport {
            Transport::IcmpError { about, .. } => Some(about),
            _ => None,
        };
        let own = inner.flow_key();
        Self { own, ported: inner.ported_key().filter(|ported| *ported != own), about }
    }

    /// The packet's own flow, with ports and without, since appliances echo the latest header of a
    /// flow, and that may have been a fragment's or a whole packet's; and both of the flow that an ICMP error is about,
    /// since an appliance that rejects a packet answers with the header of that packet.
    fn may_be_stamped_for(&self) -> impl Iterator<Item = CanonicalKey> {
        [Some(self.own), self.ported, self.about]
            .into_iter()
            .flatten()
            .flat_map(|flow| [flow.canonical(), flow.portless().canonical()])
    }
}

impl Return {
    /// A worker's return path.
    pub fn new(snapshot: Arc<Snapshot>, stats: Arc<WorkerStats>) -> Self {
        Self { snapshot, stats, last: None }
    }

    /// Takes a new view of the configuration.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.last = None;
    }

    /// Decides about one UDP payload that came `from` an appliance to our address `local`.
    ///
    /// Drops are counted here; what is to be delivered or sent on is counted by whoever does it.
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        local: IpAddr,
        datagram: &[u8],
    ) -> ReturnVerdict {
        match self.accept(from, local, datagram) {
            Ok(returned) => ReturnVerdict::Accept(returned),
            Err(reason) => {
                self.stats.udp.drops.add(reason, 1);
                ReturnVerdict::Drop(reason)
            }
        }
    }

    fn accept(
        &mut self,
        from: SocketAddr,
        local: IpAddr,
        datagram: &[u8],
    ) -> Result<Returned, DropReason> {
        let anybody =
            fault::on(Fault::SourceUnchecked).then(|| fault::every_source(&self.snapshot));
        let sources = self.snapshot.sources.get(&from.ip()).or(anybody.as_ref());
        let sources = sources.ok_or(DropReason::UnknownSource)?;
        let (header, payload) =
            Header::parse(datagram).map_err(|error| DropReason::of_header(&error))?;
        if header.is_control() && !fault::on(Fault::ControlPacketForwarded) {
            return Err(DropReason::GeneveControl);
        }
        let inner = Inner::parse(payload).map_err(|_| DropReason::MalformedPacket)?;
        let expected = match inner.version {
            IpVersion::V4 => ProtocolType::IPV4,
            IpVersion::V6 => ProtocolType::IPV6,
        };
        if header.protocol() != expected && !fault::on(Fault::ProtocolTypeUnchecked) {
            return Err(DropReason::ProtocolType);
        }
        let range = if fault::on(Fault::SurplusDelivered) {
            header.len()..datagram.len()
        } else {
            header.len()..header.len() + inner.total_len
        };
        let flow = InnerFlow::of(&inner);
        if let Some(last) = &self.last
            && (last.flow == flow || fault::on(Fault::NeighboursUnchecked))
            && last.header.as_bytes() == header.as_bytes()
            && last.from == from
            && last.local == local
        {
            return Ok(Returned { way: last.way, target: last.target, range, inner });
        }

        let (endpoint, target) = self.verify(sources, local, &header, &flow)?;
        let way = self.way(endpoint, &inner)?;
        self.last = GeneveHeader::copy_of(header.as_bytes()).map(|header| Verified {
            from,
            local,
            header,
            flow,
            way,
            target,
        });
        Ok(Returned { way, target, range, inner })
    }

    /// Where a packet goes that came back to this endpoint.
    fn way(&self, endpoint: router::EndpointId, inner: &Inner) -> Result<Way, DropReason> {
        let snapshot = &self.snapshot;
        let pool = snapshot.pool(snapshot.endpoint(endpoint).pool);
        if pool.probe.is_some_and(|probe| probe.is(inner)) {
            return Ok(Way::Probe);
        }
        match snapshot.topology.lookup(Entry::Endpoint(endpoint), inner.dst) {
            NextHop::Deliver(to) if snapshot.attachments.contains_key(&to) => Ok(Way::Deliver(to)),
            NextHop::Deliver(_) => Err(DropReason::NotAttached),
            NextHop::Endpoint(_) => Ok(Way::Onward(endpoint)),
            other => Err(no_way(other)),
        }
    }

    /// Which endpoint and which of the targets at the source address the datagram is genuine for.
    /// Of several that all refuse it, the one that came furthest names the reason.
    fn verify(
        &self,
        sources: &[TargetSlot],
        local: IpAddr,
        header: &Header<'_>,
        flow: &InnerFlow,
    ) -> Result<(router::EndpointId, TargetSlot), DropReason> {
        let mut refusal = DropReason::UnknownSource;
        for &slot in sources {
            match self.verify_target(slot, local, header, flow) {
                Ok(endpoint) => return Ok((endpoint, slot)),
                Err(reason) => refusal = refusal.max(reason),
            }
        }
        Err(refusal)
    }

    fn verify_target(
        &self,
        slot: TargetSlot,
        local: IpAddr,
        header: &Header<'_>,
        flow: &InnerFlow,
    ) -> Result<router::EndpointId, DropReason> {
        let snapshot = &self.snapshot;
        let target = snapshot.target(slot);
        let tags = match target.dialect.read(header) {
            Err(DialectError::UnknownCritical { .. })
                if fault::on(Fault::CriticalOptionIgnored) =>
            {
                fault::tags_all_the_same(header)
            }
            read => read.map_err(|error| DropReason::of_options(&error))?,
        };
        let endpoint = *snapshot.wire_ids.get(&tags.endpoint).ok_or(DropReason::UnknownEndpoint)?;
        let pool = snapshot.pool(snapshot.endpoint(endpoint).pool);
        if pool.address != local && !fault::on(Fault::GatewayAddressUnchecked) {
            return Err(DropReason::WrongGatewayAddress);
        }
        let genuine = flow.may_be_stamped_for().any(|tuple| {
            snapshot.keys.cookie.verify(tags.cookie, tags.endpoint, target.id, &tuple)
        });
        (genuine || fault::on(Fault::CookieUnchecked))
            .then_some(endpoint)
            .ok_or(DropReason::BadCookie)
    }
}

#[cfg(test)]
mod tests {
    use router::Attachment;

    use super::super::testing::{CLIENT, GATEWAY, Plane, SERVER, ack, echo, syn, udp};
    use super::super::verdict::Returned;
    use super::*;

    fn accepted(verdict: ReturnVerdict) -> Returned {
        match verdict {
            ReturnVerdict::Accept(returned) => returned,
            ReturnVerdict::Drop(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn what_was_sent_comes_back_and_goes_on() {
        let mut plane = Plane::new("drop");
        let (igw, app) = (plane.igw, plane.app);
        let packet = syn(CLIENT, SERVER, (1000, 80));
        let (from, datagram) = echo(&plane.hop(igw, &packet), &packet);
        let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
        assert!(matches!(returned.way, Way::Deliver(Attachment::Subnet(_))));
        assert_eq!(&datagram[returned.range], &packet);

        let packet = ack(SERVER, CLIENT, (80, 1000), b"answer");
        let (from, datagram) = echo(&plane.hop(app, &packet), &packet);
        let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
        assert!(matches!(returned.way, Way::Deliver(Attachment::InternetGateway(_))));
    }

    #[test]
    fn what_is_not_genuine_is_dropped_by_name() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
        let hop = plane.hop(igw, &packet);
        let (from, genuine) = echo(&hop, &packet);
        let other_flow = echo(&hop, &udp(CLIENT, SERVER, (1001, 53), b"question")).1;
        let mutated = |byte: usize, value: u8| {
            let mut datagram = genuine.clone();
            datagram[byte] = value;
            datagram
        };
        let stranger = SocketAddr::from(([192, 0, 2, 99], 6081));
        let sibling_address = if from.ip() == IpAddr::from([192, 0, 2, 11]) { 12 } else { 11 };
        let sibling = SocketAddr::from(([192, 0, 2, sibling_address], 6081));
        let elsewhere = IpAddr::from([192, 0, 2, 2]);
        let cases = [
            (stranger, GATEWAY, genuine.clone(), DropReason::UnknownSource),
            (sibling, GATEWAY, genuine.clone(), DropReason::BadCookie),
            (from, elsewhere, genuine.clone(), DropReason::WrongGatewayAddress),
            (from, GATEWAY, other_flow, DropReason::BadCookie),
            (from, GATEWAY, mutated(0, 0x48), DropReason::GeneveVersion),
            (from, GATEWAY, mutated(0, 0x3f), DropReason::MalformedGeneve),
            (from, GATEWAY, mutated(1, 0x80), DropReason::GeneveControl),
            (from, GATEWAY, mutated(2, 0x86), DropReason::ProtocolType),
            (from, GATEWAY, mutated(8, 0x7f), DropReason::DialectOptions),
            (from, GATEWAY, mutated(19, 0xff), DropReason::UnknownEndpoint),
            (from, GATEWAY, mutated(39, genuine[39] ^ 1), DropReason::BadCookie),
            (from, GATEWAY, mutated(40, 0x50), DropReason::MalformedPacket),
        ];
        for (number, (from, local, datagram, expected)) in cases.into_iter().enumerate() {
            // After a genuine one, so that what was remembered of it cannot let a bad one pass.
            accepted(plane.returns.handle_datagram(echo(&hop, &packet).0, GATEWAY, &genuine));
            let verdict = plane.returns.handle_datagram(from, local, &datagram);
            assert_eq!(verdict, ReturnVerdict::Drop(expected), "case {number}");
        }
    }

    #[test]
    fn an_unknown_critical_option_has_a_name_of_its_own() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
        let hop = plane.hop(igw, &packet);
        let header = hop.header.as_bytes();
        for (kind, expected) in [(0x80, Some(DropReason::CriticalOption)), (0x00, None)] {
            let mut datagram = header.to_vec();
            datagram[0] += 1;
            datagram.extend_from_slice(&[0x12, 0x34, kind, 0]);
            datagram.extend_from_slice(&packet);
            let verdict = plane.returns.handle_datagram(hop.address, GATEWAY, &datagram);
            match expected {
                Some(reason) => assert_eq!(verdict, ReturnVerdict::Drop(reason)),
                None => drop(accepted(verdict)),
            }
        }
    }

    #[test]
    fn cut_short_at_any_byte_it_is_dropped() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let packet = udp(CLIENT, SERVER, (1000, 53), b"question");
        let (from, datagram) = echo(&plane.hop(igw, &packet), &packet);
        for len in 0..datagram.len() {
            let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram[..len]);
            assert!(matches!(verdict, ReturnVerdict::Drop(_)), "{len} bytes: {verdict:?}");
        }
        let totals = plane.totals();
        assert_eq!(totals.udp.drops.values().sum::<u64>(), datagram.len() as u64);
    }

    #[test]
    fn an_appliance_may_reject_a_packet_with_the_header_of_its_flow() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let [packet, other] = [1000, 1001].map(|port| udp(CLIENT, SERVER, (port, 53), b"question"));
        let hop = plane.hop(igw, &packet);
        let error = |about: &[u8]| {
            let inner = Inner::parse(about).unwrap();
            super::super::reply::packet_too_big(about, &inner, SERVER.into(), 1000).unwrap()
        };
        let (from, datagram) = echo(&hop, error(&packet).bytes());
        let returned = accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
        assert!(matches!(returned.way, Way::Deliver(Attachment::InternetGateway(_))));

        let (from, datagram) = echo(&hop, error(&other).bytes());
        let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram);
        assert_eq!(verdict, ReturnVerdict::Drop(DropReason::BadCookie), "about another flow");
    }

    #[test]
    fn an_appliance_may_reject_a_fragment() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let mut fragment = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
        fragment[6] = 0x20;
        let hop = plane.hop(igw, &fragment);
        let inner = Inner::parse(&fragment).unwrap();
        let error =
            super::super::reply::packet_too_big(&fragment, &inner, SERVER.into(), 1000).unwrap();
        let (from, datagram) = echo(&hop, error.bytes());
        accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    }

    #[test]
    fn a_whole_packet_may_come_back_with_the_header_of_a_fragment() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let whole = udp(CLIENT, SERVER, (1000, 53), &[0; 64]);
        let mut fragment = whole.clone();
        fragment[6] = 0x20;
        let hop = plane.hop(igw, &fragment);
        let (from, datagram) = echo(&hop, &whole);
        accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
    }

    #[test]
    fn a_first_fragment_may_come_back_with_the_header_of_a_whole_packet() {
        let mut plane = Plane::new("drop");
        let igw = plane.igw;
        let [whole, other] = [1000, 1001].map(|port| udp(CLIENT, SERVER, (port, 53), &[0; 64]));
        let hop = plane.hop(igw, &whole);
        let first = |whole: &[u8]| {
            let mut fragment = whole.to_vec();
            fragment[6] = 0x20;
            fragment
        };
        let (from, datagram) = echo(&hop, &first(&whole));
        accepted(plane.returns.handle_datagram(from, GATEWAY, &datagram));
        let (from, datagram) = echo(&hop, &first(&other));
        let verdict = plane.returns.handle_datagram(from, GATEWAY, &datagram);
        assert_eq!(verdict, ReturnVerdict::Drop(DropReason::BadCookie), "of another flow");
    }
}
