//! What a kill or a full disk leaves behind. The parts that are killed, or whose files are limited in size, run as
//! child processes: this test program started again with an environment variable.

use ddl::arena::{Layout, Storage};
use ddl::input::Input;
use ddl::store::Best;
use ddl::store::{Progress, checkpoint};
use ddl::store::{RunFile, RunInfo, StepRow, read_run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "DDL_TEST_FOLDER";
const INFO: RunInfo = RunInfo { name: "n", config: "c", ranks: 1, commit: "", environment: &[] };

fn write_checkpoint(dir: &Path, step: u64, elements: usize) -> ddl::error::Result<PathBuf> {
    let (mut layout, none) = (Layout::default(), Layout::default());
    layout.push("0", "weight", &[elements], Storage::Plain);
    let params = vec![step as f32; layout.len()];
    let progress = Progress {
        step,
        epoch: 0,
        sample: 0,
        sums: [0.5, 3.0, 0.25, 8.0].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: 1,
        ranks: 1,
        config: "",
        products: "f32",
    };
    checkpoint::write(dir, &progress, (&layout, &params), (&none, &[]), &[("m", &params)])
}

fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Waits until `ready`, or panics after a minute.
fn wait_for(mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "the child does not get on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_kill_leaves_whole_checkpoints_and_a_readable_run() {
    if let Some(dir) = child_folder() {
        let mut run = RunFile::create(&dir.join("run.h5"), &INFO).unwrap();
        for step in 1.. {
            run.steps(&[StepRow { step, loss: 1.0, lr: 1.0, grad_norm: 1.0 }]);
            run.epoch(&[("epoch", step as f64), ("train_loss", 0.5)]).unwrap();
            run.timing(&[("data", &[1.0])]);
            run.flush().unwrap();
            write_checkpoint(&dir, step, 50_000).unwrap();
            checkpoint::prune(&dir, 3).unwrap();
        }
    }
    for round in 1..=5u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_leaves_whole_checkpoints_and_a_readable_run"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(|| checkpoint::list(dir.path()).unwrap().len() >= 2);
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let (found, damaged) = checkpoint::newest_good(dir.path()).unwrap();
        let (_, found) = found.unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        assert!(found.model[0].data.iter().all(|&v| v == found.step as f32));
        // A checkpoint follows a flush, so at least its rows are there, in the run file or in the journal.
        let path = dir.path().join("run.h5");
        read_run(&path).unwrap();
        RunFile::resume(&path, &INFO, found.step, found.step).unwrap().finish("done").unwrap();
        let run = read_run(&path).unwrap();
        assert_eq!(run.step_column("step").unwrap().len() as u64, found.step);
        assert!(run.epoch_column("train_loss").unwrap().iter().all(|&v| v == 0.5));
        checkpoint::prune(dir.path(), 1).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "a checkpoint, the run and its journal");
    }
}

/// A limit on the size of files fails as a full disk does: in the middle of a write.
#[cfg(unix)]
#[test]
fn a_full_disk_costs_nothing_that_was_saved() {
    if let Some(dir) = child_folder() {
        write_checkpoint(&dir, 1, 10).unwrap();
        for elements in [100_000, 1_000_000] {
            let error = write_checkpoint(&dir, 2, elements).unwrap_err();
            assert_eq!(error.exit_code(), 74);
            assert!(error.to_string().contains("step-00000002.h5: cannot write the checkpoint"), "{error}");
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let (found, damaged) = checkpoint::newest_good(&dir).unwrap();
        assert_eq!((found.unwrap().1.step, damaged.len()), (1, 0));

        let path = dir.join("run.h5");
        let mut run = RunFile::create(&path, &INFO).unwrap();
        run.epoch(&[("epoch", 1.0)]).unwrap();
        run.flush().unwrap();
        let rows = vec![StepRow { step: 1, loss: 1.0, lr: 1.0, grad_norm: 1.0 }; 100_000];
        let error = {
            run.steps(&rows);
            run.flush().unwrap_err()
        };
        assert_eq!(error.exit_code(), 74);
        drop(run);
        // A resumption that cannot be written leaves the file as it was.
        let long = "x".repeat(1_000_000);
        let before = std::fs::read(&path).unwrap();
        let error = RunFile::resume(&path, &RunInfo { config: &long, ..INFO }, 1, 1).err().unwrap();
        assert_eq!(error.exit_code(), 74);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 500; exec \"$0\" --exact a_full_disk_costs_nothing_that_was_saved"])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("HDF5-DIAG"), "HDF5 wrote to the terminal: {text}");
}
