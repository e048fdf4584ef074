//! A run's folder: one run at a time, no input lost, a changed job told or refused; and an output that cannot be written.

mod support;

use ddl::store::{checkpoint, read_run};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{ddl, run};

const JOB: &str = r#"name = "t"
seed = 1
[data]
source = "csv"
path = "DATA"
target = "y"
[model]
layers = [{ type = "linear", out_features = 4 }, { type = "relu" }, { type = "linear", out_features = 1 }]
[loss]
type = "mse"
[optimizer]
type = "adam"
[train]
epochs = 2
batch_size = 16
micro_batch = 4
checkpoint_steps = 1
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write_rows(100);
        let job = JOB.replace("DATA", &folder.path("data.csv").display().to_string());
        fs::write(folder.path("job.toml"), job).unwrap();
        folder
    }

    fn write_rows(&self, rows: usize) {
        let rows = (0..rows).map(|i| format!("{},{},{}\n", i % 7, i % 5, (i % 7) * 2 + i % 5));
        fs::write(self.path("data.csv"), "a,b,y\n".to_owned() + &rows.collect::<String>()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn train(&self, more: &[&str]) -> Output {
        let (job, out) = (self.path("job.toml").display().to_string(), self.path("out").display().to_string());
        ddl(0, &[&["train", &job, "--out", &out], more].concat())
    }

    fn newest(&self) -> PathBuf {
        checkpoint::list(&self.path("out/checkpoints")).unwrap().pop().expect("a checkpoint")
    }
}

#[track_caller]
fn ended_with(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_second_run_is_turned_away_and_the_first_goes_on() {
    let folder = Folder::new();
    let (job, out) = (folder.path("job.toml"), folder.path("out"));
    let long =
        ["--set", "train.epochs=1000000", "--set", "train.checkpoint_steps=0", "--set", "train.checkpoint_every=50"];
    let mut first = Command::new(env!("CARGO_BIN_EXE_ddl"));
    first.arg("train").arg(&job).arg("--out").arg(&out).args(long).stdout(Stdio::null());
    let mut first = first.spawn().unwrap();
    let began = Instant::now();
    while checkpoint::list(&out.join("checkpoints")).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
    let who = format!("process {} on ", first.id());
    for more in [&[][..], &["--resume"], &["--set", "seed=2"]] {
        ended_with(&folder.train(more), 2, &["another run writes into this folder", &who, "another folder with --out"]);
    }
    assert!(first.try_wait().unwrap().is_none(), "the first run ended");
    assert!(!folder.path("out/earlier-1").exists());
    // The lock dies with its holder, however that ends.
    first.kill().unwrap();
    first.wait().unwrap();
    let step = checkpoint::read(&folder.newest()).unwrap().step;
    ended_with(&folder.train(&["--resume", "--set", &format!("train.max_steps={}", step + 1)]), 0, &[]);
    assert!(!folder.path("out/run.lock").exists());
}

#[test]
fn no_command_writes_over_its_input() {
    let folder = Folder::new();
    ended_with(&folder.train(&[]), 0, &[]);
    let (newest, data) = (folder.newest(), folder.path("data.csv"));
    let (soft, hard) = (folder.path("soft.h5"), folder.path("hard.h5"));
    std::os::unix::fs::symlink(&newest, &soft).unwrap();
    fs::hard_link(&newest, &hard).unwrap();
    let text = |path: &PathBuf| path.display().to_string();
    let before = (fs::read(&newest).unwrap(), fs::read(&data).unwrap());
    for out in [&newest, &soft, &hard, &data] {
        let output = ddl(0, &["predict", &text(&newest), "--input", &text(&data), "--out", &text(out)]);
        ended_with(&output, 2, &["is the input", "would be lost", "choose another name"]);
    }
    let weights = folder.path("w.safetensors");
    std::os::unix::fs::symlink(&newest, &weights).unwrap();
    ended_with(&ddl(0, &["export", &text(&newest), "--to", &text(&weights)]), 2, &["is the input"]);
    assert!((fs::read(&newest).unwrap(), fs::read(&data).unwrap()) == before);
}

#[test]
fn a_changed_job_is_refused_or_told() {
    let folder = Folder::new();
    ended_with(&folder.train(&["--set", "train.epochs=1"]), 0, &[]);
    let file = folder.newest().display().to_string();
    for (change, said) in [
        ("model.layers.1.type=tanh", "model.layers[1].type was \"relu\", is \"tanh\""),
        ("loss.type=mae", "loss.type was \"mse\", is \"mae\""),
        ("data.target=a", "data.target was \"y\", is \"a\""),
        ("data.normalize=\"minmax\"", "data.normalize was \"standard\", is \"minmax\""),
        ("optimizer.type=lamb", "optimizer.type was \"adam\", is \"lamb\""),
        ("seed=2", "seed was 1, is 2"),
    ] {
        let output = folder.train(&["--resume", "--set", change]);
        ended_with(&output, 2, &[&file, "the job has changed since", said, "--init", "another --out"]);
    }
    // Other rows under the same name: a run cannot stand at a sample that is not there.
    fs::remove_file(folder.newest()).unwrap();
    folder.write_rows(50);
    ended_with(&folder.train(&["--resume"]), 2, &["stands at sample 64", "the data has 40", "another --out"]);
    folder.write_rows(100);
    let output = folder.train(&["--resume", "--set", "optimizer.lr=0.5", "--set", "train.keep_checkpoints=2"]);
    ended_with(&output, 0, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("note   optimizer.lr was 0.001, is 0.5 from here on"), "{text}");
    assert!(!text.contains("keep_checkpoints"), "{text}");
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_does_not_start_anew() {
    let folder = Folder::new();
    ended_with(&folder.train(&[]), 0, &[]);
    let checkpoints = checkpoint::list(&folder.path("out/checkpoints")).unwrap();
    for path in &checkpoints {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let before = fs::read(folder.path("out/run.h5")).unwrap();
    ended_with(&folder.train(&["--resume"]), 65, &["all 3 checkpoints are damaged", "without --resume", "earlier-1"]);
    assert!(fs::read(folder.path("out/run.h5")).unwrap() == before);
    ended_with(&folder.train(&[]), 0, &[]);
    assert!(fs::read(folder.path("out/earlier-1/run.h5")).unwrap() == before);
    assert_eq!(fs::read_dir(folder.path("out/earlier-1/checkpoints")).unwrap().count(), 3);
    // Without checkpoints there is nothing to go on from; what is known of the run before is kept.
    fs::remove_dir_all(folder.path("out/checkpoints")).unwrap();
    ended_with(&folder.train(&["--resume"]), 0, &[]);
    assert_eq!(read_run(&folder.path("out/earlier-2/run.h5")).unwrap().attribute("status"), Some("done"));
}

#[test]
fn results_that_cannot_be_printed_are_a_failure() {
    let folder = Folder::new();
    ended_with(&folder.train(&[]), 0, &[]);
    let newest = folder.newest().display().to_string();
    for args in [&["inspect", &newest][..], &["evaluate", &newest, "--json"], &["evaluate", &newest], &["doctor"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
        command.args(args).stdout(full).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        ended_with(&output, 74, &["standard output: cannot be written: No space left on device"]);
    }
    // A reader that has seen enough is none.
    let pipe = format!("'{}' inspect '{newest}' | head -1", env!("CARGO_BIN_EXE_ddl"));
    let output = run(Command::new("bash").args(["-c", &format!("set -o pipefail; {pipe}")]), Duration::from_secs(60));
    ended_with(&output, 0, &[]);
}

#[test]
fn quiet_means_results_only() {
    let folder = Folder::new();
    let (loud, quiet) = (folder.train(&[]), folder.train(&["-q"]));
    let [loud, said] = [&loud, &quiet].map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(loud.contains("epoch 1/2") && loud.contains("plan   1 rank"), "{loud}");
    assert!(!said.contains("epoch 1/2") && !said.contains("plan") && said.contains("metrics"), "{said}");
    assert!(quiet.stderr.is_empty(), "{quiet:?}");
}

#[test]
fn a_wrong_setting_is_blamed_on_itself() {
    let folder = Folder::new();
    for (setting, place) in [
        ("train.batch_size=0", "--set train.batch_size=0, train.batch_size: is 0"),
        ("model.layers.1.type=rely", "--set model.layers.1.type=rely, model.layers[1].type: unknown type \"rely\""),
        ("train.epochs=many", "--set train.epochs=many, train.epochs: invalid type"),
        ("optimizer.lr=-1", "--set optimizer.lr=-1, optimizer.lr: is -1"),
        ("data.taget=y", "--set data.taget=y, data.taget: unknown key `taget`"),
    ] {
        ended_with(&folder.train(&["--set", setting]), 2, &[place]);
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
    command.arg("train").arg(folder.path("job.toml")).env("DDL_TRAIN_BATCH_SIZE", "0");
    ended_with(
        &run(&mut command, Duration::from_secs(60)),
        2,
        &["environment variable DDL_TRAIN_BATCH_SIZE, train.batch_size: is 0"],
    );
}
