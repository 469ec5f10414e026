//! A configuration as rows of words, table by table: what [`super::diff`] compares.
//!
//! Every structure is taken apart without `..`, so that a setting which is new cannot be forgotten
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use router::{
    AddressMapping, Description, EdgeLine, EndpointLine, Entry, GatewayLine, GroupLine, Intent,
    InterfaceLine, LearnedLine, MemberLine, Origin, PrefixListLine, RouteLine, SubnetLine,
    TableLine, Topology, TransitAttachmentLine, TransitTableLine, VpcLine,
};
use serde::Serialize;

use crate::config::reader::in_words;
use crate::config::settings::{
    AttachmentSettings, Causes, EndpointService, FlowLogSettings, FlowTimers, GatewaySettings,
    HealthCheck, LoadBalancer, LogDestination, Settings, Target, TargetGroup, TunnelCheck,
};
use crate::config::values::{AdminAddress, NetnsName, Port};

/// Whoever binds a port below takes `CAP_NET_BIND_SERVICE` (ip(7), `ip_unprivileged_port_start`).
/// It is the kernel's default that counts, and not what a namespace is set to: what a file takes is
/// the same on every machine.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The tables that rows come from, in the order of the reference.
pub(super) const TABLES: [&str; 23] = [
    "gateway",
    "routing",
    "vpc",
    "subnet",
    "internet_gateway",
    "virtual_private_gateway",
    "egress_only_internet_gateway",
    "nat_gateway",
    "network_interface",
    "opaque",
    "transit_gateway_attachment",
    "transit_gateway_route_table",
    "prefix_list",
    "route_table",
    "endpoint",
    "endpoint_group",
    "intent",
    "endpoint_service",
    "load_balancer",
    "target_group",
    "target",
    "attachment",
    "flow_log",
];

/// A table of the file.
#[derive(Debug)]
pub(super) struct Row {
    /// One of [`TABLES`].
    pub(super) table: &'static str,
    /// What it is found again by.
    pub(super) name: String,
    /// What it says.
    pub(super) cells: Vec<Cell>,
    /// Whether a running gateway cannot have one more or one less of these.
    pub(super) fixed: bool,
    /// What it needs that can only be had when the gateway starts.
    pub(super) needs: BTreeSet<Need>,
}

/// What takes privileges, which a running gateway has given up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Being in this network namespace.
    Netns(Option<NetnsName>),
    /// Hearing on this address and port of the namespace what takes privileges to hear there: what
    /// comes to a port below 1024, and datagrams with wrong checksums.
    Ear(Option<NetnsName>, IpAddr, u16),
}

/// A setting.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its key, without the unit.
    pub(super) key: &'static str,
    pub(super) value: Value,
    /// Whether a running gateway cannot change it.
    pub(super) restart: bool,
}

/// What a setting is, as people read it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One thing.
    One(String),
    /// Several, in no order.
    Set(BTreeSet<String>),
    /// Several, each with a name of its own.
    Map(BTreeMap<String, String>),
}

impl Row {
    fn new(table: &'static str, name: String, cells: Vec<Cell>) -> Self {
        Self { table, name, cells, fixed: false, needs: BTreeSet::new() }
    }

    fn needing(self, needs: impl IntoIterator<Item = Need>) -> Self {
        Self { needs: needs.into_iter().collect(), ..self }
    }

    /// What tells it from all other rows.
    pub(super) fn key(&self) -> (&'static str, &str) {
        (self.table, &self.name)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = match self {
            Value::One(value) => return f.write_str(value),
            Value::Set(items) => items.iter().cloned().collect(),
            Value::Map(items) => items.iter().map(|(key, item)| format!("{key} {item}")).collect(),
        };
        f.write_str(&items.join(", "))
    }
}

/// All rows of a configuration.
pub(super) fn of(settings: &Settings) -> Vec<Row> {
    // Bindings follow from the services, and notes are words.
    let Settings {
        gateway,
        topology,
        services,
        load_balancers,
        target_groups,
        attachments,
        flow_logs,
        bindings: _,
        notes: _,
    } = settings;
    let mut rows = vec![gateway_row(gateway)];
    topology_rows(&mut rows, topology);
    rows.extend(services.iter().map(|service| service_row(service, load_balancers)));
    rows.extend(load_balancers.iter().map(|balancer| balancer_row(balancer, target_groups)));
    for (index, group) in target_groups.iter().enumerate() {
        let of_group = |balancer: &&LoadBalancer| balancer.target_group == index;
        let ears = |port: Option<Port>| {
            let balancers = load_balancers.iter().filter(of_group);
            balancers.flat_map(move |balancer| ears_of(balancer, group, port))
        };
        rows.push(group_row(group).needing(ears(None)));
        let target = |target: &Target| target_row(target, group).needing(ears(target.port));
        rows.extend(group.targets.iter().map(target));
    }
    rows.extend(attachments.iter().map(|attachment| attachment_row(attachment, topology)));
    rows.extend(flow_logs.iter().map(flow_log_row));
    rows
}

fn gateway_row(gateway: &GatewaySettings) -> Row {
    let GatewaySettings {
        workers,
        semantics,
        secret_file,
        admin,
        metrics,
        max_flows_per_worker,
        source_ports_per_worker,
        max_new_flows_per_second,
        pin_workers,
        busy_poll,
        udp_receive_buffer,
        udp_send_buffer,
        huge_pages,
        flow_records,
    } = gateway;
    let cpus: Vec<String> = pin_workers.iter().map(ToString::to_string).collect();
    let cpus = Some(cpus.join(" ")).filter(|cpus| !cpus.is_empty());
    let (admin, token_file) = match admin {
        None => (None, None),
        Some(AdminAddress::Unix(path)) => (Some(shown(path)), None),
        Some(AdminAddress::Tcp { address, token_file }) => {
            (Some(address.to_string()), Some(shown(token_file)))
        }
    };
    let cells = vec![
        one("workers", workers).restarting(),
        one("semantics", word(semantics)),
        one("secret_file", shown(secret_file)).restarting(),
        maybe("admin", admin).restarting(),
        maybe("admin_token_file", token_file).restarting(),
        maybe("metrics", *metrics).restarting(),
        one("max_flows_per_worker", max_flows_per_worker).restarting(),
        one("source_ports_per_worker", source_ports_per_worker).restarting(),
        one("max_new_flows_per_second_per_worker", max_new_flows_per_second),
        maybe("pin_workers", cpus).restarting(),
        one("busy_poll", format_args!("{} us", busy_poll.as_micros())).restarting(),
        one("udp_receive_buffer_bytes", udp_receive_buffer).restarting(),
        one("udp_send_buffer_bytes", udp_send_buffer).restarting(),
        one("huge_pages", huge_pages).restarting(),
        one("flow_records", flow_records).restarting(),
    ];
    Row::new("gateway", String::new(), cells)
}

fn topology_rows(rows: &mut Vec<Row>, topology: &Topology) {
    let Description {
        rules: of,
        vpcs,
        subnets,
        internet_gateways,
        edges,
        interfaces,
        transit_gateway_attachments: attachments,
        transit_gateway_route_tables: transit_tables,
        prefix_lists,
        endpoints,
        endpoint_groups,
        route_tables,
    } = topology.describe();
    rows.push(Row::new("routing", String::new(), vec![one("rules", of)]));
    rows.extend(vpcs.into_iter().map(|VpcLine { name, cidrs, main_table }| {
        let cells = vec![set("cidrs", cidrs), one("main route table", main_table)];
        Row::new("vpc", name, cells)
    }));
    rows.extend(subnets.into_iter().map(|SubnetLine { name, vpc, zone, cidrs, route_table }| {
        let cells = vec![
            one("vpc", vpc),
            one("zone", zone),
            set("cidrs", cidrs),
            one("route_table", route_table),
        ];
        Row::new("subnet", name, cells)
    }));
    rows.extend(internet_gateways.into_iter().map(
        |GatewayLine { name, vpc, route_table, addresses }| {
            let pair =
                |AddressMapping { public, private }| (public.to_string(), private.to_string());
            let cells = vec![
                one("vpc", vpc),
                one("route_table", route_table),
                map("address", addresses.into_iter().map(pair)),
            ];
            Row::new("internet_gateway", name, cells)
        },
    ));
    other_rows(rows, edges, interfaces);
    transit_rows(rows, attachments, transit_tables);
    rows.extend(prefix_lists.into_iter().map(|PrefixListLine { name, entries }| {
        Row::new("prefix_list", name, vec![set("entry", entries)])
    }));
    rows.extend(route_tables.into_iter().filter(|table| !table.implicit).map(
        // Who uses a table is a setting of those who do.
        |TableLine { name, vpc, implicit: _, used_by: _, routes }| {
            // Local routes come with the VPC's ranges.
            let of = |origin| move |route: &RouteLine| route.origin == origin;
            let written = routes.clone().into_iter().filter(of(Origin::CreateRoute));
            let propagated = routes.into_iter().filter(of(Origin::EnableVgwRoutePropagation));
            let route = |route: RouteLine| {
                let RouteLine { destination, target, origin: _, prefix_list, state: _ } = route;
                let of_list = prefix_list.map(|list| format!("prefix_list:{list} "));
                (format!("{}{destination}", of_list.unwrap_or_default()), target)
            };
            let cells = vec![
                one("vpc", vpc),
                map("route", written.map(route)),
                map("propagated", propagated.map(route)),
            ];
            Row::new("route_table", name, cells)
        },
    ));
    rows.extend(endpoints.into_iter().map(
        |EndpointLine { name, subnet, zone, service, wire_id, addresses }| {
            let cells = vec![
                one("subnet", subnet),
                one("zone", zone),
                one("service", service),
                one("wire_id", wire_id),
                set("address", addresses),
            ];
            Row::new("endpoint", name, cells)
        },
    ));
    rows.extend(endpoint_groups.into_iter().map(
        |GroupLine { name, mode, return_after_seconds, members }| {
            let member = |MemberLine { endpoint, weight, enabled }: MemberLine| {
                let disabled = if enabled { "" } else { " disabled" };
                (endpoint, format!("{weight}{disabled}"))
            };
            let cells = vec![
                one("mode", mode),
                maybe("return_after_seconds", return_after_seconds),
                map("member", members.into_iter().map(member)),
            ];
            Row::new("endpoint_group", name, cells)
        },
    ));
    rows.extend(topology.intents().iter().map(|intent| {
        let Intent { from, to, inspected_by } = intent;
        let places = |places: &[Entry]| {
            let mut names: Vec<String> =
                places.iter().map(|place| topology.entry_name(*place)).collect();
            names.sort();
            names.join(" and ")
        };
        let by = inspected_by.as_ref().map_or("uninspected".to_owned(), |by| format!("by {by}"));
        let name = format!("{} -> {} {by}", places(from), places(to));
        // Nothing but itself tells an intent from another.
        Row::new("intent", name, Vec::new())
    }));
}

fn other_rows(rows: &mut Vec<Row>, edges: Vec<EdgeLine>, interfaces: Vec<InterfaceLine>) {
    let pair = |LearnedLine { destination, learned }: LearnedLine| {
        (destination.to_string(), learned.to_string())
    };
    rows.extend(edges.into_iter().map(|EdgeLine { name, kind, vpc, route_table, learned }| {
        let mut cells = vec![
            one("vpc", vpc),
            one("route_table", route_table),
            map("learned", learned.into_iter().map(pair)),
        ];
        let table = match kind.as_str() {
            "virtual_private_gateway" => "virtual_private_gateway",
            "egress_only_internet_gateway" => "egress_only_internet_gateway",
            _ => {
                cells.push(one("kind", kind));
                "opaque"
            }
        };
        Row::new(table, name, cells)
    }));
    rows.extend(interfaces.into_iter().map(
        |InterfaceLine { name, kind, subnet, zone, addresses, public_address }| {
            let cells = vec![
                one("subnet", subnet),
                one("zone", zone),
                set("address", addresses),
                maybe("public_address", public_address),
            ];
            Row::new(kind, name, cells)
        },
    ));
}

fn transit_rows(
    rows: &mut Vec<Row>,
    attachments: Vec<TransitAttachmentLine>,
    tables: Vec<TransitTableLine>,
) {
    rows.extend(attachments.into_iter().map(
        |TransitAttachmentLine {
             name,
             transit_gateway,
             vpc,
             subnets,
             route_table,
             appliance_mode,
         }| {
            let cells = vec![
                one("transit_gateway", transit_gateway),
                one("vpc", vpc),
                set("subnet", subnets),
                one("route_table", route_table),
                one("appliance_mode", appliance_mode),
            ];
            Row::new("transit_gateway_attachment", name, cells)
        },
    ));
    rows.extend(tables.into_iter().map(|TransitTableLine { name, transit_gateway, routes }| {
        let routes = routes.into_iter().map(|it| (it.destination.to_string(), it.target));
        let cells = vec![one("transit_gateway", transit_gateway), map("route", routes)];
        Row::new("transit_gateway_route_table", name, cells)
    }));
}

fn service_row(service: &EndpointService, balancers: &[LoadBalancer]) -> Row {
    let EndpointService { name, load_balancers, acceptance_required, allowed_principals } = service;
    // An endpoint is served by the first one with a node in its zone: the order counts.
    let balancers: Vec<&str> =
        load_balancers.iter().map(|index| balancers[*index].name.as_str()).collect();
    let cells = vec![
        one("load_balancers", balancers.join(", ")),
        one("acceptance_required", acceptance_required),
        set("allowed_principals", allowed_principals),
    ];
    Row::new("endpoint_service", name.clone(), cells)
}

fn balancer_row(balancer: &LoadBalancer, groups: &[TargetGroup]) -> Row {
    let LoadBalancer {
        name,
        target_group,
        nodes,
        netns,
        cross_zone,
        spill_over_below,
        timers,
        send_tcp_reset_on_idle_timeout,
        tcp_unknown_flow,
        adopt_after_start,
        traffic_mode,
        outer_dont_fragment,
        tcp_mss_clamp,
    } = balancer;
    let FlowTimers { tcp_idle, tcp_half_open, tcp_half_closed, tcp_closed, other_idle } = *timers;
    let shown_nodes = nodes.iter().map(|node| (node.zone.clone(), node.address.to_string()));
    let cells = vec![
        one("target_group", &groups[*target_group].name),
        map("node", shown_nodes),
        maybe("netns", netns.as_ref()),
        one("cross_zone", cross_zone),
        one("spill_over_below_healthy_targets", spill_over_below),
        one("traffic_mode", word(traffic_mode)),
        one("tcp_idle_timeout", in_words(tcp_idle)),
        one("tcp_half_open_timeout", in_words(tcp_half_open)),
        one("tcp_half_closed_timeout", in_words(tcp_half_closed)),
        one("tcp_closed_timeout", in_words(tcp_closed)),
        one("other_idle_timeout", in_words(other_idle)),
        one("send_tcp_reset_on_idle_timeout", send_tcp_reset_on_idle_timeout),
        one("tcp_unknown_flow", word(tcp_unknown_flow)),
        one("adopt_after_start", adopt_after_start),
        one("outer_dont_fragment", outer_dont_fragment).restarting(),
        one("tcp_mss_clamp", tcp_mss_clamp),
    ];
    let group = &groups[*target_group];
    let ears = group.targets.iter().map(|target| target.port).chain([None]);
    let ears = ears.flat_map(|port| ears_of(balancer, group, port));
    let needs = [Need::Netns(netns.clone())].into_iter().chain(ears);
    Row::new("load_balancer", name.to_string(), cells).needing(needs)
}

fn group_row(group: &TargetGroup) -> Row {
    let TargetGroup {
        name,
        dialect,
        port,
        stickiness,
        deregistration_delay,
        target_failover: Causes { on_unhealthy: unhealthy, on_deregistration: deregistered },
        send_tcp_reset,
        reset_both_ends,
        when_none_healthy,
        after_bypass,
        slow_start,
        tolerate_bad_udp_checksum,
        health_check,
        tunnel_check,
        targets: _, // rows of their own
    } = group;
    let Causes { on_unhealthy: reset_unhealthy, on_deregistration: reset_deregistered } =
        send_tcp_reset;
    let mut cells = vec![
        // Packets under way would come back in the other one.
        one("dialect", dialect.name()).restarting(),
        one("port", port),
        // "Drain or terminate all existing flows first" (semantics 1a): none would be found again.
        one("stickiness", stickiness.name()).restarting(),
        one("deregistration_delay", in_words(*deregistration_delay)),
        one("target_failover.on_unhealthy", word(unhealthy)),
        one("target_failover.on_deregistration", word(deregistered)),
        one("send_tcp_reset.on_unhealthy", reset_unhealthy),
        one("send_tcp_reset.on_deregistration", reset_deregistered),
        one("send_tcp_reset.both_ends", reset_both_ends),
        one("when_none_healthy", word(when_none_healthy)),
        one("after_bypass", word(after_bypass)),
        one("slow_start", in_words(*slow_start)),
        one("tolerate_bad_udp_checksum", tolerate_bad_udp_checksum).restarting(),
    ];
    health_check_cells(&mut cells, health_check);
    cells.push(one("tunnel_check", if tunnel_check.is_some() { "on" } else { "off" }));
    if let Some(check) = tunnel_check {
        tunnel_check_cells(&mut cells, check);
    }
    Row::new("target_group", name.to_string(), cells)
}

fn health_check_cells(cells: &mut Vec<Cell>, check: &HealthCheck) {
    let HealthCheck {
        enabled,
        protocol,
        port,
        interval,
        timeout,
        healthy_threshold,
        unhealthy_threshold,
        host,
        path,
        matcher,
        ca_file,
    } = check;
    cells.extend([
        one("health_check.enabled", enabled),
        one("health_check.protocol", protocol),
        one("health_check.port", port),
        one("health_check.interval", in_words(*interval)),
        one("health_check.timeout", in_words(*timeout)),
        one("health_check.healthy_threshold", healthy_threshold),
        one("health_check.unhealthy_threshold", unhealthy_threshold),
        maybe("health_check.host", host.as_ref()),
        one("health_check.path", path),
        one("health_check.matcher", matcher),
        maybe("health_check.ca_file", ca_file.as_deref().map(shown)),
    ]);
}

fn tunnel_check_cells(cells: &mut Vec<Cell>, check: &TunnelCheck) {
    let TunnelCheck {
        interval,
        timeout,
        healthy_threshold,
        unhealthy_threshold,
        source,
        destination,
        measure_mtu,
    } = check;
    cells.extend([
        one("tunnel_check.interval", in_words(*interval)),
        one("tunnel_check.timeout", in_words(*timeout)),
        one("tunnel_check.healthy_threshold", healthy_threshold),
        one("tunnel_check.unhealthy_threshold", unhealthy_threshold),
        maybe("tunnel_check.source", *source),
        maybe("tunnel_check.destination", *destination),
        one("tunnel_check.measure_mtu", measure_mtu),
    ]);
}

fn target_row(target: &Target, group: &TargetGroup) -> Row {
    let Target { address, port, zone, weight } = target;
    let port = port.unwrap_or(group.port).get();
    let address = std::net::SocketAddr::new(*address, port);
    let cells = vec![one("zone", zone), one("weight", weight)];
    Row::new("target", format!("{}/{address}", group.name), cells)
}

/// What a load balancer needs to hear what targets of a group on a port answer.
fn ears_of(
    balancer: &LoadBalancer,
    group: &TargetGroup,
    port: Option<Port>,
) -> impl Iterator<Item = Need> {
    let port = port.unwrap_or(group.port).get();
    let privileged = group.tolerate_bad_udp_checksum || port < FIRST_UNPRIVILEGED_PORT;
    let nodes = balancer.nodes.iter().filter(move |_| privileged);
    nodes.map(move |node| Need::Ear(balancer.netns.clone(), node.address, port))
}

fn attachment_row(attachment: &AttachmentSettings, topology: &Topology) -> Row {
    let AttachmentSettings {
        at,
        tun,
        netns,
        mtu,
        addresses,
        default_route,
        offload,
        gso_max_size,
        big_tcp,
    } = attachment;
    // A device is made and changed with privileges, which a running gateway has not.
    let cells = vec![
        one("tun", tun).restarting(),
        maybe("netns", netns.as_ref()).restarting(),
        one("mtu", mtu).restarting(),
        set("addresses", addresses).restarting(),
        one("default_route", default_route).restarting(),
        one("offload", offload).restarting(),
        maybe("gso_max_size", *gso_max_size).restarting(),
        one("big_tcp", big_tcp).restarting(),
    ];
    let row = Row::new("attachment", topology.entry_name((*at).into()), cells);
    Row { fixed: true, ..row }
}

fn flow_log_row(log: &FlowLogSettings) -> Row {
    let FlowLogSettings { name, resource, traffic_type, format, interval, destination } = log;
    let (path, max_bytes, files) = match destination {
        LogDestination::Stdout => ("stdout".to_owned(), None, None),
        LogDestination::File { path, max_bytes, files } => {
            (shown(path), Some(*max_bytes), Some(*files))
        }
    };
    // Who writes is started with the gateway.
    let cells = vec![
        one("resource", resource).restarting(),
        one("traffic_type", word(traffic_type)).restarting(),
        one("format", format).restarting(),
        one("max_aggregation_interval", in_words(*interval)).restarting(),
        one("destination", path).restarting(),
        maybe("max_file_bytes", max_bytes).restarting(),
        maybe("max_files", files).restarting(),
    ];
    Row { fixed: true, ..Row::new("flow_log", name.to_string(), cells) }
}

impl Cell {
    /// A running gateway cannot change it.
    fn restarting(self) -> Cell {
        Cell { restart: true, ..self }
    }
}

fn one(key: &'static str, value: impl fmt::Display) -> Cell {
    Cell { key, value: Value::One(value.to_string()), restart: false }
}

fn maybe(key: &'static str, value: Option<impl fmt::Display>) -> Cell {
    one(key, value.map_or_else(|| "none".to_owned(), |value| value.to_string()))
}

fn set<T: fmt::Display>(key: &'static str, items: impl IntoIterator<Item = T>) -> Cell {
    let items = items.into_iter().map(|item| item.to_string()).collect();
    Cell { key, value: Value::Set(items), restart: false }
}

fn map(key: &'static str, items: impl IntoIterator<Item = (String, String)>) -> Cell {
    Cell { key, value: Value::Map(items.into_iter().collect()), restart: false }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A choice as the file writes it.
fn word(choice: impl Serialize) -> String {
    // Each is a plain word, which JSON writes as a string.
    let word = serde_json::to_value(choice).ok();
    word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
