//! A trace as text.

use std::fmt;

use super::{Chosen, Hop, Passage, Side, Trace};

/// Hop by hop, and a last line that says how it ends; then the answer, if it was traced.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} from {}", self.packet, self.from)?;
        if let Some(private) = self.translated {
            writeln!(f, "  {} translates {} to {private}", self.from, self.to)?;
        }
        for (number, Hop { lookup, passage }) in self.hops.iter().enumerate() {
            for (line, text) in lookup.to_string().lines().enumerate() {
                match line {
                    0 => writeln!(f, "{:>3}  {text}", number + 1)?,
                    _ => writeln!(f, "     {text}")?,
                }
            }
            if let Some(passage) = passage {
                for line in passage.to_string().lines() {
                    writeln!(f, "         {line}")?;
                }
            }
        }
        let verb = if self.delivered { "delivered to" } else { "dropped:" };
        write!(f, "{verb} {}", self.end)?;
        if let Some(source) = self.source_translated {
            write!(f, ", with the source {source}")?;
        }
        if let Some(back) = &self.back {
            write!(f, "\n\nthe answer: {back}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Passage::Inspected { endpoint, service: _, zone, group, target } => {
                match group {
                    Some(group) => write!(f, "group {group} takes {endpoint}, in zone {zone}")?,
                    None => write!(f, "inspected in zone {zone}")?,
                }
                if let Some(Chosen { load_balancer, target, why }) = target {
                    let target = target.as_deref().unwrap_or("nothing");
                    write!(f, "\nload balancer {load_balancer} sends it to {target}: {why}")?;
                }
                Ok(())
            }
            Passage::Transit {
                transit_gateway,
                table,
                route,
                attachment,
                zone,
                appliance_mode,
                subnet,
            } => {
                let zone_by = if *appliance_mode {
                    "the flow decides on the zone (appliance mode)"
                } else {
                    "it stays in its zone if it can"
                };
                write!(
                    f,
                    "transit gateway {transit_gateway}, table {table}: {route} leads to attachment \
                     {attachment}; {zone_by}: {zone}, subnet {subnet}"
                )
            }
            Passage::LostInTransit { transit_gateway, why, .. } => {
                write!(f, "transit gateway {transit_gateway}: {why}")
            }
            Passage::Translated { nat_gateway, side: Side::Source, address } => {
                write!(f, "NAT gateway {nat_gateway} gives it the source {address}")
            }
            Passage::Translated { nat_gateway, side: Side::Destination, address } => {
                write!(f, "NAT gateway {nat_gateway} gives it back to {address}")
            }
        }
    }
}
