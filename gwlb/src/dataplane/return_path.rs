//! The way back: a datagram from an appliance is verified and its inner packet routed on.
//!
//! No flow state is needed: the source must be a target, and the cookie must have been made for
//! this inner flow, this endpoint and this target. So any worker, another gateway with the same
//! secret, and a gateway that was restarted can take a return.
//!
//! `Return::judge` says what is right, with a name for all that is not. In front of it is a short
//! way for datagrams that differ from one before in cookie and packet alone, as nearly all do. It
//! accepts what the other would accept, or leaves the decision to it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use geneve::dialect::{DialectError, Tags};
use geneve::flow::{CanonicalKey, FlowKey};
use geneve::header::{Header, ProtocolType};
use geneve::inner::{Fragment, Inner, IpVersion, Plain, Transport};
use router::{EndpointId, Entry, NextHop};

use super::by_attachment::ByAttachment;
use super::ingress::no_way;
use super::select::TargetId;
use super::snapshot::{Pool, Snapshot, TargetSlot, TunnelFlow};
use super::stats::WorkerStats;
use super::verdict::{DropReason, ReturnVerdict, Returned, Way, WorkerId};
use crate::fault::{self, Fault};

#[cfg(test)]
mod tests;

/// How many Geneve headers are remembered.
const PEERS: usize = 32;

/// The half of the data plane that takes packets back; one per worker, without flow state.
#[derive(Debug)]
pub struct Return {
    worker: WorkerId,
    snapshot: Arc<Snapshot>,
    stats: Arc<WorkerStats>,
    /// Where packets can leave.
    attached: ByAttachment<()>,
    /// What was verified before, by [`Peer::place`].
    peers: Box<[Option<Peer>; PEERS]>,
}

/// A source address and a Geneve header from there that were verified, and all that the verdict
/// depends on besides the snapshot.
#[derive(Debug)]
struct Peer {
    source: IpAddr,
    local: IpAddr,
    header: Header64,
    endpoint: EndpointId,
    target: TargetSlot,
    /// The endpoint's id in the header.
    wire_id: u64,
    id: TargetId,
    /// What a probe looks like that comes back to the endpoint, if there are any.
    probe: Option<TunnelFlow>,
    version: IpVersion,
    /// The last flow that was verified, and whether it went from its higher end to the lower one: the
    /// segments of a run repeat both.
    last: (CanonicalKey, bool),
    /// Its cookie.
    cookie: u32,
    /// Its way.
    way: Way,
}

impl Peer {
    /// Which of the places a header has.
    ///
    /// Gateways have appliances behind them and endpoints in front, and both versions of IP: these
    /// bytes tell them apart, the latter two being an endpoint's last in the dialects that there are.
    #[inline]
    fn place(source: IpAddr, head: &[u8; Header64::LEN]) -> usize {
        let last = match source {
            IpAddr::V4(source) => source.octets()[3],
            IpAddr::V6(source) => source.octets()[15],
        };
        // Neighbours are common, so each counts by another odd number.
        let parts = [(last, 1), (head[2], 7), (head[19], 11), (head[35], 19)];
        parts.into_iter().map(|(part, times)| usize::from(part) * times).sum::<usize>() % PEERS
    }
}

/// A Geneve header in which only the cookie may differ.
#[derive(Debug)]
struct Header64 {
    bytes: [u8; Header64::LEN],
    /// All ones where a byte has to be the same: everywhere in the header but in the cookie.
    same: [u8; Header64::LEN],
    /// Bytes of the header. It says so itself, so one that is the same is as long.
    len: usize,
    /// Where the cookie begins.
    cookie: usize,
}

impl Header64 {
    /// Longer headers take the long way.
    const LEN: usize = 64;

    /// The header at the beginning of a datagram. `None` for one that is too long, or with hardly
    /// anything behind it.
    fn of(datagram: &[u8], len: usize, cookie: usize) -> Option<Self> {
        let mut same = [0; Self::LEN];
        same.get_mut(..len)?.fill(0xff);
        same.get_mut(cookie..cookie + 4)?.fill(0);
        Some(Self { bytes: *datagram.first_chunk()?, same, len, cookie })
    }

    /// Whether a datagram begins with it.
    #[inline]
    fn is_before(&self, head: &[u8; Self::LEN]) -> bool {
        let words = |bytes: &[u8; Self::LEN]| {
            let (words, _) = bytes.as_chunks();
            std::array::from_fn::<u64, 8, _>(|at| u64::from_ne_bytes(words[at]))
        };
        let (own, same, head) = (words(&self.bytes), words(&self.same), words(head));
        (0..8).fold(0, |differences, at| differences | (own[at] ^ head[at]) & same[at]) == 0
    }

    /// The cookie of a datagram that begins with it.
    #[inline]
    fn cookie(&self, head: &[u8; Self::LEN]) -> u32 {
        let bytes = head.get(self.cookie..).and_then(<[u8]>::first_chunk);
        u32::from_be_bytes(bytes.copied().unwrap_or_default())
    }
}

/// The flow and the length of a packet that is no ordinary one. `None` if it is none at all, and for
/// one that can be of several flows.
#[inline(never)]
fn only_flow(packet: &[u8]) -> Option<(FlowKey, usize)> {
    let inner = Inner::parse(packet).ok()?;
    has_one_flow(&inner).then(|| (inner.flow_key(), inner.total_len))
}

/// A flow in one of its directions.
fn directed(flow: &CanonicalKey, downward: bool) -> FlowKey {
    if downward { flow.directed().reversed() } else { flow.directed() }
}

/// Whether a packet's cookie can be for one flow only, which it cannot of a first fragment and of an
/// ICMP error.
fn has_one_flow(inner: &Inner) -> bool {
    let first = matches!(inner.fragment, Fragment::First { .. });
    let error = matches!(inner.transport, Transport::IcmpError { .. });
    !first && !error
}

/// The flows that a packet's cookie can be for: its own, with ports and without, since appliances
/// echo the latest header of a flow, and that may have been a fragment's or a whole packet's; and both
/// of the flow that an ICMP error is about, since an appliance that rejects a packet answers with the
/// header of that packet.
fn may_be_stamped_for(inner: &Inner) -> impl Iterator<Item = CanonicalKey> {
    let own = inner.flow_key();
    let ported = inner.ported_key().filter(|ported| *ported != own);
    let about = match inner.transport {
        Transport::IcmpError { about, .. } => Some(about),
        _ => None,
    };
    [Some(own), ported, about]
        .into_iter()
        .flatten()
        .flat_map(|flow| [flow.canonical(), flow.portless().canonical()])
}

/// Where an inner packet lies in a datagram of `len` bytes.
#[inline]
fn range(header_len: usize, total_len: usize, len: usize) -> Range<usize> {
    if fault::on(Fault::SurplusDelivered) {
        header_len..len
    } else {
        header_len..header_len + total_len
    }
}

impl Return {
    /// A worker's return path.
    pub fn new(worker: WorkerId, snapshot: Arc<Snapshot>, stats: Arc<WorkerStats>) -> Self {
        let attached = snapshot.attachments.keys().map(|at| (*at, ())).collect();
        Self { worker, snapshot, stats, attached, peers: Box::new([const { None }; PEERS]) }
    }

    /// Takes a new view of the configuration.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        *self = Self::new(self.worker, snapshot, Arc::clone(&self.stats));
    }

    /// Decides about one UDP payload that came `from` an appliance to our address `local`.
    ///
    /// Drops are counted here; what is to be delivered or sent on is counted by whoever does it.
    // In one piece, so that a verdict is written where it is wanted: it is moved about otherwise.
    #[inline(never)]
    pub fn handle_datagram(
        &mut self,
        from: SocketAddr,
        local: IpAddr,
        datagram: &[u8],
    ) -> ReturnVerdict {
        if let Some(returned) = self.usual(from.ip(), local, datagram) {
            return ReturnVerdict::Accept(returned);
        }
        match self.judge(from.ip(), local, datagram) {
            Ok(returned) => ReturnVerdict::Accept(returned),
            Err(reason) => {
                self.stats.udp.drops.add(reason, 1);
                ReturnVerdict::Drop(reason)
            }
        }
    }

    /// Accepts a datagram with outer addresses and a Geneve header that were verified before, if the
    /// packet is of the flow that they were verified for last, or the cookie is for its own flow.
    #[inline]
    fn usual(&mut self, source: IpAddr, local: IpAddr, datagram: &[u8]) -> Option<Returned> {
        let head = datagram.first_chunk()?;
        let peer = self.peers[Peer::place(source, head)].as_mut()?;
        if peer.source != source || peer.local != local || !peer.header.is_before(head) {
            return None;
        }
        let payload = datagram.get(peer.header.len..)?;
        let plain = Plain::read(payload);
        let (tuple, downward, total_len) = if let Some(plain) = &plain {
            (*plain.canonical(), plain.is_downward(), plain.total_len())
        } else {
            let (flow, total_len) = only_flow(payload)?;
            let (tuple, downward) = (flow.canonical(), flow.canonical().directed() != flow);
            (tuple, downward, total_len)
        };
        let cookie = peer.header.cookie(head);
        let repeated = (tuple, downward) == peer.last || fault::on(Fault::NeighboursUnchecked);
        if !(repeated && cookie == peer.cookie) {
            let cookies = &self.snapshot.keys.cookie;
            let flow = directed(&tuple, downward);
            let genuine = flow.version() == peer.version
                && cookies.verify(cookie, peer.wire_id, peer.id, &tuple);
            if !genuine {
                return None;
            }
            // The same endpoint and destination make the same way, but for a probe.
            let (last, was_downward) = &peer.last;
            let known = directed(last, *was_downward).dst() == flow.dst()
                && peer.way != Way::Probe
                && !peer.probe.is_some_and(|probe| probe.is(&flow));
            if !known {
                peer.way = way(&self.snapshot, &self.attached, peer.endpoint, &flow).ok()?;
            }
            (peer.last, peer.cookie) = ((tuple, downward), cookie);
        }
        let range = range(peer.header.len, total_len, datagram.len());
        let Peer { way, target, endpoint, .. } = *peer;
        Some(Returned { way, target, endpoint, range, plain })
    }

    /// Accepts what is genuine, and says of all else what is wrong with it.
    #[inline(never)]
    fn judge(
        &mut self,
        source: IpAddr,
        local: IpAddr,
        datagram: &[u8],
    ) -> Result<Returned, DropReason> {
        let anybody =
            fault::on(Fault::SourceUnchecked).then(|| fault::every_source(&self.snapshot));
        let slots = self.snapshot.sources.get(&source).or(anybody.as_ref());
        let slots = slots.ok_or(DropReason::UnknownSource)?;
        let (header, payload) =
            Header::parse(datagram).map_err(|error| DropReason::of_header(&error))?;
        if header.is_control() && !fault::on(Fault::ControlPacketForwarded) {
            return Err(DropReason::GeneveControl);
        }
        let inner = Inner::parse(payload).map_err(|_| DropReason::MalformedPacket)?;
        let expected = ProtocolType::from(inner.version);
        if header.protocol() != expected && !fault::on(Fault::ProtocolTypeUnchecked) {
            return Err(DropReason::ProtocolType);
        }
        let (tags, endpoint, target) = self.verify(slots, local, &header, &inner)?;
        let flow = inner.flow_key();
        let way = way(&self.snapshot, &self.attached, endpoint, &flow).inspect_err(|_| {
            if let Some(counters) = self.snapshot.endpoint(endpoint).counters.get(self.worker.0) {
                counters.dropped_returns.add(1);
            }
        })?;
        let range = range(header.len(), inner.total_len, datagram.len());
        let plain = Plain::read(payload);
        let returned = Returned { way, target, endpoint, range, plain };
        // Of a packet that can be of several flows, the next one may be of another.
        if has_one_flow(&inner) {
            let view = self.snapshot.target(target);
            let seen = view.dialect.cookie_at(&header);
            let seen = seen.and_then(|cookie| Header64::of(datagram, header.len(), cookie));
            if let (Some(header), Some(head)) = (seen, datagram.first_chunk()) {
                self.peers[Peer::place(source, head)] = Some(Peer {
                    source,
                    local,
                    header,
                    endpoint,
                    target,
                    wire_id: tags.endpoint,
                    id: view.id,
                    probe: pool_of(&self.snapshot, endpoint).probe,
                    version: inner.version,
                    last: (flow.canonical(), flow.canonical().directed() != flow),
                    cookie: tags.cookie,
                    way,
                });
            }
        }
        Ok(returned)
    }

    /// Which endpoint and which of the targets at the source address the datagram is genuine for.
    /// Of several that all refuse it, the one that came furthest names the reason.
    fn verify(
        &self,
        sources: &[TargetSlot],
        local: IpAddr,
        header: &Header<'_>,
        inner: &Inner,
    ) -> Result<(Tags, EndpointId, TargetSlot), DropReason> {
        let mut refusal = DropReason::UnknownSource;
        for &slot in sources {
            match self.verify_target(slot, local, header, inner) {
                Ok((tags, endpoint)) => return Ok((tags, endpoint, slot)),
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
        inner: &Inner,
    ) -> Result<(Tags, EndpointId), DropReason> {
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
        if pool_of(snapshot, endpoint).address != local
            && !fault::on(Fault::GatewayAddressUnchecked)
        {
            return Err(DropReason::WrongGatewayAddress);
        }
        let genuine = may_be_stamped_for(inner).any(|tuple| {
            snapshot.keys.cookie.verify(tags.cookie, tags.endpoint, target.id, &tuple)
        });
        (genuine || fault::on(Fault::CookieUnchecked))
            .then_some((tags, endpoint))
            .ok_or(DropReason::BadCookie)
    }
}

/// The node that serves an endpoint.
#[inline]
fn pool_of(snapshot: &Snapshot, endpoint: EndpointId) -> &Pool {
    snapshot.pool(snapshot.endpoint(endpoint).pool)
}

/// Where a packet of this flow goes that came back to this endpoint.
#[inline]
fn way(
    snapshot: &Snapshot,
    attached: &ByAttachment<()>,
    endpoint: EndpointId,
    flow: &FlowKey,
) -> Result<Way, DropReason> {
    if pool_of(snapshot, endpoint).probe.is_some_and(|probe| probe.is(flow)) {
        return Ok(Way::Probe);
    }
    match snapshot.topology.lookup(Entry::Endpoint(endpoint), flow.dst()) {
        NextHop::Deliver(to) if attached.get(to).is_some() => Ok(Way::Deliver(to)),
        NextHop::Deliver(_) => Err(DropReason::NotAttached),
        NextHop::EndpointGroup(group) if snapshot.group(group).members.contains(&endpoint) => {
            Err(DropReason::RoutingLoop)
        }
        NextHop::Endpoint(_) | NextHop::EndpointGroup(_) => Ok(Way::Onward(endpoint)),
        other => Err(no_way(other)),
    }
}
