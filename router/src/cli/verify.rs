//! `router verify`: all paths, and what is wrong with them.

use std::io::{self, Write};

use super::{Status, VerifyArgs, write_json};
use crate::Topology;

pub(super) fn run(
    args: &VerifyArgs,
    topology: &Topology,
    out: &mut impl Write,
) -> io::Result<Status> {
    let report = topology.verify();
    if args.json {
        write_json(out, &report)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(if report.is_clean() { Status::Done } else { Status::No })
}
