//! The Geneve header (RFC 8926 §3.4), read in place and written.
//!
//! [`Header::parse`] checks the structure: version, lengths, the walk over the options. It does not
//! judge what options mean, whether a control packet may be forwarded, or what the payload is.

use std::fmt;

use thiserror::Error;

use crate::buffer::ShortBuffer;
use crate::inner::IpVersion;
use crate::options::{self, GeneveOption, MAX_OPTION_DATA, OPTION_HEADER_LEN, Options};

/// Bytes of the header without options.
pub const BASE_LEN: usize = 8;
/// The most bytes of options in one header: six bits of length in units of four bytes.
pub const MAX_OPTIONS_LEN: usize = 63 * 4;
/// The longest header, options included.
pub const MAX_LEN: usize = BASE_LEN + MAX_OPTIONS_LEN;

/// A virtual network identifier: 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Vni(u32);

impl Vni {
    /// What the gateway load balancers send.
    pub const ZERO: Vni = Vni(0);
    /// The largest.
    pub const MAX: Vni = Vni(0x00ff_ffff);

    /// The identifier with this number.
    ///
    /// # Errors
    /// [`VniError`] if the number needs more than 24 bits.
    pub const fn new(vni: u32) -> Result<Vni, VniError> {
        if vni <= Vni::MAX.0 { Ok(Vni(vni)) } else { Err(VniError(vni)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    fn from_bytes([a, b, c]: [u8; 3]) -> Vni {
        Vni(u32::from_be_bytes([0, a, b, c]))
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

/// A number that is no [`Vni`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a VNI has 24 bits and is at most 0xffffff, found {0:#x}")]
pub struct VniError(pub u32);

/// What the payload is, as an `EtherType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolType(u16);

impl ProtocolType {
    /// An IPv4 packet.
    pub const IPV4: ProtocolType = ProtocolType(0x0800);
    /// An IPv6 packet.
    pub const IPV6: ProtocolType = ProtocolType(0x86dd);
    /// An Ethernet frame ("Trans Ether Bridging").
    pub const ETHERNET: ProtocolType = ProtocolType(0x6558);

    /// The type with this number; every number is a type.
    pub const fn new(ether_type: u16) -> ProtocolType {
        ProtocolType(ether_type)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The version of the IP packet that this type announces, if it announces one.
    pub const fn ip_version(self) -> Option<IpVersion> {
        match self {
            ProtocolType::IPV4 => Some(IpVersion::V4),
            ProtocolType::IPV6 => Some(IpVersion::V6),
            _ => None,
        }
    }
}

impl From<IpVersion> for ProtocolType {
    fn from(version: IpVersion) -> ProtocolType {
        match version {
            IpVersion::V4 => ProtocolType::IPV4,
            IpVersion::V6 => ProtocolType::IPV6,
        }
    }
}

impl fmt::Display for ProtocolType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0x0800 => "IPv4",
            0x86dd => "IPv6",
            0x6558 => "Ethernet",
            0x0806 => "ARP",
            0x8100 => "VLAN",
            0x8847 => "MPLS",
            0x880b => "PPP",
            0x894f => "NSH",
            other => return write!(f, "{other:#06x}"),
        };
        f.write_str(name)
    }
}

/// A Geneve header whose structure has been checked: a view on its bytes, options included.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    base: &'a [u8; BASE_LEN],
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header at the start of a UDP payload; returns it and what follows it.
    ///
    /// Reserved bits are ignored (RFC 8926 §3.4). So is a disagreement between the C bit and the
    /// options, which [`flags_agree`](Header::flags_agree) tells: the RFC makes the sender set C,
    /// and makes the receiver look at each option's own critical bit.
    ///
    /// # Errors
    /// [`HeaderError`] if the version is not 0, the bytes end within the header, or the options do
    /// not fill the length that the header states.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<(Header<'a>, &'a [u8]), HeaderError> {
        let actual = datagram.len();
        let Some(base) = datagram.first_chunk::<BASE_LEN>() else {
            return Err(HeaderError::Truncated { needed: BASE_LEN, actual });
        };
        // RFC 8926 §3.4: "Packets received by a tunnel endpoint with an unknown version MUST be
        // dropped."
        let version = base[0] >> 6;
        if version != 0 {
            return Err(HeaderError::Version(version));
        }
        let needed = BASE_LEN + usize::from(base[0] & 0x3f) * 4;
        let Some((bytes, payload)) = datagram.split_at_checked(needed) else {
            return Err(HeaderError::Truncated { needed, actual });
        };
        options::check(&bytes[BASE_LEN..]).map_err(|overrun| HeaderError::Option {
            offset: BASE_LEN + overrun.offset,
            needed: overrun.needed,
            available: overrun.available,
        })?;
        Ok((Header { base, bytes }, payload))
    }

    /// The O bit: the payload is a control message, which a tunnel endpoint must not forward
    /// (RFC 8926 §3.4).
    #[inline]
    pub fn is_control(&self) -> bool {
        self.base[1] & CONTROL != 0
    }

    /// The C bit: the sender says that at least one option is critical.
    #[inline]
    pub fn is_critical(&self) -> bool {
        self.base[1] & CRITICAL != 0
    }

    /// Whether the C bit is set exactly if an option is critical. Advisory: a header that
    /// disagrees with itself is still valid.
    pub fn flags_agree(&self) -> bool {
        self.is_critical() == self.options().any(|option| option.kind.is_critical())
    }

    /// What the payload is.
    #[inline]
    pub fn protocol(&self) -> ProtocolType {
        ProtocolType(u16::from_be_bytes([self.base[2], self.base[3]]))
    }

    /// The virtual network identifier.
    #[inline]
    pub fn vni(&self) -> Vni {
        Vni::from_bytes([self.base[4], self.base[5], self.base[6]])
    }

    /// The options, in the order in which they stand in the header.
    #[inline]
    pub fn options(&self) -> Options<'a> {
        Options::new(&self.bytes[BASE_LEN..])
    }

    /// The header as it was received, options and reserved bits included.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the header, options included: 8 to 260.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Why bytes are no Geneve header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The bytes end before the header does.
    #[error("Geneve header truncated: {needed} bytes needed, {actual} found")]
    Truncated {
        /// Bytes of the header, as far as it could be told.
        needed: usize,
        /// Bytes that there were.
        actual: usize,
    },
    /// A version other than 0.
    #[error("Geneve version {0} is unknown, expected 0")]
    Version(u8),
    /// An option reaches past the end of the options.
    #[error(
        "Geneve option at byte {offset} has {needed} bytes, but the options end after {available}"
    )]
    Option {
        /// Where the option starts, in bytes from the start of the header.
        offset: usize,
        /// Bytes of the option, its own header included.
        needed: usize,
        /// Bytes left for it.
        available: usize,
    },
}

/// Writes a Geneve header. The C bit follows from the options.
///
/// For a header with the tags of a GWLB use [`Dialect::write`](crate::Dialect::write).
#[derive(Debug, Clone, Copy)]
pub struct HeaderBuilder<'a> {
    protocol: ProtocolType,
    vni: Vni,
    control: bool,
    options: &'a [GeneveOption<'a>],
}

impl<'a> HeaderBuilder<'a> {
    /// A header for a payload of this type: VNI 0, O clear, no options.
    #[must_use]
    pub const fn new(protocol: ProtocolType) -> HeaderBuilder<'a> {
        HeaderBuilder { protocol, vni: Vni::ZERO, control: false, options: &[] }
    }

    /// Sets the virtual network identifier.
    #[must_use]
    pub const fn vni(self, vni: Vni) -> HeaderBuilder<'a> {
        HeaderBuilder { vni, ..self }
    }

    /// Sets or clears the O bit.
    #[must_use]
    pub const fn control(self, control: bool) -> HeaderBuilder<'a> {
        HeaderBuilder { control, ..self }
    }

    /// Sets the options, in wire order.
    #[must_use]
    pub const fn options(self, options: &'a [GeneveOption<'a>]) -> HeaderBuilder<'a> {
        HeaderBuilder { options, ..self }
    }

    /// Writes the header to the start of `out` and returns its length.
    ///
    /// # Errors
    /// [`BuildError`], with `out` untouched, if an option or all of them together are too long for
    /// the format, an option's length is no multiple of four, or `out` is too short.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BuildError> {
        let mut options_len = 0;
        for (index, option) in self.options.iter().enumerate() {
            let len = option.data.len();
            if len % 4 != 0 || len > MAX_OPTION_DATA {
                return Err(BuildError::Option { index, len });
            }
            options_len += OPTION_HEADER_LEN + len;
        }
        if options_len > MAX_OPTIONS_LEN {
            return Err(BuildError::Options { len: options_len });
        }
        let needed = BASE_LEN + options_len;
        let available = out.len();
        let Some(out) = out.get_mut(..needed) else {
            return Err(ShortBuffer { needed, available }.into());
        };

        // RFC 8926 §3.5: "If this bit is set in any option, then the 'C' bit in the Geneve base
        // header MUST also be set."
        let critical = self.options.iter().any(|option| option.kind.is_critical());
        let flags = if self.control { CONTROL } else { 0 } | if critical { CRITICAL } else { 0 };
        let (base, mut rest) = out.split_at_mut(BASE_LEN);
        base.copy_from_slice(&base_bytes(options_len, flags, self.protocol, self.vni));
        for option in self.options {
            let (head, tail) = rest.split_at_mut(OPTION_HEADER_LEN);
            head[..2].copy_from_slice(&option.class.get().to_be_bytes());
            head[2] = option.kind.get();
            head[3] = (option.data.len() / 4) as u8;
            let (data, tail) = tail.split_at_mut(option.data.len());
            data.copy_from_slice(option.data);
            rest = tail;
        }
        Ok(needed)
    }
}

/// Why a header could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The data of one option does not fit the format.
    #[error("option {index} has {len} bytes of data, expected a multiple of 4 up to 124")]
    Option {
        /// Which option, counted from 0.
        index: usize,
        /// Bytes of its data.
        len: usize,
    },
    /// The options together do not fit the format.
    #[error("the options have {len} bytes, a Geneve header holds at most 252")]
    Options {
        /// Bytes of all options with their headers.
        len: usize,
    },
    /// The header does not fit the buffer.
    #[error(transparent)]
    Short(#[from] ShortBuffer),
}

const CONTROL: u8 = 0x80;
const CRITICAL: u8 = 0x40;

/// The first eight bytes; `options_len` is at most [`MAX_OPTIONS_LEN`] and a multiple of four.
pub(crate) const fn base_bytes(
    options_len: usize,
    flags: u8,
    protocol: ProtocolType,
    vni: Vni,
) -> [u8; BASE_LEN] {
    let [high, low] = protocol.0.to_be_bytes();
    let [_, a, b, c] = vni.0.to_be_bytes();
    [(options_len / 4) as u8, flags, high, low, a, b, c, 0]
}
