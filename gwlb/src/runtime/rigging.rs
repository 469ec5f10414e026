//! Builds the sockets that a configuration needs, and keeps the books of those that there are.
//!
//! A change is made in two steps: [`Rigging::plan`] builds what is missing, or fails and leaves
//! nothing; [`Rigging::fit`] hands it to the workers and lets the rest go. Devices are there from
//! the start ([`super::devices`]), and so are the namespaces ([`super::rooms`]): what is built here
//! later is built without privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use geneve::flow::Stickiness;
use netio::counters::CounterReader;
use netio::tun::TunQueue;
use netio::udp::{UdpConfig, UdpSocket};
use router::Attachment;
use rustls::ClientConfig;

use super::error::StartError;
use super::prober::{Prober, client_config};
use super::rig::{Parts, Rig};
use super::rooms::Rooms;
use super::shared::Shared;
use super::steering::{self, Pilot};
use super::underlay::{Buffers, Underlay, Wanted};
use crate::config::{AttachmentSettings, LoadBalancer, Name, NetnsName, Node, Port, Settings};
use crate::dataplane::snapshot::{Pool, Snapshot, TargetSlot, TargetView};
use crate::logging::throttled;

/// The devices and sockets that there are.
#[derive(Debug)]
pub(super) struct Rigging {
    workers: u16,
    source_ports: u16,
    buffers: Buffers,
    /// Whether it was said that the kernel grants less.
    told_shortfall: bool,
    rooms: Rooms,
    prober: Arc<Prober>,
    /// By number; those of the past stay in the list without being there.
    underlays: Vec<OpenUnderlay>,
    /// Which of them send for a node.
    senders: Senders,
    /// By number.
    devices: Vec<AttachmentSettings>,
    pilot: Pilot,
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
    /// By worker.
    parts: Vec<Parts>,
    /// By device: by what its queues are to be chosen.
    choices: Vec<Option<Stickiness>>,
    /// What the kernel granted to the new sockets, at the least.
    granted: Buffers,
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
    pub counters: Vec<Arc<CounterReader>>,
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
                    throttled!(DEBUG, address = %target.address, %error, "no route to the target");
                    None
                }
            }
        })
    }
}

impl Refit {
    /// Has the workers take these devices, too: by worker, in the order of their numbers.
    pub fn add_devices(&mut self, queues: Vec<Vec<TunQueue>>) {
        for (parts, queues) in self.parts.iter_mut().zip(queues) {
            parts.ports = queues;
        }
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
    /// No socket yet, for so many workers with so many source ports each; and these devices.
    pub fn new(
        workers: u16,
        source_ports: u16,
        buffers: Buffers,
        rooms: Rooms,
        devices: Vec<AttachmentSettings>,
        pilot: Pilot,
    ) -> Self {
        let prober = Arc::new(Prober::new(rooms.residents()));
        Self {
            workers,
            source_ports,
            buffers,
            told_shortfall: false,
            rooms,
            prober,
            underlays: Vec::new(),
            senders: Senders::new(),
            devices,
            pilot,
            rig: Arc::default(),
        }
    }

    /// Gives up the privileges of all that this has threads for.
    pub fn settle(&mut self) -> Result<(), StartError> {
        self.rooms.settle()
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
        &self,
        settings: &Settings,
        targets: &[Answering],
        port: Option<(usize, u16)>,
    ) -> Result<Planned, StartError> {
        let (number, ports) = (self.rig.number + 1, self.plan_ports(settings)?);
        let choices = ports.iter().map(|at| steering::choice(settings, *at)).collect();
        let mut refit = Refit {
            rig: Rig { number, through: through(settings, &ports), ports, ..Rig::default() },
            senders: Senders::new(),
            underlays: self.underlays.clone(),
            parts: (0..self.workers).map(|_| Parts { rig: number, ..Parts::default() }).collect(),
            choices,
            granted: self.buffers,
        };
        self.plan_underlays(settings, targets, port, &mut refit)?;
        let probing = self.probing(settings)?;
        Ok(Planned { refit, probing })
    }

    /// Hands new sockets to the workers. What the new rig does not use is let go when it is
    /// published.
    pub fn fit(&mut self, refit: Refit, shared: &Shared) {
        self.tell_shortfall(refit.granted);
        for (inbox, parts) in shared.exchange.inboxes.iter().zip(refit.parts) {
            inbox.parts.push(parts);
        }
        self.underlays = refit.underlays;
        self.senders = refit.senders;
        self.pilot.follow(&refit.choices);
        self.rig = Arc::new(refit.rig);
    }

    /// Says once that sockets have smaller buffers than they should, and what would help.
    fn tell_shortfall(&mut self, granted: Buffers) {
        if self.told_shortfall {
            return;
        }
        for (sysctl, asked, granted) in self.buffers.shortfalls(granted) {
            self.told_shortfall = true;
            tracing::warn!(
                sysctl,
                asked,
                granted,
                "the kernel grants UDP sockets smaller buffers than configured: raise the sysctl, \
                 or start with CAP_NET_ADMIN",
            );
        }
    }

    fn plan_underlays(
        &self,
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
                    for underlay in &sockets {
                        refit.granted = refit.granted.least(underlay.granted);
                    }
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

    fn open(&self, open: &OpenUnderlay) -> Result<Vec<Underlay>, StartError> {
        let (_, room) = self.rooms.get(open.netns.as_ref())?;
        if self.rooms.is_settled() && open.tolerates && !open.ports.is_empty() {
            let what = format!("another address or port ({}) for bad UDP checksums", open.address);
            return Err(StartError::OnlyAtStart(what));
        }
        let wanted = Wanted {
            address: open.address,
            ports: open.ports.iter().copied().collect(),
            workers: self.workers,
            source_ports: if open.sends { self.source_ports } else { 0 },
            dont_fragment: open.dont_fragment,
            tolerate_bad_checksum: open.tolerates,
            buffers: self.buffers,
        };
        let sockets = room.resident.run(move || Underlay::open_all(&wanted))?;
        sockets.map_err(|failed| StartError::Udp {
            address: failed.address,
            netns: room.resident.netns().name().to_owned(),
            error: failed.error,
        })
    }

    /// Which attachment each device is for: they are the same as ever, but the configuration may
    /// have them in another order.
    fn plan_ports(&self, settings: &Settings) -> Result<Vec<Attachment>, StartError> {
        let changed = || StartError::OnlyAtStart("another attachment".to_owned());
        if self.devices.len() != settings.attachments.len() {
            return Err(changed());
        }
        let at = |device: &AttachmentSettings| {
            let same = |it: &&AttachmentSettings| it.tun == device.tun && it.netns == device.netns;
            let attachment = settings.attachments.iter().find(same);
            attachment.map(|attachment| attachment.at).ok_or_else(changed)
        };
        self.devices.iter().map(at).collect()
    }

    /// Sockets that reach the targets without disturbing any worker.
    fn probing(&self, settings: &Settings) -> Result<Probing, StartError> {
        let (mut nodes, mut balancers) = (Vec::new(), Vec::new());
        let mut counters = BTreeMap::new();
        for load_balancer in &settings.load_balancers {
            let (number, room) = self.rooms.get(load_balancer.netns.as_ref())?;
            counters.insert(number, Arc::clone(&room.counters));
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
                let open = move || {
                    let socket = UdpSocket::bind(&config)?;
                    // Later it would take privileges to ask from outside of the namespace.
                    socket.prepare_path_mtu()?;
                    Ok(socket)
                };
                let socket = room.resident.run(open)?.map_err(|error| {
                    let netns = room.resident.netns().name().to_owned();
                    StartError::Udp { address: bind, netns, error }
                })?;
                let of = (load_balancer.name.to_string(), node.zone.clone());
                nodes.push(NodeProbe { of, group: load_balancer.target_group, socket });
            }
        }
        let (prober, counters) = (Arc::clone(&self.prober), counters.into_values().collect());
        Ok(Probing { prober, nodes, balancers, counters })
    }
}

/// What has no device of its own, with the number of the one that it is reached through.
fn through(settings: &Settings, ports: &[Attachment]) -> Vec<(Attachment, usize)> {
    let of = |(at, index): (Attachment, usize)| {
        let device = settings.attachments[index].at;
        let number = ports.iter().position(|port| *port == device)?;
        (at != device).then_some((at, number))
    };
    settings.exits().into_iter().filter_map(of).collect()
}
