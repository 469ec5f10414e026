//! The counters in Prometheus' text form: one collector that sums the workers at scrape time.
//!
//! Names and help texts are those of the counters themselves ([`crate::dataplane::stats`]).

use std::collections::{BTreeMap, BTreeSet};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::status::Status;
use crate::control::{NodePackets, TargetState, TargetStatus};
use crate::dataplane::stats::LedgerTotals;
use crate::dataplane::verdict::DropReason;

/// Prometheus' text format, version 0.0.4.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics, as a scrape gets them.
pub(super) fn render(status: Status) -> prometheus::Result<String> {
    let registry = Registry::new();
    registry.register(Box::new(Gateway(status)))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

/// The one collector.
struct Gateway(Status);

impl Collector for Gateway {
    fn desc(&self) -> Vec<&Desc> {
        // Unchecked: what is collected depends on the counters, which are defined elsewhere.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families(&self.0).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot collect metrics");
            Vec::new()
        })
    }
}

fn families(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    for (side, ledger) in [("tun", &status.totals.tun), ("udp", &status.totals.udp)] {
        families.push(side_drops(side, ledger)?);
    }
    let drops = merge(families);
    let mut families = vec![drops];
    for index in 0..status.totals.tun.flow.fields().count() {
        let mut counter = None;
        for (side, ledger) in [("tun", &status.totals.tun), ("udp", &status.totals.udp)] {
            let Some((name, help, value)) = ledger.flow.fields().nth(index) else { continue };
            let vec = match &counter {
                Some(vec) => vec,
                None => counter.insert(counter_vec(
                    &format!("gwlb_packets_{name}_total"),
                    help,
                    &["side"],
                )?),
            };
            vec.with_label_values(&[side]).inc_by(value);
        }
        families.extend(counter.iter().flat_map(Collector::collect));
    }
    for (name, help, value) in status.totals.flows.fields() {
        families.extend(plain(&format!("gwlb_flows_{name}_total"), help, value)?);
    }
    for (name, help, value) in status.totals.resets.fields() {
        families.extend(plain(&format!("gwlb_tcp_resets_{name}_total"), help, value)?);
    }
    for (name, help, value) in status.fragments.fields() {
        families.extend(plain(&format!("gwlb_fragments_{name}_total"), help, value)?);
    }
    for (name, help, value) in status.totals.io.fields() {
        families.extend(plain(&format!("gwlb_io_{name}_total"), help, value)?);
    }
    let active = IntGauge::new("gwlb_flows_active", "Flows in the tables now.")?;
    active.set(i64::try_from(status.active_flows).unwrap_or(i64::MAX));
    families.extend(active.collect());
    families.extend(targets(status)?);
    families.extend(target_gauges(status)?);
    families.extend(hosts(status)?);
    families.extend(bypassed(status)?);
    Ok(families)
}

fn side_drops(side: &str, ledger: &LedgerTotals) -> prometheus::Result<MetricFamily> {
    let help = "Packets dropped, by the side where they entered and the reason.";
    let vec = counter_vec("gwlb_packets_dropped_total", help, &["side", "reason"])?;
    for reason in DropReason::ALL {
        // Zeros too: a series that appears with its first drop hides the first drop.
        let value = ledger.drops.get(reason.name()).copied().unwrap_or(0);
        vec.with_label_values(&[side, reason.name()]).inc_by(value);
    }
    vec.collect().pop().ok_or_else(|| prometheus::Error::Msg("no family".to_owned()))
}

fn merge(families: Vec<MetricFamily>) -> MetricFamily {
    let mut families = families.into_iter();
    let mut first = families.next().unwrap_or_default();
    for mut family in families {
        first.mut_metric().append(family.mut_metric());
    }
    first
}

fn targets(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let labels = ["target_group", "target", "zone"];
    let mut vecs: Vec<IntCounterVec> = Vec::new();
    for target in &status.targets {
        for (index, (name, help, value)) in target.totals.fields().enumerate() {
            if vecs.len() == index {
                vecs.push(counter_vec(&format!("gwlb_target_{name}_total"), help, &labels)?);
            }
            let values = [&*target.target_group, &*target.address, &*target.zone];
            vecs[index].with_label_values(&values).inc_by(value);
        }
    }
    Ok(vecs.iter().flat_map(Collector::collect).collect())
}

/// What each target has at the moment: name, help text and value.
type TargetGauge = (&'static str, &'static str, fn(&TargetStatus) -> i64);

const TARGET_GAUGES: [TargetGauge; 4] = [
    ("active_flows", "Flows that the target has now.", |target| {
        i64::try_from(target.active_flows).unwrap_or(i64::MAX)
    }),
    ("weight", "The target's share of new flows, as configured.", |target| target.weight.into()),
    (
        "effective_weight",
        "The target's share of new flows as it counts now: smaller in slow start, 0 when it gets \
         none.",
        |target| target.effective_weight.into(),
    ),
    ("inner_mtu_bytes", "The largest inner packet that gets to the target and back.", |target| {
        target.inner_mtu.into()
    }),
];

fn target_gauges(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    for (name, help, value) in TARGET_GAUGES {
        let labels = ["target_group", "target", "zone"];
        let vec = gauge_vec(&format!("gwlb_target_{name}"), help, &labels)?;
        for target in &status.targets {
            let values = [&*target.target_group, &*target.address, &*target.zone];
            vec.with_label_values(&values).set(value(target));
        }
        families.extend(vec.collect());
    }
    Ok(families)
}

const STATES: [TargetState; 6] = [
    TargetState::Initial,
    TargetState::Healthy,
    TargetState::Unhealthy,
    TargetState::Unused,
    TargetState::Draining,
    TargetState::Unavailable,
];

/// How many targets are in which state; AWS's `HealthyHostCount` and `UnHealthyHostCount` are two
/// of these.
fn hosts(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "Targets of the group in the zone that are in this state.";
    let vec = gauge_vec("gwlb_target_group_targets", help, &["target_group", "zone", "state"])?;
    // Zones without a target, too: a series that vanishes with the last one raises no alarm.
    let nodes = status.load_balancers.iter().flat_map(|balancer| {
        balancer.nodes.iter().map(|node| (&*balancer.target_group, &*node.zone))
    });
    let targets = status.targets.iter().map(|target| (&*target.target_group, &*target.zone));
    let places: BTreeSet<_> = nodes.chain(targets).collect();
    let mut counts: BTreeMap<_, i64> = BTreeMap::new();
    for target in &status.targets {
        let place = (&*target.target_group, &*target.zone);
        *counts.entry((place, target.state.name())).or_default() += 1;
    }
    for (group, zone) in places {
        for state in STATES.map(TargetState::name) {
            let count = counts.get(&((group, zone), state)).copied().unwrap_or_default();
            vec.with_label_values(&[group, zone, state]).set(count);
        }
    }
    Ok(vec.collect())
}

fn bypassed(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "Whether the packets of new flows pass uninspected at this node: 1 if they do.";
    let vec = gauge_vec("gwlb_node_bypassed", help, &["load_balancer", "zone"])?;
    for balancer in &status.load_balancers {
        for node in &balancer.nodes {
            let bypassed = node.packets == NodePackets::Bypassed;
            vec.with_label_values(&[&*balancer.name, &*node.zone]).set(bypassed.into());
        }
    }
    Ok(vec.collect())
}

fn gauge_vec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn counter_vec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn plain(name: &str, help: &str, value: u64) -> prometheus::Result<Vec<MetricFamily>> {
    let counter = prometheus::IntCounter::new(name, help)?;
    counter.inc_by(value);
    Ok(counter.collect())
}
