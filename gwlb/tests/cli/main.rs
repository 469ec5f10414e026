//! The commands that talk to a running gateway, as a user runs them: a real `gwlb run` without
//! devices, which needs no privileges, and answers that a gateway gives only under load.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set up its case fails")]

mod commands;
mod documentation;
mod explain;
mod rig;
mod telling;
mod waits;
