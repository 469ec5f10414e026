//! `gwlb top`: a screen that an operator leaves open.
//!
//! What is seen is made in steps, each without the others: [`answers`] is what the gateway says,
//! [`model`] makes rates and rows of it, [`view`] is how somebody wants to look at these, [`keys`]
//! says what a key changes, and [`screen`] draws. [`run`] alone touches sockets, clocks and the
//! terminal.

mod answers;
pub(super) mod figures;
mod keys;
mod model;
mod run;
mod screen;
mod view;

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::WRONG_USE;
use super::client::{Client, GatewayArgs};

/// How often the gateway may be asked, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.2..=60.0;

/// Watch a running gateway: its traffic, targets, endpoints, drops and events, on a screen that
/// renews itself. A target can be drained from there, after a question.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// How often to ask the gateway, 0.2 to 60 seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Do without colours, as with `NO_COLOR` in the environment.
    #[arg(long)]
    no_color: bool,
}

pub(super) fn run(arguments: &TopArgs) -> ExitCode {
    if !io::stdout().is_terminal() {
        return wrong(
            "top is a screen, and stdout is no terminal; programs get the same numbers from \
             `gwlb status --json`",
        );
    }
    if std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb") {
        return wrong(
            "top needs a terminal that can be written to anywhere, and this one cannot \
             (TERM=dumb); `gwlb status` prints the same numbers",
        );
    }
    // Set and not empty, as https://no-color.org has it.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| value != OsStr::new(""));
    let colour = !arguments.no_color && !unwanted;
    arguments
        .gateway
        .ask(async |client: &Client| run::run(client, arguments.interval, colour).await)
}

fn wrong(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "gwlb: {message}");
    ExitCode::from(WRONG_USE)
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| INTERVALS.contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        let (least, most) = (INTERVALS.start(), INTERVALS.end());
        format!("the interval is {least} to {most} seconds")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_their_limits() {
        for (text, seconds) in [("0.2", 0.2), ("1", 1.0), ("60", 60.0)] {
            assert_eq!(interval(text), Ok(Duration::from_secs_f64(seconds)));
        }
        for text in ["0.1", "0", "-1", "61", "1e300", "NaN", "inf", "1s", ""] {
            let error = interval(text).unwrap_err();
            assert_eq!(error, "the interval is 0.2 to 60 seconds", "{text}");
        }
    }
}
