//! The run file: appended, resumed, read back, and never lost.

use ddl::store::{RunFile, RunInfo, RunSummary, StepRow, read_run};
use std::path::Path;

fn info<'a>(config: &'a str, ranks: usize, environment: &'a [(String, String)]) -> RunInfo<'a> {
    RunInfo { name: "blobs", config, ranks, commit: "abc", environment }
}

fn step(step: u64) -> StepRow {
    StepRow { step, loss: 1.0 / step as f64, lr: 0.1, grad_norm: step as f64 }
}

/// A run of 3 epochs of 4 steps on 2 ranks, left without `finish` as by a kill after a flush.
fn three_epochs(path: &Path) {
    let environment = [("host".to_string(), "n1,n2".to_string())];
    let mut run = RunFile::create(path, &info("seed = 1\n", 2, &environment)).unwrap();
    run.baseline("last_value", &[("test_mape", 1.5)]);
    for epoch in 1..=3u64 {
        let rows: Vec<StepRow> = (4 * epoch - 3..=4 * epoch).map(step).collect();
        run.steps(&rows);
        run.epoch(&[("epoch", epoch as f64), ("train_loss", 1.0 / epoch as f64)]).unwrap();
        run.timing(&[("data", &[0.1, 0.2]), ("forward", &[epoch as f64, 2.0])]);
        run.flush().unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// NaN equal to NaN.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn timing<'a>(run: &'a RunSummary, phase: &str) -> &'a [Vec<f64>] {
    &run.timing.iter().find(|(name, _)| name == phase).unwrap().1
}

#[test]
fn a_run_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results/blobs/run.h5");
    three_epochs(&path);
    let run = read_run(&path).unwrap();
    assert_eq!(run.attribute("status"), Some("running"));
    assert_eq!(run.attribute("format_version"), Some("1"));
    assert_eq!(run.attribute("ranks"), Some("2"));
    assert_eq!(run.attribute("ddl_version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(run.config, "seed = 1\n");
    assert_eq!(run.environment, [("host".to_string(), "n1,n2".to_string())]);
    assert_eq!(run.epochs[0].0, "epoch");
    assert_eq!(run.epoch_column("epoch"), Some(&[1.0, 2.0, 3.0][..]));
    assert_eq!(run.step_column("grad_norm").unwrap().len(), 12);
    assert_eq!(timing(&run, "forward"), [vec![1.0, 2.0], vec![2.0, 2.0], vec![3.0, 2.0]]);
    assert_eq!(run.baselines, [("last_value".to_string(), vec![("test_mape".to_string(), 1.5)])]);
    assert_eq!(names(path.parent().unwrap()), ["run.h5", "run.journal"], "no temporary file stays");
}

#[test]
fn a_column_that_comes_late_or_is_left_out_is_filled_with_nan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    let mut run = RunFile::create(&path, &info("", 1, &[])).unwrap();
    run.epoch(&[("epoch", 1.0), ("a", 1.0)]).unwrap();
    run.epoch(&[("epoch", 2.0), ("b", 2.0)]).unwrap();
    run.epoch(&[("epoch", 3.0), ("a", 3.0), ("b", 3.0)]).unwrap();
    run.timing(&[("data", &[1.0])]);
    run.timing(&[("forward", &[2.0])]);
    assert!(run.epoch(&[("a", 1.0)]).is_err(), "a row needs its epoch");
    run.result(&[("test_accuracy", 0.5)]);
    run.finish("done").unwrap();
    let run = read_run(&path).unwrap();
    assert_eq!(bits(run.epoch_column("a").unwrap()), bits(&[1.0, f64::NAN, 3.0]));
    assert_eq!(bits(run.epoch_column("b").unwrap()), bits(&[f64::NAN, 2.0, 3.0]));
    assert_eq!(bits(&timing(&run, "data").concat()), bits(&[1.0, f64::NAN]));
    assert_eq!(bits(&timing(&run, "forward").concat()), bits(&[f64::NAN, 2.0]));
    assert_eq!(run.attribute("status"), Some("done"));
    assert!(run.attribute("finished").is_some_and(|t| t.ends_with('Z') && t.len() == 20));
    assert_eq!(run.result, [("test_accuracy".to_string(), 0.5)]);
}

#[test]
fn resuming_cuts_rows_and_widens_the_timing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    three_epochs(&path);
    let started = read_run(&path).unwrap().attribute("started").unwrap().to_string();
    let mut run = RunFile::resume(&path, &info("seed = 2\n", 3, &[]), 2, 6).unwrap();
    run.steps(&[step(7), step(8)]);
    run.epoch(&[("epoch", 3.0), ("train_loss", 9.0), ("test_loss", 8.0)]).unwrap();
    run.timing(&[("data", &[7.0, 8.0, 9.0])]);
    run.finish("stopped").unwrap();

    let run = read_run(&path).unwrap();
    assert_eq!(run.attribute("started"), Some(started.as_str()));
    assert_eq!((run.attribute("ranks"), run.attribute("status")), (Some("3"), Some("stopped")));
    assert_eq!((run.config.as_str(), run.environment.len()), ("seed = 2\n", 0));
    assert_eq!(run.epoch_column("train_loss"), Some(&[1.0, 0.5, 9.0][..]));
    assert_eq!(bits(run.epoch_column("test_loss").unwrap()), bits(&[f64::NAN, f64::NAN, 8.0]));
    assert_eq!(run.step_column("step"), Some(&[1., 2., 3., 4., 5., 6., 7., 8.][..]));
    assert_eq!(bits(&timing(&run, "data")[1]), bits(&[0.1, 0.2, f64::NAN]));
    assert_eq!(timing(&run, "data")[2], [7.0, 8.0, 9.0]);

    // On fewer ranks the width is that of the rows that stay; rows that were cut do not shine through.
    let mut run = RunFile::resume(&path, &info("", 1, &[]), 1, 4).unwrap();
    run.epoch(&[("epoch", 2.0)]).unwrap();
    run.timing(&[("data", &[5.0])]);
    run.finish("done").unwrap();
    let run = read_run(&path).unwrap();
    assert_eq!(bits(run.epoch_column("train_loss").unwrap()), bits(&[1.0, f64::NAN]));
    assert_eq!(bits(&timing(&run, "data")[1]), bits(&[5.0, f64::NAN]));
}

#[test]
fn readers_see_the_run_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    let mut run = RunFile::create(&path, &info("", 1, &[])).unwrap();
    run.epoch(&[("epoch", 1.0)]).unwrap();
    run.flush().unwrap();
    let copy = dir.path().join("copy.h5");
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(read_run(&copy).unwrap().epoch_column("epoch"), Some(&[1.0][..]));
    assert_eq!(read_run(&path).unwrap().epoch_column("epoch"), Some(&[1.0][..]));
    run.epoch(&[("epoch", 2.0)]).unwrap();
    assert_eq!(read_run(&path).unwrap().epoch_column("epoch"), Some(&[1.0][..]), "not flushed yet");
    run.finish("done").unwrap();
    assert_eq!(read_run(&path).unwrap().epoch_column("epoch").unwrap().len(), 2);
}

#[test]
fn a_damaged_run_file_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    for (n, damage) in [&b"not HDF5"[..], b"", b"\x89HDF\r\n\x1a\n and then nothing"].iter().enumerate() {
        std::fs::write(&path, damage).unwrap();
        assert_eq!(read_run(&path).unwrap_err().exit_code(), 65);
        RunFile::resume(&path, &info("", 1, &[]), 1, 4).unwrap().finish("done").unwrap();
        assert_eq!(read_run(&path).unwrap().attribute("status"), Some("done"));
        let aside = ["run.h5.damaged", "run.h5.damaged-2", "run.h5.damaged-3"][n];
        assert_eq!(&std::fs::read(dir.path().join(aside)).unwrap(), damage);
    }
}

/// As a power failure or a stray hand may leave them.
#[test]
fn a_lost_run_file_is_made_again_from_its_journal_and_a_lost_journal_from_the_run_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    let whole = |path: &Path| {
        let run = read_run(path).unwrap();
        assert_eq!(run.step_column("step").unwrap().len(), 12);
        assert_eq!(run.epoch_column("train_loss").unwrap(), [1.0, 0.5, 1.0 / 3.0]);
        assert_eq!(run.baselines.len(), 1);
        assert_eq!(timing(&run, "forward"), [vec![1.0, 2.0], vec![2.0, 2.0], vec![3.0, 2.0]]);
    };
    for lost in ["run.h5", "run.journal"] {
        for damage in [None, Some(&b""[..]), Some(&[0; 5000][..]), Some(b"garbage")] {
            three_epochs(&path);
            match damage {
                Some(bytes) => std::fs::write(dir.path().join(lost), bytes).unwrap(),
                None => std::fs::remove_file(dir.path().join(lost)).unwrap(),
            }
            // The run file of a run that was killed may be older than the journal.
            RunFile::resume(&path, &info("", 1, &[]), 3, 12).unwrap().finish("done").unwrap();
            if lost == "run.h5" {
                whole(&path);
            }
            assert_eq!(read_run(&path).unwrap().attribute("status"), Some("done"));
            assert!(names(dir.path()).iter().all(|name| !name.ends_with(".tmp")));
        }
    }
    three_epochs(&path);
    RunFile::resume(&path, &info("", 1, &[]), 3, 12).unwrap().finish("done").unwrap();
    std::fs::remove_file(dir.path().join("run.journal")).unwrap();
    RunFile::resume(&path, &info("", 1, &[]), 3, 12).unwrap().finish("done").unwrap();
    whole(&path);
}

/// Flushes of a long run append; the run file is made now and then.
#[test]
fn a_flush_costs_the_same_however_long_the_run_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    let journal = || std::fs::metadata(dir.path().join("run.journal")).unwrap().len();
    let mut run = RunFile::create(&path, &info("", 1, &[])).unwrap();
    run.steps(&(1..=400_000).map(step).collect::<Vec<_>>());
    run.flush().unwrap();
    let (before, file) = (journal(), std::fs::metadata(&path).unwrap());
    for epoch in 1..=200u64 {
        run.steps(&[step(400_000 + epoch)]);
        run.epoch(&[("epoch", epoch as f64)]).unwrap();
        run.flush().unwrap();
    }
    assert!(journal() - before < 200 * 120, "{} bytes for 200 flushes", journal() - before);
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (file.len(), file.modified().unwrap()));
    run.finish("done").unwrap();
    assert_eq!(read_run(&path).unwrap().step_column("step").unwrap().len(), 400_200);
}

#[test]
fn a_missing_run_file_is_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    assert_eq!(read_run(&path).unwrap_err().exit_code(), 74);
    RunFile::resume(&path, &info("", 1, &[]), 0, 0).unwrap().finish("done").unwrap();
    assert_eq!(read_run(&path).unwrap().attribute("status"), Some("done"));
}

#[test]
fn what_stands_in_the_way_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let create = |path: &Path| RunFile::create(path, &info("", 1, &[])).err().unwrap();
    assert_eq!(create(&file.join("run.h5")).exit_code(), 74);
    assert_eq!(create(dir.path()).exit_code(), 74);
    let resumed = RunFile::resume(dir.path(), &info("", 1, &[]), 1, 1).err().unwrap();
    assert_eq!(resumed.exit_code(), 74);
}

#[test]
fn damage_is_found_before_hdf5_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    three_epochs(&path);
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 300) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(read_run(&path).unwrap_err().exit_code(), 65, "byte {at}");
        std::fs::write(&path, &good[..at]).unwrap();
        assert_eq!(read_run(&path).unwrap_err().exit_code(), 65, "cut at {at}");
    }
}
