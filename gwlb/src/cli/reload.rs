//! `gwlb reload`: a running gateway takes up another configuration.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use router::source::{Look, Problems, Source};
use serde::Deserialize;

use super::client::{AskError, Client, GatewayArgs};
use super::{WRONG_USE, for_people, print};
use crate::config;
use crate::runtime::ReloadReport;

/// Have a running gateway read its configuration again, and show what has changed.
///
/// The file is checked whole, and a wrong one changes nothing. No packet is lost, and no flow moves
/// that need not. SIGHUP to `gwlb run` does the same.
///
/// Exit status: 0 done, even if nothing has changed; 1 the gateway refuses, as for what takes a
/// restart, or cannot be asked; 2 the file is wrong.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// Another file, in place of the one that the gateway was started from.
    #[arg(long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ReloadArgs) -> ExitCode {
    let source = match arguments.file.as_deref().map(read).transpose() {
        Ok(source) => source,
        Err(problems) => return wrong(&problems),
    };
    arguments.gateway.ask(async |client: &Client| {
        let report = client.post("/v1/reload", source.as_ref().map(Source::text)).await?;
        if !for_people(arguments.json) {
            return Ok(print(&format!("{report:#}\n")));
        }
        let report = ReloadReport::deserialize(&report)
            .map_err(|error| AskError::Other(format!("the report: {error}")))?;
        Ok(print(&text(&report)))
    })
}

/// Reads a file and checks it here, where it can be shown line by line.
pub(super) fn read(file: &Path) -> Result<Source, Box<Problems>> {
    let source = Source::read(file)?;
    config::parse(&source)?;
    Ok(source)
}

/// Says what is wrong with a file.
pub(super) fn wrong(problems: &Problems) -> ExitCode {
    let _ = io::stderr().write_all(problems.render(Look::of_stderr()).as_bytes());
    ExitCode::from(WRONG_USE)
}

fn text(report: &ReloadReport) -> String {
    let mut lines: Vec<_> = report.changes.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n") + "\n"
}
