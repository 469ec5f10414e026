//! Names causes: from the route tables before a packet flows, and from counters after a silence.

use std::path::Path;

use router::{Attachment, Entry, NextHop, Topology};

use super::plan::{ApplianceSpec, Family, Plan};
use super::stage::Counters;
use super::statistics::{ApplianceReport, GatewayStatus, Target};
use super::trial::Check;
use crate::config;

/// Whether the tables send what enters from both ends of every path to be inspected, and what
/// comes back from inspection to its destination.
pub(super) fn routes(plan: &Plan, configuration: &Path) -> Vec<Check> {
    match config::load(configuration) {
        Ok(settings) => Family::BOTH
            .into_iter()
            .flat_map(|family| {
                let topology = &settings.topology;
                plan.zones.iter().enumerate().map(move |(number, zone)| {
                    let server = zone.server.name;
                    let name = format!("routes/{server}/{}", family.to_string().to_lowercase());
                    match astray(plan, topology, number, family) {
                        None => {
                            Check::held(name, format!("both ways lead through {}", zone.endpoint))
                        }
                        Some(detail) => Check::failed(name, detail),
                    }
                })
            })
            .collect(),
        Err(problems) => {
            vec![Check::failed("routes", problems.to_string())]
        }
    }
}

/// The first place on the paths between the client and a server where the tables lead astray.
fn astray(plan: &Plan, topology: &Topology, zone: usize, family: Family) -> Option<String> {
    let zone = &plan.zones[zone];
    let (server, client) = (zone.server.address(family), plan.client.address(family));
    let gateway = topology.gateway_by_name("igw")?;
    let subnet = topology.subnet_by_name(zone.server.name)?;
    let endpoint = topology.endpoint_by_name(zone.endpoint)?;
    let steps = [
        (Entry::InternetGateway(gateway), server, NextHop::Endpoint(endpoint)),
        (Entry::Endpoint(endpoint), server, NextHop::Deliver(Attachment::Subnet(subnet))),
        (Entry::Subnet(subnet), client, NextHop::Endpoint(endpoint)),
        (Entry::Endpoint(endpoint), client, NextHop::Deliver(Attachment::InternetGateway(gateway))),
    ];
    steps.into_iter().find_map(|(from, to, expected)| {
        let found = topology.explain(from, to);
        (found.next_hop != expected).then(|| {
            let expected = topology.next_hop_name(expected);
            format!(
                "from {} to {to}, route table {} leads to {} in place of {expected}: {}",
                found.at, found.table, found.next, found.reason
            )
        })
    })
}

/// Why nothing came back, as far as the gateway's counters tell.
pub(super) fn silence(plan: &Plan, before: &Counters, after: &Counters) -> Option<String> {
    let counted = after.gateway.since(&before.gateway);
    let mut causes = Vec::new();
    for target in &counted.targets {
        let name = appliance(plan, target).map_or_else(
            || target.address.clone(),
            |appliance| format!("{} ({} in {})", appliance.name, appliance.kind, appliance.zone),
        );
        if target.sent_packets > 0 && target.returned_packets == 0 {
            let sent = target.sent_packets;
            causes.push(format!(
                "{name} was sent {sent} packets and returned none: the appliance does not answer"
            ));
        } else if target.sent_packets > target.returned_packets {
            let kept = target.sent_packets - target.returned_packets;
            causes.push(format!("{name} kept {kept} of {} packets", target.sent_packets));
        }
    }
    for (reason, count) in counted.drops() {
        causes.push(format!("the gateway dropped {count}: {reason}"));
    }
    if causes.is_empty() && counted.tun.received == 0 {
        causes.push("no packet reached the gateway".to_owned());
    }
    (!causes.is_empty()).then(|| causes.join("; "))
}

/// Who changed what it should have let through as it was, by its own account.
pub(super) fn rewriting(plan: &Plan, before: &Counters, after: &Counters) -> Option<String> {
    let counted = before.appliances.iter().zip(&after.appliances);
    let rewritten = counted.map(|(before, after)| {
        let count = |report: &ApplianceReport| report.runtime.rewritten.packets;
        count(after).saturating_sub(count(before))
    });
    let causes: Vec<_> = plan
        .appliances
        .iter()
        .zip(rewritten)
        .filter(|(_, rewritten)| *rewritten > 0)
        .map(|(appliance, rewritten)| {
            let ApplianceSpec { name, kind, zone, .. } = appliance;
            format!("{name} ({kind} in {zone}) rewrote {rewritten} packets, which it should not")
        })
        .collect();
    (!causes.is_empty()).then(|| causes.join("; "))
}

/// The name of the appliance that carried the most bytes.
pub(super) fn carrier(plan: &Plan, counted: &GatewayStatus) -> &'static str {
    let most = counted.targets.iter().max_by_key(|target| target.sent_bytes);
    let carried = most.filter(|target| target.sent_bytes > 0);
    carried.and_then(|target| appliance(plan, target)).map_or("no appliance", |found| found.name)
}

/// The appliance that a target of the gateway is.
pub(super) fn appliance<'a>(plan: &'a Plan, target: &Target) -> Option<&'a ApplianceSpec> {
    let is = |appliance: &&ApplianceSpec| {
        target
            .address
            .rsplit_once(':')
            .is_some_and(|(address, _)| address.parse() == Ok(appliance.address))
    };
    plan.appliances.iter().find(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::configuration;
    use crate::lab::plan::Sabotage;

    fn plan(sabotage: Option<Sabotage>) -> Plan {
        Plan::new("gwlb-demo-1".to_owned(), sabotage)
    }

    fn routes_of(plan: &Plan) -> Vec<Check> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gwlb.toml");
        std::fs::write(
            &file,
            configuration::gateway(plan, &configuration::balancing(plan), directory.path()),
        )
        .unwrap();
        routes(plan, &file)
    }

    #[test]
    fn the_plan_leads_everything_through_the_endpoints() {
        let checks = routes_of(&plan(None));
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
    }

    #[test]
    fn a_wrong_route_is_named_with_its_table() {
        let checks = routes_of(&plan(Some(Sabotage::WrongRoute)));
        let wrong: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
        assert_eq!(wrong.len(), 2);
        assert_eq!(wrong[0].name, "routes/app-a/ipv4");
        assert_eq!(
            wrong[0].detail,
            "from subnet:app-a to 203.0.113.10, route table app-a leads to internet_gateway:igw \
             in place of endpoint:vpce-a: 0.0.0.0/0 is the only route that has 203.0.113.10; it \
             leads to the internet"
        );
    }

    #[test]
    fn an_appliance_that_does_not_answer_is_named() {
        let target = |address: &str, sent, returned| Target {
            address: address.to_owned(),
            sent_packets: sent,
            sent_bytes: sent * 60,
            returned_packets: returned,
            ..Target::default()
        };
        let nothing = Counters::default();
        let mut counters = Counters::default();
        let targets = [target("192.0.2.11:6081", 4, 0), target("192.0.2.12:6081", 3, 3)];
        counters.gateway.tun.received = 7;
        counters.gateway.targets = targets.to_vec();
        let mut before = counters.clone();
        before.gateway.tun.received = 0;
        before.gateway.targets = targets.map(|t| target(&t.address, 0, 0)).to_vec();
        let plan = plan(None);
        assert_eq!(
            silence(&plan, &before, &counters).unwrap(),
            "nva-1 (firewall in az1) was sent 4 packets and returned none: the appliance does \
             not answer"
        );
        assert_eq!(carrier(&plan, &counters.gateway), "nva-1");
        assert_eq!(silence(&plan, &nothing, &nothing).unwrap(), "no packet reached the gateway");
    }

    #[test]
    fn an_appliance_that_rewrites_is_named_for_what_it_did_meanwhile() {
        let plan = plan(None);
        let mut before = Counters {
            appliances: vec![ApplianceReport::default(); plan.appliances.len()],
            ..Counters::default()
        };
        before.appliances[0].runtime.rewritten.packets = 3;
        let mut after = before.clone();
        after.appliances[1].runtime.rewritten.packets = 2;
        assert_eq!(
            rewriting(&plan, &before, &after).unwrap(),
            "nva-2 (ids in az2) rewrote 2 packets, which it should not"
        );
        assert_eq!(rewriting(&plan, &after, &after), None);
    }
}
