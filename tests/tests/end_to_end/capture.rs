//! Captures and examples of drops: what they show is what happened, and looking disturbs nothing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use geneve::checksum::{Integrity, verify};
use geneve::{CanonicalKey, Dialect, Header, Inner, PORT, outer};
use gwlb_tests::packets::Ip;
use gwlb_tests::tshark;
use gwlb_tests::world::raw::RawSender;
use gwlb_tests::world::rogue::Rogue;
use gwlb_tests::world::status::{Status, get};
use gwlb_tests::world::traffic::{self, EchoServer, Stream};
use gwlb_tests::world::{Family, Gateway, Plan, Process, World, wait_until};
use nix::sys::signal::Signal;
use pcap_file::PcapError;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

use super::{FAMILIES, directions, world};

/// A capture in progress.
struct Capturing {
    process: Process,
    file: PathBuf,
}

impl Capturing {
    /// Begins one, and waits until it is on.
    fn start(world: &World, arguments: &[&str]) -> Self {
        let file = world.folder().join(format!("{}.pcapng", arguments.len()));
        let (socket, name) = (world.admin_socket(), file.to_str().unwrap().to_owned());
        let mut command = world.command(&["gwlb", "capture", "-w", &name]);
        command.arg("--socket").arg(socket).args(arguments);
        let process = Process::start("capture", command);
        wait_until("the capture is on", || {
            std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
        });
        Self { process, file }
    }

    /// Ends it as a user does.
    fn interrupt(mut self) -> File {
        self.process.signal(Signal::SIGINT);
        self.finish()
    }

    /// Waits for its end.
    fn finish(&mut self) -> File {
        let finished = self.process.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.log);
        let file = File::read(&self.file);
        let said = format!("{} packet", file.packets.len());
        assert!(finished.stderr.contains(&said), "{said}: {}", finished.log);
        file
    }
}

/// A packet of a capture.
struct Packet {
    point: String,
    bytes: Vec<u8>,
    whole: bool,
    comment: String,
}

impl Packet {
    /// What the comment says after `name=`.
    fn said(&self, name: &str) -> Option<&str> {
        let mut parts = self.comment.split(", ");
        parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
    }

    /// How many packets it stands for.
    fn segments(&self) -> u64 {
        let Some((_, after)) = self.comment.split_once("super-packet of ") else { return 1 };
        after.split(' ').next().unwrap().parse().unwrap()
    }
}

/// A capture that is over.
struct File {
    packets: Vec<Packet>,
    /// By point: seen, lost.
    statistics: BTreeMap<String, (u64, u64)>,
}

impl File {
    fn read(path: &Path) -> Self {
        let (file, error) = Self::read_up_to_error(path);
        assert!(error.is_none(), "{error:?}");
        file
    }

    /// Of a file that is being written, what is there: its last block may not be.
    fn so_far(path: &Path) -> Self {
        Self::read_up_to_error(path).0
    }

    fn read_up_to_error(path: &Path) -> (Self, Option<PcapError>) {
        let mut reader = PcapNgReader::new(std::fs::File::open(path).unwrap()).unwrap();
        let mut points = Vec::new();
        let mut file = Self { packets: Vec::new(), statistics: BTreeMap::new() };
        while let Some(block) = reader.next_block() {
            let block = match block {
                Ok(block) => block,
                Err(error) => return (file, Some(error)),
            };
            match block {
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype, pcap_file::DataLink::RAW);
                    points.extend(interface.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => {
                    let comment = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                        _ => None,
                    });
                    file.packets.push(Packet {
                        point: points[packet.interface_id as usize].clone(),
                        whole: packet.data.len() == packet.original_len as usize,
                        bytes: packet.data.to_vec(),
                        comment: comment.unwrap(),
                    });
                }
                Block::InterfaceStatistics(said) => {
                    let mut counts = (0, 0);
                    for option in said.options {
                        match option {
                            InterfaceStatisticsOption::IsbIfRecv(seen) => counts.0 = seen,
                            InterfaceStatisticsOption::IsbIfDrop(missed)
                            | InterfaceStatisticsOption::IsbOsDrop(missed) => counts.1 += missed,
                            _ => {}
                        }
                    }
                    file.statistics.insert(points[said.interface_id as usize].clone(), counts);
                }
                _ => {}
            }
        }
        (file, None)
    }

    fn at(&self, point: &str) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| packet.point == point)
    }

    /// Packets at a point, each as many as it stands for.
    fn count(&self, point: &str) -> u64 {
        self.at(point).map(Packet::segments).sum()
    }
}

/// Waits until a capture has so many packets, and ends it.
fn end_with(capture: Capturing, least: u64) -> File {
    // All that is there has been asked for twice when it grows no more.
    let mut before = (0, 0);
    wait_until("the capture has grown", || {
        let file = File::so_far(&capture.file);
        let now = file.packets.len() as u64;
        before = if now == before.0 { (now, before.1 + 1) } else { (now, 0) };
        now >= least && before.1 > 100
    });
    capture.interrupt()
}

#[test]
fn a_capture_agrees_with_the_counters_at_every_point() {
    let test = "a_capture_agrees_with_the_counters";
    let Some(world) = world(test, Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let capture = Capturing::start(&world, &["--seconds", "600"]);
    for family in FAMILIES {
        for (from, to) in directions(&world) {
            traffic::transfer(from, to, family, 64 << 10);
            traffic::ping(from, to.address(family), 100).unwrap();
            let server = EchoServer::start(to, family);
            let socket = traffic::datagrams(from, server.address());
            traffic::exchange(&socket, b"datagram").unwrap();
        }
    }
    provoke_drops(&world, &gateway);
    let status = gateway.settled();
    let file = end_with(capture, 100);
    let pcapng = world.folder().join("2.pcapng");

    let drops: u64 = status.drops().values().sum();
    let delivered = status.tun.delivered + status.udp.delivered;
    let expected = [
        ("in", status.tun.received),
        ("to-appliance", status.tun.encapsulated + status.udp.encapsulated),
        ("from-appliance", status.udp.received),
        ("out", delivered),
        ("drop", drops),
    ];
    for (point, count) in expected {
        let statistics = file.statistics.get(point);
        assert_eq!(file.count(point), count, "{point}, {statistics:?}: {status:#?}");
    }
    assert!(file.at("in").any(|packet| packet.segments() > 1), "super-packets come in");

    let dialect = Dialect::by_name(world.plan.dialect).unwrap();
    let (node, target) = (world.plan.node(0), SocketAddr::new(world.plan.target(0), PORT));
    let mut cookies: BTreeMap<CanonicalKey, String> = BTreeMap::new();
    for packet in file.at("to-appliance").chain(file.at("from-appliance")) {
        assert!(packet.whole);
        let (outer, payload) = outer::parse(&packet.bytes).unwrap();
        assert_eq!(outer.checksum, Integrity::Valid, "{}", packet.comment);
        let (from, to) = match &packet.point[..] {
            "to-appliance" => (outer.src, outer.dst),
            _ => (outer.dst, outer.src),
        };
        let Ok((header, inner)) = Header::parse(&packet.bytes[payload]) else { continue };
        let Ok(tags) = dialect.read(&header) else { continue };
        if packet.point == "to-appliance" {
            assert_eq!((from.ip(), to), (node, target));
        } else {
            assert_eq!((from, to.ip()), (SocketAddr::new(node, PORT), target.ip()));
        }
        assert_eq!(packet.said("endpoint"), Some("vpce-a"));
        assert_eq!(packet.said("cookie"), Some(&format!("{:#010x}", tags.cookie)[..]));
        let inner = Inner::parse(inner).unwrap();
        assert!(packet.said("flow").is_some());
        let flow = inner.flow_key().canonical();
        let cookie = cookies.entry(flow).or_insert_with(|| packet.said("cookie").unwrap().into());
        assert_eq!(Some(&cookie[..]), packet.said("cookie"), "one flow has one cookie");
    }
    assert_eq!(cookies.len(), 4 + 2 + 4, "TCP, ping (which has no ports) and UDP");
    // What comes in and goes out says the same of its flow as what the appliance gets.
    for packet in file.at("in").chain(file.at("out")) {
        let Ok(inner) = Inner::parse(&packet.bytes) else { continue };
        if let Some(cookie) = cookies.get(&inner.flow_key().canonical()) {
            assert_eq!(packet.said("cookie"), Some(&cookie[..]), "{}", packet.comment);
        }
        if packet.point == "out" && packet.segments() == 1 && !packet.comment.contains("checksum") {
            assert_eq!(verify(&inner, &packet.bytes), Integrity::Valid);
        }
    }
    let mut reasons = BTreeMap::new();
    for packet in file.at("drop") {
        *reasons.entry(packet.said("reason").unwrap()).or_insert(0) += packet.segments();
    }
    assert_eq!(reasons, status.drops());
    examples_are_told(&world, &status);
    if tshark::is_there(test) {
        ask_tshark(&pcapng, &file);
    }
    gateway.stop();
}

/// Drops for several reasons, on both sides.
fn provoke_drops(world: &World, gateway: &Gateway) {
    let client = world.client.address(Family::V4).to_string();
    let nowhere = Ip::new(&client, "10.0.77.7").udp((1, 2), b"nowhere");
    RawSender::new(&world.client).send(&[nowhere]).unwrap();
    let rogue = Rogue::new(world, 0);
    let stranger = SocketAddr::new(world.plan.stranger(0), 61_000);
    let target = SocketAddr::new(world.plan.target(0), 61_000);
    // The version is in the first two bits (RFC 8926 section 3.4).
    let future = rogue.packet(target, &[0x40; 64]);
    let packets = [rogue.packet(stranger, b"who are you?"), rogue.packet(target, b"short"), future];
    rogue.send(&packets).unwrap();
    gateway.wait_until("all are dropped", |status| status.drops().values().sum::<u64>() >= 4);
}

const REASONS: [&str; 4] = ["geneve_version", "malformed_geneve", "no_subnet", "unknown_source"];

fn examples_are_told(world: &World, status: &Status) {
    let answer = get(&world.admin_socket(), "/v1/drops?seconds=600").unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let reasons = answer["reasons"].as_array().unwrap();
    let counted: BTreeMap<_, _> = reasons
        .iter()
        .map(|it| (it["reason"].as_str().unwrap(), it["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(counted, status.drops());
    assert_eq!(counted.keys().copied().collect::<Vec<_>>(), REASONS);
    let example = |reason: &str| {
        let reason = reasons.iter().find(|it| it["reason"] == reason).unwrap();
        assert!(!reason["help"].as_str().unwrap().is_empty());
        reason["examples"][0].clone()
    };
    let client = world.client.address(Family::V4);
    let flow = format!("udp {client}:1 > 10.0.77.7:2");
    let nowhere = example("no_subnet");
    assert_eq!((&nowhere["flow"], &nowhere["side"]), (&flow.into(), &"tun".into()));
    assert_eq!(nowhere["origin"], "internet_gateway:igw");
    assert_eq!(nowhere["head"].as_str().unwrap().len(), 2 * (28 + "nowhere".len()));
    let short = example("malformed_geneve");
    let peer = SocketAddr::new(world.plan.target(0), 61_000).to_string();
    assert_eq!((&short["peer"], &short["side"]), (&peer.into(), &"udp".into()));
    assert_eq!((&short["flow"], short["length"].as_u64()), (&Value::Null, Some(5)));

    let socket = world.admin_socket();
    let arguments = ["gwlb", "explain", "--drops", "--seconds", "600", "--socket"];
    let told = world.run(&[&arguments[..], &[socket.to_str().unwrap()]].concat());
    assert_eq!(told.code, Some(0), "{}", told.log);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["reasons"].as_array().unwrap().len(), REASONS.len());
}

fn ask_tshark(pcapng: &Path, file: &File) {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(pcapng).args(["-T", "fields", "-E", "separator=;"]);
    for field in ["frame.interface_name", "geneve.option.class", "frame.comment", "_ws.malformed"] {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), file.packets.len());
    for (line, packet) in lines.lines().zip(&file.packets) {
        let said: Vec<_> = line.split(';').collect();
        assert_eq!(said[0], packet.point);
        assert!(line.contains(&packet.comment), "{line}");
        let datagram = packet.point.ends_with("-appliance") && packet.said("cookie").is_some();
        assert_eq!(said[1] == "0x0108,0x0108,0x0108", datagram, "{line}");
    }
}

#[test]
fn filters_and_bounds_hold() {
    let Some(world) = world("filters_and_bounds", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let exchange = |family: Family| {
        let server = EchoServer::start(&world.servers[0], family);
        let socket = traffic::datagrams(&world.client, server.address());
        for _ in 0..8 {
            traffic::exchange(&socket, b"datagram").unwrap();
        }
        server.address().port()
    };
    let client = world.client.address(Family::V4).to_string();
    let target = world.plan.target(0).to_string();
    let all = Capturing::start(&world, &["--endpoint", "vpce-a", "--target", &target]);
    let arguments = ["--address", &client, "--points", "in,out", "--count", "20", "--snaplen"];
    let mut some = Capturing::start(&world, &[&arguments[..], &["64"]].concat());
    exchange(Family::V6);
    exchange(Family::V4);
    exchange(Family::V4);
    let some = some.finish();
    assert_eq!(some.packets.len(), 20);
    for packet in &some.packets {
        assert!(packet.bytes[0] == 0x45 && packet.comment.contains(&client), "{}", packet.comment);
        assert!(["in", "out"].contains(&&packet.point[..]) && packet.bytes.len() <= 64);
    }
    let whole = end_with(all, 4 * 48);
    assert_eq!(whole.packets.len(), 4 * 48, "all go by this endpoint and to this target");
    for packet in &whole.packets {
        assert_eq!(packet.said("endpoint"), Some("vpce-a"), "{}", packet.comment);
        assert_eq!(packet.said("target"), Some(&format!("{target}:{PORT}")[..]));
    }

    // None goes to that one, and a name that is not there is told.
    let socket = world.admin_socket();
    let refused = |arguments: &[&str]| {
        let fixed = ["gwlb", "capture", "--socket", socket.to_str().unwrap()];
        let finished = world.run(&[&fixed[..], arguments].concat());
        assert_eq!((finished.code, &finished.stdout[..]), (Some(2), ""), "{}", finished.log);
        finished.stderr
    };
    assert!(refused(&["--endpoint", "vpce-x"]).contains("vpce-x"));
    assert!(refused(&["--points", "inn"]).contains("points[0]"));
    assert!(refused(&["--seconds", "4000"]).contains("1 to 3600"));
    assert!(refused(&["--target", "bypass"]).contains("target"));
    gateway.stop();
}

#[test]
fn a_client_that_stops_reading_holds_up_no_packet() {
    let Some(world) = world("a_client_that_stops", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let begin = || {
        let mut stream = UnixStream::connect(world.admin_socket()).unwrap();
        stream.set_read_timeout(Some(gwlb_tests::world::LIMIT)).unwrap();
        let body = r#"{"seconds": 600}"#;
        let length = body.len();
        write!(
            stream,
            "POST /v1/capture HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8(head.to_vec()).unwrap(), stream)
    };
    let clients: Vec<_> = (0..4).map(|_| begin()).collect();
    assert!(clients.iter().all(|(head, _)| head == "HTTP/1.1 200"));
    assert_eq!(begin().0, "HTTP/1.1 503", "there may be no more");
    let (client, server) = (&world.client, &world.servers[0]);
    let stream = Stream::start(client, server, Family::V4);
    stream.wait_for_more(64 << 20);
    stream.finish();
    let status = gateway.settled();
    status.assert_lossless();
    // Who goes leaves room for others at once, though no packet passes.
    drop(clients);
    wait_until("there is room again", || begin().0 == "HTTP/1.1 200");
    // A capture is over when the gateway ends.
    let capture = Capturing::start(&world, &["--seconds", "600"]);
    traffic::ping(client, server.address(Family::V4), 10).unwrap();
    gateway.process.terminate();
    let mut capture = capture;
    let file = capture.finish();
    assert_eq!((file.count("in"), file.count("out")), (2, 2));
    assert_eq!(file.statistics["in"], (2, 0), "it has its end");
    assert_eq!(gateway.process.finish().code, Some(0));
}

#[test]
fn lines_are_for_people_and_binary_is_not_for_terminals() {
    let Some(world) = world("capture_lines", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let socket = world.admin_socket();
    let fixed = ["gwlb", "capture", "--socket", socket.to_str().unwrap()];
    let arguments = ["--protocol", "icmp", "--count", "8"];
    let mut lines = Process::start("lines", world.command(&[&fixed[..], &arguments].concat()));
    wait_until("a line is printed", || {
        traffic::ping(&world.client, world.servers[0].address(Family::V4), 10).unwrap();
        lines.log().contains("icmp")
    });
    let finished = lines.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.log);
    assert_eq!(finished.stdout.lines().count(), 8, "{}", finished.log);
    assert!(finished.stderr.contains("8 packets captured, 0 lost"), "{}", finished.log);
    for point in ["in ", "to-appliance ", "from-appliance ", "out "] {
        assert!(finished.stdout.contains(&format!(" {point}")), "{point}: {}", finished.log);
    }
    let terminal = nix::pty::openpty(None, None).unwrap();
    let command = world.command(&[&fixed[..], &["-w", "-"]].concat());
    let mut refused = Process::start_with("capture", command, terminal.slave);
    let finished = refused.finish();
    assert_eq!(finished.code, Some(2), "{}", finished.log);
    assert!(finished.stderr.contains("terminal"), "{}", finished.log);
    gateway.stop();
}

/// Pairs of measurements with and without a capture.
const PAIRS: usize = 8;
/// What is sent in each.
const BYTES: u64 = 512 << 20;

/// What the workers spend on a packet while somebody captures, against what they do otherwise. It
/// is their CPU time that is compared, in turns, which others on the machine disturb little; and how
/// fast the connection is, which they do disturb.
#[test]
#[ignore = "a measurement: cargo test --release -p gwlb-tests --test end_to_end -- --ignored --nocapture what_a_capture_costs"]
fn what_a_capture_costs() {
    let Some(world) = world("what_a_capture_costs", Plan::default()) else { return };
    let _nva = world.start_appliances();
    let mut gateway = world.start_gateway();
    let measure = || {
        let before = (worker_time(&gateway), packets(&gateway.status()));
        let transfer = traffic::transfer(&world.client, &world.servers[0], Family::V4, BYTES);
        let after = (worker_time(&gateway), packets(&gateway.status()));
        let time = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
        (time, transfer.gigabits_per_second())
    };
    measure();
    let cases: [(&str, &[&str]); 3] = [
        ("all of every packet", &[]),
        ("128 bytes of every packet", &["--snaplen", "128"]),
        ("nothing, by a filter", &["--address", "192.0.2.250"]),
    ];
    for (what, arguments) in cases {
        let mut ratios = (Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let captured = || {
                let without_end = ["--seconds=600", "--count=10000000", "--max-bytes=10737418240"];
                let capture = Capturing::start(&world, &[arguments, &without_end].concat());
                let measured = measure();
                let len = std::fs::metadata(&capture.file).unwrap().len();
                drop(capture);
                gateway.settled();
                println!("{what}: {} MB written", len >> 20);
                measured
            };
            // Neither is always the first.
            let (off, on) = if pair % 2 == 0 {
                let off = measure();
                (off, captured())
            } else {
                let on = captured();
                (measure(), on)
            };
            println!(
                "{what}: {:.0} and {:.0} ns a packet; {:.2} and {:.2} Gbit/s",
                off.0, on.0, off.1, on.1
            );
            ratios.0.push(on.0 / off.0);
            ratios.1.push(on.1 / off.1);
        }
        let median = |ratios: &mut Vec<f64>| {
            ratios.sort_by(f64::total_cmp);
            f64::midpoint(ratios[PAIRS / 2 - 1], ratios[PAIRS / 2])
        };
        let (time, speed) = (median(&mut ratios.0), median(&mut ratios.1));
        println!("{what}: workers' time x {time:.3}, speed x {speed:.3}, medians of {PAIRS} pairs");
        // What is not optimised takes a larger part.
        let (most, least) = if cfg!(debug_assertions) { (2.0, 0.5) } else { (1.1, 0.9) };
        assert!(time < most && speed > least, "{what}: {time}, {speed}");
    }
    gateway.stop();
}

/// Packets that the gateway took in.
fn packets(status: &Status) -> u64 {
    status.tun.received + status.udp.received
}

/// The CPU time of all workers, in nanoseconds.
fn worker_time(gateway: &Gateway) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.process.id())).unwrap();
    let of = |task: PathBuf| {
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let time = times.split(' ').next()?.parse::<u64>().ok()?;
        name.starts_with("worker-").then_some(time)
    };
    tasks.filter_map(|task| of(task.unwrap().path())).sum()
}
