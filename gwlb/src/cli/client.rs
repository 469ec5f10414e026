//! The admin API, seen from the command line.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use super::{FAILED, WRONG_USE, fail};
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
    /// The gateway's admin API over TCP, such as `http://127.0.0.1:9960`, in place of the socket.
    #[arg(long, value_name = "URL", requires = "token_file", conflicts_with = "socket")]
    url: Option<Uri>,
    /// The file with the token that the API over TCP asks for.
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

impl GatewayArgs {
    /// Does what is to be done with the gateway's API, and says what failed. Every command that asks
    /// a gateway does so by this, so that one thing ends all of them with the same exit status.
    pub fn ask(&self, ask: impl AsyncFnOnce(&Client) -> Result<ExitCode, AskError>) -> ExitCode {
        self.try_ask(ask).unwrap_or_else(|error| {
            fail(&error.to_string());
            ExitCode::from(error.exit_status())
        })
    }

    fn try_ask(
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
            return Err(AskError::Usage(format!("--url is such as {example}, and not {url}")));
        };
        let address = format!("{host}:{}", url.port_u16().unwrap_or(80));
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Client { place: Place::Tcp(address), token })
    }
}

/// What is sent of the token. It does not show where this is printed for debugging.
fn read_token(file: &Path) -> Result<HeaderValue, AskError> {
    let wrong = |error: &dyn fmt::Display| {
        AskError::Usage(format!("cannot read the token file {}: {error}", file.display()))
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
    /// What the command line says cannot be used, and nobody was asked.
    #[error("{0}")]
    Usage(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl AskError {
    /// What a command ends with for which this is the end: [`WRONG_USE`] if it was asked for
    /// something wrong, or for something that there is not, and [`FAILED`] for everything else. Who
    /// tries again what has [`FAILED`] may succeed.
    fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => WRONG_USE,
            Self::Refused(refusal) if refusal.is_of_wrong_use() => WRONG_USE,
            Self::Refused(_) | Self::Unreachable { .. } | Self::Other(_) => FAILED,
        }
    }

    /// What an answer says that is no good one.
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        let refusal = serde_json::from_slice(body).unwrap_or_else(|_| Refusal {
            status: status.as_u16(),
            detail: format!("{status}: {}", String::from_utf8_lossy(body).trim()),
            ..Refusal::default()
        });
        Self::Refused(Box::new(refusal))
    }
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

impl Refusal {
    /// Whether what was asked for is wrong, whatever the gateway does.
    fn is_of_wrong_use(&self) -> bool {
        match StatusCode::from_u16(self.status) {
            Ok(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => true,
            // Where no field is to blame, the gateway does not know the path: it is an older one.
            Ok(StatusCode::NOT_FOUND) => self.field.is_some(),
            _ => false,
        }
    }
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
    /// The gateway's socket, or host and port.
    pub fn place(&self) -> String {
        self.place.to_string()
    }

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

    /// Asks for JSON lines that come as long as the gateway has any, and gives each to `take` until
    /// that wants no more or the gateway ends.
    pub async fn follow(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> ControlFlow<ExitCode>,
    ) -> Result<ExitCode, AskError> {
        let cut = |error: hyper::Error| self.lost(&error);
        let accept = Some("application/x-ndjson");
        let mut body = self.begin(Method::GET, path, None, accept).await?;
        let mut rest = Vec::new();
        // It says something every few seconds, be it an empty line.
        while let Some(frame) = self.in_time(body.frame()).await? {
            let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim();
                if !line.is_empty()
                    && let ControlFlow::Break(done) = take(line)
                {
                    return Ok(done);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> Result<T, AskError> {
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            AskError::Other(format!(
                "the gateway at {} has not answered in {seconds} s",
                self.place
            ))
        })
    }

    /// Posts JSON for an answer that comes over a long time.
    pub async fn open(&self, path: &str, body: &Value) -> Result<Incoming, AskError> {
        let body = Some(("application/json", body.to_string()));
        self.begin(Method::POST, path, body, None).await
    }

    /// Asks for something whose answer comes over a long time.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        accept: Option<&str>,
    ) -> Result<Incoming, AskError> {
        let response = self.in_time(self.request(method, path, body, accept)).await??;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        let body = self.in_time(body.collect()).await?.map_err(|error| self.lost(&error))?;
        Err(AskError::refused(status, &body.to_bytes()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<Value, AskError> {
        let (status, body) = self.in_time(self.exchange(method, path, body)).await??;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| AskError::Other(format!("the gateway's answer: {error}")));
        }
        Err(AskError::refused(status, &body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let response = self.request(method, path, body, None).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.lost(&error))?;
        Ok((status, body.to_bytes()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
        accept: Option<&str>,
    ) -> Result<Response<Incoming>, AskError> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.unreachable(error))?;
                self.over(stream, "gwlb", (method, path), body, accept).await
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| self.unreachable(error))?;
                self.over(stream, address, (method, path), body, accept).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        host: &str,
        (method, path): (Method, &str),
        body: Option<(&str, String)>,
        accept: Option<&str>,
    ) -> Result<Response<Incoming>, AskError> {
        let lost = |error: hyper::Error| self.lost(&error);
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some((of_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, of_type);
        }
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let body = body.map(|(_, text)| text).unwrap_or_default();
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| AskError::Other(format!("cannot ask for {path}: {error}")))?;
        sender.send_request(request).await.map_err(lost)
    }

    fn lost(&self, error: &hyper::Error) -> AskError {
        AskError::Other(format!("the connection to the gateway at {}: {error}", self.place))
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::value(400, Some("weight"), WRONG_USE)]
    #[case::body(400, None, WRONG_USE)]
    #[case::configuration(422, None, WRONG_USE)]
    #[case::name(404, Some("group"), WRONG_USE)]
    #[case::path(404, None, FAILED)]
    #[case::token(401, None, FAILED)]
    #[case::restart(409, None, FAILED)]
    #[case::name_in_conflict(409, Some("to"), FAILED)]
    #[case::broken(500, None, FAILED)]
    #[case::busy(503, None, FAILED)]
    fn a_refusal_ends_each_command_alike(
        #[case] status: u16,
        #[case] field: Option<&str>,
        #[case] expected: u8,
    ) {
        let body = json!({ "status": status, "detail": "no", "field": field }).to_string();
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(AskError::refused(status, body.as_bytes()).exit_status(), expected);
    }

    #[test]
    fn a_refusal_in_words_of_a_proxy_ends_it_too() {
        assert_eq!(AskError::refused(StatusCode::BAD_GATEWAY, b"<html>").exit_status(), FAILED);
        assert_eq!(AskError::refused(StatusCode::BAD_REQUEST, b"no").exit_status(), WRONG_USE);
    }

    #[test]
    fn what_is_not_there_is_no_wrong_use_and_a_wrong_url_is() {
        let unreachable = AskError::Unreachable {
            place: "here".to_owned(),
            error: io::ErrorKind::ConnectionRefused.into(),
            advice: String::new(),
        };
        assert_eq!(unreachable.exit_status(), FAILED);
        assert_eq!(AskError::Other("late".to_owned()).exit_status(), FAILED);
        assert_eq!(AskError::Usage("--url".to_owned()).exit_status(), WRONG_USE);
    }
}
