//! A header of which only the tags are still to be filled in, for who writes one for every packet.

use super::{Dialect, Tag, Tags};
use crate::header::{BASE_LEN, ProtocolType};
use crate::options::OPTION_HEADER_LEN;

/// A dialect's header for one payload type, with all but the tags in place: what
/// [`Dialect::write`] would write, in a few stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; Template::MAX],
    len: u8,
    /// Where each tag's number begins: endpoint, attachment, cookie.
    at: [u8; 3],
}

impl Template {
    /// No header of any dialect is longer, in bytes.
    pub const MAX: usize = 64;

    pub(super) fn new(dialect: &Dialect, protocol: ProtocolType) -> Template {
        let mut bytes = [0; Template::MAX];
        // The constant is no shorter than any dialect's header, which a test holds.
        let len = dialect.write(&Tags::default(), protocol, &mut bytes).unwrap_or(0) as u8;
        let (mut at, mut end) = ([0; 3], BASE_LEN);
        for field in &dialect.fields {
            end += OPTION_HEADER_LEN + field.len;
            let (tag, len) = match field.tag {
                Tag::Endpoint => (0, 8),
                Tag::Attachment => (1, 8),
                Tag::Cookie => (2, 4),
            };
            at[tag] = (end - len) as u8;
        }
        Template { bytes, len, at }
    }

    /// Bytes of the header.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it is no header at all, which no dialect's is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the header with these tags; what follows its [`len`](Self::len) bytes is zero.
    #[inline]
    pub fn stamp(&self, tags: &Tags, bytes: &mut [u8; Template::MAX]) {
        *bytes = self.bytes;
        let [endpoint, attachment, cookie] = self.at;
        put(bytes, endpoint, tags.endpoint.to_be_bytes());
        if tags.attachment != 0 {
            put(bytes, attachment, tags.attachment.to_be_bytes());
        }
        put(bytes, cookie, tags.cookie.to_be_bytes());
    }
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8; Template::MAX], at: u8, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(usize::from(at)..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stamped_template_is_what_the_dialect_writes(
            dialect in prop::sample::select(Dialect::ALL), endpoint: u64, attachment: u64,
            cookie: u32, ether_type: u16,
        ) {
            let protocol = ProtocolType::new(ether_type);
            for attachment in [attachment, 0] {
                let tags = Tags { endpoint, attachment, cookie };
                let template = dialect.template(protocol);
                let (mut written, mut stamped) = ([0; Template::MAX], [1; Template::MAX]);
                prop_assert_eq!(dialect.write(&tags, protocol, &mut written), Ok(template.len()));
                template.stamp(&tags, &mut stamped);
                prop_assert_eq!(stamped, written);
                prop_assert!(!template.is_empty());
            }
        }
    }
}
