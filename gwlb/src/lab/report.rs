//! What a trial found, for people and for programs: a picture, tables and a verdict, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use nva_sample::firewall::rules::RuleHits;
use serde::Serialize;

use super::failover::report::Scene;
use super::plan::{Host, Plan};
use super::progress::Event;
use super::trial::{Check, Findings, Transfer};

/// Everything there is to say about a run: `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether every check held.
    pub ok: bool,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// In the order of the plan.
    pub appliances: Vec<ApplianceReport>,
    /// What the gateway dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The gateway as a whole.
    pub gateway: GatewayReport,
    /// The transfers of much data.
    pub transfers: Vec<Transfer>,
    /// The scenes of the second act, if it was played.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Scene>,
    /// What was done when.
    pub timeline: Vec<Event>,
}

/// What one appliance did. Packets and bytes are those of inner packets.
#[derive(Debug, Serialize)]
pub(super) struct ApplianceReport {
    pub name: &'static str,
    pub kind: String,
    pub zone: &'static str,
    pub address: String,
    /// Received from the gateway.
    pub packets: u64,
    pub bytes: u64,
    pub flows: u64,
    pub flows_both_directions: u64,
    pub returned_packets: u64,
    pub kept_packets: u64,
    pub rewritten_packets: u64,
    pub drops: BTreeMap<String, u64>,
    /// How often each rule of a firewall decided.
    pub rules: Vec<RuleHits>,
}

/// What the gateway did.
#[derive(Debug, Serialize)]
pub(super) struct GatewayReport {
    pub workers: usize,
    /// Packets that entered from the networks.
    pub packets: u64,
    pub delivered_packets: u64,
    pub syscalls: u64,
    pub syscalls_per_packet: f64,
}

/// What a column of the table of transfers means.
const CALLS_PER_PACKET: &str = "\
calls/packet: the gateway's system calls for each packet that it took in; each comes in twice, from
a network and from its appliance.
";

impl Report {
    pub(super) fn new(plan: &Plan, findings: Findings, timeline: &[Event]) -> Self {
        let Findings { checks, transfers, counters } = findings;
        let gateway = &counters.gateway;
        let appliances = plan.appliances.iter().zip(counters.appliances);
        Self {
            ok: checks.iter().all(|check| check.ok),
            checks,
            appliances: appliances
                .map(|(spec, counted)| ApplianceReport {
                    name: spec.name,
                    kind: spec.kind.to_string(),
                    zone: spec.zone,
                    address: spec.address.to_string(),
                    packets: counted.packets,
                    bytes: counted.bytes,
                    flows: counted.flows,
                    flows_both_directions: counted.flows_both_directions,
                    returned_packets: counted.returned_packets,
                    kept_packets: counted.kept_packets,
                    rewritten_packets: counted.runtime.rewritten.packets,
                    drops: counted.drops,
                    rules: counted.sample.rules,
                })
                .collect(),
            drops: gateway.drops(),
            gateway: GatewayReport {
                workers: gateway.workers,
                packets: gateway.tun.received,
                delivered_packets: gateway.tun.delivered + gateway.udp.delivered,
                syscalls: gateway.io.syscalls,
                syscalls_per_packet: gateway.syscalls_per_packet(),
            },
            transfers,
            failover: Vec::new(),
            timeline: timeline.to_vec(),
        }
    }

    /// Takes the second act in, and the timeline up to its end.
    pub(super) fn add_failover(&mut self, scenes: Vec<Scene>, timeline: &[Event]) {
        self.ok &= scenes.iter().all(Scene::ok);
        self.checks.extend(scenes.iter().flat_map(|scene| scene.checks.iter().cloned()));
        self.failover = scenes;
        self.timeline = timeline.to_vec();
    }

    /// The closing picture, the tables and the verdict. `told`: the reader has followed the timeline.
    pub(super) fn to_text(&self, plan: &Plan, told: bool) -> String {
        let mut text = picture(plan);
        let sections = [
            ("What went where", Some(self.appliance_table()), ""),
            ("Dropped by the gateway", self.drop_table(), ""),
            ("Transfers", self.transfer_table(), CALLS_PER_PACKET),
        ];
        for (title, table, note) in sections {
            if let Some(table) = table {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n{title}\n{table}\n{note}");
            }
        }
        if !self.failover.is_empty() {
            text.push_str("\nThe second act: failover\n");
            let events = self.timeline.iter().filter(|event| event.second_act && !told);
            for event in events {
                let _ = writeln!(text, "  {:6.2} s  {}", event.seconds, event.what);
            }
        }
        for (number, scene) in self.failover.iter().enumerate() {
            let _ = write!(text, "\n{}", scene.to_text(number + 1));
        }
        if let Some(table) = self.failure_table() {
            let _ = write!(text, "\nWhat did not hold\n{table}\n");
        }
        let _ = write!(text, "\n{}\n", self.verdict());
        text
    }

    /// One line.
    pub(super) fn verdict(&self) -> String {
        let failed = self.checks.iter().filter(|check| !check.ok).count();
        let (all, packets) = (self.checks.len(), self.gateway.packets);
        let calls = self.gateway.syscalls_per_packet;
        if self.ok {
            let failover = match self.failover.len() {
                0 => String::new(),
                scenes => format!(" The second act's {scenes} scenes went as they should."),
            };
            format!(
                "PASS: all {all} checks held. {packets} packets came in; none was delivered without \
                 inspection, and none is unaccounted for. {calls:.3} system calls for each packet taken in.{failover}"
            )
        } else {
            let first = self.checks.iter().find(|check| !check.ok);
            let cause = first.map_or("", |check| check.detail.as_str());
            format!("FAIL: {failed} of {all} checks did not hold. The first: {cause}.")
        }
    }

    fn appliance_table(&self) -> Table {
        let header = [
            "appliance",
            "kind",
            "zone",
            "packets",
            "MiB",
            "returned",
            "kept",
            "flows",
            "both ways",
        ];
        let mut table = table(&header, 3);
        for row in &self.appliances {
            table.add_row([
                row.name.to_owned(),
                row.kind.clone(),
                row.zone.to_owned(),
                row.packets.to_string(),
                (row.bytes >> 20).to_string(),
                row.returned_packets.to_string(),
                row.kept_packets.to_string(),
                row.flows.to_string(),
                row.flows_both_directions.to_string(),
            ]);
        }
        table
    }

    fn drop_table(&self) -> Option<Table> {
        let mut table = table(&["reason", "packets"], 1);
        for (reason, count) in &self.drops {
            table.add_row([reason.clone(), count.to_string()]);
        }
        (!self.drops.is_empty()).then_some(table)
    }

    fn transfer_table(&self) -> Option<Table> {
        let header = ["from", "to", "", "MiB", "Gbit/s", "calls/packet", "through", "identical"];
        let mut table = table(&header, 3);
        for transfer in &self.transfers {
            table.add_row([
                transfer.from.to_owned(),
                transfer.to.to_owned(),
                transfer.family.clone(),
                (transfer.bytes >> 20).to_string(),
                format!("{:.2}", transfer.gbit_per_second),
                format!("{:.3}", transfer.syscalls_per_packet),
                transfer.via.clone(),
                if transfer.identical { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        (!self.transfers.is_empty()).then_some(table)
    }

    fn failure_table(&self) -> Option<Table> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["check", "what was found"]);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        for check in self.checks.iter().filter(|check| !check.ok && check.tried) {
            table.add_row([&check.name, &check.detail]);
        }
        let skipped = self.checks.iter().filter(|check| !check.tried).count();
        if skipped > 0 {
            let others = format!("{skipped} others");
            table.add_row([&others, "were not tried, since they could only fail the same way"]);
        }
        (!table.is_empty()).then_some(table)
    }
}

/// A table of which the columns from `numbers` on are numbers.
pub(super) fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The network, as it was built.
fn picture(plan: &Plan) -> String {
    let mut text = String::new();
    let addresses = |host: &Host| {
        let public = host.public.map(|public| format!("{public} = ")).unwrap_or_default();
        format!("{public}{}, {}", host.v4.0, host.v6.0)
    };
    let client = &plan.client;
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", arguments.to_string().trim_end());
    };
    line(format_args!(""));
    line(format_args!("  {} ({})", client.name, addresses(client)));
    line(format_args!("    │ the internet"));
    line(format_args!(
        "  ┌─┴─────┐ gateway table: each server's subnet → the endpoint of its zone"
    ));
    line(format_args!("  │  igw  │ and public addresses ↔ private ones"));
    line(format_args!("  └─┬─────┘"));
    let last = plan.zones.len() - 1;
    for (number, zone) in plan.zones.iter().enumerate() {
        let (branch, trunk) = if number == last { ("└", " ") } else { ("├", "│") };
        let server = &zone.server;
        let appliances: Vec<_> = plan
            .appliances_of(zone.name)
            .map(|appliance| format!("{} {} {}", appliance.name, appliance.kind, appliance.address))
            .collect();
        line(format_args!(
            "    {branch}─ {} ─ {} ⇄ {} ═Geneve═ {}",
            zone.name,
            zone.endpoint,
            zone.node,
            appliances.join(" | "),
        ));
        line(format_args!(
            "    {trunk}          │ {}: back from inspection, on to its destination",
            zone.endpoint_subnet
        ));
        line(format_args!("    {trunk}        {} ({})", server.name, addresses(server)));
        line(format_args!(
            "    {trunk}          {}: everything else → {}",
            server.name, zone.endpoint
        ));
        line(format_args!("    {trunk}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::stage::Counters;
    use crate::lab::statistics::ApplianceReport as Counted;

    fn report(ok: bool) -> (Plan, Report) {
        let plan = Plan::new("gwlb-demo-1".to_owned(), None);
        let name = "http-in/app-a/ipv4";
        let check = if ok {
            Check::held(name, "app-a answered client, and saw its address")
        } else {
            Check::failed(name, "HTTP to 10.0.1.11:80: connection timed out")
        };
        let transfer = Transfer {
            from: "client",
            to: "app-b",
            family: "IPv6".to_owned(),
            bytes: 256 << 20,
            seconds: 0.5,
            gbit_per_second: 4.294_967,
            packets: 200_000,
            syscalls: 9_000,
            syscalls_per_packet: 0.045,
            via: "nva-3".to_owned(),
            identical: true,
        };
        let mut counters = Counters {
            appliances: vec![Counted::default(); plan.appliances.len()],
            ..Counters::default()
        };
        counters.gateway.tun.received = 200_100;
        counters.gateway.io.syscalls = 9_500;
        counters.gateway.tun.drops.insert("no_route".to_owned(), 3);
        let findings = Findings { checks: vec![check], transfers: vec![transfer], counters };
        let report = Report::new(&plan, findings, &[]);
        (plan, report)
    }

    #[test]
    fn the_text_shows_the_network_the_numbers_and_the_verdict() {
        let (plan, report) = report(true);
        insta::assert_snapshot!(report.to_text(&plan, false));
    }

    #[test]
    fn a_failure_is_told_with_what_was_found() {
        let (plan, report) = report(false);
        assert!(!report.ok);
        let text = report.to_text(&plan, false);
        assert!(text.contains("What did not hold"), "{text}");
        let verdict = "FAIL: 1 of 1 checks did not hold. The first: HTTP to 10.0.1.11:80: \
                       connection timed out.\n";
        assert!(text.ends_with(verdict), "{text}");
    }

    #[test]
    fn the_json_has_the_agreed_form() {
        let (_, report) = report(true);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["ok"], true);
        assert_eq!(json["checks"][0]["name"], "http-in/app-a/ipv4");
        assert_eq!(json["drops"]["no_route"], 3);
        for key in ["name", "zone", "packets", "bytes", "flows"] {
            assert!(json["appliances"][0].get(key).is_some(), "{key}");
        }
        assert!(json["timeline"].is_array());
    }
}
