//! Settings that the format has and this version does not act on yet.
//!
//! They are refused when they ask for more than the default, so that nobody believes in a feature
//! that is not there. To make one available, delete its row.

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
];

/// Why a setting cannot be used yet, if it cannot.
pub(super) fn not_yet(key: &str) -> Option<&'static NotYet> {
    NOT_YET.iter().find(|row| row.key == key)
}
