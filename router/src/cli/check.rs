//! `router check`: by the time this runs, all is well.

use std::io::{self, Write};

use super::{FileArgs, Status};
use crate::Topology;

pub(super) fn run(
    args: &FileArgs,
    topology: &Topology,
    out: &mut impl Write,
) -> io::Result<Status> {
    let tables = topology.tables().filter(|(_, table)| !table.is_implicit()).count();
    let counts = [
        (topology.vpcs().len(), "VPC"),
        (topology.subnets().len(), "subnet"),
        (topology.gateways().len(), "internet gateway"),
        (tables, "route table"),
        (topology.endpoints().len(), "endpoint"),
    ];
    let counts: Vec<String> = counts.into_iter().map(|(count, noun)| plural(count, noun)).collect();
    writeln!(out, "{}: no problems ({})", args.file.display(), counts.join(", "))?;
    let intents = topology.intents().len();
    if intents > 0 {
        let noun = plural(intents, "intent");
        writeln!(out, "{noun} understood; `router verify` tells whether all paths hold to them")?;
    }
    Ok(Status::Done)
}

fn plural(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}
