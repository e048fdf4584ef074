//! A folder in a far place that files are copied into, and fetched back from.

use super::remote;
use super::staging::Staging;
use crate::config::address::redacted;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What an address of a [`Depot`] looks like.
const MEND: &str =
    "write a folder of this machine, s3://bucket/path, az://container/path, abfss://, hdfs:// or webhdfs://";

/// A far folder. Nothing of the network lives between its calls.
#[derive(Debug, Clone)]
pub struct Depot {
    url: String,
    how: Staging,
}

/// A file of this machine, and its name in a far folder, with `/` between folders.
pub type Parcel = (String, PathBuf);

impl Depot {
    /// Of an address that can be written to. Nothing is asked of the place yet.
    ///
    /// # Errors
    /// `Usage`: it cannot be written to, or holds what signs in.
    pub fn new(url: &str, how: Staging) -> Result<Self> {
        let shown = redacted(url);
        let wrong = |what: &str| Err(Error::usage(shown.as_str(), what, MEND));
        let (scheme, place) = url.split_once("://").unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => return wrong("a web address can be read, not written to"),
            "s3" | "s3a" | "az" | "abfs" | "abfss" | "hdfs" | "webhdfs" | "swebhdfs" => {}
            _ => return wrong("nothing can be written to such an address"),
        }
        if shown != url {
            return wrong("it holds what signs in, which comes from the environment only");
        }
        if place.split('/').any(|part| part == "." || part == "..") {
            return wrong("`.` and `..` name no folder there");
        }
        Ok(Self { url: format!("{}/", url.trim_end_matches('/')), how })
    }

    /// The address, with a `/` behind.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of this machine that stands for it below `base`: one for each address.
    pub fn folder_in(&self, base: &Path) -> PathBuf {
        let (scheme, place) = self.url.split_once("://").unwrap_or_default();
        base.join(scheme).join(place.trim_matches('/'))
    }

    /// Names and lengths of what is there; nothing where there is no such folder.
    ///
    /// # Errors
    /// `Usage`, `Io`.
    pub fn list(&self) -> Result<Vec<(String, u64)>> {
        remote::list(&self.url, &self.how)
    }

    /// Copies files there, one after the other: each is read back and whole there, or as it was. What is there already is not
    /// sent. Gives the bytes sent.
    ///
    /// # Errors
    /// `Usage`, `Io`.
    pub fn put(&self, parcels: &[Parcel]) -> Result<u64> {
        remote::put(&self.url, parcels, &self.how)
    }

    /// Fetches objects by name into `folder`, whole or not at all.
    ///
    /// # Errors
    /// `Usage`, `Io`.
    pub fn get(&self, names: &[String], folder: &Path) -> Result<()> {
        remote::get(&self.url, names, folder, &self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_write_to_has_a_folder_of_its_own_here() {
        let depot = |url: &str| Depot::new(url, Staging::default());
        for (url, folder) in [
            ("s3://bucket/runs/try/", "results/s3/bucket/runs/try"),
            ("abfss://c@a.dfs.core.windows.net/x", "results/abfss/c@a.dfs.core.windows.net/x"),
            ("hdfs://host:8020", "results/hdfs/host:8020"),
            ("hdfs:///x", "results/hdfs/x"),
        ] {
            assert_eq!(depot(url).unwrap().folder_in(Path::new("results")), Path::new(folder));
        }
        for url in ["https://h/x", "ftp://h/x", "s3://b/../x", "s3://me:secret@b/x", "az://c/x?sig=secret"] {
            let error = depot(url).unwrap_err();
            assert!(error.exit_code() == 2 && !error.to_string().contains("secret"), "{error}");
        }
    }
}
