//! The open gateway load balancer: it steers IP traffic, by route tables, through a fleet of
//! network appliances over Geneve and back, transparently, with every flow at one appliance.
//!
//! # The way of a packet
//!
//! ```text
//!  internet                   VPC "app"                                VPC "security"
//!  ┌──────┐ TUN ┌───────────────────────────────────────┐            ┌─────────────┐
//!  │client├─────┤ gateway ─► gateway table ─► endpoint ─┼─┐  Geneve  │ appliance 1 │
//!  └──────┘     │                                       │ ├─UDP 6081─┤ appliance 2 │
//!  ┌──────┐ TUN │ subnet ──► subnet table ──► endpoint ─┼─┘◄─────────┤ …           │
//!  │server├─────┤ ◄─ endpoint subnet's table ◄─ back ◄──┼─           └─────────────┘
//!  └──────┘     └───────────────────────────────────────┘
//! ```
//!
//! 1. A worker of the [`runtime`] reads a packet, or a super-packet of up to 42 segments, from the
//!    TUN device of an attachment.
//! 2. [`router::Topology::lookup`] asks the table that governs the attachment. A route to an
//!    endpoint leads on; one to another attachment delivers; any other is a named drop.
//! 3. [`dataplane::Ingress`] finds the flow or makes it, which is when the target is chosen
//!    ([`dataplane::select`]), and writes the Geneve header with endpoint and flow cookie.
//! 4. [`dataplane::encap`] gathers headers and payload for `UDP_SEGMENT`, from a source port that
//!    belongs to the flow.
//! 5. The appliance returns the packet with the same Geneve header, outer addresses swapped.
//! 6. [`dataplane::Return`] verifies source and cookie, without any flow state, and asks the table
//!    of the endpoint's own subnet.
//! 7. The packet leaves through the TUN device of an attachment, joined again with its neighbours
//!    ([`netio::offload::Coalescer`]).
//!
//! Every packet ends in exactly one of: sent, delivered, bypassed, answered, or dropped with one
//! named reason ([`dataplane::verdict`]), and [`dataplane::stats`] balances.
//!
//! # The rooms
//!
//! [`config`] turns a file into checked settings; [`control`] turns settings and events into the
//! snapshots that the [`dataplane`] works with; both are free of I/O. [`runtime`] has all threads,
//! sockets and the clock, and [`cli`] is the command. `lab` is the demonstration network, and
//! `bench` measures.
//!
//! ```no_run
//! let file = std::path::PathBuf::from("gateway.toml");
//! let settings = gwlb::config::load(&file)?;
//! // Given the file, it can be told to read it again.
//! let gateway = gwlb::runtime::Gateway::start(settings, Some(file))?;
//! println!("{} packets came in", gateway.status().totals.tun.flow.received);
//! gateway.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "lab")]
pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
#[cfg_attr(not(feature = "seeded-faults"), doc(hidden))]
pub mod fault;
#[cfg(feature = "lab")]
pub mod lab;
mod logging;
pub mod runtime;
mod sync;
