//! `gwlb target`: the targets of a running gateway; one file for each subcommand.

mod deregister;
mod health;
mod list;
mod register;

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::segment;

/// Show, register and deregister the targets of a running gateway.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::ListArgs),
    Health(health::HealthArgs),
    Register(register::RegisterArgs),
    Deregister(deregister::DeregisterArgs),
}

pub(super) fn run(arguments: &TargetArgs) -> ExitCode {
    match &arguments.command {
        Command::List(arguments) => list::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Register(arguments) => register::run(arguments),
        Command::Deregister(arguments) => deregister::run(arguments),
    }
}

/// Which target is meant.
#[derive(Debug, Args)]
struct Which {
    /// The target group.
    group: String,
    /// The target's IP address.
    address: IpAddr,
    /// Its UDP port, if it is not the group's.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl Which {
    fn path(&self) -> String {
        path(&self.group, self.address, self.port)
    }
}

/// Where the API has a target.
pub(super) fn path(group: &str, address: IpAddr, port: Option<u16>) -> String {
    let port = port.map(|port| format!("?port={port}")).unwrap_or_default();
    format!("{}/{}{port}", targets(group), segment(&address.to_string()))
}

fn targets(group: &str) -> String {
    format!("/v1/target-groups/{}/targets", segment(group))
}
