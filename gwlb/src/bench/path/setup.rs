//! The set-ups that are measured in turns: ours, and what it is measured against.

use clap::ValueEnum;

/// A way from the client to the server. All have an MTU of 1500 between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Setup {
    /// The gateway with a pass-through appliance on the SDK, and `big_tcp` on its devices where the
    /// kernel has it: who receives is in the device's own namespace.
    Gateway,
    /// The kernel's VXLAN hairpin through an appliance namespace.
    Hairpin,
    /// The gateway without `big_tcp`, which is the default.
    #[value(name = "gateway-64k")]
    Gateway64k,
    /// A kernel that forwards between two cables.
    Kernel,
    /// A program that carries packets from one TUN device to another, without offloads.
    Tun,
    /// The same with super-packets.
    TunOffload,
}

impl Setup {
    /// In the order in which they are measured: what is compared most, side by side.
    pub(super) const ALL: [Self; 6] =
        [Self::Gateway, Self::Hairpin, Self::Gateway64k, Self::Kernel, Self::Tun, Self::TunOffload];

    /// As tables, charts and namespaces call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Hairpin => "hairpin",
            Self::Gateway64k => "gateway-64k",
            Self::Kernel => "kernel",
            Self::Tun => "tun",
            Self::TunOffload => "tun-offload",
        }
    }
}
