//! The open gateway load balancer.
#![forbid(unsafe_code)]

pub mod config;
pub mod dataplane;
