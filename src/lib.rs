//! ddl

pub mod arena;
pub mod config;
pub mod data;
pub mod error;
pub mod kernel;
pub mod layer;
pub mod rng;
pub mod shape;
pub mod store;
