//! What is allowed and may surprise: a file with these is right, and its author may not mean it.

use std::collections::BTreeSet;

use router::config::RouterFile;

use super::Drafts;
use super::reader::Reader;
use super::settings::{Binding, Semantics, WhenNoneHealthy};

/// Looks for surprises. Without bindings something is wrong, and nobody will read the notes.
pub(super) fn take(
    reader: &mut Reader<'_>,
    drafts: &Drafts,
    router: &RouterFile,
    semantics: Semantics,
    bindings: Option<&[Binding]>,
) {
    let Some(bindings) = bindings else { return };
    if let Some(intent) = router.intents.first() {
        reader.note(intent.span(), "[[intent]] is proven by `router verify`, not by the gateway");
    }
    if drafts.attachments.is_empty() {
        reader.note_nowhere("there is no [[attachment]]: no packet can enter or leave");
    }
    for draft in &drafts.attachments {
        if let Some(span) = draft.own_default_route() {
            reader.note(
                span,
                "this asks for the default route of the namespace that the gateway runs in, since \
                 the attachment has no `netns`",
            );
        }
    }
    uninspected(reader, drafts);
    idle_settings(reader, drafts);
    idle_resources(reader, drafts, bindings);
    zones_without_targets(reader, drafts, bindings);
    if semantics == Semantics::Aws {
        timeouts_that_aws_ignores(reader, drafts);
    }
}

/// What lets packets pass that nobody has looked at is said plainly.
fn uninspected(reader: &mut Reader<'_>, drafts: &Drafts) {
    for balancer in &drafts.load_balancers {
        if let (Some(span), Some(name)) = (&balancer.bypass, &balancer.name) {
            reader.note(
                span.clone(),
                format!("every packet of load balancer \"{name}\" passes uninspected"),
            );
        }
    }
    for group in &drafts.target_groups {
        if let (Some(span), Some(name)) = (&group.bypass, &group.name) {
            reader.note(
                span.clone(),
                format!(
                    "while no target of group \"{name}\" is healthy, packets of new flows pass \
                     uninspected"
                ),
            );
        }
    }
}

/// Settings that others make useless.
fn idle_settings(reader: &mut Reader<'_>, drafts: &Drafts) {
    for balancer in &drafts.load_balancers {
        if let Some(span) = balancer.spill_over.clone().filter(|_| balancer.cross_zone) {
            reader.note(
                span,
                "this has no effect, since `cross_zone` is on: a node uses the targets of all \
                 zones anyway",
            );
        }
        let outer_ipv6 = balancer.any_address().is_some_and(|address| address.is_ipv6());
        if let Some(span) = balancer.dont_fragment.clone().filter(|_| outer_ipv6) {
            reader.note(
                span,
                "this has no effect, since the nodes have IPv6 addresses: no router fragments \
                 IPv6 packets",
            );
        }
    }
}

fn idle_resources(reader: &mut Reader<'_>, drafts: &Drafts, bindings: &[Binding]) {
    let serving: BTreeSet<usize> = bindings.iter().map(|binding| binding.load_balancer).collect();
    for (index, balancer) in drafts.load_balancers.iter().enumerate() {
        if let Some(name) = balancer.name.as_ref().filter(|_| !serving.contains(&index)) {
            reader.note(
                balancer.span.clone(),
                format!("load balancer \"{name}\" serves no endpoint: no [[endpoint]] leads to it"),
            );
        }
    }
    for (index, group) in drafts.target_groups.iter().enumerate() {
        let Some(name) = &group.name else { continue };
        // `Target.NotInUse` (semantics 1b).
        if drafts.balancers_of(index).next().is_none() {
            reader.note(
                group.span.clone(),
                format!("target group \"{name}\" is unused: no [[load_balancer]] forwards to it"),
            );
        }
        let until = match group.when_none_healthy {
            WhenNoneHealthy::Bypass => "packets pass uninspected",
            WhenNoneHealthy::FailOpen | WhenNoneHealthy::FailClosed => "packets have nowhere to go",
        };
        let mut targets = drafts.targets_of(index).peekable();
        if targets.peek().is_none() {
            reader.note(
                group.span.clone(),
                format!("target group \"{name}\" has no targets: until one is registered, {until}"),
            );
        } else if targets.all(|target| !target.takes_flows()) {
            reader.note(
                group.span.clone(),
                format!(
                    "target group \"{name}\" takes no new flows: all its targets have weight 0"
                ),
            );
        }
    }
}

/// Without cross-zone such a zone's traffic is lost (semantics 1a, zones).
fn zones_without_targets(reader: &mut Reader<'_>, drafts: &Drafts, bindings: &[Binding]) {
    let serving: BTreeSet<(usize, usize)> =
        bindings.iter().map(|binding| (binding.load_balancer, binding.node)).collect();
    for (load_balancer, node) in serving {
        let balancer = &drafts.load_balancers[load_balancer];
        let (Some(name), Some(group), Some(zone)) =
            (&balancer.name, &balancer.target_group, &balancer.nodes[node].zone)
        else {
            continue;
        };
        let alone = !balancer.cross_zone && balancer.spill_over_below == 0;
        // Of a group without targets it is said already.
        let mut targets = drafts.targets_of(*group.get()).peekable();
        if !alone || targets.peek().is_none() {
            continue;
        }
        if !targets.any(|target| target.zone.as_ref() == Some(zone)) {
            let fate = match drafts.target_groups[*group.get()].when_none_healthy {
                WhenNoneHealthy::Bypass => "pass uninspected",
                WhenNoneHealthy::FailOpen | WhenNoneHealthy::FailClosed => "have nowhere to go",
            };
            reader.note(
                zone.span(),
                format!(
                    "load balancer \"{name}\" has no target in zone \"{}\", and `cross_zone` is \
                     off: the packets of its endpoints there {fate}",
                    zone.get()
                ),
            );
        }
    }
}

/// AWS keeps to 350 s when a flow is not a 5-tuple (semantics 1a, idle timeouts).
fn timeouts_that_aws_ignores(reader: &mut Reader<'_>, drafts: &Drafts) {
    for balancer in &drafts.load_balancers {
        let Some(timeout) = &balancer.custom_tcp_idle_timeout else { continue };
        let Some(group) = &balancer.target_group else { continue };
        let group = &drafts.target_groups[*group.get()];
        if group.custom_stickiness.is_some() {
            reader.note(
                timeout.clone(),
                format!(
                    "AWS would ignore this timeout and keep to 350 s, because the target group's \
                     stickiness is \"{}\"; this gateway honours it",
                    group.stickiness.name()
                ),
            );
        }
    }
}
