//! What all scenes share: the stage with its load and its witness, what was seen so far, waiting
//! with a limit, and the judgement on what happened to connections.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::admin::Admin;
use super::design::Design;
use super::load::{Connection, Load, PACE, State};
use super::report::Scene;
use super::witness::{Arrival, Witness, monotonic};
use crate::lab::diagnosis;
use crate::lab::error::LabError;
use crate::lab::plan::{ApplianceSpec, Plan};
use crate::lab::progress::Progress;
use crate::lab::stage::Stage;
use crate::lab::statistics::{GatewayStatus, Target};
use crate::runtime::clock;

/// Between two looks at the gateway.
const LOOK: Duration = Duration::from_millis(20);
/// How long answers that are under way may take.
const CATCH_UP: Duration = Duration::from_secs(8);

/// The act as it is played.
pub(super) struct Act<'a> {
    pub plan: &'a Plan,
    pub stage: &'a mut Stage,
    pub progress: &'a mut Progress,
    pub admin: Admin,
    pub load: Load,
    pub witness: Witness,
    pub design: Design,
    /// State and reason of each target, as last told.
    known: HashMap<String, (String, Option<String>)>,
    /// Since when appliances are unhealthy.
    unhealthy: HashMap<usize, Instant>,
    scenes: Vec<Scene>,
    begun: Instant,
}

/// Where everything stood at one moment.
pub(super) struct Mark {
    pub at: Instant,
    pub connections: Vec<Connection>,
    pub gateway: GatewayStatus,
}

/// The connections of one appliance, when it went.
pub(super) struct Victims {
    pub appliance: usize,
    pub ids: Vec<usize>,
}

impl<'a> Act<'a> {
    pub(super) fn begin(
        plan: &'a Plan,
        stage: &'a mut Stage,
        progress: &'a mut Progress,
        design: Design,
    ) -> Result<Self, LabError> {
        let doors = plan.appliances.iter().map(|appliance| stage.netns(appliance.name));
        let witness = Witness::new(doors.collect::<Result<Vec<_>, _>>()?)?;
        let load = Load::start(plan, stage)?;
        let admin = Admin::new(stage.admin_socket());
        Ok(Self {
            plan,
            stage,
            progress,
            admin,
            load,
            witness,
            design,
            known: HashMap::new(),
            unhealthy: HashMap::new(),
            scenes: Vec::new(),
            begun: clock::now(),
        })
    }

    /// What was found.
    pub(super) fn end(self) -> Vec<Scene> {
        self.scenes
    }

    /// A scene begins.
    pub(super) fn raise(&mut self, name: &'static str, title: &'static str) -> Scene {
        self.begun = clock::now();
        self.say(format!("── {title}"));
        Scene::new(name, title)
    }

    /// A scene is over.
    pub(super) fn finish(&mut self, mut scene: Scene) {
        let took = clock::now().saturating_duration_since(self.begun).as_secs_f64();
        scene.seconds = (took * 1e3).round() / 1e3;
        for check in scene.checks.iter().filter(|check| !check.ok) {
            self.progress.done(format!("FAILED {}: {}", check.name, check.detail));
        }
        self.scenes.push(scene);
    }

    /// Something that the play does.
    pub(super) fn say(&mut self, what: impl Into<String>) {
        self.progress.done(what);
    }

    /// The place of an appliance in the plan.
    pub(super) fn appliance(&self, name: &str) -> (usize, ApplianceSpec) {
        let mut all = self.plan.appliances.iter().enumerate();
        let found = all.find(|(_, appliance)| appliance.name == name);
        // Every name is a constant of the plan.
        found.map_or((0, self.plan.appliances[0]), |(index, appliance)| (index, *appliance))
    }

    /// The name of an appliance.
    pub(super) fn name(&self, index: usize) -> &'static str {
        self.plan.appliances[index].name
    }

    /// What the gateway counts; changes of targets' states go into the timeline.
    pub(super) async fn look(&mut self) -> Result<GatewayStatus, LabError> {
        let status = self.stage.gateway_counters().await?;
        for target in &status.targets {
            let now = (target.state.clone(), target.reason.clone());
            let known = self.known.insert(target.address.clone(), now.clone());
            if known.as_ref() == Some(&now) || (known.is_none() && now.0 == "healthy") {
                continue;
            }
            let name = diagnosis::appliance(self.plan, target).map_or("?", |it| it.name);
            let (index, _) = self.appliance(name);
            match now.0.as_str() {
                "unhealthy" => self.unhealthy.insert(index, since(target)),
                _ => self.unhealthy.remove(&index),
            };
            let reason = target.reason.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
            let what = format!("{name} is {}{reason}", target.state);
            // Only of states it is known since when they are so.
            let same = known.is_some_and(|known| known.0 == target.state);
            let at = if same { clock::now() } else { since(target) };
            self.progress.happened(at, what);
        }
        Ok(status)
    }

    /// Waits until the gateway and the connections are as they should be, but not longer than
    /// `limit`; whether they are.
    pub(super) async fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Self, &GatewayStatus) -> bool,
    ) -> Result<bool, LabError> {
        self.progress.doing(format!("waiting: {what}"));
        let until = clock::now() + limit;
        loop {
            let status = self.look().await?;
            if done(self, &status) {
                return Ok(true);
            }
            if clock::now() > until {
                let seconds = limit.as_secs_f64();
                self.say(format!("waited {seconds:.1} s in vain: {what}"));
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }

    /// Lets the play go on for a while, watching.
    pub(super) async fn watch_for(&mut self, time: Duration) -> Result<(), LabError> {
        let until = clock::now() + time;
        self.wait("the play goes on", time * 2, |_, _| clock::now() >= until).await.map(drop)
    }

    /// Waits until an appliance is in this state.
    pub(super) async fn wait_for_state(
        &mut self,
        index: usize,
        state: &str,
        limit: Duration,
    ) -> Result<Option<Instant>, LabError> {
        let appliance = self.plan.appliances[index];
        let what = format!("{} becomes {state}", appliance.name);
        let mut when = None;
        self.wait(&what, limit, |act, status| {
            let target = target(act.plan, status, &appliance);
            when = target.filter(|target| target.state == state).map(since);
            when.is_some()
        })
        .await?;
        Ok(when)
    }

    /// Where everything stands.
    pub(super) async fn mark(&mut self) -> Result<Mark, LabError> {
        let gateway = self.look().await?;
        Ok(Mark { at: clock::now(), connections: self.load.connections(), gateway })
    }

    /// Waits until every record sent by now is answered, or its connection is over.
    pub(super) async fn catch_up(&mut self) -> Result<bool, LabError> {
        let sent = self.load.connections();
        self.wait("every record is answered", CATCH_UP, |act, _| {
            let now = act.load.connections();
            sent.iter().zip(&now).all(|(then, now)| match now.near.state {
                State::Opening => false,
                State::Open => now.near.received >= then.near.sent,
                _ => true,
            })
        })
        .await
    }

    /// The lasting connections of a zone that are open.
    pub(super) fn lasting(&self, zone: usize) -> Vec<Connection> {
        let of_zone = |it: &Connection| it.zone == zone;
        self.load.lasting().into_iter().filter(of_zone).collect()
    }

    /// The lasting connections whose packets go to this appliance.
    pub(super) fn connections_of(&self, index: usize) -> Victims {
        let home = |it: &Connection| it.flow.and_then(|flow| self.witness.home(flow));
        let lasting = self.load.lasting();
        let ids = lasting.iter().filter(|it| home(it) == Some(index)).map(|it| it.id).collect();
        Victims { appliance: index, ids }
    }

    /// Where every open, lasting connection is.
    pub(super) fn homes(&self) -> HashMap<usize, usize> {
        let lasting = self.load.lasting();
        let home = |it: &Connection| Some((it.id, self.witness.home(it.flow?)?));
        lasting.iter().filter_map(home).collect()
    }

    /// How many connections are at each appliance.
    pub(super) fn spread(&self, homes: &HashMap<usize, usize>) -> String {
        let mut counts = BTreeMap::new();
        for home in homes.values() {
            *counts.entry(*home).or_insert(0) += 1;
        }
        let each = counts.iter().map(|(home, count)| format!("{} {count}", self.name(*home)));
        each.collect::<Vec<_>>().join(", ")
    }

    /// How many of the connections in `homes` had a packet at somebody else's since.
    pub(super) fn strayed(&self, homes: &HashMap<usize, usize>, since: Instant) -> usize {
        self.strays(homes, since).len()
    }

    /// Of the connections in `homes`, those of which somebody else was sent a packet since; each in
    /// words, with when it first came there.
    pub(super) fn strays(&self, homes: &HashMap<usize, usize>, since: Instant) -> Vec<String> {
        let connections = self.load.connections();
        let stray = |(id, home): (&usize, &usize)| {
            let flow = connections.get(*id)?.flow?;
            let visited = self.witness.visited_since(flow, since);
            let (elsewhere, at) = visited.into_iter().find(|(visited, _)| visited != home)?;
            let (home, elsewhere) = (self.name(*home), self.name(elsewhere));
            let came = match at.checked_duration_since(since) {
                Some(after) => format!("{:.3} s later", after.as_secs_f64()),
                None => "and had been there before".to_owned(),
            };
            Some(format!("{flow} of {home} came to {elsewhere}, {came}"))
        };
        homes.iter().filter_map(stray).collect()
    }

    /// When an appliance was found unhealthy, if it is.
    pub(super) fn unhealthy_since(&self, index: usize) -> Option<Instant> {
        self.unhealthy.get(&index).copied()
    }

    /// Flows that began at this appliance since: its first sight of flows that nobody had seen
    /// before.
    pub(super) fn new_flows_at(&self, index: usize, since: Instant) -> Vec<Arrival> {
        let arrivals = self.witness.arrivals_since(since).into_iter();
        let new = |it: &Arrival| it.appliance == index && !self.witness.knew(it.flow, it.at);
        arrivals.filter(new).collect()
    }

    /// Opens so many lasting connections to a zone, and waits until they are open.
    pub(super) async fn open(&mut self, zone: usize, count: usize) -> Result<bool, LabError> {
        let wanted = self.lasting(zone).len() + count;
        self.load.open(zone, count);
        let what = format!("{count} connections are opened");
        let limit = Duration::from_secs(10);
        self.wait(&what, limit, |act, _| {
            let open = act.lasting(zone);
            open.len() >= wanted && open.iter().all(|it| it.near.received > 0)
        })
        .await
    }

    /// Writes the file as the design is now, and has the gateway read it.
    pub(super) async fn reload(&mut self) -> Result<serde_json::Value, LabError> {
        self.stage.write_configuration(self.plan, &self.design.text(self.plan))?;
        let answer = self.admin.reload(None).await?.demand("reload")?;
        Ok(answer.body)
    }

    /// Checks that nothing happened to any connection, nor to any packet, since.
    pub(super) async fn check_unharmed(
        &mut self,
        scene: &mut Scene,
        since: &Mark,
    ) -> Result<(), LabError> {
        let caught_up = self.catch_up().await?;
        let mut harm = Harm::between(&since.connections, &self.load.connections());
        if harm.lost() > 0 {
            // Whether a repetition was needless, its receiver says after the answer.
            self.watch_for(2 * PACE).await?;
            harm = Harm::between(&since.connections, &self.load.connections());
        }
        let gateway = self.look().await?.since(&since.gateway);
        let drops = losses(&gateway, &since.gateway);
        let ok = caught_up && harm.missing == 0 && harm.wrong == 0 && harm.lost() == 0;
        let explained = match harm.needless {
            0 => String::new(),
            some => format!(" ({some} repetitions were needless: TCP had only been kept waiting)"),
        };
        let late = if caught_up { "" } else { "; some answers never came" };
        scene.check(
            "nothing-lost",
            ok && drops.is_empty(),
            format!(
                "{} records went there and back, {} missing, {} wrong; {} segments lost{explained}; \
                 dropped by the gateway and its devices: {}{late}",
                harm.records,
                harm.missing,
                harm.wrong,
                harm.lost(),
                if drops.is_empty() { "0".to_owned() } else { drops.join(", ") },
            ),
        );
        scene.check(
            "nothing-broken",
            harm.resets + harm.failures == 0,
            format!("{} connections were reset, {} failed", harm.resets, harm.failures),
        );
        scene.time("slowest answer", harm.slowest, None);
        Ok(())
    }
}

/// What happened to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Harm {
    /// Records that were answered.
    pub records: u64,
    /// Records of connections that are over which were never answered.
    pub missing: u64,
    /// Records out of order, or changed.
    pub wrong: u64,
    pub resets: usize,
    pub failures: usize,
    /// Segments repeated, and repeated though they had arrived.
    pub repeated: u32,
    pub needless: u32,
    pub slowest: Duration,
}

impl Harm {
    /// From one moment to a later one. Connections keep their places, and new ones come behind.
    pub(super) fn between(before: &[Connection], after: &[Connection]) -> Self {
        let mut harm = Self::default();
        for (index, now) in after.iter().enumerate() {
            let then = before.get(index);
            let over = |it: &Connection| !matches!(it.near.state, State::Opening | State::Open);
            if then.is_some_and(over) {
                continue;
            }
            harm.records += now.near.received - then.map_or(0, |then| then.near.received);
            let wrong = |it: &Connection| it.near.wrong + it.far.map_or(0, |far| far.wrong);
            harm.wrong += wrong(now) - then.map_or(0, wrong);
            if over(now) {
                harm.missing += now.near.sent - now.near.received;
            }
            let ends = [Some(now.near), now.far].into_iter().flatten();
            let (mut reset, mut failed) = (false, false);
            for end in ends {
                reset |= matches!(end.state, State::Reset(_));
                failed |= matches!(end.state, State::Failed(..));
            }
            harm.resets += usize::from(reset);
            harm.failures += usize::from(failed && !reset);
            let (repeated, needless) = now.repeated();
            let (repeated_before, needless_before) = then.map_or((0, 0), Connection::repeated);
            harm.repeated += repeated.saturating_sub(repeated_before);
            harm.needless += needless.saturating_sub(needless_before);
            harm.slowest = harm.slowest.max(now.near.slowest);
        }
        harm
    }

    /// Segments that TCP repeated because they had not arrived.
    pub(super) fn lost(&self) -> u32 {
        self.repeated.saturating_sub(self.needless)
    }
}

/// What the gateway and its devices lost, by name. `counted` is what happened since `before`.
fn losses(counted: &GatewayStatus, before: &GatewayStatus) -> Vec<String> {
    let mut losses: Vec<_> =
        counted.drops().iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if counted.io.kernel_drops > 0 {
        losses.push(format!("{} in full receive queues", counted.io.kernel_drops));
    }
    for (now, then) in counted.attachments.iter().zip(&before.attachments) {
        let lost = |now: Option<u64>, then: Option<u64>| {
            now.unwrap_or(0).saturating_sub(then.unwrap_or(0))
        };
        let count = lost(now.tx_dropped, then.tx_dropped) + lost(now.rx_dropped, then.rx_dropped);
        if count > 0 {
            losses.push(format!("{count} in the queue of {}", now.tun));
        }
    }
    losses
}

/// What the gateway says of an appliance.
pub(super) fn target<'s>(
    plan: &Plan,
    status: &'s GatewayStatus,
    appliance: &ApplianceSpec,
) -> Option<&'s Target> {
    let mut targets = status.targets.iter();
    targets.find(|target| diagnosis::appliance(plan, target) == Some(appliance))
}

/// When a target's state changed last, by its own account.
pub(super) fn since(target: &Target) -> Instant {
    monotonic(Duration::try_from_secs_f64(target.since_unix_seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use netio::tcp::TcpInfo;

    use super::*;
    use crate::lab::failover::load::End;

    fn connection(change: impl FnOnce(&mut Connection)) -> Connection {
        let end = End {
            state: State::Open,
            sent: 10,
            received: 10,
            wrong: 0,
            last_sent: None,
            last_received: None,
            slowest: Duration::ZERO,
            tcp: TcpInfo::default(),
        };
        let mut connection =
            Connection { id: 0, zone: 0, short: false, flow: None, near: end, far: Some(end) };
        change(&mut connection);
        connection
    }

    #[test]
    fn every_harm_is_seen_once() {
        let before = [connection(|_| {})];
        let harm = |change: fn(&mut Connection)| Harm::between(&before, &[connection(change)]);
        assert_eq!(harm(|_| {}), Harm::default());
        assert_eq!(harm(|it| (it.near.sent, it.near.received) = (15, 14)).records, 4);
        assert_eq!(harm(|it| it.near.state = State::Closed), Harm::default());
        let missing = harm(|it| (it.near.state, it.near.sent) = (State::Closed, 12));
        assert_eq!(missing.missing, 2);
        assert_eq!(harm(|it| it.near.wrong = 1).wrong, 1);
        let at_server = harm(|it| it.far.as_mut().unwrap().state = State::Reset(clock::now()));
        assert_eq!((at_server.resets, at_server.failures), (1, 0));
        let failed = harm(|it| {
            it.near.state = State::Failed(clock::now(), std::io::ErrorKind::TimedOut);
        });
        assert_eq!((failed.resets, failed.failures), (0, 1));
        let repeated = harm(|it| {
            it.near.tcp.retransmissions = 3;
            it.far.as_mut().unwrap().tcp = TcpInfo { retransmissions: 2, duplicates: 1 };
        });
        assert_eq!((repeated.repeated, repeated.lost()), (5, 4));
    }

    #[test]
    fn what_was_over_before_harms_nobody() {
        let reset = connection(|it| it.near.state = State::Reset(clock::now()));
        assert_eq!(Harm::between(&[reset], &[reset]), Harm::default());
        // One that came in between counts as a whole.
        assert_eq!(Harm::between(&[], &[reset]).resets, 1);
        assert_eq!(Harm::between(&[], &[connection(|_| {})]).records, 10);
    }
}
