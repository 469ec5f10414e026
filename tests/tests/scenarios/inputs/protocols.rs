//! Every protocol both ways, and IP headers with more in them.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Tcp};

use super::{CLIENT_4, CLIENT_6, Inputs, SERVER_4, SERVER_6, families, four, six, text};

const GRE: u8 = 47;
const ESP: u8 = 50;

pub(super) fn add(inputs: &mut Inputs) {
    for (family, there) in families() {
        let back = there.reversed();
        connection(inputs, &format!("tcp-{family}"), &there);

        let name = format!("udp-{family}");
        let questions = [53, 5000, 5001].map(|port| there.udp((40_000, port), b"question"));
        inputs.file(&name, "01-from-igw", questions.into());
        let answers = [53, 5000, 5001].map(|port| back.udp((port, 40_000), b"an answer"));
        inputs.file(&name, "02-from-app-a", answers.into());

        let name = format!("icmp-{family}");
        inputs.file(&name, "01-from-igw", vec![there.echo_request(7, 1), there.echo_request(8, 1)]);
        inputs.file(&name, "02-from-app-a", vec![back.echo_reply(7, 1), back.echo_reply(8, 1)]);
        inputs.file(&name, "03-from-app-a", vec![back.echo_request(9, 1)]);
    }
    for (name, number, there) in [("gre-ipv4", GRE, four()), ("esp-ipv6", ESP, six())] {
        let packet =
            |ip: &Ip, first| ip.protocol(number, &[&[first, 0, 8, 0], &text(60)[..]].concat());
        inputs.file(name, "01-from-igw", vec![packet(&there, 0)]);
        inputs.file(name, "02-from-app-a", vec![packet(&there.reversed(), 1)]);
    }

    // Record route with room for one address, and padding (RFC 791 §3.1).
    let there = four().options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    both_ways(inputs, "ipv4-options", &there);
    both_ways(inputs, "ipv6-extension-headers", &six().extensions());

    for dialect in ["dialect-aws", "dialect-tencent", "dialect-google"] {
        let packets = |ports| families().map(|(_, ip)| ip.tcp(ports, Tcp::SYN, &[])).into();
        inputs.file(dialect, "01-from-igw", packets((1000, 80)));
        let answer = |ip: Ip| ip.reversed().tcp((80, 1000), Tcp::SYN_ACK, &[]);
        inputs.file(dialect, "02-from-app-a", families().map(|(_, ip)| answer(ip)).into());
    }
    inputs.file(
        "underlay-ipv6",
        "01-from-igw",
        families().map(|(_, ip)| ip.udp((1, 2), b"x")).into(),
    );
}

/// A connection from the internet: opened, used in both directions, closed; and one from inside.
fn connection(inputs: &mut Inputs, name: &str, there: &Ip) {
    let back = there.reversed();
    let (ports, answering) = ((50_000, 443), (443, 50_000));
    inputs.file(name, "01-from-igw", vec![there.tcp(ports, Tcp::SYN, &[])]);
    inputs.file(name, "02-from-app-a", vec![back.tcp(answering, Tcp::SYN_ACK, &[])]);
    let request = text(100);
    inputs.file(
        name,
        "03-from-igw",
        vec![
            there.tcp(ports, Tcp::DATA, &[]),
            there.tcp(ports, Tcp::DATA.flags(TcpFlags::ACK | TcpFlags::PSH), &request),
        ],
    );
    let answer = text(1000);
    let last = Tcp::ANSWER.after(1000).flags(TcpFlags::ACK | TcpFlags::PSH);
    inputs.file(
        name,
        "04-from-app-a",
        vec![back.tcp(answering, Tcp::ANSWER, &answer), back.tcp(answering, last, &answer)],
    );
    let end = Tcp::DATA.after(100).flags(TcpFlags::FIN | TcpFlags::ACK);
    let reset = Tcp::ANSWER.after(2000).flags(TcpFlags::RST);
    inputs.file(name, "05-from-igw", vec![there.tcp(ports, end, &[])]);
    inputs.file(name, "06-from-app-a", vec![back.tcp(answering, reset, &[])]);
    inputs.file(name, "07-from-app-a", vec![back.tcp((51_000, 80), Tcp::SYN, &[])]);
    inputs.file(name, "08-from-igw", vec![there.tcp((80, 51_000), Tcp::SYN_ACK, &[])]);
}

fn both_ways(inputs: &mut Inputs, name: &str, there: &Ip) {
    let back = there.reversed();
    inputs.file(
        name,
        "01-from-igw",
        vec![
            there.tcp((1000, 80), Tcp::SYN, &[]),
            there.udp((1000, 53), b"question"),
            there.echo_request(1, 1),
        ],
    );
    // Headers without options belong to the same flows.
    let plain = if name.contains("ipv4") {
        Ip::new(SERVER_4, CLIENT_4)
    } else {
        Ip::new(SERVER_6, CLIENT_6)
    };
    inputs.file(
        name,
        "02-from-app-a",
        vec![
            back.tcp((80, 1000), Tcp::SYN_ACK, &[]),
            plain.udp((53, 1000), b"answer"),
            plain.echo_reply(1, 1),
        ],
    );
}
