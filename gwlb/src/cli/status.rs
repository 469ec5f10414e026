//! `gwlb status`: what a running gateway does.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, GatewayArgs};
use super::shown::{Target, table};
use super::{for_people, lines, print};

/// Show what a running gateway does: where packets went, what was dropped and why, and what each
/// target got and gave back.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, as `GET /v1/status` gives it; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let status = client.get("/v1/status").await?;
        if !for_people(arguments.json) {
            return Ok(print(&format!("{status:#}\n")));
        }
        let shown = Target::list(&status["targets"])?;
        Ok(print(&tables(&status, &shown)))
    })
}

/// What comes in, what is made, and what becomes of it but for drops: it balances, as long as nothing
/// waits.
const LEDGER: [&str; 7] =
    ["received", "generated", "encapsulated", "delivered", "bypassed", "replied", "probes"];

fn tables(status: &Value, shown: &[Target]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let sides = ["from the networks", "from appliances"];
    let mut packets = table(&["packets", sides[0], sides[1]], &sides);
    for name in LEDGER {
        packets.add_row([name.to_owned(), text(&status["tun"][name]), text(&status["udp"][name])]);
    }
    let mut reasons: Vec<&String> = Vec::new();
    for side in ["tun", "udp"] {
        reasons.extend(status[side]["drops"].as_object().iter().flat_map(|drops| drops.keys()));
    }
    reasons.sort();
    reasons.dedup();
    for reason in reasons {
        let count = |side: &str| match &status[side]["drops"][reason] {
            Value::Null => "0".to_owned(),
            count => count.to_string(),
        };
        packets.add_row([format!("dropped: {reason}"), count("tun"), count("udp")]);
    }
    let numbers = ["flows", "sent", "returned", "kept", "path MTU"];
    let mut header = vec!["target", "group", "zone", "state", "reason", "draining"];
    header.extend(numbers);
    let mut targets = table(&header, &numbers);
    for (target, counted) in shown.iter().zip(status["targets"].as_array().into_iter().flatten()) {
        let numbers =
            ["active_flows", "sent_packets", "returned_packets", "kept_packets", "path_mtu"];
        let mut row = vec![
            target.address.clone(),
            target.target_group.clone(),
            target.zone.clone(),
            target.state.clone(),
            target.reason.clone().unwrap_or_default(),
            target.drain(),
        ];
        row.extend(numbers.map(|column| text(&counted[column])));
        targets.add_row(row);
    }
    format!(
        "gwlb {}, {}, up {} s, {} workers, {} flows\n{}\n{packets}\n\n{targets}\n",
        text(&status["version"]),
        text(&status["state"]),
        status["uptime_seconds"],
        status["workers"],
        status["active_flows"],
        lines(warnings(status, shown)),
    )
}

/// What nobody should overlook, a line each.
pub(super) fn warnings(status: &Value, targets: &[Target]) -> Vec<String> {
    let mut warnings = Vec::new();
    for balancer in status["load_balancers"].as_array().into_iter().flatten() {
        let name = balancer["name"].as_str().unwrap_or_default();
        if balancer["traffic_mode"] == "bypass" {
            let why = format!("its traffic mode is bypass (`gwlb bypass off {name}` ends it)");
            warnings.push(format!("!!! {name}: PACKETS PASS UNINSPECTED: {why}"));
            continue;
        }
        for node in balancer["nodes"].as_array().into_iter().flatten() {
            let zone = node["zone"].as_str().unwrap_or_default();
            match node["packets"].as_str() {
                Some("bypassed") => warnings.push(format!(
                    "!!! {name} in {zone}: PACKETS PASS UNINSPECTED: no target is healthy"
                )),
                Some("dropped") => warnings.push(format!(
                    "!!! {name} in {zone}: NEW FLOWS ARE DROPPED: no target may take them"
                )),
                _ => {}
            }
        }
    }
    for group in status["endpoint_groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        let active = group["active"].as_str();
        let active = active.map(|it| format!(": new flows go to {it}")).unwrap_or_default();
        match group["state"].as_str() {
            None | Some("Pending" | "Available") => {}
            Some(state) => warnings.push(format!("!!! {name} is {state}{active}")),
        }
    }
    for target in targets {
        if let Some(diagnosis) = &target.diagnosis {
            warnings
                .push(format!("!!! {}: {}: {}", target.address, diagnosis.code, diagnosis.text));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::stats::{Totals, WorkerStats};
    use crate::dataplane::verdict::DropReason;

    #[test]
    fn every_packet_is_in_a_row() {
        let worker = WorkerStats::default();
        let sides = [&worker.tun, &worker.udp];
        for (ledger, factor) in sides.into_iter().zip([1, 100]) {
            let flow = &ledger.flow;
            let ends = [&flow.encapsulated, &flow.delivered, &flow.bypassed, &flow.replied];
            for (count, counter) in (2..).zip(ends.into_iter().chain([&flow.probes])) {
                counter.add(count * factor);
            }
            ledger.drops.add(DropReason::NoRoute, 7 * factor);
            flow.received.add(26 * factor);
            flow.generated.add(factor);
        }
        let totals = Totals::of([&worker]);
        assert_eq!(totals.tun.balance(), (27, 27));
        let shown = tables(&serde_json::to_value(totals).unwrap(), &[]);
        let row = |name: &str| -> [u64; 2] {
            let row = shown.lines().find(|line| line.trim_start().starts_with(name));
            let words = row.unwrap_or_else(|| panic!("{name}: {shown}")).split_whitespace().rev();
            let numbers: Vec<u64> = words.take(2).map(|word| word.parse().unwrap()).collect();
            [numbers[1], numbers[0]]
        };
        let sum = |names: &[&str]| {
            names
                .iter()
                .map(|name| row(name))
                .fold([0, 0], |sum, it| [sum[0] + it[0], sum[1] + it[1]])
        };
        let [came, went] =
            [&LEDGER[..2], &[&LEDGER[2..], &["dropped: no_route"]].concat()].map(sum);
        assert_eq!((came, went), ([27, 2700], [27, 2700]), "{shown}");
    }
}
