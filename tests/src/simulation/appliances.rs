//! The appliances: the SDK's session with a sample appliance in it, and whatever may be wrong with
//! the host that it runs on.
//!
//! Every packet that an appliance lets out is noted, so that a packet which nobody let out cannot
//! pass for an inspected one.

use std::collections::{HashSet, VecDeque};
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use appliance_sdk::session::{Content, Replies, Session, SessionConfig};
use appliance_sdk::{Action, Arrival};
use geneve::{Dialect, Header, Inner, IpVersion};
use gwlb::control::ProbeOutcome;
use nva_sample::firewall::rules::{Rule, RuleSet, Verdict};
use nva_sample::firewall::{Firewall, FirewallFlow, Rules};
use siphasher::sip::SipHasher13;

use super::configuration::DENIED;
use super::plan::Trouble;
use super::random::Dice;
use crate::gateway::{Datagram, Sent};

/// What a hanging host keeps in its receive buffer.
const BUFFER: usize = 64;

/// One appliance and its host.
pub(super) struct Appliance {
    pub group: &'static str,
    pub address: IpAddr,
    pub zone: &'static str,
    config: Config,
    session: Session<Sample>,
    pub trouble: Option<Trouble>,
    /// What came while it hung, and from which gateway.
    kept: VecDeque<(usize, Sent)>,
    /// The latest headers that it got, for those who mix them up.
    headers: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Config {
    rules: Option<Arc<dyn Fn() -> RuleSet + Send + Sync>>,
}

/// What runs in a session.
enum Sample {
    Firewall(Box<Firewall>),
    /// Lets everything through, and is asked about every packet.
    Watcher,
}

impl appliance_sdk::Appliance for Sample {
    type Flow = FirewallFlow;

    fn packet(
        &mut self,
        packet: &mut appliance_sdk::Packet<'_>,
        flow: &mut FirewallFlow,
    ) -> Action {
        match self {
            Sample::Firewall(firewall) => firewall.packet(packet, flow),
            Sample::Watcher => Action::Forward,
        }
    }

    fn epoch(&self) -> u64 {
        match self {
            Sample::Firewall(firewall) => firewall.epoch(),
            Sample::Watcher => 0,
        }
    }
}

/// The rules of every firewall.
fn rules(reject: bool, pick_up: bool) -> RuleSet {
    let denied = |protocol| Rule {
        name: "denied".to_owned(),
        verdict: if reject { Verdict::Reject } else { Verdict::Drop },
        from: Vec::new(),
        to: Vec::new(),
        protocol: Some(protocol),
        ports: vec![DENIED..=DENIED],
        source_ports: Vec::new(),
        direction: None,
    };
    RuleSet::new(vec![denied(6), denied(17)], Verdict::Allow, Vec::new(), pick_up)
}

/// What was let out by appliances: endpoint and packet, as a number.
#[derive(Debug, Default)]
pub(super) struct LetOut(HashSet<u64>);

impl LetOut {
    fn number(endpoint: u64, packet: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(1, 2);
        hasher.write_u64(endpoint);
        hasher.write(packet);
        hasher.finish()
    }

    pub fn note(&mut self, endpoint: u64, packet: &[u8]) {
        self.0.insert(LetOut::number(endpoint, packet));
    }

    pub fn has(&self, endpoint: u64, packet: &[u8]) -> bool {
        self.0.contains(&LetOut::number(endpoint, packet))
    }

    /// Notes the packet of a datagram, whoever has made it so.
    pub fn note_datagram(&mut self, bytes: &[u8]) {
        if let Some((endpoint, packet)) = opened(bytes) {
            self.note(endpoint, packet);
        }
    }
}

/// The endpoint and the inner packet of a datagram, if it has such.
pub(super) fn opened(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header, payload) = Header::parse(bytes).ok()?;
    let tags = Dialect::ALL.iter().find_map(|dialect| dialect.read(&header).ok())?;
    let inner = Inner::parse(payload).ok()?;
    Some((tags.endpoint, &payload[..inner.total_len]))
}

impl Appliance {
    pub fn new(
        (group, address, zone): (&'static str, IpAddr, &'static str),
        (reject, pick_up): (bool, bool),
    ) -> Appliance {
        let firewall: Arc<dyn Fn() -> RuleSet + Send + Sync> =
            Arc::new(move || rules(reject, pick_up));
        let config = Config { rules: (group == "fw").then_some(firewall) };
        let session = session(&config);
        Appliance {
            group,
            address,
            zone,
            config,
            session,
            trouble: None,
            kept: VecDeque::new(),
            headers: Vec::new(),
        }
    }

    /// Begins or ends trouble; returns what comes to it now that had to wait, and from
    /// which gateway.
    pub fn set_trouble(&mut self, trouble: Option<Trouble>) -> Vec<(usize, Sent)> {
        let before = std::mem::replace(&mut self.trouble, trouble);
        match before {
            Some(Trouble::Crash) => {
                self.session = session(&self.config);
                Vec::new()
            }
            Some(Trouble::Hang) => self.kept.drain(..).collect(),
            _ => Vec::new(),
        }
    }

    /// What it says to a health check, and whether it says anything before the time is over.
    pub fn health(&self) -> Option<ProbeOutcome> {
        match self.trouble {
            Some(Trouble::Crash) => Some(ProbeOutcome::Refused),
            Some(Trouble::Hang) => None,
            Some(Trouble::Sick) => Some(ProbeOutcome::Mismatch(503)),
            Some(Trouble::Unprobed) => Some(ProbeOutcome::Local),
            _ => Some(ProbeOutcome::Passed),
        }
    }

    /// Whether nobody who gets packets from it or sends packets to it may rely on anything.
    pub fn harms(&self) -> bool {
        !matches!(self.trouble, None | Some(Trouble::Sick | Trouble::Unprobed))
    }

    /// Whether packets are counted that it did not let out and did not keep. There are none.
    pub fn unaccounted(&self) -> i128 {
        self.session.stats().unaccounted()
    }

    /// A datagram has come from a gateway; returns what it sends, and after how long.
    pub fn take(
        &mut self,
        (gateway, sent): (usize, Sent),
        now: Duration,
        dice: &mut Dice,
        let_out: &mut LetOut,
    ) -> Vec<(Duration, Datagram)> {
        match self.trouble {
            Some(Trouble::Crash | Trouble::Deaf) => return Vec::new(),
            Some(Trouble::Hang) => {
                if self.kept.len() < BUFFER {
                    self.kept.push_back((gateway, sent));
                }
                return Vec::new();
            }
            Some(Trouble::SmallOnly) if sent.bytes.len() > 700 => return Vec::new(),
            _ => {}
        }
        self.note_header(&sent.bytes);
        let arrival = Arrival { gateway: sent.from, local: sent.to, tos: 0 };
        let mut replies = Replies::new();
        self.session.handle(&arrival, &sent.bytes, 0, instant(now), &mut replies);
        let mut out = Vec::new();
        for reply in &replies {
            let bytes = match &reply.content {
                Content::Unchanged { range, .. } => sent.bytes[range.clone()].to_vec(),
                Content::Written(bytes) => bytes.clone(),
            };
            let from = reply.route.source;
            out.push(Datagram { from, to: reply.route.destination.ip(), bytes });
        }
        let mut delay = Duration::ZERO;
        if self.trouble == Some(Trouble::Late) {
            delay = dice.time(Duration::from_millis(200), Duration::from_secs(20));
        }
        let misdeed = |datagram| self.misdo(datagram, dice);
        let out: Vec<_> = out.into_iter().map(misdeed).collect();
        for datagram in &out {
            let_out.note_datagram(&datagram.bytes);
        }
        out.into_iter().map(|datagram| (delay, datagram)).collect()
    }

    fn note_header(&mut self, bytes: &[u8]) {
        if let Ok((header, _)) = Header::parse(bytes) {
            if self.headers.len() == 8 {
                self.headers.remove(0);
            }
            self.headers.push(header.as_bytes().to_vec());
        }
    }

    /// Does with what is to be sent what it should not.
    fn misdo(&self, mut datagram: Datagram, dice: &mut Dice) -> Datagram {
        let Some(trouble) = self.trouble else { return datagram };
        let Ok((header, payload)) = Header::parse(&datagram.bytes) else { return datagram };
        let (head, Ok(inner)) = (header.len(), Inner::parse(payload)) else { return datagram };
        match trouble {
            Trouble::RewritesTuple => {
                let place = match inner.version {
                    IpVersion::V4 => 12 + dice.below(8),
                    IpVersion::V6 => 8 + dice.below(32),
                };
                datagram.bytes[head + place as usize] ^= 1 << dice.below(8);
            }
            Trouble::RewritesHeader => {
                let place = dice.below(head as u64) as usize;
                datagram.bytes[place] ^= 1 << dice.below(8);
            }
            Trouble::RewritesPayload => {
                let end = head + inner.total_len;
                if end > head + inner.header_len + 20 {
                    // As the network does, so that neither makes up for the other.
                    let last = &mut datagram.bytes[end - 1];
                    *last &= last.wrapping_sub(1);
                }
            }
            Trouble::MixesFlows => {
                let other = dice.pick(&self.headers);
                let payload = datagram.bytes.split_off(head);
                datagram.bytes = [&other[..], &payload].concat();
            }
            Trouble::WrongNode => datagram.to = other(datagram.to, dice),
            Trouble::WrongSource => datagram.from.set_ip(other(datagram.from.ip(), dice)),
            Trouble::Truncates => {
                let len = dice.below(datagram.bytes.len() as u64) as usize;
                datagram.bytes.truncate(len);
            }
            _ => {}
        }
        datagram
    }
}

/// Another address of the same network.
fn other(address: IpAddr, dice: &mut Dice) -> IpAddr {
    let last = *dice.pick(&[1, 2, 3, 11, 12, 99]);
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            [a, b, c, last].into()
        }
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            // As the configuration writes them.
            octets[15] = u8::from_str_radix(&last.to_string(), 16).unwrap_or(last);
            octets.into()
        }
    }
}

fn session(config: &Config) -> Session<Sample> {
    let sample = match &config.rules {
        Some(rules) => Sample::Firewall(Box::new(Firewall::new(Rules::new(rules())))),
        None => Sample::Watcher,
    };
    let settings = SessionConfig {
        max_flows: 2048,
        // Longer than any gateway here remembers one.
        flow_idle_timeout: Duration::from_secs(1000),
        ..SessionConfig::default()
    };
    Session::new(sample, &settings)
}

/// A moment of virtual time, as the SDK wants it.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn instant(at: Duration) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + at
}
