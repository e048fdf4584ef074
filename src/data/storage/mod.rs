//! Where bytes are. A local path is read as it is; what a URL names, one object or a folder of them, is copied into a
//! node-local cache first ([`stage`]), and the copy's path is what sources read.
//!
//! Room by room: [`address`](crate::config::address) knows a URL and how it may be shown; `catalog` the well-known data sets by
//! name; `remote` all far places, with the network. Without the feature of that name `absent` stands for it, and refuses.
//!
//! [`Depot`] is the other way: a folder of this machine's files in a far place.
//!
//! tokio lives inside [`stage`], [`fetch_known`] and the calls of [`Depot`] only: a rank that trains has no such thread.

mod catalog;
mod depot;
mod staging;

#[cfg_attr(not(feature = "remote"), path = "absent.rs")]
mod remote;

pub use catalog::{Archive, CATALOG, File as SetFile, Known, Sum, known_at};
pub use depot::{Depot, Parcel};
pub use staging::{Patience, Staged, Staging, fetch_known, is_remote, stage};
