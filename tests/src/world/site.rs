//! Namespaces of a test, set up so that nothing but the test's packets moves in them, and the
//! underlay's cables between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::os::fd::{AsFd as _, AsRawFd as _};

use netio::link::{Links, Route};
use netio::netns::{Netns, ScratchNetns};

use super::plan::{Addresses, Family, Plan};

/// The device at an appliance's end of its cable.
pub const UNDERLAY: &str = "underlay";

/// `addr_gen_mode` of IPv6 devices: no link-local address, or one of the hardware address.
const NO_ADDRESS: &str = "1";
const LINK_LOCAL: &str = "0";

/// A network namespace of the test.
///
/// It has no name: it lives as long as this handle and the processes in it, so nothing stays behind
/// even if the test is killed.
#[derive(Debug)]
pub struct Site {
    netns: Netns,
    links: Links,
    reference: String,
}

impl Site {
    /// A new namespace; or `None`, after saying that the test is skipped and why.
    ///
    /// # Panics
    /// As [`ScratchNetns::for_test`].
    pub fn new(test: &str) -> Option<Self> {
        let named = ScratchNetns::for_test(test)?;
        let netns = Netns::clone(&named);
        // The name goes; the handle stays, and other processes can open it.
        drop(named);
        let reference = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
        // What the kernels would otherwise say by themselves: no test could count its packets.
        for (key, value) in [
            ("net.ipv6.conf.default.router_solicitations", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.default.addr_gen_mode", NO_ADDRESS),
            ("net.ipv6.conf.default.accept_dad", "0"),
        ] {
            netns.set_sysctl(key, value).expect("a setting of every kernel");
        }
        let links = Links::in_netns(&netns).expect("a socket in our namespace");
        links.set_up("lo").expect("a loopback device");
        Some(Self { netns, links, reference })
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its devices.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// A path by which other processes can open it, as long as this handle exists.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Does something inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).expect("our own namespace")
    }

    /// The names of the devices.
    pub fn devices(&self) -> Vec<String> {
        let links = self.links.all().expect("a list of devices");
        links.into_iter().map(|link| link.name).collect()
    }
}

/// A namespace that stands for a host, whose one device the gateway makes.
#[derive(Debug)]
pub struct Host {
    site: Site,
    addresses: Addresses,
}

impl Host {
    /// A host with these addresses; it gets them from the gateway.
    pub fn new(test: &str, addresses: Addresses) -> Option<Self> {
        let site = Site::new(test)?;
        for (key, value) in [
            // Lets this process send pings without raw sockets.
            ("net.ipv4.ping_group_range", "0 0"),
            // Every kernel has it and grants it to every namespace; and it does not pace.
            ("net.ipv4.tcp_congestion_control", "reno"),
        ] {
            site.netns.set_sysctl(key, value).expect("a setting of every kernel");
        }
        let host = Self { site, addresses };
        host.limit_window(1 << 20);
        Some(host)
    }

    /// Has connections keep at most so many bytes in flight. All together they should have less
    /// than the buffers of the underlay's sockets hold: what is lost then was lost by our programs.
    pub fn limit_window(&self, bytes: u32) {
        let sizes = format!("4096 {bytes} {bytes}");
        self.site.netns.set_sysctl("net.ipv4.tcp_rmem", &sizes).expect("a setting of every kernel");
    }

    /// Its addresses with their prefix lengths.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// Gives the device back what the kernel has taken from it because it was down: its IPv6
    /// address and the default routes, as who took it down would have to.
    ///
    /// # Panics
    /// If the device is gone.
    pub fn restore(&self, device: &str) {
        let addresses = self.links.addresses(device).expect("a device");
        let (v6, prefix) = self.addresses.v6;
        if !addresses.contains(&(v6.into(), prefix)) {
            self.links.add_address(device, v6.into(), prefix).expect("its own address");
        }
        let anywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        for any in anywhere {
            // It may have been kept.
            let _ = self.links.add_route(&Route::new(any, 0).device(device));
        }
    }
}

impl Deref for Host {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// Lays a cable from the gateway to each appliance, with an address at each end and a route to the
/// other.
pub(super) fn lay_underlay(plan: &Plan, gateway: &Site, appliances: &[Site]) {
    let prefix = plan.outer_prefix();
    let nodes: Vec<_> = (0..plan.zones).map(|zone| plan.node(zone)).collect();
    for site in appliances.iter().chain([gateway]) {
        // Neighbours are asked for from a link-local address (RFC 4861 section 7.2.2).
        let mode = if plan.underlay == Family::V6 { LINK_LOCAL } else { NO_ADDRESS };
        let key = "net.ipv6.conf.default.addr_gen_mode";
        site.netns.set_sysctl(key, mode).expect("a setting of every kernel");
    }
    for &node in &nodes {
        gateway.links.add_address("lo", node, prefix).expect("the node's address");
    }
    for (number, site) in appliances.iter().enumerate() {
        let cable = cable(number);
        gateway.links.create_veth(&cable, UNDERLAY, &site.netns).expect("a cable");
        for (links, end) in [(&gateway.links, cable.as_str()), (&site.links, UNDERLAY)] {
            links.set_mtu(end, plan.underlay_mtu).expect("its MTU");
            links.set_up(end).expect("a cable that is up");
        }
        let node = nodes[plan.appliances[number]];
        if plan.underlay == Family::V6 {
            // Other than ARP, neighbour discovery answers only for addresses of the device itself.
            gateway.links.add_address(&cable, node, prefix).expect("the node's address");
        }
        for address in [plan.target(number), plan.stranger(number)] {
            site.links.add_address(UNDERLAY, address, prefix).expect("an appliance's address");
        }
        lay_routes(plan, gateway, number);
        for &node in &nodes {
            let there = Route::new(node, prefix).device(UNDERLAY).source(plan.target(number));
            site.links.add_route(&there).expect("a route to the gateway");
        }
    }
}

/// The gateway's routes to an appliance. A cable that goes down takes them with it.
pub(super) fn lay_routes(plan: &Plan, gateway: &Site, number: usize) {
    let (cable, prefix) = (cable(number), plan.outer_prefix());
    let node = plan.node(plan.appliances[number]);
    for address in [plan.target(number), plan.stranger(number)] {
        let back = Route::new(address, prefix).device(&cable).source(node);
        gateway.links.add_route(&back).expect("a route to the appliance");
    }
}

/// The device at the gateway's end of an appliance's cable.
pub fn cable(number: usize) -> String {
    format!("nva{number}")
}
