//! Route tables before their routes: which VPC each belongs to, and who uses it.

use std::ops::Range;

use super::super::ids::Id;
use super::super::{RouteTable, TableId, VpcId};
use super::{Draft, names};
use crate::source::{Located, Problem};

impl Draft<'_> {
    /// All tables with their local routes, the implicit ones too, and the subnets' use of them.
    pub(super) fn add_tables(&mut self) {
        let file = self.file;
        let mut main: Vec<Option<(TableId, Range<usize>)>> = vec![None; file.vpcs.len()];
        for (index, table) in file.route_tables.iter().enumerate() {
            let vpc: VpcId =
                names::resolve(names::VPC, &self.names.vpcs, &table.vpc, &mut self.problems);
            let local = if vpc.is_resolved() { &*self.vpcs[vpc.index()].cidrs } else { &[] };
            self.tables.push(RouteTable::new(table.name.get().clone(), vpc, false, local));
            let Some(flag) = table.main.as_ref().filter(|flag| ***flag && vpc.is_resolved()) else {
                continue;
            };
            match &main[vpc.index()] {
                None => main[vpc.index()] = Some((TableId::from_position(index), flag.span())),
                Some((_, first)) => self.problems.push(
                    flag.problem(format!("VPC \"{}\" has two main tables", table.vpc.get()))
                        .label("a second one")
                        .and(first.clone(), "the first one")
                        .help(
                            "subnets that name no table use the main one, so there can be only one",
                        ),
                ),
            }
        }
        for (index, main) in main.into_iter().enumerate() {
            let implicit = self.add_implicit_table(index);
            self.vpcs[index].main_table = main.map_or(implicit, |(table, _)| table);
        }
        for (index, subnet) in file.subnets.iter().enumerate() {
            let vpc = self.subnets[index].vpc;
            self.subnets[index].table = match &subnet.route_table {
                Some(reference) => {
                    let user = format!("subnet \"{}\"", subnet.name.get());
                    self.table_of(vpc, reference, &user)
                }
                None if vpc.is_resolved() => self.vpcs[vpc.index()].main_table,
                None => TableId::UNRESOLVED,
            };
        }
    }

    /// The table that a subnet or a gateway of this VPC names.
    pub(super) fn table_of(
        &mut self,
        vpc: VpcId,
        reference: &Located<String>,
        user: &str,
    ) -> TableId {
        let id: TableId =
            names::resolve(names::TABLE, &self.names.tables, reference, &mut self.problems);
        if id.is_resolved() {
            let problem = self.foreign(vpc, self.tables[id.index()].vpc(), |own, other| {
                reference
                    .problem(format!("{user} uses a route table of another VPC"))
                    .label(format!("this table belongs to VPC \"{other}\""))
                    .help(format!("{user} is in VPC \"{own}\" and can use only its tables"))
            });
            self.problems.extend(problem);
        }
        id
    }

    /// The problem with something of `other` being used in `own`, if that is what it is.
    pub(super) fn foreign(
        &self,
        own: VpcId,
        other: VpcId,
        problem: impl FnOnce(&str, &str) -> Problem,
    ) -> Option<Problem> {
        let known = own.is_resolved() && other.is_resolved();
        let name = |vpc: VpcId| self.vpcs[vpc.index()].name.as_str();
        (known && own != other).then(|| problem(name(own), name(other)))
    }

    /// Every VPC has a table with nothing but its local routes, for whoever names none: AWS's main
    /// table as it is created (semantics 1d), and an internet gateway without an edge table.
    fn add_implicit_table(&mut self, vpc: usize) -> TableId {
        let owner = &self.vpcs[vpc];
        let id = TableId::from_position(self.tables.len());
        self.tables.push(RouteTable::new(
            implicit_name(&owner.name),
            VpcId::from_position(vpc),
            true,
            &owner.cidrs,
        ));
        id
    }

    /// The table with nothing but local routes.
    pub(super) fn implicit_table(&self, vpc: VpcId) -> TableId {
        TableId::from_position(self.file.route_tables.len() + vpc.index())
    }
}

/// Not a name that a table of a file can have, so that nobody refers to it by accident.
fn implicit_name(vpc: &str) -> String {
    format!("{vpc}:local")
}
