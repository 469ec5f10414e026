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
//! use appliance_sdk::{Action, Appliance, Packet, RunError, Runtime};
//!
//! /// Lets every flow carry ten mebibytes, then refuses it.
//! struct Quota;
//!
//! impl Appliance for Quota {
//!     /// Bytes seen of a flow.
//!     type Flow = usize;
//!
//!     fn packet(&mut self, packet: &mut Packet<'_>, seen: &mut usize) -> Action {
//!         *seen += packet.bytes().len();
//!         if *seen <= 10 << 20 {
//!             return Action::Forward;
//!         }
//!         packet.reject();
//!         Action::DropFlow
//!     }
//! }
//!
//! fn main() -> Result<(), RunError> {
//!     let stats = Runtime::builder().build(|_worker| Quota).run()?;
//!     println!("{} packets were over the quota", stats.kept.packets);
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
pub mod runtime;
pub mod session;
mod stats;
pub mod testing;

pub use appliance::{Action, Appliance, Direction};
/// The wire format: headers, dialects, inner packets, flow keys.
pub use geneve;
pub use packet::{Packet, ReplaceError};
pub use route::{Arrival, Route};
pub use runtime::{Builder, EmitError, Emitter, Handle, RunError, Running, Runtime, Worker};
pub use session::flows_of;
pub use stats::{Count, DropReason, Drops, FlowStats, Oddities, Stats, Syscalls};
