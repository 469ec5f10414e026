//! The configuration: one TOML file becomes [`Settings`], or a list of located problems.
//!
//! Nothing behind this module meets an unchecked string. What a problem looks like is
//! [`router::source`]'s business, and so is everything from `[[vpc]]` to `[[intent]]`.
//!
//! A file is read in three steps. Each table by itself: its keys, types and ranges (`form`, and one
//! module per table). Then what tables say of each other. Last, if nothing was wrong, the settings.
//! A mistake hides no other: all are told together.

mod address;
mod attachment;
mod availability;
mod by_name;
mod carried;
mod diff;
mod endpoint_group;
mod field;
mod flow_log;
mod form;
mod gateway;
mod health_check;
mod load_balancer;
mod log_format;
mod names;
mod notes;
mod preset;
mod probe_times;
mod reader;
mod report;
mod schema;
mod service;
mod settings;
mod target;
mod target_group;
mod timers;
mod tunnel_check;
mod values;

use std::path::Path;
use std::sync::Arc;

use router::Topology;
use router::config::RouterFile;
use router::source::{Document, Located, Problem, Problems, Source};
use serde::de::DeserializeOwned;

pub use diff::{Change, ChangeKind, diff};
pub use log_format::{FormatError, LogField, LogFormat};
pub use reader::Note;
pub use report::{Place, ProblemReport};
pub use schema::schema;
pub use settings::*;
pub use values::*;

use attachment::{AttachmentDraft, Places};
use field::Field;
use flow_log::FlowLogDraft;
use form::{
    AttachmentForm, EndpointServiceForm, FlowLogForm, GatewayForm, LoadBalancerForm, TargetForm,
    TargetGroupForm,
};
use load_balancer::LoadBalancerDraft;
use names::Names;
use preset::Preset;
use reader::Reader;
use service::ServiceDraft;
use target::TargetDraft;
use target_group::TargetGroupDraft;

/// Reads and checks a configuration file.
///
/// # Errors
/// Everything that is wrong with it, or why it cannot be read.
pub fn load(path: &Path) -> Result<Settings, Problems> {
    parse(&Source::read(path)?)
}

/// Checks the text of a configuration file.
///
/// # Errors
/// Everything that is wrong with it; if it is no TOML, only that.
pub fn parse(source: &Source) -> Result<Settings, Problems> {
    let document = Document::parse(source)?;
    let mut problems = document.unknown_keys(&schema::tables());
    let tables_known = problems.is_empty();
    let router = router::config::read(&document, &mut problems);
    let router_complete = problems.is_empty();
    let forms = Forms::read(&document, tables_known, &mut problems);
    let topology = if router_complete {
        Topology::build(&router, source).map_err(|more| problems.extend(more.into_list())).ok()
    } else {
        // Half of it would only seem to refer to what is not there.
        None
    };
    let mut reader = Reader::new(source, problems);
    let settings = check(&mut reader, forms, &router, router_complete, topology);
    let (settings, notes) = reader.finish(settings)?;
    Ok(Settings { notes, ..settings })
}

/// The gateway's tables, as they stand in the file.
struct Forms {
    gateway: GatewayForm,
    services: Tables<EndpointServiceForm>,
    load_balancers: Tables<LoadBalancerForm>,
    target_groups: Tables<TargetGroupForm>,
    targets: Tables<TargetForm>,
    attachments: Tables<AttachmentForm>,
    flow_logs: Tables<FlowLogForm>,
}

/// The tables of one kind.
struct Tables<T> {
    list: Vec<Located<T>>,
    /// Whether these are all that the author may have meant.
    complete: bool,
}

impl Forms {
    fn read(document: &Document<'_>, tables_known: bool, problems: &mut Vec<Problem>) -> Forms {
        let gateway = document.table("gateway", problems);
        Forms {
            gateway: gateway.map(Located::into_inner).unwrap_or_default(),
            services: Tables::read(document, "endpoint_service", tables_known, problems),
            load_balancers: Tables::read(document, "load_balancer", tables_known, problems),
            target_groups: Tables::read(document, "target_group", tables_known, problems),
            targets: Tables::read(document, "target", tables_known, problems),
            attachments: Tables::read(document, "attachment", tables_known, problems),
            flow_logs: Tables::read(document, "flow_log", tables_known, problems),
        }
    }
}

impl<T: DeserializeOwned> Tables<T> {
    fn read(
        document: &Document<'_>,
        key: &str,
        tables_known: bool,
        problems: &mut Vec<Problem>,
    ) -> Tables<T> {
        let before = problems.len();
        let list = document.list(key, problems);
        Tables { list, complete: tables_known && problems.len() == before }
    }

    /// The names, each of which is a key of its table.
    fn names(
        &self,
        reader: &mut Reader<'_>,
        table: &'static str,
        kind: &'static str,
        name: fn(&T) -> &Field<String>,
    ) -> Names {
        Names::collect(reader, table, kind, self.list.iter().map(|form| name(form)), self.complete)
    }
}

/// What was understood of the file, for the checks across tables.
struct Drafts {
    services: Vec<ServiceDraft>,
    load_balancers: Vec<LoadBalancerDraft>,
    target_groups: Vec<TargetGroupDraft>,
    targets: Vec<TargetDraft>,
    attachments: Vec<AttachmentDraft>,
    flow_logs: Vec<FlowLogDraft>,
}

/// The settings, or `None` with at least one problem reported.
fn check(
    reader: &mut Reader<'_>,
    forms: Forms,
    router: &RouterFile,
    router_complete: bool,
    topology: Option<Topology>,
) -> Option<Settings> {
    let services = "endpoint service";
    let services = forms.services.names(reader, "endpoint_service", services, |form| &form.name);
    let balancers = "load balancer";
    let balancers =
        forms.load_balancers.names(reader, "load_balancer", balancers, |form| &form.name);
    let groups = "target group";
    let groups = forms.target_groups.names(reader, "target_group", groups, |form| &form.name);
    forms.flow_logs.names(reader, "flow_log", "flow log", |form| &form.name);
    let names = attachment::PlaceNames::of(router, router_complete);
    let places = names.places(router);
    let gateway = gateway::check(reader, forms.gateway);
    let preset = Preset::of(gateway.semantics);
    let drafts = Drafts {
        services: (forms.services.list.into_iter())
            .map(|form| service::check(reader, form, &balancers))
            .collect(),
        load_balancers: (forms.load_balancers.list.into_iter())
            .map(|form| load_balancer::check(reader, form, &groups, preset))
            .collect(),
        target_groups: (forms.target_groups.list.into_iter())
            .map(|form| target_group::check(reader, form, preset))
            .collect(),
        targets: (forms.targets.list.into_iter())
            .map(|form| target::check(reader, form, &groups))
            .collect(),
        attachments: (forms.attachments.list.into_iter())
            .map(|form| attachment::check(reader, form, &places))
            .collect(),
        flow_logs: (forms.flow_logs.list.into_iter())
            .map(|form| flow_log::check(reader, form, &balancers, router, &gateway))
            .collect(),
    };
    service::check_together(reader, &drafts.services, &balancers);
    load_balancer::check_together(reader, &drafts.load_balancers);
    let ports: Vec<Port> = drafts.target_groups.iter().map(|group| group.port).collect();
    target::check_together(reader, &drafts.targets, &groups, &ports);
    target_group::check_together(reader, &drafts, &groups);
    attachment::check_together(reader, &drafts.attachments, &places);
    flow_log::check_together(reader, &drafts.flow_logs);
    let bindings =
        service::bind(reader, router, &drafts.services, &services, &drafts.load_balancers);
    if let Some(bindings) = &bindings {
        endpoint_group::check(reader, router, &drafts, bindings);
    }
    carried::check(reader, router);
    notes::take(reader, &drafts, router, gateway.semantics, bindings.as_deref());
    drafts.finish(gateway, &places, topology?, bindings?)
}

impl Drafts {
    /// The targets of a group, in the order of the file.
    fn targets_of(&self, group: usize) -> impl Iterator<Item = &TargetDraft> {
        self.targets.iter().filter(move |target| target.group == Some(group))
    }

    /// The load balancers that forward to a group: one, unless something is wrong.
    fn balancers_of(&self, group: usize) -> impl Iterator<Item = &LoadBalancerDraft> {
        let forwards = move |draft: &&LoadBalancerDraft| {
            draft.target_group.as_ref().is_some_and(|index| *index.get() == group)
        };
        self.load_balancers.iter().filter(forwards)
    }

    fn finish(
        self,
        gateway: GatewaySettings,
        places: &Places<'_>,
        topology: Topology,
        bindings: Vec<Binding>,
    ) -> Option<Settings> {
        let mut targets: Vec<Vec<Target>> = self.target_groups.iter().map(|_| Vec::new()).collect();
        for target in self.targets {
            let group = target.group?;
            targets[group].push(target.finish()?);
        }
        let attachments = self.attachments.into_iter();
        let attachments =
            attachments.map(|draft| draft.finish(places, &topology)).collect::<Option<_>>()?;
        let groups = self.target_groups.into_iter().zip(targets);
        Some(Settings {
            gateway,
            services: self.services.into_iter().map(ServiceDraft::finish).collect::<Option<_>>()?,
            load_balancers: (self.load_balancers.into_iter())
                .map(LoadBalancerDraft::finish)
                .collect::<Option<_>>()?,
            target_groups: groups
                .map(|(group, targets)| group.finish(targets))
                .collect::<Option<_>>()?,
            attachments,
            flow_logs: (self.flow_logs.into_iter())
                .map(FlowLogDraft::finish)
                .collect::<Option<_>>()?,
            bindings,
            topology: Arc::new(topology),
            notes: Vec::new(),
        })
    }
}
