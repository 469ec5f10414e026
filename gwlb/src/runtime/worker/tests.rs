use std::io::IoSlice;

use geneve::buffer::PacketBuf;
use netio::offload::{Piece, Run};
use netio::udp::UdpConfig;

use super::*;
use crate::dataplane::snapshot::PoolId;
use crate::dataplane::verdict::{Course, Verdict};
use crate::runtime::exchange::Full;
use crate::runtime::inquiry::{INQUIRIES, Inquiry, Served, all_answer};
use crate::runtime::rig::Rig;
use crate::runtime::shared::{Inbox, tests::idle};
use crate::runtime::underlay::Buffers;

/// A worker that has one receiver on the loopback and nothing else.
fn worker() -> Worker {
    let Shared { settings, exchange, .. } = idle();
    let snapshot = Arc::clone(&exchange.published.load_full().snapshot);
    let rig = Rig { number: 1, underlays: vec![0], ..Rig::default() };
    let published = Published { snapshot, rig: Arc::new(rig) };
    let (inboxes, stats) = (vec![Inbox::new(INBOX).unwrap()], vec![Arc::default()]);
    let shared = Shared::new(settings.load_full(), published, stats, inboxes);
    let bind = "127.0.0.1:0".parse().unwrap();
    let config_udp = UdpConfig {
        bind,
        reuse_port: false,
        gro: true,
        dont_fragment: false,
        recv_buffer: 0,
        send_buffer: 0,
    };
    let underlay = Underlay {
        address: bind.ip(),
        receivers: vec![UdpSocket::bind(&config_udp).unwrap()],
        bad_checksums: Vec::new(),
        senders: Vec::new(),
        granted: Buffers { receive: 0, send: 0 },
    };
    let parts = Parts { rig: 1, ports: Vec::new(), underlays: vec![(0, underlay)] };
    shared.exchange.inboxes[0].parts.push(parts);
    let config = WorkerConfig {
        id: WorkerId(0),
        shared: Arc::new(shared),
        max_flows: 1,
        commit: Commit::Lazily,
        records: true,
        log: None,
        limits: Vec::new(),
        cpu: None,
        busy_poll: Duration::ZERO,
    };
    Worker::new(config).unwrap()
}

/// Counts to three, a step at a time.
struct Steps(std::sync::mpsc::Sender<usize>, usize);

impl Inquiry for Steps {
    fn serve(&mut self, ingress: &Ingress, _: Instant) -> Served {
        self.1 += 1;
        self.0.send(self.1 + ingress.flows().len()).unwrap();
        if self.1 == 3 { Served::Entirely } else { Served::Partly }
    }
}

#[test]
fn whoever_asks_is_answered_step_by_step_and_a_crowd_is_told_to_come_later() {
    let worker = worker();
    let shared = Arc::clone(&worker.shared);
    let (tell, answers) = std::sync::mpsc::channel();
    let ask = || shared.inquire(WorkerId(0), Box::new(Steps(tell.clone(), 0)));
    for _ in 0..INQUIRIES {
        ask().unwrap();
    }
    assert_eq!(ask(), Err(Full));
    assert_eq!(shared.inquire(WorkerId(1), Box::new(Steps(tell.clone(), 0))), Err(Full));
    let thread = std::thread::spawn(|| worker.run());
    let all: Vec<_> = (0..3 * INQUIRIES)
        .map(|_| answers.recv_timeout(Duration::from_secs(10)).unwrap())
        .collect();
    // All have their turns.
    let turn = |step: usize| vec![step; INQUIRIES];
    assert_eq!(all, [turn(1), turn(2), turn(3)].concat());
    ask().unwrap();
    assert_eq!(answers.recv_timeout(Duration::from_secs(10)), Ok(1));
    shared.drain();
    thread.join().unwrap();
    // Nobody is left who could answer: who asked hears that its question is gone.
    ask().unwrap();
    shared.empty_inboxes();
    drop(tell);
    assert_eq!(answers.iter().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn whether_all_workers_are_there_is_found_out_by_asking_them() {
    let worker = worker();
    let shared = Arc::clone(&worker.shared);
    let within = Duration::from_millis(20);
    assert!(!all_answer(&shared, within), "it does not run yet");
    let thread = std::thread::spawn(|| worker.run());
    assert!(all_answer(&shared, Duration::from_secs(10)));
    shared.drain();
    thread.join().unwrap();
    assert!(!all_answer(&shared, within), "it has ended");
}

#[test]
fn a_worker_that_many_ask_is_there_all_the_same() {
    let worker = worker();
    let shared = Arc::clone(&worker.shared);
    let (tell, answers) = std::sync::mpsc::channel();
    for _ in 0..INQUIRIES {
        shared.inquire(WorkerId(0), Box::new(Steps(tell.clone(), 0))).unwrap();
    }
    assert!(!all_answer(&shared, Duration::from_millis(20)), "it does not run yet");
    let asked = Arc::clone(&shared);
    let watchdog = std::thread::spawn(move || all_answer(&asked, Duration::from_secs(10)));
    // It has met a full queue by then, or else it is none the worse.
    std::thread::sleep(Duration::from_millis(20));
    let thread = std::thread::spawn(|| worker.run());
    assert!(watchdog.join().unwrap());
    shared.drain();
    thread.join().unwrap();
    assert_eq!(answers.try_iter().count(), 3 * INQUIRIES);
}

#[test]
fn an_error_on_a_receiver_does_not_keep_the_worker_busy() {
    let mut worker = worker();
    let mut ready = Vec::new();
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let meta = Datagram { peer: closed, ..Datagram::default() };
    let receiver = &mut worker.exit.underlays[0].as_mut().unwrap().receivers[0];
    receiver.send(&meta, &[IoSlice::new(b"nobody is there")]).unwrap();

    worker.poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
    let source = Source::Receiver { underlay: 0, socket: 0 };
    assert_eq!(ready.iter().map(|&n| worker.sources[n as usize]).collect::<Vec<_>>(), [source]);
    assert!(!worker.serve(source, clock::now()));
    worker.poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
    assert!(ready.is_empty(), "it is still reported");
    assert_eq!(worker.exit.stats.io.underlay_errors.get(), 1);
}

#[test]
fn what_finds_no_socket_and_no_device_is_shown_to_those_who_look_at_drops() {
    let mut worker = worker();
    let (exit, drops) = (&mut worker.exit, Arc::clone(&worker.shared.drops[0]));
    // UDP from 10.0.2.11 to 203.0.113.7.
    let mut packet = vec![0; 28];
    (packet[0], packet[3], packet[8], packet[9], packet[25]) = (0x45, 28, 64, 17, 8);
    packet[12..20].copy_from_slice(&[10, 0, 2, 11, 203, 0, 113, 7]);
    let view = Arc::clone(&exit.snapshot);
    let course = Course {
        // Of which the worker has no socket.
        pool: PoolId(1),
        port: 0,
        target: TargetSlot(0),
        endpoint: view.endpoints[1].wire_id,
        cookie: 0,
        version: geneve::IpVersion::V4,
    };
    let from = Origin::from(Entry::Subnet(router::SubnetId::from_index(1)));
    let frame = Frame::parse(&packet, &Offload::NONE).unwrap();
    exit.execute(from, &frame, Verdict::ToAppliance(course.hop(&view)));
    exit.flush();
    assert_eq!(exit.stats.tun.drops.get(DropReason::SendFailed), 1);
    let examples = drops.examples(DropReason::SendFailed);
    let [(example, 0)] = &*examples else { panic!("{examples:?}") };
    assert_eq!(example.peer, Some(view.targets[0].address));
    assert!(example.head.ends_with(&packet), "{example:?}");

    let slots = [Slot { packet: PacketBuf::from_slice(&packet), meta: Datagram::default() }];
    let piece = Piece { buffer: 0, start: 0, len: 28 };
    let run = Run { tag: 9, offload: Offload::NONE, headers: &[], pieces: &[piece] };
    exit.deliver(&slots, &run);
    assert_eq!(exit.stats.udp.drops.get(DropReason::NotAttached), 1);
    let examples = drops.examples(DropReason::NotAttached);
    let [(example, 0)] = &*examples else { panic!("{examples:?}") };
    assert_eq!(example.head, packet);
}
