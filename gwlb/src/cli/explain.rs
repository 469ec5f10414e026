//! `gwlb explain`: what becomes of packets, and why.

mod drops;
mod file;
mod packet;

use std::process::ExitCode;

use clap::Args;

use super::client::GatewayArgs;
use packet::PacketArgs;

/// Explain what would become of a packet in the running gateway, step by step, or what was dropped.
///
/// Say what the packet is like, give its bytes, or take it from a capture: the gateway answers with
/// the route tables that are asked, the flow that it is of or would begin, the scores of the targets,
/// the bytes that the appliance gets, the check of what comes back, and where it leaves or why it is
/// dropped and what to do about that. Nothing is sent. A captured packet between gateway and
/// appliance is explained as one that the appliance returns.
///
/// With --drops it tells what was dropped in the last seconds: how often and why, with examples, and
/// what to do about it.
///
/// Exit status: 0 the packet is delivered, or drops are told; 1 it is not, or the gateway cannot be
/// asked; 2 it is asked for something wrong.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Explain the drops of the last seconds.
    #[arg(long, conflicts_with_all = PacketArgs::ALL)]
    drops: bool,
    /// How many seconds, at most 600.
    #[arg(long, value_name = "N", default_value_t = 60, requires = "drops",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    #[command(flatten)]
    packet: PacketArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ExplainArgs) -> ExitCode {
    if arguments.drops {
        return drops::run(&arguments.gateway, arguments.seconds, arguments.json);
    }
    packet::run(&arguments.packet, &arguments.gateway, arguments.json)
}
