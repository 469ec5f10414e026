//! A table of what belongs to the places where packets leave, for looking up with every packet.

use router::Attachment;

/// Something for each attachment, or for some of them.
///
/// The numbers of attachments are dense, so this is an array for each kind and no hash table.
#[derive(Debug, Clone)]
pub struct ByAttachment<T> {
    gateways: Vec<Option<T>>,
    subnets: Vec<Option<T>>,
    interfaces: Vec<Option<T>>,
    edges: Vec<Option<T>>,
}

impl<T: Copy> ByAttachment<T> {
    /// What belongs to this one, if anything does.
    #[inline]
    pub fn get(&self, at: Attachment) -> Option<T> {
        let (of_kind, index) = match at {
            Attachment::InternetGateway(id) => (&self.gateways, id.index()),
            Attachment::Subnet(id) => (&self.subnets, id.index()),
            Attachment::Interface(id) => (&self.interfaces, id.index()),
            Attachment::Edge(id) => (&self.edges, id.index()),
        };
        of_kind.get(index).copied().flatten()
    }
}

impl<T> Default for ByAttachment<T> {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            subnets: Vec::new(),
            interfaces: Vec::new(),
            edges: Vec::new(),
        }
    }
}

impl<T> FromIterator<(Attachment, T)> for ByAttachment<T> {
    fn from_iter<I: IntoIterator<Item = (Attachment, T)>>(all: I) -> Self {
        let mut table = Self::default();
        for (at, what) in all {
            let (of_kind, index) = match at {
                Attachment::InternetGateway(id) => (&mut table.gateways, id.index()),
                Attachment::Subnet(id) => (&mut table.subnets, id.index()),
                Attachment::Interface(id) => (&mut table.interfaces, id.index()),
                Attachment::Edge(id) => (&mut table.edges, id.index()),
            };
            if of_kind.len() <= index {
                of_kind.resize_with(index + 1, || None);
            }
            of_kind[index] = Some(what);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use router::{EdgeId, GatewayId, InterfaceId, SubnetId};

    use super::*;

    #[test]
    fn each_attachment_has_what_it_was_given() {
        let at = |index| {
            [
                Attachment::InternetGateway(GatewayId::from_index(index)),
                Attachment::Subnet(SubnetId::from_index(index)),
                Attachment::Interface(InterfaceId::from_index(index)),
                Attachment::Edge(EdgeId::from_index(index)),
            ]
        };
        let given = [(at(3)[0], 1), (at(0)[1], 2), (at(5)[1], 3), (at(1)[2], 4), (at(0)[3], 5)];
        let table: ByAttachment<_> = given.into_iter().collect();
        for attachment in (0..8).flat_map(at) {
            let expected = given.iter().find(|(at, _)| *at == attachment).map(|(_, what)| *what);
            assert_eq!(table.get(attachment), expected, "{attachment:?}");
        }
    }
}
