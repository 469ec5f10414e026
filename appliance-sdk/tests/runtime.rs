//! The runtime with real threads and sockets: on loopback addresses, and where it takes IPv6 or an
//! MTU, in network namespaces of the test's own.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]
#![expect(clippy::disallowed_methods, reason = "tests of real threads wait in real time")]

mod common;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use appliance_sdk::testing::{self, Segment};
use appliance_sdk::{Action, Appliance, DropReason, Emitter, Packet, RunError, Runtime};
use common::{
    Closure, PATIENCE, WireGateway, aws, forward_all, http_status, start, stop, wait_for_queued,
};
use netio::link::Links;
use netio::netns::ScratchNetns;

const CLIENT: &str = "203.0.113.9:40000";
const SERVER: &str = "10.0.1.11:80";

fn packet(payload: &[u8]) -> Vec<u8> {
    testing::tcp(CLIENT, SERVER, Segment::data(1, 1), payload)
}

#[test]
fn addresses_are_swapped_ports_are_kept_and_the_header_is_echoed() {
    let (running, listening) = forward_all(Runtime::builder().threads(2), "127.0.1.2");
    let mut gateway = WireGateway::new("127.0.1.1", listening);
    // An option that no dialect knows, and reserved bits that a sender should not set.
    let mut datagram = aws(7, &packet(b"hello"));
    datagram[0] += 2;
    datagram[7] = 0xff;
    datagram.splice(40..40, [0x09, 0x99, 0x05, 0xe1, 1, 2, 3, 4]);
    for _ in 0..3 {
        let mut port = gateway.port();
        port.send_with(&datagram, 0, 0xb8).unwrap();
        let [returned] = gateway.receive(1).try_into().unwrap();
        assert_eq!(returned.from, SocketAddr::new(listening.ip(), port.number()));
        assert_eq!(returned.to.to_string(), "127.0.1.1");
        assert_eq!(returned.tos, 0xb8);
        assert_eq!(returned.bytes, datagram);
    }
    let stats = stop(running);
    assert_eq!((stats.received.packets, stats.returned.packets), (3, 3));
}

#[test]
fn a_run_comes_back_as_a_run() {
    let (running, listening) = forward_all(Runtime::builder().threads(1), "127.0.2.2");
    let mut gateway = WireGateway::new("127.0.2.1", listening);
    let mut port = gateway.port();
    let run: Vec<_> = (0..40).map(|n| aws(7, &packet(&[n; 1400]))).collect();
    port.send_run(&run).unwrap();
    let returned = gateway.receive(run.len());
    assert!(returned.iter().map(|r| &r.bytes).eq(&run));
    let stats = stop(running);
    assert_eq!(stats.received.packets, 40);
    assert_eq!(stats.syscalls.send, 1, "{stats:?}");
    assert_eq!(gateway.arrivals(), 1);
}

#[test]
fn what_a_gateway_sends_one_by_one_goes_back_together() {
    const EACH: usize = 20;
    let (thinks, begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let (running, listening) = start(Runtime::builder().threads(1), "127.0.16.2", move |packet| {
        if packet.payload() == b"wait" {
            thinks.send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
        }
        Action::Forward
    });
    let mut gateway = WireGateway::new("127.0.16.1", listening);
    // Ports that a gateway of ours has differ in their last four bits, by which the appliance
    // gathers; those that a kernel chooses may not.
    let first = gateway.port();
    let others = std::iter::repeat_with(|| gateway.port());
    let mut others = others.filter(|other| (other.number() ^ first.number()) & 0xf != 0);
    let second = others.next().unwrap();
    let mut ports = [first, second];
    // While the appliance thinks about the first, all the others come to wait.
    ports[0].send(&aws(7, &packet(b"wait"))).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
    for number in 0..2 * EACH {
        let datagram = aws(number as u32, &packet(&[number as u8; 4]));
        ports[number % 2].send(&datagram).unwrap();
        sent[number % 2].push(datagram);
    }
    // A busy kernel puts them into the socket later than it says they are sent.
    wait_for_queued(listening, 2 * EACH, sent[0][0].len());
    go_on.send(()).unwrap();
    let returned = gateway.receive(1 + 2 * EACH);
    for (port, sent) in ports.iter().zip(&sent) {
        let of_port = returned.iter().filter(|returned| returned.from.port() == port.number());
        let of_port: Vec<_> = of_port.map(|returned| &returned.bytes).collect();
        assert!(of_port[of_port.len() - EACH..].iter().copied().eq(sent));
    }
    let stats = stop(running);
    assert_eq!(stats.returned.packets, 41);
    // One for the first, one for each port.
    assert_eq!(stats.syscalls.send, 3, "{stats:?}");
}

#[test]
fn what_is_dropped_or_rewritten_does_not_disturb_the_rest_of_the_run() {
    let (running, listening) =
        start(Runtime::builder().threads(1), "127.0.3.2", |packet| match packet.payload()[0] {
            3 => Action::Drop,
            5 => {
                let shorter = vec![0xee; 100];
                packet.replace_payload(&shorter).unwrap();
                Action::Forward
            }
            _ => Action::Forward,
        });
    let mut gateway = WireGateway::new("127.0.3.1", listening);
    let mut port = gateway.port();
    let mut run: Vec<_> = (0..8).map(|n| aws(7, &packet(&[n; 1000]))).collect();
    port.send_run(&run).unwrap();
    run[5] = aws(7, &packet(&[0xee; 100]));
    run.remove(3);
    let returned = gateway.receive(run.len());
    assert!(returned.iter().map(|r| &r.bytes).eq(&run));
    assert_eq!(stop(running).kept.packets, 1);
}

#[test]
fn a_port_stays_with_one_worker() {
    let (tell, told) = mpsc::channel();
    let listen = "127.0.4.2:0".parse().unwrap();
    let runtime =
        Runtime::builder().threads(3).listen(listen).without_health().build(move |worker| {
            let (tell, index) = (tell.clone(), worker.index());
            Closure(move |packet: &mut Packet<'_>| {
                tell.send((packet.tags().cookie, index)).unwrap();
                Action::Forward
            })
        });
    let running = runtime.start().unwrap();
    let mut gateway = WireGateway::new("127.0.4.1", running.handle().listening()[0]);
    let mut ports: Vec<_> = (0..24).map(|_| gateway.port()).collect();
    for _ in 0..3 {
        for port in &mut ports {
            let cookie = u32::from(port.number());
            port.send(&aws(cookie, &packet(b"there"))).unwrap();
            port.send(&aws(cookie, &testing::tcp(SERVER, CLIENT, Segment::data(1, 1), b"back")))
                .unwrap();
        }
        gateway.receive(2 * ports.len());
    }
    stop(running);
    let mut worker_of = HashMap::new();
    for (port, worker) in told {
        assert_eq!(*worker_of.entry(port).or_insert(worker), worker, "port {port}");
        assert_eq!(worker, port as usize % 3);
    }
    assert_eq!(worker_of.len(), ports.len());
}

#[test]
fn a_gateway_may_send_from_the_geneve_port_itself() {
    let (running, listening) = forward_all(Runtime::builder().threads(1), "127.0.5.2");
    let mut gateway = WireGateway::new("127.0.5.1", listening);
    let datagram = aws(7, &packet(b"hello"));
    for _ in 0..3 {
        gateway.send_from_geneve_port(&datagram);
        let [returned] = gateway.receive(1).try_into().unwrap();
        assert_eq!((returned.from, &returned.bytes), (listening, &datagram));
    }
    assert_eq!(stop(running).received.packets, 3);
}

#[test]
fn a_taken_port_is_answered_through_a_raw_socket_or_by_name() {
    let (running, listening) = forward_all(Runtime::builder().threads(1), "127.0.7.2");
    let mut gateway = WireGateway::new("127.0.7.1", listening);
    let mut port = gateway.port();
    let _taken = UdpSocket::bind(SocketAddr::new(listening.ip(), port.number())).unwrap();
    let run: Vec<_> = (0..4).map(|n| aws(7, &packet(&[n; 700]))).collect();
    if nix::unistd::geteuid().is_root() {
        port.send_run(&run).unwrap();
        let returned = gateway.receive(run.len());
        assert!(returned.iter().map(|r| &r.bytes).eq(&run));
        assert!(returned.iter().all(|r| r.from.port() == port.number()));
        assert_eq!(stop(running).oddities.sent_raw, 4);
    } else {
        port.send_run(&run).unwrap();
        let stats = until(&running, |stats| stats.received.packets == 4);
        assert_eq!(stats.drops.get(DropReason::SendPortTaken), 4);
        stop(running);
    }
}

#[test]
fn sockets_for_replies_are_bounded() {
    if !nix::unistd::geteuid().is_root() {
        skip("sockets_for_replies_are_bounded", "raw sockets take CAP_NET_RAW");
        return;
    }
    let builder = Runtime::builder().threads(1).send_sockets(4);
    let (running, listening) = forward_all(builder, "127.0.8.2");
    let mut gateway = WireGateway::new("127.0.8.1", listening);
    let mut ports: Vec<_> = (0..20).map(|_| gateway.port()).collect();
    let datagram = aws(7, &packet(b"hello"));
    for port in &mut ports {
        port.send(&datagram).unwrap();
        let [returned] = gateway.receive(1).try_into().unwrap();
        assert_eq!(returned.from.port(), port.number());
    }
    let stats = stop(running);
    assert_eq!(stats.returned.packets, 20);
    // On a machine that was asleep for a second some socket may have made room for another.
    assert_eq!(stats.oddities.sent_raw + 4 + stats.oddities.send_sockets_evicted, 20);
}

#[test]
fn health_checks_fail_first_and_forwarding_ends_last() {
    let builder = Runtime::builder().threads(1).drain(Duration::from_millis(1500));
    let (running, listening) = forward_all(builder, "127.0.9.2");
    let mut gateway = WireGateway::new("127.0.9.1", listening);
    let mut port = gateway.port();
    let datagram = aws(7, &packet(b"hello"));
    let handle = running.handle();
    let health = handle.health().unwrap();

    // A TCP check says nothing.
    drop(TcpStream::connect(health).unwrap());
    assert_eq!(http_status(health).unwrap(), "HTTP/1.1 200 OK");

    handle.drain();
    let mut answers = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while let Some(status) = http_status(health) {
        assert!(Instant::now() < deadline);
        answers.push(status);
        port.send(&datagram).unwrap();
        gateway.receive(1);
    }
    answers.dedup();
    assert_eq!(answers.last().map(String::as_str), Some("HTTP/1.1 503 Service Unavailable"));
    // The port is closed, and traffic still flows.
    port.send(&datagram).unwrap();
    gateway.receive(1);
    let stats = running.join().unwrap();
    assert_eq!(stats.unaccounted(), 0);
    assert!(stats.returned.packets > 1);
}

#[test]
fn a_second_wish_ends_the_drain() {
    let builder = Runtime::builder().threads(1).drain(Duration::from_hours(1));
    let (running, _) = forward_all(builder, "127.0.10.2");
    running.handle().drain();
    running.handle().drain();
    running.join().unwrap();
}

#[test]
fn noise_on_the_health_port_does_not_matter() {
    use std::io::Write;
    let (running, _) = forward_all(Runtime::builder().threads(1), "127.0.11.2");
    let health = running.handle().health().unwrap();
    let _silent = TcpStream::connect(health).unwrap();
    let endless = vec![0xff; 100_000];
    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET", b"\r\n\r\n\r\n", &endless] {
        let mut stream = TcpStream::connect(health).unwrap();
        // The answer may come, and the connection be closed, before everything is written.
        let _ = stream.write_all(noise);
    }
    assert_eq!(http_status(health).unwrap(), "HTTP/1.1 200 OK");
    stop(running);
}

#[test]
fn one_appliance_has_the_port_for_itself() {
    for threads in [1, 2] {
        let (running, listening) = forward_all(Runtime::builder().threads(threads), "127.0.12.2");
        let second = Runtime::builder()
            .threads(threads)
            .listen(listening)
            .without_health()
            .build(|_| Closure(|_: &mut Packet<'_>| Action::Forward));
        assert!(
            matches!(second.start(), Err(RunError::Listen { address, .. }) if address == listening)
        );
        stop(running);
    }
}

#[test]
fn an_appliance_that_panics_ends_the_run() {
    let (running, listening) =
        start(Runtime::builder().threads(2), "127.0.13.2", |_| panic!("on purpose"));
    let gateway = WireGateway::new("127.0.13.1", listening);
    gateway.port().send(&aws(7, &packet(b"hello"))).unwrap();
    assert!(matches!(running.join(), Err(RunError::Panicked { .. })));
}

/// Keeps every packet, and has another thread send it.
struct Elsewhere {
    to: mpsc::Sender<(Emitter, u64, Vec<u8>)>,
    emitter: Emitter,
}

impl Appliance for Elsewhere {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        let (endpoint, bytes) = (packet.tags().endpoint, packet.bytes().to_vec());
        self.to.send((self.emitter.clone(), endpoint, bytes)).unwrap();
        Action::Drop
    }
}

#[test]
fn packets_can_come_back_by_another_thread() {
    let (to, from) = mpsc::channel::<(Emitter, u64, Vec<u8>)>();
    let listen = "127.0.14.2:0".parse().unwrap();
    let running = Runtime::builder()
        .threads(2)
        .listen(listen)
        .without_health()
        .build(move |worker| Elsewhere { to: to.clone(), emitter: worker.emitter() })
        .start()
        .unwrap();
    let elsewhere = std::thread::spawn(move || {
        for (emitter, endpoint, bytes) in from {
            emitter.emit(endpoint, bytes).unwrap();
        }
    });
    let mut gateway = WireGateway::new("127.0.14.1", running.handle().listening()[0]);
    let mut ports = [gateway.port(), gateway.port()];
    for cookie in 0..50 {
        let port = &mut ports[cookie as usize % 2];
        let datagram = aws(cookie, &packet(format!("packet {cookie}").as_bytes()));
        port.send(&datagram).unwrap();
        let [returned] = gateway.receive(1).try_into().unwrap();
        assert_eq!(returned.bytes, datagram);
        assert_eq!(returned.from.port(), port.number());
    }
    let stats = stop(running);
    assert_eq!((stats.kept.packets, stats.generated.packets), (50, 50));
    elsewhere.join().unwrap();
}

#[test]
fn a_listener_on_every_address_answers_from_the_one_it_was_sent_to() {
    let Some(hosts) = Hosts::new("a_listener_on_every_address_answers") else { return };
    for [gateway, one, other] in
        [["10.9.0.1", "10.9.0.2", "10.9.0.3"], ["fd00::1", "fd00::2", "fd00::3"]]
    {
        let any = if gateway.contains(':') { "::" } else { "0.0.0.0" };
        let (running, listening) =
            hosts.appliance.run(|| forward_all(Runtime::builder().threads(2), any)).unwrap();
        hosts
            .gateway
            .run(|| {
                for address in [one, other] {
                    let appliance = SocketAddr::new(address.parse().unwrap(), listening.port());
                    let mut gateway = WireGateway::new(gateway, appliance);
                    let mut port = gateway.port();
                    let run: Vec<_> = (0..30).map(|n| aws(7, &packet(&[n; 1300]))).collect();
                    port.send_with(&run.concat(), run[0].len() as u16, 0x02).unwrap();
                    let returned = gateway.receive(run.len());
                    assert!(returned.iter().map(|r| &r.bytes).eq(&run));
                    let source = SocketAddr::new(appliance.ip(), port.number());
                    assert!(returned.iter().all(|r| r.from == source && r.tos == 0x02));
                }
            })
            .unwrap();
        assert_eq!(stop(running).syscalls.send, 2);
    }
}

#[test]
fn a_taken_port_is_no_obstacle_over_ipv6_either() {
    let Some(hosts) = Hosts::new("a_taken_port_over_ipv6") else { return };
    let (running, listening) =
        hosts.appliance.run(|| forward_all(Runtime::builder().threads(1), "fd00::2")).unwrap();
    hosts
        .gateway
        .run(|| {
            let mut gateway = WireGateway::new("fd00::1", listening);
            let mut port = gateway.port();
            let source = SocketAddr::new(listening.ip(), port.number());
            let _taken = hosts.appliance.run(|| UdpSocket::bind(source).unwrap()).unwrap();
            let datagram = aws(7, &packet(b"hello"));
            port.send_with(&datagram, 0, 0xb8).unwrap();
            let [returned] = gateway.receive(1).try_into().unwrap();
            assert_eq!((returned.from, returned.tos), (source, 0xb8));
            assert_eq!(returned.bytes, datagram);
        })
        .unwrap();
    assert_eq!(stop(running).oddities.sent_raw, 1);
}

#[test]
fn a_run_that_does_not_fit_the_way_back_goes_singly() {
    let Some(hosts) = Hosts::new("a_run_that_does_not_fit_the_way_back") else { return };
    Links::in_netns(&hosts.gateway).unwrap().set_mtu("gateway", 9000).unwrap();
    let (running, listening) =
        hosts.appliance.run(|| forward_all(Runtime::builder().threads(1), "10.9.0.2")).unwrap();
    hosts
        .gateway
        .run(|| {
            let mut gateway = WireGateway::new("10.9.0.1", listening);
            let mut port = gateway.port();
            // The kernel passes on a segmentation offload whatever the other end's MTU is.
            let run: Vec<_> = (0..10).map(|n| aws(7, &packet(&[n; 3000]))).collect();
            port.send_run(&run).unwrap();
            let returned = gateway.receive(run.len());
            assert!(returned.iter().map(|r| &r.bytes).eq(&run));
        })
        .unwrap();
    let stats = stop(running);
    assert_eq!((stats.returned.packets, stats.oddities.runs_sent_singly), (10, 1));
}

/// A gateway's and an appliance's network namespace with a wire between them. The gateway has
/// 10.9.0.1 and `fd00::1`, the appliance 10.9.0.2, 10.9.0.3, `fd00::2` and `fd00::3`.
struct Hosts {
    gateway: ScratchNetns,
    appliance: ScratchNetns,
}

impl Hosts {
    fn new(test: &str) -> Option<Self> {
        let (gateway, appliance) = (ScratchNetns::for_test(test)?, ScratchNetns::for_test(test)?);
        let here = Links::in_netns(&gateway).unwrap();
        let there = Links::in_netns(&appliance).unwrap();
        here.create_veth("gateway", "appliance", &appliance).unwrap();
        let address = |links: &Links, device, last| {
            links.add_address(device, format!("10.9.0.{last}").parse().unwrap(), 24).unwrap();
            links.add_address(device, format!("fd00::{last}").parse().unwrap(), 64).unwrap();
        };
        address(&here, "gateway", 1);
        address(&there, "appliance", 2);
        address(&there, "appliance", 3);
        here.set_up("gateway").unwrap();
        there.set_up("appliance").unwrap();
        Some(Self { gateway, appliance })
    }
}

/// Waits until the statistics are as expected.
fn until(
    running: &appliance_sdk::Running,
    enough: impl Fn(&appliance_sdk::Stats) -> bool,
) -> appliance_sdk::Stats {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = running.handle().stats();
        if enough(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::yield_now();
    }
}

/// Says that a test did not run; where nothing may be skipped, that fails it.
fn skip(name: &str, why: &str) {
    eprintln!("SKIP {name}: {why}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
}
