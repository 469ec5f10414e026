//! An SDK appliance alone, fed by a generator.

use clap::Args;

use super::error::BenchError;
use super::{Context, Measured};

/// An SDK appliance alone, fed by a generator.
#[derive(Debug, Args)]
pub(super) struct SdkArgs {}

/// Measures it.
pub(super) fn run(_arguments: &SdkArgs, _context: &Context) -> Result<Measured, BenchError> {
    Err(BenchError::NotPossible("`gwlb bench sdk` is not in this build".to_owned()))
}
