//! What is held besides what the judge and the model of a gateway see: of what hosts get, of the
//! books, of conversations that are over, and of what is left when all is quiet.

use super::super::hosts::{Conversation, Deeds, Ending};
use super::super::judge::balanced;
use super::{Duration, Happening, Kind, Layout, Violation, World, Wrong, of_model};

/// As many packets of a connection may be lost, and no end gives up because of it: together with
/// those that may have changed what the gateway knows of it.
const LOSSES: u32 = 7;
/// So long a pause may last for longer than its host meant.
const AGAIN: Duration = Duration::from_secs(10);
/// As many packets of anything else. Whoever asks for the last time wants an answer.
const FEWER_LOSSES: u32 = 5;

impl World<'_> {
    pub(super) fn follow_hosts(&mut self, deeds: Deeds) -> Result<(), Violation> {
        for (after, timer) in deeds.timers {
            self.schedule(self.now + after, Happening::Host(timer));
        }
        for (number, side, packet) in deeds.sent {
            self.send_from_host(number, side, &packet);
        }
        if let Some((clause, text)) = deeds.wrong {
            return Err(self.violation(None, Wrong::new(clause, text)));
        }
        if let Some(number) = deeds.denied {
            let talk = &self.hosts.talks[&number];
            // Of two services in a row one may be bypassed, and the packet does not end there.
            let in_a_row = self.plan.world.layout == Layout::Chained
                && self.sites.iter().any(|site| site.judge.may_bypass);
            if talk.inspected && !talk.bypassed && !in_a_row {
                let text = format!("no firewall lets this through: {}", talk.describe());
                return Err(self.violation(None, Wrong::new("NoUninspectedPath", text)));
            }
        }
        for number in deeds.ended {
            self.talk_ends(number)?;
        }
        Ok(())
    }

    /// A conversation is over. It has ended well, or something was done to it while it lasted: what
    /// comes later is no excuse.
    fn talk_ends(&mut self, number: u32) -> Result<(), Violation> {
        let talk = &self.hosts.talks[&number];
        let name = match talk.end {
            Some(Ending::Done) => "done",
            Some(Ending::Reset) => "reset",
            Some(Ending::GaveUp) => "given up",
            None => "without end",
        };
        self.coverage.add(Kind::World, &format!("talks {name}"), 1);
        match self.excuse(talk) {
            Some(excuse) => {
                self.coverage.add(Kind::World, &format!("talks excused: {excuse}"), 1);
                Ok(())
            }
            None if talk.end == Some(Ending::Done) => {
                self.coverage.add(Kind::World, "talks unharmed", 1);
                Ok(())
            }
            None => {
                let text = format!("nothing was done to it, and it is {name}: {}", talk.describe());
                Err(self.violation(None, Wrong::new("Unharmed", text)))
            }
        }
    }

    /// Why a conversation need not end well, if it is over now.
    fn excuse(&self, talk: &Conversation) -> Option<&'static str> {
        // What is lost at the end of a pause makes it longer, until it is sent again.
        let pause = talk.pause() + AGAIN;
        let patient = pause < self.shortest() && pause < Duration::from_mins(15);
        let in_order = self.plan.world.by_flow && !self.network.is_rough();
        let enough = if talk.tcp_states().is_some() { LOSSES } else { FEWER_LOSSES };
        if talk.is_denied() {
            Some("firewalls let nobody through to it")
        } else if talk.harm.is_some() {
            talk.harm
        } else if talk.losses > enough {
            Some("many of its packets were lost")
        } else if !patient {
            Some("it pauses for longer than it is remembered")
        } else if talk.is_fragmented() && !in_order {
            Some("its fragments come in any order")
        } else {
            None
        }
    }

    fn shortest(&self) -> Duration {
        self.plan.world.policy.shortest().min(self.plan.world.other.shortest())
    }

    /// Looks at the books.
    pub(super) fn audit(&mut self) -> Result<(), Violation> {
        for index in 0..self.sites.len() {
            let Some(gateway) = &self.sites[index].gateway else { continue };
            let totals = gateway.totals();
            let ledgers = [("TUN", &totals.tun), ("UDP", &totals.udp)];
            for (name, ledger) in ledgers {
                balanced(name, ledger).map_err(|wrong| self.violation(Some(index), wrong))?;
            }
            let model = &self.sites[index].model;
            let books = model.check_books(&totals, &gateway.target_totals());
            if let Err(found) = books.and_then(|()| model.check_hostile(&gateway.hostile())) {
                return Err(self.violation(Some(index), of_model(&found)));
            }
        }
        Ok(())
    }

    /// What must hold when all is quiet.
    pub(super) fn finish(&mut self) -> Result<(), Violation> {
        self.audit()?;
        for (index, site) in self.sites.iter().enumerate() {
            let Some(gateway) = &site.gateway else { continue };
            let totals = gateway.totals();
            let queued = (totals.tun.queued(), totals.udp.queued());
            if queued != (0, 0) {
                let text = format!("{queued:?} packets are queued for ever");
                return Err(self.violation(Some(index), Wrong::new("Bounded", text)));
            }
            if totals.flows.active() != 0 {
                let text = format!("{} flows are never forgotten", totals.flows.active());
                return Err(self.violation(Some(index), Wrong::new("Bounded", text)));
            }
        }
        for appliance in &self.appliances {
            if appliance.unaccounted() != 0 {
                let text = format!("appliance {} has lost packets", appliance.address);
                return Err(self.violation(None, Wrong::new("Conservation", text)));
            }
        }
        let talks = self.hosts.talks.iter();
        let left = talks.filter(|(_, talk)| talk.end.is_none()).map(|(number, _)| *number);
        for number in left.collect::<Vec<_>>() {
            self.talk_ends(number)?;
        }
        Ok(())
    }
}
