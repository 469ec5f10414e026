//! Who keeps which address from one network to the next, where the files leave that open.

use super::kind::Named;
use crate::config::{Endpoint, NatGateway, NetworkInterface, RouterFile};
use crate::source::Located;

/// The second file, in which what stays where it is has the addresses that it has in the first.
pub(super) fn kept(before: &RouterFile, file: &RouterFile) -> RouterFile {
    let mut kept = file.clone();
    keep(before, file, &before.endpoints, &mut kept.endpoints);
    keep(before, file, &before.nat_gateways, &mut kept.nat_gateways);
    keep(before, file, &before.network_interfaces, &mut kept.network_interfaces);
    kept
}

/// What of the first file does not stay where it is in the second, each as an interface that does
/// nothing but have its addresses.
pub(super) fn leaving(before: &RouterFile, file: &RouterFile) -> Vec<Located<NetworkInterface>> {
    let mut leaving = Vec::new();
    leave(before, file, &before.endpoints, &file.endpoints, &mut leaving);
    leave(before, file, &before.nat_gateways, &file.nat_gateways, &mut leaving);
    leave(before, file, &before.network_interfaces, &file.network_interfaces, &mut leaving);
    let interface = |(index, (subnet, addresses)): (usize, (_, _))| {
        // A name that nobody takes; only these forms know it.
        let name = Located::nowhere(format!("{index:060}"));
        Located::nowhere(NetworkInterface { name, subnet, addresses })
    };
    leaving.into_iter().enumerate().map(interface).collect()
}

fn keep<T: Holder>(
    before: &RouterFile,
    file: &RouterFile,
    old: &[Located<T>],
    new: &mut [Located<T>],
) {
    for form in new.iter_mut().map(Located::get_mut) {
        let there = find(old, form).filter(|there| stays(before, file, *there, form));
        if let Some(there) = there.filter(|_| form.addresses().is_empty()) {
            form.take_over(there);
        }
    }
}

fn leave<T: Holder>(
    before: &RouterFile,
    file: &RouterFile,
    old: &[Located<T>],
    new: &[Located<T>],
    leaving: &mut Vec<(Located<String>, Vec<Located<String>>)>,
) {
    for form in old.iter().map(Located::get) {
        let there = find(new, form).is_some_and(|there| stays(before, file, form, there));
        if !there && is_same_subnet(before, file, form.subnet()) {
            leaving.push((form.subnet().clone(), form.addresses()));
        }
    }
}

/// Whether it is the same thing for life, and not one made anew under its name.
fn stays<T: Holder>(before: &RouterFile, file: &RouterFile, old: &T, new: &T) -> bool {
    old.serves_as(new) && is_same_subnet(before, file, old.subnet())
}

fn is_same_subnet(before: &RouterFile, file: &RouterFile, name: &Located<String>) -> bool {
    let ranges = |file: &RouterFile| {
        let subnet = file.subnets.iter().find(|it| it.name == *name)?;
        let mut ranges: Vec<String> = subnet.cidrs.iter().map(|it| it.get().clone()).collect();
        ranges.retain(|range| !range.contains(':'));
        ranges.sort_unstable();
        Some((ranges, subnet.zone.clone(), subnet.vpc.clone()))
    };
    ranges(before).is_some_and(|there| Some(there) == ranges(file))
}

/// What has the name of this.
fn find<'a, T: Named>(list: &'a [Located<T>], like: &T) -> Option<&'a T> {
    list.iter().map(Located::get).find(|it| it.name() == like.name())
}

/// What has addresses in a subnet.
trait Holder: Named {
    fn subnet(&self) -> &Located<String>;
    fn addresses(&self) -> Vec<Located<String>>;
    /// Takes over the addresses of another.
    fn take_over(&mut self, other: &Self);
    /// Whether all that it has for life is the same, but for its addresses.
    fn serves_as(&self, other: &Self) -> bool;
}

/// Declares the holders: form, field of addresses, fields that it has for life.
macro_rules! holders {
    ($($form:ident = $addresses:ident, $($for_life:ident),+;)*) => {
        $(impl Holder for $form {
            fn subnet(&self) -> &Located<String> {
                &self.subnet
            }

            fn addresses(&self) -> Vec<Located<String>> {
                self.$addresses.iter().cloned().collect()
            }

            fn take_over(&mut self, other: &Self) {
                self.$addresses.clone_from(&other.$addresses);
            }

            fn serves_as(&self, other: &Self) -> bool {
                $(self.$for_life == other.$for_life)&&+
            }
        })*
    };
}

holders! {
    Endpoint = address, subnet, service;
    NatGateway = address, subnet, public_address;
    NetworkInterface = addresses, subnet;
}
