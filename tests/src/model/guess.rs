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

/// The finaliser of SplitMix64 over both.
fn mixed(flow: u64, id: u64) -> u64 {
    let z = flow ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The flow as every gateway writes it: version, protocol, addresses of sixteen bytes, ports.
fn bytes(flow: &Flow) -> Vec<u8> {
    let [low, high] = flow.ends();
    let mut bytes = vec![if low.is_ipv4() { 4 } else { 6 }, flow.protocol()];
    for end in [low, high] {
        let mut address = match end.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        address.resize(16, 0);
        bytes.extend(address);
    }
    bytes.extend(low.port().to_be_bytes());
    bytes.extend(high.port().to_be_bytes());
    bytes
}
