//! `[[target_group]]`, without its targets and its checks.

use std::ops::Range;
use std::time::Duration;

use geneve::{Dialect, Stickiness};
use router::source::{Located, Problem};

use super::Drafts;
use super::by_name::ByName;
use super::field::Field;
use super::form::{FailoverForm, ResetForm, TargetGroupForm};
use super::health_check;
use super::load_balancer::LoadBalancerDraft;
use super::names::Names;
use super::preset::Preset;
use super::reader::{Reader, Table};
use super::settings::{
    AfterBypass, Causes, Failover, HealthCheck, Target, TargetGroup, TunnelCheck, WhenNoneHealthy,
};
use super::target;
use super::tunnel_check;
use super::values::{Name, OutOfRange, Port};

/// The longest slow start of AWS's application load balancers, `slow_start.duration_seconds`;
/// gateway load balancers have none (semantics 1b).
const MAX_SLOW_START: i64 = 900;

/// A target group as far as it was understood, with the places that others point to.
#[derive(Debug)]
pub(super) struct TargetGroupDraft {
    pub(super) span: Range<usize>,
    pub(super) name: Option<Name>,
    pub(super) port: Port,
    pub(super) stickiness: Stickiness,
    /// Where the stickiness was given, if it is not the default.
    pub(super) custom_stickiness: Option<Range<usize>>,
    pub(super) when_none_healthy: WhenNoneHealthy,
    /// Where it was asked to let packets pass uninspected.
    pub(super) bypass: Option<Range<usize>>,
    rest: Rest,
}

/// What nobody else asks for.
#[derive(Debug)]
struct Rest {
    dialect: &'static Dialect,
    deregistration_delay: Duration,
    target_failover: Causes<Failover>,
    reset: Reset,
    after_bypass: AfterBypass,
    slow_start: Duration,
    tolerate_bad_udp_checksum: bool,
    health_check: HealthCheck,
    tunnel_check: Option<TunnelCheck>,
}

/// Which flows are reset, and at which ends.
#[derive(Clone, Copy, Debug, Default)]
struct Reset {
    causes: Causes<bool>,
    both_ends: bool,
}

/// What was given for each cause, with its place.
type Given<T> = Causes<Option<Located<T>>>;

/// Checks one table by itself.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<TargetGroupForm>,
    preset: &Preset,
) -> TargetGroupDraft {
    let table = Table { name: "[[target_group]]", span: form.span() };
    let form = form.into_inner();
    let name = reader.name(form.name, &table);
    // AWS's options: appliances for AWS and Alibaba understand them (semantics 1a, 2a).
    let dialect = reader.or_default("dialect", form.dialect, ByName(&Dialect::AWS));
    let port = reader.number("port", form.port, Port::new, Some("6081 is Geneve's port"));
    let stickiness_span = form.stickiness.given().map(Located::span);
    let ByName(stickiness) =
        reader.or_default("stickiness", form.stickiness, ByName(Stickiness::default()));
    let custom_stickiness = stickiness_span.filter(|_| stickiness != Stickiness::default());
    let delay = reader.limited(
        "deregistration_delay_seconds",
        form.deregistration_delay_seconds,
        &preset.deregistration_delay,
        preset.cloud,
        false,
    );
    let failover = reader.optional("target_failover", form.target_failover);
    let failover = failover.map_or_else(Given::default, |form| failover_of(reader, form, preset));
    let reset = reader.optional("send_tcp_reset", form.send_tcp_reset);
    let reset = reset.map_or_else(Reset::default, |form| {
        reset_of(reader, form, &failover, custom_stickiness.as_ref())
    });
    let when_none_healthy = reader.optional("when_none_healthy", form.when_none_healthy);
    let bypass = (when_none_healthy.as_ref())
        .filter(|policy| *policy.get() == WhenNoneHealthy::Bypass)
        .map(Located::span);
    let slow_start = reader.number(
        "slow_start_seconds",
        form.slow_start_seconds,
        |number| OutOfRange::check(number, 0, MAX_SLOW_START),
        Some("0 is no slow start"),
    );
    let probe = reader.optional("health_check", form.health_check);
    let probe = probe.map(Located::into_inner).unwrap_or_default();
    let tunnel = reader.optional("tunnel_check", form.tunnel_check);
    TargetGroupDraft {
        span: table.span,
        name,
        port: port.map_or(Port::GENEVE, Located::into_inner),
        stickiness,
        custom_stickiness,
        when_none_healthy: when_none_healthy.map(Located::into_inner).unwrap_or_default(),
        bypass,
        rest: Rest {
            dialect: dialect.0,
            deregistration_delay: delay.seconds(),
            target_failover: failover
                .map(|value| value.map(Located::into_inner).unwrap_or_default()),
            reset,
            after_bypass: reader.or_default(
                "after_bypass",
                form.after_bypass,
                AfterBypass::default(),
            ),
            slow_start: Duration::from_secs(slow_start.map_or(0, Located::into_inner)),
            tolerate_bad_udp_checksum: reader.or_default(
                "tolerate_bad_udp_checksum",
                form.tolerate_bad_udp_checksum,
                false,
            ),
            health_check: health_check::check(reader, probe, preset),
            tunnel_check: tunnel.map(|form| tunnel_check::check(reader, form.into_inner())),
        },
    }
}

fn failover_of(
    reader: &mut Reader<'_>,
    form: Located<FailoverForm>,
    preset: &Preset,
) -> Given<Failover> {
    let span = form.span();
    let form = form.into_inner();
    // A cause that was not understood is not one that was left out.
    let whole = !matches!(form.on_unhealthy, Field::Wrong(_))
        && !matches!(form.on_deregistration, Field::Wrong(_));
    let mut causes = Causes {
        on_unhealthy: reader.optional("on_unhealthy", form.on_unhealthy),
        on_deregistration: reader.optional("on_deregistration", form.on_deregistration),
    };
    // `ServerFailoverMode` is one switch (semantics 2b).
    if preset.one_failover_switch && whole {
        causes = Causes {
            on_unhealthy: causes.on_unhealthy.clone().or(causes.on_deregistration.clone()),
            on_deregistration: causes.on_deregistration.or(causes.on_unhealthy),
        };
    }
    let value = |cause: &Option<Located<Failover>>| {
        cause.as_ref().map_or_else(Failover::default, |value| *value.get())
    };
    // "Must be equal, cannot be set independently" (semantics 1b).
    if value(&causes.on_unhealthy) != value(&causes.on_deregistration) {
        reader.note(
            span,
            format!(
                "{} wants both causes of `target_failover` to be equal; this gateway keeps them \
                 apart",
                preset.cloud
            ),
        );
    }
    causes
}

fn reset_of(
    reader: &mut Reader<'_>,
    form: Located<ResetForm>,
    failover: &Given<Failover>,
    custom_stickiness: Option<&Range<usize>>,
) -> Reset {
    let span = form.span();
    let form = form.into_inner();
    let on_unhealthy = reader.optional("on_unhealthy", form.on_unhealthy);
    let on_deregistration = reader.optional("on_deregistration", form.on_deregistration);
    let both_ends = reader.optional("both_ends", form.both_ends);
    // Both rules: semantics 1a, TCP reset; each cause for itself.
    let pairs = [
        ("on_unhealthy", &on_unhealthy, &failover.on_unhealthy),
        ("on_deregistration", &on_deregistration, &failover.on_deregistration),
    ];
    for (key, reset, failover) in pairs {
        if let (Some(reset), Some(failover)) = (reset, failover)
            && *reset.get()
            && *failover.get() == Failover::Rebalance
        {
            reader.report(
                reset
                    .problem("a flow is either moved or reset")
                    .label("reset here")
                    .and(failover.span(), "moved there")
                    .help(format!(
                        "choose one of `target_failover.{key}` and `send_tcp_reset.{key}`"
                    )),
            );
        }
    }
    let on = |cause: Option<Located<bool>>| cause.is_some_and(Located::into_inner);
    let causes =
        Causes { on_unhealthy: on(on_unhealthy), on_deregistration: on(on_deregistration) };
    let any = causes.on_unhealthy || causes.on_deregistration;
    if any && let Some(stickiness) = custom_stickiness {
        reader.report(five_tuple_only(span, stickiness.clone()));
    }
    if let Some(both_ends) = both_ends.as_ref().filter(|both_ends| !any && ***both_ends) {
        reader.note(
            both_ends.span(),
            "`both_ends` has no effect: neither `on_unhealthy` nor `on_deregistration` is on",
        );
    }
    Reset { causes, both_ends: on(both_ends) }
}

/// TCP resets need flows that are told apart by their ports (semantics 1a, TCP reset).
pub(super) fn five_tuple_only(reset: Range<usize>, stickiness: Range<usize>) -> Problem {
    Problem::at(reset, "TCP resets need 5-tuple stickiness")
        .label("asked for here")
        .and(stickiness, "the target group's stickiness")
        .help("leave `stickiness` at \"5-tuple\", or the resets out")
}

/// Checks groups against the load balancers before them and the targets behind them.
pub(super) fn check_together(reader: &mut Reader<'_>, drafts: &Drafts, names: &Names) {
    for (index, group) in drafts.target_groups.iter().enumerate() {
        let mut balancers = drafts.balancers_of(index);
        let Some(balancer) = balancers.next() else { continue };
        for other in balancers {
            reader.report(shared(names.of(index), balancer, other));
        }
        for target in drafts.targets_of(index) {
            target::check_against(reader, target, balancer);
        }
        if let (Some(reset), Some(stickiness)) = (&balancer.reset, &group.custom_stickiness) {
            reader.report(five_tuple_only(reset.clone(), stickiness.clone()));
        }
    }
}

/// A target group belongs to one load balancer (semantics 1a, limits).
fn shared(name: &str, first: &LoadBalancerDraft, second: &LoadBalancerDraft) -> Problem {
    let place = |draft: &LoadBalancerDraft| {
        draft.target_group.as_ref().map_or(draft.span.clone(), Located::span)
    };
    Problem::at(place(second), format!("two load balancers share the target group {name:?}"))
        .label("the second one")
        .and(place(first), "the first one")
        .help("make a group for each; the same appliances can be targets of both")
}

impl TargetGroupDraft {
    /// The settings, if everything was understood.
    pub(super) fn finish(self, targets: Vec<Target>) -> Option<TargetGroup> {
        Some(TargetGroup {
            name: self.name?,
            dialect: self.rest.dialect,
            port: self.port,
            stickiness: self.stickiness,
            deregistration_delay: self.rest.deregistration_delay,
            target_failover: self.rest.target_failover,
            send_tcp_reset: self.rest.reset.causes,
            reset_both_ends: self.rest.reset.both_ends,
            when_none_healthy: self.when_none_healthy,
            after_bypass: self.rest.after_bypass,
            slow_start: self.rest.slow_start,
            tolerate_bad_udp_checksum: self.rest.tolerate_bad_udp_checksum,
            health_check: self.rest.health_check,
            tunnel_check: self.rest.tunnel_check,
            targets,
        })
    }
}
