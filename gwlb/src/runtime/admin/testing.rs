//! A served API for the tests: a real control plane that probes nobody, on a real socket.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netio::mem::Commit;
use netio::poll::Poller;
use serde_json::Value;

use super::listen::Listeners;
use super::{AdminServer, Limits, Served};
use crate::config::{AdminAddress, GatewaySettings};
use crate::dataplane::verdict::WorkerId;
use crate::dataplane::{Ingress, IngressConfig};
use crate::runtime::clock;
use crate::runtime::control_handle::ControlHandle;
use crate::runtime::control_handle::tests::answered;
use crate::runtime::inquiry::Inquiries;
use crate::runtime::shared::Shared;
use crate::runtime::shared::tests::idle_with_control;

/// What a gateway without workers serves.
pub(super) fn served() -> (Arc<Shared>, ControlHandle, GatewaySettings) {
    let (shared, control) = idle_with_control();
    let settings = shared.settings.load().gateway.clone();
    (Arc::new(shared), answered(control), settings)
}

/// A served API on a Unix socket.
pub(super) struct Api {
    pub shared: Arc<Shared>,
    pub control: ControlHandle,
    pub socket: PathBuf,
    server: Option<AdminServer>,
    worker: Option<Worker>,
    _directory: tempfile::TempDir,
}

/// A worker that carries no packets and answers who asks it something.
struct Worker {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Worker {
    fn start(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        let of = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (inbox, now) = (&of.exchange.inboxes[0], clock::now());
            let config = IngressConfig {
                worker: WorkerId(0),
                max_flows: 1024,
                commit: Commit::Lazily,
                records: true,
                log: None,
                fragments: Arc::clone(&of.fragments),
                stats: Arc::default(),
            };
            let view = Arc::clone(&of.exchange.published.load_full().snapshot);
            let ingress = Ingress::new(config, view, now).unwrap();
            let (mut poller, mut ready) = (Poller::new().unwrap(), Vec::new());
            poller.add(&inbox.waker, 0).unwrap();
            let mut inquiries = Inquiries::default();
            while !of.is_draining() {
                let timeout = (!inquiries.is_empty()).then_some(Duration::ZERO);
                poller.wait(&mut ready, timeout).unwrap();
                if !ready.is_empty() {
                    inbox.waker.drain().unwrap();
                }
                inquiries.take_up(|| inbox.asked());
                inquiries.serve(&ingress, clock::now());
            }
        });
        Self { thread, shared }
    }
}

impl Api {
    pub fn start() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let (shared, control, mut settings) = served();
        settings.admin = Some(AdminAddress::Unix(socket.clone()));
        settings.metrics = None;
        let listeners = Listeners::bind(&settings).unwrap();
        let of = Served::new(Arc::clone(&shared), &control, limits);
        let server = Some(AdminServer::start_with(listeners, of).unwrap());
        let worker = Some(Worker::start(&shared));
        Self { shared, control, socket, server, worker, _directory: directory }
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// Status and body of the answer to a request without a body.
    pub fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        self.send(method, path, &[], b"")
    }

    pub fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.send(method, path, &["Content-Type: application/json"], body.as_bytes())
    }

    pub fn send(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> (u16, Value) {
        let (head, body) = exchange(&self.socket, method, path, headers, body);
        (status(&head), serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

impl Api {
    /// Ends the server, as the gateway does.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        if let Some(Worker { thread, shared }) = self.worker.take() {
            shared.drain();
            thread.join().unwrap();
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Head and body of an answer.
pub(super) fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    read_answer(stream)
}

/// All that comes until the end.
pub(super) fn read_answer(mut stream: impl Read) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer.split_off(end + 4))
}

pub(super) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}
