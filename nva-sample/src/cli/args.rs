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
            shown, and the old rules stay. The appliance has no privileges then: its user has to \
            be allowed to read the file, even if that is root.",
        after_long_help = RULES_HELP
    )]
    Firewall(FirewallArgs),
    /// Look for byte patterns, and tell or block.
    #[command(
        long_about = "Look for byte patterns, and tell or block.\n\n\
            TCP is searched as a stream, across segments and in order; UDP datagram by datagram. \
            What is found is told once per flow and pattern, as a line of JSON.",
        after_long_help = PATTERNS_HELP
    )]
    Ids(IdsArgs),
    /// Let everything through, and copy it to a capture file.
    #[command(
        long_about = "Let everything through, and copy it to a capture file.\n\n\
            The file is pcapng with raw IP packets, as they are inside Geneve. Each has a comment \
            with the endpoint, the attachment and the flow cookie: in tshark, the field \
            frame.comment. A file that cannot be written fast enough costs copies, never packets; \
            the statistics count them.",
        after_long_help = "Watch while it runs:\n\n    \
            nva-sample mirror --out - --quiet | tshark -r - -T fields -e frame.comment -e ip.src"
    )]
    Mirror(MirrorArgs),
    /// Hand packets to the kernel, or to a program that reads a TUN device, and give back what
    /// comes back.
    #[cfg(feature = "handoff")]
    #[command(
        long_about = "Hand packets to the kernel, or to a program that reads a TUN device, and \
            give back what comes back.\n\n\
            With --hairpin the kernel forwards everything back, so that its firewall (nft, in the \
            forward chain), its traffic shaping or its counters apply. Without, routes are yours \
            to set. What comes back is recognised by addresses, protocol and ports; so they must \
            not be translated. The kernel counts as a hop: it lowers the TTL by one."
    )]
    Handoff(HandoffArgs),
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
    /// It has packets, bytes, flows (and those seen in both directions), drops by reason, system
    /// calls, and what the appliance counts itself, such as the hits of each rule. Try: `nc -U PATH | jq`.
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

#[derive(Args, Debug)]
pub(super) struct IdsArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// The patterns, as TOML; --help shows an example.
    #[arg(long, value_name = "FILE")]
    pub(super) patterns: PathBuf,

    /// Block the flow when a pattern is found that names no action itself.
    #[arg(long)]
    pub(super) block: bool,

    /// Append alerts to this file; `-` for stdout, behind the `ready` line.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) alerts: PathBuf,

    /// Search only so many bytes of each direction of a TCP stream; the rest passes unsearched,
    /// and fast. Absent: all of it.
    #[arg(long, value_name = "N")]
    pub(super) depth_bytes: Option<u64>,

    /// Only say whether the patterns are right, and end.
    #[arg(long)]
    pub(super) check: bool,
}

#[derive(Args, Debug)]
pub(super) struct MirrorArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// The capture file, which is begun anew; `-` for stdout, without the `ready` line then.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Copy at most so many bytes of each packet.
    #[arg(long, value_name = "BYTES", default_value_t = 65_535,
        value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub(super) snaplen: u32,

    /// End the capture before the file grows beyond this; packets still pass. 0 for no limit.
    #[arg(long, value_name = "MEBIBYTES", default_value_t = 1024)]
    pub(super) limit_mebibytes: u64,
}

#[cfg(feature = "handoff")]
#[derive(Args, Debug)]
pub(super) struct HandoffArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// The TUN device to make, in this network namespace.
    #[arg(long, value_name = "NAME", default_value = "nva0")]
    pub(super) device: String,

    /// Its MTU; the default is the longest packet that a cloud's gateway passes.
    #[arg(long, value_name = "BYTES", default_value_t = 8500)]
    pub(super) mtu: u32,

    /// An address of the device with its prefix length; may be given several times.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub(super) address: Vec<ipnet::IpNet>,

    /// Have the kernel send everything back.
    ///
    /// Turns forwarding on and reverse-path filtering and redirects off, and makes the device the
    /// default route: for a network namespace that has no other business.
    #[arg(long)]
    pub(super) hairpin: bool,
}

const PATTERNS_HELP: &str = r#"A file of patterns:

    [[pattern]]
    name = "eicar"                  # in alerts and statistics
    text = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE"
    ignore_case = false             # true: ASCII letters match whatever their case
    action = "block"                # or "alert"; absent: alert, or block with --block

    [[pattern]]
    name = "elf"
    hex = "7f 45 4c 46"             # bytes that are no text

All patterns together may have 16 KiB. A blocked flow is dropped in both directions, without a word,
until it was idle for --flow-idle-seconds. Limits: 64 segments per direction, and 16 MiB per thread,
wait for their turn when segments come out of order; beyond that the search goes on behind the gap.
Repeated segments are searched by themselves. IP fragments are searched one by one, encrypted and
compressed payloads as they are."#;

const RULES_HELP: &str = r#"A file of rules:

    default = "deny"                # or "allow": what no rule matches
    deny_by = "drop"                # or "reject": a TCP reset, or an ICMP error, to the sender
    inside = ["10.0.0.0/16"]        # the networks to protect: they give `direction` a meaning
    pick_up = false                 # true: a TCP flow may be first seen by something else than
                                    # a SYN, for example after this appliance was restarted

    [[rule]]                        # the first that matches decides
    name = "web"                    # for statistics; absent: "rule 1"
    action = "allow"                # or "deny", then perhaps with a deny_by of its own
    from = ["0.0.0.0/0"]            # absent: any; likewise below
    to = ["10.0.1.0/24"]
    protocol = "tcp"                # "udp", "icmp", "icmpv6", "gre", "esp", "sctp", or a number
    ports = [443, "8000-8099"]      # of the destination
    source_ports = ["1024-65535"]
    direction = "inbound"           # or "outbound"

Fragments are judged by the first one of each packet, in the direction in which they go: answers
that come in fragments need a rule of their own."#;

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
    use clap::CommandFactory;

    use super::*;
    use crate::problem::Source;

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
    fn the_files_shown_in_help_texts_are_right() {
        let file = |help: &str| {
            let indented = help.lines().filter_map(|line| line.strip_prefix("    "));
            indented.collect::<Vec<_>>().join("\n")
        };
        let rules = Source::new("help", file(RULES_HELP));
        assert_eq!(crate::firewall::file::parse(&rules).unwrap().rules.len(), 1);
        let patterns = Source::new("help", file(PATTERNS_HELP));
        assert_eq!(crate::ids::file::parse(&patterns, false).unwrap().patterns().len(), 2);
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
