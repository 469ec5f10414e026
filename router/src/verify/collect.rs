//! Faults as they are met, gathered by their cause.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::classes::{ClassId, Classes};
use super::walks::Choices;
use super::{FindingKind, Flows, Severity};
use crate::space::{Ranges, merged};
use crate::{
    EdgeId, EndpointId, Entry, InterfaceId, NextHop, SubnetId, TableId, Topology,
    TransitAttachmentId, TransitTableId, VpcId,
};

/// What makes two faults the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    Ingress {
        gateway: Entry,
        ipv6_only: bool,
    },
    Egress {
        table: TableId,
        exit: Entry,
        ipv6_only: bool,
    },
    Intent {
        index: usize,
    },
    SharedSubnet {
        subnet: SubnetId,
    },
    /// The answers, or if `answers` is false the packets, leave a place by this table uninspected.
    OneWay {
        table: TableId,
        answers: bool,
    },
    Different {
        forward: Vec<EndpointId>,
        back: Vec<EndpointId>,
    },
    ApplianceMode {
        attachment: TransitAttachmentId,
    },
    /// Packets circle here or, if `answers` is true, answers do.
    Circle {
        hops: Vec<Entry>,
        answers: bool,
    },
    LostAfter {
        at: Spot,
        reason: NextHop,
    },
    /// Lost at a NAT gateway or a transit gateway, or behind it, without an endpoint before.
    LostBehindGateway {
        at: Spot,
        reason: NextHop,
    },
    LostReturn {
        at: Spot,
        fate: Fate,
    },
    EgressOnly {
        edge: EdgeId,
    },
    Blackhole {
        table: TableId,
        route: IpNet,
    },
    Crossing {
        table: TableId,
        endpoint: EndpointId,
    },
    ImplicitMain {
        vpc: VpcId,
    },
    Unused {
        endpoint: EndpointId,
    },
    NotFollowed {
        to: Entry,
    },
}

/// Whose table loses a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Spot {
    /// The table for what enters here.
    Entry(Entry),
    /// A transit gateway's table.
    Transit(TransitTableId),
}

/// What becomes of an answer that does not come home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Lost(NextHop),
    Circles,
    /// Delivered to another place.
    Astray(Entry),
    /// Handed to a machine or to something opaque.
    Unknown(Entry),
    /// Given another source on the way, so that it is no answer any more.
    Translated(InterfaceId),
}

/// One flow that shows a fault.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub from: Entry,
    pub to: Option<Entry>,
    pub source: ClassId,
    pub destination: ClassId,
    pub choices: Choices,
    /// Whether the way back is part of the picture.
    pub with_answer: bool,
}

/// A fault in the making.
#[derive(Debug)]
pub(super) struct Draft {
    pub cause: Cause,
    pub severity: Severity,
    pub flows: FlowSets,
    pub example: Option<Flow>,
    /// Where packets come from whose answers are lost in the same way.
    pub answers: BTreeSet<Entry>,
    /// The route that is to blame, if there is one.
    pub blamed: Option<(TableId, IpNet)>,
}

/// All faults met so far, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Collector {
    drafts: Vec<Draft>,
    known: HashMap<Cause, usize>,
    /// By class, whether its example is an address that a reader knows.
    familiar: Vec<bool>,
}

impl Collector {
    pub fn new(classes: &Classes) -> Collector {
        let familiar = (0..classes.len()).map(|id| classes.get(id).is_familiar());
        Collector { familiar: familiar.collect(), ..Collector::default() }
    }

    /// Notes that a flow shows a fault.
    pub fn add(&mut self, cause: Cause, severity: Severity, flow: Flow) {
        let known = |flow: &Flow| {
            let known = |id: ClassId| self.familiar.get(id).copied().unwrap_or_default();
            usize::from(known(flow.source)) + usize::from(known(flow.destination))
        };
        let score = known(&flow);
        let shown = self.known.get(&cause).and_then(|index| self.drafts[*index].example.as_ref());
        let is_better = shown.is_none_or(|shown| known(shown) < score);
        let draft = self.draft(cause, severity);
        draft
            .flows
            .entry((flow.from, flow.to))
            .or_default()
            .entry(flow.destination)
            .or_default()
            .insert(flow.source);
        if is_better {
            draft.example = Some(flow);
        }
    }

    /// The fault with this cause, as grave as it has been at worst.
    pub fn draft(&mut self, cause: Cause, severity: Severity) -> &mut Draft {
        let index = *self.known.entry(cause.clone()).or_insert_with(|| {
            let (flows, example, answers, blamed) = Default::default();
            self.drafts.push(Draft { cause, severity, flows, example, answers, blamed });
            self.drafts.len() - 1
        });
        let draft = &mut self.drafts[index];
        draft.severity = draft.severity.min(severity);
        draft
    }

    /// Everything, the gravest first. A blackhole that another fault is blamed on is no fault of its
    /// own, nor are answers that are lost as packets are.
    pub fn finish(mut self) -> Vec<Draft> {
        for index in 0..self.drafts.len() {
            let same = match &self.drafts[index].cause {
                Cause::LostReturn { at, fate: Fate::Lost(reason) } => {
                    Cause::LostAfter { at: *at, reason: *reason }
                }
                Cause::Circle { hops, answers: true } => {
                    Cause::Circle { hops: hops.clone(), answers: false }
                }
                _ => continue,
            };
            if let Some(same) = self.known.get(&same) {
                let flows = std::mem::take(&mut self.drafts[index].flows);
                if !self.drafts[*same].takes_answers(&flows) {
                    self.drafts[index].flows = flows;
                }
            }
        }
        let is_about = |draft: &Draft| !draft.flows.is_empty() || draft.example.is_none();
        self.drafts.retain(is_about);
        let blamed: BTreeSet<_> = self.drafts.iter().filter_map(|draft| draft.blamed).collect();
        self.drafts.retain(|draft| match &draft.cause {
            Cause::Blackhole { table, route } => !blamed.contains(&(*table, *route)),
            _ => true,
        });
        self.drafts.sort_by_key(|draft| (draft.severity, draft.cause.kind()));
        self.drafts
    }
}

impl Cause {
    pub fn kind(&self) -> FindingKind {
        match self {
            Cause::Ingress { ipv6_only: true, .. } | Cause::Egress { ipv6_only: true, .. } => {
                FindingKind::Ipv6Uninspected
            }
            Cause::Ingress { .. } => FindingKind::UninspectedIngress,
            Cause::Egress { .. } => FindingKind::UninspectedEgress,
            Cause::Intent { .. } => FindingKind::IntentViolated,
            Cause::SharedSubnet { .. } => FindingKind::SharedSubnet,
            Cause::OneWay { .. } => FindingKind::OneWayInspection,
            Cause::Different { .. } => FindingKind::DifferentEndpoints,
            Cause::ApplianceMode { .. } => FindingKind::ApplianceMode,
            Cause::Circle { .. } => FindingKind::Loop,
            Cause::LostAfter { .. } => FindingKind::LostAfterInspection,
            Cause::LostBehindGateway { .. } => FindingKind::LostBehindGateway,
            Cause::LostReturn { .. } => FindingKind::LostReturn,
            Cause::EgressOnly { .. } => FindingKind::EgressOnlyBehindEndpoint,
            Cause::Blackhole { .. } => FindingKind::BlackholeInUse,
            Cause::Crossing { .. } => FindingKind::ZoneCrossing,
            Cause::ImplicitMain { .. } => FindingKind::ImplicitMainTable,
            Cause::Unused { .. } => FindingKind::UnusedEndpoint,
            Cause::NotFollowed { .. } => FindingKind::NotFollowed,
        }
    }
}

/// By both places, for each destination the sources.
type FlowSets = BTreeMap<(Entry, Option<Entry>), BTreeMap<ClassId, BTreeSet<ClassId>>>;

impl Draft {
    /// Takes it upon itself that answers to these packets are lost, if all are for addresses that
    /// packets are lost for here.
    fn takes_answers(&mut self, others: &FlowSets) -> bool {
        let lost: BTreeSet<ClassId> =
            self.flows.values().flat_map(BTreeMap::keys).copied().collect();
        let all = others.values().flat_map(BTreeMap::values).all(|it| it.is_subset(&lost));
        if all {
            self.answers.extend(others.keys().map(|(from, _)| *from));
        }
        all
    }

    /// The flows as sets: destinations that have the same sources together.
    pub fn flows(&self, topology: &Topology, classes: &Classes) -> Vec<Flows> {
        let mut all = Vec::new();
        for ((from, to), destinations) in &self.flows {
            let mut alike: BTreeMap<&BTreeSet<ClassId>, Vec<ClassId>> = BTreeMap::new();
            for (destination, sources) in destinations {
                alike.entry(sources).or_default().push(*destination);
            }
            for (sources, destinations) in alike {
                all.push(Flows {
                    from: topology.entry_name(*from),
                    to: to.map(|to| topology.entry_name(to)),
                    sources: prefixes(classes, sources.iter().copied()),
                    destinations: prefixes(classes, destinations.into_iter()),
                });
            }
        }
        all
    }

    /// All addresses that the packets are for.
    pub fn addresses(flows: &[Flows]) -> Vec<IpNet> {
        merged(flows.iter().flat_map(|flows| flows.destinations.iter().copied()))
    }
}

fn prefixes(classes: &Classes, ids: impl Iterator<Item = ClassId>) -> Vec<IpNet> {
    merged(ids.flat_map(|id| {
        let class = classes.get(id);
        Ranges::prefixes(&class.ranges, class.family)
    }))
}
