//! The admin API in one thread, without a socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::accept;
use super::{Limits, Served, api};
use crate::config::Settings;
use crate::control::{Control, Input, Output};
use crate::dataplane::keys::Secret;
use crate::runtime::clock;
use crate::runtime::control_handle::{self, ConfigFile, ControlHandle, rehearsal};
use crate::runtime::shared::{Published, Shared};

/// After so many turns of everybody a request is answered, and the next one on its connection.
const TURNS: usize = 100;

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The type of the body, empty if nothing is said of it.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The admin API of a gateway without workers, with the control plane that it asks.
#[derive(Debug)]
pub struct AdminApi {
    runtime: Runtime,
    settings: Arc<Settings>,
    served: Served,
    router: Router,
    control: Control,
    requests: mpsc::Receiver<control_handle::Request>,
}

impl AdminApi {
    /// The API of a gateway with this configuration.
    ///
    /// # Errors
    /// If there can be no event loop, or no netlink socket.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let settings = Arc::new(settings);
        let control = control(&settings);
        let published = Published { snapshot: control.snapshot(), rig: Arc::default() };
        let shared = Shared::new(Arc::clone(&settings), published, Vec::new(), Vec::new());
        let (handle, requests) = ControlHandle::new();
        let served = Served::new(Arc::new(shared), &handle, Limits::default());
        let router = api::router(served.clone());
        Ok(Self { runtime, settings, served, router, control, requests })
    }

    /// Forgets all that was changed by requests.
    pub fn reset(&mut self) {
        self.control = control(&self.settings);
        self.runtime.block_on(rehearsal::forget(&self.served.control));
    }

    /// Asks for something.
    ///
    /// # Errors
    /// If the answer's body cannot be read.
    pub fn ask(&mut self, request: Request<Vec<u8>>) -> Result<Answer, String> {
        let service = TowerToHyperService::new(self.router.clone());
        let asked = async {
            let Ok(answer) = service.call(request.map(Body::from)).await;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?;
            let content_type = parts.headers.get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|given| given.to_str().ok());
            Ok(Answer {
                status: StatusCode::as_u16(&parts.status),
                content_type: content_type.unwrap_or_default().to_owned(),
                body: body.to_bytes().to_vec(),
            })
        };
        self.runtime.block_on(answering(&mut self.control, &mut self.requests, asked))
    }

    /// Sends all this on one connection, and returns all that comes back until it is closed.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn connection(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let router = self.router.clone();
        let (_stop, stopped) = watch::channel(false);
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        let client = async {
            let (mut from, mut to) = tokio::io::split(&mut near);
            let send = async {
                // It may be closed before all was sent.
                let _ = to.write_all(bytes).await;
                // Who hangs up gets no answer, so there is time for one first: as many turns as
                // any request takes, with nothing to wait for.
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let _ = to.shutdown().await;
            };
            let mut answer = Vec::new();
            let ((), read) = tokio::join!(send, from.read_to_end(&mut answer));
            read.map(|_| answer)
        };
        let both = async {
            let (answer, ()) = tokio::join!(client, accept::answer(far, router, limits, stopped));
            answer
        };
        self.runtime.block_on(answering(&mut self.control, &mut self.requests, both))
    }
}

fn control(settings: &Arc<Settings>) -> Control {
    let secret = Secret::from_bytes([3; Secret::LEN]);
    Control::new(Arc::clone(settings), secret, 1, Duration::ZERO, clock::now())
}

/// Waits for `asked`, and answers in place of the control thread meanwhile.
async fn answering<T>(
    control: &mut Control,
    requests: &mut mpsc::Receiver<control_handle::Request>,
    asked: impl Future<Output = T>,
) -> T {
    tokio::pin!(asked);
    loop {
        tokio::select! {
            biased;
            answer = &mut asked => break answer,
            Some(request) = requests.recv() => {
                rehearsal::answer(control, &ConfigFile::default(), request);
                while let Some(output) = control.poll_output() {
                    if let Output::Publish(view) = output {
                        // As workers would that have nothing else to do.
                        control.handle(Input::Acknowledged(view.generation), clock::now());
                    }
                }
            }
        }
    }
}
