//! How time passes at a gateway: as it should, or while nobody does anything.

use std::time::{Duration, Instant};

use gwlb::control::Input;
use thiserror::Error;

use super::Gateway;
use super::journal::Happened;

/// How often something may be due at one moment. What is done brings about what is to be done at
/// once, and that a few times over, but not for ever.
const ROUNDS: u32 = 1000;

/// Time cannot pass at a gateway: whatever is done, something is due at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "there is no progress at {at:?}: {} is due at {due:?}, however often it is called",
    if *control { "the control plane" } else { "a worker" }
)]
pub struct Stuck {
    /// The moment, counted from the gateway's start.
    pub at: Duration,
    /// When the first of what is due should have been done.
    pub due: Duration,
    /// Whether it is the control plane that is due.
    pub control: bool,
}

impl Gateway {
    /// When something is due next, counted from the gateway's start.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.due().map(|due| due.saturating_duration_since(self.start))
    }

    fn due(&self) -> Option<Instant> {
        let workers = self.workers.iter().filter_map(|worker| worker.ingress.poll_timeout());
        let unanswered = self.unanswered.iter().map(|(due, _)| *due);
        workers.chain(self.control.poll_timeout()).chain(unanswered).min()
    }

    /// Time passes, on the clock and in the calendar; everything that is due is done at its time.
    ///
    /// # Panics
    /// If something is due again and again, and time cannot pass.
    pub fn advance(&mut self, by: Duration) {
        if let Err(stuck) = self.try_advance(by) {
            panic!("{stuck}");
        }
    }

    /// The same, for whoever wants to know that time cannot pass.
    ///
    /// # Errors
    /// [`Stuck`], if something is due again and again.
    pub fn try_advance(&mut self, by: Duration) -> Result<(), Stuck> {
        if std::mem::take(&mut self.asleep) {
            let _ = self.now();
            self.exits.journal.note(|| Happened::Awake);
        }
        let end = self.elapsed + by;
        let mut rounds = 0;
        while let Some(due) = self.due().filter(|&due| due <= self.start + end) {
            let at = self.elapsed.max(due.saturating_duration_since(self.start));
            rounds = if at > self.elapsed { 0 } else { rounds + 1 };
            if rounds > ROUNDS {
                let due = due.saturating_duration_since(self.start);
                return Err(Stuck {
                    at,
                    due,
                    control: self.control.poll_timeout().is_some_and(|it| it <= self.start + at),
                });
            }
            self.elapsed = at;
            let now = self.now();
            for worker in &mut self.workers {
                if worker.ingress.poll_timeout().is_some_and(|due| due <= now) {
                    worker.handle_timeout(now, &mut self.exits);
                }
            }
            self.hand_over();
            let over = self.unanswered.extract_if(.., |(due, _)| *due <= now);
            for (_, input) in over.collect::<Vec<_>>() {
                if let Input::TunnelProbe { check, sequence, .. } = input {
                    self.tunnels.remove(&(check, sequence));
                }
                self.tell(input);
            }
            self.control.handle_timeout(now);
            self.exits.journal.note(|| Happened::Timeout);
            self.follow();
        }
        self.elapsed = end;
        let (wall_clock, at) = self.wall_clock;
        self.control(Input::WallClock(wall_clock + end.saturating_sub(at)));
        Ok(())
    }

    /// Time passes, and nothing is done that is due: the process is stopped, or has no processor.
    /// What is due then is done late, when time passes as usual again, and what is done before that
    /// is done first.
    pub fn sleep(&mut self, by: Duration) {
        self.elapsed += by;
        self.asleep = true;
        let _ = self.now();
        self.exits.journal.note(|| Happened::Slept);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Setup;
    use super::super::journal::Step;
    use super::*;
    use crate::model::{Fleet, Model};

    #[test]
    fn what_was_due_while_it_slept_is_done_when_it_wakes_up() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/gateway.toml");
        let settings = gwlb::config::load(std::path::Path::new(file)).unwrap();
        let setup = Setup { journal: true, ..Setup::of(1) };
        let mut gateway = Gateway::new(settings.clone(), setup);
        let mut steps = gateway.take_journal();
        let due = gateway.poll_timeout().unwrap();
        let late = due + Duration::from_secs(100);
        gateway.sleep(late);
        assert_eq!(gateway.poll_timeout(), Some(due), "nothing was done");
        gateway.advance(Duration::ZERO);
        assert!(gateway.poll_timeout().unwrap() > late);
        let what_follows = gateway.take_journal();
        assert!(what_follows.iter().all(|step| step.time == late));
        assert!(what_follows.iter().any(|step| matches!(step.what, Happened::Timeout)));
        steps.extend(what_follows);

        let follow = |steps: &[Step]| {
            let mut model = Model::new(&settings, &setup, &Fleet::default());
            steps.iter().try_for_each(|step| model.follow(step))
        };
        assert_eq!(follow(&steps), Ok(()));
        // Who does not say that it slept is late.
        steps.retain(|step| !matches!(step.what, Happened::Slept));
        assert!(follow(&steps).unwrap_err().to_string().contains("was to be probed"));
    }
}
