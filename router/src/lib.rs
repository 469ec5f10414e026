//! The route-table engine: where a packet goes in a virtual private cloud, and why.
//!
//! A configuration file describes VPCs, subnets, internet gateways, route tables and Gateway Load
//! Balancer endpoints ([`config`]). [`Topology::build`] checks all of it at once, with the clouds'
//! rules, and either tells everything that is wrong, located in the file ([`source`]), or gives an
//! immutable [`Topology`]. From then on, [`Topology::lookup`] answers where a packet goes next,
//! without allocating, from any thread; [`Topology::explain`] and [`Topology::trace`] answer the
//! same for people.
//!
//! [`import`] makes such a file of what AWS says of a network that is there.
//!
//! [`plan`] tells what has to be done to make one network of another, in an order that endangers
//! nobody.
//!
//! This crate moves no packets and knows nothing of what stands behind an endpoint: `gwlb` does.
//!
//! ```
//! use router::source::Source;
//! use router::{Attachment, Entry, NextHop, Topology, config};
//!
//! let source = Source::new("one-zone.toml", r#"
//!     [[vpc]]
//!     name = "app"
//!     cidrs = ["10.0.0.0/16"]
//!
//!     [[subnet]]
//!     name = "app-a"
//!     vpc = "app"
//!     zone = "az1"
//!     cidrs = ["10.0.1.0/24"]
//!     route_table = "app-a"
//!
//!     [[subnet]]
//!     name = "gwlbe-a"
//!     vpc = "app"
//!     zone = "az1"
//!     cidrs = ["10.0.101.0/28"]
//!     route_table = "gwlbe-a"
//!
//!     [[internet_gateway]]
//!     name = "igw"
//!     vpc = "app"
//!     route_table = "igw"
//!
//!     [[route_table]]
//!     name = "igw"
//!     vpc = "app"
//!     routes = [{ destination = "10.0.1.0/24", endpoint = "vpce-a" }]
//!
//!     [[route_table]]
//!     name = "app-a"
//!     vpc = "app"
//!     routes = [{ destination = "0.0.0.0/0", endpoint = "vpce-a" }]
//!
//!     [[route_table]]
//!     name = "gwlbe-a"
//!     vpc = "app"
//!     routes = [{ destination = "0.0.0.0/0", internet_gateway = "igw" }]
//!
//!     [[endpoint]]
//!     name = "vpce-a"
//!     subnet = "gwlbe-a"
//!     service = "inspection"
//! "#);
//! let topology = Topology::build(&config::parse(&source)?, &source)?;
//! # let found = || -> Option<()> {
//! let igw = topology.gateway_by_name("igw")?;
//! let app = topology.subnet_by_name("app-a")?;
//! let vpce = topology.endpoint_by_name("vpce-a")?;
//! let (server, client) = ("10.0.1.11".parse().ok()?, "203.0.113.7".parse().ok()?);
//!
//! // In from the internet: the gateway table sends it to be inspected …
//! assert_eq!(topology.lookup(Entry::InternetGateway(igw), server), NextHop::Endpoint(vpce));
//! // … and when it comes back, the table of the endpoint's own subnet delivers it.
//! let delivered = NextHop::Deliver(Attachment::Subnet(app));
//! assert_eq!(topology.lookup(Entry::Endpoint(vpce), server), delivered);
//!
//! // The answer takes the same way out.
//! assert_eq!(topology.lookup(Entry::Subnet(app), client), NextHop::Endpoint(vpce));
//! let delivered = NextHop::Deliver(Attachment::InternetGateway(igw));
//! assert_eq!(topology.lookup(Entry::Endpoint(vpce), client), delivered);
//! # Some(()) };
//! # found().ok_or("a name is not found")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod failover;
pub mod import;
pub mod plan;
pub mod rules;
pub mod source;
mod space;
mod topology;
pub mod trace;
pub mod verify;

pub use topology::*;
pub use trace::Trace;
