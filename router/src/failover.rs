//! Zonal failover: which members of a group of endpoints get the packets that begin something.
//!
//! A [`Failover`] is the state of one [`EndpointGroup`]. It does no I/O and reads no clock: what is
//! known of its members, commands and time come in, the members that are chosen are asked for, and
//! what has changed is taken out as data. States are spelled as Alibaba Cloud spells those of its
//! route target groups (semantics 2c); what they do not say is decided here:
//!
//! - A member takes packets if it is `Normal` and enabled. If none is, health says nothing, and it
//!   stays as it was: what a zone without healthy targets does is for the zone to say.
//! - The group returns to the member that it prefers once that has been `Normal` again for
//!   [`Config::return_after`], since a zone that comes and goes would otherwise take everybody with
//!   it each time. A manual switch makes another member the preferred one, until it is taken back.
//! - A change is made when whoever moves packets says so ([`Failover::confirm`]): until then the
//!   group is `Switching`, or `Recovering`.
//!
//! Nothing here knows of flows. Whoever does keeps those that are established where they are, as
//! long as that member [is living](Failover::is_living).
//!
//! ```
//! # #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
//! # let now = std::time::Instant::now();
//! use std::time::Duration;
//!
//! use router::GroupMode;
//! use router::failover::{Config, Failover, Health, Member, State};
//!
//! let member = |weight| Member { weight, enabled: true };
//! let mut group = Failover::new(Config {
//!     mode: GroupMode::ActiveStandby,
//!     members: vec![member(100), member(0)],
//!     return_after: Some(Duration::from_secs(60)),
//! });
//! group.report([(0, Health::Normal), (1, Health::Normal)], now);
//! assert_eq!((group.state(), group.active()), (State::Available, Some(0)));
//!
//! group.report([(0, Health::Abnormal)], now);
//! group.confirm();
//! assert_eq!((group.state(), group.active()), (State::Switched, Some(1)));
//! ```

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use crate::{EndpointGroup, GroupMode};

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Health {
    /// It can take packets.
    Normal,
    /// It cannot.
    Abnormal,
}

/// How a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum State {
    /// Not everything is known of its members yet.
    Pending,
    /// All is well.
    Available,
    /// It goes over to the standby.
    Switching,
    /// The standby has it.
    Switched,
    /// The standby has it, and the active member is `Normal` again: it goes back, or is about to.
    Recovering,
    /// It works, but a member that could take over cannot: it is `Abnormal` or disabled.
    Abnormal,
    /// No member can take packets.
    Unavailable,
    /// It is being removed.
    Deleting,
}

impl State {
    /// Its name, as Alibaba Cloud spells it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Pending => "Pending",
            State::Available => "Available",
            State::Switching => "Switching",
            State::Switched => "Switched",
            State::Recovering => "Recovering",
            State::Abnormal => "Abnormal",
            State::Unavailable => "Unavailable",
            State::Deleting => "Deleting",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a group is otherwise than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// What is known of its members.
    Health,
    /// A member was enabled or disabled, or the group is configured otherwise.
    Configuration,
    /// Somebody has switched it, or has taken that back.
    Manual,
    /// The preferred member has been `Normal` for long enough.
    Returned,
    /// Whoever moves packets does so now as it was decided.
    Confirmed,
    /// It is being removed.
    Deleted,
}

/// A group is otherwise than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How it was.
    pub from: State,
    /// How it is.
    pub to: State,
    /// The member that has it now, if one has it alone.
    pub active: Option<usize>,
    /// Why.
    pub cause: Cause,
}

/// Why a group is not switched. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It spreads packets over its members.
    #[error("a weighted group has no active member: change weights, or disable a member")]
    Weighted,
    /// It is not known yet whether the member could take packets.
    #[error("the group is Pending: its members have not been checked yet")]
    Pending,
    /// The member cannot take packets.
    #[error("the member is Abnormal")]
    Abnormal,
    /// The member is not to take packets.
    #[error("the member is disabled")]
    Disabled,
    /// The group has no such member.
    #[error("the group has no such member")]
    NoMember,
    /// The group is going.
    #[error("the group is being removed")]
    Deleting,
}

/// A member, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its share, 0–100. Of an active-standby group, 100 for the active one and 0 for the standby;
    /// of a weighted one, those of weight 0 take packets if no other can.
    pub weight: u8,
    /// Whether packets may begin something with it.
    pub enabled: bool,
}

/// A group, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How packets are spread.
    pub mode: GroupMode,
    /// At least one. Others refer to them by their place.
    pub members: Vec<Member>,
    /// How long the preferred member has to be `Normal` before it gets packets again. `None`: it
    /// gets them when somebody switches it back.
    pub return_after: Option<Duration>,
}

impl Config {
    /// Of a group in a topology, whose members count as they do there.
    pub fn of(group: &EndpointGroup) -> Config {
        let member = |&(endpoint, weight): &(_, u8)| Member {
            weight,
            enabled: !group.disabled.contains(&endpoint),
        };
        Config {
            mode: group.mode,
            members: group.members.iter().map(member).collect(),
            return_after: group.return_after,
        }
    }

    /// The member that an active-standby group prefers: the one with the greatest weight, of equal
    /// ones the first.
    fn first(&self) -> usize {
        let weight = |at: &usize| self.members[*at].weight;
        (0..self.members.len()).rev().max_by_key(weight).unwrap_or_default()
    }
}

/// The state of one group.
#[derive(Clone, Debug)]
pub struct Failover {
    config: Config,
    /// Of each member; `None`: nothing is known yet.
    health: Vec<Option<Health>>,
    /// The member that somebody has switched to.
    manual: Option<usize>,
    /// Of an active-standby group.
    active: usize,
    /// Whether packets may still go to the one that was active before.
    unconfirmed: bool,
    /// When it returns to the preferred member.
    returns: Option<Instant>,
    deleting: bool,
    told: (State, usize),
    changes: VecDeque<Change>,
}

/// How much a member is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Disabled,
    Enabled,
    Usable,
}

impl Failover {
    /// A group of whose members nothing is known yet: it is `Pending`.
    pub fn new(config: Config) -> Failover {
        let active = config.first();
        Failover {
            health: vec![None; config.members.len()],
            manual: None,
            active,
            unconfirmed: false,
            returns: None,
            deleting: false,
            told: (State::Pending, active),
            changes: VecDeque::new(),
            config,
        }
    }

    /// Takes another configuration of the same members. What is known of them stays, and so does a
    /// manual switch. A group that is spread otherwise than before begins anew.
    pub fn configure(&mut self, config: Config, now: Instant) {
        if config.mode != self.config.mode || config.members.len() != self.config.members.len() {
            let known = std::mem::take(&mut self.health);
            let (told, changes) = (self.told, std::mem::take(&mut self.changes));
            *self = Failover { told, changes, ..Failover::new(config) };
            for (health, known) in self.health.iter_mut().zip(known) {
                *health = known;
            }
        } else {
            self.config = config;
        }
        self.decide(Cause::Configuration, now);
    }

    /// What is known of members from now on. To be said of all at once whose health changes at one
    /// time, since each report is decided about by itself.
    pub fn report(&mut self, health: impl IntoIterator<Item = (usize, Health)>, now: Instant) {
        for (member, health) in health {
            if let Some(known) = self.health.get_mut(member) {
                *known = Some(health);
            }
        }
        self.decide(Cause::Health, now);
    }

    /// Enables or disables a member: what is established there stays, but nothing begins.
    pub fn set_enabled(&mut self, member: usize, enabled: bool, now: Instant) {
        if let Some(member) = self.config.members.get_mut(member) {
            member.enabled = enabled;
        }
        self.decide(Cause::Configuration, now);
    }

    /// Switches to a member, which is preferred from now on; or (`None`) takes that back, and goes
    /// to the member that is configured as active if that is `Normal`. If not, that is left to
    /// [`Config::return_after`].
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn switch(&mut self, to: Option<usize>, now: Instant) -> Result<(), Refused> {
        match to {
            _ if self.deleting => return Err(Refused::Deleting),
            _ if self.config.mode == GroupMode::Weighted => return Err(Refused::Weighted),
            Some(member) if member >= self.health.len() => return Err(Refused::NoMember),
            Some(_) if self.is_pending() => return Err(Refused::Pending),
            Some(member) => match self.rank(member) {
                Rank::Disabled => return Err(Refused::Disabled),
                Rank::Enabled => return Err(Refused::Abnormal),
                Rank::Usable => {}
            },
            None => {}
        }
        // To the member that the file prefers anyway is back.
        self.manual = to.filter(|member| *member != self.config.first());
        let preferred = self.preferred();
        if self.rank(preferred) == Rank::Usable && !self.is_pending() {
            self.activate(preferred);
        }
        self.decide(Cause::Manual, now);
        Ok(())
    }

    /// Packets go now where it was decided last that they should.
    pub fn confirm(&mut self) {
        self.unconfirmed = false;
        self.tell(Cause::Confirmed);
    }

    /// The group is being removed: nothing of it changes any more.
    pub fn delete(&mut self) {
        self.deleting = true;
        self.returns = None;
        self.tell(Cause::Deleted);
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.decide(Cause::Returned, now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called. It may be called earlier.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.returns
    }

    /// What has changed, in that order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// How the group is.
    pub fn state(&self) -> State {
        let mut members = 0..self.health.len();
        if self.deleting {
            State::Deleting
        } else if self.is_pending() {
            State::Pending
        } else if members.clone().all(|it| self.rank(it) != Rank::Usable) {
            State::Unavailable
        } else if self.config.mode == GroupMode::ActiveStandby && self.active != self.config.first()
        {
            match (self.unconfirmed, self.returns) {
                (true, _) => State::Switching,
                (false, Some(_)) => State::Recovering,
                (false, None) => State::Switched,
            }
        } else if self.unconfirmed {
            State::Recovering
        } else if members.all(|it| self.rank(it) == Rank::Usable) {
            State::Available
        } else {
            State::Abnormal
        }
    }

    /// The member that has an active-standby group. `None` for a weighted one.
    pub fn active(&self) -> Option<usize> {
        (self.config.mode == GroupMode::ActiveStandby).then_some(self.active)
    }

    /// The member that somebody has switched to, if that is not taken back.
    pub fn manual(&self) -> Option<usize> {
        self.manual
    }

    /// What is known of a member.
    pub fn health(&self, member: usize) -> Option<Health> {
        self.health.get(member).copied().flatten()
    }

    /// Whether packets may begin something with a member.
    pub fn is_enabled(&self, member: usize) -> bool {
        self.config.members.get(member).is_some_and(|it| it.enabled)
    }

    /// Whether what is established with a member stays with it, though another may be chosen now.
    pub fn is_living(&self, member: usize) -> bool {
        self.health(member) == Some(Health::Normal)
    }

    /// The members that packets may begin something with, and their shares, all above 0. At least
    /// one, if the group has any.
    pub fn chosen(&self) -> Vec<(usize, u8)> {
        if let Some(active) = self.active() {
            return vec![(active, 100)];
        }
        let most = if self.is_pending() { Rank::Enabled } else { Rank::Usable };
        let value = |&(at, weight): &(usize, u8)| (self.rank(at).min(most), weight > 0);
        let all: Vec<(usize, u8)> =
            self.config.members.iter().map(|it| it.weight).enumerate().collect();
        let best = all.iter().map(value).max();
        let among = all.into_iter().filter(|member| Some(value(member)) == best);
        // Of those that share what no other can take, none is said to take more.
        among.map(|(at, weight)| (at, weight.max(1))).collect()
    }

    /// Whether nothing can be said of a member that could be chosen. Until then the group is as if
    /// all were well: nobody is sent elsewhere because one zone was checked before the other.
    fn is_pending(&self) -> bool {
        let mut members = self.config.members.iter().zip(&self.health);
        members.any(|(member, health)| member.enabled && health.is_none())
    }

    fn rank(&self, member: usize) -> Rank {
        match self.health[member] {
            _ if !self.config.members[member].enabled => Rank::Disabled,
            Some(Health::Normal) => Rank::Usable,
            Some(Health::Abnormal) | None => Rank::Enabled,
        }
    }

    fn preferred(&self) -> usize {
        self.manual.unwrap_or_else(|| self.config.first())
    }

    /// Chooses the active member anew, and tells if anything is otherwise.
    fn decide(&mut self, cause: Cause, now: Instant) {
        if self.deleting {
            return;
        }
        if self.config.mode == GroupMode::ActiveStandby && !self.is_pending() {
            let (preferred, members) = (self.preferred(), 0..self.health.len());
            // Of equal ones the preferred, of which there is only one.
            let best = members.max_by_key(|it| (self.rank(*it), *it == preferred));
            let best = best.unwrap_or(preferred);
            if self.rank(best) > self.rank(self.active) {
                self.activate(best);
            }
            let waits = self.active != preferred && self.rank(preferred) == Rank::Usable;
            self.returns = match (self.returns, self.config.return_after) {
                (None, Some(after)) if waits => Some(now + after),
                (Some(at), Some(_)) if waits => Some(at),
                _ => None,
            };
            if self.returns.is_some_and(|at| at <= now) {
                self.activate(preferred);
            }
        }
        self.tell(cause);
    }

    fn activate(&mut self, member: usize) {
        self.unconfirmed |= member != self.active;
        self.active = member;
        self.returns = None;
    }

    fn tell(&mut self, cause: Cause) {
        let now = (self.state(), self.active);
        let before = std::mem::replace(&mut self.told, now);
        if before != now {
            let change = Change { from: before.0, to: now.0, active: self.active(), cause };
            self.changes.push_back(change);
        }
    }
}
