//! What tables can lead to and the router verifies, but this gateway does not carry packets to.

use router::config::RouterFile;

use super::reader::Reader;

/// Reports routes to transit gateways: their packets would be lost.
pub(super) fn check(reader: &mut Reader<'_>, router: &RouterFile) {
    let routes = router.route_tables.iter().flat_map(|table| &table.routes);
    for gateway in routes.filter_map(|route| route.transit_gateway.as_ref()) {
        reader.report(
            gateway
                .problem(format!("a route to transit gateway {:?}", gateway.get()))
                .label("this version carries no packets to transit gateways")
                .help(
                    "attach what is behind it by an [[opaque]] way out, or join the VPCs into one; \
                     `router verify` understands the file as it is",
                ),
        );
    }
}
