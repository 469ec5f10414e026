//! The counters in Prometheus' text form: one collector that sums the workers at scrape time.
//!
//! Names and help texts are those of the counters themselves ([`crate::dataplane::stats`]).

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::status::Status;
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

fn counter_vec(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn plain(name: &str, help: &str, value: u64) -> prometheus::Result<Vec<MetricFamily>> {
    let counter = prometheus::IntCounter::new(name, help)?;
    counter.inc_by(value);
    Ok(counter.collect())
}
