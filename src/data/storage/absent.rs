//! In place of `remote`, of a program that was built without it: says so.

use super::catalog::Known;
use super::depot::Parcel;
use super::staging::{Staged, Staging};
use crate::config::address::redacted;
use crate::error::{Error, Result};
use std::path::Path;

pub(super) fn stage(url: &str, _how: &Staging) -> Result<Staged> {
    Err(without(&redacted(url)))
}

pub(super) fn fetch_known(set: &Known, _mirror: Option<&str>, _out: &Path, _how: &Staging) -> Result<Vec<String>> {
    Err(without(&format!("ddl fetch {}", set.name)))
}

pub(super) fn list(url: &str, _how: &Staging) -> Result<Vec<(String, u64)>> {
    Err(without(url))
}

pub(super) fn put(url: &str, _parcels: &[Parcel], _how: &Staging) -> Result<u64> {
    Err(without(url))
}

pub(super) fn get(url: &str, _names: &[String], _folder: &Path, _how: &Staging) -> Result<()> {
    Err(without(url))
}

fn without(place: &str) -> Error {
    let mend = "build it with the default features, or copy the data by other means";
    Error::usage(place, "this program was built without remote storage", mend)
}
