//! `[[target]]`: each by itself, and all of a group against its load balancer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use router::source::{Located, Problem};

use super::address::{family, one_host};
use super::form::TargetForm;
use super::load_balancer::LoadBalancerDraft;
use super::names::Names;
use super::reader::{Reader, Table, listing};
use super::settings::Target;
use super::values::{Port, Weight};

/// Targets per zone of a group: fixed in AWS, the most in Alibaba (semantics 1a, 2a).
const MAX_PER_ZONE: usize = 300;

/// A target as far as it was understood.
#[derive(Debug)]
pub(super) struct TargetDraft {
    pub(super) span: Range<usize>,
    /// Index of its group.
    pub(super) group: Option<usize>,
    pub(super) zone: Option<Located<String>>,
    pub(super) address: Option<Located<IpAddr>>,
    port: Option<Port>,
    weight: Weight,
}

/// Checks one table by itself.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<TargetForm>,
    groups: &Names,
) -> TargetDraft {
    let table = Table { name: "[[target]]", span: form.span() };
    let form = form.into_inner();
    let group = reader.required("group", form.group, &table, "\"fw\"");
    let address = reader.required("address", form.address, &table, "\"192.0.2.11\"");
    let help = "the IP address where the appliance takes Geneve; its port, if it is not the \
                group's, is a key of its own: port = 6081";
    let address = reader.checked("address", address, one_host, help);
    let zone = reader.required("zone", form.zone, &table, "\"az1\"");
    let port = reader.number("port", form.port, Port::new, Some("the default is the group's port"));
    let help = "the weight of an ordinary target is 100; 0 gives it no new flows";
    let weight = reader.number("weight", form.weight, Weight::new, Some(help));
    TargetDraft {
        span: table.span,
        group: group.and_then(|group| groups.resolve(reader, &group)),
        zone,
        address,
        port: port.map(Located::into_inner),
        weight: weight.map(Located::into_inner).unwrap_or_default(),
    }
}

/// Reports what is there twice, and what is too much. `ports` are those of the groups.
pub(super) fn check_together(
    reader: &mut Reader<'_>,
    drafts: &[TargetDraft],
    groups: &Names,
    ports: &[Port],
) {
    let mut seen = HashMap::new();
    let mut in_zone: HashMap<(usize, &str), usize> = HashMap::new();
    for draft in drafts {
        let Some(group) = draft.group else { continue };
        if let Some(address) = &draft.address {
            // The group's port may be written out, and the target is the same.
            let port = draft.port.unwrap_or(ports[group]);
            let first = seen.entry((group, *address.get(), port)).or_insert(address);
            if !std::ptr::eq(*first, address) {
                reader.report(
                    address
                        .problem(format!(
                            "the target {} is in group {:?} twice",
                            address.get(),
                            groups.of(group)
                        ))
                        .label("the second one")
                        .and(first.span(), "the first one")
                        .help("leave one out; for a larger share, raise its `weight`"),
                );
            }
        }
        if let Some(zone) = &draft.zone {
            let count = in_zone.entry((group, zone.get())).or_default();
            *count += 1;
            if *count == MAX_PER_ZONE + 1 {
                let group = groups.of(group);
                reader.report(
                    Problem::at(
                        draft.span.clone(),
                        format!("group {group:?} has too many targets in zone {:?}", zone.get()),
                    )
                    .label(format!("number {count}, where {MAX_PER_ZONE} are allowed"))
                    .help("spread them over more zones, or over more load balancers"),
                );
            }
        }
    }
}

/// Checks a target against the load balancer that its group is behind.
pub(super) fn check_against(
    reader: &mut Reader<'_>,
    target: &TargetDraft,
    balancer: &LoadBalancerDraft,
) {
    let name = balancer.name.as_ref().map_or("?", |name| name.as_str());
    if let Some(zone) = &target.zone
        && balancer.nodes_complete
        && !balancer.zones().any(|known| known == zone.get())
    {
        reader.report(
            zone.problem(format!("load balancer {name:?} has no node in zone {:?}", zone.get()))
                .label("nothing would reach a target in this zone")
                .help(format!("its nodes are in {}; add one there", listing(balancer.zones()))),
        );
    }
    if let (Some(target), Some(node)) = (&target.address, balancer.any_address())
        && target.is_ipv4() != node.is_ipv4()
    {
        reader.report(
            target
                .problem(format!(
                    "an {} target behind an {} node",
                    family(**target),
                    family(**node)
                ))
                .label(format!("{} here", family(**target)))
                .and(node.span(), format!("{} there", family(**node)))
                .help("targets and nodes are of one family; the packets inside can be of both"),
        );
    }
}

impl TargetDraft {
    /// Whether it can get new flows.
    pub(super) fn takes_flows(&self) -> bool {
        self.weight.get() > 0
    }

    /// The settings, if everything was understood.
    pub(super) fn finish(self) -> Option<Target> {
        Some(Target {
            address: *self.address?.get(),
            port: self.port,
            zone: self.zone?.into_inner(),
            weight: self.weight,
        })
    }
}
