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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where options start and how long their data is, as the RFC has it, or where the first one
    /// starts that does not fit: by an index that counts words.
    fn obvious(words: &[[u8; 4]]) -> Result<Vec<(usize, usize)>, usize> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let data = usize::from(words[at][3] % 32);
            if at + 1 + data > words.len() {
                return Err(at);
            }
            found.push((at, data));
            at += 1 + data;
        }
        Ok(found)
    }

    fn agree(words: &[[u8; 4]]) {
        let bytes = words.as_flattened();
        match (check(bytes), obvious(words)) {
            (Ok(()), Ok(expected)) => {
                let mut options = Options::new(bytes);
                for (at, data) in expected {
                    let option = options.next().unwrap();
                    let [high, low, kind, _] = words[at];
                    assert_eq!(option.class, OptionClass::new(u16::from_be_bytes([high, low])));
                    assert_eq!(option.kind, OptionType::new(kind));
                    assert_eq!(option.data, words[at + 1..=at + data].as_flattened());
                }
                assert_eq!(options.next(), None);
                assert!(options.as_bytes().is_empty());
            }
            (Err(overrun), Err(at)) => {
                assert_eq!(overrun.offset, at * 4);
                assert_eq!(overrun.available, bytes.len() - at * 4);
                assert_eq!(overrun.needed, 4 + usize::from(words[at][3] % 32) * 4);
                assert!(overrun.needed > overrun.available);
                // What fits before it is still given, and then nothing.
                assert_eq!(Options::new(bytes).map(|it| 1 + it.data.len() / 4).sum::<usize>(), at);
            }
            (found, expected) => panic!("{words:?}: {found:?}, expected {expected:?}"),
        }
    }

    /// Every length that any word can state if it is read as an option, in all options of up to
    /// four words: 1,082,401 of them.
    #[test]
    fn every_pattern_of_lengths_is_walked_as_the_rfc_says() {
        for words in 0..=4 {
            for pattern in 0..32_u32.pow(words) {
                let lens = (0..words).map(|word| pattern >> (5 * word) & 31);
                let words: Vec<[u8; 4]> =
                    (1..).zip(lens).map(|(n, len)| [n, n + 8, n + 16, len as u8]).collect();
                agree(&words);
            }
        }
    }

    /// The longest options: one option with every length, at every place, among options without
    /// data.
    #[test]
    fn every_length_at_every_place_is_walked_as_the_rfc_says() {
        for len in 0..32 {
            for at in 0..63 {
                for total in [at + 1, (at + 1 + len).clamp(1, 63), 63] {
                    let mut words = vec![[1, 2, 3, 0]; total];
                    words[at.min(total - 1)][3] = len as u8;
                    agree(&words);
                }
            }
        }
    }

    /// Every class, type and fourth byte, reserved bits included.
    #[test]
    fn every_byte_of_an_option_header_is_read() {
        for value in 0..=u16::MAX {
            let [high, low] = value.to_be_bytes();
            let critical = OptionType::new(high).is_critical();
            assert_eq!(critical, high >= 128);
            agree(&[[high, low, 3, 0]]);
            agree(&[[1, 2, high, low], [0; 4], [5, 6, 7, 0]]);
        }
    }

    /// Options that end within a word, which no header has, are refused where they end.
    #[test]
    fn options_that_end_within_a_header_are_refused() {
        for len in 1..4 {
            let overrun = check(&[0; 8][..4 + len]).unwrap_err();
            assert_eq!((overrun.offset, overrun.needed, overrun.available), (4, 4, len));
        }
    }
}
