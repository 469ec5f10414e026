//! What the demonstration network is made of, as data: names, addresses, zones, appliances.
//!
//! It is the canonical design (semantics.md 1d): per zone an application subnet, an endpoint subnet
//! and their tables, and one gateway table with an entry per application subnet. Nothing is built
//! here; [`super::network`] builds it and [`super::configuration`] writes the gateway's file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;

/// Largest inner packet, in bytes: what the TUN devices carry.
pub(super) const INNER_MTU: u32 = 1500;
/// Largest outer packet: room for the inner one, 68 bytes of encapsulation over IPv4, and a reserve.
pub(super) const UNDERLAY_MTU: u32 = 1700;
/// The port that the firewall denies.
pub(super) const DENIED_PORT: u16 = 8080;

/// The whole network.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In front of every namespace's name; unique to this run.
    pub prefix: String,
    /// The client in the internet.
    pub client: Host,
    /// The zones, each with a server.
    pub zones: [Zone; 2],
    /// The appliances, in the order of their numbers.
    pub appliances: Vec<ApplianceSpec>,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// A machine with one address per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Its short name; also that of its subnet, if it is in one, and of its TUN device.
    pub name: &'static str,
    /// Its address and prefix length.
    pub v4: (Ipv4Addr, u8),
    /// The same for IPv6.
    pub v6: (Ipv6Addr, u8),
    /// The IPv4 address by which the internet knows it, if it is another one: the internet gateway
    /// translates one to one (semantics.md 1d). IPv6 is never translated.
    pub public: Option<Ipv4Addr>,
}

/// One zone of the VPC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone {
    /// `az1`
    pub name: &'static str,
    /// The application server.
    pub server: Host,
    /// The name of the GWLB endpoint's subnet.
    pub endpoint_subnet: &'static str,
    /// Its ranges.
    pub endpoint_cidrs: [&'static str; 2],
    /// The endpoint.
    pub endpoint: &'static str,
    /// The outer address of the load balancer's node.
    pub node: Ipv4Addr,
}

/// An appliance: one process in a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApplianceSpec {
    /// `nva-1`
    pub name: &'static str,
    /// What it does.
    pub kind: ApplianceKind,
    /// Its zone.
    pub zone: &'static str,
    /// Its outer address.
    pub address: Ipv4Addr,
}

/// What an appliance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApplianceKind {
    /// Allows and denies by rules.
    Firewall,
    /// Looks for patterns.
    Ids,
    /// Gives everything back.
    Passthrough,
    /// A firewall that takes open connections over: it does not ask for the SYN of a flow.
    PickUpFirewall,
    /// A firewall that knows the connections that it has seen opened, and refuses all others.
    StrictFirewall,
}

impl ApplianceKind {
    /// The subcommand that starts it.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Firewall | Self::PickUpFirewall | Self::StrictFirewall => "firewall",
            Self::Ids => "ids",
            Self::Passthrough => "passthrough",
        }
    }
}

impl fmt::Display for ApplianceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firewall => "firewall",
            Self::Ids => "ids",
            Self::Passthrough => "passthrough",
            Self::PickUpFirewall => "firewall with pick-up",
            Self::StrictFirewall => "strict firewall",
        })
    }
}

/// A fault built in on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// The subnet of `app-a` routes straight to the internet gateway, past its endpoint.
    WrongRoute,
    /// The appliances of `az2` change a byte of every payload.
    Rewrite,
    /// The appliance of `az1` takes packets and never answers, healthy all the while.
    Silent,
    /// With --failover: flows stay with their appliance when it dies.
    NoRebalance,
    /// With --failover: health checks are half as frequent as the checks of the demo expect.
    SlowHealth,
    /// With --failover: dead appliances' connections are not reset.
    NoReset,
    /// With --failover: the gateway starts over with another secret, which places flows otherwise.
    LostSecret,
}

impl Sabotage {
    /// Whether it breaks the second act, not the first.
    pub(super) fn is_of_failover(self) -> bool {
        match self {
            Self::WrongRoute | Self::Rewrite | Self::Silent => false,
            Self::NoRebalance | Self::SlowHealth | Self::NoReset | Self::LostSecret => true,
        }
    }
}

/// The two address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Plan {
    /// The network of the run with this `prefix`.
    pub(super) fn new(prefix: String, sabotage: Option<Sabotage>) -> Self {
        let zone = |name, server, endpoint_subnet, endpoint_cidrs, endpoint, node| Zone {
            name,
            server,
            endpoint_subnet,
            endpoint_cidrs,
            endpoint,
            node,
        };
        let appliance =
            |name, kind, zone, last| ApplianceSpec { name, kind, zone, address: underlay(last) };
        Self {
            prefix,
            client: Host {
                name: "client",
                v4: (Ipv4Addr::new(203, 0, 113, 10), 24),
                v6: (Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10), 64),
                public: None,
            },
            zones: [
                zone(
                    "az1",
                    server("app-a", 1),
                    "gwlbe-a",
                    ["10.0.101.0/28", "2001:db8:10:101::/64"],
                    "vpce-a",
                    underlay(1),
                ),
                zone(
                    "az2",
                    server("app-b", 2),
                    "gwlbe-b",
                    ["10.0.102.0/28", "2001:db8:10:102::/64"],
                    "vpce-b",
                    underlay(2),
                ),
            ],
            appliances: vec![
                appliance("nva-1", ApplianceKind::Firewall, "az1", 11),
                appliance("nva-2", ApplianceKind::Ids, "az2", 12),
                appliance("nva-3", ApplianceKind::Passthrough, "az2", 13),
            ],
            sabotage,
        }
    }

    /// The network of the second act: the same, but for the appliances.
    pub(super) fn of_failover(prefix: String, sabotage: Option<Sabotage>) -> Self {
        let appliances = [
            ("nva-1", ApplianceKind::PickUpFirewall, "az1"),
            ("nva-2", ApplianceKind::PickUpFirewall, "az1"),
            ("nva-3", ApplianceKind::PickUpFirewall, "az1"),
            ("nva-4", ApplianceKind::PickUpFirewall, "az1"),
            ("nva-5", ApplianceKind::StrictFirewall, "az2"),
            ("nva-6", ApplianceKind::StrictFirewall, "az2"),
        ];
        let appliances = (11..).zip(appliances).map(|(last, (name, kind, zone))| ApplianceSpec {
            name,
            kind,
            zone,
            address: underlay(last),
        });
        Self { appliances: appliances.collect(), ..Self::new(prefix, sabotage) }
    }

    /// The servers, in the order of their zones.
    pub(super) fn servers(&self) -> impl Iterator<Item = Host> {
        self.zones.iter().map(|zone| zone.server)
    }

    /// The full name of a namespace.
    pub(super) fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The appliances of a zone.
    pub(super) fn appliances_of(&self, zone: &str) -> impl Iterator<Item = &ApplianceSpec> {
        self.appliances.iter().filter(move |appliance| appliance.zone == zone)
    }
}

impl Host {
    /// Its own address of one family.
    pub(super) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.0.into(),
            Family::V6 => self.v6.0.into(),
        }
    }

    /// Its address of one family as the internet knows it.
    pub(super) fn public_address(&self, family: Family) -> IpAddr {
        match (family, self.public) {
            (Family::V4, Some(public)) => public.into(),
            _ => self.address(family),
        }
    }
}

/// The name of the gateway's namespace, which is also its underlay.
pub(super) const GATEWAY: &str = "gw";

/// The VPC's ranges.
pub(super) const VPC_CIDRS: [&str; 2] = ["10.0.0.0/16", "2001:db8:10::/48"];

/// The underlay is one of the networks that RFC 5737 sets aside for examples.
const fn underlay(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

const fn server(name: &'static str, subnet: u8) -> Host {
    Host {
        name,
        v4: (Ipv4Addr::new(10, 0, subnet, 11), 24),
        v6: (Ipv6Addr::new(0x2001, 0xdb8, 0x10, subnet as u16, 0, 0, 0, 0x11), 64),
        public: Some(Ipv4Addr::new(198, 51, 100, 10 + subnet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_has_an_appliance_and_the_third_shares_one() {
        let plan = Plan::new("x".to_owned(), None);
        let count = |zone| plan.appliances_of(zone).count();
        assert_eq!((count("az1"), count("az2")), (1, 2));
        assert_eq!(plan.netns(GATEWAY), "x-gw");
    }
}
