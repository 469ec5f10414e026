//! From checked settings to everything that runs: all of it, or nothing.
//!
//! Each step gives back what it built when it is dropped, so an error at any point leaves neither
//! a device nor a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use geneve::dialect::Dialect;
use ipnet::IpNet;
use netio::link::{Links, Route};
use netio::netns::Netns;
use netio::offload::Limits;
use netio::tun::{Tun, TunConfig};
use netio::udp::MAX_GSO_BYTES;

use super::control_loop::{ControlParts, PathProbe, smallest_by_target};
use super::error::StartError;
use super::exit::Attached;
use super::shared::{Inbox, Shared};
use super::underlay::{self, Underlay};
use super::worker::{Parts, Worker};
use super::{clock, secret};
use crate::config::{AttachmentSettings, NetnsName, Settings};
use crate::control::{Control, Input};
use crate::dataplane::fragments::FragmentTable;
use crate::dataplane::snapshot::{TargetSlot, TargetView};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::WorkerId;
use crate::dataplane::{Ingress, IngressConfig, Return};

/// What a gateway consists of, ready to be started.
#[derive(Debug)]
pub(super) struct Built {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker>,
    pub control: ControlParts,
}

/// Builds everything that `settings` name.
pub(super) fn build(mut settings: Settings) -> Result<Built, StartError> {
    let workers = worker_count(&settings);
    let source_ports = fit_source_ports(&mut settings, workers);
    let settings = &Arc::new(settings);
    let secret = secret::load_or_create(&settings.gateway.secret_file)?;
    let mut control =
        Control::new(Arc::clone(settings), secret, workers, clock::wall_clock(), clock::now());
    let listeners = super::admin::Listeners::bind(&settings.gateway)?;

    let mut namespaces = Namespaces::default();
    let mut underlays = Underlays::open(settings, &mut namespaces, workers, source_ports)?;
    let Devices { mut queues, links, limits } = open_devices(settings, &mut namespaces, workers)?;

    let probes = underlays.probes(settings, &control.snapshot().targets)?;
    for (target, mtu) in smallest_by_target(probes.iter().flat_map(|p| p.measure(|_| true))) {
        control.handle(Input::PathMtu { target, mtu }, clock::now());
    }
    let snapshot = control.snapshot();

    let stats: Vec<_> = (0..workers).map(|_| Arc::new(WorkerStats::default())).collect();
    let inboxes =
        (0..workers).map(|_| Inbox::new()).collect::<Result<_, _>>().map_err(StartError::Poll)?;
    let shared =
        Arc::new(Shared::new(Arc::clone(settings), Arc::clone(&snapshot), stats, inboxes, links));
    let fragments = Arc::new(FragmentTable::default());
    let now = clock::now();
    let workers = (0..workers)
        .map(|number| {
            let id = WorkerId(number);
            let stats = Arc::clone(&shared.stats[usize::from(number)]);
            let config = IngressConfig {
                worker: id,
                max_flows: settings.gateway.max_flows_per_worker,
                seed: index_seed(now, number),
                fragments: Arc::clone(&fragments),
                stats: Arc::clone(&stats),
            };
            Worker::new(Parts {
                id,
                shared: Arc::clone(&shared),
                ingress: Ingress::new(config, Arc::clone(&snapshot), now),
                returns: Return::new(Arc::clone(&snapshot), stats),
                ports: queues.remove(0),
                pools: underlays.pools.clone(),
                underlays: underlays.take_worker(),
                limits,
            })
            .map_err(StartError::Poll)
        })
        .collect::<Result<_, _>>()?;
    Ok(Built { shared, workers, control: ControlParts { control, probes, listeners } })
}

fn worker_count(settings: &Settings) -> u16 {
    let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let configured = settings.gateway.workers;
    let count = if configured == 0 { cpus() } else { configured };
    count.try_into().unwrap_or(u16::MAX)
}

/// Cuts the source ports of each worker to as many as there are, for all who read the settings:
/// the data plane must name no port that has no socket.
fn fit_source_ports(settings: &mut Settings, workers: u16) -> u16 {
    let most = underlay::most_source_ports(workers);
    let configured = settings.gateway.source_ports_per_worker;
    let granted = configured.min(usize::from(most)) as u16;
    if usize::from(granted) < configured {
        tracing::warn!(configured, granted, workers, "there are no more source ports for so many");
    }
    settings.gateway.source_ports_per_worker = granted.into();
    granted
}

/// The key of a flow table's index: different in each process and worker.
fn index_seed(now: Instant, worker: u16) -> u64 {
    ahash::RandomState::new().hash_one((now, worker))
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

/// The sockets of all workers, and which pool uses which.
struct Underlays {
    /// By underlay: its namespace, and the sockets of the workers that were not taken yet.
    open: Vec<(Netns, IpAddr, Vec<Underlay>)>,
    /// By pool: the underlay.
    pools: Vec<usize>,
}

impl Underlays {
    fn open(
        settings: &Settings,
        namespaces: &mut Namespaces,
        workers: u16,
        source_ports: u16,
    ) -> Result<Self, StartError> {
        // Load balancers may share an address; then they share its sockets.
        let mut wanted: Vec<(Option<&NetnsName>, IpAddr, BTreeSet<u16>)> = Vec::new();
        let mut pools = Vec::new();
        for load_balancer in &settings.load_balancers {
            let group = &settings.target_groups[load_balancer.target_group];
            let ports = group.targets.iter().map(|target| target.port.unwrap_or(group.port).get());
            for node in &load_balancer.nodes {
                let netns = load_balancer.netns.as_ref();
                let known = wanted.iter().position(|(n, a, _)| *n == netns && *a == node.address);
                let underlay = known.unwrap_or_else(|| {
                    wanted.push((netns, node.address, BTreeSet::new()));
                    wanted.len() - 1
                });
                wanted[underlay].2.extend(ports.clone());
                pools.push(underlay);
            }
        }
        let open = wanted
            .into_iter()
            .map(|(name, address, ports)| {
                let netns = namespaces.open(name)?;
                let ports: Vec<_> = ports.into_iter().collect();
                let sockets = netns
                    .run(|| Underlay::open_all(address, &ports, workers, source_ports))?
                    .map_err(|failed| StartError::Udp {
                        address: failed.address,
                        netns: netns.name().to_owned(),
                        error: failed.error,
                    })?;
                Ok((netns, address, sockets))
            })
            .collect::<Result<_, StartError>>()?;
        Ok(Self { open, pools })
    }

    /// One worker's sockets on every underlay.
    fn take_worker(&mut self) -> Vec<Underlay> {
        self.open.iter_mut().map(|(_, _, sockets)| sockets.remove(0)).collect()
    }

    /// Sockets that ask for the path MTU to the targets, without disturbing any worker.
    fn probes(
        &self,
        settings: &Settings,
        targets: &[TargetView],
    ) -> Result<Vec<PathProbe>, StartError> {
        let mut pools = self.pools.iter();
        let mut probes = Vec::new();
        for load_balancer in &settings.load_balancers {
            for &underlay in pools.by_ref().take(load_balancer.nodes.len()) {
                let (netns, address, _) = &self.open[underlay];
                let targets = targets
                    .iter()
                    .enumerate()
                    .filter(|(_, target)| target.group == load_balancer.target_group)
                    .map(|(slot, target)| (TargetSlot(slot as u32), target.address));
                probes.push(PathProbe::open(netns, *address, targets.collect())?);
            }
        }
        Ok(probes)
    }
}

/// The TUN devices, created and set up.
struct Devices {
    /// The queues, by worker.
    queues: Vec<Vec<Attached>>,
    /// Whom to ask for their counters, by attachment.
    links: Vec<Links>,
    /// What all of them take in one write.
    limits: Limits,
}

/// Creates the TUN devices, and sets up the addresses and routes behind them.
fn open_devices(
    settings: &Settings,
    namespaces: &mut Namespaces,
    workers: u16,
) -> Result<Devices, StartError> {
    let mut by_worker: Vec<Vec<Attached>> = (0..workers).map(|_| Vec::new()).collect();
    let mut links = Vec::new();
    let mut limits = Limits::default();
    for attachment in &settings.attachments {
        let netns = namespaces.open(attachment.netns.as_ref())?;
        let config = TunConfig {
            name: attachment.tun.as_str().to_owned(),
            queues: usize::from(workers),
            mtu: attachment.mtu.get(),
            offload: true,
            gso_max_size: Some(gso_max_size(attachment.mtu.get())),
        };
        let mut tun = netns.run(|| Tun::create(&config))?.map_err(|error| StartError::Tun {
            name: config.name.clone(),
            netns: netns.name().to_owned(),
            error,
        })?;
        limits.udp &= tun.udp_segmentation();
        let queues = tun.take_queues();
        links.push(set_up(attachment, &netns)?);
        for (ports, queue) in by_worker.iter_mut().zip(queues) {
            ports.push(Attached { at: attachment.at, queue });
        }
    }
    Ok(Devices { queues: by_worker, links, limits })
}

fn set_up(attachment: &AttachmentSettings, netns: &Netns) -> Result<Links, StartError> {
    let links = Links::in_netns(netns)?;
    let name = attachment.tun.as_str();
    links.set_up(name)?;
    for network in &attachment.addresses {
        links.add_address(name, network.addr(), network.prefix_len())?;
    }
    if attachment.default_route {
        for (family, any) in [
            (attachment.addresses.iter().any(|n| matches!(n, IpNet::V4(_))), ANY_V4),
            (attachment.addresses.iter().any(|n| matches!(n, IpNet::V6(_))), ANY_V6),
        ] {
            if family {
                links.add_route(&Route::new(any, 0).device(name))?;
            }
        }
    }
    Ok(links)
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
    fn the_data_plane_names_no_port_without_a_socket() {
        let text = include_str!("../../examples/two-zones.toml");
        let source = router::source::Source::new("two-zones.toml", text);
        let mut settings = crate::config::parse(&source).unwrap();
        settings.gateway.source_ports_per_worker = 64;
        let sockets = fit_source_ports(&mut settings, 256);
        assert!(sockets < 64, "{sockets}");
        let secret = crate::dataplane::keys::Secret::from_bytes([3; 32]);
        let control =
            Control::new(Arc::new(settings), secret, 256, std::time::Duration::ZERO, clock::now());
        assert_eq!(control.snapshot().source_ports, sockets);
    }

    #[test]
    fn each_path_mtu_is_the_smallest_of_all_zones() {
        let [near, far] = [0, 1].map(TargetSlot);
        let measured = [(near, 9000), (far, 1500), (near, 1400), (far, 9000)];
        let smallest: Vec<_> = smallest_by_target(measured).collect();
        assert_eq!(smallest, [(near, 1400), (far, 1500)]);
    }

    #[test]
    fn super_packets_fit_one_send() {
        // 42 segments of 1448 bytes: measured to be the best for an MTU of 1500.
        assert_eq!(gso_max_size(1500), 42 * 1448 + 52);
        assert!(gso_max_size(65_535) > 65_000, "a huge MTU leaves one segment");
    }
}
