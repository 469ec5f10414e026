//! What a group of endpoints needs of the load balancers behind it. Its form is the router's.

use geneve::Stickiness;
use router::config::{GroupMember, RouterFile};
use router::source::Located;

use super::Drafts;
use super::reader::Reader;
use super::settings::Binding;

/// Reports groups whose members do not agree in what makes a flow: which member has a flow could
/// not be said then.
pub(super) fn check(
    reader: &mut Reader<'_>,
    router: &RouterFile,
    drafts: &Drafts,
    bindings: &[Binding],
) {
    let stickiness = |member: &GroupMember| -> Option<Stickiness> {
        let endpoints = router.endpoints.iter();
        let mut known = endpoints.zip(bindings).filter(|(it, _)| it.name == member.endpoint);
        let balancer = &drafts.load_balancers[known.next()?.1.load_balancer];
        let group = *balancer.target_group.as_ref()?.get();
        Some(drafts.target_groups[group].stickiness)
    };
    for group in &router.endpoint_groups {
        let mut members = group
            .members
            .iter()
            .filter_map(|member: &Located<GroupMember>| Some((member, stickiness(member)?)));
        let Some((first, agreed)) = members.next() else { continue };
        if let Some((other, its)) = members.find(|(_, its)| *its != agreed) {
            let message = format!(
                "the members of group \"{}\" do not agree in what makes a flow",
                group.name.get()
            );
            reader.report(
                other
                    .endpoint
                    .problem(message)
                    .label(format!("behind it, stickiness is \"{}\"", its.name()))
                    .and(first.endpoint.span(), format!("behind this, \"{}\"", agreed.name()))
                    .help(
                        "give the target groups of their load balancers the same `stickiness`, so \
                         that a flow belongs to one member",
                    ),
            );
        }
    }
}
