//! What the tests of the whole workspace are made of.
//!
//! * [`gateway`]: a whole gateway in memory, with several workers and a virtual clock;
//! * [`model`]: what is right, in plain collections, to follow what a gateway does;
//! * [`packets`] to send through it, [`capture`] files to read and write, and [`describe`] to say
//!   in a line what a packet is;
//! * [`scenario`]: a folder with a configuration, captures that enter, and what must come of them;
//! * [`simulation`]: gateways, appliances, hosts and a network, all of it decided by one seed;
//! * [`corpus`]: captures that others made;
//! * [`tshark`]: an independent judge of what is put on the wire;
//! * [`world`]: namespaces with hosts and appliances, and the real programs as processes in them.
//!
//! The tests themselves are in the folder `tests` of this package. They use the public faces of the
//! other crates only; what one module does is tested beside it.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a harness fails by panicking, as the tests do that it serves"
)]

pub mod appliance;
pub mod capture;
pub mod corpus;
pub mod describe;
pub mod gateway;
pub mod model;
pub mod notice;
pub mod packets;
pub mod scenario;
pub mod simulation;
pub mod tmux;
pub mod tshark;
pub mod world;
