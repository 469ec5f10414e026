//! A panic in a simulation is a finding, with its place, and not the end of the program.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// What the panic said, if this thread wants to know.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does something; if it panics, says what the panic said and where.
pub(super) fn caught<T>(deed: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let wanted = SAID.with_borrow_mut(|said| match said {
                Some(said) => {
                    *said = info.to_string();
                    true
                }
                None => false,
            });
            if !wanted {
                before(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(deed));
    let said = SAID.take().unwrap_or_default();
    result.map_err(|_| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_and_where() {
        assert_eq!(caught(|| 7), Ok(7));
        let said = caught(|| panic!("no {}", "good")).unwrap_err();
        assert!(said.contains("no good") && said.contains("panics.rs"), "{said}");
    }
}
