//! How long flows are remembered, what ends them early, and what becomes of what comes late.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Tcp};

use super::{Inputs, four, six};

pub(super) fn add(inputs: &mut Inputs) {
    let fin = |tcp: Tcp| tcp.flags(TcpFlags::FIN | TcpFlags::ACK);
    let rst = |tcp: Tcp| tcp.flags(TcpFlags::RST);
    // Of two connections the first one's packet comes just before the time is over, the other one's
    // just after.
    let connections = [(four(), 1000), (six(), 1000)];
    let out = |n: usize, tcp: Tcp, payload: &[u8]| {
        let (ip, port) = &connections[n];
        ip.tcp((*port, 80), tcp, payload)
    };
    let back = |n: usize, tcp: Tcp, payload: &[u8]| {
        let (ip, port) = &connections[n];
        ip.reversed().tcp((80, *port), tcp, payload)
    };
    let both = |packet: &dyn Fn(usize) -> Vec<u8>| vec![packet(0), packet(1)];
    let opened = || {
        let accepted = both(&|n| back(n, Tcp::SYN_ACK, b""));
        (both(&|n| out(n, Tcp::SYN, b"")), accepted, both(&|n| out(n, Tcp::DATA, b"data")))
    };
    for name in ["idle-half-open", "idle-half-closed", "idle-closed", "idle-reset"] {
        let (syn, accepted, data) = opened();
        inputs.file(name, "01-from-igw", syn);
        if name != "idle-half-open" {
            inputs.file(name, "02-from-app-a", accepted);
            inputs.file(name, "03-from-igw", data);
        }
        inputs.file(name, "04-from-app-a", vec![back(0, Tcp::ANSWER, b"")]);
        inputs.file(name, "05-from-app-a", vec![back(1, Tcp::ANSWER, b"")]);
    }
    inputs.file("idle-half-closed", "06-from-igw", both(&|n| out(n, fin(Tcp::DATA.after(4)), b"")));
    inputs.file("idle-closed", "06-from-igw", both(&|n| out(n, fin(Tcp::DATA.after(4)), b"")));
    inputs.file("idle-closed", "07-from-app-a", both(&|n| back(n, fin(Tcp::ANSWER), b"")));
    inputs.file("idle-reset", "06-from-igw", both(&|n| out(n, rst(Tcp::DATA.after(4)), b"")));

    for name in ["reset-on-idle", "reset-on-idle-both-ends", "reset-forged", "adoption", "reopened"]
    {
        let (syn, accepted, data) = opened();
        inputs.file(name, "01-from-igw", syn);
        inputs.file(name, "02-from-app-a", accepted);
        inputs.file(name, "03-from-igw", data);
    }
    for name in ["reset-on-idle", "reset-on-idle-both-ends"] {
        let reset = out(1, rst(Tcp::DATA.after(4)), b"");
        inputs.file(name, "04-from-igw", vec![out(0, Tcp::DATA.after(4), b"more"), reset]);
        inputs.file(name, "05-from-app-a", both(&|n| back(n, Tcp::ANSWER, b"answer")));
    }
    inputs.file("reset-forged", "04-from-app-a", both(&|n| back(n, rst(Tcp::ANSWER), b"")));
    inputs.file("reset-forged", "05-from-igw", both(&|n| out(n, Tcp::DATA.after(4), b"more")));
    inputs.file(
        "adoption",
        "04-from-app-a",
        vec![four().reversed().tcp((80, 2000), Tcp::ANSWER, b"")],
    );
    let late = four().tcp((2001, 80), Tcp::DATA, b"data");
    inputs.file("adoption", "05-from-igw", vec![late]);

    let closing = [out(0, fin(Tcp::DATA.after(4)), b""), out(1, rst(Tcp::DATA.after(4)), b"")];
    inputs.file("reopened", "04-from-igw", closing.into());
    inputs.file("reopened", "05-from-app-a", vec![back(0, fin(Tcp::ANSWER), b"")]);
    limits(inputs);
    inputs.file(
        "target-states",
        "01-from-igw",
        (0..4).map(|n| four().udp((5000 + n, 53), b"question")).collect(),
    );
}

/// More flows than a table takes, and more than it takes at once.
fn limits(inputs: &mut Inputs) {
    let opening = |port| four().tcp((port, 80), Tcp::SYN, &[]);
    let data = |port| four().tcp((port, 80), Tcp::DATA, b"data");
    let answer = |port| four().reversed().tcp((80, port), Tcp::ANSWER, b"");
    let name = "flow-table-full";
    inputs.file(name, "01-from-igw", (0..1100).map(|n| opening(1000 + n)).collect());
    // Some from the beginning, and some from the end, for which there was no room.
    let some = || (1000..1010).chain(2090..2100);
    inputs.file(name, "02-from-igw", some().map(data).collect());
    inputs.file(name, "03-from-app-a", some().map(answer).collect());
    let name = "new-flow-rate";
    let udp = |ip: &Ip, n: u16| ip.udp((5000 + n, 53), b"question");
    let mut at_once: Vec<_> = (0..12).map(|n| opening(1000 + n)).collect();
    at_once.extend((0..3).map(|n| udp(&six(), n)));
    inputs.file(name, "01-from-igw", at_once);
    inputs.file(name, "02-from-igw", (0..12).map(|n| data(1000 + n)).collect());
    inputs.file(name, "03-from-app-a", (0..12).map(|n| answer(1000 + n)).collect());
}
