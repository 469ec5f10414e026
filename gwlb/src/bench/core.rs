//! The data plane alone, in memory, beside a memcpy.

use clap::Args;

use super::error::BenchError;
use super::{Context, Measured};

/// The data plane alone, in memory, beside a memcpy.
#[derive(Debug, Args)]
pub(super) struct CoreArgs {}

/// Measures it.
pub(super) fn run(_arguments: &CoreArgs, _context: &Context) -> Result<Measured, BenchError> {
    Err(BenchError::NotPossible("`gwlb bench core` is not in this build".to_owned()))
}
