//! Batch packet I/O on Linux: UDP with segmentation and receive offload, TUN devices with the
//! virtio-net header, in-memory and capture-file devices that stand in for them, and the network
//! namespaces, links, addresses and routes that they live in.
//!
//! This is the only crate of the workspace with `unsafe` code; everything above it is safe.
#![expect(unsafe_code, reason = "the system calls of batch I/O are wrapped here and nowhere else")]

pub mod device;
pub mod link;
pub mod memory;
pub mod netns;
pub mod offload;
pub mod pcap;
pub mod poll;
pub mod process;
pub mod tun;
pub mod udp;

pub use device::{Device, Slot};
