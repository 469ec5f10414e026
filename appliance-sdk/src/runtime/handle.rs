//! What is shared between the threads, and how one asks for statistics, drain and end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netio::poll::Waker;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::RunError;
use super::control::Control;
use super::worker::WorkerThread;
use crate::appliance::Appliance;
use crate::stats::Stats;

/// A way to a running appliance; clones lead to the same one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// What all workers counted. Everything is in it that was sent before the call; it is asked for
    /// and waited for, which takes as long as a worker needs for what it is doing.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Where datagrams are taken; with the real port if port 0 was asked for.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.shared.listening
    }

    /// Where health checks are answered; with the real port if port 0 was asked for.
    pub fn health(&self) -> Option<SocketAddr> {
        self.shared.health
    }

    /// Begins the drain, as SIGTERM does: health checks fail, forwarding goes on for the drain
    /// time, then the appliance stops. Asked a second time, it stops.
    pub fn drain(&self) {
        self.shared.tell(Event::EndWanted);
    }

    /// Stops without a drain.
    pub fn stop(&self) {
        self.shared.tell(Event::StopWanted);
    }
}

/// A started appliance. Dropping it stops it without a drain.
pub struct Running {
    shared: Arc<Shared>,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, control: None, workers: Vec::new() }
    }

    /// A way to the appliance that other threads can have.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Waits for the end, which somebody has to [ask for](Handle::drain), and returns what was
    /// counted.
    pub fn join(mut self) -> Result<Stats, RunError> {
        self.finish()?;
        Ok(self.shared.stats())
    }

    pub(super) fn spawn_control(&mut self, control: Control) -> Result<(), RunError> {
        let thread = spawn("appliance-control".to_owned(), move || control.run())?;
        self.control = Some(thread);
        Ok(())
    }

    pub(super) fn spawn_worker<A: Appliance>(
        &mut self,
        worker: WorkerThread<A>,
    ) -> Result<(), RunError> {
        let shared = Arc::clone(&self.shared);
        let thread = spawn(format!("appliance-{}", worker.index()), move || {
            let _told = TellOnExit(shared);
            worker.run()
        })?;
        self.workers.push(thread);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), RunError> {
        let mut result = Ok(());
        for (worker, thread) in self.workers.drain(..).enumerate() {
            let ended = thread.join().unwrap_or(Err(RunError::Panicked { worker }));
            result = result.and(ended);
        }
        self.shared.tell(Event::StopWanted);
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop_workers();
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the appliance failed");
        }
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|error| RunError::Setup { what: "thread", error })
}

/// A worker that ends by itself, by an error or a panic, takes the whole appliance with it: half an
/// appliance that looks healthy is worse than none.
struct TellOnExit(Arc<Shared>);

impl Drop for TellOnExit {
    fn drop(&mut self) {
        self.0.tell(Event::StopWanted);
    }
}

/// What the control thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Begin the drain; if it has begun, stop.
    EndWanted,
    /// Stop.
    StopWanted,
}

/// What all threads share.
pub(super) struct Shared {
    workers: Vec<Arc<WorkerShare>>,
    listening: Vec<SocketAddr>,
    health: Option<SocketAddr>,
    events: mpsc::UnboundedSender<Event>,
    /// Taken by the control thread.
    pub(super) inbox: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl Shared {
    pub(super) fn new(
        workers: Vec<Arc<WorkerShare>>,
        listening: Vec<SocketAddr>,
        health: Option<SocketAddr>,
    ) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        Self { workers, listening, health, events, inbox: Mutex::new(Some(inbox)) }
    }

    pub(super) fn stop_workers(&self) {
        for worker in &self.workers {
            worker.stop();
        }
    }

    fn tell(&self, event: Event) {
        // A control thread that is gone has stopped the workers.
        let _ = self.events.send(event);
    }

    fn stats(&self) -> Stats {
        let asked: Vec<_> = self.workers.iter().map(|worker| (worker, worker.ask())).collect();
        let mut sum = Stats::default();
        for (worker, question) in asked {
            sum += &worker.answer(question);
        }
        sum
    }
}

/// What one worker shares with the others.
pub(super) struct WorkerShare {
    pub(super) waker: Waker,
    stop: AtomicBool,
    /// How many times statistics were asked for.
    questions: AtomicU64,
    published: Mutex<Published>,
    changed: Condvar,
}

/// The statistics of a worker as of some question.
#[derive(Default)]
struct Published {
    stats: Stats,
    /// Which question they answer.
    question: u64,
}

/// A worker that does not answer for so long is stuck in its appliance; what it said last will do.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl WorkerShare {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            waker,
            stop: AtomicBool::new(false),
            questions: AtomicU64::new(0),
            published: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The latest question for statistics; 0 before the first.
    pub(super) fn question(&self) -> u64 {
        self.questions.load(Ordering::Acquire)
    }

    /// The worker has ended: these are its last numbers.
    pub(super) fn close(&self, stats: Stats) {
        self.publish(stats, u64::MAX);
    }

    /// The worker answers a question, and those before it.
    pub(super) fn publish(&self, stats: Stats, question: u64) {
        *self.published.lock() = Published { stats, question };
        self.changed.notify_all();
    }

    /// Asks the worker for its statistics.
    fn ask(&self) -> u64 {
        let question = self.questions.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        question
    }

    /// Waits for the answer to a question.
    fn answer(&self, question: u64) -> Stats {
        let mut published = self.published.lock();
        let unanswered = |published: &mut Published| published.question < question;
        self.changed.wait_while_for(&mut published, unanswered, ANSWER_TIME);
        published.stats.clone()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "cannot wake a worker");
        }
    }
}
