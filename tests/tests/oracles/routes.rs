//! Longest prefix: the kernel's routing table against ours, route by route and address by address.
//!
//! The kernel is asked which route it has found (`RTM_F_FIB_MATCH`), not only where it leads, so
//! that each answer tells two routes to the same place apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use gwlb_tests::notice;
use ipnet::IpNet;
use netio::netns::ScratchNetns;
use nix::errno::Errno;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use router::source::Source;
use router::{Topology, config};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteScope,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// How many routes of each family, and how many addresses are asked for besides the ends of all
/// prefixes and their neighbours.
const ROUTES: usize = 400;
const ADDRESSES: usize = 2000;

/// The VPC's own ranges: local in every table.
const LOCAL: [&str; 2] = ["100.127.0.0/24", "fc00:ffff::/64"];
/// Where routes lead, in turn.
const TARGETS: [(&str, &str); 5] = [
    ("endpoint = \"one\"", "endpoint:one"),
    ("endpoint = \"two\"", "endpoint:two"),
    ("endpoint = \"three\"", "endpoint:three"),
    ("internet_gateway = \"igw\"", "internet_gateway:igw"),
    ("blackhole = true", "blackhole"),
];

#[test]
fn the_kernel_finds_the_same_routes() {
    let Some(netns) = ScratchNetns::for_test("the_kernel_finds_the_same_routes") else { return };
    let mut runner = TestRunner::deterministic();
    let routes = routes(&mut runner);
    let addresses = addresses(&mut runner, &routes);
    let topology = topology(&routes);
    let table = topology.table(topology.table_by_name("t").unwrap());
    assert_eq!(table.routes().count(), routes.len() + LOCAL.len());
    let from = topology.entry("subnet:s").unwrap();

    let found = netns.run({
        let all: Vec<_> = routes.keys().copied().chain(local()).collect();
        let addresses = addresses.clone();
        move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask(&all, &addresses))
        }
    });
    let found = found.unwrap();
    assert!(found.iter().any(Option::is_none) && found.iter().any(Option::is_some));
    for (address, found) in addresses.iter().zip(&found) {
        let ours = table.candidates(*address).first().map(|route| route.destination);
        assert_eq!(ours, *found, "the route for {address}");
        let expected = match found {
            None => "no_route",
            Some(route) => match routes.get(route) {
                Some(target) => TARGETS[*target].1,
                None => subnet(*address),
            },
        };
        let next = topology.lookup(from, *address);
        assert_eq!(topology.next_hop_name(next), expected, "{address}");
    }
    notice::say(&format!(
        "kernel: finds the same of {} routes for {} addresses\n",
        routes.len() + LOCAL.len(),
        addresses.len()
    ));
}

/// Where an address is that is local.
fn subnet(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(address) if address.octets()[3] < 16 => "subnet:s",
        IpAddr::V4(address) if address.octets()[3] < 32 => "subnet:e",
        _ => "no_subnet",
    }
}

fn local() -> impl Iterator<Item = IpNet> {
    LOCAL.iter().map(|range| range.parse().unwrap())
}

/// Routes by destination, with the number of where each leads.
fn routes(runner: &mut TestRunner) -> BTreeMap<IpNet, usize> {
    let mut routes = BTreeMap::new();
    for four in [true, false] {
        let strategy = (address(four), prefix_len(four));
        let before = routes.len();
        // No default for IPv6, so that there are addresses without a route.
        if four {
            routes.insert("0.0.0.0/0".parse().unwrap(), 0);
        }
        while routes.len() < before + ROUTES {
            let (address, len) = strategy.new_tree(runner).unwrap().current();
            let route = IpNet::new(address, len).unwrap().trunc();
            let usable = route.prefix_len() == 0 || can_be_asked_for(route.network());
            if usable && !local().any(|local| local.contains(&route)) {
                let number = routes.len();
                routes.entry(route).or_insert(number % TARGETS.len());
            }
        }
    }
    routes
}

/// Random addresses, and the ends of every prefix with their outer neighbours.
fn addresses(runner: &mut TestRunner, routes: &BTreeMap<IpNet, usize>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = routes
        .keys()
        .copied()
        .chain(local())
        .flat_map(|route| [route.network(), route.broadcast()])
        .flat_map(neighbours)
        .collect();
    for four in [true, false] {
        let strategy = address(four);
        let random = || strategy.new_tree(runner).unwrap().current();
        addresses.extend(std::iter::repeat_with(random).take(ADDRESSES));
    }
    addresses.retain(|address| can_be_asked_for(*address));
    addresses
}

/// Addresses that have few distinct leading bits, so that prefixes nest.
fn address(four: bool) -> BoxedStrategy<IpAddr> {
    if four {
        (0..8_u32, any::<u32>(), 0..29_u32)
            .prop_map(|(high, noise, shift)| {
                Ipv4Addr::from_bits(high << 29 | noise >> shift >> 3).into()
            })
            .boxed()
    } else {
        (any::<bool>(), 0..8_u128, any::<u128>(), 0..121_u32)
            .prop_map(|(global, high, noise, shift)| {
                let start = if global { 0x2 << 124 } else { 0xfc << 120 };
                Ipv6Addr::from_bits(start | high << 117 | noise >> shift >> 11).into()
            })
            .boxed()
    }
}

fn prefix_len(four: bool) -> BoxedStrategy<u8> {
    // Longer than what all of the IPv6 addresses have in common, so that some have no route.
    let (least, most): (u8, u8) = if four { (1, 32) } else { (14, 128) };
    prop_oneof![6 => least..=most, 1 => Just(most)].boxed()
}

/// The kernel has routes of its own for groups, loopback and the like.
fn can_be_asked_for(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 1..=126 | 128..=223),
        IpAddr::V6(address) => matches!(address.segments()[0], 0x2000..=0x3fff | 0xfc00..=0xfdff),
    }
}

fn neighbours(address: IpAddr) -> [IpAddr; 3] {
    match address {
        IpAddr::V4(address) => [u32::MAX, 0, 1]
            .map(|by| Ipv4Addr::from_bits(address.to_bits().wrapping_add(by)).into()),
        IpAddr::V6(address) => [u128::MAX, 0, 1]
            .map(|by| Ipv6Addr::from_bits(address.to_bits().wrapping_add(by)).into()),
    }
}

fn topology(routes: &BTreeMap<IpNet, usize>) -> Topology {
    let mut text = format!(
        r#"
        vpc = [{{ name = "v", cidrs = ["{}", "{}"] }}]
        subnet = [
            {{ name = "s", vpc = "v", zone = "z", cidrs = ["100.127.0.0/28"], route_table = "t" }},
            {{ name = "e", vpc = "v", zone = "z", cidrs = ["100.127.0.16/28"] }},
        ]
        internet_gateway = [{{ name = "igw", vpc = "v" }}]
        endpoint = [
            {{ name = "one", subnet = "e", service = "x" }},
            {{ name = "two", subnet = "e", service = "x" }},
            {{ name = "three", subnet = "e", service = "x" }},
        ]
        [[route_table]]
        name = "t"
        vpc = "v"
        routes = [
        "#,
        LOCAL[0], LOCAL[1]
    );
    for (route, target) in routes {
        writeln!(text, "{{ destination = \"{route}\", {} }},", TARGETS[*target].0).unwrap();
    }
    text.push(']');
    let source = Source::new("routes.toml", text);
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// Loads the routes and asks for the addresses: the destination of the route that each has.
async fn ask(routes: &[IpNet], addresses: &[IpAddr]) -> Vec<Option<IpNet>> {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle.link().add(LinkVeth::new("out", "peer").build()).execute().await.unwrap();
    for name in ["peer", "out"] {
        let up = LinkUnspec::new_with_name(name).up().build();
        handle.link().set(up).execute().await.unwrap();
    }
    let links = handle.link().get().match_name("out".to_owned()).execute();
    let device = links.try_collect::<Vec<_>>().await.unwrap()[0].header.index;
    for route in routes {
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.network(), route.prefix_len())
            .unwrap()
            .scope(RouteScope::Link)
            .output_interface(device);
        let added = handle.route().add(message.build()).execute().await;
        added.unwrap_or_else(|error| panic!("{route}: {error}"));
    }
    let mut found = Vec::new();
    for address in addresses {
        found.push(route_for(&handle, *address).await);
    }
    found
}

async fn route_for(handle: &Handle, address: IpAddr) -> Option<IpNet> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let mut message =
        RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, bits).unwrap().build();
    message.header.flags = RouteFlags::FibMatch;
    match handle.route().get(message).execute().try_collect::<Vec<_>>().await {
        Ok(routes) => routes.first().map(|route| destination(route, address)),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.to_io().raw_os_error() == Some(Errno::ENETUNREACH as i32) =>
        {
            None
        }
        Err(error) => panic!("{address}: {error}"),
    }
}

fn destination(route: &RouteMessage, asked: IpAddr) -> IpNet {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    // A default route is told without a destination.
    let none: IpAddr =
        if asked.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNet::new(address.unwrap_or(none), route.header.destination_prefix_length).unwrap()
}
