//! What must hold over the whole trial, judged from the counters once everything is at rest:
//! nothing lost without a name, nothing delivered without inspection, no flow torn apart.

use super::configuration::DENIED_RULE;
use super::diagnosis;
use super::plan::{ApplianceKind, Plan};
use super::stage::Counters;
use super::statistics::{ApplianceReport, Ledger};
use super::trial::Check;

/// Judges. `denied` is how many flows the firewall was to keep, each of one direction.
pub(super) fn judge(plan: &Plan, counters: &Counters, denied: u64) -> Vec<Check> {
    let mut checks = vec![
        balance("conservation/networks", "the networks", &counters.gateway.tun),
        balance("conservation/appliances", "the appliances", &counters.gateway.udp),
    ];
    for (appliance, counted) in plan.appliances.iter().zip(&counters.appliances) {
        let target = counters.gateway.targets.iter().find(|target| {
            diagnosis::appliance(plan, target).is_some_and(|found| found == appliance)
        });
        let Some(target) = target else { continue };
        let (sent, taken_back) = (target.sent_packets, target.returned_packets);
        checks.push(both_count(appliance.name, counted, sent, taken_back, counters));
        let one_way = if appliance.kind == ApplianceKind::Firewall { denied } else { 0 };
        checks.push(symmetry(appliance.name, counted, target.new_flows, one_way));
        if one_way > 0 {
            checks.push(denial(appliance.name, counted, denied));
        }
    }
    checks.push(inspected(counters));
    checks
}

/// Everything that came in from one side has an end that is counted.
fn balance(name: &str, side: &str, ledger: &Ledger) -> Check {
    let (came, went) = ledger.balance();
    let ok = came == went;
    let detail = if ok {
        format!("{came} packets from {side}, each delivered, sent on, answered, or dropped by name")
    } else {
        format!("{came} packets from {side}, but the ends of {went} are counted")
    };
    check(name, ok, detail)
}

/// The gateway and an appliance agree on what went between them.
fn both_count(
    name: &str,
    appliance: &ApplianceReport,
    sent: u64,
    taken_back: u64,
    counters: &Counters,
) -> Check {
    let (received, returned) = (appliance.packets, appliance.returned_packets);
    // What a kernel's full queue lost is counted in queue entries, which may hold many packets.
    let lost_by_appliance = appliance.runtime.oddities.kernel_receive_drops > 0;
    let refused: u64 = counters.gateway.udp.drops.values().sum();
    let lost_by_gateway = counters.gateway.io.kernel_drops > 0 || refused > 0;
    let to = received == sent || (lost_by_appliance && received < sent);
    let back = returned == taken_back || (lost_by_gateway && returned > taken_back);
    let mut detail = format!(
        "the gateway sent {sent} packets and {name} received {received}; it returned {returned} \
         and the gateway took {taken_back} back"
    );
    if received != sent || returned != taken_back {
        detail.push_str(if to && back {
            "; the difference was lost in full queues, which is counted"
        } else {
            ": packets were lost between them without being counted"
        });
    }
    check(format!("agreement/{name}"), to && back, detail)
}

/// Every flow that an appliance saw, it saw in both directions, and the gateway placed it there.
fn symmetry(name: &str, appliance: &ApplianceReport, placed: u64, one_way: u64) -> Check {
    let (opened, both) = (appliance.flows, appliance.flows_both_directions);
    let half = opened.saturating_sub(both);
    let ok = opened == placed && half == one_way;
    let kept =
        if one_way > 0 { format!(" but the {one_way} that it denied") } else { String::new() };
    let detail = if ok {
        format!("{name} saw both directions of its {opened} flows{kept}")
    } else if opened != placed {
        format!("the gateway placed {placed} flows on {name}, which saw {opened}")
    } else if half > one_way {
        format!(
            "{name} saw only one direction of {half} of its {opened} flows, where {one_way} were \
             expected: the other direction went past it"
        )
    } else {
        format!(
            "{name} saw both directions of {both} of its {opened} flows, though it was to deny \
             {one_way}"
        )
    };
    check(format!("symmetry/{name}"), ok, detail)
}

/// It was the rule made for it that denied.
fn denial(name: &str, firewall: &ApplianceReport, denied: u64) -> Check {
    let rule = firewall.sample.rules.iter().find(|rule| rule.rule == DENIED_RULE);
    let hits = rule.map_or(0, |rule| rule.hits);
    let ok = hits == denied;
    let detail = format!("rule {DENIED_RULE:?} of {name} decided {hits} of {denied} denied flows");
    check(format!("denied-by-rule/{name}"), ok, detail)
}

/// Whatever was delivered had come back from an appliance.
fn inspected(counters: &Counters) -> Check {
    let past = counters.gateway.tun.delivered;
    let delivered = counters.gateway.udp.delivered;
    let returned: u64 = counters.appliances.iter().map(|a| a.returned_packets).sum();
    let (ok, detail) = if past > 0 {
        let detail = format!(
            "{past} packets were delivered without inspection: a route table leads past the \
             endpoints"
        );
        (false, detail)
    } else if delivered > returned {
        let detail = format!("{delivered} packets were delivered, and only {returned} inspected");
        (false, detail)
    } else {
        (true, format!("all {delivered} packets delivered had come back from an appliance"))
    };
    check("inspected", ok, detail)
}

fn check(name: impl Into<String>, ok: bool, detail: String) -> Check {
    if ok { Check::held(name, detail) } else { Check::failed(name, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::statistics::{GatewayStatus, Target};
    use nva_sample::firewall::rules::RuleHits;

    /// Ten packets to and from each appliance, five flows each; the firewall denied two.
    fn good() -> (Plan, Counters) {
        let plan = Plan::new("p".to_owned(), None);
        let mut counters = Counters::default();
        for appliance in &plan.appliances {
            let firewall = appliance.kind == ApplianceKind::Firewall;
            let returned = if firewall { 8 } else { 10 };
            let mut report = ApplianceReport {
                packets: 10,
                returned_packets: returned,
                flows: 5,
                flows_both_directions: if firewall { 3 } else { 5 },
                ..ApplianceReport::default()
            };
            report.sample.rules.push(RuleHits { rule: DENIED_RULE.to_owned(), hits: 2 });
            counters.appliances.push(report);
            counters.gateway.targets.push(Target {
                address: format!("{}:6081", appliance.address),
                sent_packets: 10,
                returned_packets: returned,
                new_flows: 5,
                ..Target::default()
            });
        }
        let GatewayStatus { tun, udp, .. } = &mut counters.gateway;
        (tun.received, tun.encapsulated) = (30, 30);
        (udp.received, udp.delivered) = (28, 28);
        (plan, counters)
    }

    /// The names of what fails after `change`.
    fn failing(change: impl FnOnce(&mut Counters)) -> Vec<String> {
        let (plan, mut counters) = good();
        change(&mut counters);
        let checks = judge(&plan, &counters, 2);
        checks.into_iter().filter(|check| !check.ok).map(|check| check.name).collect()
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(failing(|_| {}), [""; 0]);
    }

    #[test]
    fn every_judgement_can_fail() {
        assert_eq!(failing(|c| c.gateway.tun.received += 1), ["conservation/networks"]);
        assert_eq!(failing(|c| c.gateway.udp.delivered -= 1), ["conservation/appliances"]);
        assert_eq!(failing(|c| c.appliances[1].packets -= 1), ["agreement/nva-2"]);
        assert_eq!(failing(|c| c.appliances[2].returned_packets += 1), ["agreement/nva-3"]);
        assert_eq!(failing(|c| c.appliances[1].flows_both_directions -= 1), ["symmetry/nva-2"]);
        assert_eq!(failing(|c| c.appliances[0].flows_both_directions += 1), ["symmetry/nva-1"]);
        assert_eq!(failing(|c| c.gateway.targets[2].new_flows += 1), ["symmetry/nva-3"]);
        let hits = |c: &mut Counters| c.appliances[0].sample.rules[0].hits = 1;
        assert_eq!(failing(hits), ["denied-by-rule/nva-1"]);
        let past = |c: &mut Counters| {
            c.gateway.tun.received += 1;
            c.gateway.tun.delivered += 1;
        };
        assert_eq!(failing(past), ["inspected"]);
    }

    #[test]
    fn packets_lost_in_a_full_queue_are_no_mystery() {
        let lost = |c: &mut Counters| {
            c.appliances[1].packets -= 3;
            c.appliances[1].runtime.oddities.kernel_receive_drops = 1;
        };
        assert_eq!(failing(lost), [""; 0]);
        let more = |c: &mut Counters| {
            c.appliances[1].packets += 3;
            c.appliances[1].runtime.oddities.kernel_receive_drops = 1;
        };
        assert_eq!(failing(more), ["agreement/nva-2"]);
    }
}
