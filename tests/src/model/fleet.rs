//! What gateways with one secret must agree on: cookies, where a flow goes, and what targets are
//! known by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tuple::Flow;
use super::view::Set;
use super::{Clause, Wrong, hold};

/// What is known of all gateways that share a secret. Clones are the same fleet.
#[derive(Debug, Clone, Default)]
pub struct Fleet(Arc<Mutex<Known>>);

/// What a cookie is for: the endpoint's id on the wire, the target's identity, the flow.
pub(super) type Purpose = (u64, u64, Flow);

/// A target's group, and its address.
type Name = (String, SocketAddr);

#[derive(Debug, Default)]
struct Known {
    /// What targets are known by, and which target that is.
    identities: BTreeMap<Name, u64>,
    targets: BTreeMap<u64, Name>,
    /// The cookies that gateways have given out, by purpose and epoch.
    cookies: BTreeMap<Purpose, BTreeMap<u64, u32>>,
    /// The same by the hosts of a flow (its tuple without ports) and the epoch: for which tuples.
    by_hosts: BTreeMap<(Purpose, u64), BTreeMap<u32, BTreeSet<Flow>>>,
    /// The latest choices for a flow: among whom, and who.
    choices: BTreeMap<Flow, Vec<(Arc<Set>, u64)>>,
}

/// How many choices are remembered for each flow.
const CHOICES: usize = 6;

impl Fleet {
    /// Gateways of which nothing is known yet.
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// A gateway knows a target by this number, which is that target's alone, on every gateway and
    /// for ever: whose cookies and flows are whose goes by it.
    pub(super) fn identify(&self, group: &str, address: SocketAddr, id: u64) -> Result<(), Wrong> {
        let mut known = self.known();
        let name = (group.to_owned(), address);
        let before = *known.identities.entry(name.clone()).or_insert(id);
        hold(before == id, Clause::Determinism, || {
            format!("{address} of {group} is {id:#x}, and was {before:#x}")
        })?;
        let whose = known.targets.entry(id).or_insert(name);
        hold((&*whose.0, whose.1) == (group, address), Clause::Determinism, || {
            format!("{address} of {group} is {id:#x}, and so is {} of {}", whose.1, whose.0)
        })
    }

    /// A gateway has given out a cookie: it must be the one that others would have given out.
    pub(super) fn issue(&self, purpose: Purpose, epoch: u64, cookie: u32) -> Result<(), Wrong> {
        let mut known = self.known();
        let before = *known.cookies.entry(purpose).or_default().entry(epoch).or_insert(cookie);
        hold(before == cookie, Clause::Determinism, || {
            format!(
                "the cookie of {} through endpoint {:#x} is {cookie:#010x}, and in the same epoch \
                 it was {before:#010x}",
                purpose.2, purpose.0
            )
        })?;
        // Cookies have few bits, and in all that is ever simulated two flows may have the same one by
        // chance; for three between two hosts that would be a wonder.
        let (endpoint, target, flow) = purpose;
        let hosts = ((endpoint, target, flow.without_ports()), epoch);
        let alike = known.by_hosts.entry(hosts).or_default().entry(cookie).or_default();
        alike.insert(flow);
        hold(alike.len() < 3, Clause::NoUninspectedPath, || {
            let alike: Vec<_> = alike.iter().map(Flow::to_string).collect();
            format!("{cookie:#010x} through endpoint {endpoint:#x} is good for all of {alike:?}")
        })
    }

    /// Whether a gateway has given out this cookie, in an epoch that still counts: the present one,
    /// the one before, and the next, for gateways whose clock is ahead.
    pub(super) fn has_issued(&self, purpose: &Purpose, epoch: u64, cookie: u32) -> bool {
        let known = self.known();
        let Some(given) = known.cookies.get(purpose) else { return false };
        let valid = epoch.saturating_sub(1)..=epoch + 1;
        given.range(valid).any(|(_, given)| *given == cookie)
    }

    /// Whom a flow chose among these, if anybody has seen it.
    pub(super) fn chosen(&self, flow: &Flow, among: &Arc<Set>) -> Option<u64> {
        let known = self.known();
        let choices = known.choices.get(flow)?;
        choices.iter().find(|(set, _)| set == among).map(|(_, chosen)| *chosen)
    }

    /// A flow was placed among these: where any gateway would have placed it, and no farther from
    /// where it was placed among others than those others demand.
    pub(super) fn choose(&self, flow: &Flow, among: &Arc<Set>, chosen: u64) -> Result<(), Wrong> {
        let mut known = self.known();
        let choices = known.choices.entry(*flow).or_default();
        for (set, before) in &*choices {
            let same = *before == chosen;
            hold(same || set != among, Clause::Determinism, || {
                format!("{flow} is placed with {chosen:#x}; among the same it was {before:#x}")
            })?;
            hold(same || may_differ(set, *before, among, chosen), Clause::Stability, || {
                format!(
                    "{flow} was placed with {before:#x} among {set:x?}, and is now with \
                     {chosen:#x} among {among:x?}: nothing that changed asks for that"
                )
            })?;
        }
        if !choices.iter().any(|(set, _)| set == among) {
            if choices.len() == CHOICES {
                choices.remove(0);
            }
            choices.push((Arc::clone(among), chosen));
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a flow may go to `chosen` in one set that went to `before` in another: only if the one
/// has lost weight or the other has gained some.
fn may_differ(was: &Set, before: u64, is: &Set, chosen: u64) -> bool {
    let weight = |set: &Set, who| set.iter().find(|(id, _)| *id == who).map_or(0, |(_, it)| *it);
    weight(is, before) < weight(was, before) || weight(is, chosen) > weight(was, chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_identity_and_an_identity_one_target() {
        let fleet = Fleet::new();
        let (one, other) = (([192, 0, 2, 1], 6081).into(), ([192, 0, 2, 2], 6081).into());
        let identify = |group, address, id| fleet.clone().identify(group, address, id).is_ok();
        assert!(identify("fw", one, 7) && identify("fw", other, 8) && identify("ids", one, 9));
        assert!(identify("fw", one, 7), "another gateway, or another view");
        assert!(!identify("fw", one, 10), "it was 7");
        assert!(!identify("ids", other, 8), "that is another's");
    }
}
