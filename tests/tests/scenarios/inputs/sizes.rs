//! Packets that are too big, super-packets, and packets with more behind them.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments};

use super::{Inputs, families, four, six, text};

/// What fits with the dialect of AWS on an underlay of 1500 bytes.
const FITS: usize = 1500 - 68;

pub(super) fn add(inputs: &mut Inputs) {
    let datagram = |ip: &Ip, header, len: usize| ip.udp((1000, 53), &text(len - header - 8));
    inputs.file(
        "oversize-ipv4",
        "01-from-igw",
        vec![
            datagram(&four(), 20, FITS),
            datagram(&four(), 20, FITS + 1),
            datagram(&four().may_fragment(), 20, FITS + 1),
        ],
    );
    inputs.file("oversize-ipv4", "02-from-igw", vec![datagram(&four(), 20, 1300)]);
    inputs.file(
        "oversize-ipv6",
        "01-from-igw",
        vec![datagram(&six(), 40, FITS), datagram(&six(), 40, FITS + 1)],
    );
    let back = four().reversed();
    inputs.file("oversize-ipv4", "03-from-app-a", vec![back.udp((53, 1000), &text(1450))]);

    // None of these may be answered (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
    let large = four().udp((1000, 53), &text(4000));
    let error = four().icmp_error(Problem::PortUnreachable, &large, 1450);
    let large = six().udp((1000, 53), &text(4000));
    let error_6 = six().icmp_error(Problem::PortUnreachable, &large, 1450);
    let cut = |ip: Ip, id| fragments(&ip.udp((1000, 53), &text(4000)), id, 1440);
    let unanswered = [vec![error, error_6], cut(four(), 5), cut(six(), 6)[1..].to_vec()];
    inputs.file("oversize-unanswered", "01-from-igw", vec![cut(six(), 6)[0].clone()]);
    inputs.file("oversize-unanswered", "02-from-igw", unanswered.concat());
    let flood = (0..60).map(|n| datagram(&four().identification(n), 20, FITS + 1)).collect();
    inputs.file("oversize-flood", "01-from-igw", flood);

    fragmented(inputs);
    clamped(inputs);

    for (family, there) in families() {
        super_packets(inputs, family, &there);
        let name = format!("surplus-{family}");
        let padded = |packet: Vec<u8>, surplus: usize| [packet, vec![0xee; surplus]].concat();
        inputs.file(
            name,
            "01-from-igw",
            vec![
                padded(there.tcp((1000, 80), Tcp::SYN, &[]), 6),
                padded(there.udp((1000, 53), b"question"), 3),
                padded(there.udp((1000, 53), &text(1300)), 180),
                there.echo_request(1, 1),
            ],
        );
    }
}

fn super_packets(inputs: &mut Inputs, family: &str, there: &Ip) {
    let back = there.reversed();
    let push = TcpFlags::ACK | TcpFlags::PSH;
    let (ports, answering) = ((50_000, 443), (443, 50_000));

    let name = format!("super-packets-tcp-{family}");
    inputs.file(&name, "01-from-igw", vec![there.tcp(ports, Tcp::SYN, &[])]);
    let odd = Tcp::DATA.after(10_500).flags(push | TcpFlags::FIN | TcpFlags::CWR);
    inputs.file(
        &name,
        "02-from-igw",
        vec![
            there.tcp(ports, Tcp::DATA.flags(push), &text(10_500)),
            there.tcp(ports, odd, &text(2000)),
        ],
    );
    inputs.file(&name, "03-from-app-a", vec![back.tcp(answering, Tcp::ANSWER, &text(5000))]);
    inputs.file(&name, "04-from-igw", vec![there.tcp(ports, Tcp::DATA, &text(4200))]);

    let name = format!("super-packets-udp-{family}");
    inputs.file(&name, "01-from-igw", vec![there.udp(ports, &text(6100))]);
    inputs.file(&name, "02-from-app-a", vec![back.udp(answering, &text(2400))]);
}

/// With DF clear: packets and fragments that are cut on the way to the appliance, both ways.
fn fragmented(inputs: &mut Inputs) {
    let name = "oversize-fragmented";
    let (there, back) = (four().may_fragment(), four().may_fragment().reversed());
    let datagram = |ip: &Ip, ports, id| ip.clone().identification(id).udp(ports, &text(1460));
    let out = (0..4).map(|n| datagram(&there, (1000 + n, 53), 10 + n));
    inputs.file(name, "01-from-igw", out.collect());
    let answers = (0..4).map(|n| datagram(&back, (53, 1000 + n), 20 + n));
    inputs.file(name, "02-from-app-a", answers.collect());
    // Fragments that are cut again: the last of them is none any more; one with options; and a ping,
    // which has no ports at all.
    let mut again = fragments(&there.udp((1000, 53), &text(4000)), 30, 1480);
    again
        .push(there.clone().identification(31).options(&[1, 1, 1, 0]).udp((1001, 53), &text(1460)));
    again.push(there.clone().identification(32).protocol(253, &text(1470)));
    inputs.file(name, "03-from-igw", again);
    let opened = [there.tcp((2000, 80), Tcp::SYN, &[])];
    inputs.file(name, "04-from-igw", opened.into());
    let long = there.clone().identification(40).tcp((2000, 80), Tcp::DATA, &text(4400));
    inputs.file(name, "05-from-igw", vec![long]);
}

/// What says how large segments may be.
fn clamped(inputs: &mut Inputs) {
    let name = "mss-clamp";
    let ports = (1000, 80);
    let open = |ip: &Ip, mss| ip.tcp(ports, Tcp::SYN.mss(mss), &[]);
    let accept = |ip: &Ip, mss| ip.reversed().tcp((80, 1000), Tcp::SYN_ACK.mss(mss), &[]);
    inputs.file(name, "01-from-igw", vec![open(&four(), 1460), open(&six(), 1440)]);
    inputs.file(name, "02-from-app-a", vec![accept(&four(), 1460), accept(&six(), 1440)]);
    // Small enough; just small enough; without the option; and no part of a handshake.
    let small = vec![
        four().tcp((1001, 80), Tcp::SYN.mss(536), &[]),
        four().tcp((1002, 80), Tcp::SYN.mss(1392), &[]),
        four().tcp((1003, 80), Tcp::SYN.mss(1393), &[]),
        six().tcp((1002, 80), Tcp::SYN.mss(1372), &[]),
        six().tcp((1003, 80), Tcp::SYN.mss(1373), &[]),
        four().tcp((1004, 80), Tcp::SYN, &[]),
        four().tcp(ports, Tcp::DATA.mss(1460), b"data"),
    ];
    inputs.file(name, "03-from-igw", small);
}
