//! `ddl fetch`: well-known sets from places that may lie or break, checked, kept, and named where they are missing.
#![cfg(feature = "remote")]

mod support;

use ddl::data::storage::{Archive, CATALOG, Known, Patience, SetFile, Staging, Sum, fetch_known};
use sha2::{Digest, Sha256};
use std::fs;
use std::time::Duration;
use support::web::{Trouble, Web, bytes};

fn how() -> Staging {
    let first_pause = Duration::from_millis(5);
    let patience = Patience { attempts: 3, first_pause, longest_pause: first_pause, silence: Duration::from_secs(2) };
    Staging { patience, ..Staging::default() }
}

/// A set of two files and an archive of one of them.
fn made_set(in_archive: &[u8], plain: &[u8]) -> Known {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let hex = |bytes: &[u8]| leak(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    let file = |name, bytes: &[u8]| SetFile { name, sum: Sum::Sha256(hex(&Sha256::digest(bytes))) };
    let files = vec![file("a.bin", in_archive), file("b.bin", plain)];
    Known {
        files: Box::leak(files.into_boxed_slice()),
        archive: Some(Archive { file: SetFile { name: "set.tar.gz", sum: Sum::Unknown }, most_bytes: 2_000_000 }),
        places: &[],
        ..CATALOG[0]
    }
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_known_set_is_fetched_checked_and_kept() {
    let (web, dir) = (Web::start(), tempfile::tempdir().unwrap());
    let (a, b) = (bytes(1_000_000), bytes(5000));
    let set = made_set(&a, &b);
    let fetch = |from: &str, out: &str| fetch_known(&set, Some(from), &dir.path().join(out), &how());
    let read = |path: &str| fs::read(dir.path().join(path)).unwrap();
    web.put("/m/set.tar.gz", &archive(&[("deep/a.bin", &a), ("deep/b.bin", &b), ("c", b"no")]), "\"1\"");
    let lines = fetch(&web.url("/m"), "one").unwrap();
    assert!(lines.iter().any(|line| line.contains("a.bin: SHA-256 is right")), "{lines:?}");
    assert!(read("one/a.bin") == a && read("one/b.bin") == b);
    assert_eq!(fs::read_dir(dir.path().join("one")).unwrap().count(), 2);
    // All is there: nobody is asked.
    web.requests();
    fetch(&web.url("/m"), "one").unwrap();
    assert!(web.requests().is_empty());
    // What is in the archive, one by one and packed; then from a local folder.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &b).unwrap();
    web.put("/n/a.bin", &a, "\"1\"");
    web.put("/n/b.bin.gz", &packed.finish().unwrap(), "\"1\"");
    fetch(&web.url("/n/"), "two").unwrap();
    assert!(read("two/a.bin") == a && dir.path().join("two/b.bin.gz").exists());
    fetch(dir.path().join("two").to_str().unwrap(), "three").unwrap();
    assert!(read("three/a.bin") == a);
    // Wrong bytes, a bomb, no such place.
    web.put("/n/a.bin", &bytes(1_000_001), "\"2\"");
    let error = fetch(&web.url("/n/"), "four").unwrap_err();
    assert!(error.exit_code() == 65 && error.to_string().contains("SHA-256"), "{error}");
    assert!(!dir.path().join("four/a.bin").exists());
    web.put("/m/set.tar.gz", &archive(&[("zeros", &vec![0; 9_000_000]), ("a.bin", &a)]), "\"2\"");
    let error = fetch(&web.url("/m"), "five").unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert_eq!(fetch(&web.url("/none"), "six").unwrap_err().exit_code(), 74);
    // What is there and wrong may be somebody's own: it is told, and stays.
    fs::write(dir.path().join("one/b.bin"), "mine").unwrap();
    assert_eq!(fetch(&web.url("/m"), "one").unwrap_err().exit_code(), 65);
    assert_eq!(read("one/b.bin"), b"mine");
}

#[test]
fn a_broken_fetch_goes_on() {
    let (web, dir) = (Web::start(), tempfile::tempdir().unwrap());
    let (a, b) = (bytes(20_000_000), bytes(50));
    let set = made_set(&a, &b);
    web.put("/a.bin", &a, "\"1\"");
    web.put("/b.bin", &b, "\"1\"");
    web.trouble(|request| match request.head.contains("bytes=16777216-") {
        true => Trouble::Status(503),
        false => Trouble::None,
    });
    let fetch = || fetch_known(&set, Some(&web.url("/")), dir.path(), &how());
    assert_eq!(fetch().unwrap_err().exit_code(), 74);
    web.requests();
    web.trouble(|_| Trouble::None);
    fetch().unwrap();
    let pieces = web
        .requests()
        .iter()
        .filter(|request| request.line.contains("a.bin") && !request.head.contains("bytes=0-0"))
        .count();
    // The archive and its absence are asked for once more; of a.bin only the last piece comes.
    assert_eq!(pieces, 1);
    assert!(fs::read(dir.path().join("a.bin")).unwrap() == a);
}

const JOB: &str = "data.source = \"mnist\"\nmodel.layers = [{ type = \"flatten\" }, { type = \"linear\", out_features = 10 }]\n\
                   loss.type = \"cross_entropy\"\noptimizer = { type = \"sgd\", lr = 0.1 }\ntrain = { epochs = 1, batch_size = 8 }\n";

#[test]
fn a_job_without_its_data_names_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let (job, path) = (dir.path().join("job.toml"), dir.path().join("fashion-mnist"));
    fs::write(&job, format!("{JOB}data.path = {path:?}\n")).unwrap();
    for ranks in [0, 2] {
        let output = support::ddl(ranks, &["train", job.to_str().unwrap(), "--dry-run"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let command = format!("ddl fetch fashion-mnist --out {}", path.display());
        assert!(output.status.code() == Some(74) && text.contains(&command), "{text}");
    }
}

#[test]
fn sets_without_a_free_place_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = support::ddl(0, &["fetch", "sp500", "--out", out.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("kaggle") && text.contains("--mirror"), "{text}");
    let output = support::ddl(0, &["fetch", "minst"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && text.contains("did you mean mnist?"), "{text}");
    let mirror = dir.path().join("mirror");
    fs::create_dir(&mirror).unwrap();
    fs::write(mirror.join("all_stocks_5yr.csv"), "date,open,high,low,close,volume,Name\n").unwrap();
    let args = ["fetch", "sp500", "--out", out.to_str().unwrap(), "--mirror", mirror.to_str().unwrap()];
    let output = support::ddl(2, &args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(65) && text.contains("it is not what it should be"), "{text}");
    assert!(!out.join("all_stocks_5yr.csv").exists());
}
