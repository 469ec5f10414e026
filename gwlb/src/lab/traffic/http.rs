//! A web server that says who it is and whom it sees, and a client that asks.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

use axum::extract::{ConnectInfo, State};
use axum::{Json, Router, routing};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

/// Where it listens.
pub(in crate::lab) const PORT: u16 = 80;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::lab) struct Greeting {
    /// The server's name.
    pub server: String,
    /// The address that the request came from, as the server sees it.
    pub client: IpAddr,
}

/// Serves from a thread of its own, until the process ends.
pub(super) fn serve(listener: TcpListener, name: &'static str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let router = Router::new().route("/", routing::get(greet)).with_state(name);
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(tokio::net::TcpListener::from_std(listener)?, service).await
        })
    });
    Ok(())
}

async fn greet(
    State(name): State<&'static str>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Json<Greeting> {
    Json(Greeting { server: name.to_owned(), client: peer.ip().to_canonical() })
}

/// Why there is no greeting.
#[derive(Debug, thiserror::Error)]
pub(in crate::lab) enum AskError {
    /// The server cannot be reached.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The server was reached, and the conversation failed.
    #[error("the connection stands, but {0}")]
    Exchange(#[from] io::Error),
}

/// Asks the server at `to` for its greeting. Blocks.
pub(in crate::lab) fn ask(to: SocketAddr) -> Result<Greeting, AskError> {
    let stream = super::connect(to, super::PATIENCE).map_err(AskError::Connect)?;
    stream.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let answer = tokio::time::timeout(super::PATIENCE, exchange(stream, to)).await;
        Ok(answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)
    })
}

async fn exchange(stream: std::net::TcpStream, to: SocketAddr) -> io::Result<Greeting> {
    let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    let body = get(stream, &to.to_string(), "/").await?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Gets `path` over a fresh connection: the body of a good answer.
pub(crate) async fn get<S>(stream: S, host: &str, path: &str) -> io::Result<Bytes>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body);
        return Err(io::Error::other(format!("status {status}: {text}")));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_who_it_is_and_whom_it_sees() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        serve(listener, "app-a").unwrap();
        let greeting = ask(to).unwrap();
        assert_eq!(greeting, Greeting { server: "app-a".to_owned(), client: to.ip() });
    }
}
