//! From checked settings to everything that runs: all of it, or nothing.
//!
//! Each step gives back what it built when it is dropped, so an error at any point leaves neither
//! a device nor a socket. What a changed configuration needs besides is [`super::rigging`]'s.
//! Everything that takes privileges is done here, and they are given up when it is done.

use std::sync::Arc;
use std::time::Instant;

use netio::mem::Commit;
use netio::process::affinity;

use super::control_loop::{ControlParts, smallest_by_target};
use super::devices::Devices;
use super::error::StartError;
use super::rigging::{Answering, Planned, Rigging};
use super::rooms::Rooms;
use super::shared::{INBOX, Inbox, Published, Shared};
use super::steering::Pilot;
use super::underlay::{self, Buffers};
use super::worker::{Worker, WorkerConfig};
use super::{clock, secret};
use crate::config::Settings;
use crate::control::{Control, Input};
use crate::dataplane::flow_log::FlowLogTap;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::WorkerId;

/// What a gateway consists of, ready to be started.
#[derive(Debug)]
pub(super) struct Built {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker>,
    pub control: ControlParts,
    pub listeners: super::admin::Listeners,
    /// Where the workers' parts of the flow logs go, if there are any.
    pub log: Option<FlowLogTap>,
}

/// Builds everything that `settings` name.
pub(super) fn build(mut settings: Settings) -> Result<Built, StartError> {
    let workers = worker_count(&settings);
    check_cpus(&settings.gateway.pin_workers)?;
    let source_ports = fit_source_ports(&mut settings, workers);
    let settings = &Arc::new(settings);
    let secret = secret::load_or_create(&settings.gateway.secret_file)?;
    let now = clock::now();
    let mut control = Control::new(Arc::clone(settings), secret, workers, clock::wall_clock(), now);
    let listeners = super::admin::Listeners::bind(&settings.gateway)?;

    let buffers = Buffers {
        receive: settings.gateway.udp_receive_buffer,
        send: settings.gateway.udp_send_buffer,
    };
    let rooms = Rooms::open(settings)?;
    let Devices { attachments, queues, steering, links, limits } =
        Devices::create(settings, workers)?;
    let pilot = Pilot::new(&control.snapshot().keys, workers, steering);
    let mut rigging = Rigging::new(workers, source_ports, buffers, rooms, attachments, pilot);
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
        .map_err(StartError::Worker)?;
    let nothing = Published { snapshot: control.snapshot(), rig: Arc::default() };
    let shared = Arc::new(Shared::new(Arc::clone(settings), nothing, stats, inboxes));
    *shared.links.lock() = links;
    refit.add_devices(queues);
    rigging.fit(refit, &shared);
    let snapshot = control.snapshot();
    let rig = rigging.rig(&snapshot);
    shared.publish(Published { snapshot, rig });
    let log = flow_log(settings, now);
    let workers = (0..workers)
        .map(|number| {
            Worker::new(WorkerConfig {
                id: WorkerId(number),
                shared: Arc::clone(&shared),
                max_flows: settings.gateway.max_flows_per_worker,
                limits: limits.clone(),
                cpu: settings.gateway.pin_workers.get(usize::from(number)).copied(),
                busy_poll: settings.gateway.busy_poll,
                records: settings.gateway.flow_records,
                log: log.clone(),
                commit: if settings.gateway.huge_pages { Commit::AtOnce } else { Commit::Lazily },
            })
            .map_err(StartError::Worker)
        })
        .collect::<Result<_, _>>()?;
    rigging.settle()?;
    let control = ControlParts { control, rigging, probing };
    Ok(Built { shared, workers, control, listeners, log })
}

/// Where flows are told of, if the configuration has flow logs: in windows as long as in the log
/// with the shortest.
fn flow_log(settings: &Settings, now: Instant) -> Option<FlowLogTap> {
    let window = settings.flow_logs.iter().map(|log| log.interval).min()?;
    Some(FlowLogTap::new(window, now))
}

fn worker_count(settings: &Settings) -> u16 {
    let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = match (settings.gateway.workers, settings.gateway.pin_workers.len()) {
        (0, 0) => cpus(),
        (0, pinned) => pinned,
        (configured, _) => configured,
    };
    count.try_into().unwrap_or(u16::MAX)
}

/// Before anything is built, whether workers can stay where they are to.
fn check_cpus(pinned: &[usize]) -> Result<(), StartError> {
    if pinned.is_empty() {
        return Ok(());
    }
    let allowed = affinity::allowed().map_err(StartError::Kernel)?;
    match pinned.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(&cpu) => Err(StartError::Cpu { cpu, allowed }),
        None => Ok(()),
    }
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
    fn there_is_a_worker_for_each_cpu_that_is_named() {
        let text = include_str!("../../examples/two-zones.toml");
        let source = router::source::Source::new("two-zones.toml", text);
        let mut settings = crate::config::parse(&source).unwrap();
        let cpus = std::thread::available_parallelism().unwrap().get();
        for (workers, pinned, count) in
            [(0, &[][..], cpus), (0, &[0, 5, 7], 3), (2, &[0, 1], 2), (4, &[], 4)]
        {
            settings.gateway.workers = workers;
            settings.gateway.pin_workers = pinned.to_vec();
            assert_eq!(usize::from(worker_count(&settings)), count, "{workers}, {pinned:?}");
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        let allowed = affinity::allowed().unwrap();
        check_cpus(&allowed).unwrap();
        let missing = (0..affinity::MAX_CPUS).rfind(|cpu| !allowed.contains(cpu)).unwrap();
        let error = check_cpus(&[allowed[0], missing]).unwrap_err();
        assert!(matches!(error, StartError::Cpu { cpu, .. } if cpu == missing), "{error}");
    }

    #[test]
    fn each_path_mtu_is_the_smallest_of_all_zones() {
        let [near, far] = [0, 1].map(TargetSlot);
        let measured = [(near, 9000), (far, 1500), (near, 1400), (far, 9000)];
        let smallest: Vec<_> = smallest_by_target(measured).collect();
        assert_eq!(smallest, [(near, 1400), (far, 1500)]);
    }
}
