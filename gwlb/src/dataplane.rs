//! The data plane: what becomes of each packet, without I/O and without a clock.
//!
//! Packets, time and keys come in as arguments; what to do comes out as data. The runtime, the
//! capture-file scenarios, the simulation and the benchmarks all drive this same code.
//!
//! # The way of a packet
//!
//! 1. What enters by an internet gateway is translated to private addresses ([`translate`]).
//!    [`Entrance::glance_all`] reads an ordinary packet, looks up the route table that governs where it
//!    entered, and has its flow fetched ([`flow_table`]) while others of the batch are looked at.
//!    Then [`Ingress::settled`] knows the way of nearly all, and [`Ingress::begun`] that of packets that
//!    begin flows ([`select`]). Everything else is parsed whole ([`frame::Frame`]) and judged by
//!    [`Ingress::handle_glanced`].
//! 2. The [`verdict::Course`], or in full [`verdict::Hop`], says to which target, from which source port and behind which Geneve
//!    header it goes; [`encap`] puts that in front of the packet, segment by segment, for sending, and
//!    [`gather`] has small packets leave together.
//! 3. [`Return::handle_datagram`] takes what the appliance sends back, verifies source and cookie
//!    ([`keys`]), and looks up the table of the endpoint's own subnet. What leaves by an internet
//!    gateway is translated back, after all else.
//! 4. Every packet ends in one [`verdict`], and [`stats`] counts it.

pub mod by_attachment;
pub mod encap;
pub mod explain;
pub mod filter;
pub mod flow_log;
pub mod flow_table;
pub mod fragmentation;
pub mod fragments;
pub mod frame;
pub mod gather;
pub mod ingress;
pub mod inspection;
pub mod keys;
pub mod mss;
pub mod reply;
pub mod return_path;
pub mod select;
pub mod snapshot;
pub mod stats;
pub mod tcp_state;
pub mod translate;
pub mod verdict;

#[cfg(test)]
mod testing;

pub use ingress::{Entrance, Glance, Ingress, IngressConfig, Moment};
pub use return_path::Return;
