//! Everything that the sans-IO core is not: threads, sockets, devices, and the clock.
//!
//! [`Gateway::start`] builds all that a configuration names or nothing; what was built vanishes
//! when the [`Gateway`] is dropped. One worker per core carries the packets. The control plane has a
//! thread, which also probes the targets; the admin API and the metrics have another, so that
//! whoever asks much holds up no probe. No packet goes through either.
//!
//! Building takes privileges and running takes none: the gateway's threads have none from the first
//! packet on.

mod admin;
mod build;
mod capture;
pub mod clock;
mod control_handle;
mod control_loop;
mod datagrams;
mod devices;
mod drops;
mod error;
mod events;
mod exchange;
mod exit;
mod flow_logs;
mod flows;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inquiry;
mod metrics;
mod minutes;
mod pings;
mod private_file;
mod prober;
mod rig;
mod rigging;
mod rooms;
mod secret;
mod shared;
mod status;
mod steering;
mod underlay;
mod witness;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netio::process::privileges;

pub use control_handle::{ControlError, ControlHandle, ReloadError, ReloadReport};
pub use error::StartError;
pub use status::{AttachmentStatus, EndpointStatus, GatewayState, Status};
#[cfg(feature = "lab")]
pub(crate) use worker::TUN_BATCH;

use crate::config::Settings;
use admin::AdminServer;
use build::Built;
use control_handle::ConfigFile;
use control_loop::ControlLoop;
use events::GatewayEvent;
use flow_logs::FlowLogWriter;
use shared::Shared;

/// A gateway that is running.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    control: ControlLoop,
    handle: ControlHandle,
    admin: AdminServer,
    logs: Option<FlowLogWriter>,
}

impl Gateway {
    /// Builds and starts everything that `settings` name. They came from `file`, if from any: that
    /// is what a reload reads again.
    ///
    /// Returns when packets flow, which is at most half a second after the first probes went out:
    /// so long it waits for what they say.
    ///
    /// The gateway's threads give up all capabilities ([`netio::process::privileges`]); the calling
    /// thread keeps its own, and may give them up when this has returned.
    ///
    /// # Errors
    /// [`StartError`] says what could not be had; then nothing is left behind: no device, no
    /// socket, no thread.
    pub fn start(settings: Settings, file: Option<PathBuf>) -> Result<Self, StartError> {
        // All threads of the gateway are started by this one, or by those that it starts, after it
        // has given up its privileges: none of them ever has any.
        let starter = std::thread::Builder::new().name("start".to_owned());
        let start = move || Self::build_and_run(settings, file);
        let starter = starter.spawn(start).map_err(StartError::Thread)?;
        starter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn build_and_run(settings: Settings, file: Option<PathBuf>) -> Result<Self, StartError> {
        let Built { shared, workers, control, listeners, log } = build::build(settings)?;
        privileges::give_up().map_err(StartError::Privileges)?;
        let (control, handle) = ControlLoop::start(control, Arc::clone(&shared), ConfigFile(file))?;
        let admin = match AdminServer::start(listeners, Arc::clone(&shared), &handle) {
            Ok(admin) => admin,
            Err(error) => {
                control.stop();
                return Err(error);
            }
        };
        let logs = log.map(|tap| FlowLogWriter::start(tap, Arc::clone(&shared)));
        let logs = match logs.transpose() {
            Ok(logs) => logs,
            Err(error) => {
                admin.stop();
                control.stop();
                return Err(error);
            }
        };
        let mut gateway = Self { shared, workers: Vec::new(), control, handle, admin, logs };
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
        let (workers, version) = (gateway.workers.len(), env!("CARGO_PKG_VERSION"));
        gateway.shared.events.publish(GatewayEvent::GatewayStarted { workers, version });
        Ok(gateway)
    }

    /// Whether every worker is at work. One that ended by itself leaves its flows without anybody:
    /// the gateway is to be stopped then.
    pub fn is_whole(&self) -> bool {
        !self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Whether every worker answers within this time, which takes it between two batches of packets.
    pub fn workers_answer(&self, within: Duration) -> bool {
        inquiry::all_answer(&self.shared, within)
    }

    /// What the gateway is doing now. Not for use within an asynchronous task.
    pub fn status(&self) -> Status {
        Status::of(&self.shared, &self.handle.view_blocking())
    }

    /// The way to change what it does.
    pub fn control(&self) -> &ControlHandle {
        &self.handle
    }

    /// Takes in no more packets, waits for those that are with the appliances, and removes
    /// everything. Takes at most two seconds; with flow logs, up to half a second more until workers
    /// have told what they know, and one more until that is written.
    pub fn stop(self) -> Status {
        self.shared.events.publish(GatewayEvent::GatewayDraining {});
        self.shared.drain();
        for worker in self.workers {
            // A worker that panicked has said so on stderr; nobody takes its packets any more.
            let _ = worker.join();
        }
        self.shared.empty_inboxes();
        if let Some(logs) = self.logs {
            logs.stop();
        }
        let status = Status::of(&self.shared, &self.handle.view_blocking());
        self.admin.stop();
        self.control.stop();
        status
    }
}
