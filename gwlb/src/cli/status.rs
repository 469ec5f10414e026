//! `gwlb status`: what a running gateway does.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::{client, fail, print};

/// Show what a running gateway does: where packets went, what was dropped and why, and what each
/// target got and gave back.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The gateway's admin socket (`admin` in its configuration).
    #[arg(long, value_name = "PATH", default_value = "/run/gwlb/main.sock")]
    socket: PathBuf,
    /// Print JSON, as `GET /v1/status` gives it; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArgs) -> ExitCode {
    let answer = client::get(&arguments.socket, "/v1/status")
        .and_then(|body| serde_json::from_slice::<Value>(&body).map_err(io::Error::other));
    match answer {
        Ok(status) if arguments.json || !io::stdout().is_terminal() => {
            print(&format!("{status:#}\n"))
        }
        Ok(status) => print(&tables(&status)),
        Err(error) => {
            let socket = arguments.socket.display();
            fail(&format!("cannot ask the gateway at {socket}: {error}"))
        }
    }
}

fn tables(status: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut packets = table(&["packets", "from the networks", "from appliances"]);
    for name in ["received", "generated", "encapsulated", "delivered", "replied"] {
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
    let mut targets =
        table(&["target", "group", "zone", "flows", "sent", "returned", "kept", "path MTU"]);
    for target in status["targets"].as_array().into_iter().flatten() {
        let columns = [
            "address",
            "target_group",
            "zone",
            "new_flows",
            "sent_packets",
            "returned_packets",
            "kept_packets",
            "path_mtu",
        ];
        targets.add_row(columns.map(|column| text(&target[column])));
    }
    format!(
        "gwlb {}, {}, up {} s, {} workers, {} flows\n\n{packets}\n\n{targets}\n",
        text(&status["version"]),
        text(&status["state"]),
        status["uptime_seconds"],
        status["workers"],
        status["active_flows"],
    )
}

/// A table whose first column is text and whose others are numbers.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
