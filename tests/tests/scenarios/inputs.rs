//! The captures that enter the scenarios, as code: each file is what a function here makes. A
//! scenario may as well bring a capture from elsewhere; then it is not listed here.

mod drops;
mod failover;
mod flows;
mod fragments;
mod icmp;
mod lifetimes;
mod narrow;
mod protocols;
mod reload;
mod returns;
mod routes;
mod sizes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gwlb_tests::capture::{self, Captured};
use gwlb_tests::packets::Ip;

/// A host on the internet and the server in zone az1, by IP version.
const CLIENT_4: &str = "203.0.113.7";
const SERVER_4: &str = "10.0.1.11";
const CLIENT_6: &str = "2001:db8:113::7";
const SERVER_6: &str = "fd00:10:0:1::11";
/// The server in zone az2.
const FAR_SERVER_4: &str = "10.0.2.11";

/// Capture files by scenario and name.
pub(crate) struct Inputs(BTreeMap<(String, &'static str), Vec<Vec<u8>>>);

impl Inputs {
    /// All of them.
    pub(crate) fn all() -> Inputs {
        let mut inputs = Inputs(BTreeMap::new());
        protocols::add(&mut inputs);
        returns::add(&mut inputs);
        fragments::add(&mut inputs);
        icmp::add(&mut inputs);
        sizes::add(&mut inputs);
        routes::add(&mut inputs);
        flows::add(&mut inputs);
        failover::add(&mut inputs);
        lifetimes::add(&mut inputs);
        narrow::add(&mut inputs);
        reload::add(&mut inputs);
        drops::add(&mut inputs);
        inputs
    }

    /// The files, as bytes, by path below the folder of scenarios.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.0.iter().map(|((scenario, name), packets)| {
            let captured = packets.iter().zip(0..).map(|(packet, number)| Captured {
                time: Duration::from_micros(number),
                packet: packet.clone(),
            });
            let captured: Vec<_> = captured.collect();
            (format!("{scenario}/{name}.pcap"), capture::bytes(&captured))
        })
    }

    /// Writes the files below the folder of scenarios.
    pub(crate) fn write(&self, folder: &Path) {
        for (path, bytes) in self.files() {
            fs::write(folder.join(path), bytes).unwrap();
        }
    }

    fn file(&mut self, scenario: impl Into<String>, name: &'static str, packets: Vec<Vec<u8>>) {
        let replaced = self.0.insert((scenario.into(), name), packets);
        assert!(replaced.is_none(), "{name} is there twice");
    }
}

/// From the client to the server, once for each IP version, with the version's name.
fn families() -> [(&'static str, Ip); 2] {
    [("ipv4", four()), ("ipv6", six())]
}

fn four() -> Ip {
    Ip::new(CLIENT_4, SERVER_4)
}

fn six() -> Ip {
    Ip::new(CLIENT_6, SERVER_6)
}

/// Bytes that are not all alike.
fn text(len: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(len).collect()
}
