//! See the package description.
#![forbid(unsafe_code)]
pub mod config;
pub mod source;
