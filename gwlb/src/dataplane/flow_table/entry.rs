//! A flow as it lies in the table: eight words, one cache line.
//!
//! | word | bits | what |
//! |---|---|---|
//! | 0 | 56–63 | how far the TCP connection is, 255 if none is followed |
//! | | 48–55 | the source port's index |
//! | | 0–47 | the first word of the tuple; never 0 but in a vacant place |
//! | 1–4 | | the tuple's other words |
//! | 5 | | the endpoint's id on the wire |
//! | 6 | | the deadline, in nanoseconds since the table was made |
//! | 7 | 32–63 | the target's slot; all ones: nobody inspects the flow |
//! | | 0–31 | the cookie; 0 if it is not known |

use geneve::flow::CanonicalKey;
use geneve::inner::IpVersion;

use super::{Flow, FlowId, Inspector, Placement};
use crate::dataplane::snapshot::TargetSlot;
use crate::dataplane::tcp_state::TcpState;

/// A flow, or a vacant place.
pub(super) type Words = [u64; 8];

/// No cookie is kept. One in four thousand million real ones looks like this, and is made anew each
/// time.
pub(super) const NO_COOKIE: u32 = 0;

const TCP: u32 = 56;
const PORT: u32 = 48;
const TUPLE: u64 = (1 << PORT) - 1;
const NOT_FOLLOWED: u8 = u8::MAX;
const BYPASS: u32 = u32::MAX;
const DEADLINE: usize = 6;
const TARGET: usize = 7;

/// The words that identify a flow.
#[inline]
pub(super) fn identity(id: &FlowId) -> [u64; 6] {
    let mut identity = [id.endpoint; 6];
    identity[..5].copy_from_slice(&id.tuple.to_words());
    identity
}

/// Whether the place has the flow with these words.
#[inline]
pub(super) fn is_of(words: &Words, identity: &[u64; 6]) -> bool {
    // All at once: they are in one cache line, and one branch is cheaper than six.
    let mut differ = (words[0] & TUPLE) ^ identity[0];
    for (word, wanted) in words[1..6].iter().zip(&identity[1..]) {
        differ |= word ^ wanted;
    }
    differ == 0
}

/// Whether the place has this flow, of this IP version, and its connection is so far.
#[inline]
pub(super) fn is_at(
    words: &Words,
    (tuple, version): (&CanonicalKey, IpVersion),
    endpoint: u64,
    tcp: Option<TcpState>,
) -> bool {
    debug_assert_eq!(version, tuple.version(), "{tuple}");
    let tcp = state(tcp) << TCP;
    let [first, others @ ..] = tuple.as_words();
    let mut differ = words[0] & !(0xff << PORT) ^ (first | tcp) | words[5] ^ endpoint;
    // Those of IPv4 differ in the first two, if at all.
    let many = if version == IpVersion::V4 { 1 } else { others.len() };
    for (word, wanted) in words[1..].iter().zip(&others[..many]) {
        differ |= word ^ wanted;
    }
    differ == 0
}

/// A flow with these words and this cookie.
#[inline]
pub(super) fn new(
    [tuple, a, b, c, d, endpoint]: &[u64; 6],
    tcp: Option<TcpState>,
    placement: Placement,
    deadline: u64,
    cookie: u32,
) -> Words {
    debug_assert!(*tuple <= TUPLE, "{tuple:#x} has no room for what stands above it");
    let first = tuple | state(tcp) << TCP | u64::from(placement.port) << PORT;
    let last = u64::from(slot(placement.inspector)) << 32 | u64::from(cookie);
    [first, *a, *b, *c, *d, *endpoint, deadline, last]
}

/// Puts a flow in the place, without a cookie.
pub(super) fn write(words: &mut Words, flow: &Flow, deadline: u64) {
    *words = new(&identity(&flow.id), flow.tcp, flow.placement, deadline, NO_COOKIE);
}

/// Leaves the place vacant.
pub(super) fn vacate(words: &mut Words) {
    *words = [0; 8];
}

/// Whether no flow is in the place.
#[inline]
pub(super) fn is_vacant(words: &Words) -> bool {
    words[0] & TUPLE == 0
}

#[inline]
pub(super) fn id(words: &Words) -> FlowId {
    let [first, b, c, d, e, endpoint, ..] = *words;
    FlowId { endpoint, tuple: CanonicalKey::from_words([first & TUPLE, b, c, d, e]) }
}

#[inline]
pub(super) fn tcp(words: &Words) -> Option<TcpState> {
    let bits = (words[0] >> TCP) as u8;
    (bits != NOT_FOLLOWED).then(|| TcpState::from_bits(bits))
}

#[inline]
pub(super) fn set_tcp(words: &mut Words, tcp: Option<TcpState>) {
    words[0] = words[0] & ((1 << TCP) - 1) | state(tcp) << TCP;
}

/// How far a connection is, as it lies here.
#[inline]
fn state(tcp: Option<TcpState>) -> u64 {
    tcp.map_or(NOT_FOLLOWED, TcpState::to_bits).into()
}

#[inline]
pub(super) fn placement(words: &Words) -> Placement {
    let inspector = match target(words) {
        TargetSlot(BYPASS) => Inspector::Bypass,
        slot => Inspector::Target(slot),
    };
    Placement { inspector, port: port(words) }
}

/// Who inspects a flow, as it lies here.
#[inline]
fn slot(inspector: Inspector) -> u32 {
    match inspector {
        Inspector::Target(slot) => slot.0,
        Inspector::Bypass => BYPASS,
    }
}

/// The target of a flow that goes to one.
#[inline]
pub(super) fn target(words: &Words) -> TargetSlot {
    TargetSlot((words[TARGET] >> 32) as u32)
}

#[inline]
pub(super) fn port(words: &Words) -> u8 {
    (words[0] >> PORT) as u8
}

/// Places the flow, and forgets the cookie, which is of another target.
#[inline]
pub(super) fn set_placement(words: &mut Words, placement: Placement) {
    words[TARGET] = u64::from(slot(placement.inspector)) << 32 | u64::from(NO_COOKIE);
    words[0] = words[0] & !(0xff << PORT) | u64::from(placement.port) << PORT;
}

#[inline]
pub(super) fn deadline(words: &Words) -> u64 {
    words[DEADLINE]
}

#[inline]
pub(super) fn set_deadline(words: &mut Words, deadline: u64) {
    words[DEADLINE] = deadline;
}

#[inline]
pub(super) fn cookie(words: &Words) -> u32 {
    words[TARGET] as u32
}

#[inline]
pub(super) fn set_cookie(words: &mut Words, cookie: u32) {
    words[TARGET] = words[TARGET] >> 32 << 32 | u64::from(cookie);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geneve::arbitrary;
    use geneve::flow::Stickiness;
    use proptest::prelude::*;

    use super::super::super::testing::start;
    use super::*;

    fn stickiness() -> impl Strategy<Value = Stickiness> {
        prop::sample::select(Stickiness::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn a_flow_comes_out_as_it_went_in(
            key in arbitrary::flow_key(), stickiness in stickiness(), endpoint: u64,
            target in prop::option::of(0..u32::MAX), port in 0u8..64,
            tcp in prop::option::of(0u8..16), deadline: u64, cookie: u32, other in 0usize..6,
        ) {
            let id = FlowId { endpoint, tuple: key.sticky(stickiness) };
            let inspector =
                target.map_or(Inspector::Bypass, |slot| Inspector::Target(TargetSlot(slot)));
            let placement = Placement { inspector, port };
            let tcp_state = tcp.map(TcpState::from_bits);
            let deadline_at = start() + Duration::from_secs(1);
            let flow = Flow { id, placement, tcp: tcp_state, deadline: deadline_at };
            let mut words = [u64::MAX; 8];
            write(&mut words, &flow, deadline);
            prop_assert_eq!(super::cookie(&words), NO_COOKIE);
            set_cookie(&mut words, cookie);
            prop_assert!(!is_vacant(&words) && is_of(&words, &identity(&id)));
            prop_assert_eq!(super::id(&words), id);
            prop_assert_eq!(super::placement(&words), placement);
            prop_assert_eq!(super::tcp(&words), tcp_state);
            prop_assert_eq!((super::deadline(&words), super::cookie(&words)), (deadline, cookie));
            let at = (&id.tuple, id.tuple.version());
            prop_assert!(is_at(&words, at, endpoint, tcp_state));
            prop_assert!(!is_at(&words, at, endpoint, Some(TcpState::from_bits(16))));
            prop_assert!(!is_at(&words, at, endpoint ^ 1, tcp_state));
            let mut wanted = identity(&id);
            wanted[other] ^= 1;
            prop_assert!(!is_of(&words, &wanted));
            let [a, b, c, d, e, endpoint] = wanted;
            // The others are zero in all keys of IPv4.
            if [0, 1, 5].contains(&other) || id.tuple.version() == IpVersion::V6 {
                let tuple = CanonicalKey::from_words([a, b, c, d, e]);
                // Not that of another version, which a bit may have made of it.
                let at = (&tuple, tuple.version());
                prop_assert!(!is_at(&words, at, endpoint, tcp_state));
            }
            set_placement(&mut words, Placement { inspector: Inspector::Bypass, port: 63 });
            prop_assert_eq!(super::cookie(&words), NO_COOKIE, "of another target");
            prop_assert_eq!((super::id(&words), super::tcp(&words)), (id, tcp_state));
            vacate(&mut words);
            prop_assert!(is_vacant(&words));
        }
    }
}
