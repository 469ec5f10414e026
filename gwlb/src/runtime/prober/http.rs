//! One GET, judged by its status as soon as the answer's head is complete.
//!
//! Appliances are poor HTTP servers (appliances.md): they answer whatever they are asked without
//! reading it, and reset the connection behind the answer. What they said counts all the same.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::{HealthCheck, HealthProtocol};

/// How long the head of an answer may be, in bytes. 16 KiB is what browsers and proxies are content
/// with for all headers together.
const MAX_HEAD: usize = 16 * 1024;

const USER_AGENT: &str = concat!("gwlb-health-check/", env!("CARGO_PKG_VERSION"));

/// Why a GET did not pass.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum HttpError {
    #[error("the health check makes no valid request: {0}")]
    Request(hyper::http::Error),
    #[error("no HTTP answer: {0}")]
    Exchange(hyper::Error),
    #[error("the matcher does not take {0}")]
    Status(StatusCode),
}

/// Asks for what `health` says on a connection to `address`, and judges the status.
///
/// The body is not waited for, so that an endless one does no harm; the connection is closed at
/// once, since some appliances serve but one at a time.
pub(in crate::runtime) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    health: &HealthCheck,
    address: SocketAddr,
) -> Result<(), HttpError> {
    let request = request(health, address).map_err(HttpError::Request)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Only the status counts.
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(AnswerCounts::new(stream)))
        .await
        .map_err(HttpError::Exchange)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // No task of its own drives the connection: what is dropped here is closed.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It may have ended right behind the head.
        _ = connection => answer.await,
    };
    let status = answer.map_err(HttpError::Exchange)?.status();
    if health.matcher.matches(status.as_u16()) { Ok(()) } else { Err(HttpError::Status(status)) }
}

fn request(
    health: &HealthCheck,
    address: SocketAddr,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    Request::get(&health.path)
        .header(header::HOST, host(health, address))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

/// The `Host` header: what is configured, or the target's address; and the port where it is not the
/// scheme's own (RFC 9110 §7.2).
fn host(health: &HealthCheck, address: SocketAddr) -> String {
    let usual = if health.protocol == HealthProtocol::Https { 443 } else { 80 };
    let host = match &health.host {
        // An IPv6 address has brackets around it.
        Some(host) => host.parse().map_or_else(|_| host.clone(), |ip| bracketed(IpAddr::V6(ip))),
        None => bracketed(address.ip()),
    };
    if address.port() == usual { host } else { format!("{host}:{}", address.port()) }
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A stream on which the answer counts, whatever becomes of the request.
///
/// The target may answer before it was asked, which hyper takes for a breach of the protocol, so
/// nothing is read before something was written. And it may be gone when it is asked, with its
/// answer already here, so a failing write is silent: what there is to read decides.
#[derive(Debug)]
struct AnswerCounts<S> {
    stream: S,
    asked: bool,
    /// Who wants to read before the target was asked.
    reader: Option<Waker>,
}

impl<S> AnswerCounts<S> {
    fn new(stream: S) -> Self {
        Self { stream, asked: false, reader: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswerCounts<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.asked {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnswerCounts<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.asked = true;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        written.map(|result| Ok(result.unwrap_or(bytes.len())))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::runtime::prober::tests::health;

    #[rstest]
    #[case(HealthProtocol::Http, None, "192.0.2.1:80", "192.0.2.1")]
    #[case(HealthProtocol::Http, None, "192.0.2.1:443", "192.0.2.1:443")]
    #[case(HealthProtocol::Https, None, "192.0.2.1:443", "192.0.2.1")]
    #[case(HealthProtocol::Https, None, "192.0.2.1:80", "192.0.2.1:80")]
    #[case(HealthProtocol::Http, None, "[2001:db8::1]:80", "[2001:db8::1]")]
    #[case(HealthProtocol::Http, None, "[2001:db8::1]:8080", "[2001:db8::1]:8080")]
    #[case(HealthProtocol::Http, Some("fw.example"), "192.0.2.1:80", "fw.example")]
    #[case(HealthProtocol::Http, Some("fw.example"), "192.0.2.1:8080", "fw.example:8080")]
    #[case(HealthProtocol::Http, Some("192.0.2.9"), "192.0.2.1:80", "192.0.2.9")]
    #[case(HealthProtocol::Https, Some("2001:db8::9"), "192.0.2.1:443", "[2001:db8::9]")]
    fn the_host_has_a_port_where_it_is_not_the_usual_one(
        #[case] protocol: HealthProtocol,
        #[case] configured: Option<&str>,
        #[case] address: &str,
        #[case] expected: &str,
    ) {
        let health = HealthCheck { host: configured.map(str::to_owned), ..health(protocol) };
        assert_eq!(host(&health, address.parse().unwrap()), expected);
    }

    /// As with an appliance that does not read what it is asked, seen by a slow thread.
    #[tokio::test]
    async fn an_answer_counts_that_came_before_the_question() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").await.unwrap();
        // From now on a write fails, and what is left to read is the answer.
        drop(far);
        let health = health(HealthProtocol::Http);
        exchange(near, &health, "192.0.2.1:80".parse().unwrap()).await.unwrap();
    }
}
