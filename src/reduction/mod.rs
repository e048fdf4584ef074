//! From the gradients of micro-batches, wherever they were computed, to one sum that every host has.
//!
//! The ranks of a host keep their gradients in memory that all of them see. Each sums blocks of all of them, exchanges its
//! slice with the same slice of other hosts, and updates blocks of the host's one copy of the weights while they are in cache.

mod bf16_wire;
mod claims;
mod crossing;
mod demand;
mod exchange;
pub mod tree;

pub use crossing::Crossing;
pub use demand::Demand;
pub use exchange::Exchange;
