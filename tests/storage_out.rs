//! `ddl train --out URL`: the run is there when it has ended, whole, and goes on from there; where it cannot be, it lies here.
#![cfg(feature = "remote")]

mod support;

use ddl::store::checkpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::web::{Trouble, Web};
use tempfile::TempDir;

/// Checkpoints of over 8 MB, which go in parts.
const JOB: &str = r#"
[data]
source = "mnist"
path = "PATH"
[model]
layers = [
  { type = "flatten" }, { type = "linear", out_features = 3000 }, { type = "relu" }, { type = "linear", out_features = 10 },
]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.1
[train]
epochs = 1
batch_size = 20
micro_batch = 5
evaluate_every = 0
[distributed]
reduction = "reproducible"
"#;

/// A machine with a job, and a store.
struct Place {
    web: Web,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let (web, dir) = (Web::start(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("job.toml"), JOB.replace("PATH", &support::training::shipped("mnist"))).unwrap();
        Self { web, dir }
    }

    fn command(&self, ranks: usize, steps: usize, more: &[&str]) -> Command {
        let steps = format!("train.max_steps={steps}");
        let mut command = support::command(ranks, &[&["train", "job.toml", "--set", &steps], more].concat());
        command.current_dir(self.dir.path());
        command
            .env("AWS_ACCESS_KEY_ID", "me")
            .env("AWS_SECRET_ACCESS_KEY", "some-secret")
            .env("AWS_REGION", "us-east-1");
        command.env("AWS_ENDPOINT_URL", self.web.url(""));
        command
    }

    /// Trains up to a step; gives the exit code and all that was said.
    fn train(&self, ranks: usize, steps: usize, more: &[&str]) -> (Option<i32>, String) {
        said(&support::run(&mut self.command(ranks, steps, more), Duration::from_secs(120)))
    }

    /// What lies in the store below `/bucket/`.
    fn there(&self, name: &str) -> Option<Vec<u8>> {
        self.web.site.lock().unwrap().objects.get(&format!("/bucket/{name}")).map(|(bytes, ..)| bytes.clone())
    }

    fn here(&self, name: &str) -> PathBuf {
        self.dir.path().join("results/s3/bucket").join(name)
    }

    /// Whether a file of a run is the same here and there.
    fn is_copied(&self, name: &str) -> bool {
        self.there(name).is_some_and(|there| there == fs::read(self.here(name)).unwrap())
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(!text.contains("some-secret"), "{text}");
    (output.status.code(), text)
}

fn weights(folder: &Path) -> Vec<(String, Vec<f32>)> {
    let newest = checkpoint::list(&folder.join("checkpoints")).unwrap().pop().expect("a checkpoint");
    checkpoint::read(&newest).unwrap().model.into_iter().map(|tensor| (tensor.key, tensor.data)).collect()
}

#[test]
fn a_run_is_copied_there_and_goes_on_from_there() {
    let place = Place::new();
    let out = ["--out", "s3://bucket/runs/a"];
    let (code, text) = place.train(2, 2, &out);
    assert_eq!(code, Some(0), "{text}");
    for name in ["runs/a/run.h5", "runs/a/run.toml", "runs/a/checkpoints/step-00000002.h5"] {
        assert!(place.is_copied(name), "{name}");
    }
    // In parts, which were all put together.
    let requests = place.web.requests();
    assert!(place.there("runs/a/checkpoints/step-00000002.h5").unwrap().len() > 8 << 20);
    assert!(requests.iter().any(|request| request.line.contains("partNumber=2")));
    for (bytes, ..) in place.web.site.lock().unwrap().objects.values() {
        assert!(!String::from_utf8_lossy(bytes).contains("some-secret"));
    }
    // Nobody replaces it by a run of its own, and a look alone writes nothing.
    let (code, text) = place.train(2, 2, &out);
    assert!(code == Some(2) && text.contains("a run is there already") && text.contains("--resume"), "{text}");
    let (code, text) = place.train(0, 2, &["--out", "s3://bucket/runs/b", "--dry-run"]);
    assert!(code == Some(0) && place.there("runs/b/run.toml").is_none(), "{text}");
    // On another machine, with a run of another name in the folder: there it goes on.
    fs::remove_dir_all(place.here("runs/a/checkpoints")).unwrap();
    let (code, text) = place.train(0, 4, &[&out[..], &["--resume"]].concat());
    assert!(code == Some(0) && text.contains("fetched the run at step 2"), "{text}");
    assert!(place.here("runs/a/earlier-1/run.h5").exists());
    assert!(place.is_copied("runs/a/run.h5") && place.is_copied("runs/a/checkpoints/step-00000004.h5"));
    let (code, text) = place.train(0, 4, &["--out", "whole"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(weights(&place.here("runs/a")) == weights(&place.dir.path().join("whole")));
    // What is there already is not sent again.
    place.web.requests();
    let (code, text) = place.train(0, 4, &[&out[..], &["--resume"]].concat());
    let sent = place.web.requests();
    assert!(
        code == Some(0) && !sent.iter().any(|request| request.line.contains("step-") && request.line.starts_with("P")),
        "{text}"
    );
}

#[test]
fn what_breaks_off_is_sent_again_and_what_comes_back_wrong_too() {
    let place = Place::new();
    let seen = Mutex::new(Vec::new());
    place.web.trouble(move |request| {
        let mut seen = seen.lock().unwrap();
        let first = !seen.contains(&request.line);
        seen.push(request.line.clone());
        match (first && request.line.starts_with("PUT"), request.line.contains("run.h5")) {
            (true, true) => Trouble::Flipped,
            (true, false) => Trouble::Status(503),
            _ => Trouble::None,
        }
    });
    let (code, text) = place.train(0, 1, &["--out", "s3://bucket/a"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        place.is_copied("a/run.h5")
            && place.is_copied("a/run.toml")
            && place.is_copied("a/checkpoints/step-00000001.h5")
    );
    let twice = place.web.requests().iter().filter(|request| request.line.starts_with("PUT /bucket/a/run.h5")).count();
    assert_eq!(twice, 2);
}

#[test]
fn a_run_that_cannot_be_copied_lies_here_and_is_copied_later() {
    let place = Place::new();
    place.web.trouble(|request| {
        let refuses = request.line.starts_with("POST") && request.line.contains("step-");
        if refuses { Trouble::Status(403) } else { Trouble::None }
    });
    let (code, text) = place.train(2, 1, &["--out", "s3://bucket/a"]);
    let told = text.lines().find(|line| line.starts_with("error: ")).expect("an error");
    let parts = ["s3://bucket/a", "was not copied", "AWS_ACCESS_KEY_ID", "results/s3/bucket/a", "--resume"];
    assert!(code == Some(74) && parts.iter().all(|part| told.contains(part)), "{text}");
    assert!(place.there("a/run.h5").is_none() && place.here("a/run.h5").exists());
    place.web.trouble(|_| Trouble::None);
    let (code, text) = place.train(2, 1, &["--out", "s3://bucket/a", "--resume"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(place.is_copied("a/run.h5") && place.is_copied("a/checkpoints/step-00000001.h5"));
}

#[test]
fn a_run_that_was_stopped_is_copied_too() {
    let place = Place::new();
    let process = Arc::new(AtomicU32::new(0));
    let told = process.clone();
    place.web.after(move |request, _| {
        if request.line.starts_with("PUT /bucket/a/run.toml") {
            while told.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            // SAFETY: a plain system call.
            unsafe { libc::kill(told.load(Ordering::Acquire) as i32, libc::SIGUSR1) };
        }
    });
    let mut command = place.command(0, 100_000, &["--out", "s3://bucket/a", "--set", "train.epochs=1000"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    process.store(child.id(), Ordering::Release);
    let (code, text) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(75), "{text}");
    let newest = checkpoint::list(&place.here("a/checkpoints")).unwrap().pop().unwrap();
    let name = format!("a/checkpoints/{}", newest.file_name().unwrap().to_str().unwrap());
    assert!(place.is_copied(&name) && place.is_copied("a/run.h5"));
}

#[test]
fn addresses_that_take_nothing_are_refused_before_training() {
    let place = Place::new();
    let data = "--set=data.path=s3://bucket/a/checkpoints/data";
    for (more, code, why) in [
        (&["--out", "https://host/a"][..], 2, "can be read, not written to"),
        (&["--out", "s3://me:other-secret@bucket/a"], 2, "signs in"),
        (&["--out", "s3://bucket/a?x=other-secret"], 2, "signs in"),
        (&["--out", "s3://bucket/a", data], 2, "the data of the job are there"),
    ] {
        let (found, text) = place.train(0, 1, more);
        assert!(found == Some(code) && text.contains(why) && !text.contains("other-secret"), "{more:?}: {text}");
    }
    assert!(place.web.requests().is_empty());
    // A store that may be read only is known before a step is trained.
    place.web.trouble(|request| if request.line.starts_with("PUT") { Trouble::Status(403) } else { Trouble::None });
    let (code, text) = place.train(2, 1, &["--out", "s3://bucket/a"]);
    assert!(code == Some(74) && text.contains("may not be written"), "{text}");
    assert!(!place.here("a/run.h5").exists() && checkpoint::list(&place.here("a/checkpoints")).unwrap().is_empty());
}
