//! Who is where: the addresses of a test's world.
//!
//! ```text
//! client            the internet                  203.0.113.7     2001:db8::7
//! server z          subnet app-z of zone azZ      10.0.Z.11       fd00:10:0:Z::11
//! endpoint vpce-z   subnet gwlbe-z                10.0.10Z.4      fd00:10:0:10Z::4
//! gateway           node of zone azZ              192.0.2.Z       fd00:ff::Z
//! appliance N       target                        192.0.2.1N      fd00:ff::1N
//! ```
//! `z` is a or b, `Z` is 1 or 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use geneve::IpVersion;

/// An IP version to test with.
pub type Family = IpVersion;

/// What a world consists of. Everything has a default, which suits most tests.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Worker threads of the gateway.
    pub workers: usize,
    /// How many zones there are: 1 or 2.
    pub zones: usize,
    /// The zone of each appliance, counted from 0.
    pub appliances: Vec<usize>,
    /// The IP version of the underlay.
    pub underlay: Family,
    /// The MTU of the underlay's cables.
    pub underlay_mtu: u32,
    /// `tcp_unknown_flow` of the load balancer.
    pub unknown_flow: &'static str,
    /// The group's dialect.
    pub dialect: &'static str,
    /// Whether the appliances answer health checks.
    pub health: bool,
    /// What is added to the gateway's table.
    pub gateway: &'static str,
    /// What is added to every attachment's table.
    pub attachment: &'static str,
    /// What is added to the load balancer's table.
    pub load_balancer: &'static str,
    /// What is added to the target group's table, and the tables in it.
    pub target_group: &'static str,
}

/// One zone with one appliance, on an underlay for jumbo frames.
impl Default for Plan {
    fn default() -> Self {
        Self {
            workers: 2,
            zones: 1,
            appliances: vec![0],
            underlay: Family::V4,
            underlay_mtu: 9000,
            unknown_flow: "drop",
            dialect: "aws",
            health: false,
            gateway: "",
            attachment: "",
            load_balancer: "",
            target_group: "",
        }
    }
}

/// A host's addresses with their prefix lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: (Ipv4Addr, u8),
    /// IPv6.
    pub v6: (Ipv6Addr, u8),
}

impl Addresses {
    /// The one of a family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.0.into(),
            Family::V6 => self.v6.0.into(),
        }
    }
}

impl Plan {
    /// The client's addresses.
    pub fn client(&self) -> Addresses {
        Addresses {
            v4: (Ipv4Addr::new(203, 0, 113, 7), 24),
            v6: (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), 64),
        }
    }

    /// The addresses of a zone's server.
    pub fn server(&self, zone: usize) -> Addresses {
        let number = zone as u8 + 1;
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0, number.into(), 0, 0, 0, 0x11);
        Addresses { v4: (Ipv4Addr::new(10, 0, number, 11), 24), v6: (v6, 64) }
    }

    /// The address that a zone's endpoint has in its subnet: the first that is not reserved.
    pub fn endpoint(&self, zone: usize, family: Family) -> IpAddr {
        let number = 101 + zone as u8;
        match family {
            Family::V4 => Ipv4Addr::new(10, 0, number, 4).into(),
            Family::V6 => {
                let number = 0x101 + zone as u16;
                Ipv6Addr::new(0xfd00, 0x10, 0, number, 0, 0, 0, 4).into()
            }
        }
    }

    /// The gateway's outer address for a zone.
    pub fn node(&self, zone: usize) -> IpAddr {
        self.outer(zone as u8 + 1)
    }

    /// An appliance's outer address.
    pub fn target(&self, number: usize) -> IpAddr {
        self.outer(0x10 + number as u8)
    }

    /// An outer address that is nobody's target, in the namespace of an appliance.
    pub fn stranger(&self, number: usize) -> IpAddr {
        self.outer(0x80 + number as u8)
    }

    /// How many bits of an outer address count.
    pub fn outer_prefix(&self) -> u8 {
        match self.underlay {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn outer(&self, last: u8) -> IpAddr {
        match self.underlay {
            Family::V4 => Ipv4Addr::new(192, 0, 2, last).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, last.into()).into(),
        }
    }
}
