//! Builds the lab's namespaces and the underlay, and takes them away again.
//!
//! The TUN devices of client and servers are the gateway's work, as its configuration says. The
//! underlay is one cable from the gateway's namespace to each appliance, with host routes.

use netio::link::{Links, Route};
use netio::netns::Netns;

use super::error::LabError;
use super::plan::{ApplianceSpec, GATEWAY, Plan, UNDERLAY_MTU};

/// The device at an appliance's end of its cable.
const UNDERLAY: &str = "underlay";

/// The namespaces of a run. Dropping it deletes them.
#[derive(Debug, Default)]
pub(super) struct Network {
    namespaces: Vec<(&'static str, Netns)>,
}

impl Network {
    /// Builds all, or leaves nothing behind.
    pub(super) fn build(plan: &Plan) -> Result<Self, LabError> {
        let mut network = Self::default();
        for host in [plan.client].into_iter().chain(plan.servers()) {
            let netns = network.create(plan, host.name)?;
            settle_host(&netns)?;
        }
        let gateway = network.create(plan, GATEWAY)?;
        settle_underlay(&gateway)?;
        let links = Links::in_netns(&gateway)?;
        for zone in &plan.zones {
            links.add_address("lo", zone.node.into(), 32)?;
        }
        for appliance in &plan.appliances {
            let netns = network.create(plan, appliance.name)?;
            settle_underlay(&netns)?;
            connect(&links, &netns, appliance, plan)?;
        }
        Ok(network)
    }

    /// The namespace with this short name.
    pub(super) fn get(&self, name: &str) -> Result<&Netns, LabError> {
        let found = self.namespaces.iter().find(|(short, _)| *short == name);
        found.map(|(_, netns)| netns).ok_or_else(|| LabError::Io {
            what: format!("find namespace {name}"),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }

    /// The short names of all namespaces, in the order in which they were made.
    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.namespaces.iter().map(|(name, _)| *name)
    }

    fn create(&mut self, plan: &Plan, name: &'static str) -> Result<Netns, LabError> {
        let netns = Netns::create(&plan.netns(name))?;
        self.namespaces.push((name, netns.clone()));
        Links::in_netns(&netns)?.set_up("lo")?;
        Ok(netns)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (_, netns) in self.namespaces.drain(..) {
            if let Err(error) = netns.delete() {
                tracing::warn!(%error, "a namespace stays behind");
            }
        }
    }
}

/// What the machines at the ends are set to.
fn settle_host(netns: &Netns) -> Result<(), LabError> {
    // bbr paces, which a short run shows. A machine that does not allow cubic to everybody keeps
    // what it has; nothing here is compared with other machines.
    if let Err(error) = netns.set_sysctl("net.ipv4.tcp_congestion_control", "cubic") {
        tracing::debug!(%error, "the congestion control stays");
    }
    for (key, value) in [
        // Lets group 0, which is ours, send pings without raw sockets.
        ("net.ipv4.ping_group_range", "0 0"),
        // No router to be looked for, no addresses but those of the plan: then every packet that
        // enters the gateway is one of ours.
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.addr_gen_mode", "1"),
    ] {
        netns.set_sysctl(key, value)?;
    }
    Ok(())
}

/// The underlay speaks IPv4 alone.
fn settle_underlay(netns: &Netns) -> Result<(), LabError> {
    Ok(netns.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?)
}

/// The cable between the gateway's namespace and an appliance's.
fn connect(
    gateway: &Links,
    netns: &Netns,
    appliance: &ApplianceSpec,
    plan: &Plan,
) -> Result<(), LabError> {
    let links = Links::in_netns(netns)?;
    gateway.create_veth(appliance.name, UNDERLAY, netns)?;
    for (links, name) in [(gateway, appliance.name), (&links, UNDERLAY)] {
        links.set_mtu(name, UNDERLAY_MTU)?;
        links.set_up(name)?;
    }
    let address = appliance.address.into();
    links.add_address(UNDERLAY, address, 32)?;
    for zone in &plan.zones {
        let node = zone.node.into();
        links.add_route(&Route::new(node, 32).device(UNDERLAY).source(address))?;
        if zone.name == appliance.zone {
            gateway.add_route(&Route::new(address, 32).device(appliance.name).source(node))?;
        }
    }
    Ok(())
}
