//! `gwlb explain --drops`: what was dropped lately, why, and what to do about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Deserialize;

use crate::cli::client::{AskError, Client, GatewayArgs};
use crate::cli::shown::age;
use crate::cli::{for_people, lines, print};

/// The drops of the last `seconds`.
pub(super) fn run(gateway: &GatewayArgs, seconds: u64, json: bool) -> ExitCode {
    gateway.ask(async |client: &Client| {
        let drops = client.get(&format!("/v1/drops?seconds={seconds}")).await?;
        if !for_people(json) {
            return Ok(print(&format!("{drops:#}\n")));
        }
        let drops = Drops::deserialize(&drops)
            .map_err(|error| AskError::Other(format!("the gateway's answer: {error}")))?;
        Ok(print(&drops.text()))
    })
}

/// What is shown of the answer.
#[derive(Debug, Deserialize)]
struct Drops {
    seconds: f64,
    reasons: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the API names the fields")]
struct Reason {
    reason: String,
    count: u64,
    total: u64,
    help: String,
    advice: String,
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    unix_seconds: f64,
    worker: u16,
    origin: Option<String>,
    peer: Option<String>,
    side: String,
    flow: Option<String>,
    endpoint: Option<String>,
    length: usize,
}

impl Drops {
    fn text(&self) -> String {
        let seconds = self.seconds.round();
        let count: u64 = self.reasons.iter().map(|reason| reason.count).sum();
        let mut text = match count {
            0 => format!("Nothing was dropped in the last {seconds} s.\n"),
            1 => format!("1 packet was dropped in the last {seconds} s.\n"),
            count => format!("{count} packets were dropped in the last {seconds} s.\n"),
        };
        let (lately, before): (Vec<_>, Vec<_>) =
            self.reasons.iter().partition(|reason| reason.count > 0);
        for reason in lately {
            text += "\n";
            text += &reason.text();
        }
        if !before.is_empty() {
            let before: Vec<_> =
                before.iter().map(|it| format!("{} ({})", it.reason, it.total)).collect();
            // A string takes anything.
            let _ =
                writeln!(text, "\nBefore that, since the gateway started: {}.", before.join(", "));
        }
        text
    }
}

impl Reason {
    fn text(&self) -> String {
        let Self { reason, count, total, help, advice, .. } = self;
        let title = format!("{reason}: {count} ({total} since the gateway started)");
        let advice = Some(advice).filter(|advice| *advice != help).map(|it| format!("  {it}"));
        let example = self.examples.first();
        let example = example.map(|example| format!("  For example, {}", example.text()));
        lines([Some(title), Some(format!("  {help}")), advice, example].into_iter().flatten())
    }
}

impl Example {
    fn text(&self) -> String {
        let flow = self.flow.as_deref().unwrap_or("no packet that can be read");
        let place = match (&self.origin, &self.peer) {
            (Some(origin), _) => format!("at {origin}"),
            (None, Some(peer)) if self.side == "udp" => format!("with the appliance {peer}"),
            (None, Some(peer)) => format!("on the way to {peer}"),
            (None, None) => "in a place that is gone".to_owned(),
        };
        let endpoint = self.endpoint.as_ref().map(|it| format!(", endpoint {it}"));
        let Self { length, worker, .. } = self;
        format!(
            "{}: {flow}, {length} bytes, {place}{} (worker {worker})",
            age(self.unix_seconds),
            endpoint.unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(answer: serde_json::Value) -> String {
        Drops::deserialize(answer).unwrap().text()
    }

    #[test]
    fn each_reason_is_told_with_what_to_do() {
        let example = json!({
            "unix_seconds": crate::runtime::clock::wall_clock().as_secs_f64() - 3.2, "worker": 1,
            "side": "tun", "origin": "subnet:app-a", "peer": null,
            "flow": "udp 10.0.1.11:5 > 10.9.0.1:53", "endpoint": null, "cookie": null,
            "segments": 1, "length": 60, "head": "45", "since": 2,
        });
        let reason = |name: &str, count: u64, examples: serde_json::Value| {
            json!({ "reason": name, "count": count, "total": 7, "help": "It means this.",
                    "advice": "Do that.", "examples": examples })
        };
        let shown = text(json!({ "seconds": 60.2, "reasons": [
            reason("no_route", 2, json!([example])),
            reason("bad_cookie", 0, json!([])),
        ] }));
        let expected = "2 packets were dropped in the last 60 s.\n\n\
            no_route: 2 (7 since the gateway started)\n  It means this.\n  Do that.\n  \
            For example, 3 s ago: udp 10.0.1.11:5 > 10.9.0.1:53, 60 bytes, at subnet:app-a \
            (worker 1)\n\n\
            Before that, since the gateway started: bad_cookie (7).\n";
        assert_eq!(shown, expected);
        let none = text(json!({ "seconds": 4.9, "reasons": [] }));
        assert_eq!(none, "Nothing was dropped in the last 5 s.\n");
    }

    #[test]
    fn the_document_shows_what_is_told() {
        use crate::dataplane::verdict::DropReason;

        let reason = DropReason::NoRoute;
        let example = json!({
            "unix_seconds": crate::runtime::clock::wall_clock().as_secs_f64() - 3.2, "worker": 0,
            "side": "tun", "origin": "subnet:app-a", "peer": null,
            "flow": "udp 10.0.1.11:5 > 10.9.0.1:53", "endpoint": null, "length": 60,
        });
        let shown = text(json!({ "seconds": 60.0, "reasons": [{
            "reason": reason.name(), "count": 12, "total": 12, "help": reason.help(),
            "advice": reason.advice(), "examples": [example],
        }, {
            "reason": "no_subnet", "count": 0, "total": 6, "help": "", "advice": "", "examples": [],
        }] }));
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
        let document = std::fs::read_to_string(document).unwrap();
        let sample = format!("# gwlb explain --drops\n{shown}```\n");
        assert!(document.contains(&sample), "it is to show this:\n{sample}");
    }
}
