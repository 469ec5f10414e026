//! How long packets are with the appliances, by samples: now and then a worker remembers a packet
//! that it sends to a target, and looks for it among what comes back.
//!
//! There is at most one for each target at a time. As long as none is waited for, packets that come
//! back cost one comparison each, and those that are sent one for each send. A sample reads the clock
//! itself, since all packets of a batch have the same time otherwise.

use std::time::{Duration, Instant};

use crate::dataplane::encap::Batch;
use crate::dataplane::snapshot::TargetSlot;
use crate::dataplane::stats::RoundTrips;
use crate::runtime::clock;

/// How often a packet to one target is sampled.
const INTERVAL: Duration = Duration::from_millis(100);
/// A packet that has not come back by then is waited for no more: the appliance has kept it.
const FORGET: Duration = Duration::from_secs(3);

/// What a worker remembers of packets that it has sent.
#[derive(Debug)]
pub(in crate::runtime) struct Sampler {
    started: Instant,
    /// The batch's time, in nanoseconds since the start.
    now: u64,
    /// How many are waited for.
    waiting: usize,
    /// By slot.
    targets: Vec<Sample>,
}

/// What is remembered for one target.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    /// When the next one is taken, in nanoseconds since the start.
    due: u64,
    /// The packet that is waited for, and when it was sent.
    sent: Option<(Instant, Fingerprint)>,
}

impl Sampler {
    /// For a gateway with so many targets.
    pub fn new(started: Instant, targets: usize) -> Self {
        Self { started, now: 0, waiting: 0, targets: vec![Sample::default(); targets] }
    }

    /// There may be more targets now.
    pub fn make_room(&mut self, targets: usize) {
        if self.targets.len() < targets {
            self.targets.resize(targets, Sample::default());
        }
    }

    /// A batch begins.
    pub fn tick(&mut self, now: Instant) {
        self.now = nanos(now.saturating_duration_since(self.started));
    }

    /// Whether a packet to this target is to be remembered.
    #[inline]
    pub fn is_due(&self, target: TargetSlot) -> bool {
        self.targets.get(target.0 as usize).is_some_and(|sample| sample.due <= self.now)
    }

    /// Remembers the first packet of a batch that was sent to a target, each with a Geneve header of
    /// so many bytes.
    #[inline(never)]
    pub fn sent(
        &mut self,
        target: TargetSlot,
        batch: &Batch<'_>,
        header_len: usize,
        begun: Instant,
    ) {
        let Some(sample) = self.targets.get_mut(target.0 as usize) else { return };
        if let Some((at, _)) = sample.sent {
            if begun.saturating_duration_since(at) < FORGET {
                // It may still come; until then, this is asked at most once for each interval.
                sample.due = self.now + nanos(INTERVAL);
                return;
            }
            sample.sent = None;
            self.waiting -= 1;
        }
        let (head, len) = first_of(batch, header_len);
        if let Some(fingerprint) = Fingerprint::of(&head[..len]) {
            sample.sent = Some((begun, fingerprint));
            sample.due = self.now + nanos(INTERVAL);
            self.waiting += 1;
        }
    }

    /// Whether any packet is waited for.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// A packet came back from a target, maybe the one that is waited for.
    #[inline(never)]
    pub fn see(&mut self, target: TargetSlot, packet: &[u8], times: &RoundTrips) {
        let Some(sample) = self.targets.get_mut(target.0 as usize) else { return };
        let Some((begun, fingerprint)) = sample.sent else { return };
        if Fingerprint::of(packet) != Some(fingerprint) {
            return;
        }
        sample.sent = None;
        self.waiting -= 1;
        let now = clock::now();
        let took = now.saturating_duration_since(begun);
        if took < FORGET {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            times.times.record(micros);
            times.last.set(micros);
            times.at.set(nanos(now.saturating_duration_since(self.started)).max(1));
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// As much of a packet as a fingerprint looks at: behind the longest header of IPv4.
const HEAD: usize = 60 + BEHIND;

/// The beginning of the first packet of a batch, without its Geneve header.
fn first_of(batch: &Batch<'_>, header_len: usize) -> ([u8; HEAD], usize) {
    let mut head = [0; HEAD];
    let packet = usize::from(batch.segment_size).saturating_sub(header_len);
    let (mut skip, mut filled) = (header_len, 0);
    for piece in batch.pieces {
        let rest = piece.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(piece.len());
        let room = &mut head[filled..packet.min(HEAD).max(filled)];
        let taken = rest.len().min(room.len());
        room[..taken].copy_from_slice(&rest[..taken]);
        filled += taken;
        if filled >= packet.min(HEAD) {
            break;
        }
    }
    (head, filled)
}

/// So many bytes behind the IP header tell packets of a flow apart: ports, and of TCP the numbers and
/// flags, of UDP the length and the checksum of all.
const BEHIND: usize = 16;

/// By what a packet is known again: all of its IP header that no router changes, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint([u8; 36 + BEHIND]);

impl Fingerprint {
    fn of(packet: &[u8]) -> Option<Self> {
        let mut bytes = [0; 36 + BEHIND];
        let header_len = if packet.first()? >> 4 == 4 {
            // Length, identification, flags and offset; protocol; addresses. The others are TOS, TTL
            // and checksum.
            bytes[0..6].copy_from_slice(packet.get(2..8)?);
            bytes[6] = *packet.get(9)?;
            bytes[7..15].copy_from_slice(packet.get(12..20)?);
            usize::from(packet[0] & 0x0f) * 4
        } else {
            // Length and next header; addresses.
            bytes[0..3].copy_from_slice(packet.get(4..7)?);
            bytes[3..35].copy_from_slice(packet.get(8..40)?);
            40
        };
        bytes[35] = packet[0] >> 4;
        let behind = packet.get(header_len..).unwrap_or_default();
        let behind = &behind[..behind.len().min(BEHIND)];
        bytes[36..36 + behind.len()].copy_from_slice(behind);
        Some(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    const TARGET: TargetSlot = TargetSlot(1);
    const HEADER: usize = 40;

    fn packet(id: u8, seq: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 60, 0, id, 0x40, 0, 64, 6, 9, 9];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 4, 4, 0, 0, 0, seq]);
        packet.resize(60, 7);
        packet
    }

    /// Sends packets in one batch, in pieces as the encapsulator has them.
    fn send(sampler: &mut Sampler, packets: &[Vec<u8>], at: Instant) {
        let headers: Vec<_> =
            packets.iter().map(|it| [&[1; HEADER][..], &it[..30]].concat()).collect();
        let pieces: Vec<_> = headers
            .iter()
            .zip(packets)
            .flat_map(|(header, packet)| [IoSlice::new(header), IoSlice::new(&packet[30..])])
            .collect();
        let segment_size = (HEADER + packets[0].len()) as u16;
        let batch = Batch { segment_size, segments: packets.len(), pieces: &pieces };
        sampler.sent(TARGET, &batch, HEADER, at);
    }

    fn counted(times: &RoundTrips) -> u64 {
        crate::dataplane::stats::HistogramTotals::of([&times.times]).count()
    }

    #[test]
    fn the_first_packet_of_a_batch_is_known_again_though_routers_have_touched_it() {
        let started = clock::now();
        let (mut sampler, times) = (Sampler::new(started, 2), RoundTrips::default());
        sampler.tick(started);
        assert!(sampler.is_due(TARGET) && !sampler.is_waiting());
        send(&mut sampler, &[packet(1, 1), packet(2, 2)], started);
        assert!(!sampler.is_due(TARGET) && sampler.is_waiting());
        for other in [packet(2, 2), packet(1, 2), packet(2, 1)] {
            sampler.see(TARGET, &other, &times);
        }
        sampler.see(TargetSlot(0), &packet(1, 1), &times);
        assert_eq!(counted(&times), 0, "none of these was it");
        let mut back = packet(1, 1);
        // Marked for congestion, with another TTL and so with another checksum.
        (back[1], back[8], back[10]) = (3, 63, 10);
        sampler.see(TARGET, &back, &times);
        sampler.see(TARGET, &back, &times);
        assert_eq!(counted(&times), 1, "once");
        assert!(!sampler.is_waiting());
        assert_eq!(
            RoundTrips::last_of(&[times, RoundTrips::default()]).map(|it| it < 3_000_000),
            Some(true)
        );
    }

    #[test]
    fn one_at_a_time_and_none_for_ever() {
        let started = clock::now();
        let (mut sampler, times) = (Sampler::new(started, 2), RoundTrips::default());
        send(&mut sampler, &[packet(1, 1)], started);
        sampler.tick(started + INTERVAL);
        assert!(sampler.is_due(TARGET));
        send(&mut sampler, &[packet(2, 2)], started + INTERVAL);
        assert!(!sampler.is_due(TARGET), "the first one may still come");
        sampler.see(TARGET, &packet(2, 2), &times);
        assert_eq!((counted(&times), sampler.waiting), (0, 1));

        sampler.tick(started + FORGET);
        send(&mut sampler, &[packet(3, 3)], started + FORGET);
        sampler.see(TARGET, &packet(1, 1), &times);
        assert_eq!((counted(&times), sampler.waiting), (0, 1), "it is forgotten");
        sampler.see(TARGET, &packet(3, 3), &times);
        assert_eq!((counted(&times), sampler.waiting), (1, 0));
    }

    #[test]
    fn what_is_too_short_or_no_packet_is_not_waited_for() {
        let (mut sampler, now) = (Sampler::new(clock::now(), 2), clock::now());
        for noise in [&[][..], &[0x45; 19], &[0x60; 39]] {
            let datagram = [&[1; HEADER], noise].concat();
            let pieces = [IoSlice::new(&datagram)];
            let segment_size = datagram.len() as u16;
            let batch = Batch { segment_size, segments: 1, pieces: &pieces };
            sampler.sent(TARGET, &batch, HEADER, now);
            assert!(!sampler.is_waiting(), "{noise:?}");
        }
        sampler.make_room(3);
        assert!(sampler.is_due(TargetSlot(2)) && !sampler.is_due(TargetSlot(3)));
    }

    #[test]
    fn ipv6_is_known_again() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 64];
        packet.extend([8; 32]);
        packet.extend([0, 53, 0, 54, 0, 12, 1, 2, 3, 4, 5, 6]);
        let mut back = packet.clone();
        (back[1], back[7]) = (0x30, 63);
        assert_eq!(Fingerprint::of(&packet), Fingerprint::of(&back));
        back[51] = 7;
        assert_ne!(Fingerprint::of(&packet), Fingerprint::of(&back), "another payload");
    }
}
