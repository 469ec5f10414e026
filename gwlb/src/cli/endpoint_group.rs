//! `gwlb endpoint-group`: which zone's endpoint gets new flows; one file for each subcommand.

mod list;
mod switch;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::client::AskError;

/// Show and switch the groups of endpoints of a running gateway.
#[derive(Debug, Args)]
pub(super) struct EndpointGroupArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::ListArgs),
    Switch(switch::SwitchArgs),
}

pub(super) fn run(arguments: &EndpointGroupArgs) -> ExitCode {
    match &arguments.command {
        Command::List(arguments) => list::run(arguments),
        Command::Switch(arguments) => switch::run(arguments),
    }
}

/// A group, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    state: String,
    active: Option<String>,
    switched_to: Option<String>,
    returns_in_seconds: Option<f64>,
    members: Vec<Member>,
}

/// An endpoint in a group.
#[derive(Debug, Deserialize)]
struct Member {
    endpoint: String,
    zone: String,
    weight: u8,
    enabled: bool,
    health: Option<String>,
    gets_new_flows: bool,
}

impl Group {
    fn of(value: &Value) -> Result<Self, AskError> {
        Self::deserialize(value).map_err(|error| {
            AskError::Other(format!("the gateway's answer is not understood: {error}"))
        })
    }

    /// What is to be known of it besides its state.
    fn remarks(&self) -> String {
        let switched = self.switched_to.as_ref().map(|to| format!("switched to {to} by hand"));
        let returns =
            self.returns_in_seconds.map(|left| format!("returns in {:.0} s", left.ceil()));
        [switched, returns].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
