//! The `nva-sample` command.
//!
//! Exit status: 0 done, 1 the appliance could not run, 2 wrong usage or configuration. Errors and
//! the log go to stderr, data to stdout.

mod args;
mod run;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use self::run::Failure;

/// Runs the command with its arguments, of which the first is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure. A closed pipe is a clean end.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    start_log();
    let result = match &cli.command {
        Command::Passthrough(args) => run::passthrough(args),
        Command::Firewall(args) => run::firewall(args),
        Command::Ids(args) => run::ids(args),
        Command::Mirror(args) => run::mirror(args),
        #[cfg(feature = "handoff")]
        Command::Handoff(args) => run::handoff(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The exit status says it, too.
            let _ = writeln!(io::stderr(), "{failure:?}");
            match failure {
                Failure::Run(_) => ExitCode::from(1),
                Failure::Usage(_) => ExitCode::from(2),
            }
        }
    }
}

/// Writes what happens to stderr; `RUST_LOG` says how much.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Whoever calls this as a library may have a log already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would tell on stderr that stderr cannot be written to, and panic at that.
        .log_internal_errors(false)
        .try_init();
}
