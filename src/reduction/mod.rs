//! From the gradients of micro-batches, wherever they were computed, to one sum that every host has.
//!
//! The ranks of a host keep their gradients in memory that all of them see; each sums its slice of all of them, exchanges
//! it with the same slice of other hosts, and later updates its slice of the host's one copy of the weights.

mod bf16_wire;
mod demand;
mod exchange;
pub mod tree;

pub use demand::Demand;
pub use exchange::Exchange;
