//! `gwlb diff`: what a reload would change.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use router::source::Source;
use serde_json::{Value, json};

use super::client::{AskError, Client, GatewayArgs};
use super::reload::{read, wrong};
use super::{FAILED, for_people, lines, print};
use crate::config::Change;

/// Show what a reload would change, and change nothing.
///
/// The file is compared with what is in force: a target that was registered, deregistered or changed
/// by command, and a bypass that was switched, is a difference, too, which a reload would undo.
///
/// Exit status: 0 no difference; 1 there are some, or the gateway cannot be asked, and then nothing is
/// printed; 2 the file is wrong.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The configuration file; absent: the one that the gateway was started from.
    file: Option<PathBuf>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &DiffArgs) -> ExitCode {
    let source = match arguments.file.as_deref().map(read).transpose() {
        Ok(source) => source,
        Err(problems) => return wrong(&problems),
    };
    arguments.gateway.ask(async |client: &Client| {
        let text = source.as_ref().map(Source::text);
        let changes = match client.post("/v1/reload?dry_run=true", text).await {
            Ok(mut report) => changes(report["changes"].take())?,
            // Some of them take a restart: they are differences all the same.
            Err(AskError::Refused(refusal)) if !refusal.changes.is_empty() => refusal.changes,
            Err(error) => return Err(error),
        };
        let printed = if for_people(arguments.json) {
            print(&if changes.is_empty() { "no difference\n".to_owned() } else { lines(&changes) })
        } else {
            print(&format!("{:#}\n", json!({ "changes": changes })))
        };
        Ok(if changes.is_empty() { printed } else { ExitCode::from(FAILED) })
    })
}

fn changes(list: Value) -> Result<Vec<Change>, AskError> {
    serde_json::from_value(list).map_err(|error| AskError::Other(format!("the changes: {error}")))
}
