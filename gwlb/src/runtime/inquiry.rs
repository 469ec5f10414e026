//! Questions to the workers: what only the owner of a flow knows, answered between batches.
//!
//! A worker that is asked serves one step at a time and then goes on with packets, so that whoever
//! asks, and however much, holds up none of them for longer than a step takes. The answers go where
//! the one who asks wants them, who has to bring a queue that never blocks.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::clock;
use super::shared::Shared;
use crate::dataplane::Ingress;
use crate::dataplane::verdict::WorkerId;

/// A question to one worker.
pub(super) trait Inquiry: Send {
    /// Does a step of it: some ten microseconds of work at most, without waiting for anything.
    fn serve(&mut self, ingress: &Ingress, now: Instant) -> Served;
}

/// How far an inquiry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// There is more to do, right after the next packets.
    Partly,
    /// All that was asked is answered, or whoever asked is gone.
    Entirely,
}

/// A question on its way to a worker.
pub(super) type Asked = Box<dyn Inquiry>;

/// Questions that wait for one worker at most, and as many that it has taken up; a crowd of those who
/// ask is told so.
pub(super) const INQUIRIES: usize = 64;

/// The questions that a worker has taken up.
#[derive(Default)]
pub(super) struct Inquiries(VecDeque<Asked>);

impl std::fmt::Debug for Inquiries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inquiries").field(&self.0.len()).finish()
    }
}

impl Inquiries {
    /// Whether nobody waits for an answer.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up those that have come, as long as `next` has any and they are not too many.
    pub fn take_up(&mut self, next: impl FnMut() -> Option<Asked>) {
        let room = INQUIRIES.saturating_sub(self.0.len());
        self.0.extend(std::iter::from_fn(next).take(room));
    }

    /// Does one step of one question; all have their turns.
    pub fn serve(&mut self, ingress: &Ingress, now: Instant) {
        let Some(mut first) = self.0.pop_front() else { return };
        if first.serve(ingress, now) == Served::Partly {
            self.0.push_back(first);
        }
    }
}

/// How often it is tried anew to ask a worker whom others ask: it answers them between its batches.
const ANEW: Duration = Duration::from_millis(1);

/// Asks every worker whether it is there, and waits for their answers at most so long. That others
/// ask a worker so much that it takes no more questions now says nothing about it.
pub(super) fn all_answer(shared: &Shared, within: Duration) -> bool {
    let workers = shared.stats.len();
    let until = clock::now() + within;
    let (tell, answers) = mpsc::sync_channel(workers);
    for worker in 0..workers {
        let ask = || shared.inquire(WorkerId(worker as u16), Box::new(AreYouThere(tell.clone())));
        while ask().is_err() {
            if clock::now() >= until {
                return false;
            }
            thread::sleep(ANEW);
        }
    }
    (0..workers).all(|_| {
        let left = until.saturating_duration_since(clock::now());
        answers.recv_timeout(left).is_ok()
    })
}

struct AreYouThere(mpsc::SyncSender<()>);

impl Inquiry for AreYouThere {
    fn serve(&mut self, _: &Ingress, _: Instant) -> Served {
        // There is room for one word of each; whoever asked may be gone.
        let _ = self.0.try_send(());
        Served::Entirely
    }
}
