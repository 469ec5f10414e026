//! What waits, what is known, and that neither grows under a flood.

use std::net::SocketAddr;

use proptest::prelude::*;
use router::{Entry, SubnetId};

use super::super::testing::{CLIENT, SERVER, ack, start, udp};
use super::*;

fn id(id: u32) -> FragmentId {
    let src = IpAddr::from([10, 0, 0, 1]);
    let dst = IpAddr::from([10, 0, 0, 2]);
    FragmentId { endpoint: 7, src, dst, protocol: 17, id }
}

fn flow(port: u16) -> FlowKey {
    FlowKey::new(SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 53)), 17)
        .unwrap()
}

/// A fragment that is told from others by its number, and takes `len` bytes and the headroom.
fn waiting(number: u32, len: usize) -> Waiting {
    let from = Entry::Subnet(SubnetId::from_index(0)).into();
    Waiting { from, epoch: number, packet: PacketBuf::with_capacity(len) }
}

fn numbers(waiting: &[Waiting]) -> Vec<u32> {
    waiting.iter().map(|waiting| waiting.epoch).collect()
}

impl FragmentTable {
    /// Nothing is in one index and not in the other, and no bound is exceeded.
    fn assert_consistent(&self) {
        let state = self.state.lock();
        assert_eq!(state.known.len(), state.ages.len());
        assert!(state.known.len() <= self.limit);
        assert_eq!(state.held.len(), self.waiting());
        assert!(state.held.len() <= Self::HELD_PACKETS);
        assert!(state.bytes <= Self::HELD_BYTES);
        let bytes: usize = state.held.values().map(|(_, waiting)| memory(waiting)).sum();
        assert_eq!(state.bytes, bytes);
        assert_eq!(state.queues.values().map(Vec::len).sum::<usize>(), state.held.len());
        for (id, queue) in &state.queues {
            assert!((1..=Self::HELD_PER_PACKET).contains(&queue.len()));
            assert!(queue.iter().all(|age| state.held[age].0 == *id));
        }
    }
}

#[test]
fn later_fragments_find_their_flow_for_a_while() {
    let table = FragmentTable::default();
    let start = start();
    assert!(table.first(id(1), flow(1), start).is_empty());
    assert_eq!(table.later(&id(1), start), Some(flow(1)));
    assert_eq!(table.later(&id(2), start), None);
    assert_eq!(table.later(&id(1), start + FragmentTable::TIMEOUT), None);
}

#[test]
fn a_flood_pushes_out_the_oldest_only() {
    let table = FragmentTable::new(3);
    let start = start();
    for n in 0..5 {
        let now = start + Duration::from_millis(n.into());
        assert!(table.first(id(n), flow(n as u16), now).is_empty());
    }
    let now = start + Duration::from_millis(5);
    let known: Vec<_> = (0..5).filter(|&n| table.later(&id(n), now).is_some()).collect();
    assert_eq!(known, [2, 3, 4]);
    assert_eq!(table.hostile(), HostileTotals { evicted: 2, ..HostileTotals::default() });
}

#[test]
fn a_reused_identification_belongs_to_the_younger_packet() {
    let table = FragmentTable::new(2);
    let (start, second) = (start(), Duration::from_secs(1));
    let _ = table.first(id(1), flow(1), start);
    let _ = table.first(id(1), flow(1), start);
    assert_eq!(table.hostile().reused, 0, "its owner saw it, too");
    let _ = table.first(id(1), flow(2), start + second);
    assert_eq!(table.hostile().reused, 1);
    let _ = table.first(id(2), flow(3), start + second * 2);
    assert_eq!(table.later(&id(1), start + second * 2), Some(flow(2)));
    let _ = table.first(id(1), flow(4), start + second + FragmentTable::TIMEOUT);
    assert_eq!(table.hostile().reused, 1, "it had become free");
}

#[test]
fn what_comes_before_its_first_waits_for_it() {
    let table = FragmentTable::default();
    let start = start();
    assert_eq!((table.waiting(), table.poll_timeout()), (0, None));
    for (number, packet) in [(0, 1), (1, 2), (2, 1)] {
        table.hold(id(packet), waiting(number, 100), start).unwrap();
    }
    assert_eq!(table.waiting(), 3);
    assert_eq!(numbers(&table.first(id(1), flow(1), start)), [0, 2]);
    assert_eq!(table.waiting(), 1);

    let refused = table.hold(id(1), waiting(3, 100), start).unwrap_err();
    assert_eq!(refused, waiting(3, 100), "the first came in between");
    assert_eq!(table.later(&id(1), start), Some(flow(1)));
    assert_eq!(table.hostile(), HostileTotals::default());
}

#[test]
fn who_waits_for_too_long_is_given_back() {
    let table = FragmentTable::default();
    let (start, moment) = (start(), Duration::from_millis(10));
    for number in 0..3 {
        let now = start + moment * number;
        table.hold(id(number % 2), waiting(number, 100), now).unwrap();
    }
    let due = table.poll_timeout().unwrap();
    assert_eq!(due, start + FragmentTable::HOLD);
    assert!(table.expire(due.checked_sub(Duration::from_nanos(1)).unwrap()).is_empty());
    assert_eq!(numbers(&table.expire(due)), [0]);
    assert_eq!(table.poll_timeout(), Some(due + moment));
    assert_eq!(numbers(&table.expire(due + moment * 2)), [1, 2]);
    assert_eq!((table.waiting(), table.poll_timeout()), (0, None));
    assert!(table.first(id(0), flow(0), due).is_empty());
    table.assert_consistent();
}

#[test]
fn there_is_only_so_much_room() {
    let start = start();
    let held = |packets_per_id: u64, len: usize| {
        let table = FragmentTable::default();
        let fits = |number: &u64| {
            let id = id((number / packets_per_id) as u32);
            table.hold(id, waiting(*number as u32, len), start).is_ok()
        };
        let held = (0..1000).filter(fits).count();
        table.assert_consistent();
        assert_eq!(table.hostile().no_room as usize, 1000 - held);
        held
    };
    assert_eq!(held(1, 100), FragmentTable::HELD_PACKETS);
    assert_eq!(held(1000, 100), FragmentTable::HELD_PER_PACKET);
    let len = 9000;
    assert_eq!(held(1, len), FragmentTable::HELD_BYTES / (len + geneve::buffer::HEADROOM));
}

#[test]
fn attacks_are_noticed() {
    let table = FragmentTable::default();
    let of = |packet: &[u8]| Inner::parse(packet).unwrap();
    let tcp = |offset: u16, more: bool, len: usize| {
        let mut packet = ack(CLIENT, SERVER, (1, 80), &vec![0; 60_000]);
        packet.truncate(20 + len);
        packet[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        packet
    };
    for honest in [tcp(0, true, 24), tcp(2, false, 8), tcp(0, false, 60_000), {
        let mut packet = udp(CLIENT, SERVER, (1, 2), &[0; 8]);
        packet[7] = 1;
        packet
    }] {
        table.notice(&of(&honest));
        assert!(!table.refuses(&of(&honest)));
    }
    assert_eq!(table.hostile(), HostileTotals::default());

    table.notice(&of(&tcp(1, true, 8)));
    table.notice(&of(&tcp(0, true, 16)));
    table.notice(&of(&tcp(0, true, 0)));
    assert!(!table.refuses(&of(&tcp(8189, false, 3))), "65,535 bytes in all");
    assert!(table.refuses(&of(&tcp(8189, false, 4))));
    assert!(table.refuses(&of(&tcp(8189, true, 8))));
    let expected = HostileTotals {
        tcp_offset_one: 1,
        tcp_tiny_first: 2,
        too_long: 2,
        ..HostileTotals::default()
    };
    assert_eq!(table.hostile(), expected);
}

#[test]
fn the_payload_of_ipv6_is_measured_without_its_header() {
    let fragment = |offset: u16, len: usize| {
        let mut packet = vec![0; 40 + 8 + 8 + len];
        (packet[0], packet[6], packet[40]) = (0x60, 60, 44);
        packet[4..6].copy_from_slice(&(16 + len as u16).to_be_bytes());
        packet[48] = protocol::UDP;
        packet[50..52].copy_from_slice(&(offset << 3).to_be_bytes());
        Inner::parse(&packet).unwrap()
    };
    // Eight bytes of destination options count.
    let table = FragmentTable::default();
    assert!(!table.refuses(&fragment(8190, 65_535 - 8 - 8190 * 8)));
    assert!(table.refuses(&fragment(8190, 65_536 - 8 - 8190 * 8)));
}

#[test]
fn a_flood_costs_bounded_memory_and_time() {
    let table = FragmentTable::new(64);
    let mut now = start();
    let mut given_back = 0;
    for n in 0..20_000 {
        now += Duration::from_micros(50);
        given_back += table.first(id(n), flow(1), now).len();
        given_back += usize::from(table.hold(id(n + 1_000_000), waiting(0, 1500), now).is_err());
        given_back += table.expire(now).len();
        if n % 100 == 0 {
            table.assert_consistent();
            assert!(table.state.lock().known.capacity() <= 256);
            assert!(table.state.lock().queues.capacity() <= 2 * FragmentTable::HELD_PACKETS);
        }
    }
    given_back += table.expire(now + FragmentTable::HOLD).len();
    assert_eq!(given_back, 20_000, "each is given back once");
    assert_eq!(table.hostile().evicted, 20_000 - 64);
    table.assert_consistent();

    // After it, each call forgets a few of what is left.
    let calm = now + FragmentTable::TIMEOUT;
    for n in 0..30 {
        let before = table.state.lock().known.len();
        let _ = table.first(id(n), flow(1), calm);
        let after = table.state.lock().known.len();
        assert!(before.saturating_sub(after) < FragmentTable::SWEEP);
    }
    assert_eq!(table.state.lock().known.len(), 30);
}

#[derive(Debug, Clone)]
enum Step {
    First(u32, u16),
    Later(u32),
    Hold(u32, usize),
    Expire,
}

fn step() -> impl Strategy<Value = (Step, u64)> {
    let step = prop_oneof![
        (0..12_u32, 0..3_u16).prop_map(|(id, port)| Step::First(id, port)),
        (0..12_u32).prop_map(Step::Later),
        (0..12_u32, 0..4_usize).prop_map(|(id, kilobytes)| Step::Hold(id, kilobytes * 20_000)),
        Just(Step::Expire),
    ];
    (step, prop_oneof![3 => 0..300_u64, 1 => 0..40_000_u64])
}

proptest! {
    /// Against the obvious twin: lists that are gone through from the start.
    #[test]
    fn behaves_like_lists(steps in prop::collection::vec(step(), 1..200)) {
        // More than one call sweeps.
        const LIMIT: usize = 8;
        let table = FragmentTable::new(LIMIT);
        let mut now = start();
        let mut known: Vec<(u32, u16, Instant)> = Vec::new();
        let mut held: Vec<(u32, u32, usize, Instant)> = Vec::new();
        let mut expected = HostileTotals::default();
        for (number, (step, milliseconds)) in steps.into_iter().enumerate() {
            now += Duration::from_millis(milliseconds);
            let fresh = |seen: Instant| seen + FragmentTable::TIMEOUT > now;
            let flow_of = |known: &[(u32, u16, Instant)], id| {
                known.iter().find(|one| one.0 == id && fresh(one.2)).map(|one| flow(one.1))
            };
            match step {
                Step::First(packet, port) => {
                    let waited: Vec<_> =
                        held.iter().filter(|one| one.0 == packet).map(|one| one.1).collect();
                    held.retain(|one| one.0 != packet);
                    let reused = known.iter().any(|one| one.0 == packet && one.1 != port && fresh(one.2));
                    expected.reused += u64::from(reused);
                    known.retain(|one| one.0 != packet && fresh(one.2));
                    known.push((packet, port, now));
                    if known.len() > LIMIT {
                        known.remove(0);
                        expected.evicted += 1;
                    }
                    let ready = table.first(id(packet), flow(port), now);
                    prop_assert_eq!(numbers(&ready), waited);
                }
                Step::Later(packet) => {
                    prop_assert_eq!(table.later(&id(packet), now), flow_of(&known, packet));
                }
                Step::Hold(packet, len) => {
                    let bytes = len + geneve::buffer::HEADROOM;
                    let all: usize = held.iter().map(|one| one.2).sum();
                    let same = held.iter().filter(|one| one.0 == packet).count();
                    let known = flow_of(&known, packet).is_some();
                    let room = held.len() < FragmentTable::HELD_PACKETS
                        && same < FragmentTable::HELD_PER_PACKET
                        && all + bytes <= FragmentTable::HELD_BYTES;
                    let waiting = waiting(number as u32, len);
                    let kept = table.hold(id(packet), waiting, now);
                    prop_assert_eq!(kept.is_ok(), room && !known);
                    expected.no_room += u64::from(!room && !known);
                    if kept.is_ok() {
                        held.push((packet, number as u32, bytes, now));
                    }
                }
                Step::Expire => {
                    let over: Vec<_> = held
                        .iter()
                        .filter(|one| one.3 + FragmentTable::HOLD <= now)
                        .map(|one| one.1)
                        .collect();
                    held.retain(|one| one.3 + FragmentTable::HOLD > now);
                    prop_assert_eq!(numbers(&table.expire(now)), over);
                }
            }
            let next = held.first().map(|one| one.3 + FragmentTable::HOLD);
            prop_assert_eq!(table.poll_timeout(), next);
            prop_assert_eq!(table.waiting(), held.len());
            prop_assert_eq!(table.hostile(), expected);
            table.assert_consistent();
        }
    }
}
