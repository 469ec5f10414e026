//! The admin API, seen from the command line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use super::fail;
use crate::config::{Change, ProblemReport};

/// How long an answer may take. A reload makes devices and sockets, and takes longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of a name stands in a path as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Which gateway is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct GatewayArgs {
    /// The gateway's admin socket (`admin` in its configuration).
    #[arg(long, value_name = "PATH", default_value = "/run/gwlb/main.sock")]
    socket: PathBuf,
    /// The gateway's admin API over TCP, such as <http://127.0.0.1:9960>, in place of the socket.
    #[arg(long, value_name = "URL", requires = "token_file", conflicts_with = "socket")]
    url: Option<Uri>,
    /// The file with the token that the API over TCP asks for.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

impl GatewayArgs {
    /// Does what is to be done with the gateway's API, and says what failed.
    pub fn ask(&self, ask: impl AsyncFnOnce(&Client) -> Result<ExitCode, AskError>) -> ExitCode {
        self.try_ask(ask).unwrap_or_else(|error| fail(&error.to_string()))
    }

    /// The same, and what failed is for the caller to say.
    pub fn try_ask(
        &self,
        ask: impl AsyncFnOnce(&Client) -> Result<ExitCode, AskError>,
    ) -> Result<ExitCode, AskError> {
        let client = self.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| AskError::Other(format!("cannot start: {error}")))?;
        runtime.block_on(ask(&client))
    }

    fn client(&self) -> Result<Client, AskError> {
        let Some(url) = &self.url else {
            return Ok(Client { place: Place::Unix(self.socket.clone()), token: None });
        };
        let plain = url.scheme() == Some(&Scheme::HTTP);
        let Some(host) = url.host().filter(|_| plain) else {
            let example = "http://127.0.0.1:9960";
            return Err(AskError::Other(format!("--url is such as {example}, and not {url}")));
        };
        let address = format!("{host}:{}", url.port_u16().unwrap_or(80));
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Client { place: Place::Tcp(address), token })
    }
}

/// What is sent of the token. It does not show where this is printed for debugging.
fn read_token(file: &Path) -> Result<HeaderValue, AskError> {
    let wrong = |error: &dyn fmt::Display| {
        AskError::Other(format!("cannot read the token file {}: {error}", file.display()))
    };
    let token = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    let header = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    let mut header = header.map_err(|error| wrong(&error))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Asks a gateway.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    token: Option<HeaderValue>,
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// Why there is no good answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// Nobody is there.
    #[error("cannot reach the gateway at {place}: {error}\n{advice}")]
    Unreachable {
        /// The socket or address.
        place: String,
        /// What the kernel said.
        error: io::Error,
        /// What to do.
        advice: String,
    },
    /// The gateway says no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// What the gateway says of a request that it refuses.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// What of the request is wrong.
    pub field: Option<String>,
    /// The configuration that is wrong.
    pub file: Option<String>,
    /// What is wrong with it.
    #[serde(default)]
    pub problems: Vec<ProblemReport>,
    /// What it would change.
    #[serde(default)]
    pub changes: Vec<Change>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most sentences begin with the name of the field.
        match &self.field {
            Some(field) if !self.detail.starts_with(field.as_str()) => {
                write!(f, "{field}: {}", self.detail)?;
            }
            _ => f.write_str(&self.detail)?,
        }
        let file = self.file.as_deref().unwrap_or("configuration");
        for problem in &self.problems {
            write!(f, "\n{}", problem.line(file))?;
        }
        Ok(())
    }
}

/// A name as a part of a path.
pub(super) fn segment(name: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(name, PLAIN)
}

impl Client {
    pub async fn get(&self, path: &str) -> Result<Value, AskError> {
        self.send(Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, AskError> {
        self.send(Method::DELETE, path, None).await
    }

    /// Sends JSON.
    pub async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value, AskError> {
        self.send(method, path, Some(("application/json", body.to_string()))).await
    }

    /// Posts a configuration, or nothing.
    pub async fn post(&self, path: &str, toml: Option<&str>) -> Result<Value, AskError> {
        let body = toml.map(|text| ("application/toml", text.to_owned()));
        self.send(Method::POST, path, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Value, AskError> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(method, path, body)).await;
        let (status, body) = answer.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            AskError::Other(format!(
                "the gateway at {} has not answered in {seconds} s",
                self.place
            ))
        })??;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| AskError::Other(format!("the gateway's answer: {error}")));
        }
        let refusal = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
            status: status.as_u16(),
            detail: format!("{status}: {}", String::from_utf8_lossy(&body).trim()),
            ..Refusal::default()
        });
        Err(AskError::Refused(Box::new(refusal)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<(StatusCode, Bytes), AskError> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.unreachable(error))?;
                self.over(stream, "gwlb", method, path, body).await
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| self.unreachable(error))?;
                self.over(stream, address, method, path, body).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        host: &str,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let lost = |error: hyper::Error| {
            AskError::Other(format!("the connection to the gateway at {}: {error}", self.place))
        };
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some((of_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, of_type);
        }
        let body = body.map(|(_, text)| text).unwrap_or_default();
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AskError::Other(format!("cannot ask for {path}: {error}")))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        Ok((status, body))
    }

    fn unreachable(&self, error: io::Error) -> AskError {
        let advice = match (&self.place, error.kind()) {
            (Place::Unix(_), io::ErrorKind::NotFound) => {
                "Is the gateway running, and does [gateway] in its configuration have `admin`? \
                 --socket says where it is"
            }
            (Place::Unix(_), io::ErrorKind::ConnectionRefused) => {
                "Whoever made this socket has ended; start the gateway with `gwlb run`"
            }
            (Place::Unix(_), io::ErrorKind::PermissionDenied) => {
                "Only the user that runs the gateway may administer it; try sudo"
            }
            (Place::Unix(_), _) => "--socket says where its admin socket is",
            (Place::Tcp(_), _) => "Does its configuration have `admin` with this address?",
        };
        AskError::Unreachable { place: self.place.to_string(), error, advice: advice.to_owned() }
    }
}
