//! ICMP errors about flows.

use gwlb_tests::packets::{Ip, Problem, Tcp};

use super::{CLIENT_4, CLIENT_6, Inputs, SERVER_4, SERVER_6, families, text};

/// So many flows that some are on either appliance.
const FLOWS: std::ops::Range<u16> = 0..6;

/// The types and codes of ICMP errors (RFC 792, RFC 1122, RFC 4443), by IP version.
const KINDS_4: [(u8, u8); 12] = [
    (3, 0),
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 5),
    (3, 13),
    (4, 0),
    (5, 1),
    (11, 0),
    (11, 1),
    (12, 0),
    (12, 2),
];
const KINDS_6: [(u8, u8); 11] =
    [(1, 0), (1, 1), (1, 3), (1, 4), (1, 5), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2), (100, 0)];

pub(super) fn add(inputs: &mut Inputs) {
    for (family, there) in families() {
        let back = there.reversed();
        let name = format!("icmp-errors-{family}");
        let question = |n| there.udp((1000 + n, 53), &text(400));
        let answer = |n| back.udp((53, 1000 + n), &text(400));
        inputs.file(&name, "01-from-igw", FLOWS.map(question).collect());

        // From the server about questions, and from a router on the internet about answers.
        let refused = |n| back.icmp_error(Problem::PortUnreachable, &question(n), 64);
        inputs.file(&name, "02-from-app-a", FLOWS.map(refused).collect());
        inputs.file(&name, "03-from-app-a", FLOWS.map(answer).collect());
        let (router, server, client) = match family {
            "ipv4" => ("192.0.2.129", SERVER_4, CLIENT_4),
            _ => ("2001:db8:ffff::1", SERVER_6, CLIENT_6),
        };
        let router = Ip::new(router, server);
        let expired = |n| router.icmp_error(Problem::TimeExceeded, &answer(n), 100);
        let too_big = |n| router.icmp_error(Problem::TooBig(1280), &answer(n), 500);
        inputs.file(&name, "04-from-igw", FLOWS.flat_map(|n| [expired(n), too_big(n)]).collect());

        rebalanced(inputs, family, &there);

        // About a flow that nobody has seen, and with a quote that ends before the ports.
        let unseen = Ip::new(client, server).udp((9, 9), b"unseen");
        let header = if family == "ipv4" { 20 } else { 40 };
        inputs.file(
            &name,
            "05-from-app-a",
            vec![
                back.icmp_error(Problem::PortUnreachable, &unseen, 64),
                back.icmp_error(Problem::PortUnreachable, &question(0), header + 2),
            ],
        );
    }
}

/// Errors of every kind, from either side, about connections that move meanwhile.
fn rebalanced(inputs: &mut Inputs, family: &str, there: &Ip) {
    let back = there.reversed();
    let name = format!("icmp-errors-rebalanced-{family}");
    let ports = [1000, 1001, 1002, 1003];
    let data = |port| there.tcp((port, 80), Tcp::DATA, &text(400));
    let answer = |port| back.tcp((80, port), Tcp::ANSWER, &text(400));
    inputs.file(
        &name,
        "01-from-igw",
        ports.map(|port| there.tcp((port, 80), Tcp::SYN, &[])).into(),
    );
    inputs.file(&name, "02-from-igw", ports.map(data).into());
    let (kinds, router) = match family {
        "ipv4" => (&KINDS_4[..], Ip::new("192.0.2.129", SERVER_4)),
        _ => (&KINDS_6[..], Ip::new("2001:db8:ffff::1", SERVER_6)),
    };
    let problems = || {
        let kinds = kinds.iter().map(|&(kind, code)| Problem::Other(kind, code));
        kinds.chain([Problem::TooBig(1280)])
    };
    let about = |ip: &Ip, packet: &dyn Fn(u16) -> Vec<u8>| {
        let each = ports.iter().flat_map(|&port| problems().map(move |problem| (port, problem)));
        each.map(|(port, problem)| ip.icmp_error(problem, &packet(port), 100)).collect::<Vec<_>>()
    };
    // From the server about data, and from a router on the internet about answers.
    inputs.file(&name, "03-from-app-a", about(&back, &data));
    inputs.file(&name, "04-from-igw", about(&router, &answer));
    inputs.file(&name, "05-from-igw", vec![data(1000), data(1001), data(1002), data(1003)]);
}
