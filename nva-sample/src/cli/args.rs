//! The arguments of the command, with help texts that teach.

use std::net::SocketAddr;
use std::num::ParseFloatError;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::passthrough::Fault;

/// Sample appliances for a gateway load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "nva-sample",
    version,
    about,
    long_about = "Sample appliances for a gateway load balancer.\n\n\
        A gateway load balancer sends the packets that are to be inspected to appliances, inside \
        Geneve on UDP port 6081, and takes back what they let through. Each subcommand is such an \
        appliance. Register its address as a target, point the health check at its health port, \
        and traffic flows.",
    after_long_help = "Every appliance prints one line that begins with `ready` to stdout when it \
        takes packets and answers health checks. On SIGTERM or SIGINT it drains: health checks \
        fail, forwarding goes on for the drain time, then it ends; a second signal ends it at \
        once.\n\n\
        Exit status: 0 done, 1 it could not run, 2 wrong usage or configuration. RUST_LOG=debug \
        says more.",
    infer_subcommands = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let everything through.
    #[command(long_about = "Let everything through.\n\n\
        The fastest that an appliance can be, since it decides on each flow once: for measuring, \
        and for trying whether a gateway and its routes work at all.")]
    Passthrough(PassthroughArgs),
    /// Let flows through by rules.
    #[command(
        long_about = "Let flows through by rules.\n\n\
            The packet that opens a flow decides, by the first rule that matches it; the rest of \
            the flow, in both directions, and ICMP errors about it, share its fate. SIGHUP reads \
            the rules anew, and judges open flows by them; if the file is wrong, what is wrong is \
            shown, and the old rules stay.",
        after_long_help = RULES_HELP
    )]
    Firewall(FirewallArgs),
}

/// What all appliances have.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// Take Geneve datagrams here; may be given several times, for IPv4 and IPv6.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6081")]
    pub(super) listen: Vec<SocketAddr>,

    /// Answer health checks here, over HTTP (200, or 503 while draining) and plain TCP. `none`
    /// answers none.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:80", value_parser = health)]
    pub(super) health: Health,

    /// Number of packet threads; 0 for one per processor.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) threads: usize,

    /// Go on forwarding for this long after the end was asked for.
    ///
    /// Health checks fail from the beginning of it: HTTP checks get 503, and after a third of the
    /// time the port is closed, for TCP checks. Give the gateway time to notice: two failures of
    /// 10 s each is what the clouds do by default.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(super) drain_seconds: Duration,

    /// Forget a flow that had no packet for this long; not less than the gateway does.
    #[arg(long, value_name = "SECONDS", default_value = "350", value_parser = seconds)]
    pub(super) flow_idle_seconds: Duration,

    /// Remember at most so many flows per thread; the longest unused makes room.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub(super) max_flows: usize,

    /// Tell statistics through this Unix socket: whoever connects gets a JSON object.
    ///
    /// It has packets, bytes, flows, flows_both_directions, drops (by reason), syscalls, and what
    /// the appliance counts itself, such as the hits of each rule. Try: `nc -U PATH | jq`.
    #[arg(long, value_name = "PATH")]
    pub(super) stats: Option<PathBuf>,

    /// Do not print the `ready` line.
    #[arg(long)]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct PassthroughArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// Break on purpose, to see whether anybody notices.
    #[arg(long, value_name = "FAULT", hide_short_help = true)]
    pub(super) fault: Option<Fault>,
}

#[derive(Args, Debug)]
pub(super) struct FirewallArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// The rules, as TOML; --help shows an example.
    #[arg(long, value_name = "FILE")]
    pub(super) rules: PathBuf,

    /// Only say whether the rules are right, and end.
    #[arg(long)]
    pub(super) check: bool,
}

const RULES_HELP: &str = "\
A file of rules:

    default = \"deny\"                # or \"allow\": what no rule matches
    deny_by = \"drop\"                # or \"reject\": a TCP reset, or an ICMP error, to the sender
    inside = [\"10.0.0.0/16\"]        # the networks to protect: they give `direction` a meaning
    pick_up = false                 # true: a TCP flow may be first seen by something else than
                                    # a SYN, for example after this appliance was restarted

    [[rule]]                        # the first that matches decides
    name = \"web\"                    # for statistics; absent: \"rule 1\"
    action = \"allow\"                # or \"deny\", then perhaps with a deny_by of its own
    from = [\"0.0.0.0/0\"]            # absent: any; likewise below
    to = [\"10.0.1.0/24\"]
    protocol = \"tcp\"                # \"udp\", \"icmp\", \"icmpv6\", \"gre\", \"esp\", \"sctp\", or a number
    ports = [443, \"8000-8099\"]      # of the destination
    source_ports = [\"1024-65535\"]
    direction = \"inbound\"           # or \"outbound\"

Fragments are judged by the first one of each packet, in the direction in which they go: answers
that come in fragments need a rule of their own.";

/// Where to answer health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    At(SocketAddr),
    None,
}

fn health(text: &str) -> Result<Health, String> {
    if text == "none" {
        return Ok(Health::None);
    }
    text.parse()
        .map(Health::At)
        .map_err(|_| "expected an address with a port, like 0.0.0.0:80, or `none`".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map_err(|error: ParseFloatError| error.to_string())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_texts_fit_a_terminal_and_name_every_default() {
        for mut command in Cli::command().get_subcommands().cloned() {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
            assert!(help.contains("[default: 0.0.0.0:6081]"), "{help}");
        }
    }

    #[test]
    fn durations_and_addresses_are_understood() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("soon").is_err());
        assert_eq!(health("none"), Ok(Health::None));
        assert_eq!(health("[::1]:80"), Ok(Health::At("[::1]:80".parse().unwrap())));
        assert!(health("80").is_err());
    }
}
