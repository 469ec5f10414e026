//! Geneve (RFC 8926) as the gateway load balancers of the public clouds speak it.
//!
//! The crate is pure: bytes in, values out. It does no I/O, reads no clock, keeps no state between
//! calls, never panics on any input, and allocates only where a [`PacketBuf`] is made. It holds
//!
//! * the Geneve [`Header`] and its [`Options`], complete and strict about lengths;
//! * the GWLB option [`Dialect`]s, as data: which option carries the endpoint, the attachment and
//!   the flow cookie;
//! * [`Inner`], the validated IP packet that travels inside, with [`FlowKey`] and [`CanonicalKey`];
//! * [`PacketBuf`], a buffer with headroom, so that encapsulation copies no payload;
//! * [`outer`] IPv4 or IPv6 and UDP headers, and Internet [`checksum`]s.
//!
//! A packet goes out to an appliance and comes back:
//!
//! ```
//! use geneve::{Dialect, Header, Inner, PacketBuf, Tags};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let received = [
//! #     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 1, 11, 198, 51, 100, 7, // IPv4
//! #     0x30, 0x39, 0, 53, 0, 8, 0, 0, // UDP, port 12345 to 53
//! # ];
//! let mut packet = PacketBuf::from_slice(&received);
//! let inner = Inner::parse(&packet)?;
//! let flow = inner.flow_key().canonical(); // the same for packets the other way
//! assert_eq!(flow.to_string(), "protocol 17 10.0.1.11:12345 <> 198.51.100.7:53");
//!
//! // Encapsulate: the header goes into the headroom, the packet stays where it is.
//! let dialect = &Dialect::AWS;
//! let tags = Tags { endpoint: 0x0123_4567_89ab_cdef, attachment: 0, cookie: 0xcafe_f00d };
//! let header = packet.prepend(dialect.header_len()).ok_or("no headroom")?;
//! dialect.write(&tags, inner.version.into(), header)?;
//!
//! // Decapsulate what the appliance echoed.
//! let (header, payload) = Header::parse(&packet)?;
//! assert_eq!(dialect.read(&header)?, tags);
//! assert_eq!(payload, received);
//! let header_len = header.len();
//! packet.strip(header_len);
//! assert_eq!(packet.bytes(), received);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "proptest"))]
pub mod arbitrary;
pub mod buffer;
pub mod checksum;
pub mod dialect;
pub mod flow;
pub mod header;
pub mod inner;
pub mod options;
pub mod outer;

pub use buffer::{HEADROOM, PacketBuf, ShortBuffer};
pub use dialect::{Dialect, DialectError, Tags};
pub use flow::{CanonicalKey, FlowKey, MixedVersions, Stickiness};
pub use header::{BuildError, Header, HeaderBuilder, HeaderError, ProtocolType, Vni, VniError};
pub use inner::{
    Fragment, IcmpErrorKind, Inner, InnerError, IpVersion, TcpFlags, Transport, flow_of_start,
    protocol,
};
pub use options::{GeneveOption, OptionClass, OptionType, Options};

/// The UDP destination port of Geneve (RFC 8926 §3.3).
pub const PORT: u16 = 6081;
