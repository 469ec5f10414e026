//! From the workers' chunks to the bytes of a file, for as long as a capture is on.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use geneve::flow_of_start;
use netio::process::idle::give_way;
use pcap_file::PcapError;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::file::CaptureFile;
use super::flows_seen::{FlowsSeen, SeenWay};
use super::tap::{Chunk, Record};
use super::{Begun, Point, Wanted};
use crate::dataplane::filter::TargetName;
use crate::runtime::clock;
use crate::runtime::datagrams::opened;
use crate::runtime::witness::Whereabouts;

/// Between two looks at the workers' chunks, at least: what they hold is made for that.
const LOOK: Duration = Duration::from_millis(10);
/// How often as long as it works it rests, all captures taken together: what it wrote costs others
/// more, who pass it on and store it. On a busy machine its work takes longer, and so do its rests.
const REST: u32 = 4;
/// How long workers have to give away the rest.
const PATIENCE: Duration = Duration::from_millis(250);
/// At least so often the statistics say what was lost, if anything more was.
const TELL: Duration = Duration::from_secs(1);

/// Starts a thread that writes a capture `to` somebody until it is over: a bound is reached, the
/// gateway drains, or nobody takes it any more. The workers look no longer as soon as that is known.
///
/// The thread has the time that nobody else wants. What workers see meanwhile finds no room, and so
/// is lost, when it is too much.
///
/// # Errors
/// If there is no thread to be had.
pub(in crate::runtime) fn start(begun: Begun, to: Sender<Bytes>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = thread::Builder::new().name("capture".to_owned());
    thread
        .spawn(move || {
            if let Err(error) = give_way() {
                tracing::warn!(%error, "a capture takes time from others");
            }
            runtime.block_on(pump(begun, to));
        })
        .map(drop)
}

async fn pump(begun: Begun, to: Sender<Bytes>) {
    let gone = to.clone();
    tokio::select! {
        // That nobody reads any more ends it at once.
        () = gone.closed() => {}
        written = write(&begun, &to) => if let Err(error) = written {
            tracing::error!(%error, "cannot write a capture");
        },
    }
}

async fn write(begun: &Begun, to: &Sender<Bytes>) -> Result<(), PcapError> {
    let wanted = &begun.capture.wanted;
    let mut writer = Writer::new(wanted)?;
    let mut over = pin!(sleep(wanted.duration));
    let mut tell = clock::now() + TELL;
    loop {
        let looked = clock::now();
        writer.collect(begun)?;
        if tell <= looked {
            writer.tell_losses(begun)?;
            tell = looked + TELL;
        }
        let worked = clock::now().saturating_duration_since(looked);
        let bytes = writer.file.take();
        if !bytes.is_empty() {
            tokio::select! {
                sent = to.send(bytes.into()) => if sent.is_err() { return Ok(()) },
                // Who takes it slowly gets what there is until now.
                () = &mut over => break,
            }
        }
        if writer.is_full() || begun.shared.is_draining() {
            break;
        }
        let rest = worked.saturating_mul(REST * begun.shared.captures.on() as u32);
        tokio::select! {
            () = sleep(rest.max(LOOK)) => {}
            () = &mut over => break,
        }
    }
    begun.end();
    let mut patience = pin!(sleep(PATIENCE));
    while begun.is_open() {
        tokio::select! {
            () = sleep(LOOK) => {}
            // One that is busy elsewhere has its packets counted as lost by nobody.
            () = &mut patience => break,
        }
    }
    writer.collect(begun)?;
    writer.end(begun)?;
    // Whether anybody takes it is for them to say.
    let _ = to.send(writer.file.take().into()).await;
    Ok(())
}

/// A capture in the making, with what is known of its flows.
pub(super) struct Writer<'a> {
    wanted: &'a Wanted,
    pub file: CaptureFile,
    flows: FlowsSeen,
    /// By point.
    written: [u64; Point::ALL.len()],
    /// What was said of losses last.
    told: u64,
}

impl<'a> Writer<'a> {
    pub fn new(wanted: &'a Wanted) -> Result<Self, PcapError> {
        let filter = wanted.filter.parts();
        let filter: Vec<_> = filter.iter().map(|(part, value)| format!("{part}={value}")).collect();
        let file = CaptureFile::begin(wanted.points, wanted.snaplen, &filter.join(", "))?;
        Ok(Self { wanted, file, flows: FlowsSeen::default(), written: Default::default(), told: 0 })
    }

    fn is_full(&self) -> bool {
        self.written.iter().sum::<u64>() >= self.wanted.max_packets
            || self.file.len() >= self.wanted.max_bytes
    }

    /// Writes what the workers have seen, in the order of time, and gives the memory back.
    pub fn collect(&mut self, begun: &Begun) -> Result<(), PcapError> {
        let lanes = &begun.capture.lanes;
        let mut chunks: Vec<(usize, Chunk)> = Vec::new();
        for (worker, lane) in lanes.iter().enumerate() {
            chunks.extend(std::iter::from_fn(|| lane.full.pop()).map(|chunk| (worker, chunk)));
            let asked = lane.holds.load(std::sync::atomic::Ordering::Acquire)
                && lane.asked.swap(true, std::sync::atomic::Ordering::Relaxed);
            if asked {
                // It was asked before, and has had no packet since.
                begun.wake(worker);
            }
        }
        let mut packets: Vec<(usize, &Chunk, &Record, &[u8])> = Vec::new();
        for (worker, chunk) in &chunks {
            let mut rest = &chunk.bytes[..];
            for record in &chunk.records {
                let (bytes, others) = rest.split_at(record.captured);
                packets.push((*worker, chunk, record, bytes));
                rest = others;
            }
        }
        packets.sort_by_key(|(_, _, record, _)| record.time);
        // A packet comes in before it is known where it goes. What comes from appliances, or from
        // whoever claims to be one, teaches nothing.
        let sent = packets.iter().filter(|(_, _, it, _)| it.seen.point == Point::ToAppliance);
        for (_, _, record, bytes) in sent {
            if let Some((flow, way)) = way_of(record, bytes) {
                self.flows.learn(&flow, way);
            }
        }
        for (worker, chunk, record, bytes) in packets {
            if self.is_full() {
                break;
            }
            let own = way_of(record, bytes).map(|(_, way)| way);
            let known = record.seen.flow.map_or(&[][..], |flow| self.flows.ways(&flow));
            let ways = own.as_slice().iter().chain(known.iter().filter(|_| own.is_none()));
            let mut meant = ways.clone().filter(|way| self.is_meant(way));
            let point = record.seen.point;
            if !self.wanted.points.has(point) || (self.wanted.needs_way() && meant.next().is_none())
            {
                continue;
            }
            let way = ways.clone().find(|way| self.is_meant(way)).copied();
            self.file.packet(worker, record, bytes, chunk.view.as_deref(), way.as_ref())?;
            self.written[point as usize] += 1;
        }
        for (worker, mut chunk) in chunks {
            chunk.clear();
            // There is room for all that there are.
            let _ = lanes[worker].free.push(chunk);
        }
        Ok(())
    }

    fn is_meant(&self, way: &SeenWay) -> bool {
        let Wanted { matcher, filter, .. } = self.wanted;
        matcher.matches_endpoint(way.endpoint)
            && filter.target.is_none_or(|target| match target {
                TargetName::Address(address) => way.target.ip() == address,
                TargetName::Socket(socket) => way.target == socket,
                TargetName::Bypass => false,
            })
    }

    /// Says what was lost, if that has become more.
    fn tell_losses(&mut self, begun: &Begun) -> Result<(), PcapError> {
        let counts = self.wanted.points.each().map(|point| begun.capture.counts(point));
        let lost = counts.map(|it| it.lost + it.passed_by).sum();
        if lost == self.told {
            return Ok(());
        }
        self.told = lost;
        self.end(begun)
    }

    pub fn end(&mut self, begun: &Begun) -> Result<(), PcapError> {
        for point in self.wanted.points.each() {
            let (counts, written) = (begun.capture.counts(point), self.written[point as usize]);
            self.file.statistics(point, clock::wall_clock(), counts, written)?;
        }
        Ok(())
    }
}

/// The inner flow of a datagram to or from an appliance, and its way.
fn way_of(record: &Record, bytes: &[u8]) -> Option<(geneve::FlowKey, SeenWay)> {
    let target = match record.seen.whereabouts {
        Whereabouts::To { peer, .. } => peer,
        // Appliances do not swap the ports.
        Whereabouts::From { peer, local } => SocketAddr::new(peer.ip(), local.port()),
        Whereabouts::At(_) | Whereabouts::Leaving { .. } | Whereabouts::Gone(_) => return None,
    };
    let (tags, inner) = opened(bytes);
    let tags = tags?;
    // Of what was cut before the ports, the worker has seen more.
    let flow = record.seen.flow.or_else(|| flow_of_start(inner))?;
    Some((flow, SeenWay { endpoint: tags.endpoint, target, cookie: tags.cookie }))
}
