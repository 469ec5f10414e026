//! `router show`: the whole topology, as tables or as JSON.

use std::io::{self, Write};

use comfy_table::{Table, presets};

use super::{ShowArgs, Status, write_json};
use crate::{Description, Topology};

pub(super) fn run(
    args: &ShowArgs,
    topology: &Topology,
    out: &mut impl Write,
) -> io::Result<Status> {
    let description = topology.describe();
    if args.json {
        write_json(out, &description)?;
    } else {
        write_tables(out, &description)?;
    }
    Ok(Status::Done)
}

fn write_tables(out: &mut impl Write, all: &Description) -> io::Result<()> {
    let rows =
        all.vpcs.iter().map(|vpc| [vpc.name.clone(), join(&vpc.cidrs), vpc.main_table.clone()]);
    write_table(out, ["VPC", "RANGES", "MAIN TABLE"], rows)?;

    let rows = all.subnets.iter().map(|subnet| {
        let [name, vpc] = [&subnet.name, &subnet.vpc].map(String::clone);
        let [zone, table] = [&subnet.zone, &subnet.route_table].map(String::clone);
        [name, vpc, zone, join(&subnet.cidrs), table]
    });
    write_table(out, ["SUBNET", "VPC", "ZONE", "RANGES", "TABLE"], rows)?;

    let rows = all.internet_gateways.iter().map(|gateway| {
        let mapping =
            |mapping: &crate::AddressMapping| format!("{} = {}", mapping.public, mapping.private);
        let addresses: Vec<String> = gateway.addresses.iter().map(mapping).collect();
        let [name, vpc] = [&gateway.name, &gateway.vpc].map(String::clone);
        [name, vpc, gateway.route_table.clone(), join(&addresses)]
    });
    write_table(out, ["INTERNET GATEWAY", "VPC", "TABLE", "ADDRESSES"], rows)?;

    let rows = all.endpoints.iter().map(|endpoint| {
        let [name, subnet] = [&endpoint.name, &endpoint.subnet].map(String::clone);
        let [zone, service] = [&endpoint.zone, &endpoint.service].map(String::clone);
        [name, subnet, zone, service, endpoint.wire_id.clone(), join(&endpoint.addresses)]
    });
    write_table(out, ["ENDPOINT", "SUBNET", "ZONE", "SERVICE", "WIRE ID", "ADDRESSES"], rows)?;

    for table in &all.route_tables {
        let users = if table.used_by.is_empty() { "nobody".into() } else { join(&table.used_by) };
        writeln!(out, "Route table {} of VPC {}, used by {users}", table.name, table.vpc)?;
        let rows = table.routes.iter().map(|route| {
            [route.destination.to_string(), route.target.clone(), route.origin.to_string()]
        });
        write_table(out, ["DESTINATION", "TARGET", "ORIGIN"], rows)?;
    }
    Ok(())
}

/// Columns under their headings, and an empty line. Nothing at all if there are no rows.
fn write_table<const N: usize>(
    out: &mut impl Write,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    if table.is_empty() {
        return Ok(());
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)
}

fn join(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
