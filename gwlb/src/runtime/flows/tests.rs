use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use geneve::flow::FlowKey;
use geneve::inner::TcpFlags;
use netio::mem::Commit;

use super::*;
use crate::dataplane::IngressConfig;
use crate::dataplane::filter::FlowFilter;
use crate::dataplane::flow_table::record::{Placed, Seen};
use crate::dataplane::flow_table::{FlowId, Inspector, Placement};
use crate::dataplane::snapshot::{Snapshot, TargetSlot};
use crate::runtime::clock;
use crate::runtime::exchange::Inbox;
use crate::runtime::shared::tests::idle;
use crate::runtime::shared::{INBOX, Published};

const IDLE: Duration = Duration::from_secs(350);

/// A worker's half of the data plane with so many flows, which began one after the other; the nth
/// has had n packets.
fn ingress(view: &Arc<Snapshot>, worker: u16, flows: u32, now: Instant) -> Ingress {
    let config = IngressConfig {
        worker: WorkerId(worker),
        max_flows: flows as usize,
        commit: Commit::Lazily,
        records: true,
        log: None,
        fragments: Arc::default(),
        stats: Arc::default(),
    };
    let mut ingress = Ingress::new(config, Arc::clone(view), now).unwrap();
    let table = ingress.flows_mut();
    let placement = Placement { inspector: Inspector::Target(TargetSlot(0)), port: 0 };
    for n in 0..flows {
        let [_, a, b, c] = n.to_be_bytes();
        let from = SocketAddr::from(([10, a, b, c], 1000 + worker));
        let to = SocketAddr::from(([192, 0, 2, 1], 443));
        let tuple = FlowKey::new(from, to, 6).unwrap().canonical();
        let id = FlowId { endpoint: view.endpoints[0].wire_id, tuple };
        let hash = table.hash(&id);
        let flow = Flow { id, placement, tcp: None, deadline: now + IDLE };
        let (number, _) = table.insert(flow, IDLE, hash).unwrap();
        table.begin_record(number, Placed::New, Some(0), now + Duration::from_millis(n.into()));
        let seen = Seen { end: 0, segments: n, bytes: 0, flags: TcpFlags::default() };
        table.note(number, &seen, now);
    }
    ingress
}

fn search(matcher: FlowMatcher, kept: Kept) -> (Search, oneshot::Receiver<Answer>) {
    let (tell, answer) = oneshot::channel();
    let worker = WorkerId(0);
    (Search { worker, matcher, kept, matched: 0, next: 0, answer: Some(tell) }, answer)
}

/// A million flows hold up no packet for longer than it takes to look at some hundred of them.
#[test]
fn a_step_is_short_however_many_flows_there_are() {
    const FLOWS: u32 = 1_000_000;
    let view = Arc::clone(&idle().exchange.published.load_full().snapshot);
    let now = clock::now();
    let ingress = ingress(&view, 0, FLOWS, now);
    let by = (SortKey::Packets, Direction::Largest);
    let kept = Kept::Best(BinaryHeap::with_capacity(100), 100, by);
    let (mut question, mut answer) = search(FlowMatcher::default(), kept);
    let (mut steps, mut before) = (1, 0);
    let begun = clock::now();
    while question.serve(&ingress, now) == Served::Partly {
        assert!(question.matched - before <= STEP as u64, "one step looks at so many");
        before = question.matched;
        steps += 1;
    }
    let each = begun.elapsed() / steps;
    println!("{steps} steps of {each:?} each");
    assert_eq!(steps as usize, (FLOWS as usize).div_ceil(STEP));
    let mut answer = answer.try_recv().unwrap();
    assert_eq!((answer.matched, answer.flows.len()), (FLOWS.into(), 100));
    answer.ranks.sort_unstable();
    let most: Vec<_> = answer.ranks.iter().map(|(packets, _)| *packets).collect();
    assert_eq!(most, (u64::from(FLOWS) - 100..u64::from(FLOWS)).collect::<Vec<_>>());
}

#[test]
fn nobody_answers_who_is_gone() {
    let view = Arc::clone(&idle().exchange.published.load_full().snapshot);
    let now = clock::now();
    let ingress = ingress(&view, 0, 2000, now);
    let (mut question, answer) =
        search(FlowMatcher::default(), Kept::First(Vec::with_capacity(9000), 9000));
    assert_eq!(question.serve(&ingress, now), Served::Partly);
    drop(answer);
    assert_eq!(question.serve(&ingress, now), Served::Entirely);
}

/// What two workers answer while `ask` asks, each step by step.
fn asked<T>(flows: [u32; 2], ask: impl AsyncFnOnce(&Shared, Instant) -> T) -> T {
    let idle = idle();
    let snapshot = Arc::clone(&idle.exchange.published.load_full().snapshot);
    let inboxes = (0..2).map(|_| Inbox::new(INBOX).unwrap()).collect();
    let published = Published { snapshot: Arc::clone(&snapshot), rig: Arc::default() };
    let shared = Shared::new(idle.settings.load_full(), published, Vec::new(), inboxes);
    let now = clock::now();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (worker, flows) in flows.into_iter().enumerate() {
            let (shared, view, done) = (&shared, &snapshot, &done);
            scope.spawn(move || {
                let ingress = ingress(view, worker as u16, flows, now);
                let mut questions = crate::runtime::inquiry::Inquiries::default();
                while !done.load(Ordering::Relaxed) {
                    questions.take_up(|| shared.exchange.inboxes[worker].asked());
                    questions.serve(&ingress, now + Duration::from_secs(100));
                    std::thread::yield_now();
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(ask(&shared, now));
        done.store(true, Ordering::Relaxed);
        answer
    })
}

#[test]
fn pages_have_every_flow_once() {
    let pages = asked([1300, 700], async |shared, _| {
        let (mut all, mut from, mut pages) = (Vec::new(), Some(Cursor::default()), 0);
        while let Some(cursor) = from {
            let (matcher, order) = (FlowMatcher::default(), Order::Table(cursor));
            let query = FlowQuery { matcher, order, limit: 300 };
            let found = shared.find_flows(query).await.unwrap();
            assert!(found.flows.len() <= 300 && found.matched.is_none());
            all.extend(found.flows.iter().map(|flow| (flow.worker.0, flow.number)));
            from = found.next;
            pages += 1;
        }
        assert_eq!(pages, 7);
        all
    });
    let expected = (0..1300).map(|n| (0, n)).chain((0..700).map(|n| (1, n)));
    assert_eq!(pages, expected.collect::<Vec<_>>());
}

#[test]
fn orders_are_those_of_all_workers() {
    asked([900, 400], async |shared, now| {
        let ask = async |key, direction, parts: &[(&str, &str)], limit| {
            let mut filter = FlowFilter::default();
            for (part, value) in parts {
                filter.set(part, value).unwrap();
            }
            let matcher = filter.bind(&shared.exchange.published.load_full().snapshot).unwrap();
            let query = FlowQuery { matcher, order: Order::By(key, direction), limit };
            shared.find_flows(query).await.unwrap()
        };
        let numbers = |found: &FoundFlows| -> Vec<_> {
            found.flows.iter().map(|flow| (flow.worker.0, flow.number)).collect()
        };
        let most = ask(SortKey::Packets, Direction::Largest, &[], 3).await;
        assert_eq!(numbers(&most), [(0, 899), (0, 898), (0, 897)]);
        assert_eq!((most.matched, most.next), (Some(1300), None));
        let least = ask(SortKey::Packets, Direction::Smallest, &[], 4).await;
        assert_eq!(numbers(&least), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        let oldest = ask(SortKey::Age, Direction::Largest, &[("port", "1001")], 2).await;
        assert_eq!(numbers(&oldest), [(1, 0), (1, 1)]);
        let age = oldest.flows[0].age(now + Duration::from_secs(100)).unwrap();
        assert!((99.9..=100.1).contains(&age.as_secs_f64()), "{age:?}");
        let none = ask(SortKey::Idle, Direction::Largest, &[("port", "80")], 10).await;
        assert_eq!((none.flows.len(), none.matched), (0, Some(0)));
        assert_eq!(shared.count_flows(&FlowMatcher::default()).await, Ok(1300));
        let one = FlowFilter { port: Some(1001), ..FlowFilter::default() };
        let one = one.bind(&shared.exchange.published.load_full().snapshot).unwrap();
        assert_eq!(shared.count_flows(&one).await, Ok(400));
    });
}
