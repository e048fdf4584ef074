//! ddl trains neural networks data-parallel on CPU clusters, with the same result at any number of ranks.
//!
//! # The tour, in reading order
//!
//! 1. [`config`]: a job's TOML text becomes a checked [`config::Job`].
//! 2. [`data`]: a source becomes a [`data::Dataset`], from which batches are cut.
//! 3. [`layer`], [`loss`], [`optimizer`]: the registries; [`model`] puts the layers into one stack.
//! 4. [`train::step`]: the life of one mini-batch, on one screen. [`train`] is the run around it.
//! 5. [`comm`]: what ranks say to each other; [`reduction`]: how gradients become one sum. [`store`]: what is kept on disk.
//! 6. [`kernel`] under all of it: the arithmetic. [`arena`], [`rng`], [`shape`], [`resource`] and [`error`] are the base.
//!
//! # Dimension letters
//!
//! M samples of a micro-batch (or rows of a product), C channels, H height, W width, O output channels, T time steps,
//! F features a step, N outputs or columns, K depth of a product.
//!
//! # Invariants
//!
//! * Nothing that is computed depends on a rank's number or on how many there are: only who computes it does.
//! * Images are (M, H, W, C) in memory; files and messages use torch's (C, H, W).
//! * Parameters, gradients and moments share one [`arena::Layout`].
//! * A training step allocates nothing and cannot fail but by divergence.
//! * Every rank returns the same result: errors are agreed on by [`comm::agree`].
//! * Only [`comm`] names MPI, only [`store`] names HDF5.

pub mod arena;
pub mod chart;
pub mod cli;
pub mod comm;
pub mod compare;
pub mod config;
pub mod data;
pub mod doctor;
pub mod error;
pub mod explore;
pub mod export;
pub mod input;
pub mod kernel;
pub mod layer;
pub mod loss;
pub mod model;
pub mod optimizer;
pub mod prepare;
pub mod reduction;
pub mod report;
pub mod resource;
pub mod rng;
pub mod scale;
pub mod shape;
pub mod shard;
pub mod store;
pub mod supervise;
pub mod train;
