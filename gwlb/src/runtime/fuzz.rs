//! Doors for fuzz harnesses to what reads bytes from outside and is private in the runtime.
//!
//! Only there with the feature `fuzz`, and no part of the crate's interface. Behind them is the
//! code that runs in a gateway, without its sockets.

use std::net::SocketAddr;

use super::prober::http;
use crate::config::HealthCheck;

pub use super::admin::fuzz::{AdminApi, Answer};

/// Whether a health check takes the bytes with which a target answers.
///
/// # Errors
/// Why it does not.
pub async fn health_answer(answer: &[u8], health: &HealthCheck) -> Result<(), String> {
    let target = SocketAddr::from(([192, 0, 2, 11], health.port.get()));
    let stream = tokio::io::join(answer, tokio::io::sink());
    http::exchange(stream, health, target).await.map_err(|error| error.to_string())
}
