//! A topology as data with names instead of ids: for listings and JSON.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::{AddressMapping, Entry, RouteLine, TableId, Topology};

/// Everything in a topology, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Description {
    /// All VPCs.
    pub vpcs: Vec<VpcLine>,
    /// All subnets.
    pub subnets: Vec<SubnetLine>,
    /// All internet gateways.
    pub internet_gateways: Vec<GatewayLine>,
    /// All endpoints.
    pub endpoints: Vec<EndpointLine>,
    /// The tables of the file, and those implicit ones that somebody uses.
    pub route_tables: Vec<TableLine>,
}

/// A VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VpcLine {
    /// Its name.
    pub name: String,
    /// Its address ranges.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// The table of subnets that name none.
    pub main_table: String,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SubnetLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// Its zone.
    pub zone: String,
    /// Its address ranges.
    #[schemars(with = "Vec<String>")]
    pub cidrs: Vec<IpNet>,
    /// The table for packets that leave it.
    pub route_table: String,
}

/// An internet gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GatewayLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// The table for packets that come in.
    pub route_table: String,
    /// What it translates.
    pub addresses: Vec<AddressMapping>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EndpointLine {
    /// Its name.
    pub name: String,
    /// Its subnet.
    pub subnet: String,
    /// Its zone.
    pub zone: String,
    /// The service that it connects to.
    pub service: String,
    /// Its id in the Geneve option, as `0x` and 16 digits: JSON numbers do not hold 64 bits.
    pub wire_id: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TableLine {
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: String,
    /// Whether it is not in the file.
    pub implicit: bool,
    /// The places whose packets it decides about, as `kind:name`.
    pub used_by: Vec<String>,
    /// Its routes, local ones included.
    pub routes: Vec<RouteLine>,
}

impl Topology {
    /// Everything, with names instead of ids.
    pub fn describe(&self) -> Description {
        Description {
            vpcs: self
                .vpcs
                .iter()
                .map(|vpc| VpcLine {
                    name: vpc.name.clone(),
                    cidrs: vpc.cidrs.clone(),
                    main_table: self.table(vpc.main_table).name().to_owned(),
                })
                .collect(),
            subnets: self
                .subnets
                .iter()
                .map(|subnet| SubnetLine {
                    name: subnet.name.clone(),
                    vpc: self.vpc(subnet.vpc).name.clone(),
                    zone: subnet.zone.clone(),
                    cidrs: subnet.cidrs.clone(),
                    route_table: self.table(subnet.table).name().to_owned(),
                })
                .collect(),
            internet_gateways: self
                .gateways
                .iter()
                .map(|gateway| GatewayLine {
                    name: gateway.name.clone(),
                    vpc: self.vpc(gateway.vpc).name.clone(),
                    route_table: self.table(gateway.table).name().to_owned(),
                    addresses: gateway.addresses.clone(),
                })
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|endpoint| EndpointLine {
                    name: endpoint.name.clone(),
                    subnet: self.subnet(endpoint.subnet).name.clone(),
                    zone: endpoint.zone.clone(),
                    service: endpoint.service.clone(),
                    wire_id: format!("{:#018x}", endpoint.wire_id),
                    addresses: endpoint.addresses.clone(),
                })
                .collect(),
            route_tables: self.tables().filter_map(|(id, _)| self.table_line(id)).collect(),
        }
    }

    fn table_line(&self, id: TableId) -> Option<TableLine> {
        let table = self.table(id);
        let used_by = self.users(id);
        (!table.is_implicit() || !used_by.is_empty()).then(|| TableLine {
            name: table.name().to_owned(),
            vpc: self.vpc(table.vpc()).name.clone(),
            implicit: table.is_implicit(),
            used_by,
            routes: table.routes().map(|route| self.route_line(&route)).collect(),
        })
    }

    /// Gateways and subnets. Endpoints use the table of their subnet, which is named already.
    fn users(&self, table: TableId) -> Vec<String> {
        let gateways = self.gateways().map(|(id, _)| Entry::InternetGateway(id));
        let subnets = self.subnets().map(|(id, _)| Entry::Subnet(id));
        gateways
            .chain(subnets)
            .filter(|entry| self.table_for(*entry) == table)
            .map(|entry| self.entry_name(entry))
            .collect()
    }
}
