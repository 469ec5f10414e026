//! The rows of the panels: what is in them, in which orders they may stand, what a filter finds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Count, grown};
use crate::cli::shown::Draining;
use crate::cli::top::answers::{Endpoint, Event, Status, Target};

/// Something that is listed.
pub(in crate::cli::top) trait Row {
    /// What the rows may be sorted by; the first is how they are at first.
    const ORDERS: &'static [&'static str];

    /// What makes it this row and no other.
    fn key(&self) -> String;

    /// How two rows stand to each other in the order of this number: names from A to Z, of numbers
    /// the largest first.
    fn compare(&self, other: &Self, order: usize) -> Ordering;

    /// Whether it has this text in it, which is in small letters.
    fn has(&self, text: &str) -> bool;
}

/// A target.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli::top) struct TargetRow {
    pub group: String,
    /// With its port.
    pub address: String,
    pub zone: String,
    pub state: String,
    pub reason: Option<String>,
    /// Why it is in this state, or what is wrong with it, in a sentence.
    pub remark: Option<String>,
    pub weight: u16,
    pub effective_weight: u16,
    pub flows: u64,
    pub draining: Option<Draining>,
    /// Its part of all bytes that are sent to targets, 0 to 1.
    pub share: Option<f64>,
    /// Packets and bytes per second, sent to it and returned by it.
    pub packets_to: Option<f64>,
    pub packets_back: Option<f64>,
    pub bytes_to: Option<f64>,
    pub bytes_back: Option<f64>,
    /// How long the last health check took, in µs.
    pub probe: Option<f64>,
    /// How long a packet takes through the appliance, in µs.
    pub appliance: Option<f64>,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli::top) struct EndpointRow {
    pub endpoint: String,
    pub zone: String,
    /// The group that it is in.
    pub group: Option<String>,
    /// `active` or `standby` in its group, or `abnormal`.
    pub standing: &'static str,
    /// Absent where the gateway does not count by endpoint.
    pub flows: Option<u64>,
    pub packets: Option<f64>,
    pub bytes: Option<f64>,
    pub dropped: Option<f64>,
}

/// Packets that were dropped for one reason.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::top) struct DropRow {
    pub reason: String,
    pub count: Count,
}

impl TargetRow {
    /// Whether new flows may go to it.
    pub fn takes_flows(&self) -> bool {
        self.effective_weight > 0 && ["healthy", "unavailable"].contains(&self.state.as_str())
    }

    /// Whether it is deregistered, on its way out or out, so that it can be registered again.
    pub fn may_return(&self) -> bool {
        self.state == "draining" || self.reason.as_deref() == Some("Target.NotRegistered")
    }

    pub(super) fn forget_rates(&mut self) {
        self.share = None;
        for rate in
            [&mut self.packets_to, &mut self.packets_back, &mut self.bytes_to, &mut self.bytes_back]
        {
            *rate = None;
        }
    }

    /// The worst first.
    fn trouble(&self) -> usize {
        const STATES: [&str; 6] =
            ["unhealthy", "draining", "initial", "unavailable", "unused", "healthy"];
        STATES.iter().position(|state| *state == self.state).unwrap_or(0)
    }
}

impl Row for TargetRow {
    const ORDERS: &'static [&'static str] =
        &["target", "state", "flows", "share", "weight", "probe", "appliance"];

    fn key(&self) -> String {
        format!("{} {}", self.group, self.address)
    }

    fn compare(&self, other: &Self, order: usize) -> Ordering {
        let number = |address: &str| address.parse::<SocketAddr>().ok();
        let by_name = || {
            let groups = self.group.cmp(&other.group);
            let numbers = number(&self.address).cmp(&number(&other.address));
            groups.then(numbers).then_with(|| self.address.cmp(&other.address))
        };
        let by = match order {
            1 => self.trouble().cmp(&other.trouble()),
            2 => other.flows.cmp(&self.flows),
            3 => descending(self.bytes_to, other.bytes_to),
            4 => other.effective_weight.cmp(&self.effective_weight),
            5 => descending(self.probe, other.probe),
            6 => descending(self.appliance, other.appliance),
            _ => Ordering::Equal,
        };
        by.then_with(by_name)
    }

    fn has(&self, text: &str) -> bool {
        contain([&self.address, &self.group, &self.zone, &self.state], text)
    }
}

impl EndpointRow {
    pub(super) fn forget_rates(&mut self) {
        (self.packets, self.bytes, self.dropped) = (None, None, None);
    }
}

impl Row for EndpointRow {
    const ORDERS: &'static [&'static str] = &["endpoint", "flows", "bytes/s", "dropped/s"];

    fn key(&self) -> String {
        self.endpoint.clone()
    }

    fn compare(&self, other: &Self, order: usize) -> Ordering {
        let by = match order {
            1 => other.flows.cmp(&self.flows),
            2 => descending(self.bytes, other.bytes),
            3 => descending(self.dropped, other.dropped),
            _ => Ordering::Equal,
        };
        by.then_with(|| self.endpoint.cmp(&other.endpoint))
    }

    fn has(&self, text: &str) -> bool {
        let group = self.group.clone().unwrap_or_default();
        contain([&self.endpoint, &self.zone, &group, &self.standing.to_owned()], text)
    }
}

impl Row for DropRow {
    const ORDERS: &'static [&'static str] = &["rate", "total", "reason"];

    fn key(&self) -> String {
        self.reason.clone()
    }

    fn compare(&self, other: &Self, order: usize) -> Ordering {
        let by_total = || other.count.total.cmp(&self.count.total);
        let by = match order {
            0 => descending(self.count.rate, other.count.rate).then_with(by_total),
            1 => by_total(),
            _ => Ordering::Equal,
        };
        by.then_with(|| self.reason.cmp(&other.reason))
    }

    fn has(&self, text: &str) -> bool {
        contain([&self.reason], text)
    }
}

impl Row for Event {
    const ORDERS: &'static [&'static str] = &["newest"];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn compare(&self, other: &Self, _order: usize) -> Ordering {
        other.id.cmp(&self.id)
    }

    fn has(&self, text: &str) -> bool {
        contain([&self.time, &self.severity, &self.text], text)
    }
}

/// The targets of a status; `seconds` after the one before it.
pub(super) fn targets(
    before: Option<&Status>,
    status: &Status,
    seconds: Option<f64>,
) -> Vec<TargetRow> {
    let known = before.into_iter().flat_map(|before| &before.targets);
    let known: BTreeMap<_, _> =
        known.map(|target| ((&*target.target_group, &*target.address), target)).collect();
    let none = Target::default();
    let row = |target: &Target| {
        let then = known.get(&(&*target.target_group, &*target.address)).copied().unwrap_or(&none);
        // A counter of it that is smaller than before is that of another target in its place.
        let rate = |of: fn(&Target) -> u64| {
            seconds.map(|seconds| grown(of(target), of(then)) as f64 / seconds)
        };
        let diagnosis = target.diagnosis.as_ref().map(|it| format!("{}: {}", it.code, it.text));
        let tunnel = target.tunnel.as_ref().and_then(|tunnel| tunnel.round_trip_ms);
        TargetRow {
            group: target.target_group.clone(),
            address: target.address.clone(),
            zone: target.zone.clone(),
            state: target.state.clone(),
            reason: target.reason.clone(),
            remark: diagnosis.or_else(|| target.description.clone()),
            weight: target.weight,
            effective_weight: target.effective_weight,
            flows: target.active_flows,
            draining: target.draining,
            share: None,
            packets_to: rate(|target| target.sent_packets),
            packets_back: rate(|target| target.returned_packets),
            bytes_to: rate(|target| target.sent_bytes),
            bytes_back: rate(|target| target.returned_bytes),
            probe: target.probe_latency_ms.map(|ms| ms * 1e3),
            appliance: target.appliance_latency_us.or(tunnel.map(|ms| ms * 1e3)),
        }
    };
    let mut rows: Vec<_> = status.targets.iter().map(row).collect();
    let all: f64 = rows.iter().filter_map(|row| row.bytes_to).sum();
    for row in &mut rows {
        row.share = row.bytes_to.filter(|_| all > 0.0).map(|bytes| bytes / all);
    }
    rows
}

/// The endpoints that the gateway counts for, and those that it only has in groups.
pub(super) fn endpoints(
    before: Option<&Status>,
    status: &Status,
    seconds: Option<f64>,
) -> Vec<EndpointRow> {
    let mut rows: Vec<EndpointRow> = Vec::new();
    for endpoint in &status.endpoints {
        let known = before.iter().flat_map(|before| &before.endpoints);
        let none = Endpoint::default();
        let then = known.clone().find(|it| it.name == endpoint.name).unwrap_or(&none);
        let rate = |of: fn(&Endpoint) -> u64| {
            seconds.map(|seconds| grown(of(endpoint), of(then)) as f64 / seconds)
        };
        rows.push(EndpointRow {
            endpoint: endpoint.name.clone(),
            zone: endpoint.zone.clone(),
            flows: Some(endpoint.active_flows),
            packets: rate(|it| it.received_packets),
            bytes: rate(|it| it.inspected_bytes),
            dropped: rate(|it| it.dropped_packets),
            ..EndpointRow::default()
        });
    }
    for group in &status.endpoint_groups {
        for member in &group.members {
            let standing = match (&member.health, member.gets_new_flows) {
                (Some(health), _) if health == "Abnormal" => "abnormal",
                (_, true) => "active",
                (_, false) => "standby",
            };
            let place = rows.iter().position(|row| row.endpoint == member.endpoint);
            let place = place.unwrap_or_else(|| {
                let (endpoint, zone) = (member.endpoint.clone(), member.zone.clone());
                rows.push(EndpointRow { endpoint, zone, ..EndpointRow::default() });
                rows.len() - 1
            });
            rows[place].group = Some(group.name.clone());
            rows[place].standing = standing;
        }
    }
    rows
}

/// What was dropped, on either side, and what the kernel lost.
pub(super) fn drops(
    before: Option<&Status>,
    status: &Status,
    seconds: Option<f64>,
) -> Vec<DropRow> {
    let then = before.map(dropped).unwrap_or_default();
    let count = |(reason, total): (String, u64)| {
        let then = then.get(&reason).copied().unwrap_or_default();
        let rate = seconds.map(|seconds| grown(total, then) as f64 / seconds);
        DropRow { reason, count: Count { rate, total } }
    };
    dropped(status).into_iter().filter(|(_, total)| *total > 0).map(count).collect()
}

fn dropped(status: &Status) -> BTreeMap<String, u64> {
    let mut dropped = BTreeMap::new();
    for (reason, count) in [&status.tun, &status.udp].into_iter().flat_map(|side| &side.drops) {
        *dropped.entry(reason.clone()).or_default() += count;
    }
    dropped.insert("kernel: receive queues full".to_owned(), status.io.kernel_drops);
    for attachment in &status.attachments {
        let lost = attachment.tx_dropped.unwrap_or(0) + attachment.rx_dropped.unwrap_or(0);
        dropped.insert(format!("kernel: device of {}", attachment.at), lost);
    }
    dropped
}

/// The largest first, and what is not known last.
fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    let number = |value: Option<f64>| value.unwrap_or(-1.0);
    number(other).total_cmp(&number(one))
}

fn contain<const N: usize>(texts: [&String; N], text: &str) -> bool {
    texts.iter().any(|it| it.to_lowercase().contains(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Model;
    use super::super::tests::{answer, status};
    use super::*;

    fn sorted(rows: &[TargetRow], order: usize) -> Vec<&str> {
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by(|one, other| one.compare(other, order));
        rows.into_iter().map(|row| row.address.as_str()).collect()
    }

    #[test]
    fn targets_stand_in_every_order() {
        let row = |address: &str, state: &str, flows, weight, rate: Option<f64>| TargetRow {
            group: "fw".to_owned(),
            address: address.to_owned(),
            state: state.to_owned(),
            flows,
            effective_weight: weight,
            bytes_to: rate,
            probe: rate,
            appliance: rate.map(|rate| -rate),
            ..TargetRow::default()
        };
        let (nine, ten) = ("192.0.2.9:6081", "192.0.2.10:6081");
        let other = "[fd00::1]:6081";
        let rows = [
            row(ten, "healthy", 5, 100, Some(2.0)),
            row(nine, "unhealthy", 7, 0, None),
            row(other, "draining", 5, 200, Some(9.0)),
        ];
        assert_eq!(sorted(&rows, 0), [nine, ten, other], "addresses as numbers");
        assert_eq!(sorted(&rows, 1), [nine, other, ten], "the worst first");
        assert_eq!(sorted(&rows, 2), [nine, ten, other]);
        assert_eq!(sorted(&rows, 3), [other, ten, nine]);
        assert_eq!(sorted(&rows, 4), [other, ten, nine]);
        assert_eq!(sorted(&rows, 5), [other, ten, nine]);
        assert_eq!(TargetRow::ORDERS.len(), 7);
    }

    #[test]
    fn endpoints_are_those_of_the_counters_and_of_the_groups() {
        let group = json!([{ "name": "inspection", "members": [
            { "endpoint": "vpce-a", "zone": "az1", "health": "Normal", "gets_new_flows": true },
            { "endpoint": "vpce-b", "zone": "az2", "health": null, "gets_new_flows": false },
            { "endpoint": "vpce-c", "zone": "az3", "health": "Abnormal", "gets_new_flows": false },
        ] }]);
        let mut first = status(1_000, 0);
        first["endpoint_groups"] = group.clone();
        first["endpoints"] = json!([{ "name": "vpce-a", "zone": "az1", "active_flows": 3,
            "received_packets": 10, "inspected_bytes": 100, "dropped_packets": 0 }]);
        let mut second = status(3_000, 0);
        second["endpoint_groups"] = group;
        second["endpoints"] = json!([{ "name": "vpce-a", "zone": "az1", "active_flows": 4,
            "received_packets": 30, "inspected_bytes": 500, "dropped_packets": 2 }]);
        let mut model = Model::default();
        model.take(answer(&first, &[]));
        model.take(answer(&second, &[]));
        let rows = &model.endpoints;
        assert_eq!(
            rows.iter().map(|row| row.standing).collect::<Vec<_>>(),
            ["active", "standby", "abnormal"]
        );
        assert_eq!(
            (rows[0].flows, rows[0].packets, rows[0].bytes, rows[0].dropped),
            (Some(4), Some(10.0), Some(200.0), Some(1.0))
        );
        assert_eq!((rows[1].flows, rows[1].packets), (None, None));
        assert!(rows[1].has("az2") && rows[2].has("abno") && !rows[0].has("vpce-b"));
    }
}
