//! Object stores: `s3://bucket/key`, `az://container/path` and `abfss://container@account.dfs.core.windows.net/path`, of
//! whatever endpoint the standard variables of AWS and Azure name.

use super::deposit::Outgoing;
use super::http::CONNECT;
use super::profile::Profile;
use super::trouble::{Trouble, with_causes};
use super::{Bytestream, Digest, Listing, MOST_OBJECTS, Object, Patience, last_part, patiently, sign_in};
use crate::config::address::redacted;
use crate::error::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use std::env;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a part: small enough to be sent on a slow link before a request is given up.
const PART: u64 = 8 << 20;
/// S3 takes 10,000 parts.
const MOST_PARTS: u64 = 9000;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 4;

/// A bucket or container, and a key or prefix in it.
pub(super) struct Store {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    key: Path,
    /// Whether the address ends in `/`.
    folder: bool,
    is_s3: bool,
}

impl Store {
    /// Of an address, with the credentials of this process's environment.
    ///
    /// # Errors
    /// `Usage`.
    pub fn open(url: &str, kind: &str, patience: &Patience) -> Result<Self> {
        let place = redacted(url);
        let wrong = |what: String| {
            Error::usage(
                &place,
                what,
                "write s3://bucket/key, az://container/path or abfss://container@account.dfs.core.windows.net/path",
            )
        };
        let (_, rest) = url.split_once("://").unwrap_or_default();
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(wrong("it names no bucket or container".into()));
        }
        let key = key.trim_matches('/');
        let key = Path::parse(key).map_err(|e| wrong(with_causes(&e)))?;
        let is_s3 = kind.starts_with("s3");
        // The tries are counted in one place, which is not there.
        let retry = RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(300), ..RetryConfig::default() };
        let options = ClientOptions::new()
            .with_connect_timeout(patience.silence.min(CONNECT))
            .with_read_timeout(patience.silence)
            .with_timeout_disabled();
        let built = if is_s3 {
            amazon(host, options).with_retry(retry).build().map(both)
        } else {
            azure(url, host, options).with_retry(retry).build().map(both)
        };
        let (store, parts) = built.map_err(|e| Trouble::Forbidden(with_causes(&e)).at(url, &sign_in(kind)))?;
        Ok(Self { store, parts, key, folder: rest.ends_with('/') || !rest.contains('/'), is_s3 })
    }

    /// What is there: the object of this name, or else all below it.
    pub async fn list(&self) -> Result<Listing, Trouble> {
        let name = last_part(self.key.as_ref());
        let mut missing = None;
        if !self.folder {
            match self.store.head(&self.key).await.map_err(trouble) {
                Ok(meta) => return Ok(Listing::single(self.object(meta, name.to_owned()))),
                Err(Trouble::Missing(what)) => missing = Some(what),
                Err(trouble) => return Err(trouble),
            }
        }
        let prefix = (!self.key.as_ref().is_empty()).then_some(&self.key);
        let found: Vec<ObjectMeta> =
            self.store.list(prefix).take(MOST_OBJECTS + 1).try_collect().await.map_err(trouble)?;
        let start = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let inside = found.into_iter().filter_map(|meta| {
            let name = meta.location.as_ref().strip_prefix(&start)?.to_owned();
            Some(self.object(meta, name))
        });
        Listing::folder(name, inside.collect()).map_err(|trouble| match (trouble, missing) {
            (Trouble::Missing(_), Some(what)) => Trouble::Missing(what),
            (trouble, _) => trouble,
        })
    }

    fn object(&self, meta: ObjectMeta, name: String) -> Object {
        let tag = meta.e_tag.as_deref().map_or_else(|| meta.last_modified.to_string(), plain);
        let digest = if self.is_s3 { md5_of(&tag).map(Digest::PerhapsMd5) } else { None };
        Object { name, key: meta.location.into(), size: meta.size, tag, ranges: true, digest }
    }

    /// Bytes of an object.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let path = Path::parse(&object.key).map_err(|e| Trouble::Refused(with_causes(&e)))?;
        let answer = self.store.get_opts(&path, options).await.map_err(trouble)?;
        if answer.meta.size != object.size || answer.meta.e_tag.as_deref().is_some_and(|tag| plain(tag) != object.tag) {
            return Err(Trouble::Changed("its tag or length is another one".into()));
        }
        if answer.range != range {
            return Err(Trouble::Broken("the server sent another range than it was asked for".into()));
        }
        Ok(answer.into_stream().map_err(trouble).boxed())
    }
}

impl Store {
    /// Writes an object below the address: in one piece, or in parts that count when all are there.
    pub async fn write(&self, name: &str, file: &Outgoing<'_>, patience: &Patience) -> Result<(), Trouble> {
        let key = format!("{}/{name}", self.key);
        let path = Path::parse(key.trim_start_matches('/')).map_err(|e| Trouble::Refused(with_causes(&e)))?;
        if file.size <= PART {
            let put = || async {
                let bytes = file.read(0, file.size as usize)?;
                self.store.put(&path, bytes.into()).await.map_err(trouble)
            };
            patiently(patience, put).await?;
            file.sent(file.size);
            return Ok(());
        }
        let id = patiently(patience, || async { self.parts.create_multipart(&path).await.map_err(trouble) }).await?;
        let parts = file.pieces(PART.max(file.size.div_ceil(MOST_PARTS))).enumerate();
        let sending = parts.map(|(i, (start, len))| {
            let (path, id) = (&path, &id);
            async move {
                let send = || async {
                    let bytes = file.read(start, len)?;
                    self.parts.put_part(path, id, i, bytes.into()).await.map_err(trouble)
                };
                let part = patiently(patience, send).await?;
                file.sent(len as u64);
                Ok(part)
            }
        });
        let sent: Result<Vec<PartId>, Trouble> = stream::iter(sending).buffered(PARTS_AT_ONCE).try_collect().await;
        let done = match sent {
            Ok(parts) => self.parts.complete_multipart(&path, &id, parts).await.map_err(trouble),
            Err(trouble) => Err(trouble),
        };
        if done.is_err() {
            // The parts would take space that nobody sees.
            let _ = self.parts.abort_multipart(&path, &id).await;
        }
        done.map(|_| ())
    }
}

/// A store as what it can do.
fn both<S: ObjectStore + MultipartStore>(store: S) -> (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) {
    let store = Arc::new(store);
    (store.clone(), store)
}

/// Credentials, region and endpoint from `AWS_…`, else from the profile in `~/.aws`.
fn amazon(bucket: &str, options: ClientOptions) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_client_options(options).with_bucket_name(bucket);
    let profile = Profile::load();
    let is_unset = |name: &str| env::var_os(name).is_none();
    let key = profile.get("aws_access_key_id").zip(profile.get("aws_secret_access_key"));
    if let Some((id, secret)) = key.filter(|_| is_unset("AWS_ACCESS_KEY_ID")) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = profile.get("aws_session_token") {
            builder = builder.with_token(token);
        }
    }
    let elsewhere = is_unset("AWS_REGION") && is_unset("AWS_DEFAULT_REGION");
    if let Some(region) = profile.get("region").filter(|_| elsewhere) {
        builder = builder.with_region(region);
    }
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = named.iter().find_map(|name| env::var(name).ok()).or_else(|| profile.get("endpoint_url"));
    match endpoint {
        // Whoever names an endpoint without TLS means it.
        Some(endpoint) => builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint),
        None => builder,
    }
}

/// Account and key from `AZURE_STORAGE_…`, a connection string too.
fn azure(url: &str, host: &str, options: ClientOptions) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env().with_client_options(options);
    let text = env::var("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let stated = |name: &str| {
        let mut parts = text.split(';').filter_map(|part| part.split_once('='));
        parts.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    if let Some(account) = stated("AccountName") {
        builder = builder.with_account(account);
    }
    if let Some(key) = stated("AccountKey") {
        builder = builder.with_access_key(key);
    }
    let endpoint = stated("BlobEndpoint").or_else(|| env::var("AZURE_STORAGE_ENDPOINT").ok());
    let has_endpoint = endpoint.is_some();
    if let Some(endpoint) = endpoint {
        builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    }
    // An endpoint stands for the account's host, so that only the container of the address counts.
    match host.split_once('@') {
        Some((container, _)) if has_endpoint => builder.with_container_name(container),
        _ => builder.with_url(url),
    }
}

/// An ETag without its quotation marks, which Azure leaves out in lists.
fn plain(tag: &str) -> String {
    tag.trim_matches('"').to_owned()
}

/// The MD5 in an ETag of 32 hexadecimal digits.
fn md5_of(tag: &str) -> Option<Vec<u8>> {
    let is_md5 = tag.len() == 32 && tag.is_ascii();
    let byte = |i: usize| u8::from_str_radix(tag.get(i..i + 2)?, 16).ok();
    if is_md5 { (0..32).step_by(2).map(byte).collect() } else { None }
}

fn trouble(error: object_store::Error) -> Trouble {
    use object_store::Error::*;
    let what = with_causes(&error);
    match error {
        NotFound { .. } => Trouble::Missing("the store does not know it".into()),
        PermissionDenied { .. } | Unauthenticated { .. } => Trouble::Forbidden("the store refuses".into()),
        Precondition { .. } => Trouble::Changed(what),
        // Where there are no credentials, the library asks the machine it runs on, which is seldom one of Amazon's or Azure's.
        Generic { .. } if what.contains("169.254.169.254") || what.contains("redential") => {
            Trouble::Forbidden("no credentials were found".into())
        }
        Generic { .. } | JoinError { .. } => Trouble::Broken(what),
        _ => Trouble::Refused(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_may_be_an_md5() {
        assert_eq!(md5_of(&plain("\"000102030405060708090a0b0c0d0eff\"")).map(|sum| sum[15]), Some(255));
        for tag in
            ["\"000102030405060708090a0b0c0d0eff-2\"", "", "0x8D4BCC2E4835CD0", "zz0102030405060708090a0b0c0d0eff"]
        {
            assert_eq!(md5_of(tag), None, "{tag}");
        }
        assert_eq!(md5_of(&"ä".repeat(16)), None);
    }
}
