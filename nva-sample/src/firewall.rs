//! A firewall: flows pass or do not, by rules on who opens them.
//!
//! The packet that opens a flow decides; what follows in either direction, ICMP errors about the
//! flow included, shares its fate without being asked about.
//!
//! What it does not do: follow TCP's states (within an allowed flow everything passes until the
//! flow was idle for the configured time), reassemble fragments (they are judged by their first
//! one, in the direction in which they go, so answers in fragments need a rule of their own), look
//! at payloads.

pub mod file;
pub mod rules;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use appliance_sdk::{Action, Appliance, Packet};
use geneve::flow::FlowKey;
use geneve::inner::{Fragment, TcpFlags, Transport};
use parking_lot::Mutex;

use self::rules::{RuleHits, RuleSet, Verdict};
use crate::problem::{FileError, Source};

/// The rules in force, shared by the workers and whoever reloads them.
#[derive(Clone)]
pub struct Rules {
    shared: Arc<Shared>,
}

struct Shared {
    path: Option<PathBuf>,
    current: Mutex<Arc<RuleSet>>,
    epoch: AtomicU64,
}

impl Rules {
    /// Reads rules from a file.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let rules = file::parse(&Source::read(path)?)?;
        Ok(Self::with_path(rules, Some(path.to_owned())))
    }

    /// Rules that come from no file.
    pub fn new(rules: RuleSet) -> Self {
        Self::with_path(rules, None)
    }

    /// Reads the file anew. Flows are judged again by the new rules, whose counters start at zero;
    /// a wrong file changes nothing.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(path) = &self.shared.path {
            self.replace(file::parse(&Source::read(path)?)?);
        }
        Ok(())
    }

    /// Puts other rules in force.
    pub fn replace(&self, rules: RuleSet) {
        *self.shared.current.lock() = Arc::new(rules);
        self.shared.epoch.fetch_add(1, Ordering::Release);
    }

    /// How often each rule decided since it was loaded.
    pub fn hits(&self) -> Vec<RuleHits> {
        self.shared.current.lock().hits()
    }

    fn with_path(rules: RuleSet, path: Option<PathBuf>) -> Self {
        let current = Mutex::new(Arc::new(rules));
        Self { shared: Arc::new(Shared { path, current, epoch: AtomicU64::new(0) }) }
    }
}

/// One worker's firewall.
pub struct Firewall {
    rules: Rules,
    current: Arc<RuleSet>,
    epoch: u64,
}

/// What the firewall remembers of a flow.
#[derive(Default)]
pub struct FirewallFlow {
    decision: Option<Decision>,
    /// Of a flow of fragments: what was decided by their first ones, the latest at the back.
    fragments: VecDeque<(FragmentId, Verdict)>,
}

/// What was decided on a flow.
#[derive(Clone, Copy)]
struct Decision {
    epoch: u64,
    opener: FlowKey,
    /// Whether the opener's SYN was seen: what was decided without is decided anew by a SYN.
    by_syn: bool,
    verdict: Verdict,
}

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FragmentId {
    way: FlowKey,
    id: u32,
}

/// So many packets of a flow may be on their way in fragments at a time.
const FRAGMENTED_PACKETS: usize = 64;

impl Firewall {
    /// A firewall with these rules, and those that replace them.
    pub fn new(rules: Rules) -> Self {
        let epoch = rules.shared.epoch.load(Ordering::Acquire);
        let current = Arc::clone(&rules.shared.current.lock());
        Self { rules, current, epoch }
    }

    /// Takes new rules into use, if there are any.
    fn refresh(&mut self) {
        let epoch = self.rules.shared.epoch.load(Ordering::Acquire);
        if epoch != self.epoch {
            self.current = Arc::clone(&self.rules.shared.current.lock());
            self.epoch = epoch;
        }
    }

    fn decide(&self, packet: &Packet<'_>, flow: &mut FirewallFlow) -> (Verdict, Scope) {
        let inner = packet.inner();
        let way = packet.flow_key();
        match inner.fragment {
            // An error opens nothing. Where fragments were seen and no whole packet yet, it is
            // judged by what it is about, and decides nothing for them.
            Fragment::Whole if flow.decision.is_none() => match error_about(packet) {
                Some(opener) => (self.current.judge(&opener), Scope::Packet),
                None => self.decide_flow(packet, flow),
            },
            Fragment::Whole => self.decide_flow(packet, flow),
            Fragment::First { id } => {
                let verdict = self.current.judge(&inner.ported_key().unwrap_or(way));
                flow.remember(FragmentId { way, id }, verdict);
                (verdict, Scope::Packet)
            }
            Fragment::Later { id, .. } => {
                let known = flow.recall(FragmentId { way, id });
                (known.unwrap_or_else(|| self.current.judge(&way)), Scope::Packet)
            }
        }
    }

    fn decide_flow(&self, packet: &Packet<'_>, flow: &mut FirewallFlow) -> (Verdict, Scope) {
        let key = packet.flow_key();
        let (is_tcp, opens) = match packet.inner().transport {
            Transport::Tcp { flags, .. } => {
                (true, flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK))
            }
            _ => (false, false),
        };
        let decided = flow.decision.filter(|decision| decision.epoch == self.epoch);
        if let Some(decision) = decided
            && (!opens || (key == decision.opener && decision.by_syn))
        {
            return (decision.verdict, Scope::Flow);
        }
        let (opener, verdict) = match flow.decision {
            // Whichever end opens a connection is judged by what it does.
            _ if opens => (key, self.current.judge(&key)),
            // The rules are new, the flow is not.
            Some(decision) => (decision.opener, self.current.judge(&decision.opener)),
            None if is_tcp => match self.current.judge_without_syn(&key) {
                Verdict::Allow => (key, Verdict::Allow),
                // The other direction may still be allowed to go on.
                denied => return (denied, Scope::Packet),
            },
            None => (packet.initiator(), self.current.judge(&packet.initiator())),
        };
        if decided.is_some_and(|decision| decision.verdict == Verdict::Allow)
            && verdict != Verdict::Allow
        {
            // A SYN against an open connection must not be able to end it.
            return (verdict, Scope::Packet);
        }
        flow.decision = Some(Decision { epoch: self.epoch, opener, by_syn: opens, verdict });
        (verdict, Scope::Flow)
    }
}

/// Who opened the flow that an ICMP error is about, if the packet is one that belongs to that flow.
fn error_about(packet: &Packet<'_>) -> Option<FlowKey> {
    let Transport::IcmpError { about, .. } = packet.inner().transport else { return None };
    let flow = packet.initiator();
    match about {
        about if about.portless() == flow.portless() => Some(about),
        about if about.portless() == flow.portless().reversed() => Some(about.reversed()),
        // A flow of its own: of such errors, or of pings between the same hosts.
        _ => None,
    }
}

/// What a verdict is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Packet,
    Flow,
}

impl Appliance for Firewall {
    type Flow = FirewallFlow;

    fn packet(&mut self, packet: &mut Packet<'_>, flow: &mut FirewallFlow) -> Action {
        self.refresh();
        match self.decide(packet, flow) {
            (Verdict::Allow, Scope::Flow) => Action::ForwardFlow,
            (Verdict::Allow, Scope::Packet) => Action::Forward,
            (Verdict::Drop, Scope::Flow) => Action::DropFlow,
            (Verdict::Drop, Scope::Packet) => Action::Drop,
            (Verdict::Reject, _) => {
                packet.reject();
                // Whoever tries again is told again.
                Action::Drop
            }
        }
    }

    fn epoch(&self) -> u64 {
        self.rules.shared.epoch.load(Ordering::Acquire)
    }
}

impl FirewallFlow {
    fn remember(&mut self, id: FragmentId, verdict: Verdict) {
        self.fragments.retain(|(known, _)| *known != id);
        if self.fragments.len() == FRAGMENTED_PACKETS {
            self.fragments.pop_front();
        }
        self.fragments.push_back((id, verdict));
    }

    fn recall(&self, id: FragmentId) -> Option<Verdict> {
        self.fragments.iter().rev().find(|(known, _)| *known == id).map(|(_, verdict)| *verdict)
    }
}

#[cfg(test)]
mod tests;
