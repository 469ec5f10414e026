//! Settings that the format has and this version does not act on yet.
//!
//! Those that would change what happens to packets are refused when they ask for more than the
//! default, so that nobody believes in a feature that is not there. Those that only look on are
//! noted. To make one available, delete its row.

/// A setting that is not available yet.
#[derive(Debug)]
pub(super) struct NotYet {
    /// The table and the key, as in the documentation.
    pub(super) key: &'static str,
    /// What it would do.
    pub(super) purpose: &'static str,
    /// What to write instead, and what happens then.
    pub(super) instead: &'static str,
}

/// All of them.
pub(super) const NOT_YET: &[NotYet] = &[
    NotYet {
        key: "endpoint_service.acceptance_required",
        purpose: "accepting endpoints one by one",
        instead: "leave it out or set it to false: every [[endpoint]] of the file is connected",
    },
    NotYet {
        key: "endpoint_service.allowed_principals",
        purpose: "choosing who may connect an endpoint",
        instead: "leave it out or set it to [\"*\"]: every [[endpoint]] of the file may connect",
    },
    NotYet {
        key: "load_balancer.send_tcp_reset_on_idle_timeout",
        purpose: "resetting flows that have idled out",
        instead: "leave it out or set it to false; `tcp_unknown_flow = \"reset\"` answers every \
                  TCP packet of an unknown flow with a reset",
    },
    NotYet {
        key: "target_group.target_failover.on_unhealthy",
        purpose: "moving the flows of an unhealthy target",
        instead: "leave it out or set it to \"no_rebalance\": flows stay with their target",
    },
    NotYet {
        key: "target_group.target_failover.on_deregistration",
        purpose: "moving the flows of a deregistered target",
        instead: "leave it out or set it to \"no_rebalance\": flows stay with their target",
    },
    NotYet {
        key: "target_group.send_tcp_reset.on_unhealthy",
        purpose: "resetting the flows of an unhealthy target",
        instead: "leave it out or set it to false: flows stay with their target",
    },
    NotYet {
        key: "target_group.send_tcp_reset.on_deregistration",
        purpose: "resetting the flows of a deregistered target",
        instead: "leave it out or set it to false: flows stay with their target",
    },
];

/// Why a setting cannot be used yet, if it cannot.
pub(super) fn not_yet(key: &str) -> Option<&'static NotYet> {
    NOT_YET.iter().find(|row| row.key == key)
}

/// A setting that is accepted and checked, and has no effect yet.
#[derive(Debug)]
pub(super) struct Idle {
    /// The table and the key, as in the documentation.
    pub(super) key: &'static str,
    /// What does not happen.
    pub(super) effect: &'static str,
}

/// All of them.
pub(super) const IDLE: &[Idle] = &[Idle {
    key: "target_group.health_check",
    effect: "this version does not probe targets yet: each counts as healthy while it is in the \
             file, and `when_none_healthy` never applies",
}];

/// Whether a setting has no effect yet.
pub(super) fn idle(key: &str) -> Option<&'static Idle> {
    IDLE.iter().find(|row| row.key == key)
}
