//! Whom a flow should choose. Placement is "weighted rendezvous hashing, keyed SipHash", so it can be
//! worked out, here with the logarithm of the textbook and not in fixed point. The hash is the
//! gateway's own, under its own key; the rest is written anew.
//!
//! Where two candidates are too close to tell, any of them will do that other gateways take, too. A
//! choice that shows to nobody, as of a packet that was too long for any, is known from here alone.

use std::net::IpAddr;

use super::tuple::Flow;
use super::view::{Set, View};

/// The candidate with the smallest `−ln(u) / weight`, `u` between 0 and 1 and particular to flow and
/// target; nothing, if two are too close to tell.
pub(super) fn guess(view: &View, flow: &Flow, among: &Set) -> Option<u64> {
    let flow = view.snapshot.keys.placement.hash(&bytes(flow));
    let mut costs: Vec<(f64, u64)> = among
        .iter()
        .map(|(id, weight)| {
            let unit = (mixed(flow, *id) as f64 + 1.0) / 2_f64.powi(64);
            (-unit.ln() / f64::from(*weight), *id)
        })
        .collect();
    costs.sort_by(|one, other| one.0.total_cmp(&other.0));
    match costs[..] {
        [] => None,
        [(_, only)] => Some(only),
        [(first, id), (second, _), ..] => (second > first * 1.00001 + 1e-9).then_some(id),
    }
}

/// The halves of the product of both, one over the other.
fn mixed(flow: u64, id: u64) -> u64 {
    let product = u128::from(flow) * u128::from(id);
    (product >> 64) as u64 ^ product as u64
}

/// The flow as every gateway writes it, from its end: version, protocol, ports; and before these, for
/// IPv4 both addresses as one number of 64 bits, for IPv6 each as two, little-endian.
fn bytes(flow: &Flow) -> Vec<u8> {
    let [low, high] = flow.ends();
    let numbers = match (low.ip(), high.ip()) {
        (IpAddr::V4(low), IpAddr::V4(high)) => vec![[low.octets(), high.octets()].concat()],
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            [low.octets(), high.octets()].concat().chunks(8).map(<[u8]>::to_vec).collect()
        }
        _ => unreachable!("a flow has one version"),
    };
    let mut bytes: Vec<u8> =
        numbers.iter().flat_map(|number| number.iter().rev().copied()).collect();
    for port in [high.port(), low.port()] {
        bytes.extend(port.to_le_bytes());
    }
    bytes.extend([flow.protocol(), if low.is_ipv4() { 4 } else { 6 }]);
    bytes
}
