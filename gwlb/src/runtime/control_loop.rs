//! The thread of the control plane: events in; snapshots, probes and log lines out.
//!
//! It does what [`Control`] says and decides nothing itself. The admin API has a thread of its own,
//! so that no load on it delays a probe.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netio::Device;
use netio::udp::Datagram;
use nix::errno::Errno;
use router::source::Source;
use tokio::sync::{mpsc, oneshot, watch};

use super::control_handle::{
    ConfigFile, ControlError, ControlHandle, Plan, ReloadError, ReloadReport, Request, View,
};
use super::error::StartError;
use super::events::GatewayEvent;
use super::events::floods::Floods;
use super::minutes::Minutes;
use super::pings::{Outcome, PingRefused, Pinged, Pings, Wanted};
use super::prober::{ProbeJob, Probed};
use super::rigging::{Answering, Planned, Probing, Rigging};
use super::shared::{Published, Shared};
use super::{build, clock};
use crate::config::Settings;
use crate::control::{
    CheckId, Control, Input, Output, Ping, PingError, ProbeRequest, Symptoms, TargetSpec,
    TunnelOutcome, TunnelRequest,
};
use crate::dataplane::snapshot::{PoolId, TargetSlot};
use crate::dataplane::stats::Totals;
use crate::dataplane::verdict::DropReason;
use crate::logging::{Throttle, throttled};

/// How often the loop looks after what nobody calls it for.
const TICK: Duration = Duration::from_secs(1);
/// How often every path is measured, to notice routes and devices that change. A path on which a
/// packet turned out to be too long is measured at the next tick.
const PATH_TICKS: u64 = 10;
/// How often the kernel is asked what it threw away.
const SYMPTOM_TICKS: u64 = 2;
/// Results of probes that may wait.
const RESULTS: usize = 1024;
/// How long a start waits until it is known which targets are there. A target that does not answer
/// by then is not waited for: flows that come before it is found out may be placed on it.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// What the control thread works with.
#[derive(Debug)]
pub(super) struct ControlParts {
    pub control: Control,
    pub rigging: Rigging,
    pub probing: Probing,
}

/// Of what was measured from several zones, the path MTU that serves all of them.
pub(super) fn smallest_by_target(
    measured: impl IntoIterator<Item = (TargetSlot, u16)>,
) -> impl Iterator<Item = (TargetSlot, u16)> {
    let mut smallest = BTreeMap::new();
    for (target, mtu) in measured {
        let known = smallest.entry(target).or_insert(mtu);
        *known = mtu.min(*known);
    }
    smallest.into_iter()
}

/// The control thread, running.
#[derive(Debug)]
pub(super) struct ControlLoop {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl ControlLoop {
    /// Starts the thread, and waits for a first look at the targets.
    pub fn start(
        parts: ControlParts,
        shared: Arc<Shared>,
        file: ConfigFile,
    ) -> Result<(Self, ControlHandle), StartError> {
        let (stop, stopped) = watch::channel(false);
        let (handle, requests) = ControlHandle::new();
        let (looked, look) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let driver = Driver::new(parts, shared, file, looked);
                runtime.block_on(driver.run(requests, stopped));
            })
            .map_err(StartError::Thread)?;
        // Without an answer the thread has ended, and whoever asks it will find out.
        let _ = look.blocking_recv();
        Ok((Self { stop, thread }, handle))
    }

    /// Ends the thread.
    pub fn stop(self) {
        // The thread may have ended already; then nobody listens.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

/// Runs the control plane.
struct Driver {
    control: Control,
    rigging: Rigging,
    probing: Probing,
    shared: Arc<Shared>,
    file: ConfigFile,
    results: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    /// Probes through tunnels that have neither come back nor run out of time.
    under_way: HashMap<(CheckId, u32), TargetSlot>,
    pings: Pings,
    minutes: Minutes,
    floods: Floods,
    /// Whoever asks for a wrong reload again and again does not push everything else out of the
    /// events.
    refusals: Throttle,
    /// To be told when the first look at the targets is over.
    looked: Option<oneshot::Sender<()>>,
}

/// What tasks tell the loop.
enum Event {
    Input(Input),
    TunnelTime(CheckId, u32),
    PingTime(CheckId),
}

impl Driver {
    fn new(
        parts: ControlParts,
        shared: Arc<Shared>,
        file: ConfigFile,
        looked: oneshot::Sender<()>,
    ) -> Self {
        let ControlParts { control, rigging, probing } = parts;
        let (results, events) = mpsc::channel(RESULTS);
        let under_way = HashMap::new();
        Self {
            control,
            rigging,
            probing,
            shared,
            file,
            results,
            events,
            under_way,
            pings: Pings::default(),
            minutes: Minutes::new(clock::now(), clock::wall_clock()),
            floods: Floods::default(),
            refusals: Throttle::new(3, 10),
            looked: Some(looked),
        }
    }

    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let started = clock::now();
        let mut tick = tokio::time::interval(TICK);
        let mut ticks = 0;
        loop {
            self.follow(clock::now());
            if self.looked.is_some()
                && (self.control.is_settled() || clock::now() >= started + FIRST_LOOK)
                && let Some(looked) = self.looked.take()
            {
                let _ = looked.send(());
            }
            let look = self.looked.is_some().then_some(started + FIRST_LOOK);
            let due = [self.control.poll_timeout(), look].into_iter().flatten().min();
            tokio::select! {
                () = sleep_until(due) => self.control.handle_timeout(clock::now()),
                _ = tick.tick() => {
                    ticks += 1;
                    self.look_after(ticks);
                }
                Some(event) = self.events.recv() => self.take(&event),
                () = self.shared.notices.wait() => self.take_notices(),
                Some(request) = requests.recv() => self.answer(request),
                _ = stopped.wait_for(|&stop| stop) => break,
            }
        }
    }

    /// Does what the control plane wants done.
    fn follow(&mut self, now: Instant) {
        let mut snapshot = None;
        while let Some(output) = self.control.poll_output() {
            match output {
                Output::Publish(latest) => snapshot = Some(latest),
                Output::Probe(request) => self.probe(request),
                Output::TunnelProbe(request) => self.probe_tunnel(&request, now),
                Output::Event(event) => self.shared.events.publish(event),
            }
        }
        if let Some(snapshot) = snapshot {
            let rig = self.rigging.rig(&snapshot);
            self.shared.publish(Published { snapshot, rig });
        }
    }

    fn probe(&self, request: ProbeRequest) {
        let ProbeRequest { check, load_balancer, source, address, health, timeout } = request;
        let job = ProbeJob {
            netns: self.probing.balancers[load_balancer].netns,
            source,
            address,
            health,
            tls: self.probing.balancers[load_balancer].tls.clone(),
            timeout,
        };
        let prober = Arc::clone(&self.probing.prober);
        let results = self.results.clone();
        tokio::spawn(async move {
            let Probed { outcome, took } = prober.probe(job).await;
            // The loop may have ended.
            if let Some(took) = took {
                let _ = results.send(Event::Input(Input::ProbeTook { check, took })).await;
            }
            let _ = results.send(Event::Input(Input::Probe { check, outcome })).await;
        });
    }

    fn probe_tunnel(&mut self, request: &TunnelRequest, now: Instant) {
        let TunnelRequest { check, sequence, pool, address, packet, timeout, .. } = request;
        let (check, sequence, timeout) = (*check, *sequence, *timeout);
        let outcome = match self.send(*pool, *address, packet) {
            Ok(()) => {
                self.under_way.insert((check, sequence), request.target);
                let results = self.results.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(timeout).await;
                    let _ = results.send(Event::TunnelTime(check, sequence)).await;
                });
                return;
            }
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                TunnelOutcome::TooLong
            }
            Err(error) => {
                throttled!(DEBUG, %address, %error, "cannot send a probe through the tunnel");
                TunnelOutcome::Local
            }
        };
        self.control.handle(Input::TunnelProbe { check, sequence, outcome }, now);
    }

    /// Sends a datagram from a node's own socket, which no worker uses.
    fn send(&mut self, pool: PoolId, address: SocketAddr, packet: &[u8]) -> io::Result<()> {
        let snapshot = self.control.snapshot();
        let of = snapshot.pool(pool);
        let mut nodes = self.probing.nodes.iter_mut();
        let node = nodes.find(|node| node.of.0 == of.load_balancer && node.of.1 == of.zone);
        let meta = Datagram { peer: address, ..Datagram::default() };
        let gone = || Err(io::Error::other("the node is gone"));
        node.map_or_else(gone, |node| node.socket.send(&meta, &[IoSlice::new(packet)]))
    }

    fn ping(&mut self, wanted: &Wanted) -> Result<Vec<Pinged>, PingRefused> {
        let Wanted { endpoint, target, size, .. } = wanted;
        let pings = match self.control.ping(endpoint, *target, *size, self.pings.room()) {
            Err(PingError::TooMany { .. }) => return Err(PingRefused::TooMany),
            pings => pings?,
        };
        let mut sent = Vec::new();
        for Ping { check, pool, target, address, size, packet } in pings {
            let (tell, outcome) = oneshot::channel();
            let begun = clock::now();
            match self.send(pool, address, &packet) {
                Ok(()) => {
                    self.pings.sent((check, target), (begun, clock::now()), tell);
                    let (results, timeout) = (self.results.clone(), wanted.timeout);
                    tokio::spawn(async move {
                        tokio::time::sleep(timeout).await;
                        let _ = results.send(Event::PingTime(check)).await;
                    });
                }
                Err(error) => {
                    let outcome = if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
                        Outcome::TooLong
                    } else {
                        Outcome::NotSent(error.to_string())
                    };
                    // The other end is below.
                    let _ = tell.send(outcome);
                }
            }
            sent.push(Pinged { target: address, size, outcome });
        }
        Ok(sent)
    }

    fn take(&mut self, event: &Event) {
        let now = clock::now();
        match *event {
            Event::Input(input) => self.control.handle(input, now),
            Event::PingTime(check) => self.pings.lost(check),
            Event::TunnelTime(check, sequence) => {
                if self.under_way.remove(&(check, sequence)).is_some() {
                    let outcome = TunnelOutcome::Lost;
                    self.control.handle(Input::TunnelProbe { check, sequence, outcome }, now);
                }
            }
        }
    }

    /// What the workers have noticed.
    fn take_notices(&mut self) {
        let now = clock::now();
        self.control.handle(Input::Acknowledged(self.shared.acknowledged()), now);
        while let Some(target) = self.shared.notices.suspects.pop() {
            self.control.handle(Input::Suspect(target), now);
        }
        while let Some((by, probe, at)) = self.shared.notices.probes.pop() {
            let (check, sequence) = (probe.check, probe.sequence);
            if self.pings.returned(check, by, at, clock::now()) {
                continue;
            }
            // Nobody can vouch for another.
            if self.under_way.get(&(check, sequence)) == Some(&by) {
                self.under_way.remove(&(check, sequence));
                let outcome = TunnelOutcome::Returned;
                self.control.handle(Input::TunnelProbe { check, sequence, outcome }, now);
            }
        }
    }

    /// Once a second: the calendar, the paths, and what went wrong.
    fn look_after(&mut self, ticks: u64) {
        let now = clock::now();
        let wall_clock = clock::wall_clock();
        self.control.handle(Input::WallClock(wall_clock), now);
        self.minutes.look(&self.control, now, wall_clock);
        self.control.handle(Input::Acknowledged(self.shared.acknowledged()), now);
        let mut too_long = Vec::new();
        while let Some(target) = self.shared.notices.too_long.pop() {
            too_long.push(target);
        }
        let all = ticks.is_multiple_of(PATH_TICKS);
        if all || !too_long.is_empty() {
            self.measure_paths(|target| all || too_long.contains(&target), now);
        }
        if ticks.is_multiple_of(SYMPTOM_TICKS) {
            let symptoms = self.symptoms();
            self.control.handle(Input::Symptoms(symptoms), now);
        }
        for (worker, stats) in self.shared.stats.iter().enumerate() {
            for event in self.floods.look(worker, &stats.flows, now) {
                self.shared.events.publish(event);
            }
        }
    }

    fn measure_paths(&mut self, wanted: impl Fn(TargetSlot) -> bool + Copy, now: Instant) {
        let snapshot = self.control.snapshot();
        let measured = self.probing.measure(&snapshot.targets, wanted);
        for (target, mtu) in smallest_by_target(measured.collect::<Vec<_>>()) {
            self.control.handle(Input::PathMtu { target, mtu }, now);
        }
    }

    fn symptoms(&self) -> Symptoms {
        let mut symptoms = Symptoms::default();
        for reader in &self.probing.counters {
            // What cannot be read is no symptom.
            if let Ok(counters) = reader.read() {
                symptoms.udp_checksum_errors +=
                    counters.udp_checksum_errors + counters.udp6_checksum_errors;
                symptoms.reverse_path_filter += counters.reverse_path_filtered;
            }
        }
        let totals = Totals::of(self.shared.stats.iter().map(AsRef::as_ref));
        let drops =
            |reason: DropReason| totals.udp.drops.get(reason.name()).copied().unwrap_or_default();
        Symptoms {
            unknown_source: drops(DropReason::UnknownSource),
            wrong_gateway_address: drops(DropReason::WrongGatewayAddress),
            bad_cookie: drops(DropReason::BadCookie),
            ..symptoms
        }
    }

    fn answer(&mut self, request: Request) {
        // Whoever asked may be gone; what was asked for is done all the same.
        match request {
            Request::View(reply) => {
                drop(reply.send(View::of(&self.control, self.minutes.told())));
            }
            Request::Register { group, target, reply } => {
                let _ = reply.send(self.register(&group, &target));
            }
            Request::Deregister { group, address, port, reply } => {
                let done = self.control.deregister(&group, address, port, clock::now());
                let _ = reply.send(done.map_err(ControlError::from));
            }
            Request::TrafficMode { load_balancer, mode, reply } => {
                let done = self.control.set_traffic_mode(&load_balancer, mode, clock::now());
                let _ = reply.send(done.map_err(ControlError::from));
            }
            Request::SwitchEndpointGroup { group, to, reply } => {
                let now = clock::now();
                let done = self.control.switch_endpoint_group(&group, to.as_deref(), now);
                let _ = reply.send(done.map_err(ControlError::from));
            }
            Request::Ping { wanted, reply } => {
                let _ = reply.send(self.ping(&wanted));
            }
            Request::Reload { source, dry_run, reply } => {
                let done = self.reload(source, dry_run);
                if let Err(error) = &done
                    && !dry_run
                    && let Some(left_out) = self.refusals.admit()
                {
                    let reason = error.in_a_line();
                    self.shared.events.publish(GatewayEvent::ReloadRefused { reason, left_out });
                }
                let _ = reply.send(done);
            }
        }
    }

    /// A target on a port where nobody listens yet gets listeners first.
    fn register(&mut self, group: &str, target: &TargetSpec) -> Result<(), ControlError> {
        let settings = Arc::clone(self.control.settings());
        let index = settings.target_groups.iter().position(|known| known.name.as_str() == group);
        let port = target.port.map(crate::config::Port::get);
        let planned = match index.zip(port) {
            Some((group, port)) if !self.rigging.hears(&settings, group, port) => {
                let targets = Answering::all(&settings, &self.control.snapshot());
                Some(self.rigging.plan(&settings, &targets, Some((group, port)))?)
            }
            _ => None,
        };
        self.control.register(group, target, clock::now())?;
        if let Some(Planned { refit, probing }) = planned {
            self.rigging.fit(refit, &self.shared);
            self.probing = probing;
        }
        let snapshot = self.control.snapshot();
        let new = |slot| snapshot.target(slot).address.ip() == target.address;
        self.measure_paths(new, clock::now());
        Ok(())
    }

    fn reload(
        &mut self,
        source: Option<Source>,
        dry_run: bool,
    ) -> Result<ReloadReport, ReloadError> {
        let workers = self.shared.stats.len() as u16;
        let fit = |settings: &mut Settings| {
            build::fit_source_ports(settings, workers);
        };
        let plan = Plan::of(&self.control.effective_settings(), &self.file, source, fit)?;
        if !dry_run {
            self.apply(Arc::new(plan.settings))?;
        }
        Ok(ReloadReport { applied: !dry_run, ..plan.report })
    }

    fn apply(&mut self, settings: Arc<Settings>) -> Result<(), StartError> {
        let targets = Answering::all(self.control.settings(), &self.control.snapshot());
        let Planned { refit, probing } = self.rigging.plan(&settings, &targets, None)?;
        self.rigging.fit(refit, &self.shared);
        self.probing = probing;
        self.control.reload(Arc::clone(&settings), clock::now());
        self.shared.settings.store(settings);
        self.measure_paths(|_| true, clock::now());
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
