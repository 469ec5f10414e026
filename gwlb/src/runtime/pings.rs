//! Pings that are under way: who waits for each, and when it was where.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::control::{CheckId, PingError};
use crate::dataplane::snapshot::TargetSlot;

/// So many are under way at a time: one through every target of a large group.
pub(super) const MOST: usize = 512;

/// What somebody wants pinged.
#[derive(Debug)]
pub(super) struct Wanted {
    pub endpoint: String,
    pub target: Option<std::net::IpAddr>,
    pub size: u16,
    pub timeout: Duration,
}

/// A ping that was sent, or was to be.
#[derive(Debug)]
pub(super) struct Pinged {
    pub target: SocketAddr,
    /// Bytes of the inner packet.
    pub size: u16,
    pub outcome: oneshot::Receiver<Outcome>,
}

/// How a ping ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It came back, and is ours.
    Returned(Times),
    /// It did not, within the time.
    Lost,
    /// It is too long for the way to the target.
    TooLong,
    /// The kernel has refused it.
    NotSent(String),
}

/// How long it took to each place, from the moment at which it was given to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// Until the kernel had taken it.
    pub kernel: Duration,
    /// Until a worker had it back.
    pub returned: Duration,
    /// Until it was known whose it was.
    pub verified: Duration,
}

/// Why nothing was sent.
#[derive(Debug, Error)]
pub(super) enum PingRefused {
    /// There is nobody to ping.
    #[error(transparent)]
    Nobody(#[from] PingError),
    /// Others ping.
    #[error("{MOST} pings are under way, and these would be too many; try again in a second")]
    TooMany,
    /// The gateway is ending.
    #[error("the gateway is ending")]
    Ending,
}

/// Those that are under way.
#[derive(Debug, Default)]
pub(super) struct Pings(HashMap<CheckId, UnderWay>);

#[derive(Debug)]
struct UnderWay {
    target: TargetSlot,
    begun: Instant,
    kernel: Instant,
    tell: oneshot::Sender<Outcome>,
}

impl Pings {
    /// For how many more there is room.
    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.0.len())
    }

    /// One was sent.
    pub fn sent(
        &mut self,
        (check, target): (CheckId, TargetSlot),
        (begun, kernel): (Instant, Instant),
        tell: oneshot::Sender<Outcome>,
    ) {
        self.0.insert(check, UnderWay { target, begun, kernel, tell });
    }

    /// A probe came back through this target at `at`, as is known `now`; says whether it was a ping.
    pub fn returned(&mut self, check: CheckId, by: TargetSlot, at: Instant, now: Instant) -> bool {
        // Nobody can vouch for another.
        if self.0.get(&check).is_none_or(|it| it.target != by) {
            return false;
        }
        let Some(UnderWay { begun, kernel, tell, .. }) = self.0.remove(&check) else {
            return false;
        };
        let since = |at: Instant| at.saturating_duration_since(begun);
        // A worker may be so fast that the kernel has not even returned here.
        let kernel = since(kernel).min(since(at));
        // Whoever asked may be gone.
        let times = Times { kernel, returned: since(at), verified: since(now) };
        let _ = tell.send(Outcome::Returned(times));
        true
    }

    /// The time of one is over.
    pub fn lost(&mut self, check: CheckId) {
        if let Some(UnderWay { tell, .. }) = self.0.remove(&check) {
            let _ = tell.send(Outcome::Lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::recognise;
    use crate::runtime::clock;
    use crate::runtime::shared::tests::idle_with_control;

    #[test]
    fn a_ping_is_recognised_and_told_once_and_by_its_target_alone() {
        let (_, mut control) = idle_with_control();
        let all = control.ping("vpce-a", None, 0, MOST).unwrap();
        assert!(!all.is_empty());
        let view = control.snapshot();
        let mut pings = Pings::default();
        let begun = clock::now();
        for ping in all {
            let probe = view.pool(ping.pool).probe.expect("every node knows its pings");
            let header = view.target(ping.target).dialect.header_len();
            let inner = geneve::inner::Inner::parse(&ping.packet[header..]).unwrap();
            assert!(probe.is(&inner.flow_key()));
            assert_eq!(inner.total_len, usize::from(ping.size));
            let payload = &ping.packet[header + inner.header_len + 8..];
            let recognised = recognise(&view.keys, payload).unwrap();
            assert_eq!(recognised.check, ping.check);

            let (tell, mut outcome) = oneshot::channel();
            pings.sent((ping.check, ping.target), (begun, begun + MS), tell);
            let other = TargetSlot(ping.target.0 + 1);
            assert!(!pings.returned(ping.check, other, begun, begun));
            assert!(pings.returned(ping.check, ping.target, begun + 3 * MS, begun + 4 * MS));
            assert!(!pings.returned(ping.check, ping.target, begun, begun), "once");
            let times = Times { kernel: MS, returned: 3 * MS, verified: 4 * MS };
            assert_eq!(outcome.try_recv(), Ok(Outcome::Returned(times)));
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_to_ping_is_said() {
        let (_, mut control) = idle_with_control();
        let said = |control: &mut crate::control::Control, endpoint, target| {
            control.ping(endpoint, target, 0, MOST).unwrap_err().to_string()
        };
        assert!(said(&mut control, "vpce-x", None).contains("did you mean"));
        let nobody = Some("192.0.2.200".parse().unwrap());
        assert!(said(&mut control, "vpce-a", nobody).contains("has no target 192.0.2.200"));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut pings = Pings::default();
        let (_, mut control) = idle_with_control();
        let mut waiting = Vec::new();
        while pings.room() > 0 {
            let ping = control.ping("vpce-a", None, 0, MOST).unwrap().remove(0);
            let (tell, outcome) = oneshot::channel();
            pings.sent((ping.check, ping.target), (clock::now(), clock::now()), tell);
            waiting.push((ping.check, outcome));
        }
        assert_eq!(waiting.len(), MOST);
        let (check, mut outcome) = waiting.pop().unwrap();
        pings.lost(check);
        assert_eq!(outcome.try_recv(), Ok(Outcome::Lost));
        assert_eq!(pings.room(), 1);
        let wanted = control.ping("vpce-a", None, 0, 0).unwrap_err();
        assert!(matches!(wanted, PingError::TooMany { room: 0, .. }), "{wanted}");
    }
}
