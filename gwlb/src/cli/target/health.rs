//! `gwlb target health`: what is thought of targets, and why.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::list::all;
use super::path;
use crate::cli::client::{Client, GatewayArgs};
use crate::cli::shown::{Target, Zone, age, narrow_table, terminal_width};
use crate::cli::top::figures::exact;
use crate::cli::{for_people, print};

/// Show the state of targets, since when and why; where the nodes of a load balancer do not agree,
/// what each of them thinks.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The target group; absent: all.
    group: Option<String>,
    /// The target's IP address; absent: all of the group.
    address: Option<IpAddr>,
    /// Its UDP port, if it is not the group's.
    #[arg(long, requires = "address", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &HealthArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let list = match (&arguments.group, arguments.address) {
            (Some(group), Some(address)) => {
                let target = client.get(&path(group, address, arguments.port)).await?;
                json!({ "items": [target], "next": null })
            }
            (group, _) => all(client, group.as_deref()).await?,
        };
        if for_people(arguments.json) {
            Ok(print(&text(&Target::list(&list["items"])?, terminal_width())))
        } else {
            Ok(print(&format!("{list:#}\n")))
        }
    })
}

/// One line per target, or per node where they do not agree.
fn text(targets: &[Target], room: Option<u16>) -> String {
    const COLUMNS: [(&str, u8); 9] = [
        ("target", 0),
        ("group", 5),
        ("node", 0),
        ("state", 0),
        ("reason", 2),
        ("description", 4),
        ("since", 3),
        ("flows", 6),
        ("diagnosis", 1),
    ];
    let mut rows = Vec::new();
    for target in targets {
        let own = Zone {
            load_balancer: String::new(),
            zone: target.zone.clone(),
            state: target.state.clone(),
            reason: target.reason.clone(),
            since_unix_seconds: target.since_unix_seconds,
        };
        let nodes =
            if target.zones.is_empty() { std::slice::from_ref(&own) } else { &target.zones };
        for (index, node) in nodes.iter().enumerate() {
            // What is said of the target as a whole is said once.
            let once = |text: String| if index == 0 { text } else { String::new() };
            let place = match node.load_balancer.as_str() {
                "" => node.zone.clone(),
                balancer => format!("{balancer} in {}", node.zone),
            };
            // The sentence is that of the node in the target's own zone.
            let described = node.state == target.state && node.reason == target.reason;
            let description = target.description.clone().filter(|_| described);
            let diagnosis = target.diagnosis.as_ref();
            rows.push(vec![
                once(target.address.clone()),
                once(target.target_group.clone()),
                place,
                node.state.clone(),
                node.reason.clone().unwrap_or_default(),
                description.unwrap_or_default(),
                age(node.since_unix_seconds),
                once(exact(target.active_flows)),
                once(diagnosis.map(|it| format!("{}: {}", it.code, it.text)).unwrap_or_default()),
            ]);
        }
    }
    format!("{}\n", narrow_table(&COLUMNS, &["flows"], &rows, room))
}
