//! The `gwlb` command: arguments in, exit status out; one file for each subcommand.
//!
//! Exit status: 0 done, 1 the answer is no or something failed, 2 wrong usage or configuration,
//! 130 interrupted while waiting. What a gateway says no to, or does not answer, is told apart in
//! `client.rs` for all commands.
//! Errors go to stderr, data to stdout, and a closed pipe is a clean end.

mod bypass;
mod capture;
mod check;
mod client;
mod completions;
mod diff;
mod endpoint_group;
mod events;
mod explain;
mod flow;
mod flows;
mod log;
mod man;
mod ping;
mod reload;
mod run;
mod schema;
mod service;
mod shown;
mod status;
mod target;
mod top;
mod trace;
mod wait;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
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
Watch it:                                       gwlb top
See what it does, and take an appliance out:    gwlb status
                                                gwlb target deregister fw 192.0.2.11 --wait

Exit status: 0 done; 1 the answer is no, or something failed, as when the gateway cannot be
reached; 2 wrong usage or configuration, as a name that the gateway does not know.
GWLB_LOG, or else RUST_LOG, sets what is logged (error, warn, info, debug).";

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
    Top(top::TopArgs),
    Trace(trace::TraceArgs),
    Explain(explain::ExplainArgs),
    Ping(ping::PingArgs),
    Flows(flows::FlowsArgs),
    Flow(flow::FlowArgs),
    Events(events::EventsArgs),
    Log(log::LogArgs),
    Capture(capture::CaptureArgs),
    Schema(schema::SchemaArgs),
    Man(man::ManArgs),
    Completions(completions::CompletionsArgs),
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
        Command::Top(arguments) => top::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Ping(arguments) => ping::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments),
        Command::Flow(arguments) => flow::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Capture(arguments) => capture::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
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
    match say(text) {
        ControlFlow::Continue(()) => ExitCode::SUCCESS,
        ControlFlow::Break(ended) => ended,
    }
}

/// The same for what goes on, and with nobody who reads on it ends.
fn say(text: &str) -> ControlFlow<ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            ControlFlow::Break(ExitCode::SUCCESS)
        }
        Err(error) => ControlFlow::Break(fail(&format!("cannot write to stdout: {error}"))),
    }
}

/// Says on stderr what failed.
pub(crate) fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "gwlb: {message}");
    ExitCode::from(FAILED)
}
