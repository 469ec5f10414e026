//! Where packets go, and where none can go.

use gwlb_tests::packets::{Ip, Problem, Tcp};

use super::narrow::overlapping_fragments;
use super::{CLIENT_4, CLIENT_6, FAR_SERVER_4, Inputs, SERVER_4, SERVER_6, four, six, text};

pub(super) fn add(inputs: &mut Inputs) {
    beyond_subnets(inputs);
    let udp = |src: &str, dst: &str| Ip::new(src, dst).udp((1000, 53), b"where to?");

    inputs.file(
        "routes",
        "01-from-igw",
        vec![
            udp(CLIENT_4, "192.0.2.200"),   // no route
            udp(CLIENT_6, "2001:db8:9::1"), // no route
            udp(CLIENT_4, "10.0.77.1"),     // no subnet
            udp(CLIENT_4, "10.0.9.5"),      // local, not attached
            udp(CLIENT_4, "10.0.102.9"),    // local, where only an endpoint is
        ],
    );
    inputs.file(
        "routes",
        "02-from-app-a",
        vec![
            udp(SERVER_4, "198.51.100.9"),    // blackhole
            udp(SERVER_4, "10.0.77.1"),       // no subnet
            udp(SERVER_4, "10.0.9.5"),        // local, not attached
            udp(SERVER_4, FAR_SERVER_4),      // local
            udp(SERVER_6, "fd00:10:0:2::11"), // local
        ],
    );
    let mut broken = [(); 5].map(|()| udp(CLIENT_4, SERVER_4));
    broken[0].truncate(30);
    broken[1][0] = 0x43;
    broken[2][2..4].copy_from_slice(&[0, 10]);
    broken[3][25] = 200;
    broken[4].truncate(20);
    inputs.file("routes", "03-from-igw", broken.into());

    let near = Ip::new(SERVER_4, FAR_SERVER_4);
    inputs.file("east-west", "01-from-app-a", vec![near.tcp((1000, 80), Tcp::SYN, &[])]);
    let answer = near.reversed().tcp((80, 1000), Tcp::SYN_ACK, &[]);
    inputs.file("east-west", "02-from-app-b", vec![answer]);

    inputs.file("two-services", "01-from-igw", vec![four().tcp((1000, 80), Tcp::SYN, &[])]);
    let answer = four().reversed().tcp((80, 1000), Tcp::SYN_ACK, &[]);
    inputs.file("two-services", "02-from-app-a", vec![answer]);
    let large = four().reversed().tcp((80, 1000), Tcp::ANSWER, &[7; 1390]);
    inputs.file("two-services", "03-from-app-a", vec![large]);

    translation(inputs);

    // The same addresses and ports in two VPCs.
    let flows = || (0..8).map(|n| four().tcp((1000 + n, 80), Tcp::SYN, &[])).collect();
    let answers = || {
        let back = four().reversed();
        (0..8).map(|n| back.tcp((80, 1000 + n), Tcp::SYN_ACK, &[])).collect()
    };
    inputs.file("overlapping-addresses", "01-from-red-igw", flows());
    inputs.file("overlapping-addresses", "02-from-blue-igw", flows());
    inputs.file("overlapping-addresses", "03-from-red-app", answers());
    inputs.file("overlapping-addresses", "04-from-blue-app", answers());
    overlapping_fragments(inputs, "overlapping-addresses");
}

/// The server has the public address 198.18.0.11.
fn translation(inputs: &mut Inputs) {
    let name = "translated-addresses";
    let (ports, answering) = ((1000, 80), (80, 1000));
    let there = Ip::new(CLIENT_4, "198.18.0.11");
    let back = four().reversed();
    inputs.file(
        name,
        "01-from-igw",
        vec![
            there.tcp(ports, Tcp::SYN, &[]),
            there.udp((1000, 53), b"question"),
            there.echo_request(1, 1),
            // There is no mapping for these.
            four().udp((1001, 53), b"to the private address"),
            six().udp((1002, 53), b"IPv6 is never translated"),
        ],
    );
    inputs.file(
        name,
        "02-from-app-a",
        vec![
            back.tcp(answering, Tcp::SYN_ACK, &[]),
            back.udp((53, 1000), b"answer"),
            back.echo_reply(1, 1),
            Ip::new("10.0.1.12", CLIENT_4).udp((1003, 53), b"a host without a public address"),
        ],
    );
    inputs.file(name, "03-from-igw", vec![there.tcp(ports, Tcp::DATA, &text(3500))]);
    inputs.file(name, "04-from-app-a", vec![back.tcp(answering, Tcp::ANSWER, &text(3500))]);
    // Errors quote what they saw: from outside the public address, from inside the private one.
    let seen_outside = there.reversed().udp((53, 1000), b"answer");
    let router = Ip::new("192.0.2.129", "198.18.0.11");
    let expired = router.icmp_error(Problem::TimeExceeded, &seen_outside, 28);
    inputs.file(name, "05-from-igw", vec![expired]);
    let seen_inside = four().udp((1000, 53), b"question");
    let refused = back.icmp_error(Problem::PortUnreachable, &seen_inside, 28);
    inputs.file(name, "06-from-app-a", vec![refused]);
    // The answer to what is too long goes out translated, too.
    inputs.file(name, "07-from-igw", vec![there.udp((1000, 53), &text(1450))]);
}

/// What goes to, and comes from, a NAT gateway, an interface, and a peer.
fn beyond_subnets(inputs: &mut Inputs) {
    let name = "nat-gateway-and-interface";
    let udp = |from: &str, to: &str, ports| Ip::new(from, to).udp(ports, b"through");
    let out = ["203.0.113.7", "198.51.100.7", "10.0.2.99", "203.0.113.200"];
    let out = out.map(|to| udp(SERVER_4, to, (5000, 53)));
    inputs.file(name, "01-from-app-a", out.into());
    inputs.file(name, "02-from-nat", vec![udp("10.0.9.9", CLIENT_4, (6000, 53))]);
    inputs.file(name, "03-from-igw", vec![udp(CLIENT_4, "10.0.9.9", (53, 6000))]);
    inputs.file(name, "04-from-nat", vec![udp(CLIENT_4, SERVER_4, (53, 5000))]);
    inputs.file(name, "05-from-app-b", vec![udp("10.0.2.99", SERVER_4, (53, 5000))]);
    let back = [udp("203.0.113.200", SERVER_4, (53, 5000)), udp("203.0.113.200", CLIENT_4, (1, 2))];
    inputs.file(name, "06-from-pcx", back.into());
}
