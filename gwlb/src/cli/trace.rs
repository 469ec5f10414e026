//! `gwlb trace`: the way of a packet through the running gateway's tables, and the target that its
//! flow would get.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Client, GatewayArgs};
use super::{FAILED, for_people, print};

/// Follow a packet through the tables, and ask which target its flow would get; nothing is sent.
///
/// Each hop says which table decides, which route wins and which it beat; at an endpoint, which
/// target a flow gets that begins now. A flow that there is may be with another. `router trace` does
/// the same with a file alone, but for the targets.
///
/// Exit status: 0 the packet is delivered, and its answer too; 1 one is dropped, or the gateway cannot
/// be asked; 2 it is asked for something wrong.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Where the packet enters: `internet_gateway:NAME`, `subnet:NAME`, `endpoint:NAME`, …
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// The address that it is for.
    #[arg(long, value_name = "ADDRESS")]
    to: IpAddr,
    /// The address that it comes from.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// tcp, udp, icmp, icmpv6 or a number.
    #[arg(long)]
    protocol: Option<String>,
    /// The port that it comes from.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// The port that it goes to.
    #[arg(long)]
    port: Option<u16>,
    /// Follow the answer too; without --source, it goes to a likely address.
    #[arg(long)]
    answer: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &TraceArgs) -> ExitCode {
    let body = json!({
        "from": arguments.from,
        "to": arguments.to,
        "source": arguments.source,
        "protocol": arguments.protocol,
        "source_port": arguments.source_port,
        "destination_port": arguments.port,
        "answer": arguments.answer,
        "text": for_people(arguments.json),
    });
    arguments.gateway.ask(async |client: &Client| {
        let answer = client.json(Method::POST, "/v1/trace", &body).await?;
        let trace = &answer["trace"];
        let lost = |trace: &Value| trace["delivered"] == false;
        let arrived = !lost(trace) && !lost(&trace["back"]);
        let printed = match answer["text"].as_str() {
            Some(text) => print(&format!("{text}\n")),
            None => print(&format!("{trace:#}\n")),
        };
        Ok(if arrived { printed } else { ExitCode::from(FAILED) })
    })
}
