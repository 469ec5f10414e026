//! What makes the path faster or plainer, when it is asked for: each switch does what it says, and
//! packets go through as before.

use std::fs;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use geneve::PORT;
use gwlb_tests::packets::Ip;
use gwlb_tests::world::raw::Listener;
use gwlb_tests::world::rogue::Genuine;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::{Family, LIMIT, Plan, World, wait_until};
use netio::process::affinity;
use netio::udp::{Datagram, UdpConfig};
use netio::{Device as _, Slot, udp};
use socket2::{Domain, Protocol};

use super::{FAMILIES, directions, world};

/// As many bytes as a stream carries here.
const BULK: u64 = 16 << 20;

/// Carries streams both ways in both families; returns packets and system calls.
fn carry(world: &World, configuration: &str) -> (u64, u64) {
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway_with(configuration);
    for family in FAMILIES {
        for (from, to) in directions(world) {
            traffic::transfer(from, to, family, BULK);
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    gateway.stop();
    (status.tun.received, status.io.syscalls)
}

#[test]
fn a_device_without_offload_gives_every_packet_by_itself() {
    let plan = Plan { workers: 1, attachment: "offload = false", ..Plan::default() };
    let Some(world) = world("a_device_without_offload", plan) else { return };
    let (packets, syscalls) = carry(&world, &world.configuration());
    assert!(packets > 4 * BULK / 1500, "{packets}");
    // Each is read by one call and written by another, whatever else there is.
    assert!(syscalls >= 2 * packets, "{syscalls} for {packets} packets: they came together");
}

#[test]
fn what_passes_from_a_device_with_offload_to_one_without_is_cut_on_the_way() {
    let plan = Plan { load_balancer: "traffic_mode = \"bypass\"", ..Plan::default() };
    let Some(world) = world("from_a_device_with_offload", plan) else { return };
    let mixed =
        world.configuration_with(&[("tun = \"app-a\"", "tun = \"app-a\"\noffload = false")]);
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway_with(&mixed);
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            traffic::transfer(from, to, family, BULK);
        }
    }
    let status = gateway.settled();
    assert_eq!(status.tun.drops.values().sum::<u64>(), 0, "{status:#?}");
    assert_eq!((status.tun.encapsulated, status.tun.bypassed), (0, status.tun.received));
    gateway.stop();
}

#[test]
fn tcp_in_super_packets_beyond_64_kib_arrives_as_it_was_sent() {
    if !netio::tun::takes_big_tcp().unwrap() {
        return netio::netns::skip_test("big_tcp", "this kernel is older than Linux 6.3");
    }
    for workers in [1, 2] {
        let plan = Plan { workers, attachment: "big_tcp = true", ..Plan::default() };
        let Some(world) = world("big_tcp", plan) else { return };
        let listener = Listener::start(
            &world.servers[0],
            Domain::IPV4,
            Protocol::TCP,
            0,
            |longest: &mut usize, packet| *longest = packet.len().max(*longest),
        );
        let (packets, syscalls) = carry(&world, &world.configuration());
        assert!(syscalls < packets, "{syscalls} for {packets}: packets are not carried together");
        // The sender is Linux, which pushes each of its super-packets.
        let longest = listener.take();
        assert!(longest > 65_535, "the longest had {longest} bytes");
    }
}

#[test]
fn a_worker_stays_on_its_cpu_and_looks_for_packets_as_long_as_it_is_told() {
    let Some(world) = world("a_worker_stays", Plan { workers: 1, ..Plan::default() }) else {
        return;
    };
    let cpu = *affinity::allowed().unwrap().last().unwrap();
    let keys = format!("workers = 1\npin_workers = [{cpu}]\nbusy_poll_us = 100000\n");
    let configuration = world.configuration_with(&[("workers = 1\n", &keys)]);
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway_with(&configuration);
    let process = gateway.process.id();
    wait_until("the worker is on its CPU", || {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        tasks.filter_map(Result::ok).any(|task| {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let list = read("status");
            let list = list.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            read("comm").trim() == "worker-0" && list.map(str::trim) == Some(&cpu.to_string())
        })
    });
    let server = EchoServer::start(&world.servers[0], Family::V4);
    let socket = traffic::datagrams(&world.client, server.address());
    let before = gateway.settled().io.syscalls;
    traffic::exchange(&socket, b"wake up").unwrap();
    // Two packets take a few calls there and back; looking for more takes one every other
    // microsecond.
    gateway.wait_until("it looks for more", |status| status.io.syscalls > before + 2000);
    let mut last = 0;
    wait_until("it sleeps again", || {
        let now = gateway.status().io.syscalls;
        std::mem::replace(&mut last, now) == now
    });
    gateway.settled().assert_lossless();
    gateway.stop();
}

#[test]
fn a_cpu_that_is_not_there_is_refused_before_anything_is_built() {
    let Some(world) = world("a_cpu_that_is_not_there", Plan::default()) else { return };
    let missing = (0..affinity::MAX_CPUS).rfind(|cpu| !affinity::allowed().unwrap().contains(cpu));
    let keys = format!("workers = 1\npin_workers = [{}]\n", missing.unwrap());
    let configuration = world.configuration_with(&[("workers = 2\n", &keys)]);
    let finished = world.launch_gateway(&configuration).finish();
    assert_eq!(finished.code, Some(1), "{}", finished.log);
    let told = format!("no worker can stay on CPU {}", missing.unwrap());
    assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    assert!(!world.folder().join("secret").exists());
}

/// Root is granted every size at the start. What a reload opens is opened without privileges, and
/// gets what everybody gets.
#[test]
fn a_buffer_that_is_smaller_than_it_should_be_is_told_once_with_the_sysctl_that_limits_it() {
    const WANTED: usize = (1 << 30) - 1;
    let limit = fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    assert!(limit < WANTED, "net.core.rmem_max is as large as can be");
    let plan = Plan { gateway: "udp_receive_buffer_bytes = 1_073_741_823", ..Plan::default() };
    let Some(world) = world("a_buffer_that_is_smaller", plan) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let told = |log: &str| log.matches("net.core.rmem_max").count();
    assert_eq!(told(&gateway.process.log()), 0, "{}", gateway.process.log());
    let mut configuration = world.configuration();
    for port in [7000, 7001] {
        let address = world.plan.target(0);
        let target = format!(
            "\n[[target]]\ngroup = \"fw\"\naddress = \"{address}\"\nport = {port}\nzone = \"az1\"\n"
        );
        configuration.push_str(&target);
        gateway.reload(&configuration).unwrap();
    }
    let line = gateway.process.wait_for_line("net.core.rmem_max");
    for number in [WANTED, limit] {
        assert!(line.contains(&number.to_string()), "{line}");
    }
    let finished = gateway.stop();
    assert_eq!(told(&finished.log), 1, "{}", finished.log);
}

/// The kernel joins what an appliance sends in one batch, and gives it to the gateway in one piece.
#[test]
fn a_foreign_second_segment_of_a_batch_is_dropped_and_its_neighbours_are_delivered() {
    // One socket, so that every flow has the same outer source port.
    let plan = Plan { workers: 1, gateway: "source_ports_per_worker = 1", ..Plan::default() };
    let Some(world) = world("a_foreign_second_segment", plan) else { return };
    let (site, target) = (&world.appliances[0], world.plan.target(0));
    let taken = site.run(|| UdpSocket::bind((target, PORT))).unwrap();
    taken.set_read_timeout(Some(LIMIT)).unwrap();
    let mut gateway = world.start_gateway();
    let server_at = SocketAddr::new(world.servers[0].address(Family::V4), 4000);
    let server = world.servers[0].run(|| UdpSocket::bind(server_at)).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let [own, other] = [(); 2].map(|()| traffic::datagrams(&world.client, server_at));
    let take = |socket: &UdpSocket, payload: &[u8]| {
        socket.send(payload).unwrap();
        let mut buffer = [0; 2000];
        let (len, from) = taken.recv_from(&mut buffer).unwrap();
        Genuine::read(from.port(), &buffer[..len]).unwrap()
    };
    let genuine = [take(&own, b"first"), take(&own, b"again"), take(&own, b"third")];
    let foreign = take(&other, b"other");
    assert_eq!(genuine[0].port, foreign.port);
    let [first, again, third] = &genuine;
    assert_eq!(first.header, third.header);

    let config = |address: SocketAddr, gro| UdpConfig {
        bind: address,
        reuse_port: false,
        gro,
        dont_fragment: false,
        recv_buffer: 0,
        send_buffer: 0,
    };
    let bind = |address| {
        let config = config(SocketAddr::new(address, first.port), false);
        site.run(move || udp::UdpSocket::bind(&config)).unwrap()
    };
    let mut appliance = bind(target);
    let mut stranger = bind(world.plan.stranger(0));
    let node = world.plan.node(0);
    let batch = |second: &[u8]| [&first.datagram()[..], second, &third.datagram()].concat();
    let segment_size = first.datagram().len() as u16;
    let send = |socket: &mut udp::UdpSocket, port, bytes: &[u8]| {
        let meta = Datagram { peer: (node, port).into(), segment_size, ..Datagram::default() };
        socket.send(&meta, &[IoSlice::new(bytes)]).unwrap();
    };
    // What is sent as one batch gets there as one.
    let probe = config((node, 4001).into(), true);
    let mut probe = world.gateway.run(move || udp::UdpSocket::bind(&probe)).unwrap();
    send(&mut appliance, 4001, &batch(&again.datagram()));
    let mut slot = [Slot::with_capacity(65_536)];
    wait_until("the batch is there", || probe.recv(&mut slot).unwrap() == 1);
    assert_eq!(slot[0].packet.len(), 3 * usize::from(segment_size), "joined by the kernel");

    let forged = again.with_cookie(|cookie| !cookie);
    let astray = first.around(&foreign.inner);
    let made_up = {
        let Genuine { inner, .. } = &foreign;
        let ends = Ip::new("203.0.113.8", "10.0.1.11").udp((1, 4000), b"never");
        assert_eq!(ends.len(), inner.len());
        first.around(&ends)
    };
    let expect = |payloads: &[&[u8]]| {
        for expected in payloads {
            let mut buffer = [0; 100];
            let len = server.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], *expected);
        }
    };
    for (count, second) in (1..).zip([forged, astray, made_up]) {
        send(&mut appliance, PORT, &batch(&second));
        expect(&[b"first", b"third"]);
        gateway.wait_until("the second is dropped", |status| {
            status.udp.drops.get("bad_cookie") == Some(&count)
        });
    }
    // A stranger's between two of the appliance's.
    send(&mut appliance, PORT, &first.datagram());
    send(&mut stranger, PORT, &again.datagram());
    send(&mut appliance, PORT, &third.datagram());
    expect(&[b"first", b"third"]);
    gateway.wait_until("the stranger's is dropped", |status| {
        status.udp.drops.get("unknown_source") == Some(&1)
    });
    send(&mut appliance, PORT, &batch(&again.datagram()));
    expect(&[b"first", b"again", b"third"]);
    server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(server.recv(&mut [0; 100]).is_err(), "something else got through");
    let status = gateway.settled();
    let drops = [("bad_cookie".to_owned(), 3), ("unknown_source".to_owned(), 1)];
    assert_eq!(status.udp.drops, drops.into());
    assert_eq!((status.udp.received, status.udp.delivered), (15, 11));
    gateway.stop();
}
