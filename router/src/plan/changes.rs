//! Which addresses go another way afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::paths::{self, Classes, Way, by_entry, inspections};
use crate::topology::Topology;

/// Addresses that go one way before and another one afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PathChange {
    /// Where the packets come from.
    pub from: String,
    /// What they are for.
    #[schemars(with = "Vec<String>")]
    pub to: Vec<IpNet>,
    /// The ways before: several where an attachment in appliance mode or a group of endpoints
    /// chooses.
    pub before: Vec<Path>,
    /// The ways afterwards.
    pub after: Vec<Path>,
}

/// A way through a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Path {
    /// The places between where it begins and where it ends.
    pub by: Vec<String>,
    /// Where it ends: a place, or `blackhole`, `no_route`, `no_subnet` or `loop`.
    pub end: String,
    /// Whether that is a place.
    pub delivered: bool,
    /// The services that inspect on the way, in order.
    pub inspected_by: Vec<String>,
}

type Ways = Rc<[Path]>;

/// The changes between two networks, for every place that is in both: all addresses, by sets of
/// prefixes.
pub(super) fn changes(old: &Topology, new: &Topology) -> Vec<PathChange> {
    let classes = Classes::new(&[old, new]);
    let (before, after) = (ways(old, &classes), ways(new, &classes));
    let mut changes = Vec::new();
    for (from, before) in &before {
        let Some(after) = after.get(from) else { continue };
        // In the order of the first address that changes.
        let mut groups: Vec<(&Ways, &Ways, Vec<usize>)> = Vec::new();
        let mut known: BTreeMap<(&Ways, &Ways), usize> = BTreeMap::new();
        for (class, (before, after)) in before.iter().zip(after.iter()).enumerate() {
            if before == after {
                continue;
            }
            let index = *known.entry((before, after)).or_insert_with(|| {
                groups.push((before, after, Vec::new()));
                groups.len() - 1
            });
            groups[index].2.push(class);
        }
        changes.extend(groups.into_iter().map(|(before, after, members)| PathChange {
            from: from.clone(),
            to: classes.prefixes(&members),
            before: before.to_vec(),
            after: after.to_vec(),
        }));
    }
    changes
}

/// The ways of every class from every place.
fn ways(network: &Topology, classes: &Classes) -> BTreeMap<String, Rc<[Ways]>> {
    let rows = by_entry(network, |entry| {
        let ways = classes.addresses().iter().map(|address| {
            let ways = paths::ways(network, entry, *address);
            let all: BTreeSet<Path> = ways.iter().map(|way| path(network, way)).collect();
            all.into_iter().collect::<Ways>()
        });
        ways.collect::<Rc<[Ways]>>()
    });
    rows.into_iter().map(|(entry, row)| (network.entry_name(entry), row)).collect()
}

fn path(network: &Topology, way: &Way) -> Path {
    let by = way.places.iter().skip(1).map(|place| network.entry_name(*place));
    Path {
        by: by.collect(),
        end: match way.end {
            Ok(attachment) => network.entry_name(attachment.into()),
            Err(lost) => network.next_hop_name(lost),
        },
        delivered: way.end.is_ok(),
        inspected_by: inspections(network, &way.places).map(str::to_owned).collect(),
    }
}
