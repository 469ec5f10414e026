//! What would become of a packet, step by step, without sending any.
//!
//! Nothing here decides about packets. A [`Question`] says what of a running gateway its answer
//! depends on; [`Excerpt`]s of the workers and of the fragment table are made into private copies of
//! [`Ingress`](super::Ingress) and [`Return`](super::Return), which count where nobody looks; and these
//! have the packet from where it enters, through appliances that return it unchanged, to its end. So
//! what is told is what the code of the data plane does. Around its verdicts stands why: the routes,
//! the flow, the scores of the candidates, the bytes.

mod listing;
mod made;
mod text;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use geneve::dialect::Dialect;
use geneve::flow::FlowKey;
use geneve::header::Header;
use geneve::inner::{Fragment, Inner, IpVersion, Transport};
use netio::offload::Offload;
use router::{Attachment, EndpointId, Entry, NextHop};
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use super::flow_table::FlowId;
use super::fragments::{FragmentId, FragmentTable};
use super::ingress::Excerpt;
use super::keys::Keys;
use super::snapshot::Snapshot;
use super::verdict::{DropReason, WorkerId};

pub use listing::{Line, describe};
pub use made::{Made, NotMade, as_the_kernel_gives, flags};

/// A packet that nobody sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// An IP packet that enters here; at an endpoint, as returned from there and accepted.
    Entering {
        /// Where.
        at: Entry,
        /// Its bytes.
        packet: Vec<u8>,
        /// What is left to be done to it: a [super-packet](as_the_kernel_gives) is one packet here.
        offload: Offload,
    },
    /// A UDP payload from an appliance.
    Returning {
        /// Its source.
        from: SocketAddr,
        /// The gateway's address that it comes to.
        to: IpAddr,
        /// Geneve, one should think.
        datagram: Vec<u8>,
    },
}

/// A packet, and what of a gateway its way may depend on.
#[derive(Debug, Clone)]
pub struct Question {
    given: Given,
    /// The generation of the view that it was asked with.
    generation: u64,
    /// The flows that it may be of, at every endpoint that it may come to.
    flows: Vec<FlowId>,
    fragments: Vec<FragmentId>,
    owners: BTreeSet<WorkerId>,
    /// Who is taken to read it.
    reader: WorkerId,
}

impl Question {
    /// What becomes of this packet, in this view; `fragments` is the table of all workers.
    pub fn new(view: &Snapshot, fragments: &FragmentTable, given: Given, now: Instant) -> Self {
        let mut question = Self {
            given,
            generation: view.generation,
            flows: Vec::new(),
            fragments: Vec::new(),
            owners: BTreeSet::new(),
            reader: WorkerId(0),
        };
        if let Some((at, packet)) = question.inside(view)
            && let Ok(inner) = Inner::parse(&packet)
        {
            question.look_ahead(view, fragments, (at, &packet, &inner), now);
        }
        let owner = |flow: &FlowId| view.share(&flow.tuple).0;
        if let Some(flow) = question.flows.first() {
            question.reader = owner(flow);
        }
        question.owners = question.flows.iter().map(owner).collect();
        question.owners.insert(question.reader);
        question
    }

    /// The workers whose excerpts are needed.
    pub fn owners(&self) -> impl Iterator<Item = WorkerId> {
        self.owners.iter().copied()
    }

    /// The flows that [`Ingress::excerpt`](super::Ingress::excerpt) is to be asked about.
    pub fn flows(&self) -> &[FlowId] {
        &self.flows
    }

    /// What of the fragment table is needed.
    pub fn fragments(&self, table: &FragmentTable) -> FragmentTable {
        table.excerpt(&self.fragments)
    }

    /// The inner packet, as tables and flows see it, and whose table comes first.
    fn inside(&self, view: &Snapshot) -> Option<(Entry, Vec<u8>)> {
        match &self.given {
            Given::Entering { at, packet, offload } => {
                let mut packet = packet.clone();
                let translation = at.attachment().and_then(|at| view.translation(at));
                if let Some(translation) = translation {
                    translation.inward(&mut packet, offload);
                }
                Some((*at, packet))
            }
            Given::Returning { datagram, .. } => {
                let (header, payload) = Header::parse(datagram).ok()?;
                let mut tags = Dialect::ALL.iter().filter_map(|it| it.read(&header).ok());
                let endpoint = tags.find_map(|tags| view.wire_ids.get(&tags.endpoint).copied())?;
                Some((Entry::Endpoint(endpoint), payload.to_vec()))
            }
        }
    }

    fn look_ahead(
        &mut self,
        view: &Snapshot,
        fragments: &FragmentTable,
        (at, packet, inner): (Entry, &[u8], &Inner),
        now: Instant,
    ) {
        let endpoints = ahead(view, at, inner.dst);
        let fragment = |endpoint: EndpointId, id| FragmentId {
            endpoint: view.endpoint(endpoint).wire_id,
            src: inner.src,
            dst: inner.dst,
            protocol: inner.flow_key().protocol(),
            id,
        };
        let id = match inner.fragment {
            Fragment::First { id } | Fragment::Later { id, .. } => Some(id),
            // It may be cut on its way.
            Fragment::Whole if inner.version == IpVersion::V4 => packet
                .get(4..)
                .and_then(<[u8]>::first_chunk)
                .map(|id| u16::from_be_bytes(*id).into()),
            Fragment::Whole => None,
        };
        self.fragments = id
            .into_iter()
            .flat_map(|id| endpoints.iter().map(move |endpoint| fragment(*endpoint, id)))
            .collect();
        let known = self.fragments.iter().filter_map(|id| fragments.later(id, now));
        let tuples: Vec<_> = own_tuples(inner).chain(known).collect();
        for &endpoint in &endpoints {
            let at = view.endpoint(endpoint);
            for tuple in &tuples {
                let tuple = tuple.sticky(view.pool(at.pool).stickiness);
                let id = FlowId { endpoint: at.wire_id, tuple };
                self.flows.push(id);
            }
        }
    }
}

/// The tuples that a packet tells by itself; the first is the one that decides, unless it is a later
/// fragment.
fn own_tuples(inner: &Inner) -> impl Iterator<Item = FlowKey> + use<> {
    let about = match inner.transport {
        Transport::IcmpError { about, .. } => Some(about),
        _ => None,
    };
    [about, inner.ported_key(), Some(inner.flow_key())].into_iter().flatten()
}

/// The endpoints that a packet for this address may come to, the nearest first.
fn ahead(view: &Snapshot, from: Entry, destination: IpAddr) -> Vec<EndpointId> {
    let mut found = Vec::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        let endpoints = match view.topology.lookup(at, destination) {
            NextHop::Endpoint(endpoint) => vec![endpoint],
            NextHop::EndpointGroup(group) => view.group(group).members.clone(),
            _ => Vec::new(),
        };
        for endpoint in endpoints {
            if !found.contains(&endpoint) {
                found.push(endpoint);
                next.push(Entry::Endpoint(endpoint));
            }
        }
    }
    found
}

/// What is not the data plane's to know.
pub trait Surroundings {
    /// The device at a place.
    fn device(&self, at: Attachment) -> Option<String>;
    /// Whether the payload of a UDP packet is that of a probe or ping of the gateway's own.
    fn is_own_probe(&self, keys: &Keys, payload: &[u8]) -> bool;
    /// The UDP port that a worker's n-th socket sends from.
    fn source_port(&self, worker: WorkerId, port: u16) -> Option<u16>;
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unexplained {
    /// Ask again.
    #[error("the configuration has changed meanwhile")]
    Changed,
    /// There is no memory for copies.
    #[error("there is no memory for it")]
    Memory,
}

/// Tells what would become of the packet now.
///
/// # Errors
/// [`Unexplained::Changed`]: excerpts are of other views than the question.
pub fn explain(
    question: &Question,
    excerpts: Vec<Excerpt>,
    fragments: FragmentTable,
    around: &dyn Surroundings,
    now: Instant,
) -> Result<Explanation, Unexplained> {
    walk::Walk::new(question, excerpts, fragments, around, now)?.finish(&question.given)
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// Whether all of it arrives: at a device, or as a probe.
    pub delivered: bool,
    /// How it ends, in a few words.
    pub end: String,
    /// Its way.
    pub steps: Vec<Step>,
}

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// It enters.
    Enters {
        /// The place.
        at: String,
        /// The device there; null where there is none.
        device: Option<String>,
        /// The packet in words.
        packet: String,
        /// Its length in bytes.
        length: usize,
        /// How many packets it stands for; more than one for a super-packet.
        packets: u64,
        /// The bytes of payload in each of them, but the last; null for what is no super-packet.
        segment_size: Option<u16>,
    },
    /// An internet gateway translates one of its addresses.
    Translated {
        /// The gateway.
        at: String,
        /// Which: `destination` on the way in, `source` on the way out, or `quoted` in what an ICMP
        /// error quotes.
        address: String,
        /// What it was.
        #[schema(value_type = String)]
        from: IpAddr,
        /// What it is now.
        #[schema(value_type = String)]
        to: IpAddr,
    },
    /// A route table is asked.
    Routed {
        /// Whose table.
        at: String,
        /// The table's name.
        table: String,
        /// The address that is looked up.
        #[schema(value_type = String)]
        destination: IpAddr,
        /// The route that decides; null if none has the address.
        route: Option<String>,
        /// Where it leads, or the name of the drop.
        next: String,
        /// Why, in a sentence.
        reason: String,
    },
    /// It comes to an endpoint.
    Endpoint {
        /// Its name.
        endpoint: String,
        /// The group that it was chosen from.
        group: Option<String>,
        /// Its zone.
        zone: String,
        /// The service.
        service: String,
        /// The load balancer behind it.
        load_balancer: String,
        /// The address of its node in the zone.
        #[schema(value_type = String)]
        node: IpAddr,
        /// What makes packets the same flow.
        stickiness: String,
        /// Whether packets are inspected now: `load_balance` or `bypass`.
        traffic_mode: String,
    },
    /// It goes to the worker that owns its flow.
    HandedOver {
        /// The worker.
        to: u16,
    },
    /// Its flow.
    Flow {
        /// What it is known by.
        tuple: String,
        /// The worker that owns it.
        worker: u16,
        /// The flow before this packet; null if it is not in the table, or idled out.
        known: Option<KnownFlow>,
        /// How long ago the flow that is known began; null if none is, if it began with this packet,
        /// or if flows have no records (`flow_records`).
        age_seconds: Option<f64>,
        /// The flow after it; null if it is not remembered.
        becomes: Option<KnownFlow>,
        /// Why a flow that begins is not remembered: `table_full`, or `new_flow_limit`
        /// (`max_new_flows_per_second_per_worker`). Its packets are placed one by one.
        unremembered: Option<String>,
        /// How the candidates for a new flow with this tuple do: the smallest score is chosen.
        candidates: Vec<CandidateScore>,
    },
    /// It is put behind a Geneve header.
    Encapsulated {
        /// The appliance.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// The gateway's address that it goes from.
        #[schema(value_type = String)]
        source: IpAddr,
        /// The UDP port that it goes from; null if that is not known.
        source_port: Option<u16>,
        /// The largest outer packet on the way to the target, in bytes.
        path_mtu: u16,
        /// The largest inner packet that gets there and back, in bytes.
        fits: u16,
        /// What is done to it before: `fragmented` or `mss_clamped`.
        change: Option<String>,
        /// What is sent.
        datagrams: Vec<Sent>,
    },
    /// An appliance sends this; or sends back what it got.
    Returned {
        /// The appliance.
        #[schema(value_type = String)]
        from: SocketAddr,
        /// The gateway's address that it comes to.
        #[schema(value_type = String)]
        to: IpAddr,
        /// Whether this is taken for granted, since it was not given.
        supposed: bool,
        /// What the header says.
        header: Vec<Line>,
    },
    /// What came back is genuine: source, options and cookie are.
    Accepted {
        /// The target that returned it.
        #[schema(value_type = String)]
        target: SocketAddr,
        /// The endpoint that it is for.
        endpoint: Option<String>,
        /// The packet in words.
        packet: String,
    },
    /// It has waited for its first fragment, which has come.
    Released {
        /// The packet in words.
        packet: String,
    },
    /// It leaves.
    Leaves {
        /// The place.
        at: String,
        /// The device there.
        device: Option<String>,
        /// Whether no appliance has seen it, as the configuration has it.
        uninspected: bool,
        /// The packet in words.
        packet: String,
        /// Its bytes, in hexadecimal digits.
        bytes: String,
    },
    /// It looks like a probe or a ping of the gateway's own, and ends here.
    Probe {
        /// Whether it has the mark of one. If not, it was somebody else's packet: it goes no further,
        /// either.
        own: bool,
    },
    /// The gateway answers it.
    Replied {
        /// Why: `packet_too_big`, `unknown_tcp_flow`, `idle_timeout` or `target_gone`.
        cause: String,
        /// Where the answer leaves.
        at: String,
        /// The device there.
        device: Option<String>,
        /// The answer in words.
        packet: String,
        /// Its bytes, in hexadecimal digits.
        bytes: String,
    },
    /// It waits for its first fragment, for a second at most.
    Held,
    /// It is dropped.
    Dropped {
        /// The reason's name, as metrics have it.
        reason: String,
        /// What that means.
        help: String,
        /// What to do.
        advice: String,
        /// How many packets it counts as: those that a super-packet stands for.
        packets: u64,
    },
    /// There are more pieces of it than are followed.
    More {
        /// How many.
        pieces: usize,
    },
}

impl Step {
    fn dropped(reason: DropReason, packets: u64) -> Self {
        let [reason, help, advice] =
            [reason.name(), reason.help(), reason.advice()].map(str::to_owned);
        Self::Dropped { reason, help, advice, packets }
    }
}

/// A flow in a worker's table.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct KnownFlow {
    /// Who inspects it, or whom it is kept for while it is `bypassed`; null: nobody.
    #[schema(value_type = Option<String>)]
    pub target: Option<SocketAddr>,
    /// Whether its packets bypass the appliances: it has no target, or the traffic mode of its load
    /// balancer is `bypass`.
    pub bypassed: bool,
    /// How far its TCP connection is, or `untracked` for what is none.
    pub state: String,
    /// For how many more seconds it is remembered without a packet.
    pub idle_seconds_left: f64,
    /// What becomes of the flows of this target: `stay`, `rebalance` or `reset`.
    pub fate: String,
}

/// How a candidate does.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CandidateScore {
    /// Who it is.
    #[schema(value_type = String)]
    pub target: SocketAddr,
    /// Its weight now.
    pub weight: u16,
    /// −log2(u) / weight; null for a weight of 0, which is never chosen.
    pub score: Option<f64>,
    /// Whether a new flow would get it.
    pub chosen: bool,
}

/// A datagram on its way to an appliance.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Sent {
    /// Its UDP payload: the Geneve header and the packet, in hexadecimal digits.
    pub bytes: String,
    /// Bytes with outer IP and UDP headers.
    pub length: usize,
    /// What the headers say.
    pub headers: Vec<Line>,
    /// The packet behind them in words.
    pub packet: String,
}
