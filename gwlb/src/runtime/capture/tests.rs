use std::io::IoSlice;

use geneve::buffer::PacketBuf;
use netio::Slot;
use netio::offload::{Offload, Segmentation};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use router::Attachment;

use super::*;
use crate::dataplane::snapshot::Snapshot;
use crate::dataplane::verdict::{DropReason, WorkerId};
use crate::runtime::clock;
use crate::runtime::shared::{INBOX, Inbox, Published, tests::idle};
use crate::runtime::witness::{Dropped, Whereabouts, Witness};

/// Packets with their comments, and statistics by point.
type Captured = (Vec<(String, Vec<u8>)>, Vec<(u64, u64, u64)>);

/// More than it takes until captures have time again.
const LATER: Duration = Duration::from_secs(1);

/// One worker's eyes, and what it would work with.
struct Rig {
    shared: Arc<Shared>,
    witness: Witness,
    view: Arc<Snapshot>,
    at: Attachment,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let Shared { settings, exchange, .. } = idle();
        let view = Arc::clone(&exchange.published.load_full().snapshot);
        let published = Published { snapshot: Arc::clone(&view), rig: Arc::default() };
        let (inboxes, stats) = (vec![Inbox::new(INBOX).unwrap()], vec![Arc::default()]);
        let shared = Arc::new(Shared::new(settings.load_full(), published, stats, inboxes));
        let record = Arc::clone(&shared.drops[0]);
        let now = clock::now();
        let witness = Witness::new(WorkerId(0), shared.captures.plan(), record, now);
        let at = *view.attachments.keys().max().unwrap();
        Self { shared, witness, view, at, now }
    }

    fn begin(&mut self, wanted: Wanted) -> Begun {
        let now = (clock::now(), clock::wall_clock());
        let begun = Begun::new(Arc::clone(&self.shared), wanted, now).unwrap();
        self.witness.look(self.now);
        begun
    }

    /// Packets come a while later.
    fn come_in(&mut self, packets: &[Vec<u8>], offload: Offload) {
        self.now += LATER;
        self.witness.look(self.now);
        self.come_at_once(packets, offload);
    }

    /// Packets come.
    fn come_at_once(&mut self, packets: &[Vec<u8>], offload: Offload) {
        let slot = |packet: &Vec<u8>| Slot { packet: PacketBuf::from_slice(packet), meta: offload };
        let slots: Vec<_> = packets.iter().map(slot).collect();
        assert!(self.witness.looks_at(Point::In));
        self.witness.came_in(&self.view, self.at, &slots);
    }
}

fn wanted(points: &[Point], parts: &[(&str, &str)]) -> Wanted {
    let mut filter = FlowFilter::default();
    for (part, value) in parts {
        filter.set(part, value).unwrap();
    }
    let view = idle().exchange.published.load_full();
    Wanted {
        points: points.iter().copied().collect(),
        matcher: filter.bind(&view.snapshot).unwrap(),
        filter,
        snaplen: 262_144,
        max_packets: 1_000_000,
        max_bytes: 1 << 30,
        duration: Duration::from_mins(10),
    }
}

fn udp(port: u16, payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([10, 0, 1, 11], [203, 0, 113, 7], 64);
    let mut packet = Vec::new();
    builder.udp(port, 53).write(&mut packet, &vec![7; payload]).unwrap();
    packet
}

/// The capture to its end: comment and bytes of each packet, and the last statistics: what was
/// meant or not looked at, what was lost or not looked at, what was written.
fn read(file: &[u8]) -> Captured {
    let mut reader = PcapNgReader::new(file).unwrap();
    let (mut packets, mut statistics) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::EnhancedPacket(packet) => {
                let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else {
                    panic!("{:?}", packet.options)
                };
                packets.push((comment.to_string(), packet.data.to_vec()));
            }
            Block::InterfaceStatistics(said) => {
                let [
                    InterfaceStatisticsOption::IsbIfRecv(all),
                    InterfaceStatisticsOption::IsbIfDrop(passed_by),
                    InterfaceStatisticsOption::IsbFilterAccept(meant),
                    InterfaceStatisticsOption::IsbOsDrop(lost),
                    InterfaceStatisticsOption::IsbUsrDeliv(written),
                ] = said.options[..]
                else {
                    panic!("{:?}", said.options)
                };
                assert_eq!(all, meant + passed_by);
                statistics.push((all, lost + passed_by, written));
            }
            _ => {}
        }
    }
    (packets, statistics)
}

/// What is in the capture when it ends now.
fn end(rig: &mut Rig, begun: &Begun) -> Captured {
    begun.end();
    rig.witness.look(rig.now);
    assert!(!begun.is_open() && !rig.witness.looks_at(Point::In), "it looks no longer");
    let mut writer = pump::Writer::new(&begun.capture).unwrap();
    writer.collect(begun).unwrap();
    writer.end(begun).unwrap();
    read(&writer.file.take())
}

#[test]
fn what_is_meant_is_captured_and_nothing_else() {
    let mut rig = Rig::new();
    assert!(!rig.witness.looks_at(Point::In), "nobody has asked");
    let begun = rig.begin(wanted(&[Point::In], &[("port", "1000")]));
    assert!(!rig.witness.looks_at(Point::Out));
    rig.come_in(&[udp(1000, 8), udp(1001, 8), udp(1000, 9), vec![0x45; 3]], Offload::NONE);
    let (packets, statistics) = end(&mut rig, &begun);
    let bytes: Vec<_> = packets.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(bytes, [udp(1000, 8), udp(1000, 9)]);
    assert_eq!(statistics, [(2, 0, 2)]);
    let at = rig.view.topology.entry_name(rig.at.into());
    let flow = "udp 10.0.1.11:1000 > 203.0.113.7:53";
    assert_eq!(packets[0].0, format!("point=in, worker=0, at={at}, flow={flow}"));
}

#[test]
fn without_a_filter_even_noise_is_captured() {
    let mut rig = Rig::new();
    let begun = rig.begin(wanted(&[Point::In, Point::Drop], &[]));
    let noise = vec![0x45; 3];
    rig.come_in(std::slice::from_ref(&noise), Offload::NONE);
    let dropped = Dropped {
        reason: DropReason::MalformedPacket,
        segments: 1,
        whereabouts: Whereabouts::At(router::Entry::from(rig.at).into()),
        pieces: &[IoSlice::new(&noise)],
        offload: &Offload::NONE,
    };
    rig.witness.dropped(&rig.view, &dropped);
    let (packets, statistics) = end(&mut rig, &begun);
    assert_eq!(packets.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [&noise, &noise]);
    assert!(packets[1].0.contains("point=drop, worker=0, reason=malformed_packet, at="));
    assert_eq!(statistics, [(1, 0, 1), (1, 0, 1)]);
}

#[test]
fn what_finds_no_room_is_lost_and_counted() {
    let mut rig = Rig::new();
    let begun = rig.begin(wanted(&[Point::In], &[]));
    let batch: Vec<_> = (0..64).map(|number| udp(1000 + number, 1400)).collect();
    let mut sent = 0;
    while begun.capture.counts(Point::In).lost < 1000 {
        rig.come_in(&batch, Offload::NONE);
        rig.witness.settle();
        sent += batch.len() as u64;
        assert!(sent < 1_000_000, "there is room without end");
    }
    let Counts { meant, lost, passed_by } = begun.capture.counts(Point::In);
    assert_eq!((meant, passed_by), (sent, 0));
    let (packets, statistics) = end(&mut rig, &begun);
    assert_eq!(statistics, [(sent, lost, sent - lost)]);
    assert_eq!(packets.len() as u64, sent - lost);
    assert!(packets.len() > 1000, "{} found room", packets.len());
}

#[test]
fn what_there_is_no_time_for_is_not_looked_at_and_counted() {
    let mut rig = Rig::new();
    let begun = rig.begin(wanted(&[Point::In], &[("port", "9")]));
    let batch: Vec<_> = (0..64).map(|number| udp(1000 + number, 1400)).collect();
    let mut sent = 0;
    // By the gateway's clock no time passes.
    while begun.capture.counts(Point::In).passed_by == 0 {
        rig.come_at_once(&batch, Offload::NONE);
        sent += batch.len() as u64;
        assert!(sent < 100_000_000, "there is time without end");
    }
    let none = Counts { meant: 0, lost: 0, passed_by: 64 };
    assert_eq!(begun.capture.counts(Point::In), none, "after {sent}");
    rig.come_in(&[udp(9, 1)], Offload::NONE);
    assert_eq!(begun.capture.counts(Point::In), Counts { meant: 1, ..none }, "there is time again");
    assert_eq!(end(&mut rig, &begun).1, [(65, 64, 1)]);
}

#[test]
fn bounds_hold() {
    let of = |change: fn(&mut Wanted)| {
        let mut rig = Rig::new();
        let mut wanted = wanted(&[Point::In], &[]);
        change(&mut wanted);
        let begun = rig.begin(wanted);
        rig.come_in(&vec![udp(1000, 972); 40], Offload::NONE);
        end(&mut rig, &begun).0
    };
    assert_eq!(of(|_| {}).len(), 40);
    assert_eq!(of(|wanted| wanted.max_packets = 7).len(), 7);
    let whole: usize = of(|wanted| wanted.max_bytes = 10_000).iter().map(|(_, it)| it.len()).sum();
    assert!((8000..10_000).contains(&whole), "{whole}");
    let cut = of(|wanted| wanted.snaplen = 64);
    assert!(cut.iter().all(|(_, bytes)| bytes[..] == udp(1000, 972)[..64]));
}

#[test]
fn super_packets_stay_in_one_and_say_so() {
    let mut rig = Rig::new();
    let begun = rig.begin(wanted(&[Point::In], &[]));
    let segment = Segmentation::Udp { size: 100 };
    rig.come_in(&[udp(1, 250)], Offload { segment, ..Offload::NONE });
    let (packets, _) = end(&mut rig, &begun);
    assert_eq!(packets[0].1, udp(1, 250));
    assert!(packets[0].0.ends_with("super-packet of 3 segments"), "{}", packets[0].0);
}

#[test]
fn there_are_so_many_at_a_time_and_each_is_off_when_its_owner_goes() {
    let mut rig = Rig::new();
    let mut all: Vec<_> = (0..CAPTURES).map(|_| rig.begin(wanted(&[Point::In], &[]))).collect();
    let now = (clock::now(), clock::wall_clock());
    let more = Begun::new(Arc::clone(&rig.shared), wanted(&[Point::In], &[]), now);
    assert_eq!(more.unwrap_err(), TooMany);
    let kept = all.pop().unwrap();
    drop(all);
    rig.come_in(&[udp(1, 1)], Offload::NONE);
    let weak = Arc::downgrade(&kept.capture);
    assert_eq!(end(&mut rig, &kept).0.len(), 1);
    drop(kept);
    assert!(weak.upgrade().is_none(), "its memory is given back");
    assert!(rig.shared.captures.plan().load().on.is_empty());
}

#[test]
fn a_reader_that_left_something_gets_the_rest_when_it_asks() {
    let mut rig = Rig::new();
    let begun = rig.begin(wanted(&[Point::In], &[]));
    let mut writer = pump::Writer::new(&begun.capture).unwrap();
    rig.come_in(&[udp(1, 1)], Offload::NONE);
    rig.witness.settle();
    // It is only asked for now, and comes with the end of the next batch.
    writer.collect(&begun).unwrap();
    assert_eq!(read(&writer.file.take()).0.len(), 0);
    rig.witness.settle();
    writer.collect(&begun).unwrap();
    let mut file = pump::Writer::new(&begun.capture).unwrap().file.take();
    file.extend(writer.file.take());
    assert_eq!(read(&file).0.len(), 1);
}
