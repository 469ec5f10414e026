//! `gwlb target register`: a target joins its group, or changes zone or weight.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::Which;
use crate::cli::client::{AskError, Client, GatewayArgs};
use crate::cli::shown::Target;
use crate::cli::wait::{POLL, interruptible};
use crate::cli::{INTERRUPTED, fail, for_people, print};
use crate::runtime::clock;

/// Register a target, or change zone or weight of one that is registered. One that drains is
/// restored with the flows that it has.
///
/// Exit status: 0 done, with --wait: and healthy; 1 not, or the gateway cannot be asked; 2 it is asked
/// for something wrong; 130 interrupted while waiting.
#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    #[command(flatten)]
    which: Which,
    /// The zone that it stands in; absent: as before, or the only one that there is.
    #[arg(long)]
    zone: Option<String>,
    /// Its share of new flows, 0 to 1000; absent: as before, or 100.
    #[arg(long, allow_negative_numbers = true)]
    weight: Option<i64>,
    /// Wait until it is healthy.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = 60)]
    timeout: u32,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &RegisterArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let mut wanted = Map::new();
        wanted.extend(arguments.zone.clone().map(|zone| ("zone".to_owned(), zone.into())));
        wanted.extend(arguments.weight.map(|weight| ("weight".to_owned(), weight.into())));
        let path = arguments.which.path();
        let mut status = client.json(Method::PUT, &path, &wanted.into()).await?;
        let mut done = ExitCode::SUCCESS;
        if arguments.wait {
            let ended = interruptible(healthy(client, &path, arguments.timeout)).await;
            let Ok(healthy) = ended else {
                fail("interrupted; the target stays registered");
                return Ok(ExitCode::from(INTERRUPTED));
            };
            status = healthy?;
            let target = Target::of(&status)?;
            if !takes_flows(&target) {
                done = fail(&why_not(&target, arguments.timeout));
            }
        }
        let printed = if for_people(arguments.json) {
            let target = Target::of(&status)?;
            print(&format!(
                "{}: {} is registered in {} with weight {}: {}\n",
                target.target_group,
                target.address,
                target.zone,
                target.weight,
                target.standing(),
            ))
        } else {
            print(&format!("{status:#}\n"))
        };
        Ok(if done == ExitCode::SUCCESS { printed } else { done })
    })
}

/// Waits until a target takes flows, or for so long, or until there is nothing to wait for.
async fn healthy(client: &Client, path: &str, seconds: u32) -> Result<Value, AskError> {
    let deadline = clock::now() + Duration::from_secs(seconds.into());
    let progress = ProgressBar::new_spinner();
    loop {
        let status = match client.get(path).await {
            Err(AskError::Refused(refusal)) if refusal.status == 404 => {
                // It was right to ask for it.
                let detail = "somebody has deregistered the target meanwhile, and it is gone";
                return Err(AskError::Other(detail.to_owned()));
            }
            answer => answer?,
        };
        let target = Target::of(&status)?;
        let hopeless = ["unused", "draining"].contains(&target.state.as_str());
        if takes_flows(&target) || hopeless || clock::now() >= deadline {
            progress.finish_and_clear();
            return Ok(status);
        }
        progress.set_message(format!("{}: {}", target.address, target.standing()));
        progress.tick();
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a target counts as healthy.
fn takes_flows(target: &Target) -> bool {
    target.state == "healthy" || target.reason.as_deref() == Some("Target.HealthCheckDisabled")
}

fn why_not(target: &Target, seconds: u32) -> String {
    let mut why = format!("{} is {} after {seconds} s", target.address, target.standing());
    if ["unused", "draining"].contains(&target.state.as_str()) {
        why = format!("{} is {}", target.address, target.standing());
    }
    if let Some(description) = &target.description {
        why += ": ";
        why += description;
    }
    why
}
