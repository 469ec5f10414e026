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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::arbitrary::{self, OwnedOption};
    use crate::options::{OptionClass, OptionType};

    fn written(
        protocol: ProtocolType,
        vni: Vni,
        control: bool,
        options: &[OwnedOption],
    ) -> Vec<u8> {
        let options: Vec<_> = options.iter().map(OwnedOption::view).collect();
        let mut bytes = vec![0xff; MAX_LEN];
        let builder = HeaderBuilder::new(protocol).vni(vni).control(control).options(&options);
        let len = builder.write(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
        let parts =
            (arbitrary::protocol_type(), arbitrary::vni(), any::<bool>(), arbitrary::options());
        parts
            .prop_map(|(protocol, vni, control, options)| written(protocol, vni, control, &options))
    }

    /// What was read, written again, is what was received but for reserved bits and the C bit.
    fn check_against_writer(header: &Header<'_>) {
        let options: Vec<_> = header.options().collect();
        let mut again = vec![0; header.len()];
        let builder = HeaderBuilder::new(header.protocol())
            .vni(header.vni())
            .control(header.is_control())
            .options(&options);
        assert_eq!(builder.write(&mut again), Ok(header.len()));

        let mut expected = header.as_bytes().to_vec();
        expected[1] &= CONTROL | CRITICAL;
        expected[7] = 0;
        if !header.flags_agree() {
            expected[1] ^= CRITICAL;
        }
        let mut at = BASE_LEN;
        for option in &options {
            expected[at + 3] &= 0x1f;
            at += OPTION_HEADER_LEN + option.data.len();
        }
        assert_eq!(again, expected);
    }

    proptest! {
        #[test]
        fn reads_what_was_written(
            protocol in arbitrary::protocol_type(),
            vni in arbitrary::vni(),
            control: bool,
            options in arbitrary::options(),
            payload: Vec<u8>,
        ) {
            let mut bytes = written(protocol, vni, control, &options);
            let len = bytes.len();
            bytes.extend(&payload);
            let (header, rest) = Header::parse(&bytes).unwrap();
            prop_assert_eq!(header.protocol(), protocol);
            prop_assert_eq!(header.vni(), vni);
            prop_assert_eq!(header.is_control(), control);
            let critical = options.iter().any(|option| option.kind.is_critical());
            prop_assert_eq!(header.is_critical(), critical);
            prop_assert!(header.flags_agree());
            prop_assert!(header.options().eq(options.iter().map(OwnedOption::view)));
            prop_assert_eq!(header.as_bytes(), &bytes[..len]);
            prop_assert_eq!(rest, &payload);
        }

        #[test]
        fn noise_is_read_right_or_refused_with_a_reason(mut bytes: Vec<u8>, version_0: bool) {
            if let Some(first) = bytes.first_mut().filter(|_| version_0) {
                *first &= 0x07;
            }
            match Header::parse(&bytes) {
                Ok((header, payload)) => {
                    prop_assert_eq!(header.len() + payload.len(), bytes.len());
                    check_against_writer(&header);
                }
                Err(HeaderError::Truncated { needed, actual }) => {
                    prop_assert_eq!(actual, bytes.len());
                    prop_assert!(needed > actual);
                }
                Err(HeaderError::Version(version)) => prop_assert!((1..=3).contains(&version)),
                Err(HeaderError::Option { offset, needed, available }) => {
                    prop_assert!(needed > available);
                    prop_assert!(offset + available <= bytes.len());
                }
            }
        }

        #[test]
        fn a_changed_byte_is_read_right_or_refused(
            mut bytes in header_bytes(),
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            if let Ok((header, _)) = Header::parse(&bytes) {
                check_against_writer(&header);
            }
        }

        #[test]
        fn a_cut_header_is_truncated_at_every_byte(bytes in header_bytes()) {
            for actual in 0..bytes.len() {
                let needed = if actual < BASE_LEN { BASE_LEN } else { bytes.len() };
                let error = Header::parse(&bytes[..actual]).unwrap_err();
                prop_assert_eq!(error, HeaderError::Truncated { needed, actual });
            }
        }

        #[test]
        fn a_short_output_is_left_alone(options in arbitrary::options()) {
            let options: Vec<_> = options.iter().map(OwnedOption::view).collect();
            let builder = HeaderBuilder::new(ProtocolType::IPV4).options(&options);
            let needed = builder.write(&mut [0; MAX_LEN]).unwrap();
            for available in 0..needed {
                let mut out = vec![0xaa; available];
                let error = BuildError::Short(ShortBuffer { needed, available });
                prop_assert_eq!(builder.write(&mut out), Err(error));
                prop_assert!(out.iter().all(|byte| *byte == 0xaa));
            }
        }
    }

    #[rstest]
    #[case::version(&[0x40, 0, 8, 0, 0, 0, 0, 0], HeaderError::Version(1))]
    #[case::version_before_length(&[0xff, 0, 8, 0, 0, 0, 0, 0], HeaderError::Version(3))]
    #[case::no_options(
        &[0x01, 0, 8, 0, 0, 0, 0, 0],
        HeaderError::Truncated { needed: 12, actual: 8 }
    )]
    #[case::option_too_long(
        &[0x02, 0, 8, 0, 0, 0, 0, 0, 1, 8, 1, 2, 0, 0, 0, 0, 1, 2, 3, 4],
        HeaderError::Option { offset: 8, needed: 12, available: 8 }
    )]
    #[case::second_option_too_long(
        &[0x02, 0, 8, 0, 0, 0, 0, 0, 1, 8, 1, 0, 1, 8, 2, 0x1f],
        HeaderError::Option { offset: 12, needed: 128, available: 4 }
    )]
    fn refuses(#[case] bytes: &[u8], #[case] error: HeaderError) {
        assert_eq!(Header::parse(bytes).unwrap_err(), error);
    }

    /// RFC 8926 §3.4 and §3.5: reserved fields "MUST be ignored on receipt".
    #[test]
    fn ignores_reserved_bits() {
        let plain = [0x02, 0x80, 8, 0, 0, 1, 2, 0, 1, 8, 1, 1, 9, 9, 9, 9];
        let mut set = plain;
        set[1] |= 0x3f;
        set[7] = 0xff;
        set[11] |= 0xe0;
        for bytes in [plain, set] {
            let (header, payload) = Header::parse(&bytes).unwrap();
            assert!(header.is_control() && !header.is_critical() && payload.is_empty());
            assert_eq!(header.vni(), Vni::new(0x0102).unwrap());
            assert_eq!(header.options().next().unwrap().data, [9; 4]);
        }
    }

    #[test]
    fn tells_when_the_c_bit_disagrees() {
        let unset = [0x01, 0, 8, 0, 0, 0, 0, 0, 1, 8, 0x81, 0];
        let mut set = unset;
        set[1] |= CRITICAL;
        let mut idle = set;
        idle[10] = 1;
        for (bytes, agree) in [(unset, false), (set, true), (idle, false)] {
            assert_eq!(Header::parse(&bytes).unwrap().0.flags_agree(), agree);
        }
    }

    #[rstest]
    #[case::odd(&[3], BuildError::Option { index: 0, len: 3 })]
    #[case::long(&[4, 128], BuildError::Option { index: 1, len: 128 })]
    #[case::too_many(&[124, 124], BuildError::Options { len: 256 })]
    fn writes_no_invalid_options(#[case] lens: &[usize], #[case] error: BuildError) {
        let data = [0; 128];
        let option = |len: &usize| GeneveOption {
            class: OptionClass::AWS,
            kind: OptionType::new(1),
            data: &data[..*len],
        };
        let options: Vec<_> = lens.iter().map(option).collect();
        let mut out = [0xaa; 300];
        let builder = HeaderBuilder::new(ProtocolType::IPV4).options(&options);
        assert_eq!(builder.write(&mut out), Err(error));
        assert_eq!(out, [0xaa; 300]);
    }

    #[test]
    fn holds_the_longest_options() {
        let data = [7; MAX_OPTION_DATA];
        let option = |len| GeneveOption {
            class: OptionClass::new(0xffff),
            kind: OptionType::new(0x80),
            data: &data[..len],
        };
        let options = [option(MAX_OPTION_DATA), option(MAX_OPTION_DATA - 4)];
        let mut out = [0; MAX_LEN];
        let builder = HeaderBuilder::new(ProtocolType::IPV4).options(&options);
        assert_eq!(builder.write(&mut out), Ok(MAX_LEN));
        let (header, payload) = Header::parse(&out).unwrap();
        assert!(payload.is_empty() && header.is_critical());
        assert!(header.options().eq(options));
    }

    #[test]
    fn names_what_it_carries() {
        assert_eq!(ProtocolType::IPV6.to_string(), "IPv6");
        assert_eq!(ProtocolType::new(0x894f).to_string(), "NSH");
        assert_eq!(ProtocolType::new(0x1234).to_string(), "0x1234");
        assert_eq!(ProtocolType::IPV4.ip_version(), Some(IpVersion::V4));
        assert_eq!(ProtocolType::ETHERNET.ip_version(), None);
        assert_eq!(Vni::new(0x12_3456).unwrap().to_string(), "0x123456");
        assert_eq!(Vni::new(0x0100_0000), Err(VniError(0x0100_0000)));
        let error = HeaderError::Option { offset: 8, needed: 12, available: 4 };
        assert_eq!(
            error.to_string(),
            "Geneve option at byte 8 has 12 bytes, but the options end after 4"
        );
    }
}
