//! One worker: share-nothing, both directions, polling only when all its queues are empty.
//!
//! It carries packets between its TUN queues, its sockets and its half of the data plane, and
//! counts what was really sent and delivered. It decides nothing about packets.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geneve::inner::Inner;
use netio::mem::Commit;
use netio::offload::{Coalescer, Limits, Offload, Place};
use netio::packet::BadChecksums;
use netio::poll::Poller;
use netio::process::affinity;
use netio::tun::TunQueue;
use netio::udp::{Datagram, UdpSocket};
use netio::{Device, Slot};
use router::Entry;

use super::capture::Point;
use super::clock;
use super::exit::{Exit, Returns};
use super::inquiry::Inquiries;
use super::rig::Parts;
use super::shared::{Handover, INBOX, Published, Shared};
use super::underlay::Underlay;
use super::witness::Whereabouts;
use crate::control::recognise;
use crate::dataplane::flow_log::FlowLogTap;
use crate::dataplane::fragments::Waiting;
use crate::dataplane::frame::Frame;
use crate::dataplane::snapshot::{Snapshot, TargetSlot};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, Origin, ReturnVerdict, Side, Way, WorkerId};
use crate::dataplane::{Glance, Ingress, IngressConfig, Moment, Return};
use crate::logging::throttled;

/// Under which the poller reports the waker of the worker's inbox: the first of its sources.
const INBOX_TOKEN: u64 = 0;
/// Packets read from one TUN queue before the next device has its turn.
pub const TUN_BATCH: usize = 64;
/// How many of them are read at a time.
const TUN_STEP: usize = 16;
/// No more are read when there are so many bytes: a few super-packets should be sent while they are
/// in the cache, but small packets that leave together are best many.
const TUN_BYTES: usize = 128 * 1024;
/// Receive buffers for datagrams, each for a whole batch of segments.
const UDP_BATCH: usize = 8;
/// The largest packet or batch that a device gives.
const BUFFER: usize = 65_536;
/// UDP's header (RFC 768).
const UDP_HEADER: usize = 8;
/// How often a busy worker asks the kernel what was lost.
const LOSS_CHECK: Duration = Duration::from_secs(1);
/// A drain is over when nothing has come back for this long.
const DRAIN_QUIET: Duration = Duration::from_millis(200);
/// What flow logs do not have yet is told within this time, or lost.
const LAST_LOGS: Duration = Duration::from_millis(500);
/// What is lost then is counted within this time: some ten million flows.
const LAST_COUNT: Duration = Duration::from_millis(200);
/// A drain is over after this long in any case.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What a worker is made of, besides what waits for it in its inbox.
#[derive(Debug)]
pub(super) struct WorkerConfig {
    pub id: WorkerId,
    pub shared: Arc<Shared>,
    /// The most flows it may hold.
    pub max_flows: usize,
    /// When its flow table takes its memory.
    pub commit: Commit,
    /// Whether it keeps a record of each flow.
    pub records: bool,
    /// Where its part of the flow logs goes, if there are any.
    pub log: Option<FlowLogTap>,
    /// What each device takes in one write, by number.
    pub limits: Vec<Limits>,
    /// The CPU that it stays on.
    pub cpu: Option<usize>,
    /// How long it looks for packets when there are none, before it sleeps.
    pub busy_poll: Duration,
}

/// A worker, ready to run on a thread of its own.
#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    ingress: Ingress,
    returns: Return,
    exit: Exit,
    poller: Poller,
    sources: Vec<Source>,
    tun_slots: Vec<Slot<Offload>>,
    /// What was seen of the packets in them.
    glances: Vec<Option<Glance>>,
    udp_slots: Vec<Slot<Datagram>>,
    coalescer: Coalescer<usize>,
    /// What it works with.
    taken_up: Arc<Published>,
    /// Devices and sockets that are not in use yet.
    waiting: Vec<Parts>,
    /// What is to be answered.
    inquiries: Inquiries,
    /// What sockets that are gone had counted.
    retired: Retired,
    cpu: Option<usize>,
    busy_poll: Duration,
}

/// Something that the poller reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Inbox,
    Port(usize),
    Receiver {
        underlay: usize,
        socket: usize,
    },
    /// Datagrams with wrong checksums, which the kernel keeps from the receivers.
    BadChecksums {
        underlay: usize,
        socket: usize,
    },
    Sender {
        underlay: usize,
        socket: usize,
    },
}

/// Sums that must not shrink when who counted them goes.
#[derive(Debug, Default)]
struct Retired {
    syscalls: u64,
    kernel_drops: u64,
    oversize_discards: u64,
}

impl Worker {
    /// A worker with what is published and what waits in its inbox.
    pub fn new(config: WorkerConfig) -> io::Result<Self> {
        let WorkerConfig { id, shared, max_flows, commit, records, log, limits, cpu, busy_poll } =
            config;
        let published = shared.exchange.published.load_full();
        let snapshot = Arc::clone(&published.snapshot);
        let now = clock::now();
        let stats = Arc::clone(&shared.stats[usize::from(id.0)]);
        let config = IngressConfig {
            worker: id,
            max_flows,
            commit,
            records,
            log,
            fragments: Arc::clone(&shared.fragments),
            stats: Arc::clone(&stats),
        };
        let poller = Poller::new()?;
        poller.add(&shared.exchange.inboxes[usize::from(id.0)].waker, INBOX_TOKEN)?;
        let mut worker = Self {
            id,
            ingress: Ingress::new(config, Arc::clone(&snapshot), now)?,
            returns: Return::new(id, Arc::clone(&snapshot), stats),
            exit: Exit::new(id, Arc::clone(&shared), snapshot),
            shared,
            poller,
            sources: vec![Source::Inbox],
            glances: Vec::with_capacity(TUN_BATCH),
            tun_slots: (0..TUN_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            udp_slots: (0..UDP_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            coalescer: coalescer(&limits),
            taken_up: Arc::clone(&published),
            waiting: Vec::new(),
            inquiries: Inquiries::default(),
            retired: Retired::default(),
            cpu,
            busy_poll,
        };
        worker.refit(&published)?;
        Ok(worker)
    }

    /// Takes up a new view, and the devices and sockets that it needs.
    fn take_up(&mut self, published: &Arc<Published>, now: Instant) {
        self.taken_up = Arc::clone(published);
        if published.rig.number != self.exit.rig.number
            && let Err(error) = self.refit(published)
        {
            tracing::error!(worker = self.id.0, %error, "cannot watch a new device");
        }
        let snapshot = Arc::clone(&published.snapshot);
        self.exit.take_up(Arc::clone(&snapshot));
        self.returns.handle_snapshot(Arc::clone(&snapshot));
        self.ingress.handle_snapshot(snapshot, now);
        self.shared.notices.acknowledge();
    }

    fn refit(&mut self, published: &Published) -> io::Result<()> {
        let had = (self.exit.ports.len(), self.exit.underlays.len());
        self.count_io();
        self.retire(&published.rig);
        let inbox = &self.shared.exchange.inboxes[usize::from(self.id.0)];
        self.waiting.extend(std::iter::from_fn(|| inbox.parts.pop()));
        // What a later rig needs, which is about to be published, this one would throw away.
        let number = published.rig.number;
        let new = self.waiting.extract_if(.., |parts| parts.rig <= number);
        self.exit.refit(Arc::clone(&published.rig), new);
        let Self { exit, poller, sources, .. } = self;
        let mut watch = |fd: &dyn std::os::fd::AsFd, source| {
            let (fd, token) = (fd.as_fd(), sources.len() as u64);
            sources.push(source);
            match source {
                // Nobody reads what anybody may send there.
                Source::Sender { .. } => poller.add_errors(&fd, token),
                _ => poller.add(&fd, token),
            }
        };
        for (number, queue) in exit.ports.iter().enumerate().skip(had.0) {
            watch(queue, Source::Port(number))?;
        }
        for (underlay, sockets) in exit.underlays.iter().enumerate().skip(had.1) {
            let Some(sockets) = sockets else { continue };
            for (socket, receiver) in sockets.receivers.iter().enumerate() {
                watch(receiver, Source::Receiver { underlay, socket })?;
            }
            for (socket, receiver) in sockets.bad_checksums.iter().enumerate() {
                watch(receiver, Source::BadChecksums { underlay, socket })?;
            }
            for (socket, sender) in sockets.senders.iter().enumerate() {
                watch(sender, Source::Sender { underlay, socket })?;
            }
        }
        Ok(())
    }

    /// Keeps the sums of the sockets that go. The poller forgets one when it is closed.
    fn retire(&mut self, rig: &super::rig::Rig) {
        let Self { exit, retired, .. } = self;
        for (number, underlay) in exit.underlays.iter_mut().enumerate() {
            if let Some(underlay) = underlay
                && !rig.uses_underlay(number)
            {
                retired.syscalls += underlay.syscalls();
                retired.oversize_discards += underlay.truncated();
                retired.kernel_drops += underlay.kernel_drops();
            }
        }
    }

    /// Carries packets until the gateway drains.
    pub fn run(mut self) {
        if let Some(cpu) = self.cpu
            && let Err(error) = affinity::pin(cpu)
        {
            // It was there when the gateway started. Any other is better than none.
            tracing::error!(worker = self.id.0, cpu, %error, "the worker cannot stay on its CPU");
        }
        let shared = Arc::clone(&self.shared);
        let mut lookout = shared.exchange.lookout(usize::from(self.id.0));
        let mut ready = Vec::new();
        let mut active: Vec<Source> = Vec::new();
        let mut drain = None;
        // Due after every stretch of work, so that an idle worker is not woken for it.
        let mut loss_check: Option<Instant> = None;
        // Until when it looks for packets without sleeping.
        let mut awake = None;
        loop {
            let now = clock::now();
            if drain.is_none() && shared.is_draining() {
                self.close_entrances();
                active.retain(|source| !matches!(source, Source::Port(_)));
                drain = Some(Drain { quiet: now + DRAIN_QUIET, end: now + DRAIN_LIMIT });
            }
            let timeout = match &drain {
                Some(drain) if drain.is_over(now) => break,
                _ if !active.is_empty() || awake > Some(now) => Some(Duration::ZERO),
                _ if !self.inquiries.is_empty() => Some(Duration::ZERO),
                Some(drain) => Some(drain.next().saturating_duration_since(now)),
                None => [self.ingress.poll_timeout(), loss_check]
                    .into_iter()
                    .flatten()
                    .min()
                    .map(|at| at.saturating_duration_since(now)),
            };
            if let Err(error) = self.poller.wait(&mut ready, timeout) {
                tracing::error!(worker = self.id.0, %error, "cannot wait for packets");
                break;
            }
            for source in ready.iter().map(|&token| self.sources[token as usize]) {
                if !active.contains(&source) {
                    active.push(source);
                }
            }
            // Once for each batch, not for each packet: the time and the configuration.
            let now = clock::now();
            self.exit.witness.look(now);
            let latest = lookout.look(ready.contains(&INBOX_TOKEN));
            if !Arc::ptr_eq(latest, &self.taken_up) {
                self.take_up(&Arc::clone(latest), now);
            }
            if self.ingress.poll_timeout().is_some_and(|at| at <= now) {
                self.ingress.handle_timeout(now);
                self.follow_up(now);
            }
            if loss_check.is_some_and(|at| at <= now) {
                self.count_losses();
                loss_check = None;
            }
            if !active.is_empty() {
                loss_check = loss_check.or(Some(now + LOSS_CHECK));
                awake = Some(now + self.busy_poll);
            }
            if ready.contains(&INBOX_TOKEN) || !self.inquiries.is_empty() {
                let inbox = &shared.exchange.inboxes[usize::from(self.id.0)];
                self.inquiries.take_up(|| inbox.asked());
            }
            self.inquiries.serve(&self.ingress, now);
            self.exit.sampler.tick(now);
            let before = self.exit.stats.udp.flow.received.get();
            active.retain(|&source| {
                let more = self.serve(source, now);
                self.follow_up(now);
                self.exit.flush();
                more
            });
            self.exit.witness.settle();
            if let Some(drain) = &mut drain
                && self.exit.stats.udp.flow.received.get() != before
            {
                drain.quiet = now + DRAIN_QUIET;
            }
            self.count_io();
        }
        self.count_losses();
        self.finish_logs();
    }

    /// Tells what flow logs do not have yet, as far as whoever writes them keeps up.
    fn finish_logs(&mut self) {
        let mut until = clock::now() + LAST_LOGS;
        let mut given_up = false;
        while !self.ingress.finish_logs(clock::now()) {
            if clock::now() >= until {
                if given_up {
                    break;
                }
                // What there is no room for is counted, which takes no longer than to look at it.
                given_up = true;
                self.ingress.give_up_logs();
                until = clock::now() + LAST_COUNT;
            }
            std::thread::yield_now();
        }
    }

    /// Takes a batch from one source; says whether there may be more.
    fn serve(&mut self, source: Source, now: Instant) -> bool {
        let more = match source {
            Source::Inbox => Ok(self.take_inbox(now)),
            Source::Port(port) => self.take_tun(port, now),
            Source::Receiver { underlay, socket } => {
                self.take_udp(underlay, now, |underlay| underlay.receivers.get_mut(socket))
            }
            Source::BadChecksums { underlay, socket } => {
                self.take_udp(underlay, now, |underlay| underlay.bad_checksums.get_mut(socket))
            }
            Source::Sender { underlay, socket } => {
                let Self { exit, shared, .. } = self;
                if let Some(Some(underlay)) = exit.underlays.get_mut(underlay) {
                    let socket = &mut underlay.senders[socket];
                    take_errors(&exit.stats, &exit.snapshot, shared, socket);
                }
                Ok(false)
            }
        };
        more.unwrap_or_else(|error| {
            self.cannot_receive(source, &error);
            false
        })
    }

    /// Sends what the data plane has made on its own account, and handles what it has let go.
    fn follow_up(&mut self, now: Instant) {
        while let Some(reply) = self.ingress.poll_reply() {
            self.exit.reply(Side::Tun, &reply);
        }
        while let Some((origin, waiting)) = self.ingress.poll_released() {
            // It was valid when it came.
            if let Ok(frame) = Frame::parse(waiting.packet.bytes(), &Offload::NONE) {
                let verdict = self.ingress.handle_packet(origin, &frame, now);
                self.exit.execute(origin, &frame, verdict);
            }
        }
        while let Some((reason, waiting)) = self.ingress.poll_dropped() {
            let Waiting { from, epoch, packet } = &waiting;
            let at = self.exit.snapshot.entry(from.at, *epoch);
            let at = at.map(|at| Whereabouts::At(Origin { at, ..*from }));
            let at = at.unwrap_or(Whereabouts::Gone(from.side));
            self.exit.dropped(reason, 1, at, packet.bytes(), &Offload::NONE);
        }
    }

    fn cannot_receive(&mut self, source: Source, error: &io::Error) {
        match source {
            // Somebody deleted the device. It stays ready for ever, and must not keep us busy.
            Source::Port(port) => {
                let at = self.exit.rig.ports.get(port);
                tracing::error!(worker = self.id.0, ?at, %error, "the TUN device is gone");
                if let Some(queue) = self.exit.ports.get(port) {
                    let _ = self.poller.remove(queue);
                }
            }
            Source::Receiver { underlay, socket } => {
                let Self { exit, shared, .. } = self;
                if let Some(Some(underlay)) = exit.underlays.get_mut(underlay) {
                    let socket = &mut underlay.receivers[socket];
                    take_errors(&exit.stats, &exit.snapshot, shared, socket);
                }
                throttled!(DEBUG, worker = self.id.0, ?source, %error, "cannot receive");
            }
            Source::BadChecksums { .. } => {
                throttled!(DEBUG, worker = self.id.0, ?source, %error, "cannot receive");
            }
            Source::Inbox | Source::Sender { .. } => {}
        }
    }

    fn take_inbox(&mut self, now: Instant) -> bool {
        let shared = Arc::clone(&self.shared);
        let inbox = &shared.exchange.inboxes[usize::from(self.id.0)];
        for _ in 0..INBOX {
            let Some(handover) = inbox.take() else { return false };
            let Handover { from, epoch, packet, offload } = handover;
            // It was valid where it was handed over.
            let Ok(frame) = Frame::parse(packet.bytes(), &offload) else { continue };
            if epoch > self.exit.snapshot.topology_epoch {
                // Who handed it over was sooner to take up the latest view.
                let latest = shared.exchange.published.load_full();
                self.take_up(&latest, now);
            }
            let ledger = self.exit.stats.ledger(from.side);
            ledger.flow.taken_over.add(frame.segments());
            if let Some(at) = self.exit.snapshot.entry(from.at, epoch) {
                let origin = Origin { at, ..from };
                let verdict = self.ingress.handle_handover(origin, &frame, now);
                self.exit.execute(origin, &frame, verdict);
            } else {
                let segments = frame.segments();
                ledger.drops.add(DropReason::Reconfigured, segments);
                let (gone, bytes) = (Whereabouts::Gone(from.side), frame.packet);
                self.exit.dropped(DropReason::Reconfigured, segments, gone, bytes, &offload);
            }
        }
        true
    }

    fn take_tun(&mut self, port: usize, now: Instant) -> io::Result<bool> {
        let Self { exit, ingress, tun_slots, glances, .. } = self;
        let at = exit.rig.ports.get(port).copied();
        let Some((at, queue)) = at.zip(exit.ports.get_mut(port)) else {
            return Ok(false);
        };
        let (count, more) = read_batch(queue, tun_slots)?;
        if count > 0 {
            exit.stats.batches.read.record(count as u64);
        }
        if exit.witness.looks_at(Point::In) {
            exit.witness.came_in(&exit.snapshot, at, &tun_slots[..count]);
        }
        if let Some(translation) = exit.snapshot.translation(at) {
            for Slot { packet, meta } in &mut tun_slots[..count] {
                translation.inward(packet.bytes_mut(), meta);
            }
        }
        let origin = Origin::from(Entry::from(at));
        // In phases, so that what is in no cache is fetched for all while others are looked at.
        let entrance = ingress.entrance(origin);
        let packets = tun_slots[..count].iter().map(|slot| (slot.packet.bytes(), &slot.meta));
        entrance.glance_all(packets, glances);
        for glance in glances.iter_mut().flatten() {
            ingress.prefetch(glance);
        }
        let moment = ingress.moment(now);
        for (Slot { packet, meta }, glance) in tun_slots[..count].iter().zip(glances.iter()) {
            let bytes = packet.bytes();
            if let Some(glance) = glance
                && let Some(course) = ingress.settled(glance, &moment)
            {
                exit.stats.tun.flow.received.add(glance.shape.segments.into());
                exit.send_settled(origin, bytes, meta, glance, &course);
            } else {
                take_unsettled(exit, ingress, (origin, bytes, meta), glance, &moment);
            }
        }
        Ok(more)
    }

    fn take_udp<R: Receiver>(
        &mut self,
        number: usize,
        now: Instant,
        receiver: impl FnOnce(&mut Underlay) -> Option<&mut R>,
    ) -> io::Result<bool> {
        let Self { exit, ingress, returns, udp_slots, coalescer, shared, .. } = self;
        let Some(Some(underlay)) = exit.underlays.get_mut(number) else { return Ok(false) };
        let address = underlay.address;
        let Some(receiver) = receiver(underlay) else { return Ok(false) };
        let port = receiver.port();
        let count = receiver.recv(udp_slots)?;
        if count == 0 {
            // Anybody can send an ICMP error about datagrams that a receiver never sent. As long as
            // one is queued the socket is reported, and nothing else would ever take it out.
            receiver.take_errors(&exit.stats, &exit.snapshot, shared);
            return Ok(false);
        }
        let looks = exit.witness.looks_at(Point::FromAppliance);
        let slots = &udp_slots[..count];
        let bytes = |buffer: u32| slots[buffer as usize].packet.bytes();
        let mut taken = 0;
        let mut returns_of_one = Returns::default();
        for (buffer, Slot { packet, meta }) in slots.iter().enumerate() {
            let local = meta.local.unwrap_or(address);
            let mut start = 0;
            let mut segments = 0;
            for datagram in datagrams(packet.bytes(), meta.segment_size) {
                segments += 1;
                let from = Whereabouts::from_peer(meta.peer, local, port);
                let verdict = returns.handle_datagram(meta.peer, local, datagram);
                if looks {
                    exit.witness.came_back(&exit.snapshot, from, datagram, &verdict);
                }
                let returned = match verdict {
                    ReturnVerdict::Accept(returned) => Some(returned),
                    ReturnVerdict::Drop(reason) => {
                        exit.dropped(reason, 1, from, datagram, &Offload::NONE);
                        None
                    }
                };
                if let Some(returned) = returned {
                    let packet = &datagram[returned.range.clone()];
                    if returned.way != Way::Probe {
                        let of = (returned.target, returned.endpoint);
                        let count = |before: &Returns| exit.count_returns(before);
                        returns_of_one.add(of, packet.len(), count);
                        exit.see_return(returned.target, packet);
                    }
                    match returned.way {
                        Way::Deliver(to) => {
                            let place = Place {
                                buffer: buffer as u32,
                                start: (start + returned.range.start) as u32,
                            };
                            if let Some(port) = exit.port_of.get(to) {
                                let plain = returned.plain.as_ref();
                                coalescer.push(packet, plain, place, port, bytes, |run| {
                                    exit.deliver(slots, &run);
                                });
                            } else {
                                exit.stats.udp.drops.add(DropReason::NotAttached, 1);
                                let leaving = Whereabouts::Leaving { to, side: Side::Udp };
                                let none = &Offload::NONE;
                                exit.dropped(DropReason::NotAttached, 1, leaving, packet, none);
                            }
                        }
                        Way::Onward(endpoint) => {
                            let origin = Origin::from(Entry::Endpoint(endpoint));
                            // It was accepted, and so is valid.
                            if let Ok(frame) = Frame::parse(packet, &Offload::NONE) {
                                let verdict = ingress.handle_packet(origin, &frame, now);
                                exit.execute(origin, &frame, verdict);
                            }
                        }
                        Way::Probe => {
                            exit.stats.udp.flow.probes.add(1);
                            let header = Inner::parse(packet).map_or(0, |inner| inner.header_len);
                            let payload = packet.get(header + UDP_HEADER..).unwrap_or_default();
                            if let Some(probe) = recognise(&exit.snapshot.keys, payload) {
                                shared.notices.probe(returned.target, probe, clock::now());
                            }
                        }
                    }
                }
                start += datagram.len();
            }
            taken += segments;
            exit.stats.batches.received.record(segments);
        }
        exit.count_returns(&returns_of_one);
        // Last, so that who sees a balance sees what the targets have returned, too.
        exit.stats.udp.flow.received.add(taken);
        // The runs refer to the buffers, which the next batch overwrites.
        coalescer.flush(|run| exit.deliver(slots, &run));
        Ok(count == udp_slots.len())
    }

    fn close_entrances(&mut self) {
        for queue in &self.exit.ports {
            let _ = self.poller.remove(queue);
        }
    }

    fn count_losses(&mut self) {
        let underlays = self.exit.underlays.iter_mut().flatten();
        let lost: u64 = underlays.map(Underlay::kernel_drops).sum();
        self.exit.stats.io.kernel_drops.set(self.retired.kernel_drops + lost);
    }

    fn count_io(&self) {
        let exit = &self.exit;
        let ports = || exit.ports.iter();
        let underlays = || exit.underlays.iter().flatten();
        let syscalls = self.poller.syscalls()
            + ports().map(TunQueue::syscalls).sum::<u64>()
            + underlays().map(Underlay::syscalls).sum::<u64>();
        exit.stats.io.syscalls.set(self.retired.syscalls + syscalls);
        let discarded = ports().map(TunQueue::discarded).sum::<u64>()
            + underlays().map(Underlay::truncated).sum::<u64>();
        exit.stats.io.oversize_discards.set(self.retired.oversize_discards + discarded);
    }
}

/// Joins packets within the limits of the device that they leave by, which mostly are those of all.
fn coalescer(limits: &[Limits]) -> Coalescer<usize> {
    let common = limits.first().copied().unwrap_or_default();
    let mut coalescer = Coalescer::new(common);
    for (device, limits) in limits.iter().enumerate().filter(|(_, limits)| **limits != common) {
        coalescer.set_limits(device, *limits);
    }
    coalescer
}

/// When a worker that drains may end.
struct Drain {
    quiet: Instant,
    end: Instant,
}

impl Drain {
    fn next(&self) -> Instant {
        self.quiet.min(self.end)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.next() <= now
    }
}

/// Reads as many packets as are worth handling together; says whether there may be more.
fn read_batch(queue: &mut TunQueue, slots: &mut [Slot<Offload>]) -> io::Result<(usize, bool)> {
    let (mut count, mut bytes) = (0, 0);
    for step in slots.chunks_mut(TUN_STEP) {
        let read = match TunQueue::recv(queue, step) {
            // What was read before must not be lost; the error comes again.
            Err(_) if count > 0 => return Ok((count, true)),
            read => read?,
        };
        count += read;
        bytes += step[..read].iter().map(|slot| slot.packet.len()).sum::<usize>();
        if read < step.len() {
            return Ok((count, false));
        }
        if bytes > TUN_BYTES {
            break;
        }
    }
    Ok((count, true))
}

/// Takes a packet whose flow is not settled: one that begins a flow, or is for a closer look. Out of the
/// way of the others, which are nearly all.
#[expect(clippy::ref_option, reason = "nine instructions fewer for each packet")]
#[inline(never)]
fn take_unsettled(
    exit: &mut Exit,
    ingress: &mut Ingress,
    (origin, packet, offload): (Origin, &[u8], &Offload),
    glance: &Option<Glance>,
    moment: &Moment,
) {
    let glance = glance.as_ref();
    let received = &exit.stats.tun.flow.received;
    let frame = match glance {
        Some(glance) => {
            if let Some(course) = ingress.begun(glance, moment) {
                received.add(glance.shape.segments.into());
                return exit.send_settled(origin, packet, offload, glance, &course);
            }
            Ok(glance.frame(packet, offload))
        }
        None => Frame::parse(packet, offload),
    };
    match frame {
        Ok(frame) => {
            received.add(frame.segments());
            let verdict = ingress.handle_glanced(origin, &frame, glance, moment.now());
            exit.execute(origin, &frame, verdict);
        }
        Err(reason) => {
            received.add(1);
            exit.stats.tun.drops.add(reason, 1);
            exit.dropped(reason, 1, Whereabouts::At(origin), packet, offload);
        }
    }
}

/// The datagrams of a batch that the kernel joined; or the one that is there, empty or not.
fn datagrams(bytes: &[u8], segment_size: u16) -> impl Iterator<Item = &[u8]> {
    let size = match segment_size {
        0 => bytes.len(),
        size => usize::from(size),
    };
    let empty = bytes.is_empty().then_some(bytes);
    empty.into_iter().chain(bytes.chunks(size.max(1)))
}

/// Something that gives datagrams.
trait Receiver: Device<Meta = Datagram> {
    /// The UDP port to which datagrams come.
    fn port(&self) -> u16;

    /// Takes in what the underlay said about datagrams that were sent.
    fn take_errors(&mut self, stats: &WorkerStats, snapshot: &Snapshot, shared: &Shared);
}

impl Receiver for UdpSocket {
    fn port(&self) -> u16 {
        self.local_addr().port()
    }

    fn take_errors(&mut self, stats: &WorkerStats, snapshot: &Snapshot, shared: &Shared) {
        take_errors(stats, snapshot, shared, self);
    }
}

impl Receiver for BadChecksums {
    /// It is for all ports and does not tell them apart: the one that nearly everybody uses.
    fn port(&self) -> u16 {
        geneve::PORT
    }

    fn take_errors(&mut self, _: &WorkerStats, _: &Snapshot, _: &Shared) {}
}

/// Takes in what the underlay said about datagrams that were sent. The kernel has matched each
/// error to this socket by the packet that it quotes; who could not be reached is looked at.
fn take_errors(stats: &WorkerStats, snapshot: &Snapshot, shared: &Shared, socket: &mut UdpSocket) {
    while let Some(error) = socket.take_error() {
        throttled!(DEBUG, ?error, "the underlay reports an error");
        stats.io.underlay_errors.add(1);
        let Some(peer) = error.peer else { continue };
        let at = snapshot.sources.get(&peer.ip()).into_iter().flatten().copied();
        let about = |slot: &TargetSlot| snapshot.target(*slot).address == peer;
        for slot in at.filter(about) {
            match error.mtu {
                Some(_) => drop(shared.notices.too_long.push(slot)),
                None => shared.notices.suspect(slot),
            }
        }
    }
}
