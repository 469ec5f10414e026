//! The command as users run it: real processes, real sockets, signals, files.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in the helpers of tests, as in tests")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use appliance_sdk::geneve::Tags;
use appliance_sdk::geneve::inner::{Inner, TcpFlags, Transport};
use appliance_sdk::testing::wire::{WireGateway, aws};
use appliance_sdk::testing::{self, Segment};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nva_sample::ids::alert::Alert;
use nva_sample::report::Report;
use pcap_file::pcapng::{Block, PcapNgReader};

/// How long anything may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// For a test of what happens while an appliance drains.
const LONG_DRAIN: &str = "--drain-seconds=3600";

const TAGS: Tags = Tags { endpoint: 0xe1, attachment: 0, cookie: 0x00c0_0c1e };
const HEADER: usize = 40;

const CLIENT: &str = "203.0.113.9:40000";
const SERVER: &str = "10.0.1.11:80";

/// A running `nva-sample` with a folder for its files.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    geneve: SocketAddr,
    health: SocketAddr,
    stats: PathBuf,
}

impl Process {
    /// Starts it on free ports of an address, and waits until it is ready.
    fn start(address: &str, folder: &Path, arguments: &[&str]) -> Self {
        let any = SocketAddr::new(address.parse().unwrap(), 0).to_string();
        let stats = folder.join("stats");
        let mut child = Command::new(env!("CARGO_BIN_EXE_nva-sample"))
            .args(arguments)
            .args(["--listen", &any, "--health", &any, "--threads", "1"])
            .args(if arguments.contains(&LONG_DRAIN) { &[][..] } else { &["--drain-seconds=0.3"] })
            .arg("--stats")
            .arg(&stats)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        let field = |name: &str| {
            let value = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} in {ready:?}")).parse().unwrap()
        };
        assert!(ready.starts_with("ready "), "{ready:?}");
        let (geneve, health) = (field("geneve="), field("health="));
        Self { child, output, geneve, health, stats }
    }

    fn gateway(&self, address: &str) -> WireGateway {
        WireGateway::new(address.parse().unwrap(), self.geneve).unwrap()
    }

    fn report(&self) -> Report {
        Report::read(&self.stats).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Ends it as a service manager does; returns how it ended and what else it printed.
    fn end(mut self) -> (ExitStatus, String) {
        self.signal(Signal::SIGTERM);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(!self.stats.exists(), "the socket stays behind");
        (status, rest)
    }

    fn end_well(self) -> String {
        let (status, rest) = self.end();
        assert!(status.success(), "{status}");
        rest
    }
}

/// A process does not outlive a test that failed.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends inner packets one by one from one port and returns the inner packets that come back for
/// each, as many as are expected.
fn exchange(gateway: &mut WireGateway, sent: &[(Vec<u8>, usize)]) -> Vec<Vec<u8>> {
    let mut port = gateway.port().unwrap();
    let mut returned = Vec::new();
    for (packet, expected) in sent {
        let datagram = aws(&TAGS, packet);
        port.send(&datagram).unwrap();
        let answers = gateway.receive(*expected, PATIENCE).unwrap();
        assert_eq!(answers.len(), *expected);
        for answer in answers {
            assert_eq!(answer.bytes[..HEADER], datagram[..HEADER], "the header is not echoed");
            returned.push(answer.bytes[HEADER..].to_vec());
        }
    }
    returned
}

fn syn(to: &str) -> Vec<u8> {
    testing::tcp(CLIENT, to, Segment::syn(1), b"")
}

fn data(payload: &[u8]) -> Vec<u8> {
    testing::tcp(CLIENT, SERVER, Segment::data(2, 2), payload)
}

fn answer(payload: &[u8]) -> Vec<u8> {
    testing::tcp(SERVER, CLIENT, Segment::data(2, 2), payload)
}

#[test]
fn a_pass_through_passes_and_reports_and_drains() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start("127.1.1.2", folder.path(), &["passthrough"]);
    let mut gateway = process.gateway("127.1.1.1");
    let packets = [syn(SERVER), answer(b"back"), data(b"there")];
    let sent: Vec<_> = packets.iter().map(|packet| (packet.clone(), 1)).collect();
    assert_eq!(exchange(&mut gateway, &sent), packets);

    let report = process.report();
    assert_eq!(report.appliance, "passthrough");
    assert_eq!((report.packets, report.returned_packets), (3, 3));
    assert_eq!((report.flows, report.flows_both_directions), (1, 1));
    assert_eq!(report.bytes, packets.iter().map(Vec::len).sum::<usize>() as u64);
    assert!(report.syscalls > 0 && report.drops.is_empty());

    let mut check = TcpStream::connect(process.health).unwrap();
    check.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut status = String::new();
    check.read_to_string(&mut status).unwrap();
    assert!(status.starts_with("HTTP/1.1 200 ") || status.starts_with("HTTP/1.0 200 "), "{status}");
    assert_eq!(process.end_well(), "");
}

#[test]
fn faults_are_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let rewriting = ["passthrough", "--fault", "rewrite"];
    let process = Process::start("127.1.2.2", folder.path(), &rewriting);
    let mut gateway = process.gateway("127.1.2.1");
    assert_eq!(exchange(&mut gateway, &[(data(b"hello"), 1)]), [data(b"helln")]);
    process.end_well();

    let silent = ["passthrough", "--fault", "silent"];
    let process = Process::start("127.1.2.4", folder.path(), &silent);
    let mut gateway = process.gateway("127.1.2.3");
    exchange(&mut gateway, &[(data(b"hello"), 0)]);
    wait_until(|| process.report().kept_packets == 1);
    process.end_well();
}

#[test]
fn a_firewall_refuses_and_reads_its_rules_anew() {
    const DENY_SSH: &str = "default = \"allow\"\n[[rule]]\nname = \"ssh\"\naction = \"deny\"\n\
        deny_by = \"reject\"\nprotocol = \"tcp\"\nports = [22]\n";
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, DENY_SSH).unwrap();
    let process = Process::start(
        "127.1.3.2",
        folder.path(),
        &["firewall", "--rules", rules.to_str().unwrap()],
    );
    let mut gateway = process.gateway("127.1.3.1");
    let web = (syn(SERVER), 1);
    let returned = exchange(&mut gateway, &[web.clone(), (syn("10.0.1.11:22"), 1)]);
    assert_eq!(returned[0], syn(SERVER));
    let Transport::Tcp { flags, src, .. } = Inner::parse(&returned[1]).unwrap().transport else {
        panic!("not refused by a reset")
    };
    assert!(flags.contains(TcpFlags::RST) && src == 22);
    let hits: Vec<_> = process.report().sample.rules;
    assert_eq!((hits[0].rule.as_str(), hits[0].hits), ("ssh", 1));

    // A wrong file changes nothing; that it was read shows in a right one taking effect after it.
    fs::write(&rules, "default = \"whatever\"").unwrap();
    process.signal(Signal::SIGHUP);
    exchange(&mut gateway, std::slice::from_ref(&web));
    fs::write(&rules, DENY_SSH.replace("22", "80").replace("ssh", "web")).unwrap();
    process.signal(Signal::SIGHUP);
    wait_until(|| process.report().sample.rules[0].rule == "web");
    // The flow was allowed, and is judged again.
    let returned = exchange(&mut gateway, &[(data(b"x"), 1)]);
    assert_ne!(returned[0], data(b"x"));
    process.end_well();
}

#[test]
fn an_ids_writes_alerts_and_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let patterns = folder.path().join("patterns.toml");
    fs::write(
        &patterns,
        "[[pattern]]\nname = \"needle\"\ntext = \"needle\"\naction = \"alert\"\n\
         [[pattern]]\nname = \"worm\"\ntext = \"worm\"\n",
    )
    .unwrap();
    let patterns = patterns.to_str().unwrap();
    let process =
        Process::start("127.1.4.2", folder.path(), &["ids", "--patterns", patterns, "--block"]);
    let mut gateway = process.gateway("127.1.4.1");
    let data =
        |sequence, payload| testing::tcp(CLIENT, SERVER, Segment::data(sequence, 2), payload);
    exchange(&mut gateway, &[(data(2, b"a nee"), 1), (data(7, b"dle"), 1), (data(10, b"worm"), 0)]);
    wait_until(|| process.report().kept_packets == 1);
    let report = process.report();
    assert_eq!(report.sample.counts["alerts"], 2);
    assert_eq!(report.sample.counts["flows_blocked"], 1);
    assert_eq!(report.sample.rules[0].hits, 1);

    let printed = process.end_well();
    let alerts: Vec<Alert> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [needle, worm] = &alerts[..] else { panic!("{printed}") };
    assert_eq!((needle.pattern.as_str(), needle.blocked), ("needle", false));
    assert_eq!((worm.pattern.as_str(), worm.blocked), ("worm", true));
    assert_eq!(worm.endpoint, "0x00000000000000e1");
}

#[test]
fn a_mirror_writes_what_passes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mirror.pcapng");
    let out = ["mirror", "--out", file.to_str().unwrap()];
    let process = Process::start("127.1.5.2", folder.path(), &out);
    let mut gateway = process.gateway("127.1.5.1");
    let packets = [syn(SERVER), answer(b"back"), data(b"there")];
    let sent: Vec<_> = packets.iter().map(|packet| (packet.clone(), 1)).collect();
    exchange(&mut gateway, &sent);
    process.end_well();

    let mut reader = PcapNgReader::new(File::open(&file).unwrap()).unwrap();
    let mut captured = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            assert!(format!("{:?}", packet.options).contains("endpoint=0x00000000000000e1"));
            captured.push(packet.data.to_vec());
        }
    }
    assert_eq!(captured, packets);
}

#[test]
fn wrong_use_is_told_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.toml");
    fs::write(&rules, "default = \"perhaps\"\n").unwrap();
    let rules = rules.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let command = env!("CARGO_BIN_EXE_nva-sample");
        let output = Command::new(command).args(arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for wrong in [
        &["firewall"][..],
        &["passthrough", "--listen", "nowhere"],
        &["firewall", "--rules", rules],
        &["firewall", "--rules", rules, "--check"],
        &["firewall", "--rules", "/nowhere/rules.toml"],
        &["ids", "--patterns", rules],
        &["teleport"],
    ] {
        let (code, error) = run(wrong);
        assert_eq!(code, Some(2), "{wrong:?}: {error}");
    }
    let (_, error) = run(&["firewall", "--rules", rules]);
    assert!(error.contains("there is no action \"perhaps\"") && error.contains(":1:11"), "{error}");

    let taken = std::net::UdpSocket::bind("127.1.6.2:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let (code, error) = run(&["passthrough", "--listen", &listen, "--health", "none"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&listen), "{error}");

    fs::write(rules, "default = \"deny\"\n").unwrap();
    assert_eq!(run(&["firewall", "--rules", rules, "--check"]).0, Some(0));
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["passthrough", LONG_DRAIN];
    let process = Process::start("127.1.7.2", folder.path(), &arguments);
    process.signal(Signal::SIGINT);
    // The second takes effect only once the first did.
    wait_until(|| {
        TcpStream::connect(process.health).is_ok_and(|mut stream| {
            let mut status = String::new();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
                && stream.read_to_string(&mut status).is_ok()
                && status.contains(" 503 ")
        })
    });
    process.end_well();
}

#[cfg(feature = "handoff")]
#[test]
fn a_handed_over_packet_comes_back_through_the_kernel() {
    use netio::link::Links;
    use netio::netns::ScratchNetns;

    let Some(netns) = ScratchNetns::for_test("a_handed_over_packet_comes_back") else { return };
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        eprintln!("SKIP a_handed_over_packet_comes_back: /dev/net/tun: {error}");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{error}");
        return;
    }
    Links::in_netns(&netns).unwrap().set_up("lo").unwrap();
    let folder = tempfile::tempdir().unwrap();
    netns
        .run(|| {
            let arguments =
                ["handoff", "--hairpin", "--device", "hand0", "--address", "10.9.9.9/32"];
            let process = Process::start("127.1.8.2", folder.path(), &arguments);
            let mut gateway = process.gateway("127.1.8.1");
            let packets = [
                syn(SERVER),
                answer(b"back"),
                testing::udp("[2001:db8::1]:5", "[2001:db8:1::1]:53", b"over IPv6"),
                testing::icmp_echo("203.0.113.9", "10.0.1.11", 1, 1, b"ping"),
            ];
            for packet in packets {
                let [back] = exchange(&mut gateway, &[(packet.clone(), 1)]).try_into().unwrap();
                let (before, after) =
                    (Inner::parse(&packet).unwrap(), Inner::parse(&back).unwrap());
                assert_eq!(after.ttl, before.ttl - 1, "the kernel is a hop");
                assert_eq!(after.flow_key(), before.flow_key());
                assert_eq!(back[before.header_len..], packet[before.header_len..]);
            }
            // The kernel has something of its own to say, about a flow.
            let mut dying = syn(SERVER);
            dying[8] = 1;
            let inner = Inner::parse(&dying).unwrap();
            appliance_sdk::geneve::checksum::complete(&inner, &mut dying);
            let [error] = exchange(&mut gateway, &[(dying, 1)]).try_into().unwrap();
            let error = Inner::parse(&error).unwrap();
            assert!(matches!(error.transport, Transport::IcmpError { .. }), "{error:?}");
            assert_eq!(error.src.to_string(), "10.9.9.9");

            // What comes back is counted when the worker has it already.
            wait_until(|| process.report().sample.counts["came_back"] == 5);
            assert_eq!(process.report().sample.counts["handed_over"], 5);
            process.end_well();
        })
        .unwrap();
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "processes are waited for in real time")]
    let now = std::time::Instant::now;
    let deadline = now() + PATIENCE;
    while !condition() {
        assert!(now() < deadline, "it does not happen");
        std::thread::yield_now();
    }
}
