//! libFuzzer's end of the targets: `DDL_FUZZ_TARGET` says which. Started by `scripts/fuzz`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

use std::cell::OnceCell;
use targets::{Room, TARGETS, Target, memory::Watched};

#[global_allocator]
static WATCHED: Watched = Watched;

thread_local! {
    static CHOSEN: OnceCell<(&'static Target, Room)> = const { OnceCell::new() };
}

fn chosen() -> (&'static Target, Room) {
    let name = std::env::var("DDL_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    // HDF5 may crash on what no seal or trial has kept from it.
    (target.unwrap_or_else(|| panic!("DDL_FUZZ_TARGET={name} is no target")), Room::with_trials())
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    CHOSEN.with(|chosen_once| {
        let (target, room) = chosen_once.get_or_init(chosen);
        target.run(room, bytes);
    });
});
