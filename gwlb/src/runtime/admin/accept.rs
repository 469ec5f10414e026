//! Accepting connections, each with a place and with its time.

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use super::{GRACE, Limits, until};
use crate::logging::throttled;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Connections that are told at one time that there are too many; further ones are closed.
const MAX_REFUSED: usize = 1024;

/// What a client gets for which there is no place.
const NO_PLACE: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\n",
    "content-type: application/problem+json\r\n",
    "retry-after: 1\r\n",
    "connection: close\r\n",
    "content-length: 105\r\n\r\n",
    r#"{"title":"Service Unavailable","status":503,"detail":"too many clients at a time; come back in a second"}"#,
);

/// Serves whoever connects until `stopped`, and then until all of them are answered.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let mut clients = JoinSet::new();
    let mut refused = JoinSet::new();
    loop {
        tokio::select! {
            () = until(stopped.clone()) => break,
            Some(_) = clients.join_next() => {}
            Some(_) = refused.join_next() => {}
            // It waits by itself when no file descriptor is left.
            (stream, _) = listener.accept() => {
                while clients.try_join_next().is_some() {}
                if clients.len() < limits.connections {
                    clients.spawn(answer(stream, router.clone(), limits, stopped.clone()));
                } else if refused.len() < MAX_REFUSED {
                    refused.spawn(refuse(stream));
                }
            }
        }
    }
    // Who connects from now on is told by the kernel that nobody listens.
    drop(listener);
    while clients.join_next().await.is_some() {}
}

/// Answers a client for as long as it likes, unless it lets us wait.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    router: Router,
    limits: Limits,
    stopped: watch::Receiver<bool>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.answer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        throttled!(DEBUG, %error, "a client of the admin API");
    }
}

/// Tells a client to come back later. What it has sent is read for a moment: a socket that is
/// closed before takes the answer back.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let told = async {
        stream.write_all(NO_PLACE.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whether it has heard is its own business.
    let _ = timeout(GRACE, told).await;
}

#[cfg(test)]
mod tests {
    use super::NO_PLACE;

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let (head, body) = NO_PLACE.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
    }
}
