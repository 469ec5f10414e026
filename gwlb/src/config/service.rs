//! `[[endpoint_service]]`, and which node serves each endpoint.

use router::config::{Endpoint, RouterFile};
use router::source::{Located, Problem};

use super::field::Field;
use super::form::EndpointServiceForm;
use super::load_balancer::LoadBalancerDraft;
use super::names::Names;
use super::reader::{Reader, Table, listing};
use super::settings::{Binding, EndpointService};

/// Everybody.
const ANYONE: &str = "*";

/// A service as far as it was understood.
#[derive(Debug)]
pub(super) struct ServiceDraft {
    name: Option<Located<String>>,
    load_balancers: Vec<Located<usize>>,
    /// Whether `load_balancers` are all that the file has.
    complete: bool,
    acceptance_required: bool,
    allowed_principals: Vec<String>,
}

/// Checks one table by itself.
pub(super) fn check(
    reader: &mut Reader<'_>,
    form: Located<EndpointServiceForm>,
    balancers: &Names,
) -> ServiceDraft {
    let table = Table { name: "[[endpoint_service]]", span: form.span() };
    let form = form.into_inner();
    let name = reader.required("name", form.name, &table, "\"inspection\"");
    let named =
        |name: &str| if name.is_empty() { Err("an empty name") } else { Ok(name.to_owned()) };
    let name = reader.checked("name", name, named, "for example: name = \"inspection\"");
    let list = reader.required("load_balancers", form.load_balancers, &table, "[\"fw\"]");
    let (load_balancers, complete) =
        list.map_or((Vec::new(), false), |list| check_load_balancers(reader, list, balancers));
    ServiceDraft {
        name,
        load_balancers,
        complete,
        acceptance_required: reader.or_default(
            "endpoint_service.acceptance_required",
            form.acceptance_required,
            false,
        ),
        allowed_principals: principals(reader, form.allowed_principals),
    }
}

/// The load balancers, and whether each was understood.
fn check_load_balancers(
    reader: &mut Reader<'_>,
    list: Located<Vec<Field<String>>>,
    balancers: &Names,
) -> (Vec<Located<usize>>, bool) {
    let (span, count) = (list.span(), list.len());
    let names = reader.items("load_balancers", list.into_inner());
    if count == 0 {
        reader.report(
            Problem::at(span, "an endpoint service needs a load balancer")
                .label("an empty list")
                .help("for example: load_balancers = [\"fw\"]"),
        );
    }
    let resolve =
        |name: &Located<String>| Some(Located::new(balancers.resolve(reader, name)?, name.span()));
    let load_balancers: Vec<Located<usize>> = names.iter().filter_map(resolve).collect();
    let complete = count > 0 && load_balancers.len() == count;
    (load_balancers, complete)
}

fn principals(reader: &mut Reader<'_>, field: Field<Vec<Field<String>>>) -> Vec<String> {
    let Some(list) = reader.optional("allowed_principals", field) else {
        return vec![ANYONE.to_owned()];
    };
    let span = list.span();
    let list = reader.items("allowed_principals", list.into_inner());
    let list: Vec<String> = list.into_iter().map(Located::into_inner).collect();
    let whole = Field::Given(Located::new(list, span));
    reader.or_default("endpoint_service.allowed_principals", whole, vec![ANYONE.to_owned()])
}

/// A load balancer belongs to one service (semantics 1c).
pub(super) fn check_together(reader: &mut Reader<'_>, drafts: &[ServiceDraft], balancers: &Names) {
    let mut seen: Vec<&Located<usize>> = Vec::new();
    for balancer in drafts.iter().flat_map(|draft| &draft.load_balancers) {
        match seen.iter().find(|first| **first == balancer) {
            Some(first) => reader.report(
                balancer
                    .problem(format!(
                        "load balancer {:?} is in two places",
                        balancers.of(*balancer.get())
                    ))
                    .label("the second one")
                    .and(first.span(), "the first one")
                    .help("a load balancer belongs to one endpoint service, once"),
            ),
            None => seen.push(balancer),
        }
    }
}

/// The node that serves each endpoint, in the order of the file.
pub(super) fn bind(
    reader: &mut Reader<'_>,
    router: &RouterFile,
    services: &[ServiceDraft],
    service_names: &Names,
    balancers: &[LoadBalancerDraft],
) -> Option<Vec<Binding>> {
    let bound: Vec<_> = router
        .endpoints
        .iter()
        .map(|endpoint| {
            let service = service_names.resolve(reader, &endpoint.service)?;
            // An endpoint is in the zone of its subnet; a subnet that is not there is reported.
            let subnet = router.subnets.iter().find(|subnet| subnet.name == endpoint.subnet)?;
            bind_one(reader, endpoint, &subnet.zone, service, &services[service], balancers)
        })
        .collect();
    bound.into_iter().collect()
}

fn bind_one(
    reader: &mut Reader<'_>,
    endpoint: &Endpoint,
    zone: &Located<String>,
    service: usize,
    draft: &ServiceDraft,
    balancers: &[LoadBalancerDraft],
) -> Option<Binding> {
    for load_balancer in draft.load_balancers.iter().map(|index| *index.get()) {
        let node =
            balancers[load_balancer].nodes.iter().position(|node| node.zone.as_ref() == Some(zone));
        if let Some(node) = node {
            return Some(Binding { service, load_balancer, node });
        }
    }
    let understood = |index: &Located<usize>| balancers[*index.get()].nodes_complete;
    if draft.complete && draft.load_balancers.iter().all(understood) {
        let zones = draft.load_balancers.iter().flat_map(|index| balancers[*index.get()].zones());
        reader.report(
            endpoint
                .service
                .problem(format!(
                    "service {:?} has no load balancer node in zone {:?}",
                    endpoint.service.get(),
                    zone.get()
                ))
                .label("this endpoint would reach nothing")
                .and(zone.span(), "the zone of its subnet")
                .help(format!(
                    "its nodes are in {}; add one to a load balancer of the service",
                    listing(zones)
                )),
        );
    }
    None
}

impl ServiceDraft {
    /// The settings, if everything was understood.
    pub(super) fn finish(self) -> Option<EndpointService> {
        Some(EndpointService {
            name: self.name?.into_inner(),
            load_balancers: self.load_balancers.into_iter().map(Located::into_inner).collect(),
            acceptance_required: self.acceptance_required,
            allowed_principals: self.allowed_principals,
        })
    }
}
