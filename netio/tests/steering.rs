//! Programs that choose the queues of a TUN, against the real kernel: its own packets, and the
//! queues that they come out of.

#![expect(clippy::unwrap_used, reason = "in the helpers of tests, as in tests")]

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZero,
    time::Duration,
};

use geneve::{
    flow::{FlowKey, Stickiness},
    inner::Inner,
};
use netio::{
    Device, Slot,
    link::Links,
    netns::{Netns, ScratchNetns, skip_test},
    poll::Poller,
    tun::{MAX_PACKET, Tun, TunConfig, TunQueue, steering::Program},
};
use siphasher::sip::SipHasher13;
use socket2::{Domain, Socket, Type};

const QUEUES: NonZero<u16> = NonZero::new(3).unwrap();
const KEY: &[u8; 16] = b"a key of 16 byte";
/// Of each kind: TCP and UDP, over IPv4 and over IPv6.
const FLOWS: usize = 24;

/// A namespace for a test with a device in it, where programs can be loaded.
fn device(test: &str) -> Option<(ScratchNetns, Tun)> {
    let may = File::options().read(true).write(true).open("/dev/net/tun").map(drop);
    let may = may.and_then(|()| Program::load(KEY, Stickiness::FiveTuple, QUEUES).map(drop));
    if let Err(error) = may {
        skip_test(test, error);
        return None;
    }
    let netns = ScratchNetns::for_test(test)?;
    let config = TunConfig {
        name: "tun0".into(),
        queues: QUEUES.get().into(),
        mtu: 1500,
        offload: true,
        gso_max_size: None,
    };
    let tun = netns.run(|| Tun::create(&config)).unwrap().unwrap();
    let links = Links::in_netns(&netns).unwrap();
    links.set_up("tun0").unwrap();
    links.add_address("tun0", "10.0.0.1".parse().unwrap(), 24).unwrap();
    links.add_address("tun0", "fd00::1".parse().unwrap(), 64).unwrap();
    Some((netns, tun))
}

/// Begins flows to addresses where nobody is.
fn begin_flows(netns: &Netns) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for to in 2..2 + FLOWS as u16 {
        for (domain, address) in [
            (Domain::IPV4, IpAddr::from([10, 0, 0, to as u8])),
            (Domain::IPV6, IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, to])),
        ] {
            let to = SocketAddr::new(address, 1000 + to).into();
            for kind in [Type::STREAM, Type::DGRAM] {
                let socket = netns.run(|| Socket::new(domain, kind, None)).unwrap().unwrap();
                socket.set_nonblocking(true).unwrap();
                match socket.connect(&to) {
                    Err(error) if kind == Type::STREAM => {
                        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
                    }
                    connected => {
                        connected.unwrap();
                        socket.send(b"hello").unwrap();
                    }
                }
                sockets.push(socket);
            }
        }
    }
    sockets
}

/// Which queue each flow came out of.
fn arrivals(queues: &mut [TunQueue]) -> BTreeMap<FlowKey, usize> {
    let mut poller = Poller::new().unwrap();
    for (token, queue) in queues.iter().enumerate() {
        poller.add(queue, token as u64).unwrap();
    }
    let (mut ready, mut found) = (Vec::new(), BTreeMap::new());
    let mut slots: Vec<_> = (0..8).map(|_| Slot::with_capacity(MAX_PACKET)).collect();
    while found.len() < 4 * FLOWS {
        poller.wait(&mut ready, Some(Duration::from_secs(10))).unwrap();
        assert!(!ready.is_empty(), "{} flows came", found.len());
        for &token in &ready {
            let received = queues[token as usize].recv(&mut slots).unwrap();
            for slot in &slots[..received] {
                let inner = Inner::parse(&slot.packet).unwrap();
                if inner.ports().is_some_and(|(_, port)| (1002..1100).contains(&port)) {
                    found.insert(inner.flow_key(), token as usize);
                }
            }
        }
    }
    found
}

fn owner(flow: &FlowKey, stickiness: Stickiness) -> usize {
    let sticky = flow.sticky(stickiness);
    let bytes: Vec<_> = sticky.to_hash_words().bytes().collect();
    let hash = SipHasher13::new_with_key(KEY).hash(&bytes);
    (((hash >> 32) * u64::from(QUEUES.get())) >> 32) as usize
}

#[test]
fn packets_come_out_of_the_queue_of_their_flow() {
    let Some((netns, mut tun)) = device("packets_come_out_of_the_queue_of_their_flow") else {
        return;
    };
    let steering = tun.steering().unwrap();
    let mut queues = tun.take_queues();
    for stickiness in Stickiness::ALL {
        let program = Program::load(KEY, stickiness, QUEUES).unwrap();
        steering.choose_by(Some(&program)).unwrap();
        // The kernel needs neither any more.
        drop(program);
        let _sockets = begin_flows(&netns);
        let mut served = [0; QUEUES.get() as usize];
        for (flow, queue) in arrivals(&mut queues) {
            assert_eq!(queue, owner(&flow, stickiness), "{flow}, {}", stickiness.name());
            served[queue] += 1;
        }
        assert!(served.iter().all(|&count| count > 0), "{served:?}, {}", stickiness.name());
    }

    steering.choose_by(None).unwrap();
    let _sockets = begin_flows(&netns);
    let strange = |(flow, queue): &(FlowKey, usize)| *queue != owner(flow, Stickiness::TwoTuple);
    assert!(arrivals(&mut queues).into_iter().any(|arrival| strange(&arrival)));
}

#[test]
fn who_has_taken_the_queues_is_not_told_how_to_choose_one() {
    let Some((netns, mut tun)) = device("who_has_taken_the_queues") else { return };
    let steering = tun.steering().unwrap();
    drop(tun.take_queues());
    assert_eq!(tun.steering().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let links = Links::in_netns(&netns).unwrap();
    assert!(links.exists("tun0").unwrap());
    drop(steering);
    assert!(!links.exists("tun0").unwrap());
}
