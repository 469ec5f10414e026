//! `[[target_group]]`, without its targets and its health check.

use std::ops::Range;
use std::time::Duration;

use geneve::{Dialect, Stickiness};
use router::source::{Located, Problem};

use super::Drafts;
use super::by_name::ByName;
use super::form::{FailoverForm, ResetForm, TargetGroupForm};
use super::health_check;
use super::load_balancer::LoadBalancerDraft;
use super::names::Names;
use super::preset::Preset;
use super::reader::{Reader, Table};
use super::settings::{Causes, Failover, HealthCheck, Target, TargetGroup, WhenNoneHealthy};
use super::target;
use super::values::{Name, Port};

/// A target group as far as it was understood, with the places that others point to.
#[derive(Debug)]
pub(super) struct TargetGroupDraft {
    pub(super) span: Range<usize>,
    pub(super) name: Option<Name>,
    pub(super) stickiness: Stickiness,
    /// Where the stickiness was given, if it is not the default.
    pub(super) custom_stickiness: Option<Range<usize>>,
    rest: Rest,
}

/// What nobody else asks for.
#[derive(Debug)]
struct Rest {
    dialect: &'static Dialect,
    port: Port,
    deregistration_delay: Duration,
    target_failover: Causes<Failover>,
    send_tcp_reset: Causes<bool>,
    when_none_healthy: WhenNoneHealthy,
    health_check: HealthCheck,
}

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
        preset,
        false,
    );
    let failover = reader.optional("target_failover", form.target_failover);
    let target_failover =
        failover.map_or_else(Causes::default, |form| failover_of(reader, form, preset));
    let reset = reader.optional("send_tcp_reset", form.send_tcp_reset);
    let send_tcp_reset = reset.map_or_else(Causes::default, |form| {
        reset_of(reader, form, target_failover, custom_stickiness.as_ref())
    });
    let when = "target_group.when_none_healthy";
    let when_none_healthy =
        reader.or_default(when, form.when_none_healthy, WhenNoneHealthy::default());
    let probe = reader.optional("health_check", form.health_check);
    if let Some(probe) = &probe {
        reader.note_if_idle("target_group.health_check", probe.span());
    }
    let probe = probe.map(Located::into_inner).unwrap_or_default();
    TargetGroupDraft {
        span: table.span,
        name,
        stickiness,
        custom_stickiness,
        rest: Rest {
            dialect: dialect.0,
            port: port.map_or(Port::GENEVE, Located::into_inner),
            deregistration_delay: delay.seconds(),
            target_failover,
            send_tcp_reset,
            when_none_healthy,
            health_check: health_check::check(reader, probe, preset),
        },
    }
}

fn failover_of(
    reader: &mut Reader<'_>,
    form: Located<FailoverForm>,
    preset: &Preset,
) -> Causes<Failover> {
    let span = form.span();
    let form = form.into_inner();
    let given = [form.on_unhealthy.given(), form.on_deregistration.given()]
        .map(|value| value.map(|value| *value.get()));
    let on_unhealthy = "target_group.target_failover.on_unhealthy";
    let on_deregistration = "target_group.target_failover.on_deregistration";
    let mut causes = Causes {
        on_unhealthy: reader.or_default(on_unhealthy, form.on_unhealthy, Failover::default()),
        on_deregistration: reader.or_default(
            on_deregistration,
            form.on_deregistration,
            Failover::default(),
        ),
    };
    match given {
        // `ServerFailoverMode` is one switch (semantics 2b).
        [Some(one), None] | [None, Some(one)] if preset.one_failover_switch => {
            causes = Causes { on_unhealthy: one, on_deregistration: one };
        }
        // "Must be equal, cannot be set independently" (semantics 1b).
        _ if causes.on_unhealthy != causes.on_deregistration => reader.report(
            Problem::at(span, "both causes of `target_failover` have the same value")
                .label("one rebalances and the other does not")
                .help(
                    "give `on_unhealthy` and `on_deregistration` the same value, as AWS wants it",
                ),
        ),
        _ => {}
    }
    causes
}

fn reset_of(
    reader: &mut Reader<'_>,
    form: Located<ResetForm>,
    failover: Causes<Failover>,
    custom_stickiness: Option<&Range<usize>>,
) -> Causes<bool> {
    let span = form.span();
    let form = form.into_inner();
    let on_unhealthy = "target_group.send_tcp_reset.on_unhealthy";
    let on_deregistration = "target_group.send_tcp_reset.on_deregistration";
    let causes = Causes {
        on_unhealthy: reader.or_default(on_unhealthy, form.on_unhealthy, false),
        on_deregistration: reader.or_default(on_deregistration, form.on_deregistration, false),
    };
    if causes.on_unhealthy || causes.on_deregistration {
        // Both rules: semantics 1a, TCP reset.
        if let Some(stickiness) = custom_stickiness {
            reader.report(five_tuple_only(span.clone(), stickiness.clone()));
        }
        if failover != Causes::default() {
            reader.report(
                Problem::at(span, "a flow is either moved or reset")
                    .label("resets need `target_failover` to be \"no_rebalance\"")
                    .help("choose one of `target_failover` and `send_tcp_reset`"),
            );
        }
    }
    causes
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
    // A target whose group is not understood may be one of any group.
    let all_placed =
        drafts.targets_complete && drafts.targets.iter().all(|target| target.group.is_some());
    for (index, group) in drafts.target_groups.iter().enumerate() {
        if all_placed && drafts.targets_of(index).next().is_none() {
            let name = names.of(index);
            reader.report(
                Problem::at(group.span.clone(), format!("target group {name:?} has no targets"))
                    .label("there is nobody to send packets to")
                    .help(format!("add a [[target]] with group = {name:?}")),
            );
        }
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
            port: self.rest.port,
            stickiness: self.stickiness,
            deregistration_delay: self.rest.deregistration_delay,
            target_failover: self.rest.target_failover,
            send_tcp_reset: self.rest.send_tcp_reset,
            when_none_healthy: self.rest.when_none_healthy,
            health_check: self.rest.health_check,
            targets,
        })
    }
}
