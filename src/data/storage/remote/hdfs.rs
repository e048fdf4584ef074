//! `hdfs://host:port/path`, or `hdfs://nameservice/path` by the configuration in `HADOOP_CONF_DIR`, over Hadoop's own protocol:
//! no Java, Kerberos where the configuration asks for it, and each packet checked by its CRC.

use super::deposit::Outgoing;
use super::trouble::{Trouble, with_causes};
use super::{Bytestream, Listing, MOST_OBJECTS, Object, Patience, in_time, last_part};
use crate::config::address::redacted;
use crate::error::{Error, Result};
use futures_util::{StreamExt, TryStreamExt};
use hdfs_native::client::{FileStatus, WriteOptions};
use hdfs_native::{Client, ClientBuilder, HdfsError};
use std::ops::Range;
use std::time::Duration;

/// Bytes given to the DataNode at once.
const PIECE: u64 = 1 << 20;

/// A path in HDFS.
pub(super) struct Hdfs {
    client: Client,
    path: String,
    silence: Duration,
}

impl Hdfs {
    /// Of an address.
    ///
    /// # Errors
    /// `Usage`: no such NameNode or name service is configured.
    pub fn open(url: &str, patience: &Patience) -> Result<Self> {
        let (_, rest) = url.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let builder = ClientBuilder::new();
        let builder = if host.is_empty() { builder } else { builder.with_url(format!("hdfs://{host}")) };
        let client = builder.build().map_err(|e| {
            let mend = "write hdfs://host:port/path, or set HADOOP_CONF_DIR to the folder with core-site.xml and hdfs-site.xml";
            Error::usage(redacted(url), with_causes(&e), mend)
        })?;
        Ok(Self { client, path: format!("/{}", path.trim_end_matches('/')), silence: patience.silence })
    }

    /// What is there.
    pub async fn list(&self) -> Result<Listing, Trouble> {
        // The library tries again by itself all that time, on every NameNode there is.
        let silent = |_| Trouble::Refused(format!("no NameNode answers for {:.0?}", self.silence));
        let found =
            in_time(self.silence, self.client.get_file_info(&self.path)).await.map_err(silent)?.map_err(trouble)?;
        let name = last_part(&self.path);
        if !found.isdir {
            return Ok(Listing::single(object(found, name.to_owned())));
        }
        let listed = self.client.list_status_iter(&self.path, true);
        let mut all = Vec::new();
        while let Some(status) = in_time(self.silence, listed.next()).await? {
            all.push(status.map_err(trouble)?);
            if all.len() > 2 * MOST_OBJECTS {
                break;
            }
        }
        let start = format!("{}/", self.path.trim_end_matches('/'));
        let files = all.into_iter().filter(|status| !status.isdir).filter_map(|status| {
            let name = status.path.strip_prefix(&start)?.to_owned();
            Some(object(status, name))
        });
        Listing::folder(name, files.collect())
    }

    /// Bytes of a file.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        let reader = in_time(self.silence, self.client.read(&object.key)).await?.map_err(trouble)?;
        if reader.file_length() as u64 != object.size {
            return Err(Trouble::Changed("its length is another one".into()));
        }
        let stream = reader.read_range_stream(range.start as usize, (range.end - range.start) as usize);
        Ok(stream.map_err(trouble).boxed())
    }
}

impl Hdfs {
    /// Writes a file below the path, under another name first.
    pub async fn write(&self, name: &str, file: &Outgoing<'_>) -> Result<(), Trouble> {
        let (path, part) = (format!("{}/{name}", self.path.trim_end_matches('/')), unfinished(&self.path, name));
        in_time(self.silence, self.client.delete(&part, false)).await?.ok();
        let mut writer =
            in_time(self.silence, self.client.create(&part, WriteOptions::default())).await?.map_err(trouble)?;
        for (start, len) in file.pieces(PIECE) {
            in_time(self.silence, writer.write_bytes(file.read(start, len)?)).await?.map_err(trouble)?;
        }
        in_time(self.silence, writer.close()).await?.map_err(trouble)?;
        in_time(self.silence, self.client.rename(&part, &path, true)).await?.map_err(trouble)?;
        file.sent(file.size);
        Ok(())
    }
}

/// What a file is called until all of it is there.
pub(super) fn unfinished(folder: &str, name: &str) -> String {
    format!("{}/{name}.copying", folder.trim_end_matches('/'))
}

fn object(status: FileStatus, name: String) -> Object {
    let tag = status.modification_time.to_string();
    Object { name, key: status.path, size: status.length as u64, tag, ranges: true, digest: None }
}

fn trouble(error: HdfsError) -> Trouble {
    let what = with_causes(&error);
    match error {
        HdfsError::FileNotFound(_) => Trouble::Missing("HDFS does not know it".into()),
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => Trouble::Forbidden(what),
        HdfsError::RPCError(kind, _) | HdfsError::FatalRPCError(kind, _) if kind.contains("AccessControl") => {
            Trouble::Forbidden("HDFS refuses".into())
        }
        HdfsError::UnsupportedErasureCodingPolicy(_)
        | HdfsError::UnsupportedFeature(_)
        | HdfsError::InvalidArgument(_)
        | HdfsError::InvalidPath(_) => Trouble::Refused(what),
        _ => Trouble::Broken(what),
    }
}
