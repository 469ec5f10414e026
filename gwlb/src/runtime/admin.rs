//! The admin API and the metrics listener: HTTP/1.1 with JSON.
//!
//! It runs on a thread of its own and reads counters; what is to be changed it asks of the control
//! plane. Neither a packet nor a probe waits for it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::watch;

use super::control_handle::ControlHandle;
use super::error::StartError;
use super::metrics;
use super::shared::Shared;
use super::status::Status;
use crate::config::{AdminAddress, GatewaySettings};
use crate::control::TargetStatus;

/// How long clients have to take their answers when the gateway ends.
const GRACE: Duration = Duration::from_millis(500);

/// Only the owner of the process may administer.
const SOCKET_MODE: u32 = 0o600;

/// The sockets that the control plane serves, bound before anything else is built.
#[derive(Debug)]
pub(super) struct Listeners {
    admin: Option<Admin>,
    metrics: Option<TcpListener>,
}

#[derive(Debug)]
enum Admin {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, String),
}

/// A socket in the file system, removed when it is dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it: then it is gone, as it should be.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listeners {
    /// Binds what the settings name.
    pub fn bind(settings: &GatewaySettings) -> Result<Self, StartError> {
        let admin = match &settings.admin {
            None => None,
            Some(AdminAddress::Unix(path)) => {
                let listener = bind_unix(path).map_err(|error| StartError::Listen {
                    what: "the admin API",
                    address: path.display().to_string(),
                    error,
                })?;
                Some(Admin::Unix(listener, SocketFile(path.clone())))
            }
            Some(AdminAddress::Tcp { address, token_file }) => {
                let token = std::fs::read_to_string(token_file).map_err(|error| {
                    let what = "the admin API";
                    let address = format!("{address} (token file {})", token_file.display());
                    StartError::Listen { what, address, error }
                })?;
                let listener = bind_tcp("the admin API", *address)?;
                Some(Admin::Tcp(listener, token.trim().to_owned()))
            }
        };
        let metrics =
            settings.metrics.map(|address| bind_tcp("the metrics", address)).transpose()?;
        Ok(Self { admin, metrics })
    }

    /// Serves until `stopped`, and a little longer those who are being answered.
    async fn serve(self, shared: Served, stopped: watch::Receiver<bool>) -> io::Result<()> {
        let Self { admin, metrics } = self;
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is an end, too.
            let _ = stopped.wait_for(|&stop| stop).await;
        };
        let admin = async {
            let api = api(shared.clone());
            match admin {
                None => Ok(()),
                Some(Admin::Unix(listener, _file)) => {
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    axum::serve(listener, api).with_graceful_shutdown(until(stopped.clone())).await
                }
                Some(Admin::Tcp(listener, token)) => {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let token: Arc<str> = format!("Bearer {token}").into();
                    let api = api.layer(axum::middleware::from_fn_with_state(token, check_token));
                    axum::serve(listener, api).with_graceful_shutdown(until(stopped.clone())).await
                }
            }
        };
        let metrics = async {
            let Some(listener) = metrics else { return Ok(()) };
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, probes(shared.clone()))
                .with_graceful_shutdown(until(stopped.clone()))
                .await
        };
        let both = async {
            let (admin, metrics): (io::Result<()>, io::Result<()>) = tokio::join!(admin, metrics);
            admin.and(metrics)
        };
        let too_late = async {
            until(stopped.clone()).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = both => ended,
            // A client that does not take its answer would keep the gateway from ending.
            () = too_late => Ok(()),
        }
    }
}

fn bind_tcp(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| StartError::Listen { what, address: address.to_string(), error })
}

/// Binds a Unix socket in place of one that nobody serves any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Served {
    shared: Arc<Shared>,
    control: ControlHandle,
}

impl Served {
    async fn status(&self) -> Status {
        Status::of(&self.shared, self.control.targets().await.to_vec())
    }
}

/// The thread that serves, running.
#[derive(Debug)]
pub(super) struct AdminServer {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl AdminServer {
    /// Starts the thread.
    pub fn start(
        listeners: Listeners,
        shared: Arc<Shared>,
        control: ControlHandle,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let served = Served { shared, control };
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(listeners.serve(served, stopped)) {
                    tracing::error!(%error, "the admin API ended");
                }
            })
            .map_err(StartError::Thread)?;
        Ok(Self { stop, thread })
    }

    /// Ends the servers and the thread.
    pub fn stop(self) {
        // The thread may have ended already; then nobody listens.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

fn api(shared: Served) -> Router {
    let v1 = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/target-groups/{group}/targets", get(targets))
        .with_state(shared.clone());
    v1.merge(probes(shared)).fallback(no_such_path)
}

/// What a monitoring system asks for.
fn probes(shared: Served) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(shared)
}

async fn status(State(served): State<Served>) -> Json<Status> {
    Json(served.status().await)
}

/// A list, as every listing of the API has it.
#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    next: Option<String>,
}

async fn targets(
    State(served): State<Served>,
    UrlPath(group): UrlPath<String>,
) -> Result<Json<List<TargetStatus>>, Problem> {
    if !served.shared.settings.load().target_groups.iter().any(|known| known.name.as_str() == group)
    {
        let detail = format!("there is no target group \"{group}\"");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail).field("group"));
    }
    let mut items = served.control.targets().await.to_vec();
    items.retain(|target| target.target_group == group);
    Ok(Json(List { items, next: None }))
}

async fn ready(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.shared.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn show_metrics(State(served): State<Served>) -> Response {
    match metrics::render(served.status().await) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

async fn no_such_path(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
}

async fn check_token(State(expected): State<Arc<str>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    // Compared by hash, so that the time it takes tells nothing about the token.
    let same = shown.is_some_and(|shown| blake3::hash(shown) == blake3::hash(expected.as_bytes()));
    if same {
        return next.run(request).await;
    }
    let detail = "the token of the gateway's token file is needed: \"Authorization: Bearer …\"";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}

/// An error of the API: RFC 9457 problem details.
#[derive(Debug, Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("error");
        Self { title, status: status.as_u16(), detail: detail.into(), field: None }
    }

    fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, content_type, Json(self)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::cli::client;
    use crate::dataplane::verdict::DropReason;
    use crate::runtime::control_handle::tests::answered;
    use crate::runtime::shared::tests::idle_with_control;

    /// What a gateway without workers serves.
    fn served() -> (Arc<Shared>, ControlHandle, GatewaySettings) {
        let (shared, control) = idle_with_control();
        let settings = shared.settings.load().gateway.clone();
        (Arc::new(shared), answered(control), settings)
    }

    fn start(
        settings: &GatewaySettings,
        shared: &Arc<Shared>,
        control: &ControlHandle,
    ) -> AdminServer {
        let listeners = Listeners::bind(settings).unwrap();
        AdminServer::start(listeners, Arc::clone(shared), control.clone()).unwrap()
    }

    #[test]
    fn the_socket_answers_and_is_gone_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/admin.sock");
        let (shared, control, mut settings) = served();
        settings.admin = Some(AdminAddress::Unix(path.clone()));
        settings.metrics = None;
        // What a gateway that was killed left behind is no obstacle.
        std::fs::create_dir_all(directory.path().join("run")).unwrap();
        drop(UnixListener::bind(&path).unwrap());
        let server = start(&settings, &shared, &control);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        let second = Listeners::bind(&settings).unwrap_err().to_string();
        assert!(second.contains("in use"), "{second}");

        let json = |path_: &str| -> serde_json::Value {
            serde_json::from_slice(&client::get(&path, path_).unwrap()).unwrap()
        };
        let status = json("/v1/status");
        assert_eq!(status["state"], "running");
        assert_eq!(status["tun"]["received"], 0);
        assert_eq!(status["targets"].as_array().unwrap().len(), 3);
        let targets = json("/v1/target-groups/fw/targets");
        assert_eq!(targets["items"], status["targets"]);
        assert_eq!(targets["next"], serde_json::Value::Null);

        let unknown = client::get(&path, "/v1/target-groups/nope/targets").unwrap_err().to_string();
        assert!(unknown.contains("404") && unknown.contains(r#""field":"group""#), "{unknown}");
        let nothing = client::get(&path, "/v2").unwrap_err().to_string();
        assert!(nothing.contains("there is nothing at /v2"), "{nothing}");

        let metrics = client::get(&path, "/metrics").unwrap();
        let metrics = std::str::from_utf8(&metrics).unwrap();
        for reason in DropReason::ALL {
            for side in ["tun", "udp"] {
                let series = format!(
                    "gwlb_packets_dropped_total{{reason=\"{}\",side=\"{side}\"}} 0",
                    reason.name()
                );
                assert!(metrics.contains(&series), "{series} in {metrics}");
            }
        }
        assert!(metrics.contains("# HELP gwlb_packets_received_total Packets that entered."));

        assert!(client::get(&path, "/ready").is_ok());
        shared.drain();
        let draining = client::get(&path, "/ready").unwrap_err().to_string();
        assert!(draining.contains("503"), "{draining}");
        assert!(client::get(&path, "/live").is_ok());
        server.stop();
        assert!(!path.exists());
    }

    #[test]
    fn a_client_that_says_no_more_does_not_hold_up_the_end() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (shared, control, mut settings) = served();
        settings.admin = None;
        settings.metrics = Some(address);
        let server = start(&settings, &shared, &control);
        let stuck = std::net::TcpStream::connect(address).unwrap();
        stuck.set_write_timeout(Some(GRACE)).unwrap();
        // Asked for more than fits on the way to somebody who does not read.
        while (&stuck).write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}

        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            server.stop();
            ended.send(true)
        });
        assert_eq!(end.recv_timeout(GRACE * 20), Ok(true));
    }

    #[test]
    fn over_tcp_the_token_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, "open sesame\n").unwrap();
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (shared, control, mut settings) = served();
        settings.admin = Some(AdminAddress::Tcp { address, token_file });
        settings.metrics = None;
        let server = start(&settings, &shared, &control);
        for (token, expected) in [
            ("", "401"),
            ("Authorization: Bearer wrong\r\n", "401"),
            ("Authorization: Bearer open sesame\r\n", "200"),
        ] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(
                stream,
                "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{token}: {answer}");
        }
        server.stop();
    }
}
