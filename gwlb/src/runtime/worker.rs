//! One worker: share-nothing, both directions, polling only when all its queues are empty.
//!
//! It carries packets between its TUN queues, its sockets and its half of the data plane, and
//! counts what was really sent and delivered. It decides nothing about packets.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Cache;
use netio::offload::{Coalescer, Limits, Offload, Place};
use netio::poll::Poller;
use netio::udp::{Datagram, UdpSocket};
use netio::{Device, Slot};
use router::Entry;

use super::clock;
use super::exit::{Attached, Exit};
use super::shared::{Handover, INBOX, Shared};
use super::underlay::Underlay;
use crate::dataplane::frame::Frame;
use crate::dataplane::ingress::ledger;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, ReturnVerdict, Way, WorkerId};
use crate::dataplane::{Ingress, Return};

/// Packets read from one TUN queue before the next device has its turn.
const TUN_BATCH: usize = 16;
/// Receive buffers for datagrams, each for a whole batch of segments.
const UDP_BATCH: usize = 8;
/// The largest packet or batch that a device gives.
const BUFFER: usize = 65_536;
/// How often a busy worker asks the kernel what was lost.
const LOSS_CHECK: Duration = Duration::from_secs(1);
/// A drain is over when nothing has come back for this long.
const DRAIN_QUIET: Duration = Duration::from_millis(200);
/// A drain is over after this long in any case.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub id: WorkerId,
    pub shared: Arc<Shared>,
    pub ingress: Ingress,
    pub returns: Return,
    pub ports: Vec<Attached>,
    /// By pool: which of `underlays` it sends on.
    pub pools: Vec<usize>,
    pub underlays: Vec<Underlay>,
    /// What the devices take in one write.
    pub limits: Limits,
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
    udp_slots: Vec<Slot<Datagram>>,
    coalescer: Coalescer<usize>,
}

/// Something that the poller reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Inbox,
    Port(usize),
    Receiver { underlay: usize, socket: usize },
    Sender { underlay: usize, socket: usize },
}

impl Worker {
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { id, shared, ingress, returns, ports, pools, underlays, limits } = parts;
        let poller = Poller::new()?;
        let mut sources = vec![Source::Inbox];
        poller.add(&shared.inboxes[usize::from(id.0)].waker, 0)?;
        let mut watch = |fd: &dyn std::os::fd::AsFd, source| {
            let (fd, token) = (fd.as_fd(), sources.len() as u64);
            sources.push(source);
            match source {
                // Nobody reads what anybody may send there.
                Source::Sender { .. } => poller.add_errors(&fd, token),
                _ => poller.add(&fd, token),
            }
        };
        for (number, port) in ports.iter().enumerate() {
            watch(&port.queue, Source::Port(number))?;
        }
        for (underlay, sockets) in underlays.iter().enumerate() {
            for (socket, receiver) in sockets.receivers.iter().enumerate() {
                watch(receiver, Source::Receiver { underlay, socket })?;
            }
            for (socket, sender) in sockets.senders.iter().enumerate() {
                watch(sender, Source::Sender { underlay, socket })?;
            }
        }
        Ok(Self {
            id,
            ingress,
            returns,
            exit: Exit::new(id, Arc::clone(&shared), ports, pools, underlays),
            shared,
            poller,
            sources,
            tun_slots: (0..TUN_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            udp_slots: (0..UDP_BATCH).map(|_| Slot::with_capacity(BUFFER)).collect(),
            coalescer: Coalescer::new(limits),
        })
    }

    /// Carries packets until the gateway drains.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshot = Cache::new(&shared.snapshot);
        let mut ready = Vec::new();
        let mut active: Vec<Source> = Vec::new();
        let mut drain = None;
        // Due after every stretch of work, so that an idle worker is not woken for it.
        let mut loss_check: Option<Instant> = None;
        loop {
            let now = clock::now();
            if drain.is_none() && shared.is_draining() {
                self.close_entrances();
                active.retain(|source| !matches!(source, Source::Port(_)));
                drain = Some(Drain { quiet: now + DRAIN_QUIET, end: now + DRAIN_LIMIT });
            }
            let timeout = match &drain {
                Some(drain) if drain.is_over(now) => break,
                _ if !active.is_empty() => Some(Duration::ZERO),
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
            let latest = snapshot.load();
            if !Arc::ptr_eq(latest, &self.exit.snapshot) {
                self.exit.snapshot = Arc::clone(latest);
                self.ingress.handle_snapshot(Arc::clone(latest));
                self.returns.handle_snapshot(Arc::clone(latest));
            }
            if self.ingress.poll_timeout().is_some_and(|at| at <= now) {
                self.ingress.handle_timeout(now);
            }
            if loss_check.is_some_and(|at| at <= now) {
                self.count_losses();
                loss_check = None;
            }
            if !active.is_empty() {
                loss_check = loss_check.or(Some(now + LOSS_CHECK));
            }
            let before = self.exit.stats.udp.flow.received.get();
            active.retain(|&source| {
                let more = self.serve(source, now);
                self.exit.flush();
                more
            });
            if let Some(drain) = &mut drain
                && self.exit.stats.udp.flow.received.get() != before
            {
                drain.quiet = now + DRAIN_QUIET;
            }
            self.count_syscalls();
        }
        self.count_losses();
    }

    /// Takes a batch from one source; says whether there may be more.
    fn serve(&mut self, source: Source, now: Instant) -> bool {
        let more = match source {
            Source::Inbox => Ok(self.take_inbox(now)),
            Source::Port(port) => self.take_tun(port, now),
            Source::Receiver { underlay, socket } => self.take_udp(underlay, socket, now),
            Source::Sender { underlay, socket } => {
                let socket = &mut self.exit.underlays[underlay].senders[socket];
                count_errors(&self.exit.stats, socket);
                Ok(false)
            }
        };
        more.unwrap_or_else(|error| {
            self.cannot_receive(source, &error);
            false
        })
    }

    fn cannot_receive(&mut self, source: Source, error: &io::Error) {
        match source {
            // Somebody deleted the device. It stays ready for ever, and must not keep us busy.
            Source::Port(port) => {
                let port = &self.exit.ports[port];
                tracing::error!(worker = self.id.0, at = ?port.at, %error, "the TUN device is gone");
                let _ = self.poller.remove(&port.queue);
            }
            Source::Receiver { underlay, socket } => {
                let socket = &mut self.exit.underlays[underlay].receivers[socket];
                count_errors(&self.exit.stats, socket);
                tracing::debug!(worker = self.id.0, ?source, %error, "cannot receive");
            }
            Source::Inbox | Source::Sender { .. } => {}
        }
    }

    fn take_inbox(&mut self, now: Instant) -> bool {
        let shared = Arc::clone(&self.shared);
        let inbox = &shared.inboxes[usize::from(self.id.0)];
        // Taken back before looking, so that no packet is left without a wake-up.
        let _ = inbox.waker.drain();
        for _ in 0..INBOX {
            let Some(handover) = inbox.packets.pop() else { return false };
            let Handover { from, packet, offload } = handover;
            // It was valid where it was handed over.
            if let Ok(frame) = Frame::parse(packet.bytes(), &offload) {
                ledger(&self.exit.stats, from).flow.taken_over.add(frame.segments());
                let verdict = self.ingress.handle_packet(from, &frame, now);
                self.exit.execute(from, &frame, verdict);
            }
        }
        true
    }

    fn take_tun(&mut self, port: usize, now: Instant) -> io::Result<bool> {
        let Self { exit, ingress, tun_slots, .. } = self;
        let count = exit.ports[port].queue.recv(tun_slots)?;
        let at = exit.ports[port].at;
        if let Some(translation) = exit.snapshot.translation(at) {
            for Slot { packet, meta } in &mut tun_slots[..count] {
                translation.inward(packet.bytes_mut(), meta);
            }
        }
        let from = Entry::from(at);
        for Slot { packet, meta } in &tun_slots[..count] {
            match Frame::parse(packet.bytes(), meta) {
                Ok(frame) => {
                    exit.stats.tun.flow.received.add(frame.segments());
                    let verdict = ingress.handle_packet(from, &frame, now);
                    exit.execute(from, &frame, verdict);
                }
                Err(reason) => {
                    exit.stats.tun.flow.received.add(1);
                    exit.stats.tun.drops.add(reason, 1);
                }
            }
        }
        Ok(count == tun_slots.len())
    }

    fn take_udp(&mut self, underlay: usize, socket: usize, now: Instant) -> io::Result<bool> {
        let Self { exit, ingress, returns, udp_slots, coalescer, .. } = self;
        let receiver = &mut exit.underlays[underlay].receivers[socket];
        let count = receiver.recv(udp_slots)?;
        if count == 0 {
            // Anybody can send an ICMP error about datagrams that a receiver never sent. As long as
            // one is queued the socket is reported, and nothing else would ever take it out.
            count_errors(&exit.stats, receiver);
            return Ok(false);
        }
        let address = exit.underlays[underlay].address;
        let slots = &udp_slots[..count];
        for (buffer, Slot { packet, meta }) in slots.iter().enumerate() {
            let local = meta.local.unwrap_or(address);
            let mut start = 0;
            for datagram in datagrams(packet.bytes(), meta.segment_size) {
                exit.stats.udp.flow.received.add(1);
                let verdict = returns.handle_datagram(meta.peer, local, datagram);
                if let ReturnVerdict::Accept(returned) = verdict {
                    exit.count_return(returned.target, returned.inner.total_len);
                    let inner = &datagram[returned.range.clone()];
                    match returned.way {
                        Way::Deliver(to) => {
                            let place = Place {
                                buffer: buffer as u32,
                                start: (start + returned.range.start) as u32,
                            };
                            match exit.port_of.get(&to) {
                                Some(&port) => {
                                    coalescer.push(inner, &returned.inner, place, port, |run| {
                                        exit.deliver(slots, &run);
                                    });
                                }
                                None => exit.stats.udp.drops.add(DropReason::NotAttached, 1),
                            }
                        }
                        Way::Onward(endpoint) => {
                            let from = Entry::Endpoint(endpoint);
                            let frame = Frame::single(inner, returned.inner);
                            let verdict = ingress.handle_packet(from, &frame, now);
                            exit.execute(from, &frame, verdict);
                        }
                    }
                }
                start += datagram.len();
            }
        }
        // The runs refer to the buffers, which the next batch overwrites.
        coalescer.flush(|run| exit.deliver(slots, &run));
        Ok(count == udp_slots.len())
    }

    fn close_entrances(&mut self) {
        for port in &self.exit.ports {
            let _ = self.poller.remove(&port.queue);
        }
    }

    fn count_losses(&mut self) {
        let receivers = self.exit.underlays.iter_mut().flat_map(|underlay| &mut underlay.receivers);
        // A socket that cannot be asked keeps its last count out of the sum; it does not happen.
        let lost = receivers.filter_map(|socket| socket.kernel_drops().ok()).sum();
        self.exit.stats.io.kernel_drops.set(lost);
    }

    fn count_syscalls(&self) {
        let exit = &self.exit;
        let sockets = |underlay: &Underlay| {
            let all = underlay.receivers.iter().chain(&underlay.senders);
            all.map(UdpSocket::syscalls).sum::<u64>()
        };
        let total = self.poller.syscalls()
            + exit.ports.iter().map(|port| port.queue.syscalls()).sum::<u64>()
            + exit.underlays.iter().map(sockets).sum::<u64>();
        exit.stats.io.syscalls.set(total);
    }
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

/// The datagrams of a batch that the kernel joined; or the one that is there, empty or not.
fn datagrams(bytes: &[u8], segment_size: u16) -> impl Iterator<Item = &[u8]> {
    let size = match segment_size {
        0 => bytes.len(),
        size => usize::from(size),
    };
    let empty = bytes.is_empty().then_some(bytes);
    empty.into_iter().chain(bytes.chunks(size.max(1)))
}

fn count_errors(stats: &WorkerStats, socket: &mut UdpSocket) {
    while let Some(error) = socket.take_error() {
        tracing::debug!(?error, "the underlay reports an error");
        stats.io.underlay_errors.add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use netio::udp::UdpConfig;

    use super::*;
    use crate::dataplane::IngressConfig;
    use crate::runtime::shared::{Inbox, tests::idle};

    /// A worker that has one receiver on the loopback and nothing else.
    fn worker() -> Worker {
        let id = WorkerId(0);
        let stats = Arc::new(WorkerStats::default());
        let Shared { settings, snapshot, .. } = idle();
        let snapshot = snapshot.into_inner();
        let (inboxes, all) = (vec![Inbox::new().unwrap()], vec![Arc::clone(&stats)]);
        let shared = Shared::new(settings, Arc::clone(&snapshot), all, inboxes, Vec::new());
        let config = IngressConfig {
            worker: id,
            max_flows: 1,
            seed: 0,
            fragments: Arc::default(),
            stats: Arc::clone(&stats),
        };
        let bind = "127.0.0.1:0".parse().unwrap();
        let config_udp = UdpConfig {
            bind,
            reuse_port: false,
            gro: true,
            dont_fragment: false,
            recv_buffer: 0,
            send_buffer: 0,
        };
        let receivers = vec![UdpSocket::bind(&config_udp).unwrap()];
        Worker::new(Parts {
            id,
            shared: Arc::new(shared),
            ingress: Ingress::new(config, Arc::clone(&snapshot), clock::now()),
            returns: Return::new(snapshot, stats),
            ports: Vec::new(),
            pools: Vec::new(),
            underlays: vec![Underlay { address: bind.ip(), receivers, senders: Vec::new() }],
            limits: Limits::default(),
        })
        .unwrap()
    }

    #[test]
    fn an_error_on_a_receiver_does_not_keep_the_worker_busy() {
        let mut worker = worker();
        let mut ready = Vec::new();
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let meta = Datagram { peer: closed, ..Datagram::default() };
        let receiver = &mut worker.exit.underlays[0].receivers[0];
        receiver.send(&meta, &[IoSlice::new(b"nobody is there")]).unwrap();

        worker.poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        let source = Source::Receiver { underlay: 0, socket: 0 };
        assert_eq!(ready.iter().map(|&n| worker.sources[n as usize]).collect::<Vec<_>>(), [source]);
        assert!(!worker.serve(source, clock::now()));
        worker.poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty(), "it is still reported");
        assert_eq!(worker.exit.stats.io.underlay_errors.get(), 1);
    }
}
