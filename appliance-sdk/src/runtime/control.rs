//! The thread that takes signals and conducts the drain, with the health endpoint beside it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::RunError;
use super::builder::Settings;
use super::handle::{Event, Shared};
use super::health::{self, Health};

/// Everything that the control thread needs, set up where an error can still be returned.
pub(super) struct Control {
    runtime: runtime::Runtime,
    shared: Arc<Shared>,
    listener: Option<TcpListener>,
    drain: Duration,
    signals: Signals,
    on_hangup: Option<Box<dyn FnMut() + Send>>,
}

/// The signals that a running appliance takes.
struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Control {
    pub(super) fn new(
        settings: &mut Settings,
        shared: Arc<Shared>,
        listener: Option<TcpListener>,
    ) -> Result<Self, RunError> {
        let setup = |what| move |error| RunError::Setup { what, error };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(setup("control thread"))?;
        let on_hangup = settings.on_hangup.take();
        let signals = {
            let _context = runtime.enter();
            Signals::new(settings.signals, on_hangup.is_some()).map_err(setup("signal handler"))?
        };
        Ok(Self { runtime, shared, listener, drain: settings.drain, signals, on_hangup })
    }

    /// Serves until the end was asked for and the drain is over, then stops the workers.
    pub(super) fn run(self) {
        let Self { runtime, shared, listener, drain, signals, on_hangup } = self;
        let Some(inbox) = shared.inbox.lock().take() else { return };
        runtime.block_on(async {
            let (state, seen) = watch::channel(Health::Serving);
            if let Some(listener) = listener {
                tokio::spawn(health::serve(listener, seen));
            }
            let mut wishes = Wishes { inbox, signals, on_hangup };
            if wishes.next().await == Event::EndWanted {
                tracing::info!(seconds = drain.as_secs_f64(), "draining");
                let begin = Instant::now();
                let refuse_at = begin + drain / 3;
                let _ = state.send(Health::Draining);
                if !wishes.ended_before(refuse_at).await {
                    let _ = state.send(Health::Closed);
                    wishes.ended_before(begin + drain).await;
                }
            }
            let _ = state.send(Health::Closed);
        });
        shared.stop_workers();
    }
}

/// Who may want the end: the program by its handle, the user by a signal.
struct Wishes {
    inbox: mpsc::UnboundedReceiver<Event>,
    signals: Signals,
    on_hangup: Option<Box<dyn FnMut() + Send>>,
}

impl Wishes {
    async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                // The sender lives as long as the handle that is shared with this thread.
                event = self.inbox.recv() => return event.unwrap_or(Event::StopWanted),
                received = self.signals.next() => match received {
                    Received::End => return Event::EndWanted,
                    Received::Hangup => {
                        if let Some(action) = &mut self.on_hangup {
                            action();
                        }
                    }
                },
            }
        }
    }

    /// Whether the end was asked for once more before a point in time.
    async fn ended_before(&mut self, deadline: Instant) -> bool {
        tokio::select! {
            _ = self.next() => true,
            () = sleep_until(deadline) => false,
        }
    }
}

enum Received {
    End,
    Hangup,
}

impl Signals {
    fn new(end: bool, hangup: bool) -> io::Result<Self> {
        let take = |wanted: bool, kind| wanted.then(|| signal(kind)).transpose();
        Ok(Self {
            terminate: take(end, SignalKind::terminate())?,
            interrupt: take(end, SignalKind::interrupt())?,
            hangup: take(hangup, SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            () = next(&mut self.terminate) => Received::End,
            () = next(&mut self.interrupt) => Received::End,
            () = next(&mut self.hangup) => Received::Hangup,
        }
    }
}

/// Waits for a signal, or for ever if it is not taken.
async fn next(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
