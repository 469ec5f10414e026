//! `gwlb endpoint-group list`: which groups there are, and how they are.

use std::process::ExitCode;

use clap::Args;

use super::Group;
use crate::cli::client::{Client, GatewayArgs};
use crate::cli::shown::table;
use crate::cli::{for_people, print};

/// List the groups of endpoints, with what is known of each zone and who gets new flows.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ListArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let list = client.get("/v1/endpoint-groups").await?;
        if !for_people(arguments.json) {
            return Ok(print(&format!("{list:#}\n")));
        }
        let header = ["group", "state", "endpoint", "zone", "weight", "health", "new flows", ""];
        let mut table = table(&header, &["weight"]);
        for group in list["items"].as_array().into_iter().flatten() {
            let group = Group::of(group)?;
            let remarks = group.remarks();
            for (at, member) in group.members.into_iter().enumerate() {
                let once = |text: &str| if at == 0 { text.to_owned() } else { String::new() };
                let health = member.health.unwrap_or_else(|| "not known yet".to_owned());
                table.add_row([
                    once(&group.name),
                    once(&group.state),
                    member.endpoint,
                    member.zone,
                    member.weight.to_string(),
                    if member.enabled { health } else { format!("{health}, disabled") },
                    if member.gets_new_flows { "yes" } else { "no" }.to_owned(),
                    once(&remarks),
                ]);
            }
        }
        Ok(print(&format!("{table}\n")))
    })
}
