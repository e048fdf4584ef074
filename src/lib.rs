//! ddl

pub mod arena;
pub mod comm;
pub mod config;
pub mod data;
pub mod error;
pub mod kernel;
pub mod layer;
pub mod loss;
pub mod model;
pub mod optimizer;
pub mod rng;
pub mod shape;
