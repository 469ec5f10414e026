//! The open gateway load balancer.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod runtime;
