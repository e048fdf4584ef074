//! Ranks that wait for one that stands still say for whom, and go on when it does, or end when the job allows no more.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::training::images;
use support::{command, ddl_ok};

const LIMIT: Duration = Duration::from_secs(60);

/// A run whose stderr is kept.
struct Started {
    folder: tempfile::TempDir,
    mpirun: Child,
}

impl Started {
    fn run(ranks: usize, epochs: &str, set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = arranged(folder.path(), ranks, epochs, set);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(folder.path().join("stderr")).unwrap());
        let mpirun = command.spawn().unwrap();
        Self { folder, mpirun }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    fn ranks(&self) -> Vec<u32> {
        let mpirun = self.mpirun.id();
        let text = fs::read_to_string(format!("/proc/{mpirun}/task/{mpirun}/children")).unwrap_or_default();
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("out/checkpoints");
        if folder.exists() { ddl::store::checkpoint::list(&folder).unwrap() } else { Vec::new() }
    }

    /// The exit code, when all `ranks` have ended too.
    fn end(&mut self, ranks: &[u32]) -> Option<i32> {
        let began = Instant::now();
        let code = loop {
            if let Some(status) = self.mpirun.try_wait().unwrap() {
                break status.code();
            }
            if began.elapsed() > LIMIT {
                ranks.iter().for_each(|rank| send(*rank, libc::SIGKILL));
                let _ = self.mpirun.kill();
                panic!("the run does not end: {}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        wait_until("processes are left", self, || !ranks.iter().any(|rank| lives(*rank)));
        code
    }
}

/// Steps in epochs so long that a rank stops within one.
fn arranged(folder: &Path, ranks: usize, epochs: &str, set: &[&str]) -> Command {
    let [job, out] = ["job.toml", "out"].map(|name| folder.join(name).display().to_string());
    fs::write(&job, images(8, "type = \"sgd\"\nlr = 0.02")).unwrap();
    let epochs = format!("train.epochs={epochs}");
    let mut command = command(ranks, &["train", &job, "--out", &out, "--set", &epochs]);
    for key in set.iter().chain(&["data.samples=20000", "distributed.reduction=reproducible"]) {
        command.args(["--set", key]);
    }
    command
}

fn send(process: u32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(process as i32, signal) };
}

/// Whether a process is there and has not ended; nobody may have asked yet how it did.
fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn wait_until(what: &str, run: &Started, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: {}", run.stderr());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The lines of a rank that speaks.
fn told(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("have waited")).collect()
}

#[test]
fn a_rank_that_stands_still_is_named_and_nothing_is_lost() {
    let limit = "train.max_steps=120";
    for (ranks, exchange) in [(2, "distributed.exchange=mpi"), (3, "distributed.exchange=shared")] {
        let set = [exchange, limit, "train.checkpoint_steps=40", "distributed.report_seconds=1"];
        let mut run = Started::run(ranks, "1", &set);
        wait_until("nothing is saved", &run, || !run.checkpoints().is_empty());
        let stopped = run.ranks()[1];
        send(stopped, libc::SIGSTOP);
        wait_until("nobody is named", &run, || !told(&run.stderr()).is_empty());
        send(stopped, libc::SIGCONT);
        assert_eq!(run.end(&[]), Some(0), "{}", run.stderr());
        let stderr = run.stderr();
        let line = told(&stderr)[0];
        let whom = format!("s for rank 1 (process {stopped}, stopped; kill -CONT lets it go on; ");
        assert!(line.starts_with("warning: ranks on ") && line.contains(&whom), "{line}");
        assert!(line.ends_with(')') && line.contains(" step "), "{line}");
        let undisturbed = tempfile::tempdir().unwrap();
        let status = arranged(undisturbed.path(), ranks, "1", &[exchange, limit]).output().unwrap().status;
        assert!(status.success());
        let weights = |folder: &Path| {
            let path = ddl::store::checkpoint::list(&folder.join("out/checkpoints")).unwrap().pop().unwrap();
            ddl::store::checkpoint::read(&path).unwrap().model
        };
        assert!(weights(run.folder.path()) == weights(undisturbed.path()), "{ranks} ranks, {exchange}");
    }
}

#[test]
fn a_wait_that_is_too_long_ends_the_job_which_can_go_on_if_it_was_saved() {
    for (exchange, saved) in [("shared", true), ("mpi", false)] {
        let exchange = format!("distributed.exchange={exchange}");
        let every = format!("train.checkpoint_steps={}", if saved { 20 } else { 0 });
        // Longer than a busy disk takes to sync the files of start-up.
        let set = [exchange.as_str(), &every, "distributed.report_seconds=0", "distributed.timeout_seconds=12"];
        let mut run = Started::run(3, "1000", &set);
        let run_file = run.folder.path().join("out/run.h5");
        wait_until("it does not start", &run, || if saved { run.checkpoints().len() > 1 } else { run_file.exists() });
        let ranks = run.ranks();
        send(ranks[2], libc::SIGSTOP);
        let code = run.end(&ranks);
        let stderr = run.stderr();
        assert_eq!(code, Some(if saved { 75 } else { 70 }), "{stderr}");
        let lines = told(&stderr);
        let [line] = lines[..] else { panic!("{stderr}") };
        let whom = format!("rank 2 (process {}, stopped", ranks[2]);
        assert!(line.starts_with("error: ranks on ") && line.contains(&whom), "{line}");
        assert_eq!(line.ends_with("run again with --resume"), saved, "{line}");
        if saved {
            let [job, out] = ["job.toml", "out"].map(|name| run.folder.path().join(name).display().to_string());
            let more = ["--set", "data.samples=20000", "--set", "distributed.reduction=reproducible"];
            let limit = ["--set", "train.max_steps=1"];
            ddl_ok(2, &[&["train", &job, "--out", &out, "--resume"], &more[..], &limit[..]].concat());
        }
    }
}
