//! `gwlb endpoint-group switch`: another zone's endpoint gets new flows, or the usual one again.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::Group;
use crate::cli::client::{Client, GatewayArgs, segment};
use crate::cli::{for_people, print};

/// Switch a group to one of its endpoints, or, without --to, back to the one that is configured as
/// active. Established flows stay where they are.
///
/// A switch holds until it is taken back or the gateway ends. An endpoint that fails meanwhile
/// loses new flows to the other, and gets them again once it has been healthy for long enough.
#[derive(Debug, Args)]
pub(super) struct SwitchArgs {
    /// The group of endpoints.
    group: String,
    /// The endpoint that is to get new flows; absent: back.
    #[arg(long, value_name = "ENDPOINT")]
    to: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &SwitchArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let path = format!("/v1/endpoint-groups/{}/switch", segment(&arguments.group));
        let group = client.json(Method::POST, &path, &json!({ "to": arguments.to })).await?;
        if !for_people(arguments.json) {
            return Ok(print(&format!("{group:#}\n")));
        }
        let group = Group::of(&group)?;
        let active = group.active.as_deref().unwrap_or("none");
        let remarks = match group.remarks() {
            remarks if remarks.is_empty() => remarks,
            remarks => format!(" ({remarks})"),
        };
        let (name, state) = (&group.name, &group.state);
        Ok(print(&format!("{name} is {state}, new flows go to {active}{remarks}\n")))
    })
}
