//! The core of the SDK: whatever datagrams arrive, every packet is accounted for, answers go to who
//! asked, and what goes back unchanged is a stretch of what came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use appliance_sdk::session::{Content, Replies, Session, SessionConfig};
use appliance_sdk::{Action, Appliance, Arrival, DropReason, Packet};
use geneve::{Dialect, Header, Inner, IpVersion, Tags};
use gwlb_tests::packets::{Ip, Tcp, fragments};

use crate::engine::fuzz;
use crate::input::Input;

/// An appliance that does what the packet's last bytes say.
struct Moody {
    epoch: u64,
}

impl Appliance for Moody {
    type Flow = u32;

    fn packet(&mut self, packet: &mut Packet<'_>, seen: &mut u32) -> Action {
        *seen += 1;
        assert_eq!(Inner::parse(packet.bytes()).as_ref(), Ok(packet.inner()));
        assert!(packet.payload().len() <= packet.bytes().len());
        let mood = packet.bytes().last().copied().unwrap_or(0);
        match mood >> 2 & 7 {
            0 => {
                packet.reject();
            }
            1 => packet.inject(packet.bytes()),
            2 => packet.replace(packet.bytes()),
            // Of another flow, or of none.
            3 => packet.inject(b"noise"),
            4 => packet.replace(packet.payload()),
            5 => {
                let _ = packet.replace_payload(&[mood; 100]);
            }
            _ => {}
        }
        [Action::Forward, Action::Drop, Action::ForwardFlow, Action::DropFlow]
            [usize::from(mood & 3)]
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

const MAX_FLOWS: usize = 6;

#[test]
fn datagrams() {
    let start = now();
    fuzz!(1_500, |bytes: &[u8]| {
        let mut input = Input::new(bytes);
        let config = SessionConfig { max_flows: MAX_FLOWS, ..SessionConfig::default() };
        let mut session = Session::new(Moody { epoch: 0 }, &config);
        let mut replies = Replies::new();
        let mut now = start;
        let mut arrivals: Vec<Arrival> = Vec::new();
        while !input.is_empty() {
            replies.clear();
            let step = input.byte();
            match step & 7 {
                0 => now += Duration::from_secs(u64::from(input.byte()) * 4),
                1 => session.appliance_mut().epoch += 1,
                2 => {
                    let endpoint = u64::from(input.byte() & 3);
                    let packet = some_packet(&mut input);
                    session.emit(endpoint, &packet, now, &mut replies);
                    // To a gateway that sent something before, and never more than was given.
                    for reply in &replies {
                        assert!(arrivals.iter().any(|arrival| arrival.back() == reply.route));
                    }
                    assert!(replies.iter().count() <= 1);
                }
                3 => session.handle_timeout(now),
                _ => {
                    let arrival = arrival(step >> 3);
                    arrivals.push(arrival);
                    let (buffer, size) = datagrams_of(&mut input);
                    let before = session.stats().received.packets;
                    session.handle(&arrival, &buffer, size, now, &mut replies);
                    let step = if size == 0 { buffer.len() } else { size }.max(1);
                    let count = buffer.len().div_ceil(step).max(1) as u64;
                    assert_eq!(session.stats().received.packets - before, count);
                    assert_replies(&arrival, &buffer, step, &replies);
                }
            }
            let failed = replies.iter().next().filter(|_| step & 0x80 > 0);
            if let Some(reply) = failed {
                session.not_sent(reply.count, reply.count.packets, DropReason::SendFailed);
            }
            let stats = session.stats();
            assert_eq!(stats.unaccounted(), 0, "{stats:?}");
            assert!(stats.flows.current <= MAX_FLOWS as u64, "{stats:?}");
            let gone = stats.flows.expired + stats.flows.evicted;
            assert_eq!(stats.flows.opened, stats.flows.current + gone, "{stats:?}");
        }
    });
}

fn assert_replies(arrival: &Arrival, buffer: &[u8], step: usize, replies: &Replies) {
    let mut behind = 0;
    for reply in replies {
        assert_eq!(reply.route, arrival.back(), "the answer goes elsewhere");
        match &reply.content {
            Content::Unchanged { range, segment_size } => {
                assert!(range.start >= behind && range.end <= buffer.len(), "{range:?}");
                behind = range.end;
                let datagrams = buffer[range.clone()].chunks(*segment_size);
                assert_eq!(datagrams.len() as u64, reply.count.packets);
                assert_eq!(range.start % step, 0, "datagrams go back whole");
                let bytes: usize = datagrams.map(|datagram| inner_of(datagram).0.total_len).sum();
                assert_eq!(bytes as u64, reply.count.bytes);
            }
            Content::Written(datagram) => {
                assert_eq!(reply.count.packets, 1);
                // The header is one that this gateway has just sent.
                let (_, header) = inner_of(datagram);
                assert!(buffer.chunks(step).any(|sent| sent.starts_with(header)));
            }
        }
    }
}

/// What a datagram carries that an appliance sends, and the header in front of it.
fn inner_of(datagram: &[u8]) -> (Inner, &[u8]) {
    let (header, payload) = Header::parse(datagram).expect("a Geneve header");
    assert!(!header.is_control());
    let tags = |dialect: &Dialect| dialect.read(&header).is_ok();
    assert!(Dialect::ALL.iter().any(tags), "the header of a dialect");
    (Inner::parse(payload).expect("a packet inside"), header.as_bytes())
}

/// Two gateways with two ports each, over IPv4 and IPv6.
fn arrival(which: u8) -> Arrival {
    let port = 61_000 + u16::from(which & 1);
    let (gateway, local): ([SocketAddr; 2], _) = if which & 2 == 0 {
        let gateway = |last| SocketAddr::from(([192, 0, 2, last], port));
        ([gateway(1), gateway(2)], SocketAddr::from(([192, 0, 2, 11], geneve::PORT)))
    } else {
        let address = |last| [0x2001, 0xdb8, 0, 0, 0, 0, 0, last];
        let gateway = |last| SocketAddr::from((address(last), port));
        ([gateway(1), gateway(2)], SocketAddr::from((address(11), geneve::PORT)))
    };
    Arrival { gateway: gateway[usize::from(which >> 2 & 1)], local, tos: which & 3 }
}

/// What one receive call gives: noise, or datagrams that a gateway could have sent.
fn datagrams_of(input: &mut Input<'_>) -> (Vec<u8>, usize) {
    let choice = input.byte();
    if choice.is_multiple_of(4) {
        let size = usize::from(input.byte());
        return (input.chunk().to_vec(), size);
    }
    let count = 1 + usize::from(choice >> 6);
    let mut datagram = datagram(input);
    if choice & 0x10 > 0 {
        let at = input.below(datagram.len());
        datagram[at] = input.byte();
    }
    if choice & 0x20 > 0 {
        datagram.truncate(input.below(datagram.len() + 1));
    }
    let size = if count > 1 { datagram.len() } else { 0 };
    let mut buffer = datagram.repeat(count);
    if choice & 4 > 0 {
        // A last one that is shorter.
        buffer.truncate(buffer.len().saturating_sub(input.below(60)));
    }
    (buffer, size)
}

fn datagram(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.byte();
    let dialect = &Dialect::ALL[usize::from(choice & 3) % Dialect::ALL.len()];
    let tags = Tags { endpoint: u64::from(choice >> 2 & 3), attachment: 0, cookie: input.u32() };
    let packet = some_packet(input);
    let version = match packet.first().map(|byte| byte >> 4) {
        Some(6) => IpVersion::V6,
        _ => IpVersion::V4,
    };
    let mut datagram = vec![0; dialect.header_len()];
    dialect.write(&tags, version.into(), &mut datagram).expect("room for the header");
    datagram.extend(packet);
    datagram
}

/// A packet of one of a few flows, or noise.
pub fn some_packet(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.byte();
    let mut ip = if choice & 1 == 0 {
        Ip::new("203.0.113.7", "10.0.1.11")
    } else {
        Ip::new("2001:db8:113::7", "fd00:10:0:1::11")
    };
    let mut ports = (1000 + u16::from(choice >> 1 & 3), 53);
    if choice & 8 > 0 {
        (ip, ports) = (ip.reversed(), (ports.1, ports.0));
    }
    let payload = input.chunk();
    match choice >> 4 {
        0 => ip.tcp(ports, Tcp::SYN, &[]),
        1 => ip.tcp(ports, Tcp::SYN_ACK, &[]),
        2 | 3 => ip.tcp(ports, Tcp::DATA.after(usize::from(input.byte())), payload),
        4 => ip.tcp(ports, Tcp::ANSWER, payload),
        5 | 6 => ip.udp(ports, payload),
        7 => ip.echo_request(ports.0, 1),
        8 => ip.protocol(47, payload),
        9 => fragments(&ip.udp(ports, &[7; 100]), 9, 64).remove(usize::from(choice & 1)),
        10 => ip.icmp_error(gwlb_tests::packets::Problem::PortUnreachable, payload, 1400),
        11 => {
            let about = ip.reversed().udp((ports.1, ports.0), payload);
            ip.icmp_error(gwlb_tests::packets::Problem::TooBig(1300), &about, 64)
        }
        _ => payload.to_vec(),
    }
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary point from which virtual time runs")]
fn now() -> Instant {
    Instant::now()
}
