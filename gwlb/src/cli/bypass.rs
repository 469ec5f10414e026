//! `gwlb bypass`: packets go past the appliances, or do so no longer.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::json;

use super::client::{Client, GatewayArgs, segment};
use super::{for_people, print};

/// Let all packets of a load balancer pass uninspected, or have them inspected again.
///
/// It holds until it is switched back, or until a reload or a restart; `traffic_mode` in the
/// configuration is what holds then.
#[derive(Debug, Args)]
pub(super) struct BypassArgs {
    /// on: packets pass uninspected; off: they are inspected.
    switch: Switch,
    /// The load balancer.
    load_balancer: String,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(arguments: &BypassArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let (mode, text) = match arguments.switch {
            Switch::On => ("bypass", "PACKETS PASS UNINSPECTED until `gwlb bypass off`"),
            Switch::Off => ("load_balance", "packets are inspected"),
        };
        let path = format!("/v1/load-balancers/{}", segment(&arguments.load_balancer));
        let balancer = client.json(Method::PATCH, &path, &json!({ "traffic_mode": mode })).await?;
        Ok(if for_people(arguments.json) {
            print(&format!("{}: {text}\n", arguments.load_balancer))
        } else {
            print(&format!("{balancer:#}\n"))
        })
    })
}
