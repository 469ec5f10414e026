//! The `router` command: check a file, follow an address through its tables, prove that every path
//! is inspected, show what it says, plan the way to another one, or make one of what a cloud says.
//!
//! Data goes to standard output, problems to standard error. The exit status is 0 when it is done,
//! 1 when the answer is no, 2 for wrong usage or configuration. A closed pipe is a clean end.

mod check;
mod import;
mod plan;
mod show;
mod trace;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::source::{Look, Source};
use crate::trace::Protocol;
use crate::{Circles, Topology, config};

/// Runs the command with these arguments, of which the first is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let ended = match Cli::try_parse_from(args) {
        Ok(cli) => run(&cli.command, &mut io::stdout().lock(), &mut io::stderr().lock()),
        // Help and version are such errors too; clap knows their stream and their status.
        Err(error) => {
            error.print().map(|()| if error.use_stderr() { Status::Usage } else { Status::Done })
        }
    };
    match ended {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is what fails, nobody is left to be told.
            drop(writeln!(io::stderr(), "router: cannot write: {error}"));
            ExitCode::from(Status::No as u8)
        }
    }
}

/// Checks, follows, verifies and shows the route tables of a virtual private cloud
#[derive(Debug, Parser)]
#[command(name = "router", version, long_about = ABOUT, after_long_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
Checks, follows, verifies and shows the route tables of a virtual private cloud.

The configuration is a TOML file with the tables from [[vpc]] to [[intent]]. A whole gateway \
configuration will do: the other tables are left to `gwlb check`. [routing] rules = \"aws\", \
\"alibaba\" or \"linux\" says whose rules the tables are held to.";

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  the answer is no: a traced packet is dropped, a path is not as it should be, or no order of a
     plan is safe
  2  wrong usage, or a file with problems (on standard error, each with its place)";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells everything that is wrong with a file, or that nothing is
    ///
    /// Names and references, address ranges, what each route may lead to, addresses and ids of
    /// endpoints, circles of endpoints: the rules are AWS's where the clouds differ. All problems
    /// are told at once, each with its line, its column and what would help.
    Check(FileArgs),
    Trace(TraceArgs),
    Verify(VerifyArgs),
    /// Shows VPCs, subnets, gateways, endpoints and tables with all their routes
    ///
    /// Local routes, main tables, derived wire ids and addresses are filled in: what is shown is
    /// what packets meet.
    Show(ShowArgs),
    Import(ImportArgs),
    Plan(plan::PlanArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The configuration file
    file: PathBuf,
}

/// Follows a packet hop by hop, from where it enters to where it leaves
///
/// Each hop says which table decides, which route wins, and which routes it beat. A packet that
/// comes in through a gateway has the gateway table; one from a subnet, the subnet's; one that an
/// appliance gives back, the table of the endpoint's own subnet; one that a transit gateway sends
/// on, the table of the subnet that it comes out in. Appliances are taken to give back what they
/// get.
#[derive(Debug, Args)]
#[command(after_long_help = TRACE_EXAMPLES)]
struct TraceArgs {
    #[command(flatten)]
    file: FileArgs,
    #[arg(long, value_name = "PLACE", help = FROM)]
    from: String,
    /// The address that the packet is for
    #[arg(long, value_name = "ADDRESS")]
    to: IpAddr,
    /// The address that it comes from
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// tcp, udp, icmp, icmpv6 or a number
    #[arg(long)]
    protocol: Option<Protocol>,
    /// The port that it comes from
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// The port that it goes to
    #[arg(long)]
    port: Option<u16>,
    /// Follow the answer too; without --source, it goes to a likely address
    #[arg(long)]
    answer: bool,
    /// The zone that appliance mode and endpoint groups choose; the first, if it is not given
    #[arg(long)]
    zone: Option<String>,
    /// Draw the way into this file, which ends in .svg or .dot
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

const FROM: &str = "\
Where the packet enters: internet_gateway:NAME, subnet:NAME, endpoint:NAME, interface:NAME, \
nat_gateway:NAME, virtual_private_gateway:NAME, egress_only_internet_gateway:NAME or opaque:NAME";

const TRACE_EXAMPLES: &str = "\
Examples:
  Is what comes from the internet inspected before it reaches a server?
    router trace gateway.toml --from internet_gateway:igw --to 10.0.1.11
  Does the answer take the same way out?
    router trace gateway.toml --from internet_gateway:igw --to 198.51.100.11 --answer
  The same as a picture:
    router trace gateway.toml --from subnet:app-a --to 203.0.113.7 --answer --picture way.svg
  Where does a packet go that an appliance gives back?
    router trace gateway.toml --from endpoint:vpce-a --to 203.0.113.7

Exit status: 0 if the packet is delivered, and its answer too; 1 if one is dropped.";

/// Proves that every path is inspected, both ways, at one endpoint; or tells which is not
///
/// All addresses are looked at, IPv4 and IPv6, as sets of prefixes and not by sampling: from every
/// internet gateway and virtual private gateway to every subnet with machines, from there out, and
/// between subnets, through NAT gateways and transit gateways, there and back, for every zone and
/// every member of a group that can be chosen. Each finding has one cause, says all packets that it
/// concerns, and shows one of them hop by hop.
///
/// In a VPC with an endpoint, what comes in and what goes out has to be inspected. [[intent]] says
/// more: which service inspects what, or that nothing is asked (uninspected = true).
#[derive(Debug, Args)]
#[command(after_long_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  Does any packet get around inspection, circle, or get lost?
    router verify gateway.toml
  Only the kinds and their addresses, for a script:
    router verify gateway.toml --json | jq '.findings[] | [.kind, .addresses]'
  A step of CI that fails as soon as a path is not inspected:
    router verify gateway.toml || exit 1

Exit status: 0 if nothing is found but what is good to know, 1 if there are errors or warnings, 2 if \
the file has problems.";

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Makes a configuration of what AWS says of a network that is there
///
/// Reads the JSON of `aws ec2 describe-vpcs` and its like, as the AWS CLI prints it: several files,
/// or several outputs in one, in any order. The configuration goes to standard output, as TOML.
/// What it leaves out or keeps as [[opaque]] goes to standard error, and into its head as a
/// comment. Nothing is asked of AWS.
#[derive(Debug, Args)]
#[command(after_long_help = IMPORT_EXAMPLES)]
struct ImportArgs {
    /// The files with the output of `aws ec2 ...`, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  The least that is of use:
    for what in vpcs subnets route-tables vpc-endpoints internet-gateways; do
      aws ec2 describe-$what --output json > $what.json
    done
    router import *.json > network.toml
  The same without files:
    for what in vpcs subnets route-tables vpc-endpoints internet-gateways; do
      aws ec2 describe-$what --output json
    done | router import - > network.toml
  Where they are in use, also:
    nat-gateways, egress-only-internet-gateways, vpn-gateways, network-interfaces, addresses,
    managed-prefix-lists, transit-gateways, transit-gateway-attachments,
    transit-gateway-vpc-attachments, transit-gateway-route-tables
  Two outputs do not say what they are of. Put the id into the file's name:
    aws ec2 get-managed-prefix-list-entries --prefix-list-id $id > $id.json
    aws ec2 search-transit-gateway-routes --transit-gateway-route-table-id $id \\
      --filters Name=state,Values=active,blackhole > $id.json
  Then:
    router check network.toml

Exit status: 0 if there is a configuration, with or without notes; 2 if a file has problems.";

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// What was asked is done.
    Done = 0,
    /// The answer is no.
    No = 1,
    /// Wrong usage or configuration.
    Usage = 2,
}

fn run(command: &Command, out: &mut impl Write, err: &mut impl Write) -> io::Result<Status> {
    // Who looks at a network wants to see its circles.
    let status = match command {
        Command::Check(args) => with_topology(args, Circles::Refused, err, |topology, _| {
            check::run(args, topology, out)
        }),
        Command::Trace(args) => with_topology(&args.file, Circles::Kept, err, |topology, err| {
            trace::run(args, topology, out, err)
        }),
        Command::Verify(args) => with_topology(&args.file, Circles::Kept, err, |topology, _| {
            verify::run(args, topology, out)
        }),
        Command::Show(args) => with_topology(&args.file, Circles::Kept, err, |topology, _| {
            show::run(args, topology, out)
        }),
        Command::Import(args) => import::run(args, out, err),
        Command::Plan(args) => plan::run(args, out, err),
    }?;
    out.flush()?;
    Ok(status)
}

/// Does what there is to do with a file, or tells what is wrong with it.
fn with_topology<W: Write>(
    args: &FileArgs,
    circles: Circles,
    err: &mut W,
    run: impl FnOnce(&Topology, &mut W) -> io::Result<Status>,
) -> io::Result<Status> {
    let read = Source::read(&args.file)
        .and_then(|source| Topology::build_with(&config::parse(&source)?, &source, circles));
    match read {
        Ok(topology) => run(&topology, err),
        Err(problems) => {
            err.write_all(problems.render(Look::of_stderr()).as_bytes())?;
            Ok(Status::Usage)
        }
    }
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
