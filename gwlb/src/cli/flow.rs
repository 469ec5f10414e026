//! `gwlb flow`: all that is known of one flow.

use std::process::ExitCode;

use clap::Args;

use super::client::{Client, GatewayArgs};
use super::flows::{FilterArgs, Flow, NONE_FOUND, listing, parameters};
use super::shown::{about, duration, flows, table, terminal_width};
use super::top::figures::exact;
use super::{WRONG_USE, fail, for_people, print};

/// Show one flow: its target and why it has that one, what went each way, and when it will be
/// forgotten.
///
/// Several flows that fit are listed.
///
/// Exit status: 0 it is shown; 1 there is none, or the gateway cannot be asked; 2 it is asked for
/// something wrong.
#[derive(Debug, Args)]
pub(super) struct FlowArgs {
    /// The flow, in either direction, such as 203.0.113.7:4711-10.0.1.11:443/tcp, or without ports
    /// 203.0.113.7-10.0.1.11/icmp; an IPv6 address with a port stands in brackets. Absent: filters
    /// say which.
    #[arg(value_name = "SOURCE:PORT-DESTINATION:PORT/PROTOCOL")]
    what: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, as `GET /v1/flows` gives it; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

/// So many are listed where one was meant.
const SEVERAL: usize = 20;

pub(super) fn run(arguments: &FlowArgs) -> ExitCode {
    let wrong = |message: &str| {
        fail(message);
        ExitCode::from(WRONG_USE)
    };
    let mut filter = match arguments.filter.read() {
        Ok(filter) => filter,
        Err(error) => return wrong(&format!("--{}: {error}", error.part)),
    };
    if let Some(what) = &arguments.what
        && let Err(error) = filter.set("tuple", what)
    {
        return wrong(&error.to_string());
    }
    if filter.parts().is_empty() {
        return wrong("which flow? Name its ends, or give filters that leave one");
    }
    arguments.gateway.ask(async |client: &Client| {
        let path = format!("/v1/flows{}&limit={SEVERAL}&candidates=true", parameters(&filter));
        let list = client.get(&path).await?;
        let shown = Flow::list(&list)?;
        if shown.is_empty() {
            fail("there is no such flow now: it has ended, or idled out, or never was");
            return Ok(ExitCode::from(NONE_FOUND));
        }
        if !for_people(arguments.json) {
            return Ok(print(&format!("{list:#}\n")));
        }
        Ok(print(&match &shown[..] {
            [only] => details(only),
            several => {
                let count = flows(several.len() as u64);
                let more = if list["next"].is_string() { " or more" } else { "" };
                format!(
                    "{}{count}{more} fit: name one of them\n",
                    listing(several, terminal_width())
                )
            }
        }))
    })
}

fn details(flow: &Flow) -> String {
    let mut lines = vec![flow.name()];
    let mut say = |name: &str, value: String| lines.push(format!("  {name:<14}{value}"));
    let of = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(", {name} {value}")).unwrap_or_default()
    };
    say(
        "endpoint",
        format!(
            "{} ({}){}{}",
            flow.endpoint,
            flow.endpoint_id,
            of("load balancer", &flow.load_balancer),
            of("zone", &flow.zone)
        ),
    );
    match &flow.target {
        Some(target) => {
            let now = if flow.bypassed {
                "none now: its packets bypass the appliances, and it is kept for "
            } else {
                ""
            };
            say("target", format!("{now}{target}{}", of("group", &flow.target_group)));
        }
        None => say("target", "none: its packets bypass the appliances".to_owned()),
    }
    if let Some(placed) = &flow.placed {
        let ago = about(placed.seconds_ago);
        say("placed", format!("{ago} ago ({}): {}", placed.cause, placed.meaning));
    }
    if let (Some(age), Some(idle)) = (flow.age_seconds, flow.idle_seconds) {
        say("age", format!("{}, idle for {}", duration(age), duration(idle)));
    }
    if let Some(state) = &flow.state {
        say("TCP state", state.clone());
    }
    let after = flow.idle_timeout_seconds.map(|timeout| {
        format!(": such flows are remembered for {} without a packet", duration(timeout))
    });
    let left = duration(flow.expires_in_seconds);
    say("forgotten", format!("in {left}{}", after.unwrap_or_default()));
    let went = |packets: Option<u64>, bytes: Option<u64>| {
        let (packets, bytes) = packets.zip(bytes)?;
        let [packets, bytes] = [packets, bytes].map(exact);
        Some(format!("{packets} packets, {bytes} bytes"))
    };
    if let Some(there) = went(flow.packets_to_destination, flow.bytes_to_destination) {
        say("sent", format!("{there}, by {}", flow.source));
    }
    if let Some(back) = went(flow.packets_to_source, flow.bytes_to_source) {
        say("sent", format!("{back}, by {}", flow.destination));
    }
    if !flow.initiator_known {
        say("began by", "unknown: its first packet was not seen".to_owned());
    }
    if let Some(cookie) = &flow.cookie {
        say("cookie", cookie.clone());
    }
    if let Some(port) = flow.outer_source_port {
        say("source port", format!("{port} (outer UDP)"));
    }
    say("worker", flow.worker.to_string());
    let mut text = super::lines(lines);
    if !flow.candidates.is_empty() {
        text += "\nWhom it would get if it began now: the smallest score.\n";
        let mut table = table(&["candidate", "weight", "score", ""], &["weight", "score"]);
        for candidate in &flow.candidates {
            table.add_row([
                candidate.target.clone(),
                candidate.weight.to_string(),
                format!("{:.6}", candidate.score),
                if candidate.current { "has it" } else { "" }.to_owned(),
            ]);
        }
        text += &table.to_string();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow() -> serde_json::Value {
        json!({
            "source": "2001:db8::7", "source_port": 4711,
            "destination": "fd00::11", "destination_port": 443,
            "protocol": "tcp", "initiator_known": true,
            "endpoint": "vpce-a", "endpoint_id": "0x0000000000000001",
            "load_balancer": "fw", "zone": "az1", "target_group": "fw",
            "target": "192.0.2.11:6081", "bypassed": false, "state": "established",
            "age_seconds": 300.0, "idle_seconds": 2.5, "idle_timeout_seconds": 350.0,
            "expires_in_seconds": 347.5,
            "packets_to_destination": 40, "bytes_to_destination": 5210,
            "packets_to_source": 61, "bytes_to_source": 80114,
            "cookie": "0x5a17c3d2", "outer_source_port": 61003, "worker": 1,
            "placed": { "cause": "new", "meaning": "the flow began", "seconds_ago": 300.0 },
            "candidates": [
                { "target": "192.0.2.12:6081", "weight": 100, "score": 0.01, "current": false },
                { "target": "192.0.2.11:6081", "weight": 100, "score": 0.02, "current": true },
            ],
        })
    }

    fn read(flow: &serde_json::Value) -> Flow {
        Flow::list(&json!({ "items": [flow] })).unwrap().remove(0)
    }

    #[test]
    fn all_that_is_known_is_told() {
        let flow = read(&flow());
        assert_eq!(flow.name(), "[2001:db8::7]:4711-[fd00::11]:443/tcp");
        assert!(
            flow.name().parse::<crate::dataplane::filter::Tuple>().is_ok(),
            "it is found by it"
        );
        let told = details(&flow);
        for line in [
            "endpoint      vpce-a (0x0000000000000001), load balancer fw, zone az1",
            "target        192.0.2.11:6081, group fw",
            "placed        5 min ago (new): the flow began",
            "age           5 min, idle for 2 s",
            "TCP state     established",
            "forgotten     in 5 min 47 s: such flows are remembered for 5 min 50 s without a packet",
            "sent          40 packets, 5,210 bytes, by 2001:db8::7",
            "sent          61 packets, 80,114 bytes, by fd00::11",
            "cookie        0x5a17c3d2",
            "source port   61003 (outer UDP)",
            "worker        1",
        ] {
            assert!(told.contains(line), "{line:?} in {told}");
        }
        let current = told.lines().find(|line| line.contains("has it")).unwrap();
        assert!(current.contains("192.0.2.11:6081") && current.contains("0.020000"), "{told}");
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let mut bare = flow();
        let nothing = [
            "source_port",
            "destination_port",
            "load_balancer",
            "zone",
            "target_group",
            "target",
            "state",
            "age_seconds",
            "idle_seconds",
            "idle_timeout_seconds",
            "cookie",
            "placed",
            "packets_to_destination",
            "bytes_to_destination",
            "packets_to_source",
            "bytes_to_source",
            "outer_source_port",
        ];
        for field in nothing {
            bare[field] = serde_json::Value::Null;
        }
        bare["protocol"] = json!("icmpv6");
        bare["initiator_known"] = json!(false);
        bare["bypassed"] = json!(true);
        let flow = read(&bare);
        let told = details(&flow);
        assert!(told.starts_with("2001:db8::7-fd00::11/icmpv6\n"), "{told}");
        assert!(told.contains("its packets bypass the appliances"), "{told}");
        assert!(told.contains("its first packet was not seen"), "{told}");
        assert!(!told.contains("null") && !told.contains("cookie"), "{told}");
        let row = listing(&[flow], None);
        assert!(row.contains(" bypass "), "{row}");
    }

    #[test]
    fn whom_a_flow_is_kept_for_is_not_said_to_inspect_it() {
        let mut kept = flow();
        kept["bypassed"] = json!(true);
        let flow = read(&kept);
        let told = details(&flow);
        let target = "  target        none now: its packets bypass the appliances, and it is kept for \
                      192.0.2.11:6081, group fw\n";
        assert!(told.contains(target), "{told}");
        let row = listing(&[flow], None);
        assert!(row.contains(" bypass (192.0.2.11:6081) "), "{row}");
    }
}
