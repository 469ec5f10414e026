//! What the gateway load balancers of the clouds put into their Geneve options, as data.
//!
//! A [`Dialect`] says which option class and types carry the endpoint, the attachment and the flow
//! cookie, and how long each is. Nothing else in the workspace knows an option number. A dialect
//! does not say what the values mean or whether a cookie is genuine.

use thiserror::Error;

use crate::buffer::ShortBuffer;
use crate::header::{BASE_LEN, Header, ProtocolType, Vni, base_bytes};
use crate::inner::IpVersion;
use crate::options::{OPTION_HEADER_LEN, OptionClass, OptionType};

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
