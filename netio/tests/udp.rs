//! UDP sockets against the real kernel, over loopback.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use netio::{
    Device, Slot,
    link::{Links, Route},
    netns::{Netns, ScratchNetns, skip_test},
    poll::Poller,
    udp::{Datagram, ErrorOrigin, MAX_GSO_SEGMENTS, UdpConfig, UdpSocket},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const SLOT: usize = 65_535;

/// The loopback addresses that there are; IPv6 may be switched off.
fn addresses(test: &str) -> Vec<IpAddr> {
    match std::net::UdpSocket::bind((V6, 0)) {
        Ok(_) => vec![V4, V6],
        Err(error) => {
            skip_test(&format!("{test} over IPv6"), error);
            vec![V4]
        }
    }
}

fn config(address: IpAddr) -> UdpConfig {
    let bind = SocketAddr::new(address, 0);
    UdpConfig {
        bind,
        reuse_port: false,
        gro: true,
        dont_fragment: false,
        recv_buffer: 1 << 21,
        send_buffer: 1 << 21,
    }
}

fn bind(address: IpAddr) -> UdpSocket {
    UdpSocket::bind(&config(address)).unwrap()
}

fn slots(count: usize) -> Vec<Slot<Datagram>> {
    (0..count).map(|_| Slot::with_capacity(SLOT)).collect()
}

fn to(socket: &UdpSocket) -> Datagram {
    Datagram { peer: socket.local_addr(), ..Datagram::default() }
}

/// Waits until the socket has something to say, an error included.
fn wait(socket: &UdpSocket) {
    let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
    poller.add(socket, 0).unwrap();
    poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
    assert_eq!(ready, [0], "nothing arrived");
}

/// Receives until `bytes` payload bytes are there, and returns what came in which form.
fn receive(socket: &mut UdpSocket, bytes: usize) -> Vec<(Vec<u8>, Datagram)> {
    let (mut slots, mut all) = (slots(4), Vec::new());
    while all.iter().map(|(payload, _): &(Vec<u8>, _)| payload.len()).sum::<usize>() < bytes {
        wait(socket);
        let count = socket.recv(&mut slots).unwrap();
        all.extend(slots[..count].iter().map(|slot| (slot.packet.to_vec(), slot.meta)));
    }
    all
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 13 + at / 256) as u8).collect()
}

#[test]
fn a_batch_goes_out_and_comes_in_with_one_call_each() {
    for address in addresses("a_batch_goes_out_and_comes_in_with_one_call_each") {
        let (mut sender, mut receiver) = (bind(address), bind(address));
        // Pieces need not end where datagrams do.
        let payload = pattern(40 * 1000 + 17);
        let (first, rest) = payload.split_at(1500);
        let meta = Datagram { segment_size: 1000, tos: 0xb9, ..to(&receiver) };
        sender.send(&meta, &[IoSlice::new(first), IoSlice::new(rest)]).unwrap();
        assert_eq!(sender.syscalls(), 1);

        wait(&receiver);
        let mut slots = slots(4);
        assert_eq!(receiver.recv(&mut slots).unwrap(), 1);
        assert_eq!(receiver.syscalls(), 1);
        assert_eq!(slots[0].packet[..], payload);
        let expected = Datagram {
            peer: sender.local_addr(),
            local: Some(address),
            segment_size: 1000,
            tos: 0xb9,
        };
        assert_eq!(slots[0].meta, expected);
        assert_eq!(receiver.recv(&mut slots).unwrap(), 0);
    }
}

#[test]
fn a_batch_is_datagrams_to_everybody_else() {
    for address in addresses("a_batch_is_datagrams_to_everybody_else") {
        let mut sender = bind(address);
        let other = std::net::UdpSocket::bind((address, 0)).unwrap();
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let payload = pattern(MAX_GSO_SEGMENTS * 100 - 1);
        let meta = Datagram {
            peer: other.local_addr().unwrap(),
            segment_size: 100,
            ..Datagram::default()
        };
        sender.send(&meta, &[IoSlice::new(&payload)]).unwrap();
        for expected in payload.chunks(100) {
            let mut buffer = [0; 200];
            let (len, from) = other.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (expected, sender.local_addr()));
        }
    }
}

#[test]
fn without_gro_a_call_fills_several_slots() {
    let mut sender = bind(V4);
    let mut receiver = UdpSocket::bind(&UdpConfig { gro: false, ..config(V4) }).unwrap();
    let payload = pattern(3 * 100);
    let meta = Datagram { segment_size: 100, ..to(&receiver) };
    let mut slots = slots(4);
    // The call may come between the first datagram and the last; but not always.
    for _ in 0..1000 {
        sender.send(&meta, &[IoSlice::new(&payload)]).unwrap();
        wait(&receiver);
        let mut count = receiver.recv(&mut slots).unwrap();
        if count == 3 {
            for (slot, expected) in slots.iter().zip(payload.chunks(100)) {
                assert_eq!((&slot.packet[..], slot.meta.segment_size), (expected, 0));
            }
            return;
        }
        while count < 3 {
            wait(&receiver);
            count += receiver.recv(&mut slots).unwrap();
        }
    }
    panic!("never more than 2 datagrams with one call");
}

#[test]
fn an_unspecified_address_tells_which_one_it_was_and_answers_from_it() {
    for address in addresses("an_unspecified_address") {
        // On loopback, any address of 127.0.0.0/8 is the host's own.
        let (unspecified, target): (IpAddr, IpAddr) = if address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED.into(), [127, 0, 0, 3].into())
        } else {
            (Ipv6Addr::UNSPECIFIED.into(), V6)
        };
        let (mut server, mut client) = (bind(unspecified), bind(address));
        let peer = SocketAddr::new(target, server.local_addr().port());
        client.send(&Datagram { peer, ..Datagram::default() }, &[IoSlice::new(b"ask")]).unwrap();
        let (_, question) = receive(&mut server, 3).remove(0);
        assert_eq!(question.local, Some(target));
        assert_eq!(question.peer, client.local_addr());

        server.send(&question, &[IoSlice::new(b"answer")]).unwrap();
        let (_, answer) = receive(&mut client, 6).remove(0);
        assert_eq!(answer.peer, peer);
    }
}

#[test]
fn an_icmp_error_is_told_and_fails_nobody_else() {
    for address in addresses("an_icmp_error_is_told_and_fails_nobody_else") {
        let (mut sender, mut receiver) = (bind(address), bind(address));
        // Nobody serves tcpmux by UDP.
        let peer = SocketAddr::new(address, 1);
        let closed = Datagram { peer, ..Datagram::default() };
        assert!(sender.take_error().is_none());
        sender.send(&closed, &[IoSlice::new(b"anybody?")]).unwrap();
        wait(&sender);
        // The kernel would hand the refusal to this send, which has nothing to do with it.
        sender.send(&to(&receiver), &[IoSlice::new(b"hello")]).unwrap();
        assert_eq!(receive(&mut receiver, 5)[0].0, b"hello");

        let error = sender.take_error().unwrap();
        assert_eq!(error.peer, Some(closed.peer));
        assert_eq!(error.offender, Some(address));
        assert_eq!((error.errno, error.mtu), (libc::ECONNREFUSED, None));
        let (origin, kind, code) =
            if address == V4 { (ErrorOrigin::Icmp, 3, 3) } else { (ErrorOrigin::Icmp6, 1, 4) };
        assert_eq!((error.origin, error.kind, error.code), (origin, kind, code));
        assert!(sender.take_error().is_none());

        // Neither does it stop receiving, whose calls are given the error just as well.
        receiver.send(&to(&sender), &[IoSlice::new(b"world")]).unwrap();
        wait(&sender);
        sender.send(&closed, &[IoSlice::new(b"anybody?")]).unwrap();
        // Asked for nothing, it still tells errors.
        let mut asked = [PollFd::new(sender.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut asked, PollTimeout::from(10_000_u16)).unwrap(), 1);
        let mut slots = slots(1);
        assert_eq!(sender.recv(&mut slots).unwrap(), 1);
        assert_eq!(slots[0].packet[..], *b"world");
        assert!(sender.take_error().is_some());
    }
}

/// All control messages come along then: the address, TOS, and the error itself.
#[test]
fn an_icmp_error_fits_the_buffer_of_a_socket_without_an_address() {
    for address in addresses("an_icmp_error_fits_the_buffer") {
        let unspecified: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut sender = bind(unspecified);
        let peer = SocketAddr::new(address, 1);
        sender.send(&Datagram { peer, ..Datagram::default() }, &[IoSlice::new(b"?")]).unwrap();
        wait(&sender);
        let error = sender.take_error().unwrap();
        assert_eq!((error.peer, error.offender), (Some(peer), Some(address)));
        assert_eq!(error.errno, libc::ECONNREFUSED);
    }
}

#[test]
fn source_ports_choose_the_worker() {
    const WORKERS: usize = 3;
    for address in addresses("source_ports_choose_the_worker") {
        let first = UdpSocket::bind(&UdpConfig { reuse_port: true, ..config(address) }).unwrap();
        let bind = first.local_addr();
        let other = || UdpConfig { bind, reuse_port: true, ..config(address) };
        let mut workers = vec![first];
        workers.extend((1..WORKERS).map(|_| UdpSocket::bind(&other()).unwrap()));
        workers[0].steer_by_source_port(WORKERS as u32).unwrap();
        for _ in 0..20 {
            let mut sender = self::bind(address);
            let port = usize::from(sender.local_addr().port());
            sender.send(&to(&workers[0]), &[IoSlice::new(b"which?")]).unwrap();
            let chosen = &mut workers[port % WORKERS];
            assert_eq!(receive(chosen, 6)[0].1.peer, sender.local_addr());
        }
        let refused = workers[0].steer_by_source_port(0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn what_was_granted_of_a_buffer_is_told_as_it_was_asked_for() {
    let socket = |recv_buffer, send_buffer| {
        let address = SocketAddr::from(([127, 0, 0, 1], 0)).ip();
        UdpSocket::bind(&UdpConfig { recv_buffer, send_buffer, ..config(address) }).unwrap()
    };
    let modest = socket(100_000, 50_000);
    assert_eq!(modest.recv_buffer().unwrap(), 100_000);
    assert_eq!(modest.send_buffer().unwrap(), 50_000);
    let limit = |name| fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
    let limit = |name| limit(name).trim().parse::<usize>().unwrap();
    // A thread for itself, since privileges do not come back.
    let unprivileged = std::thread::spawn(move || {
        netio::process::privileges::give_up().unwrap();
        let socket = socket(1 << 29, 1 << 29);
        (socket.recv_buffer().unwrap(), socket.send_buffer().unwrap())
    });
    let least = |limit: usize| limit.min(1 << 29);
    let limits = (least(limit("rmem_max")), least(limit("wmem_max")));
    assert_eq!(unprivileged.join().unwrap(), limits);
}

#[test]
fn losses_in_the_kernel_are_counted() {
    const SENT: usize = 500;
    let mut sender = bind(V4);
    let mut receiver =
        UdpSocket::bind(&UdpConfig { recv_buffer: 4096, gro: false, ..config(V4) }).unwrap();
    assert_eq!(receiver.kernel_drops().unwrap(), 0);
    for _ in 0..SENT {
        sender.send(&to(&receiver), &[IoSlice::new(&[0; 500])]).unwrap();
    }
    let (mut slots, mut arrived) = (slots(16), 0);
    while arrived + receiver.kernel_drops().unwrap() < SENT as u64 {
        wait(&receiver);
        arrived += receiver.recv(&mut slots).unwrap() as u64;
    }
    assert_eq!(arrived + receiver.kernel_drops().unwrap(), SENT as u64);
    assert!(receiver.kernel_drops().unwrap() > 0 && arrived > 0);
}

#[test]
fn what_does_not_fit_its_slot_is_discarded_and_counted() {
    let (mut sender, mut receiver) = (bind(V4), bind(V4));
    sender.send(&to(&receiver), &[IoSlice::new(&[1; 100])]).unwrap();
    sender.send(&to(&receiver), &[IoSlice::new(&[2; 10])]).unwrap();
    let mut slots = [Slot::with_capacity(50), Slot::with_capacity(50)];
    loop {
        wait(&receiver);
        match receiver.recv(&mut slots).unwrap() {
            0 => {}
            count => break assert_eq!(count, 1),
        }
    }
    assert_eq!(slots[0].packet[..], [2; 10]);
    assert_eq!(receiver.truncated(), 1);
}

#[test]
fn a_batch_beyond_the_mtu_is_refused_and_goes_singly() {
    let Some(netns) = ScratchNetns::for_test("a_batch_beyond_the_mtu") else { return };
    let links = Links::in_netns(&netns).unwrap();
    links.set_mtu("lo", 1500).unwrap();
    links.set_up("lo").unwrap();
    for address in [V4, V6] {
        let (mut sender, mut receiver) = netns.run(|| (bind(address), bind(address))).unwrap();
        assert_eq!(sender.path_mtu(receiver.local_addr()).unwrap(), 1500);
        // The answer is the route's in the socket's namespace, whoever asks from where.
        assert_ne!(bind(address).path_mtu(receiver.local_addr()).unwrap(), 1500);

        let payload = pattern(3000);
        let meta = Datagram { segment_size: 1500, ..to(&receiver) };
        let refused = sender.send(&meta, &[IoSlice::new(&payload)]).unwrap_err();
        let code = refused.raw_os_error();
        assert!(matches!(code, Some(libc::EMSGSIZE | libc::EINVAL)), "{refused}");
        for datagram in payload.chunks(1500) {
            sender.send(&to(&receiver), &[IoSlice::new(datagram)]).unwrap();
        }
        let datagrams = receive(&mut receiver, 3000).into_iter();
        assert_eq!(datagrams.flat_map(|(bytes, _)| bytes).collect::<Vec<_>>(), payload);

        let segment_size = if address == V4 { 1500 - 28 } else { 1500 - 48 };
        let meta = Datagram { segment_size, ..to(&receiver) };
        sender.send(&meta, &[IoSlice::new(&payload)]).unwrap();
        receive(&mut receiver, 3000);
    }
}

/// Two hosts with a router between them, whose way on takes but 1400 bytes.
struct Narrow {
    near: ScratchNetns,
    _router: ScratchNetns,
    far: ScratchNetns,
}

impl Narrow {
    const MTU: u16 = 1400;

    fn for_test(test: &str) -> Option<Self> {
        let near = ScratchNetns::for_test(test)?;
        let router = ScratchNetns::for_test(test)?;
        let far = ScratchNetns::for_test(test)?;
        let [at_near, between, at_far] = [&near, &router, &far].map(|netns| {
            // Or they would keep silent until nobody has claimed their address for a second.
            netns.set_sysctl("net.ipv6.conf.default.dad_transmits", "0").unwrap();
            Links::in_netns(netns).unwrap()
        });
        at_near.create_veth("up", "down", &router).unwrap();
        between.create_veth("on", "end", &far).unwrap();
        for (links, name, v4, v6) in [
            (&at_near, "up", "10.1.0.1", "fd01::1"),
            (&between, "down", "10.1.0.254", "fd01::254"),
            (&between, "on", "10.2.0.254", "fd02::254"),
            (&at_far, "end", "10.2.0.2", "fd02::2"),
        ] {
            links.set_up(name).unwrap();
            links.add_address(name, ip(v4), 24).unwrap();
            links.add_address(name, ip(v6), 64).unwrap();
        }
        for (links, name) in [(&between, "on"), (&at_far, "end")] {
            links.set_mtu(name, u32::from(Self::MTU)).unwrap();
        }
        router.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        router.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        for (links, to, via) in [
            (&at_near, ("10.2.0.0", 24), "10.1.0.254"),
            (&at_near, ("fd02::", 64), "fd01::254"),
            (&at_far, ("10.1.0.0", 24), "10.2.0.254"),
            (&at_far, ("fd01::", 64), "fd02::254"),
        ] {
            links.add_route(&Route::new(ip(to.0), to.1).via(ip(via))).unwrap();
        }
        Some(Self { near, _router: router, far })
    }
}

/// The near host, the router, and the far host, by IP version.
const NARROW: [[&str; 3]; 2] =
    [["10.1.0.1", "10.1.0.254", "10.2.0.2"], ["fd01::1", "fd01::254", "fd02::2"]];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// All that the kernel counts to the Ethernet header is IP.
fn headers(address: IpAddr) -> usize {
    if address.is_ipv4() { 28 } else { 48 }
}

#[test]
fn a_router_tells_the_mtu_behind_it() {
    let Some(net) = Narrow::for_test("a_router_tells_the_mtu_behind_it") else { return };
    for [near, router, far] in NARROW.map(|of_version| of_version.map(ip)) {
        let config = UdpConfig { dont_fragment: true, ..config(near) };
        let mut sender = net.near.run(|| UdpSocket::bind(&config)).unwrap().unwrap();
        let mut receiver = net.far.run(|| bind(far)).unwrap();
        let peer = receiver.local_addr();
        assert_eq!(sender.path_mtu(peer).unwrap(), 1500);
        let whole = pattern(1500 - headers(far));
        sender.send(&to(&receiver), &[IoSlice::new(&whole)]).unwrap();
        wait(&sender);
        let error = sender.take_error().unwrap();
        assert_eq!((error.errno, error.mtu), (libc::EMSGSIZE, Some(1400)));
        let expected =
            if far.is_ipv4() { (ErrorOrigin::Icmp, 3, 4) } else { (ErrorOrigin::Icmp6, 2, 0) };
        assert_eq!((error.origin, error.kind, error.code), expected);
        assert_eq!((error.peer, error.offender), (Some(peer), Some(router)));
        assert_eq!(sender.path_mtu(peer).unwrap(), Narrow::MTU);

        // Knowing this, the kernel does not stand in the way: not of a batch, nor of what fits.
        let batch = Datagram { segment_size: whole.len() as u16, ..to(&receiver) };
        sender.send(&batch, &[IoSlice::new(&pattern(2 * whole.len()))]).unwrap();
        let fitting = pattern(usize::from(Narrow::MTU) - headers(far));
        sender.send(&to(&receiver), &[IoSlice::new(&fitting)]).unwrap();
        assert_eq!(receive(&mut receiver, fitting.len())[0].0, fitting);
        // What does not fit the device is refused, and not cut up.
        let refused = sender.send(&to(&receiver), &[IoSlice::new(&pattern(whole.len() + 1))]);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }
}

/// As far as that is the sender's to say: routers never fragment IPv6.
#[test]
fn what_may_be_fragmented_arrives_where_it_does_not_fit() {
    let test = "what_may_be_fragmented_arrives_where_it_does_not_fit";
    let Some(net) = Narrow::for_test(test) else { return };
    for [near, _, far] in NARROW.map(|of_version| of_version.map(ip)) {
        let mut sender = net.near.run(|| bind(near)).unwrap();
        let mut receiver = net.far.run(|| bind(far)).unwrap();
        let whole = pattern(1500 - headers(far));
        sender.send(&to(&receiver), &[IoSlice::new(&whole)]).unwrap();
        if far.is_ipv6() {
            wait(&sender);
            assert_eq!(sender.take_error().unwrap().mtu, Some(1400));
            // From now on the sender's host does it.
            sender.send(&to(&receiver), &[IoSlice::new(&whole)]).unwrap();
        }
        assert_eq!(receive(&mut receiver, whole.len())[0].0, whole);
        assert!(sender.take_error().is_none());
    }
}

/// Which target it is about, even if several are refused at once, and by batches, and if other
/// sockets are refused, too.
#[test]
fn a_closed_port_of_another_host_is_told_by_its_address() {
    let test = "a_closed_port_of_another_host_is_told_by_its_address";
    let Some(net) = Narrow::for_test(test) else { return };
    // The kernel sends 6 at once to one host and then one a second; here they are all wanted.
    // Its limit of 50 at once to everybody cannot be set here.
    net.far.set_sysctl("net.ipv4.icmp_ratelimit", "0").unwrap();
    net.far.set_sysctl("net.ipv6.icmp.ratelimit", "0").unwrap();
    for [near, _, far] in NARROW.map(|of_version| of_version.map(ip)) {
        let (mut one, mut other) = net.near.run(|| (bind(near), bind(near))).unwrap();
        for (ports, socket) in [(6000_u16..6004, &mut one), (7000..7004, &mut other)] {
            for port in ports {
                let peer = SocketAddr::new(far, port);
                let batch = Datagram { peer, segment_size: 100, ..Datagram::default() };
                socket.send(&batch, &[IoSlice::new(&[0; 300])]).unwrap();
            }
        }
        for (ports, socket) in [(6000_u16..6004, &mut one), (7000..7004, &mut other)] {
            // A batch may be refused as one or by datagram.
            let mut told = BTreeSet::new();
            while told.len() < ports.len() {
                wait(socket);
                while let Some(error) = socket.take_error() {
                    assert_eq!((error.errno, error.offender), (libc::ECONNREFUSED, Some(far)));
                    told.insert(error.peer.unwrap());
                }
            }
            assert_eq!(told, ports.map(|port| SocketAddr::new(far, port)).collect());
        }
    }
}

#[test]
fn a_socket_stays_in_the_namespace_it_was_bound_in() {
    let Some(netns) = ScratchNetns::for_test("a_socket_stays") else { return };
    Links::in_netns(&netns).unwrap().set_up("lo").unwrap();
    let (mut inside, mut outside) = (netns.run(|| bind(V4)).unwrap(), bind(V4));
    assert!(!Netns::current().unwrap().is_same(&netns));
    inside.send(&to(&outside), &[IoSlice::new(b"lost")]).unwrap();
    wait(&inside);
    assert_eq!(inside.take_error().unwrap().errno, libc::ECONNREFUSED);
    assert_eq!(outside.recv(&mut slots(1)).unwrap(), 0);
}
