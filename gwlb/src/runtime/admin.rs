//! The admin API and the metrics listener: HTTP/1.1 with JSON.
//!
//! It runs on a thread of its own and reads counters; what is to be changed it asks of the control
//! plane. Neither a packet nor a probe waits for it, however many clients there are and however
//! slow they are: each takes one of a bounded number of places, for a bounded time.

mod accept;
mod answers;
mod api;
mod balancers;
mod capture;
mod drops;
mod endpoint_groups;
mod events;
mod explain;
mod flows;
#[cfg(feature = "fuzz")]
pub(super) mod fuzz;
mod groups;
mod intake;
mod listen;
mod log;
mod ping;
mod probes;
mod problem;
mod reload;
mod targets;
mod token;
mod trace;

#[cfg(test)]
mod describes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};

use super::control_handle::{ControlHandle, View};
use super::error::StartError;
use super::shared::Shared;
use super::status::Status;
use accept::serve;
use listen::Admin;
pub(super) use listen::Listeners;
use problem::Problem;
use token::Token;

/// How long clients have to take their answers when the gateway ends.
const GRACE: Duration = Duration::from_millis(500);

/// What clients may take: places and time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at a time; further ones are told to come back later.
    connections: usize,
    /// For the head of a request, counted from the answer before: so long a connection may idle.
    head: Duration,
    /// For the body of a request.
    body: Duration,
    /// For taking a piece of an answer.
    answer: Duration,
    /// Room of the large answers of a listener that wait for their readers, in bytes; who finds none
    /// is told so.
    answers: u32,
    /// Clients that follow the events at a time, each with a connection; further ones are told so.
    streams: usize,
    /// Who follows the events hears so often that the gateway is still there; who has gone without a
    /// word, or does not listen, is found out by it.
    alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            answers: 64 << 20,
            streams: 32,
            alive: Duration::from_secs(10),
        }
    }
}

/// What requests are answered from.
#[derive(Debug, Clone)]
struct Served {
    shared: Arc<Shared>,
    control: ControlHandle,
    /// Whose turn it is to ask for a change: a crowd of clients does not fill the control plane's
    /// queue.
    turn: Arc<Mutex<()>>,
    /// Who may have flows looked for: few at a time, so that no crowd fills the workers' queues.
    searches: Arc<Semaphore>,
    /// Who may have packets explained, for the same reason.
    explanations: Arc<Semaphore>,
    limits: Limits,
    /// The places of those who follow the events.
    streams: Arc<Semaphore>,
    /// Whether the server is to end, and with it what never ends by itself. Before it has started it
    /// has ended.
    stopped: watch::Receiver<bool>,
}

impl Served {
    fn new(shared: Arc<Shared>, control: &ControlHandle, limits: Limits) -> Self {
        Self {
            shared,
            control: control.apart(),
            turn: Arc::default(),
            searches: Arc::new(Semaphore::new(flows::SEARCHES)),
            explanations: Arc::new(Semaphore::new(explain::EXPLANATIONS)),
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            stopped: watch::Sender::new(true).subscribe(),
        }
    }

    async fn view(&self) -> Arc<View> {
        self.control.view().await
    }

    async fn status(&self) -> Status {
        Status::of(&self.shared, &*self.view().await)
    }

    /// The control plane, for who asks for a change.
    async fn in_turn(&self) -> (MutexGuard<'_, ()>, &ControlHandle) {
        (self.turn.lock().await, &self.control)
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
        control: &ControlHandle,
    ) -> Result<Self, StartError> {
        Self::start_with(listeners, Served::new(shared, control, Limits::default()))
    }

    fn start_with(listeners: Listeners, mut served: Served) -> Result<Self, StartError> {
        let places = listen::places();
        served.limits.connections = served.limits.connections.min(places);
        let (stop, stopped) = watch::channel(false);
        served.stopped = stopped.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(run(listeners, served, stopped)) {
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

/// Serves until `stopped`, and a little longer those who are being answered.
async fn run(
    listeners: Listeners,
    served: Served,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let Listeners { admin, metrics } = listeners;
    let limits = served.limits;
    let admin = async {
        let api = answers::bounded(api::router(served.clone()), limits.answers);
        match admin {
            None => Ok(()),
            Some(Admin::Unix(listener, _file)) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                serve(listener, api, limits, stopped.clone()).await;
                Ok(())
            }
            Some(Admin::Tcp(listener, token)) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let api = api.layer(axum::middleware::from_fn_with_state(token, check_token));
                serve(listener, api, limits, stopped.clone()).await;
                Ok(())
            }
        }
    };
    let metrics = async {
        let Some(listener) = metrics else { return Ok(()) };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let probes: Router = probes::router().with_state(served.clone()).into();
        let probes = answers::bounded(api::with_fallbacks(probes), limits.answers);
        serve(listener, probes, limits, stopped.clone()).await;
        Ok(())
    };
    let both = async {
        let (admin, metrics): (io::Result<()>, io::Result<()>) = tokio::join!(admin, metrics);
        admin.and(metrics)
    };
    let too_late = async {
        until(stopped.clone()).await;
        tokio::time::sleep(GRACE).await;
    };
    let shared = Arc::clone(&served.shared);
    tokio::select! {
        ended = both => ended,
        never = drops::remember(&shared) => match never {},
        // A client that does not take its answer would keep the gateway from ending.
        () = too_late => Ok(()),
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end, too.
    let _ = stopped.wait_for(|&stop| stop).await;
}

async fn check_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if shown.is_some_and(|shown| token.is_shown_by(shown)) {
        return next.run(request).await;
    }
    let detail = "the token of the gateway's token file is needed: \"Authorization: Bearer …\"";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}
