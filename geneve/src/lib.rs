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
    Fragment, IcmpErrorKind, Inner, InnerError, IpVersion, TcpFlags, Transport, protocol,
};
pub use options::{GeneveOption, OptionClass, OptionType, Options};

/// The UDP destination port of Geneve (RFC 8926 §3.3).
pub const PORT: u16 = 6081;
