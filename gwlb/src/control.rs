//! The control plane: what the data plane should know, as the configuration and events say.
//!
//! It has the form of the data plane: events come in with the time, side effects come out as data,
//! and nothing here has a thread, a socket or a clock.

mod probe;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use probe::ProbeOutcome;

use crate::config::{LoadBalancer, Settings};
use crate::dataplane::keys::{EPOCH_SECONDS, Keys, Secret};
use crate::dataplane::select::{Candidate, TargetId};
use crate::dataplane::snapshot::{EndpointView, Pool, PoolId, Snapshot, TargetSlot, TargetView};
use crate::dataplane::stats::TargetCounters;
use crate::dataplane::translate::Translation;

/// What the control plane is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The wall clock, as time since 1970: cookie keys turn by the calendar.
    WallClock(Duration),
    /// The underlay carries outer packets of at most `mtu` bytes to this target.
    PathMtu {
        /// The target.
        target: TargetSlot,
        /// In bytes, outer IP header included.
        mtu: u16,
    },
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Give this view to every worker.
    Publish(Arc<Snapshot>),
}

/// The control plane of one gateway.
#[derive(Debug)]
pub struct Control {
    settings: Arc<Settings>,
    secret: Secret,
    workers: u16,
    epoch: u64,
    targets: Vec<TargetView>,
    outputs: VecDeque<Output>,
}

/// Outer packets on an ordinary Ethernet, until the underlay is asked.
const ETHERNET_MTU: u16 = 1500;

impl Control {
    /// A control plane for a checked configuration. `wall_clock` is the time since 1970.
    ///
    /// The first snapshot is the first output.
    pub fn new(
        settings: Arc<Settings>,
        secret: Secret,
        workers: u16,
        wall_clock: Duration,
    ) -> Self {
        let targets = settings
            .target_groups
            .iter()
            .enumerate()
            .flat_map(|(group, settings)| {
                settings.targets.iter().map(move |target| {
                    let port = target.port.unwrap_or(settings.port).get();
                    let address = SocketAddr::new(target.address, port);
                    TargetView {
                        id: TargetId::new(settings.name.as_str(), address),
                        group,
                        address,
                        path_mtu: ETHERNET_MTU,
                        dialect: settings.dialect,
                        counters: (0..workers).map(|_| TargetCounters::default()).collect(),
                    }
                })
            })
            .collect();
        let epoch = wall_clock.as_secs() / EPOCH_SECONDS;
        let mut control =
            Self { settings, secret, workers, epoch, targets, outputs: VecDeque::new() };
        control.publish();
        control
    }

    /// Takes an event in.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::WallClock(now) => {
                let epoch = now.as_secs() / EPOCH_SECONDS;
                if epoch != self.epoch {
                    self.epoch = epoch;
                    self.publish();
                }
            }
            Input::PathMtu { target, mtu } => {
                let Some(view) = self.targets.get_mut(target.0 as usize) else { return };
                if view.path_mtu != mtu {
                    view.path_mtu = mtu;
                    self.publish();
                }
            }
        }
    }

    /// What is to be done next, if anything.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::WallClock`] is due, as time since 1970.
    pub fn poll_timeout(&self) -> Duration {
        Duration::from_secs((self.epoch + 1) * EPOCH_SECONDS)
    }

    /// Every target, by slot.
    pub fn targets(&self) -> &[TargetView] {
        &self.targets
    }

    fn publish(&mut self) {
        // Of several views that nobody has taken yet, only the last one counts.
        self.outputs.clear();
        self.outputs.push_back(Output::Publish(Arc::new(self.snapshot())));
    }

    /// The view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        let settings = &self.settings;
        let mut pools = Vec::new();
        let mut first_pool = Vec::new();
        for load_balancer in &settings.load_balancers {
            first_pool.push(pools.len());
            pools.extend((0..load_balancer.nodes.len()).map(|node| self.pool(load_balancer, node)));
        }
        let endpoints: Vec<_> = settings
            .topology
            .endpoints()
            .map(|(id, endpoint)| {
                let binding = settings.binding(id);
                EndpointView {
                    wire_id: endpoint.wire_id,
                    pool: PoolId((first_pool[binding.load_balancer] + binding.node) as u16),
                    addresses: endpoint.addresses.clone(),
                }
            })
            .collect();
        let mut sources = ahash::AHashMap::<_, Vec<_>>::new();
        for (slot, target) in self.targets.iter().enumerate() {
            sources.entry(target.address.ip()).or_default().push(TargetSlot(slot as u32));
        }
        Snapshot {
            topology: Arc::clone(&settings.topology),
            keys: Keys::derive(&self.secret, self.epoch),
            wire_ids: settings
                .topology
                .endpoints()
                .map(|(id, endpoint)| (endpoint.wire_id, id))
                .collect(),
            endpoints,
            pools,
            targets: self.targets.clone(),
            sources,
            attachments: settings
                .attachments
                .iter()
                .map(|attachment| (attachment.at, attachment.mtu.get()))
                .collect(),
            translations: settings
                .topology
                .gateways()
                .map(|(_, gateway)| Translation::of(&gateway.addresses))
                .collect(),
            workers: self.workers,
            source_ports: settings.gateway.source_ports_per_worker as u16,
        }
    }

    fn pool(&self, load_balancer: &LoadBalancer, node: usize) -> Pool {
        let settings = &self.settings;
        let group = &settings.target_groups[load_balancer.target_group];
        let node = &load_balancer.nodes[node];
        let candidates = self
            .targets
            .iter()
            .enumerate()
            .filter(|(_, view)| view.group == load_balancer.target_group)
            .zip(&group.targets)
            // "A load balancer node routes to the targets of its own zone" unless cross-zone is on
            // (AWS attribute load_balancing.cross_zone.enabled).
            .filter(|(_, target)| load_balancer.cross_zone || target.zone == node.zone)
            .map(|((slot, view), target)| Candidate {
                target: TargetSlot(slot as u32),
                id: view.id,
                weight: target.weight.get(),
            })
            .collect();
        Pool {
            load_balancer: load_balancer.name.to_string(),
            zone: node.zone.clone(),
            address: node.address,
            stickiness: group.stickiness,
            tcp_idle_timeout: load_balancer.timers.tcp_idle,
            other_idle_timeout: load_balancer.timers.other_idle,
            unknown_flow: load_balancer.tcp_unknown_flow,
            candidates,
        }
    }
}

#[cfg(test)]
mod tests {
    use router::source::Source;

    use super::*;

    const TWO_ZONES: &str = include_str!("../examples/two-zones.toml");

    fn control(change: impl FnOnce(String) -> String) -> Control {
        let source = Source::new("two-zones.toml", change(TWO_ZONES.to_owned()));
        let settings = Arc::new(crate::config::parse(&source).unwrap());
        Control::new(settings, Secret::from_bytes([3; Secret::LEN]), 2, Duration::ZERO)
    }

    fn published(control: &mut Control) -> Option<Arc<Snapshot>> {
        control.poll_output().map(|Output::Publish(snapshot)| snapshot)
    }

    /// The addresses of a pool's candidates.
    fn candidates(snapshot: &Snapshot, pool: usize) -> Vec<String> {
        let candidates = snapshot.pools[pool].candidates.iter();
        candidates.map(|c| snapshot.target(c.target).address.to_string()).collect()
    }

    #[test]
    fn a_node_uses_the_targets_of_its_zone() {
        let mut control = control(|text| text);
        let snapshot = published(&mut control).unwrap();
        assert_eq!(candidates(&snapshot, 0), ["192.0.2.11:6081", "192.0.2.12:6081"]);
        assert_eq!(candidates(&snapshot, 1), ["192.0.2.21:6081"]);
        for (endpoint, zone) in snapshot.endpoints.iter().zip(["az1", "az2"]) {
            assert_eq!(snapshot.pool(endpoint.pool).zone, zone);
        }
        assert_eq!(snapshot.sources.len(), 3);
    }

    #[test]
    fn with_cross_zone_a_node_uses_all() {
        let on = |text: String| text.replace("# cross_zone = false", "cross_zone = true");
        let snapshot = published(&mut control(on)).unwrap();
        assert_eq!(candidates(&snapshot, 0).len(), 3);
        assert_eq!(candidates(&snapshot, 0), candidates(&snapshot, 1));
    }

    #[test]
    fn only_a_change_is_published() {
        let mut control = control(|text| text);
        published(&mut control).unwrap();
        let target = TargetSlot(0);
        control.handle(Input::PathMtu { target, mtu: 1500 });
        assert!(published(&mut control).is_none(), "1500 is what it begins with");
        control.handle(Input::PathMtu { target, mtu: 9000 });
        control.handle(Input::PathMtu { target: TargetSlot(99), mtu: 9000 });
        let snapshot = published(&mut control).unwrap();
        assert_eq!(snapshot.target(target).inner_mtu(), 9000 - 68);
        assert!(published(&mut control).is_none());

        let turn = control.poll_timeout();
        control.handle(Input::WallClock(turn.saturating_sub(Duration::from_millis(1))));
        assert!(published(&mut control).is_none());
        control.handle(Input::WallClock(turn));
        assert_eq!(published(&mut control).unwrap().keys.cookie.epoch(), 1);
    }
}
