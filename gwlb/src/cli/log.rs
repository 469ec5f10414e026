//! `gwlb log`: what a running gateway logs.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::json;

use super::client::{Client, GatewayArgs};
use super::{for_people, print};

/// Show or change what a running gateway logs.
///
/// A filter is a level (off, error, warn, info, debug, trace) for all of the program, followed by
/// levels for parts of it; without the first, those parts alone are logged. It holds until the next
/// change or the end; what holds from the start is in the environment of `gwlb run`: `GWLB_LOG`, or
/// else `RUST_LOG`.
///
/// Exit status: 0 done; 1 the gateway cannot be asked, or refuses; 2 the filter is wrong.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The new filter, such as `info,gwlb::control=debug`; absent: only show the present one.
    filter: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON; the default where stdout is no terminal.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &LogArgs) -> ExitCode {
    arguments.gateway.ask(async |client: &Client| {
        let log = match &arguments.filter {
            Some(filter) => {
                client.json(Method::PUT, "/v1/log", &json!({ "filter": filter })).await?
            }
            None => client.get("/v1/log").await?,
        };
        // Whatever somebody has set, a terminal is not told anything by it.
        let filter = log["filter"].as_str().unwrap_or_default().replace(char::is_control, " ");
        if let Some(note) = silent(&filter) {
            let _ = writeln!(io::stderr(), "{note}");
        }
        Ok(if for_people(arguments.json) {
            print(&format!("{filter}\n"))
        } else {
            print(&format!("{log:#}\n"))
        })
    })
}

/// Says so where a filter is of parts of the program alone, so that nothing else is logged.
fn silent(filter: &str) -> Option<String> {
    let of_all = |part: &str| !part.contains(['=', '[', ']', ':']) && part != "gwlb";
    let note = "note: nothing else is logged: begin with a level for the rest, as in info,";
    (!filter.split(',').any(of_all)).then(|| format!("{note}{filter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_silences_the_rest_is_told() {
        for filter in ["info", "off", "gwlb::nosuch=debug,info", "warn,gwlb"] {
            assert_eq!(silent(filter), None, "{filter}");
        }
        for filter in ["gwlb::nosuch=debug", "gwlb", "gwlb::control,[span]=trace"] {
            let note = silent(filter).unwrap();
            assert!(note.ends_with(&format!("as in info,{filter}")), "{note}");
        }
    }
}
