//! What the tests of the commands work with.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A gateway that runs, without devices: nothing enters it, and everything else works.
pub struct Gateway {
    pub directory: tempfile::TempDir,
    /// The one target that answers health checks.
    pub target: Ipv4Addr,
    child: Child,
    log: mpsc::Receiver<String>,
    _target: TcpListener,
}

impl Gateway {
    pub fn start() -> Self {
        Self::with("", &[])
    }

    /// The same with this in its environment.
    pub fn start_in(environment: &[(&str, &str)]) -> Self {
        Self::with("", environment)
    }

    /// The same with a group of two endpoints, in az1 and az2, whose target there is not checked.
    pub fn grouped() -> Self {
        Self::with(
            r#"
[[subnet]]
name = "gwlbe-b"
vpc = "app"
zone = "az2"
cidrs = ["10.0.102.0/28"]

[[endpoint]]
name = "vpce-b"
subnet = "gwlbe-b"
service = "inspection"

[[endpoint_group]]
name = "inspection"
members = [{ endpoint = "vpce-a", weight=100 }, { endpoint = "vpce-b", weight = 0 }]

[[load_balancer]]
name = "fw-b"
target_group = "fw-b"
nodes = [{ zone = "az2", address = "NODE" }]

[[target_group]]
name = "fw-b"

[target_group.health_check]
enabled = false

[[target]]
group = "fw-b"
address = "192.0.2.21"
zone = "az2"
"#,
            &[],
        )
    }

    fn with(further: &str, environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(64);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let number = COUNT.fetch_add(3, Ordering::Relaxed);
        // Loopback addresses of its own, so that gateways do not meet on the Geneve port.
        let node = Ipv4Addr::new(127, number, high, low);
        let target = Ipv4Addr::new(127, number + 1, high, low);
        let answering = TcpListener::bind(SocketAddrV4::new(target, 0)).unwrap();
        let port = answering.local_addr().unwrap().port();

        let other = Ipv4Addr::new(127, number + 2, high, low);
        let balancers = if further.is_empty() { "\"fw\"" } else { "\"fw\", \"fw-b\"" };
        let further = further.replace("NODE", &other.to_string());

        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().display();
        let file = format!(
            r#"
[gateway]
workers = 1
secret_file = "{folder}/secret"
admin = "{folder}/admin.sock"

[[vpc]]
name = "app"
cidrs = ["10.0.0.0/16"]

[[subnet]]
name = "gwlbe-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.101.0/28"]

[[endpoint]]
name = "vpce-a"
subnet = "gwlbe-a"
service = "inspection"

[[endpoint_service]]
name = "inspection"
load_balancers = [{balancers}]

[[load_balancer]]
name = "fw"
target_group = "fw"
nodes = [{{ zone = "az1", address = "{node}" }}]

[[target_group]]
name = "fw"

[target_group.health_check]
port = {port}
interval_ms = 100
timeout_ms = 100
extended_ranges = true

[[target]]
group = "fw"
address = "{target}"
zone = "az1"
weight = 100

[[subnet]]
name = "app-a"
vpc = "app"
zone = "az1"
cidrs = ["10.0.1.0/24"]
route_table = "app-a"

[[internet_gateway]]
name = "igw"
vpc = "app"
route_table = "igw"

[[route_table]]
name = "igw"
vpc = "app"
routes = [{{ destination = "10.0.1.0/24", endpoint = "vpce-a" }}]

[[route_table]]
name = "app-a"
vpc = "app"
routes = [{{ destination = "0.0.0.0/0", endpoint = "vpce-a" }}]
{further}
"#
        );
        fs::write(directory.path().join("gateway.toml"), file).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gwlb"))
            .arg("run")
            .arg(directory.path().join("gateway.toml"))
            .env_remove("GWLB_LOG")
            .env_remove("RUST_LOG")
            .env("GWLB_LOG_FORMAT", "human")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let gateway = Self { directory, target, child, log, _target: answering };
        assert_eq!(ready, "ready\n", "{:?}", gateway.log.try_iter().collect::<Vec<_>>());
        gateway
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("gateway.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Changes the configuration file.
    pub fn edit(&self, from: &str, to: &str) {
        let before = fs::read_to_string(self.file()).unwrap();
        assert!(before.contains(from), "{before}");
        fs::write(self.file(), before.replace(from, to)).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// The lines that are logged until one has `last` in it.
    pub fn log_until(&self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(last) => {
                    lines.push(line);
                    return lines;
                }
                Ok(line) => lines.push(line),
                Err(error) => panic!("{error}: no {last:?} in {lines:#?}"),
            }
        }
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        command(&self.socket(), arguments).output().unwrap()
    }

    /// What a command prints where stdout is no terminal.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A command that talks to the gateway behind this socket.
pub fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gwlb"));
    command.args(arguments).arg("--socket").arg(socket).stdin(Stdio::null());
    command
}

/// Exit status and output of a command at a terminal.
pub fn at_terminal(mut command: Command) -> (Option<i32>, String) {
    let size = nix::pty::Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    command.env("TERM", "xterm").stdout(end(&pty.slave)).stderr(end(&pty.slave));
    let mut child = command.spawn().unwrap();
    // Only the child has the slave's end now, so that the master's ends with it.
    drop((pty.slave, command));
    let mut shown = Vec::new();
    // The end is an error (EIO), and what came before it is there.
    let _ = fs::File::from(pty.master).read_to_end(&mut shown);
    (child.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

/// Status and body of an answer of the API.
pub fn exchange(
    socket: &Path,
    (method, path): (&str, &str),
    headers: &[String],
    body: &[u8],
) -> (u16, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head.extend([header, "\r\n"]);
    }
    head.extend([&format!("Content-Length: {}", body.len()), "\r\n\r\n"]);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = text(&answer[9..12]).parse().unwrap();
    (status, answer.split_off(end + 4))
}

/// Something that gives one answer after the other, the last one for ever.
pub struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    pub fn start(answers: Vec<(u16, Value)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("admin.sock")).unwrap();
        std::thread::spawn(move || {
            let last = answers.len() - 1;
            for (next, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (status, body) = &answers[next.min(last)];
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                let mut length = 0;
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    if let Some((name, value)) = line.split_once(": ")
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                // A socket that is closed before its client has said all takes the answer back.
                let _ = stream.read_exact(&mut vec![0; length]);
                let body = body.to_string();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        });
        Self { directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }
}
