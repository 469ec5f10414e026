//! From the workers' chunks to the bytes of a file, for as long as a capture is on.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use geneve::flow_of_start;
use netio::process::idle::give_way;
use netio::process::thread_cpu_time;
use pcap_file::PcapError;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::file::CaptureFile;
use super::flows_seen::{FlowsSeen, SeenWay};
use super::tap::{Chunk, Record};
use super::{Begun, Capture, Point, Wanted};
use crate::dataplane::filter::TargetName;
use crate::logging::throttled;
use crate::runtime::clock;
use crate::runtime::datagrams::opened;
use crate::runtime::witness::Whereabouts;

/// Between two looks at the workers' chunks: at least, which is what they are made for, and at most.
const LOOK: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);
/// How often as long as it works it rests, all captures taken together: to pass on what it wrote, and
/// to store it, costs others as much again.
const REST: u32 = 9;
/// How long workers have to give away the rest.
const PATIENCE: Duration = Duration::from_millis(250);
/// At least so often the statistics say what was lost, if anything more was.
const TELL: Duration = Duration::from_secs(1);

/// Starts a thread that writes a capture `to` somebody until it is over: a bound is reached, the
/// gateway drains, or nobody takes it any more. To be called where the answer is sent from.
///
/// The thread has the time that nobody else wants. What workers see meanwhile finds no room, and so
/// is lost, when it is too much. Nobody waits for it: the end, which is owed to whoever waits for
/// that, is written where the answer is sent from.
///
/// # Errors
/// If there is no thread to be had.
pub(in crate::runtime) fn start(begun: Arc<Begun>, to: Sender<Bytes>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut writer = Writer::new(&begun.capture).map_err(io::Error::other)?;
    let others = Handle::current();
    let write = move || {
        if let Err(error) = give_way() {
            throttled!(WARN, %error, "a capture takes time from others");
        }
        let written = runtime.block_on(async {
            tokio::select! {
                // That nobody reads any more ends it at once.
                () = to.closed() => Ok(()),
                written = write(&begun, &mut writer, &to) => written,
            }
        });
        others.spawn(async move {
            let ended = finish(&begun, writer, &to);
            if let Err(error) = match written {
                Ok(()) => ended.await,
                Err(error) => Err(error),
            } {
                tracing::error!(%error, "cannot write a capture");
            }
        });
    };
    thread::Builder::new().name("capture".to_owned()).spawn(write).map(drop)
}

/// Writes all but the end.
async fn write(begun: &Begun, writer: &mut Writer, to: &Sender<Bytes>) -> Result<(), PcapError> {
    let mut over = pin!(sleep(begun.capture.wanted.duration));
    let mut tell = clock::now() + TELL;
    loop {
        let (looked, spent) = (clock::now(), thread_cpu_time());
        writer.collect(begun)?;
        if tell <= looked {
            writer.tell_losses(begun)?;
            tell = looked + TELL;
        }
        let worked = thread_cpu_time().saturating_sub(spent);
        if !writer.file.is_taken() {
            tokio::select! {
                room = to.reserve() => match room {
                    Ok(room) => room.send(writer.file.take().into()),
                    Err(_) => return Ok(()),
                },
                // Who takes it slowly gets what there is until now.
                () = &mut over => return Ok(()),
            }
        }
        if writer.is_full() || begun.shared.is_draining() {
            return Ok(());
        }
        let rest = worked.saturating_mul(REST * begun.shared.captures.on() as u32);
        tokio::select! {
            () = sleep(rest.clamp(LOOK, LONGEST)) => {}
            () = &mut over => return Ok(()),
        }
    }
}

/// Writes what workers have seen by now, and the statistics.
async fn finish(begun: &Begun, mut writer: Writer, to: &Sender<Bytes>) -> Result<(), PcapError> {
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
pub(super) struct Writer {
    capture: Arc<Capture>,
    pub file: CaptureFile,
    flows: FlowsSeen,
    /// By point.
    written: [u64; Point::ALL.len()],
    /// What was said of losses last.
    told: u64,
}

impl Writer {
    pub fn new(capture: &Arc<Capture>) -> Result<Self, PcapError> {
        let wanted = &capture.wanted;
        let filter = wanted.filter.parts();
        let filter: Vec<_> = filter.iter().map(|(part, value)| format!("{part}={value}")).collect();
        let file = CaptureFile::begin(wanted.points, wanted.snaplen, &filter.join(", "))?;
        let (capture, flows) = (Arc::clone(capture), FlowsSeen::default());
        Ok(Self { capture, file, flows, written: Default::default(), told: 0 })
    }

    fn is_full(&self) -> bool {
        self.written.iter().sum::<u64>() >= self.capture.wanted.max_packets
            || self.file.len() >= self.capture.wanted.max_bytes
    }

    /// Writes what the workers have seen, in the order of time, and gives the memory back.
    pub fn collect(&mut self, begun: &Begun) -> Result<(), PcapError> {
        let lanes = &begun.capture.lanes;
        let mut chunks: Vec<(usize, Box<Chunk>)> = Vec::new();
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
            if !self.capture.wanted.points.has(point)
                || (self.capture.wanted.needs_way() && meant.next().is_none())
            {
                continue;
            }
            let way = ways.clone().find(|way| self.is_meant(way)).copied();
            self.file.packet(worker, record, bytes, chunk.view.as_deref(), way.as_ref())?;
            self.written[point as usize] += 1;
        }
        for (worker, mut chunk) in chunks {
            chunk.clear();
            lanes[worker].give_back(chunk);
        }
        Ok(())
    }

    fn is_meant(&self, way: &SeenWay) -> bool {
        let Wanted { matcher, filter, .. } = &self.capture.wanted;
        matcher.matches_endpoint(way.endpoint)
            && filter.target.is_none_or(|target| match target {
                TargetName::Address(address) => way.target.ip() == address,
                TargetName::Socket(socket) => way.target == socket,
                TargetName::Bypass => false,
            })
    }

    /// Says what was lost, if that has become more.
    fn tell_losses(&mut self, begun: &Begun) -> Result<(), PcapError> {
        let counts = self.capture.wanted.points.each().map(|point| begun.capture.counts(point));
        let lost = counts.map(|it| it.lost + it.passed_by).sum();
        if lost == self.told {
            return Ok(());
        }
        self.told = lost;
        self.end(begun)
    }

    pub fn end(&mut self, begun: &Begun) -> Result<(), PcapError> {
        for point in self.capture.wanted.points.each() {
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
