//! Batch packet I/O on Linux: UDP with segmentation and receive offload, packet sockets for what
//! UDP refuses, TUN devices with the virtio-net header, in-memory and capture-file devices that
//! stand in for them, and the network namespaces, links, addresses, routes and counters that they
//! live in.
//!
//! This is the only crate of the workspace with `unsafe` code; everything above it is safe.
//!
//! ```
//! use std::io::IoSlice;
//!
//! use netio::udp::{Datagram, UdpConfig, UdpSocket};
//! use netio::{Device, Slot, poll::Poller};
//!
//! let bind = "127.0.0.1:0".parse()?;
//! let config = UdpConfig {
//!     bind,
//!     reuse_port: false,
//!     gro: true,
//!     dont_fragment: false,
//!     recv_buffer: 0,
//!     send_buffer: 0,
//! };
//! let (mut here, mut there) = (UdpSocket::bind(&config)?, UdpSocket::bind(&config)?);
//!
//! // Three datagrams, of 1000, 1000 and 500 bytes, by one system call.
//! let batch =
//!     Datagram { peer: there.local_addr(), segment_size: 1000, ..Datagram::default() };
//! here.send(&batch, &[IoSlice::new(&[7; 2500])])?;
//!
//! // And by one call they are received, where the kernel can do so.
//! let (mut poller, mut ready) = (Poller::new()?, Vec::new());
//! poller.add(&there, 0)?;
//! poller.wait(&mut ready, None)?;
//! let mut slots = [Slot::with_capacity(65_535)];
//! assert_eq!(there.recv(&mut slots)?, 1);
//! assert_eq!(slots[0].meta.peer, here.local_addr());
//! assert_eq!((slots[0].packet.len(), slots[0].meta.segment_size), (2500, 1000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![expect(unsafe_code, reason = "the system calls of batch I/O are wrapped here and nowhere else")]

mod bpf;
pub mod counters;
pub mod device;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod link;
pub mod mem;
pub mod memory;
pub mod netns;
pub mod offload;
pub mod packet;
pub mod pcap;
pub mod poll;
pub mod process;
pub mod tcp;
pub mod tun;
pub mod udp;

pub use device::{Device, Slot};
