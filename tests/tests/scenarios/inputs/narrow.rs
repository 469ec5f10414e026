//! Narrow cases: what each of these scenarios shows, hardly any other would.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Problem, Tcp, fragments};

use super::{CLIENT_4, FAR_SERVER_4, Inputs, SERVER_4, four, six, text};

pub(super) fn add(inputs: &mut Inputs) {
    errors_prolong_nothing(inputs);
    reopened(inputs);

    let opened = |count| (0..count).map(|n| four().tcp((1000 + n, 80), Tcp::SYN, &[]));
    inputs.file("placement-after-midnight", "01-from-igw", opened(12).collect());
    inputs.file("health-answered-late", "01-from-igw", opened(2).collect());

    let questions = [four(), six()].map(|ip| ip.udp((1, 2), b"x"));
    inputs.file("cookie-of-a-faster-clock", "01-from-igw", questions.into());

    let name = "mss-as-it-is";
    let open = |ip: &Ip, mss| ip.tcp((1000, 80), Tcp::SYN.mss(mss), &[]);
    inputs.file(name, "01-from-igw", vec![open(&four(), 1460), open(&six(), 1440)]);

    let name = "super-packets-dropped";
    let unreachable = Ip::new(SERVER_4, "198.51.100.9");
    inputs.file(
        name,
        "01-from-app-a",
        vec![
            unreachable.tcp((80, 1000), Tcp::ANSWER, &text(5000)),
            unreachable.udp((53, 1000), &text(2500)),
            // Of a connection that nobody knows.
            four().reversed().tcp((80, 1001), Tcp::ANSWER, &text(3100)),
        ],
    );

    let name = "reload-nodes-reordered";
    let far = Ip::new(CLIENT_4, FAR_SERVER_4);
    let both = |tcp: Tcp| -> Vec<_> {
        let of = |ip: Ip| (0..4).map(move |n| ip.tcp((1000 + n, 80), tcp, &[]));
        of(four()).chain(of(far.clone())).collect()
    };
    inputs.file(name, "01-from-igw", both(Tcp::SYN));
    inputs.file(name, "02-from-igw", both(Tcp::DATA));
}

/// Errors about flows that are about to be forgotten.
fn errors_prolong_nothing(inputs: &mut Inputs) {
    let name = "idle-in-spite-of-errors";
    let both = [four(), six()];
    let packets = |packet: &dyn Fn(&Ip) -> [Vec<u8>; 2]| both.iter().flat_map(packet).collect();
    let question = |ip: &Ip| ip.udp((1000, 53), b"question");
    let data = |ip: &Ip| ip.tcp((1000, 80), Tcp::DATA, b"data");
    inputs.file(name, "01-from-igw", both.iter().map(data).collect());
    inputs.file(name, "02-from-igw", both.iter().map(question).collect());
    let refused = |ip: &Ip, about: &[u8]| {
        ip.reversed().icmp_error(Problem::PortUnreachable, about, about.len())
    };
    let errors = packets(&|ip| [refused(ip, &question(ip)), refused(ip, &data(ip))]);
    inputs.file(name, "03-from-app-a", errors);
}

/// Connections that are over, and begin anew with other numbers.
fn reopened(inputs: &mut Inputs) {
    let name = "reset-both-ends-reopened";
    let fin = |tcp: Tcp| tcp.flags(TcpFlags::FIN | TcpFlags::ACK);
    let both = |packet: &dyn Fn(&Ip) -> Vec<u8>| vec![packet(&four()), packet(&six())];
    let there = |tcp: Tcp| both(&|ip| ip.tcp((1000, 80), tcp, &[]));
    let back = |tcp: Tcp| both(&|ip| ip.reversed().tcp((80, 1000), tcp, &[]));
    inputs.file(name, "01-from-igw", there(Tcp::SYN));
    inputs.file(name, "02-from-app-a", back(Tcp::SYN_ACK));
    inputs.file(name, "03-from-igw", there(fin(Tcp::DATA)));
    inputs.file(name, "04-from-app-a", back(fin(Tcp::ANSWER)));
    inputs.file(name, "05-from-igw", there(Tcp { sequence: 77_000, ..Tcp::SYN }));
}

/// Fragments of two VPCs with the same addresses and identification.
pub(super) fn overlapping_fragments(inputs: &mut Inputs, name: &str) {
    let cut = |port, len| fragments(&four().udp((port, 53), &text(len)), 7, 1200);
    let [first, later] = cut(1000, 2000).try_into().unwrap();
    inputs.file(name, "05-from-red-igw", vec![first]);
    let [other_first, other_later] = cut(1001, 2100).try_into().unwrap();
    // It must not be taken for one of the red VPC, whose first has come already.
    inputs.file(name, "06-from-blue-igw", vec![other_later]);
    inputs.file(name, "07-from-blue-igw", vec![other_first]);
    inputs.file(name, "08-from-red-igw", vec![later]);
}
