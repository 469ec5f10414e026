//! Faults as they are met, gathered by their cause.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::classes::{ClassId, Classes};
use super::space::{Ranges, merged};
use super::walks::Choices;
use super::{FindingKind, Flows, Severity};
use crate::{
    EdgeId, EndpointId, Entry, InterfaceId, NextHop, SubnetId, TableId, Topology,
    TransitAttachmentId, VpcId,
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
    Circle {
        hops: Vec<Entry>,
    },
    LostAfter {
        at: Entry,
        reason: NextHop,
    },
    LostReturn {
        at: Entry,
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
    pub flows: BTreeMap<(Entry, Option<Entry>), BTreeMap<ClassId, BTreeSet<ClassId>>>,
    pub example: Option<Flow>,
    /// The route that is to blame, if there is one.
    pub blamed: Option<(TableId, IpNet)>,
}

/// All faults met so far, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Collector {
    drafts: Vec<Draft>,
    known: HashMap<Cause, usize>,
}

impl Collector {
    /// Notes that a flow shows a fault.
    pub fn add(&mut self, cause: Cause, severity: Severity, flow: Flow) {
        let draft = self.draft(cause, severity);
        draft
            .flows
            .entry((flow.from, flow.to))
            .or_default()
            .entry(flow.destination)
            .or_default()
            .insert(flow.source);
        draft.example.get_or_insert(flow);
    }

    /// The fault with this cause, as grave as it has been at worst.
    pub fn draft(&mut self, cause: Cause, severity: Severity) -> &mut Draft {
        let index = *self.known.entry(cause.clone()).or_insert_with(|| {
            let (flows, example, blamed) = (BTreeMap::new(), None, None);
            self.drafts.push(Draft { cause, severity, flows, example, blamed });
            self.drafts.len() - 1
        });
        let draft = &mut self.drafts[index];
        draft.severity = draft.severity.min(severity);
        draft
    }

    /// Everything, the gravest first. A blackhole that another fault is blamed on is no fault of its
    /// own.
    pub fn finish(mut self) -> Vec<Draft> {
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

impl Draft {
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
