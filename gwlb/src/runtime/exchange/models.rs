//! Every order in which the threads of a gateway can run, as far as they meet here.
//!
//! A worker is its loop and nothing else: it waits until it is woken, looks, takes up what is
//! published, empties its inbox, and asks whether to end, in the order of `Worker::run`. Whoever
//! waits for ever is found by the model checker: a wake-up that is lost is a deadlock.
#![expect(clippy::unwrap_used, reason = "a model that panics has found something")]

use loom::thread;

use super::*;
use crate::dataplane::stats::Totals;
use crate::dataplane::verdict::DropReason;

/// A packet is its number; a view is its generation.
type Model = Exchange<u64, u64>;

/// Goes through all orders in which each thread is interrupted at most so often where it would not
/// have had to wait. Each further interruption multiplies the orders. `model` notes the cases that
/// it has come to, and all `cases` of them have to be among the orders: a model that never comes to
/// what it is about finds nothing.
fn check(interruptions: usize, cases: usize, model: impl Fn(&Cases) + Send + Sync + 'static) {
    let reached = Arc::new(Cases::default());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check({
        let reached = Arc::clone(&reached);
        move || model(&reached)
    });
    let reached = reached.0.lock().unwrap();
    assert_eq!(reached.len(), cases, "{reached:?}");
}

/// The cases that a model has come to, over all orders.
#[derive(Default)]
struct Cases(std::sync::Mutex<std::collections::BTreeSet<String>>);

impl Cases {
    fn note(&self, case: impl std::fmt::Debug) {
        self.0.lock().unwrap().insert(format!("{case:?}"));
    }
}

struct Gateway {
    exchange: Model,
    stats: Vec<Arc<WorkerStats>>,
}

impl Gateway {
    fn new(workers: usize, capacity: usize) -> Arc<Self> {
        let inboxes = (0..workers).map(|_| Inbox::new(capacity).unwrap()).collect();
        let stats = (0..workers).map(|_| Arc::default()).collect();
        Arc::new(Self { exchange: Exchange::new(1, inboxes), stats })
    }

    /// As `Exit::hand_over`.
    fn hand_over(&self, from: usize, to: usize, packet: u64) {
        let ledger = &self.stats[from].tun;
        ledger.flow.received.add(1);
        if self.exchange.inboxes[to].give(packet, &ledger.flow, 1).is_err() {
            ledger.drops.add(DropReason::HandoverFull, 1);
        }
    }

    /// As `Worker::run`, until `is_over` says that it has what it waits for, or the gateway drains.
    /// Returns the packets that it took.
    fn work(&self, worker: usize, is_over: impl Fn(u64, &[u64]) -> bool) -> Vec<u64> {
        let (inbox, stats) = (&self.exchange.inboxes[worker], &self.stats[worker]);
        let mut lookout = self.exchange.lookout(worker);
        let mut held = 0;
        let mut taken = Vec::new();
        while !is_over(held, &taken) && !self.exchange.is_draining() {
            inbox.waker.wait();
            let latest = **lookout.look(true);
            if latest != held {
                assert!(latest > held, "time goes on");
                held = latest;
                stats.generation.announce(held);
            }
            while let Some(packet) = inbox.take() {
                self.count_taken(worker, &mut taken, packet);
            }
        }
        taken
    }

    fn count_taken(&self, worker: usize, taken: &mut Vec<u64>, packet: u64) {
        let ledger = &self.stats[worker].tun;
        ledger.flow.taken_over.add(1);
        ledger.flow.delivered.add(1);
        taken.push(packet);
    }

    /// As `Shared::empty_inboxes`.
    fn empty_inboxes(&self) -> Vec<u64> {
        let mut left = Vec::new();
        for (inbox, stats) in self.exchange.inboxes.iter().zip(&self.stats) {
            while let Some(packet) = inbox.take() {
                stats.tun.flow.taken_over.add(1);
                stats.tun.drops.add(DropReason::GatewayStopping, 1);
                left.push(packet);
            }
        }
        left
    }

    fn totals(&self) -> Totals {
        Totals::of(self.stats.iter().map(|stats| &**stats))
    }
}

fn spawn<T: 'static>(
    gateway: &Arc<Gateway>,
    work: impl FnOnce(&Gateway) -> T + 'static,
) -> thread::JoinHandle<T> {
    let gateway = Arc::clone(gateway);
    thread::spawn(move || work(&gateway))
}

/// Two workers hand packets to a third, which has room for both: each is taken once, and the owner
/// is woken for each.
#[test]
fn loom_what_is_handed_over_is_taken_once() {
    check(2, 2, |cases| {
        let gateway = Gateway::new(3, 2);
        let owner = spawn(&gateway, |gateway| gateway.work(0, |_, taken| taken.len() == 2));
        let giver = spawn(&gateway, |gateway| gateway.hand_over(1, 0, 10));
        gateway.hand_over(2, 0, 20);
        let mut taken = owner.join().unwrap();
        giver.join().unwrap();
        cases.note(&taken);
        taken.sort_unstable();
        assert_eq!(taken, [10, 20]);
        let totals = gateway.totals();
        assert_eq!(totals.tun.balance(), (2, 2));
        assert_eq!((totals.tun.queued(), totals.tun.flow.delivered), (0, 2));
    });
}

/// Two workers hand packets to a third that has room for one, while the gateway stops: every packet
/// is taken, refused, or found at the end, and counted once; and the third ends.
#[test]
fn loom_nothing_is_lost_or_counted_twice_when_the_gateway_stops() {
    check(2, 4, |cases| {
        let gateway = Gateway::new(3, 1);
        let owner = spawn(&gateway, |gateway| gateway.work(0, |_, _| false));
        let giver = spawn(&gateway, |gateway| gateway.hand_over(1, 0, 10));
        gateway.hand_over(2, 0, 20);
        gateway.exchange.drain();
        let mut seen = owner.join().unwrap();
        giver.join().unwrap();
        let taken = seen.len();
        seen.extend(gateway.empty_inboxes());
        cases.note((taken, seen.len()));
        let totals = gateway.totals();
        assert_eq!(totals.tun.balance(), (2, 2));
        assert_eq!(totals.tun.queued(), 0);
        let refused = totals.tun.drops.get("handover_full").copied().unwrap_or(0);
        assert_eq!(seen.len() as u64 + refused, 2);
        seen.dedup();
        assert_eq!(seen.len() as u64 + refused, 2, "taken twice");
    });
}

/// A worker that is woken for a packet while a view is published takes up that view, though nothing
/// comes after it.
#[test]
fn loom_a_view_is_taken_up_by_a_worker_that_is_just_woken() {
    check(2, 2, |cases| {
        let gateway = Gateway::new(2, 1);
        let worker = spawn(&gateway, |gateway| gateway.work(0, |held, _| held == 2));
        let giver = spawn(&gateway, |gateway| gateway.hand_over(1, 0, 10));
        gateway.exchange.publish(2);
        let taken = worker.join().unwrap();
        giver.join().unwrap();
        cases.note(taken);
        assert_eq!(gateway.stats[0].generation.get(), 2);
    });
}

/// A worker hears that the gateway stops, whatever was published before, and whatever of that it
/// has taken up.
#[test]
fn loom_a_stop_is_heard() {
    check(2, 3, |cases| {
        let gateway = Gateway::new(1, 1);
        let worker = spawn(&gateway, |gateway| gateway.work(0, |_, _| false));
        gateway.exchange.publish(2);
        gateway.exchange.publish(3);
        gateway.exchange.drain();
        worker.join().unwrap();
        cases.note(gateway.stats[0].generation.get());
    });
}

/// A generation is acknowledged only when every worker holds it or a later one, and who sees that
/// sees all flows that the workers placed by earlier ones: so a target that has none by then has
/// none.
#[test]
fn loom_an_acknowledged_generation_is_held_by_all() {
    check(3, 3, |cases| {
        let gateway = Gateway::new(2, 1);
        let worker = spawn(&gateway, |gateway| {
            let stats = &gateway.stats[0];
            let mut lookout = gateway.exchange.lookout(0);
            // Once before and once after something may have been published.
            for _ in 0..2 {
                let latest = **lookout.look(false);
                if latest != stats.generation.get() {
                    stats.generation.announce(latest);
                }
                // Flows go to the target as long as the view has it.
                if latest == 1 {
                    stats.flows.created.add(1);
                }
            }
        });
        gateway.exchange.publish(2);
        // The other worker holds it at once.
        gateway.stats[1].generation.announce(2);
        let placed = || gateway.totals().flows.created;
        let acknowledged = acknowledged(&gateway.stats);
        let then = placed();
        worker.join().unwrap();
        cases.note(acknowledged);
        assert!(acknowledged <= 2);
        if acknowledged == 2 {
            assert_eq!(then, placed(), "a flow was placed, or seen, after that");
        }
    });
}

/// A counter has one writer and any number of readers: no reader sees it go back, and at rest it is
/// what was added.
#[test]
fn loom_counters_never_go_backwards() {
    check(2, 1, |cases| {
        let gateway = Gateway::new(2, 1);
        let count = |worker: usize| {
            move |gateway: &Gateway| {
                for _ in 0..2 {
                    gateway.stats[worker].tun.flow.received.add(1);
                    gateway.stats[worker].tun.flow.delivered.add(1);
                }
            }
        };
        let workers = [spawn(&gateway, count(0)), spawn(&gateway, count(1))];
        let sums = || {
            let of = |counter: fn(&WorkerStats) -> u64| -> u64 {
                gateway.stats.iter().map(|stats| counter(stats)).sum()
            };
            (of(|stats| stats.tun.flow.received.get()), of(|stats| stats.tun.flow.delivered.get()))
        };
        let (first, second) = (sums(), sums());
        cases.note((first, second));
        assert!(first.0 <= second.0 && first.1 <= second.1, "{first:?} {second:?}");
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(sums(), (4, 4));
        assert_eq!(gateway.totals().tun.balance(), (4, 4));
    });
}
