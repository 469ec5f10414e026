//! ICMP errors about flows.

use gwlb_tests::packets::{Ip, Problem};

use super::{CLIENT_4, CLIENT_6, Inputs, SERVER_4, SERVER_6, families, text};

/// So many flows that some are on either appliance.
const FLOWS: std::ops::Range<u16> = 0..6;

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
