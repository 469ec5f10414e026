//! From checked settings to everything that runs: all of it, or nothing.
//!
//! Each step gives back what it built when it is dropped, so an error at any point leaves neither
//! a device nor a socket. What a changed configuration needs besides is [`super::rigging`]'s.
//! Everything that takes privileges is done here, and they are given up when it is done.

use std::sync::Arc;

use super::control_loop::{ControlParts, smallest_by_target};
use super::devices::Devices;
use super::error::StartError;
use super::rigging::{Answering, Planned, Rigging};
use super::rooms::Rooms;
use super::shared::{INBOX, Inbox, Published, Shared};
use super::underlay;
use super::worker::{Worker, WorkerConfig};
use super::{clock, secret};
use crate::config::Settings;
use crate::control::{Control, Input};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::WorkerId;

/// What a gateway consists of, ready to be started.
#[derive(Debug)]
pub(super) struct Built {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker>,
    pub control: ControlParts,
    pub listeners: super::admin::Listeners,
}

/// Builds everything that `settings` name.
pub(super) fn build(mut settings: Settings) -> Result<Built, StartError> {
    let workers = worker_count(&settings);
    let source_ports = fit_source_ports(&mut settings, workers);
    let settings = &Arc::new(settings);
    let secret = secret::load_or_create(&settings.gateway.secret_file)?;
    let now = clock::now();
    let mut control = Control::new(Arc::clone(settings), secret, workers, clock::wall_clock(), now);
    let listeners = super::admin::Listeners::bind(&settings.gateway)?;

    let rooms = Rooms::open(settings)?;
    let Devices { attachments, queues, links, limits } = Devices::create(settings, workers)?;
    let mut rigging = Rigging::new(workers, source_ports, rooms, attachments);
    let Planned { mut refit, probing } = {
        let targets = Answering::all(settings, &control.snapshot());
        rigging.plan(settings, &targets, None)?
    };
    let targets = control.snapshot();
    for (target, mtu) in smallest_by_target(probing.measure(&targets.targets, |_| true)) {
        control.handle(Input::PathMtu { target, mtu }, now);
    }

    let stats: Vec<_> = (0..workers).map(|_| Arc::new(WorkerStats::default())).collect();
    let inboxes = (0..workers)
        .map(|_| Inbox::new(INBOX))
        .collect::<Result<_, _>>()
        .map_err(StartError::Poll)?;
    let nothing = Published { snapshot: control.snapshot(), rig: Arc::default() };
    let shared = Arc::new(Shared::new(Arc::clone(settings), nothing, stats, inboxes));
    *shared.links.lock() = links;
    refit.add_devices(queues);
    rigging.fit(refit, &shared);
    let snapshot = control.snapshot();
    let rig = rigging.rig(&snapshot);
    shared.publish(Published { snapshot, rig });
    let workers = (0..workers)
        .map(|number| {
            Worker::new(WorkerConfig {
                id: WorkerId(number),
                shared: Arc::clone(&shared),
                max_flows: settings.gateway.max_flows_per_worker,
                limits,
            })
            .map_err(StartError::Poll)
        })
        .collect::<Result<_, _>>()?;
    rigging.settle()?;
    let control = ControlParts { control, rigging, probing };
    Ok(Built { shared, workers, control, listeners })
}

fn worker_count(settings: &Settings) -> u16 {
    let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let configured = settings.gateway.workers;
    let count = if configured == 0 { cpus() } else { configured };
    count.try_into().unwrap_or(u16::MAX)
}

/// Cuts the source ports of each worker to as many as there are, for all who read the settings:
/// the data plane must name no port that has no socket.
pub(super) fn fit_source_ports(settings: &mut Settings, workers: u16) -> u16 {
    let most = underlay::most_source_ports(workers);
    let configured = settings.gateway.source_ports_per_worker;
    let granted = configured.min(usize::from(most)) as u16;
    if usize::from(granted) < configured {
        tracing::warn!(configured, granted, workers, "there are no more source ports for so many");
    }
    settings.gateway.source_ports_per_worker = granted.into();
    granted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::snapshot::TargetSlot;

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
}
