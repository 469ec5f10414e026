//! An appliance that does what a closure says, and the shared gateway with less ceremony.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use appliance_sdk::geneve::Tags;
use appliance_sdk::testing::wire::{self, GatewayPort, Returned};
use appliance_sdk::{Action, Appliance, Builder, Packet, Running, Runtime, Stats};

/// How long anything in a test may take before it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Does what a closure says.
pub(crate) struct Closure<F>(pub(crate) F);

impl<F: FnMut(&mut Packet<'_>) -> Action + Send + 'static> Appliance for Closure<F> {
    type Flow = ();

    fn packet(&mut self, packet: &mut Packet<'_>, (): &mut ()) -> Action {
        (self.0)(packet)
    }
}

/// Starts an appliance that forwards everything, on a free port of `address`.
pub(crate) fn forward_all(builder: Builder, address: &str) -> (Running, SocketAddr) {
    start(builder, address, |_| Action::Forward)
}

/// Starts an appliance on a free port of `address`, with health checks there too.
pub(crate) fn start<F>(builder: Builder, address: &str, decide: F) -> (Running, SocketAddr)
where
    F: FnMut(&mut Packet<'_>) -> Action + Clone + Send + 'static,
{
    let any_port = SocketAddr::new(address.parse().unwrap(), 0);
    let runtime: Runtime<_> =
        builder.listen(any_port).health(any_port).build(move |_| Closure(decide.clone()));
    let running = runtime.start().unwrap();
    let listening = running.handle().listening()[0];
    (running, listening)
}

/// Stops an appliance and checks that it lost nothing without saying so.
pub(crate) fn stop(running: Running) -> Stats {
    running.handle().stop();
    let stats = running.join().unwrap();
    assert_eq!(stats.unaccounted(), 0, "{stats:?}");
    stats
}

/// The gateway of the SDK, for which everything works out.
pub(crate) struct WireGateway(wire::WireGateway);

impl WireGateway {
    pub(crate) fn new(address: &str, appliance: SocketAddr) -> Self {
        Self(wire::WireGateway::new(address.parse().unwrap(), appliance).unwrap())
    }

    pub(crate) fn port(&self) -> GatewayPort {
        self.0.port().unwrap()
    }

    pub(crate) fn send_from_geneve_port(&mut self, datagram: &[u8]) {
        self.0.send_from_geneve_port(datagram).unwrap();
    }

    /// Waits until so many datagrams have come back.
    pub(crate) fn receive(&mut self, datagrams: usize) -> Vec<Returned> {
        let returned = self.0.receive(datagrams, PATIENCE).unwrap();
        assert_eq!(returned.len(), datagrams, "the rest did not come back");
        returned
    }

    pub(crate) fn arrivals(&self) -> usize {
        self.0.arrivals()
    }
}

/// Waits until so many datagrams of a size lie in the kernel's queue of an IPv4 socket that others
/// read from.
pub(crate) fn wait_for_queued(socket: SocketAddr, datagrams: usize, bytes: usize) {
    // The queue is told in bytes of the kernel's memory: what one datagram takes, a socket of our
    // own shows.
    let own = UdpSocket::bind((socket.ip(), 0)).unwrap();
    let address = own.local_addr().unwrap();
    own.send_to(&vec![0; bytes], address).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (each, all) = (queued_bytes(address), queued_bytes(socket));
        if each > 0 && all >= each * datagrams {
            return;
        }
        assert!(Instant::now() < deadline, "{all} bytes are queued, {each} for each");
        std::thread::yield_now();
    }
}

/// What the kernel's table says of a socket (`proc_net_udp` in its documentation).
fn queued_bytes(socket: SocketAddr) -> usize {
    let IpAddr::V4(ip) = socket.ip() else { return 0 };
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), socket.port());
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let mut rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1] == address).unwrap();
    let (_, queued) = row[4].split_once(':').unwrap();
    usize::from_str_radix(queued, 16).unwrap()
}

/// A Geneve datagram in the AWS dialect.
pub(crate) fn aws(cookie: u32, packet: &[u8]) -> Vec<u8> {
    wire::aws(&Tags { endpoint: 1, attachment: 2, cookie }, packet)
}

/// The status line that an HTTP check gets; `None` if the port is closed.
pub(crate) fn http_status(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: appliance\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}
