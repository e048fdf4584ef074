//! Decoders of others, which may panic on a damaged file. Here such a panic is an error of that file: it neither prints
//! nor ends the job, as the program's own panics do.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What `decode` gives; None if it panicked. What it worked on is then in no state to be used again.
pub fn contain<T>(decode: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    // The hook that is there already ends the job, and goes on doing so for all other panics.
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                others(info);
            }
        }));
    });
    let before = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    CONTAINED.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_is_no_panic_outside() {
        assert_eq!(contain(|| 3), Some(3));
        assert_eq!(contain(|| -> i32 { panic!("broken file") }), None);
        assert_eq!(contain(|| contain(|| -> i32 { panic!("broken file") }).unwrap_or(5)), Some(5));
        assert!(!CONTAINED.get());
    }
}
