//! What it costs to be looked at: two gateways alike, one of which keeps all that it can, and is asked
//! for it all the time.
//!
//! Capturing packets is not part of it: that copies them, for as long as somebody wants them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::super::error::BenchError;
use super::gateway::{Gateway, Kept, Options};
use super::network::{Ends, Network};
use crate::lab::process::RunDirectory;
use crate::lab::traffic::http;

/// How often it is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// What it is asked for each time: what a scrape gets, what a screen shows, and a page of flows, for
/// which all of them are looked at.
const ASKED: [&str; 3] = ["/metrics", "/v1/status", "/v1/flows?sort=bytes&limit=100"];
/// What is read all along.
const FOLLOWED: &str = "/v1/events";

/// Both gateways. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Watched {
    watcher: Watcher,
    /// The one that nobody looks at, then the other.
    gateways: [(Gateway, Ends); 2],
}

impl Watched {
    /// What the two are called in tables.
    pub(super) const NAMES: [&str; 2] = ["unobserved", "observed"];

    /// Starts both.
    pub(super) async fn start(
        network: &mut Network,
        directory: &RunDirectory,
    ) -> Result<Self, BenchError> {
        let mut gateways = Vec::new();
        for (name, kept) in Self::NAMES.into_iter().zip([Kept::Counters, Kept::Everything]) {
            let detour = network.gateway(name)?;
            let options = Options { kept: Some(kept), ..Options::default() };
            let gateway = Gateway::start(name, &detour, options, directory).await?;
            gateways.push((gateway, detour.ends));
        }
        let [off, on] = gateways
            .try_into()
            .map_err(|_| BenchError::Wrong("there are two gateways to compare".to_owned()))?;
        let watcher = Watcher::start(on.0.socket().to_owned());
        Ok(Self { watcher, gateways: [off, on] })
    }

    /// One of them, by its place in [`Self::NAMES`], with its client and server.
    pub(super) fn gateway(&mut self, number: usize) -> (&mut Gateway, Ends) {
        let (gateway, ends) = &mut self.gateways[number];
        (gateway, ends.clone())
    }

    /// That whoever looks still does, or what has stopped it.
    pub(super) async fn check(&mut self) -> Result<(), BenchError> {
        self.watcher.check().await
    }
}

/// Who looks all the time.
#[derive(Debug)]
struct Watcher(Option<JoinHandle<io::Error>>);

impl Watcher {
    fn start(socket: PathBuf) -> Self {
        Self(Some(tokio::spawn(async move {
            // Neither ends but by failing.
            let ended = tokio::try_join!(ask(&socket), follow(&socket));
            ended.err().unwrap_or_else(|| io::Error::other("it has ended"))
        })))
    }

    async fn check(&mut self) -> Result<(), BenchError> {
        match self.0.take_if(|task| task.is_finished()) {
            None => Ok(()),
            Some(task) => {
                let why = task.await.map_or_else(|error| error.to_string(), |it| it.to_string());
                Err(BenchError::Wrong(format!("who looks at the gateway has stopped: {why}")))
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn ask(socket: &Path) -> io::Result<()> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for path in ASKED {
            let stream = UnixStream::connect(socket).await?;
            http::get(TokioIo::new(stream), "gwlb", path).await?;
        }
    }
}

async fn follow(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("GET {FOLLOWED} HTTP/1.1\r\nHost: gwlb\r\n\r\n").as_bytes()).await?;
    let mut read = [0; 4096];
    let first = stream.read(&mut read).await?;
    if !read[..first].starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other(format!("{FOLLOWED} is not to be had")));
    }
    while stream.read(&mut read).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}
