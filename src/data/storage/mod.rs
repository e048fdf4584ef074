//! Where bytes are. A local path is read as it is; what a URL names, one object or a folder of them, is copied into a
//! node-local cache first ([`stage`]), and the copy's path is what sources read.
//!
//! Room by room: [`address`](crate::config::address) knows a URL and how it may be shown; `remote` is what all far places
//! have in common, with a file for each kind of place; `fetch` brings the bytes; `cache` keeps them, whole or absent;
//! `catalog` knows the well-known data sets by name. Without the feature `remote` a URL is refused.
//!
//! tokio lives inside [`stage`] and [`fetch_known`] only: a rank that trains has no such thread.

mod catalog;
mod staging;

#[cfg(feature = "remote")]
mod cache;
#[cfg(feature = "remote")]
mod fetch;
#[cfg(feature = "remote")]
mod hdfs;
#[cfg(feature = "remote")]
mod http;
#[cfg(feature = "remote")]
mod known;
#[cfg(feature = "remote")]
mod object;
#[cfg(feature = "remote")]
mod profile;
#[cfg(feature = "remote")]
mod progress;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
mod trouble;
#[cfg(feature = "remote")]
mod unpack;
#[cfg(feature = "remote")]
mod webhdfs;

pub use catalog::{Archive, CATALOG, File as SetFile, Known, Sum, known_at};
pub use staging::{Patience, Staged, Staging, fetch_known, is_remote, stage};
