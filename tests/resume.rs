//! Stopped and gone on with is as never stopped: the same bits on the same number of ranks, the same to rounding on
//! another, and not a row lost or doubled in the run file.

mod support;

use ddl::comm::Solo;
use ddl::config::Job;
use ddl::data::{Dataset, Part};
use ddl::store::{Checkpoint, RunSummary, checkpoint, read_run};
use ddl::train::{Trainer, load_weights};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{command, ddl_ok};
use tempfile::TempDir;

/// 7 steps an epoch, the last of 22 samples; everything that a checkpoint must carry: running statistics, moments, the
/// place in the epoch, the random numbers' and the schedule's.
const JOB: &str = r#"
[data]
source = "synthetic"
shape = [2, 8, 8]
samples = 214
test_samples = 50
augment = [{ type = "random_crop", padding = 1 }, { type = "horizontal_flip" }]
[model]
layers = [
  { type = "conv2d", out_channels = 6, kernel_size = 3, padding = 1, bias = false },
  { type = "batch_norm2d" }, { type = "relu" },
  { type = "max_pool2d", kernel_size = 2 }, { type = "dropout", p = 0.2 }, { type = "flatten" },
  { type = "linear", out_features = 10 },
]
[loss]
type = "cross_entropy"
[optimizer]
type = "sgd"
lr = 0.02
momentum = 0.9
[schedule]
type = "cosine"
warmup_epochs = 1
[train]
epochs = 3
batch_size = 32
micro_batch = 4
checkpoint_steps = 2
keep_checkpoints = 1000
"#;

const STEPS: u64 = 21;

/// Long enough to be stopped on the way, with few checkpoints.
const LONG: [&str; 3] = ["train.epochs=100", "train.checkpoint_every=20", "train.checkpoint_steps=15"];

/// A folder with a job file, whose runs each have their own folder in it.
struct Runs {
    folder: TempDir,
    /// Of `--set`.
    set: Vec<String>,
}

impl Runs {
    fn new(set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("job.toml"), JOB).unwrap();
        Self { folder, set: set.iter().map(|assignment| assignment.to_string()).collect() }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self, name: &str, more: &[&str]) -> Vec<String> {
        let [job, out] = [self.out("job.toml"), self.out(name)].map(|path| path.display().to_string());
        let set = self.set.iter().flat_map(|assignment| ["--set".to_owned(), assignment.clone()]);
        let fixed = ["train".to_owned(), job, "--out".into(), out].into_iter();
        fixed.chain(set).chain(more.iter().map(|arg| arg.to_string())).collect()
    }

    /// Trains in the folder `name`: what it said on stderr.
    fn train(&self, name: &str, ranks: usize, more: &[&str]) -> String {
        let args = self.args(name, more);
        ddl_ok(ranks, &args.iter().map(String::as_str).collect::<Vec<_>>()).1
    }

    /// Starts a training in the folder `name` and waits for its checkpoint of `step`.
    fn start(&self, name: &str, ranks: usize, step: u64) -> Child {
        let args = self.args(name, &[]);
        let mut command = command(ranks, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let awaited = self.out(name).join(format!("checkpoints/step-{step:08}.h5"));
        let began = Instant::now();
        while !awaited.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before step {step}");
            assert!(began.elapsed() < Duration::from_secs(60), "no {} after 60 s", awaited.display());
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// The folder `name` as if the run in `of` had been stopped right after its checkpoint of `step`; the run file is the
    /// finished one's, with rows that will be computed again.
    fn stopped(&self, of: &str, name: &str, step: u64) {
        let (from, to) = (self.out(of), self.out(name));
        fs::create_dir_all(to.join("checkpoints")).unwrap();
        fs::copy(from.join("run.h5"), to.join("run.h5")).unwrap();
        let mut newest = 0;
        for path in checkpoint::list(&from.join("checkpoints")).unwrap() {
            let number = checkpoint::read(&path).unwrap().step;
            if number <= step {
                newest = number;
                fs::copy(&path, to.join("checkpoints").join(path.file_name().unwrap())).unwrap();
            }
        }
        assert_eq!(newest, step, "there is no checkpoint of step {step}");
    }

    fn run(&self, name: &str) -> RunSummary {
        read_run(&self.out(name).join("run.h5")).unwrap()
    }

    fn last(&self, name: &str) -> Checkpoint {
        let list = checkpoint::list(&self.out(name).join("checkpoints")).unwrap();
        checkpoint::read(list.last().expect("a checkpoint")).unwrap()
    }

    /// The same weights, moments and rows; `tolerance` 0 is to the bit.
    fn same(&self, a: &str, b: &str, tolerance: f64) {
        let what = format!("{a} and {b}");
        let close = |x: f64, y: f64| x.to_bits() == y.to_bits() || (x - y).abs() <= tolerance * x.abs().max(y.abs());
        let (run, other) = (self.run(a), self.run(b));
        let timed = ["seconds", "samples_per_second"];
        let columns = |run: &RunSummary| {
            let all = run.steps.iter().chain(&run.epochs).cloned();
            all.filter(|(name, _)| !timed.contains(&name.as_str())).collect::<Vec<_>>()
        };
        let (columns, others) = (columns(&run), columns(&other));
        assert!(columns.len() >= 10 && columns.len() == others.len(), "{what}: {columns:?} and {others:?}");
        for ((name, x), (other, y)) in columns.iter().zip(&others) {
            assert_eq!((name, x.len()), (other, y.len()), "{what}: rows");
            let same = x.iter().zip(y).all(|(x, y)| close(*x, *y));
            assert!(same, "{what}: {name}\n{x:?}\n{y:?}");
        }
        for summary in [&run, &other] {
            let steps = summary.step_column("step").unwrap();
            assert!(steps.iter().enumerate().all(|(i, &step)| step == (i + 1) as f64), "{what}: {steps:?}");
            assert_eq!(summary.attribute("status"), Some("done"), "{what}");
            let epochs = summary.epoch_column("epoch").unwrap().len();
            assert!(summary.timing.iter().all(|(_, rows)| rows.len() == epochs), "{what}: a row of times an epoch");
        }
        assert_eq!(run.result.len(), other.result.len(), "{what}: final figures");
        let (last, other) = (self.last(a), self.last(b));
        assert_eq!((last.step, last.epoch, last.sample), (other.step, other.epoch, other.sample), "{what}");
        let tensors = |last: Checkpoint| -> Vec<_> {
            last.optimizer.into_iter().flat_map(|(_, tensors)| tensors).chain(last.model).collect()
        };
        for (x, y) in tensors(last).iter().zip(&tensors(other)) {
            assert_eq!((&x.key, &x.shape), (&y.key, &y.shape), "{what}");
            let largest = f64::from(x.data.iter().fold(0f32, |most, v| most.max(v.abs())));
            let off =
                |(x, y): (&f32, &f32)| x.to_bits() != y.to_bits() && f64::from((x - y).abs()) > tolerance * largest;
            let count = x.data.iter().zip(&y.data).filter(|&pair| off(pair)).count();
            assert_eq!(count, 0, "{what}: of {} elements of {}", x.data.len(), x.key);
        }
    }
}

#[test]
fn the_same_number_of_ranks_gives_the_same_bits() {
    for ranks in [0, 3] {
        let runs = Runs::new(&[]);
        runs.train("whole", ranks, &[]);
        // Inside the first epoch, after it, and inside the last.
        for step in [4, 7, 20] {
            let name = format!("from-{step}");
            runs.stopped("whole", &name, step);
            runs.train(&name, ranks, &["--resume"]);
            runs.same("whole", &name, 0.0);
        }
    }
}

#[test]
fn another_number_of_ranks_gives_the_same_to_rounding() {
    let runs = Runs::new(&[]);
    for (before, after) in [(4, 3), (1, 2)] {
        let [whole, resumed] = [format!("whole-on-{before}"), format!("resumed-on-{after}")];
        runs.train(&whole, before, &[]);
        runs.stopped(&whole, &resumed, 10);
        runs.train(&resumed, after, &["--resume"]);
        assert_eq!(runs.run(&resumed).attribute("ranks"), Some(after.to_string().as_str()));
        runs.same(&whole, &resumed, 1e-4);
    }
}

#[test]
fn resuming_a_first_run_is_harmless() {
    let runs = Runs::new(&[]);
    runs.train("whole", 0, &[]);
    runs.train("first", 0, &["--resume"]);
    runs.same("whole", "first", 0.0);
    // And so is resuming what is finished.
    runs.train("first", 0, &["--resume"]);
    runs.same("whole", "first", 0.0);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let runs = Runs::new(&[]);
    runs.train("whole", 0, &[]);
    runs.stopped("whole", "damaged", 10);
    let newest = runs.out("damaged/checkpoints/step-00000010.h5");
    let middle = fs::metadata(&newest).unwrap().len() / 2;
    let mut byte = [0];
    let file = fs::File::options().read(true).write(true).open(&newest).unwrap();
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let stderr = runs.train("damaged", 0, &["--resume"]);
    assert!(stderr.contains("step-00000010.h5"), "the damaged file is not named: {stderr}");
    runs.same("whole", "damaged", 0.0);
}

#[test]
fn a_finished_run_goes_on_with_more_epochs() {
    // The cosine depends on the number of epochs; a constant rate does not.
    let constant = "schedule.type=\"constant\"";
    let (short, long) = (Runs::new(&[constant, "train.epochs=2"]), Runs::new(&[constant]));
    long.train("whole", 0, &[]);
    short.train("longer", 0, &[]);
    fs::rename(short.out("longer"), long.out("longer")).unwrap();
    long.train("longer", 0, &["--resume"]);
    long.same("whole", "longer", 0.0);
}

#[test]
fn a_killed_run_goes_on() {
    let runs = Runs::new(&LONG);
    runs.train("whole", 0, &[]);
    let mut child = runs.start("killed", 0, 30);
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "it ended before it was killed");
    let after = runs.last("killed").step;
    assert!((30..7 * 100).contains(&after));
    // Of a run that is killed, every row up to its newest checkpoint is there.
    let rows = runs.run("killed").step_column("step").unwrap().len() as u64;
    assert!(rows >= after, "{rows} rows, but the newest checkpoint is of step {after}");
    runs.train("killed", 0, &["--resume"]);
    runs.same("whole", "killed", 0.0);
}

#[test]
fn a_job_that_lost_a_rank_goes_on() {
    let runs = Runs::new(&LONG);
    runs.train("whole", 2, &[]);
    let mut mpirun = runs.start("killed", 2, 30);
    let ranks = fs::read_to_string(format!("/proc/{0}/task/{0}/children", mpirun.id())).unwrap();
    let rank: i32 = ranks.split_whitespace().last().expect("mpirun has children").parse().unwrap();
    // SAFETY: no memory is touched.
    assert_eq!(unsafe { libc::kill(rank, libc::SIGKILL) }, 0);
    let status = mpirun.wait().unwrap();
    assert!(!status.success(), "it ended before a rank was killed");
    runs.train("killed", 2, &["--resume"]);
    runs.same("whole", "killed", 0.0);
}

#[test]
fn a_job_stops_on_request_and_goes_on() {
    for (ranks, signal) in [(0, libc::SIGTERM), (2, libc::SIGUSR1)] {
        let runs = Runs::new(&LONG);
        runs.train("whole", ranks, &[]);
        let mut child = runs.start("stopped", ranks, 15);
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert_eq!(child.wait().unwrap().code(), Some(75), "{ranks} ranks");
        assert_eq!(runs.run("stopped").attribute("status"), Some("stopped"));
        let rows = runs.run("stopped").step_column("step").unwrap().len() as u64;
        assert_eq!(rows, runs.last("stopped").step, "the newest checkpoint is where it stopped");
        runs.train("stopped", ranks, &["--resume"]);
        runs.same("whole", "stopped", 0.0);
    }
}

#[test]
fn exported_weights_evaluate_as_their_checkpoint() {
    let runs = Runs::new(&[]);
    runs.train("whole", 0, &[]);
    let weights = runs.out("weights.safetensors");
    let path = checkpoint::list(&runs.out("whole/checkpoints")).unwrap().pop().unwrap();
    let [from, to] = [&path, &weights].map(|path| path.display().to_string());
    ddl_ok(0, &["export", &from, "--to", &to]);
    let job = Job::parse(JOB, "job.toml", &[]).unwrap();
    let data = Dataset::open(&job.data, job.seed).unwrap();
    let [fresh, exported, saved] = [None, Some(&weights), Some(&path)].map(|file: Option<&PathBuf>| {
        let mut trainer = Trainer::build(&job, &data, &Solo).unwrap();
        file.iter().for_each(|file| load_weights(&mut trainer, file).unwrap());
        trainer.evaluate(&data, Part::Test).unwrap()
    });
    assert_eq!(exported, saved);
    assert_ne!(exported, fresh);
    let losses = runs.run("whole").epoch_column("test_loss").unwrap().to_vec();
    assert_eq!(losses.last(), Some(&exported.loss));
    assert_eq!(runs.last("whole").step, STEPS);
}

#[test]
fn weights_to_start_from_start_a_new_run() {
    let runs = Runs::new(&[]);
    runs.train("whole", 0, &[]);
    let path = checkpoint::list(&runs.out("whole/checkpoints")).unwrap().pop().unwrap();
    runs.train("more", 0, &["--init", &path.display().to_string()]);
    let [whole, more] = ["whole", "more"].map(|name| runs.run(name).step_column("loss").unwrap().to_vec());
    assert_eq!((whole.len(), more.len()), (STEPS as usize, STEPS as usize), "it starts at step 1");
    assert!(more[0] < 0.9 * whole[0], "{} is no better than {} of fresh weights", more[0], whole[0]);
    assert!(!Path::new(&runs.out("more/earlier-1")).exists());
}

#[test]
fn a_limit_of_steps_ends_a_run_whole_and_can_be_raised() {
    let runs = Runs::new(&[]);
    runs.train("whole", 0, &[]);
    // Inside the second epoch, then at its end, then none.
    runs.train("limited", 0, &["--set", "train.max_steps=10"]);
    let (run, last) = (runs.run("limited"), runs.last("limited"));
    assert_eq!((run.attribute("status"), run.step_column("step").unwrap().len()), (Some("done"), 10));
    assert_eq!(run.epoch_column("epoch").unwrap(), [1.0, 2.0]);
    assert!(run.epoch_column("test_accuracy").unwrap()[1].is_finite() && !run.result.is_empty());
    assert_eq!((last.step, last.epoch, last.sample), (10, 1, 96));
    runs.train("limited", 0, &["--set", "train.max_steps=14", "--resume"]);
    let last = runs.last("limited");
    assert_eq!((last.step, last.epoch, last.sample), (14, 2, 0));
    runs.train("limited", 0, &["--resume"]);
    runs.same("whole", "limited", 0.0);
}
