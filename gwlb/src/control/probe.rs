//! How a probe of a target's health ended. Making probes is the runtime's business.

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// good
    Passed,
    /// the connection was refused (RST to the SYN)
    Refused,
    /// no answer within the time
    TimedOut,
    /// HTTP(S): a status that the matcher does not take
    Mismatch(u16),
    /// anything else that the target did wrong: unreachable, closed early, no HTTP, a TLS failure
    Failed,
    /// our own fault: no file descriptor, no such address on this host
    Local,
}
