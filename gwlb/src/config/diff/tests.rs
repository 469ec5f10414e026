use std::collections::BTreeSet;

use router::source::{Look, Source};
use rstest::rstest;
use serde_json::Value as Json;

use super::*;
use crate::config;

/// A file in which every key of the format that can be, is.
const EVERYTHING: &str = include_str!("everything.toml");

fn settings(text: &str) -> Settings {
    let source = Source::new("everything.toml", text);
    config::parse(&source).unwrap_or_else(|problems| panic!("{}", problems.render(Look::Plain)))
}

/// The file with this instead of that: of whole lines if that begins one, or else wherever it is.
fn edited(from: &str, to: &str) -> String {
    assert!(EVERYTHING.contains(from), "{from}");
    let line = format!("\n{from}");
    if EVERYTHING.contains(&line) {
        EVERYTHING.replace(&line, &format!("\n{to}"))
    } else {
        EVERYTHING.replace(from, to)
    }
}

fn lines(old: &str, new: &str) -> Vec<String> {
    diff(&settings(old), &settings(new)).iter().map(ToString::to_string).collect()
}

/// For every key of the format, an edit that changes it, and what is said about it. Names are
/// renamed wherever they stand.
#[rustfmt::skip]
const EDITS: &[(&str, &str, &str, &str)] = &[
    ("gateway.workers", "workers = 0", "workers = 2",
     "changed gateway: workers: 0 -> 2 (takes a restart)"),
    ("gateway.semantics", "semantics = \"aws\"", "semantics = \"alibaba\"",
     "changed gateway: semantics: aws -> alibaba"),
    ("gateway.secret_file", "/var/lib/gwlb/secret", "/etc/secret",
     "changed gateway: secret_file: /var/lib/gwlb/secret -> /etc/secret (takes a restart)"),
    ("gateway.admin", "127.0.0.1:9960", "127.0.0.1:9970",
     "changed gateway: admin: 127.0.0.1:9960 -> 127.0.0.1:9970 (takes a restart)"),
    ("gateway.admin_token_file", "/etc/gwlb/token", "/etc/token",
     "changed gateway: admin_token_file: /etc/gwlb/token -> /etc/token (takes a restart)"),
    ("gateway.metrics", "127.0.0.1:9961", "127.0.0.1:9971",
     "changed gateway: metrics: 127.0.0.1:9961 -> 127.0.0.1:9971 (takes a restart)"),
    ("gateway.max_flows_per_worker", "max_flows_per_worker = 2048", "max_flows_per_worker = 4096",
     "changed gateway: max_flows_per_worker: 2048 -> 4096 (takes a restart)"),
    ("gateway.source_ports_per_worker", "source_ports_per_worker = 4", "source_ports_per_worker = 5",
     "changed gateway: source_ports_per_worker: 4 -> 5 (takes a restart)"),
    ("gateway.max_new_flows_per_second_per_worker", "per_second_per_worker = 500", "per_second_per_worker = 0",
     "changed gateway: max_new_flows_per_second_per_worker: 500 -> 0"),

    ("gateway.pin_workers", "pin_workers = [0, 1]", "pin_workers = [0, 2]",
     "changed gateway: pin_workers: 0 1 -> 0 2 (takes a restart)"),
    ("gateway.busy_poll_us", "busy_poll_us = 50", "busy_poll_us = 0",
     "changed gateway: busy_poll: 50 us -> 0 us (takes a restart)"),
    ("gateway.udp_receive_buffer_bytes", "udp_receive_buffer_bytes = 1000000", "udp_receive_buffer_bytes = 1500000",
     "changed gateway: udp_receive_buffer_bytes: 1000000 -> 1500000 (takes a restart)"),
    ("gateway.udp_send_buffer_bytes", "udp_send_buffer_bytes = 2000000", "udp_send_buffer_bytes = 1500000",
     "changed gateway: udp_send_buffer_bytes: 2000000 -> 1500000 (takes a restart)"),
    ("gateway.huge_pages", "huge_pages = true", "huge_pages = false",
     "changed gateway: huge_pages: true -> false (takes a restart)"),
    ("gateway.flow_records", "flow_records = true\n\n[routing]", "flow_records = false\n\n[routing]",
     "changed gateway: flow_records: true -> false (takes a restart)"),

    ("vpc.name", "\"third\"", "\"fourth\"",
     "removed vpc third\nadded vpc fourth"),
    ("vpc.cidrs", "\"10.3.0.0/16\"", "\"10.4.0.0/16\", \"fd00:4::/48\"",
     "changed vpc third: cidrs: 10.3.0.0/16 removed, cidrs: 10.4.0.0/16 added, cidrs: fd00:4::/48 added"),
    ("subnet.name", "\"spare\"", "\"unused\"",
     "removed subnet spare\nadded subnet unused"),
    ("subnet.vpc", "vpc = \"app\" # of spare", "vpc = \"lab\"",
     "changed subnet spare: vpc: app -> lab, route_table: main -> lab:local"),
    ("subnet.zone", "zone = \"az8\"", "zone = \"az9\"",
     "changed subnet spare: zone: az8 -> az9"),
    ("subnet.cidrs", "10.0.9.0/24", "10.0.8.0/24",
     "changed subnet spare: cidrs: 10.0.9.0/24 removed, cidrs: 10.0.8.0/24 added"),
    ("subnet.route_table", "route_table = \"app-a\"", "route_table = \"main\"",
     "changed subnet app-a: route_table: app-a -> main"),
    ("internet_gateway.name", "\"lab-igw\"", "\"lab-gate\"",
     "removed internet_gateway lab-igw\nadded internet_gateway lab-gate"),
    ("internet_gateway.vpc", "vpc = \"lab\" # of lab-igw", "vpc = \"third\"",
     "changed internet_gateway lab-igw: vpc: lab -> third, route_table: lab:local -> third:local"),
    ("internet_gateway.route_table", "route_table = \"igw\"", "",
     "changed internet_gateway igw: route_table: igw -> app:local"),
    ("internet_gateway.addresses.public", "203.0.113.11", "203.0.113.12",
     "changed internet_gateway igw: address 203.0.113.11: 10.0.1.11 removed, address 203.0.113.12: 10.0.1.11 added"),
    ("internet_gateway.addresses.private", "10.0.1.11", "10.0.1.12",
     "changed internet_gateway igw: address 203.0.113.11: 10.0.1.11 -> 10.0.1.12"),
    ("internet_gateway.addresses", "addresses = [{ public = \"203.0.113.11\", private = \"10.0.1.11\" }]", "",
     "changed internet_gateway igw: address 203.0.113.11: 10.0.1.11 removed"),
    ("route_table.name", "\"other\"", "\"another\"",
     "removed route_table other\nadded route_table another"),
    ("route_table.vpc", "vpc = \"lab\" # of other", "vpc = \"third\"",
     "changed route_table other: vpc: lab -> third"),
    ("route_table.main", "main = true", "main = false",
     "changed vpc app: main route table: main -> app:local\nchanged subnet spare: route_table: main -> app:local"),
    ("route_table.routes", "routes = [{ destination = \"192.168.0.0/16\", blackhole = true }]", "",
     "changed route_table main: route 192.168.0.0/16: blackhole removed"),
    ("route_table.routes.destination", "192.168.0.0/16", "172.16.0.0/12",
     "changed route_table main: route 192.168.0.0/16: blackhole removed, route 172.16.0.0/12: blackhole added"),
    ("route_table.routes.endpoint", "destination = \"0.0.0.0/0\", endpoint = \"vpce-a\"", "destination = \"0.0.0.0/0\", endpoint = \"vpce-c\"",
     "changed route_table app-a: route 0.0.0.0/0: endpoint:vpce-a -> endpoint:vpce-c"),
    ("route_table.routes.internet_gateway", "internet_gateway = \"igw\" }", "blackhole = true }",
     "changed route_table gwlbe-a: route 0.0.0.0/0: internet_gateway:igw -> blackhole"),
    ("route_table.routes.blackhole", "\"192.168.0.0/16\", blackhole = true", "\"192.168.0.0/16\", internet_gateway = \"igw\"",
     "changed route_table main: route 192.168.0.0/16: blackhole -> internet_gateway:igw"),
    ("route_table.routes.local", "local = true", "endpoint = \"vpce-a\"",
     "changed route_table igw: route 10.0.1.0/24: local -> endpoint:vpce-a"),
    ("routing.rules", "rules = \"linux\"", "rules = \"aws\"",
     "changed routing: rules: linux -> aws"),
    ("virtual_private_gateway.name", "\"vgw-2\"", "\"vpn\"",
     "removed virtual_private_gateway vgw-2\nadded virtual_private_gateway vpn"),
    ("virtual_private_gateway.vpc", "vpc = \"more\" # of vgw-2", "vpc = \"third\"",
     "changed virtual_private_gateway vgw-2: vpc: more -> third, route_table: more:local -> third:local"),
    ("virtual_private_gateway.route_table", "route_table = \"edge\"", "",
     "changed virtual_private_gateway vgw: route_table: edge -> more:local"),
    ("virtual_private_gateway.routes", "routes = [{ destination = \"172.31.0.0/16\", learned = \"vpn_static\" }]", "",
     "changed virtual_private_gateway vgw: learned 172.31.0.0/16: vpn_static removed\nchanged route_table more: propagated 172.31.0.0/16: virtual_private_gateway:vgw removed"),
    ("virtual_private_gateway.routes.destination", "172.31.0.0/16", "172.30.0.0/16",
     "changed virtual_private_gateway vgw: learned 172.31.0.0/16: vpn_static removed, learned 172.30.0.0/16: vpn_static added\nchanged route_table more: propagated 172.31.0.0/16: virtual_private_gateway:vgw removed, propagated 172.30.0.0/16: virtual_private_gateway:vgw added"),
    ("virtual_private_gateway.routes.learned", "\"vpn_static\"", "\"vpn_bgp\"",
     "changed virtual_private_gateway vgw: learned 172.31.0.0/16: vpn_static -> vpn_bgp"),
    ("egress_only_internet_gateway.name", "\"eigw-2\"", "\"v6-out\"",
     "removed egress_only_internet_gateway eigw-2\nadded egress_only_internet_gateway v6-out"),
    ("egress_only_internet_gateway.vpc", "vpc = \"more\" # of eigw-2", "vpc = \"third\"",
     "changed egress_only_internet_gateway eigw-2: vpc: more -> third, route_table: more:local -> third:local"),
    ("nat_gateway.name", "\"nat\"", "\"snat\"",
     "removed nat_gateway nat\nadded nat_gateway snat\nchanged route_table more: route 0.0.0.0/0: nat_gateway:nat -> nat_gateway:snat\nremoved attachment nat_gateway:nat (takes a restart)\nadded attachment nat_gateway:snat (takes a restart)"),
    ("nat_gateway.subnet", "subnet = \"more-a\" # of nat\naddress = \"10.5.1.9\"", "subnet = \"more-b\"\naddress = \"10.5.2.9\"",
     "changed nat_gateway nat: subnet: more-a -> more-b, zone: az1 -> az2, address: 10.5.1.9 removed, address: 10.5.2.9 added"),
    ("nat_gateway.address", "address = \"10.5.1.9\"", "address = \"10.5.1.8\"",
     "changed nat_gateway nat: address: 10.5.1.9 removed, address: 10.5.1.8 added"),
    ("nat_gateway.public_address", "public_address = \"203.0.113.99\"", "",
     "changed nat_gateway nat: public_address: 203.0.113.99 -> none"),
    ("network_interface.name", "\"eni\"", "\"card\"",
     "removed network_interface eni\nadded network_interface card\nchanged route_table more: route 172.16.1.0/24: interface:eni -> interface:card\nremoved attachment interface:eni (takes a restart)\nadded attachment interface:card (takes a restart)"),
    ("network_interface.subnet", "subnet = \"more-a\" # of eni\naddresses = [\"10.5.1.10\"]", "subnet = \"more-b\"\naddresses = [\"10.5.2.10\"]",
     "changed network_interface eni: subnet: more-a -> more-b, zone: az1 -> az2, address: 10.5.1.10 removed, address: 10.5.2.10 added"),
    ("network_interface.addresses", "[\"10.5.1.10\"]", "[\"10.5.1.11\"]",
     "changed network_interface eni: address: 10.5.1.10 removed, address: 10.5.1.11 added"),
    ("opaque.name", "\"pcx-2\"", "\"peer\"",
     "removed opaque pcx-2\nadded opaque peer"),
    ("opaque.kind", "\"vpc_peering_connection\"", "\"local_gateway\"",
     "changed opaque pcx: kind: vpc_peering_connection -> local_gateway"),
    ("opaque.vpc", "vpc = \"more\" # of pcx-2", "vpc = \"third\"",
     "changed opaque pcx-2: vpc: more -> third, route_table: more:local -> third:local"),
    ("transit_gateway.name", "\"hub\"", "\"wheel\"",
     "changed transit_gateway_route_table hub-spokes: transit_gateway: hub -> wheel"),
    ("transit_gateway_attachment.name", "\"att\"", "\"joint\"",
     "removed transit_gateway_attachment att\nadded transit_gateway_attachment joint\nchanged transit_gateway_route_table spokes: route 10.5.0.0/16: transit_gateway_attachment:att -> transit_gateway_attachment:joint, route 10.9.0.0/16: transit_gateway_attachment:att -> transit_gateway_attachment:joint"),
    ("transit_gateway_attachment.transit_gateway", "transit_gateway = \"tgw\"\nvpc = \"lab\" # of att-lab\nsubnets = [\"lab-a\"]\nroute_table = \"spare-spokes\"", "transit_gateway = \"hub\"\nvpc = \"lab\"\nsubnets = [\"lab-a\"]\nroute_table = \"hub-spokes\"",
     "changed transit_gateway_attachment att-lab: transit_gateway: tgw -> hub, route_table: spare-spokes -> hub-spokes"),
    ("transit_gateway_attachment.vpc", "vpc = \"lab\" # of att-lab\nsubnets = [\"lab-a\"]", "vpc = \"app\"\nsubnets = [\"spare\"]",
     "changed transit_gateway_attachment att-lab: vpc: lab -> app, subnet: lab-a removed, subnet: spare added"),
    ("transit_gateway_attachment.subnets", "subnets = [\"more-a\"]", "subnets = [\"more-a\", \"more-b\"]",
     "changed transit_gateway_attachment att: subnet: more-b added"),
    ("transit_gateway_attachment.route_table", "route_table = \"spokes\"", "route_table = \"spare-spokes\"",
     "changed transit_gateway_attachment att: route_table: spokes -> spare-spokes"),
    ("transit_gateway_attachment.appliance_mode", "appliance_mode = true", "appliance_mode = false",
     "changed transit_gateway_attachment att: appliance_mode: true -> false"),
    ("transit_gateway_route_table.name", "\"hub-spokes\"", "\"wheel-spokes\"",
     "removed transit_gateway_route_table hub-spokes\nadded transit_gateway_route_table wheel-spokes"),
    ("transit_gateway_route_table.transit_gateway", "transit_gateway = \"hub\" # of hub-spokes", "transit_gateway = \"tgw\"",
     "changed transit_gateway_route_table hub-spokes: transit_gateway: hub -> tgw"),
    ("transit_gateway_route_table.propagations", "propagations = [\"att\"]", "propagations = [\"att\", \"att-lab\"]",
     "changed transit_gateway_route_table spokes: route 10.0.0.0/16: transit_gateway_attachment:att-lab added"),
    ("transit_gateway_route_table.routes", "routes = [{ destination = \"10.9.0.0/16\", attachment = \"att\" }, { destination = \"10.10.0.0/16\", blackhole = true }]", "",
     "changed transit_gateway_route_table spokes: route 10.10.0.0/16: blackhole removed, route 10.9.0.0/16: transit_gateway_attachment:att removed"),
    ("transit_gateway_route_table.routes.destination", "10.9.0.0/16", "10.8.0.0/16",
     "changed transit_gateway_route_table spokes: route 10.9.0.0/16: transit_gateway_attachment:att removed, route 10.8.0.0/16: transit_gateway_attachment:att added"),
    ("transit_gateway_route_table.routes.attachment", "attachment = \"att\"", "attachment = \"att-lab\"",
     "changed transit_gateway_route_table spokes: route 10.9.0.0/16: transit_gateway_attachment:att -> transit_gateway_attachment:att-lab"),
    ("transit_gateway_route_table.routes.blackhole", "destination = \"10.10.0.0/16\", blackhole = true", "destination = \"10.10.0.0/16\", attachment = \"att-lab\"",
     "changed transit_gateway_route_table spokes: route 10.10.0.0/16: blackhole -> transit_gateway_attachment:att-lab"),
    ("prefix_list.name", "\"shops\"", "\"stores\"",
     "removed prefix_list shops\nadded prefix_list stores"),
    ("prefix_list.entries", "172.21.0.0/16", "172.22.0.0/16",
     "changed prefix_list shops: entry: 172.21.0.0/16 removed, entry: 172.22.0.0/16 added"),
    ("route_table.propagating", "propagating = [\"vgw\"]", "",
     "changed route_table more: propagated 172.31.0.0/16: virtual_private_gateway:vgw removed"),
    ("route_table.routes.prefix_list", "prefix_list = \"offices\"", "prefix_list = \"shops\"",
     "changed route_table more: route prefix_list:offices 172.20.0.0/16: opaque:pcx removed, route prefix_list:shops 172.21.0.0/16: opaque:pcx added"),
    ("route_table.routes.endpoint_group", "endpoint_group = \"zones\"", "endpoint = \"vpce-a\"",
     "changed route_table app-a: route 100.64.0.0/10: endpoint_group:zones -> endpoint:vpce-a"),
    ("route_table.routes.virtual_private_gateway", "\"172.16.3.0/24\", virtual_private_gateway = \"vgw\"", "\"172.16.3.0/24\", opaque = \"pcx\"",
     "changed route_table more: route 172.16.3.0/24: virtual_private_gateway:vgw -> opaque:pcx"),
    ("route_table.routes.egress_only_internet_gateway", "\"::/0\", egress_only_internet_gateway = \"eigw\"", "\"::/0\", opaque = \"pcx\"",
     "changed route_table more: route ::/0: egress_only_internet_gateway:eigw -> opaque:pcx"),
    ("route_table.routes.nat_gateway", "\"0.0.0.0/0\", nat_gateway = \"nat\"", "\"0.0.0.0/0\", interface = \"eni\"",
     "changed route_table more: route 0.0.0.0/0: nat_gateway:nat -> interface:eni"),
    ("route_table.routes.interface", "\"172.16.1.0/24\", interface = \"eni\"", "\"172.16.1.0/24\", nat_gateway = \"nat\"",
     "changed route_table more: route 172.16.1.0/24: interface:eni -> nat_gateway:nat"),
    ("route_table.routes.opaque", "destination = \"172.16.2.0/24\", opaque = \"pcx\"", "destination = \"172.16.2.0/24\", interface = \"eni\"",
     "changed route_table more: route 172.16.2.0/24: opaque:pcx -> interface:eni"),
    ("endpoint_group.name", "\"zones\"", "\"both\"",
     "changed route_table app-a: route 100.64.0.0/10: endpoint_group:zones -> endpoint_group:both\nremoved endpoint_group zones\nadded endpoint_group both"),
    ("endpoint_group.mode", "mode = \"active_standby\"\nautomatic_return = true\nreturn_after_seconds = 90\n", "mode = \"weighted\"\n",
     "changed endpoint_group zones: mode: active_standby -> weighted, return_after_seconds: 90 -> none"),
    ("endpoint_group.members", "members = [{ endpoint = \"vpce-a\", weight = 100 }, { endpoint = \"vpce-e\", weight = 0, enabled = true }]", "members = [{ endpoint = \"vpce-c\", weight = 100 }, { endpoint = \"vpce-e\", weight = 0 }]",
     "changed endpoint_group zones: member vpce-a: 100 removed, member vpce-c: 100 added"),
    ("endpoint_group.members.endpoint", "{ endpoint = \"vpce-a\", weight = 100 }", "{ endpoint = \"vpce-c\", weight = 100 }",
     "changed endpoint_group zones: member vpce-a: 100 removed, member vpce-c: 100 added"),
    ("endpoint_group.members.enabled", "enabled = true }", "enabled = false }",
     "changed endpoint_group zones: member vpce-e: 0 -> 0 disabled"),
    ("endpoint_group.automatic_return", "automatic_return = true\nreturn_after_seconds = 90", "automatic_return = false",
     "changed endpoint_group zones: return_after_seconds: 90 -> none"),
    ("endpoint_group.return_after_seconds", "return_after_seconds = 90", "return_after_seconds = 30",
     "changed endpoint_group zones: return_after_seconds: 90 -> 30"),
    ("endpoint_group.members.weight", "weight = 100 }, { endpoint = \"vpce-e\", weight = 0,", "weight = 0 }, { endpoint = \"vpce-e\", weight = 100,",
     "changed endpoint_group zones: member vpce-a: 100 -> 0, member vpce-e: 0 -> 100"),
    ("attachment.interface", "interface = \"eni\" # attached", "subnet = \"more-b\"",
     "removed attachment interface:eni (takes a restart)\nadded attachment subnet:more-b (takes a restart)"),
    ("attachment.nat_gateway", "nat_gateway = \"nat\" # attached", "subnet = \"more-b\"",
     "removed attachment nat_gateway:nat (takes a restart)\nadded attachment subnet:more-b (takes a restart)"),
    ("attachment.virtual_private_gateway", "virtual_private_gateway = \"vgw\" # attached", "subnet = \"more-b\"",
     "removed attachment virtual_private_gateway:vgw (takes a restart)\nadded attachment subnet:more-b (takes a restart)"),
    ("attachment.egress_only_internet_gateway", "egress_only_internet_gateway = \"eigw\" # attached", "subnet = \"more-b\"",
     "removed attachment egress_only_internet_gateway:eigw (takes a restart)\nadded attachment subnet:more-b (takes a restart)"),
    ("attachment.opaque", "opaque = \"pcx\" # attached", "subnet = \"more-b\"",
     "removed attachment opaque:pcx (takes a restart)\nadded attachment subnet:more-b (takes a restart)"),
    ("intent.uninspected", "uninspected = true", "inspected_by = \"watching\"",
     "removed intent subnet:more-a -> subnet:more-b uninspected\nadded intent subnet:more-a -> subnet:more-b by watching"),
    ("endpoint.name", "\"vpce-c\"", "\"vpce-d\"",
     "removed endpoint vpce-c\nadded endpoint vpce-d"),
    ("endpoint.subnet", "subnet = \"gwlbe-a\" # of vpce-c", "subnet = \"gwlbe-b\"",
     "changed endpoint vpce-c: subnet: gwlbe-a -> gwlbe-b, zone: az1 -> az2, address: 10.0.101.4 removed, address: 10.0.102.5 added"),
    ("endpoint.service", "service = \"inspection\" # of vpce-c", "service = \"watching\"",
     "changed endpoint vpce-c: service: inspection -> watching"),
    ("endpoint.wire_id", "0x0000000000000001", "0x0000000000000002",
     "changed endpoint vpce-a: wire_id: 0x0000000000000001 -> 0x0000000000000002"),
    ("endpoint.address", "10.0.101.5", "10.0.101.6",
     "changed endpoint vpce-a: address: 10.0.101.5 removed, address: 10.0.101.6 added"),
    ("intent.from", "from = \"internet_gateway:igw\"", "from = \"subnet:spare\"",
     "removed intent internet_gateway:igw -> subnet:app-a by inspection\nadded intent subnet:spare -> subnet:app-a by inspection"),
    ("intent.to", "to = \"subnet:app-a\"", "to = \"subnet:gwlbe-*\"",
     "removed intent internet_gateway:igw -> subnet:app-a by inspection\nadded intent internet_gateway:igw -> subnet:gwlbe-a and subnet:gwlbe-b by inspection"),
    ("intent.inspected_by", "inspected_by = \"inspection\"", "inspected_by = \"watching\"",
     "removed intent internet_gateway:igw -> subnet:app-a by inspection\nadded intent internet_gateway:igw -> subnet:app-a by watching"),

    ("endpoint_service.name", "\"idle\"", "\"lazy\"",
     "removed endpoint_service idle\nadded endpoint_service lazy"),
    ("endpoint_service.load_balancers", "[\"fw\", \"fw-2\"]", "[\"fw-2\", \"fw\"]",
     "changed endpoint_service inspection: load_balancers: fw, fw-2 -> fw-2, fw"),

    ("load_balancer.name", "\"fw-2\"", "\"fw-3\"",
     "changed endpoint_service inspection: load_balancers: fw, fw-2 -> fw, fw-3\nremoved load_balancer fw-2\nadded load_balancer fw-3"),
    ("load_balancer.target_group", "target_group = \"second\"", "target_group = \"fw-reserve\"",
     "changed load_balancer fw-2: target_group: second -> fw-reserve"),
    ("load_balancer.nodes", "{ zone = \"az3\", address = \"192.0.2.3\" },", "",
     "changed load_balancer fw: node az3: 192.0.2.3 removed"),
    ("load_balancer.nodes.zone", "{ zone = \"az3\", address", "{ zone = \"az4\", address",
     "changed load_balancer fw: node az3: 192.0.2.3 removed, node az4: 192.0.2.3 added"),
    ("load_balancer.nodes.address", "address = \"192.0.2.1\"", "address = \"192.0.2.9\"",
     "changed load_balancer fw: node az1: 192.0.2.1 -> 192.0.2.9"),
    ("load_balancer.netns", "netns = \"gwlb\"", "netns = \"underlay\"",
     "changed load_balancer fw: netns: gwlb -> underlay (takes a restart)"),
    ("load_balancer.cross_zone", "cross_zone = false # of fw", "cross_zone = true",
     "changed load_balancer fw: cross_zone: false -> true"),
    ("load_balancer.spill_over_below_healthy_targets", "spill_over_below_healthy_targets = 2", "spill_over_below_healthy_targets = 0",
     "changed load_balancer fw: spill_over_below_healthy_targets: 2 -> 0"),
    ("load_balancer.traffic_mode", "traffic_mode = \"load_balance\"", "traffic_mode = \"bypass\"",
     "changed load_balancer fw: traffic_mode: load_balance -> bypass"),
    ("load_balancer.tcp_idle_timeout_seconds", "tcp_idle_timeout_seconds = 350", "tcp_idle_timeout_seconds = 600",
     "changed load_balancer fw: tcp_idle_timeout: 350 s -> 600 s"),
    ("load_balancer.tcp_half_open_timeout_seconds", "tcp_half_open_timeout_seconds = 60", "tcp_half_open_timeout_seconds = 6",
     "changed load_balancer fw: tcp_half_open_timeout: 60 s -> 6 s"),
    ("load_balancer.tcp_half_closed_timeout_seconds", "tcp_half_closed_timeout_seconds = 120", "tcp_half_closed_timeout_seconds = 12",
     "changed load_balancer fw: tcp_half_closed_timeout: 120 s -> 12 s"),
    ("load_balancer.tcp_closed_timeout_seconds", "tcp_closed_timeout_seconds = 30", "tcp_closed_timeout_seconds = 3",
     "changed load_balancer fw: tcp_closed_timeout: 30 s -> 3 s"),
    ("load_balancer.other_idle_timeout_seconds", "other_idle_timeout_seconds = 120", "other_idle_timeout_seconds = 60",
     "changed load_balancer fw: other_idle_timeout: 120 s -> 60 s"),
    ("load_balancer.send_tcp_reset_on_idle_timeout", "send_tcp_reset_on_idle_timeout = false", "send_tcp_reset_on_idle_timeout = true",
     "changed load_balancer fw: send_tcp_reset_on_idle_timeout: false -> true"),
    ("load_balancer.tcp_unknown_flow", "tcp_unknown_flow = \"drop\"", "tcp_unknown_flow = \"reset\"",
     "changed load_balancer fw: tcp_unknown_flow: drop -> reset"),
    ("load_balancer.adopt_after_start", "adopt_after_start = true", "adopt_after_start = false",
     "changed load_balancer fw: adopt_after_start: true -> false"),
    ("load_balancer.outer_dont_fragment", "outer_dont_fragment = false", "outer_dont_fragment = true",
     "changed load_balancer fw: outer_dont_fragment: false -> true (takes a restart)"),
    ("load_balancer.tcp_mss_clamp", "tcp_mss_clamp = false", "tcp_mss_clamp = true",
     "changed load_balancer fw: tcp_mss_clamp: false -> true"),

    ("target_group.name", "\"fw-reserve\"", "\"reserve\"",
     "removed target_group fw-reserve\nadded target_group reserve"),
    ("target_group.dialect", "dialect = \"aws\"", "dialect = \"tencent\"",
     "changed target_group fw: dialect: aws -> tencent (takes a restart)"),
    ("target_group.port", "port = 6082", "port = 6083",
     "changed target_group fw: port: 6082 -> 6083\nremoved target fw/192.0.2.12:6082\nadded target fw/192.0.2.12:6083"),
    ("target_group.stickiness", "stickiness = \"5-tuple\"", "stickiness = \"3-tuple\"",
     "changed target_group fw: stickiness: 5-tuple -> 3-tuple (takes a restart)"),
    ("target_group.deregistration_delay_seconds", "deregistration_delay_seconds = 300", "deregistration_delay_seconds = 0",
     "changed target_group fw: deregistration_delay: 300 s -> 0 s"),
    ("target_group.target_failover", "target_failover = { on_unhealthy = \"no_rebalance\", on_deregistration = \"no_rebalance\" }", "target_failover = { on_unhealthy = \"rebalance\", on_deregistration = \"rebalance\" }",
     "changed target_group fw: target_failover.on_unhealthy: no_rebalance -> rebalance, target_failover.on_deregistration: no_rebalance -> rebalance"),
    ("target_group.target_failover.on_unhealthy", "{ on_unhealthy = \"no_rebalance\"", "{ on_unhealthy = \"rebalance\"",
     "changed target_group fw: target_failover.on_unhealthy: no_rebalance -> rebalance"),
    ("target_group.target_failover.on_deregistration", "on_deregistration = \"no_rebalance\"", "on_deregistration = \"rebalance\"",
     "changed target_group fw: target_failover.on_deregistration: no_rebalance -> rebalance"),
    ("target_group.send_tcp_reset", "send_tcp_reset = { on_unhealthy = false, on_deregistration = false, both_ends = false }", "send_tcp_reset = { on_unhealthy = true, on_deregistration = true, both_ends = true }",
     "changed target_group fw: send_tcp_reset.on_unhealthy: false -> true, send_tcp_reset.on_deregistration: false -> true, send_tcp_reset.both_ends: false -> true"),
    ("target_group.send_tcp_reset.on_unhealthy", "{ on_unhealthy = false", "{ on_unhealthy = true",
     "changed target_group fw: send_tcp_reset.on_unhealthy: false -> true"),
    ("target_group.send_tcp_reset.on_deregistration", "on_deregistration = false", "on_deregistration = true",
     "changed target_group fw: send_tcp_reset.on_deregistration: false -> true"),
    ("target_group.send_tcp_reset.both_ends", "both_ends = false", "both_ends = true",
     "changed target_group fw: send_tcp_reset.both_ends: false -> true"),
    ("target_group.when_none_healthy", "when_none_healthy = \"fail_open\"", "when_none_healthy = \"fail_closed\"",
     "changed target_group fw: when_none_healthy: fail_open -> fail_closed"),
    ("target_group.after_bypass", "after_bypass = \"keep\"", "after_bypass = \"inspect\"",
     "changed target_group fw: after_bypass: keep -> inspect"),
    ("target_group.slow_start_seconds", "slow_start_seconds = 0", "slow_start_seconds = 30",
     "changed target_group fw: slow_start: 0 s -> 30 s"),
    ("target_group.tolerate_bad_udp_checksum", "tolerate_bad_udp_checksum = false", "tolerate_bad_udp_checksum = true",
     "changed target_group fw: tolerate_bad_udp_checksum: false -> true (takes a restart)"),
    ("target_group.health_check", "health_check = { port = 8080, healthy_threshold = 2 }", "health_check = { healthy_threshold = 2 }",
     "changed target_group second: health_check.port: 8080 -> 80"),
    ("target_group.health_check.enabled", "enabled = true", "enabled = false",
     "changed target_group fw: health_check.enabled: true -> false"),
    ("target_group.health_check.protocol", "protocol = \"HTTPS\"\nca_file = \"/etc/gwlb/ca.pem\"", "protocol = \"HTTP\"",
     "changed target_group fw: health_check.protocol: HTTPS -> HTTP, health_check.ca_file: /etc/gwlb/ca.pem -> none"),
    ("target_group.health_check.port", "port = 443", "port = 8443",
     "changed target_group fw: health_check.port: 443 -> 8443"),
    ("target_group.health_check.interval_seconds", "interval_seconds = 10", "interval_seconds = 5",
     "changed target_group fw: health_check.interval: 10 s -> 5 s"),
    ("target_group.health_check.interval_ms", "interval_seconds = 10", "interval_ms = 5500",
     "changed target_group fw: health_check.interval: 10 s -> 5500 ms"),
    ("target_group.health_check.timeout_seconds", "timeout_seconds = 5", "timeout_seconds = 4",
     "changed target_group fw: health_check.timeout: 5 s -> 4 s"),
    ("target_group.health_check.timeout_ms", "timeout_seconds = 5", "timeout_ms = 50",
     "changed target_group fw: health_check.timeout: 5 s -> 50 ms"),
    ("target_group.health_check.healthy_threshold", "healthy_threshold = 5", "healthy_threshold = 4",
     "changed target_group fw: health_check.healthy_threshold: 5 -> 4"),
    ("target_group.health_check.unhealthy_threshold", "unhealthy_threshold = 3", "unhealthy_threshold = 4",
     "changed target_group fw: health_check.unhealthy_threshold: 3 -> 4"),
    ("target_group.health_check.host", "fw.example.com", "fw.example.net",
     "changed target_group fw: health_check.host: fw.example.com -> fw.example.net"),
    ("target_group.health_check.path", "/healthz", "/ready",
     "changed target_group fw: health_check.path: /healthz -> /ready"),
    ("target_group.health_check.matcher", "200-299", "200,204",
     "changed target_group fw: health_check.matcher: 200-299 -> 200,204"),
    ("target_group.health_check.ca_file", "/etc/gwlb/ca.pem", "/etc/gwlb/other.pem",
     "changed target_group fw: health_check.ca_file: /etc/gwlb/ca.pem -> /etc/gwlb/other.pem"),
    ("target_group.tunnel_check", "tunnel_check = {}", "",
     "changed target_group second: tunnel_check: on -> off"),
    ("target_group.tunnel_check.interval_seconds", "interval_seconds = 20", "interval_seconds = 30",
     "changed target_group fw: tunnel_check.interval: 20 s -> 30 s"),
    ("target_group.tunnel_check.interval_ms", "interval_seconds = 20", "interval_ms = 6500",
     "changed target_group fw: tunnel_check.interval: 20 s -> 6500 ms"),
    ("target_group.tunnel_check.timeout_seconds", "timeout_seconds = 6", "timeout_seconds = 7",
     "changed target_group fw: tunnel_check.timeout: 6 s -> 7 s"),
    ("target_group.tunnel_check.timeout_ms", "timeout_seconds = 6", "timeout_ms = 100",
     "changed target_group fw: tunnel_check.timeout: 6 s -> 100 ms"),
    ("target_group.tunnel_check.healthy_threshold", "healthy_threshold = 6", "healthy_threshold = 7",
     "changed target_group fw: tunnel_check.healthy_threshold: 6 -> 7"),
    ("target_group.tunnel_check.unhealthy_threshold", "unhealthy_threshold = 8", "unhealthy_threshold = 9",
     "changed target_group fw: tunnel_check.unhealthy_threshold: 8 -> 9"),
    ("target_group.tunnel_check.source", "source = \"198.51.100.1\"", "source = \"198.51.100.3\"",
     "changed target_group fw: tunnel_check.source: 198.51.100.1 -> 198.51.100.3"),
    ("target_group.tunnel_check.destination", "destination = \"198.51.100.2\"", "",
     "changed target_group fw: tunnel_check.destination: 198.51.100.2 -> none"),
    ("target_group.tunnel_check.measure_mtu", "measure_mtu = true", "measure_mtu = false",
     "changed target_group fw: tunnel_check.measure_mtu: true -> false"),

    ("target.group", "group = \"second\"", "group = \"fw-reserve\"",
     "removed target second/192.0.2.21:6081\nadded target fw-reserve/192.0.2.21:6081"),
    ("target.address", "192.0.2.21", "192.0.2.22",
     "removed target second/192.0.2.21:6081\nadded target second/192.0.2.22:6081"),
    ("target.port", "port = 7000", "port = 7001",
     "removed target fw/192.0.2.11:7000\nadded target fw/192.0.2.11:7001"),
    ("target.zone", "zone = \"az1\" # of 192.0.2.11", "zone = \"az2\"",
     "changed target fw/192.0.2.11:7000: zone: az1 -> az2"),
    ("target.weight", "weight = 100", "weight = 50",
     "changed target fw/192.0.2.11:7000: weight: 100 -> 50"),

    ("attachment.subnet", "subnet = \"app-a\" # attached", "subnet = \"spare\"",
     "removed attachment subnet:app-a (takes a restart)\nadded attachment subnet:spare (takes a restart)"),
    ("attachment.internet_gateway", "internet_gateway = \"igw\" # attached", "internet_gateway = \"lab-igw\"",
     "removed attachment internet_gateway:igw (takes a restart)\nadded attachment internet_gateway:lab-igw (takes a restart)"),
    ("attachment.tun", "tun = \"app-a\"", "tun = \"app-z\"",
     "changed attachment subnet:app-a: tun: app-a -> app-z (takes a restart)"),
    ("attachment.netns", "netns = \"inside\"", "",
     "changed attachment subnet:app-a: netns: inside -> none (takes a restart)"),
    ("attachment.mtu", "mtu = 1400", "mtu = 1500",
     "changed attachment subnet:app-a: mtu: 1400 -> 1500 (takes a restart)"),
    ("attachment.addresses", "198.51.100.10/24", "198.51.100.11/24",
     "changed attachment internet_gateway:igw: addresses: 198.51.100.10/24 removed, addresses: 198.51.100.11/24 added (takes a restart)"),
    ("attachment.default_route", "default_route = true", "default_route = false",
     "changed attachment internet_gateway:igw: default_route: true -> false (takes a restart)"),
    ("attachment.offload", "offload = true # of app-a", "offload = false",
     "changed attachment subnet:app-a: offload: true -> false (takes a restart)"),
    ("attachment.gso_max_size", "gso_max_size = 30000", "gso_max_size = 40000",
     "changed attachment internet_gateway:igw: gso_max_size: 30000 -> 40000 (takes a restart)"),
    ("attachment.big_tcp", "big_tcp = false", "big_tcp = true",
     "changed attachment internet_gateway:igw: big_tcp: false -> true (takes a restart)"),

    ("flow_log.name", "name = \"records\"", "name = \"lines\"",
     "removed flow_log records (takes a restart)\nadded flow_log lines (takes a restart)"),
    ("flow_log.resource", "resource = \"load_balancer:fw\" # logged", "resource = \"endpoint:vpce-a\"",
     "changed flow_log records: resource: load_balancer:fw -> endpoint:vpce-a (takes a restart)"),
    ("flow_log.traffic_type", "traffic_type = \"REJECT\"", "traffic_type = \"ALL\"",
     "changed flow_log records: traffic_type: REJECT -> ALL (takes a restart)"),
    ("flow_log.format", "format = \"${srcaddr} ${dstaddr}\"", "format = \"${target}\"",
     "changed flow_log records: format: ${srcaddr} ${dstaddr} -> ${target} (takes a restart)"),
    ("flow_log.max_aggregation_interval_seconds", "max_aggregation_interval_seconds = 7", "max_aggregation_interval_seconds = 60",
     "changed flow_log records: max_aggregation_interval: 7 s -> 60 s (takes a restart)"),
    ("flow_log.extended_ranges", "max_aggregation_interval_seconds = 7\nextended_ranges = true # of records", "extended_ranges = false",
     "changed flow_log records: max_aggregation_interval: 7 s -> 600 s (takes a restart)"),
    ("flow_log.destination", "/var/log/gwlb/flows.log", "/var/log/flows.log",
     "changed flow_log records: destination: /var/log/gwlb/flows.log -> /var/log/flows.log (takes a restart)"),
    ("flow_log.max_file_bytes", "max_file_bytes = 1000000", "max_file_bytes = 2000000",
     "changed flow_log records: max_file_bytes: 1000000 -> 2000000 (takes a restart)"),
    ("flow_log.max_files", "max_files = 3", "max_files = 4",
     "changed flow_log records: max_files: 3 -> 4 (takes a restart)"),
];

/// Keys that no two right files can differ in, or that are no setting.
const NO_EDIT: &[&str] = &[
    // Refused if they are not the default.
    "endpoint_service.acceptance_required",
    "endpoint_service.allowed_principals",
    // Refused by the gateway, which does not carry it.
    "route_table.routes.transit_gateway",
    // These say what may be written, and change nothing by themselves.
    "load_balancer.extended_ranges",
    "target_group.health_check.extended_ranges",
    "target_group.tunnel_check.extended_ranges",
];

#[test]
fn every_key_that_changes_is_told() {
    let mut wrong = Vec::new();
    for (path, from, to, expected) in EDITS {
        let new = edited(from, to);
        assert_ne!(values(EVERYTHING, path), values(&new, path), "{path} is not what is edited");
        let found = lines(EVERYTHING, &new).join("\n");
        if found != *expected {
            wrong.push(format!("{path}: {expected:?}, but it is {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_key_of_the_format_is_forgotten() {
    let schema = config::schema();
    let root = schema.as_value();
    let mut keys = BTreeSet::new();
    for (table, value) in root["properties"].as_object().unwrap() {
        collect(root, value, table, &mut keys);
    }
    let known = EDITS.iter().map(|(path, ..)| *path).chain(NO_EDIT.iter().copied());
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    assert_eq!(known, keys);
}

/// The paths of all keys below a table.
fn collect(root: &Json, schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    let schema = schema.get("items").unwrap_or(schema);
    // An optional one is this or null.
    let schema = schema.get("anyOf").map_or(schema, |choices| &choices[0]);
    let reference = schema.get("$ref").and_then(Json::as_str);
    let schema =
        reference.map_or(schema, |path| root.pointer(path.strip_prefix('#').unwrap()).unwrap());
    for (key, value) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let path = format!("{path}.{key}");
        collect(root, value, &path, keys);
        keys.insert(path);
    }
}

/// All values of a key, in the order of the file.
fn values(text: &str, path: &str) -> Vec<toml::Value> {
    let file: toml::Table = toml::from_str(text).unwrap();
    let mut found = vec![toml::Value::Table(file)];
    for key in path.split('.') {
        let inside = found.iter().filter_map(|value| value.get(key));
        found = inside
            .flat_map(|value| match value {
                toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
                    items.clone()
                }
                value => vec![value.clone()],
            })
            .collect();
    }
    found
}

#[test]
fn the_same_is_no_change() {
    assert_eq!(lines(EVERYTHING, EVERYTHING), [""; 0]);
}

#[test]
fn what_comes_is_the_mirror_of_what_goes() {
    for (path, from, to, _) in EDITS {
        let (old, new) = (settings(EVERYTHING), settings(&edited(from, to)));
        let count = |changes: &[Change], kind| changes.iter().filter(|it| it.kind == kind).count();
        let (there, back) = (diff(&old, &new), diff(&new, &old));
        assert_eq!(count(&there, ChangeKind::Added), count(&back, ChangeKind::Removed), "{path}");
        assert_eq!(count(&there, ChangeKind::Removed), count(&back, ChangeKind::Added), "{path}");
        assert_eq!(count(&there, ChangeKind::Changed), count(&back, ChangeKind::Changed), "{path}");
        assert!(there.iter().any(|it| it.restart) == back.iter().any(|it| it.restart), "{path}");
    }
}

/// Tables and the items of lists are known by their names, not by their places.
#[rstest]
#[case::vpc("vpc")]
#[case::subnet("subnet")]
#[case::internet_gateway("internet_gateway")]
#[case::route_table("route_table")]
#[case::endpoint("endpoint")]
#[case::endpoint_service("endpoint_service")]
#[case::load_balancer("load_balancer")]
#[case::target_group("target_group")]
#[case::target("target")]
#[case::attachment("attachment")]
fn the_order_of_tables_is_no_change(#[case] table: &str) {
    let mut file: toml::Table = toml::from_str(EVERYTHING).unwrap();
    let tables = file.get_mut(table).and_then(toml::Value::as_array_mut).unwrap();
    assert!(tables.len() > 1, "nothing to turn round");
    tables.reverse();
    for entry in tables {
        for key in ["cidrs", "routes", "nodes", "addresses"] {
            if let Some(list) = entry.get_mut(key).and_then(toml::Value::as_array_mut) {
                list.reverse();
            }
        }
    }
    assert_eq!(lines(EVERYTHING, &toml::to_string(&file).unwrap()), [""; 0]);
}

#[test]
fn only_what_a_running_gateway_cannot_change_takes_a_restart() {
    let restarts: Vec<&str> = EDITS
        .iter()
        .filter(|(_, from, to, _)| {
            let changes = diff(&settings(EVERYTHING), &settings(&edited(from, to)));
            changes.iter().any(|change| change.restart)
        })
        .map(|(path, ..)| *path)
        .collect();
    assert_eq!(
        restarts,
        [
            "gateway.workers",
            "gateway.secret_file",
            "gateway.admin",
            "gateway.admin_token_file",
            "gateway.metrics",
            "gateway.max_flows_per_worker",
            "gateway.source_ports_per_worker",
            "gateway.pin_workers",
            "gateway.busy_poll_us",
            "gateway.udp_receive_buffer_bytes",
            "gateway.udp_send_buffer_bytes",
            "gateway.huge_pages",
            "gateway.flow_records",
            // Their attachments go by other names then.
            "nat_gateway.name",
            "network_interface.name",
            "attachment.interface",
            "attachment.nat_gateway",
            "attachment.virtual_private_gateway",
            "attachment.egress_only_internet_gateway",
            "attachment.opaque",
            "load_balancer.netns",
            "load_balancer.outer_dont_fragment",
            "target_group.dialect",
            "target_group.stickiness",
            "target_group.tolerate_bad_udp_checksum",
            "attachment.subnet",
            "attachment.internet_gateway",
            "attachment.tun",
            "attachment.netns",
            "attachment.mtu",
            "attachment.addresses",
            "attachment.default_route",
            "attachment.offload",
            "attachment.gso_max_size",
            "attachment.big_tcp",
            "flow_log.name",
            "flow_log.resource",
            "flow_log.traffic_type",
            "flow_log.format",
            "flow_log.max_aggregation_interval_seconds",
            "flow_log.extended_ranges",
            "flow_log.destination",
            "flow_log.max_file_bytes",
            "flow_log.max_files",
        ]
    );
}

/// What takes privileges can be had only at the start: what more of it a file needs takes a restart,
/// and what less of it does not.
#[rstest]
#[case::a_namespace(
    "name = \"ids\"\ntarget_group = \"ids\"",
    "name = \"ids\"\ntarget_group = \"ids\"\nnetns = \"other\"",
    "changed load_balancer ids: netns: none -> other (takes a restart)"
)]
#[case::a_namespace_that_another_one_is_in(
    "name = \"ids\"\ntarget_group = \"ids\"",
    "name = \"ids\"\ntarget_group = \"ids\"\nnetns = \"gwlb\"",
    "changed load_balancer ids: netns: none -> gwlb"
)]
#[case::a_load_balancer_in_a_namespace(
    "[[target_group]]\nname = \"ids\"",
    "[[load_balancer]]\nname = \"more\"\ntarget_group = \"fw-reserve\"\nnetns = \"other\"\nnodes = [{ zone = \"az1\", address = \"192.0.2.8\" }]\n\n[[target_group]]\nname = \"ids\"",
    "added load_balancer more (takes a restart)"
)]
#[case::a_node(
    "address = \"192.0.2.1\"",
    "address = \"192.0.2.9\"",
    "changed load_balancer fw: node az1: 192.0.2.1 -> 192.0.2.9"
)]
#[case::a_port(
    "port = 7000",
    "port = 700",
    "removed target fw/192.0.2.11:7000\nadded target fw/192.0.2.11:700 (takes a restart)"
)]
fn what_takes_privileges_takes_a_restart(
    #[case] from: &str,
    #[case] to: &str,
    #[case] expected: &str,
) {
    assert_eq!(lines(EVERYTHING, &edited(from, to)).join("\n"), expected);
}

#[test]
fn another_ear_for_bad_checksums_takes_a_restart() {
    let tolerant = edited("tolerate_bad_udp_checksum = false", "tolerate_bad_udp_checksum = true");
    let lines = |from: &str, to: &str| lines(&tolerant, &tolerant.replacen(from, to, 1)).join("\n");
    let node = lines("address = \"192.0.2.1\"", "address = \"192.0.2.9\"");
    assert_eq!(
        node,
        "changed load_balancer fw: node az1: 192.0.2.1 -> 192.0.2.9 (takes a restart)"
    );
    let port = lines("port = 7000", "port = 7001");
    assert!(port.ends_with("added target fw/192.0.2.11:7001 (takes a restart)"), "{port}");
    let known = lines("port = 7000", "port = 6082");
    assert_eq!(known, "removed target fw/192.0.2.11:7000\nadded target fw/192.0.2.11:6082");
    let fewer = lines("{ zone = \"az3\", address = \"192.0.2.3\" },", "");
    assert_eq!(fewer, "changed load_balancer fw: node az3: 192.0.2.3 removed");
}

#[test]
fn changes_come_in_the_order_of_the_reference() {
    let new = edited("\"third\"", "\"fourth\"");
    let new = new.replace("\"fw-reserve\"", "\"reserve\"").replace("192.0.2.21", "192.0.2.22");
    assert_eq!(
        lines(EVERYTHING, &new),
        [
            "removed vpc third",
            "added vpc fourth",
            "removed target_group fw-reserve",
            "added target_group reserve",
            "removed target second/192.0.2.21:6081",
            "added target second/192.0.2.22:6081",
        ]
    );
}

#[test]
fn programs_read_it_as_json() {
    let new = edited("weight = 100", "weight = 50").replace("192.0.2.21", "192.0.2.22");
    let changes = diff(&settings(EVERYTHING), &settings(&new));
    let expected = serde_json::json!([
        { "kind": "changed", "table": "target", "name": "fw/192.0.2.11:7000",
          "details": ["weight: 100 -> 50"], "restart": false },
        { "kind": "removed", "table": "target", "name": "second/192.0.2.21:6081",
          "details": [], "restart": false },
        { "kind": "added", "table": "target", "name": "second/192.0.2.22:6081",
          "details": [], "restart": false },
    ]);
    assert_eq!(serde_json::to_value(changes).unwrap(), expected);
}
