//! What a lookup costs: 100 tables of 1000 routes, each packet in any of them, for any address.
//!
//! `cargo bench -p router --bench lookup`
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot begin ends")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use router::source::Source;
use router::{Entry, Topology, config};

const TABLES: u32 = 100;
const ROUTES: u32 = 1000;
/// Lookups in one round: more than a cache remembers the way of.
const PACKETS: usize = 65_536;

/// A generator of numbers that is the same everywhere (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Prefixes of 8 to 28 bits and of 20 to 64, most of them longer, as tables of the internet have.
fn prefixes(numbers: &mut Numbers, v6: bool) -> Vec<String> {
    let mut prefixes = std::collections::BTreeSet::new();
    while prefixes.len() < ROUTES as usize / 2 {
        let (a, b) = (numbers.next(), numbers.next());
        let net = if v6 {
            let len = 64 - (a % 45).min(b % 45);
            let bits = u128::from(0x2000_0000_0000_0000 | a >> 3) << 64;
            ipnet::IpNet::new(Ipv6Addr::from_bits(bits).into(), len as u8)
        } else {
            let len = 28 - (a % 21).min(b % 21);
            // Below the VPCs' and the cloud's own.
            let bits = 0x0b00_0000 + (b >> 32) as u32 % 0x5000_0000;
            ipnet::IpNet::new(Ipv4Addr::from_bits(bits).into(), len as u8)
        };
        prefixes.insert(net.unwrap().trunc().to_string());
    }
    prefixes.into_iter().collect()
}

fn topology() -> Topology {
    let mut numbers = Numbers(1);
    let mut text = "[routing]\nrules = \"linux\"\n[[vpc]]\nname = \"v\"\ncidrs = [\"10.0.0.0/16\", \"fd00::/48\"]\n[[internet_gateway]]\nname = \"igw\"\nvpc = \"v\"\n".to_owned();
    for n in 0..TABLES {
        let _ = write!(
            text,
            "[[subnet]]\nname = \"s{n}\"\nvpc = \"v\"\nzone = \"z{}\"\ncidrs = [\"10.0.{n}.0/24\", \"fd00:0:0:{n:x}::/64\"]\nroute_table = \"t{n}\"\n[[route_table]]\nname = \"t{n}\"\nvpc = \"v\"\nroutes = [",
            n % 3
        );
        for v6 in [false, true] {
            for prefix in prefixes(&mut numbers, v6) {
                let target = match numbers.next() % 3 {
                    0 => "internet_gateway = \"igw\"",
                    1 => "blackhole = true",
                    _ => "endpoint = \"e\"",
                };
                let _ = write!(text, "{{ destination = \"{prefix}\", {target} }}, ");
            }
        }
        text += "]\n";
    }
    text += "[[subnet]]\nname = \"g\"\nvpc = \"v\"\nzone = \"z0\"\ncidrs = [\"10.0.200.0/24\", \"fd00:0:0:ffff::/64\"]\n[[endpoint]]\nname = \"e\"\nsubnet = \"g\"\nservice = \"fw\"\n";
    let source = Source::new("bench.toml", text);
    config::parse(&source)
        .and_then(|file| Topology::build(&file, &source))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn lookups(criterion: &mut Criterion) {
    let topology = topology();
    let subnets: Vec<Entry> = topology.subnets().map(|(id, _)| Entry::Subnet(id)).collect();
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for (name, v6) in [("ipv4", false), ("ipv6", true)] {
        let mut numbers = Numbers(2);
        let packets: Vec<(Entry, IpAddr)> = (0..PACKETS)
            .map(|_| {
                let (a, b) = (numbers.next(), numbers.next());
                let address = if v6 {
                    let bits = u128::from(0x2000_0000_0000_0000 | a >> 3) << 64 | u128::from(b);
                    Ipv6Addr::from_bits(bits).into()
                } else {
                    Ipv4Addr::from_bits(0x0b00_0000 + (b >> 32) as u32 % 0x5000_0000).into()
                };
                (subnets[(a % u64::from(TABLES)) as usize], address)
            })
            .collect();
        group.bench_function(format!("{name}, any table, any address"), |bencher| {
            bencher.iter(|| {
                for (from, destination) in &packets {
                    black_box(topology.lookup(*from, *destination));
                }
            });
        });
        let from = topology.routes(subnets[0]);
        group.bench_function(format!("{name}, one table, any address"), |bencher| {
            bencher.iter(|| {
                for (_, destination) in &packets {
                    black_box(from.lookup(*destination));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
