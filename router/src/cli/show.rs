//! `router show`: the whole topology, as tables or as JSON.

use std::io::{self, Write};

use comfy_table::{Table, presets};

use super::{ShowArgs, Status, write_json};
use crate::{Description, RouteLine, Topology};

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

    let rows = all.edges.iter().map(|edge| {
        let [name, kind] = [&edge.name, &edge.kind].map(String::clone);
        [name, kind, edge.vpc.clone(), edge.route_table.clone(), join(&edge.learned)]
    });
    write_table(out, ["OTHER WAY OUT", "KIND", "VPC", "TABLE", "LEARNED"], rows)?;

    let rows = all.interfaces.iter().map(|it| {
        let public = it.public_address.map(|address| address.to_string()).unwrap_or_default();
        let [name, subnet] = [&it.name, &it.subnet].map(String::clone);
        [name, it.kind.to_owned(), subnet, it.zone.clone(), join(&it.addresses), public]
    });
    write_table(out, ["INTERFACE", "KIND", "SUBNET", "ZONE", "ADDRESSES", "PUBLIC"], rows)?;

    let rows = all.transit_gateway_attachments.iter().map(|it| {
        let [name, gateway] = [&it.name, &it.transit_gateway].map(String::clone);
        let mode = if it.appliance_mode { "appliance mode" } else { "" };
        [name, gateway, it.vpc.clone(), join(&it.subnets), it.route_table.clone(), mode.to_owned()]
    });
    let header = ["ATTACHMENT", "TRANSIT GATEWAY", "VPC", "SUBNETS", "TABLE", ""];
    write_table(out, header, rows)?;

    let rows = all.prefix_lists.iter().map(|it| [it.name.clone(), join(&it.entries)]);
    write_table(out, ["PREFIX LIST", "RANGES"], rows)?;

    let rows = all.endpoints.iter().map(|endpoint| {
        let [name, subnet] = [&endpoint.name, &endpoint.subnet].map(String::clone);
        let [zone, service] = [&endpoint.zone, &endpoint.service].map(String::clone);
        [name, subnet, zone, service, endpoint.wire_id.clone(), join(&endpoint.addresses)]
    });
    write_table(out, ["ENDPOINT", "SUBNET", "ZONE", "SERVICE", "WIRE ID", "ADDRESSES"], rows)?;

    let rows = all.endpoint_groups.iter().map(|group| {
        let member = |member: &crate::MemberLine| format!("{} {}", member.endpoint, member.weight);
        let members: Vec<String> = group.members.iter().map(member).collect();
        [group.name.clone(), group.mode.to_owned(), join(&members)]
    });
    write_table(out, ["ENDPOINT GROUP", "MODE", "MEMBERS AND WEIGHTS"], rows)?;

    for table in &all.transit_gateway_route_tables {
        writeln!(out, "Table {} of transit gateway {}", table.name, table.transit_gateway)?;
        write_routes(out, &table.routes)?;
    }
    for table in &all.route_tables {
        let users = if table.used_by.is_empty() { "nobody".into() } else { join(&table.used_by) };
        writeln!(out, "Route table {} of VPC {}, used by {users}", table.name, table.vpc)?;
        write_routes(out, &table.routes)?;
    }
    Ok(())
}

fn write_routes(out: &mut impl Write, routes: &[RouteLine]) -> io::Result<()> {
    let rows = routes.iter().map(|route| {
        let list = route.prefix_list.as_ref().map(|list| format!(" of {list}"));
        let destination = format!("{}{}", route.destination, list.unwrap_or_default());
        [destination, route.target.clone(), route.state.to_string(), route.origin.to_string()]
    });
    write_table(out, ["DESTINATION", "TARGET", "STATE", "ORIGIN"], rows)
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
