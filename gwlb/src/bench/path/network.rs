//! Builds the namespaces of the set-ups with their cables, tunnels and rules, and takes them away.
//!
//! Every set-up has a client and a server of its own with the same addresses and settings. What
//! lies between them is either built here, by the kernel's means, or is somebody's who is given the
//! namespaces.

use std::net::{IpAddr, Ipv4Addr};

use netio::link::{Links, Route, Vxlan};
use netio::netns::Netns;

use crate::lab::error::LabError;

/// The client's address and prefix length.
pub(super) const CLIENT: (Ipv4Addr, u8) = (Ipv4Addr::new(203, 0, 113, 10), 24);
/// The server's.
pub(super) const SERVER: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 1, 11), 24);
/// The underlay's address of the gateway, or of the router before an appliance.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The underlay's address of the appliance.
pub(super) const APPLIANCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// Between client and server, in bytes, whatever lies between them.
pub(super) const MTU: u32 = 1500;
/// Room for inner packets of that length with either encapsulation.
const UNDERLAY_MTU: u32 = 1700;

/// The addresses by which a router between client and server is known to them.
const TO_CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const TO_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// The addresses inside the hairpin's tunnel: the router's end, and the appliance's.
const TUNNEL: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 7, 1), Ipv4Addr::new(192, 168, 7, 2)];
/// The routing table for what has not been to the appliance yet.
const OUTWARD: u32 = 100;
/// VXLAN's own port (RFC 7348).
const VXLAN_PORT: u16 = 4789;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The client and the server of a set-up.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub client: Netns,
    pub server: Netns,
}

/// Between which an appliance is: it, and who sends packets through it.
#[derive(Clone, Debug)]
pub(super) struct Detour {
    pub ends: Ends,
    /// The gateway, or the router.
    pub node: Netns,
    pub appliance: Netns,
}

/// All namespaces of a run. Dropping it deletes them.
#[derive(Debug)]
pub(super) struct Network {
    prefix: String,
    namespaces: Vec<Netns>,
}

impl Network {
    /// Nothing yet. The names of all namespaces will begin with `prefix`.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, namespaces: Vec::new() }
    }

    /// A client and a server with nothing between them.
    pub(super) fn ends(&mut self, setup: &str) -> Result<Ends, LabError> {
        Ok(Ends { client: self.create(setup, "client")?, server: self.create(setup, "server")? })
    }

    /// A client and a server for a gateway, which makes their devices, and the underlay between it
    /// and an appliance.
    pub(super) fn gateway(&mut self, setup: &str) -> Result<Detour, LabError> {
        let ends = self.ends(setup)?;
        let node = self.create(setup, "gateway")?;
        let appliance = self.create(setup, "appliance")?;
        underlay(&node, &appliance)?;
        Ok(Detour { ends, node, appliance })
    }

    /// A kernel that forwards between two cables.
    pub(super) fn kernel(&mut self, setup: &str) -> Result<Ends, LabError> {
        let (ends, _) = self.routed(setup)?;
        Ok(ends)
    }

    /// A kernel that forwards through a VXLAN tunnel to an appliance, and once more what comes back
    /// from there. The appliance is a kernel that forwards what it gets to where it came from.
    pub(super) fn hairpin(&mut self, setup: &str) -> Result<Detour, LabError> {
        let (ends, node) = self.routed(setup)?;
        let appliance = self.create(setup, "appliance")?;
        forward(&appliance)?;
        underlay(&node, &appliance)?;
        let sides = [(&node, NODE, APPLIANCE), (&appliance, APPLIANCE, NODE)];
        for ((netns, local, remote), inner) in sides.into_iter().zip(TUNNEL) {
            let links = Links::in_netns(netns)?;
            let (local, remote) = (local.into(), remote.into());
            let name = "vxlan";
            let vxlan = Vxlan { name, vni: 7, link: "underlay", local, remote, port: VXLAN_PORT };
            links.create_vxlan(&vxlan)?;
            links.set_mtu(name, MTU)?;
            links.set_up(name)?;
            links.add_address(name, inner.into(), 24)?;
            // A packet that leaves by where it came in is no mistake here.
            netns.set_sysctl("net.ipv4.conf.vxlan.send_redirects", "0")?;
            netns.set_sysctl("net.ipv4.conf.vxlan.rp_filter", "0")?;
        }
        let [router, through] = TUNNEL.map(IpAddr::from);
        let links = Links::in_netns(&node)?;
        links.add_route(&Route::new(ANY, 0).via(through).device("vxlan").table(OUTWARD))?;
        for cable in ["client", "server"] {
            links.add_rule(ANY, cable, OUTWARD)?;
        }
        let back = Route::new(ANY, 0).via(router).device("vxlan");
        Links::in_netns(&appliance)?.add_route(&back)?;
        Ok(Detour { ends, node, appliance })
    }

    /// A client and a server with cables to a kernel that forwards between them.
    fn routed(&mut self, setup: &str) -> Result<(Ends, Netns), LabError> {
        let ends = self.ends(setup)?;
        let router = self.create(setup, "router")?;
        forward(&router)?;
        let links = Links::in_netns(&router)?;
        for (name, netns, (address, prefix), at_router) in [
            ("client", &ends.client, CLIENT, TO_CLIENT),
            ("server", &ends.server, SERVER, TO_SERVER),
        ] {
            let end = Links::in_netns(netns)?;
            links.create_veth(name, "eth0", netns)?;
            for (links, name, address) in [(&links, name, at_router), (&end, "eth0", address)] {
                links.set_mtu(name, MTU)?;
                links.set_up(name)?;
                links.add_address(name, address.into(), prefix)?;
            }
            end.add_route(&Route::new(ANY, 0).via(at_router.into()))?;
        }
        Ok((ends, router))
    }

    fn create(&mut self, setup: &str, name: &str) -> Result<Netns, LabError> {
        let netns = Netns::create(&format!("{}-{setup}-{name}", self.prefix))?;
        self.namespaces.push(netns.clone());
        // Then there are no packets but those of the measurement.
        netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        netns.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        Links::in_netns(&netns)?.set_up("lo")?;
        Ok(netns)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for netns in self.namespaces.drain(..) {
            if let Err(error) = netns.delete() {
                tracing::warn!(%error, "a namespace stays behind");
            }
        }
    }
}

fn forward(netns: &Netns) -> Result<(), LabError> {
    for (key, value) in [
        ("net.ipv4.ip_forward", "1"),
        // The kernel takes the larger one of this and the device's.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
    ] {
        netns.set_sysctl(key, value)?;
    }
    Ok(())
}

/// A cable, called `underlay` at both ends, between who has [`NODE`] and who has [`APPLIANCE`].
fn underlay(node: &Netns, appliance: &Netns) -> Result<(), LabError> {
    let links = Links::in_netns(node)?;
    links.create_veth("underlay", "underlay", appliance)?;
    let far = Links::in_netns(appliance)?;
    for links in [&links, &far] {
        links.set_mtu("underlay", UNDERLAY_MTU)?;
        links.set_up("underlay")?;
    }
    for (links, address, peer) in [(&links, NODE, APPLIANCE), (&far, APPLIANCE, NODE)] {
        let (address, peer) = (address.into(), peer.into());
        links.add_address("underlay", address, 32)?;
        links.add_route(&Route::new(peer, 32).device("underlay").source(address))?;
    }
    Ok(())
}
