//! `webhdfs://host:port/path` (`swebhdfs` with TLS): HDFS through the NameNode's web address, where its own ports are closed.

use super::http::{bad, body, broken, checked, client};
use super::remote::{Bytestream, Listing, MOST_OBJECTS, Object, last_part, whole};
use super::staging::Patience;
use super::trouble::Trouble;
use crate::config::address::redacted;
use crate::error::Result;
use reqwest::{Client, Response};
use serde::Deserialize;
use std::env;
use std::ops::Range;
use url::Url;

/// The longest answer on a folder.
const MOST_ANSWER: usize = 256 << 20;

/// Folders in folders that are followed.
const MOST_DEPTH: usize = 32;

/// A path in HDFS.
pub(super) struct WebHdfs {
    client: Client,
    /// The web address of the NameNode with `/webhdfs/v1`.
    base: Url,
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    length: u64,
    modification_time: u64,
    path_suffix: String,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct One {
    file_status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Many {
    file_statuses: Statuses,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statuses {
    file_status: Vec<Status>,
}

impl WebHdfs {
    /// Of an address.
    ///
    /// # Errors
    /// `Usage`.
    pub fn open(url: &str, kind: &str, patience: &Patience) -> Result<Self> {
        let place = redacted(url);
        let (_, rest) = url.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (scheme, port) = if kind == "swebhdfs" { ("https", 9871) } else { ("http", 9870) };
        let mut base = Url::parse(&format!("{scheme}://{host}/webhdfs/v1")).map_err(|e| bad(&place, &e))?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port && base.set_port(Some(port)).is_err() {
            return Err(bad(&place, &url::ParseError::InvalidPort));
        }
        Ok(Self { client: client(&place, patience)?, base, path: format!("/{}", path.trim_matches('/')) })
    }

    /// What is there.
    pub async fn list(&self) -> Result<Listing, Trouble> {
        let name = last_part(&self.path);
        let One { file_status: status } = self.ask(&self.path, "GETFILESTATUS").await?;
        if status.r#type != "DIRECTORY" {
            return Ok(Listing::single(object(&status, self.path.clone(), name.to_owned())));
        }
        let (mut open, mut found, mut seen) = (vec![String::new()], Vec::new(), 0);
        while let Some(folder) = open.pop() {
            seen += 1;
            if folder.matches('/').count() > MOST_DEPTH {
                return Err(Trouble::Refused(format!("more than {MOST_DEPTH} folders in folders")));
            }
            let path = format!("{}/{folder}", self.path.trim_end_matches('/'));
            let Many { file_statuses } = self.ask(path.trim_end_matches('/'), "LISTSTATUS").await?;
            for status in file_statuses.file_status {
                let name = format!("{folder}{}", status.path_suffix);
                if status.r#type == "DIRECTORY" {
                    open.push(format!("{name}/"));
                } else {
                    found.push(object(&status, format!("{path}{}", status.path_suffix), name));
                }
                if found.len() + open.len() + seen > MOST_OBJECTS {
                    return Err(Trouble::Refused(format!("the folder has more than {MOST_OBJECTS} objects")));
                }
            }
        }
        Listing::folder(name, found)
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, path: &str, operation: &str) -> Result<T, Trouble> {
        let answer = self.get(path, operation, &[]).await?;
        let bytes = whole(body(answer), MOST_ANSWER).await?;
        serde_json::from_slice(&bytes).map_err(|e| Trouble::Refused(format!("the answer is none of WebHDFS: {e}")))
    }

    async fn get(&self, path: &str, operation: &str, more: &[(&str, String)]) -> Result<Response, Trouble> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.split('/').filter(|part| !part.is_empty()));
        }
        url.query_pairs_mut().append_pair("op", operation);
        if let Some(user) = ["HADOOP_USER_NAME", "USER"].iter().find_map(|name| env::var(name).ok()) {
            url.query_pairs_mut().append_pair("user.name", &user);
        }
        for (name, value) in more {
            url.query_pairs_mut().append_pair(name, value);
        }
        let answer = self.client.get(url).send().await.map_err(broken)?;
        if answer.status() != 403 {
            return checked(answer);
        }
        // A NameNode that waits to take over refuses as one that forbids does.
        let why = whole(body(answer), 1 << 16).await.unwrap_or_default();
        let waits = String::from_utf8_lossy(&why).contains("StandbyException");
        Err(if waits {
            Trouble::Broken("this NameNode is in standby".into())
        } else {
            Trouble::Forbidden("HDFS refuses".into())
        })
    }

    /// Bytes of a file, from the DataNode that the NameNode sends us to.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        let part = [("offset", range.start.to_string()), ("length", (range.end - range.start).to_string())];
        Ok(body(self.get(&object.key, "OPEN", &part).await?))
    }
}

fn object(status: &Status, key: String, name: String) -> Object {
    let tag = status.modification_time.to_string();
    Object { name, key, size: status.length, tag, ranges: true, digest: None }
}
