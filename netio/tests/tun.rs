//! TUN devices against the real kernel: its TCP through them, and its segmentation as the judge of
//! ours.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

mod packets;

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use geneve::inner::{Inner, Plain};
use netio::{
    Device, Slot,
    link::{Links, Route},
    netns::{Netns, ScratchNetns, skip_test},
    offload::{Coalescer, Limits, MAX_HEADERS, Offload, Place, Run, Segmentation, Segmenter},
    poll::{Poller, Waker},
    tun::{MAX_PACKET, Tun, TunConfig, TunQueue},
    udp::{Datagram, UdpConfig, UdpSocket},
};
use packets::{Flow, Packet, assert_sound, cut};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace for a test, where TUN devices can be created.
fn with_tun(test: &str) -> Option<ScratchNetns> {
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    match device {
        Ok(_) => ScratchNetns::for_test(test),
        Err(error) => {
            skip_test(test, format!("/dev/net/tun: {error}"));
            None
        }
    }
}

fn config(name: &str) -> TunConfig {
    TunConfig { name: name.into(), queues: 1, mtu: 1500, offload: true, gso_max_size: None }
}

fn slots(count: usize) -> Vec<Slot<Offload>> {
    (0..count).map(|_| Slot::with_capacity(MAX_PACKET)).collect()
}

/// Creates a device in `netns`, sets it up, and gives it addresses.
fn create(netns: &Netns, config: &TunConfig, addresses: &[&str]) -> (Tun, Vec<TunQueue>) {
    let mut tun = netns.run(|| Tun::create(config)).unwrap().unwrap();
    let links = Links::in_netns(netns).unwrap();
    links.set_up(&config.name).unwrap();
    for address in addresses {
        let address = ip(address);
        links.add_address(&config.name, address, if address.is_ipv4() { 24 } else { 64 }).unwrap();
    }
    let queues = tun.take_queues();
    (tun, queues)
}

/// The next `count` packets that a test is interested in; the kernel sends some of its own.
fn receive(
    queue: &mut TunQueue,
    count: usize,
    interesting: impl Fn(&[u8]) -> bool,
) -> Vec<(Vec<u8>, Offload)> {
    let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
    poller.add(queue, 0).unwrap();
    let (mut slots, mut all) = (slots(8), Vec::new());
    while all.len() < count {
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert!(!ready.is_empty(), "{} of {count} packets came", all.len());
        let received = queue.recv(&mut slots).unwrap();
        let received = slots[..received].iter().map(|slot| (slot.packet.to_vec(), slot.meta));
        all.extend(received.filter(|(packet, _)| interesting(packet)));
    }
    all
}

#[test]
fn a_device_is_as_configured_and_exists_as_long_as_its_queues() {
    let Some(netns) = with_tun("a_device_is_as_configured") else { return };
    let links = Links::in_netns(&netns).unwrap();
    let config = TunConfig { queues: 2, mtu: 1400, gso_max_size: Some(60_868), ..config("tun7") };
    let mut tun = netns.run(|| Tun::create(&config)).unwrap().unwrap();
    assert_eq!(tun.name(), "tun7");
    let link = links.get("tun7").unwrap();
    assert_eq!((link.mtu, link.gso_max_size, link.up), (1400, 60_868, false));

    for queues in [1, 2] {
        let again = TunConfig { queues, ..config.clone() };
        let error = netns.run(|| Tun::create(&again)).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(error.to_string(), r#"there is an interface "tun7" already"#);
    }
    let queues = tun.take_queues();
    assert_eq!((queues.len(), tun.take_queues().len()), (2, 0));
    drop((tun, queues));
    assert!(!links.exists("tun7").unwrap());
}

#[test]
fn a_device_that_cannot_be_is_refused_and_leaves_nothing() {
    let Some(netns) = with_tun("a_device_that_cannot_be") else { return };
    let refused = |config: &TunConfig| netns.run(|| Tun::create(config)).unwrap().unwrap_err();
    for name in ["", "sixteen-bytes-ab", "tun%d"] {
        assert_eq!(refused(&config(name)).kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
    for queues in [0, 257] {
        let config = TunConfig { queues, ..config("tun0") };
        assert_eq!(refused(&config).kind(), io::ErrorKind::InvalidInput, "{queues}");
    }
    refused(&TunConfig { mtu: 10, ..config("tun0") });
    refused(&TunConfig { gso_max_size: Some(1 << 30), ..config("tun0") });
    let links = Links::in_netns(&netns).unwrap().all().unwrap();
    assert_eq!(links.len(), 1, "only loopback: {links:?}");
}

#[test]
fn without_offload_there_are_only_plain_packets() {
    let Some(netns) = with_tun("without_offload") else { return };
    let config = TunConfig { offload: false, ..config("plain") };
    let (tun, mut queues) = create(&netns, &config, &["10.0.0.2"]);
    assert!(!tun.udp_segmentation());
    let queue = &mut queues[0];

    // An echo request to the kernel, and its answer.
    let mut request = echo_request();
    queue.send(&Offload::NONE, &[IoSlice::new(&request)]).unwrap();
    let (answer, offload) = receive(queue, 1, |packet| packet[9] == 1).remove(0);
    assert_eq!((answer[20], offload), (0, Offload::NONE));
    assert_eq!(answer[24..], request[24..]);

    let super_packet =
        Offload { segment: Segmentation::Tcp { size: 100, ecn: false }, ..Offload::NONE };
    let error = queue.send(&super_packet, &[IoSlice::new(&request)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let pieces: Vec<_> = request.chunks_mut(1).map(|byte| IoSlice::new(byte)).collect();
    let many = pieces.iter().cycle().take(200).copied().collect::<Vec<_>>();
    let error = queue.send(&Offload::NONE, &many).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    // Any number of pieces up to that makes one packet.
    queue.send(&Offload::NONE, &pieces).unwrap();
    receive(queue, 1, |packet| packet[9] == 1);
}

/// From 10.0.0.1 to 10.0.0.2, 40 bytes.
fn echo_request() -> Vec<u8> {
    let mut packet = Flow::UDP4.packet(&[]);
    packet.v4().protocol = etherparse::IpNumber::ICMP;
    packet.v4().set_payload_len(20).unwrap();
    packet.v4().header_checksum = packet.v4().calc_header_checksum();
    let mut icmp = [8, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let checksum = geneve::checksum::of(&icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    [&packet.v4().to_bytes()[..], &icmp].concat()
}

#[test]
fn what_does_not_fit_its_slot_is_discarded_and_counted() {
    let Some(netns) = with_tun("what_does_not_fit_its_slot") else { return };
    // So that the kernel says nothing by itself.
    if netns.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1").is_err() {
        eprintln!("no IPv6 here to be switched off");
    }
    let (_tun, mut queues) = create(&netns, &config("tun0"), &["10.0.0.2"]);
    let queue = &mut queues[0];
    let request = echo_request();
    // Exactly as long, and one byte too short.
    for (room, received, discarded) in [(request.len(), 1, 0), (request.len() - 1, 0, 1)] {
        queue.send(&Offload::NONE, &[IoSlice::new(&request)]).unwrap();
        let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        poller.add(queue, 0).unwrap();
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert_eq!(ready, [0], "the answer");
        let mut slots = [Slot::with_capacity(room)];
        assert_eq!((queue.recv(&mut slots).unwrap(), queue.discarded()), (received, discarded));
        assert_eq!(slots[0].packet.len(), received * request.len());
    }
}

#[test]
fn all_queues_are_served() {
    const QUEUES: usize = 3;
    let Some(netns) = with_tun("all_queues_are_served") else { return };
    let config = TunConfig { queues: QUEUES, ..config("tun0") };
    let (_tun, mut queues) = create(&netns, &config, &["10.0.0.1"]);
    let mut poller = Poller::new().unwrap();
    for (token, queue) in queues.iter().enumerate() {
        poller.add(queue, token as u64).unwrap();
    }
    // The kernel spreads flows by a hash: with 64 of them, every queue gets some.
    let mut ports = std::collections::BTreeSet::new();
    for port in 0..64 {
        let sender = netns.run(|| std::net::UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        sender.send_to(b"hello", ("10.0.0.2", 1000 + port)).unwrap();
        ports.insert(1000 + port);
    }
    let (mut ready, mut slots, mut served) = (Vec::new(), slots(4), [0; QUEUES]);
    while !ports.is_empty() {
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert!(!ready.is_empty(), "nothing for {ports:?}");
        for &token in &ready {
            let count = queues[token as usize].recv(&mut slots).unwrap();
            for slot in &slots[..count] {
                if let Some((_, port)) = Inner::parse(&slot.packet).unwrap().ports() {
                    served[token as usize] += usize::from(ports.remove(&port));
                }
            }
        }
    }
    assert_eq!(served.iter().sum::<usize>(), 64);
    assert!(served.iter().all(|&count| count > 0), "{served:?}");
}

#[test]
fn a_udp_batch_passes_whole_in_both_directions() {
    let Some(netns) = with_tun("a_udp_batch_passes_whole") else { return };
    let addresses = ["10.0.0.1", "fd00::1"];
    let (tun, mut queues) = create(&netns, &config("tun0"), &addresses);
    if !tun.udp_segmentation() {
        return eprintln!("SKIP a_udp_batch_passes_whole: this kernel has no USO");
    }
    let queue = &mut queues[0];
    for (address, peer) in addresses.into_iter().zip(["10.0.0.2", "fd00::2"]) {
        let bind = SocketAddr::new(ip(address), 7000);
        let config = UdpConfig {
            bind,
            reuse_port: false,
            gro: true,
            dont_fragment: false,
            recv_buffer: 0,
            send_buffer: 0,
        };
        let mut socket = netns.run(|| UdpSocket::bind(&config)).unwrap().unwrap();
        let payload: Vec<u8> = (0..2500_usize).map(|at| (at * 7) as u8).collect();
        let peer = SocketAddr::new(ip(peer), 7000);
        let meta = Datagram { peer, segment_size: 600, ..Datagram::default() };
        socket.send(&meta, &[IoSlice::new(&payload)]).unwrap();

        let ours = |packet: &[u8]| Inner::parse(packet).unwrap().ports() == Some((7000, 7000));
        let (packet, offload) = receive(queue, 1, ours).remove(0);
        assert_eq!(offload.segment, Segmentation::Udp { size: 600 });
        let inner = Inner::parse(&packet).unwrap();
        let datagrams = cut(&packet, &inner, &offload);
        assert_eq!(datagrams.len(), 5);
        for (datagram, expected) in datagrams.iter().zip(payload.chunks(600)) {
            assert_sound(datagram);
            assert_eq!(&datagram[inner.header_len + 8..], expected);
        }

        // Back to where it came from, joined again.
        let mirrored: Vec<_> = datagrams.iter().map(|datagram| mirrored(datagram)).collect();
        let mut joined = Vec::new();
        join(&mirrored, Limits::default(), |offload, packet| joined.push((offload, packet)));
        assert_eq!(joined.len(), 1);
        queue.send(&joined[0].0, &[IoSlice::new(&joined[0].1)]).unwrap();
        let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
        poller.add(&socket, 0).unwrap();
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        let mut slots = [Slot::with_capacity(65_535)];
        assert_eq!(socket.recv(&mut slots).unwrap(), 1);
        assert_eq!((slots[0].meta.segment_size, slots[0].meta.peer), (600, peer));
        assert_eq!(slots[0].packet[..], payload);
    }
}

/// The packet with its addresses exchanged, which leaves all checksums as they are.
fn mirrored(packet: &[u8]) -> Vec<u8> {
    let mut mirrored = packet.to_vec();
    let (at, len) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    mirrored[at..at + len].copy_from_slice(&packet[at + len..at + 2 * len]);
    mirrored[at + len..at + 2 * len].copy_from_slice(&packet[at..at + len]);
    mirrored
}

/// Joins packets as they come, and gives out each super-packet in one piece.
fn join(packets: &[Vec<u8>], limits: Limits, mut out: impl FnMut(Offload, Vec<u8>)) {
    let bytes = |buffer: u32| &packets[buffer as usize][..];
    let mut emit = |run: Run<'_, ()>| {
        let pieces = run.pieces.iter().map(|piece| piece.of(bytes(piece.buffer)));
        out(run.offload, [run.headers, &pieces.collect::<Vec<_>>().concat()].concat());
    };
    let mut coalescer = Coalescer::new(limits);
    for (index, packet) in packets.iter().enumerate() {
        let place = Place { buffer: index as u32, start: 0 };
        let plain = Plain::read(packet);
        coalescer.push(packet, plain.as_ref(), place, (), bytes, &mut emit);
    }
    coalescer.flush(&mut emit);
}

/// A router between two devices: the kernel's.
fn router(netns: &Netns, second: &TunConfig) -> (TunQueue, TunQueue, bool) {
    let (tun, mut first) = create(netns, &config("in"), &[]);
    let (_, mut second_queues) = create(netns, second, &[]);
    netns.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
    netns.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    let links = Links::in_netns(netns).unwrap();
    for (address, device) in
        [("10.0.0.1", "in"), ("2001::1", "in"), ("10.0.0.2", "out"), ("2001::2", "out")]
    {
        let prefix = if ip(address).is_ipv4() { 32 } else { 128 };
        links.add_route(&Route::new(ip(address), prefix).device(device)).unwrap();
    }
    (first.remove(0), second_queues.remove(0), tun.udp_segmentation())
}

/// A train of packets as a sender would send it, and as it looks one router further.
fn train(flow: Flow, sizes: &[usize]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut packets: Vec<Packet> = Vec::new();
    for (index, &size) in sizes.iter().enumerate() {
        let payload: Vec<u8> = (0..size).map(|at| (at * 3 + index) as u8).collect();
        let first = || flow.packet(&payload);
        packets.push(packets.last().map_or_else(first, |last: &Packet| last.next(&payload)));
    }
    let sent = packets.iter().map(Packet::build).collect();
    let arrived = packets.into_iter().map(|mut packet| {
        if flow.v6 {
            packet.v6().hop_limit -= 1;
        } else {
            packet.v4().time_to_live -= 1;
        }
        packet.build()
    });
    (sent, arrived.collect())
}

const FLOWS: [Flow; 4] = [Flow::TCP4, Flow::TCP6, Flow::UDP4, Flow::UDP6];

fn of_flow(flow: Flow) -> impl Fn(&[u8]) -> bool {
    move |packet| {
        let inner = Inner::parse(packet).unwrap();
        let protocol = if flow.tcp { 6 } else { 17 };
        (packet[0] >> 4 == 6) == flow.v6
            && inner.protocol == protocol
            && inner.ports() == Some((50_000, 443))
    }
}

#[test]
fn the_kernel_cuts_what_was_joined_into_what_it_was() {
    let Some(netns) = with_tun("the_kernel_cuts") else { return };
    // The second device has no offload: the kernel has to segment in software.
    let plain = TunConfig { offload: false, ..config("out") };
    let (mut first, mut second, uso) = router(&netns, &plain);
    for flow in FLOWS {
        if !flow.tcp && !uso {
            eprintln!("SKIP the_kernel_cuts {flow:?}: this kernel has no USO");
            continue;
        }
        let (sent, arrived) = train(flow, &[1000, 1000, 1000, 1000, 333]);
        let mut runs = 0;
        join(&sent, Limits::default(), |offload, packet| {
            first.send(&offload, &[IoSlice::new(&packet)]).unwrap();
            runs += 1;
        });
        assert_eq!(runs, 1);
        let received = receive(&mut second, arrived.len(), of_flow(flow));
        let received: Vec<_> = received.into_iter().map(|(packet, _)| packet).collect();
        assert_eq!(received, arrived, "{flow:?}");
    }
}

#[test]
fn what_the_kernel_passes_on_whole_is_cut_into_what_it_was() {
    let Some(netns) = with_tun("what_the_kernel_passes_on") else { return };
    let (mut first, mut second, uso) = router(&netns, &config("out"));
    for flow in FLOWS {
        if !flow.tcp && !uso {
            eprintln!("SKIP what_the_kernel_passes_on {flow:?}: this kernel has no USO");
            continue;
        }
        let (sent, arrived) = train(flow, &[1000, 1000, 1000, 1000, 333]);
        join(&sent, Limits::default(), |offload, packet| {
            first.send(&offload, &[IoSlice::new(&packet)]).unwrap();
        });
        let (packet, offload) = receive(&mut second, 1, of_flow(flow)).remove(0);
        assert!(offload.is_super_packet(), "{flow:?}: {offload:?}");
        assert_eq!(cut(&packet, &Inner::parse(&packet).unwrap(), &offload), arrived, "{flow:?}");
    }
}

/// What is done to packets between two devices.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// As they come.
    Whole,
    /// Cut into segments.
    Cut,
    /// Cut into segments and joined again, within limits.
    Joined(usize),
}

/// Carries packets between two devices until it is woken; says how many packets and how many
/// system calls it were.
fn carry(queues: &mut [TunQueue; 2], way: Way, stop: &Waker) -> (u64, u64) {
    let mut poller = Poller::new().unwrap();
    poller.add(&queues[0], 0).unwrap();
    poller.add(&queues[1], 1).unwrap();
    poller.add(stop, 2).unwrap();
    let (mut ready, mut slots) = (Vec::new(), slots(8));
    let mut packets = 0;
    let before: u64 = queues.iter().map(TunQueue::syscalls).sum();
    loop {
        poller.wait(&mut ready, None).unwrap();
        if ready.contains(&2) {
            let syscalls = queues.iter().map(TunQueue::syscalls).sum::<u64>();
            return (packets, syscalls - before + poller.syscalls());
        }
        for &token in &ready {
            let from = token as usize;
            let count = queues[from].recv(&mut slots).unwrap();
            packets += forward(&slots[..count], way, &mut queues[1 - from]);
        }
    }
}

fn forward(slots: &[Slot<Offload>], way: Way, to: &mut TunQueue) -> u64 {
    let mut segments = Vec::new();
    for slot in slots {
        let inner = Inner::parse(&slot.packet).unwrap();
        let segmenter = Segmenter::new(&slot.packet, &inner, &slot.meta).unwrap();
        if way == Way::Whole {
            to.send(&slot.meta, &[IoSlice::new(&slot.packet)]).unwrap();
            segments.extend((0..segmenter.count()).map(|_| Vec::new()));
            continue;
        }
        let mut headers = [0; MAX_HEADERS];
        for index in 0..segmenter.count() {
            let segment = segmenter.segment(index, &mut headers);
            segments.push([&headers[..segment.header_len], &slot.packet[segment.payload]].concat());
        }
    }
    match way {
        Way::Whole => {}
        Way::Cut => {
            for segment in &segments {
                to.send(&Offload::NONE, &[IoSlice::new(segment)]).unwrap();
            }
        }
        Way::Joined(max_bytes) => {
            join(&segments, Limits { max_bytes, ..Limits::default() }, |offload, packet| {
                to.send(&offload, &[IoSlice::new(&packet)]).unwrap();
            });
        }
    }
    segments.len() as u64
}

#[test]
fn tcp_of_the_kernel_runs_over_super_packets() {
    const BYTES: usize = 8 << 20;
    let Some(client) = with_tun("tcp_of_the_kernel") else { return };
    let Some(server) = with_tun("tcp_of_the_kernel") else { return };
    let (_left, mut left) = create(&client, &config("tun0"), &["10.0.0.1", "fd00::1"]);
    let (_right, mut right) = create(&server, &config("tun0"), &["10.0.0.2", "fd00::2"]);
    let mut queues = [left.remove(0), right.remove(0)];

    let data: Vec<u8> = (0..BYTES).map(|at| (at * 31 + (at >> 11)) as u8).collect();
    for way in [Way::Whole, Way::Cut, Way::Joined(65_535), Way::Joined(180_000)] {
        for address in ["10.0.0.2", "fd00::2"] {
            let stop = Waker::new().unwrap();
            let (packets, syscalls) = std::thread::scope(|scope| {
                let carrier = scope.spawn(|| carry(&mut queues, way, &stop));
                let listen = || TcpListener::bind((ip(address), 80)).unwrap();
                let listener = server.run(listen).unwrap();
                let sender = scope.spawn(|| {
                    let connect = || TcpStream::connect((ip(address), 80)).unwrap();
                    let mut stream = client.run(connect).unwrap();
                    stream.write_all(&data).unwrap();
                });
                let mut received = Vec::new();
                listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
                assert!(received == data, "{way:?} {address}");
                sender.join().unwrap();
                stop.wake().unwrap();
                carrier.join().unwrap()
            });
            // The data alone are 5800 packets of 1448 bytes.
            assert!(packets > 5000, "{way:?} {address}: {packets}");
            eprintln!("{way:?} {address}: {packets} packets, {syscalls} system calls");
            if way != Way::Cut {
                assert!(syscalls < packets, "{way:?} {address}: {syscalls} for {packets}");
            }
        }
    }
}
