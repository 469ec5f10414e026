//! Transit gateways, what is attached to them, and their tables.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Deserialize;

use super::{Shape, Tag, names_of_members};

shape! {
    TransitGateway in "TransitGateways", "transit gateway", id transit_gateway_id, tags tags,
    {}
    irrelevant &["CreationTime", "Description", "Options", "OwnerId", "State", "TransitGatewayArn"]
}

shape! {
    TransitAttachment in "TransitGatewayAttachments", "transit gateway attachment",
    id transit_gateway_attachment_id, tags tags,
    {
        transit_gateway_id: String,
        resource_type: String,
        #[serde(default)]
        resource_id: Option<String>,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        association: Option<TransitAssociation>,
    }
    irrelevant &[
        "CreationTime", "NatGatewaySupport", "ResourceOwnerId", "TransitGatewayOwnerId",
    ]
}

/// The transit gateway's table for an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct TransitAssociation {
    #[serde(default)]
    pub(in crate::import) transit_gateway_route_table_id: Option<String>,
    #[serde(default)]
    pub(in crate::import) state: Option<String>,
}

shape! {
    TransitVpcAttachment in "TransitGatewayVpcAttachments", "transit gateway VPC attachment",
    id transit_gateway_attachment_id, tags tags,
    {
        transit_gateway_id: String,
        vpc_id: String,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        subnet_ids: Vec<String>,
        #[serde(default)]
        options: Option<TransitVpcOptions>,
    }
    irrelevant &["CreationTime", "VpcOwnerId"]
}

/// How an attachment treats flows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct TransitVpcOptions {
    #[serde(default)]
    pub(in crate::import) appliance_mode_support: Option<String>,
}

shape! {
    TransitRouteTable in "TransitGatewayRouteTables", "transit gateway route table",
    id transit_gateway_route_table_id, tags tags,
    {
        transit_gateway_id: String,
    }
    irrelevant &[
        "CreationTime", "DefaultAssociationRouteTable", "DefaultPropagationRouteTable", "State",
    ]
}

/// A route of a transit gateway.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct TransitRoute {
    pub(in crate::import) destination_cidr_block: IpNet,
    #[serde(default)]
    pub(in crate::import) transit_gateway_attachments: Vec<TransitRouteAttachment>,
    #[serde(default)]
    pub(in crate::import) r#type: Option<String>,
    #[serde(default)]
    pub(in crate::import) state: Option<String>,
}

/// Where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::import) struct TransitRouteAttachment {
    pub(in crate::import) transit_gateway_attachment_id: String,
    #[serde(default)]
    pub(in crate::import) resource_type: Option<String>,
    #[serde(default)]
    pub(in crate::import) resource_id: Option<String>,
}
