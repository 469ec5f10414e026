//! Sample appliances for gateway load balancers, each a small program on the appliance SDK.
//!
//! * [`passthrough`] lets everything through;
//! * [`firewall`] lets flows through by rules;
//! * [`ids`] looks for byte patterns and tells, or blocks;
//! * [`mirror`] copies what passes to a capture file;
//! * `handoff` (a cargo feature, on by default) gives packets to the kernel, or any program behind a TUN device.
//!
//! They are the `nva-sample` command ([`cli`]), and examples of how to write an appliance. As
//! firewall or IDS they are honest about what they do, which is little; each module says what.
#![forbid(unsafe_code)]

mod aside;
pub mod cli;
pub mod clock;
pub mod firewall;
#[cfg(feature = "handoff")]
pub mod handoff;
pub mod ids;
pub mod mirror;
pub mod passthrough;
pub mod problem;
pub mod report;
