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
