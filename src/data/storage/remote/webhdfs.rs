//! `webhdfs://host:port/path` (`swebhdfs` with TLS): HDFS through the NameNode's web address, where its own ports are closed.

use super::deposit::Outgoing;
use super::hdfs::unfinished;
use super::http::{bad, body, broken, checked, client, sender};
use super::trouble::Trouble;
use super::{Bytestream, Listing, MOST_OBJECTS, Object, Patience, in_time, last_part, whole};
use crate::config::address::redacted;
use crate::error::Result;
use reqwest::{Body, Client, Response, header};
use serde::Deserialize;
use std::env;
use std::ops::Range;
use std::time::Duration;
use url::Url;

/// The longest answer on a folder.
const MOST_ANSWER: usize = 256 << 20;

/// Bytes sent at once.
const PIECE: u64 = 1 << 20;
/// Bytes a second; what takes longer is given up.
const SLOWEST: u64 = 100_000;

/// A path in HDFS.
pub(super) struct WebHdfs {
    client: Client,
    sender: Client,
    silence: Duration,
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
struct Done {
    boolean: bool,
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
        let (client, sender) = (client(&place, patience)?, sender(&place, patience)?);
        Ok(Self { client, sender, silence: patience.silence, base, path: format!("/{}", path.trim_matches('/')) })
    }

    /// What is there.
    pub async fn list(&self) -> Result<Listing, Trouble> {
        let name = last_part(&self.path);
        let One { file_status: status } = self.ask(&self.path, "GETFILESTATUS").await?;
        if status.r#type != "DIRECTORY" {
            return Ok(Listing::single(object(&status, self.path.clone(), name.to_owned())));
        }
        let (mut open, mut found) = (vec![String::new()], Vec::new());
        while let Some(folder) = open.pop() {
            let path = format!("{}/{folder}", self.path.trim_end_matches('/'));
            let Many { file_statuses } = self.ask(path.trim_end_matches('/'), "LISTSTATUS").await?;
            for status in file_statuses.file_status {
                let name = format!("{folder}{}", status.path_suffix);
                if status.r#type == "DIRECTORY" {
                    open.push(format!("{name}/"));
                } else {
                    found.push(object(&status, format!("{path}{}", status.path_suffix), name));
                }
                if found.len() + open.len() > MOST_OBJECTS {
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

    fn url(&self, path: &str, operation: &str, more: &[(&str, String)]) -> Url {
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
        url
    }

    async fn get(&self, path: &str, operation: &str, more: &[(&str, String)]) -> Result<Response, Trouble> {
        let answer = self.client.get(self.url(path, operation, more)).send().await.map_err(broken)?;
        accepted(answer).await
    }

    /// Writes a file below the path, under another name first.
    pub async fn write(&self, name: &str, file: &Outgoing<'_>) -> Result<(), Trouble> {
        let (path, part) = (format!("{}/{name}", self.path.trim_end_matches('/')), unfinished(&self.path, name));
        let create = self.url(&part, "CREATE", &[("overwrite", "true".into())]);
        let answer = in_time(self.silence, self.sender.put(create).send()).await?.map_err(broken)?;
        // The NameNode names a DataNode, which takes the bytes.
        let there = answer.headers().get(header::LOCATION).and_then(|there| there.to_str().ok()).map(str::to_owned);
        let Some(there) = there.filter(|_| answer.status().is_redirection()) else {
            accepted(answer).await?;
            return Err(Trouble::Refused("the NameNode names no DataNode to write to".into()));
        };
        let there = Url::parse(&there).map_err(|e| Trouble::Refused(format!("the DataNode's address is none: {e}")))?;
        let bytes = Body::wrap_stream(file.stream(PIECE)?);
        let send = self.sender.put(there).header(header::CONTENT_TYPE, "application/octet-stream");
        let send = send.header(header::CONTENT_LENGTH, file.size).body(bytes).send();
        let limit = self.silence + Duration::from_secs(file.size / SLOWEST);
        accepted(in_time(limit, send).await?.map_err(broken)?).await?;
        // It replaces nothing by itself.
        if !self.rename(&part, &path).await? {
            let remove = self.url(&path, "DELETE", &[]);
            accepted(in_time(self.silence, self.sender.delete(remove).send()).await?.map_err(broken)?).await?;
            if !self.rename(&part, &path).await? {
                return Err(Trouble::Broken("the file could not be given its name".into()));
            }
        }
        file.sent(file.size);
        Ok(())
    }

    /// Whether it went well.
    async fn rename(&self, from: &str, to: &str) -> Result<bool, Trouble> {
        let rename = self.url(from, "RENAME", &[("destination", to.into())]);
        let answer = in_time(self.silence, self.sender.put(rename).send()).await?.map_err(broken)?;
        let bytes = whole(body(accepted(answer).await?), 1 << 16).await?;
        Ok(serde_json::from_slice::<Done>(&bytes).is_ok_and(|done| done.boolean))
    }
    /// Bytes of a file, from the DataNode that the NameNode sends us to.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        let part = [("offset", range.start.to_string()), ("length", (range.end - range.start).to_string())];
        Ok(body(self.get(&object.key, "OPEN", &part).await?))
    }
}

/// An answer that is no refusal.
async fn accepted(answer: Response) -> Result<Response, Trouble> {
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

fn object(status: &Status, key: String, name: String) -> Object {
    let tag = status.modification_time.to_string();
    Object { name, key, size: status.length, tag, ranges: true, digest: None }
}
