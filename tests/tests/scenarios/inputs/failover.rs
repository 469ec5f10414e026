//! Conversations during which something happens to appliances.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Tcp};

use super::{CLIENT_4, FAR_SERVER_4, Inputs, four, six};

/// Scenarios in which the same few connections are opened, go on and are joined by others.
const CONVERSATIONS: [&str; 43] = [
    "failover-unhealthy-no-rebalance",
    "failover-unhealthy-rebalance",
    "failover-unhealthy-reset",
    "failover-unhealthy-reset-both-ends",
    "failover-deregistered-no-rebalance",
    "failover-deregistered-rebalance",
    "failover-deregistered-reset",
    "failover-deregistered-reset-both-ends",
    "failover-only-unhealthy-rebalances",
    "failover-only-deregistered-rebalances",
    "failover-one-moves-one-is-reset",
    "failover-alibaba-unhealthy-rebalance",
    "failover-alibaba-unhealthy-no-rebalance",
    "failover-alibaba-drained-rebalance",
    "failover-alibaba-drained-no-rebalance",
    "failover-alibaba-removed-rebalance",
    "failover-alibaba-removed-no-rebalance",
    "none-healthy-fail-open-rebalance",
    "none-healthy-fail-open-no-rebalance",
    "none-healthy-fail-closed-rebalance",
    "none-healthy-fail-closed-no-rebalance",
    "none-healthy-bypass-rebalance",
    "none-healthy-bypass-no-rebalance",
    "none-healthy-bypass-then-inspect",
    "none-healthy-nobody-knows",
    "traffic-mode",
    "drain-ends-with-the-last-flow",
    "drain-is-called-off",
    "slow-start",
    "spill-over",
    "cross-zone-nodes-disagree",
    "health-detected",
    "health-suspected",
    "health-flaps",
    "health-of-the-tunnel",
    "reload-targets",
    "weights-change",
    "failover-moves-no-other-flow",
    "registration-while-another-drains",
    "zones-failover",
    "zones-failover-rebalance",
    "zones-switched-by-hand",
    "zones-weighted",
];

pub(super) fn add(inputs: &mut Inputs) {
    for name in CONVERSATIONS {
        conversation(inputs, name);
    }
    let fin = |tcp: Tcp| tcp.flags(TcpFlags::FIN | TcpFlags::ACK);
    for name in ["drain-ends-with-the-last-flow", "none-healthy-bypass-rebalance"] {
        let all = || [(four(), 1000), (four(), 1001), (four(), 1002), (six(), 1000)];
        let ends = all().map(|(ip, port)| ip.tcp((port, 80), fin(Tcp::DATA.after(4)), &[]));
        inputs.file(name, "06-from-igw", ends.into());
        let ends =
            all().map(|(ip, port)| ip.reversed().tcp((80, port), fin(Tcp::ANSWER.after(6)), &[]));
        inputs.file(name, "07-from-app-a", ends.into());
    }
    for name in ["spill-over", "cross-zone-nodes-disagree"] {
        let far = Ip::new(CLIENT_4, FAR_SERVER_4);
        let opened = (0..4).map(|n| far.tcp((1200 + n, 80), Tcp::SYN, &[]));
        inputs.file(name, "06-from-igw", opened.collect());
        let opened = (0..4).map(|n| four().tcp((1300 + n, 80), Tcp::SYN, &[]));
        inputs.file(name, "07-from-igw", opened.collect());
    }
    for name in ["zones-failover", "zones-failover-rebalance", "zones-switched-by-hand"] {
        let data = (0..3).map(|n| four().tcp((1100 + n, 80), Tcp::DATA, b"data"));
        inputs.file(name, "06-from-igw", data.collect());
        let opened = (0..3).map(|n| four().tcp((1300 + n, 80), Tcp::SYN, &[]));
        inputs.file(name, "07-from-igw", opened.collect());
    }
    let ask = |n: u16| four().udp((5100 + n, 53), b"question");
    inputs.file("zones-weighted", "06-from-igw", (0..30).map(ask).collect());
    let answer = |n: u16| four().reversed().udp((53, 5100 + n), b"answer");
    inputs.file("zones-weighted", "07-from-app-a", (0..30).map(answer).collect());
    for name in [
        "slow-start",
        "weights-change",
        "failover-moves-no-other-flow",
        "registration-while-another-drains",
    ] {
        let opened = (0..60).map(|n| four().tcp((2000 + n, 80), Tcp::SYN, &[]));
        inputs.file(name, "06-from-igw", opened.collect());
    }
}

/// Three connections over IPv4 and one over IPv6, and two questions by UDP: opened (01, 02), going
/// on (03, 04); and three more connections (05).
fn conversation(inputs: &mut Inputs, name: &str) {
    let flows = || [(four(), 1000), (four(), 1001), (four(), 1002), (six(), 1000)];
    let questions = || [(four(), 5001), (four(), 5002)];
    let syn = flows().map(|(ip, port)| ip.tcp((port, 80), Tcp::SYN, &[]));
    let ask = questions().map(|(ip, port)| ip.udp((port, 53), b"question"));
    inputs.file(name, "01-from-igw", [&syn[..], &ask].concat());
    let accept = flows().map(|(ip, port)| ip.reversed().tcp((80, port), Tcp::SYN_ACK, &[]));
    let answer = questions().map(|(ip, port)| ip.reversed().udp((53, port), b"answer"));
    inputs.file(name, "02-from-app-a", [&accept[..], &answer].concat());
    let data = flows().map(|(ip, port)| ip.tcp((port, 80), Tcp::DATA, b"data"));
    inputs.file(name, "03-from-igw", [&data[..], &ask].concat());
    let data = flows().map(|(ip, port)| {
        ip.reversed().tcp((80, port), Tcp { acknowledgement: 1004, ..Tcp::ANSWER }, b"answer")
    });
    inputs.file(name, "04-from-app-a", [&data[..], &answer].concat());
    let new = (0..3).map(|n| four().tcp((1100 + n, 80), Tcp::SYN, &[]));
    inputs.file(name, "05-from-igw", new.collect());
}
