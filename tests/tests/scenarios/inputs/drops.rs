//! Scenarios named `drop-…`: each has packets dropped for one reason, and for no other.

use geneve::TcpFlags;
use gwlb_tests::packets::{Ip, Tcp, fragments};

use super::{CLIENT_4, Inputs, SERVER_4, four, text};

pub(super) fn add(inputs: &mut Inputs) {
    let udp = |src: &str, dst: &str| vec![Ip::new(src, dst).udp((1000, 53), b"where to?")];
    inputs.file("drop-blackhole", "01-from-app-a", udp(SERVER_4, "198.51.100.9"));
    inputs.file("drop-no-subnet", "01-from-igw", udp(CLIENT_4, "10.0.77.1"));
    inputs.file("drop-not-attached", "01-from-igw", udp(CLIENT_4, "10.0.9.5"));
    for name in ["malformed-geneve", "dialect-options", "unknown-endpoint", "wrong-gateway-address"]
    {
        inputs.file(format!("drop-{name}"), "01-from-igw", udp(CLIENT_4, SERVER_4));
    }

    let all = |tcp: Tcp| (0..4).map(|n| four().tcp((1000 + n, 80), tcp, &[])).collect();
    inputs.file("drop-target-gone", "01-from-igw", all(Tcp::SYN));
    inputs.file("drop-target-gone", "02-from-igw", all(Tcp::DATA.flags(TcpFlags::RST)));

    // In 76 pieces, of which all but the first have to wait, and 64 may.
    let mut pieces = fragments(&four().udp((1000, 53), &text(600)), 1, 8);
    let first = pieces.remove(0);
    inputs.file("drop-fragment-queue-full", "01-from-igw", pieces);
    inputs.file("drop-fragment-queue-full", "02-from-igw", vec![first]);
}
