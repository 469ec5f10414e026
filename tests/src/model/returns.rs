//! The way back: whose datagram it is, whether its cookie was ever given out for what it carries,
//! and where that goes on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use geneve::DialectError;
use geneve::inner::Plain;
use geneve::{Fragment, Header, HeaderError, Inner, IpVersion, ProtocolType, Transport};
use gwlb::dataplane::snapshot::TargetSlot;
use gwlb::dataplane::verdict::{DropReason, Origin, ReturnVerdict, Returned, Side, Way, WorkerId};
use router::{EndpointId, Entry};

use super::plane::Plane;
use super::routes::Next;
use super::tuple::{Flow, Tuple};
use super::view::View;
use super::{Clause, Wrong, wrong};

/// A datagram that came from an appliance.
pub(super) struct Datagram<'a> {
    pub from: SocketAddr,
    pub to: IpAddr,
    pub bytes: &'a [u8],
}

impl Plane {
    /// Judges a datagram, and holds that the gateway has judged alike.
    pub(super) fn judge_return(
        &mut self,
        id: WorkerId,
        datagram: &Datagram<'_>,
        verdict: &ReturnVerdict,
    ) -> Result<(), Wrong> {
        let view = self.view(id)?;
        self.books.udp.flow.received += 1;
        let expected = self.accept(&view, datagram);
        let (returned, accepted) = match (&expected, verdict) {
            (Ok(expected), ReturnVerdict::Accept(accepted)) if expected == accepted => {
                (expected.clone(), datagram.bytes[expected.range.clone()].to_vec())
            }
            (Err(reason), ReturnVerdict::Drop(dropped)) if reason == dropped => {
                self.books.udp.drop(*reason, 1);
                return Ok(());
            }
            (Err(_), ReturnVerdict::Accept(_)) => {
                return wrong(Clause::NoUninspectedPath, || {
                    format!("{expected:?} is expected, and the verdict is {verdict:?}")
                });
            }
            _ => {
                return wrong(Clause::Conservation, || {
                    format!("{expected:?} is expected, and the verdict is {verdict:?}")
                });
            }
        };
        if returned.way != Way::Probe {
            let target = self.books.target(returned.target, view.snapshot.generation);
            target.returned_packets += 1;
            target.returned_bytes += accepted.len() as u64;
        }
        match returned.way {
            Way::Probe => self.books.udp.flow.probes += 1,
            Way::Deliver(to) => {
                self.books.udp.flow.delivered += 1;
                self.worker(id).leave_plain(to, accepted, &view);
            }
            Way::Onward(endpoint) => {
                let origin = Origin { at: Entry::Endpoint(endpoint), side: Side::Udp };
                self.worker(id).onward = Some((origin, accepted));
            }
        }
        Ok(())
    }

    /// What has to become of a datagram.
    fn accept(&self, view: &Arc<View>, it: &Datagram<'_>) -> Result<Returned, DropReason> {
        // "source is a target, cookie is genuine for this inner flow and endpoint"
        let sources = view.snapshot.sources.get(&it.from.ip());
        let sources = sources.filter(|slots| !slots.is_empty());
        let sources = sources.ok_or(DropReason::UnknownSource)?;
        let (header, payload) = Header::parse(it.bytes).map_err(|error| match error {
            HeaderError::Version(_) => DropReason::GeneveVersion,
            _ => DropReason::MalformedGeneve,
        })?;
        if header.is_control() {
            return Err(DropReason::GeneveControl);
        }
        let inner = Inner::parse(payload).map_err(|_| DropReason::MalformedPacket)?;
        let protocol = match inner.version {
            IpVersion::V4 => ProtocolType::IPV4,
            IpVersion::V6 => ProtocolType::IPV6,
        };
        if header.protocol() != protocol {
            return Err(DropReason::ProtocolType);
        }
        let judged: Vec<_> = sources
            .iter()
            .map(|slot| self.judge_source(view, it, *slot, &header, &inner).map(|at| (at, *slot)))
            .collect();
        let Some(&(endpoint, target)) = judged.iter().flatten().next() else {
            // Of several that all refuse it, the one that it came furthest with names the reason.
            let reasons = judged.into_iter().filter_map(Result::err);
            return Err(reasons
                .max_by_key(|reason| how_far(*reason))
                .unwrap_or(DropReason::UnknownSource));
        };
        let way = way(view, endpoint, &inner)?;
        let range = header.len()..header.len() + inner.total_len;
        let plain = Plain::read(payload);
        Ok(Returned { way, target, endpoint, range, plain })
    }

    /// Whether it is genuine for one of the targets at its source: returns its endpoint.
    fn judge_source(
        &self,
        view: &View,
        it: &Datagram<'_>,
        slot: TargetSlot,
        header: &Header<'_>,
        inner: &Inner,
    ) -> Result<EndpointId, DropReason> {
        let target = &view.snapshot.targets[slot.0 as usize];
        let tags = target.dialect.read(header).map_err(|error| match error {
            DialectError::UnknownCritical { .. } => DropReason::CriticalOption,
            _ => DropReason::DialectOptions,
        })?;
        let endpoint = view.routes.endpoint(tags.endpoint).ok_or(DropReason::UnknownEndpoint)?;
        if view.pool(view.endpoint(endpoint).pool).address != it.to {
            return Err(DropReason::WrongGatewayAddress);
        }
        let epoch = view.snapshot.keys.cookie.epoch();
        let genuine = flows_of(inner).into_iter().any(|flow| {
            let purpose = (tags.endpoint, target.id.get(), flow);
            self.fleet.has_issued(&purpose, epoch, tags.cookie)
        });
        if genuine { Ok(endpoint) } else { Err(DropReason::BadCookie) }
    }
}

/// What of a packet its cookie may have been given out for: "A return may match its 5-tuple MAC or
/// its portless one, because appliances echo the latest header they saw"; and both of the flow that
/// an ICMP error is about, since an appliance that rejects a packet answers with its header.
fn flows_of(inner: &Inner) -> Vec<Flow> {
    let flows = [Some(Tuple::of(inner)), Tuple::with_ports(inner), Tuple::about(inner)];
    let both = |tuple: Tuple| [tuple.flow(), tuple.without_ports().flow()];
    flows.into_iter().flatten().flat_map(both).collect()
}

/// Where a packet goes that came back to an endpoint.
fn way(view: &View, endpoint: EndpointId, inner: &Inner) -> Result<Way, DropReason> {
    let pool = view.pool(view.endpoint(endpoint).pool);
    if let Some(probe) = pool.probe {
        let ports = Transport::Udp { src: probe.port, dst: probe.port };
        let whole = inner.fragment == Fragment::Whole && inner.transport == ports;
        if whole && (inner.src, inner.dst) == (probe.source, probe.destination) {
            return Ok(Way::Probe);
        }
    }
    match view.routes.next(Entry::Endpoint(endpoint), inner.dst) {
        Next::Deliver(to) => Ok(Way::Deliver(to)),
        Next::Endpoint(_) | Next::Group(_) => Ok(Way::Onward(endpoint)),
        Next::Drop(reason) => Err(reason),
    }
}

/// How far a datagram came that was refused for this.
fn how_far(reason: DropReason) -> u8 {
    match reason {
        DropReason::CriticalOption => 1,
        DropReason::DialectOptions => 2,
        DropReason::UnknownEndpoint => 3,
        DropReason::WrongGatewayAddress => 4,
        DropReason::BadCookie => 5,
        _ => 0,
    }
}
