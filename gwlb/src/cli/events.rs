//! `gwlb events`: what has happened with a gateway, and what happens.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::client::{AskError, Client, GatewayArgs};
use super::{fail, for_people, lines, print, say};

/// Show what has happened with a running gateway: targets that changed their state, drains,
/// failovers, reloads, floods.
///
/// The gateway keeps the last 1024 events. With --follow those that come are shown, too, until
/// Ctrl-C or until the gateway ends; where some are missing, a line says how many.
///
/// Exit status: 0 done, with --follow: and the gateway has ended; 1 it cannot be asked.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on with those that come.
    #[arg(long, short)]
    follow: bool,
    /// Only events after the one of this number (`id` in JSON); if that was one of an earlier run of
    /// the gateway, all of this run.
    #[arg(long, value_name = "ID")]
    since: Option<u64>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, with --follow one object in each line; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

/// An event, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Shown {
    id: u64,
    time: String,
    severity: String,
    text: String,
}

pub(super) fn run(arguments: &EventsArgs) -> ExitCode {
    let since = arguments.since.map(|since| format!("since={since}")).unwrap_or_default();
    let people = for_people(arguments.json);
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    arguments.gateway.ask(async |client: &Client| {
        if arguments.follow {
            let take = |line: &str| {
                let shown = if people { of_line(line, colours) } else { Ok(line.to_owned()) };
                match shown {
                    Ok(shown) => say(&(shown + "\n")),
                    Err(error) => ControlFlow::Break(fail(&error.to_string())),
                }
            };
            return client.follow(&format!("/v1/events?{since}"), take).await;
        }
        let list = client.get(&format!("/v1/events?follow=false&{since}")).await?;
        if !people {
            return Ok(print(&format!("{list:#}\n")));
        }
        let events = list["items"].as_array().into_iter().flatten();
        let shown: Vec<_> = events
            .map(|event| Shown::of(event).map(|it| it.line(colours)))
            .collect::<Result<_, _>>()?;
        Ok(print(&lines(shown)))
    })
}

fn of_line(line: &str, colours: bool) -> Result<String, AskError> {
    let event: Value = serde_json::from_str(line)
        .map_err(|error| AskError::Other(format!("an event: {error}")))?;
    Ok(Shown::of(&event)?.line(colours))
}

impl Shown {
    fn of(event: &Value) -> Result<Self, AskError> {
        Self::deserialize(event).map_err(|error| AskError::Other(format!("an event: {error}")))
    }

    /// Number, time in UTC, severity, and what has happened.
    fn line(&self, colours: bool) -> String {
        let (day, time) = self.time.split_once('T').unwrap_or((&self.time, ""));
        let grave = self.severity == "warning";
        let (on, off) = if grave && colours { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        // Whatever a name may hold, a terminal is not told anything by it.
        let text = self.text.replace(char::is_control, " ");
        format!("{:>5}  {day} {time}  {on}{:7}  {text}{off}", self.id, self.severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let shown = |severity: &str, colours| {
            let event = serde_json::json!({
                "id": 7, "time": "2026-11-22T07:30:00.123Z", "severity": severity,
                "text": "fw: \u{1b}[2Jgone", "event": "whatever",
            });
            of_line(&event.to_string(), colours).unwrap()
        };
        assert_eq!(shown("info", true), "    7  2026-11-22 07:30:00.123Z  info     fw:  [2Jgone");
        assert_eq!(
            shown("warning", false),
            "    7  2026-11-22 07:30:00.123Z  warning  fw:  [2Jgone"
        );
        let warning = shown("warning", true);
        assert_eq!(
            warning,
            "    7  2026-11-22 07:30:00.123Z  \x1b[33mwarning  fw:  [2Jgone\x1b[0m"
        );
        assert!(of_line("{}", false).is_err());
    }
}
