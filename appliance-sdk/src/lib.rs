//! Write a Geneve network appliance by implementing one trait.
//!
//! A gateway load balancer (AWS, Alibaba, Tencent, Google, or the open `gwlb` of this workspace)
//! sends the packets that are to be inspected to appliances, inside Geneve on UDP port 6081, and
//! takes back what they let through. This crate does all of that but the inspecting: threads,
//! sockets with segmentation offload, headers echoed byte for byte, flows, health checks, drain,
//! statistics. An [`Appliance`] is asked about each inner packet, and may decide the rest of a
//! flow at once, after which it is not asked again.
//!
//! A complete appliance:
//!
//! ```no_run
//! use appliance_sdk::{Action, Appliance, Packet, Runtime};
//!
//! /// Keeps connections that begin with an HTTP request for a forbidden path.
//! struct NoAdmin;
//!
//! impl Appliance for NoAdmin {
//!     /// Whether the flow has shown something yet.
//!     type Flow = bool;
//!
//!     fn packet(&mut self, packet: &mut Packet<'_>, seen: &mut bool) -> Action {
//!         if packet.payload().is_empty() {
//!             return Action::Forward;
//!         }
//!         *seen = true;
//!         match packet.payload().starts_with(b"GET /admin") {
//!             true => Action::DropFlow,
//!             false => Action::ForwardFlow,
//!         }
//!     }
//! }
//!
//! fn main() -> Result<(), appliance_sdk::RunError> {
//!     Runtime::builder().build(|_worker| NoAdmin).run()?;
//!     Ok(())
//! }
//! ```
//!
//! It listens on UDP 6081, answers health checks on TCP port 80, and drains on SIGTERM;
//! [`Builder`] has the settings. [`testing::FakeGateway`] tests it without a network.
//!
//! Where to read on: [`Appliance`] and [`Packet`] are what an author needs; [`session`] is the
//! sans-IO core, [`Runtime`] the threads and sockets around it, [`Stats`] what is counted.
#![forbid(unsafe_code)]

mod answer;
mod appliance;
mod packet;
mod rebuild;
mod route;
//pub mod runtime;
pub mod session;
mod stats;
pub mod testing;

pub use appliance::{Action, Appliance, Direction};
/// The wire format: headers, dialects, inner packets, flow keys.
pub use geneve;
pub use packet::{Packet, ReplaceError};
pub use route::{Arrival, Route};
//pub use runtime::{Builder, Emitter, Handle, RunError, Runtime, Worker};
pub use stats::{Count, DropReason, Drops, FlowStats, Oddities, Stats, Syscalls};
