//! The scenes, in the order of the play.

pub(super) mod death;
pub(super) mod drain;
pub(super) mod rebalance;
pub(super) mod registration;
pub(super) mod reload;
pub(super) mod reset;
pub(super) mod restart;
pub(super) mod steady;
