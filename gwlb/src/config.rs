//! The configuration: one TOML file becomes [`Settings`], or a list of located problems.
//!
//! Nothing behind this module meets an unchecked string. What a problem looks like is
//! [`router::source`]'s business, and so is everything from `[[vpc]]` to `[[intent]]`.

mod settings;
mod values;

pub use settings::*;
pub use values::*;
