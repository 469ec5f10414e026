//! A topology is refused exactly if some address circles between its endpoints: random tables
//! against a walk over every address that they tell apart.
#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use router::source::{Problems, Source};
use router::{Topology, config};

/// All destinations lie in 192.0.2.0/28, so that 16 addresses are all there are.
const ADDRESSES: u8 = 16;

/// For each endpoint its table: destinations as (first address, prefix length), each with the
/// endpoint that it leads to, or none for a blackhole.
type Tables = Vec<Vec<((u8, u8), Option<usize>)>>;

fn tables() -> impl Strategy<Value = Tables> {
    (1usize..6)
        .prop_flat_map(|endpoints| {
            let destination = (0..ADDRESSES, 28u8..=32).prop_map(|(address, length)| {
                let size = 1u8 << (32 - length);
                (address / size * size, length)
            });
            let route = (destination, prop::option::weighted(0.7, 0..endpoints));
            prop::collection::vec(prop::collection::vec(route, 0..5), endpoints)
        })
        .prop_map(|mut tables: Tables| {
            for table in &mut tables {
                table.sort();
                table.dedup_by_key(|(destination, _)| *destination);
            }
            tables
        })
}

fn build(tables: &Tables) -> Result<Topology, Problems> {
    let mut text = "[[vpc]]\nname = \"v\"\ncidrs = [\"10.0.0.0/8\"]\n".to_owned();
    for (index, routes) in tables.iter().enumerate() {
        let name = format!("e{index}");
        writeln!(
            text,
            "[[subnet]]\nname = {name:?}\nvpc = \"v\"\nzone = \"z\"\n\
             cidrs = [\"10.0.{index}.0/24\"]\nroute_table = {name:?}\n\
             [[endpoint]]\nname = {name:?}\nsubnet = {name:?}\nservice = \"s\"\n\
             [[route_table]]\nname = {name:?}\nvpc = \"v\"\nroutes = ["
        )
        .unwrap();
        for ((address, length), target) in routes {
            let target = match target {
                Some(endpoint) => format!("endpoint = \"e{endpoint}\""),
                None => "blackhole = true".to_owned(),
            };
            writeln!(text, "{{ destination = \"192.0.2.{address}/{length}\", {target} }},")
                .unwrap();
        }
        text += "]\n";
    }
    let source = Source::new("random.toml", text);
    Topology::build(&config::parse(&source)?, &source)
}

/// The obvious twin of the search: every endpoint, every address, as many steps as a circle needs.
fn circles(tables: &Tables) -> bool {
    let next = |endpoint: usize, address: u8| {
        tables[endpoint]
            .iter()
            .filter(|((first, length), _)| address.wrapping_sub(*first) < 1 << (32 - length))
            .max_by_key(|((_, length), _)| *length)
            .and_then(|(_, target)| *target)
    };
    (0..tables.len()).any(|start| {
        (0..ADDRESSES).any(|address| {
            let walk = std::iter::successors(Some(start), |at| next(*at, address));
            walk.take(tables.len() + 1).count() > tables.len()
        })
    })
}

proptest! {
    #[test]
    fn refused_exactly_if_an_address_circles(tables in tables()) {
        match build(&tables) {
            Ok(topology) => {
                prop_assert!(!circles(&tables), "a circle was not found: {tables:?}");
                for (id, _) in topology.endpoints() {
                    for address in 0..ADDRESSES {
                        let to = IpAddr::V4(Ipv4Addr::new(192, 0, 2, address));
                        let trace = topology.trace(router::Entry::Endpoint(id), to);
                        prop_assert_ne!(trace.outcome, router::NextHop::Loop);
                        prop_assert!(trace.hops.len() <= tables.len());
                    }
                }
            }
            Err(problems) => {
                for problem in &problems {
                    let message = problem.message();
                    prop_assert!(
                        message.contains("in a circle") || message.contains("its own packets"),
                        "another problem: {message}"
                    );
                    // Each route of the circle is pointed at.
                    let pointed = problem.places().all(|place| {
                        problems.source().slice(place.span.clone()).starts_with("\"192.0.2.")
                    });
                    prop_assert!(pointed, "{}", problems);
                }
                prop_assert!(circles(&tables), "no address circles: {problems}");
            }
        }
    }
}
