//! Targets that are healthy and return nothing: noticed, and the likely cause named.
//!
//! Nothing is decided by it. An appliance may keep what it gets on purpose.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::dataplane::stats::TargetTotals;

/// What the kernel and the workers have seen go wrong on the way back, since the start. Each only
/// counts up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Symptoms {
    /// Datagrams whose outer UDP checksum was wrong (`InCsumErrors`).
    pub udp_checksum_errors: u64,
    /// Packets that the reverse path filter took for forged (`IPReversePathFilter`).
    pub reverse_path_filter: u64,
    /// Datagrams from an address that is no target's.
    pub unknown_source: u64,
    /// Datagrams to another node's address than that of their endpoint.
    pub wrong_gateway_address: u64,
    /// Datagrams whose cookie is not that of their inner flow.
    pub bad_cookie: u64,
}

impl Symptoms {
    fn since(&self, earlier: &Self) -> Self {
        let of = |field: fn(&Self) -> u64| field(self).saturating_sub(field(earlier));
        Self {
            udp_checksum_errors: of(|it| it.udp_checksum_errors),
            reverse_path_filter: of(|it| it.reverse_path_filter),
            unknown_source: of(|it| it.unknown_source),
            wrong_gateway_address: of(|it| it.wrong_gateway_address),
            bad_cookie: of(|it| it.bad_cookie),
        }
    }
}

/// What is probably wrong with a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Diagnosis {
    /// For programs.
    pub code: DiagnosisCode,
    /// For people: what is wrong and what to do.
    pub text: String,
}

/// What is probably wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiagnosisCode {
    /// It sends wrong outer UDP checksums.
    UdpChecksum,
    /// The reverse path filter drops what it returns.
    ReversePathFilter,
    /// It answers from another address.
    WrongSource,
    /// It answers to another address.
    WrongGatewayAddress,
    /// It answers with the cookie of another flow.
    BadCookie,
    /// Nothing comes back, and nothing says why.
    DataPath,
    /// Large packets do not come back.
    Mtu,
}

impl DiagnosisCode {
    /// The name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpChecksum => "udp_checksum",
            Self::ReversePathFilter => "reverse_path_filter",
            Self::WrongSource => "wrong_source",
            Self::WrongGatewayAddress => "wrong_gateway_address",
            Self::BadCookie => "bad_cookie",
            Self::DataPath => "data_path",
            Self::Mtu => "mtu",
        }
    }
}

impl fmt::Display for DiagnosisCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Diagnosis {
    /// The likely cause of a silence during which this has been seen.
    fn of_silence(seen: &Symptoms, tolerates_bad_checksum: bool) -> Self {
        let checksum = if tolerates_bad_checksum { 0 } else { seen.udp_checksum_errors };
        // Of equal numbers the one that comes first here: it is the more particular.
        let causes = [
            (checksum, DiagnosisCode::UdpChecksum),
            (seen.reverse_path_filter, DiagnosisCode::ReversePathFilter),
            (seen.bad_cookie, DiagnosisCode::BadCookie),
            (seen.wrong_gateway_address, DiagnosisCode::WrongGatewayAddress),
            (seen.unknown_source, DiagnosisCode::WrongSource),
        ];
        let most = causes.iter().map(|&(count, _)| count).max().unwrap_or(0);
        let cause = causes.iter().find(|&&(count, _)| count == most && most > 0);
        let code = cause.map_or(DiagnosisCode::DataPath, |&(_, code)| code);
        let text = match code {
            DiagnosisCode::UdpChecksum => format!(
                "it is healthy and returns nothing, while {most} datagrams came with a wrong UDP \
                 checksum, which the kernel drops: repair the appliance, or set \
                 `tolerate_bad_udp_checksum = true` for its target group"
            ),
            DiagnosisCode::ReversePathFilter => format!(
                "it is healthy and returns nothing, while the kernel took {most} packets for \
                 forged (rp_filter): route the appliance's address through the device on which \
                 its packets come in, or set net.ipv4.conf.*.rp_filter to 0 or 2"
            ),
            DiagnosisCode::BadCookie => format!(
                "it is healthy and none of its packets is accepted, while {most} came with the \
                 cookie of another flow: it must return the Geneve header that the flow's latest \
                 packet had, and must not change addresses or ports inside"
            ),
            DiagnosisCode::WrongGatewayAddress => format!(
                "it is healthy and returns nothing, while {most} datagrams came to another node's \
                 address: it must answer to the address that a packet came from"
            ),
            DiagnosisCode::WrongSource => format!(
                "it is healthy and returns nothing, while {most} datagrams came from an address \
                 that is no target's: it must answer from the address that it was sent to"
            ),
            DiagnosisCode::DataPath | DiagnosisCode::Mtu => {
                "it answers its health check and returns nothing: is its data path up? (forwarding \
                 on, its own rp_filter off, a firewall that lets UDP 6081 out, rules that let the \
                 traffic through)"
                    .to_owned()
            }
        };
        Self { code, text }
    }

    /// Large packets do not come back: only up to `usable` bytes, though `fits` would fit.
    pub(super) fn of_mtu(usable: u16, fits: u16) -> Self {
        let text = format!(
            "packets of up to {usable} bytes come back, larger ones do not, though {fits} bytes \
             fit into the tunnel: raise the MTU of the appliance's devices"
        );
        Self { code: DiagnosisCode::Mtu, text }
    }
}

/// Shorter than this is no silence: appliances that warm up are slow, and few packets may all be
/// ones that a firewall refuses.
const LEAST: Duration = Duration::from_secs(5);
const LEAST_PACKETS: u64 = 20;
/// What was sent longer ago than this says nothing about now.
const LONGEST: Duration = Duration::from_mins(1);

/// What is watched of one target.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// Where the present silence begins.
    begun: Option<Mark>,
    diagnosis: Option<Diagnosis>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    sent: u64,
    returned: u64,
    symptoms: Symptoms,
}

/// What a look at a target has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Diagnosed(Diagnosis),
    Cleared(DiagnosisCode),
}

impl Watch {
    /// What is wrong, if anything.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        self.diagnosis.as_ref()
    }

    /// A look at the counters of a target that is healthy, or not.
    pub fn look(
        &mut self,
        healthy: bool,
        totals: &TargetTotals,
        (symptoms, tolerates_bad_checksum): (&Symptoms, bool),
        now: Instant,
    ) -> Option<Change> {
        let here = Mark {
            at: now,
            sent: totals.sent_packets,
            returned: totals.returned_packets,
            symptoms: *symptoms,
        };
        let begun = self.begun.filter(|begun| healthy && begun.returned == here.returned);
        let Some(begun) = begun else {
            self.begun = healthy.then_some(here);
            return self.diagnosis.take().map(|it| Change::Cleared(it.code));
        };
        let lasted = now.saturating_duration_since(begun.at);
        self.begun = Some(begun);
        if self.diagnosis.is_none()
            && lasted >= LEAST
            && here.sent.saturating_sub(begun.sent) >= LEAST_PACKETS
        {
            let seen = symptoms.since(&begun.symptoms);
            let diagnosis = Diagnosis::of_silence(&seen, tolerates_bad_checksum);
            self.diagnosis = Some(diagnosis.clone());
            return Some(Change::Diagnosed(diagnosis));
        }
        if self.diagnosis.is_none() && lasted >= LONGEST {
            self.begun = Some(here);
        }
        None
    }
}
