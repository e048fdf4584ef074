//! However a run ends, what was saved before stays whole and the run goes on from it: divergence, a full disk, a
//! request to stop, a kill, damaged checkpoints, another job's checkpoints.

mod support;

use ddl::store::{checkpoint, read_run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Ended, ended, run};

const LIMIT: Duration = Duration::from_secs(60);

/// 16 steps an epoch, a checkpoint after each fourth.
const JOB: &str = r#"name = "t"
seed = 1
[data]
source = "synthetic"
shape = [64]
classes = 3
samples = 256
test_samples = 16
[model]
layers = [{ type = "linear", out_features = 64 }, { type = "relu" }, { type = "linear", out_features = 3 }]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.1
[train]
epochs = 2
batch_size = 16
micro_batch = 4
checkpoint_steps = 4
keep_checkpoints = 1000
"#;

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let run = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(run.path("job.toml"), JOB).unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let (job, out) = (self.path("job.toml").display().to_string(), self.path("out").display().to_string());
        let args = ["train", &job, "--out", &out];
        args.iter().chain(more).map(|arg| arg.to_string()).collect()
    }

    fn after(&self, before: &str, more: &[&str]) -> Ended {
        let args = self.args(more);
        ended(2, before, &args.iter().map(String::as_str).collect::<Vec<_>>(), LIMIT)
    }

    fn train(&self, more: &[&str]) -> Ended {
        self.after("", more)
    }

    fn status(&self) -> String {
        read_run(&self.path("out/run.h5")).unwrap().attribute("status").unwrap_or_default().to_owned()
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        checkpoint::list(&self.path("out/checkpoints")).unwrap()
    }

    /// The steps of all checkpoints, each of which is read and so found whole.
    fn steps(&self) -> Vec<u64> {
        self.checkpoints().iter().map(|path| checkpoint::read(path).unwrap().step).collect()
    }
}

#[track_caller]
fn ended_with(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.codes, [code, code], "{ended:?}");
    assert_eq!(ended.errors.len(), usize::from(code != 0), "{ended:?}");
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in {:?}", ended.stderr);
    }
}

#[test]
fn a_diverged_run_keeps_its_checkpoints() {
    let run = Run::new();
    ended_with(&run.train(&["--set", "train.epochs=1"]), 0, &[]);
    let before = run.steps();
    let wild = ["--resume", "--set", "optimizer.lr=1e30", "--set", "optimizer.weight_decay=1.0"];
    let named = ["step ", "the loss is", "(first behind layer ", ") on rank ", "lower optimizer.lr"];
    ended_with(&run.train(&wild), 70, &named);
    assert_eq!(run.status(), "diverged");
    assert!(run.steps().starts_with(&before));
    ended_with(&run.train(&["--set", "optimizer.lr=1e30", "--set", "optimizer.weight_decay=1.0"]), 70, &[]);
    assert_eq!(run.status(), "diverged");
    let aside = checkpoint::list(&run.path("out/earlier-1/checkpoints")).unwrap();
    assert!(aside.len() >= before.len(), "a new run must move the old one's checkpoints aside: {aside:?}");
    assert_eq!(read_run(&run.path("out/earlier-1/run.h5")).unwrap().attribute("status"), Some("diverged"));
}

/// Files may not grow beyond a limit, as on a full disk.
#[test]
fn a_full_disk_costs_nothing_saved() {
    let run = Run::new();
    ended_with(&run.train(&["--set", "train.epochs=1"]), 0, &[]);
    let (before, status) = (run.steps(), run.status());
    let bytes: Vec<Vec<u8>> = run.checkpoints().iter().map(|path| fs::read(path).unwrap()).collect();
    let full = run.after("ulimit -f 8", &["--resume"]);
    ended_with(&full, 74, &["cannot write", "free"]);
    assert_eq!((run.steps(), run.status()), (before, status));
    let after: Vec<Vec<u8>> = run.checkpoints().iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(after == bytes, "the bytes of a checkpoint changed");
    ended_with(&run.train(&["--resume"]), 0, &[]);
    assert_eq!(run.steps().last(), Some(&32));
    assert_eq!(run.status(), "done");
}

/// The same on a file system that is full, where this user may mount one.
#[test]
fn a_full_file_system_costs_nothing_saved() {
    let run = Run::new();
    let out = run.path("out");
    fs::create_dir(&out).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&out).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("no right to mount a file system: not tested");
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(out.clone());
    let full = run.train(&["--set", "train.epochs=20"]);
    ended_with(&full, 74, &["No space left on device", "free"]);
    let steps = run.steps();
    assert!(!steps.is_empty());
    let spare = run.checkpoints();
    spare[..spare.len() - 1].iter().for_each(|path| fs::remove_file(path).unwrap());
    ended_with(&run.train(&["--resume", "--set", "train.keep_checkpoints=1", "--set", "train.epochs=3"]), 0, &[]);
    assert_eq!(run.steps(), [48]);
    assert_eq!(run.status(), "done");
}

/// mpirun with a run of many epochs under way, at least one checkpoint old.
fn long_run(run: &Run) -> Child {
    let mut command = Command::new("mpirun");
    command.args(["-n", "2", "--oversubscribe", "--bind-to", "none", "sh", "-c"]);
    command
        .arg("trap : USR1; \"$0\" \"$@\"; code=$?; echo $code >>\"$CODES\"; exit $code")
        .arg(env!("CARGO_BIN_EXE_ddl"));
    command.args(run.args(&["--set", "train.epochs=1000000", "--set", "train.keep_checkpoints=3", "--resume"]));
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("CODES", run.path("codes")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while run.checkpoints().len() < 2 {
        assert!(began.elapsed() < LIMIT && child.try_wait().unwrap().is_none(), "the run does not get on");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

/// mpirun's exit code, within [`LIMIT`].
fn code_of(mut child: Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the other ranks hang");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Resumes after step `at` at the latest and trains to the end.
fn goes_on(run: &Run) {
    let newest = run.steps().last().copied().unwrap_or_default();
    assert!(newest > 0);
    let epochs = format!("train.epochs={}", newest / 16 + 1);
    let resumed = run.train(&["--resume", "--set", &epochs]);
    ended_with(&resumed, 0, &[]);
    assert!(resumed.stdout.contains(&format!("step {newest},")), "{}", resumed.stdout);
    assert_eq!(run.steps().last(), Some(&((newest / 16 + 1) * 16)));
    assert_eq!(run.status(), "done");
}

#[test]
fn a_request_to_stop_saves_and_resumes() {
    let run = Run::new();
    let child = long_run(&run);
    signal("-USR1", &child.id().to_string());
    assert_eq!(code_of(child), Some(75));
    let codes = fs::read_to_string(run.path("codes")).unwrap();
    assert_eq!(codes.lines().collect::<Vec<_>>(), ["75", "75"]);
    assert_eq!(run.status(), "stopped");
    goes_on(&run);
}

#[test]
fn a_killed_rank_ends_all_and_the_run_resumes() {
    let run = Run::new();
    let child = long_run(&run);
    let job = run.path("job.toml");
    let victim = rank_of(&job);
    signal("-KILL", &victim);
    assert!(code_of(child).is_some_and(|code| code != 0));
    goes_on(&run);
}

/// The process number of a rank that runs this job.
fn rank_of(job: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_ddl").as_bytes();
    let runs_job = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == 0);
        words.next() == Some(program) && words.any(|word| word == job.as_os_str().as_encoded_bytes())
    };
    let mut numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    numbers
        .find(|number| fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| runs_job(&line)))
        .expect("a rank of the run")
}

#[test]
fn damaged_checkpoints_are_named_and_skipped() {
    let run = Run::new();
    ended_with(&run.train(&["--set", "train.epochs=1"]), 0, &[]);
    let checkpoints = run.checkpoints();
    let [.., older, newest] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    let bytes = fs::read(newest).unwrap();
    fs::write(newest, &bytes[..bytes.len() - 100]).unwrap();
    fs::write(run.path("out/checkpoints/step-99999999.h5"), "garbage").unwrap();
    fs::write(run.path("out/checkpoints/notes.txt"), "mine").unwrap();
    let older = checkpoint::read(older).unwrap().step;
    let resumed = run.train(&["--resume"]);
    ended_with(&resumed, 0, &["step-99999999.h5: not a ddl checkpoint", "step-00000016.h5: the checksum"]);
    assert!(resumed.stdout.contains(&format!("step {older},")), "{}", resumed.stdout);
    assert!(run.path("out/checkpoints/notes.txt").exists());
}

#[test]
fn checkpoints_of_another_job_are_refused() {
    let run = Run::new();
    ended_with(&run.train(&["--set", "train.epochs=1"]), 0, &[]);
    let files = |run: &Run| run.checkpoints().iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = (files(&run), fs::read(run.path("out/run.h5")).unwrap());
    let refused = |change: &str, parts: &[&str]| {
        ended_with(&run.train(&["--resume", "--set", change]), 2, parts);
        assert!((files(&run), fs::read(run.path("out/run.h5")).unwrap()) == before, "{change} changed a file");
    };
    refused("optimizer.type=\"adam\"", &["step-00000016.h5", "optimizer.type was \"sgd\", is \"adam\"", "--init"]);
    refused("optimizer.momentum=0.5", &["step-00000016.h5", "no optimizer slot momentum", "--init"]);
    refused("model.layers.0.out_features=7", &["step-00000016.h5", "model.layers[0].out_features was 64, is 7"]);
    refused("seed=2", &["step-00000016.h5", "seed was 1, is 2", "another --out"]);
}

/// A run in a folder of its own still works after all of this.
#[test]
fn resume_is_harmless_on_a_first_run() {
    let first = Run::new();
    ended_with(&first.train(&["--resume"]), 0, &[]);
    assert_eq!(first.steps().last(), Some(&32));
    let inspect = run(Command::new(env!("CARGO_BIN_EXE_ddl")).arg("inspect").arg(first.path("out/run.h5")), LIMIT);
    assert_eq!(inspect.status.code(), Some(0));
}
