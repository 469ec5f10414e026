//! `gwlb flows`: the flows that there are now.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{AskError, Client, GatewayArgs, segment};
use super::shown::{about, flows, narrow_table, terminal_width};
use super::top::figures::exact;
use super::{FAILED, WRONG_USE, fail, for_people, print};
use crate::dataplane::filter::{FilterError, FlowFilter};

/// List the flows that there are now, with the target of each.
///
/// In place of a target, "bypass" says that the packets of a flow bypass the appliances; behind it, in
/// brackets, stands the target that the flow is kept for until the traffic mode is turned back.
///
/// Of several filters all have to fit. Nothing waits for this, however many flows there are: they are
/// gone through between packets.
///
/// Exit status: 0 done; 1 the gateway cannot be asked, or refuses; 2 it is asked for something wrong.
#[derive(Debug, Args)]
pub(super) struct FlowsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// The largest first by age, idle, packets, bytes or expires; the smallest with a hyphen before
    /// it. Absent: in the order of the flow tables.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = sort_key)]
    sort: Option<String>,
    /// So many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// List all flows that there are, in the order of the flow tables.
    #[arg(long, conflicts_with_all = ["sort", "limit", "count"])]
    all: bool,
    /// Only say how many flows there are.
    #[arg(long, conflicts_with_all = ["sort", "limit"])]
    count: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, as `GET /v1/flows` gives it; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

/// Which flows are meant.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArgs {
    /// An address or a prefix of either end, such as 10.0.1.11 or 10.0.0.0/16.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// The port of either end.
    #[arg(long)]
    port: Option<String>,
    /// The protocol: tcp, udp, icmp, icmpv6 or a number.
    #[arg(long)]
    protocol: Option<String>,
    /// The endpoint, by name or by its id (0x…).
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// The target by its address, with or without its port; bypass: flows that nobody inspects now,
    /// those that are kept for a target included.
    #[arg(long, value_name = "ADDRESS")]
    target: Option<String>,
    /// How far the TCP connection is.
    #[arg(long, value_name = "half_open|established|half_closed|closed")]
    state: Option<String>,
}

impl FilterArgs {
    /// The filter, if every part of it can be understood.
    pub fn read(&self) -> Result<FlowFilter, FilterError> {
        let Self { address, port, protocol, endpoint, target, state } = self;
        let parts = [
            ("address", address),
            ("port", port),
            ("protocol", protocol),
            ("endpoint", endpoint),
            ("target", target),
            ("state", state),
        ];
        let mut filter = FlowFilter::default();
        for (part, value) in parts {
            if let Some(value) = value {
                filter.set(part, value)?;
            }
        }
        Ok(filter)
    }
}

/// A filter as parameters of a request, each with the sign before it.
pub(super) fn parameters(filter: &FlowFilter) -> String {
    let mut text = String::new();
    for (part, value) in filter.parts() {
        let sign = if text.is_empty() { '?' } else { '&' };
        // Writing to a string does not fail.
        let _ = write!(text, "{sign}{part}={}", segment(&value));
    }
    text
}

/// One flow, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Flow {
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
    pub protocol: String,
    pub initiator_known: bool,
    pub endpoint: String,
    pub endpoint_id: String,
    pub load_balancer: Option<String>,
    pub zone: Option<String>,
    pub target_group: Option<String>,
    pub target: Option<String>,
    /// Gateways before this one do not tell.
    #[serde(default)]
    pub bypassed: bool,
    pub state: Option<String>,
    pub age_seconds: Option<f64>,
    pub idle_seconds: Option<f64>,
    pub idle_timeout_seconds: Option<f64>,
    pub expires_in_seconds: f64,
    pub packets_to_destination: Option<u64>,
    pub bytes_to_destination: Option<u64>,
    pub packets_to_source: Option<u64>,
    pub bytes_to_source: Option<u64>,
    pub cookie: Option<String>,
    pub outer_source_port: Option<u16>,
    pub worker: u16,
    pub placed: Option<Placed>,
    #[serde(default)]
    pub candidates: Vec<Candidate>,
}

/// How a flow came to its target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Placed {
    pub cause: String,
    pub meaning: String,
    pub seconds_ago: f64,
}

/// A target that a flow could be placed on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Candidate {
    pub target: String,
    pub weight: u16,
    pub score: f64,
    pub current: bool,
}

impl Flow {
    pub fn list(list: &Value) -> Result<Vec<Self>, AskError> {
        let items = Vec::deserialize(&list["items"]);
        items.map_err(|error| AskError::Other(format!("the flows: {error}")))
    }

    /// Both ends and the protocol, as `gwlb flow` takes them.
    pub fn name(&self) -> String {
        let end = |address: &str, port: Option<u16>| match port {
            Some(port) if address.contains(':') => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
            None => address.to_owned(),
        };
        let source = end(&self.source, self.source_port);
        let destination = end(&self.destination, self.destination_port);
        format!("{source}-{destination}/{}", self.protocol)
    }
}

/// What is not known is shown so.
pub(super) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn run(arguments: &FlowsArgs) -> ExitCode {
    let filter = match arguments.filter.read() {
        Ok(filter) => filter,
        Err(error) => {
            fail(&format!("--{}: {error}", error.part));
            return ExitCode::from(WRONG_USE);
        }
    };
    arguments.gateway.ask(async |client: &Client| {
        if arguments.count {
            return count(client, &filter, arguments.json).await;
        }
        let list = if arguments.all {
            everything(client, &filter).await?
        } else {
            let mut path = format!("/v1/flows{}", parameters(&filter));
            path += if path.contains('?') { "&" } else { "?" };
            let _ = write!(path, "limit={}", arguments.limit);
            if let Some(sort) = &arguments.sort {
                let _ = write!(path, "&sort={sort}");
            }
            client.get(&path).await?
        };
        if !for_people(arguments.json) {
            return Ok(print(&format!("{list:#}\n")));
        }
        let shown = Flow::list(&list)?;
        let listed =
            if shown.is_empty() { String::new() } else { listing(&shown, terminal_width()) };
        let count = match (list["matched"].as_u64(), &list["next"]) {
            (Some(all), _) if all > shown.len() as u64 => {
                format!("{} of {}\n", shown.len(), flows(all))
            }
            (_, Value::String(_)) => {
                format!("{}, and more: --all, or --limit\n", flows(shown.len() as u64))
            }
            _ => format!("{}\n", flows(shown.len() as u64)),
        };
        Ok(print(&(listed + &count)))
    })
}

/// Flows as a table, on a terminal of so many columns if that is known.
pub(super) fn listing(shown: &[Flow], room: Option<u16>) -> String {
    const COLUMNS: [(&str, u8); 10] = [
        ("flow", 0),
        ("endpoint", 6),
        ("target", 0),
        ("state", 5),
        ("age", 2),
        ("idle", 1),
        ("packets →", 4),
        ("← packets", 4),
        ("bytes →", 3),
        ("← bytes", 3),
    ];
    let numbers = COLUMNS.map(|(name, _)| name);
    let row = |flow: &Flow| {
        vec![
            flow.name(),
            flow.endpoint.clone(),
            match &flow.target {
                Some(target) if flow.bypassed => format!("bypass ({target})"),
                Some(target) => target.clone(),
                None => "bypass".to_owned(),
            },
            known(flow.state.as_ref()),
            known(flow.age_seconds.map(about)),
            known(flow.idle_seconds.map(about)),
            known(flow.packets_to_destination.map(exact)),
            known(flow.packets_to_source.map(exact)),
            known(flow.bytes_to_destination.map(exact)),
            known(flow.bytes_to_source.map(exact)),
        ]
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    format!("{}\n", narrow_table(&COLUMNS, &numbers[4..], &rows, room))
}

async fn count(client: &Client, filter: &FlowFilter, json: bool) -> Result<ExitCode, AskError> {
    let count = client.get(&format!("/v1/flows/count{}", parameters(filter))).await?;
    if !for_people(json) {
        return Ok(print(&format!("{count:#}\n")));
    }
    Ok(print(&format!("{}\n", flows(count["matched"].as_u64().unwrap_or_default()))))
}

/// All pages of the list, as one.
async fn everything(client: &Client, filter: &FlowFilter) -> Result<Value, AskError> {
    let first = format!("/v1/flows{}", parameters(filter));
    let sign = if first.contains('?') { '&' } else { '?' };
    let (mut items, mut path) = (Vec::new(), format!("{first}{sign}limit=10000"));
    loop {
        let mut page = client.get(&path).await?;
        if let Value::Array(more) = page["items"].take() {
            items.extend(more);
        }
        let Some(next) = page["next"].as_str() else {
            return Ok(json!({ "items": items, "next": null, "matched": items.len() }));
        };
        path = format!("{first}{sign}limit=10000&next={}", segment(next));
    }
}

fn sort_key(text: &str) -> Result<String, String> {
    const KEYS: [&str; 5] = ["age", "idle", "packets", "bytes", "expires"];
    if KEYS.contains(&text.strip_prefix('-').unwrap_or(text)) {
        return Ok(text.to_owned());
    }
    Err(format!("it is {}, or one of these with a hyphen before it", KEYS.join(", ")))
}

/// Nothing was found.
pub(super) const NONE_FOUND: u8 = FAILED;
