//! Data at URLs: whole or absent in the cache whatever the network does, and trained on to the same bits.
#![cfg(feature = "remote")]

mod support;

use ddl::data::storage::{Patience, Staged, Staging, stage};
use ddl::error::Result;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::web::{Trouble, Web, bytes};
use tempfile::TempDir;

struct Cache {
    folder: TempDir,
    how: Staging,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let patience = Patience {
            attempts: 4,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(20),
            silence: Duration::from_millis(1500),
        };
        let cache = Some(folder.path().join("cache"));
        Self { how: Staging { cache, patience, ..Staging::default() }, folder }
    }

    fn stage(&self, url: &str) -> Result<Staged> {
        stage(url, &self.how)
    }

    /// The error's exit code and text.
    fn error(&self, url: &str) -> (i32, String) {
        let error = self.stage(url).map(|staged| staged.path).expect_err("an error");
        (error.exit_code(), error.to_string())
    }

    /// Names in the cache that end so.
    fn entries(&self, ending: &str) -> Vec<String> {
        let names = fs::read_dir(self.folder.path().join("cache")).into_iter().flatten().flatten();
        let names = names.map(|file| file.file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(ending) && (!ending.is_empty() || !name.contains('.'))).collect()
    }
}

/// All files below a folder as one text.
fn all_text(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        text += &entry.path().to_string_lossy();
        match entry.path().is_dir() {
            true => text += &all_text(&entry.path()),
            false => text += &String::from_utf8_lossy(&fs::read(entry.path()).unwrap()),
        }
    }
    text
}

#[test]
fn an_object_comes_once_in_ranges_and_again_when_it_changed() {
    let (web, cache) = (Web::start(), Cache::new());
    let data = bytes(20_000_000);
    web.put("/d/x%20y.bin", &data, "\"1\"");
    let cold = cache.stage(&web.url("/d/x%20y.bin")).unwrap();
    assert_eq!(cold.fetched, 20_000_000);
    assert!(fs::read(&cold.path).unwrap() == data && cold.path.ends_with("x y.bin"));
    // One byte to see what it is, three pieces, and a look at whether it is still the same.
    assert_eq!(web.requests().len(), 5);
    let warm = cache.stage(&web.url("/d/x%20y.bin")).unwrap();
    assert_eq!((warm.fetched, &warm.path), (0, &cold.path));
    assert_eq!(web.requests().len(), 1);
    // A copy that lost bytes is none.
    drop((cold, warm));
    let path = cache.stage(&web.url("/d/x%20y.bin")).unwrap().path;
    fs::File::options().write(true).open(&path).unwrap().set_len(9).unwrap();
    assert_eq!(cache.stage(&web.url("/d/x%20y.bin")).unwrap().fetched, 20_000_000);
    web.put("/d/x%20y.bin", b"new", "\"2\"");
    let new = cache.stage(&web.url("/d/x%20y.bin")).unwrap();
    assert_eq!(fs::read(&new.path).unwrap(), b"new");
    assert_eq!(cache.entries("").len(), 1, "the older one is gone");
    web.put("/empty", b"", "");
    assert_eq!(fs::read(cache.stage(&web.url("/empty")).unwrap().path).unwrap(), b"");
    assert!(cache.entries(".part").is_empty());
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names: Vec<String> = threads.filter_map(|t| fs::read_to_string(t.path().join("comm")).ok()).collect();
    assert!(names.iter().all(|name| !name.contains("tokio")), "{names:?}");
}

#[test]
fn broken_connections_are_gone_on_with() {
    let (web, cache) = (Web::start(), Cache::new());
    let data = bytes(9_000_000);
    web.put("/x", &data, "\"1\"");
    // Each try gets a megabyte further: more tries than one that got nowhere would have.
    web.trouble(|_| Trouble::Cut(1_000_000));
    assert_eq!(fs::read(cache.stage(&web.url("/x")).unwrap().path).unwrap(), data);
    // Of a server without ranges a whole one must come.
    web.put("/y", &data, "\"1\"");
    let mut n = 0;
    web.trouble(move |_| {
        n += 1;
        if n == 2 { Trouble::Cut(1_000_000) } else { Trouble::NoRanges }
    });
    // The second request is cut and answers by a range, which the object is not known to have.
    assert_eq!(fs::read(cache.stage(&web.url("/y")).unwrap().path).unwrap(), data);
}

#[test]
fn a_download_that_failed_goes_on_in_a_later_run() {
    let (web, cache) = (Web::start(), Cache::new());
    let data = bytes(40_000_000);
    web.put("/x", &data, "\"1\"");
    web.trouble(|request| match request.head.contains("bytes=33554432-") {
        true => Trouble::Status(503),
        false => Trouble::None,
    });
    let (code, text) = cache.error(&web.url("/x"));
    assert!(code == 74 && text.contains("does not come") && text.contains("after 4 tries"), "{text}");
    assert!(cache.entries("").is_empty() && cache.entries(".part").len() == 1);
    web.trouble(|_| Trouble::None);
    let staged = cache.stage(&web.url("/x")).unwrap();
    assert!(staged.fetched < 40_000_000, "{} bytes came again", staged.fetched);
    assert!(fs::read(&staged.path).unwrap() == data);
}

/// What a crash kept from the disk does not count.
#[test]
fn pieces_that_are_not_what_came_come_again() {
    let (web, cache) = (Web::start(), Cache::new());
    let data = bytes(20_000_000);
    web.put("/x", &data, "\"1\"");
    web.trouble(|request| match request.head.contains("bytes=16777216-") {
        true => Trouble::Status(500),
        false => Trouble::None,
    });
    assert_eq!(cache.error(&web.url("/x")).0, 74);
    let part = cache.folder.path().join("cache").join(&cache.entries(".part")[0]);
    let file = fs::File::options().write(true).open(part.join("data/x")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], 1000).unwrap();
    web.trouble(|_| Trouble::None);
    let staged = cache.stage(&web.url("/x")).unwrap();
    assert!(fs::read(&staged.path).unwrap() == data);
}

#[test]
fn a_busy_server_is_asked_again_a_few_times() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/x", b"abc", "\"1\"");
    let mut n = 0;
    web.trouble(move |_| {
        n += 1;
        if n % 3 == 0 { Trouble::None } else { Trouble::Status([503, 429][n % 2]) }
    });
    assert_eq!(fs::read(cache.stage(&web.url("/x")).unwrap().path).unwrap(), b"abc");
    web.requests();
    web.trouble(|_| Trouble::Status(503));
    assert_eq!(cache.error(&web.url("/x")).0, 74);
    assert_eq!(web.requests().len(), 4);
}

#[test]
fn silence_ends() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/x", b"abc", "\"1\"");
    web.trouble(|_| Trouble::Silence);
    assert_eq!(cache.error(&web.url("/x")).0, 74);
    assert_eq!(web.requests().len(), 4);
    // Nobody listens on the discard port.
    assert_eq!(cache.error("http://127.0.0.1:9/x").0, 74);
}

#[test]
fn lengths_that_lie_leave_nothing() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/x", &bytes(300_000), "\"1\"");
    let of_data = |trouble: Trouble| {
        move |request: &support::web::Request| match request.head.contains("bytes=0-0") {
            true => Trouble::None,
            false => trouble.clone(),
        }
    };
    for trouble in [Trouble::Total(100), Trouble::Total(1 << 60), Trouble::More(5), Trouble::Cut(10), Trouble::NoRanges]
    {
        web.trouble(of_data(trouble.clone()));
        let (code, text) = cache.error(&web.url("/x"));
        assert!(code == 74 && text.starts_with("http://127.0.0.1:"), "{trouble:?}: {text}");
        assert!(cache.entries("").is_empty(), "{trouble:?}");
    }
    // From the first word on: more than there is, more than any disk has, and nothing said.
    for (trouble, said) in [
        (Trouble::Total(400_000), "does not come"),
        (Trouble::Total(1 << 60), "may hold"),
        (Trouble::NoLength, "how long"),
    ] {
        web.trouble(move |_| trouble.clone());
        let (code, text) = cache.error(&web.url("/x"));
        assert!(code == 74 && text.contains(said), "{text}");
    }
    assert!(cache.entries("").is_empty());
    web.trouble(|_| Trouble::NoRanges);
    assert_eq!(fs::read(cache.stage(&web.url("/x")).unwrap().path).unwrap(), bytes(300_000));
}

#[test]
fn what_changes_meanwhile_is_refused() {
    let (web, cache) = (Web::start(), Cache::new());
    for header in ["\"1\"", ""] {
        web.put("/x", &bytes(20_000_000), header);
        let changed = bytes(20_000_001);
        // Held until the changed object stands, so that no later request finds the older one.
        web.after(move |request, objects| {
            if request.head.contains("bytes=8388608-") {
                objects.insert("/x".into(), (changed.clone(), "\"2\"".to_owned(), String::new()));
            }
        });
        let (code, text) = cache.error(&web.url("/x"));
        assert!(code == 74 && text.contains("changed while it was fetched"), "{text}");
        assert!(cache.entries("").is_empty());
    }
}

#[test]
fn a_checksum_that_the_server_tells_is_held() {
    let (web, cache) = (Web::start(), Cache::new());
    let data = bytes(100_000);
    let sum = base64(&Sha256::digest(&data));
    for (path, headers) in [
        ("/a", format!("repr-digest: sha-256=:{sum}:\r\n")),
        ("/b", format!("digest: SHA-256={sum}\r\n")),
        ("/c", "x-goog-hash: crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA==\r\n".to_owned()),
    ] {
        web.put_with(path, &data, "\"1\"", &headers);
        let mut n = 0;
        // The first answer with data is damaged on its way.
        web.trouble(move |request| {
            n += usize::from(!request.head.contains("bytes=0-0"));
            if n == 1 { Trouble::Flipped } else { Trouble::None }
        });
        if path == "/c" {
            let (code, text) = cache.error(&web.url(path));
            assert!(code == 74 && text.contains("checksum"), "{text}");
        } else {
            assert!(fs::read(cache.stage(&web.url(path)).unwrap().path).unwrap() == data);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(*group.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[test]
fn what_is_missing_forbidden_or_no_address_is_told() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/secret", b"x", "");
    web.trouble(|request| if request.line.contains("/secret") { Trouble::Status(403) } else { Trouble::None });
    for (url, code, said) in [
        (web.url("/none"), 74, "there is no such object"),
        (web.url("/secret"), 74, "may not be read"),
        (web.url("/dir/"), 74, "no such object"),
        ("ftp://host/x".into(), 2, "ftp"),
        ("http://".into(), 2, "no URL"),
        ("s3://bucket/x?sig=secret".into(), 2, "AWS_ACCESS_KEY_ID"),
        ("s3:///x".into(), 2, "no bucket"),
        ("https://host/x?***".into(), 2, "--set data.path"),
        ("webhdfs://host:port:9/x".into(), 2, "no URL"),
    ] {
        let (found, text) = cache.error(&url);
        assert!(found == code && text.contains(said) && !text.contains("secret="), "{url}: {found} {text}");
    }
    assert!(cache.entries("").is_empty());
}

#[test]
fn secrets_are_used_and_not_kept() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/x", b"abc", "\"1\"");
    let url = |path: &str, sig: &str| format!("http://me:secret@{}{path}?sig=secret{sig}&v=1", web.host);
    let staged = cache.stage(&url("/x", "1")).unwrap();
    let request = web.requests().remove(0);
    assert!(request.line.contains("sig=secret1"), "{request:?}");
    assert!(request.head.contains("authorization: basic bwu6c2vjcmv0"), "{request:?}");
    // Another signature names the same object.
    assert_eq!(cache.stage(&url("/x", "2")).unwrap().fetched, 0);
    assert!(!all_text(cache.folder.path()).contains("secret"));
    assert!(!staged.path.to_string_lossy().contains("secret"));
    for trouble in [Trouble::Status(403), Trouble::Status(500), Trouble::Cut(1), Trouble::Status(400)] {
        web.put("/y", b"abcdef", "\"1\"");
        web.trouble(move |_| trouble.clone());
        let (code, text) = cache.error(&url("/y", ""));
        assert!(code == 74 && !text.contains("secret") && text.contains("/y?***"), "{text}");
    }
    let text = cache.error("http://me:secret@127.0.0.1:9/x?sig=secret").1;
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn the_cache_keeps_its_limit_and_what_is_in_use() {
    let (web, mut cache) = (Web::start(), Cache::new());
    cache.how.cache_gb = Some(2.5e-3);
    for name in ["/a", "/b", "/c", "/d"] {
        web.put(name, &bytes(1_000_000), "\"1\"");
    }
    web.put("/large", &bytes(2_600_000), "\"1\"");
    let (code, text) = cache.error(&web.url("/large"));
    assert!(code == 74 && text.contains("data.cache_gb"), "{text}");
    let a = cache.stage(&web.url("/a")).unwrap();
    drop(cache.stage(&web.url("/b")).unwrap());
    // Room for c is that of b, though a is older.
    let c = cache.stage(&web.url("/c")).unwrap();
    assert!(a.path.exists() && c.path.exists() && cache.entries("").len() == 2);
    let (code, text) = cache.error(&web.url("/d"));
    assert!(code == 74 && text.contains("in use"), "{text}");
    drop((a, c));
    // What was used last stays.
    std::thread::sleep(Duration::from_millis(20));
    drop(cache.stage(&web.url("/a")).unwrap());
    drop(cache.stage(&web.url("/d")).unwrap());
    assert_eq!(cache.stage(&web.url("/a")).unwrap().fetched, 0);
    // What is none of ours stays too.
    fs::write(cache.folder.path().join("cache/mine.lock"), "x").unwrap();
    drop(cache.stage(&web.url("/c")).unwrap());
    assert!(cache.folder.path().join("cache/mine.lock").exists());
}

#[test]
fn many_at_once_fetch_once() {
    let (web, cache) = (Web::start(), Cache::new());
    web.put("/x", &bytes(9_000_000), "\"1\"");
    let fetched: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| cache.stage(&web.url("/x")).unwrap().fetched)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(fetched, 9_000_000);
}

#[test]
fn a_folder_is_what_its_page_links_to() {
    let (web, cache) = (Web::start(), Cache::new());
    let page = "content-type: text/html; charset=utf-8\r\n";
    web.put_with("/d/", b"<a href=\"../\">..</a><a href='a.csv'>a</a><a href=\"sub/\">sub</a>", "", page);
    web.put_with("/d/sub/", b"<a href=\"b%20c.csv\">b c</a><a href=\"/d/\">up</a>", "", page);
    web.put("/d/a.csv", b"1", "");
    web.put("/d/sub/b%20c.csv", b"22", "");
    let staged = cache.stage(&web.url("/d/")).unwrap();
    assert_eq!(fs::read(staged.path.join("a.csv")).unwrap(), b"1");
    assert_eq!(fs::read(staged.path.join("sub/b c.csv")).unwrap(), b"22");
    assert_eq!(staged.fetched, 3);
    // Names that would lead out of the cache.
    web.put_with("/e/", b"<a href=\"x%2F..%2F..%2Fy\">x</a>", "", page);
    web.put("/e/x%2F..%2F..%2Fy", b"1", "");
    let (code, text) = cache.error(&web.url("/e/"));
    assert!(code == 74 && text.contains("cannot be a file's"), "{text}");
}

/// The shipped digits on the web server, below a folder that it cannot list.
fn digits(web: &Web, folder: &str) {
    for entry in fs::read_dir(support::training::shipped("mnist")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        web.put(&format!("{folder}/{name}"), &fs::read(entry.path()).unwrap(), "\"1\"");
    }
}

const JOB: &str = r#"
[data]
source = "mnist"
path = "PATH"
[model]
layers = [{ type = "flatten" }, { type = "linear", out_features = 10 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.1
[train]
epochs = 1
batch_size = 500
[distributed]
reduction = "reproducible"
"#;

/// Trains on `path` and gives the SHA-256 of the weights, and the run's folder.
fn trained(folder: &Path, name: &str, path: &str, ranks: usize, settings: &[(&str, &str)]) -> (Vec<u8>, PathBuf) {
    let (job, out) = (folder.join("job.toml"), folder.join(name));
    fs::write(&job, JOB.replace("PATH", path)).unwrap();
    let cache = format!("data.cache={}", folder.join("cache").display());
    let args = ["train", job.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", &cache];
    let mut command = support::command(ranks, &args);
    command.envs(settings.iter().copied());
    let output = support::run(&mut command, Duration::from_secs(120));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checkpoint = fs::read_dir(out.join("checkpoints")).unwrap().flatten().next().unwrap().path();
    let weights = folder.join(format!("{name}.safetensors"));
    support::ddl_ok(0, &["export", checkpoint.to_str().unwrap(), "--to", weights.to_str().unwrap()]);
    (Sha256::digest(fs::read(weights).unwrap()).to_vec(), out)
}

#[test]
fn training_from_afar_gives_the_same_weights() {
    let (web, dir) = (Web::start(), tempfile::tempdir().unwrap());
    digits(&web, "/mnist");
    let (local, _) = trained(dir.path(), "local", &support::training::shipped("mnist"), 0, &[]);
    let url = format!("http://me:secret@{}/mnist", web.host);
    let (far, out) = trained(dir.path(), "far", &url, 2, &[]);
    assert_eq!(far, local);
    // One rank asked, and what it kept tells no secret.
    let asked = web.requests().iter().filter(|request| !request.head.contains("bytes=0-0")).count();
    assert_eq!(asked, 4, "each file once");
    assert!(!all_text(&out).contains("secret"));
    let checkpoint = fs::read_dir(out.join("checkpoints")).unwrap().flatten().next().unwrap().path();
    let cache = format!("data.cache={}", dir.path().join("cache").display());
    let again = ["evaluate", checkpoint.to_str().unwrap(), "--set", &cache];
    let refused = support::ddl(0, &again);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--set data.path"));
    support::ddl_ok(2, &[&again[..], &["--set", &format!("data.path={url}")]].concat());
    // On all ranks alike.
    web.trouble(|_| Trouble::Status(403));
    let missing = support::ddl(2, &[&again[..], &["--set", &format!("data.path={url}")]].concat());
    assert_eq!(missing.status.code(), Some(74));
}

#[test]
fn an_s3_bucket_is_listed_and_read() {
    let (web, dir) = (Web::start(), tempfile::tempdir().unwrap());
    digits(&web, "/bucket/set");
    let (local, _) = trained(dir.path(), "local", &support::training::shipped("mnist"), 0, &[]);
    let settings = [
        ("AWS_ACCESS_KEY_ID", "me"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", &web.url("")),
    ];
    let (far, out) = trained(dir.path(), "far", "s3://bucket/set", 0, &settings);
    assert_eq!(far, local);
    assert!(!all_text(&out).contains("secret"));
}
