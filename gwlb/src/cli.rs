//! The `gwlb` command: arguments in, exit status out; one file for each subcommand.
//!
//! Exit status: 0 done, 1 the answer is no or something failed, 2 wrong usage or configuration,
//! 130 interrupted while waiting.
//! Errors go to stderr, data to stdout, and a closed pipe is a clean end.

mod bypass;
mod check;
mod client;
mod diff;
mod endpoint_group;
mod reload;
mod run;
mod schema;
mod shown;
mod status;
mod target;
mod trace;
mod wait;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Something failed, or the answer is no.
pub(crate) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(crate) const WRONG_USE: u8 = 2;
/// Ctrl-C, as shells count it: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// The open gateway load balancer: steers IP traffic, by route tables, through a fleet of
/// firewalls and other network appliances over Geneve, and back.
#[derive(Debug, Parser)]
#[command(name = "gwlb", version, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
See it work, on this machine and in a minute:   gwlb demo
Look over a configuration before it runs:       gwlb check gateway.toml
Then run it, until Ctrl-C:                      gwlb run gateway.toml
See what it does, and take an appliance out:    gwlb status
                                                gwlb target deregister fw 192.0.2.11 --wait

Exit status: 0 done; 1 something failed, or a check found something; 2 wrong usage or
configuration. GWLB_LOG sets what is logged (error, warn, info, debug).";

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Run(run::RunArgs),
    Reload(reload::ReloadArgs),
    Diff(diff::DiffArgs),
    Status(status::StatusArgs),
    Target(target::TargetArgs),
    Bypass(bypass::BypassArgs),
    EndpointGroup(endpoint_group::EndpointGroupArgs),
    Trace(trace::TraceArgs),
    Schema(schema::SchemaArgs),
    #[cfg(feature = "lab")]
    Demo(crate::lab::DemoArgs),
    #[cfg(feature = "lab")]
    Bench(crate::bench::BenchArgs),
    /// One of the lab's appliances; `gwlb demo` starts these.
    #[cfg(feature = "lab")]
    #[command(hide = true, disable_help_flag = true)]
    Appliance {
        /// What the nva-sample command takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs the command that `arguments` name, the program's own name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, on stdout; the rest is wrong usage.
            let code = if error.use_stderr() { WRONG_USE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match arguments.command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Target(arguments) => target::run(&arguments),
        Command::Bypass(arguments) => bypass::run(&arguments),
        Command::EndpointGroup(arguments) => endpoint_group::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        #[cfg(feature = "lab")]
        Command::Demo(arguments) => crate::lab::run(&arguments),
        #[cfg(feature = "lab")]
        Command::Bench(arguments) => crate::bench::run(&arguments),
        #[cfg(feature = "lab")]
        Command::Appliance { arguments } => {
            nva_sample::cli::main(std::iter::once("gwlb appliance".into()).chain(arguments))
        }
    }
}

/// Lines of text, each with its end.
fn lines<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for line in lines {
        text += &line.to_string();
        text.push('\n');
    }
    text
}

/// Whether a person reads the answer, not a program.
fn for_people(json: bool) -> bool {
    !json && io::stdout().is_terminal()
}

/// Writes data to stdout. A reader that went away has seen enough: that is no failure.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("cannot write to stdout: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says on stderr what failed.
pub(crate) fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "gwlb: {message}");
    ExitCode::from(FAILED)
}

/// Logs to stderr, as `GWLB_LOG` says.
pub(crate) fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("GWLB_LOG")
        .from_env_lossy();
    // A second call, as in tests, finds a subscriber in place and leaves it there.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // Of a line that cannot be written it would tell on stderr, which is where it could not be
        // written: on a full disk, that is a panic in whichever thread had something to say.
        .log_internal_errors(false)
        .try_init();
}
