//! `router trace`: one address, hop by hop.

use std::io::{self, Write};

use super::{Status, TraceArgs, write_json};
use crate::Topology;

pub(super) fn run(
    args: &TraceArgs,
    topology: &Topology,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Status> {
    let from = match topology.entry(&args.from) {
        Ok(from) => from,
        Err(error) => {
            writeln!(err, "router: --from: {error}")?;
            return Ok(Status::Usage);
        }
    };
    let trace = topology.trace(from, args.to);
    if args.json {
        write_json(out, &trace)?;
    } else {
        writeln!(out, "{trace}")?;
    }
    Ok(if trace.delivered { Status::Done } else { Status::No })
}
