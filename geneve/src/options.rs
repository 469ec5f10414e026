//! Geneve options: type, length, value (RFC 8926 §3.5).
//!
//! [`Options`] walks the options of a header that [`Header::parse`](crate::Header::parse) has
//! checked. What an option means is not known here: see [`dialect`](crate::dialect).

use std::fmt;
use std::iter::FusedIterator;

/// Bytes of an option in front of its data.
pub const OPTION_HEADER_LEN: usize = 4;
/// The longest data of one option, in bytes: five bits of length in units of four bytes.
pub const MAX_OPTION_DATA: usize = 31 * 4;

/// The namespace that an option's type belongs to, assigned by IANA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionClass(u16);

impl OptionClass {
    /// The class that AWS uses, and Alibaba Cloud after it.
    pub const AWS: OptionClass = OptionClass(0x0108);
    /// The class that Tencent Cloud uses.
    pub const TENCENT: OptionClass = OptionClass(0x0167);
    /// The class that Google Cloud uses.
    pub const GOOGLE: OptionClass = OptionClass(0x0132);

    /// The class with this number; every number is a class.
    pub const fn new(class: u16) -> OptionClass {
        OptionClass(class)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for OptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// The type of an option within its class. The high bit says that it is critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionType(u8);

impl OptionType {
    /// The type with this number, its high bit included.
    pub const fn new(kind: u8) -> OptionType {
        OptionType(kind)
    }

    /// The number, its high bit included.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether a receiver that does not know this option must drop the packet.
    ///
    /// RFC 8926 §3.5: "If the receiving tunnel endpoint does not recognize the option and this bit
    /// is set, then the packet MUST be dropped."
    pub const fn is_critical(self) -> bool {
        self.0 & 0x80 != 0
    }
}

impl fmt::Display for OptionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// One option. Its three reserved bits are ignored on receipt (RFC 8926 §3.5) and written as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneveOption<'a> {
    /// Who defines the type.
    pub class: OptionClass,
    /// What it is, within the class.
    pub kind: OptionType,
    /// The value: a multiple of four bytes, 124 at most, possibly none.
    pub data: &'a [u8],
}

/// The options of a header, in the order in which they stand there.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// `bytes` are the options of a header, already walked by [`check`].
    pub(crate) fn new(bytes: &'a [u8]) -> Options<'a> {
        Options { rest: bytes }
    }

    /// The bytes of the options that are not yet taken.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = GeneveOption<'a>;

    #[inline]
    fn next(&mut self) -> Option<GeneveOption<'a>> {
        let (head, rest) = self.rest.split_first_chunk::<OPTION_HEADER_LEN>()?;
        let (data, rest) = rest.split_at_checked(data_len(*head))?;
        self.rest = rest;
        Some(GeneveOption {
            class: OptionClass(u16::from_be_bytes([head[0], head[1]])),
            kind: OptionType(head[2]),
            data,
        })
    }
}

impl FusedIterator for Options<'_> {}

/// An option that reaches past the end of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// Where the option starts, in bytes from the first option.
    pub(crate) offset: usize,
    /// Bytes of the option as its length field has it, with its header.
    pub(crate) needed: usize,
    /// Bytes that are left for it.
    pub(crate) available: usize,
}

/// Walks the options and checks that they fill `bytes` exactly.
///
/// RFC 8926 §3.5: "Packets in which the total length of all options is not equal to the 'Opt Len'
/// in the base header are invalid and MUST be silently dropped."
#[inline]
pub(crate) fn check(bytes: &[u8]) -> Result<(), Overrun> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let overrun =
            |needed| Overrun { offset: bytes.len() - rest.len(), needed, available: rest.len() };
        let Some(head) = rest.first_chunk::<OPTION_HEADER_LEN>() else {
            return Err(overrun(OPTION_HEADER_LEN));
        };
        let len = OPTION_HEADER_LEN + data_len(*head);
        match rest.get(len..) {
            Some(next) => rest = next,
            None => return Err(overrun(len)),
        }
    }
    Ok(())
}

/// RFC 8926 §3.5: "Length of the option, expressed in 4-byte multiples, excluding the option
/// header."
#[inline]
fn data_len(head: [u8; OPTION_HEADER_LEN]) -> usize {
    usize::from(head[3] & 0x1f) * 4
}
