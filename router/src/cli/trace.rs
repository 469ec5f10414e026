//! `router trace`: one packet, hop by hop, and the way of its answer.

use std::io::{self, Write};
use std::path::Path;

use super::{Status, TraceArgs, write_json};
use crate::topology::{Entry, Topology};
use crate::trace::{ByZone, Inspection, Packet, Picture, Trace};

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
    let packet = packet(args, topology, from);
    if let Some(source) = packet.source
        && source.is_ipv4() != packet.destination.is_ipv4()
    {
        writeln!(err, "router: --source: {source} and {} are of two families", args.to)?;
        return Ok(Status::Usage);
    }
    let trace = match &args.zone {
        None => followed(topology, from, &packet, args.answer, &ByZone { topology, zone: None }),
        Some(zone) if topology.subnets().all(|(_, subnet)| subnet.zone != *zone) => {
            writeln!(err, "router: --zone: no subnet is in zone \"{zone}\"")?;
            return Ok(Status::Usage);
        }
        Some(zone) => {
            followed(topology, from, &packet, args.answer, &ByZone { topology, zone: Some(zone) })
        }
    };
    if let Some(path) = &args.picture
        && let Err(error) = draw(&trace, path)
    {
        writeln!(err, "router: --picture: {}: {error}", path.display())?;
        return Ok(Status::Usage);
    }
    if args.json {
        write_json(out, &trace)?;
    } else {
        writeln!(out, "{trace}")?;
    }
    let arrived = trace.delivered && trace.back.as_ref().is_none_or(|back| back.delivered);
    Ok(if arrived { Status::Done } else { Status::No })
}

/// What is asked for; its source, where the answer needs one and none is given, is a likely one.
fn packet(args: &TraceArgs, topology: &Topology, from: Entry) -> Packet {
    let likely = || args.answer.then(|| topology.likely_source(from, args.to)).flatten();
    Packet {
        source: args.source.or_else(likely),
        destination: args.to,
        protocol: args.protocol,
        source_port: args.source_port,
        destination_port: args.port,
    }
}

fn followed(
    topology: &Topology,
    from: Entry,
    packet: &Packet,
    with_answer: bool,
    inspection: &impl Inspection,
) -> Trace {
    let mut trace = topology.trace_packet(from, packet, inspection);
    if with_answer {
        trace.back = topology.trace_answer(&trace, inspection).map(Box::new);
    }
    trace
}

/// The file's name says in what form.
fn draw(trace: &Trace, path: &Path) -> io::Result<()> {
    let picture = Picture::of(trace);
    let drawn = match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => picture.to_svg().map_err(io::Error::other)?,
        Some("dot") => picture.to_dot(),
        _ => return Err(io::Error::other("a picture is a file that ends in .svg or .dot")),
    };
    std::fs::write(path, drawn)
}
