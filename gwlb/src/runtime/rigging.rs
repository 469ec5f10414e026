//! Builds the devices and sockets that a configuration needs, and keeps the books of those that
//! there are.
//!
//! A change is made in two steps: [`Rigging::plan`] builds what is missing, or fails and leaves
//! nothing; [`Rigging::fit`] hands it to the workers and lets the rest go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use geneve::dialect::Dialect;
use ipnet::IpNet;
use netio::counters::CounterReader;
use netio::link::{Links, Route};
use netio::netns::Netns;
use netio::offload::Limits;
use netio::tun::{Tun, TunConfig};
use netio::udp::{MAX_GSO_BYTES, UdpConfig, UdpSocket};
use rustls::ClientConfig;

use super::error::StartError;
use super::prober::{Prober, client_config};
use super::rig::{Parts, Rig};
use super::shared::{PortLinks, Shared};
use super::underlay::{Underlay, Wanted};
use crate::config::{AttachmentSettings, LoadBalancer, Name, NetnsName, Node, Port, Settings};
use crate::dataplane::snapshot::{Pool, Snapshot, TargetSlot, TargetView};

/// The devices and sockets that there are.
#[derive(Debug)]
pub(super) struct Rigging {
    workers: u16,
    source_ports: u16,
    namespaces: Namespaces,
    /// By number; those of the past stay in the list without being there.
    underlays: Vec<OpenUnderlay>,
    /// Which of them send for a node.
    senders: Senders,
    ports: Vec<AttachmentSettings>,
    rig: Arc<Rig>,
}

/// A target that may answer: its group's name, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answering {
    pub group: Name,
    pub port: u16,
}

impl Answering {
    /// The targets of a view, which has their groups as these settings number them.
    pub fn all(settings: &Settings, snapshot: &Snapshot) -> Vec<Self> {
        let group = |view: &TargetView| settings.target_groups.get(view.group);
        let named = snapshot.targets.iter().filter_map(|view| Some((group(view)?, view)));
        named
            .map(|(group, view)| Self { group: group.name.clone(), port: view.address.port() })
            .collect()
    }
}

/// An attachment whose device stays, before and after, and its namespace.
type Adjustment = (AttachmentSettings, AttachmentSettings, Netns);

/// The number of the sockets that send, by load balancer and zone.
type Senders = BTreeMap<(String, String), usize>;

/// Sockets that were opened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenUnderlay {
    netns: Option<NetnsName>,
    address: IpAddr,
    ports: BTreeSet<u16>,
    /// Whether it has the source ports, or only receives.
    sends: bool,
    /// Whether outer packets have "don't fragment" set.
    dont_fragment: bool,
    /// Whether datagrams with a wrong UDP checksum are taken, too.
    tolerates: bool,
}

impl OpenUnderlay {
    fn is_of(&self, balancer: &LoadBalancer, node: &Node) -> bool {
        self.netns == balancer.netns && self.address == node.address
    }
}

/// What a configuration needs that was not there, built and not yet in use; and what goes.
#[derive(Debug)]
pub(super) struct Refit {
    rig: Rig,
    senders: Senders,
    underlays: Vec<OpenUnderlay>,
    ports: Vec<AttachmentSettings>,
    /// By worker.
    parts: Vec<Parts>,
    links: Vec<(usize, PortLinks)>,
    limits: Limits,
}

/// What a configuration needs that was not there.
#[derive(Debug)]
pub(super) struct Planned {
    /// For the workers.
    pub refit: Refit,
    /// For the control plane.
    pub probing: Probing,
}

/// What the control plane reaches the targets with.
#[derive(Debug)]
pub(super) struct Probing {
    pub prober: Arc<Prober>,
    pub nodes: Vec<NodeProbe>,
    /// By load balancer.
    pub balancers: Vec<BalancerProbe>,
    /// What the kernel threw away in each namespace of the underlays.
    pub counters: Vec<CounterReader>,
}

/// What a load balancer's health checks need besides.
#[derive(Debug, Clone)]
pub(super) struct BalancerProbe {
    /// The number of its namespace.
    pub netns: usize,
    /// What HTTPS speaks with.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A node's own way to the targets, apart from the workers'.
#[derive(Debug)]
pub(super) struct NodeProbe {
    /// The load balancer, and the zone of the node.
    pub of: (String, String),
    /// Index of the target group.
    pub group: usize,
    /// Sends probes through the tunnel, and asks for path MTUs.
    pub socket: UdpSocket,
}

impl NodeProbe {
    /// The path MTU to each target of the group for which `wanted` says so, as far as there is a
    /// route.
    pub fn measure<'a>(
        &'a self,
        targets: &'a [TargetView],
        wanted: impl Fn(TargetSlot) -> bool + 'a,
    ) -> impl Iterator<Item = (TargetSlot, u16)> + 'a {
        let numbered = targets.iter().enumerate();
        numbered.filter(|(_, target)| target.group == self.group).filter_map(move |(slot, target)| {
            let slot = TargetSlot(slot as u32);
            if !wanted(slot) {
                return None;
            }
            match self.socket.path_mtu(target.address) {
                Ok(mtu) => Some((slot, mtu)),
                Err(error) => {
                    tracing::debug!(address = %target.address, %error, "no route to the target");
                    None
                }
            }
        })
    }
}

impl Refit {
    /// What all new devices take in one write.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}

impl Probing {
    /// Path MTUs, as [`NodeProbe::measure`] finds them.
    pub fn measure<'a>(
        &'a self,
        targets: &'a [TargetView],
        wanted: impl Fn(TargetSlot) -> bool + Copy + 'a,
    ) -> impl Iterator<Item = (TargetSlot, u16)> + 'a {
        self.nodes.iter().flat_map(move |node| node.measure(targets, wanted))
    }
}

impl Rigging {
    /// Nothing yet, for so many workers with so many source ports each.
    pub fn new(workers: u16, source_ports: u16) -> Self {
        Self {
            workers,
            source_ports,
            namespaces: Namespaces::default(),
            underlays: Vec::new(),
            senders: Senders::new(),
            ports: Vec::new(),
            rig: Arc::default(),
        }
    }

    /// What the devices and sockets are for, in terms of this view.
    pub fn rig(&mut self, snapshot: &Snapshot) -> Arc<Rig> {
        let sender = |pool: &Pool| {
            self.senders.get(&(pool.load_balancer.clone(), pool.zone.clone())).copied()
        };
        let pools: Vec<_> = snapshot.pools.iter().map(sender).collect();
        if self.rig.pools != pools {
            let number = self.rig.number + 1;
            self.rig = Arc::new(Rig { number, pools, ..Rig::clone(&self.rig) });
        }
        Arc::clone(&self.rig)
    }

    /// Whether what targets of a group answer to a Geneve port is received.
    pub fn hears(&self, settings: &Settings, group: usize, port: u16) -> bool {
        let balancers = settings.load_balancers.iter().filter(|it| it.target_group == group);
        let mut nodes = balancers.flat_map(|it| it.nodes.iter().map(move |node| (it, node)));
        nodes.all(|(balancer, node)| {
            let mut open = self.underlays.iter().enumerate();
            open.any(|(number, open)| {
                self.rig.uses_underlay(number)
                    && open.is_of(balancer, node)
                    && open.ports.contains(&port)
            })
        })
    }

    /// Builds what `settings` need besides what there is. `targets` are those that may answer, and
    /// `port` is one on which targets of a group are going to.
    ///
    /// # Errors
    /// What could not be had; then everything is as it was.
    pub fn plan(
        &mut self,
        settings: &Settings,
        targets: &[Answering],
        port: Option<(usize, u16)>,
    ) -> Result<Planned, StartError> {
        // A namespace may have been made anew under its name.
        self.namespaces = Namespaces::default();
        let mut refit = Refit {
            rig: Rig { number: self.rig.number + 1, ..Rig::default() },
            senders: Senders::new(),
            underlays: self.underlays.clone(),
            ports: self.ports.clone(),
            parts: (0..self.workers)
                .map(|_| Parts { rig: self.rig.number + 1, ..Parts::default() })
                .collect(),
            links: Vec::new(),
            limits: Limits::default(),
        };
        self.plan_underlays(settings, targets, port, &mut refit)?;
        let changed = self.plan_ports(settings, &mut refit)?;
        let probing = self.probing(settings)?;
        // Last, when everything else could be had: these are not undone.
        for (old, new, netns) in changed {
            adjust(&old, &new, &netns)?;
        }
        Ok(Planned { refit, probing })
    }

    /// Hands new devices and sockets to the workers. What the new rig does not use is let go when
    /// it is published.
    pub fn fit(&mut self, refit: Refit, shared: &Shared) {
        for (inbox, parts) in shared.exchange.inboxes.iter().zip(refit.parts) {
            inbox.parts.push(parts);
        }
        let mut links = shared.links.lock();
        links.resize_with(refit.ports.len(), || None);
        for (number, link) in refit.links {
            links[number] = Some(link);
        }
        for (number, at) in refit.rig.ports.iter().enumerate() {
            if at.is_none() {
                links[number] = None;
            }
        }
        self.underlays = refit.underlays;
        self.senders = refit.senders;
        self.ports = refit.ports;
        self.rig = Arc::new(refit.rig);
    }

    fn plan_underlays(
        &mut self,
        settings: &Settings,
        targets: &[Answering],
        port: Option<(usize, u16)>,
        refit: &mut Refit,
    ) -> Result<(), StartError> {
        for balancer in &settings.load_balancers {
            let index = balancer.target_group;
            let group = &settings.target_groups[index];
            let mut ports: BTreeSet<u16> = BTreeSet::from([group.port.get()]);
            ports.extend(targets.iter().filter(|it| it.group == group.name).map(|it| it.port));
            ports.extend(group.targets.iter().filter_map(|t| t.port).map(Port::get));
            ports.extend(port.filter(|(group, _)| *group == index).map(|(_, port)| port));
            for node in &balancer.nodes {
                let (mut missing, mut sender) = (ports.clone(), None);
                for (number, open) in refit.underlays.iter().enumerate() {
                    let new = number >= self.underlays.len();
                    if !open.is_of(balancer, node) || !(new || self.rig.uses_underlay(number)) {
                        continue;
                    }
                    let tolerates = group.tolerate_bad_udp_checksum;
                    if open.dont_fragment != balancer.outer_dont_fragment {
                        return Err(StartError::Fixed("outer_dont_fragment"));
                    }
                    if open.tolerates != tolerates {
                        return Err(StartError::Fixed("tolerate_bad_udp_checksum"));
                    }
                    // Listeners on ports that no target uses any more are let go.
                    if !open.sends && open.ports.is_disjoint(&ports) {
                        continue;
                    }
                    missing.retain(|port| !open.ports.contains(port));
                    refit.rig.underlays.push(number);
                    if open.sends {
                        sender = Some(number);
                    }
                }
                let sends = sender.is_none();
                if sends || !missing.is_empty() {
                    let open = OpenUnderlay {
                        netns: balancer.netns.clone(),
                        address: node.address,
                        ports: missing,
                        sends,
                        dont_fragment: balancer.outer_dont_fragment,
                        tolerates: group.tolerate_bad_udp_checksum,
                    };
                    let sockets = self.open(&open)?;
                    let number = refit.underlays.len();
                    for (parts, underlay) in refit.parts.iter_mut().zip(sockets) {
                        parts.underlays.push((number, underlay));
                    }
                    refit.underlays.push(open);
                    refit.rig.underlays.push(number);
                    if sends {
                        sender = Some(number);
                    }
                }
                if let Some(number) = sender {
                    let of = (balancer.name.to_string(), node.zone.clone());
                    refit.senders.insert(of, number);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, open: &OpenUnderlay) -> Result<Vec<Underlay>, StartError> {
        let netns = self.namespaces.open(open.netns.as_ref())?;
        let wanted = Wanted {
            address: open.address,
            ports: open.ports.iter().copied().collect(),
            workers: self.workers,
            source_ports: if open.sends { self.source_ports } else { 0 },
            dont_fragment: open.dont_fragment,
            tolerate_bad_checksum: open.tolerates,
        };
        let sockets = netns.run(|| Underlay::open_all(&wanted))?;
        sockets.map_err(|failed| StartError::Udp {
            address: failed.address,
            netns: netns.name().to_owned(),
            error: failed.error,
        })
    }

    /// Devices for the attachments. One that is there under the same name in the same namespace
    /// stays; returned is what it was, what it is to be, and where it is.
    fn plan_ports(
        &mut self,
        settings: &Settings,
        refit: &mut Refit,
    ) -> Result<Vec<Adjustment>, StartError> {
        refit.rig.ports = vec![None; refit.ports.len()];
        let mut changed = Vec::new();
        for attachment in &settings.attachments {
            let known = refit.ports.iter().enumerate().position(|(number, port)| {
                self.rig.ports.get(number).copied().flatten().is_some()
                    && port.tun == attachment.tun
                    && port.netns == attachment.netns
            });
            let netns = self.namespaces.open(attachment.netns.as_ref())?;
            let number = if let Some(number) = known {
                let old = std::mem::replace(&mut refit.ports[number], attachment.clone());
                changed.push((old, attachment.clone(), netns));
                number
            } else {
                let number = refit.ports.len();
                let mut tun = self.create(attachment, &netns)?;
                refit.limits.udp &= tun.udp_segmentation();
                for (parts, queue) in refit.parts.iter_mut().zip(tun.take_queues()) {
                    parts.ports.push((number, queue));
                }
                let links = set_up(attachment, &netns)?;
                let netns = attachment.netns.as_ref().map(|netns| netns.as_str().to_owned());
                let tun = attachment.tun.as_str().to_owned();
                refit.links.push((number, PortLinks { tun, netns, links }));
                refit.ports.push(attachment.clone());
                refit.rig.ports.push(None);
                number
            };
            refit.rig.ports[number] = Some(attachment.at);
        }
        Ok(changed)
    }

    fn create(&self, attachment: &AttachmentSettings, netns: &Netns) -> Result<Tun, StartError> {
        let config = TunConfig {
            name: attachment.tun.as_str().to_owned(),
            queues: usize::from(self.workers),
            mtu: attachment.mtu.get(),
            offload: true,
            gso_max_size: Some(gso_max_size(attachment.mtu.get())),
        };
        netns.run(|| Tun::create(&config))?.map_err(|error| StartError::Tun {
            name: config.name.clone(),
            netns: netns.name().to_owned(),
            error,
        })
    }

    /// Sockets that reach the targets without disturbing any worker.
    fn probing(&mut self, settings: &Settings) -> Result<Probing, StartError> {
        let mut namespaces: Vec<Netns> = Vec::new();
        let (mut nodes, mut balancers) = (Vec::new(), Vec::new());
        for load_balancer in &settings.load_balancers {
            let netns = self.namespaces.open(load_balancer.netns.as_ref())?;
            let known = namespaces.iter().position(|known| known.is_same(&netns));
            let number = known.unwrap_or_else(|| {
                namespaces.push(netns.clone());
                namespaces.len() - 1
            });
            let health = &settings.target_groups[load_balancer.target_group].health_check;
            let tls = client_config(health).map_err(|error| StartError::CaFile(Box::new(error)))?;
            balancers.push(BalancerProbe { netns: number, tls });
            for node in &load_balancer.nodes {
                let bind = SocketAddr::new(node.address, 0);
                let config = UdpConfig {
                    bind,
                    reuse_port: false,
                    gro: false,
                    recv_buffer: 0,
                    send_buffer: 0,
                    dont_fragment: load_balancer.outer_dont_fragment,
                };
                let socket = netns.run(|| UdpSocket::bind(&config))?.map_err(|error| {
                    StartError::Udp { address: bind, netns: netns.name().to_owned(), error }
                })?;
                let of = (load_balancer.name.to_string(), node.zone.clone());
                nodes.push(NodeProbe { of, group: load_balancer.target_group, socket });
            }
        }
        let prober = Arc::new(Prober::new(&namespaces)?);
        let counters = namespaces.iter().map(CounterReader::open).collect::<Result<_, _>>()?;
        Ok(Probing { prober, nodes, balancers, counters })
    }
}

/// The namespaces of a configuration, each opened once.
#[derive(Debug, Default)]
struct Namespaces(BTreeMap<Option<NetnsName>, Netns>);

impl Namespaces {
    fn open(&mut self, name: Option<&NetnsName>) -> Result<Netns, StartError> {
        if let Some(netns) = self.0.get(&name.cloned()) {
            return Ok(netns.clone());
        }
        let netns = match name {
            Some(name) => Netns::open(name.as_str())?,
            None => Netns::current()?,
        };
        self.0.insert(name.cloned(), netns.clone());
        Ok(netns)
    }
}

/// Sets up a new device: the addresses on it, and the routes behind it.
fn set_up(attachment: &AttachmentSettings, netns: &Netns) -> Result<Links, StartError> {
    let links = Links::in_netns(netns)?;
    let name = attachment.tun.as_str();
    links.set_up(name)?;
    for network in &attachment.addresses {
        links.add_address(name, network.addr(), network.prefix_len())?;
    }
    for any in default_routes(attachment) {
        links.add_route(&Route::new(any, 0).device(name))?;
    }
    Ok(links)
}

/// Makes a device what its attachment has become.
fn adjust(
    old: &AttachmentSettings,
    new: &AttachmentSettings,
    netns: &Netns,
) -> Result<(), StartError> {
    if (old.mtu, &old.addresses, old.default_route) == (new.mtu, &new.addresses, new.default_route)
    {
        return Ok(());
    }
    let links = Links::in_netns(netns)?;
    let name = new.tun.as_str();
    if old.mtu != new.mtu {
        links.set_gso_max_size(name, gso_max_size(new.mtu.get()))?;
        links.set_mtu(name, new.mtu.get())?;
    }
    let (had, has): (Vec<_>, Vec<_>) =
        (default_routes(old).collect(), default_routes(new).collect());
    for any in had.iter().filter(|any| !has.contains(any)) {
        links.delete_route(&Route::new(*any, 0).device(name))?;
    }
    for network in old.addresses.iter().filter(|network| !new.addresses.contains(network)) {
        links.delete_address(name, network.addr(), network.prefix_len())?;
    }
    for network in new.addresses.iter().filter(|network| !old.addresses.contains(network)) {
        links.add_address(name, network.addr(), network.prefix_len())?;
    }
    for any in has.iter().filter(|any| !had.contains(any)) {
        links.add_route(&Route::new(*any, 0).device(name))?;
    }
    Ok(())
}

/// Where the default routes of an attachment lead from: the families that it has addresses of.
fn default_routes(attachment: &AttachmentSettings) -> impl Iterator<Item = IpAddr> {
    let v4 = attachment.addresses.iter().any(|network| matches!(network, IpNet::V4(_)));
    let v6 = attachment.addresses.iter().any(|network| matches!(network, IpNet::V6(_)));
    let wanted = attachment.default_route;
    [(v4, ANY_V4), (v6, ANY_V6)].into_iter().filter(move |(has, _)| wanted && *has).map(|(_, a)| a)
}

const ANY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

/// IPv4 and TCP headers with timestamps, as Linux sends them in bulk.
const BULK_HEADERS: u32 = 52;

/// The longest super-packet whose segments go out to an appliance in one send: a batch of UDP
/// holds 65,507 bytes, and every segment takes the Geneve header along. At an MTU of 1500 these
/// are 42 segments.
fn gso_max_size(mtu: u32) -> u32 {
    let header = Dialect::ALL.iter().map(Dialect::header_len).max().unwrap_or(0);
    let segments = (MAX_GSO_BYTES as u32 / (mtu + header as u32)).max(1);
    segments * mtu.saturating_sub(BULK_HEADERS) + BULK_HEADERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn super_packets_fit_one_send() {
        // 42 segments of 1448 bytes: measured to be the best for an MTU of 1500.
        assert_eq!(gso_max_size(1500), 42 * 1448 + 52);
        assert!(gso_max_size(65_535) > 65_000, "a huge MTU leaves one segment");
    }
}
