//! The whole path, in namespaces, end to end with an appliance, beside four baselines.

use clap::Args;

use super::error::BenchError;
use super::{Context, Measured};

/// The whole path, in namespaces, end to end with an appliance, beside four baselines.
#[derive(Debug, Args)]
pub(super) struct PathArgs {}

/// Measures it.
pub(super) fn run(_arguments: &PathArgs, _context: &Context) -> Result<Measured, BenchError> {
    Err(BenchError::NotPossible("`gwlb bench path` is not in this build".to_owned()))
}
