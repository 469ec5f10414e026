//! `router plan`: from one file to another, step by step.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Status, write_json};
use crate::config::{self, RouterFile, Routing};
use crate::plan::{Network, Plan};
use crate::source::{Located, Look, Problems, Source};

/// Plans how one network becomes another: what to change, in a safe order, and whose path changes
///
/// Each step is one call to a cloud, or a change "in the file alone": of a name, or of an endpoint's
/// wire id, which clouds do not know. It is possible when its turn comes: an endpoint is deleted when
/// no route leads to it any more, a table when nobody uses it. After each step, no packet is
/// delivered uninspected that is inspected before and afterwards, none is lost that is delivered
/// before and afterwards, and none goes where neither would have it go. All addresses are looked at,
/// from all gateways and subnets that are in both networks. What cannot be changed, such as the
/// subnet of an endpoint, is made anew beside the old; where single routes cannot be changed safely,
/// a prepared table takes the place of the old one.
///
/// If no safe order is found, the steps after which somebody is exposed say who, and to what. Not all
/// orders are tried: what is said to have none may have one.
///
/// The networks are held to the rules of the new file. Things are told apart by their names: one with
/// another name is another thing.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct PlanArgs {
    /// The configuration file of the network as it is
    old: PathBuf,
    /// The configuration file of the network as it is to be
    new: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  What has to be done so that the network is as in the new file?
    router plan today.toml tomorrow.toml
  And how is it undone?
    router plan tomorrow.toml today.toml
  The operations alone, for a script:
    router plan today.toml tomorrow.toml --json | jq '.steps[].operation'

Exit status: 0 if all steps are safe, or there is nothing to do; 1 if somebody is exposed for a
moment, or no order was found for some steps; 2 if a file has problems.";

pub(super) fn run(
    args: &PlanArgs,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Status> {
    let (old, new) = match networks(args) {
        Ok(networks) => networks,
        Err(problems) => {
            for problems in problems {
                err.write_all(problems.render(Look::of_stderr()).as_bytes())?;
            }
            return Ok(Status::Usage);
        }
    };
    let plan = Plan::new(&old, &new);
    if args.json {
        write_json(out, &plan)?;
    } else {
        writeln!(out, "{plan}")?;
    }
    out.flush()?;
    Ok(if plan.safe { Status::Done } else { Status::No })
}

/// Both networks, or what is wrong with either file.
fn networks(args: &PlanArgs) -> Result<(Network, Network), Vec<Problems>> {
    let ((mut old, old_source), (new, new_source)) = match (read(&args.old), read(&args.new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => return Err([old.err(), new.err()].into_iter().flatten().collect()),
    };
    old.routing = Routing { rules: Some(Located::nowhere(new.rules())) };
    let before = Network::new(&old, &old_source);
    let after = match &before {
        Ok(before) => before.followed_by(&new, &new_source),
        Err(_) => Network::new(&new, &new_source),
    };
    match (before, after) {
        (Ok(before), Ok(after)) => Ok((before, after)),
        (before, after) => Err([before.err(), after.err()].into_iter().flatten().collect()),
    }
}

fn read(path: &Path) -> Result<(RouterFile, Source), Problems> {
    let source = Source::read(path)?;
    Ok((config::parse(&source)?, source))
}
