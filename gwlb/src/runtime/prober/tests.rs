//! Probes against small servers on loopback that behave as real appliances do (appliances.md).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use netio::link::Links;
use netio::netns::{Netns, ScratchNetns};
use nix::sys::socket::{setsockopt, sockopt::Linger};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rstest::rstest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::config::{Matcher, Port};

/// Long enough for everything that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what will not happen.
const SHORT: Duration = Duration::from_millis(30);
/// Probes come from another address than servers have, so that no port connects to itself.
const SOURCE: &str = "127.0.0.2";

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

pub(super) fn health(protocol: HealthProtocol) -> HealthCheck {
    HealthCheck {
        enabled: true,
        protocol,
        port: Port::HEALTH_CHECK,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        healthy_threshold: 5,
        unhealthy_threshold: 2,
        host: None,
        path: "/healthz".to_owned(),
        matcher: Matcher::default(),
        ca_file: None,
    }
}

/// A prober, and a runtime of one thread as the control plane has it.
struct Bench {
    prober: Arc<Prober>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let prober = Prober::new(vec![Netns::current().unwrap().resident().unwrap()]);
        Self { prober: Arc::new(prober), runtime }
    }

    fn probe(&self, job: ProbeJob) -> ProbeOutcome {
        self.runtime.block_on(self.prober.probe(job)).outcome
    }

    /// One probe of `server` with all the time that it needs.
    fn ask(&self, health: HealthCheck, server: SocketAddr) -> ProbeOutcome {
        self.probe(job(health, server))
    }
}

fn job(health: HealthCheck, address: SocketAddr) -> ProbeJob {
    ProbeJob {
        netns: 0,
        source: SOURCE.parse().unwrap(),
        address,
        tls: client_config(&health).unwrap(),
        health: Arc::new(health),
        timeout: PATIENCE,
    }
}

/// Serves `connections` connections, one after the other, each by `serve`.
fn server(
    connections: usize,
    serve: impl Fn(TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), SOURCE);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            // A reset takes with it what waits for an acknowledgement.
            stream.set_nodelay(true).unwrap();
            serve(stream);
        }
    });
    (address, thread)
}

/// Reads a request to its end.
fn request(mut stream: impl Read) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "no request: {text:?}");
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Closes with a RST.
fn reset(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, Linger, &linger).unwrap();
}

/// Until the other side has closed; what comes meanwhile is thrown away.
fn closed(mut stream: &TcpStream) {
    // A RST is as good.
    while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
}

#[test]
fn a_connection_that_opens_passes_tcp_and_is_closed() {
    let bench = Bench::new();
    let (address, served) = server(1, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.is_empty());
    });
    assert_eq!(bench.ask(health(HealthProtocol::Tcp), address), ProbeOutcome::Passed);
    served.join().unwrap();
}

#[test]
fn the_request_is_a_plain_get() {
    let bench = Bench::new();
    let (sent, received) = std::sync::mpsc::channel();
    let (address, served) = server(1, move |mut stream| {
        sent.send(request(&stream)).unwrap();
        stream.write_all(OK).unwrap();
    });
    assert_eq!(bench.ask(health(HealthProtocol::Http), address), ProbeOutcome::Passed);
    served.join().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /healthz HTTP/1.1\r\nhost: {address}\r\nuser-agent: gwlb-health-check/{version}\r\n\
         connection: close\r\n\r\n"
    );
    assert_eq!(received.recv().unwrap(), expected);
}

/// Whether or not it has read the request, and whether or not that has been written by then.
#[test]
fn a_reset_behind_the_answer_does_no_harm() {
    const PROBES: usize = 200;
    let bench = Bench::new();
    for reads in [false, true] {
        let (address, served) = server(PROBES, move |mut stream| {
            if reads {
                request(&stream);
            }
            stream.write_all(OK).unwrap();
            reset(&stream);
        });
        for _ in 0..PROBES {
            let outcome = bench.ask(health(HealthProtocol::Http), address);
            assert_eq!(outcome, ProbeOutcome::Passed, "reads: {reads}");
        }
        served.join().unwrap();
    }
}

#[test]
fn an_endless_body_is_not_waited_for() {
    let bench = Bench::new();
    let (address, served) = server(1, |mut stream| {
        request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        while stream.write_all(b"1000\r\n").and_then(|()| stream.write_all(&[b'x'; 0x1000])).is_ok()
        {
            if stream.write_all(b"\r\n").is_err() {
                break;
            }
        }
    });
    assert_eq!(bench.ask(health(HealthProtocol::Http), address), ProbeOutcome::Passed);
    served.join().unwrap();
}

/// It takes the next connection when the last one was closed by the other side.
#[test]
fn a_server_of_one_connection_at_a_time_serves_all_probes() {
    const PROBES: usize = 20;
    let bench = Bench::new();
    let (address, served) = server(PROBES, |mut stream| {
        request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nno end of this body is known").unwrap();
        closed(&stream);
    });
    let job = job(health(HealthProtocol::Http), address);
    let outcomes = bench.runtime.block_on(async {
        let mut probes = JoinSet::new();
        for _ in 0..PROBES {
            let (shared, job) = (Arc::clone(&bench.prober), job.clone());
            probes.spawn(async move { shared.probe(job).await });
        }
        probes.join_all().await
    });
    assert!(outcomes.iter().all(|it| it.outcome == ProbeOutcome::Passed), "{outcomes:?}");
    let timed = |it: &Probed| it.took.is_some_and(|took| took > Duration::ZERO && took < PATIENCE);
    assert!(outcomes.iter().all(timed), "{outcomes:?}");
    served.join().unwrap();
}

#[rstest]
#[case::closed_at_once("", ProbeOutcome::Failed)]
#[case::closed_early("HTTP/1.1 200 OK\r\nContent-Le", ProbeOutcome::Failed)]
#[case::garbage("SSH-2.0-OpenSSH_9.9\r\n", ProbeOutcome::Failed)]
#[case::older_http("HTTP/1.0 200 fine\r\n\r\n", ProbeOutcome::Passed)]
#[case::odd_headers("HTTP/1.1 200 OK\r\nno header\r\n\r\n", ProbeOutcome::Passed)]
#[case::wait_for_it(
    "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ProbeOutcome::Passed
)]
#[case::in_the_range("HTTP/1.1 299 X\r\n\r\n", ProbeOutcome::Passed)]
#[case::listed("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", ProbeOutcome::Passed)]
#[case::beyond_the_range("HTTP/1.1 300 X\r\n\r\n", ProbeOutcome::Mismatch(300))]
#[case::not_found("HTTP/1.1 404 Not Found\r\n\r\n", ProbeOutcome::Mismatch(404))]
fn an_answer_is_judged_by_its_status(#[case] answer: &'static str, #[case] expected: ProbeOutcome) {
    let bench = Bench::new();
    let (address, served) = server(1, move |mut stream| {
        request(&stream);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let matcher = Matcher::new("200-299,302").unwrap();
    let health = HealthCheck { matcher, ..health(HealthProtocol::Http) };
    assert_eq!(bench.ask(health, address), expected);
    served.join().unwrap();
}

#[test]
fn a_head_without_end_fails() {
    let bench = Bench::new();
    let (address, served) = server(1, |mut stream| {
        request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        while stream.write_all(b"X-Filler: 0123456789abcdef0123456789abcdef\r\n").is_ok() {}
    });
    assert_eq!(bench.ask(health(HealthProtocol::Http), address), ProbeOutcome::Failed);
    served.join().unwrap();
}

#[rstest]
#[case::nothing(HealthProtocol::Http, "")]
#[case::half_a_head(HealthProtocol::Http, "HTTP/1.1 200 OK\r\n")]
#[case::no_handshake(HealthProtocol::Https, "")]
fn who_keeps_silent_times_out(#[case] protocol: HealthProtocol, #[case] says: &'static str) {
    let bench = Bench::new();
    let (address, served) = server(1, move |mut stream| {
        stream.write_all(says.as_bytes()).unwrap();
        closed(&stream);
    });
    let job = ProbeJob { timeout: SHORT, ..job(health(protocol), address) };
    assert_eq!(bench.probe(job), ProbeOutcome::TimedOut);
    // It was told that nobody waits any more.
    served.join().unwrap();
}

#[test]
fn a_closed_port_refuses() {
    let bench = Bench::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in [HealthProtocol::Tcp, HealthProtocol::Http, HealthProtocol::Https] {
        assert_eq!(bench.ask(health(protocol), address), ProbeOutcome::Refused);
    }
}

#[test]
fn what_is_wrong_here_is_not_the_targets_fault() {
    let bench = Bench::new();
    let address = "127.0.0.1:9".parse().unwrap();
    let job = job(health(HealthProtocol::Tcp), address);
    let not_ours = ProbeJob { source: "192.0.2.77".parse().unwrap(), ..job.clone() };
    assert_eq!(bench.probe(not_ours), ProbeOutcome::Local);
    let other_version = ProbeJob { source: "::1".parse().unwrap(), ..job.clone() };
    assert_eq!(bench.probe(other_version), ProbeOutcome::Local);
    let nowhere = ProbeJob { netns: 1, ..job.clone() };
    assert_eq!(bench.probe(nowhere), ProbeOutcome::Local);

    let (open, served) = server(2, |stream| closed(&stream));
    let no_request = HealthCheck { path: "/<".to_owned(), ..health(HealthProtocol::Http) };
    assert_eq!(bench.ask(no_request, open), ProbeOutcome::Local);
    let no_name = HealthCheck { host: Some("-".to_owned()), ..health(HealthProtocol::Https) };
    assert_eq!(bench.ask(no_name, open), ProbeOutcome::Local);
    served.join().unwrap();

    bench.prober.under_way.forget_permits(AT_ONCE);
    assert_eq!(bench.probe(ProbeJob { timeout: SHORT, ..job.clone() }), ProbeOutcome::Local);
    bench.prober.under_way.add_permits(1);
    assert_eq!(bench.probe(job), ProbeOutcome::Refused);
}

#[test]
fn probes_are_made_in_the_namespace_of_the_underlay() {
    let name = "probes_are_made_in_the_namespace_of_the_underlay";
    let Some(netns) = ScratchNetns::for_test(name) else { return };
    let links = Links::in_netns(&netns).unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    links.create_veth("up", "down", &netns).unwrap();
    for device in ["lo", "up", "down"] {
        links.set_up(device).unwrap();
    }
    links.add_address("up", ip("10.9.0.1"), 24).unwrap();
    links.add_address("up", ip("fd09::1"), 64).unwrap();
    // Nobody is long in finding out that nobody has an address.
    netns.set_sysctl("net.ipv4.neigh.up.mcast_solicit", "1").unwrap();
    netns.set_sysctl("net.ipv4.neigh.up.retrans_time_ms", "100").unwrap();
    let listen = || TcpListener::bind("[::1]:0").unwrap();
    let listener = netns.run(listen).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let prober =
        Prober::new(vec![Netns::current().unwrap().resident().unwrap(), netns.resident().unwrap()]);
    let probe = |source, address: &str, timeout| {
        let address = address.parse().unwrap();
        let job = job(health(HealthProtocol::Tcp), address);
        let job = ProbeJob { netns: 1, source: ip(source), timeout, ..job };
        runtime.block_on(prober.probe(job)).outcome
    };
    let inside = listener.local_addr().unwrap().to_string();
    assert_eq!(probe("::1", &inside, PATIENCE), ProbeOutcome::Passed);
    assert_eq!(probe("10.9.0.1", "10.9.0.1:9", PATIENCE), ProbeOutcome::Refused);
    assert_eq!(probe("10.9.0.1", "10.9.0.2:9", SHORT), ProbeOutcome::TimedOut);
    assert_eq!(probe("10.9.0.1", "10.9.0.3:9", PATIENCE), ProbeOutcome::Failed);
    // No route leads there.
    assert_eq!(probe("10.9.0.1", "192.0.2.1:9", PATIENCE), ProbeOutcome::Failed);
}

/// A CA, and what a target shows that has a certificate of it.
struct Pki {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), ca }
    }

    /// The CA's certificate in a file.
    fn file(&self) -> PathBuf {
        self.write(&self.ca.pem())
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A target that has a certificate for `name`.
    fn target(&self, name: &str, version: &'static SupportedProtocolVersion) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        serves(certificate.der().clone(), &key, version)
    }

    /// A target that shows the CA's own certificate, as self-signed ones mostly are.
    fn self_signed(&self) -> ServerConfig {
        serves(self.ca.der().clone(), self.ca.key(), &rustls::version::TLS13)
    }
}

fn serves(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
    version: &'static SupportedProtocolVersion,
) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

/// Answers one probe over TLS and resets the connection; gives the name that was asked for.
fn ask_over_tls(config: ServerConfig, health: HealthCheck) -> (ProbeOutcome, Option<String>) {
    let bench = Bench::new();
    let (sent, asked) = std::sync::mpsc::channel();
    let config = Arc::new(config);
    let (address, served) = server(1, move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(tls, stream);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        sent.send(stream.conn.server_name().map(str::to_owned)).unwrap();
        // Who does not like the certificate closes here.
        if stream.write_all(OK).and_then(|()| stream.flush()).is_ok() {
            reset(&stream.sock);
        }
    });
    let outcome = bench.ask(health, address);
    served.join().unwrap();
    (outcome, asked.try_recv().ok().flatten())
}

#[test]
fn both_versions_of_tls_are_spoken_and_nothing_is_verified_without_a_ca() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let target = Pki::new().target("somebody.else", version);
        let (outcome, asked) = ask_over_tls(target, health(HealthProtocol::Https));
        // An address is no name that could be asked for (RFC 6066 §3).
        assert_eq!((outcome, asked), (ProbeOutcome::Passed, None), "{version:?}");
    }
}

#[rstest]
#[case::address("127.0.0.1", None, ProbeOutcome::Passed)]
#[case::name("fw.example", Some("fw.example"), ProbeOutcome::Passed)]
#[case::other_address("127.0.0.9", None, ProbeOutcome::Failed)]
#[case::other_name("fw.example", Some("fw2.example"), ProbeOutcome::Failed)]
#[case::configured_address("127.0.0.9", Some("127.0.0.9"), ProbeOutcome::Passed)]
fn with_a_ca_the_certificate_has_to_be_for_the_host(
    #[case] certificate: &str,
    #[case] host: Option<&str>,
    #[case] expected: ProbeOutcome,
    #[values(&rustls::version::TLS12, &rustls::version::TLS13)]
    version: &'static SupportedProtocolVersion,
) {
    let pki = Pki::new();
    let health = HealthCheck {
        ca_file: Some(pki.file()),
        host: host.map(str::to_owned),
        ..health(HealthProtocol::Https)
    };
    let (outcome, asked) = ask_over_tls(pki.target(certificate, version), health);
    assert_eq!(outcome, expected);
    if expected == ProbeOutcome::Passed {
        assert_eq!(asked.as_deref(), host.filter(|host| host.ends_with("example")));
    }
}

#[test]
fn a_certificate_of_another_ca_fails_and_one_that_is_in_the_file_passes() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let health = HealthCheck { ca_file: Some(ours.file()), ..health(HealthProtocol::Https) };
    let target = theirs.target("127.0.0.1", &rustls::version::TLS13);
    assert_eq!(ask_over_tls(target, health.clone()).0, ProbeOutcome::Failed);
    assert_eq!(ask_over_tls(theirs.self_signed(), health.clone()).0, ProbeOutcome::Failed);
    assert_eq!(ask_over_tls(ours.self_signed(), health).0, ProbeOutcome::Passed);
}

#[test]
fn no_tls_where_it_is_expected_fails() {
    let bench = Bench::new();
    let (address, served) = server(1, |mut stream| {
        stream.write_all(OK).unwrap();
        closed(&stream);
    });
    assert_eq!(bench.ask(health(HealthProtocol::Https), address), ProbeOutcome::Failed);
    served.join().unwrap();
}

#[test]
fn a_ca_file_is_judged_when_it_is_read() {
    let pki = Pki::new();
    let error = |path: PathBuf| {
        let health = HealthCheck { ca_file: Some(path), ..health(HealthProtocol::Https) };
        let error = client_config(&health).unwrap_err();
        error.to_string()
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, expected) in [
        ("", "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "it is no PEM file: "),
        (&(pki.ca.pem() + broken), "certificate 2 in it: invalid peer certificate: "),
    ] {
        let path = pki.write(text);
        let error = error(path.clone());
        let start =
            format!("cannot use {} as the CA of a health check: {expected}", path.display());
        assert!(error.starts_with(&start), "{error}");
    }
    let missing = error(pki.directory.path().join("missing.pem"));
    assert!(missing.contains("missing.pem") && missing.contains("No such file"), "{missing}");
}

/// File descriptors are counted by process, and other tests have some open: this one starts over
/// in a process of its own.
#[test]
fn no_probe_leaves_anything_open() {
    const ALONE: &str = "GWLB_TEST_ALONE";
    const PROBES: usize = 1000;
    if std::env::var_os(ALONE).is_none() {
        let name = std::thread::current().name().unwrap().to_owned();
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", &name, "--nocapture"]).env(ALONE, "1").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let bench = Bench::new();
    let (address, served) = server(PROBES, |mut stream| {
        request(&stream);
        stream.write_all(OK).unwrap();
        closed(&stream);
    });
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let passes = job(health(HealthProtocol::Http), address);
    let is_refused = job(health(HealthProtocol::Tcp), refuses);
    // Over before or after the socket is made.
    let is_too_late = ProbeJob {
        timeout: Duration::ZERO,
        ..job(health(HealthProtocol::Http), silent.local_addr().unwrap())
    };
    let before = open();
    for _ in 0..PROBES {
        assert_eq!(bench.probe(passes.clone()), ProbeOutcome::Passed);
        assert_eq!(bench.probe(is_refused.clone()), ProbeOutcome::Refused);
        let outcome = bench.probe(is_too_late.clone());
        assert!(matches!(outcome, ProbeOutcome::TimedOut | ProbeOutcome::Local), "{outcome:?}");
    }
    // Until the thread in the namespace has noticed, too, that nobody waits.
    assert_eq!(bench.probe(is_refused), ProbeOutcome::Refused);
    served.join().unwrap();
    // The server has closed its listener, which was open before.
    assert_eq!(open(), before - 1);
}
