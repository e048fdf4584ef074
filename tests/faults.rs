//! Every write, sync, rename and open in a run's folder fails once, in turn: the run says so, or its files are good; and
//! what was saved goes on to the same bits.

mod support;

use ddl::store::{RunSummary, checkpoint, read_run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use support::run;

const JOB: &str = r#"name = "t"
seed = 1
[data]
source = "synthetic"
shape = [8]
values = 1
samples = 64
test_samples = 16
[model]
layers = [{ type = "linear", out_features = 4 }, { type = "relu" }, { type = "linear", out_features = 1 }]
[loss]
type = "mse"
[optimizer]
type = "adam"
[train]
epochs = 2
batch_size = 16
checkpoint_steps = 2
keep_checkpoints = 1
"#;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct Folder {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Folder {
    /// None where there is no C compiler; MPI's own wrapper needs one, so that is rare.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("fail_io.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/fail_io.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        if !built.is_ok_and(|output| output.status.success()) {
            eprintln!("no C compiler: not tested");
            return None;
        }
        fs::write(folder.path().join("job.toml"), JOB).unwrap();
        Some(Self { folder, library })
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Trains; the call `at` fails, or none if it is 0.
    fn train(&self, at: u32, errno: i32, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
        command.arg("train").arg(self.folder.path().join("job.toml")).arg("--out").arg(self.out()).args(more);
        command.env("LD_PRELOAD", &self.library).env("FAIL_BELOW", self.out());
        command.env("FAIL_AT", at.to_string()).env("FAIL_WITH", errno.to_string());
        command.env("FAIL_COUNT", self.folder.path().join("count"));
        run(&mut command, Duration::from_secs(60))
    }

    fn calls(&self) -> u32 {
        fs::read_to_string(self.folder.path().join("count")).unwrap().trim().parse().unwrap()
    }

    /// The newest checkpoint's weights and moments.
    fn weights(&self) -> Vec<u32> {
        let newest = checkpoint::list(&self.out().join("checkpoints")).unwrap().pop().expect("a checkpoint");
        let found = checkpoint::read(&newest).unwrap();
        let tensors = found.model.iter().chain(found.optimizer.iter().flat_map(|(_, tensors)| tensors));
        tensors.flat_map(|tensor| tensor.data.iter().map(|v| v.to_bits())).collect()
    }

    fn history(&self) -> RunSummary {
        read_run(&self.out().join("run.h5")).unwrap()
    }
}

/// What a run learnt, without times.
fn learnt(run: &RunSummary) -> Vec<Vec<u64>> {
    let columns = ["train_loss", "test_loss", "lr"].map(|name| run.epoch_column(name).unwrap());
    let steps = ["step", "loss", "grad_norm"].map(|name| run.step_column(name).unwrap());
    columns.into_iter().chain(steps).map(|values| values.iter().map(|v| v.to_bits()).collect()).collect()
}

/// All HDF5 files of a run are whole, whatever happened.
fn all_whole(out: &Path) {
    for path in checkpoint::list(&out.join("checkpoints")).unwrap() {
        checkpoint::read(&path).unwrap_or_else(|e| panic!("{e}"));
    }
    let run = out.join("run.h5");
    if run.exists() {
        read_run(&run).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn each_failing_call_is_told_or_harms_nothing() {
    let Some(folder) = Folder::new() else { return };
    assert_eq!(folder.train(0, EIO, &[]).status.code(), Some(0));
    let (calls, weights, history) = (folder.calls(), folder.weights(), learnt(&folder.history()));
    assert!(calls > 60, "only {calls} calls were seen");
    let mut told = 0;
    for at in 1..=calls {
        fs::remove_dir_all(folder.out()).unwrap();
        let errno = if at % 3 == 0 { ENOSPC } else { EIO };
        let output = folder.train(at, errno, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        all_whole(&folder.out());
        match code {
            Some(74) => {
                told += 1;
                let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
                assert!(lines.len() == 1 && !text.contains("panicked"), "call {at}: {text}");
                let output = folder.train(0, EIO, &["--resume"]);
                assert_eq!(output.status.code(), Some(0), "call {at}, resumed: {output:?}");
            }
            Some(0) => assert_eq!(folder.history().attribute("status"), Some("done"), "call {at}"),
            _ => panic!("call {at} with errno {errno}: {output:?}"),
        }
        assert!(folder.weights() == weights, "call {at}: other weights");
        assert!(learnt(&folder.history()) == history, "call {at}: another history");
        // The call that failed may be the removal of the last but one.
        assert!(checkpoint::list(&folder.out().join("checkpoints")).unwrap().len() <= 2, "call {at}");
    }
    assert!(told > calls / 2, "{told} of {calls} failures were told");
}
