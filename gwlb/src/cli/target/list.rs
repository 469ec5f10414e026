//! `gwlb target list`: which targets there are.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::targets;
use crate::cli::client::{AskError, Client, GatewayArgs};
use crate::cli::shown::{Target, table};
use crate::cli::{for_people, print};

/// List the targets of a group, or of all, those that drain included.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The target group; absent: all.
    group: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ListArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let list = all(client, arguments.group.as_deref()).await?;
        if !for_people(arguments.json) {
            return Ok(print(&format!("{list:#}\n")));
        }
        let header = ["target", "group", "zone", "weight", "state", "flows", "draining"];
        let mut table = table(&header, &["weight", "flows"]);
        for target in Target::list(&list["items"])? {
            let weight = if target.effective_weight == target.weight {
                target.weight.to_string()
            } else {
                format!("{} of {}", target.effective_weight, target.weight)
            };
            let (standing, drain) = (target.standing(), target.drain());
            table.add_row([
                target.address,
                target.target_group,
                target.zone,
                weight,
                standing,
                target.active_flows.to_string(),
                drain,
            ]);
        }
        Ok(print(&format!("{table}\n")))
    })
}

/// The targets of a group, or of all groups, as a list of the API.
pub(super) async fn all(client: &Client, group: Option<&str>) -> Result<Value, AskError> {
    if let Some(group) = group {
        return client.get(&targets(group)).await;
    }
    let mut status = client.get("/v1/status").await?;
    Ok(json!({ "items": status["targets"].take(), "next": null }))
}
