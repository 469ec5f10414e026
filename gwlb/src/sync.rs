//! What threads share is made of these: the real things, or, under the feature `loom`, stand-ins
//! with which a model checker goes through every order in which threads can run and through every
//! value that a weakly ordered load may give.
//!
//! So it is the code itself that is checked and not a copy of it. The stand-ins work inside of a
//! model only; nothing else runs in a build with that feature.

#[cfg(not(feature = "loom"))]
mod real {
    use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};

    pub(crate) use arc_swap::ArcSwap;
    pub(crate) use crossbeam::queue::ArrayQueue;

    /// What one thread remembers of an [`ArcSwap`].
    pub(crate) type Cache<'a, T> = arc_swap::Cache<&'a ArcSwap<T>, Arc<T>>;
}
#[cfg(not(feature = "loom"))]
pub(crate) use real::*;

#[cfg(feature = "loom")]
mod model;
#[cfg(feature = "loom")]
pub(crate) use model::*;
