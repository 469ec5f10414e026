//! The packet socket for bad checksums, and the counters that tell of them, against the real
//! kernel: two namespaces and a veth pair between them.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::{
    io::{ErrorKind, IoSlice},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use etherparse::PacketBuilder;
use netio::{
    Device, Slot,
    counters::{CounterReader, Counters},
    link::{Links, Route},
    netns::ScratchNetns,
    packet::{BadChecksums, BadChecksumsConfig},
    poll::Poller,
    udp::{Datagram, UdpConfig, UdpSocket},
};
use socket2::{Domain, Protocol, Socket, Type};

const PORT: u16 = 6081;
/// The near address, the far one, and one that is routed nowhere, by IP version.
const ADDRESSES: [[&str; 3]; 2] =
    [["10.3.0.1", "10.3.0.2", "10.99.0.1"], ["fd03::1", "fd03::2", "fd99::1"]];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct World {
    near: ScratchNetns,
    far: ScratchNetns,
}

impl World {
    fn for_test(test: &str) -> Option<Self> {
        let near = ScratchNetns::for_test(test)?;
        let far = ScratchNetns::for_test(test)?;
        let (here, there) = (Links::in_netns(&near).unwrap(), Links::in_netns(&far).unwrap());
        here.create_veth("near", "far", &far).unwrap();
        for (links, name, index) in [(&here, "near", 0), (&there, "far", 1)] {
            links.set_up(name).unwrap();
            for (version, len) in [(0, 24), (1, 64)] {
                links.add_address(name, ip(ADDRESSES[version][index]), len).unwrap();
            }
        }
        Some(Self { near, far })
    }

    fn receiver(&self, address: IpAddr) -> UdpSocket {
        Self::bind(&self.far, SocketAddr::new(address, PORT))
    }

    fn sender(&self, address: IpAddr) -> UdpSocket {
        Self::bind(&self.near, SocketAddr::new(address, 0))
    }

    fn bind(netns: &ScratchNetns, bind: SocketAddr) -> UdpSocket {
        let config = UdpConfig {
            bind,
            reuse_port: false,
            gro: true,
            dont_fragment: false,
            recv_buffer: 1 << 20,
            send_buffer: 1 << 20,
        };
        netns.run(|| UdpSocket::bind(&config)).unwrap().unwrap()
    }

    fn bad_checksums(&self, address: IpAddr) -> BadChecksums {
        self.bad_checksums_of(&config(address))
    }

    fn bad_checksums_of(&self, config: &BadChecksumsConfig) -> BadChecksums {
        self.far.run(|| BadChecksums::open(config)).unwrap().unwrap()
    }

    fn raw(&self, v6: bool) -> Raw {
        let open = || {
            let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
            // IPPROTO_RAW: the IP header comes from us.
            Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap()
        };
        Raw(self.near.run(open).unwrap())
    }
}

fn config(address: IpAddr) -> BadChecksumsConfig {
    let ports = vec![1, PORT, PORT + 1];
    BadChecksumsConfig { address, ports, worker: 0, workers: 1, recv_buffer: 1 << 20 }
}

/// Sends packets as they are.
struct Raw(Socket);

impl Raw {
    fn send(&self, packet: &[u8], to: IpAddr) {
        assert_eq!(self.0.send_to(packet, &SocketAddr::new(to, 0).into()).unwrap(), packet.len());
    }

    /// A datagram with a checksum that is not its own.
    fn send_bad(&self, from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) {
        self.send(&packet(from, to, payload, Some(0xbad)), to.0);
    }
}

/// A datagram in its packet, with its own checksum or another one.
fn packet(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], sum: Option<u16>) -> Vec<u8> {
    let (builder, udp) = match (from.0, to.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (PacketBuilder::ipv4(source.octets(), destination.octets(), 64), 20)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (PacketBuilder::ipv6(source.octets(), destination.octets(), 64), 40)
        }
        _ => unreachable!("both are of one IP version"),
    };
    let mut packet = Vec::new();
    builder.udp(from.1, to.1).write(&mut packet, payload).unwrap();
    if let Some(sum) = sum {
        packet[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn wait(device: &impl std::os::fd::AsFd) {
    let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
    poller.add(device, 0).unwrap();
    poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
    assert_eq!(ready, [0], "nothing arrived");
}

/// Receives until `last` has come.
fn until(device: &mut impl DeviceFd, last: &[u8]) -> Vec<(Vec<u8>, Datagram)> {
    let mut slots: Vec<_> = (0..4).map(|_| Slot::with_capacity(65_535)).collect();
    let mut all = Vec::new();
    loop {
        wait(device);
        let count = device.recv(&mut slots).unwrap();
        all.extend(slots[..count].iter().map(|slot| (slot.packet.to_vec(), slot.meta)));
        if all.last().is_some_and(|(payload, _)| payload == last) {
            return all;
        }
    }
}

trait DeviceFd: Device<Meta = Datagram> + std::os::fd::AsFd {}
impl<T: Device<Meta = Datagram> + std::os::fd::AsFd> DeviceFd for T {}

#[test]
fn a_bad_checksum_comes_here_and_to_no_udp_socket() {
    let Some(world) = World::for_test("a_bad_checksum_comes_here") else { return };
    let counters = CounterReader::open(&world.far).unwrap();
    assert_eq!(counters.read().unwrap(), Counters::default());
    for [near, far, _] in ADDRESSES.map(|of_version| of_version.map(ip)) {
        let (mut bad, mut udp) = (world.bad_checksums(far), world.receiver(far));
        let raw = world.raw(far.is_ipv6());
        raw.send_bad((near, 4000), (far, PORT), b"bad");
        raw.send_bad((near, 4001), (far, PORT + 1), b"to the next port");
        // Left to the kernel: another port, fragments, other protocols, and what is good.
        raw.send_bad((near, 4000), (far, PORT + 2), b"no such port");
        raw.send(&packet((near, 4000), (far, PORT), b"good", None), far);
        let unset = packet((near, 4000), (far, PORT), b"unset", Some(0));
        raw.send(&unset, far);
        if far.is_ipv4() {
            let mut fragment = packet((near, 4000), (far, PORT), &[0; 24], Some(0xbad));
            fragment[6] = 0x20;
            raw.send(&fragment, far);
        }
        raw.send_bad((near, 4000), (far, PORT), b"last");

        let meta = |peer| Datagram {
            peer: SocketAddr::new(near, peer),
            local: Some(far),
            ..Datagram::default()
        };
        let mut expected =
            vec![(b"bad".to_vec(), meta(4000)), (b"to the next port".to_vec(), meta(4001))];
        if far.is_ipv6() {
            expected.push((b"unset".to_vec(), meta(4000)));
        }
        expected.push((b"last".to_vec(), meta(4000)));
        assert_eq!(until(&mut bad, b"last"), expected);
        assert_eq!(bad.skipped(), 1, "the good one");
        assert_eq!((bad.truncated(), bad.kernel_drops().unwrap()), (0, 0));

        raw.send(&packet((near, 4000), (far, PORT), b"end", None), far);
        let good: Vec<_> = until(&mut udp, b"end").into_iter().map(|(bytes, _)| bytes).collect();
        if far.is_ipv4() {
            assert_eq!(good, [&b"good"[..], b"unset", b"end"]);
        } else {
            assert_eq!(good, [&b"good"[..], b"end"]);
        }
        // The kernel counts what it threw away, also where nobody would have received it.
        let v6 = if far.is_ipv6() { 5 } else { 0 };
        let expected =
            Counters { udp_checksum_errors: 4, udp6_checksum_errors: v6, ..Counters::default() };
        assert_eq!(counters.read().unwrap(), expected);
    }
}

#[test]
fn good_datagrams_come_to_the_udp_socket_once_and_not_here() {
    const SIZE: u16 = 1000;
    const BATCH: usize = 40;
    let Some(world) = World::for_test("good_datagrams_come_to_the_udp_socket") else { return };
    for [near, far, _] in ADDRESSES.map(|of_version| of_version.map(ip)) {
        let (mut bad, mut udp) = (world.bad_checksums(far), world.receiver(far));
        let (mut sender, raw) = (world.sender(near), world.raw(far.is_ipv6()));
        let single = Datagram { peer: udp.local_addr(), ..Datagram::default() };
        let batch = Datagram { segment_size: SIZE, ..single };
        for round in 0..10_u8 {
            sender.send(&single, &[IoSlice::new(&[round; 100])]).unwrap();
            sender.send(&batch, &[IoSlice::new(&vec![round; SIZE as usize * BATCH])]).unwrap();
        }
        sender.send(&single, &[IoSlice::new(b"end")]).unwrap();
        raw.send_bad((near, 4000), (far, PORT), b"last");

        let received: Vec<u8> =
            until(&mut udp, b"end").into_iter().flat_map(|(bytes, _)| bytes).collect();
        let one = 100 + usize::from(SIZE) * BATCH;
        let expected = (0..10_u8).flat_map(|round| vec![round; one]).chain(*b"end");
        assert_eq!(received, expected.collect::<Vec<_>>());
        let here = until(&mut bad, b"last");
        assert_eq!(here.len(), 1, "{here:?}");
        // Each packet was looked at: as batches or cut up on the way.
        assert!(bad.skipped() >= 21, "{bad:?}");
        let mut slots = [Slot::with_capacity(65_535)];
        assert_eq!((bad.recv(&mut slots).unwrap(), udp.recv(&mut slots).unwrap()), (0, 0));
    }
}

#[test]
fn source_ports_choose_the_worker() {
    const WORKERS: u32 = 3;
    let Some(world) = World::for_test("source_ports_choose_the_worker") else { return };
    for [near, far, _] in ADDRESSES.map(|of_version| of_version.map(ip)) {
        let mut workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let config = BadChecksumsConfig { worker, workers: WORKERS, ..config(far) };
                world.bad_checksums_of(&config)
            })
            .collect();
        let raw = world.raw(far.is_ipv6());
        for port in 4000..4020 {
            raw.send_bad((near, port), (far, PORT), b"?");
        }
        for (worker, device) in workers.iter_mut().enumerate() {
            let is_own = |port: &u16| usize::from(port % WORKERS as u16) == worker;
            let own = (4000..4020).filter(is_own);
            let last = (5000..5000 + WORKERS as u16).find(is_own).unwrap();
            raw.send_bad((near, last), (far, PORT), b"last");
            let ports: Vec<_> =
                until(device, b"last").into_iter().map(|(_, meta)| meta.peer.port()).collect();
            assert_eq!(ports, own.chain([last]).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_does_not_fit_its_slot_is_discarded_and_what_is_not_sent_here_is_none_of_ours() {
    let Some(world) = World::for_test("what_does_not_fit_its_slot") else { return };
    for [near, far, elsewhere] in ADDRESSES.map(|of_version| of_version.map(ip)) {
        let mut bad = world.bad_checksums(far);
        // An address of the host, too, but not the one that is served.
        let whole = if far.is_ipv6() { 128 } else { 32 };
        Links::in_netns(&world.far).unwrap().add_address("far", elsewhere, whole).unwrap();
        let route = Route::new(elsewhere, whole).via(far);
        Links::in_netns(&world.near).unwrap().add_route(&route).unwrap();
        let raw = world.raw(far.is_ipv6());
        raw.send_bad((near, 4000), (elsewhere, PORT), b"other");
        raw.send_bad((near, 4000), (far, PORT), &[7; 100]);
        raw.send_bad((near, 4000), (far, PORT), b"fits");
        let mut slots = [Slot::with_capacity(60), Slot::with_capacity(60)];
        loop {
            wait(&bad);
            match bad.recv(&mut slots).unwrap() {
                0 => {}
                count => break assert_eq!(count, 1),
            }
        }
        assert_eq!(slots[0].packet[..], *b"fits");
        assert_eq!((bad.truncated(), bad.skipped()), (1, 0));
        let refused = bad.send(&Datagram::default(), &[]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
}

/// Waiting packets are bounded by the receive buffer, and calls by what they look at.
#[test]
fn a_flood_is_bounded_and_counted() {
    const SENT: u64 = 1000;
    let Some(world) = World::for_test("a_flood_is_bounded_and_counted") else { return };
    let [near, far, _] = ADDRESSES[0].map(ip);
    let mut bad =
        world.bad_checksums_of(&BadChecksumsConfig { recv_buffer: 1 << 17, ..config(far) });
    let mut sender = world.sender(near);
    let peer = SocketAddr::new(far, PORT);
    for _ in 0..SENT {
        sender.send(&Datagram { peer, ..Datagram::default() }, &[IoSlice::new(b"good")]).unwrap();
    }
    let mut slots = [Slot::with_capacity(100)];
    wait(&bad);
    assert_eq!(bad.recv(&mut slots).unwrap(), 0);
    assert_eq!((bad.skipped(), bad.syscalls()), (64, 64));
    while bad.skipped() + bad.kernel_drops().unwrap() < SENT {
        wait(&bad);
        assert_eq!(bad.recv(&mut slots).unwrap(), 0);
    }
    assert_eq!(bad.skipped() + bad.kernel_drops().unwrap(), SENT);
    assert!(bad.kernel_drops().unwrap() > 0);
}

#[test]
fn a_source_that_is_not_reached_there_is_counted() {
    let Some(world) = World::for_test("a_source_that_is_not_reached") else { return };
    let [_, far, elsewhere] = ADDRESSES[0].map(ip);
    world.far.set_sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
    let counters = CounterReader::open(&world.far).unwrap();
    let mut bad = world.bad_checksums(far);
    world.raw(false).send_bad((elsewhere, 4000), (far, PORT), b"last");
    // It stands in front of the filter, so that the filter is done when the next one is here.
    until(&mut bad, b"last");
    world.raw(false).send_bad((elsewhere, 4000), (far, PORT), b"next");
    until(&mut bad, b"next");
    assert!(counters.read().unwrap().reverse_path_filtered >= 1);
    // This namespace has its own.
    let ours = CounterReader::open(&netio::netns::Netns::current().unwrap()).unwrap();
    ours.read().unwrap();
    assert_eq!(CounterReader::open(&world.near).unwrap().read().unwrap(), Counters::default());
}
