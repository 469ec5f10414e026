//! Checks through the tunnel: a packet that an appliance must bring back, the way that all packets
//! go. They find the appliance whose health port answers and whose data path is dead.
//!
//! When to probe and what an outcome means is `health`'s; what a packet looks like
//! is written in `packet`.

mod mtu;
mod packet;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::health::{Check, CheckId, Finding, Pace};
use super::probe::ProbeOutcome;
use crate::config::{Settings, TunnelCheck};
use crate::dataplane::snapshot::{PoolId, TargetSlot, TunnelFlow};
use mtu::{Fit, Progress, Search};

pub use packet::{PORT, Recognised, recognise};
pub(super) use packet::{Way, smallest, write};

/// A packet that is to be sent at once from the sockets of a pool. Exactly one
/// [`Input::TunnelProbe`](super::Input::TunnelProbe) answers it, within its timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRequest {
    /// Whose it is.
    pub check: CheckId,
    /// Which of its probes.
    pub sequence: u32,
    /// The node that sends it.
    pub pool: PoolId,
    /// Who is probed.
    pub target: TargetSlot,
    /// The outer source: the node's address.
    pub source: IpAddr,
    /// The outer destination: where the target takes Geneve.
    pub address: SocketAddr,
    /// The whole UDP payload: Geneve header and inner packet.
    pub packet: Vec<u8>,
    /// How long it may take to come back.
    pub timeout: Duration,
}

/// How a probe through the tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelOutcome {
    /// It came back: [`recognise`] has found it.
    Returned,
    /// It did not, within the time.
    Lost,
    /// It is too long for the way to the target: the kernel has refused it.
    TooLong,
    /// It could not be sent for another reason, which says nothing about the target.
    Local,
}

/// The smallest inner packet that the largest is looked for from: what every host must take, IPv4
/// (RFC 791) and IPv6 (RFC 8200 §5).
const fn smallest_mtu(flow: &TunnelFlow) -> u16 {
    if flow.source.is_ipv4() { 576 } else { 1280 }
}

/// After this long the largest packet is looked for again: appliances change, and nobody tells.
const MEASURE_AGAIN: Duration = Duration::from_mins(10);
/// How many probes in a row must have come back before it is.
const STEADY: u32 = 2;

/// How often a tunnel is probed.
pub(super) fn pace(settings: &TunnelCheck) -> Pace {
    Pace {
        interval: settings.interval,
        healthy_threshold: settings.healthy_threshold,
        unhealthy_threshold: settings.unhealthy_threshold,
    }
}

/// The addresses of a node's probes and the wire id of the endpoint that they seem to come
/// through: the first that the node serves. `None` if it serves none.
///
/// They are the same whether tunnels are checked or not, so that pings are always known when they come
/// back. What the settings do not say is that endpoint's address and its neighbour in the subnet: both
/// belong to nobody else, and an appliance has a route to them, since packets come from there.
pub(super) fn flow(
    settings: &Settings,
    (load_balancer, node): (usize, usize),
) -> Option<(TunnelFlow, u64)> {
    let group = settings.load_balancers[load_balancer].target_group;
    let check = settings.target_groups[group].tunnel_check.as_ref();
    let [source, destination] =
        [check.and_then(|it| it.source), check.and_then(|it| it.destination)];
    let (_, endpoint) = settings.topology.endpoints().find(|&(id, _)| {
        let binding = settings.binding(id);
        (binding.load_balancer, binding.node) == (load_balancer, node)
    })?;
    let wanted = source.or(destination).map(|ip| ip.is_ipv4());
    let addresses = || endpoint.addresses.iter().copied();
    let own = match wanted {
        Some(v4) => addresses().find(|ip| ip.is_ipv4() == v4),
        None => addresses().find(IpAddr::is_ipv4).or_else(|| addresses().next()),
    };
    let subnet = &settings.topology.subnet(endpoint.subnet).cidrs;
    let source = source.or(own)?;
    // Neither may be the broadcast address, and the first addresses of a subnet are the router's:
    // an endpoint has room below it, if none above.
    let neighbour = || {
        let mut both = neighbours(own.unwrap_or(source)).into_iter().flatten();
        both.find(|ip| *ip != source && subnet.iter().any(|cidr| holds(cidr, *ip)))
    };
    let destination = destination.or_else(neighbour)?;
    Some((TunnelFlow { source, destination, port: PORT }, endpoint.wire_id))
}

/// Whether a host can have this address.
fn holds(cidr: &IpNet, ip: IpAddr) -> bool {
    cidr.contains(&ip) && (ip.is_ipv6() || ip != cidr.broadcast())
}

/// The next address, and the one before.
fn neighbours(address: IpAddr) -> [Option<IpAddr>; 2] {
    match address {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            [bits.checked_add(1), bits.checked_sub(1)].map(|it| it.map(|it| IpAddr::V4(it.into())))
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            [bits.checked_add(1), bits.checked_sub(1)].map(|it| it.map(|it| IpAddr::V6(it.into())))
        }
    }
}

/// The check of one tunnel: from one node to one target.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    pub id: CheckId,
    check: Check,
    pub timeout: Duration,
    flow: TunnelFlow,
    sequence: u32,
    /// Probes that have not ended.
    under_way: BTreeMap<u32, Sent>,
    round_trip: Option<Duration>,
    /// Regular probes in a row that came back.
    steady: u32,
    /// Until every worker has this view, nobody would know a probe that comes back.
    waits_for: u64,
    measurement: Option<Measurement>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    padded: bool,
}

/// The measuring of the largest packet.
#[derive(Debug, Clone)]
struct Measurement {
    /// The largest inner packet that fits into an outer one.
    largest: u16,
    usable: Option<u16>,
    search: Option<Search>,
    /// The probe whose outcome the search waits for.
    trying: Option<u32>,
    /// When the next search may begin; `None`: as soon as the tunnel is steady.
    again: Option<Instant>,
}

/// A probe that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub sequence: u32,
    /// The length of the inner packet.
    pub size: u16,
}

impl Tunnel {
    /// A check that begins with `finding`, and probes as soon as every worker holds the view
    /// `waits_for`. `largest` is the largest inner packet that fits into an outer one.
    pub fn new(
        id: CheckId,
        settings: &TunnelCheck,
        flow: TunnelFlow,
        (finding, largest): (Finding, u16),
        (now, jitter): (Instant, Duration),
        waits_for: u64,
    ) -> Self {
        let measurement = settings.measure_mtu.then_some(Measurement {
            largest,
            usable: None,
            search: None,
            trying: None,
            again: None,
        });
        Self {
            id,
            check: Check::new(pace(settings), finding, now, jitter),
            timeout: settings.timeout,
            flow,
            sequence: 0,
            under_way: BTreeMap::new(),
            round_trip: None,
            steady: 0,
            waits_for,
            measurement,
        }
    }

    pub fn finding(&self) -> Finding {
        self.check.finding()
    }

    pub fn is_faulted(&self) -> bool {
        self.check.is_faulted()
    }

    /// How long the last probe took that came back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The largest inner packet that comes back, as far as it was measured.
    pub fn usable_mtu(&self) -> Option<u16> {
        self.measurement.as_ref()?.usable
    }

    pub fn flow(&self) -> TunnelFlow {
        self.flow
    }

    /// When the next probe starts; `None` as long as the workers do not know of it.
    pub fn due(&self, acknowledged: u64) -> Option<Instant> {
        if acknowledged < self.waits_for {
            return None;
        }
        let regular = self.check.due();
        let measuring = self.measurement.as_ref().and_then(|it| self.search_due(it));
        Some(measuring.map_or(regular, |due| due.min(regular)))
    }

    /// When the search needs something done: at the given time, or (the time of the last event
    /// being as good as now) at once.
    fn search_due(&self, measurement: &Measurement) -> Option<Instant> {
        match measurement.search {
            Some(_) if measurement.trying.is_some() => None,
            _ if self.steady < STEADY => None,
            _ => measurement.again,
        }
    }

    /// The next probe that is to be sent now. To be asked until there is none.
    pub fn start_due(&mut self, now: Instant) -> Option<Start> {
        if self.check.start_due(now) {
            return Some(self.start(packet::smallest(&self.flow), false, now));
        }
        let due = self.measurement.as_ref().and_then(|it| self.search_due(it))?;
        let smallest = smallest_mtu(&self.flow);
        let measurement = self.measurement.as_mut().filter(|_| due <= now)?;
        let largest = measurement.largest;
        let search = measurement.search.get_or_insert_with(|| Search::new(smallest, largest));
        let size = search.size();
        let start = self.start(size, true, now);
        if let Some(measurement) = &mut self.measurement {
            measurement.trying = Some(start.sequence);
        }
        Some(start)
    }

    fn start(&mut self, size: u16, padded: bool, now: Instant) -> Start {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.under_way.insert(sequence, Sent { at: now, padded });
        Start { sequence, size }
    }

    /// Something outside says that the target may be dead.
    pub fn suspect(&mut self, now: Instant) {
        self.check.suspect(now);
    }

    /// A probe has ended. A padded one that was lost says nothing about health.
    pub fn record(&mut self, sequence: u32, outcome: TunnelOutcome, now: Instant) {
        let Some(sent) = self.under_way.remove(&sequence) else { return };
        if outcome == TunnelOutcome::Returned {
            self.round_trip = Some(now.saturating_duration_since(sent.at));
        }
        if sent.padded {
            self.measure(sequence, outcome, now);
            return;
        }
        let health = match outcome {
            TunnelOutcome::Returned => ProbeOutcome::Passed,
            TunnelOutcome::Lost => ProbeOutcome::TimedOut,
            TunnelOutcome::TooLong | TunnelOutcome::Local => ProbeOutcome::Local,
        };
        self.check.record(health, now);
        match health {
            ProbeOutcome::Passed => {
                self.steady = self.steady.saturating_add(1);
                if self.steady == STEADY
                    && let Some(measurement) = &mut self.measurement
                {
                    measurement.again = Some(measurement.again.map_or(now, |it| it.max(now)));
                }
            }
            ProbeOutcome::TimedOut => {
                // A loss says nothing about sizes any more.
                self.steady = 0;
                if let Some(measurement) = &mut self.measurement
                    && measurement.search.take().is_some()
                {
                    measurement.trying = None;
                }
            }
            _ => {}
        }
    }

    fn measure(&mut self, sequence: u32, outcome: TunnelOutcome, now: Instant) {
        let Some(measurement) = &mut self.measurement else { return };
        if measurement.trying != Some(sequence) {
            return;
        }
        measurement.trying = None;
        let fit = match outcome {
            TunnelOutcome::Returned => Fit::Returned,
            TunnelOutcome::Lost => Fit::Lost,
            TunnelOutcome::TooLong => Fit::TooLong,
            TunnelOutcome::Local => {
                measurement.search = None;
                measurement.again = Some(now + MEASURE_AGAIN);
                return;
            }
        };
        let Some(search) = &mut measurement.search else { return };
        match search.record(fit) {
            Progress::Searching => measurement.again = Some(now),
            Progress::Found(usable) => {
                measurement.usable = usable;
                measurement.search = None;
                measurement.again = Some(now + MEASURE_AGAIN);
            }
        }
    }

    /// Another inner packet is the largest that fits into an outer one. What was measured is
    /// measured again.
    pub fn set_largest(&mut self, largest: u16, now: Instant) {
        if let Some(measurement) = &mut self.measurement
            && measurement.largest != largest
        {
            *measurement = Measurement {
                largest,
                usable: measurement.usable,
                search: None,
                trying: None,
                again: (self.steady >= STEADY).then_some(now),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::start;
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_not_tried_again_at_once() {
        let settings = TunnelCheck {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            source: None,
            destination: None,
            measure_mtu: true,
        };
        let [source, destination] = [4, 5].map(|last| IpAddr::from([10, 0, 0, last]));
        let flow = TunnelFlow { source, destination, port: PORT };
        let begin = (start(), Duration::from_secs(3));
        let id = CheckId::new(1);
        let mut tunnel = Tunnel::new(id, &settings, flow, (Finding::NOTHING, 1432), begin, 1);
        assert_eq!((tunnel.due(0), tunnel.due(1)), (None, Some(start())));
        let mut now = start();
        for _ in 0..2 {
            let regular = tunnel.start_due(now).unwrap();
            assert_eq!(regular.size, packet::smallest(&flow));
            tunnel.record(regular.sequence, TunnelOutcome::Returned, now);
            tunnel.record(regular.sequence, TunnelOutcome::Lost, now);
            now += Duration::from_secs(3);
        }
        assert_eq!(tunnel.finding(), Finding::Healthy, "an outcome counts once");
        let padded = tunnel.start_due(now).unwrap();
        assert_eq!(padded, Start { sequence: 2, size: 1432 });
        assert_eq!(tunnel.start_due(now), None, "one at a time");
        tunnel.record(padded.sequence, TunnelOutcome::Local, now);
        assert_eq!(tunnel.start_due(now), None);
        assert_eq!(tunnel.due(1), Some(start() + Duration::from_secs(13)), "the next regular one");
        let again = now + MEASURE_AGAIN;
        let regular = tunnel.start_due(again).unwrap();
        assert_eq!(tunnel.start_due(again).map(|it| it.size), Some(1432));

        // What is too long for the underlay is ruled out with one look.
        tunnel.record(regular.sequence + 1, TunnelOutcome::TooLong, again);
        let next = tunnel.start_due(again).unwrap();
        assert!((1000..1010).contains(&next.size), "half way to 576: {next:?}");
        assert_eq!(tunnel.usable_mtu(), None);
    }
}
