//! What the gateway and the kernel together put on the wire, read without any of their help, and by
//! `tshark` where it is installed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use geneve::checksum::{Integrity, verify};
use geneve::inner::protocol;
use geneve::{Dialect, Header, Inner, PORT, Tags, outer};
use gwlb::dataplane::encap::HOP_LIMIT;
use gwlb_tests::capture::Captured;
use gwlb_tests::tshark;
use gwlb_tests::world::traffic::{self, EchoServer};
use gwlb_tests::world::wire::Wire;
use gwlb_tests::world::{Family, Plan};

use super::{FAMILIES, directions, world};

/// The endpoint's id in the configuration.
const ENDPOINT: u64 = 0x0123_4567_89ab_cdef;

#[test]
fn aws_over_ipv4() {
    judge("aws_over_ipv4", "aws", Family::V4);
}

#[test]
fn tencent_over_ipv6() {
    judge("tencent_over_ipv6", "tencent", Family::V6);
}

#[test]
fn google_over_ipv4() {
    judge("google_over_ipv4", "google", Family::V4);
}

fn judge(test: &str, dialect: &'static str, underlay: Family) {
    let plan = Plan { dialect, underlay, ..Plan::default() };
    let Some(world) = world(test, plan) else { return };
    let wire = Wire::lay(&world, 0);
    let id = format!("name = \"vpce-a\"\nwire_id = \"{ENDPOINT:#018x}\"");
    let configuration = world.configuration_with(&[("name = \"vpce-a\"", &id)]);
    let mut gateway = world.start_gateway_with(&configuration);
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            // In super-packets, of which every segment is to be whole on the wire.
            traffic::transfer(from, to, family, 256 << 10);
            traffic::ping(from, to.address(family), 100).unwrap();
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            for payload in ["", "a", "datagram"] {
                traffic::exchange(&socket, payload.as_bytes()).unwrap();
            }
        }
    }
    let status = gateway.settled();
    status.assert_lossless();
    gateway.stop();
    let mut packets = wire.take();
    // The health checks speak TCP.
    packets.retain(|sent| {
        Inner::parse(&sent.packet).is_ok_and(|whole| whole.protocol == protocol::UDP)
    });
    assert_eq!(packets.len() as u64, status.tun.encapsulated);

    let dialect = Dialect::by_name(dialect).unwrap();
    let mut flows = BTreeMap::new();
    for Captured { packet, .. } in &packets {
        let whole = Inner::parse(packet).unwrap();
        assert_eq!(verify(&whole, packet), Integrity::Valid, "the outer checksums");
        let (outer, payload) = outer::parse(packet).unwrap();
        assert_eq!(outer.src.ip(), world.plan.node(0));
        assert_eq!(outer.dst, SocketAddr::new(world.plan.target(0), PORT));
        assert_eq!((outer.ttl, outer.tos), (HOP_LIMIT, 0));
        assert_eq!(outer.dont_fragment, underlay == Family::V6);
        let (header, payload) = Header::parse(&packet[payload]).unwrap();
        assert_eq!(header.len(), dialect.header_len());
        let Tags { endpoint, attachment, cookie } = dialect.read(&header).unwrap();
        assert_eq!((endpoint, attachment), (ENDPOINT, 0));
        let inner = Inner::parse(payload).unwrap();
        assert_eq!(verify(&inner, payload), Integrity::Valid, "the inner checksums");
        // A flow has one cookie and one source port, whichever way it goes.
        let lane = flows.entry(inner.flow_key().canonical()).or_insert((cookie, outer.src.port()));
        assert_eq!(*lane, (cookie, outer.src.port()));
    }
    assert_eq!(flows.len(), 4 + 2 + 4, "TCP, ping (which has no ports) and UDP");

    if tshark::is_there(test) {
        ask_tshark(&packets, dialect);
    }
}

fn ask_tshark(packets: &[Captured], dialect: &Dialect) {
    const GOOD: &str = "1";
    let class = format!("{:#06x}", dialect.class().get());
    let fields = [
        "udp.checksum.status",
        "tcp.checksum.status",
        "ip.checksum.status",
        "geneve.version",
        "geneve.flags.oam",
        "geneve.flags.critical",
        "geneve.vni",
        "geneve.option.class",
        "_ws.malformed",
    ];
    for (said, Captured { packet, .. }) in tshark::decode(packets, &fields).iter().zip(packets) {
        let said_of = |field: &str| said.get(field).map_or(&[][..], Vec::as_slice);
        let context = || gwlb_tests::describe::describe(packet);
        for field in &fields[..3] {
            assert!(said_of(field).iter().all(|status| status == GOOD), "{field}: {}", context());
        }
        assert!(!said_of("udp.checksum.status").is_empty(), "{}", context());
        assert_eq!(said_of("geneve.version"), ["0"], "{}", context());
        assert_eq!(said_of("geneve.flags.oam"), ["0"], "{}", context());
        assert_eq!(said_of("geneve.flags.critical"), ["0"], "{}", context());
        assert_eq!(said_of("geneve.vni"), ["0x000000"], "{}", context());
        assert_eq!(said_of("geneve.option.class"), [&class[..]; 3], "{}", context());
        // It also guesses by the ports what is in datagrams; that is none of our business.
        let malformed = said_of("_ws.malformed").concat().to_uppercase();
        let ours = ["GENEVE", "IPV4", "IPV6", "UDP", "TCP", "ICMP", "ICMPV6"];
        let complains = ours.iter().any(|name| malformed.contains(&format!(": {name}]")));
        assert!(!complains, "{malformed}: {}", context());
    }
}
