//! A small data plane for the unit tests: one zone, two appliances, and packets to send through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use etherparse::PacketBuilder;
use netio::mem::Commit;
use netio::offload::Offload;
use router::source::Source;
use router::{Attachment, Entry};

use super::flow_log::FlowLogTap;
use super::fragments::FragmentTable;
use super::frame::Frame;
use super::keys::Secret;
use super::snapshot::Snapshot;
use super::stats::{Totals, WorkerStats};
use super::translate::Head;
use super::verdict::{Course, Hop, Verdict, WorkerId};
use super::{Glance, Ingress, IngressConfig, Return};
use crate::control::Control;

pub(super) const CLIENT: [u8; 4] = [203, 0, 113, 7];
pub(super) const SERVER: [u8; 4] = [10, 0, 1, 11];
pub(super) const CLIENT_V6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets();
pub(super) const SERVER_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 0x10, 0, 1, 0, 0, 0, 0x11).octets();
/// The server, as the internet sees it.
pub(super) const PUBLIC: [u8; 4] = [198, 51, 100, 11];
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(super) const CONFIGURATION: &str = r#"
[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16", "fd00:10::/48"]
[[subnet]]
name = "app-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24", "fd00:10:0:1::/64"]
route_table = "app-a"
[[subnet]]
name = "gwlbe-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.101.0/28", "fd00:10:0:101::/64"]
route_table = "gwlbe-a"
[[internet_gateway]]
name = "igw"
vpc = "app"
route_table = "igw"
addresses = [{ public = "198.51.100.11", private = "10.0.1.11" }]
[[route_table]]
name = "igw"
vpc = "app"
routes = [{ destination = "10.0.1.0/24", endpoint = "vpce-a" }, { destination = "fd00:10:0:1::/64", endpoint = "vpce-a" }]
[[route_table]]
name = "app-a"
vpc = "app"
routes = [
    { destination = "0.0.0.0/0", endpoint = "vpce-a" },
    { destination = "::/0", endpoint = "vpce-a" },
    { destination = "198.51.100.0/24", blackhole = true },
]
[[route_table]]
name = "gwlbe-a"
vpc = "app"
routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }, { destination = "::/0", internet_gateway = "igw" }]
[[endpoint]]
name = "vpce-a"
subnet = "gwlbe-a"
service = "inspection"
[[endpoint_service]]
name = "inspection"
load_balancers = ["fw"]
[[load_balancer]]
name = "fw"
target_group = "fw"
nodes = [{ zone = "az1", address = "192.0.2.1" }]
tcp_unknown_flow = "UNKNOWN_FLOW"
adopt_after_start = false
[[target_group]]
name = "fw"
[[target]]
group = "fw"
address = "192.0.2.11"
zone = "az1"
[[target]]
group = "fw"
address = "192.0.2.12"
zone = "az1"
[[attachment]]
internet_gateway = "igw"
tun = "igw"
[[attachment]]
subnet = "app-a"
tun = "app-a"
"#;

/// Where a virtual clock starts.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// One worker's data plane.
pub(super) struct Plane {
    pub ingress: Ingress,
    pub returns: Return,
    pub snapshot: Arc<Snapshot>,
    pub stats: Arc<WorkerStats>,
    pub now: Instant,
    pub igw: Entry,
    pub app: Entry,
}

impl Plane {
    /// The short way of a packet that comes now.
    pub fn shortcut(&mut self, glance: &Glance) -> Option<Course> {
        let moment = self.ingress.moment(self.now);
        self.ingress.shortcut(glance, &moment)
    }

    pub fn new(unknown_flow: &str) -> Self {
        Self::of_worker(unknown_flow, WorkerId(0), 1)
    }

    pub fn of_worker(unknown_flow: &str, worker: WorkerId, workers: u16) -> Self {
        Self::of_file(CONFIGURATION.replace("UNKNOWN_FLOW", unknown_flow), worker, workers)
    }

    /// The same of another configuration, which has an internet gateway `igw` and a subnet `app-a`.
    pub fn of_file(text: String, worker: WorkerId, workers: u16) -> Self {
        Self::of_file_logged(text, worker, workers, None)
    }

    /// The usual one, whose flows are logged in windows of so long, in a queue of so many.
    pub fn logged(window: Duration, queue: usize) -> (Self, FlowLogTap) {
        let (queue, start) = (Arc::new(ArrayQueue::new(queue)), start());
        let tap = FlowLogTap { queue, window, start };
        let text = CONFIGURATION.replace("UNKNOWN_FLOW", "drop");
        let mut plane = Self::of_file_logged(text, WorkerId(0), 1, Some(tap.clone()));
        plane.now = start;
        (plane, tap)
    }

    pub fn of_file_logged(
        text: String,
        worker: WorkerId,
        workers: u16,
        log: Option<FlowLogTap>,
    ) -> Self {
        let settings = crate::config::parse(&Source::new("test.toml", text)).unwrap();
        let topology = Arc::clone(&settings.topology);
        let secret = Secret::from_bytes([9; Secret::LEN]);
        let now = start();
        let control = Control::new(Arc::new(settings), secret, workers, Duration::ZERO, now);
        let snapshot = control.snapshot();
        let stats = Arc::new(WorkerStats::default());
        let config = IngressConfig {
            worker,
            max_flows: 100,
            commit: Commit::Lazily,
            records: true,
            log,
            fragments: Arc::new(FragmentTable::default()),
            stats: Arc::clone(&stats),
        };
        Self {
            ingress: Ingress::new(config, Arc::clone(&snapshot), now).unwrap(),
            returns: Return::new(worker, Arc::clone(&snapshot), Arc::clone(&stats)),
            snapshot,
            stats,
            now,
            igw: Entry::InternetGateway(topology.gateway_by_name("igw").unwrap()),
            app: Entry::Subnet(topology.subnet_by_name("app-a").unwrap()),
        }
    }

    pub fn send(&mut self, from: Entry, packet: &[u8]) -> Verdict {
        let frame = Frame::parse(packet, &Offload::NONE).unwrap();
        self.ingress.handle_packet(from.into(), &frame, self.now)
    }

    /// A packet from the internet, as it is in the VPC.
    pub fn enter(&self, mut packet: Vec<u8>) -> Vec<u8> {
        let translation = self.snapshot.translation(self.internet()).unwrap();
        translation.inward(&mut packet, &Offload::NONE);
        packet
    }

    /// A packet of the VPC, as it is after it left by `to`.
    pub fn leave(&self, to: Attachment, packet: &[u8]) -> Vec<u8> {
        let translation = self.snapshot.translation(to);
        let head = translation.and_then(|it| it.outward_head(packet, &Offload::NONE));
        Head::before(head.as_ref(), packet).concat()
    }

    /// Where the internet is attached.
    pub fn internet(&self) -> Attachment {
        Attachment::InternetGateway(self.snapshot.topology.gateway_by_name("igw").unwrap())
    }

    /// Sends a packet that is to reach an appliance.
    pub fn hop(&mut self, from: Entry, packet: &[u8]) -> Hop {
        match self.send(from, packet) {
            Verdict::ToAppliance(hop) => hop,
            other => panic!("{other:?}"),
        }
    }

    /// Lays changes over the view of the configuration.
    pub fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot);
        change(&mut snapshot);
        snapshot.generation += 1;
        self.snapshot = Arc::new(snapshot);
        self.ingress.handle_snapshot(Arc::clone(&self.snapshot), self.now);
        self.returns.handle_snapshot(Arc::clone(&self.snapshot));
    }

    pub fn totals(&self) -> Totals {
        Totals::of([&*self.stats])
    }
}

/// What an appliance returns: the datagram that it was sent.
pub(super) fn echo(hop: &Hop, packet: &[u8]) -> (SocketAddr, Vec<u8>) {
    (hop.address, [hop.header.as_bytes(), packet].concat())
}

pub(super) fn syn(src: [u8; 4], dst: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(src, dst, 64).tcp(ports.0, ports.1, 1000, 1024).syn();
    built(|out| builder.write(out, &[]))
}

pub(super) fn ack(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(src, dst, 64).tcp(ports.0, ports.1, 1001, 1024).ack(77);
    built(|out| builder.write(out, payload))
}

pub(super) fn udp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(src, dst, 64).udp(ports.0, ports.1);
    built(|out| builder.write(out, payload))
}

pub(super) fn ack_v6(src: [u8; 16], dst: [u8; 16], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(src, dst, 64).tcp(ports.0, ports.1, 1001, 1024).ack(77);
    built(|out| builder.write(out, payload))
}

pub(super) fn udp_v6(src: [u8; 16], dst: [u8; 16], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(src, dst, 64).udp(ports.0, ports.1);
    built(|out| builder.write(out, payload))
}

fn built<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&mut packet).unwrap();
    packet
}
