//! What it costs to be looked at: two gateways alike, one of which keeps all that it can, and is asked
//! for it all the while that it is measured.
//!
//! Capturing packets is not part of it: that copies them, for as long as somebody wants them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::super::error::BenchError;
use super::gateway::{Gateway, Kept, Options, secret_file};
use super::network::{Detour, Ends, Network};
use crate::lab::error::LabError;
use crate::lab::process::RunDirectory;
use crate::lab::traffic::http;

/// How often it is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// What it is asked for each time: what a scrape gets, what a screen shows, and a page of flows, for
/// which all of them are looked at.
const ASKED: [&str; 3] = ["/metrics", "/v1/status", "/v1/flows?sort=bytes&limit=100"];
/// What is read all along.
const FOLLOWED: &str = "/v1/events";

/// Both gateways, started anew for each pair of measurements.
///
/// Which worker has a flow, and by which port it goes to which thread of the appliance, follows from
/// a secret. With few flows the one gateway fares better by it than the other, for as long as it
/// runs. So both of a pair have the same secret, and each pair has a new one. (Of TCP, the client's
/// port is chance as well, and another one each time.)
#[derive(Debug)]
pub(super) struct Watched {
    running: Option<Running>,
    detours: [Detour; 2],
}

/// Fields are dropped in this order.
#[derive(Debug)]
struct Running {
    watcher: Watcher,
    gateways: [Gateway; 2],
}

impl Watched {
    /// What the two are called in tables: the one that nobody looks at, and the other.
    pub(super) const NAMES: [&str; 2] = ["unobserved", "observed"];

    /// Builds the networks of both.
    pub(super) fn build(network: &mut Network) -> Result<Self, BenchError> {
        let [off, on] = Self::NAMES.map(|name| network.gateway(name));
        Ok(Self { running: None, detours: [off?, on?] })
    }

    /// Starts both anew.
    pub(super) async fn renew(&mut self, directory: &RunDirectory) -> Result<(), BenchError> {
        if let Some(Running { watcher, .. }) = self.running.take() {
            watcher.end().await;
        }
        let [off, on] = Self::NAMES;
        let secret = |name| directory.path().join(secret_file(name));
        remove(&secret(off)).map_err(LabError::io("forget a secret"))?;
        let first = self.gateway(0, Kept::Counters, directory).await?;
        fs::copy(secret(off), secret(on)).map_err(LabError::io("share a secret"))?;
        let second = self.gateway(1, Kept::Everything, directory).await?;
        let watcher = Watcher::start(second.socket().to_owned());
        self.running = Some(Running { watcher, gateways: [first, second] });
        Ok(())
    }

    async fn gateway(
        &self,
        number: usize,
        kept: Kept,
        directory: &RunDirectory,
    ) -> Result<Gateway, LabError> {
        let options = Options { kept: Some(kept), ..Options::default() };
        Gateway::start(Self::NAMES[number], &self.detours[number], options, directory).await
    }

    /// One of them, by its place in [`Self::NAMES`], with its client and server. As long as it is
    /// the first one's turn, nobody asks the other: that would cost both.
    pub(super) fn path(&mut self, number: usize) -> Result<(&mut Gateway, Ends), BenchError> {
        let none = || BenchError::Wrong("the gateways to compare were not started".to_owned());
        let Running { watcher, gateways } = self.running.as_mut().ok_or_else(none)?;
        watcher.looks(number > 0);
        Ok((&mut gateways[number], self.detours[number].ends.clone()))
    }

    /// That whoever looks still does, or what has stopped it.
    pub(super) async fn check(&mut self) -> Result<(), BenchError> {
        match &mut self.running {
            Some(running) => running.watcher.check().await,
            None => Ok(()),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Who looks all the time.
#[derive(Debug)]
struct Watcher {
    task: Option<JoinHandle<io::Error>>,
    looks: watch::Sender<bool>,
}

impl Watcher {
    fn start(socket: PathBuf) -> Self {
        let (looks, wanted) = watch::channel(false);
        let task = tokio::spawn(async move {
            // Neither ends but by failing.
            let ended = tokio::try_join!(ask(&socket, wanted), follow(&socket));
            ended.err().unwrap_or_else(|| io::Error::other("it has ended"))
        });
        Self { task: Some(task), looks }
    }

    fn looks(&self, now: bool) {
        self.looks.send_replace(now);
    }

    /// Lets go of the gateway, which would wait for that.
    async fn end(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was stopped, which is what its error says.
            let _ = task.await;
        }
    }

    async fn check(&mut self) -> Result<(), BenchError> {
        match self.task.take_if(|task| task.is_finished()) {
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
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn ask(socket: &Path, mut wanted: watch::Receiver<bool>) -> io::Result<()> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !*wanted.borrow() {
            wanted.wait_for(|wanted| *wanted).await.map_err(io::Error::other)?;
            ticks.reset();
        }
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
