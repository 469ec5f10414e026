//! What a health check finds out.

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The target answered as it should.
    Passed,
    /// The connection was refused.
    Refused,
    /// There was no answer within the time.
    TimedOut,
    /// HTTP: a status that the matcher does not take.
    Mismatch(u16),
    /// Anything else that the target did wrong.
    Failed,
    /// Our own fault, which says nothing about the target.
    Local,
}
