//! What appliances send back, right and wrong. Most of these scenarios need one packet to echo.

use geneve::outer::{self, OuterHeader, UdpChecksum};
use geneve::{Dialect, HeaderBuilder, PacketBuf, ProtocolType, Tags};
use gwlb_tests::packets::{Tcp, fragments};

use super::{Inputs, families, four, six};

/// Scenarios in which one datagram of each IP version is echoed, with changes.
const ECHOES: [&str; 13] = [
    "return-bad-cookie",
    "return-control-bit",
    "return-critical-option",
    "return-dialect-options",
    "return-latest-header",
    "return-late-and-again",
    "return-malformed-inner",
    "return-protocol-type",
    "return-tolerated",
    "return-truncated",
    "return-unknown-endpoint",
    "return-wrong-address",
    "return-wrong-version",
];

pub(super) fn add(inputs: &mut Inputs) {
    for name in ECHOES {
        let packets = families().map(|(_, ip)| ip.udp((1000, 53), b"question"));
        inputs.file(name, "01-from-igw", packets.into());
    }
    let answer = four().reversed().udp((53, 1000), b"an answer in fragments");
    inputs.file("return-latest-header", "02-from-app-a", fragments(&answer, 1, 16));

    // Of another flow, endpoint or time: the header is genuine, but not for this packet.
    inputs.file(
        "return-cookie-of-another-flow",
        "01-from-igw",
        vec![
            four().udp((1000, 53), b"one"),
            four().udp((1001, 53), b"two"),
            four().udp((1002, 53), b"six"),
            four().tcp((1000, 53), Tcp::SYN, &[]),
            six().udp((1000, 53), b"one"),
        ],
    );
    // Three of one flow and one of another, all of the same size: the kernel joins such.
    inputs.file(
        "return-run-with-a-foreigner",
        "01-from-igw",
        vec![
            four().udp((1000, 53), b"first"),
            four().udp((1000, 53), b"again"),
            four().udp((1000, 53), b"third"),
            four().udp((1001, 53), b"other"),
        ],
    );
    let stream =
        |sequence, payload: &[u8]| four().tcp((2000, 80), Tcp { sequence, ..Tcp::DATA }, payload);
    inputs.file(
        "return-run-with-a-foreigner",
        "02-from-igw",
        vec![
            four().tcp((2000, 80), Tcp { sequence: 999, ..Tcp::SYN }, &[]),
            stream(1000, b"first"),
            stream(1005, b"again"),
            stream(1010, b"third"),
        ],
    );
    inputs.file("return-unsolicited", "01-from-fw1", unsolicited());
}

/// Datagrams that no gateway asked for.
fn unsolicited() -> Vec<Vec<u8>> {
    let packet = four().udp((1000, 53), b"never sent");
    let header = |endpoint, cookie| {
        let mut bytes = vec![0; Dialect::AWS.header_len()];
        let tags = Tags { endpoint, attachment: 0, cookie };
        Dialect::AWS.write(&tags, ProtocolType::IPV4, &mut bytes).unwrap();
        bytes
    };
    let mut without_options = vec![0; 8];
    HeaderBuilder::new(ProtocolType::IPV4).write(&mut without_options).unwrap();
    let mut ethernet = vec![0; 8];
    HeaderBuilder::new(ProtocolType::ETHERNET).write(&mut ethernet).unwrap();
    let known = 0x0123_4567_89ab_cdef;
    [
        vec![],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&without_options[..], &packet].concat(),
        [&ethernet[..], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &packet].concat(),
        [&header(known, 0)[..], &packet].concat(),
        [&header(known, 0xffff_ffff)[..], &packet].concat(),
        [&header(0x77, 0)[..], &packet].concat(),
        header(known, 0),
    ]
    .map(|payload| {
        let outer = OuterHeader {
            src: ([192, 0, 2, 11], 61_003).into(),
            dst: ([192, 0, 2, 1], geneve::PORT).into(),
            ttl: 2,
            tos: 0,
            dont_fragment: false,
            id: 0,
            checksum: UdpChecksum::On,
        };
        let mut packet = PacketBuf::from_slice(&payload);
        outer::encapsulate(&outer, &mut packet).unwrap();
        packet.bytes().to_vec()
    })
    .into()
}
