//! Everything that the sans-IO core is not: threads, sockets, devices, and the clock.
//!
//! [`Gateway::start`] builds all that a configuration names or nothing; what was built vanishes
//! when the [`Gateway`] is dropped. One worker per core carries the packets; one more thread runs
//! the control plane, the admin API and the metrics on tokio, and no packet goes through it.

mod admin;
mod build;
pub mod clock;
mod control_loop;
mod error;
mod exit;
mod metrics;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the control loop has no probes to be made yet")
)]
mod prober;
mod secret;
mod shared;
mod status;
mod underlay;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use error::StartError;
pub use status::{AttachmentStatus, GatewayState, Status, TargetStatus};

use crate::config::Settings;
use build::Built;
use control_loop::ControlLoop;
use shared::Shared;

/// A gateway that is running.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    control: ControlLoop,
}

impl Gateway {
    /// Builds and starts everything that `settings` name.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had; then nothing is left behind: no device, no
    /// socket, no thread.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let Built { shared, workers, control } = build::build(settings)?;
        let control = ControlLoop::start(control, Arc::clone(&shared))?;
        let mut gateway = Self { shared, workers: Vec::new(), control };
        for (number, worker) in workers.into_iter().enumerate() {
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            match thread.spawn(move || worker.run()) {
                Ok(thread) => gateway.workers.push(thread),
                Err(error) => {
                    gateway.stop();
                    return Err(StartError::Thread(error));
                }
            }
        }
        Ok(gateway)
    }

    /// Whether every worker is at work. One that ended by itself leaves its flows without anybody:
    /// the gateway is to be stopped then.
    pub fn is_whole(&self) -> bool {
        !self.workers.iter().any(JoinHandle::is_finished)
    }

    /// What the gateway is doing now.
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// Takes in no more packets, waits for those that are with the appliances, and removes
    /// everything. Takes at most two seconds.
    pub fn stop(self) -> Status {
        self.shared.drain();
        for worker in self.workers {
            // A worker that panicked has said so on stderr; its devices are gone with it.
            let _ = worker.join();
        }
        self.shared.empty_inboxes();
        let status = Status::of(&self.shared);
        self.control.stop();
        status
    }
}
