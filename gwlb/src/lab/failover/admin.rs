//! What an operator does with a running gateway, through its admin API.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::design::ORDINARY;
use crate::lab::error::LabError;
use crate::lab::plan::ApplianceSpec;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The admin API behind a socket.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    socket: PathBuf,
}

/// An answer: its status, and its body, which is always JSON.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Admin {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Registers an appliance with the ordinary weight.
    pub(super) async fn register(
        &self,
        group: &str,
        appliance: &ApplianceSpec,
    ) -> Result<(), LabError> {
        let path = format!("/v1/target-groups/{group}/targets/{}", appliance.address);
        let body = serde_json::json!({ "zone": appliance.zone, "weight": ORDINARY });
        self.demand(Method::PUT, &path, "application/json", body.to_string()).await
    }

    /// Deregisters an appliance, which begins to drain it.
    pub(super) async fn deregister(
        &self,
        group: &str,
        appliance: &ApplianceSpec,
    ) -> Result<(), LabError> {
        let path = format!("/v1/target-groups/{group}/targets/{}", appliance.address);
        self.demand(Method::DELETE, &path, "application/json", String::new()).await
    }

    /// Has the gateway read its file again; or take this text in its place.
    pub(super) async fn reload(&self, text: Option<String>) -> Result<Answer, LabError> {
        self.ask(Method::POST, "/v1/reload", "application/toml", text.unwrap_or_default()).await
    }

    /// What would change if the gateway took this text.
    pub(super) async fn preview(&self, text: String) -> Result<Answer, LabError> {
        let path = "/v1/reload?dry_run=true";
        self.ask(Method::POST, path, "application/toml", text).await?.demand(path)
    }

    /// A request that has to succeed for the act to go on.
    async fn demand(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<(), LabError> {
        let what = format!("{method} {path}");
        self.ask(method, path, content_type, body).await?.demand(&what).map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Answer, LabError> {
        let what = format!("{method} {path}");
        let answer = timeout(PATIENCE, self.exchange(method, path, content_type, body)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        answer.map_err(LabError::io(what))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> io::Result<Answer> {
        let stream = TokioIo::new(UnixStream::connect(&self.socket).await?);
        let handshake = hyper::client::conn::http1::handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, "gwlb");
        let request = if body.is_empty() {
            request
        } else {
            request.header(header::CONTENT_TYPE, content_type)
        };
        let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status, body: serde_json::from_slice(&body).map_err(io::Error::other)? })
    }
}

impl Answer {
    /// The answer, if it is a good one.
    pub(super) fn demand(self, what: &str) -> Result<Self, LabError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let message = format!("status {}: {}", self.status, self.body);
        Err(LabError::io(what)(io::Error::other(message)))
    }
}
