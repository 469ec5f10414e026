//! `gwlb target deregister`: a target leaves its group, and its flows may end first.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::Which;
use crate::cli::client::{AskError, Client, GatewayArgs};
use crate::cli::shown::{Draining, Target, flows};
use crate::cli::wait::{Interrupted, POLL, interruptible};
use crate::cli::{INTERRUPTED, fail, for_people, print};

/// Deregister a target: it gets no new flows, and those that it has stay until they end, or until
/// the group's deregistration delay is over.
///
/// Exit status: 0 done, with --wait: and drained; 1 not, or the gateway cannot be asked; 2 there is no
/// such target; 130 interrupted while waiting.
#[derive(Debug, Args)]
pub(super) struct DeregisterArgs {
    #[command(flatten)]
    which: Which,
    /// Wait until it is drained, and show how far it is.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON, with --wait one line per change; without --wait the default where stdout is no
    /// terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DeregisterArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let path = arguments.which.path();
        let status = client.delete(&path).await?;
        let target = Target::of(&status)?;
        if arguments.wait {
            let drain = drained(client, &path, status, arguments.json);
            let ended = interruptible(drain).await;
            return ended.unwrap_or_else(|Interrupted| {
                fail(&format!(
                    "interrupted; the drain of {} goes on (`gwlb target list` shows it)",
                    target.address
                ));
                Ok(ExitCode::from(INTERRUPTED))
            });
        }
        if !for_people(arguments.json) {
            return Ok(print(&format!("{status:#}\n")));
        }
        let rest = match target.draining {
            Some(draining) => format!("draining, {draining}"),
            None => target.standing(),
        };
        Ok(print(&format!("{}: {} is {rest}\n", target.target_group, target.address)))
    })
}

/// Shows the drain until it is over.
async fn drained(
    client: &Client,
    path: &str,
    first: Value,
    json: bool,
) -> Result<ExitCode, AskError> {
    let mut show = Show::new(&Target::of(&first)?, json);
    let mut status = Some(first);
    loop {
        let target = status.as_ref().map(Target::of).transpose()?;
        match (&status, &target) {
            (Some(status), Some(target)) => show.change(status, target),
            // Its slot is free already.
            _ => return Ok(show.end("it is gone")),
        }
        match target.as_ref().map(|target| target.state.as_str()) {
            Some("draining") => {}
            Some("unused") => {
                let left = target.map_or(0, |target| target.active_flows);
                return Ok(match left {
                    0 => show.end("it is drained: its last flow has ended"),
                    left => show.end(&format!("the delay is over; {} left", flows(left))),
                });
            }
            _ => {
                show.end("it is registered again");
                return Ok(fail("the drain was given up: the target is registered again"));
            }
        }
        tokio::time::sleep(POLL).await;
        status = match client.get(path).await {
            Ok(status) => Some(status),
            Err(AskError::Refused(refusal)) if refusal.status == 404 => None,
            Err(error) => return Err(error),
        };
    }
}

/// How a drain is shown.
enum Show {
    Bar(ProgressBar),
    /// Lines; what the last one said.
    Lines(Option<(String, u64)>),
    Json(Option<(String, u64)>),
}

impl Show {
    fn new(target: &Target, json: bool) -> Self {
        if json {
            return Self::Json(None);
        }
        if !io::stdout().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::new(target.active_flows);
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}");
        // The template is a constant; without it there is the usual bar.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(target.address.clone());
        Self::Bar(bar)
    }

    fn change(&mut self, status: &Value, target: &Target) {
        let now = (target.state.clone(), target.active_flows);
        match self {
            Self::Bar(bar) => {
                let Some(Draining { flows_left, seconds_left }) = target.draining else { return };
                // Flows that had begun are counted late.
                let most = bar.length().unwrap_or(0).max(flows_left);
                bar.set_length(most);
                bar.set_position(most - flows_left);
                bar.set_message(format!(
                    "{flows_left} of {} left, {:.0} s left",
                    flows(most),
                    seconds_left.ceil()
                ));
            }
            Self::Lines(last) if last.as_ref() != Some(&now) => {
                *last = Some(now);
                if let Some(draining) = target.draining {
                    print(&format!("{}: {draining}\n", target.address));
                }
            }
            Self::Json(last) if last.as_ref() != Some(&now) => {
                *last = Some(now);
                print(&format!("{status}\n"));
            }
            Self::Lines(_) | Self::Json(_) => {}
        }
    }

    fn end(&self, how: &str) -> ExitCode {
        match self {
            Self::Bar(bar) => {
                bar.finish_and_clear();
                print(&format!("{}: {how}\n", bar.prefix()))
            }
            Self::Lines(_) => print(&format!("{how}\n")),
            Self::Json(_) => ExitCode::SUCCESS,
        }
    }
}
