//! `gwlb schema`: the JSON schema of the configuration file.

use std::process::ExitCode;

use clap::Args;

use crate::config;

/// Print the JSON schema of the configuration file.
///
/// Editors complete and check a file with it: save it, and put `#:schema ./gwlb.schema.json` on the
/// first line of the configuration. It knows every key with its type, default and widest range;
/// what tables say of each other is what `gwlb check` looks at.
#[derive(Debug, Args)]
pub(super) struct SchemaArgs {}

pub(super) fn run(_arguments: &SchemaArgs) -> ExitCode {
    super::print(&format!("{:#}\n", config::schema().as_value()))
}
