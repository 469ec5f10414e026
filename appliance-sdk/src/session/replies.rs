//! What a session wants to have sent, as data.

use std::ops::Range;

use crate::route::Route;
use crate::stats::Count;

/// What is to be sent, in order. It is kept and cleared by the caller, so that it need not be
/// allocated again.
#[derive(Debug, Default)]
pub struct Replies {
    replies: Vec<Reply>,
}

/// One thing to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// From where, to where.
    pub route: Route,
    /// What.
    pub content: Content,
    /// The inner packets in it.
    pub count: Count,
}

/// The bytes of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A stretch of the buffer given to [`Session::handle`](super::Session::handle), unchanged:
    /// datagrams of `segment_size` bytes, of which the last may be shorter.
    Unchanged {
        /// Where in the buffer.
        range: Range<usize>,
        /// Bytes per datagram. At least as much as the range is long for a single one.
        segment_size: usize,
    },
    /// One datagram that the appliance rewrote or made.
    Written(Vec<u8>),
}

/// `UDP_SEGMENT` takes at most so many datagrams in one call.
const MAX_RUN: u64 = netio::udp::MAX_GSO_SEGMENTS as u64;

impl Replies {
    /// Nothing to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// The replies, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Reply> {
        self.replies.iter()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Forgets everything and keeps the room.
    pub fn clear(&mut self) {
        self.replies.clear();
    }

    /// Takes the replies out, in order, and keeps the room.
    pub fn drain(&mut self) -> impl Iterator<Item = Reply> {
        self.replies.drain(..)
    }

    /// Adds a datagram that goes back as it came: to the run before it, if it continues that one.
    ///
    /// Datagrams of one buffer have one route and one size. The first of a buffer continues
    /// nothing.
    pub(crate) fn push_unchanged(
        &mut self,
        route: &Route,
        datagram: Range<usize>,
        segment_size: usize,
        inner_bytes: usize,
    ) {
        if datagram.start > 0
            && let Some(Reply { content: Content::Unchanged { range, .. }, count, .. }) =
                self.replies.last_mut()
            && range.end == datagram.start
            && count.packets < MAX_RUN
        {
            range.end = datagram.end;
            count.add(inner_bytes);
            return;
        }
        self.replies.push(Reply {
            route: *route,
            content: Content::Unchanged { range: datagram, segment_size },
            count: Count { packets: 1, bytes: inner_bytes as u64 },
        });
    }

    pub(crate) fn push_written(&mut self, route: Route, datagram: Vec<u8>, count: Count) {
        self.replies.push(Reply { route, content: Content::Written(datagram), count });
    }
}

impl<'a> IntoIterator for &'a Replies {
    type Item = &'a Reply;
    type IntoIter = std::slice::Iter<'a, Reply>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            source: "192.0.2.11:5000".parse().unwrap(),
            destination: "192.0.2.1:6081".parse().unwrap(),
            tos: 0,
        }
    }

    fn ranges(replies: &Replies) -> Vec<Range<usize>> {
        replies
            .iter()
            .map(|reply| match &reply.content {
                Content::Unchanged { range, .. } => range.clone(),
                Content::Written(_) => 0..0,
            })
            .collect()
    }

    #[test]
    fn neighbours_become_a_run_and_gaps_end_it() {
        let mut replies = Replies::new();
        replies.push_unchanged(&route(), 0..100, 100, 60);
        replies.push_unchanged(&route(), 100..200, 100, 60);
        replies.push_unchanged(&route(), 300..350, 100, 10);
        assert_eq!(ranges(&replies), [0..200, 300..350]);
        assert_eq!(replies.iter().next().unwrap().count, Count { packets: 2, bytes: 120 });
    }

    #[test]
    fn something_written_between_ends_a_run() {
        let mut replies = Replies::new();
        replies.push_unchanged(&route(), 0..100, 100, 60);
        replies.push_written(route(), vec![1], Count { packets: 1, bytes: 1 });
        replies.push_unchanged(&route(), 100..200, 100, 60);
        assert_eq!(ranges(&replies), [0..100, 0..0, 100..200]);
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_takes() {
        let mut replies = Replies::new();
        for n in 0..70 {
            replies.push_unchanged(&route(), n * 10..(n + 1) * 10, 10, 5);
        }
        assert_eq!(ranges(&replies), [0..640, 640..700]);
    }
}
