//! One harness for every kind of bytes that come from outside, each of them property test and fuzz
//! target.
//!
//! A harness is a test like any other, made of a `fuzz!` and a function from bytes to assertions.
//! `cargo test` replays the inputs that were kept (`__fuzz__/HARNESS/crashes` and `…/corpus`) and
//! some thousand that are made from them, always the same; built with `--cfg fuzzing` the same
//! functions are driven by libFuzzer, AFL or honggfuzz. `docs/fuzzing.md` has the table of all, and
//! how to run them.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a harness fails by panicking, and so do its helpers"
)]

mod engine;
mod input;
mod seeds;

mod admin;
mod appliances;
mod config;
mod fragments;
mod gateway;
mod kernel;
mod offload;
mod pcap;
mod probes;
mod session;
mod wire;
