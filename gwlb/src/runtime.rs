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
        let workers = workers
            .into_iter()
            .enumerate()
            .map(|(number, worker)| {
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || worker.run())
                    .map_err(StartError::Thread)
            })
            .collect::<Result<Vec<_>, _>>();
        match workers {
            Ok(workers) => Ok(Self { shared, workers, control }),
            Err(error) => {
                shared.drain();
                control.stop();
                Err(error)
            }
        }
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
        let status = Status::of(&self.shared);
        self.control.stop();
        status
    }
}
