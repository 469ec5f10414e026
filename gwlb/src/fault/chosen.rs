//! Which fault a thread has chosen, in builds that have faults.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Fault;

thread_local! {
    static CHOSEN: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Whether this fault is on in this thread.
pub fn on(fault: Fault) -> bool {
    CHOSEN.get() == Some(fault)
}

/// Whether any fault is on in this thread but for these.
pub fn on_besides(these: &[Fault]) -> bool {
    CHOSEN.get().is_some_and(|chosen| !these.contains(&chosen))
}

/// Has this thread work with a fault, in place of any other, for as long as the guard lives.
#[must_use = "the fault is off when this is dropped"]
pub fn with(fault: Fault) -> Guard {
    Guard { before: CHOSEN.replace(Some(fault)), of_this_thread: PhantomData }
}

/// A fault that is on. It cannot leave its thread.
#[derive(Debug)]
pub struct Guard {
    before: Option<Fault>,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        CHOSEN.set(self.before);
    }
}
