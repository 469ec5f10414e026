//! `gwlb ping`: packets of the gateway's own through appliances and back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{AskError, Client, GatewayArgs};
use super::{FAILED, INTERRUPTED, print, say};

/// Send marked packets through an endpoint to its appliances and back, and time each way.
///
/// They go as all packets do, over the gateway's own sockets and with Geneve, and take no health
/// check: an appliance that does not return them does not carry packets of hosts either, unless its
/// rules treat UDP port 61081 otherwise.
///
/// Exit status: 0 some came back from every target; 1 none did from one of them, or the gateway cannot
/// be asked; 2 it is asked for something wrong; 130 interrupted.
#[derive(Debug, Args)]
pub(super) struct PingArgs {
    /// The endpoint that the packets seem to come through.
    endpoint: String,
    /// One target alone; without it, every target of the endpoint's node.
    #[arg(long, value_name = "ADDRESS")]
    target: Option<IpAddr>,
    /// How many packets to each.
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// From the start of one to the start of the next, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    interval: u64,
    /// The length of the packet inside; without it, it is as short as can be.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(..=65_000))]
    size: Option<u16>,
    /// How long one may take to come back, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    timeout: u64,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, one object when all is over.
    #[arg(long)]
    json: bool,
}

/// What the gateway says of one packet.
#[derive(Debug, Deserialize)]
struct Ping {
    target: String,
    size: u16,
    outcome: String,
    error: Option<String>,
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API names the fields")]
struct Times {
    kernel_us: f64,
    returned_us: f64,
    verified_us: f64,
}

/// What became of all packets to a target.
#[derive(Debug, Default)]
struct Summary {
    sent: u32,
    /// Round trips in microseconds.
    returned: Vec<f64>,
}

impl Summary {
    fn add(&mut self, ping: &Ping) {
        self.sent += 1;
        self.returned.extend(ping.times.map(|times| times.returned_us));
    }

    fn loss(&self) -> f64 {
        100.0 * (1.0 - self.returned.len() as f64 / f64::from(self.sent.max(1)))
    }

    /// The shortest, the mean, and the longest round trip.
    fn times(&self) -> Option<[f64; 3]> {
        let first = *self.returned.first()?;
        let (min, max) =
            self.returned.iter().fold((first, first), |(min, max), it| (it.min(min), it.max(max)));
        let sum: f64 = self.returned.iter().sum();
        Some([min, sum / self.returned.len() as f64, max])
    }

    /// As ping(8) has it.
    fn text(&self, target: &str) -> String {
        let (sent, returned, loss) = (self.sent, self.returned.len(), self.loss());
        let packets = if sent == 1 { "packet" } else { "packets" };
        let mut text =
            format!("--- {target}: {sent} {packets} sent, {returned} returned, {loss:.0}% lost\n");
        if let Some(times) = self.times() {
            let [min, mean, max] = times.map(|it| it / 1000.0);
            let _ = writeln!(text, "round trip min/avg/max = {min:.3}/{mean:.3}/{max:.3} ms");
        }
        text
    }

    fn json(&self, target: &str) -> Value {
        let thousandths = |number: f64| (number * 1000.0).round() / 1000.0;
        let times = self.times().map(|times| times.map(thousandths));
        let [min, mean, max] = times.map_or([None; 3], |times| times.map(Some));
        json!({
            "target": target,
            "sent": self.sent,
            "returned": self.returned.len(),
            "loss_percent": thousandths(self.loss()),
            "min_us": min,
            "avg_us": mean,
            "max_us": max,
        })
    }
}

pub(super) fn run(arguments: &PingArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let request = json!({
            "endpoint": arguments.endpoint,
            "target": arguments.target,
            "size": arguments.size,
            "timeout_ms": arguments.timeout,
        });
        let mut pause = tokio::time::interval(Duration::from_millis(arguments.interval));
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut all: BTreeMap<String, Summary> = BTreeMap::new();
        let (mut rounds, mut interrupted) = (Vec::new(), false);
        for number in 1..=arguments.count {
            let round = async {
                pause.tick().await;
                client.json(Method::POST, "/v1/ping", &request).await
            };
            let answer = tokio::select! {
                answer = round => answer?,
                _ = tokio::signal::ctrl_c() => {
                    interrupted = true;
                    break;
                }
            };
            let pings: Vec<Ping> = Vec::deserialize(&answer["pings"])
                .map_err(|error| AskError::Other(format!("the gateway's answer: {error}")))?;
            for ping in &pings {
                all.entry(ping.target.clone()).or_default().add(ping);
            }
            if arguments.json {
                rounds.push(answer["pings"].clone());
            } else if let ControlFlow::Break(ended) = say(&lines(number, &pings)) {
                return Ok(ended);
            }
        }
        let printed = if arguments.json {
            let targets: Vec<_> = all.iter().map(|(target, it)| it.json(target)).collect();
            let answer =
                json!({ "endpoint": arguments.endpoint, "targets": targets, "rounds": rounds });
            print(&format!("{answer:#}\n"))
        } else {
            let texts: Vec<_> = all.iter().map(|(target, it)| it.text(target)).collect();
            print(&format!("\n{}", texts.join("")))
        };
        let silent = all.values().any(|it| it.returned.is_empty());
        Ok(match (interrupted, silent) {
            (true, _) => ExitCode::from(INTERRUPTED),
            (_, true) => ExitCode::from(FAILED),
            _ => printed,
        })
    })
}

/// A line for each packet of a round.
fn lines(number: u32, pings: &[Ping]) -> String {
    let mut text = String::new();
    for Ping { target, size, outcome, error, times } in pings {
        let _ = match (times, error) {
            (Some(times), _) => {
                let ms = |us: f64| us / 1000.0;
                writeln!(
                    text,
                    "{size} bytes from {target}: seq={number} time={:.3} ms (kernel {:.3}, \
                     returned {:.3}, verified {:.3})",
                    ms(times.returned_us),
                    ms(times.kernel_us),
                    ms(times.returned_us),
                    ms(times.verified_us),
                )
            }
            (None, Some(error)) => writeln!(text, "{target}: seq={number} {outcome}: {error}"),
            (None, None) => {
                writeln!(
                    text,
                    "{size} bytes to {target}: seq={number} {}",
                    outcome.replace('_', " ")
                )
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(returned_us: Option<f64>) -> Ping {
        let times = |returned_us| Times { kernel_us: 5.0, returned_us, verified_us: 900.0 };
        Ping {
            target: "192.0.2.11:6081".to_owned(),
            size: 52,
            outcome: if returned_us.is_some() { "returned" } else { "lost" }.to_owned(),
            error: None,
            times: returned_us.map(times),
        }
    }

    #[test]
    fn what_came_back_is_summed_up() {
        let mut summary = Summary::default();
        assert_eq!(summary.times(), None);
        for returned in [Some(300.0), None, Some(100.0), Some(200.0)] {
            summary.add(&ping(returned));
        }
        assert_eq!(
            summary.text("192.0.2.11:6081"),
            "--- 192.0.2.11:6081: 4 packets sent, 3 returned, 25% lost\n\
             round trip min/avg/max = 0.100/0.200/0.300 ms\n"
        );
        assert_eq!(summary.json("x")["avg_us"], 200.0);
    }

    #[test]
    fn figures_are_no_more_exact_than_they_are() {
        let mut summary = Summary::default();
        for returned in [Some(70.551_999_999_999_99), None, Some(70.552)] {
            summary.add(&ping(returned));
        }
        let json = summary.json("x");
        assert_eq!((&json["avg_us"], &json["loss_percent"]), (&json!(70.552), &json!(33.333)));
        let mut one = Summary::default();
        one.add(&ping(None));
        assert_eq!(one.text("x"), "--- x: 1 packet sent, 0 returned, 100% lost\n");
    }

    #[test]
    fn every_packet_has_a_line() {
        let shown = lines(7, &[ping(Some(812.0)), ping(None)]);
        assert_eq!(
            shown,
            "52 bytes from 192.0.2.11:6081: seq=7 time=0.812 ms (kernel 0.005, returned 0.812, \
             verified 0.900)\n52 bytes to 192.0.2.11:6081: seq=7 lost\n"
        );
    }
}
