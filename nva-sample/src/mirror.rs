//! A mirror: everything passes, and a copy goes to a capture file.
//!
//! Packets do not wait for the disk: a bounded queue leads to a thread that writes, and what does
//! not fit is passed on but not captured, and counted.

mod capture;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use appliance_sdk::{Action, Appliance, Packet};

pub use self::capture::{Capture, Copied};
use crate::aside;
use crate::clock::WallClock;

/// One worker's mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    queue: SyncSender<Copied>,
    counts: Arc<Counts>,
    snaplen: usize,
    clock: WallClock,
}

/// What became of copies.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets written.
    pub written: AtomicU64,
    /// Packets that found the queue full.
    pub lost: AtomicU64,
    /// Packets that came when the file had its full size, or after it could not be written.
    pub beyond_limit: AtomicU64,
}

/// How many packets may wait: some 20 ms of them at 2 Gbit/s of full-sized packets.
const QUEUE_LENGTH: usize = 4096;

impl Mirror {
    /// A mirror that copies up to `snaplen` bytes of each packet, and the end where the copies come
    /// out. Clones lead to the same end.
    pub fn new(snaplen: usize, clock: WallClock) -> (Self, Receiver<Copied>) {
        let (queue, copies) = sync_channel(QUEUE_LENGTH);
        (Self { queue, counts: Arc::default(), snaplen, clock }, copies)
    }

    /// What became of copies so far.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Appliance for Mirror {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        let bytes = packet.bytes();
        let copy = Copied {
            time: self.clock.at(packet.received_at()),
            bytes: bytes.get(..self.snaplen).unwrap_or(bytes).to_vec(),
            original_len: bytes.len(),
            tags: *packet.tags(),
        };
        if self.queue.try_send(copy).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        Action::Forward
    }
}

/// Opens the place that captures are written to: a new file, or `-` for stdout.
pub fn open(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(File::create(path)?))
}

/// Writes copies until all mirrors are gone, or so many bytes are written that the next packet
/// could exceed `limit`; from then on copies are only counted.
pub fn write(
    copies: Receiver<Copied>,
    to: Box<dyn Write + Send>,
    snaplen: usize,
    limit: u64,
    counts: Arc<Counts>,
) -> io::Result<JoinHandle<()>> {
    let mut capture = Capture::begin(BufWriter::with_capacity(BUFFER, to), snaplen)?;
    capture.flush()?;
    aside::spawn("capture", move || {
        let ended = write_until(&copies, &mut capture, limit, &counts);
        match ended.and_then(|()| capture.flush()) {
            Ok(()) => {}
            // Whoever read the capture has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => tracing::error!(%error, "the capture cannot be written any more"),
        }
        let rest = copies.into_iter().count() as u64;
        counts.beyond_limit.fetch_add(rest, Ordering::Relaxed);
    })
}

const BUFFER: usize = 1 << 20;

/// More than a block has around its packet: fixed fields, the comment, padding.
const BLOCK_OVERHEAD: u64 = 256;

fn write_until<W: Write>(
    copies: &Receiver<Copied>,
    capture: &mut Capture<W>,
    limit: u64,
    counts: &Counts,
) -> io::Result<()> {
    loop {
        let copy = if let Ok(copy) = copies.try_recv() {
            copy
        } else {
            // Nothing to do: whoever watches the file wants to see what there is.
            capture.flush()?;
            let Ok(copy) = copies.recv() else { return Ok(()) };
            copy
        };
        if capture.bytes_written() + copy.bytes.len() as u64 + BLOCK_OVERHEAD > limit {
            tracing::warn!(
                bytes = capture.bytes_written(),
                "the capture has its full size, and ends"
            );
            counts.beyond_limit.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        capture.write(&copy)?;
        counts.written.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use appliance_sdk::geneve::Tags;
    use appliance_sdk::testing::{self, FakeGateway};
    use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    /// Sends packets through a mirror; returns the capture's packets and the counts.
    fn mirrored(
        packets: &[Vec<u8>],
        snaplen: usize,
        limit: u64,
    ) -> (Vec<EnhancedPacketBlock<'static>>, Arc<Counts>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirror.pcapng");
        let (mirror, copies) = Mirror::new(snaplen, WallClock::start());
        let counts = mirror.counts();
        let writer =
            write(copies, open(&path).unwrap(), snaplen, limit, Arc::clone(&counts)).unwrap();
        let mut gateway = FakeGateway::new(mirror);
        gateway.set_tags(Tags { endpoint: 0xabc, attachment: 5, cookie: 0x99 });
        for packet in packets {
            assert_eq!(gateway.send(packet), std::slice::from_ref(packet));
            gateway.advance(Duration::from_millis(1));
        }
        drop(gateway);
        writer.join().unwrap();

        let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap().into_owned() {
                Block::EnhancedPacket(packet) => blocks.push(packet),
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype, pcap_file::DataLink::RAW);
                }
                other => panic!("{other:?} is not expected"),
            }
        }
        (blocks, counts)
    }

    fn packets(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|n| testing::udp("10.0.0.1:1", "10.0.0.2:2", &[n; 500])).collect()
    }

    #[test]
    fn every_packet_is_captured_with_its_tags() {
        let sent = packets(3);
        let (captured, counts) = mirrored(&sent, 65_535, u64::MAX);
        assert!(captured.iter().map(|block| block.data.as_ref()).eq(&sent));
        let comment = "endpoint=0x0000000000000abc attachment=0x5 cookie=0x00000099";
        for block in &captured {
            assert_eq!(block.options, [EnhancedPacketOption::Comment(comment.into())]);
        }
        assert_eq!(captured[1].timestamp, captured[0].timestamp + Duration::from_millis(1));
        assert_eq!(counts.written.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn long_packets_are_cut_and_say_so() {
        let (captured, _) = mirrored(&packets(1), 100, u64::MAX);
        assert_eq!((captured[0].data.len(), captured[0].original_len), (100, 528));
    }

    #[test]
    fn a_full_capture_ends_and_traffic_goes_on() {
        let (captured, counts) = mirrored(&packets(10), 65_535, 3000);
        assert_eq!(captured.len(), 4);
        assert_eq!(counts.written.load(Ordering::Relaxed), 4);
        let beyond = counts.beyond_limit.load(Ordering::Relaxed);
        assert_eq!(beyond + counts.lost.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_writer_that_cannot_keep_up_costs_copies_and_no_packets() {
        let (mirror, copies) = Mirror::new(65_535, WallClock::start());
        let counts = mirror.counts();
        let mut gateway = FakeGateway::new(mirror);
        for packet in packets(1).iter().cycle().take(QUEUE_LENGTH + 10) {
            assert_eq!(gateway.send(packet).len(), 1);
        }
        assert_eq!(counts.lost.load(Ordering::Relaxed), 10);
        drop(copies);
    }
}
