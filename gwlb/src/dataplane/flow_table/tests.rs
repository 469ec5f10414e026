use std::net::SocketAddr;

use geneve::flow::FlowKey;
use proptest::prelude::*;

use super::super::keys::{Keys, Secret};
use super::super::testing::start;
use super::*;

const IDLE: Duration = Duration::from_secs(350);

fn id(n: u16) -> FlowId {
    let src = SocketAddr::from(([10, 0, 0, 1], n));
    let tuple = FlowKey::new(src, SocketAddr::from(([192, 0, 2, 1], 80)), 6).unwrap().canonical();
    FlowId { endpoint: 7, tuple }
}

fn placement(n: u32) -> Placement {
    Placement { inspector: Inspector::Target(TargetSlot(n)), port: 0 }
}

fn table_of(limit: usize, now: Instant) -> FlowTable {
    let key = Keys::derive(&Secret::from_bytes([5; Secret::LEN]), 0).tables;
    FlowTable::new(limit, key, Commit::Lazily, now).unwrap()
}

fn put(
    table: &mut FlowTable,
    n: u16,
    target: u32,
    idle_timeout: Duration,
    now: Instant,
) -> Result<(FlowNumber, Option<Flow>), Full> {
    let deadline = now + idle_timeout;
    let flow = Flow { id: id(n), placement: placement(target), tcp: None, deadline };
    let hash = table.hash(&id(n));
    let (number, gone) = table.insert(flow, idle_timeout, hash)?;
    Ok((number, gone.map(|gone| gone.flow)))
}

fn find(table: &mut FlowTable, n: u16, now: Instant) -> Option<FlowNumber> {
    let hash = table.hash(&id(n));
    table.find(&id(n), hash, now)
}

fn expire(table: &mut FlowTable, now: Instant) -> Vec<FlowId> {
    let mut expired = Vec::new();
    table.handle_timeout(now, |gone, _| expired.push(gone.flow.id));
    expired
}

/// Where a flow goes, if it is there; and it was seen.
fn seen(table: &mut FlowTable, n: u16, timeout: Duration, now: Instant) -> Option<Placement> {
    let number = find(table, n, now)?;
    table.touch(number, None, timeout, now);
    Some(table.get(number).placement)
}

#[test]
fn idleness_is_exact() {
    let start = start();
    let mut table = table_of(10, start);
    put(&mut table, 1, 1, IDLE, start).unwrap();
    let just_before = start + Duration::from_nanos(349_999_999_999);
    assert_eq!(seen(&mut table, 1, IDLE, just_before), Some(placement(1)));
    assert_eq!(seen(&mut table, 1, IDLE, just_before + IDLE), None, "the timeout has passed");
    assert_eq!(seen(&mut table, 2, IDLE, start), None);
}

#[test]
fn full_is_an_answer_and_expiry_makes_room() {
    let start = start();
    let mut table = table_of(2, start);
    put(&mut table, 1, 1, IDLE, start).unwrap();
    put(&mut table, 2, 2, IDLE * 2, start).unwrap();
    assert_eq!(put(&mut table, 3, 3, IDLE, start).unwrap_err(), Full);
    put(&mut table, 1, 4, IDLE, start).unwrap();

    let later = start + IDLE + Duration::from_secs(2);
    assert_eq!(expire(&mut table, later), [id(1)]);
    assert_eq!(table.len(), 1);
    put(&mut table, 3, 3, IDLE, later).unwrap();
    assert_eq!(seen(&mut table, 2, IDLE, later), Some(placement(2)));
}

#[test]
fn a_shorter_time_is_kept_to() {
    let start = start();
    let mut table = table_of(2, start);
    let (number, _) = put(&mut table, 1, 1, IDLE, start).unwrap();
    table.touch(number, Some(TcpState::CLOSED), Duration::from_secs(10), start);
    assert_eq!(expire(&mut table, start + Duration::from_secs(9)), []);
    assert_eq!(expire(&mut table, start + Duration::from_secs(12)), [id(1)]);
    // The timer that lapsed does not hit whoever has the number now.
    let now = start + Duration::from_secs(100);
    put(&mut table, 2, 2, IDLE, now).unwrap();
    assert_eq!(expire(&mut table, start + IDLE + Duration::from_secs(2)), []);
    assert_eq!(expire(&mut table, now + IDLE + Duration::from_secs(2)), [id(2)]);
    assert!(table.is_empty());
}

#[test]
fn whoever_comes_after_is_forgotten_at_its_own_time() {
    let start = start();
    let mut table = table_of(1, start);
    put(&mut table, 1, 1, IDLE, start).unwrap();
    let (_, before) = put(&mut table, 1, 2, Duration::from_secs(10), start).unwrap();
    assert_eq!(before.unwrap().placement, placement(1));
    assert_eq!(expire(&mut table, start + Duration::from_secs(9)), []);
    assert_eq!(expire(&mut table, start + Duration::from_secs(12)), [id(1)]);
}

#[test]
fn ends_are_kept_where_they_are_wanted_and_not_passed_on() {
    let start = start();
    let mut table = table_of(2, start);
    let (number, _) = put(&mut table, 1, 1, IDLE, start).unwrap();
    table.keep_ends(true);
    assert_eq!(table.ends(number), Ends::default());
    table.note_end(number, 1, LastWord::Ack(77));
    assert_eq!(table.ends(number), Ends([None, Some(LastWord::Ack(77))]));
    table.remove(number);
    let (number, _) = put(&mut table, 2, 1, IDLE, start).unwrap();
    assert_eq!(table.ends(number), Ends::default(), "of another flow");
    table.note_end(number, 0, LastWord::Syn(1));
    table.keep_ends(false);
    assert_eq!(table.ends(number), Ends::default());
}

#[test]
fn all_flows_are_found_piece_by_piece() {
    let start = start();
    let mut table = table_of(10, start);
    for n in 0..5 {
        put(&mut table, n, 1, IDLE, start).unwrap();
    }
    let third = find(&mut table, 2, start).unwrap();
    table.remove(third);
    let pieces = [0..2, 2..4, 4..900];
    let found = pieces.into_iter().flat_map(|piece| table.in_range(piece));
    let found: Vec<_> = found.map(|number| table.get(number).id).collect();
    assert_eq!(found, [id(0), id(1), id(3), id(4)]);
}

#[test]
fn a_cookie_is_kept_as_long_as_it_is_the_right_one() {
    let start = start();
    let mut table = table_of(10_000, start);
    let numbers: Vec<_> =
        (0..5_000).map(|n| put(&mut table, n, 1, IDLE, start).unwrap().0).collect();
    let [first, last] = [numbers[0], numbers[4_999]];
    let kept = |table: &FlowTable| [first, last].map(|number| table.cookie(number));
    assert_eq!(kept(&table), [None; 2]);
    table.keep_cookie(first, 17);
    table.keep_cookie(last, 18);
    assert_eq!(kept(&table), [Some(17), Some(18)]);
    table.place(first, placement(2));
    assert_eq!(kept(&table), [None, Some(18)], "the other target has another one");
    table.replace(last, table.get(last), IDLE);
    assert_eq!(kept(&table), [None; 2]);

    table.keep_cookie(last, 18);
    table.forget_cookies();
    assert_eq!(kept(&table), [None; 2]);
    table.keep_cookie(first, 19);
    assert_eq!(kept(&table), [None; 2], "what is kept now would be cleared, or mistaken for old");
    // Piece by piece, as often as it is asked for.
    let mut calls = 0;
    while table.poll_timeout().unwrap() <= start {
        table.handle_timeout(start, |_, _| panic!("none is over"));
        calls += 1;
        table.keep_cookie(first, 20);
    }
    assert!(calls > 3, "{calls} calls for 5,000 flows");
    assert_eq!(kept(&table), [Some(20), None]);
}

#[test]
fn the_longest_time_is_remembered() {
    let start = start();
    let mut table = table_of(2, start);
    let (number, _) = put(&mut table, 1, 1, Duration::from_mins(1), start).unwrap();
    let mut longest = |seconds| table.longest_idle(number, Duration::from_secs(seconds)).as_secs();
    assert_eq!([longest(5), longest(120), longest(60)], [60, 120, 120]);
    table.replace(number, table.get(number), Duration::from_secs(10));
    assert_eq!(table.longest_idle(number, Duration::from_secs(1)).as_secs(), 10);
}

#[test]
fn full_is_small() {
    let flows = 8_000_000;
    let bytes = table_of(flows, start()).bytes();
    assert!(bytes <= flows * 96, "{bytes} bytes for {flows} flows");
}

#[test]
fn nothing_to_wait_for_when_empty() {
    let start = start();
    let mut table = table_of(2, start);
    assert_eq!(table.poll_timeout(), None);
    put(&mut table, 1, 1, IDLE, start).unwrap();
    let mut now = start;
    while let Some(next) = table.poll_timeout() {
        assert!(next > now, "time goes on");
        now = next;
        expire(&mut table, now);
    }
    assert!(now >= start + IDLE && now <= start + IDLE + Duration::from_secs(2));
}

/// Every timeout up to two turns of the wheel, begun at and beside the turn of a tick, early and
/// when the wheel has turned: the flow is found to the last nanosecond, and is out of the table
/// at most one tick later, by calls that come when they are asked for and not sooner.
#[test]
fn every_timeout_is_kept_to() {
    let origin = start();
    let nanos = Duration::from_nanos;
    for turned in [0, 511, 512, 513, 100_000] {
        for beside in [nanos(0), nanos(1), nanos(999_999), nanos(1_000_000), nanos(999_999_999)] {
            for seconds in (0..=6).chain(506..=518).chain([350, 1_022, 1_023, 1_024, 1_025]) {
                for timeout in [nanos(0), nanos(1), nanos(500_000_000)] {
                    let timeout = Duration::from_secs(seconds) + timeout;
                    let mut table = table_of(2, origin);
                    let begun = origin + Duration::from_secs(turned) + beside;
                    // The wheel has come so far; nothing was in it.
                    table.handle_timeout(begun, |_, _| unreachable!());
                    put(&mut table, 1, 1, timeout, begun).unwrap();
                    let deadline = begun + timeout;
                    let mut found = |at| find(&mut table, 1, at).is_some();
                    assert!(!found(deadline) && found(begun) == (timeout > Duration::ZERO));
                    let before = deadline.checked_sub(nanos(1)).unwrap();
                    assert!(timeout.is_zero() || found(before));
                    let mut now = begun;
                    while let Some(next) = table.poll_timeout() {
                        assert!(next > now, "time goes on");
                        now = next;
                        table.handle_timeout(now, |gone, _| assert!(gone.flow.deadline <= now));
                    }
                    assert!(now >= deadline, "{turned} {beside:?} {timeout:?}");
                    assert!(
                        now <= deadline + Wheel::TICK,
                        "{turned} {beside:?} {timeout:?}: {:?} late",
                        now - deadline
                    );
                }
            }
        }
    }
}

proptest! {
    /// Against the obvious twin: a list of (id, last seen, timeout).
    #[test]
    fn behaves_like_a_list(
        steps in prop::collection::vec((0u16..6, 0u64..400, 1u64..700, any::<bool>()), 1..200),
    ) {
        let mut now = start();
        let mut table = table_of(100, now);
        let mut twin: Vec<(u16, Instant, u32, Duration)> = Vec::new();
        for (step, (n, seconds, timeout, sweep)) in steps.into_iter().enumerate() {
            now += Duration::from_secs(seconds);
            let timeout = Duration::from_secs(timeout);
            twin.retain(|&(_, seen, _, timeout)| seen + timeout > now);
            if sweep {
                table.handle_timeout(now, |Gone { flow, .. }, _| {
                    assert!(flow.deadline <= now, "not yet");
                });
            }
            let expected = twin.iter_mut().find(|entry| entry.0 == n).map(|entry| {
                (entry.1, entry.3) = (now, timeout);
                placement(entry.2)
            });
            prop_assert_eq!(seen(&mut table, n, timeout, now), expected);
            if expected.is_none() {
                let number = step as u32;
                let before = table.len();
                let (_, expired) = put(&mut table, n, number, timeout, now).unwrap();
                prop_assert_eq!(table.len() - before, usize::from(expired.is_none()));
                twin.push((n, now, number, timeout));
            }
            prop_assert!(table.len() >= twin.len());
        }
    }
}

/// A flow for which there is a vacancy begins as one that is inserted, and with its cookie.
#[test]
fn a_flow_begins_as_if_it_was_inserted() {
    let start = start();
    let [mut short, mut inserted] = [(); 2].map(|()| table_of(3, start));
    let now = start + Duration::from_millis(2_500);
    let begin = |table: &mut FlowTable, n: u16, target: u32, cookie| {
        let (FlowId { endpoint, tuple }, turn) = (id(n), table.at_turn(now));
        let vacancy = table.vacancy(&tuple, endpoint, table.hash(&id(n)));
        vacancy.map(|it| table.begin(it, placement(target), None, cookie, IDLE.into(), turn))
    };
    for n in 1..=3 {
        assert!(begin(&mut short, n, n.into(), 17).unwrap().is_ok());
        assert_eq!(begin(&mut short, n, 9, 18), None, "it is there");
        let (number, _) = put(&mut inserted, n, n.into(), IDLE, now).unwrap();
        inserted.keep_cookie(number, 17);
        let [one, other] = [&mut short, &mut inserted].map(|table| {
            let number = find(table, n, now).unwrap();
            (number, format!("{:?} {:?}", table.get(number), table.cookie(number)))
        });
        assert_eq!(one, other);
    }
    assert_eq!(begin(&mut short, 4, 4, 17), Some(Err(Full)));

    // One that has idled out is there until it is forgotten.
    let over = now + IDLE;
    assert_eq!(find(&mut short, 1, over), None);
    assert_eq!(begin(&mut short, 1, 1, 17), None);
    let [one, other] = [&mut short, &mut inserted].map(|table| {
        assert_eq!(expire(table, over).len(), 0, "a tick is a second");
        expire(table, over + Wheel::TICK)
    });
    assert_eq!((one.len(), &one), (3, &other));

    // While cookies are forgotten, one that is kept would be cleared, or mistaken for old.
    short.forget_cookies();
    assert!(begin(&mut short, 1, 1, 17).unwrap().is_ok());
    let number = find(&mut short, 1, now).unwrap();
    assert_eq!(short.cookie(number), None);
    expire(&mut short, now);
    assert_eq!(short.cookie(number), None);
}
