//! What the gateway load balancers of the clouds put into their Geneve options, as data.
//!
//! A [`Dialect`] says which option class and types carry the endpoint, the attachment and the flow
//! cookie, and how long each is. Nothing else in the workspace knows an option number. A dialect
//! does not say what the values mean or whether a cookie is genuine.

mod template;

use thiserror::Error;

use crate::buffer::ShortBuffer;
use crate::header::{BASE_LEN, Header, ProtocolType, Vni, base_bytes};
use crate::inner::IpVersion;
use crate::options::{OPTION_HEADER_LEN, OptionClass, OptionType};

pub use template::Template;

/// The values that a GWLB sends with every packet and takes back from the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tags {
    /// The GWLB endpoint that the packet came through.
    pub endpoint: u64,
    /// The attachment (for example of a transit gateway) that it came through; 0 if none.
    pub attachment: u64,
    /// The flow cookie: the same for all packets of a flow, in both directions.
    pub cookie: u32,
}

/// One cloud's way to write [`Tags`] as options.
///
/// | dialect | class | endpoint | attachment | cookie | bytes over IPv4 |
/// |---|---|---|---|---|---|
/// | `aws` (Alibaba Cloud too) | 0x0108 | type 1, 8 B | type 2, 8 B | type 3, 4 B | 68 |
/// | `tencent` | 0x0167 | type 1, 8 B | type 2, 8 B | type 3, 4 B | 68 |
/// | `google` | 0x0132 | type 2, 16 B, the low 8 | type 3, 8 B | type 1, 4 B (the network id) | 76 |
///
/// Google's type 2 is wider than an endpoint id: the upper eight bytes are written as zero and
/// ignored when read. An appliance that must return them echoes the header's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    name: &'static str,
    class: OptionClass,
    /// In wire order.
    fields: [Field; 3],
}

/// An option that carries one of the tags, as a big-endian number at the end of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    kind: OptionType,
    /// Bytes of data: a multiple of four, no shorter than the tag.
    len: usize,
    tag: Tag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Endpoint,
    Attachment,
    Cookie,
}

impl Dialect {
    /// AWS Gateway Load Balancer; Alibaba Cloud's speaks the same.
    pub const AWS: Dialect = Dialect::same_as_aws("aws", OptionClass::AWS);

    /// Tencent Cloud: as AWS, with a class of its own.
    pub const TENCENT: Dialect = Dialect::same_as_aws("tencent", OptionClass::TENCENT);

    /// Google Cloud's network security integration.
    pub const GOOGLE: Dialect = Dialect {
        name: "google",
        class: OptionClass::GOOGLE,
        fields: [
            Field { kind: OptionType::new(1), len: 4, tag: Tag::Cookie },
            Field { kind: OptionType::new(2), len: 16, tag: Tag::Endpoint },
            Field { kind: OptionType::new(3), len: 8, tag: Tag::Attachment },
        ],
    };

    /// Every dialect there is.
    pub const ALL: &'static [Dialect] = &[Dialect::AWS, Dialect::TENCENT, Dialect::GOOGLE];

    /// The dialect with this name, as configuration files have it: `aws`, `tencent`, `google`.
    pub fn by_name(name: &str) -> Option<&'static Dialect> {
        Dialect::ALL.iter().find(|dialect| dialect.name == name)
    }

    /// The name, as configuration files have it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The class of the dialect's options.
    pub const fn class(&self) -> OptionClass {
        self.class
    }

    /// Bytes of the Geneve header with the dialect's options: 40 for AWS and Tencent.
    pub const fn header_len(&self) -> usize {
        BASE_LEN + self.options_len()
    }

    /// Bytes that encapsulation adds to a packet: outer IP header without options, UDP, Geneve.
    /// 68 for AWS over IPv4.
    pub const fn overhead(&self, outer: IpVersion) -> usize {
        outer.header_len() + crate::outer::UDP_LEN + self.header_len()
    }

    /// Writes the header to the start of `out` and returns its length,
    /// [`header_len`](Dialect::header_len): VNI 0, O and C clear, the options in the cloud's order.
    ///
    /// # Errors
    /// [`ShortBuffer`], with `out` untouched, if `out` is shorter than that.
    #[inline]
    pub fn write(
        &self,
        tags: &Tags,
        protocol: ProtocolType,
        out: &mut [u8],
    ) -> Result<usize, ShortBuffer> {
        let needed = self.header_len();
        let available = out.len();
        let Some(out) = out.get_mut(..needed) else {
            return Err(ShortBuffer { needed, available });
        };
        let (base, mut rest) = out.split_at_mut(BASE_LEN);
        base.copy_from_slice(&base_bytes(self.options_len(), 0, protocol, Vni::ZERO));
        for field in &self.fields {
            let (option, tail) = rest.split_at_mut(OPTION_HEADER_LEN + field.len);
            let (head, data) = option.split_at_mut(OPTION_HEADER_LEN);
            head[..2].copy_from_slice(&self.class.get().to_be_bytes());
            head[2] = field.kind.get();
            head[3] = (field.len / 4) as u8;
            match field.tag {
                Tag::Endpoint => put(data, &tags.endpoint.to_be_bytes()),
                Tag::Attachment => put(data, &tags.attachment.to_be_bytes()),
                Tag::Cookie => put(data, &tags.cookie.to_be_bytes()),
            }
            rest = tail;
        }
        Ok(needed)
    }

    /// The header for payload of this type with all but the tags in place, for who writes many.
    pub fn template(&self, protocol: ProtocolType) -> Template {
        Template::new(self, protocol)
    }

    /// Reads the tags, by type and never by order. Options that the dialect does not know are
    /// ignored, unless they are critical.
    ///
    /// What the base header says beyond its options is the caller's to judge:
    /// [`Header::is_control`], [`Header::protocol`], [`Header::vni`].
    ///
    /// # Errors
    /// [`DialectError`] if a critical option is unknown, or one of the dialect's own is missing,
    /// there twice, or has the wrong length.
    #[inline]
    pub fn read(&self, header: &Header<'_>) -> Result<Tags, DialectError> {
        let mut tags = Tags::default();
        let mut seen = [false; 3];
        for option in header.options() {
            let known = self.fields.iter().position(|field| field.kind == option.kind);
            let Some(index) = known.filter(|_| option.class == self.class) else {
                if option.kind.is_critical() {
                    return Err(DialectError::UnknownCritical {
                        class: option.class,
                        kind: option.kind,
                    });
                }
                continue;
            };
            let field = &self.fields[index];
            if option.data.len() != field.len {
                return Err(DialectError::Length {
                    kind: field.kind,
                    expected: field.len,
                    actual: option.data.len(),
                });
            }
            if std::mem::replace(&mut seen[index], true) {
                return Err(DialectError::Duplicate { kind: field.kind });
            }
            match field.tag {
                Tag::Endpoint => tags.endpoint = u64::from_be_bytes(take(option.data)),
                Tag::Attachment => tags.attachment = u64::from_be_bytes(take(option.data)),
                Tag::Cookie => tags.cookie = u32::from_be_bytes(take(option.data)),
            }
        }
        match seen.iter().position(|seen| !seen) {
            Some(index) => Err(DialectError::Missing { kind: self.fields[index].kind }),
            None => Ok(tags),
        }
    }

    /// Where the cookie begins in a header that [`read`](Dialect::read) can read, in bytes from the
    /// header's start.
    pub fn cookie_at(&self, header: &Header<'_>) -> Option<usize> {
        let field = self.fields.iter().find(|field| field.tag == Tag::Cookie)?;
        let mut options = header.options();
        while let Some(option) = options.next() {
            if option.class == self.class && option.kind == field.kind {
                let end = header.len() - options.as_bytes().len();
                return end.checked_sub(size_of::<u32>());
            }
        }
        None
    }

    const fn same_as_aws(name: &'static str, class: OptionClass) -> Dialect {
        Dialect {
            name,
            class,
            fields: [
                Field { kind: OptionType::new(1), len: 8, tag: Tag::Endpoint },
                Field { kind: OptionType::new(2), len: 8, tag: Tag::Attachment },
                Field { kind: OptionType::new(3), len: 4, tag: Tag::Cookie },
            ],
        }
    }

    const fn options_len(&self) -> usize {
        let [a, b, c] = &self.fields;
        3 * OPTION_HEADER_LEN + a.len + b.len + c.len
    }
}

/// Why a header's options do not carry the dialect's tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DialectError {
    /// An option that must not be ignored (RFC 8926 §3.5), and is not known.
    #[error("unknown critical option: class {class}, type {kind}")]
    UnknownCritical {
        /// Its class.
        class: OptionClass,
        /// Its type.
        kind: OptionType,
    },
    /// An option of the dialect is not there.
    #[error("option of type {kind} is missing")]
    Missing {
        /// Its type.
        kind: OptionType,
    },
    /// An option of the dialect is there twice, so that its value is not known.
    #[error("option of type {kind} is there more than once")]
    Duplicate {
        /// Its type.
        kind: OptionType,
    },
    /// An option of the dialect has another length.
    #[error("option of type {kind} has {actual} bytes of data, expected {expected}")]
    Length {
        /// Its type.
        kind: OptionType,
        /// Bytes that the dialect has.
        expected: usize,
        /// Bytes found.
        actual: usize,
    },
}

/// Writes `value` to the end of `data`, zeros in front of it.
#[inline]
fn put<const N: usize>(data: &mut [u8], value: &[u8; N]) {
    data.fill(0);
    if let Some(last) = data.last_chunk_mut::<N>() {
        *last = *value;
    }
}

/// The last `N` bytes of `data`, which is no shorter by its dialect.
#[inline]
fn take<const N: usize>(data: &[u8]) -> [u8; N] {
    data.last_chunk::<N>().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::arbitrary::{self, OwnedOption};
    use crate::header::{HeaderBuilder, MAX_LEN};
    use crate::options::GeneveOption;

    const TAGS: Tags = Tags {
        endpoint: 0x0123_4567_89ab_cdef,
        attachment: 0xfedc_ba98_7654_3210,
        cookie: 0xdead_beef,
    };

    fn written(dialect: &Dialect, tags: &Tags) -> Vec<u8> {
        let mut bytes = vec![0xff; dialect.header_len()];
        assert_eq!(dialect.write(tags, ProtocolType::IPV4, &mut bytes), Ok(bytes.len()));
        bytes
    }

    fn options_of(header: &[u8]) -> Vec<OwnedOption> {
        let (header, _) = Header::parse(header).unwrap();
        let owned = |option: GeneveOption<'_>| OwnedOption {
            class: option.class,
            kind: option.kind,
            data: option.data.to_vec(),
        };
        header.options().map(owned).collect()
    }

    fn read_options(dialect: &Dialect, options: &[OwnedOption]) -> Result<Tags, DialectError> {
        let options: Vec<_> = options.iter().map(OwnedOption::view).collect();
        let mut bytes = [0; MAX_LEN];
        let len = HeaderBuilder::new(ProtocolType::IPV4).options(&options).write(&mut bytes);
        dialect.read(&Header::parse(&bytes[..len.unwrap()]).unwrap().0)
    }

    #[rstest]
    #[case(
        Dialect::AWS,
        "0800080000000000 01080102 0123456789abcdef 01080202 fedcba9876543210 01080301 deadbeef"
    )]
    #[case(
        Dialect::TENCENT,
        "0800080000000000 01670102 0123456789abcdef 01670202 fedcba9876543210 01670301 deadbeef"
    )]
    #[case(
        Dialect::GOOGLE,
        "0a00080000000000 01320101 deadbeef 01320204 00000000000000000123456789abcdef \
         01320302 fedcba9876543210"
    )]
    fn writes_what_the_cloud_writes(#[case] dialect: Dialect, #[case] hex: &str) {
        let hex: String = hex.split_whitespace().collect();
        let expected = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
        assert_eq!(Ok(written(&dialect, &TAGS)), expected.collect());
    }

    #[test]
    fn knows_its_length() {
        let lengths = Dialect::ALL.iter().map(|dialect| {
            let over = |version| dialect.overhead(version);
            (dialect.name(), dialect.header_len(), over(IpVersion::V4), over(IpVersion::V6))
        });
        assert!(lengths.eq([("aws", 40, 68, 88), ("tencent", 40, 68, 88), ("google", 48, 76, 96)]));
    }

    #[test]
    fn is_found_by_name() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::by_name(dialect.name()), Some(dialect));
        }
        assert_eq!(Dialect::by_name("AWS"), None);
    }

    proptest! {
        #[test]
        fn reads_what_was_written(
            dialect in arbitrary::dialect(),
            tags in arbitrary::tags(),
            protocol in arbitrary::protocol_type(),
        ) {
            let mut bytes = [0xff; MAX_LEN];
            let len = dialect.write(&tags, protocol, &mut bytes).unwrap();
            let (header, payload) = Header::parse(&bytes[..len]).unwrap();
            prop_assert_eq!(dialect.read(&header), Ok(tags));
            prop_assert_eq!(header.protocol(), protocol);
            prop_assert_eq!(header.vni(), Vni::ZERO);
            prop_assert!(!header.is_control() && !header.is_critical() && payload.is_empty());
        }

        #[test]
        fn reads_options_in_any_order_among_others(
            (dialect, tags, options) in (
                arbitrary::dialect(),
                arbitrary::tags(),
                prop::collection::vec(any::<(u16, u8)>(), 0..5),
            ).prop_flat_map(|(dialect, tags, others)| {
                let mut options = options_of(&written(dialect, &tags));
                for (class, kind) in others {
                    let own = class == dialect.class().get();
                    options.push(OwnedOption {
                        class: OptionClass::new(class),
                        // Not critical, and no type of the dialect.
                        kind: OptionType::new(kind & 0x7f | if own { 0x40 } else { 0 }),
                        data: vec![kind; 4],
                    });
                }
                (Just(dialect), Just(tags), Just(options).prop_shuffle())
            }),
            other: u32,
        ) {
            prop_assert_eq!(read_options(dialect, &options), Ok(tags));

            // Where the cookie is said to be, another one can be written.
            let mut bytes = [0; MAX_LEN];
            let options: Vec<_> = options.iter().map(OwnedOption::view).collect();
            HeaderBuilder::new(ProtocolType::IPV4).options(&options).write(&mut bytes).unwrap();
            let at = dialect.cookie_at(&Header::parse(&bytes).unwrap().0).unwrap();
            bytes[at..at + 4].copy_from_slice(&other.to_be_bytes());
            let read = dialect.read(&Header::parse(&bytes).unwrap().0);
            prop_assert_eq!(read, Ok(Tags { cookie: other, ..tags }));
        }

        #[test]
        fn an_unknown_critical_option_is_named(
            dialect in arbitrary::dialect(),
            class: u16,
            kind in 0x80..=0xff_u8,
            at in 0..=3_usize,
        ) {
            let (class, kind) = (OptionClass::new(class), OptionType::new(kind));
            let mut options = options_of(&written(dialect, &TAGS));
            options.insert(at, OwnedOption { class, kind, data: Vec::new() });
            let error = DialectError::UnknownCritical { class, kind };
            prop_assert_eq!(read_options(dialect, &options), Err(error));
        }

        #[test]
        fn noise_is_refused_with_a_reason(
            dialect in arbitrary::dialect(),
            options in arbitrary::options(),
        ) {
            let complete = [1, 2, 3].iter().all(|kind| {
                options.iter().any(|option| option.kind == OptionType::new(*kind))
            });
            let result = read_options(dialect, &options);
            prop_assert!(complete || result.is_err_and(|error| !error.to_string().is_empty()));
        }

        #[test]
        fn a_changed_byte_changes_its_tag_or_is_noticed(
            dialect in arbitrary::dialect(),
            tags in arbitrary::tags(),
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let mut bytes = written(dialect, &tags);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            if let Ok((header, _)) = Header::parse(&bytes) {
                let ignored = at < BASE_LEN // base header
                    || at % 4 == 3 && change.trailing_zeros() >= 5 // reserved bits, if it is a length
                    || *dialect == Dialect::GOOGLE && (20..28).contains(&at); // upper half
                prop_assert!(ignored || dialect.read(&header) != Ok(tags));
            }
        }
    }

    #[test]
    fn a_short_output_is_left_alone() {
        for dialect in Dialect::ALL {
            for available in 0..dialect.header_len() {
                let mut out = vec![0xaa; available];
                let error = ShortBuffer { needed: dialect.header_len(), available };
                assert_eq!(dialect.write(&TAGS, ProtocolType::IPV6, &mut out), Err(error));
                assert!(out.iter().all(|byte| *byte == 0xaa));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for dialect in Dialect::ALL {
            let options = options_of(&written(dialect, &TAGS));
            for index in 0..3 {
                let kind = options[index].kind;

                let mut missing = options.clone();
                missing.remove(index);
                assert_eq!(read_options(dialect, &missing), Err(DialectError::Missing { kind }));

                let mut twice = options.clone();
                twice.push(options[index].clone());
                assert_eq!(read_options(dialect, &twice), Err(DialectError::Duplicate { kind }));

                let mut long = options.clone();
                let expected = long[index].data.len();
                long[index].data.extend([0; 4]);
                let error = DialectError::Length { kind, expected, actual: expected + 4 };
                assert_eq!(read_options(dialect, &long), Err(error));

                let mut foreign = options.clone();
                foreign[index].class = OptionClass::new(0x0100);
                assert_eq!(read_options(dialect, &foreign), Err(DialectError::Missing { kind }));
            }
        }
    }

    #[test]
    fn dialects_do_not_mix() {
        let aws = written(&Dialect::AWS, &TAGS);
        let (header, _) = Header::parse(&aws).unwrap();
        let missing = DialectError::Missing { kind: OptionType::new(1) };
        assert_eq!(Dialect::TENCENT.read(&header), Err(missing));
        assert_eq!(missing.to_string(), "option of type 0x01 is missing");
    }

    #[test]
    fn the_upper_half_of_a_wide_endpoint_is_ignored() {
        let mut bytes = written(&Dialect::GOOGLE, &TAGS);
        bytes[20..28].fill(0xff);
        assert_eq!(Dialect::GOOGLE.read(&Header::parse(&bytes).unwrap().0), Ok(TAGS));
    }
}
