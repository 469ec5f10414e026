//! Ten thousand requests that nobody should send, at the admin API of a gateway that carries packets:
//! each gets the status that it deserves, nothing changes, no memory stays behind, no packet is lost,
//! and without permission nothing is read but what is meant for everybody.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gwlb_tests::world::status::Status;
use gwlb_tests::world::traffic::Stream;
use gwlb_tests::world::{Plan, World, settled};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;

use super::{FAMILIES, directions, world};

/// Requests to each of the two listeners.
const REQUESTS: u64 = 10_000;
/// Of these, those that are sent before the memory is looked at.
const WARM_UP: u64 = 2000;
/// How much more memory there may be after the others, in bytes: about 260 for each.
const GROWTH: u64 = 2 << 20;
/// Clients at a time.
const CLIENTS: u64 = 4;

const TOKEN: &str = "open-sesame-0123456789";

#[test]
fn bad_requests_over_the_socket_get_what_they_deserve_and_disturb_nothing() {
    let Some(world) = world("bad_requests_over_the_socket", Plan::default()) else { return };
    let socket = world.admin_socket();
    besiege(&world, &world.configuration(), &Door::Unix(socket));
}

#[test]
fn bad_requests_over_tcp_get_what_they_deserve_and_disturb_nothing() {
    let Some(world) = world("bad_requests_over_tcp", Plan::default()) else { return };
    // Ports that were free a moment ago.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [free(), free()].map(|it| it.local_addr().unwrap());
    let [admin, metrics] = ports;
    let file = world.write("token", TOKEN);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let present = format!("admin = \"{}\"", world.admin_socket().display());
    let other = format!(
        "admin = \"{admin}\"\nadmin_token_file = \"{}\"\nmetrics = \"{metrics}\"",
        file.display()
    );
    let configuration = world.configuration_with(&[(&present, &other)]);
    besiege(&world, &configuration, &Door::Tcp { admin, metrics });
}

/// Where requests go.
enum Door {
    Unix(PathBuf),
    Tcp { admin: SocketAddr, metrics: SocketAddr },
}

fn besiege(world: &World, configuration: &str, door: &Door) {
    let _nva = world.start_appliances();
    let mut process = world.launch_gateway(configuration);
    process.wait_for_line("ready");
    let streams: Vec<_> = FAMILIES
        .into_iter()
        .flat_map(|family| directions(world).map(|(from, to)| Stream::gentle(from, to, family)))
        .collect();
    for stream in &streams {
        stream.wait_for_more(1 << 16);
    }
    let before = door.state();
    let mut answered = door.send(0..WARM_UP);
    let resident = process.resident();
    answered += door.send(WARM_UP..REQUESTS);
    let grown = process.resident().saturating_sub(resident);
    assert!(grown <= GROWTH, "{grown} bytes more after {} requests", REQUESTS - WARM_UP);
    println!("{answered} of {REQUESTS} answered, {grown} bytes more");
    // Half a request may be all that there is, and noise may look like the beginning of one.
    assert!(answered >= REQUESTS * 9 / 10, "{answered}");
    for stream in streams {
        // They still flow, and each byte arrives.
        stream.wait_for_more(1 << 16);
        stream.finish();
    }
    assert_eq!(door.state(), before, "something has changed");
    settled(|| door.status()).assert_lossless();
    process.terminate();
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.log);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.log);
}

impl Door {
    /// What an administrator could have changed.
    fn state(&self) -> Vec<serde_json::Value> {
        let status = self.json("/v1/status");
        let targets = status["targets"].as_array().unwrap().iter();
        let targets = targets.map(|it| [&it["address"], &it["weight"], &it["zone"], &it["state"]]);
        vec![
            serde_json::json!(targets.collect::<Vec<_>>()),
            self.json("/v1/load-balancers"),
            self.json("/v1/log"),
        ]
    }

    fn status(&self) -> Status {
        serde_json::from_value(self.json("/v1/status")).unwrap()
    }

    fn json(&self, path: &str) -> serde_json::Value {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {TOKEN}\r\n\r\n"
        );
        let answer = self.exchange(&Request::to(self.admin(), head.into())).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        serde_json::from_slice(&answer[end + 4..]).unwrap()
    }

    fn admin(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { admin, .. } => Some(*admin),
        }
    }

    /// Sends the requests of these numbers, a few at a time, and judges the answers; returns how many
    /// there were.
    fn send(&self, numbers: std::ops::Range<u64>) -> u64 {
        let (next, answered) = (AtomicU64::new(numbers.start), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mine = || Some(next.fetch_add(1, Ordering::Relaxed));
                    let mine = std::iter::from_fn(mine).take_while(|&it| it < numbers.end);
                    let of_mine = mine.filter(|&number| self.judge(number)).count();
                    answered.fetch_add(of_mine as u64, Ordering::Relaxed);
                });
            }
        });
        answered.into_inner()
    }

    /// Whether there was an answer, which is the right one.
    fn judge(&self, number: u64) -> bool {
        let request = self.request(&mut Chance(Pcg32::new(number, 7)));
        let answer = self.exchange(&request).unwrap_or_default();
        let status =
            answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        let told = || {
            format!(
                "request {number}, {}: {status:?} and not {:?}\n{}\n{}",
                request.kind,
                request.expected,
                request.bytes[..request.bytes.len().min(300)].escape_ascii(),
                answer.escape_ascii()
            )
        };
        match status {
            Some(status) => assert!(request.expected.contains(&status), "{}", told()),
            None => assert!(request.may_be_cut, "{}", told()),
        }
        if matches!(status, Some(400..=499)) && !request.by_the_parser {
            let problem = b"content-type: application/problem+json";
            assert!(answer.windows(problem.len()).any(|it| it == problem), "{}", told());
        }
        status.is_some()
    }

    fn exchange(&self, request: &Request) -> io::Result<Vec<u8>> {
        fn over(
            mut stream: impl Read + Write,
            request: &Request,
            shut: impl FnOnce(&mut dyn Write),
        ) -> Vec<u8> {
            // The other end may have heard enough, and has answered then.
            let _ = stream.write_all(&request.bytes);
            if request.ends_there {
                shut(&mut stream);
            }
            let mut answer = Vec::new();
            // An answer that was there counts, whatever became of the connection.
            let _ = stream.read_to_end(&mut answer);
            answer
        }
        let patience = Some(Duration::from_secs(20));
        match (self, request.to) {
            (Self::Unix(path), _) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(patience)?;
                let end = stream.try_clone()?;
                let shut = |_: &mut dyn Write| drop(end.shutdown(std::net::Shutdown::Write));
                Ok(over(stream, request, shut))
            }
            (Self::Tcp { admin, .. }, to) => {
                let stream = TcpStream::connect(to.unwrap_or(*admin))?;
                stream.set_read_timeout(patience)?;
                let end = stream.try_clone()?;
                let shut = |_: &mut dyn Write| drop(end.shutdown(std::net::Shutdown::Write));
                Ok(over(stream, request, shut))
            }
        }
    }

    fn request(&self, chance: &mut Chance) -> Request {
        match self {
            Self::Unix(_) => bad(chance, None, ""),
            Self::Tcp { admin, metrics } => match chance.below(4) {
                0 => unauthorized(chance, *admin),
                1 => for_everybody(chance, *metrics),
                _ => bad(chance, Some(*admin), &format!("Authorization: Bearer {TOKEN}\r\n")),
            },
        }
    }
}

/// A request and what is to become of it.
struct Request {
    kind: &'static str,
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
    expected: &'static [u16],
    /// The connection may end without an answer.
    may_be_cut: bool,
    /// No more is said, and the other end hears that.
    ends_there: bool,
    /// It is no request, and so the answer comes from where requests are read.
    by_the_parser: bool,
}

impl Request {
    fn to(to: Option<SocketAddr>, bytes: Vec<u8>) -> Self {
        Self {
            kind: "",
            to,
            bytes,
            expected: &[200],
            may_be_cut: false,
            ends_there: false,
            by_the_parser: false,
        }
    }
}

/// What chance chooses, from a seed.
struct Chance(Pcg32);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.0.next_u64() as u8).collect()
    }

    /// Letters and digits, as many as said at most, and one at least.
    fn word(&mut self, most: usize) -> String {
        let length = 1 + self.below(most);
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(*self.pick(letters))).collect()
    }
}

/// Everything that there is: path, and the methods that it takes.
const PATHS: &[(&str, &[&str])] = &[
    ("/v1/status", &["GET", "HEAD"]),
    ("/v1/target-groups", &["GET", "HEAD"]),
    ("/v1/target-groups/fw/targets", &["GET", "HEAD"]),
    (TARGET, &["GET", "HEAD", "PUT", "DELETE"]),
    ("/v1/load-balancers", &["GET", "HEAD"]),
    ("/v1/load-balancers/fw", &["GET", "HEAD", "PATCH"]),
    ("/v1/endpoint-groups", &["GET", "HEAD"]),
    ("/v1/trace", &["POST"]),
    ("/v1/events", &["GET", "HEAD"]),
    ("/v1/log", &["GET", "HEAD", "PUT"]),
    ("/v1/reload", &["POST"]),
    ("/v1/openapi.json", &["GET", "HEAD"]),
    ("/live", &["GET", "HEAD"]),
    ("/ready", &["GET", "HEAD"]),
    ("/metrics", &["GET", "HEAD"]),
];

const TARGET: &str = "/v1/target-groups/fw/targets/192.0.2.16";
const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"];

/// What is wrong in itself, whoever sends it.
fn bad(chance: &mut Chance, to: Option<SocketAddr>, token: &str) -> Request {
    let json = "Content-Type: application/json\r\n";
    let toml = "Content-Type: application/toml\r\n";
    let request = |kind, expected, method: &str, path: &str, headers: &str, body: &[u8]| {
        let mut bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}{headers}\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        Request { kind, expected, ..Request::to(to, bytes) }
    };
    let raw = |kind, expected, bytes: Vec<u8>| Request {
        kind,
        expected,
        may_be_cut: true,
        by_the_parser: true,
        ..Request::to(to, bytes)
    };
    match chance.below(20) {
        0 => {
            let path = match chance.below(3) {
                0 => format!("/{}", chance.word(30)),
                1 => format!("/v1/{}", chance.word(2000)),
                _ => format!("/v2/status/../../{}%00", chance.word(8)),
            };
            let method = *chance.pick(METHODS);
            request("an unknown path", &[404], method, &path, "", b"")
        }
        1 => loop {
            let ((path, takes), method) = (*chance.pick(PATHS), *chance.pick(METHODS));
            if !takes.contains(&method) {
                break request("a method that is not taken", &[405], method, path, "", b"");
            }
        },
        2 => {
            let path = format!("/v1/target-groups/{}x/targets", chance.word(500));
            request("an unknown group", &[404], "GET", &path, "", b"")
        }
        3 => {
            let wrong = ["%ff", "fw-1", "192.0.2.300", "%5B::", "1.2.3.4:5", "0x7f000001"];
            let path = format!("/v1/target-groups/fw/targets/{}", chance.pick(&wrong));
            let method = chance.pick(&["GET", "PUT", "DELETE"]);
            request("a wrong address", &[400], method, &path, json, b"{}")
        }
        4 => {
            let wrong = ["port=0", "port=65536", "port=1&port=1", "prot=1", "port=%ff", "=", "&x"];
            let path = format!("{TARGET}?{}", chance.pick(&wrong));
            request("a wrong parameter", &[400], "GET", &path, "", b"")
        }
        5 => {
            let mut body = chance.bytes(200);
            body.insert(0, b'{');
            let places = [("PUT", TARGET), ("PATCH", "/v1/load-balancers/fw"), ("PUT", "/v1/log")];
            let (method, path) = chance.pick(&places);
            request("noise for JSON", &[400], method, path, json, &body)
        }
        6 => {
            let wrong = [
                r#"{"weight": 1001}"#,
                r#"{"weight": -1}"#,
                r#"{"weight": 1e400}"#,
                r#"{"weigth": 1}"#,
                r#"{"zone": 7}"#,
                r#"{"zone": "az9"}"#,
                r#"{"weight": 1, "weight": 2}"#,
                r#"[{"weight": 1}]"#,
                "null",
                "{} {}",
            ];
            let body = chance.pick(&wrong);
            request("a wrong registration", &[400], "PUT", TARGET, json, body.as_bytes())
        }
        7 => {
            // Nested deeper than anybody reads.
            let body = "[".repeat(1 + chance.below(60_000));
            request("a deep body", &[400], "PUT", TARGET, json, body.as_bytes())
        }
        8 => {
            let of_type =
                ["text/html", "application/x-www-form-urlencoded", "", "application/toml"];
            let headers = format!("Content-Type: {}\r\n", chance.pick(&of_type));
            request("a wrong type", &[415], "PUT", TARGET, &headers, b"{}")
        }
        9 => {
            let body = vec![b' '; (64 << 10) + 1 + chance.below(4096)];
            request("a long body", &[413], "PUT", TARGET, json, &body)
        }
        10 => {
            let body = match chance.below(3) {
                0 => b"[gateway]\nworkres = 2".to_vec(),
                1 => format!("[{}", chance.word(100)).into_bytes(),
                _ => b"[gateway]\nworkers = \"two\"\n[[target]]\n".to_vec(),
            };
            let path = chance.pick(&["/v1/reload", "/v1/reload?dry_run=true"]);
            request("a wrong configuration", &[422], "POST", path, toml, &body)
        }
        11 => {
            let body = [b"\xff\xfe".to_vec(), chance.bytes(20)].concat();
            request("a configuration of noise", &[400], "POST", "/v1/reload", toml, &body)
        }
        12 => {
            let wrong = [r#"{"filter": "inof"}"#, r#"{"filter": 1}"#, r#"{"filter": ""}"#, "{}"];
            let body = chance.pick(&wrong);
            request("a wrong filter", &[400], "PUT", "/v1/log", json, body.as_bytes())
        }
        13 => {
            let wrong = ["since=-1", "follow=2", "since=1&since=2", "from=1"];
            let path = format!("/v1/events?{}", chance.pick(&wrong));
            request("a wrong question for events", &[400], "GET", &path, "", b"")
        }
        14 => {
            let wrong = [r#"{"from": "subnet:app-a"}"#, r#"{"to": "x"}"#, r#"{"from": {}}"#];
            let body = chance.pick(&wrong);
            request("a wrong packet", &[400], "POST", "/v1/trace", json, body.as_bytes())
        }
        15 => {
            // Whom a request is for counts for nothing: the socket and the token do.
            let hosts = ["", "evil.example", "x:99999999", "a b", "[::1", "x\r\nHost: y", "\u{e9}"];
            let bytes = format!(
                "GET /v1/nothing HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}\r\n",
                chance.pick(&hosts)
            );
            Request { kind: "a strange host", expected: &[404], ..Request::to(to, bytes.into()) }
        }
        16 => {
            let length = ["abc", "-1", "1, 2", "99999999999999999999", "1\r\nContent-Length: 2"];
            let bytes = format!(
                "PUT {TARGET} HTTP/1.1\r\nHost: x\r\n{token}{json}Content-Length: {}\r\n\r\n{{}}",
                chance.pick(&length)
            );
            raw("a wrong length", &[400], bytes.into())
        }
        17 => {
            let starts: [&[u8]; 5] = [
                b"",
                b"\x16\x03\x01\x02\x00\x01",
                b"PRI * HTTP/2.0\r\n\r\n",
                b"GET\r\n",
                b"GET / H\r\n",
            ];
            let mut bytes = chance.pick(&starts).to_vec();
            bytes.extend(chance.bytes(100));
            // So that noise does not pass for the beginning of something.
            bytes.extend(b"\x00\r\n\r\n");
            raw("noise", &[400], bytes)
        }
        18 => {
            let mut bytes = format!("GET /live HTTP/1.1\r\nHost: x\r\n{token}X: ").into_bytes();
            bytes.resize((64 << 10) + 64, b'x');
            raw("a long head", &[431], bytes)
        }
        _ => {
            let whole =
                format!("PUT {TARGET} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 9\r\n\r\n{{");
            let cut = 1 + chance.below(whole.len());
            let bytes = whole.as_bytes()[..cut].to_vec();
            Request { ends_there: true, ..raw("half a request", &[400], bytes) }
        }
    }
}

/// A good request, or a bad one, from somebody who has not got the token.
fn unauthorized(chance: &mut Chance, admin: SocketAddr) -> Request {
    let almost = &TOKEN[..TOKEN.len() - 1];
    let shown = match chance.below(9) {
        0 => String::new(),
        1 => format!("Authorization: Bearer {}\r\n", chance.word(100)),
        2 => format!("Authorization: Bearer {almost}\r\n"),
        3 => format!("Authorization: bearer {TOKEN}\r\n"),
        4 => format!("Authorization: {TOKEN}\r\n"),
        5 => format!("Authorization: Basic {TOKEN}\r\n"),
        6 => format!("Authorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n"),
        7 => format!("Cookie: token={TOKEN}\r\nX-Token: {TOKEN}\r\n"),
        _ => format!("Authorization: Bearer {TOKEN}{}\r\n", '\u{e9}'),
    };
    let (path, takes) = *chance.pick(PATHS);
    let method = if chance.below(2) == 0 { chance.pick(takes) } else { chance.pick(METHODS) };
    let query = chance.pick(&["", "?follow=false", "?token=open-sesame-0123456789"]);
    let bytes = format!(
        "{method} {path}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{shown}\
         Content-Length: 0\r\n\r\n"
    );
    let kind = "somebody without the token";
    Request { kind, expected: &[401], ..Request::to(Some(admin), bytes.into()) }
}

/// At the address of the metrics: these are for everybody, and nothing else is there.
fn for_everybody(chance: &mut Chance, metrics: SocketAddr) -> Request {
    let (path, takes) = *chance.pick(PATHS);
    let method = *chance.pick(METHODS);
    let open = ["/live", "/ready", "/metrics"].contains(&path);
    let expected: &[u16] = match (open, takes.contains(&method)) {
        (true, true) => &[200],
        (true, false) => &[405],
        (false, _) => &[404],
    };
    let bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n\r\n"
    );
    let kind = "somebody at the metrics";
    Request { kind, expected, ..Request::to(Some(metrics), bytes.into()) }
}
