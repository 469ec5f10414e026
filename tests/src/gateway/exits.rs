//! Where packets leave the workers: memory in place of sockets, devices and queues. What the
//! kernel would refuse here is a failure of the test.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use geneve::outer::{self, OuterHeader, UdpChecksum};
use geneve::{Inner, IpVersion, PacketBuf};
use gwlb::config::{AttachmentSettings, Settings};
use gwlb::dataplane::encap::{Batch, HOP_LIMIT};
use gwlb::dataplane::snapshot::{Snapshot, TargetSlot};
use gwlb::dataplane::stats::WorkerStats;
use gwlb::dataplane::translate::Head;
use gwlb::dataplane::verdict::{Hop, Origin, Side, WorkerId};
use netio::offload::{Limits, MAX_HEADERS, Offload, OffloadError, Run, Segmenter};
use netio::udp::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};
use router::Attachment;

use super::Datagram;
use super::journal::{Happened, Journal};

/// A datagram that was sent to an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// When, counted from the gateway's start.
    pub time: Duration,
    /// The gateway's address and the flow's source port.
    pub from: SocketAddr,
    /// The appliance.
    pub to: SocketAddr,
    /// Which target that is.
    pub target: TargetSlot,
    /// Geneve header and inner packet.
    pub bytes: Vec<u8>,
}

impl Sent {
    /// The datagram with the outer headers that the kernel puts in front: DF and TOS clear, no
    /// identification, a checksum.
    pub fn on_the_wire(&self) -> Vec<u8> {
        let header = OuterHeader {
            src: self.from,
            dst: self.to,
            ttl: HOP_LIMIT,
            tos: 0,
            dont_fragment: false,
            id: 0,
            checksum: UdpChecksum::On,
        };
        let mut packet = PacketBuf::from_slice(&self.bytes);
        outer::encapsulate(&header, &mut packet).expect("headers that fit");
        packet.bytes().to_vec()
    }
}

/// A packet that left through an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// When, counted from the gateway's start.
    pub time: Duration,
    /// Where, as the worker that sent it numbers places.
    pub at: Attachment,
    /// The name of the device there.
    pub device: Arc<str>,
    /// The packet.
    pub packet: Vec<u8>,
}

/// A packet in the queue to the worker that owns its flow.
#[derive(Debug)]
pub(super) struct Handover {
    pub from: Origin,
    pub epoch: u32,
    pub packet: Vec<u8>,
    pub offload: Offload,
}

/// Who lets something out, and with which view.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    pub worker: WorkerId,
    pub snapshot: &'a Snapshot,
}

/// The queue to a worker is full.
#[derive(Debug)]
pub(super) struct Full;

/// A device of an attachment.
#[derive(Debug, Clone)]
pub(super) struct Device {
    at: Attachment,
    name: Arc<str>,
    /// What it takes in one write.
    pub limits: Limits,
}

/// The devices, by the epoch of the topology in which their places are numbered.
#[derive(Debug, Default)]
pub(super) struct Devices(BTreeMap<u32, Vec<Device>>);

impl Devices {
    /// Notes where these settings have devices.
    pub fn note(&mut self, epoch: u32, settings: &Settings) {
        let device = |at: Attachment, it: &AttachmentSettings| {
            let limits = match (it.offload, it.big_tcp) {
                (false, _) => Limits::PLAIN,
                (true, false) => Limits::default(),
                (true, true) => Limits::BIG_TCP,
            };
            Device { at, name: Arc::from(it.tun.as_str()), limits }
        };
        let exits = || settings.exits().into_iter();
        let devices =
            || exits().map(|(at, index)| device(at, &settings.attachments[index])).collect();
        self.0.entry(epoch).or_insert_with(devices);
    }

    /// The name of the device at a place.
    pub fn name(&self, at: Attachment, epoch: u32) -> Arc<str> {
        let found = self.find(at, epoch);
        found.map_or_else(|| Arc::from("?"), |device| Arc::clone(&device.name))
    }

    /// The device at a place.
    pub fn find(&self, at: Attachment, epoch: u32) -> Option<&Device> {
        self.0.get(&epoch).into_iter().flatten().find(|device| device.at == at)
    }

    /// A place as it is numbered in another epoch.
    pub fn renumbered(&self, at: Attachment, from: u32, to: u32) -> Attachment {
        if from == to {
            return at;
        }
        let name = self.name(at, from);
        let mut devices = self.0.get(&to).into_iter().flatten();
        devices.find(|other| other.name == name).map_or(at, |device| device.at)
    }
}

#[derive(Debug)]
pub(super) struct Exits {
    pub devices: Devices,
    /// The latest view that was published.
    pub snapshot: Arc<Snapshot>,
    pub journal: Journal,
    pub sent: Vec<Sent>,
    pub sends: u64,
    pub delivered: Vec<Delivered>,
    pub writes: u64,
    /// What probes through the tunnel said that came back, and who brought them.
    pub probes: Vec<(TargetSlot, Vec<u8>)>,
    pub inboxes: Vec<VecDeque<Handover>>,
    inbox_limit: usize,
}

impl Exits {
    pub fn new(
        snapshot: Arc<Snapshot>,
        devices: Devices,
        inbox_limit: usize,
        journal: bool,
    ) -> Exits {
        let inboxes = (0..snapshot.workers).map(|_| VecDeque::new()).collect();
        Exits {
            devices,
            snapshot,
            journal: Journal::new(journal),
            sent: Vec::new(),
            sends: 0,
            delivered: Vec::new(),
            writes: 0,
            probes: Vec::new(),
            inboxes,
            inbox_limit,
        }
    }

    pub fn inbox(&mut self, worker: WorkerId) -> &mut VecDeque<Handover> {
        &mut self.inboxes[usize::from(worker.0)]
    }

    pub fn hand_over(&mut self, to: WorkerId, handover: Handover) -> Result<(), Full> {
        let limit = self.inbox_limit;
        let inbox = self.inbox(to);
        if inbox.len() >= limit {
            return Err(Full);
        }
        inbox.push_back(handover);
        Ok(())
    }

    /// Sends a batch as `UDP_SEGMENT` would.
    pub fn send(&mut self, by: By<'_>, side: Side, hop: &Hop, batch: &Batch<'_>) {
        let By { worker, snapshot } = by;
        let target = snapshot.target(hop.target);
        let version = IpVersion::of(hop.address.ip());
        let most = usize::from(target.path_mtu) - version.header_len() - outer::UDP_LEN;
        let from = SocketAddr::new(
            snapshot.pool(hop.pool).address,
            source_port(worker, hop.port, snapshot.workers),
        );
        let mut bytes = Vec::with_capacity(batch.len());
        batch.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        let segment = usize::from(batch.segment_size);
        let datagrams: Vec<_> = bytes.chunks(segment).map(<[u8]>::to_vec).collect();
        assert_eq!(datagrams.len(), batch.segments, "segments of one size but the last");
        assert!(batch.segments <= MAX_GSO_SEGMENTS, "{} in one send", batch.segments);
        assert!(bytes.len() <= MAX_GSO_BYTES, "{} bytes in one send", bytes.len());
        // Every link has to carry as much of IPv6 (RFC 8200 section 5), if in pieces of the outer
        // packet.
        let six = datagrams[0].get(target.dialect.header_len()).is_some_and(|byte| byte >> 4 == 6);
        let least = if six { 1280 + target.dialect.header_len() } else { 0 };
        assert!(segment <= most.max(least), "{segment} bytes fit into {most}");
        self.sends += 1;
        let (time, to, target) = (self.journal.time, hop.address, hop.target);
        for bytes in datagrams {
            let sent = Sent { time, from, to, target, bytes };
            self.journal.note(|| Happened::Sent { worker, side, sent: sent.clone() });
            self.sent.push(sent);
        }
    }

    /// Writes a packet to a device, where the kernel cuts super-packets; returns how many packets
    /// it was.
    pub fn write(
        &mut self,
        by: By<'_>,
        at: Attachment,
        packet: &[u8],
        offload: &Offload,
    ) -> Result<u64, OffloadError> {
        let By { worker, snapshot } = by;
        let translation = snapshot.translation(at);
        let head = translation.and_then(|translation| translation.outward_head(packet, offload));
        let packet = Head::before(head.as_ref(), packet).concat();
        let inner = Inner::parse(&packet).expect("a packet that was looked at");
        let segmenter = Segmenter::new(&packet, &inner, offload)?;
        let mut headers = [0; MAX_HEADERS];
        let epoch = snapshot.topology_epoch;
        let device = self.devices.name(at, epoch);
        let plain = self.devices.find(at, epoch).is_some_and(|it| it.limits == Limits::PLAIN);
        for index in 0..segmenter.count() {
            let segment = segmenter.segment(index, &mut headers);
            let packet = [&headers[..segment.header_len], &packet[segment.payload]].concat();
            let device = Arc::clone(&device);
            let delivered = Delivered { time: self.journal.time, at, device, packet };
            self.journal.note(|| Happened::Delivered { worker, delivered: delivered.clone() });
            self.delivered.push(delivered);
        }
        self.writes += if plain { segmenter.count() as u64 } else { 1 };
        Ok(segmenter.count() as u64)
    }

    /// Writes a run of returned packets to the device that it leaves by; says which of those that
    /// were delivered they are.
    pub fn deliver(
        &mut self,
        by: By<'_>,
        stats: &WorkerStats,
        batch: &[Datagram],
        run: &Run<'_, Attachment>,
    ) -> Range<usize> {
        let first = self.delivered.len();
        let mut packet = run.headers.to_vec();
        for piece in run.pieces {
            packet.extend_from_slice(piece.of(&batch[piece.buffer as usize].bytes));
        }
        let written = self.write(by, run.tag, &packet, &run.offload);
        let written = written.expect("a run that can be cut");
        assert_eq!(written, run.pieces.len() as u64, "cut into what it was made of");
        stats.udp.flow.delivered.add(written);
        first..self.delivered.len()
    }

    /// Holds that what was delivered in `runs` is what came back, byte for byte but for the
    /// addresses that are translated, in whatever order between flows.
    pub fn assert_transparent(
        &self,
        snapshot: &Snapshot,
        runs: Vec<Range<usize>>,
        genuine: Vec<(Attachment, &[u8])>,
    ) {
        let delivered = runs.into_iter().flat_map(|run| &self.delivered[run]);
        let mut delivered: Vec<_> =
            delivered.map(|delivered| (delivered.at, delivered.packet.clone())).collect();
        let translated = |(at, packet): (Attachment, &[u8])| {
            let mut packet = packet.to_vec();
            if let Some(translation) = snapshot.translation(at) {
                translation.outward(&mut packet, &Offload::NONE);
            }
            (at, packet)
        };
        let mut genuine: Vec<_> = genuine.into_iter().map(translated).collect();
        delivered.sort_unstable();
        genuine.sort_unstable();
        assert_eq!(delivered, genuine, "what leaves is what came back");
    }
}

/// The source port in a slot of a worker's slice. As in the runtime, the ports of worker w are
/// those that are w modulo the number of workers.
pub(super) fn source_port(worker: WorkerId, slot: u16, workers: u16) -> u16 {
    61_000_u16.next_multiple_of(workers) + slot * workers + worker.0
}
