//! The health endpoint: one port for HTTP and plain TCP checks.
//!
//! Whatever is asked, the answer is 200 while the appliance serves and 503 when it drains; when
//! the port is closed, TCP checks fail too. Checks are no business of this file's packets: it
//! says that the process lives and wants traffic, not that traffic gets through.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// What checks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Serving,
    Draining,
    Closed,
}

/// No check takes longer than the clouds' longest time-out allows it to mean something; a client
/// that sends nothing is disconnected after this.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Checkers open one connection at a time each; the rest waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 128;

/// Answers until the state is `Closed` or its sender is gone.
pub(super) async fn serve(listener: TcpListener, mut state: watch::Receiver<Health>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot answer health checks");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut closed = state.clone();
    tokio::select! {
        () = accept(&listener, &places, &mut state) => {}
        _ = closed.wait_for(|state| *state == Health::Closed) => {}
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
    state: &mut watch::Receiver<Health>,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer(stream, state.clone(), place));
            }
            Err(error) => {
                // Most likely the process has no file descriptor left; others may free some.
                tracing::warn!(%error, "cannot accept a health check");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, state: watch::Receiver<Health>, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |_: Request<Incoming>| {
        let response = response(*state.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    // A TCP check opens and closes without a word, and no probe's misbehaviour is of interest.
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION_TIME, connection).await;
}

fn response(health: Health) -> Response<Full<Bytes>> {
    let (status, text) = match health {
        Health::Serving => (StatusCode::OK, "serving\n"),
        Health::Draining | Health::Closed => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
