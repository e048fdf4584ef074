//! `https://` and `http://`. A folder is what the source names below the address, or what the server's index page links to.

use super::trouble::{Trouble, with_causes};
use super::{Bytestream, Digest, Listing, MOST_OBJECTS, Object, Patience, Staging, last_part, patiently, whole};
use crate::config::address::redacted;
use crate::error::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response};
use std::ops::Range;
use std::time::Duration;
use url::Url;

/// A longer index page is none.
const MOST_INDEX: usize = 16 << 20;
/// Files of a folder that are looked at at once.
const LOOKS_AT_ONCE: usize = 16;
/// Folders in folders that an index is followed into.
const MOST_DEPTH: usize = 6;

/// A server that takes longer to be reached is not there.
pub(super) const CONNECT: Duration = Duration::from_secs(15);

/// A place on a web server.
pub(super) struct Http {
    client: Client,
    url: Url,
    /// What the source reads in a folder: alternatives of which the first that is there is taken.
    names: Vec<Vec<String>>,
}

/// A client that gives a connection up on which nothing comes.
pub(super) fn client(place: &str, patience: &Patience) -> Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("ddl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(patience.silence.min(CONNECT))
        .read_timeout(patience.silence)
        .pool_idle_timeout(Duration::from_secs(30));
    builder.build().map_err(|e| Error::internal(place, with_causes(&e.without_url())))
}

/// A client that follows nobody, and waits until all that it sends is sent.
pub(super) fn sender(place: &str, patience: &Patience) -> Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("ddl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(patience.silence.min(CONNECT))
        .redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|e| Error::internal(place, with_causes(&e.without_url())))
}

impl Http {
    /// Of an address.
    ///
    /// # Errors
    /// `Usage`: it is none.
    pub fn open(url: &str, how: &Staging) -> Result<Self> {
        let place = redacted(url);
        let parsed = Url::parse(url).map_err(|e| bad(&place, &e))?;
        Ok(Self { client: client(&place, &how.patience)?, url: parsed, names: super::known::names_of(&how.source) })
    }

    /// What is there.
    pub async fn list(&self, patience: &Patience) -> Result<Listing, Trouble> {
        let name = decoded(last_part(self.url.path()));
        if !self.url.path().ends_with('/') {
            match patiently(patience, || self.stat(&self.url, &name)).await {
                Ok(Some(object)) => return Ok(Listing::single(object)),
                Ok(None) => {}
                Err(Trouble::Missing(_)) if !self.names.is_empty() => {}
                Err(trouble) => return Err(trouble),
            }
        }
        let mut folder = self.url.clone();
        folder.set_path(&format!("{}/", self.url.path().trim_end_matches('/')));
        Listing::folder(&name, self.folder(&folder, patience).await?)
    }

    async fn folder(&self, folder: &Url, patience: &Patience) -> Result<Vec<Object>, Trouble> {
        let mut found = Vec::new();
        for alternatives in &self.names {
            for name in alternatives {
                let mut url = folder.clone();
                url.set_path(&format!("{}{name}", folder.path()));
                match patiently(patience, || self.stat(&url, name)).await {
                    Ok(Some(object)) => {
                        found.push(object);
                        break;
                    }
                    Ok(None) | Err(Trouble::Missing(_)) => {}
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let (mut open, mut files) = (vec![(folder.clone(), String::new(), 0)], Vec::new());
        while let Some((url, prefix, depth)) = open.pop() {
            for name in patiently(patience, || self.index(&url)).await? {
                let mut next = url.clone();
                next.set_path(&format!("{}{name}", url.path()));
                let plain = format!("{prefix}{}", decoded(&name));
                if name.ends_with('/') {
                    if depth + 1 > MOST_DEPTH {
                        return Err(Trouble::Refused(format!("more than {MOST_DEPTH} folders in folders")));
                    }
                    open.push((next, plain, depth + 1));
                } else {
                    files.push((next, plain));
                }
                if files.len() + open.len() > MOST_OBJECTS {
                    return Err(Trouble::Refused(format!("the folder has more than {MOST_OBJECTS} objects")));
                }
            }
        }
        let looks = files.iter().map(|(url, name)| patiently(patience, move || self.stat(url, name)));
        let found: Vec<Option<Object>> = stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The names that an index page links to in its own folder.
    async fn index(&self, folder: &Url) -> Result<Vec<String>, Trouble> {
        let answer = checked(self.client.get(folder.clone()).send().await.map_err(broken)?)?;
        if !is_page(answer.headers()) {
            return Err(Trouble::Refused("it is a folder, and this server does not list folders".into()));
        }
        let page = whole(body(answer), MOST_INDEX).await?;
        Ok(links(folder, &String::from_utf8_lossy(&page)))
    }

    /// An object, or None if the server answers with a page on a folder. One byte is asked for, since signed URLs often
    /// allow no HEAD, and the answer tells whether ranges can be had.
    async fn stat(&self, url: &Url, name: &str) -> Result<Option<Object>, Trouble> {
        let request = self.client.get(url.clone()).header(header::RANGE, "bytes=0-0");
        let answer = request.header(header::ACCEPT_ENCODING, "identity").send().await.map_err(broken)?;
        let (status, headers) = (answer.status().as_u16(), answer.headers());
        let (size, ranges) = match (status, total(headers)) {
            (206, Some((0, total))) => (Some(total), true),
            (206, _) => return Err(Trouble::Refused("the server's range says no length".into())),
            // Of nothing there is no first byte.
            (416, _) if text(headers, "content-range").ends_with("*/0") => (Some(0), false),
            (200, _) => (text(headers, "content-length").parse().ok(), false),
            _ => return Err(Trouble::of_status(status, answer.status().to_string())),
        };
        let is_html = name.ends_with(".html") || name.ends_with(".htm");
        let listed = answer.url().path().ends_with('/') && !url.path().ends_with('/');
        if listed || (is_page(headers) && !is_html) {
            return Ok(None);
        }
        let Some(size) = size else {
            return Err(Trouble::Refused("the server does not say how long it is".into()));
        };
        let digest = digest(headers, status == 200);
        let (name, key, tag) = (name.to_owned(), url.to_string(), tag(headers));
        Ok(Some(Object { name, key, size, tag, ranges, digest }))
    }

    /// Bytes of an object.
    pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytestream, Trouble> {
        let mut request = self.client.get(&object.key).header(header::ACCEPT_ENCODING, "identity");
        if object.ranges {
            request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = checked(request.send().await.map_err(broken)?)?;
        let headers = answer.headers();
        if object.ranges {
            match total(headers) {
                Some((start, total)) if start == range.start && total == object.size => {}
                Some((start, _)) if start == range.start => {
                    return Err(Trouble::Changed("its length is another one".into()));
                }
                _ => return Err(Trouble::Broken("the server sent another range than it was asked for".into())),
            }
        }
        let now = tag(headers);
        if !now.is_empty() && !object.tag.is_empty() && now != object.tag {
            return Err(Trouble::Changed("its tag is another one".into()));
        }
        Ok(body(answer))
    }
}

/// A usage error about an address.
pub(super) fn bad(place: &str, error: &url::ParseError) -> Error {
    Error::usage(place, format!("this is no URL: {error}"), "write scheme://host/path")
}

/// An answer whose status says that it is one.
pub(super) fn checked(answer: Response) -> Result<Response, Trouble> {
    let status = answer.status();
    if status.is_success() { Ok(answer) } else { Err(Trouble::of_status(status.as_u16(), status.to_string())) }
}

/// A connection's failure; its URL, which may hold a secret, is left out.
pub(super) fn broken(error: reqwest::Error) -> Trouble {
    let redirected = error.is_redirect() || error.is_builder();
    let what = with_causes(&error.without_url());
    if redirected { Trouble::Refused(what) } else { Trouble::Broken(what) }
}

/// The body as it comes.
pub(super) fn body(answer: Response) -> Bytestream {
    answer.bytes_stream().map_err(broken).boxed()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Start and total of `bytes 0-99/1234`.
fn total(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, total) = text(headers, "content-range").strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn tag(headers: &HeaderMap) -> String {
    let tag = text(headers, "etag");
    if tag.is_empty() { text(headers, "last-modified").to_owned() } else { tag.to_owned() }
}

fn is_page(headers: &HeaderMap) -> bool {
    text(headers, "content-type").starts_with("text/html")
}

/// A checksum of the whole object, which some servers tell.
fn digest(headers: &HeaderMap, is_whole: bool) -> Option<Digest> {
    let decode = |text: &str, len: usize| BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == len);
    for name in ["repr-digest", "digest", "x-goog-hash"] {
        for value in headers.get_all(name) {
            for part in value.to_str().unwrap_or_default().split(',') {
                let Some((kind, sum)) = part.trim().split_once('=') else { continue };
                let sum = sum.trim_matches(':');
                let found = match kind.to_ascii_lowercase().as_str() {
                    "sha-256" => decode(sum, 32).map(Digest::Sha256),
                    "md5" => decode(sum, 16).map(Digest::Md5),
                    _ => None,
                };
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    // Azure tells that of the blob; others that of what they send.
    let sum = [("x-ms-blob-content-md5", true), ("content-md5", is_whole)];
    sum.into_iter().find_map(|(name, counts)| decode(text(headers, name), 16).filter(|_| counts)).map(Digest::Md5)
}

fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// The names directly below `folder` that a page's `href`s lead to, as they stand in URLs, folders with a `/` behind.
fn links(folder: &Url, page: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for rest in page.split("href=").skip(1) {
        let Some(quote) = rest.chars().next().filter(|c| "\"'".contains(*c)) else { continue };
        let Some(link) = rest[1..].split(quote).next() else { continue };
        let Ok(target) = folder.join(&link.replace("&amp;", "&")) else { continue };
        if target.origin() != folder.origin() || target.query() != folder.query() {
            continue;
        }
        let Some(name) = target.path().strip_prefix(folder.path()) else { continue };
        let inside = name.trim_end_matches('/');
        if !inside.is_empty() && !inside.contains('/') {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_page_names_what_is_in_its_folder() {
        let folder = Url::parse("http://h/a/").unwrap();
        let page = r##"<a href="../">up</a> <a href='x%20y.csv'>x y</a> <A href="/a/sub/">sub</A> <a href="?C=N;O=D">sort</a>
            <a href="http://other/a/z">z</a> <a href="/a/b/c">deep</a> <a href="./x%20y.csv">again</a> <a href="a.gz">
            <a href="#top">"##;
        assert_eq!(links(&folder, page), ["a.gz", "sub/", "x%20y.csv"]);
        assert_eq!(links(&folder, "<a href=\"unclosed"), ["unclosed"]);
        assert_eq!(links(&folder, "href= href=\"\" href=\"../..\""), [""; 0]);
    }
}
