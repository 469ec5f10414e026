//! Flows: to whom they go, how long they live.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Problem, Tcp};

use super::{CLIENT_4, FAR_SERVER_4, Inputs, SERVER_4, families, four, six, text};

pub(super) fn add(inputs: &mut Inputs) {
    for name in ["unknown-tcp-drop", "unknown-tcp-reset", "unknown-tcp-adopt"] {
        unknown(inputs, name);
    }
    expiry(inputs);
    placement(inputs);
    inputs.file(
        "cookie-epochs",
        "01-from-igw",
        families().map(|(_, ip)| ip.udp((1, 2), b"x")).into(),
    );
    inputs.file(
        "cookie-epochs",
        "02-from-igw",
        families().map(|(_, ip)| ip.udp((1, 2), b"y")).into(),
    );
}

/// TCP packets without SYN, from either side, of flows that nobody opened.
fn unknown(inputs: &mut Inputs, name: &str) {
    let back = four().reversed();
    let fin = Tcp::DATA.flags(TcpFlags::FIN | TcpFlags::ACK);
    let mut without_ack = Tcp::DATA.flags(TcpFlags::FIN);
    without_ack.sequence = u32::MAX - 3;
    inputs.file(
        name,
        "01-from-igw",
        vec![
            four().tcp((1000, 80), Tcp::DATA, b"hello"),
            four().tcp((1001, 80), fin, &[]),
            four().tcp((1002, 80), without_ack, b"abcde"),
            four().tcp((1003, 80), Tcp::DATA.flags(TcpFlags::RST), &[]),
            six().tcp((1004, 80), Tcp::DATA, b"hello"),
        ],
    );
    let answer = Tcp::ANSWER.flags(TcpFlags::ACK | TcpFlags::PSH);
    inputs.file(
        name,
        "02-from-app-a",
        vec![back.tcp((80, 1005), answer, b"hello"), back.tcp((80, 1006), Tcp::SYN_ACK, &[])],
    );
}

fn expiry(inputs: &mut Inputs) {
    let ports = (1000, 80);
    let open = |ip: &Ip| ip.tcp(ports, Tcp::SYN, &[]);
    let data = |ip: &Ip| ip.tcp(ports, Tcp::DATA, b"still there?");
    // With a first packet of data they are not half open any more.
    let opened = vec![open(&four()), open(&six()), data(&four()), data(&six())];
    inputs.file("idle-tcp", "01-from-igw", opened);
    inputs.file("idle-tcp", "02-from-igw", vec![data(&four()), data(&six())]);
    inputs.file(
        "idle-tcp",
        "03-from-app-a",
        vec![four().reversed().tcp((80, 1000), Tcp::ANSWER, b"")],
    );

    let packets = vec![
        four().udp((1000, 53), b"question"),
        six().udp((1000, 53), b"question"),
        four().echo_request(1, 1),
    ];
    inputs.file("idle-other", "01-from-igw", packets);
}

fn placement(inputs: &mut Inputs) {
    let opened = |ip: &Ip, count| {
        (0..count).map(|n| ip.tcp((1000 + n, 80), Tcp::SYN, &[])).collect::<Vec<_>>()
    };
    let to_both = || {
        let far = Ip::new(CLIENT_4, FAR_SERVER_4);
        [opened(&four(), 12), opened(&far, 12)].concat()
    };
    inputs.file("zones-apart", "01-from-igw", to_both());
    inputs.file("zones-crossed", "01-from-igw", to_both());
    inputs.file("weights", "01-from-igw", opened(&four(), 100));
    let about = four().reversed().udp((53, 1), b"unknown");
    let near = [
        four().tcp((1000, 80), Tcp::SYN, &[]),
        six().udp((1000, 53), b"question"),
        four().icmp_error(Problem::PortUnreachable, &about, 28),
    ];
    let far = Ip::new(CLIENT_4, FAR_SERVER_4).udp((1000, 53), b"question");
    inputs.file("no-target", "01-from-igw", [&near[..], &[far]].concat());

    for name in ["sticky-3-tuple", "sticky-2-tuple"] {
        let mut packets = Vec::new();
        for last in 1..=6 {
            let ip = Ip::new(&format!("203.0.113.{last}"), SERVER_4);
            packets.extend(opened(&ip, 3));
            packets.extend((0..2).map(|n| ip.udp((2000 + n, 53), &text(20))));
            packets.push(ip.echo_request(1, 1));
        }
        inputs.file(name, "01-from-igw", packets);
        let answers = (1..=6).flat_map(|last| {
            let ip = Ip::new(SERVER_4, &format!("203.0.113.{last}"));
            [ip.tcp((80, 1001), Tcp::SYN_ACK, &[]), ip.udp((53, 2001), b"x"), ip.echo_reply(1, 1)]
        });
        inputs.file(name, "02-from-app-a", answers.collect());
    }
}
