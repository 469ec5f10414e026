//! Captures that others made, through the whole gateway. `GWLB_CORPUS` names another folder of the
//! same form; where there is none, each test says so and passes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, and nothing else")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use geneve::flow::FlowKey;
use geneve::{
    Dialect, Fragment, Header, Inner, IpVersion, PacketBuf, Tags, Transport, outer, protocol,
};
use gwlb::control::Input;
use gwlb::dataplane::fragments::{FragmentId, FragmentTable, HostileTotals, Waiting};
use gwlb::dataplane::stats::Totals;
use gwlb_tests::appliance::echo;
use gwlb_tests::describe::describe;
use gwlb_tests::gateway::{Gateway, Packet, Queues, Sent, Setup};
use gwlb_tests::packets::{Ip, Tcp};
use gwlb_tests::{corpus, notice};
use netio::offload::{MAX_HEADERS, Offload, Segmenter};
use router::Attachment;
use router::source::Source;

/// Everything that enters from the subnet goes through the endpoint and leaves to the internet.
const CONFIGURATION: &str = r#"
[[vpc]]
name = "corpus"
cidrs = ["198.19.255.0/24", "2001:2:0:ffff::/64"]
[[subnet]]
name = "hosts"
vpc = "corpus"
zone = "az1"
cidrs = ["198.19.255.0/25"]
route_table = "hosts"
[[subnet]]
name = "endpoints"
vpc = "corpus"
zone = "az1"
cidrs = ["198.19.255.128/25"]
route_table = "endpoints"
[[internet_gateway]]
name = "igw"
vpc = "corpus"
[[route_table]]
name = "hosts"
vpc = "corpus"
routes = [{ destination = "0.0.0.0/0", endpoint = "vpce" }, { destination = "::/0", endpoint = "vpce" }]
[[route_table]]
name = "endpoints"
vpc = "corpus"
routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }, { destination = "::/0", internet_gateway = "igw" }]
[[endpoint]]
name = "vpce"
subnet = "endpoints"
service = "inspection"
[[endpoint_service]]
name = "inspection"
load_balancers = ["fw"]
[[load_balancer]]
name = "fw"
target_group = "fw"
nodes = [{ zone = "az1", address = "192.0.2.1" }]
tcp_unknown_flow = "adopt"
[[target_group]]
name = "fw"
[[target]]
group = "fw"
address = "192.0.2.11"
zone = "az1"
[[attachment]]
subnet = "hosts"
tun = "hosts"
[[attachment]]
internet_gateway = "igw"
tun = "igw"
"#;

/// The largest packet that an underlay can carry at all.
const UNDERLAY_MTU: u16 = u16::MAX;

struct Way {
    gateway: Gateway,
    from: Attachment,
    /// Fragments that wait for their first.
    held: Vec<Vec<u8>>,
}

/// What became of one packet.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Returned,
    Answered,
    Held,
    Dropped(&'static str),
}

impl Way {
    fn new(underlay_mtu: u16) -> Way {
        let source = Source::new("corpus.toml", CONFIGURATION);
        let settings = gwlb::config::parse(&source).unwrap();
        let mut gateway = Gateway::new(settings, Setup::of(2));
        let from = gateway.attachment("hosts").unwrap();
        let target = gateway.target([192, 0, 2, 11].into()).unwrap();
        gateway.control(Input::PathMtu { target, mtu: underlay_mtu });
        Way { gateway, from, held: Vec::new() }
    }

    /// Sends a packet to the appliance and says what it got.
    fn there(&mut self, packet: &[u8]) -> Vec<Sent> {
        self.gateway.enter(self.from, &[Packet::plain(packet)], None);
        self.gateway.take_sent()
    }

    /// Sends a packet to the appliance and back, and holds that nothing in it changes.
    fn there_and_back(&mut self, packet: &[u8]) -> End {
        let before = self.gateway.totals();
        let sent = self.there(packet);
        let Some((sent, released)) = sent.split_first() else {
            let answered = !self.gateway.take_delivered().is_empty();
            let dropped = dropped(&before, &self.gateway.totals());
            return match dropped[..] {
                [] if answered => End::Answered,
                [] => {
                    let len = Inner::parse(packet).unwrap().total_len;
                    self.held.push(packet[..len].to_vec());
                    End::Held
                }
                [reason] if !answered => End::Dropped(reason),
                _ => panic!("{dropped:?}, answered {answered}: {}", describe(packet)),
            };
        };
        for other in released {
            let (_, packet) = Header::parse(&other.bytes).unwrap();
            // Only what was held goes on together with another.
            let at = self.held.iter().position(|held| held == packet);
            self.held.remove(at.unwrap());
        }
        self.gateway.receive(&[echo(sent)], None);
        let delivered = self.gateway.take_delivered();
        let inner = Inner::parse(packet).unwrap();
        assert_eq!(delivered.len(), 1, "{}", describe(packet));
        assert_eq!(delivered[0].packet, packet[..inner.total_len], "{}", describe(packet));
        End::Returned
    }
}

/// The names of what was dropped between two moments.
fn dropped(before: &Totals, after: &Totals) -> Vec<&'static str> {
    let new = |before: &BTreeMap<_, _>, after: &BTreeMap<&'static str, u64>| {
        let changed = after.iter().filter(|(reason, count)| before.get(*reason) != Some(*count));
        changed.map(|(reason, _)| *reason).collect::<Vec<_>>()
    };
    [new(&before.tun.drops, &after.tun.drops), new(&before.udp.drops, &after.udp.drops)].concat()
}

#[test]
fn corpus_is_read_without_panic() {
    let (mut files, mut frames, mut packets) = (0, 0, 0);
    for folder in ["geneve", "inner"] {
        for file in corpus::captures(folder).unwrap_or_default() {
            files += 1;
            for frame in file.frames() {
                frames += 1;
                packets += usize::from(frame.ip().is_some());
                // Wherever a packet might begin, and wherever a Geneve header might.
                for start in 0..frame.bytes.len().min(256) {
                    let bytes = &frame.bytes[start..];
                    if let Ok((header, payload)) = Header::parse(bytes) {
                        assert_eq!(header.len() + payload.len(), bytes.len());
                        for dialect in Dialect::ALL {
                            let _ = dialect.read(&header);
                        }
                    }
                    let _ = outer::parse(bytes);
                    if let Ok(inner) = Inner::parse(bytes) {
                        read_on(bytes, &inner);
                    }
                }
            }
        }
    }
    notice::say(&format!("corpus: {packets} packets in {frames} frames of {files} files\n"));
}

/// Whatever is known of a valid packet can be used.
fn read_on(bytes: &[u8], inner: &Inner) {
    assert!(inner.header_len <= inner.total_len && inner.total_len <= bytes.len());
    let _ = inner.flow_key().canonical();
    let _ = geneve::checksum::verify(inner, bytes);
    let segmenter = Segmenter::new(bytes, inner, &Offload::NONE);
    let mut headers = [0; MAX_HEADERS];
    let segment = segmenter.unwrap().segment(0, &mut headers);
    assert_eq!(segment.payload, 0..bytes.len());
    describe(bytes);
}

#[test]
fn corpus_packets_come_back_as_they_were() {
    let mut all = Vec::new();
    for file in corpus::captures("inner").unwrap_or_default() {
        all.extend(file.packets().into_iter().map(|packet| (file.name.clone(), packet)));
    }
    for file in corpus::captures("geneve").unwrap_or_default() {
        for outer in file.packets() {
            if let Some(inner) = corpus::geneve_datagram(&outer).and_then(corpus::inner_packet) {
                all.push((file.name.clone(), inner));
            }
        }
    }
    if all.is_empty() {
        return;
    }
    let mut way = Way::new(UNDERLAY_MTU);
    let mut ends = BTreeMap::<End, usize>::new();
    for (file, packet) in &all {
        let end = way.there_and_back(packet);
        let explained = match (&end, Inner::parse(packet)) {
            (End::Returned, Ok(_)) | (End::Dropped("malformed_packet"), Err(_)) => true,
            (End::Held | End::Dropped("fragment_without_first"), Ok(inner)) => {
                matches!(inner.fragment, Fragment::Later { .. })
            }
            (End::Answered | End::Dropped("exceeds_mtu"), Ok(inner)) => {
                let overhead = Dialect::AWS.overhead(IpVersion::V4);
                inner.total_len + overhead > usize::from(UNDERLAY_MTU)
            }
            _ => false,
        };
        assert!(explained, "{file}: {end:?}: {}", describe(packet));
        *ends.entry(end).or_default() += 1;
    }
    // What still waits for its first is given up.
    way.gateway.advance(2 * FragmentTable::HOLD);
    let totals = way.gateway.totals();
    for ledger in [&totals.tun, &totals.udp] {
        let (came, went) = ledger.balance();
        assert_eq!(came, went);
    }
    assert_eq!(totals.tun.flow.received, all.len() as u64);

    let mut table = format!("corpus: {:>5} inner packets\n", all.len());
    for (end, count) in ends {
        let what = match end {
            End::Returned => "came back byte for byte".to_owned(),
            End::Answered => "were answered".to_owned(),
            End::Held => "waited for their first fragment".to_owned(),
            End::Dropped(reason) => format!("dropped: {reason}"),
        };
        writeln!(table, "corpus: {count:>5} {what}").unwrap();
    }
    notice::say(&table);
}

/// Fragments of one packet, as far as they were captured, with the first among them.
struct Fragmented {
    file: String,
    id: FragmentId,
    /// The flow that the first fragment tells.
    flow: FlowKey,
    fragments: Vec<Vec<u8>>,
}

impl Fragmented {
    /// All of the corpus. Fragments whose first was not captured belong to no flow.
    fn all() -> Vec<Fragmented> {
        let mut all = Vec::new();
        for file in corpus::captures("inner").unwrap_or_default() {
            let mut together = BTreeMap::<_, Vec<Vec<u8>>>::new();
            for mut packet in file.packets() {
                let Ok(inner) = Inner::parse(&packet) else { continue };
                packet.truncate(inner.total_len);
                let (Fragment::First { id } | Fragment::Later { id, .. }) = inner.fragment else {
                    continue;
                };
                together.entry((inner.flow_key(), id)).or_default().push(packet);
            }
            for ((key, id), fragments) in together {
                let parsed = fragments.iter().map(|packet| Inner::parse(packet).unwrap());
                let mut firsts =
                    parsed.filter(|inner| matches!(inner.fragment, Fragment::First { .. }));
                let Some(first) = firsts.next() else { continue };
                let flow = first.ported_key().unwrap_or(key);
                let (src, dst, protocol) = (key.src(), key.dst(), key.protocol());
                let id = FragmentId { endpoint: 1, src, dst, protocol, id };
                all.push(Fragmented { file: file.name.clone(), id, flow, fragments });
            }
        }
        all
    }

    /// The fragments in every order in which they can come.
    fn orders(&self) -> Vec<Vec<&[u8]>> {
        assert!(self.fragments.len() <= 6, "{}: too many orders to try", self.file);
        let mut orders: Vec<Vec<&[u8]>> = vec![Vec::new()];
        for packet in &self.fragments {
            // One more at every place of each order of those before.
            let mut longer = Vec::new();
            for order in &orders {
                for at in 0..=order.len() {
                    let mut order = order.clone();
                    order.insert(at, packet);
                    longer.push(order);
                }
            }
            orders = longer;
        }
        orders
    }
}

#[test]
fn corpus_fragments_find_their_flow_in_every_order() {
    let (mut fragments, mut orders) = (0, 0);
    for fragmented in Fragmented::all() {
        let Fragmented { id, flow, .. } = fragmented;
        fragments += fragmented.fragments.len();
        for order in fragmented.orders() {
            orders += 1;
            let (table, now) = (FragmentTable::default(), start());
            let mut found: Vec<Vec<u8>> = Vec::new();
            for &packet in &order {
                let inner = Inner::parse(packet).unwrap();
                if matches!(inner.fragment, Fragment::First { .. }) {
                    found.push(packet.to_vec());
                    let ready = table.first(id, flow, now).into_iter();
                    found.extend(ready.map(|waiting| waiting.packet.bytes().to_vec()));
                } else if let Some(known) = table.later(&id, now) {
                    assert_eq!(known, flow, "{}", fragmented.file);
                    found.push(packet.to_vec());
                } else {
                    let from = router::Entry::Subnet(router::SubnetId::from_index(0));
                    let packet = PacketBuf::from_slice(packet);
                    table.hold(id, Waiting { from: from.into(), epoch: 0, packet }, now).unwrap();
                }
            }
            let mut all = order.iter().map(|packet| packet.to_vec()).collect::<Vec<_>>();
            all.sort();
            found.sort();
            assert_eq!(found, all, "{}", fragmented.file);
            assert_eq!((table.waiting(), table.hostile()), (0, HostileTotals::default()));
        }
    }
    if orders > 0 {
        notice::say(&format!("corpus: {fragments} fragments find their flow in {orders} orders\n"));
    }
}

/// A gateway with so many appliances that what goes astray is hardly ever where it should be.
fn spread() -> Way {
    let mut configuration = CONFIGURATION.to_owned();
    for host in 12..40 {
        let address = format!("192.0.2.{host}");
        write!(
            configuration,
            "[[target]]\ngroup = \"fw\"\naddress = \"{address}\"\nzone = \"az1\"\n"
        )
        .unwrap();
    }
    let settings = gwlb::config::parse(&Source::new("corpus.toml", configuration)).unwrap();
    let setup = Setup { queues: Queues::InTurn, ..Setup::of(3) };
    let mut gateway = Gateway::new(settings, setup);
    let from = gateway.attachment("hosts").unwrap();
    for host in 11..40 {
        let target = gateway.target([192, 0, 2, host].into()).unwrap();
        gateway.control(Input::PathMtu { target, mtu: UNDERLAY_MTU });
    }
    Way { gateway, from, held: Vec::new() }
}

impl Way {
    /// Between which two sockets the packets of a flow travel: the appliance and the port that all
    /// of them must go by.
    fn lane(&mut self, flow: &FlowKey) -> (SocketAddr, SocketAddr) {
        let ip = Ip::new(&flow.src().to_string(), &flow.dst().to_string());
        let ports = (flow.src_port(), flow.dst_port());
        let packet = match flow.protocol() {
            protocol::TCP => ip.tcp(ports, Tcp::SYN, b""),
            protocol::UDP => ip.udp(ports, b""),
            // Of ICMP, if it is that, no error.
            other => ip.protocol(other, &[128, 0, 0, 0, 0, 0, 0, 0]),
        };
        let [sent] = &self.there(&packet)[..] else { panic!("{}", describe(&packet)) };
        (sent.from, sent.to)
    }
}

#[test]
fn corpus_fragments_reach_the_appliance_of_their_flow() {
    let mut orders = 0;
    for fragmented in Fragmented::all() {
        for order in fragmented.orders() {
            orders += 1;
            let mut way = spread();
            let lane = way.lane(&fragmented.flow);
            let mut sent = Vec::new();
            for packet in &order {
                sent.extend(way.there(packet));
                way.gateway.advance(Duration::from_millis(100));
            }
            let lanes: Vec<_> = sent.iter().map(|sent| (sent.from, sent.to)).collect();
            assert_eq!(lanes, vec![lane; order.len()], "{}", fragmented.file);
            let inner = |sent: &Sent| Header::parse(&sent.bytes).unwrap().1.to_vec();
            let mut came: Vec<_> = sent.iter().map(inner).collect();
            let mut all: Vec<_> = order.iter().map(|packet| packet.to_vec()).collect();
            came.sort_unstable();
            all.sort_unstable();
            assert_eq!(came, all, "{}", fragmented.file);
            // Nothing waits any more, whatever time passes.
            way.gateway.advance(FragmentTable::HOLD);
            let totals = way.gateway.totals();
            assert_eq!((totals.tun.queued(), totals.tun.drops), (0, BTreeMap::new()));
        }
    }
    if orders > 0 {
        notice::say(&format!("corpus: fragments in {orders} orders reach their appliance\n"));
    }
}

#[test]
fn corpus_icmp_errors_reach_the_appliance_of_the_flow_they_are_about() {
    let mut kinds = BTreeMap::<String, usize>::new();
    for file in corpus::captures("inner").unwrap_or_default() {
        for packet in file.packets() {
            let Ok(Inner { transport: Transport::IcmpError { kind, about }, .. }) =
                Inner::parse(&packet)
            else {
                continue;
            };
            let mut way = spread();
            let lane = way.lane(&about);
            let [sent] = &way.there(&packet)[..] else { panic!("{}", describe(&packet)) };
            assert_eq!((sent.from, sent.to), lane, "{}: {}", file.name, describe(&packet));
            *kinds.entry(format!("{kind:?}")).or_default() += 1;
        }
    }
    for (kind, count) in kinds {
        notice::say(&format!("corpus: {count:>5} ICMP errors of the kind {kind} reach theirs\n"));
    }
}

/// Where a virtual clock starts.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn start() -> Instant {
    Instant::now()
}

/// What AWS's own gateway put on the wire is what ours does, byte for byte, except addresses, IP
/// identification, ids, cookie, port and checksums.
#[test]
fn corpus_of_aws_is_what_we_send() {
    let Some(file) = corpus::capture("geneve", "mercury-aws_geneve.pcap") else { return };
    let mut way = Way::new(1500);
    let target = way.gateway.target([192, 0, 2, 11].into()).unwrap();
    way.gateway.control(Input::PathMtu { target, mtu: 9001 });
    let mut flows = BTreeMap::<Vec<u8>, Seen>::new();
    let mut compared = 0;
    for captured in file.packets() {
        let Some(datagram) = corpus::geneve_datagram(&captured) else { continue };
        let inner = corpus::inner_packet(datagram).unwrap();
        let [sent] = &way.there(&inner)[..] else { panic!("{}", describe(&captured)) };
        let ours = sent.on_the_wire();

        let differences: Vec<_> = (0..captured.len().max(ours.len()))
            .filter(|&at| captured.get(at) != ours.get(at))
            .filter(|at| !may_differ(*at))
            .collect();
        let (captured_line, our_line) = (describe(&captured), describe(&ours));
        assert!(differences.is_empty(), "{differences:?}\n{captured_line}\n{our_line}");

        // Cookies and ports are as different, and as alike, as theirs.
        let key = Inner::parse(&inner).unwrap().flow_key().to_bytes().to_vec();
        let seen = Seen::of(&captured, &ours);
        assert_eq!(*flows.entry(key).or_insert_with(|| seen.clone()), seen, "a flow keeps them");
        compared += 1;
    }
    assert_eq!((compared, flows.len()), (224, 64));
    let distinct =
        |cookie: fn(&Seen) -> u32| flows.values().map(cookie).collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(|seen| seen.theirs.cookie), distinct(|seen| seen.ours.cookie)), (64, 64));
    notice::say("corpus: 224 packets of AWS's gateway are as ours\n");
}

/// What a flow's packets have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    theirs: Tags,
    ours: Tags,
    ports: (u16, u16),
}

impl Seen {
    fn of(theirs: &[u8], ours: &[u8]) -> Seen {
        let read = |packet| {
            let (outer, payload) = outer::parse(packet).unwrap();
            let (header, _) = Header::parse(&packet[payload]).unwrap();
            (Dialect::AWS.read(&header).unwrap(), outer.src.port())
        };
        let ((theirs, their_port), (ours, our_port)) = (read(theirs), read(ours));
        Seen { theirs, ours, ports: (their_port, our_port) }
    }
}

/// Offsets in an outer IPv4 packet that differ between two gateways.
fn may_differ(at: usize) -> bool {
    const UDP: usize = 20;
    const OPTIONS: usize = UDP + 8 + 8;
    matches!(at, 4..6 | 10..12 | 12..20) // identification, header checksum, addresses
        || (UDP..UDP + 2).contains(&at) // source port
        || (UDP + 6..UDP + 8).contains(&at) // checksum
        || (OPTIONS + 4..OPTIONS + 12).contains(&at) // endpoint
        || (OPTIONS + 16..OPTIONS + 24).contains(&at) // attachment
        || (OPTIONS + 28..OPTIONS + 32).contains(&at) // cookie
}
